//! The JSON of the API pages: lists in two forms, times to the second, content and output as Base64 unless a request
//! asks for plain text.

pub(crate) mod document;
mod flat;
pub(crate) mod lenient;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use serde::de::{self, Deserialize, Deserializer};
use serde::{Serialize, Serializer};
use uuid::Uuid;

/// How content travels. Any other spelling of a request means the default of its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub enum ContentEncoding {
    /// As it is.
    PlainText,
    /// The standard alphabet, padded.
    #[default]
    Base64,
}

impl ContentEncoding {
    /// Reads a request's `ContentEncoding`, whatever its case; `None` if it names no encoding.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::PlainText, Self::Base64]
            .into_iter()
            .find(|encoding| text.eq_ignore_ascii_case(encoding.as_str()))
    }

    /// Bytes as text in the plainest encoding that can hold them, and that encoding.
    pub(crate) fn of(bytes: &[u8]) -> (String, Self) {
        match std::str::from_utf8(bytes) {
            Ok(text) => (text.to_owned(), Self::PlainText),
            Err(_) => (to_base64(bytes), Self::Base64),
        }
    }

    /// The name on the pages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlainText => "PlainText",
            Self::Base64 => "Base64",
        }
    }
}

/// Bytes of content or output, and how a response writes them.
///
/// As JSON it is one string. Reading it back takes Base64, the encoding of every response that was
/// not asked for in plain text.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    bytes: Vec<u8>,
    encoding: ContentEncoding,
}

impl Encoded {
    pub(crate) fn new(bytes: Vec<u8>, encoding: ContentEncoding) -> Self {
        Self { bytes, encoding }
    }

    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes as text; bytes that are not UTF-8 are replaced.
    pub fn to_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

/// Only the length, because scripts and outputs may hold secrets that must not get into a log.
impl std::fmt::Debug for Encoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.bytes.len())
    }
}

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.encoding {
            ContentEncoding::PlainText => serializer.serialize_str(&self.to_text()),
            ContentEncoding::Base64 => serializer.serialize_str(&to_base64(&self.bytes)),
        }
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = from_base64(&text).map_err(de::Error::custom)?;
        Ok(Self { bytes, encoding: ContentEncoding::Base64 })
    }
}

/// A field that the pages' services have a use for and this library has none: read, whatever it
/// holds, and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// A request of the pages: its own fields, and those that every request of theirs may have and that
/// mean nothing here.
macro_rules! page_request {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$own_about:meta])* pub $own:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$own_about])* pub $own: $type,)*
            /// Read and not used; this library has no regions.
            #[serde(skip_serializing)]
            pub region_id: $crate::wire::Ignored,
            /// Read and not used; this library has no accounts.
            #[serde(skip_serializing)]
            pub owner_account: $crate::wire::Ignored,
            /// Read and not used.
            #[serde(skip_serializing)]
            pub owner_id: $crate::wire::Ignored,
            /// Read and not used.
            #[serde(skip_serializing)]
            pub resource_owner_account: $crate::wire::Ignored,
            /// Read and not used.
            #[serde(skip_serializing)]
            pub resource_owner_id: $crate::wire::Ignored,
        }
    };
}
pub(crate) use page_request;

/// An answer: the name of the call, and its own fields.
macro_rules! page_response {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$own_about:meta])* pub $own:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        #[non_exhaustive]
        pub struct $name {
            /// Names this call.
            pub request_id: String,
            $($(#[$own_about])* pub $own: $type,)*
        }
    };
}
pub(crate) use page_response;

/// Bytes to Base64 with the standard alphabet and padding.
pub(crate) fn to_base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64.encode(bytes)
}

/// Base64 to bytes; the error says where it is broken.
pub(crate) fn from_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    BASE64.decode(text)
}

/// The length that `bytes` have as Base64.
pub(crate) const fn base64_len(bytes: usize) -> usize {
    bytes.div_ceil(3).saturating_mul(4)
}

/// As much of a text as a message has room for.
pub(crate) fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    const CHARS_MAX: usize = 60;
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A record of a listing that cannot be understood, reported in the place of the record. Other records of the page
/// are complete.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct UnreadableRecord {
    /// The id of the record, or `row N` if the id cannot be read either.
    pub id: String,
    /// The error: the fault of the record.
    pub error: String,
}

/// A fresh `RequestId`, for answers that the host makes itself.
pub fn request_id() -> String {
    Uuid::new_v4().hyphenated().to_string().to_uppercase()
}

/// Times as `yyyy-MM-ddTHH:mm:ssZ`, nothing for none.
pub(crate) mod time {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc};

    pub(crate) fn serialize<S: Serializer>(
        time: &DateTime<Utc>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&time.format("%Y-%m-%dT%H:%M:%SZ"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::deserialize(d)
    }

    /// The same for a time that may not have come yet: null.
    pub(crate) mod nullable {
        use super::{DateTime, Deserialize, Deserializer, Serializer, Utc};

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<DateTime<Utc>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Option<DateTime<Utc>>, D::Error> {
            Option::deserialize(d)
        }
    }

    /// The same for a time that may not have come yet: an empty string.
    pub(crate) mod optional {
        use super::{DateTime, Deserialize, Deserializer, Serializer, Utc};

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<DateTime<Utc>>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, serializer),
                None => serializer.serialize_str(""),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Option<DateTime<Utc>>, D::Error> {
            let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
            if text.is_empty() {
                return Ok(None);
            }
            text.parse().map(Some).map_err(serde::de::Error::custom)
        }
    }
}

/// A module for `#[serde(with)]` that puts a list into one more object, as in
/// `"Commands": {"Command": [...]}`.
macro_rules! wrapped_list {
    ($module:ident, $key:literal) => {
        pub(crate) mod $module {
            use serde::{Deserialize, Deserializer, Serialize, Serializer};

            #[derive(Serialize, Deserialize)]
            struct Wrapped<T> {
                #[serde(rename = $key)]
                list: T,
            }

            pub(crate) fn serialize<T: Serialize, S: Serializer>(
                list: &[T],
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                Wrapped { list }.serialize(serializer)
            }

            pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Vec<T>, D::Error> {
                Ok(Wrapped::deserialize(deserializer)?.list)
            }
        }
    };
}
pub(crate) use wrapped_list;

/// Methods of a request that set its fields, in the style of all requests: each takes the request and returns it.
/// `some` wraps the value of an optional field, `number` the same without a conversion, `given` and `known` a value that must name one of a set, in an optional
/// field and in another, `set` sets a field as it is, `is` sets a field to true, and `tags` adds to the list of tags.
/// `Given` and `Tag` are those of the module that uses this.
macro_rules! setters {
    ($name:ident { $($kind:ident $field:ident $(: $type:ty)?, $about:literal;)+ }) => {
        impl $name {
            $($crate::wire::setter!($kind $field $(: $type)?, $about);)+
        }
    };
}

macro_rules! setter {
    (some $field:ident: $type:ty, $about:literal) => {
        #[doc = $about]
        #[must_use]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = Some($field.into());
            self
        }
    };
    (number $field:ident: $type:ty, $about:literal) => {
        #[doc = $about]
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = Some($field);
            self
        }
    };
    (given $field:ident: $type:ty, $about:literal) => {
        #[doc = $about]
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = Some(Given::Known($field));
            self
        }
    };
    (known $field:ident: $type:ty, $about:literal) => {
        #[doc = $about]
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = Given::Known($field);
            self
        }
    };
    (set $field:ident: $type:ty, $about:literal) => {
        #[doc = $about]
        #[must_use]
        pub fn $field(mut self, $field: impl Into<$type>) -> Self {
            self.$field = $field.into();
            self
        }
    };
    (is $field:ident, $about:literal) => {
        #[doc = $about]
        #[must_use]
        pub fn $field(mut self) -> Self {
            self.$field = true;
            self
        }
    };
    (tags $field:ident, $about:literal) => {
        #[doc = $about]
        #[must_use]
        pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
            self.$field.push(Tag::new(key, value));
            self
        }
    };
}

pub(crate) use {setter, setters};

/// The names of an enum's values: as the pages write them, they are the names in the source.
macro_rules! text_enum {
    ($name:ident, $what:literal, [$($value:ident),+]) => {
        impl $name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$value),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => stringify!($value),)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let named = Self::ALL.iter().find(|value| value.as_str() == text);
                named.copied().ok_or_else(|| format!(concat!("`{}` is no ", $what), text))
            }
        }
    };
}
pub(crate) use text_enum;

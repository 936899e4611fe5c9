//! Ids. The id of a command or an invocation is a time-ordered UUID (version 7) behind a one-letter prefix. The
//! database numbers executions, and the host names instances.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::de::{self, Deserialize, Deserializer};
use serde::{Serialize, Serializer};
use uuid::{ContextV7, Timestamp, Uuid};

/// One counter for the process: two ids made in the same millisecond still sort as they were made.
static ORDER: std::sync::Mutex<Option<ContextV7>> = std::sync::Mutex::new(None);

fn uuid_at(now: DateTime<Utc>) -> Uuid {
    let mut order = ORDER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let context = order.get_or_insert_with(ContextV7::new);
    let seconds = now.timestamp().max(0).cast_unsigned();
    Uuid::new_v7(Timestamp::from_unix(&*context, seconds, now.timestamp_subsec_nanos()))
}

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no {kind}: want `{prefix}` and 32 hexadecimal digits")]
pub struct ParseIdError {
    text: String,
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal, $long_prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id; ids made later sort later.
            pub(crate) fn new(now: DateTime<Utc>) -> Self {
                Self(uuid_at(now))
            }

            pub(crate) fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            pub(crate) fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The other spelling, which is read too: the prefix that some pages have.
            pub(crate) fn to_long_form(self) -> String {
                format!(concat!($long_prefix, "{}"), self.0.simple())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .or_else(|| text.strip_prefix($long_prefix))
                    .filter(|hex| hex.len() == 32)
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or_else(|| ParseIdError {
                        text: text.to_owned(),
                        kind: $kind,
                        prefix: $prefix,
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

text_id!(
    /// The id of a command: `c-` and 32 hexadecimal digits. `cmd-` with the digits is read too.
    CommandId, "command id", "c-", "cmd-"
);
text_id!(
    /// The id of an invocation: `t-` and 32 hexadecimal digits. `inv-` with the digits is read too.
    InvokeId, "invocation id", "t-", "inv-"
);

impl InvokeId {
    /// Returns the bytes of the first and the last id that begin so; `None` if no id does.
    pub(crate) fn range_of(beginning: &str) -> Option<([u8; 16], [u8; 16])> {
        let digits = beginning.strip_prefix("t-").or_else(|| beginning.strip_prefix("inv-"))?;
        let fits = digits.len() <= 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let end = |digit: char| {
            let whole: String = digits.chars().chain(std::iter::repeat(digit)).take(32).collect();
            Uuid::try_parse(&whole).ok().map(Uuid::into_bytes)
        };
        if fits { end('0').zip(end('f')) } else { None }
    }
}

impl CommandId {
    /// The id of a command that exists for one invocation only: the same digits, so that neither
    /// needs a row to find the other.
    pub(crate) fn of_invocation(invoke_id: InvokeId) -> Self {
        Self(invoke_id.0)
    }
}

/// An execution: the record of one fire on one instance. Numbered in the order of creation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct ExecutionId(pub(crate) i64);

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An instance, by the name the host application gave it, such as `i-web-1`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<&str> for InstanceId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for InstanceId {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&InstanceId> for InstanceId {
    fn from(id: &InstanceId) -> Self {
        id.clone()
    }
}

impl Serialize for InstanceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InstanceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_they_were_made_and_survive_text() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
        let ids: Vec<InvokeId> = (0..1000).map(|_| InvokeId::new(now)).collect();
        assert!(ids.is_sorted());
        for id in ids {
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_long_form().parse(), Ok(id));
            assert_eq!(id.to_string().len(), 34);
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "t-",
            "c-0123",
            "x-0190a0b0c0d0e0f0a0b0c0d0e0f0a0b0",
            "t-0190a0b0-c0d0-e0f0-a0b0-c0d0e0f0a0b0",
        ] {
            assert!(text.parse::<InvokeId>().is_err(), "{text}");
        }
    }
}

//! Values of requests that must name a member of a set. A value is kept as the request gave it until the check, so
//! that the check finds all faults of a request at once.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Violation;
use crate::id::{CommandId, InvokeId};
use crate::wire::shortened;

/// The value of a field that must name a member of a set, as the request gave it.
///
/// # A member of the set, and another value
///
/// ```
/// use adjutant::{Given, RepeatMode, RunCommand};
///
/// let mut request = RunCommand::shell("true").on(["local"]);
/// assert_eq!(request.repeat_mode, RepeatMode::Once.into());
/// request.repeat_mode = Given::Unknown("Sometimes".to_owned());
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = adjutant::Engine::open_in_memory().await?;
/// let error = engine.run_command(request).await.unwrap_err();
/// assert_eq!(error.code(), "InvalidRepeatMode.NotFound");
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given<T> {
    /// One of the set.
    Known(T),
    /// Another text, or an empty one; requests with it are refused.
    Unknown(String),
}

impl<T> Given<T> {
    /// Nothing was given.
    pub(crate) fn nothing() -> Self {
        Self::Unknown(String::new())
    }
}

impl<T: PartialEq> Given<T>
where
    Self: Default,
{
    /// Returns whether the value is the default.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl<T: Copy> Given<T> {
    /// The value, or the violation that `refuse` makes of the text.
    pub(crate) fn known(
        &self,
        found: &mut Vec<Violation>,
        refuse: impl FnOnce(&str) -> Violation,
    ) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Unknown(text) => {
                found.push(refuse(text));
                None
            }
        }
    }
}

/// The violation of a value that is none of its set.
pub(crate) fn unknown(
    code: &'static str,
    status: u16,
    field: &'static str,
    text: &str,
    want: &str,
) -> Violation {
    let message = match text {
        "" => format!("want {want}; it is missing"),
        text => format!("want {want}; it is `{}`", shortened(text)),
    };
    Violation::new(code, status, field, message)
}

impl<T: Default> Default for Given<T> {
    fn default() -> Self {
        Self::Known(T::default())
    }
}

/// Nothing: there is no command that is meant if none is named.
impl Default for Given<CommandId> {
    fn default() -> Self {
        Self::nothing()
    }
}

/// Nothing, likewise.
impl Default for Given<InvokeId> {
    fn default() -> Self {
        Self::nothing()
    }
}

impl<T> From<T> for Given<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: fmt::Display> fmt::Display for Given<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Unknown(text) => f.pad(text),
        }
    }
}

impl<T: fmt::Display> Serialize for Given<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Of text, or of the text of a number.
impl<'de, T: FromStr> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_any(Text)?;
        Ok(text.parse().map_or_else(|_| Self::Unknown(text), Self::Known))
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a number")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
}

//! Numbers and booleans that may be written as text, as the pages' own clients write them.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A value that is what it is or its text, in any case.
struct Lenient<T>(T);

/// Reads a value that may be written as text.
pub(crate) fn value<'de, T: Scalar, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Lenient::deserialize(d)?.0)
}

/// Reads a value that may be missing or written as text; an empty one is missing.
pub(crate) fn optional<'de, T: Scalar, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    d.deserialize_any(ScalarVisitor(PhantomData))
}

/// What can be written as text.
pub(crate) trait Scalar: FromStr + Sized {
    const EXPECTED: &'static str;

    fn of_bool(_: bool) -> Option<Self> {
        None
    }

    fn of_number(_: u64) -> Option<Self> {
        None
    }

    fn of_fraction(_: f64) -> Option<Self> {
        None
    }
}

impl Scalar for bool {
    const EXPECTED: &'static str = "true or false";

    fn of_bool(value: bool) -> Option<Self> {
        Some(value)
    }
}

impl Scalar for u64 {
    const EXPECTED: &'static str = "a whole number that is not negative";

    fn of_number(value: u64) -> Option<Self> {
        Some(value)
    }
}

impl Scalar for usize {
    const EXPECTED: &'static str = "a whole number that is not negative";

    fn of_number(value: u64) -> Option<Self> {
        value.try_into().ok()
    }
}

impl Scalar for f64 {
    const EXPECTED: &'static str = "a number that is not negative";

    fn of_number(value: u64) -> Option<Self> {
        Some(value as f64)
    }

    fn of_fraction(value: f64) -> Option<Self> {
        Some(value)
    }
}

impl<'de, T: Scalar> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ScalarVisitor(PhantomData))?;
        value.map(Lenient).ok_or_else(|| de::Error::custom(format!("want {}", T::EXPECTED)))
    }
}

struct ScalarVisitor<T>(PhantomData<T>);

impl<T: Scalar> ScalarVisitor<T> {
    fn expect<E: de::Error>(
        self,
        value: Option<T>,
        given: de::Unexpected<'_>,
    ) -> Result<Option<T>, E> {
        match value {
            Some(value) => Ok(Some(value)),
            None => Err(E::invalid_value(given, &self)),
        }
    }
}

impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Option<T>, E> {
        self.expect(T::of_bool(value), de::Unexpected::Bool(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Option<T>, E> {
        self.expect(T::of_number(value), de::Unexpected::Unsigned(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Option<T>, E> {
        self.expect(T::of_fraction(value), de::Unexpected::Float(value))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<T>, E> {
        match text.trim().to_ascii_lowercase() {
            text if text.is_empty() => Ok(None),
            lower => self.expect(lower.parse().ok(), de::Unexpected::Str(text)),
        }
    }

    fn visit_unit<E: de::Error>(self) -> Result<Option<T>, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Request {
        #[serde(default, deserialize_with = "super::value")]
        keep: bool,
        #[serde(default, deserialize_with = "super::optional")]
        timeout: Option<u64>,
    }

    #[test]
    fn text_is_understood() {
        let check = |json: &str, keep, timeout| {
            let request: Request = serde_json::from_str(json).expect(json);
            assert_eq!(request, Request { keep, timeout }, "{json}");
        };
        check(r#"{"Keep":true,"Timeout":60}"#, true, Some(60));
        check(r#"{"Keep":"True","Timeout":"60"}"#, true, Some(60));
        check(r#"{"Keep":"false","Timeout":null}"#, false, None);
        check(r#"{"Timeout":""}"#, false, None);
    }

    #[test]
    fn other_things_are_refused() {
        for json in [
            r#"{"Keep":1}"#,
            r#"{"Keep":"yes"}"#,
            r#"{"Keep":""}"#,
            r#"{"Timeout":-1}"#,
            r#"{"Timeout":1.5}"#,
            r#"{"Timeout":"1 h"}"#,
            r#"{"Timeout":true}"#,
            r#"{"Timeout":[60]}"#,
        ] {
            let error = serde_json::from_str::<Request>(json).expect_err(json);
            assert!(error.to_string().contains("expected") || error.to_string().contains("want"));
        }
    }
}

//! The script itself: out of its encoding, within its size.

use std::sync::Arc;

use crate::error::Violation;
use crate::limits::Limits;
use crate::wire::{self, ContentEncoding};

/// The bytes of a script. Cheap to clone.
pub(crate) type Content = Arc<[u8]>;

/// The largest content, in the unit of the limits of a request. Because Base64 writes three bytes as four, the unit
/// changes only the messages, not the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentMax {
    bytes_max: usize,
    is_base64: bool,
}

impl ContentMax {
    /// Returns the largest content of a command that is kept or invoked.
    pub(crate) const fn kept(limits: &Limits) -> Self {
        let is_base64 = limits.content_is_counted_as_base64;
        Self { bytes_max: limits.kept_content_bytes_max, is_base64 }
    }

    /// Returns the largest content of a command that is run without being kept.
    pub(crate) const fn unkept(limits: &Limits) -> Self {
        let is_base64 = limits.content_is_counted_as_base64;
        Self { bytes_max: limits.unkept_content_bytes_max, is_base64 }
    }

    /// Returns a limit on the bytes of the content itself, such as [`bytes`](Self::bytes) has put on record.
    pub(crate) const fn of_bytes(bytes_max: usize) -> Self {
        Self { bytes_max, is_base64: false }
    }

    /// Returns the bytes of the largest content.
    pub(crate) const fn bytes(self) -> usize {
        match self.is_base64 {
            true => (self.bytes_max / 4).saturating_mul(3),
            false => self.bytes_max,
        }
    }

    /// Checks content of so many bytes; `with` says what the bytes include beside the script.
    pub(crate) fn check(self, bytes: usize, with: &str) -> Result<(), Violation> {
        if bytes <= self.bytes() {
            return Ok(());
        }
        let (unit, size) = match self.is_base64 {
            true => (" as Base64", wire::base64_len(bytes)),
            false => ("", bytes),
        };
        let message = format!("want at most {} bytes{unit}{with}; it has {size}", self.bytes_max);
        Err(Violation::new("CmdContent.ExceedLimit", 403, FIELD, message))
    }
}

/// The field of requests that has the content.
const FIELD: &str = "CommandContent";

/// Takes content out of its encoding and measures it; the limit is the same whatever form the content came in.
pub(crate) fn check(
    text: &str,
    encoding: ContentEncoding,
    max: ContentMax,
    found: &mut Vec<Violation>,
) -> Option<Content> {
    let bytes = match encoding {
        ContentEncoding::PlainText => text.as_bytes().to_vec(),
        ContentEncoding::Base64 => {
            match wire::from_base64(text) {
                Ok(bytes) => bytes,
                Err(error) => {
                    found.push(Violation::new(
                    "CmdContent.DecodeError",
                    400,
                    FIELD,
                    format!("it is no Base64: {error}; give ContentEncoding PlainText for plain text"),
                ));
                    return None;
                }
            }
        }
    };
    if bytes.is_empty() {
        found.push(Violation::new(
            "MissingParameter.CommandContent",
            400,
            FIELD,
            "it is empty; give the script to run",
        ));
    }
    if let Err(violation) = max.check(bytes.len(), "") {
        found.push(violation);
        // Nothing more is asked of it.
        return None;
    }
    Some(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_decoded_and_measured() {
        let check = |text: &str, encoding, want: Result<&[u8], &str>| {
            let mut found = Vec::new();
            let max = ContentMax { bytes_max: 8, is_base64: true };
            let content = check(text, encoding, max, &mut found);
            match want {
                Ok(bytes) => {
                    assert_eq!(found, [], "{text}");
                    assert_eq!(content.as_deref(), Some(bytes), "{text}");
                }
                Err(code) => assert_eq!(found.first().map(|v| v.code), Some(code), "{text}"),
            }
        };
        check("echo 1", ContentEncoding::PlainText, Ok(b"echo 1"));
        check("echo 12", ContentEncoding::PlainText, Err("CmdContent.ExceedLimit"));
        check("/wA=", ContentEncoding::Base64, Ok(&[0xff, 0]));
        check("/wA", ContentEncoding::Base64, Err("CmdContent.DecodeError"));
        check("echo 1", ContentEncoding::Base64, Err("CmdContent.DecodeError"));
        check("", ContentEncoding::Base64, Err("MissingParameter.CommandContent"));
    }

    #[test]
    fn a_size_is_told_in_the_unit_of_its_limit() {
        let check = |max: ContentMax, bytes: usize, want: Option<&str>| {
            let told = max.check(bytes, " with values").err().map(|violation| violation.message);
            assert_eq!(told.as_deref(), want, "{max:?} {bytes}");
        };
        let base64 = ContentMax::unkept(&Limits::alibaba());
        check(base64, 18_432, None);
        check(base64, 18_433, Some("want at most 24576 bytes as Base64 with values; it has 24580"));
        let plain = ContentMax::unkept(&Limits::embedded());
        check(plain, 1 << 20, None);
        let want = "want at most 1048576 bytes with values; it has 1048577";
        check(plain, (1 << 20) + 1, Some(want));
        for bytes_max in 0..20 {
            let max = ContentMax { bytes_max, is_base64: true };
            for bytes in 0..20 {
                let fits = wire::base64_len(bytes) <= bytes_max;
                assert_eq!(bytes <= max.bytes(), fits, "{bytes} of {bytes_max}");
            }
        }
    }
}

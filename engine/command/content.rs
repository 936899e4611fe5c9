//! The script itself: out of its encoding, within its size.

use std::sync::Arc;

use crate::error::Violation;
use crate::wire::{self, ContentEncoding};

/// The bytes of a script. Cheap to clone.
pub(crate) type Content = Arc<[u8]>;

/// Takes content out of its encoding and measures it; the limit is on the length of its Base64
/// form, whatever form it came in.
pub(crate) fn check(
    text: &str,
    encoding: ContentEncoding,
    base64_bytes_max: usize,
    found: &mut Vec<Violation>,
) -> Option<Content> {
    const FIELD: &str = "CommandContent";
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
    let base64_bytes = wire::base64_len(bytes.len());
    if base64_bytes > base64_bytes_max {
        found.push(Violation::new(
            "CmdContent.ExceedLimit",
            403,
            FIELD,
            format!("want at most {base64_bytes_max} bytes as Base64; it has {base64_bytes}"),
        ));
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
            let content = check(text, encoding, 8, &mut found);
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
}

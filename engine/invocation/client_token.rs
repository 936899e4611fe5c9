//! Client tokens: what makes a request safe to repeat.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::Violation;
use crate::limits::Limits;
use crate::operation::Operation;

/// A token and what it was first given with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientToken {
    pub token: String,
    /// Whose it is; empty if the host does not say.
    pub caller: String,
    /// Of the request, whatever the order in which it was written.
    pub request_sha256: [u8; 32],
}

impl ClientToken {
    /// The token of a request, if it has one that may be.
    pub(crate) fn of<R: Serialize>(
        token: Option<&str>,
        operation: Operation,
        request: &R,
        limits: &Limits,
        found: &mut Vec<Violation>,
    ) -> Option<Self> {
        let token = token.filter(|token| !token.is_empty())?;
        let (max, chars) = (limits.client_token_chars_max, token.chars().count());
        let why = if chars > max {
            format!("want at most {max} characters; it has {chars}")
        } else if !token.is_ascii() {
            "want ASCII characters only".to_owned()
        } else {
            return Some(Self {
                token: token.to_owned(),
                caller: String::new(),
                request_sha256: fingerprint(operation, request),
            });
        };
        found.push(Violation::new("InvalidClientToken.Malformed", 400, "ClientToken", why));
        None
    }
}

impl ClientToken {
    /// The same as a token of this caller.
    pub(crate) fn by(self, caller: Option<&str>) -> Self {
        Self { caller: caller.unwrap_or_default().to_owned(), ..self }
    }
}

/// A request in short. What is not given in it has no part in this, so that a field that a later
/// version adds changes nothing.
fn fingerprint<R: Serialize>(operation: Operation, request: &R) -> [u8; 32] {
    // As a value its fields are sorted. A request is plain data, so this cannot fail.
    let mut document = serde_json::to_value(request).unwrap_or_default();
    if let Some(fields) = document.as_object_mut() {
        fields.remove("ClientToken");
    }
    Sha256::digest(format!("{operation} {document}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_short_ascii() {
        let check = |token: &str, fits: bool| {
            let mut found = Vec::new();
            let checked = ClientToken::of(
                Some(token),
                Operation::RunCommand,
                &(),
                &Limits::alibaba(),
                &mut found,
            );
            assert_eq!(
                (checked.is_some(), found.is_empty()),
                (fits, fits || token.is_empty()),
                "{token}"
            );
        };
        check("123e4567-e89b-12d3-a456-426655440000", true);
        check(&"t".repeat(64), true);
        check(&"t".repeat(65), false);
        check("tökén", false);
        check("", false);
    }
}

//! What went wrong, in the one form that the terminal, `--json` and the control socket share.

use std::fmt;

use adjutant::Error;
use serde::{Deserialize, Serialize};

/// The code of a command line that could not be understood; it alone has exit status 2.
const USAGE: &str = "Usage";

/// The library's code for a file that another process runs.
const IN_USE: &str = "Storage.InUse";

/// The code of a conversation that the other side broke off.
const LOST: &str = "Control.Lost";

/// A failure, with everything the caller of a script or of the socket needs to act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Failure {
    code: String,
    message: String,
    http_status: u16,
    violations: Vec<Violation>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Violation {
    code: String,
    http_status: u16,
    field: String,
    message: String,
}

/// What an operation of the pages answers where it fails.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ErrorResponse {
    code: String,
    message: String,
    request_id: String,
    violations: Vec<Violation>,
}

impl Failure {
    /// A failure of the program itself; the library's own come through `From`.
    pub(crate) fn new(code: &str, http_status: u16, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), http_status, violations: Vec::new() }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, 400, message)
    }

    /// The system refused something that the program needs.
    pub(crate) fn system(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::new("System.Refused", 500, format!("cannot {what}: {error}"))
    }

    /// The process that runs the file broke off; what it was asked may have happened or not.
    pub(crate) fn lost() -> Self {
        Self::new(
            LOST,
            503,
            "the process that runs the database ended before it answered; `adjutant ps` shows what it did",
        )
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.code == LOST
    }

    /// Another process runs the database.
    pub(crate) fn is_in_use(&self) -> bool {
        self.code == IN_USE
    }

    /// Where the machine itself is missing, says how to get it back.
    pub(crate) fn with_way_back_to_local(mut self) -> Self {
        if self.message.contains("no instance `local` is registered") {
            self.message.push_str("; `adjutant instances add local` brings it back");
        }
        self
    }

    /// As the pages' services answer it.
    pub(crate) fn into_response(self) -> ErrorResponse {
        ErrorResponse {
            code: self.code,
            message: self.message,
            request_id: adjutant::request_id(),
            violations: self.violations,
        }
    }

    /// 2 if the command line is at fault, 1 for everything else.
    pub(crate) fn exit_status(&self) -> u8 {
        if self.code == USAGE { 2 } else { 1 }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let violations = error.violations().iter().map(Violation::from).collect();
        Self {
            code: error.code().to_owned(),
            message: error.to_string(),
            http_status: error.http_status(),
            violations,
        }
    }
}

impl From<adjutant::tencent::Error> for Failure {
    fn from(error: adjutant::tencent::Error) -> Self {
        Self {
            code: error.code.to_owned(),
            message: error.message.clone(),
            http_status: error.http_status(),
            violations: error.violations.iter().map(Violation::from).collect(),
        }
    }
}

impl From<&adjutant::Violation> for Violation {
    fn from(violation: &adjutant::Violation) -> Self {
        Self {
            code: violation.code.to_owned(),
            http_status: violation.http_status,
            field: violation.field.to_owned(),
            message: violation.message.clone(),
        }
    }
}

/// One line, whatever is in the message: a file name may hold a line break or an escape sequence.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.message))?;
        // Violations carry their codes in the message already.
        if self.violations.is_empty() { write!(f, " ({})", self.code) } else { Ok(()) }
    }
}

/// The text with every control character written out.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::usage("bad\nname\x1b[31m");
        assert_eq!(failure.to_string(), "bad\\nname\\u{1b}[31m (Usage)");
        assert_eq!(failure.exit_status(), 2);
    }

    #[test]
    fn a_failure_survives_the_wire() {
        let failure = Failure::from(Error::ShuttingDown);
        let json = serde_json::to_string(&failure).expect("plain data");
        assert!(json.starts_with(r#"{"Code":"ServiceUnavailable","Message":"#), "{json}");
        assert_eq!(serde_json::from_str::<Failure>(&json).expect("what was written"), failure);
    }
}

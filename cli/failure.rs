//! What went wrong, in the one form that the terminal, `--json` and the control socket share.

use std::fmt;

use adjutant::Error;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::Profile;

/// The code of a command line that could not be understood; it alone has exit status 2.
const USAGE: &str = "Usage";

/// The library's code for a file that another process runs.
pub(crate) const IN_USE: &str = "Storage.InUse";

/// The code of a conversation that the other side broke off.
const LOST: &str = "Control.Lost";

/// The code of a request that the other side was not there to take.
const UNSENT: &str = "Control.Unsent";

/// The advice where this process may open no more files.
const MORE_FILES: &str = "raise `ulimit -n`";

/// A failure, with everything the caller of a script or of the socket needs to act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Failure {
    code: String,
    message: String,
    http_status: u16,
    violations: Vec<Violation>,
    /// What the failed call is named, if it has been given a name where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

/// The options that set the fields of requests.
const OPTIONS: [(&str, &str); 33] = [
    ("ClientToken", "--client-token"),
    ("CommandContent", "SCRIPT"),
    ("ConcurrencyKey", "--key"),
    ("ContainerId", "--container-id"),
    ("ContainerName", "--container"),
    ("Deadline", "--deadline"),
    ("Description", "--description"),
    ("EndTime", "--until"),
    ("Executor", "--executor"),
    ("Frequency", "--frequency"),
    ("Launcher", "--launcher"),
    ("MaxConcurrency", "--max-concurrency"),
    ("MaxErrors", "--max-errors"),
    ("MaxFires", "--times"),
    ("MissedPolicy", "--missed"),
    ("Name", "--name"),
    ("OssOutputDelivery", "--output-to"),
    ("Priority", "--priority"),
    ("Reason", "--reason"),
    ("ResourceGroupId", "--group"),
    ("ResourceLimits", "--limit"),
    ("ResourceTag", "--on-tag"),
    ("Retry.BackoffSeconds", "--retry-backoff"),
    ("Retry.MaxAttempts", "--retry"),
    ("Retry.MaxBackoffSeconds", "--retry-backoff"),
    ("Spread", "--spread"),
    ("StartDeadline", "--start-deadline"),
    ("Tag", "--tag"),
    ("Timeout", "--timeout"),
    ("Username", "--user"),
    ("WaveSoak", "--wave-soak"),
    ("Waves", "--waves"),
    ("WorkingDir", "--workdir"),
];

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Violation {
    code: String,
    http_status: u16,
    field: String,
    message: String,
}

impl Violation {
    /// Its line, with the option that sets the field beside its name.
    fn told(&self) -> String {
        let Self { code, field, message, .. } = self;
        match OPTIONS.iter().find(|(name, _)| name == field) {
            Some((_, option)) => format!("{field} ({option}): {message} ({code})"),
            None => format!("{field}: {message} ({code})"),
        }
    }
}

impl Failure {
    /// A failure of the program itself; the library's own come through `From`.
    pub(crate) fn new(code: &str, http_status: u16, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            http_status,
            violations: Vec::new(),
            request_id: None,
        }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(USAGE, 400, message)
    }

    /// The system refused something that the program needs.
    pub(crate) fn system(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let mut message = format!("cannot {what}: {error}");
        if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) {
            message.push_str("; ");
            message.push_str(MORE_FILES);
        }
        Self::new("System.Refused", 500, message)
    }

    /// The process that runs the file broke off; what it was asked may have happened or not.
    pub(crate) fn lost() -> Self {
        Self::new(
            LOST,
            503,
            "the process that runs the database ended before it answered; `adjutant ps` shows what it did",
        )
    }

    /// The process that runs the file had ended before it was asked.
    pub(crate) fn unsent() -> Self {
        Self::new(UNSENT, 503, "the process that runs the database has ended; nothing was done")
    }

    /// There was no answer, whatever has been done.
    pub(crate) fn is_lost(&self) -> bool {
        self.code == LOST || self.is_unsent()
    }

    /// Nothing has been done.
    pub(crate) fn is_unsent(&self) -> bool {
        self.code == UNSENT
    }

    /// The engine that was asked takes no new work.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.code == Error::ShuttingDown.code()
    }

    /// Another process runs the database.
    pub(crate) fn is_in_use(&self) -> bool {
        self.code == IN_USE
    }

    /// Where the machine itself is missing, says how to get it back.
    pub(crate) fn with_way_back_to_local(mut self) -> Self {
        for violation in &mut self.violations {
            if violation.message == "no instance `local` is registered" {
                violation.message.push_str("; `adjutant instances add local` brings it back");
            }
        }
        self
    }

    /// Says it in the words of the command line, where the library's are those of requests.
    pub(crate) fn in_words_of_options(mut self) -> Self {
        const THEIRS: &str = "give ContentEncoding PlainText for plain text";
        const OURS: &str = "leave out --base64 for plain text";
        for violation in &mut self.violations {
            violation.message = violation.message.replace(THEIRS, OURS);
        }
        if !self.violations.is_empty() {
            let told: Vec<_> = self.violations.iter().map(Violation::told).collect();
            self.message = told.join("; ");
        }
        self
    }

    /// As the service of these pages answers it.
    pub(crate) fn into_answer(self, profile: Profile) -> Value {
        let id = self.request_id.unwrap_or_else(adjutant::request_id);
        let said = json!({ "Code": self.code, "Message": self.message });
        match profile {
            Profile::Alibaba => {
                let mut answer = said;
                answer["RequestId"] = id.into();
                answer["Violations"] = json!(self.violations);
                answer
            }
            Profile::Tencent => {
                json!({ "Response": { "Error": said, "RequestId": id.to_lowercase() } })
            }
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
            request_id: None,
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
            request_id: Some(error.request_id),
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

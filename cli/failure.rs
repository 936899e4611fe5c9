//! What went wrong, in the one form that the terminal, `--json` and the control socket share.

use std::fmt;

use adjutant::Error;
use adjutant::control::{Refusal, RefusedField};
use rustix::io::Errno;
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::Profile;
use crate::plain::one_line;

/// The code of a command line that could not be understood; it alone has exit status 2.
const USAGE: &str = "Usage";

/// The library's code for a file that another process runs.
pub(crate) const IN_USE: &str = "Storage.InUse";

/// The code of a conversation that the other side broke off.
const LOST: &str = "Control.Lost";

/// The code of an owner that says nothing.
const SILENT: &str = "Control.Silent";

/// The code of a request that the other side was not there to take.
const UNSENT: &str = "Control.Unsent";

/// The advice where this process may open no more files.
const MORE_FILES: &str = "raise `ulimit -n`";

/// A failure, with everything the caller of a script or of the socket needs to act on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Failure(Refusal);

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

/// Returns the line of one thing that is wrong, with the option that sets the field beside its name.
fn told(violation: &RefusedField) -> String {
    let RefusedField { code, field, message, .. } = violation;
    match OPTIONS.iter().find(|(name, _)| name == field) {
        Some((_, option)) => format!("{field} ({option}): {message} ({code})"),
        None => format!("{field}: {message} ({code})"),
    }
}

impl Failure {
    /// A failure of the program itself; the library's own come through `From`.
    pub(crate) fn new(code: &str, http_status: u16, message: impl Into<String>) -> Self {
        Self(Refusal::new(code, http_status, message))
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

    /// The process that runs the file says nothing, although it works or is suspended. A request that it has been sent
    /// is carried out if it goes on.
    pub(crate) fn silent(pid: Option<u32>) -> Self {
        let process = match pid {
            Some(pid) => format!("the process that runs the database (pid {pid})"),
            None => "the process that runs the database".to_owned(),
        };
        Self::new(SILENT, 504, format!("{process} does not answer"))
    }

    /// Returns whether the process that runs the file says nothing.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.code == SILENT
    }

    /// There was no answer, whatever has been done.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.code == LOST || self.is_unsent()
    }

    /// Nothing has been done.
    pub(crate) fn is_unsent(&self) -> bool {
        self.0.code == UNSENT
    }

    /// The engine that was asked takes no new work.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.0.code == Error::ShuttingDown.code()
    }

    /// Another process runs the database.
    pub(crate) fn is_in_use(&self) -> bool {
        self.0.code == IN_USE
    }

    /// Where the machine itself is missing, says how to get it back.
    pub(crate) fn with_way_back_to_local(mut self) -> Self {
        for violation in &mut self.0.violations {
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
        const TOO_LARGE: &str = "CmdContent.ExceedLimit";
        const FROM_THERE: &str = "keep a longer script in a file on the instance, and run that: `adjutant run 'sh /path/to/script'`";
        for violation in &mut self.0.violations {
            violation.message = violation.message.replace(THEIRS, OURS);
            if violation.code == TOO_LARGE {
                violation.message.push_str("; ");
                violation.message.push_str(FROM_THERE);
            }
        }
        if !self.0.violations.is_empty() {
            let told: Vec<_> = self.0.violations.iter().map(told).collect();
            self.0.message = told.join("; ");
        }
        self
    }

    /// As the service of these pages answers it.
    pub(crate) fn into_answer(self, profile: Profile) -> Value {
        let id = self.0.request_id.unwrap_or_else(adjutant::request_id);
        let said = json!({ "Code": self.0.code, "Message": self.0.message });
        match profile {
            Profile::Alibaba => {
                let mut answer = said;
                answer["RequestId"] = id.into();
                answer["Violations"] = json!(self.0.violations);
                answer
            }
            Profile::Tencent => {
                json!({ "Response": { "Error": said, "RequestId": id.to_lowercase() } })
            }
        }
    }

    /// 2 if the command line is at fault, 1 for everything else.
    pub(crate) fn exit_status(&self) -> u8 {
        if self.0.code == USAGE { 2 } else { 1 }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error.into())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// One line, whatever is in the message: a file name may hold a line break or an escape sequence.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0.message))?;
        // Violations carry their codes in the message already.
        if self.0.violations.is_empty() { write!(f, " ({})", self.0.code) } else { Ok(()) }
    }
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

    /// Such characters hide a part of a line, reverse it, or make one name look like another.
    #[test]
    fn what_nobody_sees_is_written_as_an_escape() {
        let hidden =
            "db\u{200b}-1 \u{202e}txt \u{2066}a\u{2069} b\u{2028}c\u{2029} \u{ad} \u{9b}2J\u{7f}";
        let want = "db\\u{200b}-1 \\u{202e}txt \\u{2066}a\\u{2069} b\\u{2028}c\\u{2029} \\u{ad} \\u{9b}2J\\u{7f}";
        assert_eq!(one_line(hidden), want);
        assert_eq!(one_line("Zürich 数据 ✓"), "Zürich 数据 ✓");
    }

    #[test]
    fn a_failure_survives_the_wire() {
        let failure = Failure::from(Error::ShuttingDown);
        let json = serde_json::to_string(&failure).expect("plain data");
        assert!(json.starts_with(r#"{"Code":"ServiceUnavailable","Message":"#), "{json}");
        let read = serde_json::from_str::<Refusal>(&json).expect("what was written");
        assert_eq!(Failure::from(read), failure);
    }
}

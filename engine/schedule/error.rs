//! Why a schedule is refused: its text is wrong ([`ParseError`]), or the text is right and the
//! host's limits say no ([`Refusal`]).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// The code under which every refused schedule is reported.
const CODE: &str = "InvalidParam.Frequency";

/// How much of the offending text an error repeats.
const FOUND_CHARS_MAX: usize = 40;

/// A text that is no schedule: where it goes wrong and what was expected there.
///
/// # Example: a zone with a leading zero
///
/// ```
/// use adjutant::schedule::Schedule;
///
/// let error = "0 0 8 * * ? GMT+08:00".parse::<Schedule>().unwrap_err();
/// assert_eq!(error.code(), "InvalidParam.Frequency");
/// assert_eq!(error.offset(), 12);
/// assert_eq!(error.suggestion(), Some("GMT+8:00"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    offset: usize,
    expected: Cow<'static, str>,
    found: String,
    suggestion: Option<String>,
    remark: Option<String>,
}

impl ParseError {
    /// The stable code, the same for every refused schedule.
    pub fn code(&self) -> &'static str {
        CODE
    }

    /// The byte of the text at which it stops being a schedule.
    ///
    /// Equal to the text's length where something is missing at its end.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What would have been right at [`offset`](Self::offset).
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// The nearest valid spelling of what stands at [`offset`](Self::offset), where one is near.
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
    }

    /// Returns what the text is, if it is in the language of another program: `this is a crontab
    /// line`, with the part that has no counterpart here.
    pub fn remark(&self) -> Option<&str> {
        self.remark.as_deref()
    }

    /// An error at `offset`; `rest` is the offending text, cut to a readable length.
    pub(super) fn new(offset: usize, expected: impl Into<Cow<'static, str>>, rest: &str) -> Self {
        let mut found: String = rest.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < rest.len() {
            found.push('…');
        }
        let found = found.replace(['\t', '\n', '\r'], " ");
        ParseError { offset, expected: expected.into(), found, suggestion: None, remark: None }
    }

    pub(super) fn remarked(mut self, remark: String) -> Self {
        self.remark = Some(remark);
        self
    }

    /// The same error at another place of another text.
    pub(super) fn moved(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    pub(super) fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }

    /// The same error as seen from a longer text that holds this one at `by`.
    pub(super) fn shifted(mut self, by: usize) -> Self {
        self.offset += by;
        self
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid schedule at byte {}: expected {}, found ", self.offset, self.expected)?;
        match self.found.as_str() {
            "" => f.write_str("its end")?,
            found => write!(f, "`{found}`")?,
        }
        if let Some(remark) = &self.remark {
            write!(f, "; {remark}")?;
        }
        match &self.suggestion {
            Some(suggestion) => write!(f, "; did you mean `{suggestion}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ParseError {}

/// A schedule that reads well but may not be used.
///
/// Returned by [`Timetable::validate`](super::Timetable::validate).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Two fires can be closer to each other than the limit allows.
    TooFrequent {
        /// The smallest distance the schedule can produce.
        interval: Duration,
        /// The smallest distance allowed.
        min: Duration,
    },
    /// A rate's interval is longer than the limit allows.
    TooRare {
        /// The rate's interval.
        interval: Duration,
        /// The longest interval allowed.
        max: Duration,
    },
    /// The next fire can come before the run of the last one has timed out.
    WithinTimeout {
        /// The smallest distance the schedule can produce.
        interval: Duration,
        /// The timeout of one run.
        timeout: Duration,
        /// The longest timeout that would do.
        timeout_max: Duration,
    },
    /// An `at` whose instant is not after now.
    Past {
        /// The instant the schedule names.
        at: DateTime<Utc>,
        /// The instant it was checked at.
        now: DateTime<Utc>,
    },
    /// A cron expression without any fire after now.
    Finished {
        /// The instant it was checked at.
        now: DateTime<Utc>,
    },
}

impl Refusal {
    /// The stable code, the same for every refused schedule.
    pub fn code(&self) -> &'static str {
        CODE
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |at: &DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        match self {
            Refusal::TooFrequent { interval, min } => write!(
                f,
                "fires come as close as {} s to each other, at least {} s are required",
                interval.as_secs(),
                min.as_secs()
            ),
            Refusal::TooRare { interval, max } => write!(
                f,
                "the interval of {} s is longer than the {} s allowed",
                interval.as_secs(),
                max.as_secs()
            ),
            Refusal::WithinTimeout { interval, timeout, timeout_max } => write!(
                f,
                "the interval of {} s is too short for a timeout of {} s; want a timeout of at most {} s",
                interval.as_secs(),
                timeout.as_secs(),
                timeout_max.as_secs()
            ),
            Refusal::Past { at, now } => {
                write!(f, "{} is not after now, {}", text(at), text(now))
            }
            Refusal::Finished { now } => write!(f, "the schedule never fires after {}", text(now)),
        }
    }
}

impl std::error::Error for Refusal {}

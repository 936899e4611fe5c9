//! Trying again: how often an execution is tried, after what, and how long after it.

use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::given::{Given, unknown};
use crate::limits::Limits;
use crate::status::Cause;
use crate::wire::{lenient, text_enum};

/// How an attempt may have ended that is followed by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// With an exit code other than 0, or by a signal of its own.
    Failed,
    /// It ran longer than its timeout.
    Timeout,
    /// Its executor could not start it or see it through.
    Error,
    /// It could not be delivered to the instance, or the host did not let it start.
    Aborted,
    /// The engine was shut down or crashed while the attempt ran. Because nobody knows how far the attempt had come,
    /// this outcome is not among the defaults: name it, or use [`Retry::idempotent`].
    Interrupted,
}

text_enum!(RetryOn, "outcome", [Failed, Timeout, Error, Aborted, Interrupted]);

impl RetryOn {
    /// What an execution that ended by this cause may be tried again for; nothing if it succeeded,
    /// was stopped, or does not suit the instance and never will.
    const fn of(cause: Cause) -> Option<Self> {
        match cause {
            Cause::ExitedNonzero => Some(Self::Failed),
            Cause::TimedOut => Some(Self::Timeout),
            Cause::Broke => Some(Self::Error),
            Cause::Undeliverable => Some(Self::Aborted),
            Cause::Interrupted => Some(Self::Interrupted),
            _ => None,
        }
    }
}

/// How often an execution that did not succeed is tried again, and when. Each attempt has a record of
/// its own; the last one on an instance says how the invocation stands there. What was stopped,
/// replaced or cancelled is never tried again.
///
/// # Waits of 5, 10 and 20 seconds
///
/// ```
/// use adjutant::{Retry, RetryOn, RunCommand};
///
/// let retry = Retry::attempts(4).backoff(5).on([RetryOn::Failed, RetryOn::Timeout]);
/// let request = RunCommand::shell("curl -f https://example.com").on(["local"]).retry(retry);
/// assert_eq!(
///     serde_json::to_value(&request)?["Retry"],
///     serde_json::json!({
///         "MaxAttempts": 4, "BackoffSeconds": 5, "BackoffFactor": 2.0, "On": ["Failed", "Timeout"],
///     }),
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Retry {
    /// How often it is tried at most, the first time included: 1 to 100; 3 if not given.
    #[serde(deserialize_with = "lenient::value")]
    pub max_attempts: u64,
    /// Seconds from the end of the first attempt to the second, at most a day; 1 if not given. The wait keeps its
    /// length if the clock is set meanwhile.
    #[serde(deserialize_with = "lenient::value")]
    pub backoff_seconds: u64,
    /// How many times as long as the wait before it each wait is, 1 to 10; 2 if not given.
    #[serde(deserialize_with = "lenient::value")]
    pub backoff_factor: f64,
    /// The longest wait in seconds, at most a day; 300 if not given, or the first wait if that is longer.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub max_backoff_seconds: Option<u64>,
    /// After what it is tried again; all but [`RetryOn::Interrupted`] if not given.
    pub on: Vec<Given<RetryOn>>,
}

/// By the value of each field. The factor is compared bit by bit, so that this holds of any.
impl PartialEq for Retry {
    fn eq(&self, other: &Self) -> bool {
        let whole =
            |retry: &Self| (retry.max_attempts, retry.backoff_seconds, retry.max_backoff_seconds);
        whole(self) == whole(other)
            && self.backoff_factor.to_bits() == other.backoff_factor.to_bits()
            && self.on == other.on
    }
}

impl Eq for Retry {}

impl Default for Retry {
    fn default() -> Self {
        use RetryOn::{Aborted, Error, Failed, Timeout};
        Self {
            max_attempts: 3,
            backoff_seconds: 1,
            backoff_factor: 2.0,
            max_backoff_seconds: None,
            on: [Failed, Timeout, Error, Aborted].map(Given::Known).into(),
        }
    }
}

const FACTOR_MAX: f64 = 10.0;
/// The longest wait where a request does not say: long enough for most outages to be over.
const MAX_BACKOFF_S: u64 = 300;

impl Retry {
    /// Tries so often at most, the first time included.
    pub fn attempts(max: u64) -> Self {
        Self { max_attempts: max, ..Self::default() }
    }

    /// Returns a rule of at most `max` attempts, the first included, after each outcome without success, also if the
    /// engine ended while the attempt ran ([`RetryOn::Interrupted`]). Because nobody knows how far an interrupted
    /// attempt had come, this is for work that may run twice without harm.
    ///
    /// # A report that a deploy may cut off
    ///
    /// ```
    /// use adjutant::{Retry, RunCommand};
    ///
    /// let report = RunCommand::shell("make report").on(["local"]).retry(Retry::idempotent(5));
    /// # let _ = report;
    /// ```
    pub fn idempotent(max: u64) -> Self {
        Self::attempts(max).on(RetryOn::ALL.iter().copied())
    }

    /// Sets the seconds from the end of the first attempt to the second.
    #[must_use]
    pub fn backoff(mut self, seconds: u64) -> Self {
        self.backoff_seconds = seconds;
        self
    }

    /// Makes each wait so many times as long as the one before it.
    #[must_use]
    pub fn backoff_factor(mut self, factor: f64) -> Self {
        self.backoff_factor = factor;
        self
    }

    /// Sets the longest wait in seconds.
    #[must_use]
    pub fn max_backoff(mut self, seconds: u64) -> Self {
        self.max_backoff_seconds = Some(seconds);
        self
    }

    /// Says after what it is tried again.
    #[must_use]
    pub fn on(mut self, outcomes: impl IntoIterator<Item = RetryOn>) -> Self {
        self.on = outcomes.into_iter().map(Given::Known).collect();
        self
    }

    pub(super) fn check(&self, limits: &Limits, found: &mut Vec<Violation>) {
        const CODE: &str = "InvalidParam.Retry";
        let (attempts, longest) = (limits.retry_attempts_max, limits.retry_backoff_s_max);
        let mut refuse = |field, message| found.push(Violation::new(CODE, 400, field, message));
        if !(1..=attempts).contains(&self.max_attempts) {
            let message = format!("want 1 to {attempts}; it is {}", self.max_attempts);
            refuse("Retry.MaxAttempts", message);
        }
        if self.backoff_seconds > longest {
            let message = format!("want at most {longest} s; it is {} s", self.backoff_seconds);
            refuse("Retry.BackoffSeconds", message);
        }
        if !(1.0..=FACTOR_MAX).contains(&self.backoff_factor) {
            let message = format!("want 1 to {FACTOR_MAX}; it is {}", self.backoff_factor);
            refuse("Retry.BackoffFactor", message);
        }
        if let Some(max) = self.max_backoff_seconds {
            let least = self.backoff_seconds;
            if max > longest {
                let message = format!("want at most {longest} s; it is {max} s");
                refuse("Retry.MaxBackoffSeconds", message);
            } else if max < least {
                let message = format!("want no less than BackoffSeconds, {least} s; it is {max} s");
                refuse("Retry.MaxBackoffSeconds", message);
            }
        }
        let names = RetryOn::ALL.iter().map(|on| on.as_str()).collect::<Vec<_>>().join(", ");
        if self.on.is_empty() {
            refuse("Retry.On", format!("want at least one of {names}; it is empty"));
        }
        for on in &self.on {
            on.known(found, |text| {
                unknown(CODE, 400, "Retry.On", text, &format!("one of {names}"))
            });
        }
    }

    /// Milliseconds from the end of an attempt that ended by this cause to the next one; none if
    /// there is none.
    pub(crate) fn delay_ms(&self, cause: Cause, attempt: u32) -> Option<i64> {
        let on = RetryOn::of(cause)?;
        let goes_on = u64::from(attempt) < self.max_attempts && self.on.contains(&on.into());
        goes_on.then(|| self.backoff_ms(attempt))
    }

    /// The wait after an attempt, in milliseconds. Step by step: what `powi` comes to is not the same
    /// on every machine.
    fn backoff_ms(&self, attempt: u32) -> i64 {
        let first = self.backoff_seconds;
        let longest = self.max_backoff_seconds.unwrap_or(MAX_BACKOFF_S.max(first)) as f64;
        let grown = |wait: f64, _| (wait * self.backoff_factor).min(longest);
        ((1..attempt).fold(first as f64, grown) * 1_000.0) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest() {
        let check = |retry: Retry, want: &[i64]| {
            let waits: Vec<_> =
                (1..=want.len() as u32).map(|attempt| retry.backoff_ms(attempt)).collect();
            assert_eq!(waits, want, "{retry:?}");
        };
        let retry = Retry::attempts(100);
        check(
            retry.clone(),
            &[1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000],
        );
        check(retry.clone().backoff(5).max_backoff(12), &[5_000, 10_000, 12_000, 12_000]);
        check(retry.clone().backoff(5).backoff_factor(1.0), &[5_000; 4]);
        check(retry.clone().backoff(1).backoff_factor(1.5), &[1_000, 1_500, 2_250, 3_375, 5_062]);
        check(retry.clone().backoff(0), &[0; 4]);
        check(retry.clone().backoff(400), &[400_000; 3]);
        check(retry.backoff(u64::MAX).backoff_factor(10.0), &[i64::MAX; 3]);
    }

    #[test]
    fn only_what_is_named_is_tried_again_and_only_so_often() {
        use Cause::*;
        let ends = [
            (ExitedZero, None),
            (ExitedNonzero, Some(RetryOn::Failed)),
            (TimedOut, Some(RetryOn::Timeout)),
            (Stopped, None),
            (Unsuitable, None),
            (Undeliverable, Some(RetryOn::Aborted)),
            (Broke, Some(RetryOn::Error)),
            (Interrupted, Some(RetryOn::Interrupted)),
        ];
        for (cause, on) in ends {
            for &named in RetryOn::ALL {
                let retry = Retry::attempts(3).on([named]);
                let waits = [1, 2, 3, 4].map(|attempt| retry.delay_ms(cause, attempt));
                let want = if on == Some(named) { [Some(1_000), Some(2_000)] } else { [None; 2] };
                assert_eq!(
                    (&waits[..2], &waits[2..]),
                    (&want[..], &[None; 2][..]),
                    "{cause:?} {named}"
                );
            }
            let by_default = Retry::default().delay_ms(cause, 1).is_some();
            let want = on.is_some_and(|on| on != RetryOn::Interrupted);
            assert_eq!(by_default, want, "{cause:?}");
        }
    }

    #[test]
    fn each_number_has_its_range() {
        let check = |retry: Retry, field: Option<&str>| {
            let mut found = Vec::new();
            retry.check(&Limits::alibaba(), &mut found);
            let fields: Vec<_> = found.iter().map(|violation| violation.field).collect();
            assert_eq!(fields, Vec::from_iter(field), "{retry:?}");
        };
        let retry = Retry::attempts;
        for (attempts, fits) in
            [(0, false), (1, true), (100, true), (101, false), (u64::MAX, false)]
        {
            check(retry(attempts), (!fits).then_some("Retry.MaxAttempts"));
        }
        for (seconds, fits) in [(0, true), (86_400, true), (86_401, false), (u64::MAX, false)] {
            check(retry(3).backoff(seconds), (!fits).then_some("Retry.BackoffSeconds"));
        }
        for (seconds, fits) in [(4, false), (5, true), (86_400, true), (86_401, false)] {
            let retry = retry(3).backoff(5).max_backoff(seconds);
            check(retry, (!fits).then_some("Retry.MaxBackoffSeconds"));
        }
        for (factor, fits) in [
            (1.0, true),
            (10.0, true),
            (0.99, false),
            (10.01, false),
            (-2.0, false),
            (f64::NAN, false),
            (f64::INFINITY, false),
        ] {
            check(retry(3).backoff_factor(factor), (!fits).then_some("Retry.BackoffFactor"));
        }
        check(retry(3).on([]), Some("Retry.On"));
        let mut named = retry(3);
        named.on.push(Given::Unknown("Success".to_owned()));
        check(named, Some("Retry.On"));
    }
}

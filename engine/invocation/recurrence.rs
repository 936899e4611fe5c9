//! What repeats an invocation: its schedule, and what to do where plan and time disagree.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::id::InvokeId;
use crate::limits::Limits;
use crate::schedule::{Bounds, Schedule, Zone};

use super::RepeatMode;

/// What a fire does on an instance where the execution before it has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum OverlapPolicy {
    /// Nothing; it leaves a `Skipped` execution that says so. The default.
    #[default]
    Skip,
    /// Runs beside it.
    Allow,
}

impl OverlapPolicy {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "Skip",
            Self::Allow => "Allow",
        }
    }
}

impl FromStr for OverlapPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Skip, Self::Allow]
            .into_iter()
            .find(|policy| policy.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no overlap policy"))
    }
}

/// What becomes of nominal times that passed while the engine was down, the machine slept, or the
/// clock jumped over them. Whatever is not run is recorded as missed, with the exact count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum MissedPolicy {
    /// They are not run. The default.
    #[default]
    Skip,
    /// One run stands for all of them.
    Latest,
    /// The last so many of them are run.
    All(u32),
}

impl MissedPolicy {
    /// How many nominal times that are too late are run all the same.
    pub(crate) const fn runs_max(self) -> usize {
        match self {
            Self::Skip => 0,
            Self::Latest => 1,
            Self::All(limit) => limit as usize,
        }
    }
}

impl fmt::Display for MissedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => f.write_str("Skip"),
            Self::Latest => f.write_str("Latest"),
            Self::All(limit) => write!(f, "All:{limit}"),
        }
    }
}

impl FromStr for MissedPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "Skip" => Ok(Self::Skip),
            "Latest" => Ok(Self::Latest),
            _ => text
                .strip_prefix("All:")
                .and_then(|limit| limit.parse().ok())
                .map(Self::All)
                .ok_or_else(|| format!("`{text}` is no policy for missed fires")),
        }
    }
}

/// Which nominal times of an invocation to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct DescribeFires {
    /// The invocation.
    pub invoke_id: InvokeId,
    /// Entries a page, 1 to 50; 10 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<usize>,
    /// The `NextToken` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

impl DescribeFires {
    /// The newest fires of an invocation.
    pub fn new(invoke_id: InvokeId) -> Self {
        Self { invoke_id, max_results: None, next_token: None }
    }

    /// Sets the entries of a page.
    #[must_use]
    pub fn max_results(mut self, entries: usize) -> Self {
        self.max_results = Some(entries);
        self
    }

    /// Asks for the page after another.
    #[must_use]
    pub fn next_token(mut self, token: impl Into<String>) -> Self {
        self.next_token = Some(token.into());
        self
    }
}

/// What became of a nominal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FireDisposition {
    /// It fired; its executions say the rest.
    Started,
    /// It passed, and perhaps others after it, without a fire.
    Missed,
}

/// What became of one nominal time, or of a stretch of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Fire {
    /// The nominal time; the first of a stretch.
    pub time: DateTime<Utc>,
    /// The last of a stretch.
    pub until: Option<DateTime<Utc>>,
    /// How many nominal times this stands for.
    pub count: u64,
    /// What became of it.
    pub disposition: FireDisposition,
    /// Why it did not fire; empty if it did.
    pub reason: String,
    /// The zone of the timer, for targets of several; empty for a run at once.
    pub zone: String,
}

crate::wire::wrapped_list!(fire_list, "Fire");

/// A page of nominal times, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct DescribeFiresResponse {
    /// Names this call.
    pub request_id: String,
    /// What became of them.
    #[serde(with = "fire_list")]
    pub fires: Vec<Fire>,
    /// Gets the next page; empty after the last.
    pub next_token: String,
}

/// A schedule and its policies, out of a request.
#[derive(Debug, Clone)]
pub(crate) struct Recurrence {
    pub schedule: Schedule,
    pub overlap: OverlapPolicy,
    pub missed: MissedPolicy,
}

/// The schedule of a request, if it has one. A frequency makes it repeat, whatever its mode says.
pub(super) fn check(
    mode: RepeatMode,
    frequency: Option<&str>,
    overlap: OverlapPolicy,
    missed: MissedPolicy,
    found: &mut Vec<Violation>,
) -> Option<Recurrence> {
    const FIELD: &str = "Frequency";
    let Some(text) = frequency.filter(|text| !text.is_empty()) else {
        if mode == RepeatMode::Period {
            let message = "RepeatMode Period needs one, such as `rate(5m)` or `0 30 2 * * ?`";
            found.push(Violation::new("MissingParam.Frequency", 400, FIELD, message));
        }
        return None;
    };
    match text.parse() {
        Ok(schedule) => Some(Recurrence { schedule, overlap, missed }),
        Err(error) => {
            found.push(Violation::new("InvalidParam.Frequency", 400, FIELD, error.to_string()));
            None
        }
    }
}

impl Recurrence {
    /// When it fires first on instances of `zone`, if the limits allow it.
    pub(crate) fn first_fire(
        &self,
        now: DateTime<Utc>,
        zone: Zone,
        timeout_s: u64,
        limits: &Limits,
    ) -> Result<DateTime<Utc>, Violation> {
        let timetable = self.schedule.bind(now, zone);
        let bounds = Bounds {
            rate_min: Duration::from_secs(limits.rate_s_min),
            rate_max: Duration::from_secs(limits.rate_s_max),
            cron_min: Duration::from_secs(limits.cron_s_min),
            timeout: Duration::from_secs(timeout_s),
        };
        let refused =
            |message: String| Violation::new("InvalidParam.Frequency", 400, "Frequency", message);
        timetable.validate(now, &bounds).map_err(|refusal| refused(refusal.to_string()))?;
        timetable
            .next_after(now)
            .ok_or_else(|| refused("it never fires again; want one that does".to_owned()))
    }
}

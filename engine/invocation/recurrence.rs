//! What repeats an invocation: its schedule or the boots of its instances, and what to do where plan
//! and time disagree.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Violation;
use crate::limits::{COUNT_MAX, Limits};
use crate::schedule::{Schedule, Zone};
use crate::status::ExecutionStatus;
use crate::wire::text_enum;

use super::RepeatMode;

/// What a fire does on an instance where an execution before it has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum OverlapPolicy {
    /// Nothing; it leaves a `Skipped` execution that says so. The default.
    #[default]
    Skip,
    /// Waits until that one has ended. One waits; where one waits already, the fire is skipped.
    Queue,
    /// Runs beside it.
    Allow,
    /// Stops it, and runs once it has ended.
    Replace,
}

/// How an execution that has not ended stands to a later fire on its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// It has not run yet.
    Waits,
    /// It has run, and will be tried again.
    Retries,
    Runs,
}

impl Before {
    pub(crate) fn new(status: ExecutionStatus, attempt: u32) -> Self {
        match status {
            ExecutionStatus::Running | ExecutionStatus::Stopping => Self::Runs,
            _ if attempt > 1 => Self::Retries,
            _ => Self::Waits,
        }
    }
}

/// What becomes of a fire on one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It runs as soon as there is a place for it.
    Runs,
    /// It runs once what runs has ended.
    Waits,
    /// It never runs; this is why.
    Skipped(&'static str),
}

text_enum!(OverlapPolicy, "overlap policy", [Skip, Queue, Allow, Replace]);

impl OverlapPolicy {
    /// Whether executions may wait for the end of another.
    pub(crate) const fn lets_wait(self) -> bool {
        matches!(self, Self::Queue | Self::Replace)
    }

    /// What becomes of a fire on an instance where executions stand so that have not ended. One that
    /// is run `late`, long after its time, waits its turn: it would only meet others of its kind.
    pub(crate) fn admit(self, before: &[Before], late: bool) -> Admission {
        match self {
            _ if before.is_empty() => Admission::Runs,
            Self::Allow => Admission::Runs,
            _ if late => Admission::Waits,
            Self::Skip => Admission::Skipped("the execution before it had not ended"),
            Self::Queue if before.contains(&Before::Waits) => {
                Admission::Skipped("another execution was waiting already")
            }
            Self::Replace if !before.contains(&Before::Runs) => Admission::Runs,
            Self::Queue | Self::Replace => Admission::Waits,
        }
    }
}

/// What becomes of nominal times that passed while the engine was down, the machine slept, or the
/// clock jumped over them. Whatever is not run is recorded as missed, with the exact count. The last
/// of them is met all the same if it is no more than a minute late.
///
/// As JSON `"Skip"`, `"Latest"` or `"All:3"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum MissedPolicy {
    /// They are not run. The default.
    #[default]
    Skip,
    /// One run stands for all of them.
    Latest,
    /// The last so many of them are run, one after another.
    All(u32),
}

impl MissedPolicy {
    /// Whether runs of missed times wait for one another.
    pub(crate) const fn lets_wait(self) -> bool {
        matches!(self, Self::All(_))
    }

    /// How many nominal times that are too late are run all the same.
    pub(crate) const fn runs_max(self) -> usize {
        match self {
            Self::Skip => 0,
            Self::Latest => 1,
            Self::All(limit) => limit as usize,
        }
    }
}

impl Serialize for MissedPolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MissedPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
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

/// What makes an invocation run again.
#[derive(Debug, Clone)]
pub(crate) enum Trigger {
    Schedule(Schedule),
    /// The next boot of an instance, or each one.
    Boot {
        once: bool,
    },
}

/// What repeats an invocation, and its policies, out of a request.
#[derive(Debug, Clone)]
pub(crate) struct Recurrence {
    pub trigger: Trigger,
    pub overlap: OverlapPolicy,
    pub missed: MissedPolicy,
    pub spread_s: u64,
    pub end: Option<DateTime<Utc>>,
    pub fires_max: Option<u64>,
}

/// The fields of a request that say when it runs.
#[derive(Debug)]
pub(super) struct Repetition<'a> {
    pub mode: RepeatMode,
    pub frequency: Option<&'a str>,
    pub overlap: OverlapPolicy,
    pub missed: MissedPolicy,
    pub spread_s: Option<u64>,
    pub end: Option<DateTime<Utc>>,
    pub fires_max: Option<u64>,
}

impl Repetition<'_> {
    /// What repeats the request, if anything does. A frequency makes it repeat, whatever its mode
    /// says; a dry run checks it.
    pub(super) fn check(&self, limits: &Limits, found: &mut Vec<Violation>) -> Option<Recurrence> {
        self.check_numbers(limits, found);
        let trigger = self.trigger(found)?;
        Some(Recurrence {
            trigger,
            overlap: self.overlap,
            missed: self.missed,
            spread_s: self.spread_s.unwrap_or_default(),
            end: self.end,
            fires_max: self.fires_max,
        })
    }

    fn trigger(&self, found: &mut Vec<Violation>) -> Option<Trigger> {
        const FIELD: &str = "Frequency";
        let Some(text) = self.frequency.filter(|text| !text.is_empty()) else {
            let trigger = match self.mode {
                RepeatMode::Once | RepeatMode::DryRun => None,
                RepeatMode::NextRebootOnly => Some(Trigger::Boot { once: true }),
                RepeatMode::EveryReboot => Some(Trigger::Boot { once: false }),
                RepeatMode::Period => {
                    let message =
                        "RepeatMode Period needs one, such as `rate(5m)` or `0 30 2 * * ?`";
                    found.push(Violation::new("MissingParam.Frequency", 400, FIELD, message));
                    return None;
                }
            };
            self.check_needs_frequency(found);
            return trigger;
        };
        let parsed = text.parse().map(Trigger::Schedule);
        let refused = |error: crate::schedule::ParseError| {
            found.push(Violation::new("InvalidParam.Frequency", 400, FIELD, error.to_string()));
        };
        parsed.map_err(refused).ok()
    }

    fn check_needs_frequency(&self, found: &mut Vec<Violation>) {
        let given = [
            ("InvalidParam.Spread", "Spread", self.spread_s.is_some()),
            ("InvalidParam.EndTime", "EndTime", self.end.is_some()),
            ("InvalidParam.MaxFires", "MaxFires", self.fires_max.is_some()),
        ];
        for (code, field, _) in given.into_iter().filter(|(.., given)| *given) {
            let message = "goes with a Frequency only; leave it out or give one";
            found.push(Violation::new(code, 400, field, message));
        }
    }

    fn check_numbers(&self, limits: &Limits, found: &mut Vec<Violation>) {
        if let Some(spread) = self.spread_s.filter(|spread| *spread > limits.spread_s_max) {
            let message = format!("want at most {} s; it is {spread} s", limits.spread_s_max);
            found.push(Violation::new("InvalidParam.Spread", 400, "Spread", message));
        }
        if self.fires_max == Some(0) {
            let message = "want at least 1; it is 0";
            found.push(Violation::new("InvalidParam.MaxFires", 400, "MaxFires", message));
        }
        if let Some(fires) = self.fires_max.filter(|fires| *fires > COUNT_MAX) {
            let message = format!("want at most {COUNT_MAX}; it is {fires}");
            found.push(Violation::new("InvalidParam.MaxFires", 400, "MaxFires", message));
        }
        let runs = self.missed.runs_max();
        if runs > limits.missed_runs_max {
            let max = limits.missed_runs_max;
            let message = format!("want at most All:{max}; it is All:{runs}");
            found.push(Violation::new("InvalidParam.MissedPolicy", 400, "MissedPolicy", message));
        }
    }
}

impl Recurrence {
    /// How `RepeatMode` calls it.
    pub(crate) const fn mode(&self) -> RepeatMode {
        match self.trigger {
            Trigger::Schedule(_) => RepeatMode::Period,
            Trigger::Boot { once: true } => RepeatMode::NextRebootOnly,
            Trigger::Boot { once: false } => RepeatMode::EveryReboot,
        }
    }

    /// When `schedule` fires first on instances of `zone`, if the limits and a timeout that somebody has stated allow
    /// it.
    pub(crate) fn first_fire(
        &self,
        schedule: &Schedule,
        now: DateTime<Utc>,
        zone: Zone,
        stated_timeout_s: Option<u64>,
        limits: &Limits,
    ) -> Result<DateTime<Utc>, Violation> {
        let timetable = schedule.bind(now, zone);
        let bounds = limits.schedule_bounds(stated_timeout_s.unwrap_or_default());
        let refused =
            |message: String| Violation::new("InvalidParam.Frequency", 400, "Frequency", message);
        timetable.validate(now, &bounds).map_err(|refusal| refused(refusal.to_string()))?;
        let first = timetable
            .next_after(now)
            .ok_or_else(|| refused("it never fires again; want one that does".to_owned()))?;
        match self.end {
            Some(end) if first > end => Err(Violation::new(
                "InvalidParam.EndTime",
                400,
                "EndTime",
                format!(
                    "it is {}, and the first fire would be at {}; want a later end",
                    rfc3339(end),
                    rfc3339(first)
                ),
            )),
            _ => Ok(first),
        }
    }
}

/// Returns the timeout of a run in seconds: the stated one, or the default of the limits. Because a default must not be
/// a reason to refuse a schedule, a default ends a second before the next fire of the schedule, and takes a second at
/// least.
pub(crate) fn timeout_s(
    stated: Option<u64>,
    recurrence: Option<&Recurrence>,
    limits: &Limits,
) -> Option<u64> {
    stated.or_else(|| {
        let default = limits.timeout_s()?;
        let interval = recurrence.and_then(|recurrence| match &recurrence.trigger {
            Trigger::Schedule(schedule) => schedule.min_interval(),
            Trigger::Boot { .. } => None,
        });
        Some(
            interval.map_or(default, |interval| {
                default.min(interval.as_secs().saturating_sub(1)).max(1)
            }),
        )
    })
}

fn rfc3339(instant: DateTime<Utc>) -> String {
    instant.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fire_meets_what_runs_as_its_policy_says() {
        use Before::{Retries, Runs, Waits};
        use OverlapPolicy::{Allow, Queue, Replace, Skip};
        let check_late = |policy: OverlapPolicy, before: &[Before], late, want: &str| {
            let told = match policy.admit(before, late) {
                Admission::Runs => "runs",
                Admission::Waits => "waits",
                Admission::Skipped(_) => "skipped",
            };
            assert_eq!(told, want, "{policy:?} {before:?} {late}");
        };
        let check = |policy, before: &[_], want| check_late(policy, before, false, want);
        for &policy in OverlapPolicy::ALL {
            check(policy, &[], "runs");
        }
        check(Skip, &[Runs], "skipped");
        check(Skip, &[Waits], "skipped");
        check(Skip, &[Retries], "skipped");
        check(Allow, &[Runs, Waits, Retries], "runs");
        check(Queue, &[Runs], "waits");
        check(Queue, &[Retries], "waits");
        check(Queue, &[Runs, Waits], "skipped");
        check(Queue, &[Retries, Waits], "skipped");
        check(Queue, &[Waits], "skipped");
        check(Replace, &[Runs], "waits");
        check(Replace, &[Runs, Waits], "waits");
        check(Replace, &[Waits], "runs");
        check(Replace, &[Retries], "runs");
        for (policy, want) in
            [(Skip, "waits"), (Queue, "waits"), (Allow, "runs"), (Replace, "waits")]
        {
            check_late(policy, &[Runs, Waits], true, want);
            check_late(policy, &[Retries], true, want);
        }
    }

    #[test]
    fn what_has_not_ended_runs_waits_or_is_tried_again() {
        use ExecutionStatus::{Pending, Running, Scheduled, Stopping};
        for (status, first, later) in [
            (Pending, Before::Waits, Before::Retries),
            (Scheduled, Before::Waits, Before::Retries),
            (Running, Before::Runs, Before::Runs),
            (Stopping, Before::Runs, Before::Runs),
        ] {
            let told = (Before::new(status, 1), Before::new(status, 2));
            assert_eq!(told, (first, later), "{status}");
        }
    }
}

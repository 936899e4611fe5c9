//! Whether the engine was there when something was due: from when it began, and from the real-time
//! clock held against the monotonic one, which shows when it was set or the machine slept.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::clock::Clock;
use crate::panics::tell;

/// The two clocks may drift apart by this much between two looks without one having been set.
const DRIFT_MAX: TimeDelta = TimeDelta::milliseconds(500);

/// Keeps an eye on the clocks.
pub(crate) struct Vigil {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    /// The earliest time of day that the engine has been there for.
    began: DateTime<Utc>,
    /// Real time, when last looked.
    seen: DateTime<Utc>,
    /// Real time less monotonic time, when last looked.
    ahead: TimeDelta,
    /// The last stretch of real time that was not lived through from end to end.
    leap: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Vigil {
    pub(crate) fn begin(clock: Arc<dyn Clock>) -> Self {
        let began = clock.realtime();
        let state = State { began, seen: began, ahead: ahead(&*clock, began), leap: None };
        Self { clock, state: Mutex::new(state) }
    }

    /// Reads the clocks.
    pub(crate) fn look(&self) -> Watchful {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.realtime();
        let ahead = ahead(&*self.clock, now);
        let step = ahead - state.ahead;
        state.ahead = ahead;
        if step > DRIFT_MAX {
            tell(|| {
                tracing::warn!(
                    seconds = step.num_seconds(),
                    "the clock was set forward, or the machine slept"
                )
            });
            // Where in between it leapt nobody saw: perhaps at once.
            state.leap = Some((state.seen, now));
        } else if step < -DRIFT_MAX {
            let seconds = -step.num_seconds();
            tell(|| tracing::warn!(seconds, "the clock was set back; no nominal time fires twice"));
            state.began = state.began.min(now);
            // A leap past now has been undone. Times up to now may have been missed because of the
            // leap.
            state.leap = state.leap.map(|(from, until)| (from, until.min(now)));
        }
        state.seen = now;
        Watchful { now, began: state.began, leap: state.leap }
    }
}

fn ahead(clock: &dyn Clock, now: DateTime<Utc>) -> TimeDelta {
    let monotonic = TimeDelta::from_std(clock.monotonic()).unwrap_or(TimeDelta::MAX);
    now.signed_duration_since(DateTime::UNIX_EPOCH).checked_sub(&monotonic).unwrap_or_default()
}

/// What a look at the clocks came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watchful {
    pub now: DateTime<Utc>,
    began: DateTime<Utc>,
    leap: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

impl Watchful {
    /// Why a time that was due then was not met.
    pub(super) fn absence(&self, due_ms: i64) -> Absence {
        let due = DateTime::from_timestamp_millis(due_ms).unwrap_or(self.now);
        match self.leap {
            _ if due < self.began => Absence::NotRunning,
            Some((from, until)) if from <= due && due <= until => Absence::Leap { from, until },
            _ => Absence::Busy,
        }
    }
}

/// Why a nominal time was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absence {
    NotRunning,
    Leap { from: DateTime<Utc>, until: DateTime<Utc> },
    Busy,
}

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: &DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
        match self {
            Self::NotRunning => f.write_str("no engine ran"),
            Self::Leap { from, until } => write!(
                f,
                "the clock was set forward or the machine slept, from {} to {}",
                time(from),
                time(until)
            ),
            Self::Busy => {
                f.write_str("the engine was held up: suspended, too busy, or its disk refused")
            }
        }
    }
}

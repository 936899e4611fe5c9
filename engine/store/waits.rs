//! Waits of a duration: the wait before another attempt, the soak of a wave, the wait that a gate asked for, the age
//! of a pending execution. Because a duration is no instant, it does not follow a clock that is set.
//!
//! The columns `retry_at_ms`, `wave_at_ms` and `since_ms` hold [`Steady`] milliseconds. `meta` keeps how far the time
//! of day is ahead of steady time, for the next engine and for readers of the file, together with the time of day of
//! the last look. An engine whose clock is behind that time of day goes on from there, so that no wait gets longer
//! because the clock was set back while no engine ran.

use std::sync::{Arc, OnceLock};

use crate::clock::{Clock, Steady, now_ms};
use crate::error::Result;

use super::{Tx, meta};

/// The key of both values in `meta`.
const KEY: &str = "steady_clock";
/// The clocks drift apart by less than this unless one of them has been set.
const DRIFT_MS_MAX: i64 = 500;
/// The greatest age of the last look.
const LOOKED_MS_MAX: i64 = 1_000;

/// The clock of an engine; empty until the engine has a clock.
pub(super) type Shared = Arc<OnceLock<Steady>>;

/// The values in `meta`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Looked {
    /// How far the time of day is ahead of steady time, in milliseconds.
    ahead_ms: i64,
    /// The time of day.
    at_ms: i64,
}

impl Looked {
    fn read(tx: Tx<'_>) -> Result<Self> {
        let Some(text) = meta::get(tx, KEY)? else { return Ok(Self::default()) };
        let (ahead_ms, at_ms) = text.split_once(' ').unwrap_or((&text, "0"));
        // A value that cannot be read counts as missing: waits then go by the clock of this engine.
        let numbers = ahead_ms.parse().ok().zip(at_ms.parse().ok());
        Ok(numbers.map_or_else(Self::default, |(ahead_ms, at_ms)| Self { ahead_ms, at_ms }))
    }

    /// Returns a look at a clock after this one. Drift of the clocks is left out.
    fn and_then(self, clock: &Steady) -> Self {
        let (steady_ms, ahead_ms) = (clock.now_ms(), clock.ahead_ms());
        let is_set = self.ahead_ms.abs_diff(ahead_ms) > DRIFT_MS_MAX.unsigned_abs();
        let ahead_ms = if is_set { ahead_ms } else { self.ahead_ms };
        Self { ahead_ms, at_ms: steady_ms.saturating_add(ahead_ms) }
    }

    fn write(self, tx: Tx<'_>) -> Result<()> {
        meta::set(tx, KEY, &format!("{} {}", self.ahead_ms, self.at_ms))
    }
}

/// Returns a steady clock that goes on from the last known time of the last engine.
pub(super) fn resume(tx: Tx<'_>, clock: Arc<dyn Clock>) -> Result<Steady> {
    let Looked { ahead_ms, at_ms } = Looked::read(tx)?;
    let now_ms = now_ms(&*clock);
    // If the clock is behind the last engine's look, the clock has been set back.
    let steady_ms = now_ms.max(at_ms).saturating_sub(ahead_ms);
    Ok(Steady::begin(clock, steady_ms))
}

/// Returns steady time; without a clock the given time of day.
pub(crate) fn now(tx: Tx<'_>, now_ms: i64) -> i64 {
    tx.clock().map_or(now_ms, Steady::now_ms)
}

/// Returns steady time for a wait that begins now; `None` if it is the same as the time of day.
pub(super) fn since(tx: Tx<'_>) -> Option<i64> {
    let clock = tx.clock()?;
    (clock.ahead_ms().abs() > DRIFT_MS_MAX).then(|| clock.now_ms())
}

/// The end of a wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    /// In steady time, for the record.
    pub at_ms: i64,
    /// As a time of day.
    pub told_ms: i64,
}

/// Begins a wait. `now_ms`, a time of day, counts only without a clock.
pub(super) fn begin(tx: Tx<'_>, now_ms: i64, wait_ms: i64) -> Result<Over> {
    let before = Looked::read(tx)?;
    let looked =
        tx.clock().map_or(Looked { ahead_ms: 0, at_ms: now_ms }, |clock| before.and_then(clock));
    // The wait and the state of its clock come to disk together.
    looked.write(tx)?;
    let told_ms = looked.at_ms.saturating_add(wait_ms);
    Ok(Over { at_ms: told_ms.saturating_sub(looked.ahead_ms), told_ms })
}

/// Records the clocks if one of them has been set, or if a wait is on record and the last look is old.
pub(crate) fn look(tx: Tx<'_>, any_wait: bool) -> Result<()> {
    let before = Looked::read(tx)?;
    let Some(now) = tx.clock().map(|clock| before.and_then(clock)) else { return Ok(()) };
    let is_set = before.ahead_ms != now.ahead_ms;
    let is_old = before.at_ms.abs_diff(now.at_ms) > LOOKED_MS_MAX.unsigned_abs();
    if is_set || (any_wait && is_old) { now.write(tx) } else { Ok(()) }
}

/// Returns the time of day at which a recorded wait is over.
pub(super) fn told_ms(tx: Tx<'_>, at_ms: i64) -> Result<i64> {
    Ok(at_ms.saturating_add(Looked::read(tx)?.ahead_ms))
}

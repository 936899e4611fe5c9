//! Takes back the records of nominal times that a clock which was ahead wrote off, once the clock has been set right.
//! A time that the clock has not reached has no record, unless the time fired.
//!
//! The records alone tell which times these are, so it makes no difference which engine wrote them, or whether an
//! engine ran when the clock was set.

use crate::error::Result;
use crate::panics::tell;
use crate::store::fires::{self, Ahead};
use crate::store::{self, Tx, invocations, timers};

use super::plan::{LATE_MS_MAX, part};
use super::step::{Step, TIMES_MAX};

/// Records that are taken back in one commit.
const RECORDS_MAX: usize = 256;

impl Step {
    /// Takes back what was written off of times that are not due, a part of it.
    pub(super) fn take_back(&mut self, tx: Tx<'_>, now_ms: i64) -> Result<()> {
        let ahead = fires::ahead(tx, now_ms, RECORDS_MAX)?;
        let mut times = TIMES_MAX;
        for record in &ahead {
            if times == 0 {
                break;
            }
            match store::apart(tx, || take_back(tx, *record, now_ms, &mut times)) {
                Err(error) if error.is_of_a_record() => {
                    tell(|| tracing::error!(%error, "the records of a clock that was ahead stay"));
                    fires::keep(tx, record.id)?;
                }
                taken => taken?,
            }
        }
        self.more |= !ahead.is_empty();
        self.taken_back += ahead.len();
        Ok(())
    }
}

/// Takes back the times of a record that are not due, and times that are so little late that they may still fire,
/// because the clock may have been set right while the loop slept. If too many times are to be counted for that, a
/// part of the due times becomes a record of its own, and the next step goes on.
fn take_back(tx: Tx<'_>, record: Ahead, now_ms: i64, times: &mut u64) -> Result<()> {
    let timer = timers::get(tx, record.timer)?;
    let until_ms = now_ms.saturating_sub(timer.delay_ms).saturating_sub(LATE_MS_MAX + 1);
    let mut future = record;
    if record.times.from_ms <= until_ms {
        let (passed, others) = part(&timer, record.times, until_ms, *times);
        *times = times.saturating_sub(passed.count);
        future = fires::cut(tx, record, timer.delay_ms, passed, others)?;
    }
    if future.times.from_ms <= until_ms {
        return Ok(());
    }
    fires::withdraw(tx, future.id, now_ms)?;
    invocations::take_back(tx, &timer, future.times.from_ms)
}

//! Takes back the records of nominal times that a clock which was ahead wrote off, once the clock has been set right.
//! In the end a time that the clock has not reached has no record, unless the time fired. Until all records are taken
//! back, which may take several steps, the plan passes over the times that still have a record.
//!
//! The records alone tell which times these are, so it makes no difference which engine wrote them, or whether an
//! engine ran when the clock was set.

use crate::error::Result;
use crate::panics::tell;
use crate::store::aside::{Aside, Subject};
use crate::store::fires::{self, Ahead};
use crate::store::{Tx, invocations, timers};

use super::plan::{Budget, LATE_MS_MAX, part};
use super::step::Step;

/// Records that are taken back in one commit.
const RECORDS_MAX: usize = 256;

impl Step {
    /// Takes back the records of times that are not due, as far as the budget goes.
    pub(super) fn take_back(
        &mut self,
        tx: Tx<'_>,
        aside: &Aside,
        now_ms: i64,
        budget: &mut Budget,
    ) -> Result<()> {
        let ahead = fires::ahead(tx, now_ms, RECORDS_MAX.saturating_add(aside.count()))?;
        let ahead = aside.others(ahead, RECORDS_MAX, Subject::Ahead);
        self.more |= !ahead.is_empty();
        for record in ahead {
            if budget.times == 0 {
                break;
            }
            let act = || take_back(tx, fires::get_ahead(tx, record)?, now_ms, &mut budget.times);
            aside.deal(tx, Subject::Ahead(record), act, |error| {
                tell(|| tracing::error!(%error, "the records of a clock that was ahead stay"));
                fires::keep(tx, record)
            })?;
            self.taken_back += 1;
        }
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

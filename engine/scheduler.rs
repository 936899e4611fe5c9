//! Turns timers that are due into fires. Fire times follow the real-time clock; since that one can
//! be set at any moment, the loop reads it again at least every half minute. All that counts is in
//! the records: each timer holds its next nominal time, so nothing fires twice whatever the clock
//! does, and what it passed over is seen as such.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::Result;
use crate::store::executions::FinishedInvocations;
use crate::store::timers::{self, Due};
use crate::store::{Store, Tx, invocations};

/// The clock may be set while the loop sleeps; this is how long that can go unnoticed.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How late a nominal time may be noticed and still count as met: twice the longest sleep.
const LATE_MS_MAX: i64 = 60_000;
/// Timers that fire in one commit. A herd takes several, and lets others write between them.
const BATCH_MAX: usize = 256;
/// How long to wait before trying again to write to a database that refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the loop works with.
pub(crate) struct Scheduler {
    pub store: Arc<Store>,
    pub clock: Arc<dyn Clock>,
    /// A timer has been added that may be earlier than all others.
    pub wake: Arc<Notify>,
    /// Called with the invocations that ended, right after each commit that fired.
    pub fired: Arc<dyn Fn(&FinishedInvocations) + Send + Sync>,
}

/// What one pass did.
#[derive(Debug, Default)]
struct Pass {
    fired: usize,
    finished: FinishedInvocations,
    next_due_ms: Option<i64>,
}

impl Scheduler {
    /// Works until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            let wait = match self.pass().await {
                Ok(pass) if pass.fired == BATCH_MAX => continue,
                Ok(pass) => self.until(pass.next_due_ms),
                Err(error) => {
                    tracing::error!(%error, "timers that are due are not on disk yet");
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Fires what is due, one batch of it.
    async fn pass(&self) -> Result<Pass> {
        let now = self.clock.realtime();
        let fired = Arc::clone(&self.fired);
        let tell = move |pass: &Pass| {
            if pass.fired > 0 {
                fired(&pass.finished);
            }
        };
        self.store.write_then(move |tx| fire_due(tx, now), tell).await
    }

    fn until(&self, next_due_ms: Option<i64>) -> Duration {
        let now_ms = self.clock.realtime().timestamp_millis();
        let wait_ms = next_due_ms.map_or(i64::MAX, |due_ms| due_ms.saturating_sub(now_ms));
        Duration::from_millis(wait_ms.max(0).cast_unsigned()).min(SLEEP_MAX)
    }
}

fn fire_due(tx: Tx<'_>, now: DateTime<Utc>) -> Result<Pass> {
    let due = timers::due(tx, now.timestamp_millis(), BATCH_MAX)?;
    let mut pass = Pass { fired: due.len(), ..Pass::default() };
    for timer in &due {
        fire(tx, timer, now)?;
        pass.finished.extend(invocations::finish_if_done(
            tx,
            timer.invocation,
            now.timestamp_millis(),
        )?);
    }
    pass.next_due_ms = timers::next_due_ms(tx)?;
    Ok(pass)
}

/// Deals with every nominal time of a timer up to now, and sets the next.
fn fire(tx: Tx<'_>, due: &Due, now: DateTime<Utc>) -> Result<()> {
    let now_ms = now.timestamp_millis();
    let plan = Plan::new(due, now);
    if let Some(missed) = plan.missed {
        timers::miss(tx, due, missed.from_ms, missed.until_ms, missed.count)?;
    }
    for fire_at_ms in plan.runs {
        timers::fire(tx, due, fire_at_ms, now_ms)?;
    }
    timers::advance(tx, due, plan.next_ms)
}

/// What becomes of the nominal times that have passed.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    missed: Option<Missed>,
    runs: Vec<i64>,
    next_ms: Option<i64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Missed {
    from_ms: i64,
    until_ms: i64,
    count: u64,
}

impl Plan {
    /// The last nominal time is met if it is not too late for that; of the others, as many run as
    /// the policy says.
    fn new(due: &Due, now: DateTime<Utc>) -> Self {
        let now_ms = now.timestamp_millis();
        let timetable = due.schedule.bind(due.created, due.zone);
        let first = DateTime::from_timestamp_millis(due.next_fire_at_ms).unwrap_or(now);
        let runs_max = due.missed.runs_max().max(1);
        let mut runs = VecDeque::from([due.next_fire_at_ms]);
        let mut missed: Option<Missed> = None;
        let mut next_ms = None;
        for fire in timetable.upcoming(first) {
            let fire_ms = fire.timestamp_millis();
            if fire_ms > now_ms {
                next_ms = Some(fire_ms);
                break;
            }
            runs.push_back(fire_ms);
            if runs.len() > runs_max {
                Missed::count(&mut missed, runs.pop_front());
            }
        }
        let last_is_met = runs.back().is_some_and(|last| now_ms - last <= LATE_MS_MAX);
        if due.missed.runs_max() == 0 && !last_is_met {
            Missed::count(&mut missed, runs.pop_front());
        }
        Self { missed, runs: runs.into(), next_ms }
    }
}

impl Missed {
    fn count(missed: &mut Option<Missed>, at_ms: Option<i64>) {
        let Some(at_ms) = at_ms else { return };
        let range = missed.get_or_insert(Missed { from_ms: at_ms, until_ms: at_ms, count: 0 });
        range.until_ms = at_ms;
        range.count += 1;
    }
}

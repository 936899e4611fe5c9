//! The parts of the scheduler that run inside a transaction: what is due becomes fires, and timers
//! move on to their next nominal time in the same commit.

use crate::error::Result;
use crate::id::InvokeId;
use crate::invocation::fire::{Fire, FireDisposition};
use crate::store::executions::FinishedInvocations;
use crate::store::fires;
use crate::store::firing::{self, Fired};
use crate::store::stop::Stopped;
use crate::store::timers::{self, Timer};
use crate::store::{Tx, invocations};

use super::plan::{Budget, LATE_MS_MAX, Plan};
use super::vigil::Watchful;

/// Timers, fires and nominal times in one commit. A herd takes several, and lets others write between them.
const TIMERS_MAX: usize = 512;
const FIRES_MAX: usize = 1_024;
const TIMES_MAX: u64 = 50_000;
/// The reason of what passed while its invocation paused.
const PAUSED: &str = "the invocation paused";

/// What came of a step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// What became of nominal times, in order.
    pub fires: Vec<(InvokeId, Fire)>,
    /// Executions that had to make room for later ones.
    pub stopped: Vec<(InvokeId, Stopped)>,
    pub finished: FinishedInvocations,
    /// Whether there is more to do at once.
    pub more: bool,
    /// When the next timer is due.
    pub next_due_ms: Option<i64>,
}

impl Step {
    fn budget() -> Budget {
        Budget { times: TIMES_MAX, fires: FIRES_MAX }
    }

    /// Fires what is due, those first that have waited longest.
    pub(super) fn fire_due(tx: Tx<'_>, watchful: Watchful, timers_max: usize) -> Result<Self> {
        let now_ms = watchful.now.timestamp_millis();
        let timers_max = timers_max.min(TIMERS_MAX);
        let due = timers::due(tx, now_ms, timers_max)?;
        let mut step = Self { more: due.len() == timers_max, ..Self::default() };
        step.deal_with(tx, &due, watchful)?;
        step.next_due_ms = timers::next_due_ms(tx)?;
        Ok(step)
    }

    /// Ends the timer that is due first, because dealing with it fails; its record says why.
    pub(super) fn give_up_first(tx: Tx<'_>, watchful: Watchful, why: &str) -> Result<Self> {
        let now_ms = watchful.now.timestamp_millis();
        let mut step = Self { more: true, ..Self::default() };
        if let Some((timer, invoke_id)) = timers::first_due(tx, now_ms)? {
            let why = format!("its schedule ends here, for it cannot be carried out: {why}");
            step.fires.push((invoke_id, fires::give_up(tx, timer, &why, now_ms)?));
            timers::end(tx, timer)?;
            let invocation = invocations::find(tx, invoke_id)?;
            step.finished.extend(invocations::finish_if_done(tx, invocation, now_ms)?);
        }
        Ok(step)
    }

    /// Deals with the nominal times of an invocation up to now: what is done to it next comes after
    /// them. To be repeated while there is `more`.
    pub(crate) fn settle(tx: Tx<'_>, invocation: i64, watchful: Watchful) -> Result<Self> {
        let mut timers = match timers::of_invocation(tx, invocation) {
            // The scheduler gives it up; it must not keep anybody from stopping the invocation.
            Err(error) if error.is_of_a_record() => return Ok(Self::default()),
            timers => timers?,
        };
        let mut step = Self::default();
        if invocations::standing_of(tx, invocation)?.paused.is_some() {
            step.pass_over_pause(tx, &timers, watchful)?;
        } else {
            timers.retain(|timer| timer.is_due(watchful.now.timestamp_millis()));
            step.deal_with(tx, &timers, watchful)?;
        }
        Ok(step)
    }

    /// Records what the timers of a paused invocation have passed over.
    fn pass_over_pause(&mut self, tx: Tx<'_>, timers: &[Timer], watchful: Watchful) -> Result<()> {
        let now_ms = watchful.now.timestamp_millis();
        let mut budget = Self::budget();
        for timer in timers {
            let plan = Plan::passing_over(timer, now_ms, &mut budget);
            if let Some(stretch) = plan.passed {
                let skipped = FireDisposition::Skipped;
                let fire = fires::pass_over(tx, timer, stretch, skipped, PAUSED, now_ms)?;
                self.fires.push((timer.invoke_id, fire));
                timers::advance(tx, timer, plan.next_ms, timer.fires_left)?;
            }
            if plan.next_ms.is_none() {
                let invocation = timer.invocation;
                self.finished.extend(invocations::finish_if_done(tx, invocation, now_ms)?);
            }
        }
        self.more = budget.is_spent();
        Ok(())
    }

    fn deal_with(&mut self, tx: Tx<'_>, due: &[Timer], watchful: Watchful) -> Result<()> {
        let mut budget = Self::budget();
        for timer in due {
            if budget.is_spent() {
                break;
            }
            self.fire(tx, timer, watchful, &mut budget)?;
        }
        self.more |= budget.is_spent();
        Ok(())
    }

    /// Deals with the nominal times of a timer up to now, and sets the next.
    fn fire(
        &mut self,
        tx: Tx<'_>,
        timer: &Timer,
        watchful: Watchful,
        budget: &mut Budget,
    ) -> Result<()> {
        let now_ms = watchful.now.timestamp_millis();
        let Plan { passed, runs, mut next_ms } = Plan::for_due(timer, now_ms, budget);
        if let Some(stretch) = passed {
            let reason = watchful.absence(stretch.from_ms + timer.delay_ms).to_string();
            let missed = FireDisposition::Missed;
            let fire = fires::pass_over(tx, timer, stretch, missed, &reason, now_ms)?;
            self.fires.push((timer.invoke_id, fire));
        }
        let mut fires_left = timer.fires_left;
        let several = runs.len() > 1;
        for at_ms in runs {
            let late = several || now_ms - timer.delay_ms - at_ms > LATE_MS_MAX;
            let fired = firing::by_timer(tx, timer, at_ms, late, now_ms)?;
            if let Some(left) = fires_left.as_mut().filter(|_| fired.is_start()) {
                *left = left.saturating_sub(1);
            }
            self.take_in(timer.invoke_id, fired);
            if fires_left == Some(0) {
                next_ms = None;
                break;
            }
        }
        timers::advance(tx, timer, next_ms, fires_left)?;
        if next_ms.is_none() {
            self.finished.extend(invocations::finish_if_done(tx, timer.invocation, now_ms)?);
        }
        Ok(())
    }

    /// Adds what came of one fire.
    pub(crate) fn take_in(&mut self, invoke_id: InvokeId, fired: Fired) {
        self.fires.push((invoke_id, fired.fire));
        if !fired.stopped.is_empty() {
            self.stopped.push((invoke_id, fired.stopped));
        }
    }
}

//! The parts of the scheduler that run inside a transaction: what is due becomes fires, and timers
//! move on to their next nominal time in the same commit.

use crate::error::{Error, Result};
use crate::execution::{StopOrder, StopReason};
use crate::gate::WaveDecision;
use crate::id::{InstanceId, InvokeId};
use crate::invocation::fire::{Fire, FireDisposition, PAUSED};
use crate::panics::tell;
use crate::store::claims::{self, Released};
use crate::store::executions::FinishedInvocations;
use crate::store::fires::{self, PassedOver};
use crate::store::firing::{self, Booting, Fired};
use crate::store::stop::{self, CarriedOn, Stopped};
use crate::store::timers::{self, Found, Timer};
use crate::store::waves::{self, DueWave};
use crate::store::{self, Tx, deadlines, instances, invocations, targets, waits};

use super::plan::{Budget, LATE_MS_MAX, Plan};
use super::vigil::Watchful;

/// Timers, fires and nominal times in one commit. A herd takes several, and lets others write between them.
const TIMERS_MAX: usize = 512;
const FIRES_MAX: usize = 1_024;
pub(super) const TIMES_MAX: u64 = 50_000;
/// Executions in one commit that timers lead to, beside those of the last fire.
const EXECUTIONS_MAX: usize = 2_048;
/// Invocations in one commit that are told of a boot.
pub(crate) const BOOTS_MAX: usize = 512;
/// Executions that are tried again in one commit.
const RETRIES_MAX: usize = 1_024;
/// Fires with waves or deadlines that are dealt with in one commit.
const LATE_MAX: usize = 4;
/// A gate is not asked again sooner.
const WAIT_MS_MIN: i64 = 100;
/// The reason of what had passed, and had not come to its place in the spread.
const STOPPED: &str = "the invocation was stopped before its delay was over";

/// What came of a step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// When its transaction was.
    pub at_ms: i64,
    /// What became of nominal times, in order.
    pub fires: Vec<(InvokeId, Fire)>,
    /// Executions that were replaced by later ones, whose deadline was over, or that a request stopped.
    pub stopped: Vec<(InvokeId, StopOrder, Stopped)>,
    pub finished: FinishedInvocations,
    /// What may be claimed now: it is tried again, or has been let loose.
    pub released: Vec<Released>,
    /// Waves that the gate has to decide about.
    pub waves: Vec<DueWave>,
    /// Fires whose waves the gate need not decide about any more.
    pub withdrawn: Vec<i64>,
    /// How late the timers were that fired.
    pub late_ms: Vec<i64>,
    /// Work that is on record and goes on in later commits.
    pub begun: Vec<Work>,
    /// What of that has come to its end.
    pub done: Vec<Work>,
    /// Records that were taken back: their times are to come.
    pub taken_back: usize,
    /// Whether there is more to do at once.
    pub more: bool,
    /// When the next timer is due, or a deadline is over.
    pub next_due_ms: Option<i64>,
    /// When the next attempt or the next wave is due, in steady time.
    pub next_wait_ms: Option<i64>,
}

/// Work that takes several commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// An order to stop, by its row.
    Stop(i64),
    /// The boot of an instance, by its row.
    Boot(i64),
}

/// A part of a step of the scheduler, which can have a commit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Timers,
    Retries,
    Deadlines,
    /// Stops and boots that earlier commits have begun.
    Begun,
    Waves,
}

impl Part {
    pub(super) const ALL: [Self; 5] =
        [Self::Timers, Self::Retries, Self::Deadlines, Self::Begun, Self::Waves];

    /// What the host is told of if it cannot be done.
    pub(super) const fn undone(self) -> &'static str {
        match self {
            Self::Timers => "timers that are due cannot be fired",
            Self::Retries => "executions cannot be tried again",
            Self::Deadlines => "deadlines cannot be kept",
            Self::Begun => "stops and boots cannot be carried out",
            Self::Waves => "waves cannot start",
        }
    }
}

/// Who decides about waves.
#[derive(Debug)]
pub(super) enum Gate {
    /// Nobody: they start when they are due.
    None,
    /// The host. The gate is asked about these waves now, and may be asked about `more` others.
    Asked { about: Vec<DueWave>, more: usize },
}

/// What is to become of nominal times before something is done to their invocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settling {
    /// What is due may fire: there is somebody to run it.
    pub fires: bool,
    /// What has passed and waits for its place in the spread has no other chance.
    pub ends: bool,
}

/// Nominal times that do not fire, and their record.
struct Passing<'a> {
    until_ms: i64,
    what: PassedOver<'a>,
}

impl Step {
    pub(crate) fn at(now_ms: i64) -> Self {
        Self { at_ms: now_ms, ..Self::default() }
    }

    /// Fires what is due and tries again what is, those first that have waited longest; only these parts of it.
    pub(super) fn fire_due(
        tx: Tx<'_>,
        watchful: Watchful,
        gate: &Gate,
        parts: &[Part],
    ) -> Result<Self> {
        let now_ms = watchful.now.timestamp_millis();
        let mut step = Self::at(now_ms);
        let steady_ms = waits::now(now_ms);
        let mut next_wave_ms = None;
        for part in parts {
            match part {
                Part::Timers => {
                    step.take_back(tx, now_ms)?;
                    let due = timers::due(tx, now_ms, TIMERS_MAX)?;
                    step.more |= due.len() == TIMERS_MAX;
                    step.deal_with(tx, due, now_ms, |step, timer, budget| {
                        step.fire(tx, timer, watchful, budget)
                    })?;
                }
                Part::Retries => {
                    let retried = claims::release_due(tx, steady_ms, RETRIES_MAX)?;
                    step.more |= retried.len() == RETRIES_MAX;
                    step.released.extend(retried);
                }
                Part::Deadlines => step.keep_deadlines(tx, now_ms)?,
                Part::Begun => step.carry_on(tx, now_ms)?,
                Part::Waves => next_wave_ms = step.let_waves_loose(tx, gate, steady_ms)?,
            }
        }
        let (mut next_due, mut next_wait) = (Vec::new(), Vec::from_iter(next_wave_ms));
        for part in parts {
            match part {
                Part::Timers => next_due.extend(timers::next_due_ms(tx)?),
                Part::Deadlines => next_due.extend(deadlines::next_ms(tx)?),
                Part::Retries => next_wait.extend(claims::next_retry_ms(tx)?),
                Part::Begun | Part::Waves => {}
            }
        }
        step.next_due_ms = next_due.into_iter().min();
        step.next_wait_ms = next_wait.into_iter().min();
        // By itself a part does not know whether something waits for another.
        let any_wait = step.next_wait_ms.is_some() || parts.len() < Part::ALL.len();
        waits::look(tx, any_wait)?;
        Ok(step)
    }

    /// Adds how another part of the step has gone, which is announced already.
    pub(super) fn add_part(&mut self, other: Self) {
        self.waves.extend(other.waves);
        self.withdrawn.extend(other.withdrawn);
        self.more |= other.more;
        self.next_due_ms = [self.next_due_ms, other.next_due_ms].into_iter().flatten().min();
        self.next_wait_ms = [self.next_wait_ms, other.next_wait_ms].into_iter().flatten().min();
    }

    /// Ends what has not started, or not ended, in time: at once as much as one commit takes.
    fn keep_deadlines(&mut self, tx: Tx<'_>, now_ms: i64) -> Result<()> {
        let mut left = stop::SLICE;
        let late = deadlines::late_to_start(tx, now_ms, LATE_MAX)?;
        self.more |= !late.is_empty();
        for (fire, invoke_id) in late {
            let expired = deal_apart(tx, fire, || deadlines::expire(tx, fire, now_ms, left))?;
            left = self.take_down(invoke_id, expired, left);
        }
        let late = deadlines::late_to_end(tx, now_ms, LATE_MAX)?;
        self.more |= !late.is_empty();
        for (fire, invoke_id) in late {
            let ended = deal_apart(tx, fire, || deadlines::end(tx, fire, now_ms, left))?;
            left = self.take_down(invoke_id, ended, left);
        }
        Ok(())
    }

    /// Takes in what a deadline led to; how much this commit takes beside it.
    fn take_down(&mut self, invoke_id: InvokeId, stopped: Option<Stopped>, left: usize) -> usize {
        let Some(stopped) = stopped.filter(|stopped| !stopped.is_empty()) else { return left };
        let left = left.saturating_sub(stopped.count());
        self.stopped.push((invoke_id, StopReason::Deadline.into(), stopped));
        left
    }

    /// Goes on with what has been begun in earlier commits: stops, and boots.
    pub(crate) fn carry_on(&mut self, tx: Tx<'_>, now_ms: i64) -> Result<()> {
        match store::apart(tx, || stop::carry_on(tx, now_ms, stop::SLICE)) {
            Err(error) if error.is_of_a_record() => {
                tell(|| tracing::error!(%error, "a stop is given up: its executions do not start"));
                self.done.extend(stop::give_up(tx)?.map(Work::Stop));
            }
            carried_on => {
                if let Some(CarriedOn { stop, invoke_id, order, stopped, has_more }) = carried_on? {
                    self.stopped.push((invoke_id, order, stopped));
                    self.done.extend((!has_more).then_some(Work::Stop(stop)));
                }
            }
        }
        if let Some(of) = instances::booting(tx)? {
            self.boot(tx, &of.id, &of.boot_id, now_ms, BOOTS_MAX)?;
            self.done
                .extend((!self.begun.contains(&Work::Boot(of.row))).then_some(Work::Boot(of.row)));
        }
        self.more |= stop::any_left(tx)? || instances::booting(tx)?.is_some();
        Ok(())
    }

    /// Tells up to `max` invocations of the boot that they wait for; how many have been told.
    pub(crate) fn boot(
        &mut self,
        tx: Tx<'_>,
        id: &InstanceId,
        boot_id: &str,
        now_ms: i64,
        max: usize,
    ) -> Result<usize> {
        match store::apart(tx, || firing::at_boot(tx, id, boot_id, now_ms, max)) {
            Err(error) if error.is_of_a_record() => {
                tell(
                    || tracing::error!(%error, instance = %id, "what waits for a boot is not told of it"),
                );
                firing::give_up_boot(tx, id, boot_id).map(|()| 0)
            }
            booting => {
                let booting = booting?;
                let told = booting.told;
                self.take_boot(booting);
                Ok(told)
            }
        }
    }

    /// Adds the progress of a boot.
    pub(crate) fn take_boot(&mut self, booting: Booting) {
        for (invoke_id, fired) in booting.fired {
            self.take_in(invoke_id, fired);
        }
        // Invocations that wait for an earlier boot are told of that boot first, before this boot is on record.
        self.more |= !booting.is_noted;
        self.begun.extend(booting.has_more.then_some(Work::Boot(booting.instance)));
    }

    /// Lets waves loose that are due, or finds those to be decided about; when the next is due.
    fn let_waves_loose(&mut self, tx: Tx<'_>, gate: &Gate, steady_ms: i64) -> Result<Option<i64>> {
        match gate {
            Gate::Asked { about, more } => {
                for due in about {
                    if !waves::waits(tx, due)? {
                        self.withdrawn.push(due.fire);
                    }
                }
                let mut due = waves::due(tx, steady_ms, about.len() + more)?;
                due.retain(|due| about.iter().all(|other| other.fire != due.fire));
                due.truncate(*more);
                self.waves = due;
            }
            Gate::None => {
                let due = waves::due(tx, steady_ms, LATE_MAX)?;
                self.more |= due.len() == LATE_MAX;
                for due in due {
                    self.open(tx, &due, steady_ms)?;
                }
            }
        }
        // The other waves wait for an answer, not for a time.
        waves::next_ms(tx, steady_ms)
    }

    fn open(&mut self, tx: Tx<'_>, due: &DueWave, steady_ms: i64) -> Result<()> {
        if deal_apart(tx, due.fire, || waves::open(tx, due))?.unwrap_or_default() {
            self.released.push(Released::all_of(tx, due.fire, steady_ms)?);
        }
        Ok(())
    }

    /// Carries out what was decided about a wave.
    pub(super) fn decide(
        tx: Tx<'_>,
        due: &DueWave,
        decision: &WaveDecision,
        now_ms: i64,
    ) -> Result<Self> {
        let mut step = Self::at(now_ms);
        match decision {
            WaveDecision::Proceed => step.open(tx, due, waits::now(now_ms))?,
            WaveDecision::Wait(time) => {
                let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                waves::put_off(tx, due, time_ms.max(WAIT_MS_MIN), now_ms)?;
            }
            WaveDecision::Halt(why) => {
                let halted = waves::halt(tx, due, why, now_ms)?;
                step.stopped.push((due.invoke_id, StopReason::Gate.into(), halted));
            }
        }
        Ok(step)
    }

    /// Deals with the nominal times of an invocation up to now: what is done to it next comes after
    /// them. To be repeated while there is `more`.
    pub(crate) fn settle(
        tx: Tx<'_>,
        invocation: i64,
        watchful: Watchful,
        settling: Settling,
    ) -> Result<Self> {
        let now_ms = watchful.now.timestamp_millis();
        let mut step = Self::at(now_ms);
        step.take_back(tx, now_ms)?;
        let mut found = timers::of_invocation(tx, invocation)?;
        found.retain(|found| found.timer.as_ref().map_or(true, |timer| timer.is_nominal(now_ms)));
        let paused = invocations::standing_of(tx, invocation)?.paused.is_some();
        step.deal_with(tx, found, now_ms, |step, timer, budget| {
            let mut timer = timer.clone();
            if timer.is_due(now_ms) {
                let until_ms = now_ms.saturating_sub(timer.delay_ms);
                if paused {
                    let (disposition, reason) = (FireDisposition::Skipped, PAUSED);
                    let what = PassedOver { disposition, reason, is_final: false };
                    step.pass_over(tx, &mut timer, Passing { until_ms, what }, now_ms, budget)?;
                } else if settling.fires {
                    step.fire(tx, &timer, watchful, budget)?;
                    timer = timers::get(tx, timer.id)?;
                } else {
                    let reason = &watchful.absence(timer.due_ms()).to_string();
                    let disposition = FireDisposition::Missed;
                    let what = PassedOver { disposition, reason, is_final: false };
                    step.pass_over(tx, &mut timer, Passing { until_ms, what }, now_ms, budget)?;
                }
            }
            if settling.ends && !budget.is_spent() && timer.is_nominal(now_ms) {
                let (disposition, reason) = (FireDisposition::Skipped, STOPPED);
                let what = PassedOver { disposition, reason, is_final: true };
                let skipped = Passing { until_ms: now_ms, what };
                step.pass_over(tx, &mut timer, skipped, now_ms, budget)?;
            }
            Ok(())
        })?;
        Ok(step)
    }

    /// Deals with timers, as far as the budget goes. One that cannot be dealt with must not keep the
    /// others from firing: it ends, with a record that says why.
    fn deal_with(
        &mut self,
        tx: Tx<'_>,
        found: Vec<Found>,
        now_ms: i64,
        mut deal: impl FnMut(&mut Self, &Timer, &mut Budget) -> Result<()>,
    ) -> Result<()> {
        let mut budget = Budget { times: TIMES_MAX, fires: FIRES_MAX, executions: EXECUTIONS_MAX };
        for Found { id, invocation, invoke_id, timer } in found {
            if budget.is_spent() {
                break;
            }
            let before =
                (self.fires.len(), self.stopped.len(), self.finished.len(), self.late_ms.len());
            let dealt =
                timer.and_then(|timer| store::apart(tx, || deal(self, &timer, &mut budget)));
            match dealt {
                Err(error) if error.is_of_a_record() => {
                    self.fires.truncate(before.0);
                    self.stopped.truncate(before.1);
                    self.finished.truncate(before.2);
                    self.late_ms.truncate(before.3);
                    self.give_up(tx, id, invocation, invoke_id, &error, now_ms)?;
                }
                dealt => dealt?,
            }
        }
        self.more |= budget.is_spent();
        Ok(())
    }

    fn give_up(
        &mut self,
        tx: Tx<'_>,
        timer: i64,
        invocation: i64,
        invoke_id: InvokeId,
        error: &Error,
        now_ms: i64,
    ) -> Result<()> {
        tell(
            || tracing::error!(%error, %invoke_id, "a schedule ends, for its timer cannot be dealt with"),
        );
        let why = format!("its schedule ends here, for it cannot be carried out: {error}");
        let told = even_if_unreadable(tx, || fires::give_up(tx, timer, &why, now_ms))?;
        self.fires.extend(told.flatten().map(|fire| (invoke_id, fire)));
        timers::end(tx, timer)?;
        let finish = || invocations::finish_if_done(tx, invocation, now_ms);
        self.finished.extend(even_if_unreadable(tx, finish)?.flatten());
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
        let dealt = fires::dealt_ahead(tx, timer)?;
        let targets = targets::of_timer(tx, timer.invocation, timer.id)?;
        let Plan { passed, runs, mut next_ms } =
            Plan::for_due(timer, &dealt, targets.len(), now_ms, budget);
        for stretch in passed {
            let reason = &watchful.absence(stretch.from_ms + timer.delay_ms).to_string();
            let disposition = FireDisposition::Missed;
            let missed = PassedOver { disposition, reason, is_final: false };
            let fire = fires::pass_over(tx, timer, stretch, missed, now_ms)?;
            self.fires.push((timer.invoke_id, fire));
        }
        let until_ms = now_ms.saturating_sub(timer.delay_ms);
        let unfinished = next_ms.is_some_and(|next_ms| next_ms <= until_ms);
        let catching_up = timer.catching_up || unfinished || runs.len() > 1;
        let mut fires_left = timer.fires_left;
        for at_ms in runs {
            let late = catching_up || until_ms - at_ms > LATE_MS_MAX;
            let fired = firing::by_timer(tx, timer, &targets, at_ms, late, now_ms)?;
            budget.spend(fired.stopped.count());
            if let Some(left) = fires_left.as_mut().filter(|_| fired.is_start()) {
                *left = left.saturating_sub(1);
            }
            self.take_in(timer.invoke_id, fired);
            self.late_ms.push(until_ms - at_ms);
            if fires_left == Some(0) {
                next_ms = None;
                break;
            }
        }
        timers::advance(tx, timer, next_ms, fires_left, unfinished)?;
        if next_ms.is_none() {
            self.finished.extend(invocations::finish_if_done(tx, timer.invocation, now_ms)?);
        }
        Ok(())
    }

    /// Records that nominal times of a timer do not fire.
    fn pass_over(
        &mut self,
        tx: Tx<'_>,
        timer: &mut Timer,
        passing: Passing<'_>,
        now_ms: i64,
        budget: &mut Budget,
    ) -> Result<()> {
        let Passing { until_ms, what } = passing;
        let dealt = fires::dealt_ahead(tx, timer)?;
        let plan = Plan::passing_over(timer, &dealt, until_ms, budget);
        let any = !plan.passed.is_empty();
        for stretch in plan.passed {
            let fire = fires::pass_over(tx, timer, stretch, what, now_ms)?;
            self.fires.push((timer.invoke_id, fire));
        }
        if any {
            timers::advance(tx, timer, plan.next_ms, timer.fires_left, false)?;
            timer.next_fire_at_ms = plan.next_ms;
        }
        if plan.next_ms.is_none() {
            self.finished.extend(invocations::finish_if_done(tx, timer.invocation, now_ms)?);
        }
        Ok(())
    }

    /// Adds what came of one fire.
    pub(crate) fn take_in(&mut self, invoke_id: InvokeId, fired: Fired) {
        self.fires.push((invoke_id, fired.fire));
        if !fired.stopped.is_empty() {
            self.stopped.push((invoke_id, StopReason::Replaced.into(), fired.stopped));
        }
    }
}

/// Runs `act`. If a record that it needs cannot be understood, the action is left out.
fn even_if_unreadable<T>(tx: Tx<'_>, act: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    match store::apart(tx, act) {
        Err(error) if error.is_of_a_record() => {
            tell(|| tracing::error!(%error, "what follows from the end of a schedule is left out"));
            Ok(None)
        }
        done => done.map(Some),
    }
}

/// Deals with a fire. One that cannot be dealt with must not keep others waiting: its times are given up.
fn deal_apart<T>(tx: Tx<'_>, fire: i64, deal: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    match store::apart(tx, deal) {
        Err(error) if error.is_of_a_record() => {
            tell(|| tracing::error!(%error, fire, "the times of a fire are given up"));
            deadlines::give_up(tx, fire).map(|()| None)
        }
        dealt => dealt.map(Some),
    }
}

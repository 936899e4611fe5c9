//! The parts of the scheduler that run inside a transaction: what is due becomes fires, and timers
//! move on to their next nominal time in the same commit.

use crate::error::{Error, Result};
use crate::execution::{StopOrder, StopReason};
use crate::gate::WaveDecision;
use crate::id::{InstanceId, InvokeId};
use crate::invocation::fire::{Fire, FireDisposition, PAUSED};
use crate::panics::tell;
use crate::store::aside::{Aside, Refusal, Subject};
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
/// The number of executions that all parts of a step may lead to in one commit, beside the executions of the last
/// fire.
pub(crate) const EXECUTIONS_MAX: usize = 2_048;
/// The number of executions that each part of a step may lead to, even if the parts before it have used up the
/// budget.
const PART_MIN: usize = 256;
/// Executions that are tried again in one commit.
const RETRIES_MAX: usize = 1_024;
/// Fires with waves or deadlines that are dealt with in one commit.
const LATE_MAX: usize = 4;
/// The number of orders to stop, and of boots, that one commit goes on with.
const BEGUN_MAX: usize = 16;
/// A gate is not asked again sooner.
const WAIT_MS_MIN: i64 = 100;
/// The reason of what had passed, and had not come to its place in the spread.
const STOPPED: &str = "the invocation was stopped before its delay was over";

/// What came of a step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// The wall-clock time of the transaction, in milliseconds.
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
    /// Stops and boots that are on record and go on in later commits.
    pub begun: Vec<Work>,
    /// Stops and boots that have gone on in this commit.
    pub carried: Vec<Work>,
    /// Stops and boots that have come to their end, each with the error if a part of it could not be done.
    pub done: Vec<(Work, Option<Error>)>,
    /// Rows that cannot be dealt with.
    pub refused: Vec<Refusal>,
    /// The error that keeps all stops and boots on record from going on.
    pub undone: Option<Error>,
    /// The number of records that were taken back, because their times are still to come.
    pub taken_back: usize,
    /// Whether there is more to do at once.
    pub more: bool,
    /// When the next timer is due, or a deadline is over.
    pub next_due_ms: Option<i64>,
    /// When its transaction was, and when the next attempt or the next wave is due, in steady time.
    pub steady_ms: i64,
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

    /// The part that deals with a row.
    pub(super) const fn of(subject: Subject) -> Self {
        match subject {
            Subject::Ahead(_) | Subject::Timer(_) => Self::Timers,
            Subject::Retry(_) => Self::Retries,
            Subject::Start(_) | Subject::End(_) => Self::Deadlines,
            Subject::Stop(_) | Subject::Execution(_) | Subject::Boot(_) | Subject::Target(_) => {
                Self::Begun
            }
            Subject::Wave(_) => Self::Waves,
        }
    }

    /// Returns the message for the host if the part cannot be done.
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

/// The party that decides about waves.
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

    /// Does these parts of a step: fires due timers and tries due executions again, the ones that have waited longest
    /// first. Rows that are set aside are passed over.
    pub(super) fn fire_due(
        tx: Tx<'_>,
        watchful: Watchful,
        gate: &Gate,
        parts: &[Part],
        aside: &Aside,
    ) -> Result<Self> {
        let now_ms = watchful.now.timestamp_millis();
        let steady_ms = waits::now(tx, now_ms);
        let mut step = Self { steady_ms, ..Self::at(now_ms) };
        let mut budget = Budget { times: TIMES_MAX, fires: FIRES_MAX, executions: EXECUTIONS_MAX };
        let mut next_wave_ms = None;
        for part in parts {
            // The first parts of a step must not keep the later parts from going on.
            budget.executions = budget.executions.max(PART_MIN);
            match part {
                Part::Timers => {
                    step.take_back(tx, aside, now_ms, &mut budget)?;
                    let due = match aside.is_careful() {
                        true => timers::due_apart(tx, now_ms, TIMERS_MAX, aside)?,
                        false => timers::due(tx, now_ms, TIMERS_MAX)?,
                    };
                    step.more |= due.len() == TIMERS_MAX;
                    step.deal_with(tx, aside, due, now_ms, &mut budget, |step, timer, budget| {
                        step.fire(tx, timer, watchful, budget)
                    })?;
                }
                Part::Retries => {
                    let max = RETRIES_MAX.min(budget.executions);
                    let retried = match aside.is_careful() {
                        true => claims::release_due_apart(tx, steady_ms, max, aside)?,
                        false => claims::release_due(tx, steady_ms, max)?,
                    };
                    step.more |= retried.len() == max;
                    budget.spend(retried.len());
                    step.released.extend(retried);
                }
                Part::Deadlines => {
                    step.keep_deadlines(tx, aside, now_ms, &mut budget.executions)?;
                }
                Part::Begun => step.carry_on(tx, aside, now_ms, &mut budget.executions)?,
                Part::Waves => next_wave_ms = step.let_waves_loose(tx, aside, gate, steady_ms)?,
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
        if parts.len() == Part::ALL.len() {
            waits::look(tx, step.next_wait_ms.is_some())?;
        }
        Ok(step)
    }

    /// Adds the outcome of another part of the step, which is announced already.
    pub(super) fn add_part(&mut self, other: Self) {
        self.waves.extend(other.waves);
        self.withdrawn.extend(other.withdrawn);
        self.more |= other.more;
        self.next_due_ms = [self.next_due_ms, other.next_due_ms].into_iter().flatten().min();
        self.next_wait_ms = [self.next_wait_ms, other.next_wait_ms].into_iter().flatten().min();
    }

    /// Ends executions that have not started, or not ended, in time: as many as are `left` to this commit.
    fn keep_deadlines(
        &mut self,
        tx: Tx<'_>,
        aside: &Aside,
        now_ms: i64,
        left: &mut usize,
    ) -> Result<()> {
        type Late = fn(Tx<'_>, i64, usize) -> Result<Vec<i64>>;
        type Deal = fn(Tx<'_>, i64, i64, &mut usize) -> Result<Stopped>;
        type Name = fn(i64) -> Subject;
        let both: [(Late, Deal, Name); 2] = [
            (deadlines::late_to_start, deadlines::expire, Subject::Start),
            (deadlines::late_to_end, deadlines::end, Subject::End),
        ];
        for (late, deal, subject) in both {
            let late = late(tx, now_ms, LATE_MAX.saturating_add(aside.count()))?;
            let late = aside.others(late, LATE_MAX, subject);
            self.more |= !late.is_empty();
            for fire in late {
                let before = *left;
                let act = || {
                    let invoke_id = invocations::invoke_id_of_fire(tx, fire)?;
                    Ok((invoke_id, deal(tx, fire, now_ms, left)?))
                };
                let dealt = aside.deal(tx, subject(fire), act, |error| give_up(tx, fire, error))?;
                match dealt {
                    Some((invoke_id, stopped)) if !stopped.is_empty() => {
                        self.stopped.push((invoke_id, StopReason::Deadline.into(), stopped));
                    }
                    Some(_) => {}
                    None => *left = before,
                }
            }
        }
        Ok(())
    }

    /// Goes on with stops and boots that earlier commits have begun, as far as `left` goes.
    pub(crate) fn carry_on(
        &mut self,
        tx: Tx<'_>,
        aside: &Aside,
        now_ms: i64,
        left: &mut usize,
    ) -> Result<()> {
        let max = BEGUN_MAX + 1;
        let orders = stop::unfinished(tx, max.saturating_add(aside.count()))?;
        let orders = aside.others(orders, max, Subject::Stop);
        self.more |= orders.len() == max;
        for order in orders.into_iter().take(BEGUN_MAX) {
            if *left == 0 {
                self.more = true;
                break;
            }
            let act = || stop::carry_on(tx, order, now_ms, left, aside);
            // The row of an order keeps its executions from starting.
            let give_up = |error: &Error| Err(error.clone());
            let Some(carried_on) = aside.deal(tx, Subject::Stop(order), act, give_up)? else {
                continue;
            };
            let CarriedOn { stop, invoke_id, order, stopped, has_more } = carried_on;
            match has_more {
                true => self.carried.push(Work::Stop(stop)),
                false => self.done.push((Work::Stop(stop), stopped.unstopped.clone())),
            }
            self.more |= has_more || stopped.more_to_stop;
            // Nobody watches an invocation that cannot be read.
            let invoke_id = invoke_id.unwrap_or_else(|| InvokeId::from_bytes([0; 16]));
            self.stopped.push((invoke_id, order, stopped));
        }
        let booting = instances::booting(tx, max.saturating_add(aside.count()))?;
        let booting = aside.others(booting, max, Subject::Boot);
        self.more |= booting.len() == max;
        for instance in booting.into_iter().take(BEGUN_MAX) {
            if *left == 0 {
                self.more = true;
                break;
            }
            let act = || {
                let of = instances::get_booting(tx, instance)?;
                firing::at_boot(tx, &of.id, &of.boot_id, now_ms, left, aside)
            };
            let give_up = |error: &Error| {
                tell(
                    || tracing::error!(%error, instance, "what waits for a boot is not told of it"),
                );
                instances::end_booting(tx, instance)
            };
            let has_more = match aside.deal(tx, Subject::Boot(instance), act, give_up)? {
                Some(booting) => {
                    let has_more = booting.has_more;
                    self.take_boot(booting);
                    has_more
                }
                None if aside.has(Subject::Boot(instance)) => continue,
                None => false,
            };
            self.more |= has_more;
            match has_more {
                true => self.carried.push(Work::Boot(instance)),
                false => self.done.push((Work::Boot(instance), None)),
            }
        }
        Ok(())
    }

    /// Takes note of the boot of an instance, and tells invocations that wait for it, as many as are `left` to this
    /// commit. Returns whether the boot had to be given up: these invocations then wait for the next boot.
    pub(crate) fn boot(
        &mut self,
        tx: Tx<'_>,
        aside: &Aside,
        id: &InstanceId,
        boot_id: &str,
        left: &mut usize,
    ) -> Result<bool> {
        let now_ms = self.at_ms;
        match store::apart(tx, || firing::at_boot(tx, id, boot_id, now_ms, left, aside)) {
            Err(error) if error.is_of_a_record() => {
                tell(
                    || tracing::error!(%error, instance = %id, "what waits for a boot is not told of it"),
                );
                let instance = firing::give_up_boot(tx, id, boot_id)?;
                self.begun.extend(instance.map(Work::Boot));
                Ok(true)
            }
            booting => {
                self.take_boot(booting?);
                Ok(false)
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

    /// Opens waves that are due, or finds waves to be decided about. Returns when the next wave is due.
    fn let_waves_loose(
        &mut self,
        tx: Tx<'_>,
        aside: &Aside,
        gate: &Gate,
        steady_ms: i64,
    ) -> Result<Option<i64>> {
        match gate {
            Gate::Asked { about, more } => {
                for due in about {
                    let act = || waves::waits(tx, due);
                    let give_up = |error: &Error| Err(error.clone());
                    // The gate is no longer asked about a wave if nobody can tell whether the wave waits.
                    if aside.deal(tx, Subject::Wave(due.fire), act, give_up)? != Some(true) {
                        self.withdrawn.push(due.fire);
                    }
                }
                let limit = about.len().saturating_add(*more).saturating_add(aside.count());
                let mut due = waves::due(tx, steady_ms, limit)?;
                due.retain(|fire| about.iter().all(|other| other.fire != *fire));
                for fire in aside.others(due, *more, Subject::Wave) {
                    let due = self.deal_with_wave(tx, aside, fire, || waves::get(tx, fire))?;
                    self.waves.extend(due);
                }
            }
            Gate::None => {
                let due = waves::due(tx, steady_ms, LATE_MAX.saturating_add(aside.count()))?;
                let due = aside.others(due, LATE_MAX, Subject::Wave);
                self.more |= due.len() == LATE_MAX;
                for fire in due {
                    let due = || waves::get(tx, fire);
                    if let Some(due) = self.deal_with_wave(tx, aside, fire, due)? {
                        self.open(tx, aside, &due, steady_ms)?;
                    }
                }
            }
        }
        // The other waves wait for an answer, not for a time.
        waves::next_ms(tx, steady_ms)
    }

    /// Deals with the next wave of a fire. If the wave cannot be read, it never comes, and callers that wait for the
    /// end of the invocation are told so.
    fn deal_with_wave<T>(
        &mut self,
        tx: Tx<'_>,
        aside: &Aside,
        fire: i64,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<Option<T>> {
        let subject = Subject::Wave(fire);
        let mut given_up = None;
        let dealt = aside.deal(tx, subject, act, |error| {
            give_up(tx, fire, error)?;
            given_up = Some(error.clone());
            Ok(())
        })?;
        self.refused.extend(given_up.map(|error| {
            let invoke_id = subject.invoke_id(tx);
            Refusal { subject, invoke_id, error }
        }));
        Ok(dealt)
    }

    fn open(&mut self, tx: Tx<'_>, aside: &Aside, due: &DueWave, steady_ms: i64) -> Result<()> {
        let opened = self.deal_with_wave(tx, aside, due.fire, || waves::open(tx, due))?;
        if opened.unwrap_or_default() {
            self.released.push(Released::all_of(tx, due.fire, steady_ms)?);
        }
        Ok(())
    }

    /// Carries out what was decided about a wave.
    pub(super) fn decide(
        tx: Tx<'_>,
        aside: &Aside,
        due: &DueWave,
        decision: &WaveDecision,
        now_ms: i64,
    ) -> Result<Self> {
        let mut step = Self::at(now_ms);
        if !waves::waits(tx, due)? {
            return Ok(step);
        }
        match decision {
            WaveDecision::Proceed => step.open(tx, aside, due, waits::now(tx, now_ms))?,
            WaveDecision::Wait(time) => {
                let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
                waves::put_off(tx, due, time_ms.max(WAIT_MS_MIN), now_ms)?;
            }
            WaveDecision::Halt(why) => {
                let halted = waves::halt(tx, due, why, now_ms, &mut { EXECUTIONS_MAX })?;
                step.stopped.push((due.invoke_id, StopReason::Gate.into(), halted));
            }
        }
        Ok(step)
    }

    /// Deals with the nominal times of an invocation up to now: what is done to it next comes after
    /// them. To be repeated while there is `more`.
    pub(crate) fn settle(
        tx: Tx<'_>,
        aside: &Aside,
        invocation: i64,
        watchful: Watchful,
        settling: Settling,
    ) -> Result<Self> {
        let now_ms = watchful.now.timestamp_millis();
        let mut step = Self::at(now_ms);
        let mut budget = Budget { times: TIMES_MAX, fires: FIRES_MAX, executions: EXECUTIONS_MAX };
        step.take_back(tx, aside, now_ms, &mut budget)?;
        let mut found = timers::of_invocation(tx, invocation)?;
        found.retain(|found| !aside.has(Subject::Timer(found.id)));
        found.retain(|found| found.timer.as_ref().map_or(true, |timer| timer.is_nominal(now_ms)));
        let paused = invocations::standing_of(tx, invocation)?.paused.is_some();
        step.deal_with(tx, aside, found, now_ms, &mut budget, |step, timer, budget| {
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

    /// Deals with timers, as far as the budget goes. A timer that cannot be dealt with must not keep the others from
    /// firing: its schedule ends, with a record that says why. If the schedule cannot be ended either, the timer is
    /// set aside; so is a timer whose zone has no file on this machine, because the file may come back.
    fn deal_with(
        &mut self,
        tx: Tx<'_>,
        aside: &Aside,
        found: Vec<Found>,
        now_ms: i64,
        budget: &mut Budget,
        mut deal: impl FnMut(&mut Self, &Timer, &mut Budget) -> Result<()>,
    ) -> Result<()> {
        for found in found {
            if budget.is_spent() {
                break;
            }
            let Found { id, invocation, invoke_id, timer } = found;
            let before =
                (self.fires.len(), self.stopped.len(), self.finished.len(), self.late_ms.len());
            let dealt = timer.and_then(|timer| store::apart(tx, || deal(self, &timer, budget)));
            let Err(error) = dealt else { continue };
            self.fires.truncate(before.0);
            self.stopped.truncate(before.1);
            self.finished.truncate(before.2);
            self.late_ms.truncate(before.3);
            let given_up = match error.is_of_a_record() {
                true => {
                    let of = (id, invocation, invoke_id);
                    store::apart(tx, || self.give_up(tx, of, &error, now_ms))
                }
                false => Err(error),
            };
            if let Err(error) = given_up {
                aside.refuse(tx, Subject::Timer(id), invoke_id, error)?;
            }
        }
        self.more |= budget.is_spent();
        Ok(())
    }

    fn give_up(
        &mut self,
        tx: Tx<'_>,
        (timer, invocation, invoke_id): (i64, Option<i64>, Option<InvokeId>),
        error: &Error,
        now_ms: i64,
    ) -> Result<()> {
        let told_id = invoke_id.map(|id| id.to_string()).unwrap_or_default();
        tell(
            || tracing::error!(%error, invoke_id = told_id, "a schedule ends, for its timer cannot be dealt with"),
        );
        let why = format!("its schedule ends here, for it cannot be carried out: {error}");
        let told = even_if_unreadable(tx, || fires::give_up(tx, timer, &why, now_ms))?;
        self.fires.extend(invoke_id.zip(told.flatten()));
        timers::end(tx, timer)?;
        let finish = || match invocation {
            Some(invocation) => invocations::finish_if_done(tx, invocation, now_ms),
            None => Ok(None),
        };
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
            let left = &mut budget.executions;
            let fired = firing::by_timer(tx, timer, &targets, at_ms, late, now_ms, left)?;
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

/// Gives up the times of a fire that cannot be dealt with, so that the fire keeps no other fire waiting.
fn give_up(tx: Tx<'_>, fire: i64, error: &Error) -> Result<()> {
    tell(|| tracing::error!(%error, fire, "the times of a fire are given up"));
    deadlines::give_up(tx, fire)
}

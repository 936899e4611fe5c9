//! The part of a step that runs inside its transaction: claims what the plan allows, and looks for
//! work that is new.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::id::InvokeId;
use crate::panics::tell;
use crate::store::claims::{self, Awaiting, Claim, Claimed, Place};
use crate::store::executions::{self, Aborted};
use crate::store::fires::Terms;
use crate::store::{self, Tx, fires, instances, invocations, waits};

use super::bounds::{Bounds, HandedOver, Within};
use super::orders::{Berth, Orders};
use super::roster::RunningFire;
use super::slots::{LEVELS, Plan, Subject, Taken, Waiting, share};

/// Executions of one instance that one step may unmark because another bound holds them back. The next step goes on
/// with the rest, so that no step is long.
const UNMARKED_MAX: usize = 256;

/// Executions that cannot start and that one step ends. Later commits end the others.
const ABORTED_MAX: usize = 2_048;

/// What a claim came to.
#[derive(Debug, Default)]
pub(super) struct ClaimedWork {
    /// By fire: what to start.
    pub claimed: Vec<ClaimedFire>,
    pub taken: Taken,
    /// Executions that cannot start and have ended.
    pub aborted: Vec<Aborted>,
    /// Invocations with executions that can neither start nor end.
    pub stuck: Vec<(InvokeId, Error)>,
}

/// What was claimed of a fire.
#[derive(Debug)]
pub(super) struct ClaimedFire {
    pub of: Arc<RunningFire>,
    /// Each with its place on its instance, if there are so many there.
    pub executions: Vec<(Claimed, Option<Berth>)>,
    /// The place within the bounds of the fire, if the transaction and not the plan has taken it.
    pub within: Option<Within>,
}

/// A fire or an instance that cannot be claimed because of a damaged page. Because SQLite commits nothing of the
/// transaction that has found it, a suspect is reported beside the transaction.
#[derive(Debug)]
pub(super) struct Suspect {
    pub subject: Subject,
    /// The invocation whose executions can neither start nor end.
    pub invoke_id: Option<InvokeId>,
    pub error: Error,
}

/// The suspects that careful plans have found.
pub(super) type Suspects = Mutex<Vec<Suspect>>;

/// A claim that is being made.
struct Claiming<'a> {
    tx: Tx<'a>,
    orders: &'a Arc<Orders>,
    bounds: &'a Arc<Bounds>,
    /// The places within bounds that only this step may use.
    own: &'a HandedOver,
    now_ms: i64,
    /// The same instant in steady time, for ages.
    steady_ms: i64,
    /// The place for the suspects of a careful plan; `None` for other plans.
    suspects: Option<&'a Suspects>,
    /// The level of the fires whose turn it is.
    top: u8,
    /// Executions that cannot start of which this commit still ends so many.
    left: usize,
    work: ClaimedWork,
}

/// Claims executions as the plan allows. Executions that wait for the freed instances come first, so that no fire of
/// the same level overtakes them.
pub(super) fn claim(
    tx: Tx<'_>,
    plan: &Plan,
    orders: &Arc<Orders>,
    bounds: &Arc<Bounds>,
    suspects: &Suspects,
    now_ms: i64,
) -> Result<ClaimedWork> {
    let (work, suspects) = (ClaimedWork::default(), plan.is_careful.then_some(suspects));
    let steady_ms = waits::now(tx, now_ms);
    let (own, left) = (&plan.handed_over, ABORTED_MAX);
    let mut claiming =
        Claiming { tx, orders, bounds, own, now_ms, steady_ms, suspects, top: 0, left, work };
    let mut left = plan.room;
    let new = claiming.look(plan)?;
    // What came with a plan has been counted against its limits, what is new has not.
    let (new, limited): (Vec<_>, Vec<_>) =
        new.into_iter().partition(|waiting| waiting.limits().is_none());
    claiming.work.taken.unserved.extend(limited);
    let planned = plan.turn.iter().cloned();
    let turn: Vec<_> = planned.chain(new.into_iter().map(|one| (one, plan.room))).collect();
    let levels: Vec<_> = turn.iter().map(|(waiting, _)| waiting.level(steady_ms)).collect();
    let top = levels.iter().copied().max().unwrap_or_default();
    claiming.top = top;
    for &instance in &plan.freed {
        left -= claiming.open_apart(instance, left)?;
    }
    let served = levels.iter().filter(|level| **level == top).count();
    let share = share(plan.room, served + plan.beside);
    for (number, ((waiting, most), level)) in turn.into_iter().zip(levels).enumerate() {
        let is_planned = number < plan.turn.len();
        let max = if level == top { share.min(most).min(left) } else { 0 };
        let claimed = match (max, waiting.subject) {
            (0, _) if is_planned => {
                claiming.work.taken.passed_over.push(waiting);
                0
            }
            (0, _) => {
                claiming.work.taken.unserved.push(waiting);
                0
            }
            (max, Subject::Opening(instance)) => claiming.open_apart(instance, max)?,
            (max, Subject::Fire(fire)) => claiming.serve_apart(fire, waiting, max)?,
        };
        left -= claimed;
        if is_planned {
            claiming.work.taken.claimed.push(claimed);
        }
    }
    Ok(claiming.work)
}

impl Claiming<'_> {
    /// Converts steady time to a time of day.
    fn time_of_day(&self, steady_ms: i64) -> i64 {
        self.now_ms.saturating_sub(self.steady_ms.saturating_sub(steady_ms))
    }

    /// Looks for new fires, the highest priority first.
    fn look(&mut self, plan: &Plan) -> Result<Vec<Waiting>> {
        let mut new = Vec::new();
        let Some(looks) = plan.looks else { return Ok(new) };
        let mut below = LEVELS as u8;
        while let Some(priority) = fires::priority_below(self.tx, below)? {
            below = priority;
            let at = usize::from(priority);
            let (after, max) = (looks.after[at], looks.max[at]);
            let found = &mut self.work.taken.found[at];
            if max == 0 {
                // There are so many that nobody has looked.
                found.1 = true;
                continue;
            }
            let queued = fires::queue(self.tx, priority, after, max)?;
            *found = (queued.last().map(|(fire, _)| *fire), queued.len() == max);
            let is_served = |fire| !plan.set_aside.contains(&Subject::Fire(fire));
            for (fire, terms) in queued.into_iter().filter(|(fire, _)| is_served(*fire)) {
                match terms {
                    Ok(terms) => new.push(Waiting::all((fire, terms))),
                    Err(error) => self.give_up(fire, None, &error)?,
                }
            }
        }
        Ok(new)
    }

    /// Serves a fire. In a careful plan a fire that cannot be served keeps no other from being served.
    fn serve_apart(&mut self, fire: i64, waiting: Waiting, max: usize) -> Result<usize> {
        if self.suspects.is_none() {
            return self.serve(fire, waiting, max);
        }
        let invoke_id = invocations::invoke_id_of_fire(self.tx, fire).ok();
        let served = self.apart(|claiming| claiming.serve(fire, waiting, max));
        let served = match served {
            Ok(Err(error)) => self.give_up(fire, None, &error).map(|()| Ok(0)),
            served => served,
        };
        self.suspect(served, Subject::Fire(fire), invoke_id)
    }

    fn open_apart(&mut self, instance: i64, max: usize) -> Result<usize> {
        if self.suspects.is_none() {
            return self.open(instance, max);
        }
        let next = claims::next_awaiting(self.tx, instance, Place::FIRST).ok().flatten();
        let invoke_id =
            next.and_then(|next| invocations::invoke_id_of_fire(self.tx, next.fire).ok());
        let opened = self.apart(|claiming| claiming.open(instance, max));
        let opened = match opened {
            Ok(Err(error)) => Err(error),
            opened => opened,
        };
        self.suspect(opened, Subject::Opening(instance), invoke_id)
    }

    /// Adds a suspect if `done` is an error that another try would meet too.
    fn suspect(
        &self,
        done: Result<Result<usize>>,
        subject: Subject,
        invoke_id: Option<InvokeId>,
    ) -> Result<usize> {
        match (done, self.suspects) {
            (Err(error), Some(suspects)) if error.is_lasting() => {
                tell(|| tracing::error!(%error, ?subject, "executions can neither start nor end"));
                let suspect = Suspect { subject, invoke_id, error: error.clone() };
                suspects.lock().unwrap_or_else(PoisonError::into_inner).push(suspect);
                Err(error)
            }
            (done, _) => done?,
        }
    }

    /// Runs `act` in a savepoint, so that an action that fails because of a record leaves no change.
    fn apart<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<Result<T>> {
        let (tx, before) = (self.tx, std::mem::take(&mut self.work));
        let done = store::apart(tx, || act(self));
        let own = std::mem::replace(&mut self.work, before);
        match done {
            Err(error) if error.is_lasting() => Ok(Err(error)),
            done => {
                let done = done?;
                self.work.add(own);
                Ok(Ok(done))
            }
        }
    }

    /// Ends the executions of a fire that cannot start because of a record, on one instance or on all. If their ends
    /// cannot be written either, the fire is set aside.
    fn give_up(&mut self, fire: i64, on: Option<i64>, why: &Error) -> Result<()> {
        tell(|| tracing::error!(error = %why, fire, "executions cannot start"));
        let (tx, now_ms, left) = (self.tx, self.now_ms, &mut self.left);
        match store::apart(tx, || executions::abort(tx, fire, on, why, now_ms, left)) {
            Ok(aborted) => self.work.aborted.push(aborted),
            Err(error) if error.is_lasting() && !error.is_damage() => {
                tell(|| tracing::error!(%error, fire, "neither can they end: they are set aside"));
                self.work.taken.set_aside.push(fire);
                let invoke_id = invocations::invoke_id_of_fire(tx, fire).ok();
                self.work.stuck.extend(invoke_id.map(|invoke_id| (invoke_id, why.clone())));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Claims up to `max` executions of a fire. Returns their number.
    fn serve(&mut self, fire: i64, mut waiting: Waiting, max: usize) -> Result<usize> {
        if waiting.terms.is_none() {
            let Some(terms) = fires::terms(self.tx, fire)? else { return Ok(0) };
            waiting.terms = Some(terms);
            if waiting.limits().is_some() {
                self.work.taken.unserved.push(waiting);
                return Ok(0);
            }
        }
        let limits = waiting.limits().map(Arc::clone);
        let start_by_ms = limits.as_ref().and_then(|of| of.start_by_ms);
        // Before anything is changed: a record that cannot be read must be in nobody's way.
        let job = match &waiting.job {
            Some(job) => Arc::clone(job),
            None => match invocations::job_of_fire(self.tx, fire) {
                Err(error) if error.is_lasting() => {
                    return self.give_up(fire, None, &error).map(|()| 0);
                }
                job => job?,
            },
        };
        waiting.job = Some(Arc::clone(&job));
        let claim = Claim {
            fire,
            after: waiting.after,
            until: waiting.until,
            max,
            has_waves: limits.as_ref().is_some_and(|of| of.has_waves),
            is_late: start_by_ms.is_some_and(|by_ms| self.now_ms > by_ms),
            standing: waiting.standing,
            now_ms: self.now_ms,
        };
        let mut berths = Vec::new();
        let found = claims::claim(self.tx, &claim, |one| {
            let Some(max) = one.target.instance.max_concurrency else {
                berths.push(None);
                return true;
            };
            let berth = self.orders.berth(one.target.row, max);
            let admitted = berth.is_some();
            berths.extend(berth.map(Some));
            admitted
        })?;
        let count = found.claimed.len();
        if count > 0 {
            let executions = found.claimed.into_iter().zip(berths).collect();
            let dealt_ms = waiting.terms.as_ref().map_or(self.steady_ms, |terms| terms.dealt_at_ms);
            let dealt_at_ms = self.time_of_day(dealt_ms);
            let of = Arc::new(RunningFire { fire, job, limits, sole: None, dealt_at_ms });
            self.work.claimed.push(ClaimedFire { of, executions, within: None });
            // The fire has had a share, so its age begins anew.
            waiting.standing.since_ms = self.steady_ms;
        }
        for (instance, error) in found.unreadable {
            self.give_up(fire, Some(instance), &error)?;
        }
        if let Some(after) = found.more_after {
            waiting.after = after;
            if let Some(terms) = &mut waiting.terms {
                terms.unfinished = terms.unfinished.saturating_sub(count);
            }
            self.work.taken.served.push(waiting);
        }
        Ok(count)
    }

    /// Claims up to `max` of the executions that wait for an instance, in their order. Returns their number. An
    /// execution that another bound holds back waits for that bound instead, and the next execution gets the instance
    /// in the same transaction.
    fn open(&mut self, instance: i64, max: usize) -> Result<usize> {
        let (mut claimed, mut unmarked, mut after) = (0, 0, Place::FIRST);
        while let Some(next) = claims::next_awaiting(self.tx, instance, after)? {
            after = next.place;
            if unmarked == UNMARKED_MAX {
                self.work.taken.unserved.push(Waiting::opening(instance, next.standing));
                break;
            }
            if next.is_held {
                // Its stop is about to end it. If its record cannot be changed, the search goes on behind it.
                let (tx, unmark) = (self.tx, || claims::unmark_awaiting(self.tx, &next));
                match store::apart(tx, unmark) {
                    Err(error) if error.is_of_a_record() => {}
                    unmarked => unmarked?,
                }
                unmarked += 1;
                continue;
            }
            let berth = match self.berth(instance, &next)? {
                Ok(berth) => berth,
                Err(ended) if ended => {
                    unmarked += 1;
                    continue;
                }
                Err(_) => break,
            };
            let is_due = next.standing.level(self.steady_ms) >= self.top;
            if claimed == max || !is_due {
                self.work.taken.unserved.push(Waiting::opening(instance, next.standing));
                break;
            }
            match self.admit(instance, &next, berth)? {
                true => claimed += 1,
                false => unmarked += 1,
            }
        }
        Ok(claimed)
    }

    /// Returns a place on an instance, if the instance is bounded. The error says that there is none: false if all are
    /// taken, true if the instance cannot be read and the execution has therefore ended.
    fn berth(&mut self, row: i64, next: &Awaiting) -> Result<Result<Option<Berth>, bool>> {
        let target = match instances::of_row(self.tx, row) {
            Err(error) if error.is_lasting() => {
                claims::unmark_awaiting(self.tx, next)?;
                self.give_up(next.fire, Some(row), &error)?;
                return Ok(Err(true));
            }
            target => target?,
        };
        let Some(max) = target.instance.max_concurrency else { return Ok(Ok(None)) };
        Ok(self.orders.berth(row, max).map(Some).ok_or(false))
    }

    /// Claims an execution that has waited for its instance. Returns false if another bound holds it back.
    fn admit(&mut self, instance: i64, next: &Awaiting, berth: Option<Berth>) -> Result<bool> {
        let Some(terms) = fires::terms(self.tx, next.fire)? else {
            claims::unmark_awaiting(self.tx, next)?;
            return Ok(false);
        };
        let job = match invocations::job_of_fire(self.tx, next.fire) {
            Err(error) if error.is_lasting() => {
                claims::unmark_awaiting(self.tx, next)?;
                self.give_up(next.fire, None, &error)?;
                return Ok(false);
            }
            job => job?,
        };
        let mut within = None;
        if let Some(limits) = &terms.limits {
            let is_late = limits.start_by_ms.is_some_and(|by_ms| self.now_ms > by_ms);
            if is_late && next.attempt == 1 {
                // The scheduler ends executions that are too late to start.
                claims::unmark_awaiting(self.tx, next)?;
                return Ok(false);
            }
            within = self.bounds.enter(limits, self.own);
            if within.is_none() {
                claims::unmark_awaiting(self.tx, next)?;
                let waiting = Waiting::one(next.fire, instance, terms, next.standing);
                self.work.taken.unserved.push(waiting);
                return Ok(false);
            }
        }
        claims::claim_awaiting(self.tx, next, self.now_ms)?;
        let Terms { limits, dealt_at_ms, .. } = terms;
        let dealt_at_ms = self.time_of_day(dealt_at_ms);
        let target = instances::of_row(self.tx, instance)?;
        let claimed = Claimed { id: next.id, attempt: next.attempt, target };
        let of = RunningFire { fire: next.fire, job, limits, sole: None, dealt_at_ms };
        let executions = vec![(claimed, berth)];
        self.work.claimed.push(ClaimedFire { of: Arc::new(of), executions, within });
        Ok(true)
    }
}

impl ClaimedWork {
    /// Adds the work of a part of the plan.
    fn add(&mut self, part: Self) {
        self.claimed.extend(part.claimed);
        self.aborted.extend(part.aborted);
        self.stuck.extend(part.stuck);
        self.taken.unserved.extend(part.taken.unserved);
        self.taken.served.extend(part.taken.served);
        self.taken.set_aside.extend(part.taken.set_aside);
    }
}

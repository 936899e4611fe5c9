//! The part of a step that runs inside its transaction: claims what the plan allows, and looks for
//! work that is new.

use std::sync::Arc;

use crate::error::Result;
use crate::store::claims::{self, Claim, Claimed, Released};
use crate::store::{Tx, fires, invocations};

use super::orders::{Berth, Orders};
use super::roster::RunningFire;
use super::slots::{Plan, Taken, Waiting, share};

/// What a claim came to.
#[derive(Debug, Default)]
pub(super) struct ClaimedWork {
    /// By fire: what to start.
    pub claimed: Vec<ClaimedFire>,
    pub taken: Taken,
}

/// What was claimed of a fire.
#[derive(Debug)]
pub(super) struct ClaimedFire {
    pub of: Arc<RunningFire>,
    /// Each with its place on its instance, if there are so many there.
    pub executions: Vec<(Claimed, Option<Berth>)>,
}

/// Claims what the plan allows, after what has just been `admitted` to its instance: nobody overtakes that.
pub(super) fn claim(
    tx: Tx<'_>,
    plan: &Plan,
    admitted: Vec<Released>,
    orders: &Arc<Orders>,
    now_ms: i64,
) -> Result<ClaimedWork> {
    let mut work = ClaimedWork::default();
    let mut left = plan.room;
    for waiting in admitted.into_iter().map(Waiting::released) {
        match left {
            0 => work.taken.unserved.push(waiting),
            _ => left -= work.serve(tx, waiting, 1, orders, now_ms)?,
        }
    }
    let new = work.look(tx, plan)?;
    // What came with a plan has been counted against its limits, what is new has not.
    let (new, limited): (Vec<_>, Vec<_>) =
        new.into_iter().partition(|waiting| waiting.limits().is_none());
    work.taken.unserved.extend(limited);
    let planned = plan.turn.iter().cloned();
    let turn: Vec<_> = planned.chain(new.into_iter().map(|one| (one, plan.room))).collect();
    let levels: Vec<_> = turn.iter().map(|(waiting, _)| waiting.level(now_ms)).collect();
    let top = levels.iter().copied().max().unwrap_or_default();
    let served = levels.iter().filter(|level| **level == top).count();
    let share = share(plan.room, served + plan.beside);
    for (number, ((waiting, most), level)) in turn.into_iter().zip(levels).enumerate() {
        let is_planned = number < plan.turn.len();
        let max = if level == top { share.min(most).min(left) } else { 0 };
        let claimed = match max {
            0 if is_planned => {
                work.taken.passed_over.push(waiting);
                0
            }
            0 => {
                work.taken.unserved.push(waiting);
                0
            }
            max => work.serve(tx, waiting, max, orders, now_ms)?,
        };
        left -= claimed;
        if is_planned {
            work.taken.claimed.push(claimed);
        }
    }
    Ok(work)
}

impl ClaimedWork {
    /// Looks for new fires.
    fn look(&mut self, tx: Tx<'_>, plan: &Plan) -> Result<Vec<Waiting>> {
        let mut new = Vec::new();
        let Some(looks) = plan.looks else { return Ok(new) };
        for ((look, found), urgent) in looks.iter().zip(&mut self.taken.found).zip([true, false]) {
            if look.max == 0 {
                // There are so many that nobody has looked.
                found.1 = true;
                continue;
            }
            let queued = fires::queue(tx, look.after, look.max, urgent)?;
            *found = (queued.last().map(|(fire, _)| *fire), queued.len() == look.max);
            new.extend(queued.into_iter().map(Waiting::all));
        }
        Ok(new)
    }

    /// Claims up to `max` executions of a fire; how many that were.
    fn serve(
        &mut self,
        tx: Tx<'_>,
        mut fire: Waiting,
        max: usize,
        orders: &Arc<Orders>,
        now_ms: i64,
    ) -> Result<usize> {
        if fire.terms.is_none() {
            let Some(terms) = fires::terms(tx, fire.fire)? else { return Ok(0) };
            fire.terms = Some(terms);
            if fire.limits().is_some() {
                self.taken.unserved.push(fire);
                return Ok(0);
            }
        }
        let limits = fire.limits().map(Arc::clone);
        let start_by_ms = limits.as_ref().and_then(|of| of.start_by_ms);
        // Before anything is changed: a record that cannot be read must be in nobody's way.
        let job = match &fire.job {
            Some(job) => Arc::clone(job),
            None => match invocations::job_of_fire(tx, fire.fire) {
                Err(error) if error.is_of_a_record() => {
                    tracing::error!(%error, fire = fire.fire, "a fire cannot be claimed");
                    return Ok(0);
                }
                job => job?,
            },
        };
        fire.job = Some(Arc::clone(&job));
        let claim = Claim {
            fire: fire.fire,
            after: fire.after,
            until: fire.until,
            max,
            has_waves: limits.as_ref().is_some_and(|of| of.has_waves),
            is_late: start_by_ms.is_some_and(|by_ms| now_ms > by_ms),
            now_ms,
        };
        let mut berths = Vec::new();
        let found = claims::claim(tx, &claim, |one| {
            let Some(max) = one.target.instance.max_concurrency else {
                berths.push(None);
                return true;
            };
            let berth = orders.berth(one.target.row, max);
            let admitted = berth.is_some();
            berths.extend(berth.map(Some));
            admitted
        })?;
        let count = found.claimed.len();
        if count > 0 {
            let executions = found.claimed.into_iter().zip(berths).collect();
            let dealt_at_ms = fire.terms.as_ref().map_or(now_ms, |terms| terms.since_ms);
            let of = RunningFire { fire: fire.fire, job, limits, sole: None, dealt_at_ms };
            self.claimed.push(ClaimedFire { of: Arc::new(of), executions });
        }
        if let Some(after) = found.more_after {
            fire.after = after;
            if let Some(terms) = &mut fire.terms {
                terms.unfinished = terms.unfinished.saturating_sub(count);
            }
            self.taken.served.push(fire);
        }
        Ok(count)
    }
}

//! The part of a step that runs inside its transaction: claims what the plan allows, and looks for
//! work that is new.

use std::sync::Arc;

use crate::error::Result;
use crate::id::ExecutionId;
use crate::invocation::Job;
use crate::store::executions::{self, Claimed};
use crate::store::{Tx, invocations};

use super::slots::{Plan, Served, Waiting, even_shares};

/// What a claim came to.
#[derive(Debug, Default)]
pub(super) struct ClaimedWork {
    /// By fire: what to start.
    pub claimed: Vec<(i64, Arc<Job>, Vec<Claimed>)>,
    pub served: Vec<Served>,
    /// Whether newer fires may be left; `None` if there was no room to look.
    pub more_new: Option<bool>,
}

pub(super) fn claim(tx: Tx<'_>, plan: &Plan, now_ms: i64) -> Result<ClaimedWork> {
    let mut work = ClaimedWork::default();
    let mut room = plan.room;
    for share in &plan.shares {
        room -= work.serve(tx, share.waiting.clone(), share.max, now_ms)?;
    }
    let new_max = plan.new_max.min(room);
    if new_max == 0 {
        return Ok(work);
    }
    let fires = executions::fires_with_work(tx, plan.new_after, new_max)?;
    work.more_new = Some(fires.len() == new_max);
    for (&fire, max) in fires.iter().zip(even_shares(room, fires.len())) {
        let waiting = Waiting { fire, after: ExecutionId(0), job: None };
        work.serve(tx, waiting, max, now_ms)?;
    }
    Ok(work)
}

impl ClaimedWork {
    /// Claims up to `max` executions of a fire; how many it got.
    fn serve(&mut self, tx: Tx<'_>, mut fire: Waiting, max: usize, now_ms: i64) -> Result<usize> {
        let claimed = executions::claim(tx, fire.fire, fire.after, max, now_ms)?;
        let count = claimed.len();
        if let Some(last) = claimed.last() {
            fire.after = last.id;
            let job = match fire.job.take() {
                Some(job) => job,
                None => invocations::job_of_fire(tx, fire.fire)?,
            };
            fire.job = Some(Arc::clone(&job));
            self.claimed.push((fire.fire, job, claimed));
        }
        self.served.push(Served { waiting: fire, exhausted: count < max });
        Ok(count)
    }
}

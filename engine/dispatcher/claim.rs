//! The part of a step that runs inside its transaction: claims what the plan allows, and looks for
//! work that is new.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::error::Result;
use crate::invocation::Job;
use crate::store::executions::{self, Claimed};
use crate::store::{Tx, invocations};

use super::slots::{Plan, Taken, Waiting, even_shares};

/// What a claim came to.
#[derive(Debug, Default)]
pub(super) struct ClaimedWork {
    /// By fire: what to start.
    pub claimed: Vec<(i64, Arc<Job>, Vec<Claimed>)>,
    pub taken: Taken,
}

pub(super) fn claim(tx: Tx<'_>, plan: &Plan, now_ms: i64) -> Result<ClaimedWork> {
    let mut work = ClaimedWork::default();
    let new = match plan.new_max {
        0 => Vec::new(),
        max => executions::fires_with_work(tx, plan.new_after, max)?,
    };
    work.taken.newest = new.last().copied();
    work.taken.more_new = new.len() == plan.new_max;
    let new = new.into_iter().map(|fire| Waiting { fire, after: 0, job: None });
    let mut turn: VecDeque<Waiting> = plan.turn.iter().cloned().chain(new).collect();
    for max in even_shares(plan.room, plan.room.min(turn.len())) {
        let Some(waiting) = turn.pop_front() else { break };
        work.serve(tx, waiting, max, now_ms)?;
    }
    work.taken.unserved = turn.into();
    Ok(work)
}

impl ClaimedWork {
    /// Claims up to `max` executions of a fire.
    fn serve(&mut self, tx: Tx<'_>, mut fire: Waiting, max: usize, now_ms: i64) -> Result<()> {
        let (claimed, more) = executions::claim(tx, fire.fire, fire.after, max, now_ms)?;
        if let Some(last) = claimed.last() {
            fire.after = last.instance;
            let job = match fire.job.take() {
                Some(job) => job,
                None => invocations::job_of_fire(tx, fire.fire)?,
            };
            fire.job = Some(Arc::clone(&job));
            self.claimed.push((fire.fire, job, claimed));
        }
        if more {
            self.taken.served.push(fire);
        }
        Ok(())
    }
}

//! Who runs next: the fires with waiting executions, in turn, each with its share of the free
//! places. Pure accounting; the waiting executions themselves stay in the database.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::id::ExecutionId;
use crate::invocation::Job;

/// Fires that are known here at a time; the rest wait in the database too.
const FIRES_MAX: usize = 1_024;

/// A fire that has, or may have, executions to run.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub fire: i64,
    /// The last execution of it that was claimed.
    pub after: ExecutionId,
    /// Loaded with the first claim.
    pub job: Option<Arc<Job>>,
}

/// A fire and how many of its executions may be claimed now.
#[derive(Debug, Clone)]
pub(super) struct Share {
    pub waiting: Waiting,
    pub max: usize,
}

/// What to claim, worked out before the transaction that does it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub shares: Vec<Share>,
    /// Free places in all.
    pub room: usize,
    /// New fires are looked for after this one; at most so many.
    pub new_after: i64,
    pub new_max: usize,
}

/// The fires in turn.
#[derive(Debug)]
pub(super) struct Backlog {
    turn: VecDeque<Waiting>,
    /// The newest fire seen. Later ones have higher numbers.
    newest: i64,
    /// Whether the database may hold fires newer than that.
    may_have_new: bool,
}

impl Backlog {
    /// A backlog that has yet to look into the database.
    pub(super) fn new() -> Self {
        Self { turn: VecDeque::new(), newest: 0, may_have_new: true }
    }

    /// New work has been stored.
    pub(super) fn expect_new(&mut self) {
        self.may_have_new = true;
    }

    /// Whether a claim could find anything.
    pub(super) fn may_have_work(&self) -> bool {
        !self.turn.is_empty() || self.may_have_new
    }

    /// Divides `room` places among the fires whose turn it is, evenly.
    pub(super) fn plan(&self, room: usize) -> Plan {
        let served = self.turn.len().min(room);
        let shares = even_shares(room, served)
            .zip(&self.turn)
            .map(|(max, waiting)| Share { waiting: waiting.clone(), max })
            .collect();
        let new_max = if self.may_have_new { FIRES_MAX - self.turn.len() } else { 0 };
        Plan { shares, room, new_after: self.newest, new_max }
    }

    /// Takes note of what a plan came to: the fires it served go to the end of the turn, those with
    /// nothing left are dropped, new ones join.
    pub(super) fn apply(&mut self, plan: &Plan, served: Vec<Served>, more_new: Option<bool>) {
        self.turn.drain(..plan.shares.len());
        for fire in served {
            self.newest = self.newest.max(fire.waiting.fire);
            if !fire.exhausted {
                self.turn.push_back(fire.waiting);
            }
        }
        // Without a look at what is new, what was thought of it stands.
        if let Some(more) = more_new {
            self.may_have_new = more;
        }
    }
}

/// How a fire came out of a claim.
#[derive(Debug)]
pub(super) struct Served {
    pub waiting: Waiting,
    /// It had fewer executions waiting than it could have had claimed.
    pub exhausted: bool,
}

/// `room` in `parts` parts that differ by one at most; none is empty.
pub(super) fn even_shares(room: usize, parts: usize) -> impl Iterator<Item = usize> {
    let (each, rest) = room.checked_div(parts).map_or((0, 0), |each| (each, room % parts));
    (0..parts).map(move |n| each + usize::from(n < rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(fire: i64) -> Waiting {
        Waiting { fire, after: ExecutionId(0), job: None }
    }

    #[test]
    fn shares_are_even() {
        let check = |room, parts, want: &[usize]| {
            assert_eq!(even_shares(room, parts).collect::<Vec<_>>(), want);
        };
        check(10, 3, &[4, 3, 3]);
        check(2, 2, &[1, 1]);
        check(5, 0, &[]);
    }

    #[test]
    fn every_fire_has_its_turn() {
        let mut backlog = Backlog::new();
        let plan = backlog.plan(4);
        assert_eq!((plan.shares.len(), plan.new_max), (0, FIRES_MAX));
        let found = (1..=6).map(|fire| Served { waiting: waiting(fire), exhausted: false });
        backlog.apply(&plan, found.collect(), Some(false));
        let mut order = Vec::new();
        for _ in 0..3 {
            let plan = backlog.plan(2);
            assert_eq!(plan.new_max, 0);
            let served = plan.shares.iter().map(|share| {
                order.push((share.waiting.fire, share.max));
                Served { waiting: share.waiting.clone(), exhausted: share.waiting.fire == 1 }
            });
            let served = served.collect();
            backlog.apply(&plan, served, None);
        }
        assert_eq!(order, [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]);
        assert_eq!(backlog.plan(1).shares[0].waiting.fire, 2);
    }

    #[test]
    fn a_full_house_looks_again_when_it_empties() {
        let mut backlog = Backlog::new();
        let plan = backlog.plan(FIRES_MAX);
        let all =
            (1..=FIRES_MAX as i64).map(|fire| Served { waiting: waiting(fire), exhausted: false });
        backlog.apply(&plan, all.collect(), Some(true));
        let plan = backlog.plan(FIRES_MAX);
        assert_eq!(plan.new_max, 0);
        let gone =
            plan.shares.iter().map(|s| Served { waiting: s.waiting.clone(), exhausted: true });
        let gone = gone.collect();
        backlog.apply(&plan, gone, None);
        assert!(backlog.may_have_work());
    }
}

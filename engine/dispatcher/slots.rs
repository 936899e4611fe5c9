//! Who runs next: the fires with waiting executions, in turn, each with its share of the free
//! places. Pure accounting; the waiting executions themselves stay in the database.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::invocation::Job;

/// Fires that are known here at a time; the rest wait in the database too.
const FIRES_MAX: usize = 1_024;

/// A fire that has, or may have, executions to run.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub fire: i64,
    /// The instance of the last of its executions that was claimed.
    pub after: i64,
    /// Loaded with the first claim.
    pub job: Option<Arc<Job>>,
}

/// What to claim, worked out before the transaction that does it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Those whose turn it is, no more than there is room.
    pub turn: Vec<Waiting>,
    /// Free places.
    pub room: usize,
    /// New fires are looked for after this one; at most so many.
    pub new_after: i64,
    pub new_max: usize,
}

/// What a plan came to.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// New fires that there was no room for yet.
    pub unserved: Vec<Waiting>,
    /// Served, and with executions left.
    pub served: Vec<Waiting>,
    /// The newest fire found, if any was.
    pub newest: Option<i64>,
    /// Whether there may be newer ones still.
    pub more_new: bool,
}

/// The fires in turn.
#[derive(Debug)]
pub(super) struct Backlog {
    turn: VecDeque<Waiting>,
    /// The newest fire seen. Later ones have higher numbers.
    newest: i64,
    /// Whether the database may hold fires newer than that.
    may_have_new: bool,
    /// Whether a plan that is being carried out looks for those: one at a time does.
    is_looking: bool,
    /// Plans for places that are being carried out.
    plans: usize,
}

impl Backlog {
    /// A backlog that has yet to look into the database.
    pub(super) fn new() -> Self {
        Self { turn: VecDeque::new(), newest: 0, may_have_new: true, is_looking: false, plans: 0 }
    }

    /// New work has been stored.
    pub(super) fn expect_new(&mut self) {
        self.may_have_new = true;
    }

    /// Fires that were served have executions to claim again.
    pub(super) fn release(&mut self, fires: Vec<i64>) {
        self.turn.extend(fires.into_iter().map(|fire| Waiting { fire, after: 0, job: None }));
    }

    /// Whether a claim could find anything.
    pub(super) fn may_have_work(&self) -> bool {
        !self.turn.is_empty() || (self.may_have_new && !self.is_looking)
    }

    /// Whether nothing waits, as far as is known here.
    pub(super) fn is_idle(&self) -> bool {
        self.turn.is_empty() && !self.may_have_new && self.plans == 0
    }

    /// A new fire has nothing that waits. While nothing else is new, no look has to find that out.
    pub(super) fn pass_over(&mut self, fire: i64) {
        if !self.may_have_new && !self.is_looking {
            self.newest = self.newest.max(fire);
        }
    }

    /// Whose turn it is for `room` places. Until the plan is [applied](Self::apply) or
    /// [given up](Self::give_up), others are made without those.
    pub(super) fn plan(&mut self, room: usize) -> Plan {
        let known = self.turn.len();
        let turn: Vec<_> = self.turn.drain(..room.min(known)).collect();
        let looks = room > 0 && self.may_have_new && !self.is_looking;
        let new_max = if looks { FIRES_MAX.saturating_sub(known) } else { 0 };
        if new_max > 0 {
            // What comes from now on is news again.
            (self.may_have_new, self.is_looking) = (false, true);
        }
        self.plans += usize::from(room > 0);
        Plan { turn, room, new_after: self.newest, new_max }
    }

    /// Takes note of what a plan came to: new fires join the turn, those that were served go to its
    /// end, those with nothing left are gone.
    pub(super) fn apply(&mut self, plan: &Plan, taken: Taken) {
        self.plans -= usize::from(plan.room > 0);
        self.turn.extend(taken.unserved);
        self.turn.extend(taken.served);
        if plan.new_max > 0 {
            self.newest = taken.newest.unwrap_or(self.newest);
            self.may_have_new |= taken.more_new;
            self.is_looking = false;
        }
    }

    /// Forgets a plan that came to nothing: all is as it was before.
    pub(super) fn give_up(&mut self, plan: &Plan) {
        self.plans -= usize::from(plan.room > 0);
        for waiting in plan.turn.iter().rev() {
            self.turn.push_front(waiting.clone());
        }
        if plan.new_max > 0 {
            (self.may_have_new, self.is_looking) = (true, false);
        }
    }
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
        Waiting { fire, after: 0, job: None }
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

    fn found(fires: std::ops::RangeInclusive<i64>, more_new: bool) -> Taken {
        Taken {
            newest: Some(*fires.end()),
            unserved: fires.map(waiting).collect(),
            more_new,
            ..Taken::default()
        }
    }

    #[test]
    fn every_fire_has_its_turn() {
        let mut backlog = Backlog::new();
        let plan = backlog.plan(4);
        assert_eq!((plan.turn.len(), plan.new_max), (0, FIRES_MAX));
        backlog.apply(&plan, found(1..=5, false));
        let mut order = Vec::new();
        for _ in 0..4 {
            let plan = backlog.plan(2);
            assert_eq!((plan.new_max, plan.new_after), (0, 5));
            order.extend(plan.turn.iter().map(|waiting| waiting.fire));
            // Fire 1 has nothing left after its first turn.
            let served = plan.turn.iter().filter(|w| w.fire != 1).cloned().collect();
            backlog.apply(&plan, Taken { served, ..Taken::default() });
        }
        assert_eq!(order, [1, 2, 3, 4, 5, 2, 3, 4]);
    }

    #[test]
    fn a_new_fire_is_found_while_old_ones_take_all_the_room() {
        let mut backlog = Backlog::new();
        let plan = backlog.plan(1);
        backlog.apply(&plan, found(1..=1, false));
        backlog.expect_new();
        let plan = backlog.plan(1);
        assert!(plan.new_max > 0);
        let served = vec![waiting(1)];
        backlog.apply(&plan, Taken { served, ..found(2..=2, false) });
        assert_eq!(backlog.plan(1).turn[0].fire, 2);
    }

    #[test]
    fn plans_that_are_carried_out_at_a_time_share_nothing() {
        let mut backlog = Backlog::new();
        let first = backlog.plan(2);
        assert!(!backlog.may_have_work(), "one looks already");
        backlog.expect_new();
        backlog.apply(&first, found(1..=3, false));
        assert!(backlog.may_have_work(), "what came during the look was not seen by it");
        let [first, second, third] = [2, 2, 2].map(|room| backlog.plan(room));
        let turn = |plan: &Plan| plan.turn.iter().map(|one| one.fire).collect::<Vec<_>>();
        assert_eq!([&first, &second, &third].map(turn), [vec![1, 2], vec![3], vec![]]);
        assert_eq!([&first, &second, &third].map(|plan| plan.new_max > 0), [true, false, false]);
        assert!(!backlog.is_idle(), "plans are being carried out");
        backlog.give_up(&first);
        backlog.apply(&second, Taken::default());
        backlog.apply(&third, Taken::default());
        let again = backlog.plan(2);
        assert_eq!((turn(&again), again.new_max > 0), (vec![1, 2], true));
    }

    #[test]
    fn what_starts_at_once_is_not_looked_for() {
        let mut backlog = Backlog::new();
        backlog.pass_over(3);
        assert!(!backlog.is_idle());
        let plan = backlog.plan(1);
        assert_eq!(plan.new_after, 0, "others may have come before it");
        backlog.pass_over(4);
        backlog.apply(&plan, Taken::default());
        assert!(backlog.is_idle());
        backlog.pass_over(5);
        backlog.expect_new();
        backlog.pass_over(6);
        assert_eq!(backlog.plan(1).new_after, 5);
    }

    #[test]
    fn a_full_house_looks_again_when_it_empties() {
        let mut backlog = Backlog::new();
        let plan = backlog.plan(1);
        backlog.apply(&plan, found(1..=FIRES_MAX as i64, true));
        let plan = backlog.plan(FIRES_MAX);
        assert_eq!(plan.new_max, 0);
        backlog.apply(&plan, Taken::default());
        assert!(backlog.may_have_work());
        assert_eq!(backlog.plan(1).new_after, FIRES_MAX as i64);
    }
}

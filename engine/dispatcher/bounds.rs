//! How many executions run within the bounds that fires share: that of their invocation, and that of a key. The
//! loop takes places within them as it plans; the transaction that admits an execution to its instance does too.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::store::fires::FireLimits;

use super::sync::{Mutex, MutexGuard};

/// What several fires may have to share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Bound {
    Invocation(i64),
    Key(Arc<str>),
}

/// How the places within a bound are used.
#[derive(Debug, Default)]
struct Use {
    /// By executions that run, and by plans that may claim so many.
    taken: usize,
    /// By executions that have ended, the step with whose ends has not come to its turn in the thread that writes:
    /// nobody but that step has these.
    leaving: usize,
}

#[derive(Debug)]
pub(super) struct Bounds {
    /// How many executions run at a time under each key.
    widths: HashMap<String, usize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    uses: HashMap<Bound, Use>,
    /// Limits within which places have been given back by a transaction that was undone.
    undone: Vec<Arc<FireLimits>>,
}

impl Bounds {
    pub(super) fn new(widths: HashMap<String, usize>) -> Self {
        Self { widths, state: Mutex::new(State::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bounds of a fire, each with how many executions run within it at most.
    pub(super) fn of<'a>(
        &'a self,
        limits: &'a FireLimits,
    ) -> impl Iterator<Item = (Bound, usize)> + 'a {
        let own = limits.concurrency_max.map(|max| (Bound::Invocation(limits.invocation), max));
        let shared = limits.concurrency_key.as_ref().map(|key| {
            // A key that nobody has said anything of is for one at a time.
            (Bound::Key(Arc::clone(key)), self.widths.get(&**key).copied().unwrap_or(1))
        });
        own.into_iter().chain(shared)
    }

    /// How many more executions of a fire may run; the bound that is used up if none may.
    pub(super) fn room(&self, limits: &FireLimits) -> Result<usize, Bound> {
        self.room_in(&self.state(), limits)
    }

    fn room_in(&self, state: &State, limits: &FireLimits) -> Result<usize, Bound> {
        let mut room = usize::MAX;
        for (bound, max) in self.of(limits) {
            let used = state.uses.get(&bound).map_or(0, |used| used.taken + used.leaving);
            match max.saturating_sub(used) {
                0 => return Err(bound),
                left => room = room.min(left),
            }
        }
        Ok(room)
    }

    /// Takes places for up to `most` executions of a fire, which is at least one; how many.
    pub(super) fn take(&self, limits: &FireLimits, most: usize) -> Result<usize, Bound> {
        let mut state = self.state();
        let taken = self.room_in(&state, limits)?.min(most);
        self.change(&mut state, limits, |used| used.taken += taken);
        Ok(taken)
    }

    /// Takes a place for one execution of a fire in a transaction, which may be undone.
    pub(super) fn enter(self: &Arc<Self>, limits: &Arc<FireLimits>) -> Option<Within> {
        self.take(limits, 1).ok()?;
        Some(Within { bounds: Arc::clone(self), limits: Some(Arc::clone(limits)) })
    }

    /// An execution within these limits runs, whether or not there was room for it.
    pub(super) fn occupy(&self, limits: &FireLimits) {
        self.change(&mut self.state(), limits, |used| used.taken += 1);
    }

    pub(super) fn give_back(&self, limits: &FireLimits, count: usize) {
        self.change(&mut self.state(), limits, |used| {
            used.taken = used.taken.saturating_sub(count);
        });
    }

    /// The end of an execution within these limits is about to be written: other steps have its places only after
    /// that.
    pub(super) fn leave(&self, limits: &FireLimits) {
        self.change(&mut self.state(), limits, |used| used.leaving += 1);
    }

    /// The end of an execution that was leaving is being written.
    pub(super) fn left(&self, limits: &FireLimits) {
        self.change(&mut self.state(), limits, |used| {
            used.leaving = used.leaving.saturating_sub(1);
        });
    }

    /// Takes the limits within which a transaction that was undone has given places back.
    pub(super) fn take_undone(&self) -> Vec<Arc<FireLimits>> {
        std::mem::take(&mut self.state().undone)
    }

    fn change(&self, state: &mut State, limits: &FireLimits, change: impl Fn(&mut Use)) {
        for (bound, _) in self.of(limits) {
            let used = state.uses.entry(bound.clone()).or_default();
            change(used);
            if (used.taken, used.leaving) == (0, 0) {
                state.uses.remove(&bound);
            }
        }
    }
}

/// A place within the bounds of a fire, given back when this is dropped without having been kept.
#[derive(Debug)]
pub(super) struct Within {
    bounds: Arc<Bounds>,
    limits: Option<Arc<FireLimits>>,
}

impl Within {
    /// The claim is on disk: the end of the execution gives the place back.
    pub(super) fn keep(mut self) {
        self.limits = None;
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        if let Some(limits) = self.limits.take() {
            self.bounds.give_back(&limits, 1);
            self.bounds.state().undone.push(limits);
        }
    }
}

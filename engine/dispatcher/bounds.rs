//! The bounds that fires share: the bound of an invocation and the bound of a key. The loop takes places within
//! bounds as it plans. A transaction takes a place when it claims an execution that has waited for its instance.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use crate::store::fires::FireLimits;

use super::sync::{Mutex, MutexGuard};

/// A bound that several fires may share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Bound {
    Invocation(i64),
    Key(Arc<str>),
}

/// The use of the places within a bound.
#[derive(Debug, Default)]
struct Use {
    /// Places of executions that run, and of plans that may claim executions.
    taken: usize,
    /// Places of ended executions whose step has not begun to write. Until then only that step may use them.
    leaving: usize,
}

#[derive(Debug)]
pub(super) struct Bounds {
    /// The number of executions that may run at a time under each key.
    widths: HashMap<String, usize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    uses: HashMap<Bound, Use>,
    /// The limits of places that a transaction took before it was undone.
    undone: Vec<Arc<FireLimits>>,
}

impl Bounds {
    pub(super) fn new(widths: HashMap<String, usize>) -> Self {
        Self { widths, state: Mutex::new(State::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bounds of a fire, each with the number of executions that may run within it.
    pub(super) fn of<'a>(
        &'a self,
        limits: &'a FireLimits,
    ) -> impl Iterator<Item = (Bound, usize)> + 'a {
        let own = limits.concurrency_max.map(|max| (Bound::Invocation(limits.invocation), max));
        let shared = limits.concurrency_key.as_ref().map(|key| {
            // A key without a configured width admits one execution at a time.
            (Bound::Key(Arc::clone(key)), self.widths.get(&**key).copied().unwrap_or(1))
        });
        own.into_iter().chain(shared)
    }

    /// Returns how many more executions of a fire may run. The error is the bound that is full.
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

    /// Takes places for up to `most` executions of a fire. Returns how many, at least 1. The error is the bound that
    /// is full.
    pub(super) fn take(&self, limits: &FireLimits, most: usize) -> Result<usize, Bound> {
        let mut state = self.state();
        let taken = self.room_in(&state, limits)?.min(most);
        self.change(&mut state, limits, |used| used.taken += taken);
        Ok(taken)
    }

    /// Takes a place for one execution of a fire, in a transaction that may be undone.
    pub(super) fn enter(self: &Arc<Self>, limits: &Arc<FireLimits>) -> Option<Within> {
        self.take(limits, 1).ok()?;
        Some(Within { bounds: Arc::clone(self), limits: Some(Arc::clone(limits)) })
    }

    /// Counts an execution that runs, even if a bound is full.
    pub(super) fn occupy(&self, limits: &FireLimits) {
        self.change(&mut self.state(), limits, |used| used.taken += 1);
    }

    /// Frees `count` places.
    pub(super) fn give_back(&self, limits: &FireLimits, count: usize) {
        self.change(&mut self.state(), limits, |used| {
            used.taken = used.taken.saturating_sub(count);
        });
    }

    /// Reserves the place of an ended execution for the step that writes its end.
    pub(super) fn leave(&self, limits: &FireLimits) {
        self.change(&mut self.state(), limits, |used| used.leaving += 1);
    }

    /// Frees the place that [`leave`](Self::leave) has reserved, as the step writes.
    pub(super) fn left(&self, limits: &FireLimits) {
        self.change(&mut self.state(), limits, |used| {
            used.leaving = used.leaving.saturating_sub(1);
        });
    }

    /// Takes the limits of places that undone transactions have given back since the last call.
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

/// A place within the bounds of a fire. Dropping it frees the place, unless it is kept.
#[derive(Debug)]
pub(super) struct Within {
    bounds: Arc<Bounds>,
    limits: Option<Arc<FireLimits>>,
}

impl Within {
    /// Keeps the place, because the claim is on disk: the end of the execution frees it.
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

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
    /// Places of ended executions whose ends are not on disk. Until then only the step that writes these ends may use
    /// them.
    leaving: usize,
}

/// The places that ended executions have handed over to the step that writes their ends, by bound. No other step may
/// use these places until the ends are on disk.
#[derive(Debug, Clone, Default)]
pub(super) struct HandedOver(HashMap<Bound, usize>);

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

    /// Returns the number of executions of a fire that may still start, for a step with these places of its own. The
    /// error is the bound that is full.
    pub(super) fn room(&self, limits: &FireLimits, own: &HandedOver) -> Result<usize, Bound> {
        self.room_in(&self.state(), limits, own)
    }

    /// Returns the number of used places within a bound, for a step with these places of its own.
    pub(super) fn used(&self, bound: &Bound, own: &HandedOver) -> usize {
        let own = own.0.get(bound).copied().unwrap_or_default();
        let used = |used: &Use| used.taken + used.leaving.saturating_sub(own);
        self.state().uses.get(bound).map_or(0, used)
    }

    fn room_in(
        &self,
        state: &State,
        limits: &FireLimits,
        own: &HandedOver,
    ) -> Result<usize, Bound> {
        let mut room = usize::MAX;
        for (bound, max) in self.of(limits) {
            let own = own.0.get(&bound).copied().unwrap_or_default();
            let used = state.uses.get(&bound);
            let used = used.map_or(0, |used| used.taken + used.leaving.saturating_sub(own));
            match max.saturating_sub(used) {
                0 => return Err(bound),
                left => room = room.min(left),
            }
        }
        Ok(room)
    }

    /// Takes places for up to `most` executions of a fire, for a step with these places of its own. Returns the
    /// number of places, at least 1. The error is the bound that is full.
    pub(super) fn take(
        &self,
        limits: &FireLimits,
        most: usize,
        own: &HandedOver,
    ) -> Result<usize, Bound> {
        let mut state = self.state();
        let taken = self.room_in(&state, limits, own)?.min(most);
        self.change(&mut state, limits, |used| used.taken += taken);
        Ok(taken)
    }

    /// Takes a place for one execution of a fire, in a transaction that may be undone, of a step with these places of
    /// its own.
    pub(super) fn enter(
        self: &Arc<Self>,
        limits: &Arc<FireLimits>,
        own: &HandedOver,
    ) -> Option<Within> {
        self.take(limits, 1, own).ok()?;
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

    /// Hands the places of ended executions over to the step that writes their ends. Because the handover happens
    /// under one lock, no transaction of another step finds one of these places free.
    pub(super) fn hand_over<'a>(
        &self,
        ended: impl IntoIterator<Item = &'a FireLimits>,
    ) -> HandedOver {
        let mut handed_over = HandedOver::default();
        let mut ended = ended.into_iter().peekable();
        if ended.peek().is_none() {
            return handed_over;
        }
        let mut state = self.state();
        for limits in ended {
            self.change(&mut state, limits, |used| {
                used.taken = used.taken.saturating_sub(1);
                used.leaving += 1;
            });
            for (bound, _) in self.of(limits) {
                *handed_over.0.entry(bound).or_default() += 1;
            }
        }
        handed_over
    }

    /// Frees a place that [`hand_over`](Self::hand_over) has reserved, once the end is on disk.
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

//! How many connections there are at a time, and which connection makes room for the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Connections at a time. More connections wait for a place, so no process exhausts the host.
pub const CONNECTIONS_MAX: usize = 256;

/// Connections beside [`CONNECTIONS_MAX`] that may look and stop while all other places are taken.
const SHORT_CONNECTIONS_MAX: usize = 16;

/// The places for connections.
#[derive(Debug, Default)]
pub(super) struct Places {
    state: Mutex<State>,
    /// Notified when a place becomes free, or a connection begins to wait for a request.
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last event; numbers stand in for instants.
    last: u64,
    full: BTreeMap<u64, Holder>,
    short: usize,
}

#[derive(Debug)]
struct Holder {
    /// The number of the event since which the connection waits for a request; `None` while one is under way.
    waits_since: Option<u64>,
    leave: Arc<Notify>,
}

/// The right of a connection to be there.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Everything is allowed. Another connection may take the place while this one waits for a request.
    Full { id: u64, leave: Arc<Notify> },
    /// Only short requests are allowed.
    Short,
}

impl Places {
    /// Waits until a connection can have a place.
    pub(super) async fn room(&self) {
        loop {
            let room = self.room.notified();
            let can_have = {
                let state = self.state();
                state.full.len() < CONNECTIONS_MAX
                    || state.short < SHORT_CONNECTIONS_MAX
                    || state.full.values().any(|holder| holder.waits_since.is_some())
            };
            if can_have {
                return;
            }
            room.await;
        }
    }

    /// Gives a connection a place: a free one, otherwise the place of the connection that has waited longest for a
    /// request, otherwise a place for short requests. `None` if no place is left.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state();
        let places = Arc::clone(self);
        if state.full.len() >= CONNECTIONS_MAX {
            let waiting = state.full.iter().filter_map(|(id, one)| Some((one.waits_since?, *id)));
            if let Some((_, id)) = waiting.min() {
                if let Some(holder) = state.full.remove(&id) {
                    holder.leave.notify_one();
                }
            } else if state.short < SHORT_CONNECTIONS_MAX {
                state.short += 1;
                return Some(Place { places, kind: Kind::Short });
            } else {
                return None;
            }
        }
        state.last += 1;
        let (id, leave) = (state.last, Arc::new(Notify::new()));
        let holder = Holder { waits_since: Some(id), leave: Arc::clone(&leave) };
        state.full.insert(id, holder);
        Some(Place { places, kind: Kind::Full { id, leave } })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until another connection has taken the place.
    pub(super) async fn taken(&self) {
        match &self.kind {
            Kind::Full { leave, .. } => leave.notified().await,
            Kind::Short => std::future::pending().await,
        }
    }

    /// Returns whether only short requests are allowed.
    pub(super) fn is_short(&self) -> bool {
        matches!(self.kind, Kind::Short)
    }

    /// Keeps the place while a request is under way. Returns false if another connection has taken the place.
    pub(super) fn begin(&self) -> bool {
        self.waits(false)
    }

    /// Lets another connection have the place while this one waits for a request.
    pub(super) fn end(&self) {
        self.waits(true);
    }

    fn waits(&self, waits: bool) -> bool {
        let Kind::Full { id, .. } = &self.kind else { return true };
        let mut state = self.places.state();
        state.last += 1;
        let now = state.last;
        let Some(holder) = state.full.get_mut(id) else { return false };
        holder.waits_since = waits.then_some(now);
        drop(state);
        if waits {
            self.places.room.notify_one();
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.state();
        match &self.kind {
            Kind::Full { id, .. } => drop(state.full.remove(id)),
            Kind::Short => state.short -= 1,
        }
        drop(state);
        self.places.room.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(place: &Place) -> bool {
        let Kind::Full { id, .. } = &place.kind else { return false };
        !place.places.state().full.contains_key(id)
    }

    #[test]
    fn the_connection_that_has_waited_longest_makes_room() {
        let places = Arc::new(Places::default());
        let mut held: Vec<Place> =
            (0..CONNECTIONS_MAX).map(|_| places.take().expect("a place")).collect();
        // The first has asked something since, and waits again.
        assert!(held[0].begin());
        held[0].end();
        let next = places.take().expect("the place of the second");
        assert!(is_taken(&held[1]) && !is_taken(&held[0]) && !next.is_short());
        assert!(!held[1].begin(), "a request is not begun without a place");
        held.push(next);
        held.remove(1);
        assert!(held.iter().all(Place::begin));
        let short: Vec<Place> =
            (0..SHORT_CONNECTIONS_MAX).map(|_| places.take().expect("a short place")).collect();
        assert!(short.iter().all(Place::is_short));
        assert!(places.take().is_none());
        drop(held.pop());
        assert!(!places.take().expect("the place that became free").is_short());
        drop((held, short));
        let state = places.state();
        assert_eq!((state.full.len(), state.short), (0, 0), "each place is given back");
    }
}

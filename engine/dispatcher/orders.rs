//! What the loop is told from outside, and the places it shares with those who submit: an invocation
//! that finds room, while nobody waits, is stored as claimed, in one commit instead of two.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::execution::{StopOrder, StopReason, Unended};
use crate::executor::{self, Scratch};
use crate::id::ExecutionId;
use crate::invocation::Job;
use crate::store::claims::{Claimed, Released};
use crate::store::commit_gate::{CommitGate, Pass};
use crate::store::executions::SoleFire;

use super::run::PendingStops;
use super::sync::{AtomicBool, Mutex, MutexGuard, Notify, Ordering};

/// How far the engine has shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Phase {
    #[default]
    Working,
    /// Nothing more is started; what runs goes on.
    Draining,
    /// What runs is being ended.
    Stopping,
    /// Running executions have not ended in time, and are dropped.
    LettingGo,
    /// The loop is gone, so its mail is never read.
    Gone,
}

/// Executions of a fire that were stored as claimed, and are to be started.
#[derive(Debug)]
pub(crate) struct Launch {
    pub sole: SoleFire,
    pub job: Arc<Job>,
    pub claimed: Vec<Claimed>,
    pub claimed_at_ms: i64,
    /// When it came to disk, by the monotonic clock.
    pub committed: Duration,
}

/// What has come for the loop since it last looked.
#[derive(Debug, Default)]
pub(super) struct Mail {
    launches: Vec<Launch>,
    stops: Option<Arc<Stops>>,
    /// What waits for a place again.
    pub released: Vec<Released>,
    /// New executions that wait have been stored.
    pub new_work: bool,
}

/// Orders to stop, by execution.
type Stops = foldhash::HashMap<ExecutionId, StopOrder>;

/// Something for the loop to do.
#[derive(Debug)]
pub(super) enum Errand {
    Launch(Launch),
    Stop(ExecutionId, StopOrder),
}

impl Mail {
    /// What to do, in that order: a stop may be for something that is launched.
    pub(super) fn errands(self) -> impl Iterator<Item = Errand> {
        let launches = self.launches.into_iter().map(Errand::Launch);
        let stops = self.stops.iter().flat_map(|stops| stops.iter());
        let stops: Vec<_> =
            stops.map(|(execution, order)| Errand::Stop(*execution, order.clone())).collect();
        launches.chain(stops)
    }
}

/// Between the loop and the rest of the engine.
#[derive(Debug)]
pub(super) struct Orders {
    state: Mutex<State>,
    /// What goes on, and is not followed here.
    kept: HashMap<ExecutionId, u32>,
    scratch: Arc<Scratch>,
    /// Whether the loop may still have to pass on orders to stop. Because each start reads this, it is an atomic: a
    /// start takes the lock only if there may be an order.
    has_stops: AtomicBool,
    gate: Arc<CommitGate>,
    pub wake: Notify,
}

#[derive(Debug)]
struct State {
    mail: Mail,
    /// The orders to stop of the mail that the loop took last. The loop may still be passing them on.
    passing_on: Option<Arc<Stops>>,
    phase: Phase,
    /// Places that are free in the database too: an ended execution keeps its place until its end is on disk.
    /// Below zero if more executions have survived the engine before than the bound allows.
    free: isize,
    /// Reservations that have come to nothing yet, neither to a launch.
    reservations: usize,
    /// Nothing waits for a place.
    is_quiet: bool,
    /// By instance: how many executions run there, where that is limited.
    on_instances: foldhash::HashMap<i64, u32>,
}

impl Orders {
    pub(super) fn new(
        places: usize,
        scratch: Arc<Scratch>,
        kept: HashMap<ExecutionId, u32>,
        gate: Arc<CommitGate>,
    ) -> Self {
        let state = State {
            mail: Mail::default(),
            passing_on: None,
            phase: Phase::Working,
            free: isize::try_from(places).unwrap_or(isize::MAX),
            reservations: 0,
            is_quiet: false,
            on_instances: foldhash::HashMap::default(),
        };
        let has_stops = AtomicBool::new(false);
        Self { state: Mutex::new(state), kept, scratch, has_stops, gate, wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn advance(&self, to: Phase) {
        let mut state = self.state();
        state.phase = to.max(state.phase);
        if state.phase >= Phase::Stopping {
            self.has_stops.store(true, Ordering::Release);
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(super) fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Takes what has come, all of it as of one moment.
    pub(super) fn take_mail(&self) -> Mail {
        let mut state = self.state();
        state.is_quiet &= !state.mail.new_work;
        let mail = std::mem::take(&mut state.mail);
        // The loop has passed on the orders of the mail before this one.
        state.passing_on.clone_from(&mail.stops);
        let has_stops = state.passing_on.is_some() || state.phase >= Phase::Stopping;
        self.has_stops.store(has_stops, Ordering::Release);
        mail
    }

    /// Says that nothing waits for a place, as far as the loop has been told.
    pub(super) fn be_quiet(&self) {
        let mut state = self.state();
        state.is_quiet = !state.mail.new_work && state.mail.released.is_empty();
    }

    /// Whether nothing more is to come: no launch is, or will be, on its way.
    pub(super) fn is_at_end(&self) -> bool {
        let state = self.state();
        state.phase > Phase::Working && state.reservations == 0 && state.mail.launches.is_empty()
    }

    /// Takes up to `max` places for a step, first the places of the `ended` executions whose ends the step writes:
    /// no other step may use these before the ends are on disk.
    pub(super) fn take_places(&self, ended: usize, max: usize) -> Places {
        let mut state = self.state();
        let all = state.free.saturating_add(ended.cast_signed());
        let room = usize::try_from(all).unwrap_or_default().min(max);
        let from_ended = room.min(ended);
        state.free -= (room - from_ended).cast_signed();
        Places { room, from_ended, ended }
    }

    /// Takes a place, whether or not there is one: for what runs already.
    pub(super) fn occupy_place(&self) {
        self.state().free -= 1;
    }

    /// Gives places back.
    pub(super) fn free_places(&self, places: usize) {
        self.state().free += places.cast_signed();
    }

    /// A place on an instance, if fewer than `max` are taken there.
    pub(super) fn berth(self: &Arc<Self>, instance: i64, max: u32) -> Option<Berth> {
        let mut state = self.state();
        let taken = state.on_instances.entry(instance).or_default();
        if *taken >= max {
            return None;
        }
        *taken += 1;
        drop(state);
        Some(Berth { orders: Some(Arc::clone(self)), instance })
    }

    fn free_berth(&self, instance: i64) {
        let mut state = self.state();
        if let Some(taken) = state.on_instances.get_mut(&instance) {
            *taken -= 1;
            if *taken == 0 {
                state.on_instances.remove(&instance);
            }
        }
    }
}

impl PendingStops for Orders {
    fn pending_stop(&self, execution: ExecutionId) -> Option<StopOrder> {
        if !self.has_stops.load(Ordering::Acquire) {
            return None;
        }
        let state = self.state();
        let stops = [&state.mail.stops, &state.passing_on].into_iter().flatten();
        let order = stops.filter_map(|stops| stops.get(&execution)).next().cloned();
        order.or_else(|| (state.phase >= Phase::Stopping).then(|| StopReason::Shutdown.into()))
    }

    fn poll_pass(&self, cx: &Context<'_>) -> Poll<Pass<'_>> {
        self.gate.poll_pass(cx)
    }
}

/// A place on an instance that runs so many at a time only; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Berth {
    /// `None` once the place has been left for good.
    orders: Option<Arc<Orders>>,
    pub instance: i64,
}

impl Berth {
    /// Leaves the place to the transactions that are written from now on. The transaction that writes the end may be
    /// undone: then the place is [taken back](Self::take_back), and otherwise [left for good](Self::has_left).
    pub(super) fn leave(&self) {
        if let Some(orders) = &self.orders {
            orders.free_berth(self.instance);
        }
    }

    /// Takes the place again, even if another execution has taken it meanwhile: the transaction of the other
    /// execution has been undone as well, and gives the place back.
    pub(super) fn take_back(&self) {
        if let Some(orders) = &self.orders {
            *orders.state().on_instances.entry(self.instance).or_default() += 1;
        }
    }

    /// Forgets the place once it has been left.
    pub(super) fn has_left(mut self) {
        self.orders = None;
    }
}

impl Drop for Berth {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The places of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// Places for the executions that the step claims.
    pub room: usize,
    /// The places of `room` that belong to executions whose ends the step writes.
    from_ended: usize,
    /// The number of ends that the step writes.
    ended: usize,
}

impl Places {
    /// Gives up `places` places of `room`. Returns how many of them are free at once.
    pub(super) fn let_go(&mut self, places: usize) -> usize {
        let now = places.min(self.room - self.from_ended);
        self.room -= places;
        self.from_ended -= places - now;
        now
    }

    /// Returns the number of places that the commit of the step frees if the step has claimed `claimed` executions.
    pub(super) fn after(self, claimed: usize) -> usize {
        (self.ended - self.from_ended) + self.room.saturating_sub(claimed)
    }

    /// Returns the number of places that a failed step frees. Executions whose ends the step was to write keep their
    /// places.
    pub(super) fn unused(self) -> usize {
        self.room - self.from_ended
    }
}

/// A way to call on the loop.
#[derive(Debug, Clone)]
pub(crate) struct Line(pub(super) Arc<Orders>);

impl Line {
    /// New executions have been stored, and wait.
    pub(crate) fn expect_new(&self) {
        self.0.state().mail.new_work = true;
        self.0.wake.notify_one();
    }

    /// Executions may be claimed that could not before.
    pub(crate) fn release(&self, released: impl IntoIterator<Item = Released>) {
        self.0.state().mail.released.extend(released);
        self.0.wake.notify_one();
    }

    /// Executions, which run, are to be ended.
    pub(crate) fn stop(&self, executions: impl Iterator<Item = ExecutionId>, order: &StopOrder) {
        let executions: Vec<ExecutionId> = executions.collect();
        for id in &executions {
            if let Some(&attempt) = self.0.kept.get(id) {
                executor::order_stop(&self.0.scratch, Unended { id: *id, attempt }, order.cause);
            }
        }
        if executions.is_empty() {
            return;
        }
        let mut state = self.0.state();
        let stops = Arc::make_mut(state.mail.stops.get_or_insert_default());
        for execution in executions {
            stops.entry(execution).or_insert_with(|| order.clone());
        }
        self.0.has_stops.store(true, Ordering::Release);
        drop(state);
        self.0.wake.notify_one();
    }

    /// Reserves places for executions that are about to be stored. None if they have to wait: because
    /// there is no room for all of them, because others wait, because nothing is started any more.
    pub(crate) fn reserve(&self, places: usize) -> Option<Reservation> {
        let mut state = self.0.state();
        let is_open = state.is_quiet && !state.mail.new_work && state.phase == Phase::Working;
        let fits = usize::try_from(state.free).is_ok_and(|free| free >= places);
        if !(is_open && fits) {
            state.is_quiet = false;
            return None;
        }
        state.free -= places.cast_signed();
        state.reservations += 1;
        Some(Reservation { orders: Arc::clone(&self.0), places })
    }
}

/// Places that are kept for what is about to be stored; free again if nothing comes of it.
#[derive(Debug)]
pub(crate) struct Reservation {
    orders: Arc<Orders>,
    /// None, once they have been used.
    places: usize,
}

impl Reservation {
    /// Has the loop start what these places were for. It is on disk.
    pub(crate) fn launch(mut self, launch: Launch) {
        let taken = launch.claimed.len();
        let mut state = self.orders.state();
        if state.phase == Phase::Gone {
            // The engine has ended, and the next one finds the executions cut off.
            return;
        }
        state.mail.launches.push(launch);
        drop(state);
        // The loop gives a place back for each that ends.
        self.places -= taken.min(self.places);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.orders.state();
        state.free += self.places.cast_signed();
        state.reservations -= 1;
        drop(state);
        self.orders.wake.notify_one();
    }
}

//! Steps of the dispatcher on their way to the disk: what ended and what may start, written down in one
//! commit. While one is written, the next gets ready.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::clock::{Clock, now_ms};
use crate::error::{Error, Result};
use crate::store::executions::{self, Ended, Finished, Recorded};
use crate::store::fires::FireLimits;
use crate::store::{Store, Tx};

use super::Running;
use super::bounds::Bounds;
use super::claim::{self, ClaimedWork, Suspect, Suspects};
use super::orders::{Berth, Orders, Phase, Places};
use super::roster::UnderWay;
use super::slots::Plan;

/// Steps under way at a time.
const STEPS_MAX: usize = 2;
/// How long to wait before trying again to write to a database that refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An execution that has ended.
pub(super) struct Over {
    pub ended: Ended,
    pub run: Box<Running>,
    /// The places that the execution leaves with the commit of its end. `None` once it has left them.
    leaves: Mutex<Option<Leaves>>,
    /// The instance, if other executions may wait for it.
    pub frees: Option<i64>,
}

/// The places of an execution on its instance and within its bounds.
struct Leaves {
    berth: Option<Berth>,
    limits: Option<Arc<FireLimits>>,
}

impl Over {
    pub(super) fn new(ended: Ended, mut run: Box<Running>) -> Self {
        let (berth, limits) = (run.berth.take(), run.of.limits.clone());
        let frees = berth.as_ref().map(|berth| berth.instance);
        let any = berth.is_some() || limits.is_some();
        Self { ended, run, leaves: Mutex::new(any.then(|| Leaves { berth, limits })), frees }
    }

    fn leaves(&self) -> MutexGuard<'_, Option<Leaves>> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the places that the execution has not left: no record says that the execution has ended, and no more
    /// events of it follow.
    pub(super) fn give_up_places(&self, bounds: &Bounds) {
        let Some(Leaves { berth, limits }) = self.leaves().take() else { return };
        drop(berth);
        if let Some(limits) = limits {
            bounds.left(&limits);
        }
    }
}

/// The places that ended executions leave in a transaction. The claims that are written after their ends find the
/// places on their instances free; because this follows the order of the writes, the file never says that more
/// executions run than may. A transaction that is undone drops this, and the places are taken again. The loop finds the
/// places within bounds free once the transaction is on disk.
pub(super) struct Departure {
    over: Arc<Vec<Over>>,
    which: Range<usize>,
    /// Whether the transaction is on disk.
    is_on_disk: bool,
}

impl Departure {
    fn begin(over: &Arc<Vec<Over>>, which: Range<usize>) -> Self {
        let departure = Self { over: Arc::clone(over), which, is_on_disk: false };
        departure.each_berth(Berth::leave);
        departure
    }

    fn each_berth(&self, act: impl Fn(&Berth)) {
        for one in &self.over[self.which.clone()] {
            if let Some(Leaves { berth: Some(berth), .. }) = &*one.leaves() {
                act(berth);
            }
        }
    }

    /// Leaves the places for good, because the transaction is on disk.
    fn end(&mut self, bounds: &Bounds) {
        self.is_on_disk = true;
        for one in &self.over[self.which.clone()] {
            let Some(Leaves { berth, limits }) = one.leaves().take() else { continue };
            if let Some(berth) = berth {
                berth.has_left();
            }
            if let Some(limits) = limits {
                bounds.left(&limits);
            }
        }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if !self.is_on_disk {
            self.each_berth(Berth::take_back);
        }
    }
}

/// What ended and what may start.
pub(super) struct Step {
    pub over: Arc<Vec<Over>>,
    pub plan: Arc<Plan>,
    pub places: Places,
    pub written: Result<Written>,
    number: u64,
}

/// A write in the place of the end of an execution, after the end has failed with the error.
type WriteInstead = fn(Tx<'_>, &Ended, &Error) -> Result<Recorded>;

/// What a step came to on disk.
pub(super) struct Written {
    pub finished: Finished,
    /// None if nothing more is to start.
    pub work: Option<ClaimedWork>,
    /// The places of ended executions.
    departure: Departure,
    pub claimed_at_ms: i64,
    /// When it came to disk, by the monotonic clock.
    pub committed: OnceLock<Duration>,
    /// The number of its commit, in the order of all of them; set once that is made.
    commit: AtomicU64,
}

/// Where steps are written.
#[derive(Clone)]
struct Disk {
    /// Not for what runs in the thread that writes, which must not be the last to let go of it.
    store: Arc<Store>,
    orders: Arc<Orders>,
    bounds: Arc<Bounds>,
    clock: Arc<dyn Clock>,
    /// Counted in that thread.
    commits: Arc<AtomicU64>,
    /// The suspects that careful plans have found and the loop has not taken.
    suspects: Arc<Suspects>,
}

/// The steps under way.
pub(super) struct Steps {
    disk: Disk,
    tasks: JoinSet<Step>,
    under_way: UnderWay,
    /// Those heard of before one that was committed earlier, by the numbers of their commits.
    committed: BTreeMap<u64, Step>,
    /// Those that were not, until nothing else is under way: their ends are written and told after it.
    failed: VecDeque<Step>,
    next_commit: u64,
}

impl Steps {
    pub(super) fn new(
        store: Arc<Store>,
        (orders, bounds): (Arc<Orders>, Arc<Bounds>),
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            disk: Disk {
                store,
                orders,
                bounds,
                clock,
                commits: Arc::default(),
                suspects: Arc::default(),
            },
            tasks: JoinSet::new(),
            under_way: UnderWay::default(),
            committed: BTreeMap::new(),
            failed: VecDeque::new(),
            next_commit: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.count() == 0
    }

    /// Returns whether no other step may begin: enough are under way, or a failed step waits for those under way.
    pub(super) fn is_full(&self) -> bool {
        self.under_way.count() >= STEPS_MAX || !self.failed.is_empty()
    }

    pub(super) fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    /// Sends a step on its way.
    pub(super) fn begin(&mut self, over: Vec<Over>, plan: Plan, places: Places) {
        let (number, disk) = (self.under_way.begin(), self.disk.clone());
        let (over, plan) = (Arc::new(over), Arc::new(plan));
        self.tasks.spawn(async move {
            let written = disk.write(&over, &plan).await;
            Step { over, plan, places, written, number }
        });
    }

    /// Writes one of the ends that could not be written together, as much of it as can be written.
    pub(super) async fn write_apart(&self, over: &Arc<Vec<Over>>, one: usize) -> Result<Recorded> {
        let mut recorded = self.disk.write_one(over, one, None).await;
        // Each try has its own transaction, because SQLite commits nothing of a transaction that has met a damaged
        // page.
        for write in
            [executions::finish_least as WriteInstead, executions::release_after_unrecorded_end]
        {
            match recorded {
                Err(error) if error.is_lasting() => {
                    recorded = self.disk.write_one(over, one, Some((write, error))).await;
                }
                recorded => return recorded,
            }
        }
        recorded
    }

    /// Takes the suspects that careful plans have found.
    pub(super) fn take_suspects(&self) -> Vec<Suspect> {
        std::mem::take(&mut *self.disk.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The next step to act on, in the order in which they came to disk: nothing is told of an invocation
    /// after its end. None if none is under way; may be dropped and called again without losing one.
    pub(super) async fn next(&mut self) -> Option<Step> {
        let step = loop {
            if let Some(step) = self.committed.remove(&self.next_commit) {
                self.next_commit += 1;
                break step;
            }
            let Some(joined) = self.tasks.join_next().await else { break self.failed.pop_front()? };
            let step = match joined {
                Ok(step) => step,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => panic::resume_unwind(panic),
                    // The runtime is shutting down, and this loop with it.
                    Err(_) => continue,
                },
            };
            match &step.written {
                Ok(written) => {
                    let commit = written.commit.load(Ordering::Acquire);
                    self.committed.insert(commit, step);
                }
                Err(_) => self.failed.push_back(step),
            }
        };
        self.under_way.end(step.number);
        Some(step)
    }
}

impl Disk {
    /// Writes until the database takes it.
    async fn write(&self, over: &Arc<Vec<Over>>, plan: &Arc<Plan>) -> Result<Written> {
        loop {
            match self.try_write(Arc::clone(over), Arc::clone(plan)).await {
                Err(error) if self.is_to_try_again(&error).await => {}
                written => return written,
            }
        }
    }

    /// Writes the end of an execution, or the write in its place.
    async fn write_one(
        &self,
        over: &Arc<Vec<Over>>,
        one: usize,
        instead: Option<(WriteInstead, Error)>,
    ) -> Result<Recorded> {
        loop {
            let (over, bounds) = (Arc::clone(over), Arc::clone(&self.bounds));
            let instead = instead.clone();
            let write = move |tx: Tx<'_>| {
                let departure = Departure::begin(&over, one..one + 1);
                let recorded = match &instead {
                    None => executions::finish_as_far_as_possible(tx, &over[one].ended),
                    Some((write, error)) => write(tx, &over[one].ended, error),
                };
                Ok((recorded?, departure))
            };
            let end = move |(_, departure): &mut (Recorded, Departure)| departure.end(&bounds);
            match self.store.write_first(write, end).await {
                Err(error) if self.is_to_try_again(&error).await => {}
                written => return written.map(|(recorded, _)| recorded),
            }
        }
    }

    /// Waits for another try, because an end must not be forgotten because a disk is full. Returns false if a record
    /// or the file is to blame, or if the engine is being stopped: the next engine then finds the executions running,
    /// and its records say so.
    async fn is_to_try_again(&self, error: &Error) -> bool {
        if error.is_lasting() || self.orders.phase() >= Phase::Stopping {
            return false;
        }
        let now = self.clock.monotonic();
        self.store.tell_refused(now, error, "ends of executions are not on disk yet");
        self.clock.sleep(RETRY_AFTER).await;
        true
    }

    async fn try_write(&self, over: Arc<Vec<Over>>, plan: Arc<Plan>) -> Result<Written> {
        let (orders, clock) = (Arc::clone(&self.orders), Arc::clone(&self.clock));
        let (bounds, suspects) = (Arc::clone(&self.bounds), Arc::clone(&self.suspects));
        let write = move |tx: Tx<'_>| {
            let departure = Departure::begin(&over, 0..over.len());
            // In the order of their numbers, which is that of their rows.
            let mut ended: Vec<_> = over.iter().map(|over| &over.ended).collect();
            ended.sort_unstable_by_key(|ended| ended.id);
            let finished = executions::finish(tx, &ended, false)?;
            let mut written = Written {
                finished,
                work: None,
                departure,
                claimed_at_ms: 0,
                committed: OnceLock::new(),
                commit: AtomicU64::new(0),
            };
            // Looked at here: the write may have waited long for the disk, and a shutdown come since.
            if orders.phase() == Phase::Working {
                written.claimed_at_ms = now_ms(&*clock);
                let now_ms = written.claimed_at_ms;
                let work = claim::claim(tx, &plan, &orders, &bounds, &suspects, now_ms)?;
                written.work = Some(work);
            }
            Ok(written)
        };
        let (commits, clock) = (Arc::clone(&self.commits), Arc::clone(&self.clock));
        let own_bounds = Arc::clone(&self.bounds);
        let count = move |written: &mut Written| {
            written.departure.end(&own_bounds);
            written.committed.get_or_init(|| clock.monotonic());
            let commit = commits.fetch_add(1, Ordering::AcqRel);
            written.commit.store(commit, Ordering::Release);
        };
        self.store.write_first(write, count).await
    }
}

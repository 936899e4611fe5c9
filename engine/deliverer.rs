//! Takes whole outputs from the disk to the sinks of the host, in the background. Like executions, deliveries wait in
//! the database. Because they survive a restart, the next engine repeats a delivery that was cut off.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};

use crate::clock::{Clock, Sleep};
use crate::error::{Error, Result};
use crate::event::Hub;
use crate::output::{Delivery, INTERRUPTED, TIMED_OUT, WholeOutputs};
use crate::panics::tell;
use crate::sink::{OutputDelivery, Route, Sinks};
use crate::store::deliveries::{self, Waiting};
use crate::store::{Store, Tx};

/// Deliveries to one sink at a time that have just begun. A few fill a network line, and parts of each output are
/// held in memory.
const DELIVERIES_MAX: usize = 4;
/// The time after which other deliveries begin beside one that goes on: a delivery that hangs must not hold
/// up the others.
const OVERTAKEN_AFTER: Duration = Duration::from_secs(10);
/// Deliveries to one sink at a time, however long they take.
const LASTING_DELIVERIES_MAX: usize = 16;
/// Ends that wait to be recorded before more outputs without a sink are given up.
const ENDS_MAX: usize = 512;
/// Records that are looked at in one read.
const PAGE: usize = 32;
/// The longest time for a delivery: a large output over a slow line takes long, and a delivery that hangs must end.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(3_600);
/// How long to wait before trying again to use a database that refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state of the loop.
pub(crate) struct Resources {
    pub store: Arc<Store>,
    pub hub: Arc<Hub>,
    pub clock: Arc<dyn Clock>,
    pub sinks: Arc<Sinks>,
    pub outputs: Arc<WholeOutputs>,
    /// Called when outputs have been recorded that wait.
    pub wake: Arc<Notify>,
    /// Closed when nothing runs any more that could bring others.
    pub sources: watch::Receiver<()>,
}

/// Starts the loop. The loop ends when no more outputs can come and all are delivered, or when running executions are
/// to be ended. Outputs that are not delivered by then are left to the next engine.
pub(crate) fn start(resources: Resources) {
    let ending = Arc::clone(resources.store.ending());
    let overdue = Arc::clone(&ending).overdue(Arc::clone(&resources.clock));
    let work = Loop {
        lanes: vec![Lane::default(); resources.sinks.count() + 1],
        resources,
        tasks: JoinSet::new(),
        on_their_way: HashMap::new(),
        ended: Vec::new(),
        pause: None,
    };
    let work = async move {
        tokio::select! {
            () = work.run() => {}
            () = overdue => {}
        }
    };
    tokio::spawn(ending.part("the deliverer", work));
}

struct Loop {
    resources: Resources,
    tasks: JoinSet<Delivery>,
    on_their_way: HashMap<Id, OnItsWay>,
    /// Ended, and not yet written down.
    ended: Vec<Ended>,
    /// One lane for each sink, and the last lane for places that no sink serves.
    lanes: Vec<Lane>,
    /// The wait until the database is used again after it has refused.
    pause: Option<Sleep>,
}

/// A delivery that has ended.
type Ended = Arc<(Waiting, Delivery)>;

/// An output on its way to its sink.
struct OnItsWay {
    waiting: Waiting,
    lane: usize,
    /// The instant of the monotonic clock at which the delivery began.
    began: Duration,
}

/// The outputs of one sink. Each sink has places of its own, so a sink that hangs holds up no other sink.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// The number of the last record that was looked at.
    last: i64,
}

impl Loop {
    async fn run(mut self) {
        loop {
            // Before it looks: what came last is found then.
            let closing = self.is_closing();
            let mut all_taken = false;
            if self.pause.is_none() {
                match self.take().await {
                    Ok(taken) => all_taken = taken,
                    Err(_) if closing => break,
                    Err(error) => {
                        self.tell_refused(
                            &error,
                            "outputs that wait to be delivered cannot be found",
                        );
                        self.leave_alone();
                    }
                }
            }
            if !self.ended.is_empty() && self.pause.is_none() {
                self.record(closing).await;
            } else if closing && all_taken && self.tasks.is_empty() && self.ended.is_empty() {
                break;
            } else {
                self.wait(closing).await;
            }
        }
    }

    /// Whether nothing comes any more.
    fn is_closing(&self) -> bool {
        // Nothing is ever sent: it changes only by ending.
        self.resources.sources.has_changed().is_err()
    }

    fn leave_alone(&mut self) {
        self.pause = Some(self.resources.clock.sleep(RETRY_AFTER));
    }

    /// Starts as many deliveries as may be on their way. Returns whether these are all that wait.
    async fn take(&mut self) -> Result<bool> {
        let mut all_taken = true;
        for lane in 0..self.lanes.len() {
            all_taken &= self.take_of(lane).await?;
        }
        Ok(all_taken)
    }

    /// Starts as many deliveries to one sink as may be on their way. Returns whether these are all that wait.
    async fn take_of(&mut self, lane: usize) -> Result<bool> {
        let mut room = self.room(lane);
        while room > 0 {
            let last = self.lanes[lane].last;
            let read = move |tx: Tx<'_>| deliveries::waiting(tx, last, PAGE);
            let found = self.resources.store.read(read).await?;
            let all_found = found.len() < PAGE;
            for (id, waiting) in found {
                if room == 0 {
                    return Ok(false);
                }
                self.lanes[lane].last = id;
                match waiting {
                    Ok(waiting) if self.lane(&waiting) == lane => {
                        self.start(waiting, lane);
                        room = self.room(lane);
                    }
                    Err(error) if lane == self.unserved() => {
                        tell(|| tracing::error!(%error, id, "a delivery is left out"));
                    }
                    Ok(_) | Err(_) => {}
                }
            }
            if all_found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the lane of places that no sink serves.
    fn unserved(&self) -> usize {
        self.lanes.len() - 1
    }

    fn lane(&self, waiting: &Waiting) -> usize {
        self.resources.sinks.number(&waiting.to).unwrap_or(self.unserved())
    }

    /// Returns the number of deliveries of a lane that may begin now.
    fn room(&self, lane: usize) -> usize {
        if lane == self.unserved() {
            return ENDS_MAX.saturating_sub(self.ended.len());
        }
        let now = self.resources.clock.monotonic();
        let (mut all, mut fresh) = (0, 0);
        for one in self.on_their_way.values().filter(|one| one.lane == lane) {
            all += 1;
            fresh += usize::from(now.saturating_sub(one.began) < OVERTAKEN_AFTER);
        }
        (DELIVERIES_MAX - fresh.min(DELIVERIES_MAX)).min(LASTING_DELIVERIES_MAX - all)
    }

    /// Returns the time until another delivery may begin although none ends; `None` if no lane has to wait for
    /// that.
    fn next_overtaken(&self) -> Option<Duration> {
        let now = self.resources.clock.monotonic();
        let full = |lane: &usize| *lane != self.unserved() && self.room(*lane) == 0;
        let begun_in = |lane: usize| {
            let of_lane = self.on_their_way.values().filter(move |one| one.lane == lane);
            of_lane.map(|one| (one.began + OVERTAKEN_AFTER).saturating_sub(now))
        };
        (0..self.lanes.len()).filter(full).flat_map(begun_in).filter(|left| !left.is_zero()).min()
    }

    fn start(&mut self, waiting: Waiting, lane: usize) {
        let Resources { sinks, outputs, clock, .. } = &self.resources;
        let Some(route) = sinks.route(&waiting.to, waiting.invoke_id, waiting.execution_id) else {
            let (to, execution) = (&waiting.to, waiting.execution_id);
            if outputs.has(execution) {
                // An earlier engine had one, and a later one may: what was printed is not thrown away
                // because another program has the file open for a while.
                tell(
                    || tracing::warn!(%execution, to, "its output waits for an engine with a sink for that place"),
                );
                return;
            }
            let delivery = Delivery::not_plugged_in(to);
            self.ended.push(Arc::new((waiting, delivery)));
            return;
        };
        let output = OutputDelivery {
            invoke_id: waiting.invoke_id,
            execution_id: waiting.execution_id,
            key: route.key.clone(),
            path: outputs.path(waiting.execution_id),
            bytes: waiting.bytes.unwrap_or_default(),
        };
        let began = clock.monotonic();
        let found = outputs.bytes(waiting.execution_id);
        let work = deliver(route, output, found, waiting.bytes, Arc::clone(clock));
        let id = self.tasks.spawn(work).id();
        self.on_their_way.insert(id, OnItsWay { waiting, lane, began });
    }

    /// Waits for the end of a delivery, for another output, for room, or for the close if that has not come.
    async fn wait(&mut self, closing: bool) {
        let overtaken = self.next_overtaken();
        let clock = Arc::clone(&self.resources.clock);
        let overtaken = async {
            match overtaken {
                Some(left) => clock.sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let pause = async {
            match &mut self.pause {
                Some(pause) => pause.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                self.note_end(ended);
            }
            () = self.resources.wake.notified() => {}
            () = overtaken => {}
            () = pause => self.pause = None,
            _ = self.resources.sources.changed(), if !closing => {}
        }
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.note_end(ended);
        }
    }

    fn note_end(&mut self, ended: Result<(Id, Delivery), JoinError>) {
        let (id, delivery) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                let info = format!("the sink did not come to its end: {error}");
                (error.id(), Delivery::failed("OutputSink.Failed", info))
            }
        };
        let one = self.on_their_way.remove(&id);
        self.ended.extend(one.map(|one| Arc::new((one.waiting, delivery))));
    }

    /// Records deliveries that have ended, then removes their files: in this order, so that no delivery is
    /// lost.
    async fn record(&mut self, closing: bool) {
        let ended = std::mem::take(&mut self.ended);
        match self.write(&ended).await {
            Ok(()) => ended.iter().for_each(|one| self.let_go(one)),
            Err(error) if error.is_of_a_record() => self.record_apart(ended, closing).await,
            Err(error) => self.put_off(ended, &error, closing),
        }
    }

    /// Records deliveries one by one, because one of them cannot be recorded.
    async fn record_apart(&mut self, ended: Vec<Ended>, closing: bool) {
        for one in ended {
            match self.write(std::slice::from_ref(&one)).await {
                Ok(()) => self.let_go(&one),
                Err(error) if error.is_of_a_record() => {
                    // The file stays, and the next engine delivers the output again.
                    let execution = one.0.execution_id;
                    tell(
                        || tracing::error!(%error, %execution, "the end of a delivery cannot be recorded"),
                    );
                }
                Err(error) => self.put_off(vec![one], &error, closing),
            }
        }
    }

    fn tell_refused(&self, error: &Error, what: &str) {
        self.resources.store.tell_refused(self.resources.clock.monotonic(), error, what);
    }

    /// Keeps deliveries that have ended until the database works again, or leaves them to the next engine.
    fn put_off(&mut self, mut ended: Vec<Ended>, error: &Error, closing: bool) {
        if closing {
            tell(|| tracing::error!(%error, "the ends of deliveries cannot be recorded"));
            return;
        }
        self.tell_refused(error, "the ends of deliveries are not on disk yet");
        self.ended.append(&mut ended);
        self.leave_alone();
    }

    async fn write(&mut self, ended: &[Ended]) -> Result<()> {
        let ended = ended.to_vec();
        let write = move |tx: Tx<'_>| deliveries::finish(tx, ended.iter().map(|one| &**one));
        self.resources.store.write_first(write, |()| {}).await
    }

    fn let_go(&self, ended: &Ended) {
        let (waiting, delivery) = &**ended;
        self.resources.outputs.remove(waiting.execution_id);
        let (invoke_id, execution_id) = (waiting.invoke_id, waiting.execution_id);
        self.resources.hub.publish_delivery(invoke_id, execution_id, delivery);
    }
}

/// Gives an output to its sink, if it is there as it was printed.
async fn deliver(
    route: Route,
    mut output: OutputDelivery,
    found: io::Result<u64>,
    bytes: Option<u64>,
    clock: Arc<dyn Clock>,
) -> Delivery {
    match found {
        Ok(found) if bytes.is_none_or(|bytes| bytes == found) => output.bytes = found,
        Ok(has) => {
            let had = output.bytes;
            let info = format!("{has} of {had} bytes are left after the end of the engine");
            return Delivery::failed(INTERRUPTED, info);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Delivery::failed(
                INTERRUPTED,
                "nothing of it is left after the end of the engine",
            );
        }
        Err(error) => {
            let info = format!("{}: {error}", output.path.display());
            return Delivery::failed(INTERRUPTED, info);
        }
    }
    tokio::select! {
        biased;
        delivered = route.sink.deliver(output) => match delivered {
            Ok(()) => Delivery::finished(route.uri),
            Err(error) => Delivery::failed(error.code(), error.to_string()),
        },
        () = clock.sleep(DELIVERY_TIME_MAX) => {
            let info = format!("the sink took longer than {} s", DELIVERY_TIME_MAX.as_secs());
            Delivery::failed(TIMED_OUT, info)
        }
    }
}

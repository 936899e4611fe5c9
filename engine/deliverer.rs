//! Takes whole outputs from the disk to the sinks of the host, in the background. Like executions they
//! wait in the database, which says the same after a restart: one that was cut off is sent again.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinError, JoinSet};

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::event::Hub;
use crate::output::{Delivery, INTERRUPTED, TIMED_OUT, WholeOutputs};
use crate::sink::{OutputDelivery, Route, Sinks};
use crate::store::deliveries::{self, Waiting};
use crate::store::{Store, Tx};

/// Outputs on their way at a time: a few fill a line, and each part of one is held in memory.
const DELIVERIES_MAX: usize = 4;
/// How long one may take: a large one over a slow line does; one that hangs must not for ever.
const DELIVERY_TIME_MAX: Duration = Duration::from_secs(3_600);
/// How long to wait before trying again to use a database that refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the loop works with.
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

/// Starts the loop. It ends when nothing can come any more and everything is delivered, or when what runs
/// is to be ended: what is not delivered then is left for the next engine.
pub(crate) fn start(resources: Resources) {
    let ending = Arc::clone(resources.store.ending());
    let overdue = Arc::clone(&ending).overdue(Arc::clone(&resources.clock));
    let work = Loop {
        resources,
        tasks: JoinSet::new(),
        on_their_way: HashMap::new(),
        ended: Vec::new(),
        last: 0,
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
    on_their_way: HashMap<Id, Waiting>,
    /// Ended, and not yet written down.
    ended: Vec<(Waiting, Delivery)>,
    /// The number of the last one that was taken.
    last: i64,
}

impl Loop {
    async fn run(mut self) {
        loop {
            // Before it looks: what came last is found then.
            let closing = self.is_closing();
            let all_taken = match self.take().await {
                Ok(all_taken) => all_taken,
                Err(_) if closing => break,
                Err(error) => {
                    tracing::error!(%error, "outputs that wait to be delivered cannot be found");
                    self.resources.clock.sleep(RETRY_AFTER).await;
                    continue;
                }
            };
            if !self.ended.is_empty() {
                self.record().await;
            } else if closing && all_taken && self.tasks.is_empty() {
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

    /// Starts as many as may be on their way; whether that is all there are.
    async fn take(&mut self) -> Result<bool> {
        // Again, as long as some are not started.
        loop {
            let room = DELIVERIES_MAX - self.tasks.len();
            if room == 0 {
                return Ok(false);
            }
            let last = self.last;
            let found =
                self.resources.store.read(move |tx| deliveries::waiting(tx, last, room)).await?;
            let all_taken = found.len() < room;
            for waiting in found {
                self.last = waiting.id;
                self.start(waiting);
            }
            if all_taken {
                return Ok(true);
            }
        }
    }

    fn start(&mut self, waiting: Waiting) {
        let Resources { sinks, outputs, clock, .. } = &self.resources;
        let Some(route) = sinks.route(&waiting.to, waiting.invoke_id, waiting.execution_id) else {
            let (to, execution) = (&waiting.to, waiting.execution_id);
            if outputs.has(execution) {
                // An earlier engine had one, and a later one may: what was printed is not thrown away
                // because another program has the file open for a while.
                tracing::warn!(%execution, to, "its output waits for an engine with a sink for that place");
                return;
            }
            let delivery = Delivery::not_plugged_in(to);
            self.ended.push((waiting, delivery));
            return;
        };
        let output = OutputDelivery {
            invoke_id: waiting.invoke_id,
            execution_id: waiting.execution_id,
            key: route.key.clone(),
            path: outputs.path(waiting.execution_id),
            bytes: waiting.bytes.unwrap_or_default(),
        };
        let work = deliver(route, output, waiting.bytes, Arc::clone(clock));
        let id = self.tasks.spawn(work).id();
        self.on_their_way.insert(id, waiting);
    }

    /// Waits for an end, for more, or for the close if that has not come.
    async fn wait(&mut self, closing: bool) {
        tokio::select! {
            Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                self.note_end(ended);
            }
            () = self.resources.wake.notified() => {}
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
        let waiting = self.on_their_way.remove(&id);
        self.ended.extend(waiting.map(|waiting| (waiting, delivery)));
    }

    /// Writes down what has ended, then lets go of the files: in this order, so that nothing is lost.
    async fn record(&mut self) {
        let ended = Arc::new(std::mem::take(&mut self.ended));
        if let Err(error) = self.write(&ended).await {
            // The files stay, and the next engine delivers them again.
            tracing::error!(%error, "the ends of deliveries cannot be recorded");
            return;
        }
        for (waiting, delivery) in ended.iter() {
            self.resources.outputs.remove(waiting.execution_id);
            let (invoke_id, execution_id) = (waiting.invoke_id, waiting.execution_id);
            self.resources.hub.publish_delivery(invoke_id, execution_id, delivery);
        }
    }

    /// Writes until the database takes it, or the engine is being shut down.
    async fn write(&self, ended: &Arc<Vec<(Waiting, Delivery)>>) -> Result<()> {
        let Resources { store, clock, .. } = &self.resources;
        loop {
            let shared = Arc::clone(ended);
            let write = move |tx: Tx<'_>| deliveries::finish(tx, &shared);
            let Err(error) = store.write(write).await else { return Ok(()) };
            if matches!(error, Error::Internal(_)) || self.is_closing() {
                return Err(error);
            }
            tracing::warn!(%error, "the ends of deliveries are not on disk yet");
            clock.sleep(RETRY_AFTER).await;
        }
    }
}

/// Gives an output to its sink, if it is there as it was printed.
async fn deliver(
    route: Route,
    mut output: OutputDelivery,
    bytes: Option<u64>,
    clock: Arc<dyn Clock>,
) -> Delivery {
    match std::fs::metadata(&output.path) {
        Ok(found) if bytes.is_none_or(|bytes| bytes == found.len()) => output.bytes = found.len(),
        Ok(found) => {
            let (has, had) = (found.len(), output.bytes);
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

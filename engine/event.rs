//! Events of invocations, and the hub that knows the watchers. The engine puts the stream of a watcher together, from
//! the hub and from the records.

mod feed;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use chrono::{DateTime, Utc};
use foldhash::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::config::OutputQuota;
use crate::error::Error;
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::invocation::fire::Fire;
use crate::output::{Delivery, LiveOutput, SpoolSpace, Stream};
use crate::status::{ExecutionStatus, InvocationStatus};

#[cfg(feature = "stream")]
pub use feed::FeedStream;
pub use feed::{Feed, Notice};

/// One thing that happened to an invocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "Event", rename_all_fields = "PascalCase")]
#[non_exhaustive]
pub enum Event {
    /// An execution came to a new status.
    Status {
        /// The execution.
        execution_id: ExecutionId,
        /// Where it runs.
        instance_id: InstanceId,
        /// The status it came to.
        status: ExecutionStatus,
        /// When.
        at: DateTime<Utc>,
        /// When it will start, if it is another attempt and waits for that.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        retry_time: Option<DateTime<Utc>>,
    },
    /// An execution printed something.
    Output {
        /// The execution.
        execution_id: ExecutionId,
        /// Where it runs.
        instance_id: InstanceId,
        /// The stream that the bytes went to.
        stream: Stream,
        /// Where in the whole output of the execution the bytes stand.
        offset: u64,
        /// The bytes.
        #[serde(with = "base64_bytes")]
        bytes: Vec<u8>,
    },
    /// Output of an execution was dropped before it could be read.
    Gap {
        /// The execution.
        execution_id: ExecutionId,
        /// Where it runs.
        instance_id: InstanceId,
        /// Where in the whole output of the execution it is missing.
        offset: u64,
        /// How much is missing.
        bytes: u64,
    },
    /// The record of an execution, or of its output, cannot be understood, because no version of this library writes
    /// such a record. All other events of the invocation are told.
    Unreadable {
        /// The execution.
        execution_id: ExecutionId,
        /// The error: the fault of the record.
        error: String,
    },
    /// The invocation ended; the last event.
    Finished {
        /// How it ended as a whole.
        status: InvocationStatus,
    },
}

mod base64_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::wire;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&wire::to_base64(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        wire::from_base64(&text).map_err(de::Error::custom)
    }
}

/// A new status, as the hub passes it on. Sent only after the commit that made it true.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub execution_id: ExecutionId,
    pub instance_id: InstanceId,
    pub status: ExecutionStatus,
    pub at_ms: i64,
    /// When it will start, if it waits for that.
    pub retry_at_ms: Option<i64>,
    /// The output, from the start of the execution on.
    pub output: Option<Arc<LiveOutput>>,
}

impl Change {
    /// An execution has come to stand so.
    pub(crate) fn of(
        execution_id: ExecutionId,
        instance_id: InstanceId,
        status: ExecutionStatus,
        at_ms: i64,
    ) -> Self {
        Self { execution_id, instance_id, status, at_ms, retry_at_ms: None, output: None }
    }

    /// Another attempt has been made, and waits for its time.
    pub(crate) fn retry(
        execution_id: ExecutionId,
        instance_id: InstanceId,
        at_ms: i64,
        retry_at_ms: i64,
    ) -> Self {
        let (status, retry_at_ms) = (ExecutionStatus::Scheduled, Some(retry_at_ms));
        Self { execution_id, instance_id, status, at_ms, retry_at_ms, output: None }
    }

    fn notice(&self, invoke_id: InvokeId) -> Notice {
        Notice::Status {
            invoke_id,
            execution_id: self.execution_id,
            instance_id: self.instance_id.clone(),
            status: self.status,
            at: DateTime::from_timestamp_millis(self.at_ms).unwrap_or_default(),
            retry_time: self.retry_at_ms.and_then(DateTime::from_timestamp_millis),
        }
    }
}

/// Changes that wait for one watcher. Past this many it reads the records instead.
const CHANGES_MAX: usize = 1024;

/// Invocations whose end cannot be recorded that are remembered at most: more than a damaged page holds.
const FAILED_MAX: usize = 1_024;

/// The watchers of each invocation, and the outputs of running executions.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<HubState>,
    /// How many want to know of every change: mostly nobody, which is found out without the lock.
    watchers: AtomicUsize,
    feeds: feed::Feeds,
    quota: OutputQuota,
    space: Arc<SpoolSpace>,
}

#[derive(Debug, Default)]
struct HubState {
    /// A shutdown has begun.
    closing: bool,
    /// Nothing more will come.
    closed: bool,
    watched: HashMap<InvokeId, Vec<Weak<Subscription>>>,
    /// Invocations that were stored as claimed, and have not ended: that will be told. One each, as long as
    /// its executions run or wait for another attempt.
    unended: HashSet<InvokeId>,
    /// Invocations whose end cannot be recorded, each with the error.
    failed: HashMap<InvokeId, Error>,
    outputs: HashMap<ExecutionId, Arc<LiveOutput>>,
}

impl Hub {
    pub(crate) fn new(quota: OutputQuota) -> Self {
        Self {
            state: Mutex::default(),
            watchers: AtomicUsize::new(0),
            feeds: feed::Feeds::default(),
            quota,
            space: SpoolSpace::new(quota.spool_bytes_max),
        }
    }

    /// Watches an invocation, which need not exist yet. Ends when the subscription is dropped.
    pub(crate) fn subscribe(self: &Arc<Self>, invoke_id: InvokeId) -> Arc<Subscription> {
        self.subscribe_to(Interest::Everything, invoke_id)
    }

    /// Waits for the end of an invocation; the wait costs running executions nothing. Also returns whether the records
    /// of the invocation have to be read first: not if its end is sure to be told.
    pub(crate) fn subscribe_to_end(
        self: &Arc<Self>,
        invoke_id: InvokeId,
    ) -> (Arc<Subscription>, bool) {
        let subscription = self.subscribe_to(Interest::End, invoke_id);
        let may_have_ended = !self.state().unended.contains(&invoke_id);
        (subscription, may_have_ended)
    }

    /// An invocation runs that has just been stored: its end will be told.
    pub(crate) fn expect_end(&self, invoke_id: InvokeId) {
        self.state().unended.insert(invoke_id);
    }

    fn subscribe_to(
        self: &Arc<Self>,
        interest: Interest,
        invoke_id: InvokeId,
    ) -> Arc<Subscription> {
        if interest == Interest::Everything {
            // Before the watcher reads the records, because all earlier changes are in the records.
            self.watchers.fetch_add(1, Ordering::SeqCst);
        }
        let mut state = self.state();
        let subscription = Arc::new(Subscription {
            hub: Arc::downgrade(self),
            invoke_id,
            interest,
            inbox: Mutex::new(Inbox {
                closing: state.closing,
                closed: state.closed,
                failed: state.failed.get(&invoke_id).cloned(),
                ..Inbox::default()
            }),
            wake: Arc::default(),
        });
        state.watched.entry(invoke_id).or_default().push(Arc::downgrade(&subscription));
        drop(state);
        subscription
    }

    /// Makes the output of an execution that is about to start.
    pub(crate) fn open_output(
        &self,
        invoke_id: InvokeId,
        execution_id: ExecutionId,
    ) -> Arc<LiveOutput> {
        // A watcher that subscribes after this line finds the output in the change to `Running`.
        let watchers = self.watchers(invoke_id);
        let wakes = watchers.iter().map(|watcher| Arc::downgrade(&watcher.wake)).collect();
        let output = LiveOutput::new(self.quota, Arc::clone(&self.space), wakes);
        self.state().outputs.insert(execution_id, Arc::clone(&output));
        output
    }

    /// The output of an execution that runs.
    pub(crate) fn output(&self, execution_id: ExecutionId) -> Option<Arc<LiveOutput>> {
        self.state().outputs.get(&execution_id).cloned()
    }

    /// Forgets outputs: from now on their records have them.
    pub(crate) fn close_outputs(&self, executions: impl Iterator<Item = ExecutionId>) {
        let mut state = self.state();
        for execution_id in executions {
            state.outputs.remove(&execution_id);
        }
    }

    /// Follows everything from now on.
    pub(crate) fn follow(&self) -> Feed {
        self.feeds.open()
    }

    /// Tells whether a nominal time fired.
    pub(crate) fn publish_fire(&self, invoke_id: InvokeId, fire: &Fire) {
        self.feeds.tell(|| Notice::Fire { invoke_id, fire: fire.clone() });
        // The executions of the fire are in the records, also executions that will never run.
        for watcher in self.watchers(invoke_id) {
            watcher.inbox().lagged = true;
            watcher.wake.notify_one();
        }
    }

    /// Tells the watchers of an invocation.
    pub(crate) fn publish(&self, invoke_id: InvokeId, changes: impl FnOnce() -> Vec<Change>) {
        let watchers = self.watchers(invoke_id);
        if watchers.is_empty() && !self.feeds.any() {
            return;
        }
        let changes = changes();
        for change in &changes {
            self.feeds.tell(|| change.notice(invoke_id));
        }
        for watcher in watchers {
            watcher.push(&changes);
        }
    }

    /// Tells the watchers of an invocation that it has ended.
    pub(crate) fn finish(&self, invoke_id: InvokeId, status: InvocationStatus) {
        self.feeds.tell(|| Notice::Finished { invoke_id, status });
        {
            let mut state = self.state();
            state.unended.remove(&invoke_id);
            state.failed.remove(&invoke_id);
        }
        for subscription in self.subscriptions(invoke_id) {
            subscription.inbox().finished = Some(status);
            subscription.wake.notify_one();
        }
    }

    /// Gives the error to all waits and watches of an invocation, now or later, because the end of the invocation
    /// cannot be recorded.
    pub(crate) fn fail(&self, invoke_id: InvokeId, error: &Error) {
        let mut state = self.state();
        state.unended.remove(&invoke_id);
        if state.failed.len() < FAILED_MAX {
            state.failed.entry(invoke_id).or_insert_with(|| error.clone());
        }
        drop(state);
        for subscription in self.subscriptions(invoke_id) {
            subscription.inbox().failed = Some(error.clone());
            subscription.wake.notify_one();
        }
    }

    /// Tells followers of the whole engine how the delivery of an output ended.
    pub(crate) fn publish_delivery(
        &self,
        invoke_id: InvokeId,
        execution_id: ExecutionId,
        delivery: &Delivery,
    ) {
        self.feeds.tell(|| Notice::Delivery {
            invoke_id,
            execution_id,
            status: delivery.status,
            uri: delivery.uri.clone(),
            error_info: delivery.error_info.text().into_owned(),
        });
    }

    /// Tells every watcher that a shutdown begins.
    pub(crate) fn announce_closing(&self) {
        let watched: Vec<_> = {
            let mut state = self.state();
            if std::mem::replace(&mut state.closing, true) {
                return;
            }
            state.watched.values().flatten().filter_map(Weak::upgrade).collect()
        };
        self.feeds.announce_closing();
        for watcher in watched {
            watcher.inbox().closing = true;
            watcher.wake.notify_one();
        }
    }

    /// Tells every watcher that nothing more will come.
    pub(crate) fn close(&self) {
        self.feeds.close();
        let watched = {
            let mut state = self.state();
            state.closed = true;
            state.unended.clear();
            std::mem::take(&mut state.watched)
        };
        for watcher in watched.into_values().flatten().filter_map(|watcher| watcher.upgrade()) {
            watcher.inbox().closed = true;
            watcher.wake.notify_one();
        }
    }

    /// The watchers of every change.
    fn watchers(&self, invoke_id: InvokeId) -> Vec<Arc<Subscription>> {
        if self.watchers.load(Ordering::SeqCst) == 0 {
            return Vec::new();
        }
        let mut watchers = self.subscriptions(invoke_id);
        watchers.retain(|subscription| subscription.interest == Interest::Everything);
        watchers
    }

    fn subscriptions(&self, invoke_id: InvokeId) -> Vec<Arc<Subscription>> {
        let state = self.state();
        let subscriptions = state.watched.get(&invoke_id).map_or(&[][..], Vec::as_slice);
        subscriptions.iter().filter_map(Weak::upgrade).collect()
    }

    /// Forgets the subscriptions of an invocation that are gone.
    fn tidy(&self, invoke_id: InvokeId) {
        let mut state = self.state();
        if let Some(subscriptions) = state.watched.get_mut(&invoke_id) {
            subscriptions.retain(|subscription| subscription.strong_count() > 0);
            if subscriptions.is_empty() {
                state.watched.remove(&invoke_id);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events that a subscription wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interest {
    /// Changes and outputs too.
    Everything,
    End,
}

/// One watcher's place in the hub.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Weak<Hub>,
    invoke_id: InvokeId,
    interest: Interest,
    inbox: Mutex<Inbox>,
    /// Woken by everything that concerns this watcher, output included.
    pub(crate) wake: Arc<Notify>,
}

/// The events for a watcher since its last look.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub changes: VecDeque<Change>,
    /// Changes were left out: the records know better.
    pub lagged: bool,
    pub finished: Option<InvocationStatus>,
    /// The error because of which the end cannot be recorded.
    pub failed: Option<Error>,
    /// A shutdown has begun.
    pub closing: bool,
    /// The engine is gone.
    pub closed: bool,
}

impl Subscription {
    /// The invocation that is watched.
    pub(crate) fn invoke_id(&self) -> InvokeId {
        self.invoke_id
    }

    /// Takes the events that have come.
    pub(crate) fn take(&self) -> Inbox {
        let mut inbox = self.inbox();
        Inbox {
            changes: std::mem::take(&mut inbox.changes),
            lagged: std::mem::take(&mut inbox.lagged),
            finished: inbox.finished,
            failed: inbox.failed.take(),
            closing: inbox.closing,
            closed: inbox.closed,
        }
    }

    fn push(&self, changes: &[Change]) {
        let mut inbox = self.inbox();
        if inbox.changes.len() + changes.len() > CHANGES_MAX {
            inbox.lagged = true;
        } else {
            inbox.changes.extend(changes.iter().cloned());
        }
        drop(inbox);
        self.wake.notify_one();
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            if self.interest == Interest::Everything {
                hub.watchers.fetch_sub(1, Ordering::SeqCst);
            }
            hub.tidy(self.invoke_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_for_the_end_hears_of_nothing_else() {
        let hub = Arc::new(Hub::new(OutputQuota::default()));
        let invoke_id = InvokeId::new(Utc::now());
        let (watcher, (waiter, _)) = (hub.subscribe(invoke_id), hub.subscribe_to_end(invoke_id));
        let output = hub.open_output(invoke_id, ExecutionId(1));
        assert_eq!(output.watchers(), 1);
        let change = Change::retry(ExecutionId(1), InstanceId::from("i-1"), 0, 0);
        hub.publish(invoke_id, || vec![change]);
        hub.expect_end(invoke_id);
        assert!(!hub.subscribe_to_end(invoke_id).1);
        hub.finish(invoke_id, InvocationStatus::Success);
        assert!(hub.subscribe_to_end(invoke_id).1);
        let (watched, waited) = (watcher.take(), waiter.take());
        assert_eq!([&watched, &waited].map(|inbox| inbox.changes.len()), [1, 0]);
        assert_eq!(watched.finished, Some(InvocationStatus::Success));
        assert_eq!(waited.finished, Some(InvocationStatus::Success));
    }

    #[test]
    fn an_error_is_told_once_to_each_subscription_until_the_invocation_ends() {
        let hub = Arc::new(Hub::new(OutputQuota::default()));
        let invoke_id = InvokeId::new(Utc::now());
        let early = hub.subscribe(invoke_id);
        hub.fail(invoke_id, &Error::Internal("damaged".to_owned()));
        let late = hub.subscribe(invoke_id);
        for subscription in [early, late] {
            assert!(subscription.take().failed.is_some());
            assert!(subscription.take().failed.is_none());
        }
        hub.finish(invoke_id, InvocationStatus::Success);
        assert!(hub.subscribe(invoke_id).take().failed.is_none());
    }
}

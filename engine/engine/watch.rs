//! Watching an invocation: its events in order, put together from the records and from what the hub
//! tells. Nothing is kept for a watcher that the records or the outputs do not hold anyway, so it
//! may be as slow as it likes.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use chrono::DateTime;
use serde::{Deserialize, Serialize};

use super::Records;
use crate::clock::Sleep;
use crate::error::{Error, Result};
use crate::event::{Event, Inbox, Subscription};
use crate::id::{ExecutionId, InstanceId};
use crate::output::{LiveOutput, Output, Piece, Place, Reader};
use crate::status::{ExecutionStatus, InvocationStatus};
use crate::store::invocations;
use crate::store::records::{self, Look, Progress};

/// The longest stretch of output in one event, in bytes.
const OUTPUT_EVENT_BYTES_MAX: usize = 64 * 1024;

/// How far a watcher has come: the execution up to which all events are told or were left out, and for each execution
/// that is not told to its end, the status and the number of bytes of its output. So a position is as large as the
/// number of executions that go on. The default is the beginning. A position serialises, so that a watcher elsewhere
/// can go on from it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Position {
    /// Executions up to this one need no further look, except the `executions` below; `None` if the watch has not
    /// begun.
    until: Option<ExecutionId>,
    #[serde(default)]
    executions: BTreeMap<ExecutionId, Seen>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Seen {
    status: Option<ExecutionStatus>,
    offset: u64,
}

/// The events of one invocation, from [`Engine::watch`](crate::Engine::watch).
pub struct Watch {
    records: Records,
    subscription: Arc<Subscription>,
    invocation: i64,
    /// As in [`Position`].
    until: Option<ExecutionId>,
    tracks: BTreeMap<ExecutionId, Track>,
    /// Those that may have something to tell, in turn.
    ready: VecDeque<ExecutionId>,
    /// Executions whose records cannot be understood, each with the error.
    unreadable: VecDeque<(ExecutionId, String)>,
    /// The records have been looked at since they last said more than the hub did.
    in_sync: bool,
    /// How the invocation ended, once the records say so.
    outcome: Option<InvocationStatus>,
    /// The error because of which no end will come; told once.
    failed: Option<Error>,
    /// Whether the watch ends when a shutdown begins.
    ends_with_closing: bool,
    ended: bool,
    /// Until the records are looked at again, if they have to be.
    sleep: Option<Sleep>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("invoke_id", &self.subscription.invoke_id())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// One execution as its watcher sees it.
struct Track {
    instance_id: InstanceId,
    seen: Seen,
    /// States it has come to and that are not told yet.
    states: VecDeque<(ExecutionStatus, i64)>,
    /// When it starts, if it was to wait for that.
    retry_at_ms: Option<i64>,
    output: Source,
    queued: bool,
}

/// Where the output of an execution is read.
enum Source {
    /// Not known yet; if the execution has ended, its record has it.
    Unknown,
    Live(Reader),
    Record(Output, Place),
}

impl Watch {
    pub(super) fn new(
        records: Records,
        subscription: Arc<Subscription>,
        invocation: i64,
        position: Position,
    ) -> Self {
        let seen = position.executions.into_iter();
        let tracks = seen.map(|(id, seen)| (id, Track::new(InstanceId::from(""), seen)));
        Self {
            records,
            subscription,
            invocation,
            until: position.until,
            tracks: tracks.collect(),
            ready: VecDeque::new(),
            unreadable: VecDeque::new(),
            in_sync: false,
            outcome: None,
            failed: None,
            ends_with_closing: false,
            ended: false,
            sleep: None,
        }
    }

    /// The next event; `None` after [`Event::Finished`], when the engine has ended or, after
    /// [`until_closing`](Self::until_closing), when it begins to shut down. May be dropped and called again without losing
    /// anything.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage) if the records cannot be read; another call tries again.
    /// [`Error::Ended`](crate::Error::Ended) if the engine has ended although nobody shut it down.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        while !self.ended {
            if let Some(event) = self.ready_event().await? {
                return Ok(Some(event));
            }
            if let Some(status) = self.outcome {
                self.ended = true;
                return Ok(Some(Event::Finished { status }));
            }
            let mut inbox = self.subscription.take();
            let is_closing = inbox.closing && self.ends_with_closing;
            self.failed = inbox.failed.take().or_else(|| self.failed.take());
            let has_news = self.receive(inbox);
            if is_closing {
                self.ended = true;
                return Ok(None);
            }
            if has_news {
                continue;
            }
            if self.in_sync {
                if let Some(error) = self.failed.take() {
                    return Err(error);
                }
                self.in_sync = !self.records.wait(&self.subscription, &mut self.sleep).await;
                self.queue_live();
            } else {
                self.sync().await?;
            }
        }
        if self.outcome.is_none() {
            self.records.store.ending().check_cut_off()?;
        }
        Ok(None)
    }

    /// Makes this watch end when the engine begins to shut down, instead of when the engine has ended. A later watch
    /// can go on from its [`position`](Self::position).
    #[must_use]
    pub fn until_closing(mut self) -> Self {
        self.ends_with_closing = true;
        self
    }

    /// Returns the events as a stream. The stream ends after the last event, and after an error.
    ///
    /// # The output of a run, as a stream
    ///
    /// ```
    /// use adjutant::{Engine, Event, RunCommand};
    /// use std::future::poll_fn;
    /// use std::pin::Pin;
    /// use futures_core::Stream;
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// let engine = Engine::open_in_memory().await?;
    /// let run = RunCommand::shell("echo hello").on(["local"]);
    /// let (_, watch) = engine.run_command_and_watch(run).await?;
    /// let mut events = watch.into_stream();
    /// let mut printed = Vec::new();
    /// while let Some(event) = poll_fn(|cx| Pin::new(&mut events).poll_next(cx)).await {
    ///     if let Event::Output { bytes, .. } = event? {
    ///         printed.extend(bytes);
    ///     }
    /// }
    /// assert_eq!(printed, b"hello\n");
    /// # Ok::<(), adjutant::Error>(())
    /// # }).unwrap();
    /// ```
    #[cfg(feature = "stream")]
    pub fn into_stream(self) -> super::WatchStream {
        super::WatchStream::new(self)
    }

    /// How far this watcher has come.
    pub fn position(&self) -> Position {
        let seen = self.tracks.iter().map(|(&id, track)| (id, track.seen));
        Position { until: self.until, executions: seen.collect() }
    }

    /// The next event of the executions that may have one, in turn.
    async fn ready_event(&mut self) -> Result<Option<Event>> {
        if let Some((execution_id, error)) = self.unreadable.pop_front() {
            return Ok(Some(Event::Unreadable { execution_id, error }));
        }
        while let Some(&id) = self.ready.front() {
            let Some(track) = self.tracks.get_mut(&id) else {
                self.ready.pop_front();
                continue;
            };
            if track.wants_record() {
                let (output, error) =
                    match self.records.read(move |tx| records::output(tx, id)).await {
                        Ok(output) => (output, None),
                        // The rest of the record is told.
                        Err(error) if error.is_of_a_record() => (Output::default(), Some(error)),
                        Err(error) => return Err(error),
                    };
                track.output = Source::Record(output, Place::default());
                if let Some(error) = error {
                    let error = error.to_string();
                    return Ok(Some(Event::Unreadable { execution_id: id, error }));
                }
            }
            self.ready.pop_front();
            let event = track.next_event(id);
            track.queued = event.is_some();
            if track.is_told() {
                // Forgotten at its end, because an invocation may have any number of executions.
                self.tracks.remove(&id);
            } else if track.queued {
                self.ready.push_back(id);
            }
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Takes in what the hub told; whether there was anything.
    fn receive(&mut self, inbox: Inbox) -> bool {
        let told = !inbox.changes.is_empty();
        for change in inbox.changes {
            let id = change.execution_id;
            let is_known = self.tracks.contains_key(&id);
            // The execution is told or was left out. Before the first look no execution is, and a live output has all
            // bytes that its record will lack.
            if !is_known && self.until.is_some_and(|until| id <= until) {
                continue;
            }
            // What came before the first change of an execution is in the records.
            self.in_sync &= is_known;
            let in_sync = self.in_sync;
            let track = self.track(id, change.instance_id);
            track.retry_at_ms = track.retry_at_ms.or(change.retry_at_ms);
            if in_sync {
                track.add(change.status, change.at_ms);
            }
            if let Some(output) = &change.output {
                track.follow(output);
                output.watch(&self.subscription.wake);
            }
            self.queue(id);
        }
        if inbox.lagged || inbox.finished.is_some() {
            // The records tell what the changes left out, and that these were the last.
            self.in_sync = false;
        }
        if inbox.closed && !told && self.in_sync {
            self.ended = true;
        }
        told || self.ended
    }

    /// Compares with the records: what changed, what runs, and whether all has ended.
    async fn sync(&mut self) -> Result<()> {
        let (invocation, until) = (self.invocation, self.until);
        let open: Vec<ExecutionId> = self.tracks.keys().copied().collect();
        let (look, outcome) = self
            .records
            .read(move |tx| {
                let look = match until {
                    Some(until) => records::next_look(tx, invocation, until, &open)?,
                    None => records::first_look(tx, invocation)?,
                };
                Ok((look, invocations::final_status(tx, invocation)?))
            })
            .await?;
        let Look { progress, unreadable, until } = look;
        // A position from elsewhere may name executions of another invocation.
        let found: HashSet<ExecutionId> = progress.iter().map(|execution| execution.id).collect();
        self.tracks.retain(|id, _| found.contains(id));
        self.unreadable.extend(unreadable);
        self.until = self.until.max(Some(until));
        for execution in progress {
            let id = execution.id;
            let live = self.records.hub.output(id).filter(|_| !execution.status.is_final());
            let wake = Arc::clone(&self.subscription.wake);
            let track = self.track(id, execution.instance_id.clone());
            if let Some(output) = live {
                output.watch(&wake);
                track.follow(&output);
            }
            track.retry_at_ms = track.retry_at_ms.or(execution.retry_at_ms);
            for (status, at_ms) in states_so_far(&execution) {
                track.add(status, at_ms);
            }
        }
        // Executions have their turn in the order they were made, whatever the hub told first.
        self.ready = self.tracks.keys().copied().collect();
        self.tracks.values_mut().for_each(|track| track.queued = true);
        self.in_sync = true;
        self.outcome = outcome;
        Ok(())
    }

    fn track(&mut self, id: ExecutionId, instance_id: InstanceId) -> &mut Track {
        let track = self.tracks.entry(id);
        let track = track.or_insert_with(|| Track::new(instance_id.clone(), Seen::default()));
        track.instance_id = instance_id;
        track
    }

    fn queue(&mut self, id: ExecutionId) {
        if let Some(track) = self.tracks.get_mut(&id).filter(|track| !track.queued) {
            track.queued = true;
            self.ready.push_back(id);
        }
    }

    fn queue_live(&mut self) {
        for (&id, track) in &mut self.tracks {
            if matches!(track.output, Source::Live(_)) && !track.queued {
                track.queued = true;
                self.ready.push_back(id);
            }
        }
    }
}

impl Track {
    fn new(instance_id: InstanceId, seen: Seen) -> Self {
        let states = VecDeque::new();
        let (output, retry_at_ms) = (Source::Unknown, None);
        Self { instance_id, seen, states, retry_at_ms, output, queued: false }
    }

    /// Takes note of a state, unless the execution was known to have come further.
    fn add(&mut self, status: ExecutionStatus, at_ms: i64) {
        let known = self.states.back().map(|(status, _)| *status).or(self.seen.status);
        if known.is_none_or(|known| rank(status) > rank(known)) {
            self.states.push_back((status, at_ms));
        }
    }

    fn follow(&mut self, output: &Arc<LiveOutput>) {
        let over = self.seen.status.is_some_and(ExecutionStatus::is_final);
        if matches!(self.output, Source::Unknown) && !over {
            self.output = Source::Live(Reader::new(Arc::clone(output), self.seen.offset));
        }
    }

    /// Whether the output of an execution that has ended is still to be fetched.
    fn wants_record(&self) -> bool {
        matches!(self.output, Source::Unknown) && self.final_state_is_next()
    }

    fn is_told(&self) -> bool {
        self.seen.status.is_some_and(ExecutionStatus::is_final) && self.states.is_empty()
    }

    fn final_state_is_next(&self) -> bool {
        self.states.front().is_some_and(|(status, _)| status.is_final())
    }

    /// A state before everything printed in it, and the final one after everything printed.
    fn next_event(&mut self, id: ExecutionId) -> Option<Event> {
        use ExecutionStatus::Running;
        let runs = self.seen.status.is_some_and(|status| rank(status) >= rank(Running));
        if runs && (self.states.is_empty() || self.final_state_is_next()) {
            let offset = self.seen.offset;
            let piece = match &mut self.output {
                Source::Unknown => Piece::Wait,
                Source::Live(reader) => reader.next(OUTPUT_EVENT_BYTES_MAX),
                Source::Record(output, place) => {
                    output.piece_at(offset, OUTPUT_EVENT_BYTES_MAX, place)
                }
            };
            if let Some(event) = output_event(id, &self.instance_id, offset, piece) {
                return Some(self.printed(event));
            }
        }
        let (status, at_ms) = self.states.pop_front()?;
        self.seen.status = Some(status);
        if status.is_final() {
            // Nothing more is read of it: lets go of the output and its spool.
            self.output = Source::Unknown;
        }
        Some(Event::Status {
            execution_id: id,
            instance_id: self.instance_id.clone(),
            status,
            at: DateTime::from_timestamp_millis(at_ms).unwrap_or_default(),
            retry_time: self
                .retry_at_ms
                .filter(|_| status == ExecutionStatus::Scheduled)
                .and_then(DateTime::from_timestamp_millis),
        })
    }

    fn printed(&mut self, event: Event) -> Event {
        let told = match &event {
            Event::Output { bytes, .. } => bytes.len() as u64,
            Event::Gap { bytes, .. } => *bytes,
            Event::Status { .. } | Event::Unreadable { .. } | Event::Finished { .. } => 0,
        };
        self.seen.offset = self.seen.offset.saturating_add(told);
        event
    }
}

/// The order in which an execution comes to its states.
fn rank(status: ExecutionStatus) -> u8 {
    match status {
        ExecutionStatus::Scheduled => 0,
        ExecutionStatus::Pending => 1,
        ExecutionStatus::Running => 2,
        ExecutionStatus::Stopping => 3,
        _ => 4,
    }
}

/// The states an execution has been in, from its record.
fn states_so_far(execution: &Progress) -> impl Iterator<Item = (ExecutionStatus, i64)> + use<> {
    use ExecutionStatus::{Pending, Running, Scheduled, Skipped, Stopping};
    let first = match execution.status {
        Skipped => None,
        Scheduled => Some((Scheduled, execution.created_at_ms)),
        _ => Some((Pending, execution.created_at_ms)),
    };
    let stopping = execution.stop_at_ms.filter(|_| execution.started_at_ms.is_some());
    let ended = execution.finished_at_ms.map(|at| (execution.status, at));
    [
        first,
        execution.started_at_ms.map(|at| (Running, at)),
        stopping.map(|at| (Stopping, at)),
        ended,
    ]
    .into_iter()
    .flatten()
}

fn output_event(
    execution_id: ExecutionId,
    instance_id: &InstanceId,
    offset: u64,
    piece: Piece,
) -> Option<Event> {
    let instance_id = instance_id.clone();
    match piece {
        Piece::Bytes { stream, bytes } => {
            Some(Event::Output { execution_id, instance_id, stream, offset, bytes })
        }
        Piece::Gap(bytes) => Some(Event::Gap { execution_id, instance_id, offset, bytes }),
        Piece::Wait | Piece::End => None,
    }
}

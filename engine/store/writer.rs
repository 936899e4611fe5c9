//! The one thread that writes. Closures that wait together are committed together, and one that fails
//! takes nothing with it; each caller is answered after the commit. Nobody waits for company: a lone
//! write pays for one commit.
//!
//! A savepoint for each closure would have SQLite copy every page that it touches. So there is none
//! until one fails having changed something: then all is undone and done again, each in a savepoint
//! of its own. A closure that cannot be repeated has one from the start, and so has what follows it.
//!
//! Closures, their values and actions after a commit are partly the host's, and may panic. Each panic is contained
//! where it happens. A panic that is not contained there ends the engine, not only this thread.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::ending::Ending;
use crate::error::{EngineEnd, Error, Result, StorageErrorKind};
use crate::metrics::{Counted, Meters};
use crate::panics::contain;
use crate::panics::tell;

use super::commit_gate::CommitGate;
use super::connection;
use super::memory::Memory;
use super::upkeep::{self, Upkeep};
use super::{Tx, at, storage, undo_to};

/// Writes that wait for the thread; past this callers wait to be let in.
const QUEUE_MAX: usize = 1_024;
/// Writes of the first lane in a row while a request waits, so that a flood of stops holds up no request for
/// ever.
const FIRST_IN_A_ROW_MAX: usize = 8;
/// Writes that share a commit. More would gain little and keep the first of them waiting.
const BATCH_MAX: usize = 512;
/// The time for which a commit that stops executions waits for executors that are being polled for the first time. An
/// executor that blocks its thread must not hold up other writes.
const STARTS_TIME_MAX: Duration = Duration::from_millis(10);
/// The time between two looks whether these executors have been polled.
const START_LOOK_EVERY: Duration = Duration::from_micros(20);
/// A batch that has taken this long is committed, whoever else waits. Unit tests say themselves which writes share a
/// batch, so that a busy machine does not decide it.
const BATCH_TIME_MAX: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 20 });

/// When so many executions wait for a commit to start, a batch takes no longer than commits do: those start
/// while others are stored. So a slow disk has fewer commits. With fewer of them commits cost more than is
/// gained; with more the first wait for the last.
const BATCH_STARTS: u64 = 768;

/// The lane of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// For writes of the engine's loops, and stops. They come before requests that wait; otherwise a flood of
    /// requests would keep executions from ending and from being stopped.
    First,
    Requests,
}

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    first: mpsc::Sender<Box<dyn Job>>,
    requests: mpsc::Sender<Box<dyn Job>>,
    /// Whether the thread is to end when no write waits.
    is_closing: Arc<AtomicBool>,
    /// `None` once the thread has ended.
    thread: Mutex<Option<JoinHandle<()>>>,
    ending: Arc<Ending>,
    gate: Arc<CommitGate>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        upkeep: Option<Upkeep>,
        path: Option<Arc<Path>>,
        meters: Arc<Meters>,
        ending: Arc<Ending>,
    ) -> Result<Self> {
        let gate = Arc::new(CommitGate::default());
        let (first, of_first) = mpsc::channel(QUEUE_MAX);
        let (requests, of_requests) = mpsc::channel(QUEUE_MAX);
        let is_closing = Arc::<AtomicBool>::default();
        let lanes = Lanes {
            first: of_first,
            requests: of_requests,
            in_a_row: 0,
            is_closing: Arc::clone(&is_closing),
        };
        let work =
            Work { connection, path, meters, ending: Arc::clone(&ending), gate: Arc::clone(&gate) };
        let upkeep = upkeep.map(Box::new);
        let thread = thread::Builder::new()
            .name("adjutant-writer".to_owned())
            .spawn(move || work.run_until_closed(lanes, upkeep))
            .map_err(|error| Error::Internal(format!("no thread for writing: {error}")))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { first, requests, is_closing, thread, ending, gate })
    }

    /// Returns the gate that the starts of executions pass.
    pub(super) fn gate(&self) -> &Arc<CommitGate> {
        &self.gate
    }

    /// Runs `op` in a transaction, and `then` once that is committed, whether or not anybody still
    /// waits for the answer. What `op` did may be undone before that, and `op` run again.
    pub(super) async fn write<T, F, G>(&self, lane: Lane, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        self.queue(lane, op, then, true).await
    }

    /// Does the same with what can be run only once.
    pub(super) async fn write_once<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        let mut op = Some(op);
        let op = move |tx: Tx<'_>| match op.take() {
            Some(op) => op(tx),
            None => Err(Error::Internal("a write was to be done twice".to_owned())),
        };
        self.queue(Lane::Requests, op, then, false).await
    }

    async fn queue<T, F, G>(&self, lane: Lane, op: F, then: G, is_repeatable: bool) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let then = Some(then);
        let job =
            Box::new(TypedJob { op, then, is_repeatable, is_refused: false, result: None, reply });
        let queue = match lane {
            Lane::First => &self.first,
            Lane::Requests => &self.requests,
        };
        // The thread ends before its handle only if the engine has ended, so there is a cause by then.
        queue.send(job).await.map_err(|_| self.ending.error())?;
        answer.await.map_err(|_| self.ending.error())?
    }
}

impl Writer {
    /// Ends the thread once it has done the writes that are queued. The file must not be unlocked before. Blocks.
    pub(super) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            self.is_closing.store(true, Ordering::Release);
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The writes that wait for the thread.
struct Lanes {
    first: mpsc::Receiver<Box<dyn Job>>,
    requests: mpsc::Receiver<Box<dyn Job>>,
    /// Writes of the first lane since the last request.
    in_a_row: usize,
    is_closing: Arc<AtomicBool>,
}

impl Lanes {
    /// Takes no more writes.
    fn close(&mut self) {
        self.first.close();
        self.requests.close();
    }

    /// Returns the next write, if one waits.
    fn try_next(&mut self) -> Option<Box<dyn Job>> {
        let first = match self.in_a_row < FIRST_IN_A_ROW_MAX {
            true => self.first.try_recv().ok(),
            false => None,
        };
        if first.is_some() {
            self.in_a_row += 1;
            return first;
        }
        self.in_a_row = 0;
        self.requests.try_recv().or_else(|_| self.first.try_recv()).ok()
    }

    /// Returns the next write; `None` after `time` without a write. Blocks.
    ///
    /// # Errors
    ///
    /// [`Closed`] once no more writes can come.
    fn next(&mut self, waker: &Waker, time: Duration) -> Result<Option<Box<dyn Job>>, Closed> {
        let mut cx = Context::from_waker(waker);
        let began = Instant::now();
        loop {
            // Looked at first, so that every write is done that was queued before the close.
            let is_closing = self.is_closing.load(Ordering::Acquire);
            if let Some(job) = self.try_next() {
                return Ok(Some(job));
            }
            let first = self.first.poll_recv(&mut cx);
            if let Poll::Ready(Some(job)) = first {
                return Ok(Some(job));
            }
            let request = self.requests.poll_recv(&mut cx);
            if let Poll::Ready(Some(job)) = request {
                return Ok(Some(job));
            }
            if is_closing || (first.is_ready() && request.is_ready()) {
                return Err(Closed);
            }
            match time.checked_sub(began.elapsed()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                _ => return Ok(None),
            }
        }
    }
}

/// No more writes can come.
struct Closed;

/// Wakes the thread from its sleep.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A write with its type forgotten. None of these calls panics, whatever the write does.
trait Job: Send {
    /// Does the work; the error if it failed and nothing of it may stay.
    fn run(&mut self, tx: Tx<'_>) -> Option<Error>;
    /// Forgets its result, which has been undone. A write that cannot be repeated is refused.
    fn forget(&mut self);
    /// Refuses the write. No part of it is stored.
    fn refuse(&mut self, error: Error);
    /// Returns whether the write was refused, and so is not run again.
    fn is_refused(&self) -> bool;
    /// Returns whether the write can be run again after its changes have been undone.
    fn is_repeatable(&self) -> bool;
    /// Does the actions that have to follow the commit.
    fn follow(&mut self, work: &Work);
    /// Answers the caller; `lost` if the work was done and its commit failed.
    fn answer(self: Box<Self>, lost: Option<&Error>, work: &Work);
}

struct TypedJob<T, F, G> {
    op: F,
    /// `None` once it has been done.
    then: Option<G>,
    is_repeatable: bool,
    is_refused: bool,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F, G> Job for TypedJob<T, F, G>
where
    T: Send,
    F: FnMut(Tx<'_>) -> Result<T> + Send,
    G: FnOnce(&mut T) + Send,
{
    fn run(&mut self, tx: Tx<'_>) -> Option<Error> {
        let result = contain(|| (self.op)(tx))
            .unwrap_or_else(|message| Err(Error::Internal(format!("a write panicked: {message}"))));
        let error = result.as_ref().err().cloned();
        self.result = Some(result);
        error
    }

    fn forget(&mut self) {
        if self.is_refused {
            return;
        }
        match (self.result.take(), self.is_repeatable) {
            (Some(Ok(value)), false) => {
                drop_contained(value);
                let message = "another write in the same commit failed and rolled this one back";
                self.refuse(storage(StorageErrorKind::Busy, message));
            }
            (Some(Err(error)), false) => self.refuse(error),
            (result, _) => drop_contained(result),
        }
    }

    fn refuse(&mut self, error: Error) {
        self.is_refused = true;
        drop_contained(self.result.replace(Err(error)));
    }

    fn is_refused(&self) -> bool {
        self.is_refused
    }

    fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    fn follow(&mut self, work: &Work) {
        let (Some(Ok(value)), Some(then)) = (&mut self.result, self.then.take()) else { return };
        if let Err(message) = contain(|| then(value)) {
            // The write is on disk, but no part of this engine acts on it. The next engine does.
            work.ending.panicked("what follows a commit", message);
        }
    }

    fn answer(self: Box<Self>, lost: Option<&Error>, work: &Work) {
        let Self { op, then, result, reply, .. } = *self;
        drop_contained((op, then));
        let result = match (result, lost) {
            (Some(Err(error)), _) => Err(error),
            (result, Some(error)) => {
                drop_contained(result);
                Err(error.clone())
            }
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(Error::Internal("a write was not done".to_owned())),
        };
        let result = result.map_err(|error| match &work.path {
            Some(path) => at(error, path),
            None => error,
        });
        // A caller that no longer waits has no use for the answer.
        drop_contained(reply.send(result));
    }
}

/// Drops a value of the host. The drop may panic.
fn drop_contained<T>(value: T) {
    if let Err(message) = contain(|| drop(value)) {
        let _ = contain(|| {
            tell(|| tracing::error!(message, "what a write has left panicked as it was dropped"))
        });
    }
}

/// The state that the thread works with.
struct Work {
    connection: Connection,
    path: Option<Arc<Path>>,
    meters: Arc<Meters>,
    ending: Arc<Ending>,
    gate: Arc<CommitGate>,
}

impl Work {
    fn run_until_closed(self, mut lanes: Lanes, mut upkeep: Option<Box<Upkeep>>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        if let Err(message) = contain(|| self.run(&mut lanes, &mut batch, &mut upkeep)) {
            self.ending.panicked("the writing thread", message);
        }
        self.gate.open();
        // The end of the engine is the answer to all of these writes.
        lanes.close();
        let left = std::iter::from_fn(|| lanes.try_next());
        batch.into_iter().chain(left).for_each(drop_contained);
        if let Some(upkeep) = &mut upkeep {
            upkeep.end(&self.connection);
        }
        // The file is locked until SQLite has let go of it.
        let Self { connection, .. } = self;
        drop(connection);
        drop(upkeep);
    }

    fn run(
        &self,
        lanes: &mut Lanes,
        batch: &mut Vec<Box<dyn Job>>,
        upkeep: &mut Option<Box<Upkeep>>,
    ) {
        let memory = Memory::of_writer();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut commit_takes = Duration::ZERO;
        if let Some(upkeep) = upkeep {
            upkeep.move_here();
        }
        let look_every = if upkeep.is_some() { upkeep::LOOK_EVERY } else { Duration::MAX };
        while let Ok(first) = lanes.next(&waker, look_every) {
            if let Some(first) = first {
                let changes = self.connection.total_changes();
                let batch_of = Batch {
                    tx: Tx::new(&self.connection, &memory),
                    gate: &self.gate,
                    upkeep: upkeep.as_deref_mut(),
                    is_apart: false,
                    is_closed: false,
                    suspects: Vec::new(),
                };
                let written = batch_of.write(first, lanes, batch, commit_takes);
                let tally = memory.counts.take();
                if let Ok(took) = written {
                    commit_takes = took;
                    let rows = self.connection.total_changes().saturating_sub(changes);
                    self.meters.committed(tally, batch.len(), rows, took);
                }
                let lost = written.err();
                if lost.is_none() {
                    // All actions run before any answer. Otherwise a caller that has claimed an execution could start
                    // it before a stop of the same commit has reached the dispatcher.
                    batch.iter_mut().for_each(|job| job.follow(self));
                }
                self.gate.open();
                for job in batch.drain(..) {
                    job.answer(lost.as_ref(), self);
                }
                if let (None, Some(upkeep)) = (&lost, upkeep.as_mut()) {
                    upkeep.after_commit(&self.connection);
                }
            } else if let Some(upkeep) = upkeep {
                upkeep.idle(&self.connection);
            }
            if let Some(error) = upkeep.as_ref().and_then(|upkeep| upkeep.failed()) {
                self.give_up(error);
                return;
            }
        }
    }

    /// Ends the engine, because it must not write to its file any more.
    fn give_up(&self, error: &Error) {
        let error = match &self.path {
            Some(path) => at(error.clone(), path),
            None => error.clone(),
        };
        self.ending.end(match error {
            Error::Storage(error) => EngineEnd::Storage(error),
            error => EngineEnd::Panicked { part: "the writing thread", message: error.to_string() },
        });
    }
}

/// The means to write a batch.
struct Batch<'a> {
    tx: Tx<'a>,
    gate: &'a CommitGate,
    /// `None` for a database in memory.
    upkeep: Option<&'a mut Upkeep>,
    /// Whether each write that follows has a savepoint.
    is_apart: bool,
    /// Whether a write has ended the transaction, or met damage. No other write is then let in.
    is_closed: bool,
    /// Writes that have met damage. They are run again after the others, each in a commit of its own.
    suspects: Vec<usize>,
}

impl Batch<'_> {
    /// Writes the waiting jobs in one commit. Returns the time that the commit took; `commit_takes` is the
    /// time of the commit before.
    fn write(
        mut self,
        first: Box<dyn Job>,
        lanes: &mut Lanes,
        batch: &mut Vec<Box<dyn Job>>,
        commit_takes: Duration,
    ) -> Result<Duration> {
        if let Err(error) = self.begin() {
            batch.push(first);
            return Err(self.undo(error));
        }
        let began = Instant::now();
        let filled = self.fill(first, lanes, batch, commit_takes);
        let committed = filled.and_then(|()| self.commit());
        match committed {
            Ok(took) => {
                for at in std::mem::take(&mut self.suspects) {
                    self.write_alone(batch[at].as_mut());
                }
                Ok(took)
            }
            Err(error) if error.is_damage() => {
                // A write may have met damage without returning the error.
                let _ = self.undo(error);
                self.tx.memory.counts.take();
                batch.iter_mut().for_each(|job| self.write_alone(job.as_mut()));
                Ok(began.elapsed())
            }
            Err(error) => Err(self.undo(error)),
        }
    }

    fn begin(&mut self) -> Result<()> {
        self.tx.execute("BEGIN IMMEDIATE", ())?;
        match &mut self.upkeep {
            Some(upkeep) => upkeep.enter(self.tx.connection()),
            None => Ok(()),
        }
    }

    fn fill(
        &mut self,
        first: Box<dyn Job>,
        lanes: &mut Lanes,
        batch: &mut Vec<Box<dyn Job>>,
        commit_takes: Duration,
    ) -> Result<()> {
        let (began, mut next) = (Instant::now(), Some(first));
        while let Some(job) = next {
            self.is_apart |= !job.is_repeatable();
            batch.push(job);
            self.write_last(batch)?;
            let starts = self.tx.memory.counts.of(Counted::Started);
            let time_max = if starts < BATCH_STARTS { BATCH_TIME_MAX } else { commit_takes };
            let more = !self.is_closed
                && batch.len() < BATCH_MAX
                && began.elapsed() < time_max.min(BATCH_TIME_MAX);
            next = if more { lanes.try_next() } else { None };
        }
        Ok(())
    }

    /// Commits. Returns the time that the commit took.
    fn commit(&mut self) -> Result<Duration> {
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.before_commit(self.tx.memory.counts.of(Counted::Started) > 0)?;
        }
        let began = Instant::now();
        if self.tx.memory.take_stops() {
            self.gate.close(|| {
                thread::park_timeout(START_LOOK_EVERY);
                began.elapsed() < STARTS_TIME_MAX
            });
        }
        self.tx.execute("COMMIT", ())?;
        Ok(began.elapsed())
    }

    /// Ends a transaction that cannot be committed, and takes it out of the log. Returns its first error, unless the
    /// fate of the transaction is not known.
    fn undo(&mut self, error: Error) -> Error {
        self.roll_back();
        match &mut self.upkeep {
            Some(upkeep) => {
                upkeep.after_failure(self.tx.connection(), &error).err().unwrap_or(error)
            }
            None => error,
        }
    }

    fn roll_back(&self) {
        self.tx.memory.cache.forget_all();
        connection::roll_back(self.tx.connection());
    }

    /// Runs the last job of a batch. An error here is an error of the whole batch.
    fn write_last(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        let tx = self.tx;
        let Some(last) = batch.last_mut() else { return Ok(()) };
        if self.is_apart {
            return match write_apart(tx, last.as_mut())? {
                Apart::Goes => Ok(()),
                Apart::Ends(error) => self.do_again_without(batch.len() - 1, batch, error),
            };
        }
        let (changes, counted) = (tx.total_changes(), tx.memory.counts.so_far());
        let Some(error) = last.run(tx) else { return Ok(()) };
        let ends = error.is_damage() || tx.is_undone();
        // If SQLite refuses a row of an OR FAIL statement, rows that it has changed before may not be counted. Such
        // an error looks like a record that cannot be understood, which is rare.
        let may_be_partial = matches!(error, Error::Storage(_));
        if !ends && tx.total_changes() == changes && !may_be_partial {
            tx.memory.counts.back_to(counted);
            return Ok(());
        }
        self.is_apart = true;
        match ends {
            true => self.do_again_without(batch.len() - 1, batch, error),
            false => self.do_again(batch),
        }
    }

    /// Runs the jobs of a batch again, each in a savepoint.
    fn do_again(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        self.roll_back();
        self.tx.memory.counts.take();
        // All jobs forget before any job runs again, because a job may need a value that another holds.
        batch.iter_mut().for_each(|job| job.forget());
        self.begin()?;
        for at in 0..batch.len() {
            let job = batch[at].as_mut();
            if job.is_refused() || self.suspects.contains(&at) {
                continue;
            }
            if let Apart::Ends(error) = write_apart(self.tx, job)? {
                return self.do_again_without(at, batch, error);
            }
        }
        Ok(())
    }

    /// Runs the jobs of a batch again without a job that has ended the transaction: the system has refused the job a
    /// read or a write, or the job has met a damaged page, after which SQLite commits nothing.
    fn do_again_without(
        &mut self,
        at: usize,
        batch: &mut [Box<dyn Job>],
        error: Error,
    ) -> Result<()> {
        self.is_closed = true;
        let is_damage = error.is_damage();
        let error = self.undo(error);
        if let Some(failed) = self.failed() {
            return Err(failed);
        }
        // After a damaged page SQLite refuses all writes of a transaction with the same error, so an earlier job may be
        // to blame.
        if is_damage && batch[at].is_repeatable() {
            self.suspects.push(at);
        } else {
            batch[at].refuse(error);
        }
        self.do_again(batch)
    }

    /// Runs a job again in a commit of its own, and refuses the job if that fails.
    fn write_alone(&mut self, job: &mut dyn Job) {
        job.forget();
        if job.is_refused() {
            return;
        }
        if let Some(failed) = self.failed() {
            job.refuse(failed);
            return;
        }
        let counted = self.tx.memory.counts.so_far();
        let written = self.begin().and_then(|()| match write_apart(self.tx, job)? {
            Apart::Goes => self.commit().map(drop),
            Apart::Ends(error) => Err(error),
        });
        if let Err(error) = written {
            let error = self.undo(error);
            self.tx.memory.counts.back_to(counted);
            job.refuse(error);
        }
    }

    /// Returns why no more writes are possible; `None` if they are.
    fn failed(&self) -> Option<Error> {
        self.upkeep.as_ref().and_then(|upkeep| upkeep.failed()).cloned()
    }
}

/// The result of a job with a savepoint.
enum Apart {
    /// The job is done, or all of it is undone. The transaction goes on.
    Goes,
    /// The job failed, and no part of the transaction can be committed.
    Ends(Error),
}

/// Runs one job in a savepoint. An `Err` is an error of the whole batch.
fn write_apart(tx: Tx<'_>, job: &mut dyn Job) -> Result<Apart> {
    tx.execute("SAVEPOINT job", ())?;
    let counted = tx.memory.counts.so_far();
    if let Some(error) = job.run(tx) {
        if error.is_damage() || tx.is_undone() {
            return Ok(Apart::Ends(error));
        }
        undo_to(tx, "job", counted)?;
    }
    tx.execute("RELEASE job", ()).map(|_| Apart::Goes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(tx: Tx<'_>) -> Result<i64> {
        tx.one("SELECT count(*) FROM numbers", (), |row| row.get(0))
    }

    fn execute_and_count(sql: &'static str) -> impl FnMut(Tx<'_>) -> Result<i64> + Send + 'static {
        move |tx| {
            tx.execute(sql, ())?;
            tx.count(Counted::Started, 1);
            count(tx)
        }
    }

    /// The first two share their commit with one that fails, and with one after it.
    #[tokio::test]
    async fn of_a_write_that_fails_half_way_nothing_stays_and_of_others_all() {
        let check = async |fails: &'static str, why: &str| {
            let connection = Connection::open_in_memory().expect("memory");
            let table = "CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT";
            connection.execute_batch(table).expect("sound SQL");
            let meters = Arc::new(Meters::default());
            let writer = Writer::start(connection, None, None, Arc::clone(&meters), Arc::default())
                .expect("a thread");
            // Held until there is nobody that could let go.
            let (let_go, held) = std::sync::mpsc::channel();
            let hold = move |_: Tx<'_>| {
                let _: std::result::Result<(), _> = held.recv();
                Ok(())
            };
            let sound = execute_and_count("INSERT INTO numbers VALUES (1)");
            let next = execute_and_count("INSERT INTO numbers VALUES (2)");
            let (held, first, failed, last, ()) = tokio::join!(
                writer.write(Lane::Requests, hold, |()| {}),
                writer.write(Lane::Requests, sound, |_| {}),
                writer.write(Lane::Requests, execute_and_count(fails), |_| {}),
                writer.write(Lane::Requests, next, |_| {}),
                async { drop(let_go) },
            );
            held.expect("nothing is wrong with it");
            assert_eq!((first.expect("sound"), last.expect("sound")), (1, 2), "{fails}");
            let error = failed.expect_err("as told").to_string();
            assert!(error.contains(why), "{fails}: {error}");
            let stored = writer.write(Lane::Requests, count, |_| {}).await.expect("readable");
            let metrics = meters.snapshot();
            assert_eq!((stored, metrics.started), (2, 2), "{fails}");
        };
        check("INSERT INTO numbers VALUES (10), (11), (1)", "UNIQUE").await;
        check("INSERT OR FAIL INTO numbers VALUES (10), (11), (1)", "UNIQUE").await;
        check("INSERT OR FAIL INTO numbers VALUES (10), (11), ('x')", "datatype").await;
        check("UPDATE OR FAIL numbers SET n = n / 0", "mismatch").await;
        check("no SQL", "syntax").await;
    }

    /// Several writes share a commit. Some of them fail in a way after which SQLite commits nothing.
    #[tokio::test]
    async fn of_writes_that_share_a_commit_only_those_that_met_damage_are_refused() {
        #[derive(Clone, Copy, Debug, PartialEq)]
        enum Write {
            /// Adds a number.
            Sound,
            /// Adds a number, and cannot be run again.
            Once,
            /// Adds a number, cannot be run again, and fails by itself.
            OnceFailed,
            /// Adds a number, and then meets a damaged page.
            Damaged,
            /// Adds a number, meets a damaged page, and returns no error.
            Silent,
            /// Adds a number, and fails by itself.
            Failed,
        }
        use Write::{Damaged, Failed, Once, OnceFailed, Silent, Sound};
        fn add(tx: Tx<'_>, n: i64, write: Write) -> Result<i64> {
            tx.execute("INSERT INTO numbers VALUES (?1)", [n])?;
            tx.count(Counted::Started, 1);
            let meet = || tx.execute("INSERT INTO damaged VALUES (1)", ());
            match write {
                Sound | Once => {}
                Silent => drop(meet()),
                Damaged => drop(meet()?),
                Failed | OnceFailed => return Err(Error::host("as told")),
            }
            Ok(n)
        }
        let check = async |writes: &[Write], want: &[&str]| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("a.db");
            let file = Connection::open(&path).expect("a file");
            file.execute_batch(
                "CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT; CREATE TABLE damaged (n);",
            )
            .expect("sound SQL");
            let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'damaged'";
            let page: u64 = file.query_row(root, (), |row| row.get(0)).expect("a table");
            drop(file);
            let mut bytes = std::fs::read(&path).expect("readable");
            bytes[(page as usize - 1) * 4_096..page as usize * 4_096].fill(0xff);
            std::fs::write(&path, bytes).expect("written");
            let connection = Connection::open(&path).expect("a file");
            let meters = Arc::new(Meters::default());
            let writer = Writer::start(connection, None, None, Arc::clone(&meters), Arc::default())
                .expect("a thread");
            let (let_go, held) = std::sync::mpsc::channel::<()>();
            let hold = move |_: Tx<'_>| {
                let _ = held.recv();
                Ok(())
            };
            let mut cx = Context::from_waker(Waker::noop());
            let mut held = Box::pin(writer.write(Lane::Requests, hold, |()| {}));
            assert!(held.as_mut().poll(&mut cx).is_pending());
            type Answer<'a> = std::pin::Pin<Box<dyn Future<Output = Result<i64>> + 'a>>;
            let mut answers: Vec<Answer<'_>> = Vec::new();
            for (n, &write) in (0..).zip(writes) {
                let mut answer: Answer<'_> = match write {
                    Once | OnceFailed => {
                        Box::pin(writer.write_once(move |tx| add(tx, n, write), |_| {}))
                    }
                    write => {
                        Box::pin(writer.write(Lane::Requests, move |tx| add(tx, n, write), |_| {}))
                    }
                };
                assert!(answer.as_mut().poll(&mut cx).is_pending());
                answers.push(answer);
            }
            drop(let_go);
            held.await.expect("nothing is wrong with it");
            let mut got = Vec::new();
            for answer in answers {
                got.push(match answer.await {
                    Ok(_) => "stored".to_owned(),
                    Err(error) => error.code().to_owned(),
                });
            }
            assert_eq!(got, want, "{writes:?}");
            let numbers = |tx: Tx<'_>| {
                let mut numbers = tx.prepare("SELECT n FROM numbers")?;
                let numbers = numbers.query_map((), |row| row.get::<_, i64>(0))?;
                Ok(numbers.collect::<rusqlite::Result<Vec<_>>>()?)
            };
            let stored = writer.write(Lane::Requests, numbers, |_| {}).await.expect("readable");
            let acknowledged: Vec<_> =
                (0..).zip(want).filter(|(_, want)| **want == "stored").map(|(n, _)| n).collect();
            assert_eq!(stored, acknowledged, "{writes:?}");
            assert_eq!(meters.snapshot().started, stored.len() as u64, "{writes:?}");
        };
        const STORED: &str = "stored";
        const CORRUPT: &str = "Storage.Corrupt";
        const BUSY: &str = "Storage.Busy";
        check(&[Damaged], &[CORRUPT]).await;
        check(&[Sound, Damaged, Sound], &[STORED, CORRUPT, STORED]).await;
        check(&[Damaged, Sound, Damaged, Sound], &[CORRUPT, STORED, CORRUPT, STORED]).await;
        check(&[Sound, Failed, Damaged, Sound], &[STORED, "Host.Failed", CORRUPT, STORED]).await;
        check(&[Damaged, Once, Sound], &[CORRUPT, STORED, STORED]).await;
        // A write that cannot be run again is refused with a true reason, and no part of it is stored.
        check(&[Once, Damaged, Sound], &[BUSY, CORRUPT, STORED]).await;
        check(&[OnceFailed, Damaged, Sound], &["Host.Failed", CORRUPT, STORED]).await;
        // The write that has met the damage is known only once each write has a commit of its own.
        check(&[Sound, Silent, Sound], &[STORED, CORRUPT, STORED]).await;
        check(&[Silent, Sound, Failed], &[CORRUPT, STORED, "Host.Failed"]).await;
    }

    /// Returns a writer and its ending.
    fn writer() -> (Writer, Arc<Ending>) {
        let connection = Connection::open_in_memory().expect("memory");
        let table = "CREATE TABLE numbers (n INTEGER PRIMARY KEY) STRICT";
        connection.execute_batch(table).expect("sound SQL");
        let ending = Arc::<Ending>::default();
        let writer = Writer::start(connection, None, None, Arc::default(), Arc::clone(&ending));
        (writer.expect("a thread"), ending)
    }

    #[tokio::test]
    async fn loops_and_stops_are_written_before_requests_and_hold_up_none_for_ever() {
        let (writer, _) = writer();
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let (has_it, had) = oneshot::channel();
        let mut has_it = Some(has_it);
        let hold = move |_: Tx<'_>| {
            let _ = has_it.take().map(|has_it| has_it.send(()));
            let _ = held.recv();
            Ok(())
        };
        let written = Arc::new(std::sync::Mutex::new(String::new()));
        let mut writes: Vec<std::pin::Pin<Box<dyn Future<Output = Result<()>> + '_>>> = Vec::new();
        writes.push(Box::pin(writer.write(Lane::Requests, hold, |()| {})));
        let mut had = std::pin::pin!(had);
        std::future::poll_fn(|cx| {
            let _ = writes[0].as_mut().poll(cx);
            had.as_mut().poll(cx)
        })
        .await
        .expect("the thread has it");
        for (lane, name) in [(Lane::Requests, 'r'), (Lane::First, 'f')] {
            for _ in 0..20 {
                let written = Arc::clone(&written);
                let write = move |_: Tx<'_>| {
                    written.lock().expect("no panic").push(name);
                    Ok(())
                };
                let mut write = Box::pin(writer.write(lane, write, |()| {}));
                // From here on the job waits for the thread.
                let mut cx = Context::from_waker(Waker::noop());
                assert!(write.as_mut().poll(&mut cx).is_pending());
                writes.push(write);
            }
        }
        drop(let_go);
        for write in writes {
            write.await.expect("nothing is wrong with it");
        }
        let want = ["ffffffff", "r", "ffffffff", "r", "ffff", &"r".repeat(18)].concat();
        assert_eq!(*written.lock().expect("no panic"), want);
    }

    #[tokio::test]
    async fn an_engine_ends_if_an_action_after_a_commit_panics() {
        let (writer, ending) = writer();
        let insert = execute_and_count("INSERT INTO numbers VALUES (1)");
        let written = writer.write(Lane::Requests, insert, |_| panic!("as told")).await;
        assert_eq!(written.expect("it is on disk"), 1);
        let error = ending.check().expect_err("it has ended").to_string();
        assert_eq!(error, "the engine has ended: what follows a commit panicked: as told");
        // The loops that end with the engine can still write.
        assert_eq!(writer.write(Lane::First, count, |_| {}).await.expect("readable"), 1);
    }
}

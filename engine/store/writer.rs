//! The one thread that writes. Closures that wait together are committed together, and one that fails
//! takes nothing with it; each caller is answered after the commit. Nobody waits for company: a lone
//! write pays for one commit.
//!
//! A savepoint for each closure would have SQLite copy every page that it touches. So there is none
//! until one fails having changed something: then all is undone and done again, each in a savepoint
//! of its own. A closure that cannot be repeated has one from the start, and so has what follows it.
//!
//! Closures, their values and what follows a commit are the host's in part, and may panic. Each panic is
//! contained where it happens; one that gets past that ends the engine, and not this thread alone.

use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::ending::Ending;
use crate::error::{EngineEnd, Error, Result, StorageErrorKind};
use crate::metrics::{Counted, Meters, tally};
use crate::panics::contain;
use crate::panics::tell;

use super::commit_gate::CommitGate;
use super::upkeep::{self, Upkeep};
use super::{Tx, at, known, storage, undo_to};

/// Writes that wait for the thread; past this callers wait to be let in.
const QUEUE_MAX: usize = 1_024;
/// Writes of the first lane that are written before one of the other, if that has any: a flood of stops
/// holds up no request for ever.
const FIRST_IN_A_ROW_MAX: usize = 8;
/// Writes that share a commit. More would gain little and keep the first of them waiting.
const BATCH_MAX: usize = 512;
/// When a batch has taken this long it is committed, whoever else waits.
const BATCH_TIME_MAX: Duration = Duration::from_millis(20);

/// When so many executions wait for a commit to start, a batch takes no longer than commits do: those start
/// while others are stored. So a slow disk has fewer commits. With fewer of them commits cost more than is
/// gained; with more the first wait for the last.
const BATCH_STARTS: u64 = 768;

/// How far ahead a write is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Written before the requests that wait: what the engine's loops write, and stops. Otherwise a flood of
    /// requests would keep executions from ending and from being stopped.
    First,
    Requests,
}

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    first: Option<mpsc::Sender<Box<dyn Job>>>,
    requests: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
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
        let lanes = Lanes { first: of_first, requests: of_requests, in_a_row: 0 };
        let work =
            Work { connection, path, meters, ending: Arc::clone(&ending), gate: Arc::clone(&gate) };
        let upkeep = upkeep.map(Box::new);
        let thread = thread::Builder::new()
            .name("adjutant-writer".to_owned())
            .spawn(move || work.run_until_closed(lanes, upkeep))
            .map_err(|error| Error::Internal(format!("no thread for writing: {error}")))?;
        let (first, requests, thread) = (Some(first), Some(requests), Some(thread));
        Ok(Self { first, requests, thread, ending, gate })
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
        let job = Box::new(TypedJob { op, then, is_repeatable, result: None, reply });
        let queue = match lane {
            Lane::First => &self.first,
            Lane::Requests => &self.requests,
        };
        let queue = queue.as_ref().expect("taken only when dropped");
        // The thread ends before its handle only with the engine, whose end has its cause by then.
        queue.send(job).await.map_err(|_| self.ending.error())?;
        answer.await.map_err(|_| self.ending.error())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread finishes what is queued and ends; the file must not be unlocked before.
        drop((self.first.take(), self.requests.take()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What waits for the thread.
struct Lanes {
    first: mpsc::Receiver<Box<dyn Job>>,
    requests: mpsc::Receiver<Box<dyn Job>>,
    /// Writes of the first lane since the last of the other.
    in_a_row: usize,
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

    /// Returns the next write, or none after `time` without one. Blocks.
    ///
    /// # Errors
    ///
    /// [`Closed`] once nothing can come any more.
    fn next(&mut self, waker: &Waker, time: Duration) -> Result<Option<Box<dyn Job>>, Closed> {
        let mut cx = Context::from_waker(waker);
        let began = Instant::now();
        loop {
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
            if first.is_ready() && request.is_ready() {
                return Err(Closed);
            }
            match time.checked_sub(began.elapsed()) {
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                _ => return Ok(None),
            }
        }
    }
}

/// Nothing more can come.
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
    /// Forgets what it came to, which has been undone.
    fn forget(&mut self);
    /// Whether it can be run again after what it did has been undone.
    fn is_repeatable(&self) -> bool;
    /// Does what has to follow the commit.
    fn follow(&mut self, work: &Work);
    /// Answers the caller; `lost` if the work was done and its commit failed.
    fn answer(self: Box<Self>, lost: Option<&Error>, work: &Work);
}

struct TypedJob<T, F, G> {
    op: F,
    /// None once it has been done.
    then: Option<G>,
    is_repeatable: bool,
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
        let result = self.result.take();
        drop_contained(result);
    }

    fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    fn follow(&mut self, work: &Work) {
        let (Some(Ok(value)), Some(then)) = (&mut self.result, self.then.take()) else { return };
        if let Err(message) = contain(|| then(value)) {
            // It is on disk, and nobody acts on it: the next engine does.
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

/// Drops a value of the host's, whose drop may panic.
fn drop_contained<T>(value: T) {
    if let Err(message) = contain(|| drop(value)) {
        let _ = contain(|| {
            tell(|| tracing::error!(message, "what a write has left panicked as it was dropped"))
        });
    }
}

/// What the thread works with.
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
        // None of these is answered but by the end of the engine.
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
        known::start();
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
                    connection: &self.connection,
                    gate: &self.gate,
                    upkeep: upkeep.as_deref_mut(),
                };
                let written = batch_of.write(first, lanes, batch, commit_takes);
                let tally = tally::take();
                if let Ok(took) = written {
                    commit_takes = took;
                    let rows = self.connection.total_changes().saturating_sub(changes);
                    self.meters.committed(tally, batch.len(), rows, took);
                }
                let lost = written.err();
                if lost.is_none() {
                    // All of them before any answer. Otherwise a caller that has claimed an execution could start it
                    // before the stop of the same commit has told the dispatcher.
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

    /// Ends the engine, whose file must not be written to any more.
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

/// What a batch is written with.
struct Batch<'a> {
    connection: &'a Connection,
    gate: &'a CommitGate,
    /// None of a database in memory.
    upkeep: Option<&'a mut Upkeep>,
}

impl Batch<'_> {
    /// Writes what waits, in one commit; how long that took to come to disk, which took so long before.
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
        let written = self.write_begun(first, lanes, batch, commit_takes);
        written.map_err(|error| self.undo(error))
    }

    fn begin(&mut self) -> Result<()> {
        execute(self.connection, "BEGIN IMMEDIATE")?;
        match &mut self.upkeep {
            Some(upkeep) => upkeep.enter(self.connection),
            None => Ok(()),
        }
    }

    fn write_begun(
        &mut self,
        first: Box<dyn Job>,
        lanes: &mut Lanes,
        batch: &mut Vec<Box<dyn Job>>,
        commit_takes: Duration,
    ) -> Result<Duration> {
        let (began, mut next, mut apart) = (Instant::now(), Some(first), false);
        while let Some(job) = next {
            apart |= !job.is_repeatable();
            batch.push(job);
            self.write_last(batch, &mut apart)?;
            let starts = tally::count_of(Counted::Started);
            let time_max = if starts < BATCH_STARTS { BATCH_TIME_MAX } else { commit_takes };
            let more = batch.len() < BATCH_MAX && began.elapsed() < time_max.min(BATCH_TIME_MAX);
            next = if more { lanes.try_next() } else { None };
        }
        if let Some(upkeep) = &mut self.upkeep {
            upkeep.before_commit(tally::count_of(Counted::Started) > 0)?;
        }
        let written = Instant::now();
        self.gate.close_for_stops();
        execute(self.connection, "COMMIT")?;
        Ok(written.elapsed())
    }

    /// Ends a transaction that cannot be committed, and sees that nothing of it is found later. Its first error is
    /// the one to report, unless that is not sure.
    fn undo(&mut self, error: Error) -> Error {
        roll_back(self.connection);
        match &mut self.upkeep {
            Some(upkeep) => upkeep.after_failure(self.connection, &error).err().unwrap_or(error),
            None => error,
        }
    }

    /// Runs the last job of a batch; an error here is one of the whole batch.
    fn write_last(&mut self, batch: &mut [Box<dyn Job>], apart: &mut bool) -> Result<()> {
        let connection = self.connection;
        let Some((last, _)) = batch.split_last_mut() else { return Ok(()) };
        if *apart {
            return match write_apart(connection, last.as_mut())? {
                None => Ok(()),
                Some(damage) => self.do_again_without_last(batch, damage),
            };
        }
        let (changes, counted) = (connection.total_changes(), tally::so_far());
        let Some(error) = last.run(connection) else { return Ok(()) };
        if connection.is_autocommit() {
            return Err(undone(error));
        }
        // What a statement that is OR FAIL has changed need not be counted, if SQLite refused one of its rows. That
        // looks the same as a record that cannot be understood, which is rare.
        let may_be_partial = matches!(error, Error::Storage(_));
        if connection.total_changes() == changes && !may_be_partial {
            tally::back_to(counted);
            return Ok(());
        }
        *apart = true;
        if error.is_damage() {
            return self.do_again_without_last(batch, error);
        }
        self.do_again(batch)
    }

    /// Does the jobs of a batch again, each in a savepoint.
    fn do_again(&mut self, batch: &mut [Box<dyn Job>]) -> Result<()> {
        execute(self.connection, "ROLLBACK")?;
        tally::take();
        known::forget_all();
        // All of it before any of it is done again: what one holds another may need.
        batch.iter_mut().for_each(|job| job.forget());
        self.begin()?;
        batch.iter_mut().try_for_each(|job| match write_apart(self.connection, job.as_mut())? {
            None => Ok(()),
            Some(damage) => Err(damage),
        })
    }

    /// Does the jobs of a batch again without the last, which has met a damaged page: SQLite commits nothing of
    /// such a transaction.
    fn do_again_without_last(&mut self, batch: &mut [Box<dyn Job>], damage: Error) -> Result<()> {
        match batch.split_last_mut() {
            Some((_, others)) if others.iter().all(|job| job.is_repeatable()) => {
                self.do_again(others)
            }
            _ => Err(damage),
        }
    }
}

/// Runs one job in a savepoint. Returns its error if the job has met a damaged page, after which SQLite commits
/// nothing. An `Err` is an error of the whole batch.
fn write_apart(connection: &Connection, job: &mut dyn Job) -> Result<Option<Error>> {
    execute(connection, "SAVEPOINT job")?;
    let counted = tally::so_far();
    if let Some(error) = job.run(connection) {
        if connection.is_autocommit() {
            return Err(undone(error));
        }
        if error.is_damage() {
            return Ok(Some(error));
        }
        undo_to(connection, "job", counted)?;
    }
    execute(connection, "RELEASE job").map(|()| None)
}

/// A full disk or an I/O error, or the host's part, has ended the whole transaction.
fn undone(error: Error) -> Error {
    match error {
        Error::Storage(_) => error,
        _ => storage(StorageErrorKind::Busy, "a write that shared its commit undid it"),
    }
}

/// Ends a transaction that cannot be committed; its first error is the one to report.
fn roll_back(connection: &Connection) {
    known::forget_all();
    if !connection.is_autocommit() {
        let _ = execute(connection, "ROLLBACK");
    }
}

fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute(())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(tx: Tx<'_>) -> Result<i64> {
        Ok(tx.query_row("SELECT count(*) FROM numbers", (), |row| row.get(0))?)
    }

    fn execute_and_count(sql: &'static str) -> impl FnMut(Tx<'_>) -> Result<i64> + Send + 'static {
        move |tx| {
            tx.execute(sql, ())?;
            tally::count(Counted::Started, 1);
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

    /// A writer, and what ends with it.
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
                // Now it waits for the thread.
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
    async fn an_engine_ends_if_nobody_acts_on_what_it_has_written() {
        let (writer, ending) = writer();
        let insert = execute_and_count("INSERT INTO numbers VALUES (1)");
        let written = writer.write(Lane::Requests, insert, |_| panic!("as told")).await;
        assert_eq!(written.expect("it is on disk"), 1);
        let error = ending.check().expect_err("it has ended").to_string();
        assert_eq!(error, "the engine has ended: what follows a commit panicked: as told");
        // Whoever winds up the engine can still write.
        assert_eq!(writer.write(Lane::First, count, |_| {}).await.expect("readable"), 1);
    }
}

//! The one thread that writes. Closures that wait together are committed together, and one that fails
//! takes nothing with it; each caller is answered after the commit. Nobody waits for company: a lone
//! write pays for one commit.
//!
//! A savepoint for each closure would have SQLite copy every page that it touches. So there is none
//! until one fails having changed something: then all is undone and done again, each in a savepoint
//! of its own. A closure that cannot be repeated has one from the start, and so has what follows it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result, StorageErrorKind};
use crate::metrics::{Counted, Meters, tally};

use super::{Tx, at, known, storage, undo_to};

/// Writes that wait for the thread; past this callers wait to be let in.
const QUEUE_MAX: usize = 1_024;
/// Writes that share a commit. More would gain little and keep the first of them waiting.
const BATCH_MAX: usize = 512;
/// When a batch has taken this long it is committed, whoever else waits.
const BATCH_TIME_MAX: Duration = Duration::from_millis(20);

/// When so many executions wait for a commit to start, a batch takes no longer than commits do: those start
/// while others are stored. So a slow disk has fewer commits. With fewer of them commits cost more than is
/// gained; with more the first wait for the last.
const BATCH_STARTS: u64 = 768;

/// The handle of the thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Box<dyn Job>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        connection: Connection,
        path: Option<Arc<Path>>,
        meters: Arc<Meters>,
    ) -> Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let thread = thread::Builder::new()
            .name("adjutant-writer".to_owned())
            .spawn(move || run(&connection, jobs, path.as_deref(), &meters))
            .map_err(|error| Error::Internal(format!("no thread for writing: {error}")))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Runs `op` in a transaction, and `then` once that is committed, whether or not anybody still
    /// waits for the answer. What `op` did may be undone before that, and `op` run again.
    pub(super) async fn write<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        self.queue(op, then, true).await
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
        self.queue(op, then, false).await
    }

    async fn queue<T, F, G>(&self, op: F, then: G, is_repeatable: bool) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(TypedJob { op, then, is_repeatable, result: None, reply });
        let queue = self.queue.as_ref().expect("taken only when dropped");
        queue.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread finishes what is queued and ends; the file must not be unlocked before.
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn gone() -> Error {
    Error::Internal("the writing thread has ended".to_owned())
}

/// A write with its type forgotten.
trait Job: Send {
    /// Does the work; the error if it failed and nothing of it may stay.
    fn run(&mut self, tx: Tx<'_>) -> Option<Error>;
    /// Forgets what it came to, which has been undone.
    fn forget(&mut self);
    /// Whether it can be run again after what it did has been undone.
    fn is_repeatable(&self) -> bool;
    /// Answers the caller; `lost` if the work was done and its commit failed.
    fn answer(self: Box<Self>, lost: Option<&Error>, path: Option<&Path>);
}

struct TypedJob<T, F, G> {
    op: F,
    then: G,
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
        let result = catch_unwind(AssertUnwindSafe(|| (self.op)(tx)))
            .unwrap_or_else(|_| Err(Error::Internal("a write panicked".to_owned())));
        let error = result.as_ref().err().cloned();
        self.result = Some(result);
        error
    }

    fn forget(&mut self) {
        self.result = None;
    }

    fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    fn answer(self: Box<Self>, lost: Option<&Error>, path: Option<&Path>) {
        let result = match (self.result, lost) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(error)) => Err(error.clone()),
            (Some(Ok(mut value)), None) => {
                (self.then)(&mut value);
                Ok(value)
            }
            (None, None) => Err(gone()),
        };
        let result = result.map_err(|error| match path {
            Some(path) => at(error, path),
            None => error,
        });
        // A caller that no longer waits has no use for the answer.
        let _ = self.reply.send(result);
    }
}

fn run(
    connection: &Connection,
    mut jobs: mpsc::Receiver<Box<dyn Job>>,
    path: Option<&Path>,
    meters: &Meters,
) {
    known::start();
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut commit_takes = Duration::ZERO;
    while let Some(first) = jobs.blocking_recv() {
        let committed = write_batch(connection, first, &mut jobs, &mut batch, commit_takes);
        let tally = tally::take();
        if let Ok(took) = committed {
            commit_takes = took;
            meters.committed(tally, batch.len(), took);
        }
        let lost = committed.err();
        for job in batch.drain(..) {
            job.answer(lost.as_ref(), path);
        }
    }
}

/// Writes what waits, in one commit; how long that took to come to disk, which took so long before.
fn write_batch(
    connection: &Connection,
    first: Box<dyn Job>,
    jobs: &mut mpsc::Receiver<Box<dyn Job>>,
    batch: &mut Vec<Box<dyn Job>>,
    commit_takes: Duration,
) -> Result<Duration> {
    let mut next = Some(first);
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        batch.extend(next);
        return Err(error);
    }
    let began = Instant::now();
    let mut apart = false;
    while let Some(job) = next {
        apart |= !job.is_repeatable();
        batch.push(job);
        if let Err(error) = write_last(connection, batch, &mut apart) {
            roll_back(connection);
            return Err(error);
        }
        let starts = tally::count_of(Counted::Started);
        let time_max = if starts < BATCH_STARTS { BATCH_TIME_MAX } else { commit_takes };
        let more = batch.len() < BATCH_MAX && began.elapsed() < time_max.min(BATCH_TIME_MAX);
        next = if more { jobs.try_recv().ok() } else { None };
    }
    let written = Instant::now();
    execute(connection, "COMMIT").inspect_err(|_| roll_back(connection))?;
    Ok(written.elapsed())
}

/// Runs the last job of a batch; an error here is one of the whole batch.
fn write_last(connection: &Connection, batch: &mut [Box<dyn Job>], apart: &mut bool) -> Result<()> {
    let Some((last, _)) = batch.split_last_mut() else { return Ok(()) };
    if *apart {
        return write_apart(connection, last.as_mut());
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
    execute(connection, "ROLLBACK")?;
    tally::take();
    known::forget_all();
    // All of it before any of it is done again: what one holds another may need.
    batch.iter_mut().for_each(|job| job.forget());
    execute(connection, "BEGIN IMMEDIATE")?;
    batch.iter_mut().try_for_each(|job| write_apart(connection, job.as_mut()))
}

/// Runs one job in a savepoint; an error here is one of the whole batch.
fn write_apart(connection: &Connection, job: &mut dyn Job) -> Result<()> {
    execute(connection, "SAVEPOINT job")?;
    let counted = tally::so_far();
    if let Some(error) = job.run(connection) {
        if connection.is_autocommit() {
            return Err(undone(error));
        }
        undo_to(connection, "job", counted)?;
    }
    execute(connection, "RELEASE job")
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
            let writer = Writer::start(connection, None, Arc::clone(&meters)).expect("a thread");
            // Held until there is nobody that could let go.
            let (let_go, held) = std::sync::mpsc::channel();
            let hold = move |_: Tx<'_>| {
                let _: std::result::Result<(), _> = held.recv();
                Ok(())
            };
            let sound = execute_and_count("INSERT INTO numbers VALUES (1)");
            let next = execute_and_count("INSERT INTO numbers VALUES (2)");
            let (held, first, failed, last, ()) = tokio::join!(
                writer.write(hold, |()| {}),
                writer.write(sound, |_| {}),
                writer.write(execute_and_count(fails), |_| {}),
                writer.write(next, |_| {}),
                async { drop(let_go) },
            );
            held.expect("nothing is wrong with it");
            assert_eq!((first.expect("sound"), last.expect("sound")), (1, 2), "{fails}");
            let error = failed.expect_err("as told").to_string();
            assert!(error.contains(why), "{fails}: {error}");
            let stored = writer.write(count, |_| {}).await.expect("readable");
            let metrics = meters.snapshot();
            assert_eq!((stored, metrics.started), (2, 2), "{fails}");
        };
        check("INSERT INTO numbers VALUES (10), (11), (1)", "UNIQUE").await;
        check("INSERT OR FAIL INTO numbers VALUES (10), (11), (1)", "UNIQUE").await;
        check("INSERT OR FAIL INTO numbers VALUES (10), (11), ('x')", "datatype").await;
        check("UPDATE OR FAIL numbers SET n = n / 0", "mismatch").await;
        check("no SQL", "syntax").await;
    }
}

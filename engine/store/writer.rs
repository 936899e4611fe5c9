//! The one thread that writes. Closures that wait together are committed together, each in its own
//! savepoint, so that one that fails takes nothing with it; each caller is answered after the
//! commit. Nobody waits for company: a lone write pays for one commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result, StorageErrorKind};
use crate::metrics::{Meters, tally};

use super::{Tx, at, storage};

/// Writes that wait for the thread; past this callers wait to be let in.
const QUEUE_MAX: usize = 1_024;
/// Writes that share a commit. More would gain little and keep the first of them waiting.
const BATCH_MAX: usize = 512;
/// When a batch has taken this long it is committed, whoever else waits.
const BATCH_TIME_MAX: Duration = Duration::from_millis(20);

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
    /// waits for the answer.
    pub(super) async fn write<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(TypedJob { op: Some(op), then, result: None, reply });
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
    /// Answers the caller; `lost` if the work was done and its commit failed.
    fn answer(self: Box<Self>, lost: Option<&Error>, path: Option<&Path>);
}

struct TypedJob<T, F, G> {
    op: Option<F>,
    then: G,
    result: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<T, F, G> Job for TypedJob<T, F, G>
where
    T: Send,
    F: FnOnce(Tx<'_>) -> Result<T> + Send,
    G: FnOnce(&T) + Send,
{
    fn run(&mut self, tx: Tx<'_>) -> Option<Error> {
        let op = self.op.take()?;
        let result = catch_unwind(AssertUnwindSafe(|| op(tx)))
            .unwrap_or_else(|_| Err(Error::Internal("a write panicked".to_owned())));
        let error = result.as_ref().err().cloned();
        self.result = Some(result);
        error
    }

    fn answer(self: Box<Self>, lost: Option<&Error>, path: Option<&Path>) {
        let result = match (self.result, lost) {
            (Some(Err(error)), _) => Err(error),
            (_, Some(error)) => Err(error.clone()),
            (Some(Ok(value)), None) => {
                (self.then)(&value);
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
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while let Some(first) = jobs.blocking_recv() {
        let committed = write_batch(connection, first, &mut jobs, &mut batch);
        let tally = tally::take();
        if let Ok(took) = committed {
            meters.committed(tally, batch.len(), took);
        }
        let lost = committed.err();
        for job in batch.drain(..) {
            job.answer(lost.as_ref(), path);
        }
    }
}

/// Writes what waits, in one commit; how long that took to come to disk.
fn write_batch(
    connection: &Connection,
    first: Box<dyn Job>,
    jobs: &mut mpsc::Receiver<Box<dyn Job>>,
    batch: &mut Vec<Box<dyn Job>>,
) -> Result<Duration> {
    let mut next = Some(first);
    if let Err(error) = execute(connection, "BEGIN IMMEDIATE") {
        batch.extend(next);
        return Err(error);
    }
    let began = Instant::now();
    while let Some(mut job) = next {
        let written = write_one(connection, job.as_mut());
        batch.push(job);
        if let Err(error) = written {
            roll_back(connection);
            return Err(error);
        }
        let more = batch.len() < BATCH_MAX && began.elapsed() < BATCH_TIME_MAX;
        next = if more { jobs.try_recv().ok() } else { None };
    }
    let written = Instant::now();
    execute(connection, "COMMIT").inspect_err(|_| roll_back(connection))?;
    Ok(written.elapsed())
}

/// Ends a transaction that cannot be committed; its first error is the one to report.
fn roll_back(connection: &Connection) {
    if !connection.is_autocommit() {
        let _ = execute(connection, "ROLLBACK");
    }
}

/// Runs one job in a savepoint; an error here is one of the whole batch.
fn write_one(connection: &Connection, job: &mut dyn Job) -> Result<()> {
    execute(connection, "SAVEPOINT job")?;
    let counted = tally::so_far();
    if let Some(error) = job.run(connection) {
        // A full disk or an I/O error may have ended the whole transaction, or the host's part.
        if connection.is_autocommit() {
            return Err(match error {
                Error::Storage(_) => error,
                _ => storage(StorageErrorKind::Busy, "a write that shared its commit undid it"),
            });
        }
        execute(connection, "ROLLBACK TO job")?;
        tally::back_to(counted);
    }
    execute(connection, "RELEASE job")
}

fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute(())?;
    Ok(())
}

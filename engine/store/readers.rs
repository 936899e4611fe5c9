//! The reading threads, as many as there are connections, and the reads that wait for them. The engine's own reads
//! have a lane of their own, so `wait`, watchers and loops go on however many listings the host asks for. No read
//! takes a thread of the host.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Error, Result};
use crate::panics::contain;

use super::Tx;
use super::connection::{self, Access};

/// Reads for calls of the host that may wait; further calls are refused. At a millisecond each, four threads need two
/// seconds for this many reads, which is as long as a caller waits for an answer.
const CALLS_MAX: usize = 8_192;
/// Reads of the engine itself that may be queued; further reads wait for room in the queue.
const OWN_MAX: usize = 1_024;

/// The lane of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadLane {
    /// A read of the engine itself, which waits as long as necessary.
    Own,
    /// A read for a call of the host, which is refused if too many wait.
    Calls,
}

/// The handle of the threads.
#[derive(Debug)]
pub(super) struct Readers {
    shared: Arc<Shared>,
    own_places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    path: Arc<Path>,
    access: Access,
    connections: r2d2::Pool<SqliteConnectionManager>,
    threads_max: usize,
    queue: Mutex<Queue>,
    /// Notified for each read that is queued.
    news: Condvar,
}

#[derive(Default)]
struct Queue {
    own: VecDeque<Box<dyn Job>>,
    calls: VecDeque<Box<dyn Job>>,
    /// Whether the last turn was the engine's own lane's.
    own_came_last: bool,
    threads: Vec<JoinHandle<()>>,
    /// Threads that wait for a read.
    idle: usize,
    closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} own reads, {} calls", self.own.len(), self.calls.len())
    }
}

impl Readers {
    /// Returns the reading threads of a file. Threads and connections begin when they are first needed.
    pub(super) fn new(path: &Arc<Path>, access: Access, max: u32) -> Self {
        let connections = connection::readers(path, access, max);
        let threads_max = usize::try_from(connections.max_size()).unwrap_or(usize::MAX);
        let shared = Arc::new(Shared {
            path: Arc::clone(path),
            access,
            connections,
            threads_max,
            queue: Mutex::default(),
            news: Condvar::new(),
        });
        Self { shared, own_places: Arc::new(Semaphore::new(OWN_MAX)) }
    }

    /// Runs `op` on one consistent view of the database.
    pub(super) async fn read<T, F>(&self, lane: ReadLane, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    {
        let place = match lane {
            ReadLane::Own => {
                let places = Arc::clone(&self.own_places);
                Some(places.acquire_owned().await.map_err(|_| gone())?)
            }
            ReadLane::Calls => None,
        };
        let (reply, answer) = oneshot::channel();
        self.shared.queue(lane, Box::new(TypedJob { op, reply, _place: place }))?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // No caller waits for the queued reads, because a caller that waits holds the store.
        let threads = {
            let mut queue = self.shared.lock();
            queue.closed = true;
            queue.own.clear();
            queue.calls.clear();
            std::mem::take(&mut queue.threads)
        };
        self.shared.news.notify_all();
        let this = thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this) {
            let _ = thread.join();
        }
    }
}

fn gone() -> Error {
    Error::Internal("the reading threads have ended".to_owned())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(self: &Arc<Self>, lane: ReadLane, job: Box<dyn Job>) -> Result<()> {
        let mut queue = self.lock();
        match lane {
            ReadLane::Own => queue.own.push_back(job),
            ReadLane::Calls => {
                if queue.calls.len() >= CALLS_MAX {
                    queue.calls.retain(|job| job.is_wanted());
                }
                if queue.calls.len() >= CALLS_MAX {
                    return Err(Error::Busy { waiting: CALLS_MAX });
                }
                queue.calls.push_back(job);
            }
        }
        let waiting = queue.own.len() + queue.calls.len();
        if waiting > queue.idle && queue.threads.len() < self.threads_max {
            let shared = Arc::clone(self);
            let started = thread::Builder::new()
                .name("adjutant-reader".to_owned())
                .spawn(move || shared.work());
            match started {
                Ok(thread) => queue.threads.push(thread),
                // The threads that exist do the work.
                Err(_) if !queue.threads.is_empty() => {}
                Err(error) => {
                    queue.own.clear();
                    queue.calls.clear();
                    return Err(Error::Internal(format!("no thread for reading: {error}")));
                }
            }
        }
        drop(queue);
        self.news.notify_one();
        Ok(())
    }

    /// The work of a thread: one read after another.
    fn work(&self) {
        while let Some(job) = self.next() {
            // No caller needs the payload of the panic.
            let _ = contain(|| self.run(job));
        }
    }

    fn next(&self) -> Option<Box<dyn Job>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.next() {
                return Some(job);
            }
            queue.idle += 1;
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn run(&self, job: Box<dyn Job>) {
        if !job.is_wanted() {
            return;
        }
        match self.connections.get() {
            Ok(mut connection) => job.run(Ok(&mut connection)),
            // The pool's error does not tell one kind of trouble from another.
            Err(_) => match connection::reader(&self.path, self.access) {
                Ok(mut connection) => job.run(Ok(&mut connection)),
                Err(error) => job.run(Err(error)),
            },
        }
    }
}

impl Queue {
    /// Returns the next read. If reads of both lanes wait, the lanes take turns.
    fn next(&mut self) -> Option<Box<dyn Job>> {
        let own = !self.own.is_empty() && (!self.own_came_last || self.calls.is_empty());
        self.own_came_last = own;
        if own { self.own.pop_front() } else { self.calls.pop_front() }
    }
}

/// A read with its type forgotten.
trait Job: Send {
    /// Returns whether a caller still waits for the answer.
    fn is_wanted(&self) -> bool;
    fn run(self: Box<Self>, connection: Result<&mut Connection>);
}

struct TypedJob<T, F> {
    op: F,
    reply: oneshot::Sender<Result<T>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<T, F> Job for TypedJob<T, F>
where
    T: Send,
    F: FnOnce(Tx<'_>) -> Result<T> + Send,
{
    fn is_wanted(&self) -> bool {
        !self.reply.is_closed()
    }

    fn run(self: Box<Self>, connection: Result<&mut Connection>) {
        let Self { op, reply, _place } = *self;
        let read = || {
            let snapshot = connection?.transaction()?;
            op(&snapshot)
        };
        let result =
            contain(read).unwrap_or_else(|_| Err(Error::Internal("a read panicked".to_owned())));
        // A caller that no longer waits has no use for the answer.
        let _ = reply.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrate;

    fn readers(folder: &Path, threads: u32) -> Readers {
        let path: Arc<Path> = folder.join("a.db").into();
        let mut connection = Connection::open(&path).expect("a new file");
        migrate::migrate(&mut connection, 1).expect("the tables");
        Readers::new(&path, Access::Shared, threads)
    }

    /// Holds the only thread until the sender is gone.
    fn hold(
        readers: &Arc<Readers>,
    ) -> (std::sync::mpsc::Sender<()>, impl Future<Output = ()> + use<>) {
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let readers = Arc::clone(readers);
        let holds = async move {
            let op = move |_: Tx<'_>| {
                let _: std::result::Result<(), _> = held.recv();
                Ok(())
            };
            readers.read(ReadLane::Own, op).await.expect("nothing is wrong with it");
        };
        (let_go, holds)
    }

    #[tokio::test]
    async fn calls_past_the_queue_are_refused_and_the_engine_itself_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let readers = Arc::new(readers(folder.path(), 1));
        let (let_go, holds) = hold(&readers);
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |lane: ReadLane| {
            let order = Arc::clone(&order);
            readers.read(lane, move |_| {
                order.lock().expect("no panic").push(lane);
                Ok(())
            })
        };
        let mut holds = Box::pin(holds);
        let mut calls: Vec<_> = (0..CALLS_MAX).map(|_| Box::pin(note(ReadLane::Calls))).collect();
        let waker = std::task::Waker::noop();
        let mut cx = std::task::Context::from_waker(waker);
        assert!(holds.as_mut().poll(&mut cx).is_pending());
        for call in &mut calls {
            assert!(call.as_mut().poll(&mut cx).is_pending());
        }
        let refused = note(ReadLane::Calls).await.expect_err("too many wait");
        assert!(matches!(refused, Error::Busy { waiting: CALLS_MAX }), "{refused}");
        let mut own: Vec<_> = (0..3).map(|_| Box::pin(note(ReadLane::Own))).collect();
        for one in &mut own {
            assert!(one.as_mut().poll(&mut cx).is_pending());
        }
        // Reads without a waiting caller are not run.
        calls.truncate(2);
        drop(let_go);
        holds.await;
        for one in own {
            one.await.expect("readable");
        }
        for call in calls {
            call.await.expect("readable");
        }
        let order = order.lock().expect("no panic").clone();
        assert_eq!(order.iter().filter(|lane| **lane == ReadLane::Own).count(), 3);
        assert_eq!(order.len(), 5, "{order:?}");
        assert_eq!(
            order[..2].iter().filter(|lane| **lane == ReadLane::Own).count(),
            1,
            "{order:?}"
        );
    }

    #[tokio::test]
    async fn a_read_that_panics_is_an_error_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let readers = readers(folder.path(), 1);
        let panics = |_: Tx<'_>| -> Result<()> { panic!("as told") };
        let error = readers.read(ReadLane::Calls, panics).await.expect_err("it panics");
        assert!(error.to_string().contains("a read panicked"), "{error}");
        let count = |tx: Tx<'_>| {
            Ok(tx.query_row("SELECT count(*) FROM executions", (), |row| row.get::<_, i64>(0))?)
        };
        assert_eq!(readers.read(ReadLane::Calls, count).await.expect("the thread goes on"), 0);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let path: Arc<Path> = folder.path().join("none.db").into();
        let readers = Readers::new(&path, Access::Shared, 2);
        let error = readers.read(ReadLane::Own, |_| Ok(())).await.expect_err("there is no file");
        assert_eq!(error.code(), "Storage.CannotOpen", "{error}");
    }
}

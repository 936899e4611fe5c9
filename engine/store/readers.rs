//! The reading threads, as many as there are connections, and the reads that wait for them. The engine's own reads
//! have a lane of their own, so `wait`, watchers and loops go on however many listings the host asks for. No read
//! takes a thread of the host.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::ending::Ending;
use crate::error::{Error, Result};
use crate::panics::contain;

use super::Tx;
use super::connection::{self, Access};
use super::look::Look;
use super::memory::Memory;

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
    /// Whether this process runs the file.
    is_own: AtomicBool,
    threads_max: usize,
    /// Says why a read that comes after the close is refused.
    ending: Arc<Ending>,
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
    /// Whether threads are to end once no read is queued.
    is_ending: bool,
    /// Whether no more reads are taken.
    is_closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} own reads, {} calls", self.own.len(), self.calls.len())
    }
}

impl Readers {
    /// Returns the reading threads of a file. `is_own` says whether this process runs the file. Threads and connections
    /// begin when they are first needed.
    pub(super) fn new(path: &Arc<Path>, is_own: bool, max: u32, ending: &Arc<Ending>) -> Self {
        let shared = Arc::new(Shared {
            path: Arc::clone(path),
            is_own: AtomicBool::new(is_own),
            threads_max: usize::try_from(max.max(1)).unwrap_or(usize::MAX),
            ending: Arc::clone(ending),
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
                Some(places.acquire_owned().await.map_err(|_| self.shared.ending.error())?)
            }
            ReadLane::Calls => None,
        };
        let (reply, answer) = oneshot::channel();
        self.shared.queue(lane, Box::new(TypedJob { op, reply, _place: place }))?;
        answer.await.map_err(|_| self.shared.ending.error())?
    }

    /// Closes all connections once the reads that are queued are done. Blocks until then.
    pub(super) fn close(&self) {
        self.shared.lock().is_closed = true;
        self.end_threads();
    }

    /// Closes all connections once the reads that are queued are done, because this process runs the file no longer.
    /// Later reads look at the file. Blocks.
    pub(super) fn let_go(&self) {
        let is_closed = self.shared.lock().is_closed;
        if is_closed || !self.shared.is_own.swap(false, Ordering::AcqRel) {
            return;
        }
        self.end_threads();
        let mut queue = self.shared.lock();
        queue.is_ending = false;
        if queue.own.len() + queue.calls.len() > 0 {
            // Reads have come meanwhile. If no thread can be had, their callers get the error.
            let _ = self.shared.start_thread(&mut queue);
        }
    }

    fn end_threads(&self) {
        let threads = {
            let mut queue = self.shared.lock();
            queue.is_ending = true;
            std::mem::take(&mut queue.threads)
        };
        self.shared.news.notify_all();
        let this = thread::current().id();
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != this) {
            let _ = thread.join();
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        {
            let mut queue = self.shared.lock();
            // No caller waits for the queued reads, because a caller that waits holds the store.
            queue.own.clear();
            queue.calls.clear();
        }
        self.close();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(self: &Arc<Self>, lane: ReadLane, job: Box<dyn Job>) -> Result<()> {
        let mut queue = self.lock();
        if queue.is_closed {
            return Err(self.ending.error());
        }
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
        // Threads that are ending finish what is queued, or `let_go` starts another.
        let may_start = !queue.is_ending && queue.threads.len() < self.threads_max;
        if waiting > queue.idle && may_start {
            self.start_thread(&mut queue)?;
        }
        drop(queue);
        self.news.notify_one();
        Ok(())
    }

    fn start_thread(self: &Arc<Self>, queue: &mut Queue) -> Result<()> {
        let shared = Arc::clone(self);
        let started =
            thread::Builder::new().name("adjutant-reader".to_owned()).spawn(move || shared.work());
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
        Ok(())
    }

    /// The work of a thread: one read after another.
    fn work(&self) {
        let mut kept = None;
        while let Some(job) = self.next() {
            // No caller needs the payload of the panic.
            if contain(|| self.serve(job, &mut kept)).is_ok_and(|goes_on| !goes_on) {
                return;
            }
        }
    }

    /// Serves a read. Returns whether the thread is to go on.
    fn serve(&self, job: Box<dyn Job>, kept: &mut Option<Kept>) -> bool {
        if !job.is_wanted() {
            return true;
        }
        let connection = self.connect(kept);
        let job = if connection.is_ok() { Some(job) } else { self.leave_to_others(job) };
        let Some(job) = job else { return false };
        job.run(connection, &self.path);
        true
    }

    /// Leaves a read to the other threads, because this thread gets no connection; the thread is to end then. Gives the
    /// read back if there is no other thread: its caller is told the error.
    fn leave_to_others(&self, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let mut queue = self.lock();
        if queue.threads.len() <= 1 {
            return Some(job);
        }
        let own = thread::current().id();
        queue.threads.retain(|thread| thread.thread().id() != own);
        // The read had its turn already.
        queue.own.push_front(job);
        drop(queue);
        self.news.notify_one();
        None
    }

    fn next(&self) -> Option<Box<dyn Job>> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.next() {
                return Some(job);
            }
            if queue.is_ending {
                return None;
            }
            queue.idle += 1;
            queue = self.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    /// Returns the connection that the thread has kept, or a new one.
    fn connect<'a>(&self, kept: &'a mut Option<Kept>) -> Result<&'a mut Kept> {
        if matches!(kept, Some(Kept::Look(look)) if !look.is_current(&self.path)) {
            *kept = None;
        }
        match kept {
            Some(kept) => Ok(kept),
            None => Ok(kept.insert(self.open()?)),
        }
    }

    fn open(&self) -> Result<Kept> {
        match self.is_own.load(Ordering::Acquire) {
            true => Ok(Kept::Own(connection::reader(&self.path, Access::Own)?)),
            false => Ok(Kept::Look(Look::at(&self.path)?)),
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

/// The connection of a thread.
enum Kept {
    /// To the file that this process runs.
    Own(Connection),
    Look(Look),
}

impl Kept {
    fn connection(&mut self) -> &mut Connection {
        match self {
            Self::Own(connection) => connection,
            Self::Look(look) => &mut look.connection,
        }
    }

    /// Checks that a read has seen one state of the file.
    fn check(&self, path: &Path) -> Result<()> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Look(look) => look.check(path),
        }
    }
}

/// A read with its type forgotten.
trait Job: Send {
    /// Returns whether a caller still waits for the answer.
    fn is_wanted(&self) -> bool;
    fn run(self: Box<Self>, connection: Result<&mut Kept>, path: &Path);
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

    fn run(self: Box<Self>, connection: Result<&mut Kept>, path: &Path) {
        let Self { op, reply, _place } = *self;
        let read = || {
            let kept = connection?;
            let snapshot = kept.connection().transaction()?;
            let memory = Memory::of_reader();
            let read = op(Tx::new(&snapshot, &memory));
            drop(snapshot);
            kept.check(path)?;
            read
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
        Readers::new(&path, true, threads, &Arc::default())
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
        let count =
            |tx: Tx<'_>| tx.one("SELECT count(*) FROM executions", (), |row| row.get::<_, i64>(0));
        assert_eq!(readers.read(ReadLane::Calls, count).await.expect("the thread goes on"), 0);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_opened_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let path: Arc<Path> = folder.path().join("none.db").into();
        for is_own in [true, false] {
            let readers = Readers::new(&path, is_own, 2, &Arc::default());
            let error =
                readers.read(ReadLane::Own, |_| Ok(())).await.expect_err("there is no file");
            assert_eq!(error.code(), "Storage.CannotOpen", "{error}");
        }
    }
}

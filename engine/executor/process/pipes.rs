//! The two outputs of a process: read as they come, and not waited for longer than makes sense.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Sleep;

use super::{ExecutionContext, kernel};
use crate::output::Stream;
use crate::panics::tell;

/// Bytes taken in one read: all that a pipe of the usual size holds.
const READ_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a run may print before it has to wait for a turn, and that a turn is good for.
const TURN_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long a turn lasts at most, however little comes: time of the machine, whatever the clock says.
const TURN_MAX: Duration = Duration::from_millis(5);
/// Bytes that a pipe may hold when its process ends: the kernel's own default limit.
const PIPE_BYTES_MAX: usize = 1024 * 1024;
/// Once the process has ended: how long a silent pipe is listened to. A descendant that holds it
/// and has said nothing for so long is a server left running, not the end of a pipeline.
const SILENCE_MAX: Duration = Duration::from_millis(250);
/// Once the process has ended: how long a pipe is listened to at all.
const DRAIN_MAX: Duration = Duration::from_secs(5);

thread_local! {
    /// Where reads go. One for each thread that polls, not one for each run: thousands of runs wait
    /// for output at a time, and a thread reads for one of them.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES_MAX].into());
}

/// Turns at printing much. Whoever waits for one is not read, so its process soon waits too; else those
/// that print without end would take the processors from all others. Half of the processors are for them.
static TURNS: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    Semaphore::new((processors / 2).max(1))
});

/// The reading ends of both outputs.
#[derive(Debug)]
pub(super) struct Pipes {
    /// That first which was read last: what it has now most likely came before what the other has.
    pipes: [Pipe; 2],
    /// Bytes left until it has to wait for a turn.
    turn_bytes: usize,
    /// Held back from others until then.
    turn: Option<Turn>,
}

#[derive(Debug)]
struct Turn {
    _permit: SemaphorePermit<'static>,
    end: Pin<Box<Sleep>>,
}

impl Pipes {
    /// Takes the reading ends of standard output and of standard error.
    ///
    /// # Errors
    ///
    /// If the runtime cannot watch them.
    pub(super) fn new([stdout, stderr]: [OwnedFd; 2]) -> io::Result<Self> {
        let pipes = [Pipe::new(Stream::Stdout, stdout)?, Pipe::new(Stream::Stderr, stderr)?];
        Ok(Self { pipes, turn_bytes: TURN_BYTES_MAX, turn: None })
    }

    /// Reads until `work` is done.
    pub(super) async fn read_during<T>(
        &mut self,
        work: impl Future<Output = T>,
        cx: &ExecutionContext,
    ) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                () = self.read_in_turn(cx), if self.is_open() => {}
            }
        }
    }

    /// Reads the output that a process which has ended left in its pipes, and gives processes that
    /// inherited the pipes a moment to finish. Returns the pipes that a process holds after that.
    pub(super) async fn drain(mut self, cx: &ExecutionContext) -> Option<Cut> {
        self.turn = None;
        // Whatever the clock says: what the process itself wrote is never lost.
        for pipe in &mut self.pipes {
            pipe.read_present(cx);
        }
        if !self.is_open() {
            return None;
        }
        let mut limit = cx.sleep(DRAIN_MAX);
        while self.is_open() {
            tokio::select! {
                biased;
                () = &mut limit => return Some(self.cut(Why::Limit)),
                _ = self.read(cx) => {}
                () = cx.sleep(SILENCE_MAX) => return Some(self.cut(Why::Silence)),
            }
        }
        None
    }

    fn cut(self, why: Why) -> Cut {
        let mut pipes = self.pipes;
        pipes.sort_by_key(|pipe| pipe.stream == Stream::Stderr);
        let held = |pipe: Pipe| Some((pipe.stream, pipe.fd?.into_inner()));
        Cut { why, held: pipes.into_iter().filter_map(held).collect() }
    }

    fn is_open(&self) -> bool {
        self.pipes.iter().any(|pipe| pipe.fd.is_some())
    }

    /// Reads once, or ends the turn if nothing comes; waits for a turn before, if it needs one.
    async fn read_in_turn(&mut self, cx: &ExecutionContext) {
        if self.turn_bytes == 0 {
            self.wait_for_turn().await;
        }
        let mut turn = self.turn.take();
        let end = async {
            match &mut turn {
                Some(turn) => turn.end.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            bytes = self.read(cx) => {
                self.turn_bytes = self.turn_bytes.saturating_sub(bytes);
                self.turn = turn;
            }
            () = end => {}
        }
    }

    async fn wait_for_turn(&mut self) {
        self.turn = None;
        // Those first who run on this thread; and then, as turns are given in order, those who wait for one.
        tokio::task::yield_now().await;
        // Nobody closes them; without, it would go on all the same.
        let permit = TURNS.acquire().await.ok();
        self.turn = permit
            .map(|permit| Turn { _permit: permit, end: Box::pin(tokio::time::sleep(TURN_MAX)) });
        self.turn_bytes = TURN_BYTES_MAX;
    }

    /// Waits until there is something to read, and reads from each pipe once.
    async fn read(&mut self, cx: &ExecutionContext) -> usize {
        std::future::poll_fn(|task| self.poll_read(task, cx)).await
    }

    fn poll_read(&mut self, task: &mut Context<'_>, cx: &ExecutionContext) -> Poll<usize> {
        let [first, second] = &mut self.pipes;
        // Looked at before the first is read: what came there earlier is then read earlier.
        let second_came = second.poll_ready(task).is_ready();
        let read = match first.poll_read(task, cx) {
            // The runtime may not have heard of it yet.
            Poll::Pending if second_came => first.read_now(cx).map_or(Poll::Pending, Poll::Ready),
            read => read,
        };
        if !second_came {
            return read;
        }
        match (read, second.poll_read(task, cx)) {
            (read, Poll::Pending) => read,
            (read, Poll::Ready(bytes)) => {
                self.pipes.swap(0, 1);
                let before = if let Poll::Ready(before) = read { before } else { 0 };
                Poll::Ready(before + bytes)
            }
        }
    }
}

/// Pipes that a process holds and whose output goes to the record no longer.
#[derive(Debug)]
pub(super) struct Cut {
    pub why: Why,
    /// The reading ends, the one of standard output first.
    pub held: Vec<(Stream, OwnedFd)>,
}

/// Why the output of a pipe was cut.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why {
    /// No output came for `SILENCE_MAX`.
    Silence,
    /// The pipe was read for `DRAIN_MAX`.
    Limit,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silence => write!(f, "after {} ms of silence", SILENCE_MAX.as_millis()),
            Self::Limit => write!(f, "{} s after its end", DRAIN_MAX.as_secs()),
        }
    }
}

#[derive(Debug)]
struct Pipe {
    stream: Stream,
    /// `None` once it has ended.
    fd: Option<AsyncFd<OwnedFd>>,
}

impl Pipe {
    fn new(stream: Stream, fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        Ok(Self { stream, fd: Some(kernel::readable(fd)?) })
    }

    /// Whether there is something to read. Wakes the task once there is.
    fn poll_ready(&self, task: &mut Context<'_>) -> Poll<()> {
        let Some(fd) = &self.fd else { return Poll::Pending };
        fd.poll_read_ready(task).map(drop)
    }

    /// Reads once, as soon as there is something; 0 bytes at the end.
    fn poll_read(&mut self, task: &mut Context<'_>, cx: &ExecutionContext) -> Poll<usize> {
        let read = loop {
            let Some(fd) = &self.fd else { return Poll::Pending };
            let mut ready = match ready!(fd.poll_read_ready(task)) {
                Ok(ready) => ready,
                Err(error) => break Err(error),
            };
            match read(fd, self.stream, cx) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Ok(bytes) => {
                    // It had no more. What comes now makes it ready again, and so does its end.
                    if (1..READ_BYTES_MAX).contains(&bytes) {
                        ready.clear_ready();
                    }
                    break Ok(bytes);
                }
                Err(error) => break Err(error.into()),
            }
        };
        Poll::Ready(self.account(read))
    }

    /// Reads once, around the runtime; nothing if there is nothing.
    fn read_now(&mut self, cx: &ExecutionContext) -> Option<usize> {
        match read(self.fd.as_ref()?, self.stream, cx) {
            Err(Errno::AGAIN) => None,
            read => Some(self.account(read.map_err(io::Error::from))),
        }
    }

    /// Reads what is there without waiting, but not for ever after a writer that goes on.
    fn read_present(&mut self, cx: &ExecutionContext) {
        let mut left = PIPE_BYTES_MAX;
        while left > 0
            && let Some(bytes) = self.read_now(cx)
        {
            left = left.saturating_sub(bytes);
        }
    }

    /// The bytes that a read brought. Closes a pipe that has ended.
    fn account(&mut self, read: io::Result<usize>) -> usize {
        let bytes = read.unwrap_or_else(|error| {
            tell(|| tracing::warn!(%error, stream = ?self.stream, "output cannot be read on"));
            0
        });
        if bytes == 0 {
            self.fd = None;
        }
        bytes
    }
}

fn read(fd: &AsyncFd<OwnedFd>, stream: Stream, cx: &ExecutionContext) -> rustix::io::Result<usize> {
    BUFFER.with_borrow_mut(|buffer| {
        let bytes = rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut buffer[..]))?;
        if bytes > 0 {
            cx.print(stream, &buffer[..bytes]);
        }
        Ok(bytes)
    })
}

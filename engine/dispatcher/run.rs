//! One execution from its start to its end: the executor's work, against its timeout and a stop.

use std::any::Any;
use std::future::{self, Future};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::instrument::Instrumented;

use super::trace::Start;
use crate::clock::{Clock, Sleep};
use crate::execution::{Outcome, StopReason};
use crate::executor::{Contact, Execute, ExecutionContext, Surroundings};
use crate::id::ExecutionId;

/// How much longer than the grace period an executor may take to see a stop through: to look for what
/// it has to end, to wait up to 5 s for what was killed, twice that with a cgroup, to drain pipes for as long
/// again, and to leave the cgroup.
const STOP_MARGIN: Duration = Duration::from_secs(25);

/// Executions that take turns in a task.
const TURNS_MAX: usize = 32;
/// How long they may: longer than what does next to nothing takes, shorter than anybody notices.
const TURNS_TIME_MAX: Duration = Duration::from_micros(100);

/// An executor's work, which has so much time. Once that is up it is asked to stop; an executor that does
/// not is dropped. Without an outcome it has been let go of.
///
/// Written out: thousands of these run at a time, and as an `async fn` each would be ten times as large.
pub(super) struct Run {
    /// None once it has ended.
    work: Option<Execute>,
    /// Its start, until that is told.
    start: Option<Start>,
    /// When that was, by the monotonic clock.
    began: Duration,
    timeout: Duration,
    /// Until when it may work; once it has been asked to stop, until when it may take for that.
    time: Option<Sleep>,
    is_stopping: bool,
    contact: Arc<Contact>,
    surroundings: Arc<Surroundings>,
}

impl Run {
    /// Nothing happens before it is polled.
    pub(super) fn new(
        work: Execute,
        cx: ExecutionContext,
        timeout: Duration,
        start: Start,
    ) -> Self {
        let ExecutionContext { contact, surroundings, .. } = cx;
        Self {
            work: Some(work),
            start: Some(start),
            began: Duration::ZERO,
            timeout,
            time: None,
            is_stopping: false,
            contact,
            surroundings,
        }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let Surroundings { clock, stop_grace, .. } = &*self.surroundings;
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        if self.contact.is_let_go() {
            return Poll::Ready(None);
        }
        if let Some(start) = self.start.take() {
            self.began = start.tell(&**clock);
        }
        let patience = stop_grace.saturating_add(STOP_MARGIN);
        loop {
            // What is done is done, even if its time is up in the same instant.
            if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            // Before the looks: what comes after them is heard.
            self.contact.wake_with(cx.waker());
            if self.contact.is_let_go() {
                return Poll::Ready(None);
            }
            if !self.is_stopping && self.contact.order().is_some() {
                self.is_stopping = true;
                self.time = Some(clock.sleep(patience));
            }
            // Much is done at once, and needs no timer. What is not may have taken long already.
            let time = self.time.get_or_insert_with(|| {
                let took = clock.monotonic().saturating_sub(self.began);
                clock.sleep(self.timeout.saturating_sub(took))
            });
            ready!(time.as_mut().poll(cx));
            if self.is_stopping {
                break;
            }
            self.contact.ask_to_stop(&StopReason::Timeout.into());
        }
        // What has a keeper goes on without its executor.
        self.contact.report(|report| report.is_lost = report.is_kept);
        Poll::Ready(Some(Outcome::Broke {
            info: format!(
                "the executor was asked to stop and did not return within {} s; it was dropped",
                patience.as_secs()
            ),
        }))
    }

    /// Drops the executor's part, and says that it has ended.
    fn end(&mut self) {
        // However the executor takes it.
        let _end = End(&self.contact);
        drop(self.work.take());
    }
}

impl Future for Run {
    type Output = Option<Outcome>;

    /// An executor that panics ends its execution, and nothing else.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let run = self.get_mut();
        let polled = panic::catch_unwind(AssertUnwindSafe(|| run.go_on(cx)));
        let outcome = ready!(polled.unwrap_or_else(|panic| Poll::Ready(Some(broke(&*panic)))));
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| run.end()));
        Poll::Ready(dropped.map_or_else(|panic| Some(broke(&*panic)), |()| outcome))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.work.is_some() {
            self.end();
        }
    }
}

/// Says so when the executor's part has ended.
struct End<'a>(&'a Contact);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Tells the loop how a run ended. One that is dropped, or let go of, has not ended anything: what it watched
/// over may go on.
pub(super) struct Followed {
    pub id: ExecutionId,
    pub run: Instrumented<Run>,
    pub endings: mpsc::UnboundedSender<(ExecutionId, Outcome)>,
}

impl Future for Followed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(outcome) = ready!(Pin::new(&mut self.run).poll(cx)) {
            // It fails only once the loop is gone.
            let _ = self.endings.send((self.id, outcome));
        }
        Poll::Ready(())
    }
}

/// Starts executions. Those that are done at once take turns in one task, which saves most of what a task
/// costs; from the first on that is not, each has one of its own.
pub(super) fn start_all(runs: Vec<Followed>, clock: &Arc<dyn Clock>) {
    let mut runs = runs.into_iter();
    while runs.len() > 0 {
        // What becomes of them comes through their contacts and their endings.
        match runs.len() {
            1 => runs.by_ref().for_each(|run| drop(tokio::spawn(run))),
            _ => {
                let some = runs.by_ref().take(TURNS_MAX).collect();
                drop(tokio::spawn(take_turns(some, Arc::clone(clock))));
            }
        }
    }
}

async fn take_turns(runs: Vec<Followed>, clock: Arc<dyn Clock>) {
    let mut runs = runs.into_iter();
    let began = clock.monotonic();
    for mut run in runs.by_ref() {
        let is_done = future::poll_fn(|cx| Poll::Ready(Pin::new(&mut run).poll(cx).is_ready()));
        if !is_done.await {
            drop(tokio::spawn(run));
            break;
        }
        if clock.monotonic().saturating_sub(began) > TURNS_TIME_MAX {
            break;
        }
    }
    runs.for_each(|run| drop(tokio::spawn(run)));
}

/// The end of an executor that panicked.
fn broke(payload: &(dyn Any + Send)) -> Outcome {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    Outcome::Broke { info: format!("the executor panicked: {}", text.unwrap_or("no message")) }
}

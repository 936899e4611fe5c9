//! One execution from its start to its end: the executor's work, against its timeout and a stop.

use std::any::Any;
use std::future::{self, Future};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;

use super::trace::Start;
use crate::execution::{Outcome, StopReason};
use crate::executor::{Contact, Execute, ExecutionContext};
use crate::id::ExecutionId;

/// How much longer than the grace period an executor may take to see a stop through: to look for what
/// it has to end, to wait up to 5 s for what was killed, twice that with a cgroup, to drain pipes for as long
/// again, and to leave the cgroup.
const STOP_MARGIN: Duration = Duration::from_secs(25);

/// Follows an executor's work, which has this context and so much time. Once that is up it is asked to stop;
/// an executor that does not is dropped. No outcome: it has been let go of.
pub(super) async fn run(
    work: Execute,
    cx: ExecutionContext,
    timeout: Duration,
    start: Start,
) -> Option<Outcome> {
    if cx.contact.is_let_go() {
        return None;
    }
    let began = start.tell(&*cx.clock);
    // Dropped after the work.
    let _end = End(Arc::clone(&cx.contact));
    let mut work = work;
    // Much is done at once, and needs no timer.
    if let Poll::Ready(outcome) = future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        return Some(outcome);
    }
    // That may have taken long.
    let left = timeout.saturating_sub(cx.clock.monotonic().saturating_sub(began));
    tokio::select! {
        biased;
        () = cx.contact.has_been_let_go() => return None,
        // What is done is done, even if its time is up in the same instant.
        outcome = &mut work => return Some(outcome),
        _ = cx.stop_asked() => {}
        () = cx.sleep(left) => cx.contact.ask_to_stop(&StopReason::Timeout.into()),
    }
    let patience = cx.stop_grace().saturating_add(STOP_MARGIN);
    tokio::select! {
        biased;
        () = cx.contact.has_been_let_go() => None,
        outcome = &mut work => Some(outcome),
        () = cx.sleep(patience) => {
            // What has a keeper goes on without its executor.
            cx.report(|report| report.is_lost = report.is_kept);
            Some(Outcome::Broke {
                info: format!(
                    "the executor was asked to stop and did not return within {} s; it was dropped",
                    patience.as_secs()
                ),
            })
        }
    }
}

/// Says so when the executor's part ends, or is dropped.
struct End(Arc<Contact>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Tells the loop how an execution ended, whatever becomes of its task.
pub(super) struct Ending {
    id: ExecutionId,
    outcome: Option<Outcome>,
    endings: mpsc::UnboundedSender<(ExecutionId, Outcome)>,
}

impl Ending {
    pub(super) fn new(
        id: ExecutionId,
        endings: mpsc::UnboundedSender<(ExecutionId, Outcome)>,
    ) -> Self {
        Self { id, outcome: None, endings }
    }

    /// Follows the work to its end.
    pub(super) async fn follow(mut self, work: impl Future<Output = Option<Outcome>>) {
        self.outcome = contain(work).await;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // A task that is dropped, or let go of, has not ended anything: what it watched over may go on.
        let broke = thread::panicking()
            .then(|| Outcome::Broke { info: "the executor panicked".to_owned() });
        let Some(outcome) = self.outcome.take().or(broke) else { return };
        // It fails only once the loop is gone.
        let _ = self.endings.send((self.id, outcome));
    }
}

/// Lets an executor that panics end its execution, and nothing else.
async fn contain(work: impl Future<Output = Option<Outcome>>) -> Option<Outcome> {
    let mut work = pin!(work);
    let ended = future::poll_fn(|cx| {
        let polled = panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        polled.map_or_else(|panic| Err(panic).into(), |polled| polled.map(Ok))
    });
    ended.await.unwrap_or_else(|panic| Some(Outcome::Broke { info: panic_message(&*panic) }))
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("the executor panicked: {}", text.unwrap_or("no message"))
}

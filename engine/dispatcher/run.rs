//! One execution from its start to its end: the executor's work, against its timeout and a stop.

use std::any::Any;
use std::future::{self, Future};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::admission::Admission;
use super::trace::Start;
use crate::execution::{Outcome, StopOrder, StopReason};
use crate::executor::{DynExecutor, ExecutionContext, Task, ask_to_stop};
use crate::id::ExecutionId;

/// How much longer than the grace period an executor may take to see a stop through: to look for what
/// it has to end, to wait up to 5 s for what was killed, twice that with a cgroup, to drain pipes for as long
/// again, and to leave the cgroup.
const STOP_MARGIN: Duration = Duration::from_secs(25);

/// Carries out a task. If its time is up it is asked to stop; an executor that does not is dropped.
pub(super) async fn run(
    executor: Arc<dyn DynExecutor>,
    admission: Option<Admission>,
    task: Task,
    cx: ExecutionContext,
    stop: Arc<watch::Sender<Option<StopOrder>>>,
    start: Start,
) -> Outcome {
    start.tell(&*cx.clock);
    let timeout = task.timeout();
    let mut work = match admission {
        None => executor.execute(task, cx.clone()),
        Some(admission) => Box::pin(admission.execute(Arc::clone(&executor), task, cx.clone())),
    };
    tokio::select! {
        // What is done is done, even if its time is up in the same instant.
        biased;
        outcome = &mut work => return outcome,
        _ = cx.stop_asked() => {}
        () = cx.sleep(timeout) => ask_to_stop(&stop, &StopReason::Timeout.into()),
    }
    let patience = cx.stop_grace().saturating_add(STOP_MARGIN);
    tokio::select! {
        biased;
        outcome = &mut work => outcome,
        () = cx.sleep(patience) => {
            // What has a keeper goes on without its executor.
            cx.report(|report| report.is_lost = report.is_kept);
            Outcome::Broke {
                info: format!(
                    "the executor was asked to stop and did not return within {} s; it was dropped",
                    patience.as_secs()
                ),
            }
        }
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
    pub(super) async fn follow(mut self, work: impl Future<Output = Outcome>) {
        self.outcome = Some(contain(work).await);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        // A task that is dropped has not ended anything: what it watched over may go on.
        let broke = thread::panicking()
            .then(|| Outcome::Broke { info: "the executor panicked".to_owned() });
        let Some(outcome) = self.outcome.take().or(broke) else { return };
        // It fails only once the loop is gone.
        let _ = self.endings.send((self.id, outcome));
    }
}

/// Lets an executor that panics end its execution, and nothing else.
async fn contain(work: impl Future<Output = Outcome>) -> Outcome {
    let mut work = pin!(work);
    let ended = future::poll_fn(|cx| {
        let polled = panic::catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
        polled.map_or_else(|panic| Err(panic).into(), |polled| polled.map(Ok))
    });
    ended.await.unwrap_or_else(|panic| Outcome::Broke { info: panic_message(&*panic) })
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("the executor panicked: {}", text.unwrap_or("no message"))
}

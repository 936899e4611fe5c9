//! One execution from its start to its end: the executor's work, against its timeout and a stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::admission::Admission;
use super::trace::Start;
use crate::execution::{Outcome, StopOrder, StopReason};
use crate::executor::{DynExecutor, ExecutionContext, Task, ask_to_stop};

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

//! What is told of executions while they are at work: times to the meters, a span and events to `tracing`.

use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use super::Running;
use crate::metrics::{Measured, Meters};
use crate::panics::{contain, tell};
use crate::status::ExecutionStatus;

/// The span of an execution, in which its executor works.
pub(super) fn span(running: &Running) -> Span {
    let span = contain(|| {
        tracing::info_span!(
            "execution",
            invoke_id = %running.job().invoke_id,
            execution_id = %running.id,
            instance_id = %running.instance_id(),
            attempt = running.attempt,
        )
    });
    span.unwrap_or_else(|_| Span::none())
}

/// The start of an execution that is about to be handed to its executor.
#[derive(Default)]
pub(super) struct Start {
    meters: Arc<Meters>,
    /// When its claim came to disk, by the monotonic clock; none of what goes on from before.
    claimed: Option<Duration>,
}

impl Start {
    pub(super) fn new(meters: &Arc<Meters>, running: &Running, claimed: Option<Duration>) -> Self {
        if claimed.is_some() && running.attempt == 1 {
            meters.time_between(Measured::Queue, running.of.dealt_at_ms, running.started_at_ms);
        }
        Self { meters: Arc::clone(meters), claimed }
    }

    /// Traces the call of the executor, at this monotonic time.
    pub(super) fn tell(self, now: Duration) {
        if let Some(claimed) = self.claimed {
            self.meters.time(Measured::StartDelay, now.saturating_sub(claimed));
        }
        tell(|| tracing::debug!(resumed = self.claimed.is_none(), "the executor is called"));
    }
}

/// Claims are on disk: of so many executions, and of so many fires.
pub(super) fn tell_claim(count: usize, fires: usize) {
    if count > 0 {
        tell(|| tracing::debug!(count, fires, "executions are claimed"));
    }
}

/// The end of an execution is on disk.
pub(super) fn tell_end(running: &Running, status: ExecutionStatus, finished_at_ms: i64) {
    tell(|| {
        tracing::debug!(
            invoke_id = %running.job().invoke_id,
            execution_id = %running.id,
            instance_id = %running.instance_id(),
            attempt = running.attempt,
            %status,
            duration_ms = finished_at_ms.saturating_sub(running.started_at_ms),
            "an execution has ended"
        )
    });
}

//! A file at a glance: the look reads a bounded number of records, however many there are.

use chrono::{DateTime, Utc};

use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::status::ExecutionStatus;

/// A file at a glance, from [`Engine::overview`](crate::Engine::overview).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Overview {
    /// Executions that have not ended, of the oldest 100,000 fires that have such executions.
    pub unended: u64,
    /// Whether there may be more: there are as many fires as are looked at.
    pub more_unended: bool,
    /// Executions that run, those first that have run longest; of those stored where the queue has come
    /// to, or of late.
    pub running: Vec<OverviewExecution>,
    /// Executions that ended, the latest first; of the same.
    pub ended: Vec<OverviewExecution>,
    /// Timers to fire, the next first.
    pub due: Vec<OverviewTimer>,
}

/// An execution at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverviewExecution {
    /// The execution.
    pub execution_id: ExecutionId,
    /// Its invocation.
    pub invoke_id: InvokeId,
    /// The name of the invocation's command; if it has none, how its script begins.
    pub command: String,
    /// Where it runs.
    pub instance_id: InstanceId,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// When it was claimed; none if it never ran.
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended, if it has.
    pub finish_time: Option<DateTime<Utc>>,
}

/// A timer at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OverviewTimer {
    /// The invocation that repeats.
    pub invoke_id: InvokeId,
    /// The name of its command; if it has none, how its script begins.
    pub command: String,
    /// Its schedule.
    pub frequency: String,
    /// When it fires next, its place in the spread included.
    pub due_time: DateTime<Utc>,
}

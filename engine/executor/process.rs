//! Processes of this machine.

use super::{ExecutionContext, Executor, Task};
use crate::execution::Outcome;

/// Runs shell scripts as processes of this machine.
#[derive(Debug, Default)]
pub struct ProcessExecutor {}

impl ProcessExecutor {
    /// x
    pub fn new() -> Self {
        Self {}
    }
}

impl Executor for ProcessExecutor {
    async fn execute(&self, _task: Task, _cx: ExecutionContext) -> Outcome {
        Outcome::Broke { info: String::new() }
    }
}

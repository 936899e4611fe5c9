//! An async closure of the host as a target like any other.

use std::fmt;
use std::future::Future;

use super::{ExecutionContext, Executor, Task};
use crate::execution::Outcome;

/// Runs a closure for each task. Its result is the outcome: nothing or 0 is success, another number
/// an exit code, an `Err` the end of what it could do.
///
/// When the engine asks for a stop the closure's future is dropped.
///
/// # A mailer as a target
///
/// ```
/// use adjutant::{ClosureExecutor, Stream};
///
/// let mailer = ClosureExecutor::new(|task, cx| async move {
///     cx.print(Stream::Stdout, format!("mail for {}\n", task.instance_id).as_bytes());
///     Ok::<(), std::io::Error>(())
/// });
/// # let _ = mailer;
/// ```
pub struct ClosureExecutor<F> {
    closure: F,
}

impl<F> fmt::Debug for ClosureExecutor<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClosureExecutor").finish_non_exhaustive()
    }
}

impl<F, Fut, O> ClosureExecutor<F>
where
    F: Fn(Task, ExecutionContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send,
    O: Into<Outcome>,
{
    /// An executor that calls `closure`.
    pub fn new(closure: F) -> Self {
        Self { closure }
    }
}

impl<F, Fut, O> Executor for ClosureExecutor<F>
where
    F: Fn(Task, ExecutionContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = O> + Send,
    O: Into<Outcome>,
{
    async fn execute(&self, task: Task, cx: ExecutionContext) -> Outcome {
        let work = (self.closure)(task, cx.clone());
        tokio::select! {
            // Work that is done is done, even if a stop comes in the same instant.
            biased;
            result = work => result.into(),
            _ = cx.stop_asked() => Outcome::Stopped { signal: None, exit_code: None, info: String::new() },
        }
    }
}

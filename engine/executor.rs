//! The plug-in point for executors, which carry out tasks on instances. The library has an executor for processes of
//! this machine and an executor for closures of the host; a host adds its own.

mod closure;
mod contact;
mod process;
mod removal;
mod scratch;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Sleep};
use crate::command::CommandType;
use crate::command::content::Content;
use crate::command::parameters::Arguments;
use crate::execution::{Outcome, Remark, Report, StopReason, Usage, checked_result};
use crate::id::{CommandId, ExecutionId, InstanceId, InvokeId};
use crate::invocation::resource_limits::ResourceLimits;
use crate::invocation::{Job, TerminationMode};
use crate::output::{LiveOutput, Stream};
use crate::secret::Secret;

pub use closure::ClosureExecutor;
pub(crate) use contact::Contact;
pub(crate) use process::{Leftovers, Resumption, effective_user, has_ended, order_stop};
pub use process::{ProcessExecutor, helper_main, reap_orphans, refuse_inspection};
pub(crate) use scratch::Scratch;

/// Carries out tasks on the instances that name this executor.
///
/// Each task is given to `execute` at most once. The outcome that `execute` returns goes into the record. If `execute`
/// panics, the execution ends as an error, and the engine goes on.
///
/// # An executor of a host's own
///
/// ```
/// use adjutant::{ExecutionContext, Executor, Outcome, Stream, Task};
///
/// struct Echo;
///
/// impl Executor for Echo {
///     async fn execute(&self, task: Task, cx: ExecutionContext) -> Outcome {
///         cx.print(Stream::Stdout, task.content());
///         Outcome::Exited(0)
///     }
/// }
/// ```
pub trait Executor: Send + Sync + 'static {
    /// Carries out `task` to its end.
    ///
    /// An executor listens to [`ExecutionContext::stop_asked`] and returns soon after it. Otherwise its future is
    /// dropped once the grace period is over.
    ///
    /// Because other futures wait for their turn on the same thread, an executor must not block it. Blocking calls
    /// belong into [`spawn_blocking`](tokio::task::spawn_blocking).
    fn execute(&self, task: Task, cx: ExecutionContext) -> impl Future<Output = Outcome> + Send;

    /// Checks whether this executor can work in the host. An engine calls this when it opens, unless the engine is to
    /// start nothing.
    ///
    /// # Errors
    ///
    /// The fault of the host, and the remedy. The engine does not open then.
    fn check_host(&self) -> Result<(), String> {
        Ok(())
    }

    /// Returns whether a run of this executor can go on when the host ends, and be taken back by the next engine on the
    /// file. Runs of [`ProcessExecutor`] can. An executor of the host's own returns false, the default, unless it
    /// passes such tasks on to a [`ProcessExecutor`], whose answer it then returns. The engine asks once, when it
    /// opens, and refuses requests with `SurviveRestarts` on other executors.
    fn can_survive_restarts(&self) -> bool {
        false
    }
}

/// A boxed [`Executor::execute`]. Nothing of it happens before it is polled.
pub(crate) type Execute = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// [`Executor`] behind a pointer.
pub(crate) trait DynExecutor: Send + Sync + 'static {
    fn execute(self: Arc<Self>, task: Task, cx: ExecutionContext) -> Execute;

    fn check_host(&self) -> Result<(), String>;

    fn can_survive_restarts(&self) -> bool;
}

impl<E: Executor> DynExecutor for E {
    fn execute(self: Arc<Self>, task: Task, cx: ExecutionContext) -> Execute {
        Box::pin(async move { Executor::execute(&*self, task, cx).await })
    }

    fn check_host(&self) -> Result<(), String> {
        Executor::check_host(self)
    }

    fn can_survive_restarts(&self) -> bool {
        Executor::can_survive_restarts(self)
    }
}

/// The work that an executor is asked to do.
#[derive(Clone)]
#[non_exhaustive]
pub struct Task {
    /// The id of the execution.
    pub execution_id: ExecutionId,
    /// The instance to run on.
    pub instance_id: InstanceId,
    /// Returns the number of the attempt, from 1.
    pub attempt: u32,
    pub(crate) job: Arc<Job>,
    /// The script with the values for this instance.
    pub(crate) content: Content,
    /// The values of the secrets that the task names, once they have been resolved.
    pub(crate) resolved: Option<Box<Resolved>>,
    /// The shell of the instance.
    pub(crate) shell: Option<Box<str>>,
    pub(crate) instance_name: Box<str>,
}

/// The values of the secrets that a task names.
#[derive(Clone, Default)]
pub(crate) struct Resolved {
    /// The arguments with their secrets filled in, if there were any.
    pub arguments: Option<Arguments>,
    pub password: Option<Secret>,
}

/// Without the script, in which values of parameters are filled in.
impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("execution_id", &self.execution_id)
            .field("instance_id", &self.instance_id)
            .field("attempt", &self.attempt)
            .field("invoke_id", &self.job.invoke_id)
            .finish_non_exhaustive()
    }
}

impl Task {
    /// Returns the invocation that the execution belongs to.
    pub fn invoke_id(&self) -> InvokeId {
        self.job.invoke_id
    }

    /// Returns the name of the instance for people; empty if it has none.
    pub fn instance_name(&self) -> &str {
        &self.instance_name
    }

    /// Returns the command that the execution runs.
    pub fn command_id(&self) -> CommandId {
        self.job.command_id
    }

    /// Returns the language of the script.
    pub fn command_type(&self) -> CommandType {
        self.job.command_type
    }

    /// Returns the script.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Returns variables to add to the script's environment: the values of parameters that are passed there.
    pub fn variables(&self) -> Vec<(String, String)> {
        let resolved = self.resolved.as_ref().and_then(|resolved| resolved.arguments.as_ref());
        let arguments = resolved.or(self.job.arguments.as_ref());
        arguments.map(Arguments::variables).unwrap_or_default()
    }

    /// Returns the directory to run in; `None` for the user's home.
    pub fn working_dir(&self) -> Option<&Path> {
        self.job.settings.working_dir.as_deref().map(Path::new)
    }

    /// Returns the user to run as; `None` for the executor's own user.
    pub fn username(&self) -> Option<&str> {
        self.job.settings.username.as_deref()
    }

    /// Returns the password of that user, if the request named a password and the host has resolved it.
    pub fn password(&self) -> Option<&Secret> {
        self.resolved.as_ref()?.password.as_ref()
    }

    /// Returns the launcher that gets the script; `None` for its shell.
    pub fn launcher(&self) -> Option<&str> {
        self.job.settings.launcher.as_deref()
    }

    /// Returns the shell of the instance for scripts without a `#!` line: a path, or a name that is looked up in PATH.
    /// `None` for the executor's own shell.
    pub fn shell(&self) -> Option<&str> {
        self.shell.as_deref()
    }

    /// Returns the id of the container to run in.
    pub fn container_id(&self) -> Option<&str> {
        self.job.container.id.as_deref()
    }

    /// Returns the name of the container to run in.
    pub fn container_name(&self) -> Option<&str> {
        self.job.container.name.as_deref()
    }

    /// Returns the caller that made the invocation, if the host named it.
    pub fn caller(&self) -> Option<&str> {
        self.job.caller.as_deref()
    }

    /// Returns how long the run may take; `None` for any time. After this time the engine asks the executor to stop.
    pub fn timeout(&self) -> Option<Duration> {
        self.job.timeout_s.map(Duration::from_secs)
    }

    /// Returns the processes that a timeout or a stop ends.
    pub fn termination_mode(&self) -> TerminationMode {
        self.job.termination_mode
    }

    /// Returns the limits on the resources of its processes.
    pub fn resource_limits(&self) -> &ResourceLimits {
        &self.job.resource_limits
    }

    /// Returns whether the run goes on when the host ends, and the next engine on the file takes it back. This is false
    /// unless [runs of the executor can](Executor::can_survive_restarts).
    pub fn survives_restarts(&self) -> bool {
        self.job.survive_restarts
    }
}

/// The time in which a task may end politely once the deadline of a shutdown has passed. This time is short, because
/// the task had the time of the shutdown to end.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(50);

/// The means of an executor: it prints output, hears of a stop, and reads the time.
#[derive(Clone)]
pub struct ExecutionContext {
    pub(crate) output: Arc<LiveOutput>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) surroundings: Arc<Surroundings>,
}

impl std::fmt::Debug for ExecutionContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecutionContext")
            .field("stop_asked", &self.contact.order().map(|order| order.cause))
            .finish_non_exhaustive()
    }
}

/// The part of a context that is the same for all executions of an engine.
pub(crate) struct Surroundings {
    pub stop_grace: Duration,
    pub clock: Arc<dyn Clock>,
    pub scratch: Arc<Scratch>,
}

impl ExecutionContext {
    /// Adds to the output, in the order of the calls. Never waits for a reader.
    pub fn print(&self, stream: Stream, bytes: &[u8]) {
        self.output.append(stream, bytes);
    }

    /// Ends when the engine wants the task to end. Safe to drop and to call again.
    pub async fn stop_asked(&self) -> StopReason {
        self.contact.stop_asked().await
    }

    /// Returns the time in which a task may end politely once it is asked to end: the host's setting, or at most 50
    /// ms once the deadline of a shutdown has passed.
    pub fn stop_grace(&self) -> Duration {
        let stop_grace = self.surroundings.stop_grace;
        match self.contact.order() {
            Some(order) if order.cause == StopReason::Shutdown => stop_grace.min(SHUTDOWN_GRACE),
            _ => stop_grace,
        }
    }

    /// Ends once `duration` of the engine's monotonic time has passed.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.surroundings.clock.sleep(duration)
    }

    /// Reports the resources that the task's processes have used, for the record. The last report counts.
    pub fn report_usage(&self, usage: Usage) {
        self.report(|report| report.usage = Some(usage));
    }

    /// Leaves a result beside the output, for the record. The last result counts. A result of more than 64 KiB of JSON
    /// is not kept, and the record says so.
    pub fn report_result(&self, result: serde_json::Value) {
        let checked = checked_result(&result);
        self.report(|report| report.result = Some(checked));
    }

    /// Reports why a result that was expected is missing.
    pub(crate) fn report_bad_result(&self, why: String) {
        let why = Remark::from(why).text().into_owned();
        self.report(|report| report.result = Some(Err(why)));
    }

    pub(crate) fn report(&self, change: impl FnOnce(&mut Report)) {
        self.contact.report(change);
    }

    /// Returns a folder that only this user can read; the engine empties the folder when it opens.
    pub fn scratch_dir(&self) -> &Path {
        self.scratch().path()
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.surroundings.scratch
    }
}

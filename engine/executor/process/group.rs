//! The cgroup of a run: made before it begins, asked and removed when it has ended.

use std::io::{self, ErrorKind};
use std::sync::{Arc, Once};

use super::ExecutionContext;
use super::broke;
use super::cgroup::{Caps, Cgroup, Cgroups, Report};
use super::child::Ending;
use super::environment::{self, Mark};
use super::run::Brief;
use crate::execution::Outcome;
use crate::invocation::TerminationMode;
use crate::invocation::resource_limits::ResourceLimits;
use crate::panics::tell;

/// What the names of groups begin with that are not to be swept, for their runs go on.
const KEPT: &str = "kept-";

/// Makes the group of a run, if it needs one; and what is left of its limits for the process itself. A run with a
/// keeper belongs to no engine.
///
/// # Errors
///
/// The outcome of a run that needs what this machine does not offer.
pub(super) async fn make(
    brief: &Brief,
    mark: Mark,
    engine: Option<u128>,
) -> Result<(Option<Arc<Cgroup>>, ResourceLimits), Outcome> {
    let mut limits = brief.limits;
    let is_wanted = brief.has_group || limits.memory_bytes.is_some() || limits.processes.is_some();
    // The one way to find all processes of another user's run that asks none of them.
    let is_other = brief.username.is_some() && rustix::process::geteuid().is_root();
    if !is_wanted && !is_other {
        return Ok((None, limits));
    }
    let name = engine.map_or_else(|| kept(mark), |engine| of_engine(engine) + &mark.name());
    let is_needed = brief.has_group || limits.memory_bytes.is_some();
    let made = blocking(move || {
        let groups = match Cgroups::find() {
            Ok(groups) if is_needed => groups,
            Ok(groups) if limits.processes.is_some() && groups.limits_processes() => groups,
            // Without a group a stop finds the processes in other ways.
            Ok(groups) if is_other && groups.hold_others() => {
                let made = groups.create_bare(&name);
                if let Err(error) = &made {
                    warn_once(error);
                }
                return Ok((made.ok().map(Arc::new), limits));
            }
            Err(why) if is_needed => return Err(io::Error::new(ErrorKind::Unsupported, why)),
            // The process itself can have that limit.
            Ok(_) | Err(_) => return Ok((None, limits)),
        };
        let mut caps = Caps { memory_bytes: limits.memory_bytes, processes_max: None };
        limits.memory_bytes = None;
        if groups.limits_processes() {
            caps.processes_max = limits.processes.take();
        }
        Ok((Some(Arc::new(groups.create(&name, caps)?)), limits))
    });
    made.await.map_err(|error| broke("it has no cgroup", &error))
}

/// Tells the host once, because each run of another user would tell the same.
fn warn_once(error: &io::Error) {
    static IS_TOLD: Once = Once::new();
    IS_TOLD.call_once(|| {
        tell(|| {
            tracing::warn!(
                %error,
                "a run of another user has no cgroup; a stop may miss processes that hide from the engine"
            );
        });
    });
}

/// Leaves the group of a run that has ended; the most memory that it had, if that is known.
pub(super) async fn leave(
    group: Arc<Cgroup>,
    ending: &Ending,
    cx: &ExecutionContext,
) -> Option<u64> {
    let ends_all =
        matches!(ending, Ending::Asked(stop) if stop.mode == TerminationMode::ProcessTree);
    let leave = move || {
        // Those who start others faster than a look finds them are in it still.
        let killed = if ends_all { group.kill().map(drop) } else { Ok(()) };
        let report = group.report();
        let left = match Arc::try_unwrap(group) {
            Ok(group) if !ends_all => group.release(),
            // Whoever is still in it ends with it.
            _ => killed,
        };
        Ok((report, left))
    };
    let (report, left) = match blocking(leave).await {
        Ok((report, left)) => (report, left),
        Err(error) => (Report::default(), Err(error)),
    };
    if let Err(error) = left {
        tell(|| tracing::warn!(%error, "a cgroup stays behind"));
    }
    if report.oom_killed {
        let remark = "the kernel killed a process of it for want of memory";
        cx.report(|report| report.remark(remark));
    }
    report.memory_peak_bytes
}

/// What the group of a run is called that has a keeper.
pub(super) fn kept(mark: Mark) -> String {
    format!("{KEPT}{}", mark.name())
}

/// Returns what the names of the groups of an engine's other runs begin with.
pub(super) fn of_engine(engine: u128) -> String {
    format!("{}-", environment::name_of_engine(engine))
}

/// Ends who is still in groups whose names begin so, and removes those.
pub(super) async fn sweep(prefix: String) {
    // Where none can be made there are none.
    let sweep = move || Cgroups::find().map_or(Ok(0), |groups| groups.sweep(&prefix));
    if let Err(error) = blocking(sweep).await {
        tell(|| tracing::warn!(%error, "a cgroup stays behind"));
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

//! Processes of this machine. One run is a script in a file of its own, a process that leads a
//! process group of its own, and two pipes.
//!
//! Three rules carry the design. A process is spawned the way `posix_spawn` does it, never with
//! `fork`: the host may be large, and it has SQLite open. Its pid and group are signalled only
//! while it has not been reaped, because until then the kernel gives the number to nobody else.
//! And nobody waits for a pipe that some descendant may hold open for ever.
//!
//! A stop finds what the run has started even where that has left the group (`family`), ends it, and
//! says whom it had to kill.

mod account;
mod behind;
mod census;
mod cgroup;
mod child;
mod entry;
mod environment;
mod errno;
mod family;
mod files;
mod group;
mod heirs;
mod helper;
mod inheritance;
mod keeper;
mod kept;
mod kernel;
mod order;
mod pipes;
mod reaper;
mod run;
mod script;
mod standing;
#[cfg(test)]
mod tests;
mod told;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::{ExecutionContext, Executor, Scratch, Task};
use crate::command::CommandType;
use crate::execution::Outcome;
use account::Account;
use environment::{Mark, User, Variables};
use keeper::Charge;
use order::Runner;
use run::{Brief, Place};
use script::Interpreter;

pub use helper::{helper_main, refuse_inspection};
pub(crate) use inheritance::{Leftovers, has_ended};
pub(crate) use kept::{Resumption, order_stop};
pub use reaper::reap_orphans;

/// Runs scripts as processes of this machine: as the host's own user, or, if the host may, as another.
///
/// A script is written to a private file. Its launcher runs it; without a launcher, the interpreter that its `#!`
/// line names; without that, the instance's shell; otherwise `sh`. `pwsh` runs a script in PowerShell. If the file
/// that is to run the script is no program, the execution is `Invalid` and not tried again. The standard input of the
/// script is empty, its two outputs are captured apart. The script has no descriptors but these three, a session of
/// its own, and a clean environment: `HOME`, `USER`, `LOGNAME`, `SHELL`, `PATH` and `LANG` of its user, what
/// [`env`](Self::env) adds, and `ADJUTANT_INVOKE_ID`, `ADJUTANT_COMMAND_ID`, `ADJUTANT_INSTANCE_ID`,
/// `ADJUTANT_INSTANCE_NAME` if the instance has a name, `ADJUTANT_EXECUTION_ID`, `ADJUTANT_ATTEMPT`, `ADJUTANT_RUN`, a
/// mark that is another at every start, and `ADJUTANT_RESULT`, a file in which the script can leave a JSON document of
/// at most 64 KiB for its record. The script runs in the requested directory; without a request in its user's home, or
/// in `/` if that cannot be entered.
///
/// Other users, limits, cgroups and runs that survive restarts need [`helper_main`](crate::helper_main) in the host's
/// `main`. Other users need root, or a program with the ambient capabilities `CAP_SETUID`, `CAP_SETGID`, `CAP_CHOWN`,
/// `CAP_KILL` and `CAP_DAC_OVERRIDE`; with `CAP_SYS_PTRACE` a stop finds processes of such runs by their mark too. No
/// run has a capability of the host. A run of another user has the ordinary mask (`022`), scheduling, priorities and
/// timers, and a session keyring of its own; its limits are the host's. The mask of all runs is `022` at least.
///
/// Memory is limited for all processes of a run together, by a cgroup; so is their number if the machine lets this
/// program make such a group. Otherwise the number of all processes of their user is limited, and not for root. The
/// other limits are each process's own.
///
/// The run ends when its process ends. Processes that a script leaves behind when it ends by itself live on, and the
/// engine never looks for them later; `ErrorInfo` of the record names the processes that a stop would find. If such
/// processes hold an output of the run, the output is read until it has been silent for 250 ms, for 5 s at most.
/// Output after that is in no record; the record says so, and names the processes. A helper of the host goes on to
/// read and discard that output, so that the writers do not end. A stop goes further: all processes that the run has
/// started get SIGTERM and, after the engine's grace period, SIGKILL, also in sessions of their own; the record names
/// the processes that needed SIGKILL. [`TerminationMode::Process`](crate::TerminationMode::Process) ends the process
/// itself only.
///
/// A stop finds processes by their group, by their parents, by the mark in their environment, and by their
/// [cgroup](Self::cgroups) if they have one. Without a cgroup a stop misses a process that has done all three before
/// the stop: left the group, lost its parent, and cleared its environment or become another user's. In a run that
/// survives restarts a stop finds even such a process, as long as the run goes on. If `/proc` cannot be read, or not
/// within a second, only the group is stopped, and the record says so.
///
/// `UserTime` and `SystemTime` are those of the process and of the children it has waited for. The kernel counts what
/// the host lends a process before it begins as memory of its own; so `MaxRssBytes` is known where it is more
/// than that. `MemoryPeakBytes` is exact, and known of runs with a cgroup.
///
/// A run that survives restarts has a keeper, another process of the host's program, with a folder `FILE.runs/…` beside
/// the database. It sees the run through, its timeout too, and what is printed while no engine is there is kept within
/// the quota. When the engine is shut down, such runs are left alone; whoever ends the host with all that it has
/// started, as systemd does unless the unit says `KillMode=process`, ends them too. In memory there is nothing to
/// come back to: there it is a run like any other.
///
/// Needs Linux 5.3 and glibc 2.34. No other code of the host may wait for the children of this executor, and
/// `SIGCHLD` must neither be ignored nor have the flag `SA_NOCLDWAIT`: otherwise an engine does not open, and starts
/// no process. If the exit status of a run is lost all the same, the execution ends with an error, and is not tried
/// again, because it may have succeeded.
///
/// # Scripts in bash, with a time zone
///
/// ```
/// use adjutant::ProcessExecutor;
///
/// let executor = ProcessExecutor::new().shell("bash").env("TZ", "UTC");
/// # let _ = executor;
/// ```
pub struct ProcessExecutor {
    shell: PathBuf,
    /// Where the shell was found. A shell does not move; looking through `PATH` costs 15 µs.
    shell_path: OnceLock<PathBuf>,
    /// The host's own.
    user: User,
    /// What the system calls that.
    user_name: String,
    /// Beside those of the user.
    variables: Variables,
    has_groups: bool,
}

impl ProcessExecutor {
    /// An executor that runs scripts with `sh`. The host's environment is read here, once.
    pub fn new() -> Self {
        let (user, user_name) = User::of_host();
        Self {
            shell: "sh".into(),
            shell_path: OnceLock::new(),
            user,
            user_name,
            variables: Variables::new(),
            has_groups: false,
        }
    }

    /// Sets what runs a script without a `#!` line: a path, or a name that is looked up in `PATH`.
    #[must_use]
    pub fn shell(mut self, shell: impl Into<PathBuf>) -> Self {
        self.shell = shell.into();
        self.shell_path = OnceLock::new();
        self
    }

    /// Adds a variable to the environment of every script, or replaces one of its user's.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(key.into(), value.into());
        self.shell_path = OnceLock::new();
        self
    }

    /// Gives every run a cgroup of its own, where the machine lets this program make one; else runs fail.
    /// A stop then finds whatever it has started, and the record says how much memory that took. Runs
    /// whose memory or number of processes is limited have one anyway. Needs
    /// [`helper_main`](crate::helper_main), and takes some milliseconds a run.
    #[must_use]
    pub fn cgroups(mut self) -> Self {
        self.has_groups = true;
        self
    }

    /// Carries out `task`. `Err` is an outcome too: that of a task which never got to run, or was
    /// lost sight of.
    async fn run(&self, task: &Task, cx: &ExecutionContext) -> Result<Outcome, Outcome> {
        check_type(task)?;
        if cx.contact.order().is_some() {
            return Ok(Outcome::Stopped { signal: None, exit_code: None, info: String::new() });
        }
        let brief = self.brief(task)?;
        let engine = cx.scratch().engine();
        let mark = Mark::new(engine, task.execution_id, task.attempt);
        let kept = cx.scratch().place_of_run(&brief.name).filter(|_| task.survives_restarts());
        match kept {
            None => {
                let (scratch, engine) = (cx.scratch_dir(), Some(engine));
                let place = Place { scratch, mark, engine, reaper: None };
                let open = cx.scratch().open_run();
                let outcome = run::carry_out(&brief, &self.user, place, cx).await;
                open.close();
                outcome
            }
            Some(folder) => {
                let charge = Charge {
                    user: self.user.clone(),
                    mark,
                    folder: folder.into(),
                    scratch: cx.scratch().kept(&brief.name).into(),
                    timeout: task.timeout(),
                    stop_grace: cx.stop_grace(),
                    output: cx.output.quota(),
                    is_kept_whole: task.job.settings.output_to.is_some(),
                    brief,
                };
                kept::begin(&charge, cx).await
            }
        }
    }

    /// What a run has to know of its task.
    fn brief(&self, task: &Task) -> Result<Brief, Outcome> {
        let username = self.another_user(task).map(str::to_owned);
        let variables = self.variables.clone().into_iter();
        Ok(Brief {
            name: Scratch::name(task.execution_id, task.attempt),
            content: Arc::clone(&task.content),
            runner: self.runner(task, username.is_none())?,
            working_dir: task.working_dir().and_then(Path::to_str).map(str::to_owned),
            variables: variables.chain(environment::variables_of(task)).collect(),
            username,
            limits: *task.resource_limits(),
            has_group: self.has_groups,
            termination_mode: task.termination_mode(),
        })
    }

    /// The user to run as, if that is not the host's own.
    fn another_user<'a>(&self, task: &'a Task) -> Option<&'a str> {
        task.username().filter(|name| *name != self.user_name)
    }

    /// What the script is to be given to.
    fn runner(&self, task: &Task, own: bool) -> Result<Runner, Outcome> {
        // Before the parameters are filled in: a value may have any bytes.
        let check = || match script::unreadable(&task.job.content) {
            Some(why) => Err(order::unsuitable("LauncherNotFound", why.to_owned())),
            None => Ok(()),
        };
        if let Some(launcher) = task.launcher() {
            let program = launcher.split([' ', '\t']).next().unwrap_or_default();
            if script::is_shell(Path::new(program)) {
                check()?;
            }
            return Ok(Runner::Launcher(launcher.to_owned()));
        }
        if task.command_type() == CommandType::RunPowerShellScript {
            return Ok(Runner::PowerShell);
        }
        let interpreter = script::interpreter(task.content())
            .map_err(|why| order::unsuitable("LauncherNotFound", why.to_owned()))?;
        Ok(match interpreter {
            Some(Interpreter { program, argument }) => Runner::Interpreter {
                name: script::name_before_filling(&task.job.content, &program),
                program: program.into(),
                argument: argument.map(OsStr::to_owned),
            },
            None => {
                check()?;
                Runner::Shell(match task.shell() {
                    Some(shell) => shell.into(),
                    None if own => self.find_shell().into(),
                    None => self.shell.clone().into(),
                })
            }
        })
    }

    /// Where the shell is for the host's own user; its name if it is nowhere.
    fn find_shell(&self) -> &Path {
        if let Some(path) = self.shell_path.get() {
            return path;
        }
        let mut variables = self.user.variables.clone();
        variables.extend(self.variables.clone());
        match environment::find(&self.shell, &variables) {
            Ok(path) => self.shell_path.get_or_init(|| path),
            Err(_) => &self.shell,
        }
    }
}

impl Default for ProcessExecutor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ProcessExecutor {
    /// Leaves the environment out: its values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessExecutor").field("shell", &self.shell).finish_non_exhaustive()
    }
}

impl Executor for ProcessExecutor {
    async fn execute(&self, task: Task, cx: ExecutionContext) -> Outcome {
        self.run(&task, &cx).await.unwrap_or_else(|outcome| outcome)
    }

    fn can_survive_restarts(&self) -> bool {
        true
    }

    fn check_host(&self) -> Result<(), String> {
        kernel::ends_are_lost().map_or(Ok(()), |why| Err(format!("{why}, {ENDS_ARE_LOST}")))
    }
}

/// Returns the name and the number of the user that a script runs as: the given one, or the host's own. The number is
/// `None` if the system knows no such user.
pub(crate) async fn effective_user(username: Option<&str>) -> (String, Option<u32>) {
    let (own, own_name) = own_user();
    let Some(name) = username.filter(|name| *name != own_name) else {
        return (own_name, Some(own));
    };
    let name = name.to_owned();
    let wanted = name.clone();
    // The system's directory of users may be far away.
    let looked_up = tokio::task::spawn_blocking(move || Account::of_name(&wanted));
    // The lookup is lost only if the runtime ends.
    let account = looked_up.await.ok().and_then(Result::ok).flatten();
    (name, account.map(|account| account.uid))
}

/// Returns the number and the name of the host's own user.
fn own_user() -> (u32, String) {
    static KNOWN: OnceLock<(u32, String)> = OnceLock::new();
    let uid = rustix::process::getuid().as_raw();
    let look_up = || (uid, Account::of_uid(uid).map_or_else(|| uid.to_string(), |own| own.name));
    let known = KNOWN.get_or_init(look_up);
    // The host may have become another user.
    if known.0 == uid { known.clone() } else { look_up() }
}

/// The consequence of a host's treatment of `SIGCHLD`, and the remedy.
const ENDS_ARE_LOST: &str = "so the system does not report how processes end; set SIGCHLD to SIG_DFL \
                             without that flag, or call `adjutant::helper_main()` first in `main`";

/// Refuses what this executor cannot do, rather than to do something else.
fn check_type(task: &Task) -> Result<(), Outcome> {
    let info = if task.container_id().or(task.container_name()).is_some() {
        "this executor runs nothing in containers".to_owned()
    } else if task.command_type() == CommandType::RunBatScript {
        let want = [CommandType::RunShellScript, CommandType::RunPowerShellScript];
        format!("{} does not run here; want {} or {}", task.command_type(), want[0], want[1])
    } else {
        return Ok(());
    };
    Err(Outcome::Unsuitable { code: "CommandNotApplicable", info })
}

fn broke(what: &str, error: &io::Error) -> Outcome {
    Outcome::Broke { info: format!("{what}: {}", errno::describe(error)) }
}

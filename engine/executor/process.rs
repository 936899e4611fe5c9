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

mod census;
#[cfg_attr(not(test), expect(dead_code, reason = "the executor does not use it yet"))]
mod cgroup;
mod child;
mod environment;
mod errno;
mod family;
mod pipes;
mod script;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use super::{ExecutionContext, Executor, Task};
use crate::command::CommandType;
use crate::command::launcher::Launcher;
use crate::execution::Outcome;
use child::{Ending, Leader};
use environment::{Environment, Mark};
use pipes::Pipes;
use script::ScriptFile;

/// What breaks a run when somebody else took the exit status.
const LOST_STATUS: &str =
    "its exit status is lost; does the host ignore SIGCHLD, or wait for any child?";

/// Runs shell scripts as processes of this machine, as the host's own user.
///
/// A script is written to a private file and run by its launcher, else by the interpreter that its
/// `#!` line names, else by `sh`. Its standard input is empty, its two outputs are captured apart. It sees a clean
/// environment: `HOME`, `USER`, `LOGNAME`, `SHELL`, `PATH` and `LANG` of the host, what
/// [`env`](Self::env) adds, and `ADJUTANT_INVOKE_ID`, `ADJUTANT_COMMAND_ID`,
/// `ADJUTANT_INSTANCE_ID`, `ADJUTANT_EXECUTION_ID`, `ADJUTANT_ATTEMPT`, and `ADJUTANT_RUN`, a random
/// mark that is another at every start.
///
/// The run ends when that process ends. What a script leaves behind when it ends by itself lives on,
/// and nothing looks for it later. A stop goes further: everything that the run has started gets SIGTERM
/// and, after the engine's grace period, SIGKILL, also in sessions of its own; the record says who needed
/// that. [`TerminationMode::Process`](crate::TerminationMode::Process) spares all but the process itself.
///
/// A stop finds processes by their group, by their parents and by the mark in their environment. It does
/// not find one that before the stop has left the group, has lost its parent, and has cleared its
/// environment or become another user's. If `/proc` cannot be read, or not within a second, only the
/// group is stopped, and the record says so.
///
/// Needs Linux 5.3 and, in the host, that nobody else waits for its children and that `SIGCHLD` is
/// not ignored. Descriptors that the host opened without `O_CLOEXEC` are inherited.
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
    environment: Environment,
    /// Where the shell was found. A shell does not move; looking through `PATH` costs 15 µs.
    shell_path: OnceLock<PathBuf>,
}

impl ProcessExecutor {
    /// An executor that runs scripts with `sh`. The host's environment is read here, once.
    pub fn new() -> Self {
        let environment = Environment::of_host();
        Self { shell: "sh".into(), environment, shell_path: OnceLock::new() }
    }

    /// Sets what runs a script without a `#!` line: a path, or a name that is looked up in `PATH`.
    #[must_use]
    pub fn shell(mut self, shell: impl Into<PathBuf>) -> Self {
        self.shell = shell.into();
        self.shell_path = OnceLock::new();
        self
    }

    /// Adds a variable to the environment of every script, or replaces one of the host's.
    #[must_use]
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.set(key.into(), value.into());
        self.shell_path = OnceLock::new();
        self
    }

    /// Carries out `task`. `Err` is an outcome too: that of a task which never got to run, or was
    /// lost sight of.
    async fn run(&self, task: &Task, cx: &ExecutionContext) -> Result<Outcome, Outcome> {
        check_type(task.command_type())?;
        self.check_settings(task)?;
        let dir = check_working_dir(task.working_dir())?;
        if cx.stop.borrow().is_some() {
            return Ok(Outcome::Stopped { signal: None, exit_code: None, info: String::new() });
        }
        let launcher = self.launcher(task, &dir)?;
        // Declared first, so dropped last: a script goes away after the process that reads it.
        let extension = launcher.as_ref().and_then(|launcher| launcher.parsed.extension.as_deref());
        let script = ScriptFile::create(cx.scratch_dir(), task, extension.unwrap_or(".sh"))
            .map_err(|error| broke("the script cannot be written", &error))?;
        let mut command = self.command(task, &script, launcher)?;
        let mark = Mark::random();
        self.environment.apply(&mut command, task, mark);
        let (mut leader, mut pipes) = start(command, &dir)?;

        let ending = pipes
            .read_during(leader.see_through(task.termination_mode(), mark, cx), cx)
            .await
            .map_err(|error| broke("the process was lost sight of", &error))?;
        // Reaped before its pipes are drained: from here on what it left behind is on its own.
        let status = leader.reap(&ending).map_err(|error| broke(LOST_STATUS, &error))?;
        pipes.drain(cx).await;
        Ok(outcome(status, &ending))
    }

    /// Refuses what this executor cannot do, rather than to do something else.
    fn check_settings(&self, task: &Task) -> Result<(), Outcome> {
        if task.container_id().or(task.container_name()).is_some() {
            let info = "this executor runs nothing in containers".to_owned();
            return Err(Outcome::Unsuitable { code: "CommandNotApplicable", info });
        }
        match task.username() {
            Some(user) if !self.environment.is_own_user(user) => Err(Outcome::Unsuitable {
                code: "AccountNotExists",
                info: format!(
                    "`{user}` is not the host's user, and this executor runs as no other"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// What the script is to be given to, if its shell is not; it has to be there.
    fn launcher(&self, task: &Task, dir: &Path) -> Result<Option<Program>, Outcome> {
        let Some(text) = task.launcher() else { return Ok(None) };
        let not_found = |why: String| Outcome::Unsuitable {
            code: "LauncherNotFound",
            info: format!("the launcher `{text}`: {why}"),
        };
        let parsed = Launcher::parse(text).map_err(not_found)?;
        let (named, _) = parsed.command("");
        // One with a `/` is a file, from the working directory on.
        let path = match named.contains('/') {
            true => dir.join(&named),
            false => self.environment.find(Path::new(&named)).unwrap_or_default(),
        };
        if !path.is_file() || rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_err() {
            let why = format!("`{named}` is no program that can be started here");
            return Err(not_found(why));
        }
        Ok(Some(Program { parsed, path }))
    }

    /// What runs `script`. The program is always a path: std would fork to look a name up in a
    /// `PATH` that is not its own.
    fn command(
        &self,
        task: &Task,
        script: &ScriptFile,
        launcher: Option<Program>,
    ) -> Result<Command, Outcome> {
        match launcher {
            Some(Program { parsed, path }) => {
                let script = script.path().to_str().ok_or_else(|| Outcome::Broke {
                    info: "the folder of scripts has a name that is no UTF-8".to_owned(),
                })?;
                let mut command = Command::new(path);
                command.args(parsed.command(script).1);
                Ok(command)
            }
            None => self.interpreter(task, script),
        }
    }

    /// The interpreter that the script names, or the shell.
    fn interpreter(&self, task: &Task, script: &ScriptFile) -> Result<Command, Outcome> {
        let interpreter = script::interpreter(task.content())
            .map_err(|error| broke("the `#!` line names no interpreter", &error))?;
        let mut command = match interpreter {
            Some(interpreter) => {
                let mut command = Command::new(interpreter.program);
                command.args(interpreter.argument);
                command
            }
            None => Command::new(self.find_shell()?),
        };
        command.arg(script.path());
        Ok(command)
    }

    fn find_shell(&self) -> Result<&Path, Outcome> {
        if let Some(path) = self.shell_path.get() {
            return Ok(path);
        }
        let path = self.environment.find(&self.shell).map_err(|error| {
            broke(&format!("the shell `{}` is not in PATH", self.shell.display()), &error)
        })?;
        Ok(self.shell_path.get_or_init(|| path))
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
}

/// A launcher, and where its program is.
struct Program {
    parsed: Launcher,
    path: PathBuf,
}

fn start(mut command: Command, dir: &Path) -> Result<(Leader, Pipes), Outcome> {
    command
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(|error| {
        let program = Path::new(command.get_program()).display();
        broke(&format!("`{program}` cannot be started in `{}`", dir.display()), &error)
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // The leader comes first: once there is one, nothing that fails leaves the process behind.
    let watched = Leader::new(child).and_then(|leader| Ok((leader, Pipes::new(stdout, stderr)?)));
    watched.map_err(|error| broke("the process was ended: it cannot be watched", &error))
}

fn check_type(command_type: CommandType) -> Result<(), Outcome> {
    match command_type {
        CommandType::RunShellScript => Ok(()),
        other => Err(Outcome::Unsuitable {
            code: "CommandNotApplicable",
            info: format!("{other} does not run here; want {}", CommandType::RunShellScript),
        }),
    }
}

/// The directory to run in, if it can be entered.
fn check_working_dir(asked: Option<&Path>) -> Result<PathBuf, Outcome> {
    let dir = asked.map_or_else(std::env::home_dir, |dir| Some(dir.to_owned()));
    let fault = match &dir {
        None => "is not named and the host's user has no home".to_owned(),
        Some(dir) => match std::fs::metadata(dir) {
            Ok(found) if !found.is_dir() => "is no directory".to_owned(),
            Ok(_) => match rustix::fs::access(dir, rustix::fs::Access::EXEC_OK) {
                Ok(()) => return Ok(dir.clone()),
                Err(error) => format!("cannot be entered: {}", errno::describe(&error.into())),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                "does not exist and is not created".to_owned()
            }
            Err(error) => format!("cannot be looked at: {}", errno::describe(&error)),
        },
    };
    let named = dir.map_or(String::new(), |dir| format!(" `{}`", dir.display()));
    Err(Outcome::Unsuitable {
        code: "DirectoryNotExists",
        info: format!(
            "the working directory{named} {fault}; want one that exists and that the host's user may enter"
        ),
    })
}

fn broke(what: &str, error: &std::io::Error) -> Outcome {
    Outcome::Broke { info: format!("{what}: {}", errno::describe(error)) }
}

/// What to report for what was waited.
fn outcome(status: ExitStatus, ending: &Ending) -> Outcome {
    match (ending, status.code(), status.signal()) {
        (Ending::Asked(stop), exit_code, signal) => {
            Outcome::Stopped { signal, exit_code, info: stop.to_string() }
        }
        (Ending::ByItself, Some(code), _) => Outcome::Exited(code),
        (Ending::ByItself, None, Some(signal)) => Outcome::Signaled(signal),
        (Ending::ByItself, None, None) => {
            unreachable!("a process that was waited for has exited or was signalled")
        }
    }
}

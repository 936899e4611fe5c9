//! What is to be started: first in the words of its task, then as the kernel takes it.
//!
//! In between, names are looked up and places are tried, by whoever the run is for: in this process if
//! that is the host's own user, else in the helper that has become the user.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::environment::{self, User, Variables};
use super::{broke, errno};
use crate::command::launcher::Launcher;
use crate::execution::Outcome;

/// What is to be started, in the words of its task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub runner: Runner,
    /// The path of the script.
    pub script: OsString,
    /// The user's home if none is asked for.
    pub working_dir: Option<String>,
    /// Beside those of the user.
    pub variables: Vec<(OsString, OsString)>,
}

/// What the script is given to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Runner {
    /// The launcher of the task.
    Launcher(String),
    /// The interpreter that its `#!` line names.
    Interpreter {
        program: OsString,
        argument: Option<OsString>,
        /// What records call the program: its name in the script before the parameters were filled in. A value of a
        /// parameter may be a secret.
        name: OsString,
    },
    /// A path, or a name to look up in `PATH`.
    Shell(OsString),
    PowerShell,
}

/// What the kernel is told to run.
#[derive(Debug)]
pub(super) struct Start {
    /// Always a path: nothing is looked up any more.
    pub program: PathBuf,
    /// What the program is told it is called, and lists of processes show.
    pub name: PathBuf,
    /// What records call the program.
    pub name_in_records: PathBuf,
    pub arguments: Vec<OsString>,
    pub dir: PathBuf,
    pub environment: Variables,
}

impl Order {
    /// Looks up and tries what it names, as this process's user, for `user`.
    ///
    /// # Errors
    ///
    /// The outcome of a task that names what is not there.
    pub(super) fn resolve(self, user: &User) -> Result<Start, Outcome> {
        let dir = check_working_dir(self.working_dir.as_deref().map(Path::new), user)?;
        let mut environment = user.variables.clone();
        environment.extend(self.variables);
        let name_in_records = match &self.runner {
            Runner::Interpreter { name, .. } => Some(PathBuf::from(name)),
            Runner::Launcher(_) | Runner::Shell(_) | Runner::PowerShell => None,
        };
        let (program, arguments) = self.runner.command(self.script, &dir, &environment)?;
        let name_in_records = name_in_records.unwrap_or_else(|| program.clone());
        Ok(Start { name: program.clone(), name_in_records, program, arguments, dir, environment })
    }
}

impl Start {
    /// The outcome of a task whose program could not be started: another attempt would not find it either.
    pub(super) fn failed(&self, error: &io::Error) -> Outcome {
        let name = self.name_in_records.display();
        let what = if self.program.as_os_str().as_bytes().ends_with(b"\r") {
            let name = name.to_string();
            let name = name.strip_suffix('\r').unwrap_or(&name);
            format!("the script has Windows line ends: its `#!` line names `{name}\\r`")
        } else {
            format!("`{name}` cannot be started in `{}`", self.dir.display())
        };
        if is_of_program(error) { not_found(&what, error) } else { broke(&what, error) }
    }
}

impl Runner {
    fn command(
        self,
        script: OsString,
        dir: &Path,
        variables: &Variables,
    ) -> Result<(PathBuf, Vec<OsString>), Outcome> {
        match self {
            Self::Launcher(text) => launch(&text, &script, dir, variables),
            Self::Interpreter { program, argument, .. } => {
                Ok((program.into(), argument.into_iter().chain([script]).collect()))
            }
            Self::Shell(shell) => {
                let program = environment::find(Path::new(&shell), variables);
                let program = program.map_err(|error| {
                    not_found(&format!("the shell `{}` is not in PATH", shell.display()), &error)
                })?;
                Ok((program, vec![script]))
            }
            Self::PowerShell => {
                let program = environment::find(Path::new("pwsh"), variables).map_err(|_| {
                    let info = "PowerShell does not run here: there is no `pwsh` in PATH";
                    unsuitable("CommandNotApplicable", info.to_owned())
                })?;
                let mut arguments: Vec<OsString> =
                    ["-NoLogo", "-NoProfile", "-NonInteractive", "-File"].map(Into::into).into();
                arguments.push(script);
                Ok((program, arguments))
            }
        }
    }
}

/// The program that a launcher names, which has to be there, and its arguments.
fn launch(
    text: &str,
    script: &OsStr,
    dir: &Path,
    variables: &Variables,
) -> Result<(PathBuf, Vec<OsString>), Outcome> {
    let not_found =
        |why: String| unsuitable("LauncherNotFound", format!("the launcher `{text}`: {why}"));
    let script = script.to_str().ok_or_else(|| Outcome::Broke {
        info: "the folder of scripts has a name that is no UTF-8".to_owned(),
    })?;
    let (named, arguments) = Launcher::parse(text).map_err(not_found)?.command(script);
    // One with a `/` is a file, from the working directory on.
    let path = match named.contains('/') {
        true => dir.join(&named),
        false => environment::find(Path::new(&named), variables).unwrap_or_default(),
    };
    if !environment::is_program(&path) {
        return Err(not_found(format!("`{named}` is no program that can be started here")));
    }
    Ok((path, arguments.into_iter().map(OsString::from).collect()))
}

/// The directory to run in: the one asked for, if it can be entered; else the user's home, or `/` where
/// that cannot be.
fn check_working_dir(asked: Option<&Path>, user: &User) -> Result<PathBuf, Outcome> {
    let Some(dir) = asked else {
        let home = user.home.as_deref().map(Path::new);
        return Ok(home.filter(|home| enter(home).is_ok()).unwrap_or(Path::new("/")).to_owned());
    };
    enter(dir).map_err(|fault| {
        let info = format!(
            "the working directory `{}` {fault}; want one that exists and that the user may enter",
            dir.display()
        );
        unsuitable("DirectoryNotExists", info)
    })?;
    Ok(dir.to_owned())
}

/// Finds out whether this user may enter a directory; else why not.
fn enter(dir: &Path) -> Result<(), String> {
    match std::fs::metadata(dir) {
        Ok(found) if !found.is_dir() => Err("is no directory".to_owned()),
        Ok(_) => rustix::fs::access(dir, Access::EXEC_OK)
            .map_err(|error| format!("cannot be entered: {}", errno::describe(&error.into()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err("does not exist and is not created".to_owned())
        }
        Err(error) => Err(format!("cannot be looked at: {}", errno::describe(&error))),
    }
}

/// Whether an error of execve(2) says that there is no such program, and not that something else is short.
fn is_of_program(error: &io::Error) -> bool {
    use Errno as E;
    let all = [E::ACCESS, E::LOOP, E::NAMETOOLONG, E::NOENT, E::NOEXEC, E::NOTDIR];
    Errno::from_io_error(error).is_some_and(|errno| all.contains(&errno))
}

fn not_found(what: &str, error: &io::Error) -> Outcome {
    unsuitable("LauncherNotFound", format!("{what}: {}", errno::describe(error)))
}

pub(super) fn unsuitable(code: &'static str, info: String) -> Outcome {
    Outcome::Unsuitable { code, info }
}

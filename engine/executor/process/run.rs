//! One run: a script in a file of its own, a process that leads a group of its own, and two pipes.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::ExecutionContext;
use super::account::WithoutCapabilities;
use super::child::{Ending, Leader};
use super::entry::{Entry, Identity, Letter};
use super::environment::{self, Mark, User};
use super::family::Kin;
use super::files::Files;
use super::order::{Order, Runner, Start};
use super::pipes::Pipes;
use super::{ENDS_ARE_LOST, behind, broke, group, helper, kernel, standing};
use crate::command::content::Content;
use crate::command::launcher::Launcher;
use crate::execution::{Outcome, Usage};
use crate::invocation::TerminationMode;
use crate::invocation::resource_limits::ResourceLimits;

/// What breaks a run when somebody else took the exit status.
const LOST_STATUS: &str =
    "its exit status is lost; does the host ignore SIGCHLD, or wait for any child?";

/// All that a run has to know of its task.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Brief {
    /// What its files are called: no other run has this name.
    pub name: String,
    #[serde(with = "bytes")]
    pub content: Content,
    pub runner: Runner,
    pub working_dir: Option<String>,
    /// Beside those of the user.
    pub variables: Vec<(OsString, OsString)>,
    /// None for the host's own.
    pub username: Option<String>,
    pub limits: ResourceLimits,
    /// Whether it has a cgroup also if no limit needs one.
    pub has_group: bool,
    pub termination_mode: TerminationMode,
}

/// Where a run takes place.
pub(super) struct Place<'a> {
    /// Where its files are.
    pub scratch: &'a Path,
    pub mark: Mark,
    /// The number of the engine; none for a run with a keeper, which outlives its engine.
    pub engine: Option<u128>,
    /// The process that is there for this run only, and gets those of it who have lost their parents.
    pub reaper: Option<Pid>,
}

/// Carries out a run. `Err` is an outcome too: that of a run which never began, or whose end is not known.
pub(super) async fn carry_out(
    brief: &Brief,
    user: &User,
    place: Place<'_>,
    cx: &ExecutionContext,
) -> Result<Outcome, Outcome> {
    let scratch = place.scratch;
    let files = match brief.username {
        None => Files::create(scratch, &brief.name, &extension(&brief.runner), &brief.content),
        Some(_) => {
            Files::create_apart(scratch, &brief.name, &extension(&brief.runner), &brief.content)
        }
    };
    let files = files.map_err(|error| {
        broke(&format!("the script cannot be written in `{}`", scratch.display()), &error)
    })?;
    // A script goes away after the process that reads it.
    let outcome = carry_out_with(&files, brief, user, place, cx).await;
    files.close();
    outcome
}

async fn carry_out_with(
    files: &Files,
    brief: &Brief,
    user: &User,
    place: Place<'_>,
    cx: &ExecutionContext,
) -> Result<Outcome, Outcome> {
    let Place { scratch: _, mark, engine, reaper } = place;
    let (group, limits) = group::make(brief, mark, engine).await?;
    if cx.contact.order().is_some() {
        // The stop came while the engine made the cgroup.
        let info = "the execution had not been started".to_owned();
        return Err(Outcome::Stopped { signal: None, exit_code: None, info });
    }
    let kin = Kin { mark, reaper, group: group.clone(), folder: files.folder() };
    let own = environment::variables_of_run(files.result(), mark);
    let order = Order {
        runner: brief.runner.clone(),
        script: files.script().into(),
        working_dir: brief.working_dir.clone(),
        variables: brief.variables.iter().cloned().chain(own).collect(),
    };
    let identity = match &brief.username {
        Some(name) => Some(Identity::Account(name.clone())),
        None if group.is_some() || !limits.is_empty() || standing::needs_helper() => {
            Some(Identity::Host(user.clone()))
        }
        None => None,
    };
    let (started, letter) = match identity {
        None => (Started::new(&order.resolve(user)?, null()?, cx)?, None),
        Some(identity) => {
            let entrances = group.as_ref().map(|group| group.entrances()).unwrap_or_default();
            let entrances = entrances.into_iter().map(OsString::from).collect();
            let entry = Entry { order, identity, limits, entrances };
            let (started, letter) = Started::as_helper(&entry, mark, cx)?;
            (started, Some(letter))
        }
    };
    let Started { mut leader, mut pipes, lent_bytes } = started;

    let ending = pipes
        .read_during(leader.see_through(brief.termination_mode, kin.clone(), cx), cx)
        .await
        .map_err(|error| lost_sight("the process was lost sight of", &error, cx))?;
    let id = leader.id();
    // Reaped before its pipes are drained: from here on what it left behind is on its own.
    let (status, usage) =
        leader.reap(&ending).map_err(|error| lost_sight(LOST_STATUS, &error, cx))?;
    let is_left = async { ending == Ending::ByItself && behind::may_be_left(id, &kin).await };
    let (is_left, cut) = tokio::join!(is_left, pipes.drain(cx));
    // Dropped if it is not needed, because an owner of the group keeps the run from leaving its cgroup.
    let kin = Some(kin).filter(|_| is_left || cut.is_some());
    if let Some(kin) = kin {
        behind::report(id, kin, is_left, cut, cx).await;
    }
    let memory_peak_bytes = match group {
        Some(group) => group::leave(group, &ending, cx).await,
        None => None,
    };
    if let Some(refusal) = letter.and_then(Letter::refusal) {
        return Err(refusal);
    }
    let outcome = outcome(status, &ending);
    if let Some(remark) = limit_reached(&outcome, &brief.limits) {
        cx.report(|report| report.remark(&remark));
    }
    cx.report_usage(Usage {
        user_time: usage.user,
        system_time: usage.system,
        max_rss_bytes: Some(usage.max_rss_bytes).filter(|bytes| *bytes > lent_bytes),
        memory_peak_bytes,
    });
    match files.take_result() {
        Some(Ok(result)) => cx.report_result(result),
        Some(Err(why)) => cx.report_bad_result(why),
        None => {}
    }
    Ok(outcome)
}

/// A run that has begun.
struct Started {
    leader: Leader,
    pipes: Pipes,
    /// What the host has had of memory at most, which the process was lent before it ran its program.
    lent_bytes: u64,
}

impl Started {
    fn new(start: &Start, stdin: OwnedFd, cx: &ExecutionContext) -> Result<Self, Outcome> {
        check_ends()?;
        let without = WithoutCapabilities::new().map_err(|error| {
            broke("the capabilities of the host cannot be kept from the run", &error)
        })?;
        let spawned = standing::start(|| spawn(start, stdin));
        drop(without);
        Self::watch(spawned.map_err(|error| start.failed(&error))?, cx)
    }

    fn watch(
        (leader, readers, lent_bytes): (Pid, [OwnedFd; 2], u64),
        cx: &ExecutionContext,
    ) -> Result<Self, Outcome> {
        // The leader comes first: once there is one, nothing that fails leaves the process behind.
        let leader = Leader::new(leader);
        let watched = leader.and_then(|leader| Ok((leader, Pipes::new(readers)?)));
        let (leader, pipes) = watched.map_err(|error| {
            lost_sight("the process was ended: it cannot be watched", &error, cx)
        })?;
        Ok(Self { leader, pipes, lent_bytes })
    }

    /// One that begins as a helper, which reads what it is to become.
    fn as_helper(
        entry: &Entry,
        mark: Mark,
        cx: &ExecutionContext,
    ) -> Result<(Self, Letter), Outcome> {
        check_ends()?;
        let start = helper::for_entry(mark)?;
        let no_letter = |error| broke("the helper cannot be told what to do", &error);
        let letter = Letter::new(entry).map_err(no_letter)?;
        let stdin = letter.to_helper().map_err(no_letter)?;
        let helper = spawn(&start, stdin);
        Ok((
            Self::watch(helper.map_err(|error| broke("no helper can be started", &error))?, cx)?,
            letter,
        ))
    }
}

/// Refuses to start a process whose end the system would not report.
fn check_ends() -> Result<(), Outcome> {
    kernel::ends_are_lost().map_or(Ok(()), |why| {
        let info = format!("the process was not started: {why}, {ENDS_ARE_LOST}");
        Err(Outcome::Broke { info })
    })
}

/// Returns the outcome of a run that has begun and whose end is not known.
fn lost_sight(what: &str, error: &io::Error, cx: &ExecutionContext) -> Outcome {
    cx.report(|report| {
        report.may_have_succeeded = true;
        report.remark("the execution is not tried again, because it may have succeeded");
    });
    broke(what, error)
}

fn spawn(start: &Start, stdin: OwnedFd) -> io::Result<(Pid, [OwnedFd; 2], u64)> {
    let (stdout, stdout_of_process) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, stderr_of_process) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let leader = kernel::spawn(start, [stdin, stdout_of_process, stderr_of_process])?;
    behind::note_leader(leader);
    Ok((leader, [stdout, stderr], kernel::own_usage().max_rss_bytes))
}

/// An input that has nothing in it.
fn null() -> Result<OwnedFd, Outcome> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| broke("/dev/null cannot be opened", &error.into()))
}

/// What the name of the script's file is to end with.
fn extension(runner: &Runner) -> String {
    let wanted = match runner {
        Runner::Launcher(text) => Launcher::parse(text).ok().and_then(|parsed| parsed.extension),
        Runner::PowerShell => Some(".ps1".to_owned()),
        Runner::Interpreter { .. } | Runner::Shell(_) => None,
    };
    wanted.unwrap_or_else(|| ".sh".to_owned())
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

/// The limit that the kernel keeps with the signal which ended a run.
fn limit_reached(outcome: &Outcome, limits: &ResourceLimits) -> Option<String> {
    let Outcome::Signaled(ended_by) = *outcome else { return None };
    let kept = [
        (Signal::XCPU, "SIGXCPU", "CpuSeconds", limits.cpu_seconds),
        (Signal::XFSZ, "SIGXFSZ", "FileSizeBytes", limits.file_size_bytes),
    ];
    kept.into_iter().find(|(signal, ..)| signal.as_raw() == ended_by).and_then(
        |(_, signal, name, limit)| Some(format!("{signal}: {name} is limited to {}", limit?)),
    )
}

/// Bytes as texts that JSON can hold.
mod bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::Content;
    use crate::wire;

    pub(super) fn serialize<S: Serializer>(bytes: &Content, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&wire::to_base64(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Content, D::Error> {
        let text = String::deserialize(from)?;
        wire::from_base64(&text).map(Content::from).map_err(de::Error::custom)
    }
}

//! A control group of its own for each run: whoever a run starts is in it from birth, and cannot leave it
//! by changing its session, its parent or its environment.
//!
//! What can be had differs from machine to machine, and is found out once, by trying. Being able to kill
//! a whole group is what every group has; limits on memory and on processes are offered where the machine
//! offers them, and where it does not, why is said. A group may be one directory (v2), or one in each of
//! several hierarchies (v1, and both side by side).
//!
//! Two things are deliberately absent. No process is ever moved but by itself: the host stays where it is,
//! even where that keeps v2 from limiting its children. And nothing waits here without blocking: what
//! blocks says so, and is to be called where that hurts nobody.
//!
//! A process that may write to groups outside, as root may, can leave its group by moving itself.

mod group;
mod place;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use rustix::io::Errno;
use rustix::process::Pid;

use super::errno;
use crate::panics::tell;
use group::{Group, Kill};
use place::{Hierarchy, Place};

/// What the names of all groups begin with.
const PREFIX: &str = "adjutant-";

/// The file that lists the processes of a group, and that a process enters it by.
const PROCS: &str = "cgroup.procs";

/// The file that limits processes, alike in v1 and v2.
const PIDS_MAX: &str = "pids.max";

/// As many processes as the kernel can number; it refuses a greater limit, which would be none.
const PROCESSES_LIMIT_MAX: u64 = 4 * 1024 * 1024;

/// What groups this process can make, and where.
#[derive(Debug)]
pub(super) struct Cgroups {
    kill: Home<Kill>,
    /// Or why it cannot be limited.
    memory: Result<Home<Memory>, String>,
    /// Or why they cannot be limited.
    processes: Result<Home<()>, String>,
}

/// Where groups are made that can do something, and how that is done there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Home<T> {
    dir: PathBuf,
    how: T,
}

/// Whose files limit memory and tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    V1,
    V2,
}

/// The limits of one run; `None` is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Caps {
    /// Of all its processes together, in bytes, files in the page cache included. There is no swap beyond
    /// it. Whoever takes more is killed by the kernel, one process at a time.
    pub memory_bytes: Option<u64>,
    /// At one time. Each thread counts, as it does to the kernel. Beyond it `fork` fails.
    pub processes_max: Option<u64>,
}

/// What a group tells of the run that was in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// The most memory that it had at one time, if that is known.
    pub memory_peak_bytes: Option<u64>,
    /// Whether the kernel killed a process in it for want of memory: the group's, or the machine's.
    pub oom_killed: bool,
}

impl Cgroups {
    /// What this process can do. Found out at the first call, which blocks for about a millisecond.
    ///
    /// # Errors
    ///
    /// Why no group can be made here, or none that can be killed: a sentence for a record.
    pub(super) fn find() -> Result<&'static Self, &'static str> {
        static FOUND: OnceLock<Result<Cgroups, String>> = OnceLock::new();
        FOUND.get_or_init(Self::look).as_ref().map_err(String::as_str)
    }

    fn look() -> Result<Self, String> {
        let read = |path: &str| {
            fs::read(path)
                .map(|text| String::from_utf8_lossy(&text).into_owned())
                .map_err(|error| format!("{path}: {}", errno::describe(&error)))
        };
        let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        Self::among(|hierarchy| place::find(hierarchy, &mounts, &own))
    }

    /// What can be done in the groups that `place` finds this process in. v2 comes first in all.
    fn among(place: impl Fn(Hierarchy) -> Result<Place, String>) -> Result<Self, String> {
        let v2 = place(Hierarchy::V2).and_then(|place| v2::offer(&place));
        let v1 = |controller, file| {
            place(Hierarchy::V1(controller)).and_then(|place| v1::offer(&place.own, file))
        };
        let or_v1 = |v2: Result<PathBuf, &String>, controller, file| match v2 {
            Ok(dir) => Ok((dir, true)),
            Err(v2) => {
                v1(controller, file).map(|dir| (dir, false)).map_err(|v1| format!("{v2}; {v1}"))
            }
        };
        let in_v2 = |offered: fn(&v2::Offer) -> &Result<(), String>| {
            let offer = v2.as_ref()?;
            offered(offer).as_ref().map(|()| offer.dir.clone())
        };
        let lacks = |what: &'static str| {
            move |why| format!("this machine offers no writable {what} cgroup: {why}")
        };

        let kill = match &v2 {
            Ok(offer) => Home { dir: offer.dir.clone(), how: offer.kill },
            Err(v2) => {
                let dir = v1("freezer", v1::FREEZER_STATE)
                    .map_err(|v1| lacks("freezer or v2")(format!("{v2}; {v1}")))?;
                Home { dir, how: v1::FREEZER }
            }
        };
        let memory = or_v1(in_v2(|offer| &offer.memory), "memory", v1::MEMORY_LIMIT)
            .map(|(dir, v2)| Home { dir, how: if v2 { Memory::V2 } else { Memory::V1 } })
            .map_err(lacks("memory"));
        let processes = or_v1(in_v2(|offer| &offer.processes), "pids", PIDS_MAX)
            .map(|(dir, _)| Home { dir, how: () })
            .map_err(lacks("pids"));
        Ok(Self { kill, memory, processes })
    }

    /// Whether a group can limit the number of its processes.
    pub(super) fn limits_processes(&self) -> bool {
        self.processes.is_ok()
    }

    /// Returns whether processes stay in a group of another user's, whatever they do, and the kernel kills them together.
    pub(super) fn hold_others(&self) -> bool {
        self.kill.how != v1::FREEZER
    }

    /// Makes a group `adjutant-<name>` that limits nothing and tells nothing of memory, in the hierarchy by which
    /// groups are killed.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub(super) fn create_bare(&self, name: &str) -> io::Result<Cgroup> {
        let dir = self.kill.dir.join(group_name(name)?);
        make_dir(&dir)?;
        let group = Group { dirs: vec![dir], kill: self.kill.how };
        Ok(Cgroup { group, memory: None, is_left: false })
    }

    /// Makes a group `adjutant-<name>` with these limits. `name` begins with what no other engine's do.
    ///
    /// # Errors
    ///
    /// `Unsupported` if a limit is wanted that this machine does not offer, with the reason;
    /// `AlreadyExists` if there is such a group, which is left alone; else what keeps the kernel from it.
    pub(super) fn create(&self, name: &str, caps: Caps) -> io::Result<Cgroup> {
        let unsupported = |why: &String| io::Error::new(ErrorKind::Unsupported, why.clone());
        if let (Some(_), Err(why)) = (caps.memory_bytes, &self.memory) {
            return Err(unsupported(why));
        }
        if let (Some(_), Err(why)) = (caps.processes_max, &self.processes) {
            return Err(unsupported(why));
        }
        let name = group_name(name)?;
        let memory = self.memory.as_ref().ok();
        let memory = memory.map(|home| Home { dir: home.dir.join(&name), how: home.how });
        let group = Group { dirs: Vec::new(), kill: self.kill.how };
        let mut cgroup = Cgroup { group, memory, is_left: false };
        for home in self.homes() {
            let dir = home.join(&name);
            make_dir(&dir)?;
            // Dropped because the next one fails, it takes along those that it made, and only those.
            cgroup.group.dirs.push(dir);
        }
        if let (Some(bytes), Some(memory)) = (caps.memory_bytes, &cgroup.memory) {
            match memory.how {
                Memory::V1 => v1::limit_memory(&memory.dir, bytes)?,
                Memory::V2 => v2::limit_memory(&memory.dir, bytes)?,
            }
        }
        if let (Some(max), Ok(home)) = (caps.processes_max, &self.processes) {
            let max = if max > PROCESSES_LIMIT_MAX { "max".to_owned() } else { max.to_string() };
            write(&home.dir.join(&name).join(PIDS_MAX), &max)?;
        }
        Ok(cgroup)
    }

    /// Ends and removes the groups whose names begin with `prefix`: what an engine left that came to a
    /// sudden end. No other engine's names may begin so. Returns how many there were. Blocks until their
    /// processes are gone, for five seconds a group at most.
    ///
    /// # Errors
    ///
    /// What was in the way of the first group that is still there, after all have been tried.
    pub(super) fn sweep(&self, prefix: &str) -> io::Result<usize> {
        let prefix = group_name(prefix)?;
        let mut names = BTreeSet::new();
        for home in self.homes() {
            for entry in fs::read_dir(home).map_err(|error| named(home, &error))? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                // What is no directory is a file of the kernel's, and of another name.
                if name.starts_with(&prefix) {
                    names.insert(name);
                }
            }
        }
        let swept = names.iter().map(|name| {
            let dirs = self.homes().into_iter().map(|home| home.join(name)).collect();
            Group { dirs, kill: self.kill.how }.end()
        });
        swept.collect::<Vec<_>>().into_iter().collect::<io::Result<Vec<()>>>().map(|all| all.len())
    }

    /// Where a group has its directories, each once. That by which it is killed comes first.
    fn homes(&self) -> Vec<&Path> {
        let mut homes = vec![self.kill.dir.as_path()];
        let memory = self.memory.as_ref().ok().map(|home| home.dir.as_path());
        let processes = self.processes.as_ref().ok().map(|home| home.dir.as_path());
        for dir in memory.into_iter().chain(processes) {
            if !homes.contains(&dir) {
                homes.push(dir);
            }
        }
        homes
    }
}

/// The group of one run. Dropped before it is removed, it takes all its processes with it, on a thread
/// of its own if that takes a while.
#[derive(Debug)]
pub(super) struct Cgroup {
    group: Group,
    memory: Option<Home<Memory>>,
    /// Whether it is nobody's any more.
    is_left: bool,
}

impl Cgroup {
    /// The files that a process enters the group by: it writes `0` to each, in this order, while it has
    /// but one thread.
    pub(super) fn entrances(&self) -> Vec<PathBuf> {
        self.group.dirs.iter().map(|dir| dir.join(PROCS)).collect()
    }

    /// Returns whether processes of other users than root cannot leave the group.
    pub(super) fn holds_all(&self) -> bool {
        self.group.kill != v1::FREEZER
    }

    /// Who is in the group, and in groups that were made inside it. Those that have ended are not.
    ///
    /// # Errors
    ///
    /// If the kernel's lists cannot be read, such as for want of descriptors.
    pub(super) fn members(&self) -> io::Result<Vec<Pid>> {
        self.group.members()
    }

    /// Kills all processes of the group and waits until they are gone, also those that they start meanwhile.
    /// Blocks for five seconds at most; returns who is still there then.
    ///
    /// # Errors
    ///
    /// If they cannot be seen or signalled, such as for want of descriptors.
    pub(super) fn kill(&self) -> io::Result<Vec<Pid>> {
        self.group.kill()
    }

    /// What the group has to tell so far. What cannot be read is not known.
    pub(super) fn report(&self) -> Report {
        match &self.memory {
            Some(Home { dir, how: Memory::V1 }) => v1::report(dir),
            Some(Home { dir, how: Memory::V2 }) => v2::report(dir),
            None => Report::default(),
        }
    }

    /// Removes the group. Who is still in it goes on in the group above, without its limits. Blocks while
    /// processes that have been killed die, for five seconds at most.
    ///
    /// # Errors
    ///
    /// What kept the kernel from it. The group stays then, for a sweep to find.
    pub(super) fn release(mut self) -> io::Result<()> {
        self.is_left = true;
        self.group.release()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if self.is_left || self.group.try_remove().is_ok() {
            return;
        }
        let group = self.group.clone();
        let end = move || {
            if let Err(error) = group.end() {
                tell(|| tracing::warn!(%error, "a cgroup stays behind"));
            }
        };
        // Not on this thread, which may be one of the runtime's; and the runtime may be just shutting down.
        let ender = thread::Builder::new().name("adjutant-cgroup".into());
        if ender.spawn(end.clone()).is_err() {
            end();
        }
    }
}

/// The name of a group's directory.
fn group_name(name: &str) -> io::Result<String> {
    if name.is_empty() || name.contains('/') {
        let what = format!("`{name}` is no name of a cgroup: it is empty or has a `/`");
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    Ok(format!("{PREFIX}{name}"))
}

/// Makes a group, looks at it, and removes it again: what `look` says of it.
fn try_group<T>(parent: &Path, look: impl FnOnce(&Path) -> T) -> Result<T, String> {
    let dir = parent.join(format!("{PREFIX}try-{}", rustix::process::getpid()));
    match make_dir(&dir) {
        // What a process of the same number left that ended right here.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.to_string()),
        Ok(()) | Err(_) => {}
    }
    let seen = look(&dir);
    fs::remove_dir(&dir).map_err(|error| named(&dir, &error).to_string())?;
    Ok(seen)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    const MODE: u32 = 0o755;
    DirBuilder::new().mode(MODE).create(dir).map_err(|error| named(dir, &error))
}

/// Writes `value` to a file of the kernel's, which is there or not, but never made.
fn write(file: &Path, value: &str) -> io::Result<()> {
    let written = OpenOptions::new().write(true).open(file);
    written
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|error| named(file, &error))
}

/// The value of `key` in a file of lines `key value`.
fn keyed(file: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

/// The number that a file is.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim_end().parse().ok()
}

/// Whether the group is not there, or went while it was looked at.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::NODEV)
}

fn unless_gone(error: io::Error) -> io::Result<()> {
    if is_gone(&error) { Ok(()) } else { Err(error) }
}

/// `error` with the path that it is about. It keeps its kind, not its number.
fn named(path: &Path, error: &io::Error) -> io::Error {
    let kind = if is_gone(error) { ErrorKind::NotFound } else { error.kind() };
    io::Error::new(kind, format!("{}: {}", path.display(), errno::describe(error)))
}

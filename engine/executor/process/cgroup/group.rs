//! The processes of one group: seeing them, ending them, and removing the group after them.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::{PROCS, is_gone, named, unless_gone, v2, write};

/// How long to wait, of the machine's own time, before another look at a group whose processes are about to
/// end, and how often: five seconds in all. They mostly take none; one that is stuck in the kernel may take
/// for ever.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
const LOOKS_MAX: u32 = 5000;

/// How many processes are signalled between two looks at who is in the group, and so how many descriptors
/// that takes.
const SIGNALLED_AT_ONCE: usize = 16;

/// How all processes of a group are killed, so that none can start another meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kill {
    /// The kernel does it.
    AtOnce,
    /// They are killed one by one while they are frozen: the file, and what is written to it.
    Frozen { file: &'static str, freeze: &'static str, thaw: &'static str },
}

/// The directories of one group. One that is not there has no members, and is removed.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The first lists all members: whoever enters, enters that first.
    pub dirs: Vec<PathBuf>,
    pub kill: Kill,
}

impl Group {
    pub(super) fn members(&self) -> io::Result<Vec<Pid>> {
        let mut members = Vec::new();
        let Some(dir) = self.dirs.first() else { return Ok(members) };
        for dir in with_groups_inside(dir)? {
            let procs = dir.join(PROCS);
            match fs::read_to_string(&procs) {
                // A process of another PID namespace is listed as 0, and can only be killed with all.
                Ok(list) => members.extend(list.lines().filter_map(pid)),
                Err(error) if is_gone(&error) => {}
                // A threaded group; the group that it is part of lists its processes.
                Err(error) if Errno::from_io_error(&error) == Some(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(named(&procs, &error)),
            }
        }
        Ok(members)
    }

    pub(super) fn kill(&self) -> io::Result<Vec<Pid>> {
        let mut members = self.members()?;
        for _ in 0..LOOKS_MAX {
            if members.is_empty() {
                break;
            }
            self.kill_once()?;
            thread::sleep(LOOK_AGAIN);
            members = self.members()?;
        }
        Ok(members)
    }

    fn kill_once(&self) -> io::Result<()> {
        let Some(dir) = self.dirs.first() else { return Ok(()) };
        let Kill::Frozen { file, freeze, thaw } = self.kill else {
            return write(&dir.join(v2::KILL), "1").or_else(unless_gone);
        };
        write(&dir.join(file), freeze).or_else(unless_gone)?;
        let signalled = self.signal_all();
        // Whatever comes: a process dies of its signal only when it is thawed.
        write(&dir.join(file), thaw).or_else(unless_gone)?;
        signalled
    }

    /// Sends SIGKILL to all members, until no look finds one that has not been sent it.
    fn signal_all(&self) -> io::Result<()> {
        let mut signalled = BTreeSet::new();
        loop {
            let mut members = self.members()?;
            members.retain(|pid| signalled.insert(pid.as_raw_nonzero()));
            if members.is_empty() {
                return Ok(());
            }
            for some in members.chunks(SIGNALLED_AT_ONCE) {
                self.signal(some)?;
            }
        }
    }

    /// Sends SIGKILL to those that are still members. What has a member's number once its descriptor
    /// is open is that member, or the descriptor's process has ended: no stranger is hit.
    fn signal(&self, some: &[Pid]) -> io::Result<()> {
        let mut opened = Vec::with_capacity(some.len());
        for pid in some {
            match rustix::process::pidfd_open(*pid, PidfdFlags::empty()) {
                Ok(pidfd) => opened.push((*pid, pidfd)),
                Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let members = self.members()?;
        for (_, pidfd) in opened.iter().filter(|(pid, _)| members.contains(pid)) {
            match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
                // Who may not be signalled, such as one that runs as somebody else by now, is still there in the end.
                Ok(()) | Err(Errno::SRCH | Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Removes the directories, if that can be done at once.
    pub(super) fn try_remove(&self) -> io::Result<()> {
        // The first comes last: a sweep that is cut short still finds the members by it.
        for dir in self.dirs.iter().rev() {
            for dir in with_groups_inside(dir)?.iter().rev() {
                fs::remove_dir(dir).or_else(unless_gone).map_err(|error| named(dir, &error))?;
            }
        }
        Ok(())
    }

    /// Moves all members to the groups above, and removes these.
    pub(super) fn release(&self) -> io::Result<()> {
        for _ in 0..LOOKS_MAX {
            match self.try_remove() {
                Err(error) if error.kind() == ErrorKind::ResourceBusy => {}
                done => return done,
            }
            self.move_up()?;
            thread::sleep(LOOK_AGAIN);
        }
        self.try_remove()
    }

    fn move_up(&self) -> io::Result<()> {
        for top in &self.dirs {
            let Some(above) = top.parent().map(|above| above.join(PROCS)) else { continue };
            for dir in with_groups_inside(top)? {
                for line in fs::read_to_string(dir.join(PROCS)).unwrap_or_default().lines() {
                    let procs = OpenOptions::new().write(true).open(&above);
                    match procs.and_then(|mut procs| procs.write_all(line.as_bytes())) {
                        // One that has just ended is in no group to be moved from.
                        Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
                        moved => moved.map_err(|error| named(&above, &error))?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Kills all members and removes the group. Blocks like both.
    pub(super) fn end(&self) -> io::Result<()> {
        let left = self.kill()?;
        if !left.is_empty() {
            return Err(busy(&self.dirs, &left));
        }
        self.release()
    }
}

fn busy(dirs: &[PathBuf], members: &[Pid]) -> io::Error {
    let dir = dirs.first().map(|dir| dir.display().to_string()).unwrap_or_default();
    let what = format!("{dir} has {} processes, such as {}", members.len(), members[0]);
    io::Error::new(ErrorKind::ResourceBusy, what)
}

/// `dir` and the groups inside it, each before those inside itself; nothing if it is not there.
fn with_groups_inside(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut dirs = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = dirs.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(named(&dir, &error)),
        };
        for entry in entries {
            match entry.and_then(|entry| Ok((entry.file_type()?, entry.path()))) {
                Ok((kind, path)) if kind.is_dir() => dirs.push(path),
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(named(&dir, &error)),
            }
        }
    }
    Ok(dirs)
}

fn pid(line: &str) -> Option<Pid> {
    line.parse().ok().and_then(Pid::from_raw)
}

//! Every process of the machine at one moment, as `/proc` tells it. Shared by all who ask about
//! the same user at the same time: when thousands of runs time out together, they are counted once.

mod desk;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use memchr::memchr;
use rustix::io::Errno;
use rustix::process::Pid;

use super::environment::Mark;
use desk::{Ask, Desk, NoMark};

/// A process that had not ended when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: Pid,
    pub parent: Option<Pid>,
    pub group: Option<Pid>,
    /// When it started, in ticks since boot: with its pid this names it and no other.
    pub started: u64,
    pub name: String,
    /// The mark of the run that it got its environment from, if that was asked for, can be read and has one.
    pub mark: Option<Mark>,
}

/// The processes that live.
#[derive(Debug, Clone, Default)]
pub(super) struct Census {
    pub processes: HashMap<Pid, Process>,
    /// Processes that were asked for their mark and do not answer.
    pub silent: Vec<Pid>,
}

impl Census {
    /// Adds the marks of a census that asked other processes.
    pub(super) fn add_marks(&mut self, other: &Self) {
        for (pid, process) in other.processes.iter().filter(|(_, one)| one.mark.is_some()) {
            match self.processes.get_mut(pid) {
                Some(known) if known.started == process.started => known.mark = process.mark,
                _ => drop(self.processes.insert(*pid, process.clone())),
            }
        }
    }
}

/// The processes that are asked for their mark. A process can keep whoever asks it waiting, so nobody is asked who
/// cannot belong to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Nobody,
    /// Processes of the user with this number.
    User(u32),
}

/// Returns a census that was begun after this call. Takes some milliseconds.
///
/// # Errors
///
/// If some process is there that cannot be looked at, such as for want of descriptors: one left out would
/// pass for one that has ended.
pub(super) async fn take(asked: Asked) -> io::Result<Arc<Census>> {
    Desk::of(asked).count().await
}

/// Waits for a look, for a bounded time.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`] once the time is over.
pub(super) async fn in_time<T>(
    limit: Duration,
    look: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "/proc does not answer"));
    tokio::time::timeout(limit, look).await.unwrap_or_else(late)
}

/// Returns whether one of these processes belongs to those that are asked, and has this mark.
///
/// # Errors
///
/// If a process cannot be looked at, or does not answer.
pub(super) async fn has_mark(pids: Vec<Pid>, asked: Asked, mark: Mark) -> io::Result<bool> {
    Desk::of(asked).has_mark(pids, mark).await
}

/// Returns a process that may be asked.
fn find(pid: Pid, asked: Asked) -> io::Result<Option<Process>> {
    if is_asked(pid, asked) { look_at(pid) } else { Ok(None) }
}

/// Returns whether a process may be asked. The owner of the folder is the effective user of the process, also of a
/// process that lets nobody look at it. A program with a set-user-ID bit has another effective user than the run that
/// has started it; its real user stays the run's.
fn is_asked(pid: Pid, asked: Asked) -> bool {
    let Asked::User(user) = asked else { return false };
    // A process that has ended meanwhile has no mark either.
    let Ok(found) = fs::metadata(format!("/proc/{pid}")) else { return false };
    if found.uid() == user {
        return true;
    }
    // Only root may look into such a process.
    rustix::process::geteuid().is_root()
        && fs::read(format!("/proc/{pid}/status"))
            .is_ok_and(|status| real_user(&status) == Some(user))
}

/// Returns the real user in the status of a process. A name with a line break in it is escaped there.
fn real_user(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Counts all processes, and asks some of them.
fn count(asked: Asked, ask: &dyn Ask) -> io::Result<Census> {
    let pid = |entry: io::Result<fs::DirEntry>| {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // A process that ends while it is looked at is none any more.
        look_at(pid.and_then(Pid::from_raw)?).transpose()
    };
    let ask = Among { asked, ask };
    among(fs::read_dir("/proc")?.filter_map(pid), &ask)
}

/// Asks only some processes.
struct Among<'a> {
    asked: Asked,
    ask: &'a dyn Ask,
}

impl Ask for Among<'_> {
    fn mark_of(&self, process: &Process) -> Result<Option<Mark>, NoMark> {
        if is_asked(process.pid, self.asked) { self.ask.mark_of(process) } else { Ok(None) }
    }
}

/// Asks these processes for their marks.
fn among(
    processes: impl Iterator<Item = io::Result<Process>>,
    ask: &dyn Ask,
) -> io::Result<Census> {
    let mut census = Census::default();
    for process in processes {
        let mut process = process?;
        match ask.mark_of(&process) {
            Ok(mark) => process.mark = mark,
            Err(NoMark::Silence) => census.silent.push(process.pid),
            Err(NoMark::Error(error)) => return Err(error),
            Err(NoMark::TakenOver) => return Err(io::ErrorKind::TimedOut.into()),
        }
        census.processes.insert(process.pid, process);
    }
    Ok(census)
}

/// A process as it is now, its mark aside; none if there is none, or it has ended and is only still
/// there. Does not block, as a look at its environment may.
pub(super) fn look_at(pid: Pid) -> io::Result<Option<Process>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => parse(pid, &stat),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::SRCH) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Looks at a process without an environment, and the wait before each further look: 5 ms in all.
const LOOKS_MAX: u32 = 50;
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// Returns the mark of a process; `None` also if there is no such process, or if its environment cannot be read. A
/// process that is just becoming another program has no environment for a moment; it is looked at again.
fn mark_of(pid: Pid) -> io::Result<Option<Mark>> {
    let open = |file: &str| unless_hidden(File::open(format!("/proc/{pid}/{file}")));
    for _ in 0..LOOKS_MAX {
        let Some(environment) = open("environ")? else { return Ok(None) };
        let Some((mark, is_empty)) = unless_hidden(find_mark(environment))? else {
            return Ok(None);
        };
        // A process that has arguments was given an empty environment. A thread of the kernel never has either.
        let has_arguments = || -> io::Result<bool> {
            let Some(mut arguments) = open("cmdline")? else { return Ok(true) };
            Ok(unless_hidden(arguments.read(&mut [0]))?.is_none_or(|bytes| bytes > 0))
        };
        if !is_empty || has_arguments()? || !may_have_environment(pid)? {
            return Ok(mark);
        }
        thread::sleep(LOOK_AGAIN);
    }
    Ok(None)
}

/// Returns `None` for a process that has ended or that this user must not look into.
fn unless_hidden<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The bytes of an environment that are read at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// The bytes of an environment that are read at most. The mark comes first in what the engine gives to a run. Shells
/// have an order of their own; a process that moves the mark behind all this could as well remove it.
const ENVIRONMENT_BYTES_MAX: usize = 64 * 1024;
/// More than a mark has bytes, with the name of its variable.
const MARK_BYTES_MAX: usize = 64;

/// Returns the mark in an environment, and whether the environment is empty.
fn find_mark(mut environment: impl Read) -> io::Result<(Option<Mark>, bool)> {
    let (mut text, mut read_bytes) = (Vec::new(), 0);
    // Whether the text begins inside a variable.
    let mut is_inside = false;
    while read_bytes < ENVIRONMENT_BYTES_MAX {
        let piece = (&mut environment).take(PIECE_BYTES as u64).read_to_end(&mut text)?;
        read_bytes += piece;
        let whole = match is_inside {
            true => memchr(0, &text).map_or(&[][..], |end| &text[end + 1..]),
            false => &text[..],
        };
        let mark = Mark::of(whole);
        if mark.is_some() || piece < PIECE_BYTES {
            return Ok((mark, read_bytes == 0));
        }
        // The last variable may go on in the next piece.
        let last = memchr::memrchr(0, &text).map_or(0, |end| end + 1);
        is_inside &= last == 0;
        text.drain(..last);
        if text.len() > MARK_BYTES_MAX {
            text.clear();
            is_inside = true;
        }
    }
    Ok((None, false))
}

/// Returns whether a process has not ended and is no thread of the kernel.
fn may_have_environment(pid: Pid) -> io::Result<bool> {
    const FLAGS: usize = 6;
    const OF_KERNEL: u32 = 0x0020_0000;
    if look_at(pid)?.is_none() {
        return Ok(false);
    }
    // Because the process lives, its line is complete.
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let name_end = stat.iter().rposition(|byte| *byte == b')').map_or(0, |close| close + 1);
    let fields = str::from_utf8(&stat[name_end..]).unwrap_or_default();
    let flags = fields.split_ascii_whitespace().nth(FLAGS).and_then(|flags| flags.parse().ok());
    Ok(flags.is_some_and(|flags: u32| flags & OF_KERNEL == 0))
}

/// Reads `pid (name) state ppid pgrp … num_threads … starttime …`. The name may hold anything,
/// parentheses too, and is cut after 15 bytes, even inside a character.
fn parse(pid: Pid, stat: &[u8]) -> io::Result<Option<Process>> {
    const THREADS: usize = 17;
    const STARTED: usize = 19;
    let unknown = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat: no such line is known"),
        )
    };
    let close = stat.iter().rposition(|byte| *byte == b')').ok_or_else(unknown)?;
    let open = stat[..close].iter().position(|byte| *byte == b'(').ok_or_else(unknown)?;
    let fields = str::from_utf8(&stat[close + 1..]).map_err(|_| unknown())?;
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    let number = |field: usize| -> io::Result<i64> {
        fields.get(field).and_then(|field| field.parse().ok()).ok_or_else(unknown)
    };
    // Of a process whose first thread has ended, that thread is a zombie until the others end.
    match *fields.first().ok_or_else(unknown)? {
        "X" => return Ok(None),
        "Z" if number(THREADS)? <= 1 => return Ok(None),
        _ => {}
    }
    // A process that is just being reaped has the group -1.
    let id = |field: usize| -> io::Result<Option<Pid>> {
        Ok(i32::try_from(number(field)?).ok().filter(|id| *id > 0).and_then(Pid::from_raw))
    };
    Ok(Some(Process {
        pid,
        parent: id(1)?,
        group: id(2)?,
        started: fields.get(STARTED).and_then(|field| field.parse().ok()).ok_or_else(unknown)?,
        name: String::from_utf8_lossy(&stat[open + 1..close]).into_owned(),
        mark: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let pid = Pid::from_raw(9).expect("a pid");
        let read = |head: &[u8], threads: u64| {
            let tail = format!(" 0 0 0 0 0 0 0 0 0 0 0 0 0 {threads} 0 77 0");
            parse(pid, &[head, tail.as_bytes()].concat()).expect("a line")
        };
        let check = |head: &[u8], threads: u64, (name, parent, group): (&str, i32, i32)| {
            let want = Process {
                pid,
                parent: Pid::from_raw(parent),
                group: Pid::from_raw(group),
                started: 77,
                name: name.to_owned(),
                mark: None,
            };
            assert_eq!(read(head, threads), Some(want), "{}", head.escape_ascii());
        };
        check(b"9 (sh) S 1 7 7", 1, ("sh", 1, 7));
        check(b"9 (a) R) b) D 0 7 7", 1, ("a) R) b", 0, 7));
        check(b"9 (((\n) S 1 7 7", 1, ("((\n", 1, 7));
        check(b"9 () S 1 -1 -1", 1, ("", 1, 0));
        check(b"9 (\xc3\xa9\xc3) S 1 7 7", 1, ("é\u{fffd}", 1, 7));
        check(b"9 (sh) Z 1 7 7", 2, ("sh", 1, 7));
        for ended in [&b"9 (sh) Z 1 7 7"[..], b"9 (sh) Z 1 -1 -1", b"9 (sh) X 1 7 7"] {
            assert_eq!(read(ended, 1), None, "{}", ended.escape_ascii());
        }
        for no_line in [&b"9 (sh) S 1 7 7"[..], b"9 (sh) Z 1 7 7", b"9 (sh)", b"9 (sh", b") S", b""]
        {
            assert!(parse(pid, no_line).is_err(), "{}", no_line.escape_ascii());
        }
    }

    #[test]
    fn the_real_user_of_a_process_is_read_from_its_status() {
        let check = |status: &str, want: Option<u32>| {
            assert_eq!(real_user(status.as_bytes()), want, "{status}");
        };
        check("Name:\ta\nUid:\t1000\t0\t0\t0\nGid:\t7\t7\t7\t7\n", Some(1_000));
        check("Uid:\t0\t1000\t0\t0\n", Some(0));
        check("Name:\tUid:\t5\\nUid:\t6\n", None);
        check("Uid:\n", None);
        check("", None);
        let own = fs::read("/proc/self/status").expect("it is there");
        assert_eq!(real_user(&own), Some(rustix::process::getuid().as_raw()));
    }

    #[tokio::test]
    async fn this_process_is_counted_whoever_is_asked() {
        let own = rustix::process::getpid();
        let user = rustix::process::geteuid().as_raw();
        for asked in [Asked::Nobody, Asked::User(user), Asked::User(user + 1)] {
            let census = take(asked).await.expect("/proc");
            assert_eq!(census.processes[&own].parent, rustix::process::getppid());
            assert!(take(asked).await.expect("/proc").processes.contains_key(&own));
        }
    }

    #[test]
    fn marks_are_found_in_long_environments_up_to_a_bound() {
        let mark = Mark::new(1, crate::id::ExecutionId(2), 3);
        let marked = format!("ADJUTANT_RUN={mark}\0");
        let check = |before: &str, want: Option<Mark>| {
            for environment in [format!("{before}{marked}"), format!("{before}{marked}A=b\0")] {
                let (found, is_empty) = find_mark(environment.as_bytes()).expect("it can be read");
                assert_eq!((found, is_empty), (want, false), "{} bytes before", before.len());
            }
        };
        check("", Some(mark));
        // The mark lies on either side of the end of a piece, and across it.
        for bytes in PIECE_BYTES - 2 * MARK_BYTES_MAX..PIECE_BYTES + MARK_BYTES_MAX {
            check(&format!("A={}\0", "x".repeat(bytes)), Some(mark));
            check(&format!("A={}\0B=c\0", "x".repeat(bytes)), Some(mark));
            check(&format!("A={}", "x".repeat(bytes)), None);
        }
        check(&"A=b\0".repeat(ENVIRONMENT_BYTES_MAX / 8), Some(mark));
        check(&"A=b\0".repeat(ENVIRONMENT_BYTES_MAX / 4), None);
        assert_eq!(find_mark(&b""[..]).expect("read"), (None, true));
    }
}

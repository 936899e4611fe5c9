//! Every process of the machine at one moment, as `/proc` tells it. Shared by all who ask at the same
//! time: when thousands of runs time out together, they are counted once.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Pid;

use super::environment::Mark;

/// A process that had not ended when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: Pid,
    pub parent: Option<Pid>,
    pub group: Option<Pid>,
    /// When it started, in ticks since boot: with its pid this names it and no other.
    pub started: u64,
    pub name: String,
    /// The mark of the run that it got its environment from, if that can be read and has one.
    pub mark: Option<Mark>,
}

/// Those that live, by their pid.
pub(super) type Census = HashMap<Pid, Process>;

/// How many censuses have been begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);
/// The last one, and its number. Held while one is taken.
static LAST: Mutex<(u64, Option<Arc<Census>>)> = Mutex::new((0, None));

/// A census that was begun after this call. Blocks for some milliseconds.
///
/// # Errors
///
/// If some process is there that cannot be looked at, such as for want of descriptors: one left out would
/// pass for one that has ended.
pub(super) fn take() -> io::Result<Arc<Census>> {
    let begun_before = BEGUN.load(Ordering::SeqCst);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let (number, Some(census)) = &*last
        && *number > begun_before
    {
        return Ok(Arc::clone(census));
    }
    let number = BEGUN.fetch_add(1, Ordering::SeqCst) + 1;
    let census = Arc::new(count()?);
    *last = (number, Some(Arc::clone(&census)));
    Ok(census)
}

fn count() -> io::Result<Census> {
    let mut census = Census::new();
    let mut looks = LOOKS_MAX;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        // A process that ends while it is looked at is none any more.
        if let Some(mut process) = look_at(pid)? {
            process.mark = mark_of(pid, &mut looks)?;
            census.insert(pid, process);
        }
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

/// The number of second looks of a census at processes without an environment, and the wait before each: 50 ms in
/// all.
const LOOKS_MAX: u32 = 500;
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// Returns the mark of a process; `None` also if there is no such process, or if its environment cannot be read.
pub(super) fn mark(pid: Pid) -> io::Result<Option<Mark>> {
    mark_of(pid, &mut 0)
}

/// Returns the mark of a process; `None` also if its environment cannot be read. A process that is just becoming
/// another program has no environment for a moment; it is looked at again.
fn mark_of(pid: Pid, looks: &mut u32) -> io::Result<Option<Mark>> {
    let read = |file: &str| match fs::read(format!("/proc/{pid}/{file}")) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => Ok(None),
            _ => Err(error),
        },
    };
    loop {
        let Some(environment) = read("environ")? else { return Ok(None) };
        // A process that has arguments was given an empty environment. A thread of the kernel never has either.
        let is_whole =
            !environment.is_empty() || read("cmdline")?.is_none_or(|all| !all.is_empty());
        if is_whole || *looks == 0 || !may_have_environment(pid)? {
            return Ok(Mark::of(&environment));
        }
        *looks -= 1;
        thread::sleep(LOOK_AGAIN);
    }
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
    fn this_process_is_counted() {
        let own = rustix::process::getpid();
        let census = take().expect("/proc");
        assert_eq!(census[&own].parent, rustix::process::getppid());
        assert!(take().expect("/proc").contains_key(&own));
    }
}

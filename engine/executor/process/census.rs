//! Every process of the machine at one moment, as `/proc` tells it. Shared by all who ask at the same
//! time: when thousands of runs time out together, they are counted once.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::Pid;

use super::environment::{EXECUTION_ID, INVOKE_ID};

/// A process that had not ended when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: Pid,
    pub parent: Option<Pid>,
    pub group: Option<Pid>,
    /// When it started, in ticks since boot: with its pid this names it and no other.
    pub started: u64,
    pub name: String,
    /// The run that it got its environment from, if that can be read and names one.
    pub run: Option<Run>,
}

/// What the environment of a run's processes says of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub invoke_id: String,
    pub execution_id: String,
}

/// Those that live, by their pid.
pub(super) type Census = HashMap<Pid, Process>;

/// How many censuses have been begun.
static BEGUN: AtomicU64 = AtomicU64::new(0);
/// The last one, and its number. Held while one is taken.
static LAST: Mutex<(u64, Option<Arc<Census>>)> = Mutex::new((0, None));

/// A census that was begun after this call. Blocks for some milliseconds.
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
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        // A process that ends while it is looked at is none any more.
        if let Some(process) = pid.and_then(look_at) {
            census.insert(process.pid, process);
        }
    }
    Ok(census)
}

/// A process as it is now; none if there is none, or it has ended and is only still there.
pub(super) fn look_at(pid: Pid) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut process = parse(pid, &stat)?;
    // Not for everybody to read: then the run it is of cannot be told this way.
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    process.run = run_of(&environment);
    Some(process)
}

/// Reads `pid (name) state ppid pgrp … starttime …`; the name may hold anything, parentheses too.
fn parse(pid: Pid, stat: &str) -> Option<Process> {
    const STARTED: usize = 19;
    let (before, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    if matches!(fields.first(), None | Some(&"Z" | &"X")) {
        return None;
    }
    // A process that is just being reaped has the group -1.
    let id = |field: usize| {
        let number = fields.get(field)?.parse().ok().filter(|number| *number > 0)?;
        Pid::from_raw(number)
    };
    Some(Process {
        pid,
        parent: id(1),
        group: id(2),
        started: fields.get(STARTED)?.parse().ok()?,
        name: before.split_once('(').map_or("", |(_, name)| name).to_owned(),
        run: None,
    })
}

fn run_of(environment: &[u8]) -> Option<Run> {
    let value = |name: &str| {
        let variable = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
        Some(String::from_utf8_lossy(variable).into_owned())
    };
    Some(Run { invoke_id: value(INVOKE_ID)?, execution_id: value(EXECUTION_ID)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let pid = Pid::from_raw(9).expect("a pid");
        let check = |stat: &str, want: Option<(&str, i32, i32, u64)>| {
            let want = want.map(|(name, parent, group, started)| Process {
                pid,
                parent: Pid::from_raw(parent),
                group: Pid::from_raw(group),
                started,
                name: name.to_owned(),
                run: None,
            });
            assert_eq!(parse(pid, stat), want, "{stat}");
        };
        let rest = "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 77 0";
        check(&format!("9 (sh) S 1 7 7 {rest}"), Some(("sh", 1, 7, 77)));
        check(&format!("9 (a) R) b) D 0 7 7 {rest}"), Some(("a) R) b", 0, 7, 77)));
        check(&format!("9 (sh) S 1 -1 -1 {rest}"), Some(("sh", 1, 0, 77)));
        check(&format!("9 (sh) Z 1 7 7 {rest}"), None);
        check("9 (sh) S 1 7 7", None);
        check("9 (sh", None);
        check("", None);
    }

    #[test]
    fn environments() {
        let check = |environment: &str, want: Option<(&str, &str)>| {
            let want = want.map(|(invoke_id, execution_id)| Run {
                invoke_id: invoke_id.to_owned(),
                execution_id: execution_id.to_owned(),
            });
            assert_eq!(run_of(environment.as_bytes()), want, "{environment}");
        };
        let (invoke, execution) = ("ADJUTANT_INVOKE_ID=t-1", "ADJUTANT_EXECUTION_ID=17");
        check(&format!("A=b\0{invoke}\0{execution}\0"), Some(("t-1", "17")));
        check(&format!("X{invoke}\0{execution}\0"), None);
        check(&format!("{invoke}\0"), None);
        check("", None);
    }

    #[test]
    fn this_process_is_counted() {
        let own = rustix::process::getpid();
        let census = take().expect("/proc");
        assert_eq!(census[&own].parent, rustix::process::getppid());
        assert!(take().expect("/proc").contains_key(&own));
    }
}

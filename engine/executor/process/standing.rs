//! What a process inherits beside its rights: the mask for the modes of its files, its share of the processor and of
//! the disks, and its place among those that the kernel ends for want of memory. A run of another user has none of the
//! host's privileges in this either. A run of the host's own user has what the host has, but for the mask: files of a
//! run are not writable by everybody just because the host says nothing about that.

use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use rustix::fs::Mode;

use super::kernel;

/// The permissions that files of runs do not have from the start: writing for others than their user.
const MASK: Mode = Mode::WGRP.union(Mode::WOTH);
/// The slack of the timers of a process, as the kernel has it by default.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::new(50_000).expect("it is not zero");
/// How long the mask of the host counts as known. To read it takes longer than a part of a spawn.
const MASK_KNOWN: Duration = Duration::from_secs(1);

/// Makes this process, which is about to become another user's, an ordinary one.
///
/// # Errors
///
/// What cannot be set, in words.
pub(super) fn become_ordinary() -> Result<(), String> {
    let failed =
        |what: &str, error: io::Error| format!("{what}: {}", super::errno::describe(&error));
    rustix::process::umask(MASK);
    kernel::schedule_as_others().map_err(|error| failed("sched_setscheduler", error))?;
    let nice = rustix::process::getpriority_process(None).unwrap_or_default();
    if nice < 0 {
        rustix::process::setpriority_process(None, 0)
            .map_err(|error| failed("setpriority", error.into()))?;
    }
    kernel::reset_io_priority().map_err(|error| failed("ioprio_set", error))?;
    // The limits that say how far a process may raise its own priority.
    for (name, limit) in
        [("RLIMIT_NICE", Resource::RLIMIT_NICE), ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO)]
    {
        setrlimit(limit, 0, 0).map_err(|error| failed(name, error.into()))?;
    }
    may_be_ended_for_memory().map_err(|error| failed("oom_score_adj", error))?;
    // A kernel without this gives every process the same slack.
    let _ = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS));
    Ok(())
}

/// Lets the kernel end this process for want of memory not later than others.
fn may_be_ended_for_memory() -> io::Result<()> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let adjusted: i32 = fs::read_to_string(FILE)?.trim().parse().unwrap_or(-1);
    if adjusted < 0 { fs::write(FILE, "0") } else { Ok(()) }
}

/// Lets files of this process not be writable by others than their user from the start.
pub(super) fn tighten_mask() {
    let mask = rustix::process::umask(MASK);
    rustix::process::umask(mask | MASK);
}

/// Starts a process of the host's own user with [`tighten_mask`], although the host may have another mask.
///
/// # Errors
///
/// If there is no thread for it.
pub(super) fn start<T: Send>(spawn: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    match mask_of_host() {
        mask if mask.contains(MASK) => spawn(),
        mask => kernel::masked(mask | MASK, spawn)?,
    }
}

/// Returns whether [`start`] cannot do it, so that a helper has to.
pub(super) fn needs_helper() -> bool {
    static CAN_MASK: OnceLock<bool> = OnceLock::new();
    !mask_of_host().contains(MASK) && !CAN_MASK.get_or_init(|| kernel::masked(MASK, || ()).is_ok())
}

/// Returns the mask of this process. The system call that tells the mask changes it.
fn mask_of_host() -> Mode {
    static KNOWN: Mutex<Option<(Instant, Mode)>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    match *known {
        Some((since, mask)) if since.elapsed() < MASK_KNOWN => mask,
        _ => {
            let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
            let mask = mask_in(&status).unwrap_or(Mode::empty());
            *known = Some((Instant::now(), mask));
            mask
        }
    }
}

fn mask_in(status: &str) -> Option<Mode> {
    let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok().map(Mode::from_raw_mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_a_process_is_read_from_its_status() {
        let check = |status: &str, want: Option<u32>| {
            assert_eq!(mask_in(status).map(Mode::as_raw_mode), want, "{status}");
        };
        check("Name:\ta\nUmask:\t0022\nState:\tS\n", Some(0o022));
        check("Umask:\t0777\n", Some(0o777));
        check("Umask:\t0000\n", Some(0));
        check("Name:\tUmask:\n", None);
        check("Umask:\tx\n", None);
    }
}

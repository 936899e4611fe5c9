//! Processes that a run leaves behind when its own process has ended: its other processes, and processes that hold
//! its outputs. The record names them, and the engine keeps their writes from ending them; nothing else is done about
//! them.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::sync::oneshot;

use super::census::{self, Asked, Census};
use super::environment::Mark;
use super::family::{Family, Kin, Named, listed};
use super::heirs;
use super::pipes::Cut;
use super::{ExecutionContext, errno, kernel};
use crate::output::Stream;

/// The longest time for the look, in the machine's own time, because the record waits for the look.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// The time in which processes may end that are there when their run ends: the last process of a pipeline is often a
/// moment late.
const LATE_MAX: Duration = Duration::from_millis(20);

/// Processes that are looked at one by one. If there are more, a census of the whole machine is taken, which costs
/// milliseconds.
const LOOKED_AT_MAX: usize = 256;
/// Leaders of runs that are remembered, so that they need no look.
const LEADERS_MAX: usize = 8_192;

/// The leaders of runs that this process has started last.
static LEADERS: Mutex<Leaders> =
    Mutex::new(Leaders { in_order: VecDeque::new(), all: BTreeSet::new() });

struct Leaders {
    in_order: VecDeque<i32>,
    all: BTreeSet<i32>,
}

/// Notes that this process leads a run.
pub(super) fn note_leader(leader: Pid) {
    let leader = leader.as_raw_nonzero().get();
    let mut known = LEADERS.lock().unwrap_or_else(PoisonError::into_inner);
    if known.all.insert(leader) {
        known.in_order.push_back(leader);
    }
    if known.in_order.len() > LEADERS_MAX
        && let Some(oldest) = known.in_order.pop_front()
    {
        known.all.remove(&oldest);
    }
}

/// Returns whether a run may have left processes behind; `true` too if that cannot be found out. Called once the
/// process of the run is reaped. The call mostly costs a few microseconds.
pub(super) async fn may_be_left(leader: Pid, kin: &Kin) -> bool {
    // The number of a group is not given again as long as a process is in the group.
    let has_group = rustix::process::test_kill_process_group(leader) != Err(Errno::SRCH);
    let has_cgroup = || {
        kin.group.as_ref().is_some_and(|group| match group.members() {
            Ok(members) => !members.is_empty(),
            Err(_) => true,
        })
    };
    if has_group || has_cgroup() || (kin.reaper.is_some() && has_children()) {
        return true;
    }
    let asked = kin.asked();
    if asked == Asked::Nobody {
        return false;
    }
    match newer_than(leader) {
        None => true,
        Some(pids) => has_mark(pids, asked, kin.mark).await,
    }
}

/// Returns whether one of these processes has this mark, or cannot be looked at in time.
async fn has_mark(mut pids: Vec<Pid>, asked: Asked, mark: Mark) -> bool {
    // Most numbers belong to processes that have ended. The check saves the way to another thread for them.
    pids.retain(|pid| rustix::process::test_kill_process(*pid) != Err(Errno::SRCH));
    if pids.is_empty() {
        return false;
    }
    let looked = census::in_time(LOOK_MAX, census::has_mark(pids, asked, mark)).await;
    !matches!(looked, Ok(false))
}

/// Returns the numbers of processes that may have started since this one, without other leaders; `None` if they are
/// too many to be looked at. The numbers of all processes that a run has started were given later than the number of
/// its leader.
fn newer_than(leader: Pid) -> Option<Vec<Pid>> {
    // The last field is the process number that was given last.
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let last: i32 = load.split_ascii_whitespace().next_back()?.parse().ok()?;
    let leader = leader.as_raw_nonzero().get();
    let count = usize::try_from(last.checked_sub(leader)?).ok()?;
    if count > LEADERS_MAX {
        return None;
    }
    let known = LEADERS.lock().unwrap_or_else(PoisonError::into_inner);
    let newer = (leader..=last).skip(1).filter(|pid| !known.all.contains(pid));
    let newer: Vec<Pid> = newer.take(LOOKED_AT_MAX + 1).filter_map(Pid::from_raw).collect();
    (newer.len() <= LOOKED_AT_MAX).then_some(newer)
}

/// Returns whether this process has a child that has not ended. Processes that have lost their parents become its
/// children.
fn has_children() -> bool {
    while let Some(ended) = kernel::ended_child() {
        if kernel::try_wait(ended).is_err() {
            break;
        }
    }
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::process::waitid(WaitId::All, look).is_ok()
}

/// Puts into the record the processes that are left of a run and the processes that hold its outputs, and has the
/// outputs read on.
pub(super) async fn report(
    leader: Pid,
    kin: Kin,
    is_left: bool,
    cut: Option<Cut>,
    cx: &ExecutionContext,
) {
    let held = cut.as_ref().map(|cut| cut.held.as_slice()).unwrap_or_default();
    let pipes: io::Result<Vec<u64>> = held.iter().map(|(_, pipe)| inode_of(pipe)).collect();
    let pipes = pipes.map_err(|error| errno::describe(&error));
    let mut looked = look(leader, &kin, &pipes).await;
    if cut.is_none() && matches!(&looked, Ok((left, _)) if !left.is_empty()) {
        tokio::time::sleep(LATE_MAX).await;
        looked = look(leader, &kin, &pipes).await;
    }
    // Dropped here, because the run leaves its cgroup only once no other owner holds the group.
    drop(kin);
    let (mut left, holders) = looked.as_ref().cloned().unwrap_or_default();
    left.retain(|named| !holders.contains(named));
    if let Some(Cut { why, held }) = cut {
        let streams: Vec<_> = held.iter().map(|(stream, _)| name_of(*stream)).collect();
        let mut remark = format!("output on {} cut {why}", streams.join(" and "));
        match (&looked, listed("held by", &holders)) {
            (Err(why), _) => {
                remark.push_str(&format!("; its holders could not be looked for: {why}"));
            }
            (Ok(_), Some(holding)) => remark.push_str(&format!(", {holding}")),
            (Ok(_), None) => remark.push_str(", held by a process that cannot be looked at"),
        }
        if !heirs::read_on(held.into_iter().map(|(_, pipe)| pipe).collect()) {
            remark
                .push_str("; no reader is left for this output, so a write to it ends its writer");
        }
        cx.report(|report| report.remark(&remark));
    }
    if is_left && let Err(why) = &looked {
        let remark = format!("processes that the run left could not be looked for: {why}");
        cx.report(|report| report.remark(&remark));
    }
    if let Some(left) = listed("left running:", &left) {
        cx.report(|report| report.remark(&left));
    }
}

/// Returns the processes that are left of a run, and the processes that hold these pipes.
///
/// # Errors
///
/// The reason, in words, why the processes cannot be looked for.
async fn look(
    leader: Pid,
    kin: &Kin,
    pipes: &Result<Vec<u64>, String>,
) -> Result<(BTreeSet<Named>, BTreeSet<Named>), String> {
    let pipes = pipes.clone()?;
    let look = async {
        let census = census::take(kin.asked()).await?;
        let mut family = Family::new(leader, kin.clone());
        family.update(&census);
        let holders =
            if pipes.is_empty() { BTreeSet::new() } else { find_holders(census, pipes).await? };
        Ok((family.names(), holders))
    };
    census::in_time(LOOK_MAX, look).await.map_err(|error| errno::describe(&error))
}

/// Returns the processes that have one of these pipes open, found on a thread of its own.
async fn find_holders(census: Arc<Census>, pipes: Vec<u64>) -> io::Result<BTreeSet<Named>> {
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name("adjutant-census".into());
    // Whoever has stopped to wait needs no answer.
    thread.spawn(move || tell.send(holders(&census, &pipes)).map_err(drop))?;
    told.await.map_err(io::Error::other)
}

fn name_of(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
    }
}

fn inode_of(pipe: &OwnedFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(pipe.as_fd())?.st_ino)
}

/// Returns the processes that have one of these pipes open, without this process.
fn holders(census: &Census, pipes: &[u64]) -> BTreeSet<Named> {
    let mut holders = BTreeSet::new();
    let own = rustix::process::getpid();
    for process in census.processes.values().filter(|process| process.pid != own) {
        // The descriptors of another user's process cannot be read, and an ended process has none.
        let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid));
        for descriptor in descriptors.into_iter().flatten().flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode = target
                .to_str()
                .and_then(|target| target.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok());
            if inode.is_some_and(|inode: u64| pipes.contains(&inode)) {
                holders.insert(Named::new(process.pid, process.name.clone()));
            }
        }
    }
    holders
}

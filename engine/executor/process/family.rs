//! Everything that a run has started, wherever it has gone: into a session of its own, or to another
//! parent because its own is gone.
//!
//! Three things tell of it: its process group, its ancestors as far as they live, and the
//! environment that it inherited, which has the run's mark. Only processes of the run's user are asked for
//! their mark, and none where the run has a cgroup that nobody of it can leave. What has left all three behind, by clearing
//! its environment in a session of its own under a parent that has ended, is nobody's any more.
//! Whoever was found once is known from then on, by a number and a start that are this process's and no
//! later one's; so are those whom it starts. Descriptors are held for one member at a time, however many
//! there are: the host's supply of them is what the looks live on too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::census::{self, Asked, Census, Process};
use super::cgroup::Cgroup;
use super::environment::Mark;

/// How long a look may take, of the machine's own time: some milliseconds are usual, but a process can keep
/// whoever reads its environment waiting.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The processes of a run, its leader aside.
#[derive(Debug)]
pub(super) struct Family {
    leader: Pid,
    kin: Kin,
    members: HashMap<Pid, Member>,
    /// Processes of the run's user that did not answer at the last look.
    silent: BTreeSet<Named>,
}

/// What tells the processes of a run from others.
#[derive(Debug, Clone)]
pub(super) struct Kin {
    pub mark: Mark,
    /// The process that is there for this run only, whose children are all of it.
    pub reaper: Option<Pid>,
    /// That of the run, if it has one.
    pub group: Option<Arc<Cgroup>>,
    /// The folder that is the user's of the run; none if that is the user of this process.
    pub folder: Option<Arc<Path>>,
}

impl Kin {
    /// Returns the processes that may have the mark of the run.
    pub(super) fn asked(&self) -> Asked {
        let own = rustix::process::geteuid();
        // The helper gives the folder to the user before it becomes the user.
        let owner = self.folder.as_ref().and_then(|folder| fs::symlink_metadata(folder).ok());
        let user = owner.map_or(own.as_raw(), |owner| owner.uid());
        let is_held = own.is_root() && user != 0;
        match &self.group {
            Some(group) if is_held && group.holds_all() => Asked::Nobody,
            _ => Asked::User(user),
        }
    }
}

/// A process that is known by its number and its start.
#[derive(Debug)]
pub(super) struct Member {
    pub started: u64,
    pub name: String,
    /// Whether a signal for the leader's group does not reach it.
    pub strayed: bool,
}

/// What there is of a member to wait on.
pub(super) enum Watch {
    /// A descriptor that becomes readable when it ends.
    Member(OwnedFd),
    /// Nothing: one has ended already, or there is none.
    Ended,
    /// Nothing, for want of descriptors.
    Unwatchable,
}

/// A process, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pid: i32,
    name: String,
}

impl Named {
    pub(super) fn new(pid: Pid, name: String) -> Self {
        Self { pid: pid.as_raw_nonzero().get(), name }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (", self.pid)?;
        for char in self.name.chars() {
            match char.is_control() {
                true => write!(f, "{}", char.escape_default())?,
                false => write!(f, "{char}")?,
            }
        }
        f.write_str(")")
    }
}

/// Names in a record, at most; how many more there are is said.
const NAMES_MAX: usize = 20;

/// These processes after what is said of them; nothing if there are none.
pub(super) fn listed(what: &str, named: &BTreeSet<Named>) -> Option<String> {
    let names: Vec<_> = named.iter().take(NAMES_MAX).map(ToString::to_string).collect();
    let more = match named.len().saturating_sub(NAMES_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!named.is_empty()).then(|| format!("{what} {}{more}", names.join(", ")))
}

impl Family {
    /// Of the run that this process leads.
    pub(super) fn new(leader: Pid, kin: Kin) -> Self {
        Self { leader, kin, members: HashMap::new(), silent: BTreeSet::new() }
    }

    /// Looks who is there: members that have come, members that are gone.
    ///
    /// # Errors
    ///
    /// If that cannot be told, or takes too long; who was known stays so.
    pub(super) async fn look(&mut self) -> io::Result<()> {
        let census = census::in_time(LOOK_MAX, census::take(self.kin.asked())).await?;
        self.update(&census);
        Ok(())
    }

    /// Takes in who is there by a census: members that have come, members that are gone.
    pub(super) fn update(&mut self, census: &Census) {
        self.members.retain(|pid, member| {
            census.processes.get(pid).is_some_and(|process| process.started == member.started)
        });
        self.silent = names_of_silent(census);
        for process in self.find(census) {
            let member = self.members.entry(process.pid);
            // It may have become another program since.
            let member = member.and_modify(|member| member.name.clone_from(&process.name));
            member.or_insert_with(|| Member {
                started: process.started,
                name: process.name.clone(),
                strayed: process.group != Some(self.leader),
            });
        }
    }

    /// Those of a census that belong here.
    fn find<'a>(&self, census: &'a Census) -> Vec<&'a Process> {
        let mut children: HashMap<Pid, Vec<&Process>> = HashMap::new();
        for process in census.processes.values() {
            if let Some(parent) = process.parent {
                children.entry(parent).or_default().push(process);
            }
        }
        // A list that cannot be read leaves those to be found in the other ways.
        let group = self.kin.group.as_ref().and_then(|group| group.members().ok());
        let group: HashSet<Pid> = group.unwrap_or_default().into_iter().collect();
        let is_one = |process: &&Process| {
            group.contains(&process.pid)
                || process.group == Some(self.leader)
                || process.mark == Some(self.kin.mark)
                || (process.parent.is_some() && process.parent == self.kin.reaper)
                || self.members.contains_key(&process.pid)
        };
        let mut found: HashMap<Pid, &Process> = HashMap::new();
        let mut open: Vec<&Process> = census.processes.values().filter(is_one).collect();
        open.extend(census.processes.get(&self.leader));
        while let Some(process) = open.pop() {
            if found.insert(process.pid, process).is_none() {
                let children = children.get(&process.pid).into_iter().flatten();
                // An older one is the child of an earlier process of this number.
                open.extend(children.filter(|child| child.started >= process.started));
            }
        }
        found.remove(&self.leader);
        found.into_values().collect()
    }

    /// Has the kernel kill all who are in the group of the run, if it has one, so that none can start
    /// another meanwhile.
    pub(super) async fn kill_group(&self) {
        if let Some(group) = self.kin.group.clone() {
            // Who is left is found by the next look.
            let _ = tokio::task::spawn_blocking(move || group.kill()).await;
        }
    }

    /// Whether nobody was there at the last look.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Sends all a signal.
    pub(super) fn signal(&self, signal: Signal) {
        self.members.iter().for_each(|(pid, member)| member.signal(*pid, signal));
    }

    /// Sends those a signal whom one for the leader's group does not reach: nobody is to get it
    /// twice, for some take a second one for the order to drop everything.
    pub(super) fn signal_strays(&self, signal: Signal) {
        let strays = self.members.iter().filter(|(_, member)| member.strayed);
        strays.for_each(|(pid, member)| member.signal(*pid, signal));
    }

    /// Some member, to wait for its end.
    pub(super) fn any(&self) -> Watch {
        self.members.iter().next().map_or(Watch::Ended, |(pid, member)| member.watch(*pid))
    }

    /// Returns the processes of the run's user that did not answer at the last look, and are not known to be of the run.
    pub(super) fn silent(&self) -> BTreeSet<Named> {
        &self.silent - &self.names()
    }

    /// Who was there at the last look.
    pub(super) fn names(&self) -> BTreeSet<Named> {
        self.members.iter().map(|(pid, member)| Named::new(*pid, member.name.clone())).collect()
    }
}

/// Returns the processes that do not answer.
pub(super) fn names_of_silent(census: &Census) -> BTreeSet<Named> {
    let silent = census.silent.iter().filter_map(|pid| census.processes.get(pid));
    silent.map(|process| Named::new(process.pid, process.name.clone())).collect()
}

impl Member {
    /// A descriptor that means this process; none if it has ended.
    fn open(&self, pid: Pid) -> io::Result<Option<OwnedFd>> {
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The number may have been given to another between the look and the opening.
        let now = census::look_at(pid)?;
        Ok(now.filter(|now| now.started == self.started).map(|_| pidfd))
    }

    /// Returns a way to wait for the end of the process.
    pub(super) fn watch(&self, pid: Pid) -> Watch {
        match self.open(pid) {
            Ok(Some(pidfd)) => Watch::Member(pidfd),
            Ok(None) => Watch::Ended,
            Err(_) => Watch::Unwatchable,
        }
    }

    pub(super) fn signal(&self, pid: Pid, signal: Signal) {
        // One that has ended needs none; one of another user, or that there was no descriptor for, is
        // named in the end.
        if let Ok(Some(pidfd)) = self.open(pid) {
            let _ = rustix::process::pidfd_send_signal(pidfd, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ExecutionId;

    #[test]
    fn a_family_is_found_by_group_ancestors_and_mark() {
        let pid = |number| Pid::from_raw(number).expect("a pid");
        let process = |number, parent, group, mark: Option<Mark>| Process {
            pid: pid(number),
            parent: Some(pid(parent)),
            group: Some(pid(group)),
            started: 5,
            name: String::new(),
            mark,
        };
        let mark = |execution| Some(Mark::new(1, ExecutionId(execution), 1));
        let (own, other) = (mark(1), mark(2));
        let older = |process| Process { started: 4, ..process };
        let processes = [
            process(10, 2, 10, own),          // the leader
            process(11, 10, 10, own),         // its child
            process(12, 11, 12, None),        // with a session and an environment of its own
            process(13, 12, 12, None),        // and its child
            process(14, 1, 14, own),          // gone to another parent
            process(15, 14, 15, None),        // and its child
            process(16, 1, 10, None),         // still in the group
            older(process(17, 12, 17, None)), // child of an earlier 12
            process(20, 2, 20, other),        // another run
            process(21, 1, 21, None),         // nobody's
            process(22, 3, 22, None),         // gone to the run's own reaper
            process(2, 1, 2, None),           // the host
        ];
        let processes = processes.into_iter().map(|process| (process.pid, process)).collect();
        let mut census = Census { processes, silent: Vec::new() };
        let family = Family::new(
            pid(10),
            Kin { mark: own.expect("a mark"), reaper: Some(pid(3)), group: None, folder: None },
        );
        let check = |census: &Census, want: &[i32]| {
            let mut found: Vec<_> =
                family.find(census).iter().map(|found| found.pid.as_raw_nonzero().get()).collect();
            found.sort_unstable();
            assert_eq!(found, want);
        };
        check(&census, &[11, 12, 13, 14, 15, 16, 22]);
        census.processes.remove(&pid(10));
        check(&census, &[11, 12, 13, 14, 15, 16, 22]);
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        let check = |name: &str, want: &str| {
            let named = Named::new(Pid::from_raw(7).expect("a pid"), name.to_owned());
            assert_eq!(named.to_string(), want);
        };
        check("sh", "7 (sh)");
        check("é\u{fffd} '\"\\", "7 (é\u{fffd} '\"\\)");
        check("a\n\u{1b}[2J\u{9b}", "7 (a\\n\\u{1b}[2J\\u{9b})");
    }
}

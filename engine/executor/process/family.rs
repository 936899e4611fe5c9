//! Everything that a run has started, wherever it has gone: into a session of its own, or to another
//! parent because its own is gone.
//!
//! Three things tell of it: its process group, its ancestors as far as they live, and the
//! environment that it inherited, which names the run. What has left all three behind, by clearing
//! its environment in a session of its own under a parent that has ended, is nobody's any more.
//! Whoever was found once is known from then on, with a descriptor that means this process and no
//! later one of its number; so are those whom it starts.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal};

use super::census::{self, Census, Process, Run};

/// The processes of a run, its leader aside.
#[derive(Debug)]
pub(super) struct Family {
    leader: Pid,
    run: Run,
    members: HashMap<Pid, Member>,
}

#[derive(Debug)]
struct Member {
    started: u64,
    name: String,
    /// Whether a signal for the leader's group does not reach it.
    strayed: bool,
    pidfd: OwnedFd,
}

/// A process, for people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    pid: i32,
    name: String,
}

impl From<Process> for Named {
    fn from(process: Process) -> Self {
        Self { pid: process.pid.as_raw_nonzero().get(), name: process.name }
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.pid, self.name)
    }
}

impl Family {
    /// Of the run that this process leads.
    pub(super) fn new(leader: Pid, run: Run) -> Self {
        Self { leader, run, members: HashMap::new() }
    }

    /// Looks who is there: members that have come, members that are gone.
    pub(super) async fn look(&mut self) -> io::Result<()> {
        let census = tokio::task::spawn_blocking(census::take);
        let census = census.await.map_err(io::Error::other)??;
        self.members.retain(|pid, member| {
            census.get(pid).is_some_and(|process| process.started == member.started)
        });
        for process in self.find(&census) {
            if !self.members.contains_key(&process.pid)
                && let Some(member) = Member::of(process, self.leader)
            {
                self.members.insert(process.pid, member);
            }
        }
        Ok(())
    }

    /// Those of a census that belong here.
    fn find<'a>(&self, census: &'a Census) -> Vec<&'a Process> {
        let mut children: HashMap<Pid, Vec<&Process>> = HashMap::new();
        for process in census.values() {
            if let Some(parent) = process.parent {
                children.entry(parent).or_default().push(process);
            }
        }
        let is_one = |process: &&Process| {
            process.group == Some(self.leader)
                || process.run.as_ref() == Some(&self.run)
                || self.members.contains_key(&process.pid)
        };
        let mut found: HashMap<Pid, &Process> = HashMap::new();
        let mut open: Vec<&Process> = census.values().filter(is_one).collect();
        open.extend(children.get(&self.leader).into_iter().flatten());
        while let Some(process) = open.pop() {
            if process.pid != self.leader && found.insert(process.pid, process).is_none() {
                open.extend(children.get(&process.pid).into_iter().flatten());
            }
        }
        found.into_values().collect()
    }

    /// Whether nobody was there at the last look.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Sends all a signal.
    pub(super) fn signal(&self, signal: Signal) {
        self.members.values().for_each(|member| member.signal(signal));
    }

    /// Sends those a signal whom one for the leader's group does not reach: nobody is to get it
    /// twice, for some take a second one for the order to drop everything.
    pub(super) fn signal_strays(&self, signal: Signal) {
        let strays = self.members.values().filter(|member| member.strayed);
        strays.for_each(|member| member.signal(signal));
    }

    /// A descriptor that becomes readable when some member ends; a copy, to be waited on.
    pub(super) fn any(&self) -> Option<OwnedFd> {
        self.members.values().find_map(|member| member.pidfd.try_clone().ok())
    }

    /// Who was there at the last look.
    pub(super) fn names(&self) -> Vec<Named> {
        let name = |(pid, member): (&Pid, &Member)| Named {
            pid: pid.as_raw_nonzero().get(),
            name: member.name.clone(),
        };
        self.members.iter().map(name).collect()
    }
}

impl Member {
    /// The process, if it still is the one that was counted.
    fn of(process: &Process, leader: Pid) -> Option<Self> {
        let pidfd = rustix::process::pidfd_open(process.pid, PidfdFlags::empty()).ok()?;
        // The number may have been given to another between the count and the opening.
        let now = census::look_at(process.pid)?;
        let is_same = now.started == process.started;
        let strayed = now.group != Some(leader);
        is_same.then(|| Self { started: now.started, name: now.name, strayed, pidfd })
    }

    fn signal(&self, signal: Signal) {
        // One that has ended needs none, and one of another user is named in the end.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_found_by_group_ancestors_and_environment() {
        let pid = |number| Pid::from_raw(number).expect("a pid");
        let run = |execution_id: &str| Run {
            invoke_id: "t-1".to_owned(),
            execution_id: execution_id.to_owned(),
        };
        let process = |number, parent, group, run: Option<Run>| Process {
            pid: pid(number),
            parent: Some(pid(parent)),
            group: Some(pid(group)),
            started: 1,
            name: String::new(),
            run,
        };
        let processes = [
            process(10, 2, 10, Some(run("17"))),  // the leader
            process(11, 10, 10, Some(run("17"))), // its child
            process(12, 11, 12, None),            // with a session and an environment of its own
            process(13, 12, 12, None),            // and its child
            process(14, 1, 14, Some(run("17"))),  // gone to another parent
            process(15, 14, 15, None),
            process(16, 1, 10, None),            // still in the group
            process(20, 2, 20, Some(run("18"))), // another run
            process(21, 1, 21, None),            // nobody's
            process(2, 1, 2, None),              // the host
        ];
        let census = processes.into_iter().map(|process| (process.pid, process)).collect();
        let family = Family::new(pid(10), run("17"));
        let mut found: Vec<_> =
            family.find(&census).iter().map(|process| process.pid.as_raw_nonzero().get()).collect();
        found.sort_unstable();
        assert_eq!(found, [11, 12, 13, 14, 15, 16]);
    }
}

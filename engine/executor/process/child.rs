//! The process of a run: seeing it end, making it end, and reaping it.
//!
//! A process that has ended stays a zombie until it is reaped, and as long as it is one the kernel
//! gives its pid, which is also the number of its group, to nobody else. So the pidfd tells of the
//! end without reaping, every signal goes out before the reaping, and the reaping comes last.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use tokio::io::unix::AsyncFd;

use super::ExecutionContext;
use super::census;
use super::errno;
use super::family::{Family, Kin, Named, Watch, listed};
use super::kernel::{self, Rusage};
use crate::invocation::TerminationMode;
use crate::panics::tell;

/// How a process came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Before anybody asked.
    ByItself,
    /// After it had been sent a signal.
    Asked(Stop),
}

/// What a stop came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub mode: TerminationMode,
    /// Who had to be killed, for asking was not enough.
    killed: BTreeSet<Named>,
    /// Who could not even be killed.
    left: BTreeSet<Named>,
    /// Why nobody could be looked for beyond the group, if so.
    unseen: Option<String>,
    /// Processes of the run's user that may belong to the run, because they do not say whether they do.
    silent: BTreeSet<Named>,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unseen = self.unseen.as_ref();
        let parts = [
            listed("it took SIGKILL to end", &self.killed),
            listed("still there after SIGKILL:", &self.left),
            unseen.map(|why| format!("what had left the group could not be looked for: {why}")),
            listed("not known whether it started", &self.silent),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

/// How long a process may take to end that has been killed. It mostly takes none; one that is stuck in
/// the kernel may take for ever.
const KILL_MAX: Duration = Duration::from_secs(5);

/// How often those are reaped who have lost their parents.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// How long to wait, of the machine's own time, before another look for what cannot be watched.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A child that leads a process group of its own. Dropped before it is reaped, it takes the whole
/// group with it.
#[derive(Debug)]
pub(super) struct Leader {
    // Declared first, so closed first: nothing watches a process that is being reaped.
    pidfd: AsyncFd<OwnedFd>,
    group: Group,
}

impl Leader {
    /// Takes charge of a child, which must lead its group and is nobody else's.
    ///
    /// # Errors
    ///
    /// If it cannot be watched, such as for want of descriptors. It is killed then, with its group.
    pub(super) fn new(child: Pid) -> io::Result<Self> {
        let group = Group { id: child, reaped: false };
        Ok(Self { pidfd: watch(group.id)?, group })
    }

    /// Returns the number of the process, which is the number of its group too.
    pub(super) fn id(&self) -> Pid {
        self.group.id
    }

    /// Waits for the end, and brings it about once the engine asks for it, together with that of its
    /// `kin`.
    ///
    /// # Errors
    ///
    /// If the process cannot be watched or signalled any more.
    pub(super) async fn see_through(
        &mut self,
        mode: TerminationMode,
        kin: Kin,
        cx: &ExecutionContext,
    ) -> io::Result<Ending> {
        tokio::select! {
            // What has ended by itself has, even if a stop comes in the same instant.
            biased;
            ended = self.ended() => return ended.map(|()| Ending::ByItself),
            _ = cx.stop_asked() => {}
            () = self.reap_orphans(), if kin.reaper.is_some() => {}
        }
        if self.group.leader_has_ended()? {
            return Ok(Ending::ByItself);
        }
        let mut stop = Stop {
            mode,
            killed: BTreeSet::new(),
            left: BTreeSet::new(),
            unseen: None,
            silent: BTreeSet::new(),
        };
        match mode {
            TerminationMode::Process => self.stop_process(&mut stop, cx).await?,
            TerminationMode::ProcessTree => {
                let mut family = Family::new(self.group.id, kin);
                self.stop_family(&mut family, &mut stop, cx).await?;
            }
        }
        Ok(Ending::Asked(stop))
    }

    /// Reaps, for ever, those who have lost their parents to this process, and have ended.
    async fn reap_orphans(&self) {
        let mut look = tokio::time::interval(REAP_EVERY);
        loop {
            look.tick().await;
            // The one whose end is waited for hides the others, but not for long.
            while let Some(orphan) = kernel::ended_child().filter(|ended| *ended != self.group.id) {
                if kernel::try_wait(orphan).is_err() {
                    break;
                }
            }
        }
    }

    async fn stop_process(&self, stop: &mut Stop, cx: &ExecutionContext) -> io::Result<()> {
        self.signal(Signal::TERM)?;
        // A stopped process would notice only when it is continued.
        self.signal(Signal::CONT)?;
        tokio::select! {
            biased;
            ended = self.ended() => return ended,
            () = cx.sleep(cx.stop_grace()) => {}
        }
        stop.killed.insert(self.named());
        self.signal(Signal::KILL)?;
        self.ended().await
    }

    async fn stop_family(
        &self,
        family: &mut Family,
        stop: &mut Stop,
        cx: &ExecutionContext,
    ) -> io::Result<()> {
        // Before anybody has ended, and taken along who its children were. A look that fails holds up
        // nothing: the group can be stopped without.
        let seen = family.look().await;
        self.group.signal(Signal::TERM)?;
        family.signal_strays(Signal::TERM);
        // A stopped process would notice only when it is continued.
        self.group.signal(Signal::CONT)?;
        family.signal_strays(Signal::CONT);
        tokio::select! {
            biased;
            ended = self.all_ended(family), if seen.is_ok() => return ended,
            () = cx.sleep(cx.stop_grace()) => {}
        }
        if !self.group.leader_has_ended()? {
            stop.killed.insert(self.named());
        }
        let killed = match seen {
            Ok(()) => self.kill_family(family, stop, cx).await?,
            Err(error) => Err(error),
        };
        if let Err(error) = killed {
            stop.unseen = Some(errno::describe(&error));
            self.group.signal(Signal::KILL)?;
            family.signal(Signal::KILL);
            self.ended().await?;
        }
        stop.killed.retain(|named| !stop.left.contains(named));
        stop.silent = family.silent();
        Ok(())
    }

    /// Kills whoever is found until nobody is. The inner error is that of a look.
    async fn kill_family(
        &self,
        family: &mut Family,
        stop: &mut Stop,
        cx: &ExecutionContext,
    ) -> io::Result<io::Result<()>> {
        if let Err(error) = family.look().await {
            return Ok(Err(error));
        }
        stop.killed.extend(family.names());
        self.group.signal(Signal::KILL)?;
        family.kill_group().await;
        self.ended().await?;
        let mut limit = cx.sleep(KILL_MAX);
        loop {
            if let Err(error) = family.look().await {
                return Ok(Err(error));
            }
            if family.is_empty() {
                return Ok(Ok(()));
            }
            stop.killed.extend(family.names());
            // What stands still starts no others while the next look finds who was started before.
            family.signal(Signal::STOP);
            family.signal(Signal::KILL);
            tokio::select! {
                biased;
                () = &mut limit => {
                    stop.left = family.names();
                    return Ok(Ok(()));
                }
                () = any_ended(family.any()) => {}
            }
        }
    }

    /// Waits until everything that was asked to end has: a shell may be gone long before the child
    /// that tidies up after it.
    async fn all_ended(&self, family: &mut Family) -> io::Result<()> {
        self.ended().await?;
        loop {
            // The leader is a zombie now, and holds the number of the group.
            if family.look().await.is_err() {
                // Nobody can tell any more; they have the whole grace period then.
                return std::future::pending().await;
            }
            if family.is_empty() {
                return Ok(());
            }
            any_ended(family.any()).await;
        }
    }

    fn named(&self) -> Named {
        let now = census::look_at(self.group.id).ok().flatten();
        Named::new(self.group.id, now.map_or("?".to_owned(), |process| process.name))
    }

    /// Takes the exit status of a process that has ended, and what it has used; ends what a stop has to
    /// end with it.
    ///
    /// # Errors
    ///
    /// `ECHILD` if somebody else has taken the status.
    pub(super) fn reap(mut self, ending: &Ending) -> io::Result<(ExitStatus, Rusage)> {
        if matches!(ending, Ending::Asked(stop) if stop.mode == TerminationMode::ProcessTree) {
            // Fails only if the leader is not there to be reaped either, which the next line tells.
            let _ = self.group.signal(Signal::KILL);
        }
        self.group.reap()
    }

    async fn ended(&self) -> io::Result<()> {
        loop {
            let mut guard = self.pidfd.readable().await?;
            if self.group.leader_has_ended()? {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal)?)
    }
}

/// Waits until it is worth another look: until some member has ended, or, if none can be watched, a
/// little.
pub(super) async fn any_ended(member: Watch) {
    let watched = match member {
        Watch::Ended => return,
        Watch::Member(pidfd) => kernel::readable(pidfd).ok(),
        Watch::Unwatchable => None,
    };
    let ended = match &watched {
        Some(member) => member.readable().await.is_ok(),
        None => false,
    };
    if !ended {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A descriptor that becomes readable when the process ends.
pub(super) fn watch(process: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    kernel::readable(rustix::process::pidfd_open(process, PidfdFlags::empty())?)
}

/// A process group whose number is ours as long as its leader is not reaped.
#[derive(Debug)]
struct Group {
    /// The pid of the leader, and so the number of the group.
    id: Pid,
    reaped: bool,
}

impl Group {
    /// Whether the leader is a zombie. Fails with `ECHILD` if it is not even that: if the host
    /// reaped it, and the number of the group may by now be that of strangers.
    fn leader_has_ended(&self) -> io::Result<bool> {
        kernel::has_ended(self.id)
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.leader_has_ended()?;
        Ok(rustix::process::kill_process_group(self.id, signal)?)
    }

    fn reap(&mut self) -> io::Result<(ExitStatus, Rusage)> {
        let status = kernel::try_wait(self.id);
        self.reaped = !matches!(status, Ok(None));
        status?.ok_or_else(|| io::Error::other("it has not ended"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Fails if the host reaped it, and if it runs as somebody else by now, as `sudo` does; that
        // one has to be waited for all the same.
        if let Err(error) = self.signal(Signal::KILL) {
            tell(|| tracing::warn!(%error, pid = %self.id, "a process is left to itself"));
        }
        if matches!(kernel::try_wait(self.id), Ok(None)) {
            reap_aside(self.id);
        }
    }
}

/// Reaps a process off this thread, which may be one of the runtime's: even to die takes
/// some processes a while. A thread of its own, because the runtime may be just shutting down.
pub(super) fn reap_aside(pid: Pid) {
    const STACK_BYTES: usize = 64 * 1024;
    let reap = move || {
        if let Err(error) = rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            tell(|| tracing::warn!(%error, %pid, "a process cannot be reaped"));
        }
    };
    let reaper = std::thread::Builder::new().name("adjutant-reaper".into()).stack_size(STACK_BYTES);
    if reaper.spawn(reap).is_err() {
        reap();
    }
}

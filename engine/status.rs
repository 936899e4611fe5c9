//! The states of an execution and of an invocation, and the one function that holds every transition.
//!
//! ```text
//! Scheduled ─┬─► Pending ─┬─► Running ─┬─► Success · Failed · Timeout · Invalid · Aborted · Error
//!            │            │            └─► Stopping ─► Terminated (or, if it ended by itself first,
//!            └────────────┴─► Cancelled                any of the above)
//! ```
//!
//! An execution that is `Running` becomes `Pending` again if the engine shuts down before the executor has begun.
//!
//! An execution begins as `Pending`; as `Scheduled` if it has to wait for another on its instance, or for
//! its time if it is a later attempt; or as `Skipped`, and that is all.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! status_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every status, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The status as the API pages spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => stringify!($variant),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownStatus;

            fn from_str(text: &str) -> Result<Self, UnknownStatus> {
                $name::ALL
                    .iter()
                    .copied()
                    .find(|status| status.as_str() == text)
                    .ok_or_else(|| UnknownStatus(text.to_owned()))
            }
        }
    };
}

/// A text that names no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no status")]
pub struct UnknownStatus(String);

status_enum! {
    /// Where an execution stands.
    ExecutionStatus {
        /// Waits for a free place; nothing has started.
        Pending,
        /// Waits for the end of the execution before it on its instance; a later attempt, for its time.
        Scheduled,
        /// Claimed: from here on it is started at most once.
        Running,
        /// A stop was asked for and is being carried out.
        Stopping,
        /// Ended with exit code 0.
        Success,
        /// Ended with another exit code or by a signal of its own.
        Failed,
        /// Could not go on: the executor broke, or the engine ended in the middle.
        Error,
        /// Ran longer than its timeout and was ended.
        Timeout,
        /// Never ran: the command does not suit the instance (type, user, directory, launcher, interpreter).
        Invalid,
        /// Never ran: it could not be delivered to the instance, or not in time.
        Aborted,
        /// Never ran: stopped while it waited.
        Cancelled,
        /// Stopped while it ran.
        Terminated,
        /// Never ran: its fire was passed over, for the reason in the record.
        Skipped,
    }
}

status_enum! {
    /// Where an invocation stands: the roll-up of its executions.
    InvocationStatus {
        /// Executions wait for a free place.
        Pending,
        /// Timers will fire again.
        Scheduled,
        /// Executions run, or will be tried again.
        Running,
        /// Executions are being stopped.
        Stopping,
        /// Some succeeded and none failed.
        Success,
        /// None succeeded, some failed.
        Failed,
        /// Some succeeded and some failed.
        PartialFailed,
        /// All were stopped.
        Stopped,
    }
}

/// The cause of a change of an execution's status. Its name is the event, not the status that the event leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The execution that it waited for has ended, or its time has come.
    Released,
    /// The dispatcher took it.
    Claimed,
    /// Somebody asked to stop it while it ran.
    StopAsked,
    /// Somebody asked to stop it while it waited.
    StopAskedEarly,
    /// It ended with exit code 0.
    ExitedZero,
    /// It ended with another exit code or by a signal nobody here sent.
    ExitedNonzero,
    /// It was ended because its time was up.
    TimedOut,
    /// It was ended because of a stop.
    Stopped,
    /// It had not started when the time for that was over.
    Expired,
    /// A record that the start of the execution needs cannot be read.
    Unreadable,
    /// The command does not suit the instance.
    Unsuitable,
    /// Nobody could take it to the instance.
    Undeliverable,
    /// The executor could not start it or see it through.
    Broke,
    /// The engine ended while it ran.
    Interrupted,
    /// The engine shut down after the claim and before the executor had begun.
    Unstarted,
}

impl Cause {
    /// The states in which this can happen.
    pub const fn sources(self) -> &'static [ExecutionStatus] {
        use ExecutionStatus::{Pending, Running, Scheduled, Stopping};
        match self {
            Cause::Released => &[Scheduled],
            Cause::Claimed => &[Pending],
            Cause::StopAsked | Cause::Unstarted => &[Running],
            Cause::StopAskedEarly | Cause::Expired | Cause::Unreadable => &[Pending, Scheduled],
            Cause::ExitedZero
            | Cause::ExitedNonzero
            | Cause::TimedOut
            | Cause::Stopped
            | Cause::Unsuitable
            | Cause::Undeliverable
            | Cause::Broke
            | Cause::Interrupted => &[Running, Stopping],
        }
    }

    /// The state it leads to.
    pub const fn target(self) -> ExecutionStatus {
        match self {
            Cause::Released | Cause::Unstarted => ExecutionStatus::Pending,
            Cause::Claimed => ExecutionStatus::Running,
            Cause::StopAsked => ExecutionStatus::Stopping,
            Cause::StopAskedEarly => ExecutionStatus::Cancelled,
            Cause::ExitedZero => ExecutionStatus::Success,
            Cause::ExitedNonzero => ExecutionStatus::Failed,
            Cause::TimedOut => ExecutionStatus::Timeout,
            Cause::Stopped => ExecutionStatus::Terminated,
            Cause::Unsuitable => ExecutionStatus::Invalid,
            Cause::Undeliverable | Cause::Expired | Cause::Unreadable => ExecutionStatus::Aborted,
            Cause::Broke | Cause::Interrupted => ExecutionStatus::Error,
        }
    }
}

impl ExecutionStatus {
    /// Where `cause` leads from here; `None` if it cannot happen here.
    pub fn on(self, cause: Cause) -> Option<ExecutionStatus> {
        cause.sources().contains(&self).then(|| cause.target())
    }

    /// Final states never change.
    pub const fn is_final(self) -> bool {
        use ExecutionStatus::{Pending, Running, Scheduled, Stopping};
        !matches!(self, Pending | Scheduled | Running | Stopping)
    }
}

impl InvocationStatus {
    /// Final states never change.
    pub const fn is_final(self) -> bool {
        use InvocationStatus::{Pending, Running, Scheduled, Stopping};
        !matches!(self, Pending | Scheduled | Running | Stopping)
    }
}

/// The number of executions in each status; [`roll_up`] decides from these counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatusCounts([u64; ExecutionStatus::ALL.len()]);

impl StatusCounts {
    pub(crate) fn from_each(count: impl FnMut(&ExecutionStatus) -> u64) -> Self {
        let mut counts = ExecutionStatus::ALL.iter().map(count);
        Self(std::array::from_fn(|_| counts.next().unwrap_or_default()))
    }

    /// How many are in `status`.
    pub fn get(&self, status: ExecutionStatus) -> u64 {
        self.0[status as usize]
    }

    /// How many there are in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    fn ended(&self) -> Ends {
        use ExecutionStatus as E;
        let stopped = self.get(E::Cancelled) + self.get(E::Terminated);
        let succeeded = self.get(E::Success);
        // A skipped fire neither succeeded nor failed.
        let failed = self.total() - stopped - succeeded - self.get(E::Skipped);
        Ends { succeeded, failed, stopped }
    }
}

impl FromIterator<ExecutionStatus> for StatusCounts {
    fn from_iter<I: IntoIterator<Item = ExecutionStatus>>(statuses: I) -> Self {
        let mut counts = Self::default();
        for status in statuses {
            counts.0[status as usize] += 1;
        }
        counts
    }
}

/// How many executions have ended how, as far as it counts for an invocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ends {
    pub succeeded: u64,
    /// Without success, and nobody had asked for that.
    pub failed: u64,
    pub stopped: u64,
}

impl Ends {
    /// Counts one that has ended. A skipped fire neither succeeded nor failed.
    pub(crate) fn count(&mut self, status: ExecutionStatus) {
        use ExecutionStatus as E;
        match status {
            E::Success => self.succeeded += 1,
            E::Cancelled | E::Terminated => self.stopped += 1,
            E::Failed | E::Error | E::Timeout | E::Invalid | E::Aborted => self.failed += 1,
            E::Pending | E::Scheduled | E::Running | E::Stopping | E::Skipped => {}
        }
    }

    pub(crate) fn total(self) -> u64 {
        // A damaged record may say anything.
        self.succeeded.saturating_add(self.failed).saturating_add(self.stopped)
    }

    /// How an invocation ended of which nothing is left.
    pub(crate) fn status(self) -> InvocationStatus {
        match self {
            Self { succeeded: 0, failed: 0, stopped: 1.. } => InvocationStatus::Stopped,
            Self { succeeded: 0, .. } => InvocationStatus::Failed,
            Self { failed: 0, .. } => InvocationStatus::Success,
            _ => InvocationStatus::PartialFailed,
        }
    }
}

impl std::ops::AddAssign for Ends {
    fn add_assign(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.stopped += other.stopped;
    }
}

/// The status of an invocation whose latest executions stand as counted; `timers_left` says that
/// more fires are to come, and a scheduled execution that it will be tried again.
pub fn roll_up(counts: &StatusCounts, timers_left: bool) -> InvocationStatus {
    use ExecutionStatus as E;
    use InvocationStatus as I;
    let any = |status| counts.get(status) > 0;
    if any(E::Stopping) {
        I::Stopping
    } else if any(E::Pending) {
        I::Pending
    } else if any(E::Running) || any(E::Scheduled) {
        I::Running
    } else if timers_left {
        I::Scheduled
    } else {
        counts.ended().status()
    }
}

status_enum! {
    /// Where an invocation or an execution stands, in the older terms of the API pages, which say
    /// less: that something ended, whatever its exit code.
    InvokeStatus {
        /// It runs or will run.
        Running,
        /// It has ended by itself, with whatever exit code.
        Finished,
        /// It has been cut off or could not run.
        Failed,
        /// It has ended by itself on some instances and failed on others.
        PartialFailed,
        /// It has been stopped.
        Stopped,
        /// It is being stopped.
        Stopping,
    }
}

impl ExecutionStatus {
    /// The same in the older terms.
    pub const fn invoke_status(self) -> InvokeStatus {
        match self {
            Self::Pending | Self::Scheduled | Self::Running => InvokeStatus::Running,
            Self::Stopping => InvokeStatus::Stopping,
            Self::Success | Self::Failed => InvokeStatus::Finished,
            Self::Error | Self::Timeout | Self::Invalid | Self::Aborted => InvokeStatus::Failed,
            // What was passed over did not run, and that is no failure.
            Self::Cancelled | Self::Terminated | Self::Skipped => InvokeStatus::Stopped,
        }
    }
}

impl InvocationStatus {
    /// The same in the older terms, for an invocation whose latest executions stand as counted. One
    /// that repeats goes on `Running` until it has ended or is stopped.
    pub fn invoke_status(self, counts: &StatusCounts) -> InvokeStatus {
        match self {
            Self::Stopping => return InvokeStatus::Stopping,
            Self::Stopped => return InvokeStatus::Stopped,
            status if !status.is_final() => return InvokeStatus::Running,
            _ => {}
        }
        let any = |wanted| {
            let of = |status: &&ExecutionStatus| status.invoke_status() == wanted;
            ExecutionStatus::ALL.iter().filter(of).any(|&status| counts.get(status) > 0)
        };
        match (any(InvokeStatus::Finished), any(InvokeStatus::Failed)) {
            (true, true) => InvokeStatus::PartialFailed,
            (true, false) => InvokeStatus::Finished,
            (false, _) => InvokeStatus::Failed,
        }
    }
}

/// A name in the newer terms, in the older ones, or in both.
macro_rules! status_filter {
    ($(#[$doc:meta])* $name:ident, $status:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name {
            pub(crate) status: Option<$status>,
            pub(crate) invoke_status: Option<InvokeStatus>,
        }

        impl $name {
            /// Every name there is, for messages.
            pub(crate) fn names() -> String {
                let mut names: Vec<_> = $status::ALL.iter().map(|status| status.as_str()).collect();
                let older = InvokeStatus::ALL.iter().map(|status| status.as_str());
                names.extend(older.filter(|name| name.parse::<$status>().is_err()));
                names.join(", ")
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match (self.status, self.invoke_status) {
                    (Some(status), _) => status.fmt(f),
                    (None, Some(status)) => status.fmt(f),
                    (None, None) => Ok(()),
                }
            }
        }

        impl FromStr for $name {
            type Err = UnknownStatus;

            fn from_str(text: &str) -> Result<Self, UnknownStatus> {
                let (status, invoke_status) = (text.parse().ok(), text.parse().ok());
                if status.is_none() && invoke_status.is_none() {
                    return Err(UnknownStatus(text.to_owned()));
                }
                Ok(Self { status, invoke_status })
            }
        }
    };
}

status_filter! {
    /// The invocations whose [`InvocationStatus`] or [`InvokeStatus`] has a name; made by parsing it.
    InvocationFilter, InvocationStatus
}

status_filter! {
    /// The executions whose [`ExecutionStatus`] or [`InvokeStatus`] has a name; made by parsing it.
    ExecutionFilter, ExecutionStatus
}

#[cfg(test)]
mod tests {
    use super::ExecutionStatus as E;
    use super::*;

    const CAUSES: [Cause; 14] = [
        Cause::Released,
        Cause::Claimed,
        Cause::StopAsked,
        Cause::StopAskedEarly,
        Cause::Expired,
        Cause::Unreadable,
        Cause::ExitedZero,
        Cause::ExitedNonzero,
        Cause::TimedOut,
        Cause::Stopped,
        Cause::Unsuitable,
        Cause::Undeliverable,
        Cause::Broke,
        Cause::Interrupted,
    ];

    #[test]
    fn final_states_never_change() {
        for &status in E::ALL {
            let leaves = CAUSES.iter().any(|&cause| status.on(cause).is_some());
            assert_eq!(leaves, !status.is_final(), "{status}");
        }
    }

    #[test]
    fn transitions() {
        let check =
            |from: E, cause, to: Option<E>| assert_eq!(from.on(cause), to, "{from} on {cause:?}");
        check(E::Scheduled, Cause::Released, Some(E::Pending));
        check(E::Scheduled, Cause::Claimed, None);
        check(E::Pending, Cause::Claimed, Some(E::Running));
        check(E::Running, Cause::Claimed, None);
        check(E::Pending, Cause::StopAskedEarly, Some(E::Cancelled));
        check(E::Pending, Cause::StopAsked, None);
        check(E::Scheduled, Cause::Expired, Some(E::Aborted));
        check(E::Running, Cause::Expired, None);
        check(E::Pending, Cause::Unreadable, Some(E::Aborted));
        check(E::Running, Cause::Unreadable, None);
        check(E::Running, Cause::StopAsked, Some(E::Stopping));
        check(E::Stopping, Cause::Stopped, Some(E::Terminated));
        check(E::Stopping, Cause::ExitedZero, Some(E::Success));
        check(E::Pending, Cause::ExitedZero, None);
        check(E::Running, Cause::TimedOut, Some(E::Timeout));
        check(E::Success, Cause::Interrupted, None);
    }

    #[test]
    fn roll_ups() {
        use InvocationStatus as I;
        let check = |statuses: &[E], timers_left, want| {
            let counts = statuses.iter().copied().collect();
            assert_eq!(roll_up(&counts, timers_left), want, "{statuses:?}");
        };
        check(&[E::Stopping, E::Pending, E::Running], false, I::Stopping);
        check(&[E::Pending, E::Running], false, I::Pending);
        check(&[E::Running, E::Failed], true, I::Running);
        check(&[E::Failed], true, I::Scheduled);
        check(&[E::Scheduled, E::Success], true, I::Running);
        check(&[], true, I::Scheduled);
        check(&[E::Cancelled, E::Terminated], false, I::Stopped);
        check(&[E::Success, E::Cancelled], false, I::Success);
        check(&[E::Success], false, I::Success);
        check(&[], false, I::Failed);
        check(&[E::Failed, E::Terminated], false, I::Failed);
        check(&[E::Timeout, E::Error, E::Invalid, E::Aborted], false, I::Failed);
        check(&[E::Success, E::Timeout], false, I::PartialFailed);
        check(&[E::Skipped, E::Success], false, I::Success);
    }
}

//! The statuses of this dialect: views of the engine's own, which say more in some places and less in
//! others.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::execution::EXECUTION_INTERRUPTED;
use crate::status::{ExecutionStatus, InvocationStatus as Core};

macro_rules! statuses {
    ($(#[$about:meta])* $name:ident { $($(#[$one_about:meta])* $one:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$one_about])* #[serde(rename = $text)] $one,)+ }

        impl $name {
            /// Every status, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$one,)+];

            /// The status as the API pages spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$one => $text,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

statuses! {
    /// Where a task stands: an execution on one instance.
    TaskStatus {
        /// It waits for its turn, or for the end of the task before it on its instance.
        Pending = "PENDING",
        /// It is on its way to its instance. No task here stands so: one that is claimed runs.
        Delivering = "DELIVERING",
        /// Its way to its instance takes long. No task here stands so.
        DeliverDelayed = "DELIVER_DELAYED",
        /// It could not be delivered to its instance.
        DeliverFailed = "DELIVER_FAILED",
        /// It could not be started, or its executor could not go on with it.
        StartFailed = "START_FAILED",
        /// It runs.
        Running = "RUNNING",
        /// It ended with exit code 0.
        Success = "SUCCESS",
        /// It ended with another exit code, or by a signal of its own.
        Failed = "FAILED",
        /// It ran longer than its timeout and was ended.
        Timeout = "TIMEOUT",
        /// Nobody saw its end, for the engine ended in the middle of it.
        TaskTimeout = "TASK_TIMEOUT",
        /// It is being ended on request.
        Cancelling = "CANCELLING",
        /// It never ran: cancelled while it waited, or passed over by its schedule.
        Cancelled = "CANCELLED",
        /// It was ended on request.
        Terminated = "TERMINATED",
    }
}

statuses! {
    /// Where an invocation stands: the roll-up of its tasks.
    InvocationStatus {
        /// All of its tasks wait.
        Pending = "PENDING",
        /// Some of its tasks wait or run, or it will run again.
        Running = "RUNNING",
        /// Some of its tasks are being ended on request.
        Cancelling = "CANCELLING",
        /// All of its tasks succeeded.
        Success = "SUCCESS",
        /// All of its tasks ran longer than their timeout.
        Timeout = "TIMEOUT",
        /// None of its tasks succeeded.
        Failed = "FAILED",
        /// All of its tasks were cancelled or terminated.
        Cancelled = "CANCELLED",
        /// Some of its tasks failed, and others did not.
        PartialFailed = "PARTIAL_FAILED",
        /// Some of its tasks were cancelled or terminated, and the others succeeded.
        PartialCancelled = "PARTIAL_CANCELLED",
    }
}

impl TaskStatus {
    /// Where an execution stands in these terms; its error code tells two kinds of errors apart: one
    /// whose end nobody saw, and one that its executor could not start or go on with.
    pub(super) fn of(status: ExecutionStatus, error_code: &str) -> Self {
        match status {
            ExecutionStatus::Pending | ExecutionStatus::Scheduled => Self::Pending,
            ExecutionStatus::Running => Self::Running,
            ExecutionStatus::Stopping => Self::Cancelling,
            ExecutionStatus::Success => Self::Success,
            ExecutionStatus::Failed => Self::Failed,
            ExecutionStatus::Error if error_code == EXECUTION_INTERRUPTED => Self::TaskTimeout,
            ExecutionStatus::Error | ExecutionStatus::Invalid => Self::StartFailed,
            ExecutionStatus::Timeout => Self::Timeout,
            ExecutionStatus::Aborted => Self::DeliverFailed,
            ExecutionStatus::Cancelled | ExecutionStatus::Skipped => Self::Cancelled,
            ExecutionStatus::Terminated => Self::Terminated,
        }
    }

    /// Final ones never change.
    pub const fn is_final(self) -> bool {
        !matches!(
            self,
            Self::Pending
                | Self::Delivering
                | Self::DeliverDelayed
                | Self::Running
                | Self::Cancelling
        )
    }

    const fn is_cancelled(self) -> bool {
        matches!(self, Self::Cancelled | Self::Terminated)
    }
}

impl InvocationStatus {
    /// The roll-up of an invocation's latest tasks; the engine's own status of it says whether it
    /// goes on between its tasks, and how it ended if there were none.
    pub(super) fn of(tasks: &[TaskStatus], own: Core) -> Self {
        let any = |is: fn(TaskStatus) -> bool| tasks.iter().any(|&task| is(task));
        let all = |is: fn(TaskStatus) -> bool| tasks.iter().all(|&task| is(task));
        let succeeded = |task| task == TaskStatus::Success;
        if tasks.is_empty() {
            return match own {
                Core::Stopped => Self::Cancelled,
                own if own.is_final() => Self::Failed,
                _ => Self::Pending,
            };
        }
        if any(|task| task == TaskStatus::Cancelling) {
            Self::Cancelling
        } else if all(|task| task == TaskStatus::Pending) {
            Self::Pending
        } else if any(|task| !task.is_final()) || !own.is_final() {
            Self::Running
        } else if all(succeeded) {
            Self::Success
        } else if all(TaskStatus::is_cancelled) {
            Self::Cancelled
        } else if all(|task| task.is_cancelled() || task == TaskStatus::Success) {
            Self::PartialCancelled
        } else if all(|task| task == TaskStatus::Timeout) {
            Self::Timeout
        } else if !any(succeeded) && !any(TaskStatus::is_cancelled) {
            Self::Failed
        } else {
            Self::PartialFailed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TaskStatus as T;
    use super::*;

    #[test]
    fn tasks() {
        use ExecutionStatus as E;
        let check = |status: E, code: &str, want: &str| {
            assert_eq!(TaskStatus::of(status, code).as_str(), want, "{status} {code}");
            assert_eq!(TaskStatus::of(status, code).is_final(), status.is_final(), "{status}");
        };
        check(E::Pending, "", "PENDING");
        check(E::Scheduled, "", "PENDING");
        check(E::Running, "", "RUNNING");
        check(E::Stopping, "", "CANCELLING");
        check(E::Success, "", "SUCCESS");
        check(E::Failed, "ExitCodeNonzero", "FAILED");
        check(E::Error, "ExecutionInterrupted", "TASK_TIMEOUT");
        check(E::Error, "ExecutionException", "START_FAILED");
        check(E::Timeout, "ExecutionTimeout", "TIMEOUT");
        check(E::Invalid, "AccountNotExists", "START_FAILED");
        check(E::Aborted, "ClientNotResponse", "DELIVER_FAILED");
        check(E::Cancelled, "", "CANCELLED");
        check(E::Terminated, "", "TERMINATED");
        check(E::Skipped, "", "CANCELLED");
    }

    #[test]
    fn roll_ups() {
        let check = |tasks: &[TaskStatus], own, want: &str| {
            assert_eq!(InvocationStatus::of(tasks, own).as_str(), want, "{tasks:?}");
        };
        check(&[T::Cancelling, T::Pending, T::Failed], Core::Stopping, "CANCELLING");
        check(&[T::Pending, T::Pending], Core::Pending, "PENDING");
        check(&[T::Pending, T::Success], Core::Pending, "RUNNING");
        check(&[T::Running, T::Failed], Core::Running, "RUNNING");
        check(&[T::Success], Core::Scheduled, "RUNNING");
        check(&[T::Success, T::Success], Core::Success, "SUCCESS");
        check(&[T::Cancelled, T::Terminated], Core::Stopped, "CANCELLED");
        check(&[T::Success, T::Cancelled], Core::Success, "PARTIAL_CANCELLED");
        check(&[T::Timeout, T::Timeout], Core::Failed, "TIMEOUT");
        check(&[T::Timeout, T::Failed], Core::Failed, "FAILED");
        check(&[T::DeliverFailed, T::StartFailed, T::TaskTimeout], Core::Failed, "FAILED");
        check(&[T::Success, T::Failed], Core::PartialFailed, "PARTIAL_FAILED");
        check(&[T::Timeout, T::Cancelled], Core::Failed, "PARTIAL_FAILED");
        check(&[], Core::Scheduled, "PENDING");
        check(&[], Core::Stopped, "CANCELLED");
        check(&[], Core::Failed, "FAILED");
    }
}

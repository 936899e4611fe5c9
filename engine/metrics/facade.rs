//! The figures of an engine through the facade of the crate `metrics`, for the recorder that the host has installed.
//! The recorder is looked up each time, because a host may install it late; without a recorder the lookup is one look
//! at a flag. If a recorder panics, only that figure is lost.

use ::metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::{Counted, Measured};
use crate::panics::tell;

const EXECUTIONS_RUNNING: &str = "adjutant_executions_running";
const EXECUTIONS_WAITING: &str = "adjutant_executions_waiting";
const COMMITS: &str = "adjutant_commits_total";
const WRITES: &str = "adjutant_writes_total";
const BUSY: &str = "adjutant_requests_refused_busy_total";
const FIRES: &str = "adjutant_fires_total";

impl Counted {
    fn name(self) -> &'static str {
        match self {
            Self::Invocation => "adjutant_invocations_total",
            Self::Execution => "adjutant_executions_total",
            Self::Started => "adjutant_executions_started_total",
            Self::Lost => "adjutant_executions_lost_total",
            Self::Expired => "adjutant_executions_expired_total",
            Self::PutBack => "adjutant_executions_put_back_total",
            Self::FireStarted | Self::FireSkipped | Self::FireMissed => FIRES,
            Self::Ended(_) => "adjutant_executions_ended_total",
        }
    }

    /// What tells it apart from others of the same name.
    fn label(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::FireStarted => Some(("disposition", "Started")),
            Self::FireSkipped => Some(("disposition", "Skipped")),
            Self::FireMissed => Some(("disposition", "Missed")),
            Self::Ended(status) => Some(("status", status.as_str())),
            Self::Invocation
            | Self::Execution
            | Self::Started
            | Self::Lost
            | Self::Expired
            | Self::PutBack => None,
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Invocation => "Invocations stored",
            Self::Execution => "Executions stored that were to run",
            Self::Started => "Executions claimed",
            Self::Lost => "Executions whose end nobody knows",
            Self::Expired => "Executions that were not started in time",
            Self::PutBack => {
                "Executions claimed that wait again, because a shutdown came before their start"
            }
            Self::FireStarted | Self::FireSkipped | Self::FireMissed => {
                "Nominal times dealt with, by disposition"
            }
            Self::Ended(_) => "Executions ended, by status",
        }
    }
}

impl Measured {
    const ALL: [Self; Self::KINDS] = [
        Self::Commit,
        Self::WritesPerCommit,
        Self::RowsPerCommit,
        Self::Queue,
        Self::StartDelay,
        Self::Run,
        Self::FireLateness,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Commit => "adjutant_commit_seconds",
            Self::WritesPerCommit => "adjutant_writes_per_commit",
            Self::RowsPerCommit => "adjutant_rows_per_commit",
            Self::Queue => "adjutant_queue_seconds",
            Self::StartDelay => "adjutant_start_delay_seconds",
            Self::Run => "adjutant_run_seconds",
            Self::FireLateness => "adjutant_fire_lateness_seconds",
        }
    }

    fn unit(self) -> Unit {
        match self {
            Self::WritesPerCommit | Self::RowsPerCommit => Unit::Count,
            _ => Unit::Seconds,
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Commit => "How long it took to bring a commit to disk",
            Self::WritesPerCommit => "Writes that shared a commit",
            Self::RowsPerCommit => "Rows that a commit has changed",
            Self::Queue => "From a fire, or a request, to the claim of each first attempt",
            Self::StartDelay => "From the commit of a claim until its executor was called",
            Self::Run => "How long executors worked",
            Self::FireLateness => "From when timers were due until they were dealt with",
        }
    }
}

/// Says what each name stands for.
pub(super) fn describe() {
    tell(|| {
        for what in Counted::all() {
            describe_counter!(what.name(), Unit::Count, what.description());
        }
        describe_counter!(COMMITS, Unit::Count, "Commits to the database");
        describe_counter!(WRITES, Unit::Count, "Writes in these commits");
        describe_counter!(BUSY, Unit::Count, "Requests refused because too many were waiting");
        describe_gauge!(EXECUTIONS_RUNNING, Unit::Count, "Executions that run");
        describe_gauge!(EXECUTIONS_WAITING, Unit::Count, "Executions that wait");
        for what in Measured::ALL {
            describe_histogram!(what.name(), what.unit(), what.description());
        }
    });
}

pub(super) fn counted(what: Counted, times: u64) {
    tell(|| {
        let counter = match what.label() {
            None => counter!(what.name()),
            Some((key, value)) => counter!(what.name(), key => value),
        };
        counter.increment(times);
    });
}

pub(super) fn refused() {
    tell(|| {
        counter!(BUSY).increment(1);
    });
}

pub(super) fn committed(writes: usize, running: u64, waiting: u64) {
    tell(|| {
        counter!(COMMITS).increment(1);
        counter!(WRITES).increment(writes as u64);
        gauge!(EXECUTIONS_RUNNING).set(running as f64);
        gauge!(EXECUTIONS_WAITING).set(waiting as f64);
    });
}

pub(super) fn measured(what: Measured, value: u64) {
    tell(|| {
        let value = match what.unit() {
            Unit::Seconds => value as f64 / 1_000_000.0,
            _ => value as f64,
        };
        histogram!(what.name()).record(value);
    });
}

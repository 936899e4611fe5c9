//! Counts and times of an engine's work. Counting takes no lock and allocates nothing. The transaction that writes a
//! record counts it (`tally`), and the count takes effect once the transaction is on disk. So the counts agree with
//! the records.

#[cfg(feature = "metrics")]
mod facade;
mod histogram;
pub(crate) mod tally;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::status::{ExecutionStatus, StatusCounts};
use tally::Tally;

use histogram::Recorder;

pub use histogram::Histogram;

/// The counts of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// An invocation was stored.
    Invocation,
    /// An execution was stored that is to run.
    Execution,
    /// An execution was claimed.
    Started,
    /// The end of an execution is not known.
    Lost,
    /// An execution was not started in time, and never will be.
    Expired,
    /// A nominal time started something.
    FireStarted,
    /// A nominal time was passed over, as its invocation has it.
    FireSkipped,
    /// A nominal time passed without anybody to meet it.
    FireMissed,
    /// An execution that was claimed waits again, because the engine shut down before its executor had begun.
    PutBack,
    /// An execution came to a final status.
    Ended(ExecutionStatus),
}

impl Counted {
    const PLAIN: [Self; 9] = [
        Self::Invocation,
        Self::Execution,
        Self::Started,
        Self::Lost,
        Self::Expired,
        Self::FireStarted,
        Self::FireSkipped,
        Self::FireMissed,
        Self::PutBack,
    ];
    const KINDS: usize = Self::PLAIN.len() + ExecutionStatus::ALL.len();

    fn all() -> impl Iterator<Item = Self> {
        Self::PLAIN.into_iter().chain(ExecutionStatus::ALL.iter().copied().map(Self::Ended))
    }

    fn index(self) -> usize {
        match self {
            Self::Invocation => 0,
            Self::Execution => 1,
            Self::Started => 2,
            Self::Lost => 3,
            Self::Expired => 4,
            Self::FireStarted => 5,
            Self::FireSkipped => 6,
            Self::FireMissed => 7,
            Self::PutBack => 8,
            Self::Ended(status) => Self::PLAIN.len() + status as usize,
        }
    }
}

/// Measurements of single events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Measured {
    /// From the end of the writes of a transaction until they were on disk.
    Commit,
    /// Writes that shared a commit.
    WritesPerCommit,
    /// Rows that a commit has changed.
    RowsPerCommit,
    /// From when a fire was dealt with to the claim of an execution of it.
    Queue,
    /// From the commit of a claim to the executor.
    StartDelay,
    /// From the executor to the outcome.
    Run,
    /// From when a fire was due until it was dealt with.
    FireLateness,
}

impl Measured {
    const KINDS: usize = 7;
}

/// Where everything is counted while the engine works.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    counts: [AtomicU64; Counted::KINDS],
    commits: AtomicU64,
    writes: AtomicU64,
    /// Requests refused because too many were waiting.
    busy: AtomicU64,
    /// Executions that had not ended when the file was opened, including executions that ran.
    unended_before: AtomicU64,
    running_before: AtomicU64,
    measured: [Recorder; Measured::KINDS],
    log_bytes: AtomicU64,
    log_held_ms: AtomicU64,
}

impl Meters {
    /// Begins with the executions that have not ended in the records.
    pub(crate) fn beginning_with(unended: u64) -> Self {
        #[cfg(feature = "metrics")]
        facade::describe();
        Self { unended_before: unended.into(), ..Self::default() }
    }

    /// Takes note of how many of these executions run.
    pub(crate) fn found_running(&self, executions: usize) {
        self.running_before.store(executions as u64, Ordering::Relaxed);
    }

    /// Counts a commit with the numbers of its writes and changed rows, and the deeds of its transactions.
    pub(crate) fn committed(&self, tally: Tally, writes: usize, rows: u64, took: Duration) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
        for (what, times) in tally.entries() {
            self.counts[what.index()].fetch_add(times, Ordering::Relaxed);
            #[cfg(feature = "metrics")]
            facade::counted(what, times);
        }
        self.measure(Measured::WritesPerCommit, writes as u64);
        self.measure(Measured::RowsPerCommit, rows);
        self.time(Measured::Commit, took);
        #[cfg(feature = "metrics")]
        facade::committed(writes, self.running(), self.waiting());
    }

    /// Takes note of a request that was refused because too many were waiting.
    pub(crate) fn refused(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        facade::refused();
    }

    /// Notes the size of the log's file, in bytes, and for how long readers have held the log.
    pub(crate) fn log_is(&self, bytes: u64, held: Option<Duration>) {
        let held_ms = held.map_or(0, |held| u64::try_from(held.as_millis()).unwrap_or(u64::MAX));
        self.log_bytes.store(bytes, Ordering::Relaxed);
        self.log_held_ms.store(held_ms, Ordering::Relaxed);
    }

    /// Takes note of a time.
    pub(crate) fn time(&self, what: Measured, took: Duration) {
        self.measure(what, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Takes note of the time between two instants of the real-time clock, which may have been set since.
    pub(crate) fn time_between(&self, what: Measured, from_ms: i64, until_ms: i64) {
        let took_ms = until_ms.saturating_sub(from_ms).max(0).cast_unsigned();
        self.time(what, Duration::from_millis(took_ms));
    }

    fn measure(&self, what: Measured, value: u64) {
        self.measured[what as usize].record(value);
        #[cfg(feature = "metrics")]
        facade::measured(what, value);
    }

    fn count(&self, what: Counted) -> u64 {
        self.counts[what.index()].load(Ordering::Relaxed)
    }

    /// Executions that came to an end after a claim.
    fn ended_after_start(&self) -> u64 {
        let never_claimed = [ExecutionStatus::Cancelled, ExecutionStatus::Skipped];
        let ends = ExecutionStatus::ALL.iter().filter(|status| !never_claimed.contains(status));
        let ended: u64 = ends.map(|status| self.count(Counted::Ended(*status))).sum();
        // Those that were not started in time have the status of others that were.
        ended.saturating_sub(self.count(Counted::Expired))
    }

    // The counts are read one after another while others add to them: none may come out below 0.

    /// Executions that were claimed, without executions that were put back.
    fn begun(&self) -> u64 {
        let begun = self.running_before.load(Ordering::Relaxed) + self.count(Counted::Started);
        begun.saturating_sub(self.count(Counted::PutBack))
    }

    fn running(&self) -> u64 {
        self.begun().saturating_sub(self.ended_after_start())
    }

    fn waiting(&self) -> u64 {
        let stored = self.unended_before.load(Ordering::Relaxed) + self.count(Counted::Execution);
        let begun = self.begun();
        let cancelled = self.count(Counted::Ended(ExecutionStatus::Cancelled));
        stored.saturating_sub(begun + cancelled + self.count(Counted::Expired))
    }

    /// Everything as it stands.
    pub(crate) fn snapshot(&self) -> Metrics {
        let histogram = |what: Measured| self.measured[what as usize].snapshot();
        Metrics {
            invocations: self.count(Counted::Invocation),
            executions: self.count(Counted::Execution),
            started: self.count(Counted::Started),
            ended: StatusCounts::from_each(|status| self.count(Counted::Ended(*status))),
            lost: self.count(Counted::Lost),
            expired: self.count(Counted::Expired),
            busy: self.busy.load(Ordering::Relaxed),
            fires_started: self.count(Counted::FireStarted),
            fires_skipped: self.count(Counted::FireSkipped),
            fires_missed: self.count(Counted::FireMissed),
            commits: self.commits.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            running: self.running(),
            waiting: self.waiting(),
            commit_time_us: histogram(Measured::Commit),
            writes_per_commit: histogram(Measured::WritesPerCommit),
            rows_per_commit: histogram(Measured::RowsPerCommit),
            queue_time_us: histogram(Measured::Queue),
            start_delay_us: histogram(Measured::StartDelay),
            run_time_us: histogram(Measured::Run),
            fire_lateness_us: histogram(Measured::FireLateness),
            log_bytes: self.log_bytes.load(Ordering::Relaxed),
            log_held_ms: self.log_held_ms.load(Ordering::Relaxed),
        }
    }
}

/// Counts and times of an engine since it was opened, from [`Engine::metrics`](crate::Engine::metrics). The counts are
/// of records on disk. For an engine that only reads, all of them are 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Metrics {
    /// Invocations stored.
    pub invocations: u64,
    /// Executions stored that were to run, further attempts included.
    pub executions: u64,
    /// Executions claimed: from then on they are `Running`. An execution that a shutdown puts back is claimed again
    /// later.
    pub started: u64,
    /// Executions that ended, by their last status; executions that were passed over are `Skipped`.
    #[serde(serialize_with = "final_ones")]
    pub ended: StatusCounts,
    /// Executions whose end is not known, because their engine ended before them, including executions that an engine
    /// finds when it opens a file. They count as ended, as `Error`.
    pub lost: u64,
    /// Executions whose start deadline was over before they started. They count as ended, as `Aborted`.
    pub expired: u64,
    /// Requests refused with [`Error::Busy`](crate::Error::Busy), for too many were waiting to be stored.
    pub busy: u64,
    /// Fires that started something; an invocation that runs at once has one.
    pub fires_started: u64,
    /// Nominal times that were passed over because of their invocation: it pauses, has stopped, or still ran.
    pub fires_skipped: u64,
    /// Nominal times that passed without an engine to meet them.
    pub fires_missed: u64,
    /// Commits to the database.
    pub commits: u64,
    /// Writes in these commits. Reads of an engine in memory, which has one connection, are among them.
    pub writes: u64,
    /// Executions that run now: claimed, and their ends not on disk.
    pub running: u64,
    /// Executions that wait now: for a free place, for another one, or for their time to be tried again.
    pub waiting: u64,
    /// How long it took to bring a commit to disk, in microseconds.
    pub commit_time_us: Histogram,
    /// Writes that shared a commit.
    pub writes_per_commit: Histogram,
    /// Rows that a commit has changed, including rows of the host's tables. However much work waits, a commit of the
    /// engine changes no more than some thousand rows beside those of one fire or one request.
    pub rows_per_commit: Histogram,
    /// From when a fire was dealt with, or a request stored, to the claim of each first attempt; in
    /// microseconds, by a clock of milliseconds.
    pub queue_time_us: Histogram,
    /// From the commit of a claim until its executor was called, in microseconds.
    pub start_delay_us: Histogram,
    /// How long executors worked, in microseconds; of runs that survived an engine, from their start.
    pub run_time_us: Histogram,
    /// From when timers were due, their place in the spread included, until they were dealt with; of nominal
    /// times that were not missed, in microseconds, by a clock of milliseconds.
    pub fire_lateness_us: Histogram,
    /// Bytes of the write-ahead log beside the file. An engine keeps it below 64 MiB, unless a reader holds it.
    pub log_bytes: u64,
    /// Milliseconds for which a reader, such as a backup or a shell, has kept the log from beginning anew; 0 if no
    /// reader does. Until that reader ends the log grows.
    pub log_held_ms: u64,
}

fn final_ones<S: Serializer>(counts: &StatusCounts, serializer: S) -> Result<S::Ok, S::Error> {
    let ends = ExecutionStatus::ALL.iter().filter(|status| status.is_final());
    serializer.collect_map(ends.map(|status| (status, counts.get(*status))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_index_of_its_own() {
        let indexes: Vec<usize> = Counted::all().map(Counted::index).collect();
        assert_eq!(indexes, (0..Counted::KINDS).collect::<Vec<_>>());
        assert_eq!(Measured::FireLateness as usize + 1, Measured::KINDS);
    }

    #[test]
    fn what_waits_and_runs_follows_from_what_happened() {
        let check = |before: (u64, usize), happened: &[(Counted, usize)], want: (u64, u64)| {
            let meters = Meters::beginning_with(before.0);
            meters.found_running(before.1);
            let counts = tally::Counts::default();
            happened.iter().for_each(|&(what, times)| counts.add(what, times));
            meters.committed(counts.take(), 1, 0, Duration::ZERO);
            let told = meters.snapshot();
            assert_eq!((told.waiting, told.running), want, "{before:?}, {happened:?}");
        };
        let ended = |status, times| (Counted::Ended(status), times);
        check((0, 0), &[], (0, 0));
        check((5, 2), &[], (3, 2));
        check((2, 2), &[ended(ExecutionStatus::Error, 2), (Counted::Lost, 2)], (0, 0));
        check((2, 2), &[ended(ExecutionStatus::Error, 2), (Counted::Execution, 2)], (2, 0));
        check((0, 0), &[(Counted::Execution, 3), (Counted::Started, 1)], (2, 1));
        check(
            (0, 0),
            &[(Counted::Execution, 3), (Counted::Started, 2), (Counted::PutBack, 1)],
            (2, 1),
        );
        check((3, 0), &[ended(ExecutionStatus::Cancelled, 2)], (1, 0));
        check((3, 0), &[ended(ExecutionStatus::Skipped, 2)], (3, 0));
        check((1, 1), &[ended(ExecutionStatus::Success, 1)], (0, 0));
        check((3, 1), &[ended(ExecutionStatus::Aborted, 2), (Counted::Expired, 1)], (1, 0));
        check((0, 0), &[ended(ExecutionStatus::Success, 1)], (0, 0));
    }
}

//! What the programs of all engines share: they run one set of jobs as the driver asks, count how often
//! each job ran, and print a [`Report`].

mod protocol;
mod sqlite;

use std::error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

pub use protocol::{Report, Setting};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

pub type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

/// How many jobs engines get at a time that take lists.
pub const BATCH: usize = 1_000;
/// A run that is not done by then is given up.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often an engine is asked that cannot say when the last end is recorded.
const POLL: Duration = Duration::from_millis(1);
/// How long connections may take to close after a run.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who brings about [`Setting::Equal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EqualBy {
    /// The engine, which can be told to.
    Engine,
    /// The harness: the file has its log before the engine opens it, and what the engine says about
    /// `synchronous` has no effect.
    Harness,
}

/// One run, as the driver asks for it.
#[derive(Debug, Clone)]
pub struct Work {
    pub setting: Setting,
    /// Which way of several to run the jobs; each engine knows its own.
    pub case: String,
    /// The jobs are numbered from 0 to before this.
    pub jobs: usize,
    /// The database, not there yet or empty.
    pub file: PathBuf,
}

/// What an engine took.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// From the first job asked for to the last that is stored.
    pub stored: Duration,
    pub executed: Executed,
}

/// What it took to execute the jobs, to the last end that is recorded.
#[derive(Debug, Clone, Copy)]
pub enum Executed {
    /// From the start of the workers, all jobs stored.
    Alone(Duration),
    /// From the first job asked for: the engine runs jobs while others are being stored.
    EndToEnd(Duration),
}

static RUNS: OnceLock<Vec<AtomicU32>> = OnceLock::new();
static LEFT: AtomicUsize = AtomicUsize::new(0);
static ALL_RAN: Notify = Notify::const_new();

/// What every job does: it is counted.
///
/// # Panics
///
/// If there is no such job.
pub fn ran(job: usize) {
    let runs = &RUNS.get().expect("the harness runs the engine")[job];
    if runs.fetch_add(1, Ordering::Relaxed) == 0 && LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        ALL_RAN.notify_one();
    }
}

/// Waits until every job ran, and then until `unrecorded` counts no job whose end is not on record.
///
/// # Errors
///
/// Those of `unrecorded`.
pub async fn all_recorded(mut unrecorded: impl AsyncFnMut() -> Result<u64>) -> Result<()> {
    ALL_RAN.notified().await;
    while unrecorded().await? > 0 {
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Runs an engine as the arguments of the program say, and prints its report.
pub fn main<F>(equal_by: EqualBy, run: impl FnOnce(Work) -> F) -> ExitCode
where
    F: Future<Output = Result<Times>>,
{
    match work().and_then(|work| report(equal_by, work, run)) {
        Ok(report) => {
            println!("{}", serde_json::to_string(&report).expect("plain fields"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn work() -> Result<Work> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [setting, case, jobs, file] = &arguments[..] else {
        return Err("give: best|equal CASE JOBS FILE".into());
    };
    Ok(Work {
        setting: setting.parse()?,
        case: case.clone(),
        jobs: jobs.parse()?,
        file: file.into(),
    })
}

fn report<F>(equal_by: EqualBy, work: Work, run: impl FnOnce(Work) -> F) -> Result<Report>
where
    F: Future<Output = Result<Times>>,
{
    let file = work.file.clone();
    let jobs = work.jobs;
    LEFT.store(jobs, Ordering::Relaxed);
    let runs = RUNS.get_or_init(|| (0..jobs).map(|_| AtomicU32::new(0)).collect());
    give_up_at_deadline(jobs);
    let by_harness = work.setting == Setting::Equal && equal_by == EqualBy::Harness;
    if by_harness {
        sqlite::create_with_wal(&file)?;
    }
    sqlite::watch(by_harness);
    let runtime = Runtime::new()?;
    let times = runtime.block_on(run(work))?;
    // What the engine leaves running holds its connections.
    drop(runtime);
    let synchronous = sqlite::synchronous(PATIENCE);
    let (executed, end_to_end) = match times.executed {
        Executed::Alone(took) => (took, false),
        Executed::EndToEnd(took) => (took, true),
    };
    Ok(Report {
        stored_seconds: times.stored.as_secs_f64(),
        executed_seconds: executed.as_secs_f64(),
        end_to_end,
        ran_twice: runs.iter().filter(|runs| runs.load(Ordering::Relaxed) > 1).count(),
        journal_mode: sqlite::journal_mode(&file)?,
        synchronous,
    })
}

fn give_up_at_deadline(jobs: usize) {
    std::thread::spawn(move || {
        std::thread::sleep(DEADLINE);
        let ran = jobs - LEFT.load(Ordering::Relaxed);
        eprintln!(
            "given up after {} s: {ran} of {jobs} jobs ran, not all ends are on record",
            DEADLINE.as_secs()
        );
        std::process::exit(1);
    });
}

//! `load`: what this machine makes of very many runs, measured on a database of its own.

use std::env;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tempfile::TempDir;

use super::{INTERRUPTED, NOT_ALL_SUCCEEDED};
use crate::database;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::load::{Plan, Report, Work};
use crate::{load, ui};

/// More would fill a disk rather than tell anything new.
const EXECUTIONS_MAX: u64 = 10_000_000;
/// The longest that an execution may be had to sleep.
const SLEEP_MS_MAX: u64 = 60_000;
/// Executions at a time where none is said: of processes far fewer run well.
const CONCURRENCY: usize = 1_000;
const CONCURRENCY_OF_PROCESSES: usize = 64;

/// What to load the machine with.
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// Runs to ask for, 1 to 1000000
    #[arg(long, value_name = "N", default_value_t = 10_000, allow_negative_numbers = true,
        value_parser = up_to::<u64>(1_000_000))]
    invocations: u64,
    /// Instances that each run is on, 1 to 10000
    #[arg(long, value_name = "M", default_value_t = 1, allow_negative_numbers = true,
        value_parser = up_to::<u64>(10_000))]
    instances: u64,
    /// Executions that may run at a time, 1 to 100000 [default: 1000, of sh 64]
    #[arg(long, value_name = "C", allow_negative_numbers = true,
        value_parser = up_to::<usize>(100_000))]
    concurrency: Option<usize>,
    /// What an execution does: noop, sleep:MS for milliseconds, up to 60000, or sh for a process
    #[arg(long, value_name = "WHAT", default_value = "noop")]
    executor: Work,
    /// Tasks that ask for runs, each one after the other, 1 to 10000
    #[arg(long, value_name = "S", default_value_t = 64, allow_negative_numbers = true,
        value_parser = up_to::<usize>(10_000))]
    submitters: usize,
}

/// A number of things, at least one.
fn up_to<T>(most: u64) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: TryFrom<u64>,
{
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("want a whole number, 1 to {most}"))
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sleep = text.strip_prefix("sleep:").and_then(|ms| ms.parse().ok());
        match (text, sleep) {
            ("noop", _) => Ok(Self::Noop),
            ("sh", _) => Ok(Self::Sh),
            (_, Some(ms)) if ms <= SLEEP_MS_MAX => Ok(Self::Sleep(Duration::from_millis(ms))),
            _ => Err(format!("want noop, sh or sleep:MS, where MS is 0 to {SLEEP_MS_MAX}")),
        }
    }
}

impl Load {
    fn plan(&self) -> Result<Plan, Failure> {
        let executions = self.invocations * self.instances;
        if executions > EXECUTIONS_MAX {
            return Err(Failure::usage(format!(
                "want at most {EXECUTIONS_MAX} executions; --invocations {} on --instances {} \
                 are {executions}",
                self.invocations, self.instances
            )));
        }
        let concurrency = match self.executor {
            Work::Sh => CONCURRENCY_OF_PROCESSES,
            Work::Noop | Work::Sleep(_) => CONCURRENCY,
        };
        // No more than have something to ask for.
        let submitters = usize::try_from(self.invocations).unwrap_or(usize::MAX);
        Ok(Plan {
            invocations: self.invocations,
            instances: self.instances,
            concurrency: self.concurrency.unwrap_or(concurrency),
            work: self.executor,
            submitters: self.submitters.min(submitters),
        })
    }
}

/// Loads the machine and tells what it made of it; the exit status.
pub(super) async fn load(db: Option<PathBuf>, load: Load, json: bool) -> Result<u8, Failure> {
    let plan = load.plan()?;
    let interrupts = Interrupts::catch()?;
    let interrupted = interrupts.next();
    let folder = temporary(&beside(db)?)?;
    let measured = load::measure(&plan, folder.path(), interrupted).await;
    let place = folder.path().to_owned();
    // A signal that came now would leave some of it.
    let removing = interrupts.next();
    let removed = folder.close();
    drop(removing);
    let report = measured?;
    removed.map_err(|error| Failure::system(format_args!("remove {}", place.display()), &error))?;
    let Some(report) = report else {
        ui::note("interrupted; nothing of it is kept");
        return Ok(INTERRUPTED);
    };
    tell(&report, json)
}

fn tell(report: &Report, json: bool) -> Result<u8, Failure> {
    if json {
        ui::print_json(report)?;
    } else {
        ui::print(report.for_people().as_bytes())?;
    }
    Ok(if report.failed == 0 { 0 } else { NOT_ALL_SUCCEEDED })
}

/// The folder of the database that is named, so that its disk is measured; else the current one.
fn beside(db: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let named =
        db.or_else(|| env::var_os("ADJUTANT_DB").filter(|db| !db.is_empty()).map(PathBuf::from));
    let Some(named) = named else { return database::absolute(Path::new(".")) };
    let named = database::absolute(&named)?;
    Ok(named.parent().map_or_else(|| named.clone(), Path::to_owned))
}

fn temporary(place: &Path) -> Result<TempDir, Failure> {
    let made = tempfile::Builder::new().prefix(".adjutant-load-").tempdir_in(place);
    made.map_err(|error| {
        Failure::system(format_args!("make a folder in {}", place.display()), &error)
    })
}

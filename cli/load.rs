//! Very many runs on a database of their own, through what every host application calls, and what became of
//! them.

mod report;
mod usage;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adjutant::{
    ClosureExecutor, Engine, EngineBuilder, Error, ExecutionStatus, Instance, InstanceId, LOCAL,
    Limits, Metrics, RunCommand,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::database::builder;
use crate::failure::Failure;
use crate::ui::Target;

pub(crate) use report::Report;
use report::{Latencies, Sampled};
use usage::Usage;

/// The executor that is not the engine's own.
const EXECUTOR: &str = "load";
/// Runs whose end is waited for one by one; with more, waiting would be part of the load.
const SAMPLES_MAX: u64 = 1_000;
/// The most executions of those, whose results are read when they end.
const SAMPLED_EXECUTIONS_MAX: u64 = 100_000;
/// How often the counts are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What an execution does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    Noop,
    Sleep(Duration),
    /// A process.
    Sh,
}

/// How much of what.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub invocations: u64,
    pub instances: u64,
    pub concurrency: usize,
    pub work: Work,
    pub submitters: usize,
}

impl Plan {
    fn executions(&self) -> u64 {
        self.invocations * self.instances
    }

    /// Of so many runs one is followed to its end.
    fn sample_every(&self) -> u64 {
        let samples = SAMPLES_MAX.min(SAMPLED_EXECUTIONS_MAX / self.instances).max(1);
        self.invocations.div_ceil(samples)
    }

    fn names(&self) -> impl Iterator<Item = InstanceId> {
        (1..=self.instances).map(|n| InstanceId::from(format!("i-{n}")))
    }

    fn request(&self) -> RunCommand {
        RunCommand::shell(":").name("load").on(self.names())
    }

    fn builder(&self, database: &Path) -> EngineBuilder {
        let mut limits = Limits::embedded();
        limits.instances_max = usize::try_from(self.instances).unwrap_or(usize::MAX);
        let engine = builder(database).limits(limits).max_concurrent(self.concurrency);
        match self.work {
            Work::Noop => engine.executor(EXECUTOR, ClosureExecutor::new(async |_, _| ())),
            Work::Sleep(time) => {
                let sleep = ClosureExecutor::new(move |_, _| tokio::time::sleep(time));
                engine.executor(EXECUTOR, sleep)
            }
            Work::Sh => engine,
        }
    }
}

/// Carries a plan out in a folder; none if that is interrupted.
pub(crate) async fn measure(
    plan: &Plan,
    folder: &Path,
    interrupted: impl Future<Output = ()>,
) -> Result<Option<Report>, Failure> {
    let database = folder.join("load.db");
    let mut interrupted = pin!(interrupted);

    let registering = async |engine: Engine| register(&engine, plan).await;
    if in_engine(plan, &database, interrupted.as_mut(), registering).await?.is_none() {
        return Ok(None);
    }
    let empty = size(&database)?;
    let loading = async |engine: Engine| Loaded::of(&engine, plan).await;
    let Some(loaded) = in_engine(plan, &database, interrupted, loading).await? else {
        return Ok(None);
    };
    Ok(Some(loaded.report(plan, size(&database)?.saturating_sub(empty))))
}

/// Does something in an engine that runs for as long as it takes; none if it is interrupted. An opening is
/// waited for all the same: left half way it would still make files.
async fn in_engine<T>(
    plan: &Plan,
    database: &Path,
    interrupted: impl Future<Output = ()>,
    work: impl AsyncFnOnce(Engine) -> Result<T, Failure>,
) -> Result<Option<T>, Failure> {
    let engine = plan.builder(database).open().await?;
    let done = tokio::select! {
        done = work(engine.clone()) => Some(done),
        () = interrupted => None,
    };
    engine.shutdown(Duration::ZERO).await;
    done.transpose()
}

/// What there is to tell of all runs.
struct Loaded {
    took: Duration,
    submits: Vec<Duration>,
    submits_took: Duration,
    ends: Vec<Duration>,
    used: Usage,
    before: Metrics,
    after: Metrics,
}

impl Loaded {
    async fn of(engine: &Engine, plan: &Plan) -> Result<Self, Failure> {
        let (before, used) = (engine.metrics(), Usage::now()?);
        let began = Instant::now();
        let bar = bar(plan.executions());
        let runs = submit_all(engine, plan, began);
        let (submitted, took) = tokio::try_join!(runs, all_ended(engine, plan, began, &bar))?;
        let used = Usage::now()?.since(&used);
        bar.finish_and_clear();
        let after = engine.metrics();
        Ok(Self {
            took,
            submits: submitted.waits,
            submits_took: submitted.took,
            ends: submitted.ends.collect().await?,
            used,
            before,
            after,
        })
    }

    fn report(self, plan: &Plan, database_bytes: u64) -> Report {
        let executions = plan.executions();
        let succeeded = self.after.ended.get(ExecutionStatus::Success).min(executions);
        let commits = self.after.commits - self.before.commits;
        let writes = self.after.writes - self.before.writes;
        Report {
            invocations: plan.invocations,
            instances: plan.instances,
            executions,
            executor: plan.work,
            concurrency: plan.concurrency,
            submitters: plan.submitters,
            failed: executions - succeeded,
            seconds: self.took.as_secs_f64(),
            executions_per_second: rate(succeeded, self.took),
            invocations_per_second: rate(plan.invocations, self.submits_took),
            submit_ms: Latencies::of(self.submits),
            queue_ms: Latencies::of_histogram(&self.after.queue_time_us),
            end_to_end_ms: Sampled::of(self.ends),
            commits,
            writes_per_commit: writes as f64 / commits.max(1) as f64,
            database_bytes_per_execution: database_bytes as f64 / executions as f64,
            peak_rss_bytes: self.used.peak_rss_bytes,
            cpu_seconds: self.used.cpu.as_secs_f64(),
        }
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(f64::EPSILON)
}

/// Registers the instances; many at a time, for each waits for the disk.
async fn register(engine: &Engine, plan: &Plan) -> Result<(), Failure> {
    let executor = if plan.work == Work::Sh { LOCAL } else { EXECUTOR };
    let mut registering = JoinSet::new();
    for name in plan.names() {
        if registering.len() >= plan.submitters {
            joined(registering.join_next().await)?;
        }
        let engine = engine.clone();
        let instance = Instance::new(name).executor(executor);
        registering.spawn(async move { engine.register_instance(instance).await });
    }
    while let Some(done) = registering.join_next().await {
        joined(Some(done))?;
    }
    Ok(())
}

type Joined<T> = Option<Result<Result<T, Error>, tokio::task::JoinError>>;

/// What a task came to, if there was one.
fn joined<T>(done: Joined<T>) -> Result<Option<T>, Failure> {
    match done {
        None => Ok(None),
        Some(Ok(result)) => Ok(Some(result?)),
        Some(Err(error)) => Err(Failure::new("InternalError", 500, error.to_string())),
    }
}

/// Runs that have been asked for.
struct Submitted {
    /// How long each waited for its durable id.
    waits: Vec<Duration>,
    ends: Ends,
    /// Until the last id.
    took: Duration,
}

/// The ends of some runs, on their way.
struct Ends(Vec<JoinSet<Result<Duration, Error>>>);

impl Ends {
    async fn collect(mut self) -> Result<Vec<Duration>, Failure> {
        let mut all = Vec::new();
        for ends in &mut self.0 {
            while let Some(end) = joined(ends.join_next().await)? {
                all.push(end);
            }
        }
        Ok(all)
    }
}

/// Asks for all runs, with as many tasks as the plan says.
async fn submit_all(engine: &Engine, plan: &Plan, began: Instant) -> Result<Submitted, Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let (request, sample_every) = (plan.request(), plan.sample_every());
    let mut tasks = JoinSet::new();
    for _ in 0..plan.submitters {
        let (engine, request, next) = (engine.clone(), request.clone(), Arc::clone(&next));
        let invocations = plan.invocations;
        tasks.spawn(async move {
            let mut waits = Vec::new();
            let mut ends = JoinSet::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= invocations {
                    return Ok((waits, ends));
                }
                let asked = Instant::now();
                let invoke_id = engine.run_command(request.clone()).await?.invoke_id;
                waits.push(asked.elapsed());
                if n.is_multiple_of(sample_every) {
                    let engine = engine.clone();
                    ends.spawn(async move {
                        engine.wait_status(&invoke_id).await?;
                        Ok(asked.elapsed())
                    });
                }
            }
        });
    }
    let mut submitted =
        Submitted { waits: Vec::new(), ends: Ends(Vec::new()), took: Duration::ZERO };
    while let Some((waits, ends)) = joined(tasks.join_next().await)? {
        submitted.waits.extend(waits);
        submitted.ends.0.push(ends);
    }
    submitted.took = began.elapsed();
    Ok(submitted)
}

/// Waits until every execution has ended; how long that took.
async fn all_ended(
    engine: &Engine,
    plan: &Plan,
    began: Instant,
    bar: &ProgressBar,
) -> Result<Duration, Failure> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let ended = engine.metrics().ended.total();
        bar.set_position(ended);
        if ended >= plan.executions() {
            return Ok(began.elapsed());
        }
    }
}

/// The size of the database, with what is not in its file yet.
fn size(database: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for name in ["", "-wal"] {
        let mut path = database.as_os_str().to_owned();
        path.push(name);
        match fs::metadata(&path) {
            Ok(file) => bytes += file.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::system("look at the database's size", &error)),
        }
    }
    Ok(bytes)
}

fn bar(executions: u64) -> ProgressBar {
    if !Target::Stderr.is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(executions), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template(
        "{bar:24} {human_pos} of {human_len} ended, {per_sec} {elapsed}",
    );
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Left half way it would make files in a folder that is being removed.
    #[tokio::test]
    async fn an_opening_is_waited_for_however_early_it_is_interrupted() {
        let folder = tempfile::tempdir().expect("a folder");
        let work = Work::Noop;
        let plan = Plan { invocations: 1, instances: 1, concurrency: 1, work, submitters: 1 };
        let measured = measure(&plan, folder.path(), std::future::ready(())).await;
        assert!(measured.expect("a new file").is_none());
        assert!(folder.path().join("load.db").exists());
        folder.close().expect("nobody uses it");
    }
}

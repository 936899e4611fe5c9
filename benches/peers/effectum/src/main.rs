//! effectum, with lists of jobs and one worker. The PRAGMA with which it asks for a write-ahead log is
//! none that SQLite knows: left to itself it has a rollback journal.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use effectum::{Error, Job, JobRunner, Queue, RunningJob, Worker};
use harness::{BATCH, EqualBy, Executed, Result, Times, Work};

/// Jobs at a time; twice as fast as 64.
const CONCURRENCY: u16 = 1_000;

fn main() -> ExitCode {
    harness::main(EqualBy::Harness, run)
}

async fn run(work: Work) -> Result<Times> {
    let queue = Queue::new(&work.file).await?;
    let began = Instant::now();
    for first in (0..work.jobs).step_by(BATCH) {
        let jobs = first..work.jobs.min(first + BATCH);
        let jobs = jobs.map(|job| Ok(Job::builder("count").json_payload(&job)?.build()));
        queue.add_jobs(jobs.collect::<Result<Vec<_>>>()?).await?;
    }
    let stored = began.elapsed();
    let began = Instant::now();
    let worker = Worker::builder(&queue, ())
        .jobs([JobRunner::builder("count", count).build()])
        .max_concurrency(CONCURRENCY)
        .build()
        .await?;
    harness::all_recorded(async || {
        let active = queue.num_active_jobs().await?;
        Ok(active.pending + active.running)
    })
    .await?;
    let executed = Executed::Alone(began.elapsed());
    worker.unregister(Some(Duration::from_secs(5))).await?;
    queue.close(Duration::from_secs(5)).await?;
    Ok(Times { stored, executed })
}

async fn count(job: RunningJob, (): ()) -> std::result::Result<(), Error> {
    harness::ran(job.json_payload()?);
    Ok(())
}

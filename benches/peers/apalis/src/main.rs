//! apalis with apalis-sqlite, a worker woken by SQLite's update hook. Its fetch slows with the number of
//! jobs that wait. It sets `synchronous` to OFF on one connection of its pool, whichever that is.

use std::process::ExitCode;
use std::time::Instant;

use apalis::prelude::*;
use apalis_sqlite::{Config, SqlitePool, SqliteStorage};
use harness::{BATCH, EqualBy, Executed, Result, Times, Work};

/// Jobs at a time; more are no faster.
const CONCURRENCY: usize = 64;
const FETCHED: usize = 100;

fn main() -> ExitCode {
    harness::main(EqualBy::Harness, run)
}

async fn run(work: Work) -> Result<Times> {
    let url = format!("sqlite://{}?mode=rwc", work.file.display());
    let (pool, listener) = SqliteStorage::connect_with_callback(&url)?;
    SqliteStorage::setup(&pool).await?;
    let config = Config::default().queue("count").batch_size(FETCHED);
    let mut storage = SqliteStorage::<usize>::new(&pool).with_config(config);
    let began = Instant::now();
    for first in (0..work.jobs).step_by(BATCH) {
        storage.push_bulk((first..work.jobs.min(first + BATCH)).collect()).await?;
    }
    let stored = began.elapsed();
    let began = Instant::now();
    let worker = WorkerBuilder::new("worker")
        .backend(storage.with_callback(listener))
        .concurrency(CONCURRENCY)
        .build(count);
    tokio::select! {
        ended = worker.run() => return Err(format!("the worker ended: {ended:?}").into()),
        recorded = harness::all_recorded(async || undone(&pool).await) => recorded?,
    }
    let executed = Executed::Alone(began.elapsed());
    pool.close().await;
    Ok(Times { stored, executed })
}

async fn count(job: usize) -> std::result::Result<(), BoxDynError> {
    harness::ran(job);
    Ok(())
}

async fn undone(pool: &SqlitePool) -> Result<u64> {
    let sql = "SELECT count(*) FROM Jobs WHERE status <> 'Done'";
    Ok(sqlx::query_scalar::<_, i64>(sql).fetch_one(pool).await?.unsigned_abs())
}

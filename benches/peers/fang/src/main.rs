//! fang with asynk and SQLite. It stores jobs one by one, and keeps nothing of those that are done.
//! `1 worker`, or `8 workers`, of which two may fetch the same job, as it is read and marked in two
//! statements outside of a transaction. A worker that cannot record an end is gone, and the end missing.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use fang::asynk::async_queue::{AsyncQueue, AsyncQueueable};
use fang::asynk::async_runnable::AsyncRunnable;
use fang::asynk::async_worker_pool::AsyncWorkerPool;
use fang::{FangError, SleepParams};
use harness::{EqualBy, Executed, Result, Times, Work};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, SqliteConnection};

/// How long a worker sleeps that finds no job.
const SLEEP: Duration = Duration::from_millis(100);
/// Its table, as its migrations for SQLite make it; those come with another library for databases.
const SCHEMA: &str = "
    CREATE TABLE fang_tasks (
        id BLOB NOT NULL PRIMARY KEY,
        metadata TEXT NOT NULL,
        error_message TEXT,
        state TEXT NOT NULL DEFAULT 'new'
            CHECK (state IN ('new', 'in_progress', 'failed', 'finished', 'retried')),
        task_type TEXT NOT NULL DEFAULT 'common',
        uniq_hash CHAR(64),
        retries INTEGER NOT NULL DEFAULT 0,
        scheduled_at INTEGER NOT NULL DEFAULT (unixepoch('now')),
        created_at INTEGER NOT NULL DEFAULT (unixepoch('now')),
        updated_at INTEGER NOT NULL DEFAULT (unixepoch('now'))
    );
    CREATE INDEX fang_tasks_state_index ON fang_tasks(state);
    CREATE INDEX fang_tasks_type_index ON fang_tasks(task_type);
    CREATE INDEX fang_tasks_scheduled_at_index ON fang_tasks(scheduled_at);
    CREATE INDEX fang_tasks_uniq_hash ON fang_tasks(uniq_hash);";

#[derive(Serialize, Deserialize)]
struct Count {
    job: usize,
}

#[typetag::serde]
#[async_trait::async_trait]
impl AsyncRunnable for Count {
    async fn run(&self, _queue: &dyn AsyncQueueable) -> std::result::Result<(), FangError> {
        harness::ran(self.job);
        Ok(())
    }
}

fn main() -> ExitCode {
    harness::main(EqualBy::Harness, run)
}

async fn run(work: Work) -> Result<Times> {
    let workers: u32 = match work.case.as_str() {
        "1 worker" => 1,
        "8 workers" => 8,
        other => return Err(format!("no case is called {other}").into()),
    };
    let url = format!("sqlite://{}?mode=rwc", work.file.display());
    let mut observer = SqliteConnection::connect(&url).await?;
    sqlx::raw_sql(SCHEMA).execute(&mut observer).await?;
    let mut queue = AsyncQueue::builder().uri(url).max_pool_size(workers).build();
    queue.connect().await?;
    let began = Instant::now();
    for job in 0..work.jobs {
        queue.insert_task(&Count { job }).await?;
    }
    let stored = began.elapsed();
    let sleep = SleepParams {
        sleep_period: SLEEP,
        max_sleep_period: SLEEP,
        min_sleep_period: SLEEP,
        sleep_step: Duration::ZERO,
    };
    let began = Instant::now();
    AsyncWorkerPool::<AsyncQueue>::builder()
        .queue(queue)
        .number_of_workers(workers)
        .sleep_params(sleep)
        .build()
        .start()
        .await;
    harness::all_recorded(async || {
        // It deletes jobs that are done.
        let sql = "SELECT count(*) FROM fang_tasks";
        Ok(sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut observer).await?.unsigned_abs())
    })
    .await?;
    let executed = Executed::Alone(began.elapsed());
    observer.close().await?;
    Ok(Times { stored, executed })
}

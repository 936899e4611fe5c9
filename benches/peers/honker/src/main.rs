//! honker. It has no workers of its own: one thread claims, counts and acknowledges a thousand jobs at a
//! time, with nothing dispatched, so that its rate is an upper bound. Of a job that is done it keeps
//! nothing.

use std::process::ExitCode;
use std::time::Instant;

use harness::{BATCH, EqualBy, Executed, Result, Times, Work};
use honker::{Database, EnqueueOpts, Queue, QueueOpts};

const CLAIMED: i64 = 1_000;
const WORKER: &str = "worker";

fn main() -> ExitCode {
    harness::main(EqualBy::Harness, async |work| run(&work))
}

fn run(work: &Work) -> Result<Times> {
    let db = Database::open(&work.file)?;
    let queue = db.queue("count", QueueOpts::default());
    let began = Instant::now();
    store(&db, &queue, work.jobs)?;
    let stored = began.elapsed();
    let began = Instant::now();
    loop {
        let jobs = queue.claim_batch(WORKER, CLAIMED)?;
        if jobs.is_empty() {
            break;
        }
        for job in &jobs {
            harness::ran(job.payload_as()?);
        }
        let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
        queue.ack_batch(&ids, WORKER)?;
    }
    Ok(Times { stored, executed: Executed::Alone(began.elapsed()) })
}

fn store(db: &Database, queue: &Queue, jobs: usize) -> Result<()> {
    for first in (0..jobs).step_by(BATCH) {
        let tx = db.transaction()?;
        for job in first..jobs.min(first + BATCH) {
            queue.enqueue_tx(&tx, &job, EnqueueOpts::default())?;
        }
        tx.commit()?;
    }
    Ok(())
}

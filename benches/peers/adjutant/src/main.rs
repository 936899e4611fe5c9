//! This engine. `fleets of 100`: invocations of 100 instances each; `one instance`: invocations of one,
//! submitted by 64 tasks that each await their durable id. It runs what it has while it is asked for
//! more, so its times are end to end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use adjutant::{ClosureExecutor, Durability, Engine, Instance, InvokeId, RunCommand, Task};
use harness::{EqualBy, Executed, Result, Setting, Times, Work};

const INSTANCES: usize = 100;
const SUBMITTERS: usize = 64;
/// Executions at a time.
const CONCURRENCY: usize = 1_000;

fn main() -> ExitCode {
    harness::main(EqualBy::Engine, run)
}

async fn run(work: Work) -> Result<Times> {
    let durability = match work.setting {
        Setting::Best => Durability::Relaxed,
        Setting::Equal => Durability::Full,
    };
    let count = ClosureExecutor::new(|task: Task, _cx| {
        harness::ran(job(&task));
        std::future::ready(())
    });
    let engine = Engine::builder()
        .path(&work.file)
        .durability(durability)
        .max_concurrent(CONCURRENCY)
        .executor("count", count)
        .open()
        .await?;
    for n in 0..INSTANCES {
        engine.register_instance(Instance::new(n.to_string()).executor("count")).await?;
    }
    let began = Instant::now();
    let invocations = match work.case.as_str() {
        "fleets of 100" => store_for_fleet(&engine, work.jobs).await?,
        "one instance" => store_singly(&engine, work.jobs).await?,
        other => return Err(format!("no case is called {other}").into()),
    };
    let stored = began.elapsed();
    for invoke_id in invocations {
        engine.wait(&invoke_id).await?;
    }
    let executed = Executed::EndToEnd(began.elapsed());
    engine.shutdown(Duration::from_secs(5)).await;
    Ok(Times { stored, executed })
}

/// The script is the number of the job that instance 0 would have.
fn job(task: &Task) -> usize {
    let content = std::str::from_utf8(task.content()).expect("UTF-8");
    let first: usize = content.parse().expect("the number of a job");
    let instance: usize = task.instance_id.as_str().parse().expect("the number of an instance");
    first + instance
}

async fn store_for_fleet(engine: &Engine, jobs: usize) -> Result<Vec<InvokeId>> {
    let mut invocations = Vec::new();
    for first in (0..jobs).step_by(INSTANCES) {
        let targets = (0..INSTANCES.min(jobs - first)).map(|n| n.to_string());
        let request = RunCommand::shell(first.to_string()).on(targets);
        invocations.push(engine.run_command(request).await?.invoke_id);
    }
    Ok(invocations)
}

async fn store_singly(engine: &Engine, jobs: usize) -> Result<Vec<InvokeId>> {
    let submitters = (0..SUBMITTERS).map(|submitter| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut invocations = Vec::new();
            for job in (submitter..jobs).step_by(SUBMITTERS) {
                let instance = job % INSTANCES;
                let first = job - instance;
                let request = RunCommand::shell(first.to_string()).on([instance.to_string()]);
                invocations.push(engine.run_command(request).await?.invoke_id);
            }
            Ok::<_, adjutant::Error>(invocations)
        })
    });
    let mut invocations = Vec::new();
    for submitter in submitters.collect::<Vec<_>>() {
        invocations.extend(submitter.await??);
    }
    Ok(invocations)
}

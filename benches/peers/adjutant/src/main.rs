//! This engine. `fleets of 100`: invocations of 100 instances each, submitted by 16 tasks; `one instance`:
//! invocations of one, by 64. Each task awaits the durable ids of its invocations. It runs what it has while it is asked for
//! more, so its times are end to end.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use adjutant::{ClosureExecutor, Durability, Engine, Instance, InvokeId, RunCommand, Task};
use harness::{EqualBy, Executed, Result, Setting, Times, Work};

const INSTANCES: usize = 100;
/// Tasks that submit or wait at a time.
const TASKS: usize = 64;

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
        .max_concurrent(work.jobs)
        .executor("count", count)
        .open()
        .await?;
    for n in 0..INSTANCES {
        engine.register_instance(Instance::new(n.to_string()).executor("count")).await?;
    }
    let began = Instant::now();
    let invocations = match work.case.as_str() {
        "fleets of 100" => store(&engine, work.jobs, INSTANCES, 16).await?,
        "one instance" => store(&engine, work.jobs, 1, TASKS).await?,
        other => return Err(format!("no case is called {other}").into()),
    };
    let stored = began.elapsed();
    wait(&engine, invocations).await?;
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

/// Stores invocations of so many jobs each, the task's own after one another; their ids.
async fn store(
    engine: &Engine,
    jobs: usize,
    each: usize,
    submitters: usize,
) -> Result<Vec<InvokeId>> {
    let submitters = (0..submitters).map(|submitter| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut invocations = Vec::new();
            for job in (submitter * each..jobs).step_by(submitters * each) {
                let instance = job % INSTANCES;
                let targets = (instance..instance + each.min(jobs - job)).map(|n| n.to_string());
                let request = RunCommand::shell((job - instance).to_string()).on(targets);
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

async fn wait(engine: &Engine, invocations: Vec<InvokeId>) -> Result<()> {
    let waiting = invocations.chunks(invocations.len().div_ceil(TASKS)).map(|some| {
        let (engine, some) = (engine.clone(), some.to_vec());
        tokio::spawn(async move {
            for invoke_id in some {
                engine.wait_status(&invoke_id).await?;
            }
            Ok::<_, adjutant::Error>(())
        })
    });
    for task in waiting.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}

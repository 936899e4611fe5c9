//! A fleet whose executions do nothing, and what the benches have it do: all the time is the engine's.

use std::time::{Duration, Instant};

use adjutant::{ClosureExecutor, Engine, Executor, Instance, InvokeId, RunCommand};
use tokio::task::JoinSet;

/// Executions of a round.
pub const EXECUTIONS: usize = 10_000;
/// Targets of an invocation with many.
pub const INSTANCES: usize = 100;
/// Executions that run at a time: as many as a round has.
pub const PLACES: usize = EXECUTIONS;
/// Tasks that ask for invocations with many targets.
const SUBMITTERS: usize = 16;

pub fn at_once() -> impl Executor {
    ClosureExecutor::new(|_task, _cx| std::future::ready(()))
}

/// Registers the instances `i-0`, `i-1` and so on, which the executor `bench` serves.
pub async fn register(engine: &Engine, instances: usize) {
    let mut registering = JoinSet::new();
    for first in 0..SUBMITTERS {
        let engine = engine.clone();
        registering.spawn(async move {
            for n in (first..instances).step_by(SUBMITTERS) {
                let instance = Instance::new(format!("i-{n}")).executor("bench");
                engine.register_instance(instance).await.expect("a sound instance");
            }
        });
    }
    registering.join_all().await;
}

/// Runs something on the instances of these numbers; the invocation.
pub async fn begin(engine: &Engine, instances: std::ops::Range<usize>) -> InvokeId {
    let request = RunCommand::shell("nothing").on(instances.map(|n| format!("i-{n}")));
    engine.run_command(request).await.expect("a sound request").invoke_id
}

pub async fn end(engine: &Engine, invocations: Vec<InvokeId>) {
    for invoke_id in invocations {
        engine.wait_status(&invoke_id).await.expect("the invocation ends");
    }
}

/// The time from the first request to the last finished record of 100 invocations of 100 instances.
pub async fn many_targets(engine: &Engine) -> Duration {
    let began = Instant::now();
    let mut submitting = JoinSet::new();
    for first in 0..SUBMITTERS {
        let engine = engine.clone();
        submitting.spawn(async move {
            let mut invocations = Vec::new();
            for _ in (first..EXECUTIONS / INSTANCES).step_by(SUBMITTERS) {
                invocations.push(begin(&engine, 0..INSTANCES).await);
            }
            end(&engine, invocations).await;
        });
    }
    submitting.join_all().await;
    began.elapsed()
}

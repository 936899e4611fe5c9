//! How fast executions go from a request to a finished record, on disk with `synchronous=FULL`.
//!
//! `many targets`: 100 invocations of 100 instances; `many invocations`: 10,000 invocations of one
//! instance, submitted by 64 tasks that each await their durable id. Executors do nothing, so all
//! the time is the engine's.

use std::time::{Duration, Instant};

use adjutant::{ClosureExecutor, Engine, Instance, InvokeId, RunCommand};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const EXECUTIONS: u64 = 10_000;
const INSTANCES: usize = 100;
const SUBMITTERS: usize = 64;

async fn open(folder: &std::path::Path) -> Engine {
    let nothing = ClosureExecutor::new(|_task, _cx| std::future::ready(()));
    let engine = Engine::builder()
        .path(folder.join("bench.db"))
        .max_concurrent(1_000)
        .executor("nothing", nothing)
        .open()
        .await
        .expect("a new file opens");
    for n in 0..INSTANCES {
        let instance = Instance::new(format!("i-{n}")).executor("nothing");
        engine.register_instance(instance).await.expect("a sound instance");
    }
    engine
}

async fn wait_all(engine: &Engine, invocations: Vec<InvokeId>) {
    for invoke_id in invocations {
        engine.wait(&invoke_id).await.expect("the invocation ends");
    }
}

/// The time from the first request to the last finished record.
async fn many_targets(engine: &Engine) -> Duration {
    let began = Instant::now();
    let targets: Vec<String> = (0..INSTANCES).map(|n| format!("i-{n}")).collect();
    let mut invocations = Vec::new();
    for _ in 0..EXECUTIONS as usize / INSTANCES {
        let request = RunCommand::shell("nothing").on(targets.iter().map(String::as_str));
        invocations.push(engine.run_command(request).await.expect("a sound request").invoke_id);
    }
    wait_all(engine, invocations).await;
    began.elapsed()
}

/// The time from the first request to the last durable id; the engine then finishes them unmeasured.
async fn many_invocations(engine: &Engine) -> Duration {
    let began = Instant::now();
    let submitters = (0..SUBMITTERS).map(|submitter| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in (submitter..EXECUTIONS as usize).step_by(SUBMITTERS) {
                let target = format!("i-{}", n % INSTANCES);
                let request = RunCommand::shell("nothing").on([target]);
                ids.push(engine.run_command(request).await.expect("a sound request").invoke_id);
            }
            ids
        })
    });
    let submitters: Vec<_> = submitters.collect();
    let mut invocations = Vec::new();
    for submitter in submitters {
        invocations.extend(submitter.await.expect("a submitter ends"));
    }
    let took = began.elapsed();
    wait_all(engine, invocations).await;
    took
}

fn dispatch(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk to be measured");
    let engine = runtime.block_on(open(folder.path()));
    let mut group = c.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(EXECUTIONS)).sample_size(10);
    group.bench_function("many targets", |b| {
        b.iter_custom(|rounds| {
            runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    took += many_targets(&engine).await;
                }
                took
            })
        });
    });
    group.bench_function("many invocations", |b| {
        b.iter_custom(|rounds| {
            runtime.block_on(async {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    took += many_invocations(&engine).await;
                }
                took
            })
        });
    });
    group.finish();
    runtime.block_on(engine.shutdown(Duration::from_secs(5)));
}

criterion_group!(benches, dispatch);
criterion_main!(benches);

//! What the engine adds to a process: `sh -c :` by bare tokio, and the same as a command with its
//! durable record, at the same concurrency. Compare the two in one run; the ratio is what counts.

use std::process::Stdio;
use std::time::{Duration, Instant};

use adjutant::{Engine, Instance, InvocationStatus, RunCommand};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const PROCESSES: usize = 500;
const CONCURRENCY: usize = 64;
/// Targets of one invocation.
const INSTANCES: usize = 100;

async fn bare() -> Duration {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..PROCESSES {
        if running.len() == CONCURRENCY {
            running.join_next().await.expect("something runs").expect("it ends");
        }
        running.spawn(async {
            let output = Command::new("sh").args(["-c", ":"]).stdin(Stdio::null()).output().await;
            assert!(output.expect("sh starts").status.success());
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("it ends");
    }
    began.elapsed()
}

async fn through_the_engine(engine: &Engine) -> Duration {
    let began = Instant::now();
    let targets: Vec<String> = (0..INSTANCES).map(|n| format!("i-{n}")).collect();
    let mut runs = Vec::new();
    for _ in 0..PROCESSES / INSTANCES {
        let request = RunCommand::shell(":").on(targets.iter().map(String::as_str));
        runs.push(engine.run_command(request).await.expect("a sound request").invoke_id);
    }
    for invoke_id in runs {
        let finished = engine.wait(&invoke_id).await.expect("it ends");
        assert_eq!(finished.status, InvocationStatus::Success);
    }
    began.elapsed()
}

async fn open(folder: &std::path::Path) -> Engine {
    let builder = Engine::builder().path(folder.join("bench.db")).max_concurrent(CONCURRENCY);
    let engine = builder.open().await.expect("a new file opens");
    for n in 0..INSTANCES {
        let instance = Instance::new(format!("i-{n}"));
        engine.register_instance(instance).await.expect("a sound instance");
    }
    engine
}

fn process(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk to be measured");
    let engine = runtime.block_on(open(folder.path()));
    let mut group = c.benchmark_group("process");
    group.throughput(Throughput::Elements(PROCESSES as u64)).sample_size(20);
    let mut pairs = Vec::new();
    for name in ["bare tokio", "engine"] {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    // Both in turn, whichever is asked for: the machine's speed drifts.
                    let pair = runtime
                        .block_on(async { (bare().await, through_the_engine(&engine).await) });
                    took += if name == "engine" { pair.1 } else { pair.0 };
                    pairs.push(pair.0.as_secs_f64() / pair.1.as_secs_f64());
                }
                took
            });
        });
    }
    pairs.sort_by(f64::total_cmp);
    if let Some(median) = pairs.get(pairs.len() / 2) {
        println!("engine / bare tokio, median of {} pairs: {median:.3}", pairs.len());
    }
    group.finish();
    runtime.block_on(engine.shutdown(Duration::from_secs(5)));
}

criterion_group!(benches, process);
criterion_main!(benches);

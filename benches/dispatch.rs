//! How fast executions go from a request to a finished record, on disk with `synchronous=FULL`.
//!
//! `many targets`: 100 invocations of 100 instances, submitted by 16 tasks, with places for all of them;
//! `few places`: the same with 64 places, for which they wait in turn; `many invocations`: 10,000 invocations
//! of one instance, submitted by 64 tasks that each await their durable id.

mod fleet;

use std::path::Path;
use std::time::{Duration, Instant};

use adjutant::Engine;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

use fleet::{EXECUTIONS, INSTANCES, PLACES};

/// Tasks that ask for invocations of one instance.
const SUBMITTERS: usize = 64;

/// Places for some of a round only.
const FEW_PLACES: usize = 64;

async fn open(file: &Path, places: usize) -> Engine {
    let engine = Engine::builder()
        .path(file)
        .max_concurrent(places)
        .executor("bench", fleet::at_once())
        .open()
        .await
        .expect("a new file opens");
    fleet::register(&engine, INSTANCES).await;
    engine
}

/// The time from the first request to the last durable id; the engine then finishes them unmeasured.
async fn many_invocations(engine: &Engine) -> Duration {
    let began = Instant::now();
    let submitters = (0..SUBMITTERS).map(|submitter| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in (submitter..EXECUTIONS).step_by(SUBMITTERS) {
                let instance = n % INSTANCES;
                ids.push(fleet::begin(&engine, instance..instance + 1).await);
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
    fleet::end(engine, invocations).await;
    took
}

fn dispatch(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk to be measured");
    let engine = runtime.block_on(open(&folder.path().join("bench.db"), PLACES));
    let narrow = runtime.block_on(open(&folder.path().join("narrow.db"), FEW_PLACES));
    let mut group = c.benchmark_group("dispatch");
    group.throughput(Throughput::Elements(EXECUTIONS as u64)).sample_size(10);
    for (name, engine) in [("many targets", &engine), ("few places", &narrow)] {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                runtime.block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..rounds {
                        took += fleet::many_targets(engine).await;
                    }
                    took
                })
            });
        });
    }
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
    for engine in [engine, narrow] {
        runtime.block_on(engine.shutdown(Duration::from_secs(5)));
    }
}

criterion_group!(benches, dispatch);
criterion_main!(benches);

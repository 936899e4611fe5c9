//! What a request costs before anything runs: a large script checked and filled in, its JSON read, and
//! the instances selected that have a tag.
//!
//!     cargo bench --bench requests                # all of it, about a minute
//!     cargo bench --bench requests -- script      # one of: script, selection
//!
//! A selection is a dry run on a file: the records are looked up, everything is checked, nothing is
//! stored. `run` stores an invocation with its executions, too, with `synchronous=FULL`.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use adjutant::{
    ClosureExecutor, Engine, Instance, Limits, Parameters, PreviewCommand, RepeatMode, RunCommand,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;

const SCRIPT_BYTES: usize = 16 * 1024;
const PARAMETERS: usize = 20;
const INSTANCES: usize = 100_000;
const SELECTED: usize = 1_000;
/// Who registers at a time: more share a commit.
const REGISTRARS: usize = 256;

/// Lines of a shell script, a placeholder in each of the first `placeholders`.
fn script(placeholders: usize) -> String {
    let mut script = String::with_capacity(SCRIPT_BYTES);
    for n in 0.. {
        let line = match n {
            n if n < placeholders => {
                format!(
                    "install -m 644 \"{{{{ parameter-{} }}}}\" /opt/service/etc/{n:03}\n",
                    n % PARAMETERS
                )
            }
            n => format!("grep -q '^service-{n:03}$' /etc/services || echo ${{#n}} {{}}\n"),
        };
        if script.len() + line.len() > SCRIPT_BYTES {
            break;
        }
        script.push_str(&line);
    }
    let rest = SCRIPT_BYTES - script.len();
    script + &"#".repeat(rest)
}

fn pairs(numbers: std::ops::Range<usize>) -> impl Iterator<Item = (String, String)> {
    numbers.map(|n| (format!("Parameter-{n}"), format!("/srv/files/value-{n}")))
}

/// Half of the parameters have a value, which is as many as the pages let a request give.
fn values() -> impl Iterator<Item = (String, String)> {
    pairs(0..PARAMETERS / 2)
}

fn defaults() -> impl Iterator<Item = (String, String)> {
    pairs(PARAMETERS / 2..PARAMETERS)
}

fn scripts(c: &mut Criterion) {
    let mut group = c.benchmark_group("script of 16 KB, 20 parameters");
    group.throughput(Throughput::Bytes(SCRIPT_BYTES as u64));
    let limits = Limits::default();
    for placeholders in [PARAMETERS, 10 * PARAMETERS] {
        let script = script(placeholders);
        let mut request = PreviewCommand::script(&script).parameters(values());
        request.default_parameters = Parameters::from_iter(defaults());
        group.bench_function(format!("checked and filled in at {placeholders} places"), |b| {
            b.iter(|| black_box(&request).fill_in(&limits).expect("a sound request"));
        });
        let request = RunCommand::shell(&script)
            .on(["i-1"])
            .enable_parameter()
            .parameters(values())
            .default_parameters(defaults());
        let json = serde_json::to_string(&request).expect("it serialises");
        group.bench_function(format!("read from JSON, {placeholders} places"), |b| {
            b.iter(|| serde_json::from_str::<RunCommand>(black_box(&json)).expect("its own JSON"));
        });
    }
    group.finish();
}

/// Instances of which one in a hundred is a `web`, all of them `prod`.
async fn open(folder: &Path) -> Engine {
    let nothing = ClosureExecutor::new(|_task, _cx| std::future::ready(()));
    let mut limits = Limits::default();
    limits.instances_max = SELECTED;
    let engine = Engine::builder()
        .path(folder.join("bench.db"))
        .max_concurrent(SELECTED)
        .limits(limits)
        .executor("nothing", nothing)
        .open()
        .await
        .expect("a new file opens");
    let began = Instant::now();
    let registrars = (0..REGISTRARS).map(|registrar| {
        let engine = engine.clone();
        tokio::spawn(async move {
            for n in (registrar..INSTANCES).step_by(REGISTRARS) {
                let role = if n % (INSTANCES / SELECTED) == 0 { "web" } else { "worker" };
                let instance = Instance::new(format!("i-{n}")).executor("nothing");
                let instance = instance.tag("stage", "prod").tag("role", role);
                engine.register_instance(instance).await.expect("a sound instance");
            }
        })
    });
    for registrar in registrars.collect::<Vec<_>>() {
        registrar.await.expect("a registrar ends");
    }
    println!("{INSTANCES} instances registered in {:.1} s", began.elapsed().as_secs_f64());
    engine
}

/// The time until each of these requests is answered; what runs ends unmeasured.
async fn ask(engine: &Engine, rounds: u64, request: &RunCommand) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..rounds {
        let request = request.clone();
        let dry = request.repeat_mode == RepeatMode::DryRun.into();
        let began = Instant::now();
        let run = engine.run_command(request).await.expect("a sound request");
        took += began.elapsed();
        if !dry {
            let finished = engine.wait(&run.invoke_id).await.expect("it ends");
            assert_eq!(finished.results.len(), SELECTED);
        }
    }
    took
}

fn selection(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk to be measured");
    let engine = runtime.block_on(open(folder.path()));
    let mut group = c.benchmark_group("selection of 1,000 from 100,000");
    group.throughput(Throughput::Elements(SELECTED as u64)).sample_size(20);
    let web = RunCommand::shell("nothing").on_tagged([("role", "web")]);
    let both = RunCommand::shell("nothing").on_tagged([("stage", "prod"), ("role", "web")]);
    let large = RunCommand::shell(script(10 * PARAMETERS))
        .on_tagged([("role", "web")])
        .enable_parameter()
        .parameters(values())
        .default_parameters(defaults());
    for (name, request) in [
        ("by one tag", web.clone().repeat_mode(RepeatMode::DryRun)),
        ("by two tags, all have the first", both.repeat_mode(RepeatMode::DryRun)),
        ("with 16 KB to fill in", large.repeat_mode(RepeatMode::DryRun)),
        ("run", web),
    ] {
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| runtime.block_on(ask(&engine, rounds, &request)));
        });
    }
    group.finish();
    runtime.block_on(engine.shutdown(Duration::from_secs(5)));
}

criterion_group!(benches, scripts, selection);
criterion_main!(benches);

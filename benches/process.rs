//! What the engine adds to a process, every record durable (`synchronous=FULL`), beside whoever else
//! starts the same processes in the same run.
//!
//!     cargo bench --bench process             # all four, some minutes
//!     cargo bench --bench process -- runs     # one of: runs, output, floods, leaks
//!     ROUNDS=21 cargo bench --bench process -- runs
//!
//! `runs`: `sh -c :` by the engine, by bare tokio, by xargs and by GNU parallel (Debian's `parallel`, if
//! it is there). `output`: 2 GiB through one pipe. `floods`: how long 10 ms take while 16 others print
//! without end. `leaks`: what is left of 5,000 runs.
//!
//! No criterion: the machine's speed drifts, so rivals take turns, and what counts is the median of their
//! ratios.

use std::fmt::Display;
use std::future::Future;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use adjutant::{Engine, Instance, InvocationStatus, InvokeId, RunCommand, StopInvocation};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command as TokioCommand;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Rounds in which each rival has its turn, unless `ROUNDS` says otherwise.
const ROUNDS: usize = 11;
/// Processes of one turn.
const PROCESSES: usize = 400;
/// Targets of one invocation.
const INSTANCES: usize = 100;
const BALLAST_BYTES: usize = 2 << 30;
const OUTPUT_BYTES: u64 = 2 << 30;
const OUTPUT_ROUNDS: usize = 5;
/// Bytes that a blocking reader takes at a time.
const READ_BYTES_MAX: usize = 64 * 1024;
const FLOODS: [&str; 2] = ["exec cat /dev/zero", "exec yes"];
/// Instances that each print one of them.
const FLOODED: usize = 8;
const SHORT: &str = "sleep 0.01";
const SHORT_RUNS: usize = 100;
const SHORT_ROUNDS: usize = 3;
const WARM_UP_RUNS: usize = 1_000;
const LEAK_RUNS: usize = 5_000;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    // Cargo adds `--bench`.
    let asked: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    println!("{:<44} {:>14} {:>24} {:>10}", "", "measured", "", "target");
    if wanted("runs") {
        for concurrency in [2, 16, 64] {
            runs(&runtime, concurrency, "");
        }
        let ballast = black_box(vec![1u8; BALLAST_BYTES]);
        runs(&runtime, 64, ", host of 2 GiB");
        drop(ballast);
    }
    if wanted("output") {
        output(&runtime);
    }
    if wanted("floods") {
        runtime.block_on(floods());
    }
    if wanted("leaks") {
        runtime.block_on(leaks());
    }
}

fn row(what: &str, measured: impl Display, beside: impl Display, target: &str) {
    println!("{what:<44} {measured:>14} {beside:>24} {target:>10}");
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// An engine on the disk to be measured, with instances of this machine.
struct Host {
    engine: Engine,
    folder: tempfile::TempDir,
}

impl Host {
    async fn open(concurrency: usize) -> Self {
        let folder = tempfile::tempdir_in(".").expect("a folder on the disk to be measured");
        let path = folder.path().join("bench.db");
        let engine = Engine::builder().path(path).max_concurrent(concurrency);
        let engine = engine.open().await.expect("a new file opens");
        for n in 0..INSTANCES {
            let instance = Instance::new(format!("i-{n}"));
            engine.register_instance(instance).await.expect("a sound instance");
        }
        Self { engine, folder }
    }

    async fn begin(&self, script: &str, instances: usize) -> InvokeId {
        let request = RunCommand::shell(script).on((0..instances).map(|n| format!("i-{n}")));
        self.engine.run_command(request).await.expect("a sound request").invoke_id
    }

    async fn succeed(&self, invoke_id: InvokeId) {
        let finished = self.engine.wait(&invoke_id).await.expect("it ends");
        assert_eq!(finished.status, InvocationStatus::Success);
    }

    async fn run(&self, script: &str) {
        self.succeed(self.begin(script, 1).await).await;
    }

    /// Runs the script `:` as often as this, in invocations of all instances.
    async fn run_many(&self, processes: usize) {
        let mut invocations = Vec::new();
        for _ in 0..processes / INSTANCES {
            invocations.push(self.begin(":", INSTANCES).await);
        }
        for invoke_id in invocations {
            self.succeed(invoke_id).await;
        }
    }

    async fn stop(&self, invoke_id: InvokeId) {
        let request = StopInvocation::new(invoke_id);
        self.engine.stop_invocation(request).await.expect("it is there");
        self.engine.wait(&invoke_id).await.expect("it ends");
    }

    async fn close(self) {
        self.engine.shutdown(Duration::from_secs(5)).await;
    }
}

/// Who starts processes.
#[derive(Debug, Clone, Copy)]
enum Rival {
    Tokio,
    Engine,
    Xargs,
    Parallel,
}

impl Rival {
    fn name(self) -> &'static str {
        match self {
            Self::Tokio => "bare tokio",
            Self::Engine => "engine",
            Self::Xargs => "xargs -P",
            Self::Parallel => "GNU parallel",
        }
    }

    fn take_turn(self, runtime: &Runtime, host: &Host, concurrency: usize) -> Turn {
        let (began, cpu) = (Instant::now(), cpu_time());
        match self {
            Self::Tokio => runtime.block_on(run_bare(concurrency)),
            Self::Engine => runtime.block_on(host.run_many(PROCESSES)),
            Self::Xargs => {
                feed(
                    Command::new("xargs")
                        .args(["-n1", "-P", &concurrency.to_string()])
                        .args(["sh", "-c", ":"]),
                );
            }
            Self::Parallel => {
                feed(Command::new("parallel").env("PARALLEL_SHELL", "/bin/sh").args([
                    "--will-cite",
                    "-j",
                    &concurrency.to_string(),
                    ":",
                ]))
            }
        }
        Turn { took: began.elapsed(), cpu: cpu_time() - cpu }
    }
}

struct Turn {
    took: Duration,
    /// Of this process and of those that it has waited for.
    cpu: Duration,
}

fn cpu_time() -> Duration {
    let used = |who| {
        let usage = getrusage(who).expect("Linux");
        let micros = [usage.user_time(), usage.system_time()]
            .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec());
        Duration::from_micros(micros.iter().sum::<i64>().unsigned_abs())
    };
    used(UsageWho::RUSAGE_SELF) + used(UsageWho::RUSAGE_CHILDREN)
}

async fn run_bare(concurrency: usize) {
    let mut running = JoinSet::new();
    for _ in 0..PROCESSES {
        if running.len() == concurrency {
            running.join_next().await.expect("something runs").expect("it ends");
        }
        running.spawn(run_one_bare(":"));
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("it ends");
    }
}

async fn run_one_bare(script: &'static str) {
    let output = TokioCommand::new("sh").args(["-c", script]).stdin(Stdio::null()).output().await;
    assert!(output.expect("sh starts").status.success());
}

/// Has a program run a process for each line.
fn feed(program: &mut Command) {
    let mut program =
        program.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it is installed");
    let lines: String = (0..PROCESSES).map(|n| format!("{n}\n")).collect();
    program.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    assert!(program.wait().expect("it ends").success());
}

fn runs(runtime: &Runtime, concurrency: usize, kind: &str) {
    let rounds = env::var("ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    let host = runtime.block_on(Host::open(concurrency));
    let mut rivals = vec![Rival::Tokio, Rival::Engine, Rival::Xargs];
    match Command::new("parallel").arg("--version").output() {
        Ok(_) => rivals.push(Rival::Parallel),
        Err(_) => println!("GNU parallel is not installed: no figures for it"),
    }
    let rounds: Vec<Vec<Turn>> = (0..rounds)
        .map(|_| rivals.iter().map(|who| who.take_turn(runtime, &host, concurrency)).collect())
        .collect();
    let of_all =
        |figure: &dyn Fn(&[Turn]) -> f64| median(rounds.iter().map(|r| figure(r)).collect());
    for (n, rival) in rivals.iter().enumerate() {
        let rate = of_all(&|turns| PROCESSES as f64 / turns[n].took.as_secs_f64());
        let cpu = of_all(&|turns| turns[n].cpu.as_secs_f64() * 1e6 / PROCESSES as f64);
        let ratio = of_all(&|turns| turns[0].took.as_secs_f64() / turns[n].took.as_secs_f64());
        let cpu_ratio = of_all(&|turns| turns[n].cpu.as_secs_f64() / turns[0].cpu.as_secs_f64());
        row(
            &format!("runs: {}, {concurrency} at once{kind}", rival.name()),
            format!("{rate:.0} /s"),
            format!("{ratio:.2} of bare tokio"),
            if matches!(rival, Rival::Engine) { ">= 0.90" } else { "" },
        );
        row("  CPU of a run", format!("{cpu:.0} µs"), format!("{cpu_ratio:.2} of bare tokio"), "");
    }
    runtime.block_on(host.close());
}

/// How fast one run can print, and what that takes of this process's memory.
fn output(runtime: &Runtime) {
    let host = runtime.block_on(Host::open(1));
    let script = format!("exec head -c {OUTPUT_BYTES} /dev/zero");
    let rate = |began: Instant| OUTPUT_BYTES as f64 / 1e9 / began.elapsed().as_secs_f64();
    let (mut small, mut large, mut engine) = (Vec::new(), Vec::new(), Vec::new());
    runtime.block_on(host.run(":"));
    fs::write("/proc/self/clear_refs", "5").expect("the peak can be set back");
    let resident = memory("VmRSS:");
    for _ in 0..OUTPUT_ROUNDS {
        let began = Instant::now();
        read_bare(&script, None);
        small.push(rate(began));
        let began = Instant::now();
        read_bare(&script, Some(1024 * 1024));
        large.push(rate(began));
        let began = Instant::now();
        runtime.block_on(host.run(&script));
        engine.push(rate(began));
    }
    let beside = |bare: &[f64]| {
        format!("{:.2}", median(engine.iter().zip(bare).map(|(one, bare)| one / bare).collect()))
    };
    let (of_small, of_large) = (beside(&small), beside(&large));
    let figure = |rates| format!("{:.2} GB/s", median(rates));
    row("output: engine", figure(engine), "", ">= 1 GB/s");
    let names = ["output: blocking reads, pipe of 64 KiB", "output: blocking reads, pipe of 1 MiB"];
    row(names[0], figure(small), format!("engine: {of_small} of it"), "");
    row(names[1], figure(large), format!("engine: {of_large} of it"), "");
    let megabytes = |bytes: f64| format!("{:.1} MB", bytes / 1e6);
    let before = format!("before: {}", megabytes(resident));
    row("output: resident at most", megabytes(memory("VmHWM:")), before, "flat");
    runtime.block_on(host.close());
}

/// Reads what a script prints as fast as a thread can that does nothing else.
fn read_bare(script: &str, pipe_bytes: Option<usize>) {
    let mut process =
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().expect("sh starts");
    let mut pipe = process.stdout.take().expect("a pipe");
    if let Some(bytes) = pipe_bytes {
        rustix::pipe::fcntl_setpipe_size(&pipe, bytes).expect("a size that anybody may set");
    }
    let mut buffer = vec![0; READ_BYTES_MAX];
    let mut total = 0;
    loop {
        match pipe.read(&mut buffer).expect("it can be read") {
            0 => break,
            bytes => total += bytes as u64,
        }
    }
    assert_eq!(total, OUTPUT_BYTES);
    assert!(process.wait().expect("it ends").success());
}

/// What this process says of its memory, in bytes.
fn memory(what: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("it says");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024.0
}

/// How long a short run takes while others print without end.
async fn floods() {
    let host = Host::open(FLOODS.len() * FLOODED + 1).await;
    let [mut alone, mut flooded, mut bare_alone, mut bare_flooded] = [(); 4].map(|()| Vec::new());
    for _ in 0..SHORT_ROUNDS {
        latencies(&mut bare_alone, || run_one_bare(SHORT)).await;
        let flood = BareFlood::begin();
        latencies(&mut bare_flooded, || run_one_bare(SHORT)).await;
        flood.end().await;

        latencies(&mut alone, || host.run(SHORT)).await;
        let mut flood = Vec::new();
        for script in FLOODS {
            flood.push(host.begin(script, FLOODED).await);
        }
        latencies(&mut flooded, || host.run(SHORT)).await;
        for invoke_id in flood {
            host.stop(invoke_id).await;
        }
    }
    let tell = |who: &str, alone: Vec<f64>, flooded: Vec<f64>, target: &str| {
        for (name, share, target) in [("p50", 0.50, ""), ("p99", 0.99, target)] {
            let (alone, flooded) = (percentile(&alone, share), percentile(&flooded, share));
            row(
                &format!("floods: 10 ms beside 16 of them, {who}, {name}"),
                format!("{flooded:.1} ms"),
                format!("{:.1} of {alone:.1} ms", flooded / alone),
                target,
            );
        }
    };
    tell("tokio", bare_alone, bare_flooded, "");
    tell("engine", alone, flooded, "<= 2");
    host.close().await;
}

/// Adds how many milliseconds each of many takes, one after the other.
async fn latencies<F: Future<Output = ()>>(all: &mut Vec<f64>, run: impl Fn() -> F) {
    for _ in 0..SHORT_RUNS {
        let began = Instant::now();
        run().await;
        all.push(began.elapsed().as_secs_f64() * 1e3);
    }
}

fn percentile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() as f64 * share).ceil() as usize - 1]
}

/// The same floods, read and forgotten by a task each.
struct BareFlood(JoinSet<()>);

impl BareFlood {
    fn begin() -> Self {
        let mut readers = JoinSet::new();
        for script in FLOODS.repeat(FLOODED) {
            let mut flood = TokioCommand::new("sh");
            flood.args(["-c", script]).stdout(Stdio::piped()).kill_on_drop(true);
            readers.spawn(async move {
                let mut process = flood.spawn().expect("sh starts");
                let pipe = process.stdout.as_mut().expect("a pipe");
                let mut buffer = vec![0; READ_BYTES_MAX];
                while pipe.read(&mut buffer).await.expect("it can be read") > 0 {}
            });
        }
        Self(readers)
    }

    async fn end(mut self) {
        assert!(self.0.try_join_next().is_none(), "none has ended by itself");
        self.0.shutdown().await;
    }
}

/// What this process has after many runs that it did not have before.
async fn leaks() {
    let host = Host::open(64).await;
    let told = host.folder.path().join("scratch");
    host.run(&format!("dirname \"$0\" > '{}'", told.display())).await;
    let scratch = PathBuf::from(fs::read_to_string(&told).expect("the script wrote it").trim());
    // Threads and caches that come once.
    host.run_many(WARM_UP_RUNS).await;
    let before = holdings(&scratch);
    host.run_many(LEAK_RUNS).await;
    for ((what, after), (_, before)) in holdings(&scratch).into_iter().zip(before) {
        row(
            &format!("leaks: {what} after {LEAK_RUNS} runs"),
            after,
            format!("before: {before}"),
            "",
        );
    }
    host.close().await;
}

/// What this process has now, by name.
fn holdings(scratch: &Path) -> [(&'static str, String); 5] {
    let entries = |path: &str| fs::read_dir(path).expect("it can be read").count().to_string();
    [
        ("descriptors", entries("/proc/self/fd")),
        ("threads", entries("/proc/self/task")),
        ("files in the scratch folder", entries(scratch.to_str().expect("plain text"))),
        ("children, zombies too", children().to_string()),
        ("resident", format!("{:.1} MB", memory("VmRSS:") / 1e6)),
    ]
}

/// How many processes have this one as their parent, and have not been waited for.
fn children() -> usize {
    let own = std::process::id().to_string();
    let processes = fs::read_dir("/proc").expect("Linux");
    let is_child = |stat: &String| {
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        after_name.split(' ').nth(1) == Some(own.as_str())
    };
    let stats = processes.map(|entry| entry.expect("it can be read").path().join("stat"));
    // What is no process has no such file, and a process may just have ended.
    stats.filter_map(|stat| fs::read_to_string(stat).ok()).filter(is_child).count()
}

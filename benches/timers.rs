//! What timers cost, on disk with `synchronous=FULL`: a herd that is due in one second, very many
//! that are not due, and one that is alone.
//!
//!     cargo bench --bench timers                          # all three, about two minutes
//!     cargo bench --bench timers -- herd                  # one of: herd, idle, lone
//!     TIMERS=1000000 cargo bench --bench timers -- idle   # the number that the target speaks of
//!     SAMPLES=300 cargo bench --bench timers -- lone      # enough of them for a p99
//!
//! No criterion: each figure is one event, or a distribution of its own.

use std::fmt::Display;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, thread};

use adjutant::{
    ClosureExecutor, Engine, EngineBuilder, Executor, Instance, Limits, ManualClock, Notice,
    RunCommand, StopInvocation,
};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

const HERD: usize = 100_000;
const INSTANCES: usize = 100;
const SUBMITTERS: usize = 64;
/// Timers of the idle engine, unless `TIMERS` says otherwise: a million take a minute to make.
const IDLE_TIMERS: usize = 100_000;
/// How long the idle engine is looked at; no event is rarer than its half-minute look at the clock.
const IDLE_SECONDS: u64 = 40;
/// Fires of the lone timer, one a second, unless `SAMPLES` says otherwise.
const LONE_SAMPLES: usize = 45;
/// Names the file that a process of this program opens only to be measured while it idles.
const IDLE_FILE: &str = "ADJUTANT_BENCH_IDLE_FILE";

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    if let Some(path) = env::var_os(IDLE_FILE) {
        return runtime.block_on(idle_and_tell(Path::new(&path)));
    }
    // Cargo adds `--bench`.
    let asked: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    println!("{:<52} {:>12} {:>12}", "", "measured", "target");
    if wanted("herd") {
        runtime.block_on(herd(
            "that hold",
            ClosureExecutor::new(|_task, _cx| std::future::pending::<()>()),
            false,
        ));
        let at_once = ClosureExecutor::new(|_task, _cx| std::future::ready(()));
        runtime.block_on(herd("that end at once", at_once, true));
    }
    if wanted("idle") {
        idle(&runtime, number("TIMERS", IDLE_TIMERS));
    }
    if wanted("lone") {
        runtime.block_on(lone(number("SAMPLES", LONE_SAMPLES)));
    }
}

fn number(name: &str, default: usize) -> usize {
    let given = env::var(name).ok();
    given.map_or(default, |text| text.parse().expect("a number in the environment"))
}

fn row(what: &str, measured: impl Display, target: &str) {
    println!("{what:<52} {measured:>12} {target:>12}");
}

fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

/// A folder on the disk to be measured, and the file in it.
fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk to be measured");
    let path = folder.path().join("bench.db");
    (folder, path)
}

fn builder(path: &Path, executor: impl Executor) -> EngineBuilder {
    Engine::builder().path(path).max_concurrent(64).executor("bench", executor)
}

async fn register_instances(engine: &Engine) {
    for n in 0..INSTANCES {
        let instance = Instance::new(format!("i-{n}")).executor("bench");
        engine.register_instance(instance).await.expect("a sound instance");
    }
}

/// Makes `count` timers, the n-th with the schedule that `frequency` says.
async fn make_timers(engine: &Engine, count: usize, frequency: fn(usize) -> String) -> Duration {
    let began = Instant::now();
    let submitters = (0..SUBMITTERS).map(|submitter| {
        let engine = engine.clone();
        tokio::spawn(async move {
            for n in (submitter..count).step_by(SUBMITTERS) {
                let mut request = RunCommand::shell("nothing").on([format!("i-{}", n % INSTANCES)]);
                request.frequency = Some(frequency(n));
                engine.run_command(request).await.expect("a sound request");
            }
        })
    });
    for submitter in submitters.collect::<Vec<_>>() {
        submitter.await.expect("a submitter ends");
    }
    began.elapsed()
}

/// What is on disk, seen from outside: rows appear to others once they are synced.
struct Rows(Connection);

impl Rows {
    fn of(path: &Path) -> Self {
        Self(
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("it exists"),
        )
    }

    fn get(&self, sql: &str) -> usize {
        let mut query = self.0.prepare_cached(sql).expect("sound SQL");
        query.query_row((), |row| row.get(0)).expect("a number")
    }

    /// Waits until a query says `want`. Short looks far apart: they are not to be what is measured.
    fn wait(&self, sql: &str, want: usize) {
        while self.get(sql) < want {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// From the second at which all timers are due until all their fires and executions are on disk.
async fn herd(kind: &str, executor: impl Executor, ends: bool) {
    let (_folder, path) = file();
    let clock = ManualClock::at("2030-01-01T00:00:00Z".parse().expect("a time"));
    let engine = builder(&path, executor).clock(clock.clone()).open().await.expect("a new file");
    register_instances(&engine).await;
    let made_in = make_timers(&engine, HERD, |_| "at(2030-01-01 00:00:20)".to_owned()).await;
    row(&format!("herd: {HERD} timers made"), seconds(made_in), "");
    clock.sleeping(1).await;
    let rows = Rows::of(&path);
    let began = Instant::now();
    clock.advance(Duration::from_secs(20));
    let waited = tokio::task::spawn_blocking(move || {
        // Both are numbered from 1 on.
        rows.wait("SELECT coalesce(max(id), 0) FROM fires", HERD);
        rows.wait("SELECT coalesce(max(id), 0) FROM executions", HERD);
        let fired_in = began.elapsed();
        if ends {
            rows.wait(
                "SELECT 1 - count(*) FROM (SELECT 1 FROM fires WHERE unfinished > 0 LIMIT 1)",
                1,
            );
        }
        assert_eq!(rows.get("SELECT count(*) FROM fires WHERE disposition = 'Started'"), HERD);
        assert_eq!(rows.get("SELECT count(*) FROM executions"), HERD);
        (fired_in, began.elapsed())
    });
    let (fired_in, ended_in) = waited.await.expect("the rows come");
    row(&format!("herd: all on disk, executors {kind}"), seconds(fired_in), "<= 4 s");
    if ends {
        row("herd: all of them ended", seconds(ended_in), "");
    }
    engine.shutdown(Duration::ZERO).await;
}

/// What an engine costs that has timers and nothing to do: measured in a process of its own, that
/// knows nothing of how they were made.
fn idle(runtime: &Runtime, timers: usize) {
    let (_folder, path) = file();
    runtime.block_on(async {
        let engine =
            builder(&path, ClosureExecutor::new(|_task, _cx| std::future::pending::<()>()));
        let engine = engine.open().await.expect("a new file");
        register_instances(&engine).await;
        let frequency =
            |n| format!("at(2099-01-01 {:02}:{:02}:{:02})", n / 3600 % 24, n / 60 % 60, n % 60);
        let took = make_timers(&engine, timers, frequency).await;
        row(&format!("idle: {timers} timers made"), seconds(took), "");
        row("idle: resident, in the process that made them", resident(), "");
        engine.shutdown(Duration::ZERO).await;
    });
    let program = env::current_exe().expect("this program");
    let mut process = Command::new(program)
        .env(IDLE_FILE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let lines = std::io::BufReader::new(process.stdout.take().expect("a pipe")).lines();
    let told: Vec<String> = lines.collect::<Result<_, _>>().expect("text");
    assert!(process.wait().expect("it ends").success());
    let [cpu, memory] = &told[..] else { panic!("two figures, not {told:?}") };
    row("idle: of a core", cpu, "< 0.1 %");
    row("idle: resident", memory, "< 64 MB");
}

/// Opens the file, idles, and prints what share of a core and how much memory that took.
async fn idle_and_tell(path: &Path) {
    let engine = builder(path, ClosureExecutor::new(|_task, _cx| std::future::pending::<()>()));
    let engine = engine.open().await.expect("the file that was made");
    // Past what opening starts.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, before) = (Instant::now(), cpu_time());
    tokio::time::sleep(Duration::from_secs(IDLE_SECONDS)).await;
    let used = (cpu_time() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("{:.4} %\n{}", used * 100.0, resident());
    engine.shutdown(Duration::ZERO).await;
}

/// What all threads of this process have used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(time.tv_sec.unsigned_abs(), nanos)
}

/// The memory that this process has in RAM.
fn resident() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    format!("{:.1} MB", kib * 1024.0 / 1e6)
}

/// How late a timer is that has the engine for itself: its fire, as told after the commit, and the
/// start of its executor, which comes a second commit later.
async fn lone(samples: usize) {
    let (_folder, path) = file();
    let (starts, mut started) = mpsc::channel(8);
    let starts = Arc::new(starts);
    let executor = ClosureExecutor::new(move |_task, _cx| {
        starts.try_send(SystemTime::now()).expect("the bench keeps up");
        std::future::ready(())
    });
    let mut limits = Limits::default();
    limits.cron_s_min = 1;
    let engine = builder(&path, executor).limits(limits).open().await.expect("a new file");
    register_instances(&engine).await;
    let mut feed = engine.follow();
    let mut request = RunCommand::shell("nothing").on(["i-0"]).frequency("* * * * * ?");
    // What runs each second may take no longer than that.
    request.timeout = Some(1);
    let invoke_id = engine.run_command(request).await.expect("a sound request").invoke_id;
    let (mut to_notice, mut to_start) = (Vec::new(), Vec::new());
    while to_start.len() < samples {
        let Notice::Fire { fire, .. } = feed.next().await.expect("the engine runs") else {
            continue;
        };
        to_notice.push(late(fire.time, SystemTime::now()));
        to_start.push(late(fire.time, started.recv().await.expect("the executor is there")));
    }
    engine.stop_invocation(StopInvocation::new(invoke_id)).await.expect("it is there");
    engine.shutdown(Duration::ZERO).await;
    row("lone: fires, one a second", samples, ">= 200");
    tell_lateness("its notice", to_notice);
    tell_lateness("its executor's start", to_start);
}

fn late(nominal: DateTime<Utc>, at: SystemTime) -> Duration {
    let late = DateTime::<Utc>::from(at) - nominal;
    late.to_std().expect("nothing happens before its time")
}

fn tell_lateness(what: &str, mut lateness: Vec<Duration>) {
    lateness.sort();
    let rank = |share: f64| (lateness.len() as f64 * share).ceil() as usize - 1;
    for (name, rank, target) in
        [("p50", rank(0.50), ""), ("p99", rank(0.99), "<= 3 ms"), ("max", rank(1.0), "")]
    {
        let milliseconds = lateness[rank].as_secs_f64() * 1e3;
        row(&format!("lone: lateness of {what}, {name}"), format!("{milliseconds:.2} ms"), target);
    }
}

//! Figures of whole engines, each with what is measured beside it; on disk with `synchronous=FULL`.
//!
//!     cargo bench --bench figures                           # all seven, some minutes
//!     cargo bench --bench figures -- lone                   # one of: lone, sleeps, pending, growth, bytes, history, crowd
//!     cargo bench --bench figures -- --quick                # the same with a tenth or less of all
//!     cargo bench --bench figures -- growth --rows 1000000  # a smaller file: 10,000,000 if not given
//!
//! `lone`: one invocation at a time, beside a commit of one row by SQLite alone. `sleeps`: 5,000 executions of 100 ms
//! at a time, and 50,000 that take turns at 5,000 places. `pending`: 1,000,000 executions that wait for 64 places.
//! `growth`: 10,000,000 finished executions in the file. `bytes`: the size of a finished execution on disk.
//! `history`: reads of a schedule that has fired on 50 instances each minute of a week. `crowd`: 560 listings at a
//! time that each read all of 300,000 executions, and other reads meanwhile.
//!
//! No criterion: what is compared takes turns, and what counts is the median.

mod fleet;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use adjutant::{
    ClosureExecutor, DescribeInvocationResults, DescribeInvocations, Engine, EngineBuilder,
    Executor, Instance, InvokeId, Limits, RunCommand, Watch,
};
use fleet::{EXECUTIONS, INSTANCES, at_once, begin, end};
use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const LONE_RUNS: usize = 1_000;
const SLEEPS: usize = 5_000;
const SLEEP: Duration = Duration::from_millis(100);
const PENDING: usize = 1_000_000;
/// Targets of an invocation that waits; more than the pages allow, so that there are fewer requests.
const PENDING_INSTANCES: usize = 1_000;
const FEW_PLACES: usize = 64;
/// Finished executions in the large file, unless `--rows` says otherwise.
const ROWS: usize = 10_000_000;
const ROUNDS: usize = 5;
/// Fires of a schedule: about one for each minute of a week.
const HISTORY_FIRES: usize = 10_000;
const HISTORY_INSTANCES: usize = 50;
/// Invocations of 100 instances each that the listings of the crowd read.
const CROWD_INVOCATIONS: usize = 3_000;
const CROWD: usize = 560;
/// Rounds in which a large file and a small one take turns: what they differ by is small.
const GROWTH_ROUNDS: usize = 11;
/// Names the file that a process of this program opens only to say how much memory that takes.
const RESIDENT_FILE: &str = "ADJUTANT_BENCH_RESIDENT_FILE";

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    if let Some(path) = env::var_os(RESIDENT_FILE) {
        return runtime.block_on(hold_and_tell(Path::new(&path)));
    }
    let asked = Asked::of(env::args().skip(1));
    println!("{:<58} {:>14}   beside", "", "measured");
    if asked.wants("lone") {
        runtime.block_on(lone(asked.scaled(LONE_RUNS)));
    }
    if asked.wants("sleeps") {
        runtime.block_on(sleeps(asked.scaled(SLEEPS)));
    }
    if asked.wants("pending") {
        pending(&runtime, asked.scaled(PENDING));
    }
    if asked.wants("growth") {
        runtime.block_on(growth(asked.rows.unwrap_or(asked.scaled(ROWS))));
    }
    if asked.wants("bytes") {
        runtime.block_on(bytes());
    }
    if asked.wants("history") {
        runtime.block_on(history(asked.scaled(HISTORY_FIRES)));
    }
    if asked.wants("crowd") {
        runtime.block_on(crowd(asked.scaled(CROWD_INVOCATIONS)));
    }
}

/// What the command line asks for.
struct Asked {
    names: Vec<String>,
    quick: bool,
    rows: Option<usize>,
}

impl Asked {
    fn of(mut words: impl Iterator<Item = String>) -> Self {
        let mut asked = Self { names: Vec::new(), quick: false, rows: None };
        while let Some(word) = words.next() {
            match word.as_str() {
                // Cargo adds it.
                "--bench" => {}
                "--quick" => asked.quick = true,
                "--rows" => {
                    let rows = words.next().expect("a number of rows");
                    asked.rows = Some(rows.parse().expect("a number of rows"));
                }
                _ => asked.names.push(word),
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|one| one == name)
    }

    fn scaled(&self, number: usize) -> usize {
        if self.quick { number / 10 } else { number }
    }
}

fn row(what: impl Display, measured: impl Display, beside: impl Display) {
    println!("{what:<58} {measured:>14}   {beside}");
}

/// Rates of rivals that have taken turns: the machine's speed drifts, so the ratio is that of each round.
fn row_of_rates(what: &str, rates: &[f64], rival: &str, rivals: &[f64]) {
    let ratios: Vec<f64> = rates.iter().zip(rivals).map(|(rate, rival)| rate / rival).collect();
    let beside = format!("{rival} {:.0} /s; ratio {:.2}", median(rivals), median(&ratios));
    row(what, format!("{:.0} /s", median(rates)), beside);
}

fn median(figures: &[f64]) -> f64 {
    rank(figures, 0.5)
}

/// The least of the figures that this share of them does not exceed.
fn rank(figures: &[f64], share: f64) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[(figures.len() as f64 * share).ceil() as usize - 1]
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

/// A folder on the disk to be measured.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(".").expect("a folder on the disk to be measured")
}

fn builder(path: &Path, places: usize, executor: impl Executor) -> EngineBuilder {
    let mut limits = Limits::default();
    limits.instances_max = PENDING_INSTANCES;
    Engine::builder().path(path).limits(limits).max_concurrent(places).executor("bench", executor)
}

/// An engine on a new file with so many instances.
async fn open(builder: EngineBuilder, instances: usize) -> Engine {
    let engine = builder.open().await.expect("a new file opens");
    fleet::register(&engine, instances).await;
    engine
}

async fn close(engine: Engine) {
    engine.shutdown(Duration::from_secs(5)).await;
}

/// Executions a second.
async fn many_targets(engine: &Engine) -> f64 {
    EXECUTIONS as f64 / fleet::many_targets(engine).await.as_secs_f64()
}

/// What one invocation takes on an engine with nothing else to do, and what a commit takes.
async fn lone(runs: usize) {
    let folder = folder();
    let engine = open(builder(&folder.path().join("engine.db"), FEW_PLACES, at_once()), 1).await;
    let bare = Connection::open(folder.path().join("bare.db")).expect("a new file opens");
    bare.pragma_update(None, "journal_mode", "wal").expect("a WAL");
    bare.pragma_update(None, "synchronous", "full").expect("synced commits");
    bare.execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)").expect("a table");
    let (mut took, mut commits) = (Vec::new(), Vec::new());
    for n in 0..runs {
        let began = Instant::now();
        let invoke_id = begin(&engine, 0..1).await;
        engine.wait_status(&invoke_id).await.expect("the invocation ends");
        took.push(milliseconds(began.elapsed()));
        let began = Instant::now();
        bare.execute("INSERT INTO t (x) VALUES (?1)", [n]).expect("a row");
        commits.push(milliseconds(began.elapsed()));
    }
    close(engine).await;
    let (p50, p99) = (median(&took), rank(&took, 0.99));
    let (commit, commit_p99) = (median(&commits), rank(&commits, 0.99));
    let ratio = format!("commit of one row {commit:.2} ms; ratio {:.2}", p50 / commit);
    row("lone: request to final status, p50", format!("{p50:.2} ms"), ratio);
    let ratio = format!("commit of one row {commit_p99:.2} ms; p99/p50 {:.2}", p99 / p50);
    row("lone: request to final status, p99", format!("{p99:.2} ms"), ratio);
}

/// What very many executions at a time add to the time that each of them takes: all of them at once, and
/// with ten times as many, which wait for places in turn.
async fn sleeps(places: usize) {
    let folder = folder();
    let executor = ClosureExecutor::new(|_task, _cx| tokio::time::sleep(SLEEP));
    let engine = builder(&folder.path().join("engine.db"), places, executor);
    let engine = open(engine, places).await;
    for turns in [1, 10] {
        let (mut walls, mut cpus) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (began, before) = (Instant::now(), cpu_time());
            let mut invocations = JoinSet::new();
            for first in (0..places).step_by(INSTANCES).cycle().take(places / INSTANCES * turns) {
                let engine = engine.clone();
                invocations.spawn(async move {
                    let invoke_id = begin(&engine, first..first + INSTANCES).await;
                    end(&engine, vec![invoke_id]).await;
                });
            }
            invocations.join_all().await;
            walls.push(milliseconds(began.elapsed()));
            let each = (cpu_time() - before).as_secs_f64() / (places * turns) as f64;
            cpus.push(each * 1e6);
        }
        let (executions, one) = (places * turns, milliseconds(SLEEP));
        let (wall, ideal) = (median(&walls), one * turns as f64);
        let name = format!("sleeps: {executions} of {one:.0} ms, {places} at a time");
        row(&name, format!("{wall:.0} ms"), format!("{:.2} times the sleeps alone", wall / ideal));
        row(
            format!("sleeps: of a processor, each of {executions}"),
            format!("{:.0} µs", median(&cpus)),
            "",
        );
    }
    close(engine).await;
}

/// What all threads of this process have used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(time.tv_sec.unsigned_abs(), nanos)
}

/// What a long queue costs: memory, and speed.
fn pending(runtime: &Runtime, executions: usize) {
    let folder = folder();
    let (empty, queue) = (folder.path().join("empty.db"), folder.path().join("queue.db"));
    runtime.block_on(async {
        close(open(builder(&empty, FEW_PLACES, at_once()).idle(), INSTANCES).await).await;
        make_queue(&queue, executions).await;
    });
    let (idle_mb, held_mb) = (resident_with(&empty), resident_with(&queue));
    let name = format!("pending: resident with {executions} that wait");
    let more = format!("{:.1} MB more than with none", held_mb - idle_mb);
    row(&name, format!("{held_mb:.1} MB"), more);
    let (mut queued, mut unqueued) = (Vec::new(), Vec::new());
    // Each takes its executions out of the queue: not so often that it ends.
    for _ in 0..ROUNDS {
        queued.push(runtime.block_on(drain(&queue)));
        unqueued.push(runtime.block_on(async {
            let engine =
                builder(&empty, FEW_PLACES, at_once()).open().await.expect("the file is there");
            let rate = many_targets(&engine).await;
            close(engine).await;
            rate
        }));
    }
    row_of_rates("pending: executions from that queue", &queued, "empty queue", &unqueued);
}

/// Fills a file with executions that wait: an engine that starts nothing takes the requests.
async fn make_queue(path: &Path, executions: usize) {
    let engine = open(builder(path, FEW_PLACES, at_once()).idle(), PENDING_INSTANCES).await;
    let began = Instant::now();
    for _ in 0..executions / PENDING_INSTANCES {
        begin(&engine, 0..PENDING_INSTANCES).await;
    }
    let rate = executions as f64 / began.elapsed().as_secs_f64();
    close(engine).await;
    row("pending: executions stored", format!("{rate:.0} /s"), "");
}

/// Executions a second out of a queue, from the first that starts on.
async fn drain(path: &Path) -> f64 {
    let started = Arc::new(AtomicUsize::new(0));
    let (first, last) =
        (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (count, begins, ends) = (Arc::clone(&started), Arc::clone(&first), Arc::clone(&last));
    let executor = ClosureExecutor::new(move |_task, _cx| {
        match count.fetch_add(1, Ordering::Relaxed) {
            0 => begins.notify_one(),
            EXECUTIONS => ends.notify_one(),
            _ => {}
        }
        std::future::ready(())
    });
    let engine = builder(path, FEW_PLACES, executor).open().await.expect("the file is there");
    first.notified().await;
    let began = Instant::now();
    last.notified().await;
    let rate = EXECUTIONS as f64 / began.elapsed().as_secs_f64();
    close(engine).await;
    rate
}

/// The memory of a process that has the file open, in MB.
fn resident_with(path: &Path) -> f64 {
    let program = env::current_exe().expect("this program");
    let output = Command::new(program)
        .env(RESIDENT_FILE, path)
        .stderr(Stdio::inherit())
        .output()
        .expect("this program starts");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("text");
    text.trim().parse().expect("a number")
}

/// Opens the file, fills its places with what does not end, and prints how much memory that takes.
async fn hold_and_tell(path: &Path) {
    let executor = ClosureExecutor::new(|_task, _cx| std::future::pending::<()>());
    let engine = builder(path, FEW_PLACES, executor).open().await.expect("the file is there");
    // Past what opening starts.
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("{:.1}", resident_mb());
    // What runs is to wait again for whoever comes next: no shutdown, which would end it.
    drop(engine);
}

/// The memory that this process has in RAM.
fn resident_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says");
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024.0 / 1e6
}

/// What very many finished executions in the file cost those that come after them, and who lists them.
async fn growth(rows: usize) {
    let folder = folder();
    let (small, large) = (folder.path().join("small.db"), folder.path().join("large.db"));
    let oldest = fill(&large, rows).await;
    let size = fs::metadata(&large).expect("it is there").len() as f64 / 1e9;
    row(format!("growth: a file of {rows} finished executions"), format!("{size:.2} GB"), "");
    let small = open(builder(&small, fleet::PLACES, at_once()), INSTANCES).await;
    let large = builder(&large, fleet::PLACES, at_once()).open().await.expect("the file is there");
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for _ in 0..GROWTH_ROUNDS {
        before.push(many_targets(&small).await);
        after.push(many_targets(&large).await);
    }
    row_of_rates("growth: executions, 100 x 100", &after, "new file", &before);
    pages(&small, &large, oldest).await;
    close(small).await;
    close(large).await;
}

/// Fills a file with copies of what an engine has stored and finished; the oldest invocation.
async fn fill(path: &Path, rows: usize) -> InvokeId {
    let engine = open(builder(path, fleet::PLACES, at_once()), INSTANCES).await;
    // One more, which nothing has run on but one execution, the oldest.
    let rare = Instance::new("rare").executor("bench");
    engine.register_instance(rare).await.expect("a sound instance");
    let request = RunCommand::shell("nothing").on(["rare"]);
    let run = engine.run_command(request).await.expect("a sound request");
    end(&engine, vec![run.invoke_id]).await;
    let mut oldest = None;
    for _ in 0..EXECUTIONS / INSTANCES {
        let invoke_id = begin(&engine, 0..INSTANCES).await;
        oldest.get_or_insert(invoke_id);
        end(&engine, vec![invoke_id]).await;
    }
    close(engine).await;
    let began = Instant::now();
    copy(path, rows);
    row("growth: rows copied", format!("{:.0} s", began.elapsed().as_secs_f64()), "");
    oldest.expect("there are some")
}

/// Copies all that the file has of executions until it has so many.
fn copy(path: &Path, rows: usize) {
    let file = Connection::open(path).expect("the engine has closed it");
    // Each row is a copy of one whose references hold, and is moved as they are.
    for (pragma, value) in
        [("foreign_keys", "off"), ("synchronous", "off"), ("cache_size", "-262144")]
    {
        file.pragma_update(None, pragma, value).expect("it is taken");
    }
    let invocations = EXECUTIONS / INSTANCES;
    let moved = |column: &str, by: usize| format!("{column} + ?1 * {by}");
    for copied in 1..rows.div_ceil(EXECUTIONS) {
        for (table, own) in
            [("invocations", invocations), ("fires", invocations), ("executions", EXECUTIONS)]
        {
            let columns = columns(&file, table);
            let values = columns.iter().map(|column| match column.as_str() {
                "id" => moved(column, own),
                "invocation" | "fire" => moved(column, invocations),
                // In the order of their numbers, as real ones are, and before those to come.
                "invoke_id" => "unhex(printf('%016x%016x', id + ?1 * 100, id))".to_owned(),
                _ => column.clone(),
            });
            let sql = format!(
                "INSERT INTO {table} ({}) SELECT {} FROM {table} WHERE id BETWEEN 2 AND ?2 + 1",
                columns.join(", "),
                values.collect::<Vec<_>>().join(", ")
            );
            let mut insert = file.prepare_cached(&sql).expect("sound SQL");
            insert.execute((copied, own)).expect("a copy");
        }
    }
}

fn columns(file: &Connection, table: &str) -> Vec<String> {
    let mut query =
        file.prepare_cached("SELECT name FROM pragma_table_info(?1)").expect("sound SQL");
    let names = query.query_map([table], |row| row.get(0)).expect("the columns");
    names.collect::<Result<_, _>>().expect("text")
}

/// Pages of executions out of the large file, beside the same out of the small one.
async fn pages(small: &Engine, large: &Engine, oldest: InvokeId) {
    let all = DescribeInvocationResults::default().max_results(50);
    let of = |invoke_id| all.clone().invoke_id(invoke_id);
    let on = |id: &str| all.clone().instance_id(id);
    // Where a page of the oldest ends, there one of all may go on.
    let first = large.describe_invocation_results(of(oldest)).await.expect("a page");
    let late = first.invocation.next_token;
    assert!(!late.is_empty(), "it has more than a page");
    let late = all.clone().next_token(late);
    let newest = begin(small, 0..INSTANCES).await;
    end(small, vec![newest]).await;
    let numbered = DescribeInvocationResults::default().page_size(50);
    let cases = [
        ("the first page", all.clone(), Some(all.clone())),
        ("a late page", late, None),
        ("of one invocation", of(oldest), Some(of(newest))),
        ("of one instance", on("i-7"), Some(on("i-7"))),
        ("of an instance with one, the oldest", on("rare"), None),
        ("the first page by number, all counted", numbered.clone(), Some(numbered)),
    ];
    for (name, request, same) in cases {
        let took = page_ms(large, &request).await;
        let beside = match same {
            Some(same) => format!("new file {:.2} ms", page_ms(small, &same).await),
            None => String::new(),
        };
        row(format!("growth: 50 results, {name}"), format!("{took:.2} ms"), beside);
    }
}

async fn page_ms(engine: &Engine, request: &DescribeInvocationResults) -> f64 {
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        let request = request.clone();
        let began = Instant::now();
        engine.describe_invocation_results(request).await.expect("a page");
        took.push(milliseconds(began.elapsed()));
    }
    median(&took)
}

/// What a finished execution without output takes in the file.
async fn bytes() {
    let folder = folder();
    let path = folder.path().join("engine.db");
    let empty = size_after(open(builder(&path, 1_000, at_once()), INSTANCES).await, &path).await;
    let engine = builder(&path, 1_000, at_once()).open().await.expect("the file is there");
    many_targets(&engine).await;
    let full = size_after(engine, &path).await;
    let each = (full - empty) as f64 / EXECUTIONS as f64;
    row("bytes: of the file, each finished execution", format!("{each:.0} bytes"), "");
}

/// The size of the file once its engine is closed.
async fn size_after(engine: Engine, path: &PathBuf) -> u64 {
    close(engine).await;
    fs::metadata(path).expect("it is there").len()
}

/// Measures reads of a schedule with a long history.
async fn history(fires: usize) {
    let folder = folder();
    let path = folder.path().join("history.db");
    let engine = open(builder(&path, fleet::PLACES, at_once()), HISTORY_INSTANCES).await;
    let names: Vec<_> = (0..HISTORY_INSTANCES).map(|n| format!("i-{n}")).collect();
    let request = RunCommand::shell("nothing").on(names).frequency("rate(7d)");
    let id = engine.run_command(request).await.expect("a sound request").invoke_id;
    close(engine).await;
    let file = Connection::open(&path).expect("the engine has closed it");
    file.execute_batch(&format!(
        "PRAGMA synchronous = off;
         INSERT INTO fires (invocation, fire_at_ms, disposition, reason, unfinished, succeeded, dealt_at_ms)
             WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {fires})
             SELECT 1, 1700000000000 + n * 60000, 'Started', 'copied', 0, {HISTORY_INSTANCES},
                 1700000000000 + n * 60000 FROM n;
         INSERT INTO executions (fire, instance, attempt, status, started_at_ms, finished_at_ms, exit_code)
             SELECT f.id, t.instance, 1, 'Success', f.fire_at_ms + 5, f.fire_at_ms + 20, 0
             FROM fires f CROSS JOIN targets t ORDER BY f.id, t.id;
         UPDATE targets SET executions_made = {fires}, latest_execution = e.id, standing_execution = e.id
             FROM executions e WHERE e.fire = {fires} AND e.instance = targets.instance;"
    ))
    .expect("sound SQL");
    drop(file);
    let engine = builder(&path, fleet::PLACES, at_once()).open().await.expect("the file is there");
    let beside = format!("{fires} fires of {HISTORY_INSTANCES} instances");
    let page = DescribeInvocationResults::default().invoke_id(id).max_results(50);
    let all = page.clone().include_history();
    let found = engine.describe_invocation_results(page.clone()).await.expect("a page");
    assert_eq!(found.invocation.results.len(), HISTORY_INSTANCES);
    row(
        "history: a page of 50, the latest",
        format!("{:.2} ms", page_ms(&engine, &page).await),
        &beside,
    );
    row("history: a page of 50 out of all", format!("{:.2} ms", page_ms(&engine, &all).await), "");
    let mut described = Vec::new();
    for _ in 0..ROUNDS {
        let request = DescribeInvocations::default().invoke_id(id);
        let began = Instant::now();
        engine.describe_invocations(request).await.expect("a page");
        described.push(milliseconds(began.elapsed()));
    }
    row("history: describe_invocations of it", format!("{:.2} ms", median(&described)), "");
    let began = Instant::now();
    let mut watch = engine.watch(&id).await.expect("it exists");
    told(&mut watch, 3 * HISTORY_INSTANCES).await;
    row(
        "history: a watch's first look, 150 events",
        format!("{:.2} ms", milliseconds(began.elapsed())),
        "",
    );
    let mut fired = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        engine.run_now(&id).await.expect("it repeats");
        told(&mut watch, 3 * HISTORY_INSTANCES).await;
        fired.push(milliseconds(began.elapsed()));
    }
    row("history: another fire, run and told, 150 events", format!("{:.2} ms", median(&fired)), "");
    close(engine).await;
}

async fn told(watch: &mut Watch, events: usize) {
    for _ in 0..events {
        watch.next().await.expect("readable").expect("it goes on");
    }
}

/// Measures many listings at a time, and other reads beside them.
async fn crowd(invocations: usize) {
    let folder = folder();
    let engine = open(builder(&folder.path().join("crowd.db"), 1_000, at_once()), INSTANCES).await;
    let mut last = None;
    for _ in 0..invocations {
        let invoke_id = begin(&engine, 0..INSTANCES).await;
        end(&engine, vec![invoke_id]).await;
        last = Some(invoke_id);
    }
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..CROWD {
        let engine = engine.clone();
        calls.spawn(async move {
            engine.describe_cloud_assistant_status(Default::default()).await.map(drop)
        });
    }
    tokio::task::yield_now().await;
    let blocking = async {
        let asked = Instant::now();
        let began = tokio::task::spawn_blocking(Instant::now).await.expect("no panic");
        milliseconds(began.duration_since(asked))
    };
    let waiting = async {
        let asked = Instant::now();
        let waited = engine.wait_status(&last.expect("there are some")).await;
        (milliseconds(asked.elapsed()), waited.is_ok())
    };
    let (blocked, (waited, is_told)) = tokio::join!(blocking, waiting);
    let mut refused = 0;
    while let Some(called) = calls.join_next().await {
        refused += usize::from(called.expect("no panic").is_err());
    }
    let took = milliseconds(began.elapsed());
    row(format!("crowd: {CROWD} listings"), format!("{took:.0} ms"), format!("{refused} refused"));
    row("crowd: a blocking task of the host's begins after", format!("{blocked:.1} ms"), "");
    let beside = if is_told { "told" } else { "not told" };
    row("crowd: wait_status of what has ended", format!("{waited:.1} ms"), beside);
    close(engine).await;
}

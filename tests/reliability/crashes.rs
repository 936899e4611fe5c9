//! Owners of a file that are killed, again and again, at any moment: all acknowledged requests are there, no
//! execution has started twice, and no process is left over.
//!
//! `ADJUTANT_SEED=N` repeats the choices of a run; the instruction at which a kill finds its process cannot be
//! repeated. `ADJUTANT_CRASH_KILLS=N` sets the number of kills.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::future::pending;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use adjutant::{
    DescribeInvocations, Engine, EngineBuilder, Error, ExecutionContext, Executor, InvokeId, LOCAL,
    Outcome, ProcessExecutor, RepeatMode, RunCommand, StopInvocation, Stream, Task,
};
use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;

use crate::faults::Faults;
use crate::invariants::{Invariants, Witness};
use crate::random::Random;
use crate::requests::{self, KEYS, RUNNING_MAX};

/// The argument that makes this program an owner that is to be killed.
pub const ROLE: &str = "--as-owner";
const KILLS: u64 = 50;

/// Returns the time, in seconds, for which the processes of a place sleep. The time is different for each place, so
/// it tells the processes of a place from all others. If a test fails, its processes end after that time.
fn nap(place: &Path, survives: bool) -> String {
    let name = place.file_name().expect("a name").to_string_lossy();
    let number =
        name.bytes().fold(7_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!("20.{}{number:010}", if survives { 7 } else { 3 })
}

pub fn trials() -> Vec<Trial> {
    vec![Trial::test(
        "crashes::owners_that_are_killed_lose_nothing_and_repeat_nothing",
        kill_owners,
    )]
}

/// The deeds of executions and their owners, line by line, in a file of its own. A line that is written stays,
/// whichever process is killed after that.
#[derive(Clone)]
struct Ledger(Arc<File>);

impl Ledger {
    fn open(path: &Path) -> Self {
        let file = OpenOptions::new().append(true).create(true).open(path).expect("a ledger");
        Self(Arc::new(file))
    }

    fn note(&self, line: &str) {
        (&*self.0).write_all(format!("{line}\n").as_bytes()).expect("a line");
    }
}

/// An executor that has one effect for each execution. The script gives the time and the exit code of the
/// execution.
struct Effects(Ledger);

impl Executor for Effects {
    async fn execute(&self, task: Task, cx: ExecutionContext) -> Outcome {
        self.0.note(&format!("start {} {}", task.execution_id, task.invoke_id()));
        let script = String::from_utf8_lossy(task.content()).into_owned();
        let (ms, exit) = script.split_once(' ').expect("a time and an exit code");
        let ms: u64 = ms.parse().expect("milliseconds");
        cx.print(Stream::Stdout, script.as_bytes());
        tokio::select! {
            () = cx.sleep(Duration::from_millis(ms)) => {
                self.0.note(&format!("end {}", task.execution_id));
                Outcome::Exited(exit.parse().expect("an exit code"))
            }
            _ = cx.stop_asked() => Outcome::Stopped { signal: None, exit_code: None, info: String::new() },
        }
    }
}

fn builder(place: &Path) -> EngineBuilder {
    let ledger = Ledger::open(&place.join("ledger"));
    let builder = Engine::builder()
        .path(place.join("a.db"))
        .max_concurrent(RUNNING_MAX)
        .limits(requests::limits())
        .stop_grace(Duration::from_millis(200))
        .executor("effects", Effects(ledger))
        .executor(LOCAL, ProcessExecutor::new());
    KEYS.iter().fold(builder, |builder, (key, max)| builder.concurrency_key(*key, *max))
}

/// Opens the file. A process that the owner before was about to start may hold the lock for a moment longer.
async fn open(builder: impl Fn() -> EngineBuilder) -> Engine {
    let began = Instant::now();
    loop {
        match builder().open().await {
            Err(Error::InUse { .. }) if began.elapsed() < Duration::from_secs(5) => {
                let moment = tokio::time::timeout(Duration::from_millis(2), pending::<()>());
                moment.await.expect_err("it is pending");
            }
            opened => return opened.expect("the file opens"),
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().expect("a runtime")
}

/// An owner: opens the file and makes requests until it is killed.
pub fn own() {
    let mut arguments = std::env::args().skip(2);
    let place = PathBuf::from(arguments.next().expect("a place"));
    let seed = arguments.next().and_then(|seed| seed.parse().ok()).expect("a seed");
    runtime().block_on(async {
        let engine = open(|| builder(&place)).await;
        let ledger = Ledger::open(&place.join("ledger"));
        for instance in requests::instances("effects") {
            engine.register_instance(instance).await.expect("a sound instance");
        }
        println!("open");
        let mut random = Random::new(seed);
        let mut known = known(&engine).await;
        loop {
            act(&engine, &ledger, &mut random, &mut known, &place).await;
        }
    });
}

/// Returns invocations that have not ended.
async fn known(engine: &Engine) -> Vec<InvokeId> {
    let request = DescribeInvocations::default().max_results(50);
    let page = engine.describe_invocations(request).await.expect("a page");
    let open = page.invocations.iter().filter(|one| !one.status.is_final());
    open.map(|one| one.invoke_id).collect()
}

async fn act(
    engine: &Engine,
    ledger: &Ledger,
    random: &mut Random,
    known: &mut Vec<InvokeId>,
    place: &Path,
) {
    let some = if known.is_empty() { None } else { Some(known[random.below(known.len())]) };
    match (random.below(20), some) {
        (0, Some(id)) => {
            let stopped = engine.stop_invocation(StopInvocation::new(id)).await;
            if stopped.is_ok() {
                ledger.note(&format!("stopped {id}"));
                known.retain(|one| *one != id);
            }
        }
        (1, Some(id)) => drop(engine.stop_invocation(StopInvocation::new(id).on(["i-0"])).await),
        (2, Some(id)) => drop(engine.pause_invocation(&id).await),
        (3, Some(id)) => drop(engine.resume_invocation(&id).await),
        (4, Some(id)) => drop(engine.run_now(&id).await),
        (5, _) => {
            let boot = format!("boot-{}", random.next());
            let name = requests::names()[random.below(8)].clone().into();
            engine.instance_booted(&name, boot).await.expect("it is registered");
        }
        (6 | 7, _) => {
            let survives = random.one_in(2);
            let script = format!(
                "echo start $ADJUTANT_EXECUTION_ID process >> '{}'; sleep {}",
                place.join("ledger").display(),
                nap(place, survives),
            );
            let request = RunCommand::shell(script).on([LOCAL]).timeout(random.between(1, 4));
            let request = if survives { request.survive_restarts() } else { request };
            let run = engine.run_command(request).await.expect("a sound request");
            ledger.note(&format!("acknowledged {}", run.invoke_id));
        }
        (8, Some(id)) => {
            // The wait is short, because other invocations are to be waited for as well.
            let told =
                tokio::time::timeout(Duration::from_millis(20), engine.wait_status(&id)).await;
            if let Ok(Ok(status)) = told {
                ledger.note(&format!("told {id} {status}"));
                known.retain(|one| *one != id);
            }
        }
        _ => {
            let script = format!("{} {}", random.below(60), usize::from(random.one_in(5)));
            let request = requests::request(random, script, true);
            let run = engine.run_command(request).await.expect("a sound request");
            ledger.note(&format!("acknowledged {}", run.invoke_id));
            known.push(run.invoke_id);
            tokio::time::timeout(Duration::from_millis(random.between(0, 10)), pending::<()>())
                .await
                .expect_err("it is pending");
        }
    }
}

/// The contents of the ledger.
#[derive(Default)]
struct Seen {
    started: HashSet<i64>,
    acknowledged: HashSet<String>,
    stopped: HashSet<String>,
    told: HashMap<String, String>,
    wrong: Vec<String>,
}

impl Seen {
    fn read(place: &Path) -> Self {
        let text = fs::read_to_string(place.join("ledger")).unwrap_or_default();
        let mut seen = Self::default();
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            match *words {
                ["start", id, of] => {
                    if !seen.started.insert(id.parse().expect("an id")) {
                        seen.wrong.push(format!("execution {id} started twice"));
                    }
                    if seen.stopped.contains(of) {
                        seen.wrong.push(format!("execution {id} started after the stop of {of}"));
                    }
                }
                ["acknowledged", id] => drop(seen.acknowledged.insert(id.to_owned())),
                ["stopped", id] => drop(seen.stopped.insert(id.to_owned())),
                ["told", id, status] => drop(seen.told.insert(id.to_owned(), status.to_owned())),
                ["end", _] => {}
                _ => seen.wrong.push(format!("a line that no process writes: {line}")),
            }
        }
        seen
    }

    fn check(self, database: &Path) -> Vec<String> {
        let Self { started, acknowledged, stopped, told, mut wrong } = self;
        let witness = Witness {
            started: &started,
            acknowledged: &acknowledged,
            stopped: &stopped,
            told: &told,
        };
        wrong.extend(witness.check(database));
        wrong
    }
}

struct Crashes {
    place: TempDir,
    faults: Faults,
    random: Random,
    invariants: Invariants,
    kills: u64,
}

fn kill_owners() -> Result<(), Failed> {
    let seed = std::env::var("ADJUTANT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| {
        Random::new(Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()))
            .next()
    });
    let kills = std::env::var("ADJUTANT_CRASH_KILLS").ok().and_then(|kills| kills.parse().ok());
    let kills = kills.unwrap_or(KILLS);
    println!("crashes: ADJUTANT_SEED={seed}");
    let began = Instant::now();
    let mut crashes = Crashes {
        place: TempDir::new()?,
        faults: Faults::new(),
        random: Random::new(seed),
        invariants: Invariants::new(requests::bounds()),
        kills: 0,
    };
    let mut opened = Vec::new();
    while crashes.kills < kills {
        crashes.kill_one();
        // Now and then the next owner is killed before an engine has cleaned up after this one.
        if !crashes.random.one_in(4) {
            opened.push(crashes.look(seed)?);
        }
    }
    opened.push(crashes.look(seed)?);
    crashes.finish(seed)?;
    opened.sort();
    let seen = Seen::read(crashes.place.path());
    println!(
        "crashes: {kills} kills, {} of them at a write, {} starts, {} acknowledged, opened in {:?} to {:?}, {:.1} s",
        crashes.faults.hits().len(),
        seen.started.len(),
        seen.acknowledged.len(),
        opened.first().expect("one"),
        opened.last().expect("one"),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

impl Crashes {
    fn database(&self) -> PathBuf {
        self.place.path().join("a.db")
    }

    /// Starts an owner and has it killed: at a random moment, or at a write to the disk.
    fn kill_one(&mut self) {
        let at_write = self.random.one_in(3);
        let rule = match self.random.below(4) {
            0 => format!("write .db-wal {} 1 kill", self.random.below(300)),
            1 => format!("write .db-wal {} 1 kill-after", self.random.below(300)),
            2 => format!("sync .db-wal {} 1 kill", self.random.below(60)),
            _ => format!("sync .db-wal {} 1 kill-after", self.random.below(60)),
        };
        let rules = [rule.as_str()];
        self.faults.set(if at_write { &rules } else { &[] });
        let mut command = Command::new("/proc/self/exe");
        command.arg(ROLE).arg(self.place.path()).arg(self.random.next().to_string());
        self.faults.load_into(&mut command);
        let mut owner: Child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(owner.stdout.take().expect("piped")).lines();
        let (say, says) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines {
                let _ = say.send(line.is_ok());
            }
        });
        // Some owners are killed while they open the file.
        if !self.random.one_in(5) {
            let _ = says.recv_timeout(Duration::from_secs(20));
        }
        let ms = Duration::from_millis(self.random.between(0, 300));
        // The channel is closed as soon as the owner has ended.
        let ended = loop {
            match says.recv_timeout(if at_write { ms * 3 } else { ms }) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => break false,
                Err(mpsc::RecvTimeoutError::Disconnected) => break true,
            }
        };
        if !ended {
            owner.kill().expect("it lives");
        }
        let status = owner.wait().expect("it has ended");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "an owner ends by itself: {status}");
        self.kills += 1;
    }

    /// Opens the file as its next owner, which starts no execution, and checks the records. Returns the time that
    /// the opening took.
    fn look(&mut self, seed: u64) -> Result<Duration, Failed> {
        let place = self.place.path().to_owned();
        let (wrong, took) = runtime().block_on(async {
            let began = Instant::now();
            let engine = open(|| builder(&place).idle()).await;
            let took = began.elapsed();
            let wrong = self.wrong();
            engine.shutdown(Duration::ZERO).await;
            (wrong, took)
        });
        self.report(seed, wrong)?;
        Ok(took)
    }

    fn wrong(&mut self) -> Vec<String> {
        let database = self.database();
        let mut wrong = self.invariants.check(&database);
        wrong.extend(Seen::read(self.place.path()).check(&database));
        let file = rusqlite::Connection::open(&database).expect("the file opens");
        let left = "SELECT count(*) FROM executions e JOIN fires f ON f.id = e.fire
            JOIN invocations v ON v.id = f.invocation
            WHERE e.status IN ('Running', 'Stopping') AND v.survive_restarts = 0";
        let left: i64 = file.query_row(left, (), |row| row.get(0)).expect("sound SQL");
        if left > 0 {
            wrong.push(format!("{left} executions are `Running` without a run"));
        }
        wrong.extend(self.processes(false));
        wrong
    }

    /// Returns the processes of this place's runs that have not ended.
    fn processes(&self, survive: bool) -> Vec<String> {
        let nap = nap(self.place.path(), survive);
        let mut alive = Vec::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            if arguments.trim_end() == format!("sleep {nap}") {
                alive.push(format!("process {:?} is left: {arguments}", entry.file_name()));
            }
        }
        alive
    }

    /// Lets all executions come to their ends.
    fn finish(&mut self, seed: u64) -> Result<(), Failed> {
        let place = self.place.path().to_owned();
        let ended = runtime().block_on(async {
            let engine = open(|| builder(&place)).await;
            let ledger = Ledger::open(&place.join("ledger"));
            let mut request = DescribeInvocations::default().max_results(50);
            let mut all = Vec::new();
            loop {
                let page = engine.describe_invocations(request.clone()).await.expect("a page");
                all.extend(
                    page.invocations.into_iter().map(|one| (one.invoke_id, one.repeat_mode)),
                );
                if page.next_token.is_empty() {
                    break;
                }
                request.next_token = Some(page.next_token);
            }
            for (id, mode) in &all {
                if *mode != RepeatMode::Once {
                    engine.stop_invocation(StopInvocation::new(*id)).await.expect("it can be");
                    ledger.note(&format!("stopped {id}"));
                }
            }
            let end = async {
                for (id, _) in &all {
                    let status = engine.wait_status(id).await.expect("it ends");
                    ledger.note(&format!("told {id} {status}"));
                }
            };
            let ended = tokio::time::timeout(Duration::from_secs(120), end).await.is_ok();
            engine.shutdown(Duration::ZERO).await;
            ended
        });
        let mut wrong = self.wrong();
        if !ended {
            wrong.push("some invocations do not end".to_owned());
        }
        wrong.extend(self.processes(true));
        self.report(seed, wrong)
    }

    fn report(&self, seed: u64, wrong: Vec<String>) -> Result<(), Failed> {
        if wrong.is_empty() {
            return Ok(());
        }
        let kept = std::env::temp_dir().join(format!("adjutant-crash-{seed}.db"));
        for end in ["", "-wal"] {
            let from = self.place.path().join(format!("a.db{end}"));
            let _ = fs::copy(from, format!("{}{end}", kept.display()));
        }
        let many = wrong.len();
        let shown = wrong.into_iter().take(20).collect::<Vec<_>>().join("\n  ");
        Err(format!(
            "ADJUTANT_SEED={seed}, after {} kills: {many} wrong; the file is in {}:\n  {shown}",
            self.kills,
            kept.display()
        )
        .into())
    }
}

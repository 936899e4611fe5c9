//! The whole engine on a clock that the test moves, among random requests and faults. The records must keep the
//! invariants, whatever fails when, and in the end all invocations must end.
//!
//! `ADJUTANT_SIM_SEEDS=N` simulates that many worlds instead of the usual number, from `ADJUTANT_SIM_FIRST` on;
//! `ADJUTANT_SEED=N` simulates one world alone. A world that fails prints its seed and its last events.
//!
//! Each world is a process of its own with one runtime of one thread. Its seed decides the requests, the steps of the
//! clock, the faults of the host's hooks, which futures are dropped after how many turns, which call to the system
//! fails with which error, and at which commit an engine is lost. The seed does not decide the order of threads: the
//! system schedules the writing thread and the reading threads. So the number of writes that share a commit, and the
//! number of turns of a loop before it hears of a commit, may differ when a world is run again. Because the loops get
//! the time to come to rest before the clock moves, little depends on that order, and a failure mostly comes back
//! with its seed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::future::{Future, pending};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use adjutant::{
    Action, AgentStatus, Authorizer, Clock, DescribeFires, DescribeInvocationResults,
    DescribeInvocations, Durability, EndedWave, Engine, EngineBuilder, Error, ExecutionContext,
    Executor, InvokeId, ManualClock, Operation, Outcome, OutputDelivery, OutputSink,
    OutputSinkError, RepeatMode, RetryFailed, RunCommand, Secret, SecretError, SecretRequest,
    SecretResolver, Sleep, StopInvocation, Stream, Task, Watch, WaveDecision, WaveGate,
};
use chrono::{DateTime, Utc};
use libtest_mimic::{Failed, Trial};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::faults::Faults;
use crate::invariants::{Invariants, Witness};
use crate::random::Random;
use crate::requests::{self, KEYS, RUNNING_MAX};

/// The argument that makes this program a world.
pub const ROLE: &str = "--as-world";
/// Worlds that each run of the tests simulates.
const WORLDS: u64 = 24;
/// A world that takes longer hangs.
const WORLD_TIME_MAX: Duration = Duration::from_secs(100);
/// A call that takes longer hangs.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);
/// The number of last events that a failed world prints.
const TOLD_MAX: usize = 80;

pub fn trials() -> Vec<Trial> {
    vec![Trial::test("simulation::every_world_keeps_the_invariants_and_comes_to_its_end", simulate)]
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Simulates worlds, as many at a time as there are processors.
fn simulate() -> Result<(), Failed> {
    let alone = number("ADJUTANT_SEED");
    let first = alone.or_else(|| number("ADJUTANT_SIM_FIRST")).unwrap_or(1);
    let count = if alone.is_some() { 1 } else { number("ADJUTANT_SIM_SEEDS").unwrap_or(WORLDS) };
    let began = Instant::now();
    let next = AtomicUsize::new(0);
    let done = Mutex::new((0, 0, Vec::new()));
    let at_a_time = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                let faults = Faults::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                    if number >= count {
                        return;
                    }
                    let ended = live(first + number, &faults);
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    match ended {
                        Ok((events, faults)) => {
                            done.0 += events;
                            done.1 += faults;
                        }
                        Err(why) => done.2.push(format!("ADJUTANT_SEED={}: {why}", first + number)),
                    }
                }
            });
        }
    });
    let (events, faults, failed) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let took = began.elapsed().as_secs_f64();
    println!(
        "simulation: seeds {first} to {}, {events} events and {faults} faults in {took:.1} s: {:.0} and {:.0} a second",
        first + count - 1,
        f64::from(events) / took,
        f64::from(faults) / took,
    );
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n\n").into()) }
}

/// Runs one world in a process of its own. Returns the numbers of its events and its faults.
fn live(seed: u64, faults: &Faults) -> Result<(u32, u32), String> {
    faults.set(&[]);
    let mut command = Command::new("/proc/self/exe");
    command.arg(ROLE).arg(seed.to_string());
    faults.load_into(&mut command);
    let output = tempfile::tempfile().expect("a file");
    let errors = output.try_clone().expect("a descriptor");
    let world = command.stdin(Stdio::null()).stdout(output.try_clone().expect("a descriptor"));
    let mut world = world.stderr(errors).spawn().expect("it starts");
    let pid = world.id();
    let (ended, has_ended) = std::sync::mpsc::channel::<()>();
    // This thread ends a world that hangs.
    let watching = std::thread::spawn(move || {
        let hangs = has_ended.recv_timeout(WORLD_TIME_MAX).is_err();
        if hangs && let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::ABORT);
        }
    });
    let status = world.wait().expect("it has ended");
    let _ = ended.send(());
    watching.join().expect("no panic");
    let text = {
        use std::io::{Read, Seek};
        let mut output = output;
        let mut text = Vec::new();
        output.rewind().and_then(|()| output.read_to_end(&mut text)).expect("what it says");
        String::from_utf8_lossy(&text).into_owned()
    };
    let counts = text.lines().rev().find_map(|line| line.strip_prefix("lived: "));
    match counts.and_then(|counts| counts.split_once(' ')) {
        Some((events, faults)) if status.success() => {
            Ok((events.parse().expect("a number"), faults.parse().expect("a number")))
        }
        _ => {
            let from = text.lines().count().saturating_sub(TOLD_MAX + 40);
            Err(format!("{status}\n{}", text.lines().skip(from).collect::<Vec<_>>().join("\n")))
        }
    }
}

/// Runs a world: lives through its seed, and prints the result.
pub fn world() {
    let seed = std::env::args().nth(2).and_then(|seed| seed.parse().ok()).expect("a seed");
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let told = payload.downcast_ref::<String>().map(String::as_str);
        let told = told.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
        if !told.contains(AS_TOLD) {
            eprintln!("panic: {told} at {:?}", panic.location());
        }
    }));
    let mut world = World::new(seed);
    let lived = std::panic::catch_unwind(AssertUnwindSafe(|| world.live()));
    let mut wrong = lived.unwrap_or_else(|_| vec!["it panicked".to_owned()]);
    wrong.extend(world.ledger.take_wrong());
    if wrong.is_empty() {
        println!("lived: {} {}", world.events, world.faults);
        std::process::exit(0);
    }
    for line in &world.told {
        println!("  {line}");
    }
    let kept = std::env::temp_dir().join(format!("adjutant-sim-{seed}.db"));
    for end in ["", "-wal"] {
        let from = format!("{}{end}", world.database().display());
        let _ = fs::copy(from, format!("{}{end}", kept.display()));
    }
    println!("{} wrong; the file is in {}", wrong.len(), kept.display());
    for line in wrong.iter().take(20) {
        println!("wrong: {line}");
    }
    std::process::exit(1);
}

/// The text of panics on purpose.
const AS_TOLD: &str = "as told";

/// The events outside of the engine, in order.
#[derive(Default)]
struct Ledger(Mutex<Happened>);

#[derive(Default, Clone)]
struct Happened {
    /// Whether the engine of this ledger is lost. Its later deeds count in no world.
    lost: bool,
    started: HashSet<i64>,
    acknowledged: HashSet<String>,
    stopped: HashSet<String>,
    /// Pairs of an invocation and an instance on which it was stopped.
    stopped_on: HashSet<(String, String)>,
    told: HashMap<String, String>,
    /// Bytes that executions have printed to their ends.
    printed: HashMap<i64, u64>,
    /// Rows of the host that are on disk for sure.
    notes: i64,
    running: usize,
    faults: u32,
    wrong: Vec<String>,
}

impl Ledger {
    fn now(&self) -> MutexGuard<'_, Happened> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_wrong(&self) -> Vec<String> {
        std::mem::take(&mut self.now().wrong)
    }

    fn fault(&self) {
        self.now().faults += 1;
    }

    /// Returns a copy of the ledger, for a world that goes on from here, and marks this engine as lost.
    fn branch(&self) -> Happened {
        let mut now = self.now();
        let branch = now.clone();
        now.lost = true;
        now.wrong.clear();
        branch
    }
}

/// The hooks, the executor and the sink of a host. Each fails now and then, as the seed decides.
#[derive(Clone)]
struct Host {
    ledger: Arc<Ledger>,
    random: Arc<Mutex<Random>>,
    /// Set once no hook may fail any longer.
    calm: Arc<AtomicBool>,
}

impl Host {
    /// Returns a number below `of`. 0 is a fault, and never comes once all is calm.
    fn dice(&self, of: usize) -> usize {
        let face = self.random.lock().unwrap_or_else(PoisonError::into_inner).below(of);
        if self.calm.load(Ordering::Relaxed) {
            return of - 1;
        }
        if face == 0 {
            self.ledger.fault();
        }
        face
    }
}

/// Counts an execution as running until it is dropped.
struct Runs(Arc<Ledger>);

impl Runs {
    fn begin(ledger: &Arc<Ledger>, task: &Task) -> Self {
        let mut now = ledger.now();
        now.running += 1;
        let (id, of) = (task.execution_id.to_string(), task.invoke_id().to_string());
        let on = task.instance_id.as_str().to_owned();
        if now.lost {
            return Self(Arc::clone(ledger));
        }
        if !now.started.insert(id.parse().expect("a number")) {
            now.wrong.push(format!("execution {id} started twice"));
        }
        if now.stopped.contains(&of) {
            now.wrong.push(format!("execution {id} started after the stop of {of}"));
        }
        if now.stopped_on.contains(&(of.clone(), on.clone())) {
            now.wrong.push(format!("execution {id} started after the stop of {of} on {on}"));
        }
        if now.running > RUNNING_MAX {
            let running = now.running;
            now.wrong.push(format!("{running} work, want at most {RUNNING_MAX}"));
        }
        Self(Arc::clone(ledger))
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.now().running -= 1;
    }
}

/// A value that panics when it is dropped.
struct Fuse;

impl Drop for Fuse {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("{AS_TOLD}: a value that is dropped");
        }
    }
}

impl Executor for Host {
    async fn execute(&self, task: Task, cx: ExecutionContext) -> Outcome {
        let _runs = Runs::begin(&self.ledger, &task);
        let script = String::from_utf8_lossy(task.content()).into_owned();
        let (mut printed, mut is_deaf, mut fuse) = (0, false, None);
        for word in script.split_whitespace() {
            let (verb, rest) = word.split_once(':').unwrap_or((word, ""));
            let value: u64 = rest.parse().unwrap_or_default();
            match verb {
                "ms" => {
                    let slept = cx.sleep(Duration::from_millis(value));
                    tokio::select! {
                        () = slept => {}
                        _ = cx.stop_asked(), if !is_deaf => {
                            return Outcome::Stopped { signal: None, exit_code: None, info: String::new() };
                        }
                    }
                }
                "print" => {
                    printed += value;
                    cx.print(Stream::Stdout, &vec![b'x'; value as usize]);
                }
                "yield" => tokio::task::yield_now().await,
                "deaf" => is_deaf = true,
                "hang" if is_deaf => pending().await,
                "hang" => {
                    cx.stop_asked().await;
                    return Outcome::Stopped { signal: None, exit_code: None, info: String::new() };
                }
                "panic" => panic!("{AS_TOLD}: an executor"),
                "fuse" => fuse = Some(Fuse),
                "broke" => return Outcome::Broke { info: "as told".to_owned() },
                "exit" => {
                    let id: i64 = task.execution_id.to_string().parse().expect("a number");
                    self.ledger.now().printed.insert(id, printed);
                    drop(fuse);
                    return Outcome::Exited(value as i32);
                }
                _ => {}
            }
        }
        Outcome::Exited(0)
    }
}

impl Authorizer for Host {
    async fn authorize(&self, action: Action) -> Result<(), String> {
        if action.operation == Operation::StartExecution {
            tokio::task::yield_now().await;
        }
        match self.dice(400) {
            0 => panic!("{AS_TOLD}: an authorizer"),
            1..5 => Err("not today".to_owned()),
            _ => Ok(()),
        }
    }
}

impl SecretResolver for Host {
    async fn resolve(&self, _: SecretRequest) -> Result<Secret, SecretError> {
        match self.dice(30) {
            0 => panic!("{AS_TOLD}: a resolver"),
            1 => Err(SecretError::Unavailable("it is down".to_owned())),
            _ => Ok(Secret::new("exit:0")),
        }
    }
}

impl WaveGate for Host {
    async fn decide(&self, _: EndedWave) -> WaveDecision {
        match self.dice(12) {
            0 => panic!("{AS_TOLD}: a gate"),
            1 => pending().await,
            2 => WaveDecision::Halt("it is too warm".to_owned()),
            3 => WaveDecision::Wait(Duration::from_secs(7)),
            4 => {
                let _fuse = Fuse;
                pending().await
            }
            _ => WaveDecision::Proceed,
        }
    }
}

impl OutputSink for Host {
    async fn deliver(&self, output: OutputDelivery) -> Result<(), OutputSinkError> {
        match self.dice(10) {
            0 => panic!("{AS_TOLD}: a sink"),
            1 => Err(OutputSinkError::Failed("it is full".to_owned())),
            2 => pending().await,
            _ => {
                let found = fs::metadata(&output.path).map(|found| found.len()).unwrap_or_default();
                if found != output.bytes && !self.ledger.now().lost {
                    let wrong = format!("{} of {} bytes to deliver", found, output.bytes);
                    self.ledger.now().wrong.push(wrong);
                }
                Ok(())
            }
        }
    }
}

/// A clock that the test moves, and that panics once if the test asks for it.
#[derive(Clone)]
struct Time {
    clock: ManualClock,
    panics: Arc<AtomicBool>,
}

impl Time {
    fn look(&self) {
        if self.panics.swap(false, Ordering::Relaxed) {
            panic!("{AS_TOLD}: a clock");
        }
    }
}

impl Clock for Time {
    fn realtime(&self) -> DateTime<Utc> {
        self.look();
        self.clock.realtime()
    }

    fn monotonic(&self) -> Duration {
        self.look();
        self.clock.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.clock.sleep(duration)
    }
}

/// How an engine ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// By a shutdown, whose future may be dropped before its end.
    ShutDown,
    /// With its last handle.
    Dropped,
    /// With the runtime that it works on.
    RuntimeGone,
    /// With a clock that panics at the next look, wherever that is.
    ClockPanics,
    /// Between two commits, with all state that is not on disk. The next engine goes on from a copy of the
    /// file.
    Lost,
}

struct World {
    place: TempDir,
    /// The number of the current folder: after the loss of an engine the next engine uses another folder.
    folder: usize,
    random: Random,
    clock: ManualClock,
    clock_panics: Arc<AtomicBool>,
    /// The latest time of day that the clock was set back from.
    latest: DateTime<Utc>,
    host: Host,
    ledger: Arc<Ledger>,
    invariants: Invariants,
    engine: Option<Engine>,
    known: Vec<InvokeId>,
    repeating: HashSet<InvokeId>,
    watches: Vec<Watch>,
    /// Holds the writing thread until the sender is dropped, after so many more actions.
    held: Option<(std::sync::mpsc::Sender<()>, usize)>,
    dropped: Vec<JoinHandle<()>>,
    durability: Durability,
    has_faults: bool,
    rules: Option<PathBuf>,
    told: VecDeque<String>,
    events: u32,
    faults: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let ledger = Arc::<Ledger>::default();
        let host = Host {
            ledger: Arc::clone(&ledger),
            random: Arc::new(Mutex::new(Random::new(random.next()))),
            calm: Arc::new(true.into()),
        };
        let clock = ManualClock::at("2026-03-28T21:30:00Z".parse().expect("a time"));
        let durability = if random.one_in(3) { Durability::Full } else { Durability::Relaxed };
        Self {
            place: TempDir::new().expect("a folder"),
            folder: 0,
            has_faults: random.one_in(2),
            random,
            clock,
            clock_panics: Arc::default(),
            latest: DateTime::UNIX_EPOCH,
            host,
            ledger,
            invariants: Invariants::new(requests::bounds()),
            engine: None,
            known: Vec::new(),
            repeating: HashSet::new(),
            watches: Vec::new(),
            held: None,
            dropped: Vec::new(),
            durability,
            rules: std::env::var_os("FAULTS").map(PathBuf::from),
            told: VecDeque::new(),
            events: 0,
            faults: 0,
        }
    }

    fn at(&self) -> PathBuf {
        self.place.path().join(self.folder.to_string())
    }

    fn database(&self) -> PathBuf {
        self.at().join("a.db")
    }

    fn tell(&mut self, what: String) {
        self.events += 1;
        if self.told.len() == TOLD_MAX {
            self.told.pop_front();
        }
        let at = self.clock.realtime().format("%d %H:%M:%S%.3f");
        self.told.push_back(format!("{at} {what}"));
    }

    fn builder(&self) -> EngineBuilder {
        let builder = Engine::builder()
            .path(self.database())
            .durability(self.durability)
            .max_concurrent(RUNNING_MAX)
            .limits(requests::limits())
            .stop_grace(Duration::from_secs(2))
            .clock(Time { clock: self.clock.clone(), panics: Arc::clone(&self.clock_panics) })
            .executor("world", self.host.clone())
            .authorizer(self.host.clone())
            .secret_resolver(self.host.clone())
            .wave_gate(self.host.clone())
            .output_sink("oss://world", self.host.clone());
        KEYS.iter().fold(builder, |builder, (key, max)| builder.concurrency_key(*key, *max))
    }

    /// Lives through some engines and to the end of all invocations. Returns the faults found.
    fn live(&mut self) -> Vec<String> {
        fs::create_dir(self.at()).expect("a folder");
        let lives = self.random.between(2, 5);
        for life in 0..=lives {
            let is_last = life == lives;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            if is_last {
                self.host.calm.store(true, Ordering::Relaxed);
            }
            let wrong = runtime.block_on(async {
                self.open().await;
                let wrong = self.check("the file is open").await;
                if !wrong.is_empty() {
                    return wrong;
                }
                if is_last { self.come_to_the_end().await } else { self.act_for_a_life().await }
            });
            if !wrong.is_empty() {
                return wrong;
            }
            if is_last {
                self.faults += self.ledger.now().faults;
                return Vec::new();
            }
            use End::{ClockPanics, Dropped, Lost, RuntimeGone, ShutDown};
            let end = self.random.pick(&[ShutDown, Dropped, RuntimeGone, ClockPanics, Lost, Lost]);
            self.tell(format!("the engine ends: {end:?}"));
            self.faults += 1;
            let wrong = runtime.block_on(self.end(end));
            // Tasks that are left are dropped where they stand.
            runtime.shutdown_background();
            let mut wrong = wrong;
            if !matches!(end, Lost) && self.ledger.now().running > 0 {
                wrong.push("executions are at work after the end of their engine".to_owned());
            }
            if !wrong.is_empty() {
                return wrong;
            }
        }
        Vec::new()
    }

    async fn open(&mut self) {
        self.mend_the_disk();
        self.tell("an engine opens the file".to_owned());
        let began = Instant::now();
        let engine = loop {
            let opening = tokio::spawn(self.builder().open());
            match self.finish("open", opening).await {
                Some(Ok(engine)) => break engine,
                // The engine before unlocks the file once all work that it had begun is done.
                Some(Err(Error::InUse { .. })) if began.elapsed() < CALL_TIME_MAX => {
                    self.turns(50).await;
                }
                Some(Err(error)) => panic!("it does not open: {error}"),
                None => panic!("the opening panics"),
            }
        };
        if self.events == 1 {
            for instance in requests::instances("world") {
                engine.register_instance(instance).await.expect("a sound instance");
            }
            let table = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)";
            engine.write(|tx| Ok(tx.execute_batch(table)?)).await.expect("a table of the host's");
            self.host.calm.store(false, Ordering::Relaxed);
        }
        self.engine = Some(engine);
    }

    fn engine(&self) -> Engine {
        self.engine.clone().expect("it is open")
    }

    async fn act_for_a_life(&mut self) -> Vec<String> {
        for _ in 0..self.random.between(30, 120) {
            self.act().await;
            let wrong = self.ledger.take_wrong();
            if !wrong.is_empty() {
                return wrong;
            }
            if self.random.one_in(12) {
                let wrong = self.check("meanwhile").await;
                if !wrong.is_empty() {
                    return wrong;
                }
            }
        }
        Vec::new()
    }

    async fn act(&mut self) {
        let some =
            (!self.known.is_empty()).then(|| self.known[self.random.below(self.known.len())]);
        let engine = self.engine();
        match (self.random.below(100), some) {
            (0..26, _) => self.run().await,
            (26..46, _) => {
                let ms = match self.random.below(4) {
                    0 => self.random.between(1, 100),
                    1 => self.random.between(100, 2_000),
                    2 => self.random.between(1_000, 10_000),
                    _ => 30_000,
                };
                self.settle().await;
                self.tell(format!("{ms} ms pass"));
                self.clock.advance(Duration::from_millis(ms));
                self.settle().await;
            }
            (46..49, _) => {
                let seconds = self.random.between(0, 7_200) as i64 - 3_600;
                let seconds = if self.random.one_in(6) { seconds * 30 } else { seconds };
                self.tell(format!("the clock is set by {seconds} s"));
                self.faults += 1;
                if seconds < 0 {
                    self.invariants.clock_was_set_back();
                }
                self.latest = self.latest.max(self.clock.realtime());
                let to = self.clock.realtime() + chrono::TimeDelta::seconds(seconds);
                self.clock.set_realtime(to);
            }
            (49..54, Some(id)) => {
                let ledger = Arc::clone(&self.ledger);
                let stop = async move {
                    engine.stop_invocation(StopInvocation::new(id)).await?;
                    ledger.now().stopped.insert(id.to_string());
                    Ok(())
                };
                self.call(format!("stop {id}"), stop).await;
            }
            (54..57, Some(id)) => {
                let on = self.random.pick(&["i-0", "i-1", "i-2", "i-3"]);
                let ledger = Arc::clone(&self.ledger);
                let stop = async move {
                    engine.stop_invocation(StopInvocation::new(id).on([on])).await?;
                    ledger.now().stopped_on.insert((id.to_string(), on.to_owned()));
                    Ok(())
                };
                self.call(format!("stop {id} on {on}"), stop).await;
            }
            (57..60, Some(id)) => {
                self.call(format!("pause {id}"), async move { engine.pause_invocation(&id).await })
                    .await;
            }
            (60..63, Some(id)) => {
                self.call(
                    format!("resume {id}"),
                    async move { engine.resume_invocation(&id).await },
                )
                .await;
            }
            (63..67, Some(id)) => {
                self.call(
                    format!("run {id} now"),
                    async move { engine.run_now(&id).await.map(drop) },
                )
                .await;
            }
            (67..69, _) => {
                let boot = format!("boot-{}", self.random.next());
                let on = format!("i-{}", self.random.below(8));
                let booted = async move { engine.instance_booted(&on.as_str().into(), boot).await };
                self.call("a boot".to_owned(), booted).await;
            }
            (69..72, _) => {
                let instance = requests::instances("world")[self.random.below(8)].clone();
                let removes = self.random.one_in(2);
                let again = async move {
                    if removes {
                        let id = instance.instance_id.clone();
                        let _ = engine.remove_instance(&id).await;
                    } else {
                        engine.instance_seen(&instance.instance_id, AgentStatus::Online).await?;
                    }
                    engine.register_instance(instance).await
                };
                self.call(format!("register, after it was removed: {removes}"), again).await;
            }
            (72..75, Some(id)) => {
                let retry =
                    async move { engine.retry_failed(RetryFailed::new(id)).await.map(drop) };
                self.call(format!("retry what failed of {id}"), retry).await;
            }
            (75..80, Some(id)) => self.watch(id).await,
            (80..86, Some(id)) => {
                let which = self.random.below(4);
                let read = async move {
                    let request = DescribeInvocationResults::default().invoke_id(id);
                    match which {
                        0 => {
                            drop(engine.describe_invocations(DescribeInvocations::default()).await?)
                        }
                        1 => drop(engine.describe_invocation_results(request).await?),
                        2 => drop(engine.describe_fires(DescribeFires::new(id)).await?),
                        _ => drop(engine.overview(20).await?),
                    }
                    Ok(())
                };
                self.call(format!("read {id}, {which}"), read).await;
            }
            (86..89, Some(id)) => {
                let ledger = Arc::clone(&self.ledger);
                self.tell(format!("wait for {id}"));
                self.dropped.push(tokio::spawn(async move {
                    if let Ok(status) = engine.wait_status(&id).await {
                        ledger.now().told.insert(id.to_string(), status.to_string());
                    }
                }));
            }
            (89..92, _) => self.write().await,
            (92..94, _) => self.break_the_disk().await,
            (94..97, _) if self.held.is_none() => self.hold_the_writer().await,
            _ => self.settle().await,
        }
        self.held = self.held.take().and_then(|(held, left)| Some((held, left.checked_sub(1)?)));
        for mut waiting in std::mem::take(&mut self.dropped) {
            // Calls without a caller that waits for the answer.
            if tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_err() {
                self.dropped.push(waiting);
            }
        }
    }

    async fn run(&mut self) {
        let script = match self.random.below(16) {
            0 => "hang".to_owned(),
            1 if self.random.one_in(5) => "deaf hang".to_owned(),
            1 | 2 => "panic".to_owned(),
            3 => "fuse ms:700 exit:0".to_owned(),
            4 => "broke".to_owned(),
            5 => "exit:0".to_owned(),
            _ => {
                let (ms, yields) = (self.random.between(0, 4_000), self.random.below(3));
                let exit = usize::from(self.random.one_in(4));
                let print = self.random.below(40_000) * self.random.below(2);
                format!("{} print:{print} ms:{ms} exit:{exit}", "yield ".repeat(yields))
            }
        };
        let mut request = requests::request(&mut self.random, script.clone(), true);
        if self.random.one_in(8) {
            request.oss_output_delivery = Some("oss://world".to_owned());
        }
        if self.random.one_in(10) {
            let secret = RunCommand::shell("{{word}}").on(request.instance_ids.clone());
            let secret = secret.enable_parameter().parameters([("word", "name")]);
            request = secret.secret_parameters(["word"]);
        }
        let repeats = request.frequency.is_some() || request.repeat_mode != RepeatMode::Once.into();
        let (engine, ledger) = (self.engine(), Arc::clone(&self.ledger));
        let told = format!(
            "run `{script}` on {} of {}, key {:?}, waves {}, retry {}, repeats {repeats}",
            request.instance_ids.len(),
            requests::names().len(),
            request.concurrency_key,
            request.waves.len(),
            request.retry.is_some()
        );
        let made = Arc::new(Mutex::new(None));
        let (make, has_note) = (Arc::clone(&made), self.random.one_in(6));
        let run = async move {
            let response = if has_note {
                let note = "INSERT INTO notes (text) VALUES ('run')";
                let both = engine.run_command_with(request, |tx, _| Ok(tx.execute(note, ())?));
                both.await?.0
            } else {
                engine.run_command(request).await?
            };
            let mut now = ledger.now();
            now.acknowledged.insert(response.invoke_id.to_string());
            now.notes += i64::from(has_note);
            *make.lock().unwrap_or_else(PoisonError::into_inner) = Some(response.invoke_id);
            Ok(())
        };
        self.call(told, run).await;
        let made = made.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(id) = made {
            self.tell(format!("  it is {id}"));
            self.known.push(id);
            if repeats {
                self.repeating.insert(id);
            }
        }
    }

    async fn watch(&mut self, id: InvokeId) {
        if self.watches.len() > 4 {
            self.watches.remove(self.random.below(4));
        }
        let engine = self.engine();
        let mut some = self.watches.pop();
        let watching = tokio::spawn(async move {
            if some.is_none() {
                some = engine.watch(&id).await.ok();
            }
            if let Some(watch) = &mut some {
                for _ in 0..20 {
                    // The future may be dropped at any event, and the watch goes on after that.
                    let next = tokio::time::timeout(Duration::from_millis(1), watch.next()).await;
                    if !matches!(next, Ok(Ok(Some(_)))) {
                        break;
                    }
                }
            }
            some
        });
        self.tell(format!("watch {id}"));
        if let Some(Some(watch)) = self.finish("watch", watching).await {
            self.watches.push(watch);
        }
    }

    /// Writes the host's own part of a commit, which is sound, fails, panics, or undoes the whole commit.
    async fn write(&mut self) {
        let (engine, ledger) = (self.engine(), Arc::clone(&self.ledger));
        let which = self.random.below(8);
        let write = async move {
            let written = engine.write(move |tx| {
                tx.execute("INSERT INTO notes (text) VALUES ('x')", ())?;
                match which {
                    0 => return Err("no".into()),
                    1 => panic!("{AS_TOLD}: a write"),
                    2 => {
                        let _ =
                            tx.execute("INSERT OR ROLLBACK INTO notes (id) VALUES (1), (1)", ());
                    }
                    3 => return Ok(Some(Fuse)),
                    _ => {}
                }
                Ok(None)
            });
            let fuse = written.await?;
            ledger.now().notes += 1;
            std::mem::forget(fuse);
            Ok(())
        };
        self.faults += u32::from(which < 4);
        self.call(format!("write {which}"), write).await;
    }

    /// Makes calls to the system fail from now on.
    async fn break_the_disk(&mut self) {
        let Some(rules) = self.rules.clone().filter(|_| self.has_faults) else { return };
        let (skip, count) = (self.random.below(12), self.random.between(1, 4));
        let error = self.random.pick(&["5", "28", "short"]);
        let rule = match self.random.below(6) {
            0 | 1 => format!("write .db-wal {skip} {count} {error}"),
            2 => format!("write .db {skip} {count} {error}"),
            3 => format!("sync .db-wal {skip} {count} 5"),
            4 => format!("truncate .db-wal 0 {count} 5"),
            _ => format!("open .db-wal 0 {count} 24"),
        };
        self.tell(format!("the disk: {rule}"));
        self.faults += 1;
        set_rules(&rules, &rule);
    }

    fn mend_the_disk(&self) {
        if let Some(rules) = &self.rules {
            set_rules(rules, "");
        }
    }

    /// Makes a call. One call in eight is dropped after a few turns, and one in eight is left without a caller that
    /// waits.
    async fn call(
        &mut self,
        told: String,
        call: impl Future<Output = adjutant::Result<()>> + Send + 'static,
    ) {
        self.tell(told.clone());
        let ledger = Arc::clone(&self.ledger);
        let mut call = tokio::spawn(async move {
            if let Err(error) = call.await {
                let is_ours = matches!(&error, Error::Internal(why) if !why.contains(AS_TOLD));
                if is_ours && !ledger.now().lost {
                    ledger.now().wrong.push(format!("{error:?}"));
                }
            }
        });
        match self.random.below(8) {
            0 => {
                let turns = self.random.below(12);
                self.turns(turns).await;
                call.abort();
                self.faults += 1;
                let _ = (&mut call).await;
            }
            1 => self.dropped.push(call),
            _ if self.held.is_some() => self.dropped.push(call),
            _ => drop(self.finish(&told, call).await),
        }
    }

    /// Waits for the end of a call, and lets time pass if the call needs time. Returns `None` if the call panicked.
    async fn finish<T>(&mut self, what: &str, mut call: JoinHandle<T>) -> Option<T> {
        let began = Instant::now();
        loop {
            if let Ok(done) = tokio::time::timeout(Duration::from_millis(20), &mut call).await {
                return done.ok();
            }
            assert!(began.elapsed() < CALL_TIME_MAX, "it hangs: {what}");
            self.held = None;
            if began.elapsed() > Duration::from_millis(300) {
                // A call that waits for a disk that has failed needs a disk that works, and time.
                self.mend_the_disk();
                self.clock.advance(Duration::from_millis(500));
            }
        }
    }

    async fn turns(&self, turns: usize) {
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Holds the writing thread for the next few actions, so that all their writes share a commit.
    async fn hold_the_writer(&mut self) {
        let (held, is_held) = std::sync::mpsc::channel::<()>();
        let engine = self.engine();
        self.tell("the writing thread is held".to_owned());
        self.dropped.push(tokio::spawn(async move {
            let hold = engine.write(move |_| {
                // No message ever comes: the thread is held until the sender is gone.
                let _ = is_held.recv_timeout(CALL_TIME_MAX);
                Ok(())
            });
            let _ = hold.await;
        }));
        self.held = Some((held, self.random.below(8) + 2));
        self.turns(10).await;
    }

    /// Gives loops and threads the time to come to rest.
    async fn settle(&mut self) {
        if self.held.is_some() {
            self.turns(30).await;
            return;
        }
        for _ in 0..3 {
            self.turns(8).await;
            let engine = self.engine();
            let barrier = tokio::spawn(async move { engine.write(|_| Ok(())).await.map(drop) });
            let _ = self.finish("settle", barrier).await;
        }
        self.turns(8).await;
    }

    /// Checks the records against the invariants and against the ledger.
    async fn check(&mut self, when: &str) -> Vec<String> {
        self.held = None;
        self.mend_the_disk();
        self.settle().await;
        let (database, happened) = (self.database(), self.ledger.now().clone());
        self.tell(format!("a check: {when}"));
        let mut wrong = self.invariants.check(&database);
        let witness = Witness {
            started: &happened.started,
            acknowledged: &happened.acknowledged,
            stopped: &happened.stopped,
            told: &happened.told,
        };
        wrong.extend(witness.check(&database));
        let ended = tokio::time::timeout(Duration::ZERO, self.engine().closed()).await;
        wrong.extend(ended.ok().map(|why| format!("the engine has ended by itself: {why}")));
        wrong.extend(check_outputs(&database, &happened));
        wrong
    }

    async fn end(&mut self, end: End) -> Vec<String> {
        let mut wrong = Vec::new();
        self.held = None;
        self.watches.clear();
        match end {
            End::ShutDown => {
                let (engine, limit) =
                    (self.engine(), Duration::from_secs(self.random.between(0, 10)));
                if self.random.one_in(3) {
                    let engine = engine.clone();
                    let shutdown = tokio::spawn(async move { engine.shutdown(limit).await });
                    let turns = self.random.below(10);
                    self.turns(turns).await;
                    shutdown.abort();
                }
                let shutdown = tokio::spawn(async move { engine.shutdown(limit).await });
                self.finish("shutdown", shutdown).await;
                self.mend_the_disk();
                if self.ledger.now().running > 0 {
                    wrong.push("executions are at work after a shutdown".to_owned());
                }
                self.engine = None;
            }
            End::Dropped => {
                self.engine = None;
                // The loops end running executions, which may take time.
                let began = Instant::now();
                while self.ledger.now().running > 0 && began.elapsed() < CALL_TIME_MAX {
                    self.turns(20).await;
                    self.clock.advance(Duration::from_millis(500));
                }
                self.mend_the_disk();
            }
            End::RuntimeGone => self.engine = None,
            End::ClockPanics => {
                self.clock_panics.store(true, Ordering::Relaxed);
                // Each call has an end, whether or not the engine ends.
                for _ in 0..3 {
                    let engine = self.engine();
                    let request = RunCommand::shell("ms:10 exit:0").on(["i-0", "i-1"]);
                    let call =
                        tokio::spawn(async move { engine.run_command(request).await.map(drop) });
                    self.finish("call with a clock that panics", call).await;
                    self.clock.advance(Duration::from_secs(1));
                }
                self.clock_panics.store(false, Ordering::Relaxed);
                self.engine = None;
            }
            End::Lost => {
                let (from, to) = (self.at(), self.place.path().join((self.folder + 1).to_string()));
                self.mend_the_disk();
                let (engine, ledger) = (self.engine(), Arc::clone(&self.ledger));
                let branch = tokio::spawn(async move {
                    let copied = engine.write(move |_| {
                        copy(&from, &to)?;
                        Ok(ledger.branch())
                    });
                    copied.await
                });
                match self.finish("copy", branch).await {
                    Some(Ok(branch)) => self.go_on_from(branch),
                    other => wrong.push(format!("no copy: {:?}", other.map(|one| one.err()))),
                }
                self.engine = None;
            }
        }
        self.dropped.clear();
        wrong
    }

    /// Goes on from the copy that was made when the engine was lost.
    fn go_on_from(&mut self, mut branch: Happened) {
        self.folder += 1;
        branch.running = 0;
        // Requests whose answers came after the copy are not in the copy.
        self.known.retain(|id| branch.acknowledged.contains(&id.to_string()));
        self.faults += branch.faults;
        branch.faults = 0;
        self.ledger = Arc::new(Ledger(Mutex::new(branch)));
        self.host.ledger = Arc::clone(&self.ledger);
    }

    /// Stops invocations that repeat, and lets all others come to their ends without more faults.
    async fn come_to_the_end(&mut self) -> Vec<String> {
        self.mend_the_disk();
        let file = rusqlite::Connection::open(self.database()).expect("the file opens");
        let open = "SELECT 't-' || lower(hex(invoke_id)), repeat_mode <> 'Once' FROM invocations
            WHERE finished_at_ms IS NULL";
        let mut query = file.prepare(open).expect("sound SQL");
        let found =
            query.query_map((), |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)));
        let found: Vec<_> = found.expect("sound SQL").map(|row| row.expect("a row")).collect();
        for (id, _) in found.iter().filter(|(_, repeats)| *repeats) {
            self.tell(format!("stop {id} for good"));
            let (engine, id) = (self.engine(), id.parse().expect("an id"));
            let stop = async move { engine.stop_invocation(StopInvocation::new(id)).await };
            let stopped = tokio::spawn(stop);
            match self.finish("stop", stopped).await {
                Some(Ok(_)) => drop(self.ledger.now().stopped.insert(id.to_string())),
                other => {
                    return vec![format!("{id} cannot be stopped: {:?}", other.map(|it| it.err()))];
                }
            }
        }
        let left = "SELECT count(*) FROM invocations WHERE finished_at_ms IS NULL";
        let left = || -> i64 { file.query_row(left, (), |row| row.get(0)).expect("sound SQL") };
        let moved =
            "SELECT count(*) + sum(finished_at_ms IS NOT NULL) + sum(started_at_ms IS NOT NULL)
                + (SELECT sum(coalesce(opened, 0)) FROM fires)
            FROM executions";
        let moved =
            || -> Option<i64> { file.query_row(moved, (), |row| row.get(0)).expect("sound SQL") };
        let (mut before, mut idle, mut latest) = (None, 0, false);
        while left() > 0 && idle < 60 {
            self.settle().await;
            self.clock.advance(Duration::from_secs(3));
            let now = moved();
            idle = if now == before { idle + 1 } else { 0 };
            before = now;
            if idle == 60 && !latest {
                // The clock was set back, and an engine was lost before it noticed. An execution that waits for an
                // instant then waits until the clock has come there again.
                (idle, latest) = (0, true);
                let to = self.latest.max(self.clock.realtime()) + chrono::TimeDelta::minutes(10);
                self.clock.set_realtime(to);
                self.tell("the clock comes to where it has been".to_owned());
            }
        }
        let mut wrong = self.check("everything should have ended").await;
        wrong.extend(self.ledger.take_wrong());
        if left() > 0 {
            let stuck = "SELECT 't-' || lower(hex(v.invoke_id)) || ': ' || (
                    SELECT group_concat(e.id || ' ' || e.status || ' on ' || e.instance
                        || ' awaits ' || coalesce(e.awaits_instance, '-') || ' retry ' || coalesce(e.retry_at_ms, '-'), ', ')
                    FROM fires f JOIN executions e ON e.fire = f.id
                    WHERE f.invocation = v.id AND e.finished_at_ms IS NULL)
                FROM invocations v WHERE v.finished_at_ms IS NULL";
            let mut query = file.prepare(stuck).expect("sound SQL");
            let rows =
                query.query_map((), |row| row.get::<_, Option<String>>(0)).expect("sound SQL");
            wrong.extend(rows.map(|row| format!("it never ends: {:?}", row.expect("a row"))));
        }
        for id in self.known.clone().into_iter().take(20) {
            let engine = self.engine();
            let told = tokio::spawn(async move { engine.wait_status(&id).await });
            if wrong.is_empty() {
                match self.finish("wait", told).await {
                    Some(Ok(status)) => {
                        self.ledger.now().told.insert(id.to_string(), status.to_string());
                    }
                    other => {
                        wrong.push(format!("no answer for {id}: {:?}", other.map(|it| it.err())))
                    }
                }
            }
        }
        if wrong.is_empty() {
            wrong.extend(self.check("everything has ended").await);
        }
        wrong
    }
}

fn set_rules(at: &Path, rules: &str) {
    let fresh = at.with_extension("fresh");
    fs::write(&fresh, format!("{rules}\n")).expect("written");
    fs::rename(fresh, at).expect("in place");
}

/// Checks that outputs of executions that ended by themselves are whole, and that the host's rows are there.
fn check_outputs(database: &Path, happened: &Happened) -> Vec<String> {
    let file = rusqlite::Connection::open(database).expect("the file opens");
    let sql = "SELECT e.id, coalesce(length(o.bytes) + o.dropped, 0) FROM executions e
        LEFT JOIN outputs o ON o.execution = e.id WHERE e.status IN ('Success', 'Failed')";
    let mut query = file.prepare(sql).expect("sound SQL");
    let found = query.query_map((), |row| Ok((row.get::<_, i64>(0)?, row.get::<_, u64>(1)?)));
    let mut wrong = Vec::new();
    for row in found.expect("sound SQL") {
        let (id, bytes) = row.expect("a row");
        let printed = happened.printed.get(&id).copied();
        if printed.is_some_and(|printed| printed != bytes) {
            wrong.push(format!(
                "execution {id} printed {printed:?} bytes, and {bytes} are accounted for"
            ));
        }
    }
    let notes: i64 =
        file.query_row("SELECT count(*) FROM notes", (), |row| row.get(0)).expect("sound SQL");
    if notes < happened.notes {
        wrong.push(format!("{} notes were acknowledged, and {notes} are there", happened.notes));
    }
    wrong
}

/// Copies a folder and its subfolders, without the files of the process that runs the database.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let (is_lock, is_shared) =
            (name.to_string_lossy().ends_with(".lock"), name.to_string_lossy().ends_with("-shm"));
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to.join(name))?;
        } else if !is_lock && !is_shared {
            // If a file is gone meanwhile, it was not needed any longer.
            let _ = fs::copy(entry.path(), to.join(name));
        }
    }
    Ok(())
}

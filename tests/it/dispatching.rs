//! The promises of the dispatcher: which executions start, which wait, and which are never polled.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    ClosureExecutor, Durability, Engine, EngineBuilder, ExecutionStatus, HostTransaction, Instance,
    InvocationStatus, InvokeId, ManualClock, OverlapPolicy, Retry, RunCommand, StopInvocation,
    Task,
};
use chrono::DateTime;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tokio::sync::oneshot;

use crate::support::{Gate, Place, register, wait, within};

/// Lets all tasks go on that can: the engine shares the one thread of the test.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// The claim of an execution and its stop wait for the disk together, in this order. Each time that the executor is
/// polled, it looks into the file for the stop.
#[tokio::test]
async fn an_executor_is_not_polled_once_the_stop_of_its_execution_is_on_disk() {
    let (gate, polled) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let place = Place::new();
    Place::open(&place).await.shutdown(Duration::ZERO).await;
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let (file, counts) = (Mutex::new(file), Arc::clone(&polled));
    let counting = ClosureExecutor::new(move |task: Task, _cx| {
        let file = file.lock().expect("nobody panics");
        let status = "SELECT status FROM executions WHERE id = ?1";
        let id: i64 = task.execution_id.to_string().parse().expect("a number");
        let status: String = file.query_row(status, [id], |row| row.get(0)).expect("readable");
        counts.fetch_add(usize::from(status != "Running"), Ordering::AcqRel);
        async { Ok::<_, String>(0) }
    });
    let builder = gate.plug_in(Engine::builder().path(place.database()));
    let builder = builder.executor("counts", counting).max_concurrent(1);
    let engine = builder.open().await.expect("the file opens");
    for (name, executor) in [("holds", "gate"), ("counts", "counts")] {
        let instance = Instance::new(name).executor(executor);
        engine.register_instance(instance).await.expect("a sound instance");
    }
    let mut met = 0;
    for _ in 0..20 {
        let held = engine.run_command(RunCommand::shell("x").on(["holds"])).await.expect("sound");
        within(gate.arrivals(1)).await;
        let waits = engine.run_command(RunCommand::shell("x").on(["counts"])).await.expect("sound");
        settle().await;
        // The writing thread is held until the claim and the stop wait for it.
        let (let_go, until) = std::sync::mpsc::channel::<()>();
        let holder = engine.clone();
        let holding = tokio::spawn(async move {
            let hold = move |_: &HostTransaction<'_>| {
                let _: Result<(), _> = until.recv();
                Ok(())
            };
            holder.write(hold).await
        });
        settle().await;
        gate.let_go(1);
        settle().await;
        let (stopper, id) = (engine.clone(), waits.invoke_id);
        let stopping =
            tokio::spawn(async move { stopper.stop_invocation(StopInvocation::new(id)).await });
        settle().await;
        drop(let_go);
        within(holding).await.expect("no panic").expect("nothing is wrong with it");
        within(stopping).await.expect("no panic").expect("it has not ended");
        wait(&engine, &held.invoke_id).await;
        let finished = wait(&engine, &waits.invoke_id).await;
        let result = &finished.results[0];
        assert_eq!(polled.load(Ordering::Acquire), 0, "polled after its stop: {result:?}");
        met += usize::from(result.status == ExecutionStatus::Terminated);
    }
    assert!(met > 0, "no stop came after its claim");
    within(engine.shutdown(Duration::ZERO)).await;
}

/// Executions that run until the test ends them, one by one.
#[derive(Clone, Default)]
struct Stage {
    running: Arc<Mutex<Vec<Run>>>,
}

struct Run {
    invoke_id: InvokeId,
    instance: String,
    end: oneshot::Sender<i32>,
}

impl Stage {
    fn plug_in(&self, builder: EngineBuilder) -> EngineBuilder {
        let running = Arc::clone(&self.running);
        let stage = ClosureExecutor::new(move |task: Task, _cx| {
            let (end, ends) = oneshot::channel();
            let instance = task.instance_id.to_string();
            let run = Run { invoke_id: task.invoke_id(), instance, end };
            running.lock().expect("nobody panics").push(run);
            async move { Ok::<_, String>(ends.await.unwrap_or_default()) }
        });
        builder.executor("stage", stage)
    }

    /// Returns the instances on which executions of an invocation run.
    fn runs(&self, of: InvokeId) -> Vec<String> {
        let running = self.running.lock().expect("nobody panics");
        let own = running.iter().filter(|run| run.invoke_id == of);
        own.map(|run| run.instance.clone()).collect()
    }

    fn count(&self) -> usize {
        self.running.lock().expect("nobody panics").len()
    }

    /// Ends the execution of an invocation that has run longest.
    fn end(&self, of: InvokeId, exit_code: i32) {
        let mut running = self.running.lock().expect("nobody panics");
        let at = running.iter().position(|run| run.invoke_id == of).expect("it runs");
        running.remove(at).end.send(exit_code).expect("it waits for that");
    }

    /// Ends the execution at this index. Returns its invocation and instance.
    fn end_at(&self, at: usize) -> (InvokeId, String) {
        let Run { invoke_id, instance, end } =
            self.running.lock().expect("nobody panics").remove(at);
        end.send(0).expect("it waits for that");
        (invoke_id, instance)
    }

    /// Returns the executions that run and are not among `known`.
    fn take_note(&self, known: &[(InvokeId, String)]) -> Vec<(InvokeId, String)> {
        let mut known = known.to_vec();
        let running = self.running.lock().expect("nobody panics");
        let all = running.iter().map(|run| (run.invoke_id, run.instance.clone()));
        all.filter(|run| match known.iter().position(|one| one == run) {
            Some(at) => {
                known.swap_remove(at);
                false
            }
            None => true,
        })
        .collect()
    }

    /// Opens an engine and registers instances, each with the number of executions that it runs at a time; `None`
    /// for any number.
    async fn open(&self, builder: EngineBuilder, instances: &[(&str, Option<u32>)]) -> Engine {
        let engine = self.plug_in(builder).open().await.expect("it opens");
        for (name, max) in instances {
            let instance = Instance::new(*name).executor("stage");
            let instance = max.iter().fold(instance, |one, max| one.max_concurrency(*max));
            engine.register_instance(instance).await.expect("a sound instance");
        }
        engine
    }
}

/// Waits until the engine has done all that it can do before the next event.
async fn rest(engine: &Engine) {
    for _ in 0..8 {
        settle().await;
        engine.write(|_: &HostTransaction<'_>| Ok(())).await.expect("nothing is wrong with it");
    }
    settle().await;
}

async fn run(engine: &Engine, request: RunCommand) -> InvokeId {
    let id = engine.run_command(request).await.expect("a sound request").invoke_id;
    rest(engine).await;
    id
}

fn on(instances: &[&str]) -> RunCommand {
    RunCommand::shell("x").on(instances.iter().copied())
}

/// The first execution in line for the instance also waits for a key, for long.
#[tokio::test]
async fn a_free_instance_goes_to_the_next_execution_that_can_start() {
    let check = async |first: fn(RunCommand) -> RunCommand, repeats: bool| {
        let stage = Stage::default();
        let instances = [("narrow", Some(1)), ("other", None)];
        let engine = stage.open(Engine::builder(), &instances).await;
        let runs = run(&engine, on(&["narrow"])).await;
        let held = if repeats {
            let repeats = on(&["narrow"]).timeout(60).frequency("rate(1d)");
            let id = run(&engine, first(repeats.overlap_policy(OverlapPolicy::Allow))).await;
            engine.run_now(&id).await.expect("it has not ended");
            rest(&engine).await;
            id
        } else {
            run(&engine, first(on(&["narrow"]))).await
        };
        let next = run(&engine, on(&["narrow"])).await;
        let elsewhere = run(&engine, on(&["other"]).concurrency_key("k")).await;
        stage.end(runs, 0);
        rest(&engine).await;
        assert_eq!([held, next].map(|id| stage.runs(id).len()), [0, 1]);
        stage.end(elsewhere, 0);
        rest(&engine).await;
        assert_eq!(
            [held, next].map(|id| stage.runs(id).len()),
            [0, 1],
            "it waits for the instance"
        );
        stage.end(next, 0);
        rest(&engine).await;
        assert_eq!(stage.runs(held).len(), 1);
    };
    check(|request| request.concurrency_key("k"), false).await;
    check(|request| request.concurrency_key("k").priority(9), false).await;
    check(|request| request.concurrency_key("k"), true).await;
}

#[tokio::test]
async fn of_the_executions_that_wait_for_an_instance_the_highest_priority_starts_next() {
    let stage = Stage::default();
    let engine = stage.open(Engine::builder(), &[("narrow", Some(1))]).await;
    let mut runs = run(&engine, on(&["narrow"])).await;
    let mut waiting = Vec::new();
    for priority in [5, 0, 9, 5, 7] {
        waiting.push((priority, run(&engine, on(&["narrow"]).priority(priority)).await));
    }
    let mut order = Vec::new();
    while order.len() < waiting.len() {
        stage.end(runs, 0);
        rest(&engine).await;
        let next = waiting.iter().find(|(_, id)| !stage.runs(*id).is_empty());
        let (priority, id) = *next.expect("the instance is free");
        order.push(priority);
        runs = id;
    }
    assert_eq!(order, [9, 7, 5, 5, 0]);
}

/// An execution that waits for an instance takes its turn for a place by its priority, like all others.
#[tokio::test]
async fn an_execution_that_waits_for_an_instance_keeps_its_priority_for_a_place() {
    let check = async |priority: u64, order: [bool; 2]| {
        let stage = Stage::default();
        let instances = [("narrow", Some(1)), ("wide", None)];
        let engine = stage.open(Engine::builder().max_concurrent(2), &instances).await;
        let runs = run(&engine, on(&["narrow"])).await;
        let held = run(&engine, on(&["narrow"]).priority(priority)).await;
        let other = run(&engine, on(&["wide"])).await;
        let waits = run(&engine, on(&["wide"]).priority(4)).await;
        stage.end(runs, 0);
        rest(&engine).await;
        let next = [held, waits].map(|id| !stage.runs(id).is_empty());
        assert_eq!(next, order, "one of priority {priority} waits for the instance");
        stage.end(other, 0);
        rest(&engine).await;
        assert_eq!([held, waits].map(|id| stage.runs(id).len()), [1, 1]);
    };
    check(9, [true, false]).await;
    check(4, [true, false]).await;
    check(0, [false, true]).await;
}

#[tokio::test]
async fn an_instance_with_a_higher_bound_starts_as_many_executions_as_fit() {
    let stage = Stage::default();
    let engine = stage.open(Engine::builder(), &[("narrow", Some(1))]).await;
    for _ in 0..5 {
        run(&engine, on(&["narrow"])).await;
    }
    assert_eq!(stage.count(), 1);
    let narrow = || Instance::new("narrow").executor("stage");
    for (instance, count) in [
        (narrow().max_concurrency(1), 1),
        (narrow().max_concurrency(3), 3),
        (narrow().max_concurrency(2), 3),
        (narrow(), 5),
    ] {
        engine.register_instance(instance).await.expect("a sound instance");
        rest(&engine).await;
        assert_eq!(stage.count(), count);
    }
}

#[tokio::test]
async fn another_attempt_keeps_the_priority_of_its_invocation() {
    let check = async |priority: u64, is_next: bool| {
        let (stage, clock) = (Stage::default(), ManualClock::at(DateTime::UNIX_EPOCH));
        let builder = Engine::builder().max_concurrent(1).clock(clock.clone());
        let engine = stage.open(builder, &[("a", None), ("b", None)]).await;
        let retry = Retry::attempts(2).backoff(1);
        let tried = run(&engine, on(&["a"]).priority(priority).retry(retry)).await;
        let mut others = Vec::new();
        for _ in 0..20 {
            others.push(run(&engine, on(&["b"]).priority(5)).await);
        }
        stage.end(tried, 1);
        rest(&engine).await;
        clock.advance(Duration::from_secs(2));
        rest(&engine).await;
        stage.end(others[0], 0);
        rest(&engine).await;
        assert_eq!(stage.runs(tried).len(), usize::from(is_next), "of priority {priority}");
    };
    check(9, true).await;
    check(6, true).await;
    check(4, false).await;
    check(0, false).await;
}

#[tokio::test]
async fn executions_of_low_priority_hide_none_of_higher_priority_however_many_wait() {
    let stage = Stage::default();
    let engine = stage.open(Engine::builder().max_concurrent(1), &[("a", None)]).await;
    let first = run(&engine, on(&["a"])).await;
    for priority in [0, 4] {
        for _ in 0..1_500 {
            let request = on(&["a"]).priority(priority);
            engine.run_command(request).await.expect("a sound request");
        }
    }
    rest(&engine).await;
    let next = run(&engine, on(&["a"])).await;
    stage.end(first, 0);
    rest(&engine).await;
    assert_eq!(stage.runs(next).len(), 1);
}

#[tokio::test]
async fn a_batch_that_is_being_served_does_not_age() {
    let (stage, clock) = (Stage::default(), ManualClock::at(DateTime::UNIX_EPOCH));
    let names: Vec<_> = (0..100).map(|n| format!("i-{n}")).collect();
    let instances: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
    let builder = Engine::builder().max_concurrent(2).clock(clock.clone());
    let engine = stage.open(builder, &instances).await;
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let batch = run(&engine, on(&all).priority(0)).await;
    for _ in 0..20 {
        clock.advance(Duration::from_secs(5));
        stage.end(batch, 0);
        rest(&engine).await;
    }
    let urgent = run(&engine, on(&["i-0"]).priority(8)).await;
    stage.end(batch, 0);
    rest(&engine).await;
    assert_eq!(stage.runs(urgent).len(), 1);
}

/// Looks at the file continually while executions follow one another.
#[tokio::test(flavor = "multi_thread")]
async fn the_file_never_shows_more_executions_as_running_than_may_run() {
    const PLACES: usize = 4;
    let place = Place::new();
    let engine = place.builder().max_concurrent(PLACES).open().await.expect("the file opens");
    register(&engine, "script", 3).await;
    let (path, done) = (place.database(), Arc::new(AtomicBool::new(false)));
    let is_done = Arc::clone(&done);
    let looking = tokio::task::spawn_blocking(move || {
        let file = rusqlite::Connection::open(path).expect("a database");
        let mut looks = [0; 3 * PLACES];
        while !is_done.load(Ordering::Acquire) {
            let running = file.query_row(
                "SELECT count(*) FROM executions WHERE status IN ('Running', 'Stopping')",
                (),
                |row| row.get::<_, usize>(0),
            );
            looks[running.expect("readable").min(3 * PLACES - 1)] += 1;
        }
        looks
    });
    let tasks = (0..PLACES + 1).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                crate::support::run(&engine, "out:x", &["i-1"]).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        within(task).await.expect("no panic");
    }
    done.store(true, Ordering::Release);
    let looks = looking.await.expect("no panic");
    assert!(looks[PLACES + 1..].iter().all(|count| *count == 0), "by how many run: {looks:?}");
}

/// A trigger refuses the remark of one of sixteen ends that share a commit.
#[tokio::test]
async fn an_end_that_cannot_be_written_whole_is_written_in_part() {
    let place = Place::new();
    let stage = Stage::default();
    let names: Vec<_> = (0..16).map(|n| format!("i-{n}")).collect();
    let instances: Vec<_> = names.iter().map(|name| (name.as_str(), None)).collect();
    let engine = stage.open(Engine::builder().path(place.database()), &instances).await;
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    let check = async |spoil: &str, statuses: &[(ExecutionStatus, usize)], says: &str| {
        let id = run(&engine, on(&all)).await;
        let file = rusqlite::Connection::open(place.database()).expect("a database");
        file.execute_batch(spoil).expect("sound SQL");
        (0..names.len()).for_each(|n| stage.end(id, i32::from(n == 3)));
        let finished = wait(&engine, &id).await;
        for (status, count) in statuses {
            let results = finished.results.iter().filter(|one| one.status == *status);
            assert_eq!(results.count(), *count, "{spoil}: {status}");
        }
        let said = finished.results.iter().filter(|one| one.error_info.contains(says)).count();
        assert_eq!(said, 1, "{spoil}");
    };
    let ends = [(ExecutionStatus::Success, 15), (ExecutionStatus::Failed, 1)];
    check("", &ends, "exit code 1").await;
    let taken = "CREATE TRIGGER spoils BEFORE UPDATE ON executions
        WHEN new.error_info = 'exit code 1' BEGIN SELECT RAISE(ABORT, 'spoilt'); END";
    check(taken, &ends, "exit code 1; not all of its end can be kept").await;
}

/// One execution runs, one waits, and one comes later. The table has the error that each `wait` returns.
#[tokio::test]
async fn on_a_damaged_file_every_wait_returns() {
    let check = async |damage: &str, codes: [Option<&str>; 3]| {
        let (place, stage) = (Place::new(), Stage::default());
        let builder = place.builder().max_concurrent(1);
        let engine = stage.open(builder, &[("held", None)]).await;
        register(&engine, "script", 2).await;
        let script = || RunCommand::shell("out:text").on(["i-1"]);
        let held = run(&engine, on(&["held"])).await;
        let waits = run(&engine, script()).await;
        let file = rusqlite::Connection::open(place.database()).expect("a database");
        file.execute_batch(damage).expect("sound SQL");
        stage.end(held, 0);
        let later = async {
            let later = engine.run_command(script()).await?.invoke_id;
            engine.wait_status(&later).await
        };
        let found = [
            within(engine.wait_status(&held)).await,
            within(engine.wait_status(&waits)).await,
            within(later).await,
        ];
        let told = found.each_ref().map(|one| one.as_ref().err().map(|error| error.code()));
        assert_eq!(told, codes, "{damage}: {found:?}");
    };
    let index_of = |name: &str, other: &str| {
        format!(
            "PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET rootpage =
                 (SELECT rootpage FROM sqlite_schema WHERE name = '{other}') WHERE name = '{name}';
             PRAGMA schema_version = 1000"
        )
    };
    check("SELECT 1", [None; 3]).await;
    check("DROP TABLE outputs", [None; 3]).await;
    check(&index_of("outputs", "commands_by_name"), [None; 3]).await;
    let refuses = "CREATE TRIGGER refuses BEFORE UPDATE ON executions
        WHEN new.finished_at_ms IS NOT NULL BEGIN SELECT RAISE(ABORT, 'damaged'); END";
    check(refuses, [Some("Storage.Record"); 3]).await;
    let corrupt = Some("Storage.Corrupt");
    check(&index_of("executions_by_fire", "outputs"), [None, corrupt, corrupt]).await;
}

/// The instance has a time zone whose name no zone can have.
#[tokio::test]
async fn an_execution_that_cannot_start_because_of_a_record_ends_and_says_so() {
    let place = Place::new();
    let engine = place.open().await;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let stage = Stage::default();
    let engine = stage.plug_in(place.builder()).max_concurrent(1);
    let engine = engine.open().await.expect("the file opens");
    let held = Instance::new("held").executor("stage");
    engine.register_instance(held).await.expect("a sound instance");
    let first = run(&engine, on(&["held"])).await;
    let waits = run(&engine, on(&["i-1", "i-2"])).await;
    let script = run(&engine, on(&["i-3"])).await;
    let last = run(&engine, on(&["i-3"])).await;
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let damage = "UPDATE instances SET time_zone = 'nowhere' WHERE instance_id = 'i-1';
        UPDATE invocations SET retry = 'no JSON' WHERE id = 3";
    file.execute_batch(damage).expect("sound SQL");
    // A write that is undone makes the engine forget the records that it remembers.
    let undone = engine.write(|_: &HostTransaction<'_>| Err::<(), _>("as told".into())).await;
    undone.expect_err("as told");
    stage.end(first, 0);
    let ends = within(engine.wait_status(&waits)).await.expect("it ends");
    assert_eq!(ends, InvocationStatus::Failed);
    within(engine.wait_status(&script)).await.expect("it ends");
    assert_eq!(wait(&engine, &last).await.status, InvocationStatus::Failed, "no step `x`");
    let said: Vec<(String, String)> = {
        let mut query = file
            .prepare(
                "SELECT status, error_info FROM executions WHERE error_code = 'Storage.Record'",
            )
            .expect("sound SQL");
        let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).expect("readable");
        rows.collect::<Result<_, _>>().expect("readable")
    };
    let said: Vec<_> = said.iter().map(|(status, info)| (status.as_str(), &info[..60])).collect();
    assert_eq!(
        said,
        [
            ("Aborted", "it could not start, for the record of its instance cannot be"),
            ("Aborted", "it could not start, for the record of its invocation cannot "),
        ]
    );
}

/// Random numbers from a seed that repeats them.
struct Random(TestRng);

impl Random {
    fn new() -> (u64, Self) {
        let seed = RandomState::new().hash_one(());
        let bytes = [seed; 4].map(u64::to_le_bytes).concat();
        (seed, Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)))
    }

    fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        range.start + self.0.next_u32() as usize % range.len()
    }

    fn coin(&mut self) -> bool {
        self.within(0..2) == 1
    }
}

/// The number of executions that run within a bound, and the bound.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    running: usize,
    max: Option<usize>,
}

impl Room {
    fn is_left(self) -> bool {
        self.max.is_none_or(|max| self.running < max)
    }
}

/// An invocation of the random test: its bounds, and how many of its executions have not started on each instance.
struct Request {
    id: InvokeId,
    key: Option<usize>,
    max: Option<usize>,
    waiting: BTreeMap<String, usize>,
}

/// Returns the executions that wait although all of their bounds have room, and the bounds that are exceeded.
fn look_for_wrong(
    requests: &[Request],
    running: &[(InvokeId, String)],
    places: usize,
    instances: &BTreeMap<String, Option<usize>>,
    widths: &[usize],
) -> Vec<String> {
    let of = |id: InvokeId| requests.iter().find(|one| one.id == id).expect("ours");
    let count = |which: &dyn Fn(&(InvokeId, String)) -> bool| {
        running.iter().filter(|one| which(one)).count()
    };
    let mut wrong = Vec::new();
    let all = Room { running: running.len(), max: Some(places) };
    for request in requests {
        let own = Room { running: count(&|(id, _)| *id == request.id), max: request.max };
        let key = request.key.map_or_else(Room::default, |key| Room {
            running: count(&|(id, _)| of(*id).key == Some(key)),
            max: Some(widths[key]),
        });
        for (instance, waiting) in &request.waiting {
            let there =
                Room { running: count(&|(_, on)| on == instance), max: instances[instance] };
            let bounds = [("places", all), ("own", own), ("key", key), ("instance", there)];
            let past =
                bounds.iter().filter(|(_, room)| room.max.is_some_and(|max| room.running > max));
            wrong.extend(past.map(|(name, room)| format!("{name}: {room:?}")));
            if *waiting > 0 && bounds.iter().all(|(_, room)| room.is_left()) {
                wrong.push(format!("{} waits on {instance}: {bounds:?}", request.id));
            }
        }
    }
    wrong
}

/// Returns instances below their bounds for which executions wait in the file although there are free places, each
/// with the number of executions that run there and that wait for it.
fn idle_instances(file: &rusqlite::Connection, places: usize) -> Vec<(String, usize, usize)> {
    let running = "status IN ('Running', 'Stopping')";
    let mut query = file
        .prepare(&format!(
            "SELECT i.instance_id,
                 (SELECT count(*) FROM executions e WHERE e.instance = i.id AND {running}) AS running,
                 (SELECT count(*) FROM executions e
                  WHERE e.instance = i.id AND e.awaits_instance IS NOT NULL) AS waiting
             FROM instances i
             WHERE waiting > 0 AND running < coalesce(i.max_concurrency, 1000000)
                 AND (SELECT count(*) FROM executions WHERE {running}) < ?1"
        ))
        .expect("sound SQL");
    let rows = query
        .query_map([places], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .expect("readable");
    rows.collect::<Result<_, _>>().expect("readable")
}

/// Random requests within random bounds, and ends in a random order.
#[tokio::test]
async fn no_execution_waits_while_all_of_its_bounds_have_room() {
    for _ in 0..12 {
        let (seed, mut random) = Random::new();
        println!("seed {seed}");
        let (place, stage) = (Place::new(), Stage::default());
        let places = random.within(2..8);
        let widths = [random.within(1..4), random.within(1..4)];
        let builder = Engine::builder().path(place.database()).durability(Durability::Relaxed);
        let builder = builder.max_concurrent(places).clock(ManualClock::at(DateTime::UNIX_EPOCH));
        let builder = builder.concurrency_key("k-0", widths[0]).concurrency_key("k-1", widths[1]);
        let bounds: Vec<_> =
            (0..4).map(|_| random.coin().then(|| random.within(1..3) as u32)).collect();
        let names: Vec<_> = (0..bounds.len()).map(|n| format!("i-{n}")).collect();
        let instances: Vec<_> = names.iter().map(String::as_str).zip(bounds.clone()).collect();
        let engine = stage.open(builder, &instances).await;
        let instances: BTreeMap<String, Option<usize>> = names
            .iter()
            .cloned()
            .zip(bounds.iter().map(|max| max.map(|max| max as usize)))
            .collect();
        let file = rusqlite::Connection::open(place.database()).expect("a database");
        let (mut requests, mut running) = (Vec::<Request>::new(), Vec::new());
        for step in 0..60 {
            if random.coin() || stage.count() == 0 {
                let targets: Vec<_> = names.iter().filter(|_| random.coin()).cloned().collect();
                if targets.is_empty() {
                    continue;
                }
                let key = random.coin().then(|| random.within(0..2));
                let max = random.coin();
                let max = max.then(|| random.within(1..3));
                let mut request = on(&targets.iter().map(String::as_str).collect::<Vec<_>>());
                request = request.priority(random.within(0..10) as u64);
                request =
                    key.iter().fold(request, |one, key| one.concurrency_key(format!("k-{key}")));
                request = max.iter().fold(request, |one, max| one.max_concurrency(*max as u64));
                let fires = if random.within(0..4) == 0 { 1 + random.within(1..3) } else { 1 };
                if fires > 1 {
                    request = request.timeout(60).frequency("rate(1d)");
                    request = request.overlap_policy(OverlapPolicy::Allow);
                }
                let id = run(&engine, request).await;
                let more = if fires > 1 { fires } else { 0 };
                for _ in 0..more {
                    engine.run_now(&id).await.expect("it has not ended");
                }
                let waiting = targets.into_iter().map(|on| (on, fires)).collect();
                requests.push(Request { id, key, max, waiting });
            } else {
                let (id, on) = stage.end_at(random.within(0..stage.count()));
                let at = running.iter().position(|one| *one == (id, on.clone())).expect("it runs");
                running.swap_remove(at);
            }
            // Executions that start although they may not have started by then.
            rest(&engine).await;
            let mut wrong = Vec::new();
            // The number of commits until no execution waits is not promised. Because the clock stands still, only
            // the event before this can lead to starts.
            let comes_right = async {
                loop {
                    for (id, on) in stage.take_note(&running) {
                        let request = requests.iter_mut().find(|one| one.id == id).expect("ours");
                        *request.waiting.get_mut(&on).expect("a target") -= 1;
                        running.push((id, on));
                    }
                    wrong = look_for_wrong(&requests, &running, places, &instances, &widths);
                    let idle = idle_instances(&file, places);
                    wrong.extend(idle.iter().map(|idle| format!("idle: {idle:?}")));
                    if wrong.is_empty() {
                        break;
                    }
                    settle().await;
                }
            };
            let came = tokio::time::timeout(Duration::from_secs(30), comes_right).await;
            assert!(came.is_ok(), "seed {seed}, step {step}: {wrong:#?}");
        }
        // All executions come to their ends.
        let comes_to_an_end = async {
            loop {
                while stage.count() > 0 {
                    stage.end_at(0);
                }
                settle().await;
                let left = "SELECT count(*) FROM executions WHERE finished_at_ms IS NULL";
                let left: i64 = file.query_row(left, (), |row| row.get(0)).expect("readable");
                if left == 0 {
                    break;
                }
            }
        };
        let came = tokio::time::timeout(Duration::from_secs(30), comes_to_an_end).await;
        assert!(came.is_ok(), "seed {seed}: some have not ended");
    }
}

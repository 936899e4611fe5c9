//! Stops of more executions than one commit takes, which are carried out although their caller or their engine goes
//! away, and the size of commits that many executions share.

use std::collections::HashMap;
use std::time::Duration;

use adjutant::{
    ClosureExecutor, EndedWave, Engine, EngineBuilder, ExecutionStatus, Instance, InstanceId,
    InvokeId, LOCAL, Limits, MissedPolicy, OverlapPolicy, RepeatMode, RunCommand, StopInvocation,
    WaveDecision, WaveGate,
};
use tokio::task::JoinSet;

use crate::recurrence::clock;
use crate::support::{Gate, Place, hold_writer, with_executors, within};

/// More executions than two commits can stop.
const MANY: usize = 9_000;

/// Returns limits under which requests name any number of instances.
fn limits() -> Limits {
    let mut limits = Limits::alibaba();
    limits.instances_max = 1_000_000;
    limits.stop_instances_max = 1_000_000;
    limits
}

fn builder(place: &Place, gate: &Gate) -> EngineBuilder {
    gate.plug_in(with_executors(Engine::builder())).path(place.database()).limits(limits())
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("n-{n}")).collect()
}

/// Runs `act` for each number below `count`, all at once.
async fn at_once<F: Future<Output = ()> + Send + 'static>(count: usize, act: impl Fn(usize) -> F) {
    let mut all: JoinSet<()> = (0..count).map(act).collect();
    while let Some(done) = all.join_next().await {
        done.expect("no panic");
    }
}

async fn register(engine: &Engine, executor: &'static str, count: usize) {
    let register = |n: usize| {
        let (engine, name) = (engine.clone(), format!("n-{n}"));
        async move {
            let instance = Instance::new(name).executor(executor);
            engine.register_instance(instance).await.expect("a sound instance");
        }
    };
    at_once(count, register).await;
}

/// Waits until a condition is true.
async fn until(is_so: impl Fn() -> bool) {
    within(async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Returns the number of executions of an invocation that ended with each status.
async fn ends(engine: &Engine, invoke_id: InvokeId) -> HashMap<ExecutionStatus, usize> {
    within(engine.wait_status(&invoke_id)).await.expect("the invocation ends");
    let finished = within(engine.wait(&invoke_id)).await.expect("it has ended");
    let mut ends = HashMap::new();
    for result in finished.results {
        *ends.entry(result.status).or_default() += 1;
    }
    ends
}

/// Starts an invocation of `count` executions. One execution runs and the others wait.
async fn one_runs(engine: &Engine, gate: &Gate, count: usize) -> InvokeId {
    register(engine, "gate", count).await;
    let run = engine.run_command(RunCommand::shell("x").on(names(count))).await.expect("sound");
    within(gate.arrivals(1)).await;
    run.invoke_id
}

/// Stops an invocation, and goes away after the first commit.
async fn begin_to_stop(engine: &Engine, stop: StopInvocation) {
    tokio::select! {
        biased;
        () = until(|| engine.metrics().ended.get(ExecutionStatus::Cancelled) > 0) => {}
        _ = engine.stop_invocation(stop) => {}
    }
}

#[tokio::test]
async fn a_stop_whose_caller_goes_away_after_its_first_commit_is_carried_out() {
    let (place, gate) = (Place::new(), Gate::new());
    let engine = builder(&place, &gate).max_concurrent(1).open().await.expect("it opens");
    let id = one_runs(&engine, &gate, MANY).await;
    begin_to_stop(&engine, StopInvocation::new(id)).await;
    gate.let_go(MANY);
    let ends = ends(&engine, id).await;
    assert_eq!(ends.get(&ExecutionStatus::Cancelled), Some(&(MANY - 1)), "{ends:?}");
    assert_eq!(gate.waiting(), 0, "nothing has started since");
}

#[tokio::test]
async fn a_stop_on_named_instances_whose_caller_goes_away_is_carried_out_there() {
    let (place, gate) = (Place::new(), Gate::new());
    let engine = builder(&place, &gate).max_concurrent(1).open().await.expect("it opens");
    let id = one_runs(&engine, &gate, MANY).await;
    // All instances but the one whose execution runs and a hundred whose executions wait.
    let named = names(MANY - 100).split_off(1);
    begin_to_stop(&engine, StopInvocation::new(id).on(named.iter().cloned())).await;
    gate.let_go(MANY);
    let ends = ends(&engine, id).await;
    assert_eq!(ends.get(&ExecutionStatus::Cancelled), Some(&named.len()), "{ends:?}");
    assert_eq!(ends.get(&ExecutionStatus::Success), Some(&101), "{ends:?}");
}

#[tokio::test]
async fn a_stop_that_an_idle_engine_began_is_carried_out_by_the_next_engine() {
    let (place, gate) = (Place::new(), Gate::new());
    for named in [0, MANY - 100] {
        let idle = builder(&place, &gate).idle().open().await.expect("it opens");
        register(&idle, "gate", MANY).await;
        let run = idle.run_command(RunCommand::shell("x").on(names(MANY))).await.expect("sound");
        let id = run.invoke_id;
        begin_to_stop(&idle, StopInvocation::new(id).on(names(named))).await;
        within(idle.shutdown(Duration::ZERO)).await;
        drop(idle);
        let engine = builder(&place, &gate).max_concurrent(64).open().await.expect("it opens");
        gate.let_go(MANY);
        let ends = ends(&engine, id).await;
        let cancelled = if named == 0 { MANY } else { named };
        assert_eq!(ends.get(&ExecutionStatus::Cancelled), Some(&cancelled), "{ends:?}");
        within(gate.arrivals((MANY - cancelled) as u32)).await;
        assert_eq!(gate.waiting(), 0, "nothing of it has started");
        within(engine.shutdown(Duration::ZERO)).await;
    }
}

/// The runtime of the engine ends, and only the state on disk is left.
#[test]
fn a_stop_that_is_cut_off_between_its_commits_is_carried_out_by_the_next_engine() {
    let (place, gate) = (Place::new(), Gate::new());
    let runtime = || tokio::runtime::Runtime::new().expect("a runtime");
    let killed = runtime();
    let id = killed.block_on(async {
        let engine = builder(&place, &gate).max_concurrent(1).open().await.expect("it opens");
        let id = one_runs(&engine, &gate, MANY).await;
        begin_to_stop(&engine, StopInvocation::new(id)).await;
        id
    });
    killed.shutdown_timeout(Duration::from_secs(30));
    gate.let_go(MANY);
    runtime().block_on(async {
        let engine = builder(&place, &gate).max_concurrent(64).open().await.expect("it opens");
        let ends = ends(&engine, id).await;
        assert_eq!(ends.get(&ExecutionStatus::Cancelled), Some(&(MANY - 1)), "{ends:?}");
        assert_eq!(gate.waiting(), 0, "nothing has started since");
    });
}

/// The first executions wait for their instances, which another invocation uses. Many executions run behind them, and
/// the last executions wait for places.
#[tokio::test]
async fn a_stop_asks_all_that_runs_to_end_in_its_first_commit_and_starts_nothing_that_waits() {
    const HELD: usize = 4_000;
    const RUNNING: usize = 300;
    let check = async |restarts: bool| {
        let (place, gate) = (Place::new(), Gate::new());
        let open = || builder(&place, &gate).max_concurrent(HELD + RUNNING).open();
        let engine = open().await.expect("it opens");
        let instance = |n| Instance::new(format!("n-{n}")).executor("gate").max_concurrency(1);
        let registering = engine.clone();
        let register = move |n| {
            let engine = registering.clone();
            async move {
                engine.register_instance(instance(n)).await.expect("a sound instance");
            }
        };
        at_once(MANY, register).await;
        engine.run_command(RunCommand::shell("x").on(names(HELD))).await.expect("sound");
        within(gate.arrivals(HELD as u32)).await;
        let run = engine.run_command(RunCommand::shell("x").on(names(MANY))).await.expect("sound");
        within(gate.arrivals(RUNNING as u32)).await;
        begin_to_stop(&engine, StopInvocation::new(run.invoke_id)).await;
        let file = rusqlite::Connection::open(place.database()).expect("a database");
        let of_stopped = "SELECT count(*) FROM executions e JOIN fires f ON f.id = e.fire
            WHERE f.invocation = (SELECT max(id) FROM invocations) AND e.status = 'Running'";
        let running: usize = file.query_row(of_stopped, (), |row| row.get(0)).expect("readable");
        assert_eq!(running, 0, "they run on after the first commit");
        let engine = if restarts {
            within(engine.shutdown(Duration::ZERO)).await;
            drop(engine);
            open().await.expect("it opens")
        } else {
            engine
        };
        let ends = ends(&engine, run.invoke_id).await;
        assert_eq!(ends.get(&ExecutionStatus::Cancelled), Some(&(MANY - RUNNING)), "{ends:?}");
        assert_eq!(ends.get(&ExecutionStatus::Terminated), Some(&RUNNING), "{ends:?}");
        assert_eq!(gate.waiting(), 0, "an execution has started since, restarts: {restarts}");
        within(engine.shutdown(Duration::ZERO)).await;
    };
    check(false).await;
    check(true).await;
}

/// The writing thread is held while the claim of an execution waits for it, and the stop behind the claim.
#[tokio::test]
async fn no_execution_is_on_record_as_stopped_before_it_started() {
    let (place, gate, clock) = (Place::new(), Gate::new(), clock());
    let builder = builder(&place, &gate).clock(clock.clone()).max_concurrent(1);
    let engine = builder.open().await.expect("it opens");
    one_runs(&engine, &gate, 2).await;
    let writer = hold_writer(&engine).await;
    let listed = engine.describe_invocations(Default::default()).await.expect("a page");
    let id = listed.invocations[0].invoke_id;
    let heard = engine.metrics().run_time_us.count + 1;
    gate.let_go(1);
    until(|| engine.metrics().run_time_us.count >= heard).await;
    let stopper = engine.clone();
    let stopping =
        tokio::spawn(async move { stopper.stop_invocation(StopInvocation::new(id)).await });
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(1));
    writer.let_go().await;
    stopping.await.expect("no panic").expect("it exists");
    within(engine.wait_status(&id)).await.expect("it ends");
    let finished = within(engine.wait(&id)).await.expect("it has ended");
    let last = &finished.results[1];
    assert!(last.start_time.is_some() && last.stop_time.is_some(), "{last:?}");
    assert!(last.start_time <= last.stop_time, "{:?} {:?}", last.start_time, last.stop_time);
}

/// Returns the number of rows that the largest commit of an engine has changed.
fn rows_max(engine: &Engine) -> u64 {
    engine.metrics().rows_per_commit.max
}

/// The bound on the rows of a commit: four thousand executions and the rows that belong to them.
const ROWS_MAX: u64 = 9_000;

#[tokio::test]
async fn fires_that_were_missed_are_caught_up_with_in_commits_of_bounded_size() {
    for overlap in [OverlapPolicy::Allow, OverlapPolicy::Skip, OverlapPolicy::Replace] {
        let (place, gate, clock) = (Place::new(), Gate::new(), clock());
        let open = async || {
            let builder = builder(&place, &gate).clock(clock.clone()).max_concurrent(1);
            builder.open().await.expect("it opens")
        };
        let engine = open().await;
        register(&engine, "gate", 100).await;
        let request = RunCommand::shell("x").on(names(100)).frequency("rate(2m)");
        let request = request.overlap_policy(overlap).missed_policy(MissedPolicy::All(150));
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        within(engine.shutdown(Duration::ZERO)).await;
        drop(engine);
        clock.advance(Duration::from_secs(150 * 120));
        let engine = open().await;
        until(|| engine.metrics().executions >= 150 * 100).await;
        assert!(rows_max(&engine) <= ROWS_MAX, "{overlap}: {}", rows_max(&engine));
        // The overlap policy of another fire applies to all of these executions.
        within(engine.run_now(&id)).await.expect("it repeats");
        within(engine.stop_invocation(StopInvocation::new(id))).await.expect("it exists");
        gate.let_go(MANY);
        let status = within(engine.wait_status(&id)).await.expect("it ends");
        assert!(status.is_final());
        assert!(rows_max(&engine) <= ROWS_MAX, "{overlap}: {}", rows_max(&engine));
    }
}

struct Halts;

impl WaveGate for Halts {
    async fn decide(&self, _: EndedWave) -> WaveDecision {
        WaveDecision::Halt("enough".to_owned())
    }
}

#[tokio::test]
async fn executions_of_a_halted_invocation_are_cancelled_in_commits_of_bounded_size() {
    let check = async |request: RunCommand, script: &str| {
        let place = Place::new();
        let builder = builder(&place, &Gate::new()).max_concurrent(1).wave_gate(Halts);
        let engine = builder.open().await.expect("it opens");
        register(&engine, "script", MANY).await;
        let before = engine.metrics();
        let run = engine.run_command(request).await.expect("sound");
        let ends = ends(&engine, run.invoke_id).await;
        assert_eq!(ends.get(&ExecutionStatus::Cancelled), Some(&(MANY - 1)), "{script}: {ends:?}");
        // The request itself is one more commit.
        let after = engine.metrics().rows_per_commit;
        let (commits, rows) =
            (after.count - before.rows_per_commit.count, after.sum - before.rows_per_commit.sum);
        assert!(commits >= 3, "{script}: {commits} commits of {rows} rows");
        assert!(after.max <= MANY as u64 + 100, "{script}: {}", after.max);
        let cancelled = rows - after.max;
        let largest = after.quantile(1.0 - 1.5 / after.count as f64);
        assert!(largest <= ROWS_MAX / 2 + 512, "{script}: {largest} of {cancelled}");
    };
    let on = |script: &str| RunCommand::shell(script).on(names(MANY));
    check(on("exit:1").max_errors(0), "MaxErrors").await;
    check(on("exit:0").waves([1]), "Halt").await;
}

#[tokio::test]
async fn a_boot_that_very_many_invocations_wait_for_fires_them_in_commits_of_bounded_size() {
    const WAIT: usize = 4_000;
    let (place, gate) = (Place::new(), Gate::new());
    let engine = builder(&place, &gate).max_concurrent(1).open().await.expect("it opens");
    register(&engine, "gate", 1).await;
    let instance = InstanceId::from("n-0");
    let boot = async |engine: &Engine, id: &str| {
        within(engine.instance_booted(&instance, id)).await.expect("it is registered");
    };
    boot(&engine, "a").await;
    let wait = |_| {
        let engine = engine.clone();
        async move {
            let request = RunCommand::shell("x").on(["n-0"]).repeat_mode(RepeatMode::EveryReboot);
            engine.run_command(request).await.expect("sound");
        }
    };
    at_once(WAIT, wait).await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let engine = builder(&place, &gate).max_concurrent(1).open().await.expect("it opens");
    boot(&engine, "b").await;
    assert_eq!(engine.metrics().executions, WAIT as u64, "each has fired once");
    boot(&engine, "b").await;
    assert_eq!(engine.metrics().executions, WAIT as u64, "the same boot is no reboot");
    assert!(rows_max(&engine) <= ROWS_MAX / 2, "{}", rows_max(&engine));
    // The host tells of a boot, goes away, and tells of the next boot. Each boot fires each invocation.
    tokio::select! {
        biased;
        () = until(|| engine.metrics().fires_skipped > 0) => {}
        _ = engine.instance_booted(&instance, "c") => {}
    }
    boot(&engine, "d").await;
    until(|| engine.metrics().fires_skipped >= 2 * WAIT as u64).await;
    // A commit may hold a part of the caller's and a part of the scheduler's.
    assert!(rows_max(&engine) <= ROWS_MAX, "{}", rows_max(&engine));
}

#[tokio::test]
async fn executions_that_wait_for_an_instance_stay_marked_unless_more_may_run_there() {
    const WAIT: usize = 6_000;
    let (place, gate) = (Place::new(), Gate::new());
    let engine = builder(&place, &gate).max_concurrent(10).open().await.expect("it opens");
    let narrow = |max| Instance::new("narrow").executor("gate").max_concurrency(max);
    engine.register_instance(narrow(1)).await.expect("sound");
    let wait = |_| {
        let engine = engine.clone();
        async move {
            engine.run_command(RunCommand::shell("x").on(["narrow"])).await.expect("sound");
        }
    };
    at_once(WAIT, wait).await;
    within(gate.arrivals(1)).await;
    let marked = || {
        let file = rusqlite::Connection::open(place.database()).expect("a database");
        let sql = "SELECT count(*) FROM executions WHERE awaits_instance IS NOT NULL";
        file.query_row(sql, (), |row| row.get::<_, usize>(0)).expect("sound SQL")
    };
    until(|| marked() == WAIT - 1).await;
    let before = engine.metrics().rows_per_commit.sum;
    engine.register_instance(narrow(1)).await.expect("sound");
    assert_eq!(marked(), WAIT - 1, "nothing has changed there");
    let changed = engine.metrics().rows_per_commit.sum - before;
    assert!(changed < 100, "{changed} rows");
    engine.register_instance(narrow(3)).await.expect("sound");
    within(gate.arrivals(2)).await;
    assert_eq!(marked(), WAIT - 3, "two more may run");
    let changed = engine.metrics().rows_per_commit.sum - before;
    assert!(changed < 200, "{changed} rows");
    // Now any number of executions may run there.
    let wide = Instance::new("narrow").executor("gate");
    engine.register_instance(wide).await.expect("sound");
    gate.let_go(WAIT);
    within(gate.arrivals(WAIT as u32 - 3)).await;
    assert!(rows_max(&engine) <= ROWS_MAX / 2 + 512, "{}", rows_max(&engine));
}

/// Many executions run and wait when the runtime of the engine ends.
#[test]
fn executions_that_the_last_engine_left_are_ended_in_commits_of_bounded_size() {
    const RUN: usize = 11_000;
    const WAIT: usize = 5_500;
    let (place, gate) = (Place::new(), Gate::new());
    let runtime = || tokio::runtime::Runtime::new().expect("a runtime");
    let killed = runtime();
    killed.block_on(async {
        let engine = builder(&place, &gate).max_concurrent(RUN).open().await.expect("it opens");
        register(&engine, "gate", RUN).await;
        let run = engine.run_command(RunCommand::shell("x").on(names(RUN))).await.expect("sound");
        within(gate.arrivals(RUN as u32)).await;
        drop(run);
    });
    killed.shutdown_timeout(Duration::from_secs(30));
    let mark = "UPDATE executions SET status = 'Pending', started_at_ms = NULL, awaits_instance = 1
        WHERE id <= ?1";
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    file.execute(mark, [WAIT]).expect("sound SQL");
    drop(file);
    runtime().block_on(async {
        let engine = builder(&place, &gate).idle().open().await.expect("it opens");
        assert!(rows_max(&engine) <= ROWS_MAX / 2 + 512, "{}", rows_max(&engine));
    });
}

/// Returns the number that a query counts in the file of an engine.
fn count(place: &Place, sql: &str) -> usize {
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    file.query_row(sql, (), |row| row.get(0)).expect("sound SQL")
}

/// Runs SQL in the file of an engine. Table `stops` then takes columns of any type.
fn damage(place: &Place, sql: &str) {
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    file.execute_batch(&format!(
        "PRAGMA foreign_keys = OFF; PRAGMA wal_autocheckpoint = 0;
         PRAGMA ignore_check_constraints = ON; PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'stops';
         PRAGMA schema_version = 1000; PRAGMA writable_schema = RESET; {sql}"
    ))
    .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

#[tokio::test]
async fn a_stop_whose_record_cannot_be_read_is_told_as_that_and_holds_up_no_other() {
    let check = async |damaged: &str| {
        let (place, gate) = (Place::new(), Gate::new());
        let idle = builder(&place, &gate).idle().open().await.expect("it opens");
        register(&idle, "gate", MANY).await;
        let mut ids = Vec::new();
        for _ in 0..2 {
            let request = RunCommand::shell("x").on(names(MANY));
            ids.push(idle.run_command(request).await.expect("sound").invoke_id);
        }
        let orders = || count(&place, "SELECT count(*) FROM stops");
        for (number, id) in ids.iter().enumerate() {
            let stop = idle.stop_invocation(StopInvocation::new(*id));
            tokio::select! {
                biased;
                () = until(|| orders() > number) => {}
                _ = stop => {}
            }
        }
        assert_eq!(orders(), 2, "{damaged}");
        damage(&place, &format!("UPDATE stops SET {damaged} WHERE id = 1"));
        let told = within(idle.stop_invocation(StopInvocation::new(ids[0]))).await;
        assert_eq!(told.expect_err(damaged).code(), "Storage.Corrupt", "{damaged}");
        within(idle.stop_invocation(StopInvocation::new(ids[1]))).await.expect("it can be stopped");
        assert_eq!(orders(), 0, "{damaged}");
        within(idle.shutdown(Duration::ZERO)).await;
        drop(idle);
        let engine = builder(&place, &gate).max_concurrent(64).open().await.expect("it opens");
        gate.let_go(2 * MANY);
        for id in ids {
            let ends = ends(&engine, id).await;
            assert_eq!(ends.get(&ExecutionStatus::Cancelled), Some(&MANY), "{damaged}: {ends:?}");
        }
        assert_eq!(gate.waiting(), 0, "{damaged}: nothing has started");
    };
    check("cause = 'none'").await;
    check("stopped_by = x'ff'").await;
    check("stop_reason = CAST(x'ff' AS TEXT)").await;
    check("until = 'x'").await;
    check("at_fire = 'x', at_instance = x'ff', stop_at_ms = 'x'").await;
}

#[tokio::test]
async fn a_stop_ends_no_unreadable_execution_of_another_invocation() {
    let check = async |column: &str, value: &str| {
        let (place, gate) = (Place::new(), Gate::new());
        let engine = builder(&place, &gate).max_concurrent(2).open().await.expect("it opens");
        let beside = one_runs(&engine, &gate, 1).await;
        let id = one_runs(&engine, &gate, MANY).await;
        let file = rusqlite::Connection::open(place.database()).expect("a database");
        file.execute_batch(&format!(
            "PRAGMA wal_autocheckpoint = 0; PRAGMA ignore_check_constraints = ON; PRAGMA writable_schema = ON;
             UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'executions';
             PRAGMA schema_version = 1000; PRAGMA writable_schema = RESET;
             UPDATE executions SET {column} = {value} WHERE id = (SELECT min(id) FROM executions)"
        ))
        .expect("sound SQL");
        within(engine.stop_invocation(StopInvocation::new(id))).await.expect("it can be stopped");
        ends(&engine, id).await;
        gate.let_go(1);
        let has_ended = || {
            let sql = "SELECT count(*) FROM executions WHERE finished_at_ms IS NOT NULL
                AND id = (SELECT min(id) FROM executions)";
            count(&place, sql) == 1
        };
        until(has_ended).await;
        let sql = "SELECT status FROM executions WHERE id = (SELECT min(id) FROM executions)";
        let status: String = file.query_row(sql, (), |row| row.get(0)).expect("a status");
        assert_eq!(status, "Success", "{column} = {value} of {beside}");
    };
    check("instance", "'x'").await;
    check("instance", "x'ff'").await;
}

/// An idle engine carries the stop out itself; in another engine the scheduler does.
#[tokio::test]
async fn a_stop_gets_past_a_damaged_page_behind_its_first_slice() {
    let check = async |is_idle: bool| {
        let (place, gate) = (Place::new(), Gate::new());
        let idle = builder(&place, &gate).idle().open().await.expect("it opens");
        register(&idle, "gate", MANY).await;
        let run = idle.run_command(RunCommand::shell("x").on(names(MANY))).await.expect("sound");
        begin_to_stop(&idle, StopInvocation::new(run.invoke_id)).await;
        within(idle.shutdown(Duration::ZERO)).await;
        drop(idle);
        let lost = place.damage_leaf("executions", 90);
        let reopened = builder(&place, &gate);
        let reopened = if is_idle { reopened.idle() } else { reopened };
        let engine = reopened.open().await.expect("it opens");
        let stop = engine.stop_invocation(StopInvocation::new(run.invoke_id));
        let told = within(stop).await.expect_err("not all of it can be stopped");
        assert_eq!(told.code(), "Storage.Corrupt", "{is_idle}: {told}");
        let left = |of: String| {
            count(&place, &format!("SELECT count(*) FROM executions WHERE {of} <> 'Cancelled'"))
        };
        // A row that grows may move rows of the next pages, so that SQLite may need the damaged page for it.
        let near = 2 * lost.clone().count() as i64;
        let left = [
            left(format!("id < {} AND status", lost.start() - near)),
            left(format!("id >= {} AND status", lost.end() + near)),
        ];
        assert_eq!(left, [0, 0], "{is_idle}: executions on other pages are cancelled");
        assert_eq!(gate.waiting(), 0, "{is_idle}: nothing has started");
    };
    check(true).await;
    check(false).await;
}

/// The invocations on the damaged page cannot fire.
#[tokio::test]
async fn a_boot_gets_past_damaged_invocations_behind_its_first_slice() {
    const WAIT: usize = 1_500;
    let check = async |is_idle: bool| {
        let (place, gate) = (Place::new(), Gate::new());
        let engine = builder(&place, &gate).idle().open().await.expect("it opens");
        register(&engine, "gate", 1).await;
        let instance = InstanceId::from("n-0");
        within(engine.instance_booted(&instance, "a")).await.expect("it is registered");
        let wait = |_| {
            let engine = engine.clone();
            async move {
                let request = RunCommand::shell("x").on(["n-0"]);
                let request = request.repeat_mode(RepeatMode::EveryReboot);
                engine.run_command(request).await.expect("sound");
            }
        };
        at_once(WAIT, wait).await;
        within(engine.shutdown(Duration::ZERO)).await;
        drop(engine);
        let lost = place.damage_leaf("invocations", 80);
        let reopened = builder(&place, &gate).max_concurrent(1);
        let reopened = if is_idle { reopened.idle() } else { reopened };
        let engine = reopened.open().await.expect("it opens");
        within(engine.instance_booted(&instance, "b")).await.expect("the boot is on record");
        let fired = WAIT - lost.count();
        until(|| engine.metrics().executions >= fired as u64).await;
    };
    check(true).await;
    check(false).await;
}

/// The progress of an order cannot be written, and the order cannot be deleted.
#[tokio::test]
async fn callers_that_wait_for_a_stop_that_cannot_go_on_are_told() {
    for is_idle in [false, true] {
        let (place, gate) = (Place::new(), Gate::new());
        let builder = builder(&place, &gate).max_concurrent(1);
        let builder = if is_idle { builder.idle() } else { builder };
        let engine = builder.open().await.expect("it opens");
        register(&engine, "gate", MANY).await;
        let run = engine.run_command(RunCommand::shell("x").on(names(MANY))).await.expect("sound");
        let refuses = |what: &str| {
            format!(
                "CREATE TRIGGER refuses_{what} BEFORE {what} ON stops
                 BEGIN SELECT RAISE(ABORT, 'damaged'); END;"
            )
        };
        damage(&place, &[refuses("UPDATE"), refuses("DELETE")].concat());
        let stop = StopInvocation::new(run.invoke_id);
        let told = within(engine.stop_invocation(stop)).await.expect_err("it cannot go on");
        assert_eq!(told.code(), "Storage.Record", "{is_idle}: {told}");
    }
}

/// The writing thread is held until the engine has heard of all of them.
#[tokio::test]
async fn fires_that_fail_together_are_called_off_in_commits_of_bounded_size() {
    const FIRES: usize = 10;
    const WAIT: usize = 2_500;
    let (place, gate) = (Place::new(), Gate::new());
    let held = gate.clone();
    let breaks = ClosureExecutor::new(move |_, _| {
        let gate = held.clone();
        async move {
            gate.pass().await;
            Err::<(), _>("as told".to_owned())
        }
    });
    let builder = builder(&place, &gate).executor("breaks", breaks);
    let engine = builder.max_concurrent(FIRES).open().await.expect("it opens");
    register(&engine, "breaks", WAIT).await;
    let mut ids = Vec::new();
    for _ in 0..FIRES {
        let request = RunCommand::shell("x").on(names(WAIT)).max_errors(0).max_concurrency(1);
        ids.push(engine.run_command(request).await.expect("sound").invoke_id);
        within(gate.arrivals(1)).await;
    }
    let writer = hold_writer(&engine).await;
    gate.let_go(FIRES);
    until(|| engine.metrics().run_time_us.count >= FIRES as u64).await;
    writer.let_go().await;
    for id in ids {
        let ends = ends(&engine, id).await;
        assert_eq!(ends.get(&ExecutionStatus::Cancelled), Some(&(WAIT - 1)), "{ends:?}");
    }
    assert!(rows_max(&engine) <= ROWS_MAX, "{}", rows_max(&engine));
}

#[tokio::test]
async fn executions_that_cannot_start_end_in_commits_of_bounded_size() {
    let (place, gate) = (Place::new(), Gate::new());
    let idle = builder(&place, &gate).idle().open().await.expect("it opens");
    register(&idle, "gate", MANY).await;
    let run = idle.run_command(RunCommand::shell("x").on(names(MANY))).await.expect("sound");
    within(idle.shutdown(Duration::ZERO)).await;
    drop(idle);
    damage(&place, "UPDATE invocations SET retry = 'x'");
    let engine = builder(&place, &gate).open().await.expect("it opens");
    let ends = ends(&engine, run.invoke_id).await;
    assert_eq!(ends.get(&ExecutionStatus::Aborted), Some(&MANY), "{ends:?}");
    assert_eq!(gate.waiting(), 0, "nothing has started");
    assert!(rows_max(&engine) <= ROWS_MAX / 2 + 512, "{}", rows_max(&engine));
    assert_eq!(count(&place, "SELECT count(*) FROM stops"), 0);
    let info = "SELECT count(*) FROM executions WHERE error_code = 'Storage.Record'
        AND error_info LIKE '%the record of its invocation cannot be read%'";
    assert_eq!(count(&place, info), MANY);
}

/// Very many executions wait for an instance that cannot be read.
#[tokio::test]
async fn executions_that_wait_for_a_damaged_instance_end_in_commits_of_bounded_size() {
    const WAIT: usize = 4_000;
    let (place, gate) = (Place::new(), Gate::new());
    let engine = builder(&place, &gate).max_concurrent(10).open().await.expect("it opens");
    let narrow = Instance::new("narrow").executor("gate").max_concurrency(1);
    engine.register_instance(narrow).await.expect("sound");
    let wait = |_| {
        let engine = engine.clone();
        async move {
            engine.run_command(RunCommand::shell("x").on(["narrow"])).await.expect("sound");
        }
    };
    at_once(WAIT, wait).await;
    within(gate.arrivals(1)).await;
    let marked = "SELECT count(*) FROM executions WHERE awaits_instance IS NOT NULL";
    until(|| count(&place, marked) == WAIT - 1).await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    damage(&place, "UPDATE instances SET time_zone = 'nowhere' WHERE instance_id = 'narrow'");
    let engine = builder(&place, &gate).max_concurrent(10).open().await.expect("it opens");
    until(|| engine.metrics().ended.get(ExecutionStatus::Aborted) == WAIT as u64 - 1).await;
    assert!(rows_max(&engine) <= ROWS_MAX / 2 + 512, "{}", rows_max(&engine));
}

#[tokio::test]
async fn an_instance_that_becomes_this_machine_starts_over_in_commits_of_bounded_size() {
    const WAIT: usize = 6_000;
    let (place, gate) = (Place::new(), Gate::new());
    let engine = builder(&place, &gate).max_concurrent(1).open().await.expect("it opens");
    register(&engine, "gate", 1).await;
    engine.instance_booted(&"n-0".into(), "elsewhere").await.expect("it is registered");
    let wait = |_| {
        let engine = engine.clone();
        async move {
            let request = RunCommand::shell("x").on(["n-0"]).repeat_mode(RepeatMode::EveryReboot);
            engine.run_command(request).await.expect("sound");
        }
    };
    at_once(WAIT, wait).await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let engine = builder(&place, &gate).max_concurrent(1).open().await.expect("it opens");
    engine.register_instance(Instance::new("n-0").executor(LOCAL)).await.expect("sound");
    let known = "SELECT count(*) FROM targets t JOIN instances i ON i.id = t.instance
        WHERE i.instance_id = 'n-0' AND t.boot_id <> 'elsewhere' AND i.is_booting IS NULL";
    until(|| count(&place, known) == WAIT).await;
    assert!(rows_max(&engine) <= ROWS_MAX / 2, "{}", rows_max(&engine));
    assert_eq!(engine.metrics().executions, 0, "it was no boot");
}

//! Ends of executions that come to disk together, late, or not at all.

use std::time::Duration;

use adjutant::{
    ClosureExecutor, DescribeInvocationResults, DescribeInvocations, Engine, ExecutionContext,
    Instance, InvocationStatus, InvokeId, RunCommand, Stream,
};

use crate::recurrence::clock;
use crate::support::{Gate, Place, hold_writer, register, wait, within};

/// Waits until the engine has heard of so many ends.
async fn heard_of(engine: &Engine, ends: u64) {
    let heard = async {
        while engine.metrics().run_time_us.count < ends {
            tokio::task::yield_now().await;
        }
    };
    within(heard).await;
}

async fn run(engine: &Engine, gate: &Gate, request: RunCommand) -> InvokeId {
    let run = engine.run_command(request).await.expect("a sound request");
    within(gate.arrivals(1)).await;
    run.invoke_id
}

/// Instances that run one at a time.
const NARROW: [&str; 2] = ["narrow-1", "narrow-2"];

/// An engine on a file whose instances print a word each and are held then.
async fn printing(place: &Place, gate: &Gate) -> Engine {
    let gate = gate.clone();
    let print = ClosureExecutor::new(move |_, cx: ExecutionContext| {
        let gate = gate.clone();
        async move {
            cx.print(Stream::Stdout, b"word");
            gate.pass().await
        }
    });
    let builder = Engine::builder().path(place.database()).clock(clock()).executor("gate", print);
    let engine = builder.open().await.expect("the file opens");
    register(&engine, "gate", 3).await;
    for name in NARROW {
        let narrow = Instance::new(name).executor("gate").max_concurrency(1);
        engine.register_instance(narrow).await.expect("a sound instance");
    }
    engine
}

/// Has SQLite refuse what is printed by the three that run elsewhere than on `i-3`.
fn spoil(place: &Place) {
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let sql = "INSERT INTO outputs (execution, bytes, runs) SELECT e.id, x'00', x'01'
        FROM executions e JOIN instances i ON i.id = e.instance
        WHERE e.started_at_ms IS NOT NULL AND i.instance_id <> 'i-3'";
    assert_eq!(file.execute(sql, ()).expect("sound SQL"), 3);
}

/// Has the next two executions end, then so many that share a step: the thread that writes is held until the
/// engine has heard of all of them, and the first two fill the steps that are under way at a time.
async fn end_together(engine: &Engine, gate: &Gate, count: usize) {
    let writer = hold_writer(engine).await;
    let mut heard = engine.metrics().run_time_us.count;
    for ends in [1, 1, count] {
        gate.let_go(ends);
        heard += ends as u64;
        heard_of(engine, heard).await;
    }
    writer.let_go().await;
}

#[tokio::test]
async fn an_end_that_cannot_be_recorded_holds_up_nobody() {
    let (place, gate) = (Place::new(), Gate::new());
    let engine = printing(&place, &gate).await;
    let request = |on: &'static str| RunCommand::shell("x").on([on]);
    let mut sound = Vec::new();
    for on in [NARROW[0], NARROW[1], "i-3", "i-3", "i-2"] {
        let invoke_id = run(&engine, &gate, request(on)).await;
        sound.extend((on == "i-3").then_some(invoke_id));
    }
    for behind in NARROW {
        sound.push(engine.run_command(request(behind)).await.expect("sound").invoke_id);
    }
    // Claimed after those have been found to wait for their instances.
    sound.push(run(&engine, &gate, request("i-3")).await);
    spoil(&place);
    // As many steps as are under way at a time.
    for ends in [1, 2] {
        gate.let_go(1);
        heard_of(&engine, ends).await;
    }
    within(gate.arrivals(2)).await;
    // The third that cannot be recorded with a sound one.
    end_together(&engine, &gate, 2).await;
    gate.let_go(2);
    for invoke_id in sound {
        assert_eq!(wait(&engine, &invoke_id).await.status, InvocationStatus::Success);
    }
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let engine = printing(&place, &gate).await;
    let another = run(&engine, &gate, request(NARROW[0])).await;
    gate.let_go(1);
    assert_eq!(wait(&engine, &another).await.status, InvocationStatus::Success);
}

/// Each time that the file was opened its end failed again.
#[tokio::test]
async fn a_wave_ends_though_what_follows_it_cannot_be_read() {
    let (place, gate) = (Place::new(), Gate::new());
    let engine = printing(&place, &gate).await;
    let mut waves = Vec::new();
    for on in [["i-1", "i-2"], ["i-3", NARROW[0]]] {
        waves.push(run(&engine, &gate, RunCommand::shell("x").on(on).waves([1, 1])).await);
    }
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let damage = "UPDATE invocations SET rate_control = 'x' WHERE rate_control IS NOT NULL";
    assert_eq!(file.execute(damage, ()).expect("sound SQL"), 2);
    let is_recorded = async |engine: &Engine, wave: usize| {
        let filter = DescribeInvocationResults::default().invoke_id(waves[wave]);
        let page = engine.describe_invocation_results(filter).await.expect("readable");
        page.invocation.results.iter().any(|result| result.status.is_final())
    };
    gate.let_go(1);
    let recorded = async {
        while !is_recorded(&engine, 0).await {
            tokio::task::yield_now().await;
        }
    };
    within(recorded).await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let engine = printing(&place, &gate).await;
    assert!(is_recorded(&engine, 1).await);
}

#[tokio::test]
async fn invocations_that_end_in_one_commit_have_their_own_times() {
    let (clock, gate) = (clock(), Gate::new());
    let builder = gate.plug_in(Engine::builder().clock(clock.clone()));
    let engine = builder.open().await.expect("an engine in memory");
    register(&engine, "gate", 2).await;
    let request = || RunCommand::shell("x").on(["i-1"]);
    for _ in 0..2 {
        run(&engine, &gate, request()).await;
    }
    let before = run(&engine, &gate, request()).await;
    let two = run(&engine, &gate, RunCommand::shell("x").on(["i-1", "i-2"]).waves([2])).await;
    within(gate.arrivals(1)).await;
    clock.set_realtime("2025-12-31T23:00:00Z".parse().expect("a time"));
    let after = run(&engine, &gate, request()).await;

    end_together(&engine, &gate, 4).await;
    for (invoke_id, end) in [
        (before, "2026-01-01T00:00:00Z"),
        (two, "2026-01-01T00:00:00Z"),
        (after, "2025-12-31T23:00:00Z"),
    ] {
        wait(&engine, &invoke_id).await;
        let filter = DescribeInvocations::default().invoke_id(invoke_id);
        let page = engine.describe_invocations(filter).await.expect("it exists");
        let ended = page.invocations[0].finish_time.map(|time| time.to_rfc3339());
        assert_eq!(ended.as_deref(), Some(&*end.replace('Z', "+00:00")), "{invoke_id}");
    }
}

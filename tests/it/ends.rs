//! Ends of executions that come to disk together, late, or not at all.

use std::sync::mpsc;
use std::time::Duration;

use adjutant::{DescribeInvocations, Engine, Instance, InvocationStatus, InvokeId, RunCommand};

use crate::recurrence::clock;
use crate::support::{Gate, Place, register, wait, within};

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

#[tokio::test]
async fn an_end_that_cannot_be_recorded_holds_up_nobody() {
    let (place, gate) = (Place::new(), Gate::new());
    let builder = gate.plug_in(Engine::builder().path(place.database()).clock(clock()));
    let engine = builder.open().await.expect("a new file");
    register(&engine, "gate", 3).await;
    let narrow = Instance::new("narrow").executor("gate").max_concurrency(1);
    engine.register_instance(narrow).await.expect("a sound instance");
    let request = |on: [&'static str; 2]| RunCommand::shell("x").on(on).waves([1, 1]);
    run(&engine, &gate, request(["narrow", "i-1"])).await;
    run(&engine, &gate, request(["i-2", "i-3"])).await;
    let behind = engine.run_command(RunCommand::shell("x").on(["narrow"])).await.expect("sound");
    // At the end of a wave they are read again.
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let damage = "UPDATE invocations SET rate_control = 'x' WHERE rate_control IS NOT NULL";
    assert_eq!(file.execute(damage, ()).expect("sound SQL"), 2);
    // As many steps as are under way at a time.
    for ends in [1, 2] {
        gate.let_go(1);
        heard_of(&engine, ends).await;
    }
    within(gate.arrivals(1)).await;
    gate.let_go(1);
    assert_eq!(wait(&engine, &behind.invoke_id).await.status, InvocationStatus::Success);
    let another = run(&engine, &gate, RunCommand::shell("x").on(["i-1"])).await;
    gate.let_go(1);
    assert_eq!(wait(&engine, &another).await.status, InvocationStatus::Success);
    within(engine.shutdown(Duration::ZERO)).await;
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

    let (begun, has_begun) = mpsc::channel();
    let (let_go, is_let_go) = mpsc::channel::<()>();
    let writer = engine.clone();
    let writing = tokio::spawn(async move {
        let hold = move |_: &adjutant::HostTransaction<'_>| {
            begun.send(()).expect("the test waits");
            is_let_go.recv().expect("the test lets go");
            Ok(())
        };
        writer.write(hold).await
    });
    tokio::task::spawn_blocking(move || has_begun.recv()).await.expect("no panic").expect("begun");
    // Each of the first two has a step of its own; the others share one.
    for (ends, heard) in [(1, 1), (1, 2), (4, 6)] {
        gate.let_go(ends);
        heard_of(&engine, heard).await;
    }
    let_go.send(()).expect("it is held");
    writing.await.expect("no panic").expect("written");
    for (invoke_id, end) in [
        (before, "2026-01-01T00:00:00Z"),
        (two, "2026-01-01T00:00:00Z"),
        (after, "2025-12-31T23:00:00Z"),
    ] {
        wait(&engine, &invoke_id).await;
        let filter = DescribeInvocations { invoke_id: Some(invoke_id), ..Default::default() };
        let page = engine.describe_invocations(filter).await.expect("it exists");
        let ended = page.invocations[0].finish_time.map(|time| time.to_rfc3339());
        assert_eq!(ended.as_deref(), Some(&*end.replace('Z', "+00:00")), "{invoke_id}");
    }
}

//! Watching: every event in order, from any position, at any pace.

use std::time::Duration;

use adjutant::{
    ClosureExecutor, Engine, Error, Event, ExecutionStatus, InvocationStatus, OutputQuota,
    Position, RunCommand, Stream, Watch,
};

use crate::support::{Gate, Place, engine, register, run, wait, within};

/// The rest of a watch, in short: statuses by name, output by its text.
async fn rest(watch: &mut Watch) -> Vec<String> {
    let mut told = Vec::new();
    while let Some(event) = within(watch.next()).await.expect("readable") {
        told.push(match event {
            Event::Status { instance_id, status, .. } => format!("{instance_id} {status}"),
            Event::Output { instance_id, stream, offset, bytes, .. } => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                format!("{instance_id} {stream:?}@{offset} {text}")
            }
            Event::Gap { instance_id, offset, bytes, .. } => {
                format!("{instance_id} gap@{offset} {bytes}")
            }
            Event::Finished { status } => format!("finished {status}"),
            other => panic!("{other:?}"),
        });
    }
    told
}

const WHOLE: [&str; 7] = [
    "i-1 Pending",
    "i-1 Running",
    "i-1 Stdout@0 one",
    "i-1 Stderr@3 two",
    "i-1 Stdout@6 three",
    "i-1 Failed",
    "finished Failed",
];
const SCRIPT: &str = "out:one err:two out:three exit:4";

#[tokio::test]
async fn events_come_in_order_live_and_afterwards() {
    let engine = engine().await;
    let request = RunCommand::shell(SCRIPT).on(["i-1"]);
    let (run, mut live) = engine.run_command_and_watch(request).await.expect("sound");
    assert_eq!(rest(&mut live).await, WHOLE);
    assert_eq!(within(live.next()).await.expect("readable"), None);
    let mut late = engine.watch(&run.invoke_id).await.expect("it exists");
    assert_eq!(rest(&mut late).await, WHOLE);
}

#[tokio::test]
async fn a_watch_goes_on_where_another_stopped() {
    let engine = engine().await;
    let finished = run(&engine, SCRIPT, &["i-1"]).await;
    let invoke_id = finished.results[0].invoke_id;
    for taken in 0..WHOLE.len() {
        let mut first = engine.watch(&invoke_id).await.expect("it exists");
        for _ in 0..taken {
            within(first.next()).await.expect("readable");
        }
        let text = serde_json::to_string(&first.position()).expect("it serialises");
        let position: Position = serde_json::from_str(&text).expect("it reads back");
        let mut second = engine.watch_from(&invoke_id, position).await.expect("it exists");
        assert_eq!(rest(&mut second).await, WHOLE[taken..], "after {taken}");
    }
}

#[tokio::test]
async fn a_slow_watcher_loses_nothing_and_holds_nobody_up() {
    const BYTES: usize = 3_000_000;
    let printer = ClosureExecutor::new(|_task, cx| async move {
        let mut printed = 0;
        while printed < BYTES {
            let line = format!("{printed:>99}\n");
            let stream = if printed % 300 == 0 { Stream::Stderr } else { Stream::Stdout };
            cx.print(stream, line.as_bytes());
            printed += line.len();
        }
    });
    let builder = Engine::builder().executor("printer", printer);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "printer", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    // Nothing is read before all of it has ended.
    let finished = wait(&engine, &run.invoke_id).await;
    assert_eq!(finished.results[0].dropped, BYTES as u64 - 24_576);
    let mut text = Vec::new();
    while let Some(event) = within(watch.next()).await.expect("readable") {
        match event {
            Event::Output { offset, bytes, .. } => {
                assert_eq!(offset, text.len() as u64);
                text.extend(bytes);
            }
            Event::Gap { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    assert_eq!(text.len(), BYTES);
    for (n, line) in text.chunks(100).enumerate() {
        assert_eq!(line, format!("{:>99}\n", n * 100).as_bytes());
    }
}

#[tokio::test]
async fn what_was_dropped_is_a_gap_of_exact_size() {
    let quota = OutputQuota { head_bytes_max: 4, tail_bytes_max: 3, ..OutputQuota::default() };
    let builder = crate::support::with_executors(Engine::builder()).output_quota(quota);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let finished = run(&engine, "out:0123456789", &["i-1"]).await;
    let result = &finished.results[0];
    assert_eq!(result.output.as_bytes(), b"0123789");
    assert_eq!((result.dropped, result.dropped_at), (3, Some(4)));
    let mut watch = engine.watch(&result.invoke_id).await.expect("it exists");
    let told = rest(&mut watch).await;
    assert_eq!(told[2..5], ["i-1 Stdout@0 0123", "i-1 gap@4 3", "i-1 Stdout@7 789"]);
}

#[tokio::test]
async fn many_instances_are_told_apart() {
    let engine = engine().await;
    let request = RunCommand::shell("out:a out:b").on(["i-1", "i-2", "i-3"]);
    let (_, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    let told = rest(&mut watch).await;
    for instance in ["i-1", "i-2", "i-3"] {
        let mut of_instance = told.iter().filter(|line| line.starts_with(instance));
        let output = of_instance.clone().filter(|line| line.contains("Stdout"));
        let printed: String = output.map(|line| line.rsplit(' ').next().expect("a text")).collect();
        assert_eq!(printed, "ab");
        assert!(of_instance.next_back().expect("some").ends_with("Success"));
    }
    assert_eq!(told.last().map(String::as_str), Some("finished Success"));
}

#[tokio::test]
async fn a_watcher_that_missed_changes_reads_the_records() {
    // More changes than the hub holds for one watcher.
    let gate = Gate::new();
    let limits = {
        let mut limits = adjutant::Limits::alibaba();
        limits.instances_max = 1_000;
        limits
    };
    let builder = gate.plug_in(Engine::builder()).limits(limits).max_concurrent(1_000);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "gate", 700).await;
    let many: Vec<String> = (1..=700).map(|n| format!("i-{n}")).collect();
    let request = RunCommand::shell("x").on(many.iter().map(String::as_str));
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    within(gate.arrivals(700)).await;
    gate.let_go(700);
    wait(&engine, &run.invoke_id).await;
    let told = rest(&mut watch).await;
    assert_eq!(told.len(), 700 * 3 + 1);
    for status in ["Pending", "Running", "Success"] {
        assert_eq!(
            told.iter().filter(|line| line.ends_with(&format!(" {status}"))).count(),
            701 - usize::from(status != "Success")
        );
    }
}

#[tokio::test]
async fn a_reader_of_another_engines_file_sees_the_end() {
    let place = Place::new();
    let gate = Gate::new();
    let owner = gate.plug_in(place.builder()).open().await.expect("the file opens");
    register(&owner, "gate", 1).await;
    let run = owner.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    let reader = Engine::builder().path(place.database()).read_only().open().await;
    let reader = reader.expect("reading is possible");
    let mut watch = reader.watch(&run.invoke_id).await.expect("it exists");
    gate.let_go(1);
    assert_eq!(
        rest(&mut watch).await,
        ["i-1 Pending", "i-1 Running", "i-1 Success", "finished Success"]
    );
    assert_eq!(wait(&reader, &run.invoke_id).await.status, InvocationStatus::Success);
    let refused = reader.run_command(RunCommand::shell("x").on(["i-1"])).await;
    assert_eq!(refused.expect_err("read only").code(), "Storage.ReadOnly");
}

#[tokio::test]
async fn the_end_of_the_engine_ends_a_watch() {
    let engine = engine().await;
    let run = engine.run_command(RunCommand::shell("hang").on(["i-1"])).await.expect("sound");
    let mut watch = engine.watch(&run.invoke_id).await.expect("it exists");
    loop {
        match within(watch.next()).await.expect("readable") {
            Some(Event::Status { status: ExecutionStatus::Running, .. }) => break,
            Some(_) => {}
            None => panic!("the watch ended early"),
        }
    }
    engine.shutdown(Duration::ZERO).await;
    assert_eq!(rest(&mut watch).await, ["i-1 Error", "finished Failed"]);
    wait(&engine, &run.invoke_id).await;
}

#[tokio::test]
async fn dropping_the_engine_ends_a_watch_only_after_what_runs() {
    let gate = Gate::new();
    let engine = gate.plug_in(Engine::builder()).open().await.expect("an engine");
    register(&engine, "gate", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]);
    let (_, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    within(gate.arrivals(1)).await;
    drop(engine);
    gate.let_go(1);
    let told = rest(&mut watch).await;
    assert_eq!(told, ["i-1 Pending", "i-1 Running", "i-1 Success", "finished Success"]);
}

#[tokio::test]
async fn waiting_on_an_engine_that_has_ended_does_not_hang() {
    let builder = crate::support::with_executors(Engine::builder()).idle();
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let run = engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
    engine.shutdown(Duration::ZERO).await;
    let error = within(engine.wait(&run.invoke_id)).await.expect_err("it never ran");
    assert!(matches!(error, Error::ShuttingDown));
    let mut watch = engine.watch(&run.invoke_id).await.expect("it exists");
    assert_eq!(rest(&mut watch).await, ["i-1 Pending"]);
}

#[tokio::test]
async fn a_reader_makes_progress_in_slices() {
    let place = Place::new();
    let owner = place.open().await;
    let finished = crate::support::run(&owner, "exit:0", &["i-1"]).await;
    let gate = Gate::new();
    owner.shutdown(Duration::ZERO).await;
    drop(owner);
    let owner = gate.plug_in(place.builder()).open().await.expect("it opens");
    register(&owner, "gate", 1).await;
    let run = owner.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    let reader = Engine::builder().path(place.database()).read_only().open().await;
    let reader = reader.expect("reading is possible");
    let mut watch = reader.watch(&run.invoke_id).await.expect("it exists");
    gate.let_go(1);
    let mut told = Vec::new();
    within(async {
        // Each slice is shorter than the time between two looks.
        loop {
            let slice = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
            let Ok(event) = slice else { continue };
            match event.expect("readable") {
                Some(event) => told.push(event),
                None => break,
            }
        }
    })
    .await;
    assert_eq!(told.last(), Some(&Event::Finished { status: finished.status }));
}

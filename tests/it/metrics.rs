//! What an engine says of its own work, in figures.

use std::fs;
use std::time::Duration;

use adjutant::{
    Engine, ExecutionStatus, HostTransaction, Metrics, OverlapPolicy, RepeatMode, Retry,
    RunCommand, StopInvocation,
};

use crate::recurrence::{clock, ended, open, pass};
use crate::support::{Gate, Place, engine, register, run, wait, with_executors, within};
use ExecutionStatus::{Cancelled, Error, Failed, Skipped, Success, Terminated};

/// Those that ended, by status, without those of which there are none.
fn ends(metrics: &Metrics) -> Vec<(ExecutionStatus, u64)> {
    let all = ExecutionStatus::ALL.iter().map(|status| (*status, metrics.ended.get(*status)));
    all.filter(|(_, count)| *count > 0).collect()
}

#[tokio::test]
async fn runs_are_counted_by_how_they_end() {
    let check = async |script: &str, on: &[&str], status, called: u64| {
        let engine = engine().await;
        run(&engine, script, on).await;
        let (metrics, count) = (engine.metrics(), on.len() as u64);
        assert_eq!(ends(&metrics), [(status, count)], "{script}");
        assert_eq!((metrics.invocations, metrics.fires_started), (1, 1), "{script}");
        assert_eq!((metrics.executions, metrics.started), (count, count), "{script}");
        assert_eq!((metrics.waiting, metrics.running, metrics.lost), (0, 0, 0), "{script}");
        let timed = [&metrics.queue_time_us, &metrics.start_delay_us, &metrics.run_time_us];
        assert_eq!(timed.map(|times| times.count), [count, called, called], "{script}");
        assert_eq!(metrics.commit_time_us.count, metrics.commits, "{script}");
        assert_eq!(metrics.writes_per_commit.sum, metrics.writes, "{script}");
        assert!(metrics.writes >= 3, "{script}: a request, a claim and an end");
    };
    check("exit:0", &["i-1"], Success, 1).await;
    check("exit:0", &["i-1", "i-2", "i-3"], Success, 3).await;
    check("exit:7", &["i-1", "i-2"], Failed, 2).await;
    check("fail:no", &["i-1"], Error, 1).await;
    check("panic", &["i-1"], Error, 1).await;
}

#[tokio::test]
async fn what_is_refused_or_undone_counts_for_nothing() {
    let engine = engine().await;
    let refused = engine.run_command(RunCommand::shell("exit:0").on(["i-77"])).await;
    refused.expect_err("there is no such instance");
    let request = RunCommand::shell("exit:0").on(["i-1"]);
    let host = |_: &HostTransaction<'_>, _: &_| Err::<(), _>("no".into());
    engine.run_command_with(request.clone(), host).await.expect_err("the host's part fails");
    let dry = request.clone().repeat_mode(RepeatMode::DryRun);
    engine.run_command(dry).await.expect("a sound request");
    let metrics = engine.metrics();
    assert_eq!((metrics.invocations, metrics.executions, metrics.fires_started), (0, 0, 0));
    for _ in 0..2 {
        engine.run_command(request.clone().client_token("once")).await.expect("a sound request");
    }
    assert_eq!(engine.metrics().invocations, 1);
}

#[tokio::test]
async fn what_runs_and_waits_is_told_as_it_stands() {
    let gate = Gate::new();
    let builder = gate.plug_in(Engine::builder()).max_concurrent(2);
    let engine = builder.open().await.expect("an engine in memory");
    register(&engine, "gate", 5).await;
    let on = ["i-1", "i-2", "i-3", "i-4", "i-5"];
    let run = engine.run_command(RunCommand::shell("x").on(on)).await.expect("sound");
    within(gate.arrivals(2)).await;
    let metrics = engine.metrics();
    assert_eq!((metrics.executions, metrics.running, metrics.waiting), (5, 2, 3));
    engine.stop_invocation(StopInvocation::new(run.invoke_id)).await.expect("it runs");
    wait(&engine, &run.invoke_id).await;
    let metrics = engine.metrics();
    assert_eq!(ends(&metrics), [(Cancelled, 3), (Terminated, 2)]);
    assert_eq!((metrics.running, metrics.waiting), (0, 0));
}

#[tokio::test]
async fn another_attempt_waits_until_its_time() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let retry = Retry::attempts(2).backoff(60);
    let request = RunCommand::shell("exit:1").on(["i-1"]).timeout(10).retry(retry);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    loop {
        let event = within(watch.next()).await.expect("readable").expect("it goes on");
        if matches!(event, adjutant::Event::Status { retry_time: Some(_), .. }) {
            break;
        }
    }
    let metrics = engine.metrics();
    assert_eq!((metrics.executions, metrics.running, metrics.waiting), (2, 0, 1));
    pass(&clock, 70).await;
    wait(&engine, &run.invoke_id).await;
    let metrics = engine.metrics();
    assert_eq!((metrics.running, metrics.waiting, ends(&metrics)), (0, 0, vec![(Failed, 2)]));
    assert_eq!(metrics.queue_time_us.count, 1, "of first attempts only");
}

#[tokio::test]
async fn fires_are_counted_by_what_became_of_them() {
    let (clock, gate, place) = (clock(), Gate::new(), Place::new());
    let builder = || gate.plug_in(with_executors(Engine::builder().path(place.database())));
    let engine = open(builder(), &clock).await;
    register(&engine, "gate", 1).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(59).frequency("rate(60s)");
    let request = request.overlap_policy(OverlapPolicy::Skip);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 60).await;
    within(gate.arrivals(1)).await;
    for _ in 0..2 {
        engine.run_now(&id).await.expect("it repeats");
    }
    let metrics = engine.metrics();
    assert_eq!((metrics.fires_started, metrics.fires_skipped, metrics.fires_missed), (1, 2, 0));
    assert_eq!((metrics.executions, ends(&metrics)), (1, vec![(Skipped, 2)]));
    assert_eq!((metrics.fire_lateness_us.count, metrics.fire_lateness_us.max), (1, 0));
    gate.let_go(1);
    ended(&engine, id, 3).await;
    within(engine.shutdown(Duration::from_secs(30))).await;
    drop(engine);
    clock.advance(Duration::from_secs(600));
    let engine = open(builder(), &clock).await;
    within(clock.sleeping(1)).await;
    let metrics = engine.metrics();
    assert_eq!(
        (metrics.fires_missed, metrics.fires_started),
        (9, 1),
        "the last is met a little late"
    );
    assert_eq!(metrics.fire_lateness_us.max, 0, "it is due at this moment");
}

#[tokio::test]
async fn what_the_engine_before_left_is_counted_from_the_records() {
    let (place, copy, gate) = (Place::new(), Place::new(), Gate::new());
    let builder = |place: &Place| gate.plug_in(place.builder()).max_concurrent(1);
    let engine = builder(&place).open().await.expect("the file opens");
    register(&engine, "gate", 3).await;
    let request = RunCommand::shell("x").on(["i-1", "i-2", "i-3"]);
    engine.run_command(request).await.expect("sound");
    within(gate.arrivals(1)).await;
    // What is on disk at this moment is what the loss of the process would leave.
    for suffix in ["", "-wal"] {
        let name = format!("adjutant.db{suffix}");
        fs::copy(place.folder().join(&name), copy.folder().join(&name)).expect("copied");
    }
    let after = builder(&copy).idle().open().await.expect("the copy opens");
    let metrics = after.metrics();
    assert_eq!((metrics.lost, ends(&metrics)), (1, vec![(Error, 1)]));
    assert_eq!((metrics.executions, metrics.running, metrics.waiting), (0, 0, 2));
    let reader = Engine::builder().path(copy.database()).read_only().open().await.expect("opens");
    assert_eq!((reader.metrics().waiting, reader.metrics().commits), (0, 0));
    gate.let_go(3);
}

#[tokio::test]
async fn figures_are_json_with_each_final_status() {
    let engine = engine().await;
    run(&engine, "exit:0", &["i-1"]).await;
    let told = serde_json::to_value(engine.metrics()).expect("JSON");
    assert_eq!(told["Invocations"], 1);
    assert_eq!(told["Ended"].as_object().expect("an object").len(), 9);
    assert_eq!(told["Ended"]["Success"], 1);
    assert_eq!(told["RunTimeUs"]["Count"], 1);
}

#[tokio::test]
async fn an_overview_shows_what_runs_what_ended_and_what_is_due() {
    let gate = Gate::new();
    let builder = gate.plug_in(with_executors(Engine::builder())).max_concurrent(2);
    let engine = builder.open().await.expect("an engine in memory");
    let nothing = engine.overview(10).await.expect("readable");
    assert_eq!((nothing.unended, nothing.running.len(), nothing.ended.len()), (0, 0, 0));
    register(&engine, "script", 3).await;
    for script in ["exit:0", "exit:1"] {
        run(&engine, script, &["i-1", "i-2", "i-3"]).await;
    }
    for (name, seconds) in [("later", 7_200), ("sooner", 3_600)] {
        let request = RunCommand::shell("exit:0").name(name).on(["i-1"]);
        let request = request.frequency(format!("rate({seconds}s)"));
        engine.run_command(request).await.expect("sound");
    }
    register(&engine, "gate", 3).await;
    let request = RunCommand::shell("x").name("held").on(["i-1", "i-2", "i-3"]);
    let held = engine.run_command(request).await.expect("sound");
    within(gate.arrivals(2)).await;
    let seen = engine.overview(4).await.expect("readable");
    assert_eq!((seen.unended, seen.more_unended), (3, false));
    let running: Vec<_> = seen.running.iter().map(|one| one.instance_id.as_str()).collect();
    assert_eq!(running, ["i-1", "i-2"]);
    assert!(
        seen.running.iter().all(|one| one.invoke_id == held.invoke_id && one.command == "held")
    );
    let ended: Vec<_> = seen.ended.iter().map(|one| one.status).collect();
    assert_eq!(ended, [Failed, Failed, Failed, Success]);
    let due: Vec<_> = seen.due.iter().map(|one| one.command.as_str()).collect();
    assert_eq!(due, ["sooner", "later"]);
    // What has no name is told by its script.
    assert_eq!(seen.ended[0].command, "exit:1");
    gate.let_go(3);
}

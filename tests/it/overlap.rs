//! What a fire does where the execution before it has not ended: each policy, for each origin.

use adjutant::{
    Engine, EngineBuilder, ExecutionContext, ExecutionStatus, Executor, FireDisposition,
    InvocationStatus, InvokeId, MissedPolicy, Outcome, OverlapPolicy, RunCommand, StopInvocation,
    Task,
};
use std::time::Duration;

use crate::recurrence::{clock, ended, fires, open, pass, status};
use crate::support::{Gate, Place, register, wait, within};
use ExecutionStatus::{Cancelled, Running, Scheduled, Skipped, Stopping, Success, Terminated};

/// A schedule that fires each minute on `i-1`, where each run stays until it is let go.
async fn each_minute(
    gate: &Gate,
    policy: OverlapPolicy,
) -> (adjutant::ManualClock, Engine, InvokeId) {
    each_minute_in(gate.plug_in(Engine::builder()), gate, policy).await
}

/// Starts a schedule of one fire a minute in an engine that has the executor `gate`.
async fn each_minute_in(
    builder: EngineBuilder,
    gate: &Gate,
    policy: OverlapPolicy,
) -> (adjutant::ManualClock, Engine, InvokeId) {
    let clock = clock();
    let engine = open(builder, &clock).await;
    register(&engine, "gate", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]).timeout(59).frequency("rate(60s)");
    let run = engine.run_command(request.overlap_policy(policy)).await.expect("sound");
    pass(&clock, 60).await;
    within(gate.arrivals(1)).await;
    (clock, engine, run.invoke_id)
}

/// Fires once more while nothing of the time that runs have has passed.
async fn fire_again(engine: &Engine, id: InvokeId) -> (FireDisposition, String) {
    let fire = engine.run_now(&id).await.expect("it repeats");
    (fire.disposition, fire.reason)
}

/// How the executions stand, oldest first.
async fn standing(engine: &Engine, invoke_id: InvokeId) -> Vec<ExecutionStatus> {
    let request = adjutant::DescribeInvocationResults::default()
        .invoke_id(invoke_id)
        .include_history()
        .max_results(50);
    let page = engine.describe_invocation_results(request).await.expect("it exists");
    page.invocation.results.iter().rev().map(|result| result.status).collect()
}

#[tokio::test]
async fn one_waits_in_the_queue_and_starts_when_the_one_before_has_ended() {
    let gate = Gate::new();
    let (_clock, engine, id) = each_minute(&gate, OverlapPolicy::Queue).await;
    assert_eq!(fire_again(&engine, id).await.0, FireDisposition::Started);
    let (disposition, reason) = fire_again(&engine, id).await;
    assert_eq!(disposition, FireDisposition::Skipped);
    assert_eq!(reason, "another execution was waiting already");
    assert_eq!(standing(&engine, id).await, [Running, Scheduled, Skipped]);
    assert_eq!(status(&engine, id).await, InvocationStatus::Running);
    assert_eq!(gate.waiting(), 0);
    gate.let_go(1);
    within(gate.arrivals(1)).await;
    assert_eq!(standing(&engine, id).await, [Success, Running, Skipped]);
    assert_eq!(status(&engine, id).await, InvocationStatus::Running);
    gate.let_go(1);
    assert_eq!(ended(&engine, id, 3).await, [Success, Success, Skipped]);
}

/// An executor that ends when the gate lets it go and not before, even if it is asked to stop.
struct Reluctant(Gate);

impl Executor for Reluctant {
    async fn execute(&self, _task: Task, cx: ExecutionContext) -> Outcome {
        self.0.pass().await;
        tokio::select! {
            biased;
            _ = cx.stop_asked() => {
                Outcome::Stopped { signal: None, exit_code: None, info: String::new() }
            }
            () = std::future::ready(()) => Outcome::Exited(0),
        }
    }
}

#[tokio::test]
async fn a_replaced_run_is_stopped_before_the_new_one_starts() {
    let gate = Gate::new();
    let builder = Engine::builder().executor("gate", Reluctant(gate.clone()));
    let (_clock, engine, id) = each_minute_in(builder, &gate, OverlapPolicy::Replace).await;
    assert_eq!(fire_again(&engine, id).await.0, FireDisposition::Started);
    assert_eq!(fire_again(&engine, id).await.0, FireDisposition::Started);
    assert_eq!(standing(&engine, id).await, [Stopping, Cancelled, Scheduled]);
    assert_eq!(gate.waiting(), 0, "the run before it has not ended");
    gate.let_go(1);
    within(gate.arrivals(1)).await;
    assert_eq!(standing(&engine, id).await, [Terminated, Cancelled, Running]);
    gate.let_go(1);
    assert_eq!(ended(&engine, id, 3).await, [Terminated, Cancelled, Success]);
}

#[tokio::test]
async fn what_waits_in_the_queue_outlives_its_engine() {
    let (clock, place, gate) = (clock(), Place::new(), Gate::new());
    let builder = || gate.plug_in(Engine::builder().path(place.database())).clock(clock.clone());
    let engine = builder().open().await.expect("it opens");
    register(&engine, "gate", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]).timeout(59).frequency("rate(60s)");
    let run = engine.run_command(request.overlap_policy(OverlapPolicy::Queue));
    let id = run.await.expect("sound").invoke_id;
    pass(&clock, 60).await;
    within(gate.arrivals(1)).await;
    fire_again(&engine, id).await;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    assert_eq!(gate.waiting(), 0, "nothing starts once the engine shuts down");
    let engine = builder().open().await.expect("it opens");
    within(gate.arrivals(1)).await;
    gate.let_go(1);
    let statuses = ended(&engine, id, 2).await;
    assert_eq!(statuses, [ExecutionStatus::Error, Success]);
}

#[tokio::test]
async fn a_stop_takes_what_waits_with_it() {
    let gate = Gate::new();
    let (_clock, engine, id) = each_minute(&gate, OverlapPolicy::Queue).await;
    fire_again(&engine, id).await;
    engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
    let finished = wait(&engine, &id).await;
    assert_eq!(finished.results[0].status, Cancelled);
    assert_eq!(gate.waiting(), 0);
    let error = engine.run_now(&id).await.expect_err("it has ended");
    assert_eq!(error.code(), "InvalidStatus.InvocationEnded");
}

#[tokio::test]
async fn missed_fires_that_are_run_wait_for_one_another() {
    let (clock, place, gate) = (clock(), Place::new(), Gate::new());
    let builder = || gate.plug_in(Engine::builder().path(place.database())).clock(clock.clone());
    let engine = builder().open().await.expect("it opens");
    register(&engine, "gate", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let run = engine.run_command(request.missed_policy(MissedPolicy::All(3)));
    let id = run.await.expect("sound").invoke_id;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    clock.advance(Duration::from_secs(570));
    let engine = builder().open().await.expect("it opens");
    within(gate.arrivals(1)).await;
    assert_eq!(standing(&engine, id).await, [Running, Scheduled, Scheduled]);
    assert_eq!(
        fires(&engine, id).await,
        ["00:01:00..00:06:00 x6 missed", "00:07:00", "00:08:00", "00:09:00"]
    );
    for _ in 0..2 {
        gate.let_go(1);
        within(gate.arrivals(1)).await;
        assert_eq!(gate.waiting(), 0);
    }
    gate.let_go(1);
    assert_eq!(ended(&engine, id, 3).await, [Success; 3]);
}

#[tokio::test]
async fn a_skipped_fire_does_not_hide_how_the_run_it_yielded_to_ended() {
    let gate = Gate::new();
    let (_clock, engine, id) = each_minute(&gate, OverlapPolicy::Skip).await;
    fire_again(&engine, id).await;
    assert_eq!(standing(&engine, id).await, [Running, Skipped]);
    assert_eq!(status(&engine, id).await, InvocationStatus::Running);
    engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Stopped);
}

#[tokio::test]
async fn only_what_repeats_can_be_fired_again() {
    let engine = crate::support::engine().await;
    let once = engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
    let error = engine.run_now(&once.invoke_id).await.expect_err("it runs once");
    assert_eq!((error.code(), error.http_status()), ("InvalidStatus.NotRepeating", 403));
    let unknown = format!("t-{}", "0".repeat(32)).parse().expect("an id");
    let error = engine.run_now(&unknown).await.expect_err("unknown");
    assert_eq!(error.code(), "InvalidInvokeId.NotFound");
}

#[tokio::test]
async fn late_runs_wait_for_one_another_however_many_there_are() {
    // One more than fires in one commit.
    let count = 1_025;
    let (clock, place) = (clock(), Place::new());
    let builder = || {
        let builder = crate::support::with_executors(Engine::builder().path(place.database()));
        builder.clock(clock.clone()).durability(adjutant::Durability::Relaxed)
    };
    let engine = builder().open().await.expect("it opens");
    register(&engine, "script", 1).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let request = request.missed_policy(MissedPolicy::All(count)).max_fires(count.into());
    let replacing = request.clone().overlap_policy(OverlapPolicy::Replace);
    let mut ids = Vec::new();
    for request in [request, replacing] {
        ids.push(engine.run_command(request).await.expect("sound").invoke_id);
    }
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    clock.advance(Duration::from_secs(60 * u64::from(count) + 5));
    let engine = builder().open().await.expect("it opens");
    for id in ids {
        assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success);
        let other = adjutant::DescribeInvocationResults::default()
            .invoke_id(id)
            .include_history()
            .max_results(50);
        for status in [Skipped, Cancelled, Terminated] {
            let filter = other.clone().status(status);
            let page = engine.describe_invocation_results(filter).await.expect("a page");
            assert_eq!(page.invocation.results.len(), 0, "{status}");
        }
    }
}

//! Reads of invocations with a long history: pages that go on while the history grows, watchers that get the news,
//! and many reads at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adjutant::{
    ClosureExecutor, DescribeInvocationResults, Engine, EngineBuilder, Event, ExecutionStatus,
    InvocationResult, InvokeId, ManualClock, Outcome, OverlapPolicy, Position, Retry, RunCommand,
    StopInvocation, Watch,
};
use serde_json::{Value, json};

use crate::support::{Gate, Place, engine, register, run, wait, within};

/// Returns a page of two of the latest executions of an invocation, or of all invocations, and the token of the
/// next page.
async fn page(
    engine: &Engine,
    invoke_id: Option<InvokeId>,
    next_token: &str,
) -> (Vec<InvocationResult>, String) {
    let mut request = DescribeInvocationResults::default().max_results(2).next_token(next_token);
    request.invoke_id = invoke_id;
    let page = engine.describe_invocation_results(request).await.expect("a page").invocation;
    assert!(page.unreadable.is_empty(), "{:?}", page.unreadable);
    (page.results, page.next_token)
}

/// Fires an invocation on all of its instances, and waits until the executions have ended.
async fn fire(engine: &Engine, invoke_id: &InvokeId, feed: &mut Watch, instances: usize) {
    engine.run_now(invoke_id).await.expect("it repeats");
    let mut ended = 0;
    while ended < instances {
        let event = within(feed.next()).await.expect("readable").expect("it goes on");
        ended += usize::from(matches!(&event, Event::Status { status, .. } if status.is_final()));
    }
}

#[tokio::test]
async fn pages_name_each_instance_once_though_others_fire_in_between() {
    let check = async |by_invocation: bool| {
        let engine = engine().await;
        register(&engine, "script", 5).await;
        let names = ["i-1", "i-2", "i-3", "i-4", "i-5"];
        let request = RunCommand::shell("exit:0").on(names).frequency("rate(1d)");
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        let mut watch = engine.watch(&id).await.expect("it exists");
        fire(&engine, &id, &mut watch, names.len()).await;
        let of = by_invocation.then_some(id);
        let (mut told, mut token) = page(&engine, of, "").await;
        while !token.is_empty() {
            fire(&engine, &id, &mut watch, names.len()).await;
            let (results, next) = page(&engine, of, &token).await;
            told.extend(results);
            token = next;
        }
        let ids: Vec<u64> = told
            .iter()
            .map(|one| one.execution_id.to_string().parse().expect("a number"))
            .collect();
        assert_eq!(ids, [5, 4, 3, 2, 1], "{by_invocation}: those of the first page's time");
        let mut on: Vec<String> = told.iter().map(|one| one.instance_id.to_string()).collect();
        on.sort();
        assert_eq!(on, names, "{by_invocation}");
        let (first, _) = page(&engine, of, "").await;
        assert_eq!(first[0].repeats, 3, "{by_invocation}: a new listing begins with what is new");
    };
    check(true).await;
    check(false).await;
}

#[tokio::test]
async fn pages_name_each_instance_once_though_others_are_tried_again_in_between() {
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"));
    let builder = crate::support::with_executors(Engine::builder()).clock(clock.clone());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 5).await;
    let retry = Retry::attempts(2).backoff(1);
    let request = RunCommand::shell("exit:1").on(["i-1", "i-2", "i-3", "i-4", "i-5"]).retry(retry);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    let mut scheduled = 0;
    while scheduled < 5 {
        let event = within(watch.next()).await.expect("readable").expect("it goes on");
        let is_retry = matches!(&event, Event::Status { retry_time: Some(_), .. });
        scheduled += usize::from(is_retry);
    }
    // The second attempts exist by now. A listing that began before them shows the first attempts.
    let before = format!("{:x}.{:x}", i64::MAX, 5);
    let (mut told, mut token) = page(&engine, Some(run.invoke_id), &before).await;
    while !token.is_empty() {
        let (results, next) = page(&engine, Some(run.invoke_id), &token).await;
        told.extend(results);
        token = next;
    }
    let mut attempts: Vec<_> =
        told.iter().map(|one| (one.instance_id.to_string(), one.attempt)).collect();
    attempts.sort();
    let wanted = ["i-1", "i-2", "i-3", "i-4", "i-5"].map(|name| (name.to_owned(), 1));
    assert_eq!(attempts, wanted);
    engine.stop_invocation(StopInvocation::new(run.invoke_id)).await.expect("it goes on");
}

/// An executor whose first task waits to be let go, and all others end at once.
fn first_waits(builder: EngineBuilder, gate: &Gate) -> EngineBuilder {
    let (gate, is_first) = (gate.clone(), Arc::new(AtomicBool::new(true)));
    builder.executor(
        "first-waits",
        ClosureExecutor::new(move |_task, _cx| {
            let (gate, waits) = (gate.clone(), is_first.swap(false, Ordering::SeqCst));
            async move {
                if waits {
                    gate.pass().await;
                }
            }
        }),
    )
}

#[tokio::test]
async fn a_watch_tells_news_once_and_remembers_only_executions_that_go_on() {
    const FIRES: usize = 300;
    let gate = Gate::new();
    let engine = first_waits(Engine::builder(), &gate).open().await.expect("an engine");
    register(&engine, "first-waits", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]).frequency("rate(1d)");
    let request = request.overlap_policy(OverlapPolicy::Allow);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.run_now(&id).await.expect("it repeats");
    within(gate.arrivals(1)).await;
    let mut watch = engine.watch(&id).await.expect("it exists");
    let mut early = engine.watch(&id).await.expect("it exists");
    for _ in 0..FIRES {
        fire(&engine, &id, &mut early, 1).await;
    }
    // This watch begins to read only now.
    let mut told = Vec::new();
    while told.len() < 5 {
        told.push(within(watch.next()).await.expect("readable").expect("it goes on"));
    }
    let of = |event: &Event| match event {
        Event::Status { execution_id, status, .. } => format!("{execution_id} {status}"),
        other => panic!("{other:?}"),
    };
    let newest = FIRES + 1;
    let wanted = [
        "1 Pending".to_owned(),
        format!("{newest} Pending"),
        "1 Running".to_owned(),
        format!("{newest} Running"),
        format!("{newest} Success"),
    ];
    assert_eq!(told.iter().map(of).collect::<Vec<_>>(), wanted);
    for (n, watch) in [&mut watch, &mut early].into_iter().enumerate() {
        engine.run_now(&id).await.expect("it repeats");
        let end = format!("{} Success", newest + 1 + n);
        let mut told = Vec::new();
        while told.last() != Some(&end) {
            told.push(of(&within(watch.next()).await.expect("readable").expect("it goes on")));
        }
        // The second watch hears of both fires.
        assert_eq!(told.len(), 3 * (n + 1), "{told:?}");
        let position = serde_json::to_value(watch.position()).expect("a position is JSON");
        let open: Vec<_> = position["Executions"].as_object().expect("a map").keys().collect();
        assert_eq!(open, ["1"], "{position}");
    }
    // A watch that goes on from a position gets the same events.
    let position = early.position();
    let mut again = engine.watch_from(&id, position).await.expect("it exists");
    engine.stop_invocation(StopInvocation::new(id)).await.expect("it goes on");
    gate.let_go(1);
    let mut told = Vec::new();
    while let Some(event) = within(again.next()).await.expect("readable") {
        told.push(event);
    }
    assert!(matches!(told.last(), Some(Event::Finished { .. })), "{told:?}");
    assert!(told.len() <= 3, "the end of the first, and of the whole: {told:?}");
}

#[tokio::test]
async fn a_position_from_elsewhere_may_say_anything() {
    let engine = engine().await;
    let finished = run(&engine, "out:one exit:0", &["i-1", "i-2"]).await;
    let other = run(&engine, "out:other exit:0", &["i-3"]).await;
    let id = finished.results[0].invoke_id;
    let check = async |position: Value, events: usize| {
        let shown = position.to_string();
        let position: Position = serde_json::from_value(position).expect("a position");
        let mut watch = engine.watch_from(&id, position).await.expect("it exists");
        let mut told = Vec::new();
        while let Some(event) = within(watch.next()).await.expect("readable") {
            told.push(event);
            let _ = serde_json::to_string(&watch.position()).expect("a position is JSON");
        }
        assert!(matches!(told.last(), Some(Event::Finished { .. })), "{shown}: {told:?}");
        assert_eq!(told.len(), events, "{shown}: {told:?}");
    };
    let (max, min) = (i64::MAX, i64::MIN);
    let ended = json!({"Status": "Success", "Offset": 0});
    let far = json!({"Status": "Running", "Offset": u64::MAX});
    check(json!({}), 9).await;
    check(json!({"Executions": {max.to_string(): ended}}), 9).await;
    check(json!({"Executions": {min.to_string(): ended}}), 9).await;
    check(json!({"Until": max}), 1).await;
    check(json!({"Until": max, "Executions": {max.to_string(): far}}), 1).await;
    check(json!({"Until": min}), 9).await;
    check(json!({"Until": 0, "Executions": {"1": ended}}), 5).await;
    check(json!({"Until": 2, "Executions": {"1": far, "2": ended}}), 2).await;
    check(
        json!({"Until": 2, "Executions": {"3": ended, "1": {"Status": "Running", "Offset": 1}}}),
        3,
    )
    .await;
    assert_eq!(other.results[0].execution_id.to_string(), "3");
}

#[tokio::test]
async fn tokens_and_numbers_of_pages_may_be_anything() {
    let engine = engine().await;
    let finished = run(&engine, "exit:0", &["i-1", "i-2"]).await;
    let id = Some(finished.results[0].invoke_id);
    let check = async |token: &str, entries: Option<usize>| {
        for (invoke_id, include_history) in [(None, false), (id, false)] {
            let mut request =
                DescribeInvocationResults::default().max_results(50).next_token(token);
            request.invoke_id = invoke_id;
            request.include_history = include_history;
            let found = engine.describe_invocation_results(request).await;
            let found = found.map(|page| page.invocation.results.len());
            assert_eq!(found.as_ref().ok(), entries.as_ref(), "{token}: {found:?}");
        }
    };
    check("7fffffffffffffff", Some(2)).await;
    check("-8000000000000000", Some(0)).await;
    check("7fffffffffffffff.7fffffffffffffff", Some(2)).await;
    check("7fffffffffffffff.-8000000000000000", Some(0)).await;
    check("2.1", Some(1)).await;
    check("8000000000000000", None).await;
    check("1.", None).await;
    check(".1", None).await;
    check("1.2.3", None).await;
    for page_number in [1, usize::MAX] {
        let request = DescribeInvocationResults::default().page_number(page_number);
        let page = engine.describe_invocation_results(request).await.expect("a page").invocation;
        assert_eq!(page.results.len(), if page_number == 1 { 2 } else { 0 });
        assert_eq!(page.total_count, Some(2));
    }
}

/// As many calls as a busy dashboard makes at a time, in a host whose blocking threads are all taken.
#[test]
fn reads_wait_for_their_turn_and_take_no_thread_of_the_host() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let place = Place::new();
        let engine = place.open().await;
        let finished = run(&engine, "exit:0", &["i-1"]).await;
        let id = finished.results[0].invoke_id;
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let blocks = tokio::task::spawn_blocking(move || held.recv());
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..600 {
            let engine = engine.clone();
            calls.spawn(async move {
                engine.describe_cloud_assistant_status(Default::default()).await.map(drop)
            });
        }
        let waited = within(engine.wait_status(&id)).await.expect("it has ended");
        assert_eq!(waited, finished.status);
        while let Some(called) = within(calls.join_next()).await {
            called.expect("no panic").expect("it had only to wait");
        }
        drop(let_go);
        blocks.await.expect("no panic").expect_err("nobody has sent anything");
    });
}

#[tokio::test]
async fn the_status_of_an_invocation_goes_by_its_latest_execution_on_each_instance() {
    let gate = Gate::new();
    let builder = Engine::builder().executor("gate", {
        let gate = gate.clone();
        ClosureExecutor::new(move |_task, cx| {
            let gate = gate.clone();
            async move {
                tokio::select! {
                    () = gate.pass() => Outcome::Exited(0),
                    _ = cx.stop_asked() => {
                        Outcome::Stopped { signal: None, exit_code: None, info: String::new() }
                    }
                }
            }
        })
    });
    let engine = builder.open().await.expect("an engine");
    register(&engine, "gate", 2).await;
    let check = async |policy: OverlapPolicy, then: &[(ExecutionStatus, u64)]| {
        let request = RunCommand::shell("x").on(["i-1", "i-2"]).frequency("rate(1d)");
        let id = engine.run_command(request.overlap_policy(policy)).await.expect("sound").invoke_id;
        engine.run_now(&id).await.expect("it repeats");
        within(gate.arrivals(2)).await;
        for _ in 0..2 {
            engine.run_now(&id).await.expect("it repeats");
        }
        let results = async || {
            let request = DescribeInvocationResults::default().invoke_id(id);
            let page = engine.describe_invocation_results(request).await.expect("a page");
            let results = page.invocation.results.into_iter();
            results.map(|one| (one.status, one.repeats)).collect::<Vec<_>>()
        };
        assert_eq!(results().await, then, "{policy:?}");
        let describe = adjutant::DescribeInvocations::default().invoke_id(id);
        let page = engine.describe_invocations(describe).await.expect("a page");
        let stands: Vec<_> =
            page.invocations[0].invoke_instances.iter().map(|on| on.repeats).collect();
        assert_eq!(stands, [3, 3], "{policy:?}");
        assert_eq!(page.invocations[0].status.to_string(), "Running", "{policy:?}");
        engine.stop_invocation(StopInvocation::new(id)).await.expect("it goes on");
        let finished = wait(&engine, &id).await;
        assert_eq!(finished.results.len(), 2, "{policy:?}");
        assert_eq!(finished.status.to_string(), "Stopped", "{policy:?}");
    };
    use ExecutionStatus::Skipped;
    check(OverlapPolicy::Skip, &[(Skipped, 3), (Skipped, 3)]).await;
    check(OverlapPolicy::Queue, &[(Skipped, 3), (Skipped, 3)]).await;
    engine.shutdown(Duration::ZERO).await;
}

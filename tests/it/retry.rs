//! Trying again: which ends lead to another attempt, when it starts, and what keeps it from starting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use adjutant::{
    Clock, ClosureExecutor, DescribeInvocationResults, DescribeInvocations, Engine, EngineBuilder,
    Event, ExecutionStatus, FireDisposition, Instance, InvocationResult, InvocationStatus,
    InvokeId, ManualClock, Notice, Outcome, OverlapPolicy, Retry, RetryOn, RunCommand,
    StopInvocation, Watch,
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::recurrence::{clock, open, pass, status};
use crate::support::{Gate, Place, ask, everything, register, wait, within};
use ExecutionStatus::{
    Aborted, Cancelled, Error, Failed, Invalid, Running, Scheduled, Skipped, Success, Terminated,
    Timeout,
};

/// Every execution of an invocation, oldest first.
async fn history(engine: &Engine, invoke_id: InvokeId) -> Vec<InvocationResult> {
    let mut request =
        DescribeInvocationResults::default().invoke_id(invoke_id).include_history().max_results(50);
    let mut all = Vec::new();
    loop {
        let page = engine.describe_invocation_results(request.clone()).await.expect("it exists");
        all.extend(page.invocation.results);
        if page.invocation.next_token.is_empty() {
            all.reverse();
            return all;
        }
        request.next_token = Some(page.invocation.next_token);
    }
}

/// The attempts and how they stand, oldest first.
async fn attempts(engine: &Engine, invoke_id: InvokeId) -> Vec<(u32, ExecutionStatus)> {
    let history = history(engine, invoke_id).await;
    history.iter().map(|result| (result.attempt, result.status)).collect()
}

/// Waits until another attempt waits for its time; that time.
async fn retry_time(watch: &mut Watch) -> DateTime<Utc> {
    loop {
        match within(watch.next()).await.expect("readable").expect("it goes on") {
            Event::Status { status, retry_time: Some(at), .. } => {
                assert_eq!(status, Scheduled);
                return at;
            }
            Event::Finished { status } => panic!("it ended {status}"),
            _ => {}
        }
    }
}

/// Runs a script of the executor `script` on `i-1` and goes on while it is tried again; the seconds
/// between the attempts, and how they ended.
async fn series(script: &str, retry: Retry) -> (Vec<f64>, Vec<ExecutionStatus>) {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell(script).on(["i-1"]).timeout(10).retry(retry);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    let mut waits = Vec::new();
    loop {
        match within(watch.next()).await.expect("readable").expect("it ends") {
            Event::Status { retry_time: Some(at), .. } => {
                let wait = at - clock.realtime();
                waits.push(wait.num_milliseconds() as f64 / 1_000.0);
                let almost = (wait - chrono::TimeDelta::milliseconds(1)).to_std();
                if let Ok(almost) = almost.map(|almost| almost.max(Duration::from_millis(1))) {
                    clock.advance(almost);
                    within(clock.sleeping(1)).await;
                    let last = *attempts(&engine, run.invoke_id).await.last().expect("one");
                    assert_eq!(last, (waits.len() as u32 + 1, Scheduled), "it starts too early");
                    clock.advance(Duration::from_millis(1));
                }
            }
            Event::Status { status: Running, .. } if script == "hang" => {
                // The scheduler and the timeout.
                within(clock.sleeping(2)).await;
                clock.advance(Duration::from_secs(10));
            }
            Event::Finished { .. } => break,
            _ => {}
        }
    }
    let attempts = attempts(&engine, run.invoke_id).await;
    let numbers: Vec<_> = attempts.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(numbers, (1..=attempts.len() as u32).collect::<Vec<_>>());
    (waits, attempts.into_iter().map(|(_, status)| status).collect())
}

#[tokio::test]
async fn each_wait_is_as_long_as_it_is_said() {
    let check = async |retry: Retry, want: &[f64]| {
        let shown = format!("{retry:?}");
        let (waits, ends) = series("exit:1", retry).await;
        assert_eq!(waits, want, "{shown}");
        assert_eq!(ends, vec![Failed; want.len() + 1], "{shown}");
    };
    check(Retry::attempts(1), &[]).await;
    check(Retry::attempts(4), &[1.0, 2.0, 4.0]).await;
    check(Retry::attempts(5).backoff(5).max_backoff(12), &[5.0, 10.0, 12.0, 12.0]).await;
    check(Retry::attempts(4).backoff(3).backoff_factor(1.5), &[3.0, 4.5, 6.75]).await;
    // At once: a watcher may find that it has begun before it hears that it waits.
    assert_eq!(series("exit:1", Retry::attempts(3).backoff(0)).await.1, [Failed; 3]);
}

#[tokio::test]
async fn what_is_named_is_tried_again_and_nothing_else() {
    let check = async |script: &str, on: &[RetryOn], want: &[ExecutionStatus]| {
        let retry = Retry::attempts(2).on(on.iter().copied());
        assert_eq!(series(script, retry).await.1, want, "{script} {on:?}");
    };
    use RetryOn as On;
    let all = [On::Failed, On::Timeout, On::Error, On::Aborted, On::Interrupted];
    check("exit:0", &all, &[Success]).await;
    check("exit:3", &[On::Failed], &[Failed; 2]).await;
    check("exit:3", &[On::Timeout, On::Error, On::Aborted, On::Interrupted], &[Failed]).await;
    check("fail:broken", &[On::Error], &[Error; 2]).await;
    check("panic", &[On::Error], &[Error; 2]).await;
    check("fail:broken", &[On::Failed, On::Interrupted], &[Error]).await;
    check("hang", &[On::Timeout], &[Timeout; 2]).await;
    check("hang", &[On::Failed, On::Error], &[Timeout]).await;
}

/// An executor `flaky` that says how each attempt ends, and counts them.
fn flaky(
    builder: EngineBuilder,
    outcome: impl Fn(u32) -> Outcome + Send + Sync + 'static,
) -> (EngineBuilder, Arc<AtomicU32>) {
    let calls = Arc::new(AtomicU32::new(0));
    let (counted, outcome) = (Arc::clone(&calls), Arc::new(outcome));
    let executor = ClosureExecutor::new(move |task, _cx| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(outcome(task.attempt))
    });
    (builder.executor("flaky", executor), calls)
}

#[tokio::test]
async fn what_could_not_be_delivered_may_be_tried_again_and_what_does_not_suit_is_not() {
    let check = async |outcome: Outcome, want: &[ExecutionStatus]| {
        let clock = clock();
        let told = outcome.clone();
        let (builder, _) = flaky(Engine::builder(), move |_| told.clone());
        let engine = open(builder, &clock).await;
        register(&engine, "flaky", 1).await;
        let request = RunCommand::shell("x").on(["i-1"]).retry(Retry::attempts(2).backoff(0));
        let run = engine.run_command(request).await.expect("sound");
        wait(&engine, &run.invoke_id).await;
        let attempts = attempts(&engine, run.invoke_id).await;
        let ends: Vec<_> = attempts.into_iter().map(|(_, status)| status).collect();
        assert_eq!(ends, want, "{outcome:?}");
    };
    let info = || "no".to_owned();
    let code = "ClientNotResponse";
    check(Outcome::Undeliverable { code, info: info() }, &[Aborted; 2]).await;
    check(Outcome::Unsuitable { code: "DirectoryNotExists", info: info() }, &[Invalid]).await;
    check(Outcome::Signaled(9), &[Failed; 2]).await;
}

#[tokio::test]
async fn success_ends_it_and_says_how_the_invocation_stands() {
    let clock = clock();
    let (builder, calls) = flaky(Engine::builder(), |n| Outcome::Exited(i32::from(n < 3)));
    let engine = open(builder, &clock).await;
    engine.register_instance(Instance::new("f-1").executor("flaky")).await.expect("sound");
    let request = RunCommand::shell("exit:0").on(["f-1", "i-1"]).retry(Retry::attempts(5));
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    let id = run.invoke_id;
    let at = retry_time(&mut watch).await;
    assert_eq!(status(&engine, id).await, InvocationStatus::Running);
    let waiting = history(&engine, id).await.pop().expect("one");
    assert_eq!((waiting.attempt, waiting.status, waiting.retry_time), (2, Scheduled, Some(at)));
    assert_eq!((waiting.start_time, waiting.repeats), (None, 2));
    let filter = DescribeInvocations::default().invoke_id(id);
    let listed = async |status| {
        let filter = filter.clone().status(status);
        engine.describe_invocations(filter).await.expect("it exists").invocations.len()
    };
    assert_eq!(listed(InvocationStatus::Running).await, 1);
    assert_eq!(listed(InvocationStatus::Scheduled).await, 0);
    let shown = engine.describe_invocations(filter).await.expect("it exists").invocations.remove(0);
    assert_eq!(shown.retry, Some(Retry::attempts(5)));
    assert_eq!(shown.instance_count, 2);
    let standing: Vec<_> =
        shown.invoke_instances.iter().map(|on| (on.status, on.repeats)).collect();
    assert_eq!(standing, [(Scheduled, 2), (Success, 1)]);
    clock.advance(Duration::from_secs(1));
    retry_time(&mut watch).await;
    clock.advance(Duration::from_secs(2));
    let finished = wait(&engine, &id).await;
    assert_eq!(finished.status, InvocationStatus::Success);
    // In the order of the request, although the last attempt on the first of them is the newest.
    let results = finished.results.iter();
    let results: Vec<_> = results.map(|r| (r.instance_id.as_str(), r.attempt, r.status)).collect();
    assert_eq!(results, [("f-1", 3, Success), ("i-1", 1, Success)]);
    assert_eq!(finished.results[0].retry_time, None);
    pass(&clock, 600).await;
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    let of = async |history| {
        let mut request = DescribeInvocationResults::default().invoke_id(id);
        request.include_history = history;
        engine.describe_invocation_results(request).await.expect("it exists").invocation.results
    };
    assert_eq!((of(false).await.len(), of(true).await.len()), (2, 4));
}

#[tokio::test]
async fn watchers_see_each_attempt_live_and_afterwards() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let mut feed = engine.follow();
    let request = RunCommand::shell("out:x exit:1").on(["i-1"]).retry(Retry::attempts(2));
    let (run, mut live) = engine.run_command_and_watch(request).await.expect("sound");
    let at = retry_time(&mut live).await;
    assert_eq!(at, clock.realtime() + Duration::from_secs(1));
    loop {
        let notice = within(feed.next()).await.expect("it goes on");
        if let Notice::Status { status: Scheduled, retry_time, .. } = notice {
            assert_eq!(retry_time, Some(at));
            break;
        }
    }
    let mut between = engine.watch(&run.invoke_id).await.expect("it exists");
    assert_eq!(retry_time(&mut between).await, at);
    clock.advance(Duration::from_secs(1));
    wait(&engine, &run.invoke_id).await;
    let mut late = engine.watch(&run.invoke_id).await.expect("it exists");
    let mut told = BTreeMap::<_, Vec<String>>::new();
    while let Some(event) = within(late.next()).await.expect("readable") {
        let (id, what) = match event {
            Event::Status { execution_id, status, at, .. } => {
                (execution_id, format!("{status} {}", at.format("%S")))
            }
            Event::Output { execution_id, bytes, .. } => {
                (execution_id, String::from_utf8_lossy(&bytes).into_owned())
            }
            _ => continue,
        };
        told.entry(id).or_default().push(what);
    }
    let told: Vec<_> = told.into_values().collect();
    assert_eq!(
        told,
        [
            ["Pending 00", "Running 00", "x", "Failed 00"],
            ["Pending 00", "Running 01", "x", "Failed 01"]
        ]
    );
}

#[tokio::test]
async fn a_stop_cancels_what_waits_to_be_tried_again() {
    for on in [&[][..], &["i-1"]] {
        let clock = clock();
        let engine = open(Engine::builder(), &clock).await;
        let request = RunCommand::shell("exit:1").on(["i-1"]).retry(Retry::attempts(3).backoff(60));
        let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
        retry_time(&mut watch).await;
        let stop = StopInvocation::new(run.invoke_id).on(on.iter().copied());
        engine.stop_invocation(stop).await.expect("it exists");
        let finished = wait(&engine, &run.invoke_id).await;
        assert_eq!(finished.status, InvocationStatus::Stopped);
        assert_eq!(finished.results[0].error_info, "stopped on request before it started");
        pass(&clock, 120).await;
        assert_eq!(attempts(&engine, run.invoke_id).await, [(1, Failed), (2, Cancelled)]);
    }
}

#[tokio::test]
async fn a_stop_on_one_instance_leaves_the_other_to_be_tried_again() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let retry = Retry::attempts(2).backoff(60);
    let request = RunCommand::shell("exit:1").on(["i-1", "i-2"]).retry(retry);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    for _ in 0..2 {
        retry_time(&mut watch).await;
    }
    let stop = StopInvocation::new(run.invoke_id).on(["i-1"]);
    engine.stop_invocation(stop).await.expect("it exists");
    clock.advance(Duration::from_secs(60));
    let finished = wait(&engine, &run.invoke_id).await;
    let results: Vec<_> = finished.results.iter().map(|r| (r.attempt, r.status)).collect();
    assert_eq!(results, [(2, Cancelled), (2, Failed)]);
}

/// However it ends then: the stop may come too late to be what ends it.
#[tokio::test]
async fn what_was_stopped_while_it_ran_is_not_tried_again() {
    let check = async |exit_code: Option<i32>, want: ExecutionStatus| {
        let clock = clock();
        let executor = ClosureExecutor::new(move |_task, cx| async move {
            cx.stop_asked().await;
            match exit_code {
                Some(code) => Outcome::Exited(code),
                None => Outcome::Stopped { signal: None, exit_code: None, info: String::new() },
            }
        });
        let engine = open(Engine::builder().executor("slow", executor), &clock).await;
        register(&engine, "slow", 1).await;
        let request = RunCommand::shell("x").on(["i-1"]).retry(Retry::attempts(3).backoff(0));
        let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
        let running = |event: &Event| matches!(event, Event::Status { status: Running, .. });
        while !running(&within(watch.next()).await.expect("readable").expect("it goes on")) {}
        engine.stop_invocation(StopInvocation::new(run.invoke_id)).await.expect("it exists");
        wait(&engine, &run.invoke_id).await;
        pass(&clock, 30).await;
        assert_eq!(attempts(&engine, run.invoke_id).await, [(1, want)]);
    };
    check(None, Terminated).await;
    check(Some(1), Failed).await;
}

#[tokio::test]
async fn what_waits_to_be_tried_again_outlives_its_engine() {
    // Due while an engine runs again, and while none does.
    for away in [10, 3_600] {
        let (clock, place) = (clock(), Place::new());
        let builder = || Engine::builder().path(place.database());
        let engine = open(builder(), &clock).await;
        let request = RunCommand::shell("exit:1").on(["i-1"]).retry(Retry::attempts(2).backoff(60));
        let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
        let at = retry_time(&mut watch).await;
        let id = run.invoke_id;
        engine.shutdown(Duration::ZERO).await;
        drop((engine, watch));
        clock.advance(Duration::from_secs(away));
        let engine = open(builder(), &clock).await;
        if away < 60 {
            let waiting = history(&engine, id).await.pop().expect("one");
            assert_eq!((waiting.attempt, waiting.retry_time), (2, Some(at)));
            within(clock.sleeping(1)).await;
            clock.advance(Duration::from_secs(60 - away));
        }
        assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Failed);
        assert_eq!(attempts(&engine, id).await, [(1, Failed), (2, Failed)]);
        engine.shutdown(Duration::ZERO).await;
    }
}

/// As after a crash: the engine is dropped with its runtime, and the next one finds a run cut off.
#[test]
fn what_a_crash_cut_off_is_tried_again_only_if_that_is_named() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let check = |retry: Retry, want: &[(u32, ExecutionStatus)]| {
        let (clock, place, gate) = (clock(), Place::new(), Gate::new());
        let builder =
            || gate.plug_in(Engine::builder().path(place.database())).clock(clock.clone());
        let crashed = runtime();
        let id = crashed.block_on(async {
            let engine = builder().open().await.expect("it opens");
            register(&engine, "gate", 1).await;
            let request = RunCommand::shell("x").on(["i-1"]).retry(retry.clone());
            let run = engine.run_command(request).await.expect("sound");
            within(gate.arrivals(1)).await;
            run.invoke_id
        });
        drop(crashed);
        gate.let_go(1);
        runtime().block_on(async {
            let (engine, mut feed) = builder().open_and_follow().await.expect("it opens");
            let again = want.len() > 1;
            let notice = within(feed.next()).await;
            assert!(matches!(notice, Some(Notice::Status { status: Error, .. })), "{notice:?}");
            if again {
                let Some(Notice::Status { retry_time: Some(at), .. }) = feed.next().await else {
                    panic!("it is tried again");
                };
                assert_eq!(at, clock.realtime() + Duration::from_secs(1));
                within(clock.sleeping(1)).await;
                clock.advance(Duration::from_secs(1));
            }
            wait(&engine, &id).await;
            assert_eq!(attempts(&engine, id).await, want, "{retry:?}");
            let first = &history(&engine, id).await[0];
            assert_eq!(first.error_code, "ExecutionInterrupted");
        });
    };
    check(Retry::attempts(2), &[(1, Error)]);
    let named = Retry::attempts(2).on([RetryOn::Interrupted]);
    check(named, &[(1, Error), (2, Success)]);
}

/// A schedule that fires each minute on `i-1`, whose first fire has failed and waits to be tried
/// again 30 s later.
async fn failed_once(
    policy: OverlapPolicy,
    outcome: impl Fn(u32) -> Outcome + Send + Sync + 'static,
) -> (ManualClock, Engine, InvokeId, Watch) {
    let clock = clock();
    let (builder, _) = flaky(Engine::builder(), outcome);
    let engine = open(builder, &clock).await;
    register(&engine, "flaky", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let request = request.overlap_policy(policy).retry(Retry::attempts(2).backoff(30));
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    pass(&clock, 60).await;
    retry_time(&mut watch).await;
    assert_eq!(status(&engine, run.invoke_id).await, InvocationStatus::Running);
    (clock, engine, run.invoke_id, watch)
}

/// Waits until the attempts of an invocation stand so.
async fn until(
    engine: &Engine,
    invoke_id: InvokeId,
    watch: &mut Watch,
    want: &[(u32, ExecutionStatus)],
) {
    loop {
        let attempts = attempts(engine, invoke_id).await;
        if attempts == want {
            return;
        }
        let event = within(watch.next()).await.expect("readable");
        assert!(event.is_some(), "it ended with {attempts:?}, not {want:?}");
    }
}

#[tokio::test]
async fn a_fire_meets_one_that_waits_to_be_tried_again_as_its_policy_says() {
    use OverlapPolicy::{Allow, Queue, Replace, Skip};
    let check = async |policy, fired: FireDisposition, want: &[(u32, ExecutionStatus)]| {
        // Each fire fails at first, and succeeds when it is tried again.
        let outcome = |attempt| Outcome::Exited(i32::from(attempt == 1));
        let (clock, engine, id, mut watch) = failed_once(policy, outcome).await;
        assert_eq!(engine.run_now(&id).await.expect("it repeats").disposition, fired, "{policy:?}");
        if policy == Queue {
            // A third finds one in the queue, behind the one that is tried again.
            let third = engine.run_now(&id).await.expect("it repeats");
            assert_eq!(third.reason, "another execution was waiting already");
        }
        engine.pause_invocation(&id).await.expect("it repeats");
        if matches!(policy, Replace | Allow) {
            retry_time(&mut watch).await;
        }
        clock.advance(Duration::from_secs(30));
        if policy == Queue {
            retry_time(&mut watch).await;
            clock.advance(Duration::from_secs(30));
        }
        until(&engine, id, &mut watch, want).await;
        assert_eq!(status(&engine, id).await, InvocationStatus::Scheduled);
        engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
        assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success, "{policy:?}");
    };
    let (started, skipped) = (FireDisposition::Started, FireDisposition::Skipped);
    let again = [(1, Failed), (2, Success)];
    check(Skip, skipped, &[again[0], again[1], (1, Skipped)]).await;
    check(Replace, started, &[(1, Failed), (2, Cancelled), again[0], again[1]]).await;
    check(Allow, started, &[again, again].concat()).await;
    check(Queue, started, &[again[0], again[1], again[0], (1, Skipped), again[1]]).await;
}

#[tokio::test]
async fn an_invocation_ends_with_the_last_attempt_of_its_last_fire() {
    let clock = clock();
    let (builder, calls) = flaky(Engine::builder(), |_| Outcome::Exited(1));
    let engine = open(builder, &clock).await;
    register(&engine, "flaky", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let request = request.max_fires(2).retry(Retry::attempts(2).backoff(20));
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    let again = [(1, Failed), (2, Failed)];
    pass(&clock, 60).await;
    retry_time(&mut watch).await;
    pass(&clock, 20).await;
    until(&engine, run.invoke_id, &mut watch, &again).await;
    assert_eq!(status(&engine, run.invoke_id).await, InvocationStatus::Scheduled);
    pass(&clock, 40).await;
    retry_time(&mut watch).await;
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert_eq!(status(&engine, run.invoke_id).await, InvocationStatus::Running);
    pass(&clock, 20).await;
    assert_eq!(wait(&engine, &run.invoke_id).await.status, InvocationStatus::Failed);
    assert_eq!(attempts(&engine, run.invoke_id).await, [again, again].concat());
    let at = "2026-01-01T00:01:00Z".parse().expect("a time");
    let explained = engine.explain(&run.invoke_id, at).await.expect("it exists");
    assert_eq!(explained.entries[0].executions.len(), 1, "the last attempt says what became of it");
}

/// While the last fire has ended and one before it waits to be tried again.
#[tokio::test]
async fn an_invocation_goes_on_while_any_fire_is_tried_again() {
    let clock = clock();
    let first = std::sync::atomic::AtomicBool::new(true);
    let first_fails = move |_| Outcome::Exited(first.swap(false, Ordering::Relaxed).into());
    let (builder, _) = flaky(Engine::builder(), first_fails);
    let engine = open(builder, &clock).await;
    register(&engine, "flaky", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let request = request.overlap_policy(OverlapPolicy::Allow).max_fires(2);
    let request = request.retry(Retry::attempts(2).backoff(90));
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    let id = run.invoke_id;
    pass(&clock, 60).await;
    retry_time(&mut watch).await;
    pass(&clock, 60).await;
    until(&engine, id, &mut watch, &[(1, Failed), (2, Scheduled), (1, Success)]).await;
    assert_eq!(status(&engine, id).await, InvocationStatus::Running);
    for (status, count) in [(InvocationStatus::Running, 1), (InvocationStatus::Scheduled, 0)] {
        let filter = DescribeInvocations::default().status(status);
        let listed = engine.describe_invocations(filter).await.expect("readable");
        assert_eq!(listed.invocations.len(), count, "{status}");
    }
    pass(&clock, 30).await;
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success);
    assert_eq!(attempts(&engine, id).await, [(1, Failed), (2, Success), (1, Success)]);
}

#[tokio::test]
async fn what_is_wrong_with_a_retry_is_told_by_its_field() {
    let engine = crate::support::engine().await;
    let check = async |retry: Value, fields: &[&str]| {
        let before = everything(&engine).await;
        let request = json!({
            "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"],
            "Retry": retry,
        });
        let error = ask(&engine, "RunCommand", request).await.expect_err("refused");
        let told: Vec<_> = error.violations().iter().map(|found| found.field).collect();
        assert_eq!(told, fields, "{retry}: {error}");
        let codes = error.violations().iter().map(|found| (found.code, found.http_status));
        assert!(codes.into_iter().all(|code| code == ("InvalidParam.Retry", 400)), "{error}");
        assert_eq!(everything(&engine).await, before, "{retry}");
    };
    check(json!({"MaxAttempts": 0}), &["Retry.MaxAttempts"]).await;
    check(json!({"MaxAttempts": 101, "On": []}), &["Retry.MaxAttempts", "Retry.On"]).await;
    check(json!({"On": ["Failed", "Success", ""]}), &["Retry.On", "Retry.On"]).await;
    check(json!({"BackoffFactor": -1.5}), &["Retry.BackoffFactor"]).await;
    check(json!({"BackoffFactor": "nan"}), &["Retry.BackoffFactor"]).await;
    check(json!({"BackoffSeconds": 86_401}), &["Retry.BackoffSeconds"]).await;
    check(json!({"BackoffSeconds": 9, "MaxBackoffSeconds": 8}), &["Retry.MaxBackoffSeconds"]).await;
    let request = json!({
        "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"],
        "Retry": {"MaxAttempts": "2", "BackoffSeconds": "5", "BackoffFactor": 3, "On": ["Timeout"]},
    });
    ask(&engine, "RunCommand", request).await.expect("numbers may be text");
    for text in
        [r#"{"Retry": {"Attempts": 1}}"#, r#"{"Retry": {"MaxAttempts": -1}}"#, r#"{"Retry": 3}"#]
    {
        let answer = engine.call("RunCommand", text).await;
        assert!(answer.is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_retry_is_part_of_what_a_token_stands_for() {
    let engine = crate::support::engine().await;
    let request = |attempts| {
        let request = RunCommand::shell("exit:0").on(["i-1"]).client_token("t");
        request.retry(Retry::attempts(attempts))
    };
    let first = engine.run_command(request(2)).await.expect("sound").invoke_id;
    assert_eq!(engine.run_command(request(2)).await.expect("the same").invoke_id, first);
    engine.run_command(request(3)).await.expect_err("another request");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// Whatever happens in whatever order, attempts count from 1 without gaps and no further than they
/// may, and nothing follows what succeeded or was stopped. What has ended does not change.
/// `ADJUTANT_SEED=N` runs another story; each prints the seed that repeats it.
#[tokio::test]
async fn whatever_happens_attempts_are_counted_and_bounded() {
    let asked = std::env::var("ADJUTANT_SEED").ok();
    let asked = asked.map(|seed| seed.parse().expect("ADJUTANT_SEED is a number"));
    for seed in asked.map_or(vec![1, 2, 3, 4], |seed| vec![seed]) {
        println!("ADJUTANT_SEED={seed}");
        story(seed).await;
    }
}

async fn story(seed: u64) {
    const ATTEMPTS_MAX: u64 = 3;
    const INSTANCES: [&str; 3] = ["i-1", "i-2", "i-3"];
    let (clock, place) = (clock(), Place::new());
    let mut random = Random(seed);
    let dice = Arc::new(std::sync::Mutex::new(Random(!seed)));
    let builder = || {
        let dice = Arc::clone(&dice);
        let executor = ClosureExecutor::new(move |_task, cx| {
            let roll = dice.lock().expect("nobody panics").below(10);
            async move {
                match roll {
                    0..5 => Ok(1),
                    5 => Err("broken"),
                    6 => {
                        cx.stop_asked().await;
                        Ok(1)
                    }
                    _ => Ok(0),
                }
            }
        });
        Engine::builder().path(place.database()).executor("dice", executor)
    };
    let mut engine = open(builder(), &clock).await;
    register(&engine, "dice", INSTANCES.len()).await;
    let mut ids: Vec<InvokeId> = Vec::new();
    let mut ended: BTreeMap<_, InvocationResult> = BTreeMap::new();
    for _ in 0..120 {
        match random.below(8) {
            0 | 1 => {
                let retry =
                    Retry::attempts(1 + random.below(ATTEMPTS_MAX)).backoff(random.below(4));
                let mut request = RunCommand::shell("x").on(INSTANCES).timeout(10).retry(retry);
                if random.below(3) == 0 {
                    let policies = [
                        OverlapPolicy::Skip,
                        OverlapPolicy::Queue,
                        OverlapPolicy::Allow,
                        OverlapPolicy::Replace,
                    ];
                    let policy = policies[random.below(4) as usize];
                    request = request.frequency("rate(60s)").overlap_policy(policy).max_fires(3);
                }
                ids.push(engine.run_command(request).await.expect("sound").invoke_id);
            }
            2 if !ids.is_empty() => {
                let id = ids[random.below(ids.len() as u64) as usize];
                let mut stop = StopInvocation::new(id);
                if random.below(2) == 0 {
                    stop = stop.on([INSTANCES[random.below(3) as usize]]);
                }
                engine.stop_invocation(stop).await.expect("it exists");
            }
            3 if !ids.is_empty() => {
                let id = ids[random.below(ids.len() as u64) as usize];
                // It may not repeat, or have ended.
                let _ = engine.run_now(&id).await;
            }
            4 if random.below(4) == 0 => {
                engine.shutdown(Duration::ZERO).await;
                drop(engine);
                clock.advance(Duration::from_secs(random.below(90)));
                engine = open(builder(), &clock).await;
                register(&engine, "dice", INSTANCES.len()).await;
            }
            _ => pass(&clock, 1 + random.below(20)).await,
        }
        for &id in &ids {
            for result in history(&engine, id).await {
                if let Some(before) = ended.get(&result.execution_id) {
                    // How often it has been tried grows with others.
                    let mut result = result;
                    result.repeats = before.repeats;
                    assert_eq!(*before, result, "seed {seed}: what has ended changed");
                } else if result.status.is_final() {
                    ended.insert(result.execution_id, result);
                }
            }
        }
    }
    for &id in &ids {
        // Nothing is left undone: it ends when time passes.
        let mut watch = engine.watch(&id).await.expect("it exists");
        while !status(&engine, id).await.is_final() {
            pass(&clock, 10).await;
        }
        while within(watch.next()).await.expect("readable").is_some() {}
        wait(&engine, &id).await;
    }
    engine.shutdown(Duration::ZERO).await;
    let file = rusqlite::Connection::open(place.database()).expect("it opens");
    let count = |sql: &str| -> i64 {
        file.query_row(sql, (), |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    };
    let none = |sql: &str| assert_eq!(count(sql), 0, "seed {seed}: {sql}");
    assert!(count("SELECT count(*) FROM executions WHERE attempt = 3") > 0, "seed {seed}");
    none(
        "SELECT count(*) FROM executions e WHERE attempt > 1 AND NOT EXISTS (
             SELECT 1 FROM executions b WHERE b.fire = e.fire AND b.instance = e.instance
                 AND b.attempt = e.attempt - 1
                 AND b.status IN ('Failed', 'Error') AND b.stop_at_ms IS NULL AND b.id < e.id)",
    );
    none(
        "SELECT count(*) FROM executions e JOIN fires f ON f.id = e.fire
             JOIN invocations v ON v.id = f.invocation
         WHERE e.attempt > v.retry ->> 'MaxAttempts'",
    );
    // What failed and was tried no further had no attempt left, was stopped, or was cut off.
    none(
        "SELECT count(*) FROM executions e JOIN fires f ON f.id = e.fire
             JOIN invocations v ON v.id = f.invocation
         WHERE e.status IN ('Failed', 'Timeout', 'Error') AND e.stop_at_ms IS NULL
             AND coalesce(e.error_code, '') <> 'ExecutionInterrupted'
             AND e.attempt < v.retry ->> 'MaxAttempts' AND NOT EXISTS (
                 SELECT 1 FROM executions n WHERE n.fire = e.fire AND n.instance = e.instance
                     AND n.attempt = e.attempt + 1)",
    );
    none("SELECT count(*) FROM executions WHERE retry_at_ms IS NOT NULL OR finished_at_ms IS NULL");
    none("SELECT count(*) FROM fires WHERE unfinished <> 0");
    none("SELECT count(*) FROM invocations WHERE finished_at_ms IS NULL");
}

/// Permits requests, and lets no execution start.
struct Undecided;

impl adjutant::Authorizer for Undecided {
    async fn authorize(&self, action: adjutant::Action) -> Result<(), String> {
        match action.operation {
            adjutant::Operation::StartExecution => std::future::pending().await,
            _ => Ok(()),
        }
    }
}

/// Nothing of it has happened, so that no attempt is lost, whatever the request says of retries.
#[tokio::test]
async fn what_no_executor_has_begun_at_a_shutdown_waits_for_the_next_engine() {
    let place = Place::new();
    let builder = place.builder().authorizer(Undecided).max_concurrent(4);
    let engine = builder.open().await.expect("the file opens");
    register(&engine, "script", 3).await;
    let narrow = adjutant::Instance::new("narrow").executor("script").max_concurrency(1);
    engine.register_instance(narrow).await.expect("sound");
    let all = RunCommand::shell("exit:0").on(["i-1", "i-2", "narrow"]).max_concurrency(2);
    let all = engine.run_command(all).await.expect("sound").invoke_id;
    let one = RunCommand::shell("exit:0").on(["i-3"]);
    let one = engine.run_command(one).await.expect("sound").invoke_id;
    let stopped = RunCommand::shell("exit:0").on(["i-3"]);
    let stopped = engine.run_command(stopped).await.expect("sound").invoke_id;
    let claimed = async {
        while engine.metrics().running < 4 {
            tokio::task::yield_now().await;
        }
    };
    within(claimed).await;
    engine.stop_invocation(adjutant::StopInvocation::new(stopped)).await.expect("stopped");
    within(engine.shutdown(std::time::Duration::ZERO)).await;
    let metrics = engine.metrics();
    assert_eq!((metrics.running, metrics.waiting, metrics.started), (0, 4, 4));
    drop(engine);
    let engine = place.builder().open().await.expect("the file opens");
    for (invoke_id, want) in [(all, 3), (one, 1)] {
        let finished = wait(&engine, &invoke_id).await;
        assert_eq!(finished.status, InvocationStatus::Success);
        let attempts: Vec<_> = finished.results.iter().map(|result| result.attempt).collect();
        assert_eq!(attempts, vec![1; want]);
    }
    assert_eq!(wait(&engine, &stopped).await.status, InvocationStatus::Stopped);
}

#[test]
fn work_that_may_run_twice_is_tried_again_after_every_outcome_without_success() {
    let retry = serde_json::to_value(adjutant::Retry::idempotent(7)).expect("JSON");
    let on = ["Failed", "Timeout", "Error", "Aborted", "Interrupted"];
    assert_eq!((&retry["MaxAttempts"], &retry["On"]), (&7.into(), &serde_json::json!(on)));
}

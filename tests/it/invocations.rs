//! Running, stopping, timing out, bounds, and what the records say of it.

use std::collections::HashSet;
use std::time::Duration;

use adjutant::{
    ClosureExecutor, DescribeInvocationResults, DescribeInvocations, Engine, Error,
    ExecutionStatus, InvocationStatus, InvokeCommand, ManualClock, Notice, RunCommand,
    StopInvocation,
};

use crate::support::{Gate, Place, engine, register, run, wait, with_executors, within};

#[tokio::test]
async fn outcomes_become_statuses() {
    let engine = engine().await;
    let check = async |script: &str, status, exit_code, error_code: &str, info: &str| {
        let finished = run(&engine, script, &["i-1"]).await;
        let [result] = &finished.results[..] else { panic!("one result") };
        assert_eq!(result.status, status, "{script}");
        assert_eq!(result.exit_code, exit_code, "{script}");
        assert_eq!(result.error_code, error_code, "{script}");
        assert!(result.error_info.contains(info), "{script}: {}", result.error_info);
        assert!(result.start_time.is_some() && result.finish_time.is_some(), "{script}");
    };
    check("exit:0", ExecutionStatus::Success, Some(0), "", "").await;
    check("exit:3", ExecutionStatus::Failed, Some(3), "ExitCodeNonzero", "exit code 3").await;
    check("fail:broken", ExecutionStatus::Error, None, "ExecutionException", "broken").await;
    check("panic", ExecutionStatus::Error, None, "ExecutionException", "panicked: as told").await;
    // The panic of one run was not the end of the engine.
    check("exit:0", ExecutionStatus::Success, Some(0), "", "").await;
}

#[tokio::test]
async fn an_invocation_rolls_up_its_instances() {
    let engine = engine().await;
    let check = async |script: &str, want| {
        assert_eq!(run(&engine, script, &["i-1", "i-2"]).await.status, want, "{script}");
    };
    check("exit:0", InvocationStatus::Success).await;
    check("exit:1", InvocationStatus::Failed).await;
}

#[tokio::test]
async fn results_come_in_the_order_of_the_request() {
    let engine = engine().await;
    let finished = run(&engine, "out:x", &["i-3", "i-1", "i-2"]).await;
    let order: Vec<_> = finished.results.iter().map(|r| r.instance_id.as_str()).collect();
    assert_eq!(order, ["i-3", "i-1", "i-2"]);
    assert!(finished.results.iter().all(|r| r.output.as_bytes() == b"x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_an_invocation_after_its_end() {
    const RUNS: usize = 1_000;
    // What they tell has its place in a feed that is read late.
    const AT_ONCE: usize = 100;
    let place = Place::new();
    let (engine, mut feed) =
        with_executors(place.builder()).open_and_follow().await.expect("it opens");
    register(&engine, "script", 3).await;
    let mut finished = HashSet::new();
    for round in 1..=RUNS / AT_ONCE {
        for _ in 0..AT_ONCE {
            let request = RunCommand::shell("exit:0").on(["i-1", "i-2", "i-3"]);
            engine.run_command(request).await.expect("a sound request");
        }
        while finished.len() < round * AT_ONCE {
            match within(feed.next()).await.expect("the engine runs") {
                Notice::Finished { invoke_id, .. } => assert!(finished.insert(invoke_id)),
                Notice::Status { invoke_id, .. } => assert!(!finished.contains(&invoke_id)),
                _ => {}
            }
        }
    }
}

/// Wherever it meets it: before the claim, while that is written, or before the executor has begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_right_after_the_request_is_never_lost() {
    const RUNS: usize = 400;
    let place = Place::new();
    let engine = place.open().await;
    register(&engine, "script", 1).await;
    let mut stopping = tokio::task::JoinSet::new();
    for _ in 0..RUNS {
        let request = RunCommand::shell("hang").on(["i-1"]).timeout(3_600);
        let invoke_id = engine.run_command(request).await.expect("a sound request").invoke_id;
        let engine = engine.clone();
        stopping.spawn(async move {
            engine.stop_invocation(StopInvocation::new(invoke_id)).await.expect("it is there");
            wait(&engine, &invoke_id).await.status
        });
    }
    let ended = stopping.join_all().await;
    assert_eq!(ended, [InvocationStatus::Stopped; RUNS]);
}

#[tokio::test]
async fn a_timeout_ends_a_run_by_the_monotonic_clock() {
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"));
    let builder = with_executors(Engine::builder()).clock(clock.clone());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let request = RunCommand::shell("hang").on(["i-1"]).timeout(7);
    let run = engine.run_command(request).await.expect("a sound request");
    // The scheduler sleeps too.
    within(clock.sleeping(2)).await;
    // Setting the time of day is not the passing of time.
    clock.set_realtime("2027-01-01T00:00:00Z".parse().expect("a time"));
    clock.advance(Duration::from_millis(6_999));
    assert_eq!(status(&engine, &run.invoke_id).await, InvocationStatus::Running);
    clock.advance(Duration::from_millis(1));
    let finished = wait(&engine, &run.invoke_id).await;
    let result = &finished.results[0];
    assert_eq!(result.status, ExecutionStatus::Timeout);
    assert_eq!(result.error_code, "ExecutionTimeout");
    assert_eq!(result.duration_ms, Some(7_000));
}

/// What ends together is written down together, and each invocation as it ended.
#[tokio::test]
async fn ends_that_come_together_are_told_apart() {
    let (gate, place) = (Gate::new(), Place::new());
    let holds = gate.clone();
    // Its script is the exit code; on `i-3` it ends at once.
    let executor = ClosureExecutor::new(move |task: adjutant::Task, _cx| {
        let gate = holds.clone();
        let code = String::from_utf8_lossy(task.content()).parse().expect("an exit code");
        async move {
            if task.instance_id.as_str() != "i-3" {
                gate.pass().await;
            }
            Ok::<i32, String>(code)
        }
    });
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"));
    let builder = Engine::builder().path(place.database()).clock(clock).executor("code", executor);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "code", 3).await;
    let both = &["i-1", "i-2"][..];
    let (one, early) = (&["i-1"][..], &["i-3", "i-1"][..]);
    let check = async |runs: &[(&str, &[&str])]| {
        let mut begun = Vec::new();
        for (code, on) in runs {
            let request = RunCommand::shell(*code).on(on.iter().copied());
            begun.push(engine.run_command(request).await.expect("a sound request").invoke_id);
        }
        let held = runs.iter().flat_map(|(_, on)| on.iter()).filter(|on| **on != "i-3").count();
        within(gate.arrivals(held as u32)).await;
        gate.let_go(held);
        for (invoke_id, (code, on)) in begun.iter().zip(runs) {
            let want = match *code {
                "0" => (InvocationStatus::Success, ExecutionStatus::Success),
                _ => (InvocationStatus::Failed, ExecutionStatus::Failed),
            };
            let finished = wait(&engine, invoke_id).await;
            assert_eq!(finished.status, want.0, "{code} on {on:?}");
            let found = finished.results.iter().map(|of| (of.instance_id.as_str(), of.status));
            let wanted = on.iter().map(|on| (*on, want.1));
            assert_eq!(found.collect::<Vec<_>>(), wanted.collect::<Vec<_>>(), "{code}");
            assert_eq!(status(&engine, invoke_id).await, want.0, "{code} on {on:?}");
        }
    };
    check(&[("0", one), ("0", one), ("1", one), ("1", one), ("0", one)]).await;
    check(&[("0", both), ("0", both), ("2", both), ("0", one), ("1", both)]).await;
    check(&[("0", early), ("1", early), ("0", one), ("0", early)]).await;
    let metrics = engine.metrics();
    assert_eq!((metrics.waiting, metrics.running), (0, 0));
    // Nothing is left to be done, nor found by whoever opens the file.
    engine.shutdown(Duration::from_secs(5)).await;
    drop(engine);
    let engine = place.open().await;
    assert_eq!(engine.metrics().waiting + engine.metrics().running, 0);
    let all = engine.describe_invocations(DescribeInvocations::default()).await;
    let left = all.expect("readable").invocations;
    assert!(left.iter().all(|of| of.status.is_final()), "{left:?}");
}

/// The row of an execution is as long from its first state to its last, so no page has to be split for it.
#[tokio::test]
async fn rows_of_executions_do_not_grow() {
    const INSTANCES: usize = 100;
    const RUNS: usize = 4;
    let (gate, place) = (Gate::new(), Place::new());
    let builder = Engine::builder().path(place.database()).max_concurrent(INSTANCES);
    let engine = gate.plug_in(builder).open().await.expect("an engine");
    register(&engine, "gate", INSTANCES).await;
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let count = |sql: &str| -> usize {
        file.query_row(sql, (), |row| row.get::<_, u32>(0)).expect("a number") as usize
    };
    let pages = || count("SELECT count(*) FROM dbstat WHERE name = 'executions'");
    let with_room = || count("SELECT count(*) FROM executions WHERE room IS NOT NULL");
    let begin = async || {
        let mut begun = Vec::new();
        for _ in 0..RUNS {
            let request = RunCommand::shell("x").on((1..=INSTANCES).map(|n| format!("i-{n}")));
            begun.push(engine.run_command(request).await.expect("sound").invoke_id);
        }
        within(gate.arrivals(INSTANCES as u32)).await;
        begun
    };
    // Some run, others wait.
    let begun = begin().await;
    let stored = pages();
    assert!(stored > RUNS, "{stored} pages");
    assert_eq!(with_room(), INSTANCES * RUNS);
    gate.let_go(INSTANCES * RUNS);
    for run in begun {
        assert_eq!(wait(&engine, &run).await.status, InvocationStatus::Success);
    }
    assert_eq!((pages(), with_room()), (stored, 0));

    // Nor do those keep anything that never ran.
    within(gate.arrivals((INSTANCES * (RUNS - 1)) as u32)).await;
    let begun = begin().await;
    for run in begun.iter().rev() {
        engine.stop_invocation(StopInvocation::new(*run)).await.expect("it goes on");
    }
    for run in begun {
        assert_eq!(wait(&engine, &run).await.status, InvocationStatus::Stopped);
    }
    assert_eq!(with_room(), 0);
}

async fn status(engine: &Engine, invoke_id: &adjutant::InvokeId) -> InvocationStatus {
    let filter = DescribeInvocations::default().invoke_id(*invoke_id);
    engine.describe_invocations(filter).await.expect("it exists").invocations[0].status
}

#[tokio::test]
async fn a_stop_cancels_what_waits_and_ends_what_runs() {
    let engine =
        with_executors(Engine::builder()).max_concurrent(1).open().await.expect("an engine");
    register(&engine, "script", 3).await;
    let request = RunCommand::shell("out:started hang").on(["i-1", "i-2", "i-3"]);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("a sound request");
    while !matches!(
        within(watch.next()).await.expect("readable"),
        Some(adjutant::Event::Output { .. })
    ) {}
    engine.stop_invocation(StopInvocation::new(run.invoke_id)).await.expect("it can be stopped");
    let finished = wait(&engine, &run.invoke_id).await;
    let statuses: Vec<_> = finished.results.iter().map(|r| r.status).collect();
    assert_eq!(
        statuses,
        [ExecutionStatus::Terminated, ExecutionStatus::Cancelled, ExecutionStatus::Cancelled]
    );
    assert_eq!(finished.status, InvocationStatus::Stopped);
    assert!(finished.results.iter().all(|r| r.stop_time.is_some()));
    assert_eq!(finished.results[1].start_time, None);
    // Stopping what has ended changes nothing.
    engine.stop_invocation(StopInvocation::new(run.invoke_id)).await.expect("no error");
    assert_eq!(wait(&engine, &run.invoke_id).await, finished);
}

#[tokio::test]
async fn a_stop_may_name_instances() {
    let gate = Gate::new();
    let builder = gate.plug_in(Engine::builder());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "gate", 2).await;
    let request = RunCommand::shell("x").on(["i-1", "i-2"]);
    let run = engine.run_command(request).await.expect("a sound request");
    within(gate.arrivals(2)).await;
    let stop = StopInvocation::new(run.invoke_id).on(["i-2"]);
    engine.stop_invocation(stop).await.expect("i-2 is a target");
    gate.let_go(1);
    let finished = wait(&engine, &run.invoke_id).await;
    let statuses: Vec<_> = finished.results.iter().map(|r| r.status).collect();
    assert_eq!(statuses, [ExecutionStatus::Success, ExecutionStatus::Terminated]);
    assert_eq!(finished.status, InvocationStatus::Success);

    let stop = StopInvocation::new(run.invoke_id).on(["local"]);
    let error = engine.stop_invocation(stop).await.expect_err("no target");
    assert_eq!(error.code(), "InvalidInstance.NotFound");
}

#[tokio::test]
async fn no_more_run_at_a_time_than_allowed_and_each_invocation_has_its_turn() {
    let gate = Gate::new();
    let builder = gate.plug_in(Engine::builder()).max_concurrent(2);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "gate", 60).await;
    let many: Vec<String> = (1..=60).map(|n| format!("i-{n}")).collect();
    let request = RunCommand::shell("x").on(many.iter().map(String::as_str));
    let big = engine.run_command(request).await.expect("a sound request");
    within(gate.arrivals(2)).await;
    let small = engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    // The small invocation is served within two turns, though 58 executions were there first.
    let small_ends = engine.wait(&small.invoke_id);
    tokio::pin!(small_ends);
    let mut served = 0;
    loop {
        assert_eq!(gate.waiting(), 0);
        gate.let_go(1);
        served += 1;
        tokio::select! {
            biased;
            finished = &mut small_ends => {
                assert_eq!(finished.expect("it ends").status, InvocationStatus::Success);
                break;
            }
            () = within(gate.arrivals(1)) => {}
        }
        assert!(served < 20, "the small invocation starves");
    }
    gate.let_go(60);
    assert_eq!(wait(&engine, &big.invoke_id).await.status, InvocationStatus::Success);
}

#[tokio::test]
async fn a_kept_command_is_invoked_as_it_was_and_its_invocations_stay_as_they_were() {
    let engine = engine().await;
    let create = adjutant::CreateCommand::shell("greet", "out:hello").timeout(30);
    let command_id = engine.create_command(create).await.expect("a sound command").command_id;
    let invoke = InvokeCommand::new(command_id).on(["i-1"]).timeout(20);
    let first = engine.invoke_command(invoke).await.expect("it exists");
    wait(&engine, &first.invoke_id).await;
    let change = adjutant::ModifyCommand::new(command_id).name("greet-2").timeout(99);
    engine.modify_command(change).await.expect("it exists");

    let listed = engine.describe_invocations(DescribeInvocations::default()).await.expect("listed");
    let [invocation] = &listed.invocations[..] else { panic!("one invocation") };
    assert_eq!(invocation.command_id, command_id);
    assert_eq!(invocation.command_name, "greet");
    assert_eq!(invocation.timeout, Some(20));
    assert_eq!(invocation.command_content.as_bytes(), b"out:hello");
}

#[tokio::test]
async fn listings_are_paged_filtered_and_stable() {
    let engine = engine().await;
    let mut ids = Vec::new();
    for n in 0..7 {
        let script = format!("exit:{}", n % 2);
        let request = RunCommand::shell(script).on([["i-1", "i-2"][n % 2]]);
        let run = engine.run_command(request).await.expect("a sound request");
        wait(&engine, &run.invoke_id).await;
        ids.push(run.invoke_id);
    }
    ids.reverse();

    let mut seen = Vec::new();
    let mut token = None;
    loop {
        let mut request = DescribeInvocations::default().max_results(3);
        request.next_token = token.clone();
        let page = engine.describe_invocations(request).await.expect("a page");
        seen.extend(page.invocations.iter().map(|i| i.invoke_id));
        if page.next_token.is_empty() {
            break;
        }
        // What is added meanwhile does not move the pages.
        run(&engine, "exit:0", &["i-3"]).await;
        token = Some(page.next_token);
    }
    assert_eq!(seen, ids);

    let count = async |request: DescribeInvocationResults| {
        let page = request.max_results(50);
        let response = engine.describe_invocation_results(page).await.expect("a page");
        response.invocation.results.len()
    };
    let any = DescribeInvocationResults::default;
    assert_eq!(count(any()).await, 9);
    assert_eq!(count(any().invoke_id(ids[0])).await, 1);
    let on_two = any().instance_id("i-2");
    assert_eq!(count(on_two).await, 3);
    let failed = any().status(ExecutionStatus::Failed);
    assert_eq!(count(failed).await, 3);

    let by = async |request: DescribeInvocations| {
        let page = request.max_results(50);
        engine.describe_invocations(page).await.expect("a page").invocations
    };
    let any = DescribeInvocations::default;
    let failed = by(any().status(InvocationStatus::Failed)).await;
    assert_eq!(failed.len(), 3);
    let running = by(any().status(InvocationStatus::Running)).await;
    assert_eq!(running, []);
    let of_command = any().command_id(failed[0].command_id);
    assert_eq!(by(of_command).await, [failed[0].clone()]);
    let on_two = by(any().instance_id("i-2")).await;
    assert_eq!(on_two.len(), 3);
}

#[tokio::test]
async fn a_shutdown_waits_then_ends_what_runs() {
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"));
    let builder = with_executors(Engine::builder()).clock(clock.clone());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let hangs = RunCommand::shell("hang").on(["i-1"]).timeout(60);
    let run = engine.run_command(hangs).await.expect("sound");
    within(clock.sleeping(2)).await;
    let mut shutdown = Box::pin(engine.shutdown(Duration::from_secs(5)));
    tokio::select! {
        biased;
        () = &mut shutdown => panic!("something runs"),
        () = std::future::ready(()) => {}
    }
    let refused = engine.run_command(RunCommand::shell("hang").on(["i-1"])).await;
    assert!(matches!(refused, Err(Error::ShuttingDown)));
    clock.advance(Duration::from_secs(5));
    within(shutdown).await;
    let finished = wait(&engine, &run.invoke_id).await;
    assert_eq!(finished.results[0].status, ExecutionStatus::Error);
    assert_eq!(finished.results[0].error_code, "ExecutionInterrupted");
}

#[tokio::test]
async fn an_executor_that_ignores_a_stop_is_dropped() {
    struct Deaf;
    impl adjutant::Executor for Deaf {
        async fn execute(
            &self,
            _task: adjutant::Task,
            _cx: adjutant::ExecutionContext,
        ) -> adjutant::Outcome {
            std::future::pending().await
        }
    }
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"));
    let builder = Engine::builder().executor("deaf", Deaf).clock(clock.clone());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "deaf", 1).await;
    let check = async |timeout_s: u64, stop: bool| {
        let request = RunCommand::shell("x").on(["i-1"]).timeout(timeout_s);
        let run = engine.run_command(request).await.expect("sound").invoke_id;
        // The scheduler sleeps too.
        within(clock.sleeping(2)).await;
        if stop {
            engine.stop_invocation(StopInvocation::new(run)).await.expect("it runs");
        }
        let mut ended = std::pin::pin!(wait(&engine, &run));
        let mut passed = 0;
        let finished = loop {
            tokio::select! {
                biased;
                finished = &mut ended => break finished,
                () = clock.sleeping(2) => clock.advance(Duration::from_secs(1)),
            }
            passed += 1;
            tokio::task::yield_now().await;
        };
        assert!(passed < 10_000, "{passed} s");
        assert_eq!(finished.results[0].status, ExecutionStatus::Error);
        assert!(finished.results[0].error_info.contains("was dropped"));
    };
    check(1, false).await;
    check(86_400, true).await;
}

#[test]
fn a_current_thread_runtime_is_enough() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let engine = engine().await;
        assert_eq!(run(&engine, "out:x", &["i-1"]).await.status, InvocationStatus::Success);
        engine.shutdown(Duration::from_secs(5)).await;
    });
}

#[tokio::test]
async fn a_request_whose_caller_is_gone_is_carried_out_all_the_same() {
    let gate = Gate::new();
    let engine = gate.plug_in(Engine::builder()).open().await.expect("an engine");
    register(&engine, "gate", 1).await;
    let submit = Box::pin(engine.run_command(RunCommand::shell("x").on(["i-1"])));
    poll_once_and_drop(submit).await;
    within(gate.arrivals(1)).await;
    let listed = engine.describe_invocations(Default::default()).await.expect("a page");
    let invoke_id = listed.invocations[0].invoke_id;
    poll_once_and_drop(Box::pin(engine.stop_invocation(StopInvocation::new(invoke_id)))).await;
    let finished = wait(&engine, &invoke_id).await;
    assert_eq!(finished.results[0].status, ExecutionStatus::Terminated);
}

async fn poll_once_and_drop<T>(mut call: std::pin::Pin<Box<impl Future<Output = T>>>) {
    tokio::select! {
        biased;
        // The writing thread may be faster than this one; then nothing is cut off.
        _ = &mut call => {}
        () = std::future::ready(()) => {}
    }
}

#[tokio::test]
async fn a_fast_and_large_invocation_does_not_keep_a_later_one_waiting() {
    let mut limits = adjutant::Limits::alibaba();
    limits.instances_max = 10_000;
    let builder = with_executors(Engine::builder()).limits(limits).max_concurrent(64);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 3_000).await;
    let many: Vec<String> = (1..=3_000).map(|n| format!("i-{n}")).collect();
    let request = RunCommand::shell("exit:0").on(many.iter().map(String::as_str));
    let (big, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    // Under way, with an end in every commit.
    while !matches!(
        within(watch.next()).await.expect("readable"),
        Some(adjutant::Event::Status { status: ExecutionStatus::Success, .. })
    ) {}
    let small = engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
    let small = wait(&engine, &small.invoke_id).await.results.remove(0);
    let results = wait(&engine, &big.invoke_id).await.results;
    let later = results.iter().filter(|r| r.start_time > small.start_time).count();
    assert!(later > 1_000, "only {later} of 3,000 started after it");
}

#[tokio::test]
async fn a_second_shutdown_need_not_wait_for_the_first() {
    let engine = engine().await;
    engine.run_command(RunCommand::shell("hang").on(["i-1"])).await.expect("sound");
    let mut patient = Box::pin(engine.shutdown(Duration::from_secs(3_600)));
    tokio::select! {
        biased;
        () = &mut patient => panic!("something runs"),
        () = std::future::ready(()) => {}
    }
    within(engine.shutdown(Duration::ZERO)).await;
    within(patient).await;
}

#[tokio::test]
async fn settings_that_mean_no_limit_are_no_overflow() {
    let quota = adjutant::OutputQuota {
        head_bytes_max: usize::MAX,
        tail_bytes_max: usize::MAX,
        spool_bytes_max: u64::MAX,
    };
    let builder = with_executors(Engine::builder()).output_quota(quota).stop_grace(Duration::MAX);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let request = RunCommand::shell("out:x hang").on(["i-1"]).timeout(1);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    while within(watch.next()).await.expect("readable").is_some() {}
    assert_eq!(wait(&engine, &run.invoke_id).await.results[0].status, ExecutionStatus::Timeout);
}

#[tokio::test]
async fn unfinished_invocations_are_found_by_where_they_stand() {
    let gate = Gate::new();
    let builder = gate.plug_in(Engine::builder()).max_concurrent(1);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "gate", 2).await;
    let submit =
        async |request: RunCommand| engine.run_command(request).await.expect("sound").invoke_id;
    let runs = submit(RunCommand::shell("x").on(["i-1"])).await;
    within(gate.arrivals(1)).await;
    let waits = submit(RunCommand::shell("x").on(["i-2"])).await;
    let planned = submit(RunCommand::shell("x").on(["i-1"]).frequency("rate(2m)")).await;
    let check = async |status, want: &[adjutant::InvokeId]| {
        let filter = DescribeInvocations::default().status(status);
        let found = engine.describe_invocations(filter).await.expect("a page").invocations;
        let ids: Vec<_> = found.iter().map(|invocation| invocation.invoke_id).collect();
        assert_eq!(ids, want, "{status}");
        assert!(found.iter().all(|invocation| invocation.status == status), "{status}");
    };
    check(InvocationStatus::Running, &[runs]).await;
    check(InvocationStatus::Pending, &[waits]).await;
    check(InvocationStatus::Scheduled, &[planned]).await;
    check(InvocationStatus::Stopping, &[]).await;
    check(InvocationStatus::Success, &[]).await;
    gate.let_go(2);
    wait(&engine, &waits).await;
    check(InvocationStatus::Success, &[waits, runs]).await;
}

/// It never did when more of those before it had been stopped than there were places.
#[tokio::test]
async fn what_waits_runs_though_what_waited_before_it_was_stopped() {
    let (place, gate) = (Place::new(), Gate::new());
    let idle = gate.plug_in(place.builder()).idle().open().await.expect("a new file");
    register(&idle, "gate", 1).await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        let request = RunCommand::shell("x").on(["i-1"]);
        runs.push(idle.run_command(request).await.expect("a sound request").invoke_id);
    }
    idle.shutdown(Duration::ZERO).await;
    drop(idle);
    let builder = gate.plug_in(place.builder()).max_concurrent(1);
    let engine = builder.open().await.expect("the file opens");
    within(gate.arrivals(1)).await;
    for stopped in &runs[1..4] {
        engine.stop_invocation(StopInvocation::new(*stopped)).await.expect("it waits");
    }
    gate.let_go(2);
    assert_eq!(wait(&engine, &runs[4]).await.status, InvocationStatus::Success);
}

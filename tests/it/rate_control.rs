//! How executions are let loose: bounds, waves, priorities, deadlines; and when the rest is called off.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    ClosureExecutor, DescribeInvocations, EndedWave, Engine, EngineBuilder, ExecutionStatus,
    Finished, Instance, InvocationResult, InvocationStatus, InvokeId, ManualClock, Notice,
    OverlapPolicy, RetryFailed, RunCommand, Share, StopInvocation, WaveDecision, WaveGate,
};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::recurrence::{clock, open, pass};
use crate::support::{Gate, Place, register, wait, with_executors, within};
use ExecutionStatus::{Aborted, Cancelled, Failed, Pending, Running, Success, Terminated};

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("i-{n}")).collect()
}

/// An engine whose instances `i-1` to `i-count` hold what runs on them.
async fn gated(builder: EngineBuilder, count: usize) -> (Engine, Gate) {
    let gate = Gate::new();
    let engine = gate.plug_in(with_executors(builder)).open().await.expect("it opens");
    register(&engine, "gate", count).await;
    (engine, gate)
}

fn statuses(finished: &Finished) -> Vec<ExecutionStatus> {
    finished.results.iter().map(|result| result.status).collect()
}

async fn count(engine: &Engine, invoke_id: InvokeId, status: ExecutionStatus) -> usize {
    let filter = DescribeInvocations::default().invoke_id(invoke_id);
    let page = engine.describe_invocations(filter).await.expect("it exists");
    let standings = &page.invocations[0].invoke_instances;
    standings.iter().filter(|standing| standing.status == status).count()
}

/// Waits until so many executions of an invocation stand so.
async fn reaches(engine: &Engine, invoke_id: InvokeId, status: ExecutionStatus, wanted: usize) {
    let reached = async {
        while count(engine, invoke_id, status).await != wanted {
            tokio::task::yield_now().await;
        }
    };
    within(reached).await;
}

/// Lets time pass once the scheduler, and so many runs beside it, wait for it.
async fn tick(clock: &ManualClock, runs: usize, seconds: u64) {
    within(clock.sleeping(runs + 1)).await;
    clock.advance(Duration::from_secs(seconds));
}

/// Counts how many run at a time, by what they count against.
#[derive(Clone, Default)]
struct Counters(Arc<Mutex<HashMap<String, (usize, usize)>>>);

impl Counters {
    fn add(&self, what: &str) {
        let mut all = self.0.lock().expect("nobody panics");
        let (now, most) = all.entry(what.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn remove(&self, what: &str) {
        self.0.lock().expect("nobody panics").get_mut(what).expect("it was added").0 -= 1;
    }

    fn most(&self, what: &str) -> usize {
        self.0.lock().expect("nobody panics").get(what).map_or(0, |(_, most)| *most)
    }

    /// What runs says what it counts against, in words; it fails if one of them is `fail`.
    fn plug_in(&self, builder: EngineBuilder) -> EngineBuilder {
        let counters = self.clone();
        let closure = ClosureExecutor::new(move |task, _cx| {
            let counters = counters.clone();
            async move {
                let script = String::from_utf8_lossy(task.content()).into_owned();
                let on = task.instance_id.to_string();
                let words: Vec<_> = script.split(' ').chain(["all", &on]).collect();
                words.iter().for_each(|word| counters.add(word));
                for _ in 0..8 {
                    tokio::task::yield_now().await;
                }
                words.iter().for_each(|word| counters.remove(word));
                if words.contains(&"fail") { Err("as told".to_owned()) } else { Ok(()) }
            }
        });
        builder.executor("counted", closure)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_hold_whatever_sets_executions_off() {
    const SUBMITTERS: usize = 8;
    const ROUNDS: usize = 1_250;
    let counters = Counters::default();
    let builder = Engine::builder().max_concurrent(40).concurrency_key("wide", 7);
    let engine = counters.plug_in(builder).open().await.expect("it opens");
    for name in names(20) {
        let instance = Instance::new(name).executor("counted");
        engine.register_instance(instance).await.expect("sound");
    }
    let narrow = Instance::new("narrow").executor("counted").max_concurrency(3);
    engine.register_instance(narrow).await.expect("sound");
    let bounded = RunCommand::shell("bounded").on(names(20)).max_concurrency(Share::percent(20));
    let daily = bounded.clone().frequency("0 0 0 1 1 ?").overlap_policy(OverlapPolicy::Allow);
    let daily = engine.run_command(daily).await.expect("sound").invoke_id;
    let failed = RunCommand::shell("fail again").on(names(3)).concurrency_key("wide");
    let failed = engine.run_command(failed).await.expect("sound").invoke_id;
    within(engine.wait(&failed)).await.expect("it ends");
    let submitters = (0..SUBMITTERS).map(|submitter| {
        let (engine, bounded) = (engine.clone(), bounded.clone());
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for n in (0..ROUNDS).map(|round| submitter + round) {
                let request = match n % 10 {
                    0 if n % 50 == 0 => bounded.clone(),
                    1 => RunCommand::shell("unkeyed").on(["narrow"]),
                    2 => RunCommand::shell("wide").on(["i-1"]).concurrency_key("wide"),
                    3 => RunCommand::shell("key").on(["i-2"]).concurrency_key("unknown"),
                    4 if n % 100 == 4 => {
                        engine.run_now(&daily).await.expect("it repeats");
                        continue;
                    }
                    5 if n % 20 == 5 => {
                        let retry = engine.retry_failed(RetryFailed::new(failed)).await;
                        ids.push(retry.expect("it failed").invoke_id);
                        continue;
                    }
                    _ => RunCommand::shell("free").on([format!("i-{}", n % 20 + 1)]),
                };
                ids.push(engine.run_command(request).await.expect("sound").invoke_id);
            }
            ids
        })
    });
    let submitters: Vec<_> = submitters.collect();
    for submitter in submitters {
        for id in submitter.await.expect("no panic") {
            tokio::time::timeout(Duration::from_secs(300), engine.wait(&id))
                .await
                .unwrap_or_else(|_| panic!("{id} does not end"))
                .expect("it exists");
        }
    }
    let most = |what: &str, max: usize| {
        let most = counters.most(what);
        // That it was reached says that the bound is what kept it there.
        assert!((1..=max).contains(&most), "{what}: {most} of {max}");
        most
    };
    most("all", 40);
    assert_eq!(most("narrow", 3), 3);
    most("wide", 7);
    assert_eq!(most("key", 1), 1);
    most("again", 7);
    engine.stop_invocation(StopInvocation::new(daily)).await.expect("it exists");
    engine.shutdown(Duration::from_secs(30)).await;
}

#[tokio::test]
async fn more_requests_than_may_wait_are_refused() {
    let engine =
        with_executors(Engine::builder().max_submissions(2)).open().await.expect("it opens");
    register(&engine, "script", 1).await;
    let request = || RunCommand::shell("exit:0").on(["i-1"]);
    // The host's part keeps the others from being stored.
    let (begun, held) = tokio::sync::oneshot::channel();
    let (let_go, wait_for_it) = std::sync::mpsc::channel::<()>();
    let host = engine.write(move |_| {
        begun.send(()).expect("somebody waits");
        wait_for_it.recv()?;
        Ok(())
    });
    let host = async { host.await.expect("it is let go") };
    let ((), ids) = within(async {
        tokio::join!(host, async {
            held.await.expect("it has begun");
            let (first, second) = (engine.run_command(request()), engine.run_command(request()));
            let refused = async {
                let refused = engine.run_command(request()).await.expect_err("two wait");
                assert_eq!((refused.code(), refused.http_status()), ("Throttling", 503));
                assert!(
                    refused.to_string().starts_with("too many requests are waiting (2)"),
                    "{refused}"
                );
                let_go.send(()).expect("it waits");
            };
            let (first, second, ()) = tokio::join!(first, second, refused);
            [first, second].map(|stored| stored.expect("it had its place").invoke_id)
        })
    })
    .await;
    for id in ids {
        assert_eq!(statuses(&wait(&engine, &id).await), [Success]);
    }
    assert_eq!(engine.metrics().busy, 1);
    engine.run_command(request()).await.expect("nobody waits any longer");
}

#[tokio::test]
async fn an_invocation_runs_on_so_many_at_a_time() {
    let check = async |bound: Share, want: u32| {
        let (engine, gate) = gated(Engine::builder(), 10).await;
        let request = RunCommand::shell("x").on(names(10)).max_concurrency(bound);
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        let mut left = 10;
        while left > 0 {
            let some = want.min(left);
            within(gate.arrivals(some)).await;
            assert_eq!(count(&engine, id, Running).await, some as usize, "{bound}");
            gate.let_go(some as usize);
            left -= some;
        }
        assert_eq!(statuses(&wait(&engine, &id).await), [Success; 10]);
    };
    check(Share::from(3), 3).await;
    check(Share::percent(20), 2).await;
    check(Share::percent(1), 1).await;
    check(Share::from(99), 10).await;
}

#[tokio::test]
async fn fires_of_an_invocation_share_its_bound() {
    let (engine, gate) = gated(Engine::builder(), 2).await;
    let request = RunCommand::shell("x").on(names(2)).frequency("0 0 0 1 1 ? 2099");
    let request = request.overlap_policy(OverlapPolicy::Allow).max_concurrency(3);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    for _ in 0..3 {
        engine.run_now(&id).await.expect("it repeats");
    }
    within(gate.arrivals(3)).await;
    gate.let_go(1);
    within(gate.arrivals(1)).await;
    assert_eq!(gate.waiting(), 0);
    gate.let_go(5);
    within(gate.arrivals(2)).await;
}

#[tokio::test]
async fn an_instance_runs_so_many_at_a_time_also_after_a_restart() {
    let place = Place::new();
    let (engine, gate) = gated(place.builder(), 1).await;
    let narrow = Instance::new("narrow").executor("gate").max_concurrency(2);
    engine.register_instance(narrow).await.expect("sound");
    let mut ids = Vec::new();
    for _ in 0..5 {
        let request = RunCommand::shell("x").on(["narrow", "i-1"]);
        ids.push(engine.run_command(request).await.expect("sound").invoke_id);
    }
    // Its other instance is in nobody's way.
    within(gate.arrivals(7)).await;
    gate.let_go(7);
    within(gate.arrivals(2)).await;
    assert_eq!(gate.waiting(), 0);
    // The first two and these two had their places; the last waits for one.
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let (engine, gate) = gated(place.builder(), 1).await;
    gate.let_go(10);
    let mut ended = Vec::new();
    for id in &ids {
        ended.extend(statuses(&wait(&engine, id).await));
    }
    let succeeded = ended.iter().filter(|status| **status == Success).count();
    assert_eq!((succeeded, ended.len()), (8, 10), "{ended:?}");
}

#[tokio::test]
async fn the_highest_priority_starts_first() {
    let (engine, gate) = gated(Engine::builder().max_concurrent(1), 1).await;
    let mut feed = engine.follow();
    let mut submitted = Vec::new();
    for priority in [5, 1, 9, 5, 0, 7] {
        let request = RunCommand::shell("x").on(["i-1"]).priority(priority);
        submitted.push((engine.run_command(request).await.expect("sound").invoke_id, priority));
        if submitted.len() == 1 {
            // It finds nobody before it, and the others find it there.
            within(gate.arrivals(1)).await;
        }
    }
    gate.let_go(6);
    let mut started = Vec::new();
    while started.len() < 6 {
        if let Some(Notice::Status { invoke_id, status: Running, .. }) = within(feed.next()).await {
            let priority = submitted.iter().find(|(id, _)| *id == invoke_id).expect("ours").1;
            started.push(priority);
        }
    }
    assert_eq!(started, [5, 9, 7, 5, 1, 0]);
}

#[tokio::test]
async fn a_small_invocation_does_not_wait_for_a_large_one() {
    let (engine, gate) = gated(Engine::builder().max_concurrent(4), 100).await;
    let large = RunCommand::shell("x").on(names(100));
    let large = engine.run_command(large).await.expect("sound").invoke_id;
    within(gate.arrivals(4)).await;
    let small = RunCommand::shell("x").on(["i-100"]);
    let (_, mut watch) = engine.run_command_and_watch(small).await.expect("sound");
    let mut starts = 0;
    gate.let_go(1);
    loop {
        within(gate.arrivals(1)).await;
        starts += 1;
        let event = within(watch.next()).await.expect("readable").expect("it goes on");
        if matches!(event, adjutant::Event::Status { status: Running, .. }) {
            break;
        }
        gate.let_go(1);
    }
    assert!(starts <= 2, "{starts} went before it");
    gate.let_go(200);
    wait(&engine, &large).await;
}

/// A run over many targets of which some fail, and what the feed told of it.
async fn run_with_errors(seed: u8, targets: usize, errors: Share, at_a_time: u64) {
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let fails: Vec<bool> = (0..targets).map(|_| rng.next_u32().is_multiple_of(20)).collect();
    let closure = ClosureExecutor::new({
        let fails = Arc::new(fails);
        move |task, _cx| {
            let n: usize = task.instance_id.as_str()[2..].parse().expect("i-N");
            let (fails, turns) = (fails[n - 1], n % 7);
            async move {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                if fails { Err("as told".to_owned()) } else { Ok(()) }
            }
        }
    });
    let mut limits = adjutant::Limits::default();
    limits.instances_max = targets;
    let builder = Engine::builder().limits(limits).max_concurrent(64);
    let engine = builder.executor("random", closure).open().await.expect("it opens");
    register(&engine, "random", targets).await;
    let request = RunCommand::shell("x").on(names(targets)).max_errors(errors);
    let request = request.max_concurrency(at_a_time);
    let max = errors.of(targets as u64) as usize;
    let mut feed = engine.follow();
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    let (mut failed, mut late_starts) = (0, 0);
    let status = loop {
        match within(feed.next()).await.expect("it goes on") {
            Notice::Status { status, .. } => {
                late_starts += usize::from(status == Running && failed > max);
                failed += usize::from(status == ExecutionStatus::Error);
            }
            Notice::Finished { status, .. } => break status,
            _ => {}
        }
    };
    let finished = wait(&engine, &id).await;
    let of = |wanted| statuses(&finished).iter().filter(|status| **status == wanted).count();
    let (succeeded, errors, cancelled) = (of(Success), of(ExecutionStatus::Error), of(Cancelled));
    let told =
        format!("seed {seed}: {succeeded} + {errors} + {cancelled} of {targets}, {max} may fail");
    assert_eq!(late_starts, 0, "{told}");
    assert_eq!(succeeded + errors + cancelled, targets, "{told}");
    if errors > max {
        assert!(errors <= max + at_a_time as usize, "{told}");
        assert_eq!(status, InvocationStatus::PartialFailed, "{told}");
    } else {
        assert_eq!(cancelled, 0, "{told}");
    }
    for result in finished.results.iter().filter(|result| result.status == Cancelled) {
        assert_eq!(result.error_code, "MaxErrorsExceeded");
        assert!(
            result.start_time.is_none() && result.error_info.contains("MaxErrors"),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn nothing_starts_once_too_many_have_failed() {
    for seed in 0..4 {
        run_with_errors(seed, 1_000, Share::from(5), 10).await;
        run_with_errors(seed, 1_000, Share::percent(1), 64).await;
    }
    run_with_errors(9, 200, Share::percent(100), 10).await;
    run_with_errors(9, 200, Share::from(0), 1).await;
}

#[tokio::test]
async fn what_was_to_be_tried_again_is_called_off_too() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let retry = serde_json::from_value(serde_json::json!({"MaxAttempts": 3, "BackoffSeconds": 60}));
    let request = RunCommand::shell("exit:1").on(["i-1", "i-2"]).timeout(10).max_errors(0);
    let request = request.retry(retry.expect("a retry"));
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    let mut ended = std::pin::pin!(engine.wait(&id));
    let ended = loop {
        tokio::select! {
            ended = &mut ended => break ended.expect("it ends"),
            () = clock.sleeping(1) => clock.advance(Duration::from_secs(1)),
        }
        tokio::task::yield_now().await;
    };
    // The last attempts may end in one commit.
    let ended = statuses(&ended);
    assert!(matches!(ended[..], [Failed, Failed | Cancelled] | [Cancelled, Failed]), "{ended:?}");
}

/// Answers each wave with the next of some decisions, and keeps what it was asked.
#[derive(Clone, Default)]
struct Decisions(Arc<Mutex<(Vec<EndedWave>, Vec<WaveDecision>)>>);

impl WaveGate for Decisions {
    async fn decide(&self, wave: EndedWave) -> WaveDecision {
        let mut state = self.0.lock().expect("nobody panics");
        state.0.push(wave);
        if state.1.is_empty() { WaveDecision::Proceed } else { state.1.remove(0) }
    }
}

fn waves() -> [Share; 3] {
    [Share::from(1), Share::percent(50), Share::percent(100)]
}

async fn timed(builder: EngineBuilder, clock: &ManualClock, count: usize) -> (Engine, Gate) {
    gated(builder.clock(clock.clone()), count).await
}

#[tokio::test]
async fn waves_come_one_after_another_with_time_between() {
    let clock = clock();
    let (engine, gate) = timed(Engine::builder(), &clock, 6).await;
    // In the order of the request, not of the instances.
    let order = ["i-4", "i-2", "i-6", "i-1", "i-5", "i-3"];
    let request = RunCommand::shell("x").on(order).waves(waves()).wave_soak(30).timeout(1_000);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    let mut ran = 0;
    for wave in [1, 2, 3] {
        within(gate.arrivals(wave)).await;
        assert_eq!(count(&engine, id, Running).await, wave as usize);
        let status = engine.describe_invocations(DescribeInvocations::default()).await;
        assert_eq!(
            status.expect("readable").invocations[0].status,
            match wave {
                3 => InvocationStatus::Running,
                _ => InvocationStatus::Pending,
            }
        );
        gate.let_go(wave as usize);
        ran += wave as usize;
        if ran < 6 {
            reaches(&engine, id, Success, ran).await;
            // Whatever runs has its own timeout to wait for; nothing does.
            pass(&clock, 29).await;
            assert_eq!((gate.waiting(), count(&engine, id, Pending).await), (0, 6 - ran));
            tick(&clock, 0, 1).await;
        }
    }
    let finished = wait(&engine, &id).await;
    let mut by_start: Vec<&InvocationResult> = finished.results.iter().collect();
    by_start.sort_by_key(|result| (result.start_time, result.execution_id));
    let started: Vec<_> = by_start.iter().map(|result| result.instance_id.as_str()).collect();
    assert_eq!(started, order);
}

#[tokio::test]
async fn a_gate_decides_about_each_wave_but_the_first() {
    let check = async |decisions: Vec<WaveDecision>, asked: &[u64], want: [ExecutionStatus; 4]| {
        let clock = clock();
        let gate = Decisions::default();
        gate.0.lock().expect("free").1 = decisions;
        let builder = Engine::builder().wave_gate(gate.clone());
        let engine = open(builder, &clock).await;
        register(&engine, "script", 4).await;
        let request = RunCommand::shell("exit:0").on(names(4)).waves(waves()).timeout(1_000);
        let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
        let watched = async {
            while let Some(event) = watch.next().await.expect("readable") {
                if matches!(event, adjutant::Event::Finished { .. }) {
                    break;
                }
            }
        };
        tokio::pin!(watched);
        loop {
            tokio::select! {
                () = &mut watched => break,
                () = clock.sleeping(1) => clock.advance(Duration::from_secs(20)),
            }
            tokio::task::yield_now().await;
        }
        let finished = wait(&engine, &run.invoke_id).await;
        assert_eq!(statuses(&finished), want);
        let waves = gate.0.lock().expect("free").0.clone();
        let told: Vec<_> = waves.iter().map(|wave| wave.succeeded).collect();
        assert_eq!(told, asked);
        assert!(waves.iter().all(|wave| wave.total == 4 && wave.invoke_id == run.invoke_id));
        finished
    };
    use WaveDecision::{Halt, Proceed, Wait};
    check(vec![Proceed, Proceed], &[1, 2], [Success; 4]).await;
    check(vec![Wait(Duration::from_secs(5)), Proceed], &[1, 1, 2], [Success; 4]).await;
    let halt = vec![Proceed, Halt("too warm".to_owned())];
    let halted = check(halt, &[1, 2], [Success, Success, Cancelled, Cancelled]).await;
    assert_eq!(halted.results[3].error_code, "WaveHalted");
    assert_eq!(halted.results[3].stop_reason, "too warm");
}

#[tokio::test]
async fn a_wave_whose_targets_were_all_stopped_is_passed_over() {
    let (engine, gate) = gated(Engine::builder(), 4).await;
    let request = RunCommand::shell("x").on(names(4)).waves([Share::from(1), Share::from(2)]);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    within(gate.arrivals(1)).await;
    engine.stop_invocation(StopInvocation::new(id).on(["i-2"])).await.expect("it is a target");
    gate.let_go(3);
    let finished = wait(&engine, &id).await;
    assert_eq!(statuses(&finished), [Success, Cancelled, Success, Success]);
}

/// It would be due for ever, and nothing else would be.
#[tokio::test]
async fn a_fire_that_ends_between_two_waves_is_in_nobodys_way() {
    let clock = clock();
    let (engine, gate) = timed(Engine::builder(), &clock, 2).await;
    let request = || RunCommand::shell("x").on(names(2)).waves([1]).wave_soak(30).timeout(1_000);
    let stopped = engine.run_command(request()).await.expect("sound").invoke_id;
    let goes_on = engine.run_command(request()).await.expect("sound").invoke_id;
    within(gate.arrivals(2)).await;
    gate.let_go(3);
    for id in [stopped, goes_on] {
        reaches(&engine, id, Success, 1).await;
    }
    engine.stop_invocation(StopInvocation::new(stopped)).await.expect("it exists");
    assert_eq!(statuses(&wait(&engine, &stopped).await), [Success, Cancelled]);
    tick(&clock, 0, 31).await;
    assert_eq!(statuses(&wait(&engine, &goes_on).await), [Success; 2]);
    // The scheduler sleeps: there is nothing for it to do.
    within(clock.sleeping(1)).await;
}

#[tokio::test]
async fn what_waits_for_a_cancelled_execution_goes_on() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let retry =
        serde_json::from_value(serde_json::json!({"MaxAttempts": 2, "BackoffSeconds": 600}));
    let request = RunCommand::shell("exit:1").on(["i-1"]).timeout(10).deadline(60);
    let request = request.retry(retry.expect("a retry")).overlap_policy(OverlapPolicy::Queue);
    let id =
        engine.run_command(request.frequency("0 0 0 1 1 ? 2099")).await.expect("sound").invoke_id;
    // The first waits to be tried again, and the second for that.
    let mut feed = engine.follow();
    let attempts = async |feed: &mut adjutant::Feed, wanted: usize| {
        let mut failed = 0;
        while failed < wanted {
            let notice = within(feed.next()).await.expect("it goes on");
            failed += usize::from(matches!(notice, Notice::Status { status: Failed, .. }));
        }
    };
    engine.run_now(&id).await.expect("it repeats");
    attempts(&mut feed, 1).await;
    within(clock.sleeping(1)).await;
    clock.advance(Duration::from_secs(30));
    engine.run_now(&id).await.expect("it repeats");
    tick(&clock, 0, 31).await;
    attempts(&mut feed, 1).await;
}

#[tokio::test]
async fn whoever_waits_for_an_instance_is_not_forgotten() {
    // Each ends somebody's wait in another way; what is behind has its turn.
    let check = async |what: &str| {
        let (engine, gate) = gated(Engine::builder(), 0).await;
        let narrow = || Instance::new("narrow").executor("gate");
        engine.register_instance(narrow().max_concurrency(1)).await.expect("sound");
        let mut ids = Vec::new();
        for _ in 0..4 {
            let request = RunCommand::shell("x").on(["narrow"]).concurrency_key("k");
            ids.push(engine.run_command(request).await.expect("sound").invoke_id);
        }
        within(gate.arrivals(1)).await;
        match what {
            "a bound that is lifted" => {
                engine.register_instance(narrow()).await.expect("sound");
            }
            "a stop" => {
                let stop = StopInvocation::new(ids[1]);
                engine.stop_invocation(stop).await.expect("it exists");
            }
            _ => unreachable!("{what}"),
        }
        gate.let_go(4);
        let mut ended = Vec::new();
        for id in &ids {
            ended.extend(statuses(&wait(&engine, id).await));
        }
        let cancelled = ended.iter().filter(|status| **status == Cancelled).count();
        assert_eq!(cancelled, usize::from(what == "a stop"), "{what}: {ended:?}");
    };
    check("a bound that is lifted").await;
    check("a stop").await;
}

/// The fire was given up with those of its executions that had not started.
#[tokio::test]
async fn another_attempt_starts_after_the_start_deadline() {
    let clock = clock();
    let (engine, gate) = timed(Engine::builder().max_concurrent(1), &clock, 1).await;
    let scripts = with_script(&engine).await;
    let retry = serde_json::from_value(serde_json::json!({"MaxAttempts": 2, "BackoffSeconds": 5}));
    let request = RunCommand::shell("exit:1").on([scripts]).start_deadline(10).timeout(1_000);
    let request = request.retry(retry.expect("a retry"));
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    reaches(&engine, id, ExecutionStatus::Scheduled, 1).await;
    // Another takes the one place until it is too late for first attempts.
    let other = RunCommand::shell("x").on(["i-1"]).timeout(1_000);
    engine.run_command(other).await.expect("sound");
    within(gate.arrivals(1)).await;
    tick(&clock, 1, 6).await;
    reaches(&engine, id, Pending, 1).await;
    tick(&clock, 1, 6).await;
    within(clock.sleeping(2)).await;
    gate.let_go(1);
    assert_eq!(statuses(&wait(&engine, &id).await), [Failed]);
}

/// Registers an instance that does as its script says.
async fn with_script(engine: &Engine) -> &'static str {
    engine.register_instance(Instance::new("script").executor("script")).await.expect("sound");
    "script"
}

#[tokio::test]
async fn what_does_not_start_in_time_never_does() {
    let clock = clock();
    let (engine, gate) = timed(Engine::builder().max_concurrent(1), &clock, 3).await;
    let request = RunCommand::shell("x").on(names(3)).start_deadline(10).timeout(1_000);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    within(gate.arrivals(1)).await;
    tick(&clock, 1, 10).await;
    within(clock.sleeping(2)).await;
    assert_eq!(count(&engine, id, Pending).await, 2);
    tick(&clock, 1, 1).await;
    reaches(&engine, id, Aborted, 2).await;
    gate.let_go(1);
    let finished = wait(&engine, &id).await;
    assert_eq!((gate.waiting(), finished.status), (0, InvocationStatus::PartialFailed));
    for late in &finished.results[1..] {
        assert_eq!((late.status, late.error_code.as_str()), (Aborted, "StartDeadlineExceeded"));
        assert!(late.start_time.is_none());
    }
}

#[tokio::test]
async fn all_of_an_invocation_ends_by_its_deadline() {
    let clock = clock();
    let builder = Engine::builder().max_concurrent(1).clock(clock.clone());
    let engine = with_executors(builder).open().await.expect("it opens");
    register(&engine, "script", 3).await;
    let request = RunCommand::shell("hang").on(names(3)).deadline(20).timeout(86_000);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    tick(&clock, 1, 20).await;
    within(clock.sleeping(2)).await;
    assert_eq!(count(&engine, id, Running).await, 1);
    tick(&clock, 1, 1).await;
    reaches(&engine, id, Cancelled, 2).await;
    let mut finished = std::pin::pin!(engine.wait(&id));
    let finished = loop {
        tokio::select! {
            finished = &mut finished => break finished.expect("it ends"),
            () = clock.sleeping(1) => clock.advance(Duration::from_secs(40)),
        }
        // The order to stop has to come through before the run's own time is up.
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    };
    // A closure that does not stop is dropped, which is an end of another kind.
    let ended = statuses(&finished);
    assert!(matches!(ended[0], Terminated | ExecutionStatus::Error), "{ended:?}");
    assert_eq!(ended[1..], [Cancelled; 2]);
    for result in &finished.results {
        assert_eq!(result.stop_cause, Some(adjutant::StopReason::Deadline));
    }
    assert_eq!(finished.results[2].error_code, "DeadlineExceeded");
}

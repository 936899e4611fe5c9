//! Repeating invocations on a clock that the test moves: fires exactly at their nominal times.

use std::time::Duration;

use adjutant::{
    Clock, DescribeFires, DescribeInvocations, Engine, EngineBuilder, ExecutionStatus,
    FireDisposition, InvocationStatus, InvokeId, ManualClock, MissedPolicy, OverlapPolicy,
    RunCommand, StopInvocation,
};
use chrono::TimeDelta;

use crate::support::{Gate, Place, history, pages, register, register_in_zones, wait, within};
use crate::tzif;

pub fn clock() -> ManualClock {
    ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"))
}

pub async fn open(builder: EngineBuilder, clock: &ManualClock) -> Engine {
    let builder = crate::support::with_executors(builder).clock(clock.clone());
    let engine = builder.open().await.expect("it opens");
    register(&engine, "script", 2).await;
    engine
}

/// Lets time pass in steps that the engine keeps up with.
pub async fn pass(clock: &ManualClock, seconds: u64) {
    let mut left = seconds;
    while left > 0 {
        let step = left.min(10);
        within(clock.sleeping(1)).await;
        clock.advance(Duration::from_secs(step));
        left -= step;
    }
    within(clock.sleeping(1)).await;
}

/// What became of the nominal times, oldest first: the time of day, or a stretch and its count.
pub async fn fires(engine: &Engine, invoke_id: InvokeId) -> Vec<String> {
    let request = DescribeFires::new(invoke_id).max_results(50);
    let page = engine.describe_fires(request).await.expect("it exists");
    let told = page.fires.iter().rev().map(|fire| {
        let time = fire.time.format("%H:%M:%S").to_string();
        let what = match fire.disposition {
            FireDisposition::Started => "",
            FireDisposition::Skipped => " skipped",
            FireDisposition::Missed => " missed",
        };
        let stretch = fire.until.map_or_else(String::new, |until| {
            format!("..{} x{}", until.format("%H:%M:%S"), fire.count)
        });
        format!("{time}{stretch}{what}")
    });
    told.collect()
}

/// Waits until so many executions of an invocation have ended.
pub async fn ended(engine: &Engine, invoke_id: InvokeId, count: usize) -> Vec<ExecutionStatus> {
    let mut watch = engine.watch(&invoke_id).await.expect("it exists");
    loop {
        let results = history(engine, invoke_id).await;
        let statuses: Vec<_> = results.iter().map(|result| result.status).collect();
        if statuses.len() >= count && statuses.iter().all(|status| status.is_final()) {
            return statuses;
        }
        within(watch.next()).await.expect("readable");
    }
}

pub async fn status(engine: &Engine, invoke_id: InvokeId) -> InvocationStatus {
    let filter = DescribeInvocations::default().invoke_id(invoke_id);
    engine.describe_invocations(filter).await.expect("it exists").invocations[0].status
}

#[tokio::test]
async fn a_rate_fires_on_its_grid_and_not_at_once() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1", "i-2"]).timeout(10).frequency("rate(60s)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    assert_eq!(status(&engine, id).await, InvocationStatus::Scheduled);
    pass(&clock, 59).await;
    assert_eq!(fires(&engine, id).await, [""; 0]);
    pass(&clock, 1).await;
    assert_eq!(ended(&engine, id, 2).await, [ExecutionStatus::Success; 2]);
    pass(&clock, 125).await;
    assert_eq!(ended(&engine, id, 6).await, [ExecutionStatus::Success; 6]);
    assert_eq!(fires(&engine, id).await, ["00:01:00", "00:02:00", "00:03:00"]);
    assert_eq!(status(&engine, id).await, InvocationStatus::Scheduled);

    engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
    let finished = wait(&engine, &id).await;
    assert_eq!((finished.status, finished.results.len()), (InvocationStatus::Success, 2));
    pass(&clock, 120).await;
    assert_eq!(fires(&engine, id).await.len(), 3);
}

#[tokio::test]
async fn an_instant_fires_once_and_ends_the_invocation() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request =
        RunCommand::shell("exit:4").on(["i-1"]).frequency("at(2026-01-01 01:00:30 GMT+1:00)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 40).await;
    let finished = wait(&engine, &id).await;
    assert_eq!(finished.status, InvocationStatus::Failed);
    assert_eq!(fires(&engine, id).await, ["00:00:30"]);
}

#[tokio::test]
async fn a_cron_without_a_zone_follows_the_clock_of_each_instance() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    register_in_zones(&engine, &[("i-1", "Asia/Kolkata"), ("i-2", "UTC")]).await;
    // Half past each hour in Kolkata is the full hour in UTC.
    let request = RunCommand::shell("exit:0").on(["i-1", "i-2"]).frequency("0 1 * * * ?");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 1_900).await;
    ended(&engine, id, 2).await;
    assert_eq!(fires(&engine, id).await, ["00:01:00", "00:31:00"]);
}

#[tokio::test]
async fn an_invocation_keeps_the_zones_that_its_instances_had_when_it_was_made() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    register_in_zones(&engine, &[("i-1", "UTC")]).await;
    let made = async || {
        let request = RunCommand::shell("exit:0").on(["i-1"]).frequency("0 1 * * * ?");
        engine.run_command(request).await.expect("sound").invoke_id
    };
    let before = made().await;
    register_in_zones(&engine, &[("i-1", "Asia/Kolkata")]).await;
    let after = made().await;
    pass(&clock, 1_900).await;
    ended(&engine, before, 1).await;
    ended(&engine, after, 1).await;
    assert_eq!(fires(&engine, before).await, ["00:01:00"]);
    assert_eq!(fires(&engine, after).await, ["00:31:00"]);
}

#[tokio::test]
async fn a_fire_does_not_overtake_the_execution_before_it() {
    let check = async |policy, want: &[ExecutionStatus], second: &str| {
        let clock = clock();
        let gate = Gate::new();
        let engine = open(gate.plug_in(Engine::builder()), &clock).await;
        register(&engine, "gate", 1).await;
        let request = RunCommand::shell("x").on(["i-1"]).timeout(59).frequency("rate(60s)");
        let id = engine.run_command(request.overlap_policy(policy)).await.expect("sound").invoke_id;
        pass(&clock, 60).await;
        within(gate.arrivals(1)).await;
        // The timeout is short of the interval; only a slow end can overlap.
        clock.set_realtime("2026-01-01T00:02:00Z".parse().expect("a time"));
        pass(&clock, 40).await;
        if policy == OverlapPolicy::Allow {
            within(gate.arrivals(1)).await;
        }
        gate.let_go(2);
        assert_eq!(ended(&engine, id, 2).await, want);
        assert_eq!(fires(&engine, id).await, ["00:01:00", second]);
    };
    use ExecutionStatus::{Skipped, Success};
    check(OverlapPolicy::Skip, &[Success, Skipped], "00:02:00 skipped").await;
    check(OverlapPolicy::Allow, &[Success, Success], "00:02:00").await;
}

#[tokio::test]
async fn what_was_slept_through_is_recorded_and_run_as_the_policy_says() {
    let check = async |policy, away_s: u64, want: &[&str]| {
        let clock = clock();
        let place = Place::new();
        let engine = open(Engine::builder().path(place.database()), &clock).await;
        let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
        let id = engine.run_command(request.missed_policy(policy)).await.expect("sound").invoke_id;
        engine.shutdown(Duration::ZERO).await;
        drop(engine);
        clock.advance(Duration::from_secs(away_s));
        let engine = open(Engine::builder().path(place.database()), &clock).await;
        within(clock.sleeping(1)).await;
        assert_eq!(fires(&engine, id).await, want, "{policy:?} {away_s}");
        // The grid goes on as if nothing had been.
        pass(&clock, 60).await;
        assert_eq!(fires(&engine, id).await.len(), want.len() + 1);
    };
    check(MissedPolicy::Skip, 61, &["00:01:00"]).await;
    check(MissedPolicy::Skip, 600, &["00:01:00..00:09:00 x9 missed", "00:10:00"]).await;
    check(MissedPolicy::Latest, 30 * 86_400, &["00:01:00..23:59:00 x43199 missed", "00:00:00"])
        .await;
    check(MissedPolicy::All(2), 630, &["00:01:00..00:08:00 x8 missed", "00:09:00", "00:10:00"])
        .await;
    let at_59 = 600 + 59;
    check(MissedPolicy::Skip, at_59, &["00:01:00..00:09:00 x9 missed", "00:10:00"]).await;
}

#[tokio::test]
async fn a_clock_set_back_fires_no_time_twice() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 120).await;
    clock.set_realtime("2026-01-01T00:00:30Z".parse().expect("a time"));
    pass(&clock, 120).await;
    assert_eq!(fires(&engine, id).await, ["00:01:00", "00:02:00"]);
    pass(&clock, 60).await;
    assert_eq!(fires(&engine, id).await, ["00:01:00", "00:02:00", "00:03:00"]);
}

#[tokio::test]
async fn a_pause_that_outlasts_the_schedule_ends_the_invocation_when_it_is_resumed() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).frequency("at(2026-01-01 00:00:30)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.pause_invocation(&id).await.expect("it repeats");
    pass(&clock, 60).await;
    assert_eq!(status(&engine, id).await, InvocationStatus::Scheduled);
    let error = engine.resume_invocation(&id).await.expect_err("nothing is left to fire");
    assert_eq!(error.code(), "InvalidStatus.InvocationEnded");
    assert_eq!(fires(&engine, id).await, ["00:00:30..00:00:30 x1 skipped"]);
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Failed);
}

/// Why the last stretch of an invocation was missed, after its machine slept for an hour.
async fn reason_after_an_hour_asleep(clock: &ManualClock, engine: &Engine, id: InvokeId) -> String {
    within(clock.sleeping(1)).await;
    clock.set_realtime(clock.realtime() + TimeDelta::hours(1));
    // The sleep that was under way until the next nominal time ends a little late, as all do.
    clock.advance(Duration::from_millis(10_005));
    within(clock.sleeping(1)).await;
    let request = DescribeFires::new(id).max_results(50);
    let fires = engine.describe_fires(request).await.expect("it exists").fires;
    let missed = fires.into_iter().find(|fire| fire.disposition == FireDisposition::Missed);
    missed.expect("an hour was missed").reason
}

#[tokio::test]
async fn a_machine_that_slept_is_not_taken_for_a_busy_engine() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 50).await;
    let reason = reason_after_an_hour_asleep(&clock, &engine, id).await;
    let want = "the clock was set forward or the machine slept, \
        from 2026-01-01T00:00:30Z to 2026-01-01T01:01:00Z";
    assert_eq!(reason, want);
}

#[tokio::test]
async fn an_engine_whose_clock_is_set_back_still_ran() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    clock.set_realtime("2025-12-31T12:00:00Z".parse().expect("a time"));
    pass(&clock, 30).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 50).await;
    let reason = reason_after_an_hour_asleep(&clock, &engine, id).await;
    assert!(reason.starts_with("the clock was set forward or the machine slept"), "{reason}");
}

#[tokio::test]
async fn schedules_that_cannot_be_are_refused_and_nothing_is_stored() {
    let engine = pages().await;
    let check = async |frequency: &str, timeout, want: &str| {
        let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(timeout).frequency(frequency);
        let error = engine.run_command(request).await.expect_err("refused");
        assert_eq!(error.code(), "InvalidParam.Frequency", "{frequency}: {error}");
        assert!(error.to_string().contains(want), "{frequency}: {error}");
    };
    check("rate(59s)", 10, "59").await;
    check("rate(8d)", 10, "604800 s").await;
    check("rate(60s)", 60, "timeout").await;
    check("*/5 * * * * ?", 1, "10 s").await;
    check("0 * * * * ?", 61, "timeout").await;
    check("at(2020-01-01 00:00:00)", 10, "2020").await;
    check("0 0 0 30 2 ?", 10, "at byte 6").await;
    check("0 0 0 1 1 ? EST", 10, "America/New_York").await;
    let none = engine.describe_invocations(Default::default()).await.expect("a page");
    assert_eq!(none.invocations, []);

    let period = r#"{"Type":"RunShellScript","CommandContent":"exit:0","InstanceId":["i-1"],"RepeatMode":"Period"}"#;
    let request: RunCommand = serde_json::from_str(period).expect("it reads");
    let error = engine.run_command(request).await.expect_err("no frequency");
    assert_eq!(error.code(), "MissingParam.Frequency");
}

#[tokio::test]
async fn an_instance_can_be_taken_out_of_a_schedule() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1", "i-2"]).timeout(10).frequency("rate(60s)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.stop_invocation(StopInvocation::new(id).on(["i-2"])).await.expect("a target");
    pass(&clock, 60).await;
    assert_eq!(ended(&engine, id, 1).await, [ExecutionStatus::Success]);
    engine.stop_invocation(StopInvocation::new(id).on(["i-1"])).await.expect("a target");
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success);
}

#[tokio::test]
async fn more_late_fires_than_are_known_at_a_time_all_run() {
    const TIMES: u32 = 2_500;
    let clock = clock();
    let place = Place::new();
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let request = request.overlap_policy(OverlapPolicy::Allow).max_fires(TIMES.into());
    let request = request.missed_policy(MissedPolicy::All(TIMES));
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    clock.advance(Duration::from_secs(60 * u64::from(TIMES)));
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success);
}

#[tokio::test]
async fn a_schedule_whose_zone_has_no_file_for_a_while_fires_when_the_file_is_back() {
    let rename = |from: &str, to: &str| {
        format!(
            "UPDATE timers SET zone = replace(zone, '{from}', '{to}');
             UPDATE invocations SET frequency = replace(frequency, '{from}', '{to}')"
        )
    };
    let (built_in, own) = ("Asia/Tokyo", "Mars/Olympus");
    let (place, clock) = (Place::new(), clock());
    // A watch would be told that the zone is missing.
    let fires = async |engine: &Engine, invoke_id: InvokeId, count: usize| {
        loop {
            let results = history(engine, invoke_id).await;
            let ended = results.iter().filter(|result| result.status.is_final());
            if ended.count() >= count {
                return;
            }
            clock.advance(Duration::from_secs(1));
        }
    };
    let request = |frequency: &str| {
        let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(5).frequency(frequency);
        request.missed_policy(MissedPolicy::Latest)
    };
    let engine = open(place.builder(), &clock).await;
    let other = engine.run_command(request("0/10 * * * * ? UTC")).await.expect("sound").invoke_id;
    let request = request(&format!("0/10 * * * * ? {built_in}"));
    let schedule = engine.run_command(request).await.expect("sound").invoke_id;
    within(fires(&engine, schedule, 1)).await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    file.execute_batch(&rename(built_in, own)).expect("sound SQL");

    let engine = open(place.builder(), &clock).await;
    within(fires(&engine, other, 12)).await;
    let error =
        engine.explain(&schedule, clock.realtime()).await.expect_err("no file says its times");
    assert_eq!(error.code(), "Storage.ZoneMissing", "{error}");
    assert!(error.to_string().contains("zone Mars/Olympus has no sound file here"), "{error}");
    file.execute_batch(&rename(own, built_in)).expect("sound SQL");
    within(fires(&engine, schedule, 4)).await;
}

#[tokio::test]
async fn an_instance_whose_zone_has_no_file_runs_all_but_schedules_in_its_clock() {
    const ZONE: &str = "Mars/Olympus";
    let (place, clock) = (Place::new(), clock());
    let request = |frequency: &str| {
        let request = RunCommand::shell("exit:0").on(["a"]).frequency(frequency);
        request.missed_policy(MissedPolicy::Latest).overlap_policy(OverlapPolicy::Allow)
    };
    let invoke = async |engine: &Engine, request: RunCommand| {
        engine.run_command(request).await.map(|response| response.invoke_id)
    };
    let fired = async |engine: &Engine, invoke_id: InvokeId, more: usize| {
        let before = history(engine, invoke_id).await.len();
        let fires = async {
            while history(engine, invoke_id).await.len() < before + more {
                clock.advance(Duration::from_secs(1));
            }
        };
        within(fires).await;
    };
    let engine = open(place.builder(), &clock).await;
    register_in_zones(&engine, &[("a", "Asia/Tokyo"), ("b", "Asia/Tokyo")]).await;
    let local = invoke(&engine, request("0/10 * * * * ?")).await.expect("sound");
    let rate = invoke(&engine, request("rate(10s)")).await.expect("sound");
    let named = invoke(&engine, request("0/10 * * * * ? UTC")).await.expect("sound");
    fired(&engine, local, 1).await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let set_zone = |from: &str, to: &str, of: &str| {
        let sql = format!(
            "UPDATE instances SET time_zone = '{to}' WHERE instance_id {of} AND time_zone = '{from}';
             UPDATE timers SET zone = '{to}' WHERE zone = '{from}'"
        );
        file.execute_batch(&sql).expect("sound SQL");
    };
    set_zone("Asia/Tokyo", ZONE, "= 'a'");

    let engine = open(place.builder(), &clock).await;
    let find = async || {
        let request = adjutant::DescribeInstances::default();
        let listed = engine.describe_instances(request).await.expect("one zone hides no instance");
        let found = listed.instances.into_iter().find(|found| found.instance_id == "a".into());
        found.expect("it is listed")
    };
    let instance = find().await;
    let zone = instance.time_zone.expect("a zone");
    assert_eq!((&*zone.name(), zone.has_rules()), (ZONE, false));
    assert_eq!(zone.abbreviation(clock.realtime()), "-00", "not UTC");
    let at_noon: adjutant::schedule::Schedule = "0 0 12 * * ?".parse().expect("a schedule");
    let timetable = at_noon.bind(clock.realtime(), zone);
    assert_eq!(timetable.next_after(clock.realtime()), None, "nothing fires in UTC");
    engine.register_instance(instance).await.expect("what is listed can be registered again");
    assert_eq!(find().await.time_zone, Some(zone));

    let plain = RunCommand::shell("exit:0").on(["a"]);
    let plain = invoke(&engine, plain).await.expect("a command needs no clock");
    assert_eq!(wait(&engine, &plain).await.status, InvocationStatus::Success);
    let waits = history(&engine, local).await.len();
    for frequency in ["0/10 * * * * ? UTC", "rate(10s)"] {
        let other = invoke(&engine, request(frequency)).await.expect("it follows another clock");
        fired(&engine, other, 2).await;
    }
    for other in [rate, named] {
        fired(&engine, other, 2).await;
    }
    let error = invoke(&engine, request("0/10 * * * * ?")).await.expect_err("no clock to follow");
    assert_eq!(error.code(), "InvalidParam.Frequency", "{error}");
    let says = "the clock of `a`, whose zone Mars/Olympus has no sound file here";
    assert!(error.to_string().contains(says), "{error}");
    invoke(&engine, request("0/10 * * * * ?").on(["b"])).await.expect("its zone has rules");
    assert_eq!(history(&engine, local).await.len(), waits, "it fires by no other clock");
    let error = engine.explain(&local, clock.realtime()).await.expect_err("no clock to follow");
    assert_eq!(error.code(), "Storage.ZoneMissing", "{error}");

    set_zone(ZONE, "Asia/Tokyo", "= 'a'");
    fired(&engine, local, 3).await;
    for id in [local, rate, named] {
        let results = history(&engine, id).await;
        let ended = results.iter().map(|result| result.status).filter(|status| status.is_final());
        let ended: Vec<_> = ended.collect();
        assert!(ended.iter().all(|status| *status == ExecutionStatus::Success), "{ended:?}");
    }
}

/// The zone files are those of a process, so that the test has a process of its own, this program once more.
#[tokio::test]
async fn an_engine_plans_again_while_it_runs_once_the_zone_files_have_changed() {
    const MARK: &str = "ADJUTANT_TEST_ZONES_CHANGE";
    if std::env::var_os(MARK).is_none() {
        let name =
            "recurrence::an_engine_plans_again_while_it_runs_once_the_zone_files_have_changed";
        let place = Place::new();
        let zones = place.folder().join("zones");
        tzif::write(&zones, "2000a", &[]);
        let mut program =
            tokio::process::Command::new(std::env::current_exe().expect("this program"));
        program.args(["--exact", name, "--nocapture"]).env(MARK, "1").env("TZDIR", &zones);
        let output = within(program.kill_on_drop(true).output()).await.expect("it starts");
        let told = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && told.contains("1 passed"), "{told}{errors}");
        return;
    }
    let clock = ManualClock::at("2026-12-15T18:30:00Z".parse().expect("a time"));
    let engine = open(Engine::builder(), &clock).await;
    let invoke = async |frequency: &str| {
        let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(5).frequency(frequency);
        engine.run_command(request).await.expect("sound").invoke_id
    };
    let noon = invoke("0 0 12 * * ? America/Vancouver").await;
    let other = invoke("0 5 19 * * ? UTC").await;
    // By the new data, eleven has passed.
    let once = invoke("0 0 11 15 12 ? 2026 America/Vancouver").await;
    let waiter = engine.clone();
    let waits = tokio::spawn(async move { waiter.wait_status(&once).await });
    let zones = std::env::var_os("TZDIR").expect("a folder");
    tzif::write(zones.as_ref(), "9026b", &[("America/Vancouver", &tzif::vancouver())]);
    // Two looks, of which the second finds what the first has found.
    pass(&clock, 700).await;
    let status = within(waits).await.expect("no panic").expect("it ends");
    assert_eq!(status, InvocationStatus::Failed, "no time of it is left");
    pass(&clock, 1_800).await;
    ended(&engine, noon, 1).await;
    ended(&engine, other, 1).await;
    assert_eq!(fires(&engine, noon).await, ["19:00:00"]);
    assert_eq!(fires(&engine, other).await, ["19:05:00"]);
    assert_eq!(fires(&engine, once).await, [""; 0]);
}

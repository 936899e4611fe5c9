//! Why something did or did not run.

use std::time::Duration;

use adjutant::{
    Clock, DescribeInvocations, Engine, Explanation, InvokeId, OverlapPolicy, RunCommand,
    StopInvocation,
};
use chrono::{DateTime, TimeDelta, Utc};

use crate::recurrence::{clock, ended, open, pass};
use crate::support::{Place, register_in_zones};

async fn ask(engine: &Engine, id: InvokeId, at: &str) -> Explanation {
    let at: DateTime<Utc> = format!("2026-01-01T{at}Z").parse().expect("a time");
    engine.explain(&id, at).await.expect("it exists")
}

#[tokio::test]
async fn each_instant_has_its_reason() {
    let (clock, place) = (clock(), Place::new());
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let request = request.end_time("2026-01-01T01:00:00Z".parse().expect("a time"));
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 60).await;
    ended(&engine, id, 1).await;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    clock.advance(Duration::from_secs(300));
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    ended(&engine, id, 2).await;
    let check = async |at: &str, want: &str| {
        let told = ask(&engine, id, at).await;
        assert!(told.entries[0].text.contains(want), "{at}: {}", told.entries[0].text);
    };
    check("00:01:00", "It fired 0 s after its time. i-1 Success.").await;
    check("00:00:30", "is no nominal time of `rate(60s)`").await;
    check("00:03:00", "It was missed, with all 4 from 2026-01-01T00:02:00Z to").await;
    check("00:03:00", "no engine ran").await;
    check("00:03:01", "is no nominal time").await;
    check("00:06:00", "It fired 0 s after its time").await;
    check("00:07:00", "It is planned for 2026-01-01T00:07:00Z").await;
    check("01:01:00", "is after the end of the schedule").await;
    let told = ask(&engine, id, "00:03:30").await;
    let entry = &told.entries[0];
    assert_eq!(entry.before.as_ref().map(|fire| fire.count), Some(4));
    assert_eq!(entry.after, Some("2026-01-01T00:04:00Z".parse().expect("a time")));

    engine.pause_invocation(&id).await.expect("it repeats");
    check("00:07:00", "It pauses since 2026-01-01T00:06:00Z").await;
    pass(&clock, 60).await;
    engine.resume_invocation(&id).await.expect("it repeats");
    check("00:07:00", "the invocation paused").await;
    engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
    check("00:08:00", "Its schedule had been stopped").await;
}

#[tokio::test]
async fn a_leap_of_the_clock_is_told_from_an_engine_that_did_not_run() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    clock.set_realtime("2026-01-01T00:10:05Z".parse().expect("a time"));
    pass(&clock, 30).await;
    let told = ask(&engine, id, "00:03:00").await;
    let want = "the clock was set forward or the machine slept, from 2026-01-01T00:00:";
    assert!(told.entries[0].text.contains(want), "{}", told.entries[0].text);
}

#[tokio::test]
async fn a_clock_that_was_ahead_explains_missed_times_and_a_schedule_that_waits() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)");
    let request = request.overlap_policy(OverlapPolicy::Allow);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 60).await;
    clock.set_realtime(clock.realtime() + TimeDelta::minutes(10));
    pass(&clock, 150).await;
    clock.set_realtime(clock.realtime() - TimeDelta::minutes(10));
    pass(&clock, 40).await;
    let check = async |at: &str, want: &str| {
        let told = ask(&engine, id, at).await;
        assert!(told.entries[0].text.contains(want), "{at}: {}", told.entries[0].text);
    };
    check("00:02:00", "It was missed: the clock was set forward or the machine slept").await;
    check("00:07:00", "It is planned for 2026-01-01T00:07:00Z. A clock that was ahead").await;
    check("00:12:00", "s after its time, by a clock that was ahead. i-1 Success.").await;
    pass(&clock, 410).await;
    check("00:07:00", "It fired").await;
    check("00:20:00", "times up to 2026-01-01T00:13:00Z have records already").await;
    let filter = DescribeInvocations::default().invoke_id(id);
    let page = engine.describe_invocations(filter).await.expect("it exists");
    let invocation = &page.invocations[0];
    assert_eq!(invocation.dealt_until, Some("2026-01-01T00:13:00Z".parse().expect("a time")));
    assert_eq!(invocation.next_fire_time, Some("2026-01-01T00:14:00Z".parse().expect("a time")));
}

#[tokio::test]
async fn each_zone_and_each_run_beside_the_schedule_has_its_entry() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    register_in_zones(&engine, &[("i-1", "Asia/Kolkata"), ("i-2", "UTC")]).await;
    let request = RunCommand::shell("exit:0").on(["i-1", "i-2"]).frequency("0 1 * * * ?");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    pass(&clock, 60).await;
    engine.run_now(&id).await.expect("it repeats");
    let told = ask(&engine, id, "00:01:00").await;
    let zones: Vec<_> = told.entries.iter().map(|entry| entry.zone.as_str()).collect();
    assert_eq!(zones, ["Asia/Kolkata", "UTC", ""]);
    assert!(told.entries[0].text.contains("no nominal time"), "{}", told.entries[0].text);
    assert!(told.entries[1].text.contains("It fired"), "{}", told.entries[1].text);
    assert!(told.entries[2].text.contains("beside the schedule"), "{}", told.entries[2].text);
    assert_eq!(told.entries[2].executions.len(), 2);
    for extreme in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
        engine.explain(&id, extreme).await.expect("it exists");
    }
}

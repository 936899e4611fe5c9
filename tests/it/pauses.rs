//! Schedules that pause, end, are spread, or cannot be carried out any more.

use std::time::Duration;

use adjutant::{
    Clock, DescribeFires, DescribeInvocations, Engine, ExecutionStatus, InvocationStatus, InvokeId,
    MissedPolicy, RunCommand, StopInvocation,
};
use chrono::{DateTime, Utc};

use crate::recurrence::{clock, ended, fires, open, pass, status};
use crate::support::{Place, wait, within};

fn each_minute() -> RunCommand {
    RunCommand::shell("exit:0").on(["i-1"]).timeout(10).frequency("rate(60s)")
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

async fn next_fire(engine: &Engine, invoke_id: InvokeId) -> Option<DateTime<Utc>> {
    let filter = DescribeInvocations::default().invoke_id(invoke_id);
    engine.describe_invocations(filter).await.expect("it exists").invocations[0].next_fire_time
}

#[tokio::test]
async fn what_passes_in_a_pause_is_recorded_as_skipped() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let id = engine.run_command(each_minute()).await.expect("sound").invoke_id;
    pass(&clock, 60).await;
    engine.pause_invocation(&id).await.expect("it repeats");
    engine.pause_invocation(&id).await.expect("once more changes nothing");
    pass(&clock, 180).await;
    assert_eq!(fires(&engine, id).await, ["00:01:00"]);
    assert_eq!(status(&engine, id).await, InvocationStatus::Scheduled);
    engine.resume_invocation(&id).await.expect("it repeats");
    engine.resume_invocation(&id).await.expect("once more changes nothing");
    pass(&clock, 60).await;
    let want = ["00:01:00", "00:02:00..00:04:00 x3 skipped", "00:05:00"];
    assert_eq!(fires(&engine, id).await, want);
    let page = engine.describe_fires(DescribeFires::new(id)).await.expect("it exists");
    assert_eq!(page.fires[1].reason, "the invocation paused");
}

#[tokio::test]
async fn a_pause_survives_the_engine_and_a_run_now_does_not_end_it() {
    let (clock, place) = (clock(), Place::new());
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    let id = engine.run_command(each_minute()).await.expect("sound").invoke_id;
    engine.pause_invocation(&id).await.expect("it repeats");
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    clock.advance(Duration::from_secs(90));
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    engine.run_now(&id).await.expect("it repeats");
    pass(&clock, 60).await;
    assert_eq!(fires(&engine, id).await, ["00:01:30"]);
    engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
    let want = ["00:01:30", "00:01:00..00:02:00 x2 skipped"];
    assert_eq!(fires(&engine, id).await, want, "a stop leaves no nominal time without a record");
}

#[tokio::test]
async fn an_instant_that_passes_in_a_pause_ends_the_invocation() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).frequency("at(2026-01-01 00:01:00)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.pause_invocation(&id).await.expect("it repeats");
    pass(&clock, 120).await;
    let error = engine.resume_invocation(&id).await.expect_err("nothing is left of it");
    assert_eq!(error.code(), "InvalidStatus.InvocationEnded");
}

#[tokio::test]
async fn a_schedule_ends_after_so_many_fires() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let id = engine.run_command(each_minute().max_fires(2)).await.expect("sound").invoke_id;
    pass(&clock, 300).await;
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success);
    assert_eq!(fires(&engine, id).await, ["00:01:00", "00:02:00"]);
    assert_eq!(next_fire(&engine, id).await, None);
}

#[tokio::test]
async fn a_schedule_ends_at_a_time() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let request = each_minute().end_time(time("2026-01-01T00:02:00Z"));
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    assert_eq!(next_fire(&engine, id).await, Some(time("2026-01-01T00:01:00Z")));
    pass(&clock, 300).await;
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success);
    assert_eq!(fires(&engine, id).await, ["00:01:00", "00:02:00"]);
}

#[tokio::test]
async fn what_was_missed_does_not_count_and_no_time_after_the_end_is_owed() {
    let check = async |request: RunCommand, want: &[&str], status| {
        let (clock, place) = (clock(), Place::new());
        let engine = open(Engine::builder().path(place.database()), &clock).await;
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        engine.shutdown(Duration::ZERO).await;
        drop(engine);
        clock.advance(Duration::from_secs(3_600));
        let engine = open(Engine::builder().path(place.database()), &clock).await;
        assert_eq!(wait(&engine, &id).await.status, status);
        assert_eq!(fires(&engine, id).await, want);
    };
    let until_five = || each_minute().end_time(time("2026-01-01T00:05:30Z"));
    let missed = "00:01:00..00:05:00 x5 missed";
    check(until_five(), &[missed], InvocationStatus::Failed).await;
    check(
        until_five().missed_policy(MissedPolicy::Latest),
        &["00:01:00..00:04:00 x4 missed", "00:05:00"],
        InvocationStatus::Success,
    )
    .await;
    check(
        each_minute().max_fires(1).missed_policy(MissedPolicy::All(2)),
        &["00:01:00..00:58:00 x58 missed", "00:59:00"],
        InvocationStatus::Success,
    )
    .await;
}

#[tokio::test]
async fn spread_timers_fire_later_each_by_its_own() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let request = each_minute().spread(50);
        ids.push(engine.run_command(request).await.expect("sound").invoke_id);
    }
    for _ in 0..12 {
        pass(&clock, 10).await;
    }
    let mut delays = std::collections::BTreeSet::new();
    for id in ids {
        ended(&engine, id, 1).await;
        let page = engine.describe_fires(DescribeFires::new(id)).await.expect("it exists");
        let fire = page.fires.last().expect("it fired");
        assert_eq!(fire.time, time("2026-01-01T00:01:00Z"), "the nominal time stays");
        let delay = (fire.dealt_time - fire.time).num_seconds();
        // Time passes in steps of 10 s here.
        assert!((0..60).contains(&delay), "{delay} s");
        delays.insert(delay);
    }
    assert!(delays.len() >= 3, "{delays:?}");
}

#[tokio::test]
async fn bounds_of_a_schedule_are_checked() {
    let engine = crate::support::engine().await;
    let check = async |request: RunCommand, code: &str, want: &str| {
        let error = engine.run_command(request).await.expect_err("refused");
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(want), "{error}");
    };
    let once = || RunCommand::shell("exit:0").on(["i-1"]);
    check(each_minute().spread(86_401), "InvalidParam.Spread", "86400 s; it is 86401 s").await;
    check(each_minute().max_fires(0), "InvalidParam.MaxFires", "at least 1").await;
    check(each_minute().max_fires(u64::MAX), "InvalidParam.MaxFires", "at most").await;
    let past = time("2020-01-01T00:00:00Z");
    check(each_minute().end_time(past), "InvalidParam.EndTime", "2020-01-01T00:00:00Z").await;
    let all = MissedPolicy::All(100_001);
    check(each_minute().missed_policy(all), "InvalidParam.MissedPolicy", "All:100000").await;
    check(once().spread(1), "InvalidParam.Spread", "Frequency").await;
    check(once().max_fires(1), "InvalidParam.MaxFires", "Frequency").await;
    check(once().end_time(past), "InvalidParam.EndTime", "Frequency").await;
    let none = engine.describe_invocations(Default::default()).await.expect("a page");
    assert_eq!(none.invocations, []);
}

/// Changes a closed file behind the engine's back.
fn tamper(place: &Place, sql: &str) {
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    assert_eq!(file.execute(sql, ()).expect("sound SQL"), 1, "{sql}");
}

#[tokio::test]
async fn a_schedule_that_cannot_be_carried_out_ends_with_a_record_and_holds_up_nobody() {
    let (clock, place) = (clock(), Place::new());
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    let broken = engine.run_command(each_minute()).await.expect("sound").invoke_id;
    let sound = engine.run_command(each_minute()).await.expect("sound").invoke_id;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    tamper(&place, "UPDATE invocations SET frequency = 'when pigs fly' WHERE id = 1");
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    pass(&clock, 60).await;
    ended(&engine, sound, 1).await;
    assert_eq!(fires(&engine, sound).await, ["00:01:00"]);
    assert_eq!(wait(&engine, &broken).await.status, InvocationStatus::Failed);
    let page = engine.describe_fires(DescribeFires::new(broken)).await.expect("it exists");
    assert!(page.fires[0].reason.contains("pigs"), "{}", page.fires[0].reason);
    assert_eq!(fires(&engine, broken).await, ["00:01:00 skipped"]);
}

/// The record of the last fire of one timer cannot be read. The timer has to be planned again, and has to be given
/// up.
#[tokio::test]
async fn a_fire_that_cannot_be_read_holds_up_no_other_timer() {
    let (clock, place) = (clock(), Place::new());
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    let broken = engine.run_command(each_minute()).await.expect("sound").invoke_id;
    let sound = engine.run_command(each_minute()).await.expect("sound").invoke_id;
    pass(&clock, 60).await;
    for id in [broken, sound] {
        ended(&engine, id, 1).await;
    }
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    tamper(&place, "UPDATE fires SET fire_at_ms = 9000000000000000000 WHERE invocation = 1");
    tamper(&place, "UPDATE meta SET value = '1999a' WHERE key = 'zone_data'");
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    pass(&clock, 10).await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    tamper(&place, "UPDATE invocations SET frequency = 'when pigs fly' WHERE id = 1");
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    pass(&clock, 50).await;
    ended(&engine, sound, 2).await;
    assert_eq!(fires(&engine, sound).await, ["00:01:00", "00:02:00"]);
    assert_eq!(wait(&engine, &broken).await.status, InvocationStatus::Success);
    within(engine.shutdown(Duration::ZERO)).await;
}

#[tokio::test]
async fn other_zone_data_plans_again_what_is_still_to_come() {
    let (clock, place) = (clock(), Place::new());
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).frequency("0 0 8 * * ? Europe/Berlin");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    let eight = Some(time("2026-01-01T07:00:00Z"));
    assert_eq!(next_fire(&engine, id).await, eight);
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    // As data would have it in which Berlin is an hour further west.
    let wrong = "UPDATE timers SET next_fire_at_ms = next_fire_at_ms + 3600000, due_at_ms = due_at_ms + 3600000";
    tamper(&place, wrong);
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    assert_ne!(next_fire(&engine, id).await, eight, "the same data plans nothing again");
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    tamper(&place, "UPDATE meta SET value = '1999a' WHERE key = 'zone_data'");
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    assert_eq!(next_fire(&engine, id).await, eight);
    pass(&clock, 10).await;
    assert_eq!(ended(&engine, id, 0).await, [] as [ExecutionStatus; 0]);
    within(engine.shutdown(Duration::ZERO)).await;
}

#[tokio::test]
async fn a_time_that_other_zone_data_moves_into_the_past_is_not_lost() {
    let (clock, place) = (clock(), Place::new());
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).frequency("at(2026-01-01 02:00:00)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    tamper(
        &place,
        "UPDATE timers SET next_fire_at_ms = next_fire_at_ms + 3600000, due_at_ms = due_at_ms + 3600000",
    );
    tamper(&place, "UPDATE meta SET value = '1999a' WHERE key = 'zone_data'");
    clock.advance(Duration::from_secs(2 * 3_600 + 1_800));
    let engine = open(Engine::builder().path(place.database()), &clock).await;
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Failed);
    assert_eq!(fires(&engine, id).await, ["02:00:00..02:00:00 x1 missed"]);
}

#[tokio::test]
async fn who_only_changes_a_schedule_fires_nothing_of_it() {
    let check = async |pause: bool| {
        let (clock, place) = (clock(), Place::new());
        let engine = open(Engine::builder().path(place.database()), &clock).await;
        let id = engine.run_command(each_minute()).await.expect("sound").invoke_id;
        engine.shutdown(Duration::ZERO).await;
        drop(engine);
        clock.advance(Duration::from_secs(65));
        let idle = Engine::builder().path(place.database()).clock(clock.clone()).idle();
        let engine = idle.open().await.expect("it opens");
        if pause {
            engine.pause_invocation(&id).await.expect("it repeats");
        } else {
            engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
        }
        assert_eq!(fires(&engine, id).await, ["00:01:00..00:01:00 x1 missed"]);
    };
    check(true).await;
    check(false).await;
}

#[tokio::test]
async fn a_stop_before_a_delay_is_over_leaves_a_record_too() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let mut stopped = 0;
    for _ in 0..10 {
        let id = engine.run_command(each_minute().spread(50)).await.expect("sound").invoke_id;
        let created = clock.realtime();
        pass(&clock, 60).await;
        engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
        let page = engine.describe_fires(DescribeFires::new(id)).await.expect("it exists");
        let times: Vec<_> = page.fires.iter().map(|fire| fire.time).collect();
        assert_eq!(times, [created + chrono::TimeDelta::seconds(60)]);
        stopped += usize::from(page.fires[0].reason.contains("before its delay was over"));
    }
    assert!(stopped > 0);
}

//! A clock that is wrong for a while: no nominal time fires twice, each nominal time has exactly one record, and
//! nominal times that were written off only because the clock was ahead fire when they come.

use std::collections::BTreeMap;
use std::time::Duration;

use adjutant::schedule::{Schedule, Zone};
use adjutant::{
    Clock, DescribeFires, DescribeInvocations, Engine, Fire, FireDisposition, Invocation,
    InvocationStatus, InvokeId, ManualClock, MissedPolicy, OverlapPolicy, RunCommand,
    StopInvocation,
};
use chrono::{DateTime, TimeDelta, Utc};

use crate::recurrence::{clock, ended, open, pass};
use crate::support::{Place, within};

const MINUTE: u64 = 60;

/// The time at which an engine ends and another engine opens the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    Never,
    /// Before the clock goes wrong: the next engine opens with a wrong clock.
    BeforeWrong,
    /// While the clock is wrong: the next engine opens with a right clock.
    BeforeRight,
    /// At both times.
    Both,
}

const RESTARTS: [Restart; 4] =
    [Restart::Never, Restart::BeforeWrong, Restart::BeforeRight, Restart::Both];
const POLICIES: [MissedPolicy; 3] =
    [MissedPolicy::Skip, MissedPolicy::Latest, MissedPolicy::All(3)];
const SCHEDULES: [&str; 4] =
    ["rate(60s)", "0 */10 * * * ?", "0 20 * * * ?", "at(2026-01-01 00:20:00)"];

/// A file, a clock and a schedule, which outlive their engine.
struct World {
    place: Place,
    clock: ManualClock,
    engine: Engine,
    id: InvokeId,
}

impl World {
    async fn begin(request: RunCommand) -> Self {
        let (place, clock) = (Place::new(), clock());
        let engine = open(Engine::builder().path(place.database()), &clock).await;
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        Self { place, clock, engine, id }
    }

    fn step(&self, by: TimeDelta) {
        self.clock.set_realtime(self.clock.realtime() + by);
    }

    async fn close(&self) {
        within(self.engine.shutdown(Duration::ZERO)).await;
    }

    async fn reopen(&mut self) {
        let closed = Engine::open_in_memory().await.expect("memory");
        drop(std::mem::replace(&mut self.engine, closed));
        self.engine = open(Engine::builder().path(self.place.database()), &self.clock).await;
    }

    /// Lets the clock be wrong by `by` for `seconds`.
    async fn be_wrong(&mut self, by: TimeDelta, seconds: u64, restart: Restart) {
        if matches!(restart, Restart::BeforeWrong | Restart::Both) {
            self.close().await;
            self.step(by);
            self.reopen().await;
        } else {
            self.step(by);
        }
        pass(&self.clock, seconds).await;
        if matches!(restart, Restart::BeforeRight | Restart::Both) {
            self.close().await;
            self.step(-by);
            self.reopen().await;
        } else {
            self.step(-by);
        }
        // A step of the clock may go unnoticed so long.
        pass(&self.clock, 40).await;
    }

    async fn invocation(&self) -> Invocation {
        let filter = DescribeInvocations::default().invoke_id(self.id);
        let page = self.engine.describe_invocations(filter).await.expect("it exists");
        page.invocations.into_iter().next().expect("it exists")
    }

    async fn fires(&self) -> Vec<Fire> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let request = DescribeFires::new(self.id).max_results(50);
            let request = if token.is_empty() { request } else { request.next_token(token) };
            let page = self.engine.describe_fires(request).await.expect("it exists");
            all.extend(page.fires);
            if page.next_token.is_empty() {
                return all;
            }
            token = page.next_token;
        }
    }

    /// Returns the disposition of each nominal time. Fails if a nominal time has two records, or if a count
    /// is wrong.
    async fn ledger(&self, what: &str) -> BTreeMap<DateTime<Utc>, FireDisposition> {
        let invocation = self.invocation().await;
        let schedule: Schedule = invocation.frequency.parse().expect("it was taken");
        let times = schedule.bind(invocation.creation_time, Zone::UTC);
        let mut ledger = BTreeMap::new();
        // Fires beside the schedule have no zone.
        for fire in self.fires().await.iter().filter(|fire| !fire.zone.is_empty()) {
            let last = fire.until.unwrap_or(fire.time);
            let before = fire.time - TimeDelta::milliseconds(1);
            let mut count = 0;
            for time in times.clone().upcoming(before).take_while(|time| *time <= last) {
                let other = ledger.insert(time, fire.disposition);
                assert_eq!(other, None, "{what}: {time} has two records");
                count += 1;
            }
            assert_eq!(count, fire.count, "{what}: {fire:?}");
        }
        ledger
    }

    /// Checks the promises for a schedule whose clock is right since `right`.
    async fn check(&self, what: &str, right: DateTime<Utc>) {
        let now = self.clock.realtime();
        let ledger = self.ledger(what).await;
        let invocation = self.invocation().await;
        let schedule: Schedule = invocation.frequency.parse().expect("it was taken");
        let times = schedule.bind(invocation.creation_time, Zone::UTC);
        let due = now - TimeDelta::seconds(invocation.spread.cast_signed());
        for time in times.clone().upcoming(invocation.creation_time).take_while(|time| *time <= due)
        {
            let became = ledger.get(&time);
            assert!(became.is_some(), "{what}: {time} has no record");
            if time >= right {
                assert_eq!(became, Some(&FireDisposition::Started), "{what}: {time}");
            }
        }
        let wrong = ledger
            .range(now..)
            .find(|(time, became)| **time > now && **became != FireDisposition::Started);
        assert_eq!(wrong, None, "{what}: it is still to come");
        let next = times.clone().upcoming(due).find(|time| !ledger.contains_key(time));
        assert_eq!(invocation.next_fire_time, next, "{what}");
    }
}

fn request(frequency: &str, policy: MissedPolicy) -> RunCommand {
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(5).frequency(frequency);
    // Allowed, because this test is not about executions that have not ended by the next time.
    request.missed_policy(policy).overlap_policy(OverlapPolicy::Allow)
}

async fn ahead_for_a_moment(restart: Restart) {
    let steps =
        [TimeDelta::minutes(70), TimeDelta::hours(3), TimeDelta::days(3), TimeDelta::days(400)];
    for (n, by) in steps.into_iter().enumerate() {
        for policy in POLICIES {
            for frequency in SCHEDULES {
                let spread = if n % 2 == 0 { 0 } else { 50 };
                let what = format!("{frequency} {policy:?} {by} {restart:?} spread {spread}");
                let request = request(frequency, policy).spread(spread);
                let mut world = World::begin(request).await;
                pass(&world.clock, 3 * MINUTE).await;
                world.be_wrong(by, 40, restart).await;
                let right = world.clock.realtime();
                pass(&world.clock, 25 * MINUTE).await;
                world.check(&what, right).await;
            }
        }
    }
}

#[tokio::test]
async fn a_time_that_a_clock_ahead_wrote_off_fires_when_it_comes() {
    ahead_for_a_moment(Restart::Never).await;
}

#[tokio::test]
async fn a_time_that_an_engine_opened_with_a_clock_ahead_wrote_off_fires_when_it_comes() {
    ahead_for_a_moment(Restart::BeforeWrong).await;
}

#[tokio::test]
async fn a_time_that_the_engine_before_wrote_off_with_a_clock_ahead_fires_when_it_comes() {
    ahead_for_a_moment(Restart::BeforeRight).await;
}

#[tokio::test]
async fn a_time_that_was_written_off_between_two_restarts_fires_when_it_comes() {
    ahead_for_a_moment(Restart::Both).await;
}

#[tokio::test]
async fn a_time_that_fired_while_the_clock_was_ahead_does_not_fire_again() {
    for restart in RESTARTS {
        for policy in POLICIES {
            let what = format!("{policy:?} {restart:?}");
            let mut world = World::begin(request("rate(60s)", policy)).await;
            pass(&world.clock, 90).await;
            // The clock is ahead by more than the time for which it is wrong, so times that fired then are still to
            // come later.
            world.be_wrong(TimeDelta::minutes(10), 6 * MINUTE, restart).await;
            pass(&world.clock, 20 * MINUTE).await;
            let right = world.clock.realtime();
            pass(&world.clock, 5 * MINUTE).await;
            world.check(&what, right).await;
        }
    }
}

#[tokio::test]
async fn a_clock_set_back_and_forward_again_fires_nothing_twice_and_leaves_no_time_out() {
    for restart in RESTARTS {
        for policy in POLICIES {
            for frequency in ["rate(60s)", "0 */10 * * * ?"] {
                let what = format!("{frequency} {policy:?} {restart:?}");
                let mut world = World::begin(request(frequency, policy)).await;
                pass(&world.clock, 25 * MINUTE).await;
                let before = world.ledger(&what).await;
                world.be_wrong(-TimeDelta::hours(2), 40, restart).await;
                let right = world.clock.realtime();
                pass(&world.clock, 25 * MINUTE).await;
                world.check(&what, right).await;
                let after = world.ledger(&what).await;
                assert!(before.iter().all(|(time, became)| after.get(time) == Some(became)));
            }
        }
    }
}

#[tokio::test]
async fn again_and_again_a_clock_that_is_wrong_leaves_each_time_one_record() {
    for policy in POLICIES {
        let mut world = World::begin(request("rate(60s)", policy)).await;
        for (n, by) in [70, 4_000, 3, 600_000, -120, 70].into_iter().enumerate() {
            pass(&world.clock, 2 * MINUTE).await;
            world.be_wrong(TimeDelta::minutes(by), 40, RESTARTS[n % 4]).await;
        }
        let right = world.clock.realtime();
        pass(&world.clock, 10 * MINUTE).await;
        world.check(&format!("{policy:?}"), right).await;
    }
}

#[tokio::test]
async fn a_long_absence_stays_on_record_when_the_clock_returns() {
    let mut world = World::begin(request("rate(60s)", MissedPolicy::Skip)).await;
    world.close().await;
    // More times than one commit counts are missed; then the engine opens with a clock that is further ahead still.
    world.clock.advance(Duration::from_secs(90 * 86_400 + 30));
    world.step(TimeDelta::days(400));
    world.reopen().await;
    pass(&world.clock, 10).await;
    world.step(-TimeDelta::days(400));
    pass(&world.clock, 40).await;
    let right = world.clock.realtime();
    pass(&world.clock, 3 * MINUTE).await;
    world.check("after 90 days", right).await;
    let ledger = world.ledger("after 90 days").await;
    let missed = ledger.values().filter(|became| **became == FireDisposition::Missed).count();
    // The last time may still be met, a little late.
    assert!((90 * 24 * 60 - 2..=90 * 24 * 60).contains(&missed), "{missed}");
}

#[tokio::test]
async fn a_schedule_that_ended_only_because_the_clock_was_ahead_goes_on() {
    let check = async |request: RunCommand, want: usize| {
        let mut world = World::begin(request).await;
        pass(&world.clock, 90).await;
        world.be_wrong(TimeDelta::days(400), 40, Restart::Never).await;
        let invocation = world.invocation().await;
        assert!(!invocation.status.is_final(), "{}", invocation.status);
        assert_eq!(invocation.finish_time, None);
        pass(&world.clock, 10 * MINUTE).await;
        let ended = ended(&world.engine, world.id, want).await;
        assert_eq!(ended.len(), want);
        let invocation = world.invocation().await;
        assert_eq!(invocation.status, InvocationStatus::Success);
        assert_eq!(invocation.next_fire_time, None);
    };
    let end = "2026-01-01T00:06:00Z".parse().expect("a time");
    check(request("rate(60s)", MissedPolicy::Skip).end_time(end), 6).await;
    check(request("at(2026-01-01 00:06:00)", MissedPolicy::Skip), 1).await;
}

#[tokio::test]
async fn a_schedule_that_was_stopped_while_the_clock_was_ahead_stays_stopped() {
    let mut world = World::begin(request("rate(60s)", MissedPolicy::Skip)).await;
    pass(&world.clock, 90).await;
    world.step(TimeDelta::days(400));
    pass(&world.clock, 40).await;
    let stop = StopInvocation::new(world.id);
    world.engine.stop_invocation(stop).await.expect("it exists");
    world.step(-TimeDelta::days(400));
    pass(&world.clock, 5 * MINUTE).await;
    let invocation = world.invocation().await;
    assert!(invocation.status.is_final(), "{}", invocation.status);
    assert_eq!(invocation.next_fire_time, None);
    world.ledger("stopped").await;
    world.close().await;
    world.reopen().await;
    assert_eq!(world.invocation().await.status, invocation.status);
}

#[tokio::test]
async fn a_pause_and_its_end_plan_by_the_clock_of_today() {
    /// The times at which the invocation pauses and is resumed.
    #[derive(Debug, Clone, Copy)]
    enum Pause {
        WhileWrong,
        ResumedWhileWrong,
        ResumedWhenRight,
        WhenRight,
    }
    for pause in
        [Pause::WhileWrong, Pause::ResumedWhileWrong, Pause::ResumedWhenRight, Pause::WhenRight]
    {
        let world = World::begin(request("rate(60s)", MissedPolicy::Skip)).await;
        let (engine, id, clock) = (&world.engine, world.id, &world.clock);
        pass(clock, 90).await;
        if matches!(pause, Pause::ResumedWhileWrong | Pause::ResumedWhenRight) {
            engine.pause_invocation(&id).await.expect("it repeats");
        }
        world.step(TimeDelta::days(400));
        pass(clock, 40).await;
        engine.run_now(&id).await.expect("it repeats");
        if matches!(pause, Pause::WhileWrong) {
            engine.pause_invocation(&id).await.expect("it repeats");
        }
        if matches!(pause, Pause::WhileWrong | Pause::ResumedWhileWrong) {
            engine.resume_invocation(&id).await.expect("it repeats");
        }
        world.step(-TimeDelta::days(400));
        if matches!(pause, Pause::WhenRight) {
            // The invocation is paused at once, before the scheduler has seen the clock.
            engine.pause_invocation(&id).await.expect("it repeats");
        }
        if matches!(pause, Pause::WhenRight | Pause::ResumedWhenRight) {
            engine.resume_invocation(&id).await.expect("it repeats");
            let next = world.invocation().await.next_fire_time.expect("it repeats");
            assert!(next - clock.realtime() <= TimeDelta::minutes(1), "{pause:?}: {next}");
        }
        pass(clock, 40).await;
        engine.run_now(&id).await.expect("it repeats");
        let right = clock.realtime();
        pass(clock, 5 * MINUTE).await;
        let ledger = world.ledger(&format!("{pause:?}")).await;
        let started = |time: &DateTime<Utc>| ledger.get(time) == Some(&FireDisposition::Started);
        let created = world.invocation().await.creation_time;
        let grid = (1..20).map(|n| created + TimeDelta::minutes(n));
        let late: Vec<_> = grid.filter(|time| *time > right && *time <= clock.realtime()).collect();
        assert!(late.len() >= 4 && late.iter().all(started), "{pause:?}: {ledger:?}");
    }
}

//! A year on a clock that the test moves: schedules of every kind, engines that end and begin again,
//! machines that sleep, clocks that are set. What is recorded must be what a model of its own says,
//! for every nominal time exactly once.
//!
//! `ADJUTANT_SEED=N` runs another year than the usual ones; each prints the seed that repeats it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adjutant::schedule::{Schedule, Zone};
use adjutant::{
    Clock, ClosureExecutor, DescribeFires, DescribeInvocationResults, Durability, Engine, Error,
    ExecutionStatus, Feed, Fire, FireDisposition, Instance, InvokeId, ManualClock, MissedPolicy,
    OverlapPolicy, RunCommand, Sleep, StopInvocation,
};
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Notify;

use crate::support::{Place, wait, within};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// How late a time may be noticed and still be met.
const LATE_MS_MAX: i64 = MINUTE;
/// The scheduler sleeps no longer than this at a time; executions never so short.
const NAP_MAX: Duration = Duration::from_secs(30);

const ZONES: [&str; 8] = [
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "UTC",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Pacific/Chatham",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn between(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from + 1).cast_unsigned()).cast_signed()
    }

    /// Small ones as often as large ones.
    fn magnitude(&mut self, from: i64, to: i64) -> i64 {
        let (low, high) = ((from as f64).ln(), (to as f64).ln());
        let place = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((low + (high - low) * place).exp() as i64).clamp(from, to)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// A [`ManualClock`] that knows whether the scheduler sleeps: by how long it wants to.
#[derive(Clone)]
struct Watched {
    clock: ManualClock,
    naps: Arc<Mutex<Naps>>,
    came: Arc<Notify>,
}

#[derive(Default)]
struct Naps {
    count: u64,
    /// When the last one ends.
    until: Duration,
}

impl Clock for Watched {
    fn realtime(&self) -> DateTime<Utc> {
        self.clock.realtime()
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let sleep = self.clock.sleep(duration);
        if duration <= NAP_MAX {
            let mut naps = self.naps();
            naps.count += 1;
            naps.until = self.clock.monotonic() + duration;
            drop(naps);
            self.came.notify_one();
        }
        sleep
    }
}

impl Watched {
    fn at(start_ms: i64) -> Self {
        let clock = ManualClock::at(time(start_ms));
        Self { clock, naps: Arc::default(), came: Arc::default() }
    }

    fn naps(&self) -> std::sync::MutexGuard<'_, Naps> {
        self.naps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> i64 {
        self.realtime().timestamp_millis()
    }

    fn advance(&self, ms: i64) {
        self.clock.advance(Duration::from_millis(ms.cast_unsigned()));
    }

    fn set(&self, to_ms: i64) {
        self.clock.set_realtime(time(to_ms));
    }

    fn nap_left_ms(&self) -> i64 {
        let until = self.naps().until;
        until.saturating_sub(self.monotonic()).as_millis() as i64
    }

    /// Waits until the scheduler has dealt with the present: it has gone to sleep after `count` naps,
    /// and not yet slept enough.
    async fn napping(&self, count: u64) {
        let asleep = || {
            let naps = self.naps();
            naps.count > count && naps.until > self.monotonic()
        };
        while !asleep() {
            self.came.notified().await;
        }
    }

    fn forget_naps(&self) {
        self.naps().until = Duration::ZERO;
    }
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).expect("within range")
}

/// Why a time had passed before anybody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    Closed,
    Leap,
}

/// What is to become of a nominal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Runs,
    Missed(Option<Absence>),
    Paused,
}

#[derive(Debug, Clone, Copy)]
struct Dealt {
    at_ms: i64,
    fate: Fate,
    dealt_ms: i64,
}

/// A timer as the model has it.
struct Timer {
    invocation: usize,
    zone: Zone,
    delay_ms: i64,
    next_ms: Option<i64>,
    dealt: Vec<Dealt>,
    /// Its instances, and after which nominal time they were taken out.
    targets: Vec<(usize, Option<i64>)>,
}

struct Repeating {
    id: InvokeId,
    schedule: Schedule,
    created: DateTime<Utc>,
    missed: MissedPolicy,
    spread_ms: i64,
    end_ms: i64,
    fires_max: Option<u64>,
    quick: bool,
    /// No fire meets another that has not ended.
    allows: bool,
    paused: bool,
    stopped: bool,
    timers: Vec<usize>,
    /// When it was run beside its schedule, and on which instances.
    beside: Vec<(i64, Vec<usize>)>,
}

impl Repeating {
    fn after(&self, zone: Zone, ms: i64) -> Option<i64> {
        let next = self.schedule.bind(self.created, zone).next_after(time(ms))?;
        Some(next.timestamp_millis()).filter(|next_ms| *next_ms <= self.end_ms)
    }
}

/// What should be recorded.
#[derive(Default)]
struct Model {
    repeating: Vec<Repeating>,
    timers: Vec<Timer>,
    /// When timers are due that may fire.
    due: BTreeSet<(i64, usize)>,
}

impl Model {
    fn add(&mut self, mut one: Repeating, zones: &BTreeMap<String, (Zone, i64, Vec<usize>)>) {
        let invocation = self.repeating.len();
        for (zone, delay_ms, targets) in zones.values() {
            let next_ms = one.after(*zone, one.created.timestamp_millis());
            let timer = self.timers.len();
            one.timers.push(timer);
            self.due.insert((next_ms.expect("it fires") + delay_ms, timer));
            self.timers.push(Timer {
                invocation,
                zone: *zone,
                delay_ms: *delay_ms,
                next_ms,
                dealt: Vec::new(),
                targets: targets.iter().map(|instance| (*instance, None)).collect(),
            });
        }
        self.repeating.push(one);
    }

    /// The nominal times of a timer that are due, which it is then past.
    fn take_due(&mut self, timer: usize, now_ms: i64) -> Vec<i64> {
        let timer = &mut self.timers[timer];
        let one = &self.repeating[timer.invocation];
        let mut taken = Vec::new();
        while let Some(at_ms) = timer.next_ms.filter(|at_ms| at_ms + timer.delay_ms <= now_ms) {
            taken.push(at_ms);
            timer.next_ms = one.after(timer.zone, at_ms);
        }
        taken
    }

    /// The scheduler looks at the clock.
    fn pass(&mut self, now_ms: i64, absence: Option<Absence>) {
        while let Some((_, timer)) = self.due.first().copied().filter(|(due, _)| *due <= now_ms) {
            self.due.pop_first();
            let times = self.take_due(timer, now_ms);
            let Timer { delay_ms, invocation, .. } = self.timers[timer];
            let runs_max = match self.repeating[invocation].missed {
                MissedPolicy::Skip => 0,
                MissedPolicy::Latest => 1,
                MissedPolicy::All(max) => max as usize,
            };
            let last_ms = *times.last().expect("it is due");
            let met = usize::from(now_ms - delay_ms - last_ms <= LATE_MS_MAX);
            let missed = times.len() - times.len().min(runs_max.max(met));
            let timer_now = &mut self.timers[timer];
            timer_now.dealt.extend(times.iter().enumerate().map(|(n, &at_ms)| {
                let fate = if n < missed { Fate::Missed(absence) } else { Fate::Runs };
                Dealt { at_ms, fate, dealt_ms: now_ms }
            }));
            self.plan(timer);
        }
    }

    /// Lets a timer fire when it is due.
    fn plan(&mut self, timer: usize) {
        let Timer { next_ms, delay_ms, .. } = self.timers[timer];
        self.due.extend(next_ms.map(|next_ms| (next_ms + delay_ms, timer)));
    }

    /// Keeps the timers of an invocation from firing.
    fn hold(&mut self, one: usize) {
        self.due.retain(|(_, timer)| self.timers[*timer].invocation != one);
    }

    /// What passed while it paused has been dealt with.
    fn pass_over_pause(&mut self, one: usize, now_ms: i64) {
        for timer in self.repeating[one].timers.clone() {
            let passed = self.take_due(timer, now_ms);
            let fate = Fate::Paused;
            let dealt = passed.iter().map(|&at_ms| Dealt { at_ms, fate, dealt_ms: now_ms });
            self.timers[timer].dealt.extend(dealt);
        }
    }

    fn resume(&mut self, one: usize) {
        self.repeating[one].paused = false;
        for timer in self.repeating[one].timers.clone() {
            self.plan(timer);
        }
    }

    /// No timer of an invocation fires again.
    fn stop(&mut self, one: usize, now_ms: i64) {
        if self.repeating[one].paused {
            self.pass_over_pause(one, now_ms);
        }
        self.hold(one);
        self.repeating[one].stopped = true;
        for timer in &self.repeating[one].timers {
            self.timers[*timer].next_ms = None;
        }
    }

    /// An invocation no longer fires on an instance.
    fn take_out(&mut self, one: usize, instance: usize, now_ms: i64) {
        if self.repeating[one].paused {
            self.pass_over_pause(one, now_ms);
        }
        for &timer in &self.repeating[one].timers {
            let timer_now = &mut self.timers[timer];
            let last_ms = timer_now.dealt.last().map_or(i64::MIN, |dealt| dealt.at_ms);
            for target in timer_now.targets.iter_mut().filter(|target| target.0 == instance) {
                target.1.get_or_insert(last_ms);
            }
            if timer_now.targets.iter().all(|(_, out)| out.is_some()) {
                timer_now.next_ms = None;
                self.due.retain(|(_, due)| *due != timer);
            }
        }
    }

    /// The instances that an invocation still fires on.
    fn targets(&self, one: usize) -> Vec<usize> {
        let timers = self.repeating[one].timers.iter().map(|timer| &self.timers[*timer]);
        let targets = timers.flat_map(|timer| &timer.targets);
        targets.filter(|(_, out)| out.is_none()).map(|(instance, _)| *instance).collect()
    }
}

/// What executors saw.
#[derive(Default)]
struct Seen {
    running: HashMap<(InvokeId, String), usize>,
    wrong: Vec<String>,
}

/// An execution that runs.
struct Presence {
    seen: Arc<Mutex<Seen>>,
    key: (InvokeId, String),
}

impl Presence {
    fn enter(seen: &Arc<Mutex<Seen>>, key: (InvokeId, String), allowed: bool) -> Self {
        let mut now = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let count = now.running.entry(key.clone()).or_default();
        *count += 1;
        if *count > 1 && !allowed {
            let wrong = format!("{count} at a time of {key:?}");
            now.wrong.push(wrong);
        }
        drop(now);
        Self { seen: Arc::clone(seen), key }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut now = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = now.running.get_mut(&self.key) {
            *count -= 1;
        }
    }
}

/// How much happens in a year.
#[derive(Clone, Copy)]
struct Size {
    schedules: usize,
    days: i64,
    /// Of so many moves of the clock, one goes wrong; none if nothing does.
    trouble: Option<usize>,
    /// The furthest that a clock is set.
    set_ms_max: i64,
}

struct World {
    random: Random,
    size: Size,
    place: Place,
    clock: Watched,
    engine: Option<(Engine, Feed)>,
    looker: Connection,
    model: Model,
    seen: Arc<Mutex<Seen>>,
    /// How far the clock is behind what it once was.
    behind_ms: i64,
}

fn looker(path: &Path) -> Connection {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("the file")
}

async fn open(place: &Place, clock: &Watched, seen: &Arc<Mutex<Seen>>) -> (Engine, Feed) {
    let seen = Arc::clone(seen);
    let executor = ClosureExecutor::new(move |task, cx| {
        let seen = Arc::clone(&seen);
        async move {
            let script = String::from_utf8_lossy(task.content()).into_owned();
            let key = (task.invoke_id(), task.instance_id.as_str().to_owned());
            let _presence = Presence::enter(&seen, key, script.contains("beside"));
            if let Some(seconds) = script.split(' ').find_map(|word| word.parse().ok()) {
                cx.sleep(Duration::from_secs(seconds)).await;
            }
        }
    });
    let builder = Engine::builder().path(place.database()).durability(Durability::Relaxed);
    let builder = builder.executor("year", executor).clock(clock.clone());
    // Longer than a nap of the scheduler, by which those are known.
    let builder = builder.stop_grace(Duration::from_secs(60)).max_concurrent(256);
    builder.open_and_follow().await.expect("it opens")
}

impl World {
    async fn begin(seed: u64, size: Size) -> Self {
        let start_ms = "2027-06-01T00:00:00.250Z".parse::<DateTime<Utc>>().expect("a time");
        let (place, clock) = (Place::new(), Watched::at(start_ms.timestamp_millis()));
        let seen = Arc::default();
        let (engine, feed) = open(&place, &clock, &seen).await;
        for (n, zone) in ZONES.iter().cycle().take(2 * ZONES.len()).enumerate() {
            let instance = Instance::new(format!("i-{n}")).executor("year");
            let instance = instance.time_zone(zone.parse().expect("a zone"));
            engine.register_instance(instance).await.expect("sound");
        }
        within(clock.napping(0)).await;
        let looker = looker(&place.database());
        Self {
            random: Random(seed),
            size,
            place,
            clock,
            engine: Some((engine, feed)),
            looker,
            model: Model::default(),
            seen,
            behind_ms: 0,
        }
    }

    fn engine(&self) -> &Engine {
        &self.engine.as_ref().expect("it is open").0
    }

    /// A schedule, and after how long or how many fires it had better end.
    fn frequency(&mut self) -> (String, Option<i64>, Option<u64>) {
        let now = self.clock.realtime();
        let random = &mut self.random;
        let (second, minute, hour) =
            (random.pick(&[0, 0, 0, 15, 59]), random.pick(&[0, 0, 30, 59, 1]), random.below(24));
        let clock_change = format!("0 {} {} * * ?", random.pick(&[0, 30, 59]), random.below(4));
        match random.below(100) {
            0..25 => (format!("rate({}d)", random.between(1, 7)), None, None),
            25..26 => (format!("rate({}h)", random.pick(&[3, 6, 8, 12])), None, None),
            26..33 => {
                let seconds = random.between(60, 7_200);
                (format!("rate({seconds}s)"), Some(seconds * 1_000 * random.between(2, 150)), None)
            }
            33..38 => {
                let fires = random.between(1, 150).cast_unsigned();
                (format!("rate({}m)", random.between(1, 600)), None, Some(fires))
            }
            38..41 => (clock_change, None, None),
            41..43 => (format!("{clock_change} {}", random.pick(&ZONES)), None, None),
            43..47 => {
                let every = random.pick(&["*/10 * * * ?", "*/15 1-3 * * ?", "0 */2 * * ?"]);
                let days = random.between(1, 4);
                (format!("0 {every}"), Some(days * DAY), None)
            }
            47..52 => {
                let fires = random.between(1, 200).cast_unsigned();
                let zone = random.pick(&ZONES);
                (format!("0 */30 0-4 * * ? {zone}"), None, Some(fires))
            }
            52..66 => {
                let day = random.pick(&["MON", "SUN", "SAT", "MON,THU"]);
                (format!("{second} {minute} {hour} ? * {day}"), None, None)
            }
            66..74 => {
                let day = random.between(1, 31);
                (format!("{second} {minute} {hour} {day} * ?"), None, None)
            }
            74..82 => {
                let day = random.pick(&["L * ?", "? * 5L", "? * 2#1", "15W * ?"]);
                (format!("{second} {minute} {hour} {day} {}", random.pick(&ZONES)), None, None)
            }
            82..86 => (format!("0 {minute} {hour} {} {} ?", 1 + hour, 1 + hour / 2), None, None),
            86..90 => (format!("0 {minute} {hour} 29 FEB ?"), None, None),
            _ => {
                let away = TimeDelta::milliseconds(random.magnitude(MINUTE, self.size.days * DAY));
                let at = (now + away).format("%Y-%m-%d %H:%M:%S");
                (format!("at({at} {})", random.pick(&ZONES)), None, None)
            }
        }
    }

    /// Makes an invocation, if the engine takes it: an instant may be in the past by its zone.
    async fn submit(&mut self) {
        let (frequency, lasts_ms, fires_max) = self.frequency();
        let created = self.clock.realtime();
        let random = &mut self.random;
        let overlap = random.pick(&[
            OverlapPolicy::Skip,
            OverlapPolicy::Queue,
            OverlapPolicy::Allow,
            OverlapPolicy::Replace,
        ]);
        let missed = random.pick(&[
            MissedPolicy::Skip,
            MissedPolicy::Skip,
            MissedPolicy::Latest,
            MissedPolicy::All(3),
            MissedPolicy::All(50),
        ]);
        let spread_s = if random.one_in(8) { random.between(1, 90) } else { 0 };
        let quick = !random.one_in(5);
        let first = random.below(2 * ZONES.len());
        let count = random.pick(&[1, 1, 1, 2, 3]);
        let instances: Vec<usize> = (first..first + count).map(|n| n % (2 * ZONES.len())).collect();
        let hold = if quick { 0 } else { random.between(35, 55) };
        let mut script = if quick { "quick".to_owned() } else { format!("hold {hold}") };
        if overlap == OverlapPolicy::Allow {
            script.push_str(" beside");
        }
        let name = format!("{}-{}", if quick { "q" } else { "h" }, self.model.repeating.len());
        let mut request = RunCommand::shell(script)
            .on(instances.iter().map(|n| format!("i-{n}")))
            .name(&name)
            .timeout(50)
            .frequency(&frequency)
            .overlap_policy(overlap)
            .missed_policy(missed)
            .spread(spread_s.cast_unsigned());
        let end = lasts_ms.map(|lasts_ms| created + TimeDelta::milliseconds(lasts_ms));
        if let Some(end) = end {
            request = request.end_time(end);
        }
        if let Some(fires_max) = fires_max {
            request = request.max_fires(fires_max);
        }
        let naps = self.clock.naps().count;
        let id = match self.engine().run_command(request).await {
            Ok(response) => response.invoke_id,
            Err(Error::Invalid(_)) => return,
            Err(error) => panic!("{frequency}: {error}"),
        };
        within(self.clock.napping(naps)).await;
        let schedule: Schedule = frequency.parse().expect("it was taken");
        let mut zones: BTreeMap<String, (Zone, i64, Vec<usize>)> = BTreeMap::new();
        for instance in instances {
            let own = ZONES[instance % ZONES.len()].parse().expect("a zone");
            let zone = schedule.bind(created, own).zone();
            let delay_ms = self
                .looker
                .prepare_cached(
                    "SELECT m.delay_ms FROM timers m JOIN invocations v ON v.id = m.invocation
                     WHERE v.id = (SELECT max(id) FROM invocations) AND v.name = ?1 AND m.zone = ?2",
                )
                .expect("SQL")
                .query_row((&name, zone.name()), |row| row.get(0))
                .expect("a timer for each zone");
            assert!((0..=spread_s * 1_000).contains(&delay_ms), "{delay_ms} of {spread_s} s");
            let group = zones.entry(zone.to_string()).or_insert((zone, delay_ms, Vec::new()));
            group.2.push(instance);
        }
        let one = Repeating {
            id,
            schedule,
            created,
            missed,
            spread_ms: spread_s * 1_000,
            end_ms: end.map_or(i64::MAX, |end| end.timestamp_millis()),
            fires_max,
            quick,
            allows: overlap == OverlapPolicy::Allow,
            paused: false,
            stopped: false,
            timers: Vec::new(),
            beside: Vec::new(),
        };
        self.model.add(one, &zones);
    }

    /// Waits until the scheduler has dealt with the present, and what ends at once has.
    async fn settle(&mut self, absence: Option<Absence>) {
        within(self.clock.napping(0)).await;
        self.model.pass(self.clock.now_ms(), absence);
        self.calm().await;
    }

    /// Waits for the end of what ends at once.
    async fn calm(&mut self) {
        let (_, feed) = self.engine.as_mut().expect("it is open");
        let sql = "SELECT EXISTS (SELECT 1 FROM fires f INDEXED BY fires_unfinished
            JOIN invocations v ON v.id = f.invocation WHERE f.unfinished > 0 AND v.name LIKE 'q-%')";
        loop {
            let mut query = self.looker.prepare_cached(sql).expect("SQL");
            let busy: bool = query.query_row((), |row| row.get(0)).expect("SQL");
            drop(query);
            if !busy {
                return;
            }
            within(feed.next()).await.expect("an engine that runs");
        }
    }

    /// Lets time pass up to a little after something is due.
    async fn pass(&mut self) {
        let now_ms = self.clock.now_ms();
        let slack_ms = if self.random.one_in(3) { 0 } else { self.random.between(0, 20_000) };
        let next_ms = self.model.due.first().map_or(now_ms + HOUR, |(due_ms, _)| *due_ms);
        let far_ms = if self.behind_ms > 0 { HOUR } else { DAY };
        self.clock.advance((next_ms + slack_ms - now_ms).min(far_ms));
        self.settle(None).await;
    }

    /// Lets the scheduler notice that the clock was set, at the end of its nap or a little later.
    async fn notice(&mut self, absence: Option<Absence>) {
        let late_ms = self.random.between(0, 3_000);
        self.clock.advance(self.clock.nap_left_ms() + late_ms);
        self.settle(absence).await;
    }

    async fn sleep(&mut self) {
        let away_ms = self.random.magnitude(MINUTE, 3 * DAY);
        self.clock.set(self.clock.now_ms() + away_ms);
        self.behind_ms -= away_ms;
        self.notice(Some(Absence::Leap)).await;
    }

    async fn set_clock(&mut self) {
        let by_ms = self.random.magnitude(1_000, self.size.set_ms_max);
        let forward = self.random.one_in(2);
        let by_ms = match self.behind_ms {
            behind_ms if behind_ms > DAY => behind_ms + by_ms.min(HOUR),
            _ if forward => by_ms,
            _ => -by_ms.min(self.reach_back_ms()),
        };
        self.behind_ms -= by_ms;
        self.clock.set(self.clock.now_ms() + by_ms);
        self.notice((by_ms > 0).then_some(Absence::Leap)).await;
    }

    /// Returns how far the clock can be set back before times that were written off would come again. The model does
    /// not know such times; see `clock_steps`.
    fn reach_back_ms(&self) -> i64 {
        let sql = "SELECT coalesce(max(due_until_ms), 0) FROM fires";
        let until_ms = self.looker.query_row(sql, (), |row| row.get(0)).expect("SQL");
        self.clock.now_ms().saturating_sub(until_ms).max(0)
    }

    async fn restart(&mut self) {
        let (engine, feed) = self.engine.take().expect("it is open");
        engine.shutdown(Duration::ZERO).await;
        drop((engine, feed));
        self.clock.forget_naps();
        let away_ms = if self.random.one_in(3) { 0 } else { self.random.magnitude(1_000, 3 * DAY) };
        if self.random.one_in(2) {
            self.clock.advance(away_ms);
        } else {
            self.clock.set(self.clock.now_ms() + away_ms);
        }
        self.behind_ms -= away_ms;
        self.engine = Some(open(&self.place, &self.clock, &self.seen).await);
        self.settle(Some(Absence::Closed)).await;
    }

    async fn pause_or_resume(&mut self) {
        let one = self.random.below(self.model.repeating.len());
        let now_ms = self.clock.now_ms();
        let Repeating { id, paused, .. } = self.model.repeating[one];
        if !paused {
            match self.engine().pause_invocation(&id).await {
                Ok(()) => {
                    self.model.hold(one);
                    self.model.repeating[one].paused = true;
                }
                Err(Error::Conflict { .. }) => {}
                Err(error) => panic!("pause: {error}"),
            }
            return;
        }
        let naps = self.clock.naps().count;
        let resumed = self.engine().resume_invocation(&id).await;
        self.model.pass_over_pause(one, now_ms);
        self.model.resume(one);
        match resumed {
            Ok(()) => within(self.clock.napping(naps)).await,
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("resume: {error}"),
        }
    }

    async fn stop(&mut self) {
        let one = self.random.below(self.model.repeating.len());
        let now_ms = self.clock.now_ms();
        let targets = self.model.targets(one);
        let request = StopInvocation::new(self.model.repeating[one].id);
        if targets.len() > 1 && self.random.one_in(2) {
            let instance = self.random.pick(&targets);
            let request = request.on([format!("i-{instance}")]);
            self.engine().stop_invocation(request).await.expect("a target");
            self.model.take_out(one, instance, now_ms);
        } else {
            self.engine().stop_invocation(request).await.expect("it exists");
            self.model.stop(one, now_ms);
        }
    }

    async fn run_now(&mut self) {
        let one = self.random.below(self.model.repeating.len());
        let id = self.model.repeating[one].id;
        match self.engine().run_now(&id).await {
            Ok(fire) => {
                let targets = self.model.targets(one);
                let at_ms = fire.time.timestamp_millis();
                self.model.repeating[one].beside.push((at_ms, targets));
                self.calm().await;
            }
            Err(Error::Conflict { .. }) => {}
            Err(error) => panic!("run now: {error}"),
        }
    }

    async fn trouble(&mut self) {
        match self.random.below(16) {
            0..4 => self.sleep().await,
            4..6 => self.restart().await,
            6..8 => self.set_clock().await,
            8..13 => self.pause_or_resume().await,
            13 if self.random.one_in(4) => self.stop().await,
            14 => self.run_now().await,
            _ => self.submit().await,
        }
    }

    async fn live(&mut self) {
        while self.model.repeating.len() < self.size.schedules {
            self.submit().await;
        }
        let start_ms = self.clock.now_ms();
        while self.clock.now_ms() < start_ms + self.size.days * DAY {
            self.pass().await;
            if self.size.trouble.is_some_and(|moves| self.random.one_in(moves)) {
                self.trouble().await;
            }
        }
    }

    /// Stops everything, and waits for its end.
    async fn end(&mut self) {
        for one in 0..self.model.repeating.len() {
            let id = self.model.repeating[one].id;
            self.engine().stop_invocation(StopInvocation::new(id)).await.expect("it exists");
            self.model.stop(one, self.clock.now_ms());
        }
        for one in &self.model.repeating {
            wait(self.engine(), &one.id).await;
        }
    }

    async fn fires(&self, id: InvokeId) -> Vec<Fire> {
        let mut fires = Vec::new();
        let mut request = DescribeFires::new(id).max_results(50);
        loop {
            let page = self.engine().describe_fires(request).await.expect("it exists");
            fires.extend(page.fires);
            if page.next_token.is_empty() {
                fires.reverse();
                return fires;
            }
            request = DescribeFires::new(id).max_results(50).next_token(page.next_token);
        }
    }

    /// Compares the records with the model; how many nominal times there were, and how many started.
    async fn verify(&self) -> (usize, usize) {
        let (mut times, mut starts) = (0, 0);
        for (n, one) in self.model.repeating.iter().enumerate() {
            let fires = self.fires(one.id).await;
            let (beside, planned): (Vec<_>, Vec<_>) =
                fires.into_iter().partition(|fire| fire.zone.is_empty());
            let told: Vec<i64> = beside.iter().map(|fire| fire.time.timestamp_millis()).collect();
            let asked: Vec<i64> = one.beside.iter().map(|(at_ms, _)| *at_ms).collect();
            assert_eq!(told, asked, "{n} beside its schedule");
            let mut want: HashMap<usize, usize> = HashMap::new();
            for instance in one.beside.iter().flat_map(|(_, targets)| targets) {
                *want.entry(*instance).or_default() += 1;
            }
            let mut by_zone: BTreeMap<String, Vec<Fire>> = BTreeMap::new();
            for fire in planned {
                by_zone.entry(fire.zone.clone()).or_default().push(fire);
            }
            for timer in one.timers.iter().map(|timer| &self.model.timers[*timer]) {
                let rows = by_zone.remove(&timer.zone.to_string()).unwrap_or_default();
                let what = format!("{n} {} {} in {}", one.id, one.schedule, timer.zone);
                let (covered, started) = check_timer(one, timer, &rows, &what);
                times += covered;
                starts += started;
                for (instance, out_ms) in &timer.targets {
                    let singles = rows.iter().filter(|fire| {
                        fire.until.is_none()
                            && out_ms.is_none_or(|out_ms| fire.time.timestamp_millis() <= out_ms)
                    });
                    let singles = singles.count();
                    if singles > 0 {
                        *want.entry(*instance).or_default() += singles;
                    }
                }
            }
            assert_eq!(by_zone.keys().collect::<Vec<_>>(), [""; 0], "{n}: zones nobody lives in");
            assert_eq!(self.executions(one).await, want, "{n} {}: by instance", one.id);
        }
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(seen.wrong, [""; 0]);
        (times, starts)
    }

    /// How many executions an invocation had on each instance; all have ended, and say why if they
    /// did not run.
    async fn executions(&self, one: &Repeating) -> HashMap<usize, usize> {
        let mut executions = HashMap::new();
        let mut request = DescribeInvocationResults::default()
            .invoke_id(one.id)
            .include_history()
            .max_results(50);
        loop {
            let page = self.engine().describe_invocation_results(request.clone()).await;
            let page = page.expect("a page").invocation;
            for result in page.results {
                use ExecutionStatus::{Cancelled, Skipped, Success};
                assert!(result.status.is_final(), "{result:?}");
                if matches!(result.status, Skipped | Cancelled) {
                    assert!(!result.error_info.is_empty(), "{result:?}");
                } else if one.quick {
                    assert_eq!(result.status, Success, "{result:?}");
                }
                let instance = result.instance_id.as_str().strip_prefix("i-");
                let instance = instance.and_then(|n| n.parse().ok()).expect("one of this world");
                *executions.entry(instance).or_default() += 1;
            }
            if page.next_token.is_empty() {
                return executions;
            }
            request.next_token = Some(page.next_token);
        }
    }
}

/// Every nominal time of a timer has exactly the row that it should, and no other.
fn check_timer(one: &Repeating, timer: &Timer, rows: &[Fire], what: &str) -> (usize, usize) {
    let upcoming = one.schedule.bind(one.created, timer.zone).upcoming(one.created);
    let nominal = upcoming.map(|at| at.timestamp_millis()).take(timer.dealt.len());
    assert!(nominal.eq(timer.dealt.iter().map(|dealt| dealt.at_ms)), "{what}: the model is wrong");
    let mut left = &timer.dealt[..];
    let (mut covered, mut started) = (0, 0);
    let mut ended = false;
    for row in rows {
        assert!(!ended, "{what}: it had fired often enough before {row:?}");
        if row.reason == "the invocation was stopped before its delay was over" {
            assert!(left.is_empty(), "{what}: {left:?} before {row:?}");
            check_stopped(one, timer, row, what);
            covered += 1;
            continue;
        }
        let count = usize::try_from(row.count).expect("a count");
        assert!((1..=left.len()).contains(&count), "{what}: {} left for {row:?}", left.len());
        let (these, rest) = left.split_at(count);
        left = rest;
        covered += count;
        let (first, last) = (these[0], these[count - 1]);
        let until = row.until.map_or(first.at_ms, |until| until.timestamp_millis());
        assert_eq!(row.time.timestamp_millis(), first.at_ms, "{what}: {row:?}, want {first:?}");
        assert_eq!(until, last.at_ms, "{what}: {row:?}, want {last:?}");
        assert_eq!(row.dealt_time.timestamp_millis(), last.dealt_ms, "{what}: {row:?}, {last:?}");
        let other = these.iter().find(|dealt| dealt.fate != first.fate);
        assert!(other.is_none(), "{what}: {row:?} holds {other:?}");
        assert!(first.at_ms <= one.end_ms, "{what}: {row:?}");
        let disposition = row.disposition;
        match first.fate {
            Fate::Runs => {
                assert_eq!((row.until, count), (None, 1), "{what}: {row:?}");
                assert_ne!(disposition, FireDisposition::Missed, "{what}: {row:?}");
                let skipped = disposition == FireDisposition::Skipped;
                assert_eq!(skipped, !row.reason.is_empty(), "{what}: {row:?}");
                assert!(!(skipped && one.allows), "{what}: {row:?}");
                started += usize::from(!skipped);
                ended = one.fires_max == Some(started as u64);
            }
            Fate::Paused => {
                assert_eq!(disposition, FireDisposition::Skipped, "{what}: {row:?}");
                assert_eq!(row.reason, "the invocation paused", "{what}: {row:?}");
            }
            Fate::Missed(absence) => {
                assert_eq!(disposition, FireDisposition::Missed, "{what}: {row:?}");
                let due = time(first.at_ms + timer.delay_ms);
                match absence.unwrap_or_else(|| panic!("{what}: {row:?} in quiet times")) {
                    Absence::Closed => assert_eq!(row.reason, "no engine ran", "{what}: {row:?}"),
                    Absence::Leap => {
                        let (from, until) = leap(&row.reason)
                            .unwrap_or_else(|| panic!("{what}: {row:?}, the clock was set"));
                        let covers = from <= due && due <= until + TimeDelta::seconds(1);
                        assert!(covers, "{what}: {row:?} was due at {due}");
                    }
                }
            }
        }
    }
    assert!(ended || left.is_empty(), "{what}: {} left, the first {:?}", left.len(), left.first());
    assert!(timer.delay_ms < one.spread_ms.max(1), "{what}");
    (covered, started)
}

/// A nominal time had come, and its place in the spread had not, when its invocation was stopped.
fn check_stopped(one: &Repeating, timer: &Timer, row: &Fire, what: &str) {
    let (at_ms, dealt_ms) = (row.time.timestamp_millis(), row.dealt_time.timestamp_millis());
    assert_eq!(row.disposition, FireDisposition::Skipped, "{what}: {row:?}");
    assert_eq!(one.after(timer.zone, at_ms - 1), Some(at_ms), "{what}: {row:?} is no nominal time");
    assert!(at_ms <= dealt_ms && dealt_ms < at_ms + timer.delay_ms, "{what}: {row:?}");
    assert_eq!(row.count, 1, "{what}: {row:?}");
}

/// The stretch of time that a reason names.
fn leap(reason: &str) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let (_, stretch) =
        reason.split_once("the clock was set forward or the machine slept, from ")?;
    let (from, until) = stretch.split_once(" to ")?;
    Some((from.parse().ok()?, until.parse().ok()?))
}

async fn year(seed: u64, size: Size) {
    println!("ADJUTANT_SEED={seed}");
    let mut world = World::begin(seed, size).await;
    world.live().await;
    world.end().await;
    let (times, starts) = world.verify().await;
    println!("{times} nominal times, {starts} started");
    assert!(times > 0 && starts > times / 50, "{starts} of {times} started");
}

/// The seeds to run: the usual ones, or the one that is asked for.
fn seeds(usual: &[u64]) -> Vec<u64> {
    let asked = std::env::var("ADJUTANT_SEED").ok();
    let asked = asked.map(|seed| vec![seed.parse().expect("ADJUTANT_SEED is a number")]);
    asked.unwrap_or_else(|| usual.to_vec())
}

#[tokio::test]
async fn a_year_of_a_thousand_schedules_is_recorded_to_the_last_nominal_time() {
    let size = Size { schedules: 1_000, days: 366, trouble: Some(60), set_ms_max: 3 * DAY };
    for seed in seeds(&[1]) {
        year(seed, size).await;
    }
}

#[tokio::test]
async fn troubled_weeks_are_recorded_to_the_last_nominal_time() {
    let size = Size { schedules: 40, days: 60, trouble: Some(3), set_ms_max: 400 * DAY };
    for seed in seeds(&[1, 2, 3, 4, 5, 6, 7, 8]) {
        year(seed, size).await;
    }
}

#[tokio::test]
async fn in_quiet_times_nothing_is_missed() {
    let size = Size { schedules: 60, days: 30, trouble: None, set_ms_max: 0 };
    for seed in seeds(&[1, 2]) {
        year(seed, size).await;
    }
}

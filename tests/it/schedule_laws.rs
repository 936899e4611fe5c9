//! What holds for every schedule, tried on random ones.
//!
//! Each run takes a new seed and prints it; `ADJUTANT_TEST_SEED=<seed>` repeats a run.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use adjutant::schedule::{Schedule, Zone};
use chrono::{DateTime, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::schedule_oracle::{DAY, Expression, Item, offset};

/// How far ahead the oracle looks for a fire.
const HORIZON: i64 = 3 * 366 * DAY;

/// Zones whose clocks change in all the ways there are, and some that keep still.
const ZONES: [&str; 16] = [
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "Africa/Cairo",
    "America/Sao_Paulo",
    "Asia/Tehran",
    "Pacific/Apia",
    "America/Nuuk",
    "America/Havana",
    "Asia/Beirut",
    "Pacific/Chatham",
    "Asia/Kolkata",
    "America/St_Johns",
    "Etc/UTC",
];

/// When each zone's clock changes, 1975 to 2098.
static CHANGES: LazyLock<Vec<(Tz, Vec<i64>)>> = LazyLock::new(|| {
    let changes = |zone: Tz| {
        let quarters = |day: i64| (day..day + DAY).step_by(900);
        let changes = |&at: &i64| offset(zone, at - 1) != offset(zone, at);
        (1827..47_000)
            .map(|day| day * DAY)
            .filter(|&day| offset(zone, day - 1) != offset(zone, day + DAY - 1))
            .filter_map(|day| quarters(day).find(changes))
            .collect()
    };
    ZONES.iter().map(|name| name.parse().unwrap()).map(|zone| (zone, changes(zone))).collect()
});

#[test]
fn next_fire_agrees_with_the_oracle() {
    let strategy = (expression(), zone_and_instant());
    run(40_000, strategy, |(expression, (zone, after))| {
        let text = expression.text();
        let Ok(schedule) = text.parse::<Schedule>() else {
            // The only reason to refuse what was generated: its days do not exist.
            prop_assert_eq!(expression.next_after(Tz::UTC, after, after + HORIZON), None);
            return Ok(());
        };
        let default_zone: Zone = zone.name().parse().unwrap();
        let timetable = schedule.bind(DateTime::UNIX_EPOCH, default_zone);
        let next = timetable.next_after(instant(after)).map(|next| next.timestamp());

        // Nothing lies between, and what is found is a fire.
        let until = next.map_or(after + HORIZON, |next| next.min(after + HORIZON));
        let expected = expression.next_after(zone, after, until);
        let found = next.filter(|&next| next <= after + HORIZON);
        prop_assert_eq!(found, expected, "{} {} after {}", text, zone, instant(after));

        // The canonical text, with the zone in it, says the same.
        let canonical = schedule.to_string();
        let year = if expression.years.is_some() { "" } else { " *" };
        let zoned: Schedule = format!("{canonical}{year} {zone}").parse().unwrap();
        prop_assert_eq!(zoned.zone(), Some(default_zone));
        prop_assert_eq!(zoned.next_after(instant(after)), next.map(instant));
        prop_assert_eq!(canonical.parse::<Schedule>().unwrap(), schedule.clone());

        // Any instant before the fire leads to it, and later ones lead later.
        if let Some(next) = next {
            let between = after + (next - after) / 2;
            prop_assert_eq!(timetable.next_after(instant(between)), Some(instant(next)));
            let fires: Vec<_> = timetable.upcoming(instant(after)).take(4).collect();
            prop_assert!(fires.is_sorted_by(|before, later| before < later));
        }
        Ok(())
    });
}

#[test]
fn smallest_distance_agrees_with_a_list_of_all() {
    run(300, expression(), |expression| {
        let Ok(schedule) = expression.text().parse::<Schedule>() else { return Ok(()) };
        let times = expression.times_of_day();
        let within = times.windows(2).map(|pair| pair[1] - pair[0]).min();
        let days: Vec<i64> = (0..47_482)
            .filter(|&day| expression.has_date(instant(day * DAY).date_naive()))
            .collect();
        let between = days.windows(2).map(|pair| pair[1] - pair[0]).min();
        let across = between.map(|days| days * DAY + times[0] - times[times.len() - 1]);
        let expected = within.into_iter().chain(across).min();
        let found = schedule.min_interval().map(|found| found.as_secs() as i64);
        prop_assert_eq!(found, expected, "{}", schedule);
        Ok(())
    });
}

#[test]
fn rates_and_single_instants_survive_their_text() {
    let rate = (1..=1000u32, select(vec!["s", "m", "h", "d"]));
    run(2000, (rate, 0..10_000_000_000_i64, -9_000_000_000_000_i64..9_000_000_000_000), {
        |((count, unit), created, after)| {
            let schedule: Schedule = format!("Rate( {count}{unit})").replace("( ", "(").parse()?;
            prop_assert_eq!(schedule.to_string(), format!("rate({count}{unit})"));
            let created = DateTime::from_timestamp_millis(created).unwrap();
            let after = DateTime::from_timestamp_millis(after).unwrap();
            let next = schedule.bind(created, Zone::UTC).next_after(after).unwrap();
            let interval = schedule.min_interval().unwrap().as_millis() as i64;
            let passed = (next - created).num_milliseconds();
            prop_assert!(next > after && passed >= interval && passed % interval == 0);
            prop_assert!(passed == interval || (next - after).num_milliseconds() <= interval);
            Ok(())
        }
    });
    run(2000, zone_and_instant(), |(zone, reading)| {
        let text = instant(reading).format("at(%Y-%m-%d %H:%M:%S");
        let schedule: Schedule = format!("{text} {zone})").parse()?;
        prop_assert_eq!(schedule.to_string(), format!("{} {})", text, zone));
        let fire = schedule.next_after(DateTime::UNIX_EPOCH).unwrap().timestamp();
        // Either the clock shows the reading, for the first time, or it jumps over it there.
        let shown = fire + offset(zone, fire);
        let shown_before = fire - 1 + offset(zone, fire - 1);
        prop_assert!(shown == reading || shown_before < reading && reading < shown);
        let earlier = fire - 3 * 3600..fire;
        prop_assert!(!earlier.into_iter().any(|at| at + offset(zone, at) == reading));
        Ok(())
    });
}

#[test]
fn every_zone_keeps_to_its_offsets() {
    // An interval schedule of every second fires at once, whatever the clock shows; one of a
    // single reading fires exactly when the clock shows it.
    let regions: Vec<Tz> =
        TZ_VARIANTS.iter().copied().filter(|zone| zone.name().contains('/')).collect();
    run(5000, (select(regions), 1826 * DAY..47_000 * DAY), |(zone, at)| {
        let reading = instant(at + offset(zone, at));
        let text = reading.format("%-S %-M %-H/23 %-d %-m ? %Y");
        let schedule: Schedule = format!("{text} {zone}").parse()?;
        prop_assert_eq!(schedule.next_after(instant(at - 1)), Some(instant(at)), "{}", schedule);
        Ok(())
    });
}

#[test]
fn no_text_breaks_the_reader() {
    run(15_000, any_text(), |text| {
        let start = Instant::now();
        match text.parse::<Schedule>() {
            Ok(schedule) => {
                let canonical = schedule.to_string();
                prop_assert_eq!(&canonical.parse::<Schedule>().unwrap().to_string(), &canonical);
                prop_assert_eq!(canonical.parse::<Schedule>().unwrap(), schedule.clone());
                prop_assert!(!schedule.describe().is_empty());
                let mut last = DateTime::<Utc>::MIN_UTC;
                for fire in schedule.upcoming(last).take(3) {
                    prop_assert!(fire > last);
                    last = fire;
                }
                prop_assert_eq!(schedule.next_after(DateTime::<Utc>::MAX_UTC), None);
            }
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.offset()));
                prop_assert_eq!(error.code(), "InvalidParam.Frequency");
                prop_assert!(error.to_string().len() < 2 * 2048 + 400);
            }
        }
        // Generous, as machines are busy: what takes longer is a search without an end.
        prop_assert!(start.elapsed() < Duration::from_secs(2));
        Ok(())
    });
}

/// Tries `cases` random values; the seed is printed, and repeated where a case fails.
pub fn run<S: Strategy>(
    cases: u32,
    strategy: S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let seed = match std::env::var("ADJUTANT_TEST_SEED") {
        Ok(seed) => seed.parse().expect("ADJUTANT_TEST_SEED is a number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    println!("{cases} cases with ADJUTANT_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    if let Err(failure) = TestRunner::new_with_rng(config, rng).run(&strategy, test) {
        panic!("with ADJUTANT_TEST_SEED={seed}: {failure}");
    }
}

fn instant(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// A zone, and an instant that is often near a change of its clock.
fn zone_and_instant() -> impl Strategy<Value = (Tz, i64)> {
    let delta = prop_oneof![4 => -8 * 3600..5 * 3600_i64, 3 => -3600..7200_i64, 1 => -2..=1_i64];
    let instant = (any::<prop::sample::Index>(), delta, 1826 * DAY..46_000 * DAY);
    (0..ZONES.len(), any::<bool>(), instant).prop_map(|(zone, near, (index, delta, anywhere))| {
        let (zone, changes) = &CHANGES[zone];
        let at = match near && !changes.is_empty() {
            true => index.get(changes) + delta,
            false => anywhere,
        };
        (*zone, at)
    })
}

/// Half of them fixed-time, at hours at which clocks change; half of them on every day.
pub fn expression() -> impl Strategy<Value = Expression> {
    let interval = (field(0, 59, 59), field(0, 59, 59), field(0, 23, 23));
    let hours = prop_oneof![0..=3u32, Just(23), 0..=23u32];
    let fixed = (fixed_field(0..=59u32), fixed_field(0..=59u32), fixed_field(hours));
    let restricted = (month_days(), field(1, 12, 12), weekdays());
    let daily = Just((vec![Item::Any], vec![Item::All], vec![Item::All]));
    let years = prop_oneof![
        6 => Just(None),
        1 => prop::collection::vec(year(), 1..3).prop_map(Some),
    ];
    let clock = prop_oneof![interval, fixed];
    let days = prop_oneof![daily, restricted];
    (clock, days, years, any::<bool>()).prop_map(
        |((seconds, minutes, hours), (days, months, weekdays), years, named)| Expression {
            seconds,
            minutes,
            hours,
            days,
            months,
            weekdays,
            years,
            named,
        },
    )
}

fn fixed_field(value: impl Strategy<Value = u32> + Clone) -> impl Strategy<Value = Vec<Item>> {
    let item = prop_oneof![
        3 => value.clone().prop_map(Item::One),
        1 => (value.clone(), value).prop_map(|(first, last)| Item::Range(first, last)),
    ];
    prop::collection::vec(item, 1..3)
}

/// Items of the common grammar, for a field that takes values up to `max_written`.
fn item(min: u32, max_written: u32, step_max: u32) -> impl Strategy<Value = Item> + Clone {
    let value = min..=max_written;
    let step = 1..=step_max;
    prop_oneof![
        2 => Just(Item::All),
        1 => step.clone().prop_map(Item::AllBy),
        4 => value.clone().prop_map(Item::One),
        1 => (min..=step_max.max(min), step.clone()).prop_map(|(first, by)| Item::From(first, by)),
        1 => (value.clone(), value.clone()).prop_map(|(first, last)| Item::Range(first, last)),
        1 => (value.clone(), value, step).prop_map(|(a, b, by)| Item::RangeBy(a, b, by)),
    ]
}

fn field(min: u32, max: u32, step_max: u32) -> impl Strategy<Value = Vec<Item>> {
    let item = item(min, max, step_max);
    prop_oneof![
        3 => item.clone().prop_map(|item| vec![item]),
        1 => prop::collection::vec(item, 2..4),
    ]
}

fn month_days() -> impl Strategy<Value = Vec<Item>> {
    let item = prop_oneof![
        4 => Just(Item::Any),
        4 => item(1, 31, 31),
        1 => Just(Item::Last),
        1 => Just(Item::LastWorkday),
        1 => (1..=31u32).prop_map(Item::Nearest),
    ];
    prop::collection::vec(item, 1..3)
}

fn weekdays() -> impl Strategy<Value = Vec<Item>> {
    let item = prop_oneof![
        6 => Just(Item::Any),
        3 => item(0, 7, 6),
        1 => Just(Item::Last),
        1 => (0..=7u32).prop_map(Item::LastOf),
        1 => (0..=7u32, 1..=5u32).prop_map(|(day, k)| Item::Nth(day, k)),
    ];
    prop::collection::vec(item, 1..3)
}

fn year() -> impl Strategy<Value = Item> {
    let year = 1970..=2099u32;
    prop_oneof![
        (1..=59u32).prop_map(Item::AllBy),
        year.clone().prop_map(Item::One),
        (year.clone(), 1..=59u32).prop_map(|(first, by)| Item::From(first, by)),
        (year.clone(), 0..60u32).prop_map(|(a, more)| Item::Range(a, (a + more).min(2099))),
    ]
}

/// Texts of all kinds: noise, noise of the right letters, and schedules with a few bytes wrong.
fn any_text() -> impl Strategy<Value = String> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), letter()), 0..4);
    let base = prop_oneof![
        expression().prop_map(|expression| expression.text()),
        Just("0 0/30 10-11 LW 3-NOV FRIL,1#2 2022/2 America/New_York".to_owned()),
        Just("rate(5 m)".to_owned()),
        Just("at(2030-06-06 13:15:30 GMT+8:00)".to_owned()),
    ];
    let damaged = (base, edits).prop_map(|(mut text, edits)| {
        for (index, letter) in edits {
            let at = index.index(text.len() + 1);
            if text.is_char_boundary(at) {
                text.insert(at, letter);
            }
            if at + 1 < text.len() && text.is_char_boundary(at + 1) && letter < 'M' {
                text.remove(at + 1);
            }
        }
        text
    });
    prop_oneof![
        1 => any::<String>(),
        2 => prop::collection::vec(letter(), 0..60).prop_map(String::from_iter),
        4 => damaged,
    ]
}

fn letter() -> impl Strategy<Value = char> {
    let letters = "0123456789*?,-/#LWlw \t()@:+GMTUCratedsmhSUNJFEBy\u{e9}\u{1f552}";
    select(letters.chars().collect::<Vec<_>>())
}

#[test]
fn the_generator_reaches_what_it_is_for() {
    let mut runner = TestRunner::deterministic();
    let (mut fixed, mut readable, mut after_gaps, mut in_overlaps) = (0, 0, 0, 0);
    for _ in 0..2000 {
        let case = (expression(), zone_and_instant()).new_tree(&mut runner).unwrap().current();
        let (expression, (zone, after)) = case;
        readable += usize::from(expression.text().parse::<Schedule>().is_ok());
        fixed += usize::from(expression.is_fixed_time());
        if let Some(next) = expression.next_after(zone, after, after + 10 * DAY) {
            after_gaps += usize::from(!expression.shows(zone, next));
            let skipped = (after + 1..next).any(|instant| expression.shows(zone, instant));
            in_overlaps += usize::from(expression.is_fixed_time() && skipped);
        }
    }
    println!("{fixed} fixed-time, {after_gaps} after gaps, {in_overlaps} in overlaps");
    assert!(readable > 1800, "{readable} can be read");
    assert!((600..1400).contains(&fixed), "{fixed} are fixed-time");
    assert!(after_gaps > 5, "{after_gaps} fire after a gap");
    assert!(in_overlaps > 5, "{in_overlaps} pass over the second pass of an overlap");
}

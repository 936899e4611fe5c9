//! Any schedule, instant and zone: fires come strictly later, in order, and none is left out
//! that a start in between would find.

#![no_main]

use adjutant::schedule::{Schedule, Zone};
use chrono::{DateTime, TimeDelta, Utc};
use libfuzzer_sys::fuzz_target;

const ZONES: [&str; 8] = [
    "UTC",
    "America/New_York",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "Africa/Casablanca",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "GMT-14:59",
];

fuzz_target!(|input: (u8, i64, i64, u16, &str)| {
    let (zone, after_ms, created_ms, within, text) = input;
    let Ok(schedule) = text.parse::<Schedule>() else { return };
    let instant = |ms: i64| DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::<Utc>::MAX_UTC);
    let (after, created) = (instant(after_ms), instant(created_ms));
    let zone: Zone = ZONES[usize::from(zone) % ZONES.len()].parse().expect("it exists");
    let timetable = schedule.bind(created, zone);

    let Some(next) = timetable.next_after(after) else {
        // Finished is finished.
        let later = after.checked_add_signed(TimeDelta::days(within.into())).unwrap_or(after);
        assert_eq!(timetable.next_after(later), None);
        return;
    };
    assert!(next > after);
    if matches!(schedule, Schedule::Cron(_) | Schedule::At(_)) {
        assert_eq!(next.timestamp_subsec_nanos(), 0);
    }
    // Any start between the two finds the same fire.
    let between = after + (next - after) / i32::from(within.saturating_add(1));
    if between < next {
        assert_eq!(timetable.next_after(between), Some(next));
    }
    let fires: Vec<_> = timetable.clone().upcoming(after).take(4).collect();
    assert_eq!(fires[0], next);
    assert!(fires.is_sorted_by(|before, later| before < later));
    // Bound to the text's own zone it makes no difference where the instance is.
    if schedule.zone().is_some() {
        assert_eq!(schedule.bind(created, Zone::UTC).next_after(after), Some(next));
    }
});

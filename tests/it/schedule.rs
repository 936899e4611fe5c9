//! Schedules as documented: what each form means, where clocks do not change.

use std::time::Duration;

use adjutant::schedule::{Bounds, Refusal, Schedule, Zone};
use chrono::{DateTime, TimeDelta, Utc};

/// Ends a list of expected fires: there is none after the last.
pub const NEVER: &str = "never";

/// The fires after `from` of an instance in `zone`, in local time. With [`NEVER`] at the end of
/// `expected` the schedule must finish there.
#[track_caller]
pub fn check(text: &str, zone: &str, from: &str, expected: &[&str]) {
    check_created(text, zone, from, from, expected);
}

#[track_caller]
fn check_created(text: &str, zone: &str, created: &str, from: &str, expected: &[&str]) {
    let schedule = parse(text);
    let timetable = schedule.bind(instant(created), zone.parse().unwrap());
    let local = timetable.zone();
    let mut fires: Vec<String> = timetable
        .upcoming(instant(from))
        .take(expected.len())
        .map(|fire| local.local_time(fire).to_rfc3339())
        .collect();
    if fires.len() < expected.len() {
        fires.push(NEVER.to_owned());
    }
    assert_eq!(fires, expected, "{text}");
}

#[track_caller]
pub fn parse(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn instant(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Fires on these days of 2022 and 2023 first, always at midnight UTC.
#[track_caller]
fn check_days(day_fields: &str, expected: &[&str]) {
    let expected: Vec<String> =
        expected.iter().map(|day| format!("{day}T00:00:00+00:00")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check(&format!("0 0 0 {day_fields}"), "UTC", "2021-12-31T23:59:59Z", &expected);
}

#[test]
fn documented_examples() {
    let from = "2022-01-01T00:00:00Z";
    check(
        "0 */20 * * * ?",
        "UTC",
        from,
        &["2022-01-01T00:20:00+00:00", "2022-01-01T00:40:00+00:00", "2022-01-01T01:00:00+00:00"],
    );
    check(
        "0 */20 * * * *",
        "Asia/Kolkata",
        from,
        &["2022-01-01T05:40:00+05:30", "2022-01-01T06:00:00+05:30", "2022-01-01T06:20:00+05:30"],
    );
    check(
        "0 15 10 ? * * 2022 Asia/Shanghai",
        "America/New_York",
        from,
        &["2022-01-01T10:15:00+08:00", "2022-01-02T10:15:00+08:00", "2022-01-03T10:15:00+08:00"],
    );
    check(
        "0 15 10 ? * * 2022 Asia/Shanghai",
        "UTC",
        "2022-12-30T02:15:00Z",
        &["2022-12-31T10:15:00+08:00", NEVER],
    );
    check(
        "0 0/30 10-11 * * ? 2022 GMT+8:00",
        "UTC",
        from,
        &[
            "2022-01-01T10:00:00+08:00",
            "2022-01-01T10:30:00+08:00",
            "2022-01-01T11:00:00+08:00",
            "2022-01-01T11:30:00+08:00",
            "2022-01-02T10:00:00+08:00",
        ],
    );
    check(
        "0 0/5 14 * 10 ? 2022/2 UTC",
        "Asia/Tokyo",
        "2022-10-31T14:50:00Z",
        &["2022-10-31T14:55:00+00:00", "2024-10-01T14:00:00+00:00", "2024-10-01T14:05:00+00:00"],
    );
    check(
        "at(2022-06-06 13:15:30 Asia/Shanghai)",
        "UTC",
        from,
        &["2022-06-06T13:15:30+08:00", NEVER],
    );
    check("at(2022-06-06 13:15:30 GMT-7:00)", "UTC", from, &["2022-06-06T13:15:30-07:00", NEVER]);
    check_created(
        "rate(5m)",
        "UTC",
        from,
        from,
        &["2022-01-01T00:05:00+00:00", "2022-01-01T00:10:00+00:00"],
    );
}

#[test]
fn at_without_a_zone_is_utc_whatever_the_instance_says() {
    let expected = &["2030-06-06T13:15:30+00:00", NEVER];
    check("at(2030-06-06 13:15:30)", "Asia/Shanghai", "2022-01-01T00:00:00Z", expected);
    let schedule = parse("at(2030-06-06 13:15:30)");
    assert_eq!(schedule.next_after(instant("2030-06-06T13:15:30Z")), None);
    assert!(schedule.next_after(instant("2030-06-06T13:15:29.999Z")).is_some());
}

#[test]
fn rate_keeps_the_grid_of_its_creation() {
    let created = "2022-01-01T00:00:00.250Z";
    let cases = [
        // Not at creation, and not before it.
        ("rate(5m)", "2022-01-01T00:00:00Z", "2022-01-01T00:05:00.250+00:00"),
        ("rate(5m)", "2021-06-01T00:00:00Z", "2022-01-01T00:05:00.250+00:00"),
        // Strictly after a point of the grid, also by less than a millisecond.
        ("rate(5m)", "2022-01-01T00:05:00.249999Z", "2022-01-01T00:05:00.250+00:00"),
        ("rate(5m)", "2022-01-01T00:05:00.250Z", "2022-01-01T00:10:00.250+00:00"),
        ("rate(5m)", "2022-01-01T00:05:00.250999Z", "2022-01-01T00:10:00.250+00:00"),
        // A year asleep.
        ("rate(7d)", "2023-01-01T00:00:00Z", "2023-01-07T00:00:00.250+00:00"),
        ("rate (90 S)", "2022-01-01T00:00:01Z", "2022-01-01T00:01:30.250+00:00"),
        ("RATE(24h)", "2022-03-01T00:00:00Z", "2022-03-01T00:00:00.250+00:00"),
        ("rate(1000d)", "2022-01-02T00:00:00Z", "2024-09-27T00:00:00.250+00:00"),
    ];
    for (text, from, expected) in cases {
        check_created(text, "UTC", created, from, &[expected]);
    }
}

#[test]
fn days_of_the_month() {
    check_days("L * ?", &["2022-01-31", "2022-02-28", "2022-03-31", "2022-04-30"]);
    check_days("31 * ?", &["2022-01-31", "2022-03-31", "2022-05-31", "2022-07-31", "2022-08-31"]);
    check_days("29 2 ?", &["2024-02-29", "2028-02-29", "2032-02-29"]);
    check_days("25-2 * ?", &["2022-01-01", "2022-01-02", "2022-01-25", "2022-01-26"]);
    check_days("30-31 FEB-APR ?", &["2022-03-30", "2022-03-31", "2022-04-30", "2023-03-30"]);
    check_days("1/10 * ?", &["2022-01-01", "2022-01-11", "2022-01-21", "2022-01-31", "2022-02-01"]);
    check_days("*/31 * ?", &["2022-01-01", "2022-02-01"]);
    check_days("10-20/3 5 ?", &["2022-05-10", "2022-05-13", "2022-05-16", "2022-05-19"]);
}

#[test]
fn working_days_near_a_date() {
    // 2022-01-01 was a Saturday, 2022-05-01 a Sunday.
    check_days("1W * ?", &["2022-01-03", "2022-02-01", "2022-03-01", "2022-04-01", "2022-05-02"]);
    check_days("15W * ?", &["2022-01-14", "2022-02-15", "2022-03-15", "2022-04-15", "2022-05-16"]);
    // 2022-07-31 was a Sunday; the nearest weekday inside the month is the Friday before.
    check_days("31W * ?", &["2022-01-31", "2022-03-31", "2022-05-31", "2022-07-29", "2022-08-31"]);
    check_days("30W FEB-MAR ?", &["2022-03-30", "2023-03-30"]);
    check_days("LW * ?", &["2022-01-31", "2022-02-28", "2022-03-31", "2022-04-29", "2022-05-31"]);
    check_days("1w,15W,L * ?", &["2022-01-03", "2022-01-14", "2022-01-31", "2022-02-01"]);
}

#[test]
fn weekdays_of_the_month() {
    check_days("? * 6#3", &["2022-01-15", "2022-02-19", "2022-03-19"]);
    check_days("? * 7#5", &["2022-01-30", "2022-05-29", "2022-07-31"]);
    check_days("? * MON#5", &["2022-01-31", "2022-05-30", "2022-08-29"]);
    check_days("? * 6L", &["2022-01-29", "2022-02-26", "2022-03-26"]);
    check_days("? * FRIDAYL", &["2022-01-28", "2022-02-25", "2022-03-25"]);
    check_days("? * 0L", &["2022-01-30", "2022-02-27", "2022-03-27"]);
    check_days("? * 1#1,3L", &["2022-01-03", "2022-01-26", "2022-02-07", "2022-02-23"]);
}

#[test]
fn weekdays_by_number_and_name() {
    let sundays = &["2022-01-02", "2022-01-09", "2022-01-16"];
    for sunday in ["0", "7", "00", "07", "SUN", "sun", "Sunday", "L", "l", "7-7", "7-0", "SUN-SUN"]
    {
        check_days(&format!("? * {sunday}"), sundays);
    }
    check_days("? * 1", &["2022-01-03", "2022-01-10"]);
    check_days("? * 01", &["2022-01-03", "2022-01-10"]);
    for every_day in ["1-7", "0-6", "0-7", "MON-SUN", "SUN-SAT", "*/1", "*", "?"] {
        let expected = &["2022-01-01", "2022-01-02", "2022-01-03", "2022-01-04", "2022-01-05"];
        check_days(&format!("? * {every_day}"), expected);
    }
    check_days("? * 5-7", &["2022-01-01", "2022-01-02", "2022-01-07", "2022-01-08"]);
    check_days("? * FRI-MON", &["2022-01-01", "2022-01-02", "2022-01-03", "2022-01-07"]);
    check_days("? * */2", &["2022-01-01", "2022-01-02", "2022-01-04", "2022-01-06"]);
    check_days("? * 1/2", &["2022-01-03", "2022-01-05", "2022-01-07", "2022-01-10"]);
    check_days("? * 7/2", &["2022-01-01", "2022-01-02", "2022-01-04", "2022-01-06"]);
    check_days("? * 1-7/2", &["2022-01-02", "2022-01-03", "2022-01-05", "2022-01-07"]);
    check_days("? * FRI-MON/2", &["2022-01-02", "2022-01-07", "2022-01-09"]);
}

#[test]
fn day_and_weekday_together() {
    check_days("13 * FRI", &["2022-01-07", "2022-01-13", "2022-01-14", "2022-01-21"]);
    check_days("*,13 * FRI", &["2022-01-07", "2022-01-14", "2022-01-21"]);
    check_days("13 * FRI,?", &["2022-01-13", "2022-02-13"]);
    // A step or a whole range restricts, if only by name.
    check_days("13 * 0-6", &["2022-01-01", "2022-01-02"]);
    check_days("*/1 * FRI", &["2022-01-01", "2022-01-02"]);
}

#[test]
fn months_and_years() {
    check_days("1 NOV-FEB ?", &["2022-01-01", "2022-02-01", "2022-11-01", "2022-12-01"]);
    check_days("1 3/3 ?", &["2022-03-01", "2022-06-01", "2022-09-01", "2022-12-01"]);
    check_days("1 august-OCTOBER/2 ?", &["2022-08-01", "2022-10-01", "2023-08-01"]);
    check_days("1 1 ? */2", &["2022-01-01", "2024-01-01", "2026-01-01"]);
    check_days("1 1 ? 2023/2", &["2023-01-01", "2025-01-01"]);
    check_days("* * ? 2024", &["2024-01-01", "2024-01-02"]);
    let from = "2022-06-01T00:00:00Z";
    let last = "2030-01-01T00:00:00+00:00";
    check("0 0 0 1 1 ? 2022-2030/4", "UTC", from, &["2026-01-01T00:00:00+00:00", last, NEVER]);
    check("0 0 0 1 1 ? 2030,2020", "UTC", from, &[last, NEVER]);
    check("0 0 0 1 1 ? 2021", "UTC", from, &[NEVER]);
    check("59 59 23 31 12 ? 2099", "UTC", from, &["2099-12-31T23:59:59+00:00", NEVER]);
    let last_noon = "2099-12-31T12:00:00+00:00";
    check("0 0 12 * * ?", "UTC", "2099-12-30T12:00:00Z", &[last_noon, NEVER]);
    // The last month of a year that is not meant is not searched.
    check("0 0 0 1 * ? 2022,2024", "UTC", "2023-05-05T00:00:00Z", &["2024-01-01T00:00:00+00:00"]);
}

#[test]
fn ranges_of_the_clock_wrap() {
    let from = "2022-01-01T21:59:00Z";
    check(
        "0 0 22-2/2 * * ?",
        "UTC",
        from,
        &["2022-01-01T22:00:00+00:00", "2022-01-02T00:00:00+00:00", "2022-01-02T02:00:00+00:00"],
    );
    check(
        "58-1 0 23 * * ?",
        "UTC",
        from,
        &[
            "2022-01-01T23:00:00+00:00",
            "2022-01-01T23:00:01+00:00",
            "2022-01-01T23:00:58+00:00",
            "2022-01-01T23:00:59+00:00",
            "2022-01-02T23:00:00+00:00",
        ],
    );
}

#[test]
fn a_fire_is_strictly_after_and_on_a_whole_second() {
    let schedule = parse("5/30 * * * * ?");
    let cases = [
        ("2022-01-01T00:00:04.999999999Z", "2022-01-01T00:00:05Z"),
        ("2022-01-01T00:00:05Z", "2022-01-01T00:00:35Z"),
        ("2022-01-01T00:00:05.000000001Z", "2022-01-01T00:00:35Z"),
        ("2022-01-01T00:00:35Z", "2022-01-01T00:01:05Z"),
        ("1969-07-20T20:17:40.5Z", "1970-01-01T00:00:05Z"),
    ];
    for (from, expected) in cases {
        assert_eq!(schedule.next_after(instant(from)), Some(instant(expected)), "{from}");
    }
}

#[test]
fn the_ends_of_time_are_no_trouble() {
    let zones = ["UTC", "GMT-14:59", "GMT+14:59", "America/New_York", "Pacific/Apia"];
    let texts = ["* * * * * ?", "0 0 0 1 1 ?", "rate(1000d)", "at(9999-12-31 23:59:59)"];
    for (zone, text) in zones.iter().flat_map(|zone| texts.map(|text| (zone, text))) {
        let zone: Zone = zone.parse().unwrap();
        let schedule = parse(text);
        for created in [DateTime::<Utc>::MIN_UTC, DateTime::UNIX_EPOCH, DateTime::<Utc>::MAX_UTC] {
            let timetable = schedule.bind(created, zone);
            let first = timetable.next_after(DateTime::<Utc>::MIN_UTC);
            // The grid of a rate created at the end of time has no first point.
            assert_eq!(
                first.is_none(),
                text.starts_with("rate") && created == DateTime::<Utc>::MAX_UTC
            );
            assert_eq!(timetable.next_after(DateTime::<Utc>::MAX_UTC), None);
            timetable.upcoming(instant("2099-12-30T00:00:00Z")).take(100).for_each(drop);
        }
    }
    let expected = &["1970-01-01T00:00:00+00:00"];
    check("* * * * * ?", "UTC", "1812-01-01T00:00:00Z", expected);
}

#[test]
fn canonical_text() {
    let cases = [
        ("0 */20 * * * ?", "0 */20 * * * ?"),
        ("  0\t0  08 * * ?  ", "0 0 8 * * ?"),
        ("00 05 0/05 01W,lw jan-March,9 mon#2,fril,l", "0 5 0/5 1W,LW JAN-MAR,9 MON#2,FRIL,L"),
        ("0 0 0 ? * monday-7 2024-2030/2 utc", ""),
        ("0 0 0 ? * monday-7 2024-2030/02 UTC", "0 0 0 ? * MON-7 2024-2030/2 UTC"),
        ("0 0 8 * * ? GMT-0:00", "0 0 8 * * ? GMT+0:00"),
        ("0 0 8 * * ? * GMT", "0 0 8 * * ? * GMT"),
        ("RATE( 5m)", ""),
        ("RATE (005 M)", "rate(5m)"),
        ("rate(120s)", "rate(120s)"),
        ("AT(2030-01-02  03:04:05\tGMT+8:00)", "at(2030-01-02 03:04:05 GMT+8:00)"),
    ];
    for (text, expected) in cases {
        let schedule = text.parse::<Schedule>();
        assert_eq!(schedule.is_err(), expected.is_empty(), "{text}");
        if let Ok(schedule) = schedule {
            assert_eq!(schedule.to_string(), expected);
            assert_eq!(parse(expected), schedule);
        }
    }
}

#[test]
fn serde_form_is_the_text() {
    let schedule = parse("0 15 10 ? * mon-fri Asia/Shanghai");
    let json = serde_json::to_string(&schedule).unwrap();
    assert_eq!(json, r#""0 15 10 ? * MON-FRI Asia/Shanghai""#);
    assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), schedule);
    assert_eq!(serde_json::from_str::<Schedule>(r#""rate(5\u006d)""#).unwrap(), parse("rate(5m)"));
    let error = serde_json::from_str::<Schedule>(r#""0 0 8 * *""#).unwrap_err().to_string();
    assert!(error.contains("did you mean `0 0 0 8 * *`?"), "{error}");
    let zone: Zone = serde_json::from_str(r#""GMT+5:30""#).unwrap();
    assert_eq!(serde_json::to_string(&zone).unwrap(), r#""GMT+5:30""#);
}

#[test]
fn smallest_distance() {
    let cases = [
        ("* * * * * ?", Some(1)),
        ("*/7 * * * * ?", Some(4)),
        ("0/30 * * * * ?", Some(30)),
        ("59,0 5 * * * ?", Some(59)),
        ("0,59 * * * * ?", Some(1)),
        ("0 0,59 * * * ?", Some(60)),
        ("0 50,10 * * * ?", Some(20 * 60)),
        ("0 0/40 9-17 * * ?", Some(20 * 60)),
        ("0 0 0,23 * * ?", Some(3600)),
        ("0 0,59 0,23 * * ?", Some(60)),
        // Monday's last and Tuesday's first are neighbours; Monday's and Wednesday's are not.
        ("0 0 0,23 ? * MON,TUE", Some(3600)),
        ("0 0 0,23 ? * MON,WED", Some(23 * 3600)),
        ("0 0 0,23 ? * SAT,SUN,MON", Some(3600)),
        ("0 30 2 * * ?", Some(86_400)),
        ("0 30 2 ? * FRI", Some(7 * 86_400)),
        ("0 30 2 1 * ?", Some(28 * 86_400)),
        ("0 30 2 31 * ?", Some(31 * 86_400)),
        ("0 0 0,23 1,L * ?", Some(3600)),
        ("0 0 0 29 2 ?", Some(1461 * 86_400)),
        ("0 0 0 1 1 ? 2030,2032", Some(730 * 86_400)),
        ("0 0 0 1 1 ? 2030", None),
        ("5 0 0 1 1 ? 2030", None),
        ("5,6 0 0 1 1 ? 2030", Some(1)),
        ("rate(5m)", Some(300)),
        ("at(2030-01-01 00:00:00)", None),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).min_interval(), expected.map(Duration::from_secs), "{text}");
    }
}

#[test]
fn limits_of_the_host() {
    let seconds = Duration::from_secs;
    let bounds = |timeout| Bounds {
        rate_min: seconds(60),
        rate_max: seconds(7 * 86_400),
        cron_min: seconds(10),
        timeout: seconds(timeout),
    };
    let now = instant("2026-11-20T12:00:00Z");
    let too_frequent = |interval, min| {
        Err(Refusal::TooFrequent { interval: seconds(interval), min: seconds(min) })
    };
    let within = |interval, timeout, timeout_max| {
        let [interval, timeout, timeout_max] = [interval, timeout, timeout_max].map(seconds);
        Err(Refusal::WithinTimeout { interval, timeout, timeout_max })
    };
    let past = |at| Err(Refusal::Past { at, now });
    let cases = [
        ("rate(60s)", 59, Ok(())),
        ("rate(60s)", 60, within(60, 60, 59)),
        ("rate(59s)", 5, too_frequent(59, 60)),
        ("rate(7d)", 60, Ok(())),
        (
            "rate(169h)",
            60,
            Err(Refusal::TooRare { interval: seconds(169 * 3600), max: seconds(168 * 3600) }),
        ),
        ("*/10 * * * * ?", 10, Ok(())),
        ("*/10 * * * * ?", 11, within(10, 11, 10)),
        ("*/9 * * * * ?", 5, too_frequent(6, 10)),
        // The first distances are long enough, those across midnight are not.
        ("0,55 59,0 0,23 * * ?", 5, too_frequent(5, 10)),
        ("0 0 0 1 1 ? 2027", 86_400, Ok(())),
        ("0 0 0 1 1 ? 2026", 60, Err(Refusal::Finished { now })),
        // That day never came.
        ("0 0 12 30 12 ? 2011 Pacific/Apia", 60, Err(Refusal::Finished { now })),
        ("at(2026-11-20 12:00:01)", 60, Ok(())),
        ("at(2026-11-20 12:00:00)", 60, past(now)),
        ("at(2026-11-20 19:59:59 GMT+8:00)", 60, past(now - TimeDelta::seconds(1))),
    ];
    for (text, timeout, expected) in cases {
        let result = parse(text).bind(now, Zone::UTC).validate(now, &bounds(timeout));
        assert_eq!(result, expected, "{text}");
        if let Err(refusal) = result {
            assert_eq!(refusal.code(), "InvalidParam.Frequency");
            assert!(!refusal.to_string().is_empty());
        }
    }
}

#[test]
fn descriptions() {
    let cases = [
        ("rate(1d)", "Fires every day, counted from creation."),
        ("rate(90s)", "Fires every 90 seconds, counted from creation."),
        ("at(2030-01-02 03:04:05)", "Fires once, at 2030-01-02 03:04:05, UTC time."),
        ("* * * * * ?", "Fires every second every day, the instance's own time."),
        ("0 */20 * * * ?", "Fires every 20 minutes every day, the instance's own time."),
        ("0 0 * * * ? UTC", "Fires at minute 0 of every hour every day, UTC time."),
        (
            "0 0/30 10-11 * * ? 2022 GMT+8:00",
            "Fires at 10:00, 10:30, 11:00 and 11:30 every day in 2022, GMT+8:00 time.",
        ),
        (
            "0 0/5 14 * 10 ? 2022/2 UTC",
            "Fires every 5 minutes in hour 14 every day in October every 2 years from 2022 to 2098, UTC time.",
        ),
        (
            "30 0 9 1,15 * MON-FRI UTC",
            "Fires at 09:00:30 on days 1 and 15 or Monday to Friday, UTC time.",
        ),
        (
            "0 0 9 1W,L,LW * ? UTC",
            "Fires at 09:00 on the working day nearest to day 1 or the last day of the month or the last working day of the month, UTC time.",
        ),
        (
            "0 0 9 ? 6-8 FRIL,MON#1 UTC",
            "Fires at 09:00 on the first Monday of the month or the last Friday of the month in June to August, UTC time.",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse(text).describe(), expected, "{text}");
    }
}

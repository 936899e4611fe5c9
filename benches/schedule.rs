//! Reading schedules and finding the next fire, side by side with the croner, cron and saffron
//! crates. Crates that do not know a form are left out of its row. saffron has no seconds and
//! works in UTC only; it gets the same schedule in five fields.

use std::hint::black_box;
use std::str::FromStr;
use std::time::Duration;

use adjutant::schedule::{Schedule, Zone};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use croner::parser::CronParser;

/// One schedule, in the spelling of each crate.
struct Row {
    name: &'static str,
    ours: &'static str,
    croner: Option<&'static str>,
    cron: Option<&'static str>,
    saffron: Option<&'static str>,
}

const ROWS: [Row; 7] = [
    Row {
        name: "every 5 minutes",
        ours: "0 */5 * * * ?",
        croner: Some("0 */5 * * * *"),
        cron: Some("0 */5 * * * *"),
        saffron: Some("*/5 * * * *"),
    },
    Row {
        name: "daily",
        ours: "0 0 2 * * ?",
        croner: Some("0 0 2 * * *"),
        cron: Some("0 0 2 * * *"),
        saffron: Some("0 2 * * *"),
    },
    Row {
        name: "weekdays",
        ours: "0 0 12 ? * MON-FRI",
        croner: Some("0 0 12 ? * MON-FRI"),
        cron: Some("0 0 12 ? * MON-FRI"),
        saffron: Some("0 12 * * MON-FRI"),
    },
    Row {
        name: "half-hours",
        ours: "0 0/30 9-17 * * ?",
        croner: Some("0 */30 9-17 * * *"),
        cron: Some("0 0/30 9-17 * * *"),
        saffron: Some("*/30 9-17 * * *"),
    },
    Row {
        name: "leap day",
        ours: "0 0 0 29 2 ?",
        croner: Some("0 0 0 29 2 ?"),
        cron: Some("0 0 0 29 2 ?"),
        saffron: Some("0 0 29 2 *"),
    },
    Row {
        name: "last day",
        ours: "0 0 0 L * ?",
        croner: Some("0 0 0 L * ?"),
        cron: None,
        saffron: Some("0 0 L * *"),
    },
    Row {
        name: "third Saturday",
        ours: "0 15 10 ? * 6#3",
        croner: Some("0 15 10 ? * 6#3"),
        cron: None,
        saffron: Some("15 10 * * 7#3"),
    },
];

const IMPOSSIBLE: &str = "0 0 0 30 2 ?";

fn bench_next(criterion: &mut Criterion) {
    for zone in ["UTC", "America/New_York"] {
        for row in &ROWS {
            let mut group = group(criterion, format!("next/{zone}/{}", row.name));
            let schedule: Schedule = row.ours.parse().unwrap();
            let timetable = schedule.bind(DateTime::UNIX_EPOCH, Zone::from_str(zone).unwrap());
            next(&mut group, "adjutant", &starts(), |start| timetable.next_after(*start));

            let tz: Tz = zone.parse().unwrap();
            let local: Vec<DateTime<Tz>> =
                starts().iter().map(|start| start.with_timezone(&tz)).collect();
            if let Some(text) = row.croner {
                let schedule = CronParser::new().parse(text).unwrap();
                match zone {
                    "UTC" => next(&mut group, "croner", &starts(), |start| {
                        schedule.find_next_occurrence(start, false)
                    }),
                    _ => next(&mut group, "croner", &local, |start| {
                        schedule.find_next_occurrence(start, false)
                    }),
                }
            }
            if let Some(text) = row.cron {
                let schedule = cron::Schedule::from_str(text).unwrap();
                match zone {
                    "UTC" => next(&mut group, "cron", &starts(), |s| schedule.after(s).next()),
                    _ => next(&mut group, "cron", &local, |start| schedule.after(start).next()),
                }
            }
            if let (Some(text), "UTC") = (row.saffron, zone) {
                let schedule: saffron::Cron = text.parse().unwrap();
                next(&mut group, "saffron", &starts(), |start| schedule.next_after(*start));
            }
            group.finish();
        }
    }
}

fn bench_parse(criterion: &mut Criterion) {
    for row in &ROWS {
        let mut group = group(criterion, format!("parse/{}", row.name));
        parse(&mut group, "adjutant", row.ours, |text| text.parse::<Schedule>().is_ok());
        if let Some(text) = row.croner {
            parse(&mut group, "croner", text, |text| CronParser::new().parse(text).is_ok());
        }
        if let Some(text) = row.cron {
            parse(&mut group, "cron", text, |text| cron::Schedule::from_str(text).is_ok());
        }
        if let Some(text) = row.saffron {
            parse(&mut group, "saffron", text, |text| text.parse::<saffron::Cron>().is_ok());
        }
        group.finish();
    }

    let mut group = group(criterion, "parse/everything at once".to_owned());
    let text = "0/7 5,10-20/2 22-2 1W,15W,LW,L JAN-MAR,9 FRIL,MON#2 2022/2 America/New_York";
    parse(&mut group, "adjutant", text, |text| text.parse::<Schedule>().is_ok());
    for text in ["rate(5m)", "at(2030-01-02 03:04:05 Asia/Shanghai)"] {
        parse(&mut group, text, text, |text| text.parse::<Schedule>().is_ok());
    }
    group.finish();
}

/// What a restarted timer does: from its text to its next fire.
fn bench_resume(criterion: &mut Criterion) {
    let mut group = group(criterion, "text to next fire".to_owned());
    for text in ["0 0 2 * * ?", "rate(5m)"] {
        next(&mut group, text, &starts(), |start| {
            let zone: Zone = black_box("America/New_York").parse().unwrap();
            let schedule: Schedule = black_box(text).parse().unwrap();
            schedule.bind(DateTime::UNIX_EPOCH, zone).next_after(*start)
        });
    }
    group.finish();
}

fn bench_impossible(criterion: &mut Criterion) {
    let mut group = group(criterion, "impossible".to_owned());
    // It is refused when it is read; the others find out when they are asked.
    parse(&mut group, "adjutant", IMPOSSIBLE, |text| text.parse::<Schedule>().is_err());
    let schedule = CronParser::new().parse(IMPOSSIBLE).unwrap();
    let start = starts()[0];
    group.bench_function("croner", |bench| {
        bench.iter(|| schedule.find_next_occurrence(black_box(&start), false).is_err());
    });
    let schedule = cron::Schedule::from_str(IMPOSSIBLE).unwrap();
    group.bench_function("cron", |bench| bench.iter(|| schedule.after(black_box(&start)).next()));
    group.finish();
}

fn group(criterion: &mut Criterion, name: String) -> BenchmarkGroup<'_, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.sample_size(30);
    group
}

fn next<T, R>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    starts: &[T],
    find: impl Fn(&T) -> R,
) {
    let mut turn = 0;
    group.bench_function(name, |bench| {
        bench.iter(|| {
            turn = (turn + 1) % starts.len();
            find(black_box(&starts[turn]))
        });
    });
}

fn parse(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    text: &str,
    read: impl Fn(&str) -> bool,
) {
    group.bench_function(name, |bench| bench.iter(|| assert!(read(black_box(text)))));
}

/// 1024 instants over two years, at odd distances.
fn starts() -> Vec<DateTime<Utc>> {
    let first: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().expect("a date");
    (0..1024).map(|n| first + TimeDelta::seconds(n * 7919 * 61 % (730 * 86_400))).collect()
}

criterion_group!(benches, bench_next, bench_parse, bench_resume, bench_impossible);
criterion_main!(benches);

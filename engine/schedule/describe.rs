//! A schedule in English, for people who do not read cron.

use super::calendar::YEAR_MIN;
use super::cron::{Cron, Parts};
use super::days::{MonthDays, Weekdays, bits};
use super::{Schedule, Zone};

/// Up to so many times of day are listed one by one.
const TIMES_MAX: u32 = 4;

const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 13] = [
    "",
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const ORDINALS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

/// The schedule in a sentence; `own` is the zone of the instance, if that is known.
pub(super) fn sentence(schedule: &Schedule, own: Option<Zone>) -> String {
    match schedule {
        Schedule::Rate(rate) => format!("Fires every {}, counted from creation.", rate.in_words()),
        Schedule::At(at) => {
            let zone = at.zone().unwrap_or(Zone::UTC);
            format!("Fires once, at {}, {zone} time.", at.reading())
        }
        Schedule::Cron(cron) => of_cron(cron, own),
    }
}

fn of_cron(cron: &Cron, own: Option<Zone>) -> String {
    let parts = cron.parts();
    let zone = match (cron.zone(), own) {
        (Some(zone), _) => format!("{zone} time"),
        (None, None) => "the instance's own time".to_owned(),
        (None, Some(zone)) => format!("the instance's own time ({zone})"),
    };
    let phrases =
        [time(parts), days(&parts.month_days, &parts.weekdays), months(parts), years(parts)];
    let phrases: Vec<String> = phrases.into_iter().filter(|phrase| !phrase.is_empty()).collect();
    format!("Fires {}, {zone}.", phrases.join(" "))
}

fn time(parts: &Parts) -> String {
    let pattern = &parts.pattern;
    let (seconds, minutes, hours) = (pattern.seconds, pattern.minutes, u64::from(pattern.hours));
    let times = seconds.count_ones() * minutes.count_ones() * hours.count_ones();
    if times <= TIMES_MAX {
        return format!("at {}", listed(times_of_day(seconds, minutes, hours)));
    }
    let mut phrases = Vec::new();
    let has_seconds = seconds != 1;
    if has_seconds {
        phrases.push(match every(seconds, 60, "second") {
            Some(every) => every,
            None => format!("at {}", named(seconds, "second")),
        });
    }
    let all_minutes = minutes.count_ones() == 60;
    match every(minutes, 60, "minute") {
        None if !has_seconds && minutes.count_ones() == 1 && hours.count_ones() < 24 => {
            // The same minute of hours at even distances is an even distance by itself.
            if let Some(every) = every(hours, 24, "hour") {
                let (hour, minute) = (hours.trailing_zeros(), minutes.trailing_zeros());
                let start = every.split(" from ").next().unwrap_or(&every);
                return format!("{start} from {hour:02}:{minute:02}");
            }
            phrases.push(format!("at {}", named(minutes, "minute")));
        }
        // Every second of it, or every tenth, goes on through all minutes.
        Some(_) if has_seconds && all_minutes => {
            if phrases[0].starts_with("at ") {
                phrases.push("of every minute".to_owned());
            }
        }
        Some(every) if !has_seconds => phrases.push(every),
        _ => {
            let word = if has_seconds { "in" } else { "at" };
            phrases.push(format!("{word} {}", named(minutes, "minute")));
        }
    }
    if hours.count_ones() < 24 {
        phrases.push(format!("in {}", named(hours, "hour")));
    } else if !phrases
        .last()
        .is_some_and(|last| last.starts_with("every") || last.starts_with("of"))
    {
        phrases.push("of every hour".to_owned());
    }
    phrases.join(" ")
}

fn times_of_day(seconds: u64, minutes: u64, hours: u64) -> Vec<String> {
    let mut times = Vec::new();
    for hour in bits(hours) {
        for minute in bits(minutes) {
            for second in bits(seconds) {
                times.push(match second {
                    0 => format!("{hour:02}:{minute:02}"),
                    _ => format!("{hour:02}:{minute:02}:{second:02}"),
                });
            }
        }
    }
    times
}

/// `every second`, `every 20 minutes`, `every 15 minutes from minute 5`: only where the distance is the
/// same across the end of the cycle, too.
fn every(set: u64, cycle: u32, unit: &str) -> Option<String> {
    if set.count_ones() == cycle {
        return Some(format!("every {unit}"));
    }
    let (first, last, step) = step(set)?;
    (first + cycle == last + step).then(|| match first {
        0 => format!("every {step} {unit}s"),
        _ => format!("every {step} {unit}s from {unit} {first}"),
    })
}

/// `minute 5`, `minutes 5, 7 and 30 to 40`.
fn named(set: u64, unit: &str) -> String {
    match set.count_ones() {
        1 => format!("{unit} {}", set.trailing_zeros()),
        _ => format!("{unit}s {}", runs(set, |value| value.to_string())),
    }
}

fn days(month_days: &MonthDays, weekdays: &Weekdays) -> String {
    let mut phrases = Vec::new();
    if !month_days.any {
        phrases.extend(month_day_phrases(month_days));
    }
    if !weekdays.any {
        phrases.extend(weekday_phrases(weekdays));
    }
    match phrases.is_empty() {
        true => "every day".to_owned(),
        false => format!("on {}", phrases.join(" or ")),
    }
}

fn month_day_phrases(month_days: &MonthDays) -> Vec<String> {
    let mut phrases = Vec::new();
    match month_days.days.count_ones() {
        0 => {}
        1 => phrases.push(format!("day {}", month_days.days.trailing_zeros())),
        _ => phrases.push(format!("days {}", runs(month_days.days.into(), |day| day.to_string()))),
    }
    for day in bits(month_days.nearest.into()) {
        phrases.push(format!("the working day nearest to day {day}"));
    }
    if month_days.last {
        phrases.push("the last day of the month".to_owned());
    }
    if month_days.last_workday {
        phrases.push("the last working day of the month".to_owned());
    }
    phrases
}

fn weekday_phrases(weekdays: &Weekdays) -> Vec<String> {
    let name = |day: u32| WEEKDAYS[day as usize].to_owned();
    let mut phrases = Vec::new();
    if weekdays.days != 0 {
        phrases.push(runs(weekdays.days.into(), name));
    }
    for (ordinal, &days) in ORDINALS.iter().zip(&weekdays.nth) {
        for day in bits(days.into()) {
            phrases.push(format!("the {ordinal} {} of the month", name(day)));
        }
    }
    for day in bits(weekdays.last.into()) {
        phrases.push(format!("the last {} of the month", name(day)));
    }
    phrases
}

fn months(parts: &Parts) -> String {
    let months = u64::from(parts.pattern.months);
    match months.count_ones() {
        12 => String::new(),
        _ => format!("in {}", runs(months, |month| MONTHS[month as usize].to_owned())),
    }
}

fn years(parts: &Parts) -> String {
    let [low, middle, high] = parts.pattern.years;
    if low & middle == u64::MAX {
        return String::new();
    }
    let values: Vec<u32> = bits(low)
        .chain(bits(middle).map(|year| year + 64))
        .chain(bits(high).map(|year| year + 128))
        .map(|year| year + YEAR_MIN)
        .collect();
    match even_step(&values) {
        Some((first, last, step)) => format!("every {step} years from {first} to {last}"),
        None => format!("in {}", runs_of(&values, |year| year.to_string())),
    }
}

/// The first and the last of at least three values with the same distance of more than one.
fn step(set: u64) -> Option<(u32, u32, u32)> {
    even_step(&bits(set).collect::<Vec<_>>())
}

fn even_step(values: &[u32]) -> Option<(u32, u32, u32)> {
    let &[first, second, .., last] = values else { return None };
    let step = second - first;
    let is_even = values.windows(2).all(|pair| pair[1] - pair[0] == step);
    (is_even && step > 1).then_some((first, last, step))
}

/// `3, 7 and 10 to 15`.
fn runs(set: u64, name: impl Fn(u32) -> String) -> String {
    runs_of(&bits(set).collect::<Vec<_>>(), name)
}

fn runs_of(values: &[u32], name: impl Fn(u32) -> String) -> String {
    let runs = values.chunk_by(|before, after| before + 1 == *after);
    let words = runs.flat_map(|run| match run {
        [first, _, .., last] => vec![format!("{} to {}", name(*first), name(*last))],
        _ => run.iter().map(|&value| name(value)).collect(),
    });
    listed(words.collect())
}

/// `a`, `a and b`, `a, b and c`.
fn listed(mut words: Vec<String>) -> String {
    let last = words.pop().unwrap_or_default();
    match words.is_empty() {
        true => last,
        false => format!("{} and {last}", words.join(", ")),
    }
}

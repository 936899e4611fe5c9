//! A second opinion on cron expressions: slow, naive, and sharing no code with the engine.
//!
//! An expression is generated as data, so nothing is parsed here; dates are chrono's, clock
//! changes chrono-tz's; the next fire is found by trying one instant after another. On a machine
//! whose zone files are newer than chrono-tz, the offsets are the engine's own; the tests of
//! `schedule::zone_data` hold those to the files.

use std::sync::LazyLock;

use adjutant::schedule::{Zone, ZoneData};
use chrono::{DateTime, Datelike, Days, LocalResult, NaiveDate, NaiveDateTime, TimeZone, Timelike};
use chrono_tz::Tz;

pub const DAY: i64 = 86_400;

/// An item of a field. Values are as in the field itself: weekdays run from 0 to 7.
#[derive(Debug, Clone)]
pub enum Item {
    All,
    AllBy(u32),
    One(u32),
    From(u32, u32),
    Range(u32, u32),
    RangeBy(u32, u32, u32),
    // For the day fields only.
    Any,
    Last,
    LastWorkday,
    Nearest(u32),
    LastOf(u32),
    Nth(u32, u32),
}

#[derive(Debug, Clone)]
pub struct Expression {
    pub seconds: Vec<Item>,
    pub minutes: Vec<Item>,
    pub hours: Vec<Item>,
    pub days: Vec<Item>,
    pub months: Vec<Item>,
    pub weekdays: Vec<Item>,
    pub years: Option<Vec<Item>>,
    pub named: bool,
}

impl Expression {
    pub fn text(&self) -> String {
        const MONTHS: [&str; 12] = [
            "JAN", "FEB", "mar", "APR", "MAY", "june", "JUL", "August", "SEP", "OCT", "NOV", "DEC",
        ];
        const WEEKDAYS: [&str; 7] = ["SUN", "mon", "TUE", "Wednesday", "THU", "FRI", "SAT"];
        let number = |value: u32| value.to_string();
        let month = |value: u32| match self.named {
            true => MONTHS[value as usize - 1].to_owned(),
            false => format!("{value:02}"),
        };
        // A 7 stays one: its name would be that of a 0, which a range may not end with.
        let weekday = |value: u32| match self.named && value < 7 {
            true => WEEKDAYS[value as usize].to_owned(),
            false => number(value),
        };
        let mut fields = vec![
            list(&self.seconds, number),
            list(&self.minutes, number),
            list(&self.hours, number),
            list(&self.days, number),
            list(&self.months, month),
            list(&self.weekdays, weekday),
        ];
        fields.extend(self.years.iter().map(|years| list(years, number)));
        fields.join(" ")
    }

    /// The text without what restricts the days.
    pub fn daily_text(&self) -> String {
        let text = self.text();
        let time: Vec<&str> = text.split(' ').take(3).collect();
        format!("{} * * ?", time.join(" "))
    }

    /// The first fire after `after` and not after `until`, both in unix seconds.
    pub fn next_after(&self, zone: Tz, after: i64, until: i64) -> Option<i64> {
        let mut instant = after + 1;
        while instant <= until {
            let at = utc(instant);
            let near = |days: u64| at.date().checked_add_days(Days::new(days));
            if instant % DAY == 0
                && ![at.date().pred_opt(), near(0), near(1)]
                    .into_iter()
                    .flatten()
                    .any(|date| self.has_date(date))
            {
                instant += DAY;
                continue;
            }
            // A minute without a clock change needs a closer look only if its reading matches.
            if instant % 60 == 0
                && offset(zone, instant - 1) == offset(zone, instant + 59)
                && !self.has_minute(utc(instant + offset(zone, instant)))
            {
                instant += 60;
                continue;
            }
            if self.fires_at(zone, instant) {
                return Some(instant);
            }
            instant += 1;
        }
        None
    }

    pub fn is_fixed_time(&self) -> bool {
        ![&self.seconds, &self.minutes, &self.hours].into_iter().flatten().any(|item| {
            matches!(item, Item::All | Item::AllBy(_) | Item::From(..) | Item::RangeBy(..))
        })
    }

    pub fn has_date(&self, date: NaiveDate) -> bool {
        let has_year = self.years.as_ref().is_none_or(|years| {
            years.iter().any(|item| in_range(item, date.year() as u32, 1970, 2099))
        });
        has_year
            && (1970..=2099).contains(&date.year())
            && self.months.iter().any(|item| in_range(item, date.month(), 1, 12))
            && self.has_day(date)
    }

    /// The seconds of a day at which its clock shows a matching time.
    pub fn times_of_day(&self) -> Vec<i64> {
        (0..DAY).filter(|&second| self.has_time(utc(second))).collect()
    }

    /// Whether the zone's clock shows a matching reading.
    pub fn shows(&self, zone: Tz, instant: i64) -> bool {
        self.matches(instant + offset(zone, instant))
    }

    fn matches(&self, reading: i64) -> bool {
        let reading = utc(reading);
        self.has_minute(reading) && self.has_time(reading)
    }

    fn fires_at(&self, zone: Tz, instant: i64) -> bool {
        let now = instant + offset(zone, instant);
        let before = instant - 1 + offset(zone, instant - 1);
        if !self.is_fixed_time() {
            return self.matches(now);
        }
        let is_second_pass = match zone.from_local_datetime(&utc(now)) {
            _ if has_newer_files() => {
                let ahead = offset(zone, instant - 4 * 3600);
                let first = now - ahead;
                first < instant && offset(zone, first) == ahead
            }
            LocalResult::Ambiguous(_, second) => second.timestamp() == instant,
            _ => false,
        };
        let midnight = now - now.rem_euclid(DAY);
        let mut swallowed = (before + 1).max(midnight)..now;
        self.matches(now) && !is_second_pass || swallowed.any(|reading| self.matches(reading))
    }

    fn has_minute(&self, reading: NaiveDateTime) -> bool {
        self.hours.iter().any(|item| in_range(item, reading.hour(), 0, 23))
            && self.minutes.iter().any(|item| in_range(item, reading.minute(), 0, 59))
            && self.has_date(reading.date())
    }

    fn has_time(&self, time: NaiveDateTime) -> bool {
        self.hours.iter().any(|item| in_range(item, time.hour(), 0, 23))
            && self.minutes.iter().any(|item| in_range(item, time.minute(), 0, 59))
            && self.seconds.iter().any(|item| in_range(item, time.second(), 0, 59))
    }

    fn has_day(&self, date: NaiveDate) -> bool {
        let is_free = |items: &[Item]| items.iter().any(|i| matches!(i, Item::All | Item::Any));
        let in_month = self.days.iter().any(|item| is_month_day(item, date));
        let in_week = self.weekdays.iter().any(|item| is_weekday(item, date));
        match (is_free(&self.days), is_free(&self.weekdays)) {
            (true, true) => true,
            (true, false) => in_week,
            (false, true) => in_month,
            (false, false) => in_month || in_week,
        }
    }
}

/// The reading in seconds that a clock running `offset` ahead of UTC shows is `instant + offset`.
pub fn offset(zone: Tz, instant: i64) -> i64 {
    use chrono::Offset;
    if has_newer_files() {
        let zone: Zone = zone.name().parse().unwrap();
        let at = DateTime::from_timestamp(instant, 0).unwrap();
        return zone.local_time(at).offset().local_minus_utc().into();
    }
    zone.offset_from_utc_datetime(&utc(instant)).fix().local_minus_utc().into()
}

fn has_newer_files() -> bool {
    static HAS_NEWER: LazyLock<bool> = LazyLock::new(|| ZoneData::in_use().folder().is_some());
    *HAS_NEWER
}

fn utc(seconds: i64) -> NaiveDateTime {
    DateTime::from_timestamp(seconds, 0).unwrap().naive_utc()
}

/// Whether an item of the common grammar takes a value of a field that runs from `min` to `max`.
fn in_range(item: &Item, value: u32, min: u32, max: u32) -> bool {
    let cycle = max - min + 1;
    match *item {
        Item::All => true,
        Item::AllBy(step) => (value - min).is_multiple_of(step),
        Item::One(only) => value == only,
        Item::From(first, step) => value >= first && (value - first).is_multiple_of(step),
        Item::Range(first, last) => in_range(&Item::RangeBy(first, last, 1), value, min, max),
        Item::RangeBy(first, last, step) => {
            let distance = (value + cycle - first) % cycle;
            distance <= (last + cycle - first) % cycle && distance.is_multiple_of(step)
        }
        _ => false,
    }
}

fn is_month_day(item: &Item, date: NaiveDate) -> bool {
    let month: Vec<NaiveDate> = (1..=31).filter_map(|day| date.with_day(day)).collect();
    let is_workday = |date: &NaiveDate| (1..=5).contains(&date.weekday().num_days_from_sunday());
    match *item {
        Item::Last => month.last() == Some(&date),
        Item::LastWorkday => month.iter().rfind(|date| is_workday(date)) == Some(&date),
        Item::Nearest(day) if day as usize <= month.len() => {
            let workdays = month.iter().filter(|date| is_workday(date));
            workdays.min_by_key(|date| date.day().abs_diff(day)) == Some(&date)
        }
        _ => in_range(item, date.day(), 1, 31),
    }
}

fn is_weekday(item: &Item, date: NaiveDate) -> bool {
    let weekday = date.weekday().num_days_from_sunday();
    let is = |day: u32| day % 7 == weekday;
    match *item {
        Item::One(day) => is(day),
        Item::Last => is(0),
        Item::LastOf(day) => is(day) && (date + Days::new(7)).month() != date.month(),
        Item::Nth(day, k) => is(day) && (date.day() - 1) / 7 + 1 == k,
        // On a line of two weeks, 7 is the second Sunday.
        Item::Range(first, last) => is_weekday(&Item::RangeBy(first, last, 1), date),
        Item::RangeBy(first, last, step) => {
            let last = if last < first { last + 7 } else { last };
            (first..=last).step_by(step as usize).any(is)
        }
        _ => in_range(item, weekday, 0, 6),
    }
}

fn list(items: &[Item], name: impl Fn(u32) -> String) -> String {
    let texts: Vec<String> = items
        .iter()
        .map(|item| match *item {
            Item::All => "*".to_owned(),
            Item::AllBy(step) => format!("*/{step}"),
            Item::One(value) => name(value),
            Item::From(first, step) => format!("{}/{step}", name(first)),
            Item::Range(first, last) => format!("{}-{}", name(first), name(last)),
            Item::RangeBy(first, last, step) => format!("{}-{}/{step}", name(first), name(last)),
            Item::Any => "?".to_owned(),
            Item::Last => "L".to_owned(),
            Item::LastWorkday => "LW".to_owned(),
            Item::Nearest(day) => format!("{day}W"),
            Item::LastOf(day) => format!("{}L", name(day)),
            Item::Nth(day, k) => format!("{}#{k}", name(day)),
        })
        .collect();
    texts.join(",")
}

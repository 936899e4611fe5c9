//! The readings of a clock that a cron expression names, as bit sets.
//!
//! Which days of a month match depends only on the weekday of its first day and on its length:
//! 28 shapes in all. So weekdays, `L`, `LW`, `15W`, `FRIL` and `MON#2` are worked out once, when
//! the expression is read, and finding a day is one look into a table of 28 masks.

use super::calendar::{DAYS_END, Month, SECONDS_PER_DAY, SHAPES, YEAR_MAX, YEAR_MIN};

/// The answer of a search that found nothing, later than every reading.
pub(super) const NEVER: i64 = i64::MAX;

/// A set of readings. Bit `n` of a set stands for the value `n`; of `years`, for 1970 + `n`.
///
/// A reading is a wall-clock date and time as if it were UTC, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    pub(super) seconds: u64,
    pub(super) minutes: u64,
    pub(super) hours: u32,
    pub(super) months: u32,
    pub(super) years: [u64; 3],
    /// The matching days of each shape of month.
    pub(super) days: [u32; SHAPES],
    /// All days match, so that none has to be looked up.
    pub(super) every_day: bool,
}

impl Pattern {
    /// The first matching reading at or after `from`, or [`NEVER`].
    pub(super) fn first_from(&self, from: i64) -> i64 {
        let from = from.max(0);
        if from >= i64::from(DAYS_END) * SECONDS_PER_DAY {
            return NEVER;
        }
        let (day, second) = ((from / SECONDS_PER_DAY) as u32, (from % SECONDS_PER_DAY) as u32);
        if self.every_day {
            return match self.time_from(second) {
                Some(second) => reading(day, second),
                None if day + 1 < DAYS_END => reading(day + 1, self.first_time()),
                None => NEVER,
            };
        }
        let (month, day_of_month) = Month::of_day(day);
        let days = self.days_of(month);
        if days & (1 << day_of_month) != 0
            && let Some(second) = self.time_from(second)
        {
            return reading(day, second);
        }
        let later = u64::from(days) & (!1 << day_of_month);
        match later {
            0 => self.first_after_month(month),
            _ => reading(month.first + later.trailing_zeros() - 1, self.first_time()),
        }
    }

    /// Whether any day matches at all.
    pub(super) fn is_possible(&self) -> bool {
        self.first_from(0) != NEVER
    }

    /// The smallest distance between two readings in seconds; `None` with fewer than two.
    pub(super) fn min_distance(&self) -> Option<u64> {
        let hours = u64::from(self.hours);
        let seconds_extent = extent(self.seconds);
        let minutes_extent = 60 * extent(self.minutes) + seconds_extent;
        let day_extent = 3600 * extent(hours) + minutes_extent;
        // Each level's closest neighbours meet the end of one and the start of the other.
        [
            closest(self.seconds),
            closest(self.minutes).map(|minutes| 60 * minutes - seconds_extent),
            closest(hours).map(|hours| 3600 * hours - minutes_extent),
            self.closest_days().map(|days| 86_400 * u64::from(days) - day_extent),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The first matching reading in a month after `month`.
    fn first_after_month(&self, month: Month) -> i64 {
        let mut year = month.year;
        let mut months = match self.has_year(year) {
            true => self.months & (!1 << month.month),
            false => 0,
        };
        loop {
            while months != 0 {
                let month = Month::new(year, months.trailing_zeros());
                let days = self.days[month.shape()];
                if days != 0 {
                    return reading(month.first + days.trailing_zeros() - 1, self.first_time());
                }
                months &= months - 1;
            }
            match self.year_after(year) {
                Some(next) => (year, months) = (next, self.months),
                None => return NEVER,
            }
        }
    }

    /// The matching days of one month; none if its month or year is not in the pattern.
    fn days_of(&self, month: Month) -> u32 {
        match self.has_year(month.year) && self.months >> month.month & 1 != 0 {
            true => self.days[month.shape()],
            false => 0,
        }
    }

    fn has_year(&self, year: u32) -> bool {
        let year = year - YEAR_MIN;
        self.years[(year / 64) as usize] >> (year % 64) & 1 != 0
    }

    fn year_after(&self, year: u32) -> Option<u32> {
        let from = year + 1 - YEAR_MIN;
        let mut word = (from / 64) as usize;
        let mut rest = self.years.get(word)? >> (from % 64);
        let mut base = from;
        while rest == 0 {
            word += 1;
            rest = *self.years.get(word)?;
            base = word as u32 * 64;
        }
        Some(YEAR_MIN + base + rest.trailing_zeros())
    }

    /// The first matching second of a day at or after `second`.
    fn time_from(&self, second: u32) -> Option<u32> {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        if self.hours >> hour & 1 != 0 {
            if self.minutes >> minute & 1 != 0 {
                let seconds = self.seconds >> second;
                if seconds != 0 {
                    return Some(hour * 3600 + minute * 60 + second + seconds.trailing_zeros());
                }
            }
            let minutes = self.minutes & (!1 << minute);
            if minutes != 0 {
                let minute = minutes.trailing_zeros();
                return Some(hour * 3600 + minute * 60 + self.seconds.trailing_zeros());
            }
        }
        let hours = self.hours & (!1 << hour);
        (hours != 0).then(|| hours.trailing_zeros() * 3600 + self.first_in_hour())
    }

    fn first_time(&self) -> u32 {
        self.hours.trailing_zeros() * 3600 + self.first_in_hour()
    }

    fn first_in_hour(&self) -> u32 {
        self.minutes.trailing_zeros() * 60 + self.seconds.trailing_zeros()
    }

    /// The smallest distance between two matching days.
    fn closest_days(&self) -> Option<u32> {
        let mut closest = None;
        let mut last = None;
        for year in YEAR_MIN..=YEAR_MAX {
            for month in 1..=12 {
                let month = Month::new(year, month);
                let mut days = self.days_of(month);
                while days != 0 {
                    let day = month.first + days.trailing_zeros();
                    let distance = last.map(|last| day - last);
                    if distance == Some(1) {
                        return distance;
                    }
                    closest = closest.into_iter().chain(distance).min();
                    last = Some(day);
                    days &= days - 1;
                }
            }
        }
        closest
    }
}

fn reading(day: u32, second: u32) -> i64 {
    i64::from(day) * SECONDS_PER_DAY + i64::from(second)
}

/// From the first to the last value of a set that is never empty.
fn extent(set: u64) -> u64 {
    u64::from(63 - set.leading_zeros() - set.trailing_zeros())
}

/// The smallest distance between two values of a set.
fn closest(set: u64) -> Option<u64> {
    (1..64).find(|&distance| set & (set >> distance) != 0)
}

//! Days and months between 1970 and 2099, as plain numbers.
//!
//! In this range every fourth year is a leap year (2000 is one, 2100 is outside), which is what
//! keeps the arithmetic to a few multiplications. A day is its number since 1970-01-01.

/// The first year a cron expression can name.
pub(super) const YEAR_MIN: u32 = 1970;
/// The last year a cron expression can name.
pub(super) const YEAR_MAX: u32 = 2099;
/// The first day after [`YEAR_MAX`].
pub(super) const DAYS_END: u32 = day_of_year_start(YEAR_MAX + 1);
pub(super) const SECONDS_PER_DAY: i64 = 86_400;

/// Days before each month of a common year; index 1 is January.
const DAYS_BEFORE: [u32; 14] = [0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 365];

/// The number of different months a calendar knows: seven first weekdays, four lengths.
pub(super) const SHAPES: usize = 28;

/// One month, with what decides which of its days match.
#[derive(Debug, Clone, Copy)]
pub(super) struct Month {
    pub(super) year: u32,
    /// 1 to 12.
    pub(super) month: u32,
    /// The number of the month's first day.
    pub(super) first: u32,
}

impl Month {
    pub(super) fn new(year: u32, month: u32) -> Self {
        let leap_day = u32::from(month > 2 && is_leap(year));
        let first = day_of_year_start(year) + DAYS_BEFORE[month as usize] + leap_day;
        Month { year, month, first }
    }

    /// The month that holds `day`, and which of its days that is, from 1.
    pub(super) fn of_day(day: u32) -> (Self, u32) {
        // Counted from 1968-03-01 a leap day is the last of its four-year cycle, and months have
        // a regular 153 days in five.
        let shifted = day + 671;
        let cycle = (4 * shifted + 3) / 1461;
        let in_year = shifted - 1461 * cycle / 4;
        let shifted_month = (5 * in_year + 2) / 153;
        let day_of_month = in_year - (153 * shifted_month + 2) / 5 + 1;
        let (year, month) = match shifted_month {
            0..=9 => (1968 + cycle, shifted_month + 3),
            _ => (1969 + cycle, shifted_month - 9),
        };
        (Month { year, month, first: day + 1 - day_of_month }, day_of_month)
    }

    /// Which of the [`SHAPES`] this month has.
    pub(super) fn shape(self) -> usize {
        // 1970-01-01 was a Thursday.
        let first_weekday = (self.first + 4) % 7;
        shape(first_weekday, self.length())
    }

    fn length(self) -> u32 {
        let next = self.month as usize + 1;
        let leap_day = u32::from(self.month == 2 && is_leap(self.year));
        DAYS_BEFORE[next] - DAYS_BEFORE[next - 1] + leap_day
    }
}

/// The index of a month of `length` days whose first is a `first_weekday` (Sunday is 0).
pub(super) fn shape(first_weekday: u32, length: u32) -> usize {
    (first_weekday * 4 + length - 28) as usize
}

const fn day_of_year_start(year: u32) -> u32 {
    (year - 1970) * 365 + (year - 1969) / 4
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, Days, NaiveDate};

    use super::*;

    #[test]
    fn every_day_agrees_with_chrono() {
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for day in 0..DAYS_END {
            let date = epoch + Days::new(day.into());
            let (month, day_of_month) = Month::of_day(day);
            assert_eq!(
                (month.year, month.month, day_of_month),
                (date.year() as u32, date.month(), date.day())
            );
            assert_eq!(month.first, Month::new(month.year, month.month).first);
            let weekday = date.with_day(1).unwrap().weekday().num_days_from_sunday();
            assert_eq!(month.shape(), shape(weekday, date.num_days_in_month().into()));
        }
        assert_eq!(
            epoch + Days::new(DAYS_END.into()),
            NaiveDate::from_ymd_opt(2100, 1, 1).unwrap()
        );
    }
}

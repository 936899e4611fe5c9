//! The two day fields of a cron expression, and the days they match together.

use super::calendar::{self, SHAPES};
use super::cursor::Cursor;
use super::error::ParseError;
use super::field::{DAY, Values, WEEKDAY, end_of_item};

/// The day-of-month field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct MonthDays {
    /// `*` or `?` stands in the list: every day will do.
    pub(super) any: bool,
    /// Days by number; bit 1 is the first.
    pub(super) days: u32,
    /// `nW`: the weekday nearest to day n, in the same month.
    pub(super) nearest: u32,
    /// `L`: the last day of the month.
    pub(super) last: bool,
    /// `LW`: the last day from Monday to Friday.
    pub(super) last_workday: bool,
}

/// The weekday field. Bit 0 is Sunday.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Weekdays {
    /// `*` or `?` stands in the list: every day will do.
    pub(super) any: bool,
    pub(super) days: u8,
    /// `xL`: the last such day of the month.
    pub(super) last: u8,
    /// `x#k`: the k-th such day of the month, first to fifth.
    pub(super) nth: [u8; 5],
}

impl MonthDays {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let mut days = MonthDays::default();
        let mut numbered = Values::default();
        loop {
            days.item(cursor, &mut numbered)?;
            if end_of_item(cursor, "`,`, `-`, `/`, `W` or the end of the field")? {
                days.days = numbered.low() as u32;
                return Ok(days);
            }
        }
    }

    fn item(&mut self, cursor: &mut Cursor<'_>, days: &mut Values) -> Result<(), ParseError> {
        match cursor.peek() {
            Some(b'*' | b'?') if is_bare(cursor) => self.any = read_any(cursor)?,
            Some(b'*') => DAY.item(cursor, days)?,
            Some(b'L' | b'l') => {
                cursor.eat(b'L');
                match cursor.eat(b'W') {
                    true => self.last_workday = true,
                    false => self.last = true,
                }
                complete(cursor)?;
            }
            _ => {
                let day = DAY.value(cursor).map_err(|error| match cursor.peek() {
                    Some(b'0'..=b'9') => error,
                    _ => cursor.error("a day, 1-31, `L`, `LW`, `nW`, `*` or `?`"),
                })?;
                match cursor.eat(b'W') {
                    true => {
                        self.nearest |= 1 << day;
                        complete(cursor)?;
                    }
                    false => DAY.item_from(day, cursor, days)?,
                }
            }
        }
        Ok(())
    }

    /// The matching days of a month; bit 1 is the first.
    fn in_month(&self, shape: MonthShape) -> u32 {
        let mut days = self.days;
        if self.last {
            days |= 1 << shape.length;
        }
        if self.last_workday {
            days |= 1 << shape.workday_near(shape.length);
        }
        for day in bits(u64::from(self.nearest)).filter(|&day| day <= shape.length) {
            days |= 1 << shape.workday_near(day);
        }
        days & shape.all()
    }
}

impl Weekdays {
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let mut weekdays = Weekdays::default();
        let mut listed = Values::default();
        loop {
            weekdays.item(cursor, &mut listed)?;
            if end_of_item(cursor, "`,`, `-`, `/`, `L`, `#` or the end of the field")? {
                weekdays.days |= listed.low() as u8;
                return Ok(weekdays);
            }
        }
    }

    fn item(&mut self, cursor: &mut Cursor<'_>, days: &mut Values) -> Result<(), ParseError> {
        match cursor.peek() {
            Some(b'*' | b'?') if is_bare(cursor) => self.any = read_any(cursor)?,
            Some(b'*') => WEEKDAY.item(cursor, days)?,
            Some(b'L' | b'l') if cursor.letters().len() == 1 => {
                cursor.eat(b'L');
                self.days |= 1;
                complete(cursor)?;
            }
            _ => {
                let weekday = WEEKDAY.value(cursor)?;
                let day = 1 << (weekday % 7);
                if cursor.eat(b'L') {
                    self.last |= day;
                    complete(cursor)?;
                } else if cursor.eat(b'#') {
                    self.nth[read_ordinal(cursor)?] |= day;
                    complete(cursor)?;
                } else {
                    WEEKDAY.item_from(weekday, cursor, days)?;
                }
            }
        }
        Ok(())
    }

    /// The matching days of a month; bit 1 is the first.
    fn in_month(&self, shape: MonthShape) -> u32 {
        let first_week = shape.week_from(1);
        let weekly = |days: u8| u64::from(first_week(days));
        let mut days = (0..5).fold(0, |days, week| days | weekly(self.days) << (7 * week));
        for (week, &nth) in self.nth.iter().enumerate() {
            days |= weekly(nth) << (7 * week);
        }
        let last_week = shape.length - 6;
        days |= u64::from(shape.week_from(last_week)(self.last)) << (last_week - 1);
        (days << 1) as u32 & shape.all()
    }
}

/// The days that match, for each shape of month.
///
/// A field that takes any day leaves the choice to the other; two that do not add up.
pub(super) fn by_shape(month_days: &MonthDays, weekdays: &Weekdays) -> [u32; SHAPES] {
    let mut days = [0; SHAPES];
    for first_weekday in 0..7 {
        for length in 28..=31 {
            let shape = MonthShape { first_weekday, length };
            days[calendar::shape(first_weekday, length)] = match (month_days.any, weekdays.any) {
                (true, true) => shape.all(),
                (true, false) => weekdays.in_month(shape),
                (false, true) => month_days.in_month(shape),
                (false, false) => month_days.in_month(shape) | weekdays.in_month(shape),
            };
        }
    }
    days
}

/// The values in a set, in order.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then(|| set.trailing_zeros());
        set &= set.wrapping_sub(1);
        bit
    })
}

#[derive(Clone, Copy)]
struct MonthShape {
    first_weekday: u32,
    length: u32,
}

impl MonthShape {
    fn all(self) -> u32 {
        u32::MAX >> (31 - self.length) & !1
    }

    /// Turns a set of weekdays into the set of distances, 0 to 6, at which they follow `day`.
    fn week_from(self, day: u32) -> impl Fn(u8) -> u8 {
        let weekday = self.weekday(day);
        move |days| (days >> weekday | (u16::from(days) << (7 - weekday)) as u8) & 0x7f
    }

    /// The day from Monday to Friday that is nearest to `day` without leaving the month.
    fn workday_near(self, day: u32) -> u32 {
        match self.weekday(day) {
            6 if day == 1 => 3,
            6 => day - 1,
            0 if day == self.length => day - 2,
            0 => day + 1,
            _ => day,
        }
    }

    fn weekday(self, day: u32) -> u32 {
        (self.first_weekday + day - 1) % 7
    }
}

/// Whether the `*` or `?` that comes next is a whole item.
fn is_bare(cursor: &Cursor<'_>) -> bool {
    matches!(cursor.rest().as_bytes(), [b'*', b',', ..] | [b'*'] | [b'?', ..])
}

fn read_any(cursor: &mut Cursor<'_>) -> Result<bool, ParseError> {
    let any = cursor.eat(b'*') || cursor.eat(b'?');
    complete(cursor).map(|()| any)
}

/// Refuses anything more in this item.
fn complete(cursor: &Cursor<'_>) -> Result<(), ParseError> {
    match cursor.peek() {
        None | Some(b',') => Ok(()),
        Some(_) => Err(cursor.error("`,` or the end of the field")),
    }
}

/// Reads the k of `x#k` as an index.
fn read_ordinal(cursor: &mut Cursor<'_>) -> Result<usize, ParseError> {
    let digits = cursor.digits();
    match digits.parse() {
        Ok(ordinal @ 1..=5) if digits.len() == 1 => {
            cursor.read(digits, digits);
            Ok(ordinal - 1)
        }
        _ => Err(cursor.error("which one of the month, 1-5")),
    }
}

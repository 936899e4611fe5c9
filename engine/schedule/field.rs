//! One field of a cron expression: which values it takes, and the grammar they share.
//!
//! `*`, `a`, `a-b`, each with `/n`, in lists. The day fields add forms of their own in
//! [`super::days`].

use super::calendar::{YEAR_MAX, YEAR_MIN};
use super::cursor::Cursor;
use super::error::ParseError;

/// The values and names of one field.
pub(super) struct Field {
    /// What one value is called in an error.
    pub(super) value: &'static str,
    min: u32,
    /// Where `*` and `a/n` end.
    max: u32,
    /// The largest number that can be written: past `max` only for the weekday 7, a second Sunday.
    max_written: u32,
    /// The largest step.
    step_max: u32,
    /// Full names from the first value on; the first three letters alone also stand for it.
    names: &'static [&'static str],
    /// The value of the first name.
    first_name: u32,
    /// Whether a range may run past the end of the field and on from its start.
    wraps: bool,
}

pub(super) const SECOND: Field = numeric("a second, 0-59", 0, 59);
pub(super) const MINUTE: Field = numeric("a minute, 0-59", 0, 59);
pub(super) const HOUR: Field = numeric("an hour, 0-23", 0, 23);
pub(super) const DAY: Field = numeric("a day, 1-31", 1, 31);
pub(super) const MONTH: Field = Field {
    names: &[
        "JANUARY",
        "FEBRUARY",
        "MARCH",
        "APRIL",
        "MAY",
        "JUNE",
        "JULY",
        "AUGUST",
        "SEPTEMBER",
        "OCTOBER",
        "NOVEMBER",
        "DECEMBER",
    ],
    first_name: 1,
    ..numeric("a month, 1-12 or JAN-DEC", 1, 12)
};
pub(super) const WEEKDAY: Field = Field {
    max_written: 7,
    names: &["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"],
    ..numeric("a weekday, 0-7 or SUN-SAT", 0, 6)
};
pub(super) const YEAR: Field = Field {
    // As for seconds and minutes: rarer than that, the years are better named.
    step_max: 59,
    wraps: false,
    ..numeric("a year, 1970-2099", YEAR_MIN, YEAR_MAX)
};

const fn numeric(value: &'static str, min: u32, max: u32) -> Field {
    Field {
        value,
        min,
        max,
        max_written: max,
        step_max: max,
        names: &[],
        first_name: 0,
        wraps: true,
    }
}

/// The values of a field; bit 0 is value 0, or the year 1970.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Values(pub(super) [u64; 3]);

impl Values {
    pub(super) fn low(self) -> u64 {
        self.0[0]
    }

    fn insert(&mut self, value: u32) {
        self.0[(value / 64) as usize] |= 1 << (value % 64);
    }
}

impl Field {
    /// Reads a whole field of the shared grammar.
    pub(super) fn list(&self, cursor: &mut Cursor<'_>) -> Result<Values, ParseError> {
        let mut values = Values::default();
        loop {
            self.item(cursor, &mut values)?;
            if end_of_item(cursor, "`,`, `-`, `/` or the end of the field")? {
                return Ok(values);
            }
        }
    }

    /// Reads one item of the shared grammar.
    pub(super) fn item(
        &self,
        cursor: &mut Cursor<'_>,
        values: &mut Values,
    ) -> Result<(), ParseError> {
        if cursor.eat(b'*') {
            let step = self.step(cursor)?.unwrap_or(1);
            self.insert(values, self.min, self.max, step);
            return Ok(());
        }
        let first = self.value(cursor)?;
        self.item_from(first, cursor, values)
    }

    /// Reads what follows the `first` value of an item.
    pub(super) fn item_from(
        &self,
        first: u32,
        cursor: &mut Cursor<'_>,
        values: &mut Values,
    ) -> Result<(), ParseError> {
        let last_at = cursor.at() + 1;
        if cursor.eat(b'-') {
            let rest = cursor.rest();
            let last = self.value(cursor)?;
            if last < first && !self.wraps {
                return Err(ParseError::new(last_at, format!("{first} or a later year"), rest));
            }
            let last = if last < first { last + self.cycle() } else { last };
            let step = self.step(cursor)?.unwrap_or(1);
            self.insert(values, first, last, step);
        } else if let Some(step) = self.step(cursor)? {
            // A Sunday written as 7 starts the week like one written as 0.
            let first = if first > self.max { first - self.cycle() } else { first };
            self.insert(values, first, self.max, step);
        } else {
            self.insert(values, first, first, 1);
        }
        Ok(())
    }

    /// Reads one number or name.
    pub(super) fn value(&self, cursor: &mut Cursor<'_>) -> Result<u32, ParseError> {
        let digits = cursor.digits();
        if digits.is_empty() {
            return self.name(cursor);
        }
        // Two digits, one of which may be a leading zero; years are written in full.
        let right_length = match self.min {
            YEAR_MIN => digits.len() == 4,
            _ => digits.len() <= 2,
        };
        match digits.parse() {
            Ok(value) if right_length && (self.min..=self.max_written).contains(&value) => {
                cursor.read(digits, without_leading_zero(digits));
                Ok(value)
            }
            _ => Err(cursor.error(self.value)),
        }
    }

    fn name(&self, cursor: &mut Cursor<'_>) -> Result<u32, ParseError> {
        let letters = cursor.letters();
        // `FRIL` is a name and the letter of a form that the day fields know.
        let spellings = [letters, letters.strip_suffix(['L', 'l']).unwrap_or(letters)];
        for spelling in spellings {
            let is_name = |name: &&str| {
                spelling.eq_ignore_ascii_case(name) || spelling.eq_ignore_ascii_case(&name[..3])
            };
            if let Some(index) = self.names.iter().position(is_name) {
                cursor.read(spelling, &self.names[index][..3]);
                return Ok(self.first_name + index as u32);
            }
        }
        if cursor.peek() == Some(b'?') {
            return Err(cursor.error(self.value).suggest(Some("*".to_owned())));
        }
        // `TUES`, `SEPT`: the start of a full name.
        let near = self.names.iter().find(|name| {
            letters.len() > 3
                && name
                    .get(..letters.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(letters))
        });
        Err(cursor.error(self.value).suggest(near.map(|name| name[..3].to_owned())))
    }

    fn step(&self, cursor: &mut Cursor<'_>) -> Result<Option<u32>, ParseError> {
        if !cursor.eat(b'/') {
            return Ok(None);
        }
        let digits = cursor.digits();
        match digits.parse() {
            Ok(step) if digits.len() <= 2 && (1..=self.step_max).contains(&step) => {
                cursor.read(digits, without_leading_zero(digits));
                Ok(Some(step))
            }
            _ => Err(cursor.error(format!("a step, 1-{}", self.step_max))),
        }
    }

    fn insert(&self, values: &mut Values, first: u32, last: u32, step: u32) {
        let base = if self.min == YEAR_MIN { YEAR_MIN } else { 0 };
        for value in (first..=last).step_by(step as usize) {
            let value = if value > self.max { value - self.cycle() } else { value };
            values.insert(value - base);
        }
    }

    /// How many different values the field has.
    fn cycle(&self) -> u32 {
        self.max - self.min + 1
    }
}

/// Reads the comma before the next item, or finds the end of the field.
pub(super) fn end_of_item(
    cursor: &mut Cursor<'_>,
    expected: &'static str,
) -> Result<bool, ParseError> {
    if cursor.is_done() {
        return Ok(true);
    }
    match cursor.eat(b',') {
        true => Ok(false),
        false => Err(cursor.error(expected)),
    }
}

fn without_leading_zero(digits: &str) -> &str {
    match digits.strip_prefix('0') {
        Some("") | None => digits,
        Some(rest) => rest,
    }
}

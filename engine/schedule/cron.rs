//! `sec min hour day month weekday [year] [zone]`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::cursor::Cursor;
use super::days::{self, MonthDays, Weekdays};
use super::dialect;
use super::error::ParseError;
use super::field;
use super::offsets::Offsets;
use super::pattern::{NEVER, Pattern};
use super::zone::Zone;

pub(super) const FIELDS_MIN: usize = 6;
pub(super) const FIELDS_MAX: usize = 8;

/// A bit for each year from 1970 to 2099.
const EVERY_YEAR: [u64; 3] = [u64::MAX, u64::MAX, 0b11];

/// What is expected where a text has no fields to speak of.
pub(super) const FIELDS_EXPECTED: &str = "`rate(…)`, `at(…)` or the fields \
    `second minute hour day month weekday [year] [zone]`";

/// A calendar pattern: every instant at which a zone's clock shows a matching reading.
///
/// # The fields
///
/// | field | values |
/// |---|---|
/// | second, minute | 0-59 |
/// | hour | 0-23 |
/// | day | 1-31, `L` (last), `LW` (last Monday to Friday), `15W` (the Monday to Friday nearest to the 15th) |
/// | month | 1-12 or `JAN`-`DEC` |
/// | weekday | 0-7 or `SUN`-`SAT`, where 0 and 7 are Sunday; `FRIL` (last Friday), `MON#2` (second Monday), `L` (Sunday) |
/// | year | 1970-2099, every year if left out |
///
/// Each takes `*`, `a`, `a-b`, `a-b/n`, `*/n`, `a/n` and lists of them. Ranges wrap (`22-2`,
/// `FRI-MON`), except in the year. `?` is `*` for the day and the weekday. If both of these are
/// restricted, a day that matches either will do.
///
/// # When clocks change
///
/// An expression with a `*`, `?` or `/` in its second, minute or hour is an *interval*: it fires
/// whenever the clock shows a matching reading, never in a gap and twice in an overlap. Any other
/// is *fixed-time*: it fires once for each reading, at the first instant after a gap that
/// swallows it (unless that is another date already), and in the first pass of an overlap.
///
/// # Example: every weekday at nine
///
/// ```
/// use adjutant::schedule::Cron;
///
/// let cron: Cron = "0 0 9 ? * mon-fri Europe/London".parse()?;
/// assert_eq!(cron.to_string(), "0 0 9 ? * MON-FRI Europe/London");
/// assert!(cron.is_fixed_time());
/// # Ok::<(), adjutant::schedule::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron(Box<Parts>);

/// Boxed, so that a schedule stays small to move: most of it is the table of days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// The canonical text.
    text: Box<str>,
    pub(super) pattern: Pattern,
    pub(super) month_days: MonthDays,
    pub(super) weekdays: Weekdays,
    fixed_time: bool,
    zone: Option<Zone>,
}

impl Cron {
    /// The zone that the expression names; without one it follows the instance's own clock.
    pub fn zone(&self) -> Option<Zone> {
        self.0.zone
    }

    /// Whether the second, minute and hour hold no `*`, `?` or `/`, which decides what happens
    /// when clocks change.
    pub fn is_fixed_time(&self) -> bool {
        self.0.fixed_time
    }

    /// The smallest distance between two readings that the expression can produce, clock changes
    /// aside; `None` if it has one reading only.
    pub fn min_interval(&self) -> Option<Duration> {
        self.0.pattern.min_distance().map(Duration::from_secs)
    }

    /// The first fire at or after an instant, in unix seconds.
    pub(super) fn first_from(&self, from: i64, offsets: Offsets) -> Option<i64> {
        let next = |reading| self.0.pattern.first_from(reading);
        let instant = match self.0.fixed_time {
            true => offsets.first_fixed(from, next),
            false => offsets.first_interval(from, next),
        };
        (instant != NEVER).then_some(instant)
    }

    /// Whether a reading of a clock matches.
    pub(super) fn shows(&self, reading: i64) -> bool {
        self.0.pattern.first_from(reading) == reading
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }
}

impl FromStr for Cron {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Cron::read(text).map_err(|error| dialect::explain(text, error))
    }
}

impl Cron {
    /// Reads an expression. An error says nothing of the dialects of other programs.
    pub(super) fn read(text: &str) -> Result<Self, ParseError> {
        let (words, count) = split(text);
        let at = |index: usize| words[index].0;
        if count < FIELDS_MIN || looks_classic(text, &words[..count.min(FIELDS_MAX)]) {
            let text = text.trim_matches([' ', '\t']);
            let start = words[..count].first().map_or(0, |word| word.0);
            return Err(ParseError::new(start, FIELDS_EXPECTED, text));
        }
        if count > FIELDS_MAX {
            return Err(ParseError::new(at(FIELDS_MAX), "the end", &text[at(FIELDS_MAX)..]));
        }

        let mut canonical = String::with_capacity(text.len());
        let seconds = field::SECOND.list(&mut open(text, words[0], &mut canonical))?.low();
        let minutes = field::MINUTE.list(&mut open(text, words[1], &mut canonical))?.low();
        let hours = field::HOUR.list(&mut open(text, words[2], &mut canonical))?.low() as u32;
        let month_days = MonthDays::read(&mut open(text, words[3], &mut canonical))?;
        let months = field::MONTH.list(&mut open(text, words[4], &mut canonical))?.low() as u32;
        let weekdays = Weekdays::read(&mut open(text, words[5], &mut canonical))?;
        let fixed_time = !text[..words[2].1].contains(['*', '/']);

        let has_year = count > FIELDS_MIN && looks_like_year(text, words[FIELDS_MIN]);
        if !has_year && count == FIELDS_MAX {
            // `America/New York`: one name in two words.
            let (start, end) = (at(FIELDS_MIN), words[count - 1].1);
            return Err(Zone::unknown(&text[start..end]).shifted(start));
        }
        let years = match has_year {
            true => field::YEAR.list(&mut open(text, words[6], &mut canonical))?.0,
            false => EVERY_YEAR,
        };
        let zone = match words[..count].get(if has_year { 7 } else { 6 }) {
            Some(&(start, end)) => {
                let zone: Zone =
                    text[start..end].parse().map_err(|error: ParseError| error.shifted(start))?;
                Some(zone)
            }
            None => None,
        };

        let pattern = Pattern {
            seconds,
            minutes,
            hours,
            months,
            years,
            days: days::by_shape(&month_days, &weekdays),
            every_day: month_days.any
                && weekdays.any
                && months.count_ones() == 12
                && years == EVERY_YEAR,
        };
        if !pattern.is_possible() {
            let expected = "a day that some of the months and years have";
            return Err(ParseError::new(at(3), expected, &text[at(3)..words[count - 1].1]));
        }
        let text = canonical.into();
        Ok(Cron(Box::new(Parts { text, pattern, month_days, weekdays, fixed_time, zone })))
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)?;
        match self.0.zone {
            Some(zone) => write!(f, " {zone}"),
            None => Ok(()),
        }
    }
}

/// Where a word of the text starts and ends.
pub(super) type Word = (usize, usize);

/// The words of a text, at most one more than a cron expression can have, and their number.
fn split(text: &str) -> ([Word; FIELDS_MAX + 1], usize) {
    let mut words = [(text.len(), text.len()); FIELDS_MAX + 1];
    let mut count = 0;
    let mut start = None;
    for (at, byte) in text.bytes().chain([b' ']).enumerate() {
        match (start, matches!(byte, b' ' | b'\t')) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                words[count] = (from, at);
                start = None;
                count += 1;
                if count == words.len() {
                    break;
                }
            }
            _ => {}
        }
    }
    (words, count)
}

/// A cursor over the next field, set apart from the last one in the canonical text.
fn open<'a>(text: &'a str, word: Word, canonical: &'a mut String) -> Cursor<'a> {
    if !canonical.is_empty() {
        canonical.push(' ');
    }
    Cursor::new(text, word, canonical)
}

/// Whether these are the five fields of a crontab and a zone: the sixth can then be no weekday.
fn looks_classic(text: &str, words: &[Word]) -> bool {
    match words {
        [_, _, _, _, _, (start, end)] => Zone::from_name(&text[*start..*end]).is_some(),
        _ => false,
    }
}

/// Whether the seventh word is meant as a year: zones start with a letter, or else are wrong.
fn looks_like_year(text: &str, (start, end): Word) -> bool {
    text[start..end].starts_with(|first: char| first.is_ascii_digit() || "*?,-".contains(first))
        && !text[start..end].contains(':')
}

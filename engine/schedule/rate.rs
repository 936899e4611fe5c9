//! `rate(5 m)`: a fixed grid of instants.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::cursor::Cursor;
use super::error::ParseError;

/// The longest interval, 1,000 days: far beyond any use, and far from any overflow.
const SECONDS_MAX: u64 = 1000 * 86_400;

/// A fixed interval, counted from the creation of what is scheduled.
///
/// It fires at `created + k · interval` for k = 1, 2, …: not at creation, and without drift,
/// however long a run takes. It never finishes.
///
/// # Example: every five minutes
///
/// ```
/// use std::time::Duration;
/// use adjutant::schedule::Rate;
///
/// let rate: Rate = "RATE(5 m)".parse()?;
/// assert_eq!(rate.interval(), Duration::from_secs(300));
/// assert_eq!(rate.to_string(), "rate(5m)");
/// # Ok::<(), adjutant::schedule::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: Unit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

impl Rate {
    /// The time from one fire to the next.
    pub fn interval(self) -> Duration {
        Duration::from_secs(self.seconds())
    }

    /// The first point of the grid strictly after `after`, all in unix milliseconds.
    pub(super) fn next_after_ms(self, after: i64, created: i64) -> Option<i64> {
        let interval = self.seconds() as i64 * 1000;
        let passed = after.checked_sub(created)?.div_euclid(interval);
        let k = passed.checked_add(1)?.max(1);
        created.checked_add(k.checked_mul(interval)?)
    }

    /// How the interval is said: `5 minutes`, `day`.
    pub(super) fn in_words(self) -> String {
        let unit = match self.unit {
            Unit::Second => "second",
            Unit::Minute => "minute",
            Unit::Hour => "hour",
            Unit::Day => "day",
        };
        match self.count {
            1 => unit.to_owned(),
            count => format!("{count} {unit}s"),
        }
    }

    fn seconds(self) -> u64 {
        u64::from(self.count) * self.unit.seconds()
    }

    fn read(text: &str) -> Result<Self, ParseError> {
        let mut tidy = String::new();
        let mut cursor = Cursor::new(text, (0, text.len()), &mut tidy);
        let word = cursor.letters();
        if !word.eq_ignore_ascii_case("rate") {
            return Err(cursor.error("`rate(`"));
        }
        cursor.read(word, word);
        cursor.eat_blanks(false);
        if !cursor.eat(b'(') {
            return Err(cursor.error("`(`"));
        }

        let number_at = cursor.at();
        let digits = cursor.digits();
        if digits.is_empty() {
            return Err(cursor.error("a whole number"));
        }
        cursor.read(digits, digits);
        cursor.eat_blanks(false);

        let letters = cursor.letters();
        let unit = match letters.as_bytes() {
            [b's' | b'S'] => Unit::Second,
            [b'm' | b'M'] => Unit::Minute,
            [b'h' | b'H'] => Unit::Hour,
            [b'd' | b'D'] => Unit::Day,
            _ => return Err(cursor.error("a unit, `s`, `m`, `h` or `d`")),
        };
        cursor.read(letters, letters);
        if !cursor.eat(b')') {
            return Err(cursor.error("`)`"));
        }
        if !cursor.is_done() {
            return Err(cursor.error("the end"));
        }
        let count_max = SECONDS_MAX / unit.seconds();
        match digits.parse() {
            Ok(count) if (1..=count_max).contains(&u64::from(count)) => Ok(Rate { count, unit }),
            _ => {
                let expected = format!("a number from 1 to {count_max}");
                Err(ParseError::new(number_at, expected, &text[number_at..]))
            }
        }
    }
}

impl FromStr for Rate {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Rate::read(text).map_err(|error| error.suggest(respell(text)))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            Unit::Second => 's',
            Unit::Minute => 'm',
            Unit::Hour => 'h',
            Unit::Day => 'd',
        };
        write!(f, "rate({}{unit})", self.count)
    }
}

impl Unit {
    fn seconds(self) -> u64 {
        match self {
            Unit::Second => 1,
            Unit::Minute => 60,
            Unit::Hour => 3600,
            Unit::Day => 86_400,
        }
    }
}

/// What a text that is no rate was meant to be: `rate( 5 minutes )`, `5m`, `rate(1w)`.
fn respell(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let inner = lower.trim_start().trim_start_matches("rate").trim_start_matches([' ', '\t', '(']);
    let digits = inner.len() - inner.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, unit) = inner.split_at(digits);
    let unit = unit.trim_start();
    let unit = &unit[..unit.bytes().take_while(u8::is_ascii_lowercase).count()];
    let count: u64 = count.parse().ok()?;
    let (count, unit) = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => (count, 's'),
        "m" | "min" | "mins" | "minute" | "minutes" => (count, 'm'),
        "h" | "hr" | "hrs" | "hour" | "hours" => (count, 'h'),
        "d" | "day" | "days" => (count, 'd'),
        "w" | "week" | "weeks" => (count.checked_mul(7)?, 'd'),
        _ => return None,
    };
    let rate = format!("rate({count}{unit})");
    Rate::read(&rate).is_ok().then_some(rate)
}

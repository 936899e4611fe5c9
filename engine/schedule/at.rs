//! `at(2022-06-06 13:15:30 Asia/Shanghai)`: one instant.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use chrono::{NaiveDate, NaiveDateTime};

use super::calendar::YEAR_MIN;
use super::cursor::Cursor;
use super::error::ParseError;
use super::spelling;
use super::zone::Zone;

/// One instant, given as a clock's reading in a zone; UTC if none is named.
///
/// A reading that a clock skips means the first instant after the gap; one that it shows twice,
/// the first of the two.
///
/// # Example: once, at a quarter past one in Shanghai
///
/// ```
/// use adjutant::schedule::At;
///
/// let at: At = "at(2022-06-06 13:15:30 Asia/Shanghai)".parse()?;
/// assert_eq!(at.reading().to_string(), "2022-06-06 13:15:30");
/// assert_eq!(at.zone().map(|zone| zone.to_string()).as_deref(), Some("Asia/Shanghai"));
/// # Ok::<(), adjutant::schedule::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    reading: NaiveDateTime,
    zone: Option<Zone>,
}

impl At {
    /// What the zone's clock shows when it fires.
    pub fn reading(&self) -> NaiveDateTime {
        self.reading
    }

    /// The zone that the text names; without one it is UTC, never the instance's own.
    pub fn zone(&self) -> Option<Zone> {
        self.zone
    }

    /// The instant it fires at, in unix seconds.
    pub(super) fn instant(&self) -> i64 {
        let zone = self.zone.unwrap_or(Zone::UTC);
        zone.offsets().instant(self.reading.and_utc().timestamp())
    }

    fn read(text: &str) -> Result<Self, ParseError> {
        let mut tidy = String::new();
        let mut cursor = Cursor::new(text, (0, text.len()), &mut tidy);
        let word = cursor.letters();
        if !word.eq_ignore_ascii_case("at") {
            return Err(cursor.error("`at(`"));
        }
        cursor.read(word, word);
        cursor.eat_blanks(false);
        if !cursor.eat(b'(') {
            return Err(cursor.error("`(`"));
        }
        let date = read_date(&mut cursor)?;
        if !cursor.eat_blanks(true) {
            return Err(cursor.error("a blank and a time, `HH:mm:ss`"));
        }
        let hour = read_number(&mut cursor, 2, "an hour, 00-23", 0..=23)?;
        read_symbol(&mut cursor, b':', "`:`")?;
        let minute = read_number(&mut cursor, 2, "a minute, 00-59", 0..=59)?;
        read_symbol(&mut cursor, b':', "`:` and a second, 00-59")?;
        let second = read_number(&mut cursor, 2, "a second, 00-59", 0..=59)?;
        let reading = date.and_hms_opt(hour, minute, second).expect("checked just above");
        let zone = match cursor.eat_blanks(true) {
            true => Some(read_zone(&mut cursor)?),
            false => None,
        };
        read_symbol(&mut cursor, b')', "`)`, or a blank and a zone")?;
        match cursor.is_done() {
            true => Ok(At { reading, zone }),
            false => Err(cursor.error("the end")),
        }
    }
}

impl FromStr for At {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        At::read(text).map_err(|error| match error.suggestion() {
            Some(_) => error,
            None => error.suggest(respell(text)),
        })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at({}", self.reading.format("%Y-%m-%d %H:%M:%S"))?;
        match self.zone {
            Some(zone) => write!(f, " {zone})"),
            None => f.write_str(")"),
        }
    }
}

fn read_date(cursor: &mut Cursor<'_>) -> Result<NaiveDate, ParseError> {
    let year = read_number(cursor, 4, "a date, `yyyy-MM-dd`, from 1970", YEAR_MIN..=9999)?;
    read_symbol(cursor, b'-', "`-`")?;
    let month = read_number(cursor, 2, "a month, 01-12", 1..=12)?;
    read_symbol(cursor, b'-', "`-`")?;
    let day_error = cursor.error("a day that the month has");
    let day = read_number(cursor, 2, "a day, 01-31", 1..=31)?;
    NaiveDate::from_ymd_opt(year as i32, month, day).ok_or(day_error)
}

fn read_zone(cursor: &mut Cursor<'_>) -> Result<Zone, ParseError> {
    let name = cursor.rest().split(')').next().unwrap_or_default();
    let zone: Zone = name.parse().map_err(|error: ParseError| error.shifted(cursor.at()))?;
    cursor.read(name, name);
    Ok(zone)
}

fn read_number(
    cursor: &mut Cursor<'_>,
    length: usize,
    expected: &'static str,
    range: RangeInclusive<u32>,
) -> Result<u32, ParseError> {
    let digits = cursor.digits();
    match digits.parse() {
        Ok(number) if digits.len() == length && range.contains(&number) => {
            cursor.read(digits, digits);
            Ok(number)
        }
        _ => Err(cursor.error(expected)),
    }
}

fn read_symbol(
    cursor: &mut Cursor<'_>,
    symbol: u8,
    expected: &'static str,
) -> Result<(), ParseError> {
    match cursor.eat(symbol) {
        true => Ok(()),
        false => Err(cursor.error(expected)),
    }
}

/// What a text that is no `at` was meant to be: `at(2022-6-6T5:15)`, `at(2022/06/06 05:15:30Z)`.
pub(super) fn respell(text: &str) -> Option<String> {
    let mut rest = text.trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut numbers = [0; 6];
    for number in &mut numbers {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            // Seconds may be missing.
            break;
        }
        *number = rest[..digits].parse::<u32>().ok()?;
        rest = &rest[digits..];
        rest = rest.strip_prefix(['-', '/', 'T', 't', ' ', ':']).unwrap_or(rest);
    }
    let [year, month, day, hour, minute, second] = numbers;
    let time = format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
    let at = match rest.trim_end_matches([')', ' ']).trim_start() {
        "" => format!("at({time})"),
        zone if Zone::from_name(zone).is_some() => format!("at({time} {zone})"),
        zone => format!("at({time} {})", spelling::nearest_zone(zone)?),
    };
    At::read(&at).is_ok().then_some(at)
}

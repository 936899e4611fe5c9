//! When things fire: fixed rates, single instants and cron expressions, in time zones.
//!
//! Everything here is pure: a text becomes a [`Schedule`], and a schedule, together with what it
//! leaves open (when it was created, where the instance lives), a [`Timetable`] that says what
//! comes next after any instant. Nothing here reads a clock. Two things are asked of the machine:
//! its own zone ([`Zone::local`]), and zone files that are newer than the data that is built in
//! ([`ZoneData`]).
//!
//! # Example: what the clock change does to a nightly run
//!
//! ```
//! use adjutant::schedule::{Schedule, Zone};
//! use chrono::{DateTime, Utc};
//!
//! let nightly: Schedule = "0 30 2 * * ?".parse()?;
//! let new_york: Zone = "America/New_York".parse()?;
//! let created: DateTime<Utc> = "2024-03-09T00:00:00Z".parse()?;
//!
//! let fires: Vec<String> = nightly
//!     .bind(created, new_york)
//!     .upcoming(created)
//!     .take(3)
//!     .map(|fire| new_york.local_time(fire).to_rfc3339())
//!     .collect();
//! assert_eq!(
//!     fires,
//!     [
//!         "2024-03-09T02:30:00-05:00",
//!         "2024-03-10T03:00:00-04:00", // there is no half past two on that day
//!         "2024-03-11T02:30:00-04:00",
//!     ]
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Other programs write schedules differently. [`Schedule::read_lenient`] reads such a text if it has
//! exactly one meaning here.
//!
//! Deliberately absent: a schedule without a zone of its own never guesses one, and limits
//! (how often, how far ahead) are the caller's, see [`Timetable::validate`].

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::dialect::{Foreign, Meaning};

pub use self::at::At;
pub use self::cron::Cron;
pub use self::error::{ParseError, Refusal};
pub use self::machine::NoLocalZone;
pub use self::rate::Rate;
pub use self::timetable::{Bounds, Timetable, Upcoming};
pub use self::zone::Zone;
pub use self::zone_data::{OUTDATED_TARGET, ZoneData};

mod at;
mod calendar;
mod cron;
mod cursor;
mod days;
mod describe;
mod dialect;
mod error;
mod field;
mod machine;
mod offsets;
mod pattern;
mod rate;
mod spelling;
mod timetable;
mod zone;
mod zone_data;
mod zone_files;

#[cfg(test)]
#[path = "../tests/tzif/mod.rs"]
mod tzif;

/// The longest text that is read. A cron expression that lists every value of every field one by
/// one stays below it.
const TEXT_LEN_MAX: usize = 2048;

/// Returns the zone that `text`, a zone or a schedule, names at its end if the text is sound but for the file of that
/// zone, which this machine does not have.
pub(crate) fn missing_zone(text: &str) -> Option<&str> {
    let name = text.trim_end_matches(')').rsplit(' ').next()?;
    let is_missing =
        name.contains('/') && zone_files::is_name(name) && Zone::from_name(name).is_none();
    let is_sound = || name == text || text.replace(name, "UTC").parse::<Schedule>().is_ok();
    (is_missing && is_sound()).then_some(name)
}

/// When something fires.
///
/// Read from text, and written as its canonical text: single blanks, capital letters, no leading
/// zeros. The canonical text reads as the same schedule. In serde formats it is that text.
///
/// # Example: three kinds of schedules
///
/// ```
/// use adjutant::schedule::Schedule;
///
/// let rate: Schedule = "rate(5 m)".parse()?;
/// let at: Schedule = "at(2022-06-06 13:15:30 GMT-7:00)".parse()?;
/// let cron: Schedule = "0  15 10 ? * mon-fri  Asia/Shanghai".parse()?;
///
/// assert_eq!(rate.to_string(), "rate(5m)");
/// assert_eq!(at.to_string(), "at(2022-06-06 13:15:30 GMT-7:00)");
/// assert_eq!(cron.to_string(), "0 15 10 ? * MON-FRI Asia/Shanghai");
/// # Ok::<(), adjutant::schedule::ParseError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At a fixed interval: `rate(5m)`.
    Rate(Rate),
    /// Once: `at(2022-06-06 13:15:30 Asia/Shanghai)`.
    At(At),
    /// By the calendar: `0 15 10 ? * MON-FRI`.
    Cron(Cron),
}

impl Schedule {
    /// Reads a schedule also in the languages of other programs: the five fields of a crontab (also with a
    /// zone, or `CRON_TZ=` before them), its macros such as `@daily`, `@every 5m`, `cron(…)` of AWS,
    /// and the calendars of systemd.
    ///
    /// Only texts with exactly one meaning are read. A crontab line with a command, for example, is
    /// refused, and the error suggests the schedule in it. The engine reads requests strictly, as
    /// their pages say.
    ///
    /// # Errors
    ///
    /// As [`FromStr`] has them, with the language of the text as their
    /// [`remark`](ParseError::remark).
    ///
    /// # Example: a line of a crontab
    ///
    /// ```
    /// use adjutant::schedule::Schedule;
    ///
    /// let read = Schedule::read_lenient("30 2 * * 1-5")?;
    /// assert_eq!(read.schedule.to_string(), "0 30 2 * * 1-5");
    /// assert_eq!(
    ///     read.note.as_deref(),
    ///     Some("`30 2 * * 1-5` is a crontab line; it is read as `0 30 2 * * 1-5`")
    /// );
    /// # Ok::<(), adjutant::schedule::ParseError>(())
    /// ```
    pub fn read_lenient(text: &str) -> Result<Lenient, ParseError> {
        let trimmed = text.trim();
        let by = text.len() - text.trim_start().len();
        let error = match trimmed.parse() {
            Ok(schedule) => return Ok(Lenient { schedule, note: None }),
            Err(error) => error,
        };
        match dialect::recognise(trimmed) {
            Some(Foreign { called, meaning: Meaning::Same(schedule) }) => {
                let written = trimmed.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
                let note = format!("`{written}` is {called}; it is read as `{schedule}`");
                Ok(Lenient { schedule, note: Some(note) })
            }
            _ => Err(error.shifted(by)),
        }
    }

    /// Settles what the text leaves open: when the schedule was `created` (the grid of a rate
    /// starts there; milliseconds count) and the instance's zone (the clock of a cron expression
    /// that names none).
    pub fn bind(&self, created: DateTime<Utc>, default_zone: Zone) -> Timetable<'_> {
        Timetable::new(self, created, default_zone)
    }

    /// The first fire strictly after an instant, or `None` if there is none.
    ///
    /// What the text leaves open is taken as UTC and as created in 1970; see
    /// [`bind`](Self::bind).
    ///
    /// # Example: leap days
    ///
    /// ```
    /// use adjutant::schedule::Schedule;
    /// use chrono::{DateTime, Utc};
    ///
    /// let schedule: Schedule = "0 0 0 29 FEB ?".parse()?;
    /// let after: DateTime<Utc> = "2026-11-20T12:00:00Z".parse()?;
    /// assert_eq!(schedule.next_after(after), Some("2028-02-29T00:00:00Z".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.bind(DateTime::UNIX_EPOCH, Zone::UTC).next_after(after)
    }

    /// All fires strictly after an instant, in order, under the terms of
    /// [`next_after`](Self::next_after).
    pub fn upcoming(&self, from: DateTime<Utc>) -> Upcoming<'_> {
        self.bind(DateTime::UNIX_EPOCH, Zone::UTC).upcoming(from)
    }

    /// The zone that the text names.
    ///
    /// `None` means UTC for an [`At`], the instance's zone for a [`Cron`], and nothing for a
    /// [`Rate`], which no clock change moves.
    pub fn zone(&self) -> Option<Zone> {
        match self {
            Schedule::Rate(_) => None,
            Schedule::At(at) => at.zone(),
            Schedule::Cron(cron) => cron.zone(),
        }
    }

    /// Returns whether the schedule follows the clock of its instances: a cron expression that names
    /// no zone.
    pub fn follows_instances(&self) -> bool {
        matches!(self, Schedule::Cron(cron) if cron.zone().is_none())
    }

    /// The smallest distance between two fires that the schedule can produce, clock changes
    /// aside; `None` if it fires once at most.
    ///
    /// # Example: the distance across midnight counts
    ///
    /// ```
    /// use std::time::Duration;
    /// use adjutant::schedule::Schedule;
    ///
    /// let schedule: Schedule = "0 0,59 0,23 * * ?".parse()?;
    /// assert_eq!(schedule.min_interval(), Some(Duration::from_secs(60)));
    /// # Ok::<(), adjutant::schedule::ParseError>(())
    /// ```
    pub fn min_interval(&self) -> Option<Duration> {
        match self {
            Schedule::Rate(rate) => Some(rate.interval()),
            Schedule::At(_) => None,
            Schedule::Cron(cron) => cron.min_interval(),
        }
    }

    /// The schedule as one English sentence.
    ///
    /// # Example
    ///
    /// ```
    /// use adjutant::schedule::Schedule;
    ///
    /// let schedule: Schedule = "0 15 10 ? * 5#2 2022 Asia/Shanghai".parse()?;
    /// assert_eq!(
    ///     schedule.describe(),
    ///     "Fires at 10:15 on the second Friday of the month in 2022, Asia/Shanghai time."
    /// );
    /// # Ok::<(), adjutant::schedule::ParseError>(())
    /// ```
    pub fn describe(&self) -> String {
        describe::sentence(self, None)
    }

    /// Returns the sentence of [`describe`](Self::describe) with the zone of an instance in it, for a
    /// schedule that follows the clock of its instances.
    pub fn describe_in(&self, instance_zone: Zone) -> String {
        describe::sentence(self, Some(instance_zone))
    }
}

/// A schedule that was read in the language of this or another program; see [`Schedule::read_lenient`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lenient {
    /// The schedule.
    pub schedule: Schedule,
    /// A note for the author of a text in the language of another program: the language, and how the
    /// text is read.
    pub note: Option<String>,
}

impl FromStr for Schedule {
    type Err = ParseError;

    /// Reads a schedule.
    ///
    /// # Errors
    ///
    /// [`ParseError`] says at which byte the text stops being a schedule, what was expected
    /// there, and the right spelling where one is near. A cron expression whose days exist in
    /// none of its months is no schedule either.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Schedule::read(text, str::parse)
    }
}

impl Schedule {
    fn read(
        text: &str,
        read_cron: impl FnOnce(&str) -> Result<Cron, ParseError>,
    ) -> Result<Self, ParseError> {
        if text.len() > TEXT_LEN_MAX {
            let expected = format!("{TEXT_LEN_MAX} bytes at most");
            return Err(ParseError::new(TEXT_LEN_MAX, expected, "more"));
        }
        let start = text.trim_start();
        let word = start.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        if word.eq_ignore_ascii_case("rate") {
            text.parse().map(Schedule::Rate)
        } else if word.eq_ignore_ascii_case("at") {
            text.parse().map(Schedule::At)
        } else {
            read_cron(text).map(Schedule::Cron)
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::Rate(rate) => rate.fmt(f),
            Schedule::At(at) => at.fmt(f),
            Schedule::Cron(cron) => cron.fmt(f),
        }
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

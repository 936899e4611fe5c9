//! Time zones: `Asia/Shanghai`, `GMT+8:00`, `UTC`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use chrono::{DateTime, FixedOffset, Offset, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::calendar::{DAYS_END, SECONDS_PER_DAY};
use super::error::ParseError;
use super::offsets::{Offsets, Spans};
use super::spelling;

/// How far apart offsets are examined to find where they change. Two changes within one step
/// would go unseen; since 1970 no zone has kept an offset for less than six days.
const STEP_SECONDS: i64 = 2 * SECONDS_PER_DAY;

/// The changes of each zone's clock, worked out when the zone is first used.
static SPANS: [OnceLock<Spans>; TZ_VARIANTS.len()] = [const { OnceLock::new() }; TZ_VARIANTS.len()];

/// A time zone: a region of the IANA database, a fixed offset from GMT, or UTC.
///
/// Written as an IANA name with a `/`, as `GMT±H:MM` (hours 0 to 14, no leading zero), as `UTC`
/// or as `GMT`. Abbreviations such as `EST` name no zone, as several share them.
///
/// # Example: reading a zone, and what is said to a misspelled one
///
/// ```
/// use adjutant::schedule::Zone;
///
/// let zone: Zone = "America/New_York".parse()?;
/// assert_eq!(zone.name(), "America/New_York");
///
/// let error = "UTC+8".parse::<Zone>().unwrap_err();
/// assert_eq!(error.suggestion(), Some("GMT+8:00"));
/// # Ok::<(), adjutant::schedule::ParseError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Utc,
    Gmt,
    /// So many minutes ahead of GMT.
    Ahead(i16),
    Region(Tz),
}

impl Zone {
    /// Coordinated Universal Time.
    pub const UTC: Zone = Zone(Kind::Utc);

    /// The release of the IANA database that comes with this build, such as `2025b`.
    ///
    /// Where it changes, planned fires may have to be planned again.
    pub const DATA_VERSION: &'static str = chrono_tz::IANA_TZDB_VERSION;

    /// The zone of this machine's own clock, UTC if the system does not say.
    pub fn local() -> Self {
        let name = iana_time_zone::get_timezone().unwrap_or_default();
        let region = || spelling::region_of_old_name(&name).and_then(Zone::from_name);
        Zone::from_name(&name).or_else(region).unwrap_or(Zone::UTC)
    }

    /// The name, as it is written in a schedule.
    pub fn name(&self) -> Cow<'static, str> {
        match self.0 {
            Kind::Utc => Cow::Borrowed("UTC"),
            Kind::Gmt => Cow::Borrowed("GMT"),
            Kind::Region(tz) => Cow::Borrowed(tz.name()),
            Kind::Ahead(minutes) => {
                let sign = if minutes < 0 { '-' } else { '+' };
                let minutes = minutes.abs();
                Cow::Owned(format!("GMT{sign}{}:{:02}", minutes / 60, minutes % 60))
            }
        }
    }

    /// What the zone's clock shows at an instant.
    pub fn local_time(&self, instant: DateTime<Utc>) -> DateTime<FixedOffset> {
        let offset = match self.0 {
            Kind::Utc | Kind::Gmt => Utc.fix(),
            Kind::Ahead(minutes) => ahead(minutes),
            Kind::Region(tz) => tz.offset_from_utc_datetime(&instant.naive_utc()).fix(),
        };
        instant.with_timezone(&offset)
    }

    /// How the zone's time is called for short at an instant: `EDT`, `GMT+8:00`.
    pub fn abbreviation(&self, instant: DateTime<Utc>) -> String {
        match self.0 {
            Kind::Region(tz) => tz.offset_from_utc_datetime(&instant.naive_utc()).to_string(),
            _ => self.name().into_owned(),
        }
    }

    /// The zone of exactly this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "UTC" => Some(Zone(Kind::Utc)),
            "GMT" => Some(Zone(Kind::Gmt)),
            _ if name.contains('/') => name.parse().ok().map(|tz| Zone(Kind::Region(tz))),
            _ => minutes_ahead(name).map(|minutes| Zone(Kind::Ahead(minutes))),
        }
    }

    pub(super) fn offsets(self) -> Offsets {
        match self.0 {
            Kind::Utc | Kind::Gmt => Offsets::Fixed(0),
            Kind::Ahead(minutes) => Offsets::Fixed(60 * i64::from(minutes)),
            Kind::Region(tz) => Offsets::Changing(SPANS[tz as usize].get_or_init(|| spans_of(tz))),
        }
    }
}

impl FromStr for Zone {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const EXPECTED: &str = "a zone such as `Asia/Shanghai`, `GMT+8:00` or `UTC`";
        Zone::from_name(text)
            .ok_or_else(|| ParseError::new(0, EXPECTED, text).suggest(spelling::nearest_zone(text)))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads `GMT±H:MM`.
fn minutes_ahead(name: &str) -> Option<i16> {
    let (hours, minutes) = name.strip_prefix("GMT")?.split_once(':')?;
    let (sign, hours) = match hours.as_bytes() {
        [b'+', ..] => (1, &hours[1..]),
        [b'-', ..] => (-1, &hours[1..]),
        _ => return None,
    };
    let hours: i16 = match hours.as_bytes() {
        [b'0'..=b'9'] | [b'1', b'0'..=b'4'] => hours.parse().ok()?,
        _ => return None,
    };
    let minutes: i16 = match minutes.as_bytes() {
        [b'0'..=b'5', b'0'..=b'9'] => minutes.parse().ok()?,
        _ => return None,
    };
    Some(sign * (60 * hours + minutes))
}

fn ahead(minutes: i16) -> FixedOffset {
    FixedOffset::east_opt(60 * i32::from(minutes)).expect("less than 15 hours")
}

fn spans_of(tz: Tz) -> Spans {
    let offset_at = |instant| {
        let instant = DateTime::from_timestamp(instant, 0).expect("between 1969 and 2101");
        i64::from(tz.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc())
    };
    let last_day = i64::from(DAYS_END) + 2;
    Spans::find((-SECONDS_PER_DAY, last_day * SECONDS_PER_DAY), STEP_SECONDS, offset_at)
}

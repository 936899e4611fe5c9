//! Time zones: `Asia/Shanghai`, `GMT+8:00`, `UTC`.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use chrono::{DateTime, FixedOffset, Offset, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::calendar::{DAYS_END, SECONDS_PER_DAY};
use super::error::ParseError;
use super::machine::{Machine, NoLocalZone};
use super::offsets::Offsets;
use super::spelling;
use super::zone_data::{OwnRegion, ZoneData};
use super::zone_files::ZoneFile;

/// How far apart offsets are examined to find where they change. Two changes within one step
/// would go unseen; since 1970 no zone has kept an offset for less than six days.
pub(super) const STEP_SECONDS: i64 = 2 * SECONDS_PER_DAY;

/// How the database calls local time for short if the time is not known.
pub(super) const UNKNOWN: &str = "-00";

/// The last instant for which offsets are known, two days after the last year of a schedule.
pub(super) const LAST: i64 = (DAYS_END as i64 + 2) * SECONDS_PER_DAY;

/// A time zone: a region of the IANA database, a fixed offset from GMT, or UTC.
///
/// Written as an IANA name with a `/`, as `GMT±H:MM` (hours 0 to 14, no leading zero), as `UTC`
/// or as `GMT`. Abbreviations such as `EST` name no zone, as several share them. How the clock of a
/// region changes is a matter of data, which [`ZoneData`] chooses.
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
    /// A region that only the files of this machine have.
    Own(Own),
}

/// A region by its name, whether or not its data is known.
#[derive(Debug, Clone, Copy)]
struct Own(&'static OwnRegion);

impl PartialEq for Own {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Own {
    fn file(self) -> Option<&'static ZoneFile> {
        self.0.file.get().or_else(|| ZoneData::in_use().own_region(&self.0.name)?.file.get())
    }
}

impl Eq for Own {}

impl Hash for Own {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl Zone {
    /// Coordinated Universal Time.
    pub const UTC: Zone = Zone(Kind::Utc);

    /// Returns the zone of this machine's own clock, as the C library finds it: in `TZ` (a name, a
    /// path, or a rule), in `/etc/localtime` (a link, or a copy of a zone's file), or in
    /// `/etc/timezone`. Each call asks the machine anew.
    ///
    /// # Errors
    ///
    /// [`NoLocalZone`] if the clock goes by rules that no zone has, or if the machine does not say
    /// its zone. The text of the error says what to write. UTC is never assumed.
    pub fn local() -> Result<Self, NoLocalZone> {
        Machine::this().zone()
    }

    /// The name, as it is written in a schedule.
    pub fn name(&self) -> Cow<'static, str> {
        match self.0 {
            Kind::Utc => Cow::Borrowed("UTC"),
            Kind::Gmt => Cow::Borrowed("GMT"),
            Kind::Region(tz) => Cow::Borrowed(tz.name()),
            Kind::Own(own) => Cow::Borrowed(&own.0.name),
            Kind::Ahead(minutes) => {
                let sign = if minutes < 0 { '-' } else { '+' };
                let minutes = minutes.abs();
                Cow::Owned(format!("GMT{sign}{}:{:02}", minutes / 60, minutes % 60))
            }
        }
    }

    /// Returns whether the rules of the zone are known. The rules of a zone whose name is not built in are in a file of
    /// this machine. An [`Instance`](crate::Instance) keeps such a zone even while the machine has no sound file of it;
    /// a schedule in that zone has no fires until the file is back.
    pub fn has_rules(&self) -> bool {
        match self.0 {
            Kind::Own(own) => own.file().is_some(),
            _ => true,
        }
    }

    /// What the zone's clock shows at an instant; the time in UTC if the [rules](Self::has_rules) of the zone are not
    /// known.
    pub fn local_time(&self, instant: DateTime<Utc>) -> DateTime<FixedOffset> {
        match self.0 {
            Kind::Utc | Kind::Gmt => instant.with_timezone(&Utc.fix()),
            Kind::Ahead(minutes) => instant.with_timezone(&ahead(minutes)),
            Kind::Region(_) | Kind::Own(_) => self.named_time(instant, ZoneData::in_use()).0,
        }
    }

    /// How the zone's time is called for short at an instant: `EDT`, `GMT+8:00`; `-00` if the
    /// [rules](Self::has_rules) of the zone are not known.
    pub fn abbreviation(&self, instant: DateTime<Utc>) -> String {
        match self.0 {
            Kind::Region(_) | Kind::Own(_) => self.named_time(instant, ZoneData::in_use()).1,
            _ => self.name().into_owned(),
        }
    }

    /// What the zone's clock shows by `data`, and how that time is called for short.
    pub(super) fn named_time(
        &self,
        instant: DateTime<Utc>,
        data: &ZoneData,
    ) -> (DateTime<FixedOffset>, String) {
        match self.0 {
            Kind::Region(tz) => data.region(tz).local_time(tz, instant),
            Kind::Own(own) => match own.file() {
                Some(file) => {
                    let (time, name) = file.local_time(instant);
                    (time, name.to_owned())
                }
                None => (instant.with_timezone(&Utc.fix()), UNKNOWN.to_owned()),
            },
            _ => (self.local_time(instant), self.name().into_owned()),
        }
    }

    /// The zone of exactly this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Zone::from_name_in(name, ZoneData::in_use)
    }

    /// Returns the zone that a record names. A zone keeps its name without its file; only a schedule in the zone needs
    /// the file.
    pub(crate) fn of_record(name: &str) -> Option<Self> {
        let without_file = || ZoneData::in_use().region_without_file(name);
        Zone::from_name(name).or_else(|| without_file().map(|region| Zone(Kind::Own(Own(region)))))
    }

    /// Returns this zone by the data that is used now. The zone may have been read from a record before the data
    /// changed.
    pub(crate) fn renewed(self) -> Self {
        match self.0 {
            Kind::Own(own) => Zone::from_name(&own.0.name).unwrap_or(self),
            _ => self,
        }
    }

    /// The zone of exactly this name, where the files of a machine may have names of their own.
    pub(super) fn from_name_in(
        name: &str,
        data: impl FnOnce() -> &'static ZoneData,
    ) -> Option<Self> {
        match name {
            "UTC" => Some(Zone(Kind::Utc)),
            "GMT" => Some(Zone(Kind::Gmt)),
            _ if name.contains('/') => match name.parse() {
                Ok(tz) => Some(Zone(Kind::Region(tz))),
                Err(_) => data().own_region(name).map(|region| Zone(Kind::Own(Own(region)))),
            },
            _ => minutes_ahead(name).map(|minutes| Zone(Kind::Ahead(minutes))),
        }
    }

    /// The error for a text that names no zone, with the zone that is nearest.
    pub(super) fn unknown(text: &str) -> ParseError {
        const EXPECTED: &str = "a zone such as `Asia/Shanghai`, `GMT+8:00` or `UTC`";
        let name = text.split_ascii_whitespace().collect::<Vec<_>>().join("_");
        ParseError::new(0, EXPECTED, text).suggest(spelling::nearest_zone(&name))
    }

    pub(super) fn offsets(self) -> Offsets {
        self.offsets_in(ZoneData::in_use)
    }

    /// How the zone's clock differs from UTC by other data than what is in use.
    pub(super) fn offsets_in(self, data: impl FnOnce() -> &'static ZoneData) -> Offsets {
        match self.0 {
            Kind::Utc | Kind::Gmt => Offsets::Fixed(0),
            Kind::Ahead(minutes) => Offsets::Fixed(60 * i64::from(minutes)),
            Kind::Region(tz) => Offsets::Changing(data().region(tz).spans()),
            Kind::Own(own) => match own.file() {
                Some(file) => Offsets::Changing(&file.spans),
                None => Offsets::Unknown,
            },
        }
    }
}

impl FromStr for Zone {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Zone::from_name(text).ok_or_else(|| Zone::unknown(text))
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

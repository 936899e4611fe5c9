//! A schedule with nothing left open: what fires next.

use std::iter::FusedIterator;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::error::Refusal;
use super::offsets::Offsets;
use super::{At, Cron, Rate, Schedule, Zone};

/// A [`Schedule`] together with its creation and the instance's zone; see [`Schedule::bind`].
///
/// Cheap to make: from a text to the next fire takes a microsecond or two, so a timer needs to
/// keep no more than the text, the creation and the zone's name.
///
/// # Example: the grid of a rate
///
/// ```
/// use adjutant::schedule::{Schedule, Zone};
/// use chrono::{DateTime, Utc};
///
/// let schedule: Schedule = "rate(5m)".parse()?;
/// let created: DateTime<Utc> = "2026-11-20T12:00:00.250Z".parse()?;
/// let timetable = schedule.bind(created, Zone::UTC);
///
/// let a_year_later: DateTime<Utc> = "2027-11-20T12:00:00Z".parse()?;
/// assert_eq!(timetable.next_after(a_year_later), Some("2027-11-20T12:00:00.250Z".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Timetable<'a> {
    fires: Fires<'a>,
    zone: Zone,
}

#[derive(Debug, Clone)]
enum Fires<'a> {
    Rate { rate: Rate, created_ms: i64 },
    At { at: At, instant: i64 },
    Cron { cron: &'a Cron, offsets: Offsets },
}

/// What a host allows; see [`Timetable::validate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest interval of a rate.
    pub rate_min: Duration,
    /// The longest interval of a rate.
    pub rate_max: Duration,
    /// The smallest distance that a cron expression may produce.
    pub cron_min: Duration,
    /// How long one run may take. The interval of a rate must be longer, that of a cron
    /// expression not shorter.
    pub timeout: Duration,
}

impl<'a> Timetable<'a> {
    pub(super) fn new(schedule: &'a Schedule, created: DateTime<Utc>, default_zone: Zone) -> Self {
        match schedule {
            Schedule::Rate(rate) => {
                let created_ms = created.timestamp_millis();
                Timetable { fires: Fires::Rate { rate: *rate, created_ms }, zone: default_zone }
            }
            Schedule::At(at) => {
                let zone = at.zone().unwrap_or(Zone::UTC);
                Timetable { fires: Fires::At { at: *at, instant: at.instant() }, zone }
            }
            Schedule::Cron(cron) => {
                let zone = cron.zone().unwrap_or(default_zone);
                Timetable { fires: Fires::Cron { cron, offsets: zone.offsets() }, zone }
            }
        }
    }

    /// The zone whose clock the schedule follows. For a rate, which follows none, the default.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The first fire strictly after an instant. `None`: finished.
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self.fires {
            Fires::Rate { rate, created_ms } => {
                let next = rate.next_after_ms(after.timestamp_millis(), created_ms)?;
                DateTime::from_timestamp_millis(next)
            }
            Fires::At { instant, .. } => {
                DateTime::from_timestamp(instant, 0).filter(|instant| *instant > after)
            }
            Fires::Cron { cron, offsets } => {
                let next = cron.first_from(after.timestamp() + 1, offsets)?;
                DateTime::from_timestamp(next, 0)
            }
        }
    }

    /// Returns whether a fire is at another reading of the clock than the schedule says, because the
    /// clock skips that reading.
    ///
    /// # Example: half past two on the day of the clock change
    ///
    /// ```
    /// use adjutant::schedule::{Schedule, Zone};
    /// use chrono::{DateTime, Utc};
    ///
    /// let nightly: Schedule = "0 30 2 * * ? America/New_York".parse()?;
    /// let timetable = nightly.bind(DateTime::UNIX_EPOCH, Zone::UTC);
    /// let eve: DateTime<Utc> = "2024-03-09T00:00:00Z".parse()?;
    /// let shifted: Vec<bool> =
    ///     timetable.clone().upcoming(eve).take(3).map(|fire| timetable.is_shifted(fire)).collect();
    /// assert_eq!(shifted, [false, true, false]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_shifted(&self, fire: DateTime<Utc>) -> bool {
        let reading = || self.zone.local_time(fire).naive_local();
        match &self.fires {
            Fires::Rate { .. } => false,
            Fires::At { at, .. } => reading() != at.reading(),
            Fires::Cron { cron, .. } => {
                let reading = reading().and_utc().timestamp();
                cron.is_fixed_time() && !cron.shows(reading)
            }
        }
    }

    /// All fires strictly after an instant, in order.
    pub fn upcoming(self, from: DateTime<Utc>) -> Upcoming<'a> {
        Upcoming { timetable: self, after: Some(from) }
    }

    /// Checks the schedule against what a host allows, as of `now`.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] that names the limit and the value: intervals outside the bounds or not
    /// longer than a run may take, an instant that is not after now, a pattern without any fire
    /// after now.
    ///
    /// # Example: as often as every ten seconds
    ///
    /// ```
    /// use std::time::Duration;
    /// use adjutant::schedule::{Bounds, Schedule, Zone};
    /// use chrono::{DateTime, Utc};
    ///
    /// let bounds = Bounds {
    ///     rate_min: Duration::from_secs(60),
    ///     rate_max: Duration::from_secs(7 * 86_400),
    ///     cron_min: Duration::from_secs(10),
    ///     timeout: Duration::from_secs(5),
    /// };
    /// let now: DateTime<Utc> = "2026-11-20T12:00:00Z".parse()?;
    ///
    /// let often: Schedule = "*/10 * * * * ?".parse()?;
    /// assert!(often.bind(now, Zone::UTC).validate(now, &bounds).is_ok());
    ///
    /// // Every minute ends with a distance of four seconds.
    /// let too_often: Schedule = "*/7 * * * * ?".parse()?;
    /// assert!(too_often.bind(now, Zone::UTC).validate(now, &bounds).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn validate(&self, now: DateTime<Utc>, bounds: &Bounds) -> Result<(), Refusal> {
        let &Bounds { rate_min, rate_max, cron_min, timeout } = bounds;
        match self.fires {
            Fires::Rate { rate, .. } => {
                let interval = rate.interval();
                if interval < rate_min {
                    return Err(Refusal::TooFrequent { interval, min: rate_min });
                }
                if interval > rate_max {
                    return Err(Refusal::TooRare { interval, max: rate_max });
                }
                if interval <= timeout {
                    let timeout_max = interval.saturating_sub(Duration::from_secs(1));
                    return Err(Refusal::WithinTimeout { interval, timeout, timeout_max });
                }
            }
            Fires::At { instant, .. } => {
                let at = DateTime::from_timestamp(instant, 0).unwrap_or_default();
                if at <= now {
                    return Err(Refusal::Past { at, now });
                }
            }
            Fires::Cron { cron, .. } => {
                if let Some(interval) = cron.min_interval() {
                    if interval < cron_min {
                        return Err(Refusal::TooFrequent { interval, min: cron_min });
                    }
                    if interval < timeout {
                        let timeout_max = interval;
                        return Err(Refusal::WithinTimeout { interval, timeout, timeout_max });
                    }
                }
                if self.next_after(now).is_none() {
                    return Err(Refusal::Finished { now });
                }
            }
        }
        Ok(())
    }
}

/// The fires of a [`Timetable`], in order; see [`Timetable::upcoming`].
#[derive(Debug, Clone)]
pub struct Upcoming<'a> {
    timetable: Timetable<'a>,
    /// `None` once the schedule has finished.
    after: Option<DateTime<Utc>>,
}

impl Iterator for Upcoming<'_> {
    type Item = DateTime<Utc>;

    fn next(&mut self) -> Option<DateTime<Utc>> {
        self.after = self.timetable.next_after(self.after?);
        self.after
    }
}

impl FusedIterator for Upcoming<'_> {}

//! Table `timers`: what fires when.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use rusqlite::Row;

use crate::error::{Error, Result, StorageErrorKind};
use crate::id::InvokeId;
use crate::invocation::recurrence::{MissedPolicy, OverlapPolicy};
use crate::schedule::{self, Schedule, Timetable, Zone};

use super::aside::{Aside, Subject};
use super::commands::read_time;
use super::fires::Stretch;
use super::{Tx, parse, storage, unreadable};

/// A timer that is about to be stored.
#[derive(Debug)]
pub(super) struct NewTimer {
    pub invocation: i64,
    pub zone: Zone,
    pub next_fire_at_ms: i64,
    pub delay_ms: i64,
    pub fires_left: Option<u64>,
}

/// Stores a timer; its row.
pub(super) fn insert(tx: Tx<'_>, new: &NewTimer) -> Result<i64> {
    tx.execute(
        "INSERT INTO timers (invocation, zone, next_fire_at_ms, delay_ms, due_at_ms, fires_left)
         VALUES (?1, ?2, ?3, ?4, ?3 + ?4, ?5)",
        (new.invocation, new.zone.name(), new.next_fire_at_ms, new.delay_ms, new.fires_left),
    )?;
    Ok(tx.last_id())
}

/// A timer, with what its invocation says of its fires.
#[derive(Debug, Clone)]
pub(crate) struct Timer {
    pub id: i64,
    pub invocation: i64,
    pub invoke_id: InvokeId,
    /// The next nominal time that nothing has become of; none if it has ended.
    pub next_fire_at_ms: Option<i64>,
    /// So long after its nominal times it fires.
    pub delay_ms: i64,
    pub fires_left: Option<u64>,
    pub zone: Zone,
    pub schedule: Schedule,
    pub created: DateTime<Utc>,
    pub overlap: OverlapPolicy,
    pub missed: MissedPolicy,
    pub end_at_ms: Option<i64>,
    /// The last step did not come to the end of what was due.
    pub catching_up: bool,
    /// The last nominal time that has fired ahead of the next one, because the clock was ahead.
    pub fired_until_ms: Option<i64>,
}

impl Timer {
    /// When it is to fire; never if it has ended.
    pub(crate) fn due_ms(&self) -> i64 {
        self.next_fire_at_ms.map_or(i64::MAX, |at_ms| at_ms.saturating_add(self.delay_ms))
    }

    /// Returns the first nominal time after an instant. Times in the stretches of `dealt`, which are in order, have
    /// records already and are passed over.
    pub(crate) fn first_after(&self, after_ms: i64, dealt: &[Stretch]) -> Option<i64> {
        let timetable = self.schedule.bind(self.created, self.zone);
        first_after(&timetable, self.end_at_ms.unwrap_or(i64::MAX), after_ms, dealt)
    }

    /// Whether it is to fire by then.
    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        self.due_ms() <= now_ms
    }

    /// Whether it is to have fired by then for this nominal time.
    pub(crate) fn is_due_at(&self, nominal_ms: i64, now: DateTime<Utc>) -> bool {
        nominal_ms.saturating_add(self.delay_ms) <= now.timestamp_millis()
    }

    /// Whether its next nominal time has come by then, whatever its delay.
    pub(crate) fn is_nominal(&self, now_ms: i64) -> bool {
        self.next_fire_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }
}

/// Returns the first time of a timetable after an instant that is not after `end_ms` and in no stretch of `dealt`. The
/// stretches are in order.
pub(crate) fn first_after(
    timetable: &Timetable<'_>,
    end_ms: i64,
    after_ms: i64,
    dealt: &[Stretch],
) -> Option<i64> {
    let mut after_ms = after_ms;
    loop {
        let next = timetable.next_after(DateTime::from_timestamp_millis(after_ms)?)?;
        after_ms = next.timestamp_millis();
        if after_ms > end_ms {
            return None;
        }
        let begun = dealt.partition_point(|stretch| stretch.from_ms <= after_ms);
        match begun.checked_sub(1).map(|last| dealt[last].until_ms) {
            Some(until_ms) if until_ms >= after_ms => after_ms = until_ms,
            _ => return Some(after_ms),
        }
    }
}

const TIMER: &str =
    "SELECT m.id, m.invocation, v.invoke_id, m.next_fire_at_ms, m.delay_ms, m.fires_left,
     m.zone, v.frequency, v.created_at_ms, v.overlap_policy, v.missed_policy, v.end_at_ms, m.catching_up,
     m.fired_until_ms";

fn read(row: &Row<'_>) -> Result<Timer> {
    let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let schedule: Schedule = parse_in_zone(&text(7)?)?;
    let zone = text(6)?;
    // Of a zone that the schedule does not follow, the name is enough.
    let zone = match schedule.follows_instances() {
        true => parse_in_zone(&zone)?,
        false => Zone::of_record(&zone).map_or_else(|| parse_in_zone(&zone), Ok)?,
    };
    Ok(Timer {
        id: row.get(0)?,
        invocation: row.get(1)?,
        invoke_id: InvokeId::from_bytes(row.get(2)?),
        next_fire_at_ms: row.get(3)?,
        delay_ms: row.get(4)?,
        fires_left: row.get(5)?,
        zone,
        schedule,
        created: read_time(row.get(8)?)?,
        overlap: parse(&text(9)?)?,
        missed: parse(&text(10)?)?,
        end_at_ms: row.get(11)?,
        catching_up: row.get(12)?,
        fired_until_ms: row.get(13)?,
    })
}

/// Reads a text that names a zone. The zone may be one that only a file of this machine makes known: without that file,
/// the record is sound all the same.
fn parse_in_zone<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error| match schedule::missing_zone(text) {
        Some(zone) => {
            let message = format!("zone {zone} has no sound file here");
            storage(StorageErrorKind::ZoneMissing, message)
        }
        None => unreadable(error),
    })
}

/// A timer, or why its record cannot be understood.
#[derive(Debug)]
pub(crate) struct Found {
    pub id: i64,
    /// The invocation of the timer and the id of that, if they can be read.
    pub invocation: Option<i64>,
    pub invoke_id: Option<InvokeId>,
    pub timer: Result<Timer>,
}

fn find_all(tx: Tx<'_>, from: &str, parameters: impl rusqlite::Params) -> Result<Vec<Found>> {
    let mut query = tx.prepare(&format!("{TIMER} {from}"))?;
    let mut rows = query.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Found {
            id: row.get(0)?,
            invocation: row.get(1).ok(),
            invoke_id: row.get(2).ok().map(InvokeId::from_bytes),
            timer: read(row),
        });
    }
    Ok(found)
}

/// Timers due at `now_ms`, those that have waited longest first.
pub(crate) fn due(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<Found>> {
    let from = "FROM timers m INDEXED BY timers_due LEFT JOIN invocations v ON v.id = m.invocation
        WHERE m.due_at_ms <= ?1 ORDER BY m.due_at_ms, m.id LIMIT ?2";
    find_all(tx, from, (now_ms, max as i64))
}

/// Does the same without a timer that is set aside. Each timer is read by itself, so that it is known which one
/// cannot be read.
pub(crate) fn due_apart(tx: Tx<'_>, now_ms: i64, max: usize, aside: &Aside) -> Result<Vec<Found>> {
    let limit = max.saturating_add(aside.count()) as i64;
    let mut query = tx.prepare(
        "SELECT id FROM timers INDEXED BY timers_due WHERE due_at_ms <= ?1 ORDER BY due_at_ms, id LIMIT ?2",
    )?;
    let due = query.query_map((now_ms, limit), |row| row.get(0))?;
    let due = due.collect::<rusqlite::Result<_>>()?;
    let mut found = Vec::new();
    for timer in aside.others(due, max, Subject::Timer) {
        match find(tx, timer) {
            Err(error) if error.is_lasting() => {
                let subject = Subject::Timer(timer);
                aside.refuse(tx, subject, subject.invoke_id(tx), error)?;
            }
            timer => found.extend(timer?),
        }
    }
    Ok(found)
}

/// The timers of an invocation, those that have ended too.
pub(crate) fn of_invocation(tx: Tx<'_>, invocation: i64) -> Result<Vec<Found>> {
    let from = "FROM timers m JOIN invocations v ON v.id = m.invocation
        WHERE m.invocation = ?1 ORDER BY m.id";
    find_all(tx, from, [invocation])
}

/// Timers after this one that have not ended.
pub(crate) fn planned(tx: Tx<'_>, after: i64, max: usize) -> Result<Vec<i64>> {
    let mut query = tx.prepare(
        "SELECT id FROM timers WHERE id > ?1 AND next_fire_at_ms IS NOT NULL ORDER BY id LIMIT ?2",
    )?;
    let ids = query.query_map((after, max as i64), |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// Returns all timers, those that have ended too. The search reads an index alone, so that no damaged timer hides
/// another.
pub(crate) fn all(tx: Tx<'_>) -> Result<Vec<i64>> {
    let mut query = tx.prepare("SELECT id FROM timers INDEXED BY sqlite_autoindex_timers_1")?;
    let ids = query.query_map((), |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// The timer of a row.
pub(crate) fn get(tx: Tx<'_>, timer: i64) -> Result<Timer> {
    find(tx, timer)?.ok_or_else(|| Error::Internal(format!("timer {timer} is gone")))?.timer
}

fn find(tx: Tx<'_>, timer: i64) -> Result<Option<Found>> {
    let from = "FROM timers m LEFT JOIN invocations v ON v.id = m.invocation WHERE m.id = ?1";
    Ok(find_all(tx, from, [timer])?.pop())
}

/// When the next timer is due.
pub(crate) fn next_due_ms(tx: Tx<'_>) -> Result<Option<i64>> {
    tx.one(
        // A time that is no number comes after all numbers, and is none at which a timer is due.
        "SELECT CAST(min(due_at_ms) AS INTEGER) FROM timers INDEXED BY timers_due
         WHERE due_at_ms <= 9223372036854775807",
        (),
        |row| row.get(0),
    )
}

/// Sets the next nominal time of a timer of which the one before has been dealt with; none ends it.
pub(crate) fn advance(
    tx: Tx<'_>,
    timer: &Timer,
    next_fire_at_ms: Option<i64>,
    fires_left: Option<u64>,
    catching_up: bool,
) -> Result<()> {
    let changed = tx.execute(
        "UPDATE timers SET next_fire_at_ms = ?3, fires_left = ?4, catching_up = ?5,
             due_at_ms = iif(due_at_ms IS NULL, NULL, ?3 + delay_ms)
         WHERE id = ?1 AND next_fire_at_ms = ?2",
        (timer.id, timer.next_fire_at_ms, next_fire_at_ms, fires_left, catching_up),
    )?;
    if changed == 1 {
        return Ok(());
    }
    Err(Error::Internal(format!("timer {} moved while it fired", timer.id)))
}

/// Moves a timer back to a nominal time that has no record any more, if that time is before the next one.
pub(crate) fn take_back(tx: Tx<'_>, timer: i64, next_fire_at_ms: i64) -> Result<()> {
    tx.execute(
        "UPDATE timers SET next_fire_at_ms = ?2, catching_up = 0,
             due_at_ms = iif((SELECT paused_at_ms IS NULL FROM invocations v WHERE v.id = timers.invocation),
                 ?2 + delay_ms, NULL),
             fired_until_ms = (SELECT max(fire_at_ms) FROM fires WHERE timer = ?1)
         WHERE id = ?1 AND (next_fire_at_ms IS NULL OR next_fire_at_ms > ?2)",
        (timer, next_fire_at_ms),
    )?;
    Ok(())
}

/// Returns the last nominal time of an invocation before the next one that has a record; the latest of several
/// timers.
pub(super) fn dealt_until_ms(tx: Tx<'_>, invocation: i64) -> Result<Option<i64>> {
    tx.one(
        "SELECT max((SELECT coalesce(f.until_ms, f.fire_at_ms) FROM fires f INDEXED BY fires_by_timer
             WHERE f.timer = m.id AND f.fire_at_ms < m.next_fire_at_ms
             ORDER BY f.fire_at_ms DESC LIMIT 1))
         FROM timers m WHERE m.invocation = ?1 AND m.next_fire_at_ms IS NOT NULL",
        [invocation],
        |row| row.get(0),
    )
}

/// Ends a timer, whatever it says of itself.
pub(crate) fn end(tx: Tx<'_>, timer: i64) -> Result<()> {
    tx.execute(
        "UPDATE timers SET next_fire_at_ms = NULL, due_at_ms = NULL WHERE id = ?1",
        [timer],
    )?;
    Ok(())
}

/// Ends the timers of an invocation.
pub(super) fn end_all(tx: Tx<'_>, invocation: i64) -> Result<()> {
    tx.execute(
        "UPDATE timers SET next_fire_at_ms = NULL, due_at_ms = NULL
         WHERE invocation = ?1 AND next_fire_at_ms IS NOT NULL",
        [invocation],
    )?;
    Ok(())
}

/// Ends the timers of an invocation that have no targets left.
pub(super) fn end_idle(tx: Tx<'_>, invocation: i64) -> Result<()> {
    tx.execute(
        "UPDATE timers SET next_fire_at_ms = NULL, due_at_ms = NULL
         WHERE invocation = ?1 AND NOT EXISTS (
             SELECT 1 FROM targets t WHERE t.invocation = ?1 AND t.timer = timers.id)",
        [invocation],
    )?;
    Ok(())
}

/// Keeps the timers of an invocation from firing; their nominal times stay.
pub(super) fn hold(tx: Tx<'_>, invocation: i64) -> Result<()> {
    tx.execute("UPDATE timers SET due_at_ms = NULL WHERE invocation = ?1", [invocation])?;
    Ok(())
}

/// Lets the timers of an invocation fire again.
pub(super) fn release(tx: Tx<'_>, invocation: i64) -> Result<()> {
    tx.execute(
        "UPDATE timers SET due_at_ms = next_fire_at_ms + delay_ms WHERE invocation = ?1",
        [invocation],
    )?;
    Ok(())
}

/// The next nominal time at which a timer of an invocation is to fire; none while it pauses.
pub(super) fn next_fire_ms(tx: Tx<'_>, invocation: i64) -> Result<Option<i64>> {
    tx.one(
        "SELECT min(next_fire_at_ms) FROM timers WHERE invocation = ?1 AND due_at_ms IS NOT NULL",
        [invocation],
        |row| row.get(0),
    )
}

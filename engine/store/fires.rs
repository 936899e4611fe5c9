//! Table `fires`: one row per nominal time, whatever became of it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::Row;

use crate::error::{Error, Result};
use crate::id::{ExecutionId, InvokeId};
use crate::invocation::bounds::Bounds;
use crate::invocation::fire::{Fire, FireDisposition};
use crate::metrics::Counted;
use crate::panics::tell;
use crate::status::{Ends, InvocationStatus};

use super::commands::read_time;
use super::records::FIRE_WITHOUT_TARGETS;
use super::timers::Timer;
use super::{Listing, Query, Slice, Tx, expect_all, parse, unreadable, waits};

/// A fire that is about to be stored.
#[derive(Debug)]
pub(super) struct NewFire<'a> {
    pub invocation: i64,
    /// None: beside any schedule.
    pub timer: Option<i64>,
    pub fire_at_ms: i64,
    pub disposition: FireDisposition,
    pub reason: &'a str,
    /// When the time was due, if the record can be withdrawn.
    pub due_until_ms: Option<i64>,
    /// Executions to come.
    pub unfinished: usize,
    /// The last instance, if all executions are stored as claimed.
    pub claimed_until: Option<i64>,
    pub dealt_at_ms: i64,
    pub bounds: &'a Bounds,
}

/// Stores a fire; its row.
pub(super) fn insert(tx: Tx<'_>, new: &NewFire<'_>) -> Result<i64> {
    tx.execute(
        "INSERT INTO fires (invocation, timer, fire_at_ms, disposition, reason, unfinished, dealt_at_ms,
             priority, concurrency_max, concurrency_key, errors_max, start_by_ms, end_by_ms, due_until_ms,
             since_ms, claimed_until)
         VALUES (?1, ?2, ?3, ?4, nullif(?5, ''), ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        (
            new.invocation,
            new.timer,
            new.fire_at_ms,
            new.disposition.as_str(),
            new.reason,
            new.unfinished as i64,
            new.dealt_at_ms,
            new.bounds.priority,
            new.bounds.concurrency_max.map(stored),
            &new.bounds.concurrency_key,
            new.bounds.errors_max.map(stored),
            new.bounds.start_by_ms,
            new.bounds.end_by_ms,
            new.due_until_ms,
            waits::since(tx),
            new.claimed_until,
        ),
    )?;
    tx.count(counted(new.disposition), 1);
    Ok(tx.last_id())
}

/// A number as large as a column holds.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The number of instances that a note of claims reaches ahead, so that few claims write the record of their fire.
/// Recovery looks at the executions on these instances too.
const CLAIMED_AHEAD: i64 = 64;

/// Notes that executions of a fire are claimed on instances up to this one, in the transaction of the claim.
pub(super) fn note_claimed(tx: Tx<'_>, fire: i64, until: i64) -> Result<()> {
    tx.execute(
        "UPDATE fires SET claimed_until = ?3
         WHERE id = ?1 AND (claimed_until IS NULL OR claimed_until < ?2)",
        (fire, until, until.saturating_add(CLAIMED_AHEAD)),
    )?;
    Ok(())
}

/// Returns the fires with executions that have not ended and of which some have been claimed.
pub(super) fn claimed(tx: Tx<'_>) -> Result<Vec<i64>> {
    let mut query = tx.prepare(
        "SELECT id FROM fires INDEXED BY fires_claimed
         WHERE claimed_until IS NOT NULL AND unfinished > 0",
    )?;
    let fires = query.query_map((), |row| row.get(0))?;
    Ok(fires.collect::<rusqlite::Result<_>>()?)
}

/// Lets a wave of a fire loose: so many of its executions in all, up to this one.
pub(super) fn open_wave(tx: Tx<'_>, fire: i64, opened: u64, until: ExecutionId) -> Result<()> {
    tx.execute(
        "UPDATE fires SET opened = ?2, open_until = ?3, wave_at_ms = NULL WHERE id = ?1",
        (fire, stored(opened), until.0),
    )?;
    Ok(())
}

/// On which terms a fire waits for its executions to be claimed.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub priority: u8,
    /// When the fire was stored, in steady time.
    pub dealt_at_ms: i64,
    /// Its executions that had not ended when this was read: no more of them wait.
    pub unfinished: usize,
    /// None if nothing holds its executions back but the free places.
    pub limits: Option<Arc<FireLimits>>,
}

/// What holds the executions of a fire back beside the free places.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FireLimits {
    pub invocation: i64,
    /// How many executions of its invocation run at a time.
    pub concurrency_max: Option<usize>,
    /// Whose bound it shares with others.
    pub concurrency_key: Option<Arc<str>>,
    pub start_by_ms: Option<i64>,
    pub has_waves: bool,
}

const TERMS: &str =
    "id, priority, coalesce(since_ms, dealt_at_ms), invocation, concurrency_max, concurrency_key,
    start_by_ms, opened IS NOT NULL, unfinished";

fn read_terms(row: &Row<'_>) -> rusqlite::Result<Terms> {
    let limits = FireLimits {
        invocation: row.get(3)?,
        concurrency_max: row.get(4)?,
        concurrency_key: row.get(5)?,
        start_by_ms: row.get(6)?,
        has_waves: row.get(7)?,
    };
    let limited = limits.concurrency_max.is_some()
        || limits.concurrency_key.is_some()
        || limits.start_by_ms.is_some()
        || limits.has_waves;
    Ok(Terms {
        priority: row.get(1)?,
        dealt_at_ms: row.get(2)?,
        unfinished: row.get(8)?,
        limits: limited.then(|| Arc::new(limits)),
    })
}

/// The terms of a fire, if executions of it have not ended.
pub(crate) fn terms(tx: Tx<'_>, fire: i64) -> Result<Option<Terms>> {
    tx.find(
        &format!("SELECT {TERMS} FROM fires WHERE id = ?1 AND unfinished > 0"),
        [fire],
        read_terms,
    )
}

/// Returns the highest priority below `below` of a fire with executions that have not ended.
pub(crate) fn priority_below(tx: Tx<'_>, below: u8) -> Result<Option<u8>> {
    tx.one(
        "SELECT max(priority) FROM fires INDEXED BY fires_unfinished
         WHERE unfinished > 0 AND priority < ?1",
        [below],
        |row| row.get(0),
    )
}

/// Returns the fires of a priority after `after` with executions that have not ended, oldest first, each with its
/// terms if these can be read.
pub(crate) fn queue(
    tx: Tx<'_>,
    priority: u8,
    after: i64,
    max: usize,
) -> Result<Vec<(i64, Result<Terms>)>> {
    let mut query = tx.prepare(&format!(
        "SELECT {TERMS} FROM fires INDEXED BY fires_unfinished
         WHERE unfinished > 0 AND priority = ?1 AND id > ?2 ORDER BY id LIMIT ?3"
    ))?;
    let fires = query.query_map((priority, after, max as i64), |row| {
        Ok((row.get(0)?, read_terms(row).map_err(Error::from)))
    })?;
    Ok(fires.collect::<rusqlite::Result<_>>()?)
}

/// Returns the priority of a fire.
pub(super) fn priority(tx: Tx<'_>, fire: i64) -> Result<u8> {
    tx.one("SELECT priority FROM fires WHERE id = ?1", [fire], |row| row.get(0))
}

/// Up to which execution a fire may start them; none if it has no waves.
pub(super) fn open_until(tx: Tx<'_>, fire: i64) -> Result<Option<i64>> {
    tx.one("SELECT open_until FROM fires WHERE id = ?1", [fire], |row| row.get(0))
}

/// A stretch of nominal times that did not fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub from_ms: i64,
    pub until_ms: i64,
    pub count: u64,
}

/// The record of nominal times that do not fire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PassedOver<'a> {
    pub disposition: FireDisposition,
    pub reason: &'a str,
    /// Whether the record stays even if the clock goes back to before the times were due.
    pub is_final: bool,
}

/// Records a stretch of nominal times of a timer that did not fire. One that goes on where the
/// record before it ends, for the same reason, becomes part of that.
pub(crate) fn pass_over(
    tx: Tx<'_>,
    timer: &Timer,
    stretch: Stretch,
    PassedOver { disposition, reason, is_final }: PassedOver<'_>,
    now_ms: i64,
) -> Result<Fire> {
    let Stretch { from_ms, until_ms, count } = stretch;
    let due_until_ms = (!is_final).then(|| until_ms.saturating_add(timer.delay_ms));
    let extended = tx.execute(
        "UPDATE fires SET until_ms = ?2, count = count + ?3, dealt_at_ms = ?4, due_until_ms = ?7
         WHERE id = (SELECT id FROM fires WHERE timer = ?1 AND fire_at_ms < ?8
                     ORDER BY fire_at_ms DESC LIMIT 1)
           AND disposition = ?5 AND reason = ?6 AND until_ms IS NOT NULL",
        (timer.id, until_ms, count, now_ms, disposition.as_str(), reason, due_until_ms, from_ms),
    )?;
    if extended == 0 {
        tx.execute(
            "INSERT INTO fires (invocation, timer, fire_at_ms, until_ms, count, disposition, reason,
                 unfinished, dealt_at_ms, due_until_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8, ?9)",
            (
                timer.invocation,
                timer.id,
                from_ms,
                until_ms,
                count,
                disposition.as_str(),
                reason,
                now_ms,
                due_until_ms,
            ),
        )?;
    }
    tx.count(counted(disposition), usize::try_from(count).unwrap_or(usize::MAX));
    Ok(Fire {
        time: read_time(from_ms)?,
        until: Some(read_time(until_ms)?),
        count,
        disposition,
        reason: reason.to_owned(),
        zone: timer.zone.to_string(),
        dealt_time: read_time(now_ms)?,
        status: None,
    })
}

/// Records at the next nominal time of a timer that the timer had to be given up. No other fire of the timer is read,
/// because it may be the record that cannot be understood.
pub(crate) fn give_up(tx: Tx<'_>, timer: i64, reason: &str, now_ms: i64) -> Result<Option<Fire>> {
    let inserted = tx.execute(
        "INSERT INTO fires (invocation, timer, fire_at_ms, disposition, reason, unfinished, dealt_at_ms)
         SELECT invocation, id, next_fire_at_ms, 'Skipped', ?2, 0, ?3
         FROM timers WHERE id = ?1 AND next_fire_at_ms IS NOT NULL
         ON CONFLICT DO NOTHING",
        (timer, reason, now_ms),
    )?;
    if inserted == 0 {
        return Ok(None);
    }
    tx.count(Counted::FireSkipped, inserted);
    let mut query = tx.prepare(&format!("SELECT {COLUMNS} FROM {TABLES} WHERE f.id = ?1"))?;
    let mut rows = query.query([tx.last_id()])?;
    match rows.next()?.map(read).transpose() {
        // The record of the timer cannot be understood. The fire with the reason is stored all the same.
        Err(error) if error.is_of_a_record() => Ok(None),
        told => Ok(told?.map(|(_, fire)| fire)),
    }
}

/// A record of nominal times that did not fire although the last of them is not due yet, because the clock
/// has been set back since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    pub id: i64,
    pub timer: i64,
    pub times: Stretch,
}

/// Returns up to `max` records of times that did not fire and that are not due at `now_ms`. The query reads the index
/// alone: each record is read by itself later, so that the engine knows which record cannot be read.
pub(crate) fn ahead(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<i64>> {
    let mut query = tx.prepare(
        "SELECT id FROM fires INDEXED BY fires_by_due_until
         WHERE due_until_ms > ?1 ORDER BY due_until_ms, id LIMIT ?2",
    )?;
    let ahead = query.query_map((now_ms, max as i64), |row| row.get(0))?;
    Ok(ahead.collect::<rusqlite::Result<_>>()?)
}

/// Returns a record of times that did not fire.
pub(crate) fn get_ahead(tx: Tx<'_>, record: i64) -> Result<Ahead> {
    tx.one(
        "SELECT timer, fire_at_ms, coalesce(until_ms, fire_at_ms), count FROM fires WHERE id = ?1",
        [record],
        |row| {
            let times = Stretch { from_ms: row.get(1)?, until_ms: row.get(2)?, count: row.get(3)? };
            Ok(Ahead { id: record, timer: row.get(0)?, times })
        },
    )
}

/// Cuts a record in two. Returns the second part.
pub(crate) fn cut(
    tx: Tx<'_>,
    record: Ahead,
    delay_ms: i64,
    first: Stretch,
    second: Stretch,
) -> Result<Ahead> {
    tx.execute(
        "INSERT INTO fires (invocation, timer, fire_at_ms, until_ms, count, disposition, reason,
             unfinished, dealt_at_ms, due_until_ms)
         SELECT invocation, timer, ?2, ?3, ?4, disposition, reason, 0, dealt_at_ms, ?3 + ?5
         FROM fires WHERE id = ?1",
        (record.id, second.from_ms, second.until_ms, second.count, delay_ms),
    )?;
    let id = tx.last_id();
    tx.execute(
        "UPDATE fires SET until_ms = ?2, count = ?3, due_until_ms = ?2 + ?4 WHERE id = ?1",
        (record.id, first.until_ms, first.count, delay_ms),
    )?;
    Ok(Ahead { id, times: second, ..record })
}

/// Takes a record back, so that its times have no record any more. The row stays, because its number must not
/// be used again, and says when it was taken back.
pub(crate) fn withdraw(tx: Tx<'_>, record: i64, now_ms: i64) -> Result<()> {
    tx.execute(
        "UPDATE fires SET disposition = 'Withdrawn', timer = NULL, due_until_ms = NULL, dealt_at_ms = ?2
         WHERE id = ?1",
        (record, now_ms),
    )?;
    Ok(())
}

/// Makes a record final, whatever happens to the clock.
pub(crate) fn keep(tx: Tx<'_>, record: i64) -> Result<()> {
    tx.execute("UPDATE fires SET due_until_ms = NULL WHERE id = ?1", [record])?;
    Ok(())
}

/// Returns the nominal times of a timer after its next one that have a record already, in order: they fired while the
/// clock was ahead, or their record has not been taken back yet.
pub(crate) fn dealt_ahead(tx: Tx<'_>, timer: &Timer) -> Result<Vec<Stretch>> {
    let Some(next_ms) = timer.next_fire_at_ms else { return Ok(Vec::new()) };
    if timer.fired_until_ms.is_none_or(|until_ms| until_ms < next_ms) {
        return Ok(Vec::new());
    }
    let mut query = tx.prepare(
        "SELECT fire_at_ms, coalesce(until_ms, fire_at_ms), count FROM fires INDEXED BY fires_by_timer
         WHERE timer = ?1 AND fire_at_ms > ?2 ORDER BY fire_at_ms",
    )?;
    let stretches = query.query_map((timer.id, next_ms), |row| {
        Ok(Stretch { from_ms: row.get(0)?, until_ms: row.get(1)?, count: row.get(2)? })
    })?;
    Ok(stretches.collect::<rusqlite::Result<_>>()?)
}

/// Returns when the last record of an invocation that covered the time `at_ms` was withdrawn; `None` if there is no
/// such record.
pub(crate) fn withdrawn(tx: Tx<'_>, invocation: i64, at_ms: i64) -> Result<Option<DateTime<Utc>>> {
    let dealt_at_ms = tx.one(
        "SELECT max(dealt_at_ms) FROM fires INDEXED BY fires_beside_schedule
         WHERE invocation = ?1 AND timer IS NULL AND reason IS NOT NULL AND disposition = 'Withdrawn'
             AND fire_at_ms <= ?2 AND coalesce(until_ms, fire_at_ms) >= ?2",
        (invocation, at_ms),
        |row| row.get::<_,
        Option<i64>>(0),
    )?;
    dealt_at_ms.map(read_time).transpose()
}

fn counted(disposition: FireDisposition) -> Counted {
    match disposition {
        FireDisposition::Started => Counted::FireStarted,
        FireDisposition::Skipped => Counted::FireSkipped,
        FireDisposition::Missed => Counted::FireMissed,
    }
}

/// Returns the number of executions that have not ended, without those of fires that cannot be read.
pub(super) fn unended(tx: Tx<'_>) -> Result<u64> {
    match unended_of_all(tx) {
        Err(error) if error.is_damage() => {
            tell(|| tracing::warn!(%error, "not all executions that have not ended are counted"));
            unended_of_each(tx)
        }
        unended => unended,
    }
}

fn unended_of_each(tx: Tx<'_>) -> Result<u64> {
    let mut all =
        tx.prepare("SELECT id FROM fires INDEXED BY fires_unfinished WHERE unfinished > 0")?;
    let mut one = tx.prepare("SELECT total(unfinished) FROM fires WHERE id = ?1")?;
    let (mut unended, mut fires) = (0, all.query(())?);
    loop {
        match fires.next().map_err(Error::from) {
            Ok(Some(fire)) => {
                let fire: i64 = fire.get(0)?;
                let of_fire = one.query_row([fire], |row| row.get::<_, f64>(0));
                match of_fire.map_err(Error::from) {
                    Err(error) if error.is_damage() => {}
                    of_fire => unended += of_fire? as u64,
                }
            }
            Ok(None) => return Ok(unended),
            // The other fires cannot be found.
            Err(error) if error.is_damage() => return Ok(unended),
            Err(error) => return Err(error),
        }
    }
}

fn unended_of_all(tx: Tx<'_>) -> Result<u64> {
    let unended = tx.one(
        // Not `sum`, which fails if a damaged row makes it overflow.
        "SELECT total(unfinished) FROM fires INDEXED BY fires_unfinished WHERE unfinished > 0",
        (),
        |row| row.get::<_, f64>(0),
    )?;
    Ok(unended as u64)
}

/// A fire that executions of have ended.
#[derive(Debug)]
pub(super) struct Countdown {
    pub invocation: i64,
    pub invoke_id: InvokeId,
    /// There is no other fire of its invocation, and none to come.
    pub is_only: bool,
    pub unfinished: u64,
    /// How all of them have ended that have.
    pub ended: Ends,
    /// If more than so many end without success, the rest is cancelled.
    errors_max: Option<u64>,
    /// How many executions its waves have let loose.
    opened: Option<u64>,
}

impl Countdown {
    /// Whether with these so many have ended without success that the rest is cancelled.
    pub(super) fn has_failed_with(&self, last: Ends) -> bool {
        let (now, before) = (self.ended.failed, self.ended.failed.saturating_sub(last.failed));
        self.unfinished > 0 && self.errors_max.is_some_and(|max| now > max && before <= max)
    }

    /// Whether as many have ended as its waves have let loose, and there are others. Those that have
    /// ended may be others, too.
    pub(super) fn may_await_wave(&self) -> bool {
        self.unfinished > 0 && self.opened.is_some_and(|opened| opened <= self.ended.total())
    }
}

/// The greatest number of executions of a fire.
const EXECUTIONS_MAX: u64 = u32::MAX as u64;
/// The number of executions that [`check_counts`] looks at, over all fires. The check ends there.
const CHECKED_MAX: usize = 16_384;

/// Checks that the fires of an invocation that have not ended can end: that their counts can be read, and that there
/// are executions that have not ended. A caller that waits for the end of any other fire would wait for ever.
///
/// # Errors
///
/// Returns the error of the record of a fire that cannot end.
pub(crate) fn check_counts(tx: Tx<'_>, invocation: i64) -> Result<()> {
    let mut unended = tx.prepare(
        "SELECT id, unfinished, succeeded, failed, stopped
         FROM fires INDEXED BY fires_unfinished_by_invocation
         WHERE invocation = ?1 AND unfinished > 0 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = unended.query((invocation, CHECKED_MAX as i64))?;
    // Executions on the last instances are claimed last.
    let mut executions = tx.prepare(
        "SELECT finished_at_ms IS NULL FROM executions INDEXED BY executions_by_fire
         WHERE fire = ?1 ORDER BY instance DESC, attempt DESC",
    )?;
    let mut left = CHECKED_MAX;
    while let Some(row) = rows.next()? {
        let fire: i64 = row.get(0)?;
        for count in 1..=4 {
            let count = row.get::<_, u64>(count).map_err(|error| {
                unreadable(format!("how many executions of fire {fire} have ended, {error}"))
            })?;
            if count > EXECUTIONS_MAX {
                return Err(unreadable(format!("fire {fire} cannot have {count} executions")));
            }
        }
        let mut rows = executions.query([fire])?;
        loop {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            match rows.next()? {
                None => {
                    return Err(unreadable(format!(
                        "fire {fire} says that executions have not ended, and all of them have"
                    )));
                }
                Some(row) if row.get(0)? => break,
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Takes note that executions of a fire have ended.
pub(super) fn count_down(tx: Tx<'_>, fire: i64, ended: Ends) -> Result<Countdown> {
    // Not by RETURNING, for which SQLite makes a table each time.
    let mut counted = tx
        .find(
            "SELECT f.invocation, v.invoke_id, v.overlap_policy IS NULL, f.unfinished, f.succeeded,
                 f.failed, f.stopped, f.errors_max, f.opened
             FROM fires f JOIN invocations v ON v.id = f.invocation WHERE f.id = ?1",
            [fire],
            |row| {
                Ok(Countdown {
                    invocation: row.get(0)?,
                    invoke_id: InvokeId::from_bytes(row.get(1)?),
                    is_only: row.get(2)?,
                    unfinished: row.get(3)?,
                    ended: Ends {
                        succeeded: row.get(4)?,
                        failed: row.get(5)?,
                        stopped: row.get(6)?,
                    },
                    errors_max: row.get(7)?,
                    opened: row.get(8)?,
                })
            },
        )?
        .ok_or_else(|| Error::Internal(format!("fire {fire} is gone")))?;
    let count = counted.unfinished.saturating_add(counted.ended.total());
    if count > EXECUTIONS_MAX {
        return Err(unreadable(format!("fire {fire} cannot have {count} executions")));
    }
    let left = counted.unfinished.checked_sub(ended.total());
    counted.unfinished =
        left.ok_or_else(|| Error::Internal(format!("fire {fire} ends more often than it began")))?;
    counted.ended += ended;
    tx.execute(
        "UPDATE fires SET unfinished = ?2, succeeded = ?3, failed = ?4, stopped = ?5 WHERE id = ?1",
        (
            fire,
            counted.unfinished,
            counted.ended.succeeded,
            counted.ended.failed,
            counted.ended.stopped,
        ),
    )?;
    Ok(counted)
}

/// Takes note that all executions of these fires have ended, of each so many in these ways.
pub(super) fn end(tx: Tx<'_>, fires: RangeInclusive<i64>, ends: Ends) -> Result<()> {
    let changed = tx.execute(
        "UPDATE OR FAIL fires SET unfinished = 0, succeeded = ?4, failed = ?5, stopped = ?6
         WHERE id BETWEEN ?1 AND ?2 AND unfinished = ?3",
        (fires.start(), fires.end(), ends.total(), ends.succeeded, ends.failed, ends.stopped),
    )?;
    expect_all(changed, &fires, "fires")
}

const COLUMNS: &str =
    "f.id, f.fire_at_ms, f.until_ms, f.count, f.disposition, f.reason, f.dealt_at_ms, m.zone,
     f.unfinished, f.succeeded, f.failed, f.stopped";
const TABLES: &str = "fires f LEFT JOIN timers m ON m.id = f.timer";

fn read(row: &Row<'_>) -> Result<(i64, Fire)> {
    let until_ms: Option<i64> = row.get(2)?;
    let fire = Fire {
        time: read_time(row.get(1)?)?,
        until: until_ms.map(read_time).transpose()?,
        count: row.get(3)?,
        disposition: parse(row.get_ref(4)?.as_str().map_err(unreadable)?)?,
        reason: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
        dealt_time: read_time(row.get(6)?)?,
        zone: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
        status: ended(row),
    };
    Ok((row.get(0)?, fire))
}

/// Returns how the executions of a fire have ended. Counts that cannot be read say nothing, and hide no fire.
fn ended(row: &Row<'_>) -> Option<InvocationStatus> {
    let count = |column| row.get::<_, u64>(column).ok();
    let ends = Ends { succeeded: count(9)?, failed: count(10)?, stopped: count(11)? };
    (count(8)? == 0 && ends.total() > 0).then(|| ends.status())
}

/// A slice of the fires of an invocation, newest first.
pub(crate) fn list(tx: Tx<'_>, invocation: i64, slice: Slice) -> Result<Listing<Fire>> {
    let mut query = Query::new(COLUMNS.to_owned(), TABLES, "f.id");
    query.filter("f.invocation = ?", Some(invocation));
    query.conditions.push("f.disposition <> 'Withdrawn'".to_owned());
    query.slice(tx, slice, |row| Ok(read(row)?.1))
}

/// The last fire of a timer, or stretch of them, that begins before `until_ms`; with its row.
pub(crate) fn last_before(tx: Tx<'_>, timer: i64, until_ms: i64) -> Result<Option<(i64, Fire)>> {
    let mut query = tx.prepare(&format!(
        "SELECT {COLUMNS} FROM {TABLES} WHERE f.timer = ?1 AND f.fire_at_ms < ?2 ORDER BY f.fire_at_ms DESC LIMIT 1"
    ))?;
    let mut rows = query.query((timer, until_ms))?;
    rows.next()?.map(read).transpose()
}

/// The fires of an invocation beside its schedule within a stretch of time, with their rows.
pub(crate) fn beside_schedule(
    tx: Tx<'_>,
    invocation: i64,
    from_ms: i64,
    until_ms: i64,
) -> Result<Vec<(i64, Fire)>> {
    // The only fire of an invocation that runs once has no reason. All other fires beside a schedule have a reason.
    const WITHIN: &str =
        "f.invocation = ?1 AND f.timer IS NULL AND f.fire_at_ms >= ?2 AND f.fire_at_ms < ?3
        AND f.disposition <> 'Withdrawn'";
    let mut query = tx.prepare(&format!(
        "SELECT {COLUMNS} FROM fires f INDEXED BY fires_beside_schedule LEFT JOIN timers m ON m.id = f.timer
         WHERE {WITHIN} AND f.reason IS NOT NULL
         UNION ALL
         SELECT {COLUMNS} FROM fires f LEFT JOIN timers m ON m.id = f.timer
         WHERE f.id = {FIRE_WITHOUT_TARGETS} AND {WITHIN} AND f.reason IS NULL
         ORDER BY 1"
    ))?;
    let mut rows = query.query((invocation, from_ms, until_ms))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

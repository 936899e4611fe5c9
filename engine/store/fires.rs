//! Table `fires`: one row per nominal time, whatever became of it.

use rusqlite::{OptionalExtension, Row};

use crate::error::{Error, Result};
use crate::invocation::fire::{Fire, FireDisposition};
use crate::metrics::{Counted, tally};

use super::commands::read_time;
use super::timers::Timer;
use super::{Listing, Query, Slice, Tx, parse, unreadable};

/// A fire that is about to be stored.
#[derive(Debug)]
pub(super) struct NewFire<'a> {
    pub invocation: i64,
    /// None: beside any schedule.
    pub timer: Option<i64>,
    pub fire_at_ms: i64,
    pub disposition: FireDisposition,
    pub reason: &'a str,
    /// Executions to come.
    pub unfinished: usize,
    pub dealt_at_ms: i64,
}

/// Stores a fire; its row.
pub(super) fn insert(tx: Tx<'_>, new: &NewFire<'_>) -> Result<i64> {
    tx.prepare_cached(
        "INSERT INTO fires (invocation, timer, fire_at_ms, disposition, reason, unfinished, dealt_at_ms)
         VALUES (?1, ?2, ?3, ?4, nullif(?5, ''), ?6, ?7)",
    )?
    .execute((
        new.invocation,
        new.timer,
        new.fire_at_ms,
        new.disposition.as_str(),
        new.reason,
        new.unfinished as i64,
        new.dealt_at_ms,
    ))?;
    tally::count(counted(new.disposition), 1);
    Ok(tx.last_insert_rowid())
}

/// A stretch of nominal times that did not fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub from_ms: i64,
    pub until_ms: i64,
    pub count: u64,
}

/// Records a stretch of nominal times of a timer that did not fire. One that goes on where the
/// record before it ends, for the same reason, becomes part of that.
pub(crate) fn pass_over(
    tx: Tx<'_>,
    timer: &Timer,
    stretch: Stretch,
    disposition: FireDisposition,
    reason: &str,
    now_ms: i64,
) -> Result<Fire> {
    let Stretch { from_ms, until_ms, count } = stretch;
    let extended = tx
        .prepare_cached(
            "UPDATE fires SET until_ms = ?2, count = count + ?3, dealt_at_ms = ?4
             WHERE id = (SELECT id FROM fires WHERE timer = ?1 ORDER BY fire_at_ms DESC LIMIT 1)
               AND disposition = ?5 AND reason = ?6 AND until_ms IS NOT NULL",
        )?
        .execute((timer.id, until_ms, count, now_ms, disposition.as_str(), reason))?;
    if extended == 0 {
        tx.prepare_cached(
            "INSERT INTO fires (invocation, timer, fire_at_ms, until_ms, count, disposition, reason,
                 unfinished, dealt_at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)",
        )?
        .execute((
            timer.invocation,
            timer.id,
            from_ms,
            until_ms,
            count,
            disposition.as_str(),
            reason,
            now_ms,
        ))?;
    }
    tally::count(counted(disposition), usize::try_from(count).unwrap_or(usize::MAX));
    Ok(Fire {
        time: read_time(from_ms)?,
        until: Some(read_time(until_ms)?),
        count,
        disposition,
        reason: reason.to_owned(),
        zone: timer.zone.to_string(),
        dealt_time: read_time(now_ms)?,
    })
}

/// Records that the next nominal time of a timer is the one at which it had to be given up.
pub(crate) fn give_up(tx: Tx<'_>, timer: i64, reason: &str, now_ms: i64) -> Result<Option<Fire>> {
    let inserted = tx
        .prepare_cached(
        "INSERT INTO fires (invocation, timer, fire_at_ms, disposition, reason, unfinished, dealt_at_ms)
         SELECT invocation, id, next_fire_at_ms, 'Skipped', ?2, 0, ?3
         FROM timers WHERE id = ?1 AND next_fire_at_ms IS NOT NULL
         ON CONFLICT DO NOTHING",
    )?
    .execute((timer, reason, now_ms))?;
    tally::count(Counted::FireSkipped, inserted);
    Ok(last_before(tx, timer, i64::MAX)?.map(|(_, fire)| fire))
}

fn counted(disposition: FireDisposition) -> Counted {
    match disposition {
        FireDisposition::Started => Counted::FireStarted,
        FireDisposition::Skipped => Counted::FireSkipped,
        FireDisposition::Missed => Counted::FireMissed,
    }
}

/// Executions that have not ended.
pub(super) fn unended(tx: Tx<'_>) -> Result<u64> {
    let unended = tx
        .prepare_cached(
            "SELECT coalesce(sum(unfinished), 0) FROM fires INDEXED BY fires_unfinished WHERE unfinished > 0",
        )?
        .query_row((), |row| row.get(0))?;
    Ok(unended)
}

/// Takes note that executions of a fire have ended; its invocation if none of them is left.
pub(super) fn count_down(tx: Tx<'_>, fire: i64, ended: u64) -> Result<Option<i64>> {
    // Not by RETURNING, for which SQLite makes a table each time.
    tx.prepare_cached("UPDATE fires SET unfinished = unfinished - ?2 WHERE id = ?1")?
        .execute((fire, ended))?;
    let (left, invocation): (i64, i64) = tx
        .prepare_cached("SELECT unfinished, invocation FROM fires WHERE id = ?1")?
        .query_row([fire], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or_else(|| Error::Internal(format!("fire {fire} is gone")))?;
    Ok((left == 0).then_some(invocation))
}

const COLUMNS: &str =
    "f.id, f.fire_at_ms, f.until_ms, f.count, f.disposition, f.reason, f.dealt_at_ms, m.zone";
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
    };
    Ok((row.get(0)?, fire))
}

/// A slice of the fires of an invocation, newest first.
pub(crate) fn list(tx: Tx<'_>, invocation: i64, slice: Slice) -> Result<Listing<Fire>> {
    let query = Query {
        columns: COLUMNS.to_owned(),
        tables: TABLES.to_owned(),
        key: "f.id",
        ascending: false,
        conditions: vec!["f.invocation = ?".to_owned()],
        values: vec![invocation.into()],
    };
    query.slice(tx, slice, |row| Ok(read(row)?.1))
}

/// The last fire of a timer, or stretch of them, that begins before `until_ms`; with its row.
pub(crate) fn last_before(tx: Tx<'_>, timer: i64, until_ms: i64) -> Result<Option<(i64, Fire)>> {
    let mut query = tx.prepare_cached(&format!(
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
    let mut query = tx.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {TABLES} WHERE f.invocation = ?1 AND f.timer IS NULL
             AND f.fire_at_ms >= ?2 AND f.fire_at_ms < ?3 ORDER BY f.id"
    ))?;
    let mut rows = query.query((invocation, from_ms, until_ms))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

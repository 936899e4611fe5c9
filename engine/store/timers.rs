//! Tables `timers` and `targets`: what fires when, and for which instances.

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::id::InstanceId;
use crate::invocation::recurrence::{MissedPolicy, OverlapPolicy};
use crate::schedule::{Schedule, Zone};

use super::commands::read_time;
use super::fires::{self, Disposition};
use super::{Tx, parse};

/// Stores a timer and its targets.
pub(super) fn insert(
    tx: Tx<'_>,
    invocation: i64,
    zone: Zone,
    next_fire_at_ms: i64,
    target_rows: &[i64],
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO timers (invocation, zone, next_fire_at_ms) VALUES (?1, ?2, ?3)",
    )?
    .execute((invocation, zone.name(), next_fire_at_ms))?;
    let timer = tx.last_insert_rowid();
    let mut insert = tx.prepare_cached("INSERT INTO targets (timer, instance) VALUES (?1, ?2)")?;
    for target in target_rows {
        insert.execute((timer, target))?;
    }
    Ok(())
}

/// A timer whose time has come.
#[derive(Debug)]
pub(crate) struct Due {
    pub timer: i64,
    pub invocation: i64,
    pub next_fire_at_ms: i64,
    pub zone: Zone,
    pub schedule: Schedule,
    pub created: DateTime<Utc>,
    pub overlap: OverlapPolicy,
    pub missed: MissedPolicy,
}

/// Timers due at `now_ms`, those that have waited longest first.
pub(crate) fn due(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<Due>> {
    let mut query = tx.prepare_cached(
        "SELECT m.id, m.invocation, m.next_fire_at_ms, m.zone, v.frequency, v.created_at_ms,
                v.overlap_policy, v.missed_policy
         FROM timers m INDEXED BY timers_due JOIN invocations v ON v.id = m.invocation
         WHERE m.next_fire_at_ms <= ?1 ORDER BY m.next_fire_at_ms LIMIT ?2",
    )?;
    let mut rows = query.query((now_ms, max as i64))?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        due.push(Due {
            timer: row.get(0)?,
            invocation: row.get(1)?,
            next_fire_at_ms: row.get(2)?,
            zone: parse(&row.get::<_, String>(3)?)?,
            schedule: parse(&row.get::<_, String>(4)?)?,
            created: read_time(row.get(5)?)?,
            overlap: parse(&row.get::<_, String>(6)?)?,
            missed: parse(&row.get::<_, String>(7)?)?,
        });
    }
    Ok(due)
}

/// When the next timer is due.
pub(crate) fn next_due_ms(tx: Tx<'_>) -> Result<Option<i64>> {
    let next = tx
        .prepare_cached(
            "SELECT min(next_fire_at_ms) FROM timers INDEXED BY timers_due
             WHERE next_fire_at_ms IS NOT NULL",
        )?
        .query_row((), |row| row.get(0))?;
    Ok(next)
}

/// Fires a timer for one of its nominal times: an execution for each target, waiting, or skipped
/// if the one before has not ended and must not be overtaken.
pub(crate) fn fire(tx: Tx<'_>, due: &Due, fire_at_ms: i64, now_ms: i64) -> Result<()> {
    let disposition = Disposition::Started;
    let fire = fires::insert(tx, due.invocation, Some(due.timer), fire_at_ms, disposition, 0)?;
    let skips = due.overlap == OverlapPolicy::Skip;
    tx.prepare_cached(
            "INSERT INTO executions (fire, instance, attempt, status, finished_at_ms, error_info)
             SELECT ?1, instance, 1, iif(busy, 'Skipped', 'Pending'), iif(busy, ?4, NULL),
                    iif(busy, 'the execution before it had not ended', NULL)
             FROM (SELECT t.instance, ?5 AND EXISTS (
                       SELECT 1 FROM fires f JOIN executions e ON e.fire = f.id AND e.instance = t.instance
                       WHERE f.invocation = ?3 AND f.unfinished > 0 AND e.finished_at_ms IS NULL) AS busy
                   FROM targets t WHERE t.timer = ?2 ORDER BY t.id)",
    )?
    .execute((fire, due.timer, due.invocation, now_ms, skips))?;
    tx.prepare_cached(
        "UPDATE fires SET unfinished = (SELECT count(*) FROM executions WHERE fire = ?1 AND status = 'Pending')
         WHERE id = ?1",
    )?
    .execute([fire])?;
    Ok(())
}

/// Records nominal times that passed without a fire.
pub(crate) fn miss(tx: Tx<'_>, due: &Due, from_ms: i64, until_ms: i64, count: u64) -> Result<()> {
    let disposition = Disposition::Missed { count, until_ms };
    fires::insert(tx, due.invocation, Some(due.timer), from_ms, disposition, 0)?;
    Ok(())
}

/// Sets the next time of a timer that has been dealt with.
pub(crate) fn advance(tx: Tx<'_>, due: &Due, next_fire_at_ms: Option<i64>) -> Result<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE timers SET next_fire_at_ms = ?3 WHERE id = ?1 AND next_fire_at_ms = ?2",
        )?
        .execute((due.timer, due.next_fire_at_ms, next_fire_at_ms))?;
    if changed == 1 {
        return Ok(());
    }
    Err(Error::Internal(format!("timer {} moved while it fired", due.timer)))
}

/// Whether an invocation will fire again.
pub(super) fn any_left(tx: Tx<'_>, invocation: i64) -> Result<bool> {
    let any = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM timers
             WHERE invocation = ?1 AND next_fire_at_ms IS NOT NULL)",
        )?
        .query_row([invocation], |row| row.get(0))?;
    Ok(any)
}

/// Ends the timers of an invocation.
pub(super) fn cancel(tx: Tx<'_>, invocation: i64) -> Result<()> {
    tx.prepare_cached(
        "UPDATE timers SET next_fire_at_ms = NULL
         WHERE invocation = ?1 AND next_fire_at_ms IS NOT NULL",
    )?
    .execute([invocation])?;
    Ok(())
}

/// Takes instances out of the timers of an invocation; a timer without any ends.
pub(super) fn drop_targets(tx: Tx<'_>, invocation: i64, ids: &[InstanceId]) -> Result<()> {
    for id in ids {
        tx.prepare_cached(
            "DELETE FROM targets WHERE timer IN (SELECT id FROM timers WHERE invocation = ?1)
             AND instance = (SELECT id FROM instances WHERE instance_id = ?2)",
        )?
        .execute((invocation, id.as_str()))?;
    }
    tx.prepare_cached(
        "UPDATE timers SET next_fire_at_ms = NULL
         WHERE invocation = ?1 AND NOT EXISTS (SELECT 1 FROM targets t WHERE t.timer = timers.id)",
    )?
    .execute([invocation])?;
    Ok(())
}

//! Table `executions`: who may be claimed, and is; who waits for another on an instance or of an
//! invocation, and lets the next go on.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row};

use crate::error::{Error, Result};
use crate::id::{ExecutionId, InstanceId};
use crate::metrics::{Counted, tally};
use crate::status::Cause;

use super::executions::{self, SoleFire, expect_one};
use super::instances::{self, Target};
use super::{Tx, fires};

/// An execution that has just been claimed.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub id: ExecutionId,
    pub attempt: u32,
    pub target: Arc<Target>,
}

/// An invocation that was stored as claimed.
#[derive(Debug)]
pub(crate) struct ClaimedAtOnce {
    pub sole: SoleFire,
    pub claimed: Vec<Claimed>,
}

/// Which executions of a fire are to be claimed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub fire: i64,
    /// On instances after this one, up to that one.
    pub after: i64,
    pub until: i64,
    pub max: usize,
    /// Whether it has waves.
    pub has_waves: bool,
    /// Whether no first attempt starts any more.
    pub is_late: bool,
    pub now_ms: i64,
}

/// What a claim came to.
#[derive(Debug)]
pub(crate) struct ClaimedFrom {
    pub claimed: Vec<Claimed>,
    /// The instance to go on after, if others wait behind them.
    pub more_after: Option<i64>,
}

/// Claims waiting executions of a fire, unless `admit` says that their instance has too many: those wait
/// for the end of one there.
pub(crate) fn claim(
    tx: Tx<'_>,
    of: &Claim,
    mut admit: impl FnMut(&Claimed) -> bool,
) -> Result<ClaimedFrom> {
    let open_until = if of.has_waves { fires::open_until(tx, of.fire)? } else { None };
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.attempt, e.instance FROM executions e INDEXED BY executions_by_fire
         WHERE e.fire = ?1 AND e.instance > ?2 AND e.instance <= ?3 AND e.status = 'Pending'
             AND e.awaits_instance IS NULL AND (e.attempt > 1 OR (e.id <= ?5 AND NOT ?6))
         ORDER BY e.instance LIMIT ?4",
    )?;
    let open_until = open_until.unwrap_or(i64::MAX);
    let limit = of.max as i64 + 1;
    let bounds = (of.fire, of.after, of.until, limit, open_until, of.is_late);
    let mut rows = query.query(bounds)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let target = match instances::of_row(tx, row.get(2)?) {
            // Before anything is changed: a record that cannot be read must be in nobody's way.
            Err(error) if error.is_of_a_record() => {
                tracing::error!(%error, fire = of.fire, "a fire cannot be claimed");
                return Ok(ClaimedFrom { claimed: Vec::new(), more_after: None });
            }
            target => target?,
        };
        found.push(Claimed { id: ExecutionId(row.get(0)?), attempt: row.get(1)?, target });
    }
    let more = found.len() > of.max;
    found.truncate(of.max);
    let more_after = found.last().map(|last| last.target.row).filter(|_| more);
    let (claimed, held): (Vec<_>, Vec<_>) = found.into_iter().partition(&mut admit);
    let running = Cause::Claimed.target();
    let (running, room) = (running.as_str(), executions::room(running));
    let all = held.is_empty() && !of.has_waves && !of.is_late;
    if let (Some(last), true) = (claimed.last(), all) {
        let changed = tx
            .prepare_cached(
                "UPDATE OR FAIL executions INDEXED BY executions_by_fire
                 SET status = ?4, started_at_ms = ?5, room = ?6
                 WHERE fire = ?1 AND instance > ?2 AND instance <= ?3 AND status = 'Pending'
                     AND awaits_instance IS NULL",
            )?
            .execute((of.fire, of.after, last.target.row, running, of.now_ms, room))?;
        if changed != claimed.len() {
            let (fire, waited) = (of.fire, claimed.len());
            return Err(Error::Internal(format!(
                "{changed} executions of fire {fire} were claimed, and {waited} were waiting"
            )));
        }
        tally::count(Counted::Started, claimed.len());
        return Ok(ClaimedFrom { claimed, more_after });
    }
    for one in &claimed {
        let changed = tx
            .prepare_cached(
                "UPDATE executions SET status = ?2, started_at_ms = ?3, room = ?4
                 WHERE id = ?1 AND status = 'Pending'",
            )?
            .execute((one.id.0, running, of.now_ms, room))?;
        expect_one(changed, one.id)?;
    }
    for one in held {
        let changed = tx
            .prepare_cached(
                "UPDATE executions SET awaits_instance = 1 WHERE id = ?1 AND status = 'Pending'",
            )?
            .execute([one.id.0])?;
        expect_one(changed, one.id)?;
    }
    tally::count(Counted::Started, claimed.len());
    Ok(ClaimedFrom { claimed, more_after })
}

/// Executions of a fire that may be claimed now: on one instance, or on any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Released {
    pub fire: i64,
    pub instance: Option<i64>,
}

/// An execution that has ended before it started.
#[derive(Debug)]
pub(super) struct EndedEarly {
    pub id: ExecutionId,
    pub instance: i64,
    pub instance_id: InstanceId,
    /// It did not wait for another of its invocation; others may have waited for it.
    pub was_next: bool,
}

/// Lets those go on that waited for executions which have ended before they started: others on their
/// instances, and others of their invocation.
pub(super) fn make_way(tx: Tx<'_>, fire: i64, ended: &[EndedEarly]) -> Result<Vec<Released>> {
    let mut released = Vec::new();
    for one in ended {
        released.extend(admit_next(tx, one.instance)?);
    }
    released.extend(release_behind(tx, fire, ended)?);
    Ok(released)
}

/// Lets those of their invocation go on that waited for executions which have ended before they started.
pub(super) fn release_behind(tx: Tx<'_>, fire: i64, ended: &[EndedEarly]) -> Result<Vec<Released>> {
    let repeats: bool = tx
        .prepare_cached(
            "SELECT v.overlap_policy IS NOT NULL FROM fires f JOIN invocations v ON v.id = f.invocation
             WHERE f.id = ?1",
        )?
        .query_row([fire], |row| row.get(0))?;
    let mut released = Vec::new();
    for one in ended.iter().filter(|one| repeats && one.was_next) {
        released.extend(release(tx, one.id)?);
    }
    Ok(released)
}

/// Lets all executions be claimed that wait for the end of one on an instance: it may run more at a time
/// now.
pub(crate) fn admit_on(tx: Tx<'_>, instance: i64) -> Result<Vec<Released>> {
    let mut released = Vec::new();
    while let Some(next) = admit_next(tx, instance)? {
        released.push(next);
    }
    Ok(released)
}

/// Lets the oldest of the executions be claimed that wait for the end of one on an instance.
pub(super) fn admit_next(tx: Tx<'_>, instance: i64) -> Result<Option<Released>> {
    let next = tx
        .prepare_cached(
            "SELECT id, fire FROM executions INDEXED BY executions_awaiting
             WHERE awaits_instance IS NOT NULL AND instance = ?1 ORDER BY id LIMIT 1",
        )?
        .query_row([instance], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, fire)): Option<(i64, i64)> = next else { return Ok(None) };
    tx.prepare_cached("UPDATE executions SET awaits_instance = NULL WHERE id = ?1")?
        .execute([id])?;
    Ok(Some(Released { fire, instance: Some(instance) }))
}

/// Lets all executions be claimed that wait for the end of one on their instance: the dispatcher will see
/// how many run there.
pub(crate) fn admit_all(tx: Tx<'_>) -> Result<()> {
    tx.prepare_cached(
        "UPDATE executions SET awaits_instance = NULL WHERE id IN (
             SELECT id FROM executions INDEXED BY executions_awaiting WHERE awaits_instance IS NOT NULL)",
    )?
    .execute(())?;
    Ok(())
}

/// Lets up to `max` executions be claimed whose time to be tried again has come, those first that
/// have waited longest.
pub(crate) fn release_due(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<Released>> {
    let mut update = tx.prepare_cached(
        "UPDATE executions SET status = ?3, retry_at_ms = NULL WHERE status = 'Scheduled' AND id IN (
             SELECT id FROM executions INDEXED BY executions_by_retry
             WHERE retry_at_ms <= ?1 ORDER BY retry_at_ms, id LIMIT ?2)
         RETURNING fire, instance",
    )?;
    let target = Cause::Released.target().as_str();
    let released = update.query_map((now_ms, max as i64, target), read_released)?;
    Ok(released.collect::<rusqlite::Result<_>>()?)
}

/// When the next execution is tried again.
pub(crate) fn next_retry_ms(tx: Tx<'_>) -> Result<Option<i64>> {
    let next = tx
        .prepare_cached(
            "SELECT min(retry_at_ms) FROM executions INDEXED BY executions_by_retry
             WHERE retry_at_ms IS NOT NULL",
        )?
        .query_row((), |row| row.get(0))?;
    Ok(next)
}

/// Lets the execution that waited for the end of this one be claimed.
pub(super) fn release(tx: Tx<'_>, ended: ExecutionId) -> Result<Option<Released>> {
    let released = tx
        .prepare_cached(
            "UPDATE executions SET status = ?2 WHERE status = 'Scheduled' AND id = (
                 SELECT w.id FROM executions e JOIN fires f ON f.id = e.fire
                     CROSS JOIN fires wf INDEXED BY fires_unfinished_by_invocation
                     CROSS JOIN executions w INDEXED BY executions_by_fire
                 WHERE e.id = ?1 AND wf.invocation = f.invocation AND wf.unfinished > 0
                     AND w.fire = wf.id AND w.instance = e.instance AND w.status = 'Scheduled'
                     AND w.retry_at_ms IS NULL
                 ORDER BY wf.id LIMIT 1)
             RETURNING fire, instance",
        )?
        .query_row((ended.0, Cause::Released.target().as_str()), read_released)
        .optional()?;
    Ok(released)
}

fn read_released(row: &Row<'_>) -> rusqlite::Result<Released> {
    Ok(Released { fire: row.get(0)?, instance: Some(row.get(1)?) })
}

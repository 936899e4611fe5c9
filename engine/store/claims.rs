//! Table `executions`: who may be claimed, and is; who waits for another on an instance or of an
//! invocation, and lets the next go on.

use std::sync::{Arc, LazyLock};

use rusqlite::{OptionalExtension, Row};

use crate::error::{Error, Result};
use crate::id::ExecutionId;
use crate::invocation::rate_control::PRIORITY_MAX;
use crate::metrics::Counted;
use crate::status::{Cause, ExecutionStatus};

use super::aside::{Aside, Subject};
use super::executions::{self, SoleFire, expect_one};
use super::instances::{self, Target};
use super::stop::NOT_STOPPED;
use super::{Tx, apart, fires, stop, targets};

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
    /// The standing of the executions that have to wait for their instance.
    pub standing: Standing,
    pub now_ms: i64,
}

/// What a claim came to.
#[derive(Debug)]
pub(crate) struct ClaimedFrom {
    pub claimed: Vec<Claimed>,
    /// Instances that cannot be read, each with the error.
    pub unreadable: Vec<(i64, Error)>,
    /// The instance to go on after, if others wait behind them.
    pub more_after: Option<i64>,
}

/// The standing of an execution or a fire among all that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub priority: u8,
    /// Since when it has waited without a share of the places.
    pub since_ms: i64,
}

/// After so long a wait the level is one above the priority: so no execution waits for ever.
const AGEING_MS: i64 = 10_000;

impl Standing {
    /// Returns the priority plus the age.
    pub(crate) fn level(self, now_ms: i64) -> u8 {
        let levels = now_ms.saturating_sub(self.since_ms).max(0) / AGEING_MS;
        let aged = u8::try_from(levels).unwrap_or(u8::MAX).saturating_add(self.priority);
        aged.min(PRIORITY_MAX)
    }

    /// Returns a number that orders waiting executions and fires, the lowest first. The number does not change with
    /// time.
    pub(crate) fn rank(self) -> i64 {
        self.since_ms.saturating_sub(AGEING_MS * i64::from(self.priority))
    }

    /// Returns the standing with this priority and rank.
    fn of_rank(priority: u8, rank: i64) -> Self {
        Self { priority, since_ms: rank.saturating_add(AGEING_MS * i64::from(priority)) }
    }
}

/// Executions that one claim passes over because an order to stop is about them.
const HELD_MAX: usize = 4_096;

/// Claims waiting executions of a fire. If `admit` says that an instance has no room, the execution waits for the end
/// of another execution there. Executions whose instances cannot be read stay as they are.
pub(crate) fn claim(
    tx: Tx<'_>,
    of: &Claim,
    mut admit: impl FnMut(&Claimed) -> bool,
) -> Result<ClaimedFrom> {
    let open_until = if of.has_waves { fires::open_until(tx, of.fire)? } else { None };
    let may_be_stopped = stop::may_hold(tx, of.fire)?;
    static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
        ["TRUE", NOT_STOPPED].map(|is_so| {
            format!(
                "SELECT e.id, e.attempt, e.instance, {is_so} FROM executions e INDEXED BY executions_by_fire
                 WHERE e.fire = ?1 AND e.instance > ?2 AND e.instance <= ?3 AND e.status = 'Pending'
                     AND e.awaits_instance IS NULL AND (e.attempt > 1 OR (e.id <= ?5 AND NOT ?6))
                 ORDER BY e.instance LIMIT ?4"
            )
        })
    });
    let mut query = tx.prepare(&SQL[usize::from(may_be_stopped)])?;
    let open_until = open_until.unwrap_or(i64::MAX);
    // Executions that an order to stop applies to are passed over, a part of them in each commit.
    let mut held_max = if may_be_stopped { HELD_MAX } else { 0 };
    let limit = of.max.saturating_add(held_max) as i64 + 1;
    let bounds = (of.fire, of.after, of.until, limit, open_until, of.is_late);
    let mut rows = query.query(bounds)?;
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    let (mut count, mut last, mut more_after) = (0, of.after, None);
    while let Some(row) = rows.next()? {
        let is_free = row.get(3)?;
        if (is_free && count == of.max) || (!is_free && held_max == 0) {
            more_after = Some(last);
            break;
        }
        last = row.get(2)?;
        if !is_free {
            held_max -= 1;
            continue;
        }
        count += 1;
        match instances::of_row(tx, last) {
            Err(error) if error.is_lasting() => unreadable.push((last, error)),
            target => found.push(Claimed {
                id: ExecutionId(row.get(0)?),
                attempt: row.get(1)?,
                target: target?,
            }),
        }
    }
    drop(rows);
    let (claimed, held): (Vec<Claimed>, Vec<_>) = found.into_iter().partition(&mut admit);
    tx.memory.running.note(of.fire, claimed.iter().map(|one| one.id));
    if let Some(until) = claimed.iter().map(|one| one.target.row).max() {
        fires::note_claimed(tx, of.fire, until)?;
    }
    let status = Cause::Claimed.target();
    let (status, room) = (status.as_str(), executions::room(status));
    let all =
        held.is_empty() && unreadable.is_empty() && !of.has_waves && !of.is_late && !may_be_stopped;
    if let (Some(last), true) = (claimed.last(), all) {
        let changed = tx.execute(
            "UPDATE OR FAIL executions INDEXED BY executions_by_fire
             SET status = ?4, started_at_ms = ?5, room = ?6
             WHERE fire = ?1 AND instance > ?2 AND instance <= ?3 AND status = 'Pending'
                 AND awaits_instance IS NULL",
            (of.fire, of.after, last.target.row, status, of.now_ms, room),
        )?;
        if changed != claimed.len() {
            let (fire, waited) = (of.fire, claimed.len());
            return Err(Error::Internal(format!(
                "{changed} executions of fire {fire} were claimed, and {waited} were waiting"
            )));
        }
        tx.count(Counted::Started, claimed.len());
        return Ok(ClaimedFrom { claimed, unreadable, more_after });
    }
    for one in &claimed {
        let changed = tx.execute(
            "UPDATE executions SET status = ?2, started_at_ms = ?3, room = ?4
             WHERE id = ?1 AND status = 'Pending'",
            (one.id.0, status, of.now_ms, room),
        )?;
        expect_one(changed, one.id)?;
    }
    for one in held {
        let changed = tx
            .prepare(
                "UPDATE executions SET awaits_instance = ?2, room = ?3
                 WHERE id = ?1 AND status = 'Pending'",
            )?
            // The rank takes as many bytes as the time of the start will.
            .execute((one.id.0, of.standing.rank(), room))?;
        expect_one(changed, one.id)?;
    }
    tx.count(Counted::Started, claimed.len());
    Ok(ClaimedFrom { claimed, unreadable, more_after })
}

/// An execution that waits for a place on its instance.
#[derive(Debug)]
pub(crate) struct Awaiting {
    pub id: ExecutionId,
    pub attempt: u32,
    pub fire: i64,
    pub instance: i64,
    pub standing: Standing,
    /// Whether an order to stop is about it: then it is not to be claimed, and it need not stay in line.
    pub is_held: bool,
    /// Its place in the line.
    pub place: Place,
}

/// A place in the line for an instance: the rank and the number of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(i64, i64);

impl Place {
    /// The place before all executions.
    pub(crate) const FIRST: Self = Self(i64::MIN, i64::MIN);
}

/// Returns the next execution, after a given one, that waits for a place on an instance, even if an order to stop
/// applies to it: a search for others goes on behind it.
pub(crate) fn next_awaiting(tx: Tx<'_>, instance: i64, after: Place) -> Result<Option<Awaiting>> {
    let next = tx.find(
        &format!(
            "SELECT e.id, e.attempt, e.fire, e.awaits_instance, NOT {NOT_STOPPED}
             FROM executions e INDEXED BY executions_awaiting
             WHERE e.awaits_instance IS NOT NULL AND e.instance = ?1 AND (e.awaits_instance, e.id) > (?2, ?3)
             ORDER BY e.awaits_instance, e.id LIMIT 1"
        ),
        (instance, after.0, after.1),
        |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        },
    )?;
    let Some((id, attempt, fire, rank, is_held)) = next else { return Ok(None) };
    let standing = Standing::of_rank(fires::priority(tx, fire)?, rank);
    let (id, place) = (ExecutionId(id), Place(rank, id));
    Ok(Some(Awaiting { id, attempt, fire, instance, standing, is_held, place }))
}

/// Claims an execution that has waited for a place on its instance.
pub(crate) fn claim_awaiting(tx: Tx<'_>, of: &Awaiting, now_ms: i64) -> Result<()> {
    let status = Cause::Claimed.target();
    tx.memory.running.note(of.fire, [of.id]);
    fires::note_claimed(tx, of.fire, of.instance)?;
    let changed = tx.execute(
        "UPDATE executions SET status = ?2, started_at_ms = ?3, room = ?4, awaits_instance = NULL
         WHERE id = ?1 AND status = 'Pending'",
        (of.id.0, status.as_str(), now_ms, executions::room(status)),
    )?;
    expect_one(changed, of.id)?;
    tx.count(Counted::Started, 1);
    Ok(())
}

/// Unmarks an execution that waits for a place on its instance: it waits for another bound now.
pub(crate) fn unmark_awaiting(tx: Tx<'_>, of: &Awaiting) -> Result<()> {
    let room = executions::room(ExecutionStatus::Pending);
    tx.execute(
        "UPDATE executions SET awaits_instance = NULL, room = ?2 WHERE id = ?1",
        (of.id.0, room),
    )?;
    Ok(())
}

/// Returns whether an execution waits for a place on an instance.
pub(super) fn any_awaits(tx: Tx<'_>, instance: i64) -> Result<bool> {
    tx.one(
        "SELECT EXISTS (SELECT 1 FROM executions INDEXED BY executions_awaiting
         WHERE awaits_instance IS NOT NULL AND instance = ?1)",
        [instance],
        |row| row.get(0),
    )
}

/// Executions that may be claimed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Released {
    /// Executions of a fire, on one instance or on all.
    Fire { fire: i64, instance: Option<i64>, standing: Standing },
    /// Executions that wait for a place on this instance, as many as it has room for.
    Instance(i64),
}

impl Released {
    /// Returns all executions of a fire, which wait from now on, in steady time.
    pub(crate) fn all_of(tx: Tx<'_>, fire: i64, since_ms: i64) -> Result<Self> {
        let standing = Standing { priority: fires::priority(tx, fire)?, since_ms };
        Ok(Self::Fire { fire, instance: None, standing })
    }
}

/// An execution that has ended before it started.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndedEarly {
    pub id: ExecutionId,
    /// It did not wait for another of its invocation; others may have waited for it.
    pub was_next: bool,
}

/// Releases executions of the same invocation that waited for executions which have ended before they started.
pub(super) fn release_behind(tx: Tx<'_>, fire: i64, ended: &[EndedEarly]) -> Result<Vec<Released>> {
    let repeats: bool = tx.one(
        "SELECT v.overlap_policy IS NOT NULL FROM fires f JOIN invocations v ON v.id = f.invocation
         WHERE f.id = ?1",
        [fire],
        |row| row.get(0),
    )?;
    let mut released = Vec::new();
    for one in ended.iter().filter(|_| repeats) {
        if one.was_next {
            released.extend(release(tx, one.id)?);
        } else {
            targets::note_standing(tx, one.id)?;
        }
    }
    Ok(released)
}

/// Lets up to `max` executions be claimed that wait for room on their instance, whichever instance that is: the
/// dispatcher checks later how many run there. Returns the number of these executions.
pub(crate) fn admit_all(tx: Tx<'_>, max: usize) -> Result<usize> {
    tx.execute(
        "UPDATE executions SET awaits_instance = NULL, room = ?1 WHERE id IN (
             SELECT id FROM executions INDEXED BY executions_awaiting
             WHERE awaits_instance IS NOT NULL LIMIT ?2)",
        (executions::room(ExecutionStatus::Pending), max as i64),
    )
}

/// Returns all executions that wait for room on their instance. The search reads the index alone, so that no damaged
/// execution hides another.
pub(crate) fn all_awaiting(tx: Tx<'_>) -> Result<Vec<i64>> {
    let mut query = tx.prepare(
        "SELECT id FROM executions INDEXED BY executions_awaiting WHERE awaits_instance IS NOT NULL",
    )?;
    let ids = query.query_map((), |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// Works like [`admit_all`], on these executions.
pub(crate) fn admit_these(tx: Tx<'_>, ids: &[i64]) -> Result<()> {
    let mut update = tx.prepare(
        "UPDATE executions SET awaits_instance = NULL, room = ?1 WHERE id = ?2 AND awaits_instance IS NOT NULL",
    )?;
    for id in ids {
        update.execute((executions::room(ExecutionStatus::Pending), id))?;
    }
    Ok(())
}

/// Lets up to `max` executions be claimed whose time for another attempt has come, the longest
/// waiting first. A claim leaves out executions that an order stops.
pub(crate) fn release_due(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<Released>> {
    let mut update = tx.prepare(
        "UPDATE executions SET status = ?3, retry_at_ms = NULL WHERE status = 'Scheduled' AND id IN (
             SELECT id FROM executions INDEXED BY executions_by_retry
             WHERE retry_at_ms <= ?1 ORDER BY retry_at_ms, id LIMIT ?2)
         RETURNING fire, instance, (SELECT f.priority FROM fires f WHERE f.id = fire), ?1",
    )?;
    let target = Cause::Released.target().as_str();
    let released = update.query_map((now_ms, max as i64, target), read_released)?;
    Ok(released.collect::<rusqlite::Result<_>>()?)
}

/// Does the same without an execution that is set aside. Each execution is released by itself, so that it is known which
/// one cannot be.
pub(crate) fn release_due_apart(
    tx: Tx<'_>,
    now_ms: i64,
    max: usize,
    aside: &Aside,
) -> Result<Vec<Released>> {
    let limit = max.saturating_add(aside.count()) as i64;
    let mut query = tx.prepare(
        "SELECT id FROM executions INDEXED BY executions_by_retry
         WHERE retry_at_ms <= ?1 ORDER BY retry_at_ms, id LIMIT ?2",
    )?;
    let due = query.query_map((now_ms, limit), |row| row.get(0))?;
    let due = due.collect::<rusqlite::Result<_>>()?;
    let mut update = tx.prepare(
        "UPDATE executions SET status = ?3, retry_at_ms = NULL WHERE status = 'Scheduled' AND id = ?1
         RETURNING fire, instance, (SELECT f.priority FROM fires f WHERE f.id = fire), ?2",
    )?;
    let target = Cause::Released.target().as_str();
    let mut released = Vec::new();
    for id in aside.others(due, max, Subject::Retry) {
        let subject = Subject::Retry(id);
        let one = apart(tx, || {
            let one = update.query_row((id, now_ms, target), read_released).optional()?;
            one.ok_or_else(|| {
                Error::Internal(format!("execution {} is not scheduled", ExecutionId(id)))
            })
        });
        match one {
            Err(error) => aside.refuse(tx, subject, subject.invoke_id(tx), error)?,
            Ok(one) => released.push(one),
        }
    }
    Ok(released)
}

/// When the next execution is tried again.
pub(crate) fn next_retry_ms(tx: Tx<'_>) -> Result<Option<i64>> {
    tx.one(
        // A time that is no number comes after all numbers, and never comes.
        "SELECT CAST(min(retry_at_ms) AS INTEGER) FROM executions INDEXED BY executions_by_retry
         WHERE retry_at_ms <= 9223372036854775807",
        (),
        |row| row.get(0),
    )
}

/// Lets the execution that waited for the end of this one be claimed.
pub(super) fn release(tx: Tx<'_>, ended: ExecutionId) -> Result<Option<Released>> {
    let Some(from) = stop::free_behind(tx, ended)? else { return Ok(None) };
    let released = tx.find(
        &format!(
            "UPDATE executions SET status = ?2 WHERE status = 'Scheduled' AND id = (
                 SELECT e.id FROM executions o JOIN fires f ON f.id = o.fire
                     CROSS JOIN fires wf INDEXED BY fires_unfinished_by_invocation
                     CROSS JOIN executions e INDEXED BY executions_by_fire
                 WHERE o.id = ?1 AND wf.invocation = f.invocation AND wf.unfinished > 0 AND wf.id >= ?3
                     AND e.fire = wf.id AND e.instance = o.instance AND e.status = 'Scheduled'
                     AND e.retry_at_ms IS NULL AND {NOT_STOPPED}
                 ORDER BY wf.id LIMIT 1)
             RETURNING fire, instance, (SELECT f.priority FROM fires f WHERE f.id = fire),
                 (SELECT coalesce(f.since_ms, f.dealt_at_ms) FROM fires f WHERE f.id = fire), id",
        ),
        (ended.0, Cause::Released.target().as_str(), from),
        |row| {
            Ok((read_released(row)?, ExecutionId(row.get(4)?)))
        },
    )?;
    let Some((released, id)) = released else { return Ok(None) };
    targets::note_standing(tx, id)?;
    Ok(Some(released))
}

fn read_released(row: &Row<'_>) -> rusqlite::Result<Released> {
    let standing = Standing { priority: row.get(2)?, since_ms: row.get(3)? };
    Ok(Released::Fire { fire: row.get(0)?, instance: Some(row.get(1)?), standing })
}

//! Stopping executions: what waits is cancelled, what runs is asked to end.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row};

use crate::error::{Error, Result, Violation};
use crate::execution::StopOrder;
use crate::id::{ExecutionId, InstanceId};
use crate::metrics::{Counted, tally};
use crate::status::{Cause, Ends, ExecutionStatus};

use super::claims::{EndedEarly, Released};
use super::executions::{self, Finished, FinishedInvocations, expect_one};
use super::invocations::{self, read_status};
use super::{Tx, commit_gate, targets, unreadable};

/// An execution that has not ended.
#[derive(Debug)]
pub(super) struct Unfinished {
    id: ExecutionId,
    fire: i64,
    pub instance: i64,
    pub attempt: u32,
    pub status: ExecutionStatus,
    instance_id: InstanceId,
}

const UNFINISHED: &str = "SELECT e.id, e.fire, e.instance, e.status, i.instance_id, e.attempt
    FROM fires f INDEXED BY fires_unfinished_by_invocation
        CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
        JOIN instances i ON i.id = e.instance";
const IS_SO: &str = "f.unfinished > 0 AND e.finished_at_ms IS NULL";

impl Unfinished {
    /// It as one that has ended before it started, if it has.
    pub(super) fn ended_early(&self) -> Option<EndedEarly> {
        let was_next = self.status == ExecutionStatus::Pending || self.attempt > 1;
        self.status.on(Cause::StopAskedEarly).map(|_| EndedEarly {
            id: self.id,
            instance: self.instance,
            instance_id: self.instance_id.clone(),
            was_next,
        })
    }

    /// Those of an invocation, in the order they were made.
    pub(super) fn of_invocation(tx: Tx<'_>, invocation: i64) -> Result<Vec<Self>> {
        Self::slice(tx, invocation, 0, &[], i64::MAX)
    }

    /// At most `max` of them, those after this one: on these instances, or on all if none is named.
    /// By their own order and not by that of their fires: another attempt of an old fire is new.
    fn slice(
        tx: Tx<'_>,
        invocation: i64,
        after: i64,
        only: &[InstanceId],
        max: i64,
    ) -> Result<Vec<Self>> {
        let only: Vec<&str> = only.iter().map(InstanceId::as_str).collect();
        let only = serde_json::to_string(&only).map_err(unreadable)?;
        let mut query = tx.prepare_cached(&format!(
            "{UNFINISHED} WHERE f.invocation = ?1 AND {IS_SO} AND e.id > ?2
                 AND (?3 = '[]' OR i.instance_id IN (SELECT value FROM json_each(?3)))
             ORDER BY e.id LIMIT ?4"
        ))?;
        let mut rows = query.query((invocation, after, only, max))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(Self::read(row)?);
        }
        Ok(found)
    }

    /// At most `max` of a fire; those are left out that are stopping.
    pub(super) fn of_fire(tx: Tx<'_>, fire: i64, max: i64) -> Result<Vec<Self>> {
        let mut query = tx.prepare_cached(
            "SELECT e.id, e.fire, e.instance, e.status, i.instance_id, e.attempt
             FROM executions e INDEXED BY executions_by_fire JOIN instances i ON i.id = e.instance
             WHERE e.fire = ?1 AND e.finished_at_ms IS NULL AND e.status <> 'Stopping'
             ORDER BY e.instance LIMIT ?2",
        )?;
        let mut rows = query.query((fire, max))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(Self::read(row)?);
        }
        Ok(found)
    }

    /// One of an invocation on each of these instances, where there is any: the oldest, which is
    /// found without looking at the others.
    pub(super) fn oldest_on(tx: Tx<'_>, invocation: i64, instances: &[i64]) -> Result<Vec<Self>> {
        Self::first_on(tx, invocation, instances, IS_SO)
    }

    /// One that waits on each of these instances, where there is any; not for another attempt, which
    /// goes on with what an earlier one has begun.
    pub(super) fn waiting_on(tx: Tx<'_>, invocation: i64, instances: &[i64]) -> Result<Vec<Self>> {
        let waits = format!("{IS_SO} AND e.attempt = 1 AND e.status IN ('Pending', 'Scheduled')");
        Self::first_on(tx, invocation, instances, &waits)
    }

    fn first_on(tx: Tx<'_>, invocation: i64, instances: &[i64], is_so: &str) -> Result<Vec<Self>> {
        let mut query = tx.prepare_cached(&format!(
            "{UNFINISHED} WHERE f.invocation = ?1 AND e.instance = ?2 AND {is_so} ORDER BY f.id LIMIT 1"
        ))?;
        let mut found = Vec::new();
        for instance in instances {
            if let Some(row) = query.query((invocation, instance))?.next()? {
                found.push(Self::read(row)?);
            }
        }
        Ok(found)
    }

    fn read(row: &Row<'_>) -> Result<Self> {
        Ok(Self {
            id: ExecutionId(row.get(0)?),
            fire: row.get(1)?,
            instance: row.get(2)?,
            status: read_status(row, 3)?,
            instance_id: row.get::<_, String>(4)?.into(),
            attempt: row.get(5)?,
        })
    }
}

/// What a stop found to do.
#[derive(Debug, Default)]
pub(crate) struct Stopped {
    /// Waited, and were not started in time.
    pub expired: Vec<(ExecutionId, InstanceId)>,
    /// Waited, and never will run.
    pub cancelled: Vec<(ExecutionId, InstanceId)>,
    /// Run, and are to be ended.
    pub stopping: Vec<(ExecutionId, InstanceId)>,
    pub finished: FinishedInvocations,
    /// What may be claimed now.
    pub released: Vec<Released>,
    /// Whether a wave has ended that another follows.
    pub wave_ended: bool,
    /// Where to go on, if there is more to stop than one commit takes.
    pub more_after: Option<i64>,
}

/// Executions that are stopped in one commit; others write in between.
const SLICE: usize = 4_096;

impl Stopped {
    /// Whether there was nothing to stop.
    pub(crate) fn is_empty(&self) -> bool {
        self.expired.is_empty()
            && self.cancelled.is_empty()
            && self.stopping.is_empty()
            && self.finished.is_empty()
    }
}

/// Stops executions, one after another.
pub(super) struct Stopping<'a> {
    now_ms: i64,
    order: &'a StopOrder,
    stopped: Stopped,
    /// How executions of each fire have ended by it.
    fires: BTreeMap<i64, Ends>,
}

impl<'a> Stopping<'a> {
    pub(super) fn new(now_ms: i64, order: &'a StopOrder) -> Self {
        Self { now_ms, order, stopped: Stopped::default(), fires: BTreeMap::new() }
    }

    pub(super) fn stop(&mut self, tx: Tx<'_>, one: &Unfinished) -> Result<()> {
        let entry = (one.id, one.instance_id.clone());
        if let Some(cancelled) = one.status.on(Cause::StopAskedEarly) {
            let changed = tx
                .prepare_cached(
                    "UPDATE executions SET status = ?2, stop_at_ms = ?3, finished_at_ms = ?3, error_info = ?5,
                         stop_cause = ?6, stopped_by = ?7, stop_reason = ?8, retry_at_ms = NULL,
                         awaits_instance = NULL, error_code = nullif(?9, ''), room = NULL
                     WHERE id = ?1 AND status = ?4",
                )?
                .execute((
                    one.id.0,
                    cancelled.as_str(),
                    self.now_ms,
                    one.status.as_str(),
                    self.order.cancelled(),
                    self.order.cause.as_str(),
                    &self.order.by,
                    &self.order.reason,
                    self.order.cause.code(),
                ))?;
            expect_one(changed, one.id)?;
            tally::count(Counted::Ended(cancelled), 1);
            self.stopped.cancelled.push(entry);
            self.fires.entry(one.fire).or_default().count(cancelled);
        } else if let Some(stopping) = one.status.on(Cause::StopAsked) {
            let changed = tx
                .prepare_cached(
                    "UPDATE executions SET status = ?2, stop_at_ms = ?3, stop_cause = ?5, stopped_by = ?6,
                         stop_reason = ?7
                     WHERE id = ?1 AND status = ?4",
                )?
                .execute((
                    one.id.0,
                    stopping.as_str(),
                    self.now_ms,
                    one.status.as_str(),
                    self.order.cause.as_str(),
                    &self.order.by,
                    &self.order.reason,
                ))?;
            expect_one(changed, one.id)?;
            commit_gate::note_stop();
            self.stopped.stopping.push(entry);
        } else if one.status == ExecutionStatus::Stopping {
            // Asked before; whoever asked may have been cut off before it came through.
            self.stopped.stopping.push(entry);
        }
        Ok(())
    }

    /// Counts what ended by it.
    pub(super) fn done(mut self, tx: Tx<'_>) -> Result<Stopped> {
        let mut finished = Finished::default();
        for (&fire, &ended) in &self.fires {
            executions::finish_fire(tx, fire, ended, self.now_ms, &mut finished)?;
        }
        self.stopped.wave_ended = finished.wave_ended;
        self.stopped.finished = finished.invocations;
        self.stopped.released.extend(finished.released);
        let called_off = finished.called_off.into_iter().flat_map(|(_, cancelled)| cancelled);
        self.stopped.cancelled.extend(called_off);
        Ok(self.stopped)
    }
}

/// Stops these executions.
pub(super) fn all(
    tx: Tx<'_>,
    slice: &[Unfinished],
    order: &StopOrder,
    now_ms: i64,
) -> Result<Stopped> {
    let mut stopping = Stopping::new(now_ms, order);
    slice.iter().try_for_each(|one| stopping.stop(tx, one))?;
    stopping.done(tx)
}

/// An execution that is about to end before it starts.
pub(super) fn read_early(row: &Row<'_>) -> rusqlite::Result<EndedEarly> {
    Ok(EndedEarly {
        id: ExecutionId(row.get(0)?),
        instance_id: row.get::<_, String>(1)?.into(),
        instance: row.get(2)?,
        was_next: row.get(3)?,
    })
}

/// Calls off what waits of a fire; what it was.
pub(super) fn cancel_waiting(
    tx: Tx<'_>,
    fire: i64,
    order: &StopOrder,
    now_ms: i64,
) -> Result<Vec<EndedEarly>> {
    const WAITING: &str = "e.fire = ?1 AND e.status IN ('Pending', 'Scheduled')";
    let cancelled: Vec<_> = tx
        .prepare_cached(&format!(
            "SELECT e.id, i.instance_id, e.instance, e.status = 'Pending' OR e.attempt > 1
             FROM executions e INDEXED BY executions_by_fire
                 JOIN instances i ON i.id = e.instance WHERE {WAITING} ORDER BY e.instance"
        ))?
        .query_map([fire], read_early)?
        .collect::<rusqlite::Result<_>>()?;
    let target = Cause::StopAskedEarly.target().as_str();
    let changed = tx
        .prepare_cached(&format!(
            "UPDATE executions AS e INDEXED BY executions_by_fire
             SET status = ?2, stop_at_ms = ?3, finished_at_ms = ?3, error_info = ?4, stop_cause = ?5,
                 error_code = nullif(?6, ''), stop_reason = ?7, retry_at_ms = NULL, awaits_instance = NULL,
                 room = NULL
             WHERE {WAITING}"
        ))?
        .execute((
            fire,
            target,
            now_ms,
            order.cancelled(),
            order.cause.as_str(),
            order.cause.code(),
            &order.reason,
        ))?;
    if changed == cancelled.len() {
        tally::count(Counted::Ended(Cause::StopAskedEarly.target()), changed);
        return Ok(cancelled);
    }
    Err(Error::Internal(format!("{changed} executions of fire {fire} were called off")))
}

/// Stops an invocation, on these instances or on all if none is named: a slice of its executions,
/// those after `after`.
pub(crate) fn invocation(
    tx: Tx<'_>,
    invocation: i64,
    only: &[InstanceId],
    after: i64,
    order: &StopOrder,
    now_ms: i64,
) -> Result<Stopped> {
    if after == 0 {
        for id in only {
            check_target(tx, invocation, id)?;
        }
    }
    // First, so that it ends with the last execution that is cancelled here.
    if only.is_empty() {
        invocations::note_stop(tx, invocation, order, now_ms)?;
        targets::end_all(tx, invocation)?;
    } else {
        targets::remove(tx, invocation, only)?;
    }
    let slice = Unfinished::slice(tx, invocation, after, only, SLICE as i64)?;
    let mut stopped = all(tx, &slice, order, now_ms)?;
    stopped.more_after = slice.last().filter(|_| slice.len() == SLICE).map(|last| last.id.0);
    stopped.finished.extend(invocations::finish_stopped(tx, invocation, now_ms)?);
    Ok(stopped)
}

fn check_target(tx: Tx<'_>, invocation: i64, id: &InstanceId) -> Result<()> {
    let is_target: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM fires f JOIN executions e ON e.fire = f.id
                 WHERE f.invocation = ?1 AND e.instance = i.id)
             OR EXISTS (SELECT 1 FROM targets t WHERE t.invocation = ?1 AND t.instance = i.id)
             FROM instances i WHERE i.instance_id = ?2",
        )?
        .query_row((invocation, id.as_str()), |row| row.get(0))
        .optional()?
        .unwrap_or_default();
    if is_target {
        return Ok(());
    }
    Err(Error::invalid(Violation::new(
        "InvalidInstance.NotFound",
        404,
        "InstanceId",
        format!("`{id}` is no target of this invocation"),
    )))
}

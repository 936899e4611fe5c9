//! Stops of executions: executions that wait are cancelled, executions that run are asked to end. If an order stops
//! more executions than one commit takes, the order stays in table `stops` until later commits have carried it out, a
//! slice in each. Meanwhile none of its executions starts.

use std::collections::{BTreeMap, HashSet};

use rusqlite::{OptionalExtension, Row};

use crate::error::{Error, Result, Violation};
use crate::execution::{START_DEADLINE_EXCEEDED, StopOrder, StopReason};
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::metrics::{Counted, tally};
use crate::panics::tell;
use crate::status::{Cause, Ends, ExecutionStatus};

use super::claims::{self, EndedEarly, Released};
use super::executions::{self, Finished, FinishedInvocations, expect_one};
use super::invocations::{self, read_status};
use super::{Tx, apart, commit_gate, parse, running, targets};

/// Executions that one commit ends; other writes come in between.
pub(crate) const SLICE: usize = 2_048;
/// Records that one commit looks at to find these executions.
const LOOKS: usize = 16_384;

/// The condition that no order keeps execution `e` from starting. If there is no order at all, the condition costs
/// one look.
pub(super) const NOT_STOPPED: &str = "(NOT EXISTS (SELECT 1 FROM stops) OR NOT EXISTS (
    SELECT 1 FROM stops s INDEXED BY stops_by_invocation
    WHERE s.invocation = (SELECT sf.invocation FROM fires sf WHERE sf.id = e.fire)
        AND (s.fire IS NULL OR s.fire = e.fire) AND e.id <= s.until
        AND (s.cause <> 'Expired' OR (e.attempt = 1 AND e.started_at_ms IS NULL))
        AND (s.is_partial = 0 OR EXISTS (
            SELECT 1 FROM stopped_instances si WHERE si.stop = s.id AND si.instance = e.instance))))";

/// Returns whether an order may keep executions of a fire from starting.
pub(super) fn may_hold(tx: Tx<'_>, fire: i64) -> Result<bool> {
    let may_hold = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM (SELECT 1 FROM stops LIMIT 1) CROSS JOIN fires f
                 CROSS JOIN stops s INDEXED BY stops_by_invocation ON s.invocation = f.invocation
                 WHERE f.id = ?1 AND (s.fire IS NULL OR s.fire = f.id))",
        )?
        .query_row([fire], |row| row.get(0))?;
    Ok(may_hold)
}

/// An execution that has not ended.
#[derive(Debug)]
pub(super) struct Unfinished {
    id: ExecutionId,
    fire: i64,
    pub instance: i64,
    pub attempt: u32,
    pub status: ExecutionStatus,
}

const UNFINISHED: &str = "SELECT e.id, e.fire, e.instance, e.status, e.attempt
    FROM fires f INDEXED BY fires_unfinished_by_invocation
        CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id";
const IS_SO: &str = "f.unfinished > 0 AND e.finished_at_ms IS NULL";

impl Unfinished {
    /// Returns the oldest execution of an invocation on each of these instances, if there is one,
    /// without a look at the others. Executions that are about to be cancelled do not count.
    pub(super) fn oldest_on(tx: Tx<'_>, invocation: i64, instances: &[i64]) -> Result<Vec<Self>> {
        let is_so = format!("{IS_SO} AND (e.status IN ('Running', 'Stopping') OR {NOT_STOPPED})");
        Self::first_on(tx, invocation, instances, &is_so)
    }

    /// One that waits on each of these instances, where there is any; not for another attempt, which
    /// goes on with what an earlier one has begun.
    pub(super) fn waiting_on(tx: Tx<'_>, invocation: i64, instances: &[i64]) -> Result<Vec<Self>> {
        let waits = format!(
            "{IS_SO} AND e.attempt = 1 AND e.status IN ('Pending', 'Scheduled') AND {NOT_STOPPED}"
        );
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
            attempt: row.get(4)?,
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
    /// The order, if it stops more executions than this commit took.
    pub left: Option<i64>,
}

impl Stopped {
    /// Whether there was nothing to stop.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
            && self.finished.is_empty()
            && self.released.is_empty()
            && self.left.is_none()
    }

    /// Returns the number of executions that were ended, or asked to end.
    pub(crate) fn count(&self) -> usize {
        self.expired.len() + self.cancelled.len() + self.stopping.len()
    }

    fn add(&mut self, other: Self) {
        let Self { expired, cancelled, stopping, finished, released, wave_ended, left } = other;
        self.expired.extend(expired);
        self.cancelled.extend(cancelled);
        self.stopping.extend(stopping);
        self.finished.extend(finished);
        self.released.extend(released);
        self.wave_ended |= wave_ended;
        self.left = self.left.or(left);
    }
}

/// How executions are to be ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    Stop(StopOrder),
    /// First attempts that wait are ended, because they were not started in time.
    Expiry,
}

/// How [`Ending::Expiry`] is stored.
const EXPIRED: &str = "Expired";

impl Ending {
    fn cause(&self) -> &'static str {
        match self {
            Self::Stop(order) => order.cause.as_str(),
            Self::Expiry => EXPIRED,
        }
    }

    /// Returns the order for watchers and for running executions.
    pub(crate) fn order(&self) -> StopOrder {
        match self {
            Self::Stop(order) => order.clone(),
            Self::Expiry => StopReason::Deadline.into(),
        }
    }

    /// Returns whether an order applies to an execution that has not ended.
    fn is_about(&self, one: &Unfinished) -> bool {
        let waits = one.status.on(Cause::StopAskedEarly).is_some();
        match self {
            Self::Expiry => waits && one.attempt == 1,
            Self::Stop(order) => match order.cause {
                StopReason::Errors | StopReason::Gate => waits,
                // An earlier stop may have been cut off before the executor got it.
                StopReason::Stopped => true,
                _ => one.status != ExecutionStatus::Stopping,
            },
        }
    }

    /// Returns whether executions that wait behind the stopped ones go on: those of later fires of the invocation.
    fn lets_go_on(&self) -> bool {
        match self {
            Self::Expiry => true,
            Self::Stop(order) => {
                matches!(order.cause, StopReason::Errors | StopReason::Gate | StopReason::Deadline)
            }
        }
    }
}

/// The executions to which an order applies.
#[derive(Debug)]
pub(super) struct Scope {
    pub invocation: i64,
    /// `None` for all fires.
    pub fire: Option<i64>,
    /// The last execution to which the order applies.
    pub until: i64,
    /// `None` for all instances.
    pub instances: Option<Vec<i64>>,
}

impl Scope {
    pub(super) fn of_fire(tx: Tx<'_>, fire: i64) -> Result<Self> {
        let invocation = tx
            .prepare_cached("SELECT invocation FROM fires WHERE id = ?1")?
            .query_row([fire], |row| row.get(0))?;
        Ok(Self { invocation, fire: Some(fire), until: i64::MAX, instances: None })
    }
}

/// The instances on which an order is carried out.
#[derive(Debug)]
enum Only {
    All,
    /// In order.
    These(Vec<i64>),
    /// The instances in `stopped_instances`.
    Stored,
}

/// An order that is being carried out.
#[derive(Debug)]
struct Stop {
    id: Option<i64>,
    invocation: i64,
    fire: Option<i64>,
    until: i64,
    only: Only,
    ending: Ending,
    at_ms: i64,
    /// The progress of the order: the fire, and the instance there.
    at_fire: i64,
    at_instance: i64,
    /// An execution cannot be ended.
    is_stuck: bool,
    has_more: bool,
}

/// Ends up to `max` of the executions in a scope now. If there are more, the order is stored, all that run are asked
/// to end in the same commit, and [`carry_on`] ends the others.
pub(super) fn order(
    tx: Tx<'_>,
    scope: Scope,
    ending: &Ending,
    now_ms: i64,
    max: usize,
) -> Result<Stopped> {
    let only = match scope.instances {
        None => Only::All,
        Some(mut these) => {
            these.sort_unstable();
            Only::These(these)
        }
    };
    let mut stop = Stop {
        id: None,
        invocation: scope.invocation,
        fire: scope.fire,
        until: scope.until,
        only,
        ending: ending.clone(),
        at_ms: now_ms,
        at_fire: scope.fire.unwrap_or_default(),
        at_instance: 0,
        is_stuck: false,
        has_more: true,
    };
    let mut stopped = stop.carry_out(tx, now_ms, max)?;
    if stop.has_more {
        stop.ask_what_runs(tx, now_ms, &mut stopped)?;
    }
    stopped.left = stop.store(tx)?.filter(|_| stop.has_more);
    Ok(stopped)
}

/// The part of an order that has been carried out.
#[derive(Debug)]
pub(crate) struct CarriedOn {
    pub stop: i64,
    pub invoke_id: InvokeId,
    pub order: StopOrder,
    pub stopped: Stopped,
    /// Whether more executions are to be stopped.
    pub has_more: bool,
}

/// Ends up to `max` executions more of the oldest order that is not carried out; none if there is no such
/// order.
pub(crate) fn carry_on(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Option<CarriedOn>> {
    let mut query = tx.prepare_cached(
        "SELECT s.id, s.invocation, s.fire, s.until, s.is_partial, s.cause, s.stopped_by, s.stop_reason,
             s.stop_at_ms, s.at_fire, s.at_instance, s.is_stuck, v.invoke_id
         FROM stops s INDEXED BY stops_unfinished JOIN invocations v ON v.id = s.invocation
         WHERE s.has_more = 1 AND s.id > 0 ORDER BY s.id LIMIT 1",
    )?;
    let Some((id, mut stop, invoke_id)) = query
        .query_row((), |row| Ok((row.get(0)?, Stop::read(row), InvokeId::from_bytes(row.get(12)?))))
        .optional()?
        .map(|(id, stop, invoke_id): (i64, Result<Stop>, _)| stop.map(|stop| (id, stop, invoke_id)))
        .transpose()?
    else {
        return Ok(None);
    };
    let stopped = stop.carry_out(tx, now_ms.max(stop.at_ms), max)?;
    stop.store(tx)?;
    let (order, has_more) = (stop.ending.order(), stop.has_more);
    Ok(Some(CarriedOn { stop: id, invoke_id, order, stopped, has_more }))
}

/// Gives up the order that [`carry_on`] would go on with, for it cannot be carried out. What it is about does not
/// start.
pub(crate) fn give_up(tx: Tx<'_>) -> Result<Option<i64>> {
    let given_up = tx
        .prepare_cached(
            "UPDATE stops SET has_more = 0, is_stuck = 1 WHERE id = (
                 SELECT id FROM stops INDEXED BY stops_unfinished WHERE has_more = 1 ORDER BY id LIMIT 1)
             RETURNING id",
        )?
        .query_row((), |row| row.get(0))
        .optional()?;
    Ok(given_up)
}

/// Whether there are orders that are not carried out.
pub(crate) fn any_left(tx: Tx<'_>) -> Result<bool> {
    let any = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM stops INDEXED BY stops_unfinished WHERE has_more = 1)",
        )?
        .query_row((), |row| row.get(0))?;
    Ok(any)
}

impl Stop {
    fn read(row: &Row<'_>) -> Result<Self> {
        let cause: String = row.get(5)?;
        let text = |column| Ok::<_, Error>(row.get::<_, Option<String>>(column)?.map(Into::into));
        let ending = match cause.as_str() {
            EXPIRED => Ending::Expiry,
            cause => {
                Ending::Stop(StopOrder { cause: parse(cause)?, by: text(6)?, reason: text(7)? })
            }
        };
        Ok(Self {
            id: row.get(0)?,
            invocation: row.get(1)?,
            fire: row.get(2)?,
            until: row.get(3)?,
            only: if row.get(4)? { Only::Stored } else { Only::All },
            ending,
            at_ms: row.get(8)?,
            at_fire: row.get(9)?,
            at_instance: row.get(10)?,
            is_stuck: row.get(11)?,
            has_more: true,
        })
    }

    /// Writes down how far it has come; its row, as long as it has one.
    fn store(&self, tx: Tx<'_>) -> Result<Option<i64>> {
        let stays = self.has_more || self.is_stuck;
        match (self.id, stays) {
            (None, false) => Ok(None),
            (None, true) => self.insert(tx).map(Some),
            (Some(id), false) => {
                tx.prepare_cached("DELETE FROM stops WHERE id = ?1")?.execute([id])?;
                Ok(None)
            }
            (Some(id), true) => {
                tx.prepare_cached(
                    "UPDATE stops SET at_fire = ?2, at_instance = ?3, is_stuck = ?4, has_more = ?5 WHERE id = ?1",
                )?
                .execute((id, self.at_fire, self.at_instance, self.is_stuck, self.has_more))?;
                Ok(Some(id))
            }
        }
    }

    fn insert(&self, tx: Tx<'_>) -> Result<i64> {
        let order = match &self.ending {
            Ending::Stop(order) => Some(order),
            Ending::Expiry => None,
        };
        tx.prepare_cached(
            "INSERT INTO stops (invocation, fire, until, is_partial, cause, stopped_by, stop_reason, stop_at_ms,
                 at_fire, at_instance, is_stuck, has_more)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute((
            self.invocation,
            self.fire,
            self.until,
            !matches!(self.only, Only::All),
            self.ending.cause(),
            order.and_then(|order| order.by.as_deref()),
            order.and_then(|order| order.reason.as_deref()),
            self.at_ms,
            self.at_fire,
            self.at_instance,
            self.is_stuck,
            self.has_more,
        ))?;
        let id = tx.last_insert_rowid();
        if let Only::These(instances) = &self.only {
            let mut insert = tx.prepare_cached(
                "INSERT INTO stopped_instances (stop, instance) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?;
            for instance in instances {
                insert.execute((id, instance))?;
            }
        }
        Ok(id)
    }

    /// Ends up to `max` of its executions. One whose record cannot be understood must not keep the others from
    /// being ended: it stays, and so does the order, which keeps it from starting.
    fn carry_out(&mut self, tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Stopped> {
        let found = self.look(tx, max)?;
        self.end_found(tx, found, now_ms)
    }

    /// Asks all of its executions that run to end, wherever in their fires they are: no execution may be polled once
    /// the order is on disk. There are no more of them than places.
    fn ask_what_runs(&mut self, tx: Tx<'_>, now_ms: i64, stopped: &mut Stopped) -> Result<()> {
        let asked: HashSet<_> = stopped.stopping.iter().map(|(id, _)| *id).collect();
        let mut query = tx.prepare_cached(
            "SELECT e.id, e.fire, e.instance, e.status, e.attempt, e.finished_at_ms IS NULL,
                 e.status IN ('Running', 'Stopping'), f.invocation
             FROM executions e CROSS JOIN fires f ON f.id = e.fire WHERE e.id = ?1",
        )?;
        let (mut found, mut idle) = (Vec::new(), Vec::new());
        for id in running::of(self.fire) {
            let mut rows = query.query([id.0])?;
            let Some(row) = rows.next()? else {
                idle.push(id);
                continue;
            };
            if !row.get::<_, bool>(6)? {
                idle.push(id);
                continue;
            }
            let is_meant = row.get::<_, i64>(7)? == self.invocation
                && match &self.only {
                    Only::These(these) => these.binary_search(&row.get(2)?).is_ok(),
                    Only::All | Only::Stored => true,
                };
            if is_meant && !asked.contains(&id) {
                self.take_in(row, &mut found)?;
            }
        }
        running::forget(idle);
        stopped.add(self.end_found(tx, found, now_ms)?);
        Ok(())
    }

    fn end_found(&mut self, tx: Tx<'_>, found: Vec<Unfinished>, now_ms: i64) -> Result<Stopped> {
        match apart(tx, || self.end(tx, &found, now_ms)) {
            Err(error) if error.is_of_a_record() => {}
            ended => return ended,
        }
        let mut stopped = Stopped::default();
        for one in found {
            match apart(tx, || self.end(tx, std::slice::from_ref(&one), now_ms)) {
                Err(error) if error.is_of_a_record() => self.pass_over(one.id, &error),
                ended => stopped.add(ended?),
            }
        }
        Ok(stopped)
    }

    fn pass_over(&mut self, id: ExecutionId, error: &Error) {
        tell(|| tracing::error!(%error, %id, "an execution cannot be stopped, and will not start"));
        self.is_stuck = true;
    }

    /// The next `max` executions that it is about; goes on to behind them.
    fn look(&mut self, tx: Tx<'_>, max: usize) -> Result<Vec<Unfinished>> {
        let mut found = Vec::new();
        let mut looks = LOOKS;
        while max > 0 && looks > 0 {
            let Some(fire) = self.next_fire(tx)? else {
                self.has_more = false;
                break;
            };
            if fire > self.at_fire {
                (self.at_fire, self.at_instance) = (fire, 0);
            }
            let is_through = match self.instances(tx, looks)? {
                None => self.look_at_all(tx, &mut found, max, &mut looks)?,
                Some(these) => self.look_at(tx, &these, &mut found, max, &mut looks)?,
            };
            looks = looks.saturating_sub(1);
            if !is_through {
                break;
            }
            (self.at_fire, self.at_instance) = (fire + 1, 0);
        }
        Ok(found)
    }

    /// Returns the next fire with executions that have not ended.
    fn next_fire(&self, tx: Tx<'_>) -> Result<Option<i64>> {
        let next = tx
            .prepare_cached(
                "SELECT id FROM fires INDEXED BY fires_unfinished_by_invocation
                 WHERE invocation = ?1 AND unfinished > 0 AND id >= ?2 ORDER BY id LIMIT 1",
            )?
            .query_row((self.invocation, self.at_fire), |row| row.get(0))
            .optional()?;
        Ok(next.filter(|next| self.fire.is_none_or(|fire| fire == *next)))
    }

    /// Returns the next instances of the order, one more than `max` if there are more; `None` if the order applies to
    /// all instances.
    fn instances(&self, tx: Tx<'_>, max: usize) -> Result<Option<Vec<i64>>> {
        match &self.only {
            Only::All => Ok(None),
            Only::These(these) => {
                let from = these.partition_point(|instance| *instance <= self.at_instance);
                Ok(Some(these[from..].iter().copied().take(max + 1).collect()))
            }
            Only::Stored => {
                let mut query = tx.prepare_cached(
                    "SELECT instance FROM stopped_instances WHERE stop = ?1 AND instance > ?2
                     ORDER BY instance LIMIT ?3",
                )?;
                let limit = max as i64 + 1;
                let these =
                    query.query_map((self.id, self.at_instance, limit), |row| row.get(0))?;
                Ok(Some(these.collect::<rusqlite::Result<_>>()?))
            }
        }
    }

    /// Looks at the executions of a fire; whether at the last of them.
    fn look_at_all(
        &mut self,
        tx: Tx<'_>,
        found: &mut Vec<Unfinished>,
        max: usize,
        looks: &mut usize,
    ) -> Result<bool> {
        let mut query = tx.prepare_cached(
            "SELECT e.id, e.fire, e.instance, e.status, e.attempt, e.finished_at_ms IS NULL
             FROM executions e INDEXED BY executions_by_fire
             WHERE e.fire = ?1 AND e.instance > ?2 ORDER BY e.instance, e.attempt",
        )?;
        let mut rows = query.query((self.at_fire, self.at_instance))?;
        while let Some(row) = rows.next()? {
            let instance: i64 = row.get(2)?;
            // Attempts on an instance are looked at together.
            if instance > self.at_instance && (found.len() >= max || *looks == 0) {
                return Ok(false);
            }
            self.at_instance = instance;
            *looks = looks.saturating_sub(1);
            self.take_in(row, found)?;
        }
        Ok(true)
    }

    /// As [`look_at_all`](Self::look_at_all), on these instances only.
    fn look_at(
        &mut self,
        tx: Tx<'_>,
        instances: &[i64],
        found: &mut Vec<Unfinished>,
        max: usize,
        looks: &mut usize,
    ) -> Result<bool> {
        let mut query = tx.prepare_cached(
            "SELECT e.id, e.fire, e.instance, e.status, e.attempt, e.finished_at_ms IS NULL
             FROM executions e INDEXED BY executions_by_fire
             WHERE e.fire = ?1 AND e.instance = ?2 ORDER BY e.attempt",
        )?;
        for &instance in instances {
            if found.len() >= max || *looks == 0 {
                return Ok(false);
            }
            self.at_instance = instance;
            *looks = looks.saturating_sub(1);
            let mut rows = query.query((self.at_fire, instance))?;
            while let Some(row) = rows.next()? {
                self.take_in(row, found)?;
            }
        }
        Ok(true)
    }

    fn take_in(&mut self, row: &Row<'_>, found: &mut Vec<Unfinished>) -> Result<()> {
        let id: i64 = row.get(0)?;
        if id > self.until || !row.get::<_, bool>(5)? {
            return Ok(());
        }
        match Unfinished::read(row) {
            Err(error) if error.is_of_a_record() => self.pass_over(ExecutionId(id), &error),
            one => found.extend(Some(one?).filter(|one| self.is_about(one))),
        }
        Ok(())
    }

    /// Returns whether the order applies to an execution that has not ended and that the first commit has not asked
    /// to end.
    fn is_about(&self, one: &Unfinished) -> bool {
        let is_asked = self.id.is_some() && one.status == ExecutionStatus::Stopping;
        !is_asked && self.ending.is_about(one)
    }

    /// Ends executions, and counts what ended by it.
    fn end(&self, tx: Tx<'_>, found: &[Unfinished], now_ms: i64) -> Result<Stopped> {
        let mut stopped = Stopped::default();
        let mut fires = BTreeMap::<i64, Ends>::new();
        let mut ended_early = BTreeMap::<i64, Vec<EndedEarly>>::new();
        for one in found {
            let entry = (one.id, name(tx, one.instance)?);
            match (&self.ending, one.status.on(Cause::StopAskedEarly)) {
                (Ending::Expiry, _) => {
                    expire(tx, one, now_ms)?;
                    fires.entry(one.fire).or_default().count(Cause::Expired.target());
                    stopped.expired.push(entry);
                }
                (Ending::Stop(order), Some(cancelled)) => {
                    self.cancel(tx, one, order, now_ms)?;
                    fires.entry(one.fire).or_default().count(cancelled);
                    stopped.cancelled.push(entry);
                }
                (Ending::Stop(order), None) => {
                    self.ask_to_end(tx, one, order)?;
                    stopped.stopping.push(entry);
                    continue;
                }
            }
            let was_next = one.status == ExecutionStatus::Pending || one.attempt > 1;
            let early = EndedEarly { id: one.id, was_next };
            ended_early.entry(one.fire).or_default().push(early);
        }
        if self.ending.lets_go_on() {
            for (&fire, ended) in &ended_early {
                stopped.released.extend(claims::release_behind(tx, fire, ended)?);
            }
        }
        let mut finished = Finished::default();
        // Of a fire that has been stopped as a whole no wave follows.
        let may_go_on = !matches!(self.only, Only::All) || matches!(self.ending, Ending::Expiry);
        for (&fire, &ended) in &fires {
            executions::finish_fire(tx, fire, ended, now_ms, may_go_on, &mut finished)?;
        }
        stopped.wave_ended = finished.wave_ended;
        stopped.finished = finished.invocations;
        stopped.released.extend(finished.released);
        let called_off = finished.called_off.into_iter().flat_map(|(_, cancelled)| cancelled);
        stopped.cancelled.extend(called_off);
        Ok(stopped)
    }

    fn cancel(&self, tx: Tx<'_>, one: &Unfinished, order: &StopOrder, now_ms: i64) -> Result<()> {
        let cancelled = Cause::StopAskedEarly.target();
        let changed = tx
            .prepare_cached(
                "UPDATE executions SET status = ?2, stop_at_ms = ?3, finished_at_ms = ?10, error_info = ?5,
                     stop_cause = ?6, stopped_by = ?7, stop_reason = ?8, retry_at_ms = NULL,
                     awaits_instance = NULL, error_code = nullif(?9, ''), room = NULL
                 WHERE id = ?1 AND status = ?4",
            )?
            .execute((
                one.id.0,
                cancelled.as_str(),
                self.at_ms,
                one.status.as_str(),
                order.cancelled().text(),
                order.cause.as_str(),
                &order.by,
                &order.reason,
                order.cause.code(),
                now_ms,
            ))?;
        expect_one(changed, one.id)?;
        tally::count(Counted::Ended(cancelled), 1);
        if one.status == ExecutionStatus::Scheduled && one.attempt == 1 {
            targets::note_standing(tx, one.id)?;
        }
        Ok(())
    }

    /// Records that a running execution is to end. The recorded stop is never before the start, whatever has happened
    /// to the clock.
    fn ask_to_end(&self, tx: Tx<'_>, one: &Unfinished, order: &StopOrder) -> Result<()> {
        let Some(stopping) = one.status.on(Cause::StopAsked) else { return Ok(()) };
        commit_gate::note_stop();
        let changed = tx
            .prepare_cached(
                "UPDATE executions SET status = ?2, stop_at_ms = max(?3, started_at_ms), stop_cause = ?5,
                     stopped_by = ?6, stop_reason = ?7
                 WHERE id = ?1 AND status = ?4",
            )?
            .execute((
                one.id.0,
                stopping.as_str(),
                self.at_ms,
                one.status.as_str(),
                order.cause.as_str(),
                &order.by,
                &order.reason,
            ))?;
        expect_one(changed, one.id)
    }
}

/// Records that an execution was not started in time.
fn expire(tx: Tx<'_>, one: &Unfinished, now_ms: i64) -> Result<()> {
    let target = Cause::Expired.target();
    let changed = tx
        .prepare_cached(
            "UPDATE executions SET status = ?2, finished_at_ms = ?3, error_code = ?4, awaits_instance = NULL,
                 room = NULL, error_info = 'it had not started when its start deadline was over'
             WHERE id = ?1 AND status = ?5",
        )?
        .execute((one.id.0, target.as_str(), now_ms, START_DEADLINE_EXCEEDED, one.status.as_str()))?;
    expect_one(changed, one.id)?;
    tally::count(Counted::Ended(target), 1);
    tally::count(Counted::Expired, 1);
    Ok(())
}

fn name(tx: Tx<'_>, instance: i64) -> Result<InstanceId> {
    let name: String = tx
        .prepare_cached("SELECT instance_id FROM instances WHERE id = ?1")?
        .query_row([instance], |row| row.get(0))?;
    Ok(name.into())
}

/// Stops up to `max` executions of an invocation now, on these instances, or on all if none is named. If a stop of
/// the whole invocation is under way already, that stop goes on.
pub(crate) fn invocation(
    tx: Tx<'_>,
    invocation: i64,
    only: &[InstanceId],
    order: &StopOrder,
    now_ms: i64,
    max: usize,
) -> Result<Stopped> {
    let mut rows = Vec::with_capacity(only.len());
    for id in only {
        rows.push(target_row(tx, invocation, id)?);
    }
    // First, so that it ends with the last execution that is cancelled here.
    if only.is_empty() {
        invocations::note_stop(tx, invocation, order, now_ms)?;
        targets::end_all(tx, invocation)?;
    } else {
        targets::remove(tx, invocation, only)?;
    }
    let under_way = tx
        .prepare_cached(
            "SELECT id FROM stops INDEXED BY stops_by_invocation WHERE invocation = ?1 AND fire IS NULL
                 AND is_partial = 0 AND has_more = 1 LIMIT 1",
        )?
        .query_row([invocation], |row| row.get(0))
        .optional()?;
    if under_way.is_some() {
        return Ok(Stopped { left: under_way, ..Stopped::default() });
    }
    let instances = (!only.is_empty()).then_some(rows);
    let scope = Scope { invocation, fire: None, until: i64::MAX, instances };
    let ending = Ending::Stop(order.clone());
    let mut stopped = self::order(tx, scope, &ending, now_ms, max)?;
    stopped.finished.extend(invocations::finish_stopped(tx, invocation, now_ms)?);
    Ok(stopped)
}

/// Returns the row of an instance that is a target of an invocation.
fn target_row(tx: Tx<'_>, invocation: i64, id: &InstanceId) -> Result<i64> {
    let found: Option<(i64, bool)> = tx
        .prepare_cached(
            "SELECT i.id, EXISTS (SELECT 1 FROM targets t WHERE t.invocation = ?1 AND t.instance = i.id)
             OR EXISTS (SELECT 1 FROM executions e INDEXED BY executions_by_fire
                 WHERE e.fire = (SELECT min(f.id) FROM fires f WHERE f.invocation = ?1) AND e.instance = i.id)
             FROM instances i WHERE i.instance_id = ?2",
        )?
        .query_row((invocation, id.as_str()), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((row, true)) = found {
        return Ok(row);
    }
    Err(Error::invalid(Violation::new(
        "InvalidInstance.NotFound",
        404,
        "InstanceId",
        format!("`{id}` is no target of this invocation"),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::claims::Claim;
    use crate::store::plans::{Database, INSTANCES, STANDING};

    /// A fire has executions on three instances. The execution on the last instance runs, and each commit stops one
    /// execution.
    #[test]
    fn the_first_commit_of_an_order_asks_all_running_executions_to_end() {
        let check = |cause: StopReason, only: &[InstanceId], stopping: usize, slices: usize| {
            let database = Database::with_one_fire();
            let (tx, fire) = (&database.connection, database.fire);
            let claim = Claim {
                fire,
                after: 2,
                until: i64::MAX,
                max: 1,
                has_waves: false,
                is_late: false,
                standing: STANDING,
                now_ms: 0,
            };
            let claimed = claims::claim(tx, &claim, |_| true).expect("readable").claimed;
            assert_eq!(claimed.len(), 1);
            let order = StopOrder::from(cause);
            let stopped =
                invocation(tx, database.invocation, only, &order, 0, 1).expect("readable");
            let told: Vec<_> = stopped.stopping.iter().map(|(id, _)| *id).collect();
            let running: Vec<_> = claimed.iter().map(|one| one.id).take(stopping).collect();
            assert_eq!((told, stopped.cancelled.len()), (running, 1), "{cause:?} on {only:?}");
            let status: String = tx
                .query_row(
                    "SELECT status FROM executions WHERE id = ?1",
                    [claimed[0].id.0],
                    |row| row.get(0),
                )
                .expect("it is stored");
            assert_eq!(status, if stopping == 1 { "Stopping" } else { "Running" });
            // The later slices report no execution twice.
            let mut cancelled = 1;
            while let Some(carried_on) = carry_on(tx, 0, 1).expect("readable") {
                assert_eq!(carried_on.stopped.stopping.len(), 0, "{cause:?} on {only:?}");
                cancelled += carried_on.stopped.cancelled.len();
            }
            assert_eq!(cancelled, slices, "{cause:?} on {only:?}");
        };
        let on =
            |names: &[&str]| names.iter().map(|name| InstanceId::from(*name)).collect::<Vec<_>>();
        check(StopReason::Stopped, &[], 1, 2);
        check(StopReason::Deadline, &[], 1, 2);
        check(StopReason::Errors, &[], 0, 2);
        check(StopReason::Stopped, &on(&INSTANCES), 1, 2);
        check(StopReason::Stopped, &on(&INSTANCES[..2]), 0, 2);
        check(StopReason::Stopped, &on(&[INSTANCES[0], INSTANCES[2]]), 1, 1);
    }
}

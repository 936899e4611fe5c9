//! Stops of executions: executions that wait are cancelled, executions that run are asked to end. If an order stops
//! more executions than one commit takes, the order stays in table `stops` until later commits have carried it out, a
//! slice in each. Meanwhile none of its executions starts.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row};

use crate::error::{Error, Result, StorageErrorKind, Violation};
use crate::execution::{START_DEADLINE_EXCEEDED, StopOrder, StopReason};
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::metrics::Counted;
use crate::panics::tell;
use crate::status::{Cause, Ends, ExecutionStatus};

use super::aside::{Aside, Subject};
use super::claims::{self, EndedEarly, Released};
use super::executions::{self, Finished, FinishedInvocations, expect_one};
use super::invocations::{self, read_status};
use super::{Tx, apart, parse, storage, targets};

/// The number of executions that one commit ends; other writes come between two such commits.
pub(crate) const SLICE: usize = 2_048;
/// The number of records that one commit looks at to find these executions.
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
    tx.one(
        "SELECT EXISTS (SELECT 1 FROM (SELECT 1 FROM stops LIMIT 1) CROSS JOIN fires f
         CROSS JOIN stops s INDEXED BY stops_by_invocation ON s.invocation = f.invocation
         WHERE f.id = ?1 AND (s.fire IS NULL OR s.fire = f.id))",
        [fire],
        |row| row.get(0),
    )
}

/// Returns the first fire of an invocation of which an execution on an instance may not be held by an order about all
/// of its fires; none if all of them are held. So nobody looks at one fire after another that is about to be stopped.
fn free_from(tx: Tx<'_>, invocation: i64, instance: i64) -> Result<Option<i64>> {
    let until: Option<i64> = tx.one(
        "SELECT max(s.until) FROM stops s INDEXED BY stops_by_invocation
         WHERE s.invocation = ?1 AND s.fire IS NULL AND s.cause <> 'Expired'
             AND (s.is_partial = 0 OR EXISTS (
                 SELECT 1 FROM stopped_instances si WHERE si.stop = s.id AND si.instance = ?2))",
        (invocation, instance),
        |row| row.get(0),
    )?;
    match until {
        None => Ok(Some(0)),
        Some(i64::MAX) => Ok(None),
        Some(until) => {
            let fire = tx.find(
                "SELECT fire FROM executions WHERE id <= ?1 ORDER BY id DESC LIMIT 1",
                [until],
                |row| row.get(0),
            )?;
            Ok(Some(fire.unwrap_or_default()))
        }
    }
}

/// Returns the first fire of which an execution behind this one, on its instance, may be released; none if all such
/// executions are held.
pub(super) fn free_behind(tx: Tx<'_>, ended: ExecutionId) -> Result<Option<i64>> {
    if !any(tx)? {
        return Ok(Some(0));
    }
    let of = tx.find(
        "SELECT f.invocation, e.instance FROM executions e JOIN fires f ON f.id = e.fire WHERE e.id = ?1",
        [ended.0],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    match of {
        None => Ok(None),
        Some((invocation, instance)) => free_from(tx, invocation, instance),
    }
}

/// Returns whether there is any order.
fn any(tx: Tx<'_>) -> Result<bool> {
    tx.one("SELECT EXISTS (SELECT 1 FROM stops)", (), |row| row.get(0))
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
        if !any(tx)? {
            return Self::first_on(tx, invocation, instances, IS_SO);
        }
        // An execution that runs is the oldest on its instance, because the others wait for it. So no execution runs
        // behind one that waits and is held.
        let is_so = format!("{IS_SO} AND (e.status IN ('Running', 'Stopping') OR {NOT_STOPPED})");
        let mut found = Vec::new();
        for &instance in instances {
            let oldest = Self::first_on(tx, invocation, &[instance], IS_SO)?;
            let Some(oldest) = oldest.into_iter().next() else { continue };
            if matches!(oldest.status, ExecutionStatus::Running | ExecutionStatus::Stopping) {
                found.push(oldest);
            } else if let Some(from) = free_from(tx, invocation, instance)? {
                let of = (invocation, instance, from.max(oldest.fire));
                found.extend(Self::first_from(tx, of, &is_so)?);
            }
        }
        Ok(found)
    }

    /// One that waits on each of these instances, where there is any; not for another attempt, which
    /// goes on with what an earlier one has begun.
    pub(super) fn waiting_on(tx: Tx<'_>, invocation: i64, instances: &[i64]) -> Result<Vec<Self>> {
        let waits = format!(
            "{IS_SO} AND e.attempt = 1 AND e.status IN ('Pending', 'Scheduled') AND {NOT_STOPPED}"
        );
        if !any(tx)? {
            return Self::first_on(tx, invocation, instances, &waits);
        }
        let mut found = Vec::new();
        for &instance in instances {
            if let Some(from) = free_from(tx, invocation, instance)? {
                found.extend(Self::first_from(tx, (invocation, instance, from), &waits)?);
            }
        }
        Ok(found)
    }

    fn first_on(tx: Tx<'_>, invocation: i64, instances: &[i64], is_so: &str) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for &instance in instances {
            found.extend(Self::first_from(tx, (invocation, instance, 0), is_so)?);
        }
        Ok(found)
    }

    fn first_from(
        tx: Tx<'_>,
        (invocation, instance, from): (i64, i64, i64),
        is_so: &str,
    ) -> Result<Option<Self>> {
        let mut query = tx.prepare(&format!(
            "{UNFINISHED} WHERE f.invocation = ?1 AND e.instance = ?2 AND f.id >= ?3 AND {is_so}
             ORDER BY f.id LIMIT 1"
        ))?;
        let mut rows = query.query((invocation, instance, from))?;
        rows.next()?.map(Self::read).transpose()
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
    /// The order to go on with, if the order stops more executions than this commit took.
    pub left: Option<i64>,
    /// Whether another order that follows from this one has more to stop.
    pub more_to_stop: bool,
    /// The error that keeps the end of the invocation from being recorded: executions have ended, and their fire
    /// cannot be told.
    pub uncounted: Option<Error>,
    /// The error about executions that could not be stopped, once the order has come to its end.
    pub unstopped: Option<Error>,
}

impl Stopped {
    /// Whether there was nothing to stop.
    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
            && self.finished.is_empty()
            && self.released.is_empty()
            && self.left.is_none()
            && !self.more_to_stop
            && self.uncounted.is_none()
            && self.unstopped.is_none()
    }

    /// Returns the number of executions that were ended, or asked to end.
    pub(crate) fn count(&self) -> usize {
        self.expired.len() + self.cancelled.len() + self.stopping.len()
    }

    /// Adds the effects of the ends of executions.
    fn take_in(&mut self, finished: Finished) {
        let Finished {
            invocations, released, called_off, more_to_stop, wave_ended, uncounted, ..
        } = finished;
        self.finished.extend(invocations);
        self.released.extend(released);
        self.cancelled.extend(called_off.into_iter().flat_map(|(_, cancelled)| cancelled));
        self.more_to_stop |= more_to_stop;
        self.wave_ended |= wave_ended;
        let uncounted = uncounted.into_iter().map(|(_, error)| error).next();
        self.uncounted = self.uncounted.take().or(uncounted);
    }

    fn add(&mut self, other: Self) {
        let Self {
            expired,
            cancelled,
            stopping,
            finished,
            released,
            wave_ended,
            left,
            more_to_stop,
            uncounted,
            unstopped,
        } = other;
        self.expired.extend(expired);
        self.cancelled.extend(cancelled);
        self.stopping.extend(stopping);
        self.finished.extend(finished);
        self.released.extend(released);
        self.wave_ended |= wave_ended;
        self.left = self.left.or(left);
        self.more_to_stop |= more_to_stop;
        self.uncounted = self.uncounted.take().or(uncounted);
        self.unstopped = self.unstopped.take().or(unstopped);
    }
}

/// The way in which executions are to be ended.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    Stop(StopOrder),
    /// First attempts that wait are ended, because they were not started in time.
    Expiry,
    /// Executions that wait cannot start because of a record: the code of the error, and the message for their ends.
    Unstartable {
        code: Arc<str>,
        info: Arc<str>,
    },
}

/// The stored form of [`Ending::Expiry`].
const EXPIRED: &str = "Expired";
/// The stored form of [`Ending::Unstartable`].
const UNREADABLE: &str = "Unreadable";

impl Ending {
    fn cause(&self) -> &'static str {
        match self {
            Self::Stop(order) => order.cause.as_str(),
            Self::Expiry => EXPIRED,
            Self::Unstartable { .. } => UNREADABLE,
        }
    }

    /// Returns the order for watchers and for running executions.
    pub(crate) fn order(&self) -> StopOrder {
        match self {
            Self::Stop(order) => order.clone(),
            // Neither ending applies to executions that run.
            Self::Expiry | Self::Unstartable { .. } => StopReason::Deadline.into(),
        }
    }

    /// Returns whether an order applies to an execution that has not ended.
    fn is_about(&self, one: &Unfinished) -> bool {
        let waits = one.status.on(Cause::StopAskedEarly).is_some();
        match self {
            Self::Expiry => waits && one.attempt == 1,
            Self::Unstartable { .. } => waits,
            Self::Stop(order) => match order.cause {
                StopReason::Errors | StopReason::Gate => waits,
                // An earlier stop may have been cut off before the executor got it.
                StopReason::Stopped => true,
                _ => one.status != ExecutionStatus::Stopping,
            },
        }
    }

    /// Returns whether executions of later fires of the invocation, which wait behind the stopped executions, go on.
    fn lets_go_on(&self) -> bool {
        match self {
            Self::Expiry | Self::Unstartable { .. } => true,
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
        let invocation =
            tx.one("SELECT invocation FROM fires WHERE id = ?1", [fire], |row| row.get(0))?;
        Ok(Self { invocation, fire: Some(fire), until: i64::MAX, instances: None })
    }
}

/// The instances on which an order is carried out.
#[derive(Debug)]
enum Only {
    All,
    /// The instances in ascending order.
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
    /// The number of executions that could not be ended.
    unstopped: u64,
    /// The reason for the first of them, or the part of the order itself that cannot be read.
    why: Option<String>,
    has_more: bool,
}

/// The executions that a slice of an order is about.
#[derive(Debug, Default)]
struct FoundExecutions {
    readable: Vec<Unfinished>,
    /// Executions that cannot be read, each with its fire and the error.
    unreadable: Vec<(ExecutionId, i64, Error)>,
}

impl FoundExecutions {
    fn count(&self) -> usize {
        self.readable.len() + self.unreadable.len()
    }
}

/// Ends executions in a scope now, as many as are `left` to this commit, and takes them off. If there are more, the
/// order is stored, all that run are asked to end in the same commit, and [`carry_on`] ends the others.
pub(super) fn order(
    tx: Tx<'_>,
    scope: Scope,
    ending: &Ending,
    now_ms: i64,
    left: &mut usize,
) -> Result<Stopped> {
    order_beside(tx, scope, ending, now_ms, left, &Aside::default())
}

/// Works like [`order`], and passes over executions that are set aside.
fn order_beside(
    tx: Tx<'_>,
    scope: Scope,
    ending: &Ending,
    now_ms: i64,
    left: &mut usize,
    aside: &Aside,
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
        unstopped: 0,
        why: None,
        has_more: true,
    };
    let mut stopped = stop.carry_out(tx, now_ms, left, aside)?;
    if stop.has_more {
        stop.ask_what_runs(tx, now_ms, &mut stopped, left, aside)?;
    }
    match stop.has_more {
        true => stopped.left = Some(stop.insert(tx)?),
        false => stopped.unstopped = stop.what_is_left(),
    }
    Ok(stopped)
}

/// The part of an order that has been carried out.
#[derive(Debug)]
pub(crate) struct CarriedOn {
    pub stop: i64,
    /// `None` if the invocation cannot be read.
    pub invoke_id: Option<InvokeId>,
    pub order: StopOrder,
    pub stopped: Stopped,
    /// Whether more executions are to be stopped.
    pub has_more: bool,
}

/// Returns up to `max` orders that are not carried out, the oldest first.
pub(crate) fn unfinished(tx: Tx<'_>, max: usize) -> Result<Vec<i64>> {
    let mut query = tx.prepare("SELECT id FROM stops WHERE id > 0 ORDER BY id LIMIT ?1")?;
    let orders = query.query_map([max as i64], |row| row.get(0))?;
    Ok(orders.collect::<rusqlite::Result<_>>()?)
}

/// Ends executions more of an order, as many as are `left` to this commit, and takes them off. An order that cannot
/// be read is carried out as far as possible; the other executions are then reported as not stopped.
pub(crate) fn carry_on(
    tx: Tx<'_>,
    order: i64,
    now_ms: i64,
    left: &mut usize,
    aside: &Aside,
) -> Result<CarriedOn> {
    let mut query = tx.prepare(
        "SELECT s.id, s.invocation, s.fire, s.until, s.is_partial, s.cause, s.stopped_by, s.stop_reason,
             s.stop_at_ms, s.at_fire, s.at_instance, s.unstopped, s.unstopped_why, s.error_code, v.invoke_id
         FROM stops s LEFT JOIN invocations v ON v.id = s.invocation WHERE s.id = ?1",
    )?;
    let mut rows = query.query([order])?;
    let row = rows.next()?.ok_or_else(|| Error::Internal(format!("order {order} is gone")))?;
    let invoke_id = row.get(14).ok().map(InvokeId::from_bytes);
    let read = Stop::read(tx, row, now_ms);
    drop(rows);
    let (mut stop, is_sound) = match read {
        Err(error) if error.is_of_a_record() => {
            // Nobody can tell which executions the order is about.
            tell(|| tracing::error!(%error, order, "an order to stop is given up"));
            delete(tx, order)?;
            let why = format!("the order to stop cannot be read, and has been given up: {error}");
            let unstopped = Some(storage(StorageErrorKind::Corrupt, why));
            let stopped = Stopped { unstopped, ..Stopped::default() };
            let order_told = StopReason::Stopped.into();
            let has_more = false;
            return Ok(CarriedOn { stop: order, invoke_id, order: order_told, stopped, has_more });
        }
        read => read?,
    };
    if !is_sound {
        tell(|| {
            tracing::error!(
                why = stop.why,
                order,
                "an order to stop cannot be read, and is carried out as far as it can be"
            );
        });
    }
    let mut stopped = stop.carry_out(tx, now_ms.max(stop.at_ms), left, aside)?;
    let has_more = stop.has_more;
    match stop.store(tx, order) {
        // Executions that the order has ended stay ended. After a while the order goes on from the place where it
        // began this time.
        Err(error) if error.is_of_a_record() && has_more => {
            let subject = Subject::Stop(order);
            aside.refuse(tx, subject, subject.invoke_id(tx), error)?;
        }
        stored => stored?,
    }
    if !has_more {
        stopped.unstopped = stop.what_is_left();
    }
    Ok(CarriedOn { stop: order, invoke_id, order: stop.ending.order(), stopped, has_more })
}

/// Returns whether the executions in a scope are being ended already because they cannot start.
pub(super) fn is_aborting(tx: Tx<'_>, scope: &Scope) -> Result<bool> {
    tx.one(
        "SELECT EXISTS (SELECT 1 FROM stops INDEXED BY stops_by_invocation
         WHERE invocation = ?1 AND fire = ?2 AND is_partial = 0 AND cause = ?3)",
        (scope.invocation, scope.fire, UNREADABLE),
        |row| row.get(0),
    )
}

fn delete(tx: Tx<'_>, order: i64) -> Result<()> {
    tx.execute("DELETE FROM stops WHERE id = ?1", [order])?;
    Ok(())
}

impl Stop {
    /// Reads an order. Returns also whether all of it could be read: parts that cannot be read and are not needed are
    /// left out.
    fn read(tx: Tx<'_>, row: &Row<'_>, now_ms: i64) -> Result<(Self, bool)> {
        let (id, invocation, fire): (i64, i64, Option<i64>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let mut wrong = None;
        let mut text = |column| {
            let text = row.get::<_, Option<Arc<str>>>(column);
            text.unwrap_or_else(|error| {
                wrong.get_or_insert(Error::from(error));
                None
            })
        };
        let (by, reason, code, why) = (text(6), text(7), text(13), text(12));
        let mut number = |column, otherwise| {
            row.get(column).unwrap_or_else(|error| {
                wrong.get_or_insert(Error::from(error));
                otherwise
            })
        };
        let (at_ms, at_fire) = (number(8, now_ms), number(9, fire.unwrap_or_default()));
        let (at_instance, unstopped) = (number(10, 0), number(11, 0));
        let cause = row.get::<_, String>(5).map_err(Error::from);
        let ending = cause.and_then(|cause| match cause.as_str() {
            EXPIRED => Ok(Ending::Expiry),
            UNREADABLE => Ok(Ending::Unstartable {
                code: code.unwrap_or_default(),
                info: reason.clone().unwrap_or_default(),
            }),
            cause => Ok(Ending::Stop(StopOrder {
                cause: parse(cause)?,
                by: by.clone(),
                reason: reason.clone(),
            })),
        });
        let ending = ending.unwrap_or_else(|error| {
            wrong.get_or_insert(error);
            // An order about one fire may apply to waiting executions only; an order about all fires comes from a
            // request or from a replacement.
            let cause = if fire.is_some() { StopReason::Errors } else { StopReason::Stopped };
            Ending::Stop(StopOrder { cause, by, reason })
        });
        let is_partial = match row.get(4) {
            Ok(is_partial) => is_partial,
            Err(error) => {
                wrong.get_or_insert(error.into());
                tx.one(
                    "SELECT EXISTS (SELECT 1 FROM stopped_instances WHERE stop = ?1)",
                    [id],
                    |row| row.get(0),
                )?
            }
        };
        let until = match row.get(3) {
            Ok(until) => until,
            // The order must not reach executions that came after it.
            Err(error) if is_partial && fire.is_none() => return Err(error.into()),
            Err(error) => {
                wrong.get_or_insert(error.into());
                i64::MAX
            }
        };
        let is_sound = wrong.is_none();
        let unread = wrong.map(|error| format!("the order to stop cannot be read whole: {error}"));
        let stop = Self {
            id: Some(id),
            invocation,
            fire,
            until,
            only: if is_partial { Only::Stored } else { Only::All },
            ending,
            at_ms,
            at_fire,
            at_instance,
            unstopped: unstopped.max(0).unsigned_abs(),
            why: why.map(|why| why.to_string()).or(unread),
            has_more: true,
        };
        Ok((stop, is_sound))
    }

    /// Returns an error that says which executions the order could not stop.
    fn what_is_left(&self) -> Option<Error> {
        let why = self.why.as_ref()?;
        let message = match self.unstopped {
            0 => why.clone(),
            1 => format!("an execution could not be stopped: {why}"),
            count => format!("{count} executions could not be stopped, the first of them: {why}"),
        };
        Some(storage(StorageErrorKind::Corrupt, message))
    }

    /// Stores the progress of the order. The row stays until the order is carried out.
    fn store(&self, tx: Tx<'_>, order: i64) -> Result<()> {
        if !self.has_more {
            return delete(tx, order);
        }
        let update = || {
            tx.execute(
                "UPDATE stops SET at_fire = ?2, at_instance = ?3, unstopped = ?4, unstopped_why = ?5
                 WHERE id = ?1",
                (order, self.at_fire, self.at_instance, self.unstopped, &self.why),
            )?;
            Ok(())
        };
        match apart(tx, update) {
            // The row cannot be changed, perhaps because a part of it cannot be read.
            Err(error) if error.is_of_a_record() => apart(tx, || self.replace(tx, order)),
            stored => stored,
        }
    }

    /// Stores an order that cannot be read in full anew, under its number.
    fn replace(&self, tx: Tx<'_>, order: i64) -> Result<()> {
        let instances = match self.only {
            Only::All => Vec::new(),
            _ => {
                let mut query =
                    tx.prepare("SELECT instance FROM stopped_instances WHERE stop = ?1")?;
                let these = query.query_map([order], |row| row.get(0))?;
                these.collect::<rusqlite::Result<Vec<i64>>>()?
            }
        };
        delete(tx, order)?;
        self.insert_row(tx, &instances).map(drop)
    }

    fn insert(&self, tx: Tx<'_>) -> Result<i64> {
        match &self.only {
            Only::These(instances) => self.insert_row(tx, instances),
            Only::All | Only::Stored => self.insert_row(tx, &[]),
        }
    }

    fn insert_row(&self, tx: Tx<'_>, instances: &[i64]) -> Result<i64> {
        let order = match &self.ending {
            Ending::Stop(order) => Some(order),
            Ending::Expiry | Ending::Unstartable { .. } => None,
        };
        let (code, info) = match &self.ending {
            Ending::Unstartable { code, info } => (Some(code), Some(info)),
            _ => (None, order.and_then(|order| order.reason.as_ref())),
        };
        tx.execute(
            "INSERT INTO stops (id, invocation, fire, until, is_partial, cause, stopped_by, stop_reason, stop_at_ms,
                 at_fire, at_instance, unstopped, unstopped_why, error_code)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            (
                self.id,
                self.invocation,
                self.fire,
                self.until,
                !matches!(self.only, Only::All),
                self.ending.cause(),
                order.and_then(|order| order.by.as_deref()),
                info.map(|info| &**info),
                self.at_ms,
                self.at_fire,
                self.at_instance,
                self.unstopped,
                &self.why,
                code.map(|code| &**code),
            ),
        )?;
        let id = tx.last_id();
        let mut insert = tx.prepare(
            "INSERT INTO stopped_instances (stop, instance) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        )?;
        for instance in instances {
            insert.execute((id, instance))?;
        }
        Ok(id)
    }

    /// Ends executions of the order, as many as are `left`, and takes them off. An execution whose record cannot be
    /// understood must not keep the others from being ended.
    fn carry_out(
        &mut self,
        tx: Tx<'_>,
        now_ms: i64,
        left: &mut usize,
        aside: &Aside,
    ) -> Result<Stopped> {
        let found = self.look(tx, *left, aside)?;
        *left = left.saturating_sub(found.count());
        self.end_found(tx, found, now_ms, left, aside)
    }

    /// Asks all running executions of the order to end, wherever in their fires they are, because no execution may be
    /// polled once the order is on disk. There are no more of them than places.
    fn ask_what_runs(
        &mut self,
        tx: Tx<'_>,
        now_ms: i64,
        stopped: &mut Stopped,
        left: &mut usize,
        aside: &Aside,
    ) -> Result<()> {
        let asked: HashSet<_> = stopped.stopping.iter().map(|(id, _)| *id).collect();
        let mut query = tx.prepare(
            "SELECT e.instance, e.status IN ('Running', 'Stopping'), f.invocation
             FROM executions e CROSS JOIN fires f ON f.id = e.fire WHERE e.id = ?1",
        )?;
        let (mut found, mut idle) = (FoundExecutions::default(), Vec::new());
        for id in tx.memory.running.of(self.fire) {
            if aside.has(Subject::Execution(id.0)) {
                continue;
            }
            let of = query.query_row([id.0], |row| {
                // An execution whose instance cannot be read is on none of the instances of the order.
                let instance = row.get(0).unwrap_or_default();
                Ok((instance, row.get::<_, bool>(1)?, row.get::<_, i64>(2)?))
            });
            let (instance, runs, invocation) = match of.optional().map_err(Error::from) {
                // All executions that `running` names are of the fire. `take_in` finds out later what is wrong with the
                // record.
                Err(error) if error.is_of_a_record() && self.fire.is_some() => {
                    (0, true, self.invocation)
                }
                // The execution may be of another invocation. If it is of this invocation, a later commit finds it.
                Err(error) if error.is_of_a_record() => continue,
                Err(error) => {
                    aside.refuse(tx, Subject::Execution(id.0), None, error)?;
                    continue;
                }
                Ok(None) => (0, false, 0),
                Ok(Some(of)) => of,
            };
            if !runs {
                idle.push(id);
                continue;
            }
            let is_meant = invocation == self.invocation
                && match &self.only {
                    Only::These(these) => these.binary_search(&instance).is_ok(),
                    Only::All | Only::Stored => true,
                };
            if is_meant && !asked.contains(&id) {
                self.take_in(tx, id.0, &mut found, aside)?;
            }
        }
        tx.memory.running.forget(idle);
        stopped.add(self.end_found(tx, found, now_ms, left, aside)?);
        Ok(())
    }

    fn end_found(
        &mut self,
        tx: Tx<'_>,
        found: FoundExecutions,
        now_ms: i64,
        left: &mut usize,
        aside: &Aside,
    ) -> Result<Stopped> {
        let FoundExecutions { readable, unreadable } = found;
        let mut stopped = Stopped::default();
        for (id, fire, error) in unreadable {
            self.end_alone(tx, (id, fire), &error, now_ms, left, aside, &mut stopped)?;
        }
        // After a damaged page SQLite refuses all writes of the transaction, so that nobody can tell which execution
        // has met it. The next transaction is careful then, and ends one execution after another.
        if !aside.is_careful() {
            let before = *left;
            match apart(tx, || self.end(tx, &readable, now_ms, left)) {
                Err(error) if error.is_of_a_record() => *left = before,
                Err(error) => {
                    aside.be_careful(error.is_damage());
                    return Err(error);
                }
                Ok(ended) => {
                    stopped.add(ended);
                    return Ok(stopped);
                }
            }
        }
        for one in readable {
            let before = *left;
            match apart(tx, || self.end(tx, std::slice::from_ref(&one), now_ms, left)) {
                Ok(ended) => stopped.add(ended),
                Err(error) if error.is_of_a_record() => {
                    *left = before;
                    let of = (one.id, one.fire);
                    self.end_alone(tx, of, &error, now_ms, left, aside, &mut stopped)?;
                }
                Err(error) => self.set_aside(tx, one.id, error, aside)?,
            }
        }
        Ok(stopped)
    }

    /// Ends an execution that cannot be ended like others because of a record. The parts of its record that cannot be
    /// read are left out; so is the message to its fire, if the fire cannot be told of the end.
    #[expect(
        clippy::too_many_arguments,
        reason = "two of them are the commit's, and go everywhere"
    )]
    fn end_alone(
        &mut self,
        tx: Tx<'_>,
        (id, fire): (ExecutionId, i64),
        error: &Error,
        now_ms: i64,
        left: &mut usize,
        aside: &Aside,
        stopped: &mut Stopped,
    ) -> Result<()> {
        let end = || {
            let changed = tx
                .prepare(
                    "UPDATE executions SET status = ?2, stop_at_ms = ?3, finished_at_ms = ?4, error_info = ?5,
                         stop_cause = ?6, stopped_by = ?7, stop_reason = ?8, error_code = nullif(?9, ''),
                         retry_at_ms = NULL, awaits_instance = NULL, room = NULL
                     WHERE id = ?1 AND finished_at_ms IS NULL AND status NOT IN ('Running', 'Stopping')",
                )?;
            let (target, code) = match &self.ending {
                Ending::Stop(order) => (Cause::StopAskedEarly.target(), order.cause.code()),
                Ending::Expiry => (Cause::Expired.target(), START_DEADLINE_EXCEEDED),
                Ending::Unstartable { code, .. } => (Cause::Unreadable.target(), &**code),
            };
            let order = match &self.ending {
                Ending::Stop(order) => Some(order),
                _ => None,
            };
            let info = format!("it never ran; not all of its end can be kept: {error}");
            let mut changed = changed;
            let changed = changed.execute((
                id.0,
                target.as_str(),
                order.map(|_| self.at_ms),
                now_ms,
                info,
                order.map(|order| order.cause.as_str()),
                order.and_then(|order| order.by.as_deref()),
                order.and_then(|order| order.reason.as_deref()),
                code,
            ))?;
            tx.count(Counted::Ended(target), changed);
            Ok((changed > 0).then_some(target))
        };
        let target = match apart(tx, end) {
            Ok(target) => target,
            Err(error) if error.is_of_a_record() => {
                self.pass_over(id, &error);
                stopped.uncounted.get_or_insert(error);
                return Ok(());
            }
            Err(error) => return self.set_aside(tx, id, error, aside),
        };
        let on = name_of(tx, id);
        let Some(target) = target else {
            let is_about_it = match &self.ending {
                Ending::Stop(order) => {
                    !matches!(order.cause, StopReason::Errors | StopReason::Gate)
                }
                Ending::Expiry | Ending::Unstartable { .. } => false,
            };
            if is_about_it {
                // The execution runs, and is asked to end all the same.
                tx.memory.note_stop();
                stopped.stopping.push((id, on));
            }
            return Ok(());
        };
        match target {
            ExecutionStatus::Cancelled => stopped.cancelled.push((id, on)),
            _ => stopped.expired.push((id, on)),
        }
        let (mut ends, mut finished, before) = (Ends::default(), Finished::default(), *left);
        ends.count(target);
        let may_go_on = self.may_go_on();
        let told = apart(tx, || {
            executions::finish_fire(tx, fire, ends, now_ms, may_go_on, left, &mut finished)
        });
        match told {
            Ok(()) => stopped.take_in(finished),
            Err(error) if error.is_of_a_record() => {
                *left = before;
                tell(
                    || tracing::error!(%error, %id, "an execution has ended, and its fire cannot be told"),
                );
                stopped.uncounted.get_or_insert(error);
            }
            Err(error) => return self.set_aside(tx, id, error, aside),
        }
        if self.ending.lets_go_on() {
            let early = EndedEarly { id, was_next: true };
            match apart(tx, || claims::release_behind(tx, fire, &[early])) {
                Ok(released) => stopped.released.extend(released),
                Err(error) if error.is_of_a_record() => {}
                Err(error) => return self.set_aside(tx, id, error, aside),
            }
        }
        Ok(())
    }

    /// Passes over an execution that a damaged page keeps from being ended.
    fn set_aside(
        &mut self,
        tx: Tx<'_>,
        id: ExecutionId,
        error: Error,
        aside: &Aside,
    ) -> Result<()> {
        let subject = Subject::Execution(id.0);
        aside.refuse(tx, subject, subject.invoke_id(tx), error.clone())?;
        self.pass_over(id, &error);
        Ok(())
    }

    fn pass_over(&mut self, id: ExecutionId, error: &Error) {
        tell(|| tracing::error!(%error, %id, "an execution cannot be stopped"));
        self.unstopped += 1;
        self.why.get_or_insert_with(|| format!("execution {id}: {error}"));
    }

    /// Returns the next `max` executions of the order, and moves the progress behind them.
    fn look(&mut self, tx: Tx<'_>, max: usize, aside: &Aside) -> Result<FoundExecutions> {
        let mut found = FoundExecutions::default();
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
                None => self.look_at_all(tx, &mut found, max, &mut looks, aside)?,
                Some(these) => self.look_at(tx, &these, &mut found, max, &mut looks, aside)?,
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
        let next = tx.find(
            "SELECT id FROM fires INDEXED BY fires_unfinished_by_invocation
             WHERE invocation = ?1 AND unfinished > 0 AND id >= ?2 ORDER BY id LIMIT 1",
            (self.invocation, self.at_fire),
            |row| row.get(0),
        )?;
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
                let mut query = tx.prepare(
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

    /// Looks at the executions of a fire. Returns whether the look has come to the last of them. The look reads the
    /// index alone: each execution is read by itself later, so that the engine knows which execution cannot be read.
    fn look_at_all(
        &mut self,
        tx: Tx<'_>,
        found: &mut FoundExecutions,
        max: usize,
        looks: &mut usize,
        aside: &Aside,
    ) -> Result<bool> {
        let mut query = tx.prepare(
            "SELECT e.id, e.instance FROM executions e INDEXED BY executions_by_fire
             WHERE e.fire = ?1 AND e.instance > ?2 ORDER BY e.instance, e.attempt",
        )?;
        let mut rows = query.query((self.at_fire, self.at_instance))?;
        while let Some(row) = rows.next()? {
            // An instance that is no number comes after all numbers.
            let instance = row.get(1).unwrap_or(self.at_instance);
            // Attempts on an instance are looked at together.
            if instance > self.at_instance && (found.count() >= max || *looks == 0) {
                return Ok(false);
            }
            self.at_instance = instance;
            *looks = looks.saturating_sub(1);
            self.take_in(tx, row.get(0)?, found, aside)?;
        }
        Ok(true)
    }

    /// Works like [`look_at_all`](Self::look_at_all), on these instances only.
    fn look_at(
        &mut self,
        tx: Tx<'_>,
        instances: &[i64],
        found: &mut FoundExecutions,
        max: usize,
        looks: &mut usize,
        aside: &Aside,
    ) -> Result<bool> {
        let mut query = tx.prepare(
            "SELECT e.id FROM executions e INDEXED BY executions_by_fire
             WHERE e.fire = ?1 AND e.instance = ?2 ORDER BY e.attempt",
        )?;
        for &instance in instances {
            if found.count() >= max || *looks == 0 {
                return Ok(false);
            }
            self.at_instance = instance;
            *looks = looks.saturating_sub(1);
            let mut rows = query.query((self.at_fire, instance))?;
            while let Some(row) = rows.next()? {
                self.take_in(tx, row.get(0)?, found, aside)?;
            }
        }
        Ok(true)
    }

    fn take_in(
        &mut self,
        tx: Tx<'_>,
        id: i64,
        found: &mut FoundExecutions,
        aside: &Aside,
    ) -> Result<()> {
        if id > self.until {
            return Ok(());
        }
        if aside.has(Subject::Execution(id)) {
            self.unstopped += 1;
            self.why.get_or_insert_with(|| format!("execution {id} lies on a damaged page"));
            return Ok(());
        }
        let read = tx.find(
            "SELECT e.id, e.fire, e.instance, e.status, e.attempt FROM executions e
             WHERE e.id = ?1 AND e.finished_at_ms IS NULL",
            [id],
            |row| Ok(Unfinished::read(row)),
        );
        match read.and_then(Option::transpose) {
            Ok(one) => found.readable.extend(one.filter(|one| self.is_about(one))),
            Err(error) if error.is_of_a_record() => {
                found.unreadable.push((ExecutionId(id), self.at_fire, error));
            }
            Err(error) => self.set_aside(tx, ExecutionId(id), error, aside)?,
        }
        Ok(())
    }

    /// Returns whether the order applies to an execution that has not ended and that the first commit has not asked
    /// to end.
    fn is_about(&self, one: &Unfinished) -> bool {
        let is_asked = self.id.is_some() && one.status == ExecutionStatus::Stopping;
        !is_asked && self.ending.is_about(one)
    }

    /// Whether a wave may follow: none of a fire that has been stopped as a whole.
    fn may_go_on(&self) -> bool {
        !matches!(self.only, Only::All) || !matches!(self.ending, Ending::Stop(_))
    }

    /// Ends executions, and counts the fires and invocations that end with them. Other orders may follow from that:
    /// they end as many as are `left`.
    fn end(
        &self,
        tx: Tx<'_>,
        found: &[Unfinished],
        now_ms: i64,
        left: &mut usize,
    ) -> Result<Stopped> {
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
                (Ending::Unstartable { code, info }, _) => {
                    abort(tx, one, code, info, now_ms)?;
                    fires.entry(one.fire).or_default().count(Cause::Unreadable.target());
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
        let (mut finished, may_go_on) = (Finished::default(), self.may_go_on());
        for (&fire, &ended) in &fires {
            executions::finish_fire(tx, fire, ended, now_ms, may_go_on, left, &mut finished)?;
        }
        stopped.take_in(finished);
        Ok(stopped)
    }

    fn cancel(&self, tx: Tx<'_>, one: &Unfinished, order: &StopOrder, now_ms: i64) -> Result<()> {
        let cancelled = Cause::StopAskedEarly.target();
        let changed = tx.execute(
            "UPDATE executions SET status = ?2, stop_at_ms = ?3, finished_at_ms = ?10, error_info = ?5,
                 stop_cause = ?6, stopped_by = ?7, stop_reason = ?8, retry_at_ms = NULL,
                 awaits_instance = NULL, error_code = nullif(?9, ''), room = NULL
             WHERE id = ?1 AND status = ?4",
            (
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
            ),
        )?;
        expect_one(changed, one.id)?;
        tx.count(Counted::Ended(cancelled), 1);
        if one.status == ExecutionStatus::Scheduled && one.attempt == 1 {
            targets::note_standing(tx, one.id)?;
        }
        Ok(())
    }

    /// Records that a running execution is to end. The recorded stop is never before the start, whatever has happened
    /// to the clock.
    fn ask_to_end(&self, tx: Tx<'_>, one: &Unfinished, order: &StopOrder) -> Result<()> {
        let Some(stopping) = one.status.on(Cause::StopAsked) else { return Ok(()) };
        tx.memory.note_stop();
        let changed = tx.execute(
            "UPDATE executions SET status = ?2, stop_at_ms = max(?3, started_at_ms), stop_cause = ?5,
                 stopped_by = ?6, stop_reason = ?7
             WHERE id = ?1 AND status = ?4",
            (
                one.id.0,
                stopping.as_str(),
                self.at_ms,
                one.status.as_str(),
                order.cause.as_str(),
                &order.by,
                &order.reason,
            ),
        )?;
        expect_one(changed, one.id)
    }
}

/// Records that an execution was not started in time.
fn expire(tx: Tx<'_>, one: &Unfinished, now_ms: i64) -> Result<()> {
    let target = Cause::Expired.target();
    let changed = tx.execute(
        "UPDATE executions SET status = ?2, finished_at_ms = ?3, error_code = ?4, awaits_instance = NULL,
             room = NULL, error_info = 'it had not started when its start deadline was over'
         WHERE id = ?1 AND status = ?5",
        (one.id.0, target.as_str(), now_ms, START_DEADLINE_EXCEEDED, one.status.as_str()),
    )?;
    expect_one(changed, one.id)?;
    tx.count(Counted::Ended(target), 1);
    tx.count(Counted::Expired, 1);
    Ok(())
}

/// Ends an execution that cannot start because of a record.
fn abort(tx: Tx<'_>, one: &Unfinished, code: &str, info: &str, now_ms: i64) -> Result<()> {
    let target = Cause::Unreadable.target();
    let changed = tx.execute(
        "UPDATE executions SET status = ?2, finished_at_ms = ?3, error_code = ?4, error_info = ?5,
             retry_at_ms = NULL, awaits_instance = NULL, room = NULL
         WHERE id = ?1 AND status = ?6",
        (one.id.0, target.as_str(), now_ms, code, info, one.status.as_str()),
    )?;
    expect_one(changed, one.id)?;
    tx.count(Counted::Ended(target), 1);
    Ok(())
}

/// The name of an instance. A name that cannot be read keeps no execution from being ended there.
fn name(tx: Tx<'_>, instance: i64) -> Result<InstanceId> {
    let name = tx.find("SELECT instance_id FROM instances WHERE id = ?1", [instance], |row| {
        Ok(row.get::<_, String>(0).unwrap_or_else(|_| "?".to_owned()))
    })?;
    Ok(name.unwrap_or_else(|| "?".to_owned()).into())
}

/// The name of the instance of an execution, as far as it can be read.
fn name_of(tx: Tx<'_>, id: ExecutionId) -> InstanceId {
    let sql = "SELECT instance FROM executions WHERE id = ?1";
    let name = tx.one(sql, [id.0], |row| row.get(0)).and_then(|instance| name(tx, instance));
    name.unwrap_or_else(|_| "?".into())
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
    aside: &Aside,
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
    let under_way = tx.find(
        "SELECT id FROM stops INDEXED BY stops_by_invocation WHERE invocation = ?1 AND fire IS NULL
         AND is_partial = 0 LIMIT 1",
        [invocation],
        |row| row.get(0),
    )?;
    if under_way.is_some() {
        return Ok(Stopped { left: under_way, ..Stopped::default() });
    }
    let instances = (!only.is_empty()).then_some(rows);
    let scope = Scope { invocation, fire: None, until: i64::MAX, instances };
    let ending = Ending::Stop(order.clone());
    let mut left = max;
    let mut stopped = order_beside(tx, scope, &ending, now_ms, &mut left, aside)?;
    stopped.finished.extend(invocations::finish_stopped(tx, invocation, now_ms)?);
    Ok(stopped)
}

/// Returns the row of an instance that is a target of an invocation.
fn target_row(tx: Tx<'_>, invocation: i64, id: &InstanceId) -> Result<i64> {
    let found: Option<(i64, bool)> = tx.find(
        "SELECT i.id, EXISTS (SELECT 1 FROM targets t WHERE t.invocation = ?1 AND t.instance = i.id)
         OR EXISTS (SELECT 1 FROM executions e INDEXED BY executions_by_fire
             WHERE e.fire = (SELECT min(f.id) FROM fires f WHERE f.invocation = ?1) AND e.instance = i.id)
         FROM instances i WHERE i.instance_id = ?2",
        (invocation, id.as_str()),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
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
            let (tx, fire) = (database.tx(), database.fire);
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
                invocation(tx, database.invocation, only, &order, 0, 1, &Aside::default())
                    .expect("readable");
            let told: Vec<_> = stopped.stopping.iter().map(|(id, _)| *id).collect();
            let running: Vec<_> = claimed.iter().map(|one| one.id).take(stopping).collect();
            assert_eq!((told, stopped.cancelled.len()), (running, 1), "{cause:?} on {only:?}");
            let status: String = tx
                .one("SELECT status FROM executions WHERE id = ?1", [claimed[0].id.0], |row| {
                    row.get(0)
                })
                .expect("it is stored");
            assert_eq!(status, if stopping == 1 { "Stopping" } else { "Running" });
            // The later slices report no execution twice.
            let mut cancelled = 1;
            while let Some(&order) = unfinished(tx, 1).expect("readable").first() {
                let carried_on = carry_on(tx, order, 0, &mut 1, &Aside::default());
                let carried_on = carried_on.expect("readable");
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

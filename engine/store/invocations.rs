//! Table `invocations`: what was asked for, and where it stands.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::types::ValueRef;
use rusqlite::{Row, ToSql, params};

use crate::command::parameters::{Arguments, Parameters, SecretNames};
use crate::error::{Error, Result, Violation};
use crate::execution::StopOrder;
use crate::given::Given;
use crate::id::{CommandId, InvokeId};
use crate::invocation::container::Container;
use crate::invocation::rate_control::RateControl;
use crate::invocation::recurrence::{MissedPolicy, OverlapPolicy, Recurrence, Trigger};
use crate::invocation::resource_limits::ResourceLimits;
use crate::invocation::retry::Retry;
use crate::invocation::{DescribeInvocations, Invocation, Job, RepeatMode, TerminationMode};
use crate::metrics::Counted;
use crate::schedule::Zone;
use crate::status::{ExecutionStatus, InvocationStatus, InvokeStatus, StatusCounts, roll_up};
use crate::tag::Tag;
use crate::wire::{ContentEncoding, Encoded};

use super::claims::ClaimedAtOnce;
use super::commands::{
    Definition, json_or_null, like, read_json, read_settings, read_time, read_type,
};
use super::instances::Target;
use super::records::{FIRE_WITHOUT_TARGETS, STANDS_ONCE, any_stands};
use super::tags::{self, Tagged};
use super::timers::{NewTimer, Timer};
use super::{
    Listing, Query, Slice, Tx, contents, days, expect_all, firing, parse, standings, targets,
    timers, unreadable,
};

/// An invocation that is about to be stored.
#[derive(Debug)]
pub(crate) struct NewInvocation {
    pub invoke_id: InvokeId,
    /// `None`: the command comes with the invocation and has its digits for an id.
    pub kept_id: Option<CommandId>,
    pub arguments: Arguments,
    pub container: Container,
    pub windows_password_name: Option<String>,
    /// Whether the values of secret parameters are names in the host's store.
    pub secrets_are_names: bool,
    pub content_bytes_max: usize,
    /// None: a run may take any time.
    pub timeout_s: Option<u64>,
    pub resource_group_id: Option<String>,
    pub caller: Option<Arc<str>>,
    pub termination_mode: TerminationMode,
    pub resource_limits: ResourceLimits,
    pub survive_restarts: bool,
    /// None: it runs at once, and once.
    pub recurrence: Option<Recurrence>,
    pub retry: Option<Retry>,
    pub rate_control: RateControl,
    pub tags: Vec<Tag>,
    /// The row of the invocation that it is another run of.
    pub retry_of: Option<i64>,
}

impl NewInvocation {
    /// The id of its command.
    pub(crate) fn command_id(&self) -> CommandId {
        self.kept_id.unwrap_or_else(|| CommandId::of_invocation(self.invoke_id))
    }

    /// Whether all that holds its executions back is the number of free places.
    pub(crate) fn is_unbounded(&self, targets: &[Arc<Target>]) -> bool {
        self.rate_control.is_default()
            && targets.iter().all(|target| target.instance.max_concurrency.is_none())
    }

    /// What its executions have in common: what [`job_of_fire`] reads once it is stored.
    pub(crate) fn job(&self, definition: &Definition) -> Job {
        let recurrence = self.recurrence.as_ref();
        Job {
            invoke_id: self.invoke_id,
            command_id: self.command_id(),
            command_type: definition.command_type,
            content: Arc::clone(&definition.content),
            timeout_s: self.timeout_s,
            termination_mode: self.termination_mode,
            lets_wait: recurrence.is_some_and(|of| of.overlap.lets_wait() || of.missed.lets_wait()),
            arguments: definition.enable_parameter.then(|| self.arguments.clone()),
            settings: definition.settings.clone(),
            container: self.container.clone(),
            windows_password_name: self.windows_password_name.clone(),
            caller: self.caller.clone(),
            secrets_are_names: self.secrets_are_names,
            content_bytes_max: self.content_bytes_max,
            resource_limits: self.resource_limits,
            survive_restarts: self.survive_restarts,
            retry: self.retry.clone(),
        }
    }
}

/// The targets of an invocation that share a clock, when it fires for them first, and how long
/// after its nominal times.
#[derive(Debug)]
pub(crate) struct FirstFire {
    pub zone: Zone,
    pub at_ms: i64,
    pub delay_ms: i64,
    pub target_rows: Vec<i64>,
}

/// When an invocation runs on its targets.
#[derive(Debug)]
pub(crate) enum Start {
    Now { targets: Vec<Arc<Target>> },
    Planned(Vec<FirstFire>),
    AtBoot { target_rows: Vec<i64> },
}

/// Stores an invocation, with an execution for each target or the timers that will make them. One that
/// runs now is claimed if its executions have their places; then what is to be started.
pub(crate) fn insert(
    tx: Tx<'_>,
    new: &NewInvocation,
    definition: &Definition,
    start: &Start,
    claimed_at_ms: Option<i64>,
    now_ms: i64,
) -> Result<Option<ClaimedAtOnce>> {
    days::count_invocation(tx, now_ms)?;
    tx.count(Counted::Invocation, 1);
    let content = contents::intern(tx, &definition.content)?;
    let recurrence = new.recurrence.as_ref();
    let schedule = recurrence.and_then(|recurrence| match &recurrence.trigger {
        Trigger::Schedule(schedule) => Some(schedule.to_string()),
        Trigger::Boot { .. } => None,
    });
    let parameters = match definition.enable_parameter {
        true => Some(serde_json::to_string(&new.arguments.values).map_err(unreadable)?),
        false => None,
    };
    tx.execute(
        "INSERT INTO invocations (invoke_id, command_id, name, description, type, content, working_dir,
             timeout_s, termination_mode, repeat_mode, created_at_ms, frequency, overlap_policy, missed_policy,
             spread_s, end_at_ms, fires_max, parameters, parameter_passing, username, launcher, output_to,
             windows_password_name, container_id, container_name, default_parameters, secret_parameters,
             resource_group_id, caller, secrets_are_names, content_bytes_max, resource_limits,
             survive_restarts, retry, rate_control, retry_of, room)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20,
             ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, zeroblob(13))",
        params![
            new.invoke_id.as_bytes(),
            new.kept_id.as_ref().map(CommandId::as_bytes),
            &definition.name,
            &definition.description,
            definition.command_type.as_str(),
            content,
            &definition.settings.working_dir,
            new.timeout_s,
            new.termination_mode.as_str(),
            recurrence.map_or(RepeatMode::Once, Recurrence::mode).as_str(),
            now_ms,
            schedule,
            recurrence.map(|recurrence| recurrence.overlap.as_str()),
            recurrence.map(|recurrence| recurrence.missed.to_string()),
            recurrence.map_or(0, |recurrence| recurrence.spread_s),
            recurrence.and_then(|recurrence| recurrence.end).map(|end| end.timestamp_millis()),
            recurrence.and_then(|recurrence| recurrence.fires_max),
            parameters,
            new.arguments.passing.as_str(),
            &definition.settings.username,
            &definition.settings.launcher,
            &definition.settings.output_to,
            &new.windows_password_name,
            &new.container.id,
            &new.container.name,
            json_or_null(&new.arguments.defaults, Parameters::is_empty)?,
            json_or_null(&new.arguments.secrets, SecretNames::is_empty)?,
            &new.resource_group_id,
            &new.caller,
            new.secrets_are_names,
            i64::try_from(new.content_bytes_max).unwrap_or(i64::MAX),
            json_or_null(&new.resource_limits, ResourceLimits::is_empty)?,
            new.survive_restarts,
            json_or_null(&new.retry, Option::is_none)?,
            json_or_null(&new.rate_control, RateControl::is_default)?,
            new.retry_of,
        ],
    )?;
    let invocation = tx.last_id();
    Tagged::Invocation.insert(tx, invocation, &new.tags)?;
    match start {
        Start::Now { targets } => {
            return firing::at_once(
                tx,
                (invocation, new.invoke_id),
                targets,
                &new.rate_control,
                claimed_at_ms,
                now_ms,
            );
        }
        Start::Planned(fires) => {
            for FirstFire { zone, at_ms, delay_ms, target_rows } in fires {
                let timer = NewTimer {
                    invocation,
                    zone: *zone,
                    next_fire_at_ms: *at_ms,
                    delay_ms: *delay_ms,
                    fires_left: recurrence.and_then(|recurrence| recurrence.fires_max),
                };
                let timer = timers::insert(tx, &timer)?;
                targets::insert_timed(tx, invocation, timer, target_rows)?;
            }
        }
        Start::AtBoot { target_rows } => targets::insert_booting(tx, invocation, target_rows)?,
    }
    Ok(None)
}

/// The row of an invocation.
pub(crate) fn find(tx: Tx<'_>, invoke_id: InvokeId) -> Result<i64> {
    tx.find("SELECT id FROM invocations WHERE invoke_id = ?1", [invoke_id.as_bytes()], |row| {
        row.get(0)
    })?
    .ok_or_else(|| {
        Error::invalid(Violation::new(
            "InvalidInvokeId.NotFound",
            404,
            "InvokeId",
            format!("there is no invocation `{invoke_id}`"),
        ))
    })
}

/// What the executions of an invocation have in common; for [`read_job`].
pub(super) const JOB: &str =
    "v.invoke_id, v.command_id, v.type, v.content, v.timeout_s, v.termination_mode,
    v.overlap_policy, v.missed_policy, v.parameters, v.parameter_passing, v.default_parameters,
    v.secret_parameters, v.working_dir, v.username, v.launcher, v.output_to, v.container_id,
    v.container_name, v.windows_password_name, v.caller, v.secrets_are_names, v.content_bytes_max,
    v.resource_limits, v.survive_restarts, v.retry";

/// Returns the id of the invocation of a fire.
pub(crate) fn invoke_id_of_fire(tx: Tx<'_>, fire: i64) -> Result<InvokeId> {
    let invoke_id = tx.one(
        "SELECT v.invoke_id FROM fires f JOIN invocations v ON v.id = f.invocation WHERE f.id = ?1",
        [fire],
        |row| row.get(0),
    )?;
    Ok(InvokeId::from_bytes(invoke_id))
}

/// Returns the invocation of a fire that goes on, if the invocation can be read. If the fire itself cannot be read, an
/// index tells its invocation.
pub(crate) fn invoke_id_of_damaged_fire(tx: Tx<'_>, fire: i64) -> Option<InvokeId> {
    let by_index = || {
        tx.one(
            "SELECT invoke_id FROM invocations WHERE id = (
             SELECT invocation FROM fires INDEXED BY fires_unfinished_by_invocation
             WHERE unfinished > 0 AND +id = ?1)",
            [fire],
            |row| row.get(0),
        )
    };
    let found = invoke_id_of_fire(tx, fire).ok();
    found.or_else(|| by_index().ok().map(InvokeId::from_bytes))
}

/// What the executions of a fire have in common.
pub(crate) fn job_of_fire(tx: Tx<'_>, fire: i64) -> Result<Arc<Job>> {
    tx.one(
        &format!(
            "SELECT {JOB} FROM fires f JOIN invocations v ON v.id = f.invocation WHERE f.id = ?1"
        ),
        [fire],
        |row| Ok(read_job(tx, row)),
    )?
    .map(Arc::new)
}

pub(super) fn read_job(tx: Tx<'_>, row: &Row<'_>) -> Result<Job> {
    let invoke_id = InvokeId::from_bytes(row.get(0)?);
    let overlap: Option<OverlapPolicy> = read_policy(row, 6)?;
    let missed: Option<MissedPolicy> = read_policy(row, 7)?;
    Ok(Job {
        invoke_id,
        command_id: read_command_id(row, 1, invoke_id)?,
        command_type: read_type(row, 2)?,
        content: contents::get(tx, row.get(3)?)?,
        timeout_s: row.get(4)?,
        termination_mode: read_termination_mode(row, 5)?,
        lets_wait: overlap.is_some_and(OverlapPolicy::lets_wait)
            || missed.is_some_and(MissedPolicy::lets_wait),
        arguments: read_arguments(row, 8)?,
        settings: read_settings(row, 12)?,
        container: Container { id: row.get(16)?, name: row.get(17)? },
        windows_password_name: row.get(18)?,
        caller: row.get::<_, Option<String>>(19)?.map(Arc::from),
        secrets_are_names: row.get(20)?,
        content_bytes_max: row.get(21)?,
        resource_limits: read_json(row, 22)?,
        survive_restarts: row.get(23)?,
        retry: read_json(row, 24)?,
    })
}

/// How the executions of an invocation are let loose.
pub(super) fn rate_control(tx: Tx<'_>, invocation: i64) -> Result<RateControl> {
    tx.one("SELECT rate_control FROM invocations WHERE id = ?1", [invocation], |row| {
        Ok(read_json(row, 0))
    })?
}

/// How an invocation has ended; none as long as it has not.
pub(crate) fn final_status(tx: Tx<'_>, invocation: i64) -> Result<Option<InvocationStatus>> {
    let (stored, has_ended): (Option<String>, bool) = tx.one(
        "SELECT status, finished_at_ms IS NOT NULL FROM invocations WHERE id = ?1",
        [invocation],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    match stored {
        // Without the error a wait for this invocation would never end.
        None if has_ended => Err(unreadable("an invocation has ended, and does not say how")),
        stored => stored.as_deref().map(parse).transpose(),
    }
}

/// Where an invocation stands.
pub(crate) fn status(tx: Tx<'_>, invocation: i64) -> Result<InvocationStatus> {
    match final_status(tx, invocation)? {
        Some(status) => Ok(status),
        None => match roll_up(&counts(tx, invocation)?, targets::any_left(tx, invocation)?) {
            // The latest have ended; a fire before them has not.
            ended if ended.is_final() => Ok(InvocationStatus::Running),
            status => Ok(status),
        },
    }
}

/// Counts the latest executions of an invocation by status. An invocation that repeats has targets, each with the
/// execution that says how the invocation stands there; any other invocation has one fire.
fn counts(tx: Tx<'_>, invocation: i64) -> Result<StatusCounts> {
    // Counted here: to group them SQLite sorts them first.
    let mut query = tx.prepare(&format!(
        "SELECT e.status FROM targets t CROSS JOIN executions e ON e.id = t.standing_execution
         WHERE t.invocation = ?1
         UNION ALL
         SELECT e.status FROM executions e INDEXED BY executions_by_fire
         WHERE e.fire = {FIRE_WITHOUT_TARGETS} AND {STANDS_ONCE}"
    ))?;
    query.query_and_then([invocation], |row| read_status(row, 0))?.collect()
}

/// Ends an invocation of which no execution is left and that will not fire again; says how it ended.
pub(crate) fn finish_if_done(
    tx: Tx<'_>,
    invocation: i64,
    now_ms: i64,
) -> Result<Option<(InvokeId, InvocationStatus)>> {
    // None of its nominal times led to an execution: it did not do what it was made for.
    finish(tx, invocation, InvocationStatus::Failed, now_ms)
}

/// Does the same for one that has just been stopped.
pub(super) fn finish_stopped(
    tx: Tx<'_>,
    invocation: i64,
    now_ms: i64,
) -> Result<Option<(InvokeId, InvocationStatus)>> {
    finish(tx, invocation, InvocationStatus::Stopped, now_ms)
}

fn finish(
    tx: Tx<'_>,
    invocation: i64,
    if_it_never_ran: InvocationStatus,
    now_ms: i64,
) -> Result<Option<(InvokeId, InvocationStatus)>> {
    let done = tx.find(
        "SELECT v.invoke_id FROM invocations v
         WHERE v.id = ?1 AND v.finished_at_ms IS NULL
           AND NOT EXISTS (SELECT 1 FROM fires f WHERE f.invocation = v.id AND f.unfinished > 0)",
        [invocation],
        |row| Ok(InvokeId::from_bytes(row.get(0)?)),
    )?;
    let Some(invoke_id) = done else { return Ok(None) };
    if targets::any_left(tx, invocation)? {
        return Ok(None);
    }
    let counts = counts(tx, invocation)?;
    let status = match counts.total() {
        0 => if_it_never_ran,
        _ => roll_up(&counts, false),
    };
    set_finished(tx, invocation, status, now_ms)?;
    Ok(Some((invoke_id, status)))
}

/// Writes down how an invocation has ended.
pub(super) fn set_finished(
    tx: Tx<'_>,
    invocation: i64,
    status: InvocationStatus,
    now_ms: i64,
) -> Result<()> {
    tx.execute(
        "UPDATE invocations SET status = ?2, finished_at_ms = ?3, room = NULL WHERE id = ?1",
        (invocation, status.as_str(), now_ms),
    )?;
    Ok(())
}

/// Writes down how invocations have ended that follow one another, and ended alike.
pub(super) fn end(
    tx: Tx<'_>,
    invocations: RangeInclusive<i64>,
    status: InvocationStatus,
    now_ms: i64,
) -> Result<()> {
    // By an index that the change takes rows out of SQLite would go through them twice.
    let changed = tx.execute(
        "UPDATE OR FAIL invocations NOT INDEXED SET status = ?3, finished_at_ms = ?4, room = NULL
         WHERE id BETWEEN ?1 AND ?2 AND finished_at_ms IS NULL",
        (invocations.start(), invocations.end(), status.as_str(), now_ms),
    )?;
    expect_all(changed, &invocations, "invocations")
}

/// Lets a timer go on from a nominal time that has no record any more. A timer that had ended goes on, with its
/// invocation, if it had only run out of times.
pub(crate) fn take_back(tx: Tx<'_>, timer: &Timer, next_fire_at_ms: i64) -> Result<()> {
    if timer.next_fire_at_ms.is_none() {
        let was_stopped: bool = tx.one(
            "SELECT stop_at_ms IS NOT NULL FROM invocations WHERE id = ?1",
            [timer.invocation],
            |row| row.get(0),
        )?;
        if was_stopped || timer.fires_left == Some(0) || !targets::revive(tx, timer.id)? {
            return Ok(());
        }
        tx.execute(
            "UPDATE invocations SET status = NULL, finished_at_ms = NULL, room = zeroblob(13)
             WHERE id = ?1 AND finished_at_ms IS NOT NULL",
            [timer.invocation],
        )?;
    }
    timers::take_back(tx, timer.id, next_fire_at_ms)
}

/// Takes note of the first request to stop all of an invocation, unless it has ended.
pub(super) fn note_stop(tx: Tx<'_>, invocation: i64, order: &StopOrder, now_ms: i64) -> Result<()> {
    tx.execute(
        "UPDATE invocations SET stop_at_ms = ?2, stopped_by = ?3, stop_reason = ?4
         WHERE id = ?1 AND stop_at_ms IS NULL AND finished_at_ms IS NULL",
        (invocation, now_ms, &order.by, &order.reason),
    )?;
    Ok(())
}

/// Checks that an invocation can do what only one that will fire again can do; its policy.
pub(crate) fn check_repeats(tx: Tx<'_>, invocation: i64) -> Result<OverlapPolicy> {
    let (invoke_id, overlap) = tx.one(
        "SELECT invoke_id, overlap_policy FROM invocations WHERE id = ?1",
        [invocation],
        |row| Ok((InvokeId::from_bytes(row.get(0)?), read_policy(row, 1))),
    )?;
    let (code, why) = match overlap? {
        None => ("InvalidStatus.NotRepeating", "runs once; want one that repeats"),
        Some(_) if !targets::any_left(tx, invocation)? => {
            ("InvalidStatus.InvocationEnded", "will not fire again")
        }
        Some(overlap) => return Ok(overlap),
    };
    Err(Error::Conflict { code, message: format!("InvokeId: `{invoke_id}` {why}") })
}

/// Whether an invocation still goes on.
#[derive(Debug)]
pub(crate) struct Standing {
    pub paused: Option<DateTime<Utc>>,
    pub ended: Option<DateTime<Utc>>,
}

/// Since when an invocation pauses, and when it ended.
pub(crate) fn standing_of(tx: Tx<'_>, invocation: i64) -> Result<Standing> {
    let (paused, ended): (Option<i64>, Option<i64>) = tx.one(
        "SELECT paused_at_ms, finished_at_ms FROM invocations WHERE id = ?1",
        [invocation],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(Standing {
        paused: paused.map(read_time).transpose()?,
        ended: ended.map(read_time).transpose()?,
    })
}

/// Keeps an invocation from firing until [`resume`].
pub(crate) fn pause(tx: Tx<'_>, invocation: i64, now_ms: i64) -> Result<()> {
    tx.execute(
        "UPDATE invocations SET paused_at_ms = ?2 WHERE id = ?1 AND paused_at_ms IS NULL",
        (invocation, now_ms),
    )?;
    timers::hold(tx, invocation)
}

/// Lets an invocation fire again.
pub(crate) fn resume(tx: Tx<'_>, invocation: i64) -> Result<()> {
    tx.execute("UPDATE invocations SET paused_at_ms = NULL WHERE id = ?1", [invocation])?;
    timers::release(tx, invocation)
}

/// A slice of the invocations, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    filter: &DescribeInvocations,
    slice: Slice,
    encoding: ContentEncoding,
) -> Result<Listing<Invocation>> {
    let mut query = all();
    query.conditions = Tagged::Invocation.conditions("v.id", &filter.tags, &mut query.values);
    query.filter("v.invoke_id = ?", filter.invoke_id.map(|id| id.as_bytes().to_vec()));
    if let Some(id) = filter.command_id {
        query.conditions.push(OF_COMMAND.to_owned());
        query.values.extend([id.as_bytes().to_vec().into(), id.as_bytes().to_vec().into()]);
    }
    query.filter("v.type = ?", filter.command_type.map(|of| of.as_str().to_owned()));
    query.filter("v.resource_group_id = ?", filter.resource_group_id.clone());
    match &filter.instance_id {
        Some(id) => query.filter(
            // Invocations that repeat have targets, and all others have one fire.
            "EXISTS (SELECT 1 FROM instances i WHERE i.instance_id = ? AND (
                 EXISTS (SELECT 1 FROM targets t WHERE t.invocation = v.id AND t.instance = i.id)
                 OR EXISTS (SELECT 1 FROM executions e INDEXED BY executions_by_fire
                     WHERE e.fire = (SELECT min(f.id) FROM fires f WHERE f.invocation = v.id)
                         AND e.instance = i.id)))",
            Some(id.as_str().to_owned()),
        ),
        // The pages' services take no notice of these beside an instance.
        None => {
            query.filter("v.name LIKE ? ESCAPE '\\'", filter.command_name.as_deref().map(like));
            let mode = filter.repeat_mode.as_ref();
            query.filter("v.repeat_mode = ?", mode.map(ToString::to_string));
        }
    }
    if let Some(timed) = filter.timed {
        // What has ended has nothing left: the index of the others serves.
        query.conditions.push(match timed {
            true => format!("v.finished_at_ms IS NULL AND ({})", targets::ANY_LEFT),
            false => format!("NOT ({})", targets::ANY_LEFT),
        });
    }
    query.conditions.extend(filter.status.map(standing));
    if let Some(Given::Known(named)) = &filter.invoke_status {
        let either = [named.status.map(standing), named.invoke_status.map(standing_in_older_terms)];
        let either: Vec<_> = either.into_iter().flatten().map(|one| format!("({one})")).collect();
        query.conditions.push(format!("({})", either.join(" OR ")));
    }
    query.slice(tx, slice, |row| read(tx, row, filter, encoding))
}

/// Returns the invocations that a text names, `max` at most, newest first: those whose id begins so; without any, those
/// of this name that have not ended; without any, the newest of this name.
pub(crate) fn called(tx: Tx<'_>, text: &str, max: usize) -> Result<Vec<InvokeId>> {
    let ids = |sql: &str, values: &[&dyn ToSql]| -> Result<Vec<InvokeId>> {
        let mut query = tx.prepare(sql)?;
        let found = query.query_map(values, |row| Ok(InvokeId::from_bytes(row.get(0)?)))?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    };
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    if let Some((first, last)) = InvokeId::range_of(text) {
        let found = ids(
            "SELECT invoke_id FROM invocations WHERE invoke_id BETWEEN ?1 AND ?2
             ORDER BY invoke_id DESC LIMIT ?3",
            &[&first, &last, &max],
        )?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let found = ids(
        "SELECT invoke_id FROM invocations INDEXED BY invocations_unfinished
         WHERE finished_at_ms IS NULL AND name = ?1 ORDER BY id DESC LIMIT ?2",
        &[&text, &max],
    )?;
    if !found.is_empty() || text.is_empty() {
        return Ok(found);
    }
    // The index is of names that are not empty, and SQLite sees from the statement alone that it can serve.
    ids(
        "SELECT invoke_id FROM invocations WHERE name = ?1 AND name <> '' ORDER BY id DESC LIMIT 1",
        &[&text],
    )
}

/// All invocations, for [`read`].
pub(super) fn all() -> Query {
    let columns = format!(
        "v.id, v.invoke_id, v.command_id, v.name, v.description, v.type, v.content, v.timeout_s,
         v.termination_mode, v.created_at_ms, v.finished_at_ms, v.frequency, v.repeat_mode,
         v.overlap_policy, v.missed_policy, v.spread_s, v.end_at_ms, v.fires_max, v.paused_at_ms,
         v.parameters, v.parameter_passing, v.default_parameters, v.secret_parameters, v.working_dir,
         v.username, v.launcher, v.output_to, v.container_id, v.container_name,
         v.windows_password_name, v.resource_group_id, v.caller, v.resource_limits,
         v.survive_restarts, v.retry, {}, v.rate_control,
         (SELECT r.invoke_id FROM invocations r WHERE r.id = v.retry_of), v.stop_at_ms, v.stopped_by,
         v.stop_reason",
        Tagged::Invocation.column("v.id")
    );
    let mut query = Query::new(columns, "invocations v", "v.id");
    query.name = |row| Some(InvokeId::from_bytes(row.get(1).ok()?).to_string());
    query
}

/// The condition that picks the invocations that stand so: what `roll_up` says, in SQL, so that
/// none has to be read to be passed over.
fn standing(status: InvocationStatus) -> String {
    let any = any_stands;
    // Without any other fire to come, an earlier one has not ended.
    let running = format!("({} OR NOT ({}))", any("'Running', 'Scheduled'"), targets::ANY_LEFT);
    let in_order = [
        (InvocationStatus::Stopping, any("'Stopping'")),
        (InvocationStatus::Pending, any("'Pending'")),
        (InvocationStatus::Running, running),
    ];
    if status.is_final() {
        return format!("v.status = '{status}'");
    }
    let mut conditions = vec!["v.finished_at_ms IS NULL".to_owned()];
    for (invocation, stands_so) in in_order {
        if invocation == status {
            conditions.push(stands_so);
            break;
        }
        conditions.push(format!("NOT {stands_so}"));
    }
    conditions.join(" AND ")
}

/// The condition that picks the invocations that stand so in the older terms: what
/// [`InvocationStatus::invoke_status`] says, in SQL.
fn standing_in_older_terms(status: InvokeStatus) -> String {
    let any = |wanted: InvokeStatus| {
        let of = ExecutionStatus::ALL.iter().filter(|status| status.invoke_status() == wanted);
        let of: Vec<_> = of.map(|status| format!("'{status}'")).collect();
        any_stands(&of.join(", "))
    };
    let ended = "v.status IN ('Success', 'Failed', 'PartialFailed')";
    let (finished, failed) = (any(InvokeStatus::Finished), any(InvokeStatus::Failed));
    match status {
        InvokeStatus::Running => {
            format!("v.finished_at_ms IS NULL AND NOT ({})", standing(InvocationStatus::Stopping))
        }
        InvokeStatus::Stopping => standing(InvocationStatus::Stopping),
        InvokeStatus::Stopped => standing(InvocationStatus::Stopped),
        InvokeStatus::Finished => format!("{ended} AND {finished} AND NOT {failed}"),
        InvokeStatus::PartialFailed => format!("{ended} AND {finished} AND {failed}"),
        InvokeStatus::Failed => format!("{ended} AND NOT {finished}"),
    }
}

/// The condition that picks the invocations of a command: of a kept one by its id, of another by
/// the digits it shares with its invocation. Takes the id twice.
pub(super) const OF_COMMAND: &str =
    "(v.command_id = ? OR (v.invoke_id = ? AND v.command_id IS NULL))";

pub(super) fn read(
    tx: Tx<'_>,
    row: &Row<'_>,
    filter: &DescribeInvocations,
    encoding: ContentEncoding,
) -> Result<Invocation> {
    let id = row.get(0)?;
    let invoke_id = InvokeId::from_bytes(row.get(1)?);
    let content = contents::get(tx, row.get(6)?)?;
    let time = |column| row.get::<_, Option<i64>>(column)?.map(read_time).transpose();
    let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let arguments = read_arguments(row, 19)?.unwrap_or_default().redacted();
    let settings = read_settings(row, 23)?;
    let status = status(tx, id)?;
    let rate_control: RateControl = read_json(row, 36)?;
    let creation_time = read_time(row.get(9)?)?;
    let invoke_instances = match filter.omit_instances {
        true => Vec::new(),
        false => {
            let on = standings::Question {
                creation_time,
                only: filter.instance_id.as_ref(),
                with_output: filter.include_output,
                output_to: settings.output_to.as_deref(),
                encoding,
            };
            standings::of_invocation(tx, id, &on)?
        }
    };
    Ok(Invocation {
        invoke_id,
        command_id: read_command_id(row, 2, invoke_id)?,
        command_name: row.get(3)?,
        command_description: row.get(4)?,
        command_type: read_type(row, 5)?,
        command_content: Encoded::new(content.to_vec(), encoding),
        status,
        invoke_status: invoke_status(tx, id, status)?,
        timed: targets::any_left(tx, id)?,
        timeout: row.get(7)?,
        termination_mode: read_termination_mode(row, 8)?,
        creation_time,
        finish_time: time(10)?,
        frequency: text(11)?,
        repeat_mode: read_repeat_mode(row, 12)?,
        overlap_policy: read_policy(row, 13)?.unwrap_or_default(),
        missed_policy: read_policy(row, 14)?.unwrap_or_default(),
        spread: row.get(15)?,
        end_time: time(16)?,
        max_fires: row.get(17)?,
        pause_time: time(18)?,
        next_fire_time: timers::next_fire_ms(tx, id)?.map(read_time).transpose()?,
        dealt_until: match row.get_ref(11)? {
            ValueRef::Null => None,
            _ => timers::dealt_until_ms(tx, id)?.map(read_time).transpose()?,
        },
        parameters: arguments.values,
        default_parameters: arguments.defaults,
        secret_parameters: arguments.secrets,
        parameter_passing: arguments.passing,
        working_dir: settings.working_dir.unwrap_or_default(),
        username: settings.username.unwrap_or_default(),
        launcher: settings.launcher.unwrap_or_default(),
        oss_output_delivery: settings.output_to.unwrap_or_default(),
        container_id: text(27)?,
        container_name: text(28)?,
        windows_password_name: text(29)?,
        resource_group_id: text(30)?,
        caller: text(31)?,
        resource_limits: read_json(row, 32)?,
        survive_restarts: row.get(33)?,
        retry: read_json(row, 34)?,
        max_concurrency: rate_control.max_concurrency,
        max_errors: rate_control.max_errors,
        waves: rate_control.waves,
        wave_soak: rate_control.wave_soak,
        priority: rate_control.priority,
        concurrency_key: rate_control.concurrency_key.unwrap_or_default(),
        start_deadline: rate_control.start_deadline,
        deadline: rate_control.deadline,
        tags: tags::read(row, 35)?,
        retry_of: row.get::<_, Option<_>>(37)?.map(InvokeId::from_bytes),
        stop_time: time(38)?,
        stopped_by: text(39)?,
        stop_reason: text(40)?,
        instance_count: instance_count(tx, id)?,
        invoke_instances,
    })
}

/// The status in the older terms. Only what failed has to be looked into for it.
fn invoke_status(tx: Tx<'_>, invocation: i64, status: InvocationStatus) -> Result<InvokeStatus> {
    match status {
        InvocationStatus::Success => Ok(InvokeStatus::Finished),
        InvocationStatus::Failed | InvocationStatus::PartialFailed => {
            Ok(status.invoke_status(&counts(tx, invocation)?))
        }
        _ => Ok(status.invoke_status(&StatusCounts::default())),
    }
}

fn instance_count(tx: Tx<'_>, invocation: i64) -> Result<u64> {
    tx.one(
        "SELECT coalesce(
         (SELECT nullif(count(*), 0) FROM targets t WHERE t.invocation = ?1),
         (SELECT count(*) FROM executions e WHERE e.attempt = 1 AND e.fire =
             (SELECT min(f.id) FROM fires f WHERE f.invocation = ?1)))",
        [invocation],
        |row| row.get(0),
    )
}

pub(super) fn read_command_id(
    row: &Row<'_>,
    column: usize,
    invoke_id: InvokeId,
) -> Result<CommandId> {
    let kept: Option<[u8; 16]> = row.get(column)?;
    Ok(kept.map_or_else(|| CommandId::of_invocation(invoke_id), CommandId::from_bytes))
}

pub(super) fn read_termination_mode(row: &Row<'_>, column: usize) -> Result<TerminationMode> {
    parse(row.get_ref(column)?.as_str().map_err(unreadable)?)
}

fn read_repeat_mode(row: &Row<'_>, column: usize) -> Result<RepeatMode> {
    parse(row.get_ref(column)?.as_str().map_err(unreadable)?)
}

/// The values of parameters, in four columns from this one on: those given, how they are passed,
/// the defaults, the names of secret ones; none if the script takes none.
fn read_arguments(row: &Row<'_>, column: usize) -> Result<Option<Arguments>> {
    let Some(values) = row.get_ref(column)?.as_str_or_null().map_err(unreadable)? else {
        return Ok(None);
    };
    Ok(Some(Arguments {
        values: serde_json::from_str(values).map_err(unreadable)?,
        passing: parse(row.get_ref(column + 1)?.as_str().map_err(unreadable)?)?,
        defaults: read_json(row, column + 2)?,
        secrets: read_json(row, column + 3)?,
    }))
}

/// A policy; none of an invocation that runs once.
fn read_policy<P: FromStr<Err: Display>>(row: &Row<'_>, column: usize) -> Result<Option<P>> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(unreadable)?;
    text.map(parse).transpose()
}

pub(super) fn read_status(row: &Row<'_>, column: usize) -> Result<ExecutionStatus> {
    parse(row.get_ref(column)?.as_str().map_err(unreadable)?)
}

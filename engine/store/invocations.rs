//! Tables `invocations` and `fires`: what was asked for, and what it came to.

use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, params_from_iter, types::Value};

use crate::error::{Error, Result, Violation};
use crate::id::{CommandId, InvokeId};
use crate::invocation::recurrence::Recurrence;
use crate::invocation::{DescribeInvocations, Invocation, Job, RepeatMode, TerminationMode};
use crate::schedule::Zone;
use crate::status::{ExecutionStatus, InvocationStatus, StatusCounts, roll_up};
use crate::wire::{ContentEncoding, Encoded};

use super::commands::{Definition, read_time, read_type};
use super::executions::LATEST;
use super::fires::Disposition;
use super::{PageToken, Tx, contents, cut_page, executions, fires, parse, timers, unreadable};

/// An invocation that is about to be stored.
#[derive(Debug)]
pub(crate) struct NewInvocation {
    pub invoke_id: InvokeId,
    /// `None`: the command comes with the invocation and has its digits for an id.
    pub command_id: Option<CommandId>,
    pub definition: Definition,
    pub termination_mode: TerminationMode,
    /// None: it runs at once, and once.
    pub recurrence: Option<Recurrence>,
}

/// The targets of an invocation that share a clock, and when it fires for them first.
#[derive(Debug)]
pub(crate) struct FirstFire {
    pub zone: Zone,
    pub at_ms: i64,
    pub target_rows: Vec<i64>,
}

/// When an invocation runs on its targets.
#[derive(Debug)]
pub(crate) enum Start {
    Now { target_rows: Vec<i64> },
    Planned(Vec<FirstFire>),
}

/// Stores an invocation, with an execution for each target or the timers that will make them.
pub(crate) fn insert(tx: Tx<'_>, new: &NewInvocation, start: &Start, now_ms: i64) -> Result<()> {
    let definition = &new.definition;
    let content = contents::intern(tx, &definition.content)?;
    tx.prepare_cached(
        "INSERT INTO invocations (invoke_id, command_id, name, description, type, content, working_dir,
             timeout_s, termination_mode, repeat_mode, created_at_ms, frequency, overlap_policy, missed_policy)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?
    .execute((
        new.invoke_id.as_bytes(),
        new.command_id.as_ref().map(CommandId::as_bytes),
        &definition.name,
        &definition.description,
        definition.command_type.as_str(),
        content,
        &definition.working_dir,
        definition.timeout_s,
        new.termination_mode.as_str(),
        new.recurrence.as_ref().map_or(RepeatMode::Once, |_| RepeatMode::Period).as_str(),
        now_ms,
        new.recurrence.as_ref().map(|recurrence| recurrence.schedule.to_string()),
        new.recurrence.as_ref().map(|recurrence| recurrence.overlap.as_str()),
        new.recurrence.as_ref().map(|recurrence| recurrence.missed.to_string()),
    ))?;
    let invocation = tx.last_insert_rowid();
    match start {
        Start::Now { target_rows } => {
            let unfinished = target_rows.len();
            let fire =
                fires::insert(tx, invocation, None, now_ms, Disposition::Started, unfinished)?;
            executions::insert_pending(tx, fire, target_rows)
        }
        Start::Planned(fires) => {
            for FirstFire { zone, at_ms, target_rows } in fires {
                timers::insert(tx, invocation, *zone, *at_ms, target_rows)?;
            }
            Ok(())
        }
    }
}

/// The row of an invocation.
pub(crate) fn find(tx: Tx<'_>, invoke_id: InvokeId) -> Result<i64> {
    tx.prepare_cached("SELECT id FROM invocations WHERE invoke_id = ?1")?
        .query_row([invoke_id.as_bytes()], |row| row.get(0))
        .optional()?
        .ok_or_else(|| {
            Error::invalid(Violation::new(
                "InvalidInvokeId.NotFound",
                404,
                "InvokeId",
                format!("there is no invocation `{invoke_id}`"),
            ))
        })
}

/// What the executions of a fire have in common.
pub(crate) fn job_of_fire(tx: Tx<'_>, fire: i64) -> Result<Arc<Job>> {
    tx.prepare_cached(
        "SELECT v.invoke_id, v.command_id, v.type, v.content, v.working_dir, v.timeout_s, v.termination_mode
         FROM fires f JOIN invocations v ON v.id = f.invocation WHERE f.id = ?1",
    )?
    .query_row([fire], |row| Ok(read_job(tx, row)))?
    .map(Arc::new)
}

fn read_job(tx: Tx<'_>, row: &Row<'_>) -> Result<Job> {
    let invoke_id = InvokeId::from_bytes(row.get(0)?);
    Ok(Job {
        invoke_id,
        command_id: read_command_id(row, 1, invoke_id)?,
        command_type: read_type(row, 2)?,
        content: contents::get(tx, row.get(3)?)?,
        working_dir: row.get(4)?,
        timeout_s: row.get(5)?,
        termination_mode: read_termination_mode(row, 6)?,
    })
}

/// Where an invocation stands.
pub(crate) fn status(tx: Tx<'_>, invocation: i64) -> Result<InvocationStatus> {
    let stored: Option<String> = tx
        .prepare_cached("SELECT status FROM invocations WHERE id = ?1")?
        .query_row([invocation], |row| row.get(0))?;
    match stored {
        Some(status) => parse(&status),
        None => Ok(roll_up(&counts(tx, invocation)?, timers::any_left(tx, invocation)?)),
    }
}

/// How many of the latest executions of an invocation stand where.
fn counts(tx: Tx<'_>, invocation: i64) -> Result<StatusCounts> {
    let mut query = tx.prepare_cached(&format!(
        "SELECT e.status, count(*) FROM fires f JOIN executions e ON e.fire = f.id
         WHERE f.invocation = ?1 AND {LATEST} GROUP BY e.status"
    ))?;
    let mut rows = query.query([invocation])?;
    let mut counts = StatusCounts::default();
    while let Some(row) = rows.next()? {
        counts.add(read_status(row, 0)?, row.get(1)?);
    }
    Ok(counts)
}

/// Ends an invocation of which no execution and no timer is left; says how it ended.
pub(crate) fn finish_if_done(
    tx: Tx<'_>,
    invocation: i64,
    now_ms: i64,
) -> Result<Option<(InvokeId, InvocationStatus)>> {
    let done = tx
        .prepare_cached(
            "SELECT v.invoke_id FROM invocations v
             WHERE v.id = ?1 AND v.finished_at_ms IS NULL
               AND NOT EXISTS (SELECT 1 FROM fires f WHERE f.invocation = v.id AND f.unfinished > 0)
               AND NOT EXISTS (SELECT 1 FROM timers m
                               WHERE m.invocation = v.id AND m.next_fire_at_ms IS NOT NULL)",
        )?
        .query_row([invocation], |row| Ok(InvokeId::from_bytes(row.get(0)?)))
        .optional()?;
    let Some(invoke_id) = done else { return Ok(None) };
    let counts = counts(tx, invocation)?;
    // Stopped before its first fire: nothing ran, so nothing succeeded.
    let status = match counts.total() {
        0 => InvocationStatus::Stopped,
        _ => roll_up(&counts, false),
    };
    tx.prepare_cached("UPDATE invocations SET status = ?2, finished_at_ms = ?3 WHERE id = ?1")?
        .execute((invocation, status.as_str(), now_ms))?;
    Ok(Some((invoke_id, status)))
}

/// A page of invocations, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    filter: &DescribeInvocations,
    after: Option<PageToken>,
    page_size: usize,
    encoding: ContentEncoding,
) -> Result<(Vec<Invocation>, Option<PageToken>)> {
    let mut conditions = vec!["v.id < ?"];
    let mut values = vec![Value::from(after.map_or(i64::MAX, |token| token.0))];
    if let Some(id) = filter.invoke_id {
        conditions.push("v.invoke_id = ?");
        values.push(id.as_bytes().to_vec().into());
    }
    if let Some(id) = filter.command_id {
        conditions.push(OF_COMMAND);
        values.extend([id.as_bytes().to_vec().into(), id.as_bytes().to_vec().into()]);
    }
    if let Some(id) = &filter.instance_id {
        conditions.push(
            "(SELECT id FROM instances WHERE instance_id = ?) IN (
                 SELECT e.instance FROM fires f JOIN executions e ON e.fire = f.id WHERE f.invocation = v.id
                 UNION ALL
                 SELECT t.instance FROM timers m JOIN targets t ON t.timer = m.id WHERE m.invocation = v.id)",
        );
        values.push(id.as_str().to_owned().into());
    }
    let standing = filter.status.map(standing);
    if let Some(condition) = &standing {
        conditions.push(condition);
    }
    values.push((page_size as i64 + 1).into());
    let mut query = tx.prepare_cached(&format!(
        "SELECT v.id, v.invoke_id, v.command_id, v.name, v.description, v.type, v.content, v.working_dir,
                v.timeout_s, v.termination_mode, v.created_at_ms, v.finished_at_ms, v.frequency
         FROM invocations v WHERE {} ORDER BY v.id DESC LIMIT ?",
        conditions.join(" AND ")
    ))?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push((row.get(0)?, read(tx, row, encoding)?));
    }
    let next = cut_page(&mut entries, page_size);
    Ok((entries.into_iter().map(|(_, invocation)| invocation).collect(), next))
}

/// The condition that picks the invocations that stand so: what `roll_up` says, in SQL, so that
/// none has to be read to be passed over.
fn standing(status: InvocationStatus) -> String {
    let any = |status: ExecutionStatus| {
        format!(
            "EXISTS (SELECT 1 FROM fires f JOIN executions e ON e.fire = f.id
             WHERE f.invocation = v.id AND f.unfinished > 0 AND e.status = '{status}')"
        )
    };
    let in_order = [
        (InvocationStatus::Stopping, ExecutionStatus::Stopping),
        (InvocationStatus::Pending, ExecutionStatus::Pending),
        (InvocationStatus::Running, ExecutionStatus::Running),
    ];
    if status.is_final() {
        return format!("v.status = '{status}'");
    }
    let mut conditions = vec!["v.finished_at_ms IS NULL".to_owned()];
    for (invocation, execution) in in_order {
        if invocation == status {
            conditions.push(any(execution));
            break;
        }
        conditions.push(format!("NOT {}", any(execution)));
    }
    conditions.join(" AND ")
}

/// The condition that picks the invocations of a command: of a kept one by its id, of another by
/// the digits it shares with its invocation. Takes the id twice.
pub(super) const OF_COMMAND: &str =
    "(v.command_id = ? OR (v.invoke_id = ? AND v.command_id IS NULL))";

fn read(tx: Tx<'_>, row: &Row<'_>, encoding: ContentEncoding) -> Result<Invocation> {
    let id = row.get(0)?;
    let invoke_id = InvokeId::from_bytes(row.get(1)?);
    let content = contents::get(tx, row.get(6)?)?;
    let finished_at_ms: Option<i64> = row.get(11)?;
    let frequency: Option<String> = row.get(12)?;
    Ok(Invocation {
        invoke_id,
        command_id: read_command_id(row, 2, invoke_id)?,
        command_name: row.get(3)?,
        command_description: row.get(4)?,
        command_type: read_type(row, 5)?,
        command_content: Encoded::new(content.to_vec(), encoding),
        status: status(tx, id)?,
        repeat_mode: if frequency.is_some() { RepeatMode::Period } else { RepeatMode::Once },
        frequency: frequency.unwrap_or_default(),
        working_dir: row.get::<_, Option<String>>(7)?.unwrap_or_default(),
        timeout: row.get(8)?,
        termination_mode: read_termination_mode(row, 9)?,
        creation_time: read_time(row.get(10)?)?,
        finish_time: finished_at_ms.map(read_time).transpose()?,
        instance_count: instance_count(tx, id)?,
    })
}

fn instance_count(tx: Tx<'_>, invocation: i64) -> Result<u64> {
    let count = tx
        .prepare_cached(
            "SELECT coalesce(
                 (SELECT nullif(count(*), 0) FROM timers m JOIN targets t ON t.timer = m.id WHERE m.invocation = ?1),
                 (SELECT count(*) FROM executions e WHERE e.attempt = 1 AND e.fire =
                     (SELECT min(f.id) FROM fires f WHERE f.invocation = ?1)))",
        )?
        .query_row([invocation], |row| row.get(0))?;
    Ok(count)
}

pub(super) fn read_command_id(
    row: &Row<'_>,
    column: usize,
    invoke_id: InvokeId,
) -> Result<CommandId> {
    let kept: Option<[u8; 16]> = row.get(column)?;
    Ok(kept.map_or_else(|| CommandId::of_invocation(invoke_id), CommandId::from_bytes))
}

fn read_termination_mode(row: &Row<'_>, column: usize) -> Result<TerminationMode> {
    let text = row.get_ref(column)?.as_str().map_err(unreadable)?;
    TerminationMode::ALL
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| unreadable(text))
}

pub(super) fn read_status(row: &Row<'_>, column: usize) -> Result<ExecutionStatus> {
    parse(row.get_ref(column)?.as_str().map_err(unreadable)?)
}

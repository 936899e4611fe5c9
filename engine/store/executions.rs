//! Table `executions`: every change of a status is one guarded UPDATE here, and says so if it found
//! the row in another state.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Row, params_from_iter, types::Value};

use crate::error::{Error, Result, Violation};
use crate::execution::{
    DescribeInvocationResults, EXECUTION_INTERRUPTED, InvocationResult, Verdict,
};
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::output::Output;
use crate::status::{Cause, ExecutionStatus, InvocationStatus};
use crate::wire::ContentEncoding;

use super::commands::read_time;
use super::invocations::{OF_COMMAND, read_command_id, read_status};
use super::{PageToken, Tx, cut_page, fires, invocations, outputs, timers, unreadable};

/// Stores an execution for each target of a fire, in one statement: each counts on by itself
/// through `sqlite_sequence` otherwise.
pub(super) fn insert_pending(tx: Tx<'_>, fire: i64, target_rows: &[i64]) -> Result<()> {
    let targets = serde_json::to_string(target_rows).map_err(unreadable)?;
    let stored = tx
        .prepare_cached(
            "INSERT INTO executions (fire, instance, attempt, status)
             SELECT ?1, value, 1, 'Pending' FROM json_each(?2) ORDER BY key",
        )?
        .execute((fire, targets))?;
    if stored == target_rows.len() {
        return Ok(());
    }
    Err(Error::Internal(format!("{stored} executions stored for {} targets", target_rows.len())))
}

/// Fires after `after` with executions that have not ended, oldest first.
pub(crate) fn fires_with_work(tx: Tx<'_>, after: i64, max: usize) -> Result<Vec<i64>> {
    let mut query = tx.prepare_cached(
        "SELECT id FROM fires INDEXED BY fires_unfinished
         WHERE unfinished > 0 AND id > ?1 ORDER BY id LIMIT ?2",
    )?;
    let fires = query.query_map((after, max as i64), |row| row.get(0))?;
    Ok(fires.collect::<rusqlite::Result<_>>()?)
}

/// An execution that has just been claimed.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub id: ExecutionId,
    pub attempt: u32,
    pub instance: i64,
    pub instance_id: InstanceId,
    pub executor: String,
}

/// Claims up to `max` waiting executions of a fire, those on instances after `after`.
pub(crate) fn claim(
    tx: Tx<'_>,
    fire: i64,
    after: i64,
    max: usize,
    now_ms: i64,
) -> Result<Vec<Claimed>> {
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.attempt, i.instance_id, i.executor, e.instance
         FROM executions e INDEXED BY executions_by_fire JOIN instances i ON i.id = e.instance
         WHERE e.fire = ?1 AND e.instance > ?2 AND e.status = 'Pending'
         ORDER BY e.instance LIMIT ?3",
    )?;
    let waiting = query.query_map((fire, after, max as i64), |row| {
        Ok(Claimed {
            id: ExecutionId(row.get(0)?),
            attempt: row.get(1)?,
            instance: row.get(4)?,
            instance_id: row.get::<_, String>(2)?.into(),
            executor: row.get(3)?,
        })
    })?;
    let claimed: Vec<Claimed> = waiting.collect::<rusqlite::Result<_>>()?;
    let mut update = tx.prepare_cached(
        "UPDATE executions SET status = ?2, started_at_ms = ?3 WHERE id = ?1 AND status = 'Pending'",
    )?;
    for execution in &claimed {
        let changed = update.execute((execution.id.0, Cause::Claimed.target().as_str(), now_ms))?;
        expect_one(changed, execution.id)?;
    }
    Ok(claimed)
}

/// An execution that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub id: ExecutionId,
    pub attempt: u32,
    pub fire: i64,
    pub verdict: Verdict,
    pub output: Output,
    pub finished_at_ms: i64,
}

/// Invocations that ended, and how.
pub(crate) type FinishedInvocations = Vec<(InvokeId, InvocationStatus)>;

/// Writes down how executions ended; says which invocations ended with them.
pub(crate) fn finish(tx: Tx<'_>, ended: &[Ended]) -> Result<FinishedInvocations> {
    let mut fires = EndedByFire::new();
    let mut last_ms = 0;
    for execution in ended {
        finish_one(tx, execution)?;
        *fires.entry(execution.fire).or_default() += 1;
        last_ms = last_ms.max(execution.finished_at_ms);
    }
    finish_invocations(tx, &fires, last_ms)
}

fn finish_one(tx: Tx<'_>, ended: &Ended) -> Result<()> {
    let verdict = &ended.verdict;
    let [from, or_from] = *verdict.cause.sources() else {
        return Err(Error::Internal(format!("{:?} does not end an execution", verdict.cause)));
    };
    let changed = tx
        .prepare_cached(
            "UPDATE executions SET status = ?2, finished_at_ms = ?3, exit_code = ?4, signal = ?5,
                 error_code = nullif(?6, ''), error_info = nullif(?7, '')
             WHERE id = ?1 AND attempt = ?8 AND status IN (?9, ?10)",
        )?
        .execute((
            ended.id.0,
            verdict.cause.target().as_str(),
            ended.finished_at_ms,
            verdict.exit_code,
            verdict.signal,
            verdict.error_code,
            &verdict.error_info,
            ended.attempt,
            from.as_str(),
            or_from.as_str(),
        ))?;
    expect_one(changed, ended.id)?;
    outputs::insert(tx, ended.id, &ended.output)
}

/// How many executions of each fire have ended.
type EndedByFire = BTreeMap<i64, u64>;

fn finish_invocations(tx: Tx<'_>, fires: &EndedByFire, now_ms: i64) -> Result<FinishedInvocations> {
    let mut finished = Vec::new();
    for (&fire, &ended) in fires {
        if let Some(invocation) = fires::count_down(tx, fire, ended)? {
            finished.extend(invocations::finish_if_done(tx, invocation, now_ms)?);
        }
    }
    Ok(finished)
}

/// What a stop found to do.
#[derive(Debug, Default)]
pub(crate) struct Stopped {
    /// Waited, and never will run.
    pub cancelled: Vec<(ExecutionId, InstanceId)>,
    /// Run, and are to be ended.
    pub stopping: Vec<(ExecutionId, InstanceId)>,
    pub finished: FinishedInvocations,
}

/// Stops an invocation, on these instances or on all if none is named.
pub(crate) fn stop(
    tx: Tx<'_>,
    invocation: i64,
    only: &[InstanceId],
    now_ms: i64,
) -> Result<Stopped> {
    for id in only {
        check_target(tx, invocation, id)?;
    }
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.status, i.instance_id, e.fire
         FROM fires f JOIN executions e ON e.fire = f.id JOIN instances i ON i.id = e.instance
         WHERE f.invocation = ?1 AND f.unfinished > 0 AND e.finished_at_ms IS NULL ORDER BY e.id",
    )?;
    let mut rows = query.query([invocation])?;
    let mut stopped = Stopped::default();
    let mut fires = EndedByFire::new();
    while let Some(row) = rows.next()? {
        let id = ExecutionId(row.get(0)?);
        let status = read_status(row, 1)?;
        let instance_id: InstanceId = row.get::<_, String>(2)?.into();
        if !only.is_empty() && !only.contains(&instance_id) {
            continue;
        }
        if let Some(cancelled) = status.on(Cause::StopAskedEarly) {
            cancel(tx, id, status, cancelled, now_ms)?;
            stopped.cancelled.push((id, instance_id));
            *fires.entry(row.get(3)?).or_default() += 1;
        } else if let Some(stopping) = status.on(Cause::StopAsked) {
            let changed = tx
                .prepare_cached(
                    "UPDATE executions SET status = ?2, stop_at_ms = ?3 WHERE id = ?1 AND status = ?4",
                )?
                .execute((id.0, stopping.as_str(), now_ms, status.as_str()))?;
            expect_one(changed, id)?;
            stopped.stopping.push((id, instance_id));
        } else if status == ExecutionStatus::Stopping {
            // Asked before; whoever asked may have been cut off before it came through.
            stopped.stopping.push((id, instance_id));
        }
    }
    stopped.finished = finish_invocations(tx, &fires, now_ms)?;
    if only.is_empty() {
        timers::cancel(tx, invocation)?;
    } else {
        timers::drop_targets(tx, invocation, only)?;
    }
    stopped.finished.extend(invocations::finish_if_done(tx, invocation, now_ms)?);
    Ok(stopped)
}

fn cancel(
    tx: Tx<'_>,
    id: ExecutionId,
    from: ExecutionStatus,
    to: ExecutionStatus,
    now_ms: i64,
) -> Result<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE executions SET status = ?2, stop_at_ms = ?3, finished_at_ms = ?3,
                 error_info = 'stopped before it started'
             WHERE id = ?1 AND status = ?4",
        )?
        .execute((id.0, to.as_str(), now_ms, from.as_str()))?;
    expect_one(changed, id)
}

fn check_target(tx: Tx<'_>, invocation: i64, id: &InstanceId) -> Result<()> {
    let is_target: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM fires f JOIN executions e ON e.fire = f.id
                 WHERE f.invocation = ?1 AND e.instance = i.id)
             OR EXISTS (SELECT 1 FROM timers m JOIN targets t ON t.timer = m.id
                 WHERE m.invocation = ?1 AND t.instance = i.id)
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

/// Ends what an engine left running when it ended: nobody knows how it went on, and nothing is run twice.
pub(crate) fn interrupt_all(tx: Tx<'_>, evidence: &str, now_ms: i64) -> Result<u64> {
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.attempt, e.fire FROM fires f JOIN executions e ON e.fire = f.id
         WHERE f.unfinished > 0 AND e.status IN ('Running', 'Stopping')",
    )?;
    let left = query.query_map((), |row| {
        Ok(Ended {
            id: ExecutionId(row.get(0)?),
            attempt: row.get(1)?,
            fire: row.get(2)?,
            verdict: Verdict {
                cause: Cause::Interrupted,
                exit_code: None,
                signal: None,
                error_code: EXECUTION_INTERRUPTED,
                error_info: evidence.to_owned(),
            },
            output: Output::default(),
            finished_at_ms: now_ms,
        })
    })?;
    let left: Vec<Ended> = left.collect::<rusqlite::Result<_>>()?;
    finish(tx, &left)?;
    Ok(left.len() as u64)
}

fn expect_one(changed: usize, id: ExecutionId) -> Result<()> {
    if changed == 1 {
        return Ok(());
    }
    Err(Error::Internal(format!("execution {id} was not in the state this change starts from")))
}

const RESULT_COLUMNS: &str = "e.id, v.invoke_id, v.command_id, i.instance_id, e.attempt, e.status,
    e.started_at_ms, e.stop_at_ms, e.finished_at_ms, e.exit_code, e.signal, e.error_code, e.error_info
    FROM executions e JOIN fires f ON f.id = e.fire JOIN invocations v ON v.id = f.invocation
    JOIN instances i ON i.id = e.instance";

/// Picks the latest execution of an invocation on an instance.
pub(super) const LATEST: &str =
    "NOT EXISTS (SELECT 1 FROM fires lf JOIN executions l ON l.fire = lf.id
    WHERE lf.invocation = f.invocation AND l.instance = e.instance
      AND (lf.id > f.id OR (lf.id = f.id AND l.attempt > e.attempt)))";

/// A page of executions, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    filter: &DescribeInvocationResults,
    after: Option<PageToken>,
    page_size: usize,
    encoding: ContentEncoding,
) -> Result<(Vec<InvocationResult>, Option<PageToken>)> {
    let mut conditions = vec!["e.id < ?"];
    if !filter.include_history {
        conditions.push(LATEST);
    }
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
        conditions.push("i.instance_id = ?");
        values.push(id.as_str().to_owned().into());
    }
    if let Some(status) = filter.status {
        conditions.push("e.status = ?");
        values.push(status.as_str().to_owned().into());
    }
    values.push((page_size as i64 + 1).into());
    let mut query = tx.prepare_cached(&format!(
        "SELECT {RESULT_COLUMNS} WHERE {} ORDER BY e.id DESC LIMIT ?",
        conditions.join(" AND ")
    ))?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        entries.push((row.get(0)?, read(tx, row, encoding)?));
    }
    let next = cut_page(&mut entries, page_size);
    Ok((entries.into_iter().map(|(_, result)| result).collect(), next))
}

/// Every execution of an invocation, in the order they were made.
pub(crate) fn all_of(tx: Tx<'_>, invocation: i64) -> Result<Vec<InvocationResult>> {
    let mut query = tx.prepare_cached(&format!(
        "SELECT {RESULT_COLUMNS} WHERE f.invocation = ?1 AND {LATEST} ORDER BY e.id"
    ))?;
    let mut rows = query.query([invocation])?;
    let mut results = Vec::new();
    while let Some(row) = rows.next()? {
        results.push(read(tx, row, ContentEncoding::Base64)?);
    }
    Ok(results)
}

fn read(tx: Tx<'_>, row: &Row<'_>, encoding: ContentEncoding) -> Result<InvocationResult> {
    let time = |column| row.get::<_, Option<i64>>(column)?.map(read_time).transpose();
    let execution_id = ExecutionId(row.get(0)?);
    let invoke_id = InvokeId::from_bytes(row.get(1)?);
    let (start_time, finish_time) = (time(6)?, time(8)?);
    let duration = start_time.zip(finish_time).map(|(start, finish)| finish - start);
    let mut result = InvocationResult {
        execution_id,
        invoke_id,
        command_id: read_command_id(row, 2, invoke_id)?,
        instance_id: row.get::<_, String>(3)?.into(),
        attempt: row.get(4)?,
        status: read_status(row, 5)?,
        start_time,
        finish_time,
        stop_time: time(7)?,
        duration_ms: duration.map(|d| d.num_milliseconds().max(0).cast_unsigned()),
        exit_code: row.get(9)?,
        signal: row.get(10)?,
        error_code: row.get::<_, Option<String>>(11)?.unwrap_or_default(),
        error_info: row.get::<_, Option<String>>(12)?.unwrap_or_default(),
        output: crate::wire::Encoded::default(),
        dropped: 0,
        dropped_at: None,
    };
    result.set_output(outputs::get(tx, execution_id)?, encoding);
    Ok(result)
}

/// An execution as a watcher needs it: its states so far, without its output.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub id: ExecutionId,
    pub instance_id: InstanceId,
    pub status: ExecutionStatus,
    pub created_at_ms: i64,
    pub started_at_ms: Option<i64>,
    pub stop_at_ms: Option<i64>,
    pub finished_at_ms: Option<i64>,
}

/// Where the executions of an invocation stand, in the order they were made: those from `from` on,
/// or the latest on each instance.
pub(crate) fn progress_of(
    tx: Tx<'_>,
    invocation: i64,
    from: Option<ExecutionId>,
) -> Result<Vec<Progress>> {
    let condition = match from {
        Some(ExecutionId(id)) => format!("e.id >= {id}"),
        None => LATEST.to_owned(),
    };
    let mut query = tx.prepare_cached(&format!(
        "SELECT e.id, i.instance_id, e.status, f.fire_at_ms, e.started_at_ms, e.stop_at_ms, e.finished_at_ms
         FROM fires f JOIN executions e ON e.fire = f.id JOIN instances i ON i.id = e.instance
         WHERE f.invocation = ?1 AND ({condition}) ORDER BY e.id"
    ))?;
    let mut rows = query.query([invocation])?;
    let mut progress = Vec::new();
    while let Some(row) = rows.next()? {
        progress.push(Progress {
            id: ExecutionId(row.get(0)?),
            instance_id: row.get::<_, String>(1)?.into(),
            status: read_status(row, 2)?,
            created_at_ms: row.get(3)?,
            started_at_ms: row.get(4)?,
            stop_at_ms: row.get(5)?,
            finished_at_ms: row.get(6)?,
        });
    }
    Ok(progress)
}

/// What the record of a finished execution keeps of its output.
pub(crate) fn output(tx: Tx<'_>, id: ExecutionId) -> Result<Output> {
    let exists = tx
        .prepare_cached("SELECT 1 FROM executions WHERE id = ?1")?
        .query_row([id.0], |_| Ok(()))
        .optional()?;
    if exists.is_none() {
        return Err(unreadable(format_args!("execution {id} is gone")));
    }
    outputs::get(tx, id)
}

//! Table `executions`: every change of a status is one guarded UPDATE here, and says so if it found
//! the row in another state.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row};

use crate::command::settings::Settings;
use crate::error::{Error, Result};
use crate::execution::{
    DescribeInvocationResults, EXECUTION_INTERRUPTED, InvocationResult, Verdict,
};
use crate::given::Given;
use crate::id::{CommandId, ExecutionId, InstanceId, InvokeId};
use crate::invocation::TerminationMode;
use crate::invocation::container::Container;
use crate::invocation::fire::FiredOn;
use crate::output::{Delivery, Output};
use crate::status::{Cause, ExecutionStatus, InvocationStatus};
use crate::tag::Tag;
use crate::wire::ContentEncoding;

use super::commands::{read_settings, read_time};
use super::invocations::{OF_COMMAND, read_command_id, read_status, read_termination_mode};
use super::tags::{self, Tagged};
use super::{Listing, Query, Slice, Tx, deliveries, fires, invocations, outputs, unreadable};

/// An execution that is about to be stored.
#[derive(Debug)]
pub(super) struct NewExecution<'a> {
    pub instance: i64,
    /// `Pending`, `Scheduled` or `Skipped`.
    pub status: ExecutionStatus,
    /// Why it will not run.
    pub info: &'a str,
}

/// Stores the executions of a fire.
pub(super) fn insert<'a>(
    tx: Tx<'_>,
    fire: i64,
    executions: impl ExactSizeIterator<Item = NewExecution<'a>>,
    now_ms: i64,
) -> Result<()> {
    const SQL: &str =
        "INSERT INTO executions (fire, instance, attempt, status, finished_at_ms, error_info)";
    let finished_at_ms = |one: &NewExecution<'_>| Some(now_ms).filter(|_| one.status.is_final());
    let count = executions.len();
    if count <= FEW {
        let mut insert =
            tx.prepare_cached(&format!("{SQL} VALUES (?1, ?2, 1, ?3, ?4, nullif(?5, ''))"))?;
        for one in executions {
            insert.execute((
                fire,
                one.instance,
                one.status.as_str(),
                finished_at_ms(&one),
                one.info,
            ))?;
        }
        return Ok(());
    }
    // In one statement: each counts on by itself through `sqlite_sequence` otherwise.
    let rows: Vec<_> = executions
        .map(|one| (one.instance, one.status.as_str(), finished_at_ms(&one), one.info))
        .collect();
    let rows = serde_json::to_string(&rows).map_err(unreadable)?;
    let stored = tx
        .prepare_cached(&format!(
            "{SQL} SELECT ?1, value ->> 0, 1, value ->> 1, value ->> 2, nullif(value ->> 3, '')
             FROM json_each(?2) ORDER BY key"
        ))?
        .execute((fire, rows))?;
    if stored == count {
        return Ok(());
    }
    Err(Error::Internal(format!("{stored} executions stored for {count} targets")))
}

/// So many rows are stored faster one by one than as a JSON document.
const FEW: usize = 2;

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
    pub instance_name: String,
    pub executor: String,
}

/// Claims up to `max` waiting executions of a fire, those on instances after `after`; whether others
/// wait behind them.
pub(crate) fn claim(
    tx: Tx<'_>,
    fire: i64,
    after: i64,
    max: usize,
    now_ms: i64,
) -> Result<(Vec<Claimed>, bool)> {
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.attempt, i.instance_id, i.executor, e.instance, i.name
         FROM executions e INDEXED BY executions_by_fire JOIN instances i ON i.id = e.instance
         WHERE e.fire = ?1 AND e.instance > ?2 AND e.status = 'Pending'
         ORDER BY e.instance LIMIT ?3",
    )?;
    let waiting = query.query_map((fire, after, max as i64 + 1), |row| {
        Ok(Claimed {
            id: ExecutionId(row.get(0)?),
            attempt: row.get(1)?,
            instance: row.get(4)?,
            instance_id: row.get::<_, String>(2)?.into(),
            executor: row.get(3)?,
            instance_name: row.get(5)?,
        })
    })?;
    let mut claimed: Vec<Claimed> = waiting.collect::<rusqlite::Result<_>>()?;
    let more = claimed.len() > max;
    claimed.truncate(max);
    let mut update = tx.prepare_cached(
        "UPDATE executions SET status = ?2, started_at_ms = ?3 WHERE id = ?1 AND status = 'Pending'",
    )?;
    for execution in &claimed {
        let changed = update.execute((execution.id.0, Cause::Claimed.target().as_str(), now_ms))?;
        expect_one(changed, execution.id)?;
    }
    Ok((claimed, more))
}

/// An execution that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub id: ExecutionId,
    pub attempt: u32,
    pub fire: i64,
    /// Whether another execution may wait for this one to end.
    pub lets_wait: bool,
    pub verdict: Verdict,
    pub output: Output,
    /// What becomes of the whole output, if it was to go anywhere and something may have been printed.
    pub delivery: Option<Delivery>,
    pub finished_at_ms: i64,
}

/// Invocations that ended, and how.
pub(crate) type FinishedInvocations = Vec<(InvokeId, InvocationStatus)>;

/// What the end of executions led to.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    pub invocations: FinishedInvocations,
    /// Fires with an execution that waited for one of these, and is pending now.
    pub released: Vec<i64>,
}

/// Writes down how executions ended; says what ended with them, and what begins.
pub(crate) fn finish(tx: Tx<'_>, ended: &[Ended]) -> Result<Finished> {
    let mut fires = EndedByFire::new();
    let mut last_ms = 0;
    let mut released = Vec::new();
    for execution in ended {
        finish_one(tx, execution)?;
        if execution.lets_wait {
            released.extend(release(tx, execution.id)?);
        }
        *fires.entry(execution.fire).or_default() += 1;
        last_ms = last_ms.max(execution.finished_at_ms);
    }
    Ok(Finished { invocations: finish_invocations(tx, &fires, last_ms)?, released })
}

/// Lets the execution that waited for the end of this one be claimed; its fire.
fn release(tx: Tx<'_>, ended: ExecutionId) -> Result<Option<i64>> {
    let fire = tx
        .prepare_cached(
            "UPDATE executions SET status = ?2 WHERE status = 'Scheduled' AND id = (
                 SELECT w.id FROM executions e JOIN fires f ON f.id = e.fire
                     CROSS JOIN fires wf INDEXED BY fires_unfinished_by_invocation
                     CROSS JOIN executions w INDEXED BY executions_by_fire
                 WHERE e.id = ?1 AND wf.invocation = f.invocation AND wf.unfinished > 0
                     AND w.fire = wf.id AND w.instance = e.instance AND w.status = 'Scheduled'
                 ORDER BY wf.id LIMIT 1)
             RETURNING fire",
        )?
        .query_row((ended.0, Cause::Released.target().as_str()), |row| row.get(0))
        .optional()?;
    Ok(fire)
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
    outputs::insert(tx, ended.id, &ended.output)?;
    if let Some(delivery) = &ended.delivery {
        deliveries::insert(tx, ended.id, delivery)?;
    }
    Ok(())
}

/// How many executions of each fire have ended.
pub(super) type EndedByFire = BTreeMap<i64, u64>;

pub(super) fn finish_invocations(
    tx: Tx<'_>,
    fires: &EndedByFire,
    now_ms: i64,
) -> Result<FinishedInvocations> {
    let mut finished = Vec::new();
    for (&fire, &ended) in fires {
        if let Some(invocation) = fires::count_down(tx, fire, ended)? {
            finished.extend(invocations::finish_if_done(tx, invocation, now_ms)?);
        }
    }
    Ok(finished)
}

/// What an engine left running when it ended.
#[derive(Debug, Default)]
pub(crate) struct Interrupted {
    pub executions: Vec<(InvokeId, ExecutionId, InstanceId)>,
    pub invocations: FinishedInvocations,
}

/// Ends what an engine left running when it ended: nobody knows how it went on, and nothing is run twice.
pub(crate) fn interrupt_all(tx: Tx<'_>, evidence: &str, now_ms: i64) -> Result<Interrupted> {
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.attempt, e.fire, v.overlap_policy IS NOT NULL, v.invoke_id, i.instance_id,
             v.output_to IS NOT NULL
         FROM fires f INDEXED BY fires_unfinished
             CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
             JOIN invocations v ON v.id = f.invocation JOIN instances i ON i.id = e.instance
         WHERE f.unfinished > 0 AND e.status IN ('Running', 'Stopping')",
    )?;
    let mut rows = query.query(())?;
    let (mut left, mut interrupted) = (Vec::new(), Interrupted::default());
    while let Some(row) = rows.next()? {
        let id = ExecutionId(row.get(0)?);
        left.push(Ended {
            id,
            attempt: row.get(1)?,
            fire: row.get(2)?,
            lets_wait: row.get(3)?,
            verdict: Verdict {
                cause: Cause::Interrupted,
                exit_code: None,
                signal: None,
                error_code: EXECUTION_INTERRUPTED,
                error_info: evidence.to_owned(),
            },
            output: Output::default(),
            // What it printed until then may still be there.
            delivery: row.get::<_, bool>(6)?.then(|| Delivery::in_progress(None)),
            finished_at_ms: now_ms,
        });
        let instance_id = row.get::<_, String>(5)?.into();
        interrupted.executions.push((InvokeId::from_bytes(row.get(4)?), id, instance_id));
    }
    interrupted.invocations = finish(tx, &left)?.invocations;
    Ok(interrupted)
}

pub(super) fn expect_one(changed: usize, id: ExecutionId) -> Result<()> {
    if changed == 1 {
        return Ok(());
    }
    Err(Error::Internal(format!("execution {id} was not in the state this change starts from")))
}

const RESULT_TABLES: &str = "executions e JOIN fires f ON f.id = e.fire
    JOIN invocations v ON v.id = f.invocation JOIN instances i ON i.id = e.instance";

/// For [`read`].
const RESULT_COLUMNS: &str =
    "e.id, f.invocation, i.instance_id, e.attempt, e.status, e.started_at_ms,
    e.stop_at_ms, e.finished_at_ms, e.exit_code, e.signal, e.error_code, e.error_info, e.instance";

/// Picks the latest execution of an invocation on an instance. One condition for later fires and one
/// for later attempts: so each looks at what is later only, however long the history before it is.
pub(super) const LATEST: &str = "NOT EXISTS (
    SELECT 1 FROM fires lf INDEXED BY fires_by_invocation CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = f.invocation AND lf.id > f.id AND l.fire = lf.id AND l.instance = e.instance)
    AND NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt)";

/// Picks the latest one that says how the invocation stands: a skipped one gave way to another, and
/// one that is scheduled waits for another.
pub(super) const LATEST_STANDING: &str = "e.status NOT IN ('Skipped', 'Scheduled') AND NOT EXISTS (
    SELECT 1 FROM fires lf INDEXED BY fires_by_invocation CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = f.invocation AND lf.id > f.id AND l.fire = lf.id AND l.instance = e.instance
      AND l.status NOT IN ('Skipped', 'Scheduled'))
    AND NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt
      AND l.status NOT IN ('Skipped', 'Scheduled'))";

/// The latest one that says how an invocation stands on its target `t`; found from the newest fire
/// back, and mostly there.
pub(super) const LATEST_ON_TARGET: &str = "SELECT l.id FROM fires lf INDEXED BY fires_by_invocation
        CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = t.invocation AND l.fire = lf.id AND l.instance = t.instance
        AND l.status NOT IN ('Skipped', 'Scheduled')
    ORDER BY lf.id DESC, l.attempt DESC LIMIT 1";

/// All executions, for [`read`].
pub(super) fn all() -> Query {
    Query {
        columns: RESULT_COLUMNS.to_owned(),
        tables: RESULT_TABLES.to_owned(),
        key: "e.id",
        ascending: false,
        conditions: Vec::new(),
        values: Vec::new(),
    }
}

/// A slice of the executions, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    filter: &DescribeInvocationResults,
    slice: Slice,
    encoding: ContentEncoding,
) -> Result<Listing<InvocationResult>> {
    let mut query = all();
    query.conditions = Tagged::Invocation.conditions("v.id", &filter.tags, &mut query.values);
    if !filter.include_history {
        query.conditions.push(LATEST.to_owned());
    }
    query.filter("v.invoke_id = ?", filter.invoke_id.map(|id| id.as_bytes().to_vec()));
    if let Some(id) = filter.command_id {
        query.conditions.push(OF_COMMAND.to_owned());
        query.values.extend([id.as_bytes().to_vec().into(), id.as_bytes().to_vec().into()]);
    }
    query.filter("i.instance_id = ?", filter.instance_id.as_ref().map(|id| id.as_str().to_owned()));
    query.filter("v.resource_group_id = ?", filter.resource_group_id.clone());
    query.filter("e.status = ?", filter.status.map(|status| status.as_str().to_owned()));
    if let Some(Given::Known(named)) = &filter.invoke_record_status {
        let is_named = |status: &&ExecutionStatus| {
            named.status == Some(**status) || named.invoke_status == Some(status.invoke_status())
        };
        let named =
            ExecutionStatus::ALL.iter().filter(is_named).map(|status| format!("'{status}'"));
        query.conditions.push(format!("e.status IN ({})", named.collect::<Vec<_>>().join(", ")));
    }
    let mut known = Known::default();
    query.slice(tx, slice, |row| read(tx, row, &mut known, Some(encoding)))
}

/// The latest execution of an invocation on each of its instances, in the order they were made.
pub(crate) fn all_of(tx: Tx<'_>, invocation: i64) -> Result<Vec<InvocationResult>> {
    let mut query = tx.prepare_cached(&format!(
        "SELECT {RESULT_COLUMNS} FROM {RESULT_TABLES} WHERE f.invocation = ?1 AND {LATEST} ORDER BY e.id"
    ))?;
    let mut rows = query.query([invocation])?;
    let (mut results, mut known) = (Vec::new(), Known::default());
    while let Some(row) = rows.next()? {
        results.push(read(tx, row, &mut known, Some(ContentEncoding::Base64))?);
    }
    Ok(results)
}

/// What the executions of a listing have in common, each looked up once.
#[derive(Default)]
pub(super) struct Known {
    invocations: HashMap<i64, Arc<OfInvocation>>,
    /// How many executions an invocation has had on an instance.
    repeats: HashMap<(i64, i64), u64>,
}

/// What the record of an execution says of its invocation.
struct OfInvocation {
    invoke_id: InvokeId,
    command_id: CommandId,
    termination_mode: TerminationMode,
    settings: Settings,
    container: Container,
    runs_once: bool,
    tags: Vec<Tag>,
}

impl Known {
    fn invocation(&mut self, tx: Tx<'_>, invocation: i64) -> Result<Arc<OfInvocation>> {
        if let Some(known) = self.invocations.get(&invocation) {
            return Ok(Arc::clone(known));
        }
        let found = tx
            .prepare_cached(&format!(
                "SELECT v.invoke_id, v.command_id, v.termination_mode, v.working_dir, v.username,
                     v.launcher, v.output_to, v.container_id, v.container_name,
                     v.repeat_mode = 'Once', {}
                 FROM invocations v WHERE v.id = ?1",
                Tagged::Invocation.column("v.id")
            ))?
            .query_row([invocation], |row| Ok(OfInvocation::read(row)))?;
        let found = Arc::new(found?);
        self.invocations.insert(invocation, Arc::clone(&found));
        Ok(found)
    }

    fn repeats(&mut self, tx: Tx<'_>, invocation: i64, instance: i64) -> Result<u64> {
        if let Some(count) = self.repeats.get(&(invocation, instance)) {
            return Ok(*count);
        }
        let count = tx
            .prepare_cached(
                "SELECT count(*) FROM fires f INDEXED BY fires_by_invocation
                     CROSS JOIN executions e INDEXED BY executions_by_fire
                 WHERE f.invocation = ?1 AND e.fire = f.id AND e.instance = ?2",
            )?
            .query_row((invocation, instance), |row| row.get(0))?;
        self.repeats.insert((invocation, instance), count);
        Ok(count)
    }
}

impl OfInvocation {
    fn read(row: &Row<'_>) -> Result<Self> {
        let invoke_id = InvokeId::from_bytes(row.get(0)?);
        Ok(Self {
            invoke_id,
            command_id: read_command_id(row, 1, invoke_id)?,
            termination_mode: read_termination_mode(row, 2)?,
            settings: read_settings(row, 3)?,
            container: Container { id: row.get(7)?, name: row.get(8)? },
            runs_once: row.get(9)?,
            tags: tags::read(row, 10)?,
        })
    }
}

/// An execution; its output in an encoding, or none.
pub(super) fn read(
    tx: Tx<'_>,
    row: &Row<'_>,
    known: &mut Known,
    output: Option<ContentEncoding>,
) -> Result<InvocationResult> {
    let time = |column| row.get::<_, Option<i64>>(column)?.map(read_time).transpose();
    let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    let execution_id = ExecutionId(row.get(0)?);
    let of = known.invocation(tx, row.get(1)?)?;
    let status = read_status(row, 4)?;
    let (start_time, finish_time) = (time(5)?, time(7)?);
    let duration = start_time.zip(finish_time).map(|(start, finish)| finish - start);
    let output_to = of.settings.output_to.as_deref();
    let delivery = deliveries::told(tx, output_to, Some((execution_id, status)))?;
    let mut result = InvocationResult {
        execution_id,
        invoke_id: of.invoke_id,
        command_id: of.command_id,
        instance_id: row.get::<_, String>(2)?.into(),
        attempt: row.get(3)?,
        status,
        invoke_record_status: status.invoke_status(),
        repeats: if of.runs_once { 1 } else { known.repeats(tx, row.get(1)?, row.get(12)?)? },
        start_time,
        finish_time,
        stop_time: time(6)?,
        duration_ms: duration.map(|d| d.num_milliseconds().max(0).cast_unsigned()),
        exit_code: row.get(8)?,
        signal: row.get(9)?,
        error_code: text(10)?,
        error_info: text(11)?,
        output: crate::wire::Encoded::default(),
        dropped: 0,
        dropped_at: None,
        username: given(&of.settings.username),
        launcher: given(&of.settings.launcher),
        container_id: given(&of.container.id),
        container_name: given(&of.container.name),
        termination_mode: of.termination_mode,
        tags: of.tags.clone(),
        oss_output_delivery: given(&of.settings.output_to),
        oss_output_status: delivery.status,
        oss_output_uri: delivery.uri,
        oss_output_error_code: delivery.error_code,
        oss_output_error_info: delivery.error_info,
    };
    if let Some(encoding) = output {
        result.set_output(outputs::get(tx, execution_id)?, encoding);
    }
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
/// or the latest on each instance and whatever has not ended.
pub(crate) fn progress_of(
    tx: Tx<'_>,
    invocation: i64,
    from: Option<ExecutionId>,
) -> Result<Vec<Progress>> {
    let condition = match from {
        Some(ExecutionId(id)) => format!("e.id >= {id}"),
        // What still runs may be older: a fire that meets it is skipped.
        None => format!("e.finished_at_ms IS NULL OR {LATEST}"),
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

/// What became of a fire on each instance.
pub(crate) fn of_fire(tx: Tx<'_>, fire: i64) -> Result<Vec<FiredOn>> {
    let mut query = tx.prepare_cached(
        "SELECT e.id, i.instance_id, e.status, e.error_info
         FROM executions e JOIN instances i ON i.id = e.instance WHERE e.fire = ?1 ORDER BY e.id",
    )?;
    let mut rows = query.query([fire])?;
    let mut executions = Vec::new();
    while let Some(row) = rows.next()? {
        executions.push(FiredOn {
            execution_id: ExecutionId(row.get(0)?),
            instance_id: row.get::<_, String>(1)?.into(),
            status: read_status(row, 2)?,
            error_info: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
        });
    }
    Ok(executions)
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

//! Table `executions`, as the records of it are told: listings, results, how far one has come.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, Rows};

use crate::command::settings::Settings;
use crate::error::Result;
use crate::execution::{DescribeInvocationResults, InvocationResult};
use crate::given::Given;
use crate::id::{CommandId, ExecutionId, InstanceId, InvokeId};
use crate::invocation::TerminationMode;
use crate::invocation::container::Container;
use crate::invocation::fire::FiredOn;
use crate::output::Output;
use crate::status::ExecutionStatus;
use crate::tag::Tag;
use crate::wire::ContentEncoding;

use super::commands::{read_settings, read_time};
use super::invocations::{OF_COMMAND, read_command_id, read_status, read_termination_mode};
use super::tags::{self, Tagged};
use super::{Listing, Query, Slice, Tx, deliveries, outputs, parse, results, unreadable, waits};

const RESULT_TABLES: &str = "executions e JOIN fires f ON f.id = e.fire
    JOIN invocations v ON v.id = f.invocation JOIN instances i ON i.id = e.instance";

/// For [`read`].
const RESULT_COLUMNS: &str =
    "e.id, f.invocation, i.instance_id, e.attempt, e.status, e.started_at_ms,
    e.stop_at_ms, e.finished_at_ms, e.exit_code, e.signal, e.error_code, e.error_info, e.instance,
    e.user_time_us, e.system_time_us, e.max_rss_bytes, e.memory_peak_bytes, e.stop_cause,
    e.stopped_by, e.stop_reason, e.retry_at_ms";

/// After [`RESULT_COLUMNS`]: whether there is a result, and an output, of those that may have some.
const HAS_MORE: &str = "?2 AND EXISTS (SELECT 1 FROM results WHERE execution = e.id),
    ?3 AND EXISTS (SELECT 1 FROM outputs WHERE execution = e.id)";

/// In place of [`HAS_MORE`] where rows are sorted, of which few are read: there may be.
const MAY_HAVE_MORE: &str = "TRUE, TRUE";

/// Picks the executions of the latest fire of an invocation on an instance: with [`LAST_ATTEMPT`],
/// the latest of all. So each condition looks at what is later only, however long the history
/// before it is.
const OF_LATEST_FIRE: &str = "NOT EXISTS (
    SELECT 1 FROM fires lf INDEXED BY fires_by_invocation CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = f.invocation AND lf.id > f.id AND l.fire = lf.id AND l.instance = e.instance)";

/// Picks the last attempt of a fire on an instance.
const LAST_ATTEMPT: &str = "NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt)";

/// Picks the latest one that says how the invocation stands: a skipped one gave way to another, and
/// one that is scheduled waits for another, unless it is a later attempt that waits for its time.
pub(super) const LATEST_STANDING: &str =
    "(e.status NOT IN ('Skipped', 'Scheduled') OR e.retry_at_ms IS NOT NULL) AND NOT EXISTS (
    SELECT 1 FROM fires lf INDEXED BY fires_by_invocation CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = f.invocation AND lf.id > f.id AND l.fire = lf.id AND l.instance = e.instance
      AND (l.status NOT IN ('Skipped', 'Scheduled') OR l.retry_at_ms IS NOT NULL))
    AND NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt)";

/// The latest one that says how an invocation stands on its target `t`; found from the newest fire
/// back, and mostly there.
pub(super) const LATEST_ON_TARGET: &str = "SELECT l.id FROM fires lf INDEXED BY fires_by_invocation
        CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = t.invocation AND l.fire = lf.id AND l.instance = t.instance
        AND (l.status NOT IN ('Skipped', 'Scheduled') OR l.retry_at_ms IS NOT NULL)
    ORDER BY lf.id DESC, l.attempt DESC LIMIT 1";

/// All executions, for [`read`].
pub(super) fn all() -> Query {
    Query {
        columns: format!("{RESULT_COLUMNS}, {MAY_HAVE_MORE}"),
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
        query.conditions.extend([OF_LATEST_FIRE.to_owned(), LAST_ATTEMPT.to_owned()]);
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

/// The latest execution of an invocation on each of its instances, in the order of the first attempts,
/// which is that of its request.
pub(crate) fn all_of(tx: Tx<'_>, invocation: i64) -> Result<Vec<InvocationResult>> {
    let mut known = Known::default();
    let mut results = Vec::new();
    if known.invocation(tx, invocation)?.runs_once {
        // The numbers of its executions follow one another: they need no sorting, and to find out that none
        // of them has more takes no look at each.
        let Some(Range { fire, first, last, count }) = range_of(tx, invocation)? else {
            return Ok(results);
        };
        let (any_result, any_output): (bool, bool) = tx
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM results WHERE execution BETWEEN ?1 AND ?2),
                     EXISTS (SELECT 1 FROM outputs WHERE execution BETWEEN ?1 AND ?2)",
            )?
            .query_row((first, last), |row| Ok((row.get(0)?, row.get(1)?)))?;
        let mut query = tx.prepare_cached(&format!(
            "SELECT {RESULT_COLUMNS}, {HAS_MORE} FROM fires f CROSS JOIN executions e
                 JOIN instances i ON i.id = e.instance
             WHERE f.id = ?1 AND +e.fire = f.id AND e.id BETWEEN ?4 AND ?5 ORDER BY e.id"
        ))?;
        results.reserve(count);
        read_all(
            tx,
            &mut known,
            &mut results,
            query.query((fire, any_result, any_output, first, last))?,
        )?;
    } else {
        let mut query = tx.prepare_cached(&format!(
            "SELECT {RESULT_COLUMNS}, {HAS_MORE} FROM {RESULT_TABLES}
                 JOIN executions o INDEXED BY executions_by_fire
                     ON o.fire = e.fire AND o.instance = e.instance AND o.attempt = 1
             WHERE f.invocation = ?1 AND {OF_LATEST_FIRE} AND {LAST_ATTEMPT} ORDER BY o.id"
        ))?;
        read_all(tx, &mut known, &mut results, query.query((invocation, true, true))?)?;
    }
    Ok(results)
}

fn read_all(
    tx: Tx<'_>,
    known: &mut Known,
    results: &mut Vec<InvocationResult>,
    mut rows: Rows<'_>,
) -> Result<()> {
    while let Some(row) = rows.next()? {
        results.push(read(tx, row, known, Some(ContentEncoding::Base64))?);
    }
    Ok(())
}

/// The only fire of an invocation, and its executions, whose numbers follow one another.
struct Range {
    fire: i64,
    first: i64,
    last: i64,
    count: usize,
}

fn range_of(tx: Tx<'_>, invocation: i64) -> Result<Option<Range>> {
    let mut query = tx.prepare_cached(
        "SELECT f.id, min(e.id), max(e.id), count(*) FROM fires f INDEXED BY fires_by_invocation
             CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
         WHERE f.invocation = ?1",
    )?;
    let found = query.query_row([invocation], |row| {
        // Without any there is one row, of nothing.
        let Some(fire) = row.get(0)? else { return Ok(None) };
        Ok(Some(Range { fire, first: row.get(1)?, last: row.get(2)?, count: row.get(3)? }))
    });
    Ok(found?)
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
    /// There is one execution on each instance.
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
                     v.repeat_mode = 'Once' AND v.retry IS NULL, {}
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
    // Most have neither, and to look for each takes as long as to read the record.
    let (has_result, has_output) = (row.get(21)?, row.get(22)?);
    let found = if has_result { results::get(tx, execution_id)? } else { None };
    let (result, result_error) = match found {
        None => (None, String::new()),
        Some(Ok(result)) => (Some(result), String::new()),
        Some(Err(why)) => (None, why),
    };
    let output_to = of.settings.output_to.as_deref();
    let delivery = deliveries::told(tx, output_to, Some((execution_id, status)))?;
    let mut result = InvocationResult {
        execution_id,
        invoke_id: of.invoke_id,
        command_id: of.command_id,
        instance_id: row.get::<_, String>(2)?.into(),
        attempt: row.get(3)?,
        retry_time: match row.get::<_, Option<i64>>(20)? {
            Some(at_ms) => Some(read_time(waits::told_ms(tx, at_ms)?)?),
            None => None,
        },
        status,
        invoke_record_status: status.invoke_status(),
        repeats: if of.runs_once { 1 } else { known.repeats(tx, row.get(1)?, row.get(12)?)? },
        start_time,
        finish_time,
        stop_time: time(6)?,
        stop_cause: row
            .get_ref(17)?
            .as_str_or_null()
            .map_err(unreadable)?
            .map(parse)
            .transpose()?,
        stopped_by: text(18)?,
        stop_reason: text(19)?,
        duration_ms: duration.map(|d| d.num_milliseconds().max(0).cast_unsigned()),
        exit_code: row.get(8)?,
        signal: row.get(9)?,
        error_code: text(10)?,
        error_info: text(11)?,
        user_time_us: row.get(13)?,
        system_time_us: row.get(14)?,
        max_rss_bytes: row.get(15)?,
        memory_peak_bytes: row.get(16)?,
        result,
        result_error,
        output: crate::wire::Encoded::default(),
        dropped: 0,
        dropped_at: None,
        output_streams: Vec::new(),
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
        let output = if has_output { outputs::get(tx, execution_id)? } else { Output::default() };
        result.set_output(output, encoding);
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
    pub retry_at_ms: Option<i64>,
}

/// Where the executions of an invocation stand, in the order they were made: those from `from` on,
/// or those of the latest fire on each instance and whatever has not ended. A later attempt was made
/// when the one before it ended.
pub(crate) fn progress_of(
    tx: Tx<'_>,
    invocation: i64,
    from: Option<ExecutionId>,
) -> Result<Vec<Progress>> {
    let condition = match from {
        Some(ExecutionId(id)) => format!("e.id >= {id}"),
        // What still runs may be older: a fire that meets it is skipped.
        None => format!("e.finished_at_ms IS NULL OR {OF_LATEST_FIRE}"),
    };
    let mut query = tx.prepare_cached(&format!(
        "SELECT e.id, i.instance_id, e.status, coalesce(b.finished_at_ms, f.fire_at_ms), e.started_at_ms,
             e.stop_at_ms, e.finished_at_ms, e.retry_at_ms
         FROM fires f JOIN executions e ON e.fire = f.id JOIN instances i ON i.id = e.instance
             LEFT JOIN executions b INDEXED BY executions_by_fire
                 ON b.fire = e.fire AND b.instance = e.instance AND b.attempt = e.attempt - 1
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
            retry_at_ms: match row.get(7)? {
                Some(at_ms) => Some(waits::told_ms(tx, at_ms)?),
                None => None,
            },
        });
    }
    Ok(progress)
}

/// What became of a fire on each instance: how the last attempt there stands.
pub(crate) fn of_fire(tx: Tx<'_>, fire: i64) -> Result<Vec<FiredOn>> {
    let mut query = tx.prepare_cached(&format!(
        "SELECT e.id, i.instance_id, e.status, e.error_info
         FROM executions e JOIN instances i ON i.id = e.instance
         WHERE e.fire = ?1 AND {LAST_ATTEMPT} ORDER BY e.id"
    ))?;
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

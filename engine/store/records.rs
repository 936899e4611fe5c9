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
use crate::wire::{ContentEncoding, UnreadableRecord};

use super::commands::{read_settings, read_time};
use super::invocations::{OF_COMMAND, read_command_id, read_status, read_termination_mode};
use super::tags::{self, Tagged};
use super::{
    Listing, Query, Slice, Tx, Way, deliveries, outputs, parse, results, unreadable, waits,
};

/// The tables of the record of an execution `e`, whichever way it is found.
const RESULT_TABLES: &str = "executions e JOIN fires f ON f.id = e.fire
    JOIN invocations v ON v.id = f.invocation JOIN instances i ON i.id = e.instance";

/// The executions of fires, in the order of the fires.
const BY_FIRE: &str = "fires f INDEXED BY fires_by_invocation
    CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
    CROSS JOIN invocations v ON v.id = f.invocation CROSS JOIN instances i ON i.id = e.instance";

/// The executions that are not the first attempt, the newest of all invocations first. A condition on `retries_once`
/// picks the invocations that run once, or the invocations that repeat.
const LATER_ATTEMPTS: &str = "executions e INDEXED BY executions_of_retries
    CROSS JOIN fires f ON f.id = e.fire CROSS JOIN invocations v ON v.id = f.invocation
    CROSS JOIN instances i ON i.id = e.instance";

/// The executions of invocations that run once, in the order of the invocations. No execution of an invocation that
/// repeats is looked at, however often it has fired.
const BY_INVOCATION: &str =
    "invocations v CROSS JOIN fires f INDEXED BY fires_by_invocation ON f.invocation = v.id
    CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
    CROSS JOIN instances i ON i.id = e.instance";

/// The latest execution on each target of an invocation that repeats, found without a look at its history. Executions
/// that came after the first page, whose last execution was `?1`, are passed over from the newest fire back.
const LATEST_BY_TARGET: &str = "targets t CROSS JOIN executions e ON e.id = CASE
        WHEN t.latest_execution IS NULL OR t.latest_execution <= ?1 THEN t.latest_execution
        ELSE (SELECT l.id FROM fires lf INDEXED BY fires_by_invocation
                  CROSS JOIN executions l INDEXED BY executions_by_fire
              WHERE lf.invocation = t.invocation AND l.fire = lf.id AND l.instance = t.instance AND l.id <= ?1
              ORDER BY lf.id DESC, l.attempt DESC LIMIT 1)
        END
    CROSS JOIN fires f ON f.id = e.fire AND f.invocation = t.invocation
    CROSS JOIN invocations v ON v.id = f.invocation
    CROSS JOIN instances i ON i.id = e.instance AND i.id = t.instance";

/// For [`read`].
const RESULT_COLUMNS: &str =
    "e.id, f.invocation, i.instance_id, e.attempt, e.status, e.started_at_ms,
    e.stop_at_ms, e.finished_at_ms, e.exit_code, e.signal, e.error_code, e.error_info, e.instance,
    e.user_time_us, e.system_time_us, e.max_rss_bytes, e.memory_peak_bytes, e.stop_cause,
    e.stopped_by, e.stop_reason, e.retry_at_ms, e.fire";

/// After [`RESULT_COLUMNS`]: whether there is a result, and an output, of those that may have some.
const HAS_MORE: &str = "?2 AND EXISTS (SELECT 1 FROM results WHERE execution = e.id),
    ?3 AND EXISTS (SELECT 1 FROM outputs WHERE execution = e.id)";

/// In place of [`HAS_MORE`] where rows are sorted, of which few are read: there may be.
const MAY_HAVE_MORE: &str = "TRUE, TRUE";

/// Picks the last attempt of a fire on an instance.
const LAST_ATTEMPT: &str = "NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt)";

/// Picks the last attempt at the time of the first page, when `?1` was the newest execution.
const LAST_ATTEMPT_THEN: &str = "NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt AND l.id <= ?1)";

/// Picks the executions that say how an invocation stands that runs once: the last attempt on each instance, unless
/// it was skipped or waits for another execution.
pub(super) const STANDS_ONCE: &str =
    "(e.status NOT IN ('Skipped', 'Scheduled') OR e.retry_at_ms IS NOT NULL) AND NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt)";

/// The only fire of invocation `?1`, if the invocation runs once. An invocation that repeats has targets, and any
/// number of fires.
pub(super) const FIRE_WITHOUT_TARGETS: &str =
    "(SELECT min(o.id) FROM fires o INDEXED BY fires_by_invocation
    WHERE o.invocation = iif(EXISTS (SELECT 1 FROM targets t WHERE t.invocation = ?1), NULL, ?1))";

/// Returns the condition that one of the executions that say how invocation `v` stands has one of these statuses.
pub(super) fn any_stands(statuses: &str) -> String {
    format!(
        "(EXISTS (SELECT 1 FROM targets t CROSS JOIN executions e ON e.id = t.standing_execution
              WHERE t.invocation = v.id AND e.status IN ({statuses}))
          OR v.repeat_mode = 'Once' AND EXISTS (
              SELECT 1 FROM fires f INDEXED BY fires_by_invocation
                  CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
              WHERE f.invocation = v.id AND e.status IN ({statuses}) AND {STANDS_ONCE}))"
    )
}

/// All executions, for [`read`].
pub(super) fn all() -> Query {
    let columns = format!("{RESULT_COLUMNS}, {MAY_HAVE_MORE}");
    let mut query = Query::new(columns, RESULT_TABLES, "e.id");
    query.name = |row| row.get(0).ok().map(|id| ExecutionId(id).to_string());
    query
}

/// Returns the executions that a filter picks by their place in history; `?1` is the newest execution at the time of
/// the first page.
fn of_history(
    tx: Tx<'_>,
    filter: &DescribeInvocationResults,
    newest: i64,
    after: Option<i64>,
) -> Result<Query> {
    let mut query = all();
    query.conditions.push("e.id <= ?".to_owned());
    query.values.push(newest.into());
    let Some(invoke_id) = filter.invoke_id else {
        if filter.include_history {
            return Ok(query);
        }
        if filter.command_id.is_some() {
            // An index has its invocations.
            let once = format!("v.repeat_mode = 'Once' AND {LAST_ATTEMPT_THEN}");
            query.ways =
                vec![Way::new(LATEST_BY_TARGET, None), Way::new(RESULT_TABLES, Some(&once))];
            return Ok(query);
        }
        // First attempts of invocations that run once have the order of their invocations, so a page reads no more
        // invocations than it holds executions.
        let until = after.map_or(Ok(i64::MAX), |after| last_that_runs_once(tx, after))?;
        query.conditions.push("? > 0".to_owned());
        query.values.push(until.into());
        let first = format!("v.repeat_mode = 'Once' AND e.attempt = 1 AND {LAST_ATTEMPT_THEN}");
        let later = format!("e.retries_once = 1 AND {LAST_ATTEMPT_THEN}");
        query.ways = vec![
            Way::new(LATEST_BY_TARGET, None),
            Way {
                order: Some("v.id DESC, e.id DESC"),
                bound: Some("v.id <= ?2"),
                ..Way::new(BY_INVOCATION, Some(&first))
            },
            Way::new(LATER_ATTEMPTS, Some(&later)),
        ];
        return Ok(query);
    };
    let found: Option<(i64, bool, bool)> = tx.find(
        "SELECT v.id, EXISTS (SELECT 1 FROM targets t WHERE t.invocation = v.id), v.retry IS NOT NULL
         FROM invocations v WHERE v.invoke_id = ?1",
        [invoke_id.as_bytes()],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    // No invocation has the number 0.
    let (invocation, repeats, is_retried) = found.unwrap_or_default();
    query.values.push(invocation.into());
    if repeats && !filter.include_history {
        query.ways = vec![Way::new(LATEST_BY_TARGET, None)];
        query.conditions.push("t.invocation = ?".to_owned());
        return Ok(query);
    }
    query.conditions.push("f.invocation = ?".to_owned());
    if !repeats {
        let last = (!filter.include_history).then_some(LAST_ATTEMPT_THEN);
        query.ways = vec![Way::new(BY_FIRE, last)];
        return Ok(query);
    }
    query.ways = of_repeating("TRUE", is_retried);
    Ok(query)
}

/// The executions of an invocation that repeats, on a condition. First attempts have the order of their fires, so a
/// page reads no more first attempts than it holds. Later attempts are few, over all invocations together.
fn of_repeating(condition: &str, is_retried: bool) -> Vec<Way> {
    let mut ways = vec![Way {
        order: Some("f.id DESC, e.id DESC"),
        bound: Some(
            "f.id <= (SELECT x.fire FROM executions x WHERE x.id < ?key AND x.attempt = 1
                 ORDER BY x.id DESC LIMIT 1)",
        ),
        ..Way::new(BY_FIRE, Some(&format!("e.attempt = 1 AND {condition}")))
    }];
    if is_retried {
        let later = format!("e.retries_once = 0 AND {condition}");
        ways.push(Way::new(LATER_ATTEMPTS, Some(&later)));
    }
    ways
}

/// Returns the executions of these invocations, for [`read`], and their number. Each invocation that repeats is read
/// from its newest fire on.
pub(super) fn of_invocations(tx: Tx<'_>, ids: &[InvokeId]) -> Result<(Query, u64)> {
    let mut find = tx.prepare(
        "SELECT v.id, v.repeat_mode <> 'Once', v.retry IS NOT NULL,
             CASE WHEN v.repeat_mode = 'Once'
                 THEN (SELECT count(*) FROM fires f INDEXED BY fires_by_invocation
                           CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
                       WHERE f.invocation = v.id)
                 ELSE (SELECT total(t.executions_made) FROM targets t WHERE t.invocation = v.id)
                 END
         FROM invocations v WHERE v.invoke_id = ?1",
    )?;
    let (mut query, mut total, mut known) = (all(), 0.0, Vec::new());
    query.ways.clear();
    for id in ids {
        let found: Option<(i64, bool, bool, f64)> = find
            .query_row([id.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let Some((row, repeats, is_retried, made)) = found else { continue };
        if known.contains(&row) {
            continue;
        }
        known.push(row);
        total += made;
        let own = format!("f.invocation = {row}");
        query.ways.extend(match repeats {
            true => of_repeating(&own, is_retried),
            false => vec![Way::new(BY_FIRE, Some(&own))],
        });
    }
    if query.ways.is_empty() {
        query.ways.push(Way::new(RESULT_TABLES, Some("FALSE")));
    }
    Ok((query, total as u64))
}

/// Returns the number of executions. The targets of an invocation that repeats give its number, however often the
/// invocation has fired.
pub(super) fn count_all(tx: Tx<'_>) -> Result<u64> {
    let count: f64 = tx.one(
        "SELECT (SELECT total(executions_made) FROM targets)
         + (SELECT count(*) FROM invocations v
                CROSS JOIN fires f INDEXED BY fires_by_invocation ON f.invocation = v.id
                CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
            WHERE v.repeat_mode = 'Once')",
        (),
        |row| row.get(0),
    )?;
    Ok(count as u64)
}

/// Returns an invocation after which none that runs once has a first attempt before execution `before`. Because the
/// invocations that run once and their first attempts are stored together, both have one order, which is halved again
/// and again: as few invocations are looked at for the last page as for the first.
fn last_that_runs_once(tx: Tx<'_>, before: i64) -> Result<i64> {
    // Any first attempt tells the place of its invocation.
    let mut at_or_below = tx.prepare(
        "SELECT v.id, (SELECT e.id FROM fires f INDEXED BY fires_by_invocation
                 CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
             WHERE f.invocation = v.id LIMIT 1)
         FROM invocations v WHERE v.id <= ?1 AND v.id > ?2 AND v.repeat_mode = 'Once'
         ORDER BY v.id DESC LIMIT 1",
    )?;
    let newest: i64 =
        tx.one("SELECT coalesce(max(id), 0) FROM invocations", (), |row| row.get(0))?;
    // Invocations up to `low` begin before; invocations above `high` do not.
    let (mut low, mut high) = (0, newest);
    while low < high {
        let middle = high - (high - low) / 2;
        let found: Option<(i64, Option<i64>)> = at_or_below
            .query_row((middle, low), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((_, Some(first))) if first < before => low = middle,
            Some((id, _)) => high = id - 1,
            // No invocation up to here runs once.
            None => low = middle,
        }
    }
    // The next invocation may have attempts on either side.
    let next: Option<i64> = tx.find(
        "SELECT id FROM invocations WHERE id > ?1 AND repeat_mode = 'Once' ORDER BY id LIMIT 1",
        [low],
        |row| row.get(0),
    )?;
    Ok(next.unwrap_or(i64::MAX))
}

/// Returns the number of the newest execution.
fn newest(tx: Tx<'_>) -> Result<i64> {
    tx.one("SELECT coalesce(max(id), 0) FROM executions", (), |row| row.get(0))
}

/// A slice of the executions, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    filter: &DescribeInvocationResults,
    slice: Slice,
    encoding: ContentEncoding,
) -> Result<Listing<InvocationResult>> {
    let newest = match slice.after.and_then(|token| token.until) {
        Some(until) => until,
        None => newest(tx)?,
    };
    let after = slice.after.map(|token| token.key);
    let mut query = of_history(tx, filter, newest, after)?;
    query.until = Some(newest);
    let tagged = Tagged::Invocation.conditions("v.id", &filter.tags, &mut query.values);
    query.conditions.extend(tagged);
    if let Some(id) = filter.command_id {
        query.conditions.push(OF_COMMAND.to_owned());
        query.values.extend([id.as_bytes().to_vec().into(), id.as_bytes().to_vec().into()]);
    }
    // Looked up first, so that no other execution of a fire is read.
    query.filter(
        "e.instance = (SELECT id FROM instances WHERE instance_id = ?)",
        filter.instance_id.as_ref().map(|id| id.as_str().to_owned()),
    );
    query.filter("v.resource_group_id = ?", filter.resource_group_id.clone());
    query.filter("e.status = ?", filter.status.map(|status| status.as_str().to_owned()));
    if let Some(Given::Known(named)) = &filter.invoke_record_status {
        let is_named = |status: &&ExecutionStatus| {
            named.status == Some(**status) || named.invoke_status == Some(status.invoke_status())
        };
        let named =
            ExecutionStatus::ALL.iter().filter(is_named).map(|status| format!("'{status}'"));
        // An empty list would be a constant, and SQLite would not choose an index.
        let named = named.chain(["''".to_owned()]).collect::<Vec<_>>();
        query.conditions.push(format!("e.status IN ({})", named.join(", ")));
    }
    let mut known = Known::default();
    query.slice(tx, slice, |row| read(tx, row, &mut known, Some(encoding)))
}

/// The latest execution of an invocation on each of its instances, in the order of the first attempts,
/// which is that of its request.
pub(crate) fn all_of(
    tx: Tx<'_>,
    invocation: i64,
) -> Result<(Vec<InvocationResult>, Vec<UnreadableRecord>)> {
    let mut known = Known::default();
    let (mut results, mut unreadable) = (Vec::new(), Vec::new());
    if known.invocation(tx, invocation)?.runs_once {
        // The numbers of its executions follow one another: they need no sorting, and to find out that none
        // of them has more takes no look at each.
        let Some(Range { fire, first, last, count }) = range_of(tx, invocation)? else {
            return Ok((results, unreadable));
        };
        let (any_result, any_output): (bool, bool) = tx.one(
            "SELECT EXISTS (SELECT 1 FROM results WHERE execution BETWEEN ?1 AND ?2),
             EXISTS (SELECT 1 FROM outputs WHERE execution BETWEEN ?1 AND ?2)",
            (first, last),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mut query = tx.prepare(&format!(
            "SELECT {RESULT_COLUMNS}, {HAS_MORE} FROM fires f CROSS JOIN executions e
                 JOIN instances i ON i.id = e.instance
             WHERE f.id = ?1 AND +e.fire = f.id AND e.id BETWEEN ?4 AND ?5 ORDER BY e.id"
        ))?;
        results.reserve(count);
        read_all(
            tx,
            &mut known,
            (&mut results, &mut unreadable),
            query.query((fire, any_result, any_output, first, last))?,
        )?;
    } else {
        // An invocation that repeats has targets; an invocation that runs once has one fire, also if it is tried
        // again.
        let mut query = tx.prepare(&format!(
            "SELECT {RESULT_COLUMNS}, {HAS_MORE} FROM targets t
                 CROSS JOIN executions e ON e.id = t.latest_execution
                 CROSS JOIN fires f ON f.id = e.fire AND f.invocation = t.invocation
                 CROSS JOIN instances i ON i.id = e.instance
             WHERE t.invocation = ?1 ORDER BY t.id"
        ))?;
        let rows = query.query((invocation, true, true))?;
        read_all(tx, &mut known, (&mut results, &mut unreadable), rows)?;
        let mut query = tx.prepare(&format!(
            "SELECT {RESULT_COLUMNS}, {HAS_MORE} FROM {BY_FIRE}
                 JOIN executions o INDEXED BY executions_by_fire
                     ON o.fire = e.fire AND o.instance = e.instance AND o.attempt = 1
             WHERE f.invocation = ?1 AND f.id = {FIRE_WITHOUT_TARGETS} AND {LAST_ATTEMPT} ORDER BY o.id"
        ))?;
        let rows = query.query((invocation, true, true))?;
        read_all(tx, &mut known, (&mut results, &mut unreadable), rows)?;
    }
    Ok((results, unreadable))
}

fn read_all(
    tx: Tx<'_>,
    known: &mut Known,
    (results, unreadable): (&mut Vec<InvocationResult>, &mut Vec<UnreadableRecord>),
    mut rows: Rows<'_>,
) -> Result<()> {
    while let Some(row) = rows.next()? {
        match read(tx, row, known, Some(ContentEncoding::Base64)) {
            Ok(result) => results.push(result),
            Err(error) if error.is_of_a_record() => {
                let id = ExecutionId(row.get(0)?).to_string();
                unreadable.push(UnreadableRecord { id, error: error.to_string() });
            }
            Err(error) => return Err(error),
        }
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
    tx.one(
        "SELECT f.id, min(e.id), max(e.id), count(*) FROM fires f INDEXED BY fires_by_invocation
             CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
         WHERE f.invocation = ?1",
        [invocation],
        |row| {
            // Without any there is one row, of nothing.
            let Some(fire) = row.get(0)? else { return Ok(None) };
            Ok(Some(Range { fire, first: row.get(1)?, last: row.get(2)?, count: row.get(3)? }))
        },
    )
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
        let found = tx.one(
            &format!(
                "SELECT v.invoke_id, v.command_id, v.termination_mode, v.working_dir, v.username,
                     v.launcher, v.output_to, v.container_id, v.container_name,
                     v.repeat_mode = 'Once' AND v.retry IS NULL, {}
                 FROM invocations v WHERE v.id = ?1",
                Tagged::Invocation.column("v.id")
            ),
            [invocation],
            |row| Ok(OfInvocation::read(row)),
        )?;
        let found = Arc::new(found?);
        self.invocations.insert(invocation, Arc::clone(&found));
        Ok(found)
    }

    /// Returns the number of executions that an invocation has had on an instance.
    fn repeats(&mut self, tx: Tx<'_>, invocation: i64, fire: i64, instance: i64) -> Result<u64> {
        if let Some(count) = self.repeats.get(&(invocation, instance)) {
            return Ok(*count);
        }
        let count = tx.one(
            "SELECT coalesce(
             (SELECT executions_made FROM targets WHERE invocation = ?1 AND instance = ?3),
             (SELECT count(*) FROM executions INDEXED BY executions_by_fire
              WHERE fire = ?2 AND instance = ?3))",
            (invocation, fire, instance),
            |row| row.get(0),
        )?;
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
    let (has_result, has_output) = (row.get(22)?, row.get(23)?);
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
        repeats: if of.runs_once {
            1
        } else {
            known.repeats(tx, row.get(1)?, row.get(21)?, row.get(12)?)?
        },
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

/// The findings of a watcher's look at the records.
#[derive(Debug)]
pub(crate) struct Look {
    /// Executions in the order they were made.
    pub progress: Vec<Progress>,
    /// The executions whose records cannot be understood, each with the error.
    pub unreadable: Vec<(ExecutionId, String)>,
    /// The newest execution at the time of the look.
    pub until: ExecutionId,
}

/// For [`read_progress`], of the executions `s.id`. A later attempt was made when the attempt before it ended.
const PROGRESS: &str =
    "SELECT e.id, i.instance_id, e.status, coalesce(b.finished_at_ms, f.fire_at_ms),
         e.started_at_ms, e.stop_at_ms, e.finished_at_ms, e.retry_at_ms
     FROM s CROSS JOIN executions e ON e.id = s.id CROSS JOIN fires f ON f.id = e.fire
         CROSS JOIN instances i ON i.id = e.instance
         LEFT JOIN executions b INDEXED BY executions_by_fire
             ON b.fire = e.fire AND b.instance = e.instance AND b.attempt = e.attempt - 1
     WHERE f.invocation = ?1 ORDER BY e.id";

/// Returns the executions of an invocation for a watcher's first look: the executions of the latest fire on each
/// instance, and all that have not ended. An execution that still runs may be older than the latest fire, because a
/// fire that meets it is skipped.
pub(crate) fn first_look(tx: Tx<'_>, invocation: i64) -> Result<Look> {
    let mut query = tx.prepare(&format!(
        "WITH s (id) AS (
             SELECT e.id FROM targets t CROSS JOIN executions x ON x.id = t.latest_execution
                 CROSS JOIN executions e INDEXED BY executions_by_fire
                     ON e.fire = x.fire AND e.instance = x.instance
             WHERE t.invocation = ?1
             UNION
             SELECT e.id FROM fires f INDEXED BY fires_unfinished_by_invocation
                 CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
             WHERE f.invocation = ?1 AND f.unfinished > 0 AND e.finished_at_ms IS NULL
             UNION
             SELECT e.id FROM executions e INDEXED BY executions_by_fire WHERE e.fire = {FIRE_WITHOUT_TARGETS})
         {PROGRESS}"
    ))?;
    look_at(tx, query.query([invocation])?)
}

/// Returns the executions of an invocation for a watcher's next look: the executions that the watcher has left
/// `open`, and all that were made after `until`. The look reads neither the history nor other invocations, except for
/// later attempts of other invocations.
pub(crate) fn next_look(
    tx: Tx<'_>,
    invocation: i64,
    until: ExecutionId,
    open: &[ExecutionId],
) -> Result<Look> {
    let open: Vec<i64> = open.iter().map(|id| id.0).collect();
    let open = serde_json::to_string(&open).map_err(unreadable)?;
    // The executions of a fire are stored together, and fires are stored one after another.
    let from_fire: Option<i64> = tx.find(
        "SELECT fire FROM executions WHERE id > ?1 AND attempt = 1 ORDER BY id LIMIT 1",
        [until.0],
        |row| row.get(0),
    )?;
    let mut query = tx.prepare(&format!(
        "WITH s (id) AS (
             SELECT e.id FROM fires f INDEXED BY fires_by_invocation
                 CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
             WHERE f.invocation = ?1 AND f.id >= ?3 AND e.id > ?2
             UNION
             SELECT e.id FROM executions e INDEXED BY executions_of_retries
                 WHERE e.retries_once IN (0, 1) AND e.id > ?2
             UNION
             SELECT value FROM json_each(?4))
         {PROGRESS}"
    ))?;
    look_at(tx, query.query((invocation, until.0, from_fire.unwrap_or(i64::MAX), open))?)
}

fn look_at(tx: Tx<'_>, mut rows: Rows<'_>) -> Result<Look> {
    let until = ExecutionId(newest(tx)?);
    let mut look = Look { progress: Vec::new(), unreadable: Vec::new(), until };
    while let Some(row) = rows.next()? {
        match read_progress(tx, row) {
            Ok(progress) => look.progress.push(progress),
            Err(error) if error.is_of_a_record() => {
                look.unreadable.push((ExecutionId(row.get(0)?), error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(look)
}

fn read_progress(tx: Tx<'_>, row: &Row<'_>) -> Result<Progress> {
    Ok(Progress {
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
    })
}

/// What became of a fire on each instance: how the last attempt there stands.
pub(crate) fn of_fire(tx: Tx<'_>, fire: i64) -> Result<Vec<FiredOn>> {
    let mut query = tx.prepare(&format!(
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
    let exists = tx.find("SELECT 1 FROM executions WHERE id = ?1", [id.0], |_| Ok(()))?;
    if exists.is_none() {
        return Err(unreadable(format_args!("execution {id} is gone")));
    }
    outputs::get(tx, id)
}

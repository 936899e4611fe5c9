//! A bounded look at all tables: by indexes and keys only, and at so many rows at most.

use rusqlite::Row;

use crate::error::Result;
use crate::id::{ExecutionId, InvokeId};
use crate::overview::{Overview, OverviewExecution, OverviewTimer};

use super::Tx;
use super::commands::read_time;
use super::invocations::read_status;

/// Fires whose executions are counted.
const FIRES_MAX: i64 = 100_000;
/// Executions that are looked at before and behind where the queue has come to, and of the newest.
const BEFORE: i64 = 1_000;
const BEHIND: i64 = 2_000;

/// What is going on; at most `max` of each kind.
pub(crate) fn overview(tx: Tx<'_>, max: usize) -> Result<Overview> {
    let (unended, more_unended) = unended(tx)?;
    let nearby = nearby(tx)?;
    let (mut running, mut ended) = (Vec::new(), Vec::new());
    for one in nearby {
        if one.finish_time.is_some() {
            ended.push(one);
        } else {
            running.push(one);
        }
    }
    running.sort_by_key(|one: &OverviewExecution| (one.start_time, one.execution_id));
    ended.sort_by_key(|one| std::cmp::Reverse((one.finish_time, one.execution_id)));
    running.truncate(max);
    ended.truncate(max);
    Ok(Overview { unended, more_unended, running, ended, due: due(tx, max)? })
}

fn unended(tx: Tx<'_>) -> Result<(u64, bool)> {
    tx.one(
        "SELECT total(unfinished), count(*) >= ?1 FROM (
         SELECT unfinished FROM fires INDEXED BY fires_unfinished WHERE unfinished > 0
         ORDER BY id LIMIT ?1)",
        [FIRES_MAX],
        |row| Ok((row.get::<_, f64>(0)? as u64, row.get(1)?)),
    )
}

/// The first execution that waits, more or less: those of a fire are stored, and claimed, one after another.
fn front(tx: Tx<'_>) -> Result<Option<i64>> {
    tx.find(
        "WITH oldest AS (
             SELECT id, unfinished FROM fires INDEXED BY fires_unfinished WHERE unfinished > 0
             ORDER BY id LIMIT 1),
         ends AS (
             SELECT unfinished,
                 (SELECT e.id FROM executions e INDEXED BY executions_by_fire
                  WHERE e.fire = oldest.id ORDER BY e.instance, e.attempt LIMIT 1) AS a,
                 (SELECT e.id FROM executions e INDEXED BY executions_by_fire
                  WHERE e.fire = oldest.id ORDER BY e.instance DESC, e.attempt DESC LIMIT 1) AS b
             FROM oldest)
         SELECT max(min(a, b), max(a, b) + 1 - unfinished) FROM ends",
        (),
        |row| row.get(0),
    )
}

/// Executions that run or have ended, near where the queue has come to and of the newest.
fn nearby(tx: Tx<'_>) -> Result<Vec<OverviewExecution>> {
    let newest: i64 =
        tx.one("SELECT coalesce(max(id), 0) FROM executions", (), |row| row.get(0))?;
    let front = front(tx)?.unwrap_or(newest);
    let mut query = tx.prepare(
        &format!("SELECT e.id, v.invoke_id, {COMMAND}, i.instance_id, e.status, e.started_at_ms,
             e.finished_at_ms
         FROM executions e CROSS JOIN fires f ON f.id = e.fire
             CROSS JOIN invocations v ON v.id = f.invocation CROSS JOIN contents c ON c.id = v.content
             CROSS JOIN instances i ON i.id = e.instance
         WHERE (e.id BETWEEN ?1 AND ?2 OR e.id > ?3) AND e.status NOT IN ('Pending', 'Scheduled')"),
    )?;
    let mut rows = query.query((front - BEFORE, front + BEHIND, newest - BEFORE))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// For [`read_command`]: the name, or how the script begins.
const COMMAND: &str = "coalesce(nullif(CAST(v.name AS BLOB), x''), substr(c.bytes, 1, 256))";

fn read_command(row: &Row<'_>, column: usize) -> Result<String> {
    let bytes: Vec<u8> = row.get(column)?;
    // A character may be cut in two.
    Ok(String::from_utf8_lossy(&bytes).trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned())
}

fn read(row: &Row<'_>) -> Result<OverviewExecution> {
    let time = |column| row.get::<_, Option<i64>>(column)?.map(read_time).transpose();
    Ok(OverviewExecution {
        execution_id: ExecutionId(row.get(0)?),
        invoke_id: InvokeId::from_bytes(row.get(1)?),
        command: read_command(row, 2)?,
        instance_id: row.get::<_, String>(3)?.into(),
        status: read_status(row, 4)?,
        start_time: time(5)?,
        finish_time: time(6)?,
    })
}

fn due(tx: Tx<'_>, max: usize) -> Result<Vec<OverviewTimer>> {
    let mut query = tx.prepare(&format!(
        "SELECT v.invoke_id, {COMMAND}, coalesce(v.frequency, ''), m.due_at_ms
         FROM timers m INDEXED BY timers_due CROSS JOIN invocations v ON v.id = m.invocation
             CROSS JOIN contents c ON c.id = v.content
         WHERE m.due_at_ms IS NOT NULL ORDER BY m.due_at_ms LIMIT ?1"
    ))?;
    let mut rows = query.query([i64::try_from(max).unwrap_or(i64::MAX)])?;
    let mut due = Vec::new();
    while let Some(row) = rows.next()? {
        due.push(OverviewTimer {
            invoke_id: InvokeId::from_bytes(row.get(0)?),
            command: read_command(row, 1)?,
            frequency: row.get(2)?,
            due_time: read_time(row.get(3)?)?,
        });
    }
    Ok(due)
}

//! Where an invocation stands on each of its instances: its targets, their latest executions.

use chrono::{DateTime, Utc};
use rusqlite::Row;

use crate::error::Result;
use crate::id::{ExecutionId, InstanceId};
use crate::invocation::InvokeInstance;
use crate::status::ExecutionStatus;
use crate::wire::{ContentEncoding, Encoded};

use super::commands::read_time;
use super::{Tx, deliveries, outputs, parse, unreadable};

/// What is asked of an invocation's instances.
pub(super) struct Question<'a> {
    pub creation_time: DateTime<Utc>,
    /// Only this one.
    pub only: Option<&'a InstanceId>,
    pub with_output: bool,
    /// Where the whole outputs go.
    pub output_to: Option<&'a str>,
    pub encoding: ContentEncoding,
}

/// Where an invocation stands on its instances, in the order of its request. One for which no
/// execution was made yet has none of the columns of one; one that was skipped, or waits for
/// another, does not say how the instance stands.
pub(super) fn of_invocation(
    tx: Tx<'_>,
    invocation: i64,
    asked: &Question<'_>,
) -> Result<Vec<InvokeInstance>> {
    let mut query = tx.prepare(
        "WITH named (instance, place, will_fire, made, execution) AS (
             SELECT t.instance, t.id, t.awaits_boot = 1 OR EXISTS (
                 SELECT 1 FROM timers m WHERE m.id = t.timer AND m.next_fire_at_ms IS NOT NULL),
                 t.executions_made, t.standing_execution
             FROM targets t WHERE t.invocation = ?1
             UNION ALL
             SELECT e.instance, e.id, 0,
                 (SELECT count(*) FROM executions c INDEXED BY executions_by_fire
                  WHERE c.fire = e.fire AND c.instance = e.instance),
                 (SELECT l.id FROM executions l INDEXED BY executions_by_fire
                  WHERE l.fire = e.fire AND l.instance = e.instance
                      AND (l.status NOT IN ('Skipped', 'Scheduled') OR l.retry_at_ms IS NOT NULL)
                  ORDER BY l.attempt DESC LIMIT 1)
             FROM executions e INDEXED BY executions_by_fire
             WHERE e.attempt = 1 AND e.fire = (SELECT min(f.id) FROM fires f WHERE f.invocation = ?1)
                 AND NOT EXISTS (SELECT 1 FROM targets t WHERE t.invocation = ?1))
         SELECT i.instance_id, n.will_fire, e.id, e.status, e.started_at_ms, e.finished_at_ms,
                e.stop_at_ms, e.exit_code, e.error_code, e.error_info, n.made
         FROM named n JOIN instances i ON i.id = n.instance
             LEFT JOIN executions e ON e.id = n.execution AND e.instance = n.instance
         WHERE ?2 IS NULL OR i.instance_id = ?2
         ORDER BY n.place",
    )?;
    let mut rows = query.query((invocation, asked.only.map(InstanceId::as_str)))?;
    let mut standings = Vec::new();
    while let Some(row) = rows.next()? {
        standings.push(read(tx, row, asked)?);
    }
    Ok(standings)
}

fn read(tx: Tx<'_>, row: &Row<'_>, asked: &Question<'_>) -> Result<InvokeInstance> {
    let time = |column| row.get::<_, Option<i64>>(column)?.map(read_time).transpose();
    let timed: bool = row.get(1)?;
    let execution = row.get::<_, Option<i64>>(2)?.map(ExecutionId);
    let latest: Option<ExecutionStatus> =
        row.get_ref(3)?.as_str_or_null().map_err(unreadable)?.map(parse).transpose()?;
    let status = match latest {
        // Between two fires it waits for the next, however the one before ended.
        None if timed => ExecutionStatus::Scheduled,
        Some(latest) if timed && latest.is_final() => ExecutionStatus::Scheduled,
        None => ExecutionStatus::Cancelled,
        Some(latest) => latest,
    };
    let (start_time, finish_time, stop_time) = (time(4)?, time(5)?, time(6)?);
    let times = [start_time, finish_time, stop_time];
    let output = match execution.filter(|_| asked.with_output) {
        Some(id) => outputs::get(tx, id)?,
        None => Default::default(),
    };
    let dropped = output.dropped();
    let delivery = deliveries::told(tx, asked.output_to, execution.zip(latest))?;
    Ok(InvokeInstance {
        instance_id: row.get::<_, String>(0)?.into(),
        status,
        instance_invoke_status: status.invoke_status(),
        creation_time: asked.creation_time,
        start_time,
        finish_time,
        stop_time,
        update_time: times.into_iter().flatten().fold(asked.creation_time, Ord::max),
        exit_code: row.get(7)?,
        error_code: row.get::<_, Option<String>>(8)?.unwrap_or_default(),
        error_info: row.get::<_, Option<String>>(9)?.unwrap_or_default(),
        output: Encoded::new(output.into_bytes(), asked.encoding),
        dropped,
        repeats: row.get(10)?,
        timed,
        oss_output_status: delivery.status,
        oss_output_uri: delivery.uri,
        oss_output_error_code: delivery.error_code,
        oss_output_error_info: delivery.error_info,
    })
}

//! Table `deliveries`: what came of sending whole outputs to where they were to go.

use rusqlite::Row;

use crate::error::Result;
use crate::id::{ExecutionId, InvokeId};
use crate::output::{Delivery, DeliveryStatus};
use crate::status::ExecutionStatus;

use super::executions::expect_one;
use super::{Tx, parse, unreadable};

/// Records a delivery: one that waits, or one that has failed already.
pub(super) fn insert(tx: Tx<'_>, id: ExecutionId, delivery: &Delivery) -> Result<()> {
    tx.execute(
        "INSERT INTO deliveries (execution, status, bytes, uri, error_code, error_info)
         VALUES (?1, ?2, ?3, nullif(?4, ''), nullif(?5, ''), nullif(?6, ''))",
        (
            id.0,
            delivery.status.as_str(),
            delivery.bytes,
            &delivery.uri,
            &delivery.error_code,
            delivery.error_info.text(),
        ),
    )?;
    Ok(())
}

/// An output that waits to be delivered.
#[derive(Debug)]
pub(crate) struct Waiting {
    /// The number of its record: later ones have higher numbers.
    pub id: i64,
    pub execution_id: ExecutionId,
    pub invoke_id: InvokeId,
    /// Where it goes.
    pub to: String,
    /// How long it is; none if its engine ended before it did.
    pub bytes: Option<u64>,
}

/// Returns up to `max` outputs after `after` that wait to be delivered, in the order they came, each with the number
/// of its record. A record that cannot be read hides no other record.
pub(crate) fn waiting(tx: Tx<'_>, after: i64, max: usize) -> Result<Vec<(i64, Result<Waiting>)>> {
    let mut query = tx.prepare(
        "SELECT d.id, d.execution, v.invoke_id, v.output_to, d.bytes
         FROM deliveries d INDEXED BY deliveries_unfinished
             CROSS JOIN executions e ON e.id = d.execution
             JOIN fires f ON f.id = e.fire JOIN invocations v ON v.id = f.invocation
         WHERE d.status = 'InProgress' AND d.id > ?1 ORDER BY d.id LIMIT ?2",
    )?;
    let read = |row: &Row<'_>, id: i64| -> Result<Waiting> {
        Ok(Waiting {
            id,
            execution_id: ExecutionId(row.get(1)?),
            invoke_id: InvokeId::from_bytes(row.get(2)?),
            to: row.get(3)?,
            bytes: row.get(4)?,
        })
    };
    let waiting = query.query_map((after, max as i64), |row| {
        let id = row.get(0)?;
        Ok((id, read(row, id)))
    })?;
    Ok(waiting.collect::<rusqlite::Result<_>>()?)
}

/// Whether the output of an execution waits to be delivered.
pub(crate) fn waits(tx: Tx<'_>, id: ExecutionId) -> Result<bool> {
    tx.one(
        "SELECT EXISTS (SELECT 1 FROM deliveries WHERE execution = ?1 AND status = 'InProgress')",
        [id.0],
        |row| row.get(0),
    )
}

/// Records how deliveries ended.
pub(crate) fn finish<'a>(
    tx: Tx<'_>,
    ended: impl IntoIterator<Item = &'a (Waiting, Delivery)>,
) -> Result<()> {
    let mut update = tx.prepare(
        "UPDATE deliveries SET status = ?2, uri = nullif(?3, ''), error_code = nullif(?4, ''),
             error_info = nullif(?5, '')
         WHERE id = ?1 AND status = 'InProgress'",
    )?;
    for (waiting, delivery) in ended {
        let changed = update.execute((
            waiting.id,
            delivery.status.as_str(),
            &delivery.uri,
            &delivery.error_code,
            delivery.error_info.text(),
        ))?;
        expect_one(changed, waiting.execution_id)?;
    }
    Ok(())
}

/// What the record of an execution says of its delivery, as the pages do.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub status: String,
    pub uri: String,
    pub error_code: String,
    pub error_info: String,
}

/// What is told of an execution that stands so, if its output was to go anywhere. One that ended
/// without having run has nothing to deliver.
pub(super) fn told(
    tx: Tx<'_>,
    output_to: Option<&str>,
    execution: Option<(ExecutionId, ExecutionStatus)>,
) -> Result<Told> {
    let (Some(_), Some((id, status))) = (output_to, execution) else { return Ok(Told::default()) };
    if !status.is_final() {
        let status = DeliveryStatus::InProgress.to_string();
        return Ok(Told { status, ..Told::default() });
    }
    let found = tx.find(
        "SELECT status, uri, error_code, error_info FROM deliveries WHERE execution = ?1",
        [id.0],
        |row| Ok(read(row)),
    )?;
    found.unwrap_or_else(|| Ok(Told::default()))
}

fn read(row: &Row<'_>) -> Result<Told> {
    let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let status: DeliveryStatus = parse(row.get_ref(0)?.as_str().map_err(unreadable)?)?;
    Ok(Told {
        status: status.to_string(),
        uri: text(1)?,
        error_code: text(2)?,
        error_info: text(3)?,
    })
}

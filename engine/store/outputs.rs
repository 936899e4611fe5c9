//! Table `outputs`: what executions printed, apart from the small rows.

use rusqlite::Row;

use crate::error::Result;
use crate::id::ExecutionId;
use crate::output::{Output, Runs};

use super::{Tx, unreadable};

/// Keeps an output, if there is any.
pub(super) fn insert(tx: Tx<'_>, id: ExecutionId, output: &Output) -> Result<()> {
    if output.is_empty() {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO outputs (execution, bytes, runs, gap_at, dropped) VALUES (?1, ?2, ?3, ?4, ?5)",
        (id.0, output.as_bytes(), output.runs().to_bytes(), output.gap_at(), output.dropped()),
    )?;
    Ok(())
}

/// The output of an execution; empty if it printed nothing.
pub(super) fn get(tx: Tx<'_>, id: ExecutionId) -> Result<Output> {
    let stored = tx.find(
        "SELECT bytes, runs, gap_at, dropped FROM outputs WHERE execution = ?1",
        [id.0],
        |row| Ok(read(row)),
    )?;
    stored.unwrap_or_else(|| Ok(Output::default()))
}

fn read(row: &Row<'_>) -> Result<Output> {
    let wrong = || unreadable("bytes, runs and gap of an output do not fit one another");
    let runs: Vec<u8> = row.get(1)?;
    let runs = Runs::from_bytes(&runs).ok_or_else(|| unreadable("runs of an output"))?;
    let (gap_at, dropped): (Option<u64>, u64) = (row.get(2)?, row.get(3)?);
    if gap_at.is_some() != (dropped > 0) {
        return Err(wrong());
    }
    Output::from_parts(row.get(0)?, runs, gap_at.map(|at| (at, dropped))).ok_or_else(wrong)
}

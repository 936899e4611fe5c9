//! Table `results`: what executions left beside their output, apart from the small rows.

use serde_json::Value;

use crate::error::Result;
use crate::id::ExecutionId;

use super::{Tx, unreadable};

/// A result, or why there is none where one was meant to be.
type Kept = std::result::Result<Value, String>;

/// Keeps the result of an execution.
pub(super) fn insert(tx: Tx<'_>, id: ExecutionId, result: &Kept) -> Result<()> {
    tx.execute(
        "INSERT INTO results (execution, json, error) VALUES (?1, ?2, ?3)",
        (id.0, result.as_ref().ok().map(Value::to_string), result.as_ref().err()),
    )?;
    Ok(())
}

/// The result of an execution, if it was to have one.
pub(super) fn get(tx: Tx<'_>, id: ExecutionId) -> Result<Option<Kept>> {
    let stored: Option<(Option<String>, Option<String>)> =
        tx.find("SELECT json, error FROM results WHERE execution = ?1", [id.0], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    match stored {
        None => Ok(None),
        Some((Some(json), _)) => Ok(Some(Ok(serde_json::from_str(&json).map_err(unreadable)?))),
        Some((None, error)) => Ok(Some(Err(error.unwrap_or_default()))),
    }
}

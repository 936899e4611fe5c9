//! Table `meta`: what the file says of itself.

use rusqlite::OptionalExtension;

use crate::error::Result;

use super::Tx;

/// Returns the value of a key; `None` if there is no value or it is no text.
pub(crate) fn get(tx: Tx<'_>, key: &str) -> Result<Option<String>> {
    let value = tx
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| Ok(row.get(0).ok()))
        .optional()?;
    Ok(value.flatten())
}

pub(crate) fn set(tx: Tx<'_>, key: &str, value: &str) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )?
    .execute((key, value))?;
    Ok(())
}

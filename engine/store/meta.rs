//! Table `meta`: what the file says of itself.

use crate::error::Result;

use super::Tx;

/// Returns the value of a key; `None` if there is no value or it is no text.
pub(crate) fn get(tx: Tx<'_>, key: &str) -> Result<Option<String>> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    Ok(tx.find(sql, [key], |row| Ok(row.get(0).ok()))?.flatten())
}

pub(crate) fn set(tx: Tx<'_>, key: &str, value: &str) -> Result<()> {
    tx.execute(
        "INSERT INTO meta (key, value) VALUES (?1, ?2)
         ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )?;
    Ok(())
}

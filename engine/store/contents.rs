//! Table `contents`: scripts, each once, known by their hash.

use std::sync::Arc;

use rusqlite::OptionalExtension;
use sha2::{Digest, Sha256};

use crate::command::content::Content;
use crate::error::Result;

use super::{Tx, known};

/// The row of a script, new or not.
pub(super) fn intern(tx: Tx<'_>, content: &Content) -> Result<i64> {
    if let Some(id) = known::content(content) {
        return Ok(id);
    }
    let id = intern_unknown(tx, content)?;
    known::add_content(content, id);
    Ok(id)
}

fn intern_unknown(tx: Tx<'_>, content: &Content) -> Result<i64> {
    let sha256 = Sha256::digest(content);
    let stored = tx
        .prepare_cached("SELECT id FROM contents WHERE sha256 = ?1")?
        .query_row([sha256.as_slice()], |row| row.get(0))
        .optional()?;
    if let Some(id) = stored {
        return Ok(id);
    }
    tx.prepare_cached("INSERT INTO contents (sha256, bytes) VALUES (?1, ?2)")?
        .execute((sha256.as_slice(), content.as_ref()))?;
    Ok(tx.last_insert_rowid())
}

/// The script of a row.
pub(super) fn get(tx: Tx<'_>, id: i64) -> Result<Content> {
    let bytes: Vec<u8> = tx
        .prepare_cached("SELECT bytes FROM contents WHERE id = ?1")?
        .query_row([id], |row| row.get(0))?;
    Ok(Arc::from(bytes))
}

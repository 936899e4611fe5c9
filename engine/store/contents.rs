//! Table `contents`: scripts, each once, known by their hash.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::command::content::Content;
use crate::error::Result;

use super::Tx;

/// The row of a script, new or not.
pub(super) fn intern(tx: Tx<'_>, content: &Content) -> Result<i64> {
    if let Some(id) = tx.memory.cache.content(content) {
        return Ok(id);
    }
    let id = intern_unknown(tx, content)?;
    tx.memory.cache.add_content(content, id);
    Ok(id)
}

fn intern_unknown(tx: Tx<'_>, content: &Content) -> Result<i64> {
    let sha256 = Sha256::digest(content);
    let stored =
        tx.find("SELECT id FROM contents WHERE sha256 = ?1", [sha256.as_slice()], |row| {
            row.get(0)
        })?;
    if let Some(id) = stored {
        return Ok(id);
    }
    tx.execute(
        "INSERT INTO contents (sha256, bytes) VALUES (?1, ?2)",
        (sha256.as_slice(), content.as_ref()),
    )?;
    Ok(tx.last_id())
}

/// The script of a row.
pub(super) fn get(tx: Tx<'_>, id: i64) -> Result<Content> {
    let bytes: Vec<u8> =
        tx.one("SELECT bytes FROM contents WHERE id = ?1", [id], |row| row.get(0))?;
    Ok(Arc::from(bytes))
}

//! Table `fires`: one row per nominal time, whatever became of it.

use rusqlite::OptionalExtension;

use crate::error::{Error, Result};
use crate::invocation::recurrence::{Fire, FireDisposition};

use super::commands::read_time;
use super::{PageToken, Tx, cut_page, unreadable};

/// What became of a nominal time of a timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// It led to executions.
    Started,
    /// It and others up to `until_ms` passed without the engine: so many in all.
    Missed { count: u64, until_ms: i64 },
}

/// Stores a fire with so many executions to come; its row.
pub(super) fn insert(
    tx: Tx<'_>,
    invocation: i64,
    timer: Option<i64>,
    fire_at_ms: i64,
    disposition: Disposition,
    unfinished: usize,
) -> Result<i64> {
    let (name, reason, count, until_ms) = match disposition {
        Disposition::Started => ("Started", None, 1, None),
        Disposition::Missed { count, until_ms } => (
            "Missed",
            Some("the engine was not there or the clock had not come by"),
            count,
            Some(until_ms),
        ),
    };
    tx.prepare_cached(
        "INSERT INTO fires (invocation, timer, fire_at_ms, disposition, reason, count, until_ms, unfinished)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((invocation, timer, fire_at_ms, name, reason, count, until_ms, unfinished as i64))?;
    Ok(tx.last_insert_rowid())
}

/// Takes note that executions of a fire have ended; its invocation if none of them is left.
pub(super) fn count_down(tx: Tx<'_>, fire: i64, ended: u64) -> Result<Option<i64>> {
    let (left, invocation): (i64, i64) = tx
        .prepare_cached(
            "UPDATE fires SET unfinished = unfinished - ?2 WHERE id = ?1
             RETURNING unfinished, invocation",
        )?
        .query_row((fire, ended), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or_else(|| Error::Internal(format!("fire {fire} is gone")))?;
    Ok((left == 0).then_some(invocation))
}

/// A page of the fires of an invocation, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    invocation: i64,
    after: Option<PageToken>,
    page_size: usize,
) -> Result<(Vec<Fire>, Option<PageToken>)> {
    let mut query = tx.prepare_cached(
        "SELECT f.id, f.fire_at_ms, f.until_ms, f.count, f.disposition, f.reason, m.zone
         FROM fires f LEFT JOIN timers m ON m.id = f.timer
         WHERE f.invocation = ?1 AND f.id < ?2 ORDER BY f.id DESC LIMIT ?3",
    )?;
    let after = after.map_or(i64::MAX, |token| token.0);
    let mut rows = query.query((invocation, after, page_size as i64 + 1))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let until_ms: Option<i64> = row.get(2)?;
        let disposition = match row.get_ref(4)?.as_str().map_err(unreadable)? {
            "Started" => FireDisposition::Started,
            "Missed" => FireDisposition::Missed,
            other => return Err(unreadable(other)),
        };
        let fire = Fire {
            time: read_time(row.get(1)?)?,
            until: until_ms.map(read_time).transpose()?,
            count: row.get(3)?,
            disposition,
            reason: row.get::<_, Option<String>>(5)?.unwrap_or_default(),
            zone: row.get::<_, Option<String>>(6)?.unwrap_or_default(),
        };
        entries.push((row.get(0)?, fire));
    }
    let next = cut_page(&mut entries, page_size);
    Ok((entries.into_iter().map(|(_, fire)| fire).collect(), next))
}

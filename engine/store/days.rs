//! Table `days`: how many invocations each day of UTC has had.

use rusqlite::OptionalExtension;

use crate::error::{Error, Result, Violation};

use super::Tx;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Counts one more invocation, unless that would be more than `max` on its day.
pub(super) fn count_invocation(tx: Tx<'_>, now_ms: i64, max: u64) -> Result<()> {
    let count: u64 = tx
        .prepare_cached(
            "INSERT INTO days (id, invocations) VALUES (?1, 1)
             ON CONFLICT (id) DO UPDATE SET invocations = invocations + 1 RETURNING invocations",
        )?
        .query_row([now_ms.div_euclid(DAY_MS)], |row| row.get(0))?;
    if count <= max {
        return Ok(());
    }
    let message =
        format!("want at most {max} invocations in a day of UTC; this would be number {count}");
    Err(Error::invalid(Violation::new("Invocation.ExceedQuota", 403, "InvokeId", message)))
}

/// How many invocations the day has had so far.
pub(crate) fn invocations(tx: Tx<'_>, now_ms: i64) -> Result<u64> {
    let count = tx
        .prepare_cached("SELECT invocations FROM days WHERE id = ?1")?
        .query_row([now_ms.div_euclid(DAY_MS)], |row| row.get(0))
        .optional()?;
    Ok(count.unwrap_or_default())
}

//! Table `days`: how many invocations each day of UTC has had.

use chrono::DateTime;

use crate::error::{Error, Result, Violation};

use super::Tx;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Counts one more invocation.
pub(super) fn count_invocation(tx: Tx<'_>, now_ms: i64) -> Result<()> {
    let day = now_ms.div_euclid(DAY_MS);
    let count = invocations(tx, now_ms)? + 1;
    let sql = match count {
        1 => "INSERT INTO days (id, invocations) VALUES (?1, 1)",
        // Less work than an INSERT with ON CONFLICT.
        _ => "UPDATE days SET invocations = invocations + 1 WHERE id = ?1",
    };
    let changed = tx.execute(sql, [day])?;
    if changed != 1 {
        return Err(Error::Internal(format!("day {day} has no count, and had {count}")));
    }
    tx.memory.cache.set_invocations_on(day, count);
    Ok(())
}

/// What is wrong with one more invocation today, if something is.
pub(crate) fn beyond_quota(tx: Tx<'_>, now_ms: i64, max: u64) -> Result<Option<Violation>> {
    let count = invocations(tx, now_ms)?;
    if count < max {
        return Ok(None);
    }
    let number = count + 1;
    let message =
        format!("want at most {max} invocations in a day of UTC; this would be number {number}");
    let tomorrow_ms = now_ms.div_euclid(DAY_MS).saturating_add(1).saturating_mul(DAY_MS);
    let violation = Violation::new("Invocation.ExceedQuota", 403, "InvokeId", message);
    Ok(Some(violation.of_quota(DateTime::from_timestamp_millis(tomorrow_ms))))
}

/// How many invocations the day has had so far.
pub(crate) fn invocations(tx: Tx<'_>, now_ms: i64) -> Result<u64> {
    let day = now_ms.div_euclid(DAY_MS);
    if let Some(count) = tx.memory.cache.invocations_on(day) {
        return Ok(count);
    }
    let count = tx
        .find("SELECT invocations FROM days WHERE id = ?1", [day], |row| row.get(0))?
        .unwrap_or_default();
    tx.memory.cache.set_invocations_on(day, count);
    Ok(count)
}

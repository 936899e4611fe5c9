//! Times until which the executions of a fire may start, and have to end.

use crate::error::Result;
use crate::execution::StopReason;

use super::Tx;
use super::stop::{self, Ending, Scope, Stopped};

/// Returns up to `max` fires of which the time to start is over.
pub(crate) fn late_to_start(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<i64>> {
    late(tx, "fires_by_start", "start_by_ms", now_ms, max)
}

/// Returns up to `max` fires of which the time to end is over.
pub(crate) fn late_to_end(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<i64>> {
    late(tx, "fires_by_end", "end_by_ms", now_ms, max)
}

/// The query reads the index alone: each fire is read by itself later, so that the engine knows which fire cannot
/// be read.
fn late(tx: Tx<'_>, index: &str, by_ms: &str, now_ms: i64, max: usize) -> Result<Vec<i64>> {
    let mut query = tx.prepare(&format!(
        "SELECT id FROM fires INDEXED BY {index}
         WHERE {by_ms} < ?1 AND unfinished > 0 ORDER BY {by_ms}, id LIMIT ?2"
    ))?;
    let late = query.query_map((now_ms, max as i64), |row| row.get(0))?;
    Ok(late.collect::<rusqlite::Result<_>>()?)
}

/// When the next such time is over.
pub(crate) fn next_ms(tx: Tx<'_>) -> Result<Option<i64>> {
    let next: (Option<i64>, Option<i64>) = tx.one(
        // A time that is no number comes after all numbers, and is never over.
        "SELECT (SELECT CAST(min(start_by_ms) AS INTEGER) FROM fires INDEXED BY fires_by_start
             WHERE start_by_ms <= 9223372036854775807 AND unfinished > 0),
         (SELECT CAST(min(end_by_ms) AS INTEGER) FROM fires INDEXED BY fires_by_end
             WHERE end_by_ms <= 9223372036854775807 AND unfinished > 0)",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let earliest = [next.0, next.1].into_iter().flatten().min();
    // They are over with the millisecond after.
    Ok(earliest.map(|ms| ms.saturating_add(1)))
}

/// Gives up the times of a fire, which cannot be dealt with.
pub(crate) fn give_up(tx: Tx<'_>, fire: i64) -> Result<()> {
    tx.execute(
        "UPDATE fires SET start_by_ms = NULL, end_by_ms = NULL, wave_at_ms = NULL WHERE id = ?1",
        [fire],
    )?;
    Ok(())
}

/// Ends executions of a fire that have not started in time, as many as are `left`, and keeps all others from
/// starting. An execution that is tried again counts as started.
pub(crate) fn expire(tx: Tx<'_>, fire: i64, now_ms: i64, left: &mut usize) -> Result<Stopped> {
    tx.execute("UPDATE fires SET start_by_ms = NULL WHERE id = ?1", [fire])?;
    stop::order(tx, Scope::of_fire(tx, fire)?, &Ending::Expiry, now_ms, left)
}

/// Stops executions of a fire that have not ended in time, as many as are `left`, and keeps all others from starting.
pub(crate) fn end(tx: Tx<'_>, fire: i64, now_ms: i64, left: &mut usize) -> Result<Stopped> {
    tx.execute("UPDATE fires SET end_by_ms = NULL WHERE id = ?1", [fire])?;
    let ending = Ending::Stop(StopReason::Deadline.into());
    stop::order(tx, Scope::of_fire(tx, fire)?, &ending, now_ms, left)
}

//! Times until which the executions of a fire may start, and have to end.

use crate::error::{Error, Result};
use crate::execution::{START_DEADLINE_EXCEEDED, StopOrder, StopReason};
use crate::id::InvokeId;
use crate::metrics::{Counted, tally};
use crate::status::{Cause, Ends};

use super::stop::{self, Stopped, Unfinished};
use super::{Tx, claims, executions};

/// Executions of one fire that are ended in one commit.
const SLICE: i64 = 4_096;

/// Fires of which the time to start is over.
pub(crate) fn late_to_start(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<(i64, InvokeId)>> {
    late(tx, "fires_by_start", "start_by_ms", now_ms, max)
}

/// Fires of which the time to end is over.
pub(crate) fn late_to_end(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<(i64, InvokeId)>> {
    late(tx, "fires_by_end", "end_by_ms", now_ms, max)
}

fn late(
    tx: Tx<'_>,
    index: &str,
    by_ms: &str,
    now_ms: i64,
    max: usize,
) -> Result<Vec<(i64, InvokeId)>> {
    let mut query = tx.prepare_cached(&format!(
        "SELECT f.id, v.invoke_id FROM fires f INDEXED BY {index}
             JOIN invocations v ON v.id = f.invocation
         WHERE f.{by_ms} < ?1 AND f.unfinished > 0 ORDER BY f.{by_ms}, f.id LIMIT ?2"
    ))?;
    let late = query.query_map((now_ms, max as i64), |row| {
        Ok((row.get(0)?, InvokeId::from_bytes(row.get(1)?)))
    })?;
    Ok(late.collect::<rusqlite::Result<_>>()?)
}

/// When the next such time is over.
pub(crate) fn next_ms(tx: Tx<'_>) -> Result<Option<i64>> {
    let next: (Option<i64>, Option<i64>) = tx
        .prepare_cached(
            "SELECT (SELECT min(start_by_ms) FROM fires INDEXED BY fires_by_start
                     WHERE start_by_ms IS NOT NULL AND unfinished > 0),
                 (SELECT min(end_by_ms) FROM fires INDEXED BY fires_by_end
                     WHERE end_by_ms IS NOT NULL AND unfinished > 0)",
        )?
        .query_row((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let earliest = [next.0, next.1].into_iter().flatten().min();
    // They are over with the millisecond after.
    Ok(earliest.map(|ms| ms.saturating_add(1)))
}

/// Gives up the times of a fire, which cannot be dealt with.
pub(crate) fn give_up(tx: Tx<'_>, fire: i64) -> Result<()> {
    tx.prepare_cached(
        "UPDATE fires SET start_by_ms = NULL, end_by_ms = NULL, wave_at_ms = NULL WHERE id = ?1",
    )?
    .execute([fire])?;
    Ok(())
}

/// Ends what of a fire has not started in time. What is tried again has.
pub(crate) fn expire(tx: Tx<'_>, fire: i64, now_ms: i64) -> Result<Stopped> {
    const WAITING: &str = "e.fire = ?1 AND e.attempt = 1 AND e.status IN ('Pending', 'Scheduled')";
    let expired: Vec<_> = tx
        .prepare_cached(&format!(
            "SELECT e.id, i.instance_id, e.instance, e.status = 'Pending'
             FROM executions e INDEXED BY executions_by_fire
                 JOIN instances i ON i.id = e.instance WHERE {WAITING} ORDER BY e.instance LIMIT ?2"
        ))?
        .query_map((fire, SLICE), stop::read_early)?
        .collect::<rusqlite::Result<_>>()?;
    let Some(last) = expired.last().map(|last| last.instance) else {
        tx.prepare_cached("UPDATE fires SET start_by_ms = NULL WHERE id = ?1")?.execute([fire])?;
        return Ok(Stopped::default());
    };
    let target = Cause::Expired.target();
    let changed = tx
        .prepare_cached(&format!(
            "UPDATE executions AS e INDEXED BY executions_by_fire
             SET status = ?2, finished_at_ms = ?3, error_code = ?4, awaits_instance = NULL, room = NULL,
                 error_info = 'it had not started when its start deadline was over'
             WHERE {WAITING} AND e.instance <= ?5"
        ))?
        .execute((fire, target.as_str(), now_ms, START_DEADLINE_EXCEEDED, last))?;
    if changed != expired.len() {
        return Err(Error::Internal(format!(
            "{changed} executions of fire {fire} were not started"
        )));
    }
    tally::count(Counted::Ended(target), expired.len());
    tally::count(Counted::Expired, expired.len());
    let mut tally = Ends::default();
    expired.iter().for_each(|_| tally.count(target));
    let released = claims::release_behind(tx, fire, &expired)?;
    let mut finished = executions::Finished { released, ..Default::default() };
    executions::finish_fire(tx, fire, tally, now_ms, &mut finished)?;
    let called_off = finished.called_off.into_iter().flat_map(|(_, cancelled)| cancelled);
    Ok(Stopped {
        expired: expired.into_iter().map(|one| (one.id, one.instance_id)).collect(),
        released: finished.released,
        cancelled: called_off.collect(),
        finished: finished.invocations,
        wave_ended: finished.wave_ended,
        ..Stopped::default()
    })
}

/// Stops what of a fire has not ended in time, a slice of it.
pub(crate) fn end(tx: Tx<'_>, fire: i64, now_ms: i64) -> Result<Stopped> {
    let order = StopOrder::from(StopReason::Deadline);
    let slice = Unfinished::of_fire(tx, fire, SLICE)?;
    if (slice.len() as i64) < SLICE {
        tx.prepare_cached("UPDATE fires SET end_by_ms = NULL WHERE id = ?1")?.execute([fire])?;
    }
    let mut stopped = stop::all(tx, &slice, &order, now_ms)?;
    let early: Vec<_> = slice.iter().filter_map(Unfinished::ended_early).collect();
    stopped.released.extend(claims::release_behind(tx, fire, &early)?);
    Ok(stopped)
}

//! Waves of fires: how many of their executions have been let loose, and when more may be.

use crate::error::Result;
use crate::execution::{StopOrder, StopReason};
use crate::id::{ExecutionId, InvokeId};
use crate::status::Ends;

use super::stop::{self, Ending, Scope, Stopped};
use super::{Tx, fires, invocations, waits};

/// Checks whether a wave of a fire has ended with its last execution. If so, the next wave comes after the soak,
/// which is a duration, not an instant. Returns whether the wave has ended.
pub(super) fn look(tx: Tx<'_>, fire: i64, invocation: i64, now_ms: i64) -> Result<bool> {
    if any_open(tx, fire)? {
        return Ok(false);
    }
    let soak_s = invocations::rate_control(tx, invocation)?.wave_soak.unwrap_or_default();
    let soak_ms = i64::try_from(soak_s.saturating_mul(1_000)).unwrap_or(i64::MAX);
    tx.execute(
        "UPDATE fires SET wave_at_ms = ?2 WHERE id = ?1 AND wave_at_ms IS NULL",
        (fire, waits::begin(tx, now_ms, soak_ms)?.at_ms),
    )?;
    Ok(true)
}

/// A fire of which the next wave is due.
#[derive(Debug, Clone)]
pub(crate) struct DueWave {
    pub fire: i64,
    pub invoke_id: InvokeId,
    pub invocation: i64,
    /// How many executions the waves so far have had, and how they have ended.
    pub opened: u64,
    pub ended: Ends,
    /// How many there are in all.
    pub targets: u64,
}

/// Returns up to `max` fires of which the next wave is due, the longest due first. By the index alone: each fire is
/// read by itself, so that it is known which one cannot be read.
pub(crate) fn due(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<i64>> {
    let mut query = tx.prepare(
        "SELECT id FROM fires INDEXED BY fires_by_wave
         WHERE wave_at_ms <= ?1 AND unfinished > 0 ORDER BY wave_at_ms, id LIMIT ?2",
    )?;
    let due = query.query_map((now_ms, max as i64), |row| row.get(0))?;
    Ok(due.collect::<rusqlite::Result<_>>()?)
}

/// Returns the next wave of a fire.
pub(crate) fn get(tx: Tx<'_>, fire: i64) -> Result<DueWave> {
    tx.one(
        "SELECT v.invoke_id, f.invocation, f.opened, f.succeeded, f.failed, f.stopped, f.unfinished
         FROM fires f JOIN invocations v ON v.id = f.invocation WHERE f.id = ?1",
        [fire],
        |row| {
            let ended = Ends { succeeded: row.get(3)?, failed: row.get(4)?, stopped: row.get(5)? };
            Ok(DueWave {
                fire,
                invoke_id: InvokeId::from_bytes(row.get(0)?),
                invocation: row.get(1)?,
                opened: row.get(2)?,
                ended,
                targets: ended.total().saturating_add(row.get::<_, u64>(6)?),
            })
        },
    )
}

/// Returns whether the next wave of a fire still waits to be opened.
pub(crate) fn waits(tx: Tx<'_>, due: &DueWave) -> Result<bool> {
    tx.one(
        "SELECT EXISTS (SELECT 1 FROM fires
         WHERE id = ?1 AND opened = ?2 AND wave_at_ms IS NOT NULL AND unfinished > 0)",
        (due.fire, due.opened),
        |row| row.get(0),
    )
}

/// Lets the next wave of a fire loose; whether there was anything to let loose.
pub(crate) fn open(tx: Tx<'_>, due: &DueWave) -> Result<bool> {
    let still: Option<i64> = tx.find(
        "SELECT open_until FROM fires
         WHERE id = ?1 AND opened = ?2 AND wave_at_ms IS NOT NULL AND unfinished > 0",
        (due.fire, due.opened),
        |row| row.get(0),
    )?;
    let Some(until) = still else { return Ok(false) };
    let control = invocations::rate_control(tx, due.invocation)?;
    let mut opened = due.opened;
    loop {
        opened = control.next_wave(opened, due.targets).unwrap_or(due.targets);
        let until = until.saturating_add_unsigned(opened.saturating_sub(due.opened));
        fires::open_wave(tx, due.fire, opened, ExecutionId(until))?;
        // All of a wave may have been stopped before its turn.
        if opened >= due.targets || any_open(tx, due.fire)? {
            return Ok(true);
        }
    }
}

/// Whether an execution of a fire has not ended that its waves have let loose.
fn any_open(tx: Tx<'_>, fire: i64) -> Result<bool> {
    tx.one(
        "SELECT EXISTS (SELECT 1 FROM fires f
         CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
         WHERE f.id = ?1 AND e.finished_at_ms IS NULL
             AND (e.id <= f.open_until OR e.attempt > 1))",
        [fire],
        |row| row.get(0),
    )
}

/// Puts the next wave of a fire off for `wait_ms`.
pub(crate) fn put_off(tx: Tx<'_>, due: &DueWave, wait_ms: i64, now_ms: i64) -> Result<()> {
    let until_ms = waits::begin(tx, now_ms, wait_ms)?.at_ms;
    tx.execute(
        "UPDATE fires SET wave_at_ms = ?3 WHERE id = ?1 AND opened = ?2 AND wave_at_ms IS NOT NULL",
        (due.fire, due.opened, until_ms),
    )?;
    Ok(())
}

/// Returns when the next wave that is not due yet will be due.
pub(crate) fn next_ms(tx: Tx<'_>, now_ms: i64) -> Result<Option<i64>> {
    tx.one(
        // A time that is no number comes after all numbers, and never comes.
        "SELECT CAST(min(wave_at_ms) AS INTEGER) FROM fires INDEXED BY fires_by_wave
         WHERE wave_at_ms > ?1 AND wave_at_ms <= 9223372036854775807 AND unfinished > 0",
        [now_ms],
        |row| row.get(0),
    )
}

/// Calls off what waits of a fire whose next wave may not start.
pub(crate) fn halt(
    tx: Tx<'_>,
    due: &DueWave,
    why: &str,
    now_ms: i64,
    left: &mut usize,
) -> Result<Stopped> {
    tx.execute("UPDATE fires SET wave_at_ms = NULL WHERE id = ?1", [due.fire])?;
    let ending = Ending::Stop(StopOrder::because(StopReason::Gate, why));
    stop::order(tx, Scope::of_fire(tx, due.fire)?, &ending, now_ms, left)
}

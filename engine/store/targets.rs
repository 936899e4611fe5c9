//! Table `targets`: the instances that an invocation fires for.

use crate::error::Result;
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::invocation::recurrence::OverlapPolicy;
use crate::status::ExecutionStatus;

use super::executions::NewExecution;
use super::{Tx, parse, timers};

/// Stores the targets of a timer.
pub(super) fn insert_timed(
    tx: Tx<'_>,
    invocation: i64,
    timer: i64,
    instances: &[i64],
) -> Result<()> {
    let mut insert =
        tx.prepare("INSERT INTO targets (invocation, instance, timer) VALUES (?1, ?2, ?3)")?;
    for instance in instances {
        insert.execute((invocation, instance, timer))?;
    }
    Ok(())
}

/// Stores targets that fire when they boot: with another boot than they have now.
pub(super) fn insert_booting(tx: Tx<'_>, invocation: i64, instances: &[i64]) -> Result<()> {
    let mut insert = tx.prepare(
        "INSERT INTO targets (invocation, instance, awaits_boot, boot_id)
         SELECT ?1, id, 1, boot_id FROM instances WHERE id = ?2",
    )?;
    for instance in instances {
        insert.execute((invocation, instance))?;
    }
    Ok(())
}

/// The instances that a timer fires for.
pub(crate) fn of_timer(tx: Tx<'_>, invocation: i64, timer: i64) -> Result<Vec<i64>> {
    let mut query = tx
        .prepare("SELECT instance FROM targets WHERE invocation = ?1 AND timer = ?2 ORDER BY id")?;
    let instances = query.query_map((invocation, timer), |row| row.get(0))?;
    Ok(instances.collect::<rusqlite::Result<_>>()?)
}

/// Takes removed instances out of an ended timer. Returns whether other instances are left.
pub(super) fn revive(tx: Tx<'_>, timer: i64) -> Result<bool> {
    tx.execute(
        "UPDATE targets SET stopped = 1, timer = NULL
         WHERE invocation = (SELECT invocation FROM timers WHERE id = ?1) AND timer = ?1
             AND EXISTS (SELECT 1 FROM instances i
                         WHERE i.id = targets.instance AND i.removed_at_ms IS NOT NULL)",
        [timer],
    )?;
    tx.one(
        "SELECT EXISTS (SELECT 1 FROM targets
         WHERE invocation = (SELECT invocation FROM timers WHERE id = ?1) AND timer = ?1)",
        [timer],
        |row| row.get(0),
    )
}

/// The instances that an invocation fires for.
pub(super) fn of_invocation(tx: Tx<'_>, invocation: i64) -> Result<Vec<i64>> {
    let mut query = tx.prepare(
        "SELECT t.instance FROM targets t JOIN instances i ON i.id = t.instance
         WHERE t.invocation = ?1 AND t.stopped = 0 AND i.removed_at_ms IS NULL ORDER BY t.id",
    )?;
    let instances = query.query_map([invocation], |row| row.get(0))?;
    Ok(instances.collect::<rusqlite::Result<_>>()?)
}

/// Whether an invocation will fire again: by a timer or at a boot.
pub(super) fn any_left(tx: Tx<'_>, invocation: i64) -> Result<bool> {
    tx.one(&format!("SELECT {ANY_LEFT} FROM invocations v WHERE v.id = ?1"), [invocation], |row| {
        row.get(0)
    })
}

/// The condition that an invocation will fire again.
pub(super) const ANY_LEFT: &str =
    "EXISTS (SELECT 1 FROM timers lt WHERE lt.invocation = v.id AND lt.next_fire_at_ms IS NOT NULL)
         OR EXISTS (SELECT 1 FROM targets lb WHERE lb.invocation = v.id AND lb.awaits_boot = 1)";

/// Lets an invocation fire no more.
pub(super) fn end_all(tx: Tx<'_>, invocation: i64) -> Result<()> {
    timers::end_all(tx, invocation)?;
    tx.execute(
        "UPDATE targets SET awaits_boot = 0 WHERE invocation = ?1 AND awaits_boot = 1",
        [invocation],
    )?;
    Ok(())
}

/// Takes instances out of an invocation; timers without any end.
pub(super) fn remove(tx: Tx<'_>, invocation: i64, ids: &[InstanceId]) -> Result<()> {
    for id in ids {
        tx.execute(
            "UPDATE targets SET stopped = 1, timer = NULL, awaits_boot = 0 WHERE invocation = ?1
             AND instance = (SELECT id FROM instances WHERE instance_id = ?2)",
            (invocation, id.as_str()),
        )?;
    }
    timers::end_idle(tx, invocation)
}

/// An invocation that waits for an instance to boot, and finds that it has.
#[derive(Debug)]
pub(super) struct Booted {
    pub invocation: i64,
    pub once: bool,
    pub paused: bool,
    /// The id and the policy of the invocation, or the error if these cannot be read.
    pub terms: Result<(InvokeId, OverlapPolicy)>,
    /// Whether the invocation knows no boot yet. It then takes this boot for the boot under which it was made.
    pub is_first: bool,
}

/// Targets on instance `?1` that wait for a boot and do not know of boot `?2`.
const BOOTED: &str = "SELECT id FROM targets INDEXED BY targets_by_boot
         WHERE instance = ?1 AND awaits_boot = 1 AND boot_id IS NULL
     UNION ALL SELECT id FROM targets INDEXED BY targets_by_boot
         WHERE instance = ?1 AND awaits_boot = 1 AND boot_id < ?2
     UNION ALL SELECT id FROM targets INDEXED BY targets_by_boot
         WHERE instance = ?1 AND awaits_boot = 1 AND boot_id > ?2";

/// The condition that a target on instance `i` waits for a boot and does not know of boot `?2`.
pub(super) const ANY_BOOTED: &str = "EXISTS (SELECT 1 FROM targets t INDEXED BY targets_by_boot
         WHERE t.instance = i.id AND t.awaits_boot = 1 AND t.boot_id IS NULL)
     OR EXISTS (SELECT 1 FROM targets t INDEXED BY targets_by_boot
         WHERE t.instance = i.id AND t.awaits_boot = 1 AND t.boot_id < ?2)
     OR EXISTS (SELECT 1 FROM targets t INDEXED BY targets_by_boot
         WHERE t.instance = i.id AND t.awaits_boot = 1 AND t.boot_id > ?2)";

/// Returns up to `max` targets that wait for an instance and do not know of the boot that it is in.
pub(super) fn booted(tx: Tx<'_>, instance: i64, boot_id: &str, max: usize) -> Result<Vec<i64>> {
    let mut query = tx.prepare(&format!("{BOOTED} LIMIT ?3"))?;
    let booted = query.query_map((instance, boot_id, max as i64), |row| row.get(0))?;
    Ok(booted.collect::<rusqlite::Result<_>>()?)
}

/// Returns the invocation of a target that waits for a boot, with its terms.
pub(super) fn get_booted(tx: Tx<'_>, target: i64) -> Result<Booted> {
    tx.one(
        "SELECT t.invocation, v.invoke_id, v.repeat_mode = 'NextRebootOnly', v.paused_at_ms IS NOT NULL,
                v.overlap_policy, t.boot_id IS NULL
         FROM targets t LEFT JOIN invocations v ON v.id = t.invocation WHERE t.id = ?1",
        [target],
        |row| {
            let terms = || Ok((InvokeId::from_bytes(row.get(1)?), parse(&row.get::<_, String>(4)?)?));
            Ok(Booted {
                invocation: row.get(0)?,
                once: row.get::<_, Option<bool>>(2)?.unwrap_or_default(),
                paused: row.get(3)?,
                terms: terms(),
                is_first: row.get(5)?,
            })
        },
    )
}

/// Lets up to `max` targets on an instance take its current boot for one that they know of. Returns the number of
/// these targets.
pub(super) fn take_for_known(
    tx: Tx<'_>,
    instance: i64,
    boot_id: &str,
    max: usize,
) -> Result<usize> {
    let changed = tx.execute(
        &format!(
            "UPDATE targets SET boot_id = ?2 WHERE id IN (SELECT id FROM ({BOOTED}) LIMIT ?3)"
        ),
        (instance, boot_id, max as i64),
    )?;
    Ok(changed)
}

/// Lets a target take a boot for one that it knows of.
pub(super) fn set_boot(tx: Tx<'_>, target: i64, boot_id: &str) -> Result<()> {
    tx.execute("UPDATE targets SET boot_id = ?2 WHERE id = ?1", (target, boot_id))?;
    Ok(())
}

/// Takes note of the boot that a target has been told of, and whether it waits for another.
pub(super) fn know_boot(
    tx: Tx<'_>,
    target: i64,
    boot_id: &str,
    awaits_another: bool,
) -> Result<()> {
    tx.execute(
        "UPDATE targets SET boot_id = ?2, awaits_boot = ?3 WHERE id = ?1",
        (target, boot_id, awaits_another),
    )?;
    Ok(())
}

/// Counts the executions of the newest fire of an invocation in its targets; the numbers of the executions follow one
/// another from `first`.
pub(super) fn count_fired(
    tx: Tx<'_>,
    invocation: i64,
    first: ExecutionId,
    executions: &[NewExecution<'_>],
) -> Result<()> {
    let mut update = tx.prepare(
        "UPDATE targets SET executions_made = executions_made + 1, latest_execution = ?3,
             standing_execution = iif(?4, ?3, standing_execution)
         WHERE invocation = ?1 AND instance = ?2",
    )?;
    for (id, one) in (first.0..).zip(executions) {
        // An execution that waits for another, or was skipped, does not say how the invocation stands.
        let stands = !matches!(one.status, ExecutionStatus::Scheduled | ExecutionStatus::Skipped);
        update.execute((invocation, one.instance, id, stands))?;
    }
    Ok(())
}

/// Counts another attempt in its target, if the invocation has targets.
pub(super) fn count_attempt(tx: Tx<'_>, id: ExecutionId) -> Result<()> {
    tx.execute(
        &format!(
        "UPDATE targets SET executions_made = executions_made + 1,
             latest_execution = CASE WHEN e.fire < (SELECT l.fire FROM executions l WHERE l.id = latest_execution)
                 THEN latest_execution ELSE e.id END,
             standing_execution = {STANDING}
         {OF_EXECUTION}"
    ),
        [id.0],
    )?;
    Ok(())
}

/// Notes in its target that an execution no longer waits for another: from now on it says how the invocation stands
/// there.
pub(super) fn note_standing(tx: Tx<'_>, id: ExecutionId) -> Result<()> {
    tx.execute(
        &format!("UPDATE targets SET standing_execution = {STANDING} {OF_EXECUTION}"),
        [id.0],
    )?;
    Ok(())
}

/// The execution `e`, unless a later execution says how the invocation stands.
const STANDING: &str =
    "CASE WHEN e.fire < (SELECT s.fire FROM executions s WHERE s.id = standing_execution)
        THEN standing_execution ELSE e.id END";
/// The target of execution `?1`.
const OF_EXECUTION: &str = "FROM executions e JOIN fires f ON f.id = e.fire
    WHERE e.id = ?1 AND targets.invocation = f.invocation AND targets.instance = e.instance";

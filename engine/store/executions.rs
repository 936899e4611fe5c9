//! Table `executions`: every change of a status is one guarded UPDATE here, and says so if it found
//! the row in another state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rusqlite::{OptionalExtension, Row};

use crate::command::settings::Settings;
use crate::error::{Error, Result};
use crate::execution::{
    DescribeInvocationResults, InvocationResult, Lost, Report, StopOrder, StopReason, Unended,
    Verdict,
};
use crate::given::Given;
use crate::id::{CommandId, ExecutionId, InstanceId, InvokeId};
use crate::invocation::container::Container;
use crate::invocation::fire::FiredOn;
use crate::invocation::retry::Retry;
use crate::invocation::{Job, TerminationMode};
use crate::metrics::{Counted, tally};
use crate::output::{Delivery, Output};
use crate::status::{Cause, Ends, ExecutionStatus, InvocationStatus};
use crate::tag::Tag;
use crate::wire::ContentEncoding;

use super::commands::{read_json, read_settings, read_time};
use super::fires::FireLimits;
use super::invocations::{OF_COMMAND, read_command_id, read_status, read_termination_mode};
use super::tags::{self, Tagged};
use super::{
    Listing, Query, Slice, Tx, deliveries, fires, invocations, outputs, parse, results, stop,
    unreadable, waves,
};

/// An execution that is about to be stored.
#[derive(Debug)]
pub(super) struct NewExecution<'a> {
    pub instance: i64,
    /// `Pending`, `Running` if it is claimed at once, `Scheduled` or `Skipped`.
    pub status: ExecutionStatus,
    /// Why it will not run.
    pub info: &'a str,
}

/// Stores the executions of a fire; the first of them. Their numbers follow one another.
pub(super) fn insert(
    tx: Tx<'_>,
    fire: i64,
    executions: &[NewExecution<'_>],
    now_ms: i64,
) -> Result<Option<ExecutionId>> {
    let mut first = None;
    for alike in executions.chunk_by(NewExecution::goes_with) {
        // Of several rows a statement stores each in half the time; a few statements do for any number.
        let mut rest = alike;
        while let Some(some) = rest.get(..MANY) {
            insert_alike(tx, fire, some, now_ms)?;
            first.get_or_insert_with(|| tx.last_insert_rowid() - (MANY as i64 - 1));
            rest = &rest[MANY..];
        }
        for one in rest {
            insert_alike(tx, fire, std::slice::from_ref(one), now_ms)?;
            first.get_or_insert_with(|| tx.last_insert_rowid());
        }
    }
    Ok(first.map(ExecutionId))
}

/// Rows in one statement.
const MANY: usize = 25;

impl NewExecution<'_> {
    /// Whether the next one differs by its instance only.
    fn goes_with(&self, next: &Self) -> bool {
        self.status == next.status && self.info == next.info
    }
}

/// Stores executions that differ by their instances only, [`MANY`] of them or one.
fn insert_alike(tx: Tx<'_>, fire: i64, alike: &[NewExecution<'_>], now_ms: i64) -> Result<()> {
    static SQL: LazyLock<[String; 2]> = LazyLock::new(|| {
        [1, MANY].map(|rows| {
            let rows = (0..rows).map(|row| format!("(?1, ?{}, 1, ?2, ?3, ?4, ?5)", row + 6));
            format!(
                "INSERT INTO executions (fire, instance, attempt, status, started_at_ms, finished_at_ms,
                     error_info) VALUES {}",
                rows.collect::<Vec<_>>().join(", ")
            )
        })
    });
    let [NewExecution { status, info, .. }, ..] = *alike else { return Ok(()) };
    let mut insert = tx.prepare_cached(&SQL[usize::from(alike.len() > 1)])?;
    let started_at_ms = Some(now_ms).filter(|_| status == ExecutionStatus::Running);
    let finished_at_ms = Some(now_ms).filter(|_| status.is_final());
    insert.raw_bind_parameter(1, fire)?;
    insert.raw_bind_parameter(2, status.as_str())?;
    insert.raw_bind_parameter(3, started_at_ms)?;
    insert.raw_bind_parameter(4, finished_at_ms)?;
    insert.raw_bind_parameter(5, Some(info).filter(|info| !info.is_empty()))?;
    for (number, one) in alike.iter().enumerate() {
        insert.raw_bind_parameter(number + 6, one.instance)?;
    }
    insert.raw_execute()?;
    match status {
        ExecutionStatus::Skipped => tally::count(Counted::Ended(status), alike.len()),
        _ => tally::count(Counted::Execution, alike.len()),
    }
    if status == ExecutionStatus::Running {
        tally::count(Counted::Started, alike.len());
    }
    Ok(())
}

/// An execution that has just been claimed.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub id: ExecutionId,
    pub attempt: u32,
    pub instance: i64,
    pub instance_id: InstanceId,
    pub instance_name: String,
    pub executor: String,
    pub shell: Option<String>,
    /// How many executions run on its instance at a time, if that is limited.
    pub instance_max: Option<u32>,
}

/// Which executions of a fire are to be claimed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim {
    pub fire: i64,
    /// On instances after this one, up to that one.
    pub after: i64,
    pub until: i64,
    pub max: usize,
    /// Whether it has waves.
    pub has_waves: bool,
    /// Whether no first attempt starts any more.
    pub is_late: bool,
    pub now_ms: i64,
}

/// What a claim came to.
#[derive(Debug)]
pub(crate) struct ClaimedFrom {
    pub claimed: Vec<Claimed>,
    /// The instance to go on after, if others wait behind them.
    pub more_after: Option<i64>,
}

/// Claims waiting executions of a fire, unless `admit` says that their instance has too many: those wait
/// for the end of one there.
pub(crate) fn claim(
    tx: Tx<'_>,
    of: &Claim,
    mut admit: impl FnMut(&Claimed) -> bool,
) -> Result<ClaimedFrom> {
    let open_until = if of.has_waves { fires::open_until(tx, of.fire)? } else { None };
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.attempt, i.instance_id, i.executor, e.instance, i.name, i.shell, i.max_concurrency
         FROM executions e INDEXED BY executions_by_fire JOIN instances i ON i.id = e.instance
         WHERE e.fire = ?1 AND e.instance > ?2 AND e.instance <= ?3 AND e.status = 'Pending'
             AND e.awaits_instance IS NULL AND (e.attempt > 1 OR (e.id <= ?5 AND NOT ?6))
         ORDER BY e.instance LIMIT ?4",
    )?;
    let open_until = open_until.unwrap_or(i64::MAX);
    let limit = of.max as i64 + 1;
    let bounds = (of.fire, of.after, of.until, limit, open_until, of.is_late);
    let waiting = query.query_map(bounds, |row| {
        Ok(Claimed {
            id: ExecutionId(row.get(0)?),
            attempt: row.get(1)?,
            instance: row.get(4)?,
            instance_id: row.get::<_, String>(2)?.into(),
            executor: row.get(3)?,
            instance_name: row.get(5)?,
            shell: row.get(6)?,
            instance_max: row.get(7)?,
        })
    })?;
    let mut found: Vec<Claimed> = waiting.collect::<rusqlite::Result<_>>()?;
    let more = found.len() > of.max;
    found.truncate(of.max);
    let more_after = found.last().map(|last| last.instance).filter(|_| more);
    let (claimed, held): (Vec<_>, Vec<_>) = found.into_iter().partition(&mut admit);
    let running = Cause::Claimed.target().as_str();
    let all = held.is_empty() && !of.has_waves && !of.is_late;
    if let (Some(last), true) = (claimed.last(), all) {
        let changed = tx
            .prepare_cached(
                "UPDATE executions INDEXED BY executions_by_fire SET status = ?4, started_at_ms = ?5
                 WHERE fire = ?1 AND instance > ?2 AND instance <= ?3 AND status = 'Pending'
                     AND awaits_instance IS NULL",
            )?
            .execute((of.fire, of.after, last.instance, running, of.now_ms))?;
        if changed != claimed.len() {
            let (fire, waited) = (of.fire, claimed.len());
            return Err(Error::Internal(format!(
                "{changed} executions of fire {fire} were claimed, and {waited} were waiting"
            )));
        }
        tally::count(Counted::Started, claimed.len());
        return Ok(ClaimedFrom { claimed, more_after });
    }
    for one in &claimed {
        let changed = tx
            .prepare_cached(
                "UPDATE executions SET status = ?2, started_at_ms = ?3
                 WHERE id = ?1 AND status = 'Pending'",
            )?
            .execute((one.id.0, running, of.now_ms))?;
        expect_one(changed, one.id)?;
    }
    for one in held {
        let changed = tx
            .prepare_cached(
                "UPDATE executions SET awaits_instance = 1 WHERE id = ?1 AND status = 'Pending'",
            )?
            .execute([one.id.0])?;
        expect_one(changed, one.id)?;
    }
    tally::count(Counted::Started, claimed.len());
    Ok(ClaimedFrom { claimed, more_after })
}

/// An execution that has ended before it started.
#[derive(Debug)]
pub(super) struct EndedEarly {
    pub id: ExecutionId,
    pub instance: i64,
    pub instance_id: InstanceId,
    /// It did not wait for another of its invocation; others may have waited for it.
    pub was_next: bool,
}

/// Lets those go on that waited for executions which have ended before they started: others on their
/// instances, and others of their invocation; the fires of all of these.
pub(super) fn make_way(tx: Tx<'_>, fire: i64, ended: &[EndedEarly]) -> Result<Vec<i64>> {
    let mut fires = Vec::new();
    for one in ended {
        fires.extend(admit_next(tx, one.instance)?);
    }
    fires.extend(release_behind(tx, fire, ended)?);
    Ok(fires)
}

/// Lets those of their invocation go on that waited for executions which have ended before they started;
/// their fires.
pub(super) fn release_behind(tx: Tx<'_>, fire: i64, ended: &[EndedEarly]) -> Result<Vec<i64>> {
    let repeats: bool = tx
        .prepare_cached(
            "SELECT v.overlap_policy IS NOT NULL FROM fires f JOIN invocations v ON v.id = f.invocation
             WHERE f.id = ?1",
        )?
        .query_row([fire], |row| row.get(0))?;
    let mut fires = Vec::new();
    for one in ended.iter().filter(|one| repeats && one.was_next) {
        fires.extend(release(tx, one.id)?);
    }
    Ok(fires)
}

/// Lets all executions be claimed that wait for the end of one on an instance: it may run more at a time
/// now; their fires.
pub(crate) fn admit_on(tx: Tx<'_>, instance: i64) -> Result<Vec<i64>> {
    let mut fires = Vec::new();
    while let Some(fire) = admit_next(tx, instance)? {
        fires.push(fire);
    }
    Ok(fires)
}

/// Lets the oldest of the executions be claimed that wait for the end of one on an instance; its fire.
pub(super) fn admit_next(tx: Tx<'_>, instance: i64) -> Result<Option<i64>> {
    let next = tx
        .prepare_cached(
            "SELECT id, fire FROM executions INDEXED BY executions_awaiting
             WHERE awaits_instance IS NOT NULL AND instance = ?1 ORDER BY id LIMIT 1",
        )?
        .query_row([instance], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((id, fire)): Option<(i64, i64)> = next else { return Ok(None) };
    tx.prepare_cached("UPDATE executions SET awaits_instance = NULL WHERE id = ?1")?
        .execute([id])?;
    Ok(Some(fire))
}

/// Lets all executions be claimed that wait for the end of one on their instance: the dispatcher will see
/// how many run there.
pub(crate) fn admit_all(tx: Tx<'_>) -> Result<()> {
    tx.prepare_cached(
        "UPDATE executions SET awaits_instance = NULL WHERE id IN (
             SELECT id FROM executions INDEXED BY executions_awaiting WHERE awaits_instance IS NOT NULL)",
    )?
    .execute(())?;
    Ok(())
}

/// An execution that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub id: ExecutionId,
    pub attempt: u32,
    pub fire: i64,
    /// Whether another execution may wait for this one to end.
    pub lets_wait: bool,
    /// Its instance, if others may wait for one to end there.
    pub frees: Option<i64>,
    pub verdict: Verdict,
    pub output: Output,
    pub report: Report,
    /// What becomes of the whole output, if it was to go anywhere and something may have been printed.
    pub delivery: Option<Delivery>,
    pub finished_at_ms: i64,
    /// When it is tried again, unless somebody has asked to stop it.
    pub retry_at_ms: Option<i64>,
}

/// The attempt that follows one that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextAttempt {
    pub id: ExecutionId,
    pub retry_at_ms: i64,
}

/// Invocations that ended, and how.
pub(crate) type FinishedInvocations = Vec<(InvokeId, InvocationStatus)>;

/// What the end of executions led to.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    pub invocations: FinishedInvocations,
    /// Fires with an execution that waited for one of these, and is pending now.
    pub released: Vec<i64>,
    /// Fires with one that waited for its instance, and may be claimed there now.
    pub admitted: Vec<(i64, i64)>,
    /// Of fires that were called off, because too much of them had failed: what waited.
    pub called_off: Vec<(InvokeId, Vec<(ExecutionId, InstanceId)>)>,
    /// Whether a wave has ended that another follows.
    pub wave_ended: bool,
    /// By the execution that has ended: what is tried again.
    pub retries: HashMap<ExecutionId, NextAttempt>,
}

/// Writes down how executions ended; says what ended with them, and what begins.
pub(crate) fn finish(tx: Tx<'_>, ended: &[Ended]) -> Result<Finished> {
    let mut fires = EndedByFire::new();
    let mut last_ms = 0;
    let mut finished = Finished::default();
    for alike in ended.chunk_by(Ended::goes_with) {
        finish_alike(tx, alike)?;
        for execution in alike {
            if let Some(instance) = execution.frees
                && let Some(fire) = admit_next(tx, instance)?
            {
                finished.admitted.push((fire, instance));
            }
            if let Some(next) = insert_next_attempt(tx, execution)? {
                // In the place of this one: its fire has not ended, and what waits for it goes on waiting.
                finished.retries.insert(execution.id, next);
                continue;
            }
            if execution.lets_wait {
                finished.released.extend(release(tx, execution.id)?);
            }
            let status = execution.verdict.cause.target();
            fires.entry(execution.fire).or_default().count(status);
            last_ms = last_ms.max(execution.finished_at_ms);
        }
    }
    finish_fires(tx, &fires, last_ms, &mut finished)?;
    Ok(finished)
}

/// Stores the attempt after one that has ended, if it is tried again: never after a stop, which may
/// have come too late to change how it ended, and never of a fire that has been called off.
fn insert_next_attempt(tx: Tx<'_>, ended: &Ended) -> Result<Option<NextAttempt>> {
    let Some(retry_at_ms) = ended.retry_at_ms else { return Ok(None) };
    let inserted = tx
        .prepare_cached(
            "INSERT INTO executions (fire, instance, attempt, status, retry_at_ms)
             SELECT e.fire, e.instance, e.attempt + 1, 'Scheduled', ?2
             FROM executions e JOIN fires f ON f.id = e.fire
             WHERE e.id = ?1 AND e.stop_at_ms IS NULL
                 AND (f.errors_max IS NULL OR f.failed <= f.errors_max)",
        )?
        .execute((ended.id.0, retry_at_ms))?;
    tally::count(Counted::Execution, inserted);
    Ok((inserted == 1)
        .then(|| NextAttempt { id: ExecutionId(tx.last_insert_rowid()), retry_at_ms }))
}

/// Lets up to `max` executions be claimed whose time to be tried again has come, those first that
/// have waited longest; the fire of each.
pub(crate) fn release_due(tx: Tx<'_>, now_ms: i64, max: usize) -> Result<Vec<i64>> {
    let mut update = tx.prepare_cached(
        "UPDATE executions SET status = ?3, retry_at_ms = NULL WHERE status = 'Scheduled' AND id IN (
             SELECT id FROM executions INDEXED BY executions_by_retry
             WHERE retry_at_ms <= ?1 ORDER BY retry_at_ms, id LIMIT ?2)
         RETURNING fire",
    )?;
    let target = Cause::Released.target().as_str();
    let fires = update.query_map((now_ms, max as i64, target), |row| row.get(0))?;
    Ok(fires.collect::<rusqlite::Result<_>>()?)
}

/// When the next execution is tried again.
pub(crate) fn next_retry_ms(tx: Tx<'_>) -> Result<Option<i64>> {
    let next = tx
        .prepare_cached(
            "SELECT min(retry_at_ms) FROM executions INDEXED BY executions_by_retry
             WHERE retry_at_ms IS NOT NULL",
        )?
        .query_row((), |row| row.get(0))?;
    Ok(next)
}

/// Lets the execution that waited for the end of this one be claimed; its fire.
fn release(tx: Tx<'_>, ended: ExecutionId) -> Result<Option<i64>> {
    let fire = tx
        .prepare_cached(
            "UPDATE executions SET status = ?2 WHERE status = 'Scheduled' AND id = (
                 SELECT w.id FROM executions e JOIN fires f ON f.id = e.fire
                     CROSS JOIN fires wf INDEXED BY fires_unfinished_by_invocation
                     CROSS JOIN executions w INDEXED BY executions_by_fire
                 WHERE e.id = ?1 AND wf.invocation = f.invocation AND wf.unfinished > 0
                     AND w.fire = wf.id AND w.instance = e.instance AND w.status = 'Scheduled'
                     AND w.retry_at_ms IS NULL
                 ORDER BY wf.id LIMIT 1)
             RETURNING fire",
        )?
        .query_row((ended.0, Cause::Released.target().as_str()), |row| row.get(0))
        .optional()?;
    Ok(fire)
}

impl Ended {
    /// Whether the one after this, by its number, ended in the very same way and left nothing else
    /// behind: then one statement writes both down.
    fn goes_with(&self, next: &Self) -> bool {
        self.is_plain()
            && next.is_plain()
            && next.id.0 == self.id.0 + 1
            && next.attempt == self.attempt
            && next.verdict.cause == self.verdict.cause
            && next.verdict.exit_code == self.verdict.exit_code
            && next.finished_at_ms == self.finished_at_ms
    }

    /// Whether there is nothing to say of its end but how and when.
    fn is_plain(&self) -> bool {
        let Verdict { cause: _, exit_code: _, signal, error_code, error_info, stop_cause } =
            &self.verdict;
        let said = signal.is_some() || !error_code.is_empty() || !error_info.is_empty();
        let left = !self.output.is_empty() || self.delivery.is_some();
        let report = self.report.usage.is_some() || self.report.result.is_some();
        !(said || left || report || stop_cause.is_some())
    }
}

/// Writes down the end of executions that go with one another, or of any one.
fn finish_alike(tx: Tx<'_>, alike: &[Ended]) -> Result<()> {
    let ([first, ..], [.., last]) = (alike, alike) else { return Ok(()) };
    let [from, or_from] = *first.verdict.cause.sources() else {
        return Err(Error::Internal(format!(
            "{:?} does not end an execution",
            first.verdict.cause
        )));
    };
    if !first.is_plain() {
        return alike.iter().try_for_each(|ended| finish_one(tx, ended, from, or_from));
    }
    let changed = tx
        .prepare_cached(
            "UPDATE executions SET status = ?4, finished_at_ms = ?5, exit_code = ?6
             WHERE id BETWEEN ?1 AND ?2 AND attempt = ?3 AND (status = ?7 OR status = ?8)",
        )?
        .execute((
            first.id.0,
            last.id.0,
            first.attempt,
            first.verdict.cause.target().as_str(),
            first.finished_at_ms,
            first.verdict.exit_code,
            from.as_str(),
            or_from.as_str(),
        ))?;
    if changed != alike.len() {
        return Err(not_so(first.id));
    }
    tally::count(Counted::Ended(first.verdict.cause.target()), changed);
    tally::count(
        Counted::Lost,
        if first.verdict.cause == Cause::Interrupted { changed } else { 0 },
    );
    Ok(())
}

fn finish_one(
    tx: Tx<'_>,
    ended: &Ended,
    from: ExecutionStatus,
    or_from: ExecutionStatus,
) -> Result<()> {
    let (verdict, usage) = (&ended.verdict, ended.report.usage);
    let changed = tx
        .prepare_cached(
            "UPDATE executions SET status = ?2, finished_at_ms = ?3, exit_code = ?4, signal = ?5,
                 error_code = nullif(?6, ''), error_info = nullif(?7, ''), user_time_us = ?11,
                 system_time_us = ?12, max_rss_bytes = ?13, memory_peak_bytes = ?14,
                 stop_cause = coalesce(?15, stop_cause)
             WHERE id = ?1 AND attempt = ?8 AND (status = ?9 OR status = ?10)",
        )?
        .execute((
            ended.id.0,
            verdict.cause.target().as_str(),
            ended.finished_at_ms,
            verdict.exit_code,
            verdict.signal,
            verdict.error_code,
            &verdict.error_info,
            ended.attempt,
            from.as_str(),
            or_from.as_str(),
            usage.map(|usage| micros(usage.user_time)),
            usage.map(|usage| micros(usage.system_time)),
            usage.and_then(|usage| usage.max_rss_bytes).map(stored),
            usage.and_then(|usage| usage.memory_peak_bytes).map(stored),
            verdict.stop_cause.map(StopReason::as_str),
        ))?;
    expect_one(changed, ended.id)?;
    tally::count(Counted::Ended(verdict.cause.target()), 1);
    tally::count(Counted::Lost, usize::from(verdict.cause == Cause::Interrupted));
    if let Some(result) = &ended.report.result {
        results::insert(tx, ended.id, result)?;
    }
    outputs::insert(tx, ended.id, &ended.output)?;
    if let Some(delivery) = &ended.delivery {
        deliveries::insert(tx, ended.id, delivery)?;
    }
    Ok(())
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// A number as large as a column holds.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How executions of each fire have ended.
pub(super) type EndedByFire = BTreeMap<i64, Ends>;

/// Counts what has ended of fires, and does what follows from it.
pub(super) fn finish_fires(
    tx: Tx<'_>,
    fires: &EndedByFire,
    now_ms: i64,
    finished: &mut Finished,
) -> Result<()> {
    for (&fire, &ended) in fires {
        let mut counted = fires::count_down(tx, fire, ended)?;
        if counted.has_failed_with(ended) {
            let order = StopOrder::from(StopReason::Errors);
            let cancelled = stop::cancel_waiting(tx, fire, &order, now_ms)?;
            if !cancelled.is_empty() {
                let stopped = Ends { stopped: cancelled.len() as u64, ..Ends::default() };
                counted = fires::count_down(tx, fire, stopped)?;
                finished.released.extend(make_way(tx, fire, &cancelled)?);
                let off: HashSet<_> = cancelled.iter().map(|one| one.id).collect();
                finished.retries.retain(|_, next| !off.contains(&next.id));
                let cancelled = cancelled.into_iter().map(|one| (one.id, one.instance_id));
                finished.called_off.push((counted.invoke_id, cancelled.collect()));
            }
        } else if counted.may_await_wave() {
            finished.wave_ended |= waves::look(tx, fire, counted.invocation, now_ms)?;
        }
        if counted.unfinished > 0 {
            continue;
        }
        if counted.is_only {
            let status = counted.ended.status();
            invocations::set_finished(tx, counted.invocation, status, now_ms)?;
            finished.invocations.push((counted.invoke_id, status));
        } else {
            finished.invocations.extend(invocations::finish_if_done(
                tx,
                counted.invocation,
                now_ms,
            )?);
        }
    }
    Ok(())
}

/// What an engine left running when it ended.
#[derive(Debug, Default)]
pub(crate) struct Interrupted {
    pub executions: Vec<(InvokeId, ExecutionId, InstanceId)>,
    pub invocations: FinishedInvocations,
    /// By the execution that was cut off: what is tried again.
    pub retries: HashMap<ExecutionId, NextAttempt>,
    /// What was not cut off.
    pub going_on: Vec<GoingOn>,
}

/// An execution that has survived its engine.
#[derive(Debug)]
pub(crate) struct GoingOn {
    pub fire: i64,
    pub job: Arc<Job>,
    pub claimed: Claimed,
    pub limits: Option<Arc<FireLimits>>,
    pub started_at_ms: i64,
    /// The order to end it, if there is one.
    pub stop: Option<StopOrder>,
}

/// What an engine left running when it ended.
pub(crate) fn unended(tx: Tx<'_>) -> Result<Vec<Unended>> {
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.attempt
         FROM fires f INDEXED BY fires_unfinished
             CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
         WHERE f.unfinished > 0 AND e.status IN ('Running', 'Stopping')",
    )?;
    let unended = query
        .query_map((), |row| Ok(Unended { id: ExecutionId(row.get(0)?), attempt: row.get(1)? }))?;
    Ok(unended.collect::<rusqlite::Result<_>>()?)
}

/// Ends what an engine left running when it ended, and is lost: nobody knows how it went on, and nothing
/// is run twice unless its request says so.
pub(crate) fn interrupt(
    tx: Tx<'_>,
    lost: &mut HashMap<ExecutionId, Lost>,
    evidence: &str,
    now_ms: i64,
) -> Result<Interrupted> {
    let mut query = tx.prepare_cached(
        "SELECT e.id, e.attempt, e.fire, v.overlap_policy IS NOT NULL, v.invoke_id, i.instance_id, v.retry,
             e.instance, i.name, i.executor, i.shell, e.started_at_ms, e.status = 'Stopping',
             v.output_to IS NOT NULL, e.stop_cause, e.stopped_by, e.stop_reason, i.max_concurrency
         FROM fires f INDEXED BY fires_unfinished
             CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
             JOIN invocations v ON v.id = f.invocation JOIN instances i ON i.id = e.instance
         WHERE f.unfinished > 0 AND e.status IN ('Running', 'Stopping')",
    )?;
    let mut rows = query.query(())?;
    let (mut left, mut interrupted) = (Vec::new(), Interrupted::default());
    while let Some(row) = rows.next()? {
        let id = ExecutionId(row.get(0)?);
        let (attempt, fire) = (row.get(1)?, row.get(2)?);
        let instance_id = InstanceId::from(row.get::<_, String>(5)?);
        let Some(Lost { output, ended }) = lost.remove(&id) else {
            interrupted.going_on.push(GoingOn {
                fire,
                job: invocations::job_of_fire(tx, fire)?,
                claimed: Claimed {
                    id,
                    attempt,
                    instance: row.get(7)?,
                    instance_id,
                    instance_name: row.get(8)?,
                    executor: row.get(9)?,
                    shell: row.get(10)?,
                    instance_max: row.get(17)?,
                },
                limits: fires::terms(tx, fire)?.and_then(|terms| terms.limits),
                started_at_ms: row.get(11)?,
                stop: if row.get(12)? { Some(read_stop(row, 14)?) } else { None },
            });
            continue;
        };
        let retry: Option<Retry> = read_json(row, 6)?;
        let delay_ms = retry.and_then(|retry| retry.delay_ms(Cause::Interrupted, attempt));
        let ended = if ended.is_empty() { ended } else { format!("; {ended}") };
        left.push(Ended {
            id,
            attempt,
            fire,
            lets_wait: row.get(3)?,
            frees: None,
            verdict: Verdict::interrupted(format!("{evidence}{ended}")),
            output,
            report: Report::default(),
            // What it printed until then may still be there.
            delivery: row.get::<_, bool>(13)?.then(|| Delivery::in_progress(None)),
            finished_at_ms: now_ms,
            retry_at_ms: delay_ms.map(|delay_ms| now_ms.saturating_add(delay_ms)),
        });
        interrupted.executions.push((InvokeId::from_bytes(row.get(4)?), id, instance_id));
    }
    let finished = finish(tx, &left)?;
    (interrupted.invocations, interrupted.retries) = (finished.invocations, finished.retries);
    Ok(interrupted)
}

/// The order in columns that begin with its cause.
fn read_stop(row: &Row<'_>, first: usize) -> Result<StopOrder> {
    let cause: Option<String> = row.get(first)?;
    let text = |column| Ok::<_, Error>(row.get::<_, Option<String>>(column)?.map(Arc::from));
    Ok(StopOrder {
        cause: cause.map_or(Ok(StopReason::Stopped), |cause| parse(&cause))?,
        by: text(first + 1)?,
        reason: text(first + 2)?,
    })
}

pub(super) fn expect_one(changed: usize, id: ExecutionId) -> Result<()> {
    if changed == 1 { Ok(()) } else { Err(not_so(id)) }
}

fn not_so(id: ExecutionId) -> Error {
    Error::Internal(format!("execution {id} was not in the state this change starts from"))
}

const RESULT_TABLES: &str = "executions e JOIN fires f ON f.id = e.fire
    JOIN invocations v ON v.id = f.invocation JOIN instances i ON i.id = e.instance";

/// For [`read`].
const RESULT_COLUMNS: &str =
    "e.id, f.invocation, i.instance_id, e.attempt, e.status, e.started_at_ms,
    e.stop_at_ms, e.finished_at_ms, e.exit_code, e.signal, e.error_code, e.error_info, e.instance,
    e.user_time_us, e.system_time_us, e.max_rss_bytes, e.memory_peak_bytes, e.stop_cause,
    e.stopped_by, e.stop_reason, e.retry_at_ms";

/// Picks the executions of the latest fire of an invocation on an instance: with [`LAST_ATTEMPT`],
/// the latest of all. So each condition looks at what is later only, however long the history
/// before it is.
const OF_LATEST_FIRE: &str = "NOT EXISTS (
    SELECT 1 FROM fires lf INDEXED BY fires_by_invocation CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = f.invocation AND lf.id > f.id AND l.fire = lf.id AND l.instance = e.instance)";

/// Picks the last attempt of a fire on an instance.
const LAST_ATTEMPT: &str = "NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt)";

/// Picks the latest one that says how the invocation stands: a skipped one gave way to another, and
/// one that is scheduled waits for another, unless it is a later attempt that waits for its time.
pub(super) const LATEST_STANDING: &str =
    "(e.status NOT IN ('Skipped', 'Scheduled') OR e.retry_at_ms IS NOT NULL) AND NOT EXISTS (
    SELECT 1 FROM fires lf INDEXED BY fires_by_invocation CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = f.invocation AND lf.id > f.id AND l.fire = lf.id AND l.instance = e.instance
      AND (l.status NOT IN ('Skipped', 'Scheduled') OR l.retry_at_ms IS NOT NULL))
    AND NOT EXISTS (
    SELECT 1 FROM executions l INDEXED BY executions_by_fire
    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt)";

/// The latest one that says how an invocation stands on its target `t`; found from the newest fire
/// back, and mostly there.
pub(super) const LATEST_ON_TARGET: &str = "SELECT l.id FROM fires lf INDEXED BY fires_by_invocation
        CROSS JOIN executions l INDEXED BY executions_by_fire
    WHERE lf.invocation = t.invocation AND l.fire = lf.id AND l.instance = t.instance
        AND (l.status NOT IN ('Skipped', 'Scheduled') OR l.retry_at_ms IS NOT NULL)
    ORDER BY lf.id DESC, l.attempt DESC LIMIT 1";

/// All executions, for [`read`].
pub(super) fn all() -> Query {
    Query {
        columns: RESULT_COLUMNS.to_owned(),
        tables: RESULT_TABLES.to_owned(),
        key: "e.id",
        ascending: false,
        conditions: Vec::new(),
        values: Vec::new(),
    }
}

/// A slice of the executions, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    filter: &DescribeInvocationResults,
    slice: Slice,
    encoding: ContentEncoding,
) -> Result<Listing<InvocationResult>> {
    let mut query = all();
    query.conditions = Tagged::Invocation.conditions("v.id", &filter.tags, &mut query.values);
    if !filter.include_history {
        query.conditions.extend([OF_LATEST_FIRE.to_owned(), LAST_ATTEMPT.to_owned()]);
    }
    query.filter("v.invoke_id = ?", filter.invoke_id.map(|id| id.as_bytes().to_vec()));
    if let Some(id) = filter.command_id {
        query.conditions.push(OF_COMMAND.to_owned());
        query.values.extend([id.as_bytes().to_vec().into(), id.as_bytes().to_vec().into()]);
    }
    query.filter("i.instance_id = ?", filter.instance_id.as_ref().map(|id| id.as_str().to_owned()));
    query.filter("v.resource_group_id = ?", filter.resource_group_id.clone());
    query.filter("e.status = ?", filter.status.map(|status| status.as_str().to_owned()));
    if let Some(Given::Known(named)) = &filter.invoke_record_status {
        let is_named = |status: &&ExecutionStatus| {
            named.status == Some(**status) || named.invoke_status == Some(status.invoke_status())
        };
        let named =
            ExecutionStatus::ALL.iter().filter(is_named).map(|status| format!("'{status}'"));
        query.conditions.push(format!("e.status IN ({})", named.collect::<Vec<_>>().join(", ")));
    }
    let mut known = Known::default();
    query.slice(tx, slice, |row| read(tx, row, &mut known, Some(encoding)))
}

/// The latest execution of an invocation on each of its instances, in the order of the first attempts,
/// which is that of its request.
pub(crate) fn all_of(tx: Tx<'_>, invocation: i64) -> Result<Vec<InvocationResult>> {
    let mut known = Known::default();
    let mut query = if known.invocation(tx, invocation)?.runs_once {
        tx.prepare_cached(&format!(
            "SELECT {RESULT_COLUMNS} FROM {RESULT_TABLES} WHERE f.invocation = ?1 ORDER BY e.id"
        ))?
    } else {
        tx.prepare_cached(&format!(
            "SELECT {RESULT_COLUMNS} FROM {RESULT_TABLES}
                 JOIN executions o INDEXED BY executions_by_fire
                     ON o.fire = e.fire AND o.instance = e.instance AND o.attempt = 1
             WHERE f.invocation = ?1 AND {OF_LATEST_FIRE} AND {LAST_ATTEMPT} ORDER BY o.id"
        ))?
    };
    let mut rows = query.query([invocation])?;
    let mut results = Vec::new();
    while let Some(row) = rows.next()? {
        results.push(read(tx, row, &mut known, Some(ContentEncoding::Base64))?);
    }
    Ok(results)
}

/// What the executions of a listing have in common, each looked up once.
#[derive(Default)]
pub(super) struct Known {
    invocations: HashMap<i64, Arc<OfInvocation>>,
    /// How many executions an invocation has had on an instance.
    repeats: HashMap<(i64, i64), u64>,
}

/// What the record of an execution says of its invocation.
struct OfInvocation {
    invoke_id: InvokeId,
    command_id: CommandId,
    termination_mode: TerminationMode,
    settings: Settings,
    container: Container,
    /// There is one execution on each instance.
    runs_once: bool,
    tags: Vec<Tag>,
}

impl Known {
    fn invocation(&mut self, tx: Tx<'_>, invocation: i64) -> Result<Arc<OfInvocation>> {
        if let Some(known) = self.invocations.get(&invocation) {
            return Ok(Arc::clone(known));
        }
        let found = tx
            .prepare_cached(&format!(
                "SELECT v.invoke_id, v.command_id, v.termination_mode, v.working_dir, v.username,
                     v.launcher, v.output_to, v.container_id, v.container_name,
                     v.repeat_mode = 'Once' AND v.retry IS NULL, {}
                 FROM invocations v WHERE v.id = ?1",
                Tagged::Invocation.column("v.id")
            ))?
            .query_row([invocation], |row| Ok(OfInvocation::read(row)))?;
        let found = Arc::new(found?);
        self.invocations.insert(invocation, Arc::clone(&found));
        Ok(found)
    }

    fn repeats(&mut self, tx: Tx<'_>, invocation: i64, instance: i64) -> Result<u64> {
        if let Some(count) = self.repeats.get(&(invocation, instance)) {
            return Ok(*count);
        }
        let count = tx
            .prepare_cached(
                "SELECT count(*) FROM fires f INDEXED BY fires_by_invocation
                     CROSS JOIN executions e INDEXED BY executions_by_fire
                 WHERE f.invocation = ?1 AND e.fire = f.id AND e.instance = ?2",
            )?
            .query_row((invocation, instance), |row| row.get(0))?;
        self.repeats.insert((invocation, instance), count);
        Ok(count)
    }
}

impl OfInvocation {
    fn read(row: &Row<'_>) -> Result<Self> {
        let invoke_id = InvokeId::from_bytes(row.get(0)?);
        Ok(Self {
            invoke_id,
            command_id: read_command_id(row, 1, invoke_id)?,
            termination_mode: read_termination_mode(row, 2)?,
            settings: read_settings(row, 3)?,
            container: Container { id: row.get(7)?, name: row.get(8)? },
            runs_once: row.get(9)?,
            tags: tags::read(row, 10)?,
        })
    }
}

/// An execution; its output in an encoding, or none.
pub(super) fn read(
    tx: Tx<'_>,
    row: &Row<'_>,
    known: &mut Known,
    output: Option<ContentEncoding>,
) -> Result<InvocationResult> {
    let time = |column| row.get::<_, Option<i64>>(column)?.map(read_time).transpose();
    let text = |column| row.get::<_, Option<String>>(column).map(Option::unwrap_or_default);
    let given = |text: &Option<String>| text.clone().unwrap_or_default();
    let execution_id = ExecutionId(row.get(0)?);
    let of = known.invocation(tx, row.get(1)?)?;
    let status = read_status(row, 4)?;
    let (start_time, finish_time) = (time(5)?, time(7)?);
    let duration = start_time.zip(finish_time).map(|(start, finish)| finish - start);
    let (result, result_error) = match results::get(tx, execution_id)? {
        None => (None, String::new()),
        Some(Ok(result)) => (Some(result), String::new()),
        Some(Err(why)) => (None, why),
    };
    let output_to = of.settings.output_to.as_deref();
    let delivery = deliveries::told(tx, output_to, Some((execution_id, status)))?;
    let mut result = InvocationResult {
        execution_id,
        invoke_id: of.invoke_id,
        command_id: of.command_id,
        instance_id: row.get::<_, String>(2)?.into(),
        attempt: row.get(3)?,
        retry_time: time(20)?,
        status,
        invoke_record_status: status.invoke_status(),
        repeats: if of.runs_once { 1 } else { known.repeats(tx, row.get(1)?, row.get(12)?)? },
        start_time,
        finish_time,
        stop_time: time(6)?,
        stop_cause: row
            .get_ref(17)?
            .as_str_or_null()
            .map_err(unreadable)?
            .map(parse)
            .transpose()?,
        stopped_by: text(18)?,
        stop_reason: text(19)?,
        duration_ms: duration.map(|d| d.num_milliseconds().max(0).cast_unsigned()),
        exit_code: row.get(8)?,
        signal: row.get(9)?,
        error_code: text(10)?,
        error_info: text(11)?,
        user_time_us: row.get(13)?,
        system_time_us: row.get(14)?,
        max_rss_bytes: row.get(15)?,
        memory_peak_bytes: row.get(16)?,
        result,
        result_error,
        output: crate::wire::Encoded::default(),
        dropped: 0,
        dropped_at: None,
        output_streams: Vec::new(),
        username: given(&of.settings.username),
        launcher: given(&of.settings.launcher),
        container_id: given(&of.container.id),
        container_name: given(&of.container.name),
        termination_mode: of.termination_mode,
        tags: of.tags.clone(),
        oss_output_delivery: given(&of.settings.output_to),
        oss_output_status: delivery.status,
        oss_output_uri: delivery.uri,
        oss_output_error_code: delivery.error_code,
        oss_output_error_info: delivery.error_info,
    };
    if let Some(encoding) = output {
        result.set_output(outputs::get(tx, execution_id)?, encoding);
    }
    Ok(result)
}

/// An execution as a watcher needs it: its states so far, without its output.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub id: ExecutionId,
    pub instance_id: InstanceId,
    pub status: ExecutionStatus,
    pub created_at_ms: i64,
    pub started_at_ms: Option<i64>,
    pub stop_at_ms: Option<i64>,
    pub finished_at_ms: Option<i64>,
    pub retry_at_ms: Option<i64>,
}

/// Where the executions of an invocation stand, in the order they were made: those from `from` on,
/// or those of the latest fire on each instance and whatever has not ended. A later attempt was made
/// when the one before it ended.
pub(crate) fn progress_of(
    tx: Tx<'_>,
    invocation: i64,
    from: Option<ExecutionId>,
) -> Result<Vec<Progress>> {
    let condition = match from {
        Some(ExecutionId(id)) => format!("e.id >= {id}"),
        // What still runs may be older: a fire that meets it is skipped.
        None => format!("e.finished_at_ms IS NULL OR {OF_LATEST_FIRE}"),
    };
    let mut query = tx.prepare_cached(&format!(
        "SELECT e.id, i.instance_id, e.status, coalesce(b.finished_at_ms, f.fire_at_ms), e.started_at_ms,
             e.stop_at_ms, e.finished_at_ms, e.retry_at_ms
         FROM fires f JOIN executions e ON e.fire = f.id JOIN instances i ON i.id = e.instance
             LEFT JOIN executions b INDEXED BY executions_by_fire
                 ON b.fire = e.fire AND b.instance = e.instance AND b.attempt = e.attempt - 1
         WHERE f.invocation = ?1 AND ({condition}) ORDER BY e.id"
    ))?;
    let mut rows = query.query([invocation])?;
    let mut progress = Vec::new();
    while let Some(row) = rows.next()? {
        progress.push(Progress {
            id: ExecutionId(row.get(0)?),
            instance_id: row.get::<_, String>(1)?.into(),
            status: read_status(row, 2)?,
            created_at_ms: row.get(3)?,
            started_at_ms: row.get(4)?,
            stop_at_ms: row.get(5)?,
            finished_at_ms: row.get(6)?,
            retry_at_ms: row.get(7)?,
        });
    }
    Ok(progress)
}

/// What became of a fire on each instance: how the last attempt there stands.
pub(crate) fn of_fire(tx: Tx<'_>, fire: i64) -> Result<Vec<FiredOn>> {
    let mut query = tx.prepare_cached(&format!(
        "SELECT e.id, i.instance_id, e.status, e.error_info
         FROM executions e JOIN instances i ON i.id = e.instance
         WHERE e.fire = ?1 AND {LAST_ATTEMPT} ORDER BY e.id"
    ))?;
    let mut rows = query.query([fire])?;
    let mut executions = Vec::new();
    while let Some(row) = rows.next()? {
        executions.push(FiredOn {
            execution_id: ExecutionId(row.get(0)?),
            instance_id: row.get::<_, String>(1)?.into(),
            status: read_status(row, 2)?,
            error_info: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
        });
    }
    Ok(executions)
}

/// What the record of a finished execution keeps of its output.
pub(crate) fn output(tx: Tx<'_>, id: ExecutionId) -> Result<Output> {
    let exists = tx
        .prepare_cached("SELECT 1 FROM executions WHERE id = ?1")?
        .query_row([id.0], |_| Ok(()))
        .optional()?;
    if exists.is_none() {
        return Err(unreadable(format_args!("execution {id} is gone")));
    }
    outputs::get(tx, id)
}

//! Table `executions`: every change of a status is one guarded UPDATE here, and says so if it found
//! the row in another state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rusqlite::Row;

use crate::error::{Error, Result};
use crate::execution::{
    EXECUTION_INTERRUPTED, Lost, Report, StopOrder, StopReason, Unended, Verdict,
};
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::invocation::Job;
use crate::invocation::retry::Retry;
use crate::metrics::Counted;
use crate::output::{Delivery, Output};
use crate::panics::tell;
use crate::status::{Cause, Ends, ExecutionStatus, InvocationStatus};

use super::claims::{self, Claimed, Released};
use super::commands::read_json;
use super::fires::FireLimits;
use super::stop::{Ending, NOT_STOPPED, Scope};
use super::{
    Tx, deliveries, fires, instances, invocations, outputs, parse, results, stop, targets, waits,
    waves,
};
use crate::store;

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
        let mut rest = alike;
        for (statement, rows) in ROWS.into_iter().enumerate() {
            while let Some((some, others)) = rest.split_at_checked(rows) {
                insert_alike(tx, fire, statement, some, now_ms)?;
                first.get_or_insert_with(|| tx.last_id() - (rows as i64 - 1));
                rest = others;
            }
        }
    }
    Ok(first.map(ExecutionId))
}

/// Rows in one statement: of many it stores each in half the time. A few statements do for any number.
const ROWS: [usize; 4] = [100, 20, 5, 1];

impl NewExecution<'_> {
    /// Whether the next one differs by its instance only.
    fn goes_with(&self, next: &Self) -> bool {
        self.status == next.status && self.info == next.info
    }
}

/// Stores executions that differ by their instances only, as many as that statement of [`ROWS`] takes.
fn insert_alike(
    tx: Tx<'_>,
    fire: i64,
    statement: usize,
    alike: &[NewExecution<'_>],
    now_ms: i64,
) -> Result<()> {
    // OR FAIL, as whoever fails here has all undone that it did: for the statement to be undone by itself
    // SQLite would copy each page before it is changed.
    static SQL: LazyLock<[String; ROWS.len()]> = LazyLock::new(|| {
        ROWS.map(|rows| {
            let rows = (0..rows).map(|row| format!("(?1, ?{}, 1, ?2, ?3, ?4, ?5, ?6)", row + 7));
            format!(
                "INSERT OR FAIL INTO executions (fire, instance, attempt, status, started_at_ms,
                 finished_at_ms, error_info, room) VALUES {}",
                rows.collect::<Vec<_>>().join(", ")
            )
        })
    });
    let [NewExecution { status, info, .. }, ..] = *alike else { return Ok(()) };
    let mut insert = tx.prepare(&SQL[statement])?;
    let started_at_ms = Some(now_ms).filter(|_| status == ExecutionStatus::Running);
    let finished_at_ms = Some(now_ms).filter(|_| status.is_final());
    insert.raw_bind_parameter(1, fire)?;
    insert.raw_bind_parameter(2, status.as_str())?;
    insert.raw_bind_parameter(3, started_at_ms)?;
    insert.raw_bind_parameter(4, finished_at_ms)?;
    insert.raw_bind_parameter(5, Some(info).filter(|info| !info.is_empty()))?;
    insert.raw_bind_parameter(6, room(status))?;
    for (number, one) in alike.iter().enumerate() {
        insert.raw_bind_parameter(number + 7, one.instance)?;
    }
    insert.raw_execute()?;
    match status {
        ExecutionStatus::Skipped => tx.count(Counted::Ended(status), alike.len()),
        _ => tx.count(Counted::Execution, alike.len()),
    }
    if status == ExecutionStatus::Running {
        tx.count(Counted::Started, alike.len());
    }
    Ok(())
}

/// What an execution keeps free in its row for the times it is to have yet. Whoever claims or ends one sets
/// it anew.
pub(super) fn room(status: ExecutionStatus) -> Option<&'static [u8]> {
    match status {
        ExecutionStatus::Pending => Some(&[0; 12]),
        ExecutionStatus::Running => Some(&[0; 6]),
        _ => None,
    }
}

/// The only fire that its invocation ever has, if all that its executions wait for is their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SoleFire {
    pub fire: i64,
    pub invocation: i64,
    pub invoke_id: InvokeId,
    pub executions: u64,
}

/// An execution that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub id: ExecutionId,
    pub attempt: u32,
    pub fire: i64,
    /// Its fire, if that is so simple.
    pub sole: Option<SoleFire>,
    /// Whether another execution may wait for this one to end.
    pub lets_wait: bool,
    pub verdict: Verdict,
    pub output: Output,
    pub report: Option<Box<Report>>,
    /// What becomes of the whole output, if it was to go anywhere and something may have been printed.
    pub delivery: Option<Delivery>,
    pub finished_at_ms: i64,
    /// The wait before another attempt, in milliseconds, unless a stop is on record.
    pub retry_after_ms: Option<i64>,
}

/// The attempt that follows one that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NextAttempt {
    pub id: ExecutionId,
    /// When the attempt is due, as a time of day.
    pub retry_at_ms: i64,
}

/// Invocations that ended, and how.
pub(crate) type FinishedInvocations = Vec<(InvokeId, InvocationStatus)>;

/// What the end of executions led to.
#[derive(Debug, Default)]
pub(crate) struct Finished {
    pub invocations: FinishedInvocations,
    /// What waited for one of these, and is pending now.
    pub released: Vec<Released>,
    /// Of fires that were called off, because too much of them had failed: what waited.
    pub called_off: Vec<(InvokeId, Vec<(ExecutionId, InstanceId)>)>,
    /// Whether more executions of such fires wait than one commit cancels.
    pub more_to_stop: bool,
    /// Whether a wave has ended that another follows.
    pub wave_ended: bool,
    /// By the execution that has ended: what is tried again.
    pub retries: HashMap<ExecutionId, NextAttempt>,
    /// Executions that have not ended after all: no executor has begun them, and they wait again.
    pub put_back: HashSet<ExecutionId>,
    /// Invocations whose end cannot be recorded: executions have ended, and their fire cannot be told.
    pub uncounted: Vec<(InvokeId, Error)>,
}

/// Stores the ends of executions, in the order of their numbers. Returns the fires and invocations that ended with
/// them, and the work that begins. Unless `apart`, invocations that are known to end with them are not read first. If
/// fires fail because of these ends, the first executions that wait are cancelled in this commit, and the others in
/// later commits.
pub(crate) fn finish(tx: Tx<'_>, ended: &[&Ended], apart: bool) -> Result<Finished> {
    finish_within(tx, ended, apart, stop::SLICE)
}

/// Works like [`finish`], and ends at most `left` executions beside these.
fn finish_within(tx: Tx<'_>, ended: &[&Ended], apart: bool, mut left: usize) -> Result<Finished> {
    let mut fires = BTreeMap::<i64, EndedOfFire>::new();
    let mut finished = Finished::default();
    for alike in ended.chunk_by(|one, next| one.goes_with(next)) {
        let stopped = match alike {
            [one] if one.verdict.cause == Cause::Unstarted => {
                if put_back(tx, one)? {
                    finished.put_back.insert(one.id);
                    continue;
                }
                Some(one.with(Verdict::stopped_unstarted()))
            }
            _ => None,
        };
        let stopped = stopped.as_ref();
        let alike = stopped.as_ref().map_or(alike, std::slice::from_ref);
        finish_alike(tx, alike)?;
        for execution in alike {
            if let Some(next) = insert_next_attempt(tx, execution)? {
                // The next attempt takes the place of this one: the fire has not ended, and executions that wait for
                // it go on waiting.
                finished.retries.insert(execution.id, next);
                continue;
            }
            if execution.lets_wait {
                finished.released.extend(claims::release(tx, execution.id)?);
            }
            let of = fires.entry(execution.fire).or_default();
            of.ends.count(execution.verdict.cause.target());
            of.last_ms = of.last_ms.max(execution.finished_at_ms);
            of.sole = execution.sole;
        }
    }
    let is_known =
        |of: &EndedOfFire| !apart && of.sole.is_some_and(|sole| sole.executions == of.ends.total());
    let known: Vec<_> = fires.values().copied().filter(is_known).collect();
    finish_invocations(tx, &known, &mut finished)?;
    for (&fire, of) in fires.iter().filter(|(_, of)| !is_known(of)) {
        finish_fire(tx, fire, of.ends, of.last_ms, true, &mut left, &mut finished)?;
    }
    Ok(finished)
}

/// Makes an execution wait again, because the engine shuts down and no executor has begun the execution. Returns
/// whether it waits: an execution whose stop is on record does not.
fn put_back(tx: Tx<'_>, one: &Ended) -> Result<bool> {
    let [from] = *Cause::Unstarted.sources() else {
        return Err(Error::Internal("an execution is put back from one status".to_owned()));
    };
    let to = Cause::Unstarted.target();
    let changed = tx.execute(
        "UPDATE executions SET status = ?3, started_at_ms = NULL, room = ?4
         WHERE id = ?1 AND attempt = ?2 AND status = ?5",
        (one.id.0, one.attempt, to.as_str(), room(to), from.as_str()),
    )?;
    if changed == 1 {
        tx.memory.running.forget([one.id]);
        tx.count(Counted::PutBack, 1);
    }
    Ok(changed == 1)
}

/// The executions of a fire that have ended together.
#[derive(Debug, Clone, Copy, Default)]
struct EndedOfFire {
    ends: Ends,
    /// The end of the last of them, in milliseconds.
    last_ms: i64,
    sole: Option<SoleFire>,
}

/// The part of an end that could be written.
#[derive(Debug)]
pub(crate) enum Recorded {
    Whole(Finished),
    /// The status, but not all of the output, the result and the delivery.
    Least(Finished, Error),
    /// No part. The execution that waited for this one is released all the same.
    Nothing(Vec<Released>, Error),
}

/// Writes the end of an execution: whole, or without the parts that cannot be written.
///
/// # Errors
///
/// The error of the database if the status cannot be written either, or if a page is damaged. SQLite commits nothing
/// of a transaction that has met a damaged page.
pub(crate) fn finish_as_far_as_possible(tx: Tx<'_>, ended: &Ended) -> Result<Recorded> {
    let error = match lasting(store::apart(tx, || finish(tx, &[ended], true)))? {
        Ok(finished) => return Ok(Recorded::Whole(finished)),
        Err(error) => error,
    };
    let mut lost = Vec::new();
    let mut keep = |what: &str, keep: &dyn Fn() -> Result<()>| {
        lasting(store::apart(tx, keep)).map(|kept| {
            lost.extend(kept.err().map(|error| format!("its {what} cannot be kept: {error}")));
        })
    };
    keep("output", &|| outputs::insert(tx, ended.id, &ended.output))?;
    if let Some(result) = ended.report.as_ref().and_then(|report| report.result.as_ref()) {
        keep("result", &|| results::insert(tx, ended.id, result))?;
    }
    if let Some(delivery) = &ended.delivery {
        keep("delivery", &|| deliveries::insert(tx, ended.id, delivery))?;
    }
    if lost.is_empty() {
        lost.push(format!("not all of its end can be kept: {error}"));
    }
    let least = ended.least(&lost.join("; "));
    let finished = finish(tx, &[&least], true)?;
    Ok(Recorded::Least(finished, error))
}

/// Writes only the status of an execution, because the whole end has failed with `error`. If the fire fails because
/// of this end, executions that wait are cancelled in later commits, because one of their records or pages may be the
/// damaged one.
pub(crate) fn finish_least(tx: Tx<'_>, ended: &Ended, error: &Error) -> Result<Recorded> {
    let least = ended.least(&format!("not all of its end can be kept: {error}"));
    let finished = finish_within(tx, &[&least], true, 0)?;
    Ok(Recorded::Least(finished, error.clone()))
}

/// Releases the execution that waited for an execution whose end cannot be written because of `error`.
pub(crate) fn release_after_unrecorded_end(
    tx: Tx<'_>,
    ended: &Ended,
    error: &Error,
) -> Result<Recorded> {
    let released = if ended.lets_wait { claims::release(tx, ended.id)? } else { None };
    Ok(Recorded::Nothing(released.into_iter().collect(), error.clone()))
}

/// Returns an error that another try may avoid as an error, and any other error as a value.
fn lasting<T>(done: Result<T>) -> Result<Result<T>> {
    match done {
        Err(error) if !error.is_lasting() => Err(error),
        done => Ok(done),
    }
}

/// Writes down the ends of invocations with a single fire each, all of whose executions have just ended:
/// those that ended alike and follow one another, as most do, in one statement a table.
fn finish_invocations(tx: Tx<'_>, ended: &[EndedOfFire], finished: &mut Finished) -> Result<()> {
    for alike in ended.chunk_by(EndedOfFire::goes_with) {
        let ([first, ..], [.., last]) = (alike, alike) else { continue };
        let (Some(from), Some(to)) = (first.sole, last.sole) else { continue };
        let status = first.ends.status();
        fires::end(tx, from.fire..=to.fire, first.ends)?;
        invocations::end(tx, from.invocation..=to.invocation, status, first.last_ms)?;
        let ids = alike.iter().filter_map(|of| of.sole).map(|sole| sole.invoke_id);
        finished.invocations.extend(ids.map(|invoke_id| (invoke_id, status)));
    }
    Ok(())
}

impl EndedOfFire {
    /// Whether the invocation after this one ended in the very same way, in the same millisecond.
    fn goes_with(&self, next: &Self) -> bool {
        let follows = |(one, next): (SoleFire, SoleFire)| {
            next.fire == one.fire + 1 && next.invocation == one.invocation + 1
        };
        self.sole.zip(next.sole).is_some_and(follows)
            && (self.ends, self.last_ms) == (next.ends, next.last_ms)
    }
}

/// Stores the attempt after one that has ended, if it is tried again: never after a stop, which may
/// have come too late to change how it ended, and never of a fire that has been called off.
fn insert_next_attempt(tx: Tx<'_>, ended: &Ended) -> Result<Option<NextAttempt>> {
    let Some(wait_ms) = ended.retry_after_ms else { return Ok(None) };
    let over = waits::begin(tx, ended.finished_at_ms, wait_ms)?;
    let inserted = tx.execute(
        &format!(
            "INSERT INTO executions (fire, instance, attempt, status, retry_at_ms, retries_once)
             SELECT e.fire, e.instance, e.attempt + 1, 'Scheduled', ?2,
                 (SELECT v.repeat_mode = 'Once' FROM invocations v WHERE v.id = f.invocation)
             FROM executions e JOIN fires f ON f.id = e.fire
             WHERE e.id = ?1 AND e.stop_at_ms IS NULL
                 AND (f.errors_max IS NULL OR f.failed <= f.errors_max)
                 AND {NOT_STOPPED}"
        ),
        (ended.id.0, over.at_ms),
    )?;
    tx.count(Counted::Execution, inserted);
    if inserted == 0 {
        return Ok(None);
    }
    let id = ExecutionId(tx.last_id());
    targets::count_attempt(tx, id)?;
    Ok(Some(NextAttempt { id, retry_at_ms: over.told_ms }))
}

impl Ended {
    /// Returns the end without output, result and delivery, with a remark.
    fn least(&self, remark: &str) -> Self {
        let mut verdict = self.verdict.clone();
        verdict.add(remark);
        self.with(verdict)
    }

    /// Returns another end of the same execution, which has left nothing.
    fn with(&self, verdict: Verdict) -> Self {
        Self { verdict, output: Output::default(), report: None, delivery: None, ..*self }
    }

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
        let reports = |report: &Report| report.usage.is_some() || report.result.is_some();
        let reported = self.report.as_deref().is_some_and(reports);
        !(said || left || reported || stop_cause.is_some())
    }
}

/// Writes down the end of executions that go with one another, or of any one.
fn finish_alike(tx: Tx<'_>, alike: &[&Ended]) -> Result<()> {
    let ([first, ..], [.., last]) = (alike, alike) else { return Ok(()) };
    let [from, or_from] = *first.verdict.cause.sources() else {
        return Err(Error::Internal(format!(
            "{:?} does not end an execution",
            first.verdict.cause
        )));
    };
    tx.memory.running.forget(alike.iter().map(|ended| ended.id));
    if !first.is_plain() {
        return alike.iter().try_for_each(|ended| finish_one(tx, ended, from, or_from));
    }
    let changed = tx.execute(
        "UPDATE OR FAIL executions SET status = ?4, finished_at_ms = ?5, exit_code = ?6, room = NULL
         WHERE id BETWEEN ?1 AND ?2 AND attempt = ?3 AND (status = ?7 OR status = ?8)",
        (
            first.id.0,
            last.id.0,
            first.attempt,
            first.verdict.cause.target().as_str(),
            first.finished_at_ms,
            first.verdict.exit_code,
            from.as_str(),
            or_from.as_str(),
        ),
    )?;
    if changed != alike.len() {
        return Err(not_so(first.id));
    }
    tx.count(Counted::Ended(first.verdict.cause.target()), changed);
    tx.count(Counted::Lost, if first.verdict.cause == Cause::Interrupted { changed } else { 0 });
    Ok(())
}

fn finish_one(
    tx: Tx<'_>,
    ended: &Ended,
    from: ExecutionStatus,
    or_from: ExecutionStatus,
) -> Result<()> {
    let (verdict, report) = (&ended.verdict, ended.report.as_deref());
    let usage = report.and_then(|report| report.usage);
    let changed = tx.execute(
        "UPDATE executions SET status = ?2, finished_at_ms = ?3, exit_code = ?4, signal = ?5,
             error_code = nullif(?6, ''), error_info = nullif(?7, ''), user_time_us = ?11,
             system_time_us = ?12, max_rss_bytes = ?13, memory_peak_bytes = ?14,
             stop_cause = coalesce(?15, stop_cause), room = NULL
         WHERE id = ?1 AND attempt = ?8 AND (status = ?9 OR status = ?10)",
        (
            ended.id.0,
            verdict.cause.target().as_str(),
            ended.finished_at_ms,
            verdict.exit_code,
            verdict.signal,
            verdict.error_code,
            verdict.error_info.text(),
            ended.attempt,
            from.as_str(),
            or_from.as_str(),
            usage.map(|usage| micros(usage.user_time)),
            usage.map(|usage| micros(usage.system_time)),
            usage.and_then(|usage| usage.max_rss_bytes).map(stored),
            usage.and_then(|usage| usage.memory_peak_bytes).map(stored),
            verdict.stop_cause.map(StopReason::as_str),
        ),
    )?;
    expect_one(changed, ended.id)?;
    tx.count(Counted::Ended(verdict.cause.target()), 1);
    tx.count(Counted::Lost, usize::from(verdict.cause == Cause::Interrupted));
    if let Some(result) = report.and_then(|report| report.result.as_ref()) {
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

/// Counts ended executions of a fire, and carries out the consequences. The next wave follows only if the fire
/// `may_go_on`. Of the executions that are called off because of it, as many are cancelled now as are `left` to this
/// commit.
pub(super) fn finish_fire(
    tx: Tx<'_>,
    fire: i64,
    ended: Ends,
    now_ms: i64,
    may_go_on: bool,
    left: &mut usize,
    finished: &mut Finished,
) -> Result<()> {
    let counted = fires::count_down(tx, fire, ended)?;
    if counted.has_failed_with(ended) {
        let ending = Ending::Stop(StopReason::Errors.into());
        let scope = Scope::of_fire(tx, fire)?;
        let stopped = stop::order(tx, scope, &ending, now_ms, left)?;
        let off: HashSet<_> = stopped.cancelled.iter().map(|(id, _)| *id).collect();
        finished.retries.retain(|_, next| !off.contains(&next.id));
        if !stopped.cancelled.is_empty() {
            finished.called_off.push((counted.invoke_id, stopped.cancelled));
        }
        finished.more_to_stop |= stopped.left.is_some() || stopped.more_to_stop;
        finished.released.extend(stopped.released);
        finished.invocations.extend(stopped.finished);
        finished.uncounted.extend(stopped.uncounted.map(|error| (counted.invoke_id, error)));
        // The order has counted the executions that ended with it.
        return Ok(());
    }
    if may_go_on && counted.may_await_wave() {
        match waves::look(tx, fire, counted.invocation, now_ms) {
            // What has ended has. What waits for the next wave waits until somebody stops it.
            Err(error) if error.is_of_a_record() => {
                tell(|| tracing::error!(%error, fire, "no other wave can follow"));
            }
            looked => finished.wave_ended |= looked?,
        }
    }
    if counted.unfinished > 0 {
        return Ok(());
    }
    if counted.is_only {
        let status = counted.ended.status();
        invocations::set_finished(tx, counted.invocation, status, now_ms)?;
        finished.invocations.push((counted.invoke_id, status));
    } else {
        let done = invocations::finish_if_done(tx, counted.invocation, now_ms)?;
        finished.invocations.extend(done);
    }
    Ok(())
}

/// Executions that cannot start.
#[derive(Debug)]
pub(crate) struct Aborted {
    pub invoke_id: InvokeId,
    pub executions: Vec<(ExecutionId, InstanceId)>,
    pub finished: Finished,
}

/// Ends the waiting executions of a fire that cannot start because of a record, on one instance or on all. As many
/// end now as are `left` to this commit, and the others end in later commits, like the executions of a stop.
pub(crate) fn abort(
    tx: Tx<'_>,
    fire: i64,
    on: Option<i64>,
    why: &Error,
    now_ms: i64,
    left: &mut usize,
) -> Result<Aborted> {
    let invoke_id = invocations::invoke_id_of_fire(tx, fire)?;
    let mut aborted = Aborted { invoke_id, executions: Vec::new(), finished: Finished::default() };
    let scope = Scope { instances: on.map(|one| vec![one]), ..Scope::of_fire(tx, fire)? };
    if stop::is_aborting(tx, &scope)? {
        return Ok(aborted);
    }
    let what = if on.is_some() { "instance" } else { "invocation" };
    let info = format!("it could not start, for the record of its {what} cannot be read: {why}");
    let ending = Ending::Unstartable { code: why.code().into(), info: info.into() };
    let stopped = stop::order(tx, scope, &ending, now_ms, left)?;
    let uncounted = stopped.uncounted.or(stopped.unstopped);
    aborted.executions = stopped.expired;
    aborted.finished = Finished {
        invocations: stopped.finished,
        released: stopped.released,
        more_to_stop: stopped.left.is_some() || stopped.more_to_stop,
        wave_ended: stopped.wave_ended,
        uncounted: uncounted.map(|error| (invoke_id, error)).into_iter().collect(),
        ..Finished::default()
    };
    if !stopped.cancelled.is_empty() {
        aborted.finished.called_off.push((invoke_id, stopped.cancelled));
    }
    Ok(aborted)
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
    /// Executions whose ends cannot be recorded, each with the error.
    pub stuck: Vec<(ExecutionId, Error)>,
    /// Invocations that do not come to their end because of such executions, each with the error.
    pub failed: Vec<(InvokeId, Error)>,
}

/// The executions that an engine left running when it ended.
#[derive(Debug, Default)]
pub(crate) struct LeftRunning {
    /// The executions, each with its fire.
    pub unended: Vec<(Unended, i64)>,
    /// Fires with executions that cannot be read, each with the error.
    pub unreadable: Vec<(i64, Error)>,
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

/// Returns the executions that an engine left running when it ended. No waiting execution is visited: a fire says up
/// to which instance its executions have been claimed. An execution that cannot be read is logged and left out.
pub(crate) fn unended(tx: Tx<'_>) -> Result<LeftRunning> {
    let mut left = LeftRunning::default();
    for fire in fires::claimed(tx)? {
        let before = left.unended.len();
        match unended_of(tx, fire, &mut left.unended) {
            Err(error) if error.is_lasting() => {
                left.unended.truncate(before);
                if let Err(error) = lasting(unended_one_by_one(tx, fire, &mut left))? {
                    tell(
                        || tracing::error!(%error, fire, "what was left running of a fire cannot be found"),
                    );
                    left.unreadable.push((fire, error));
                }
            }
            found => found?,
        }
    }
    Ok(left)
}

fn unended_of(tx: Tx<'_>, fire: i64, unended: &mut Vec<(Unended, i64)>) -> Result<()> {
    let mut query = tx.prepare(
        "SELECT e.id, e.attempt
         FROM fires f CROSS JOIN executions e INDEXED BY executions_by_fire
             ON e.fire = f.id AND e.instance <= f.claimed_until
         WHERE f.id = ?1 AND e.status IN ('Running', 'Stopping')",
    )?;
    let mut rows = query.query([fire])?;
    while let Some(row) = rows.next()? {
        unended.push((read_unended(row)?, fire));
    }
    Ok(())
}

/// Works like [`unended_of`]; an execution that cannot be read hides no other execution.
fn unended_one_by_one(tx: Tx<'_>, fire: i64, left: &mut LeftRunning) -> Result<()> {
    let mut query = tx.prepare(
        "SELECT id, attempt FROM executions INDEXED BY executions_by_fire
         WHERE fire = ?1 AND instance <= (SELECT claimed_until FROM fires WHERE id = ?1)",
    )?;
    let mut runs =
        tx.prepare("SELECT status IN ('Running', 'Stopping') FROM executions WHERE id = ?1")?;
    let mut rows = query.query([fire])?;
    while let Some(row) = rows.next()? {
        let one = read_unended(row)?;
        let is_running = runs.query_row([one.id.0], |row| row.get::<_, bool>(0));
        match lasting(is_running.map_err(Error::from))? {
            Ok(true) => left.unended.push((one, fire)),
            Ok(false) => {}
            Err(error) => {
                tell(
                    || tracing::error!(%error, id = %one.id, "an execution cannot be read, and is left as it is"),
                );
                // Nobody can tell whether its invocation waits for its end.
                left.unreadable.push((fire, error));
            }
        }
    }
    Ok(())
}

/// Without the number of its attempt no run can be found.
fn read_unended(row: &Row<'_>) -> rusqlite::Result<Unended> {
    Ok(Unended { id: ExecutionId(row.get(0)?), attempt: row.get(1).unwrap_or_default() })
}

/// Returns the runs that must not go on: no record says that the run has begun, or its record says that the end of
/// the engine cut it off. A run that a shutdown stops goes on, because it ends by itself. A run whose record cannot
/// be read is logged and left out.
pub(crate) fn not_to_go_on(tx: Tx<'_>, runs: Vec<Unended>) -> Result<Vec<Unended>> {
    let mut query = tx.prepare(
        "SELECT EXISTS (SELECT 1 FROM executions
         WHERE id = ?1 AND attempt = ?2 AND status NOT IN ('Pending', 'Scheduled')
             AND (error_code IS NOT ?3 OR stop_cause IS ?4))",
    )?;
    let mut not_to_go_on = Vec::new();
    for run in runs {
        let shutdown = StopReason::Shutdown.as_str();
        let wanted = (run.id.0, run.attempt, EXECUTION_INTERRUPTED, shutdown);
        let may_go_on = query.query_row(wanted, |row| row.get::<_, bool>(0));
        match lasting(may_go_on.map_err(Error::from))? {
            Ok(true) => {}
            Ok(false) => not_to_go_on.push(run),
            Err(error) => tell(
                || tracing::error!(%error, id = %run.id, "a run goes on, for its record cannot be read"),
            ),
        }
    }
    Ok(not_to_go_on)
}

/// Ends lost executions, which an engine left running when it ended. Because their outcome is not known, they are not
/// run again unless their request asks for it. If a record cannot be understood, each execution is ended by itself,
/// with as much of its end as can be written.
pub(crate) fn interrupt(
    tx: Tx<'_>,
    lost: &[(ExecutionId, Lost)],
    evidence: &str,
    now_ms: i64,
) -> Result<Interrupted> {
    match store::apart(tx, || interrupt_together(tx, lost, evidence, now_ms)) {
        Err(error) if error.is_of_a_record() => {}
        interrupted => return interrupted,
    }
    let mut interrupted = Interrupted::default();
    for (id, lost) in lost {
        match store::apart(tx, || interrupt_apart(tx, *id, lost, evidence, now_ms)) {
            Err(error) if error.is_of_a_record() => interrupted.pass_over(*id, error),
            one => interrupted.add(one?),
        }
    }
    Ok(interrupted)
}

fn interrupt_together(
    tx: Tx<'_>,
    lost: &[(ExecutionId, Lost)],
    evidence: &str,
    now_ms: i64,
) -> Result<Interrupted> {
    let (mut left, mut interrupted) = (Vec::new(), Interrupted::default());
    for (id, lost) in lost {
        let Some((ended, of)) = cut_off(tx, *id, lost, evidence, now_ms)? else { continue };
        left.push(ended);
        interrupted.executions.push(of);
    }
    let finished = finish(tx, &left.iter().collect::<Vec<_>>(), false)?;
    interrupted.take_in(finished);
    Ok(interrupted)
}

fn interrupt_apart(
    tx: Tx<'_>,
    id: ExecutionId,
    lost: &Lost,
    evidence: &str,
    now_ms: i64,
) -> Result<Interrupted> {
    let mut interrupted = Interrupted::default();
    let Some((ended, of)) = cut_off(tx, id, lost, evidence, now_ms)? else {
        return Ok(interrupted);
    };
    match store::apart(tx, || finish_as_far_as_possible(tx, &ended)) {
        Err(error) if error.is_of_a_record() => {
            tell(
                || tracing::error!(%error, %id, "an execution was cut off, and its fire cannot be told"),
            );
            let least = ended.least(&format!("nothing else can follow from its end: {error}"));
            finish_alike(tx, &[&least])?;
            release_after_unrecorded_end(tx, &ended, &error)?;
            interrupted.executions.push(of);
            interrupted.stuck.push((id, error));
        }
        recorded => match recorded? {
            Recorded::Whole(finished) | Recorded::Least(finished, _) => {
                interrupted.executions.push(of);
                interrupted.take_in(finished);
            }
            Recorded::Nothing(_, error) => interrupted.stuck.push((id, error)),
        },
    }
    Ok(interrupted)
}

/// The ids of an execution for watchers.
type ToldBy = (InvokeId, ExecutionId, InstanceId);

/// Returns the end of an execution that was cut off, with its ids for watchers; `None` if the execution does not run.
/// If the record of its retries cannot be read, the execution is not tried again.
fn cut_off(
    tx: Tx<'_>,
    id: ExecutionId,
    lost: &Lost,
    evidence: &str,
    now_ms: i64,
) -> Result<Option<(Ended, ToldBy)>> {
    let mut query = tx.prepare(
        "SELECT e.attempt, e.fire, v.overlap_policy IS NOT NULL, v.invoke_id, i.instance_id, v.retry,
             v.output_to IS NOT NULL
         FROM executions e JOIN fires f ON f.id = e.fire JOIN invocations v ON v.id = f.invocation
             LEFT JOIN instances i ON i.id = e.instance
         WHERE e.id = ?1 AND e.status IN ('Running', 'Stopping')",
    )?;
    let mut rows = query.query([id.0])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (attempt, fire) = (row.get(0)?, row.get(1)?);
    let mut verdict = Verdict::interrupted(evidence.to_owned());
    if !lost.ended.is_empty() {
        verdict.add(&lost.ended);
    }
    let retry: Option<Retry> = read_json(row, 5).unwrap_or_else(|error| {
        verdict.add(&format!("it is not tried again, for {error}"));
        None
    });
    let ended = Ended {
        id,
        attempt,
        fire,
        sole: None,
        lets_wait: row.get(2)?,
        verdict,
        output: lost.output.clone(),
        report: None,
        // The whole output up to the cut may still be there.
        delivery: row.get::<_, bool>(6)?.then(|| Delivery::in_progress(None)),
        finished_at_ms: now_ms,
        retry_after_ms: retry.and_then(|retry| retry.delay_ms(Cause::Interrupted, attempt)),
    };
    let instance_id = row.get(4).unwrap_or_else(|_| "?".to_owned());
    Ok(Some((ended, (InvokeId::from_bytes(row.get(3)?), id, instance_id.into()))))
}

/// Returns the executions that cannot be taken back because of a record, each with the error.
pub(crate) fn not_to_be_taken_back(
    tx: Tx<'_>,
    unended: &[Unended],
) -> Result<HashMap<ExecutionId, Error>> {
    let mut unfit = HashMap::new();
    for one in unended {
        match going_on(tx, &[one.id]) {
            Err(error) if error.is_lasting() => {
                unfit.insert(one.id, error);
            }
            read => drop(read?),
        }
    }
    Ok(unfit)
}

/// Returns the records that are needed to take back executions that have survived their engine.
pub(crate) fn going_on(tx: Tx<'_>, ids: &[ExecutionId]) -> Result<Vec<GoingOn>> {
    let mut query = tx.prepare(
        "SELECT e.attempt, e.fire, e.instance, e.started_at_ms, e.status = 'Stopping', e.stop_cause, e.stopped_by,
             e.stop_reason
         FROM executions e WHERE e.id = ?1 AND e.status IN ('Running', 'Stopping')",
    )?;
    let mut going_on = Vec::new();
    for &id in ids {
        let mut rows = query.query([id.0])?;
        let Some(row) = rows.next()? else { continue };
        let fire = row.get(1)?;
        tx.memory.running.note(fire, [id]);
        going_on.push(GoingOn {
            fire,
            job: invocations::job_of_fire(tx, fire)?,
            claimed: Claimed {
                id,
                attempt: row.get(0)?,
                target: instances::of_row(tx, row.get(2)?)?,
            },
            limits: fires::terms(tx, fire)?.and_then(|terms| terms.limits),
            started_at_ms: row.get(3)?,
            stop: if row.get(4)? { Some(read_stop(row, 5)?) } else { None },
        });
    }
    Ok(going_on)
}

impl Interrupted {
    fn take_in(&mut self, finished: Finished) {
        self.invocations.extend(finished.invocations);
        self.retries.extend(finished.retries);
    }

    /// Leaves an execution as it is, because its end cannot be recorded.
    pub(crate) fn pass_over(&mut self, id: ExecutionId, error: Error) {
        tell(|| tracing::error!(%error, %id, "no record says that an execution was cut off"));
        self.stuck.push((id, error));
    }

    /// Adds the executions that ended in a later commit.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { executions, invocations, retries, going_on, stuck, failed } = other;
        self.stuck.extend(stuck);
        self.failed.extend(failed);
        self.executions.extend(executions);
        self.invocations.extend(invocations);
        self.retries.extend(retries);
        self.going_on.extend(going_on);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn executions_are_stored_in_their_order_however_many() {
        let store = Store::in_memory();
        // So many, of which each so-manieth is skipped.
        let check = async |count: usize, skipped: usize| {
            let op = move |tx: Tx<'_>| {
                let new = |n: usize| match n % skipped {
                    0 => (ExecutionStatus::Skipped, "why"),
                    _ => (ExecutionStatus::Running, ""),
                };
                let all: Vec<_> = (1..=count)
                    .map(|n| {
                        let (status, info) = new(n);
                        NewExecution { instance: n as i64, status, info }
                    })
                    .collect();
                let fire = (1_000 * skipped + count) as i64;
                let first = insert(tx, fire, &all, 7)?.expect("there is a first");
                let mut stored = tx.prepare(
                    "SELECT id, instance, status FROM executions WHERE fire = ?1 ORDER BY id",
                )?;
                let stored = stored.query_map([fire], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?))
                })?;
                let wanted: Vec<(i64, i64, String)> = (first.0..)
                    .zip(&all)
                    .map(|(id, one)| (id, one.instance, one.status.as_str().to_owned()))
                    .collect();
                assert_eq!(stored.collect::<rusqlite::Result<Vec<_>>>()?, wanted, "{count}");
                Ok(())
            };
            store.write(op).await.expect("memory");
        };
        for count in [1, 4, 5, 6, 19, 20, 99, 100, 126, 226] {
            check(count, 1_000).await;
        }
        check(7, 3).await;
        check(226, 50).await;
    }
}

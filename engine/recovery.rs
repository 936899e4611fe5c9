//! Repairs after the last engine on a file. The engine that opens a file holds its lock, so every
//! execution that is `Running` in the file belongs to an engine that has ended.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::execution::{Lost, Unended};
use crate::executor::{Leftovers, Scratch};
use crate::files::pid_namespace;
use crate::id::{ExecutionId, InvokeId};
use crate::output::WholeOutputs;
use crate::panics::tell;
use crate::schedule::ZoneData;
use crate::status::InvocationStatus;
use crate::store::claims;
use crate::store::executions::{FinishedInvocations, GoingOn, Interrupted, LeftRunning};
use crate::store::timers::{self, Timer};
use crate::store::{Store, Tx, apart, deliveries, executions, fires, invocations, meta};

/// The key under which an engine leaves its number.
const OWNER: &str = "owner";

/// The key of the zone data that timers were planned with.
const ZONE_DATA: &str = "zone_data";
/// Timers planned again in one commit.
const TIMERS_MAX: usize = 1_024;
/// Lost executions that one commit records: each may leave an output and another attempt.
const LOST_MAX: usize = 1_024;
/// Executions in one commit that no longer wait for an instance.
const ADMITTED_MAX: usize = 2_048;

/// The executions that the last engine left running.
#[derive(Debug)]
pub(crate) struct Left {
    /// Executions whose runs have been ended, and how.
    lost: Vec<(ExecutionId, Lost)>,
    going_on: Vec<ExecutionId>,
    /// The fires of these executions.
    fires: HashMap<ExecutionId, i64>,
    /// Fires with executions that cannot be read, each with the error.
    unreadable: Vec<(i64, Error)>,
    /// Whether the earlier engines may be forgotten once this is on disk.
    pub may_forget: bool,
}

/// Looks after executions that were running: runs that go on are left alone, all others are ended.
pub(crate) async fn look_after(store: &Store, scratch: &Scratch) -> Result<Left> {
    let LeftRunning { unended, unreadable } = store.read(executions::unended).await?;
    let fires = unended.iter().map(|(one, fire)| (one.id, *fire)).collect();
    let unended: Vec<_> = unended.into_iter().map(|(one, _)| one).collect();
    store.meters().found_running(unended.len());
    let ended = unended.clone();
    let unfit = move |tx: Tx<'_>| executions::not_to_be_taken_back(tx, &ended);
    let unfit = store.read(unfit).await?;
    let leftovers = Leftovers::find(scratch, &unended, |id| !unfit.contains_key(&id)).await;
    let unexplained = leftovers.unexplained();
    let unknown = match unexplained.is_empty() {
        true => Vec::new(),
        false => store.read(move |tx| executions::not_to_go_on(tx, unexplained)).await?,
    };
    let (mut ended, may_forget) = leftovers.end(&unknown).await;
    let (mut lost, mut going_on) = (Vec::new(), Vec::new());
    for Unended { id, .. } in unended {
        match ended.remove(&id) {
            Some(mut one) => {
                if let Some(error) = unfit.get(&id) {
                    one.remark(&format!("the run could not be taken back: {error}"));
                }
                lost.push((id, one));
            }
            None => going_on.push(id),
        }
    }
    lost.sort_unstable_by_key(|(id, _)| *id);
    Ok(Left { lost, going_on, fires, unreadable, may_forget })
}

/// Records the lost executions, a slice in each commit, and takes the file over. If the engine ends in between, the
/// next engine records the others.
pub(crate) async fn take_over(store: &Store, left: Left, now_ms: i64) -> Result<Interrupted> {
    let before = store.read(|tx| meta::get(tx, OWNER)).await?;
    // The number of a process is told with its namespace, unless that is this one.
    let namespace = format!(" in {}", pid_namespace());
    let named = |owner: String| {
        format!("the engine ({})", owner.strip_suffix(&namespace).unwrap_or(&owner))
    };
    let engine = before.map_or_else(|| "the engine".to_owned(), named);
    let evidence: Arc<str> =
        format!("{engine} ended while it ran; its end is not known, its last output may be missing, and it was not run again")
            .into();
    let Left { mut lost, going_on, fires, unreadable: mut stuck, .. } = left;
    let mut interrupted = Interrupted::default();
    while !lost.is_empty() {
        let slice: Arc<[_]> = lost.drain(..lost.len().min(LOST_MAX)).collect();
        match interrupt(store, &slice, 0..slice.len(), &evidence, now_ms).await {
            // SQLite commits nothing of a transaction that has met a damaged page.
            Err(error) if error.is_damage() => {
                for (number, (id, _)) in slice.iter().enumerate() {
                    match interrupt(store, &slice, number..number + 1, &evidence, now_ms).await {
                        Err(error) if error.is_lasting() => interrupted.pass_over(*id, error),
                        one => interrupted.add(one?),
                    }
                }
            }
            together => interrupted.add(together?),
        }
    }
    let of_stuck = |(id, error): (ExecutionId, Error)| Some((*fires.get(&id)?, error));
    stuck.extend(std::mem::take(&mut interrupted.stuck).into_iter().filter_map(of_stuck));
    if !stuck.is_empty() {
        let failed = move |tx: Tx<'_>| {
            let of_fire = |fire| invocations::invoke_id_of_damaged_fire(tx, fire);
            let failed =
                stuck.into_iter().filter_map(|(fire, error)| Some((of_fire(fire)?, error)));
            Ok(failed.collect())
        };
        interrupted.failed = store.read(failed).await?;
    }
    admit_all(store).await?;
    let own = move |tx: Tx<'_>| {
        meta::set(tx, OWNER, &format!("pid {}{namespace}", std::process::id()))?;
        executions::going_on(tx, &going_on)
    };
    interrupted.going_on = store.write_once(own, |_| {}).await?;
    Ok(interrupted)
}

/// Lets all executions be claimed that wait for room on their instance. An execution that a damaged page keeps from it
/// stays as it is, and keeps neither another execution nor the file waiting.
async fn admit_all(store: &Store) -> Result<()> {
    let error = loop {
        match store.write(|tx| claims::admit_all(tx, ADMITTED_MAX)).await {
            Ok(ADMITTED_MAX) => {}
            Ok(_) => return Ok(()),
            Err(error) if error.is_lasting() => break error,
            Err(error) => return Err(error),
        }
    };
    tell(|| tracing::error!(%error, "not all executions that wait for an instance can be read"));
    let found = found_apart(store.read(claims::all_awaiting).await, "executions")?;
    let admit = claims::admit_these;
    let admitted = write_apart(store, found, ADMITTED_MAX, admit, |id, error| {
        let id = ExecutionId(id);
        tell(|| tracing::error!(%error, %id, "an execution goes on waiting for its instance"));
    });
    admitted.await.map(drop)
}

/// Returns the rows that an index names; no row if the index cannot be read either.
fn found_apart(found: Result<Vec<i64>>, rows: &str) -> Result<Vec<i64>> {
    match found {
        Err(error) if error.is_lasting() => {
            tell(
                || tracing::error!(%error, "{rows} are left as they are, for no index names them"),
            );
            Ok(Vec::new())
        }
        found => found,
    }
}

/// Writes rows, `max` in each commit. Because SQLite commits nothing of a transaction that has met a damaged page, a
/// commit that fails is tried again in halves, until the row is known that cannot be written.
async fn write_apart<T: Send + 'static>(
    store: &Store,
    rows: Vec<i64>,
    max: usize,
    write: impl Fn(Tx<'_>, &[i64]) -> Result<T> + Clone + Send + 'static,
    fail: impl Fn(i64, &Error),
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let mut slices: Vec<Arc<[i64]>> = rows.chunks(max).rev().map(Arc::from).collect();
    while let Some(slice) = slices.pop() {
        let (write, rows) = (write.clone(), Arc::clone(&slice));
        match store.write(move |tx| write(tx, &rows)).await {
            Err(error) if error.is_lasting() => match *slice {
                [row] => fail(row, &error),
                _ => {
                    let (first, second) = slice.split_at(slice.len() / 2);
                    slices.extend([Arc::from(second), Arc::from(first)]);
                }
            },
            written => all.push(written?),
        }
    }
    Ok(all)
}

/// Writes down that some of these executions were cut off, in one commit.
async fn interrupt(
    store: &Store,
    lost: &Arc<[(ExecutionId, Lost)]>,
    which: Range<usize>,
    evidence: &Arc<str>,
    now_ms: i64,
) -> Result<Interrupted> {
    let (lost, evidence) = (Arc::clone(lost), Arc::clone(evidence));
    let write = move |tx: Tx<'_>| executions::interrupt(tx, &lost[which], &evidence, now_ms);
    store.write_once(write, |_| {}).await
}

/// Removes whole outputs that are left although they are not to be delivered: their engine ended after it had
/// recorded the delivery and before it had removed the file. Outputs of executions that go on stay, because the next
/// engine with their sink still needs them. Blocks on the disk for a moment.
pub(crate) async fn tidy_outputs(
    store: &Store,
    outputs: &WholeOutputs,
    going_on: &[GoingOn],
) -> Result<()> {
    let mut left = outputs.all().unwrap_or_else(|error| {
        tell(|| tracing::warn!(%error, "whole outputs that the last engine left cannot be found"));
        Vec::new()
    });
    if !left.is_empty() {
        let going_on: HashSet<_> = going_on.iter().map(|one| one.claimed.id).collect();
        left.retain(|id| !going_on.contains(id));
    }
    if left.is_empty() {
        return Ok(());
    }
    let waited_for = move |tx: Tx<'_>| {
        let mut not_waited_for = Vec::new();
        for id in left {
            match deliveries::waits(tx, id) {
                Ok(true) => {}
                Ok(false) => not_waited_for.push(id),
                Err(error) if error.is_lasting() => tell(|| {
                    tracing::error!(%error, %id, "a whole output stays, for its delivery cannot be read");
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(not_waited_for)
    };
    for id in store.read(waited_for).await? {
        outputs.remove(id);
    }
    Ok(())
}

/// Plans future fires again if they were planned with other zone data, which is certain if `is_other`. Times that are
/// due already stay due, and records of nominal times stay as they are. Returns the invocations that have no time left,
/// and ended with that.
pub(crate) async fn replan(
    store: &Store,
    data: &'static ZoneData,
    is_other: bool,
    now_ms: i64,
) -> Result<FinishedInvocations> {
    let mut finished = Vec::new();
    let fingerprint = data.fingerprint();
    let planned_with = store.read(|tx| meta::get(tx, ZONE_DATA)).await?;
    if !is_other && planned_with.as_deref() == Some(fingerprint) {
        return Ok(finished);
    }
    let mut last = 0;
    loop {
        let replan = move |tx: Tx<'_>| replan_some(tx, last, now_ms);
        match store.write(replan).await {
            Ok((Some(timer), ended)) => {
                last = timer;
                finished.extend(ended);
            }
            Ok((None, _)) => break,
            Err(error) if error.is_lasting() => {
                tell(|| tracing::error!(%error, "not all timers can be planned again together"));
                finished.extend(replan_apart(store, now_ms).await?);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    store.write(move |tx| meta::set(tx, ZONE_DATA, fingerprint)).await?;
    if let Some(before) = planned_with {
        tell(|| {
            tracing::info!(
                before,
                now = %data,
                "the zone data has changed; fires to come are planned with it"
            )
        });
    }
    Ok(finished)
}

/// Plans the timers after this one, up to the last that is returned.
fn replan_some(tx: Tx<'_>, after: i64, now_ms: i64) -> Result<(Option<i64>, FinishedInvocations)> {
    let ids = timers::planned(tx, after, TIMERS_MAX)?;
    let finished = replan_these(tx, &ids, now_ms)?;
    Ok((ids.last().copied(), finished))
}

/// Plans all timers again, without those that a damaged page keeps from it.
async fn replan_apart(store: &Store, now_ms: i64) -> Result<FinishedInvocations> {
    let found = found_apart(store.read(timers::all).await, "timers")?;
    let replan = move |tx: Tx<'_>, ids: &[i64]| replan_these(tx, ids, now_ms);
    let finished = write_apart(store, found, TIMERS_MAX, replan, |timer, error| {
        tell(|| tracing::error!(%error, timer, "a timer is not planned again"));
    });
    Ok(finished.await?.concat())
}

fn replan_these(tx: Tx<'_>, ids: &[i64], now_ms: i64) -> Result<FinishedInvocations> {
    let mut finished = Vec::new();
    for &id in ids {
        let planned = apart(tx, || match timers::get(tx, id)? {
            timer if timer.next_fire_at_ms.is_none() || timer.is_due(now_ms) => Ok(None),
            timer => plan(tx, &timer, now_ms),
        });
        match planned {
            // When such a timer is due, the scheduler gives it up with a record that says so. A timer whose zone has no
            // file waits for the file.
            Err(error) if error.is_of_a_record() || error.is_missing_zone() => {
                tell(|| tracing::warn!(%error, timer = id, "a timer is not planned again"));
            }
            planned => finished.extend(planned?),
        }
    }
    Ok(finished)
}

/// Plans a timer after the last record of its nominal times. A time that has moved into the past is
/// due, and meets the policy for missed times. Returns the invocation if it has no time left, and ended with that.
fn plan(tx: Tx<'_>, timer: &Timer, now_ms: i64) -> Result<Option<(InvokeId, InvocationStatus)>> {
    let mut after = timer.created;
    let until_ms = timer.next_fire_at_ms.unwrap_or(i64::MAX);
    if let Some((_, last)) = fires::last_before(tx, timer.id, until_ms)? {
        after = after.max(last.until.unwrap_or(last.time));
    }
    let dealt = fires::dealt_ahead(tx, timer)?;
    let next_ms = timer.first_after(after.timestamp_millis(), &dealt);
    if next_ms != timer.next_fire_at_ms {
        timers::advance(tx, timer, next_ms, timer.fires_left, timer.catching_up)?;
    }
    match next_ms {
        None => invocations::finish_if_done(tx, timer.invocation, now_ms),
        Some(_) => Ok(None),
    }
}

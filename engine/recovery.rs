//! What the last engine on this file left behind. Whoever opens a file holds its lock, so every
//! execution that the file calls running belongs to an engine that has ended.

use std::collections::HashMap;

use crate::error::Result;
use crate::execution::Lost;
use crate::executor::{self, Scratch};
use crate::id::ExecutionId;
use crate::output::WholeOutputs;
use crate::panics::tell;
use crate::schedule::Zone;
use crate::store::claims;
use crate::store::executions::Interrupted;
use crate::store::timers::{self, Timer};
use crate::store::{Store, Tx, deliveries, executions, fires, invocations, meta};

/// The key under which an engine leaves its number.
const OWNER: &str = "owner";

/// The key of the zone data that timers were planned with.
const ZONE_DATA: &str = "zone_data";
/// Timers planned again in one commit.
const TIMERS_MAX: usize = 1_024;

/// Looks after what was running: what goes on is left alone, the rest is ended. What is lost of it.
pub(crate) async fn look_after(
    store: &Store,
    scratch: &Scratch,
) -> Result<HashMap<ExecutionId, Lost>> {
    let unended = store.read(executions::unended).await?;
    store.meters().found_running(unended.len());
    Ok(executor::inherit(scratch, &unended).await)
}

/// Writes down what is lost, and takes the file over.
pub(crate) fn take_over(
    tx: Tx<'_>,
    lost: &mut HashMap<ExecutionId, Lost>,
    now_ms: i64,
) -> Result<Interrupted> {
    let before = meta::get(tx, OWNER)?;
    let engine =
        before.map_or_else(|| "the engine".to_owned(), |owner| format!("the engine ({owner})"));
    let evidence =
        format!("{engine} ended while it ran; its end is not known, and it was not run again");
    let interrupted = executions::interrupt(tx, lost, &evidence, now_ms)?;
    claims::admit_all(tx)?;
    meta::set(tx, OWNER, &format!("pid {}", std::process::id()))?;
    Ok(interrupted)
}

/// Removes whole outputs that the last engine left and that are not to be delivered: it ended after the
/// record said so and before the file was gone. Blocks on the disk for a moment.
pub(crate) async fn tidy_outputs(store: &Store, outputs: &WholeOutputs) -> Result<()> {
    let left = outputs.all().unwrap_or_else(|error| {
        tell(|| tracing::warn!(%error, "whole outputs that the last engine left cannot be found"));
        Vec::new()
    });
    if left.is_empty() {
        return Ok(());
    }
    let waited_for = move |tx: Tx<'_>| {
        left.into_iter().map(|id| Ok((id, deliveries::waits(tx, id)?))).collect::<Result<Vec<_>>>()
    };
    for (id, waits) in store.read(waited_for).await? {
        if !waits {
            outputs.remove(id);
        }
    }
    Ok(())
}

/// Plans the fires to come again if other zone data planned them. What is due already stays due,
/// and what has become of nominal times stays as it is.
pub(crate) async fn replan(store: &Store, now_ms: i64) -> Result<()> {
    let planned_with = store.read(|tx| meta::get(tx, ZONE_DATA)).await?;
    if planned_with.as_deref() == Some(Zone::DATA_VERSION) {
        return Ok(());
    }
    let mut last = 0;
    loop {
        let replan = move |tx: Tx<'_>| replan_some(tx, last, now_ms);
        match store.write(replan).await? {
            Some(timer) => last = timer,
            None => break,
        }
    }
    store.write(|tx| meta::set(tx, ZONE_DATA, Zone::DATA_VERSION)).await?;
    if let Some(before) = planned_with {
        let now = Zone::DATA_VERSION;
        tell(|| {
            tracing::info!(
                before,
                now,
                "the zone data has changed; fires to come are planned with it"
            )
        });
    }
    Ok(())
}

/// Plans the timers after this one, up to the last that is returned.
fn replan_some(tx: Tx<'_>, after: i64, now_ms: i64) -> Result<Option<i64>> {
    let ids = timers::planned(tx, after, TIMERS_MAX)?;
    for &id in &ids {
        match timers::get(tx, id) {
            Ok(timer) if timer.is_due(now_ms) => {}
            Ok(timer) => plan(tx, &timer, now_ms)?,
            // The scheduler gives it up when it is due, and says so.
            Err(error) if error.is_of_a_record() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ids.last().copied())
}

/// Plans a timer from what has become of its nominal times: one that has moved into the past is
/// due, and meets the policy for missed ones.
fn plan(tx: Tx<'_>, timer: &Timer, now_ms: i64) -> Result<()> {
    let mut after = timer.created;
    if let Some((_, last)) = fires::last_before(tx, timer.id, i64::MAX)? {
        after = after.max(last.until.unwrap_or(last.time));
    }
    let next = timer.schedule.bind(timer.created, timer.zone).next_after(after);
    let next_ms = next.map(|next| next.timestamp_millis());
    let next_ms = next_ms.filter(|next_ms| timer.end_at_ms.is_none_or(|end_ms| *next_ms <= end_ms));
    if next_ms != timer.next_fire_at_ms {
        timers::advance(tx, timer, next_ms, timer.fires_left, timer.catching_up)?;
    }
    if next_ms.is_none() {
        invocations::finish_if_done(tx, timer.invocation, now_ms)?;
    }
    Ok(())
}

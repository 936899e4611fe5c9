//! From a time to run to its fire and executions, whatever set it off: a timer, a boot, a request.
//! The one place where an invocation meets those of its executions that have not ended.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::execution::StopReason;
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::invocation::bounds::Bounds;
use crate::invocation::fire::{Fire, FireDisposition, PAUSED};
use crate::invocation::rate_control::RateControl;
use crate::invocation::recurrence::{Admission, Before, OverlapPolicy};
use crate::status::{Cause, ExecutionStatus};

use super::claims::{Claimed, ClaimedAtOnce};
use super::commands::read_time;
use super::executions::{self, NewExecution, SoleFire};
use super::fires::{self, NewFire};
use super::instances::Target;
use super::stop::{Stopped, Stopping, Unfinished};
use super::targets;
use super::timers::Timer;
use super::{Tx, instances, invocations};

/// What is to fire.
#[derive(Debug)]
struct Firing<'a> {
    invocation: i64,
    timer: Option<&'a Timer>,
    fire_at_ms: i64,
    now_ms: i64,
    overlap: OverlapPolicy,
    /// It was missed, and is run after all.
    late: bool,
    /// Why it fires, if no timer says so.
    occasion: &'a str,
    targets: Vec<i64>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Fired {
    pub fire: Fire,
    /// What it took the place of.
    pub stopped: Stopped,
}

impl Fired {
    /// Whether it started, or will start, anything.
    pub(crate) fn is_start(&self) -> bool {
        self.fire.disposition == FireDisposition::Started
    }
}

/// Fires an invocation that runs at once, and has no execution yet; if it is claimed, what is to be
/// started.
pub(super) fn at_once(
    tx: Tx<'_>,
    (invocation, invoke_id): (i64, InvokeId),
    targets: &[Arc<Target>],
    rate_control: &RateControl,
    claimed_at_ms: Option<i64>,
    now_ms: i64,
) -> Result<Option<ClaimedAtOnce>> {
    let bounds = rate_control.bounds(targets.len() as u64, now_ms);
    let fire = NewFire {
        invocation,
        timer: None,
        fire_at_ms: now_ms,
        disposition: FireDisposition::Started,
        reason: "",
        unfinished: targets.len(),
        dealt_at_ms: now_ms,
        bounds: &bounds,
    };
    let fire = fires::insert(tx, &fire)?;
    let status = claimed_at_ms.map_or(ExecutionStatus::Pending, |_| Cause::Claimed.target());
    let new = |target: &Arc<Target>| NewExecution { instance: target.row, status, info: "" };
    let executions: Vec<_> = targets.iter().map(new).collect();
    let first = executions::insert(tx, fire, &executions, claimed_at_ms.unwrap_or(now_ms))?;
    open_first_wave(tx, fire, &bounds, first)?;
    let Some(first) = first.filter(|_| claimed_at_ms.is_some()) else { return Ok(None) };
    let ids = (first.0..).map(ExecutionId);
    let claimed = ids.zip(targets);
    let claimed =
        claimed.map(|(id, target)| Claimed { id, attempt: 1, target: Arc::clone(target) });
    let sole = SoleFire { fire, invocation, invoke_id, executions: targets.len() as u64 };
    Ok(Some(ClaimedAtOnce { sole, claimed: claimed.collect() }))
}

/// Lets the first wave of a fire loose, if it has waves.
fn open_first_wave(
    tx: Tx<'_>,
    fire: i64,
    bounds: &Bounds,
    first: Option<ExecutionId>,
) -> Result<()> {
    let Some((wave, first)) = bounds.first_wave.zip(first) else { return Ok(()) };
    fires::open_wave(tx, fire, wave, ExecutionId(first.0.saturating_add_unsigned(wave - 1)))
}

/// Fires a timer for one of its nominal times.
pub(crate) fn by_timer(
    tx: Tx<'_>,
    timer: &Timer,
    fire_at_ms: i64,
    late: bool,
    now_ms: i64,
) -> Result<Fired> {
    let firing = Firing {
        invocation: timer.invocation,
        timer: Some(timer),
        fire_at_ms,
        now_ms,
        overlap: timer.overlap,
        late: late && timer.missed.lets_wait(),
        occasion: "",
        targets: targets::of_timer(tx, timer.invocation, timer.id)?,
    };
    fire(tx, &firing)
}

/// Fires a repeating invocation beside its schedule, on all its targets.
pub(crate) fn on_request(
    tx: Tx<'_>,
    invocation: i64,
    overlap: OverlapPolicy,
    now_ms: i64,
) -> Result<Fired> {
    let firing = Firing {
        invocation,
        timer: None,
        fire_at_ms: now_ms,
        now_ms,
        overlap,
        late: false,
        occasion: "asked for beside the schedule",
        targets: targets::of_invocation(tx, invocation)?,
    };
    fire(tx, &firing)
}

/// Takes note of the boot of an instance and fires the invocations that waited for it; says of each
/// what came of it.
pub(crate) fn at_boot(
    tx: Tx<'_>,
    id: &InstanceId,
    boot_id: &str,
    now_ms: i64,
) -> Result<Vec<(InvokeId, Fired)>> {
    let instance = instances::set_boot(tx, id, boot_id)?;
    let occasion = format!("{id} booted; its boot id is {boot_id}");
    let mut all = Vec::new();
    for booted in targets::booted(tx, instance, boot_id)? {
        targets::know_boot(tx, booted.invocation, instance, boot_id, !booted.once)?;
        if booted.paused {
            let fire = NewFire {
                invocation: booted.invocation,
                timer: None,
                fire_at_ms: now_ms,
                disposition: FireDisposition::Skipped,
                reason: PAUSED,
                unfinished: 0,
                dealt_at_ms: now_ms,
                bounds: &RateControl::default().bounds(0, now_ms),
            };
            fires::insert(tx, &fire)?;
            let finished = invocations::finish_if_done(tx, booted.invocation, now_ms)?;
            let stopped =
                Stopped { finished: finished.into_iter().collect(), ..Stopped::default() };
            all.push((booted.invoke_id, Fired { fire: record(&fire, "")?, stopped }));
            continue;
        }
        let firing = Firing {
            invocation: booted.invocation,
            timer: None,
            fire_at_ms: now_ms,
            now_ms,
            overlap: booted.overlap,
            late: false,
            occasion: &occasion,
            targets: vec![instance],
        };
        all.push((booted.invoke_id, fire(tx, &firing)?));
    }
    Ok(all)
}

/// Stores a fire with an execution for each target, as the policy has it.
fn fire(tx: Tx<'_>, firing: &Firing<'_>) -> Result<Fired> {
    let replaces = firing.overlap == OverlapPolicy::Replace && !firing.late;
    // There may be very many: none is read that makes no difference.
    let before = match firing.overlap {
        OverlapPolicy::Allow => Vec::new(),
        _ if replaces => Unfinished::of_invocation(tx, firing.invocation)?,
        overlap => {
            let mut before = Unfinished::oldest_on(tx, firing.invocation, &firing.targets)?;
            if overlap == OverlapPolicy::Queue && !firing.late {
                before.extend(Unfinished::waiting_on(tx, firing.invocation, &firing.targets)?);
            }
            before
        }
    };
    let admissions = admit(firing, &before);
    let unfinished = admissions.iter().filter(|one| !matches!(one, Admission::Skipped(_))).count();
    let skipped = admissions.iter().find_map(|one| match one {
        Admission::Skipped(why) if unfinished == 0 => Some(*why),
        _ => None,
    });
    let disposition = match skipped {
        Some(_) => FireDisposition::Skipped,
        None => FireDisposition::Started,
    };
    let delay_ms = firing.timer.map_or(0, |timer| timer.delay_ms);
    let due_ms = firing.fire_at_ms.saturating_add(delay_ms);
    let rate_control = invocations::rate_control(tx, firing.invocation)?;
    let bounds = rate_control.bounds(unfinished as u64, due_ms);
    let new = NewFire {
        invocation: firing.invocation,
        timer: firing.timer.map(|timer| timer.id),
        fire_at_ms: firing.fire_at_ms,
        disposition,
        reason: skipped.unwrap_or(firing.occasion),
        unfinished,
        dealt_at_ms: firing.now_ms,
        bounds: &bounds,
    };
    let fire = fires::insert(tx, &new)?;
    let executions = firing.targets.iter().zip(&admissions);
    let mut executions: Vec<_> = executions
        .map(|(&instance, admission)| match admission {
            Admission::Runs => {
                NewExecution { instance, status: ExecutionStatus::Pending, info: "" }
            }
            Admission::Waits => {
                NewExecution { instance, status: ExecutionStatus::Scheduled, info: "" }
            }
            Admission::Skipped(why) => {
                NewExecution { instance, status: ExecutionStatus::Skipped, info: why }
            }
        })
        .collect();
    if bounds.first_wave.is_some() {
        // Waves are counted off from the first.
        executions.sort_by_key(|one| one.status.is_final());
    }
    let first = executions::insert(tx, fire, &executions, firing.now_ms)?;
    open_first_wave(tx, fire, &bounds, first)?;
    let mut stopped = Stopped::default();
    if replaces {
        let replaced = StopReason::Replaced.into();
        let mut stopping = Stopping::new(firing.now_ms, &replaced);
        for one in before.iter().filter(|one| firing.targets.contains(&one.instance)) {
            stopping.stop(tx, one)?;
        }
        stopped = stopping.done(tx)?;
    }
    let zone = firing.timer.map(|timer| timer.zone.name());
    Ok(Fired { fire: record(&new, &zone.unwrap_or_default())?, stopped })
}

/// A fire as its record says it.
fn record(new: &NewFire<'_>, zone: &str) -> Result<Fire> {
    Ok(Fire {
        time: read_time(new.fire_at_ms)?,
        until: None,
        count: 1,
        disposition: new.disposition,
        reason: new.reason.to_owned(),
        zone: zone.to_owned(),
        dealt_time: read_time(new.dealt_at_ms)?,
    })
}

/// What becomes of a fire on each of its targets.
fn admit(firing: &Firing<'_>, before: &[Unfinished]) -> Vec<Admission> {
    let mut standing: HashMap<i64, Vec<Before>> = HashMap::new();
    for one in before {
        let before = Before::new(one.status, one.attempt);
        standing.entry(one.instance).or_default().push(before);
    }
    let on = |instance| standing.get(instance).map_or(&[][..], Vec::as_slice);
    firing.targets.iter().map(|instance| firing.overlap.admit(on(instance), firing.late)).collect()
}

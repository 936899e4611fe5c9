//! From a time to run to its fire and executions, whatever set it off: a timer, a boot, a request.
//! The one place where an invocation meets those of its executions that have not ended.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::execution::StopReason;
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::invocation::bounds::Bounds;
use crate::invocation::fire::{Fire, FireDisposition, PAUSED};
use crate::invocation::rate_control::RateControl;
use crate::invocation::recurrence::{Admission, Before, OverlapPolicy};
use crate::panics::tell;
use crate::status::{Cause, ExecutionStatus};

use super::aside::{Aside, Subject};
use super::claims::{Claimed, ClaimedAtOnce};
use super::commands::read_time;
use super::executions::{self, NewExecution, SoleFire};
use super::fires::{self, NewFire};
use super::instances::{News, Target};
use super::stop::{self, Ending, Scope, Stopped, Unfinished};
use super::targets::{self, Booted};
use super::timers::Timer;
use super::{Tx, apart, instances, invocations};

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
    targets: &'a [i64],
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
        due_until_ms: None,
        unfinished: targets.len(),
        claimed_until: claimed_at_ms.and(targets.iter().map(|target| target.row).max()),
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
    let claimed: Vec<_> = claimed.collect();
    tx.memory.running.note(fire, claimed.iter().map(|one| one.id));
    let sole = SoleFire { fire, invocation, invoke_id, executions: targets.len() as u64 };
    Ok(Some(ClaimedAtOnce { sole, claimed }))
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

/// Fires a timer for one of its nominal times, on some of its targets. Executions that the fire replaces end now, as
/// many as are `left` to this commit.
pub(crate) fn by_timer(
    tx: Tx<'_>,
    timer: &Timer,
    targets: &[i64],
    fire_at_ms: i64,
    late: bool,
    now_ms: i64,
    left: &mut usize,
) -> Result<Fired> {
    let firing = Firing {
        invocation: timer.invocation,
        timer: Some(timer),
        fire_at_ms,
        now_ms,
        overlap: timer.overlap,
        late: late && timer.missed.lets_wait(),
        occasion: "",
        targets,
    };
    fire(tx, &firing, left)
}

/// Fires a repeating invocation beside its schedule, on all its targets.
pub(crate) fn on_request(
    tx: Tx<'_>,
    invocation: i64,
    overlap: OverlapPolicy,
    now_ms: i64,
) -> Result<Fired> {
    let targets = targets::of_invocation(tx, invocation)?;
    let firing = Firing {
        invocation,
        timer: None,
        fire_at_ms: now_ms,
        now_ms,
        overlap,
        late: false,
        occasion: "asked for beside the schedule",
        targets: &targets,
    };
    let mut left = stop::SLICE;
    fire(tx, &firing, &mut left)
}

/// The progress of the boot of an instance.
#[derive(Debug)]
pub(crate) struct Booting {
    /// The row of the instance.
    pub instance: i64,
    /// The fire of each invocation that has been told.
    pub fired: Vec<(InvokeId, Fired)>,
    /// Whether the boot is on record; otherwise an earlier boot has not been told to all invocations yet.
    pub is_noted: bool,
    /// Whether invocations have not been told yet.
    pub has_more: bool,
}

/// The number of invocations that one commit tells of a boot.
const BOOTS_MAX: usize = 512;

/// Records the boot of an instance and fires invocations that waited for it, as many as are `left` to this commit,
/// and takes them off. Invocations that wait for an earlier boot come first.
pub(crate) fn at_boot(
    tx: Tx<'_>,
    id: &InstanceId,
    boot_id: &str,
    now_ms: i64,
    left: &mut usize,
    aside: &Aside,
) -> Result<Booting> {
    let known = instances::known_boot(tx, id)?;
    let instance = known.instance;
    let is_known = known.boot_id.as_deref() == Some(boot_id);
    let mut booting = Booting { instance, fired: Vec::new(), is_noted: is_known, has_more: false };
    if let (Some(earlier), Some(news), false) = (&known.boot_id, known.news, is_known) {
        let of = Boot { instance, id, boot_id: earlier, now_ms };
        booting.has_more = of.carry_on(tx, news, left, aside, &mut booting.fired)?;
        if booting.has_more {
            // Its record says already that it goes on.
            return Ok(booting);
        }
    }
    let news = match is_known {
        true => known.news.unwrap_or(News::Told),
        false => {
            instances::set_boot(tx, instance, boot_id)?;
            booting.is_noted = true;
            News::Told
        }
    };
    let of = Boot { instance, id, boot_id, now_ms };
    booting.has_more = of.carry_on(tx, news, left, aside, &mut booting.fired)?;
    instances::set_booting(tx, instance, booting.has_more.then_some(news))?;
    Ok(booting)
}

/// Records the boot of an instance; later commits tell the invocations that wait for it.
pub(crate) fn note_boot(tx: Tx<'_>, id: &InstanceId, boot_id: &str) -> Result<()> {
    let known = instances::known_boot(tx, id)?;
    if known.boot_id.as_deref() != Some(boot_id) {
        instances::set_boot(tx, known.instance, boot_id)?;
        instances::set_booting(tx, known.instance, Some(News::Told))?;
    }
    Ok(())
}

/// Gives up the boot of an instance because of an error: invocations wait for the next boot. No record is read,
/// because it may be the record that cannot be understood; later commits tell the targets. Returns the row of the
/// instance.
pub(crate) fn give_up_boot(tx: Tx<'_>, id: &InstanceId, boot_id: &str) -> Result<Option<i64>> {
    tx.find(
        "UPDATE instances SET boot_id = ?2, is_booting = ?3 WHERE instance_id = ?1 RETURNING id",
        (id.as_str(), boot_id, News::Known.stored()),
        |row| row.get(0),
    )
}

/// Lets an instance that has become another machine start over from its current boot: no invocation fires because of
/// that boot. This commit tells as many targets as are `left`, and later commits tell the others. Returns the
/// progress.
pub(crate) fn rebase(
    tx: Tx<'_>,
    id: &InstanceId,
    boot_id: &str,
    now_ms: i64,
    left: &mut usize,
    aside: &Aside,
) -> Result<Booting> {
    let instance = instances::known_boot(tx, id)?.instance;
    instances::set_boot(tx, instance, boot_id)?;
    let (mut fired, of) = (Vec::new(), Boot { instance, id, boot_id, now_ms });
    let has_more = of.carry_on(tx, News::Known, left, aside, &mut fired)?;
    instances::set_booting(tx, instance, has_more.then_some(News::Known))?;
    Ok(Booting { instance, fired, is_noted: true, has_more })
}

/// The boot of an instance.
struct Boot<'a> {
    instance: i64,
    id: &'a InstanceId,
    boot_id: &'a str,
    now_ms: i64,
}

impl Boot<'_> {
    /// Tells targets of the boot. Returns whether there are others.
    fn carry_on(
        &self,
        tx: Tx<'_>,
        news: News,
        left: &mut usize,
        aside: &Aside,
        fired: &mut Vec<(InvokeId, Fired)>,
    ) -> Result<bool> {
        if news == News::Known {
            let known = targets::take_for_known(tx, self.instance, self.boot_id, *left)?;
            *left -= known;
            return Ok(*left == 0);
        }
        let max = BOOTS_MAX.min(*left);
        let limit = max.saturating_add(1).saturating_add(aside.count());
        let waiting = targets::booted(tx, self.instance, self.boot_id, limit)?;
        let waiting = aside.others(waiting, max + 1, Subject::Target);
        for (told, &target) in waiting.iter().enumerate() {
            if told == max || *left == 0 {
                return Ok(true);
            }
            *left -= 1;
            let give_up = |error: &Error| {
                tell(|| {
                    tracing::error!(%error, target, instance = %self.id, "a target is not told of a boot");
                });
                targets::set_boot(tx, target, self.boot_id)
            };
            let act = || self.tell_one(tx, target, left);
            fired.extend(aside.deal(tx, Subject::Target(target), act, give_up)?.flatten());
        }
        Ok(false)
    }

    /// Tells one target of the boot. If its invocation cannot be read, a record says so.
    fn tell_one(
        &self,
        tx: Tx<'_>,
        target: i64,
        left: &mut usize,
    ) -> Result<Option<(InvokeId, Fired)>> {
        let Booted { invocation, once, paused, terms, is_first } = targets::get_booted(tx, target)?;
        targets::know_boot(tx, target, self.boot_id, is_first || !once)?;
        if is_first {
            return Ok(None);
        }
        let occasion = format!("{} booted; its boot id is {}", self.id, self.boot_id);
        let invoke_id = terms.as_ref().ok().map(|(invoke_id, _)| *invoke_id);
        let told = terms.and_then(|(_, overlap)| {
            let firing = Firing {
                invocation,
                timer: None,
                fire_at_ms: self.now_ms,
                now_ms: self.now_ms,
                overlap,
                late: false,
                occasion: &occasion,
                targets: &[self.instance],
            };
            apart(tx, || match paused {
                true => pass_over(tx, &firing, PAUSED),
                false => fire(tx, &firing, left),
            })
        });
        let told = match told {
            // Invocations that can be read are told of the boot all the same.
            Err(error) if error.is_of_a_record() => {
                tell(
                    || tracing::error!(%error, invocation, "an invocation does not fire: {occasion}"),
                );
                let why = format!("{occasion}; the invocation did not fire, for {error}");
                give_up(tx, invocation, &why, self.now_ms)?
            }
            told => Some(told?),
        };
        Ok(invoke_id.zip(told))
    }
}

/// Records that an invocation does not fire because it cannot be read, as far as that can be recorded.
fn give_up(tx: Tx<'_>, invocation: i64, why: &str, now_ms: i64) -> Result<Option<Fired>> {
    let firing = Firing {
        invocation,
        timer: None,
        fire_at_ms: now_ms,
        now_ms,
        overlap: OverlapPolicy::default(),
        late: false,
        occasion: why,
        targets: &[],
    };
    match apart(tx, || pass_over(tx, &firing, why)) {
        Err(error) if error.is_of_a_record() => {
            tell(
                || tracing::error!(%error, invocation, "no record says why an invocation did not fire"),
            );
            Ok(None)
        }
        passed => passed.map(Some),
    }
}

/// Records that an invocation does not fire.
fn pass_over(tx: Tx<'_>, firing: &Firing<'_>, reason: &str) -> Result<Fired> {
    let fire = NewFire {
        invocation: firing.invocation,
        timer: None,
        fire_at_ms: firing.fire_at_ms,
        disposition: FireDisposition::Skipped,
        reason,
        due_until_ms: None,
        unfinished: 0,
        claimed_until: None,
        dealt_at_ms: firing.now_ms,
        bounds: &RateControl::default().bounds(0, firing.now_ms),
    };
    fires::insert(tx, &fire)?;
    let finished = invocations::finish_if_done(tx, firing.invocation, firing.now_ms)?;
    let stopped = Stopped { finished: finished.into_iter().collect(), ..Stopped::default() };
    Ok(Fired { fire: record(&fire, "")?, stopped })
}

/// Stores a fire with an execution for each target, as the policy has it.
fn fire(tx: Tx<'_>, firing: &Firing<'_>, left: &mut usize) -> Result<Fired> {
    let replaces = firing.overlap == OverlapPolicy::Replace && !firing.late;
    // Because there may be very many executions, only executions that make a difference are read. An execution that
    // runs is the oldest, because the others wait for it.
    let before = match firing.overlap {
        OverlapPolicy::Allow => Vec::new(),
        overlap => {
            let mut before = Unfinished::oldest_on(tx, firing.invocation, firing.targets)?;
            if overlap == OverlapPolicy::Queue && !firing.late {
                before.extend(Unfinished::waiting_on(tx, firing.invocation, firing.targets)?);
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
        due_until_ms: firing.timer.and(skipped).map(|_| due_ms),
        unfinished,
        claimed_until: None,
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
    if let Some(first) = first {
        targets::count_fired(tx, firing.invocation, first, &executions)?;
    }
    open_first_wave(tx, fire, &bounds, first)?;
    let mut stopped = Stopped::default();
    if let Some(first) = first.filter(|_| replaces && !before.is_empty()) {
        let scope = Scope {
            invocation: firing.invocation,
            fire: None,
            until: first.0 - 1,
            instances: Some(before.iter().map(|one| one.instance).collect()),
        };
        let replaced = Ending::Stop(StopReason::Replaced.into());
        stopped = stop::order(tx, scope, &replaced, firing.now_ms, left)?;
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
        status: None,
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

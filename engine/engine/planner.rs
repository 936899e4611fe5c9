//! From the instances of a request to when it runs on each: all of them suit, or nothing happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::command::parameters::Arguments;
use crate::command::template::Facts;
use crate::config::Names;
use crate::error::{Error, Result, Violation, none_of};
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::instance::{Instance, InstanceState};
use crate::invocation::recurrence::Trigger;
use crate::invocation::request::Targets;
use crate::limits::Limits;
use crate::schedule::Zone;
use crate::store::Tx;
use crate::store::commands::Definition;
use crate::store::instances::{self, Target};
use crate::store::invocations::{self, FirstFire, NewInvocation, Start};
use crate::tag::Tag;

/// What the checks of targets go by.
pub(super) struct Planner {
    pub now: DateTime<Utc>,
    pub executor_names: Arc<Vec<String>>,
    pub limits: Limits,
    /// The most that content may come to as Base64, its parameters filled in.
    pub content_bytes_max: usize,
    pub names: Names,
}

impl Planner {
    /// When an invocation runs on these instances, if every one of them suits.
    pub(super) fn start(
        &self,
        tx: Tx<'_>,
        targets: &Targets,
        new: &NewInvocation,
    ) -> Result<Start> {
        let targets = self.targets(tx, targets, &new.definition)?;
        self.check_size(&targets, new)?;
        let rows = || targets.iter().map(|target| target.row).collect();
        let Some(recurrence) = &new.recurrence else {
            return Ok(Start::Now { target_rows: rows() });
        };
        let schedule = match &recurrence.trigger {
            Trigger::Boot { .. } => return Ok(Start::AtBoot { target_rows: rows() }),
            Trigger::Schedule(schedule) => schedule,
        };
        // Asked for once: that means to ask the system.
        let mut local = None;
        let mut by_zone: BTreeMap<String, FirstFire> = BTreeMap::new();
        for Target { row, instance } in targets {
            let own = instance.time_zone.unwrap_or_else(|| *local.get_or_insert_with(Zone::local));
            let zone = schedule.bind(self.now, own).zone();
            if let Some(group) = by_zone.get_mut(&*zone.name()) {
                group.target_rows.push(row);
                continue;
            }
            let timeout_s = new.definition.timeout_s;
            let first = recurrence.first_fire(schedule, self.now, zone, timeout_s, &self.limits);
            let at_ms = first.map_err(Error::invalid)?.timestamp_millis();
            let delay_ms = delay_ms(new.invoke_id, zone, recurrence.spread_s);
            let first_fire = FirstFire { zone, at_ms, delay_ms, target_rows: vec![row] };
            by_zone.insert(zone.to_string(), first_fire);
        }
        Ok(Start::Planned(by_zone.into_values().collect()))
    }

    /// Stores an invocation as planned.
    pub(super) fn store(&self, tx: Tx<'_>, new: &NewInvocation, start: &Start) -> Result<()> {
        let per_day_max = self.limits.invocations_per_day_max;
        invocations::insert(tx, new, start, per_day_max, self.now.timestamp_millis())
    }

    /// Checks values against the script of a stored command.
    pub(super) fn check_arguments(
        &self,
        definition: &Definition,
        arguments: &Arguments,
    ) -> Result<()> {
        let mut found = Vec::new();
        let (enabled, content) = (definition.enable_parameter, &definition.content);
        arguments.check(enabled, content, &self.limits, &mut found);
        none_of(found)
    }

    /// Checks what the content comes to on each target, its parameters filled in.
    fn check_size(&self, targets: &[Target], new: &NewInvocation) -> Result<()> {
        let Definition { enable_parameter: true, content, .. } = &new.definition else {
            return Ok(());
        };
        for Target { instance, .. } in targets {
            let facts = Facts {
                names: &self.names,
                instance_id: &instance.instance_id,
                instance_name: &instance.name,
                invoke_id: new.invoke_id,
                command_id: new
                    .command_id
                    .unwrap_or_else(|| CommandId::of_invocation(new.invoke_id)),
            };
            let max = self.content_bytes_max;
            new.arguments.check_size(content, &facts, max).map_err(Error::invalid)?;
        }
        Ok(())
    }

    /// The instances to run on, if every one of them suits.
    fn targets(
        &self,
        tx: Tx<'_>,
        wanted: &Targets,
        definition: &Definition,
    ) -> Result<Vec<Target>> {
        let mut violations = Vec::new();
        let targets = if wanted.tags.is_empty() {
            self.named(tx, &wanted.instance_ids, &mut violations)?
        } else {
            self.tagged(tx, &wanted.tags, &mut violations)?
        };
        if let Some(group) = &wanted.resource_group_id
            && !instances::is_group(tx, group)?
        {
            let message = format!("no instance belongs to a group `{group}`");
            let code = "InvalidResourceGroup.NotFound";
            violations.push(Violation::new(code, 404, "ResourceGroupId", message));
        }
        for Target { instance, .. } in &targets {
            self.check(instance, wanted, definition, &mut violations);
        }
        none_of(violations)?;
        Ok(targets)
    }

    fn named(
        &self,
        tx: Tx<'_>,
        ids: &[InstanceId],
        found: &mut Vec<Violation>,
    ) -> Result<Vec<Target>> {
        let mut targets = Vec::with_capacity(ids.len());
        for id in ids {
            match instances::find(tx, id)? {
                None => found.push(instances::not_found(id)),
                Some(target) => targets.push(target),
            }
        }
        Ok(targets)
    }

    fn tagged(&self, tx: Tx<'_>, tags: &[Tag], found: &mut Vec<Violation>) -> Result<Vec<Target>> {
        let max = self.limits.instances_max;
        let targets = instances::tagged(tx, tags, max)?;
        if targets.is_empty() {
            let message = "no registered instance has all of these tags";
            let code = "InvalidResourceTag.InstanceNotFound";
            found.push(Violation::new(code, 400, "ResourceTag", message));
        }
        if targets.len() > max {
            let message = format!("want tags that at most {max} instances have; more have them");
            found.push(Violation::new("InstanceIds.ExceedLimit", 403, "ResourceTag", message));
        }
        Ok(targets)
    }

    fn check(
        &self,
        instance: &Instance,
        wanted: &Targets,
        definition: &Definition,
        found: &mut Vec<Violation>,
    ) {
        let id = &instance.instance_id;
        let mut unsuited = |message| {
            found.push(Violation::new("InvalidInstance.NotMatch", 400, "InstanceId", message));
        };
        if instance.state != InstanceState::Running {
            unsuited(format!("`{id}` is {}; it must be Running", instance.state));
        }
        if let Some(group) = &wanted.resource_group_id
            && instance.resource_group_id.as_ref() != Some(group)
        {
            unsuited(format!("`{id}` does not belong to the group `{group}`"));
        }
        if !definition.command_type.suits(instance.os_type) {
            let (command, os) = (definition.command_type, instance.os_type);
            unsuited(format!("{command} does not run on {os} (`{id}`)"));
        }
        if !self.executor_names.contains(&instance.executor) {
            found.push(no_executor(instance, &self.executor_names));
        }
    }
}

/// Where in a spread of so many seconds a timer has its place: always the same for its id, evenly
/// spread over all.
fn delay_ms(invoke_id: InvokeId, zone: Zone, spread_s: u64) -> i64 {
    if spread_s == 0 {
        return 0;
    }
    let mut hash = Sha256::new_with_prefix(invoke_id.as_bytes());
    hash.update(zone.name().as_bytes());
    let [a, b, c, d, e, f, ..] = <[u8; 32]>::from(hash.finalize());
    let place = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let delay_ms = place % spread_s.saturating_mul(1_000);
    i64::try_from(delay_ms).unwrap_or(i64::MAX)
}

pub(super) fn no_executor(instance: &Instance, executor_names: &[String]) -> Violation {
    Violation::new(
        "InvalidInstance.NotMatch",
        400,
        "Executor",
        format!(
            "`{}` is served by executor `{}`, which is not plugged in; there are: {}",
            instance.instance_id,
            instance.executor,
            executor_names.join(", ")
        ),
    )
}

//! From the instances of a request to when it runs on each: all of them suit, or nothing happens.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, Violation, none_of};
use crate::id::{InstanceId, InvokeId};
use crate::instance::{Instance, InstanceState};
use crate::invocation::recurrence::Trigger;
use crate::limits::Limits;
use crate::schedule::Zone;
use crate::store::Tx;
use crate::store::commands::Definition;
use crate::store::instances::{self, Target};
use crate::store::invocations::{FirstFire, NewInvocation, Start};

/// What the checks of targets go by.
pub(super) struct Planner {
    pub now: DateTime<Utc>,
    pub executor_names: Arc<Vec<String>>,
    pub limits: Limits,
}

impl Planner {
    /// When an invocation runs on these instances, if every one of them suits.
    pub(super) fn start(
        &self,
        tx: Tx<'_>,
        ids: &[InstanceId],
        new: &NewInvocation,
    ) -> Result<Start> {
        let targets = self.targets(tx, ids, &new.definition)?;
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

    /// The instances to run on, if every one of them suits.
    fn targets(
        &self,
        tx: Tx<'_>,
        ids: &[InstanceId],
        definition: &Definition,
    ) -> Result<Vec<Target>> {
        let mut targets = Vec::with_capacity(ids.len());
        let mut violations = Vec::new();
        for id in ids {
            match instances::find(tx, id)? {
                None => violations.push(instances::not_found(id)),
                Some(target) => {
                    self.check(&target.instance, definition, &mut violations);
                    targets.push(target);
                }
            }
        }
        none_of(violations)?;
        Ok(targets)
    }

    fn check(&self, instance: &Instance, definition: &Definition, found: &mut Vec<Violation>) {
        let id = &instance.instance_id;
        let mut unsuited = |message| {
            found.push(Violation::new("InvalidInstance.NotMatch", 400, "InstanceId", message));
        };
        if instance.state != InstanceState::Running {
            unsuited(format!("`{id}` is {}; it must be Running", instance.state));
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

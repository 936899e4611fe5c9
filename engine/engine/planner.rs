//! From a request to when it runs on each instance: all of it is sound, or nothing happens.

use std::cell::LazyCell;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::command::CommandType;
use crate::command::content::ContentMax;
use crate::command::template::{Facts, Template};
use crate::config::Names;
use crate::error::{Result, Violation};
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::instance::{AgentStatus, Instance, InstanceState, OsType};
use crate::invocation::recurrence::Trigger;
use crate::invocation::request::Targets;
use crate::limits::Limits;
use crate::schedule::Zone;
use crate::store::claims::ClaimedAtOnce;
use crate::store::commands::{Definition, NewCommand};
use crate::store::instances::{self, Target};
use crate::store::invocations::{self, FirstFire, NewInvocation, Start};
use crate::store::{Tx, commands, days};
use crate::tag::Tag;

/// What the checks of a request go by.
pub(super) struct Planner {
    pub now: DateTime<Utc>,
    pub executor_names: Arc<Vec<String>>,
    /// The executors whose runs can survive this engine.
    pub survivable: Arc<HashSet<String>>,
    pub is_in_memory: bool,
    pub limits: Arc<Limits>,
    /// The largest content, its parameters filled in.
    pub content_max: ContentMax,
    pub names: Names,
}

/// A request on its way to become an invocation.
pub(super) struct Draft {
    pub targets: Targets,
    /// What to run; none if there is no such command, which has been said then.
    pub definition: Option<Definition>,
    /// Its language; none if it has none that is known.
    pub command_type: Option<CommandType>,
    /// Whether the command is kept, too, and under which id.
    pub keeps: Option<CommandId>,
    pub new: NewInvocation,
}

impl Planner {
    /// Finds out when a request runs and what is wrong with it, as far as the records decide that.
    /// Nothing comes of one that something is wrong with.
    pub(super) fn plan(
        &self,
        tx: Tx<'_>,
        draft: &Draft,
        found: &mut Vec<Violation>,
    ) -> Result<Option<Start>> {
        let targets = self.targets(tx, draft, found)?;
        self.check_size(&targets, draft, found);
        self.check_quotas(tx, draft, found)?;
        let start = self.start(targets, draft, found);
        Ok(start.filter(|_| found.is_empty()))
    }

    /// Stores an invocation as planned; what is to be started, if it is claimed at once.
    pub(super) fn store(
        &self,
        tx: Tx<'_>,
        draft: &Draft,
        definition: &Definition,
        start: &Start,
        claimed_at_ms: Option<i64>,
    ) -> Result<Option<ClaimedAtOnce>> {
        let now_ms = self.now.timestamp_millis();
        if let Some(command_id) = draft.keeps {
            let command = NewCommand {
                command_id,
                definition,
                tags: &draft.new.tags,
                resource_group_id: draft.targets.resource_group_id.as_deref(),
            };
            commands::insert(tx, &command, now_ms)?;
        }
        invocations::insert(tx, &draft.new, definition, start, claimed_at_ms, now_ms)
    }

    /// When it runs on which of its targets.
    fn start(
        &self,
        targets: Vec<Arc<Target>>,
        draft: &Draft,
        found: &mut Vec<Violation>,
    ) -> Option<Start> {
        let Some(recurrence) = &draft.new.recurrence else {
            return Some(Start::Now { targets });
        };
        let schedule = match &recurrence.trigger {
            Trigger::Boot { .. } => {
                let target_rows = targets.iter().map(|target| target.row).collect();
                return Some(Start::AtBoot { target_rows });
            }
            Trigger::Schedule(schedule) => schedule,
        };
        // The system is asked once.
        let local = LazyCell::new(Zone::local);
        let mut by_zone: BTreeMap<String, FirstFire> = BTreeMap::new();
        for target in &targets {
            let row = target.row;
            let own = match target.instance.time_zone.map(Zone::renewed) {
                Some(zone) if schedule.follows_instances() && !zone.has_rules() => {
                    let message = format!(
                        "the schedule follows the clock of `{}`, whose zone {zone} has no sound file here; put the \
                         file back, or name a zone at the end of the schedule",
                        target.instance.instance_id
                    );
                    let code = "InvalidParam.Frequency";
                    found.push(Violation::new(code, 400, "Frequency", message));
                    return None;
                }
                Some(zone) => zone,
                // The schedule looks at no clock, or at one that it names.
                None if !schedule.follows_instances() => Zone::UTC,
                None => match &*local {
                    Ok(zone) => *zone,
                    Err(error) => {
                        let message = error.to_string();
                        let code = "InvalidParam.Frequency";
                        found.push(Violation::new(code, 400, "Frequency", message));
                        return None;
                    }
                },
            };
            let zone = schedule.bind(self.now, own).zone();
            if let Some(group) = by_zone.get_mut(&*zone.name()) {
                group.target_rows.push(row);
                continue;
            }
            // A default is shortened to fit a schedule, so that only a stated timeout counts.
            let stated = draft.definition.as_ref().and_then(|definition| definition.timeout_s);
            let first = recurrence.first_fire(schedule, self.now, zone, stated, &self.limits);
            let at_ms = match first {
                Ok(first) => first.timestamp_millis(),
                Err(violation) => {
                    found.push(violation);
                    return None;
                }
            };
            let delay_ms = delay_ms(draft.new.invoke_id, zone, recurrence.spread_s);
            let first_fire = FirstFire { zone, at_ms, delay_ms, target_rows: vec![row] };
            by_zone.insert(zone.to_string(), first_fire);
        }
        Some(Start::Planned(by_zone.into_values().collect()))
    }

    /// Checks what the content comes to on each target, its parameters filled in.
    fn check_size(&self, targets: &[Arc<Target>], draft: &Draft, found: &mut Vec<Violation>) {
        let Some(Definition { enable_parameter: true, content, .. }) = &draft.definition else {
            return;
        };
        let new = &draft.new;
        let script = Template::parse(content);
        for Target { instance, .. } in targets.iter().map(|target| &**target) {
            let facts = Facts {
                names: &self.names,
                instance_id: &instance.instance_id,
                instance_name: &instance.name,
                invoke_id: new.invoke_id,
                command_id: new.command_id(),
            };
            let size = new.arguments.check_size(&script, &facts, self.content_max);
            let fits = size.and_then(|()| new.arguments.check_built_ins(&script, &facts));
            if let Err(violation) = fits {
                // One says it: the others differ by the length of a name.
                found.push(violation);
                return;
            }
        }
    }

    fn check_quotas(&self, tx: Tx<'_>, draft: &Draft, found: &mut Vec<Violation>) -> Result<()> {
        let now_ms = self.now.timestamp_millis();
        let per_day_max = self.limits.invocations_per_day_max;
        found.extend(days::beyond_quota(tx, now_ms, per_day_max)?);
        if let (Some(command_id), Some(definition)) = (draft.keeps, &draft.definition) {
            found.extend(commands::unkeepable(tx, command_id, &definition.name, &self.limits)?);
        }
        Ok(())
    }

    /// The instances to run on; whatever does not suit is said.
    fn targets(
        &self,
        tx: Tx<'_>,
        draft: &Draft,
        found: &mut Vec<Violation>,
    ) -> Result<Vec<Arc<Target>>> {
        let wanted = &draft.targets;
        // What is too much to be looked up has been refused as that.
        if wanted.instance_ids.len() > self.limits.targets_max() {
            return Ok(Vec::new());
        }
        let targets = if wanted.tags.is_empty() || !wanted.instance_ids.is_empty() {
            named(tx, &wanted.instance_ids, found)?
        } else {
            self.tagged(tx, &wanted.tags, found)?
        };
        let mut group = wanted.resource_group_id.as_deref();
        if let Some(unknown) = group
            && !instances::is_group(tx, unknown)?
        {
            let message = format!("no instance belongs to a group `{unknown}`");
            let code = "InvalidResourceGroup.NotFound";
            found.push(Violation::new(code, 404, "ResourceGroupId", message));
            // That none of them belongs to it goes without saying.
            group = None;
        }
        for target in &targets {
            self.check(&target.instance, group, draft, found);
        }
        if self.limits.one_kind_of_instance {
            check_kinds(&targets, found);
        }
        if draft.new.survive_restarts {
            found.extend(self.cannot_survive(&targets));
        }
        Ok(targets)
    }

    /// Returns the first target on which no run can survive the engine.
    fn cannot_survive(&self, targets: &[Arc<Target>]) -> Option<Violation> {
        let can = |target: &&Arc<Target>| self.survivable.contains(&target.instance.executor);
        let Instance { instance_id, executor, .. } =
            &targets.iter().find(|target| !can(target))?.instance;
        let message = if self.is_in_memory {
            "the engine keeps its records in memory, where no later engine finds them; leave it out, \
             or open the engine on a file"
                .to_owned()
        } else {
            format!(
                "runs of executor `{executor}`, which serves `{instance_id}`, end with the host; leave it \
                 out, or name instances that a ProcessExecutor serves"
            )
        };
        Some(Violation::new("InvalidParam.SurviveRestarts", 400, "SurviveRestarts", message))
    }

    fn tagged(
        &self,
        tx: Tx<'_>,
        tags: &[Tag],
        found: &mut Vec<Violation>,
    ) -> Result<Vec<Arc<Target>>> {
        if tags.len() > self.limits.resource_tags_max {
            return Ok(Vec::new());
        }
        let max = self.limits.tagged_instances_max;
        let targets = instances::tagged(tx, tags, max)?;
        let targets: Vec<_> = targets.into_iter().map(Arc::new).collect();
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
        group: Option<&str>,
        draft: &Draft,
        found: &mut Vec<Violation>,
    ) {
        let id = &instance.instance_id;
        let mut unsuited = |field, message| {
            found.push(Violation::new("InvalidInstance.NotMatch", 400, field, message));
        };
        if instance.state != InstanceState::Running {
            unsuited(STATE, format!("`{id}` is {}; it must be Running", instance.state));
        }
        match instance.agent_status {
            AgentStatus::Online => {}
            AgentStatus::Offline => unsuited(AGENT, format!("the agent of `{id}` is offline")),
            AgentStatus::NotInstalled => unsuited(NO_AGENT, format!("`{id}` has no agent")),
        }
        if let Some(group) =
            group.filter(|group| instance.resource_group_id.as_deref() != Some(group))
        {
            unsuited("ResourceGroupId", format!("`{id}` does not belong to the group `{group}`"));
        }
        if let Some(command) = draft.command_type.filter(|of| !of.suits(instance.os_type)) {
            let os = instance.os_type;
            unsuited("Type", format!("{command} does not run on {os} (`{id}`)"));
        }
        let has_password = draft.new.windows_password_name.is_some();
        let user = draft.definition.as_ref().and_then(|of| of.settings.username.as_ref());
        if instance.os_type == OsType::Windows && !has_password && user.is_some() {
            let message = format!("`{id}` runs Windows, where a user needs a password");
            let (code, field) = ("WindowsPasswordName.Missed", "WindowsPasswordName");
            found.push(Violation::new(code, 400, field, message));
        }
        if !self.executor_names.contains(&instance.executor) {
            found.push(no_executor(instance, &self.executor_names));
        }
    }
}

/// The fields that violations of `InvalidInstance.NotMatch` name.
const STATE: &str = "Status";
const AGENT: &str = "AgentStatus";
const NO_AGENT: &str = "Agent";

fn named(tx: Tx<'_>, ids: &[InstanceId], found: &mut Vec<Violation>) -> Result<Vec<Arc<Target>>> {
    let mut targets = Vec::with_capacity(ids.len());
    for (id, target) in ids.iter().zip(instances::find_all(tx, ids)?) {
        match target {
            None => found.push(instances::not_found(id)),
            Some(target) => targets.push(target),
        }
    }
    Ok(targets)
}

/// The field of instances of several kinds.
const KIND: &str = "InstanceKind";

fn check_kinds(targets: &[Arc<Target>], found: &mut Vec<Violation>) {
    let mut kinds = targets.iter().map(|target| (&target.instance.kind, &target.instance));
    let Some((kind, first)) = kinds.next() else { return };
    if let Some((_, other)) = kinds.find(|(other, _)| *other != kind) {
        let message = format!(
            "`{}` and `{}` are of different kinds; want one kind in a request",
            first.instance_id, other.instance_id
        );
        found.push(Violation::new("InvalidInstance.NotMatch", 400, KIND, message));
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

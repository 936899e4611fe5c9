//! Table `instances`.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::{Row, params_from_iter, types::Value};
use serde::Serialize;

use crate::error::{Error, Result, Violation};
use crate::id::InstanceId;
use crate::instance::{AgentStatus, Instance};
use crate::schedule::Zone;
use crate::tag::Tag;

use super::claims::{self, Released};
use super::commands::{json_or_null, read_json};
use super::selections::AgentNarrow;
use super::tags::{self, Tagged};
use super::{Listing, Query, Slice, Tx, parse, targets, unreadable};

/// An instance and its row.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub row: i64,
    /// As a target it has no tags and no attributes: no check before an invocation asks for them.
    pub instance: Instance,
}

/// What an instance is as a target; for [`read_target`].
const TARGET: &str = "i.id, i.instance_id, i.name, i.os_type, i.state, i.executor, i.time_zone,
    i.resource_group_id, i.agent_status, i.agent_version, i.kind, i.shell, i.max_concurrency";

/// Registers an instance, or changes the instance of that name. Returns the executions that wait for room on it,
/// because it may run more now.
pub(crate) fn upsert(tx: Tx<'_>, instance: &Instance, now_ms: i64) -> Result<Option<Released>> {
    tx.memory.cache.forget(&instance.instance_id);
    let row: i64 = tx.one(
        "INSERT INTO instances (instance_id, name, os_type, state, executor, time_zone, resource_group_id,
             agent_status, agent_version, kind, attributes, shell, max_concurrency, registered_at_ms, updated_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?9, ?10, ?11, ?12, ?13, ?14, ?8, ?8)
         ON CONFLICT (instance_id) DO UPDATE SET
             name = excluded.name, os_type = excluded.os_type, state = excluded.state,
             executor = excluded.executor, time_zone = excluded.time_zone,
             resource_group_id = excluded.resource_group_id, updated_at_ms = excluded.updated_at_ms,
             agent_status = excluded.agent_status, agent_version = excluded.agent_version,
             kind = excluded.kind, attributes = excluded.attributes, shell = excluded.shell,
             max_concurrency = excluded.max_concurrency, removed_at_ms = NULL
         RETURNING id",
        (
            instance.instance_id.as_str(),
            &instance.name,
            instance.os_type.as_str(),
            instance.state.as_str(),
            &instance.executor,
            instance.time_zone.map(|zone| zone.to_string()),
            &instance.resource_group_id,
            now_ms,
            instance.agent_status.as_str(),
            &instance.agent_version,
            &instance.kind,
            json_or_null(&instance.attributes, BTreeMap::is_empty)?,
            &instance.shell,
            instance.max_concurrency,
        ),
        |row| row.get(0),
    )?;
    Tagged::Instance.clear(tx, row)?;
    Tagged::Instance.insert(tx, row, &instance.tags)?;
    Ok(claims::any_awaits(tx, row)?.then_some(Released::Instance(row)))
}

/// The news of the current boot of an instance that its targets have yet to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Targets are told of the boot, and fire.
    Told,
    /// Targets take the boot for one that they know of, and do not fire.
    Known,
}

impl News {
    /// Returns the stored form.
    pub(super) const fn stored(self) -> i64 {
        match self {
            Self::Told => 1,
            Self::Known => 2,
        }
    }
}

/// Records the news of the current boot of an instance that its targets have yet to hear, if any.
pub(super) fn set_booting(tx: Tx<'_>, instance: i64, news: Option<News>) -> Result<()> {
    tx.execute(
        "UPDATE instances SET is_booting = ?2 WHERE id = ?1 AND is_booting IS NOT ?2",
        (instance, news.map(News::stored)),
    )?;
    Ok(())
}

/// An instance whose boot has not been told to all invocations yet.
#[derive(Debug)]
pub(crate) struct Booting {
    pub id: InstanceId,
    pub boot_id: String,
}

/// Returns up to `max` instances whose boot is not dealt with.
pub(crate) fn booting(tx: Tx<'_>, max: usize) -> Result<Vec<i64>> {
    let mut query = tx.prepare(
        "SELECT id FROM instances INDEXED BY instances_booting
         WHERE is_booting IS NOT NULL AND id > 0 ORDER BY id LIMIT ?1",
    )?;
    let booting = query.query_map([max as i64], |row| row.get(0))?;
    Ok(booting.collect::<rusqlite::Result<_>>()?)
}

/// Returns an instance whose boot is not dealt with.
pub(crate) fn get_booting(tx: Tx<'_>, instance: i64) -> Result<Booting> {
    tx.one(
        "SELECT instance_id, coalesce(boot_id, '') FROM instances WHERE id = ?1",
        [instance],
        |row| Ok(Booting { id: row.get::<_, String>(0)?.into(), boot_id: row.get(1)? }),
    )
}

/// Records that no more targets are to be told of the current boot of an instance.
pub(crate) fn end_booting(tx: Tx<'_>, instance: i64) -> Result<()> {
    set_booting(tx, instance, None)
}

/// Registers an instance unless one of that name is, or was, registered.
pub(crate) fn insert_if_new(tx: Tx<'_>, instance: &Instance, now_ms: i64) -> Result<()> {
    let known: bool = tx.one(
        "SELECT EXISTS (SELECT 1 FROM instances WHERE instance_id = ?1)",
        [instance.instance_id.as_str()],
        |row| row.get(0),
    )?;
    if known { Ok(()) } else { upsert(tx, instance, now_ms).map(drop) }
}

/// Removes an instance; its records stay. Refused while an execution on it has not ended.
pub(crate) fn remove(tx: Tx<'_>, id: &InstanceId, now_ms: i64) -> Result<()> {
    let target = find(tx, id)?.ok_or_else(|| Error::invalid(not_found(id)))?;
    let busy: bool = tx.one(
        "SELECT EXISTS (SELECT 1 FROM fires f INDEXED BY fires_unfinished
                 CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
             WHERE f.unfinished > 0 AND e.instance = ?1 AND e.finished_at_ms IS NULL)
         OR EXISTS (SELECT 1 FROM targets t LEFT JOIN timers m ON m.id = t.timer
             WHERE t.instance = ?1 AND (t.awaits_boot = 1 OR m.next_fire_at_ms IS NOT NULL))",
        [target.row],
        |row| row.get(0),
    )?;
    if busy {
        return Err(Error::Conflict {
            code: "InvalidStatus.InstanceIdInUse",
            message: format!(
                "InstanceId: executions on `{id}` have not ended or will start; stop their invocations first"
            ),
        });
    }
    tx.memory.cache.forget(id);
    tx.execute(
        "UPDATE instances SET removed_at_ms = ?2, is_booting = NULL WHERE id = ?1",
        (target.row, now_ms),
    )?;
    Ok(())
}

/// The instance of that name.
pub(crate) fn find(tx: Tx<'_>, id: &InstanceId) -> Result<Option<Target>> {
    tx.find(
        &format!(
            "SELECT {TARGET} FROM instances i WHERE i.instance_id = ?1 AND i.removed_at_ms IS NULL"
        ),
        [id.as_str()],
        |row| Ok(read_target(row)),
    )?
    .transpose()
}

/// The instances of these names, in their order; none where there is none of a name.
pub(crate) fn find_all(tx: Tx<'_>, ids: &[InstanceId]) -> Result<Vec<Option<Arc<Target>>>> {
    let mut targets = tx.memory.cache.instances(ids);
    let unknown = targets.iter().zip(ids).filter(|(target, _)| target.is_none());
    let found = look_up(tx, unknown.map(|(_, id)| id).collect())?;
    for (target, id) in targets.iter_mut().zip(ids) {
        if target.is_none() {
            *target = found.get(id).cloned().inspect(|target| tx.memory.cache.add(target));
        }
    }
    Ok(targets)
}

fn look_up(tx: Tx<'_>, ids: Vec<&InstanceId>) -> Result<HashMap<InstanceId, Arc<Target>>> {
    let mut found = HashMap::with_capacity(ids.len());
    let mut add = |target: Target| {
        found.insert(target.instance.instance_id.clone(), Arc::new(target));
    };
    if ids.len() <= FEW {
        for id in ids {
            find(tx, id)?.into_iter().for_each(&mut add);
        }
        return Ok(found);
    }
    let mut query = tx.prepare(&format!(
        "SELECT {TARGET} FROM json_each(?1) wanted CROSS JOIN instances i ON i.instance_id = wanted.value
         WHERE i.removed_at_ms IS NULL"
    ))?;
    let mut rows = query.query([json(&ids)?])?;
    while let Some(row) = rows.next()? {
        add(read_target(row)?);
    }
    Ok(found)
}

/// The instance of a row.
pub(crate) fn of_row(tx: Tx<'_>, row: i64) -> Result<Arc<Target>> {
    if let Some(target) = tx.memory.cache.instance(row) {
        return Ok(target);
    }
    let found = tx.one(
        &format!("SELECT {TARGET}, i.removed_at_ms IS NULL FROM instances i WHERE i.id = ?1"),
        [row],
        |row| Ok((read_target(row), row.get(13)?)),
    )?;
    let (target, is_registered) = (Arc::new(found.0?), found.1);
    if is_registered {
        tx.memory.cache.add(&target);
    }
    Ok(target)
}

/// So many are found faster one by one than by a JSON document.
const FEW: usize = 4;

/// Records the boot that an instance is in.
pub(super) fn set_boot(tx: Tx<'_>, instance: i64, boot_id: &str) -> Result<()> {
    tx.execute("UPDATE instances SET boot_id = ?2 WHERE id = ?1", (instance, boot_id))?;
    Ok(())
}

/// The recorded boot of an instance.
#[derive(Debug)]
pub(super) struct KnownBoot {
    pub instance: i64,
    pub boot_id: Option<String>,
    /// The news of the boot that targets have yet to hear.
    pub news: Option<News>,
}

pub(super) fn known_boot(tx: Tx<'_>, id: &InstanceId) -> Result<KnownBoot> {
    tx.find(
        "SELECT id, boot_id, is_booting IS NOT NULL, is_booting IS 2 FROM instances
         WHERE instance_id = ?1 AND removed_at_ms IS NULL",
        [id.as_str()],
        |row| {
            // A boot that cannot be read differs from every later boot.
            let boot_id = row.get(1).unwrap_or_default();
            let news = match (row.get(2)?, row.get(3)?) {
                (false, _) => None,
                (true, false) => Some(News::Told),
                (true, true) => Some(News::Known),
            };
            Ok(KnownBoot { instance: row.get(0)?, boot_id, news })
        },
    )?
    .ok_or_else(|| Error::invalid(not_found(id)))
}

/// Returns up to `max` instances of an executor, after `after`, for which a boot is news or is not dealt with yet;
/// each with its name, if the name can be read.
pub(crate) fn booted_since(
    tx: Tx<'_>,
    executor: &str,
    boot_id: &str,
    after: i64,
    max: usize,
) -> Result<Vec<(i64, Option<InstanceId>)>> {
    let mut query = tx.prepare(&format!(
        "SELECT i.id, i.instance_id FROM instances i
         WHERE i.executor = ?1 AND i.removed_at_ms IS NULL AND i.id > ?3
             AND (i.boot_id IS NOT ?2 OR i.is_booting IS NOT NULL OR {})
         ORDER BY i.id LIMIT ?4",
        targets::ANY_BOOTED
    ))?;
    // An instance without a readable name is left out.
    let found = query.query_map((executor, boot_id, after, max as i64), |row| {
        Ok((row.get(0)?, row.get::<_, String>(1).ok().map(Into::into)))
    })?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

/// The instances that have all of these tags, in the order of their registration, and one more
/// than `max` if there are more.
pub(crate) fn tagged(tx: Tx<'_>, tags: &[Tag], max: usize) -> Result<Vec<Target>> {
    let limit = i64::try_from(max).unwrap_or(i64::MAX).saturating_add(1);
    let Some(rarest) = rarest(tx, tags, limit)? else { return Ok(Vec::new()) };
    let mut values: Vec<Value> = vec![rarest.key.clone().into(), rarest.value.clone().into()];
    let others: Vec<_> = tags.iter().filter(|tag| *tag != rarest).cloned().collect();
    let mut conditions = Tagged::Instance.conditions("f.instance", &others, &mut values);
    conditions.push("i.removed_at_ms IS NULL".to_owned());
    values.push(limit.into());
    let mut query = tx.prepare(&format!(
        "SELECT {TARGET} FROM instances i JOIN instance_tags f INDEXED BY instance_tags_by_value ON f.instance = i.id
         WHERE f.key = ? AND f.value = ? AND {} ORDER BY f.instance LIMIT ?",
        conditions.join(" AND ")
    ))?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read_target(row)?);
    }
    Ok(found)
}

/// The tag that the fewest instances have, as far as counting up to `limit` tells: each instance
/// that has it is looked at.
fn rarest<'a>(tx: Tx<'_>, tags: &'a [Tag], limit: i64) -> Result<Option<&'a Tag>> {
    if let [_] | [] = tags {
        return Ok(tags.first());
    }
    let mut count = tx.prepare(
        "SELECT count(*) FROM (SELECT 1 FROM instance_tags INDEXED BY instance_tags_by_value
         WHERE key = ?1 AND value = ?2 LIMIT ?3)",
    )?;
    let mut rarest: Option<(i64, &Tag)> = None;
    for tag in tags {
        let have: i64 = count.query_row((&tag.key, &tag.value, limit), |row| row.get(0))?;
        if rarest.is_none_or(|(fewest, _)| have < fewest) {
            rarest = Some((have, tag));
        }
    }
    Ok(rarest.map(|(_, tag)| tag))
}

/// Whether any instance belongs to a group.
pub(crate) fn is_group(tx: Tx<'_>, resource_group_id: &str) -> Result<bool> {
    tx.one(
        "SELECT EXISTS (SELECT 1 FROM instances WHERE resource_group_id = ?1 AND removed_at_ms IS NULL)",
        [resource_group_id],
        |row| row.get(0),
    )
}

/// Which instances a listing has.
#[derive(Debug, Default)]
pub(crate) struct Filter<'a> {
    /// Only these, all of which have to be there.
    pub ids: &'a [InstanceId],
    pub tags: &'a [Tag],
    pub narrows: &'a [AgentNarrow],
}

/// A slice of the instances, in the order of their registration.
pub(crate) fn list(tx: Tx<'_>, filter: &Filter<'_>, slice: Slice) -> Result<Listing<Target>> {
    for id in filter.ids {
        find(tx, id)?.ok_or_else(|| Error::invalid(not_found(id)))?;
    }
    let columns = format!("{TARGET}, i.attributes, {}", Tagged::Instance.column("i.id"));
    let mut query = Query { ascending: true, ..Query::new(columns, "instances i", "i.id") };
    query.name = |row| row.get(1).ok();
    query.conditions = Tagged::Instance.conditions("i.id", filter.tags, &mut query.values);
    query.conditions.push("i.removed_at_ms IS NULL".to_owned());
    let ids = (!filter.ids.is_empty()).then(|| json(filter.ids)).transpose()?;
    query.filter("i.instance_id IN (SELECT value FROM json_each(?))", ids);
    filter.narrows.iter().for_each(|narrow| narrow.apply(&mut query));
    query.slice(tx, slice, read)
}

fn json(list: &(impl Serialize + ?Sized)) -> Result<String> {
    serde_json::to_string(list).map_err(unreadable)
}

/// What has been going on at an instance.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Activity {
    pub seen_at_ms: Option<i64>,
    pub started_at_ms: Option<i64>,
    pub active: u64,
    pub total: u64,
}

/// Returns the activity on these instances, in their order. No other instance is looked at. The targets of an
/// invocation that repeats are read, and its executions that have not ended, but not its history.
pub(crate) fn activity(tx: Tx<'_>, targets: &[Target]) -> Result<Vec<Activity>> {
    // Of a target: when the last of its executions has started. After the one that says how the invocation stands,
    // none has.
    let mut repeating = tx.prepare(
        "SELECT max((SELECT l.started_at_ms FROM fires lf INDEXED BY fires_by_invocation
                         CROSS JOIN executions l INDEXED BY executions_by_fire
                     WHERE lf.invocation = t.invocation AND lf.id <= s.fire
                         AND l.fire = lf.id AND l.instance = t.instance AND l.started_at_ms IS NOT NULL
                     ORDER BY lf.id DESC, l.attempt DESC LIMIT 1)),
             total(t.executions_made)
         FROM targets t INDEXED BY targets_by_instance
             LEFT JOIN executions s ON s.id = t.standing_execution
         WHERE t.instance = ?1",
    )?;
    let rows: Vec<i64> = targets.iter().map(|target| target.row).collect();
    let once: HashMap<i64, (Option<i64>, u64)> = tx
        .prepare(
            "SELECT e.instance, max(e.started_at_ms), count(*)
             FROM invocations v CROSS JOIN fires f INDEXED BY fires_by_invocation ON f.invocation = v.id
                 CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
             WHERE v.repeat_mode = 'Once' AND +e.instance IN (SELECT value FROM json_each(?1))
             GROUP BY e.instance",
        )?
        .query_map([json(&rows)?], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
        .collect::<rusqlite::Result<_>>()?;
    let active: HashMap<i64, u64> = tx
        .prepare(
            "SELECT e.instance, count(*) FROM fires f INDEXED BY fires_unfinished
                 CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
             WHERE f.unfinished > 0 AND e.finished_at_ms IS NULL
                 AND +e.instance IN (SELECT value FROM json_each(?1))
             GROUP BY e.instance",
        )?
        .query_map([json(&rows)?], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut seen = tx.prepare("SELECT seen_at_ms FROM instances WHERE id = ?1")?;
    let mut activity = Vec::with_capacity(targets.len());
    for target in targets {
        let read =
            |row: &Row<'_>| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, f64>(1)? as u64));
        let (repeated_at_ms, repeated) = repeating.query_row([target.row], read)?;
        let (ran_at_ms, ran) = once.get(&target.row).copied().unwrap_or_default();
        activity.push(Activity {
            seen_at_ms: seen.query_row([target.row], |row| row.get(0))?,
            started_at_ms: repeated_at_ms.max(ran_at_ms),
            active: active.get(&target.row).copied().unwrap_or_default(),
            total: repeated.saturating_add(ran),
        });
    }
    Ok(activity)
}

/// Takes note that the host has seen an instance, and whether its agent is up.
pub(crate) fn set_seen(tx: Tx<'_>, id: &InstanceId, agent: AgentStatus, now_ms: i64) -> Result<()> {
    tx.memory.cache.forget(id);
    let changed = tx.execute(
        "UPDATE instances SET seen_at_ms = ?2, agent_status = ?3
         WHERE instance_id = ?1 AND removed_at_ms IS NULL",
        (id.as_str(), now_ms, agent.as_str()),
    )?;
    if changed == 0 { Err(Error::invalid(not_found(id))) } else { Ok(()) }
}

/// What an unknown instance is.
pub(crate) fn not_found(id: &InstanceId) -> Violation {
    Violation::new(
        "InvalidInstance.NotFound",
        404,
        "InstanceId",
        format!("no instance `{id}` is registered"),
    )
}

/// An instance with all that is known of it.
fn read(row: &Row<'_>) -> Result<Target> {
    let mut target = read_target(row)?;
    target.instance.attributes = read_json(row, 13)?;
    target.instance.tags = tags::read(row, 14)?;
    Ok(target)
}

fn read_target(row: &Row<'_>) -> Result<Target> {
    let instance_id: String = row.get(1)?;
    let zone: Option<String> = row.get(6)?;
    let mut instance = Instance::new(instance_id)
        .name(row.get::<_, String>(2)?)
        .os_type(read_named(row, 3)?)
        .state(read_named(row, 4)?)
        .executor(row.get::<_, String>(5)?)
        .agent_status(read_named(row, 8)?)
        .agent_version(row.get::<_, String>(9)?);
    instance.resource_group_id = row.get(7)?;
    instance.kind = row.get(10)?;
    instance.shell = row.get(11)?;
    instance.max_concurrency = row.get(12)?;
    instance.time_zone = zone.map(|zone| read_zone(&zone)).transpose()?;
    let target = Target { row: row.get(0)?, instance };
    check_numbers(&target)?;
    Ok(target)
}

/// Reads the zone of an instance. An instance whose zone has no file here is sound all the same, because only schedules
/// need the rules of the zone.
fn read_zone(name: &str) -> Result<Zone> {
    Zone::of_record(name).map_or_else(|| parse(name), Ok)
}

/// Refuses numbers with which no execution on the instance would ever start: a claim goes through the instances by
/// number, from 1 on, and starts as many executions as the bound says.
fn check_numbers(target: &Target) -> Result<()> {
    let instance = &target.instance.instance_id;
    if target.row < 1 {
        return Err(unreadable(format!("instance `{instance}` has the number {}", target.row)));
    }
    match target.instance.max_concurrency {
        Some(0) => Err(unreadable(format!("the bound of instance `{instance}` is 0"))),
        _ => Ok(()),
    }
}

fn read_named<T: FromStr<Err = String>>(row: &Row<'_>, column: usize) -> Result<T> {
    parse(row.get_ref(column)?.as_str().map_err(unreadable)?)
}

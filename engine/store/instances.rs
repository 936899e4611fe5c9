//! Table `instances`.

use rusqlite::{OptionalExtension, Row, params_from_iter, types::Value};

use crate::error::{Error, Result, Violation};
use crate::id::InstanceId;
use crate::instance::{Instance, InstanceState, OsType};
use crate::tag::Tag;

use super::tags::{self, Tagged};
use super::{PageToken, Tx, cut_page, parse, unreadable};

/// An instance as a target: what the checks before an invocation need.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub row: i64,
    pub instance: Instance,
}

/// What a registered instance is.
fn columns() -> String {
    let tags = Tagged::Instance.column("i.id");
    format!(
        "i.id, i.instance_id, i.name, i.os_type, i.state, i.executor, i.time_zone, i.resource_group_id, {tags}
         FROM instances i"
    )
}

/// Registers an instance, or changes the one of that name.
pub(crate) fn upsert(tx: Tx<'_>, instance: &Instance, now_ms: i64) -> Result<()> {
    let row: i64 = tx.prepare_cached(
        "INSERT INTO instances (instance_id, name, os_type, state, executor, time_zone, resource_group_id,
             registered_at_ms, updated_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?8)
         ON CONFLICT (instance_id) DO UPDATE SET
             name = excluded.name, os_type = excluded.os_type, state = excluded.state,
             executor = excluded.executor, time_zone = excluded.time_zone,
             resource_group_id = excluded.resource_group_id, updated_at_ms = excluded.updated_at_ms,
             removed_at_ms = NULL
         RETURNING id",
    )?
    .query_row((
        instance.instance_id.as_str(),
        &instance.name,
        instance.os_type.as_str(),
        instance.state.as_str(),
        &instance.executor,
        instance.time_zone.map(|zone| zone.to_string()),
        &instance.resource_group_id,
        now_ms,
    ), |row| row.get(0))?;
    Tagged::Instance.clear(tx, row)?;
    Tagged::Instance.insert(tx, row, &instance.tags)
}

/// Registers an instance unless one of that name is, or was, registered.
pub(crate) fn insert_if_new(tx: Tx<'_>, instance: &Instance, now_ms: i64) -> Result<()> {
    let known: bool = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM instances WHERE instance_id = ?1)")?
        .query_row([instance.instance_id.as_str()], |row| row.get(0))?;
    if known { Ok(()) } else { upsert(tx, instance, now_ms) }
}

/// Removes an instance; its records stay. Refused while an execution on it has not ended.
pub(crate) fn remove(tx: Tx<'_>, id: &InstanceId, now_ms: i64) -> Result<()> {
    let target = find(tx, id)?.ok_or_else(|| Error::invalid(not_found(id)))?;
    let busy: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM fires f INDEXED BY fires_unfinished
                     CROSS JOIN executions e INDEXED BY executions_by_fire ON e.fire = f.id
                 WHERE f.unfinished > 0 AND e.instance = ?1 AND e.finished_at_ms IS NULL)
             OR EXISTS (SELECT 1 FROM targets t LEFT JOIN timers m ON m.id = t.timer
                 WHERE t.instance = ?1 AND (t.awaits_boot = 1 OR m.next_fire_at_ms IS NOT NULL))",
        )?
        .query_row([target.row], |row| row.get(0))?;
    if busy {
        return Err(Error::Conflict {
            code: "InvalidStatus.InstanceIdInUse",
            message: format!(
                "InstanceId: executions on `{id}` have not ended or will start; stop their invocations first"
            ),
        });
    }
    tx.prepare_cached("UPDATE instances SET removed_at_ms = ?2 WHERE id = ?1")?
        .execute((target.row, now_ms))?;
    Ok(())
}

/// The instance of that name.
pub(crate) fn find(tx: Tx<'_>, id: &InstanceId) -> Result<Option<Target>> {
    tx.prepare_cached(&format!(
        "SELECT {} WHERE i.instance_id = ?1 AND i.removed_at_ms IS NULL",
        columns()
    ))?
    .query_row([id.as_str()], |row| Ok(read(row)))
    .optional()?
    .transpose()
}

/// Takes note of the boot that an instance is in; its row.
pub(super) fn set_boot(tx: Tx<'_>, id: &InstanceId, boot_id: &str) -> Result<i64> {
    tx.prepare_cached(
        "UPDATE instances SET boot_id = ?2 WHERE instance_id = ?1 AND removed_at_ms IS NULL RETURNING id",
    )?
    .query_row((id.as_str(), boot_id), |row| row.get(0))
    .optional()?
    .ok_or_else(|| Error::invalid(not_found(id)))
}

/// The instances that an executor serves.
pub(crate) fn served_by(tx: Tx<'_>, executor: &str) -> Result<Vec<InstanceId>> {
    let mut query = tx.prepare_cached(
        "SELECT instance_id FROM instances WHERE executor = ?1 AND removed_at_ms IS NULL ORDER BY id",
    )?;
    let ids = query.query_map([executor], |row| Ok(row.get::<_, String>(0)?.into()))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// The instances that have all of these tags, in the order of their registration, and one more
/// than `max` if there are more.
pub(crate) fn tagged(tx: Tx<'_>, tags: &[Tag], max: usize) -> Result<Vec<Target>> {
    let Some((first, rest)) = tags.split_first() else { return Ok(Vec::new()) };
    let mut values: Vec<Value> = vec![first.key.clone().into(), first.value.clone().into()];
    let mut conditions = Tagged::Instance.conditions("f.instance", rest, &mut values);
    conditions.push("i.removed_at_ms IS NULL".to_owned());
    values.push(i64::try_from(max).unwrap_or(i64::MAX).saturating_add(1).into());
    let mut query = tx.prepare_cached(&format!(
        "SELECT {} JOIN instance_tags f INDEXED BY instance_tags_by_value ON f.instance = i.id
         WHERE f.key = ? AND f.value = ? AND {} ORDER BY i.id LIMIT ?",
        columns(),
        conditions.join(" AND ")
    ))?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// Whether any instance belongs to a group.
pub(crate) fn is_group(tx: Tx<'_>, resource_group_id: &str) -> Result<bool> {
    let is_group = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM instances WHERE resource_group_id = ?1 AND removed_at_ms IS NULL)",
        )?
        .query_row([resource_group_id], |row| row.get(0))?;
    Ok(is_group)
}

/// A page of instances, in the order of their registration.
pub(crate) fn list(
    tx: Tx<'_>,
    after: Option<PageToken>,
    page_size: usize,
) -> Result<(Vec<Instance>, Option<PageToken>)> {
    let mut query = tx.prepare_cached(&format!(
        "SELECT {} WHERE i.removed_at_ms IS NULL AND i.id > ?1 ORDER BY i.id LIMIT ?2",
        columns()
    ))?;
    let mut rows = query.query((after.map_or(0, |token| token.0), page_size as i64 + 1))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let target = read(row)?;
        entries.push((target.row, target.instance));
    }
    let next = cut_page(&mut entries, page_size);
    Ok((entries.into_iter().map(|(_, instance)| instance).collect(), next))
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

fn read(row: &Row<'_>) -> Result<Target> {
    let instance_id: String = row.get(1)?;
    let os_type = match row.get_ref(3)?.as_str().map_err(unreadable)? {
        "Linux" => OsType::Linux,
        "Windows" => OsType::Windows,
        other => return Err(unreadable(other)),
    };
    let state = match row.get_ref(4)?.as_str().map_err(unreadable)? {
        "Running" => InstanceState::Running,
        "Stopped" => InstanceState::Stopped,
        other => return Err(unreadable(other)),
    };
    let zone: Option<String> = row.get(6)?;
    let mut instance = Instance::new(instance_id)
        .name(row.get::<_, String>(2)?)
        .os_type(os_type)
        .state(state)
        .executor(row.get::<_, String>(5)?);
    instance.resource_group_id = row.get(7)?;
    instance.tags = tags::read(row, 8)?;
    instance.time_zone = zone.map(|zone| parse(&zone)).transpose()?;
    Ok(Target { row: row.get(0)?, instance })
}

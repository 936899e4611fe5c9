//! Listings that are narrowed by several columns at once, each to several values: one of the values
//! of each has to fit.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::params;

use crate::command::{Command, CommandType};
use crate::error::Result;
use crate::execution::InvocationResult;
use crate::id::{CommandId, ExecutionId, InstanceId, InvokeId};
use crate::instance::{AgentStatus, Instance, OsType};
use crate::invocation::{DescribeInvocations, Invocation};
use crate::status::ExecutionStatus;
use crate::wire::ContentEncoding;

use super::commands::read_time;
use super::invocations::read_status;
use super::records::{self, FIRE_WITHOUT_TARGETS, Known, STANDS_ONCE};
use super::{Listing, Query, Slice, Tx, commands, instances, invocations};

/// What commands are narrowed to.
#[derive(Debug)]
pub(crate) enum CommandNarrow {
    Id(Vec<CommandId>),
    Name(Vec<String>),
    Type(Vec<CommandType>),
    TagKey(Vec<String>),
    TagValue(Vec<String>),
    /// The tag of this key has one of these values.
    Tag(String, Vec<String>),
}

impl CommandNarrow {
    fn apply(&self, query: &mut Query) {
        const TAGGED: &str = "c.id IN (SELECT o.command FROM command_tags o WHERE";
        match self {
            Self::Id(ids) => query.one_of("c.command_id", blobs(ids, CommandId::as_bytes)),
            Self::Name(names) => query.one_of("c.name", names.clone()),
            Self::Type(types) => query.one_of("c.type", types.iter().map(named)),
            Self::TagKey(keys) => query.one_of_within(&format!("{TAGGED} o.key"), keys.clone()),
            Self::TagValue(values) => {
                query.one_of_within(&format!("{TAGGED} o.value"), values.clone());
            }
            Self::Tag(key, values) => {
                query.values.push(key.clone().into());
                query.one_of_within(&format!("{TAGGED} o.key = ? AND o.value"), values.clone());
            }
        }
    }
}

/// What invocations are narrowed to.
#[derive(Debug)]
pub(crate) enum InvocationNarrow {
    Id(Vec<InvokeId>),
    Command(Vec<CommandId>),
    /// One of its instances is of one of these kinds.
    InstanceKind(Vec<String>),
}

impl InvocationNarrow {
    fn apply(&self, query: &mut Query) {
        match self {
            Self::Id(ids) => query.one_of("v.invoke_id", blobs(ids, InvokeId::as_bytes)),
            Self::Command(ids) => query.of_commands(ids),
            Self::InstanceKind(kinds) => query.one_of_within(
                "EXISTS (SELECT 1 FROM instances i
                 WHERE (i.id IN (SELECT t.instance FROM targets t WHERE t.invocation = v.id)
                     OR i.id IN (SELECT e.instance FROM executions e INDEXED BY executions_by_fire
                                 WHERE e.fire = (SELECT min(f.id) FROM fires f WHERE f.invocation = v.id)))
                     AND i.kind",
                kinds.clone(),
            ),
        }
    }
}

/// What executions are narrowed to.
#[derive(Debug)]
pub(crate) enum ExecutionNarrow {
    Id(Vec<ExecutionId>),
    Invocation(Vec<InvokeId>),
    Instance(Vec<InstanceId>),
    Command(Vec<CommandId>),
}

impl ExecutionNarrow {
    fn apply(&self, query: &mut Query) {
        match self {
            Self::Id(ids) => query.one_of("e.id", ids.iter().map(|id| id.0)),
            Self::Invocation(ids) => query.one_of("v.invoke_id", blobs(ids, InvokeId::as_bytes)),
            Self::Instance(ids) => query.one_of("i.instance_id", texts(ids)),
            Self::Command(ids) => query.of_commands(ids),
        }
    }
}

/// What agents are narrowed to.
#[derive(Debug)]
pub(crate) enum AgentNarrow {
    Instance(Vec<InstanceId>),
    OsType(Vec<OsType>),
    Status(Vec<AgentStatus>),
}

impl AgentNarrow {
    pub(super) fn apply(&self, query: &mut Query) {
        match self {
            Self::Instance(ids) => query.one_of("i.instance_id", texts(ids)),
            Self::OsType(types) => query.one_of("i.os_type", types.iter().map(named)),
            Self::Status(statuses) => query.one_of("i.agent_status", statuses.iter().map(named)),
        }
    }
}

fn blobs<'a, T>(ids: &'a [T], bytes: fn(&T) -> &[u8; 16]) -> impl Iterator<Item = Vec<u8>> + 'a {
    ids.iter().map(move |id| bytes(id).to_vec())
}

fn texts(ids: &[InstanceId]) -> impl Iterator<Item = String> {
    ids.iter().map(|id| id.as_str().to_owned())
}

fn named(value: &impl ToString) -> String {
    value.to_string()
}

impl Query {
    /// Narrows it to what runs one of these commands: a kept one by its id, another by the digits
    /// it shares with its invocation. Two conditions, for there is an index for each.
    fn of_commands(&mut self, ids: &[CommandId]) {
        let blobs: Vec<Vec<u8>> = blobs(ids, CommandId::as_bytes).collect();
        let places = vec!["?"; blobs.len()].join(", ");
        self.conditions.push(format!(
            "(v.command_id IN ({places}) OR (v.invoke_id IN ({places}) AND v.command_id IS NULL))"
        ));
        for _ in 0..2 {
            self.values.extend(blobs.iter().cloned().map(Into::into));
        }
    }

    /// Narrows it by a condition that opens one bracket before its last column, which has to have
    /// one of these values.
    fn one_of_within(&mut self, condition: &str, values: Vec<String>) {
        self.one_of(condition, values);
        if let Some(last) = self.conditions.last_mut() {
            last.push(')');
        }
    }
}

/// A slice of the commands, newest first.
pub(crate) fn of_commands(
    tx: Tx<'_>,
    narrows: &[CommandNarrow],
    slice: Slice,
) -> Result<Listing<Command>> {
    let mut query = commands::all();
    narrows.iter().for_each(|narrow| narrow.apply(&mut query));
    query.slice(tx, slice, |row| commands::read(tx, row, ContentEncoding::Base64))
}

/// An invocation with the executions it has led to.
#[derive(Debug)]
pub(crate) struct InvocationEntry {
    pub invocation: Invocation,
    /// The kind of its first instance, if the host has said it.
    pub instance_kind: Option<String>,
    /// The execution on each instance that says how it stands there, in the order they were made.
    pub tasks: Vec<TaskEntry>,
}

/// Where an execution stands.
#[derive(Debug)]
pub(crate) struct TaskEntry {
    pub id: ExecutionId,
    pub instance_id: InstanceId,
    pub status: ExecutionStatus,
    pub error_code: String,
    pub start_time: Option<DateTime<Utc>>,
}

/// A slice of the invocations, newest first.
pub(crate) fn of_invocations(
    tx: Tx<'_>,
    narrows: &[InvocationNarrow],
    slice: Slice,
) -> Result<Listing<InvocationEntry>> {
    let mut query = invocations::all();
    narrows.iter().for_each(|narrow| narrow.apply(&mut query));
    let form = without_instances();
    query.slice(tx, slice, |row| {
        let id = row.get(0)?;
        Ok(InvocationEntry {
            invocation: invocations::read(tx, row, &form, ContentEncoding::Base64)?,
            instance_kind: instance_kind(tx, id)?,
            tasks: tasks(tx, id)?,
        })
    })
}

/// Leaves out what [`tasks`] says better.
fn without_instances() -> DescribeInvocations {
    DescribeInvocations { omit_instances: true, ..DescribeInvocations::default() }
}

fn tasks(tx: Tx<'_>, invocation: i64) -> Result<Vec<TaskEntry>> {
    let mut query = tx.prepare(&format!(
        "SELECT e.id, i.instance_id, e.status, e.error_code, e.started_at_ms
         FROM (SELECT t.standing_execution AS id FROM targets t WHERE t.invocation = ?1
               UNION ALL
               SELECT e.id FROM executions e INDEXED BY executions_by_fire
               WHERE e.fire = {FIRE_WITHOUT_TARGETS} AND {STANDS_ONCE}) s
             CROSS JOIN executions e ON e.id = s.id JOIN instances i ON i.id = e.instance
         ORDER BY e.id"
    ))?;
    let mut rows = query.query([invocation])?;
    let mut tasks = Vec::new();
    while let Some(row) = rows.next()? {
        tasks.push(TaskEntry {
            id: ExecutionId(row.get(0)?),
            instance_id: row.get::<_, String>(1)?.into(),
            status: read_status(row, 2)?,
            error_code: row.get::<_, Option<String>>(3)?.unwrap_or_default(),
            start_time: row.get::<_, Option<i64>>(4)?.map(read_time).transpose()?,
        });
    }
    Ok(tasks)
}

fn instance_kind(tx: Tx<'_>, invocation: i64) -> Result<Option<String>> {
    let kind = tx.find(
        "SELECT i.kind FROM instances i WHERE i.id = coalesce(
         (SELECT t.instance FROM targets t WHERE t.invocation = ?1 ORDER BY t.id LIMIT 1),
         (SELECT e.instance FROM executions e WHERE e.fire =
             (SELECT min(f.id) FROM fires f WHERE f.invocation = ?1) ORDER BY e.id LIMIT 1))",
        params![invocation],
        |row| row.get(0),
    )?;
    Ok(kind.flatten())
}

/// An instance and when the host has last seen it.
#[derive(Debug)]
pub(crate) struct AgentEntry {
    pub instance: Instance,
    pub seen_at_ms: Option<i64>,
}

/// A slice of the instances, in the order of their registration: of these, all of which have to be
/// there, or of all.
pub(crate) fn of_agents(
    tx: Tx<'_>,
    ids: &[InstanceId],
    narrows: &[AgentNarrow],
    slice: Slice,
) -> Result<Listing<AgentEntry>> {
    let filter = instances::Filter { ids, narrows, ..Default::default() };
    let Listing { entries, unreadable, next, total } = instances::list(tx, &filter, slice)?;
    let mut seen = tx.prepare("SELECT seen_at_ms FROM instances WHERE id = ?1")?;
    let mut agents = Vec::with_capacity(entries.len());
    for target in entries {
        let seen_at_ms = seen.query_row([target.row], |row| row.get(0))?;
        agents.push(AgentEntry { instance: target.instance, seen_at_ms });
    }
    Ok(Listing { entries: agents, unreadable, next, total })
}

/// An execution with what its invocation took from the command.
#[derive(Debug)]
pub(crate) struct ExecutionEntry {
    pub result: InvocationResult,
    pub invocation: Arc<Invocation>,
}

/// The number of invocations up to which a listing reads each of them by an index of its own.
const APART_MAX: usize = 32;

/// A slice of the executions, newest first, with their outputs if they are wanted.
pub(crate) fn of_executions(
    tx: Tx<'_>,
    narrows: &[ExecutionNarrow],
    slice: Slice,
    with_output: bool,
) -> Result<Listing<ExecutionEntry>> {
    let is_read_apart = |narrow: &ExecutionNarrow| match narrow {
        ExecutionNarrow::Invocation(ids) => ids.len() <= APART_MAX,
        _ => false,
    };
    let apart = narrows.iter().position(is_read_apart);
    let (mut query, total) = match apart.map(|at| &narrows[at]) {
        Some(ExecutionNarrow::Invocation(ids)) => records::of_invocations(tx, ids)?,
        _ if narrows.is_empty() => (records::all(), records::count_all(tx)?),
        _ => (records::all(), 0),
    };
    for (at, narrow) in narrows.iter().enumerate() {
        if Some(at) != apart {
            narrow.apply(&mut query);
        }
    }
    // The total is right only if no other filter narrows the executions.
    let total = Some(total).filter(|_| narrows.len() == usize::from(apart.is_some()));
    let total = total.filter(|_| slice.counts);
    let slice = Slice { counts: slice.counts && total.is_none(), ..slice };
    let output = with_output.then_some(ContentEncoding::Base64);
    let mut known = Known::default();
    // Those of one request share what they were made from.
    let mut invocations = HashMap::new();
    let listing = query.slice(tx, slice, |row| {
        let result = records::read(tx, row, &mut known, output)?;
        let invocation = match invocations.get(&result.invoke_id) {
            Some(known) => Arc::clone(known),
            None => {
                let read = Arc::new(invocation(tx, result.invoke_id)?);
                invocations.insert(result.invoke_id, Arc::clone(&read));
                read
            }
        };
        Ok(ExecutionEntry { result, invocation })
    })?;
    Ok(Listing { total: total.or(listing.total), ..listing })
}

fn invocation(tx: Tx<'_>, invoke_id: InvokeId) -> Result<Invocation> {
    let form = DescribeInvocations { invoke_id: Some(invoke_id), ..without_instances() };
    let one = Slice { after: None, skipped: 0, size: 1, counts: false };
    let mut found = invocations::list(tx, &form, one, ContentEncoding::Base64)?.entries;
    found.pop().ok_or_else(|| super::unreadable(format_args!("invocation {invoke_id} is gone")))
}

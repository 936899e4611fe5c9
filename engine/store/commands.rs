//! Table `commands`: what is kept for later invocations.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, Row, params_from_iter, types::Value};

use crate::command::content::Content;
use crate::command::template::Template;
use crate::command::{Command, CommandType, DescribeCommands, ModifyCommand};
use crate::error::{Error, Result, Violation};
use crate::id::CommandId;
use crate::tag::Tag;
use crate::wire::{ContentEncoding, Encoded};

use super::tags::{self, Tagged};
use super::{PageToken, Tx, contents, cut_page, parse, unreadable};

/// What a command is, apart from its id: what an invocation takes over from it.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub name: String,
    pub description: String,
    pub command_type: CommandType,
    pub content: Content,
    pub enable_parameter: bool,
    pub working_dir: Option<String>,
    pub timeout_s: u64,
}

impl Definition {
    /// The parameters of the script, as it writes them.
    fn parameter_names(&self) -> Vec<String> {
        if !self.enable_parameter {
            return Vec::new();
        }
        Template::parse(&self.content).names().iter().map(|name| (*name).to_owned()).collect()
    }
}

/// Keeps a command, unless that would be more than `kept_max`.
pub(crate) fn insert(
    tx: Tx<'_>,
    command_id: CommandId,
    definition: &Definition,
    tags: &[Tag],
    kept_max: u64,
    now_ms: i64,
) -> Result<()> {
    let kept = count(tx)?;
    if kept >= kept_max {
        return Err(Error::invalid(Violation::new(
            "CmdCount.ExceedQuota",
            403,
            "KeepCommand",
            format!(
                "{kept} commands are kept, the quota is {kept_max}; delete some or do not keep this one"
            ),
        )));
    }
    let content = contents::intern(tx, &definition.content)?;
    tx.prepare_cached(
        "INSERT INTO commands (command_id, name, description, type, content, working_dir, timeout_s,
             enable_parameter, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute((
        command_id.as_bytes(),
        &definition.name,
        &definition.description,
        definition.command_type.as_str(),
        content,
        &definition.working_dir,
        definition.timeout_s,
        definition.enable_parameter,
        now_ms,
    ))?;
    Tagged::Command.insert(tx, tx.last_insert_rowid(), tags)
}

/// How many commands are kept.
pub(crate) fn count(tx: Tx<'_>) -> Result<u64> {
    Ok(tx.prepare_cached("SELECT count(*) FROM commands")?.query_row((), |row| row.get(0))?)
}

/// The definition of a kept command.
pub(crate) fn get(tx: Tx<'_>, command_id: CommandId) -> Result<Definition> {
    let row = tx
        .prepare_cached(
            "SELECT name, description, type, content, working_dir, timeout_s, enable_parameter
             FROM commands WHERE command_id = ?1",
        )?
        .query_row([command_id.as_bytes()], |row| Ok(read_definition(tx, row)))
        .optional()?;
    row.ok_or_else(|| not_found(command_id))?
}

fn read_definition(tx: Tx<'_>, row: &Row<'_>) -> Result<Definition> {
    Ok(Definition {
        name: row.get(0)?,
        description: row.get(1)?,
        command_type: read_type(row, 2)?,
        content: contents::get(tx, row.get(3)?)?,
        working_dir: row.get(4)?,
        timeout_s: row.get(5)?,
        enable_parameter: row.get(6)?,
    })
}

/// Changes what the request gives.
pub(crate) fn modify(tx: Tx<'_>, change: &ModifyCommand) -> Result<()> {
    let changed = tx
        .prepare_cached(
            "UPDATE commands SET
                 name = coalesce(?2, name), description = coalesce(?3, description),
                 working_dir = CASE WHEN ?4 IS NULL THEN working_dir ELSE nullif(?4, '') END,
                 timeout_s = coalesce(?5, timeout_s)
             WHERE command_id = ?1",
        )?
        .execute((
            change.command_id.as_bytes(),
            &change.name,
            &change.description,
            &change.working_dir,
            change.timeout,
        ))?;
    if changed == 0 { Err(not_found(change.command_id)) } else { Ok(()) }
}

/// Deletes a command that no unfinished invocation uses.
pub(crate) fn delete(tx: Tx<'_>, command_id: CommandId) -> Result<()> {
    let in_use: bool = tx
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM invocations INDEXED BY invocations_unfinished
             WHERE finished_at_ms IS NULL AND command_id = ?1)",
        )?
        .query_row([command_id.as_bytes()], |row| row.get(0))?;
    if in_use {
        return Err(Error::Conflict {
            code: "InvalidStatus.CmdIdInUse",
            message: format!(
                "CommandId: an invocation of `{command_id}` has not ended; wait for it or stop it first"
            ),
        });
    }
    let deleted = tx
        .prepare_cached("DELETE FROM commands WHERE command_id = ?1")?
        .execute([command_id.as_bytes()])?;
    if deleted == 0 { Err(not_found(command_id)) } else { Ok(()) }
}

/// A page of commands, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    filter: &DescribeCommands,
    after: Option<PageToken>,
    page_size: usize,
    encoding: ContentEncoding,
) -> Result<(Vec<Command>, Option<PageToken>)> {
    let mut values = vec![Value::from(after.map_or(i64::MAX, |token| token.0))];
    let mut conditions = vec!["c.id < ?".to_owned()];
    conditions.extend(Tagged::Command.conditions("c.id", &filter.tags, &mut values));
    if let Some(id) = filter.command_id {
        conditions.push("c.command_id = ?".to_owned());
        values.push(id.as_bytes().to_vec().into());
    }
    if let Some(name) = &filter.name {
        conditions.push("c.name LIKE ? ESCAPE '\\'".to_owned());
        values.push(like(name).into());
    }
    if let Some(command_type) = filter.command_type {
        conditions.push("c.type = ?".to_owned());
        values.push(command_type.as_str().to_owned().into());
    }
    values.push((page_size as i64 + 1).into());
    let mut query = tx.prepare_cached(&format!(
        "SELECT c.name, c.description, c.type, c.content, c.working_dir, c.timeout_s, c.enable_parameter,
                c.id, c.command_id, c.created_at_ms, (SELECT count(*) FROM invocations v WHERE v.command_id = c.command_id),
                {}
         FROM commands c WHERE {} ORDER BY c.id DESC LIMIT ?",
        Tagged::Command.column("c.id"),
        conditions.join(" AND ")
    ))?;
    let mut rows = query.query(params_from_iter(values))?;
    let mut entries = Vec::new();
    while let Some(row) = rows.next()? {
        let definition = read_definition(tx, row)?;
        let command = Command {
            command_id: CommandId::from_bytes(row.get(8)?),
            enable_parameter: definition.enable_parameter,
            parameter_names: definition.parameter_names(),
            name: definition.name,
            description: definition.description,
            command_type: definition.command_type,
            command_content: Encoded::new(definition.content.to_vec(), encoding),
            working_dir: definition.working_dir.unwrap_or_default(),
            timeout: definition.timeout_s,
            creation_time: read_time(row.get(9)?)?,
            invoke_times: row.get(10)?,
            tags: tags::read(row, 11)?,
        };
        entries.push((row.get(7)?, command));
    }
    let next = cut_page(&mut entries, page_size);
    Ok((entries.into_iter().map(|(_, command)| command).collect(), next))
}

pub(super) fn not_found(command_id: CommandId) -> Error {
    Error::invalid(Violation::new(
        "InvalidCmdId.NotFound",
        404,
        "CommandId",
        format!("no command `{command_id}` is kept"),
    ))
}

pub(super) fn read_type(row: &Row<'_>, column: usize) -> Result<CommandType> {
    parse(row.get_ref(column)?.as_str().map_err(unreadable)?)
}

pub(super) fn read_time(ms: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(ms).ok_or_else(|| unreadable(ms))
}

/// A name with `*` at either end as a LIKE pattern.
fn like(name: &str) -> String {
    let (name, any_before) = name.strip_prefix('*').map_or((name, false), |rest| (rest, true));
    let (name, any_after) = name.strip_suffix('*').map_or((name, false), |rest| (rest, true));
    let mut pattern = String::with_capacity(name.len() + 2);
    if any_before {
        pattern.push('%');
    }
    for c in name.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    if any_after {
        pattern.push('%');
    }
    pattern
}

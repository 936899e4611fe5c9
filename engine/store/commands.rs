//! Table `commands`: what is kept for later invocations.

use chrono::{DateTime, Utc};
use rusqlite::{Row, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::content::Content;
use crate::command::parameters::{Arguments, Parameters, SecretNames};
use crate::command::settings::Settings;
use crate::command::template::Template;
use crate::command::{Command, CommandType, DescribeCommands, ParameterDefinition};
use crate::error::{Error, Result, Violation};
use crate::id::CommandId;
use crate::limits::Limits;
use crate::tag::Tag;
use crate::wire::{ContentEncoding, Encoded};

use super::tags::{self, Tagged};
use super::{Listing, Query, Slice, Tx, contents, parse, unreadable};

/// What a command is, apart from its id: what an invocation takes over from it.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    pub name: String,
    pub description: String,
    pub command_type: CommandType,
    pub content: Content,
    pub enable_parameter: bool,
    pub default_parameters: Parameters,
    pub secret_parameters: SecretNames,
    pub settings: Settings,
    /// The timeout that the command, or the request that brings it, states; none if it states none.
    pub timeout_s: Option<u64>,
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

/// A command that is about to be kept.
#[derive(Debug)]
pub(crate) struct NewCommand<'a> {
    pub command_id: CommandId,
    pub definition: &'a Definition,
    pub tags: &'a [Tag],
    pub resource_group_id: Option<&'a str>,
}

/// Keeps a command.
pub(crate) fn insert(tx: Tx<'_>, new: &NewCommand<'_>, now_ms: i64) -> Result<()> {
    let Definition { settings, .. } = new.definition;
    let content = contents::intern(tx, &new.definition.content)?;
    tx.execute(
        "INSERT INTO commands (command_id, name, description, type, content, working_dir, timeout_s,
             enable_parameter, created_at_ms, updated_at_ms, username, launcher, output_to,
             default_parameters, secret_parameters, resource_group_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        params![
            new.command_id.as_bytes(),
            &new.definition.name,
            &new.definition.description,
            new.definition.command_type.as_str(),
            content,
            &settings.working_dir,
            new.definition.timeout_s,
            new.definition.enable_parameter,
            now_ms,
            &settings.username,
            &settings.launcher,
            &settings.output_to,
            json_or_null(&new.definition.default_parameters, Parameters::is_empty)?,
            json_or_null(&new.definition.secret_parameters, SecretNames::is_empty)?,
            new.resource_group_id,
        ],
    )?;
    Tagged::Command.insert(tx, tx.last_id(), new.tags)
}

/// What is wrong with keeping one more command, of this name.
pub(crate) fn unkeepable(
    tx: Tx<'_>,
    command_id: CommandId,
    name: &str,
    limits: &Limits,
) -> Result<Vec<Violation>> {
    let mut found: Vec<_> = beyond_quota(tx, limits.kept_commands_max)?.into_iter().collect();
    found.extend(name_taken(tx, command_id, name, limits)?);
    Ok(found)
}

/// What is wrong with a command's name beside those of the others.
pub(crate) fn name_taken(
    tx: Tx<'_>,
    command_id: CommandId,
    name: &str,
    limits: &Limits,
) -> Result<Option<Violation>> {
    if !limits.command_names_differ {
        return Ok(None);
    }
    let taken: bool = tx.one(
        "SELECT EXISTS (SELECT 1 FROM commands WHERE name = ?1 AND command_id <> ?2)",
        (name, command_id.as_bytes()),
        |row| row.get(0),
    )?;
    Ok(taken.then(|| {
        let message = format!("a command of the name `{name}` is kept already; want another name");
        Violation::new("CmdName.Duplicate", 400, "Name", message)
    }))
}

fn beyond_quota(tx: Tx<'_>, kept_max: u64) -> Result<Option<Violation>> {
    let kept = count(tx)?;
    if kept < kept_max {
        return Ok(None);
    }
    let message = format!(
        "{kept} commands are kept, the quota is {kept_max}; delete some or do not keep this one"
    );
    let violation = Violation::new("CmdCount.ExceedQuota", 403, "KeepCommand", message);
    Ok(Some(violation.of_quota(None)))
}

/// A value as JSON, nothing for an empty one.
pub(super) fn json_or_null<T: Serialize>(
    value: &T,
    is_empty: impl Fn(&T) -> bool,
) -> Result<Option<String>> {
    match is_empty(value) {
        true => Ok(None),
        false => serde_json::to_string(value).map(Some).map_err(unreadable),
    }
}

/// What a column has as JSON; the default for NULL.
pub(super) fn read_json<T: DeserializeOwned + Default>(row: &Row<'_>, column: usize) -> Result<T> {
    match row.get_ref(column)?.as_str_or_null().map_err(unreadable)? {
        None => Ok(T::default()),
        Some(text) => serde_json::from_str(text).map_err(unreadable),
    }
}

/// The settings in four columns from this one on: of the directory, the user, the launcher, the
/// place for output.
pub(super) fn read_settings(row: &Row<'_>, column: usize) -> Result<Settings> {
    Ok(Settings {
        working_dir: row.get(column)?,
        username: row.get(column + 1)?,
        launcher: row.get(column + 2)?,
        output_to: row.get(column + 3)?,
    })
}

/// How many commands are kept.
pub(crate) fn count(tx: Tx<'_>) -> Result<u64> {
    tx.one("SELECT count(*) FROM commands", (), |row| row.get(0))
}

/// The columns of a definition.
const DEFINITION: &str =
    "c.name, c.description, c.type, c.content, c.timeout_s, c.enable_parameter,
    c.working_dir, c.username, c.launcher, c.output_to, c.default_parameters, c.secret_parameters";

/// The definition of a kept command, if there is one.
pub(crate) fn find(tx: Tx<'_>, command_id: CommandId) -> Result<Option<Definition>> {
    tx.find(
        &format!("SELECT {DEFINITION} FROM commands c WHERE c.command_id = ?1"),
        [command_id.as_bytes()],
        |row| Ok(read_definition(tx, row, 0)),
    )?
    .transpose()
}

/// The definition of a kept command.
pub(crate) fn get(tx: Tx<'_>, command_id: CommandId) -> Result<Definition> {
    find(tx, command_id)?.ok_or_else(|| Error::invalid(not_found(command_id)))
}

fn read_definition(tx: Tx<'_>, row: &Row<'_>, from: usize) -> Result<Definition> {
    Ok(Definition {
        name: row.get(from)?,
        description: row.get(from + 1)?,
        command_type: read_type(row, from + 2)?,
        content: contents::get(tx, row.get(from + 3)?)?,
        timeout_s: row.get(from + 4)?,
        enable_parameter: row.get(from + 5)?,
        settings: read_settings(row, from + 6)?,
        default_parameters: read_json(row, from + 10)?,
        secret_parameters: read_json(row, from + 11)?,
    })
}

/// Gives a command another definition.
pub(crate) fn replace(
    tx: Tx<'_>,
    command_id: CommandId,
    definition: &Definition,
    now_ms: i64,
) -> Result<()> {
    let settings = &definition.settings;
    let content = contents::intern(tx, &definition.content)?;
    let changed = tx.execute(
        "UPDATE commands SET name = ?2, description = ?3, type = ?4, content = ?5, timeout_s = ?6,
             working_dir = ?7, username = ?8, launcher = ?9, output_to = ?10,
             default_parameters = ?11, updated_at_ms = ?12
         WHERE command_id = ?1",
        params![
            command_id.as_bytes(),
            &definition.name,
            &definition.description,
            definition.command_type.as_str(),
            content,
            definition.timeout_s,
            &settings.working_dir,
            &settings.username,
            &settings.launcher,
            &settings.output_to,
            json_or_null(&definition.default_parameters, Parameters::is_empty)?,
            now_ms,
        ],
    )?;
    if changed == 0 { Err(Error::invalid(not_found(command_id))) } else { Ok(()) }
}

/// Deletes a command that no unfinished invocation uses.
pub(crate) fn delete(tx: Tx<'_>, command_id: CommandId) -> Result<()> {
    let in_use: bool = tx.one(
        "SELECT EXISTS (SELECT 1 FROM invocations INDEXED BY invocations_unfinished
         WHERE finished_at_ms IS NULL AND command_id = ?1)",
        [command_id.as_bytes()],
        |row| row.get(0),
    )?;
    if in_use {
        return Err(Error::Conflict {
            code: "InvalidStatus.CmdIdInUse",
            message: format!(
                "CommandId: an invocation of `{command_id}` has not ended; wait for it or stop it first"
            ),
        });
    }
    let deleted =
        tx.execute("DELETE FROM commands WHERE command_id = ?1", [command_id.as_bytes()])?;
    if deleted == 0 { Err(Error::invalid(not_found(command_id))) } else { Ok(()) }
}

/// Who made every command.
const PROVIDER: &str = "User";

/// A slice of the commands, newest first.
pub(crate) fn list(
    tx: Tx<'_>,
    filter: &DescribeCommands,
    slice: Slice,
    encoding: ContentEncoding,
) -> Result<Listing<Command>> {
    let mut query = all();
    query.conditions = Tagged::Command.conditions("c.id", &filter.tags, &mut query.values);
    query.filter("c.command_id = ?", filter.command_id.map(|id| id.as_bytes().to_vec()));
    query.filter("c.name LIKE ? ESCAPE '\\'", filter.name.as_deref().map(like));
    query.filter("c.description LIKE ? ESCAPE '\\'", filter.description.as_deref().map(like));
    query.filter("c.type = ?", filter.command_type.map(|of| of.as_str().to_owned()));
    query.filter("c.resource_group_id = ?", filter.resource_group_id.clone());
    let provided = format!("'{PROVIDER}' LIKE ? ESCAPE '\\'");
    query.filter(&provided, filter.provider.as_deref().map(like));
    query.filter("1 = ?", filter.latest.map(i64::from));
    query.slice(tx, slice, |row| read(tx, row, encoding))
}

/// All commands, for [`read`].
pub(super) fn all() -> Query {
    let columns = format!(
        "c.id, {DEFINITION}, c.command_id, c.created_at_ms,
         (SELECT count(*) FROM invocations v WHERE v.command_id = c.command_id),
         c.resource_group_id, {}, c.updated_at_ms",
        Tagged::Command.column("c.id")
    );
    Query::new(columns, "commands c", "c.id")
}

pub(super) fn read(tx: Tx<'_>, row: &Row<'_>, encoding: ContentEncoding) -> Result<Command> {
    let definition = read_definition(tx, row, 1)?;
    let parameter_names = definition.parameter_names();
    let arguments = Arguments {
        defaults: definition.default_parameters,
        secrets: definition.secret_parameters,
        ..Arguments::default()
    };
    let Arguments { defaults, secrets, .. } = arguments.redacted();
    let defined = defaults.iter().map(|(name, value)| ParameterDefinition {
        parameter_name: name.to_owned(),
        default_value: value.to_owned(),
        required: false,
    });
    Ok(Command {
        command_id: CommandId::from_bytes(row.get(13)?),
        enable_parameter: definition.enable_parameter,
        parameter_names,
        parameter_definitions: defined.collect(),
        secret_parameters: secrets,
        name: definition.name,
        description: definition.description,
        command_type: definition.command_type,
        command_content: Encoded::new(definition.content.to_vec(), encoding),
        working_dir: definition.settings.working_dir.unwrap_or_default(),
        timeout: definition.timeout_s,
        username: definition.settings.username.unwrap_or_default(),
        launcher: definition.settings.launcher.unwrap_or_default(),
        oss_output_delivery: definition.settings.output_to.unwrap_or_default(),
        creation_time: read_time(row.get(14)?)?,
        update_time: read_time(row.get(18)?)?,
        invoke_times: row.get(15)?,
        resource_group_id: row.get::<_, Option<String>>(16)?.unwrap_or_default(),
        tags: tags::read(row, 17)?,
        provider: PROVIDER.to_owned(),
        version: 1,
        latest: true,
    })
}

pub(crate) fn not_found(command_id: CommandId) -> Violation {
    Violation::new(
        "InvalidCmdId.NotFound",
        404,
        "CommandId",
        format!("no command `{command_id}` is kept"),
    )
}

pub(super) fn read_type(row: &Row<'_>, column: usize) -> Result<CommandType> {
    parse(row.get_ref(column)?.as_str().map_err(unreadable)?)
}

pub(super) fn read_time(ms: i64) -> Result<DateTime<Utc>> {
    DateTime::from_timestamp_millis(ms).ok_or_else(|| unreadable(ms))
}

/// A name with `*` at either end as a LIKE pattern.
pub(super) fn like(name: &str) -> String {
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

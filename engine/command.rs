//! Commands: scripts with their settings. A command is created once and invoked often, or it comes with the one
//! invocation that runs it.

pub(crate) mod content;
pub(crate) mod launcher;
pub(crate) mod parameters;
pub(crate) mod preview;
pub(crate) mod settings;
pub(crate) mod template;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::given::{Given, unknown};
use crate::id::CommandId;
use crate::instance::OsType;
use crate::limits::Limits;
use crate::tag::{self, Tag, TagUse};
use crate::wire::{
    self, ContentEncoding, Encoded, Ignored, UnreadableRecord, lenient, page_request,
    page_response, text_enum,
};

use content::{Content, ContentMax};
use parameters::{Arguments, Parameters, SecretNames};
use settings::Settings;

/// The language of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum CommandType {
    /// A shell script; its `#!` line is honoured.
    #[default]
    RunShellScript,
    /// A PowerShell script.
    RunPowerShellScript,
    /// A batch script.
    RunBatScript,
}

text_enum!(CommandType, "type of command", [RunShellScript, RunPowerShellScript, RunBatScript]);

impl CommandType {
    /// Whether such a command may be sent to an instance of this kind at all.
    pub(crate) const fn suits(self, os_type: OsType) -> bool {
        match self {
            Self::RunShellScript => matches!(os_type, OsType::Linux),
            // PowerShell exists for Linux too; whether it is there, the executor knows.
            Self::RunPowerShellScript => true,
            Self::RunBatScript => matches!(os_type, OsType::Windows),
        }
    }
}

page_request! {
/// Stores a command for later invocations. The [`Limits`](crate::Limits) of a handle say how long texts and lists may
/// be.
///
/// As JSON, `CommandContent` is Base64 unless `ContentEncoding` says `PlainText`.
#[non_exhaustive]
pub struct CreateCommand {
    /// A name for people; at least 1 character.
    pub name: String,
    /// The purpose of the command.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The language.
    #[serde(rename = "Type", default = "Given::nothing")]
    pub command_type: Given<CommandType>,
    /// The script, encoded as the next field says.
    pub command_content: String,
    /// `PlainText` or `Base64`; every other text, also an empty one, means Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The directory to run in; the user's home if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Seconds a run may take; if not given, each invocation gets the default of its [`Limits`](crate::Limits).
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// The launcher that gets the script instead of its shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// The user to run as; the host's own if none is given. At most 255 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Whether `{{name}}` in the script is a parameter.
    #[serde(deserialize_with = "lenient::value", skip_serializing_if = "std::ops::Not::not")]
    pub enable_parameter: bool,
    /// The defaults of parameters for which an invocation gives no value.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub default_parameters: Parameters,
    /// The parameters whose values are secret.
    #[serde(skip_serializing_if = "SecretNames::is_empty")]
    pub secret_parameters: SecretNames,
    /// Where the whole output goes, as in `oss://bucket/folder` or `file:///folder`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oss_output_delivery: Option<String>,
    /// Tags of the command.
    #[serde(rename = "Tag", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// The group the command belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_group_id: Option<String>,
    /// Makes the request safe to repeat: within 24 hours the same request with the same token gets
    /// the first answer again. ASCII characters only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}
}

impl CreateCommand {
    /// A shell script under a name.
    pub fn shell(name: impl Into<String>, script: impl AsRef<[u8]>) -> Self {
        Self {
            name: name.into(),
            command_content: wire::to_base64(script),
            content_encoding: Some(ContentEncoding::Base64.as_str().to_owned()),
            ..Self::default()
        }
    }

    /// Sets the defaults of parameters for which an invocation gives no value.
    #[must_use]
    pub fn default_parameters<N: Into<String>, V: Into<String>>(
        mut self,
        values: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.default_parameters = values.into_iter().collect();
        self
    }

    /// Names the parameters whose values are secret.
    #[must_use]
    pub fn secret_parameters<N: Into<String>>(
        mut self,
        names: impl IntoIterator<Item = N>,
    ) -> Self {
        self.secret_parameters = names.into_iter().collect();
        self
    }

    /// How it is run, as far as it says so.
    pub(crate) fn settings(&self) -> Settings {
        Settings::new(&self.working_dir, &self.username, &self.launcher, &self.oss_output_delivery)
    }

    /// Checks the request and takes its content out of its encoding.
    pub(crate) fn check(&self, limits: &Limits) -> Result<(CommandType, Content), Vec<Violation>> {
        let mut found = Vec::new();
        if self.name.is_empty() {
            found.push(nameless(limits));
        }
        let command_type = self.command_type.known(&mut found, unknown_command_type);
        let encoding = self.content_encoding.as_deref().and_then(ContentEncoding::parse);
        let content = content::check(
            &self.command_content,
            encoding.unwrap_or(ContentEncoding::Base64),
            ContentMax::kept(limits),
            &mut found,
        );
        check_names(&self.name, &self.description, limits, &mut found);
        self.settings().check(limits, &mut found);
        check_timeout(self.timeout, 1, limits, &mut found);
        tag::check(&self.tags, TagUse::Tag, limits, &mut found);
        check_defaults(
            self.enable_parameter,
            content.as_deref(),
            &self.default_parameters,
            &self.secret_parameters,
            limits,
            &mut found,
        );
        match (command_type, content) {
            (Some(command_type), Some(content)) if found.is_empty() => Ok((command_type, content)),
            _ => Err(found),
        }
    }
}

wire::setters!(CreateCommand {
    set description: String, "Says what it is for.";
    known command_type: CommandType, "Sets the language.";
    some working_dir: String, "Sets the directory to run in.";
    number timeout: u64, "Sets the seconds a run may take.";
    some launcher: String, "Sets what the script is given to.";
    some username: String, "Sets the user to run as.";
    is enable_parameter, "Makes `{{name}}` in the script a parameter.";
    some oss_output_delivery: String, "Sends the whole output to a place, as in `file:///folder`.";
    tags tags, "Adds a tag.";
    some resource_group_id: String, "Sets the group that the command belongs to.";
    some client_token: String, "Makes the request safe to repeat.";
});

/// Checks the defaults and secrets of a command's parameters; an invocation may still give values.
pub(crate) fn check_defaults(
    enabled: bool,
    content: Option<&[u8]>,
    defaults: &Parameters,
    secrets: &SecretNames,
    limits: &Limits,
    found: &mut Vec<Violation>,
) {
    let limits = Limits { parameters_need_values: false, ..limits.clone() };
    let (defaults, secrets) = (defaults.clone(), secrets.clone());
    let arguments = Arguments { defaults, secrets, ..Arguments::default() };
    if let Some(template) = arguments.check(enabled, content, &limits, found) {
        arguments.check_names(&template, true, &limits, found);
    }
}

fn nameless(limits: &Limits) -> Violation {
    let max = limits.name_chars_max;
    let message = format!("a stored command needs a name of 1 to {max} characters");
    Violation::new("MissingParameter.Name", 400, "Name", message)
}

page_request! {
/// Changes the given fields of a stored command. Existing invocations keep the command as it was when they were made.
#[non_exhaustive]
pub struct ModifyCommand {
    /// The command to change.
    pub command_id: Given<CommandId>,
    /// The new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The new working directory; empty for the user's home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The new timeout, in seconds.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// The new launcher; empty for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launcher: Option<String>,
    /// The new user to run as; empty for the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The new defaults of parameters, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_parameters: Option<Parameters>,
    /// The new place for whole outputs; empty for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oss_output_delivery: Option<String>,
    /// Read and not used, as on the pages: a new script is a new command.
    #[serde(skip_serializing)]
    pub command_content: Ignored,
}
}

impl ModifyCommand {
    /// A request that changes nothing yet.
    pub fn new(command_id: CommandId) -> Self {
        Self { command_id: command_id.into(), ..Self::default() }
    }

    /// Sets the new defaults of parameters.
    #[must_use]
    pub fn default_parameters<N: Into<String>, V: Into<String>>(
        mut self,
        values: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.default_parameters = Some(values.into_iter().collect());
        self
    }

    /// Returns the settings after the change, from the settings before. An empty text takes a setting away.
    pub(crate) fn settings(&self, before: Settings) -> Settings {
        let settle = |given: &Option<String>, before: Option<String>| match given {
            Some(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            None => before,
        };
        Settings {
            working_dir: settle(&self.working_dir, before.working_dir),
            username: settle(&self.username, before.username),
            launcher: settle(&self.launcher, before.launcher),
            output_to: settle(&self.oss_output_delivery, before.output_to),
        }
    }

    /// Makes the checks that do not need the command.
    pub(crate) fn check(&self, limits: &Limits) -> Result<CommandId, Vec<Violation>> {
        let mut found = Vec::new();
        let command_id = self.command_id.known(&mut found, unknown_command_id);
        if self.name.as_deref() == Some("") {
            found.push(nameless(limits));
        }
        let (name, description) = (self.name.as_deref(), self.description.as_deref());
        check_names(name.unwrap_or_default(), description.unwrap_or_default(), limits, &mut found);
        let output = &self.oss_output_delivery;
        let settings = Settings::new(&self.working_dir, &self.username, &self.launcher, output);
        settings.check(limits, &mut found);
        check_timeout(self.timeout, 1, limits, &mut found);
        command_id.filter(|_| found.is_empty()).ok_or(found)
    }
}

wire::setters!(ModifyCommand {
    some name: String, "Sets the new name.";
    some description: String, "Sets the new description.";
    some working_dir: String, "Sets the new working directory; empty for the user's home.";
    number timeout: u64, "Sets the new timeout, in seconds.";
    some launcher: String, "Sets the new launcher; empty for none.";
    some username: String, "Sets the new user to run as; empty for the host's own.";
    some oss_output_delivery: String, "Sets the new place for whole outputs; empty for none.";
});

page_response! {
/// Says that a command has been changed.
pub struct ModifyCommandResponse {}
}

page_request! {
/// Deletes a stored command; the records of its runs stay.
#[non_exhaustive]
pub struct DeleteCommand {
    /// The command.
    pub command_id: Given<CommandId>,
}
}

impl DeleteCommand {
    /// Returns a request to delete this command.
    pub fn new(command_id: CommandId) -> Self {
        Self { command_id: command_id.into(), ..Self::default() }
    }
}

impl From<CommandId> for DeleteCommand {
    fn from(command_id: CommandId) -> Self {
        Self::new(command_id)
    }
}

page_response! {
/// Says that a command has been deleted.
pub struct DeleteCommandResponse {}
}

page_request! {
/// Which stored commands to list.
#[non_exhaustive]
pub struct DescribeCommands {
    /// Lists only this command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// Lists only commands of this name; a `*` at either end stands for any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Lists only commands of this description; a `*` at either end stands for any text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Lists only commands of this language.
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    pub command_type: Option<CommandType>,
    /// Lists only commands of this provider: every command here is the `User`'s own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Whether to list newest versions: every command here has one, which is the newest.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub latest: Option<bool>,
    /// Lists only commands that have all of these tags.
    #[serde(rename = "Tag", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Lists only commands of this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_group_id: Option<String>,
    /// How `CommandContent` comes back; Base64 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Entries a page, at least 1; the [`Limits`](crate::Limits) say how many at most, and how many if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub max_results: Option<usize>,
    /// The `NextToken` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// The number of the page, from 1, where pages go by number.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub page_number: Option<usize>,
    /// Entries a page, at least 1, where pages go by number.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub page_size: Option<usize>,
}
}

wire::setters!(DescribeCommands {
    some command_id: CommandId, "Lists only this command.";
    some name: String, "Lists only commands of this name; a `*` at either end stands for anything.";
    some description: String, "Lists only commands of this description; a `*` at either end stands for anything.";
    some command_type: CommandType, "Lists only commands of this language.";
    some provider: String, "Lists only commands of this provider.";
    number latest: bool, "Lists newest versions only.";
    tags tags, "Lists only commands that have this tag, beside those given before.";
    some resource_group_id: String, "Lists only commands of this group.";
    some content_encoding: String, "Sets how contents come back, `PlainText` or `Base64`.";
    number max_results: usize, "Sets the most entries of a page.";
    some next_token: String, "Asks for the page after another, by its `NextToken`.";
    number page_number: usize, "Asks for the page of this number, from 1.";
    number page_size: usize, "Sets the entries of a page, where pages go by number.";
});

/// A parameter that has a default.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ParameterDefinition {
    /// Its name.
    pub parameter_name: String,
    /// The value of the parameter if an invocation gives none.
    pub default_value: String,
    /// Whether something has to be given.
    pub required: bool,
}

/// Without the value, as of all parameters.
impl fmt::Debug for ParameterDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParameterDefinition")
            .field("parameter_name", &self.parameter_name)
            .finish_non_exhaustive()
    }
}

/// A stored command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Command {
    /// Its id.
    pub command_id: CommandId,
    /// Its name.
    pub name: String,
    /// The purpose of the command.
    pub description: String,
    /// Its language.
    #[serde(rename = "Type")]
    pub command_type: CommandType,
    /// The script.
    pub command_content: Encoded,
    /// The directory it runs in; empty for the user's home.
    pub working_dir: String,
    /// Seconds a run may take, or the default of the [`Limits`](crate::Limits) if the command states none; `None`, in
    /// JSON null, if there is no default.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// The launcher that gets the script; empty for its shell.
    pub launcher: String,
    /// The user it runs as; empty for the host's own.
    pub username: String,
    /// Where the whole output goes; empty for nowhere.
    pub oss_output_delivery: String,
    /// Whether `{{name}}` in the script is a parameter.
    pub enable_parameter: bool,
    /// The parameters of the script, as it writes them.
    #[serde(with = "parameter_name_list")]
    pub parameter_names: Vec<String>,
    /// The parameters that have a default. Secret values are shown as `******`.
    #[serde(with = "parameter_definition_list")]
    pub parameter_definitions: Vec<ParameterDefinition>,
    /// The parameters whose values are secret.
    #[serde(skip_serializing_if = "SecretNames::is_empty", default)]
    pub secret_parameters: SecretNames,
    /// Its tags.
    #[serde(with = "tag::response")]
    pub tags: Vec<Tag>,
    /// The group it belongs to; empty for none.
    pub resource_group_id: String,
    /// When it was created.
    #[serde(with = "wire::time")]
    pub creation_time: DateTime<Utc>,
    /// When it was created or last changed.
    #[serde(with = "wire::time")]
    pub update_time: DateTime<Utc>,
    /// How many invocations there are of it.
    pub invoke_times: u64,
    /// The provider of the command: always `User`.
    pub provider: String,
    /// Which version it is: a new script is a new command, so always 1.
    pub version: u64,
    /// Whether it is the newest version: it is.
    pub latest: bool,
}

wire::wrapped_list!(parameter_definition_list, "ParameterDefinition");
wire::wrapped_list!(command_list, "Command");
wire::wrapped_list!(parameter_name_list, "ParameterName");

page_response! {
/// A page of stored commands, newest first.
pub struct DescribeCommandsResponse {
    /// The commands.
    #[serde(with = "command_list")]
    pub commands: Vec<Command>,
    /// The records of the page that cannot be understood.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unreadable: Vec<UnreadableRecord>,
    /// Gets the next page; empty after the last.
    pub next_token: String,
    /// How many there are in all, where pages go by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_count: Option<u64>,
    /// The number of this page, where pages go by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_number: Option<usize>,
    /// Entries a page.
    pub page_size: usize,
}
}

page_response! {
/// The answer to a request for a new command.
pub struct CreateCommandResponse {
    /// The command's id.
    pub command_id: CommandId,
}
}

/// Checks the texts for people.
pub(crate) fn check_names(
    name: &str,
    description: &str,
    limits: &Limits,
    found: &mut Vec<Violation>,
) {
    let names = TextRule {
        field: "Name",
        chars_max: limits.name_chars_max,
        too_long: ("CmdName.ExceedLimit", 403),
        bad_character: "InvalidParameterCharacter.CommandName",
    };
    names.check(name, found);
    let descriptions = TextRule {
        field: "Description",
        chars_max: limits.description_chars_max,
        too_long: ("CmdDesc.ExceedLimit", 403),
        bad_character: "InvalidParameterCharacter.CommandDescription",
    };
    descriptions.check(description, found);
}

/// The rule that a text is checked against.
pub(crate) struct TextRule {
    pub field: &'static str,
    pub chars_max: usize,
    pub too_long: (&'static str, u16),
    pub bad_character: &'static str,
}

impl TextRule {
    pub(crate) fn check(&self, text: &str, found: &mut Vec<Violation>) {
        let chars = text.chars().count();
        if chars > self.chars_max {
            let message = format!("want at most {} characters; it has {chars}", self.chars_max);
            let (code, status) = self.too_long;
            found.push(Violation::new(code, status, self.field, message));
        }
        if text.contains('\0') {
            let message = "a NUL character cannot be part of it";
            found.push(Violation::new(self.bad_character, 403, self.field, message));
        }
    }
}

pub(crate) fn unknown_command_type(text: &str) -> Violation {
    let want = "RunShellScript, RunPowerShellScript or RunBatScript";
    unknown("InvalidCmdType.NotFound", 404, "Type", text, want)
}

pub(crate) fn unknown_command_id(text: &str) -> Violation {
    let want = "the id of a stored command, `c-` and 32 hexadecimal digits";
    unknown("InvalidCmdId.NotFound", 404, "CommandId", text, want)
}

/// Checks a timeout that a request states.
pub(crate) fn check_timeout(
    timeout: Option<u64>,
    min: u64,
    limits: &Limits,
    found: &mut Vec<Violation>,
) {
    let max = limits.timeout_s_max;
    if let Some(seconds) = timeout.filter(|seconds| !(min..=max).contains(seconds)) {
        found.push(Violation::new(
            "InvalidParameter.Timeout",
            400,
            "Timeout",
            format!("want {min} to {max} seconds; it is {seconds}"),
        ));
    }
}

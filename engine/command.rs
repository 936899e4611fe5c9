//! Commands: what to run. A command is created once and invoked often, or comes with the one
//! invocation that runs it.

pub(crate) mod content;
pub(crate) mod parameters;
pub(crate) mod preview;
pub(crate) mod template;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::given::{Given, unknown};
use crate::id::CommandId;
use crate::instance::OsType;
use crate::limits::Limits;
use crate::tag::{self, Tag, TagUse};
use crate::wire::{self, ContentEncoding, Encoded, Ignored, lenient, text_enum};

use content::Content;
use template::Template;

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

/// Stores a command for later invocations.
///
/// As JSON, `CommandContent` is Base64 unless `ContentEncoding` says `PlainText`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct CreateCommand {
    /// Read and not used; this library has no regions.
    #[serde(default, skip_serializing)]
    pub region_id: Ignored,
    /// A name for people. 1 to 128 characters.
    #[serde(default)]
    pub name: String,
    /// What it is for. At most 512 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The language.
    #[serde(rename = "Type", default = "Given::nothing")]
    pub command_type: Given<CommandType>,
    /// The script, encoded as the next field says.
    #[serde(default)]
    pub command_content: String,
    /// `PlainText` or `Base64`; anything else, also nothing, means Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The directory to run in; the user's home if none is given. At most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Seconds a run may take; 60 if not given.
    #[serde(
        default,
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<u64>,
    /// Whether `{{name}}` in the script is a parameter.
    #[serde(default, deserialize_with = "lenient::value")]
    pub enable_parameter: bool,
    /// Tags of the command. At most 20.
    #[serde(rename = "Tag", default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
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

    /// Says what it is for.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Sets the directory to run in.
    #[must_use]
    pub fn working_dir(mut self, working_dir: impl Into<String>) -> Self {
        self.working_dir = Some(working_dir.into());
        self
    }

    /// Sets the seconds a run may take.
    #[must_use]
    pub fn timeout(mut self, seconds: u64) -> Self {
        self.timeout = Some(seconds);
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push(Tag::new(key, value));
        self
    }

    /// Makes `{{name}}` in the script a parameter.
    #[must_use]
    pub fn enable_parameter(mut self) -> Self {
        self.enable_parameter = true;
        self
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
            limits.kept_content_bytes_max,
            &mut found,
        );
        check_names(&self.name, &self.description, limits, &mut found);
        check_working_dir(self.working_dir.as_deref(), limits, &mut found);
        check_timeout(self.timeout, 1, limits, &mut found);
        tag::check(&self.tags, TagUse::Tag, limits, &mut found);
        if let Some(content) = content.as_ref().filter(|_| self.enable_parameter) {
            Template::parse(content).check(limits, &mut found);
        }
        match (command_type, content) {
            (Some(command_type), Some(content)) if found.is_empty() => Ok((command_type, content)),
            _ => Err(found),
        }
    }
}

fn nameless(limits: &Limits) -> Violation {
    let max = limits.name_chars_max;
    let message = format!("a stored command needs a name of 1 to {max} characters");
    Violation::new("MissingParameter.Name", 400, "Name", message)
}

/// Changes what is given of a stored command. Invocations that exist keep what they were made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ModifyCommand {
    /// Read and not used; this library has no regions.
    #[serde(default, skip_serializing)]
    pub region_id: Ignored,
    /// The command to change.
    pub command_id: CommandId,
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The new description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The new working directory; empty for the user's home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// The new timeout, in seconds.
    #[serde(
        default,
        deserialize_with = "lenient::optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<u64>,
    /// Read and not used, as on the pages: a new script is a new command.
    #[serde(default, skip_serializing)]
    pub command_content: Ignored,
}

impl ModifyCommand {
    /// A request that changes nothing yet.
    pub fn new(command_id: CommandId) -> Self {
        Self {
            region_id: Ignored,
            command_id,
            name: None,
            description: None,
            working_dir: None,
            timeout: None,
            command_content: Ignored,
        }
    }

    /// Sets the new name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the new description.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sets the new working directory; empty for the user's home.
    #[must_use]
    pub fn working_dir(mut self, working_dir: impl Into<String>) -> Self {
        self.working_dir = Some(working_dir.into());
        self
    }

    /// Sets the new timeout.
    #[must_use]
    pub fn timeout(mut self, seconds: u64) -> Self {
        self.timeout = Some(seconds);
        self
    }

    pub(crate) fn violations(&self, limits: &Limits) -> Vec<Violation> {
        let mut found = Vec::new();
        if self.name.as_deref() == Some("") {
            found.push(nameless(limits));
        }
        let (name, description) = (self.name.as_deref(), self.description.as_deref());
        check_names(name.unwrap_or_default(), description.unwrap_or_default(), limits, &mut found);
        check_working_dir(self.working_dir.as_deref(), limits, &mut found);
        check_timeout(self.timeout, 1, limits, &mut found);
        found
    }
}

/// Which stored commands to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct DescribeCommands {
    /// Read and not used; this library has no regions.
    #[serde(skip_serializing)]
    pub region_id: Ignored,
    /// Only this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// Only those of this name; a `*` at either end stands for anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those of this language.
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    pub command_type: Option<CommandType>,
    /// Only those that have all of these tags.
    #[serde(rename = "Tag", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// How `CommandContent` comes back; Base64 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Entries a page, 1 to 50; 10 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_results: Option<usize>,
    /// The `NextToken` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
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
    /// What it is for.
    pub description: String,
    /// Its language.
    #[serde(rename = "Type")]
    pub command_type: CommandType,
    /// The script.
    pub command_content: Encoded,
    /// The directory it runs in; empty for the user's home.
    pub working_dir: String,
    /// Seconds a run may take.
    pub timeout: u64,
    /// Whether `{{name}}` in the script is a parameter.
    pub enable_parameter: bool,
    /// The parameters of the script, as it writes them.
    #[serde(with = "parameter_name_list")]
    pub parameter_names: Vec<String>,
    /// Its tags.
    #[serde(with = "tag::response")]
    pub tags: Vec<Tag>,
    /// When it was created.
    #[serde(with = "wire::time")]
    pub creation_time: DateTime<Utc>,
    /// How many invocations there are of it.
    pub invoke_times: u64,
}

wire::wrapped_list!(command_list, "Command");
wire::wrapped_list!(parameter_name_list, "ParameterName");

/// A page of stored commands, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct DescribeCommandsResponse {
    /// Names this call.
    pub request_id: String,
    /// The commands.
    #[serde(with = "command_list")]
    pub commands: Vec<Command>,
    /// Gets the next page; empty after the last.
    pub next_token: String,
}

/// What a new command got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct CreateCommandResponse {
    /// Names this call.
    pub request_id: String,
    /// The command's id.
    pub command_id: CommandId,
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

/// Checks the directory to run in.
pub(crate) fn check_working_dir(
    working_dir: Option<&str>,
    limits: &Limits,
    found: &mut Vec<Violation>,
) {
    let rule = TextRule {
        field: "WorkingDir",
        chars_max: limits.working_dir_chars_max,
        too_long: ("InvalidParameter.WorkingDir", 400),
        bad_character: "InvalidParameterCharacter.CommandWorkingDir",
    };
    rule.check(working_dir.unwrap_or_default(), found);
}

/// What a text is held to.
struct TextRule {
    field: &'static str,
    chars_max: usize,
    too_long: (&'static str, u16),
    bad_character: &'static str,
}

impl TextRule {
    fn check(&self, text: &str, found: &mut Vec<Violation>) {
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

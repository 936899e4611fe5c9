//! Commands: what to run. A command is created once and invoked often, or comes with the one
//! invocation that runs it.

pub(crate) mod content;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::id::CommandId;
use crate::instance::OsType;
use crate::limits::Limits;
use crate::wire::{self, ContentEncoding, Encoded};

use content::Content;

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

impl CommandType {
    pub(crate) const ALL: [Self; 3] =
        [Self::RunShellScript, Self::RunPowerShellScript, Self::RunBatScript];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RunShellScript => "RunShellScript",
            Self::RunPowerShellScript => "RunPowerShellScript",
            Self::RunBatScript => "RunBatScript",
        }
    }

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

impl fmt::Display for CommandType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Stores a command for later invocations.
///
/// As JSON, `CommandContent` is Base64 unless `ContentEncoding` says `PlainText`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct CreateCommand {
    /// A region of the pages' services; accepted and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// A name for people. 1 to 128 characters.
    pub name: String,
    /// What it is for. At most 512 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The language.
    #[serde(rename = "Type")]
    pub command_type: CommandType,
    /// The script, encoded as the next field says.
    pub command_content: String,
    /// `PlainText` or `Base64`; anything else, also nothing, means Base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The directory to run in; the user's home if none is given. At most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Seconds a run may take; 60 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
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

    /// Checks the request and takes its content out of its encoding.
    pub(crate) fn check(&self, limits: &Limits) -> (Option<Content>, Vec<Violation>) {
        let mut found = Vec::new();
        if self.name.is_empty() {
            found.push(Violation::new(
                "MissingParameter.Name",
                400,
                "Name",
                format!(
                    "a stored command needs a name of 1 to {} characters",
                    limits.name_chars_max
                ),
            ));
        }
        let encoding = self.content_encoding.as_deref().and_then(ContentEncoding::parse);
        let content = content::check(
            &self.command_content,
            encoding.unwrap_or(ContentEncoding::Base64),
            limits.kept_content_bytes_max,
            &mut found,
        );
        check_texts(&self.name, &self.description, self.working_dir.as_deref(), limits, &mut found);
        check_timeout(self.timeout, 1, limits, &mut found);
        (content, found)
    }
}

/// Changes what is given of a stored command. Invocations that exist keep what they were made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct ModifyCommand {
    /// A region of the pages' services; accepted and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

impl ModifyCommand {
    /// A request that changes nothing yet.
    pub fn new(command_id: CommandId) -> Self {
        Self {
            region_id: None,
            command_id,
            name: None,
            description: None,
            working_dir: None,
            timeout: None,
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
            found.push(Violation::new(
                "MissingParameter.Name",
                400,
                "Name",
                format!(
                    "a stored command needs a name of 1 to {} characters",
                    limits.name_chars_max
                ),
            ));
        }
        check_texts(
            self.name.as_deref().unwrap_or_default(),
            self.description.as_deref().unwrap_or_default(),
            self.working_dir.as_deref(),
            limits,
            &mut found,
        );
        check_timeout(self.timeout, 1, limits, &mut found);
        found
    }
}

/// Which stored commands to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct DescribeCommands {
    /// A region of the pages' services; accepted and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// Only this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// Only those of this name; a `*` at either end stands for anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those of this language.
    #[serde(rename = "Type", skip_serializing_if = "Option::is_none")]
    pub command_type: Option<CommandType>,
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
    /// When it was created.
    #[serde(with = "wire::time")]
    pub creation_time: DateTime<Utc>,
    /// How many invocations there are of it.
    pub invoke_times: u64,
}

wire::wrapped_list!(command_list, "Command");

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

/// Checks the texts that commands and one-off runs share.
pub(crate) fn check_texts(
    name: &str,
    description: &str,
    working_dir: Option<&str>,
    limits: &Limits,
    found: &mut Vec<Violation>,
) {
    let mut at_most = |text: &str, max, code, status, field| {
        let chars = text.chars().count();
        if chars > max {
            let message = format!("want at most {max} characters; it has {chars}");
            found.push(Violation::new(code, status, field, message));
        }
    };
    at_most(name, limits.name_chars_max, "CmdName.ExceedLimit", 403, "Name");
    at_most(description, limits.description_chars_max, "CmdDesc.ExceedLimit", 403, "Description");
    let working_dir = working_dir.unwrap_or_default();
    let max = limits.working_dir_chars_max;
    at_most(working_dir, max, "InvalidParameter.WorkingDir", 400, "WorkingDir");
    let mut without_nul = |text: &str, code, field| {
        if text.contains('\0') {
            let message = "a NUL character cannot be part of it";
            found.push(Violation::new(code, 403, field, message));
        }
    };
    without_nul(name, "InvalidParameterCharacter.CommandName", "Name");
    without_nul(description, "InvalidParameterCharacter.CommandDescription", "Description");
    without_nul(working_dir, "InvalidParameterCharacter.CommandWorkingDir", "WorkingDir");
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

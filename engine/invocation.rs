//! Invocations: requests to run a command on instances, and what became of them.

pub(crate) mod client_token;
pub(crate) mod fire;
pub(crate) mod recurrence;
pub(crate) mod request;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::command::CommandType;
use crate::command::content::Content;
use crate::command::parameters::{Arguments, ParameterPassing, Parameters};
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::status::InvocationStatus;
use crate::tag::{self, Tag};
use crate::wire::{self, Encoded, text_enum};

use recurrence::{MissedPolicy, OverlapPolicy};

pub use request::{
    InvokeCommand, InvokeCommandResponse, RunCommand, RunCommandResponse, StopInvocation,
    StopInvocationResponse,
};

/// When an invocation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum RepeatMode {
    /// At once, and once.
    #[default]
    Once,
    /// As its `Frequency` says; giving one means this mode.
    Period,
    /// On each instance once, at its next boot.
    NextRebootOnly,
    /// On each instance at each of its boots.
    EveryReboot,
}

text_enum!(RepeatMode, "repeat mode", [Once, Period, NextRebootOnly, EveryReboot]);

/// What a timeout or a stop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TerminationMode {
    /// The command's own process; what it started lives on.
    Process,
    /// Everything in the command's process group. The default: a stopped command leaves nothing behind.
    #[default]
    ProcessTree,
}

text_enum!(TerminationMode, "termination mode", [Process, ProcessTree]);

/// Which invocations to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct DescribeInvocations {
    /// A region of the pages' services; accepted and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// Only this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoke_id: Option<InvokeId>,
    /// Only those of this command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// Only those that run on this instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// Only those that stand so.
    #[serde(rename = "InvokeStatus", skip_serializing_if = "Option::is_none")]
    pub status: Option<InvocationStatus>,
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

/// An invocation, with what it took from its command when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Invocation {
    /// Its id.
    pub invoke_id: InvokeId,
    /// The command it runs.
    pub command_id: CommandId,
    /// The command's name.
    pub command_name: String,
    /// What the command is for.
    pub command_description: String,
    /// The command's language.
    pub command_type: CommandType,
    /// The script.
    pub command_content: Encoded,
    /// Where it stands.
    #[serde(rename = "InvocationStatus")]
    pub status: InvocationStatus,
    /// When it runs.
    pub repeat_mode: RepeatMode,
    /// The schedule it runs on; empty if it has none.
    pub frequency: String,
    /// What a fire does on an instance where an execution before it has not ended.
    pub overlap_policy: OverlapPolicy,
    /// What becomes of nominal times that nobody was there for.
    pub missed_policy: MissedPolicy,
    /// Seconds over which its timers are spread.
    pub spread: u64,
    /// No nominal time after this one fires.
    #[serde(with = "wire::time::optional")]
    pub end_time: Option<DateTime<Utc>>,
    /// How often each of its timers fires at most.
    pub max_fires: Option<u64>,
    /// Since when it pauses, if it does.
    #[serde(with = "wire::time::optional")]
    pub pause_time: Option<DateTime<Utc>>,
    /// The next nominal time of its timers, if one is planned.
    #[serde(with = "wire::time::optional")]
    pub next_fire_time: Option<DateTime<Utc>>,
    /// The directory it runs in; empty for the user's home.
    pub working_dir: String,
    /// Seconds a run may take.
    pub timeout: u64,
    /// The values that were given for parameters; as JSON the text of an object, empty for none.
    #[serde(with = "crate::command::parameters::as_text")]
    pub parameters: Parameters,
    /// How they come into the script.
    pub parameter_passing: ParameterPassing,
    /// Its tags.
    #[serde(with = "tag::response")]
    pub tags: Vec<Tag>,
    /// What a timeout or a stop ends.
    pub termination_mode: TerminationMode,
    /// When it was made.
    #[serde(with = "wire::time")]
    pub creation_time: DateTime<Utc>,
    /// When its last execution ended, if it has.
    #[serde(with = "wire::time::optional")]
    pub finish_time: Option<DateTime<Utc>>,
    /// How many instances it runs on.
    pub instance_count: u64,
}

/// How much of what is limited is used, from [`Engine::quotas`](crate::Engine::quotas).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Quotas {
    /// Commands that are kept.
    pub kept_commands: u64,
    /// How many may be.
    pub kept_commands_max: u64,
    /// Invocations made since the day began in UTC.
    pub invocations_today: u64,
    /// How many there may be in a day.
    pub invocations_per_day_max: u64,
}

/// What all executions of an invocation have in common.
#[derive(Debug)]
pub(crate) struct Job {
    pub invoke_id: InvokeId,
    pub command_id: CommandId,
    pub command_type: CommandType,
    pub content: Content,
    /// If the content is to be filled in.
    pub arguments: Option<Arguments>,
    pub working_dir: Option<String>,
    pub timeout_s: u64,
    pub termination_mode: TerminationMode,
    /// Whether other executions may wait for the end of one.
    pub lets_wait: bool,
}

wire::wrapped_list!(invocation_list, "Invocation");

/// A page of invocations, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct DescribeInvocationsResponse {
    /// Names this call.
    pub request_id: String,
    /// The invocations.
    #[serde(with = "invocation_list")]
    pub invocations: Vec<Invocation>,
    /// Gets the next page; empty after the last.
    pub next_token: String,
}

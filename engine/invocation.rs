//! Invocations: requests to run a command on instances, and their records.

pub(crate) mod bounds;
pub(crate) mod client_token;
pub(crate) mod container;
pub(crate) mod exec;
pub(crate) mod fire;
pub(crate) mod rate_control;
pub(crate) mod recurrence;
pub(crate) mod request;
pub(crate) mod resource_limits;
pub(crate) mod retry;
pub(crate) mod retry_failed;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::command::CommandType;
use crate::command::content::Content;
use crate::command::parameters::{Arguments, ParameterPassing, Parameters, SecretNames};
use crate::command::settings::Settings;
use crate::error::Violation;
use crate::given::{Given, unknown};
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::limits::Limits;
use crate::status::{ExecutionStatus, InvocationFilter, InvocationStatus, InvokeStatus};
use crate::tag::{self, Tag};
use crate::wire::{
    self, Encoded, UnreadableRecord, lenient, page_request, page_response, text_enum,
};

use container::Container;

use rate_control::Share;
use recurrence::{MissedPolicy, OverlapPolicy};
use resource_limits::ResourceLimits;
use retry::Retry;

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
    /// Never: the request is checked, also its `Frequency`, and nothing is stored.
    DryRun,
}

text_enum!(RepeatMode, "repeat mode", [Once, Period, NextRebootOnly, EveryReboot, DryRun]);

/// The processes that a timeout or a stop ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TerminationMode {
    /// The command's own process; processes that it has started go on.
    Process,
    /// Everything that the command has started. The default: a stopped command leaves nothing behind.
    #[default]
    ProcessTree,
}

text_enum!(TerminationMode, "termination mode", [Process, ProcessTree]);

page_request! {
/// Lists invocations.
#[non_exhaustive]
pub struct DescribeInvocations {
    /// Lists only this invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoke_id: Option<InvokeId>,
    /// Lists only invocations of this command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// Lists only invocations of commands of this name; a `*` at either end stands for any text. Not used if an
    /// instance is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_name: Option<String>,
    /// Lists only invocations of this language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_type: Option<CommandType>,
    /// Lists only invocations that run on this instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// Lists only invocations with this status.
    #[serde(rename = "InvocationStatus", skip_serializing_if = "Option::is_none")]
    pub status: Option<InvocationStatus>,
    /// Lists only invocations whose `InvocationStatus` or `InvokeStatus` has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoke_status: Option<Given<InvocationFilter>>,
    /// Lists only invocations of this mode. Not used if an instance is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_mode: Option<Given<RepeatMode>>,
    /// Lists only invocations that will still run on a schedule or at a boot; if false, only all others.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub timed: Option<bool>,
    /// Whether the outputs come along. Needs `InvokeId` or `InstanceId`.
    #[serde(deserialize_with = "lenient::value", skip_serializing_if = "std::ops::Not::not")]
    pub include_output: bool,
    /// Whether to leave out the state on each instance.
    #[serde(deserialize_with = "lenient::value", skip_serializing_if = "std::ops::Not::not")]
    pub omit_instances: bool,
    /// Lists only invocations that have all of these tags.
    #[serde(rename = "Tag", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Lists only invocations whose request named this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_group_id: Option<String>,
    /// How `CommandContent` and `Output` come back; Base64 if not given.
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

wire::setters!(DescribeInvocations {
    some invoke_id: InvokeId, "Lists only this invocation.";
    some command_id: CommandId, "Lists only invocations of this command.";
    some command_name: String, "Lists only invocations of commands of this name; a `*` at either end stands for anything.";
    some command_type: CommandType, "Lists only invocations of this language.";
    some instance_id: InstanceId, "Lists only invocations that run on this instance.";
    some status: InvocationStatus, "Lists only invocations that stand so.";
    given invoke_status: InvocationFilter, "Lists only invocations of which one of both statuses has this name.";
    given repeat_mode: RepeatMode, "Lists only invocations of this mode.";
    number timed: bool, "Lists only invocations that will still run on a schedule or at a boot, or only the others.";
    is include_output, "Lets the outputs come along; needs an invocation or an instance.";
    is omit_instances, "Leaves out the state on each instance.";
    tags tags, "Lists only invocations that have this tag, beside those given before.";
    some resource_group_id: String, "Lists only invocations whose request named this group.";
    some content_encoding: String, "Sets how contents and outputs come back, `PlainText` or `Base64`.";
    number max_results: usize, "Sets the most entries of a page.";
    some next_token: String, "Asks for the page after another, by its `NextToken`.";
    number page_number: usize, "Asks for the page of this number, from 1.";
    number page_size: usize, "Sets the entries of a page, where pages go by number.";
});

impl DescribeInvocations {
    pub(crate) fn check(&self, limits: &Limits) -> Vec<Violation> {
        let mut found = tag::violations(&self.tags, limits);
        if self.include_output && self.invoke_id.is_none() && self.instance_id.is_none() {
            let message = "it needs an InvokeId or an InstanceId";
            found.push(Violation::new("MissingParam.InvokeId", 400, "IncludeOutput", message));
        }
        if let Some(status) = &self.invoke_status {
            status.known(&mut found, |text| {
                let want = InvocationFilter::names();
                unknown("InvalidInvokeStatus.NotFound", 404, "InvokeStatus", text, &want)
            });
        }
        if let Some(mode) = &self.repeat_mode {
            mode.known(&mut found, request::unknown_repeat_mode);
        }
        found
    }
}

/// The record of an invocation, with the settings that it took from its command when it was made.
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
    /// The purpose of the command.
    pub command_description: String,
    /// The command's language.
    pub command_type: CommandType,
    /// The script.
    pub command_content: Encoded,
    /// Where it stands.
    #[serde(rename = "InvocationStatus")]
    pub status: InvocationStatus,
    /// The same in the pages' older terms.
    pub invoke_status: InvokeStatus,
    /// When it runs.
    pub repeat_mode: RepeatMode,
    /// Whether it will still run on a schedule or at a boot.
    pub timed: bool,
    /// The schedule it runs on; empty if it has none.
    pub frequency: String,
    /// The policy for a fire on an instance where an earlier execution has not ended.
    pub overlap_policy: OverlapPolicy,
    /// The policy for nominal times at which no engine ran.
    pub missed_policy: MissedPolicy,
    /// Seconds over which its timers are spread.
    pub spread: u64,
    /// No nominal time after this one fires.
    #[serde(with = "wire::time::optional")]
    pub end_time: Option<DateTime<Utc>>,
    /// How often each of its timers fires at most.
    pub max_fires: Option<u64>,
    /// How often and when it is tried again, if it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry: Option<Retry>,
    /// How many of its executions run at a time, if that is limited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_concurrency: Option<Share>,
    /// How many executions of a fire may end without success before the rest is cancelled, if that is
    /// limited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_errors: Option<Share>,
    /// How many targets of a fire have started by the end of each wave; empty if all start at once.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub waves: Vec<Share>,
    /// Seconds from the end of a wave to the next one, if there is a wait.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wave_soak: Option<u64>,
    /// The priority, 0 to 9: executions of a higher priority start first. As JSON left out if it is 5.
    #[serde(
        skip_serializing_if = "rate_control::is_usual",
        default = "rate_control::usual_priority"
    )]
    pub priority: u8,
    /// The key under which it shares a bound with others; empty for none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub concurrency_key: String,
    /// Seconds from when an execution is due to its start at the latest, if that is limited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start_deadline: Option<u64>,
    /// Seconds from when a fire is due to the end of all of it at the latest, if that is limited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deadline: Option<u64>,
    /// Since when it pauses, if it does.
    #[serde(with = "wire::time::optional")]
    pub pause_time: Option<DateTime<Utc>>,
    /// The next nominal time of its timers, if one is planned.
    #[serde(with = "wire::time::optional")]
    pub next_fire_time: Option<DateTime<Utc>>,
    /// The last nominal time before the next one that has a record; the latest of several timers. If this time is
    /// still to come, the clock was ahead when the record was made. Because no time fires twice, the schedule then
    /// waits until the clock has passed this time.
    #[serde(with = "wire::time::optional", skip_serializing_if = "Option::is_none", default)]
    pub dealt_until: Option<DateTime<Utc>>,
    /// The directory it runs in; empty for the user's home.
    pub working_dir: String,
    /// Seconds a run may take; `None`, in JSON null, if it may take any time.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// The user it runs as; empty for the host's own.
    pub username: String,
    /// The name of that user's password in the host's store; empty for none.
    pub windows_password_name: String,
    /// The launcher that gets the script; empty for its shell.
    pub launcher: String,
    /// The container it runs in; empty for none.
    pub container_id: String,
    /// The name of that container; empty for none.
    pub container_name: String,
    /// Where the whole output goes; empty for nowhere.
    pub oss_output_delivery: String,
    /// The values that were given for parameters; as JSON the text of an object, empty for none.
    /// Secret values are shown as `******`.
    #[serde(with = "crate::command::parameters::as_text")]
    pub parameters: Parameters,
    /// The defaults of parameters for which no value was given.
    #[serde(with = "crate::command::parameters::as_text")]
    pub default_parameters: Parameters,
    /// The parameters whose values are secret.
    #[serde(skip_serializing_if = "SecretNames::is_empty", default)]
    pub secret_parameters: SecretNames,
    /// How they come into the script.
    pub parameter_passing: ParameterPassing,
    /// Its tags.
    #[serde(with = "tag::response")]
    pub tags: Vec<Tag>,
    /// The group that its instances had to belong to; empty for any.
    pub resource_group_id: String,
    /// The caller that made it, if the host named it; otherwise empty.
    pub caller: String,
    /// The processes that a timeout or a stop ends.
    pub termination_mode: TerminationMode,
    /// The limits on the resources of its processes.
    #[serde(skip_serializing_if = "ResourceLimits::is_empty", default)]
    pub resource_limits: ResourceLimits,
    /// Whether its runs go on when the host ends.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub survive_restarts: bool,
    /// When it was made.
    #[serde(with = "wire::time")]
    pub creation_time: DateTime<Utc>,
    /// When its last execution ended, if it has.
    #[serde(with = "wire::time::optional")]
    pub finish_time: Option<DateTime<Utc>>,
    /// When a caller first asked to stop all of it, before it had ended.
    #[serde(with = "wire::time::optional", skip_serializing_if = "Option::is_none", default)]
    pub stop_time: Option<DateTime<Utc>>,
    /// That caller, if the host named it; otherwise empty.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub stopped_by: String,
    /// The reason of the stop, in the words of the request; empty if the request had none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub stop_reason: String,
    /// The invocation that it is another run of, where that did not succeed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_of: Option<InvokeId>,
    /// How many instances it runs on.
    pub instance_count: u64,
    /// The state on each instance, unless the request left it out.
    #[serde(with = "instance_list")]
    pub invoke_instances: Vec<InvokeInstance>,
}

/// The state of an invocation on one instance: its latest execution there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct InvokeInstance {
    /// The instance.
    pub instance_id: InstanceId,
    /// Where it stands there.
    #[serde(rename = "InvocationStatus")]
    pub status: ExecutionStatus,
    /// The same in the pages' older terms.
    pub instance_invoke_status: InvokeStatus,
    /// When the invocation was made.
    #[serde(with = "wire::time")]
    pub creation_time: DateTime<Utc>,
    /// When it was claimed for running.
    #[serde(with = "wire::time::optional")]
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(with = "wire::time::optional")]
    pub finish_time: Option<DateTime<Utc>>,
    /// When a caller asked to stop it.
    #[serde(with = "wire::time::optional")]
    pub stop_time: Option<DateTime<Utc>>,
    /// When any of this last changed.
    #[serde(with = "wire::time")]
    pub update_time: DateTime<Utc>,
    /// The exit code of the process; −1 if a signal ended it.
    pub exit_code: Option<i32>,
    /// The page's code for the fault; empty if there was none.
    pub error_code: String,
    /// The fault, in words.
    pub error_info: String,
    /// The output within the quota; empty unless the request asked for it.
    pub output: Encoded,
    /// Bytes of output that the quota left out; 0 unless the request asked for the output.
    pub dropped: u64,
    /// How many executions there have been on this instance.
    pub repeats: u64,
    /// Whether it will still run there on a schedule or at a boot.
    pub timed: bool,
    /// The state of the delivery of the whole output: `InProgress`, `Finished` or `Failed`; empty if no place was
    /// named, or if there was no output to deliver because nothing has run.
    pub oss_output_status: String,
    /// The address of the delivered output; empty until the delivery has finished.
    pub oss_output_uri: String,
    /// The code of the fault of the delivery.
    pub oss_output_error_code: String,
    /// The fault of the delivery, in words.
    pub oss_output_error_info: String,
}

/// The use of the quotas, from [`Engine::quotas`](crate::Engine::quotas).
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

/// The part of a task that all executions of a fire share.
#[derive(Debug)]
pub(crate) struct Job {
    pub invoke_id: InvokeId,
    pub command_id: CommandId,
    pub command_type: CommandType,
    pub content: Content,
    /// If the content is to be filled in.
    pub arguments: Option<Arguments>,
    pub settings: Settings,
    pub container: Container,
    pub windows_password_name: Option<String>,
    /// Whether the values of secret parameters are names in the host's store.
    pub secrets_are_names: bool,
    /// The bytes of the largest content, its parameters filled in.
    pub content_bytes_max: usize,
    /// None: a run may take any time.
    pub timeout_s: Option<u64>,
    pub termination_mode: TerminationMode,
    pub resource_limits: ResourceLimits,
    /// Whether a run goes on when the host ends.
    pub survive_restarts: bool,
    /// The caller that made the invocation, if the host named it.
    pub caller: Option<Arc<str>>,
    /// Whether other executions may wait for the end of one.
    pub lets_wait: bool,
    pub retry: Option<Retry>,
}

impl Job {
    /// Returns whether the host's store of secrets has to be asked before a run.
    pub(crate) fn has_secret_names(&self) -> bool {
        let has_secrets = |arguments: &Arguments| arguments.secret_pairs().next().is_some();
        self.windows_password_name.is_some()
            || (self.secrets_are_names && self.arguments.as_ref().is_some_and(has_secrets))
    }
}

wire::wrapped_list!(invocation_list, "Invocation");
wire::wrapped_list!(instance_list, "InvokeInstance");

page_response! {
/// A page of invocations, newest first.
pub struct DescribeInvocationsResponse {
    /// The invocations.
    #[serde(with = "invocation_list")]
    pub invocations: Vec<Invocation>,
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

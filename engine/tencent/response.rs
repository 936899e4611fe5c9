//! The answers of this dialect, and the records in them.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::request::DefaultParameterConf;
use super::status::{InvocationStatus, TaskStatus};
use crate::id::InstanceId;
use crate::tag::Tag;
use crate::wire::{self, Encoded, UnreadableRecord, page_response};

/// A record in an answer.
macro_rules! record {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$own_about:meta])* pub $own:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase")]
        #[non_exhaustive]
        pub struct $name { $($(#[$own_about])* pub $own: $type,)* }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($own), shown(stringify!($own), &self.$own)))*
                    .finish()
            }
        }
    };
}

/// A field as logs may have it: values of parameters can be secrets.
fn shown<'a>(name: &str, value: &'a dyn fmt::Debug) -> &'a dyn fmt::Debug {
    if matches!(name, "parameters" | "default_parameters") { &Hidden } else { value }
}

/// In the place of what is not shown.
pub(super) struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

page_response! {
/// What a run got.
pub struct RunCommandResponse {
    /// The command, whether it is kept or not: `cmd-` and 32 hexadecimal digits.
    pub command_id: String,
    /// The invocation: `inv-` and 32 hexadecimal digits.
    pub invocation_id: String,
}
}

page_response! {
/// What a new command got.
pub struct CreateCommandResponse {
    /// The command's id.
    pub command_id: String,
}
}

page_response! {
/// Says that a command has been changed.
pub struct ModifyCommandResponse {}
}

page_response! {
/// Says that a command has been deleted.
pub struct DeleteCommandResponse {}
}

page_response! {
/// Says that commands have been deleted.
pub struct DeleteCommandsResponse {}
}

page_response! {
/// A stretch of the stored commands, newest first.
pub struct DescribeCommandsResponse {
    /// The records of the stretch that cannot be understood.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unreadable: Vec<UnreadableRecord>,
    /// How many there are in all.
    pub total_count: u64,
    /// The commands.
    pub command_set: Vec<Command>,
}
}

page_response! {
/// What an invocation of a stored command got.
pub struct InvokeCommandResponse {
    /// The invocation.
    pub invocation_id: String,
}
}

page_response! {
/// Says that the request to cancel is on disk.
pub struct CancelInvocationResponse {}
}

page_response! {
/// A stretch of the invocations, newest first.
pub struct DescribeInvocationsResponse {
    /// The records of the stretch that cannot be understood.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unreadable: Vec<UnreadableRecord>,
    /// How many there are in all.
    pub total_count: u64,
    /// The invocations.
    pub invocation_set: Vec<Invocation>,
}
}

page_response! {
/// A stretch of the tasks, newest first.
pub struct DescribeInvocationTasksResponse {
    /// The records of the stretch that cannot be understood.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unreadable: Vec<UnreadableRecord>,
    /// How many there are in all.
    pub total_count: u64,
    /// The tasks.
    pub invocation_task_set: Vec<InvocationTask>,
}
}

page_response! {
/// A finished script.
pub struct PreviewReplacedCommandContentResponse {
    /// What would run.
    pub replaced_content: Encoded,
}
}

page_response! {
/// What is known of a stretch of the agents, in the order of their registration.
pub struct DescribeAutomationAgentStatusResponse {
    /// One entry for each instance.
    pub automation_agent_set: Vec<AutomationAgentInfo>,
    /// The records of the stretch that cannot be understood.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unreadable: Vec<UnreadableRecord>,
    /// How many there are in all.
    pub total_count: u64,
}
}

page_response! {
/// How much of quotas is used.
pub struct DescribeQuotasResponse {
    /// One entry for each name of the request.
    pub general_resource_quota_set: Vec<GeneralResourceQuotaSet>,
}
}

record! {
/// A stored command.
pub struct Command {
    /// Its id.
    pub command_id: String,
    /// Its name.
    pub command_name: String,
    /// What it is for.
    pub description: String,
    /// The script.
    pub content: Encoded,
    /// Its language: `SHELL`, `POWERSHELL` or `BAT`.
    pub command_type: String,
    /// The directory it runs in; empty for the user's home.
    pub working_directory: String,
    /// Seconds a run may take; null if it may take any time.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// When it was created.
    #[serde(with = "wire::time")]
    pub created_time: DateTime<Utc>,
    /// When it was created or last changed.
    #[serde(with = "wire::time")]
    pub updated_time: DateTime<Utc>,
    /// Whether `{{name}}` in the script is a parameter.
    pub enable_parameter: bool,
    /// What parameters are that no value is given for, as the JSON text of an object.
    pub default_parameters: String,
    /// The same as a list.
    pub default_parameter_confs: Vec<DefaultParameterConf>,
    /// There are no scenes here.
    pub scenes: Vec<String>,
    /// The pages format descriptions of their own commands only, of which there are none here.
    pub formatted_description: String,
    /// Who made it: `USER`.
    pub created_by: String,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// The user it runs as; empty for the host's own.
    pub username: String,
    /// The bucket that whole outputs go to; empty for none.
    #[serde(rename = "OutputCOSBucketUrl")]
    pub output_cos_bucket_url: String,
    /// The folders in it.
    #[serde(rename = "OutputCOSKeyPrefix")]
    pub output_cos_key_prefix: String,
}
}

record! {
/// An invocation, with what it took from its command when it was made.
pub struct Invocation {
    /// Its id.
    pub invocation_id: String,
    /// The command it runs.
    pub command_id: String,
    /// The command's name.
    pub command_name: String,
    /// What the command is for.
    pub description: String,
    /// Where it stands.
    pub invocation_status: InvocationStatus,
    /// Its tasks: of one that repeats, the latest on each instance.
    pub invocation_task_basic_info_set: Vec<InvocationTaskBasicInfo>,
    /// When its first task started, if one has.
    #[serde(with = "wire::time::nullable")]
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended, if it has.
    #[serde(with = "wire::time::nullable")]
    pub end_time: Option<DateTime<Utc>>,
    /// When it was made.
    #[serde(with = "wire::time")]
    pub created_time: DateTime<Utc>,
    /// When any of this was last true anew.
    #[serde(with = "wire::time")]
    pub updated_time: DateTime<Utc>,
    /// The values that were given for parameters, as the JSON text of an object; empty for none.
    pub parameters: String,
    /// What parameters are that no value was given for, likewise.
    pub default_parameters: String,
    /// The kind of its instances, as the host has it; empty if it says nothing.
    pub instance_kind: String,
    /// The user it runs as; empty for the host's own.
    pub username: String,
    /// `USER`, or `INVOKER` for one that repeats.
    pub invocation_source: String,
    /// The script.
    pub command_content: Encoded,
    /// Its language.
    pub command_type: String,
    /// Seconds a run may take; null if it may take any time.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// The directory it runs in; empty for the user's home.
    pub working_directory: String,
    /// The bucket that whole outputs go to; empty for none.
    #[serde(rename = "OutputCOSBucketUrl")]
    pub output_cos_bucket_url: String,
    /// The folders in it.
    #[serde(rename = "OutputCOSKeyPrefix")]
    pub output_cos_key_prefix: String,
}
}

record! {
/// Where a task stands.
pub struct InvocationTaskBasicInfo {
    /// Its id: `invt-` and a number.
    pub invocation_task_id: String,
    /// Where it stands.
    pub task_status: TaskStatus,
    /// Where it runs.
    pub instance_id: InstanceId,
}
}

record! {
/// A task: the record of an invocation on one instance.
pub struct InvocationTask {
    /// The invocation it belongs to.
    pub invocation_id: String,
    /// Its id.
    pub invocation_task_id: String,
    /// The command it runs.
    pub command_id: String,
    /// The command's name.
    pub command_name: String,
    /// Where it stands.
    pub task_status: TaskStatus,
    /// Where it runs.
    pub instance_id: InstanceId,
    /// What came of it.
    pub task_result: TaskResult,
    /// When it was claimed for running, if it was.
    #[serde(with = "wire::time::nullable")]
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended, if it has.
    #[serde(with = "wire::time::nullable")]
    pub end_time: Option<DateTime<Utc>>,
    /// When its invocation was made.
    #[serde(with = "wire::time")]
    pub created_time: DateTime<Utc>,
    /// When any of this was last true anew.
    #[serde(with = "wire::time")]
    pub updated_time: DateTime<Utc>,
    /// What it runs and how.
    pub command_document: CommandDocument,
    /// What went wrong, in words; empty if nothing did.
    pub error_info: String,
    /// `USER`, or `INVOKER` if its invocation repeats.
    pub invocation_source: String,
}
}

record! {
/// What came of a task.
pub struct TaskResult {
    /// What the process left; −1 if a signal ended it. None if it has not ended or never ran.
    pub exit_code: Option<i32>,
    /// What it printed, within the quota; empty if it is hidden.
    pub output: Encoded,
    /// When it was started, if it was.
    #[serde(with = "wire::time::nullable")]
    pub exec_start_time: Option<DateTime<Utc>>,
    /// When it ended, if it was started and has.
    #[serde(with = "wire::time::nullable")]
    pub exec_end_time: Option<DateTime<Utc>>,
    /// Bytes of output that the quota left out; 0 if the output is hidden.
    pub dropped: u64,
    /// Where the whole output is; empty if it is nowhere.
    pub output_url: String,
    /// What went wrong with sending it there.
    #[serde(rename = "OutputUploadCOSErrorInfo")]
    pub output_upload_cos_error_info: String,
}
}

record! {
/// What a task took from its command.
pub struct CommandDocument {
    /// The script.
    pub content: Encoded,
    /// Its language.
    pub command_type: String,
    /// Seconds it may take; null if it may take any time.
    #[serde(default)]
    pub timeout: Option<u64>,
    /// The directory it runs in; empty for the user's home.
    pub working_directory: String,
    /// The user it runs as; empty for the host's own.
    pub username: String,
    /// The bucket that the whole output goes to; empty for none.
    #[serde(rename = "OutputCOSBucketUrl")]
    pub output_cos_bucket_url: String,
    /// The folders in it.
    #[serde(rename = "OutputCOSKeyPrefix")]
    pub output_cos_key_prefix: String,
}
}

record! {
/// What is known of the agent of an instance.
pub struct AutomationAgentInfo {
    /// The instance.
    pub instance_id: InstanceId,
    /// The version of its agent; this library's of this machine.
    pub version: String,
    /// When the host last told of it; now of this machine.
    #[serde(with = "wire::time::nullable")]
    pub last_heartbeat_time: Option<DateTime<Utc>>,
    /// `Online`, or `Offline` if it is not up or there is none.
    pub agent_status: String,
    /// What it runs on: `Linux` or `Windows`.
    pub environment: String,
    /// There are no optional features here.
    pub support_features: Vec<String>,
}
}

record! {
/// How much of a quota is used.
pub struct GeneralResourceQuotaSet {
    /// The name that was asked for.
    pub resource_name: String,
    /// How many there are.
    pub resource_quota_used: u64,
    /// How many there may be.
    pub resource_quota_total: u64,
}
}

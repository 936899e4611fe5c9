//! From the engine's records to those of this dialect.

use chrono::{DateTime, Utc};

use super::place;
use super::request::DefaultParameterConf;
use super::response::{
    AutomationAgentInfo, Command, CommandDocument, Invocation, InvocationTask,
    InvocationTaskBasicInfo, TaskResult,
};
use super::status::{InvocationStatus, TaskStatus};
use crate::command::parameters::Parameters;
use crate::command::{self, CommandType};
use crate::engine::Agent;
use crate::id::{CommandId, ExecutionId};
use crate::instance::{AgentStatus, LOCAL};
use crate::invocation::{self, RepeatMode};
use crate::store::selections::{ExecutionEntry, InvocationEntry, TaskEntry};

/// Who makes every command here.
pub(super) const CREATED_BY: &str = "USER";

/// The languages, as the pages of this dialect write them.
pub(super) const TYPES: [(CommandType, &str); 3] = [
    (CommandType::RunShellScript, "SHELL"),
    (CommandType::RunPowerShellScript, "POWERSHELL"),
    (CommandType::RunBatScript, "BAT"),
];

fn type_name(command_type: CommandType) -> String {
    let named = TYPES.iter().find(|(known, _)| *known == command_type);
    named.map_or("", |(_, name)| name).to_owned()
}

pub(super) fn task_id(id: ExecutionId) -> String {
    format!("invt-{id}")
}

/// Values as JSON text; nothing for none.
fn json_text(parameters: &Parameters) -> String {
    match parameters.is_empty() {
        true => String::new(),
        false => serde_json::to_string(parameters).expect("names and values are JSON"),
    }
}

impl From<command::Command> for Command {
    fn from(theirs: command::Command) -> Self {
        let (bucket, prefix) = place::split(&theirs.oss_output_delivery);
        let defined = theirs.parameter_definitions.into_iter();
        let confs: Vec<_> = defined
            .map(|one| DefaultParameterConf {
                parameter_name: one.parameter_name,
                parameter_value: one.default_value,
                parameter_description: String::new(),
            })
            .collect();
        let pairs = confs.iter().map(|one| (&*one.parameter_name, &*one.parameter_value));
        Self {
            command_id: theirs.command_id.to_long_form(),
            command_name: name(theirs.command_id, theirs.name),
            description: theirs.description,
            content: theirs.command_content,
            command_type: type_name(theirs.command_type),
            working_directory: theirs.working_dir,
            timeout: theirs.timeout,
            created_time: theirs.creation_time,
            updated_time: theirs.update_time,
            enable_parameter: theirs.enable_parameter,
            default_parameters: json_text(&pairs.collect()),
            default_parameter_confs: confs,
            scenes: Vec::new(),
            formatted_description: String::new(),
            created_by: CREATED_BY.to_owned(),
            tags: theirs.tags,
            username: theirs.username,
            output_cos_bucket_url: bucket,
            output_cos_key_prefix: prefix,
        }
    }
}

/// A name in this dialect: a command that was given none is called by its id.
fn name(command_id: CommandId, name: String) -> String {
    if name == command_id.to_string() { command_id.to_long_form() } else { name }
}

fn source(invocation: &invocation::Invocation) -> String {
    match invocation.repeat_mode {
        RepeatMode::Once | RepeatMode::DryRun => "USER",
        RepeatMode::Period | RepeatMode::NextRebootOnly | RepeatMode::EveryReboot => "INVOKER",
    }
    .to_owned()
}

impl From<InvocationEntry> for Invocation {
    fn from(entry: InvocationEntry) -> Self {
        let InvocationEntry { invocation: theirs, instance_kind, tasks } = entry;
        let (bucket, prefix) = place::split(&theirs.oss_output_delivery);
        let start_time = tasks.iter().filter_map(|task| task.start_time).min();
        let last_start = tasks.iter().filter_map(|task| task.start_time).max();
        let infos: Vec<_> = tasks.into_iter().map(InvocationTaskBasicInfo::from).collect();
        let statuses: Vec<_> = infos.iter().map(|task| task.task_status).collect();
        Self {
            invocation_id: theirs.invoke_id.to_long_form(),
            command_id: theirs.command_id.to_long_form(),
            invocation_status: InvocationStatus::of(&statuses, theirs.status),
            invocation_task_basic_info_set: infos,
            start_time,
            end_time: theirs.finish_time,
            created_time: theirs.creation_time,
            updated_time: latest(theirs.creation_time, [last_start, theirs.finish_time]),
            parameters: json_text(&theirs.parameters),
            default_parameters: json_text(&theirs.default_parameters),
            instance_kind: instance_kind.unwrap_or_default(),
            invocation_source: source(&theirs),
            command_name: name(theirs.command_id, theirs.command_name),
            description: theirs.command_description,
            username: theirs.username,
            command_content: theirs.command_content,
            command_type: type_name(theirs.command_type),
            timeout: theirs.timeout,
            working_directory: theirs.working_dir,
            output_cos_bucket_url: bucket,
            output_cos_key_prefix: prefix,
        }
    }
}

/// The last of some times, of which the first has come.
fn latest<const N: usize>(first: DateTime<Utc>, more: [Option<DateTime<Utc>>; N]) -> DateTime<Utc> {
    more.into_iter().flatten().fold(first, Ord::max)
}

impl From<TaskEntry> for InvocationTaskBasicInfo {
    fn from(task: TaskEntry) -> Self {
        Self {
            invocation_task_id: task_id(task.id),
            task_status: TaskStatus::of(task.status, &task.error_code),
            instance_id: task.instance_id,
        }
    }
}

impl From<ExecutionEntry> for InvocationTask {
    fn from(entry: ExecutionEntry) -> Self {
        let ExecutionEntry { result, invocation } = entry;
        let (bucket, prefix) = place::split(&invocation.oss_output_delivery);
        let times = [result.start_time, result.stop_time, result.finish_time];
        Self {
            invocation_id: result.invoke_id.to_long_form(),
            invocation_task_id: task_id(result.execution_id),
            command_id: result.command_id.to_long_form(),
            command_name: name(result.command_id, invocation.command_name.clone()),
            task_status: TaskStatus::of(result.status, &result.error_code),
            instance_id: result.instance_id,
            task_result: TaskResult {
                exit_code: result.exit_code,
                output: result.output,
                exec_start_time: result.start_time,
                exec_end_time: result.finish_time.filter(|_| result.start_time.is_some()),
                dropped: result.dropped,
                output_url: result.oss_output_uri,
                output_upload_cos_error_info: result.oss_output_error_info,
            },
            start_time: result.start_time,
            end_time: result.finish_time,
            created_time: invocation.creation_time,
            updated_time: latest(invocation.creation_time, times),
            command_document: CommandDocument {
                content: invocation.command_content.clone(),
                command_type: type_name(invocation.command_type),
                timeout: invocation.timeout,
                working_directory: invocation.working_dir.clone(),
                username: invocation.username.clone(),
                output_cos_bucket_url: bucket,
                output_cos_key_prefix: prefix,
            },
            error_info: result.error_info,
            invocation_source: source(&invocation),
        }
    }
}

impl From<Agent> for AutomationAgentInfo {
    fn from(theirs: Agent) -> Self {
        let Agent { instance, last_heartbeat_time } = theirs;
        let status = match instance.agent_status {
            AgentStatus::Online => "Online",
            AgentStatus::Offline | AgentStatus::NotInstalled => "Offline",
        };
        Self {
            version: match instance.agent_version {
                version if version.is_empty() && instance.executor == LOCAL => {
                    env!("CARGO_PKG_VERSION").to_owned()
                }
                version => version,
            },
            instance_id: instance.instance_id,
            last_heartbeat_time,
            agent_status: status.to_owned(),
            environment: instance.os_type.to_string(),
            support_features: Vec::new(),
        }
    }
}

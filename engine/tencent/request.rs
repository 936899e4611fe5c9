//! The requests of this dialect: as JSON, the bodies of its actions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::response::Hidden;

use crate::command::parameters::Parameters;
use crate::id::InstanceId;
use crate::tag::Tag;
use crate::wire::{Ignored, lenient};

/// A request: its own fields, and those that every request may have and that mean nothing here.
macro_rules! action_request {
    ($(#[$about:meta])* pub struct $name:ident { $($(#[$own_about:meta])* pub $own:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$own_about])* pub $own: $type,)*
            /// Read and not used: the call itself says which action it is.
            #[serde(skip_serializing)]
            pub action: Ignored,
            /// Read and not used.
            #[serde(skip_serializing)]
            pub version: Ignored,
            /// Read and not used; this library has no regions.
            #[serde(skip_serializing)]
            pub region: Ignored,
        }
    };
}

/// A default of a parameter.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct DefaultParameterConf {
    /// The parameter.
    pub parameter_name: String,
    /// What it is if no value is given for it.
    pub parameter_value: String,
    /// What it is for. Read and not kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parameter_description: String,
}

/// Without the value, which may be a secret.
impl fmt::Debug for DefaultParameterConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DefaultParameterConf")
            .field("parameter_name", &self.parameter_name)
            .field("parameter_value", &Hidden)
            .field("parameter_description", &self.parameter_description)
            .finish()
    }
}

/// What a listing is narrowed to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct Filter {
    /// What has to have one of the values.
    pub name: String,
    /// The values, 1 to 5.
    pub values: Vec<String>,
}

impl Filter {
    /// A filter of this name and these values.
    pub fn new<V: Into<String>>(
        name: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        Self { name: name.into(), values: values.into_iter().map(Into::into).collect() }
    }
}

action_request! {
/// Runs a command that comes with the request.
pub struct RunCommand {
    /// The script, as Base64. Required, at most 64 KB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The instances to run on, 1 to 100, all of one kind. Required.
    pub instance_ids: Vec<InstanceId>,
    /// A name for people: at most 60 of `A-Z`, `a-z`, `0-9`, `_`, `.` and `-`. A kept command needs
    /// one that no other has, and gets one if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_name: Option<String>,
    /// What it is for. At most 120 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `SHELL`, `POWERSHELL` or `BAT`; `SHELL` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_type: Option<String>,
    /// The directory to run in; the user's home if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Seconds a run may take, 1 to 86,400; 60 if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Whether the command stays for later invocations.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub save_command: Option<bool>,
    /// Whether `{{name}}` in the script is a parameter.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub enable_parameter: Option<bool>,
    /// What parameters are that no value is given for, as the JSON text of an object. At most 20.
    #[serde(with = "json_text", skip_serializing_if = "Option::is_none")]
    pub default_parameters: Option<Parameters>,
    /// The same as a list; not both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_parameter_confs: Vec<DefaultParameterConf>,
    /// Values for the parameters, as the JSON text of an object. At most 20.
    #[serde(with = "json_text", skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
    /// Tags of the command, if it is saved. At most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// The user to run as; the host's own if none is given. At most 256 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The bucket that the whole output goes to: `https://` and a host.
    #[serde(rename = "OutputCOSBucketUrl", skip_serializing_if = "Option::is_none")]
    pub output_cos_bucket_url: Option<String>,
    /// The folders in it. At most 60 visible characters.
    #[serde(rename = "OutputCOSKeyPrefix", skip_serializing_if = "Option::is_none")]
    pub output_cos_key_prefix: Option<String>,
}
}

action_request! {
/// Stores a command for later invocations.
pub struct CreateCommand {
    /// A name for people that no other command has. Required; as for [`RunCommand`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_name: Option<String>,
    /// The script, as Base64. Required, at most 64 KB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// What it is for. At most 120 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `SHELL`, `POWERSHELL` or `BAT`; `SHELL` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_type: Option<String>,
    /// The directory to run in; the user's home if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Seconds a run may take, 1 to 86,400; 60 if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Whether `{{name}}` in the script is a parameter. Stays as it is.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub enable_parameter: Option<bool>,
    /// What parameters are that no value is given for, as the JSON text of an object. At most 20.
    #[serde(with = "json_text", skip_serializing_if = "Option::is_none")]
    pub default_parameters: Option<Parameters>,
    /// The same as a list; not both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_parameter_confs: Vec<DefaultParameterConf>,
    /// Tags of the command. At most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// The user to run as; the host's own if none is given. At most 256 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The bucket that whole outputs go to: `https://` and a host.
    #[serde(rename = "OutputCOSBucketUrl", skip_serializing_if = "Option::is_none")]
    pub output_cos_bucket_url: Option<String>,
    /// The folders in it. At most 60 visible characters.
    #[serde(rename = "OutputCOSKeyPrefix", skip_serializing_if = "Option::is_none")]
    pub output_cos_key_prefix: Option<String>,
}
}

action_request! {
/// Changes what is given of a stored command. Invocations that exist keep what they were made from.
pub struct ModifyCommand {
    /// The command to change. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// The new name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_name: Option<String>,
    /// The new description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The new script, as Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The new language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_type: Option<String>,
    /// The new working directory; empty for the user's home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// The new timeout, in seconds.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// The new defaults of parameters, all of them, where the command takes parameters.
    #[serde(with = "json_text", skip_serializing_if = "Option::is_none")]
    pub default_parameters: Option<Parameters>,
    /// The same as a list; not both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub default_parameter_confs: Vec<DefaultParameterConf>,
    /// The new user to run as; empty for the host's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The new bucket for whole outputs; empty for none.
    #[serde(rename = "OutputCOSBucketUrl", skip_serializing_if = "Option::is_none")]
    pub output_cos_bucket_url: Option<String>,
    /// The new folders in it; empty for none.
    #[serde(rename = "OutputCOSKeyPrefix", skip_serializing_if = "Option::is_none")]
    pub output_cos_key_prefix: Option<String>,
}
}

action_request! {
/// Deletes a stored command; the records of its runs stay.
pub struct DeleteCommand {
    /// The command. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
}
}

action_request! {
/// Deletes stored commands: all of them, or none.
pub struct DeleteCommands {
    /// The commands, 1 to 100. Required.
    pub command_ids: Vec<String>,
}
}

action_request! {
/// Which stored commands to list.
pub struct DescribeCommands {
    /// Only these. At most 100, and not with filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command_ids: Vec<String>,
    /// By `command-id`, `command-name`, `command-type`, `created-by`, `tag-key`, `tag-value` or
    /// `tag:KEY`. At most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Entries at most, 1 to 100; 20 if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Entries that are left out first; none if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}
}

action_request! {
/// Runs a stored command.
pub struct InvokeCommand {
    /// The command. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// The instances to run on, 1 to 100, all of one kind. Required.
    pub instance_ids: Vec<InstanceId>,
    /// Values for the parameters, as the JSON text of an object. At most 20.
    #[serde(with = "json_text", skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
    /// The user to run as; the command's if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The directory to run in; the command's if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Seconds a run may take; the command's if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// The bucket that the whole output goes to; the command's if none is given.
    #[serde(rename = "OutputCOSBucketUrl", skip_serializing_if = "Option::is_none")]
    pub output_cos_bucket_url: Option<String>,
    /// The folders in it; the command's if none are given.
    #[serde(rename = "OutputCOSKeyPrefix", skip_serializing_if = "Option::is_none")]
    pub output_cos_key_prefix: Option<String>,
}
}

action_request! {
/// Cancels an invocation, or its tasks on some instances: what waits never runs, what runs is ended.
pub struct CancelInvocation {
    /// The invocation. Required.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_id: Option<String>,
    /// Only on these instances. At most 100; on all if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<InstanceId>,
}
}

action_request! {
/// Which invocations to list.
pub struct DescribeInvocations {
    /// Only these. At most 100, and not with filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invocation_ids: Vec<String>,
    /// By `invocation-id`, `command-id` or `instance-kind`. At most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Entries at most, 1 to 100; 20 if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Entries that are left out first; none if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}
}

action_request! {
/// Which tasks to list.
pub struct DescribeInvocationTasks {
    /// Only these. At most 100, and not with filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub invocation_task_ids: Vec<String>,
    /// By `invocation-task-id`, `invocation-id`, `instance-id` or `command-id`. At most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Entries at most, 1 to 100; 20 if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Entries that are left out first; none if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
    /// Whether outputs are left out; they are if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub hide_output: Option<bool>,
}
}

action_request! {
/// Asks what a script comes to with its parameters filled in. Nothing runs and nothing is stored.
pub struct PreviewReplacedCommandContent {
    /// Values for the parameters, as the JSON text of an object. At most 20.
    #[serde(with = "json_text", skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Parameters>,
    /// The stored command, whose defaults hold; or give `Content`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<String>,
    /// The script, as Base64; or give `CommandId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}
}

action_request! {
/// Of which instances to tell whether their agents are up.
pub struct DescribeAutomationAgentStatus {
    /// Only these, all of which have to be there. At most 100, and not with filters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<InstanceId>,
    /// By `agent-status`, `environment` or `instance-id`. At most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Entries at most, 1 to 100; 20 if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Entries that are left out first; none if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}
}

action_request! {
/// Asks how much of quotas is used.
pub struct DescribeQuotas {
    /// Of what: `COMMAND`. Required.
    pub resource_names: Vec<String>,
}
}

/// Values of parameters as the JSON text that requests have; an object is understood as well.
mod json_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::command::parameters::{Parameters, as_text};

    pub(super) fn serialize<S: Serializer>(
        parameters: &Option<Parameters>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match parameters {
            Some(parameters) => as_text::serialize(parameters, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Parameters>, D::Error> {
        Option::deserialize(d)
    }
}

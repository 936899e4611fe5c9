//! Instances: the targets that the host application registers.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::id::InstanceId;
use crate::limits::Limits;
use crate::schedule::Zone;
use crate::tag::{self, Tag, TagUse};
use crate::text::{is_invisible, is_of_ids};
use crate::wire::{self, UnreadableRecord, lenient, page_request, page_response, text_enum};

/// The name of the executor that serves the local machine, and of the instance that stands for it.
pub const LOCAL: &str = "local";

/// The kind of system an instance runs; decides which command types suit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum OsType {
    /// Shell scripts.
    #[default]
    Linux,
    /// PowerShell and batch scripts.
    Windows,
}

text_enum!(OsType, "kind of system", [Linux, Windows]);

/// Whether an instance takes commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum InstanceState {
    /// Takes commands.
    #[default]
    Running,
    /// Takes none: a request that names it is refused.
    Stopped,
}

text_enum!(InstanceState, "state of an instance", [Running, Stopped]);

/// The state of the agent that serves an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum AgentStatus {
    /// The agent is up.
    #[default]
    Online,
    /// The agent is down: a request that names the instance is refused.
    Offline,
    /// There is no agent: a request that names the instance is refused.
    NotInstalled,
}

text_enum!(AgentStatus, "status of an agent", [Online, Offline, NotInstalled]);

/// A target of invocations: its name, its properties, and the executor that serves it.
///
/// # Three names served by this machine
///
/// ```
/// use adjutant::Instance;
///
/// let fleet: Vec<Instance> = (1..=3).map(|n| Instance::new(format!("i-{n}"))).collect();
/// assert_eq!(fleet[2].instance_id.as_str(), "i-3");
/// assert_eq!(fleet[2].executor, "local");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct Instance {
    /// The host's name for the instance. 1 to 128 characters: letters and digits of ASCII and `._:@-`, or more if the
    /// [`Limits`] say so.
    pub instance_id: InstanceId,
    /// A name for people. At most 128 characters, without control characters and [invisible](crate::is_invisible) ones.
    /// A script finds it in `ADJUTANT_INSTANCE_NAME`; only a name of letters, digits and `._:@-` is filled in for
    /// `{{ACS::InstanceName}}`.
    #[serde(rename = "InstanceName", default)]
    pub name: String,
    /// The kind of its operating system.
    #[serde(rename = "OSType", default)]
    pub os_type: OsType,
    /// Whether it takes commands.
    #[serde(rename = "Status", default)]
    pub state: InstanceState,
    /// The executor that serves it, by the name it was given to the engine under.
    #[serde(default = "local")]
    pub executor: String,
    /// The state of its agent, as far as the host knows.
    #[serde(default)]
    pub agent_status: AgentStatus,
    /// The version of its agent, if the host states it. At most 128 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent_version: String,
    /// The kind of machine, if requests must not mix kinds (see [`Limits::one_kind_of_instance`]). At most 128
    /// characters.
    #[serde(rename = "InstanceKind", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Attributes that the host keeps with the instance. At most 100, of at most 4,096 bytes each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The group that it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_group_id: Option<String>,
    /// The tags that select it. At most 1,000, each key once.
    #[serde(rename = "Tag", default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// The time zone of the instance, which schedules without a zone follow; this machine's zone if not given. An
    /// invocation keeps the zones that its instances have when the invocation is made, as it keeps its script. A
    /// later change of a zone applies to later invocations only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Zone>,
    /// The shell for scripts without a `#!` line: a path, or a name that is looked up in PATH, without arguments. If
    /// none is given, the executor's own shell. 1 to 255 characters, without white space and control characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// The number of executions, of all invocations together, that may run on it at a time. At least 1; any number if
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
}

/// The most attributes of an instance; more data belongs into tables of the host's own.
const ATTRIBUTES_MAX: usize = 100;
/// The longest attribute, in bytes of its key and value.
const ATTRIBUTE_BYTES_MAX: usize = 4_096;

/// The longest path or name of a shell.
const SHELL_CHARS_MAX: usize = 255;

fn is_shell(text: &str) -> bool {
    (1..=SHELL_CHARS_MAX).contains(&text.chars().count())
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn local() -> String {
    LOCAL.to_owned()
}

impl Instance {
    /// A running Linux instance that the local executor serves.
    pub fn new(instance_id: impl Into<InstanceId>) -> Self {
        Self {
            instance_id: instance_id.into(),
            name: String::new(),
            os_type: OsType::default(),
            state: InstanceState::default(),
            executor: local(),
            agent_status: AgentStatus::default(),
            agent_version: String::new(),
            kind: None,
            attributes: BTreeMap::new(),
            resource_group_id: None,
            tags: Vec::new(),
            time_zone: None,
            shell: None,
            max_concurrency: None,
        }
    }

    /// Sets the name for people.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the executor that serves it.
    #[must_use]
    pub fn executor(mut self, executor: impl Into<String>) -> Self {
        self.executor = executor.into();
        self
    }

    /// Sets the state of its agent.
    #[must_use]
    pub fn agent_status(mut self, status: AgentStatus) -> Self {
        self.agent_status = status;
        self
    }

    /// Sets the version of its agent.
    #[must_use]
    pub fn agent_version(mut self, version: impl Into<String>) -> Self {
        self.agent_version = version.into();
        self
    }

    /// Sets the kind of machine.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Keeps something with it.
    #[must_use]
    pub fn attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// Sets the group it belongs to.
    #[must_use]
    pub fn resource_group(mut self, id: impl Into<String>) -> Self {
        self.resource_group_id = Some(id.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.push(Tag::new(key, value));
        self
    }

    /// Sets the zone of its clock.
    #[must_use]
    pub fn time_zone(mut self, zone: Zone) -> Self {
        self.time_zone = Some(zone);
        self
    }

    /// Sets the shell for scripts without a `#!` line.
    #[must_use]
    pub fn shell(mut self, shell: impl Into<String>) -> Self {
        self.shell = Some(shell.into());
        self
    }

    /// Bounds the executions that run on it at a time.
    #[must_use]
    pub fn max_concurrency(mut self, executions: u32) -> Self {
        self.max_concurrency = Some(executions);
        self
    }

    /// Sets the kind of its operating system.
    #[must_use]
    pub fn os_type(mut self, os_type: OsType) -> Self {
        self.os_type = os_type;
        self
    }

    /// Sets whether it takes commands.
    #[must_use]
    pub fn state(mut self, state: InstanceState) -> Self {
        self.state = state;
        self
    }

    pub(crate) fn violations(&self, limits: &Limits) -> Vec<Violation> {
        let mut found = Vec::new();
        let id = self.instance_id.as_str();
        let chars = id.chars().count();
        let (is_allowed, which): (fn(char) -> bool, _) = match limits.instance_ids_are_free {
            true => (|c| !is_invisible(c), "none a control character or invisible"),
            false => (is_of_ids, "letters and digits of ASCII and `._:@-` only"),
        };
        if !(1..=128).contains(&chars) || !id.chars().all(is_allowed) {
            let message = format!(
                "want 1 to 128 characters, {which}; `{}` has {chars}",
                wire::shortened(&id.escape_debug().to_string())
            );
            found.push(Violation::new("InvalidInstanceId.Malformed", 400, "InstanceId", message));
        }
        let texts = [
            ("InvalidInstanceName.Malformed", "InstanceName", self.name.as_str()),
            ("InvalidParameter.AgentVersion", "AgentVersion", self.agent_version.as_str()),
            ("InvalidParameter.InstanceKind", "InstanceKind", self.kind.as_deref().unwrap_or("")),
        ];
        for (code, field, text) in texts {
            let chars = text.chars().count();
            if chars > 128 || text.contains(is_invisible) {
                let message = format!(
                    "want at most 128 characters, none a control character or invisible; it has {chars}"
                );
                found.push(Violation::new(code, 400, field, message));
            }
        }
        let (code, field) = ("InvalidParameter.Attributes", "Attributes");
        let given = self.attributes.len();
        if given > ATTRIBUTES_MAX {
            let message = format!("want at most {ATTRIBUTES_MAX}; it has {given}");
            found.push(Violation::new(code, 400, field, message));
        }
        let sizes = self.attributes.iter().map(|(key, value)| key.len() + value.len());
        if let Some(bytes) = sizes.max().filter(|bytes| *bytes > ATTRIBUTE_BYTES_MAX) {
            let message = format!("want at most {ATTRIBUTE_BYTES_MAX} bytes each; one has {bytes}");
            found.push(Violation::new(code, 400, field, message));
        }
        if let Some(shell) = self.shell.as_deref().filter(|shell| !is_shell(shell)) {
            let message = format!(
                "want a path or a name without arguments: 1 to {SHELL_CHARS_MAX} characters, none white space or a \
                 control character; it is `{}`",
                wire::shortened(&shell.escape_debug().to_string())
            );
            found.push(Violation::new("InvalidParameter.Shell", 400, "Shell", message));
        }
        if self.max_concurrency == Some(0) {
            let (code, field) = ("InvalidParameter.MaxConcurrency", "MaxConcurrency");
            found.push(Violation::new(code, 400, field, "want at least 1; it is 0"));
        }
        tag::check(&self.tags, TagUse::Instance, limits, &mut found);
        found
    }
}

page_request! {
/// Lists instances.
#[non_exhaustive]
pub struct DescribeInstances {
    /// Only these; all if empty.
    #[serde(rename = "InstanceId", skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<InstanceId>,
    /// Lists only instances that have all of these tags.
    #[serde(rename = "Tag", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
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

wire::setters!(DescribeInstances {
    tags tags, "Lists only instances that have this tag, beside those given before.";
    number max_results: usize, "Sets the most entries of a page.";
    some next_token: String, "Asks for the page after another, by its `NextToken`.";
    number page_number: usize, "Asks for the page of this number, from 1.";
    number page_size: usize, "Sets the entries of a page, where pages go by number.";
});

impl DescribeInstances {
    /// Lists only these instances.
    #[must_use]
    pub fn only<I: Into<InstanceId>>(mut self, instances: impl IntoIterator<Item = I>) -> Self {
        self.instance_ids = instances.into_iter().map(Into::into).collect();
        self
    }
}

crate::wire::wrapped_list!(instance_list, "Instance");

page_response! {
/// A page of instances, in the order of their registration.
pub struct DescribeInstancesResponse {
    /// The instances.
    #[serde(with = "instance_list")]
    pub instances: Vec<Instance>,
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

page_request! {
/// Lists the state of the agents of instances.
#[non_exhaustive]
pub struct DescribeCloudAssistantStatus {
    /// Only these, as many as a page has at most; all if empty.
    #[serde(rename = "InstanceId", skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<InstanceId>,
    /// Lists only instances with this kind of operating system.
    #[serde(rename = "OSType", skip_serializing_if = "Option::is_none")]
    pub os_type: Option<OsType>,
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

wire::setters!(DescribeCloudAssistantStatus {
    some os_type: OsType, "Lists only agents of instances that run this.";
    number max_results: usize, "Sets the most entries of a page.";
    some next_token: String, "Asks for the page after another, by its `NextToken`.";
    number page_number: usize, "Asks for the page of this number, from 1.";
    number page_size: usize, "Sets the entries of a page, where pages go by number.";
});

impl DescribeCloudAssistantStatus {
    /// Lists only the agents of these instances.
    #[must_use]
    pub fn only<I: Into<InstanceId>>(mut self, instances: impl IntoIterator<Item = I>) -> Self {
        self.instance_ids = instances.into_iter().map(Into::into).collect();
        self
    }
}

/// The state of an instance's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct InstanceCloudAssistantStatus {
    /// The instance.
    pub instance_id: InstanceId,
    /// The kind of its operating system.
    #[serde(rename = "OSType")]
    pub os_type: OsType,
    /// Whether it takes commands: `"true"` or `"false"`, as the pages write it.
    #[serde(with = "boolean_text")]
    pub cloud_assistant_status: bool,
    /// Whether its agent is up.
    pub agent_status: AgentStatus,
    /// The version of its agent; this library's of this machine.
    pub cloud_assistant_version: String,
    /// When the host last told of it; now of this machine.
    #[serde(with = "wire::time::optional")]
    pub last_heartbeat_time: Option<DateTime<Utc>>,
    /// When something was last started there.
    #[serde(with = "wire::time::optional")]
    pub last_invoked_time: Option<DateTime<Utc>>,
    /// How many executions wait or run there.
    pub active_task_count: u64,
    /// How many there have been in all.
    pub invocation_count: u64,
    /// Whether there are interactive sessions: there are none.
    pub support_session_manager: bool,
}

/// A boolean as the text that the pages make of it.
mod boolean_text {
    use serde::{Deserializer, Serializer};

    use crate::wire::lenient;

    pub(super) fn serialize<S: Serializer>(value: &bool, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(if *value { "true" } else { "false" })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
        lenient::value(d)
    }
}

crate::wire::wrapped_list!(status_list, "InstanceCloudAssistantStatus");

page_response! {
/// A page of the states of agents, in the order of the registration of their instances.
pub struct DescribeCloudAssistantStatusResponse {
    /// One entry for each instance.
    #[serde(with = "status_list")]
    pub instance_cloud_assistant_status_set: Vec<InstanceCloudAssistantStatus>,
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

//! Instances: the targets that the host application registers.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::id::InstanceId;
use crate::limits::Limits;
use crate::schedule::Zone;
use crate::tag::{self, Tag, TagUse};

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

impl OsType {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Windows => "Windows",
        }
    }
}

impl fmt::Display for OsType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whether an instance takes commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum InstanceState {
    /// Takes commands.
    #[default]
    Running,
    /// Takes none: a request that names it is refused.
    Stopped,
}

impl InstanceState {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Stopped => "Stopped",
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A target: a name, what it is, and which executor takes commands to it.
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
    /// The host's name for it. 1 to 128 characters, no control characters.
    pub instance_id: InstanceId,
    /// A name for people.
    #[serde(rename = "InstanceName", default)]
    pub name: String,
    /// What it runs.
    #[serde(rename = "OSType", default)]
    pub os_type: OsType,
    /// Whether it takes commands.
    #[serde(rename = "Status", default)]
    pub state: InstanceState,
    /// The executor that serves it, by the name it was given to the engine under.
    #[serde(default = "local")]
    pub executor: String,
    /// The group it belongs to, if it does to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_group_id: Option<String>,
    /// What selects it, beside its name. At most 1,000, each key once.
    #[serde(rename = "Tag", default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// The zone of its clock, which schedules without one follow; this machine's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Zone>,
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
            resource_group_id: None,
            tags: Vec::new(),
            time_zone: None,
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

    /// Sets what it runs.
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
        if !(1..=128).contains(&chars) || id.chars().any(char::is_control) {
            found.push(Violation::new(
                "InvalidInstanceId.Malformed",
                400,
                "InstanceId",
                format!("want 1 to 128 characters, none a control character; it has {chars}"),
            ));
        }
        let chars = self.name.chars().count();
        if chars > 128 {
            found.push(Violation::new(
                "InvalidInstanceName.Malformed",
                400,
                "InstanceName",
                format!("want at most 128 characters; it has {chars}"),
            ));
        }
        tag::check(&self.tags, TagUse::Instance, limits, &mut found);
        found
    }
}

/// Which instances to list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct DescribeInstances {
    /// Only these; all if empty.
    #[serde(rename = "InstanceId", skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<InstanceId>,
    /// Entries a page, 1 to 50; 10 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_results: Option<usize>,
    /// The `NextToken` of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

crate::wire::wrapped_list!(instance_list, "Instance");

/// A page of instances, in the order of their registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct DescribeInstancesResponse {
    /// Names this call.
    pub request_id: String,
    /// The instances.
    #[serde(with = "instance_list")]
    pub instances: Vec<Instance>,
    /// Gets the next page; empty after the last.
    pub next_token: String,
}

//! Requests that make invocations, and the one that stops them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::recurrence::{MissedPolicy, OverlapPolicy, Recurrence, Repetition};
use super::{RepeatMode, TerminationMode};
use crate::command::content::{self, Content};
use crate::command::{CommandType, check_texts, check_timeout};
use crate::error::Violation;
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::limits::Limits;
use crate::wire::{self, ContentEncoding};

/// Creates a command and runs it in one call.
///
/// As JSON, `CommandContent` is plain text unless `ContentEncoding` says `Base64`.
///
/// # From a page's example
///
/// ```
/// use adjutant::RunCommand;
///
/// let request: RunCommand = serde_json::from_str(r#"{
///     "RegionId": "cn-hangzhou", "Name": "testName", "Type": "RunShellScript",
///     "CommandContent": "ZWNobyAxMjM=", "ContentEncoding": "Base64",
///     "WorkingDir": "/home/user", "Timeout": 3600, "InstanceId": ["i-1", "i-2"]
/// }"#)?;
/// assert_eq!(request.instance_ids.len(), 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct RunCommand {
    /// A region of the pages' services; accepted and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// A name for people. At most 128 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it is for. At most 512 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The language.
    #[serde(rename = "Type")]
    pub command_type: CommandType,
    /// The script, encoded as the next field says.
    pub command_content: String,
    /// `PlainText` or `Base64`; anything else, also nothing, means plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The directory to run in; the user's home if none is given. At most 200 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Seconds a run may take; 60 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// Whether the command stays for later invocations.
    #[serde(default)]
    pub keep_command: bool,
    /// When it runs.
    #[serde(default)]
    pub repeat_mode: RepeatMode,
    /// The schedule to run on: `rate(5m)`, `at(2030-01-01 08:00:00)` or `0 30 2 * * ?`, the latter
    /// two with a time zone if you like. A cron expression without one follows each instance's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency: Option<String>,
    /// What a fire does where the execution before it has not ended.
    #[serde(default)]
    pub overlap_policy: OverlapPolicy,
    /// What becomes of nominal times that nobody was there for.
    #[serde(default)]
    pub missed_policy: MissedPolicy,
    /// Seconds over which the timers of schedules are spread: each fires so much later than its
    /// nominal times as its id determines, always the same and less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<u64>,
    /// No nominal time after this one fires; then the invocation ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime<Utc>>,
    /// How often the schedule fires in each zone of its instances, after which the invocation ends.
    /// What is skipped or missed does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fires: Option<u64>,
    /// Accepted and not used, as on the pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timed: Option<bool>,
    /// What a timeout or a stop ends.
    #[serde(default)]
    pub termination_mode: TerminationMode,
    /// The instances to run on, 1 to 100.
    #[serde(rename = "InstanceId", default)]
    pub instance_ids: Vec<InstanceId>,
}

impl RunCommand {
    /// A shell script, given as it is. Bytes that are no UTF-8 are taken too.
    pub fn shell(script: impl AsRef<[u8]>) -> Self {
        let script = script.as_ref();
        let (command_content, encoding) = match std::str::from_utf8(script) {
            Ok(text) => (text.to_owned(), ContentEncoding::PlainText),
            Err(_) => (wire::to_base64(script), ContentEncoding::Base64),
        };
        Self {
            command_content,
            content_encoding: Some(encoding.as_str().to_owned()),
            ..Self::default()
        }
    }

    /// Sets the name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Keeps the command for later invocations.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.keep_command = true;
        self
    }

    /// Checks the request, takes its content out of its encoding and reads its schedule.
    pub(crate) fn check(&self, limits: &Limits) -> Checked {
        let mut found = Vec::new();
        let encoding = self.content_encoding.as_deref().and_then(ContentEncoding::parse);
        let bytes_max = if self.keep_command {
            limits.kept_content_bytes_max
        } else {
            limits.unkept_content_bytes_max
        };
        check_instance_ids(&self.instance_ids, limits, &mut found);
        let content = content::check(
            &self.command_content,
            encoding.unwrap_or(ContentEncoding::PlainText),
            bytes_max,
            &mut found,
        );
        check_texts(&self.name, &self.description, self.working_dir.as_deref(), limits, &mut found);
        check_timeout(self.timeout, 1, limits, &mut found);
        let recurrence = self.repetition().check(limits, &mut found);
        Checked { content, recurrence, violations: found }
    }
}

/// What the check of a run came to.
#[derive(Debug)]
pub(crate) struct Checked {
    pub content: Option<Content>,
    pub recurrence: Option<Recurrence>,
    pub violations: Vec<Violation>,
}

/// What a run got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct RunCommandResponse {
    /// Names this call.
    pub request_id: String,
    /// The command, whether it is kept or not.
    pub command_id: CommandId,
    /// The invocation.
    pub invoke_id: InvokeId,
}

/// Runs a stored command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct InvokeCommand {
    /// A region of the pages' services; accepted and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// The command.
    pub command_id: CommandId,
    /// The directory to run in; the command's if none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Seconds a run may take, at least 10; the command's if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// When it runs.
    #[serde(default)]
    pub repeat_mode: RepeatMode,
    /// The schedule to run on: `rate(5m)`, `at(2030-01-01 08:00:00)` or `0 30 2 * * ?`, the latter
    /// two with a time zone if you like. A cron expression without one follows each instance's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency: Option<String>,
    /// What a fire does where the execution before it has not ended.
    #[serde(default)]
    pub overlap_policy: OverlapPolicy,
    /// What becomes of nominal times that nobody was there for.
    #[serde(default)]
    pub missed_policy: MissedPolicy,
    /// Seconds over which the timers of schedules are spread: each fires so much later than its
    /// nominal times as its id determines, always the same and less than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<u64>,
    /// No nominal time after this one fires; then the invocation ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<DateTime<Utc>>,
    /// How often the schedule fires in each zone of its instances, after which the invocation ends.
    /// What is skipped or missed does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fires: Option<u64>,
    /// Accepted and not used, as on the pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timed: Option<bool>,
    /// What a timeout or a stop ends.
    #[serde(default)]
    pub termination_mode: TerminationMode,
    /// The instances to run on, 1 to 100.
    #[serde(rename = "InstanceId", default)]
    pub instance_ids: Vec<InstanceId>,
}

impl InvokeCommand {
    /// Runs a command as it was stored.
    pub fn new(command_id: CommandId) -> Self {
        Self {
            region_id: None,
            command_id,
            working_dir: None,
            timeout: None,
            repeat_mode: RepeatMode::Once,
            frequency: None,
            overlap_policy: OverlapPolicy::default(),
            missed_policy: MissedPolicy::default(),
            spread: None,
            end_time: None,
            max_fires: None,
            timed: None,
            termination_mode: TerminationMode::default(),
            instance_ids: Vec::new(),
        }
    }

    /// Checks the request and reads its schedule.
    pub(crate) fn check(&self, limits: &Limits) -> (Option<Recurrence>, Vec<Violation>) {
        let mut found = Vec::new();
        check_instance_ids(&self.instance_ids, limits, &mut found);
        check_texts("", "", self.working_dir.as_deref(), limits, &mut found);
        check_timeout(self.timeout, limits.invoke_timeout_s_min, limits, &mut found);
        let recurrence = self.repetition().check(limits, &mut found);
        (recurrence, found)
    }
}

/// What an invocation of a stored command got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct InvokeCommandResponse {
    /// Names this call.
    pub request_id: String,
    /// The invocation.
    pub invoke_id: InvokeId,
}

/// What can be set of both requests that make invocations.
macro_rules! common_builders {
    ($request:ident) => {
        impl $request {
            /// Sets the instances to run on.
            #[must_use]
            pub fn on<I: Into<InstanceId>>(
                mut self,
                instances: impl IntoIterator<Item = I>,
            ) -> Self {
                self.instance_ids = instances.into_iter().map(Into::into).collect();
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

            /// Sets what a timeout or a stop ends.
            #[must_use]
            pub fn termination_mode(mut self, mode: TerminationMode) -> Self {
                self.termination_mode = mode;
                self
            }

            /// Runs it on a schedule instead of at once.
            #[must_use]
            pub fn frequency(mut self, schedule: impl Into<String>) -> Self {
                self.frequency = Some(schedule.into());
                self
            }

            /// Sets what a fire does where the execution before it has not ended.
            #[must_use]
            pub fn overlap_policy(mut self, policy: OverlapPolicy) -> Self {
                self.overlap_policy = policy;
                self
            }

            /// Sets what becomes of nominal times that nobody was there for.
            #[must_use]
            pub fn missed_policy(mut self, policy: MissedPolicy) -> Self {
                self.missed_policy = policy;
                self
            }

            /// Says when it runs, where no schedule does: at once, or when an instance boots.
            #[must_use]
            pub fn repeat_mode(mut self, mode: RepeatMode) -> Self {
                self.repeat_mode = mode;
                self
            }

            /// Spreads the timers of the schedule over so many seconds.
            #[must_use]
            pub fn spread(mut self, seconds: u64) -> Self {
                self.spread = Some(seconds);
                self
            }

            /// Ends the schedule with the last nominal time that is not after this.
            #[must_use]
            pub fn end_time(mut self, end: DateTime<Utc>) -> Self {
                self.end_time = Some(end);
                self
            }

            /// Ends the schedule after so many fires.
            #[must_use]
            pub fn max_fires(mut self, fires: u64) -> Self {
                self.max_fires = Some(fires);
                self
            }

            fn repetition(&self) -> Repetition<'_> {
                Repetition {
                    mode: self.repeat_mode,
                    frequency: self.frequency.as_deref(),
                    overlap: self.overlap_policy,
                    missed: self.missed_policy,
                    spread_s: self.spread,
                    end: self.end_time,
                    fires_max: self.max_fires,
                }
            }
        }
    };
}

common_builders!(RunCommand);
common_builders!(InvokeCommand);

/// Stops an invocation, or its executions on some instances: what waits is cancelled, what runs is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct StopInvocation {
    /// A region of the pages' services; accepted and not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_id: Option<String>,
    /// The invocation.
    pub invoke_id: InvokeId,
    /// Only on these instances, 1 to 50; on all if empty.
    #[serde(rename = "InstanceId", default, skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<InstanceId>,
}

impl StopInvocation {
    /// Stops all of an invocation.
    pub fn new(invoke_id: InvokeId) -> Self {
        Self { region_id: None, invoke_id, instance_ids: Vec::new() }
    }

    /// Stops it on these instances only.
    #[must_use]
    pub fn on<I: Into<InstanceId>>(mut self, instances: impl IntoIterator<Item = I>) -> Self {
        self.instance_ids = instances.into_iter().map(Into::into).collect();
        self
    }

    pub(crate) fn violations(&self, limits: &Limits) -> Vec<Violation> {
        let mut found = Vec::new();
        if self.instance_ids.len() > limits.stop_instances_max {
            found.push(too_many_instances(limits.stop_instances_max, self.instance_ids.len()));
        }
        found
    }
}

/// What a stop did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct StopInvocationResponse {
    /// Names this call.
    pub request_id: String,
}

fn check_instance_ids(ids: &[InstanceId], limits: &Limits, found: &mut Vec<Violation>) {
    const FIELD: &str = "InstanceId";
    if ids.is_empty() {
        found.push(Violation::new(
            "MissingParam.InstanceId",
            400,
            FIELD,
            format!("name 1 to {} instances to run on", limits.instances_max),
        ));
    }
    if ids.len() > limits.instances_max {
        found.push(too_many_instances(limits.instances_max, ids.len()));
    }
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = ids.iter().find(|id| !seen.insert(*id)) {
        found.push(Violation::new(
            "InvalidInstanceId.Duplicate",
            400,
            FIELD,
            format!("`{twice}` is named twice; name each instance once"),
        ));
    }
}

fn too_many_instances(max: usize, given: usize) -> Violation {
    Violation::new(
        "InstanceIds.ExceedLimit",
        403,
        "InstanceId",
        format!("want at most {max} instances; it names {given}"),
    )
}

//! What became of nominal times: one entry for each, or for a stretch of them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::status::{ExecutionStatus, InvocationStatus};
use crate::wire::{self, UnreadableRecord, text_enum};

/// Which nominal times of an invocation to list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
#[non_exhaustive]
pub struct DescribeFires {
    /// The invocation.
    pub invoke_id: InvokeId,
    /// Entries a page, at least 1; the [`Limits`](crate::Limits) say how many at most, and how many if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<usize>,
    /// The `NextToken` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

impl DescribeFires {
    /// The newest fires of an invocation.
    pub fn new(invoke_id: InvokeId) -> Self {
        Self { invoke_id, max_results: None, next_token: None }
    }
}

wire::setters!(DescribeFires {
    number max_results: usize, "Sets the most entries of a page.";
    some next_token: String, "Asks for the page after another, by its `NextToken`.";
});

/// The reason of what would have fired while its invocation paused.
pub(crate) const PAUSED: &str = "the invocation paused";

/// What became of a nominal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FireDisposition {
    /// It fired; its executions say the rest.
    Started,
    /// It was passed over on purpose: the invocation paused, or a policy said so.
    Skipped,
    /// It passed, and perhaps others after it, while nobody was there to fire.
    Missed,
}

text_enum!(FireDisposition, "thing that becomes of a fire", [Started, Skipped, Missed]);

/// What became of one nominal time, or of a stretch of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Fire {
    /// The nominal time; the first of a stretch.
    pub time: DateTime<Utc>,
    /// The last of a stretch.
    pub until: Option<DateTime<Utc>>,
    /// How many nominal times this stands for.
    pub count: u64,
    /// What became of it.
    pub disposition: FireDisposition,
    /// Why it did not fire, or why it did beside its schedule; empty if it fired as planned.
    pub reason: String,
    /// The zone of the timer, for targets of several; empty if it fired beside its schedule.
    pub zone: String,
    /// When it was dealt with: the difference to its nominal time is how late that was. Of a
    /// stretch, when the last of it was.
    pub dealt_time: DateTime<Utc>,
    /// How the executions of the fire have ended, taken together; `None` while one of these executions has not ended,
    /// and for times that did not fire.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<InvocationStatus>,
}

crate::wire::wrapped_list!(fire_list, "Fire");

/// A page of nominal times, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct DescribeFiresResponse {
    /// Names this call.
    pub request_id: String,
    /// What became of them.
    #[serde(with = "fire_list")]
    pub fires: Vec<Fire>,
    /// The records of the page that cannot be understood.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unreadable: Vec<UnreadableRecord>,
    /// Gets the next page; empty after the last.
    pub next_token: String,
}

/// Why an invocation did or did not run at an instant; from
/// [`Engine::explain`](crate::Engine::explain).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Explanation {
    /// Names this call.
    pub request_id: String,
    /// The instant, to the second.
    pub instant: DateTime<Utc>,
    /// For each zone that the invocation fires in; a last one without a zone if it ran beside its schedule.
    pub entries: Vec<ExplanationEntry>,
}

/// What one timer of an invocation did at an instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ExplanationEntry {
    /// The timer's zone; empty for what ran beside the schedule.
    pub zone: String,
    /// One English sentence.
    pub text: String,
    /// The record of that nominal time, if there is one.
    pub fire: Option<Fire>,
    /// What became of it on each instance.
    pub executions: Vec<FiredOn>,
    /// The last nominal time before the instant that there is a record of.
    pub before: Option<Fire>,
    /// The first nominal time after the instant.
    pub after: Option<DateTime<Utc>>,
}

/// What became of a fire on one instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct FiredOn {
    /// The execution.
    pub execution_id: ExecutionId,
    /// The instance.
    pub instance_id: InstanceId,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// Why, if it went wrong or never ran.
    pub error_info: String,
}

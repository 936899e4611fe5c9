//! Executions: the record of one fire of an invocation on one instance.

mod remark;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::error::Violation;
use crate::given::{Given, unknown};
use crate::id::{CommandId, ExecutionId, InstanceId, InvokeId};
use crate::invocation::TerminationMode;
use crate::limits::Limits;
use crate::output::{Output, OutputStretch};
use crate::status::{Cause, ExecutionFilter, ExecutionStatus, InvocationStatus, InvokeStatus};
use crate::tag::{self, Tag};
use crate::wire::{
    self, Encoded, UnreadableRecord, lenient, page_request, page_response, text_enum,
};

pub(crate) use remark::Remark;

/// How an executor's work on a task ended. The executor reports an outcome; the engine decides the status that the
/// outcome leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It ended by itself with this exit code; 0 is success.
    Exited(i32),
    /// It was ended by a signal that the engine did not ask for.
    Signaled(i32),
    /// It was ended because the engine asked for it (see
    /// [`ExecutionContext::stop_asked`](crate::ExecutionContext::stop_asked)).
    Stopped {
        /// The signal that ended it, if one did.
        signal: Option<i32>,
        /// The exit code it left, if it did.
        exit_code: Option<i32>,
        /// The means that ended it, if an order to stop was not enough; otherwise empty.
        info: String,
    },
    /// The task does not suit the instance; nothing has run.
    Unsuitable {
        /// One of the pages' error codes, such as `DirectoryNotExists`.
        code: &'static str,
        /// The setting that does not suit, and a setting that would.
        info: String,
    },
    /// The instance could not be reached; nothing has run.
    Undeliverable {
        /// One of the pages' error codes, such as `ClientNotResponse`.
        code: &'static str,
        /// The attempts to reach the instance.
        info: String,
    },
    /// It could not be started, or not be seen through to its end.
    Broke {
        /// The fault, in words.
        info: String,
    },
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Exited(0)
    }
}

impl From<i32> for Outcome {
    fn from(exit_code: i32) -> Self {
        Self::Exited(exit_code)
    }
}

impl<T: Into<Outcome>, E: std::fmt::Display> From<Result<T, E>> for Outcome {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => value.into(),
            Err(error) => Self::Broke { info: error.to_string() },
        }
    }
}

/// Why the engine asks an executor to end a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StopReason {
    /// Its time is up.
    Timeout,
    /// Somebody stopped it.
    Stopped,
    /// A later fire of its invocation takes its place.
    Replaced,
    /// The engine shuts down.
    Shutdown,
    /// The time for all of its fire is up.
    Deadline,
    /// Too many other executions of its fire have ended without success.
    Errors,
    /// The next wave of its fire may not start.
    Gate,
}

text_enum!(
    StopReason,
    "reason to stop",
    [Timeout, Stopped, Replaced, Shutdown, Deadline, Errors, Gate]
);

impl StopReason {
    /// Returns the `ErrorCode` of an execution that was stopped for this reason; empty if a caller asked for the stop.
    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Timeout => "ExecutionTimeout",
            Self::Stopped | Self::Replaced => "",
            Self::Shutdown => EXECUTION_INTERRUPTED,
            Self::Deadline => "DeadlineExceeded",
            Self::Errors => "MaxErrorsExceeded",
            Self::Gate => "WaveHalted",
        }
    }
}

/// That something is to end: why, and on whose request if it is one.
#[derive(Debug, Clone)]
pub(crate) struct StopOrder {
    pub cause: StopReason,
    /// The caller of the request, if the host named it.
    pub by: Option<Arc<str>>,
    /// The reason, in the words of the request.
    pub reason: Option<Arc<str>>,
}

impl From<StopReason> for StopOrder {
    fn from(cause: StopReason) -> Self {
        Self { cause, by: None, reason: None }
    }
}

impl StopOrder {
    /// Returns an order with a reason in the words of the host.
    pub(crate) fn because(cause: StopReason, why: &str) -> Self {
        let reason = Some(Remark::reason(why)).filter(|reason| !reason.is_empty());
        Self { reason: reason.map(|reason| reason.text().into()), ..cause.into() }
    }

    /// Returns the order of a caller's request.
    pub(crate) fn request(by: Option<Arc<str>>, reason: Option<String>) -> Self {
        Self {
            cause: StopReason::Stopped,
            by: by.filter(|by| !by.is_empty()),
            reason: reason.filter(|reason| !reason.is_empty()).map(Arc::from),
        }
    }

    /// Returns why a waiting execution was cancelled, in words.
    pub(crate) fn cancelled(&self) -> Remark {
        self.told(" before it started")
    }

    fn told(&self, when: &str) -> Remark {
        let by = self.by.as_ref().map_or(String::new(), |by| format!(" of `{by}`"));
        let reason = self.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
        let what = match self.cause {
            StopReason::Timeout => "ran longer than its timeout",
            StopReason::Stopped => "stopped on request",
            StopReason::Replaced => "replaced by the fire after it",
            StopReason::Shutdown => "the engine shut down while it ran",
            StopReason::Deadline => "stopped at the deadline of its invocation",
            StopReason::Errors => "called off, for more than MaxErrors others had failed,",
            StopReason::Gate => "called off with its wave",
        };
        format!("{what}{by}{when}{reason}").into()
    }
}

/// The resources that the processes of a run have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time in the script's own code, of the processes that were waited for.
    pub user_time: Duration,
    /// Processor time in the kernel, of the same processes.
    pub system_time: Duration,
    /// The most memory that one process had at a time, in bytes; `None` where it is not known.
    pub max_rss_bytes: Option<u64>,
    /// The most memory that all had together, in bytes; `None` where nobody counted.
    pub memory_peak_bytes: Option<u64>,
}

/// The report of an executor about a run, beside the output.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub usage: Option<Usage>,
    /// The result of the run, or why the result cannot be kept.
    #[serde(with = "as_text")]
    pub result: Option<Result<Value, String>>,
    /// The reason why its keeper has ended it while no engine was there.
    pub stopped_for: Option<StopReason>,
    /// When it ended, if the engine was not there.
    pub ended_at_ms: Option<i64>,
    /// A remark for the record, in words.
    pub remark: Option<String>,
    /// Whether the run has begun and its outcome is not known. Because the outcome may be a success, the execution is
    /// not tried again.
    #[serde(default)]
    pub may_have_succeeded: bool,
    /// Whether nobody knows how it went on.
    #[serde(skip)]
    pub is_lost: bool,
    /// Whether an order to stop came before the executor's work had been polled.
    #[serde(skip)]
    pub is_unstarted: bool,
    /// Whether it goes on without the engine, and can be taken back.
    #[serde(skip)]
    pub is_kept: bool,
}

impl Report {
    /// Adds a remark.
    pub(crate) fn remark(&mut self, remark: &str) {
        let before = self.remark.take().map(|before| before + "; ").unwrap_or_default();
        self.remark = Some(before + remark);
    }
}

/// A result as a text in which it can be nested as deep as it is by itself.
mod as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
    use serde_json::Value;

    type Kept = Option<Result<Value, String>>;

    pub(super) fn serialize<S: Serializer>(result: &Kept, to: S) -> Result<S::Ok, S::Error> {
        let text = result.as_ref().map(|result| result.as_ref().map(Value::to_string));
        text.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Kept, D::Error> {
        let text = Option::<Result<String, String>>::deserialize(from)?;
        let read = |text: String| serde_json::from_str(&text).map_err(de::Error::custom);
        text.map(|text| text.map(read).map_or_else(|why| Ok(Err(why)), |value| value.map(Ok)))
            .transpose()
    }
}

/// An execution that had not ended when its engine did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unended {
    pub id: ExecutionId,
    pub attempt: u32,
}

/// The remains of an unended execution that cannot be taken back.
#[derive(Debug, Default)]
pub(crate) struct Lost {
    /// The output, as far as it was kept.
    pub output: Output,
    /// The means that ended its processes; empty if there was no process.
    pub ended: String,
}

impl Lost {
    /// Adds a remark.
    pub(crate) fn remark(&mut self, remark: &str) {
        if !self.ended.is_empty() {
            self.ended.push_str("; ");
        }
        self.ended.push_str(remark);
    }
}

/// The longest result that a record keeps, in bytes of JSON.
pub(crate) const RESULT_BYTES_MAX: usize = 64 << 10;

/// A result as the record keeps it, or why it cannot.
pub(crate) fn checked_result(result: &Value) -> Result<Value, String> {
    let text = result.to_string();
    let bytes = text.len();
    if bytes > RESULT_BYTES_MAX {
        return Err(format!(
            "want a result of at most {RESULT_BYTES_MAX} bytes of JSON; it has {bytes}"
        ));
    }
    // A value that is nested too deep can be written, but not read again.
    serde_json::from_str(&text).map_err(|error| format!("the result cannot be kept: {error}"))
}

/// The verdict: how the record says that an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub cause: Cause,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub error_code: &'static str,
    pub error_info: Remark,
    /// Why it was asked to end, if it was.
    pub stop_cause: Option<StopReason>,
}

/// The `ErrorCode` of an execution whose executor failed.
pub(crate) const EXECUTION_EXCEPTION: &str = "ExecutionException";
/// The `ErrorCode` of an execution that did not start in time.
pub(crate) const START_DEADLINE_EXCEEDED: &str = "StartDeadlineExceeded";
/// The `ErrorCode` of an execution that the end of its engine cut off.
pub(crate) const EXECUTION_INTERRUPTED: &str = "ExecutionInterrupted";

impl Verdict {
    /// That of an execution that nobody knows the end of.
    pub(crate) fn interrupted(info: String) -> Self {
        Self {
            cause: Cause::Interrupted,
            exit_code: None,
            signal: None,
            error_code: EXECUTION_INTERRUPTED,
            error_info: info.into(),
            stop_cause: None,
        }
    }

    /// Returns the verdict on an execution whose executor had not begun when the engine shut down: it waits again.
    pub(crate) fn unstarted() -> Self {
        Self {
            cause: Cause::Unstarted,
            exit_code: None,
            signal: None,
            error_code: "",
            error_info: Remark::default(),
            stop_cause: Some(StopReason::Shutdown),
        }
    }

    /// Returns the verdict on an execution that cannot wait again, because its stop is on record.
    pub(crate) fn stopped_unstarted() -> Self {
        let error_info = "the execution had not been started".into();
        Self { cause: Cause::Stopped, stop_cause: None, error_info, ..Self::unstarted() }
    }

    /// Adds a remark.
    pub(crate) fn add(&mut self, remark: &str) {
        if !self.error_info.is_empty() {
            self.error_info.push_str("; ");
        }
        self.error_info.push_str(remark);
    }

    /// Returns the verdict on an outcome, given the engine's order to stop, if there was one.
    pub(crate) fn new(outcome: Outcome, asked: Option<&StopOrder>, timeout_s: Option<u64>) -> Self {
        let plain = |cause, error_code, error_info: String| Self {
            cause,
            exit_code: None,
            signal: None,
            error_code,
            error_info: error_info.into(),
            stop_cause: asked.map(|order| order.cause),
        };
        match outcome {
            Outcome::Exited(0) => {
                Self { exit_code: Some(0), ..plain(Cause::ExitedZero, "", String::new()) }
            }
            Outcome::Exited(code) => Self {
                exit_code: Some(code),
                ..plain(Cause::ExitedNonzero, "ExitCodeNonzero", format!("exit code {code}"))
            },
            Outcome::Signaled(signal) => Self {
                exit_code: Some(-1),
                signal: Some(signal),
                ..plain(
                    Cause::ExitedNonzero,
                    "ExitCodeNonzero",
                    format!("ended by signal {signal}"),
                )
            },
            Outcome::Stopped { signal, exit_code, info: how } => {
                let asked_for = asked.map(|order| order.cause);
                let cause = match asked_for {
                    Some(StopReason::Timeout) => Cause::TimedOut,
                    Some(StopReason::Shutdown) => Cause::Interrupted,
                    Some(_) => Cause::Stopped,
                    None => Cause::Broke,
                };
                let code = asked_for.map_or(EXECUTION_EXCEPTION, StopReason::code);
                let why = match asked {
                    Some(order) if order.cause == StopReason::Timeout => {
                        order.told(&timeout_s.map_or(String::new(), |s| format!(" of {s} s")))
                    }
                    Some(order) => order.told(""),
                    None => "the executor reported a stop without an order to stop".into(),
                };
                let exit_code = exit_code.or(signal.map(|_| -1));
                let mut verdict = Self { exit_code, signal, ..plain(cause, code, String::new()) };
                verdict.error_info = why;
                if !how.is_empty() {
                    verdict.add(&how);
                }
                verdict
            }
            Outcome::Unsuitable { code, info } => plain(Cause::Unsuitable, code, info),
            Outcome::Undeliverable { code, info } => plain(Cause::Undeliverable, code, info),
            Outcome::Broke { info } => plain(Cause::Broke, EXECUTION_EXCEPTION, info),
        }
    }
}

page_request! {
/// Which executions to list.
#[non_exhaustive]
pub struct DescribeInvocationResults {
    /// Lists only executions of this invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoke_id: Option<InvokeId>,
    /// Lists only executions of this command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<CommandId>,
    /// Lists only executions on this instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
    /// Lists only executions with this status.
    #[serde(rename = "InvocationStatus", skip_serializing_if = "Option::is_none")]
    pub status: Option<ExecutionStatus>,
    /// Lists only executions whose `InvocationStatus` or `InvokeRecordStatus` has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoke_record_status: Option<Given<ExecutionFilter>>,
    /// Whether every execution of an invocation comes, of each of its fires every attempt, or the latest
    /// on each instance. Needs `InvokeId`.
    #[serde(deserialize_with = "lenient::value", skip_serializing_if = "std::ops::Not::not")]
    pub include_history: bool,
    /// Lists only executions of invocations that have all of these tags.
    #[serde(rename = "Tag", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Lists only executions of invocations whose request named this group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_group_id: Option<String>,
    /// How `Output` comes back; Base64 if not given.
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

wire::setters!(DescribeInvocationResults {
    some invoke_id: InvokeId, "Lists only executions of this invocation.";
    some command_id: CommandId, "Lists only executions of this command.";
    some instance_id: InstanceId, "Lists only executions on this instance.";
    some status: ExecutionStatus, "Lists only executions that stand so.";
    given invoke_record_status: ExecutionFilter, "Lists only executions of which one of both statuses has this name.";
    is include_history, "Lists every attempt of every fire; needs an invocation.";
    tags tags, "Lists only executions of invocations that have this tag, beside those given before.";
    some resource_group_id: String, "Lists only executions of invocations whose request named this group.";
    some content_encoding: String, "Sets how outputs come back, `PlainText` or `Base64`.";
    number max_results: usize, "Sets the most entries of a page.";
    some next_token: String, "Asks for the page after another, by its `NextToken`.";
    number page_number: usize, "Asks for the page of this number, from 1.";
    number page_size: usize, "Sets the entries of a page, where pages go by number.";
});

impl DescribeInvocationResults {
    pub(crate) fn check(&self, limits: &Limits) -> Vec<Violation> {
        let mut found = tag::violations(&self.tags, limits);
        if self.include_history && self.invoke_id.is_none() {
            let message = "it needs the InvokeId of an invocation";
            found.push(Violation::new("MissingParam.InvokeId", 400, "IncludeHistory", message));
        }
        if let Some(status) = &self.invoke_record_status {
            status.known(&mut found, |text| {
                let (code, field) = ("InvalidInvokeRecordStatus.NotFound", "InvokeRecordStatus");
                unknown(code, 404, field, text, &ExecutionFilter::names())
            });
        }
        found
    }
}

/// The record of an execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct InvocationResult {
    /// Its number in this database.
    pub execution_id: ExecutionId,
    /// The invocation it belongs to.
    pub invoke_id: InvokeId,
    /// The command it runs.
    pub command_id: CommandId,
    /// The instance it runs on.
    pub instance_id: InstanceId,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// When this attempt is to be made, while it waits for that.
    #[serde(with = "wire::time::optional")]
    pub retry_time: Option<DateTime<Utc>>,
    /// Where it stands.
    #[serde(rename = "InvocationStatus")]
    pub status: ExecutionStatus,
    /// The status in the pages' older terms.
    pub invoke_record_status: InvokeStatus,
    /// How many executions of the invocation there have been on this instance.
    pub repeats: u64,
    /// When it was claimed for running.
    #[serde(with = "wire::time::optional")]
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(rename = "FinishedTime", with = "wire::time::optional")]
    pub finish_time: Option<DateTime<Utc>>,
    /// When a caller asked to stop it.
    #[serde(with = "wire::time::optional")]
    pub stop_time: Option<DateTime<Utc>>,
    /// Why it was asked to end, if it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stop_cause: Option<StopReason>,
    /// The caller that asked for the stop, if the host named it; otherwise empty.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub stopped_by: String,
    /// The reason of the stop, in the words of the request; empty if the request had none.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub stop_reason: String,
    /// Milliseconds from start to end, once it has ended.
    #[serde(rename = "DurationMs")]
    pub duration_ms: Option<u64>,
    /// The exit code of the process; −1 if a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The page's code for the fault; empty if there was none.
    pub error_code: String,
    /// The fault, in words.
    pub error_info: String,
    /// Microseconds of processor time in the script's own code, of the processes that were waited
    /// for; none where nobody counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_time_us: Option<u64>,
    /// Microseconds of processor time in the kernel, of the same processes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub system_time_us: Option<u64>,
    /// The most memory that one process had at a time, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_rss_bytes: Option<u64>,
    /// The most memory that all had together, in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_peak_bytes: Option<u64>,
    /// The result that it left beside its output, if any.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "present", default)]
    pub result: Option<Value>,
    /// Why there is no result where one was meant to be; empty if there is one, or none was meant.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub result_error: String,
    /// The output within the quota: both streams, in the order in which the bytes came.
    pub output: Encoded,
    /// Which bytes of `output`, before any encoding, came from which stream.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub output_streams: Vec<OutputStretch>,
    /// Bytes of output that the quota left out.
    pub dropped: u64,
    /// Where in `output` they are missing, if any are: the length of the part before.
    pub dropped_at: Option<u64>,
    /// The user it runs as; empty for the host's own.
    pub username: String,
    /// The launcher that gets the script; empty for its shell.
    pub launcher: String,
    /// The container it runs in; empty for none.
    pub container_id: String,
    /// The name of that container; empty for none.
    pub container_name: String,
    /// The processes that a timeout or a stop ends.
    pub termination_mode: TerminationMode,
    /// The tags of the invocation.
    #[serde(with = "tag::response")]
    pub tags: Vec<Tag>,
    /// Where the whole output goes; empty for nowhere.
    pub oss_output_delivery: String,
    /// The state of the delivery: `InProgress`, `Finished` or `Failed`; empty if no place was named, or if there was
    /// no output to deliver because nothing has run.
    pub oss_output_status: String,
    /// The address of the delivered output; empty until the delivery has finished.
    pub oss_output_uri: String,
    /// The code of the fault of the delivery.
    pub oss_output_error_code: String,
    /// The fault of the delivery, in words.
    pub oss_output_error_info: String,
}

/// A value that is there: null is one too.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl InvocationResult {
    pub(crate) fn set_output(&mut self, output: Output, encoding: wire::ContentEncoding) {
        self.dropped = output.dropped();
        self.dropped_at = output.gap_at();
        self.output_streams = output.runs().stretches().collect();
        self.output = Encoded::new(output.into_bytes(), encoding);
    }
}

wire::wrapped_list!(result_list, "InvocationResult");

/// The executions of one answer, newest first, and where they go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct ResultPage {
    /// The executions.
    #[serde(rename = "InvocationResults", with = "result_list")]
    pub results: Vec<InvocationResult>,
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

page_response! {
/// A page of executions.
pub struct DescribeInvocationResultsResponse {
    /// The page.
    pub invocation: ResultPage,
}
}

/// An ended invocation: its status and every execution, in the order of the request's instances.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finished {
    /// How it ended as a whole.
    pub status: InvocationStatus,
    /// How it ended on each instance.
    pub results: Vec<InvocationResult>,
    /// The executions whose records cannot be understood.
    pub unreadable: Vec<UnreadableRecord>,
}

//! The lines of the protocol: the library's requests and answers under their names.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::command::preview::{PreviewCommand, PreviewCommandResponse};
use crate::command::{
    CreateCommand, CreateCommandResponse, DeleteCommand, DeleteCommandResponse, DescribeCommands,
    DescribeCommandsResponse, ModifyCommand, ModifyCommandResponse,
};
use crate::engine::{Engine, Watch};
use crate::error::{Error, Result, Violation};
use crate::event::{Event, Notice};
use crate::execution::{DescribeInvocationResults, DescribeInvocationResultsResponse};
use crate::files::pid_namespace;
use crate::id::{InstanceId, InvokeId};
use crate::instance::{
    DescribeCloudAssistantStatus, DescribeCloudAssistantStatusResponse, DescribeInstances,
    DescribeInstancesResponse, Instance,
};
use crate::invocation::fire::{DescribeFires, DescribeFiresResponse, Explanation, Fire};
use crate::invocation::retry_failed::RetryFailed;
use crate::invocation::{
    DescribeInvocations, DescribeInvocationsResponse, InvokeCommand, InvokeCommandResponse, Quotas,
    RunCommand, RunCommandResponse, StopInvocation, StopInvocationResponse,
};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::status::ExecutionStatus;
use crate::tencent::Tencent;

/// A line to the engine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Line<T> {
    /// The name of the request: [`Request::NAME`].
    pub op: String,
    /// The request.
    pub request: T,
    /// Whether the events of the invocation follow the answer.
    #[serde(default)]
    pub watch: bool,
}

/// A line from the engine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Reply {
    /// The first line of a connection.
    Ready(Ready),
    /// The answer of a request.
    Ok(Value),
    /// The cause why a request has no answer.
    Error(Refusal),
    /// An event of the invocation that is watched.
    Event(Event),
    /// The end of a watch.
    End {},
    /// The next line is not there yet, and the process works.
    Alive {},
    /// The connection makes room for another: nothing has been done since its last answer.
    Bye {},
}

/// The process that runs the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct Ready {
    /// The version of this library in the process.
    pub version: String,
    /// The number of the process, in its own namespace.
    pub pid: u32,
    /// The namespace of the number, as the system names it; empty if the system does not tell.
    #[serde(default)]
    pub pid_namespace: String,
}

impl Ready {
    /// Returns the line of this process.
    pub fn this_process() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            pid_namespace: pid_namespace(),
        }
    }

    /// Returns the number of the process if it means the same here: in a container, processes have other numbers.
    pub fn pid_here(&self) -> Option<u32> {
        let is_known = !self.pid_namespace.is_empty();
        (is_known && self.pid_namespace == pid_namespace()).then_some(self.pid)
    }
}

/// The cause why a request has no answer: an [`Error`] as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Refusal {
    /// [`Error::code`].
    pub code: String,
    /// The text of the error.
    pub message: String,
    /// [`Error::http_status`].
    pub http_status: u16,
    /// Everything that is wrong with the request.
    pub violations: Vec<RefusedField>,
    /// The id of the failed request, if it has one already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One thing that is wrong with a request: a [`Violation`] as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RefusedField {
    /// The code of the page.
    pub code: String,
    /// The HTTP status that goes with the code.
    pub http_status: u16,
    /// The field, by its name on the page.
    pub field: String,
    /// The limit, the value or its size, and what would be right.
    pub message: String,
}

impl Refusal {
    /// Returns a refusal without fields.
    pub fn new(code: &str, http_status: u16, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            http_status,
            violations: Vec::new(),
            request_id: None,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let violations = error.violations().iter().map(RefusedField::from).collect();
        Self { violations, ..Self::new(error.code(), error.http_status(), error.to_string()) }
    }
}

impl From<crate::tencent::Error> for Refusal {
    fn from(error: crate::tencent::Error) -> Self {
        Self {
            violations: error.violations.iter().map(RefusedField::from).collect(),
            request_id: Some(error.request_id.clone()),
            ..Self::new(error.code, error.http_status(), error.message)
        }
    }
}

impl From<&Violation> for RefusedField {
    fn from(violation: &Violation) -> Self {
        Self {
            code: violation.code.to_owned(),
            http_status: violation.http_status,
            field: violation.field.to_owned(),
            message: violation.message.clone(),
        }
    }
}

/// A request of the protocol, wherever the engine is.
pub trait Request: Serialize + DeserializeOwned + Send + Sync {
    /// The name by which a line asks for the request.
    const NAME: &'static str;

    /// Whether the request changes nothing, so that it may be asked again.
    const READS: bool;

    /// The answer.
    type Response: Serialize + DeserializeOwned + Send;

    /// Carries the request out.
    fn perform(
        self,
        engine: &Engine,
    ) -> impl Future<Output = Result<Self::Response, Refusal>> + Send;
}

/// A request that makes or finds an invocation, whose events can follow the answer.
pub trait WatchedRequest: Request + Clone {
    /// Returns the invocation.
    fn invoke_id(&self, response: &Self::Response) -> InvokeId;

    /// Carries the request out, and watches the invocation from its beginning.
    fn perform_and_watch(
        self,
        engine: &Engine,
    ) -> impl Future<Output = Result<(Self::Response, Watch)>> + Send;
}

macro_rules! operations {
    ($($kind:ident $request:ident -> $response:ty: |$engine:ident, $asked:ident| $call:expr;)+) => {
        $(impl Request for $request {
            const NAME: &'static str = stringify!($request);
            const READS: bool = operations!(@reads $kind);
            type Response = $response;

            async fn perform(
                self,
                $engine: &Engine,
            ) -> Result<$response, Refusal> {
                let $asked = self;
                Ok($call.await?)
            }
        })+

        /// Returns whether a request changes nothing, by the name of the request.
        fn reads(op: &str) -> bool {
            match op {
                $($request::NAME => $request::READS,)+
                _ => false,
            }
        }

        /// Carries out a request by its name.
        pub(super) async fn perform(
            engine: &Engine,
            op: &str,
            request: Value,
        ) -> Result<Value, Refusal> {
            if op == DescribeInvocations::NAME {
                return invocations(engine, read(request)?).await;
            }
            match op {
                ApiCall::NAME => answer(read::<ApiCall>(request)?.perform(engine).await),
                $($request::NAME => answer(read::<$request>(request)?.perform(engine).await),)+
                _ => Err(unknown(op)),
            }
        }
    };
    (@reads read) => { true };
    (@reads write) => { false };
}

operations! {
    write RunCommand -> RunCommandResponse: |engine, asked| engine.run_command(asked);
    write InvokeCommand -> InvokeCommandResponse: |engine, asked| engine.invoke_command(asked);
    write StopInvocation -> StopInvocationResponse: |engine, asked| engine.stop_invocation(asked);
    write RetryFailed -> InvokeCommandResponse: |engine, asked| engine.retry_failed(asked);
    write PauseInvocation -> (): |engine, asked| engine.pause_invocation(&asked.invoke_id);
    write ResumeInvocation -> (): |engine, asked| engine.resume_invocation(&asked.invoke_id);
    write RunNow -> Fire: |engine, asked| engine.run_now(&asked.invoke_id);
    read Explain -> Explanation: |engine, asked| engine.explain(&asked.invoke_id, asked.instant);
    read WatchInvocation -> (): |engine, asked| async {
        engine.watch(&asked.invoke_id).await.map(drop)
    };
    read FindInvocations -> Vec<InvokeId>: |engine, asked| async move {
        engine.find_invocations(&asked.text, FOUND_MAX).await
    };
    read DescribeInvocations -> DescribeInvocationsResponse:
        |engine, asked| engine.describe_invocations(asked);
    read DescribeInvocationResults -> DescribeInvocationResultsResponse:
        |engine, asked| engine.describe_invocation_results(asked);
    read DescribeFires -> DescribeFiresResponse: |engine, asked| engine.describe_fires(asked);
    write SeeDelivered -> (): |engine, asked| delivered(engine, asked.invoke_id);
    write CreateCommand -> CreateCommandResponse: |engine, asked| engine.create_command(asked);
    write ModifyCommand -> ModifyCommandResponse: |engine, asked| engine.modify_command(asked);
    write DeleteCommand -> DeleteCommandResponse: |engine, asked| engine.delete_command(asked);
    read DescribeCommands -> DescribeCommandsResponse:
        |engine, asked| engine.describe_commands(asked);
    write RegisterInstance -> (): |engine, asked| engine.register_instance(asked.0);
    write RemoveInstance -> (): |engine, asked| engine.remove_instance(&asked.instance_id);
    read PreviewCommand -> PreviewCommandResponse: |engine, asked| engine.preview(asked);
    read DescribeQuotas -> Quotas: |engine, _asked| engine.quotas();
    read DescribeFigures -> Figures: |engine, _asked| figures(engine);
    read DescribeInstances -> DescribeInstancesResponse:
        |engine, asked| engine.describe_instances(asked);
    read DescribeCloudAssistantStatus -> DescribeCloudAssistantStatusResponse:
        |engine, asked| engine.describe_cloud_assistant_status(asked);
}

/// Returns whether a request may be asked while all other places are taken: the request looks or stops, and its answer
/// comes soon.
pub(super) fn is_short(op: &str) -> bool {
    const STOPS: [&str; 3] = [Hello::NAME, StopInvocation::NAME, PauseInvocation::NAME];
    STOPS.contains(&op) || reads(op)
}

/// Carries out a request that makes or finds an invocation, and watches the invocation.
pub(super) async fn perform_and_watch(
    engine: &Engine,
    op: &str,
    request: Value,
) -> Result<(Value, Watch), Refusal> {
    async fn one<O: WatchedRequest>(
        engine: &Engine,
        request: Value,
    ) -> Result<(Value, Watch), Refusal> {
        let (response, watch) = read::<O>(request)?.perform_and_watch(engine).await?;
        Ok((write(&response)?, watch))
    }
    match op {
        RunCommand::NAME => one::<RunCommand>(engine, request).await,
        InvokeCommand::NAME => one::<InvokeCommand>(engine, request).await,
        RetryFailed::NAME => one::<RetryFailed>(engine, request).await,
        WatchInvocation::NAME => one::<WatchInvocation>(engine, request).await,
        _ => Err(unknown(op)),
    }
}

/// Lists invocations with times to the millisecond, as the file has them; the times of the pages are in seconds.
async fn invocations(engine: &Engine, request: DescribeInvocations) -> Result<Value, Refusal> {
    let response = engine.describe_invocations(request).await?;
    let mut answer = write(&response)?;
    let exact = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true).into();
    for (n, invocation) in response.invocations.iter().enumerate() {
        let written = &mut answer["Invocations"]["Invocation"][n];
        written["CreationTime"] = exact(invocation.creation_time);
        if let Some(time) = invocation.finish_time {
            written["FinishTime"] = exact(time);
        }
    }
    Ok(answer)
}

fn read<T: DeserializeOwned>(request: Value) -> Result<T, Refusal> {
    serde_json::from_value(request)
        .map_err(|error| Refusal::new("InvalidRequest", 400, format!("bad request: {error}")))
}

fn write<T: Serialize>(response: &T) -> Result<Value, Refusal> {
    serde_json::to_value(response)
        .map_err(|error| Refusal::new("InternalError", 500, format!("bad response: {error}")))
}

fn answer<T: Serialize>(result: Result<T, Refusal>) -> Result<Value, Refusal> {
    write(&result?)
}

fn unknown(op: &str) -> Refusal {
    Refusal::new("InvalidRequest", 400, format!("there is no operation `{op}`"))
}

/// Begins a conversation: tells the engine for whom the other end asks. Each request after this one has the user at the
/// other end as its caller, with that name behind it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Hello {
    /// The user for whom the other end acts, such as `$SUDO_USER`. Nobody checks the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acts_for: Option<String>,
}

impl Request for Hello {
    const NAME: &'static str = "Hello";
    const READS: bool = true;
    type Response = ();

    async fn perform(self, _: &Engine) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Hello {
    /// Returns the line of a process that acts for this user.
    pub fn for_user(acts_for: Option<String>) -> Self {
        Self { acts_for }
    }

    /// Reads the request of a line, whose name becomes a part of records.
    pub(super) fn read(request: Value) -> Result<Self, Refusal> {
        const CHARS_MAX: usize = 256;
        let hello: Self = read(request)?;
        let name = hello.acts_for.as_deref().unwrap_or_default();
        if name.chars().count() > CHARS_MAX || name.chars().any(char::is_control) {
            let message = format!(
                "want at most {CHARS_MAX} characters, and no control characters, in ActsFor"
            );
            return Err(Refusal::new("InvalidRequest", 400, message));
        }
        Ok(hello)
    }
}

/// The API whose pages a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiPages {
    /// Alibaba Cloud Assistant: [`Engine::call`].
    Alibaba,
    /// Tencent Automation Tools: [`Tencent::call`].
    Tencent,
}

/// Any operation of the pages, in their JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ApiCall {
    /// The pages.
    pub profile: ApiPages,
    /// The name of the operation.
    pub operation: String,
    /// The request as a caller wrote it. The code that reads the text says what is wrong with it.
    pub request: String,
}

impl Request for ApiCall {
    const NAME: &'static str = "ApiCall";
    // Some operations change records, so no call may be repeated.
    const READS: bool = false;
    type Response = Value;

    /// Performs the operation under the limits of its pages, whatever the limits of other calls are.
    async fn perform(self, engine: &Engine) -> Result<Value, Refusal> {
        match self.profile {
            ApiPages::Alibaba => {
                let engine = engine.with_limits(Limits::alibaba());
                Ok(engine.call(&self.operation, &self.request).await?)
            }
            ApiPages::Tencent => {
                let tencent = Tencent::with_limits(engine, Limits::tencent());
                let answer = tencent.call(&self.operation, &self.request).await?;
                Ok(json!({ "Response": answer }))
            }
        }
    }
}

/// Asks how much of the quotas is used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribeQuotas {}

/// Asks what the engine has done since it was opened, and does now.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribeFigures {}

/// The metrics of an engine that a live view needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Figures {
    /// Executions that run.
    pub running: u64,
    /// Executions that wait.
    pub waiting: u64,
    /// Executions that were started.
    pub started: u64,
    /// Executions that ran and ended.
    pub ended: u64,
    /// Executions that failed, or could not run.
    pub failed: u64,
}

async fn figures(engine: &Engine) -> Result<Figures> {
    Ok(Figures::of(&engine.metrics()))
}

impl Figures {
    fn of(metrics: &Metrics) -> Self {
        use ExecutionStatus::{Aborted, Cancelled, Error, Failed, Invalid, Skipped, Timeout};
        let count = |statuses: &[ExecutionStatus]| -> u64 {
            statuses.iter().map(|status| metrics.ended.get(*status)).sum()
        };
        Self {
            running: metrics.running,
            waiting: metrics.waiting,
            started: metrics.started,
            ended: metrics.ended.total() - count(&[Cancelled, Skipped]),
            failed: count(&[Failed, Error, Timeout, Invalid, Aborted]),
        }
    }
}

/// Registers an instance, or changes the instance of the same id.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RegisterInstance(
    /// The instance.
    pub Instance,
);

/// Removes an instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RemoveInstance {
    /// The instance.
    pub instance_id: InstanceId,
}

/// Invocations that one text may name, at most.
const FOUND_MAX: usize = 10;

/// Finds invocations as people call them: [`Engine::find_invocations`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct FindInvocations {
    /// The beginning of an id, or a name.
    pub text: String,
}

/// Keeps a repeating invocation from firing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct PauseInvocation {
    /// The invocation.
    pub invoke_id: InvokeId,
}

/// Lets a repeating invocation fire again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ResumeInvocation {
    /// The invocation.
    pub invoke_id: InvokeId,
}

/// Fires a repeating invocation beside its schedule.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RunNow {
    /// The invocation.
    pub invoke_id: InvokeId,
}

/// Asks why an invocation did or did not run at an instant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Explain {
    /// The invocation.
    pub invoke_id: InvokeId,
    /// The instant.
    pub instant: DateTime<Utc>,
}

/// Watches an invocation from its beginning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct WatchInvocation {
    /// The invocation.
    pub invoke_id: InvokeId,
}

/// Waits until no output of an ended invocation is on its way to a sink.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct SeeDelivered {
    /// The invocation.
    pub invoke_id: InvokeId,
}

async fn delivered(engine: &Engine, invoke_id: InvokeId) -> Result<()> {
    // The feed begins before the records are read, so that no delivery ends unnoticed between the two.
    let mut feed = engine.follow();
    while is_on_its_way(engine, invoke_id).await? {
        loop {
            match feed.next().await {
                Some(Notice::Delivery { invoke_id: other, .. }) if other != invoke_id => {}
                Some(Notice::Delivery { .. } | Notice::Lagged { .. }) => break,
                Some(_) => {}
                None => return Ok(()),
            }
        }
    }
    Ok(())
}

/// Returns whether an output of an invocation is still to be delivered.
async fn is_on_its_way(engine: &Engine, invoke_id: InvokeId) -> Result<bool> {
    let one = DescribeInvocations {
        invoke_id: Some(invoke_id),
        omit_instances: true,
        max_results: Some(1),
        ..Default::default()
    };
    let found = engine.describe_invocations(one).await?.invocations;
    if found.iter().all(|invocation| invocation.oss_output_delivery.is_empty()) {
        return Ok(false);
    }
    let mut all = DescribeInvocationResults { invoke_id: Some(invoke_id), ..Default::default() };
    loop {
        let page = engine.describe_invocation_results(all.clone()).await?.invocation;
        if page.results.iter().any(|result| result.oss_output_status == "InProgress") {
            return Ok(true);
        }
        if page.next_token.is_empty() {
            return Ok(false);
        }
        all.next_token = Some(page.next_token);
    }
}

impl WatchedRequest for RunCommand {
    fn invoke_id(&self, response: &RunCommandResponse) -> InvokeId {
        response.invoke_id
    }

    async fn perform_and_watch(self, engine: &Engine) -> Result<(RunCommandResponse, Watch)> {
        engine.run_command_and_watch(self).await
    }
}

impl WatchedRequest for InvokeCommand {
    fn invoke_id(&self, response: &InvokeCommandResponse) -> InvokeId {
        response.invoke_id
    }

    async fn perform_and_watch(self, engine: &Engine) -> Result<(InvokeCommandResponse, Watch)> {
        engine.invoke_command_and_watch(self).await
    }
}

impl WatchedRequest for RetryFailed {
    fn invoke_id(&self, response: &InvokeCommandResponse) -> InvokeId {
        response.invoke_id
    }

    async fn perform_and_watch(self, engine: &Engine) -> Result<(InvokeCommandResponse, Watch)> {
        engine.retry_failed_and_watch(self).await
    }
}

impl WatchedRequest for WatchInvocation {
    fn invoke_id(&self, (): &()) -> InvokeId {
        self.invoke_id
    }

    async fn perform_and_watch(self, engine: &Engine) -> Result<((), Watch)> {
        Ok(((), engine.watch(&self.invoke_id).await?))
    }
}

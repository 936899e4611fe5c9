//! What travels over the socket: the library's requests and answers under their names.

use adjutant::tencent::Tencent;
use adjutant::{
    CreateCommand, CreateCommandResponse, DeleteCommand, DeleteCommandResponse,
    DescribeCloudAssistantStatus, DescribeCloudAssistantStatusResponse, DescribeCommands,
    DescribeCommandsResponse, DescribeFires, DescribeFiresResponse, DescribeInstances,
    DescribeInstancesResponse, DescribeInvocationResults, DescribeInvocationResultsResponse,
    DescribeInvocations, DescribeInvocationsResponse, Engine, Event, ExecutionStatus, Explanation,
    Fire, Instance, InstanceId, InvokeCommand, InvokeCommandResponse, InvokeId, Metrics,
    ModifyCommand, ModifyCommandResponse, Notice, PreviewCommand, PreviewCommandResponse, Quotas,
    Result, RetryFailed, RunCommand, RunCommandResponse, StopInvocation, StopInvocationResponse,
    UnreadableRecord, Watch,
};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::args::Profile;
use crate::failure::Failure;
use crate::session::FOLDERS;

/// A line to the owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request<T> {
    pub op: String,
    pub request: T,
    #[serde(default)]
    pub watch: bool,
}

/// A line from the owner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reply {
    Ready(Ready),
    Ok(Value),
    Error(Failure),
    Event(Event),
    End {},
}

/// Who speaks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Ready {
    pub version: String,
    pub pid: u32,
}

impl Ready {
    pub(crate) fn this_process() -> Self {
        Self { version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() }
    }
}

/// One call of the engine, wherever the engine is.
pub(crate) trait Operation: Serialize + DeserializeOwned + Send + Sync {
    const NAME: &'static str;
    /// It changes nothing, so it may be asked again and needs no owner.
    const READS: bool;
    type Response: Serialize + DeserializeOwned + Send;

    fn perform(
        self,
        engine: &Engine,
    ) -> impl Future<Output = std::result::Result<Self::Response, Failure>> + Send;
}

/// A call that starts or finds a run and can watch it from its beginning.
pub(crate) trait Watched: Operation + Clone {
    fn invoke_id(&self, response: &Self::Response) -> InvokeId;

    fn perform_and_watch(
        self,
        engine: &Engine,
    ) -> impl Future<Output = Result<(Self::Response, Watch)>> + Send;
}

/// A call whose answer comes in pages.
pub(crate) trait Paged: Operation + Clone {
    /// Asks for entries by the `page_size` from where the page with this token begins.
    fn turn_to(&mut self, page_size: usize, next_token: Option<String>);

    /// The token of the next page; empty after the last.
    fn next_token(response: &Self::Response) -> &str;

    /// The records that cannot be understood.
    fn unreadable(response: &Self::Response) -> &[UnreadableRecord];

    fn append(response: &mut Self::Response, next: Self::Response);
}

macro_rules! operations {
    ($($kind:ident $request:ident -> $response:ty: |$engine:ident, $asked:ident| $call:expr;)+) => {
        $(impl Operation for $request {
            const NAME: &'static str = stringify!($request);
            const READS: bool = operations!(@reads $kind);
            type Response = $response;

            async fn perform(
                self,
                $engine: &Engine,
            ) -> std::result::Result<$response, Failure> {
                let $asked = self;
                Ok($call.await?)
            }
        })+

        /// Carries out a request by the name of its operation.
        pub(crate) async fn perform(
            engine: &Engine,
            op: &str,
            request: Value,
        ) -> std::result::Result<Value, Failure> {
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

/// Carries out a request that starts or finds a run, and watches it.
pub(crate) async fn perform_and_watch(
    engine: &Engine,
    op: &str,
    request: Value,
) -> std::result::Result<(Value, Watch), Failure> {
    async fn one<O: Watched>(
        engine: &Engine,
        request: Value,
    ) -> std::result::Result<(Value, Watch), Failure> {
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

/// Lists runs with times to the millisecond: whoever asks here sees what the file says, though the
/// pages' times are in seconds.
async fn invocations(
    engine: &Engine,
    request: DescribeInvocations,
) -> std::result::Result<Value, Failure> {
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

fn read<T: DeserializeOwned>(request: Value) -> std::result::Result<T, Failure> {
    serde_json::from_value(request)
        .map_err(|error| Failure::new("InvalidRequest", 400, format!("bad request: {error}")))
}

fn write<T: Serialize>(response: &T) -> std::result::Result<Value, Failure> {
    serde_json::to_value(response)
        .map_err(|error| Failure::new("InternalError", 500, format!("bad response: {error}")))
}

fn answer<T: Serialize>(
    result: std::result::Result<T, Failure>,
) -> std::result::Result<Value, Failure> {
    write(&result?)
}

fn unknown(op: &str) -> Failure {
    Failure::new("InvalidRequest", 400, format!("there is no operation `{op}`"))
}

/// Any operation of the pages, in their JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ApiCall {
    pub profile: Profile,
    pub operation: String,
    /// As it was written: what reads it says what is wrong with it.
    pub request: String,
}

impl Operation for ApiCall {
    const NAME: &'static str = "ApiCall";
    // It may, or not; asked again is what may have been done.
    const READS: bool = false;
    type Response = Value;

    async fn perform(self, engine: &Engine) -> std::result::Result<Value, Failure> {
        match self.profile {
            Profile::Alibaba => Ok(engine.call(&self.operation, &self.request).await?),
            Profile::Tencent => {
                let answer = Tencent::new(engine).call(&self.operation, &self.request).await?;
                Ok(json!({ "Response": answer }))
            }
        }
    }
}

/// Asks how much of the quotas is used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescribeQuotas {}

/// Asks what the engine has done since it was opened, and does now.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DescribeFigures {}

/// Of an engine's metrics those that a view of it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Figures {
    pub running: u64,
    pub waiting: u64,
    pub started: u64,
    /// Executions that ran and ended.
    pub ended: u64,
    /// Of those, and of those that could not run, the ones that went wrong.
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

/// Registers an instance, or changes the one of the same name.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct RegisterInstance(pub Instance);

/// Removes an instance.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct RemoveInstance {
    pub instance_id: InstanceId,
}

/// Keeps a repeating run from firing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct PauseInvocation {
    pub invoke_id: InvokeId,
}

/// Lets a repeating run fire again.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ResumeInvocation {
    pub invoke_id: InvokeId,
}

/// Fires a repeating run beside its schedule.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct RunNow {
    pub invoke_id: InvokeId,
}

/// Asks why a run did or did not run at an instant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Explain {
    pub invoke_id: InvokeId,
    pub instant: DateTime<Utc>,
}

/// Watches a run from its beginning.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct WatchInvocation {
    pub invoke_id: InvokeId,
}

/// Waits for the outputs of a run that has ended to come to where they were to go. It changes nothing,
/// and needs an engine that sends them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct SeeDelivered {
    pub invoke_id: InvokeId,
}

async fn delivered(engine: &Engine, invoke_id: InvokeId) -> Result<()> {
    // Before the records are read, so that what they do not say yet is told.
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

/// Whether an output of a run is still to be delivered.
async fn is_on_its_way(engine: &Engine, invoke_id: InvokeId) -> Result<bool> {
    let one = DescribeInvocations {
        invoke_id: Some(invoke_id),
        omit_instances: true,
        max_results: Some(1),
        ..Default::default()
    };
    let found = engine.describe_invocations(one).await?.invocations;
    if !found.iter().any(|invocation| invocation.oss_output_delivery.starts_with(FOLDERS)) {
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

impl Watched for RunCommand {
    fn invoke_id(&self, response: &RunCommandResponse) -> InvokeId {
        response.invoke_id
    }

    async fn perform_and_watch(self, engine: &Engine) -> Result<(RunCommandResponse, Watch)> {
        engine.run_command_and_watch(self).await
    }
}

impl Watched for InvokeCommand {
    fn invoke_id(&self, response: &InvokeCommandResponse) -> InvokeId {
        response.invoke_id
    }

    async fn perform_and_watch(self, engine: &Engine) -> Result<(InvokeCommandResponse, Watch)> {
        engine.invoke_command_and_watch(self).await
    }
}

impl Watched for RetryFailed {
    fn invoke_id(&self, response: &InvokeCommandResponse) -> InvokeId {
        response.invoke_id
    }

    async fn perform_and_watch(self, engine: &Engine) -> Result<(InvokeCommandResponse, Watch)> {
        engine.retry_failed_and_watch(self).await
    }
}

impl Watched for WatchInvocation {
    fn invoke_id(&self, (): &()) -> InvokeId {
        self.invoke_id
    }

    async fn perform_and_watch(self, engine: &Engine) -> Result<((), Watch)> {
        Ok(((), engine.watch(&self.invoke_id).await?))
    }
}

macro_rules! paged {
    ($request:ident, $response:ident, $($list:ident).+, $($unreadable:ident).+, $($token:ident).+) => {
        impl Paged for $request {
            fn turn_to(&mut self, page_size: usize, next_token: Option<String>) {
                self.max_results = Some(page_size);
                self.next_token = next_token;
            }

            fn next_token(response: &$response) -> &str {
                &response.$($token).+
            }

            fn unreadable(response: &$response) -> &[UnreadableRecord] {
                &response.$($unreadable).+
            }

            fn append(response: &mut $response, next: $response) {
                response.$($list).+.extend(next.$($list).+);
                response.$($unreadable).+.extend(next.$($unreadable).+);
                response.$($token).+ = next.$($token).+;
            }
        }
    };
}

paged!(DescribeInvocations, DescribeInvocationsResponse, invocations, unreadable, next_token);
paged!(
    DescribeInvocationResults,
    DescribeInvocationResultsResponse,
    invocation.results,
    invocation.unreadable,
    invocation.next_token
);
paged!(DescribeCommands, DescribeCommandsResponse, commands, unreadable, next_token);
paged!(DescribeInstances, DescribeInstancesResponse, instances, unreadable, next_token);
paged!(DescribeFires, DescribeFiresResponse, fires, unreadable, next_token);

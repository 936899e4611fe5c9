//! The engine as a host sees it: requests in, records and events out.

mod builder;
mod planner;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::clock::{Clock, Sleep, now_ms};
use crate::command::{
    CreateCommand, CreateCommandResponse, DescribeCommands, DescribeCommandsResponse, ModifyCommand,
};
use crate::config::Config;
use crate::dispatcher::Dispatcher;
use crate::error::{Error, Result, Violation, none_of};
use crate::event::{Change, Hub, Subscription};
use crate::execution::{
    DescribeInvocationResults, DescribeInvocationResultsResponse, Finished, ResultPage,
};
use crate::id::{CommandId, ExecutionId, InstanceId, InvokeId};
use crate::instance::{DescribeInstances, DescribeInstancesResponse, Instance};
use crate::invocation::recurrence::{DescribeFires, DescribeFiresResponse};
use crate::invocation::{
    DescribeInvocations, DescribeInvocationsResponse, InvokeCommand, InvokeCommandResponse,
    RunCommand, RunCommandResponse, StopInvocation, StopInvocationResponse,
};
use crate::limits::Limits;
use crate::scheduler::Scheduler;
use crate::status::ExecutionStatus;
use crate::store::commands::Definition;
use crate::store::executions::Stopped;
use crate::store::invocations::NewInvocation;
use crate::store::{PageToken, Store, Tx, commands, executions, fires, instances, invocations};
use crate::wire::{self, ContentEncoding};

pub use builder::EngineBuilder;
pub use watch::{Position, Watch};

use planner::{Planner, no_executor};

/// An open engine. Clones are handles of the same one; dropping the last ends it once what runs has
/// ended, while [`shutdown`](Engine::shutdown) says when.
///
/// # Run a script and read what it printed
///
/// ```
/// use adjutant::{Engine, RunCommand};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::open_in_memory().await?;
/// let run = engine.run_command(RunCommand::shell("echo hello").on(["local"])).await?;
/// let finished = engine.wait(&run.invoke_id).await?;
/// assert_eq!(finished.results[0].output.as_bytes(), b"hello\n");
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    records: Records,
    clock: Arc<dyn Clock>,
    config: Config,
    executor_names: Arc<Vec<String>>,
    /// None if the file is open for reading only.
    dispatcher: Option<Dispatcher>,
    /// None if nothing is started here.
    scheduler: Option<Scheduling>,
    closing: std::sync::atomic::AtomicBool,
}

/// What reading and watching need; does not keep the engine going.
#[derive(Clone)]
struct Records {
    store: Arc<Store>,
    hub: Arc<Hub>,
    /// Set if another process runs the file: then the hub tells nothing, and one has to look.
    poll: Option<Arc<dyn Clock>>,
}

/// How often a reader of another process's file looks again.
const POLL_EVERY: Duration = Duration::from_millis(200);

impl Records {
    async fn read<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.store.read(op).await
    }

    /// Waits until there may be news; whether the records have to be looked at for them. `sleep`
    /// lets a wait that is dropped go on with the next.
    async fn wait(&self, subscription: &Subscription, sleep: &mut Option<Sleep>) -> bool {
        let Some(clock) = &self.poll else {
            subscription.wake.notified().await;
            return false;
        };
        sleep.get_or_insert_with(|| clock.sleep(POLL_EVERY)).await;
        *sleep = None;
        true
    }
}

/// The scheduler at work; ends with this.
struct Scheduling {
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Scheduling {
    fn start(
        store: &Arc<Store>,
        hub: &Arc<Hub>,
        clock: &Arc<dyn Clock>,
        dispatcher: &Dispatcher,
    ) -> Self {
        let wake = Arc::new(Notify::new());
        let (hub, wake_dispatcher) = (Arc::clone(hub), dispatcher.waker());
        let scheduler = Scheduler {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            wake: Arc::clone(&wake),
            fired: Box::new(move |finished| {
                wake_dispatcher();
                for (invoke_id, status) in finished {
                    hub.finish(invoke_id, status);
                }
            }),
        };
        Self { wake, task: tokio::spawn(scheduler.run()) }
    }
}

impl Drop for Scheduling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        match &self.dispatcher {
            // The loop closes the hub when the last run has ended and been told of.
            Some(dispatcher) => dispatcher.drain(),
            None => self.records.hub.close(),
        }
    }
}

impl Engine {
    /// Opens the engine on a database file, which is created if it is missing, with the local
    /// machine as its first instance and everything else at its default.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if another process runs the file, [`Error::Storage`] if it cannot be opened,
    /// is damaged or was written by a newer version.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().path(path).open().await
    }

    /// Opens an engine whose records live and die with it.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] if there is no place for its temporary files.
    pub async fn open_in_memory() -> Result<Self> {
        Self::builder().open().await
    }

    /// Sets an engine up in detail.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    /// The database file; none if the engine lives in memory.
    pub fn path(&self) -> Option<&Path> {
        self.inner.records.store.path()
    }

    /// What requests are held to.
    pub fn limits(&self) -> &Limits {
        &self.inner.config.limits
    }

    /// Registers an instance, or changes the one of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if its id is malformed or its executor is not plugged in.
    pub async fn register_instance(&self, instance: Instance) -> Result<()> {
        self.check_instance(&instance)?;
        let now_ms = self.now_ms();
        self.write(move |tx| instances::upsert(tx, &instance, now_ms)).await
    }

    /// Changes a registered instance.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is none of that name, or as for
    /// [`register_instance`](Engine::register_instance).
    pub async fn update_instance(&self, instance: Instance) -> Result<()> {
        self.check_instance(&instance)?;
        let now_ms = self.now_ms();
        self.write(move |tx| {
            let known = instances::find(tx, &instance.instance_id)?;
            known.ok_or_else(|| Error::invalid(instances::not_found(&instance.instance_id)))?;
            instances::upsert(tx, &instance, now_ms)
        })
        .await
    }

    /// Removes an instance. Its records stay, and registering it again brings it back.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is none of that name, [`Error::Conflict`] while executions on it
    /// have not ended.
    pub async fn remove_instance(&self, instance_id: &InstanceId) -> Result<()> {
        let (instance_id, now_ms) = (instance_id.clone(), self.now_ms());
        self.write(move |tx| instances::remove(tx, &instance_id, now_ms)).await
    }

    /// Lists instances, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if an id is unknown or the page is not one.
    pub async fn describe_instances(
        &self,
        request: DescribeInstances,
    ) -> Result<DescribeInstancesResponse> {
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        let ids = request.instance_ids;
        let (instances, next) = self
            .read(move |tx| {
                if ids.is_empty() {
                    return instances::list(tx, page.after, page.size);
                }
                let found = ids.iter().map(|id| {
                    let target = instances::find(tx, id)?;
                    target.ok_or_else(|| Error::invalid(instances::not_found(id)))
                });
                Ok((found.map(|t| Ok(t?.instance)).collect::<Result<_>>()?, None))
            })
            .await?;
        Ok(DescribeInstancesResponse {
            request_id: wire::request_id(),
            instances,
            next_token: text(next),
        })
    }

    /// Keeps a command for later invocations.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong with the request.
    pub async fn create_command(&self, request: CreateCommand) -> Result<CreateCommandResponse> {
        let (content, violations) = request.check(self.limits());
        none_of(violations)?;
        let definition = Definition {
            name: request.name,
            description: request.description,
            command_type: request.command_type,
            content: content.ok_or_else(unchecked)?,
            working_dir: request.working_dir.filter(|dir| !dir.is_empty()),
            timeout_s: request.timeout.unwrap_or(self.limits().timeout_s_default),
        };
        let command_id = CommandId::new(self.inner.clock.realtime());
        let (kept_max, now_ms) = (self.limits().kept_commands_max, self.now_ms());
        self.write(move |tx| commands::insert(tx, command_id, &definition, kept_max, now_ms))
            .await?;
        Ok(CreateCommandResponse { request_id: wire::request_id(), command_id })
    }

    /// Changes a kept command; invocations that exist keep what they were made from.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such command or a value is out of bounds.
    pub async fn modify_command(&self, request: ModifyCommand) -> Result<()> {
        none_of(request.violations(self.limits()))?;
        self.write(move |tx| commands::modify(tx, &request)).await
    }

    /// Deletes a kept command; its invocations stay.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such command, [`Error::Conflict`] while an invocation of it
    /// has not ended.
    pub async fn delete_command(&self, command_id: CommandId) -> Result<()> {
        self.write(move |tx| commands::delete(tx, command_id)).await
    }

    /// Lists kept commands, newest first, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the page is not one.
    pub async fn describe_commands(
        &self,
        request: DescribeCommands,
    ) -> Result<DescribeCommandsResponse> {
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        let encoding = encoding(request.content_encoding.as_deref());
        let (commands, next) = self
            .read(move |tx| commands::list(tx, &request, page.after, page.size, encoding))
            .await?;
        Ok(DescribeCommandsResponse {
            request_id: wire::request_id(),
            commands,
            next_token: text(next),
        })
    }

    /// Creates a command and runs it. When this returns, the invocation is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong; then nothing is stored and nothing runs.
    pub async fn run_command(&self, request: RunCommand) -> Result<RunCommandResponse> {
        let invoke_id = self.new_invoke_id();
        self.submit_run(invoke_id, request).await
    }

    /// Does the same and watches from before the start, so that no output is missed.
    ///
    /// # Errors
    ///
    /// As [`run_command`](Engine::run_command).
    pub async fn run_command_and_watch(
        &self,
        request: RunCommand,
    ) -> Result<(RunCommandResponse, Watch)> {
        let invoke_id = self.new_invoke_id();
        let subscription = self.inner.records.hub.subscribe(invoke_id);
        let response = self.submit_run(invoke_id, request).await?;
        Ok((response, self.watch_with(subscription, invoke_id, Position::default()).await?))
    }

    async fn submit_run(
        &self,
        invoke_id: InvokeId,
        request: RunCommand,
    ) -> Result<RunCommandResponse> {
        let checked = request.check(self.limits());
        none_of(checked.violations)?;
        let definition = Definition {
            name: request.name,
            description: request.description,
            command_type: request.command_type,
            content: checked.content.ok_or_else(unchecked)?,
            working_dir: request.working_dir.filter(|dir| !dir.is_empty()),
            timeout_s: request.timeout.unwrap_or(self.limits().timeout_s_default),
        };
        let command_id = CommandId::of_invocation(invoke_id);
        let (keep, kept_max) = (request.keep_command, self.limits().kept_commands_max);
        let new = NewInvocation {
            invoke_id,
            command_id: keep.then_some(command_id),
            definition,
            termination_mode: request.termination_mode,
            recurrence: checked.recurrence,
        };
        let planner = self.planner();
        let now_ms = planner.now.timestamp_millis();
        self.submit(move |tx| {
            let start = planner.start(tx, &request.instance_ids, &new)?;
            if keep {
                commands::insert(tx, command_id, &new.definition, kept_max, now_ms)?;
            }
            invocations::insert(tx, &new, &start, now_ms)
        })
        .await?;
        Ok(RunCommandResponse { request_id: wire::request_id(), command_id, invoke_id })
    }

    /// Runs a kept command. When this returns, the invocation is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with what is wrong; then nothing is stored and nothing runs.
    pub async fn invoke_command(&self, request: InvokeCommand) -> Result<InvokeCommandResponse> {
        let invoke_id = self.new_invoke_id();
        self.submit_invoke(invoke_id, request).await
    }

    /// Does the same and watches from before the start, so that no output is missed.
    ///
    /// # Errors
    ///
    /// As [`invoke_command`](Engine::invoke_command).
    pub async fn invoke_command_and_watch(
        &self,
        request: InvokeCommand,
    ) -> Result<(InvokeCommandResponse, Watch)> {
        let invoke_id = self.new_invoke_id();
        let subscription = self.inner.records.hub.subscribe(invoke_id);
        let response = self.submit_invoke(invoke_id, request).await?;
        Ok((response, self.watch_with(subscription, invoke_id, Position::default()).await?))
    }

    async fn submit_invoke(
        &self,
        invoke_id: InvokeId,
        request: InvokeCommand,
    ) -> Result<InvokeCommandResponse> {
        let (recurrence, violations) = request.check(self.limits());
        none_of(violations)?;
        let planner = self.planner();
        self.submit(move |tx| {
            let mut definition = commands::get(tx, request.command_id)?;
            if let Some(working_dir) = request.working_dir.filter(|dir| !dir.is_empty()) {
                definition.working_dir = Some(working_dir);
            }
            definition.timeout_s = request.timeout.unwrap_or(definition.timeout_s);
            let new = NewInvocation {
                invoke_id,
                command_id: Some(request.command_id),
                definition,
                termination_mode: request.termination_mode,
                recurrence,
            };
            let start = planner.start(tx, &request.instance_ids, &new)?;
            invocations::insert(tx, &new, &start, planner.now.timestamp_millis())
        })
        .await?;
        Ok(InvokeCommandResponse { request_id: wire::request_id(), invoke_id })
    }

    /// Stops an invocation: what waits is cancelled, what runs is asked to end. When this returns,
    /// the request is on disk; [`wait`](Engine::wait) for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation, or it has no such target.
    pub async fn stop_invocation(&self, request: StopInvocation) -> Result<StopInvocationResponse> {
        none_of(request.violations(self.limits()))?;
        let (invoke_id, now_ms) = (request.invoke_id, self.now_ms());
        let hub = Arc::clone(&self.inner.records.hub);
        let stop = self.inner.dispatcher.as_ref().map(Dispatcher::stopper);
        let op = move |tx: Tx<'_>| {
            let invocation = invocations::find(tx, invoke_id)?;
            executions::stop(tx, invocation, &request.instance_ids, now_ms)
        };
        self.write_then(op, move |stopped| {
            if let Some(stop) = stop {
                stop(stopped.stopping.iter().map(|(execution_id, _)| *execution_id).collect());
            }
            tell_stopped(&hub, invoke_id, stopped, now_ms);
        })
        .await?;
        Ok(StopInvocationResponse { request_id: wire::request_id() })
    }

    /// Lists invocations, newest first, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the page is not one.
    pub async fn describe_invocations(
        &self,
        request: DescribeInvocations,
    ) -> Result<DescribeInvocationsResponse> {
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        let encoding = encoding(request.content_encoding.as_deref());
        let (invocations, next) = self
            .read(move |tx| {
                if let Some(invoke_id) = request.invoke_id {
                    invocations::find(tx, invoke_id)?;
                }
                invocations::list(tx, &request, page.after, page.size, encoding)
            })
            .await?;
        Ok(DescribeInvocationsResponse {
            request_id: wire::request_id(),
            invocations,
            next_token: text(next),
        })
    }

    /// Lists executions, newest first, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the invocation is unknown or the page is not one.
    pub async fn describe_invocation_results(
        &self,
        request: DescribeInvocationResults,
    ) -> Result<DescribeInvocationResultsResponse> {
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        none_of(request.violations())?;
        let encoding = encoding(request.content_encoding.as_deref());
        let (results, next) = self
            .read(move |tx| {
                if let Some(invoke_id) = request.invoke_id {
                    invocations::find(tx, invoke_id)?;
                }
                executions::list(tx, &request, page.after, page.size, encoding)
            })
            .await?;
        let invocation = ResultPage { results, next_token: text(next) };
        Ok(DescribeInvocationResultsResponse { request_id: wire::request_id(), invocation })
    }

    /// Lists what became of the nominal times of an invocation, newest first, a page at a time: one
    /// entry for each that fired, one for each stretch that was missed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation or the page is not one.
    pub async fn describe_fires(&self, request: DescribeFires) -> Result<DescribeFiresResponse> {
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        let invoke_id = request.invoke_id;
        let (fires, next) = self
            .read(move |tx| {
                let invocation = invocations::find(tx, invoke_id)?;
                fires::list(tx, invocation, page.after, page.size)
            })
            .await?;
        Ok(DescribeFiresResponse { request_id: wire::request_id(), fires, next_token: text(next) })
    }

    /// Waits until an invocation has ended; all its results, in the order of its targets.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation, [`Error::ShuttingDown`] if the engine
    /// ends before it.
    pub async fn wait(&self, invoke_id: &InvokeId) -> Result<Finished> {
        let invoke_id = *invoke_id;
        let subscription = self.inner.records.hub.subscribe(invoke_id);
        let mut sleep = None;
        loop {
            let finished = self.read(move |tx| finished(tx, invoke_id)).await?;
            if let Some(finished) = finished {
                return Ok(finished);
            }
            loop {
                let inbox = subscription.take();
                if inbox.finished.is_some() {
                    break;
                }
                if inbox.closed {
                    return Err(Error::ShuttingDown);
                }
                if self.inner.records.wait(&subscription, &mut sleep).await {
                    break;
                }
            }
        }
    }

    /// Watches an invocation from its beginning: what has happened, then what happens.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation.
    pub async fn watch(&self, invoke_id: &InvokeId) -> Result<Watch> {
        self.watch_from(invoke_id, Position::default()).await
    }

    /// Watches an invocation from where an earlier [`Watch`] had come to.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation.
    pub async fn watch_from(&self, invoke_id: &InvokeId, position: Position) -> Result<Watch> {
        let subscription = self.inner.records.hub.subscribe(*invoke_id);
        self.watch_with(subscription, *invoke_id, position).await
    }

    async fn watch_with(
        &self,
        subscription: Arc<Subscription>,
        invoke_id: InvokeId,
        position: Position,
    ) -> Result<Watch> {
        let invocation = self.read(move |tx| invocations::find(tx, invoke_id)).await?;
        Ok(Watch::new(self.inner.records.clone(), subscription, invocation, position))
    }

    /// Takes no new work, waits up to `deadline` for what runs, then ends that too. When this
    /// returns nothing of the engine runs any longer; what waited stays for the next one.
    pub async fn shutdown(&self, deadline: Duration) {
        self.inner.closing.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(scheduler) = &self.inner.scheduler {
            scheduler.task.abort();
        }
        if let Some(dispatcher) = &self.inner.dispatcher {
            dispatcher.shut_down(deadline, &*self.inner.clock).await;
        }
    }

    fn planner(&self) -> Planner {
        Planner {
            now: self.inner.clock.realtime(),
            executor_names: Arc::clone(&self.inner.executor_names),
            limits: self.limits().clone(),
        }
    }

    fn check_instance(&self, instance: &Instance) -> Result<()> {
        let mut violations = instance.violations();
        if !self.inner.executor_names.contains(&instance.executor) {
            violations.push(no_executor(instance, &self.inner.executor_names));
        }
        none_of(violations)
    }

    fn new_invoke_id(&self) -> InvokeId {
        InvokeId::new(self.inner.clock.realtime())
    }

    fn now_ms(&self) -> i64 {
        now_ms(&*self.inner.clock)
    }

    /// Stores an invocation and lets the dispatcher know.
    async fn submit<F>(&self, op: F) -> Result<()>
    where
        F: FnOnce(Tx<'_>) -> Result<()> + Send + 'static,
    {
        let wake_dispatcher = self.inner.dispatcher.as_ref().map(Dispatcher::waker);
        let wake_scheduler = self.inner.scheduler.as_ref().map(|s| Arc::clone(&s.wake));
        self.write_then(op, move |()| {
            if let Some(wake) = wake_dispatcher {
                wake();
            }
            if let Some(wake) = wake_scheduler {
                wake.notify_one();
            }
        })
        .await
    }

    async fn write<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.write_then(op, |_| {}).await
    }

    /// Writes, and does what has to follow even if the caller no longer waits.
    async fn write_then<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&T) + Send + 'static,
    {
        if self.inner.closing.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::ShuttingDown);
        }
        self.inner.records.store.write_then(op, then).await
    }

    async fn read<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.inner.records.read(op).await
    }
}

/// Tells the watchers of an invocation what a stop did.
fn tell_stopped(hub: &Hub, invoke_id: InvokeId, stopped: &Stopped, now_ms: i64) {
    let change = |status| {
        move |(execution_id, instance_id): &(ExecutionId, InstanceId)| Change {
            execution_id: *execution_id,
            instance_id: instance_id.clone(),
            status,
            at_ms: now_ms,
            output: None,
        }
    };
    hub.publish(invoke_id, || {
        let cancelled = stopped.cancelled.iter().map(change(ExecutionStatus::Cancelled));
        cancelled.chain(stopped.stopping.iter().map(change(ExecutionStatus::Stopping))).collect()
    });
    for &(invoke_id, status) in &stopped.finished {
        hub.finish(invoke_id, status);
    }
}

fn finished(tx: Tx<'_>, invoke_id: InvokeId) -> Result<Option<Finished>> {
    let invocation = invocations::find(tx, invoke_id)?;
    let status = invocations::status(tx, invocation)?;
    if !status.is_final() {
        return Ok(None);
    }
    Ok(Some(Finished { status, results: executions::all_of(tx, invocation)? }))
}

/// The page that a listing asks for.
#[derive(Debug, Clone, Copy)]
struct Page {
    after: Option<PageToken>,
    size: usize,
}

impl Page {
    fn new(max_results: Option<usize>, token: Option<&str>, limits: &Limits) -> Result<Self> {
        let size = max_results.unwrap_or(limits.page_size_default);
        if !(1..=limits.page_size_max).contains(&size) {
            return Err(Error::invalid(Violation::new(
                "InvalidParameter.MaxResults",
                400,
                "MaxResults",
                format!("want 1 to {} entries a page; it is {size}", limits.page_size_max),
            )));
        }
        let after = token.filter(|token| !token.is_empty()).map(PageToken::parse).transpose()?;
        Ok(Self { after, size })
    }
}

fn text(next: Option<PageToken>) -> String {
    next.map(|token| token.to_string()).unwrap_or_default()
}

fn encoding(request: Option<&str>) -> ContentEncoding {
    request.and_then(ContentEncoding::parse).unwrap_or_default()
}

fn unchecked() -> Error {
    Error::Internal("content passed its check and is not there".to_owned())
}

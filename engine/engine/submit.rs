//! Invocations: in, and stopped.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Engine;
use super::planner::{Draft, Planner};
use super::watch::{Position, Watch};
use crate::authorizer::Action;
use crate::clock::now_ms;
use crate::command::content::ContentMax;
use crate::command::parameters::Arguments;
use crate::command::settings::Settings;
use crate::dispatcher::{Launch, Reservation};
use crate::error::{Error, Result, Violation, none_of};
use crate::event::Subscription;
use crate::execution::StopOrder;
use crate::given::Given;
use crate::id::{CommandId, InvokeId};
use crate::invocation::client_token::ClientToken;
use crate::invocation::container::Container;
use crate::invocation::recurrence;
use crate::invocation::request::{Targets, Terms};
use crate::invocation::{
    InvokeCommand, InvokeCommandResponse, Quotas, RunCommand, RunCommandResponse, StopInvocation,
    StopInvocationResponse,
};
use crate::operation::Operation;
use crate::panics::{Contained, tell};
use crate::scheduler::Work;
use crate::secret::{NO_STORE, SecretRequest};
use crate::store::claims::ClaimedAtOnce;
use crate::store::commands::Definition;
use crate::store::invocations::{NewInvocation, Start};
use crate::store::stop::{self, Stopped};
use crate::store::{HostError, HostTransaction, Tx, client_tokens, commands, days, host, trial};
use crate::wire;

impl Engine {
    /// Creates a command and runs it. When this returns, the invocation is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong, [`Error::Busy`] if too many requests wait; then
    /// nothing is stored and nothing runs.
    pub async fn run_command(&self, request: RunCommand) -> Result<RunCommandResponse> {
        Ok(self.submit_run(self.new_invoke_id(), request, None::<HostPart<_, ()>>).await?.0)
    }

    /// Does the same, and something of the host's in the same commit: both are on disk, or neither.
    /// What the host's part came to; nothing if this call has stored nothing, because its
    /// `ClientToken` had been given before or it was a dry run. Then the host's part is not done.
    ///
    /// The writes of a SQLite file are one behind the other, and the engine is what writes this one.
    /// So the host's rows join a transaction of the engine, and not the other way round: nobody
    /// waits for a lock, and the commit is shared with whoever else writes.
    ///
    /// # An order and what delivers it
    ///
    /// ```
    /// use adjutant::{Engine, RunCommand};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// let engine = Engine::open_in_memory().await?;
    /// engine
    ///     .write(|tx| {
    ///         tx.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, invoke_id TEXT)")?;
    ///         Ok(())
    ///     })
    ///     .await?;
    /// let deliver = RunCommand::shell("echo delivered").on(["local"]);
    /// let (run, order) = engine
    ///     .run_command_with(deliver, |tx, run| {
    ///         let invoke_id = run.invoke_id.to_string();
    ///         tx.execute("INSERT INTO orders (invoke_id) VALUES (?1)", [invoke_id])?;
    ///         Ok(tx.last_insert_rowid())
    ///     })
    ///     .await?;
    /// assert_eq!(order, Some(1));
    /// # engine.wait(&run.invoke_id).await?;
    /// # Ok::<(), adjutant::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run_command`](Engine::run_command), and [`Error::Host`] with what the host's part failed
    /// with.
    pub async fn run_command_with<T: Send + 'static>(
        &self,
        request: RunCommand,
        host: impl FnOnce(&HostTransaction<'_>, &RunCommandResponse) -> Result<T, HostError>
        + Send
        + 'static,
    ) -> Result<(RunCommandResponse, Option<T>)> {
        let invoke_id = self.new_invoke_id();
        let op = move |tx: Tx<'_>, response: &_| host::perform(tx, |tx| host(tx, response));
        self.submit_run(invoke_id, request, Some(Box::new(op))).await
    }

    /// Does the same as [`run_command`](Engine::run_command) and watches from before the start, so
    /// that no output is missed.
    ///
    /// # Errors
    ///
    /// As [`run_command`](Engine::run_command).
    pub async fn run_command_and_watch(
        &self,
        request: RunCommand,
    ) -> Result<(RunCommandResponse, Watch)> {
        let (invoke_id, subscription) = self.subscribe_to_new().await?;
        let (response, _) = self.submit_run(invoke_id, request, None::<HostPart<_, ()>>).await?;
        let watch = self.watch_submitted(subscription, response.invoke_id).await?;
        Ok((response, watch))
    }

    async fn submit_run<T: Send + 'static>(
        &self,
        invoke_id: InvokeId,
        request: RunCommand,
        host: Option<HostPart<RunCommandResponse, T>>,
    ) -> Result<(RunCommandResponse, Option<T>)> {
        let mut action = self.action(Operation::RunCommand);
        if let Given::Known(command_type) = request.command_type {
            action.command_type = Some(command_type);
        }
        action.instance_ids.clone_from(&request.instance_ids);
        action.resource_tags.clone_from(&request.resource_tags);
        action.resource_group_id.clone_from(&request.resource_group_id);
        let container = Container::new(&request.container_id, &request.container_name);
        action.within(&container, request.resource_limits);
        action.frequency = request.frequency.clone().filter(|schedule| !schedule.is_empty());
        self.authorize_with(action, None, |_| request.settings()).await?;
        self.submit_permitted(invoke_id, request, host).await
    }

    /// Creates a command and runs it; that the host permits it has been found out.
    pub(super) async fn submit_permitted<T: Send + 'static>(
        &self,
        invoke_id: InvokeId,
        request: RunCommand,
        host: Option<HostPart<RunCommandResponse, T>>,
    ) -> Result<(RunCommandResponse, Option<T>)> {
        let mut found = Vec::new();
        let mut checked = request.check(self.limits(), &mut found);
        checked.terms.token = self.own(checked.terms.token);
        self.vet_secrets(Operation::RunCommand, None, &checked.terms, &mut found).await?;
        let command_id = CommandId::of_invocation(invoke_id);
        // The pages take a kept command without a name; it has its id for one.
        let name = match request.name {
            name if name.is_empty() && request.keep_command => command_id.to_string(),
            name => name,
        };
        let terms = checked.terms;
        let command_type = checked.command_type;
        // What is wrong with it, has been said; what else is wrong shows without it.
        let definition = Definition {
            name,
            description: request.description,
            command_type: command_type.unwrap_or_default(),
            content: checked.content.unwrap_or_default(),
            enable_parameter: request.enable_parameter,
            default_parameters: request.default_parameters,
            secret_parameters: request.secret_parameters,
            settings: terms.settings.clone(),
            timeout_s: request.timeout,
        };
        let keeps = request.keep_command.then_some(command_id);
        let submission = Submission {
            operation: Operation::RunCommand,
            invoke_id,
            planner: self.planner(checked.content_max),
            token: terms.token.clone(),
            dry_run: terms.dry_run,
            is_timed: terms.recurrence.is_some() || terms.rate_control.is_timed(),
            found,
        };
        let origin = self.origin(invoke_id, keeps, checked.content_max);
        let timeout_s =
            recurrence::timeout_s(request.timeout, terms.recurrence.as_ref(), self.limits());
        let (targets, new) = split(origin, terms, timeout_s);
        let definition = Some(definition);
        let draft = Draft { targets, definition, command_type, keeps, new };
        let draft = Arc::new(draft);
        let draft = move |_: Tx<'_>, _: &mut _| Ok(Arc::clone(&draft));
        let response = RunCommandResponse { request_id: wire::request_id(), command_id, invoke_id };
        let (first, done) = self.submit(submission, draft, response, host).await?;
        Ok((RunCommandResponse { request_id: wire::request_id(), ..first }, done))
    }

    /// Runs a kept command. When this returns, the invocation is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with what is wrong, [`Error::Busy`] if too many requests wait; then nothing is
    /// stored and nothing runs.
    pub async fn invoke_command(&self, request: InvokeCommand) -> Result<InvokeCommandResponse> {
        Ok(self.submit_invoke(self.new_invoke_id(), request, None::<HostPart<_, ()>>).await?.0)
    }

    /// Does the same, and something of the host's in the same commit, as
    /// [`run_command_with`](Engine::run_command_with) does.
    ///
    /// # Errors
    ///
    /// As [`run_command_with`](Engine::run_command_with).
    pub async fn invoke_command_with<T: Send + 'static>(
        &self,
        request: InvokeCommand,
        host: impl FnOnce(&HostTransaction<'_>, &InvokeCommandResponse) -> Result<T, HostError>
        + Send
        + 'static,
    ) -> Result<(InvokeCommandResponse, Option<T>)> {
        let invoke_id = self.new_invoke_id();
        let op = move |tx: Tx<'_>, response: &_| host::perform(tx, |tx| host(tx, response));
        self.submit_invoke(invoke_id, request, Some(Box::new(op))).await
    }

    /// Does the same as [`invoke_command`](Engine::invoke_command) and watches from before the
    /// start, so that no output is missed.
    ///
    /// # Errors
    ///
    /// As [`invoke_command`](Engine::invoke_command).
    pub async fn invoke_command_and_watch(
        &self,
        request: InvokeCommand,
    ) -> Result<(InvokeCommandResponse, Watch)> {
        let (invoke_id, subscription) = self.subscribe_to_new().await?;
        let (response, _) = self.submit_invoke(invoke_id, request, None::<HostPart<_, ()>>).await?;
        let watch = self.watch_submitted(subscription, response.invoke_id).await?;
        Ok((response, watch))
    }

    async fn submit_invoke<T: Send + 'static>(
        &self,
        invoke_id: InvokeId,
        request: InvokeCommand,
        host: Option<HostPart<InvokeCommandResponse, T>>,
    ) -> Result<(InvokeCommandResponse, Option<T>)> {
        let mut found = Vec::new();
        let (command_id, mut terms) = request.check(self.limits(), &mut found);
        let mut action = self.action(Operation::InvokeCommand);
        action.command_id = command_id;
        action.instance_ids.clone_from(&terms.targets.instance_ids);
        action.resource_tags.clone_from(&terms.targets.tags);
        action.resource_group_id.clone_from(&terms.targets.resource_group_id);
        action.within(&terms.container, terms.resource_limits);
        action.frequency = request.frequency.clone().filter(|schedule| !schedule.is_empty());
        let settings = terms.settings.clone();
        self.authorize_with(action, command_id, |own| settings.or(own)).await?;
        let own_secrets = terms.arguments.secrets.clone();
        if let Some(command_id) = command_id
            && self.inner.secrets.is_some()
            && let Some(definition) =
                self.inner.records.read(move |tx| commands::find(tx, command_id)).await?
        {
            complete(&mut terms.arguments, &definition);
        }
        terms.token = self.own(terms.token);
        let operation = Operation::InvokeCommand;
        self.vet_secrets(operation, command_id, &terms, &mut found).await?;
        let submission = Submission {
            operation: Operation::InvokeCommand,
            invoke_id,
            planner: self.planner(ContentMax::kept(self.limits())),
            token: terms.token.clone(),
            dry_run: terms.dry_run,
            is_timed: terms.recurrence.is_some() || terms.rate_control.is_timed(),
            found,
        };
        let limits = Arc::clone(&self.limits);
        let origin = self.origin(invoke_id, command_id, ContentMax::kept(&limits));
        let draft = move |tx: Tx<'_>, found: &mut Vec<Violation>| {
            let mut terms = terms.clone();
            let mut definition = match command_id {
                Some(id) => commands::find(tx, id)?.or_else(|| {
                    found.push(commands::not_found(id));
                    None
                }),
                None => None,
            };
            if let Some(definition) = &mut definition {
                let own = std::mem::take(&mut definition.settings);
                definition.settings = terms.settings.clone().or(own);
                definition.timeout_s = request.timeout.or(definition.timeout_s);
                complete(&mut terms.arguments, definition);
                let (enabled, content) = (definition.enable_parameter, &definition.content);
                let script = terms.arguments.check(enabled, Some(content), &limits, found);
                if let Some(script) = script {
                    // What the command says of its parameters was checked when it did.
                    let own = Arguments { secrets: own_secrets.clone(), ..terms.arguments.clone() };
                    own.check_names(&script, false, &limits, found);
                }
            }
            let stated_timeout_s = definition.as_ref().and_then(|definition| definition.timeout_s);
            let timeout_s =
                recurrence::timeout_s(stated_timeout_s, terms.recurrence.as_ref(), &limits);
            let (targets, new) = split(origin.clone(), terms, timeout_s);
            let command_type = definition.as_ref().map(|definition| definition.command_type);
            let keeps = None;
            Ok(Arc::new(Draft { targets, definition, command_type, keeps, new }))
        };
        let response = InvokeCommandResponse { request_id: wire::request_id(), invoke_id };
        let (first, done) = self.submit(submission, draft, response, host).await?;
        Ok((InvokeCommandResponse { request_id: wire::request_id(), ..first }, done))
    }

    /// Asks the host about an action that makes, runs or changes a command, with the settings that `settle` makes of the
    /// kept command's own.
    pub(super) async fn authorize_with(
        &self,
        mut action: Action,
        command_id: Option<CommandId>,
        settle: impl FnOnce(Settings) -> Settings,
    ) -> Result<()> {
        let mut own = Settings::default();
        if self.inner.authorizer.is_some()
            && let Some(command_id) = command_id
            && let Some(command) =
                self.inner.records.read(move |tx| commands::find(tx, command_id)).await?
        {
            action.command_type = action.command_type.or(Some(command.command_type));
            own = command.settings;
        }
        let settings = settle(own);
        action.with_settings(&settings);
        self.tell_user(&mut action, settings.username.as_deref()).await;
        self.authorize(action).await
    }

    /// Stops an invocation: what waits is cancelled, what runs is asked to end, and nothing fires
    /// any more. When this returns, the request is on disk; [`wait`](Engine::wait) for the end.
    ///
    /// The first commit takes effect on the whole invocation: after that commit none of its executions starts. If
    /// there are more executions than one commit takes, later commits cancel the others. The engine makes these
    /// commits even if this future is dropped; if the engine ends, the next engine makes them.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation, or it has no such target. [`Error::Storage`] if a record or a
    /// damaged page keeps executions from being stopped; the error names the first of them, and all others are
    /// stopped.
    pub async fn stop_invocation(&self, request: StopInvocation) -> Result<StopInvocationResponse> {
        let refused = |found| Error::all(Operation::StopInvocation, found);
        let invoke_id = request.check(self.limits()).map_err(refused)?;
        let mut action = self.action(Operation::StopInvocation);
        action.invoke_id = Some(invoke_id);
        action.instance_ids = request.instance_ids.clone();
        self.authorize(action).await?;
        let instance_ids = Arc::new(request.instance_ids);
        let ends = instance_ids.is_empty();
        let order = Arc::new(StopOrder::request(self.caller.clone(), request.reason));
        let (told, announcer) = (Arc::clone(&order), self.announcer());
        let aside = Arc::clone(self.inner.records.store.aside());
        let stop = move |tx: Tx<'_>, invocation, now_ms| {
            stop::invocation(tx, invocation, &instance_ids, &order, now_ms, stop::SLICE, &aside)
        };
        let announce = move |stopped: &Stopped, now_ms| {
            announcer.stopped(invoke_id, stopped, &told, now_ms);
        };
        let stopped = self.settle_then(invoke_id, ends, stop, announce).await?;
        if let Some(left) = stopped.left {
            self.see_through(Work::Stop(left)).await?;
        }
        if let Some(error) = stopped.unstopped {
            return Err(error);
        }
        Ok(StopInvocationResponse { request_id: wire::request_id() })
    }

    /// Writes to the host's own tables in the engine's file, in one transaction.
    ///
    /// # Errors
    ///
    /// [`Error::Host`] with what `op` failed with; then nothing of it stays. [`Error::Storage`] if
    /// the file cannot be written.
    pub async fn write<T: Send + 'static>(
        &self,
        op: impl FnOnce(&HostTransaction<'_>) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T> {
        self.write_once(move |tx| host::perform(tx, op), |_| {}).await
    }

    /// Returns the checks of a request whose content may have this size, its parameters filled in.
    pub(super) fn planner(&self, content_max: ContentMax) -> Planner {
        Planner {
            now: self.inner.clock.realtime(),
            executor_names: Arc::clone(&self.inner.executor_names),
            survivable: Arc::clone(&self.inner.survivable),
            is_in_memory: self.path().is_none(),
            limits: Arc::clone(&self.limits),
            content_max,
            names: self.inner.config.names.clone(),
        }
    }

    pub(super) fn origin(
        &self,
        invoke_id: InvokeId,
        kept_id: Option<CommandId>,
        content_max: ContentMax,
    ) -> Origin {
        Origin {
            invoke_id,
            kept_id,
            caller: self.caller.clone(),
            secrets_are_names: self.inner.secrets.is_some(),
            content_max,
            retry_of: None,
        }
    }

    pub(super) fn new_invoke_id(&self) -> InvokeId {
        InvokeId::new(self.inner.clock.realtime())
    }

    /// A token as one of this handle's caller.
    pub(super) fn own(&self, token: Option<ClientToken>) -> Option<ClientToken> {
        token.map(|token| token.by(self.caller.as_deref()))
    }

    /// Has every secret resolved that a request names, to find out whether it can be; not of one
    /// that has been answered before.
    pub(super) async fn vet_secrets(
        &self,
        operation: Operation,
        command_id: Option<CommandId>,
        terms: &Terms,
        found: &mut Vec<Violation>,
    ) -> Result<()> {
        const PASSWORD: &str = "WindowsPasswordName";
        let password = terms.windows_password_name.as_deref().map(|name| (None, name));
        let Some(resolver) = &self.inner.secrets else {
            if password.is_some() {
                let message = "no SecretResolver is plugged in that could know it";
                found.push(Violation::new(NO_STORE, 403, PASSWORD, message));
            }
            return Ok(());
        };
        let parameters = terms.arguments.secret_pairs();
        let named = parameters.map(|(parameter, secret)| (Some(parameter), secret)).chain(password);
        let named: Vec<_> = named.collect();
        if named.is_empty() {
            return Ok(());
        }
        if let Some(token) = terms.token.clone() {
            let now_ms = self.now_ms();
            let is_known = move |tx: Tx<'_>| client_tokens::is_known(tx, &token, now_ms);
            if self.inner.records.read(is_known).await? {
                return Ok(());
            }
        }
        for (parameter, secret) in named {
            let mut request = SecretRequest::new(secret, parameter, operation);
            request.caller.clone_from(&self.caller);
            request.command_id = command_id;
            let (what, field) = (request.what(), parameter.map_or(PASSWORD, |_| "Parameters"));
            let resolved = Contained::new(async { resolver.resolve(request).await }).await;
            let resolved = resolved.map_err(|message| {
                Error::host(format!("the SecretResolver panicked: {message}"))
            })?;
            if let Err(error) = resolved {
                let message = format!("{what} cannot be resolved: {error}");
                found.push(Violation::new(error.code(), 403, field, message));
            }
        }
        Ok(())
    }

    /// Stores an invocation and lets those know who act on it; the answer. If the request was made
    /// before with the same token, the answer is that of the first. One that runs at once is none of
    /// the scheduler's business, whose look at the timers the claim would have to wait for.
    pub(super) async fn submit<R, T, D>(
        &self,
        submission: Submission,
        mut draft: D,
        response: R,
        mut host: Option<HostPart<R, T>>,
    ) -> Result<(R, Option<T>)>
    where
        R: Clone + Serialize + DeserializeOwned + Send + 'static,
        T: Send + 'static,
        D: FnMut(Tx<'_>, &mut Vec<Violation>) -> Result<Arc<Draft>> + Send + 'static,
    {
        let Submission { operation, invoke_id, planner, token, dry_run, is_timed, mut found } =
            submission;
        if !found.is_empty() {
            // What else is wrong belongs to the same answer.
            let all = self.read(move |tx| {
                let draft = draft(tx, &mut found)?;
                planner.plan(tx, &draft, &mut found)?;
                Ok(found)
            });
            return Err(Error::all(operation, all.await?));
        }
        self.check_takes_work()?;
        let Ok(_waits) = self.inner.submissions.try_acquire() else {
            self.inner.records.store.meters().refused();
            return Err(Error::Busy { waiting: self.inner.config.submissions_max });
        };
        let is_repeatable = host.is_none();
        let announcer = self.announcer();
        let (clock, line) = (Arc::clone(&self.inner.clock), announcer.dispatcher.clone());
        let answer = response.clone();
        let mut op = move |tx: Tx<'_>| {
            let mut found = Vec::new();
            let draft = draft(tx, &mut found)?;
            let start = planner.plan(tx, &draft, &mut found)?;
            none_of(operation, found)?;
            let (Some(start), Some(definition)) = (&start, &draft.definition) else {
                return Err(Error::Internal("a sound request came to nothing".to_owned()));
            };
            if dry_run {
                return Ok(None);
            }
            let reservation = match (start, &line) {
                (Start::Now { targets }, Some(line)) if draft.new.is_unbounded(targets) => {
                    line.reserve(targets.len())
                }
                _ => None,
            };
            let claimed_at_ms = now_ms(&*clock);
            let claims = reservation.as_ref().map(|_| claimed_at_ms);
            let claimed = planner.store(tx, &draft, definition, start, claims)?;
            let launch = reservation.zip(claimed).map(|(reservation, stored)| {
                let job = Arc::new(draft.new.job(definition));
                let committed = Duration::ZERO;
                let ClaimedAtOnce { sole, claimed } = stored;
                (reservation, Launch { sole, job, claimed, claimed_at_ms, committed })
            });
            let waits = launch.is_none() && matches!(start, Start::Now { .. });
            let host = host.take().map(|host| host(tx, &answer)).transpose()?;
            Ok(Some(Submitted { launch, waits, host }))
        };
        let now_ms = self.now_ms();
        let mut store = move |tx: Tx<'_>| {
            let response = response.clone();
            match &token {
                Some(token) => client_tokens::once(tx, token, now_ms, response, || op(tx)),
                None => op(tx).map(|done| (response, done)),
            }
        };
        if dry_run {
            let checked = move |tx: Tx<'_>| trial(tx, || store(tx));
            return Ok((self.write_records(checked).await?.0, None));
        }
        let wake_scheduler = self.inner.scheduler.clone().filter(|_| is_timed);
        let told_by = Arc::clone(&self.inner.clock);
        let then = move |(_, submitted): &mut (R, Option<Submitted<T>>)| {
            let Some(submitted) = submitted else { return };
            tell(|| tracing::debug!(%operation, %invoke_id, "an invocation is stored"));
            if let Some((reservation, mut launch)) = submitted.launch.take() {
                launch.committed = told_by.monotonic();
                announcer.hub.expect_end(invoke_id);
                reservation.launch(launch);
            } else if submitted.waits {
                announcer.new_work();
            }
            if let Some(wake) = wake_scheduler {
                wake.notify_one();
            }
        };
        let (response, submitted) = match is_repeatable {
            true => self.write_then(store, then).await?,
            false => self.write_once(store, then).await?,
        };
        Ok((response, submitted.and_then(|submitted| submitted.host)))
    }

    /// Returns the id of a new invocation and a subscription to it, if the caller may read its outputs.
    pub(super) async fn subscribe_to_new(&self) -> Result<(InvokeId, Arc<Subscription>)> {
        let invoke_id = self.new_invoke_id();
        self.authorize_reading(invoke_id).await?;
        Ok((invoke_id, self.inner.records.hub.subscribe(invoke_id)))
    }

    /// Watches what has just been submitted, or what the first request with its token was given.
    pub(super) async fn watch_submitted(
        &self,
        subscription: Arc<Subscription>,
        invoke_id: InvokeId,
    ) -> Result<Watch> {
        if subscription.invoke_id() == invoke_id {
            self.watch_with(subscription, invoke_id, Position::default()).await
        } else {
            self.watch(&invoke_id).await
        }
    }

    /// How much of the day's and the file's quotas is used.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] if the records cannot be read.
    pub async fn quotas(&self) -> Result<Quotas> {
        self.authorize(self.action(Operation::DescribeQuotas)).await?;
        let (now_ms, limits) = (self.now_ms(), Arc::clone(&self.limits));
        self.read(move |tx| {
            Ok(Quotas {
                kept_commands: commands::count(tx)?,
                kept_commands_max: limits.kept_commands_max,
                invocations_today: days::invocations(tx, now_ms)?,
                invocations_per_day_max: limits.invocations_per_day_max,
            })
        })
        .await
    }
}

/// What the host does in the transaction that stores an invocation; it has the answer.
pub(super) type HostPart<R, T> = Box<dyn FnOnce(Tx<'_>, &R) -> Result<T> + Send>;

/// What became of a request that was stored.
struct Submitted<T> {
    /// Its executions, if they have their places.
    launch: Option<(Reservation, Launch)>,
    /// Whether they wait for them.
    waits: bool,
    /// What the host's part came to.
    host: Option<T>,
}

/// What there is to a request beside what it makes.
pub(super) struct Submission {
    pub operation: Operation,
    pub invoke_id: InvokeId,
    pub planner: Planner,
    pub token: Option<ClientToken>,
    pub dry_run: bool,
    /// Whether something of it is to happen at a time of its own.
    pub is_timed: bool,
    /// What is wrong with it, whatever the records say.
    pub found: Vec<Violation>,
}

/// Gives arguments what a command says of its parameters.
fn complete(arguments: &mut Arguments, definition: &Definition) {
    arguments.defaults.clone_from(&definition.default_parameters);
    arguments.secrets.extend(&definition.secret_parameters);
}

/// What an invocation has that its request does not say.
#[derive(Clone)]
pub(super) struct Origin {
    pub invoke_id: InvokeId,
    pub kept_id: Option<CommandId>,
    pub caller: Option<Arc<str>>,
    pub secrets_are_names: bool,
    pub content_max: ContentMax,
    /// The row of the invocation that it is another run of.
    pub retry_of: Option<i64>,
}

/// Where a request wants something to run, and what; a run may take `timeout_s`.
pub(super) fn split(
    origin: Origin,
    terms: Terms,
    timeout_s: Option<u64>,
) -> (Targets, NewInvocation) {
    let new = NewInvocation {
        invoke_id: origin.invoke_id,
        kept_id: origin.kept_id,
        arguments: terms.arguments,
        container: terms.container,
        windows_password_name: terms.windows_password_name,
        secrets_are_names: origin.secrets_are_names,
        content_bytes_max: origin.content_max.bytes(),
        timeout_s,
        resource_group_id: terms.targets.resource_group_id.clone(),
        caller: origin.caller,
        termination_mode: terms.termination_mode,
        resource_limits: terms.resource_limits,
        survive_restarts: terms.survive_restarts,
        recurrence: terms.recurrence,
        retry: terms.retry,
        rate_control: terms.rate_control,
        tags: terms.tags,
        retry_of: origin.retry_of,
    };
    (terms.targets, new)
}

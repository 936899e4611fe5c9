//! Invocations: in, and stopped.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Engine;
use super::planner::Planner;
use super::watch::{Position, Watch};
use crate::error::{Error, Result, none_of};
use crate::event::Subscription;
use crate::execution::StopReason;
use crate::id::{CommandId, InvokeId};
use crate::invocation::client_token::ClientToken;
use crate::invocation::{
    InvokeCommand, InvokeCommandResponse, Quotas, RunCommand, RunCommandResponse, StopInvocation,
    StopInvocationResponse,
};
use crate::store::commands::Definition;
use crate::store::invocations::NewInvocation;
use crate::store::stop::{self, Stopped};
use crate::store::{Tx, client_tokens, commands, days};
use crate::wire;

impl Engine {
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
        let watch = self.watch_submitted(subscription, response.invoke_id).await?;
        Ok((response, watch))
    }

    async fn submit_run(
        &self,
        invoke_id: InvokeId,
        request: RunCommand,
    ) -> Result<RunCommandResponse> {
        let checked = request.check(self.limits()).map_err(Error::all)?;
        let command_id = CommandId::of_invocation(invoke_id);
        // The pages take a kept command without a name; it has its id for one.
        let name = match request.name {
            name if name.is_empty() && request.keep_command => command_id.to_string(),
            name => name,
        };
        let definition = Definition {
            name,
            description: request.description,
            command_type: checked.command_type,
            content: checked.content,
            enable_parameter: request.enable_parameter,
            working_dir: request.working_dir.filter(|dir| !dir.is_empty()),
            timeout_s: request.timeout.unwrap_or(self.limits().timeout_s_default),
        };
        let (keep, kept_max) = (request.keep_command, self.limits().kept_commands_max);
        let new = NewInvocation {
            invoke_id,
            command_id: keep.then_some(command_id),
            definition,
            arguments: checked.terms.arguments,
            termination_mode: checked.terms.termination_mode,
            recurrence: checked.terms.recurrence,
            tags: checked.terms.tags,
        };
        let targets = checked.terms.targets;
        let planner = self.planner(checked.bytes_max);
        let now_ms = planner.now.timestamp_millis();
        let response = RunCommandResponse { request_id: wire::request_id(), command_id, invoke_id };
        let (token, repeats) = (checked.terms.token, new.recurrence.is_some());
        let first = self.submit(token, repeats, response, move |tx| {
            let start = planner.start(tx, &targets, &new)?;
            if keep {
                commands::insert(tx, command_id, &new.definition, &new.tags, kept_max, now_ms)?;
            }
            planner.store(tx, &new, &start)
        });
        Ok(RunCommandResponse { request_id: wire::request_id(), ..first.await? })
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
        let watch = self.watch_submitted(subscription, response.invoke_id).await?;
        Ok((response, watch))
    }

    async fn submit_invoke(
        &self,
        invoke_id: InvokeId,
        request: InvokeCommand,
    ) -> Result<InvokeCommandResponse> {
        let (command_id, terms) = request.check(self.limits()).map_err(Error::all)?;
        let planner = self.planner(self.limits().kept_content_bytes_max);
        let response = InvokeCommandResponse { request_id: wire::request_id(), invoke_id };
        let first = self.submit(terms.token, terms.recurrence.is_some(), response, move |tx| {
            let mut definition = commands::get(tx, command_id)?;
            if let Some(working_dir) = request.working_dir.filter(|dir| !dir.is_empty()) {
                definition.working_dir = Some(working_dir);
            }
            definition.timeout_s = request.timeout.unwrap_or(definition.timeout_s);
            planner.check_arguments(&definition, &terms.arguments)?;
            let new = NewInvocation {
                invoke_id,
                command_id: Some(command_id),
                definition,
                arguments: terms.arguments,
                termination_mode: terms.termination_mode,
                recurrence: terms.recurrence,
                tags: terms.tags,
            };
            let start = planner.start(tx, &terms.targets, &new)?;
            planner.store(tx, &new, &start)
        });
        Ok(InvokeCommandResponse { request_id: wire::request_id(), ..first.await? })
    }

    /// Stops an invocation: what waits is cancelled, what runs is asked to end, and nothing fires
    /// any more. When this returns, the request is on disk; [`wait`](Engine::wait) for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation, or it has no such target.
    pub async fn stop_invocation(&self, request: StopInvocation) -> Result<StopInvocationResponse> {
        none_of(request.violations(self.limits()))?;
        let invoke_id = request.invoke_id;
        let instance_ids = Arc::new(request.instance_ids);
        let ends = instance_ids.is_empty();
        let mut after = Some(0);
        while let Some(last) = after {
            let (now_ms, announcer) = (self.now_ms(), self.announcer());
            let only = Arc::clone(&instance_ids);
            let stop =
                move |tx: Tx<'_>, invocation| stop::invocation(tx, invocation, &only, last, now_ms);
            let announce = move |stopped: &Stopped| {
                announcer.stopped(invoke_id, stopped, StopReason::Stopped, now_ms);
            };
            after = self.settle_then(invoke_id, ends, stop, announce).await?.more_after;
        }
        Ok(StopInvocationResponse { request_id: wire::request_id() })
    }

    /// What checks targets; content may come to so many bytes as Base64, its parameters filled in.
    fn planner(&self, content_bytes_max: usize) -> Planner {
        Planner {
            now: self.inner.clock.realtime(),
            executor_names: Arc::clone(&self.inner.executor_names),
            limits: self.limits().clone(),
            content_bytes_max,
            names: self.inner.config.names.clone(),
        }
    }

    fn new_invoke_id(&self) -> InvokeId {
        InvokeId::new(self.inner.clock.realtime())
    }

    /// Stores an invocation and lets those know who act on it; the answer. If the request was made
    /// before with the same token, the answer is that of the first. One that runs at once is none of
    /// the scheduler's business, whose look at the timers the claim would have to wait for.
    async fn submit<R, F>(
        &self,
        token: Option<ClientToken>,
        repeats: bool,
        response: R,
        op: F,
    ) -> Result<R>
    where
        R: Serialize + DeserializeOwned + Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<()> + Send + 'static,
    {
        let announcer = self.announcer();
        let scheduler = self.inner.scheduler.as_ref().filter(|_| repeats);
        let wake_scheduler = scheduler.map(|scheduler| Arc::clone(&scheduler.wake));
        let now_ms = self.now_ms();
        let store = move |tx: Tx<'_>| match token {
            None => op(tx).map(|()| response),
            Some(token) => client_tokens::once(tx, &token, now_ms, || op(tx).map(|()| response)),
        };
        self.write_then(store, move |_| {
            announcer.new_work();
            if let Some(wake) = wake_scheduler {
                wake.notify_one();
            }
        })
        .await
    }

    /// Watches what has just been submitted, or what the first request with its token was given.
    async fn watch_submitted(
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
        let (now_ms, limits) = (self.now_ms(), self.limits().clone());
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

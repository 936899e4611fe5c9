//! Invocations: in, and stopped.

use std::sync::Arc;

use super::Engine;
use super::planner::Planner;
use super::watch::{Position, Watch};
use crate::error::{Error, Result, none_of};
use crate::execution::StopReason;
use crate::id::{CommandId, InvokeId};
use crate::invocation::{
    InvokeCommand, InvokeCommandResponse, RunCommand, RunCommandResponse, StopInvocation,
    StopInvocationResponse,
};
use crate::store::commands::Definition;
use crate::store::invocations::NewInvocation;
use crate::store::stop::{self, Stopped};
use crate::store::{Tx, commands, invocations};
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
        Ok((response, self.watch_with(subscription, invoke_id, Position::default()).await?))
    }

    async fn submit_run(
        &self,
        invoke_id: InvokeId,
        request: RunCommand,
    ) -> Result<RunCommandResponse> {
        let checked = request.check(self.limits());
        none_of(checked.violations)?;
        let command_id = CommandId::of_invocation(invoke_id);
        // The pages take a kept command without a name; it has its id for one.
        let name = match request.name {
            name if name.is_empty() && request.keep_command => command_id.to_string(),
            name => name,
        };
        let definition = Definition {
            name,
            description: request.description,
            command_type: request.command_type,
            content: checked.content.ok_or_else(unchecked)?,
            working_dir: request.working_dir.filter(|dir| !dir.is_empty()),
            timeout_s: request.timeout.unwrap_or(self.limits().timeout_s_default),
        };
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
        let repeats = new.recurrence.is_some();
        self.submit(repeats, move |tx| {
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
        self.submit(recurrence.is_some(), move |tx| {
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

    fn planner(&self) -> Planner {
        Planner {
            now: self.inner.clock.realtime(),
            executor_names: Arc::clone(&self.inner.executor_names),
            limits: self.limits().clone(),
        }
    }

    fn new_invoke_id(&self) -> InvokeId {
        InvokeId::new(self.inner.clock.realtime())
    }

    /// Stores an invocation and lets those know who act on it: one that runs at once is none of
    /// the scheduler's business, whose look at the timers the claim would have to wait for.
    async fn submit<F>(&self, repeats: bool, op: F) -> Result<()>
    where
        F: FnOnce(Tx<'_>) -> Result<()> + Send + 'static,
    {
        let announcer = self.announcer();
        let scheduler = self.inner.scheduler.as_ref().filter(|_| repeats);
        let wake_scheduler = scheduler.map(|scheduler| Arc::clone(&scheduler.wake));
        self.write_then(op, move |()| {
            announcer.new_work();
            if let Some(wake) = wake_scheduler {
                wake.notify_one();
            }
        })
        .await
    }
}

/// What cannot be: content that passed its check is there.
pub(super) fn unchecked() -> Error {
    Error::Internal("content passed its check and is not there".to_owned())
}

//! The process that runs the file: answers others, and does not leave before their work is done.

use std::time::Duration;

use adjutant::{
    DescribeInvocations, Engine, Error, Event, Invocation, InvocationStatus, InvokeId, RepeatMode,
    StopInvocation,
};

use crate::control::ControlServer;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::session::PAGE_SIZE;
use crate::ui;

/// What is left when nothing runs any more is the engine's own bookkeeping.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// How long a run may take to end after a stop: the grace of its script, and a busy disk.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(15);

/// The engine, and the socket if others may reach it.
pub(crate) struct Owner {
    engine: Engine,
    server: Option<ControlServer>,
    /// The run that this process was started for.
    own: Option<InvokeId>,
    given_up: bool,
    /// How long it stays when it has become quiet.
    linger: Duration,
}

impl Owner {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, server: None, own: None, given_up: false, linger: Duration::ZERO }
    }

    /// Stays for so long once it has nothing to do, for those who are on their way.
    pub(crate) fn lingers_for(&mut self, linger: Duration) {
        self.linger = linger;
    }

    /// Names the run that this process was started for.
    pub(crate) fn is_here_for(&mut self, invoke_id: InvokeId) {
        self.own = Some(invoke_id);
    }

    /// Has everything ended at the close, because its ends cannot be waited for.
    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Listens on the control socket. Without one the work goes on; it only cannot be reached.
    pub(crate) fn listen(&mut self) {
        match self.engine.serve_control() {
            Ok(server) => self.server = Some(server),
            Err(error) => {
                ui::note(&format!("{error}; other terminals can only read the records"));
            }
        }
    }

    /// Sees the work of others through, if they could bring any, then ends the engine. Connections
    /// that do nothing are waited for no longer than `idle_max`.
    pub(crate) async fn close(
        mut self,
        idle_max: Duration,
        interrupts: &Interrupts,
    ) -> Result<(), Failure> {
        let seen_off = match self.server {
            Some(_) if !self.given_up => self.see_off(idle_max, interrupts).await,
            _ => Ok(()),
        };
        // Nobody asked for what could not be seen off to go on.
        let patience =
            if self.given_up || seen_off.is_err() { Duration::ZERO } else { SHUTDOWN_MAX };
        // First the work: who is connected is told of its end.
        self.engine.shutdown(patience).await;
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        seen_off
    }

    /// Ends the engine without waiting for others: what runs has its time, what waits stays.
    pub(crate) async fn shut_down(mut self) {
        self.engine.shutdown(SHUTDOWN_MAX).await;
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// How many runs wait or run.
    pub(crate) async fn busy(&self) -> Result<usize, Failure> {
        Ok(unfinished(&self.engine).await?.len())
    }

    /// Waits, with a word to the terminal, until nothing is left; a signal stops what is left.
    async fn see_off(
        &mut self,
        idle_max: Duration,
        interrupts: &Interrupts,
    ) -> Result<(), Failure> {
        let left = unfinished(&self.engine).await?;
        let interrupted = interrupts.next();
        let key = interrupts.key();
        if let Some(text) = awaited(&left, self.own, &key) {
            ui::note(&text);
        }
        let (engine, own) = (self.engine.clone(), self.own);
        let mut drained = Box::pin(self.drain(idle_max));
        tokio::select! {
            drained = &mut drained => return drained,
            () = interrupted => {}
        }
        let left = unfinished(&engine).await?;
        let is_other = |left: &Invocation| own != Some(left.invoke_id);
        let what = if left.iter().any(|left| is_other(left) && repeats(left)) {
            "ending what runs of schedules, which go on later"
        } else if left.iter().any(is_other) {
            "stopping the runs of other terminals"
        } else {
            "stopping the run"
        };
        ui::note(&format!("{what}; {key} again leaves at once"));
        let (once, repeating): (Vec<_>, Vec<_>) = left.iter().partition(|left| !repeats(left));
        let once: Vec<InvokeId> = once.iter().map(|left| left.invoke_id).collect();
        stop_all(&engine, &once).await?;
        let stopped = if repeating.is_empty() {
            tokio::time::timeout(STOP_MAX, drained).await
        } else {
            drop(drained);
            self.given_up = true;
            // To stop these would end their schedules; only what runs of them is ended, at the close.
            let all = async {
                for invoke_id in &once {
                    engine.wait_status(invoke_id).await?;
                }
                Ok(())
            };
            tokio::time::timeout(STOP_MAX, all).await
        };
        stopped.unwrap_or_else(|_| Err(not_stopped()))
    }

    /// Returns once nothing is left to do and nobody listens any more; the socket is gone then.
    async fn drain(&mut self, idle_max: Duration) -> Result<(), Failure> {
        loop {
            finish(&self.engine).await?;
            let quiet = match &self.server {
                Some(server) => {
                    tokio::time::timeout(idle_max, server.quiet_for(self.linger)).await.is_ok()
                }
                None => true,
            };
            if !unfinished(&self.engine).await?.is_empty() {
                continue;
            }
            let Some(server) = &self.server else { return Ok(()) };
            // Somebody came at the last moment, and is not to be cut off.
            if quiet && !server.retire().await {
                continue;
            }
            if let Some(server) = self.server.take() {
                server.stop().await;
            }
            // A last connection may have brought more work, which others must be able to reach.
            if unfinished(&self.engine).await?.is_empty() {
                return Ok(());
            }
            self.listen();
        }
    }
}

fn repeats(invocation: &Invocation) -> bool {
    invocation.repeat_mode != RepeatMode::Once
}

/// Returns the words for what is waited for after the run of this process has ended.
fn awaited(left: &[Invocation], own: Option<InvokeId>, key: &str) -> Option<String> {
    let others: Vec<_> = left.iter().filter(|left| own != Some(left.invoke_id)).collect();
    let (schedules, runs): (Vec<&Invocation>, Vec<_>) =
        others.into_iter().partition(|other| repeats(other));
    let due = match &schedules[..] {
        [] => None,
        [one] => {
            let name = match one.command_name.as_str() {
                "" => one.invoke_id.to_string(),
                name => name.to_owned(),
            };
            Some(format!("the schedule `{name}` was due and runs here"))
        }
        many => Some(format!("{} schedules were due and run here", many.len())),
    };
    Some(match (due, runs.len()) {
        (None, 0) if left.is_empty() => return None,
        (None, 0) => format!("waiting for the run to end; {key} stops it"),
        (None, 1) => format!("waiting for a run of another terminal; {key} stops it"),
        (None, n) => format!("waiting for {n} runs of other terminals; {key} stops them"),
        (Some(due), 0) => {
            format!("{due}; waiting for the end, {key} ends what runs and keeps the schedule")
        }
        (Some(due), n) => {
            format!(
                "{due}; waiting for the end, and for {n} of other terminals; {key} ends all that runs"
            )
        }
    })
}

/// Waits until nothing runs or is about to.
async fn finish(engine: &Engine) -> Result<(), Failure> {
    loop {
        let left = unfinished(engine).await?;
        if left.is_empty() {
            return Ok(());
        }
        for invocation in left {
            let invoke_id = invocation.invoke_id;
            match invocation.repeat_mode {
                RepeatMode::Once => drop(engine.wait_status(&invoke_id).await?),
                _ => finish_fire(engine, invoke_id).await?,
            }
        }
    }
}

/// Waits until nothing of a run that repeats waits or runs; the run itself has no end.
async fn finish_fire(engine: &Engine, invoke_id: InvokeId) -> Result<(), Failure> {
    let mut watch = engine.watch(&invoke_id).await?;
    loop {
        let request =
            DescribeInvocations::default().invoke_id(invoke_id).omit_instances().max_results(1);
        let found = engine.describe_invocations(request).await?.invocations;
        if !found.iter().any(|invocation| UNFINISHED.contains(&invocation.status)) {
            return Ok(());
        }
        loop {
            match watch.next().await? {
                Some(Event::Status { status, .. }) if status.is_final() => break,
                Some(Event::Finished { .. }) | None => return Ok(()),
                Some(_) => {}
            }
        }
    }
}

async fn stop_all(engine: &Engine, invoke_ids: &[InvokeId]) -> Result<(), Failure> {
    for &invoke_id in invoke_ids {
        let stopped = engine.stop_invocation(StopInvocation::new(invoke_id)).await;
        // It may have ended by itself since it was listed, which is as good.
        if let Err(error @ Error::Storage(_)) = stopped {
            return Err(error.into());
        }
    }
    Ok(())
}

/// A stop was asked for and carried out, and its end cannot be seen.
pub(crate) fn not_stopped() -> Failure {
    let message = format!("what was stopped has not ended within {} s", STOP_MAX.as_secs());
    Failure::new("Control.NotStopped", 504, message)
}

/// Where a run stands that has executions which wait or run.
const UNFINISHED: [InvocationStatus; 3] =
    [InvocationStatus::Pending, InvocationStatus::Running, InvocationStatus::Stopping];

async fn unfinished(engine: &Engine) -> Result<Vec<Invocation>, Failure> {
    let mut found = Vec::new();
    for status in UNFINISHED {
        let mut request =
            DescribeInvocations::default().status(status).omit_instances().max_results(PAGE_SIZE);
        loop {
            let page = engine.describe_invocations(request.clone()).await?;
            found.extend(page.invocations);
            if page.next_token.is_empty() {
                break;
            }
            request.next_token = Some(page.next_token);
        }
    }
    Ok(found)
}

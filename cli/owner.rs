//! The process that runs the file: answers others, and does not leave before their work is done.

use std::time::Duration;

use adjutant::{DescribeInvocations, Engine, InvocationStatus, InvokeId, StopInvocation};

use crate::control::{Address, Server};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::ui;

/// What is left when nothing runs any more is the engine's own bookkeeping.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);

/// The engine, and the socket if others may reach it.
pub(crate) struct Owner {
    engine: Engine,
    server: Option<Server>,
}

impl Owner {
    pub(crate) fn new(engine: Engine) -> Self {
        Self { engine, server: None }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Listens on the control socket. Without one the work goes on; it only cannot be reached.
    pub(crate) fn listen(&mut self) {
        let Some(path) = self.engine.path() else { return };
        match Address::of(path).and_then(|at| Server::start(self.engine.clone(), at)) {
            Ok(server) => self.server = Some(server),
            Err(error) => ui::note(&format!(
                "no control socket beside {}: {error}; other terminals can only read the records",
                path.display()
            )),
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
            Some(_) => self.see_off(idle_max, interrupts).await,
            None => Ok(()),
        };
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        self.engine.shutdown(SHUTDOWN_MAX).await;
        seen_off
    }

    /// Waits, with a word to the terminal, until nothing is left; a signal stops what is left.
    async fn see_off(
        &mut self,
        idle_max: Duration,
        interrupts: &Interrupts,
    ) -> Result<(), Failure> {
        let left = unfinished(&self.engine).await?;
        match left.len() {
            0 => {}
            1 => ui::note("waiting for a run of another terminal; Ctrl-C stops it"),
            n => ui::note(&format!("waiting for {n} runs of other terminals; Ctrl-C stops them")),
        }
        let engine = self.engine.clone();
        let drained = self.drain(idle_max);
        tokio::pin!(drained);
        tokio::select! {
            drained = &mut drained => return drained,
            () = interrupts.next() => {}
        }
        ui::note("stopping the runs of other terminals; Ctrl-C again leaves at once");
        stop_all(&engine).await?;
        drained.await
    }

    /// Returns once nothing is left to do and nobody listens any more; the socket is gone then.
    async fn drain(&mut self, idle_max: Duration) -> Result<(), Failure> {
        loop {
            finish(&self.engine).await?;
            if let Some(server) = &self.server {
                let _ = tokio::time::timeout(idle_max, server.quiet()).await;
            }
            if !unfinished(&self.engine).await?.is_empty() {
                continue;
            }
            let Some(server) = self.server.take() else { return Ok(()) };
            server.stop().await;
            // A last connection may have brought more work, which others must be able to reach.
            if unfinished(&self.engine).await?.is_empty() {
                return Ok(());
            }
            self.listen();
        }
    }
}

/// Waits until nothing runs or is about to.
async fn finish(engine: &Engine) -> Result<(), Failure> {
    loop {
        let left = unfinished(engine).await?;
        if left.is_empty() {
            return Ok(());
        }
        for invoke_id in left {
            engine.wait(&invoke_id).await?;
        }
    }
}

async fn stop_all(engine: &Engine) -> Result<(), Failure> {
    for invoke_id in unfinished(engine).await? {
        // It may have ended by itself since it was listed, which is as good.
        let _ = engine.stop_invocation(StopInvocation::new(invoke_id)).await;
    }
    Ok(())
}

async fn unfinished(engine: &Engine) -> Result<Vec<InvokeId>, Failure> {
    use InvocationStatus::{Pending, Running, Stopping};
    let mut found = Vec::new();
    for status in [Pending, Running, Stopping] {
        let mut request = DescribeInvocations { status: Some(status), ..Default::default() };
        loop {
            let page = engine.describe_invocations(request.clone()).await?;
            found.extend(page.invocations.iter().map(|invocation| invocation.invoke_id));
            if page.next_token.is_empty() {
                break;
            }
            request.next_token = Some(page.next_token);
        }
    }
    Ok(found)
}

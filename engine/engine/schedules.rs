//! What can be done with an invocation that repeats, and with the instances whose boots it waits for.

use std::sync::Arc;

use super::Engine;
use crate::error::{Error, Result, Violation};
use crate::id::{InstanceId, InvokeId};
use crate::instance::{AgentStatus, LOCAL};
use crate::invocation::fire::Fire;
use crate::operation::Operation;
use crate::scheduler::{Settling, Step};
use crate::store::{Tx, firing, instances, invocations};

/// The longest boot id, in characters; the kernel's has 36.
const BOOT_ID_CHARS_MAX: usize = 128;

impl Engine {
    /// Keeps a repeating invocation from firing until it is resumed. What runs goes on. One that
    /// pauses already goes on pausing.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation, [`Error::Conflict`] if it does not repeat
    /// or has ended.
    pub async fn pause_invocation(&self, invoke_id: &InvokeId) -> Result<()> {
        self.authorize_of(Operation::PauseInvocation, *invoke_id).await?;
        let (invoke_id, now_ms) = (*invoke_id, self.now_ms());
        let pause = move |tx: Tx<'_>, invocation| {
            invocations::check_repeats(tx, invocation)?;
            invocations::pause(tx, invocation, now_ms)
        };
        self.settle_then(invoke_id, false, pause, |()| {}).await
    }

    /// Lets a paused invocation fire again, from its next nominal time on. What passed in the
    /// meantime is recorded as skipped, with its count. One that does not pause goes on.
    ///
    /// # Errors
    ///
    /// As [`pause_invocation`](Engine::pause_invocation).
    pub async fn resume_invocation(&self, invoke_id: &InvokeId) -> Result<()> {
        self.authorize_of(Operation::ResumeInvocation, *invoke_id).await?;
        let wake = self.inner.scheduler.clone();
        let resume = move |tx: Tx<'_>, invocation| {
            invocations::check_repeats(tx, invocation)?;
            invocations::resume(tx, invocation)
        };
        let wake = move |(): &()| {
            if let Some(wake) = &wake {
                wake.notify_one();
            }
        };
        self.settle_then(*invoke_id, false, resume, wake).await
    }

    /// Fires a repeating invocation now, on all its instances, beside its schedule and even while
    /// it pauses; its overlap policy holds. What became of it: `Started`, or `Skipped` and why.
    ///
    /// # Errors
    ///
    /// As [`pause_invocation`](Engine::pause_invocation).
    pub async fn run_now(&self, invoke_id: &InvokeId) -> Result<Fire> {
        self.authorize_of(Operation::RunNow, *invoke_id).await?;
        self.check_takes_work()?;
        let (invoke_id, now_ms) = (*invoke_id, self.now_ms());
        let fire = move |tx: Tx<'_>| {
            let invocation = invocations::find(tx, invoke_id)?;
            let overlap = invocations::check_repeats(tx, invocation)?;
            let mut step = Step::default();
            step.take_in(invoke_id, firing::on_request(tx, invocation, overlap, now_ms)?);
            Ok(step)
        };
        let mut step = self.write_step(fire).await?;
        let (_, fire) = step.fires.pop().ok_or_else(|| Error::Internal("no fire".to_owned()))?;
        Ok(fire)
    }

    /// Takes note that an instance is up, under the boot id that its system gave itself, and fires
    /// what waits for its reboot. The same boot id again changes nothing, so it may be told as often
    /// as one likes. An invocation that was made before any boot id was known takes the first one
    /// for the boot it was made under.
    ///
    /// The instances of the executor `local` are this machine: of its boots the engine knows by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such instance, it is this machine, or the boot id is empty
    /// or longer than 128 characters. [`Error::ShuttingDown`] if something waits for the boot and the engine
    /// takes no new executions: the host tells the next engine of the boot.
    pub async fn instance_booted(
        &self,
        instance_id: &InstanceId,
        boot_id: impl Into<String>,
    ) -> Result<()> {
        let (instance_id, boot_id) = (instance_id.clone(), boot_id.into());
        let chars = boot_id.chars().count();
        if !(1..=BOOT_ID_CHARS_MAX).contains(&chars) || boot_id.chars().any(char::is_control) {
            return Err(Error::invalid(Violation::new(
                "InvalidBootId.Malformed",
                400,
                "BootId",
                format!(
                    "want 1 to {BOOT_ID_CHARS_MAX} characters, none a control character; it has {chars}"
                ),
            )));
        }
        self.authorize_on(Operation::ReportInstance, &instance_id).await?;
        let (now_ms, ending) = (self.now_ms(), Arc::clone(self.inner.ending()));
        let op = move |tx: Tx<'_>| {
            let target = instances::find(tx, &instance_id)?;
            if target.is_some_and(|target| target.instance.executor == LOCAL) {
                return Err(Error::invalid(Violation::new(
                    "InvalidInstance.NotMatch",
                    400,
                    "InstanceId",
                    format!("`{instance_id}` is this machine, whose boots are known"),
                )));
            }
            instances::set_seen(tx, &instance_id, AgentStatus::Online, now_ms)?;
            let step = boot(tx, std::slice::from_ref(&instance_id), &boot_id, now_ms)?;
            // The next engine is told of the boot again, and fires what waits for it.
            if !step.fires.is_empty() && ending.is_closing() {
                return Err(Error::ShuttingDown);
            }
            Ok(step)
        };
        self.write_step(op).await.map(drop)
    }

    /// Takes note that the host has heard of an instance just now, and whether its agent is up: one
    /// that is not takes no commands until it is told otherwise.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such instance.
    pub async fn instance_seen(&self, instance_id: &InstanceId, agent: AgentStatus) -> Result<()> {
        self.authorize_on(Operation::ReportInstance, instance_id).await?;
        let (instance_id, now_ms) = (instance_id.clone(), self.now_ms());
        self.write_records(move |tx| instances::set_seen(tx, &instance_id, agent, now_ms)).await
    }

    /// Deals with the nominal times of an invocation up to now and does something to it after them,
    /// in one commit unless there are very many. If that is refused, they have been dealt with all
    /// the same: they may be why. What refuses must do so before it writes.
    pub(super) async fn settle_then<T: Send + 'static>(
        &self,
        invoke_id: InvokeId,
        ends: bool,
        op: impl Fn(Tx<'_>, i64) -> Result<T> + Clone + Send + 'static,
        then: impl Fn(&T) + Clone + Send + 'static,
    ) -> Result<T> {
        // Without a scheduler there is nobody to run what is due.
        let settling = Settling { fires: self.inner.scheduler.is_some(), ends };
        loop {
            let (op, then) = (op.clone(), then.clone());
            let (announcer, watchful) = (self.announcer(), self.inner.vigil.look());
            let write = move |tx: Tx<'_>| {
                let invocation = invocations::find(tx, invoke_id)?;
                let step = Step::settle(tx, invocation, watchful, settling)?;
                let done = match (!step.more).then(|| op(tx, invocation)).transpose() {
                    Err(refusal @ (Error::Invalid(_) | Error::Conflict { .. })) => {
                        Some(Err(refusal))
                    }
                    done => done?.map(Ok),
                };
                Ok((step, done))
            };
            let announce = move |(step, done): &mut (Step, Option<Result<T>>)| {
                announcer.step(step, watchful.now.timestamp_millis());
                if let Some(Ok(done)) = done {
                    then(done);
                }
            };
            if let (_, Some(done)) = self.write_first(write, announce).await? {
                return done;
            }
        }
    }

    /// Writes what leads to fires, and announces them.
    pub(super) async fn write_step(
        &self,
        op: impl FnMut(Tx<'_>) -> Result<Step> + Send + 'static,
    ) -> Result<Step> {
        let (announcer, now_ms) = (self.announcer(), self.now_ms());
        self.write_then(op, move |step| announcer.step(step, now_ms)).await
    }
}

/// Takes note that instances are in this boot, and fires what waited for it.
pub(super) fn boot(
    tx: Tx<'_>,
    instances: &[InstanceId],
    boot_id: &str,
    now_ms: i64,
) -> Result<Step> {
    let mut step = Step::default();
    for instance in instances {
        for (invoke_id, fired) in firing::at_boot(tx, instance, boot_id, now_ms)? {
            step.take_in(invoke_id, fired);
        }
    }
    Ok(step)
}

//! What can be done with an invocation that repeats, and with the instances whose boots it waits for.

use std::sync::Arc;

use super::Engine;
use crate::clock::now_ms;
use crate::error::{Error, Result, Violation};
use crate::id::{InstanceId, InvokeId};
use crate::instance::{AgentStatus, LOCAL};
use crate::invocation::fire::Fire;
use crate::operation::Operation;
use crate::panics::tell;
use crate::scheduler::{EXECUTIONS_MAX, Settling, Step, Work};
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
        let pause = move |tx: Tx<'_>, invocation, now_ms| {
            invocations::check_repeats(tx, invocation)?;
            invocations::pause(tx, invocation, now_ms)
        };
        self.settle_then(*invoke_id, false, pause, |(), _| {}).await
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
        let resume = move |tx: Tx<'_>, invocation, _| {
            invocations::check_repeats(tx, invocation)?;
            invocations::resume(tx, invocation)
        };
        let wake = move |(): &(), _| {
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
        let (invoke_id, clock) = (*invoke_id, Arc::clone(&self.inner.clock));
        let fire = move |tx: Tx<'_>| {
            let now_ms = now_ms(&*clock);
            let invocation = invocations::find(tx, invoke_id)?;
            let overlap = invocations::check_repeats(tx, invocation)?;
            let mut step = Step::at(now_ms);
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
    /// [`Error::Invalid`] if there is no such instance, it is this machine, or the boot id is empty or longer than
    /// 128 characters. [`Error::ShuttingDown`] if an invocation waits for the boot and the engine takes no new
    /// executions: the host tells the next engine of the boot.
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
        let mut is_given_up = false;
        loop {
            let (clock, ending) = (Arc::clone(&self.inner.clock), Arc::clone(self.inner.ending()));
            let aside = Arc::clone(self.inner.records.store.aside());
            let before = aside.total();
            let (instance_id, boot_id) = (instance_id.clone(), boot_id.clone());
            let op = move |tx: Tx<'_>| {
                let mut step = Step::at(now_ms(&*clock));
                let target = instances::find(tx, &instance_id)?;
                if target.is_some_and(|target| target.instance.executor == LOCAL) {
                    return Err(Error::invalid(Violation::new(
                        "InvalidInstance.NotMatch",
                        400,
                        "InstanceId",
                        format!("`{instance_id}` is this machine, whose boots are known"),
                    )));
                }
                instances::set_seen(tx, &instance_id, AgentStatus::Online, step.at_ms)?;
                if is_given_up {
                    firing::note_boot(tx, &instance_id, &boot_id)?;
                    return Ok(step);
                }
                step.boot(tx, &aside, &instance_id, &boot_id, &mut { EXECUTIONS_MAX })?;
                // The host tells the next engine of the boot again, and that engine fires.
                if !step.fires.is_empty() && ending.is_closing() {
                    return Err(Error::ShuttingDown);
                }
                Ok(step)
            };
            let step = match self.write_step(op).await {
                Err(error) if self.may_do_without(&error, before, &mut is_given_up) => continue,
                step => step?,
            };
            if is_given_up {
                self.announcer().wake_scheduler();
                return Ok(());
            }
            // An earlier boot is told first.
            if step.more {
                continue;
            }
            return match step.begun.last() {
                Some(work) => self.see_through(*work).await,
                None => Ok(()),
            };
        }
    }

    /// Returns whether a boot that met an error can be dealt with all the same: without a row that has been set aside
    /// since so many were (`before`), or by the scheduler if no row is known to have caused the error.
    pub(super) fn may_do_without(
        &self,
        error: &Error,
        before: u64,
        is_given_up: &mut bool,
    ) -> bool {
        if !error.is_lasting() {
            return false;
        }
        self.tell_refused();
        if self.inner.records.store.aside().total() > before {
            return true;
        }
        if *is_given_up {
            return false;
        }
        tell(|| tracing::error!(%error, "what waits for a boot is not told of it yet"));
        *is_given_up = true;
        true
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

    /// Settles the nominal times of an invocation up to now, then runs `op`, in one commit unless the times are very
    /// many. If `op` refuses, the times stay settled, because they may be the reason. `op` must refuse before it
    /// writes. Both `op` and `then` get the time of the transaction.
    pub(super) async fn settle_then<T: Send + 'static>(
        &self,
        invoke_id: InvokeId,
        ends: bool,
        op: impl Fn(Tx<'_>, i64, i64) -> Result<T> + Clone + Send + 'static,
        then: impl Fn(&T, i64) + Clone + Send + 'static,
    ) -> Result<T> {
        // Without a scheduler there is nobody to run what is due.
        let settling = Settling { fires: self.inner.scheduler.is_some(), ends };
        let mut is_hindered = false;
        loop {
            let (op, then) = (op.clone(), then.clone());
            let (announcer, vigil) = (self.announcer(), Arc::clone(&self.inner.vigil));
            let aside = Arc::clone(self.inner.records.store.aside());
            let before = aside.total();
            let write = move |tx: Tx<'_>| {
                if is_hindered {
                    // The scheduler may have found meanwhile that it need not be careful.
                    aside.be_careful(true);
                }
                let watchful = vigil.look();
                let invocation = invocations::find(tx, invoke_id)?;
                let step = Step::settle(tx, &aside, invocation, watchful, settling)?;
                let done = match (!step.more).then(|| op(tx, invocation, step.at_ms)).transpose() {
                    Err(
                        refusal
                        @ (Error::Invalid(_) | Error::Quota { .. } | Error::Conflict { .. }),
                    ) => Some(Err(refusal)),
                    done => done?.map(Ok),
                };
                Ok((step, done))
            };
            let announce = move |(step, done): &mut (Step, Option<Result<T>>)| {
                announcer.step(step);
                if let Some(Ok(done)) = done {
                    then(done, step.at_ms);
                }
            };
            let written = self.write_first(write, announce).await;
            let has_refused = self.inner.records.store.aside().total() > before;
            self.tell_refused();
            match written {
                Ok((_, Some(done))) => return done,
                Ok((_, None)) => {}
                // Another try can succeed without the row that is set aside now, or it finds the row to set aside.
                Err(error) if error.is_lasting() && (has_refused || !is_hindered) => {
                    is_hindered = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what leads to fires, and announces them.
    pub(super) async fn write_step(
        &self,
        op: impl FnMut(Tx<'_>) -> Result<Step> + Send + 'static,
    ) -> Result<Step> {
        let announcer = self.announcer();
        self.write_then(op, move |step| announcer.step(step)).await
    }

    /// Waits until work that is on record has been carried out. The scheduler carries the work out; in an engine
    /// without a scheduler this function does. If the caller goes away meanwhile, this engine's scheduler or the next
    /// engine's carries on.
    pub(super) async fn see_through(&self, work: Work) -> Result<()> {
        let (under_way, ending) = (&self.inner.under_way, self.inner.ending());
        let aside = self.inner.records.store.aside();
        let mut is_hindered = false;
        loop {
            if let Some(outcome) = under_way.outcome(work) {
                return outcome;
            }
            if self.inner.scheduler.is_some() && !ending.is_closing() {
                tokio::select! {
                    outcome = under_way.over(work) => return outcome,
                    () = ending.closing() => {}
                }
            }
            // No new execution is to start here.
            if ending.is_closing() && matches!(work, Work::Boot(_)) {
                return Ok(());
            }
            let (clock, of) = (Arc::clone(&self.inner.clock), Arc::clone(aside));
            let before = aside.total();
            let carry_on = move |tx: Tx<'_>| {
                if is_hindered {
                    of.be_careful(true);
                }
                let mut step = Step::at(now_ms(&*clock));
                step.carry_on(tx, &of, step.at_ms, &mut { EXECUTIONS_MAX })?;
                Ok(step)
            };
            let written = self.write_step(carry_on).await;
            let has_refused = aside.total() > before;
            self.tell_refused();
            match written {
                // The work is on disk, and in effect.
                Err(Error::ShuttingDown | Error::Ended(_)) => return Ok(()),
                // The other rows can go on without the row that is set aside now, or that the next try finds.
                Err(error) if error.is_lasting() && (has_refused || !is_hindered) => {
                    is_hindered = true;
                }
                step => drop(step?),
            }
        }
    }

    /// Tells callers that wait of rows that have been set aside.
    pub(super) fn tell_refused(&self) {
        let refused = self.inner.records.store.aside().take_news();
        if refused.is_empty() {
            return;
        }
        for refusal in &refused {
            let (subject, error) = (refusal.subject, &refusal.error);
            tell(|| tracing::error!(%error, ?subject, "a row is passed over"));
        }
        self.announcer().step(&Step { refused, ..Step::at(self.now_ms()) });
    }
}

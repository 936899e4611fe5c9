//! What has to follow a commit: the dispatcher is called on, watchers are told.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::dispatcher::Line;
use crate::error::{Error, Result};
use crate::event::{Change, Hub};
use crate::execution::StopOrder;
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::invocation::fire::Fire;
use crate::metrics::{Measured, Meters};
use crate::panics::tell;
use crate::scheduler::{Step, Work};
use crate::status::ExecutionStatus;
use crate::store::aside::{Refusal, Subject};
use crate::store::executions::Interrupted;
use crate::store::stop::Stopped;

/// Tells what was written. Does not keep the engine going.
#[derive(Clone)]
pub(super) struct Announcer {
    pub hub: Arc<Hub>,
    pub meters: Arc<Meters>,
    /// None if the file is open for reading only.
    pub dispatcher: Option<Line>,
    /// Woken when something is to be done at a time of its own; none for the scheduler itself.
    pub scheduler: Option<Arc<Notify>>,
    pub under_way: Arc<UnderWay>,
}

/// Work that is on record and needs later commits. Callers wait here for its last commit. Each has the error that keeps
/// the work from going on, or that the work has ended with.
#[derive(Debug, Default)]
pub(super) struct UnderWay(watch::Sender<BTreeMap<Work, Option<Error>>>);

/// The number of errors that are kept for callers that wait.
const FAILED_MAX: usize = 1_024;

impl UnderWay {
    /// Begins a piece of work, unless it is under way.
    fn begin(&self, work: Work) {
        self.0.send_if_modified(|under_way| match under_way.contains_key(&work) {
            true => false,
            false => under_way.insert(work, None).is_none(),
        });
    }

    /// Notes that a piece of work has gone on.
    fn carry_on(&self, work: Work) {
        self.0.send_if_modified(|under_way| match under_way.get_mut(&work) {
            Some(failed) => failed.take().is_some(),
            None => false,
        });
    }

    fn end(&self, work: Work, left: Option<&Error>) {
        match left {
            Some(error) => self.fail(work, error),
            None => {
                self.0.send_if_modified(|under_way| under_way.remove(&work).is_some());
            }
        }
    }

    /// Tells callers that wait for a piece of work why the work does not go on.
    fn fail(&self, work: Work, error: &Error) {
        self.0.send_modify(|under_way| {
            under_way.insert(work, Some(error.clone()));
            let failed = under_way.iter().filter(|(_, failed)| failed.is_some());
            if failed.clone().count() > FAILED_MAX
                && let Some((&oldest, _)) = failed.into_iter().find(|(one, _)| **one != work)
            {
                under_way.remove(&oldest);
            }
        });
    }

    /// Tells all callers that wait why no work goes on.
    fn fail_all(&self, error: &Error) {
        self.0.send_modify(|under_way| {
            under_way.values_mut().for_each(|failed| *failed = Some(error.clone()));
        });
    }

    /// Returns the outcome of a piece of work, once the work has ended or does not go on.
    pub(super) fn outcome(&self, work: Work) -> Option<Result<()>> {
        outcome(&self.0.borrow(), work)
    }

    /// Waits for the last commit of a piece of work that has been begun.
    ///
    /// # Errors
    ///
    /// Returns the error that keeps the work from going on, or that the work has ended with.
    pub(super) async fn over(&self, work: Work) -> Result<()> {
        let mut under_way = self.0.subscribe();
        // The wait fails only if the sender is gone, and `self` is the sender.
        let ended = under_way.wait_for(|under_way| outcome(under_way, work).is_some()).await;
        ended.ok().and_then(|under_way| outcome(&under_way, work)).unwrap_or(Ok(()))
    }
}

fn outcome(under_way: &BTreeMap<Work, Option<Error>>, work: Work) -> Option<Result<()>> {
    match under_way.get(&work) {
        None => Some(Ok(())),
        Some(failed) => failed.clone().map(Err),
    }
}

impl Announcer {
    /// New executions have been stored.
    pub(super) fn new_work(&self) {
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.expect_new();
        }
    }

    pub(super) fn wake_scheduler(&self) {
        if let Some(scheduler) = &self.scheduler {
            scheduler.notify_one();
        }
    }

    /// Timers, boots or requests have led to fires.
    pub(super) fn step(&self, step: &Step) {
        if !step.fires.is_empty() {
            self.new_work();
        }
        if !step.fires.is_empty() || step.taken_back > 0 {
            self.wake_scheduler();
        }
        if step.taken_back > 0 {
            let records = step.taken_back;
            tell(|| {
                tracing::warn!(
                    records,
                    "the clock was ahead: what it had written off is to come again"
                );
            });
        }
        if let Some(dispatcher) = self.dispatcher.as_ref().filter(|_| !step.released.is_empty()) {
            dispatcher.release(step.released.iter().copied());
        }
        for late_ms in &step.late_ms {
            self.meters.time_between(Measured::FireLateness, 0, *late_ms);
        }
        for (invoke_id, fire) in &step.fires {
            tell_fire(*invoke_id, fire);
            self.hub.publish_fire(*invoke_id, fire);
        }
        for (invoke_id, order, stopped) in &step.stopped {
            self.stopped(*invoke_id, stopped, order, step.at_ms);
        }
        if !step.begun.is_empty() {
            self.wake_scheduler();
        }
        step.begun.iter().for_each(|work| self.under_way.begin(*work));
        step.carried.iter().for_each(|work| self.under_way.carry_on(*work));
        step.done.iter().for_each(|(work, left)| self.under_way.end(*work, left.as_ref()));
        step.refused.iter().for_each(|refusal| self.refused(refusal));
        if let Some(error) = &step.undone {
            self.under_way.fail_all(error);
        }
        for &(invoke_id, status) in &step.finished {
            self.hub.finish(invoke_id, status);
        }
    }

    /// Tells callers that a row cannot be dealt with, if they wait for its work or its invocation.
    fn refused(&self, refusal: &Refusal) {
        let Refusal { subject, invoke_id, error } = refusal;
        match subject {
            Subject::Stop(stop) => self.under_way.fail(Work::Stop(*stop), error),
            Subject::Boot(instance) => self.under_way.fail(Work::Boot(*instance), error),
            _ => {}
        }
        if let Some(invoke_id) = invoke_id {
            self.hub.fail(*invoke_id, error);
        }
    }

    /// What the last engine left running has been ended.
    pub(super) fn interrupted(&self, interrupted: &Interrupted, now_ms: i64) {
        for (invoke_id, execution_id, instance_id) in &interrupted.executions {
            let end =
                Change::of(*execution_id, instance_id.clone(), ExecutionStatus::Error, now_ms);
            let next = interrupted
                .retries
                .get(execution_id)
                .map(|next| Change::retry(next.id, instance_id.clone(), now_ms, next.retry_at_ms));
            self.hub.publish(*invoke_id, || std::iter::once(end).chain(next).collect());
        }
        for &(invoke_id, status) in &interrupted.invocations {
            self.hub.finish(invoke_id, status);
        }
        for (invoke_id, error) in &interrupted.failed {
            self.hub.fail(*invoke_id, error);
        }
    }

    /// Executions have been cancelled, and others are to be ended.
    pub(super) fn stopped(
        &self,
        invoke_id: InvokeId,
        stopped: &Stopped,
        order: &StopOrder,
        now_ms: i64,
    ) {
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.stop(stopped.stopping.iter().map(|(id, _)| *id), order);
            dispatcher.release(stopped.released.iter().copied());
        }
        if stopped.wave_ended || stopped.left.is_some() || stopped.more_to_stop {
            self.wake_scheduler();
        }
        if let Some(error) = &stopped.uncounted {
            self.hub.fail(invoke_id, error);
        }
        if let Some(stop) = stopped.left {
            self.under_way.begin(Work::Stop(stop));
        }
        let changes = |executions: &[(ExecutionId, InstanceId)], status| -> Vec<Change> {
            executions.iter().map(|(id, on)| Change::of(*id, on.clone(), status, now_ms)).collect()
        };
        self.hub.publish(invoke_id, || {
            let mut all = changes(&stopped.expired, ExecutionStatus::Aborted);
            all.extend(changes(&stopped.cancelled, ExecutionStatus::Cancelled));
            all.extend(changes(&stopped.stopping, ExecutionStatus::Stopping));
            all
        });
        for &(invoke_id, status) in &stopped.finished {
            self.hub.finish(invoke_id, status);
        }
    }
}

fn tell_fire(invoke_id: InvokeId, fire: &Fire) {
    tell(|| {
        tracing::debug!(
            %invoke_id,
            time = %fire.time,
            disposition = %fire.disposition,
            count = fire.count,
            reason = fire.reason,
            "a nominal time has been dealt with"
        )
    });
}

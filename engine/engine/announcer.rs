//! What has to follow a commit: the dispatcher is called on, watchers are told.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{Notify, watch};

use crate::dispatcher::Line;
use crate::event::{Change, Hub};
use crate::execution::StopOrder;
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::invocation::fire::Fire;
use crate::metrics::{Measured, Meters};
use crate::panics::tell;
use crate::scheduler::{Step, Work};
use crate::status::ExecutionStatus;
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

/// Work that is on record and needs later commits. Callers wait here for its last commit.
#[derive(Debug, Default)]
pub(super) struct UnderWay(watch::Sender<BTreeSet<Work>>);

impl UnderWay {
    fn begin(&self, work: Work) {
        self.0.send_if_modified(|under_way| under_way.insert(work));
    }

    fn end(&self, work: Work) {
        self.0.send_if_modified(|under_way| under_way.remove(&work));
    }

    pub(super) fn is_over(&self, work: Work) -> bool {
        !self.0.borrow().contains(&work)
    }

    /// Waits for the last commit of work that has been begun.
    pub(super) async fn over(&self, work: Work) {
        // Waiting fails only once the sender is gone, and `self` is the sender.
        let _ = self.0.subscribe().wait_for(|under_way| !under_way.contains(&work)).await;
    }
}

impl Announcer {
    /// New executions have been stored.
    pub(super) fn new_work(&self) {
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.expect_new();
        }
    }

    fn wake_scheduler(&self) {
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
        step.done.iter().for_each(|work| self.under_way.end(*work));
        for &(invoke_id, status) in &step.finished {
            self.hub.finish(invoke_id, status);
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
        if stopped.wave_ended || stopped.left.is_some() {
            self.wake_scheduler();
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

//! What runs, and whom a stop is passed on to: one may overtake the news of the claim that it is about.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::event::Change;
use crate::execution::{Report, StopOrder};
use crate::executor::ask_to_stop;
use crate::id::{ExecutionId, InstanceId};
use crate::invocation::Job;
use crate::output::{Delivery, LiveOutput, WholeOutput};
use crate::status::{Cause, ExecutionStatus};
use crate::store::fires::FireLimits;

use super::orders::Berth;

/// The numbers of the steps that are under way.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    begun: u64,
    numbers: BTreeSet<u64>,
}

impl UnderWay {
    /// Another step begins; its number.
    pub(super) fn begin(&mut self) -> u64 {
        self.begun += 1;
        self.numbers.insert(self.begun);
        self.begun
    }

    pub(super) fn end(&mut self, number: u64) {
        self.numbers.remove(&number);
    }

    pub(super) fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Whether a step up to this number is under way.
    fn any_up_to(&self, number: u64) -> bool {
        self.numbers.first().is_some_and(|oldest| *oldest <= number)
    }
}

/// What the loop keeps of an execution that runs.
pub(super) struct Running {
    pub id: ExecutionId,
    pub attempt: u32,
    pub fire: i64,
    pub instance_id: InstanceId,
    pub job: Arc<Job>,
    /// What it counts against, beside its place.
    pub limits: Option<Arc<FireLimits>>,
    pub berth: Option<Berth>,
    pub dealt_at_ms: i64,
    pub output: Arc<LiveOutput>,
    pub report: Arc<Mutex<Report>>,
    pub stop: Arc<watch::Sender<Option<StopOrder>>>,
    pub started_at_ms: i64,
    pub started: Duration,
    /// None until its executor has it.
    pub task: Option<JoinHandle<()>>,
}

impl Running {
    /// Whether it goes on without an engine.
    fn is_kept(&self) -> bool {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).is_kept
    }

    pub(super) fn change(&self, status: ExecutionStatus, at_ms: i64) -> Change {
        Change {
            execution_id: self.id,
            instance_id: self.instance_id.clone(),
            status,
            at_ms,
            retry_at_ms: None,
            output: Some(Arc::clone(&self.output)),
        }
    }

    /// What becomes of the whole output, if it was to go anywhere. What has not run has none.
    pub(super) fn delivery(&self, cause: Cause) -> Option<Delivery> {
        let to = self.job.settings.output_to.as_deref()?;
        let whole = self.output.take_whole();
        if matches!(cause, Cause::Unsuitable | Cause::Undeliverable) {
            if let Some(whole) = whole {
                whole.discard();
            }
            return None;
        }
        Some(whole.map_or_else(|| Delivery::not_plugged_in(to), WholeOutput::end))
    }
}

/// The executions that run.
#[derive(Default)]
pub(super) struct Roster {
    running: HashMap<ExecutionId, Running>,
    /// Orders for executions that are not known here: a step that is under way may have claimed them. Each
    /// with the number of the last step that could have.
    early_stops: HashMap<ExecutionId, (u64, StopOrder)>,
}

impl Roster {
    /// Adds one that has been started, perhaps with an order to stop that came before it.
    pub(super) fn add(&mut self, running: Running) {
        if let Some((_, order)) = self.early_stops.remove(&running.id) {
            ask_to_stop(&running.stop, &order);
        }
        self.running.insert(running.id, running);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn get_mut(&mut self, execution: ExecutionId) -> Option<&mut Running> {
        self.running.get_mut(&execution)
    }

    /// Removes one that has ended. None if it is not followed any longer: its end is not for this engine to
    /// record.
    pub(super) fn remove(&mut self, execution: ExecutionId) -> Option<Running> {
        self.running.remove(&execution)
    }

    /// Removes those that go on without an engine.
    pub(super) fn remove_kept(&mut self) -> impl Iterator<Item = Running> {
        self.running.extract_if(|_, running| running.is_kept()).map(|(_, running)| running)
    }

    /// Asks one to stop, as soon as it is known here.
    pub(super) fn stop(&mut self, execution: ExecutionId, order: StopOrder, steps: &UnderWay) {
        if let Some(running) = self.running.get(&execution) {
            ask_to_stop(&running.stop, &order);
        } else if steps.count() > 0 {
            self.early_stops.entry(execution).or_insert((steps.begun, order));
        }
    }

    /// Asks all to stop.
    pub(super) fn stop_all(&self, order: &StopOrder) {
        for running in self.running.values() {
            ask_to_stop(&running.stop, order);
        }
    }

    /// Forgets orders that no step under way can have claimed anything for: that has ended, or never was.
    pub(super) fn forget_stops(&mut self, steps: &UnderWay) {
        self.early_stops.retain(|_, (last, _)| steps.any_up_to(*last));
    }
}

impl Drop for Roster {
    /// Nothing runs on that nobody follows.
    fn drop(&mut self) {
        for task in self.running.values().filter_map(|running| running.task.as_ref()) {
            task.abort();
        }
    }
}

//! What runs, and whom a stop is passed on to: one may overtake the news of the claim that it is about.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;

use crate::event::Change;
use crate::execution::StopOrder;
use crate::executor::Contact;
use crate::id::{ExecutionId, InstanceId};
use crate::invocation::Job;
use crate::output::{Delivery, LiveOutput, WholeOutput};
use crate::status::{Cause, ExecutionStatus};
use crate::store::executions::SoleFire;
use crate::store::fires::FireLimits;
use crate::store::instances::Target;

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

/// What the executions of a fire have in common that run.
#[derive(Debug)]
pub(super) struct RunningFire {
    pub fire: i64,
    pub job: Arc<Job>,
    /// What they count against, beside their places.
    pub limits: Option<Arc<FireLimits>>,
    /// It, if their ends are all that its end waits for.
    pub sole: Option<SoleFire>,
    /// When it was dealt with.
    pub dealt_at_ms: i64,
}

/// What the loop keeps of an execution that runs.
pub(super) struct Running {
    pub id: ExecutionId,
    pub attempt: u32,
    pub of: Arc<RunningFire>,
    pub target: Arc<Target>,
    pub berth: Option<Berth>,
    pub output: Arc<LiveOutput>,
    pub contact: Arc<Contact>,
    pub started_at_ms: i64,
    pub started: Duration,
    /// Whether its executor has had it.
    pub is_begun: bool,
}

impl Running {
    pub(super) fn job(&self) -> &Arc<Job> {
        &self.of.job
    }

    pub(super) fn instance_id(&self) -> &InstanceId {
        &self.target.instance.instance_id
    }

    pub(super) fn change(&self, status: ExecutionStatus, at_ms: i64) -> Change {
        Change {
            execution_id: self.id,
            instance_id: self.instance_id().clone(),
            status,
            at_ms,
            retry_at_ms: None,
            output: Some(Arc::clone(&self.output)),
        }
    }

    /// What becomes of the whole output, if it was to go anywhere. What has not run has none.
    pub(super) fn delivery(&self, cause: Cause) -> Option<Delivery> {
        let to = self.job().settings.output_to.as_deref()?;
        let whole = self.output.take_whole();
        if matches!(cause, Cause::Unsuitable | Cause::Undeliverable | Cause::Unstarted) {
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
    running: HashMap<ExecutionId, Box<Running>>,
    /// Orders for executions that are not known here: a step that is under way may have claimed them. Each
    /// with the number of the last step that could have.
    early_stops: HashMap<ExecutionId, (u64, StopOrder)>,
    /// The places on instances of executions that go on without an engine: no other execution may have these.
    kept_berths: Vec<Berth>,
}

impl Roster {
    /// Adds one that has been started, perhaps with an order to stop that came before it.
    pub(super) fn add(&mut self, running: Box<Running>) {
        if let Some((_, order)) = self.early_stops.remove(&running.id) {
            running.contact.ask_to_stop(&order);
        }
        self.running.insert(running.id, running);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    pub(super) fn get_mut(&mut self, execution: ExecutionId) -> Option<&mut Running> {
        self.running.get_mut(&execution).map(|running| &mut **running)
    }

    /// Removes one that has ended. None if it is not followed any longer: its end is not for this engine to
    /// record.
    pub(super) fn remove(&mut self, execution: ExecutionId) -> Option<Box<Running>> {
        self.running.remove(&execution)
    }

    /// Leaves those to themselves that go on without an engine.
    pub(super) fn let_go_of_kept(&mut self) {
        for (_, mut running) in self.running.extract_if(|_, running| running.contact.is_kept()) {
            self.kept_berths.extend(running.berth.take());
            running.contact.let_go();
        }
    }

    /// Asks one to stop, as soon as it is known here.
    pub(super) fn stop(&mut self, execution: ExecutionId, order: StopOrder, steps: &UnderWay) {
        if let Some(running) = self.running.get(&execution) {
            running.contact.ask_to_stop(&order);
        } else if steps.count() > 0 {
            self.early_stops.entry(execution).or_insert((steps.begun, order));
        }
    }

    /// Takes all running executions out.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Box<Running>> + use<> {
        std::mem::take(&mut self.running).into_values()
    }

    /// Asks all to stop.
    pub(super) fn stop_all(&self, order: &StopOrder) {
        for running in self.running.values() {
            running.contact.ask_to_stop(order);
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
        for running in self.running.values() {
            running.contact.let_go();
        }
    }
}

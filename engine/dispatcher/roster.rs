//! What runs, and whom a stop is passed on to: one may overtake the news of the claim that it is about.

use std::collections::{BTreeSet, HashMap};

use crate::execution::StopOrder;
use crate::executor::ask_to_stop;
use crate::id::ExecutionId;

use super::Running;

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

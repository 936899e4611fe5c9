//! The executions that run, as far as the writing thread knows: it has claimed them or taken them back, and has not
//! written their ends. A stop finds the running executions of a large fire here, because no index tells their places
//! in the fire: each change of a status would pay for such an index.
//!
//! The file has the last word. A transaction may be undone after its claim was noted here, so an execution that is
//! noted may wait in the file.

use std::cell::RefCell;

use foldhash::HashMap;

use crate::id::ExecutionId;

/// The executions, each with its fire.
#[derive(Debug, Default)]
pub(super) struct Running(RefCell<HashMap<i64, i64>>);

impl Running {
    /// Notes executions of a fire, which run once the transaction under way is on disk.
    pub(super) fn note(&self, fire: i64, executions: impl IntoIterator<Item = ExecutionId>) {
        self.0.borrow_mut().extend(executions.into_iter().map(|id| (id.0, fire)));
    }

    /// Forgets executions that have ended, or do not run.
    pub(super) fn forget(&self, executions: impl IntoIterator<Item = ExecutionId>) {
        let mut running = self.0.borrow_mut();
        for id in executions {
            running.remove(&id.0);
        }
    }

    /// Returns the noted executions of a fire, or of all fires for `None`, in the order of their numbers.
    pub(super) fn of(&self, fire: Option<i64>) -> Vec<ExecutionId> {
        let running = self.0.borrow();
        let of = running.iter().filter(|(_, of)| fire.is_none_or(|fire| fire == **of));
        let mut found: Vec<_> = of.map(|(id, _)| ExecutionId(*id)).collect();
        found.sort_unstable_by_key(|id| id.0);
        found
    }
}

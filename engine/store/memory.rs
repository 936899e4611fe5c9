//! The memory of a thread that works on the database, beside the file, from transaction to transaction.

use std::cell::{Cell, OnceCell};

use super::cache::WriterCache;
use super::running::Running;
use super::waits;
use crate::clock::Steady;
use crate::metrics::tally::Counts;

/// The memory of a thread. A read begins with an empty one.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(super) cache: WriterCache,
    /// The counts of the transaction under way.
    pub(super) counts: Counts,
    /// The executions that run.
    pub(super) running: Running,
    /// The clock of waits, once the engine has one.
    clock: OnceCell<waits::Shared>,
    /// Whether the transaction under way stops an execution that runs.
    stops: Cell<bool>,
}

impl Memory {
    /// Returns the memory of the writing thread.
    pub(super) fn of_writer() -> Self {
        Self::new(WriterCache::of_writer())
    }

    /// Returns the memory of a thread that only reads.
    pub(super) fn of_reader() -> Self {
        Self::new(WriterCache::of_reader())
    }

    fn new(cache: WriterCache) -> Self {
        let (counts, running) = (Counts::default(), Running::default());
        Self { cache, counts, running, clock: OnceCell::new(), stops: Cell::new(false) }
    }

    /// Makes waits go by a clock.
    pub(super) fn follow(&self, clock: waits::Shared) {
        let _ = self.clock.set(clock);
    }

    pub(super) fn clock(&self) -> Option<&Steady> {
        self.clock.get()?.get()
    }

    /// Notes that the transaction under way stops an execution that runs.
    pub(super) fn note_stop(&self) {
        self.stops.set(true);
    }

    /// Returns whether the transaction stops an execution that runs. The transaction ends here.
    pub(super) fn take_stops(&self) -> bool {
        self.stops.take()
    }
}

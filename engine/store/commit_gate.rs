//! The gate between the commits that stop executions and the starts of executions. The writing thread closes the gate
//! before such a commit and opens it once everything that follows the commit has been done. Because a start passes
//! the gate first, it never comes between the moment at which a stop is on disk and the moment at which the
//! dispatcher hears of it. A start has passed the gate once its executor has been polled, and such a commit waits for
//! the starts that are passing. Other commits leave the gate open and wait for none.

use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering};

#[derive(Debug, Default)]
pub(crate) struct CommitGate {
    /// Because each start reads this, it is an atomic: a start takes the lock only if the gate may be closed.
    is_closed: AtomicBool,
    /// The number of starts that are passing.
    passing: AtomicUsize,
    /// The starts that wait for the gate.
    waiting: Mutex<Vec<Waker>>,
}

impl CommitGate {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the gate. While starts are passing, this calls `go_on_waiting`, until that returns false.
    pub(super) fn close(&self, mut go_on_waiting: impl FnMut() -> bool) {
        let waiting = self.waiting();
        self.is_closed.store(true, Ordering::SeqCst);
        drop(waiting);
        // A start that is not counted here is counted later. Because both operations change the number, that start
        // finds the gate closed.
        while self.passing.fetch_add(0, Ordering::SeqCst) > 0 && go_on_waiting() {}
    }

    /// Opens the gate.
    pub(super) fn open(&self) {
        if self.is_closed.load(Ordering::SeqCst) {
            let mut waiting = self.waiting();
            self.is_closed.store(false, Ordering::SeqCst);
            let wakers = std::mem::take(&mut *waiting);
            drop(waiting);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Lets a start pass if the gate is open. Otherwise wakes the task when the gate opens.
    pub(crate) fn poll_pass(&self, cx: &Context<'_>) -> Poll<Pass<'_>> {
        loop {
            // The start is counted before the look, so that a commit that closes the gate after the look waits for
            // this start.
            self.passing.fetch_add(1, Ordering::SeqCst);
            let pass = Pass(Some(self));
            if !self.is_closed.load(Ordering::SeqCst) {
                return Poll::Ready(pass);
            }
            drop(pass);
            let mut waiting = self.waiting();
            if self.is_closed.load(Ordering::SeqCst) {
                waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
    }
}

/// A start that is passing the gate. Dropping it says that the start has passed.
#[derive(Debug, Default)]
pub(crate) struct Pass<'a>(Option<&'a CommitGate>);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(gate) = self.0 {
            gate.passing.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

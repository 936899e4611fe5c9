//! The gate between the commits that stop executions and the starts of executions. The writing thread closes the gate
//! before such a commit and opens it once everything that follows the commit has been done. Because a start passes
//! the gate first, it never comes between the moment at which a stop is on disk and the moment at which the
//! dispatcher hears of it. Other commits leave the gate open.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

thread_local! {
    /// Whether the transaction of this thread has stopped executions.
    static STOPS: Cell<bool> = const { Cell::new(false) };
}

/// Notes that the transaction of this thread stops an execution that runs.
pub(super) fn note_stop() {
    STOPS.set(true);
}

#[derive(Debug, Default)]
pub(crate) struct CommitGate {
    /// Because each start reads this, it is an atomic: a start takes the lock only if the gate may be closed.
    is_closed: AtomicBool,
    /// The starts that wait for the gate.
    waiting: Mutex<Vec<Waker>>,
}

impl CommitGate {
    fn waiting(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the gate if the transaction of this thread has stopped executions.
    pub(super) fn close_for_stops(&self) {
        if STOPS.take() {
            let _waiting = self.waiting();
            self.is_closed.store(true, Ordering::SeqCst);
        }
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

    /// Returns `Ready` if the gate is open, and wakes the task when it opens otherwise.
    pub(crate) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_closed.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting();
        if !self.is_closed.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        waiting.push(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_start_waits_for_a_commit_that_stops_executions_and_for_no_other() {
        let (gate, wakes) = (CommitGate::default(), Arc::new(Count(AtomicUsize::new(0))));
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let check = |stops: bool, is_open: bool| {
            if stops {
                note_stop();
            }
            gate.close_for_stops();
            assert_eq!(gate.poll_open(&cx).is_ready(), is_open);
            gate.open();
            assert!(gate.poll_open(&cx).is_ready());
        };
        check(false, true);
        check(true, false);
        check(false, true);
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    }
}

//! What passes between a run and whoever follows it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use tokio::sync::Notify;

use crate::execution::{Report, StopOrder, StopReason};

/// The order to end a run, what it reports, and whether it is still followed. As there is one for each that
/// runs, what most never have is not a part of it.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    order: OnceLock<Box<StopOrder>>,
    /// How far it has come towards nobody's following it; one of those below.
    followed: AtomicU8,
    /// Rung when there is an order, and when the executor's part has ended.
    news: Notify,
    desk: Mutex<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    /// Whom the run's part hears of news with.
    waker: Option<Waker>,
    /// What the run has reported so far.
    report: Option<Box<Report>>,
}

/// It is to be left to itself: its executor's part is dropped, unasked.
const LET_GO: u8 = 1;
/// Its executor's part has ended.
const ENDED: u8 = 2;

impl Contact {
    /// Asks the run to stop, once; the first order stays.
    pub(crate) fn ask_to_stop(&self, order: &StopOrder) {
        if self.order.set(Box::new(order.clone())).is_ok() {
            self.news.notify_waiters();
            self.wake();
        }
    }

    /// The order to stop, if there is one.
    pub(crate) fn order(&self) -> Option<&StopOrder> {
        self.order.get().map(|order| &**order)
    }

    /// Comes once the run is to stop, or nobody follows it any longer: what is left of it is to end.
    pub(super) async fn stop_asked(&self) -> StopReason {
        loop {
            // Before the look: what comes after it is heard.
            let news = self.news.notified();
            if let Some(order) = self.order() {
                return order.cause;
            }
            if self.has_come_to(ENDED) {
                return StopReason::Shutdown;
            }
            news.await;
        }
    }

    /// Has the run go on without whoever follows it.
    pub(crate) fn let_go(&self) {
        if self.come_to(LET_GO) {
            self.wake();
        }
    }

    /// Whether the run has been let go of.
    pub(crate) fn is_let_go(&self) -> bool {
        self.has_come_to(LET_GO)
    }

    /// The executor's part has ended, and what it has left behind is on its own.
    pub(crate) fn end(&self) {
        if self.come_to(ENDED) {
            self.news.notify_waiters();
            // It keeps the task in memory.
            drop(self.take_waker());
        }
    }

    /// Whether it has not come so far before.
    fn come_to(&self, step: u8) -> bool {
        self.followed.fetch_max(step, Ordering::AcqRel) < step
    }

    fn has_come_to(&self, step: u8) -> bool {
        self.followed.load(Ordering::Acquire) >= step
    }

    /// Wakes whoever polls the run's part, and nobody else, when there is an order or it is let go of. To be
    /// called before a look at them.
    pub(crate) fn wake_with(&self, waker: &Waker) {
        let mut desk = self.desk();
        if desk.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return;
        }
        let before = desk.waker.replace(waker.clone());
        drop(desk);
        drop(before);
    }

    fn wake(&self) {
        if let Some(waker) = self.take_waker() {
            waker.wake();
        }
    }

    /// For use without the lock, under which nothing of others is to run.
    fn take_waker(&self) -> Option<Waker> {
        self.desk().waker.take()
    }

    /// Adds to what the run reports.
    pub(crate) fn report(&self, change: impl FnOnce(&mut Report)) {
        change(self.desk().report.get_or_insert_default());
    }

    /// Whether the run has reported that it goes on without the engine.
    pub(crate) fn is_kept(&self) -> bool {
        self.desk().report.as_ref().is_some_and(|report| report.is_kept)
    }

    /// Takes what the run has reported, if that says anything.
    pub(crate) fn take_report(&self) -> Option<Box<Report>> {
        self.desk().report.take().filter(|report| **report != Report::default())
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[tokio::test]
    async fn the_first_order_is_heard_by_all_who_listen() {
        let contact = Arc::new(Contact::default());
        let listeners = [(); 2].map(|()| {
            let contact = Arc::clone(&contact);
            tokio::spawn(async move { contact.stop_asked().await })
        });
        tokio::task::yield_now().await;
        for order in [StopReason::Timeout, StopReason::Stopped] {
            contact.ask_to_stop(&order.into());
        }
        for listener in listeners {
            assert_eq!(listener.await.expect("it listens"), StopReason::Timeout);
        }
        assert_eq!(contact.stop_asked().await, StopReason::Timeout);
    }

    #[tokio::test]
    async fn whoever_is_let_go_hears_of_no_stop_until_all_is_over() {
        let contact = Arc::new(Contact::default());
        let listens = Arc::clone(&contact);
        let mut listener = tokio::spawn(async move { listens.stop_asked().await });
        tokio::task::yield_now().await;
        contact.let_go();
        tokio::task::yield_now().await;
        assert!(!listener.is_finished());
        contact.end();
        assert_eq!((&mut listener).await.expect("it listens"), StopReason::Shutdown);
    }

    /// Counts how often it is called.
    #[derive(Default)]
    struct Bell(AtomicUsize);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_polls_the_run_last_is_woken_by_orders_and_by_letting_go() {
        let check = |act: fn(&Contact), wakes: usize| {
            let contact = Contact::default();
            let [before, last] = [(); 2].map(|()| Arc::new(Bell::default()));
            for bell in [&before, &last, &last] {
                contact.wake_with(&Waker::from(Arc::clone(bell)));
            }
            act(&contact);
            act(&contact);
            assert_eq!(before.0.load(Ordering::Relaxed), 0);
            assert_eq!(last.0.load(Ordering::Relaxed), wakes);
            // Nor is its task kept in memory.
            contact.end();
            assert_eq!(Arc::strong_count(&last), 1);
        };
        check(|contact| contact.ask_to_stop(&StopReason::Stopped.into()), 1);
        check(Contact::let_go, 1);
        check(Contact::end, 0);
        check(|contact| contact.report(|report| report.is_kept = true), 0);
    }
}

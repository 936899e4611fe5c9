//! What passes between a run and whoever follows it.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::execution::{Report, StopOrder, StopReason};

/// The order to end a run, what it reports, and whether it is still followed.
#[derive(Debug, Default)]
pub(crate) struct Contact {
    order: OnceLock<StopOrder>,
    /// How far it has come towards nobody's following it; one of those below.
    followed: AtomicU8,
    /// Rung after each change of those two.
    news: Notify,
    report: Mutex<Report>,
}

/// It is to be left to itself: its executor's part is dropped, unasked.
const LET_GO: u8 = 1;
/// Its executor's part has ended.
const ENDED: u8 = 2;

impl Contact {
    /// Asks the run to stop, once; the first order stays.
    pub(crate) fn ask_to_stop(&self, order: &StopOrder) {
        if self.order.set(order.clone()).is_ok() {
            self.news.notify_waiters();
        }
    }

    /// The order to stop, if there is one.
    pub(crate) fn order(&self) -> Option<&StopOrder> {
        self.order.get()
    }

    /// Comes once the run is to stop, or nobody follows it any longer: what is left of it is to end.
    pub(super) async fn stop_asked(&self) -> StopReason {
        self.wait_for(|| match self.order() {
            Some(order) => Some(order.cause),
            None => self.has_come_to(ENDED).then_some(StopReason::Shutdown),
        })
        .await
    }

    /// Has the run go on without whoever follows it.
    pub(crate) fn let_go(&self) {
        self.come_to(LET_GO);
    }

    /// Whether the run has been let go of.
    pub(crate) fn is_let_go(&self) -> bool {
        self.has_come_to(LET_GO)
    }

    /// Comes once the run has been let go of.
    pub(crate) async fn has_been_let_go(&self) {
        self.wait_for(|| self.is_let_go().then_some(())).await;
    }

    /// The executor's part has ended, and what it has left behind is on its own.
    pub(crate) fn end(&self) {
        self.come_to(ENDED);
    }

    fn come_to(&self, step: u8) {
        if self.followed.fetch_max(step, Ordering::AcqRel) < step {
            self.news.notify_waiters();
        }
    }

    fn has_come_to(&self, step: u8) -> bool {
        self.followed.load(Ordering::Acquire) >= step
    }

    async fn wait_for<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            // Before the look: what comes after it is heard.
            let news = self.news.notified();
            if let Some(found) = look() {
                return found;
            }
            news.await;
        }
    }

    /// What the run has reported so far.
    pub(crate) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        contact.has_been_let_go().await;
        tokio::task::yield_now().await;
        assert!(!listener.is_finished());
        contact.end();
        assert_eq!((&mut listener).await.expect("it listens"), StopReason::Shutdown);
    }
}

//! The end of an engine, whatever its cause. The loops, the writing thread and the store share one [`Ending`]; every
//! caller gets its first cause. A shutdown gives its deadline to the [`Ending`] too, so the deadline holds even if
//! the caller goes away.

mod clock;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::error::{EngineEnd, Error, Result};
use crate::panics::{contain, tell};

pub(crate) use clock::ContainedClock;

/// Whether an engine has ended, and why.
#[derive(Default)]
pub(crate) struct Ending {
    cause: OnceLock<EngineEnd>,
    is_closing: AtomicBool,
    state: Mutex<State>,
    /// Notified by each change of the fields above.
    news: Notify,
}

#[derive(Default)]
struct State {
    /// Loops that have not ended.
    parts: usize,
    /// The instant of the monotonic clock at which running executions are to be ended.
    deadline: Option<Duration>,
    /// Each hook is called once, when the cause is known.
    hooks: Vec<Hook>,
}

type Hook = Box<dyn FnOnce() + Send>;

impl Ending {
    /// Ends the engine. The first cause stays; a later one changes nothing.
    pub(crate) fn end(&self, cause: EngineEnd) {
        let hooks = {
            let mut state = self.state();
            if self.cause.set(cause).is_err() {
                return;
            }
            std::mem::take(&mut state.hooks)
        };
        let is_expected = match self.cause() {
            Some(EngineEnd::RuntimeGone) => self.is_closing(),
            cause => cause.is_none_or(|cause| *cause == EngineEnd::ShutDown),
        };
        if let Some(cause) = self.cause().filter(|_| !is_expected) {
            tell(|| tracing::error!(%cause, "the engine ends"));
        }
        for hook in hooks {
            // A hook wakes futures of the host.
            let _ = contain(hook);
        }
        self.news.notify_waiters();
    }

    /// Ends the engine because of a panic in `part`, named with its article.
    pub(crate) fn panicked(&self, part: &'static str, message: String) {
        self.end(EngineEnd::Panicked { part, message });
    }

    /// Makes the engine take no new executions. Once the last part has ended, the engine has been shut down.
    pub(crate) fn close(&self) {
        let state = self.state();
        self.is_closing.store(true, Ordering::Release);
        let is_last = state.parts == 0;
        drop(state);
        if is_last {
            self.end(EngineEnd::ShutDown);
        }
        self.news.notify_waiters();
    }

    /// Makes running executions end at `deadline`, an instant of the monotonic clock. The earliest deadline holds.
    pub(crate) fn close_by(&self, deadline: Duration) {
        let mut state = self.state();
        state.deadline = Some(state.deadline.map_or(deadline, |known| known.min(deadline)));
        drop(state);
        self.close();
    }

    /// Returns whether the engine has been told to close: no new execution is to start.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::Acquire)
    }

    /// Waits until no new execution is to start.
    pub(crate) async fn closing(&self) {
        self.until(|| (self.is_closing() || self.cause().is_some()).then_some(())).await;
    }

    /// Waits until running executions are to be ended: the deadline has passed, or the engine has ended by itself.
    pub(crate) async fn overdue(self: Arc<Self>, clock: Arc<dyn Clock>) {
        let mut known = None;
        loop {
            let earlier = self.until(|| {
                if self.cause().is_some() {
                    return Some(None);
                }
                let deadline = self.state().deadline?;
                known.is_none_or(|known| deadline < known).then_some(Some(deadline))
            });
            let left = known.map(|known: Duration| known.saturating_sub(clock.monotonic()));
            let passed = async {
                match left {
                    Some(left) => clock.sleep(left).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                earlier = earlier => match earlier {
                    Some(deadline) => known = Some(deadline),
                    None => return,
                },
                () = passed => return,
            }
        }
    }

    /// Returns why the engine has ended; `None` if it has not.
    pub(crate) fn cause(&self) -> Option<&EngineEnd> {
        self.cause.get()
    }

    /// Returns the error of a call that comes after the end.
    pub(crate) fn error(&self) -> Error {
        self.cause().cloned().unwrap_or(EngineEnd::ShutDown).into()
    }

    /// # Errors
    ///
    /// [`Error::Ended`] or [`Error::ShuttingDown`] if the engine has ended.
    pub(crate) fn check(&self) -> Result<()> {
        match self.cause() {
            None => Ok(()),
            Some(_) => Err(self.error()),
        }
    }

    /// # Errors
    ///
    /// [`Error::Ended`] if the engine has ended although nobody shut it down.
    pub(crate) fn check_cut_off(&self) -> Result<()> {
        match self.cause() {
            None | Some(EngineEnd::ShutDown) => Ok(()),
            Some(_) => Err(self.error()),
        }
    }

    /// Waits until there is a cause and no part is left, and returns the cause.
    pub(crate) async fn ended(&self) -> EngineEnd {
        self.until(|| self.cause().filter(|_| self.state().parts == 0).cloned()).await
    }

    async fn until<T>(&self, look: impl Fn() -> Option<T>) -> T {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            // Enabled before the look, so that a change after the look is heard.
            news.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            news.await;
        }
    }

    /// Calls `hook` when there is a cause, or now if there is a cause already. A hook must not block.
    pub(crate) fn on_end(&self, hook: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if self.cause().is_none() {
            state.hooks.push(Box::new(hook));
            return;
        }
        drop(state);
        hook();
    }

    /// Makes `work` a part of the engine, named with its article. The part ends without a cause only by
    /// coming to its end: a panic in it, or a drop before its end, ends the engine.
    pub(crate) fn part<F: Future<Output = ()>>(
        self: &Arc<Self>,
        name: &'static str,
        work: F,
    ) -> Part<F> {
        self.state().parts += 1;
        Part { work: Some(Box::pin(work)), name, ending: Arc::clone(self) }
    }

    fn part_ended(&self) {
        let mut state = self.state();
        state.parts -= 1;
        let is_last = state.parts == 0;
        drop(state);
        if is_last && self.is_closing() {
            self.end(EngineEnd::ShutDown);
        }
        self.news.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ending").field(&self.cause()).finish()
    }
}

/// A loop of the engine, as a future that ends the engine if it panics or is dropped before its end.
pub(crate) struct Part<F> {
    /// `None` once the loop has ended.
    work: Option<Pin<Box<F>>>,
    name: &'static str,
    ending: Arc<Ending>,
}

impl<F: Future<Output = ()>> Future for Part<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(work) = &mut self.work {
            if let Err(message) = ready!(contained(work.as_mut(), cx)) {
                // Told before the drop, because the drop may take long.
                self.ending.panicked(self.name, message);
            }
            self.leave();
        }
        Poll::Ready(())
    }
}

fn contained<F: Future<Output = ()>>(
    work: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<(), String>> {
    match contain(|| work.poll(cx)) {
        Ok(polled) => polled.map(Ok),
        Err(message) => Poll::Ready(Err(message)),
    }
}

impl<F> Part<F> {
    fn leave(&mut self) {
        let Some(work) = self.work.take() else { return };
        if let Err(message) = contain(|| drop(work)) {
            self.ending.panicked(self.name, message);
        }
        self.ending.part_ended();
    }
}

impl<F> Drop for Part<F> {
    fn drop(&mut self) {
        if self.work.is_some() {
            self.ending.end(EngineEnd::RuntimeGone);
            self.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::yield_now;

    use super::*;

    fn panicked(part: &'static str, message: &str) -> EngineEnd {
        EngineEnd::Panicked { part, message: message.to_owned() }
    }

    #[tokio::test]
    async fn the_first_cause_is_the_one_that_everybody_is_told() {
        let ending = Arc::new(Ending::default());
        let calls = Arc::new(AtomicUsize::new(0));
        let hook = |calls: &Arc<AtomicUsize>| {
            let calls = Arc::clone(calls);
            move || {
                calls.fetch_add(1, Ordering::Relaxed);
            }
        };
        ending.on_end(|| panic!("a waker of the host's"));
        ending.on_end(hook(&calls));
        ending.check().expect("it has not ended");
        let waits = tokio::spawn({
            let ending = Arc::clone(&ending);
            async move { ending.ended().await }
        });
        yield_now().await;
        ending.panicked("the scheduler", "first".to_owned());
        ending.end(EngineEnd::RuntimeGone);
        ending.close();
        ending.on_end(hook(&calls));
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        assert_eq!(waits.await.expect("it waits"), panicked("the scheduler", "first"));
        let error = ending.check().expect_err("it has ended").to_string();
        assert_eq!(error, "the engine has ended: the scheduler panicked: first");
    }

    #[tokio::test]
    async fn a_part_that_ends_unasked_ends_the_engine() {
        struct PanicsDropped;
        impl Drop for PanicsDropped {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let check = async |work: Pin<Box<dyn Future<Output = ()> + Send>>, want: EngineEnd| {
            let ending = Arc::new(Ending::default());
            let other = tokio::spawn(ending.part("the deliverer", yield_now()));
            let part = tokio::spawn(ending.part("the scheduler", work));
            // Eight polls are more than any of these parts needs.
            for _ in 0..8 {
                yield_now().await;
            }
            part.abort();
            let _ = part.await;
            other.await.expect("nothing is wrong with it");
            ending.close();
            assert_eq!(ending.ended().await, want);
        };
        check(Box::pin(yield_now()), EngineEnd::ShutDown).await;
        check(Box::pin(pending()), EngineEnd::RuntimeGone).await;
        check(Box::pin(async { panic!("polled") }), panicked("the scheduler", "polled")).await;
        let held = PanicsDropped;
        let work = async move {
            let _dropped_at_its_end = held;
        };
        check(Box::pin(work), panicked("the scheduler", "dropped")).await;
    }
}

//! Panics of the host's code. Contained here, they end no loop and no thread of the engine.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Calls `act`, which may run code of the host.
///
/// # Errors
///
/// Returns the message of the panic if `act` panics.
pub(crate) fn contain<T>(act: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(act)).map_err(message)
}

/// Sends an event to the subscriber of the host. If the subscriber panics, only the event is lost.
pub(crate) fn tell(event: impl FnOnce()) {
    let _ = contain(event);
}

/// A future of the host's, polled and dropped without letting a panic through. Returns the message of the panic
/// if there is one.
pub(crate) struct Contained<F: Future>(Option<Pin<Box<F>>>);

impl<F: Future> Contained<F> {
    pub(crate) fn new(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }

    fn end(&mut self) -> Result<(), String> {
        let work = self.0.take();
        contain(|| drop(work))
    }
}

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let polled = contain(|| work.as_mut().poll(cx));
        let output = match polled {
            Ok(polled) => Ok(ready!(polled)),
            Err(message) => Err(message),
        };
        Poll::Ready(self.end().and(output))
    }
}

impl<F: Future> Drop for Contained<F> {
    fn drop(&mut self) {
        // The owner that dropped this future waits for no answer.
        let _ = self.end();
    }
}

/// Returns the message of a panic, and drops its payload.
pub(crate) fn message(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("no message").to_owned();
    // The payload is a value of the host; its drop may panic.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(again);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    struct PanicsDropped;

    impl PanicsDropped {
        fn held(&self) {}
    }

    impl Drop for PanicsDropped {
        fn drop(&mut self) {
            panic_any(PanicsDropped);
        }
    }

    #[test]
    fn a_panic_comes_to_its_message_whatever_it_panics_with() {
        let check = |act: fn() -> u8, want: Result<u8, &str>| {
            assert_eq!(contain(act), want.map_err(str::to_owned));
        };
        check(|| 1, Ok(1));
        check(|| panic!("literal"), Err("literal"));
        check(|| panic!("{}", "formatted"), Err("formatted"));
        check(|| panic_any(7), Err("no message"));
        check(|| panic_any(PanicsDropped), Err("no message"));
    }

    #[tokio::test]
    async fn a_future_that_panics_comes_to_its_message_polled_and_dropped() {
        let held = PanicsDropped;
        assert_eq!(Contained::new(async { 1 }).await, Ok(1));
        assert_eq!(
            Contained::<_>::new(async { panic!("polled") }).await,
            Err::<(), _>("polled".into())
        );
        let dropped_at_its_end = Contained::new(async move { held.held() });
        assert_eq!(dropped_at_its_end.await, Err("no message".to_owned()));
        let held = PanicsDropped;
        let pending = async move {
            std::future::pending::<()>().await;
            held.held();
        };
        drop(Contained::new(pending));
    }
}

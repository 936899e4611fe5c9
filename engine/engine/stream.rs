//! The events of an invocation as a stream, for the combinators of a host's choice.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use super::watch::{Position, Watch};
use crate::error::Result;
use crate::event::Event;

/// The events of one invocation as a stream, from [`Watch::into_stream`].
pub struct WatchStream(State);

enum State {
    /// No event is waited for.
    Idle(Box<Watch>),
    /// The watch waits for an event.
    Waits(Waits),
    Ended,
}

type Waits = Pin<Box<dyn Future<Output = (Box<Watch>, Result<Option<Event>>)> + Send>>;

impl WatchStream {
    pub(super) fn new(watch: Watch) -> Self {
        Self(State::Idle(Box::new(watch)))
    }

    /// Returns the position of the event that the stream has returned last. `None` while the stream waits for an event,
    /// and after its end.
    pub fn position(&self) -> Option<Position> {
        match &self.0 {
            State::Idle(watch) => Some(watch.position()),
            State::Waits(_) | State::Ended => None,
        }
    }
}

async fn next(mut watch: Box<Watch>) -> (Box<Watch>, Result<Option<Event>>) {
    let event = watch.next().await;
    (watch, event)
}

impl Stream for WatchStream {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Event>>> {
        let mut waits: Waits = match std::mem::replace(&mut self.0, State::Ended) {
            State::Idle(watch) => Box::pin(next(watch)),
            State::Waits(waits) => waits,
            State::Ended => return Poll::Ready(None),
        };
        let Poll::Ready((watch, event)) = waits.as_mut().poll(cx) else {
            self.0 = State::Waits(waits);
            return Poll::Pending;
        };
        if let Ok(Some(_)) = event {
            self.0 = State::Idle(watch);
        }
        Poll::Ready(event.transpose())
    }
}

impl FusedStream for WatchStream {
    fn is_terminated(&self) -> bool {
        matches!(self.0, State::Ended)
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}

//! The clock of the host, whose panics end the engine.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Ending;
use crate::clock::{Clock, Sleep, SystemClock};
use crate::error::{EngineEnd, Result};
use crate::panics::{Contained, contain};

/// A clock of the host. If the clock panics, the engine ends. In the engine's last moments, in which it
/// records ends, the time is the system's.
pub(crate) struct ContainedClock {
    host: Arc<dyn Clock>,
    system: SystemClock,
    /// The monotonic time of the host's clock when that of the system was 0.
    origin: Duration,
    trouble: Arc<Trouble>,
}

struct Trouble {
    has_panicked: AtomicBool,
    ending: Arc<Ending>,
}

const CLOCK: &str = "the host's clock";

impl Trouble {
    fn note(&self, message: String) {
        self.has_panicked.store(true, Ordering::Relaxed);
        self.ending.panicked(CLOCK, message);
    }
}

impl ContainedClock {
    /// # Errors
    ///
    /// Returns the message of the panic if the clock panics already.
    pub(crate) fn new(host: Arc<dyn Clock>, ending: Arc<Ending>) -> Result<Self> {
        let origin = contain(|| host.monotonic())
            .map_err(|message| EngineEnd::Panicked { part: CLOCK, message })?;
        let trouble = Arc::new(Trouble { has_panicked: AtomicBool::new(false), ending });
        Ok(Self { host, system: SystemClock::default(), origin, trouble })
    }

    /// Returns the answer of the host's clock; `None` if the clock panics.
    fn ask<T>(&self, question: impl FnOnce(&dyn Clock) -> T) -> Option<T> {
        if self.trouble.has_panicked.load(Ordering::Relaxed) {
            return None;
        }
        contain(|| question(&*self.host)).map_err(|message| self.trouble.note(message)).ok()
    }
}

impl Clock for ContainedClock {
    fn realtime(&self) -> DateTime<Utc> {
        self.ask(|host| host.realtime()).unwrap_or_else(|| self.system.realtime())
    }

    fn monotonic(&self) -> Duration {
        let system = || self.origin.saturating_add(self.system.monotonic());
        self.ask(|host| host.monotonic()).unwrap_or_else(system)
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let Some(sleep) = self.ask(|host| host.sleep(duration)) else {
            return self.system.sleep(duration);
        };
        Box::pin(ContainedSleep {
            sleep: Contained::new(sleep),
            trouble: Arc::clone(&self.trouble),
        })
    }
}

/// A sleep of the host's clock. If the sleep panics, it ends at once, because the engine ends too.
struct ContainedSleep {
    sleep: Contained<Sleep>,
    trouble: Arc<Trouble>,
}

impl Future for ContainedSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let slept = std::task::ready!(Pin::new(&mut self.sleep).poll(cx));
        if let Err(message) = slept {
            self.trouble.note(message);
        }
        Poll::Ready(())
    }
}

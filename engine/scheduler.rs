//! Turns timers that are due into fires, and lets executions be tried again when their time has come.
//! Fire times follow the real-time clock; since that one can
//! be set at any moment, the loop reads it again at least every half minute. All that counts is in
//! the records: each timer holds its next nominal time, so nothing fires twice whatever the clock
//! does, and what it passed over is seen as such.

mod plan;
mod step;
mod vigil;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::error::Result;
use crate::store::{Store, Tx};

pub(crate) use step::{Settling, Step};
pub(crate) use vigil::Vigil;

/// The clock may be set while the loop sleeps; this is how long that can go unnoticed.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How long to wait before trying again to write to a database that refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the loop works with.
pub(crate) struct Scheduler {
    pub store: Arc<Store>,
    pub clock: Arc<dyn Clock>,
    pub vigil: Arc<Vigil>,
    /// A timer, or another attempt, has been added that may be earlier than all others.
    pub wake: Arc<Notify>,
    /// Called with what each step did, right after its commit.
    pub announce: Arc<dyn Fn(&Step) + Send + Sync>,
    /// The last to be dropped: who waits for the end of the loop finds the store released.
    pub _alive: watch::Sender<()>,
}

impl Scheduler {
    /// Works until it is dropped.
    pub(crate) async fn run(self) {
        loop {
            let wait = match self.step().await {
                Ok(step) if step.more => continue,
                Ok(step) => self.until(step.next_due_ms),
                Err(error) => {
                    tracing::error!(%error, "timers that are due are not on disk yet");
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Fires what is due and tries again what is, one batch of it.
    async fn step(&self) -> Result<Step> {
        let watchful = self.vigil.look();
        let announce = Arc::clone(&self.announce);
        let fire = move |tx: Tx<'_>| Step::fire_due(tx, watchful);
        self.store.write_then(fire, move |step| announce(step)).await
    }

    fn until(&self, next_due_ms: Option<i64>) -> Duration {
        let Some(due) = next_due_ms.and_then(DateTime::<Utc>::from_timestamp_millis) else {
            return SLEEP_MAX;
        };
        (due - self.clock.realtime()).to_std().unwrap_or_default().min(SLEEP_MAX)
    }
}

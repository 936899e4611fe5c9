//! Turns timers that are due into fires, lets executions be tried again when their time has come and
//! waves start when theirs has, and ends what is past its deadline.
//! Fire times follow the real-time clock; since that one can
//! be set at any moment, the loop reads it again at least every half minute. All that counts is in
//! the records: each timer holds its next nominal time, so nothing fires twice whatever the clock
//! does, and what it passed over is seen as such.

mod plan;
mod questions;
mod step;
mod take_back;
mod vigil;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::clock::{Clock, now_ms};
use crate::error::{Error, Result};
use crate::gate::{DynWaveGate, WaveDecision};
use crate::panics::tell;
use crate::store::waves::DueWave;
use crate::store::{Store, Tx, waits};
use questions::Questions;
use step::{Gate, Part};

pub(crate) use step::{BOOTS_MAX, Settling, Step, Work};
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
    /// Asked before each wave but the first, if there is one.
    pub gate: Option<Arc<dyn DynWaveGate>>,
    /// A timer, or another attempt, has been added that may be earlier than all others.
    pub wake: Arc<Notify>,
    /// Called with what each step did, right after its commit.
    pub announce: Arc<dyn Fn(&Step) + Send + Sync>,
}

impl Scheduler {
    /// Works until no new execution is to start. A write that is under way then is completed.
    pub(crate) async fn run(self) {
        let ending = Arc::clone(self.store.ending());
        let mut questions = Questions::new(&self);
        tokio::select! {
            biased;
            () = ending.closing() => {}
            () = self.work(&mut questions) => {}
        }
        questions.end().await;
        // The next engine continues the waits from this point.
        if let Err(error) =
            self.store.write_first(|tx: Tx<'_>| waits::look(tx, true), |()| {}).await
        {
            tell(|| tracing::debug!(%error, "the clocks are not on disk"));
        }
    }

    async fn work(&self, questions: &mut Questions) {
        let mut is_apart = false;
        loop {
            let (stepped, is_whole) = match is_apart {
                true => self.step_apart(questions).await,
                false => (self.step(questions.gate(), &Part::ALL).await, true),
            };
            is_apart = !is_whole || stepped.as_ref().is_err_and(Error::is_lasting);
            let wait = match stepped {
                Ok(mut step) => {
                    questions.withdraw(&step.withdrawn);
                    questions.ask(std::mem::take(&mut step.waves));
                    if step.more {
                        continue;
                    }
                    match is_whole {
                        true => self.until(&step),
                        false => self.until(&step).min(RETRY_AFTER),
                    }
                }
                // Nobody need wait: the parts that can be done are done at once.
                Err(_) if is_apart && is_whole => continue,
                Err(error) => {
                    self.tell_refused(&error, "what is due is not on disk yet");
                    RETRY_AFTER
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.clock.sleep(wait) => {}
                (due, decision) = questions.answer() => {
                    if let Err(error) = self.decide(due, decision).await {
                        self.tell_refused(&error, "a decision about a wave is not on disk");
                        self.clock.sleep(RETRY_AFTER).await;
                    }
                }
            }
        }
    }

    /// Does each part of a step in a commit of its own, because a record or a damaged page keeps the step from being
    /// done as a whole; whether all parts could be done. The error is that of the last part, if none could.
    async fn step_apart(&self, questions: &Questions) -> (Result<Step>, bool) {
        let (mut whole, mut refused) = (Step::at(now_ms(&*self.clock)), Vec::new());
        for part in Part::ALL {
            match self.step(questions.gate(), &[part]).await {
                Ok(step) => whole.add_part(step),
                Err(error) => {
                    self.tell_refused(&error, part.undone());
                    refused.push(error);
                }
            }
        }
        let is_whole = refused.is_empty();
        match refused.pop().filter(|_| refused.len() + 1 == Part::ALL.len()) {
            Some(error) => (Err(error), false),
            None => (Ok(whole), is_whole),
        }
    }

    /// Fires what is due and tries again what is, one batch of it.
    async fn step(&self, gate: Gate, parts: &[Part]) -> Result<Step> {
        let parts = parts.to_vec();
        let (announce, vigil) = (Arc::clone(&self.announce), Arc::clone(&self.vigil));
        // The clock is read in the transaction: what the commits before it have started has started before.
        let fire = move |tx: Tx<'_>| Step::fire_due(tx, vigil.look(), &gate, &parts);
        self.store.write_first(fire, move |step| announce(step)).await
    }

    fn tell_refused(&self, error: &Error, what: &str) {
        self.store.tell_refused(self.clock.monotonic(), error, what);
    }

    /// Carries out what was decided about a wave.
    async fn decide(&self, due: DueWave, decision: WaveDecision) -> Result<()> {
        let (announce, clock) = (Arc::clone(&self.announce), Arc::clone(&self.clock));
        let decide = move |tx: Tx<'_>| Step::decide(tx, &due, &decision, now_ms(&*clock));
        self.store.write_first(decide, move |step| announce(step)).await.map(drop)
    }

    /// Returns the time until the next step has work.
    fn until(&self, step: &Step) -> Duration {
        let clock = &*self.clock;
        let due = step.next_due_ms.and_then(DateTime::<Utc>::from_timestamp_millis);
        let due = due.map(|due| (due - clock.realtime()).to_std().unwrap_or_default());
        let wait = step.next_wait_ms.map(|at_ms| at_ms.saturating_sub(self.store.steady_ms(clock)));
        let wait = wait.map(|left_ms| Duration::from_millis(left_ms.max(0).unsigned_abs()));
        [due, wait].into_iter().flatten().fold(SLEEP_MAX, Duration::min)
    }
}

//! Turns due timers into fires, makes attempts and waves ready to start when they are due, and ends executions that
//! are past a deadline. Fire times follow the real-time clock. Because this clock can be set at any moment, the loop
//! reads it at least every half minute. Because each timer's record holds its next nominal time, no time fires twice
//! whatever the clock does, and times that the clock has passed over are found.

mod plan;
mod questions;
mod step;
mod take_back;
mod vigil;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::clock::{Clock, now_ms};
use crate::error::{EngineEnd, Error, Result};
use crate::gate::{DynWaveGate, WaveDecision};
use crate::panics::tell;
use crate::schedule::{OUTDATED_TARGET, ZoneData};
use crate::store::aside::{Aside, Refusal, Subject};
use crate::store::executions::FinishedInvocations;
use crate::store::waves::DueWave;
use crate::store::{Store, Tx, waits};
use questions::Questions;
use step::{Gate, Part};

pub(crate) use step::{EXECUTIONS_MAX, Settling, Step, Work};
pub(crate) use vigil::Vigil;

/// The clock may be set while the loop sleeps; this is how long that can go unnoticed.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// How long to wait before trying again to write to a database that refused.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The time for which a row that cannot be dealt with is passed over, and the least time between two messages to the
/// host about the same part of a step.
const ASIDE_FOR: Duration = Duration::from_secs(60);
/// Tries of a part of a step at a time, each of which finds a row that cannot be dealt with.
const TRIES_MAX: usize = 256;
/// How often the files of the zone data are looked at.
const ZONE_DATA_LOOK: Duration = Duration::from_secs(300);
/// How many of the rows that a step sets aside are told of one by one.
const ROWS_TOLD_MAX: usize = 20;

/// Ends with the invocations that have no time left.
pub(crate) type Replanning = Pin<Box<dyn Future<Output = Result<FinishedInvocations>> + Send>>;

/// The state of the loop.
pub(crate) struct Scheduler {
    pub store: Arc<Store>,
    pub clock: Arc<dyn Clock>,
    pub vigil: Arc<Vigil>,
    /// Asked before each wave but the first, if there is one.
    pub gate: Option<Arc<dyn DynWaveGate>>,
    /// A timer, or another attempt, has been added that may be earlier than all others.
    pub wake: Arc<Notify>,
    /// Plans the timers again with zone data that has replaced other data.
    pub replan: Box<dyn Fn(&'static ZoneData) -> Replanning + Send + Sync>,
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
        let mut troubles = Troubles::default();
        let mut zone_data = ZoneDataFollowed::from(self.clock.monotonic());
        loop {
            self.follow_zone_data(&mut zone_data).await;
            zone_data.tell_remarks();
            let mut wait = SLEEP_MAX;
            if !self.decide_all(questions, &mut troubles).await {
                wait = RETRY_AFTER;
            }
            match self.step(questions, &mut troubles).await {
                Ok(mut step) => {
                    questions.withdraw(&step.withdrawn);
                    questions.ask(std::mem::take(&mut step.waves));
                    if step.next_due_ms.is_some() {
                        zone_data.tell_age(self.clock.realtime());
                    }
                    if step.more {
                        continue;
                    }
                    wait = wait.min(self.until(&step));
                }
                Err(error) => {
                    self.store.tell_refused(
                        self.clock.monotonic(),
                        &error,
                        "what is due is not on disk yet",
                    );
                    wait = RETRY_AFTER;
                }
            }
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.clock.sleep(wait) => {}
                () = questions.hear() => {}
            }
        }
    }

    /// Looks from time to time whether the zone data has changed. If so, plans fires again.
    async fn follow_zone_data(&self, followed: &mut ZoneDataFollowed) {
        let now = self.clock.monotonic();
        if now.saturating_sub(followed.looked_at) >= ZONE_DATA_LOOK {
            followed.looked_at = now;
            if ZoneData::may_have_changed() {
                // Reads all files.
                let _ = tokio::task::spawn_blocking(|| ZoneData::look().fingerprint()).await;
            }
        }
        let data = ZoneData::in_use();
        if std::ptr::eq(data, followed.data) {
            return;
        }
        match (self.replan)(data).await {
            Ok(finished) => {
                *followed = ZoneDataFollowed { data, ..ZoneDataFollowed::from(now) };
                (self.announce)(&Step { finished, ..Step::at(now_ms(&*self.clock)) });
            }
            Err(error) => self.store.tell_refused(
                now,
                &error,
                "fires are not planned with the changed zone data yet",
            ),
        }
    }

    /// Does a step: as a whole, or, while a record or a damaged page keeps it from being done as a whole, each part of
    /// it in a commit of its own.
    async fn step(&self, questions: &Questions, troubles: &mut Troubles) -> Result<Step> {
        let aside = self.store.aside();
        troubles.end_aside(aside, self.clock.monotonic());
        if !aside.is_careful() {
            let stepped = self.write(questions.gate(), &Part::ALL).await;
            let is_hindered = stepped.as_ref().is_err_and(Error::is_lasting);
            aside.be_careful(is_hindered || aside.count() > 0);
            self.tell_news(troubles);
            if !is_hindered {
                return stepped;
            }
        }
        self.step_apart(questions, troubles).await
    }

    /// Does each part of a step in a commit of its own. An error in one part keeps no other part from being done. If
    /// no part can be done, the file cannot be used any longer, and the engine ends.
    ///
    /// # Errors
    ///
    /// Returns the error of a part if another try may succeed, or the last error if no part can be done.
    async fn step_apart(&self, questions: &Questions, troubles: &mut Troubles) -> Result<Step> {
        let mut whole = Step::at(now_ms(&*self.clock));
        whole.steady_ms = self.store.steady_ms(&*self.clock);
        let (mut hindered, mut refused) = (Vec::new(), None);
        for part in Part::ALL {
            match self.write_part(part, questions, troubles).await {
                Ok(step) => whole.add_part(step),
                Err(error) if error.is_lasting() => {
                    troubles.tell(self.clock.monotonic(), part, &error);
                    hindered.push((part, error));
                }
                Err(error) => refused = Some(error),
            }
        }
        let aside = self.store.aside();
        aside.be_careful(!hindered.is_empty() || refused.is_some() || aside.count() > 0);
        self.look_at_clocks().await;
        if let Some(error) = refused {
            return Err(error);
        }
        if let [.., (_, error)] = hindered.as_slice()
            && hindered.len() == Part::ALL.len()
        {
            self.store.ending().end(match error.clone() {
                Error::Storage(error) => EngineEnd::Storage(error),
                error => EngineEnd::Panicked { part: "the scheduler", message: error.to_string() },
            });
            return Err(error.clone());
        }
        // Callers that wait for an order to stop or for a boot must not wait for ever.
        let undone = hindered.iter().find(|(part, _)| *part == Part::Begun);
        if let Some((_, error)) = undone {
            let mut told = Step::at(whole.at_ms);
            told.undone = Some(error.clone());
            (self.announce)(&told);
        }
        if !hindered.is_empty() {
            // A part that could not be done does not say when it is due.
            whole.next_due_ms = Some(whole.at_ms);
        }
        Ok(whole)
    }

    /// Does a part of a step. Each row that cannot be dealt with is set aside.
    async fn write_part(
        &self,
        part: Part,
        questions: &Questions,
        troubles: &mut Troubles,
    ) -> Result<Step> {
        let aside = self.store.aside();
        aside.be_careful(true);
        let mut tries = 0;
        loop {
            let before = aside.total();
            let stepped = self.write(questions.gate(), &[part]).await;
            let is_found = aside.total() > before;
            self.tell_news(troubles);
            tries += 1;
            match stepped {
                Err(error) if error.is_lasting() && is_found && tries < TRIES_MAX => {}
                stepped => return stepped,
            }
        }
    }

    /// Does these parts of a step: fires a batch of due timers, and tries due executions again.
    async fn write(&self, gate: Gate, parts: &[Part]) -> Result<Step> {
        let (parts, aside) = (parts.to_vec(), Arc::clone(self.store.aside()));
        let (announce, vigil) = (Arc::clone(&self.announce), Arc::clone(&self.vigil));
        // The clock is read in the transaction, so that executions of earlier commits have started before this time.
        let fire = move |tx: Tx<'_>| Step::fire_due(tx, vigil.look(), &gate, &parts, &aside);
        self.store.write_first(fire, move |step| announce(step)).await
    }

    /// Takes note of the clocks, for executions that wait in steady time.
    async fn look_at_clocks(&self) {
        let look = |tx: Tx<'_>| waits::look(tx, true);
        if let Err(error) = self.store.write_first(look, |()| {}).await {
            tell(|| tracing::debug!(%error, "the clocks are not on disk"));
        }
    }

    /// Tells of rows that have been set aside.
    fn tell_news(&self, troubles: &mut Troubles) {
        let refused = self.store.aside().take_news();
        if refused.is_empty() {
            return;
        }
        troubles.tell_rows(self.clock.monotonic(), &refused);
        (self.announce)(&Step { refused, ..Step::at(now_ms(&*self.clock)) });
    }

    /// Carries out the decisions about waves. Returns whether the disk has taken all of them. A wave that a record or
    /// a damaged page keeps from that is set aside; others are tried again.
    async fn decide_all(&self, questions: &mut Questions, troubles: &mut Troubles) -> bool {
        let mut is_taken = true;
        for (due, decision) in questions.take_answers() {
            let aside = self.store.aside();
            match self.decide(&due, &decision).await {
                Ok(()) => {}
                Err(error) if error.is_lasting() => {
                    is_taken &= aside.set(Subject::Wave(due.fire), Some(due.invoke_id), error);
                    aside.be_careful(true);
                }
                Err(error) => {
                    self.store.tell_refused(
                        self.clock.monotonic(),
                        &error,
                        "a decision about a wave is not on disk",
                    );
                    questions.keep(due, decision);
                    is_taken = false;
                }
            }
            self.tell_news(troubles);
        }
        is_taken
    }

    async fn decide(&self, due: &DueWave, decision: &WaveDecision) -> Result<()> {
        let (announce, clock) = (Arc::clone(&self.announce), Arc::clone(&self.clock));
        let (aside, due, decision) =
            (Arc::clone(self.store.aside()), due.clone(), decision.clone());
        let decide = move |tx: Tx<'_>| Step::decide(tx, &aside, &due, &decision, now_ms(&*clock));
        self.store.write_first(decide, move |step| announce(step)).await.map(drop)
    }

    /// Returns the time until the next step has work.
    fn until(&self, step: &Step) -> Duration {
        let clock = &*self.clock;
        // A timer that was due before the step and is still due after it cannot be dealt with.
        let is_stuck = step.next_due_ms.is_some_and(|due_ms| due_ms <= step.at_ms)
            || step.next_wait_ms.is_some_and(|at_ms| at_ms <= step.steady_ms);
        if is_stuck {
            return RETRY_AFTER;
        }
        let due = step.next_due_ms.and_then(DateTime::<Utc>::from_timestamp_millis);
        let due = due.map(|due| (due - clock.realtime()).to_std().unwrap_or_default());
        let wait = step.next_wait_ms.map(|at_ms| at_ms.saturating_sub(self.store.steady_ms(clock)));
        let wait = wait.map(|left_ms| Duration::from_millis(left_ms.max(0).unsigned_abs()));
        [due, wait].into_iter().flatten().fold(SLEEP_MAX, Duration::min)
    }
}

/// The zone data that fires are planned with, and what the host has been told of it.
struct ZoneDataFollowed {
    data: &'static ZoneData,
    looked_at: Duration,
    remarks: usize,
    age: bool,
}

impl ZoneDataFollowed {
    /// The data that the engine was opened with.
    fn from(now: Duration) -> Self {
        Self { data: ZoneData::in_use(), looked_at: now, remarks: 0, age: false }
    }

    /// Tells of files that are missing or not sound, each once.
    fn tell_remarks(&mut self) {
        let data = self.data;
        if data.remark_count() > self.remarks {
            let remarks = data.remarks();
            for remark in &remarks[self.remarks.min(remarks.len())..] {
                tell(|| tracing::warn!("{remark}"));
            }
            self.remarks = remarks.len();
        }
    }

    /// Tells once that the data is outdated, of an engine that has something to do at a time.
    fn tell_age(&mut self, now: DateTime<Utc>) {
        let data = self.data;
        if !self.age && data.is_outdated(now) {
            self.age = true;
            tell(|| {
                tracing::warn!(
                    target: OUTDATED_TARGET,
                    zone_data = %data,
                    "the zone data is outdated; clocks of zones whose rules have changed since are wrong"
                );
            });
        }
    }
}

/// The troubles that keep the scheduler from parts of its steps, and when the host was told of them.
#[derive(Default)]
struct Troubles {
    /// The monotonic time of the last message about each part, and about a row of each part.
    told_at: Vec<((Part, bool), Duration)>,
    /// The monotonic time since which no other row has been set aside, and the number of rows that had been by then.
    aside_since: Option<(Duration, u64)>,
}

impl Troubles {
    /// Lets rows that were set aside a while ago be tried again. While tries still find rows to set aside, these rows
    /// stay aside, because otherwise tries that find fewer rows in that while would never come to an end.
    fn end_aside(&mut self, aside: &Aside, now: Duration) {
        if aside.count() == 0 {
            self.aside_since = None;
            return;
        }
        let total = aside.total();
        match self.aside_since {
            Some((since, before)) if before == total => {
                if now.saturating_sub(since) >= ASIDE_FOR {
                    aside.clear();
                    self.aside_since = None;
                }
            }
            _ => self.aside_since = Some((now, total)),
        }
    }

    /// Tells the host of a part that cannot be done.
    fn tell(&mut self, now: Duration, part: Part, error: &Error) {
        if self.is_time((part, false), now) {
            tell(|| tracing::error!(%error, "{}", part.undone()));
        }
    }

    /// Tells the host of rows that cannot be dealt with: of each part, if it is time for it, the first rows.
    fn tell_rows(&mut self, now: Duration, refused: &[Refusal]) {
        for part in Part::ALL {
            let of_part = |refusal: &&Refusal| Part::of(refusal.subject) == part;
            let mut rows = refused.iter().filter(of_part).take(ROWS_TOLD_MAX).peekable();
            if rows.peek().is_none() || !self.is_time((part, true), now) {
                continue;
            }
            for Refusal { subject, invoke_id, error } in rows {
                tell(|| {
                    let invoke_id = invoke_id.map(tracing::field::display);
                    tracing::error!(%error, invoke_id, ?subject, "a row is passed over, perhaps others: {}", part.undone());
                });
            }
        }
    }

    fn is_time(&mut self, what: (Part, bool), now: Duration) -> bool {
        match self.told_at.iter_mut().find(|(told, _)| *told == what) {
            Some((_, told_at)) if now.saturating_sub(*told_at) < ASIDE_FOR => false,
            Some((_, told_at)) => {
                *told_at = now;
                true
            }
            None => {
                self.told_at.push((what, now));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stay_aside_while_tries_find_others() {
        let (aside, mut troubles) = (Aside::default(), Troubles::default());
        let set = |row| {
            let error = Error::Internal("damaged".to_owned());
            assert!(aside.set(Subject::Execution(row), None, error));
        };
        let mut check = |seconds, count| {
            troubles.end_aside(&aside, Duration::from_secs(seconds));
            assert_eq!(aside.count(), count, "after {seconds} s");
        };
        set(1);
        check(0, 1);
        check(59, 1);
        set(2);
        check(60, 2);
        check(119, 2);
        check(120, 0);
        set(1);
        check(121, 1);
        check(180, 1);
        check(181, 0);
    }
}

//! The questions to the host's gate that are under way. Each has a task, and the scheduler owns all of them.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use tokio::task::{AbortHandle, Id, JoinSet};

use super::Scheduler;
use super::step::Gate;
use crate::clock::Clock;
use crate::gate::{self, ASK_AGAIN_AFTER, DynWaveGate, EndedWave, WaveDecision};
use crate::store::waves::DueWave;

/// Waves that the gate is asked about at a time. A question that hangs keeps few others waiting, and a herd
/// of waves does not reach the host at once.
const QUESTIONS_MAX: usize = 16;

/// The questions under way. The questions end when this value is dropped.
pub(super) struct Questions {
    /// `None` if the host has no gate.
    gate: Option<Arc<dyn DynWaveGate>>,
    clock: Arc<dyn Clock>,
    tasks: JoinSet<WaveDecision>,
    asked: HashMap<Id, (DueWave, AbortHandle)>,
    /// Answers that are not on record. With the tasks they are no more than questions.
    answers: Vec<(DueWave, WaveDecision)>,
}

impl Questions {
    pub(super) fn new(scheduler: &Scheduler) -> Self {
        Self {
            gate: scheduler.gate.clone(),
            clock: Arc::clone(&scheduler.clock),
            tasks: JoinSet::new(),
            asked: HashMap::new(),
            answers: Vec::new(),
        }
    }

    /// Returns the party that decides about waves that are due.
    pub(super) fn gate(&self) -> Gate {
        match &self.gate {
            None => Gate::None,
            Some(_) => Gate::Asked {
                about: self.about().cloned().collect(),
                more: QUESTIONS_MAX.saturating_sub(self.tasks.len() + self.answers.len()),
            },
        }
    }

    /// The waves whose decision is not on record.
    fn about(&self) -> impl Iterator<Item = &DueWave> {
        let asked = self.asked.values().map(|(due, _)| due);
        asked.chain(self.answers.iter().map(|(due, _)| due))
    }

    /// Asks about waves.
    pub(super) fn ask(&mut self, waves: Vec<DueWave>) {
        let Some(gate) = &self.gate else { return };
        for due in waves {
            let mut ended = EndedWave::new(due.invoke_id, due.targets);
            (ended.succeeded, ended.failed) = (due.ended.succeeded, due.ended.failed);
            ended.stopped = due.ended.stopped;
            let decision = gate::ask(Arc::clone(gate), ended, Arc::clone(&self.clock));
            let task = self.tasks.spawn(decision);
            self.asked.insert(task.id(), (due, task));
        }
    }

    /// Drops the questions about the waves of these fires.
    pub(super) fn withdraw(&mut self, fires: &[i64]) {
        self.asked.retain(|_, (due, task)| {
            let is_withdrawn = fires.contains(&due.fire);
            if is_withdrawn {
                task.abort();
            }
            !is_withdrawn
        });
        self.answers.retain(|(due, _)| !fires.contains(&due.fire));
    }

    /// Takes the answers that are not on record.
    pub(super) fn take_answers(&mut self) -> Vec<(DueWave, WaveDecision)> {
        std::mem::take(&mut self.answers)
    }

    /// Keeps an answer that the disk has not taken. The gate is not asked again meanwhile.
    pub(super) fn keep(&mut self, due: DueWave, decision: WaveDecision) {
        self.answers.push((due, decision));
    }

    /// Drops all questions, and waits until they are gone.
    pub(super) async fn end(&mut self) {
        self.asked.clear();
        self.answers.clear();
        self.tasks.shutdown().await;
    }

    /// Waits until there is an answer, or a question that was withdrawn is gone and leaves its place to another. May be
    /// dropped and called again.
    pub(super) async fn hear(&mut self) {
        let (id, decision) = match self.tasks.join_next_with_id().await {
            Some(Ok(answered)) => answered,
            // The task was cut off, or panicked although its panics are contained.
            Some(Err(error)) => (error.id(), WaveDecision::Wait(ASK_AGAIN_AFTER)),
            None => pending().await,
        };
        let asked = self.asked.remove(&id);
        self.answers.extend(asked.map(|(due, _)| (due, decision)));
    }
}

//! A host's gate that hangs, panics or answers too late holds up the waves of its own invocation only.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    EndedWave, Engine, InvocationStatus, InvokeId, ManualClock, RunCommand, StopInvocation,
    WaveDecision, WaveGate,
};
use tokio::sync::Semaphore;

use crate::recurrence::{clock, open, status};
use crate::support::{Place, wait, within};

/// The behaviour of a gate at one question about an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Proceed,
    Hang,
    Panic,
    /// The gate hangs, and panics when its question is dropped.
    PanicInDrop,
    /// The gate panics as it is about to answer.
    PanicAtTheEnd,
}

/// A gate whose behaviour depends on the number of the invocation, in the order of first questions, and on the number
/// of the question.
#[derive(Clone)]
struct Unruly {
    acts: Arc<dyn Fn(usize, usize) -> Act + Send + Sync>,
    asked: Arc<Mutex<Vec<InvokeId>>>,
    /// `begun` has a permit for each question that was asked, `ended` one for each question that was dropped
    /// or has ended.
    begun: Arc<Semaphore>,
    ended: Arc<Semaphore>,
}

/// A value that lives as long as a question.
struct Mark {
    ended: Arc<Semaphore>,
    panics: bool,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.ended.add_permits(1);
        assert!(!self.panics, "as told");
    }
}

impl Unruly {
    fn new(acts: impl Fn(usize, usize) -> Act + Send + Sync + 'static) -> Self {
        let [begun, ended] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
        Self { acts: Arc::new(acts), asked: Arc::default(), begun, ended }
    }

    async fn begun(&self, count: u32) {
        within(self.begun.acquire_many(count)).await.expect("never closed").forget();
    }
}

impl WaveGate for Unruly {
    async fn decide(&self, wave: EndedWave) -> WaveDecision {
        let act = {
            let mut asked = self.asked.lock().expect("nobody panics");
            let before = asked.iter().filter(|id| **id == wave.invoke_id).count();
            let mut known: Vec<InvokeId> = Vec::new();
            for id in asked.iter().copied().chain([wave.invoke_id]) {
                if !known.contains(&id) {
                    known.push(id);
                }
            }
            asked.push(wave.invoke_id);
            let number = known.iter().position(|id| *id == wave.invoke_id).expect("it is known");
            (self.acts)(number, before)
        };
        let panics = matches!(act, Act::PanicInDrop | Act::PanicAtTheEnd);
        let _mark = Mark { ended: Arc::clone(&self.ended), panics };
        self.begun.add_permits(1);
        match act {
            Act::Proceed | Act::PanicAtTheEnd => WaveDecision::Proceed,
            Act::Panic => panic!("as told"),
            Act::Hang | Act::PanicInDrop => pending().await,
        }
    }
}

async fn gated(gate: &Unruly) -> (Engine, ManualClock) {
    let clock = clock();
    (open(Engine::builder().wave_gate(gate.clone()), &clock).await, clock)
}

/// Runs an invocation on two instances, one after the other.
async fn in_waves(engine: &Engine) -> InvokeId {
    let request = RunCommand::shell("exit:0").on(["i-1", "i-2"]).waves([1, 2]).timeout(1_000);
    engine.run_command(request).await.expect("sound").invoke_id
}

/// Lets time pass until an invocation has ended. Returns its status.
async fn ended(engine: &Engine, clock: &ManualClock, id: InvokeId) -> InvocationStatus {
    let mut ended = std::pin::pin!(wait(engine, &id));
    loop {
        tokio::select! {
            finished = &mut ended => return finished.status,
            () = clock.sleeping(1) => clock.advance(Duration::from_secs(1)),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_gate_that_hangs_holds_up_the_waves_of_no_other_invocation() {
    let gate = Unruly::new(|number, _| if number == 0 { Act::Hang } else { Act::Proceed });
    let (engine, _clock) = gated(&gate).await;
    let hung = in_waves(&engine).await;
    gate.begun(1).await;
    for _ in 0..3 {
        let other = in_waves(&engine).await;
        assert_eq!(wait(&engine, &other).await.status, InvocationStatus::Success);
    }
    assert_eq!(status(&engine, hung).await, InvocationStatus::Pending);
}

#[tokio::test]
async fn a_gate_that_does_not_answer_or_panics_is_asked_again() {
    let check = async |act: Act| {
        let gate = Unruly::new(move |_, question| if question == 0 { act } else { Act::Proceed });
        let (engine, clock) = gated(&gate).await;
        let id = in_waves(&engine).await;
        gate.begun(1).await;
        assert_eq!(ended(&engine, &clock, id).await, InvocationStatus::Success, "{act:?}");
        let asked = gate.asked.lock().expect("nobody panics").len();
        assert_eq!(asked, 2, "{act:?}");
        // The scheduler goes on, whatever happened to the question.
        let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(1).frequency("rate(60s)");
        let id = engine.run_command(request.max_fires(1)).await.expect("sound").invoke_id;
        assert_eq!(ended(&engine, &clock, id).await, InvocationStatus::Success, "{act:?}");
    };
    for act in [Act::Hang, Act::Panic, Act::PanicInDrop, Act::PanicAtTheEnd] {
        check(act).await;
    }
}

#[tokio::test]
async fn a_question_about_an_invocation_that_was_stopped_is_dropped() {
    for act in [Act::Hang, Act::PanicInDrop] {
        let gate = Unruly::new(move |_, _| act);
        let (engine, clock) = gated(&gate).await;
        let id = in_waves(&engine).await;
        gate.begun(1).await;
        engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
        wait(&engine, &id).await;
        let mut dropped = std::pin::pin!(within(gate.ended.acquire()));
        tokio::select! {
            dropped = &mut dropped => dropped.expect("never closed").forget(),
            // The question sleeps until the time for the answer is over, long after the scheduler's next look.
            () = clock.sleeping(2) => {
                clock.advance(Duration::from_secs(31));
                dropped.await.expect("never closed").forget();
            }
        }
    }
}

#[tokio::test]
async fn more_questions_than_are_asked_at_a_time_have_their_turn() {
    const HUNG: u32 = 16;
    let gate = Unruly::new(|number, question| match (number, question) {
        (0..16, 0) => Act::Hang,
        _ => Act::Proceed,
    });
    let (engine, clock) = gated(&gate).await;
    let mut ids = Vec::new();
    for _ in 0..HUNG + 4 {
        ids.push(in_waves(&engine).await);
    }
    gate.begun(HUNG).await;
    for id in ids {
        assert_eq!(ended(&engine, &clock, id).await, InvocationStatus::Success);
    }
}

#[tokio::test]
async fn no_question_outlives_its_engine() {
    for act in [Act::Hang, Act::PanicInDrop] {
        let gate = Unruly::new(move |_, _| act);
        let (engine, _clock) = gated(&gate).await;
        in_waves(&engine).await;
        gate.begun(1).await;
        within(engine.shutdown(Duration::ZERO)).await;
        assert_eq!(gate.ended.available_permits(), 1, "{act:?}");
    }
}

#[tokio::test]
async fn a_question_that_is_dropped_leaves_its_place_to_another_at_once() {
    const HUNG: u32 = 16;
    let gate = Unruly::new(|_, _| Act::Hang);
    let (engine, _clock) = gated(&gate).await;
    let mut ids = Vec::new();
    for _ in 0..HUNG {
        ids.push(in_waves(&engine).await);
    }
    gate.begun(HUNG).await;
    in_waves(&engine).await;
    for id in ids {
        engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
        wait(&engine, &id).await;
    }
    // Nobody moves the clock.
    gate.begun(1).await;
}

/// SQLite refuses each change of one fire.
#[tokio::test]
async fn a_decision_that_cannot_be_carried_out_holds_up_no_other_wave() {
    let (place, clock) = (Place::new(), clock());
    let gate = Unruly::new(|number, _| if number == 0 { Act::Hang } else { Act::Proceed });
    let engine = open(place.builder().wave_gate(gate.clone()), &clock).await;
    let first = in_waves(&engine).await;
    gate.begun(1).await;
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let second = in_waves(&engine).await;
    assert_eq!(wait(&engine, &second).await.status, InvocationStatus::Success);
    file.execute_batch(
        "CREATE TRIGGER refuses BEFORE UPDATE OF wave_at_ms ON fires
         WHEN old.wave_at_ms IS NOT NULL AND old.id = (SELECT min(id) FROM fires)
         BEGIN SELECT RAISE(ABORT, 'damaged'); END",
    )
    .expect("sound SQL");
    // The gate has not answered in time, which cannot be put down.
    within(clock.sleeping(2)).await;
    clock.advance(Duration::from_secs(61));
    for _ in 0..3 {
        let other = in_waves(&engine).await;
        assert_eq!(wait(&engine, &other).await.status, InvocationStatus::Success);
    }
    let told = within(engine.wait_status(&first)).await.expect_err("its next wave never comes");
    assert_eq!(told.code(), "Storage.Record", "{told}");
}

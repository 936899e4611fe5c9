//! Waits of a duration keep their length, whatever happens to the time of day.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    Clock, ClosureExecutor, DescribeInvocationResults, EndedWave, Engine, EngineBuilder,
    ExecutionStatus, InvocationResult, InvokeId, ManualClock, Notice, Retry, RunCommand,
    WaveDecision, WaveGate,
};
use chrono::TimeDelta;

use crate::recurrence::{clock, pass};
use crate::support::{Gate, Place, register, wait, within};
use ExecutionStatus::{Failed, Pending, Running, Scheduled, Success};

/// The steps by which a clock is set, in seconds.
const STEPS: [i64; 6] = [-3_600, 3_600, -86_400, 70 * 60, 400 * 86_400, -400 * 86_400];

/// When the clock is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Just before the wait begins, without a look of any loop since.
    JustBefore,
    /// During the run after which the wait begins.
    DuringTheRun,
    /// During the wait.
    During,
    /// During the wait, which another engine then continues.
    DuringAndRestart,
}

const WHENS: [When; 4] =
    [When::JustBefore, When::DuringTheRun, When::During, When::DuringAndRestart];

/// An engine whose executor `gate` holds the executions; scripts are `ok` or `fail`.
struct World {
    place: Place,
    clock: ManualClock,
    gate: Gate,
    waits: Option<Decisions>,
    engine: Engine,
}

/// A wave gate that makes the wave wait once, for 30 s.
#[derive(Clone, Default)]
struct Decisions(Arc<Mutex<bool>>);

impl WaveGate for Decisions {
    async fn decide(&self, _: EndedWave) -> WaveDecision {
        match std::mem::replace(&mut *self.0.lock().expect("nobody panics"), true) {
            false => WaveDecision::Wait(Duration::from_secs(30)),
            true => WaveDecision::Proceed,
        }
    }
}

impl World {
    async fn begin(waits: Option<Decisions>) -> Self {
        let (place, clock, gate) = (Place::new(), clock(), Gate::new());
        let engine = Self::open(&place, &clock, &gate, waits.as_ref()).await;
        Self { place, clock, gate, waits, engine }
    }

    async fn open(
        place: &Place,
        clock: &ManualClock,
        gate: &Gate,
        waits: Option<&Decisions>,
    ) -> Engine {
        let builder = Engine::builder().path(place.database()).clock(clock.clone());
        let held = gate.clone();
        let executor = ClosureExecutor::new(move |task, _| {
            let gate = held.clone();
            async move {
                gate.pass().await;
                Ok::<_, String>(i32::from(task.content() == b"fail"))
            }
        });
        let mut builder: EngineBuilder = builder.executor("gate", executor);
        if let Some(waits) = waits {
            builder = builder.wave_gate(waits.clone());
        }
        let engine = builder.open().await.expect("it opens");
        register(&engine, "gate", 2).await;
        engine
    }

    async fn reopen(&mut self) {
        within(self.engine.shutdown(Duration::ZERO)).await;
        let closed = Engine::open_in_memory().await.expect("memory");
        drop(std::mem::replace(&mut self.engine, closed));
        self.engine = Self::open(&self.place, &self.clock, &self.gate, self.waits.as_ref()).await;
    }

    fn set(&self, by: i64) {
        self.clock.set_realtime(self.clock.realtime() + TimeDelta::seconds(by));
    }

    async fn results(&self, id: InvokeId) -> Vec<InvocationResult> {
        let request =
            DescribeInvocationResults::default().invoke_id(id).include_history().max_results(50);
        let page = self.engine.describe_invocation_results(request).await.expect("it exists");
        let mut results = page.invocation.results;
        results.sort_by_key(|result| result.execution_id);
        results
    }

    async fn statuses(&self, id: InvokeId) -> Vec<ExecutionStatus> {
        self.results(id).await.iter().map(|result| result.status).collect()
    }

    async fn reaches(&self, id: InvokeId, want: &[ExecutionStatus]) {
        let reached = async {
            while self.statuses(id).await != want {
                tokio::task::yield_now().await;
            }
        };
        within(reached).await;
    }

    /// Lets an invocation wait for 30 s after its first run, sets the clock once, and checks when the invocation goes
    /// on.
    async fn check(
        mut self,
        request: RunCommand,
        first: ExecutionStatus,
        waiting: ExecutionStatus,
        (by, when): (i64, When),
    ) {
        let what = format!("{by} s {when:?}");
        // The scheduler sleeps, so it does not see that the clock is set.
        within(self.clock.sleeping(1)).await;
        let id = self.engine.run_command(request).await.expect("sound").invoke_id;
        within(self.gate.arrivals(1)).await;
        if when == When::DuringTheRun {
            self.set(by);
            pass(&self.clock, 40).await;
        } else if when == When::JustBefore {
            self.set(by);
        }
        self.gate.let_go(1);
        self.reaches(id, &[first, waiting]).await;
        // The decision of a wave gate may be on its way, too.
        within(self.clock.sleeping(1)).await;
        let settled = async {
            while self.waits.as_ref().is_some_and(|waits| !*waits.0.lock().expect("free")) {
                tokio::task::yield_now().await;
            }
        };
        within(settled).await;
        pass(&self.clock, 5).await;
        if matches!(when, When::During | When::DuringAndRestart) {
            self.set(by);
        }
        if when == When::DuringAndRestart {
            pass(&self.clock, 1).await;
            self.reopen().await;
        }
        pass(&self.clock, 20).await;
        assert_eq!(self.statuses(id).await, [first, waiting], "{what}");
        assert_eq!(self.gate.waiting(), 0, "{what}");
        for _ in 0..6 {
            pass(&self.clock, 1).await;
        }
        within(self.gate.arrivals(1)).await;
        self.gate.let_go(1);
        wait(&self.engine, &id).await;
    }
}

#[tokio::test]
async fn another_attempt_comes_after_its_wait_whatever_happens_to_the_clock() {
    for when in WHENS {
        for by in STEPS {
            let world = World::begin(None).await;
            let retry = Retry::attempts(2).backoff(30);
            let request = RunCommand::shell("fail").on(["i-1"]).timeout(1_000).retry(retry);
            world.check(request, Failed, Scheduled, (by, when)).await;
        }
    }
}

#[tokio::test]
async fn a_wave_comes_after_its_soak_whatever_happens_to_the_clock() {
    for when in WHENS {
        for by in STEPS {
            let world = World::begin(None).await;
            let request = RunCommand::shell("ok").on(["i-1", "i-2"]).timeout(1_000);
            let request = request.waves([1, 2]).wave_soak(30);
            world.check(request, Success, Pending, (by, when)).await;
        }
    }
}

#[tokio::test]
async fn a_gate_that_waits_is_asked_again_after_that_time_whatever_happens_to_the_clock() {
    for when in WHENS {
        for by in STEPS {
            let world = World::begin(Some(Decisions::default())).await;
            let request = RunCommand::shell("ok").on(["i-1", "i-2"]).timeout(1_000);
            world.check(request.waves([1, 2]), Success, Pending, (by, when)).await;
        }
    }
}

#[tokio::test]
async fn an_engine_whose_clock_was_set_back_while_none_ran_waits_no_longer_than_was_said() {
    for by in [-3_600, -400 * 86_400] {
        let mut world = World::begin(None).await;
        let retry = Retry::attempts(2).backoff(30);
        let request = RunCommand::shell("fail").on(["i-1"]).timeout(1_000).retry(retry);
        let id = world.engine.run_command(request).await.expect("sound").invoke_id;
        within(world.gate.arrivals(1)).await;
        world.gate.let_go(1);
        world.reaches(id, &[Failed, Scheduled]).await;
        within(world.engine.shutdown(Duration::ZERO)).await;
        world.set(by);
        world.reopen().await;
        pass(&world.clock, 31).await;
        within(world.gate.arrivals(1)).await;
        world.gate.let_go(1);
        wait(&world.engine, &id).await;
    }
}

#[tokio::test]
async fn the_time_of_another_attempt_is_told_by_the_clock_of_today() {
    for by in STEPS {
        let world = World::begin(None).await;
        let retry = Retry::attempts(2).backoff(3_000);
        let request = RunCommand::shell("fail").on(["i-1"]).timeout(1_000).retry(retry);
        let id = world.engine.run_command(request).await.expect("sound").invoke_id;
        within(world.gate.arrivals(1)).await;
        world.gate.let_go(1);
        world.reaches(id, &[Failed, Scheduled]).await;
        world.set(by);
        pass(&world.clock, 100).await;
        let told = world.results(id).await[1].retry_time.expect("it waits");
        assert_eq!(told, world.clock.realtime() + TimeDelta::seconds(2_900), "{by}");
    }
}

#[tokio::test]
async fn a_clock_that_is_set_changes_the_age_of_no_execution() {
    for by in STEPS {
        let (clock, gate) = (clock(), Gate::new());
        let builder = Engine::builder().clock(clock.clone()).max_concurrent(1);
        let engine = gate.plug_in(builder).open().await.expect("it opens");
        register(&engine, "gate", 1).await;
        let mut feed = engine.follow();
        let mut submitted = Vec::new();
        for priority in [5, 1, 9, 5, 0, 7] {
            let request = RunCommand::shell("x").on(["i-1"]).priority(priority).timeout(1_000);
            submitted.push((engine.run_command(request).await.expect("sound").invoke_id, priority));
            if submitted.len() == 1 {
                within(gate.arrivals(1)).await;
            }
            if submitted.len() == 3 {
                clock.set_realtime(clock.realtime() + TimeDelta::seconds(by));
            }
        }
        gate.let_go(6);
        let mut started = Vec::new();
        while started.len() < 6 {
            let notice = within(feed.next()).await;
            if let Some(Notice::Status { invoke_id, status: Running, .. }) = notice {
                let of = submitted.iter().find(|(id, _)| *id == invoke_id).expect("ours");
                started.push(of.1);
            }
        }
        assert_eq!(started, [5, 9, 7, 5, 1, 0], "{by}");
    }
}

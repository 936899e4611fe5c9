//! How an engine ends: by a shutdown, by a panic of the host's code, and when its runtime is gone.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use adjutant::{
    AgentStatus, Clock, ClosureExecutor, Engine, EngineBuilder, EngineEnd, Error, Event,
    ExecutionContext, ExecutionStatus, Executor, Instance, InvocationStatus, InvokeId, Notice,
    Outcome, RunCommand, Sleep, StopInvocation, SystemClock, Task,
};
use chrono::{DateTime, Utc};
use tokio::runtime::{self, Runtime};

use crate::recurrence::clock;
use crate::support::{Gate, Place, register, run, wait, with_executors, within};

/// More time than a shutdown may take beyond its deadline, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

fn new_runtime() -> Runtime {
    runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

fn poll_once<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

async fn submit(engine: &Engine, script: &str) -> InvokeId {
    let request = RunCommand::shell(script).on(["i-1"]).timeout(60);
    engine.run_command(request).await.expect("a sound request").invoke_id
}

/// Checks that an engine has ended for a reason: requests are refused, and every wait returns.
async fn has_ended(engine: &Engine, waited_for: &InvokeId, why: &EngineEnd) {
    assert_eq!(&within(engine.closed()).await, why);
    // The end of the invocation may have come to disk just before the end of the engine.
    let told = within(engine.wait_status(waited_for)).await;
    assert!(
        matches!(&told, Err(Error::Ended(end)) if end == why)
            || matches!(told, Ok(InvocationStatus::Failed)),
        "{told:?}"
    );
    let refused = within(engine.run_command(RunCommand::shell("exit:0").on(["i-1"]))).await;
    assert!(matches!(&refused, Err(Error::Ended(end)) if end == why), "{refused:?}");
    let instance = Instance::new("i-9").executor("script");
    let refused = within(engine.register_instance(instance)).await;
    assert!(matches!(&refused, Err(Error::Ended(end)) if end == why), "{refused:?}");
    // The records can still be read.
    engine.describe_invocations(Default::default()).await.expect("a page");
    within(engine.shutdown(Duration::ZERO)).await;
    assert_eq!(&within(engine.closed()).await, why);
}

/// Checks the record that the next engine makes of an execution that was cut off.
async fn is_recorded_as_cut_off(place: &Place, invoke_id: &InvokeId) {
    let next = place.builder().idle().open().await.expect("the file is free");
    let finished = wait(&next, invoke_id).await;
    assert_eq!(finished.results[0].status, ExecutionStatus::Error);
    assert_eq!(finished.results[0].error_code, "ExecutionInterrupted");
}

#[test]
fn an_engine_whose_runtime_is_gone_refuses_requests_and_ends_waits() {
    let place = Place::new();
    let (first, second) = (new_runtime(), new_runtime());
    let gate = Gate::new();
    let (engine, invoke_id) = first.block_on(async {
        let engine = gate.plug_in(place.builder()).open().await.expect("a new file opens");
        register(&engine, "gate", 1).await;
        let invoke_id = submit(&engine, "x").await;
        within(gate.arrivals(1)).await;
        (engine, invoke_id)
    });
    let waits = second.spawn({
        let engine = engine.clone();
        async move { engine.wait(&invoke_id).await }
    });
    let closed = second.spawn(engine.closed());
    let mut watch = second.block_on(engine.watch(&invoke_id)).expect("it exists");
    let watches = second.spawn(async move {
        loop {
            match watch.next().await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    });
    first.shutdown_timeout(SOON);
    second.block_on(async {
        let told = within(waits).await.expect("no panic").expect_err("it is cut off");
        assert!(matches!(told, Error::Ended(EngineEnd::RuntimeGone)), "{told}");
        let told = within(watches).await.expect("no panic").expect_err("it is cut off");
        assert!(matches!(told, Error::Ended(EngineEnd::RuntimeGone)), "{told}");
        assert_eq!(within(closed).await.expect("no panic"), EngineEnd::RuntimeGone);
        has_ended(&engine, &invoke_id, &EngineEnd::RuntimeGone).await;
        drop(engine);
        is_recorded_as_cut_off(&place, &invoke_id).await;
    });
}

#[test]
fn opening_names_the_driver_that_the_runtime_lacks() {
    let check = |build: fn(&mut runtime::Builder) -> &mut runtime::Builder, lacks: &str| {
        for mut builder in
            [runtime::Builder::new_current_thread(), runtime::Builder::new_multi_thread()]
        {
            let runtime = build(&mut builder).build().expect("a runtime");
            let opened = runtime.block_on(Engine::open_in_memory());
            let error = opened.map(drop).expect_err("something is missing");
            assert!(matches!(error, Error::Runtime(_)), "{error}");
            assert!(error.to_string().contains(lacks), "{error}");
        }
    };
    check(|builder| builder.enable_io(), "`enable_time`");
    check(|builder| builder.enable_time(), "`enable_io`");
    check(|builder| builder, "`enable_time`");
    let mut outside = Box::pin(Engine::open_in_memory());
    let Poll::Ready(Err(error)) = poll_once(outside.as_mut()) else { panic!("it needs a runtime") };
    assert!(matches!(error, Error::Runtime(_)), "{error}");
    assert!(error.to_string().contains("no tokio runtime"), "{error}");
}

/// The system's clock, which panics once it is broken.
#[derive(Clone)]
struct Fragile {
    system: SystemClock,
    what: What,
    is_broken: Arc<AtomicBool>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Realtime,
    Monotonic,
    Sleep,
    Slept,
}

impl Fragile {
    fn new(what: What) -> Self {
        Self { system: SystemClock::default(), what, is_broken: Arc::default() }
    }

    fn look(&self, at: What) {
        let breaks = at == self.what && self.is_broken.load(Ordering::Relaxed);
        assert!(!breaks, "as told");
    }
}

impl Clock for Fragile {
    fn realtime(&self) -> DateTime<Utc> {
        self.look(What::Realtime);
        self.system.realtime()
    }

    fn monotonic(&self) -> Duration {
        self.look(What::Monotonic);
        self.system.monotonic()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.look(What::Sleep);
        let (clock, sleep) = (self.clone(), self.system.sleep(duration));
        Box::pin(async move {
            clock.look(What::Slept);
            sleep.await;
        })
    }
}

#[tokio::test]
async fn a_clock_that_panics_ends_the_engine_and_its_waits() {
    let check = async |what: What| {
        let (place, clock, gate) = (Place::new(), Fragile::new(what), Gate::new());
        let builder = gate.plug_in(place.builder()).clock(clock.clone());
        let engine = builder.open().await.expect("the file opens");
        register(&engine, "script", 1).await;
        let held = Instance::new("held").executor("gate");
        engine.register_instance(held).await.expect("sound");
        let hangs = submit(&engine, "hang").await;
        let held = RunCommand::shell("x").on(["held"]);
        engine.run_command(held).await.expect("sound");
        within(gate.arrivals(1)).await;
        clock.is_broken.store(true, Ordering::Relaxed);
        // The dispatcher asks for the time of an end, the scheduler for the time of its look, and the caller for the
        // time of its request.
        gate.let_go(1);
        let _ = engine.run_command(RunCommand::shell("hang").on(["i-1"]).timeout(60)).await;
        let _ = engine.pause_invocation(&hangs).await;
        let why = EngineEnd::Panicked { part: "the host's clock", message: "as told".to_owned() };
        has_ended(&engine, &hangs, &why).await;
        drop(engine);
        is_recorded_as_cut_off(&place, &hangs).await;
    };
    for what in [What::Realtime, What::Monotonic, What::Sleep, What::Slept] {
        check(what).await;
    }
}

struct PanicsDropped;

impl PanicsDropped {
    /// Makes a closure capture the value.
    fn held(&self) {}
}

impl Drop for PanicsDropped {
    fn drop(&mut self) {
        panic!("as it is dropped");
    }
}

/// Holds the writing thread until the returned sender is dropped.
async fn hold_the_writing_thread(engine: &Engine) -> std::sync::mpsc::Sender<()> {
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (has_it, had) = tokio::sync::oneshot::channel();
    let engine = engine.clone();
    tokio::spawn(async move {
        let hold = move |_: &adjutant::HostTransaction<'_>| {
            let _ = has_it.send(());
            let _ = held.recv();
            Ok(())
        };
        let _ = engine.write(hold).await;
    });
    within(had).await.expect("the thread has it");
    let_go
}

#[tokio::test]
async fn a_write_whose_values_panic_as_they_are_dropped_ends_nothing() {
    let engine = crate::support::engine().await;
    // No caller takes the result of the write.
    let let_go = hold_the_writing_thread(&engine).await;
    let mut dropped = Box::pin(engine.write(|_| Ok(PanicsDropped)));
    assert!(poll_once(dropped.as_mut()).is_pending());
    drop(dropped);
    drop(let_go);
    assert_eq!(run(&engine, "exit:0", &["i-1"]).await.status, InvocationStatus::Success);
    // The captured value is dropped as the closure returns.
    let captured = PanicsDropped;
    let write = engine.write(move |_| {
        captured.held();
        Ok(())
    });
    within(write).await.expect_err("the closure panics");
    assert_eq!(run(&engine, "exit:0", &["i-1"]).await.status, InvocationStatus::Success);
    // The value is the payload of a panic.
    let write = engine
        .write(|_| -> Result<(), adjutant::HostError> { std::panic::panic_any(PanicsDropped) });
    within(write).await.expect_err("it panics");
    assert_eq!(run(&engine, "exit:0", &["i-1"]).await.status, InvocationStatus::Success);
}

#[tokio::test]
async fn a_shutdown_that_is_dropped_keeps_its_deadline() {
    let clock = clock();
    let builder = with_executors(Engine::builder()).clock(clock.clone());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let request = RunCommand::shell("hang").on(["i-1"]).timeout(86_400);
    let invoke_id = engine.run_command(request).await.expect("sound").invoke_id;
    // The scheduler sleeps, and the execution until its timeout.
    within(clock.sleeping(2)).await;
    for seconds in [3_600, 60, 7_200] {
        let mut shutdown = Box::pin(engine.shutdown(Duration::from_secs(seconds)));
        assert!(poll_once(shutdown.as_mut()).is_pending());
    }
    let mut closed = Box::pin(engine.closed());
    clock.advance(Duration::from_secs(59));
    assert!(poll_once(closed.as_mut()).is_pending());
    clock.advance(Duration::from_secs(1));
    assert_eq!(within(closed).await, EngineEnd::ShutDown);
    let result = wait(&engine, &invoke_id).await.results.remove(0);
    assert_eq!(result.error_code, "ExecutionInterrupted");
}

#[tokio::test]
async fn while_an_engine_drains_running_executions_may_write_and_be_stopped() {
    let (place, gate) = (Place::new(), Gate::new());
    let own = Arc::new(std::sync::OnceLock::<Engine>::new());
    let writes = ClosureExecutor::new({
        let (gate, own) = (gate.clone(), Arc::clone(&own));
        move |_task, _cx| {
            let (gate, own) = (gate.clone(), Arc::clone(&own));
            async move {
                gate.pass().await;
                let engine = own.get().expect("it is set");
                let insert = |tx: &adjutant::HostTransaction<'_>| {
                    tx.execute_batch("CREATE TABLE done (id INTEGER)")?;
                    Ok(())
                };
                engine.write(insert).await.map_err(|error| error.to_string())
            }
        }
    });
    let builder = place.builder().executor("writes", writes);
    let engine = builder.open().await.expect("the file opens");
    register(&engine, "script", 1).await;
    let instance = Instance::new("writer").executor("writes");
    engine.register_instance(instance).await.expect("sound");
    let repeats = RunCommand::shell("exit:0").on(["i-1"]).frequency("rate(1d)");
    let repeats = engine.run_command(repeats).await.expect("sound").invoke_id;
    let reboots =
        RunCommand::shell("exit:0").on(["i-1"]).repeat_mode(adjutant::RepeatMode::EveryReboot);
    engine.run_command(reboots).await.expect("sound");
    let hangs = submit(&engine, "hang").await;
    let ends = RunCommand::shell("x").on(["writer"]);
    let ends = engine.run_command(ends).await.expect("sound").invoke_id;
    within(gate.arrivals(1)).await;
    engine.instance_booted(&"i-1".into(), "first").await.expect("the boot it was made under");
    let _ = own.set(engine.clone());

    let mut shutdown = Box::pin(engine.shutdown(Duration::from_secs(3_600)));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    let is_refused =
        |what: Result<(), Error>| assert!(matches!(what, Err(Error::ShuttingDown)), "{what:?}");
    is_refused(engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.map(drop));
    is_refused(engine.run_now(&repeats).await.map(drop));
    is_refused(engine.instance_booted(&"i-1".into(), "second").await);
    engine.instance_booted(&"writer".into(), "second").await.expect("nothing waits for it");
    engine.instance_seen(&"i-1".into(), AgentStatus::Online).await.expect("it is there");
    engine.register_instance(Instance::new("i-2").executor("script")).await.expect("sound");
    engine.pause_invocation(&repeats).await.expect("it repeats");
    engine.stop_invocation(StopInvocation::new(hangs)).await.expect("it runs");
    assert_eq!(wait(&engine, &hangs).await.status, InvocationStatus::Stopped);
    gate.let_go(1);
    assert_eq!(wait(&engine, &ends).await.status, InvocationStatus::Success);
    within(shutdown).await;
    let refused = engine.register_instance(Instance::new("i-3").executor("script")).await;
    assert!(matches!(refused, Err(Error::ShuttingDown)), "{refused:?}");
    assert_eq!(within(engine.closed()).await, EngineEnd::ShutDown);
}

/// An executor that ignores stops.
#[derive(Clone, Copy)]
enum Deaf {
    Waits,
    BlocksItsThread,
}

impl Executor for Deaf {
    async fn execute(&self, _: Task, cx: ExecutionContext) -> Outcome {
        cx.print(adjutant::Stream::Stdout, b"up");
        match self {
            Self::Waits => std::future::pending().await,
            Self::BlocksItsThread => loop {
                std::thread::park();
            },
        }
    }
}

#[test]
fn a_shutdown_holds_its_deadline_whatever_executors_do() {
    let check = |executor: Deaf, deadline: Duration| {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(async {
            let builder = Engine::builder().executor("deaf", executor);
            let engine = builder.open().await.expect("an engine");
            register(&engine, "deaf", 1).await;
            let request = RunCommand::shell("x").on(["i-1"]);
            let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
            while !matches!(
                within(watch.next()).await.expect("readable"),
                Some(adjutant::Event::Output { .. })
            ) {}
            let began = Instant::now();
            engine.shutdown(deadline).await;
            let took = began.elapsed();
            assert!(took >= deadline && took < deadline + SOON, "{took:?}");
            let result = wait(&engine, &run.invoke_id).await.results.remove(0);
            assert_eq!(result.status, ExecutionStatus::Error);
            assert_eq!(result.error_code, "ExecutionInterrupted");
            assert!(result.error_info.contains("did not stop in time"), "{}", result.error_info);
        });
        runtime.shutdown_background();
    };
    check(Deaf::Waits, Duration::ZERO);
    check(Deaf::Waits, Duration::from_millis(200));
    check(Deaf::BlocksItsThread, Duration::ZERO);
}

#[tokio::test]
async fn a_reader_that_is_shut_down_ends_its_waits_and_watches() {
    let place = Place::new();
    let owner = place.open().await;
    let hangs = submit(&owner, "hang").await;
    // The reader's clock stands still, so the reader never looks again by itself.
    let reader = Engine::builder().path(place.database()).read_only().clock(clock());
    let reader = reader.open().await.expect("reading is possible");
    let waits = tokio::spawn({
        let reader = reader.clone();
        async move { reader.wait(&hangs).await }
    });
    let mut watch = reader.watch(&hangs).await.expect("it exists");
    let mut told = Vec::new();
    let watches = async {
        while let Some(event) = watch.next().await.expect("readable") {
            told.push(event);
        }
    };
    tokio::select! {
        biased;
        () = within(watches) => {}
        () = async {
            tokio::task::yield_now().await;
            reader.shutdown(Duration::from_secs(3_600)).await;
            std::future::pending().await
        } => {}
    }
    let told = within(waits).await.expect("no panic").expect_err("it has not ended");
    assert!(matches!(told, Error::ShuttingDown), "{told}");
    assert_eq!(within(reader.closed()).await, EngineEnd::ShutDown);
}

#[test]
fn an_engine_may_be_dropped_anywhere() {
    let open = |runtime: &Runtime, place: &Place| {
        runtime.block_on(async {
            let engine = place.open().await;
            let closed = engine.closed();
            run(&engine, "exit:0", &["i-1"]).await;
            (engine, closed)
        })
    };
    let check = |drop_it: fn(Engine)| {
        let (place, runtime) = (Place::new(), new_runtime());
        let (engine, closed) = open(&runtime, &place);
        std::thread::spawn(move || drop_it(engine)).join().expect("no panic gets out");
        assert_eq!(runtime.block_on(within(closed)), EngineEnd::ShutDown);
        // The file is free as soon as the loops of the engine have ended.
        runtime.block_on(async { drop(place.open().await) });
    };
    check(drop);
    check(|engine| {
        let unwinds = catch_unwind(AssertUnwindSafe(move || {
            let _dropped_by_it = engine;
            panic!("the host's");
        }));
        assert!(unwinds.is_err());
    });
    // The runtime may be gone before the engine is dropped.
    let (place, first, second) = (Place::new(), new_runtime(), new_runtime());
    let (engine, closed) = open(&first, &place);
    drop(first);
    assert_eq!(second.block_on(within(closed)), EngineEnd::RuntimeGone);
    drop(engine);
    let (engine, closed) = open(&second, &place);
    drop(engine);
    assert_eq!(second.block_on(within(closed)), EngineEnd::ShutDown);
}

#[test]
fn an_engine_on_one_thread_ends_like_any_other() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (closed, invoke_id, place) = runtime.block_on(async {
        let place = Place::new();
        let engine = place.open().await;
        let invoke_id = submit(&engine, "hang").await;
        let closed = engine.closed();
        within(engine.shutdown(Duration::from_millis(1))).await;
        let result = wait(&engine, &invoke_id).await.results.remove(0);
        assert_eq!(result.error_code, "ExecutionInterrupted");
        assert_eq!(within(closed).await, EngineEnd::ShutDown);
        drop(engine);
        let engine = place.open().await;
        let invoke_id = submit(&engine, "hang").await;
        (engine.closed(), invoke_id, place)
    });
    // The engine is dropped, and its runtime before the loops have ended.
    drop(runtime);
    let runtime = new_runtime();
    assert_eq!(runtime.block_on(within(closed)), EngineEnd::RuntimeGone);
    runtime.block_on(is_recorded_as_cut_off(&place, &invoke_id));
}

/// Hooks run in calls of the host, and the host's task must survive their panics.
#[tokio::test]
async fn a_hook_that_panics_refuses_its_call() {
    struct Panics;
    impl adjutant::Authorizer for Panics {
        async fn authorize(&self, _: adjutant::Action) -> Result<(), String> {
            panic!("as told")
        }
    }
    let open =
        |builder: EngineBuilder| async { with_executors(builder).open().await.expect("an engine") };
    let engine = open(Engine::builder().authorizer(Panics)).await;
    let refused = engine.quotas().await.expect_err("nobody permits it");
    assert!(
        matches!(&refused, Error::Host(why) if why.to_string().contains("as told")),
        "{refused}"
    );
}

/// A server whose streams wait for a run has to end before the run has ended.
#[tokio::test]
async fn streams_can_end_when_a_shutdown_begins() {
    let gate = Gate::new();
    let engine = gate.plug_in(Engine::builder()).open().await.expect("an engine");
    register(&engine, "gate", 1).await;
    let request = RunCommand::shell("x").on(["i-1"]);
    let (run, mut whole) = engine.run_command_and_watch(request).await.expect("a sound request");
    let mut until = engine.watch(&run.invoke_id).await.expect("it runs").until_closing();
    let (mut whole_feed, mut until_feed) = (engine.follow(), engine.follow().until_closing());
    within(gate.arrivals(1)).await;
    let mut closing = Box::pin(engine.closing());
    assert!(poll_once(closing.as_mut()).is_pending());
    // Notices of the start may still come.
    let notice = poll_once(Box::pin(until_feed.next()).as_mut());
    assert!(!matches!(notice, Poll::Ready(None)));
    let shutdown = tokio::spawn({
        let engine = engine.clone();
        async move { engine.shutdown(Duration::from_secs(3_600)).await }
    });
    within(closing).await;
    let mut late = engine.watch(&run.invoke_id).await.expect("it runs").until_closing();
    for watch in [&mut until, &mut late] {
        let ends = async { while watch.next().await.expect("sound").is_some() {} };
        within(ends).await;
    }
    within(async { while until_feed.next().await.is_some() {} }).await;
    assert_eq!(within(engine.follow().until_closing().next()).await, None);
    // The run has the time that the shutdown gives it, and its end is told.
    gate.let_go(1);
    let mut last = None;
    while let Some(event) = within(whole.next()).await.expect("sound") {
        last = Some(event);
    }
    assert_eq!(last, Some(Event::Finished { status: InvocationStatus::Success }));
    let mut is_told = false;
    while let Some(notice) = within(whole_feed.next()).await {
        is_told |= matches!(notice, Notice::Finished { .. });
    }
    assert!(is_told);
    within(shutdown).await.expect("no panic");
    within(engine.closing()).await;
}

#[tokio::test]
async fn an_engine_that_ends_by_itself_is_closing() {
    let runtime = std::thread::spawn(|| {
        let runtime = new_runtime();
        let engine = runtime.block_on(Engine::open_in_memory()).expect("an engine");
        runtime.shutdown_timeout(SOON);
        engine
    });
    let engine = runtime.join().expect("no panic");
    within(engine.closing()).await;
    assert_eq!(within(engine.closed()).await, EngineEnd::RuntimeGone);
}

//! What the dispatcher promises: who starts, who waits, and what is never called.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adjutant::{
    ClosureExecutor, Engine, ExecutionStatus, HostTransaction, Instance, RunCommand, StopInvocation,
};

use crate::support::{Gate, Place, wait, within};

/// Lets everything go on that can: the engine shares the one thread of the test.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// The claim of an execution and its stop wait for the disk together, in this order. The executor counts how
/// often it is polled.
#[tokio::test]
async fn nothing_is_polled_whose_stop_is_on_disk() {
    let (gate, polled) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let counts = Arc::clone(&polled);
    let counting = ClosureExecutor::new(move |_task, _cx| {
        counts.fetch_add(1, Ordering::AcqRel);
        async { Ok::<_, String>(0) }
    });
    let place = Place::new();
    let builder = gate.plug_in(Engine::builder().path(place.database()));
    let builder = builder.executor("counts", counting).max_concurrent(1);
    let engine = builder.open().await.expect("the file opens");
    for (name, executor) in [("holds", "gate"), ("counts", "counts")] {
        let instance = Instance::new(name).executor(executor);
        engine.register_instance(instance).await.expect("a sound instance");
    }
    let mut met = 0;
    for _ in 0..20 {
        let held = engine.run_command(RunCommand::shell("x").on(["holds"])).await.expect("sound");
        within(gate.arrivals(1)).await;
        let waits = engine.run_command(RunCommand::shell("x").on(["counts"])).await.expect("sound");
        settle().await;
        // The writing thread is held until the claim and the stop wait for it.
        let (let_go, until) = std::sync::mpsc::channel::<()>();
        let holder = engine.clone();
        let holding = tokio::spawn(async move {
            let hold = move |_: &HostTransaction<'_>| {
                let _: Result<(), _> = until.recv();
                Ok(())
            };
            holder.write(hold).await
        });
        settle().await;
        gate.let_go(1);
        settle().await;
        let (stopper, id) = (engine.clone(), waits.invoke_id);
        let stopping =
            tokio::spawn(async move { stopper.stop_invocation(StopInvocation::new(id)).await });
        settle().await;
        drop(let_go);
        within(holding).await.expect("no panic").expect("nothing is wrong with it");
        within(stopping).await.expect("no panic").expect("it has not ended");
        wait(&engine, &held.invoke_id).await;
        let finished = wait(&engine, &waits.invoke_id).await;
        let result = &finished.results[0];
        assert_eq!(polled.load(Ordering::Acquire), 0, "polled after its stop: {result:?}");
        met += usize::from(result.status == ExecutionStatus::Terminated);
    }
    assert!(met > 0, "no stop came after its claim");
    within(engine.shutdown(std::time::Duration::ZERO)).await;
}

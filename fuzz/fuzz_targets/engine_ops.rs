//! Laws, whatever is called in whatever order: no call panics; every invocation that was accepted
//! ends; each of its targets has exactly one record; a watcher is told of the end.
#![no_main]

use adjutant::{
    ClosureExecutor, Engine, EngineBuilder, Event, Instance, InstanceId, InvokeId, RunCommand,
    StopInvocation, Stream,
};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Op {
    Register { instance: u8 },
    Remove { instance: u8 },
    Run { script: Vec<u8>, on: Vec<u8>, timeout: u16, keep: bool },
    Stop { invocation: u8, on: Vec<u8> },
    Yield,
}

fn name(instance: u8) -> String {
    format!("i-{}", instance % 5)
}

fn engine() -> EngineBuilder {
    // Prints what it is given; its first byte says how it ends.
    let executor = ClosureExecutor::new(|task, cx| async move {
        cx.print(Stream::Stdout, task.content());
        match task.content().first() {
            Some(0..=63) => std::future::pending().await,
            Some(64..=127) => tokio::task::yield_now().await,
            _ => {}
        }
        i32::from(task.content().first().is_some_and(|first| first % 2 == 1))
    });
    Engine::builder().max_concurrent(2).executor("fuzz", executor)
}

async fn play(ops: Vec<Op>) {
    let engine = engine().open().await.expect("an engine in memory");
    let mut runs: Vec<(InvokeId, usize)> = Vec::new();
    for op in ops {
        match op {
            Op::Register { instance } => {
                let instance = Instance::new(name(instance)).executor("fuzz");
                engine.register_instance(instance).await.expect("a sound instance");
            }
            Op::Remove { instance } => {
                let _ = engine.remove_instance(&InstanceId::from(name(instance))).await;
            }
            Op::Run { script, on, timeout, keep } => {
                let request = RunCommand::shell(&script).on(on.iter().map(|n| name(*n)));
                let request = request.name("fuzz").timeout(timeout.into());
                let request = if keep { request.keep() } else { request };
                if let Ok(run) = engine.run_command(request).await {
                    runs.push((run.invoke_id, on.len()));
                }
            }
            Op::Stop { invocation, on } => {
                if let Some((id, _)) = runs.get(usize::from(invocation)) {
                    let stop = StopInvocation::new(*id).on(on.iter().map(|n| name(*n)));
                    let _ = engine.stop_invocation(stop).await;
                }
            }
            Op::Yield => tokio::task::yield_now().await,
        }
    }
    for (id, targets) in runs {
        engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
        let finished = engine.wait(&id).await.expect("it ends");
        assert_eq!(finished.results.len(), targets);
        assert!(finished.status.is_final());
        let mut watch = engine.watch(&id).await.expect("it exists");
        let mut last = None;
        while let Some(event) = watch.next().await.expect("readable") {
            last = Some(event);
        }
        assert_eq!(last, Some(Event::Finished { status: finished.status }));
    }
}

fuzz_target!(|ops: Vec<Op>| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(play(ops));
});

//! A host whose subscriber and recorder panic at every call. This test is a program of its own, because a process has
//! one subscriber and one recorder.

use std::panic;
use std::time::Duration;

use adjutant::{
    ClosureExecutor, Engine, EngineEnd, ExecutionStatus, Instance, InvocationStatus, RunCommand,
    StopInvocation,
};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

struct Panics;

impl Subscriber for Panics {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("adjutant")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        panic!("a span")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        panic!("a record")
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {
        panic!("a link")
    }

    fn event(&self, _: &Event<'_>) {
        panic!("an event")
    }

    fn enter(&self, _: &Id) {
        panic!("an entry")
    }

    fn exit(&self, _: &Id) {
        panic!("an exit")
    }
}

#[cfg(feature = "metrics")]
mod recorder {
    use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};

    pub struct Panics;

    impl metrics::Recorder for Panics {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
            panic!("a counter")
        }

        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
            panic!("a gauge")
        }

        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {
            panic!("a histogram")
        }

        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            panic!("a counter")
        }

        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            panic!("a gauge")
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            panic!("a histogram")
        }
    }
}

#[tokio::test]
async fn a_subscriber_and_a_recorder_that_panic_keep_the_engine_from_nothing() {
    // Without this hook each panic would print a page of text.
    panic::set_hook(Box::new(|_| {}));
    tracing::subscriber::set_global_default(Panics).expect("the only one");
    #[cfg(feature = "metrics")]
    metrics::set_global_recorder(recorder::Panics).map_err(drop).expect("the only one");
    let script = ClosureExecutor::new(async |task, _cx| match task.content() {
        b"hang" => std::future::pending().await,
        b"fail" => 1,
        _ => 0,
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The log of a file that is gone: the engine reports this as it opens.
    for (name, text) in [("foreign.db", ""), ("foreign.db-wal", "of another file")] {
        std::fs::write(folder.path().join(name), text).expect("written");
    }
    let foreign = Engine::builder().path(folder.path().join("foreign.db"));
    let foreign = foreign.executor("script", ClosureExecutor::new(async |_, _| 0)).open().await;
    foreign.expect("it opens").shutdown(Duration::from_secs(5)).await;
    assert!(folder.path().join("foreign.db-wal.foreign-1").exists(), "it was set aside");
    let builder = Engine::builder().path(folder.path().join("adjutant.db"));
    let engine = builder.executor("script", script).open().await.expect("it opens");
    for id in ["i-1", "i-2"] {
        engine.register_instance(Instance::new(id).executor("script")).await.expect("sound");
    }
    let submit = async |script: &str| {
        let request = RunCommand::shell(script).on(["i-1", "i-2"]);
        engine.run_command(request).await.expect("a sound request").invoke_id
    };
    let check = async |invoke_id, want| {
        let ended = tokio::time::timeout(Duration::from_secs(30), engine.wait(&invoke_id)).await;
        assert_eq!(ended.expect("it ends").expect("the engine runs").status, want);
    };
    check(submit("done").await, InvocationStatus::Success).await;
    check(submit("fail").await, InvocationStatus::Failed).await;
    let hangs = submit("hang").await;
    engine.stop_invocation(StopInvocation::new(hangs)).await.expect("it runs");
    check(hangs, InvocationStatus::Stopped).await;
    let repeats = RunCommand::shell("done").on(["i-1"]).frequency("rate(1d)");
    let repeats = engine.run_command(repeats).await.expect("sound").invoke_id;
    engine.run_now(&repeats).await.expect("it repeats");
    check(submit("done").await, InvocationStatus::Success).await;
    assert_eq!(engine.metrics().ended.get(ExecutionStatus::Failed), 2);
    engine.shutdown(Duration::from_secs(5)).await;
    assert_eq!(engine.closed().await, EngineEnd::ShutDown);
}

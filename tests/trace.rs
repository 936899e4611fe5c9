//! What `tracing` is told of an execution. By itself, for what other threads do not listen to would be
//! told to nobody.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use adjutant::{
    Action, Authorizer, ClosureExecutor, Engine, Instance, Operation, RunCommand, StopInvocation,
};
use tokio::sync::Notify;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Writes down what is told: events with the span they are in.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    spans: Vec<String>,
    /// By the thread, what it is in.
    entered: HashMap<ThreadId, Vec<u64>>,
    lines: Vec<String>,
}

struct Words<'a>(&'a mut String);

impl Visit for Words<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Ids and times differ from run to run.
        match field.name() {
            "message" => *self.0 += &format!(" {value:?}"),
            name @ ("invoke_id" | "duration_ms") => *self.0 += &format!(" {name}"),
            name => *self.0 += &format!(" {name}={value:?}"),
        }
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("adjutant")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut heard = self.0.lock().expect("not poisoned");
        let mut words = span.metadata().name().to_owned();
        span.record(&mut Words(&mut words));
        heard.spans.push(words);
        Id::from_u64(heard.spans.len() as u64)
    }

    fn event(&self, event: &Event<'_>) {
        let mut heard = self.0.lock().expect("not poisoned");
        let mut line = String::new();
        event.record(&mut Words(&mut line));
        if let Some(span) =
            heard.entered.get(&thread::current().id()).and_then(|spans| spans.last())
        {
            line = format!("{line} in {}", heard.spans[*span as usize - 1]);
        }
        heard.lines.push(line.trim().to_owned());
    }

    fn enter(&self, id: &Id) {
        let mut heard = self.0.lock().expect("not poisoned");
        heard.entered.entry(thread::current().id()).or_default().push(id.into_u64());
    }

    fn exit(&self, _: &Id) {
        let mut heard = self.0.lock().expect("not poisoned");
        heard.entered.entry(thread::current().id()).or_default().pop();
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

#[tokio::test]
async fn who_listens_hears_of_each_step_of_an_execution() {
    let listener = Listener::default();
    tracing::subscriber::set_global_default(listener.clone()).expect("the only one");
    let script = ClosureExecutor::new(async |_, _| {
        tracing::info!(target: "adjutant_host", "the host is at work");
        3
    });
    let engine = Engine::builder().executor("script", script).open().await.expect("it opens");
    engine.register_instance(Instance::new("i-2").executor("script")).await.expect("sound");
    let run = engine.run_command(RunCommand::shell("x").on(["i-2"])).await.expect("sound");
    engine.wait(&run.invoke_id).await.expect("it ends");
    let lines = listener.0.lock().expect("not poisoned").lines.clone();
    let check = |line: &str| assert!(lines.iter().any(|one| one == line), "{line}: {lines:#?}");
    let span = "execution invoke_id execution_id=1 instance_id=i-2 attempt=1";
    check("an invocation is stored operation=RunCommand invoke_id");
    check("executions are claimed count=1 fires=1");
    check(&format!("the executor is called resumed=false in {span}"));
    check(&format!("the host is at work in {span}"));
    check(
        "an execution has ended invoke_id execution_id=1 instance_id=i-2 attempt=1 status=Failed duration_ms",
    );
    // An execution is stopped while the host is asked whether it may start.
    let asked = Arc::new(Notify::new());
    let never = ClosureExecutor::new(async |_, _| -> i32 { panic!("the executor was called") });
    let builder = Engine::builder().executor("never", never).authorizer(Asked(Arc::clone(&asked)));
    let engine = builder.open().await.expect("it opens");
    engine.register_instance(Instance::new("i-3").executor("never")).await.expect("sound");
    let run = engine.run_command(RunCommand::shell("x").on(["i-3"])).await.expect("sound");
    asked.notified().await;
    engine.stop_invocation(StopInvocation::new(run.invoke_id)).await.expect("it runs");
    engine.wait(&run.invoke_id).await.expect("it ends");
    let lines = listener.0.lock().expect("not poisoned").lines.clone();
    let called = |line: &&String| line.contains("is called") && line.contains("instance_id=i-3");
    assert_eq!(lines.iter().find(called), None, "told of a start that was none");
}

/// An authorizer that never says whether an execution may start.
struct Asked(Arc<Notify>);

impl Authorizer for Asked {
    async fn authorize(&self, action: Action) -> Result<(), String> {
        if action.operation == Operation::StartExecution {
            self.0.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

//! Which runs can go on when the host ends: a request that wants it where it cannot be is refused.

use std::sync::{Arc, Mutex};

use adjutant::{
    ClosureExecutor, DescribeInvocationResults, Engine, EngineBuilder, ExecutionContext,
    ExecutionStatus, Executor, Instance, LOCAL, Outcome, ProcessExecutor, RetryFailed, RunCommand,
    Task,
};
use serde_json::json;

use crate::recurrence::{clock, ended, open, pass};
use crate::support::{Place, ask, wait};

/// Passes each task on to processes, and remembers whether it survives.
struct Wrapper {
    inner: ProcessExecutor,
    seen: Arc<Mutex<Vec<bool>>>,
}

impl Executor for Wrapper {
    async fn execute(&self, task: Task, _cx: ExecutionContext) -> Outcome {
        self.seen.lock().expect("no panic").push(task.survives_restarts());
        Outcome::Exited(3)
    }

    fn can_survive_restarts(&self) -> bool {
        self.inner.can_survive_restarts()
    }
}

/// An executor whose answer to that question panics.
struct Panics;

impl Executor for Panics {
    async fn execute(&self, _task: Task, _cx: ExecutionContext) -> Outcome {
        Outcome::Exited(0)
    }

    fn can_survive_restarts(&self) -> bool {
        panic!("as told")
    }
}

fn plug_in(builder: EngineBuilder, seen: &Arc<Mutex<Vec<bool>>>) -> EngineBuilder {
    let wrapper = Wrapper { inner: ProcessExecutor::new(), seen: Arc::clone(seen) };
    let builder = builder.executor("wrapper", wrapper).executor("panics", Panics);
    builder.executor("closure", ClosureExecutor::new(async |_, _| ()))
}

async fn register(engine: &Engine) {
    for name in ["wrapper", "panics", "closure"] {
        let instance = Instance::new(name).executor(name);
        engine.register_instance(instance).await.expect("sound");
    }
}

#[tokio::test]
async fn a_run_that_cannot_survive_is_refused_when_it_is_asked_for() {
    let seen = Arc::default();
    let place = Place::new();
    let on_file = plug_in(Engine::builder().path(place.database()), &seen).open().await;
    let on_file = on_file.expect("the file opens");
    let in_memory = plug_in(Engine::builder(), &seen).open().await.expect("an engine");
    register(&on_file).await;
    register(&in_memory).await;
    let check = async |engine: &Engine, on: &[&str], want: Option<&str>| {
        let request = RunCommand::shell("true").on(on.iter().copied()).survive_restarts();
        let request = request.frequency("rate(1h)");
        let error = engine.run_command(request).await.err();
        assert_eq!(error.is_some(), want.is_some(), "{on:?}: {error:?}");
        if let (Some(error), Some(want)) = (error, want) {
            assert_eq!((error.code(), error.http_status()), ("InvalidParam.SurviveRestarts", 400));
            assert!(error.to_string().contains(want), "{error}");
        }
    };
    check(&on_file, &[LOCAL], None).await;
    check(&on_file, &["wrapper", LOCAL], None).await;
    let closure = "runs of executor `closure`, which serves `closure`, end with the host";
    check(&on_file, &[LOCAL, "closure"], Some(closure)).await;
    check(&on_file, &["panics"], Some("runs of executor `panics`")).await;
    check(&in_memory, &[LOCAL], Some("in memory")).await;
    let plain = json!({
        "Type": "RunShellScript", "CommandContent": "x", "InstanceId": ["closure"],
        "SurviveRestarts": "false",
    });
    ask(&in_memory, "RunCommand", plain).await.expect("it need not survive");
}

#[tokio::test]
async fn an_executor_is_told_of_survival_only_where_it_is() {
    let (place, seen) = (Place::new(), Arc::default());
    let engine = plug_in(Engine::builder().path(place.database()), &seen).open().await;
    let engine = engine.expect("the file opens");
    register(&engine).await;
    let survives = RunCommand::shell("x").on(["wrapper"]).survive_restarts();
    let run = engine.run_command(survives).await.expect("it can").invoke_id;
    wait(&engine, &run).await;
    let again = engine.retry_failed(RetryFailed::new(run)).await.expect("it failed").invoke_id;
    wait(&engine, &again).await;
    let plain = engine.run_command(RunCommand::shell("x").on(["wrapper"])).await.expect("sound");
    wait(&engine, &plain.invoke_id).await;
    assert_eq!(*seen.lock().expect("no panic"), [true, true, false]);
    let moved = Instance::new("wrapper").executor("closure");
    engine.register_instance(moved).await.expect("sound");
    let error = engine.retry_failed(RetryFailed::new(run)).await.expect_err("not any longer");
    assert_eq!(error.code(), "InvalidParam.SurviveRestarts");
}

/// A schedule was accepted when the instance had another executor.
#[tokio::test]
async fn a_fire_that_cannot_survive_any_longer_says_so_and_does_not_run() {
    let (place, seen, clock) = (Place::new(), Arc::default(), clock());
    let engine = open(plug_in(Engine::builder().path(place.database()), &seen), &clock).await;
    register(&engine).await;
    let hourly = RunCommand::shell("x").on(["wrapper"]).survive_restarts().frequency("rate(1h)");
    let hourly = engine.run_command(hourly).await.expect("it can").invoke_id;
    let moved = Instance::new("wrapper").executor("closure");
    engine.register_instance(moved).await.expect("sound");
    pass(&clock, 3_600).await;
    assert_eq!(ended(&engine, hourly, 1).await, [ExecutionStatus::Invalid]);
    let only = DescribeInvocationResults::default().invoke_id(hourly);
    let page = engine.describe_invocation_results(only).await.expect("a page").invocation;
    let result = &page.results[0];
    assert_eq!(result.error_code, "CommandNotApplicable");
    let want = "runs of executor `closure` cannot survive restarts";
    assert_eq!(result.error_info, want);
    assert!(seen.lock().expect("no panic").is_empty());
}

//! Another run on the instances where one that has ended did not succeed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use adjutant::{
    AgentStatus, ClosureExecutor, CreateCommand, DeleteCommand, DescribeInvocations, Engine, Error,
    Instance, InstanceId, InstanceState, Invocation, InvokeCommand, InvokeId, Limits, Retry,
    RetryFailed, RunCommand, Share, StopInvocation, Stream,
};
use serde_json::{Value, json};

use crate::recurrence::{clock, ended, open, pass};
use crate::support::{Gate, ask, engine, everything, register, wait, with, within};

/// The instances on which every script fails.
#[derive(Clone, Default)]
struct Bad(Arc<Mutex<BTreeSet<String>>>);

impl Bad {
    fn are(&self, ids: &[&str]) {
        *self.0.lock().expect("no panic") = ids.iter().map(|id| (*id).to_owned()).collect();
    }

    /// An engine with the instances `i-1` to `i-4`, which print what they are given.
    async fn engine(&self) -> Engine {
        let bad = self.clone();
        let executor = ClosureExecutor::new(move |task, cx| {
            cx.print(Stream::Stdout, task.content());
            let is_bad = bad.0.lock().expect("no panic").contains(task.instance_id.as_str());
            async move { i32::from(is_bad) }
        });
        let engine = Engine::builder().executor("picky", executor).open().await;
        let engine = engine.expect("an engine in memory");
        register(&engine, "picky", 4).await;
        engine
    }
}

async fn record(engine: &Engine, invoke_id: InvokeId) -> Invocation {
    let filter = DescribeInvocations::default().invoke_id(invoke_id);
    engine.describe_invocations(filter).await.expect("it exists").invocations.remove(0)
}

async fn run(engine: &Engine, request: RunCommand) -> InvokeId {
    let invoke_id = engine.run_command(request).await.expect("sound").invoke_id;
    wait(engine, &invoke_id).await;
    invoke_id
}

/// Runs it once more and waits for its end; its instances.
async fn again(engine: &Engine, first: InvokeId) -> (InvokeId, Vec<InstanceId>) {
    let second = engine.retry_failed(RetryFailed::new(first)).await.expect("sound").invoke_id;
    let finished = wait(engine, &second).await;
    (second, finished.results.into_iter().map(|result| result.instance_id).collect())
}

/// What an invocation is, whatever became of it.
fn asked_for(invocation: &Invocation) -> Value {
    let own = [
        "InvokeId",
        "CommandId",
        "Caller",
        "RetryOf",
        "InvocationStatus",
        "InvokeStatus",
        "CreationTime",
        "FinishTime",
        "InstanceCount",
        "InvokeInstances",
    ];
    let mut json = serde_json::to_value(invocation).expect("JSON");
    let fields = json.as_object_mut().expect("an object");
    fields.retain(|field, _| !own.contains(&field.as_str()));
    json
}

#[tokio::test]
async fn it_runs_once_more_where_it_did_not_succeed() {
    let bad = Bad::default();
    bad.are(&["i-2", "i-3"]);
    let engine = bad.engine().await.called_by("ann");
    let mut request = RunCommand::shell("restart {{unit}} {{word}}")
        .name("restart")
        .enable_parameter()
        .parameters([("unit", "web"), ("word", "hush")])
        .default_parameters([("word", "none")])
        .secret_parameters(["word"])
        .on(["i-3", "i-1", "i-2"])
        .tag("ticket", "7")
        .working_dir("/srv")
        .username("web")
        .timeout(30)
        .retry(Retry::attempts(2).backoff(0))
        .max_errors(Share::percent(100))
        .priority(7);
    request.description = "why".to_owned();
    let first = run(&engine, request).await;
    let (second, on) = again(&engine.called_by("bob"), first).await;
    assert_eq!(on, ["i-3", "i-2"].map(InstanceId::from));
    let (one, two) = (record(&engine, first).await, record(&engine, second).await);
    assert_eq!(asked_for(&two), asked_for(&one));
    assert_eq!((one.retry_of, two.retry_of), (None, Some(first)));
    assert_eq!((&*one.caller, &*two.caller, two.instance_count), ("ann", "bob", 2));
    // The values that no answer shows are those of the first.
    let output = wait(&engine, &second).await.results.remove(0).output;
    assert_eq!(output.to_text(), "restart web hush");

    bad.are(&["i-3"]);
    let (third, on) = again(&engine, second).await;
    assert_eq!(on, ["i-3", "i-2"].map(InstanceId::from));
    let (fourth, on) = again(&engine, third).await;
    assert_eq!(on, ["i-3"].map(InstanceId::from));
    assert_eq!(record(&engine, fourth).await.retry_of, Some(third));
    // What the first came to is as it was.
    assert_eq!(again(&engine, first).await.1, ["i-3", "i-2"].map(InstanceId::from));
}

#[tokio::test]
async fn it_runs_what_the_first_ran_whatever_has_become_of_its_command() {
    let bad = Bad::default();
    bad.are(&["i-1"]);
    let engine = bad.engine().await;
    let create = CreateCommand::shell("c", "as it was");
    let command = engine.create_command(create).await.expect("sound").command_id;
    let first = engine.invoke_command(InvokeCommand::new(command).on(["i-1"])).await;
    let first = first.expect("sound").invoke_id;
    wait(&engine, &first).await;
    engine.delete_command(DeleteCommand::new(command)).await.expect("not in use");
    let (second, _) = again(&engine, first).await;
    let second = record(&engine, second).await;
    assert_eq!((second.command_id, &*second.command_content.to_text()), (command, "as it was"));
    assert_eq!(asked_for(&second), asked_for(&record(&engine, first).await));
}

#[tokio::test]
async fn instances_where_it_never_ran_are_among_them() {
    let gate = Gate::new();
    let builder = gate.plug_in(Engine::builder()).max_concurrent(1);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "gate", 3).await;
    let request = RunCommand::shell("x").on(["i-1", "i-2", "i-3"]);
    let first = engine.run_command(request).await.expect("sound").invoke_id;
    within(gate.arrivals(1)).await;
    gate.let_go(1);
    within(gate.arrivals(1)).await;
    engine.stop_invocation(StopInvocation::new(first)).await.expect("it runs");
    wait(&engine, &first).await;
    gate.let_go(2);
    // One ended by itself, one was stopped as it ran, one as it waited.
    assert_eq!(again(&engine, first).await.1, ["i-2", "i-3"].map(InstanceId::from));
}

#[tokio::test]
async fn what_repeated_runs_once() {
    let clock = clock();
    let engine = open(Engine::builder(), &clock).await;
    let repeating = || RunCommand::shell("exit:1").on(["i-2", "i-1"]).frequency("rate(2m)");
    let check = async |first: InvokeId| {
        engine.stop_invocation(StopInvocation::new(first)).await.expect("it exists");
        let (second, on) = again(&engine, first).await;
        assert_eq!(on, ["i-2", "i-1"].map(InstanceId::from));
        let second = record(&engine, second).await;
        let told = (second.repeat_mode.to_string(), &*second.frequency, second.max_fires);
        assert_eq!((told.0.as_str(), told.1, told.2), ("Once", "", None));
    };
    let never = engine.run_command(repeating().max_fires(9)).await.expect("sound").invoke_id;
    check(never).await;
    let fired = engine.run_command(repeating()).await.expect("sound").invoke_id;
    pass(&clock, 120).await;
    ended(&engine, fired, 2).await;
    check(fired).await;
}

#[tokio::test]
async fn the_latest_execution_on_an_instance_says_whether_it_succeeded() {
    let clock = clock();
    // The first try fails on every instance, and any on `i-2`.
    let executor = ClosureExecutor::new(|task, _cx| async move {
        i32::from(task.attempt == 1 || task.instance_id.as_str() == "i-2")
    });
    let engine = open(Engine::builder().executor("slow", executor), &clock).await;
    register(&engine, "slow", 2).await;
    let request = RunCommand::shell("x").on(["i-1", "i-2"]);
    let first = run(&engine, request.retry(Retry::attempts(2).backoff(0))).await;
    assert_eq!(again(&engine, first).await.1, ["i-2"].map(InstanceId::from));
}

#[tokio::test]
async fn what_has_not_ended_or_has_succeeded_is_refused() {
    let gate = Gate::new();
    let engine = crate::support::with_executors(gate.plug_in(Engine::builder()));
    let engine = engine.limits(Limits::alibaba()).open().await.expect("an engine");
    register(&engine, "gate", 1).await;
    let runs = engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    let repeats = RunCommand::shell("x").on(["i-1"]).frequency("rate(1h)");
    let repeats = engine.run_command(repeats).await.expect("sound").invoke_id;
    let check = async |request: Value, status: u16, code: &str, words: &str| {
        let before = everything(&engine).await;
        let error = ask(&engine, "RetryFailed", request.clone()).await.expect_err("refused");
        assert_eq!((error.code(), error.http_status()), (code, status), "{request}");
        assert!(error.to_string().contains(words), "{request}: {error}");
        assert_eq!(everything(&engine).await, before);
        error
    };
    let of = |id: &str| json!({"InvokeId": id});
    let (not_ended, unknown) = ("InvalidStatus.InvocationNotEnded", "InvalidInvokeId.NotFound");
    for id in [runs.invoke_id, repeats] {
        let error = check(of(&id.to_string()), 403, not_ended, "has not ended").await;
        assert!(matches!(error, Error::Conflict { .. }));
    }
    let nobody = "t-00000000000070008000000000000000";
    check(of(nobody), 404, unknown, nobody).await;
    check(of("t-1"), 404, unknown, "want the id of an invocation").await;
    check(json!({}), 404, unknown, "it is missing").await;
    let long = "t".repeat(65);
    let bad_token = with(of(nobody), json!({"ClientToken": long}));
    check(bad_token, 400, "InvalidClientToken.Malformed", "65").await;
    gate.let_go(1);
    wait(&engine, &runs.invoke_id).await;
    let fine = of(&runs.invoke_id.to_string());
    let error = check(fine, 403, "InvalidStatus.NothingFailed", "succeeded on all").await;
    assert!(matches!(error, Error::Conflict { .. }));
}

#[tokio::test]
async fn its_instances_are_checked_as_those_of_any_request() {
    let engine = engine().await;
    let in_group = |id: &str| Instance::new(id).executor("script").resource_group("rg");
    for id in ["off", "away", "moved", "gone"] {
        engine.register_instance(in_group(id)).await.expect("sound");
    }
    let request = RunCommand::shell("exit:1").on(["off", "away", "moved", "gone"]);
    let first = run(&engine, request.resource_group("rg")).await;
    engine.register_instance(in_group("off").state(InstanceState::Stopped)).await.expect("sound");
    engine.instance_seen(&"away".into(), AgentStatus::Offline).await.expect("it exists");
    let moved = Instance::new("moved").executor("script");
    engine.register_instance(moved).await.expect("sound");
    engine.remove_instance(&"gone".into()).await.expect("not in use");
    let mut limits = Limits::alibaba();
    (limits.invocations_per_day_max, limits.instances_max) = (1, 4);
    let check = async |limits: Limits, want: &[&str]| {
        let before = everything(&engine).await;
        let retry = engine.with_limits(limits).retry_failed(RetryFailed::new(first)).await;
        let error = retry.expect_err("refused");
        let codes: Vec<_> = error.violations().iter().map(|violation| violation.code).collect();
        assert_eq!(codes, want, "{error}");
        assert_eq!(everything(&engine).await, before);
    };
    let unfit = ["InvalidInstance.NotMatch"; 3];
    let rest = ["Invocation.ExceedQuota", "InvalidInstance.NotFound"];
    check(limits.clone(), &[&unfit[..], &rest].concat()).await;
    (limits.instances_max, limits.tagged_instances_max) = (3, 3);
    check(limits, &["InstanceIds.ExceedLimit", "Invocation.ExceedQuota"]).await;
}

#[tokio::test]
async fn asked_twice_with_one_token_it_runs_once_more() {
    let engine = engine().await;
    let first = run(&engine, RunCommand::shell("exit:1").on(["i-1"])).await;
    let other = run(&engine, RunCommand::shell("exit:1").on(["i-1"])).await;
    let retry = |of| engine.retry_failed(RetryFailed::new(of).client_token("t"));
    let second = retry(first).await.expect("sound");
    let same = retry(first).await.expect("the first answer");
    assert_eq!(same.invoke_id, second.invoke_id);
    assert_ne!(same.request_id, second.request_id);
    let (same, watch) = engine
        .retry_failed_and_watch(RetryFailed::new(first).client_token("t"))
        .await
        .expect("the first answer");
    drop(watch);
    assert_eq!(same.invoke_id, second.invoke_id);
    let error = retry(other).await.expect_err("another request");
    assert_eq!(error.code(), "IdempotentParameterMismatch");
    assert_ne!(again(&engine, first).await.0, second.invoke_id);
}

#[tokio::test]
async fn it_is_an_operation_by_name_and_can_be_watched() {
    let engine = engine().await;
    let first = run(&engine, RunCommand::shell("out:hi exit:1").on(["i-1"])).await;
    let request = json!({"InvokeId": first.to_string(), "RegionId": "r"}).to_string();
    let answer = engine.call("RetryFailed", &request).await.expect("sound");
    let second: InvokeId = serde_json::from_value(answer["InvokeId"].clone()).expect("an id");
    wait(&engine, &second).await;
    let record = ask(&engine, "DescribeInvocations", json!({"InvokeId": second.to_string()})).await;
    let record = record.expect("a page")["Invocations"]["Invocation"][0].take();
    assert_eq!(record["RetryOf"], first.to_string());

    let (third, mut watch) =
        engine.retry_failed_and_watch(RetryFailed::new(first)).await.expect("sound");
    let mut printed = Vec::new();
    while let Some(event) = within(watch.next()).await.expect("readable") {
        if let adjutant::Event::Output { bytes, .. } = event {
            printed.extend(bytes);
        }
    }
    assert_eq!(printed, b"hi");
    wait(&engine, &third.invoke_id).await;
}

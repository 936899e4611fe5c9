//! What a request says of the resources of its run and the ends of it, and what the record says
//! came of that.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::tencent::Tencent;
use adjutant::{
    ClosureExecutor, CreateCommand, DescribeInvocations, Engine, ExecutionContext, Instance,
    Invocation, InvocationResult, InvokeId, OverlapPolicy, ResourceLimits, RunCommand, Share,
    StopInvocation, StopReason, Task, Usage,
};
use serde_json::{Value, json};

use crate::recurrence::{clock, ended, open, pass};
use crate::support::{Gate, Place, ask, engine, everything, history, register, wait, with, within};

/// An engine whose instance `i-1` is served by a closure.
async fn served(act: impl Fn(&Task, &ExecutionContext) + Send + Sync + 'static) -> Engine {
    let act = Arc::new(act);
    let closure = ClosureExecutor::new(move |task: Task, cx: ExecutionContext| {
        let act = Arc::clone(&act);
        async move { act(&task, &cx) }
    });
    let engine = Engine::builder().executor("closure", closure).open().await.expect("an engine");
    let instance = Instance::new("i-1").executor("closure").shell("bash");
    engine.register_instance(instance).await.expect("sound");
    engine
}

/// What comes of a run on `i-1`, as its record says.
async fn result(engine: &Engine) -> InvocationResult {
    let run = engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    wait(engine, &run.invoke_id).await.results.remove(0)
}

#[tokio::test]
async fn what_a_run_may_use_reaches_its_executor_and_its_record() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let engine = served({
        let seen = Arc::clone(&seen);
        move |task, _| {
            let shell = task.shell().map(str::to_owned);
            let one = (*task.resource_limits(), shell);
            seen.lock().expect("no panic").push(one);
        }
    })
    .await;
    let given = json!({
        "CpuSeconds": "10", "AddressSpaceBytes": 1 << 20, "OpenFiles": 16, "Processes": 1,
        "FileSizeBytes": "4096", "MemoryBytes": u64::MAX,
    });
    let request = json!({
        "Type": "RunShellScript", "CommandContent": "x", "InstanceId": ["i-1"],
        "ResourceLimits": given,
    });
    let run = ask(&engine, "RunCommand", request).await.expect("sound");
    wait(&engine, &run["InvokeId"].as_str().expect("an id").parse().expect("an id")).await;
    let plain = engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    wait(&engine, &plain.invoke_id).await;

    let limits = ResourceLimits::default()
        .cpu_seconds(10)
        .address_space_bytes(1 << 20)
        .open_files(16)
        .processes(1)
        .file_size_bytes(4_096)
        .memory_bytes(u64::MAX);
    let bash = || Some("bash".to_owned());
    let want = [(limits, bash()), (ResourceLimits::default(), bash())];
    assert_eq!(*seen.lock().expect("no panic"), want);

    let page = ask(&engine, "DescribeInvocations", json!({})).await.expect("a page");
    let [plain, limited] = &page["Invocations"]["Invocation"].as_array().expect("a list")[..]
    else {
        panic!("{page}")
    };
    assert_eq!(limited["ResourceLimits"], serde_json::to_value(limits).expect("JSON"));
    let silent = ["ResourceLimits", "SurviveRestarts"].map(|field| plain.get(field));
    assert_eq!(silent, [None, None]);
    let page = ask(&engine, "DescribeInstances", json!({"InstanceId": ["i-1"]})).await;
    assert_eq!(page.expect("a page")["Instances"]["Instance"][0]["Shell"], "bash");
}

#[tokio::test]
async fn how_executions_are_let_loose_is_on_record() {
    let engine = engine().await;
    let run = || RunCommand::shell("exit:0").on(["i-1"]);
    let controlled = run()
        .max_concurrency(2)
        .max_errors(Share::percent(0))
        .waves([Share::from(1), Share::percent(10)])
        .wave_soak(60)
        .priority(9)
        .concurrency_key("db")
        .start_deadline(600)
        .deadline(3_600);
    let said = json!({
        "MaxConcurrency": "2", "MaxErrors": "0%", "Waves": ["1", "10%"], "WaveSoak": 60, "Priority": 9,
        "ConcurrencyKey": "db", "StartDeadline": 600, "Deadline": 3_600,
    });
    let request = serde_json::to_value(&controlled).expect("JSON");
    let kept = CreateCommand::shell("c", "exit:0");
    let kept = engine.create_command(kept).await.expect("sound").command_id;
    let invoke = json!({"CommandId": kept.to_string(), "InstanceId": ["i-1"]});
    ask(&engine, "InvokeCommand", with(invoke, said.clone())).await.expect("sound");
    engine.run_command(controlled).await.expect("sound");
    engine.run_command(run()).await.expect("sound");

    let page = ask(&engine, "DescribeInvocations", json!({})).await.expect("a page");
    let [plain, controlled, invoked] =
        &page["Invocations"]["Invocation"].as_array().expect("a list")[..]
    else {
        panic!("{page}")
    };
    for (field, value) in said.as_object().expect("an object") {
        let told = [&request, controlled, invoked].map(|one| one.get(field));
        assert_eq!(told, [Some(value); 3], "{field}");
        assert_eq!(plain.get(field), None, "{field}");
    }
    let all = engine.describe_invocations(Default::default()).await.expect("a page");
    assert_eq!(all.invocations.iter().map(|one| one.priority).collect::<Vec<_>>(), [5, 9, 9]);
    for invocation in all.invocations {
        let json = serde_json::to_value(&invocation).expect("JSON");
        let again: Invocation = serde_json::from_value(json.clone()).expect("as written");
        assert_eq!(again.priority, invocation.priority);
        assert_eq!(serde_json::to_value(again).expect("JSON"), json);
    }
}

#[tokio::test]
async fn limits_that_nothing_could_run_under_are_refused() {
    let engine = engine().await;
    let check = async |limits: Value, want: &[&str]| {
        let before = everything(&engine).await;
        let request = json!({
            "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"],
            "ResourceLimits": limits,
        });
        let error = ask(&engine, "RunCommand", request).await.expect_err("refused");
        let found = error.violations().iter();
        let found: Vec<_> =
            found.map(|one| (one.code, one.http_status, one.field, &*one.message)).collect();
        let want: Vec<_> = want
            .iter()
            .map(|text| ("InvalidParameter.ResourceLimits", 400, "ResourceLimits", *text))
            .collect();
        assert_eq!(found, want);
        assert_eq!(everything(&engine).await, before);
    };
    let mib = (1 << 20) - 1;
    check(json!({"CpuSeconds": 0}), &["want CpuSeconds to be at least 1; it is 0"]).await;
    check(json!({"Processes": 0}), &["want Processes to be at least 1; it is 0"]).await;
    check(json!({"OpenFiles": "15"}), &["want OpenFiles to be at least 16; it is 15"]).await;
    check(json!({"FileSizeBytes": 4095}), &["want FileSizeBytes to be at least 4096; it is 4095"])
        .await;
    check(
        json!({"MemoryBytes": mib, "AddressSpaceBytes": mib}),
        &[
            "want AddressSpaceBytes to be at least 1048576; it is 1048575",
            "want MemoryBytes to be at least 1048576; it is 1048575",
        ],
    )
    .await;
}

#[tokio::test]
async fn shells_that_no_system_has_are_refused() {
    let engine = engine().await;
    let refused =
        ["", " sh", "sh\t", "a\nb", "bash -x", "/bin/bash -x", "sh\u{2003}", &"s".repeat(256)];
    for shell in refused {
        let before = everything(&engine).await;
        let instance = Instance::new("i-1").shell(shell);
        let error = engine.register_instance(instance).await.expect_err("refused");
        let [violation] = error.violations() else { panic!("{error}") };
        assert_eq!((violation.code, violation.field), ("InvalidParameter.Shell", "Shell"));
        assert!(violation.message.contains("1 to 255 characters"), "{violation}");
        assert_eq!(everything(&engine).await, before);
    }
    for shell in ["sh", "/opt/shells/sh-5", &"é".repeat(255)] {
        engine.register_instance(Instance::new("i-1").shell(shell)).await.expect("sound");
    }
}

#[tokio::test]
async fn what_an_executor_reports_is_on_record() {
    let usage = Usage {
        user_time: Duration::from_micros(1_234_567),
        system_time: Duration::from_nanos(1_999),
        max_rss_bytes: Some(1 << 40),
        memory_peak_bytes: Some(u64::MAX),
    };
    let engine = served(move |_, cx| {
        cx.report_usage(Usage::default());
        cx.report_result(json!("not this"));
        cx.report_usage(usage);
        cx.report_result(json!({"Ports": [80, 443], "Load": 0.5, "None": null}));
    })
    .await;
    let result = result(&engine).await;
    assert_eq!((result.user_time_us, result.system_time_us), (Some(1_234_567), Some(1)));
    // What no column holds is the most that one does.
    let most = Some(i64::MAX.cast_unsigned());
    assert_eq!((result.max_rss_bytes, result.memory_peak_bytes), (Some(1 << 40), most));
    let left = json!({"Ports": [80, 443], "Load": 0.5, "None": null});
    assert_eq!((result.result, &*result.result_error), (Some(left.clone()), ""));

    let page = ask(&engine, "DescribeInvocationResults", json!({})).await.expect("a page");
    let one = &page["Invocation"]["InvocationResults"]["InvocationResult"][0];
    assert_eq!((&one["UserTimeUs"], &one["Result"]), (&json!(1_234_567), &left));
}

#[tokio::test]
async fn what_nobody_reports_is_not_on_record() {
    let engine = served(|_, _| {}).await;
    let plain = result(&engine).await;
    assert_eq!((plain.user_time_us, plain.system_time_us), (None, None));
    assert_eq!((plain.max_rss_bytes, plain.memory_peak_bytes), (None, None));
    assert_eq!((plain.result, &*plain.result_error), (None, ""));
}

#[tokio::test]
async fn results_are_kept_or_it_is_said_why_not() {
    let check = async |left: Value, kept: bool, why: &str| {
        let engine = served({
            let left = left.clone();
            move |_, cx| cx.report_result(left.clone())
        })
        .await;
        let result = result(&engine).await;
        assert_eq!(result.result, kept.then_some(left));
        assert!(result.result_error.contains(why), "{}", result.result_error);
        assert_eq!(result.result_error.is_empty(), kept);
        let text = serde_json::to_string(&result).expect("JSON");
        let again: InvocationResult = serde_json::from_str(&text).expect("what was written");
        assert_eq!(again.result, result.result);
    };
    check(Value::Null, true, "").await;
    check(json!("x".repeat(65_534)), true, "").await;
    check(json!("x".repeat(65_535)), false, "at most 65536 bytes of JSON; it has 65537").await;
    let nested = (0..200).fold(json!(0), |inner, _| json!([inner]));
    check(nested, false, "recursion limit").await;
}

/// Why each execution was asked to end, by whom, what for, and what that comes to in words.
fn stops(results: &[InvocationResult]) -> Vec<(Option<StopReason>, &str, &str, &str)> {
    let all = results.iter();
    all.map(|one| (one.stop_cause, &*one.stopped_by, &*one.stop_reason, &*one.error_info)).collect()
}

/// A run on `i-1` and `i-2`, of which one has started and one waits.
async fn one_runs_one_waits() -> (Engine, InvokeId) {
    let gate = Gate::new();
    let builder = gate.plug_in(Engine::builder()).max_concurrent(1);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "gate", 2).await;
    let run = engine.run_command(RunCommand::shell("x").on(["i-1", "i-2"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    (engine, run.invoke_id)
}

#[tokio::test]
async fn the_record_of_a_stop_says_who_asked_for_it_and_why() {
    let check = async |caller: &str, reason: &str, by: &str, why: &str| {
        let (engine, invoke_id) = one_runs_one_waits().await;
        let stop = StopInvocation::new(invoke_id).reason(reason);
        engine.called_by(caller).stop_invocation(stop).await.expect("it runs");
        let results = wait(&engine, &invoke_id).await.results;
        let ended = format!("stopped on request{by}{why}");
        let cancelled = format!("stopped on request{by} before it started{why}");
        let told = |info| (Some(StopReason::Stopped), caller, reason, info);
        assert_eq!(stops(&results), [told(&*ended), told(&*cancelled)]);
    };
    check("alice", "maintenance", " of `alice`", ": maintenance").await;
    check("alice", "", " of `alice`", "").await;
    check("", "maintenance", "", ": maintenance").await;
    check("", "", "", "").await;
}

#[tokio::test]
async fn the_first_who_stops_it_is_on_record() {
    let (engine, invoke_id) = one_runs_one_waits().await;
    let one = StopInvocation::new(invoke_id).on(["i-1"]).reason("first");
    let all = StopInvocation::new(invoke_id).reason("second");
    engine.called_by("ann").stop_invocation(one).await.expect("it runs");
    engine.called_by("bob").stop_invocation(all).await.expect("it runs");
    let results = wait(&engine, &invoke_id).await.results;
    let by: Vec<_> = results.iter().map(|one| (&*one.stopped_by, &*one.stop_reason)).collect();
    assert_eq!(by, [("ann", "first"), ("bob", "second")]);
}

/// One that repeats may have nothing else to put it on record with.
#[tokio::test]
async fn a_stop_of_all_of_an_invocation_is_on_its_own_record() {
    let engine = engine().await;
    let once = one_runs_one_waits().await;
    let timed = RunCommand::shell("exit:0").on(["i-1"]).frequency("rate(1h)");
    let timed = engine.run_command(timed).await.expect("sound").invoke_id;
    for (engine, invoke_id) in [once, (engine, timed)] {
        let stop = |reason| StopInvocation::new(invoke_id).reason(reason);
        let record = async || {
            let filter = DescribeInvocations::default().invoke_id(invoke_id);
            let page = engine.describe_invocations(filter).await.expect("it exists");
            let one = page.invocations[0].clone();
            (one.stop_time.is_some(), one.stopped_by, one.stop_reason)
        };
        let elsewhere = engine.stop_invocation(stop("elsewhere").on(["i-1"]));
        if invoke_id != timed {
            elsewhere.await.expect("it runs");
        }
        assert_eq!(record().await, (false, String::new(), String::new()));
        engine.called_by("ann").stop_invocation(stop("enough")).await.expect("it goes on");
        engine.called_by("bob").stop_invocation(stop("too late")).await.expect("it exists");
        assert_eq!(record().await, (true, "ann".to_owned(), "enough".to_owned()));
    }
}

#[tokio::test]
async fn a_reason_that_is_no_line_is_refused() {
    let (engine, invoke_id) = one_runs_one_waits().await;
    for reason in ["r".repeat(256), "a\nb".to_owned()] {
        let before = everything(&engine).await;
        let stop = StopInvocation::new(invoke_id).reason(reason.as_str());
        let error = engine.stop_invocation(stop).await.expect_err("refused");
        let [violation] = error.violations() else { panic!("{error}") };
        assert_eq!((violation.code, violation.field), ("InvalidParameter.Reason", "Reason"));
        let message = format!(
            "want at most 255 characters, none a control character; it has {}",
            reason.chars().count()
        );
        assert_eq!(violation.message, message);
        assert_eq!(everything(&engine).await, before);
    }
    let stop = StopInvocation::new(invoke_id).reason("é".repeat(255));
    engine.stop_invocation(stop).await.expect("as long as it may be");
}

#[tokio::test]
async fn a_run_whose_time_is_up_was_stopped_by_nobody() {
    let (clock, gate) = (clock(), Gate::new());
    let engine = open(gate.plug_in(Engine::builder()), &clock).await;
    register(&engine, "gate", 1).await;
    let run = RunCommand::shell("x").on(["i-1"]).timeout(7);
    let run = engine.run_command(run).await.expect("sound");
    within(gate.arrivals(1)).await;
    pass(&clock, 7).await;
    let results = wait(&engine, &run.invoke_id).await.results;
    let info = "ran longer than its timeout of 7 s";
    assert_eq!(stops(&results), [(Some(StopReason::Timeout), "", "", info)]);
}

#[tokio::test]
async fn what_a_later_fire_replaces_says_so() {
    let (clock, gate) = (clock(), Gate::new());
    let engine = open(gate.plug_in(Engine::builder().max_concurrent(1)), &clock).await;
    register(&engine, "gate", 2).await;
    let run = RunCommand::shell("x").on(["i-1"]).frequency("rate(60s)").timeout(59);
    let run = engine.run_command(run.overlap_policy(OverlapPolicy::Replace)).await;
    let invoke_id = run.expect("sound").invoke_id;
    pass(&clock, 60).await;
    within(gate.arrivals(1)).await;
    // Another run gets the only place, so that the second fire waits until the third replaces it.
    engine.run_command(RunCommand::shell("y").on(["i-2"])).await.expect("sound");
    engine.run_now(&invoke_id).await.expect("it repeats");
    within(gate.arrivals(1)).await;
    engine.run_now(&invoke_id).await.expect("it repeats");
    gate.let_go(2);
    ended(&engine, invoke_id, 3).await;
    let results = history(&engine, invoke_id).await;
    let told = |info| (Some(StopReason::Replaced), "", "", info);
    let want = [
        told("replaced by the fire after it"),
        told("replaced by the fire after it before it started"),
        (None, "", "", ""),
    ];
    assert_eq!(stops(&results), want);
}

#[tokio::test]
async fn what_ends_with_its_engine_says_so() {
    let (place, gate) = (Place::new(), Gate::new());
    let builder = gate.plug_in(Engine::builder().path(place.database()));
    let engine = builder.open().await.expect("it opens");
    register(&engine, "gate", 1).await;
    let run = engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    engine.shutdown(Duration::ZERO).await;
    let results = history(&engine, run.invoke_id).await;
    let info = "the engine shut down while it ran";
    assert_eq!(stops(&results), [(Some(StopReason::Shutdown), "", "", info)]);
}

/// Its requests have none of the fields; its cancellations are somebody's all the same.
#[tokio::test]
async fn the_second_dialect_stops_under_the_name_of_its_caller() {
    let (engine, invoke_id) = one_runs_one_waits().await;
    let tencent = Tencent::new(&engine.called_by("carol"));
    let cancel = json!({"InvocationId": invoke_id.to_string()});
    let run = json!({"Content": "", "InstanceIds": ["i-1"]});
    for (action, request, field) in [
        ("RunCommand", &run, json!({"ResourceLimits": {}})),
        ("RunCommand", &run, json!({"SurviveRestarts": true})),
        ("RunCommand", &run, json!({"MaxConcurrency": "1"})),
        ("CancelInvocation", &cancel, json!({"Reason": "x"})),
    ] {
        let request = with(request.clone(), field);
        let error = tencent.call(action, &request.to_string()).await.expect_err("refused");
        assert_eq!(error.code, "UnknownParameter");
    }
    tencent.call("CancelInvocation", &cancel.to_string()).await.expect("it runs");
    let results = wait(&engine, &invoke_id).await.results;
    assert!(results.iter().all(|one| one.stopped_by == "carol"), "{results:?}");
}

//! What a request says of the resources of its run, and what the record says they came to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    ClosureExecutor, Engine, ExecutionContext, Instance, InvocationResult, ResourceLimits,
    RunCommand, Task, Usage,
};
use serde_json::{Value, json};

use crate::support::{ask, engine, everything, wait};

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
            let one = (*task.resource_limits(), task.survives_restarts(), shell);
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
        "ResourceLimits": given, "SurviveRestarts": "true",
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
    let want = [(limits, true, bash()), (ResourceLimits::default(), false, bash())];
    assert_eq!(*seen.lock().expect("no panic"), want);

    let page = ask(&engine, "DescribeInvocations", json!({})).await.expect("a page");
    let [plain, limited] = &page["Invocations"]["Invocation"].as_array().expect("a list")[..]
    else {
        panic!("{page}")
    };
    assert_eq!(limited["ResourceLimits"], serde_json::to_value(limits).expect("JSON"));
    assert_eq!(limited["SurviveRestarts"], true);
    let silent = ["ResourceLimits", "SurviveRestarts"].map(|field| plain.get(field));
    assert_eq!(silent, [None, None]);
    let page = ask(&engine, "DescribeInstances", json!({"InstanceId": ["i-1"]})).await;
    assert_eq!(page.expect("a page")["Instances"]["Instance"][0]["Shell"], "bash");
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
    let refused = ["", " sh", "sh\t", "a\nb", &"s".repeat(256)];
    for shell in refused {
        let before = everything(&engine).await;
        let instance = Instance::new("i-1").shell(shell);
        let error = engine.register_instance(instance).await.expect_err("refused");
        let [violation] = error.violations() else { panic!("{error}") };
        assert_eq!((violation.code, violation.field), ("InvalidParameter.Shell", "Shell"));
        assert!(violation.message.contains("1 to 255 characters"), "{violation}");
        assert_eq!(everything(&engine).await, before);
    }
    for shell in ["sh", "/opt/my shells/sh", &"é".repeat(255)] {
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

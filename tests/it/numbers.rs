//! Numbers at the ends of their ranges: each is stored, or refused by name with its limit and its value.

use std::time::Duration;

use adjutant::{
    ClosureExecutor, Engine, Error, Instance, InvokeId, Limits, OutputQuota, RunCommand,
    StopInvocation, Usage,
};
use serde_json::{Value, json};

use crate::support::{ask, engine, everything, wait, with, within};

/// Limits that a host has lifted as far as their types let it.
fn lifted() -> Limits {
    let mut limits = Limits::alibaba();
    for length in [
        &mut limits.name_chars_max,
        &mut limits.parameters_defined_max,
        &mut limits.tags_max,
        &mut limits.resource_tags_max,
        &mut limits.missed_runs_max,
        &mut limits.instances_max,
        &mut limits.tagged_instances_max,
        &mut limits.stop_instances_max,
        &mut limits.page_size_max,
    ] {
        *length = usize::MAX;
    }
    for number in [
        &mut limits.invocations_per_day_max,
        &mut limits.timeout_s_max,
        &mut limits.rate_s_max,
        &mut limits.spread_s_max,
        &mut limits.retry_attempts_max,
        &mut limits.retry_backoff_s_max,
        &mut limits.kept_commands_max,
    ] {
        *number = u64::MAX;
    }
    limits
}

const LARGE: [u64; 8] = [
    u32::MAX as u64,
    u32::MAX as u64 + 1,
    9_000_000_000_000,
    i64::MAX as u64 / 1_000,
    i64::MAX as u64 / 1_000 + 1,
    i64::MAX as u64,
    i64::MAX as u64 + 1,
    u64::MAX,
];

fn request() -> Value {
    json!({"Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"]})
}

/// Checks that there is an answer, or a refusal that names the field, the value and a limit.
#[track_caller]
fn told(answer: Result<Value, Error>, field: &str, number: u64) -> Option<InvokeId> {
    let error = match answer {
        Ok(answer) => return answer["InvokeId"].as_str().map(|id| id.parse().expect("an id")),
        Err(error) => error,
    };
    let [violation] = error.violations() else { panic!("{field} {number}: {error}") };
    let Error::Invalid(_) = &error else { panic!("{field} {number}: {error:?}") };
    assert_eq!(violation.field, field, "{number}: {violation}");
    assert!(violation.message.contains(&number.to_string()), "{field}: {violation}");
    assert!(violation.message.contains("want"), "{field}: {violation}");
    None
}

#[tokio::test]
async fn a_number_too_large_for_its_record_is_refused_with_its_limit_whatever_the_limits_are() {
    let engine = engine().await.with_limits(lifted());
    let retry = |name: &'static str| {
        move |number: u64| {
            let longest = if name == "BackoffSeconds" { "MaxBackoffSeconds" } else { name };
            json!({"CommandContent": "exit:1", "Retry": {name: number, longest: number}})
        }
    };
    let plain = |name: &'static str| move |number: u64| json!({name: number});
    let repeating = |name: &'static str| move |number: u64| json!({name: number, "RepeatMode": "Period", "Frequency": "rate(1d)"});
    type Make = Box<dyn Fn(u64) -> Value>;
    let fields: Vec<(&str, Make)> = vec![
        ("Timeout", Box::new(plain("Timeout"))),
        ("Spread", Box::new(repeating("Spread"))),
        ("MaxFires", Box::new(repeating("MaxFires"))),
        ("Priority", Box::new(plain("Priority"))),
        ("MaxConcurrency", Box::new(plain("MaxConcurrency"))),
        ("MaxErrors", Box::new(plain("MaxErrors"))),
        ("Waves", Box::new(|number| json!({"Waves": [number]}))),
        ("WaveSoak", Box::new(|number| json!({"Waves": [1], "WaveSoak": number}))),
        ("StartDeadline", Box::new(plain("StartDeadline"))),
        ("Deadline", Box::new(plain("Deadline"))),
        ("Retry.MaxAttempts", Box::new(retry("MaxAttempts"))),
        ("Retry.BackoffSeconds", Box::new(retry("BackoffSeconds"))),
        ("Retry.MaxBackoffSeconds", Box::new(retry("MaxBackoffSeconds"))),
        ("ResourceLimits", Box::new(|number| json!({"ResourceLimits": {"CpuSeconds": number}}))),
        ("ResourceLimits", Box::new(|number| json!({"ResourceLimits": {"MemoryBytes": number}}))),
    ];
    for (field, make) in &fields {
        for number in LARGE {
            let before = everything(&engine).await;
            let answer = ask(&engine, "RunCommand", with(request(), make(number))).await;
            // A wait that is too long is refused once for each of its two fields.
            let answer = answer.map_err(|error| match error {
                Error::Invalid(mut found) if field.starts_with("Retry.Backoff") => {
                    found.truncate(1);
                    Error::Invalid(found)
                }
                error => error,
            });
            match told(answer, field, number) {
                None => assert_eq!(everything(&engine).await, before, "{field} {number}"),
                Some(id) => {
                    // The invocation is stored, and all of its records can be read and stopped.
                    everything(&engine).await;
                    engine.explain(&id, chrono::Utc::now()).await.expect("readable");
                    engine
                        .stop_invocation(StopInvocation::new(id))
                        .await
                        .expect("it can be stopped");
                    wait(&engine, &id).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_number_too_large_for_a_kept_command_or_a_page_is_refused_with_its_limit() {
    let engine = engine().await.with_limits(lifted());
    for number in LARGE {
        let name = format!("c-{number}");
        let create = json!({"Name": name, "Type": "RunShellScript", "CommandContent": "eA==", "Timeout": number});
        told(ask(&engine, "CreateCommand", create).await, "Timeout", number);
        for operation in ["DescribeCommands", "DescribeInvocations", "DescribeInstances"] {
            let answer = ask(&engine, operation, json!({"MaxResults": number})).await;
            told(answer, "MaxResults", number);
            let answer =
                ask(&engine, operation, json!({"PageNumber": number, "PageSize": 50})).await;
            told(answer, "PageNumber", number);
            let answer =
                ask(&engine, operation, json!({"PageNumber": number, "PageSize": number})).await;
            told(answer, "PageSize", number);
        }
    }
    everything(&engine).await;
}

#[tokio::test]
async fn an_engine_with_its_settings_at_their_ends_runs_and_stops() {
    let quota = OutputQuota {
        head_bytes_max: usize::MAX,
        tail_bytes_max: usize::MAX,
        spool_bytes_max: u64::MAX,
    };
    let executor = ClosureExecutor::new(|task, cx| async move {
        let most = Usage {
            user_time: Duration::MAX,
            system_time: Duration::MAX,
            max_rss_bytes: Some(u64::MAX),
            memory_peak_bytes: Some(u64::MAX),
        };
        cx.report_usage(most);
        cx.print(adjutant::Stream::Stdout, b"done");
        if task.content() == b"hang" {
            cx.stop_asked().await;
        }
        Ok::<(), String>(())
    });
    let engine = Engine::builder()
        .max_concurrent(usize::MAX)
        .max_submissions(usize::MAX)
        .max_delivery(u64::MAX)
        .concurrency_key("k", usize::MAX)
        .stop_grace(Duration::MAX)
        .output_quota(quota)
        .limits(lifted())
        .executor("host", executor)
        .open()
        .await
        .expect("it opens");
    engine.register_instance(Instance::new("i").executor("host")).await.expect("sound");
    let run = async |script: &str| {
        let request = RunCommand::shell(script).on(["i"]).concurrency_key("k");
        engine.run_command(request).await.expect("sound").invoke_id
    };
    let finished = wait(&engine, &run("x").await).await;
    assert_eq!(finished.results[0].output.as_bytes(), b"done");
    assert_eq!(finished.results[0].max_rss_bytes, Some(i64::MAX as u64));
    let hung = run("hang").await;
    engine.stop_invocation(StopInvocation::new(hung)).await.expect("it can be stopped");
    wait(&engine, &hung).await;
    within(engine.shutdown(Duration::MAX)).await;
}

//! What is refused, with which code, and that nothing of it is stored.

use adjutant::{
    CreateCommand, DescribeInvocationResults, DescribeInvocations, Error, InvokeId, RunCommand,
    Share, StopInvocation,
};

use crate::support::pages;

fn run_from(change: serde_json::Value) -> RunCommand {
    let mut request = serde_json::json!({
        "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"]
    });
    for (key, value) in change.as_object().expect("an object") {
        request[key] = value.clone();
    }
    serde_json::from_value(request).expect("the fields are right")
}

#[tokio::test]
async fn requests_at_and_past_each_limit() {
    let engine = pages().await;
    let check = async |change: serde_json::Value, codes: &[&str]| {
        let shown = format!("{change:.200}");
        let found = match engine.run_command(run_from(change)).await {
            Ok(_) => Vec::new(),
            Err(error) => error.violations().iter().map(|v| v.code.to_owned()).collect(),
        };
        assert_eq!(found, codes, "{shown}");
    };
    let text = |chars| "ü".repeat(chars);
    let script = |bytes: usize| format!("exit:0{}", " ".repeat(bytes - 6));
    let many = |count| (1..=count).map(|n| format!("x-{n}")).collect::<Vec<_>>();
    check(serde_json::json!({"InstanceId": []}), &["MissingParam.InstanceId"]).await;
    check(serde_json::json!({"InstanceId": ["i-1", "i-1"]}), &["InvalidInstanceId.Duplicate"])
        .await;
    check(serde_json::json!({"InstanceId": many(101)}), &["InstanceIds.ExceedLimit"]).await;
    check(serde_json::json!({"Name": text(128)}), &[]).await;
    check(serde_json::json!({"Name": text(129)}), &["CmdName.ExceedLimit"]).await;
    check(serde_json::json!({"Description": text(513)}), &["CmdDesc.ExceedLimit"]).await;
    check(serde_json::json!({"WorkingDir": text(201)}), &["InvalidParameter.WorkingDir"]).await;
    check(
        serde_json::json!({"WorkingDir": "a\u{0}b"}),
        &["InvalidParameterCharacter.CommandWorkingDir"],
    )
    .await;
    check(serde_json::json!({"Timeout": 0}), &["InvalidParameter.Timeout"]).await;
    check(serde_json::json!({"Timeout": 1}), &[]).await;
    check(serde_json::json!({"CommandContent": ""}), &["MissingParameter.CommandContent"]).await;
    check(serde_json::json!({"Priority": 9, "ConcurrencyKey": text(64)}), &[]).await;
    check(serde_json::json!({"Priority": "10"}), &["InvalidParameter.Priority"]).await;
    check(serde_json::json!({"Priority": u64::MAX}), &["InvalidParameter.Priority"]).await;
    for key in [String::new(), text(65), "a\nb".to_owned()] {
        check(serde_json::json!({"ConcurrencyKey": key}), &["InvalidParameter.ConcurrencyKey"])
            .await;
    }
    let (month, week) = (30 * 86_400_u64, 7 * 86_400_u64);
    for (field, code) in [
        ("StartDeadline", "InvalidParameter.StartDeadline"),
        ("Deadline", "InvalidParameter.Deadline"),
    ] {
        for (seconds, fits) in [(0, false), (1, true), (month, true), (month + 1, false)] {
            let code = if fits { &[][..] } else { &[code] };
            check(serde_json::json!({field: seconds}), code).await;
        }
    }
    let soak = |seconds: u64| serde_json::json!({"Waves": [1], "WaveSoak": seconds});
    check(soak(0), &[]).await;
    check(soak(week), &[]).await;
    check(soak(week + 1), &["InvalidParameter.WaveSoak"]).await;
    check(serde_json::json!({"WaveSoak": 0}), &["InvalidParameter.WaveSoak"]).await;
    check(serde_json::json!({"Waves": vec!["100%"; 100]}), &[]).await;
    check(serde_json::json!({"Waves": vec![1; 101]}), &["InvalidParameter.Waves"]).await;
    // 18 KiB and 24 KiB as Base64 are 13.5 KiB and 18 KiB of script.
    check(serde_json::json!({"CommandContent": script(18 * 1024)}), &[]).await;
    check(
        serde_json::json!({"CommandContent": script(18 * 1024 + 1)}),
        &["CmdContent.ExceedLimit"],
    )
    .await;
    let kept = |bytes: usize| serde_json::json!({"CommandContent": script(bytes), "KeepCommand": true, "Name": "n"});
    check(kept(13 * 1024 + 512), &[]).await;
    check(kept(13 * 1024 + 513), &["CmdContent.ExceedLimit"]).await;
    check(
        serde_json::json!({"CommandContent": "%%%", "ContentEncoding": "base64"}),
        &["CmdContent.DecodeError"],
    )
    .await;
    // An encoding that is none means plain text.
    check(serde_json::json!({"ContentEncoding": "rot13"}), &[]).await;
    // Everything that is wrong is told at once.
    check(
        serde_json::json!({"InstanceId": [], "Name": text(129), "Timeout": 0, "CommandContent": ""}),
        &["MissingParam.InstanceId", "CmdName.ExceedLimit", "MissingParameter.CommandContent", "InvalidParameter.Timeout"],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_share_of_the_targets() {
    let engine = pages().await;
    let check = async |change: serde_json::Value, want: Option<(&str, &str, &str)>| {
        let shown = change.to_string();
        let found = match engine.run_command(run_from(change)).await {
            Ok(_) => Vec::new(),
            Err(error) => error.violations().to_vec(),
        };
        let told: Vec<_> = found.iter().map(|v| (v.code, v.field, v.message.as_str())).collect();
        assert_eq!(told, Vec::from_iter(want), "{shown}");
    };
    let from_one = |it: &str| format!("want a number from 1 on, or 1% to 100%; it is `{it}`");
    let any = |it: &str| format!("want a number from 0 on, or 0% to 100%; it is `{it}`");
    for share in ["1", "1%", "100%", " 7 ", "9223372036854775807"] {
        check(serde_json::json!({"MaxConcurrency": share}), None).await;
        check(serde_json::json!({"MaxErrors": share}), None).await;
        check(serde_json::json!({"Waves": [share]}), None).await;
    }
    check(serde_json::json!({"MaxConcurrency": 3, "Waves": [1, "50%"]}), None).await;
    for none in ["0", "0%"] {
        check(serde_json::json!({"MaxErrors": none}), None).await;
    }
    for none in ["0", "0%", "-1", "101%", "1.5", "ten", "%"] {
        let (code, field) = ("InvalidParameter.MaxConcurrency", "MaxConcurrency");
        check(serde_json::json!({field: none}), Some((code, field, &from_one(none)))).await;
        let (code, field) = ("InvalidParameter.Waves", "Waves");
        check(serde_json::json!({field: [none]}), Some((code, field, &from_one(none)))).await;
    }
    for none in ["-1", "101%", "1.5", "ten", "%"] {
        let (code, field) = ("InvalidParameter.MaxErrors", "MaxErrors");
        check(serde_json::json!({field: none}), Some((code, field, &any(none)))).await;
    }
    for (number, it) in [(serde_json::json!(-1), "-1"), (serde_json::json!(1.5), "1.5")] {
        let (code, field) = ("InvalidParameter.MaxErrors", "MaxErrors");
        check(serde_json::json!({field: number}), Some((code, field, &any(it)))).await;
    }
    let (code, field) = ("InvalidParameter.Waves", "Waves");
    let message = "each wave counts those before it too; want none smaller than one before it, 9% comes after 10%";
    check(serde_json::json!({field: ["10%", "9%"]}), Some((code, field, message))).await;
    // What was never text.
    let request = RunCommand::shell("exit:0").on(["i-1"]).max_errors(Share::percent(101));
    let error = engine.run_command(request).await.expect_err("more than all");
    assert_eq!(error.code(), "InvalidParameter.MaxErrors");
}

#[test]
fn json_that_is_no_request_names_the_field() {
    let check = |json: &str, want: &str| {
        let error = serde_json::from_str::<RunCommand>(json).expect_err("refused").to_string();
        assert!(error.contains(want), "{json}: {error}");
    };
    let request =
        |more: &str| format!(r#"{{"Type": "RunShellScript", "CommandContent": "x"{more}}}"#);
    check(&request(r#", "Frequenzy": "x""#), "unknown field `Frequenzy`");
    check(&request(r#", "Timeout": -1"#), "a whole number that is not negative");
    check(&request(r#", "KeepCommand": "perhaps""#), "true or false");
}

#[tokio::test]
async fn a_stored_command_needs_a_name() {
    let engine = pages().await;
    let error = engine.create_command(CreateCommand::shell("", "x")).await.expect_err("no name");
    assert_eq!(error.code(), "MissingParameter.Name");
}

#[tokio::test]
async fn unknown_ids_and_pages_are_said_to_be_so() {
    let engine = pages().await;
    let id: InvokeId = "t-00000000000070008000000000000000".parse().expect("an id");
    let check = |error: Error, code: &str, status| {
        assert_eq!((error.code(), error.http_status()), (code, status), "{error}");
    };
    check(engine.wait(&id).await.expect_err("unknown"), "InvalidInvokeId.NotFound", 404);
    check(engine.wait_status(&id).await.expect_err("unknown"), "InvalidInvokeId.NotFound", 404);
    check(engine.watch(&id).await.expect_err("unknown"), "InvalidInvokeId.NotFound", 404);
    let stop = engine.stop_invocation(StopInvocation::new(id)).await;
    check(stop.expect_err("unknown"), "InvalidInvokeId.NotFound", 404);
    let results = DescribeInvocationResults::default().invoke_id(id);
    let results = engine.describe_invocation_results(results).await;
    check(results.expect_err("unknown"), "InvalidInvokeId.NotFound", 404);
    let all = DescribeInvocations::default;
    for size in [0, 51] {
        let error = engine.describe_invocations(all().max_results(size)).await.expect_err("size");
        check(error, "InvalidParameter.MaxResults", 400);
    }
    let error = engine.describe_invocations(all().next_token("../x")).await.expect_err("token");
    check(error, "InvalidParameter.NextToken", 400);
}

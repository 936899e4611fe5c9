//! What is refused, with which code, and that nothing of it is stored.

use adjutant::{
    CreateCommand, DescribeInvocationResults, DescribeInvocations, Error, InvokeId, RunCommand,
    StopInvocation,
};

use crate::support::engine;

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
    let engine = engine().await;
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
    let engine = engine().await;
    let error = engine.create_command(CreateCommand::shell("", "x")).await.expect_err("no name");
    assert_eq!(error.code(), "MissingParameter.Name");
}

#[tokio::test]
async fn unknown_ids_and_pages_are_said_to_be_so() {
    let engine = engine().await;
    let id: InvokeId = "t-00000000000070008000000000000000".parse().expect("an id");
    let check = |error: Error, code: &str, status| {
        assert_eq!((error.code(), error.http_status()), (code, status), "{error}");
    };
    check(engine.wait(&id).await.expect_err("unknown"), "InvalidInvokeId.NotFound", 404);
    check(engine.watch(&id).await.err().expect("unknown"), "InvalidInvokeId.NotFound", 404);
    let stop = engine.stop_invocation(StopInvocation::new(id)).await;
    check(stop.expect_err("unknown"), "InvalidInvokeId.NotFound", 404);
    let results = DescribeInvocationResults { invoke_id: Some(id), ..Default::default() };
    let results = engine.describe_invocation_results(results).await;
    check(results.expect_err("unknown"), "InvalidInvokeId.NotFound", 404);
    let page = |max_results, next_token: &str| DescribeInvocations {
        max_results,
        next_token: Some(next_token.to_owned()),
        ..Default::default()
    };
    for size in [0, 51] {
        let error = engine.describe_invocations(page(Some(size), "")).await.expect_err("size");
        check(error, "InvalidParameter.MaxResults", 400);
    }
    let error = engine.describe_invocations(page(None, "../x")).await.expect_err("token");
    check(error, "InvalidParameter.NextToken", 400);
}

//! The second dialect: its requests and answers as JSON, its codes, statuses and limits.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::tencent::{Error, NETWORK_CODES, RunCommand, Tencent};
use adjutant::{
    Action, AgentStatus, Authorizer, CommandId, Engine, Event, ExecutionStatus, Instance,
    InstanceState, InvokeId, Limits, OsType, Parameters,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::support::{Gate, engine, pages, register, wait, with_executors, within};

fn base64(script: impl AsRef<[u8]>) -> String {
    BASE64.encode(script)
}

fn text(base64: &Value) -> String {
    let bytes = BASE64.decode(base64.as_str().expect("a text")).expect("Base64");
    String::from_utf8(bytes).expect("UTF-8")
}

async fn call(tencent: &Tencent, action: &str, request: Value) -> Value {
    let shown = format!("{action} {request:.200}");
    tencent.call(action, &request.to_string()).await.unwrap_or_else(|error| {
        panic!("{shown}: {error}");
    })
}

async fn refusal(tencent: &Tencent, action: &str, request: Value) -> Error {
    let answer = tencent.call(action, &request.to_string()).await;
    answer.expect_err(&format!("{action} {request:.200}"))
}

/// The codes of everything that is wrong with a request, as found.
async fn codes(tencent: &Tencent, action: &str, request: Value) -> Vec<&'static str> {
    match tencent.call(action, &request.to_string()).await {
        Ok(_) => Vec::new(),
        Err(error) if error.violations.is_empty() => vec![error.code],
        Err(error) => error.violations.iter().map(|violation| violation.code).collect(),
    }
}

/// A sound run, but for these fields; null takes one away.
fn run_with(change: Value) -> Value {
    let mut request = json!({"Content": base64("exit:0"), "InstanceIds": ["i-1"]});
    let fields = request.as_object_mut().expect("an object");
    for (key, value) in change.as_object().expect("an object") {
        match value {
            Value::Null => drop(fields.remove(key)),
            value => drop(fields.insert(key.clone(), value.clone())),
        }
    }
    request
}

async fn ended(engine: &Engine, answer: &Value) {
    let invocation_id = answer["InvocationId"].as_str().expect("an id");
    wait(engine, &invocation_id.parse().expect("an id")).await;
}

async fn task_of(tencent: &Tencent, answer: &Value) -> Value {
    let filter = json!([{"Name": "invocation-id", "Values": [answer["InvocationId"]]}]);
    let request = json!({"Filters": filter, "HideOutput": false});
    let mut tasks = call(tencent, "DescribeInvocationTasks", request).await;
    tasks["InvocationTaskSet"][0].take()
}

#[tokio::test]
async fn the_sample_of_the_page_gives_the_documented_fields() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    for id in ["ins-zj0f57ew", "ins-zj0f57ex", "ins-zj0f57ev"] {
        let instance = Instance::new(id).executor("script").kind("CVM");
        engine.register_instance(instance).await.expect("sound");
    }
    let request = json!({
        "CommandName": "run-command", "SaveCommand": false, "Description": "whoami",
        "Content": base64("out:root"), "CommandType": "SHELL", "WorkingDirectory": "/root/",
        "Timeout": 60, "InstanceIds": ["ins-zj0f57ew", "ins-zj0f57ex", "ins-zj0f57ev"],
    });
    let answer = call(&tencent, "RunCommand", request).await;
    let keys: Vec<_> = answer.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["CommandId", "InvocationId", "RequestId"]);
    let prefixed = |key: &str, prefix: &str| answer[key].as_str().expect(key).starts_with(prefix);
    assert!(prefixed("CommandId", "cmd-") && prefixed("InvocationId", "inv-"), "{answer}");
    ended(&engine, &answer).await;

    let request = json!({"InvocationIds": [answer["InvocationId"]]});
    let listed = call(&tencent, "DescribeInvocations", request).await;
    assert_eq!(listed["TotalCount"], 1);
    let invocation = &listed["InvocationSet"][0];
    assert_eq!(invocation["InvocationStatus"], "SUCCESS");
    assert_eq!(invocation["InstanceKind"], "CVM");
    assert_eq!(invocation["CommandType"], "SHELL");
    assert_eq!(invocation["WorkingDirectory"], "/root/");
    assert_eq!(invocation["InvocationSource"], "USER");
    assert_eq!(text(&invocation["CommandContent"]), "out:root");
    assert!(invocation["EndTime"].is_string());
    let tasks = invocation["InvocationTaskBasicInfoSet"].as_array().expect("a list");
    let on: Vec<_> = tasks.iter().map(|task| task["InstanceId"].as_str().expect("id")).collect();
    assert_eq!(on, ["ins-zj0f57ew", "ins-zj0f57ex", "ins-zj0f57ev"]);

    let hidden = json!({"InvocationTaskIds": [tasks[0]["InvocationTaskId"]]});
    let listed = call(&tencent, "DescribeInvocationTasks", hidden.clone()).await;
    assert_eq!(listed["InvocationTaskSet"][0]["TaskResult"]["Output"], "");
    let task = task_of(&tencent, &answer).await;
    assert_eq!(text(&task["TaskResult"]["Output"]), "root");
    assert_eq!(task["TaskResult"]["ExitCode"], 0);
    assert_eq!(task["CommandDocument"]["Timeout"], 60);
    assert_eq!(task["CommandName"], "run-command");
}

/// What page 003 lists.
const CODES: [&str; 41] = [
    "FailedOperation.CVMError",
    "FailedOperation.LighthouseError",
    "InternalError",
    "InvalidParameter",
    "InvalidParameter.InvalidUsername",
    "InvalidParameter.ParameterNameDuplicated",
    "InvalidParameterValue",
    "InvalidParameterValue.AgentUnsupportedCommandType",
    "InvalidParameterValue.CommandContentInvalid",
    "InvalidParameterValue.CommandNameDuplicated",
    "InvalidParameterValue.InconsistentInstance",
    "InvalidParameterValue.InvalidCommandName",
    "InvalidParameterValue.InvalidContent",
    "InvalidParameterValue.InvalidInstanceId",
    "InvalidParameterValue.InvalidOutputCOSBucketUrl",
    "InvalidParameterValue.InvalidOutputCOSKeyPrefix",
    "InvalidParameterValue.InvalidUsername",
    "InvalidParameterValue.InvalidWorkingDirectory",
    "InvalidParameterValue.LackOfParameterInfo",
    "InvalidParameterValue.LimitExceeded",
    "InvalidParameterValue.ParameterDisabled",
    "InvalidParameterValue.ParameterInvalidJsonFormat",
    "InvalidParameterValue.ParameterKeyContainsInvalidChar",
    "InvalidParameterValue.ParameterKeyDuplicated",
    "InvalidParameterValue.ParameterKeyLenExceeded",
    "InvalidParameterValue.ParameterNumberExceeded",
    "InvalidParameterValue.ParameterValueNotString",
    "InvalidParameterValue.Range",
    "InvalidParameterValue.SupportParametersOnlyIfEnableParameter",
    "InvalidParameterValue.TooLong",
    "MissingParameter",
    "ResourceNotFound.InstanceNotFound",
    "ResourceNotFound.RoleNotFound",
    "ResourceUnavailable.AgentNotInstalled",
    "ResourceUnavailable.AgentStatusNotOnline",
    "ResourceUnavailable.InstanceStateNotRunning",
    "ResourceUnavailable.LighthouseUnsupportedRegion",
    "UnauthorizedOperation.CamAuthFailed",
    "UnauthorizedOperation.InvalidToken",
    "UnauthorizedOperation.MFAExpired",
    "UnauthorizedOperation.MFANotFound",
];

/// Instances that do not suit, beside `i-1` to `i-3` that do.
async fn unsuited(engine: &Engine) {
    let instance = |id: &str| Instance::new(id).executor("script");
    for instance in [
        instance("i-offline").agent_status(AgentStatus::Offline),
        instance("i-bare").agent_status(AgentStatus::NotInstalled),
        instance("i-stopped").state(InstanceState::Stopped),
        instance("i-windows").os_type(OsType::Windows),
        instance("i-light").kind("LIGHTHOUSE"),
    ] {
        engine.register_instance(instance).await.expect("sound");
    }
}

#[tokio::test]
async fn every_code_of_the_page_is_raised_or_of_a_network_service() {
    let engine = pages().await;
    unsuited(&engine).await;
    let tencent = Tencent::new(&engine);
    call(&tencent, "RunCommand", run_with(json!({"CommandName": "kept", "SaveCommand": true})))
        .await;
    let mut raised = BTreeSet::new();
    let mut check = async |change: Value, want: &[&'static str]| {
        let found = codes(&tencent, "RunCommand", run_with(change.clone())).await;
        let shown = format!("{change:.200}");
        assert_eq!(found, want.iter().map(|c| expanded(c)).collect::<Vec<_>>(), "{shown}");
        raised.extend(found);
    };
    let enabled = |more: Value| {
        let mut change = json!({"EnableParameter": true, "Content": base64("{{a}}")});
        let more = more.as_object().expect("an object").clone();
        change.as_object_mut().expect("an object").extend(more);
        change
    };
    let names = |count| (0..count).map(|n| (format!("n{n}"), "v".to_owned()));
    let parameters = |count| Parameters::from_iter(names(count));
    let parameters = |count| serde_json::to_string(&parameters(count)).expect("JSON");

    check(json!({"Content": null}), &["MissingParameter"]).await;
    check(json!({"InstanceIds": []}), &["MissingParameter"]).await;
    check(json!({"Content": 5}), &["InvalidParameter"]).await;
    check(json!({"Tags": [{"Key": "k", "Value": "v"}]}), &["InvalidParameter"]).await;
    check(json!({"CommandType": "PYTHON"}), &["InvalidParameterValue"]).await;
    check(json!({"Content": "no Base64!"}), &[".CommandContentInvalid"]).await;
    check(json!({"Content": ""}), &[".InvalidContent"]).await;
    check(enabled(json!({"Content": base64("{{a b}}")})), &[".InvalidContent"]).await;
    check(json!({"Content": base64("x".repeat(48 * 1024 + 1))}), &[".TooLong"]).await;
    check(json!({"CommandName": "x".repeat(61)}), &[".TooLong"]).await;
    check(json!({"Description": "ü".repeat(121)}), &[".TooLong"]).await;
    check(json!({"CommandName": "ü"}), &[".InvalidCommandName"]).await;
    check(json!({"CommandName": "kept", "SaveCommand": "True"}), &[".CommandNameDuplicated"]).await;
    check(json!({"WorkingDirectory": "/".repeat(201)}), &[".InvalidWorkingDirectory"]).await;
    check(json!({"Username": "x".repeat(257)}), &[".InvalidUsername"]).await;
    check(json!({"Username": "a\u{0}b"}), &["InvalidParameter.InvalidUsername"]).await;
    check(json!({"Timeout": 0}), &[".Range"]).await;
    check(json!({"Timeout": 86_401}), &[".Range"]).await;
    check(json!({"OutputCOSBucketUrl": "http://b"}), &[".InvalidOutputCOSBucketUrl"]).await;
    check(json!({"OutputCOSKeyPrefix": "x"}), &[".InvalidOutputCOSKeyPrefix"]).await;
    let folders = json!({"OutputCOSBucketUrl": "https://b", "OutputCOSKeyPrefix": "/x"});
    check(folders, &[".InvalidOutputCOSKeyPrefix"]).await;
    let many: Vec<_> = (1..=101).map(|n| format!("x-{n}")).collect();
    check(json!({"InstanceIds": many}), &[".LimitExceeded"]).await;
    let tags: Vec<_> = (0..11).map(|n| json!({"Key": format!("k{n}"), "Value": ""})).collect();
    check(json!({"SaveCommand": true, "Tags": tags}), &[".LimitExceeded"]).await;
    check(json!({"InstanceIds": ["i-1", "i-1"]}), &[".InvalidInstanceId"]).await;
    let nameless = &[".InvalidInstanceId", "ResourceNotFound.InstanceNotFound"];
    check(json!({"InstanceIds": [""]}), nameless).await;
    check(json!({"InstanceIds": ["i-9"]}), &["ResourceNotFound.InstanceNotFound"]).await;
    let unavailable = |what: &str| match what {
        "i-offline" => "ResourceUnavailable.AgentStatusNotOnline",
        "i-bare" => "ResourceUnavailable.AgentNotInstalled",
        _ => "ResourceUnavailable.InstanceStateNotRunning",
    };
    for id in ["i-offline", "i-bare", "i-stopped"] {
        check(json!({"InstanceIds": [id]}), &[unavailable(id)]).await;
    }
    check(json!({"InstanceIds": ["i-windows"]}), &[".AgentUnsupportedCommandType"]).await;
    check(json!({"CommandType": "BAT"}), &[".AgentUnsupportedCommandType"]).await;
    check(json!({"InstanceIds": ["i-1", "i-light"]}), &[".InconsistentInstance"]).await;

    check(json!({"Parameters": "{\"a\":\"1\"}"}), &[".ParameterDisabled"]).await;
    let off = &[".SupportParametersOnlyIfEnableParameter"];
    check(json!({"DefaultParameters": "{\"a\":\"1\"}"}), off).await;
    check(enabled(json!({})), &[".LackOfParameterInfo"]).await;
    let given = |parameters: &str| enabled(json!({"Parameters": parameters}));
    check(given("{'a'}"), &[".ParameterInvalidJsonFormat"]).await;
    check(given(r#"{"a":"1","A":"2"}"#), &[".ParameterKeyDuplicated"]).await;
    check(given(r#"{"a":1}"#), &[".ParameterValueNotString"]).await;
    let nothing = &[".ParameterValueNotString", ".LackOfParameterInfo"];
    check(given(r#"{"a":null}"#), nothing).await;
    let defaults = |parameters: &str| {
        enabled(json!({"Content": base64("exit:0"), "DefaultParameters": parameters}))
    };
    check(defaults(r#"{"ä":"1"}"#), &[".ParameterKeyContainsInvalidChar"]).await;
    check(defaults(&parameters(20)), &[]).await;
    check(defaults(&parameters(21)), &[".ParameterNumberExceeded"]).await;
    check(given(&parameters(21)), &[".ParameterNumberExceeded"]).await;
    let long = |bytes| format!("{{\"{}\":\"1\"}}", "k".repeat(bytes));
    check(defaults(&long(64)), &[]).await;
    check(defaults(&long(65)), &[".ParameterKeyLenExceeded"]).await;
    let conf = json!({"ParameterName": "a", "ParameterValue": "1"});
    let twice = enabled(json!({"DefaultParameterConfs": [conf, conf]}));
    check(twice, &["InvalidParameter.ParameterNameDuplicated"]).await;
    let both = enabled(json!({"DefaultParameterConfs": [conf], "DefaultParameters": "{}"}));
    let both_codes = &["InvalidParameter.ConflictParameter", ".LackOfParameterInfo"];
    check(both, both_codes).await;
    engine.shutdown(Duration::from_secs(5)).await;
    check(json!({}), &["InternalError"]).await;

    raised.remove("InvalidParameter.ConflictParameter");
    assert!(raised.is_disjoint(&BTreeSet::from(NETWORK_CODES)));
    raised.extend(NETWORK_CODES);
    assert_eq!(raised, BTreeSet::from(CODES));
}

/// A code that most have the first half of.
fn expanded(code: &str) -> String {
    match code.strip_prefix('.') {
        Some(rest) => format!("InvalidParameterValue.{rest}"),
        None => code.to_owned(),
    }
}

#[tokio::test]
async fn values_at_their_limits_are_taken() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let check = async |change: Value| {
        let found = codes(&tencent, "RunCommand", run_with(change.clone())).await;
        assert!(found.is_empty(), "{change:.200}: {found:?}");
    };
    check(json!({"Content": base64("x".repeat(48 * 1024))})).await;
    check(json!({"CommandName": "x".repeat(60), "Description": "ü".repeat(120)})).await;
    check(json!({"Timeout": "86400", "Username": "x".repeat(256)})).await;
    check(json!({"Timeout": 1, "SaveCommand": "False", "CommandType": ""})).await;
    let tags: Vec<_> = (0..10).map(|n| json!({"Key": format!("k{n}"), "Value": ""})).collect();
    check(json!({"SaveCommand": true, "Tags": tags})).await;
    let folders = "x".repeat(60);
    check(json!({"OutputCOSBucketUrl": "https://b", "OutputCOSKeyPrefix": folders})).await;
    check(json!({"Action": "RunCommand", "Version": "2020-10-28", "Region": ""})).await;
    let ids: Vec<_> = (1..=100).map(|n| format!("i-{n}")).collect();
    register(&engine, "script", 100).await;
    check(json!({"InstanceIds": ids})).await;
    let limits = Limits::alibaba();
    let lifted = Tencent::with_limits(&engine, limits);
    call(&lifted, "RunCommand", run_with(json!({"CommandName": "x".repeat(128)}))).await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_by_name() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let check = async |action: &str, request: &str, code: &str, says: &str| {
        let error = tencent.call(action, request).await.expect_err(request);
        assert_eq!((error.code, error.http_status()), (code, 200), "{request}");
        assert!(error.message.contains(says), "{error}");
        let json = serde_json::to_value(&error).expect("JSON");
        assert_eq!(json["Error"]["Code"], code);
        assert!(json["RequestId"].is_string());
    };
    check("RunCommands", "{}", "InvalidAction", "RunCommands").await;
    check("RunCommand", "{", "InvalidParameter", "line 1").await;
    check("RunCommand", r#"{"Contents": "x"}"#, "UnknownParameter", "Contents").await;
    let filter = r#"{"Filters": [{"Name": "x", "Value": "y"}]}"#;
    check("DescribeCommands", filter, "UnknownParameter", "Value").await;
    check("RunCommand", r#"{"Timeout": -1}"#, "InvalidParameter", "-1").await;
    check("DescribeQuotas", "{}", "MissingParameter", "ResourceNames").await;
    check("DeleteCommands", "{}", "MissingParameter", "CommandIds").await;
    check("InvokeCommand", "{}", "MissingParameter", "CommandId").await;
    let id = r#"{"CommandId": "cmd-12345678"}"#;
    check("DeleteCommand", id, "InvalidParameterValue.InvalidCommandId", "cmd-12345678").await;
    let digits = "0190a0b0c0d07e0fa0b0c0d0e0f0a0b0";
    let id = format!(r#"{{"CommandId": "cmd-{digits}"}}"#);
    check("DeleteCommand", &id, "ResourceNotFound.CommandNotFound", "`cmd-").await;
    let id = format!(r#"{{"InvocationId": "inv-{digits}"}}"#);
    check("CancelInvocation", &id, "ResourceNotFound.InvocationNotFound", "`inv-").await;
    let all = r#"{"InstanceIds": ["i-9"], "Timeout": 0, "CommandName": "ü", "Username": ""}"#;
    let error = tencent.call("RunCommand", all).await.expect_err("all of it is wrong");
    let fields: Vec<_> = error.violations.iter().map(|violation| violation.field).collect();
    assert_eq!(fields, ["Content", "CommandName", "InstanceIds", "Timeout"], "{error}");
}

#[tokio::test]
async fn commands_are_created_listed_changed_and_deleted() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let create = json!({
        "CommandName": "first", "Content": base64("out:{{word}}"), "EnableParameter": true,
        "DefaultParameters": "{\"word\":\"a\"}", "Tags": [{"Key": "team", "Value": "x"}],
        "OutputCOSBucketUrl": "https://b.example.com/", "OutputCOSKeyPrefix": "logs",
    });
    let id = call(&tencent, "CreateCommand", create.clone()).await["CommandId"].clone();
    let again = refusal(&tencent, "CreateCommand", create).await;
    assert_eq!(again.code, "InvalidParameterValue.CommandNameDuplicated");
    let second = json!({"CommandName": "second", "Content": base64("x"), "CommandType": "BAT"});
    let second = call(&tencent, "CreateCommand", second).await["CommandId"].clone();

    let listed = async |request: Value| -> Vec<String> {
        let answer = call(&tencent, "DescribeCommands", request).await;
        let set = answer["CommandSet"].as_array().expect("a list").iter();
        set.map(|command| command["CommandName"].as_str().expect("a name").to_owned()).collect()
    };
    let filtered = async |name: &str, values: &[&str]| {
        listed(json!({"Filters": [{"Name": name, "Values": values}]})).await
    };
    let id_text = id.as_str().expect("an id");
    assert_eq!(listed(json!({})).await, ["second", "first"]);
    assert_eq!(listed(json!({"CommandIds": [id, second]})).await, ["second", "first"]);
    assert_eq!(listed(json!({"CommandIds": [id]})).await, ["first"]);
    assert_eq!(filtered("command-id", &[&id_text.replace("cmd-", "c-")]).await, ["first"]);
    assert_eq!(filtered("command-name", &["first", "third"]).await, ["first"]);
    assert_eq!(filtered("command-type", &["BAT"]).await, ["second"]);
    assert_eq!(filtered("created-by", &["USER"]).await, ["second", "first"]);
    assert_eq!(filtered("created-by", &["TAT"]).await, [""; 0]);
    assert_eq!(filtered("tag-key", &["team"]).await, ["first"]);
    assert_eq!(filtered("tag-value", &["x", "y"]).await, ["first"]);
    assert_eq!(filtered("tag:team", &["y"]).await, [""; 0]);
    assert_eq!(filtered("tag:team", &["x"]).await, ["first"]);
    let both =
        json!([{"Name": "tag:team", "Values": ["x"]}, {"Name": "command-type", "Values": ["BAT"]}]);
    assert_eq!(listed(json!({"Filters": both})).await, [""; 0]);

    let modify = json!({
        "CommandId": id, "CommandName": "renamed", "Content": base64("out:{{other}}"),
        "CommandType": "POWERSHELL", "DefaultParameters": "{\"other\":\"b\"}",
        "OutputCOSKeyPrefix": "more",
    });
    call(&tencent, "ModifyCommand", modify).await;
    let answer = call(&tencent, "DescribeCommands", json!({"CommandIds": [id]})).await;
    let command = &answer["CommandSet"][0];
    assert_eq!(command["CommandName"], "renamed");
    assert_eq!(command["CommandType"], "POWERSHELL");
    assert_eq!(command["DefaultParameters"], "{\"other\":\"b\"}");
    assert_eq!(command["DefaultParameterConfs"][0]["ParameterName"], "other");
    assert_eq!(command["OutputCOSBucketUrl"], "https://b.example.com");
    assert_eq!(command["OutputCOSKeyPrefix"], "more");
    assert_eq!(command["CreatedBy"], "USER");
    assert_eq!(command["Tags"], json!([{"Key": "team", "Value": "x"}]));
    assert_eq!(text(&command["Content"]), "out:{{other}}");

    let check = async |change: Value, want: &str| {
        let mut request = json!({"CommandId": second});
        let fields = request.as_object_mut().expect("an object");
        fields.extend(change.as_object().expect("an object").clone());
        assert_eq!(codes(&tencent, "ModifyCommand", request).await, [want], "{change:.200}");
    };
    check(json!({"CommandName": "renamed"}), "InvalidParameterValue.CommandNameDuplicated").await;
    let off = "InvalidParameterValue.SupportParametersOnlyIfEnableParameter";
    check(json!({"DefaultParameters": "{\"a\":\"1\"}"}), off).await;
    let folders = "InvalidParameterValue.InvalidOutputCOSKeyPrefix";
    check(json!({"OutputCOSKeyPrefix": "x"}), folders).await;
    check(json!({"Content": "!"}), "InvalidParameterValue.CommandContentInvalid").await;
    check(json!({"EnableParameter": true}), "UnknownParameter").await;

    let quota = call(&tencent, "DescribeQuotas", json!({"ResourceNames": ["COMMAND"]})).await;
    assert_eq!(quota["GeneralResourceQuotaSet"][0]["ResourceQuotaUsed"], 2);
    let unknown = refusal(&tencent, "DescribeQuotas", json!({"ResourceNames": ["X"]})).await;
    assert_eq!(unknown.code, "ResourceUnavailable.InvalidResourceQuotaResourceCode");
    let gone = "cmd-0190a0b0c0d07e0fa0b0c0d0e0f0a0b0";
    let error = refusal(&tencent, "DeleteCommands", json!({"CommandIds": [id, gone]})).await;
    assert_eq!(error.code, "ResourceNotFound.CommandNotFound");
    assert_eq!(listed(json!({})).await, ["second", "renamed"]);
    call(&tencent, "DeleteCommands", json!({"CommandIds": [id]})).await;
    call(&tencent, "DeleteCommand", json!({"CommandId": second})).await;
    assert_eq!(listed(json!({})).await, [""; 0]);
}

#[tokio::test]
async fn values_go_over_defaults_name_by_name() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let create = json!({
        "CommandName": "greet", "Content": base64("out:{{a}} out:{{b}}"), "EnableParameter": "true",
        "DefaultParameterConfs": [{"ParameterName": "a", "ParameterValue": "1"}],
    });
    let id = call(&tencent, "CreateCommand", create).await["CommandId"].clone();
    let invoke = |parameters: &str| json!({"CommandId": id, "InstanceIds": ["i-1"], "Parameters": parameters});
    let preview = async |parameters: &str| {
        codes(
            &tencent,
            "PreviewReplacedCommandContent",
            json!({"CommandId": id, "Parameters": parameters}),
        )
        .await
    };
    let lack = "InvalidParameterValue.LackOfParameters";
    assert_eq!(codes(&tencent, "InvokeCommand", invoke("{\"a\":\"2\"}")).await, [lack]);
    assert_eq!(preview("").await, [lack]);
    let request = json!({"CommandId": id, "Parameters": "{\"B\":\"3\"}"});
    let previewed = call(&tencent, "PreviewReplacedCommandContent", request).await;
    assert_eq!(text(&previewed["ReplacedContent"]), "out:1 out:3");
    let request = json!({"Content": base64("{{x}}"), "Parameters": "{\"x\":\"{{y}}\"}"});
    let previewed = call(&tencent, "PreviewReplacedCommandContent", request).await;
    assert_eq!(text(&previewed["ReplacedContent"]), "{{y}}");
    let both = json!({"CommandId": id, "Content": base64("x")});
    let conflict = refusal(&tencent, "PreviewReplacedCommandContent", both).await;
    assert_eq!(conflict.code, "InvalidParameter.ConflictParameter");
    let neither = refusal(&tencent, "PreviewReplacedCommandContent", json!({})).await;
    assert_eq!(neither.code, "MissingParameter");

    let answer = call(&tencent, "InvokeCommand", invoke(r#"{"b":"2","a":"9"}"#)).await;
    ended(&engine, &answer).await;
    let task = task_of(&tencent, &answer).await;
    assert_eq!(text(&task["TaskResult"]["Output"]), "92");
    let listed = call(&tencent, "DescribeInvocations", json!({})).await;
    assert_eq!(listed["InvocationSet"][0]["DefaultParameters"], "{\"a\":\"1\"}");
}

#[tokio::test]
async fn an_invocation_may_say_otherwise_than_its_command() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let create = json!({
        "CommandName": "c", "Content": base64("exit:0"), "Timeout": 5, "Username": "ann",
        "OutputCOSBucketUrl": "https://b", "OutputCOSKeyPrefix": "x",
    });
    let id = call(&tencent, "CreateCommand", create).await["CommandId"].clone();
    let document = async |change: Value| {
        let mut request = json!({"CommandId": id, "InstanceIds": ["i-1"]});
        let fields = request.as_object_mut().expect("an object");
        fields.extend(change.as_object().expect("an object").clone());
        let answer = call(&tencent, "InvokeCommand", request).await;
        task_of(&tencent, &answer).await["CommandDocument"].take()
    };
    let own = document(json!({})).await;
    assert_eq!((&own["Timeout"], &own["Username"]), (&json!(5), &json!("ann")));
    assert_eq!(own["OutputCOSKeyPrefix"], "x");
    let other = document(json!({"Timeout": 1, "Username": "bob", "OutputCOSKeyPrefix": "y"})).await;
    assert_eq!((&other["Timeout"], &other["Username"]), (&json!(1), &json!("bob")));
    assert_eq!(
        (&other["OutputCOSBucketUrl"], &other["OutputCOSKeyPrefix"]),
        (&json!("https://b"), &json!("y"))
    );
}

#[tokio::test]
async fn what_waits_is_cancelled_and_what_runs_is_terminated() {
    let gate = Gate::new();
    let builder = gate.plug_in(with_executors(Engine::builder()));
    let engine = builder.open().await.expect("an engine in memory");
    register(&engine, "gate", 3).await;
    let tencent = Tencent::new(&engine);
    let run = run_with(json!({"InstanceIds": ["i-1", "i-2", "i-3"]}));
    let answer = call(&tencent, "RunCommand", run).await;
    gate.arrivals(3).await;
    let id = answer["InvocationId"].clone();
    let cancel = |on: Value| json!({"InvocationId": id, "InstanceIds": on});
    let unrelated = refusal(&tencent, "CancelInvocation", cancel(json!(["i-9"]))).await;
    assert_eq!(unrelated.code, "InvalidParameterValue.InstanceIsNotRelatedToInvocation");
    let invoke_id: InvokeId = id.as_str().expect("an id").parse().expect("an id");
    let mut watch = engine.watch(&invoke_id).await.expect("it exists");
    call(&tencent, "CancelInvocation", cancel(json!(["i-1"]))).await;
    // Else it might be let go before it hears of the end.
    loop {
        match within(watch.next()).await.expect("readable") {
            Some(Event::Status { status: ExecutionStatus::Terminated, .. }) => break,
            event => assert!(event.is_some(), "one is terminated"),
        }
    }
    gate.let_go(2);
    wait(&engine, &invoke_id).await;
    let listed = call(&tencent, "DescribeInvocations", json!({"InvocationIds": [id]})).await;
    let invocation = &listed["InvocationSet"][0];
    let tasks = invocation["InvocationTaskBasicInfoSet"].as_array().expect("a list").iter();
    let statuses: Vec<_> = tasks.map(|task| task["TaskStatus"].clone()).collect();
    assert_eq!(statuses, ["TERMINATED", "SUCCESS", "SUCCESS"]);
    assert_eq!(invocation["InvocationStatus"], "PARTIAL_CANCELLED");
}

#[tokio::test]
async fn ends_have_their_statuses() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let check = async |script: &str, task: &str, invocation: &str| {
        let run = run_with(json!({"Content": base64(script)}));
        let answer = call(&tencent, "RunCommand", run).await;
        ended(&engine, &answer).await;
        assert_eq!(task_of(&tencent, &answer).await["TaskStatus"], task, "{script}");
        let request = json!({"InvocationIds": [answer["InvocationId"]]});
        let listed = call(&tencent, "DescribeInvocations", request).await;
        assert_eq!(listed["InvocationSet"][0]["InvocationStatus"], invocation, "{script}");
    };
    check("exit:0", "SUCCESS", "SUCCESS").await;
    check("exit:3", "FAILED", "FAILED").await;
    check("fail:broken", "START_FAILED", "FAILED").await;
}

#[tokio::test]
async fn listings_go_by_offset() {
    let engine = engine().await;
    unsuited(&engine).await;
    let tencent = Tencent::new(&engine);
    for n in 0..25 {
        let create = json!({"CommandName": format!("c-{n:02}"), "Content": base64("x")});
        call(&tencent, "CreateCommand", create).await;
    }
    let check = async |request: Value, first: Option<&str>, count: usize| {
        let answer = call(&tencent, "DescribeCommands", request.clone()).await;
        let set = answer["CommandSet"].as_array().expect("a list");
        let name = set.first().and_then(|command| command["CommandName"].as_str());
        assert_eq!((name, set.len()), (first, count), "{request}");
        assert_eq!(answer["TotalCount"], 25);
    };
    check(json!({}), Some("c-24"), 20).await;
    check(json!({"Offset": 20}), Some("c-04"), 5).await;
    check(json!({"Limit": "100"}), Some("c-24"), 25).await;
    check(json!({"Limit": 2, "Offset": "23"}), Some("c-01"), 2).await;
    check(json!({"Offset": 25}), None, 0).await;

    let refused = async |action: &str, request: Value, code: &str| {
        assert_eq!(refusal(&tencent, action, request.clone()).await.code, code, "{request:.200}");
    };
    let filter = |name: &str, count: usize| json!({"Name": name, "Values": vec!["x"; count]});
    let filters = |name: &str, count| json!({"Filters": [filter(name, count)]});
    let range = "InvalidParameterValue.Range";
    refused("DescribeCommands", json!({"Limit": 0}), range).await;
    refused("DescribeCommands", json!({"Limit": 101}), range).await;
    let too_many = "LimitExceeded.FilterValueExceeded";
    refused("DescribeCommands", filters("tag-key", 6), too_many).await;
    let unknown = "InvalidParameterValue.InvalidFilter";
    for action in [
        "DescribeCommands",
        "DescribeInvocations",
        "DescribeInvocationTasks",
        "DescribeAutomationAgentStatus",
    ] {
        refused(action, filters("colour", 1), unknown).await;
        refused(
            action,
            json!({"Filters": vec![filter("colour", 1); 11]}),
            "InvalidParameterValue.LimitExceeded",
        )
        .await;
    }
    refused("DescribeCommands", filters("tag-key", 0), unknown).await;
    refused("DescribeAutomationAgentStatus", filters("agent-status", 1), unknown).await;
    let conflict = "InvalidParameter.ConflictParameter";
    let both = json!({"InstanceIds": ["i-1"], "Filters": [filter("instance-id", 1)]});
    refused("DescribeAutomationAgentStatus", both, conflict).await;
    let task = json!({"InvocationTaskIds": ["x"]});
    let malformed = "InvalidParameterValue.InvalidInvocationTaskId";
    refused("DescribeInvocationTasks", task, malformed).await;
}

#[tokio::test]
async fn agents_and_tasks_are_filtered() {
    let engine = engine().await;
    unsuited(&engine).await;
    let tencent = Tencent::new(&engine);
    let agents = async |name: &str, values: &[&str]| -> Vec<String> {
        let request = json!({"Filters": [{"Name": name, "Values": values}]});
        let answer = call(&tencent, "DescribeAutomationAgentStatus", request).await;
        let set = answer["AutomationAgentSet"].as_array().expect("a list");
        assert_eq!(answer["TotalCount"], set.len());
        set.iter().map(|agent| agent["InstanceId"].as_str().expect("an id").to_owned()).collect()
    };
    assert_eq!(agents("agent-status", &["Offline"]).await, ["i-offline", "i-bare"]);
    assert_eq!(agents("environment", &["Windows"]).await, ["i-windows"]);
    assert_eq!(agents("instance-id", &["i-1", "i-9"]).await, ["i-1"]);
    let named = json!({"InstanceIds": ["i-1", "i-9"]});
    let error = refusal(&tencent, "DescribeAutomationAgentStatus", named).await;
    assert_eq!(error.code, "ResourceNotFound.InstanceNotFound");

    let first =
        call(&tencent, "RunCommand", run_with(json!({"InstanceIds": ["i-1", "i-2"]}))).await;
    let light = run_with(json!({"InstanceIds": ["i-light"]}));
    let second = call(&tencent, "RunCommand", light).await;
    ended(&engine, &first).await;
    ended(&engine, &second).await;
    let total = async |action: &str, name: &str, values: Value| {
        let request = json!({"Filters": [{"Name": name, "Values": values}]});
        call(&tencent, action, request).await["TotalCount"].clone()
    };
    let tasks = "DescribeInvocationTasks";
    assert_eq!(total(tasks, "instance-id", json!(["i-2", "i-light"])).await, 2);
    assert_eq!(total(tasks, "command-id", json!([first["CommandId"]])).await, 2);
    assert_eq!(total(tasks, "invocation-task-id", json!(["invt-1", "2"])).await, 2);
    let invocations = "DescribeInvocations";
    assert_eq!(total(invocations, "instance-kind", json!(["LIGHTHOUSE"])).await, 1);
    assert_eq!(total(invocations, "command-id", json!([second["CommandId"]])).await, 1);
    let both = json!([first["InvocationId"], second["InvocationId"]]);
    assert_eq!(total(invocations, "invocation-id", both).await, 2);
}

#[test]
fn typed_requests_are_the_bodies_of_actions() {
    let request = RunCommand {
        content: Some("d2hvYW1p".to_owned()),
        instance_ids: vec!["i-1".into()],
        enable_parameter: Some(true),
        parameters: Some(Parameters::from_iter([("password", "hunter2")])),
        output_cos_bucket_url: Some("https://b".to_owned()),
        ..RunCommand::default()
    };
    let body = serde_json::to_value(&request).expect("JSON");
    let want = json!({
        "Content": "d2hvYW1p", "InstanceIds": ["i-1"], "EnableParameter": true,
        "Parameters": "{\"password\":\"hunter2\"}", "OutputCOSBucketUrl": "https://b",
    });
    assert_eq!(body, want);
    assert_eq!(serde_json::from_value::<RunCommand>(body).expect("it reads back"), request);
    assert!(!format!("{request:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_skipped_fire_leaves_a_task_as_it_stands() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let request = adjutant::RunCommand::shell("hang").on(["i-1"]).frequency("rate(2m)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.run_now(&id).await.expect("it fires");
    engine.run_now(&id).await.expect("it gives way");
    let request = json!({"InvocationIds": [id.to_string().replace("t-", "inv-")]});
    let listed = call(&tencent, "DescribeInvocations", request).await;
    let tasks = listed["InvocationSet"][0]["InvocationTaskBasicInfoSet"].as_array();
    let tasks = tasks.expect("a list");
    assert_eq!(tasks.len(), 1, "{listed}");
    assert_ne!(tasks[0]["TaskStatus"], "CANCELLED", "{listed}");
    assert_ne!(listed["InvocationSet"][0]["InvocationStatus"], "CANCELLED", "{listed}");
}

#[tokio::test]
async fn what_the_pages_do_not_name_is_as_the_host_has_it() {
    let mut own = Limits::alibaba();
    (own.invocations_per_day_max, own.kept_commands_max) = (1, 1);
    (own.instances_max, own.name_chars_max) = (1_000, 1);
    let engine = with_executors(Engine::builder()).limits(own).open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let tencent = Tencent::new(&engine);
    call(&tencent, "RunCommand", run_with(json!({"CommandName": "long"}))).await;
    assert_eq!(codes(&tencent, "RunCommand", run_with(json!({}))).await, ["LimitExceeded"]);
    let create = |name: &str| json!({"CommandName": name, "Content": base64("exit:0")});
    call(&tencent, "CreateCommand", create("a")).await;
    assert_eq!(codes(&tencent, "CreateCommand", create("b")).await, ["LimitExceeded"]);
    let many: Vec<_> = (0..101).map(|n| format!("i-{n}")).collect();
    let found = codes(&tencent, "RunCommand", run_with(json!({"InstanceIds": many}))).await;
    assert!(found.contains(&"InvalidParameterValue.LimitExceeded"), "{found:?}");
}

#[tokio::test]
async fn nothing_is_refused_twice_or_for_want_of_what_was_refused() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let create = json!({
        "CommandName": "c", "Content": base64("out:{{a}}"), "EnableParameter": true,
    });
    let id = call(&tencent, "CreateCommand", create).await["CommandId"].clone();
    let nobody = format!("cmd-{}", "0".repeat(32));
    for (id, parameters, want) in [
        (json!("nope"), json!(null), "InvalidParameterValue.InvalidCommandId"),
        (json!(nobody), json!(null), "ResourceNotFound.CommandNotFound"),
        (json!(null), json!(null), "MissingParameter"),
        (id.clone(), json!("{"), "InvalidParameterValue.ParameterInvalidJsonFormat"),
        (id, json!("{}"), "InvalidParameterValue.LackOfParameters"),
    ] {
        let mut request = json!({"InstanceIds": ["i-1"]});
        for (key, value) in [("CommandId", id), ("Parameters", parameters)] {
            if !value.is_null() {
                request[key] = value;
            }
        }
        let shown = request.to_string();
        assert_eq!(codes(&tencent, "InvokeCommand", request).await, [want], "{shown}");
    }
}

#[tokio::test]
async fn a_command_without_a_name_is_called_by_its_id() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let answer = call(&tencent, "RunCommand", run_with(json!({"SaveCommand": true}))).await;
    let id = &answer["CommandId"];
    ended(&engine, &answer).await;
    for filter in ["command-id", "command-name"] {
        let request = json!({"Filters": [{"Name": filter, "Values": [id]}]});
        let listed = call(&tencent, "DescribeCommands", request).await;
        assert_eq!(&listed["CommandSet"][0]["CommandName"], id, "{filter}: {listed}");
    }
    assert_eq!(&task_of(&tencent, &answer).await["CommandName"], id);
    let filter = json!([{"Name": "command-id", "Values": [id]}]);
    for action in ["DescribeInvocations", "DescribeInvocationTasks"] {
        let listed = call(&tencent, action, json!({"Filters": filter})).await;
        assert_eq!(listed["TotalCount"], 1, "{action}");
    }
    let unkept = call(&tencent, "RunCommand", run_with(json!({}))).await;
    let filter = json!([{"Name": "command-id", "Values": [id, unkept["CommandId"]]}]);
    let listed = call(&tencent, "DescribeInvocations", json!({"Filters": filter})).await;
    assert_eq!(listed["TotalCount"], 2);
}

#[tokio::test]
async fn debugging_shows_no_values_of_parameters() {
    let engine = engine().await;
    let tencent = Tencent::new(&engine);
    let confs = json!([{"ParameterName": "a", "ParameterValue": "hunter2"}]);
    let request = run_with(json!({
        "Content": base64("out:{{a}}"), "EnableParameter": true, "SaveCommand": true,
        "DefaultParameterConfs": confs, "Parameters": "{\"a\":\"hunter2\"}",
    }));
    let typed: RunCommand = serde_json::from_value(request).expect("a request");
    let mut shown = vec![format!("{typed:?}")];
    tencent.run_command(typed).await.expect("sound");
    let commands = tencent.describe_commands(Default::default()).await.expect("sound");
    let invocations = tencent.describe_invocations(Default::default()).await.expect("sound");
    assert!(invocations.invocation_set[0].parameters.contains("hunter2"));
    shown.extend([format!("{commands:?}"), format!("{invocations:?}")]);
    for shown in shown {
        assert!(!shown.contains("hunter2") && shown.contains('…'), "{shown}");
    }
}

/// Refuses what names one of these, and what it is not told enough of.
struct Fence {
    command: Arc<Mutex<Option<CommandId>>>,
    invocation: Arc<Mutex<Option<InvokeId>>>,
}

impl Authorizer for Fence {
    async fn authorize(&self, action: Action) -> Result<(), String> {
        let command = *self.command.lock().expect("no panic");
        let invocation = *self.invocation.lock().expect("no panic");
        let is_fenced = command.is_some()
            && ((command.is_some() && action.command_id == command)
                || (invocation.is_some() && action.invoke_id == invocation)
                || action.instance_ids.iter().any(|id| id.as_str() == "i-2"));
        if is_fenced { Err("it is fenced".to_owned()) } else { Ok(()) }
    }
}

#[tokio::test]
async fn the_host_is_asked_of_everything_that_is_named() {
    let (command, invocation) = (Arc::default(), Arc::default());
    let fence = Fence { command: Arc::clone(&command), invocation: Arc::clone(&invocation) };
    let engine = with_executors(Engine::builder()).authorizer(fence).open().await.expect("one");
    register(&engine, "script", 2).await;
    let tencent = Tencent::new(&engine);
    let answer = call(&tencent, "RunCommand", run_with(json!({"SaveCommand": true}))).await;
    ended(&engine, &answer).await;
    let task = task_of(&tencent, &answer).await["InvocationTaskId"].clone();
    let parsed = |key: &str| answer[key].as_str().expect("an id").parse();
    *command.lock().expect("no panic") = parsed("CommandId").ok();
    let id = answer["InvocationId"].as_str().expect("an id").parse::<InvokeId>();
    *invocation.lock().expect("no panic") = id.ok();
    let by = |name: &str, value: &Value| json!({"Filters": [{"Name": name, "Values": [value]}]});
    let (command, invocation) = (&answer["CommandId"], &answer["InvocationId"]);
    for (action, request) in [
        ("DescribeCommands", json!({"CommandIds": [command]})),
        ("DescribeInvocations", json!({"InvocationIds": [invocation]})),
        ("DescribeInvocations", by("command-id", command)),
        ("DescribeInvocationTasks", by("command-id", command)),
        ("DescribeInvocationTasks", by("invocation-id", invocation)),
        ("DescribeInvocationTasks", by("instance-id", &json!("i-2"))),
        ("DescribeInvocationTasks", json!({"InvocationTaskIds": [task]})),
        ("DescribeAutomationAgentStatus", by("instance-id", &json!("i-2"))),
        (
            "InvokeCommand",
            json!({"CommandId": command, "InstanceIds": ["i-1"], "OutputCOSKeyPrefix": "x"}),
        ),
    ] {
        let shown = format!("{action} {request}");
        let error = refusal(&tencent, action, request).await;
        assert_eq!(error.code, "AuthFailure.UnauthorizedOperation", "{shown}");
    }
}

//! The JSON documents of the API pages: every field that a request of theirs may have is taken, and
//! every field that an answer of theirs has is there.

use std::collections::BTreeSet;

use adjutant::{CreateCommand, Engine, InvokeId, RunCommand};
use serde_json::{Value, json};

use crate::support::{ask, pages, wait, with};

/// What any request of the pages may have.
fn legacy() -> Value {
    json!({
        "RegionId": "cn-hangzhou", "OwnerAccount": "a@example.com", "OwnerId": 155_780_923_770_i64,
        "ResourceOwnerAccount": "a@example.com", "ResourceOwnerId": 155_780_923_770_i64,
    })
}

fn paging() -> Value {
    json!({"MaxResults": 10, "NextToken": ""})
}

struct World {
    engine: Engine,
    command_id: String,
    invoke_id: InvokeId,
}

async fn world() -> World {
    let engine = pages().await;
    let create = CreateCommand::shell("greet", "out:{{name}}").enable_parameter().tag("k", "v");
    let create = create.default_parameters([("name", "x")]);
    let command_id = engine.create_command(create).await.expect("sound").command_id.to_string();
    let request = RunCommand::shell("out:hello exit:3").on(["i-1"]).tag("k", "v");
    let invoke_id = engine.run_command(request).await.expect("sound").invoke_id;
    wait(&engine, &invoke_id).await;
    World { engine, command_id, invoke_id }
}

/// Every documented field of each request, with a value as its page has it.
fn requests(world: &World) -> Vec<(&'static str, usize, Value)> {
    let tag = || json!([{"Key": "k", "Value": "v"}]);
    let command = json!({
        "CommandContent": "ZXhpdDow", "ContentEncoding": "Base64", "Description": "testDescription",
        "EnableParameter": false, "Launcher": "", "Name": "testName", "ResourceGroupId": "",
        "Tag": tag(), "Timeout": 60, "Type": "RunShellScript", "WorkingDir": "/home/user",
        "ClientToken": "123e4567-e89b-12d3-a456-426655440000",
    });
    let invoke = json!({
        "ContainerId": "", "ContainerName": "", "Frequency": "", "InstanceId": ["i-1"],
        "Launcher": "", "OssOutputDelivery": "oss://testBucket/testPrefix", "Parameters": {},
        "RepeatMode": "Once", "ResourceGroupId": "", "ResourceTag": [], "Tag": tag(),
        "TerminationMode": "ProcessTree", "Timed": true, "Timeout": 60, "Username": "",
        "WindowsPasswordName": "", "WorkingDir": "/home/user",
    });
    let both = with(command.clone(), invoke.clone());
    let run = json!({"KeepCommand": false, "ClientToken": "123e4567-e89b-12d3-a456-426655440001"});
    let invoke = with(
        invoke,
        json!({
            "CommandId": world.command_id, "ClientToken": "123e4567-e89b-12d3-a456-426655440002",
        }),
    );
    let group = || json!({"ResourceGroupId": "rg-bp67acfmxazb4p", "Tag": tag()});
    let listing = |own: Value| with(with(own, group()), paging());
    vec![
        ("CreateCommand", 17, command),
        (
            "ModifyCommand",
            12,
            json!({
                "CommandContent": "ZWNobyAx", "CommandId": world.command_id, "Description": "d",
                "Launcher": "", "Name": "n", "Timeout": 60, "WorkingDir": "/root",
            }),
        ),
        (
            "DescribeCommands",
            18,
            listing(json!({
                "CommandId": world.command_id, "ContentEncoding": "PlainText", "Description": "d",
                "Latest": true, "Name": "n", "PageNumber": null, "PageSize": null,
                "Provider": "User", "Type": "RunShellScript",
            })),
        ),
        ("RunCommand", 30, with(both, run)),
        ("InvokeCommand", 24, invoke),
        ("StopInvocation", 7, json!({"InstanceId": ["i-1"], "InvokeId": world.invoke_id})),
        (
            "DescribeInvocations",
            21,
            listing(json!({
                "CommandId": world.command_id, "CommandName": "CommandTestName",
                "CommandType": "RunShellScript", "ContentEncoding": "PlainText",
                "IncludeOutput": true, "InstanceId": "i-1", "InvokeId": world.invoke_id,
                "InvokeStatus": "Finished", "PageNumber": null, "PageSize": null,
                "RepeatMode": "Once", "Timed": true,
            })),
        ),
        (
            "DescribeInvocationResults",
            17,
            listing(json!({
                "CommandId": world.command_id, "ContentEncoding": "PlainText",
                "IncludeHistory": false, "InstanceId": "i-1", "InvokeId": world.invoke_id,
                "InvokeRecordStatus": "Running", "PageNumber": null, "PageSize": null,
            })),
        ),
        (
            "DescribeCloudAssistantStatus",
            11,
            with(
                paging(),
                json!({
                    "InstanceId": ["i-1"], "OSType": "Linux", "PageNumber": null, "PageSize": null,
                }),
            ),
        ),
        ("DeleteCommand", 6, json!({"CommandId": world.command_id})),
    ]
}

#[tokio::test]
async fn every_field_of_the_pages_requests_is_taken() {
    let world = world().await;
    for (operation, fields, request) in requests(&world) {
        let request = with(legacy(), request);
        assert_eq!(request.as_object().expect("an object").len(), fields, "{operation}");
        // As texts too, which is how the pages' own clients send them.
        let scalars = request.as_object().expect("an object").iter();
        let texts: serde_json::Map<_, _> = scalars
            .map(|(key, value)| match value {
                Value::Bool(_) | Value::Number(_) => (key.clone(), json!(value.to_string())),
                _ => (key.clone(), value.clone()),
            })
            .collect();
        if operation != "DeleteCommand" {
            ask(&world.engine, operation, texts.into()).await.expect(operation);
        }
        if let Some(command) = world.in_use().await {
            wait(&world.engine, &command).await;
        }
        ask(&world.engine, operation, request).await.expect(operation);
        let by_number = json!({"PageNumber": 1, "PageSize": "10"});
        if operation.starts_with("Describe") {
            ask(&world.engine, operation, with(legacy(), by_number)).await.expect(operation);
        }
    }
}

impl World {
    /// An invocation that has not ended.
    async fn in_use(&self) -> Option<InvokeId> {
        let listed = self.engine.describe_invocations(Default::default()).await.expect("a page");
        let unfinished = listed.invocations.iter().find(|one| one.finish_time.is_none());
        unfinished.map(|one| one.invoke_id)
    }
}

/// What the pages' answers have and these do not, and why.
const MISSING: &[(&str, &str)] = &[
    ("Category", "commands have tags instead"),
    ("PatternRegex", "a parameter has a default and no more"),
    ("PossibleValues", "a parameter has a default and no more"),
    ("ParameterDefinition.Description", "a parameter has a default and no more"),
];

/// Checks that an object has the fields, but for those in `MISSING`.
fn check(object: &Value, what: &str, fields: &str) {
    let object = object.as_object().unwrap_or_else(|| panic!("{what} is {object}"));
    for field in fields.split_whitespace() {
        let excused =
            MISSING.iter().any(|(name, _)| *name == field || *name == format!("{what}.{field}"));
        assert_ne!(object.contains_key(field), excused, "{what}.{field}");
    }
}

#[tokio::test]
async fn every_field_of_the_pages_answers_is_there() {
    let world = world().await;
    let ask = async |operation: &str, request: Value| {
        ask(&world.engine, operation, request).await.expect(operation)
    };
    let plain = json!({"ContentEncoding": "PlainText"});
    let pages = "NextToken PageNumber PageSize TotalCount";
    let top = |list: &str| format!("{list} RequestId {pages}");
    let listed = ask("DescribeCommands", plain.clone()).await;
    check(&listed, "DescribeCommands", &top("Commands"));
    let command = &listed["Commands"]["Command"][0];
    check(
        command,
        "Command",
        "Category CommandContent CommandId CreationTime Description EnableParameter InvokeTimes Latest
         Launcher Name ParameterDefinitions ParameterNames Provider ResourceGroupId Tags Timeout Type
         Version WorkingDir",
    );
    assert_eq!(command["CommandContent"], "out:{{name}}");
    assert_eq!(command["ParameterNames"]["ParameterName"], json!(["name"]));
    assert_eq!(command["Tags"]["Tag"], json!([{"TagKey": "k", "TagValue": "v"}]));
    let definition = &command["ParameterDefinitions"]["ParameterDefinition"][0];
    let fields = "DefaultValue Description ParameterName PatternRegex PossibleValues Required";
    check(definition, "ParameterDefinition", fields);

    let one = with(plain.clone(), json!({"InvokeId": world.invoke_id, "IncludeOutput": true}));
    let listed = ask("DescribeInvocations", one).await;
    check(&listed, "DescribeInvocations", &top("Invocations"));
    let invocation = &listed["Invocations"]["Invocation"][0];
    check(
        invocation,
        "Invocation",
        "CommandContent CommandDescription CommandId CommandName CommandType ContainerId ContainerName
         CreationTime Frequency InvocationStatus InvokeId InvokeInstances InvokeStatus Launcher
         OssOutputDelivery Parameters RepeatMode Tags TerminationMode Timed Timeout Username WorkingDir",
    );
    let instance = &invocation["InvokeInstances"]["InvokeInstance"][0];
    check(
        instance,
        "InvokeInstance",
        "CreationTime Dropped ErrorCode ErrorInfo ExitCode FinishTime InstanceId InstanceInvokeStatus
         InvocationStatus OssOutputErrorCode OssOutputErrorInfo OssOutputStatus OssOutputUri Output
         Repeats StartTime StopTime Timed UpdateTime",
    );
    assert_eq!((&instance["Output"], &instance["ExitCode"]), (&json!("hello"), &json!(3)));
    let time = instance["FinishTime"].as_str().expect("a text");
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    assert_eq!(instance["StopTime"], "");

    let listed = ask("DescribeInvocationResults", plain).await;
    check(&listed, "DescribeInvocationResults", "Invocation RequestId");
    check(&listed["Invocation"], "ResultPage", &format!("InvocationResults {pages}"));
    let result = &listed["Invocation"]["InvocationResults"]["InvocationResult"][0];
    check(
        result,
        "InvocationResult",
        "CommandId ContainerId ContainerName Dropped ErrorCode ErrorInfo ExitCode FinishedTime InstanceId
         InvocationStatus InvokeId InvokeRecordStatus Launcher OssOutputDelivery OssOutputErrorCode
         OssOutputErrorInfo OssOutputStatus OssOutputUri Output Repeats StartTime StopTime Tags
         TerminationMode Username",
    );
    assert_eq!(result["Output"], "hello");

    let listed = ask("DescribeCloudAssistantStatus", json!({})).await;
    let list = "InstanceCloudAssistantStatusSet";
    check(&listed, "DescribeCloudAssistantStatus", &top(list));
    check(
        &listed[list]["InstanceCloudAssistantStatus"][0],
        "InstanceCloudAssistantStatus",
        "ActiveTaskCount CloudAssistantStatus CloudAssistantVersion InstanceId InvocationCount
         LastHeartbeatTime LastInvokedTime OSType SupportSessionManager",
    );

    let requests = requests(&world);
    let answers = [
        ("CreateCommand", "CommandId RequestId"),
        ("ModifyCommand", "RequestId"),
        ("RunCommand", "CommandId InvokeId RequestId"),
        ("InvokeCommand", "InvokeId RequestId"),
        ("StopInvocation", "RequestId"),
    ];
    for (operation, fields) in answers {
        let request = requests.iter().find(|(name, ..)| *name == operation).expect("listed");
        let answer = ask(operation, request.2.clone()).await;
        check(&answer, operation, fields);
        // An answer of the pages has no other field.
        let has: BTreeSet<_> = answer.as_object().expect("an object").keys().collect();
        assert_eq!(has.len(), fields.split_whitespace().count(), "{operation} {has:?}");
    }
}

/// What is written is read again, so that a host may keep requests and answers as JSON.
#[tokio::test]
async fn answers_are_read_again_as_they_are_written() {
    let world = world().await;
    fn check<T>(value: &T)
    where
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        let json = serde_json::to_value(value).expect("it is JSON");
        let again: T =
            serde_json::from_value(json.clone()).unwrap_or_else(|e| panic!("{json}: {e}"));
        assert_eq!(serde_json::to_value(again).expect("it is JSON"), json);
    }
    let engine = &world.engine;
    check(&engine.describe_commands(Default::default()).await.expect("a page"));
    check(&engine.describe_invocations(Default::default()).await.expect("a page"));
    check(&engine.describe_invocation_results(Default::default()).await.expect("a page"));
    check(&engine.describe_instances(Default::default()).await.expect("a page"));
    check(&engine.describe_cloud_assistant_status(Default::default()).await.expect("a page"));
    check(&engine.quotas().await.expect("readable"));
    check(&RunCommand::shell(b"\xff\xfe").on(["i-1"]).parameters([("a", "b")]));
}

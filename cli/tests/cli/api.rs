//! Operations of the API pages, with the pages' own JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::{Done, Place};

/// Calls the program with a text on its standard input.
fn call(place: &Place, words: &[&str], input: &str) -> Done {
    let mut command = place.command(&[&["api"], words].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    // A program that has refused its arguments reads nothing.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    Done::new(child.wait_with_output().expect("it ends"))
}

/// The answer to a request, and the exit status that goes with it.
fn answer(place: &Place, operation: &str, request: &Value) -> (Option<i32>, Value) {
    let done = call(place, &[operation], &request.to_string());
    let answer = serde_json::from_str(&done.out);
    (done.code, answer.unwrap_or_else(|_| panic!("no JSON: {} {}", done.out, done.err)))
}

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[test]
fn the_pages_sample_requests_get_the_documented_responses() {
    Place::with_and_without_owner(&["i-bp185dy2o3o6neg"], |place, _| {
        // As a query writes it, and as JSON.
        for instance in ["InstanceId.1", "InstanceId"] {
            let mut request = json!({
                "Action": "RunCommand", "CommandContent": "echo hello", "Name": "Test",
                "RegionId": "cn-hangzhou", "Type": "RunShellScript", "Username": "root",
            });
            let id = json!("i-bp185dy2o3o6neg");
            request[instance] = if instance == "InstanceId" { json!([id]) } else { id };
            // Whoever runs the test need not be root; it is the request that counts.
            let (code, run) = answer(place, "RunCommand", &request);
            assert_eq!((code, fields(&run)), (Some(0), vec!["CommandId", "InvokeId", "RequestId"]));
        }
        let create = json!({
            "Name": "testName", "Type": "RunShellScript", "CommandContent": "ZWNobyB7e3h9fQ==",
            "EnableParameter": "true", "Tag": [{"Key": "k", "Value": "v"}],
        });
        let (_, created) = answer(place, "CreateCommand", &create);
        let command_id = created["CommandId"].clone();
        let modify = json!({"CommandId": command_id, "Description": "d", "Timeout": "30"});
        let (code, modified) = answer(place, "ModifyCommand", &modify);
        assert_eq!((code, fields(&modified)), (Some(0), vec!["RequestId"]));
        let invoke = json!({
            "CommandId": command_id, "InstanceId": ["i-bp185dy2o3o6neg"], "Timeout": 60,
            "Parameters": "{\"x\":\"1\"}", "RepeatMode": "Once", "TerminationMode": "ProcessTree",
        });
        let (code, invoked) = answer(place, "InvokeCommand", &invoke);
        assert_eq!((code, fields(&invoked)), (Some(0), vec!["InvokeId", "RequestId"]));
        let id = invoked["InvokeId"].as_str().expect("an id");
        place.wait_until(id, "Success");
        let (_, results) = answer(place, "DescribeInvocationResults", &json!({"InvokeId": id}));
        let result = &results["Invocation"]["InvocationResults"]["InvocationResult"][0];
        assert_eq!(result["Output"], "MQo=");
        let (_, described) =
            answer(place, "DescribeInvocations", &json!({"InvokeId": id, "IncludeOutput": true}));
        let instance = &described["Invocations"]["Invocation"][0]["InvokeInstances"];
        assert_eq!(instance["InvokeInstance"][0]["Output"], "MQo=");
        let (code, stopped) = answer(place, "StopInvocation", &json!({"InvokeId": id}));
        assert_eq!((code, fields(&stopped)), (Some(0), vec!["RequestId"]));
        let (_, listed) = answer(place, "DescribeCommands", &json!({"Name": "test*"}));
        assert_eq!(listed["Commands"]["Command"][0]["Description"], "d");
        assert_eq!(listed["TotalCount"], 1);
        let (_, agents) = answer(place, "DescribeCloudAssistantStatus", &json!({}));
        let agents = &agents["InstanceCloudAssistantStatusSet"]["InstanceCloudAssistantStatus"];
        assert_eq!(agents[1]["CloudAssistantStatus"], "true");
        assert_eq!(agents[1]["InvocationCount"], 3);
        let (code, deleted) = answer(place, "DeleteCommand", &json!({"CommandId": command_id}));
        assert_eq!((code, fields(&deleted)), (Some(0), vec!["RequestId"]));
        place.ok(&["stop", id]);
    });
}

#[test]
fn a_failure_is_an_answer() {
    let place = Place::new();
    let check = |operation: &str, input: &str, code: &str, message: &str| {
        let done = call(&place, &[operation], input);
        assert_eq!(done.code, Some(1), "{input}: {}", done.err);
        let answer: Value = serde_json::from_str(&done.out).expect("JSON");
        assert_eq!(fields(&answer), ["Code", "Message", "RequestId", "Violations"]);
        assert_eq!(answer["Code"], code, "{input}");
        let said = answer["Message"].as_str().expect("a text");
        assert!(said.contains(message), "{input}: {said}");
    };
    check("RunCommand", "", "MissingParam.InstanceId", "name 1 to 100 instances");
    check("RunCommand", "{", "InvalidParameter", "EOF while parsing");
    check("RunCommand", "[]", "InvalidParameter", "want an object");
    check("RunCommand", r#"{"Nope":1}"#, "InvalidParameter", "unknown field `Nope`");
    check("RunCommand", r#"{"Timeout":"soon"}"#, "InvalidParameter", "`Timeout`: invalid value");
    check(
        "RunCommand",
        r#"{"InstanceId.1":"i","InstanceId":"i"}"#,
        "InvalidParameter",
        "InstanceId",
    );
    check("RunCommand", r#"{"Action":"StopInvocation"}"#, "InvalidParameter", "`Action`");
    check(
        "RebootInstance",
        "{}",
        "InvalidAction.NotFound",
        "there is no operation `RebootInstance`",
    );
    check(
        "InvokeCommand",
        r#"{"CommandId":"c-1","InstanceId":["local"]}"#,
        "InvalidCmdId.NotFound",
        "`c-1`",
    );
    check("RunCommand", &"x".repeat(600 * 1024), "InvalidParameter", "at most 524288 bytes");
    let exec =
        r#"{"ContainerGroupId":"local","ContainerName":"web","Command":"[\"ls\"]","Sync":true}"#;
    check("ExecContainerCommand", exec, "IncorrectStatus", "runs nothing in containers");
    let done = place.run(&["api"]);
    assert_eq!(done.code, Some(2), "{}", done.err);
}

#[test]
fn a_batch_has_an_answer_a_line() {
    let place = Place::new();
    let lines = [
        json!({"op": "CreateCommand", "request": {"Name": "n", "Type": "RunShellScript", "CommandContent": "dHJ1ZQ=="}}),
        json!({"op": "DescribeCommands", "request": {"Name": "n"}}),
        json!({"op": "Nope", "request": {}}),
        json!("no line"),
        json!({"op": "DescribeInvocations", "request": {}}),
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n\n")).collect();
    let done = call(&place, &["--batch"], &input);
    assert_eq!(done.code, Some(1), "one of them failed");
    let answers: Vec<Value> =
        done.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), lines.len());
    assert_eq!(answers[1]["Commands"]["Command"][0]["CommandId"], answers[0]["CommandId"]);
    assert_eq!(answers[2]["Code"], "InvalidAction.NotFound");
    assert_eq!(answers[3]["Code"], "InvalidParameter");
    assert_eq!(answers[4]["TotalCount"], 0);
    assert_eq!(call(&place, &["--batch"], "").code, Some(0));
    place.wait_until_unowned();
}

#[test]
fn nothing_is_waited_for() {
    let place = Place::new();
    let gate = place.gate("gate");
    let request = json!({
        "Type": "RunShellScript", "CommandContent": gate.wait(), "InstanceId": ["local"],
    });
    let (code, run) = answer(&place, "RunCommand", &request);
    assert_eq!(code, Some(0));
    let id = run["InvokeId"].as_str().expect("an id");
    place.wait_until(id, "Running");
    gate.open();
    place.wait_until(id, "Success");
    place.wait_until_unowned();
}

#[test]
fn how_a_script_is_given_and_run_can_be_said() {
    let place = Place::new();
    assert_eq!(place.ok(&["run", "--base64", "ZWNobyBo\naQ=="]), "hi\n");
    let done = place.run(&["run", "--base64", "echo hi"]);
    assert!(done.err.contains("CmdContent.DecodeError"), "{}", done.err);
    assert!(done.err.contains("leave out --base64"), "{}", done.err);
    let done = place.run(&["run", "--type", "bat", "x"]);
    assert!(done.err.contains("RunBatScript does not run on Linux"), "{}", done.err);
    let launcher = ["run", "--launcher", "sh -c 'echo ${0##*.}' {{ACS::ScriptFileName|Ext(.py)}}"];
    assert_eq!(place.ok(&[&launcher[..], &["x"]].concat()), "py\n");
    let done = place.run(&["run", "--launcher", "a 'b", "x"]);
    assert!(done.err.contains("InvalidLauncher.Malformed"), "{}", done.err);
    assert_eq!(place.ok(&["run", "--default", "n=Jack", "echo {{n}}"]), "Jack\n");
    let secret = ["run", "--secret", "p", "--param", "p=hunter2", "echo {{p}}"];
    assert_eq!(place.ok(&secret), "hunter2\n");
    let record = place.json(&["show", &place.newest()]);
    assert_eq!(record["Parameters"], r#"{"p":"******"}"#);
    let before = place.json(&["ps"]);
    let dry = ["run", "--dry-run", "--frequency", "rate(5m)", "--client-token", "t", "true"];
    assert!(place.ok(&dry).starts_with("it would run"));
    let done = place.run(&["run", "--dry-run", "--on", "nobody", "true"]);
    assert!(done.err.contains("InvalidInstance.NotFound"), "{}", done.err);
    assert_eq!(place.json(&["ps"])["Invocations"], before["Invocations"]);
    let create =
        ["commands", "create", "--name", "n", "--default", "a=1", "--launcher", "cat", "{{a}}"];
    let id = place.ok(&create);
    assert_eq!(place.ok(&["invoke", id.trim()]), "1");
    assert_eq!(place.json(&["commands", "show", id.trim()])["Launcher"], "cat");
}

#[test]
fn each_dialect_has_its_own_failures() {
    Place::with_and_without_owner(&["i"], |place, _| {
        let check = |words: &[&str], input: &str, code: &str| {
            let done = call(place, words, input);
            assert_eq!(done.code, Some(1), "{input}: {}", done.err);
            let answer: Value = serde_json::from_str(&done.out).expect("JSON");
            let response = &answer["Response"];
            assert_eq!(fields(&answer), ["Response"]);
            assert_eq!(fields(response), ["Error", "RequestId"], "{input}");
            assert_eq!(fields(&response["Error"]), ["Code", "Message"], "{input}");
            assert_eq!(response["Error"]["Code"], code, "{input}");
            let id = response["RequestId"].as_str().expect("a text");
            assert_eq!(id, id.to_lowercase());
        };
        let tencent = |operation| ["--profile", "tencent", operation];
        check(&tencent("RunCommand"), "{}", "MissingParameter");
        check(&tencent("DescribeCommands"), r#"{"Limit":0}"#, "InvalidParameterValue.Range");
        check(&tencent("Nope"), "{}", "InvalidAction");
        check(&tencent("RunCommand"), &"x".repeat(600 * 1024), "InvalidParameter");
        let line = |profile: &str| {
            format!(r#"{{"op":"DescribeCommands","request":{{"No":1}}{profile}}}"#) + "\n"
        };
        check(&["--batch"], &line(r#","profile":"tencent""#), "UnknownParameter");
        check(&["--batch", "--profile", "tencent"], &line(""), "UnknownParameter");
        check(&["--batch", "--profile", "tencent"], "no line\n", "InvalidParameter");
    });
    let help = Place::new().ok(&["api", "--help"]);
    for words in ["\"Response\"", "\"Violations\"", "ExecContainerCommand", "CancelInvocation"] {
        assert!(help.contains(words), "{words}: {help}");
    }
}

#[test]
fn a_crowd_is_answered() {
    let place = Place::new();
    let run = json!({
        "Type": "RunShellScript", "CommandContent": "true", "InstanceId": ["local"],
        "ClientToken": "same",
    });
    let create = json!({"Type": "RunShellScript", "CommandContent": "dHJ1ZQ==", "Name": "n"});
    let batch = json!({"op": "RunCommand", "request": run});
    let asked: [(&[&str], &Value); 3] =
        [(&["RunCommand"], &run), (&["CreateCommand"], &create), (&["--batch"], &batch)];
    // Where there is no database yet, and where there is one.
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for (words, request) in asked.iter().cycle().take(24) {
                let place = &place;
                scope.spawn(move || {
                    let done = call(place, words, &request.to_string());
                    assert_eq!(done.code, Some(0), "{words:?}: {} {}", done.out, done.err);
                });
            }
        });
        place.wait_until_unowned();
    }
    let runs = place.json(&["ps"])["Invocations"]["Invocation"].take();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "they gave one token");
}

#[test]
fn a_batch_outlives_its_owners() {
    let place = Place::new();
    let mut command = place.command(&["api", "--batch"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut batch = command.spawn().expect("the program starts");
    let mut stdin = batch.stdin.take().expect("piped");
    let mut answers = BufReader::new(batch.stdout.take().expect("piped")).lines();
    let mut ask = || {
        writeln!(stdin, r#"{{"op":"DescribeCommands","request":{{}}}}"#).expect("it reads");
        let answer = answers.next().expect("an answer").expect("a line");
        serde_json::from_str::<Value>(&answer).expect("JSON")
    };
    for _ in 0..2 {
        assert_eq!(ask()["TotalCount"], 0);
        let owner = std::fs::read_to_string(place.path("a.db.lock")).expect("it has been run");
        let owner = owner.lines().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        let owner = owner.expect("a number");
        kill_process(owner, Signal::KILL).expect("it runs");
        place.wait_until_unowned();
    }
    assert_eq!(ask()["TotalCount"], 0);
    drop(stdin);
    assert_eq!(batch.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_stored_command_is_shown_whole() {
    let place = Place::new();
    let id = place.ok(&[
        "commands",
        "create",
        "--name",
        "n",
        "--default",
        "a=1",
        "--default",
        "p=hunter2",
        "--secret",
        "p",
        "--launcher",
        "cat",
        "--user",
        "nobody",
        "--tag",
        "role=web",
        "{{a}}{{p}}",
    ]);
    let shown = place.ok(&["commands", "show", id.trim()]);
    for (name, value) in [
        ("Type", "shell"),
        ("Launcher", "cat"),
        ("User", "nobody"),
        ("Tags", "role=web"),
        ("Defaults", "a=1"),
        ("Secrets", "p"),
    ] {
        let line = format!("{name:<10}{value}");
        assert!(shown.lines().any(|shown| shown.starts_with(&line)), "{line}: {shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
    let done = place.run(&["run", "--on-tag", "role", "true"]);
    assert!(done.err.contains("want KEY=VALUE"), "{}", done.err);
    assert_eq!(place.run(&["run", "--output-to", "oss://b/f", "true"]).code, Some(1));
    let shown = place.ok(&["show", &place.newest()]);
    assert!(shown.contains("the output was not delivered"), "{shown}");
}

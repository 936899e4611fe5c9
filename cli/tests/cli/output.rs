//! What is printed, and where it may go.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::Place;

/// The names of an object's fields, in order.
fn fields(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn sorted<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut names = names.to_vec();
    names.sort_unstable();
    names
}

const RUN: &[&str] = &[
    "Caller",
    "CommandContent",
    "CommandDescription",
    "CommandId",
    "CommandName",
    "CommandType",
    "ContainerId",
    "ContainerName",
    "CreationTime",
    "DefaultParameters",
    "EndTime",
    "FinishTime",
    "Frequency",
    "InstanceCount",
    "InvocationResults",
    "InvocationStatus",
    "InvokeId",
    "InvokeInstances",
    "InvokeStatus",
    "Launcher",
    "MaxFires",
    "MissedPolicy",
    "NextFireTime",
    "OssOutputDelivery",
    "OverlapPolicy",
    "ParameterPassing",
    "Parameters",
    "PauseTime",
    "RepeatMode",
    "ResourceGroupId",
    "Spread",
    "Tags",
    "TerminationMode",
    "Timed",
    "Timeout",
    "Username",
    "WindowsPasswordName",
    "WorkingDir",
];

#[test]
fn documents_have_the_fields_of_the_pages() {
    let place = Place::with_instances(&["i-1"]);
    let run = place.json(&["run", "--on", "local,i-1", "echo hi; exit 3"]);
    assert_eq!(fields(&run), RUN);
    assert_eq!(run["InvocationStatus"], "Failed");
    let results = run["InvocationResults"]["InvocationResult"].as_array().expect("a list");
    let ids: Vec<_> = results.iter().map(|result| &result["InstanceId"]).collect();
    assert_eq!(ids, ["local", "i-1"]);
    for result in results {
        assert_eq!(result["ExitCode"], 3);
        assert_eq!(result["Output"], "aGkK");
        assert_eq!(result["Dropped"], 0);
    }
    let id = run["InvokeId"].as_str().expect("an id");
    assert_eq!(place.json(&["show", id]), run);
    assert_eq!(place.json(&["show", "--follow", id]), run);

    let created = place.json(&["commands", "create", "--name", "n", "true"]);
    assert_eq!(fields(&created), ["CommandId", "RequestId"]);
    let command = created["CommandId"].as_str().expect("an id");
    assert_eq!(fields(&place.json(&["invoke", command])), RUN);
    assert_eq!(place.json(&["commands", "show", command])["CommandContent"], "dHJ1ZQ==");
    let listed = place.json(&["ps"]);
    assert_eq!(fields(&listed), sorted(&["RequestId", "Invocations", "NextToken", "PageSize"]));
    assert_eq!(listed["Invocations"]["Invocation"].as_array().map(Vec::len), Some(2));
    let listed = place.json(&["commands", "list"]);
    assert_eq!(listed["Commands"]["Command"][0]["InvokeTimes"], 1);
    let listed = place.json(&["instances", "list"]);
    assert_eq!(listed["Instances"]["Instance"][1]["InstanceId"], "i-1");
    assert_eq!(fields(&place.json(&["stop", id])), ["RequestId"]);
    let detached = place.json(&["run", "--detach", "true"]);
    assert_eq!(fields(&detached), sorted(&["RequestId", "CommandId", "InvokeId"]));
    place.wait_until_unowned();
    assert_eq!(place.json(&["commands", "delete", command])["CommandId"], command);
    assert_eq!(place.json(&["instances", "remove", "i-1"])["InstanceId"][0], "i-1");
}

#[test]
fn long_lists_come_whole() {
    let ids: Vec<String> = (0..120).map(|n| format!("i-{n}")).collect();
    let place = Place::with_instances(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(place.ok(&["instances", "list"]).lines().count(), 1 + 1 + 120);
    let run = place.json(&["run", "--on", &ids[..60].join(","), "true"]);
    let results = run["InvocationResults"]["InvocationResult"].as_array().expect("a list");
    assert_eq!(results.len(), 60);
    assert_eq!(results[59]["InstanceId"], "i-59");
    place.ok(&["run", "true"]);
    place.ok(&["run", "true"]);
    for (words, runs) in [(&["ps"][..], 3), (&["ps", "-n", "2"], 2), (&["ps", "--all"], 3)] {
        assert_eq!(place.ok(words).lines().count(), 1 + runs, "{words:?}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let place = Place::new();
    place.ok(&["run", "true"]);
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = place.command(&["ps"]);
        let output = command.envs(variables.iter().copied()).output().expect("it starts");
        output.stdout.contains(&0x1b)
    };
    assert!(!coloured(&[]), "a pipe is no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn json_tells_the_streams_apart() {
    let place = Place::new();
    let check = |script: &str, output: &str, streams: Value| {
        let document = place.json(&["run", script]);
        let result = &document["InvocationResults"]["InvocationResult"][0];
        assert_eq!(result["Output"], output, "{script}");
        assert_eq!(result["OutputStreams"], streams, "{script}");
    };
    let stretch = |stream: &str, bytes: usize| json!({"Stream": stream, "Bytes": bytes});
    check("true", "", Value::Null);
    check("echo out", "b3V0Cg==", json!([stretch("stdout", 4)]));
    check("echo error >&2", "ZXJyb3IK", json!([stretch("stderr", 6)]));
    let both = json!([stretch("stdout", 4), stretch("stderr", 6)]);
    check("echo out; echo error >&2", "b3V0CmVycm9yCg==", both);
}

#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::new();
    place.ok(&["run", "true"]);
    for words in [&["ps"][..], &["--json", "ps"], &["completions", "zsh"], &["--help"]] {
        let mut command = place.command(words);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    }
}

#[test]
fn a_full_disk_is_one() {
    let place = Place::new();
    for words in [&["ps"][..], &["run", "echo hi"], &["--json", "run", "true"]] {
        let full =
            fs::OpenOptions::new().write(true).open("/dev/full").expect("it is always there");
        let output = place.command(words).stdout(full).output().expect("it starts");
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        if words[0] != "--json" {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("cannot write to standard output"), "{words:?}: {said}");
        }
    }
}

#[test]
fn the_default_file_is_private_and_told_once() {
    let place = Place::new();
    let run = |variable: Option<(&str, &str)>| {
        let mut command = place.command(&["instances", "add", "local"]);
        command.env_remove("ADJUTANT_DB").envs(variable);
        let output = command.output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let told = |path: &str| {
        let path = place.path(path);
        (Some(0), format!("adjutant: records are kept in {}\n", path.display()))
    };
    assert_eq!(run(None), told(".local/share/adjutant/adjutant.db"));
    assert_eq!(run(None), (Some(0), String::new()));
    let folder = fs::metadata(place.path(".local/share/adjutant")).expect("it was made");
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    let data = place.path("data");
    let data = data.to_str().expect("UTF-8");
    assert_eq!(run(Some(("XDG_DATA_HOME", data))), told("data/adjutant/adjutant.db"));
    assert_eq!(run(Some(("XDG_DATA_HOME", "relative"))), (Some(0), String::new()));
    assert_eq!(run(Some(("HOME", ""))).0, Some(2));
}

#[test]
fn what_only_shows_ends_with_its_reader() {
    let place = Place::new();
    let gate = place.gate("gate");
    let id = place.ok(&["run", "--detach", &format!("echo begun; {}", gate.wait())]);
    let id = id.trim();
    let mut follow = place.command(&["show", "--follow", id]);
    let mut follow = follow.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut first = String::new();
    let mut stdout = BufReader::new(follow.stdout.take().expect("piped"));
    stdout.read_line(&mut first).expect("a line");
    assert_eq!(first, "begun\n");
    // Nothing more is printed from here on.
    drop(stdout);
    assert_eq!(follow.wait().expect("it ends").code(), Some(0));
    assert!(place.ok(&["ps"]).contains("Running"));
    gate.open();
    place.wait_until(id, "Success");
}

#[test]
fn a_run_without_a_reader_goes_on_and_is_not_called_too_fast() {
    let place = Place::new();
    let mut run = place.command(&["run", "yes | head -c 30000000; exit 3"]);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(run.stdout.take());
    let done = run.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(err.contains("Failed") && !err.contains("too fast"), "{err}");
}

#[test]
fn a_table_begins_a_line_where_both_streams_are_one() {
    let place = Place::new();
    let path = place.path("both");
    let both = File::create(&path).expect("a file");
    let mut run = place.command(&["run", "printf unended"]);
    run.stdout(both.try_clone().expect("a copy")).stderr(both);
    assert!(run.status().expect("it ends").success());
    let written = fs::read_to_string(&path).expect("text");
    assert!(written.contains("unended\nINSTANCE"), "{written}");
}

#[test]
fn help_fits_its_terminal_and_has_examples() {
    let place = Place::new();
    let verbs = ["run", "invoke", "serve", "ps", "top", "show", "stop", "retry", "explain"];
    for words in verbs.map(|verb| vec![verb, "--help"]).iter().chain([&vec!["--help"]]) {
        let help = place.ok(words);
        let longest = help.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{words:?}: {longest:?}");
        assert_eq!(help.contains("Examples:"), words.len() > 1, "{words:?}");
    }
    let help = place.ok(&["run", "--help"]);
    for heading in ["Targets:", "Schedule:", "Limits:", "Rollout:", "Output:", "Retries:"] {
        assert!(help.contains(&format!("\n{heading}\n")), "{heading}");
    }
}

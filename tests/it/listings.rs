//! What listings show: pages, filters, where things stand, in the pages' newer terms and older ones.

use std::collections::BTreeSet;
use std::time::Duration;

use adjutant::{
    AgentStatus, CreateCommand, Engine, ExecutionContext, ExecutionStatus, Executor, Instance,
    InstanceId, InvokeCommand, InvokeId, ManualClock, Outcome, RunCommand, Task,
};
use serde_json::{Value, json};

use crate::recurrence::{clock, ended, open, pass};
use crate::support::{
    Gate, ask, engine, everything, pages, register, run, wait, with, with_executors, within,
};

async fn told(engine: &Engine, operation: &str, request: Value) -> Value {
    let shown = format!("{operation} {request}");
    ask(engine, operation, request).await.unwrap_or_else(|error| panic!("{shown}: {error}"))
}

/// The entries of a page, by the field that names them.
fn entries(operation: &str, page: &Value) -> Vec<String> {
    let (list, name) = match operation {
        "DescribeInvocations" => (&page["Invocations"]["Invocation"], "InvokeId"),
        "DescribeInvocationResults" => {
            (&page["Invocation"]["InvocationResults"]["InvocationResult"], "InvokeId")
        }
        "DescribeCommands" => (&page["Commands"]["Command"], "CommandId"),
        "DescribeInstances" => (&page["Instances"]["Instance"], "InstanceId"),
        _ => {
            let set = &page["InstanceCloudAssistantStatusSet"];
            (&set["InstanceCloudAssistantStatus"], "InstanceId")
        }
    };
    let list = list.as_array().unwrap_or_else(|| panic!("{operation}: {page}"));
    list.iter().map(|entry| entry[name].as_str().expect("a name").to_owned()).collect()
}

fn paging(operation: &str, page: &Value, field: &str) -> Value {
    match operation {
        "DescribeInvocationResults" => page["Invocation"][field].clone(),
        _ => page[field].clone(),
    }
}

/// An engine that starts nothing, with 25 of everything beside the first.
async fn twenty_five() -> Engine {
    let builder = with_executors(Engine::builder()).limits(adjutant::Limits::alibaba());
    let engine = builder.idle().open().await.expect("an engine");
    engine.remove_instance(&"local".into()).await.expect("it is there from the start");
    register(&engine, "script", 25).await;
    for _ in 0..25 {
        add(&engine, 1).await;
    }
    engine
}

async fn add(engine: &Engine, instance: usize) {
    let instance = Instance::new(format!("i-{instance}")).executor("script");
    engine.register_instance(instance).await.expect("sound");
    engine.create_command(CreateCommand::shell("c", "exit:0")).await.expect("sound");
    engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
}

const LISTINGS: [&str; 5] = [
    "DescribeInvocations",
    "DescribeInvocationResults",
    "DescribeCommands",
    "DescribeInstances",
    "DescribeCloudAssistantStatus",
];

#[tokio::test]
async fn pages_go_by_number_and_are_counted() {
    let engine = twenty_five().await;
    for operation in LISTINGS {
        let mut all = Vec::new();
        for (number, want) in [(1, 10), (2, 10), (3, 5), (4, 0)] {
            let page = told(&engine, operation, json!({"PageNumber": number})).await;
            let found = entries(operation, &page);
            assert_eq!(found.len(), want, "{operation} {number}");
            assert_eq!(paging(operation, &page, "TotalCount"), 25, "{operation}");
            assert_eq!(paging(operation, &page, "PageNumber"), number, "{operation}");
            assert_eq!(paging(operation, &page, "PageSize"), 10, "{operation}");
            all.extend(found);
        }
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 25, "{operation}");
        let one = told(&engine, operation, json!({"PageSize": 50})).await;
        assert_eq!(entries(operation, &one), all, "{operation}");
        // A request that says nothing is one for the first page, whose token goes on as well.
        let first = told(&engine, operation, json!({})).await;
        assert_eq!(entries(operation, &first), all[..10], "{operation}");
        let token = paging(operation, &first, "NextToken");
        let second = told(&engine, operation, json!({"NextToken": token})).await;
        assert_eq!(entries(operation, &second), all[10..20], "{operation}");
    }
}

#[tokio::test]
async fn pages_by_token_are_stable_while_entries_are_added() {
    let engine = twenty_five().await;
    let mut added = 25;
    for operation in LISTINGS {
        let before = told(&engine, operation, json!({"PageSize": 50})).await;
        let before = entries(operation, &before);
        let (mut all, mut token) = (Vec::new(), json!(""));
        loop {
            let request = json!({"MaxResults": 7, "NextToken": token});
            let page = told(&engine, operation, request).await;
            assert_eq!(paging(operation, &page, "TotalCount"), Value::Null, "not counted");
            all.extend(entries(operation, &page));
            token = paging(operation, &page, "NextToken");
            if token == "" {
                break;
            }
            added += 1;
            add(&engine, added).await;
        }
        // What is listed from its oldest on goes on with what is new.
        assert_eq!(all[..before.len()], before, "{operation}");
        let grows = operation.ends_with("Instances") || operation.ends_with("Status");
        assert_eq!(all.len() > before.len(), grows, "{operation}");
    }
}

/// Ends as it is told to, on other instances than `i-1` otherwise where that is mixed.
struct AsTold;

impl Executor for AsTold {
    async fn execute(&self, task: Task, cx: ExecutionContext) -> Outcome {
        let first = task.instance_id.as_str() == "i-1";
        let info = "as told".to_owned();
        match String::from_utf8_lossy(task.content()).as_ref() {
            "ok" => Outcome::Exited(0),
            "bad" => Outcome::Exited(4),
            "broke" => Outcome::Broke { info },
            "unsuitable" => Outcome::Unsuitable { code: "AccountNotExists", info },
            "undeliverable" => Outcome::Undeliverable { code: "ClientNotResponse", info },
            "mixed" if first => Outcome::Exited(0),
            "mixed" => Outcome::Broke { info },
            "half" => Outcome::Exited(if first { 0 } else { 4 }),
            _ => {
                cx.stop_asked().await;
                Outcome::Stopped { signal: None, exit_code: None, info: String::new() }
            }
        }
    }
}

/// One invocation for each way in which one can stand, named by a letter.
async fn one_of_each() -> (Engine, ManualClock) {
    let clock = clock();
    let builder = Engine::builder().executor("outcomes", AsTold).max_concurrent(1);
    let engine = builder.clock(clock.clone()).open().await.expect("an engine");
    for name in ["i-1", "i-2"] {
        let instance = Instance::new(name).executor("outcomes").resource_group("rg");
        engine.register_instance(instance).await.expect("sound");
    }
    let run = async |name: &str, script: &str, on: &[&str]| {
        let request = RunCommand::shell(script).name(name).on(on.iter().copied()).timeout(30);
        engine.run_command(request).await.expect("sound").invoke_id
    };
    let one: &[&str] = &["i-1"];
    let mut ids = Vec::new();
    for (name, script) in
        [("a", "ok"), ("b", "bad"), ("c", "broke"), ("e", "unsuitable"), ("f", "undeliverable")]
    {
        ids.push(run(name, script, one).await);
    }
    let both: &[&str] = &["i-1", "i-2"];
    ids.push(run("k", "mixed", both).await);
    ids.push(run("l", "half", both).await);
    for id in &ids {
        wait(&engine, id).await;
    }
    let late = run("d", "hang", one).await;
    // The scheduler, and the run's timeout.
    within(clock.sleeping(2)).await;
    clock.advance(Duration::from_secs(30));
    wait(&engine, &late).await;
    let (mut watch, stopped) = {
        let request = RunCommand::shell("hang").name("g").on(one.iter().copied());
        let (run, watch) = engine.run_command_and_watch(request).await.expect("sound");
        (watch, run.invoke_id)
    };
    while !matches!(
        within(watch.next()).await.expect("readable"),
        Some(adjutant::Event::Status { status: ExecutionStatus::Running, .. })
    ) {}
    let cancelled = run("h", "hang", one).await;
    for id in [cancelled, stopped] {
        told(&engine, "StopInvocation", json!({"InvokeId": id})).await;
        wait(&engine, &id).await;
    }
    let request = RunCommand::shell("hang").name("i").on(one.iter().copied());
    let (_, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    while !matches!(
        within(watch.next()).await.expect("readable"),
        Some(adjutant::Event::Status { status: ExecutionStatus::Running, .. })
    ) {}
    run("j", "hang", one).await;
    let request = RunCommand::shell("ok").name("p").on(one.iter().copied()).frequency("rate(1h)");
    let request = request.resource_group("rg").tag("team", "x");
    engine.run_command(request).await.expect("sound");
    (engine, clock)
}

/// The letters of what a listing shows.
async fn letters(engine: &Engine, operation: &str, filter: Value) -> Result<String, String> {
    let all = ask(engine, "DescribeInvocations", json!({"PageSize": 50})).await.expect("a page");
    let all = all["Invocations"]["Invocation"].as_array().expect("a list").clone();
    let request = with(json!({"PageSize": 50}), filter);
    let page = match ask(engine, operation, request).await {
        Ok(page) => page,
        Err(error) => return Err(error.code().to_owned()),
    };
    let found = entries(operation, &page);
    assert_eq!(paging(operation, &page, "TotalCount"), found.len(), "{page:.300}");
    let name = |id: &String| {
        let one = all.iter().find(|one| one["InvokeId"] == **id).expect("listed");
        one["CommandName"].as_str().expect("a name").to_owned()
    };
    Ok(found.iter().map(name).collect::<BTreeSet<_>>().into_iter().collect())
}

#[tokio::test]
async fn invocations_are_found_by_what_they_are_and_where_they_stand() {
    let (engine, _clock) = one_of_each().await;
    let check = async |filter: Value, want: Result<&str, &str>| {
        let found = letters(&engine, "DescribeInvocations", filter.clone()).await;
        let found = found.as_deref().map_err(String::as_str);
        assert_eq!(found, want, "{filter}");
    };
    check(json!({}), Ok("abcdefghijklp")).await;
    let status = |name: &str| json!({"InvokeStatus": name});
    // Each name as it is meant in the newer terms, the older ones, or both.
    check(status("Success"), Ok("a")).await;
    check(status("Failed"), Ok("bcdef")).await;
    check(status("PartialFailed"), Ok("kl")).await;
    check(status("Finished"), Ok("abl")).await;
    check(status("Stopped"), Ok("gh")).await;
    check(status("Running"), Ok("ijp")).await;
    check(status("Pending"), Ok("j")).await;
    check(status("Scheduled"), Ok("p")).await;
    check(status("Stopping"), Ok("")).await;
    check(status("Odd"), Err("InvalidInvokeStatus.NotFound")).await;
    check(json!({"InvocationStatus": "Running"}), Ok("i")).await;
    check(json!({"Timed": true}), Ok("p")).await;
    check(json!({"Timed": "false"}), Ok("abcdefghijkl")).await;
    check(json!({"RepeatMode": "Period"}), Ok("p")).await;
    check(json!({"RepeatMode": "Once"}), Ok("abcdefghijkl")).await;
    check(json!({"RepeatMode": "EveryReboot"}), Ok("")).await;
    check(json!({"RepeatMode": "Often"}), Err("InvalidRepeatMode.NotFound")).await;
    check(json!({"CommandName": "a"}), Ok("a")).await;
    check(json!({"CommandName": "*a*"}), Ok("a")).await;
    check(json!({"CommandName": "*"}), Ok("abcdefghijklp")).await;
    check(json!({"CommandName": "_"}), Ok("")).await;
    check(json!({"CommandType": "RunShellScript"}), Ok("abcdefghijklp")).await;
    check(json!({"CommandType": "RunBatScript"}), Ok("")).await;
    check(json!({"ResourceGroupId": "rg"}), Ok("p")).await;
    check(json!({"Tag": [{"Key": "team", "Value": "x"}]}), Ok("p")).await;
    check(json!({"Tag": [{"Key": "team", "Value": "y"}]}), Ok("")).await;
    check(json!({"InstanceId": "i-2"}), Ok("kl")).await;
    // As on the pages, these do not count beside an instance.
    check(json!({"InstanceId": "i-2", "CommandName": "a", "RepeatMode": "Period"}), Ok("kl")).await;
    check(json!({"InstanceId": "i-2", "InvokeStatus": "Finished"}), Ok("l")).await;
    check(json!({"InstanceId": "i-9"}), Ok("")).await;
    check(json!({"IncludeOutput": true}), Err("MissingParam.InvokeId")).await;
    check(
        json!({"InvokeId": "t-00000000000070008000000000000000"}),
        Err("InvalidInvokeId.NotFound"),
    )
    .await;
}

#[tokio::test]
async fn executions_are_found_by_where_they_stand_in_either_terms() {
    let (engine, _clock) = one_of_each().await;
    let check = async |name: &str, want: Result<&str, &str>| {
        let filter = json!({"InvokeRecordStatus": name});
        let found = letters(&engine, "DescribeInvocationResults", filter).await;
        assert_eq!(found.as_deref().map_err(String::as_str), want, "{name}");
    };
    check("Success", Ok("akl")).await;
    check("Finished", Ok("abkl")).await;
    check("Failed", Ok("bcdefkl")).await;
    check("Error", Ok("ck")).await;
    check("Timeout", Ok("d")).await;
    check("Invalid", Ok("e")).await;
    check("Aborted", Ok("f")).await;
    check("Terminated", Ok("g")).await;
    check("Cancelled", Ok("h")).await;
    check("Stopped", Ok("gh")).await;
    check("Running", Ok("ij")).await;
    check("Pending", Ok("j")).await;
    check("Scheduled", Ok("")).await;
    check("Stopping", Ok("")).await;
    check("Skipped", Ok("")).await;
    check("PartialFailed", Ok("")).await;
    check("Odd", Err("InvalidInvokeRecordStatus.NotFound")).await;
    // Each in both terms, with the code of what went wrong.
    let page = told(&engine, "DescribeInvocationResults", json!({"PageSize": 50})).await;
    let list = &page["Invocation"]["InvocationResults"]["InvocationResult"];
    let line = |result: &Value| {
        let text = |field: &str| result[field].as_str().expect("a text").to_owned();
        let statuses = format!("{} {}", text("InvocationStatus"), text("InvokeRecordStatus"));
        format!("{statuses} {}", text("ErrorCode"))
    };
    let told: BTreeSet<_> = list.as_array().expect("a list").iter().map(line).collect();
    let told: Vec<_> = told.iter().map(|one| one.trim()).collect();
    let want = [
        "Aborted Failed ClientNotResponse",
        "Cancelled Stopped",
        "Error Failed ExecutionException",
        "Failed Finished ExitCodeNonzero",
        "Invalid Failed AccountNotExists",
        "Pending Running",
        "Running Running",
        "Success Finished",
        "Terminated Stopped",
        "Timeout Failed ExecutionTimeout",
    ];
    assert_eq!(told, want);
    let whole = json!({"IncludeHistory": true});
    let error = ask(&engine, "DescribeInvocationResults", whole).await.expect_err("of which?");
    assert_eq!(error.code(), "MissingParam.InvokeId");
}

/// Where an invocation stands on its instances: status, older status, repeats, timed, exit code.
async fn standings(engine: &Engine, id: InvokeId) -> Vec<String> {
    let page = told(engine, "DescribeInvocations", json!({"InvokeId": id})).await;
    let list = &page["Invocations"]["Invocation"][0]["InvokeInstances"]["InvokeInstance"];
    let list = list.as_array().expect("a list").iter().map(|one| {
        let fields = [
            "InstanceId",
            "InvocationStatus",
            "InstanceInvokeStatus",
            "Repeats",
            "Timed",
            "ExitCode",
        ];
        let texts = fields.map(|field| one[field].to_string().replace('"', ""));
        let has = |field: &str| one[field] != "";
        // What has an exit code has run.
        assert!(one["ExitCode"].is_null() || (has("StartTime") && has("FinishTime")), "{one}");
        assert_eq!(one["Output"], "", "nobody asked for it");
        texts.join(" ")
    });
    list.collect()
}

#[tokio::test]
async fn an_invocation_tells_where_it_stands_on_each_instance() {
    let (clock, gate) = (clock(), Gate::new());
    let engine = open(gate.plug_in(Engine::builder()), &clock).await;
    let submit =
        async |request: RunCommand| engine.run_command(request).await.expect("ok").invoke_id;
    let script = || RunCommand::shell("out:x exit:3").on(["i-2", "i-1"]).timeout(10);
    let stop = async |id: InvokeId, on: &[&str]| {
        told(&engine, "StopInvocation", json!({"InvokeId": id, "InstanceId": on})).await;
    };

    let once = submit(script()).await;
    wait(&engine, &once).await;
    let want = ["i-2 Failed Finished 1 false 3", "i-1 Failed Finished 1 false 3"];
    assert_eq!(standings(&engine, once).await, want, "in the order of the request");

    let never = submit(script().frequency("rate(60s)")).await;
    let periodic = submit(script().frequency("rate(60s)")).await;
    let want = ["i-2 Scheduled Running 0 true null", "i-1 Scheduled Running 0 true null"];
    assert_eq!(standings(&engine, periodic).await, want);
    stop(never, &["i-1"]).await;
    let want = ["i-2 Scheduled Running 0 true null", "i-1 Cancelled Stopped 0 false null"];
    assert_eq!(standings(&engine, never).await, want);
    stop(never, &[]).await;
    let want = ["i-2 Cancelled Stopped 0 false null", "i-1 Cancelled Stopped 0 false null"];
    assert_eq!(standings(&engine, never).await, want);

    pass(&clock, 120).await;
    ended(&engine, periodic, 4).await;
    let want = ["i-2 Scheduled Running 2 true 3", "i-1 Scheduled Running 2 true 3"];
    assert_eq!(standings(&engine, periodic).await, want, "between two fires");
    stop(periodic, &["i-2"]).await;
    let want = ["i-2 Failed Finished 2 false 3", "i-1 Scheduled Running 2 true 3"];
    assert_eq!(standings(&engine, periodic).await, want);
    stop(periodic, &[]).await;
    let want = ["i-2 Failed Finished 2 false 3", "i-1 Failed Finished 2 false 3"];
    assert_eq!(standings(&engine, periodic).await, want);
    // The latest on each instance, or all of them.
    for (history, want) in [(false, 2), (true, 4)] {
        let request = json!({"InvokeId": periodic, "IncludeHistory": history});
        let page = told(&engine, "DescribeInvocationResults", request).await;
        let list = &page["Invocation"]["InvocationResults"]["InvocationResult"];
        assert_eq!(list.as_array().map(Vec::len), Some(want));
        assert_eq!(list[0]["Repeats"], 2);
    }

    let boots = json!({
        "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1", "i-2"],
        "RepeatMode": "NextRebootOnly",
    });
    for instance in ["i-1", "i-2"] {
        engine.instance_booted(&instance.into(), "one").await.expect("registered");
    }
    let next: RunCommand = serde_json::from_value(boots.clone()).expect("readable");
    let next = submit(next).await;
    let every = with(boots, json!({"RepeatMode": "EveryReboot"}));
    let every: RunCommand = serde_json::from_value(every).expect("readable");
    let every = submit(every).await;
    engine.instance_booted(&"i-1".into(), "two").await.expect("registered");
    ended(&engine, next, 1).await;
    ended(&engine, every, 1).await;
    let want = ["i-1 Success Finished 1 false 0", "i-2 Scheduled Running 0 true null"];
    assert_eq!(standings(&engine, next).await, want);
    let want = ["i-1 Scheduled Running 1 true 0", "i-2 Scheduled Running 0 true null"];
    assert_eq!(standings(&engine, every).await, want);
}

#[tokio::test]
async fn outputs_come_along_where_they_are_asked_for() {
    let engine = engine().await;
    let finished = run(&engine, "out:hello", &["i-1", "i-2"]).await;
    let id = finished.results[0].invoke_id;
    let check = async |filter: Value, want: &[&str]| {
        let page = told(&engine, "DescribeInvocations", filter.clone()).await;
        let invocation = &page["Invocations"]["Invocation"][0];
        assert_eq!(invocation["InstanceCount"], 2, "{filter}");
        let list = invocation["InvokeInstances"]["InvokeInstance"].as_array().expect("a list");
        let outputs: Vec<_> =
            list.iter().map(|one| one["Output"].as_str().expect("text")).collect();
        assert_eq!(outputs, want, "{filter}");
    };
    let plain = json!({"ContentEncoding": "plaintext", "IncludeOutput": "True"});
    check(json!({}), &["", ""]).await;
    check(json!({"InvokeId": id, "IncludeOutput": true}), &["aGVsbG8=", "aGVsbG8="]).await;
    check(with(plain.clone(), json!({"InvokeId": id})), &["hello", "hello"]).await;
    check(with(plain, json!({"InstanceId": "i-2"})), &["hello"]).await;
    check(json!({"OmitInstances": true}), &[]).await;
}

#[tokio::test]
async fn commands_are_found_by_what_they_are() {
    let engine = engine().await;
    let create = json!({"CommandContent": "ZXhpdDow", "Type": "RunShellScript"});
    let commands = [
        json!({"Name": "backup", "Description": "all of it", "Tag": [{"Key": "k", "Value": "v"}]}),
        json!({"Name": "Backup2", "Type": "RunBatScript", "ResourceGroupId": "rg"}),
        json!({"Name": "100%", "Description": "a_b"}),
    ];
    for command in commands {
        told(&engine, "CreateCommand", with(create.clone(), command)).await;
    }
    let check = async |filter: Value, want: &[&str]| {
        let page = told(&engine, "DescribeCommands", filter.clone()).await;
        let list = page["Commands"]["Command"].as_array().expect("a list").clone();
        let names: Vec<_> = list.iter().map(|one| one["Name"].as_str().expect("a name")).collect();
        assert_eq!(names, want, "{filter}");
    };
    check(json!({}), &["100%", "Backup2", "backup"]).await;
    check(json!({"Name": "*0%"}), &["100%"]).await;
    check(json!({"Name": "*%*"}), &["100%"]).await;
    check(json!({"Description": "*of*"}), &["backup"]).await;
    check(json!({"Description": "a_b"}), &["100%"]).await;
    check(json!({"Description": "a?b"}), &[]).await;
    check(json!({"Type": "RunBatScript"}), &["Backup2"]).await;
    check(json!({"Tag": [{"Key": "k", "Value": "v"}]}), &["backup"]).await;
    check(json!({"ResourceGroupId": "rg"}), &["Backup2"]).await;
    check(json!({"Provider": "User", "Latest": true}), &["100%", "Backup2", "backup"]).await;
    check(json!({"Provider": "AlibabaCloud"}), &[]).await;
    check(json!({"Latest": "false"}), &[]).await;
}

#[tokio::test]
async fn agents_are_told_of() {
    let (clock, gate) = (clock(), Gate::new());
    let builder = gate.plug_in(with_executors(Engine::builder()).clock(clock.clone()));
    let engine = builder.open().await.expect("an engine");
    let script = |name: &str| Instance::new(name).executor("script");
    for instance in [
        script("up").agent_version("2.2.3.344"),
        script("off").state(adjutant::InstanceState::Stopped),
        script("win").os_type(adjutant::OsType::Windows).agent_status(AgentStatus::NotInstalled),
        script("silent"),
        Instance::new("busy").executor("gate"),
    ] {
        engine.register_instance(instance).await.expect("sound");
    }
    run(&engine, "exit:0", &["up"]).await;
    run(&engine, "exit:0", &["up"]).await;
    let held = engine.run_command(RunCommand::shell("x").on(["busy"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    clock.advance(Duration::from_secs(5));
    engine.instance_seen(&"silent".into(), AgentStatus::Offline).await.expect("registered");
    let lines = async |filter: Value| {
        let page = told(&engine, "DescribeCloudAssistantStatus", filter).await;
        let list = &page["InstanceCloudAssistantStatusSet"]["InstanceCloudAssistantStatus"];
        let lines = list.as_array().expect("a list").iter().map(|one| {
            let fields = [
                "InstanceId",
                "OSType",
                "CloudAssistantStatus",
                "AgentStatus",
                "ActiveTaskCount",
                "InvocationCount",
                "LastHeartbeatTime",
                "LastInvokedTime",
                "CloudAssistantVersion",
            ];
            assert_eq!(one["SupportSessionManager"], false);
            fields.map(|field| one[field].to_string().replace('"', "")).join("|")
        });
        lines.collect::<Vec<_>>()
    };
    let (start, later) = ("2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z");
    let version = env!("CARGO_PKG_VERSION");
    let want = [
        format!("local|Linux|true|Online|0|0|{later}||{version}"),
        format!("up|Linux|true|Online|0|2||{start}|2.2.3.344"),
        "off|Linux|false|Online|0|0|||".to_owned(),
        "win|Windows|false|NotInstalled|0|0|||".to_owned(),
        format!("silent|Linux|false|Offline|0|0|{later}||"),
        format!("busy|Linux|true|Online|1|1||{start}|"),
    ];
    assert_eq!(lines(json!({})).await, want);
    assert_eq!(lines(json!({"OSType": "Windows"})).await, want[3..4]);
    let both = json!({"InstanceId": ["busy", "up"]});
    assert_eq!(lines(both).await, [want[1].clone(), want[5].clone()], "as they were registered");
    assert_eq!(lines(json!({"PageNumber": 2, "PageSize": 2})).await, want[2..4]);
    let error = ask(&engine, "DescribeCloudAssistantStatus", json!({"InstanceId": ["i-9"]})).await;
    assert_eq!(error.expect_err("unknown").code(), "InvalidInstance.NotFound");
    // One whose agent is down takes no commands until it is seen again.
    let on_silent = || engine.run_command(RunCommand::shell("exit:0").on(["silent"]));
    assert_eq!(on_silent().await.expect_err("down").code(), "InvalidInstance.NotMatch");
    engine.instance_seen(&"silent".into(), AgentStatus::Online).await.expect("registered");
    on_silent().await.expect("up again");
    let unknown = engine.instance_seen(&InstanceId::from("i-9"), AgentStatus::Online).await;
    assert_eq!(unknown.expect_err("unknown").code(), "InvalidInstance.NotFound");
    gate.let_go(1);
    wait(&engine, &held.invoke_id).await;
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_stores_nothing() {
    let engine = pages().await;
    let kept = engine.create_command(CreateCommand::shell("c", "exit:0")).await.expect("sound");
    let before = everything(&engine).await;
    let run = json!({
        "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"],
        "RepeatMode": "DryRun",
    });
    let invoke = json!({
        "CommandId": kept.command_id, "InstanceId": ["i-1"], "RepeatMode": "DryRun",
    });
    for (operation, base) in [("RunCommand", &run), ("InvokeCommand", &invoke)] {
        let check = async |change: Value, want: Option<&str>| {
            let shown = format!("{operation} {change}");
            let request = with(base.clone(), change);
            let code = ask(&engine, operation, request).await.err().map(|e| e.code().to_owned());
            assert_eq!(code.as_deref(), want, "{shown}");
            assert_eq!(everything(&engine).await, before, "{shown}");
        };
        check(json!({}), None).await;
        check(json!({"Frequency": "rate(2m)"}), None).await;
        check(json!({"Frequency": "0 30 2 * * ? 1999"}), Some("InvalidParam.Frequency")).await;
        check(json!({"Frequency": "rate(30s)"}), Some("InvalidParam.Frequency")).await;
        check(json!({"InstanceId": ["i-9"]}), Some("InvalidInstance.NotFound")).await;
        check(json!({"Parameters": {"a": ""}}), Some("Parameter.Disabled")).await;
        // A token that a dry run brings stays free.
        let token = format!("dry-{operation}");
        check(json!({"ClientToken": token}), None).await;
        check(json!({"ClientToken": token, "Timeout": 77}), None).await;
    }
    let keep = with(run.clone(), json!({"KeepCommand": true, "Frequency": "rate(2m)"}));
    told(&engine, "RunCommand", keep).await;
    assert_eq!(everything(&engine).await, before);
    let real = with(run.clone(), json!({"RepeatMode": "Once", "ClientToken": "t"}));
    told(&engine, "RunCommand", real).await;
    let error = ask(&engine, "RunCommand", with(run, json!({"ClientToken": "t"}))).await;
    assert_eq!(error.expect_err("it is used").code(), "IdempotentParameterMismatch");
}

#[tokio::test]
async fn what_exists_keeps_what_it_was_made_from() {
    let gate = Gate::new();
    let engine = gate.plug_in(Engine::builder()).open().await.expect("an engine");
    register(&engine, "gate", 1).await;
    let create = CreateCommand::shell("before", "x {{p}}").enable_parameter().timeout(100);
    let create = create.default_parameters([("p", "1")]).working_dir("/before");
    let id = engine.create_command(create).await.expect("sound").command_id;
    let run = engine.invoke_command(InvokeCommand::new(id).on(["i-1"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    let listed = async || {
        let page = told(&engine, "DescribeInvocations", json!({"InvokeId": run.invoke_id})).await;
        let mut one = page["Invocations"]["Invocation"][0].clone();
        one["InvokeInstances"] = Value::Null;
        one
    };
    let before = listed().await;
    assert_eq!(before["DefaultParameters"], r#"{"p":"1"}"#);
    let modify = json!({
        "CommandId": id, "Name": "after", "Description": "d", "Timeout": "200", "WorkingDir": "",
        "Launcher": "sh", "Username": "u", "DefaultParameters": {"p": "2"},
        // Taken and not used.
        "CommandContent": "ZXhpdDox",
    });
    told(&engine, "ModifyCommand", modify).await;
    assert_eq!(listed().await, before);
    let page = told(&engine, "DescribeCommands", json!({"ContentEncoding": "PlainText"})).await;
    let command = &page["Commands"]["Command"][0];
    let check = |field: &str, want: Value| assert_eq!(command[field], want, "{field}");
    check("Name", json!("after"));
    check("Description", json!("d"));
    check("Timeout", json!(200));
    check("WorkingDir", json!(""));
    check("Launcher", json!("sh"));
    check("Username", json!("u"));
    check("CommandContent", json!("x {{p}}"));
    check("InvokeTimes", json!(1));
    let names = json!([{"ParameterName": "p", "DefaultValue": "2", "Required": false}]);
    check("ParameterDefinitions", json!({"ParameterDefinition": names}));
    // What is not given stays.
    told(&engine, "ModifyCommand", json!({"CommandId": id, "Timeout": 300})).await;
    let page = told(&engine, "DescribeCommands", json!({"CommandId": id})).await;
    let command = &page["Commands"]["Command"][0];
    assert_eq!((&command["Name"], &command["Launcher"]), (&json!("after"), &json!("sh")));

    let delete = json!({"CommandId": id});
    let error = ask(&engine, "DeleteCommand", delete.clone()).await.expect_err("in use");
    assert_eq!((error.code(), error.http_status()), ("InvalidStatus.CmdIdInUse", 403));
    gate.let_go(1);
    wait(&engine, &run.invoke_id).await;
    told(&engine, "DeleteCommand", delete.clone()).await;
    let after = listed().await;
    assert_eq!(
        (&after["CommandId"], &after["CommandName"]),
        (&before["CommandId"], &json!("before"))
    );
    for operation in ["DeleteCommand", "ModifyCommand"] {
        let error = ask(&engine, operation, delete.clone()).await.expect_err("gone");
        assert_eq!((error.code(), error.http_status()), ("InvalidCmdId.NotFound", 404));
    }
    // One that a schedule will run again is in use between its fires.
    let id = engine.create_command(CreateCommand::shell("c", "x")).await.expect("sound").command_id;
    let request = InvokeCommand::new(id).on(["i-1"]).frequency("rate(1h)");
    let run = engine.invoke_command(request).await.expect("sound");
    let error = ask(&engine, "DeleteCommand", json!({"CommandId": id})).await.expect_err("in use");
    assert_eq!(error.code(), "InvalidStatus.CmdIdInUse");
    told(&engine, "StopInvocation", json!({"InvokeId": run.invoke_id})).await;
    told(&engine, "DeleteCommand", json!({"CommandId": id})).await;
}

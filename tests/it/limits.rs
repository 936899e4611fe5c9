//! Each number of `Limits` at its edge: what is as large as it may be is taken, what is larger by one
//! is refused with its code, and a host that sets another number moves the edge.

use adjutant::{
    CreateCommand, Engine, Instance, InvokeId, Limits, RunCommand, Secret, SecretError,
    SecretRequest, SecretResolver,
};
use serde_json::{Value, json};

use crate::support::{ask, register, with, with_executors};

/// Knows every name.
struct Vault;

impl SecretResolver for Vault {
    async fn resolve(&self, _: SecretRequest) -> Result<Secret, SecretError> {
        Ok(Secret::new(""))
    }
}

/// One limit, as one operation holds its requests to it.
struct Edge {
    operation: &'static str,
    /// The field that a violation names.
    field: &'static str,
    code: &'static str,
    /// The number, to be read and set.
    limit: fn(&mut Limits) -> &mut usize,
    /// What the page says it is.
    page: usize,
    /// Another one.
    own: usize,
    /// A request of that size, as a change of a sound one.
    request: fn(usize) -> Value,
}

fn text(chars: usize) -> String {
    "ü".repeat(chars)
}

fn letters(count: usize) -> String {
    "n".repeat(count)
}

/// A script of so many bytes as Base64, or of the next size that there is.
fn script(base64_bytes: usize, suffix: &str) -> String {
    let bytes = base64_bytes.div_ceil(4) * 3;
    let script = format!("exit:0 {}", " ".repeat(bytes - 7 - suffix.len()));
    script + suffix
}

/// The value that makes `exit:0 {{v}}` such a script.
fn value(base64_bytes: usize) -> String {
    " ".repeat(base64_bytes.div_ceil(4) * 3 - 7)
}

fn tags(count: usize) -> Value {
    (0..count).map(|n| json!({"Key": format!("k{n}"), "Value": ""})).collect()
}

fn values(count: usize) -> Value {
    (0..count).map(|n| (format!("p{n}"), json!(""))).collect::<serde_json::Map<_, _>>().into()
}

fn placeholders(count: usize) -> String {
    (0..count).map(|n| format!("{{{{p{n}}}}}")).collect()
}

fn ids(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("i-{n}")).collect()
}

const EDGES: &[Edge] = &[
    edge(
        "RunCommand",
        "Name",
        "CmdName.ExceedLimit",
        |l| &mut l.name_chars_max,
        128,
        |n| json!({"Name": text(n)}),
    ),
    edge(
        "CreateCommand",
        "Name",
        "CmdName.ExceedLimit",
        |l| &mut l.name_chars_max,
        128,
        |n| json!({"Name": text(n)}),
    ),
    edge(
        "ModifyCommand",
        "Name",
        "CmdName.ExceedLimit",
        |l| &mut l.name_chars_max,
        128,
        |n| json!({"Name": text(n)}),
    ),
    edge(
        "RunCommand",
        "Description",
        "CmdDesc.ExceedLimit",
        |l| &mut l.description_chars_max,
        512,
        |n| json!({"Description": text(n)}),
    ),
    edge(
        "CreateCommand",
        "Description",
        "CmdDesc.ExceedLimit",
        |l| &mut l.description_chars_max,
        512,
        |n| json!({"Description": text(n)}),
    ),
    edge(
        "ModifyCommand",
        "Description",
        "CmdDesc.ExceedLimit",
        |l| &mut l.description_chars_max,
        512,
        |n| json!({"Description": text(n)}),
    ),
    edge(
        "RunCommand",
        "WorkingDir",
        "InvalidParameter.WorkingDir",
        |l| &mut l.working_dir_chars_max,
        200,
        |n| json!({"WorkingDir": text(n)}),
    ),
    edge(
        "InvokeCommand",
        "WorkingDir",
        "InvalidParameter.WorkingDir",
        |l| &mut l.working_dir_chars_max,
        200,
        |n| json!({"WorkingDir": text(n)}),
    ),
    edge(
        "CreateCommand",
        "WorkingDir",
        "InvalidParameter.WorkingDir",
        |l| &mut l.working_dir_chars_max,
        200,
        |n| json!({"WorkingDir": text(n)}),
    ),
    edge(
        "ModifyCommand",
        "WorkingDir",
        "InvalidParameter.WorkingDir",
        |l| &mut l.working_dir_chars_max,
        200,
        |n| json!({"WorkingDir": text(n)}),
    ),
    edge(
        "RunCommand",
        "Launcher",
        "InvalidLauncher.LengthLimitExceeded",
        |l| &mut l.launcher_bytes_max,
        1024,
        |n| json!({"Launcher": letters(n)}),
    ),
    edge(
        "InvokeCommand",
        "Launcher",
        "InvalidLauncher.LengthLimitExceeded",
        |l| &mut l.launcher_bytes_max,
        1024,
        |n| json!({"Launcher": letters(n)}),
    ),
    edge(
        "CreateCommand",
        "Launcher",
        "InvalidLauncher.LengthLimitExceeded",
        |l| &mut l.launcher_bytes_max,
        1024,
        |n| json!({"Launcher": letters(n)}),
    ),
    edge(
        "ModifyCommand",
        "Launcher",
        "InvalidLauncher.LengthLimitExceeded",
        |l| &mut l.launcher_bytes_max,
        1024,
        |n| json!({"Launcher": letters(n)}),
    ),
    edge(
        "RunCommand",
        "Username",
        "Username.ExceedLimit",
        |l| &mut l.username_chars_max,
        255,
        |n| json!({"Username": text(n)}),
    ),
    edge(
        "InvokeCommand",
        "Username",
        "Username.ExceedLimit",
        |l| &mut l.username_chars_max,
        255,
        |n| json!({"Username": text(n)}),
    ),
    edge(
        "CreateCommand",
        "Username",
        "Username.ExceedLimit",
        |l| &mut l.username_chars_max,
        255,
        |n| json!({"Username": text(n)}),
    ),
    edge(
        "ModifyCommand",
        "Username",
        "Username.ExceedLimit",
        |l| &mut l.username_chars_max,
        255,
        |n| json!({"Username": text(n)}),
    ),
    edge(
        "RunCommand",
        "WindowsPasswordName",
        "WindowsPasswordName.ExceedLimit",
        |l| &mut l.username_chars_max,
        255,
        |n| json!({"WindowsPasswordName": text(n)}),
    ),
    edge(
        "InvokeCommand",
        "WindowsPasswordName",
        "WindowsPasswordName.ExceedLimit",
        |l| &mut l.username_chars_max,
        255,
        |n| json!({"WindowsPasswordName": text(n)}),
    ),
    edge(
        "RunCommand",
        "CommandContent",
        "CmdContent.ExceedLimit",
        |l| &mut l.unkept_content_bytes_max,
        24 * 1024,
        |n| json!({"CommandContent": script(n, "")}),
    ),
    edge(
        "RunCommand",
        "CommandContent",
        "CmdContent.ExceedLimit",
        |l| &mut l.kept_content_bytes_max,
        18 * 1024,
        |n| json!({"CommandContent": script(n, ""), "KeepCommand": true}),
    ),
    edge(
        "CreateCommand",
        "CommandContent",
        "CmdContent.ExceedLimit",
        |l| &mut l.kept_content_bytes_max,
        18 * 1024,
        |n| json!({"CommandContent": script(n, "")}),
    ),
    // With the values in: the placeholder is longer than nothing, so that before it is too long too.
    edge(
        "RunCommand",
        "CommandContent",
        "CmdContent.ExceedLimit",
        |l| &mut l.unkept_content_bytes_max,
        24 * 1024,
        |n| json!({"CommandContent": script(n, "{{v}}"), "EnableParameter": true}),
    ),
    edge(
        "RunCommand",
        "CommandContent",
        "CmdContent.ExceedLimit",
        |l| &mut l.unkept_content_bytes_max,
        24 * 1024,
        |n| json!({"CommandContent": "exit:0 {{v}}", "EnableParameter": true, "Parameters": {"v": value(n)}}),
    ),
    edge(
        "RunCommand",
        "CommandContent",
        "CmdContent.ExceedLimit",
        |l| &mut l.kept_content_bytes_max,
        18 * 1024,
        |n| json!({"CommandContent": "exit:0 {{v}}", "EnableParameter": true, "KeepCommand": true, "Parameters": {"v": value(n)}}),
    ),
    edge(
        "RunCommand",
        "CommandContent",
        "CmdContent.ExceedLimit",
        |l| &mut l.kept_content_bytes_max,
        18 * 1024,
        |n| json!({"CommandContent": "exit:0 {{v}}", "EnableParameter": true, "KeepCommand": true, "DefaultParameters": {"v": value(n)}}),
    ),
    edge(
        "InvokeCommand",
        "CommandContent",
        "CmdContent.ExceedLimit",
        |l| &mut l.kept_content_bytes_max,
        18 * 1024,
        |n| json!({"Parameters": {"v": value(n)}}),
    ),
    edge(
        "RunCommand",
        "CommandContent",
        "CmdParamCount.ExceedLimit",
        |l| &mut l.parameters_defined_max,
        20,
        |n| json!({"CommandContent": placeholders(n), "EnableParameter": true}),
    ),
    edge(
        "CreateCommand",
        "CommandContent",
        "CmdParamCount.ExceedLimit",
        |l| &mut l.parameters_defined_max,
        20,
        |n| json!({"CommandContent": placeholders(n), "EnableParameter": true}),
    ),
    edge(
        "RunCommand",
        "DefaultParameters",
        "ParameterCount.ExceedLimit",
        |l| &mut l.parameters_defined_max,
        20,
        |n| json!({"DefaultParameters": values(n), "EnableParameter": true}),
    ),
    edge(
        "CreateCommand",
        "DefaultParameters",
        "ParameterCount.ExceedLimit",
        |l| &mut l.parameters_defined_max,
        20,
        |n| json!({"DefaultParameters": values(n), "EnableParameter": true}),
    ),
    edge(
        "ModifyCommand",
        "DefaultParameters",
        "ParameterCount.ExceedLimit",
        |l| &mut l.parameters_defined_max,
        20,
        |n| json!({"DefaultParameters": values(n)}),
    ),
    edge(
        "CreateCommand",
        "SecretParameters",
        "ParameterCount.ExceedLimit",
        |l| &mut l.parameters_defined_max,
        20,
        |n| json!({"SecretParameters": ids(n), "EnableParameter": true}),
    ),
    edge(
        "RunCommand",
        "Parameters",
        "ParameterCount.ExceedLimit",
        |l| &mut l.parameters_passed_max,
        10,
        |n| json!({"CommandContent": placeholders(n.min(20)), "EnableParameter": true, "Parameters": values(n)}),
    ),
    edge(
        "RunCommand",
        "CommandContent",
        "CmdParamName.ExceedLimit",
        |l| &mut l.parameter_name_bytes_max,
        64,
        |n| json!({"CommandContent": format!("{{{{ {} }}}}", letters(n)), "EnableParameter": true}),
    ),
    edge(
        "RunCommand",
        "Parameters",
        "ParameterKey.ExceedLimit",
        |l| &mut l.parameter_name_bytes_max,
        64,
        |n| json!({"EnableParameter": true, "ParameterPassing": "Environment", "Parameters": {letters(n): ""}}),
    ),
    edge(
        "CreateCommand",
        "DefaultParameters",
        "ParameterKey.ExceedLimit",
        |l| &mut l.parameter_name_bytes_max,
        64,
        |n| json!({"EnableParameter": true, "DefaultParameters": {letters(n): ""}}),
    ),
    edge(
        "RunCommand",
        "Tag",
        "NumberExceed.Tags",
        |l| &mut l.tags_max,
        20,
        |n| json!({"Tag": tags(n)}),
    ),
    edge(
        "InvokeCommand",
        "Tag",
        "NumberExceed.Tags",
        |l| &mut l.tags_max,
        20,
        |n| json!({"Tag": tags(n)}),
    ),
    edge(
        "CreateCommand",
        "Tag",
        "NumberExceed.Tags",
        |l| &mut l.tags_max,
        20,
        |n| json!({"Tag": tags(n)}),
    ),
    edge(
        "DescribeCommands",
        "Tag",
        "NumberExceed.Tags",
        |l| &mut l.tags_max,
        20,
        |n| json!({"Tag": tags(n)}),
    ),
    edge(
        "DescribeInvocations",
        "Tag",
        "NumberExceed.Tags",
        |l| &mut l.tags_max,
        20,
        |n| json!({"Tag": tags(n)}),
    ),
    edge(
        "DescribeInvocationResults",
        "Tag",
        "NumberExceed.Tags",
        |l| &mut l.tags_max,
        20,
        |n| json!({"Tag": tags(n)}),
    ),
    edge(
        "RunCommand",
        "Tag",
        "InvalidTagKey.Malformed",
        |l| &mut l.tag_key_chars_max,
        64,
        |n| json!({"Tag": [{"Key": text(n)}]}),
    ),
    edge(
        "RunCommand",
        "Tag",
        "InvalidTagValue.Malformed",
        |l| &mut l.tag_value_chars_max,
        128,
        |n| json!({"Tag": [{"Key": "k", "Value": text(n)}]}),
    ),
    edge(
        "RunCommand",
        "ResourceTag",
        "NumberExceed.ResourceTags",
        |l| &mut l.resource_tags_max,
        10,
        |n| json!({"InstanceId": [], "ResourceTag": tags(n)}),
    ),
    edge(
        "InvokeCommand",
        "ResourceTag",
        "NumberExceed.ResourceTags",
        |l| &mut l.resource_tags_max,
        10,
        |n| json!({"InstanceId": [], "ResourceTag": tags(n)}),
    ),
    edge(
        "RunCommand",
        "ClientToken",
        "InvalidClientToken.Malformed",
        |l| &mut l.client_token_chars_max,
        64,
        |n| json!({"ClientToken": letters(n)}),
    ),
    edge(
        "CreateCommand",
        "ClientToken",
        "InvalidClientToken.Malformed",
        |l| &mut l.client_token_chars_max,
        64,
        |n| json!({"ClientToken": letters(n)}),
    ),
    edge(
        "RunCommand",
        "InstanceId",
        "InstanceIds.ExceedLimit",
        |l| &mut l.instances_max,
        100,
        |n| json!({"InstanceId": ids(n)}),
    ),
    edge(
        "InvokeCommand",
        "InstanceId",
        "InstanceIds.ExceedLimit",
        |l| &mut l.instances_max,
        100,
        |n| json!({"InstanceId": ids(n)}),
    ),
    edge(
        "StopInvocation",
        "InstanceId",
        "InstanceIds.ExceedLimit",
        |l| &mut l.stop_instances_max,
        50,
        |n| json!({"InstanceId": ids(n)}),
    ),
    edge(
        "DescribeCloudAssistantStatus",
        "InstanceId",
        "InstanceIds.ExceedLimit",
        |l| &mut l.page_size_max,
        50,
        |n| json!({"InstanceId": ids(n)}),
    ),
    edge(
        "RunCommand",
        "MissedPolicy",
        "InvalidParam.MissedPolicy",
        |l| &mut l.missed_runs_max,
        100_000,
        |n| json!({"Frequency": "rate(1h)", "MissedPolicy": format!("All:{n}")}),
    ),
    edge(
        "DescribeCommands",
        "MaxResults",
        "InvalidParameter.MaxResults",
        |l| &mut l.page_size_max,
        50,
        |n| json!({"MaxResults": n}),
    ),
    edge(
        "DescribeCommands",
        "PageSize",
        "InvalidParameter.PageSize",
        |l| &mut l.page_size_max,
        50,
        |n| json!({"PageSize": n.to_string()}),
    ),
    edge(
        "DescribeInvocations",
        "MaxResults",
        "InvalidParameter.MaxResults",
        |l| &mut l.page_size_max,
        50,
        |n| json!({"MaxResults": n}),
    ),
    edge(
        "DescribeInvocations",
        "PageSize",
        "InvalidParameter.PageSize",
        |l| &mut l.page_size_max,
        50,
        |n| json!({"PageSize": n}),
    ),
    edge(
        "DescribeInvocationResults",
        "PageSize",
        "InvalidParameter.PageSize",
        |l| &mut l.page_size_max,
        50,
        |n| json!({"PageSize": n}),
    ),
    edge(
        "DescribeInstances",
        "PageSize",
        "InvalidParameter.PageSize",
        |l| &mut l.page_size_max,
        50,
        |n| json!({"PageSize": n}),
    ),
    edge(
        "DescribeCloudAssistantStatus",
        "PageSize",
        "InvalidParameter.PageSize",
        |l| &mut l.page_size_max,
        50,
        |n| json!({"PageSize": n}),
    ),
];

const fn edge(
    operation: &'static str,
    field: &'static str,
    code: &'static str,
    limit: fn(&mut Limits) -> &mut usize,
    page: usize,
    request: fn(usize) -> Value,
) -> Edge {
    // Not below what the smallest of these requests needs.
    let own = if page > 10_000 { page - 400 } else { page / 2 + 3 };
    Edge { operation, field, code, limit, page, own, request }
}

struct World {
    engine: Engine,
    command: String,
    /// Without placeholders.
    plain: String,
    /// On instances `i-1` to `i-51`; each stop leaves it going on others.
    invocation: InvokeId,
}

async fn world() -> World {
    let builder = with_executors(Engine::builder()).secret_resolver(Vault).idle();
    let builder = builder.limits(Limits::alibaba());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 101).await;
    let all = (0..11).fold(Instance::new("i-1").executor("script"), |instance, n| {
        instance.tag(format!("k{n}"), "")
    });
    engine.register_instance(all).await.expect("sound");
    let create = CreateCommand::shell("c", "exit:0 {{v}}").enable_parameter();
    let command = engine.create_command(create).await.expect("sound").command_id.to_string();
    let request = RunCommand::shell("hang").on(ids(51));
    let invocation = engine.run_command(request).await.expect("sound").invoke_id;
    let plain = CreateCommand::shell("d", "exit:0").enable_parameter();
    let plain = engine.create_command(plain).await.expect("sound").command_id.to_string();
    World { engine, command, plain, invocation }
}

impl World {
    /// A sound request, which the fields of an edge change; those that could run are dry.
    fn sound(&self, operation: &str) -> Value {
        let invoke = json!({"InstanceId": ["i-1"], "RepeatMode": "DryRun"});
        let content = json!({
            "Name": "n", "Type": "RunShellScript", "CommandContent": "exit:0",
            "ContentEncoding": "PlainText",
        });
        match operation {
            "RunCommand" => with(invoke, content),
            "InvokeCommand" => with(invoke, json!({"CommandId": self.command})),
            "CreateCommand" => content,
            "ModifyCommand" => json!({"CommandId": self.plain}),
            "StopInvocation" => json!({"InvokeId": self.invocation}),
            _ => json!({}),
        }
    }

    async fn check(&self, engine: &Engine, edge: &Edge, size: usize, max: usize) {
        let Edge { operation, field, code, .. } = edge;
        let request = with(self.sound(operation), (edge.request)(size));
        let shown = format!("{operation} {field} {size} of {max}");
        match ask(engine, operation, request).await {
            Ok(_) => assert!(size <= max, "{shown} is taken"),
            Err(error) => {
                assert!(size > max, "{shown}: {error}");
                assert_eq!(error.code(), *code, "{shown}: {error}");
                let violation = &error.violations()[0];
                assert_eq!(violation.field, *field, "{shown}");
                let number = max.to_string();
                assert!(violation.message.contains(&number), "{shown}: {violation}");
                // A script has no size between two multiples of four.
                let number = if *code == "CmdContent.ExceedLimit" { max + 4 } else { size };
                assert!(violation.message.contains(&number.to_string()), "{shown}: {violation}");
                assert_eq!(error.violations().len(), 1, "{shown}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn each_number_is_an_edge_and_the_hosts_to_move() {
    let world = world().await;
    for edge in EDGES {
        let mut limits = Limits::alibaba();
        assert_eq!(*(edge.limit)(&mut limits), edge.page, "{} {}", edge.operation, edge.field);
        for size in [edge.page, edge.page + 1] {
            world.check(&world.engine, edge, size, edge.page).await;
        }
        *(edge.limit)(&mut limits) = edge.own;
        let engine = world.engine.with_limits(limits);
        for size in [edge.own, edge.own + 1] {
            world.check(&engine, edge, size, edge.own).await;
        }
    }
}

#[tokio::test]
async fn times_have_edges_on_both_sides() {
    let world = world().await;
    let engine = &world.engine;
    let check = async |engine: &Engine, operation: &str, change: Value, want: Option<&str>| {
        let shown = format!("{operation} {change}");
        let request = with(world.sound(operation), change);
        let code = ask(engine, operation, request).await.err().map(|e| e.code().to_owned());
        assert_eq!(code.as_deref(), want, "{shown}");
    };
    const YEAR: u64 = 366 * 24 * 3600;
    for operation in ["RunCommand", "InvokeCommand", "CreateCommand", "ModifyCommand"] {
        let min = if operation == "InvokeCommand" { 10 } else { 1 };
        let bad = Some("InvalidParameter.Timeout");
        check(engine, operation, json!({"Timeout": min - 1}), bad).await;
        check(engine, operation, json!({"Timeout": min}), None).await;
        check(engine, operation, json!({"Timeout": YEAR}), None).await;
        check(engine, operation, json!({"Timeout": YEAR + 1}), bad).await;
        check(engine, operation, json!({"Timeout": ""}), None).await;
        let mut limits = Limits::alibaba();
        (limits.timeout_s_max, limits.invoke_timeout_s_min) = (100, 2);
        let own = engine.with_limits(limits);
        check(&own, operation, json!({"Timeout": 100}), None).await;
        check(&own, operation, json!({"Timeout": 101}), bad).await;
        check(&own, operation, json!({"Timeout": 2}), None).await;
    }
    let bad = Some("InvalidParam.Frequency");
    let every = |text: &str| json!({"Frequency": text, "Timeout": 1});
    check(engine, "RunCommand", every("rate(59s)"), bad).await;
    check(engine, "RunCommand", every("rate(60s)"), None).await;
    check(engine, "RunCommand", every("rate(604800s)"), None).await;
    check(engine, "RunCommand", every("rate(604801s)"), bad).await;
    check(engine, "RunCommand", every("*/9 * * * * ?"), bad).await;
    check(engine, "RunCommand", every("*/10 * * * * ?"), None).await;
    let spread = |seconds: u64| with(every("rate(1h)"), json!({"Spread": seconds}));
    check(engine, "RunCommand", spread(86_400), None).await;
    check(engine, "RunCommand", spread(86_401), Some("InvalidParam.Spread")).await;
    let mut limits = Limits::alibaba();
    (limits.rate_s_min, limits.rate_s_max, limits.cron_s_min, limits.spread_s_max) = (5, 9, 2, 3);
    let own = engine.with_limits(limits);
    check(&own, "RunCommand", every("rate(4s)"), bad).await;
    check(&own, "RunCommand", every("rate(5s)"), None).await;
    check(&own, "RunCommand", every("rate(9s)"), None).await;
    check(&own, "RunCommand", every("rate(10s)"), bad).await;
    check(&own, "RunCommand", every("* * * * * ?"), bad).await;
    check(&own, "RunCommand", every("*/2 * * * * ?"), None).await;
    let spread = |seconds: u64| with(every("rate(9s)"), json!({"Spread": seconds}));
    check(&own, "RunCommand", spread(3), None).await;
    check(&own, "RunCommand", spread(4), Some("InvalidParam.Spread")).await;
}

/// A host that lowers the largest value lowers with it what a request without one gets.
#[tokio::test]
async fn what_is_not_stated_is_never_more_than_what_may_be_stated() {
    let world = world().await;
    let mut limits = Limits::alibaba();
    (limits.timeout_s_max, limits.page_size_max) = (30, 3);
    let engine = world.engine.with_limits(limits);
    let made = ask(&engine, "CreateCommand", world.sound("CreateCommand")).await.expect("sound");
    let only = json!({"CommandId": made["CommandId"]});
    let listed = ask(&engine, "DescribeCommands", only).await.expect("a page of the default size");
    assert_eq!(listed["Commands"]["Command"][0]["Timeout"], 30);
    assert_eq!(listed["PageSize"], 3);
    let listed =
        ask(&engine, "DescribeInstances", json!({"NextToken": "0"})).await.expect("a page");
    assert_eq!(listed["PageSize"], 3);
    let fires = adjutant::DescribeFires::new(world.invocation);
    engine.describe_fires(fires).await.expect("a page of the default size");
    let run = with(world.sound("RunCommand"), json!({"RepeatMode": "Once"}));
    let run = ask(&engine, "RunCommand", run).await.expect("sound");
    let only = json!({"InvokeId": run["InvokeId"]});
    let listed = ask(&engine, "DescribeInvocations", only).await.expect("it exists");
    assert_eq!(listed["Invocations"]["Invocation"][0]["Timeout"], 30);
}

#[tokio::test]
async fn what_is_empty_counts_as_not_given() {
    let world = world().await;
    let empty = json!({
        "WorkingDir": "", "Username": "", "WindowsPasswordName": "", "Launcher": "",
        "ContainerId": "", "ContainerName": "", "ClientToken": "", "Frequency": "",
        "Parameters": "", "Timeout": "", "ResourceGroupId": "", "OssOutputDelivery": "",
        "Tag": [], "ResourceTag": [],
    });
    for operation in ["RunCommand", "InvokeCommand"] {
        let request = with(world.sound(operation), empty.clone());
        ask(&world.engine, operation, request).await.expect(operation);
    }
    let texts = json!({"Name": "", "Description": "", "ContentEncoding": ""});
    let request = with(world.sound("RunCommand"), texts);
    ask(&world.engine, "RunCommand", request).await.expect("a name is not needed");
    let check = async |operation: &str, change: Value, code: &str| {
        let request = with(world.sound(operation), change);
        let error = ask(&world.engine, operation, request).await.expect_err(code);
        assert_eq!(error.code(), code, "{operation}");
    };
    check("CreateCommand", json!({"Name": ""}), "MissingParameter.Name").await;
    check("ModifyCommand", json!({"Name": ""}), "MissingParameter.Name").await;
    check("ModifyCommand", json!({"CommandId": ""}), "InvalidCmdId.NotFound").await;
    check("StopInvocation", json!({"InvokeId": ""}), "InvalidInvokeId.NotFound").await;
    check("CreateCommand", json!({"CommandContent": ""}), "MissingParameter.CommandContent").await;
    check("RunCommand", json!({"Type": ""}), "InvalidCmdType.NotFound").await;
    for listing in ["DescribeCommands", "DescribeInvocations", "DescribeInstances"] {
        check(listing, json!({"MaxResults": 0}), "InvalidParameter.MaxResults").await;
        check(listing, json!({"PageSize": 0}), "InvalidParameter.PageSize").await;
        check(listing, json!({"PageNumber": 0}), "InvalidParameter.PageNumber").await;
        let both = json!({"PageNumber": 1, "NextToken": "1"});
        check(listing, both, "InvalidParameter.PageNumber").await;
        let far = json!({"PageNumber": u64::MAX, "NextToken": "", "PageSize": 50});
        let page = ask(&world.engine, listing, far).await.expect("there is no such page");
        assert_eq!(page["NextToken"], "", "{listing}");
    }
}

/// Requests that mix kinds are refused where the host wants that.
#[tokio::test]
async fn one_kind_of_instance_in_a_request() {
    let world = world().await;
    let kinds = [("a-1", Some("A")), ("a-2", Some("A")), ("b-1", Some("B")), ("none", None)];
    for (name, kind) in kinds {
        let mut instance = Instance::new(name).executor("script");
        instance.kind = kind.map(str::to_owned);
        world.engine.register_instance(instance).await.expect("sound");
    }
    let mut limits = Limits::alibaba();
    limits.one_kind_of_instance = true;
    let strict = world.engine.with_limits(limits);
    let check = async |on: &[&str], fits: bool| {
        let request = with(world.sound("RunCommand"), json!({"InstanceId": on}));
        ask(&world.engine, "RunCommand", request.clone()).await.expect("nobody minds by default");
        let code = ask(&strict, "RunCommand", request).await.err().map(|e| e.code().to_owned());
        assert_eq!(code.is_none(), fits, "{on:?} {code:?}");
        assert!(fits || code.as_deref() == Some("InvalidInstance.NotMatch"), "{code:?}");
    };
    check(&["a-1", "a-2"], true).await;
    check(&["a-1", "b-1"], false).await;
    check(&["a-1", "a-2", "none"], false).await;
    check(&["none", "i-1"], true).await;
}

//! Every code that the API pages list: raised by a real request with the page's status, or never
//! raised here, and then why.

use std::collections::BTreeSet;

use adjutant::{
    Action, Authorizer, Engine, Instance, InstanceState, Limits, OsType, Secret, SecretError,
    SecretRequest, SecretResolver,
};
use serde_json::{Value, json};

use crate::support::{ask, with, with_executors};

/// The codes of InvokeCommand.
const INVOKE_COMMAND: &[(u16, &str)] = &[
    (400, "RegionId.ApiNotSupported"),
    (400, "MissingParam.InstanceId"),
    (400, "InvalidContainerId.Malformed"),
    (400, "InvalidContainerName.Malformed"),
    (400, "InvalidClientToken.Malformed"),
    (400, "InvalidInstance.NotMatch"),
    (400, "MissingParam.Frequency"),
    (400, "InvalidParam.Frequency"),
    (400, "Parameter.MissingValue"),
    (400, "Parameter.Disabled"),
    (400, "InvalidParameter.Parameters"),
    (400, "NumberExceed.ResourceTags"),
    (400, "MissingParameter.ResourceTagKey"),
    (400, "InvalidResourceTagKey.Malformed"),
    (400, "InvalidResourceTagValue.Malformed"),
    (400, "Duplicate.ResourceTagKey"),
    (400, "InvalidResourceTag.InstanceNotFound"),
    (400, "InvalidResourceTag.ConflictWithInstanceIds"),
    (403, "InstanceIds.ExceedLimit"),
    (403, "Invocation.ExceedQuota"),
    (403, "ParameterCount.ExceedLimit"),
    (403, "ParameterKey.ExceedLimit"),
    (403, "CmdContent.ExceedLimit"),
    (403, "ParameterKey.Duplicate"),
    (403, "Parameter.NotMatched"),
    (403, "ParameterType.NotSupported"),
    (403, "Username.ExceedLimit"),
    (403, "WindowsPasswordName.ExceedLimit"),
    (403, "WindowsPasswordName.Missed"),
    (403, "ParameterStore.NotSupported"),
    (403, "TemporaryAccessKey.Error"),
    (403, "ParameterStore.InvalidParameters"),
    (403, "ParameterStore.NoPermission"),
    (403, "Operation.Forbidden"),
    (403, "IdempotentParameterMismatch"),
    (403, "IdempotentProcessing"),
    (403, "InvalidLauncher.LengthLimitExceeded"),
    (403, "InvalidParameterCharset.Parameters"),
    (404, "InvalidRepeatMode.NotFound"),
    (404, "InvalidRegionId.NotFound"),
    (404, "InvalidInstance.NotFound"),
    (404, "InvalidCmdId.NotFound"),
    (404, "InvalidResourceGroup.NotFound"),
    (404, "InvalidTerminationMode.NotFound"),
    (500, "InternalError.Dispatch"),
];

/// The codes of RunCommand.
const RUN_COMMAND: &[(u16, &str)] = &[
    (400, "RegionId.ApiNotSupported"),
    (400, "MissingParam.InstanceId"),
    (400, "NumberExceed.Tags"),
    (400, "InvalidTagValue.Malformed"),
    (400, "Duplicate.TagKey"),
    (400, "InvalidTagKey.Malformed"),
    (400, "MissingParameter.TagKey"),
    (400, "InvalidContainerId.Malformed"),
    (400, "InvalidContainerName.Malformed"),
    (400, "InvalidClientToken.Malformed"),
    (400, "CmdParam.EmptyKey"),
    (400, "CmdParam.InvalidParamName"),
    (400, "CmdContent.DecodeError"),
    (400, "InvalidInstance.NotMatch"),
    (400, "MissingParam.Frequency"),
    (400, "InvalidParam.Frequency"),
    (400, "ParameterKey.Duplicate"),
    (400, "Parameter.NotMatched"),
    (400, "WindowsPasswordName.Missed"),
    (400, "Parameter.Disabled"),
    (400, "InvalidParameter.WorkingDir"),
    (400, "NumberExceed.ResourceTags"),
    (400, "MissingParameter.ResourceTagKey"),
    (400, "InvalidResourceTagKey.Malformed"),
    (400, "InvalidResourceTagValue.Malformed"),
    (400, "Duplicate.ResourceTagKey"),
    (400, "InvalidResourceTag.InstanceNotFound"),
    (400, "InvalidResourceTag.ConflictWithInstanceIds"),
    (403, "CmdContent.ExceedLimit"),
    (403, "CmdName.ExceedLimit"),
    (403, "CmdDesc.ExceedLimit"),
    (403, "CmdCount.ExceedQuota"),
    (403, "CmdParamCount.ExceedLimit"),
    (403, "CmdParamName.ExceedLimit"),
    (403, "InstanceIds.ExceedLimit"),
    (403, "Invocation.ExceedQuota"),
    (403, "ParameterCount.ExceedLimit"),
    (403, "ParameterKey.ExceedLimit"),
    (403, "ParameterType.NotSupported"),
    (403, "Username.ExceedLimit"),
    (403, "WindowsPasswordName.ExceedLimit"),
    (403, "ParameterStore.NotSupported"),
    (403, "TemporaryAccessKey.Error"),
    (403, "ParameterStore.InvalidParameters"),
    (403, "ParameterStore.NoPermission"),
    (403, "OperationDenied.BidOwnResource"),
    (403, "Operation.Forbidden"),
    (403, "IdempotentParameterMismatch"),
    (403, "IdempotentProcessing"),
    (403, "InvalidStatus.ResourceGroup"),
    (403, "InvalidParameterCharacter.CommandName"),
    (403, "InvalidParameterCharacter.CommandDescription"),
    (403, "InvalidParameterCharacter.CommandWorkingDir"),
    (403, "InvalidLauncher.LengthLimitExceeded"),
    (403, "InvalidParameterCharset.Parameters"),
    (404, "InvalidCmdType.NotFound"),
    (404, "InvalidRepeatMode.NotFound"),
    (404, "InvalidRegionId.NotFound"),
    (404, "InvalidInstance.NotFound"),
    (404, "InvalidCmdId.NotFound"),
    (404, "InvalidResourceGroup.NotFound"),
    (404, "InvalidTerminationMode.NotFound"),
    (500, "InternalError.Dispatch"),
];

/// The codes of RunCommand's older page; where its statuses differ, the newer page's hold.
const OLDER_RUN_COMMAND: &[&str] = &[
    "RegionId.ApiNotSupported",
    "InternalError.Dispatch",
    "InvalidCmdType.NotFound",
    "CmdName.ExceedLimit",
    "CmdDesc.ExceedLimit",
    "CmdCount.ExceedQuota",
    "InvalidInstance.NotFound",
    "InvalidInstance.NotMatch",
    "InvalidCmdId.NotFound",
    "MissingParam.Frequency",
    "InvalidParam.Frequency",
    "InstanceIds.ExceedLimit",
    "Username.ExceedLimit",
];

/// What no request to this library can be answered with, and why; ARCHITECTURE.md has the same.
const NEVER: &[(&str, &str)] = &[
    ("RegionId.ApiNotSupported", "there are no regions"),
    ("InvalidRegionId.NotFound", "there are no regions"),
    ("TemporaryAccessKey.Error", "there are no access keys"),
    ("OperationDenied.BidOwnResource", "nobody rents machines here"),
    ("InvalidStatus.ResourceGroup", "a group is a property of its instances, not made or deleted"),
    ("InternalError.Dispatch", "a request is stored or refused; nothing is sent on in between"),
    ("IdempotentProcessing", "requests with one token are answered one after another"),
];

/// As [`NEVER`], of RunCommand only.
const NEVER_BY_RUN_COMMAND: &[(&str, &str)] =
    &[("InvalidCmdId.NotFound", "RunCommand brings its command and names none")];

struct Vault;

impl SecretResolver for Vault {
    async fn resolve(&self, request: SecretRequest) -> Result<Secret, SecretError> {
        match &*request.name {
            "denied" => Err(SecretError::Denied("not yours".to_owned())),
            "down" => Err(SecretError::Unavailable("no answer".to_owned())),
            _ => Err(SecretError::NotFound("no such entry".to_owned())),
        }
    }
}

struct Nobody;

impl Authorizer for Nobody {
    async fn authorize(&self, action: Action) -> Result<(), String> {
        match action.caller.as_deref() {
            Some("host") => Ok(()),
            _ => Err("nobody may do anything".to_owned()),
        }
    }
}

/// Which engine a request goes to.
#[derive(Clone, Copy)]
enum To {
    Plain,
    /// Parameters without a value are refused.
    NeedsValues,
    /// The quotas are used up.
    Spent,
    /// There is a store of secrets.
    WithVault,
    /// Nobody may do anything.
    Forbidding,
}

struct Engines {
    plain: Engine,
    needs_values: Engine,
    spent: Engine,
    with_vault: Engine,
    forbidding: Engine,
    /// A kept command with parameters `a` and `b`.
    kept: Value,
    /// One without.
    simple: Value,
    /// One for Windows.
    batch: Value,
}

impl Engines {
    async fn new() -> Self {
        let plain = with_executors(Engine::builder())
            .limits(Limits::alibaba())
            .open()
            .await
            .expect("an engine");
        let with_vault =
            with_executors(Engine::builder()).limits(Limits::alibaba()).secret_resolver(Vault);
        let with_vault = with_vault.open().await.expect("an engine");
        let forbidding =
            with_executors(Engine::builder()).limits(Limits::alibaba()).authorizer(Nobody);
        let forbidding = forbidding.open().await.expect("an engine");
        for engine in [&plain, &with_vault, &forbidding.called_by("host")] {
            fleet(engine).await;
        }
        let create = async |fields: Value| {
            let request =
                json!({"Name": "n", "Type": "RunShellScript", "ContentEncoding": "PlainText"});
            let made = ask(&plain, "CreateCommand", with(request, fields)).await;
            made.expect("sound")["CommandId"].clone()
        };
        let kept = create(json!({"CommandContent": "exit:0 {{a}}{{b}}", "EnableParameter": true}));
        let kept = kept.await;
        let simple = create(json!({"CommandContent": "exit:0"})).await;
        let batch = json!({"Type": "RunBatScript", "CommandContent": "exit:0"});
        let batch = create(batch).await;
        let first = json!({
            "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"],
            "ClientToken": "used",
        });
        ask(&plain, "RunCommand", first).await.expect("sound");
        let mut limits = Limits::alibaba();
        limits.parameters_need_values = true;
        let needs_values = plain.with_limits(limits);
        let mut limits = Limits::alibaba();
        (limits.invocations_per_day_max, limits.kept_commands_max) = (0, 0);
        let spent = plain.with_limits(limits);
        Self { plain, needs_values, spent, with_vault, forbidding, kept, simple, batch }
    }

    fn get(&self, to: To) -> &Engine {
        match to {
            To::Plain => &self.plain,
            To::NeedsValues => &self.needs_values,
            To::Spent => &self.spent,
            To::WithVault => &self.with_vault,
            To::Forbidding => &self.forbidding,
        }
    }
}

async fn fleet(engine: &Engine) {
    let script = |name: &str| Instance::new(name).executor("script");
    for instance in [
        script("i-1").tag("role", "web").resource_group("rg-1"),
        script("i-off").state(InstanceState::Stopped),
        script("i-win").os_type(OsType::Windows),
    ] {
        engine.register_instance(instance).await.expect("sound");
    }
}

fn tags(count: usize) -> Value {
    (0..count).map(|n| json!({"Key": format!("k{n}"), "Value": ""})).collect()
}

fn values(count: usize) -> Value {
    (0..count).map(|n| (format!("p{n}"), json!(""))).collect::<serde_json::Map<_, _>>().into()
}

/// What both pages list: requests of either, as changes to a sound one that takes parameters `a` and `b`.
fn common() -> Vec<(To, &'static str, Value)> {
    use To::{Forbidding, NeedsValues, Plain, Spent, WithVault};
    let tagged = |tags: Value| json!({"InstanceId": [], "ResourceTag": tags});
    let tag = |key: &str, value: &str| tagged(json!([{"Key": key, "Value": value}]));
    let long = "x".repeat(2_000);
    let many: Vec<_> = (0..101).map(|n| format!("i-{n}")).collect();
    vec![
        (Plain, "MissingParam.InstanceId", json!({"InstanceId": []})),
        (Plain, "InvalidContainerId.Malformed", json!({"ContainerId": "xyz"})),
        (Plain, "InvalidContainerName.Malformed", json!({"ContainerName": "-x"})),
        (Plain, "InvalidClientToken.Malformed", json!({"ClientToken": "ü"})),
        (Plain, "InvalidInstance.NotMatch", json!({"InstanceId": ["i-off"]})),
        (Plain, "MissingParam.Frequency", json!({"RepeatMode": "Period"})),
        (Plain, "InvalidParam.Frequency", json!({"Frequency": "often"})),
        (NeedsValues, "Parameter.MissingValue", json!({"Parameters": {"a": ""}})),
        (Plain, "InvalidParameter.Parameters", json!({"Parameters": "{'a': 1}"})),
        (Plain, "NumberExceed.ResourceTags", tagged(tags(11))),
        (Plain, "MissingParameter.ResourceTagKey", tag("", "x")),
        (Plain, "InvalidResourceTagKey.Malformed", tag("acs:x", "")),
        (Plain, "InvalidResourceTagValue.Malformed", tag("role", "http://x")),
        (
            Plain,
            "Duplicate.ResourceTagKey",
            tagged(json!([{"Key": "role", "Value": "web"}, {"Key": "role", "Value": "web"}])),
        ),
        (Plain, "InvalidResourceTag.InstanceNotFound", tag("role", "db")),
        (
            Plain,
            "InvalidResourceTag.ConflictWithInstanceIds",
            json!({"ResourceTag": [{"Key": "role", "Value": "web"}]}),
        ),
        (Plain, "InstanceIds.ExceedLimit", json!({"InstanceId": many})),
        (Spent, "Invocation.ExceedQuota", json!({})),
        (Plain, "ParameterCount.ExceedLimit", json!({"Parameters": values(11)})),
        (
            Plain,
            "ParameterKey.ExceedLimit",
            json!({"Parameters": {"n".repeat(65): ""}, "ParameterPassing": "Environment"}),
        ),
        (Plain, "CmdContent.ExceedLimit", json!({"Parameters": {"a": long.repeat(12)}})),
        (Plain, "ParameterKey.Duplicate", json!({"Parameters": {"a": "1", "A": "2"}})),
        (Plain, "Parameter.NotMatched", json!({"Parameters": {"c": "1"}})),
        (Plain, "ParameterType.NotSupported", json!({"Parameters": {"a": [1]}})),
        (Plain, "Username.ExceedLimit", json!({"Username": long})),
        (Plain, "WindowsPasswordName.ExceedLimit", json!({"WindowsPasswordName": long})),
        (Plain, "ParameterStore.NotSupported", json!({"WindowsPasswordName": "x"})),
        (WithVault, "ParameterStore.NotSupported", json!({"WindowsPasswordName": "down"})),
        (WithVault, "ParameterStore.InvalidParameters", json!({"WindowsPasswordName": "none"})),
        (WithVault, "ParameterStore.NoPermission", json!({"WindowsPasswordName": "denied"})),
        (Forbidding, "Operation.Forbidden", json!({})),
        (Plain, "IdempotentParameterMismatch", json!({"ClientToken": "used"})),
        (Plain, "InvalidLauncher.LengthLimitExceeded", json!({"Launcher": long})),
        (Plain, "InvalidParameterCharset.Parameters", json!({"Parameters": {"a": "\u{0}"}})),
        (Plain, "InvalidRepeatMode.NotFound", json!({"RepeatMode": "Often"})),
        (Plain, "InvalidInstance.NotFound", json!({"InstanceId": ["i-9"]})),
        (Plain, "InvalidResourceGroup.NotFound", json!({"ResourceGroupId": "rg-9"})),
        (Plain, "InvalidTerminationMode.NotFound", json!({"TerminationMode": "Gently"})),
    ]
}

/// What only RunCommand lists.
fn of_run_command() -> Vec<(To, &'static str, Value)> {
    use To::{Plain, Spent, WithVault};
    let tag = |key: &str, value: &str| json!({"Tag": [{"Key": key, "Value": value}]});
    let script = |text: &str| json!({"CommandContent": text});
    let names: String = (0..21).map(|n| format!("{{{{p{n}}}}}")).collect();
    let long_name = format!("{{{{{}}}}}", "n".repeat(65));
    let long = "x".repeat(600);
    vec![
        (Plain, "NumberExceed.Tags", json!({"Tag": tags(21)})),
        (Plain, "InvalidTagValue.Malformed", tag("k", "https://x")),
        (
            Plain,
            "Duplicate.TagKey",
            json!({"Tag": [{"Key": "k", "Value": "1"}, {"Key": "k", "Value": "2"}]}),
        ),
        (Plain, "InvalidTagKey.Malformed", tag("aliyun", "")),
        (Plain, "MissingParameter.TagKey", tag("", "")),
        (Plain, "CmdParam.EmptyKey", script("{{}}")),
        (Plain, "CmdParam.InvalidParamName", script("{{a b}}")),
        (
            Plain,
            "CmdContent.DecodeError",
            json!({"CommandContent": "%", "ContentEncoding": "Base64"}),
        ),
        (
            Plain,
            "WindowsPasswordName.Missed",
            json!({"InstanceId": ["i-win"], "Type": "RunBatScript", "Username": "u"}),
        ),
        (Plain, "Parameter.Disabled", json!({"EnableParameter": false, "Parameters": {"a": ""}})),
        (Plain, "InvalidParameter.WorkingDir", json!({"WorkingDir": long})),
        (Plain, "CmdContent.ExceedLimit", script(&"x".repeat(18 * 1024 + 1))),
        (Plain, "CmdName.ExceedLimit", json!({"Name": long})),
        (Plain, "CmdDesc.ExceedLimit", json!({"Description": long})),
        (Plain, "CmdParamCount.ExceedLimit", script(&names)),
        (Plain, "CmdParamName.ExceedLimit", script(&long_name)),
        (
            WithVault,
            "ParameterStore.InvalidParameters",
            json!({"Parameters": {"a": "none"}, "SecretParameters": ["A"]}),
        ),
        (
            WithVault,
            "ParameterStore.NoPermission",
            json!({"DefaultParameters": {"a": "denied"}, "SecretParameters": ["a"]}),
        ),
        (Plain, "InvalidParameterCharacter.CommandName", json!({"Name": "a\u{0}"})),
        (Plain, "InvalidParameterCharacter.CommandDescription", json!({"Description": "\u{0}"})),
        (Plain, "InvalidParameterCharacter.CommandWorkingDir", json!({"WorkingDir": "\u{0}"})),
        (Plain, "InvalidCmdType.NotFound", json!({"Type": "RunPerl"})),
        (Spent, "CmdCount.ExceedQuota", json!({"KeepCommand": true})),
    ]
}

/// What only InvokeCommand lists, or has another status for.
fn of_invoke_command(engines: &Engines) -> Vec<(To, &'static str, Value)> {
    use To::Plain;
    let none = "c-00000000000070008000000000000000";
    vec![
        (
            Plain,
            "Parameter.Disabled",
            json!({"CommandId": engines.simple, "Parameters": {"a": ""}}),
        ),
        (Plain, "InvalidCmdId.NotFound", json!({"CommandId": none})),
        (Plain, "InvalidCmdId.NotFound", json!({"CommandId": "c-7d2a****"})),
        (
            Plain,
            "WindowsPasswordName.Missed",
            json!({"CommandId": engines.batch, "InstanceId": ["i-win"], "Username": "u"}),
        ),
    ]
}

/// Makes the requests; the codes they were refused with, each with its status as on the page.
async fn raised(
    engines: &Engines,
    operation: &str,
    base: &Value,
    page: &[(u16, &'static str)],
    rows: &[(To, &'static str, Value)],
) -> BTreeSet<&'static str> {
    let mut raised = BTreeSet::new();
    for (to, code, change) in rows {
        let mut request = with(base.clone(), change.clone());
        if operation == "InvokeCommand" && matches!(to, To::WithVault | To::Forbidding) {
            let other = json!({
                "Name": "n", "Type": "RunShellScript", "CommandContent": "ZXhpdDow",
            });
            let host = engines.get(*to).called_by("host");
            let made = ask(&host, "CreateCommand", other).await.expect("sound");
            request["CommandId"] = made["CommandId"].clone();
        }
        let shown = format!("{operation} {code} {change:.200}");
        let error = ask(engines.get(*to), operation, request).await.expect_err(&shown);
        let listed = page.iter().find(|(_, listed)| listed == code);
        // What the page does not list, the other one does.
        let status = listed.or_else(|| INVOKE_COMMAND.iter().find(|(_, listed)| listed == code));
        let (status, _) = status.unwrap_or_else(|| panic!("{shown} is listed nowhere"));
        assert_eq!((error.code(), error.http_status()), (*code, *status), "{shown}: {error}");
        if listed.is_some() {
            raised.insert(*code);
        }
    }
    raised
}

fn check_complete(page: &[(u16, &'static str)], raised: &BTreeSet<&str>, never: &[(&str, &str)]) {
    let listed: BTreeSet<_> = page.iter().map(|(_, code)| *code).collect();
    let never: BTreeSet<_> = never.iter().map(|(code, _)| *code).collect();
    assert_eq!(listed.len(), page.len(), "each once");
    assert!(raised.is_disjoint(&never), "{raised:?}");
    let both: BTreeSet<_> = raised.union(&never).copied().filter(|c| listed.contains(c)).collect();
    assert_eq!(both, listed);
}

#[tokio::test]
async fn every_code_of_run_command_is_raised_or_has_a_reason() {
    let engines = Engines::new().await;
    let base = json!({
        "Type": "RunShellScript", "CommandContent": "exit:0 {{a}}{{b}}", "EnableParameter": true,
        "InstanceId": ["i-1"],
    });
    let rows = [common(), of_run_command()].concat();
    let raised = raised(&engines, "RunCommand", &base, RUN_COMMAND, &rows).await;
    check_complete(RUN_COMMAND, &raised, &[NEVER, NEVER_BY_RUN_COMMAND].concat());
    for code in OLDER_RUN_COMMAND {
        assert!(RUN_COMMAND.iter().any(|(_, newer)| newer == code), "{code}");
    }
}

#[tokio::test]
async fn every_code_of_invoke_command_is_raised_or_has_a_reason() {
    let engines = Engines::new().await;
    let base = json!({"CommandId": engines.kept, "InstanceId": ["i-1"]});
    let rows = [common(), of_invoke_command(&engines)].concat();
    let raised = raised(&engines, "InvokeCommand", &base, INVOKE_COMMAND, &rows).await;
    check_complete(INVOKE_COMMAND, &raised, NEVER);
}

/// The pages' code for requests that overlap: the second waits for the first instead, and gets its answer.
#[tokio::test]
async fn requests_with_one_token_at_once_get_one_answer() {
    let engine = crate::support::pages().await;
    let request = json!({
        "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"],
        "ClientToken": "t",
    });
    let ask = || ask(&engine, "RunCommand", request.clone());
    let (one, two) = tokio::join!(ask(), ask());
    assert_eq!(one.expect("the first")["InvokeId"], two.expect("the same")["InvokeId"]);
}

#[test]
fn the_document_has_the_codes_that_are_never_raised() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("engine/ARCHITECTURE.md")).expect("UTF-8");
    for (code, why) in [NEVER, NEVER_BY_RUN_COMMAND].concat() {
        assert!(document.contains(&format!("| `{code}` | {why} |")), "{code} {why}");
    }
}

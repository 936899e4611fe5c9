//! Everything that is wrong with a request is said at once, in the order of its page, and nothing
//! of it is stored.

use adjutant::{CreateCommand, Engine, Instance, InstanceState, Limits, OsType, Violation};
use serde_json::{Value, json};

use crate::support::{ask, engine, everything, with};

/// An engine whose quotas are used up, with a stopped instance and one of Windows.
async fn spent() -> (Engine, Value) {
    let engine = engine().await;
    for instance in [
        Instance::new("i-off").executor("script").state(InstanceState::Stopped),
        Instance::new("i-win").executor("script").os_type(OsType::Windows),
    ] {
        engine.register_instance(instance).await.expect("sound");
    }
    let create = CreateCommand::shell("c", "exit:0 {{a}}").enable_parameter();
    let kept = engine.create_command(create).await.expect("sound").command_id;
    let mut limits = Limits::alibaba();
    (limits.invocations_per_day_max, limits.kept_commands_max) = (0, 1);
    (engine.with_limits(limits), json!(kept.to_string()))
}

async fn violations(engine: &Engine, operation: &str, request: Value) -> Vec<Violation> {
    let before = everything(engine).await;
    let error = ask(engine, operation, request).await.expect_err("refused");
    assert_eq!(everything(engine).await, before);
    let found = error.violations().to_vec();
    assert_eq!(error.code(), found[0].code);
    for violation in &found {
        let text = error.to_string();
        assert!(text.contains(violation.field) && text.contains(&violation.message), "{text}");
    }
    found
}

fn codes(found: &[Violation]) -> Vec<&'static str> {
    found.iter().map(|violation| violation.code).collect()
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_run_is_told_in_its_pages_order() {
    let (engine, _) = spent().await;
    let request = json!({
        "Name": "n".repeat(129),
        "Description": "d\u{0}",
        "Type": "RunShellScript",
        "CommandContent": "x".repeat(18 * 1024 + 1),
        "KeepCommand": true,
        "InstanceId": ["i-9", "i-off", "i-win"],
        "Username": "u".repeat(256),
        "Launcher": "l".repeat(1025),
        "Timeout": 0,
        "Tag": [{"Key": "", "Value": ""}],
        "ContainerId": "1",
        "ClientToken": "t".repeat(65),
        "Parameters": {"a": "1", "A": "\u{0}"},
        "RepeatMode": "Sometimes",
        "Frequency": "rate(1s)",
        "ResourceGroupId": "rg-none",
        "TerminationMode": "Kill",
        "WindowsPasswordName": "w".repeat(256),
        "MaxConcurrency": 0,
        "MaxErrors": "most",
        "Waves": ["2", "x", "1"],
        "WaveSoak": 604_801,
        "Priority": 10,
        "ConcurrencyKey": "k".repeat(65),
        "StartDeadline": 0,
        "Deadline": 2_592_001,
    });
    let found = violations(&engine, "RunCommand", request).await;
    let want = [
        "MissingParameter.TagKey",
        "InvalidContainerId.Malformed",
        "InvalidClientToken.Malformed",
        // It is stopped; the other runs Windows.
        "InvalidInstance.NotMatch",
        "InvalidInstance.NotMatch",
        "InvalidParam.Frequency",
        "ParameterKey.Duplicate",
        "Parameter.Disabled",
        "CmdContent.ExceedLimit",
        "CmdName.ExceedLimit",
        "CmdCount.ExceedQuota",
        "Invocation.ExceedQuota",
        "Username.ExceedLimit",
        "WindowsPasswordName.ExceedLimit",
        "ParameterStore.NotSupported",
        "InvalidParameterCharacter.CommandDescription",
        "InvalidLauncher.LengthLimitExceeded",
        "InvalidParameterCharset.Parameters",
        "InvalidRepeatMode.NotFound",
        "InvalidInstance.NotFound",
        "InvalidResourceGroup.NotFound",
        "InvalidTerminationMode.NotFound",
        // The pages have none for these.
        "InvalidParameter.Timeout",
        "InvalidParameter.MaxConcurrency",
        "InvalidParameter.MaxErrors",
        "InvalidParameter.Waves",
        "InvalidParameter.Waves",
        "InvalidParameter.WaveSoak",
        "InvalidParameter.Priority",
        "InvalidParameter.ConcurrencyKey",
        "InvalidParameter.StartDeadline",
        "InvalidParameter.Deadline",
    ];
    assert_eq!(codes(&found), want);
    let check = |code: &str, field: &str, numbers: &[&str]| {
        let violation = found.iter().find(|v| v.code == code).expect("found above");
        assert_eq!(violation.field, field, "{code}");
        for number in numbers {
            assert!(violation.message.contains(number), "{violation}");
        }
    };
    check("CmdName.ExceedLimit", "Name", &["128", "129"]);
    check("CmdContent.ExceedLimit", "CommandContent", &["18432", "24580"]);
    check("CmdCount.ExceedQuota", "KeepCommand", &["1 commands are kept, the quota is 1"]);
    check("Invocation.ExceedQuota", "InvokeId", &["at most 0", "number 1"]);
    check("Username.ExceedLimit", "Username", &["255", "256"]);
    check("WindowsPasswordName.ExceedLimit", "WindowsPasswordName", &["255", "256"]);
    check("InvalidLauncher.LengthLimitExceeded", "Launcher", &["1024", "1025"]);
    check("InvalidClientToken.Malformed", "ClientToken", &["64", "65"]);
    check("InvalidParameter.Timeout", "Timeout", &["1 to", "0"]);
    check("InvalidParameter.MaxConcurrency", "MaxConcurrency", &["from 1 on", "`0`"]);
    check("InvalidParameter.MaxErrors", "MaxErrors", &["from 0 on", "`most`"]);
    check("InvalidParameter.WaveSoak", "WaveSoak", &["604800", "604801"]);
    check("InvalidParameter.Priority", "Priority", &["0 to 9", "10"]);
    check("InvalidParameter.ConcurrencyKey", "ConcurrencyKey", &["64", "65"]);
    check("InvalidParameter.StartDeadline", "StartDeadline", &["1 to 2592000", "0"]);
    check("InvalidParameter.Deadline", "Deadline", &["1 to 2592000", "2592001"]);
    check("InvalidInstance.NotFound", "InstanceId", &["i-9"]);
    check("InvalidRepeatMode.NotFound", "RepeatMode", &["Sometimes", "DryRun"]);
}

#[tokio::test]
async fn nothing_may_start_after_all_has_to_end() {
    let engine = engine().await;
    let request = |start: u64, end: u64| {
        json!({
            "Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"],
            "StartDeadline": start, "Deadline": end,
        })
    };
    let check = async |start: u64, end: u64, want: &[&str]| {
        let found = violations(&engine, "RunCommand", request(start, end)).await;
        let found: Vec<_> = found.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(found, want, "{start} and {end}");
    };
    check(60, 30, &["want at most the Deadline, 30 seconds; it is 60"]).await;
    let (range, order) = ("want 1 to 2592000 seconds; it is", "want at most the Deadline");
    let (late, both) = (format!("{range} 2592001"), format!("{order}, 30 seconds; it is 2592001"));
    check(2_592_001, 30, &[&late, &both]).await;
    check(60, 0, &[&format!("{range} 0")]).await;
    ask(&engine, "RunCommand", request(30, 30)).await.expect("the one may be the other");
}

#[tokio::test]
async fn everything_that_is_wrong_with_an_invocation_is_told_in_its_pages_order() {
    let (engine, kept) = spent().await;
    let request = json!({
        "CommandId": kept,
        "InstanceId": ["i-9", "i-off"],
        "Parameters": {"a": "x".repeat(18 * 1024), "b": "1", "B": "2"},
        "RepeatMode": "Sometimes",
        "Launcher": "l".repeat(1025),
        "Timeout": 9,
        "ContainerName": "-",
    });
    let found = violations(&engine, "InvokeCommand", request).await;
    let want = [
        ("InvalidContainerName.Malformed", 400),
        ("InvalidInstance.NotMatch", 400),
        ("Invocation.ExceedQuota", 403),
        ("CmdContent.ExceedLimit", 403),
        ("ParameterKey.Duplicate", 403),
        ("Parameter.NotMatched", 403),
        ("Parameter.NotMatched", 403),
        ("InvalidLauncher.LengthLimitExceeded", 403),
        ("InvalidRepeatMode.NotFound", 404),
        ("InvalidInstance.NotFound", 404),
        ("InvalidParameter.Timeout", 400),
    ];
    let told: Vec<_> = found.iter().map(|v| (v.code, v.http_status)).collect();
    assert_eq!(told, want);
}

/// What is wrong with one field does not hide what is wrong with another.
#[tokio::test]
async fn one_fault_hides_no_other() {
    let (engine, _) = spent().await;
    let engine = engine.with_limits(Limits::alibaba());
    let base = json!({"Type": "RunShellScript", "CommandContent": "exit:0", "InstanceId": ["i-1"]});
    let too_large = "x".repeat(18 * 1024 + 1);
    let faults = [
        ("CmdContent.ExceedLimit", json!({"CommandContent": too_large})),
        ("CmdContent.DecodeError", json!({"CommandContent": "%", "ContentEncoding": "Base64"})),
        ("MissingParameter.CommandContent", json!({"CommandContent": ""})),
        ("InvalidCmdType.NotFound", json!({"Type": "RunPerl"})),
        ("InvalidRepeatMode.NotFound", json!({"RepeatMode": "Often"})),
    ];
    let others = [
        ("InvalidInstance.NotMatch", json!({"InstanceId": ["i-off"]})),
        ("WindowsPasswordName.Missed", json!({"InstanceId": ["i-win"], "Username": "u"})),
        ("InvalidParam.Frequency", json!({"Frequency": "rate(59s)"})),
        ("Parameter.Disabled", json!({"Parameters": {"a": ""}})),
        (
            "CmdParam.InvalidParamName",
            json!({"EnableParameter": true, "DefaultParameters": {"a b": ""}}),
        ),
        ("InvalidInstance.NotFound", json!({"InstanceId": ["i-9"]})),
    ];
    for (code, fault) in &faults {
        for (other, change) in &others {
            let request = with(with(base.clone(), fault.clone()), change.clone());
            let found = codes(&violations(&engine, "RunCommand", request).await);
            assert!(found.contains(code) && found.contains(other), "{code} {other}: {found:?}");
        }
    }
    let windows = json!({"InstanceId": ["i-win"], "CommandContent": too_large});
    let found = violations(&engine, "RunCommand", with(base, windows)).await;
    assert_eq!(codes(&found), ["InvalidInstance.NotMatch", "CmdContent.ExceedLimit"]);
    let create = json!({
        "Name": "", "CommandContent": "%", "Type": "x", "EnableParameter": true,
        "DefaultParameters": {"a b": ""}, "ClientToken": "ü", "Tag": [{"Key": "acs:x"}],
    });
    let found = violations(&engine, "CreateCommand", create).await;
    let want = [
        "InvalidTagKey.Malformed",
        "InvalidClientToken.Malformed",
        "CmdParam.InvalidParamName",
        "CmdContent.DecodeError",
        "InvalidCmdType.NotFound",
        "MissingParameter.Name",
    ];
    assert_eq!(codes(&found), want);
}

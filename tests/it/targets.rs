//! Whom a request is for: by name, by tag, within a group; all of them or none.

use adjutant::{
    CreateCommand, DescribeCommands, DescribeInstances, DescribeInvocations, Engine, Given,
    Instance, InstanceState, InvokeCommand, Limits, OsType, RunCommand, Tag,
};

use crate::support::{engine, wait, with_executors};

/// Five instances: `i-1` to `i-3` are web servers, `i-3` of which is in test; `i-4` is stopped, `i-5` runs Windows.
async fn fleet() -> Engine {
    let engine = with_executors(Engine::builder()).open().await.expect("an engine");
    let web = |n: u32, stage: &str| {
        let instance = Instance::new(format!("i-{n}")).executor("script");
        instance.tag("role", "web").tag("stage", stage).resource_group("rg-web")
    };
    let others = [
        Instance::new("i-4").executor("script").tag("role", "db").state(InstanceState::Stopped),
        Instance::new("i-5").executor("script").tag("role", "desk").os_type(OsType::Windows),
    ];
    for instance in [web(1, "live"), web(2, "live"), web(3, "test")].into_iter().chain(others) {
        engine.register_instance(instance).await.expect("sound");
    }
    engine
}

#[tokio::test]
async fn tags_select_the_instances_that_have_all_of_them() {
    let engine = fleet().await;
    let check = async |tags: &[(&str, &str)], want: Result<&[&str], &str>| {
        let request = RunCommand::shell("exit:0").on_tagged(tags.iter().copied());
        match (engine.run_command(request).await, want) {
            (Ok(run), Ok(want)) => {
                let results = wait(&engine, &run.invoke_id).await.results;
                let on: Vec<_> = results.iter().map(|result| result.instance_id.as_str()).collect();
                assert_eq!(on, want, "{tags:?}");
            }
            (Err(error), Err(code)) => assert_eq!(error.code(), code, "{tags:?}"),
            (got, want) => panic!("{tags:?}: {got:?} {want:?}"),
        }
    };
    check(&[("role", "web")], Ok(&["i-1", "i-2", "i-3"])).await;
    check(&[("role", "web"), ("stage", "live")], Ok(&["i-1", "i-2"])).await;
    check(&[("role", "web"), ("stage", "none")], Err("InvalidResourceTag.InstanceNotFound")).await;
    check(&[("role", "db")], Err("InvalidInstance.NotMatch")).await;
    check(&[("", "db")], Err("MissingParameter.ResourceTagKey")).await;
}

#[tokio::test]
async fn all_or_nothing() {
    let engine = fleet().await;
    let check = async |request: RunCommand, want: &[&str]| {
        let error = engine.run_command(request).await.expect_err("refused");
        let codes: Vec<_> = error.violations().iter().map(|violation| violation.code).collect();
        assert_eq!(codes, want, "{error}");
    };
    let on = |ids: &[&str]| RunCommand::shell("exit:0").on(ids.iter().copied());
    check(on(&["i-1", "i-4"]), &["InvalidInstance.NotMatch"]).await;
    check(on(&["i-1", "i-5"]), &["InvalidInstance.NotMatch"]).await;
    check(on(&["i-8", "i-1", "i-9"]), &["InvalidInstance.NotFound"; 2]).await;
    check(
        on(&["i-1"]).resource_group("rg-web").on_tagged([("role", "web")]),
        &["InvalidResourceTag.ConflictWithInstanceIds"],
    )
    .await;
    check(on(&["i-1", "i-4"]).resource_group("rg-web"), &["InvalidInstance.NotMatch"; 2]).await;
    check(on(&["i-1"]).resource_group("rg-none"), &["InvalidResourceGroup.NotFound"]).await;
    check(on(&[]), &["MissingParam.InstanceId"]).await;
    let none = engine.describe_invocations(DescribeInvocations::default()).await.expect("a page");
    assert_eq!(none.invocations, []);
    let sound = engine.run_command(on(&["i-1", "i-3"]).resource_group("rg-web")).await;
    assert_eq!(wait(&engine, &sound.expect("sound").invoke_id).await.results.len(), 2);
}

#[tokio::test]
async fn tags_select_no_more_instances_than_they_may() {
    let mut limits = Limits::alibaba();
    limits.tagged_instances_max = 2;
    let engine = with_executors(Engine::builder()).limits(limits).open().await.expect("an engine");
    let check = async |count: usize, fits: bool| {
        let name = format!("i-{count}");
        let instance = Instance::new(name).executor("script").tag("all", "");
        engine.register_instance(instance).await.expect("sound");
        let run = engine.run_command(RunCommand::shell("exit:0").on_tagged([("all", "")])).await;
        assert_eq!(
            run.as_ref().err().map(|error| error.code()),
            (!fits).then_some("InstanceIds.ExceedLimit")
        );
    };
    check(1, true).await;
    check(2, true).await;
    check(3, false).await;
}

#[tokio::test]
async fn an_instance_keeps_its_tags_and_group() {
    let engine = fleet().await;
    let filter = DescribeInstances::default().only(["i-1"]);
    let listed = engine.describe_instances(filter.clone()).await.expect("it exists").instances;
    assert_eq!(listed[0].tags, [Tag::new("role", "web"), Tag::new("stage", "live")]);
    assert_eq!(listed[0].resource_group_id.as_deref(), Some("rg-web"));
    let changed = Instance::new("i-1").executor("script").tag("role", "db");
    engine.register_instance(changed).await.expect("sound");
    let listed = engine.describe_instances(filter).await.expect("it exists").instances;
    assert_eq!(listed[0].tags, [Tag::new("role", "db")]);
    let twice = Instance::new("i-1").executor("script").tag("role", "1").tag("role", "2");
    let error = engine.register_instance(twice).await.expect_err("refused");
    assert_eq!(error.code(), "Duplicate.TagKey");
}

#[tokio::test]
async fn what_is_tagged_is_found_by_its_tags() {
    let engine = engine().await;
    let create = CreateCommand::shell("kept", "exit:0").tag("team", "a").tag("kind", "x");
    let kept = engine.create_command(create).await.expect("sound").command_id;
    engine.create_command(CreateCommand::shell("other", "exit:0")).await.expect("sound");
    let tags = vec![Tag::new("team", "a"), Tag::new("kind", "x")];
    let filter = DescribeCommands::default().tag("team", "a").tag("kind", "x");
    let found = engine.describe_commands(filter).await.expect("a page").commands;
    assert_eq!((found.len(), found[0].command_id, &found[0].tags), (1, kept, &tags));

    let request = InvokeCommand::new(kept).on(["i-1"]).tag("team", "b");
    let run = engine.invoke_command(request).await.expect("sound").invoke_id;
    engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
    let filter = DescribeInvocations::default().tag("team", "b");
    let found = engine.describe_invocations(filter).await.expect("a page").invocations;
    assert_eq!((found.len(), found[0].invoke_id), (1, run));
    assert_eq!(found[0].tags, [Tag::new("team", "b")], "an invocation's tags are its own");

    let request = RunCommand::shell("exit:0").on(["i-1"]).tag("a", "1").tag("a", "2");
    let error = engine.run_command(request).await.expect_err("refused");
    assert_eq!(error.code(), "Duplicate.TagKey");
}

#[tokio::test]
async fn what_names_nothing_is_refused_with_the_pages_code() {
    let engine = engine().await;
    let check = async |json: &str, want: &str| {
        let request: RunCommand = serde_json::from_str(json).expect(json);
        let error = engine.run_command(request).await.expect_err("refused");
        assert_eq!(error.code(), want, "{error}");
    };
    let with = |fields: &str| {
        format!(
            r#"{{"Type":"RunShellScript","CommandContent":"exit:0","InstanceId":["i-1"],{fields}}}"#
        )
    };
    check(
        r#"{"Type":"Perl","CommandContent":"x","InstanceId":["i-1"]}"#,
        "InvalidCmdType.NotFound",
    )
    .await;
    check(r#"{"CommandContent":"x","InstanceId":["i-1"]}"#, "InvalidCmdType.NotFound").await;
    check(&with(r#""RepeatMode":"Often""#), "InvalidRepeatMode.NotFound").await;
    check(&with(r#""TerminationMode":"Gently""#), "InvalidTerminationMode.NotFound").await;
    check(&with(r#""OverlapPolicy":"Hope""#), "InvalidParameter.OverlapPolicy").await;
    check(&with(r#""MissedPolicy":"All:x""#), "InvalidParameter.MissedPolicy").await;
    check(&with(r#""Timeout":"0""#), "InvalidParameter.Timeout").await;
    check(&with(r#""EnableParameter":"true","Parameters":"[]""#), "InvalidParameter.Parameters")
        .await;
    let mut invoke: InvokeCommand =
        serde_json::from_str(r#"{"CommandId":"c-7d2a****"}"#).expect("readable");
    assert!(matches!(invoke.command_id, Given::Unknown(_)));
    invoke = invoke.on(["i-1"]);
    let error = engine.invoke_command(invoke).await.expect_err("refused");
    assert_eq!((error.code(), error.http_status()), ("InvalidCmdId.NotFound", 404));

    let pages = with(
        r#""RegionId":"cn-hangzhou","OwnerId":155,"OwnerAccount":"x","ResourceOwnerId":"1",
        "ResourceOwnerAccount":"y","Timed":"true","KeepCommand":"False","Timeout":"3600",
        "EnableParameter":"false","RepeatMode":"Once""#,
    );
    let request: RunCommand = serde_json::from_str(&pages).expect("as the pages' clients write it");
    engine.run_command(request).await.expect("sound");
    let error = serde_json::from_str::<RunCommand>(&with(r#""Color":"red""#)).expect_err("unknown");
    assert!(error.to_string().contains("unknown field `Color`"), "{error}");
}

//! Kept commands.

use adjutant::{
    CommandId, CreateCommand, DescribeCommands, Engine, Error, InvokeCommand, Limits,
    ModifyCommand, RunCommand,
};

use crate::support::{Gate, engine, register, run, wait, within};

async fn names(engine: &Engine, filter: DescribeCommands) -> Vec<String> {
    let listed = engine.describe_commands(filter).await.expect("a page");
    listed.commands.into_iter().map(|command| command.name).collect()
}

#[tokio::test]
async fn commands_are_created_listed_changed_and_deleted() {
    let engine = engine().await;
    for name in ["backup-db", "backup-files", "50%_done"] {
        engine.create_command(CreateCommand::shell(name, "exit:0")).await.expect("sound");
    }
    let check = async |pattern: &str, want: &[&str]| {
        let filter = DescribeCommands::default().name(pattern.to_owned());
        assert_eq!(names(&engine, filter).await, want, "{pattern}");
    };
    check("backup-*", &["backup-files", "backup-db"]).await;
    check("*files", &["backup-files"]).await;
    check("*up-d*", &["backup-db"]).await;
    check("backup-db", &["backup-db"]).await;
    check("50%*", &["50%_done"]).await;
    check("%*", &[]).await;

    let all = engine.describe_commands(DescribeCommands::default()).await.expect("a page");
    let id = all.commands[0].command_id;
    engine.modify_command(ModifyCommand::new(id).name("n").working_dir("/tmp")).await.expect("ok");
    let only = DescribeCommands::default().command_id(id);
    let changed = engine.describe_commands(only.clone()).await.expect("a page").commands;
    assert_eq!((&*changed[0].name, &*changed[0].working_dir), ("n", "/tmp"));
    assert_eq!(changed[0].timeout, None);
    engine.delete_command(id).await.expect("not in use");
    assert_eq!(names(&engine, only).await, [""; 0]);
    let error = engine.delete_command(id).await.expect_err("gone");
    assert_eq!(error.code(), "InvalidCmdId.NotFound");
}

#[tokio::test]
async fn a_run_keeps_its_command_only_if_asked() {
    let engine = engine().await;
    run(&engine, "exit:0", &["i-1"]).await;
    assert_eq!(names(&engine, DescribeCommands::default()).await, [""; 0]);
    let keep = RunCommand::shell("out:kept").name("kept").on(["i-1"]).keep();
    let response = engine.run_command(keep).await.expect("sound");
    assert_eq!(names(&engine, DescribeCommands::default()).await, ["kept"]);
    let invoke = InvokeCommand::new(response.command_id).on(["i-2"]);
    let again = engine.invoke_command(invoke).await.expect("it was kept");
    assert_eq!(wait(&engine, &again.invoke_id).await.results[0].output.as_bytes(), b"kept");
}

#[tokio::test]
async fn a_command_in_use_stays() {
    let gate = Gate::new();
    let engine = gate.plug_in(Engine::builder()).open().await.expect("an engine");
    register(&engine, "gate", 1).await;
    let id = engine.create_command(CreateCommand::shell("c", "x")).await.expect("ok").command_id;
    let run = engine.invoke_command(InvokeCommand::new(id).on(["i-1"])).await.expect("ok");
    within(gate.arrivals(1)).await;
    let error = engine.delete_command(id).await.expect_err("in use");
    assert!(matches!(error, Error::Conflict { code: "InvalidStatus.CmdIdInUse", .. }));
    gate.let_go(1);
    wait(&engine, &run.invoke_id).await;
    engine.delete_command(id).await.expect("no longer in use");
    // What ran it still knows it.
    let results = engine.describe_invocation_results(Default::default()).await.expect("a page");
    assert_eq!(results.invocation.results[0].command_id, id);
}

#[tokio::test]
async fn the_quota_of_kept_commands_holds() {
    let mut limits = Limits::alibaba();
    limits.kept_commands_max = 1;
    let builder = crate::support::with_executors(Engine::builder()).limits(limits);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    engine.create_command(CreateCommand::shell("a", "exit:0")).await.expect("the first");
    let keep = RunCommand::shell("exit:0").name("b").on(["i-1"]).keep();
    let error = engine.run_command(keep).await.expect_err("one too many");
    assert_eq!(error.code(), "CmdCount.ExceedQuota");
    let none = engine.describe_invocations(Default::default()).await.expect("a page");
    assert_eq!(none.invocations, []);
    run(&engine, "exit:0", &["i-1"]).await;
}

#[tokio::test]
async fn an_unknown_command_cannot_be_invoked() {
    let engine = engine().await;
    let id: CommandId = "c-00000000000070008000000000000000".parse().expect("an id");
    let error = engine.invoke_command(InvokeCommand::new(id).on(["i-1"])).await.expect_err("no");
    assert_eq!((error.code(), error.http_status()), ("InvalidCmdId.NotFound", 404));
}

#[tokio::test]
async fn a_run_that_keeps_its_command_need_not_name_it() {
    let engine = engine().await;
    let run = engine.run_command(RunCommand::shell("exit:0").on(["i-1"]).keep()).await;
    let command_id = run.expect("the pages take it").command_id;
    let listed = engine.describe_commands(Default::default()).await.expect("a page");
    assert_eq!(listed.commands[0].name, command_id.to_string());
}

//! What runs when an instance boots.

use std::time::Duration;

use adjutant::{
    DescribeFires, Engine, ExecutionStatus, FireDisposition, Instance, InstanceId,
    InvocationStatus, InvokeId, LOCAL, OverlapPolicy, RepeatMode, RunCommand, StopInvocation,
};

use crate::recurrence::{ended, status};
use crate::support::{Place, engine, wait, within};

fn on_reboot(mode: RepeatMode) -> RunCommand {
    RunCommand::shell("exit:0").on(["i-1", "i-2"]).repeat_mode(mode)
}

async fn boot(engine: &Engine, instance: &str, boot_id: &str) {
    engine.instance_booted(&InstanceId::from(instance), boot_id).await.expect("it is registered");
}

/// What became of boots, oldest first.
async fn boots(engine: &Engine, invoke_id: InvokeId) -> Vec<String> {
    let page = engine.describe_fires(DescribeFires::new(invoke_id).max_results(50));
    let fires = page.await.expect("it exists").fires;
    let told = fires.iter().rev().map(|fire| match fire.disposition {
        FireDisposition::Started => fire.reason.clone(),
        _ => format!("skipped: {}", fire.reason),
    });
    told.collect()
}

#[tokio::test]
async fn the_next_reboot_of_each_instance_fires_once() {
    let engine = engine().await;
    boot(&engine, "i-1", "a").await;
    boot(&engine, "i-2", "a").await;
    let id = engine.run_command(on_reboot(RepeatMode::NextRebootOnly)).await.expect("sound");
    let id = id.invoke_id;
    boot(&engine, "i-1", "a").await;
    assert_eq!(status(&engine, id).await, InvocationStatus::Scheduled);
    assert_eq!(boots(&engine, id).await, [""; 0], "the same boot is no reboot");
    boot(&engine, "i-1", "b").await;
    ended(&engine, id, 1).await;
    boot(&engine, "i-1", "c").await;
    assert_eq!(boots(&engine, id).await, ["i-1 booted; its boot id is b"]);
    assert_eq!(status(&engine, id).await, InvocationStatus::Scheduled);
    boot(&engine, "i-2", "z").await;
    let finished = wait(&engine, &id).await;
    assert_eq!((finished.status, finished.results.len()), (InvocationStatus::Success, 2));
}

#[tokio::test]
async fn every_reboot_fires_until_it_is_stopped() {
    let engine = engine().await;
    // Boots follow each other faster here than runs end.
    let request = on_reboot(RepeatMode::EveryReboot).overlap_policy(OverlapPolicy::Allow);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    // No boot was known when it was made: the first one that is told is the one it was made under.
    boot(&engine, "i-1", "a").await;
    assert_eq!(boots(&engine, id).await, [""; 0]);
    for boot_id in ["b", "b", "c"] {
        boot(&engine, "i-1", boot_id).await;
    }
    assert_eq!(ended(&engine, id, 2).await, [ExecutionStatus::Success, ExecutionStatus::Success]);
    engine.pause_invocation(&id).await.expect("it repeats");
    boot(&engine, "i-1", "d").await;
    engine.resume_invocation(&id).await.expect("it repeats");
    boot(&engine, "i-1", "e").await;
    assert_eq!(ended(&engine, id, 3).await.len(), 3);
    assert_eq!(
        boots(&engine, id).await,
        [
            "i-1 booted; its boot id is b",
            "i-1 booted; its boot id is c",
            "skipped: the invocation paused",
            "i-1 booted; its boot id is e",
        ]
    );
    let error = engine.remove_instance(&"i-2".into()).await.expect_err("it is waited for");
    assert_eq!(error.code(), "InvalidStatus.InstanceIdInUse");
    engine.stop_invocation(StopInvocation::new(id)).await.expect("it exists");
    boot(&engine, "i-1", "f").await;
    assert_eq!(boots(&engine, id).await.len(), 4);
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success);
}

#[tokio::test]
async fn a_restart_of_the_engine_is_no_reboot_of_the_machine() {
    let place = Place::new();
    let engine = place.open().await;
    let request = RunCommand::shell("true").on([LOCAL]).repeat_mode(RepeatMode::NextRebootOnly);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let engine = place.open().await;
    assert_eq!(status(&engine, id).await, InvocationStatus::Scheduled);
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    // As if the machine had been in another boot before.
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let before = "UPDATE targets SET boot_id = 'before'";
    assert_eq!(file.execute(before, ()).expect("sound SQL"), 1);
    drop(file);
    let engine = place.open().await;
    assert_eq!(wait(&engine, &id).await.status, InvocationStatus::Success);
    assert_eq!(boots(&engine, id).await.len(), 1);
}

#[tokio::test]
async fn boots_that_cannot_be_are_refused() {
    let engine = engine().await;
    let check = async |instance: &str, boot_id: &str, code: &str| {
        let told = engine.instance_booted(&InstanceId::from(instance), boot_id).await;
        assert_eq!(told.expect_err("refused").code(), code, "{instance} {boot_id}");
    };
    check("i-9", "a", "InvalidInstance.NotFound").await;
    check(LOCAL, "a", "InvalidInstance.NotMatch").await;
    check("i-1", "", "InvalidBootId.Malformed").await;
    check("i-1", "a\nb", "InvalidBootId.Malformed").await;
    check("i-1", &"x".repeat(129), "InvalidBootId.Malformed").await;
}

#[tokio::test]
async fn a_run_beside_the_schedule_leaves_out_what_has_been_removed() {
    let engine = engine().await;
    boot(&engine, "i-1", "a").await;
    boot(&engine, "i-2", "a").await;
    let request = on_reboot(RepeatMode::NextRebootOnly);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    boot(&engine, "i-1", "b").await;
    ended(&engine, id, 1).await;
    engine.remove_instance(&"i-1".into()).await.expect("nothing of it is left");
    engine.run_now(&id).await.expect("i-2 still waits");
    ended(&engine, id, 2).await;
    let filter = adjutant::DescribeInvocationResults::default()
        .invoke_id(id)
        .instance_id("i-1")
        .include_history();
    let on_removed = engine.describe_invocation_results(filter).await.expect("a page");
    assert_eq!(on_removed.invocation.results.len(), 1);
}

/// The invocations that wait for the boot of an instance cannot be told of it: one of them, or all.
#[tokio::test]
async fn a_boot_that_cannot_be_dealt_with_refuses_neither_the_instance_nor_the_report() {
    let redirected = "PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'outputs')
        WHERE name = 'targets_by_boot'; PRAGMA schema_version = 1000";
    let refuses = |event: &str| {
        format!(
            "CREATE TRIGGER refuses BEFORE {event} WHEN old.invocation = (SELECT min(id) FROM invocations)
             BEGIN SELECT RAISE(ABORT, 'damaged'); END"
        )
    };
    let gone = "PRAGMA foreign_keys = OFF; UPDATE targets SET invocation = 4711
        WHERE invocation = (SELECT min(id) FROM invocations)";
    let check = async |damage: &str, told: bool| {
        let place = Place::new();
        let engine = place.open().await;
        boot(&engine, "i-1", "a").await;
        let request = || RunCommand::shell("exit:0").repeat_mode(RepeatMode::EveryReboot);
        let mut others = Vec::new();
        for on in ["i-1", LOCAL] {
            engine.run_command(request().on([on])).await.expect("sound");
            let other = engine.run_command(request().on([on])).await.expect("sound");
            others.push(other.invoke_id);
        }
        let file = rusqlite::Connection::open(place.database()).expect("a database");
        file.execute("UPDATE targets SET boot_id = 'before'", ()).expect("sound SQL");
        file.execute_batch(damage).unwrap_or_else(|error| panic!("{damage}: {error}"));
        let local = Instance::new(LOCAL).name("this one");
        within(engine.register_instance(local)).await.unwrap_or_else(|e| panic!("{damage}: {e}"));
        within(boot(&engine, "i-1", "b")).await;
        let listed = engine.describe_instances(Default::default()).await.expect("a page");
        assert!(listed.instances.iter().any(|one| one.name == "this one"), "{damage}");
        if !told {
            return;
        }
        for id in others {
            ended(&engine, id, 1).await;
        }
        within(engine.shutdown(Duration::ZERO)).await;
        drop(engine);
        // An engine opens no file with a trigger that is not its own.
        file.execute_batch("DROP TRIGGER IF EXISTS refuses").expect("sound SQL");
        // The boot does not keep the file from being opened either.
        let engine = within(place.builder().open()).await;
        engine.unwrap_or_else(|error| panic!("{damage}: {error}"));
    };
    check("UPDATE invocations SET overlap_policy = 'x' WHERE FALSE", true).await;
    check(&refuses("UPDATE ON targets"), true).await;
    check(&refuses("UPDATE OF boot_id ON targets"), true).await;
    check(gone, true).await;
    check(redirected, false).await;
}

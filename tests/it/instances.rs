//! The registry of targets.

use adjutant::{
    DescribeInstances, Engine, Error, Instance, InstanceId, InstanceState, OsType, RunCommand,
};

use crate::support::{Gate, Place, engine, register, run, wait, within};

async fn ids(engine: &Engine) -> Vec<String> {
    let all = DescribeInstances::default().max_results(50);
    let listed = engine.describe_instances(all).await.expect("a page");
    listed.instances.iter().map(|i| i.instance_id.to_string()).collect()
}

#[tokio::test]
async fn this_machine_is_there_from_the_start_until_it_is_removed() {
    let place = Place::new();
    let engine = place.builder().open().await.expect("the file opens");
    assert_eq!(ids(&engine).await, ["local"]);
    engine.remove_instance(&InstanceId::from("local")).await.expect("it is there");
    engine.shutdown(std::time::Duration::ZERO).await;
    drop(engine);
    let engine = place.builder().open().await.expect("the file opens again");
    assert_eq!(ids(&engine).await, [""; 0]);
    engine.register_instance(Instance::new("local")).await.expect("it comes back");
    assert_eq!(ids(&engine).await, ["local"]);
}

#[tokio::test]
async fn registering_again_changes_and_updating_needs_one() {
    let engine = engine().await;
    let changed = || Instance::new("i-1").name("web").state(InstanceState::Stopped);
    for changed in [changed().max_concurrency(2), changed()] {
        engine.register_instance(changed.clone()).await.expect("sound");
        let only = DescribeInstances::default().only(["i-1"]);
        let listed = engine.describe_instances(only).await.expect("it exists");
        assert_eq!(listed.instances, [changed]);
    }
    let none = engine.register_instance(changed().max_concurrency(0)).await.expect_err("none");
    assert_eq!(none.code(), "InvalidParameter.MaxConcurrency");
    let error = engine.update_instance(Instance::new("i-9")).await.expect_err("unknown");
    assert_eq!(error.code(), "InvalidInstance.NotFound");
}

#[tokio::test]
async fn an_instance_in_use_stays_and_its_records_outlive_it() {
    let gate = Gate::new();
    let engine = gate.plug_in(Engine::builder()).open().await.expect("an engine");
    register(&engine, "gate", 1).await;
    let run_ = engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    let id = InstanceId::from("i-1");
    let error = engine.remove_instance(&id).await.expect_err("in use");
    assert!(matches!(error, Error::Conflict { code: "InvalidStatus.InstanceIdInUse", .. }));
    gate.let_go(1);
    wait(&engine, &run_.invoke_id).await;
    engine.remove_instance(&id).await.expect("no longer in use");
    let finished = wait(&engine, &run_.invoke_id).await;
    assert_eq!(finished.results[0].instance_id, id);
    let gone = engine.remove_instance(&id).await.expect_err("gone");
    assert_eq!(gone.code(), "InvalidInstance.NotFound");
}

#[tokio::test]
async fn a_request_is_refused_whole_if_one_target_does_not_suit() {
    let engine = engine().await;
    engine.register_instance(Instance::new("off").state(InstanceState::Stopped)).await.expect("ok");
    engine.register_instance(Instance::new("win").os_type(OsType::Windows)).await.expect("ok");
    let check = async |on: &[&str], codes: &[&str]| {
        let request = RunCommand::shell("exit:0").on(on.iter().copied());
        let error = engine.run_command(request).await.expect_err("refused");
        let found: Vec<_> = error.violations().iter().map(|v| v.code).collect();
        assert_eq!(found, codes, "{on:?}");
    };
    check(&["i-1", "i-9"], &["InvalidInstance.NotFound"]).await;
    check(&["i-1", "off"], &["InvalidInstance.NotMatch"]).await;
    check(
        &["win", "off", "i-9"],
        &["InvalidInstance.NotMatch", "InvalidInstance.NotMatch", "InvalidInstance.NotFound"],
    )
    .await;
    let all = engine.describe_invocations(Default::default()).await.expect("a page");
    assert_eq!(all.invocations, []);
    // An executor that is not plugged in is refused where an instance names it.
    let error = engine.register_instance(Instance::new("x").executor("ssh")).await.expect_err("no");
    assert!(error.to_string().contains("there are: local, script"), "{error}");
    run(&engine, "exit:0", &["i-1"]).await;
}

//! Requests that may be repeated, and how many there may be.

use std::time::Duration;

use adjutant::{
    CreateCommand, DescribeInvocations, Engine, InvokeCommand, Limits, ManualClock, RunCommand,
};

use crate::support::{Place, register, wait, with_executors};

fn request() -> RunCommand {
    RunCommand::shell("exit:0").on(["i-1"]).client_token("123e4567-e89b-12d3-a456-426655440000")
}

async fn count(engine: &Engine) -> usize {
    let request = DescribeInvocations::default().max_results(50);
    engine.describe_invocations(request).await.expect("a page").invocations.len()
}

#[tokio::test]
async fn many_callers_with_one_token_make_one_invocation_also_across_a_restart() {
    let place = Place::new();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let engine = place.open().await;
        let calls = (0..64).map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.run_command(request()).await.expect("sound") })
        });
        for call in calls.collect::<Vec<_>>() {
            let response = call.await.expect("no panic");
            ids.insert((response.invoke_id, response.command_id));
        }
        assert_eq!(count(&engine).await, 1);
        engine.shutdown(Duration::from_secs(5)).await;
        drop(engine);
    }
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn another_request_with_the_same_token_is_refused() {
    let engine = crate::support::engine().await;
    let first = engine.run_command(request()).await.expect("sound");
    let other = engine.run_command(request().timeout(30)).await.expect_err("another request");
    assert_eq!((other.code(), other.http_status()), ("IdempotentParameterMismatch", 403));
    let kept = engine.create_command(CreateCommand::shell("x", "exit:0")).await.expect("sound");
    let other = InvokeCommand::new(kept.command_id).on(["i-1"]);
    let other = other.client_token("123e4567-e89b-12d3-a456-426655440000");
    let other = engine.invoke_command(other).await.expect_err("another operation");
    assert_eq!(other.code(), "IdempotentParameterMismatch");
    // What failed leaves its token free.
    let failed = request().on(["i-9"]).client_token("free");
    engine.run_command(failed).await.expect_err("no such instance");
    engine.run_command(request().client_token("free")).await.expect("sound");
    let (again, watch) = engine.run_command_and_watch(request()).await.expect("the first again");
    assert_eq!(again.invoke_id, first.invoke_id);
    assert_ne!(again.request_id, first.request_id);
    drop(watch);
    wait(&engine, &again.invoke_id).await;
    assert_eq!(count(&engine).await, 2);
}

#[tokio::test]
async fn the_order_in_which_a_request_is_written_does_not_matter() {
    let engine = crate::support::engine().await;
    let check = async |fields: &str| {
        let json = format!(
            r#"{{"ClientToken":"t","CommandContent":"exit:0 {{{{a}}}}{{{{b}}}}",{fields}}}"#
        );
        let request: RunCommand = serde_json::from_str(&json).expect("readable");
        engine.run_command(request).await.expect("sound").invoke_id
    };
    let one = check(r#""Type":"RunShellScript","InstanceId":["i-1"],"EnableParameter":true,"Parameters":{"a":"","b":" "}"#).await;
    let two = check(r#""Parameters":{"b":" ","a":""},"EnableParameter":"true","InstanceId":["i-1"],"Type":"RunShellScript""#).await;
    assert_eq!(one, two);
}

#[tokio::test]
async fn a_token_is_known_for_a_day() {
    let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"));
    let builder = with_executors(Engine::builder()).clock(clock.clone());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let first = engine.run_command(request()).await.expect("sound").invoke_id;
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(engine.run_command(request()).await.expect("sound").invoke_id, first);
    clock.advance(Duration::from_secs(1));
    let second = engine.run_command(request().timeout(30)).await.expect("sound").invoke_id;
    assert_ne!(second, first);
    assert_eq!(engine.run_command(request().timeout(30)).await.expect("sound").invoke_id, second);
}

#[tokio::test]
async fn a_day_has_so_many_invocations() {
    let clock = ManualClock::at("2026-01-01T23:59:00Z".parse().expect("a time"));
    let mut limits = Limits::alibaba();
    limits.invocations_per_day_max = 2;
    let builder = with_executors(Engine::builder()).clock(clock.clone()).limits(limits);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let run = async || engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await;
    run().await.expect("the first");
    engine.run_command(RunCommand::shell("x").on(["i-9"])).await.expect_err("does not count");
    run().await.expect("the second");
    let error = run().await.expect_err("the third");
    assert_eq!((error.code(), error.http_status()), ("Invocation.ExceedQuota", 403));
    let quotas = engine.quotas().await.expect("readable");
    assert_eq!((quotas.invocations_today, quotas.invocations_per_day_max), (2, 2));
    clock.advance(Duration::from_secs(60));
    run().await.expect("the first of the next day");
    assert_eq!(engine.quotas().await.expect("readable").invocations_today, 1);
}

#[tokio::test]
async fn a_token_is_its_callers() {
    let engine = crate::support::engine().await;
    let mut ids = std::collections::BTreeSet::new();
    for caller in ["ann", "bob", "ann"] {
        ids.insert(engine.called_by(caller).run_command(request()).await.expect("sound").invoke_id);
    }
    ids.insert(engine.run_command(request()).await.expect("sound").invoke_id);
    assert_eq!(ids.len(), 3, "ann's, bob's, and one whose caller is not known");
}

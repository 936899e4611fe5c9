//! The limits of an engine that an application embeds: no vendor's quota, no timeout that nobody asked for, and other
//! limits for other entries to the same engine.

use std::time::Duration;

use adjutant::{
    ClosureExecutor, CreateCommand, DescribeCommands, DescribeInvocations, Engine, Error,
    InvocationStatus, InvokeCommand, Limits, ManualClock, RunCommand, StopInvocation,
};
use serde_json::json;

use crate::support::{ask, engine, register, wait, with_executors, within};

fn clock() -> ManualClock {
    ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"))
}

#[test]
fn the_limits_of_an_engine_are_the_embedded_ones_unless_a_host_sets_others() {
    assert_eq!(Limits::default(), Limits::embedded());
    let numbers = |limits: Limits| (limits.invocations_per_day_max, limits.timeout_s_default);
    assert_eq!(numbers(Limits::embedded()), (u64::MAX, None));
    assert_eq!(numbers(Limits::alibaba()), (200_000, Some(60)));
    assert_eq!(numbers(Limits::tencent()), (200_000, Some(60)));
}

#[tokio::test]
async fn an_application_may_ask_for_more_than_a_vendors_pages_allow() {
    let engine = engine().await;
    let check = async |engine: &Engine, request: RunCommand, want: Option<&str>| {
        let error = engine.run_command(request).await.err().map(|error| error.to_string());
        match want {
            Some(want) => assert!(error.as_deref().is_some_and(|e| e.contains(want)), "{error:?}"),
            None => assert_eq!(error, None),
        }
    };
    let script =
        |bytes: usize| RunCommand::shell(format!("exit:0 {}", " ".repeat(bytes - 7))).on(["i-1"]);
    let ids = |count: usize| RunCommand::shell("exit:0").on((0..count).map(|n| format!("x-{n}")));
    check(&engine, script(1 << 20), None).await;
    let large = "want at most 1048576 bytes; it has 1048577 (CmdContent.ExceedLimit)";
    check(&engine, script((1 << 20) + 1), Some(large)).await;
    check(&engine, ids(10_000), Some("no instance `x-0` is registered")).await;
    check(&engine, ids(10_001), Some("want at most 10000 instances; it names 10001")).await;
    check(&engine, script(9).frequency("rate(1s)"), None).await;
    check(&engine, script(9).frequency("* * * * * ?"), None).await;
    check(&engine, script(9).frequency("rate(7d)"), None).await;
    let pages = engine.with_limits(Limits::alibaba());
    let large = "want at most 24576 bytes as Base64; it has 1398104 (CmdContent.ExceedLimit)";
    check(&pages, script(1 << 20), Some(large)).await;
    check(&pages, ids(101), Some("want at most 100 instances; it names 101")).await;
    check(&pages, script(9).frequency("rate(1s)").timeout(1), Some("at least 60 s")).await;
    check(&pages, script(9).frequency("rate(8d)"), Some("604800 s")).await;
}

#[tokio::test]
async fn a_page_of_a_listing_may_be_long() {
    let engine = engine().await;
    let page = ask(&engine, "DescribeInvocations", json!({"MaxResults": 1_000})).await;
    assert_eq!(page.expect("a page")["PageSize"], 1_000);
    let error = ask(&engine, "DescribeInvocations", json!({"MaxResults": 1_001})).await;
    assert_eq!(error.expect_err("too long").code(), "InvalidParameter.MaxResults");
}

/// Neither at once nor on a schedule, whatever time passes.
#[tokio::test]
async fn a_run_has_no_timeout_unless_somebody_states_one() {
    let check = async |limits: Limits, frequency: Option<&str>, want: Option<u64>| {
        let shown = format!("{frequency:?} {want:?}");
        let clock = clock();
        let (seen, mut told) = tokio::sync::mpsc::unbounded_channel();
        let executor = ClosureExecutor::new(move |task: adjutant::Task, _cx| {
            seen.send(task.timeout()).expect("the test listens");
            std::future::pending::<()>()
        });
        let builder = Engine::builder().limits(limits).clock(clock.clone());
        let engine = builder.executor("hangs", executor).open().await.expect("an engine");
        register(&engine, "hangs", 1).await;
        let mut request = RunCommand::shell("x").on(["i-1"]);
        request.frequency = frequency.map(str::to_owned);
        let invoke_id = engine.run_command(request).await.expect("sound").invoke_id;
        if frequency.is_some() {
            within(clock.sleeping(1)).await;
            clock.advance(Duration::from_secs(3_600));
        }
        let timeout = within(told.recv()).await.expect("it runs");
        assert_eq!(timeout, want.map(Duration::from_secs), "{shown}");
        // With a timeout, the run sleeps beside the scheduler.
        within(clock.sleeping(1 + usize::from(want.is_some()))).await;
        clock.advance(Duration::from_secs(1_000 * 24 * 3_600));
        let one = DescribeInvocations::default().invoke_id(invoke_id);
        let page = engine.describe_invocations(one).await.expect("a page");
        assert_eq!(page.invocations[0].timeout, want, "{shown}");
        let json = serde_json::to_value(&page.invocations[0]).expect("JSON");
        assert_eq!(json["Timeout"], json!(want), "{shown}");
        if want.is_none() {
            let status = page.invocations[0].status;
            assert_eq!(status, InvocationStatus::Running, "{shown}");
            engine.stop_invocation(StopInvocation::new(invoke_id)).await.expect("stopped");
            assert_eq!(
                wait(&engine, &invoke_id).await.status,
                InvocationStatus::Stopped,
                "{shown}"
            );
        } else if frequency.is_none() {
            assert_eq!(wait(&engine, &invoke_id).await.status, InvocationStatus::Failed, "{shown}");
        }
    };
    for frequency in [None, Some("rate(1h)")] {
        check(Limits::embedded(), frequency, None).await;
        check(Limits::alibaba(), frequency, Some(60)).await;
    }
}

/// A default is nobody's wish, so it is no reason to refuse a schedule. Both spellings of a minute come to the same.
#[tokio::test]
async fn a_default_timeout_ends_before_the_next_fire_of_a_schedule() {
    let engine = engine().await.with_limits(Limits::alibaba());
    let create = CreateCommand::shell("c", "exit:0");
    let plain = engine.create_command(create.clone()).await.expect("sound").command_id;
    let timed = engine.create_command(create.timeout(60)).await.expect("sound").command_id;
    let timeout_of = async |done: Result<adjutant::InvokeId, Error>| match done {
        Ok(invoke_id) => {
            let one = DescribeInvocations::default().invoke_id(invoke_id);
            let page = engine.describe_invocations(one).await.expect("a page");
            Ok(page.invocations[0].timeout.expect("the pages have a default"))
        }
        Err(error) => Err(error.code().to_owned()),
    };
    let refused = || Err("InvalidParam.Frequency".to_owned());
    for (frequency, stated, want) in [
        ("rate(1m)", None, Ok(59)),
        ("rate(60s)", None, Ok(59)),
        ("0 * * * * ?", None, Ok(59)),
        ("rate(61s)", None, Ok(60)),
        ("rate(2m)", None, Ok(60)),
        ("*/30 * * * * ?", None, Ok(29)),
        ("0 0,1 3 * * ?", None, Ok(59)),
        ("at(2099-01-01 00:00:00)", None, Ok(60)),
        // What somebody has stated is kept as it is, or refused, by the rules of the pages.
        ("rate(1m)", Some(59), Ok(59)),
        ("rate(1m)", Some(60), refused()),
        ("0 * * * * ?", Some(60), Ok(60)),
        ("0 * * * * ?", Some(61), refused()),
    ] {
        let mut run = RunCommand::shell("exit:0").on(["i-1"]).frequency(frequency);
        run.timeout = stated;
        let run = engine.run_command(run).await.map(|run| run.invoke_id);
        assert_eq!(timeout_of(run).await, want, "run {frequency} {stated:?}");
        let mut invoke = InvokeCommand::new(plain).on(["i-1"]).frequency(frequency);
        invoke.timeout = stated;
        let invoke = engine.invoke_command(invoke).await.map(|run| run.invoke_id);
        assert_eq!(timeout_of(invoke).await, want, "invoke {frequency} {stated:?}");
    }
    let invoke = InvokeCommand::new(timed).on(["i-1"]).frequency("rate(1m)");
    let invoke = engine.invoke_command(invoke).await.map(|run| run.invoke_id);
    assert_eq!(timeout_of(invoke).await, refused(), "the command states 60 s");
}

/// A command that states no timeout has the default of whoever invokes it.
#[tokio::test]
async fn one_engine_serves_an_application_and_the_pages_clients() {
    let builder = with_executors(Engine::builder());
    let engine = builder.open().await.expect("an engine in memory");
    register(&engine, "script", 1).await;
    let pages = engine.with_limits(Limits::alibaba());
    let command = engine.create_command(CreateCommand::shell("c", "exit:0")).await.expect("sound");
    for (handle, want) in [(&engine, None), (&pages, Some(60))] {
        let invoke = InvokeCommand::new(command.command_id).on(["i-1"]);
        let invoke_id = handle.invoke_command(invoke).await.expect("sound").invoke_id;
        let one = DescribeInvocations::default().invoke_id(invoke_id);
        // Whoever asks: an invocation keeps its timeout.
        let page = engine.describe_invocations(one).await.expect("a page");
        assert_eq!(page.invocations[0].timeout, want);
        let page = handle.describe_commands(DescribeCommands::default()).await.expect("a page");
        assert_eq!(page.commands[0].timeout, want);
        assert_eq!(
            handle.quotas().await.expect("read").invocations_today,
            1 + u64::from(want.is_some())
        );
    }
}

/// A client of the pages that has used up its day may come again tomorrow; nothing is wrong with its request.
#[tokio::test]
async fn a_quota_that_is_used_up_says_when_it_begins_anew() {
    let clock = clock();
    clock.set_realtime("2026-01-01T23:59:59Z".parse().expect("a time"));
    let builder = with_executors(Engine::builder()).clock(clock.clone());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "script", 1).await;
    let mut limits = Limits::alibaba();
    (limits.invocations_per_day_max, limits.kept_commands_max) = (1, 0);
    let pages = engine.with_limits(limits);
    let run = || RunCommand::shell("exit:0").on(["i-1"]);
    let check = async |request: RunCommand, codes: &[&str], want: Option<&str>| {
        let error = pages.run_command(request).await.expect_err("used up");
        let Error::Quota { resets_at, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*resets_at, want.map(|at| at.parse().expect("a time")));
        let found: Vec<_> = error.violations().iter().map(|one| one.code).collect();
        assert_eq!((&*found, error.code(), error.http_status()), (codes, codes[0], 403));
        let again = want.map(|at| format!("; try again at {at}")).unwrap_or_default();
        assert!(
            error.to_string().ends_with(&format!("({}){again}", codes[codes.len() - 1])),
            "{error}"
        );
    };
    check(run().name("n").keep(), &["CmdCount.ExceedQuota"], None).await;
    pages.run_command(run()).await.expect("the first of the day");
    let midnight = Some("2026-01-02T00:00:00Z");
    check(run(), &["Invocation.ExceedQuota"], midnight).await;
    check(run().name("n").keep(), &["CmdCount.ExceedQuota", "Invocation.ExceedQuota"], None).await;
    let wrong = pages.run_command(run().timeout(0)).await.expect_err("wrong and used up");
    assert!(matches!(wrong, Error::Invalid(_)), "{wrong:?}");
    engine.run_command(run()).await.expect("the host's own requests have no quota");
    clock.set_realtime("2026-01-02T00:00:00Z".parse().expect("a time"));
    let error = pages.run_command(run()).await.err();
    assert_eq!(error.map(|error| error.to_string()), None, "a new day");
}

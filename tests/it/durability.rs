//! What is on disk, what an end of the process leaves, and files that cannot be used.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use adjutant::{
    Durability, Engine, Error, ExecutionStatus, InvocationStatus, RunCommand, StopInvocation,
    StorageErrorKind,
};

use crate::support::{Gate, Place, register, run, wait, within};

#[tokio::test]
async fn records_survive_the_engine_and_what_waited_runs_on() {
    let place = Place::new();
    let engine = place.open().await;
    let done = run(&engine, "out:kept exit:5", &["i-1"]).await;
    engine.shutdown(Duration::from_secs(5)).await;
    drop(engine);
    let engine = place.open().await;
    assert_eq!(wait(&engine, &done.results[0].invoke_id).await, done);
}

#[tokio::test]
async fn pending_work_is_taken_up_by_the_next_engine() {
    let place = Place::new();
    let gate = Gate::new();
    let builder = gate.plug_in(place.builder()).max_concurrent(1);
    let engine = builder.open().await.expect("the file opens");
    register(&engine, "gate", 3).await;
    let request = RunCommand::shell("x").on(["i-1", "i-2", "i-3"]);
    let run = engine.run_command(request).await.expect("sound");
    within(gate.arrivals(1)).await;
    let closing = engine.clone();
    let mut shutdown = Box::pin(closing.shutdown(Duration::from_secs(30)));
    // Let go once nothing new can start, so that exactly one has run.
    tokio::select! {
        biased;
        () = &mut shutdown => panic!("something runs"),
        () = std::future::ready(()) => gate.let_go(1),
    }
    within(&mut shutdown).await;
    drop(shutdown);
    drop((engine, closing));

    let engine = gate.plug_in(place.builder()).open().await.expect("the file opens again");
    within(gate.arrivals(2)).await;
    gate.let_go(2);
    let finished = wait(&engine, &run.invoke_id).await;
    assert_eq!(finished.status, InvocationStatus::Success);
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test]
async fn an_idle_engine_starts_nothing() {
    let place = Place::new();
    let gate = Gate::new();
    let idle = gate.plug_in(place.builder()).idle().open().await.expect("the file opens");
    register(&idle, "gate", 2).await;
    let request = || RunCommand::shell("x").on(["i-1"]);
    let stopped = idle.run_command(request()).await.expect("sound").invoke_id;
    let kept = idle.run_command(request()).await.expect("sound").invoke_id;
    idle.stop_invocation(StopInvocation::new(stopped)).await.expect("it is there");
    assert_eq!(wait(&idle, &stopped).await.status, InvocationStatus::Stopped);
    within(idle.shutdown(Duration::from_secs(30))).await;
    drop(idle);
    assert_eq!(gate.waiting(), 0);

    let engine = gate.plug_in(place.builder()).open().await.expect("the file opens again");
    within(gate.arrivals(1)).await;
    gate.let_go(1);
    assert_eq!(wait(&engine, &kept).await.status, InvocationStatus::Success);
}

#[tokio::test]
async fn what_ran_when_its_engine_ended_is_told_so_and_not_run_again() {
    let place = Place::new();
    let copy = Place::new();
    let gate = Gate::new();
    let engine = gate.plug_in(place.builder()).open().await.expect("the file opens");
    register(&engine, "gate", 1).await;
    let run = engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound");
    within(gate.arrivals(1)).await;
    // What is on disk at this moment is what the loss of the process would leave.
    for suffix in ["", "-wal"] {
        let name = format!("adjutant.db{suffix}");
        fs::copy(place.folder().join(&name), copy.folder().join(&name)).expect("copied");
    }
    let after = gate.plug_in(copy.builder()).open().await.expect("the copy opens");
    let finished = wait(&after, &run.invoke_id).await;
    let result = &finished.results[0];
    assert_eq!(result.status, ExecutionStatus::Error);
    assert_eq!(result.error_code, "ExecutionInterrupted");
    assert!(
        result.error_info.contains(&format!("pid {}", std::process::id())),
        "{}",
        result.error_info
    );
    assert_eq!(finished.status, InvocationStatus::Failed);
    assert_eq!(gate.waiting(), 0);
    gate.let_go(1);
    assert_eq!(wait(&engine, &run.invoke_id).await.status, InvocationStatus::Success);
}

#[tokio::test]
async fn a_file_is_run_by_one_engine_at_a_time() {
    let place = Place::new();
    let engine = place.open().await;
    let check = |error: Error| {
        let pid = std::process::id();
        assert!(matches!(error, Error::InUse { pid: Some(p), .. } if p == pid), "{error}");
        assert!(error.to_string().contains(&format!("in use by pid {pid}")), "{error}");
    };
    check(place.builder().open().await.expect_err("in use"));
    // Another way to the same file meets the same lock.
    let link = place.folder().join("link.db");
    std::os::unix::fs::symlink(place.database(), &link).expect("a link");
    check(Engine::open(&link).await.expect_err("in use"));
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    place.open().await;
}

#[tokio::test]
async fn durability_is_a_choice_and_both_work() {
    for durability in [Durability::Full, Durability::Relaxed] {
        let place = Place::new();
        let engine = place.builder().durability(durability).open().await.expect("opens");
        register(&engine, "script", 1).await;
        assert_eq!(run(&engine, "exit:0", &["i-1"]).await.status, InvocationStatus::Success);
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_said_to_be_so() {
    let place = Place::new();
    let check = async |path: std::path::PathBuf, kind, read_only: bool, want: &str| {
        let builder = Engine::builder().path(&path);
        let builder = if read_only { builder.read_only() } else { builder };
        let error = within(builder.open()).await.expect_err("refused");
        let Error::Storage(storage) = &error else { panic!("{error:?}") };
        assert_eq!(storage.kind, kind, "{error}");
        assert!(error.to_string().contains(want), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    };
    let at = |name: &str| place.folder().join(name);
    fs::write(
        at("text.db"),
        "This is no database, just some text of a certain length.\n".repeat(99),
    )
    .expect("written");
    check(at("text.db"), StorageErrorKind::Corrupt, false, "not a database").await;
    check(at("text.db"), StorageErrorKind::Corrupt, true, "not a database").await;
    check(at("no/such/folder.db"), StorageErrorKind::CannotOpen, false, "folder exists").await;
    check(at("missing.db"), StorageErrorKind::CannotOpen, true, "No such file").await;
    fs::create_dir(at("folder.db")).expect("a folder");
    check(at("folder.db"), StorageErrorKind::CannotOpen, false, "a folder, not a file").await;
    check(at(""), StorageErrorKind::CannotOpen, false, "a folder, not a file").await;
}

#[tokio::test]
async fn a_file_that_is_refused_has_nothing_beside_it() {
    let place = Place::new();
    let path = place.folder().join("text.db");
    fs::write(&path, "No database. ".repeat(99)).expect("written");
    within(Engine::builder().path(&path).open()).await.expect_err("refused");
    let names = || {
        fs::read_dir(place.folder())
            .expect("it is there")
            .map(|entry| entry.expect("a name").file_name())
    };
    assert_eq!(names().collect::<Vec<_>>(), ["text.db"]);
}

#[tokio::test]
async fn a_file_of_two_names_is_refused_by_either() {
    let place = Place::new();
    let (path, other) = (place.folder().join("adjutant.db"), place.folder().join("hard.db"));
    let engine = place.open().await;
    fs::hard_link(&path, &other).expect("another name");
    let check = async |path: &std::path::Path, read_only: bool| {
        let builder = Engine::builder().path(path);
        let builder = if read_only { builder.read_only() } else { builder };
        let error = within(builder.open()).await.expect_err("refused");
        assert_eq!(error.code(), "Storage.Linked", "{error}");
        assert!(
            error.to_string().contains("it has 2 names (hard links); remove the other"),
            "{error}"
        );
    };
    for read_only in [false, true] {
        check(&other, read_only).await;
    }
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    for read_only in [false, true] {
        check(&path, read_only).await;
    }
    fs::remove_file(other).expect("it is there");
    place.open().await;
}

#[tokio::test]
async fn only_this_user_can_read_the_file() {
    let place = Place::new();
    let engine = place.open().await;
    run(&engine, "exit:0", &["i-1"]).await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let path = place.folder().join(format!("adjutant.db{suffix}"));
        let mode = fs::metadata(&path).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

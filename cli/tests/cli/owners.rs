//! One process runs the file, others reach it.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::{fs, iter};

use adjutant::Engine;
use rustix::process::Signal;

use crate::harness::{Gate, Place, Running};

/// A run that says when it has started and goes on when its gate is opened.
fn start(place: &Place, gate: &Gate, more: &str) -> Running {
    let run = place.start(&["run", &format!("echo started; {}; {more}", gate.wait())]);
    run.out.expect("started");
    run
}

#[test]
fn a_killed_run_has_a_final_status_and_a_reason() {
    let place = Place::new();
    let gate = place.gate("gate");
    start(&place, &gate, "true").kill();
    assert!(fs::metadata(place.path("a.db.sock")).is_ok(), "nobody could take it away");
    let listed = place.ok(&["ps"]);
    assert!(listed.contains("Failed"), "{listed}");
    let shown = place.ok(&["show", &place.newest()]);
    assert!(shown.contains("Error"), "{shown}");
    assert!(shown.contains("(ExecutionInterrupted)"), "{shown}");
}

#[test]
fn others_see_and_stop_what_runs() {
    let place = Place::with_instances(&["i-1"]);
    let gate = place.gate("gate");
    let script = format!("echo started; {}", gate.wait());
    let run = place.start(&["run", "--on", "local,i-1", &script]);
    run.out.expect("started");
    run.out.expect("started");
    let socket = fs::metadata(place.path("a.db.sock")).expect("a control socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    let listed = place.ok(&["ps"]);
    assert!(listed.lines().any(|line| line.starts_with("*  t-")), "{listed}");
    let id = place.newest();
    let follow = place.start(&["show", "--follow", &id]);
    follow.out.expect("started");
    assert_eq!(place.ok(&["stop", &id, "--on", "i-1"]), format!("asked {id} to stop\n"));
    place.ok(&["stop", &id]);
    for watcher in [run, follow] {
        let done = watcher.end();
        assert_eq!(done.code, Some(1));
        assert_eq!(done.err.matches("Terminated").count(), 2, "{}", done.err);
    }
    assert!(fs::metadata(place.path("a.db.sock")).is_err());
    assert!(place.ok(&["show", &id]).contains("Stopped"));
}

#[test]
fn a_finished_run_waits_for_the_runs_of_others() {
    let place = Place::new();
    let (first, second) = (place.gate("first"), place.gate("second"));
    let owner = start(&place, &first, "echo one");
    let client = start(&place, &second, "echo two; exit 5");
    first.open();
    owner.err.expect("waiting for a run of another terminal");
    assert!(place.ok(&["ps"]).contains('*'));
    second.open();
    let (client, owner) = (client.end(), owner.end());
    assert_eq!((client.code, client.out.as_str()), (Some(1), "two\n"), "{}", client.err);
    assert_eq!((owner.code, owner.out.as_str()), (Some(0), "one\n"), "{}", owner.err);
}

#[test]
fn an_owner_that_waits_can_be_told_to_stop_the_rest() {
    let place = Place::new();
    let (first, second) = (place.gate("first"), place.gate("second"));
    let owner = start(&place, &first, "echo one");
    let client = start(&place, &second, "true");
    first.open();
    owner.err.expect("waiting for a run of another terminal");
    owner.signal(Signal::INT);
    owner.err.expect("stopping the runs of other terminals");
    assert!(client.end().err.contains("Terminated"));
    assert_eq!(owner.end().code, Some(0));
}

#[test]
fn a_client_survives_its_owner() {
    let place = Place::new();
    let (first, second) = (place.gate("first"), place.gate("second"));
    let owner = start(&place, &first, "true");
    let client = start(&place, &second, "true");
    owner.kill();
    let done = client.end();
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("the process that ran it has ended"), "{}", done.err);
    assert!(done.err.contains("ExecutionInterrupted"), "{}", done.err);
}

/// Returns the id of a run that goes on until the gate opens, although its program was killed.
fn survivor(place: &Place, gate: &Gate) -> String {
    let script = format!("echo one; {}; echo two; exit 4", gate.wait());
    let owner = place.start(&["run", "--survive-restarts", &script]);
    owner.out.expect("one");
    let id = place.newest();
    owner.kill();
    id
}

#[test]
fn a_run_that_survives_its_program_is_taken_back() {
    let place = Place::new();
    let gate = place.gate("gate");
    let id = survivor(&place, &gate);
    let follow = place.start(&["show", "--follow", &id]);
    follow.out.expect("one");
    gate.open();
    let done = follow.end();
    assert_eq!((done.code, done.out.as_str()), (Some(1), "two\n"), "{}", done.err);
    assert_eq!(place.ok(&["show", "--output", &id]), "one\ntwo\n");
    let record = place.json(&["show", &id]);
    let result = &record["InvocationResults"]["InvocationResult"][0];
    assert_eq!(
        (&result["ExitCode"], &result["ErrorCode"]),
        (&4.into(), &"ExitCodeNonzero".into()),
        "{record}"
    );
    assert!(fs::metadata(place.path("a.db.runs")).is_err(), "nothing is left of it");
}

#[test]
fn a_look_tells_how_a_run_ended_that_nobody_has_run_since() {
    let place = Place::new();
    let gate = place.gate("gate");
    let id = survivor(&place, &gate);
    assert!(place.ok(&["ps"]).contains("Running"));
    gate.open();
    place.wait_until(&id, "Failed");
    assert_eq!(place.ok(&["show", "--output", &id]), "one\ntwo\n");
    assert!(place.ok(&["ps"]).contains("Failed"));
    assert!(fs::metadata(place.path("a.db.runs")).is_err(), "nothing is left of it");
}

#[test]
fn a_run_that_survives_its_owner_is_followed_to_its_end() {
    let place = Place::new();
    let check = |signal, stop: bool| {
        let serve = place.serve(&[]);
        let gate = place.gate("gate");
        let script = format!("echo one; {}; echo two; exit 4", gate.wait());
        let run = place.start(&["run", "--survive-restarts", &script]);
        run.out.expect("one");
        serve.signal(signal);
        serve.end();
        run.err.expect("the process that ran it has ended; the records say how it goes on");
        if stop {
            run.signal(Signal::INT);
        } else {
            gate.open();
        }
        let done = run.end();
        let (out, status) = if stop { ("", "Stopped") } else { ("two\n", "Failed") };
        assert_eq!((done.code, done.out.as_str()), (Some(1), out), "{}", done.err);
        assert!(done.err.ends_with(&format!("{status}\n")), "{}", done.err);
    };
    check(Signal::KILL, false);
    check(Signal::INT, false);
    check(Signal::KILL, true);
}

#[test]
fn a_stop_of_what_survived_its_owner_is_seen_to_its_end() {
    let place = Place::new();
    let run = place.start(&["run", "--survive-restarts", "echo up; exec sleep 100"]);
    run.out.expect("up");
    let id = place.newest();
    run.kill();
    assert_eq!(place.ok(&["stop", &id]), format!("asked {id} to stop\n"));
    // Nobody else comes to run the file: one has been started for that.
    place.wait_until(&id, "Stopped");
    place.wait_until_unowned();
    assert!(fs::metadata(place.path("a.db.runs")).is_err(), "nothing is left of it");
}

#[test]
fn a_stop_that_comes_too_late_says_so() {
    Place::with_and_without_owner(&["local"], |place, _| {
        let check = |script: &str, status: &str| {
            place.run(&["run", script]);
            let id = place.newest();
            let want = format!("{id} had already ended ({status})\n");
            assert_eq!(place.ok(&["stop", &id]), want);
        };
        check("true", "Success");
        check("exit 1", "Failed");
    });
}

#[test]
fn who_stops_a_run_is_on_record() {
    let place = Place::new();
    let gate = place.gate("gate");
    let run = start(&place, &gate, "true");
    let id = place.newest();
    place.ok(&["stop", "--reason", "maintenance", &id]);
    let done = run.end();
    let user = std::process::Command::new("id").arg("-un").output().expect("id starts").stdout;
    let user = String::from_utf8(user).expect("UTF-8");
    let by = format!("stopped on request of `{}`", user.trim());
    assert!(done.err.contains(&by), "{}", done.err);
    assert!(done.err.contains("maintenance"), "{}", done.err);
}

#[test]
fn a_detached_run_goes_on_and_leaves_nothing() {
    let place = Place::new();
    let gate = place.gate("gate");
    let script = format!("echo one; {}; echo two; exit 4", gate.wait());
    let id = place.ok(&["run", "--detach", &script]);
    let id = id.trim();
    place.wait_until(id, "Running");
    assert!(place.ok(&["ps"]).contains(&format!("*  {id}  Running")));
    let second = place.json(&["run", "--detach", "echo three"]);
    assert_eq!(second.as_object().map(|fields| fields.len()), Some(3), "{second}");
    let follow = place.start(&["show", "--follow", id]);
    follow.out.expect("one");
    gate.open();
    let done = follow.end();
    assert_eq!((done.code, done.out.as_str()), (Some(1), "two\n"), "{}", done.err);
    place.wait_until_unowned();
    assert!(fs::metadata(place.path("a.db.sock")).is_err());
    assert_eq!(place.ok(&["show", "--output", id]), "one\ntwo\n");
    assert!(place.ok(&["ps"]).lines().skip(1).all(|line| !line.starts_with('*')));
}

#[test]
fn a_detached_run_that_is_refused_says_so() {
    let place = Place::new();
    let done = place.run(&["run", "--detach", "--on", "nobody", "true"]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("InvalidInstance.NotFound"), "{}", done.err);
    place.wait_until_unowned();
}

#[test]
fn a_host_without_a_socket_is_named() {
    let place = Place::new();
    place.ok(&["run", "echo before"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let engine = runtime.block_on(Engine::open(place.db())).expect("the file is free");
    assert!(place.ok(&["ps"]).contains("echo before"));
    assert_eq!(place.ok(&["show", "--output", &place.newest()]), "before\n");
    assert_eq!(place.ok(&["show", "--follow", &place.newest()]), "before\n");
    assert_eq!(place.ok(&["instances", "list"]).lines().count(), 2);
    let id = place.newest();
    assert!(place.ok(&["explain", &id, "2030-01-31T08:00:00Z"]).starts_with("Nothing was to run"));
    for words in [
        &["run", "true"][..],
        &["run", "--detach", "true"],
        &["run-now", &id],
        &["pause", &id],
        &["instances", "add", "i-1"],
        &["stop", &id],
        &["serve"],
    ] {
        let done = place.run(words);
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{words:?}");
        assert_eq!(done.err.lines().count(), 1, "{words:?}: {}", done.err);
        let owner = format!("in use by pid {};", std::process::id());
        assert!(done.err.contains(&owner), "{words:?}: {}", done.err);
        assert!(done.err.ends_with("(Storage.InUse)\n"), "{words:?}: {}", done.err);
    }
    runtime.block_on(engine.shutdown(std::time::Duration::ZERO));
}

#[test]
fn an_owner_that_does_not_answer_does_not_keep_the_records_from_being_read() {
    let place = Place::new();
    let gate = place.gate("gate");
    let run = start(&place, &gate, "true");
    run.signal(Signal::STOP);
    let listed = place.run(&["ps"]);
    let refused = place.run(&["run", "true"]);
    run.signal(Signal::CONT);
    assert!(listed.out.contains("*  t-"), "{}{}", listed.out, listed.err);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.ends_with("does not answer (Control.Silent)\n"), "{}", refused.err);
    gate.open();
    assert_eq!(run.end().code, Some(0));
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let place = Place::new();
    drop(UnixListener::bind(place.path("a.db.sock")).expect("a socket"));
    let gate = place.gate("gate");
    let run = start(&place, &gate, "true");
    assert!(place.ok(&["ps"]).contains('*'));
    gate.open();
    assert_eq!(run.end().code, Some(0));
}

#[test]
fn a_path_longer_than_a_socket_address_is_no_obstacle() {
    let place = Place::new();
    let folder = place.path(&"d".repeat(200));
    fs::create_dir(&folder).expect("a folder");
    let db = folder.join("e".repeat(100));
    let db = db.to_str().expect("UTF-8");
    let gate = place.gate("gate");
    let script = format!("echo started; {}", gate.wait());
    let run = place.start(&["--db", db, "run", &script]);
    run.out.expect("started");
    assert!(place.ok(&["--db", db, "ps"]).contains('*'));
    gate.open();
    assert_eq!(run.end().code, Some(0));
}

#[test]
fn looking_at_what_waits_does_not_start_it() {
    let ids: Vec<String> = (0..70).map(|n| format!("i-{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let place = Place::with_instances(&ids);
    let gate = place.gate("gate");
    let script = format!("echo started; {}", gate.wait());
    let run = place.start(&["run", "--on", &ids.join(","), &script]);
    // 64 run at a time.
    iter::repeat_n((), 64).for_each(|()| drop(run.out.expect("started")));
    run.kill();
    let id = place.newest();
    let count = |status| place.ok(&["show", &id]).matches(status).count();
    assert_eq!((count("Error"), count("Running"), count("Pending")), (64, 0, 7));
    place.ok(&["stop", &id]);
    assert_eq!((count("Error"), count("Pending"), count("Cancelled")), (64, 0, 6));
}

/// The state after a backup was restored: the file does not know the run that went on when its owner was
/// lost.
#[test]
fn the_end_of_a_surviving_run_that_no_record_knows_is_reported() {
    let place = Place::with_instances(&["i-1"]);
    fs::copy(place.db(), place.path("backup.db")).expect("a copy");
    let gate = place.gate("gate");
    let run =
        place.start(&["run", "--survive-restarts", &format!("echo started $$; {}", gate.wait())]);
    let started = run.out.expect("started ");
    run.kill();
    for beside in ["a.db-wal", "a.db-shm"] {
        let _ = fs::remove_file(place.path(beside));
    }
    fs::rename(place.path("backup.db"), place.db()).expect("restored");
    let serve = place.start(&["serve"]);
    let line = serve.err.expect("no record knows that a surviving run goes on");
    assert!(line.contains("a.db.runs/1-1"), "{line}");
    serve.err.expect("serving ");
    assert!(!crate::harness::is_alive(started.trim_start_matches("started ")));
    serve.interrupt();
}

//! What a host that came to a sudden end left running, of runs that were not to survive it.

use std::fs;

use adjutant::{ExecutionStatus, InvokeId, RunCommand};
use libtest_mimic::Trial;

use crate::harness::{
    Account, Host, Marker, Place, check_says, ended, need_cgroups, need_root, record, script,
    trials, until,
};
use crate::host::Setup;

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![
        what_is_left_is_ended_at_open,
        a_copy_of_the_file_ends_nothing,
        what_runs_left_behind_that_had_ended_is_spared,
        an_idle_engine_ends_what_is_left_too,
        another_spelling_of_the_path_is_the_same_file,
    ];
    trials.extend(need_root(trials![what_is_left_of_another_user_is_ended]));
    trials.extend(need_cgroups(trials![what_hides_in_a_cgroup_is_ended]));
    trials
}

/// The run of a host that was killed when it had said `up` and had these many of these processes.
async fn cut_off(setup: &Setup, marker: &Marker, sleepers: usize, request: RunCommand) -> InvokeId {
    let mut host = Host::start(setup);
    let invoke_id = host.run(request);
    host.expect("up");
    until("they sleep", || marker.alive().len() == sleepers).await;
    host.kill();
    invoke_id
}

const LEFT: &str = "what was left of it was ended: ";
const KILLED: &str = "it took SIGKILL to end ";

async fn check_is_ended(text: &str, says: &[&str], how: impl Fn(RunCommand) -> RunCommand) {
    let (place, marker) = (Place::new(), Marker::new());
    let sleepers = text.matches("SLEEP").count();
    let text = text.replace("SLEEP", &marker.sleep());
    let invoke_id = cut_off(&place.setup(), &marker, sleepers, how(script(&text))).await;
    let engine = place.open().await;
    marker.check_nobody_is_left(&text);
    let record = ended(&engine, &invoke_id).await;
    for says in says {
        check_says(&record, ExecutionStatus::Error, "ExecutionInterrupted", says);
    }
    // Those who listen are only asked.
    let killed = record.error_info.contains(KILLED);
    assert_eq!(killed, says.contains(&KILLED), "{text}: {}", record.error_info);
}

async fn what_is_left_is_ended_at_open() {
    let same = |request| request;
    check_is_ended("SLEEP & echo up; wait", &[LEFT, "(sleep)", "(sh)"], same).await;
    check_is_ended("SLEEP & echo up; exec >&- 2>&- <&-; SLEEP", &[LEFT, "(sleep)"], same).await;
    check_is_ended("setsid SLEEP & echo up; wait", &[LEFT, "(sleep)"], same).await;
    check_is_ended("(setsid SLEEP &); echo up; SLEEP", &[LEFT, "(sleep)"], same).await;
    check_is_ended("sh -c 'kill -STOP $$; SLEEP' & echo up; kill -STOP $$", &[LEFT], same).await;
    let stubborn = "trap '' TERM; SLEEP & echo up; wait";
    check_is_ended(stubborn, &[LEFT, KILLED, "(sleep)"], same).await;
}

async fn what_is_left_of_another_user_is_ended() {
    let how = |request: RunCommand| request.username(&Account::ann().name);
    check_is_ended("(setsid SLEEP &); echo up; SLEEP", &[LEFT, "(sleep)"], how).await;
}

async fn what_hides_in_a_cgroup_is_ended() {
    let (place, marker) = (Place::new(), Marker::new());
    let setup = Setup { cgroups: true, ..place.setup() };
    let hides = format!("env -i setsid sh -c '({} &)'; echo up; sleep 50", marker.sleep());
    cut_off(&setup, &marker, 1, script(hides)).await;
    let _engine = place.open().await;
    marker.check_nobody_is_left("a run in a cgroup");
}

async fn a_copy_of_the_file_ends_nothing() {
    let (place, elsewhere, marker) = (Place::new(), Place::new(), Marker::new());
    let mut host = place.host();
    let invoke_id = host.run(script(format!("echo up; exec {}", marker.sleep())));
    host.expect("up");
    for file in ["a.db", "a.db-wal"] {
        fs::copy(place.path(file), elsewhere.path(file)).expect("a copy");
    }
    let engine = elsewhere.open().await;
    let copied = record(&engine, invoke_id).await;
    check_says(&copied, ExecutionStatus::Error, "ExecutionInterrupted", "its end is not known");
    assert!(!copied.error_info.contains(LEFT), "{}", copied.error_info);
    assert_eq!(marker.alive().len(), 1, "the original goes on");
    host.kill();
    place.open().await;
    marker.check_nobody_is_left("the original");
}

async fn what_runs_left_behind_that_had_ended_is_spared() {
    let (place, marker) = (Place::new(), Marker::new());
    let mut host = place.host();
    let daemon = format!("exec >&- 2>&-; setsid {} & exit 0", marker.sleep());
    assert_eq!(host.finish(script(daemon)).status, ExecutionStatus::Success);
    host.run(script("echo up; exec sleep 50"));
    host.expect("up");
    host.kill();
    let _engine = place.open().await;
    let daemon = marker.alive();
    assert_eq!(daemon.len(), 1);
    crate::harness::kill(daemon.first().expect("one").parse().expect("a pid"));
}

async fn an_idle_engine_ends_what_is_left_too() {
    let (place, marker) = (Place::new(), Marker::new());
    let sleeps = script(format!("echo up; exec {}", marker.sleep()));
    let invoke_id = cut_off(&place.setup(), &marker, 1, sleeps).await;
    let engine =
        adjutant::Engine::builder().path(place.db()).idle().open().await.expect("it opens");
    marker.check_nobody_is_left("a run before an idle engine");
    let record = record(&engine, invoke_id).await;
    check_says(&record, ExecutionStatus::Error, "ExecutionInterrupted", LEFT);
}

async fn another_spelling_of_the_path_is_the_same_file() {
    let (place, marker) = (Place::new(), Marker::new());
    let link = place.path("link");
    std::os::unix::fs::symlink(place.path(""), &link).expect("a link");
    let setup = Setup { database: link.join("a.db"), ..place.setup() };
    cut_off(&setup, &marker, 1, script(format!("echo up; exec {}", marker.sleep()))).await;
    let _engine = place.open().await;
    marker.check_nobody_is_left("a run by another path");
}

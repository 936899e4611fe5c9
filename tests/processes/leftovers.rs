//! What a host that came to a sudden end left running, of runs that were not to survive it.

use std::fs;
use std::path::Path;

use adjutant::{ExecutionStatus, InvokeId, RunCommand};
use libtest_mimic::Trial;

use crate::harness::{
    Account, Host, Marker, Pipe, Place, check_says, ended, need_cgroups, need_root, record, script,
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
        dead_owners_in_a_row_leave_nothing,
        owners_that_die_at_any_moment_of_their_start_leave_nothing,
        processes_that_an_engine_could_not_end_are_ended_by_a_later_one,
        a_run_that_a_restored_file_does_not_know_is_ended,
        an_engine_that_is_dropped_leaves_its_strays_to_the_next,
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
    if says.contains(&"(sleep)") {
        marker.sleeps().await;
    }
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

/// Returns a script that tells when it is asked to end, and two of whose processes end only when they are killed.
fn stubborn(told: &Pipe, marker: &Marker) -> String {
    let deaf = format!("sh -c \"trap '' TERM; exec {}\"", marker.sleep());
    let tell = told.ring();
    format!("setsid {deaf} & {deaf} & trap \"{tell}\" TERM; echo up; while :; do wait; done")
}

async fn dead_owners_in_a_row_leave_nothing() {
    for owners in 1..=3 {
        let (place, marker) = (Place::new(), Marker::new());
        let told = place.pipe("told");
        let text = stubborn(&told, &marker);
        let invoke_id = cut_off(&place.setup(), &marker, 2, script(&text)).await;
        // The processes ignore SIGTERM by then.
        marker.sleeps().await;
        for _ in 0..owners {
            let owner = Host::begin(&place.setup());
            // This owner has found the processes and waits for their end, so its knowledge of them dies with it.
            told.heard();
            owner.kill();
            assert_eq!(marker.alive().len(), 2, "the owner was killed before it had killed");
        }
        let engine = place.open().await;
        marker.check_nobody_is_left(&format!("{owners} dead owners"));
        let record = ended(&engine, &invoke_id).await;
        check_says(&record, ExecutionStatus::Error, "ExecutionInterrupted", KILLED);
    }
}

async fn owners_that_die_at_any_moment_of_their_start_leave_nothing() {
    let (place, marker) = (Place::new(), Marker::new());
    let invoke_id = {
        let text = format!("setsid {} & echo up; trap '' TERM; {}", marker.sleep(), marker.sleep());
        cut_off(&place.setup(), &marker, 2, script(text)).await
    };
    for milliseconds in 0..40 {
        let owner = Host::begin(&place.setup());
        let began = std::time::Instant::now();
        until("its moment has come", || began.elapsed().as_millis() >= milliseconds).await;
        owner.kill();
    }
    let engine = place.open().await;
    marker.check_nobody_is_left("many dead owners");
    let record = ended(&engine, &invoke_id).await;
    check_says(&record, ExecutionStatus::Error, "ExecutionInterrupted", "its end is not known");
}

/// The state after an engine to which `/proc` did not answer, and which could write no list of processes.
async fn processes_that_an_engine_could_not_end_are_ended_by_a_later_one() {
    let (place, marker) = (Place::new(), Marker::new());
    let sleeps = script(format!("echo up; exec {}", marker.sleep()));
    let invoke_id = cut_off(&place.setup(), &marker, 1, sleeps).await;
    let pid = marker.alive().pop_first().expect("it sleeps");
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("it is ours");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let result = environment.split('\0').find_map(|one| one.strip_prefix("ADJUTANT_RESULT="));
    let folder = Path::new(result.expect("it has a place for its result")).parent();
    let files = fs::read_dir(folder.expect("a folder")).expect("a folder").flatten();
    let is_number =
        |file: &fs::DirEntry| file.file_name().as_encoded_bytes().starts_with(b"engine-");
    let file = files.into_iter().find(is_number).expect("the number of its engine").path();
    fs::remove_file(&file).expect("hidden");
    let engine = place.open().await;
    let record = ended(&engine, &invoke_id).await;
    check_says(&record, ExecutionStatus::Error, "ExecutionInterrupted", "its end is not known");
    assert_eq!(marker.alive().len(), 1, "it cannot be found");
    fs::write(&file, "").expect("found again");
    engine.shutdown(std::time::Duration::ZERO).await;
    drop(engine);
    let _engine = place.open().await;
    marker.check_nobody_is_left("an engine that could not end it");
    assert!(!file.exists(), "its engine is forgotten");
}

/// A copy of the file from before the run is put in its place, as if the run had never been.
async fn a_run_that_a_restored_file_does_not_know_is_ended() {
    for survives in [false, true] {
        let (place, marker) = (Place::new(), Marker::new());
        place.host().shut_down();
        fs::copy(place.db(), place.path("copy.db")).expect("a copy");
        let request = script(format!("setsid {} & echo up; wait", marker.sleep()));
        let request = if survives { request.survive_restarts() } else { request };
        cut_off(&place.setup(), &marker, 1, request).await;
        for beside in ["a.db-wal", "a.db-shm"] {
            let _ = fs::remove_file(place.path(beside));
        }
        fs::rename(place.path("copy.db"), place.db()).expect("restored");
        let _engine = place.open().await;
        marker.check_nobody_is_left("a run that no record knows");
        assert!(!place.runs().exists());
    }
}

async fn an_engine_that_is_dropped_leaves_its_strays_to_the_next() {
    let (place, marker) = (Place::new(), Marker::new());
    let told = place.pipe("told");
    let stray = format!("setsid sh -c \"{}; exec {}\"", told.ring(), marker.sleep());
    let text = format!("{stray} & exec sleep 50");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let engine = place.open().await;
                engine.run_command(script(text)).await.expect("a run");
                told.heard();
                // The engine is dropped with its runtime, without a shutdown.
            });
        });
    });
    until("it sleeps", || marker.alive().len() == 1).await;
    let engine = loop {
        let builder = adjutant::Engine::builder().path(place.db());
        match builder.open().await {
            Ok(engine) => break engine,
            // The threads of the first engine are about to end.
            Err(adjutant::Error::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    marker.check_nobody_is_left("an engine that was dropped");
    drop(engine);
}

//! A stop ends whatever a run has started, wherever that has gone.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use adjutant::{ExecutionStatus, ProcessExecutor, RunCommand, StopInvocation};
use libtest_mimic::Trial;

use crate::harness::{
    Account, Host, Marker, Place, ended, need_cgroup_v2, need_cgroups, need_root, script, trials,
    until,
};

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![a_stop_ends_all_directly, a_stop_ends_all_with_a_keeper];
    trials.extend(need_root(trials![
        a_stop_ends_all_of_another_user,
        a_stop_ends_all_of_another_user_with_a_keeper,
        a_stop_spares_a_process_of_another_user_that_has_the_mark,
    ]));
    trials.extend(need_root(need_cgroup_v2(trials![
        a_stop_finds_a_process_of_another_user_that_hides,
        what_hides_in_a_lost_run_of_another_user_is_ended_at_open,
    ])));
    trials.extend(need_cgroups(trials![
        a_stop_ends_all_in_a_cgroup,
        a_stop_ends_all_in_a_cgroup_with_a_keeper,
        a_stop_ends_those_who_run_away,
    ]));
    trials
}

/// A script that says `up` when it has started all, with `SLEEP` for what its processes do.
struct Shape {
    name: &'static str,
    script: &'static str,
    /// How many have its sleep among their arguments.
    sleepers: usize,
    /// Whether asking is not enough.
    is_stubborn: bool,
    /// Whether it hides from whoever looks for group, parents and environment.
    hides: bool,
}

const SHAPES: [Shape; 8] = [
    Shape {
        name: "a child",
        script: "SLEEP & echo up; wait",
        sleepers: 1,
        is_stubborn: false,
        hides: false,
    },
    Shape {
        name: "a session of its own",
        script: "setsid SLEEP & echo up; wait",
        sleepers: 1,
        is_stubborn: false,
        hides: false,
    },
    Shape {
        name: "another parent",
        script: "(setsid sh -c 'SLEEP & SLEEP' &) ; echo up; SLEEP",
        sleepers: 4,
        is_stubborn: false,
        hides: false,
    },
    Shape {
        name: "a parent that has ended",
        script: "setsid sh -c '(setsid SLEEP &) ; exit'; echo up; SLEEP",
        sleepers: 2,
        is_stubborn: false,
        hides: false,
    },
    Shape {
        name: "many",
        script: "(setsid sh -c 'n=0; while [ $n -lt 150 ]; do setsid SLEEP & n=$((n+1)); done; wait' &) ; echo up; SLEEP",
        sleepers: 152,
        is_stubborn: false,
        hides: false,
    },
    Shape {
        name: "those who do not listen",
        script: "trap '' TERM HUP INT; setsid SLEEP & SLEEP & echo up; wait",
        sleepers: 2,
        is_stubborn: true,
        hides: false,
    },
    Shape {
        name: "those who stand still",
        script: "sh -c 'kill -STOP $$; SLEEP' & setsid sh -c 'kill -STOP $$; SLEEP' & echo up; kill -STOP $$",
        sleepers: 2,
        is_stubborn: false,
        hides: false,
    },
    Shape {
        name: "one that hides",
        script: "mkfifo $F; setsid env -i sh -c \"(setsid sh -c 'echo > $F; trap \\\"\\\" TERM; SLEEP; SLEEP' &)\"; \
                 read x < $F; rm $F; echo up; SLEEP",
        sleepers: 3,
        is_stubborn: true,
        hides: true,
    },
];

/// Stops a run of each shape: nobody is left, and the record says who had to be killed.
async fn check(executor: ProcessExecutor, finds_all: bool, how: impl Fn(RunCommand) -> RunCommand) {
    let place = Place::new();
    crate::harness::open_to(&place.path(""), 0o755);
    // Every user makes a pipe here. An engine refuses to open in such a folder.
    let open = place.path("open");
    std::fs::create_dir(&open).expect("a folder");
    crate::harness::open_to(&open, 0o777);
    let engine = place.open_with(executor).await;
    for shape in SHAPES.iter().filter(|shape| finds_all || !shape.hides) {
        let marker = Marker::new();
        let text = shape.script.replace("SLEEP", &marker.sleep());
        let fifo = open.join("up").display().to_string();
        let request = how(script(format!("F={fifo}; PIDS=; echo $$; {text}")));
        let (invoked, mut watch) = engine.run_command_and_watch(request).await.expect("a run");
        let mut printed = String::new();
        while !printed.contains("up\n") {
            let event = watch.next().await.expect("it goes on").expect("it has not ended");
            if let adjutant::Event::Output { bytes, .. } = event {
                printed.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        until(shape.name, || marker.alive().len() == shape.sleepers).await;
        let stop = StopInvocation::new(invoked.invoke_id);
        engine.stop_invocation(stop).await.expect("a stop");
        let record = ended(&engine, &invoked.invoke_id).await;
        assert_eq!(record.status, ExecutionStatus::Terminated, "{}: {record:?}", shape.name);
        marker.check_nobody_is_left(shape.name);
        let killed = record.error_info.contains("it took SIGKILL to end ");
        assert_eq!(killed, shape.is_stubborn, "{}: {}", shape.name, record.error_info);
        let leader = printed.lines().next().expect("its number");
        // Not even a zombie.
        assert!(!std::path::Path::new("/proc").join(leader).exists(), "{}", shape.name);
    }
}

async fn a_stop_ends_all_directly() {
    check(ProcessExecutor::new(), false, |request| request).await;
}

async fn a_stop_ends_all_with_a_keeper() {
    check(ProcessExecutor::new(), true, RunCommand::survive_restarts).await;
}

async fn a_stop_ends_all_of_another_user() {
    let name = &Account::ann().name;
    check(ProcessExecutor::new(), false, |request| request.username(name)).await;
}

async fn a_stop_ends_all_of_another_user_with_a_keeper() {
    let name = &Account::ann().name;
    let how = |request: RunCommand| request.username(name).survive_restarts();
    check(ProcessExecutor::new(), true, how).await;
}

/// One after the other starts the next, in a session of its own and without an environment, and ends.
async fn a_stop_ends_those_who_run_away() {
    let executor = ProcessExecutor::new().cgroups();
    let (place, marker) = (Place::new(), Marker::new());
    let engine = place.open_with(executor).await;
    let (told, hop) = (place.pipe("told"), place.path("hop"));
    // Not for ever, should the test fail.
    let text = format!(
        "[ $1 = 100 ] && {}; [ $1 = 9999 ] && exit; env -i setsid sh $0 $(($1 + 1)) {} & exit",
        told.ring(),
        marker.sleep(),
    );
    fs::write(&hop, text).expect("written");
    let start = format!("sh {} 0 {} & sleep 50", hop.display(), marker.sleep());
    let invoked = engine.run_command(script(start)).await.expect("a run");
    told.heard();
    engine.stop_invocation(StopInvocation::new(invoked.invoke_id)).await.expect("a stop");
    let record = ended(&engine, &invoked.invoke_id).await;
    assert_eq!(record.status, ExecutionStatus::Terminated, "{}", record.error_info);
    marker.check_nobody_is_left("those who run away");
}

async fn a_stop_ends_all_in_a_cgroup() {
    check(ProcessExecutor::new().cgroups(), true, |request| request).await;
}

async fn a_stop_ends_all_in_a_cgroup_with_a_keeper() {
    check(ProcessExecutor::new().cgroups(), true, RunCommand::survive_restarts).await;
}

/// A process can take the mark from another's environment only if it may read that; the mark means nothing then.
async fn a_stop_spares_a_process_of_another_user_that_has_the_mark() {
    let (place, marker) = (Place::new(), Marker::new());
    let engine = place.open().await;
    let file = place.path("mark");
    let text =
        format!("echo $ADJUTANT_RUN > {0}.next; mv {0}.next {0}; exec sleep 50", file.display());
    let invoked = engine.run_command(script(text)).await.expect("a run");
    until("it tells its mark", || file.exists()).await;
    let mark = fs::read_to_string(&file).expect("a mark");
    let bob = Account::bob();
    let mut sleeper = Command::new("sh");
    sleeper.args(["-c", &format!("exec {}", marker.sleep())]).env("ADJUTANT_RUN", mark.trim_end());
    let mut sleeper = sleeper.uid(bob.uid).gid(bob.gid).spawn().expect("it starts");
    marker.sleeps().await;
    engine.stop_invocation(StopInvocation::new(invoked.invoke_id)).await.expect("a stop");
    let record = ended(&engine, &invoked.invoke_id).await;
    assert_eq!(record.status, ExecutionStatus::Terminated);
    assert_eq!(record.error_info, "stopped on request");
    assert!(sleeper.try_wait().expect("a child").is_none(), "it goes on");
    sleeper.kill().expect("it can be killed");
    sleeper.wait().expect("it ends");
}

async fn a_stop_finds_a_process_of_another_user_that_hides() {
    let name = &Account::ann().name;
    check(ProcessExecutor::new(), true, |request| request.username(name)).await;
}

async fn what_hides_in_a_lost_run_of_another_user_is_ended_at_open() {
    let (place, marker) = (Place::new(), Marker::new());
    let mut host = Host::start(&place.setup());
    let hides = format!("env -i setsid sh -c '({} &)'; echo up; sleep 50", marker.sleep());
    host.run(script(hides).username(&Account::ann().name));
    host.expect("up");
    until("it sleeps", || marker.alive().len() == 1).await;
    host.kill();
    let _engine = place.open().await;
    marker.check_nobody_is_left("a lost run of another user");
}

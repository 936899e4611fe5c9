//! Hosts whose parent has changed their signals, and hosts that interfere with the engine's
//! children.

use std::fs;
use std::process::Command;

use adjutant::{ExecutionStatus, ResourceLimits, Retry};
use libtest_mimic::Trial;

use crate::faults::Faults;
use crate::harness::{Host, Place, check_says, printed, script, trials};
use crate::host::{Setup, WITH_HELPER, WITHOUT_HELPER};

pub fn trials() -> Vec<Trial> {
    trials![
        a_host_is_free_of_the_signals_that_its_parent_left_it,
        a_host_that_ignores_the_ends_of_children_is_refused,
        a_host_that_has_children_reaped_by_the_system_loses_no_exit_code,
        a_record_says_so_where_an_exit_code_is_lost,
        an_execution_that_may_have_succeeded_is_not_tried_again,
    ]
}

/// Starts a host whose parent has changed its signals.
fn host_after(signals: &[&str], role: &str, setup: &Setup) -> Host {
    let program = std::env::current_exe().expect("this program");
    Host::begin_in(Command::new("env").args(signals).arg(program).arg(role), setup)
}

async fn a_host_is_free_of_the_signals_that_its_parent_left_it() {
    for signals in [
        &["--ignore-signal=CHLD"][..],
        &["--block-signal=CHLD,TERM,INT,PIPE,XFSZ"],
        &["--ignore-signal=CHLD,XFSZ,TERM,USR1,HUP", "--block-signal=TERM,HUP"],
    ] {
        let place = Place::new();
        let mut host = host_after(signals, WITH_HELPER, &place.setup());
        host.expect("open");
        let limits = || ResourceLimits::default().cpu_seconds(60);
        let look = script("grep -E '^Sig(Blk|Ign)' /proc/self/status; exit 7");
        for request in [
            look.clone(),
            look.clone().resource_limits(limits()),
            look.clone().survive_restarts(),
            look.clone().resource_limits(limits()).survive_restarts(),
        ] {
            let record = host.finish(request);
            assert_eq!(record.exit_code, Some(7), "{signals:?}: {}", record.error_info);
            let printed = record.output.to_text().into_owned();
            let masks = printed.lines().map(|line| line.split_once(":\t").expect("a mask").1);
            for mask in masks.map(|mask| u64::from_str_radix(mask, 16).expect("a mask")) {
                // Two signals belong to the C library.
                assert_eq!(mask & !(0b11 << 31), 0, "{signals:?}: {printed}");
            }
            assert_eq!(printed.lines().count(), 2);
        }
        // In runs SIGXFSZ still ends a process that writes too much.
        let limits = ResourceLimits::default().file_size_bytes(4_096);
        let text = format!("exec head -c 50000 /dev/zero > {}", place.path("large").display());
        let record = host.finish(script(text).resource_limits(limits));
        check_says(&record, ExecutionStatus::Failed, "ExitCodeNonzero", "SIGXFSZ: FileSizeBytes");
    }
}

async fn a_host_that_ignores_the_ends_of_children_is_refused() {
    let place = Place::new();
    let host = host_after(&["--ignore-signal=CHLD"], WITHOUT_HELPER, &place.setup());
    let refused = host.expect("refused ");
    for says in ["Host.Unfit", "`local`", "SIGCHLD is ignored", "helper_main"] {
        assert!(refused.contains(says), "want `{says}` in: {refused}");
    }
    assert!(!place.db().exists(), "nothing is made for an engine that does not open");
}

/// Starts a host whose `SIGCHLD` gets the flag `SA_NOCLDWAIT` by these rules.
fn host_with(faults: &Faults, rules: &[&str], role: &str, setup: &Setup) -> Host {
    faults.set(rules);
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    faults.load_into(&mut command);
    Host::begin_in(command.arg(role), setup)
}

const AT_START: [&str; 1] = ["start * 0 -1 nocldwait"];

async fn a_host_that_has_children_reaped_by_the_system_loses_no_exit_code() {
    let (place, faults) = (Place::new(), Faults::new());
    let refused = host_with(&faults, &AT_START, WITHOUT_HELPER, &place.setup()).expect("refused ");
    for says in ["Host.Unfit", "`local`", "SIGCHLD has the flag SA_NOCLDWAIT", "helper_main"] {
        assert!(refused.contains(says), "want `{says}` in: {refused}");
    }
    assert!(!place.db().exists(), "nothing is made for an engine that does not open");
    let mut host = host_with(&faults, &AT_START, WITH_HELPER, &place.setup());
    host.expect("open");
    let limits = || ResourceLimits::default().cpu_seconds(60);
    for request in [
        script("exit 7"),
        script("exit 7").resource_limits(limits()),
        script("exit 7").survive_restarts(),
    ] {
        let record = host.finish(request);
        assert_eq!(record.exit_code, Some(7), "{}", record.error_info);
    }
    assert!(!faults.hits().is_empty(), "the flag was set");
}

/// The host sets the flag while the engine works. The record of a run that goes on then says that its exit status is
/// lost; a run after that does not start.
async fn a_record_says_so_where_an_exit_code_is_lost() {
    let (place, faults) = (Place::new(), Faults::new());
    let mut host = host_with(&faults, &[], WITH_HELPER, &place.setup());
    host.expect("open");
    let count = place.path("count");
    let fifo = place.path("gate");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo starts");
    assert!(made.success());
    let text = format!("echo begun; read line < {}; echo >> {}", fifo.display(), count.display());
    host.run(script(text).retry(Retry::attempts(3).backoff(1)));
    host.expect("begun");
    faults.set(&["write -wal 0 -1 nocldwait"]);
    // The commit that stores this run sets the flag.
    host.run(script(format!("echo never >> {}", count.display())));
    let record = host.ended();
    check_says(&record, ExecutionStatus::Error, "ExecutionException", "SA_NOCLDWAIT");
    assert!(record.error_info.contains("was not started"), "{}", record.error_info);
    fs::write(&fifo, "go\n").expect("it is read");
    let record = host.ended();
    check_says(&record, ExecutionStatus::Error, "ExecutionException", "may have succeeded");
    assert_eq!((record.exit_code, record.attempt), (None, 1), "{}", record.error_info);
    assert_eq!(fs::read_to_string(&count).expect("it has run"), "\n");
}

async fn an_execution_that_may_have_succeeded_is_not_tried_again() {
    let place = Place::new();
    let mut host = Host::start(&Setup { takes_all_ends: true, ..place.setup() });
    let count = place.path("count");
    let mut lost = 0;
    for n in 1..=30 {
        let text = format!("echo once >> {}", count.display());
        let record = host.finish(script(text).retry(Retry::attempts(3).backoff(1)));
        let times = fs::read_to_string(&count).expect("it has run").lines().count();
        assert_eq!((record.attempt, times), (1, n), "{}", record.error_info);
        if record.status == ExecutionStatus::Error {
            lost += 1;
            check_says(&record, ExecutionStatus::Error, "ExecutionException", "may have succeeded");
        } else {
            assert_eq!(printed(&record), "");
        }
    }
    assert!(lost > 0, "the host has never been the first to learn of an end");
}

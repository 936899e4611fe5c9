//! Processes that a run leaves behind when its own process has ended: the record names them, and
//! they go on.

use adjutant::{ExecutionStatus, InvocationResult, ResourceLimits, RunCommand};
use libtest_mimic::Trial;

use crate::harness::{Host, Marker, Place, need_cgroups, script, trials, until};
use crate::host::Setup;

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![
        a_process_that_holds_an_output_is_named_and_lives_on,
        a_process_that_holds_an_output_lives_on_without_a_helper,
        processes_that_a_success_leaves_running_are_named,
    ];
    trials.extend(need_cgroups(trials![a_process_that_is_left_in_a_cgroup_is_named]));
    trials
}

/// Returns the ways in which a run can start.
fn ways(request: &RunCommand) -> [(&'static str, RunCommand); 4] {
    let limits = || ResourceLimits::default().cpu_seconds(60);
    [
        ("direct", request.clone()),
        ("by a helper", request.clone().resource_limits(limits())),
        ("with a keeper", request.clone().survive_restarts()),
        ("with both", request.clone().resource_limits(limits()).survive_restarts()),
    ]
}

#[track_caller]
fn check_success(record: &InvocationResult, says: &[&str], what: &str) {
    let info = &record.error_info;
    assert_eq!(record.status, ExecutionStatus::Success, "{what}: {info}");
    for says in says {
        assert!(info.contains(says), "{what}: want `{says}` in `{info}`");
    }
}

/// Ends the processes with the marker, because no other code does.
async fn end(marker: &Marker) {
    for pid in marker.alive() {
        crate::harness::kill(pid.parse().expect("a pid"));
    }
    until("they end", || marker.alive().is_empty()).await;
}

async fn a_process_that_holds_an_output_is_named_and_lives_on() {
    for (to, says) in [
        ("", "output on standard output and standard error cut after 250 ms of silence, held by "),
        ("2>&-", "output on standard output cut after 250 ms of silence, held by "),
        (">&2 2>&2", "output on standard error cut after 250 ms of silence, held by "),
    ] {
        let (place, marker) = (Place::new(), Marker::new());
        let (go_on, told) = (place.pipe("go-on"), place.pipe("told"));
        // The output is more than a pipe holds, so a writer without a reader would wait, or end.
        let writes = "head -c 300000 /dev/zero >&$((to))"
            .replace("$((to))", if to.contains("&2") { "2" } else { "1" });
        let text = format!(
            "({}; {writes} && {}; {}; exec {}) {to} & echo started",
            go_on.wait(),
            told.ring(),
            go_on.wait(),
            marker.sleep(),
        );
        for (way, request) in ways(&script(&text)) {
            let what = format!("{way}, {to}");
            let mut host = place.host();
            let record = host.finish(request);
            check_success(&record, &[says, " (sh)"], &what);
            assert_eq!(record.output.to_text(), "started\n", "{what}");
            go_on.open();
            told.heard();
            // Written once more when the host is gone.
            host.kill();
            go_on.open();
            until("it sleeps", || marker.alive().len() == 1).await;
            end(&marker).await;
        }
    }
}

async fn a_process_that_holds_an_output_lives_on_without_a_helper() {
    let (place, marker) = (Place::new(), Marker::new());
    let (go_on, told) = (place.pipe("go-on"), place.pipe("told"));
    let text = format!(
        "({}; head -c 300000 /dev/zero && {}; exec {}) & echo started",
        go_on.wait(),
        told.ring(),
        marker.sleep(),
    );
    let mut host = Host::without_helper(&place.setup());
    let record = host.finish(script(text));
    check_success(&record, &["cut after 250 ms of silence, held by ", " (sh)"], "without a helper");
    go_on.open();
    told.heard();
    until("it sleeps", || marker.alive().len() == 1).await;
    end(&marker).await;
}

async fn processes_that_a_success_leaves_running_are_named() {
    let place = Place::new();
    let mut host = place.host();
    for leaves in [
        "nohup SLEEP >/dev/null 2>&1 &",
        "setsid SLEEP >/dev/null 2>&1 &",
        "(setsid SLEEP >/dev/null 2>&1 &)",
        "(sh -c 'SLEEP & SLEEP' >/dev/null 2>&1 &)",
    ] {
        let marker = Marker::new();
        // The process is there before its run has ended.
        let waits = format!("until grep -qsa '{}' /proc/[0-9]*/comm; do :; done", "sleep");
        let text = format!("{}\n{waits}", leaves.replace("SLEEP", &marker.sleep()));
        for (way, request) in ways(&script(&text)) {
            let record = host.finish(request);
            let what = format!("{way}, {leaves}");
            check_success(&record, &["left running: "], &what);
            let alive = marker.alive();
            assert!(!alive.is_empty(), "{what}");
            assert!(alive.iter().any(|pid| record.error_info.contains(pid.as_str())), "{what}");
            end(&marker).await;
        }
    }
}

/// The process has done everything to hide.
async fn a_process_that_is_left_in_a_cgroup_is_named() {
    let (place, marker) = (Place::new(), Marker::new());
    let mut host = Host::start(&Setup { cgroups: true, ..place.setup() });
    let text = format!("env -i setsid sh -c '({} >/dev/null 2>&1 &)'", marker.sleep());
    let record = host.finish(script(text));
    check_success(&record, &["left running: ", "(sleep)"], "in a cgroup");
    end(&marker).await;
}

//! What a run finds open: its standard input, its two outputs, and nothing else.

use adjutant::{ResourceLimits, RunCommand};
use libtest_mimic::Trial;

use crate::harness::{Account, Host, Place, need_root, printed, script, trials};
use crate::host::Setup;

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![nothing_of_the_hosts_is_open_in_a_run];
    trials.extend(need_root(trials![nothing_of_the_hosts_is_open_for_another_user]));
    trials
}

/// The fourth is what `ls` looks with.
const LOOK: &str = "readlink /proc/self/fd/0; exec ls /proc/self/fd";
const WANT: &str = "/dev/null\n0\n1\n2\n3\n";

fn check(requests: &[(&str, RunCommand)]) {
    for has_closed_stdio in [false, true] {
        for inheritable in [0, 300] {
            let place = Place::new();
            let mut host = Host::start(&Setup { inheritable, has_closed_stdio, ..place.setup() });
            for (way, request) in requests {
                let found = printed(&host.finish(request.clone()));
                assert_eq!(found, WANT, "{way}, {inheritable}, closed: {has_closed_stdio}");
            }
        }
    }
}

async fn nothing_of_the_hosts_is_open_in_a_run() {
    let limits = ResourceLimits::default().cpu_seconds(60);
    check(&[
        ("direct", script(LOOK)),
        ("by a helper", script(LOOK).resource_limits(limits)),
        ("with a keeper", script(LOOK).survive_restarts()),
        ("with both", script(LOOK).resource_limits(limits).survive_restarts()),
    ]);
}

async fn nothing_of_the_hosts_is_open_for_another_user() {
    let request = script(LOOK).username(&Account::ann().name);
    check(&[("by a helper", request.clone()), ("with a keeper", request.survive_restarts())]);
}

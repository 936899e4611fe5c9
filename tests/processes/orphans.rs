//! Processes that lose their parents to a host which is the first process of a container.

use adjutant::ExecutionStatus;
use libtest_mimic::Trial;

use crate::harness::{Host, Place, need_mounts, printed, script, trials};

pub fn trials() -> Vec<Trial> {
    need_mounts(trials![the_first_process_of_a_container_reaps_all])
}

async fn the_first_process_of_a_container_reaps_all() {
    let place = Place::new();
    let mut host = Host::start_as_first(&place.setup());
    for _ in 0..5 {
        let record = host.finish(script("(sleep 0.01 &); setsid sleep 0.01 & echo hi"));
        assert_eq!(record.status, ExecutionStatus::Success);
    }
    // Ends once no process is left that has ended and has not been reaped.
    let look = "while cat /proc/[0-9]*/stat 2>&- | grep -q ') Z '; do :; done; cat /proc/1/comm; echo $PPID";
    let seen = printed(&host.finish(script(look)));
    let (_, parent) = seen.trim_end().split_once('\n').expect("two lines");
    assert_ne!(parent, "1", "the host is a child of the first process");
    host.shut_down();
}

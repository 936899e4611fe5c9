//! Tests of the gate. The tests lie beside the gate because the models of the dispatcher compile the gate once more,
//! with other locks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use super::commit_gate::CommitGate;

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_start_waits_for_a_commit_that_stops_executions_and_for_no_other() {
    let (gate, wakes) = (CommitGate::default(), Arc::new(Count(AtomicUsize::new(0))));
    let waker = Waker::from(Arc::clone(&wakes));
    let cx = Context::from_waker(&waker);
    let check = |stops: bool, is_open: bool| {
        if stops {
            gate.close(|| panic!("no start is passing"));
        }
        assert_eq!(gate.poll_pass(&cx).is_ready(), is_open);
        gate.open();
        assert!(gate.poll_pass(&cx).is_ready());
    };
    check(false, true);
    check(true, false);
    check(false, true);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[test]
fn a_commit_that_stops_executions_waits_for_starts_that_are_passing_and_not_for_ever() {
    let check = |stops: bool, polls: usize, most: usize, waits: usize| {
        let gate = CommitGate::default();
        let cx = Context::from_waker(Waker::noop());
        let Poll::Ready(pass) = gate.poll_pass(&cx) else { panic!("the gate is open") };
        let (mut pass, mut waited) = (Some(pass), 0);
        if stops {
            gate.close(|| {
                waited += 1;
                if waited == polls {
                    pass = None;
                }
                waited < most
            });
        }
        assert_eq!(waited, waits, "{stops} {polls} {most}");
    };
    check(true, 3, 10, 3);
    check(true, 20, 10, 10);
    check(false, 3, 10, 0);
}

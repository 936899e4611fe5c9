//! The first process of a container gets all processes that lose their parents, and has to reap them. The engine takes
//! the exit statuses of its own children only, so the reaping is another process's work: this program's, with the
//! program as its child.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use rustix::process::{Pid, Signal, WaitOptions};

use super::kernel::{self, Received};

/// Added to the number of the signal that has ended the program, as shells do.
const SIGNALLED: i32 = 128;

/// Reaps processes that lose their parents, if this process gets them: as the first process of its PID namespace, such
/// as the entry of a container, or as a child subreaper. Call it in `main`, right after
/// [`helper_main`](crate::helper_main), while the program has one thread.
///
/// If this process gets no such processes, the call does nothing. Otherwise it starts the program again as a child,
/// with the same arguments, environment and descriptors, and does not return. It passes signals of other processes on
/// to the child, and reaps all processes that end. Once the child has ended, this process exits with the child's exit
/// status, or with 128 plus the number of the signal that has ended the child.
///
/// # Errors
///
/// If the program cannot be started again.
///
/// # In `main`
///
/// ```no_run
/// adjutant::helper_main();
/// adjutant::reap_orphans()?;
/// # std::io::Result::Ok(())
/// ```
pub fn reap_orphans() -> io::Result<()> {
    if !gets_orphans() {
        return Ok(());
    }
    let signals = kernel::take_signals()?;
    let mut arguments = std::env::args_os();
    let mut program = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        program.arg0(name);
    }
    kernel::unblock_in(&mut program);
    let started = program.args(arguments).spawn();
    let child = match started {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            kernel::set_up_signals();
            return Err(error);
        }
    };
    loop {
        // Signals that come before the next look are kept until then.
        if let Some(ended) = reap(child) {
            std::process::exit(exit_code(ended));
        }
        let received = signals.next()?;
        if is_for_child(&received) {
            // The child may have ended just now.
            let _ = kernel::send(child, received.number);
        }
    }
}

/// Returns whether a signal is to be passed on. A signal of a key reaches the child too, because the child is in the
/// same group. The hangup of a terminal reaches only the leader of the session, which may be this process.
fn is_for_child(received: &Received) -> bool {
    match Signal::from_named_raw(received.number) {
        Some(Signal::CHILD) => false,
        Some(Signal::HUP) => true,
        _ => received.is_sent,
    }
}

/// Returns whether processes that lose their parents become children of this process.
fn gets_orphans() -> bool {
    rustix::process::getpid() == Pid::INIT
        || matches!(rustix::process::child_subreaper(), Ok(Some(_)))
}

/// Reaps all children that have ended. Returns the status of `child` if that is among them.
fn reap(child: Pid) -> Option<ExitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == child {
            ended = Some(ExitStatus::from_raw(status.as_raw()));
        }
    }
    ended
}

fn exit_code(ended: ExitStatus) -> i32 {
    ended.code().or(ended.signal().map(|signal| SIGNALLED + signal)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_the_childs_as_shells_have_it() {
        let check = |status: i32, want: i32| {
            assert_eq!(exit_code(ExitStatus::from_raw(status)), want, "{status}");
        };
        check(0, 0);
        check(7 << 8, 7);
        check(9, 137);
        check(15, 143);
    }

    #[test]
    fn sent_signals_and_hangups_are_passed_on() {
        let check = |number: i32, is_sent: bool, want: bool| {
            let received = Received { number, is_sent };
            assert_eq!(is_for_child(&received), want, "{number} {is_sent}");
        };
        let [hangup, interrupt, child] =
            [Signal::HUP, Signal::INT, Signal::CHILD].map(Signal::as_raw);
        for is_sent in [false, true] {
            check(hangup, is_sent, true);
            check(child, is_sent, false);
            check(interrupt, is_sent, is_sent);
            // A real-time signal.
            check(40, is_sent, is_sent);
        }
    }

    #[test]
    fn an_ordinary_process_goes_on() {
        assert!(!gets_orphans());
        reap_orphans().expect("nothing happens");
    }
}

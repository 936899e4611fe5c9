//! The program works with any signals that its parent has left it.

use std::process::Command;

use rustix::process::Signal;

use crate::harness::{Done, Place, Running};

#[test]
fn exit_codes_are_true_whatever_the_parent_ignores() {
    for signals in [
        &["--ignore-signal=CHLD"][..],
        &["--block-signal=CHLD"],
        &["--ignore-signal=CHLD,XFSZ,PIPE", "--block-signal=TERM,INT"],
    ] {
        let place = Place::new();
        let done = place.command_after(signals, &["run", "exit 7"]).output().expect("it starts");
        let done = Done::new(done);
        assert_eq!(done.code, Some(1), "{signals:?}: {}", done.err);
        let shown = place.json(&["show", &place.newest()]);
        let exit_code = &shown["InvocationResults"]["InvocationResult"][0]["ExitCode"];
        assert_eq!(exit_code, 7, "{signals:?}: {shown}");
    }
}

#[test]
fn a_blocked_signal_ends_the_program_all_the_same() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let serve = Running::new(place.command_after(&["--block-signal=TERM,INT"], &["serve"]));
        serve.err.expect("serving ");
        serve.signal(signal);
        let done = serve.end();
        assert_eq!(done.code, Some(0), "{}", done.err);
    }
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_not_the_end_of_the_program() {
    let place = Place::new();
    let program = place.command(&["run", "true"]);
    // The limit is smaller than a database.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 4; exec \"$@\"", "sh"]).arg(program.get_program());
    limited.args(program.get_args()).env("ADJUTANT_DB", place.db());
    let done = Done::new(limited.output().expect("it starts"));
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("a.db"), "{}", done.err);
}

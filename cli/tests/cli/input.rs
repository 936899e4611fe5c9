//! Bad input: one line, the right exit status, no panic.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use crate::harness::Place;

const USAGE: i32 = 2;
const FAILURE: i32 = 1;

/// A word of the command line: `\xff` stands for that byte.
fn word(text: &str) -> OsString {
    let mut bytes = Vec::new();
    for (n, part) in text.split("\\xff").enumerate() {
        if n > 0 {
            bytes.push(0xff);
        }
        bytes.extend_from_slice(part.as_bytes());
    }
    OsString::from_vec(bytes)
}

const NO_RUN: &str = "t-00000000000000000000000000000000";
const NO_COMMAND: &str = "c-00000000000000000000000000000000";

#[rustfmt::skip]
const REFUSED: &[(&[&str], i32, &str)] = &[
    (&["nonsense"], USAGE, "unrecognized subcommand 'nonsense' (Usage)"),
    (&["run"], USAGE, "the following required arguments were not provided: <SCRIPT|--file <FILE>> (Usage)"),
    (&["run", "echo", "hi"], USAGE, "unexpected argument 'hi' found; a script of several words goes in quotes (Usage)"),
    (&["run", "--timout", "3", "true"], USAGE, "unexpected argument '--timout' found; tip: a similar argument exists: '--timeout' (Usage)"),
    (&["run", "true", "-f", "x"], USAGE, "the argument '[SCRIPT]' cannot be used with '--file <FILE>' (Usage)"),
    (&["run", "--timeout", "soon", "true"], USAGE, "invalid value 'soon' for '--timeout <DURATION>': want seconds, or a duration such as 90s, 5m or 1h30m, 1 to 31622400 seconds (Usage)"),
    (&["run", "--retry", "-1", "true"], USAGE, "invalid value '-1' for '--retry <N>': want a number, 1 to 100 (Usage)"),
    (&["run", "--max-errors", "all", "true"], USAGE, "invalid value 'all' for '--max-errors <SHARE>': want a number, or a percentage up to 100%, such as 10 or 10% (Usage)"),
    (&["run", "--max-concurrency", "-1", "true"], USAGE, "invalid value '-1' for '--max-concurrency <SHARE>': want a number, or a percentage up to 100%, such as 10 or 10% (Usage)"),
    (&["run", "--max-errors", "-1", "true"], USAGE, "invalid value '-1' for '--max-errors <SHARE>': want a number, or"),
    (&["run", "--waves", "-1", "true"], USAGE, "invalid value '-1' for '--waves <SHARE>': want a number, or"),
    (&["run", "--frequency", "rate(5m)", "--spread", "-1", "true"], USAGE, "invalid value '-1' for '--spread <DURATION>': want seconds, or a duration such as 90s, 5m or 1h30m, 0 to 86400 seconds (Usage)"),
    (&["run", "--frequency", "rate(5m)", "--times", "-1", "true"], USAGE, "invalid value '-1' for '--times <N>': want a whole number (Usage)"),
    (&["instances", "add", "i-1", "--max-concurrency", "-1"], USAGE, "invalid value '-1' for '--max-concurrency <N>': want a whole number, 1 to 4294967295 (Usage)"),
    (&["next", "--count", "-1", "rate(5m)"], USAGE, "invalid value '-1' for '--count <COUNT>': expected a number from 1 to"),
    (&["run", "--priority", "-1", "true"], USAGE, "invalid value '-1' for '--priority <N>': want 0 to 9 (Usage)"),
    (&["run", "--deadline", "1.5", "true"], USAGE, "want seconds, or a duration such as 90s, 5m or 1h30m, 1 to 2592000 seconds (Usage)"),
    (&["run", "--key", "", "true"], FAILURE, "want 1 to 64 characters, none a control character; it has 0 (InvalidParameter.ConcurrencyKey)"),
    (&["run", "--key", "a\nb", "true"], FAILURE, "it has a control character (InvalidParameter.ConcurrencyKey)"),
    (&["run", "--waves", "1,101%", "true"], USAGE, "invalid value '101%' for '--waves <SHARE>': want a number, or a percentage up to 100%"),
    (&["run", "--wave-soak", "5", "true"], USAGE, "were not provided: --waves <SHARE> (Usage)"),
    (&["run", "--max-concurrency", "0", "true"], FAILURE, "adjutant: MaxConcurrency (--max-concurrency): want a number from 1 on, or 1% to 100%; it is `0` (InvalidParameter.MaxConcurrency)"),
    (&["run", "--waves", "2,1", "true"], FAILURE, "adjutant: Waves (--waves): each wave counts those before it too"),
    (&["run", "--start-deadline", "60", "--deadline", "30", "true"], FAILURE, "StartDeadline (--start-deadline): want at most the Deadline, 30 seconds; it is 60 (InvalidParameter.StartDeadline)"),
    (&["run", "--priority", "10", "--deadline", "0", "true"], FAILURE, "Priority (--priority): want 0 to 9; it is 10 (InvalidParameter.Priority); Deadline (--deadline): want 1 to 2592000 seconds; it is 0"),
    (&["instances", "add", "i-1", "--max-concurrency", "0"], FAILURE, "MaxConcurrency (--max-concurrency): want at least 1; it is 0"),
    (&["run", "--bogus"], USAGE, "adjutant: unexpected argument '--bogus' found (Usage)"),
    (&["run", "--user", "", "true"], USAGE, "a value is required for '--user <NAME>' but none was supplied (Usage)"),
    (&["run", "--launcher", "", "true"], USAGE, "a value is required for '--launcher <COMMAND>' but none was supplied (Usage)"),
    (&["run", "--output-to", "", "true"], USAGE, "a value is required for '--output-to <URL>' but none was supplied (Usage)"),
    (&["run", "--container", "", "true"], USAGE, "a value is required for '--container <NAME>' but none was supplied (Usage)"),
    (&["commands", "create", "--name", "n", "--user", "", "true"], USAGE, "a value is required for '--user <NAME>' but none was supplied (Usage)"),
    (&["run", "--launcher", "  ", "true"], FAILURE, "adjutant: Launcher (--launcher): "),
    (&["run", "--limit", "cpu=0", "true"], FAILURE, "adjutant: ResourceLimits (--limit): "),
    (&["run", "--output-to", "out", "true"], FAILURE, "adjutant: OssOutputDelivery (--output-to): "),
    (&["run", "--retry", "0", "true"], FAILURE, "adjutant: Retry.MaxAttempts (--retry): want 1 to 100; it is 0 (InvalidParam.Retry)"),
    (&["run", "--on-tag", "no=one", "--timeout", "0", "true"], FAILURE, "(InvalidResourceTag.InstanceNotFound); Timeout (--timeout): want 1 to 31622400 seconds; it is 0 (InvalidParameter.Timeout)"),
    (&["run", "--name", "\\xff", "true"], USAGE, "invalid UTF-8 was detected in one or more arguments (Usage)"),
    (&["run", "--workdir", "/\\xff", "true"], USAGE, "the folder's name \"/\\xFF\" is no UTF-8 (Usage)"),
    (&["show", "t-1"], FAILURE, "there is no run `t-1` (InvalidInvokeId.NotFound)"),
    (&["show", "a\nb\u{1b}[31m"], FAILURE, "there is no run `a\\nb\\u{1b}[31m` (InvalidInvokeId.NotFound)"),
    (&["invoke", NO_RUN], FAILURE, "there is no stored command `t-00000000000000000000000000000000` (InvalidCmdId.NotFound)"),
    (&["run", "--param", "hunter2", "true"], USAGE, "adjutant: --param, number 1: want NAME=VALUE, NAME=@FILE, or the NAME of a variable that is set in the environment (Usage)"),
    (&["run", "--param-env", "p=@missing", "true"], USAGE, "adjutant: --param-env, number 1: cannot read the file after @: No such file or directory (os error 2); write @@ for a value that begins with @ (Usage)"),
    (&["ps", "-n", "-3"], USAGE, "invalid value '-3' for '--limit <N>': want a whole number (Usage)"),
    (&["--db", "", "ps"], USAGE, "a value is required for '--db <FILE>' but none was supplied (Usage)"),
    (&["load", "--invocations", "0"], USAGE, "invalid value '0' for '--invocations <N>': want a whole number, 1 to 1000000 (Usage)"),
    (&["load", "--instances", "-1"], USAGE, "invalid value '-1' for '--instances <M>': "),
    (&["load", "--instances", "10001"], USAGE, "want a whole number, 1 to 10000 (Usage)"),
    (&["load", "--concurrency", "0"], USAGE, "want a whole number, 1 to 100000 (Usage)"),
    (&["load", "--submitters", "many"], USAGE, "invalid value 'many' for '--submitters <S>': want a whole number, 1 to 10000 (Usage)"),
    (&["load", "--executor", "bash"], USAGE, "invalid value 'bash' for '--executor <WHAT>': want noop, sh or sleep:MS, where MS is 0 to 60000 (Usage)"),
    (&["load", "--executor", "sleep:60001"], USAGE, "want noop, sh or sleep:MS, where MS is 0 to 60000 (Usage)"),
    (&["load", "--executor", "sleep:"], USAGE, "want noop, sh or sleep:MS"),
    (&["load", "--invocations", "1000000", "--instances", "11"], USAGE, "want at most 10000000 executions; --invocations 1000000 on --instances 11 are 11000000 (Usage)"),
    (&["own-in-background"], FAILURE, "(System.Refused)"),
    (&["run", "-f", "missing"], FAILURE, "cannot read missing: No such file or directory (os error 2) (Script.CannotRead)"),
    (&["run", "-f", "."], FAILURE, "cannot read .: Is a directory (os error 21) (Script.CannotRead)"),
    (&["run", "-f", "/dev/zero"], FAILURE, "/dev/zero is no script: it has more than 2097152 bytes (CmdContent.ExceedLimit)"),
    (&["run", "-f", "line\nbreak\u{1b}[2J\\xff"], FAILURE, "cannot read line\\nbreak\\u{1b}[2J\u{fffd}: No such file"),
    (&["run", "-f", "big"], FAILURE, "want at most 1048576 bytes; it has 1048577; keep a longer script in a file on the instance, and run that: `adjutant run 'sh /path/to/script'` (CmdContent.ExceedLimit)"),
    (&["run", ""], FAILURE, "it is empty; give the script to run (MissingParameter.CommandContent)"),
    (&["run", "-"], FAILURE, "(MissingParameter.CommandContent)"),
    (&["run", "--on", "nobody", "true"], FAILURE, "no instance `nobody` is registered (InvalidInstance.NotFound)"),
    (&["run", "--on", "", "true"], FAILURE, "(InvalidInstance.NotFound)"),
    (&["run", "--on", "local,local", "true"], FAILURE, "`local` is named twice; name each instance once (InvalidInstanceId.Duplicate)"),
    (&["run", "--timeout", "0", "true"], FAILURE, "it is 0 (InvalidParameter.Timeout)"),
    (&["show", NO_RUN], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["show", "--follow", NO_RUN], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["retry", NO_RUN], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["retry", NO_RUN, "--detach"], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["retry"], USAGE, "were not provided: <RUN> (Usage)"),
    (&["stop", NO_RUN], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["invoke", NO_COMMAND], FAILURE, "(InvalidCmdId.NotFound)"),
    (&["commands", "show", NO_COMMAND], FAILURE, "(InvalidCmdId.NotFound)"),
    (&["commands", "delete", NO_COMMAND], FAILURE, "(InvalidCmdId.NotFound)"),
    (&["instances", "remove", "nobody"], FAILURE, "(InvalidInstance.NotFound)"),
    (&["instances", "add", "a\tb"], FAILURE, "(InvalidInstanceId.Malformed)"),
    (&["instances", "add", "i-1", "--executor", "moon"], FAILURE, "which is not plugged in; there are: local (InvalidInstance.NotMatch)"),
    (&["instances", "add", "a,b"], FAILURE, "the name `a,b` has a comma in it, or a blank at an end; `--on` takes neither (InvalidInstanceId.Malformed)"),
    (&["instances", "add", "a "], FAILURE, "(InvalidInstanceId.Malformed)"),
    (&["run", "--frequency", "soon", "true"], FAILURE, "(InvalidParam.Frequency)"),
    (&["run", "--overlap", "allow", "true"], USAGE, "were not provided: <--frequency <EXPR>|--on-reboot <WHICH>> (Usage)"),
    (&["run", "--spread", "5", "true"], USAGE, "were not provided: --frequency <EXPR> (Usage)"),
    (&["run", "--times", "1", "true"], USAGE, "were not provided: --frequency <EXPR> (Usage)"),
    (&["run", "--frequency", "rate(5m)", "--until", "soon", "true"], USAGE, "want RFC 3339, such as 2030-01-31T08:00:00Z (Usage)"),
    (&["run", "--frequency", "rate(5m)", "--until", "2020-01-01T00:00:00Z", "true"], FAILURE, "want a later end (InvalidParam.EndTime)"),
    (&["run", "--frequency", "rate(5m)", "--spread", "86401", "true"], FAILURE, "Spread (--spread): want at most 86400 s; it is 86401 s (InvalidParam.Spread)"),
    (&["run", "--frequency", "rate(5m)", "--times", "0", "true"], FAILURE, "MaxFires (--times): want at least 1; it is 0 (InvalidParam.MaxFires)"),
    (&["run", "--frequency", "rate(5m)", "--overlap", "never", "true"], USAGE, "[possible values: skip, queue, allow, replace] (Usage)"),
    (&["run", "--on-reboot", "next", "--frequency", "rate(5m)", "true"], USAGE, "cannot be used with '--frequency <EXPR>' (Usage)"),
    (&["run", "--on-reboot", "next", "--missed", "latest", "true"], USAGE, "cannot be used with '--missed <WHICH>' (Usage)"),
    (&["run", "--on-reboot", "next", "--detach", "true"], USAGE, "cannot be used with '--detach' (Usage)"),
    (&["run", "--frequency", "rate(5m)", "--missed", "all:x", "true"], USAGE, "want skip, latest or all:N (Usage)"),
    (&["pause", "x"], FAILURE, "there is no run `x` (InvalidInvokeId.NotFound)"),
    (&["pause", NO_RUN], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["resume", NO_RUN], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["run-now", NO_RUN], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["explain", NO_RUN, "2030-01-31T08:00:00Z"], FAILURE, "(InvalidInvokeId.NotFound)"),
    (&["explain", NO_RUN], USAGE, "were not provided: <TIME> (Usage)"),
    (&["explain", NO_RUN, "noon"], USAGE, "want RFC 3339, such as 2030-01-31T08:00:00Z (Usage)"),
    (&["next", "rate(5m)", "--from", "noon"], USAGE, "want RFC 3339, such as 2030-01-31T08:00:00Z (Usage)"),
    (&["--db", "missing/a.db", "run", "true"], FAILURE, "(Storage.CannotOpen)"),
    (&["--db", ".", "ps"], FAILURE, "it is a folder, not a file; check that the folder exists and that this user may use it (Storage.CannotOpen)"),
    (&["--db", "junk", "run", "true"], FAILURE, "(Storage.Corrupt)"),
    (&["--db", "junk", "ps"], FAILURE, "(Storage.Corrupt)"),
];

#[test]
fn bad_input_is_refused_in_one_line() {
    let place = Place::new();
    fs::write(place.path("junk"), "x".repeat(5_000)).expect("a file");
    fs::write(place.path("big"), "x".repeat((1 << 20) + 1)).expect("a file");
    place.ok(&["instances", "add", "local"]);
    for (words, code, message) in REFUSED {
        let done = place.run(&words.iter().map(|text| word(text)).collect::<Vec<_>>());
        assert_eq!(done.code, Some(*code), "{words:?}: {}", done.err);
        assert_eq!(done.out, "", "{words:?}");
        assert_eq!(done.err.lines().count(), 1, "{words:?}: {}", done.err);
        assert!(done.err.starts_with("adjutant: "), "{words:?}: {}", done.err);
        assert!(done.err.contains(message), "{words:?}: {}", done.err);
        assert!(!done.err.contains('\u{1b}'), "{words:?}: {}", done.err);
    }
}

#[test]
fn with_json_failures_are_json() {
    let place = Place::new();
    for (words, code, want) in [
        (&["run", "a", "b"][..], USAGE, "Usage"),
        (&["run", "--on", "x,y", "true"], FAILURE, "InvalidInstance.NotFound"),
        (&["run", "-f", "missing"], FAILURE, "Script.CannotRead"),
        (&["show", NO_RUN], FAILURE, "InvalidInvokeId.NotFound"),
        (&["run-now", NO_RUN], FAILURE, "InvalidInvokeId.NotFound"),
        (&["explain", NO_RUN, "noon"], USAGE, "Usage"),
    ] {
        let mut command = place.command(&["--json"]);
        let output = command.args(words).output().expect("it starts");
        assert_eq!(output.status.code(), Some(code), "{words:?}");
        let document: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("one JSON document");
        let error = &document["error"];
        assert_eq!(error["Code"], want, "{words:?}");
        assert!(error["Message"].is_string() && error["HttpStatus"].is_u64(), "{words:?}");
        assert!(error["Violations"].is_array(), "{words:?}");
    }
    let refused = place.json(&["run", "--on", "x,y", "true"]);
    assert_eq!(refused["error"]["Violations"][1]["Field"], "InstanceId", "{refused}");
}

#[test]
fn a_script_after_two_dashes_may_look_like_an_option() {
    let place = Place::new();
    let done = place.run(&["run", "--", "--json"]);
    assert_eq!(done.code, Some(FAILURE));
    assert!(done.err.contains("Failed"), "{}", done.err);
    assert_eq!(place.run(&["run", "a", "--", "--json"]).out, "");
}

#[test]
fn odd_names_of_files_are_names_of_files() {
    let place = Place::new();
    for name in ["with space", "-dash", "line\nbreak", "\\xff", "quote'\"", ":memory:"] {
        let path = place.path("").join(word(name));
        let words: Vec<OsString> =
            ["--db".into(), path.clone().into(), "run".into(), "echo hi".into()].into();
        assert_eq!(place.ok(&words), "hi\n", "{name}");
        assert!(path.exists(), "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_written_can_be_read() {
    let place = Place::new();
    place.ok(&["run", "echo before"]);
    fs::set_permissions(place.db(), fs::Permissions::from_mode(0o400)).expect("it is ours");
    if fs::OpenOptions::new().write(true).open(place.db()).is_ok() {
        // Permissions mean nothing to this user.
        return;
    }
    assert!(place.ok(&["ps"]).contains("echo before"));
    let done = place.run(&["run", "true"]);
    assert_eq!(done.code, Some(FAILURE));
    assert!(done.err.ends_with("(Storage.ReadOnly)\n"), "{}", done.err);
}

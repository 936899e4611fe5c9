//! `run` and `invoke` by themselves.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::{Done, Place, Running, is_alive};

#[test]
fn the_exit_status_tells_whether_all_succeeded() {
    let place = Place::with_instances(&["i-1", "i-2"]);
    let check = |words: &[&str], code, table: &[&str]| {
        let done = place.run(words);
        assert_eq!(done.code, Some(code), "{words:?}: {}", done.err);
        for word in table {
            assert!(done.err.contains(word), "{words:?}: no `{word}` in {}", done.err);
        }
    };
    check(&["run", "true"], 0, &["INSTANCE", "local", "Success"]);
    check(&["run", "exit 3"], 1, &["Failed", "     3  "]);
    check(&["run", "kill -9 $$"], 1, &["Failed", "signal 9"]);
    check(&["run", "--timeout", "1", "sleep 100"], 1, &["Timeout", "ExecutionTimeout"]);
    check(&["run", "--workdir", "/no/such", "true"], 1, &["Invalid", "DirectoryNotExists"]);
    check(&["run", "--on", "i-1,i-2", "true"], 0, &["i-1", "i-2"]);
    check(&["run", "--on", "i-1", "--on", "i-2", "mkdir once"], 1, &["Failed", "Success"]);
}

#[test]
fn what_fails_is_tried_again() {
    let place = Place::new();
    let script = "echo $ADJUTANT_ATTEMPT; test $ADJUTANT_ATTEMPT = 3";
    let done = place.run(&["run", "--retry", "4", "--retry-backoff", "0..9", script]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), "1\n2\n3\n"), "{}", done.err);
    assert!(done.err.contains("DROPPED  TRY"), "{}", done.err);
    let id = place.newest();
    let shown = place.ok(&["show", &id, "--history"]);
    let retry =
        "Retry     4 times, after 0 s, x2, at most 9 s, on failed, timeout, error, aborted\n";
    assert!(shown.contains(retry), "{shown}");
    assert_eq!((shown.matches("Failed").count(), shown.matches("Success").count()), (2, 2));

    let done = place.run(&["run", "--retry", "4", "--retry-on", "timeout,interrupted", "exit 1"]);
    assert_eq!(done.code, Some(1));
    assert_eq!(place.json(&["show", &place.newest()])["Retry"]["On"][1], "Interrupted");

    let run = place.start(&["run", "--retry", "2", "--retry-backoff", "3600", "exit 1"]);
    run.err.expect("local is tried again at 2");
    let shown = place.ok(&["show", &place.newest()]);
    assert!(shown.contains("Status    Running\n"), "{shown}");
    assert!(shown.contains("  starts at 2"), "{shown}");
    run.signal(Signal::INT);
    assert_eq!(run.end().code, Some(1));
    assert_eq!(place.json(&["show", &place.newest()])["InvocationStatus"], "Stopped");
}

#[test]
fn what_failed_is_run_once_more() {
    let place = Place::with_instances(&["i-1", "i-2"]);
    // One of the two can make it, and whoever comes when it is gone.
    assert_eq!(place.run(&["run", "--on", "i-1,i-2", "mkdir once"]).code, Some(1));
    let first = place.newest();
    let done = place.run(&["retry", &first]);
    assert_eq!((done.code, done.err.matches("Failed     1").count()), (Some(1), 1), "{}", done.err);
    let second = place.newest();
    assert!(place.ok(&["show", &second]).contains(&format!("Retry of  {first}\n")));
    fs::remove_dir(place.path("once")).expect("it is there");
    let third = place.ok(&["retry", &second, "--detach", "--client-token", "t"]);
    assert_eq!(place.ok(&["retry", &second, "--detach", "--client-token", "t"]), third);
    place.wait_until(third.trim(), "Success");
    place.wait_until_unowned();
    let done = place.run(&["retry", third.trim()]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.err.ends_with("want one that did not (InvalidStatus.NothingFailed)\n"),
        "{}",
        done.err
    );
}

#[test]
fn rates_are_on_record() {
    let place = Place::new();
    let rates = [
        "--max-concurrency",
        "10%",
        "--max-errors",
        "5",
        "--waves",
        "1,10%, 100%",
        "--wave-soak",
        "60",
        "--priority",
        "7",
        "--key",
        "db",
        "--start-deadline",
        "600",
        "--deadline",
        "3600",
    ];
    let done = place.run(&[&["run"], &rates[..], &["true"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.err);
    let shown = place.ok(&["show", &place.newest()]);
    for line in [
        "At a time 10%\n",
        "Errors    at most 5\n",
        "Waves     1, 10%, 100%, 60 s between\n",
        "Priority  7\n",
        "Key       db\n",
        "Start in  600 s\n",
        "End in    3600 s\n",
    ] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    place.ok(&["run", "true"]);
    let shown = place.ok(&["show", &place.newest()]);
    assert!(!["At a time", "Waves", "Priority"].iter().any(|name| shown.contains(name)), "{shown}");
}

#[test]
fn what_is_wrong_with_a_retry_is_told() {
    let place = Place::new();
    let check = |words: &[&str], code: i32, want: &str| {
        let done = place.run(&[&["run"], words, &["true"]].concat());
        assert_eq!(done.code, Some(code), "{words:?}: {}", done.err);
        assert!(done.err.contains(want), "{words:?}: {}", done.err);
    };
    check(&["--retry", "0"], 1, "Retry.MaxAttempts (--retry): want 1 to 100; it is 0");
    check(&["--retry", "3", "--retry-backoff", "9..8"], 1, "Retry.MaxBackoffSeconds");
    check(&["--retry", "3", "--retry-backoff", "5s..soon"], 2, "want DURATION or DURATION..MAX");
    check(&["--retry", "3", "--retry-on", "success"], 2, "success");
    check(&["--retry-on", "failed"], 2, "--retry");
}

#[test]
fn three_instances_run_at_the_same_time() {
    let place = Place::with_instances(&["i-1", "i-2", "i-3"]);
    let started = Instant::now();
    let done = place.run(&["run", "--on", "i-1,i-2,i-3", "echo hi from $$; sleep 1; exit 3"]);
    assert!(started.elapsed() < Duration::from_millis(2_900), "{:?}", started.elapsed());
    assert_eq!(done.code, Some(1));
    assert_eq!(done.err.matches("Failed     3").count(), 3, "{}", done.err);
    let mut lines: Vec<_> = done.out.lines().map(|line| &line[..14]).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["i-1 | hi from ", "i-2 | hi from ", "i-3 | hi from "]);
}

#[test]
fn a_whole_output_goes_to_a_folder() {
    let place = Place::new();
    let to = format!("file://{}", place.path("logs/a b").display());
    let done = place.run(&["run", "--output-to", &to, "seq 1 20000; seq 1 3 >&2"]);
    assert!(done.code == Some(0) && done.err.contains(&to), "{}", done.err);
    let id = place.newest();
    let shown = place.json(&["show", &id]);
    let result = &shown["InvocationResults"]["InvocationResult"][0];
    assert_eq!(result["OssOutputStatus"], "Finished");
    let uri = format!("{to}/{id}/{}.log", result["ExecutionId"]);
    assert_eq!(result["OssOutputUri"], uri);
    let written = fs::read_to_string(uri.trim_start_matches("file://")).expect("it is there");
    let lines = (1..=20_000).chain(1..=3).map(|n| format!("{n}\n"));
    let mut lines: Vec<_> = lines.collect();
    let mut found: Vec<_> = written.split_inclusive('\n').map(str::to_owned).collect();
    lines.sort();
    found.sort();
    assert_eq!(found, lines);
    let shown = place.ok(&["show", &id]);
    assert!(shown.contains("WHOLE OUTPUT") && shown.contains(&uri), "{shown}");

    fs::write(place.path("file"), "in the way").expect("written");
    let to = format!("file://{}", place.path("file").display());
    let done = place.run(&["run", "--output-to", &to, "true"]);
    assert_eq!(done.code, Some(1));
    for told in [done.err, place.ok(&["show", &place.newest()])] {
        assert!(
            told.contains("Success") && told.contains("the output was not delivered"),
            "{told}"
        );
    }
    let done = place.run(&["run", "--output-to", "logs", "true"]);
    assert!(done.err.contains("`file:///FOLDER`"), "{}", done.err);
}

#[test]
fn a_whole_output_is_there_whoever_runs_the_file() {
    let place = Place::new();
    let to = format!("file://{}", place.path("logs").display());
    let check = |words: &[&str]| {
        place.ok(&[&["run", "--output-to", &to], words, &["echo hi"]].concat());
        let id = place.newest();
        place.wait_until(&id, "Success");
        place.ok(&["show", "--follow", &id]);
        let shown = place.ok(&["show", &id]);
        assert!(shown.contains(&format!("{to}/{id}/")), "{words:?}: {shown}");
    };
    check(&[]);
    check(&["--detach"]);
    place.wait_until_unowned();
    let serve = place.serve(&[]);
    check(&[]);
    check(&["--detach"]);
    serve.interrupt();
}

#[test]
fn a_timeout_leaves_nothing_behind() {
    let place = Place::new();
    let done = place.run(&["run", "--timeout", "1", "sleep 100 & echo $!; sleep 100"]);
    assert_eq!(done.code, Some(1));
    assert!(!is_alive(&done.out), "{}", done.out);
}

#[test]
fn scripts_and_output_are_bytes() {
    let place = Place::new();
    place.ok(&["instances", "add", "local"]);
    let script = b"printf '\xff\xfe'; printf '\\377' >&2";
    fs::write(place.path("script"), script).expect("a file");
    let word = std::ffi::OsStr::from_bytes(script);
    let from_stdin = |words: &[&str]| {
        let mut command = place.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        child.stdin.take().expect("piped").write_all(script).expect("it reads");
        child.wait_with_output().expect("it ends")
    };
    let outputs = [
        place.command(&["run".as_ref(), word]).output().expect("it starts"),
        place.command(&["run", "-f", "script"]).output().expect("it starts"),
        from_stdin(&["run", "-"]),
        from_stdin(&["run", "--file", "-"]),
    ];
    for output in outputs {
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(output.stdout, b"\xff\xfe");
        assert!(output.stderr.starts_with(b"\xff"), "{output:?}");
    }
}

#[test]
fn all_output_is_shown_and_its_share_recorded() {
    let place = Place::new();
    let done = place.run(&["run", "yes | head -c 3000000"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(done.out.len(), 3_000_000);
    assert!(done.err.contains("2975424"), "{}", done.err);
    let kept = place.ok(&["show", "--output", &place.newest()]);
    let gap = "\n[... 2975424 bytes are not in the record ...]\n";
    assert_eq!(kept.len(), 24_576 + gap.len());
    assert!(kept.contains(gap));
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_run() {
    let place = Place::new();
    let mut command = place.command(&["run", "yes | head -c 3000000"]);
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let done = Done::new(child.wait_with_output().expect("it ends"));
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("Success"), "{}", done.err);
}

#[test]
fn a_kept_command_can_be_invoked() {
    let place = Place::with_instances(&["i-1"]);
    let created = place.ok(&["commands", "create", "--name", "greet", "echo hello"]);
    let id = created.trim();
    assert!(place.ok(&["commands", "list", "--name", "gr*"]).contains(id));
    assert!(place.ok(&["commands", "show", id]).ends_with("\n\necho hello\n"));
    assert_eq!(place.ok(&["invoke", id]), "hello\n");
    assert_eq!(place.ok(&["invoke", id, "--on", "local,i-1"]).lines().count(), 2);
    assert_eq!(place.ok(&["commands", "delete", id]), format!("deleted {id}\n"));
    assert_eq!(place.run(&["invoke", id]).code, Some(1));
    assert_eq!(place.ok(&["run", "--keep", "--name", "kept", "echo kept"]), "kept\n");
    assert!(place.ok(&["commands", "list"]).contains("echo kept"));
}

#[test]
fn the_first_interrupt_stops_the_run() {
    let place = Place::new();
    let gate = place.gate("gate");
    let run = place.start(&["run", &format!("echo started; {}", gate.wait())]);
    run.out.expect("started");
    run.signal(Signal::INT);
    run.err.expect("stopping the run; Ctrl-C again leaves at once");
    let done = run.end();
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("Terminated"), "{}", done.err);
}

/// Longer than signals count as one.
const ONE_SIGNAL: Duration = Duration::from_millis(600);

#[test]
fn signals_that_come_together_are_one() {
    let place = Place::new();
    let check = |signals: &[Signal]| {
        let gate = place.gate("gate");
        let script = format!("trap 'exit 7' TERM; echo started; {}", gate.wait());
        let run = place.start(&["run", &script]);
        run.out.expect("started");
        signals.iter().for_each(|signal| run.signal(*signal));
        let done = run.end();
        assert_eq!(done.code, Some(1), "{signals:?}: {}", done.err);
        assert!(done.err.contains(" Stopped\n"), "{signals:?}: {}", done.err);
    };
    check(&[Signal::TERM, Signal::TERM]);
    check(&[Signal::HUP, Signal::TERM]);
    check(&[Signal::INT, Signal::HUP, Signal::INT]);
}

#[test]
fn what_could_not_be_kept_is_told() {
    let place = Place::new();
    let check = |script: &str, want: &str| {
        let done = place.run(&["run", script]);
        assert!(done.err.contains(want), "{script}: {}", done.err);
        let shown = place.ok(&["show", &place.newest()]);
        assert_eq!(shown.matches(want).count(), 1, "{script}: {shown}");
    };
    check("echo '{' > $ADJUTANT_RESULT", "the result was not kept: it is no JSON");
    check("echo '{' > $ADJUTANT_RESULT; exit 3", "the result was not kept: it is no JSON");
}

#[test]
fn few_descriptors_are_an_error() {
    let place = Place::new();
    for count in 6..=14 {
        let program = place.command(&["run", "true"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {count}; exec \"$@\""), "sh"]);
        shell.args(program.get_args().skip(1)).current_dir(place.path(""));
        shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let done = Done::new(shell.output().expect("it starts"));
        assert_eq!(done.code, Some(1), "{count}: {}", done.err);
        if count >= 10 {
            let want = format!("too many open files: the limit is {count}, at least ");
            assert!(done.err.contains(&want), "{count}: {}", done.err);
            let advice = "; raise `ulimit -n` (Storage.TooManyFiles)";
            assert!(done.err.contains(advice), "{count}: {}", done.err);
        }
        if count < 9 {
            let want = "cannot start: Too many open files (os error 24); raise `ulimit -n`";
            assert!(done.err.contains(want), "{count}: {}", done.err);
        }
    }
}

#[test]
fn the_user_and_the_launcher_are_shown() {
    let place = Place::new();
    let planned = ["run", "--frequency", "rate(1d)", "--user", "nobody", "--launcher", "sh -e"];
    let id = place.ok(&[&planned[..], &["true"]].concat());
    let shown = place.ok(&["show", id.trim()]);
    for line in ["\nUser      nobody\n", "\nLauncher  sh -e\n"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}

#[test]
fn the_second_interrupt_leaves_at_once() {
    let place = Place::new();
    let gate = place.gate("gate");
    let script = format!("trap '' TERM; echo $$; while :; do {}; done", gate.wait());
    let run = place.start(&["run", &script]);
    let script_pid: i32 = run.out.expect("").trim().parse().expect("a process id");
    run.signal(Signal::INT);
    run.err.expect("stopping");
    run.err.expect_none_for(ONE_SIGNAL);
    run.signal(Signal::TERM);
    let done = run.end();
    assert_eq!(done.code, Some(130));
    // The script has ended with the program, although the script ignores the request to end; only otherwise may it go
    // on.
    let goes_on = is_alive(&script_pid.to_string());
    assert_eq!(goes_on, done.err.contains("it may go on"), "{}", done.err);
    assert!(std::fs::metadata(place.path("a.db.sock")).is_err());
    let group = Pid::from_raw(script_pid).expect("a process id");
    let _ = kill_process_group(group, Signal::KILL);
}

#[test]
fn ignored_signals_stay_ignored() {
    let place = Place::new();
    let gate = place.gate("gate");
    let script = format!("echo started; {}; echo ended", gate.wait());
    let program = place.command(&["run", &script]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP INT; exec \"$@\"", "sh"]);
    // Without what would set the signals back.
    shell.args(program.get_args().skip(1)).current_dir(place.path(""));
    shell.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let run = Running::new(shell);
    run.out.expect("started");
    run.signal(Signal::HUP);
    run.signal(Signal::INT);
    gate.open();
    let done = run.end();
    assert_eq!((done.code, done.out.as_str()), (Some(0), "ended\n"), "{}", done.err);
}

#[test]
fn what_a_run_may_use_is_on_record() {
    let place = Place::new();
    let planned = ["run", "--frequency", "rate(1d)", "--survive-restarts"];
    let limits = ["--limit", "cpu=10s,memory=256M,files=64", "--limit", "file-size=1G"];
    place.ok(&[&planned[..], &limits[..], &["true"]].concat());
    let id = place.newest();
    let record = place.json(&["show", &id]);
    let want = serde_json::json!({
        "CpuSeconds": 10, "MemoryBytes": 256 << 20, "OpenFiles": 64, "FileSizeBytes": 1 << 30,
    });
    assert_eq!((&record["ResourceLimits"], &record["SurviveRestarts"]), (&want, &true.into()));
    let shown = place.ok(&["show", &id]);
    for line in ["Limits    cpu=10s,memory=256M,files=64,file-size=1G", "Survives  restarts"] {
        assert!(shown.contains(line), "{shown}");
    }
    let check = |limit: &str, code, want: &str| {
        let done = place.run(&["run", "--limit", limit, "true"]);
        assert_eq!(done.code, Some(code), "{}", done.err);
        assert!(done.err.contains(want), "{}", done.err);
    };
    check("rss=1", 2, "want NAME=MOST, where NAME is one of cpu, memory");
    check("memory=lots", 2, "want bytes, as in 4096, 512K, 256M or 1G");
    check("files=1", 1, "want OpenFiles to be at least 16; it is 1");
}

#[test]
fn a_stop_says_what_for() {
    let place = Place::new();
    let id = place.ok(&["run", "--detach", "sleep 100"]);
    let id = id.trim();
    place.ok(&["stop", id, "--reason", "maintenance"]);
    place.wait_until(id, "Stopped");
    let result = &place.json(&["show", id])["InvocationResults"]["InvocationResult"][0];
    assert_eq!(
        (&result["StopCause"], &result["StopReason"]),
        (&"Stopped".into(), &"maintenance".into())
    );
    let shown = place.ok(&["show", id]);
    assert!(shown.contains("Stopped by ") && shown.contains(": maintenance"), "{shown}");
    let long = place.run(&["stop", id, "--reason", &"r".repeat(256)]);
    assert_eq!(long.code, Some(1));
    assert!(long.err.contains("want at most 255 characters"), "{}", long.err);
}

#[test]
fn instances_have_shells_and_bounds() {
    let place = Place::new();
    place.ok(&["instances", "add", "i-1", "--shell", "bash", "--max-concurrency", "2"]);
    let listed = place.ok(&["instances", "list"]);
    assert!(listed.contains("SHELL  AT A TIME") && listed.contains("bash           2"), "{listed}");
    for shell in [" bash", "bash -x"] {
        let done = place.run(&["instances", "add", "i-1", "--shell", shell]);
        assert_eq!(done.code, Some(1));
        assert!(done.err.contains("none white space"), "{}", done.err);
    }
}

#[test]
fn a_run_does_not_choose_where_its_output_goes() {
    let place = Place::new();
    for folder in ["logs", "elsewhere"] {
        fs::create_dir(place.path(folder)).expect("a folder");
    }
    let to = format!("file://{}", place.path("logs").display());
    let check = |plant: &str| {
        let script = format!("cd '{}'; {plant}; echo text", place.path("logs").display());
        let done = place.run(&["run", "--output-to", &to, &script]);
        assert_eq!(done.code, Some(1), "{plant}: {}", done.err);
        assert!(done.err.contains("the output was not delivered"), "{plant}: {}", done.err);
        let written = fs::read_dir(place.path("elsewhere")).expect("readable").count();
        assert_eq!(written, 0, "{plant}");
    };
    check(r#"ln -s ../elsewhere "$ADJUTANT_INVOKE_ID""#);
    check(r#"mkdir -m 777 "$ADJUTANT_INVOKE_ID""#);
    check(r#"ln -s ../elsewhere/new "$ADJUTANT_INVOKE_ID""#);
    check(r#"touch "$ADJUTANT_INVOKE_ID""#);
    assert_eq!(place.run(&["run", "--output-to", &to, "echo text"]).code, Some(0));
}

#[test]
fn a_run_is_named_by_the_beginning_of_its_id_or_its_name() {
    Place::with_and_without_owner(&["local"], |place, _| {
        place.run(&["run", "--name", "nightly", "exit 3"]);
        let first = place.newest();
        let record = place.ok(&["show", &first]);
        for called in [&first[..14], &first[..30], "nightly"] {
            assert_eq!(place.ok(&["show", called]), record, "{called}");
            assert!(place.ok(&["stop", called]).contains(&format!("{first} had already ended")));
            place.run(&["run", "--name", "other", "true"]);
        }
        assert_eq!(place.run(&["retry", "nightly"]).code, Some(1));
        assert!(place.ok(&["show", "nightly"]).contains(&format!("Retry of  {first}")));
        let unknown = place.run(&["show", "t-ffffff"]);
        assert!(unknown.err.contains("there is no run `t-ffffff`"), "{}", unknown.err);
        let several = place.run(&["show", "t-"]);
        assert!(several.err.contains("`t-` names more than one run: t-"), "{}", several.err);
        let id = place.ok(&["run", "--name", "nightly", "--frequency", "rate(5h)", "true"]);
        assert_eq!(place.ok(&["pause", "nightly"]), format!("paused {id}"));
        assert_eq!(place.ok(&["resume", "nightly"]), format!("resumed {id}"));
        place.ok(&["run-now", "nightly"]);
        place.ok(&["explain", "nightly", "2030-01-31T08:00:00Z"]);
        place.ok(&["stop", "nightly"]);
        let command = place.ok(&["commands", "create", "--name", "backup", "echo saved"]);
        for called in ["backup", &command[..14]] {
            assert_eq!(place.ok(&["invoke", called]), "saved\n");
            assert!(place.ok(&["commands", "show", called]).contains("echo saved"));
        }
        assert_eq!(place.ok(&["commands", "delete", "backup"]), format!("deleted {command}"));
    });
}

#[test]
fn a_list_tells_how_schedules_fired_last() {
    let place = Place::new();
    let serve = place.serve(&[]);
    for (name, script) in [("good", "true"), ("bad", "exit 3")] {
        place.ok(&["run", "--name", name, "--frequency", "rate(5h)", script]);
        place.ok(&["run-now", name]);
        serve.out.expect(&format!(
            "{name}  local  {}",
            if name == "bad" { "Failed 3" } else { "Success" }
        ));
    }
    place.run(&["run", "--name", "once", "exit 4"]);
    let lines = |words: &[&str]| -> Vec<String> {
        place.ok(words).lines().skip(1).map(str::to_owned).collect()
    };
    let all = lines(&["ps"]);
    assert!(all[2].contains("Success, ") && all[2].ends_with("good"), "{all:#?}");
    assert!(all[1].contains("Failed, ") && all[1].ends_with("bad"), "{all:#?}");
    let failed = lines(&["ps", "--failed"]);
    assert_eq!(failed.len(), 2, "{failed:#?}");
    assert!(failed[0].ends_with("once") && failed[1].ends_with("bad"), "{failed:#?}");
    assert!(place.ok(&["show", "bad"]).contains("Failed"));
    serve.interrupt();
}

#[test]
fn a_script_with_wrong_line_ends_or_encoding_is_named_whichever_way_it_came() {
    let place = Place::new();
    let wide: Vec<u8> = "\u{feff}echo 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let scripts: [(&[u8], &str); 4] = [
        (b"cd /tmp\r\necho 1\r\n", "Windows line ends"),
        (b"#!/usr/bin/env sh\r\necho 1\r\n", "Windows line ends"),
        (b"\xef\xbb\xbfecho 1\n", "byte order mark"),
        (&wide, "UTF-16"),
    ];
    for (script, want) in scripts {
        let file = place.path("script");
        std::fs::write(&file, script).expect("written");
        let path = file.to_str().expect("text");
        let from_file = place.run(&["run", "-f", path]);
        let stored = place.ok(&[
            "commands",
            "create",
            "--name",
            want.replace(' ', "-").as_str(),
            "-f",
            path,
        ]);
        let invoked = place.run(&["invoke", stored.trim()]);
        place.ok(&["commands", "delete", stored.trim()]);
        for done in [from_file, invoked] {
            assert_ne!(done.code, Some(0), "{}", done.out);
            assert!(
                (done.out.clone() + &done.err).contains(want),
                "{want}: {}{}",
                done.out,
                done.err
            );
        }
        if let Ok(text) = std::str::from_utf8(script) {
            let done = place.run(&["run", text]);
            assert!(
                (done.out.clone() + &done.err).contains(want),
                "{want}: {}{}",
                done.out,
                done.err
            );
        }
    }
}

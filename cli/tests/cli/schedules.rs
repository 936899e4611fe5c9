//! Runs on schedules, and the process that fires them.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Place, Running};
use crate::tzif;

const MINUTELY: &[&str] = &["run", "--timeout", "5", "--frequency", "rate(60s)", "echo hi"];

#[test]
fn a_run_on_a_schedule_is_stored_and_not_waited_for() {
    let place = Place::new();
    let done = place.run(MINUTELY);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("fires next at 2"), "{}", done.err);
    assert!(done.err.contains("`adjutant serve`"), "{}", done.err);
    let id = done.out.trim();
    let shown = place.ok(&["show", id]);
    assert!(shown.contains("Status    Scheduled\n"), "{shown}");
    assert!(shown.contains("Frequency rate(60s)\n"), "{shown}");
    // Somebody else's schedule is nothing to wait for.
    assert_eq!(place.ok(&["run", "echo once"]), "once\n");
    place.ok(&["stop", id, "--reason", "enough is enough"]);
    let shown = place.ok(&["show", id]);
    assert!(shown.contains("Status    S") && shown.contains("Z by "), "{shown}");
    assert!(shown.contains(": enough is enough\n"), "{shown}");
}

#[test]
fn a_schedule_is_planned_again_when_the_zone_files_of_the_system_become_newer() {
    let place = Place::new();
    let zones = place.path("zones");
    tzif::write(&zones, "2000a", &[]);
    let with_zones = |words: &[&str]| {
        let output = place.command(words).env("TZDIR", &zones).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let id = with_zones(&["run", "--frequency", "0 0 12 15 1 ? America/Vancouver", "true"]);
    let next = || with_zones(&["show", id.trim()]);
    assert!(next().contains("-01-15 20:00:00Z"), "{}", next());
    tzif::write(&zones, "9026b", &[("America/Vancouver", &tzif::vancouver())]);
    // A look changes nothing; whoever runs the file plans again.
    with_zones(&["run", "true"]);
    assert!(next().contains("-01-15 19:00:00Z"), "{}", next());
    // The same release, with other files.
    tzif::write(&zones, "9026b", &[("America/Vancouver", b"broken")]);
    with_zones(&["run", "true"]);
    assert!(next().contains("-01-15 20:00:00Z"), "{}", next());
    with_zones(&["stop", id.trim()]);
}

#[test]
fn a_machine_whose_clock_has_no_zone_takes_schedules_with_one_only() {
    let place = Place::new();
    let run = |frequency: &str, tz: &str| {
        let words = ["run", "--dry-run", "--frequency", frequency, "true"];
        let output = place.command(&words).env("TZ", tz).output().expect("it starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    for tz in ["EST5EDT,M3.2.0,M11.1.0", "America/NewYork"] {
        let (code, errors) = run("0 0 12 * * ?", tz);
        assert_eq!(code, Some(1), "{errors}");
        assert!(
            errors.contains(tz) && errors.contains("`0 30 2 * * ? America/New_York`"),
            "{errors}"
        );
        for frequency in ["rate(5m)", "0 0 12 * * ? UTC"] {
            assert_eq!(run(frequency, tz).0, Some(0), "{tz}: {frequency}");
        }
    }
    assert_eq!(run("0 0 12 * * ?", "America/New_York").0, Some(0));
}

#[test]
fn run_reads_crontab_lines_and_says_so() {
    let place = Place::new();
    let done = place.run(&["run", "--timeout", "5", "--frequency", "*/5\t*\t*\t*\t*", "true"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let note = "adjutant: `*/5 * * * *` is a crontab line; it is read as `0 */5 * * * *`\n";
    assert!(done.err.contains(note), "{}", done.err);
    let shown = place.ok(&["show", done.out.trim()]);
    assert!(shown.contains("Frequency 0 */5 * * * *\n"), "{shown}");
    let done = place.run(&["run", "--frequency", "*/5 * * * * /bin/x", "true"]);
    assert!(done.code != Some(0) && done.err.contains("crontab line"), "{}", done.err);
}

#[test]
fn a_stored_command_runs_on_a_schedule_too() {
    let place = Place::new();
    let command = place.ok(&["commands", "create", "--name", "n", "true"]);
    let words = ["invoke", command.trim(), "--frequency", "rate(5m)", "--overlap", "allow"];
    let answer = place.json(&[&words[..], &["--missed", "all:3"]].concat());
    let id = answer["InvokeId"].as_str().expect("an id");
    let shown = place.json(&["show", id]);
    assert_eq!(shown["RepeatMode"], "Period", "{shown}");
    assert!(shown["Fires"]["Fire"].is_array(), "{shown}");
}

#[test]
fn serve_runs_what_others_ask_for_until_it_is_told_to_end() {
    let place = Place::new();
    let serve = place.serve(&[]);
    let done = place.run(MINUTELY);
    assert!(
        done.err.ends_with("Z, if what runs the database now still does then\n"),
        "{}",
        done.err
    );
    assert_eq!(place.ok(&["run", "echo hi"]), "hi\n");
    assert!(serve.out.expect("Success").contains("  local  Success"));
    serve.interrupt();
    assert!(fs::metadata(place.path("a.db.sock")).is_err());
    assert!(place.ok(&["ps"]).contains("Scheduled"));
}

#[test]
fn serve_fires_and_show_tells() {
    let place = Place::new();
    let words = ["run", "--timeout", "5", "--frequency", "*/10 * * * * ?", "echo hi"];
    let id = place.ok(&words);
    let id = id.trim();
    let serve = place.serve(&[]);
    let fired = serve.out.expect("fired");
    assert!(fired.ends_with(&format!("0Z  {}  fired\n", &id[..14])), "{fired}");
    assert!(serve.out.expect("Success").contains(&id[..14]));
    let shown = place.ok(&["show", id, "--history"]);
    assert!(shown.contains("STARTED") && shown.contains("Success"), "{shown}");
    assert!(shown.lines().last().is_some_and(|line| line.contains("  1  Started")), "{shown}");
    serve.signal(Signal::TERM);
    assert_eq!(serve.end().code, Some(0));
}

#[test]
fn serve_tells_machines_what_others_do() {
    let place = Place::new();
    let serve = place.serve(&["--json"]);
    place.ok(&["run", "exit 0"]);
    let id = place.newest();
    let mut told = Vec::new();
    while told.last().is_none_or(|notice: &Value| notice["Notice"] != "Finished") {
        told.push(serve.out.expect_json());
    }
    assert!(told.iter().all(|notice| notice["InvokeId"] == id.as_str()), "{told:?}");
    let statuses: Vec<_> = told.iter().map(|notice| &notice["Status"]).collect();
    assert_eq!(statuses, ["Running", "Success", "Success"]);
    assert_eq!(told[1]["InstanceId"], "local");
    assert!(told[1]["At"].is_string() && told[1]["ExecutionId"].is_u64(), "{told:?}");
    let id = place.ok(MINUTELY);
    place.ok(&["run-now", id.trim()]);
    let fired = serve.out.expect_json();
    assert_eq!(
        (&fired["Notice"], &fired["Fire"]["Disposition"]),
        (&json!("Fire"), &json!("Started"))
    );
    serve.interrupt();
}

#[test]
fn serve_waits_for_an_owner_that_is_about_to_leave() {
    let place = Place::new();
    let gate = place.gate("gate");
    let run = place.start(&["run", &format!("echo started; {}", gate.wait())]);
    run.out.expect("started");
    let serve = place.start(&["serve"]);
    gate.open();
    serve.err.expect("serving ");
    assert_eq!(run.end().code, Some(0));
    serve.interrupt();
}

#[test]
fn reading_makes_no_database() {
    let place = Place::new();
    for words in [&["ps"][..], &["instances", "list"], &["commands", "list"]] {
        let done = place.run(words);
        assert_eq!((done.code, done.out.lines().count()), (Some(0), 1), "{words:?}: {}", done.out);
        let want = format!("adjutant: there is no database at {} yet\n", place.db().display());
        assert_eq!(done.err, want, "{words:?}");
    }
    let done = place.run(&["show", "t-00000000000000000000000000000000"]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("(InvalidInvokeId.NotFound)"), "{}", done.err);
    assert_eq!(fs::read_dir(place.path("")).expect("the folder").count(), 0);
}

#[test]
fn an_owner_tells_as_exactly_as_the_file_how_long_a_run_took() {
    let place = Place::new();
    place.ok(&["run", "true"]);
    let took = |listed: String| {
        let line = listed.lines().find(|line| line.contains("Success")).map(str::to_owned);
        let line = line.expect("the run");
        line.split("  ").filter(|cell| !cell.trim().is_empty()).nth(4).map(str::to_owned)
    };
    let of_file = took(place.ok(&["ps"]));
    let serve = place.serve(&[]);
    assert_eq!(took(place.ok(&["ps"])), of_file);
    serve.interrupt();
}

#[test]
fn a_schedule_whose_zone_file_is_gone_is_named_and_the_others_go_on() {
    let place = Place::new();
    let zones = place.path("zones");
    let file = tzif::zone_file(&[(3_600, false, "MTC")], &[], "MTC-1");
    let names = ["Mars/Elysium", "Mars/Olympus"];
    tzif::write(&zones, "2000a", &names.map(|name| (name, &*file)));
    let command = |words: &[&str]| {
        let mut command = place.command(words);
        command.env("TZDIR", &zones);
        command
    };
    let schedule = |zone: &str| {
        let frequency = format!("* * * * * ? {zone}");
        let words = ["run", "--frequency", &frequency, "--times", "2", "true"];
        let output = command(&words).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("an id").trim().to_owned()
    };
    let waiting = names.map(schedule);
    let other = schedule("UTC");
    fs::remove_dir_all(zones.join("Mars")).expect("removed");
    let serve = Running::new(command(&["serve"]));
    let mut told = [0, 1].map(|_| serve.err.expect("timers that are due cannot be fired"));
    told.sort_by_key(|line| line.contains(names[1]));
    for ((line, zone), id) in told.iter().zip(names).zip(&waiting) {
        let says = format!("zone {zone} has no sound file here");
        assert!(line.contains(&says) && line.contains(id.as_str()), "{line}");
    }
    place.wait_until(&other, "Success");
    for id in &waiting {
        let shown = place.ok(&["show", id]);
        assert!(shown.contains("Status    Scheduled\n"), "{shown}");
    }
    serve.interrupt();
}

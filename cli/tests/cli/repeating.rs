//! Runs that repeat: what is stored of them, and what can be done with them.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::Place;

/// Stores a run for later; its id.
fn stored(place: &Place, words: &[&str]) -> String {
    place.ok(&[&["run"], words].concat()).trim().to_owned()
}

#[test]
fn what_repeats_a_run_is_in_its_record() {
    let place = Place::new();
    let check = |options: &[&str], fields: Value, lines: &[&str]| {
        let id = stored(&place, &[options, &["true"]].concat());
        let record = place.json(&["show", &id]);
        for (name, value) in fields.as_object().expect("fields") {
            assert_eq!(&record[name], value, "{options:?}: {name}");
        }
        let shown = place.ok(&["show", &id]);
        let told: Vec<_> = shown.lines().filter(|line| is_about_repeating(line)).collect();
        assert_eq!(told, lines, "{options:?}");
    };
    let rate = ["--frequency", "at(2090-01-31 08:00:00 UTC)"];
    let next = "Next      2090-01-31 08:00:00Z";
    let on_schedule = |options: &[&str], fields: Value, line: &str| {
        check(&[&rate, options].concat(), fields, &[line, next]);
    };
    check(&rate, json!({"RepeatMode": "Period", "NextFireTime": "2090-01-31T08:00:00Z"}), &[next]);
    on_schedule(&["--overlap", "queue"], json!({"OverlapPolicy": "Queue"}), "Overlap   queue");
    on_schedule(&["--overlap", "allow"], json!({"OverlapPolicy": "Allow"}), "Overlap   allow");
    on_schedule(
        &["--overlap", "replace"],
        json!({"OverlapPolicy": "Replace"}),
        "Overlap   replace",
    );
    on_schedule(&["--missed", "latest"], json!({"MissedPolicy": "Latest"}), "Missed    latest");
    on_schedule(&["--missed", "all:3"], json!({"MissedPolicy": "All:3"}), "Missed    all:3");
    on_schedule(&["--spread", "30"], json!({"Spread": 30}), "Spread    30 s");
    on_schedule(&["--times", "2"], json!({"MaxFires": 2}), "Times     2");
    on_schedule(
        &["--until", "2090-02-01T00:00:00+08:00"],
        json!({"EndTime": "2090-01-31T16:00:00Z"}),
        "Until     2090-01-31 16:00:00Z",
    );
    check(
        &["--on-reboot", "next"],
        json!({"RepeatMode": "NextRebootOnly", "NextFireTime": ""}),
        &["Repeats   at the next reboot"],
    );
    check(
        &["--on-reboot", "every", "--overlap", "queue"],
        json!({"RepeatMode": "EveryReboot", "OverlapPolicy": "Queue"}),
        &["Repeats   at every reboot", "Overlap   queue"],
    );
}

/// Whether a line of `show` is about what repeats a run, apart from its frequency.
fn is_about_repeating(line: &str) -> bool {
    const NAMES: [&str; 8] =
        ["Repeats", "Overlap", "Missed", "Spread", "Until", "Times", "Paused", "Next"];
    NAMES.iter().any(|name| line.split(' ').next() == Some(name))
}

#[test]
fn a_paused_run_is_marked_until_it_is_resumed() {
    Place::with_and_without_owner(&["local"], |place, _| {
        let id = stored(place, &["--frequency", "at(2090-01-31 08:00:00 UTC)", "true"]);
        assert!(place.ok(&["ps"]).lines().next().is_some_and(|line| line.contains("NEXT")));
        for _ in 0..2 {
            assert_eq!(place.ok(&["pause", &id]), format!("paused {id}\n"));
        }
        let listed = place.ok(&["ps"]);
        assert!(listed.contains("  Scheduled (paused)  "), "{listed}");
        assert!(!listed.contains("NEXT"), "{listed}");
        assert!(place.ok(&["show", &id]).contains("\nPaused    2"));
        let explained = place.ok(&["explain", &id, "2090-01-31T08:00:00Z"]);
        assert!(explained.starts_with("It pauses since 2"), "{explained}");
        for _ in 0..2 {
            assert_eq!(place.json(&["resume", &id]), json!({"InvokeId": id}));
        }
        assert_eq!(place.ok(&["resume", &id]), format!("resumed {id}\n"));
        assert!(!place.ok(&["ps"]).contains("paused"));
        place.ok(&["pause", &id]);
        place.ok(&["stop", &id]);
        assert!(!place.ok(&["show", &id]).to_lowercase().contains("paused"));
    });
}

#[test]
fn run_now_says_what_became_of_it() {
    Place::with_and_without_owner(&["local"], |place, serve| {
        let gate = place.gate("gate");
        let options = ["--frequency", "rate(1h)", "--timeout", "50"];
        let id = stored(place, &[&options[..], &[&gate.wait()]].concat());
        place.ok(&["pause", &id]);
        assert_eq!(place.ok(&["run-now", &id]), "started\n");
        let why = "the execution before it had not ended";
        assert_eq!(place.ok(&["run-now", &id]), format!("skipped: {why}\n"));
        let fire = place.json(&["run-now", &id]);
        assert_eq!((&fire["Disposition"], &fire["Reason"]), (&json!("Skipped"), &json!(why)));
        if let Some(serve) = serve {
            serve.out.expect("  fired: asked for beside the schedule\n");
            serve.out.expect(&format!("  {}  skipped: {why}\n", &id[..14]));
        }
        gate.open();
        place.wait_until(&id, "Scheduled");
        if serve.is_none() {
            place.wait_until_unowned();
        }
        let shown = place.ok(&["show", &id, "--history"]);
        assert!(shown.contains("local     Success"), "{shown}");
        assert!(shown.contains("  Started  Success  asked for beside the schedule\n"), "{shown}");
    });
}

#[test]
fn what_runs_is_followed_though_a_later_fire_was_skipped() {
    let place = Place::new();
    let serve = place.serve(&[]);
    let gate = place.gate("gate");
    let script = format!("echo started; {}; echo passed", gate.wait());
    let id = stored(&place, &["--frequency", "rate(1h)", &script]);
    for _ in 0..2 {
        place.ok(&["run-now", &id]);
    }
    let follow = place.start(&["show", "--follow", &id]);
    follow.out.expect("started");
    gate.open();
    follow.out.expect("passed");
    follow.signal(Signal::INT);
    assert_eq!(follow.end().code, Some(1));
    serve.interrupt();
}

#[test]
fn an_instant_is_explained() {
    Place::with_and_without_owner(&["local"], |place, _| {
        let id = stored(place, &["--frequency", "at(2090-01-31 08:00:00 UTC)", "true"]);
        let check = |time, want: &str| assert_eq!(place.ok(&["explain", &id, time]), want);
        let planned = "It is planned for 2090-01-31T08:00:00Z.\n";
        check("2090-01-31T08:00:00Z", planned);
        check("2090-01-31T16:00:00.5+08:00", planned);
        let not_then = |time| {
            format!("{time} is no nominal time of `at(2090-01-31 08:00:00 UTC)`, UTC time.\n")
        };
        let before = "2090-01-31T07:59:59Z";
        check(before, &format!("{}after     2090-01-31 08:00:00Z\n", not_then(before)));
        let after = "2090-01-31T08:00:01Z";
        check(after, &not_then(after));
        let entry = place.json(&["explain", &id, before])["Entries"][0].take();
        assert_eq!(entry["After"], "2090-01-31T08:00:00Z", "{entry}");
    });
}

#[test]
fn a_run_waits_for_the_next_boot_of_its_instance() {
    Place::with_and_without_owner(&["r1"], |place, _| {
        let done = place.run(&["run", "--on", "r1", "--on-reboot", "next", "echo up"]);
        let later =
            "adjutant: runs at the next reboot of each instance, if `adjutant serve` runs then\n";
        assert_eq!(done.err, later);
        let id = done.out.trim();
        place.wait_until(id, "Scheduled");
        place.ok(&["stop", id]);
        place.wait_until(id, "Stopped");
    });
}

#[test]
fn what_runs_once_does_not_repeat() {
    Place::with_and_without_owner(&["local"], |place, _| {
        place.ok(&["run", "true"]);
        let id = place.newest();
        for verb in ["pause", "resume", "run-now"] {
            let done = place.run(&[verb, &id]);
            assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{verb}");
            let want = format!(
                "adjutant: InvokeId: `{id}` runs once; want one that repeats (InvalidStatus.NotRepeating)\n"
            );
            assert_eq!(done.err, want, "{verb}");
        }
    });
}

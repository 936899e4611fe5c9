//! `load`: measured on a database that is gone afterwards.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::Place;

/// What is left in the folder of the test.
fn left(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.path(".")).expect("the folder of the test");
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn it_tells_people_what_it_measured_and_leaves_nothing() {
    let place = Place::new();
    let told = place.ok(&["load", "--invocations", "20", "--instances", "3", "--concurrency", "5"]);
    let check = |words: &str| assert!(told.contains(words), "{words}: {told}");
    check("20 invocations on 3 instances, noop, 5 at a time, 20 submitters: ");
    for line in [
        "executions/s ",
        "invocations/s ",
        "submit ",
        "queue ",
        "end to end ",
        "commits ",
        "database ",
        "memory ",
        "CPU time ",
    ] {
        assert_eq!(told.lines().filter(|one| one.starts_with(line)).count(), 1, "{line}: {told}");
    }
    assert_eq!(left(&place), [""; 0]);
}

#[test]
fn every_executor_and_size_has_its_figures() {
    let check = |words: &[&str], executions: u64, samples: u64| {
        let place = Place::new();
        let told = place.json(&[&["load"], words].concat());
        let positive = |field: &Value| field.as_f64().is_some_and(|number| number > 0.0);
        assert_eq!(
            (&told["executions"], &told["failed"]),
            (&executions.into(), &0.into()),
            "{told}"
        );
        for rate in [
            "seconds",
            "executions_per_second",
            "invocations_per_second",
            "commits",
            "writes_per_commit",
            "peak_rss_bytes",
        ] {
            assert!(positive(&told[rate]), "{rate}: {told}");
        }
        for bytes in ["database_bytes_per_execution", "cpu_seconds"] {
            assert!(told[bytes].is_number(), "{bytes}: {told}");
        }
        for times in ["submit_ms", "queue_ms", "end_to_end_ms"] {
            let [p50, p99, max] =
                ["p50", "p99", "max"].map(|rank| told[times][rank].as_f64().expect("a number"));
            assert!(p50 <= p99 && p99 <= max, "{times}: {told}");
        }
        assert!(positive(&told["end_to_end_ms"]["max"]), "{told}");
        assert_eq!(told["end_to_end_ms"]["samples"], samples, "{told}");
        assert_eq!(left(&place), [""; 0]);
    };
    check(&["--invocations", "1"], 1, 1);
    check(&["--invocations", "7", "--submitters", "1", "--concurrency", "1"], 7, 7);
    check(&["--invocations", "2", "--instances", "101"], 202, 2);
    check(&["--invocations", "1001"], 1_001, 501);
    check(&["--invocations", "3", "--executor", "sleep:1"], 3, 3);
    check(&["--invocations", "3", "--executor", "sh"], 3, 3);
}

#[test]
fn it_works_beside_the_database_that_is_named() {
    let place = Place::new();
    let refused = place.run(&["--db", "missing/a.db", "load", "--invocations", "1"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.err.contains("cannot make a folder in ") && refused.err.contains("/missing: "),
        "{}",
        refused.err
    );
}

#[test]
fn an_interrupted_one_leaves_nothing() {
    // How far it has come: its folder, then files of an engine that is being opened.
    for (signal, reached) in [Signal::INT, Signal::TERM, Signal::HUP]
        .into_iter()
        .flat_map(|signal| ["", "load.db", "load.db-wal", "load.db-shm"].map(|file| (signal, file)))
    {
        let place = Place::new();
        let load = place.start(&["load", "--invocations", "1", "--executor", "sleep:60000"]);
        while !left(&place).iter().any(|folder| place.path(folder).join(reached).exists()) {
            std::thread::yield_now();
        }
        load.signal(signal);
        let done = load.end();
        assert_eq!(done.code, Some(130), "{reached}: {}", done.err);
        assert_eq!(
            (done.err.as_str(), done.out.as_str()),
            ("adjutant: interrupted; nothing of it is kept\n", ""),
            "{reached}"
        );
        assert_eq!(left(&place), [""; 0], "{reached}");
    }
}

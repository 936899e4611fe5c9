//! `adjutant next` as it is called.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::tzif;

/// Runs `adjutant next` and gives its exit code, output and errors.
fn next(args: &[&str], input: impl AsRef<[u8]>) -> (i32, String, String) {
    next_in::<&str, &str>(&[], args, input)
}

/// As [`next`], in an environment.
fn next_in<K: AsRef<OsStr>, V: AsRef<OsStr>>(
    environment: &[(K, V)],
    args: &[&str],
    input: impl AsRef<[u8]>,
) -> (i32, String, String) {
    let variables = environment.iter().map(|(name, value)| (name.as_ref(), value.as_ref()));
    let mut child = Command::new(env!("CARGO_BIN_EXE_adjutant"))
        .arg("next")
        .args(args)
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_ref()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn for_people() {
    let zone = ["--zone", "America/New_York", "--from", "2024-03-09T00:00:00Z", "--count", "3"];
    let (code, output, _) = next(&[&["0 30 2 * * ?"], &zone[..]].concat(), "");
    let expected = "\
Fires at 02:30 every day, the instance's own time (America/New_York).
Sat 2024-03-09 02:30:00 -05:00 EST       2024-03-09T07:30:00Z  in 7 h 30 min
Sun 2024-03-10 03:00:00 -04:00 EDT       2024-03-10T07:00:00Z  in 1 d 7 h, as the clock skips its time
Mon 2024-03-11 02:30:00 -04:00 EDT       2024-03-11T06:30:00Z  in 2 d 6 h
";
    let (output, data) = output.split_once("Zone data: ").expect("it says which data it used");
    assert_eq!((code, output), (0, expected));
    assert!(data.contains("built in") || data.contains("from /"), "{data}");

    let once = ["at(2030-01-01 08:00:00 GMT+8:00)", "--from", "2029-12-31T23:59:59Z"];
    let (code, output, _) = next(&once, "");
    let expected = "\
Fires once, at 2030-01-01 08:00:00, GMT+8:00 time.
Tue 2030-01-01 08:00:00 +08:00 GMT+8:00  2030-01-01T00:00:00Z  in 1 s
Then never again.
";
    assert_eq!((code, output.as_str()), (0, expected));
}

#[test]
fn for_machines() {
    let from = ["--from", "2022-01-01T00:00:00Z", "--count", "2", "--json"];
    let cases = [
        (
            "0 15 10 ? * * 2022 Asia/Shanghai",
            r#"{"next":["2022-01-01T10:15:00+08:00","2022-01-02T10:15:00+08:00"],"finished":false}"#,
        ),
        ("at(2022-06-06 13:15:30)", r#"{"next":["2022-06-06T13:15:30Z"],"finished":true}"#),
        ("0 0 0 1 1 ? 2021", r#"{"next":[],"finished":true}"#),
    ];
    for (expr, expected) in cases {
        let (code, output, _) = next(&[&[expr], &from[..]].concat(), "");
        assert_eq!((code, output.trim_end()), (0, expected));
    }
    let rate = ["rate(5m)", "--created", "2022-01-01T00:02:00.5Z", "--zone", "UTC"];
    let (_, output, _) = next(&[&rate[..], &from[..]].concat(), "");
    let expected =
        r#"{"next":["2022-01-01T00:07:00.500Z","2022-01-01T00:12:00.500Z"],"finished":false}"#;
    assert_eq!(output.trim_end(), expected);
}

#[test]
fn refusals() {
    let (code, output, errors) = next(&["0 0 8 * * ? GMT+08:00"], "");
    assert_eq!((code, output.as_str()), (2, ""));
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("at byte 12") && errors.contains("`GMT+8:00`"), "{errors}");

    let (code, output, _) = next(&["30 2 * * 1-5 /bin/x", "--json"], "");
    assert_eq!(code, 2);
    assert!(output.starts_with(r#"{"error":{"code":"InvalidParam.Frequency","message":"#));
    assert!(output.contains(r#""offset":13,"suggestion":"0 30 2 * * 1-5""#), "{output}");

    for args in [&["* * * * * ?", "--count", "0"][..], &["* * * * * ?", "--zone", "EST"], &[]] {
        let (code, _, errors) = next(args, "");
        assert_eq!(code, 2, "{args:?}");
        assert!(!errors.is_empty());
    }
}

#[test]
fn schedules_in_the_language_of_other_programs_are_read_and_said_so() {
    let check = |text: &str, note: &str, first: &str| {
        let args =
            [text, "--zone", "Europe/Berlin", "--from", "2026-12-15T00:00:00Z", "--count", "1"];
        let (code, output, errors) = next(&args, "");
        assert_eq!(code, 0, "{text}: {errors}");
        assert_eq!(errors.trim_end(), format!("adjutant: {note}"));
        assert!(output.contains(first), "{text}: {output}");
    };
    check(
        "*/5 * * * *",
        "`*/5 * * * *` is a crontab line; it is read as `0 */5 * * * *`",
        "01:05:00 +01:00 CET",
    );
    check(
        "17\t*\t*\t*\t*",
        "`17 * * * *` is a crontab line; it is read as `0 17 * * * *`",
        "01:17:00 ",
    );
    check("@daily", "`@daily` is a crontab line; it is read as `0 0 0 * * ?`", "00:00:00 +01:00");
    check(
        "cron(0 16 * * ? *)",
        "`cron(0 16 * * ? *)` is an expression of AWS; it is read as `0 0 16 * * ? UTC`",
        "16:00:00 +00:00",
    );
    // Batches are read as requests are.
    let (_, output, _) = next(&["--batch"], r#"{"expr":"*/5 * * * *","zone":"UTC"}"#);
    assert!(output.contains(r#""suggestion":"0 */5 * * * *""#), "{output}");
}

#[test]
fn intervals_that_run_refuses_are_refused() {
    for text in ["rate(8d)", "rate(1000d)"] {
        let (code, output, errors) = next(&[text], "");
        assert_eq!((code, output.as_str()), (2, ""), "{text}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains("604800 s"), "{errors}");
        let (code, output, _) = next(&[text, "--json"], "");
        assert!(code == 2 && output.contains("InvalidParam.Frequency"), "{output}");
        let line = format!(r#"{{"expr":"{text}","zone":"UTC"}}"#);
        let (code, output, _) = next(&["--batch"], line);
        assert!(code == 0 && output.starts_with(r#"{"error":"#), "{output}");
        assert!(output.contains("InvalidParam.Frequency"), "{output}");
    }
    let (code, _, _) = next(&["rate(7d)"], "");
    assert_eq!(code, 0);
}

/// What `next` answers about noon, with the zone data of a folder.
fn noon(folder: &Path, zone: &str) -> (String, String) {
    let text = format!("0 0 12 * * ? {zone}");
    let args = [text.as_str(), "--from", "2026-12-15T00:00:00Z", "--count", "1"];
    let (code, output, errors) = next_in(&[("TZDIR", folder)], &args, "");
    assert_eq!(code, 0, "{errors}");
    (output, errors)
}

#[test]
fn newer_zone_files_of_the_system_decide_what_time_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8]); 2] =
        [("America/Vancouver", &tzif::vancouver()), ("Europe/Berlin", b"broken")];
    tzif::write(folder.path(), "9026b", &files);
    let (output, errors) = noon(folder.path(), "America/Vancouver");
    assert!(output.contains("12:00:00 -07:00 MST       2026-12-15T19:00:00Z"), "{output}");
    assert!(
        output.contains(&format!("Zone data: 9026b, from {}", folder.path().display())),
        "{output}"
    );
    assert_eq!(errors, "");

    let (output, errors) = noon(folder.path(), "Europe/Berlin");
    assert!(output.contains("2026-12-15T11:00:00Z"), "{output}");
    assert!(errors.contains("Europe/Berlin") && errors.contains("built-in"), "{errors}");
    let (output, errors) = noon(folder.path(), "Asia/Tokyo");
    assert!(output.contains("2026-12-15T03:00:00Z"), "{output}");
    assert!(errors.contains("Asia/Tokyo is missing"), "{errors}");

    tzif::write(folder.path(), "2000a", &files);
    let (output, errors) = noon(folder.path(), "Europe/Berlin");
    assert!(output.contains("built in") && errors.is_empty(), "{output}{errors}");

    let version = Command::new(env!("CARGO_BIN_EXE_adjutant"))
        .arg("--version")
        .env("TZDIR", folder.path())
        .output()
        .unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    assert!(version.contains("\nzone data 20") && version.contains("built in"), "{version}");
}

#[test]
fn a_schedule_without_a_zone_follows_tz() {
    let check = |tz: &str, zone: &str, row: &str| {
        let args = ["0 0 12 * * ?", "--from", "2026-12-15T00:00:00Z", "--count", "1"];
        let (code, output, errors) = next_in(&[("TZ", tz)], &args, "");
        assert_eq!(code, 0, "{tz}: {errors}");
        assert!(output.contains(&format!("own time ({zone}).")), "{tz}: {output}");
        assert!(output.contains(row), "{tz}: {output}");
    };
    check("America/New_York", "America/New_York", "12:00:00 -05:00 EST       2026-12-15T17:00:00Z");
    check(":Asia/Tokyo", "Asia/Tokyo", "2026-12-15T03:00:00Z");
    check("/usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin", "2026-12-15T11:00:00Z");
    check("EST5", "GMT-5:00", "2026-12-15T17:00:00Z");
    check("", "UTC", "2026-12-15T12:00:00Z");

    for tz in ["EST5EDT,M3.2.0,M11.1.0", "America/NewYork"] {
        let (code, output, errors) = next_in(&[("TZ", tz)], &["0 0 12 * * ?"], "");
        assert_eq!((code, output.as_str()), (2, ""), "{tz}");
        let hint = "`0 30 2 * * ? America/New_York`";
        assert!(errors.contains(tz) && errors.contains(hint), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        // What looks at no clock, or at one that it names, needs none.
        for text in ["rate(5m)", "0 0 12 * * ? UTC", "at(2030-01-01 00:00:00)"] {
            assert_eq!(next_in(&[("TZ", tz)], &[text], "").0, 0, "{text}");
        }
        let lines = "{\"expr\":\"0 0 12 * * ?\"}\n{\"expr\":\"rate(5m)\"}\n";
        let (_, output, _) = next_in(&[("TZ", tz)], &["--batch"], lines);
        let answers: Vec<&str> = output.lines().collect();
        assert!(answers[0].contains("\"error\"") && answers[1].contains("\"next\""), "{output}");
    }
}

#[test]
fn batch() {
    let lines = [
        (
            r#"{"expr":"0 0 8 * * ?","zone":"Asia/Tokyo","from":"2022-01-01T00:00:00Z","count":1}"#,
            r#"{"next":["2022-01-02T08:00:00+09:00"],"finished":false}"#,
        ),
        (
            r#"{"expr":"rate(1h)","zone":"UTC","from":"2022-01-01T00:00:00Z","count":1,"created":"2022-01-01T00:30:00Z"}"#,
            r#"{"next":["2022-01-01T01:30:00Z"],"finished":false}"#,
        ),
        (r#"{"expr":"0 0 8 * * ? XYZ"}"#, r#""offset":12"#),
        (r#"{"expr":"0 0 8 * * ?","zone":"EST"}"#, r#""suggestion":"America/New_York""#),
        (r#"{"expr":"0 0 8 * * ?","count":1000000}"#, r#""code":"InvalidParameter""#),
        ("nonsense", r#""code":"InvalidParameter""#),
        (r#"{"expr":"\xff"}"#, "invalid unicode code point"),
        (r#"{"expr":"rate(1h)","form":"2022-01-01T00:00:00Z"}"#, "unknown field `form`"),
        ("", ""),
        (r#"{"expr":"0 0 8 * * ? UTC"}"#, r#""finished":false"#),
    ];
    // `\xff` stands for that byte.
    let input = lines.map(|line| line.0).join("\n");
    let input: Vec<&[u8]> = input.split("\\xff").map(str::as_bytes).collect();
    let (code, output, _) = next(&["--batch"], input.join(&0xff));
    assert_eq!(code, 0);
    let answers: Vec<&str> = output.lines().collect();
    let expected: Vec<&str> =
        lines.iter().map(|line| line.1).filter(|expected| !expected.is_empty()).collect();
    assert_eq!(answers.len(), expected.len());
    for (answer, expected) in answers.iter().zip(expected) {
        assert!(answer.contains(expected), "{answer}");
    }
}

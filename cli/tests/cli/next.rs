//! `adjutant next` as it is called.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs `adjutant next` and gives its exit code, output and errors.
fn next(args: &[&str], input: impl AsRef<[u8]>) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adjutant"))
        .arg("next")
        .args(args)
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
Fires at 02:30 every day, the instance's own time.
Sat 2024-03-09 02:30:00 EST        2024-03-09T07:30:00Z  in 7 h 30 min
Sun 2024-03-10 03:00:00 EDT        2024-03-10T07:00:00Z  in 1 d 7 h
Mon 2024-03-11 02:30:00 EDT        2024-03-11T06:30:00Z  in 2 d 6 h
";
    assert_eq!((code, output.as_str()), (0, expected));

    let once = ["at(2030-01-01 08:00:00 GMT+8:00)", "--from", "2029-12-31T23:59:59Z"];
    let (code, output, _) = next(&once, "");
    let expected = "\
Fires once, at 2030-01-01 08:00:00, GMT+8:00 time.
Tue 2030-01-01 08:00:00 GMT+8:00   2030-01-01T00:00:00Z  in 1 s
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

    let (code, output, _) = next(&["30 2 * * 1-5", "--json"], "");
    assert_eq!(code, 2);
    assert!(output.starts_with(r#"{"error":{"code":"InvalidParam.Frequency","message":"#));
    assert!(output.contains(r#""offset":0,"suggestion":"0 30 2 * * 1-5""#), "{output}");

    for args in [&["* * * * * ?", "--count", "0"][..], &["* * * * * ?", "--zone", "EST"], &[]] {
        let (code, _, errors) = next(args, "");
        assert_eq!(code, 2, "{args:?}");
        assert!(!errors.is_empty());
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

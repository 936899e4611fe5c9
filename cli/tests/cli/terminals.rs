//! A terminal shows what runs and names say, and obeys none of it.

use crate::harness::Place;
use crate::top::Terminal;

/// Sets the title, writes to the clipboard, clears the screen, and fakes a line.
const ATTACK: &str =
    r"printf '\033]0;owned\007\033]52;c;aGk=\007\033[2J\033[H\033[31mred\033[0m\rfake\n'";

const HARMLESS: &str =
    "\\u{1b}]0;owned\\u{7}\\u{1b}]52;c;aGk=\\u{7}\\u{1b}[2J\\u{1b}[H\x1b[31mred\x1b[0m\\rfake";

const OBEYED: [&str; 4] = ["\x1b]0;", "\x1b]52;", "\x1b[2J", "\rfake"];

fn seen(place: &Place, words: &[&str], last: &str) -> String {
    let mut terminal = Terminal::start(place, words);
    terminal.expect(last);
    terminal.child.wait().expect("it ends");
    std::mem::take(&mut terminal.seen)
}

#[test]
fn the_output_of_a_run_does_not_drive_a_terminal() {
    let place = Place::with_instances(&["i-1", "i-2"]);
    let check = |words: &[&str], want: &str| {
        let seen = seen(&place, words, "fake");
        assert!(seen.contains(want), "{words:?}: {seen:?}");
        let obeyed = OBEYED.iter().any(|words| seen.contains(words));
        assert!(!obeyed, "{words:?}: {seen:?}");
    };
    check(&["run", ATTACK], HARMLESS);
    let id = place.newest();
    check(&["show", "--output", &id], HARMLESS);
    check(&["show", "--follow", &id], HARMLESS);
    check(&["run", "--on", "i-1,i-2", ATTACK], &format!("i-1 | {HARMLESS}"));
    let raw = seen(&place, &["run", "--raw", ATTACK], "fake");
    assert!(OBEYED.iter().all(|words| raw.contains(words)), "{raw:?}");
}

#[test]
fn bytes_reach_a_pipe_as_they_are_unless_lines_could_be_forged() {
    let place = Place::with_instances(&["i-1", "i-2"]);
    let bytes = place.ok(&["run", ATTACK]);
    assert!(OBEYED.iter().all(|words| bytes.contains(words)), "{bytes:?}");
    let lines = place.ok(&["run", "--on", "i-1,i-2", ATTACK]);
    assert!(!OBEYED.iter().any(|words| lines.contains(words)), "{lines:?}");
    assert!(lines.contains("i-2 | \\u{1b}]0;owned"), "{lines:?}");
    let raw = place.ok(&["run", "--raw", "--on", "i-1,i-2", ATTACK]);
    assert!(raw.contains("i-2 | \x1b]0;owned"), "{raw:?}");
}

#[test]
fn names_and_json_hold_nothing_that_a_terminal_obeys() {
    let place = Place::new();
    let odd = "a\u{202e}b\u{200b}c\u{2028}d\u{9b}e\u{7f}f\u{2066}";
    place.run(&["run", "--name", odd, "true"]);
    for words in [&["ps"][..], &["show", &place.newest()], &["ps", "--json"], &["top"]] {
        let shown = if words == ["top"] {
            let mut terminal = Terminal::start(&place, words);
            terminal.expect("ENDED");
            terminal.expect("a\\u{202e}b");
            std::mem::take(&mut terminal.seen)
        } else {
            place.ok(words)
        };
        assert!(!shown.chars().any(|c| odd.contains(c) && !c.is_ascii_alphabetic()), "{shown:?}");
    }
    let listed = place.json(&["ps"]);
    assert_eq!(listed["Invocations"]["Invocation"][0]["CommandName"], odd);
}

#[test]
fn a_list_has_a_line_for_each_run_on_a_narrow_terminal() {
    let place = Place::new();
    let serve = place.serve(&[]);
    let long = "a command with a long name that has no room here";
    place.ok(&["run", "--name", long, "--frequency", "rate(5h)", "--timeout", "5m", "exit 3"]);
    place.ok(&["run-now", long]);
    serve.out.expect("Failed 3");
    let environment = [("TERM", "xterm"), ("NO_COLOR", "1")];
    let mut terminal = Terminal::start_with(&place, &["ps"], &environment);
    terminal.expect("Failed, ");
    terminal.child.wait().expect("it ends");
    terminal.expect("a comm");
    let lines: Vec<&str> = terminal.seen.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    serve.interrupt();
}

//! `top`: in a terminal of its own, which is as it was before afterwards.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};

use crate::harness::Place;

/// Longer than anything here takes; only a failed test waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A terminal in which the program runs.
pub struct Terminal {
    /// What a person sees and types at.
    person: File,
    program: File,
    pub child: Child,
    shown: Receiver<String>,
    pub seen: String,
}

impl Terminal {
    pub fn start(place: &Place, words: &[&str]) -> Self {
        Self::start_with(place, words, &[("TERM", "xterm")])
    }

    pub fn start_with(place: &Place, words: &[&str], environment: &[(&str, &str)]) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a terminal");
        grantpt(&person).expect("it is ours");
        unlockpt(&person).expect("it opens");
        let name =
            ptsname(&person, Vec::new()).expect("it has a name").into_string().expect("UTF-8");
        let program = OpenOptions::new().read(true).write(true).open(name).expect("its other side");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&program, size).expect("it has a size");
        let side = || Stdio::from(program.try_clone().expect("a copy"));
        let mut command = place.command(words);
        let child = command
            .envs(environment.iter().copied())
            .stdin(side())
            .stdout(side())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let person = File::from(person);
        let (sender, shown) = channel();
        let mut screen = person.try_clone().expect("a copy");
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = screen.read(&mut bytes) {
                let _ = sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned());
            }
        });
        Self { person, program, child, shown, seen: String::new() }
    }

    /// Waits until a word has been shown. Blanks are not drawn where nothing was before.
    pub fn expect(&mut self, word: &str) {
        while !self.seen.contains(word) {
            let shown = self.shown.recv_timeout(PATIENCE);
            self.seen += &shown.unwrap_or_else(|_| panic!("no `{word}`: {:?}", self.seen));
        }
    }

    fn type_in(&mut self, keys: &[u8]) {
        self.person.write_all(keys).expect("it is open");
    }
}

impl Drop for Terminal {
    /// Leaves nothing behind where a test has failed.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn it_shows_what_goes_on_and_gives_the_terminal_back() {
    let place = Place::with_instances(&["i-1"]);
    place.ok(&["run", "--name", "nightly", "--frequency", "rate(5h)", "true"]);
    place.run(&["run", "--name", "broken", "exit 3"]);
    let check = |leave: &dyn Fn(&mut Terminal)| {
        let mut terminal = Terminal::start(&place, &["top"]);
        let before = tcgetattr(&terminal.program).expect("a terminal");
        for words in ["DUE NEXT", "rate(5h)", "nightly", "ENDED", "Failed", "broken"] {
            terminal.expect(words);
        }
        leave(&mut terminal);
        // It leaves the second screen.
        terminal.expect("\x1b[?1049l");
        assert_eq!(terminal.child.wait().expect("it ends").code(), Some(0));
        let after = tcgetattr(&terminal.program).expect("a terminal");
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.output_modes, before.output_modes);
    };
    let typed = |keys: &'static [u8]| move |terminal: &mut Terminal| terminal.type_in(keys);
    let told = |signal| {
        move |terminal: &mut Terminal| {
            kill_process(Pid::from_child(&terminal.child), signal).expect("it runs");
        }
    };
    check(&typed(b"q"));
    check(&typed(b"\x03"));
    check(&typed(b"\x1b"));
    check(&told(Signal::TERM));
    check(&told(Signal::HUP));
}

#[test]
fn it_can_be_suspended_and_continued() {
    let place = Place::with_instances(&["i-1"]);
    let mut terminal = Terminal::start(&place, &["top"]);
    terminal.expect("nobody");
    terminal.type_in(b"\x1a");
    terminal.expect("\x1b[?1049l");
    terminal.seen.clear();
    // Whether or not it has been stopped yet, it takes the terminal again once it is continued.
    let began = std::time::Instant::now();
    while !terminal.seen.contains("\x1b[?1049h") {
        assert!(began.elapsed() < PATIENCE, "{:?}", terminal.seen);
        kill_process(Pid::from_child(&terminal.child), Signal::CONT).expect("it is there");
        let shown = terminal.shown.recv_timeout(Duration::from_millis(100));
        terminal.seen += &shown.unwrap_or_default();
    }
    terminal.expect("nobody");
    terminal.type_in(b"q");
    terminal.expect("\x1b[?1049l");
    assert_eq!(terminal.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn it_shows_what_an_owner_says_and_does_not_keep_it() {
    let place = Place::with_instances(&["i-1"]);
    let gate = place.gate("gate");
    let run = place.start(&["run", "--name", "held", &format!("echo begun; {}", gate.wait())]);
    run.out.expect("begun");
    let mut terminal = Terminal::start(&place, &["top"]);
    for words in ["running 1  waiting 0", "starts", "held"] {
        terminal.expect(words);
    }
    gate.open();
    assert_eq!(run.end().code, Some(0));
    terminal.expect("nobody");
    terminal.type_in(b"q");
    terminal.expect("\x1b[?1049l");
    assert_eq!(terminal.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn colours_are_left_out_where_they_are_not_wanted() {
    let place = Place::with_instances(&["i-1"]);
    place.run(&["run", "--name", "broken", "exit 3"]);
    let check = |environment: &[(&str, &str)], want| {
        let mut terminal = Terminal::start_with(&place, &["top"], environment);
        terminal.expect("broken");
        terminal.type_in(b"q");
        terminal.expect("\x1b[?1049l");
        terminal.child.wait().expect("it ends");
        assert_eq!(
            terminal.seen.contains("\x1b[38;5;"),
            want,
            "{environment:?}: {:?}",
            terminal.seen
        );
    };
    check(&[("TERM", "xterm")], true);
    check(&[("TERM", "xterm"), ("NO_COLOR", "1")], false);
    check(&[("TERM", "dumb")], false);
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let place = Place::new();
    let check = |words: &[&str], code, want: &str| {
        let done = place.run(words);
        assert_eq!(done.code, Some(code), "{done:?}");
        let said = format!("{}{}", done.out, done.err);
        assert!(said.contains(want), "{said}");
    };
    let instead = "`adjutant ps --json` lists runs for programs";
    check(&["top"], 1, &format!("top needs a terminal for its input and output; {instead}"));
    check(&["top", "--json"], 2, &format!("top has no --json; {instead}"));
    let (mut terminal, mut said) = (Terminal::start(&place, &["top"]), String::new());
    let mut stderr = terminal.child.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("UTF-8");
    assert_eq!(terminal.child.wait().expect("it ends").code(), Some(1), "{said}");
    assert!(
        said.contains("adjutant: there is no database at ") && said.contains("/a.db yet"),
        "{said}"
    );
}

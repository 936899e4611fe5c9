//! What the program says by itself, apart from the output of commands. Nothing here fails because
//! a reader has gone away: `adjutant ps | head -1` is no error.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::unix::pipe;

use crate::failure::Failure;
use crate::plain::{self, Plain, one_line};

/// A line to people, on standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "adjutant: {}", one_line(text));
}

/// Text or bytes to standard output.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// Text of others to standard output: as it is with `raw` or if no terminal reads it, otherwise without what a terminal
/// would obey.
pub(crate) fn print_of_others(bytes: &[u8], raw: bool) -> Result<(), Failure> {
    let stdout = Target::Stdout;
    if raw || !stdout.is_terminal() {
        return print(bytes);
    }
    print(&Plain::whole(bytes, stdout.has_colours()))
}

/// One JSON document to standard output.
pub(crate) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(document)
        .map_err(|error| Failure::new("InternalError", 500, error.to_string()))?;
    print(format!("{}\n", plain::json(&line)).as_bytes())
}

/// A failure, in the form that was asked for.
pub(crate) fn report(failure: &Failure, json: bool) {
    #[derive(Serialize)]
    struct Document<'a> {
        error: &'a Failure,
    }
    let to_stderr = |failure: &Failure| {
        let _ = writeln!(io::stderr(), "adjutant: {failure}");
    };
    if !json {
        to_stderr(failure);
    } else if let Err(unwritten) = print_json(&Document { error: failure }) {
        to_stderr(&unwritten);
    }
}

/// What to make of the result of writing to standard output.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::system("write to standard output", &error)),
    }
}

/// Returns whether standard output and standard error lead to one place.
pub(crate) fn is_one_stream() -> bool {
    let place = |found: rustix::io::Result<rustix::fs::Stat>| {
        found.map(|found| (found.st_dev, found.st_ino)).ok()
    };
    let stdout = place(rustix::fs::fstat(io::stdout()));
    stdout.is_some() && stdout == place(rustix::fs::fstat(io::stderr()))
}

/// Waits until nobody can read standard output any more; for ever if that cannot be known, as of a file.
pub(crate) async fn reader_gone() {
    let watched = io::stdout().as_fd().try_clone_to_owned();
    // The system tells of the end of readers of pipes. The pipe stays as it is: nothing is written through this.
    let watched = watched.and_then(|stdout| pipe::Sender::from_file_unchecked(stdout.into()));
    let Ok(watched) = watched else { return std::future::pending().await };
    if watched.ready(Interest::ERROR).await.is_err() {
        std::future::pending().await
    }
}

/// A stream of this process, and what may go to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout,
    Stderr,
}

impl Target {
    pub(crate) fn is_terminal(self) -> bool {
        match self {
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
        }
    }

    /// The columns of the terminal, if it is one and says so.
    pub(crate) fn width(self) -> Option<u16> {
        let size = match self {
            Self::Stdout => rustix::termios::tcgetwinsize(io::stdout()),
            Self::Stderr => rustix::termios::tcgetwinsize(io::stderr()),
        };
        size.ok().map(|size| size.ws_col).filter(|columns| *columns > 0)
    }

    /// Whether to use colours: a terminal that has them, and no `NO_COLOR`.
    pub(crate) fn has_colours(self) -> bool {
        let choice = match self {
            Self::Stdout => AutoStream::choice(&io::stdout()),
            Self::Stderr => AutoStream::choice(&io::stderr()),
        };
        choice != ColorChoice::Never
    }
}

//! The live view of a run. A thread of its own writes it, so that a stream nobody reads holds up
//! neither the engine nor Ctrl-C.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use adjutant::{Event, ExecutionId, ExecutionStatus, InstanceId, Stream};
use chrono::SecondsFormat;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::failure::Failure;
use crate::plain::{Plain, RESET, one_line};
use crate::ui::{self, Target};

/// Events on their way to the screen; the watch keeps the rest.
const WAITING_MAX: usize = 16;

/// A line longer than this is shown in parts, so that output without line breaks is shown at all.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Between two notes of what came too fast to show.
const GAPS_PAUSE: Duration = Duration::from_secs(1);

/// How the output of a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Not at all.
    None,
    /// Without what a terminal would obey, if a terminal or several instances are shown.
    Plain,
    /// Byte for byte.
    Raw,
}

/// The handle of the thread.
pub(crate) struct Screen {
    items: mpsc::Sender<Item>,
    thread: JoinHandle<Result<(), Failure>>,
}

enum Item {
    Event(Event),
    Note(String),
}

impl Screen {
    /// Returns a view of a run on these instances.
    pub(crate) fn open(instances: &[InstanceId], output: Output) -> Self {
        let (items, mut waiting) = mpsc::channel(WAITING_MAX);
        let mut view = View::new(instances, output);
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(item) = waiting.blocking_recv() {
                view.show(item);
            }
            view.close()
        });
        Self { items, thread }
    }

    pub(crate) async fn event(&self, event: Event) {
        // The thread ends only after this handle has gone.
        let _ = self.items.send(Item::Event(event)).await;
    }

    /// Says something, at once if the screen is stuck.
    pub(crate) fn note(&self, text: &str) {
        if self.items.try_send(Item::Note(text.to_owned())).is_err() {
            ui::note(text);
        }
    }

    /// Waits until everything is shown; whether it could be.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        drop(self.items);
        self.thread
            .await
            .unwrap_or_else(|error| Err(Failure::new("InternalError", 500, error.to_string())))
    }
}

struct View {
    mode: Mode,
    bar: ProgressBar,
    progress: Progress,
    gaps: Gaps,
    /// The first thing that went wrong in writing to standard output.
    broken: Option<io::Error>,
    /// Standard output ended in the middle of a line.
    mid_line: bool,
}

enum Mode {
    /// No output.
    Silent,
    /// One instance: its bytes, through the filters of the terminals among the streams.
    Alone { stdout: Option<Plain>, stderr: Option<Plain> },
    /// Several: line by line, each behind its instance.
    Prefixed { width: usize, filter: Filter, lines: BTreeMap<(ExecutionId, bool), Line> },
}

struct Line {
    instance_id: InstanceId,
    bytes: Vec<u8>,
}

/// How lines are shown.
#[derive(Debug, Clone, Copy)]
struct Filter {
    raw: bool,
    colours: bool,
}

/// What came too fast to show and has not been told yet: it would be a line for each stretch of it.
#[derive(Default)]
struct Gaps {
    bytes: BTreeMap<InstanceId, u64>,
    told: Option<Instant>,
}

/// How far the instances have come: how the last execution on each stands.
#[derive(Default)]
struct Progress(BTreeMap<InstanceId, ExecutionStatus>);

impl View {
    fn new(instances: &[InstanceId], output: Output) -> Self {
        let raw = output == Output::Raw;
        let filter = |target: Target| {
            (!raw && target.is_terminal()).then(|| Plain::new(target.has_colours()))
        };
        let mode = match instances {
            _ if output == Output::None => Mode::Silent,
            [] | [_] => {
                Mode::Alone { stdout: filter(Target::Stdout), stderr: filter(Target::Stderr) }
            }
            many => {
                let width = many.iter().map(|id| one_line(id.as_str()).chars().count()).max();
                let filter = Filter { raw, colours: Target::Stdout.has_colours() };
                Mode::Prefixed { width: width.unwrap_or(0), filter, lines: BTreeMap::new() }
            }
        };
        let bar = if instances.len() > 1 && Target::Stderr.is_terminal() {
            bar(instances.len() as u64)
        } else {
            ProgressBar::hidden()
        };
        let (progress, gaps) = (Progress::default(), Gaps::default());
        Self { mode, bar, progress, gaps, broken: None, mid_line: false }
    }

    fn show(&mut self, item: Item) {
        match item {
            Item::Event(Event::Status { instance_id, status, retry_time, .. }) => {
                self.progress.note(&instance_id, status);
                self.progress.show(&self.bar);
                if let Some(at) = retry_time.filter(|_| !self.is_silent()) {
                    let at = at.to_rfc3339_opts(SecondsFormat::Secs, true);
                    self.note(&format!(
                        "{} is tried again at {at}",
                        one_line(instance_id.as_str())
                    ));
                }
            }
            Item::Event(Event::Output { execution_id, instance_id, stream, bytes, .. }) => {
                self.output(execution_id, &instance_id, stream, &bytes);
            }
            Item::Event(Event::Gap { instance_id: id, bytes, .. }) if self.is_shown() => {
                self.gaps.add(id, bytes);
            }
            Item::Event(Event::Unreadable { execution_id, error, .. }) => {
                let error = one_line(&error);
                self.note(&format!(
                    "the record of execution {execution_id} cannot be read: {error}"
                ));
            }
            Item::Note(text) => self.note(&text),
            // What ends the run is told by its table.
            Item::Event(_) => {}
        }
        for text in self.gaps.due(Instant::now()) {
            self.note(&text);
        }
    }

    /// Returns whether output is shown and read: without a reader, no output comes too fast.
    fn is_shown(&self) -> bool {
        !self.is_silent() && self.broken.is_none()
    }

    fn is_silent(&self) -> bool {
        matches!(self.mode, Mode::Silent)
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| ui::note(text));
    }

    fn output(&mut self, id: ExecutionId, instance: &InstanceId, stream: Stream, bytes: &[u8]) {
        match &mut self.mode {
            Mode::Silent => {}
            Mode::Alone { stdout, stderr } => {
                let filter = if stream == Stream::Stdout { stdout } else { stderr };
                match filter {
                    None => self.write(stream, bytes),
                    Some(plain) => {
                        let shown = plain.add(bytes);
                        self.write(stream, &shown);
                    }
                }
            }
            Mode::Prefixed { width, filter, lines } => {
                let line = lines.entry((id, stream == Stream::Stderr));
                let line = line.or_insert_with(|| Line::new(instance.clone()));
                let complete = line.add(bytes, *width, *filter);
                if !complete.is_empty() {
                    self.write(stream, &complete);
                }
            }
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let result = self.bar.suspend(|| match stream {
            Stream::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Stream::Stderr => {
                // There is nowhere to report that standard error is gone.
                let _ = io::stderr().write_all(bytes);
                Ok(())
            }
        });
        self.mid_line = !bytes.ends_with(b"\n");
        self.broken = self.broken.take().or(result.err());
    }

    fn close(mut self) -> Result<(), Failure> {
        let rests: Vec<(Stream, Vec<u8>)> = match &mut self.mode {
            Mode::Silent => Vec::new(),
            Mode::Alone { stdout, stderr } => {
                let rest = |stream, plain: &mut Option<Plain>| {
                    plain.as_mut().map(|plain| (stream, plain.end()))
                };
                let rests = [rest(Stream::Stdout, stdout), rest(Stream::Stderr, stderr)];
                rests.into_iter().flatten().collect()
            }
            Mode::Prefixed { width, filter, lines } => {
                let lines = std::mem::take(lines).into_iter();
                let rests = lines.map(|((_, is_stderr), line)| {
                    let stream = if is_stderr { Stream::Stderr } else { Stream::Stdout };
                    (stream, line.end(*width, *filter))
                });
                rests.collect()
            }
        };
        for (stream, rest) in rests {
            let ends_line = self.mid_line;
            self.write(stream, &rest);
            // The end of a colour is no text.
            self.mid_line |= ends_line && rest == RESET;
        }
        for text in self.gaps.take() {
            self.note(&text);
        }
        self.bar.finish_and_clear();
        if self.mid_line && (Target::Stderr.is_terminal() || ui::is_one_stream()) {
            let _ = writeln!(io::stderr());
        }
        self.broken.map_or(Ok(()), |error| ui::written(Err(error)))
    }
}

impl Line {
    fn new(instance_id: InstanceId) -> Self {
        Self { instance_id, bytes: Vec::new() }
    }

    /// Takes more bytes; gives the lines that are complete now, each with its prefix.
    fn add(&mut self, mut bytes: &[u8], width: usize, filter: Filter) -> Vec<u8> {
        let mut complete = Vec::new();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.bytes.extend_from_slice(&bytes[..end]);
            self.flush(width, filter, &mut complete);
            bytes = &bytes[end + 1..];
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() >= LINE_BYTES_MAX {
            self.flush(width, filter, &mut complete);
        }
        complete
    }

    /// What is left when nothing more comes.
    fn end(mut self, width: usize, filter: Filter) -> Vec<u8> {
        let mut rest = Vec::new();
        if !self.bytes.is_empty() {
            self.flush(width, filter, &mut rest);
        }
        rest
    }

    fn flush(&mut self, width: usize, filter: Filter, to: &mut Vec<u8>) {
        let name = one_line(self.instance_id.as_str());
        to.extend_from_slice(format!("{name:width$} | ").as_bytes());
        if filter.raw {
            to.append(&mut self.bytes);
        } else {
            to.extend(Plain::whole(&std::mem::take(&mut self.bytes), filter.colours));
        }
        to.push(b'\n');
    }
}

impl Gaps {
    fn add(&mut self, id: InstanceId, bytes: u64) {
        *self.bytes.entry(id).or_default() += bytes;
    }

    /// What is to be told now: all that is missing since it was told before, if that was long ago.
    fn due(&mut self, now: Instant) -> Vec<String> {
        let is_early = self.told.is_some_and(|told| now.duration_since(told) < GAPS_PAUSE);
        if self.bytes.is_empty() || is_early {
            return Vec::new();
        }
        self.told = Some(now);
        self.take()
    }

    fn take(&mut self) -> Vec<String> {
        let gaps = std::mem::take(&mut self.bytes).into_iter();
        gaps.map(|(id, bytes)| format!("{bytes} bytes of the output of {id} came too fast to show"))
            .collect()
    }
}

impl Progress {
    fn note(&mut self, instance_id: &InstanceId, status: ExecutionStatus) {
        self.0.insert(instance_id.clone(), status);
    }

    fn show(&self, bar: &ProgressBar) {
        use ExecutionStatus::{Running, Success};
        let count = |is_so: fn(ExecutionStatus) -> bool| {
            self.0.values().filter(|status| is_so(**status)).count() as u64
        };
        let running = count(|status| status == Running);
        let failed = count(|status| status.is_final() && status != Success);
        bar.set_message(format!("{running} running, {failed} failed"));
        bar.set_position(count(ExecutionStatus::is_final));
    }
}

fn bar(instances: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(instances), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:24} {pos} of {len} done, {msg} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    Progress::default().show(&bar);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Filter = Filter { raw: false, colours: false };

    #[test]
    fn no_line_of_an_instance_looks_like_that_of_another() {
        let check = |filter: Filter, want: &[u8]| {
            let mut line = Line::new("i-1".into());
            assert_eq!(line.add(b"a\ri-2 | spoofed\x1b[2K\n", 3, filter), want);
        };
        check(PLAIN, b"i-1 | a\\ri-2 | spoofed\\u{1b}[2K\n");
        check(Filter { raw: true, colours: false }, b"i-1 | a\ri-2 | spoofed\x1b[2K\n");
    }

    #[test]
    fn lines_get_their_prefix_once_complete() {
        let mut line = Line::new("i-1".into());
        assert_eq!(line.add(b"on", 4, PLAIN), b"");
        assert_eq!(line.add(b"e\n\ntw", 4, PLAIN), b"i-1  | one\ni-1  | \n");
        assert_eq!(line.end(4, PLAIN), b"i-1  | tw\n");
    }

    #[test]
    fn gaps_are_told_together() {
        let (start, mut gaps) = (Instant::now(), Gaps::default());
        let note = |id: &str, bytes: u64| {
            format!("{bytes} bytes of the output of {id} came too fast to show")
        };
        let mut check = |ms, added: &[(&str, u64)], want: &[String]| {
            added.iter().for_each(|&(id, bytes)| gaps.add(id.into(), bytes));
            assert_eq!(gaps.due(start + Duration::from_millis(ms)), want, "after {ms} ms");
        };
        check(0, &[], &[]);
        check(0, &[("i-1", 7)], &[note("i-1", 7)]);
        check(10, &[("i-1", 1), ("i-2", 2)], &[]);
        check(999, &[("i-1", 3)], &[]);
        check(1_000, &[], &[note("i-1", 4), note("i-2", 2)]);
        check(5_000, &[], &[]);
        check(5_000, &[("i-2", 5)], &[note("i-2", 5)]);
        check(5_001, &[("i-1", 6)], &[]);
        assert_eq!(gaps.take(), [note("i-1", 6)]);
    }

    #[test]
    fn a_line_without_end_is_shown_in_parts() {
        let mut line = Line::new("i-1".into());
        assert_eq!(line.add(&vec![b'x'; LINE_BYTES_MAX], 3, PLAIN).len(), LINE_BYTES_MAX + 7);
        assert_eq!(line.end(3, PLAIN), b"");
    }
}

//! What the engine reports while it works, such as a full disk: a line each on standard error.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, subscriber};

use crate::ui;

/// How long a line that comes again is the same line: what is tried every second is not told every second, and what
/// lasts is told again.
const SAME_FOR: Duration = Duration::from_secs(30);

/// Different lines that are remembered.
const LINES_MAX: usize = 16;

/// Whether each line begins with its time.
static HAS_TIMES: AtomicBool = AtomicBool::new(false);

/// Begins each line with its time from now on, as for a program that runs for long.
pub(crate) fn tell_times() {
    HAS_TIMES.store(true, Ordering::Relaxed);
}

/// Prints warnings and errors from now on.
pub(crate) fn show_warnings() {
    // It fails only if it was done before.
    let _ = subscriber::set_global_default(Warnings::default());
}

/// Takes events only; spans are nothing to a terminal.
#[derive(Default)]
struct Warnings {
    told: Mutex<Told>,
}

/// The lines that were told last.
#[derive(Default)]
struct Told(VecDeque<(String, Instant)>);

impl Told {
    /// Returns whether a line is to be told, and takes note of it.
    fn is_news(&mut self, line: &str, now: Instant) -> bool {
        self.0.retain(|(_, at)| now.duration_since(*at) < SAME_FOR);
        if self.0.iter().any(|(told, _)| told == line) {
            return false;
        }
        if self.0.len() >= LINES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((line.to_owned(), now));
        true
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // How old the zone data is, is said where it counts: by `serve`, `next` and `--version`.
        metadata.is_event()
            && *metadata.level() <= Level::WARN
            && metadata.target() != adjutant::schedule::OUTDATED_TARGET
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = line.message + &line.fields;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if !told.is_news(&text, Instant::now()) {
            return;
        }
        drop(told);
        if HAS_TIMES.load(Ordering::Relaxed) {
            let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
            ui::note(&format!("{now}  {text}"));
        } else {
            ui::note(&text);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message, and the other fields behind it.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "; {name}: {value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_again_and_not_each_second() {
        let (start, mut told) = (Instant::now(), Told::default());
        let mut check = |second, line: &str, want| {
            let now = start + Duration::from_secs(second);
            assert_eq!(told.is_news(line, now), want, "{line} at {second}");
        };
        check(0, "full", true);
        check(1, "full", false);
        check(1, "slow", true);
        check(2, "full", false);
        check(60, "full", true);
        check(61, "slow", true);
        check(89, "full", false);
        check(90, "full", true);
    }
}

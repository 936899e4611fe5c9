//! From what is known to what a terminal shows: pure, for any size.

use adjutant::ExecutionStatus;
use chrono::{DateTime, SecondsFormat, Utc};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::widgets::Widget;

use super::{Execution, State, Timer};
use crate::render;

/// Lines above the lists, an empty one included.
const HEAD: u16 = 4;
/// Lists below one another.
const LISTS: u16 = 3;
/// The least that shows anything of a list: its heading and a line.
const LIST_MIN: u16 = 2;
/// Columns from which on whole ids find room; below it is as much of one as tells runs apart.
const WIDE: u16 = 110;
const ID_CHARS: usize = 34;
const SHORT_ID_CHARS: usize = 14;

/// What is shown, and how.
pub(crate) struct View<'a> {
    pub state: &'a State,
    pub colours: bool,
}

impl Widget for View<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let head = self.head();
        for (y, (text, style)) in (area.top()..area.bottom()).zip(head) {
            put(buffer, area, y, &text, style);
        }
        let each = area.height.saturating_sub(HEAD) / LISTS;
        if each < LIST_MIN {
            return;
        }
        let wide = area.width >= WIDE;
        let lists = [self.running(wide), self.due(wide), self.ended(wide)];
        for (n, list) in (0..).zip(lists) {
            let top = area.top() + HEAD + n * each;
            // The last takes what is left over.
            let bottom = if n + 1 == LISTS { area.bottom() } else { top + each - 1 };
            for (y, (text, style)) in (top..bottom).zip(list) {
                put(buffer, area, y, &text, style);
            }
        }
    }
}

type Line = (String, Style);

fn put(buffer: &mut Buffer, area: Rect, y: u16, text: &str, style: Style) {
    buffer.set_stringn(area.x, y, text, usize::from(area.width), style);
}

impl View<'_> {
    fn head(&self) -> [Line; 3] {
        let State { database, now, figures, rates, unended, .. } = self.state;
        let counts = match figures {
            Some(figures) => {
                format!(
                    "running {}  waiting {}",
                    grouped(figures.running),
                    grouped(figures.waiting)
                )
            }
            None => {
                let more = if unended.1 { "+" } else { "" };
                format!("not ended {}{more}", grouped(unended.0))
            }
        };
        let happens = match (figures, rates) {
            (None, _) => "nobody who runs the database answers".to_owned(),
            (Some(_), None) => "per second  starts –  ends –  failures –".to_owned(),
            (Some(_), Some(rates)) => format!(
                "per second  starts {:.1}  ends {:.1}  failures {:.1}",
                rates.starts, rates.ends, rates.failures
            ),
        };
        let time = now.to_rfc3339_opts(SecondsFormat::Secs, true);
        let failing = rates.is_some_and(|rates| rates.failures > 0.0);
        [
            (format!("{time}  {database}  q quits"), Style::new()),
            (counts, Style::new().add_modifier(Modifier::BOLD)),
            (happens, if failing { self.colour(Color::Red) } else { Style::new() }),
        ]
    }

    fn running(&self, wide: bool) -> Vec<Line> {
        let heading = columns(wide, "RUNNING", "INSTANCE", "FOR", "COMMAND");
        let line = move |one: &Execution| {
            let since =
                one.started.map_or_else(String::new, |started| elapsed(started, self.state.now));
            let style = match one.status {
                ExecutionStatus::Stopping => self.colour(Color::Yellow),
                _ => Style::new(),
            };
            (columns(wide, &one.run, &one.instance, &since, &one.name), style)
        };
        self.list(heading, self.state.running.iter().map(line))
    }

    fn due(&self, wide: bool) -> Vec<Line> {
        let heading = columns(wide, "DUE NEXT", "SCHEDULE", "IN", "COMMAND");
        let line = move |one: &Timer| {
            let until = render::span(one.at - self.state.now);
            (columns(wide, &one.run, &one.frequency, &until, &one.name), Style::new())
        };
        self.list(heading, self.state.due.iter().map(line))
    }

    fn ended(&self, wide: bool) -> Vec<Line> {
        let heading = columns(wide, "ENDED", "INSTANCE", "TOOK", "STATUS      COMMAND");
        let line = move |one: &Execution| {
            let took =
                one.started.zip(one.finished).map_or_else(String::new, |(s, f)| elapsed(s, f));
            let status = one.status.as_str();
            let rest = format!("{status:<12}{}", one.name);
            (columns(wide, &one.run, &one.instance, &took, &rest), self.of(one.status))
        };
        self.list(heading, self.state.ended.iter().map(line))
    }

    fn list(&self, heading: String, lines: impl Iterator<Item = Line>) -> Vec<Line> {
        let heading = (heading, Style::new().add_modifier(Modifier::REVERSED));
        std::iter::once(heading).chain(lines).collect()
    }

    fn colour(&self, colour: Color) -> Style {
        if self.colours { Style::new().fg(colour) } else { Style::new() }
    }

    fn of(&self, status: ExecutionStatus) -> Style {
        use ExecutionStatus::{Cancelled, Skipped, Success, Terminated};
        match status {
            Success => self.colour(Color::Green),
            Cancelled | Skipped | Terminated => self.colour(Color::Yellow),
            _ => self.colour(Color::Red),
        }
    }
}

/// A line of a list: ids as far as there is room for them, what is second cut to its column.
fn columns(wide: bool, run: &str, second: &str, time: &str, rest: &str) -> String {
    let chars = if wide { ID_CHARS } else { SHORT_ID_CHARS };
    let cut = |text: &str, chars: usize| text.chars().take(chars).collect::<String>();
    format!("{:<chars$}  {:<18}  {time:>12}  {rest}", cut(run, chars), cut(second, 18))
}

fn elapsed(from: DateTime<Utc>, until: DateTime<Utc>) -> String {
    render::duration((until - from).num_milliseconds().max(0).cast_unsigned())
}

/// A number with its thousands apart: `100,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;

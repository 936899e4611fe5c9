//! Tables and lists of fields, the shapes that records take.

use adjutant::{ExecutionStatus, InvocationStatus};
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, Table, Width, presets};

use crate::plain::one_line;
use crate::ui::Target;

/// The widest that a name or a script's first line may be in a table.
const TEXT_CHARS_MAX: usize = 40;

/// The narrowest that a last column is cut to; past that the terminal breaks the lines.
const LAST_WIDTH_MIN: u16 = 12;

/// Names and values; what has no value is left out.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let given = fields.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| format!("{name:<10}{value}\n")).collect()
}

/// A table without lines, as the stream can show it.
pub(super) fn table(target: Target, header: &[&str]) -> Table {
    let mut table = Table::new();
    // Long lines are the terminal's to break: an id that is broken here cannot be copied.
    table.load_style(presets::NOTHING).set_header(header).force_no_tty();
    if target.has_colours() {
        table.enforce_styling();
    }
    table
}

/// Returns whether the terminal has room for a table whose last column is cut.
pub(super) fn has_room(table: &Table, target: Target) -> bool {
    let widths = table.column_max_content_widths();
    let others = widths.iter().rev().skip(1).map(|width| width.saturating_add(2)).sum::<u16>();
    target.width().is_none_or(|width| width >= others.saturating_add(LAST_WIDTH_MIN))
}

/// Keeps the rows to one line of the terminal each, as far as the last column is to blame.
pub(super) fn cut_last_column(table: &mut Table, target: Target) {
    let Some(terminal) = target.width() else { return };
    let widths = table.column_max_content_widths();
    let Some((&last, others)) = widths.split_last() else { return };
    // Two blanks between columns, and what `finish` takes off.
    let used: u16 = others.iter().map(|width| width.saturating_add(2)).sum();
    let room = terminal.saturating_sub(used).max(LAST_WIDTH_MIN);
    if room < last {
        let width = ColumnConstraint::UpperBoundary(Width::Fixed(room));
        if let Some(column) = table.column_mut(others.len()) {
            column.set_constraint(width);
        }
        for row in table.row_iter_mut() {
            row.max_height(1);
        }
    }
}

pub(super) fn finish(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        // The style's margin and the padding of the last column.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

pub(super) fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

pub(super) fn nothing() -> String {
    "-".to_owned()
}

/// A name, or else what the script does first, no longer than a table can bear.
pub(crate) fn title(name: &str, script: &str) -> String {
    let text = if name.is_empty() { first_line(script) } else { name };
    let text = one_line(text);
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The first line that does something.
fn first_line(script: &str) -> &str {
    let mut lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    if first.starts_with('#') {
        lines.find(|line| !line.starts_with('#')).unwrap_or(first)
    } else {
        first
    }
}

pub(super) fn colour(status: ExecutionStatus) -> Color {
    match status {
        ExecutionStatus::Success => Color::Green,
        ExecutionStatus::Cancelled | ExecutionStatus::Terminated | ExecutionStatus::Skipped => {
            Color::Yellow
        }
        status if status.is_final() => Color::Red,
        _ => Color::Cyan,
    }
}

pub(super) fn invocation_colour(status: InvocationStatus) -> Color {
    match status {
        InvocationStatus::Success => Color::Green,
        InvocationStatus::Stopped => Color::Yellow,
        status if status.is_final() => Color::Red,
        _ => Color::Cyan,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_short_and_safe() {
        for (name, script, want) in [
            ("backup", "echo", "backup"),
            ("", "#!/bin/sh\n# why\n\n  echo hi\n", "echo hi"),
            ("", "# only\n", "# only"),
            ("", "", ""),
            ("", "a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("", &"é".repeat(41), &format!("{}…", "é".repeat(40))),
        ] {
            assert_eq!(title(name, script), want);
        }
    }
}

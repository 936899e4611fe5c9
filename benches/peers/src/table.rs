//! What is printed: a line for each case and setting.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::Case;
use crate::protocol::{Report, Setting};

/// A case in a setting, and what came of its runs.
#[derive(Serialize)]
pub struct Line {
    pub engine: &'static str,
    pub version: Option<String>,
    pub case: &'static str,
    pub setting: Setting,
    pub jobs: usize,
    pub runs: Vec<Report>,
    pub errors: Vec<String>,
}

impl Line {
    pub fn new(case: &Case, setting: Setting, jobs: usize) -> Self {
        Self {
            engine: case.engine,
            version: case.version(),
            case: case.name,
            setting,
            jobs,
            runs: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn cells(&self) -> [String; 8] {
        let version = self.version.as_deref().unwrap_or("?");
        [
            format!("{} {version}, {}", self.engine, self.case),
            self.setting.name().to_owned(),
            thousands(self.jobs),
            self.durability(),
            rates(self.jobs, self.runs.iter().map(|run| run.stored_seconds)),
            rates(self.jobs, self.runs.iter().filter_map(executed_alone)),
            rates(self.jobs, self.runs.iter().map(end_to_end)),
            self.notes(),
        ]
    }

    /// What was read back, of all runs together.
    fn durability(&self) -> String {
        let Some(run) = self.runs.last() else {
            return "not read".to_owned();
        };
        let mut rows = BTreeMap::new();
        for (level, written) in self.runs.iter().flat_map(|run| &run.synchronous) {
            *rows.entry(level.as_str()).or_insert(0) += written;
        }
        let all: u64 = rows.values().sum();
        let levels: Vec<String> = match rows.len() {
            0 => vec!["not reachable".to_owned()],
            1 => rows.into_keys().map(str::to_owned).collect(),
            _ => {
                let share = |(level, written)| format!("{level} {:.0} %", percent(written, all));
                rows.into_iter().map(share).collect()
            }
        };
        format!("{}, {}", run.journal_mode, levels.join(" and "))
    }

    fn notes(&self) -> String {
        let mut notes = Vec::new();
        let twice: Vec<usize> = self.runs.iter().map(|run| run.ran_twice).collect();
        if twice.iter().any(|&jobs| jobs > 0) {
            let twice: Vec<String> = twice.iter().map(usize::to_string).collect();
            notes.push(format!("ran twice: {}", twice.join(", ")));
        }
        notes.extend(self.errors.iter().cloned());
        notes.join("; ")
    }
}

pub fn print(lines: &[Line]) {
    let head = [
        "engine",
        "setting",
        "jobs",
        "journal, synchronous",
        "stored/s",
        "executed/s",
        "end to end/s",
        "",
    ];
    let mut table = vec![head.map(str::to_owned)];
    table.extend(lines.iter().map(Line::cells));
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).filter_map(width).collect();
    for (number, row) in table.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rules = widths.iter().map(|&width| "-".repeat(width + 2));
            println!("|{}|", rules.collect::<Vec<_>>().join("|"));
        }
    }
}

/// From the start of the workers, where that can be told.
fn executed_alone(run: &Report) -> Option<f64> {
    (!run.end_to_end).then_some(run.executed_seconds)
}

/// From the first job asked for to the last end on record.
fn end_to_end(run: &Report) -> f64 {
    run.executed_seconds + if run.end_to_end { 0.0 } else { run.stored_seconds }
}

/// The median, and the range where there is one.
fn rates(jobs: usize, seconds: impl Iterator<Item = f64>) -> String {
    let mut rates: Vec<usize> = seconds.map(|seconds| rate(jobs, seconds)).collect();
    rates.sort_unstable();
    match rates.as_slice() {
        [] => String::new(),
        [rate] => thousands(*rate),
        [least, .., most] => {
            let median = rates[rates.len() / 2];
            format!("{} ({}–{})", thousands(median), thousands(*least), thousands(*most))
        }
    }
}

/// Jobs a second, to three digits, which is more than such figures hold.
fn rate(jobs: usize, seconds: f64) -> usize {
    let rate = jobs as f64 / seconds;
    let unit = 10_f64.powf((rate.log10().floor() - 2.0).max(0.0));
    ((rate / unit).round() * unit) as usize
}

fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(part: u64, all: u64) -> f64 {
    part as f64 / all as f64 * 100.0
}

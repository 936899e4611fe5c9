//! The same jobs through this engine and others that are embedded and keep them in SQLite, one beside the
//! other in one sitting. The jobs do nothing but count themselves.
//!
//!     cargo run --release                            # in this folder; all of it, some minutes
//!     cargo run --release -- --only adjutant,effectum --rounds 1 --jobs 1000 --json
//!
//! Each engine is a program of its own, run once a round in its `best` setting (the fastest it offers by
//! itself) and once with `equal` durability: a write-ahead log and `synchronous=FULL`, so that all it
//! acknowledges is on disk. Where an engine cannot be told to, the log is there before it opens the file,
//! and its own `PRAGMA synchronous` has no effect. What `journal, synchronous` shows was read back, the
//! latter from the engine's own connections as they closed; where they differ, with the share of rows
//! written through each kind.
//!
//! `stored/s` is the engine's best way to store many jobs. `executed/s` is from the start of its workers,
//! all jobs stored, to the last end on record, where an engine can keep the two apart. `end to end/s` is
//! from the first job asked for to the last end on record. Medians of all rounds, with the least and the most.

mod engine;
#[path = "../harness/src/protocol.rs"]
mod protocol;
mod table;

use std::collections::BTreeMap;
use std::process::ExitCode;

use engine::{CASES, Case};
use protocol::Setting;
use table::Line;

const USAGE: &str = "peers [--jobs N] [--rounds R] [--only ENGINE,...] [--json]";

struct Arguments {
    jobs: usize,
    rounds: usize,
    /// All engines if empty.
    only: Vec<String>,
    json: bool,
}

fn main() -> ExitCode {
    let done = arguments(std::env::args().skip(1)).and_then(|arguments| run(&arguments));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { jobs: 100_000, rounds: 3, only: Vec::new(), json: false };
    while let Some(name) = given.next() {
        let mut value = || given.next().ok_or(format!("{name} wants a value\n{USAGE}"));
        match name.as_str() {
            "--jobs" => arguments.jobs = number(&name, &value()?)?,
            "--rounds" => arguments.rounds = number(&name, &value()?)?,
            "--only" => arguments.only = value()?.split(',').map(str::to_owned).collect(),
            "--json" => arguments.json = true,
            _ => return Err(format!("{name} is not known\n{USAGE}")),
        }
    }
    let is_known = |name: &&String| CASES.iter().any(|case| case.engine == name.as_str());
    match arguments.only.iter().find(|name| !is_known(name)) {
        Some(name) => {
            let mut engines: Vec<_> = CASES.iter().map(|case| case.engine).collect();
            engines.dedup();
            Err(format!("--only: no engine is called {name}, but {}", engines.join(", ")))
        }
        None => Ok(arguments),
    }
}

fn number(name: &str, text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("{name}: {text} is not a number above 0"))
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let target = engine::target()?;
    let wanted = |case: &&Case| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == case.engine)
    };
    let mut builds = BTreeMap::new();
    let mut lines = Vec::new();
    for case in CASES.iter().filter(wanted) {
        let built = builds.entry(case.engine).or_insert_with(|| {
            eprintln!("building {}", case.engine);
            case.build(&target)
        });
        for setting in Setting::ALL {
            let mut line = Line::new(case, setting, arguments.jobs.div_ceil(case.one_of));
            line.errors.extend(built.clone().err());
            lines.push((case, line));
        }
    }
    for round in 1..=arguments.rounds {
        for (case, line) in &mut lines {
            // What has failed would fail again, some of it after a minute.
            if line.errors.is_empty() {
                eprintln!("round {round}: {}, {}, {}", case.engine, case.name, line.setting.name());
                match case.run(&target, line.setting, line.jobs) {
                    Ok(report) => line.runs.push(report),
                    Err(error) => line.errors.push(error),
                }
            }
        }
    }
    let lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&lines).map_err(|error| error.to_string())?);
    } else {
        table::print(&lines);
    }
    Ok(())
}

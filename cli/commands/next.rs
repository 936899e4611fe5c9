//! `adjutant next`: when a schedule fires.
//!
//! Reads its arguments (and, with `--batch`, its input), the machine's zone and zone data, so it
//! answers without a database.

use std::cell::LazyCell;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufWriter, Write};

use adjutant::Limits;
use adjutant::schedule::{
    Lenient, NoLocalZone, ParseError, Refusal, Schedule, Timetable, Zone, ZoneData,
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::args::instant;
use crate::failure::Failure;
use crate::ui;

/// Fires listed where no count is given.
const COUNT_DEFAULT: usize = 5;
/// The most fires listed for one expression; it bounds the length of an answer.
const COUNT_MAX: usize = 10_000;
/// What `run --frequency` holds schedules to.
const LIMITS: Limits = Limits::embedded();
/// What there is to do about old zone data.
const OUTDATED: &str =
    "outdated: a newer tzdata package of the system is used once it is installed";
/// The expression is part of the command line, so a wrong one is wrong usage.
const REFUSED: u8 = 2;

/// What to list.
#[derive(Debug, clap::Args)]
pub(crate) struct Next {
    /// The schedule, such as `rate(5m)`, `at(2030-01-01 08:00:00)` or `0 30 2 * * ?`
    #[arg(required_unless_present = "batch")]
    expr: Option<String>,
    /// List fires strictly after this instant (RFC 3339) [default: now]
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    from: Option<DateTime<Utc>>,
    /// How many fires to list
    #[arg(long, default_value_t = COUNT_DEFAULT, value_parser = parse_count, allow_negative_numbers = true)]
    count: usize,
    /// The instance's zone, for a cron expression that names none [default: this machine's]
    #[arg(long)]
    zone: Option<Zone>,
    /// When the schedule was created (RFC 3339), which a rate counts from [default: --from]
    #[arg(long, value_name = "RFC3339", value_parser = instant)]
    created: Option<DateTime<Utc>>,
    /// Read one JSON object a line, {"expr","zone","from","count","created"}, and answer each
    /// with one line of JSON
    #[arg(long, conflicts_with_all = ["expr", "from", "count", "zone", "created"])]
    batch: bool,
}

/// Lists the next fires; the exit status.
pub(super) fn next(args: Next, json: bool) -> Result<u8, Failure> {
    let Some(expr) = args.expr else {
        return match answer_lines(io::stdin().lock(), io::stdout().lock()) {
            Ok(()) => Ok(0),
            // Whoever read the answers has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(0),
            Err(error) => Err(Failure::system("answer the batch", &error)),
        };
    };
    let from = args.from.unwrap_or_else(Utc::now);
    let Lenient { schedule, note, .. } = match Schedule::read_lenient(&expr) {
        Ok(read) => read,
        Err(error) => return refuse(error.into(), json),
    };
    if let Some(note) = note {
        ui::note(&note);
    }
    let zone = args.zone.map_or_else(Zone::local, Ok);
    let question = Question {
        zone: match zone {
            Ok(zone) => zone,
            Err(error) if schedule.follows_instances() => return refuse(error.into(), json),
            // The schedule looks at no clock, or at one that it names.
            Err(_) => Zone::UTC,
        },
        schedule,
        from,
        count: args.count,
        created: args.created.unwrap_or(from),
    };
    show(&question, json)
}

struct Question {
    schedule: Schedule,
    zone: Zone,
    from: DateTime<Utc>,
    count: usize,
    created: DateTime<Utc>,
}

/// One line of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    expr: String,
    zone: Option<String>,
    from: Option<DateTime<Utc>>,
    count: Option<usize>,
    created: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    Next { next: Vec<String>, finished: bool },
    Error { error: Problem },
}

#[derive(Serialize)]
struct Problem {
    code: &'static str,
    message: String,
    offset: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    suggestion: Option<String>,
}

fn show(question: &Question, json: bool) -> Result<u8, Failure> {
    let timetable = question.schedule.bind(question.created, question.zone);
    if let Err(problem) = check_interval(question, &timetable) {
        return refuse(problem, json);
    }
    match json {
        true => ui::print_json(&answer(question))?,
        false => ui::print(for_people(question, &timetable).as_bytes())?,
    }
    for remark in ZoneData::in_use().remarks() {
        ui::note(&remark);
    }
    Ok(0)
}

/// Refuses an interval that `run` refuses.
fn check_interval(question: &Question, timetable: &Timetable<'_>) -> Result<(), Problem> {
    match timetable.validate(question.from, &LIMITS.schedule_bounds(0)) {
        Err(refusal @ (Refusal::TooFrequent { .. } | Refusal::TooRare { .. })) => {
            Err(refusal.into())
        }
        // A schedule without another fire has an answer, too.
        _ => Ok(()),
    }
}

fn refuse(problem: Problem, json: bool) -> Result<u8, Failure> {
    match json {
        true => ui::print_json(&Answer::Error { error: problem })?,
        false => ui::note(&format!("{} ({})", problem.message, problem.code)),
    }
    Ok(REFUSED)
}

fn answer(question: &Question) -> Answer {
    let timetable = question.schedule.bind(question.created, question.zone);
    if let Err(error) = check_interval(question, &timetable) {
        return Answer::Error { error };
    }
    let fires = fires(question, &timetable);
    let text = |fire: &DateTime<Utc>| rfc3339(timetable.zone(), *fire);
    Answer::Next { next: fires.iter().map(text).collect(), finished: fires.len() < question.count }
}

fn fires(question: &Question, timetable: &Timetable<'_>) -> Vec<DateTime<Utc>> {
    timetable.clone().upcoming(question.from).take(question.count).collect()
}

fn answer_lines(input: impl BufRead, output: impl Write) -> io::Result<()> {
    let mut output = BufWriter::new(output);
    let local: LazyCell<_> = LazyCell::new(Zone::local as fn() -> _);
    let now = Utc::now();
    for line in input.split(b'\n') {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = match read_line(&line, &local, now) {
            Ok(question) => answer(&question),
            Err(error) => Answer::Error { error },
        };
        serde_json::to_writer(&mut output, &answer)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}

fn read_line(
    line: &[u8],
    local: &LazyCell<Result<Zone, NoLocalZone>>,
    now: DateTime<Utc>,
) -> Result<Question, Problem> {
    let malformed = |message: String, offset| Problem {
        code: "InvalidParameter",
        message,
        offset,
        suggestion: None,
    };
    let line: Line = serde_json::from_slice(line)
        .map_err(|error| malformed(error.to_string(), error.column().saturating_sub(1)))?;
    let count = line.count.unwrap_or(COUNT_DEFAULT);
    if count > COUNT_MAX {
        return Err(malformed(format!("count {count} is more than {COUNT_MAX}"), 0));
    }
    let from = line.from.unwrap_or(now);
    // Read as a request is: whoever writes batches can write the six fields.
    let schedule: Schedule = line.expr.parse()?;
    let zone = match line.zone {
        Some(zone) => zone.parse()?,
        None => match &**local {
            Ok(zone) => *zone,
            Err(error) if schedule.follows_instances() => return Err(error.clone().into()),
            Err(_) => Zone::UTC,
        },
    };
    Ok(Question { schedule, zone, from, count, created: line.created.unwrap_or(from) })
}

impl From<ParseError> for Problem {
    fn from(error: ParseError) -> Self {
        Problem {
            code: error.code(),
            message: error.to_string(),
            offset: error.offset(),
            suggestion: error.suggestion().map(str::to_owned),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (code, message) = (refusal.code(), format!("invalid schedule: {refusal}"));
        Problem { code, message, offset: 0, suggestion: None }
    }
}

impl From<NoLocalZone> for Problem {
    fn from(error: NoLocalZone) -> Self {
        let suggestion = error.suggestion().map(str::to_owned);
        Problem {
            code: "InvalidParam.Frequency",
            message: error.to_string(),
            offset: 0,
            suggestion,
        }
    }
}

fn for_people(question: &Question, timetable: &Timetable<'_>) -> String {
    let zone = timetable.zone();
    let fires = fires(question, timetable);
    let mut text = format!("{}\n", question.schedule.describe_in(question.zone));
    for &fire in &fires {
        let local = zone.local_time(fire).format("%a %Y-%m-%d %H:%M:%S%.f %:z");
        let _ = write!(
            text,
            "{local} {:<8}  {}  {}",
            zone.abbreviation(fire),
            fire.to_rfc3339_opts(SecondsFormat::AutoSi, true),
            distance(fire - question.from)
        );
        text.push_str(if timetable.is_shifted(fire) {
            ", as the clock skips its time\n"
        } else {
            "\n"
        });
    }
    if fires.len() < question.count {
        text.push_str(if fires.is_empty() { "Never again.\n" } else { "Then never again.\n" });
    }
    // Clocks with one offset need no data.
    if zone.name().contains('/') && !zone.name().starts_with("Etc/") {
        let _ = writeln!(text, "Zone data: {}", zone_data(question.from));
    }
    text
}

/// The zone data that is used, and whether it is outdated.
pub(crate) fn zone_data(at: DateTime<Utc>) -> String {
    let data = ZoneData::in_use();
    match data.is_outdated(at) {
        true => format!("{data}; {OUTDATED}"),
        false => data.to_string(),
    }
}

/// `in 3 h 20 min`: the two largest units that say anything.
fn distance(distance: TimeDelta) -> String {
    let seconds = distance.num_seconds();
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let first = units.iter().position(|unit| unit.0 != 0).unwrap_or(units.len() - 1);
    let said = units[first..].iter().take(2).enumerate();
    let words: Vec<String> = said
        .filter(|(index, unit)| *index == 0 || unit.0 != 0)
        .map(|(_, (number, unit))| format!("{number} {unit}"))
        .collect();
    format!("in {}", words.join(" "))
}

fn rfc3339(zone: Zone, instant: DateTime<Utc>) -> String {
    zone.local_time(instant).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=COUNT_MAX).contains(&count) => Ok(count),
        _ => Err(format!("expected a number from 1 to {COUNT_MAX}")),
    }
}

//! Schedules as other programs write them: crontabs, AWS, Jenkins, systemd, Quartz.
//!
//! Used on the way to an error, and by the lenient reader. A translation is given only if it means
//! the same; otherwise the place is named that has no counterpart.

use super::cron::{Cron, FIELDS_EXPECTED, FIELDS_MAX, FIELDS_MIN, Word};
use super::error::ParseError;
use super::spelling;
use super::zone::Zone;
use super::{Schedule, TEXT_LEN_MAX};

/// A text in the language of another program.
#[derive(Debug)]
pub(super) struct Foreign {
    /// How such a text is called: `a crontab line`.
    pub(super) called: &'static str,
    pub(super) meaning: Meaning,
}

#[derive(Debug)]
pub(super) enum Meaning {
    /// The text says a schedule and nothing beside it: this one.
    Same(Schedule),
    /// Something in the text is no part of a schedule, or has no counterpart.
    Other(ParseError),
}

const CRONTAB: &str = "a crontab line";
const AWS: &str = "an expression of AWS";
const EVERY: &str = "an `@every` of Go's cron libraries";
const JENKINS: &str = "a schedule of Jenkins";
const QUARTZ: &str = "an expression of Quartz";
const SYSTEMD: &str = "an OnCalendar of systemd";
const INSTANT: &str = "a single instant";
const QUOTED: &str = "a schedule in quotes";

/// What the macros of crontabs stand for.
const MACROS: [(&str, &str); 10] = [
    ("@every_second", "* * * * * ?"),
    ("@every_minute", "0 * * * * ?"),
    ("@minutely", "0 * * * * ?"),
    ("@hourly", "0 0 * * * ?"),
    ("@daily", "0 0 0 * * ?"),
    ("@midnight", "0 0 0 * * ?"),
    ("@weekly", "0 0 0 ? * SUN"),
    ("@monthly", "0 0 0 1 * ?"),
    ("@yearly", "0 0 0 1 1 ?"),
    ("@annually", "0 0 0 1 1 ?"),
];

/// The words that systemd has for common calendars. Its weeks begin on Monday.
const CALENDARS: [(&str, &str); 9] = [
    ("minutely", "0 * * * * ?"),
    ("hourly", "0 0 * * * ?"),
    ("daily", "0 0 0 * * ?"),
    ("weekly", "0 0 0 ? * MON"),
    ("monthly", "0 0 0 1 * ?"),
    ("quarterly", "0 0 0 1 1,4,7,10 ?"),
    ("semiannually", "0 0 0 1 1,7 ?"),
    ("yearly", "0 0 0 1 1 ?"),
    ("annually", "0 0 0 1 1 ?"),
];

/// The days of AWS and Quartz, which count from Sunday as 1.
const DAYS_FROM_ONE: [&str; 8] = ["", "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Reads a text that is no schedule here as other programs would.
pub(super) fn recognise(text: &str) -> Option<Foreign> {
    if text.len() > TEXT_LEN_MAX {
        return None;
    }
    let words = words(text, (0, text.len()));
    let &(start, end) = words.first()?;
    let first = &text[start..end];
    quoted(text)
        .or_else(|| variables(text, &words))
        .or_else(|| first.starts_with('@').then(|| macros(text, &words)))
        .or_else(|| aws(text))
        .or_else(|| on_calendar(text, &words))
        .or_else(|| crontab(text, &words))
        .or_else(|| aws_fields(text, &words))
        .or_else(|| quartz(text, &words))
}

/// Says of an error in a text what the text is, if it is in the language of another program.
pub(super) fn explain(text: &str, error: ParseError) -> ParseError {
    // The fields before the year and the zone read well, so the text is one of ours.
    let words = words(text, (0, text.len()));
    let is_behind_fields = |&(start, _): &Word| error.offset() >= start;
    let sets_variable = words.first().is_some_and(|&(start, _)| assignment(text, start).is_some());
    if !sets_variable
        && words.len() <= FIELDS_MAX
        && words.get(FIELDS_MIN).is_some_and(is_behind_fields)
    {
        return error;
    }
    match recognise(text) {
        None => error,
        Some(Foreign { called, meaning: Meaning::Same(schedule) }) => {
            let start = text.len() - text.trim_start().len();
            ParseError::new(start, FIELDS_EXPECTED, text.trim())
                .suggest(Some(schedule.to_string()))
                .remarked(format!("this is {called}"))
        }
        Some(Foreign { meaning: Meaning::Other(error), .. }) => error,
    }
}

impl Foreign {
    fn same(called: &'static str, text: &str) -> Option<Self> {
        Some(Foreign { called, meaning: Meaning::Same(read(text).ok()?) })
    }

    /// A text with a place `at` which nothing here stands for; `hint` is the part that can be said.
    fn other(
        called: &'static str,
        text: &str,
        (at, expected): (usize, &'static str),
        hint: Option<Schedule>,
        remark: &str,
    ) -> Self {
        let error = ParseError::new(at, expected, text[at..].trim_end())
            .suggest(hint.map(|hint| hint.to_string()))
            .remarked(format!("this is {called}{remark}"));
        Foreign { called, meaning: Meaning::Other(error) }
    }

    fn wrong(called: &'static str, error: ParseError) -> Self {
        Foreign { called, meaning: Meaning::Other(error.remarked(format!("this is {called}"))) }
    }
}

/// The words between `start` and `end`, apart from each other by any blanks and line ends.
fn words(text: &str, (start, end): Word) -> Vec<Word> {
    let mut words = Vec::new();
    let mut begun = None;
    for (at, byte) in text.bytes().enumerate().take(end).skip(start) {
        match (begun, byte.is_ascii_whitespace()) {
            (None, false) => begun = Some(at),
            (Some(from), true) => {
                words.push((from, at));
                begun = None;
            }
            _ => {}
        }
    }
    words.extend(begun.map(|from| (from, end)));
    words
}

/// Reads a schedule of our own, and nothing else.
fn read(text: &str) -> Result<Schedule, ParseError> {
    Schedule::read(text, Cron::read)
}

/// A schedule whose words come from words of another text. An error is at the word of that text.
fn translated(text: &str, parts: &[(String, usize)]) -> Result<Schedule, ParseError> {
    let mut whole = String::new();
    let mut starts = Vec::new();
    for (part, origin) in parts {
        if !whole.is_empty() {
            whole.push(' ');
        }
        starts.push((whole.len(), part.as_str(), *origin));
        whole.push_str(part);
    }
    read(&whole).map_err(|error| {
        let found = starts.iter().rev().find(|(start, ..)| *start <= error.offset());
        let &(start, part, origin) = found.unwrap_or(&(0, "", 0));
        let within = error.offset() - start;
        // Only a word that was taken over as it is has the same places.
        let is_same = text[origin..].starts_with(part);
        error.moved(if is_same { origin + within } else { origin })
    })
}

fn taken(text: &str, (start, end): Word) -> (String, usize) {
    (text[start..end].to_owned(), start)
}

/// Returns the schedule that a text says in this library's words or in those of another program, if it says one.
fn meant(text: &str) -> Option<Schedule> {
    read(text).ok().or_else(|| match recognise(text)?.meaning {
        Meaning::Same(schedule) => Some(schedule),
        Meaning::Other(_) => None,
    })
}

/// `"0 0 12 * * ?"`: quotes that a shell should have taken off.
fn quoted(text: &str) -> Option<Foreign> {
    let trimmed = text.trim();
    let quote = trimmed.chars().next().filter(|first| "\"'`".contains(*first))?;
    let inner = trimmed[1..].strip_suffix(quote).unwrap_or(&trimmed[1..]);
    let inner = inner.trim();
    let schedule = meant(inner)?;
    let at = text.len() - text.trim_start().len();
    Some(Foreign::other(QUOTED, text, (at, FIELDS_EXPECTED), Some(schedule), ""))
}

/// `CRON_TZ=Europe/Berlin 0 2 * * *`, and lines that set variables only.
fn variables(text: &str, words: &[Word]) -> Option<Foreign> {
    let (start, _) = words[0];
    if text[start..].starts_with('#') {
        let remark = ": a comment, which says no time";
        return Some(Foreign::other(CRONTAB, text, (start, FIELDS_EXPECTED), None, remark));
    }
    let Assignment { name, value: (zone_at, value), rest_at } = assignment(text, start)?;
    if name == "OnCalendar" {
        return None;
    }
    let is_zone = ["CRON_TZ", "TZ"].iter().any(|known| known.eq_ignore_ascii_case(name));
    let zone = match value.trim_start_matches(':').parse::<Zone>() {
        Ok(zone) if is_zone => Some(zone),
        Err(error) if is_zone => return Some(Foreign::wrong(CRONTAB, error.moved(zone_at))),
        _ => None,
    };
    let rest = &text[rest_at..];
    if rest.is_empty() {
        let remark = ": it sets a variable and says no time; a zone goes to the end of a schedule";
        return Some(Foreign::other(CRONTAB, text, (start, FIELDS_EXPECTED), None, remark));
    }
    let Some(zone) = zone else {
        let remark = ": variables are no part of a schedule";
        let place = (start, FIELDS_EXPECTED);
        return Some(Foreign::other(CRONTAB, text, place, meant(rest), remark));
    };
    let foreign = in_zone(text, zone, zone_at, rest_at);
    match &foreign.meaning {
        // To cron, a name in other letters is another variable, which sets no zone.
        Meaning::Same(schedule) if name != name.to_ascii_uppercase() => {
            let remark = ": the names of variables that set a zone have capital letters";
            let place = (start, "`CRON_TZ`");
            Some(Foreign::other(CRONTAB, text, place, Some(schedule.clone()), remark))
        }
        _ => Some(foreign),
    }
}

/// `CRON_TZ = "Europe/Berlin"` at the start of a line: the name, the value without its quotes and where it starts, and
/// where the text behind them starts.
struct Assignment<'a> {
    name: &'a str,
    value: (usize, &'a str),
    rest_at: usize,
}

fn assignment(text: &str, start: usize) -> Option<Assignment<'_>> {
    let is_blank = |letter: char| letter == ' ' || letter == '\t';
    let line = text[start..].split(['\n', '\r']).next()?;
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end_matches(is_blank);
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.starts_with(|first: char| first.is_ascii_digit())
        || name.is_empty()
        || !name.bytes().all(is_of_name)
    {
        return None;
    }
    let value = value.trim_start_matches(is_blank);
    let value_at = start + line.len() - value.len();
    let quote = value.chars().next().filter(|first| "\"'".contains(*first));
    let quoted = quote.and_then(|quote| value[1..].split_once(quote)).filter(|(_, behind)| {
        behind.is_empty() || behind.starts_with(|letter: char| letter.is_ascii_whitespace())
    });
    let (value, end) = match quoted {
        Some((inner, _)) => ((value_at + 1, inner), value_at + inner.len() + 2),
        None => {
            let word = value.split(|letter: char| letter.is_ascii_whitespace()).next()?;
            ((value_at, word), value_at + word.len())
        }
    };
    let rest = text[end..].trim_start_matches(|letter: char| letter.is_ascii_whitespace());
    Some(Assignment { name, value, rest_at: text.len() - rest.len() })
}

/// The schedule behind `CRON_TZ=Europe/Berlin`, in that zone.
fn in_zone(text: &str, zone: Zone, zone_at: usize, rest_at: usize) -> Foreign {
    let rest = &text[rest_at..];
    let (called, schedule) = match (read(rest.trim_end()), recognise(rest)) {
        (Ok(schedule), _) => (CRONTAB, schedule),
        (_, Some(Foreign { called, meaning: Meaning::Same(schedule) })) => (called, schedule),
        (_, Some(Foreign { called, meaning: Meaning::Other(error) })) => {
            let hint = error.suggestion().and_then(|hint| read(&format!("{hint} {zone}")).ok());
            let error = error.shifted(rest_at);
            let error = match hint {
                Some(hint) => error.suggest(Some(hint.to_string())),
                None => error,
            };
            return Foreign { called, meaning: Meaning::Other(error) };
        }
        (Err(error), None) => return Foreign::wrong(CRONTAB, error.shifted(rest_at)),
    };
    let moved = match &schedule {
        Schedule::Cron(cron) if cron.zone().is_none() => read(&format!("{cron} {zone}")).ok(),
        Schedule::At(at) if at.zone().is_none() => {
            read(&format!("{} {zone})", at.to_string().trim_end_matches(')'))).ok()
        }
        // No clock moves a rate.
        Schedule::Rate(_) => Some(schedule),
        _ => None,
    };
    match moved {
        Some(schedule) => Foreign { called, meaning: Meaning::Same(schedule) },
        None => {
            let remark = ": it names two zones";
            Foreign::other(CRONTAB, text, (zone_at, "one zone"), None, remark)
        }
    }
}

/// `@daily`, `@every 5m`, `@reboot`.
fn macros(text: &str, words: &[Word]) -> Foreign {
    let (start, end) = words[0];
    let name = &text[start..end];
    let place = (start, FIELDS_EXPECTED);
    if name.eq_ignore_ascii_case("@reboot") {
        let remark = ": a boot is no time; give `RepeatMode` `EveryReboot` instead of a schedule \
            (`--on-reboot every` on the command line)";
        return Foreign::other(CRONTAB, text, place, None, remark);
    }
    if name.eq_ignore_ascii_case("@every") {
        return every(text, words);
    }
    let Some((_, meaning)) = MACROS.iter().find(|(one, _)| one.eq_ignore_ascii_case(name)) else {
        let known = " with a macro that is not known here";
        return Foreign::other(CRONTAB, text, place, None, known);
    };
    let command = |at| command(text, at, read(meaning).ok());
    match words.get(1) {
        None => Foreign::same(CRONTAB, meaning).unwrap_or_else(|| command(end)),
        Some(&(at, word_end)) => match text[at..word_end].parse::<Zone>() {
            Ok(zone) if words.len() == 2 => {
                Foreign::same(CRONTAB, &format!("{meaning} {zone}")).unwrap_or_else(|| command(at))
            }
            _ => command(at),
        },
    }
}

fn every(text: &str, words: &[Word]) -> Foreign {
    const EXPECTED: &str = "a duration in whole seconds, such as `5m` or `1h30m`";
    let Some(&(at, end)) = words.get(1) else {
        return Foreign::other(EVERY, text, (words[0].1, EXPECTED), None, "");
    };
    let rate = seconds(&text[at..end]).map(|seconds| {
        let (count, unit) = match seconds {
            _ if seconds % 86_400 == 0 => (seconds / 86_400, 'd'),
            _ if seconds % 3_600 == 0 => (seconds / 3_600, 'h'),
            _ if seconds % 60 == 0 => (seconds / 60, 'm'),
            _ => (seconds, 's'),
        };
        format!("rate({count}{unit})")
    });
    let rate = rate.and_then(|rate| read(&rate).ok());
    match (rate, words.get(2)) {
        (Some(rate), None) => Foreign { called: EVERY, meaning: Meaning::Same(rate) },
        (Some(rate), Some(&(at, _))) => {
            Foreign::other(EVERY, text, (at, "the end"), Some(rate), COMMAND)
        }
        (None, _) => Foreign::other(EVERY, text, (at, EXPECTED), None, ""),
    }
}

/// The whole seconds of a duration such as `1h30m`, if there are any.
fn seconds(duration: &str) -> Option<u64> {
    let mut rest = duration;
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let count: u64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b's' => 1,
            b'm' if rest.as_bytes().get(digits + 1) != Some(&b's') => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            _ => return None,
        };
        sum = sum.checked_add(count.checked_mul(unit)?)?;
        rest = &rest[digits + 1..];
    }
    (sum > 0).then_some(sum)
}

const COMMAND: &str = ": the schedule ends here; a user goes into `Username` (`--user`), and the \
    command is the script";

fn command(text: &str, at: usize, hint: Option<Schedule>) -> Foreign {
    Foreign::other(CRONTAB, text, (at, "the end"), hint, COMMAND)
}

/// Five fields: minute, hour, day, month, weekday; behind them a zone, a user or a command.
fn crontab(text: &str, words: &[Word]) -> Option<Foreign> {
    let fields: Vec<&str> = words.iter().take(5).map(|&(start, end)| &text[start..end]).collect();
    let &[minute, .., day, _, weekday] = fields.as_slice() else { return None };
    if fields.len() < 5 {
        return None;
    }
    if let Some(at) = fields.iter().position(|field| is_chosen_by_jenkins(field))
        && fields.iter().all(|field| is_fieldlike(field))
    {
        let remark = ": `H` is a number that Jenkins chooses; write one, and give the request a \
            `Spread` (`--spread`) to spread fires";
        let place = (words[at].0, "a number");
        return Some(Foreign::other(JENKINS, text, place, None, remark));
    }
    let rest = words.get(5).map(|&(start, end)| &text[start..end]);
    // `0 0 9 * * MON-FRI` begins with a second.
    if let Some(&(_, end)) = words.get(5).filter(|_| words.len() > FIELDS_MIN)
        && read(&text[words[0].0..end]).is_ok()
    {
        return None;
    }
    let is_line = match rest {
        None => minute.starts_with(|first: char| "0123456789*,-/?~".contains(first)),
        Some(rest) => is_after_schedule(text, rest, &words[5..]),
    };
    if !is_line {
        return None;
    }
    if let Some(at) = fields.iter().position(|field| field.contains('~')) {
        let remark = ": `~` is a number that cron chooses; write one, and give the request a \
            `Spread` (`--spread`) to spread fires";
        return Some(Foreign::other(CRONTAB, text, (words[at].0, "a number"), None, remark));
    }
    let mut parts = vec![("0".to_owned(), words[0].0)];
    parts.extend(words[..5].iter().map(|&word| taken(text, word)));
    let schedule = match translated(text, &parts) {
        Ok(schedule) => schedule,
        // With more words behind it, it may be anything.
        Err(_) if rest.is_some() => return None,
        Err(error) => return Some(Foreign::wrong(CRONTAB, error)),
    };
    if !days_agree(day, weekday) {
        let remark = ": cron wants days to match both fields where one starts with `*/`, and here \
            either will do; name the days one by one";
        let place = (words[2].0, "a list of days, or `*`");
        return Some(Foreign::other(CRONTAB, text, place, None, remark));
    }
    if let Some((index, place)) = unknown_to_crontabs(&fields) {
        let zone = rest.filter(|_| words.len() == 6).and_then(|rest| rest.parse::<Zone>().ok());
        let hint = match zone {
            Some(zone) => read(&format!("{schedule} {zone}")).ok(),
            None => Some(schedule),
        };
        let place = (words[index].0 + place, "what crontabs have");
        let remark = " with a form that crontabs do not have; if it means the same as here, write a second before it";
        return Some(Foreign::other(CRONTAB, text, place, hint, remark));
    }
    let Some(rest) = rest else {
        return Some(Foreign { called: CRONTAB, meaning: Meaning::Same(schedule) });
    };
    let at = words[5].0;
    match rest.parse::<Zone>() {
        Ok(zone) if words.len() == 6 => Foreign::same(CRONTAB, &format!("{schedule} {zone}")),
        Ok(zone) => Some(command(text, words[6].0, read(&format!("{schedule} {zone}")).ok())),
        Err(error) if words.len() == 6 && spelling::nearest_zone(rest).is_some() => {
            Some(Foreign::wrong(CRONTAB, error.moved(at)))
        }
        Err(_) => Some(command(text, at, Some(schedule))),
    }
}

/// The first item of five fields that no cron reads as it is read here: the field, and the place of the item in it.
fn unknown_to_crontabs(fields: &[&str]) -> Option<(usize, usize)> {
    const MONTHS: [&str; 12] =
        ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
    let value = |text: &str| {
        let of = |names: &[&str]| names.iter().position(|name| name.eq_ignore_ascii_case(text));
        text.parse::<usize>().ok().or_else(|| of(&MONTHS)).or_else(|| of(&DAYS_FROM_ONE[1..]))
    };
    let is_unknown = |index: usize, item: &str| {
        let (base, step) = item.split_once('/').map_or((item, false), |(base, _)| (base, true));
        let (first, last) = base.split_once('-').map_or((base, None), |(a, b)| (a, Some(b)));
        let is_wrapped = last.is_some_and(|last| value(first) > value(last));
        let is_day_form = match index {
            2 => item.contains(|c: char| c.is_ascii_alphabetic()),
            4 => item.contains('#') || item.ends_with(['L', 'l']),
            _ => false,
        };
        is_wrapped || is_day_form || step && last.is_none() && !"*?".contains(base)
    };
    for (index, field) in fields.iter().enumerate() {
        let mut at = 0;
        for item in field.split(',') {
            if is_unknown(index, item) {
                return Some((index, at));
            }
            at += item.len() + 1;
        }
    }
    None
}

/// Whether a word behind five fields is a zone, a user or a command, rather than a sixth field.
fn is_after_schedule(text: &str, word: &str, words: &[Word]) -> bool {
    if Zone::from_name(word).is_some() {
        return true;
    }
    let is_path = word.starts_with(['.', '~', '$', '"', '\'', '(', '[', '{', '!'])
        || word
            .strip_prefix('/')
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()));
    let is_name = word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    let looks_like_field = |&(start, end): &Word| {
        let word = &text[start..end];
        word.starts_with(|first: char| first.is_ascii_digit() || "*?".contains(first))
            || Zone::from_name(word).is_some()
    };
    // A single word may be a misspelled weekday.
    let is_command = || {
        let is_of_program = |byte: u8| byte.is_ascii_lowercase() || b"._".contains(&byte);
        word.len() > 2
            && word.bytes().all(is_of_program)
            && !word.starts_with("week")
            && !word.starts_with("work")
            && !DAYS_FROM_ONE[1..].iter().any(|day| word[..3].eq_ignore_ascii_case(day))
    };
    let is_alone = || spelling::nearest_zone(word).is_some() || is_command();
    is_path
        || is_name && word.contains('/')
        || is_name && words.len() == 1 && is_alone()
        || is_name && words.get(1).is_some_and(|next| !looks_like_field(next))
}

/// Whether a word has the letters of a field only.
fn is_fieldlike(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"*?,-/#~()".contains(&byte))
}

fn is_chosen_by_jenkins(field: &str) -> bool {
    field.split(',').any(|item| {
        item.strip_prefix('H').is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '(']))
    })
}

/// Whether the two day fields of a crontab mean the same to cron and here.
///
/// To cron, a field that starts with `*` leaves the choice to the other, though both must match;
/// here, only a `*` by itself leaves the choice.
fn days_agree(day: &str, weekday: &str) -> bool {
    let is_any = |field: &str| field.split(',').any(|item| item == "*" || item == "?");
    let is_star = |field: &str| field.starts_with('*') || field.starts_with('?');
    match (is_any(day), is_any(weekday)) {
        (true, true) => true,
        (true, false) => is_star(day),
        (false, true) => is_star(weekday),
        (false, false) => !is_star(day) && !is_star(weekday),
    }
}

/// `cron(0 16 * * ? *)`.
fn aws(text: &str) -> Option<Foreign> {
    let start = text.len() - text.trim_start().len();
    let head = text.get(start..start + 4).filter(|head| head.eq_ignore_ascii_case("cron"))?;
    let open = start + head.len();
    let inner = text[open..].trim_start();
    let open = text.len() - inner.len();
    inner.strip_prefix('(')?;
    let Some(close) = text[open..].find(')').map(|at| open + at) else {
        return Some(Foreign::other(AWS, text, (text.len(), "`)`"), None, ""));
    };
    if let Some(&(at, _)) = words(text, (close + 1, text.len())).first() {
        return Some(Foreign::other(AWS, text, (at, "the end"), None, ""));
    }
    let words = words(text, (open + 1, close));
    let [minute, hour, day, month, weekday, year] = words.as_slice() else {
        const EXPECTED: &str = "six fields, `minute hour day month weekday year`";
        let at = words.first().map_or(close, |word| word.0);
        // The end of the error's text is that of the parenthesis.
        let remark = " with another number of fields";
        return Some(Foreign::other(AWS, text, (at, EXPECTED), None, remark));
    };
    let word = |&(start, end): &Word| &text[start..end];
    if (word(day) == "?") == (word(weekday) == "?") {
        const EXPECTED: &str = "`?` in the day or in the weekday, and in one of them only";
        return Some(Foreign::other(AWS, text, (day.0, EXPECTED), None, ""));
    }
    let mut parts = vec![("0".to_owned(), minute.0)];
    parts.extend([minute, hour, day, month].map(|&word| taken(text, word)));
    match days_from_one(word(weekday)) {
        Some(days) => parts.push((days, weekday.0)),
        None => {
            let place = (weekday.0, "a weekday, 1-7 or SUN-SAT");
            return Some(Foreign::other(AWS, text, place, None, ""));
        }
    }
    if word(year) != "*" {
        parts.push(taken(text, *year));
    }
    // Its rules run in UTC.
    parts.push(("UTC".to_owned(), close));
    Some(match translated(text, &parts) {
        Ok(schedule) => Foreign { called: AWS, meaning: Meaning::Same(schedule) },
        Err(error) => Foreign::wrong(AWS, error),
    })
}

/// `0 16 * * ? *`: the fields of AWS by themselves, which have a `?` where ours cannot.
fn aws_fields(text: &str, words: &[Word]) -> Option<Foreign> {
    let [minute, hour, day, month, weekday, year] = words else { return None };
    let word = |&(start, end): &Word| &text[start..end];
    if (word(day) == "?") == (word(weekday) == "?") {
        return None;
    }
    let mut parts = vec![("0".to_owned(), minute.0)];
    parts.extend([minute, hour, day, month].map(|&word| taken(text, word)));
    parts.push((days_from_one(word(weekday))?, weekday.0));
    if word(year) != "*" {
        parts.push(taken(text, *year));
    }
    // As in `cron(…)`, its rules run in UTC.
    parts.push(("UTC".to_owned(), year.1));
    let schedule = translated(text, &parts).ok()?;
    let remark = ", which has no seconds and runs in UTC";
    Some(Foreign::other(AWS, text, (minute.0, FIELDS_EXPECTED), Some(schedule), remark))
}

/// A weekday field whose numbers count from Sunday as 1, in names.
fn days_from_one(field: &str) -> Option<String> {
    let mut names = String::with_capacity(2 * field.len());
    let mut rest = field;
    // A number behind `#` or `/` counts something else.
    let mut counts_days = true;
    while let Some(first) = rest.chars().next() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && counts_days {
            let day: usize = rest[..digits].parse().ok()?;
            names.push_str(DAYS_FROM_ONE.get(day).filter(|name| !name.is_empty())?);
            rest = &rest[digits..];
            continue;
        }
        // The last day of a week is Saturday there.
        let is_last = matches!(first, 'L' | 'l') && (names.is_empty() || names.ends_with(','));
        match is_last {
            true => names.push_str("SAT"),
            false => names.push(first),
        }
        counts_days = match first {
            '#' | '/' => false,
            ',' | '-' => true,
            _ => counts_days,
        };
        rest = &rest[first.len_utf8()..];
    }
    Some(names)
}

/// `0 0 12 L-3 * ?`: forms that only Quartz has.
fn quartz(text: &str, words: &[Word]) -> Option<Foreign> {
    let &(start, end) = words.get(3).filter(|_| (6..=8).contains(&words.len()))?;
    let from_end = |item: &str| {
        let rest = item.strip_prefix("L-").or_else(|| item.strip_prefix("l-"))?;
        rest.trim_end_matches(['W', 'w']).parse::<u8>().ok()
    };
    let mut at = start;
    for item in text[start..end].split(',') {
        if from_end(item).is_some() {
            let remark = ": days counted from the end of a month have no counterpart here";
            let place = (at + 1, "`,` or the end of the field");
            return Some(Foreign::other(QUARTZ, text, place, None, remark));
        }
        at += item.len() + 1;
    }
    None
}

/// `Mon..Fri *-*-* 08:00:00 Europe/Berlin`, `*:0/15`, `daily`.
fn on_calendar(text: &str, words: &[Word]) -> Option<Foreign> {
    let (start, end) = words[0];
    let prefix = "OnCalendar=";
    let is_named = text[start..end].starts_with(prefix);
    let mut words = words.to_vec();
    if is_named {
        words[0].0 += prefix.len();
        if words[0].0 == words[0].1 {
            words.remove(0);
        }
    }
    let word = |&(start, end): &Word| &text[start..end];
    let first = words.first().map(word).unwrap_or_default();
    let calendar = CALENDARS.iter().find(|(name, _)| name.eq_ignore_ascii_case(first));
    match (calendar, words.as_slice()) {
        (Some((_, meaning)), [_]) => return Foreign::same(SYSTEMD, meaning),
        (Some((_, meaning)), [_, zone]) => {
            return match word(zone).parse::<Zone>() {
                Ok(zone) => Foreign::same(SYSTEMD, &format!("{meaning} {zone}")),
                Err(error) => Some(Foreign::wrong(SYSTEMD, error.moved(zone.0))),
            };
        }
        _ => {}
    }
    if let Some(at) = instant(text, &words) {
        return Some(at);
    }
    let is_time = |word: &str| word.contains(':') && word.bytes().all(is_of_time);
    // With a year, the date is one by itself; without, a weekday or a time must be beside it.
    let is_year = |part: &str| {
        part == "*" || part.len() >= 4 && part.as_bytes()[..4].iter().all(u8::is_ascii_digit)
    };
    let is_date = |word: &str| {
        let parts: Vec<&str> = word.split('-').collect();
        let is_whole = word.bytes().all(is_of_time) && !word.contains(':');
        let has_all = parts.iter().all(|part| !part.is_empty());
        is_whole && has_all && (parts.len() == 2 || parts.len() == 3 && is_year(parts[0]))
    };
    let mut rest = words.as_slice();
    let mut next = |is: &dyn Fn(&str) -> bool| {
        let (first, others) = rest.split_first().filter(|(first, _)| is(word(first)))?;
        rest = others;
        Some(*first)
    };
    let weekdays = next(&|word| is_weekday_list(word) && !word.starts_with('*'));
    let date = next(&is_date);
    let time = next(&is_time);
    // A time has a `:` and a date two `-` in places where no field has any.
    let is_unmistakable = is_named
        || time.is_some()
        || date.is_some_and(|date| word(&date).matches('-').count() == 2);
    if !is_unmistakable || weekdays.is_none() && date.is_none() && time.is_none() {
        return None;
    }
    let zone = match rest {
        [] => None,
        [zone] => match word(zone).parse::<Zone>() {
            Ok(_) => Some(*zone),
            Err(error) => return Some(Foreign::wrong(SYSTEMD, error.moved(zone.0))),
        },
        [more, ..] => return Some(Foreign::other(SYSTEMD, text, (more.0, "the end"), None, "")),
    };
    let parts = date.map(|date| split(text, date, '-')).unwrap_or_default();
    let (year, month, day) = match parts.as_slice() {
        [] => (None, None, None),
        [month, day] => (None, Some(*month), Some(*day)),
        [year, month, day] => (Some(*year), Some(*month), Some(*day)),
        _ => return None,
    };
    let clock = time.map(|time| split(text, time, ':')).unwrap_or_default();
    if clock.len() > 3 {
        return None;
    }
    let at = words[0].0;
    let field = |word: Option<Word>, otherwise: &str| match word {
        Some((start, end)) => (text[start..end].replace("..", "-"), start),
        None => (otherwise.to_owned(), at),
    };
    if let Some(date) = date
        && word(&date).contains('~')
    {
        let remark = ": days counted from the end of a month have no counterpart here, but for `L`";
        return Some(Foreign::other(SYSTEMD, text, (date.0, "a date without `~`"), None, remark));
    }
    let is_any_day = day.is_none_or(|day| word(&day) == "*");
    if let Some(weekdays) = weekdays
        && !is_any_day
    {
        let remark =
            ": it wants days to match both the weekday and the date, and here either will do";
        let place = (weekdays.0, "a weekday or a day of the month");
        return Some(Foreign::other(SYSTEMD, text, place, None, remark));
    }
    let mut fields = vec![
        field(clock.get(2).copied(), "0"),
        field(clock.get(1).copied(), "0"),
        field(clock.first().copied(), "0"),
        match is_any_day {
            true => ("?".to_owned(), at),
            false => field(day, "?"),
        },
        field(month, "*"),
        field(weekdays, "?"),
    ];
    if is_any_day && weekdays.is_none() {
        fields[3].0 = "*".to_owned();
    }
    fields.extend(year.filter(|year| word(year) != "*").map(|year| field(Some(year), "")));
    fields.extend(zone.map(|zone| taken(text, zone)));
    Some(match translated(text, &fields) {
        Ok(schedule) => Foreign { called: SYSTEMD, meaning: Meaning::Same(schedule) },
        Err(error) => Foreign::wrong(SYSTEMD, error),
    })
}

/// `2030-01-01 08:00:00`, which an `at` says here.
fn instant(text: &str, words: &[Word]) -> Option<Foreign> {
    let &(start, end) = words.first()?;
    let date = &text.as_bytes()[start..end];
    let is_date = date.len() >= 10
        && date[..4].iter().all(u8::is_ascii_digit)
        && matches!(date[4], b'-' | b'/')
        && date[5..10].iter().all(|byte| byte.is_ascii_digit() || b"-/".contains(byte));
    if !is_date {
        return None;
    }
    let hint = super::at::respell(&text[start..]).and_then(|at| read(&at).ok());
    Some(Foreign::other(INSTANT, text, (start, "`at(…)`"), hint, ""))
}

fn is_of_time(byte: u8) -> bool {
    byte.is_ascii_digit() || b"*,./:~-".contains(&byte)
}

fn is_weekday_list(word: &str) -> bool {
    const NAMES: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
    let is_day = |name: &str| {
        name.len() >= 3 && NAMES.iter().any(|day| name.to_ascii_lowercase().starts_with(day))
    };
    !word.is_empty() && word.split(',').flat_map(|item| item.split("..")).all(is_day)
}

/// The parts of a word between separators; a range is written with `..`, so `-` is none there.
fn split(text: &str, (start, end): Word, separator: char) -> Vec<Word> {
    let mut at = start;
    let parts = text[start..end].split(separator).map(|part| {
        let word = (at, at + part.len());
        at = word.1 + separator.len_utf8();
        word
    });
    parts.collect()
}

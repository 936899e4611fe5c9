//! Records as text for people.

use std::collections::{BTreeMap, BTreeSet};

use adjutant::{
    Command, CommandType, ExecutionStatus, Explanation, ExplanationEntry, Fire, FireDisposition,
    Instance, Invocation, InvocationResult, InvocationStatus, InvokeId, MissedPolicy,
    OverlapPolicy, Quotas, RepeatMode, Retry, Share,
};
use chrono::{DateTime, TimeDelta, Utc};
use comfy_table::{Cell, CellAlignment, Color, ColumnConstraint, Table, Width, presets};

use crate::limits;
use crate::plain::one_line;
use crate::ui::Target;

/// The widest that a name or a script's first line may be in a table.
const TEXT_CHARS_MAX: usize = 40;

/// The priority of runs that say nothing of it.
const USUAL_PRIORITY: u8 = 5;

/// The narrowest that a last column is cut to; past that the terminal breaks the lines.
const LAST_WIDTH_MIN: u16 = 12;

/// How a run went on each instance, and when if there may be several executions on each.
pub(crate) fn results(results: &[InvocationResult], history: bool, target: Target) -> String {
    let with_reason = results.iter().any(|result| !reason(result).is_empty());
    let with_try = results.iter().any(|result| result.attempt > 1);
    let mut header = vec!["INSTANCE", "STATUS", "EXIT", "DURATION", "DROPPED"];
    let with_output = results.iter().any(|result| !result.oss_output_status.is_empty());
    header.extend(with_try.then_some("TRY"));
    header.extend(history.then_some("STARTED"));
    header.extend(with_output.then_some("WHOLE OUTPUT"));
    header.extend(with_reason.then_some("REASON"));
    let mut table = table(target, &header);
    for result in results {
        let mut row = vec![
            Cell::new(one_line(result.instance_id.as_str())),
            Cell::new(result.status).fg(colour(result.status)),
            right(exit(result)),
            right(result.duration_ms.map_or_else(nothing, duration)),
            right(result.dropped.to_string()),
        ];
        row.extend(with_try.then(|| right(result.attempt.to_string())));
        let started = || result.start_time.as_ref().map_or_else(nothing, time);
        row.extend(history.then(|| Cell::new(started())));
        row.extend(with_output.then(|| Cell::new(whole_output(result))));
        row.extend(with_reason.then(|| Cell::new(reason(result))));
        table.add_row(row);
    }
    finish(&table)
}

/// The exit code, or the signal that there was instead.
pub(crate) fn exit(result: &InvocationResult) -> String {
    match (result.signal, result.exit_code) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => code.to_string(),
        (None, None) => nothing(),
    }
}

/// Where the whole output is, if it was to go anywhere.
fn whole_output(result: &InvocationResult) -> String {
    match result.oss_output_status.as_str() {
        "Finished" => one_line(&result.oss_output_uri),
        "InProgress" => "on its way".to_owned(),
        _ => nothing(),
    }
}

/// What went wrong, with the code to search for, or when it is tried again. An exit code has a column
/// of its own; what is said beside it has not.
fn reason(result: &InvocationResult) -> String {
    if let Some(retry_time) = &result.retry_time {
        return format!("starts at {}", time(retry_time));
    }
    let info = one_line(&result.error_info);
    let mut reason = match result.error_code.as_str() {
        "" => info,
        "ExitCodeNonzero" if result.signal.is_none() => {
            info.split_once("; ").map_or_else(String::new, |(_, more)| more.to_owned())
        }
        code => format!("{info} ({code})"),
    };
    for (what, why) in [
        ("the output was not delivered", &result.oss_output_error_info),
        ("the result was not kept", &result.result_error),
    ] {
        if !why.is_empty() {
            let gap = if reason.is_empty() { "" } else { "; " };
            reason.push_str(&format!("{gap}{what}: {}", one_line(why)));
        }
    }
    reason
}

/// What executions have used and left, and who stopped them; nothing if nothing is known of it.
pub(crate) fn details(results: &[InvocationResult], target: Target) -> String {
    type Column = (&'static str, fn(&InvocationResult) -> Option<String>);
    const COLUMNS: [Column; 6] = [
        ("USER", |result| result.user_time_us.map(|us| duration(us / 1_000))),
        ("SYSTEM", |result| result.system_time_us.map(|us| duration(us / 1_000))),
        ("MAX RSS", |result| result.max_rss_bytes.map(size)),
        ("PEAK", |result| result.memory_peak_bytes.map(size)),
        ("STOPPED", stop),
        ("RESULT", left),
    ];
    let is_known = |(_, column): &&Column| results.iter().any(|one| column(one).is_some());
    let known: Vec<_> = COLUMNS.iter().filter(is_known).collect();
    if known.is_empty() {
        return String::new();
    }
    let header: Vec<_> =
        ["INSTANCE"].into_iter().chain(known.iter().map(|(name, _)| *name)).collect();
    let mut table = table(target, &header);
    for result in results {
        let name = Cell::new(one_line(result.instance_id.as_str()));
        let cells = known.iter().map(|(_, column)| column(result).unwrap_or_else(nothing));
        table.add_row([name].into_iter().chain(cells.map(Cell::new)).collect::<Vec<_>>());
    }
    format!("\n{}", finish(&table))
}

/// Why an execution was asked to end, by whom and what for.
fn stop(result: &InvocationResult) -> Option<String> {
    let cause = result.stop_cause?.to_string();
    Some(asked(cause, &result.stopped_by, &result.stop_reason))
}

/// When somebody asked to stop a run, who and what for.
fn stopped(at: DateTime<Utc>, invocation: &Invocation) -> String {
    asked(time(&at), &invocation.stopped_by, &invocation.stop_reason)
}

fn asked(mut text: String, by: &str, reason: &str) -> String {
    for (before, words) in [(" by ", by), (": ", reason)] {
        if !words.is_empty() {
            text.push_str(before);
            text.push_str(&one_line(words));
        }
    }
    text
}

/// What an execution left beside its output.
fn left(result: &InvocationResult) -> Option<String> {
    result.result.as_ref().map(|left| title(&left.to_string(), ""))
}

/// A list of runs.
pub(crate) fn invocations(
    invocations: &[Invocation],
    last_fires: &BTreeMap<InvokeId, Fire>,
    target: Target,
) -> String {
    let short = || Some(short_id_chars(invocations));
    let mut table = listed(invocations, last_fires, target, None, false);
    // A narrow terminal first gets short ids, then fewer columns.
    if !has_room(&table, target) {
        table = listed(invocations, last_fires, target, short(), false);
    }
    if !has_room(&table, target) {
        table = listed(invocations, last_fires, target, short(), true);
    }
    cut_last_column(&mut table, target);
    finish(&table)
}

/// Returns whether the terminal has room for a table whose last column is cut.
fn has_room(table: &Table, target: Target) -> bool {
    let widths = table.column_max_content_widths();
    let others = widths.iter().rev().skip(1).map(|width| width.saturating_add(2)).sum::<u16>();
    target.width().is_none_or(|width| width >= others.saturating_add(LAST_WIDTH_MIN))
}

/// Returns as many characters of ids as tell the listed runs apart: the time to the millisecond, and more if need be.
fn short_id_chars(invocations: &[Invocation]) -> usize {
    const LEAST: usize = 14;
    let ids: Vec<String> = invocations.iter().map(|one| one.invoke_id.to_string()).collect();
    let longest = ids.iter().map(String::len).max().unwrap_or(LEAST);
    let tells_apart = |chars: &usize| {
        let short: BTreeSet<&str> = ids.iter().filter_map(|id| id.get(..*chars)).collect();
        short.len() == ids.len()
    };
    (LEAST..longest).find(tells_apart).unwrap_or(longest)
}

fn listed(
    invocations: &[Invocation],
    last_fires: &BTreeMap<InvokeId, Fire>,
    target: Target,
    id_chars: Option<usize>,
    brief: bool,
) -> Table {
    let now = Utc::now();
    let with_next = invocations.iter().any(|invocation| next_fire(invocation).is_some());
    let with_last = !last_fires.is_empty();
    let mut header = vec!["", "RUN", "STATUS"];
    header.extend((!brief).then_some("ON"));
    header.push("AGE");
    header.extend((!brief).then_some("TOOK"));
    header.extend(with_last.then_some("LAST"));
    header.extend(with_next.then_some("NEXT"));
    header.push("COMMAND");
    let mut table = table(target, &header);
    for invocation in invocations {
        let next = || next_fire(invocation).map_or_else(nothing, |next| span(next - now));
        let id = invocation.invoke_id.to_string();
        let id = id_chars.and_then(|chars| id.get(..chars)).unwrap_or(&id).to_owned();
        let mut row = vec![
            Cell::new(if invocation.status.is_final() { "" } else { "*" }),
            Cell::new(id),
            Cell::new(standing(invocation, now)).fg(invocation_colour(invocation.status)),
        ];
        row.extend((!brief).then(|| right(invocation.instance_count.to_string())));
        row.push(right(span(now - invocation.creation_time)));
        row.extend((!brief).then(|| right(took(invocation).map_or_else(nothing, duration))));
        row.extend(with_last.then(|| last(last_fires.get(&invocation.invoke_id), now)));
        row.extend(with_next.then(|| right(next())));
        row.push(Cell::new(title(&invocation.command_name, &invocation.command_content.to_text())));
        table.add_row(row);
    }
    table
}

/// How the last fire of a schedule ended, and how long ago it fired.
fn last(fire: Option<&Fire>, now: DateTime<Utc>) -> Cell {
    match fire.and_then(|fire| Some((fire, fire.status?))) {
        Some((fire, status)) => {
            Cell::new(format!("{status}, {}", span(now - fire.time))).fg(invocation_colour(status))
        }
        None => Cell::new(nothing()),
    }
}

/// Returns the status of an invocation, with the reason why it does not fire.
fn standing(invocation: &Invocation, now: DateTime<Utc>) -> String {
    let why = match (pause(invocation), ahead(invocation, now)) {
        (Some(_), _) => " (paused)",
        (None, Some(_)) => " (clock was ahead)",
        (None, None) => "",
    };
    format!("{}{why}", invocation.status)
}

/// Returns until when a schedule waits because the clock was ahead of `now`: the times until then have records
/// already, or the invocation was made at that time.
fn ahead(invocation: &Invocation, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let made = (!invocation.frequency.is_empty()).then_some(invocation.creation_time);
    let until = invocation.dealt_until.max(made);
    until.filter(|until| *until > now && next_fire(invocation).is_some())
}

/// Returns the words for a schedule that waits because the clock was ahead.
fn waits(invocation: &Invocation, now: DateTime<Utc>) -> String {
    match (ahead(invocation, now), invocation.dealt_until) {
        (None, _) => String::new(),
        (Some(until), Some(dealt)) if until == dealt => format!(
            "the clock was ahead: times until {} have records already, and no time fires twice",
            time(&until)
        ),
        (Some(until), _) => {
            format!("the clock was ahead when the invocation was made, at {}", time(&until))
        }
    }
}

/// When it fires next. While it pauses there is no such time.
fn next_fire(invocation: &Invocation) -> Option<DateTime<Utc>> {
    invocation.next_fire_time.filter(|_| pause(invocation).is_none())
}

/// Since when it pauses. What has ended does not pause any more.
fn pause(invocation: &Invocation) -> Option<DateTime<Utc>> {
    invocation.pause_time.filter(|_| !invocation.status.is_final())
}

/// What became of the nominal times of a run that repeats.
pub(crate) fn fires(fires: &[Fire], target: Target) -> String {
    let with_zone = fires.iter().any(|fire| !fire.zone.is_empty());
    let with_end = fires.iter().any(|fire| fire.status.is_some());
    let mut header = vec!["FIRE", "UNTIL", "COUNT", "WHAT"];
    header.extend(with_end.then_some("ENDED"));
    header.extend(with_zone.then_some("ZONE"));
    header.push("REASON");
    let mut table = table(target, &header);
    for fire in fires {
        let (what, colour) = disposition(fire);
        let mut row = vec![
            Cell::new(time(&fire.time)),
            Cell::new(fire.until.as_ref().map_or_else(nothing, time)),
            right(fire.count.to_string()),
            Cell::new(what).fg(colour),
        ];
        row.extend(with_end.then(|| match fire.status {
            Some(status) => Cell::new(status).fg(invocation_colour(status)),
            None => Cell::new(nothing()),
        }));
        row.extend(with_zone.then(|| Cell::new(one_line(&fire.zone))));
        row.push(Cell::new(one_line(&fire.reason)));
        table.add_row(row);
    }
    finish(&table)
}

fn disposition(fire: &Fire) -> (&'static str, Color) {
    match fire.disposition {
        FireDisposition::Started => ("Started", Color::Green),
        FireDisposition::Skipped => ("Skipped", Color::Yellow),
        FireDisposition::Missed => ("Missed", Color::Yellow),
    }
}

/// Why a run did or did not run at an instant, with its times around that.
pub(crate) fn explanation(explanation: &Explanation) -> String {
    let entries = &explanation.entries;
    let with_zone = entries.len() > 1;
    entries.iter().map(|entry| explained(entry, with_zone)).collect()
}

fn explained(entry: &ExplanationEntry, with_zone: bool) -> String {
    let zone = match entry.zone.as_str() {
        zone if with_zone && !zone.is_empty() => format!("{}: ", one_line(zone)),
        _ => String::new(),
    };
    let before = entry.before.as_ref().map(|fire| {
        let last = fire.until.as_ref().unwrap_or(&fire.time);
        format!("{}  {}", time(last), disposition(fire).0)
    });
    let after = entry.after.as_ref().map(time);
    let around = [("before", before.unwrap_or_default()), ("after", after.unwrap_or_default())];
    format!("{zone}{}\n{}", one_line(&entry.text), fields(&around))
}

/// A list of stored commands.
pub(crate) fn commands(commands: &[Command], target: Target) -> String {
    let mut table = table(target, &["COMMAND", "NAME", "CREATED", "RUNS", "SCRIPT"]);
    for command in commands {
        table.add_row(vec![
            Cell::new(command.command_id),
            Cell::new(title(&command.name, "")),
            Cell::new(time(&command.creation_time)),
            right(command.invoke_times.to_string()),
            Cell::new(title("", &command.command_content.to_text())),
        ]);
    }
    cut_last_column(&mut table, target);
    finish(&table)
}

/// A list of instances.
pub(crate) fn instances(instances: &[Instance], target: Target) -> String {
    let with_shell = instances.iter().any(|instance| instance.shell.is_some());
    let with_bound = instances.iter().any(|instance| instance.max_concurrency.is_some());
    let mut header = vec!["INSTANCE", "EXECUTOR", "OS", "STATUS"];
    header.extend(with_shell.then_some("SHELL"));
    header.extend(with_bound.then_some("AT A TIME"));
    header.push("NAME");
    let mut table = table(target, &header);
    for instance in instances {
        let shell = || instance.shell.as_deref().map_or_else(nothing, one_line);
        let bound = || instance.max_concurrency.map_or_else(nothing, |most| most.to_string());
        let mut row = vec![
            Cell::new(one_line(instance.instance_id.as_str())),
            Cell::new(one_line(&instance.executor)),
            Cell::new(instance.os_type),
            Cell::new(instance.state),
        ];
        row.extend(with_shell.then(|| Cell::new(shell())));
        row.extend(with_bound.then(|| right(bound())));
        row.push(Cell::new(one_line(&instance.name)));
        table.add_row(row);
    }
    finish(&table)
}

/// How much of the quotas is used.
pub(crate) fn quotas(quotas: &Quotas) -> String {
    // The engine cuts a missing quota to the largest count of a column.
    let of = |used: u64, max: u64| match max < i64::MAX.unsigned_abs() {
        true => format!("{used} of {max}"),
        false => used.to_string(),
    };
    fields(&[
        ("Commands", of(quotas.kept_commands, quotas.kept_commands_max)),
        ("Today", format!("{} runs", of(quotas.invocations_today, quotas.invocations_per_day_max))),
    ])
}

fn timeout(seconds: Option<u64>) -> String {
    seconds.map_or("none".to_owned(), |seconds| format!("{seconds} s"))
}

/// What a run is, line by line.
pub(crate) fn invocation(invocation: &Invocation) -> String {
    let script = invocation.command_content.to_text();
    let now = Utc::now();
    fields(&[
        ("Run", invocation.invoke_id.to_string()),
        ("Status", standing(invocation, now)),
        ("Retry of", invocation.retry_of.map(|first| first.to_string()).unwrap_or_default()),
        ("Command", invocation.command_id.to_string()),
        ("Name", one_line(&invocation.command_name)),
        ("Script", title("", &script)),
        ("Frequency", one_line(&invocation.frequency)),
        ("Repeats", reboots(invocation.repeat_mode).to_owned()),
        ("Overlap", overlap(invocation.overlap_policy).to_owned()),
        ("Missed", missed(invocation.missed_policy)),
        ("Spread", number(invocation.spread, " s")),
        ("Until", given(invocation.end_time)),
        ("Times", number(invocation.max_fires.unwrap_or_default(), "")),
        ("Retry", invocation.retry.as_ref().map(retry).unwrap_or_default()),
        ("At a time", share(invocation.max_concurrency, "")),
        ("Errors", share(invocation.max_errors, "at most ")),
        ("Waves", waves(invocation)),
        ("Priority", priority(invocation.priority)),
        ("Key", one_line(&invocation.concurrency_key)),
        ("Start in", number(invocation.start_deadline.unwrap_or_default(), " s")),
        ("End in", number(invocation.deadline.unwrap_or_default(), " s")),
        ("Paused", given(pause(invocation))),
        ("Next", given(next_fire(invocation))),
        ("Waits", waits(invocation, now)),
        ("Launcher", one_line(&invocation.launcher)),
        ("User", one_line(&invocation.username)),
        ("Output to", one_line(&invocation.oss_output_delivery)),
        ("Folder", one_line(&invocation.working_dir)),
        ("Timeout", timeout(invocation.timeout)),
        ("Limits", limits::spelled(&invocation.resource_limits)),
        ("Survives", if invocation.survive_restarts { "restarts" } else { "" }.to_owned()),
        ("Created", time(&invocation.creation_time)),
        ("Stopped", invocation.stop_time.map(|at| stopped(at, invocation)).unwrap_or_default()),
        ("Ended", given(invocation.finish_time)),
    ])
}

/// Which boots of its instances it runs at, if those are what repeats it.
fn reboots(mode: RepeatMode) -> &'static str {
    match mode {
        RepeatMode::Once | RepeatMode::Period | RepeatMode::DryRun => "",
        RepeatMode::NextRebootOnly => "at the next reboot",
        RepeatMode::EveryReboot => "at every reboot",
    }
}

/// A policy in the words of its option; nothing for the default.
fn overlap(policy: OverlapPolicy) -> &'static str {
    match policy {
        OverlapPolicy::Skip => "",
        OverlapPolicy::Queue => "queue",
        OverlapPolicy::Allow => "allow",
        OverlapPolicy::Replace => "replace",
    }
}

/// The same for what was missed.
fn missed(policy: MissedPolicy) -> String {
    match policy {
        MissedPolicy::Skip => String::new(),
        MissedPolicy::Latest | MissedPolicy::All(_) => policy.to_string().to_lowercase(),
    }
}

/// How often it is tried, and when again: `3 times, after 5 s, x2, at most 300 s, on failed, timeout`.
fn retry(retry: &Retry) -> String {
    let longest = retry.max_backoff_seconds.map(|max| format!(", at most {max} s"));
    let on: Vec<_> = retry.on.iter().map(|on| on.to_string().to_lowercase()).collect();
    format!(
        "{} times, after {} s, x{}{}, on {}",
        retry.max_attempts,
        retry.backoff_seconds,
        retry.backoff_factor,
        longest.unwrap_or_default(),
        on.join(", ")
    )
}

/// A share with a word before it; nothing for none.
fn share(share: Option<Share>, before: &str) -> String {
    share.map(|share| format!("{before}{share}")).unwrap_or_default()
}

/// How far each wave goes, and what is between two: `1, 10%, 100%, 60 s between`.
fn waves(invocation: &Invocation) -> String {
    let mut parts: Vec<_> = invocation.waves.iter().map(Share::to_string).collect();
    parts.extend(invocation.wave_soak.map(|seconds| format!("{seconds} s between")));
    parts.join(", ")
}

/// A priority; nothing for that of most.
fn priority(priority: u8) -> String {
    if priority == USUAL_PRIORITY { String::new() } else { priority.to_string() }
}

/// A number with its unit; nothing for 0.
fn number(number: u64, unit: &str) -> String {
    if number == 0 { String::new() } else { format!("{number}{unit}") }
}

/// A time; nothing for none.
fn given(instant: Option<DateTime<Utc>>) -> String {
    instant.as_ref().map(time).unwrap_or_default()
}

/// What a stored command is, line by line.
pub(crate) fn command(command: &Command) -> String {
    let pairs = |pairs: Vec<String>| one_line(&pairs.join(", "));
    let tags = command.tags.iter().map(|tag| format!("{}={}", tag.key, tag.value));
    let tags = pairs(tags.collect());
    let defaults = command.parameter_definitions.iter().filter(|one| !one.required);
    let defaults = defaults.map(|one| format!("{}={}", one.parameter_name, one.default_value));
    let defaults = pairs(defaults.collect());
    let secrets: Vec<_> = command.secret_parameters.iter().collect();
    fields(&[
        ("Command", command.command_id.to_string()),
        ("Name", one_line(&command.name)),
        ("About", one_line(&command.description)),
        ("Type", language(command.command_type).to_owned()),
        ("Launcher", one_line(&command.launcher)),
        ("User", one_line(&command.username)),
        ("Tags", tags),
        ("Defaults", defaults),
        ("Secrets", one_line(&secrets.join(", "))),
        ("Output to", one_line(&command.oss_output_delivery)),
        ("Folder", one_line(&command.working_dir)),
        ("Timeout", timeout(command.timeout)),
        ("Created", time(&command.creation_time)),
        ("Runs", command.invoke_times.to_string()),
    ])
}

/// What a script is written in, in the words of the option.
fn language(command_type: CommandType) -> &'static str {
    match command_type {
        CommandType::RunShellScript => "shell",
        CommandType::RunPowerShellScript => "powershell",
        CommandType::RunBatScript => "bat",
    }
}

/// Names and values; what has no value is left out.
fn fields(fields: &[(&str, String)]) -> String {
    let given = fields.iter().filter(|(_, value)| !value.is_empty());
    given.map(|(name, value)| format!("{name:<10}{value}\n")).collect()
}

/// A table without lines, as the stream can show it.
fn table(target: Target, header: &[&str]) -> Table {
    let mut table = Table::new();
    // Long lines are the terminal's to break: an id that is broken here cannot be copied.
    table.load_style(presets::NOTHING).set_header(header).force_no_tty();
    if target.has_colours() {
        table.enforce_styling();
    }
    table
}

/// Keeps the rows to one line of the terminal each, as far as the last column is to blame.
fn cut_last_column(table: &mut Table, target: Target) {
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

fn finish(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        // The style's margin and the padding of the last column.
        text.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
        text.push('\n');
    }
    text
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn nothing() -> String {
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

pub(crate) fn time<T: std::fmt::Display>(time: &T) -> String {
    // The library's times are in UTC and print as `2026-01-31 12:00:00.123 UTC`.
    let text = time.to_string();
    let seconds = text.split(['.', 'U']).next().unwrap_or(&text).trim_end();
    format!("{seconds}Z")
}

fn took(invocation: &Invocation) -> Option<u64> {
    let took = invocation.finish_time?.signed_duration_since(invocation.creation_time);
    u64::try_from(took.num_milliseconds()).ok()
}

/// How long ago something was or how far it is away, in its largest unit.
pub(crate) fn span(distance: TimeDelta) -> String {
    let s = distance.num_seconds().max(0);
    match s {
        0..60 => format!("{s} s"),
        60..3_600 => format!("{} min", s / 60),
        3_600..86_400 => format!("{} h", s / 3_600),
        _ => format!("{} d", s / 86_400),
    }
}

/// Three digits that matter: `7 ms`, `1.25 s`, `2 min 05 s`, `3 h 01 min`.
pub(crate) fn duration(ms: u64) -> String {
    let s = ms / 1_000;
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{:02} s", s, ms % 1_000 / 10),
        60_000..3_600_000 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3_600, s / 60 % 60),
    }
}

/// A number of bytes in the largest unit of which there is one: `999 B`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.into_iter().find(|(_, power)| bytes >> power > 0) {
        Some((unit, power)) => {
            let tenths = (u128::from(bytes) * 10) >> power;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

fn colour(status: ExecutionStatus) -> Color {
    match status {
        ExecutionStatus::Success => Color::Green,
        ExecutionStatus::Cancelled | ExecutionStatus::Terminated | ExecutionStatus::Skipped => {
            Color::Yellow
        }
        status if status.is_final() => Color::Red,
        _ => Color::Cyan,
    }
}

fn invocation_colour(status: InvocationStatus) -> Color {
    match status {
        InvocationStatus::Success => Color::Green,
        InvocationStatus::Stopped => Color::Yellow,
        status if status.is_final() => Color::Red,
        _ => Color::Cyan,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn durations() {
        for (ms, want) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.00 s"),
            (1_259, "1.25 s"),
            (59_999, "59.99 s"),
            (125_000, "2 min 05 s"),
            (10_860_000, "3 h 01 min"),
            (u64::MAX, "5124095576030 h 25 min"),
        ] {
            assert_eq!(duration(ms), want);
        }
    }

    #[test]
    fn sizes() {
        for (bytes, want) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (256 << 20, "256.0 MiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(size(bytes), want);
        }
    }

    #[test]
    fn what_is_known_of_executions_beside_their_end_has_its_columns() {
        let mut result = json!({
            "ExecutionId": 1, "InvokeId": format!("t-{}", "0".repeat(32)),
            "CommandId": format!("c-{}", "0".repeat(32)), "InstanceId": "i-1", "Attempt": 1,
            "InvocationStatus": "Terminated", "InvokeRecordStatus": "Stopped", "Repeats": 1,
            "StartTime": "", "FinishedTime": "", "StopTime": "", "RetryTime": "", "DurationMs": null,
            "ExitCode": null, "Signal": null, "ErrorCode": "", "ErrorInfo": "", "Output": "",
            "Dropped": 0, "DroppedAt": null, "Username": "", "Launcher": "", "ContainerId": "",
            "ContainerName": "", "TerminationMode": "Process", "Tags": {"Tag": []},
            "OssOutputDelivery": "", "OssOutputStatus": "", "OssOutputUri": "", "OssOutputErrorCode": "",
            "OssOutputErrorInfo": "",
        });
        let mut check = |changes: Value, want: &str| {
            for (field, value) in changes.as_object().expect("an object") {
                result[field] = value.clone();
            }
            let result = serde_json::from_value(result.clone()).expect("a result");
            assert_eq!(details(&[result], Target::Stdout), want);
        };
        check(json!({}), "");
        check(
            json!({"StopCause": "Stopped", "StoppedBy": "ann", "StopReason": "a\tb"}),
            "\nINSTANCE  STOPPED\ni-1       Stopped by ann: a\\tb\n",
        );
        check(
            json!({"UserTimeUs": 1_250_000, "MaxRssBytes": 1_536, "Result": [1], "StoppedBy": ""}),
            "\nINSTANCE  USER    MAX RSS  STOPPED        RESULT\n\
             i-1       1.25 s  1.5 KiB  Stopped: a\\tb  [1]\n",
        );
    }

    #[test]
    fn spans() {
        for (s, want) in [
            (-2, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (3_599, "59 min"),
            (7_200, "2 h"),
            (90_000, "1 d"),
        ] {
            assert_eq!(span(TimeDelta::seconds(s)), want);
        }
    }

    #[test]
    fn an_explanation_names_its_zones_if_there_are_several() {
        let fire = json!({
            "Time": "2030-01-31T08:00:00Z", "Until": "2030-01-31T08:02:00Z", "Count": 3, "Zone": "",
            "Disposition": "Missed", "Reason": "", "DealtTime": "2030-01-31T08:02:00Z",
        });
        let entry = |zone: &str, before: &Value, after: Option<&str>| {
            json!({
                "Zone": zone, "Text": "It\nfired.", "Fire": null, "Executions": [],
                "Before": before, "After": after,
            })
        };
        let check = |entries: &[Value], want: &str| {
            let whole =
                json!({"RequestId": "", "Instant": "2030-01-31T09:00:00Z", "Entries": entries});
            let whole = serde_json::from_value(whole).expect("an explanation");
            assert_eq!(explanation(&whole), want);
        };
        let after = Some("2030-02-01T00:00:00Z");
        let one = entry("Etc/UTC", &fire, after);
        let around = "before    2030-01-31 08:02:00Z  Missed\nafter     2030-02-01 00:00:00Z\n";
        check(std::slice::from_ref(&one), &format!("It\\nfired.\n{around}"));
        check(
            &[one, entry("Asia/Tokyo", &Value::Null, after), entry("", &Value::Null, None)],
            &format!(
                "Etc/UTC: It\\nfired.\n{around}\
                 Asia/Tokyo: It\\nfired.\nafter     2030-02-01 00:00:00Z\n\
                 It\\nfired.\n"
            ),
        );
    }

    #[test]
    fn a_schedule_that_waits_for_the_clock_says_why() {
        let check = |set: Value, in_list: &str, in_full: &str| {
            let mut whole = json!({
                "InvokeId": "t-00000000000000000000000000000001",
                "CommandId": "c-00000000000000000000000000000001", "CommandName": "",
                "CommandDescription": "", "CommandType": "RunShellScript", "CommandContent": "",
                "InvocationStatus": "Scheduled", "InvokeStatus": "Running", "RepeatMode": "Period",
                "Timed": true, "Frequency": "rate(1m)", "OverlapPolicy": "Skip", "MissedPolicy": "Skip",
                "Spread": 0, "EndTime": "", "MaxFires": null, "PauseTime": "",
                "NextFireTime": "2030-01-31T10:11:00Z", "CreationTime": "2030-01-01T00:00:00Z",
                "FinishTime": "", "WorkingDir": "", "Timeout": 60, "Username": "",
                "WindowsPasswordName": "", "Launcher": "", "ContainerId": "", "ContainerName": "",
                "OssOutputDelivery": "", "Parameters": "", "DefaultParameters": "",
                "ParameterPassing": "Text", "Tags": {"Tag": []}, "ResourceGroupId": "", "Caller": "",
                "TerminationMode": "ProcessTree", "InstanceCount": 1,
                "InvokeInstances": {"InvokeInstance": []},
            });
            for (field, value) in set.as_object().expect("fields") {
                whole[field] = value.clone();
            }
            let invocation: Invocation = serde_json::from_value(whole).expect("an invocation");
            let now = "2030-01-31T09:00:00Z".parse().expect("a time");
            assert_eq!(standing(&invocation, now), in_list);
            assert_eq!(waits(&invocation, now), in_full);
        };
        check(json!({}), "Scheduled", "");
        check(json!({"DealtUntil": "2030-01-31T09:00:00Z"}), "Scheduled", "");
        let ahead = "2030-01-31T10:10:00Z";
        let why = "the clock was ahead: times until 2030-01-31 10:10:00Z have records already, and no \
            time fires twice";
        check(json!({"DealtUntil": ahead}), "Scheduled (clock was ahead)", why);
        let paused = json!({"DealtUntil": ahead, "PauseTime": "2030-01-31T08:00:00Z"});
        check(paused, "Scheduled (paused)", "");
        check(json!({"DealtUntil": ahead, "NextFireTime": ""}), "Scheduled", "");
        let why = "the clock was ahead when the invocation was made, at 2031-01-01 00:00:00Z";
        check(json!({"CreationTime": "2031-01-01T00:00:00Z"}), "Scheduled (clock was ahead)", why);
        let boots = json!({"CreationTime": "2031-01-01T00:00:00Z", "Frequency": ""});
        check(boots, "Scheduled", "");
    }

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

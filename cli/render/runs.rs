//! Runs: the list of many, and all fields of one.

use std::collections::{BTreeMap, BTreeSet};

use adjutant::{
    Fire, Invocation, InvokeId, MissedPolicy, OverlapPolicy, Quotas, RepeatMode, Retry, Share,
};
use chrono::{DateTime, Utc};
use comfy_table::{Cell, Table};

use super::executions::asked;
use super::table::{
    cut_last_column, fields, finish, has_room, invocation_colour, nothing, right, table, title,
};
use super::units::{duration, span, time, timeout};
use crate::limits;
use crate::plain::one_line;
use crate::ui::Target;

/// The priority of runs that say nothing of it.
const USUAL_PRIORITY: u8 = 5;

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

fn took(invocation: &Invocation) -> Option<u64> {
    let took = invocation.finish_time?.signed_duration_since(invocation.creation_time);
    u64::try_from(took.num_milliseconds()).ok()
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

/// When somebody asked to stop a run, who and what for.
fn stopped(at: DateTime<Utc>, invocation: &Invocation) -> String {
    asked(time(&at), &invocation.stopped_by, &invocation.stop_reason)
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
}

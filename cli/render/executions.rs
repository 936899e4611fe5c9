//! Executions: how each ended, and what each used.

use adjutant::InvocationResult;
use comfy_table::Cell;

use super::table::{colour, finish, nothing, right, table, title};
use super::units::{duration, size, time};
use crate::plain::one_line;
use crate::ui::Target;

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

/// What an execution left beside its output.
fn left(result: &InvocationResult) -> Option<String> {
    result.result.as_ref().map(|left| title(&left.to_string(), ""))
}

pub(super) fn asked(mut text: String, by: &str, reason: &str) -> String {
    for (before, words) in [(" by ", by), (": ", reason)] {
        if !words.is_empty() {
            text.push_str(before);
            text.push_str(&one_line(words));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
}

//! Fires of schedules, and why a run did or did not run at an instant.

use adjutant::{Explanation, ExplanationEntry, Fire, FireDisposition};
use comfy_table::{Cell, Color};

use super::table::{fields, finish, invocation_colour, nothing, right, table};
use super::units::time;
use crate::plain::one_line;
use crate::ui::Target;

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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

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
}

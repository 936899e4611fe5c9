//! What is said of schedules: descriptions are true of the fires, and texts in the languages of other programs
//! mean here what they mean there, or are refused at the place that has no counterpart.

use adjutant::schedule::Schedule;
use chrono::{DateTime, TimeDelta, Timelike, Utc};
use proptest::prelude::*;
use proptest::sample::select;

use super::schedule_laws::{expression, run};

fn start() -> DateTime<Utc> {
    "2027-01-01T00:00:00Z".parse().unwrap()
}

/// A set of numbers in words: `5, 7 and 30 to 40`.
fn numbers(words: &str) -> Vec<u32> {
    let items = words.split(", ").flat_map(|item| item.split(" and "));
    let range = |item: &str| match item.split_once(" to ") {
        Some((first, last)) => first.parse().unwrap()..=last.parse().unwrap(),
        None => item.parse().unwrap()..=item.parse::<u32>().unwrap(),
    };
    items.flat_map(range).collect()
}

/// The times of day that the first part of a description names, as seconds of the day.
///
/// Reads the words as a person does: `every N units` are N units apart, without exception.
fn times(words: &str) -> Vec<u32> {
    let all = 0..86_400_u32;
    if let Some(list) = words.strip_prefix("at ")
        && list.starts_with(|first: char| first.is_ascii_digit())
    {
        let times = list.split(", ").flat_map(|item| item.split(" and "));
        let seconds = |time: &str| {
            let parts: Vec<u32> = time.split(':').map(|part| part.parse().unwrap()).collect();
            parts[0] * 3600 + parts[1] * 60 + parts.get(2).copied().unwrap_or_default()
        };
        return times.map(seconds).collect();
    }
    // `every 2 hours from 00:30`.
    if let Some((count, from)) =
        words.strip_prefix("every ").and_then(|rest| rest.split_once(" hours from "))
    {
        let (hour, minute) = from.split_once(':').unwrap();
        let first = hour.parse::<u32>().unwrap() * 3600 + minute.parse::<u32>().unwrap() * 60;
        let step = count.parse::<u32>().unwrap() * 3600;
        assert!(86_400 % step == 0 && first < step, "{words}");
        return (first..86_400).step_by(step as usize).collect();
    }
    // The largest unit that is named first; smaller ones are at zero.
    let units = [("second", 1, 60), ("minute", 60, 60), ("hour", 3600, 24)];
    let mut is_in = vec![true; 86_400];
    let mut smallest = None;
    let mut rest = words;
    while !rest.is_empty() {
        let (kind, after) = rest.split_once(' ').unwrap_or((rest, ""));
        match kind {
            "of" => {
                // `of every hour` takes nothing away.
                rest = after.trim_start_matches("every minute").trim_start_matches("every hour");
            }
            "every" => {
                let (count, unit) = match after.split_once(' ') {
                    Some((count, unit)) if count.parse::<u32>().is_ok() => {
                        (count.parse().unwrap(), unit)
                    }
                    _ => (1, after),
                };
                let (name, size, cycle) =
                    *units.iter().find(|(name, ..)| unit.starts_with(name)).unwrap();
                let unit = unit.trim_start_matches(name).trim_start_matches('s').trim_start();
                let (from, left) = match unit.strip_prefix("from ") {
                    Some(from) => {
                        let from = from.trim_start_matches(name).trim_start();
                        let (from, left) = from.split_once(' ').unwrap_or((from, ""));
                        (from.parse().unwrap(), left)
                    }
                    None => (0, unit),
                };
                assert!(cycle % count == 0, "{words}: uneven");
                assert!(from < count, "{words}: does not start there");
                for second in all.clone() {
                    is_in[second as usize] &= second / size % cycle % count == from;
                }
                smallest = smallest.or(Some(size));
                rest = left;
            }
            "at" | "in" => {
                let (unit, list) = after.split_once(' ').unwrap();
                let (_, size, cycle) =
                    *units.iter().find(|(name, ..)| unit.trim_end_matches('s') == *name).unwrap();
                let end =
                    [" in ", " of ", " every "].iter().filter_map(|next| list.find(next)).min();
                let (list, left) = list.split_at(end.unwrap_or(list.len()));
                let values = numbers(list);
                for second in all.clone() {
                    is_in[second as usize] &= values.contains(&(second / size % cycle));
                }
                smallest = smallest.or(Some(size));
                rest = left;
            }
            _ => panic!("{words}: {kind}"),
        }
        rest = rest.trim_start();
    }
    let smallest = smallest.unwrap_or(1);
    all.filter(|second| is_in[*second as usize] && second % smallest == 0).collect()
}

#[test]
fn a_description_names_the_times_of_day_at_which_it_fires() {
    run(400, expression(), |expression| {
        let Ok(schedule) = format!("{} UTC", expression.daily_text()).parse::<Schedule>() else {
            return Ok(());
        };
        let words = schedule.describe();
        let words = words.strip_prefix("Fires ").unwrap().strip_suffix(" every day, UTC time.");
        let words = words.unwrap_or_else(|| panic!("{}", schedule.describe()));
        let day = start() - TimeDelta::seconds(1);
        let fires = schedule.upcoming(day).take_while(|fire| *fire < start() + TimeDelta::days(1));
        let fires: Vec<u32> = fires.map(|fire| fire.num_seconds_from_midnight()).collect();
        prop_assert_eq!(times(words), fires, "{}: {}", schedule, words);
        Ok(())
    });
}

#[test]
fn a_distance_that_is_named_is_that_of_all_fires_of_a_year() {
    let field = |max: u32| {
        prop_oneof![
            (1..=max).prop_map(|step| format!("*/{step}")),
            (0..=max, 1..=max).prop_map(|(first, step)| format!("{first}/{step}")),
            Just("*".to_owned()),
            Just("0".to_owned()),
        ]
    };
    run(2000, (field(59), field(59), field(23)), |(second, minute, hour)| {
        let schedule: Schedule = format!("{second} {minute} {hour} * * ? UTC").parse()?;
        let words = schedule.describe();
        let mut claim = words.split(' ').skip(1);
        if claim.next() != Some("every") || words.contains(" in ") {
            return Ok(());
        }
        let (count, unit) = match claim.next().unwrap() {
            unit @ ("second" | "minute" | "hour") => (1, unit),
            count => (count.parse::<i64>().unwrap(), claim.next().unwrap()),
        };
        let unit = match unit.trim_end_matches('s') {
            "second" => 1,
            "minute" => 60,
            _ => 3600,
        };
        // A year of fires, or as many as show each boundary of minutes, hours and days.
        let fires: Vec<_> = schedule
            .upcoming(start())
            .take(90_000.min(366 * 86_400 / (count * unit)) as usize)
            .collect();
        for pair in fires.windows(2) {
            prop_assert_eq!((pair[1] - pair[0]).num_seconds(), count * unit, "{}", words);
        }
        Ok(())
    });
}

#[test]
fn an_uneven_step_is_described_by_its_values() {
    let check = |text: &str, want: &str| {
        let schedule: Schedule = text.parse().unwrap();
        assert_eq!(schedule.describe(), format!("Fires {want}, UTC time."), "{text}");
    };
    check(
        "0 */7 * * * ? UTC",
        "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour every day",
    );
    check("0 */5 * * * ? UTC", "every 5 minutes every day");
    check("0 5/15 * * * ? UTC", "every 15 minutes from minute 5 every day");
    check("0 0 */5 * * ? UTC", "at minute 0 in hours 0, 5, 10, 15 and 20 every day");
    check("0 30 */3 * * ? UTC", "every 3 hours from 00:30 every day");
    check("0 30 1/3 * * ? UTC", "every 3 hours from 01:30 every day");
    check(
        "*/7 * * * * ? UTC",
        "at seconds 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every minute every day",
    );
    check("*/10 5 * * * ? UTC", "every 10 seconds in minute 5 of every hour every day");
    check(
        "30 */20 9-17 * * ? UTC",
        "at second 30 in minutes 0, 20 and 40 in hours 9 to 17 every day",
    );
    check("0 5,40 * * * ? UTC", "at minutes 5 and 40 of every hour every day");
}

/// The text is read as this schedule, and not by the pages' reader.
#[track_caller]
fn means(text: &str, want: &str) {
    let read = Schedule::read_lenient(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(read.schedule.to_string(), want, "{text}");
    let note = read.note.unwrap_or_else(|| panic!("{text}: no note"));
    assert!(note.contains(&format!("`{want}`")) && !note.contains(['\t', '\n']), "{note}");
    let error = text.parse::<Schedule>().expect_err("the pages know no other dialects");
    assert_eq!(error.suggestion(), Some(want), "{text}: {error}");
    assert!(error.remark().is_some(), "{text}: {error}");
}

/// Both readers refuse the text at the `^`, with these words and this schedule, if any.
#[track_caller]
fn refused(text: &str, mark: &str, words: &[&str], suggestion: Option<&str>) {
    let lenient = Schedule::read_lenient(text).err();
    let error = text.parse::<Schedule>().expect_err("no schedule");
    assert_eq!(lenient.as_ref(), Some(&error), "{text}");
    assert_eq!(error.offset(), mark.find('^').unwrap_or(0), "{text}: {error}");
    assert_eq!(error.suggestion(), suggestion, "{text}: {error}");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{text}: {message}");
    }
    if let Some(suggestion) = suggestion {
        let parsed = suggestion
            .parse::<Schedule>()
            .map(|_| ())
            .or_else(|_| suggestion.parse::<adjutant::schedule::Zone>().map(|_| ()));
        assert!(parsed.is_ok(), "{suggestion} can be pasted");
    }
}

#[test]
fn crontab_lines_are_read_with_a_second_before_them() {
    means("*/5 * * * *", "0 */5 * * * *");
    means("17\t*\t*\t*\t*", "0 17 * * * *");
    means("30 2 * * 1-5", "0 30 2 * * 1-5");
    means("0  9-17  *  *  mon-fri", "0 0 9-17 * * MON-FRI");
    means("0 2 1 */3 *", "0 0 2 1 */3 *");
    means("30 2 * * * Asia/Shanghai", "0 30 2 * * * Asia/Shanghai");
    means("CRON_TZ=Europe/Berlin 0 2 * * *", "0 0 2 * * * Europe/Berlin");
    means("TZ=Europe/Berlin 0 2 * * *", "0 0 2 * * * Europe/Berlin");
    means("CRON_TZ=Europe/Berlin\n0 2 * * *", "0 0 2 * * * Europe/Berlin");
    means("CRON_TZ=UTC 0 30 2 * * ?", "0 30 2 * * ? UTC");
    means("CRON_TZ=UTC @daily", "0 0 0 * * ? UTC");
    means("@hourly", "0 0 * * * ?");
    means("@daily", "0 0 0 * * ?");
    means("@Midnight", "0 0 0 * * ?");
    means("@weekly", "0 0 0 ? * SUN");
    means("@monthly", "0 0 0 1 * ?");
    means("@yearly", "0 0 0 1 1 ?");
    means("@annually", "0 0 0 1 1 ?");
    means("@daily UTC", "0 0 0 * * ? UTC");
    means("@every 5m", "rate(5m)");
    means("@every 1h30m", "rate(90m)");
    means("@every 90s", "rate(90s)");
    means("@every 48h", "rate(2d)");
}

#[test]
fn a_zone_before_a_crontab_schedule_is_read_in_all_its_forms() {
    let berlin = "0 0 2 * * * Europe/Berlin";
    for set in [
        "CRON_TZ = Europe/Berlin",
        "CRON_TZ= Europe/Berlin",
        "TZ =Europe/Berlin",
        "TZ\t=\tEurope/Berlin",
        "CRON_TZ=\"Europe/Berlin\"",
        "CRON_TZ='Europe/Berlin'",
        "CRON_TZ = \"Europe/Berlin\" ",
        "TZ=:Europe/Berlin",
        "TZ = ':Europe/Berlin'",
    ] {
        for between in [" ", "\t", "\n", "\r\n", "\n\n  "] {
            means(&format!("{set}{between}0 2 * * *"), berlin);
        }
    }
    means("CRON_TZ = UTC @daily", "0 0 0 * * ? UTC");
    means("CRON_TZ='GMT+8:00' @daily", "0 0 0 * * ? GMT+8:00");
    means("TZ = UTC rate(5m)", "rate(5m)");
    means("TZ=Europe/Berlin at(2030-01-01 08:00:00)", "at(2030-01-01 08:00:00 Europe/Berlin)");
    // Cron knows these names in capital letters only.
    for set in ["cron_tz=Europe/Berlin", "Tz = 'Europe/Berlin'", "tz=Europe/Berlin"] {
        refused(&format!("{set} 0 2 * * *"), "^", &["`CRON_TZ`", "capital letters"], Some(berlin));
    }
    refused("tz=Europe/Berlin", "^", &["variable", "zone"], None);
    let zone = ["a zone"];
    refused("CRON_TZ = europe/berlin 0 2 * * *", "          ^", &zone, Some("Europe/Berlin"));
    refused("CRON_TZ=\"europe/berlin\" 0 2 * * *", "         ^", &zone, Some("Europe/Berlin"));
    refused("CRON_TZ=\"Europe/Berlin 0 2 * * *", "        ^", &zone, Some("Europe/Berlin"));
    refused("CRON_TZ=\"Europe/Berlin'\n0 2 * * *", "        ^", &zone, Some("Europe/Berlin"));
    refused("TZ = utc @daily", "     ^", &zone, Some("UTC"));
    refused("TZ=JST 0 2 * * *", "   ^", &zone, Some("Asia/Tokyo"));
    refused("CRON_TZ=\n0 2 * * *", "        ^", &zone, None);
    refused("CRON_TZ=\"\" 0 2 * * *", "         ^", &zone, None);
    refused("CRON_TZ = 0 2 * * *", "          ^", &zone, None);
    refused("TZ=UTC at(2030-01-01 08:00:00 GMT)", "   ^", &["two zones"], None);
    refused("MAILTO = root\nCRON_TZ = UTC\n0 2 * * *", "^", &["variable"], Some("0 0 2 * * * UTC"));
    refused("TZ=UTC 0 2 * * * run", "                 ^", &["--user"], Some("0 0 2 * * * UTC"));
}

#[test]
fn what_stands_beside_a_crontab_schedule_is_named() {
    let command = ["crontab line", "--user"];
    refused("*/15 * * * * /bin/x", "             ^", &command, Some("0 */15 * * * *"));
    refused("0 2 * * * root /usr/bin/backup --all", "          ^", &command, Some("0 0 2 * * *"));
    refused("0 2 * * *\troot\tcd / && run-parts x", "          ^", &command, Some("0 0 2 * * *"));
    refused("0 2 * * 1-5 cd /srv && make", "            ^", &command, Some("0 0 2 * * 1-5"));
    refused("*/15 * * * * backup.sh", "             ^", &command, Some("0 */15 * * * *"));
    refused("0 2 * * * root", "          ^", &command, Some("0 0 2 * * *"));
    // It may be a weekday that is misspelled.
    for weekday in ["Sonntag", "weekdays", "mond", "M-F", "mo"] {
        let text = format!("0 0 9 * * {weekday}");
        let error = text.parse::<Schedule>().unwrap_err();
        let hint = error.suggestion().filter(|hint| *hint != "MON");
        assert_eq!((error.offset(), hint, error.remark()), (10, None, None), "{text}");
    }
    refused("@daily /bin/x", "       ^", &command, Some("0 0 0 * * ?"));
    refused("@every 5m /bin/x", "          ^", &["command"], Some("rate(5m)"));
    refused(
        "CRON_TZ=Europe/Berlin 0 2 * * * /bin/x",
        "                                ^",
        &command,
        Some("0 0 2 * * * Europe/Berlin"),
    );
    refused("MAILTO=a 0 2 * * *", "^", &["variable"], Some("0 0 2 * * *"));
    refused("MAILTO=root", "^", &["variable"], None);
    refused("CRON_TZ=Europe/Berlin", "^", &["variable", "zone"], None);
    refused("# m h dom mon dow command", "^", &["comment"], None);
    refused("@reboot", "^", &["EveryReboot", "--on-reboot"], None);
    refused("@fortnightly", "^", &["macro"], None);
    refused("@every", "      ^", &["duration"], None);
    refused("@every 500ms", "       ^", &["whole seconds"], None);
    refused("@every banana", "       ^", &["duration"], None);
}

#[test]
fn a_wrong_zone_behind_sound_fields_is_named_at_its_place() {
    let zones = [
        ("America/NewYork", Some("America/New_York")),
        ("America/New York", Some("America/New_York")),
        ("Europe/Berlim", Some("Europe/Berlin")),
        ("Mars/Elysium", None),
        ("UTC+8", Some("GMT+8:00")),
        ("utc", Some("UTC")),
        ("PST", Some("America/Los_Angeles")),
        ("Berlin", Some("Europe/Berlin")),
        ("Nowhere", None),
    ];
    let fields = (
        select(vec!["0", "*/10", "0-5"]),
        select(vec!["0", "0/15", "5,10"]),
        select(vec!["9", "*", "12"]),
        select(vec!["*", "1", "L", "?", "10-20"]),
        select(vec!["*", "1-6", "JAN"]),
        select(vec!["*", "?", "MON", "mon", "SUN", "MON-FRI", "FRIL", "MON#2", "1-5"]),
        select(vec!["", " 2030", " *"]),
    );
    run(2000, (fields, select(zones.to_vec())), |(fields, (zone, hint))| {
        let (second, minute, hour, day, month, weekday, year) = fields;
        let fields = format!("{second} {minute} {hour} {day} {month} {weekday}{year}");
        prop_assert!(format!("{fields} UTC").parse::<Schedule>().is_ok(), "{}", fields);
        let text = format!("{fields} {zone}");
        for error in [text.parse::<Schedule>().err(), Schedule::read_lenient(&text).err()] {
            let error = error.unwrap();
            // Of two words behind a year, the second is one too many.
            let is_one_more = !year.is_empty() && zone.contains(' ');
            let (at, hint) = match is_one_more {
                true => (text.rfind(' ').unwrap() + 1, None),
                false => (fields.len() + 1, hint),
            };
            prop_assert_eq!(error.offset(), at, "{}: {}", text, error);
            prop_assert_eq!(error.suggestion(), hint, "{}: {}", text, error);
            prop_assert_eq!(error.remark(), None, "{}: {}", text, error);
        }
        Ok(())
    });
}

#[test]
fn a_wrong_field_of_a_crontab_is_named() {
    refused("60 * * * *", "^", &["a minute", "crontab"], None);
    refused("*/5 * * 13 *", "        ^", &["a month", "crontab"], None);
    refused("*/5 25 * * *", "    ^", &["an hour"], None);
    refused("*/5 * * * mon,8", "              ^", &["a weekday"], None);
    refused("0 2 * * 1 utc", "          ^", &["a zone"], Some("UTC"));
    refused("30 2 * * * Asia/Shangai", "           ^", &["a zone"], Some("Asia/Shanghai"));
    refused("CRON_TZ=Europe/Berlim 0 2 * * *", "        ^", &["a zone"], Some("Europe/Berlin"));
    refused("CRON_TZ=UTC 0 25 * * *", "              ^", &["an hour"], None);
    refused("CRON_TZ=UTC 0 0 2 * * ? GMT", "        ^", &["one zone"], None);
    // To cron, days must match both fields where one of them starts with a star.
    refused("0 0 */2 * 1", "    ^", &["match both"], None);
    refused("0 0 1 * */2", "    ^", &["match both"], None);
    refused("~ 2 * * *", "^", &["--spread"], None);
}

#[test]
fn expressions_of_aws_are_read_in_utc_with_their_weekdays() {
    means("cron(0 16 * * ? *)", "0 0 16 * * ? UTC");
    means("cron(0/15 * * * ? *)", "0 0/15 * * * ? UTC");
    means("CRON( 15 10 ? * 6L 2027-2030 )", "0 15 10 ? * FRIL 2027-2030 UTC");
    means("cron(0 18 ? * MON-FRI *)", "0 0 18 ? * MON-FRI UTC");
    means("cron(0 18 ? * 2-6 *)", "0 0 18 ? * MON-FRI UTC");
    means("cron(0 9 ? * 2#1 *)", "0 0 9 ? * MON#1 UTC");
    means("cron(0 9 ? * 1,7 *)", "0 0 9 ? * SUN,SAT UTC");
    means("cron(0 9 ? * L *)", "0 0 9 ? * SAT UTC");
    means("cron(0 9 L * ? *)", "0 0 9 L * ? UTC");
    refused("cron(0 25 * * ? *)", "       ^", &["an hour", "AWS"], None);
    refused("cron(0 9 ? * 8 *)", "             ^", &["a weekday, 1-7", "AWS"], None);
    refused("cron(0 9 * * * *)", "         ^", &["`?`", "AWS"], None);
    refused("cron(0 9 ? * ? *)", "         ^", &["`?`", "AWS"], None);
    refused("cron(0 9 * * *)", "     ^", &["six fields"], None);
    refused("cron(0 9 * * ? *", "                ^", &["`)`"], None);
    refused("cron(0 9 * * ? *) UTC", "                  ^", &["the end"], None);
    refused("0 16 * * ? *", "^", &["AWS", "UTC"], Some("0 0 16 * * ? UTC"));
    refused("0 16 ? * 2-6 *", "^", &["AWS"], Some("0 0 16 ? * MON-FRI UTC"));
}

#[test]
fn calendars_of_systemd_are_read() {
    means("OnCalendar=daily", "0 0 0 * * ?");
    means("weekly", "0 0 0 ? * MON");
    means("daily UTC", "0 0 0 * * ? UTC");
    refused("daily Europe/Berlim", "      ^", &["a zone", "systemd"], Some("Europe/Berlin"));
    means("quarterly", "0 0 0 1 1,4,7,10 ?");
    means("*-*-* 02:30:00", "0 30 02 * * ?".replace("02", "2").as_str());
    means("*-*-* 4:00", "0 00 4 * * ?".replace("00", "0").as_str());
    means("*:0/15", "0 0/15 * * * ?");
    means("Mon..Fri *-*-* 08:00", "0 0 8 ? * MON-FRI");
    means("Mon,Wed 10:15", "0 15 10 ? * MON,WED");
    means("OnCalendar=Sat 23:30 Europe/Berlin", "0 30 23 ? * SAT Europe/Berlin");
    means("*-*-01 03:00", "0 0 3 1 * ?");
    means("2030-*-01,15 03:00 UTC", "0 0 3 1,15 * ? 2030 UTC");
    refused("Mon *-*-01 03:00", "^", &["both", "systemd"], None);
    refused("*-*-* 25:00", "      ^", &["an hour", "systemd"], None);
    refused("*-02~03 03:00", "^", &["end of a month"], None);
    refused("*-*-* 03:00 Europe/Berlim", "            ^", &["a zone"], Some("Europe/Berlin"));
    refused("2030-06-06 05:15:30", "^", &["at(…)"], Some("at(2030-06-06 05:15:30)"));
}

#[test]
fn signs_of_jenkins_and_quartz_are_named() {
    refused("H H * * *", "^", &["Jenkins", "--spread"], None);
    refused("H/15 * * * *", "^", &["Jenkins"], None);
    refused("0 H(0-7) * * 1-5", "  ^", &["Jenkins"], None);
    refused("TZ=Europe/London H 2 * * *", "                 ^", &["Jenkins"], None);
    refused("0 0 12 L-3 * ?", "        ^", &["Quartz"], None);
    refused("\"0 0 12 * * ?\"", "^", &["quotes"], Some("0 0 12 * * ?"));
    refused("\"*/5 * * * *\"", "^", &["quotes"], Some("0 */5 * * * *"));
}

#[test]
fn own_schedules_are_read_without_a_note() {
    for text in ["0 30 2 * * ?", " rate(5m)\n", "at(2030-01-01 08:00:00)", "0 0 8 ? * 1 2030 GMT"] {
        let read = Schedule::read_lenient(text).unwrap();
        assert_eq!(read.note, None, "{text}");
        assert_eq!(read.schedule, text.trim().parse().unwrap());
    }
}

/// Cron's own reading of five fields, as crontab(5) has it.
fn cron_fires(fields: &[Vec<u32>; 5], stars: (bool, bool), at: DateTime<Utc>) -> bool {
    use chrono::Datelike;
    let [minutes, hours, days, months, weekdays] = fields;
    let day = days.contains(&at.day());
    let weekday = weekdays.iter().any(|day| day % 7 == at.weekday().num_days_from_sunday());
    let date = if stars.0 || stars.1 { day && weekday } else { day || weekday };
    minutes.contains(&at.minute())
        && hours.contains(&at.hour())
        && months.contains(&at.month())
        && date
}

fn crontab_field(min: u32, max: u32) -> impl Strategy<Value = (String, Vec<u32>)> {
    let all = move |step: u32| (min..=max).step_by(step as usize).collect::<Vec<_>>();
    prop_oneof![
        4 => Just(("*".to_owned(), all(1))),
        2 => (1..=max.min(23)).prop_map(move |step| (format!("*/{step}"), all(step))),
        2 => (min..=max).prop_map(|value| (value.to_string(), vec![value])),
        1 => (min..=max, min..=max).prop_map(|(a, b)| {
            let (first, last) = (a.min(b), a.max(b));
            (format!("{first}-{last}"), (first..=last).collect())
        }),
        1 => (min..=max, min..=max).prop_map(|(a, b)| (format!("{a},{b}"), vec![a, b])),
    ]
}

#[test]
fn a_form_that_crontabs_do_not_have_is_refused_in_five_fields() {
    let check = |fields: [&str; 5], index: usize, form: &str| {
        let mut fields = fields;
        let list = format!("2,{form}");
        for form in [form, &list] {
            fields[index] = form;
            let text = fields.join(" ");
            let Ok(schedule) = format!("0 {text}").parse::<Schedule>() else { continue };
            let at = fields[..index].iter().map(|field| field.len() + 1).sum::<usize>();
            let at = at + form.find(',').map_or(0, |comma| comma + 1);
            let mark = format!("{}^", " ".repeat(at));
            refused(&text, &mark, &["crontab"], Some(&schedule.to_string()));
            let zoned = format!("{schedule} UTC");
            refused(&format!("{text} UTC"), &mark, &["crontab"], Some(&zoned));
        }
    };
    let fields = ["5", "3", "*", "*", "*"];
    run(500, (0..5_usize, 0..60_u32, 0..60_u32), |(index, a, b)| {
        let (min, max) = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)][index];
        let (a, b) = (min + a % (max - min), min + b % (max - min + 1));
        check(fields, index, &format!("{a}/{}", b.max(1)));
        if a > b {
            check(fields, index, &format!("{a}-{b}"));
        }
        Ok(())
    });
    for form in ["L", "LW", "15W", "W"] {
        check(fields, 2, form);
    }
    for form in ["L", "FRIL", "5L", "MON#2", "FRI-MON", "fri-sun"] {
        check(fields, 4, form);
    }
    check(fields, 3, "NOV-FEB");
}

#[test]
fn a_crontab_line_that_is_read_fires_when_cron_would() {
    let fields = (
        crontab_field(0, 59),
        crontab_field(0, 23),
        crontab_field(1, 31),
        crontab_field(1, 12),
        crontab_field(0, 6),
    );
    let blank = select(vec![" ", "\t", "  "]);
    run(1500, (fields, blank), |((minute, hour, day, month, weekday), blank)| {
        let texts = [&minute, &hour, &day, &month, &weekday].map(|field| field.0.as_str());
        let stars = (day.0.starts_with('*'), weekday.0.starts_with('*'));
        let text = texts.join(blank);
        let Ok(read) = Schedule::read_lenient(&text) else {
            // Days that no month has, or days that must match twice.
            let is_twice = (stars.0 || stars.1) && day.0 != "*" && weekday.0 != "*";
            let never = format!("0 {}", texts.join(" ")).parse::<Schedule>().is_err();
            prop_assert!(is_twice || never, "{}", text);
            return Ok(());
        };
        let fields = [minute.1, hour.1, day.1, month.1, weekday.1];
        let bound = read.schedule.upcoming(start() - TimeDelta::seconds(1)).take(40);
        let mut at = start();
        for fire in bound {
            prop_assert!(cron_fires(&fields, stars, fire), "{} at {}", text, fire);
            // Nothing lies between; days are long, so only the first hours are looked at.
            while at < fire.min(start() + TimeDelta::days(2)) {
                prop_assert!(!cron_fires(&fields, stars, at), "{} not at {}", text, at);
                at += TimeDelta::minutes(1);
            }
            at = fire + TimeDelta::minutes(1);
        }
        Ok(())
    });
}

#[test]
fn no_foreign_text_breaks_the_readers() {
    let word = select(vec![
        "*",
        "?",
        "0",
        "*/5",
        "L-3",
        "H",
        "H/15",
        "~",
        "@daily",
        "@every",
        "5m",
        "cron(",
        ")",
        "cron(0",
        "*)",
        "CRON_TZ=UTC",
        "CRON_TZ",
        "TZ=",
        "tz=UTC",
        "OnCalendar=",
        "Mon..Fri",
        "*-*-*",
        "*:0/15",
        "2030-01-01",
        "08:00",
        "root",
        "/bin/x",
        "é",
        "\u{a0}",
        "\"",
        "'",
        "=",
        "#",
        "UTC",
        "Europe/Berlin",
        "GMT+8:00",
        "rate(5m)",
        "at(",
        "1-5",
        "2026",
    ]);
    let blank = select(vec![" ", "\t", "\n", "", "  "]);
    run(20_000, prop::collection::vec((word, blank), 0..9), |words| {
        let text: String = words.iter().flat_map(|(word, blank)| [*word, *blank]).collect();
        match Schedule::read_lenient(&text) {
            Ok(read) => {
                let canonical = read.schedule.to_string();
                prop_assert_eq!(canonical.parse::<Schedule>(), Ok(read.schedule));
            }
            Err(error) => {
                prop_assert!(text.is_char_boundary(error.offset()), "{:?}: {}", text, error);
                if let Some(hint) = error.suggestion() {
                    let is_zone = hint.parse::<adjutant::schedule::Zone>().is_ok();
                    let is_part = ["*", "UTC"].contains(&hint);
                    prop_assert!(
                        is_zone || is_part || hint.parse::<Schedule>().is_ok(),
                        "{}: {}",
                        text,
                        hint
                    );
                }
            }
        }
        if let Err(error) = text.parse::<Schedule>() {
            prop_assert!(text.is_char_boundary(error.offset()), "{:?}: {}", text, error);
            prop_assert!(error.to_string().len() < 2 * 2048 + 400);
        }
        Ok(())
    });
}

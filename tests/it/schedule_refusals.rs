//! What is no schedule: where it goes wrong, and what it was meant to be.

use adjutant::schedule::{Schedule, Zone};

/// The text is refused at the `^` of the line below it, or at byte 0 if that line is empty.
#[track_caller]
fn check(text: &str, mark: &str, expected: &str, suggestion: Option<&str>) {
    let error = match text.parse::<Schedule>() {
        Ok(schedule) => panic!("{text}: read as {schedule}"),
        Err(error) => error,
    };
    assert_eq!(error.code(), "InvalidParam.Frequency");
    assert_eq!(error.offset(), mark.find('^').unwrap_or(0), "{text}: {error}");
    assert!(error.expected().contains(expected), "{text}: {error}");
    assert_eq!(error.suggestion(), suggestion, "{text}");
    let message = error.to_string();
    assert!(message.contains(expected), "{message}");
    assert!(suggestion.is_none_or(|suggestion| message.contains(suggestion)), "{message}");
}

#[test]
fn number_of_fields() {
    let fields = "second minute hour day month weekday";
    check("", "", fields, None);
    check("   ", "", fields, None);
    check("5m", "", fields, None);
    check("0 0 8 *", "", fields, None);
    check("30 2 * * 1-5", "", fields, Some("0 30 2 * * 1-5"));
    check(" * * * * * ", " ^", fields, Some("0 * * * * *"));
    check("30 2 * * * Asia/Shanghai", "", fields, Some("0 30 2 * * * Asia/Shanghai"));
    check("30 2 * * * UTC", "", fields, Some("0 30 2 * * * UTC"));
    check("0 0 8 * * ? 2022 UTC 1", "                     ^", "the end", None);
    check("@daily", "", fields, Some("0 0 0 * * ?"));
    check("@Hourly", "", fields, Some("0 0 * * * ?"));
    check("@reboot", "", fields, None);
    check("@daily a b c d e", "       ^", "the end", Some("0 0 0 * * ?"));
}

#[test]
fn values() {
    check("60 0 0 * * ?", "^", "a second, 0-59", None);
    check("0 60 0 * * ?", "  ^", "a minute, 0-59", None);
    check("0 0 24 * * ?", "    ^", "an hour, 0-23", None);
    check("0 15 008 ? * *", "     ^", "an hour, 0-23", None);
    check("0 0 0 0 * ?", "      ^", "a day, 1-31", None);
    check("0 0 0 32 * ?", "      ^", "a day, 1-31", None);
    check("0 0 0 1 0 ?", "        ^", "a month, 1-12", None);
    check("0 0 0 1 13 ?", "        ^", "a month, 1-12", None);
    check("0 0 0 ? * 8", "          ^", "a weekday, 0-7", None);
    check("0 0 0 1 1 ? 1969", "            ^", "a year, 1970-2099", None);
    check("0 0 0 1 1 ? 2100", "            ^", "a year, 1970-2099", None);
    check("0 0 0 1 1 ? 22", "            ^", "a year, 1970-2099", None);
    check("0 0 0 1 1 ? 02022", "            ^", "a year, 1970-2099", None);
    check("0 0 0 1 MAI ?", "        ^", "a month", None);
    check("0 0 0 1 Sept ?", "        ^", "a month", Some("SEP"));
    check("0 0 0 ? * MON-thurs", "              ^", "a weekday", Some("THU"));
    check("1.5 * * * * ?", " ^", "the end of the field", None);
    check("-1 * * * * ?", "^", "a second", None);
    check("٣ * * * * ?", "^", "a second", None);
    check("0 0 8\u{a0}* * * ? UTC", "     ^", "the end of the field", None);
}

#[test]
fn operators() {
    check("1,,2 * * * * ?", "  ^", "a second", None);
    check(",1 * * * * ?", "^", "a second", None);
    check("1, * * * * ?", "  ^", "a second", None);
    check("0 0 0 1,,2 * ?", "        ^", "a day", None);
    check("0 0 0 ? * MON,", "              ^", "a weekday", None);
    check("1- * * * * ?", "  ^", "a second", None);
    check("1/ * * * * ?", "  ^", "a step, 1-59", None);
    check("/5 * * * * ?", "^", "a second", None);
    check("*5 * * * * ?", " ^", "the end of the field", None);
    check("1-2-3 * * * * ?", "   ^", "the end of the field", None);
    check("*/0 * * * * ?", "  ^", "a step, 1-59", None);
    check("0/60 * * * * ?", "  ^", "a step, 1-59", None);
    check("0 0 */24 * * ?", "      ^", "a step, 1-23", None);
    check("0 0 0 */32 * ?", "        ^", "a step, 1-31", None);
    check("0 0 0 1 */13 ?", "          ^", "a step, 1-12", None);
    check("0 0 0 ? * */7", "            ^", "a step, 1-6", None);
    check("0 0 0 1 1 ? */60", "              ^", "a step, 1-59", None);
    check("0 0 0 1 1 ? 2030-2022", "                 ^", "2030 or a later year", None);
}

#[test]
fn question_marks() {
    check("? * * * * ?", "^", "a second", Some("*"));
    check("0 ? * * * ?", "  ^", "a minute", Some("*"));
    check("0 0 ? * * ?", "    ^", "an hour", Some("*"));
    check("0 0 0 1 ? ?", "        ^", "a month", Some("*"));
    check("0 0 0 1 1 ? ?", "            ^", "a year", Some("*"));
    check("0 0 0 ?/5 * ?", "       ^", "the end of the field", None);
}

#[test]
fn forms_of_the_day_fields() {
    check("0 0 0 L-1 * ?", "       ^", "the end of the field", None);
    check("0 0 0 W * ?", "      ^", "`nW`", None);
    check("0 0 0 WL * ?", "      ^", "`LW`", None);
    check("0 0 0 1-15W * ?", "          ^", "the end of the field", None);
    check("0 0 0 15WL * ?", "         ^", "the end of the field", None);
    check("0 0 0 FRIL * ?", "      ^", "a day", None);
    check("0 0 0 ? * 1#0", "            ^", "which one of the month, 1-5", None);
    check("0 0 0 ? * MON#6", "              ^", "which one of the month, 1-5", None);
    check("0 0 0 ? * 1-5L", "             ^", "the end of the field", None);
    check("0 0 0 ? * LW", "          ^", "a weekday", None);
    check("0 0 0 ? * 15W", "          ^", "a weekday", None);
}

#[test]
fn never() {
    let expected = "a day that some of the months and years have";
    check("0 0 0 30 2 ?", "      ^", expected, None);
    check("0 0 0 31 4,6,9,11 ?", "      ^", expected, None);
    check("0 0 0 29 2 ? 2023,2100", "                  ^", "a year", None);
    check("0 0 0 29 2 ? 2023,2025-2027", "      ^", expected, None);
    check("0 0 0 31W JUN ? Europe/Paris", "      ^", expected, None);
    // February 2022 has four Mondays.
    check("0 0 0 ? 2 MON#5 2022", "      ^", expected, None);
}

#[test]
fn rates() {
    check("rate(0m)", "     ^", "a number from 1 to 1440000", None);
    check("rate(-5m)", "     ^", "a whole number", None);
    check("rate(m)", "     ^", "a whole number", None);
    check("rate(5)", "      ^", "a unit", None);
    check("rate(5min)", "      ^", "a unit", Some("rate(5m)"));
    check("rate(5 minutes)", "       ^", "a unit", Some("rate(5m)"));
    check("rate(1w)", "      ^", "a unit", Some("rate(7d)"));
    check("rate(1.5h)", "      ^", "a unit", None);
    check("rate( 5m)", "     ^", "a whole number", Some("rate(5m)"));
    check("rate(5m )", "       ^", "`)`", Some("rate(5m)"));
    check("rate(5m", "       ^", "`)`", Some("rate(5m)"));
    check("rate 5m", "     ^", "`(`", Some("rate(5m)"));
    check(" rate(5m)", "^", "`rate(`", Some("rate(5m)"));
    check("rate(5m) ", "        ^", "the end", Some("rate(5m)"));
    check("rate(5m) UTC", "        ^", "the end", Some("rate(5m)"));
    check("rate(1001d)", "     ^", "a number from 1 to 1000", None);
    check("rate(24001h)", "     ^", "a number from 1 to 24000", None);
    check("rate(99999999999999999999s)", "     ^", "a number from 1 to 86400000", None);
    check("rate", "    ^", "`(`", None);
}

#[test]
fn single_instants() {
    check("at(", "   ^", "a date", None);
    check("at()", "   ^", "a date", None);
    let right = Some("at(2030-06-06 05:15:30)");
    check("at(2030-06-06T05:15:30)", "             ^", "a blank and a time", right);
    check("at(2030-6-6 05:15:30)", "        ^", "a month, 01-12", right);
    check("at(2030-06-06 5:15:30)", "              ^", "an hour, 00-23", right);
    check("at(2030/06/06 05:15:30)", "       ^", "`-`", right);
    check("at(2030-06-06 05:15:30", "                      ^", "`)`", right);
    check("at(2030-06-06 05:15:30 )", "                       ^", "a zone", right);
    check(" at(2030-06-06 05:15:30)", "^", "`at(`", right);
    let right = Some("at(2030-06-06 05:15:00)");
    check("at(2030-06-06 05:15)", "                   ^", "a second, 00-59", right);
    let right = Some("at(2030-06-06 05:15:30 UTC)");
    check("at(2030-06-06 05:15:30Z)", "                      ^", "`)`", right);
    check("at(2030-02-30 05:15:30)", "           ^", "a day that the month has", None);
    check("at(2030-06-31 05:15:30)", "           ^", "a day that the month has", None);
    check("at(1969-06-06 05:15:30)", "   ^", "from 1970", None);
    check("at(2030-06-06 24:00:00)", "              ^", "an hour, 00-23", None);
    check("at(2030-06-06 23:60:00)", "                 ^", "a minute, 00-59", None);
    check("at(2030-06-06 23:59:60)", "                    ^", "a second, 00-59", None);
    check(
        "at(2030-06-06 05:15:30 GMT+08:00)",
        "                       ^",
        "a zone",
        Some("GMT+8:00"),
    );
    check("at(2030-06-06 05:15:30 UTC) x", "                           ^", "the end", None);
}

#[test]
fn zones() {
    let cases = [
        ("EST", Some("America/New_York")),
        ("CST", Some("America/Chicago")),
        ("PRC", Some("Asia/Shanghai")),
        ("Japan", Some("Asia/Tokyo")),
        ("Singapore", Some("Asia/Singapore")),
        ("utc", Some("UTC")),
        ("gmt", Some("GMT")),
        ("Z", Some("UTC")),
        ("UTC+8", Some("GMT+8:00")),
        ("UTC+8:00", Some("GMT+8:00")),
        ("UTC-03:30", Some("GMT-3:30")),
        ("GMT+8", Some("GMT+8:00")),
        ("GMT+08:00", Some("GMT+8:00")),
        ("GMT+0800", Some("GMT+8:00")),
        ("gmt+8:00", Some("GMT+8:00")),
        ("+08:00", Some("GMT+8:00")),
        ("GMT+15:00", None),
        ("GMT+8:60", None),
        ("XGMT+8:00Y", None),
        ("asia/shanghai", Some("Asia/Shanghai")),
        ("shanghai", Some("Asia/Shanghai")),
        ("Asia/Shangai", Some("Asia/Shanghai")),
        ("America/NewYork", Some("America/New_York")),
        ("Asia/Nowhere", None),
        ("../etc/passwd", None),
        ("/usr/share/zoneinfo/UTC", None),
        ("Ünited/Kingdöm", None),
    ];
    for (zone, suggestion) in cases {
        let error = zone.parse::<Zone>().unwrap_err();
        assert_eq!((error.offset(), error.suggestion()), (0, suggestion), "{zone}");
        for year in ["", "2030 "] {
            let text = format!("0 0 8 * * ? {year}{zone}");
            let mark = format!("            {}^", " ".repeat(year.len()));
            check(&text, &mark, "a zone such as", suggestion);
        }
    }
}

#[test]
fn zones_that_exist() {
    let names = ["UTC", "GMT", "GMT+0:00", "GMT+14:00", "GMT-14:59", "GMT+5:30", "Etc/GMT-8"];
    for name in names.into_iter().chain(["America/Argentina/Buenos_Aires", "US/Eastern"]) {
        assert_eq!(name.parse::<Zone>().unwrap().name(), name);
    }
}

#[test]
fn long_texts() {
    let every_second: Vec<String> = (0..60).map(|second| second.to_string()).collect();
    let long = format!("{} * * * * ?", every_second.join(","));
    assert!(long.parse::<Schedule>().is_ok());
    let error = "1,".repeat(5000).parse::<Schedule>().unwrap_err();
    assert_eq!(error.offset(), 2048);
    // An error repeats no more of a text than one can read.
    let error = format!("0 0 8 * * ? {}", "x".repeat(1000)).parse::<Schedule>().unwrap_err();
    assert!(error.to_string().len() < 200, "{error}");
}

//! Times, durations and sizes as words.

use chrono::TimeDelta;

pub(super) fn timeout(seconds: Option<u64>) -> String {
    seconds.map_or("none".to_owned(), |seconds| format!("{seconds} s"))
}

pub(crate) fn time<T: std::fmt::Display>(time: &T) -> String {
    // The library's times are in UTC and print as `2026-01-31 12:00:00.123 UTC`.
    let text = time.to_string();
    let seconds = text.split(['.', 'U']).next().unwrap_or(&text).trim_end();
    format!("{seconds}Z")
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

#[cfg(test)]
mod tests {
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
}

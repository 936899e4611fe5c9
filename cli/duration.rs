//! Durations as options take them: `90`, `90s`, `5m`, `1h30m`, `7d`.

/// The letters of units, and the seconds that they stand for.
const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// The words for a duration in errors.
pub(crate) const WANTED: &str = "seconds, or a duration such as 90s, 5m or 1h30m";

/// Reads a duration in seconds: a number of seconds, or numbers with units, the larger unit first. `None` if the text is
/// no duration.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(text) {
        return text.parse().ok();
    }
    let (mut rest, mut total, mut units) = (text, 0_u64, UNITS.iter());
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let unit = after.chars().next()?;
        let (_, seconds) = units.find(|(letter, _)| *letter == unit)?;
        if !is_number(number) {
            return None;
        }
        total = number.parse::<u64>().ok()?.checked_mul(*seconds)?.checked_add(total)?;
        rest = &after[unit.len_utf8()..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_units() {
        let check = |text: &str, want: Option<u64>| assert_eq!(seconds(text), want, "{text}");
        check("0", Some(0));
        check("90", Some(90));
        check("90s", Some(90));
        check("5m", Some(300));
        check("1h30m", Some(5_400));
        check("1w2d3h4m5s", Some(788_645));
        check("18446744073709551615", Some(u64::MAX));
        for wrong in [
            "",
            "m",
            "-5",
            "+5",
            "5 m",
            "5M",
            "5ms",
            "1.5h",
            "30m1h",
            "5m5m",
            "5m3",
            "m5",
            "18446744073709551615m",
            "99999999999999999999",
            "５m",
            "5µ",
        ] {
            check(wrong, None);
        }
    }
}

//! The nearest valid spelling of a zone's name. Used on the way to an error only.

use chrono_tz::TZ_VARIANTS;

use super::zone::Zone;

/// Longer names than this are no misspelled zone.
const NAME_LEN_MAX: usize = 40;

/// How many letters may differ from a zone's name.
const DIFFERENCE_MAX: usize = 2;

/// Names without a `/`: the database's old ones, and abbreviations in common use. Where several
/// regions share an abbreviation, the one most people mean.
const OLD_NAMES: [(&str, &str); 55] = [
    ("ACST", "Australia/Darwin"),
    ("AEDT", "Australia/Sydney"),
    ("AEST", "Australia/Sydney"),
    ("AKST", "America/Anchorage"),
    ("AST", "America/Halifax"),
    ("AWST", "Australia/Perth"),
    ("BRT", "America/Sao_Paulo"),
    ("BST", "Europe/London"),
    ("CDT", "America/Chicago"),
    ("CEST", "Europe/Paris"),
    ("CET", "Europe/Paris"),
    ("CST", "America/Chicago"),
    ("CST6CDT", "America/Chicago"),
    ("Cuba", "America/Havana"),
    ("EDT", "America/New_York"),
    ("EEST", "Europe/Athens"),
    ("EET", "Europe/Athens"),
    ("Egypt", "Africa/Cairo"),
    ("Eire", "Europe/Dublin"),
    ("EST", "America/New_York"),
    ("EST5EDT", "America/New_York"),
    ("GB", "Europe/London"),
    ("GB-Eire", "Europe/London"),
    ("HKT", "Asia/Hong_Kong"),
    ("Hongkong", "Asia/Hong_Kong"),
    ("HST", "Pacific/Honolulu"),
    ("Iceland", "Atlantic/Reykjavik"),
    ("Iran", "Asia/Tehran"),
    ("Israel", "Asia/Jerusalem"),
    ("IST", "Asia/Kolkata"),
    ("Jamaica", "America/Jamaica"),
    ("Japan", "Asia/Tokyo"),
    ("JST", "Asia/Tokyo"),
    ("KST", "Asia/Seoul"),
    ("Kwajalein", "Pacific/Kwajalein"),
    ("Libya", "Africa/Tripoli"),
    ("MDT", "America/Denver"),
    ("MET", "Europe/Paris"),
    ("MSK", "Europe/Moscow"),
    ("MST", "America/Denver"),
    ("MST7MDT", "America/Denver"),
    ("Navajo", "America/Denver"),
    ("NZ", "Pacific/Auckland"),
    ("NZ-CHAT", "Pacific/Chatham"),
    ("PDT", "America/Los_Angeles"),
    ("Poland", "Europe/Warsaw"),
    ("Portugal", "Europe/Lisbon"),
    ("PRC", "Asia/Shanghai"),
    ("PST", "America/Los_Angeles"),
    ("PST8PDT", "America/Los_Angeles"),
    ("ROC", "Asia/Taipei"),
    ("ROK", "Asia/Seoul"),
    ("Turkey", "Europe/Istanbul"),
    ("W-SU", "Europe/Moscow"),
    ("WET", "Europe/Lisbon"),
];

const NAMES_OF_UTC: [&str; 8] = ["UTC", "Z", "Zulu", "UCT", "Universal", "GMT0", "GMT+0", "GMT-0"];

/// The region that one of the database's names without a `/` stands for.
pub(super) fn region_of_old_name(name: &str) -> Option<&'static str> {
    let same = |(old, _): &&(&str, &str)| old.eq_ignore_ascii_case(name);
    match NAMES_OF_UTC.iter().any(|utc| utc.eq_ignore_ascii_case(name)) {
        true => Some("UTC"),
        false => OLD_NAMES.iter().find(same).map(|&(_, region)| region),
    }
}

/// Whether a region is the one that most people mean by an abbreviation.
pub(super) fn is_well_known(region: &str) -> bool {
    OLD_NAMES.iter().any(|(_, known)| *known == region)
}

/// The valid spelling that is nearest to a name that is no zone, if one is near.
pub(super) fn nearest_zone(name: &str) -> Option<String> {
    if name.is_empty() || name.len() > NAME_LEN_MAX || !name.is_ascii() {
        return None;
    }
    if let Some(region) = region_of_old_name(name) {
        return Some(region.to_owned());
    }
    if name.eq_ignore_ascii_case("GMT") {
        return Some("GMT".to_owned());
    }
    offset_from_gmt(name).or_else(|| nearest_region(name))
}

/// `UTC+8`, `GMT+08:00`, `gmt+0800`, `+08:00`: an offset in another notation.
fn offset_from_gmt(name: &str) -> Option<String> {
    let upper = name.to_ascii_uppercase();
    let offset = upper.trim_start_matches("UTC").trim_start_matches("GMT");
    let sign = offset.chars().next().filter(|sign| "+-".contains(*sign))?;
    let digits = &offset[1..];
    let (hours, minutes) = match digits.split_once(':') {
        Some(parts) => parts,
        None if digits.len() > 2 => digits.split_at(digits.len() - 2),
        None => (digits, "00"),
    };
    let (hours, minutes): (u8, u8) = (hours.parse().ok()?, minutes.parse().ok()?);
    let name = format!("GMT{sign}{hours}:{minutes:02}");
    Zone::from_name(&name).map(|_| name)
}

/// `asia/shanghai`, `Shanghai`, `America/NewYork`, `Asia/Shangai`.
fn nearest_region(name: &str) -> Option<String> {
    let regions = || TZ_VARIANTS.iter().map(|tz| tz.name()).filter(|name| name.contains('/'));
    let same = regions().find(|region| region.eq_ignore_ascii_case(name));
    let city = || {
        let has_city = |region: &&str| {
            region.rsplit_once('/').is_some_and(|(_, city)| city.eq_ignore_ascii_case(name))
        };
        regions().find(has_city)
    };
    let misspelled = || {
        let rank = |region: &&str| difference(region, name);
        let nearest = regions().filter(|_| name.contains('/')).min_by_key(rank)?;
        (rank(&nearest) <= DIFFERENCE_MAX).then_some(nearest)
    };
    same.or_else(city).or_else(misspelled).map(str::to_owned)
}

/// How many letters must be put in, left out or changed to turn one name into the other.
fn difference(left: &str, right: &str) -> usize {
    if left.len().abs_diff(right.len()) > DIFFERENCE_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let changed = diagonal + usize::from(!a.eq_ignore_ascii_case(&b));
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

//! The zone files of this machine: one TZif file (RFC 9636) for each zone, in one folder.
//!
//! Whatever lies there was written by somebody else, so a file is read as a stranger's: regular
//! files only, not past a size, and nothing is taken from a file that does not say the offset of
//! every instant that a schedule can name.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use chrono::{DateTime, FixedOffset, Utc};
use sha2::{Digest, Sha256};
use tz::timezone::{LocalTimeType, TimeZone, TransitionRule};

use super::calendar::SECONDS_PER_DAY;
use super::offsets::Spans;
use super::zone::{LAST, STEP_SECONDS};

/// The largest zone file that is read. The largest of the database has 5 KiB.
const FILE_BYTES_MAX: u64 = 128 * 1024;
/// The largest `tzdata.zi` that is read. Today's has 110 KiB.
const SOURCE_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// The longest name of a zone; the longest of the database has 32 bytes.
const NAME_LEN_MAX: usize = 64;
/// The shortest name of a time in a rule.
const RULE_NAME_MIN: usize = 3;
/// How deep folders of zones lie within each other, and how many files count: the database has two
/// levels and 600 names.
const DEPTH_MAX: usize = 3;
const FILES_MAX: usize = 4_096;

/// A folder of zone files.
#[derive(Debug, Clone)]
pub(super) struct ZoneFiles {
    folder: PathBuf,
}

/// The state of the folder and of the files in it that say its release: the number, the size and the times of each.
pub(super) type Stamp = [Option<(u64, u64, u64, (i64, i64), (i64, i64))>; 3];

/// What one zone file says.
#[derive(Debug)]
pub(super) struct ZoneFile {
    pub(super) zone: TimeZone,
    pub(super) spans: Spans,
}

/// Why no zone was read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileError {
    Missing,
    /// The reason, in words that follow the file's name.
    Unsound(String),
}

/// The number of a release of the database: `2026b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release {
    pub(super) year: u16,
    /// The letters as a number: `a` is 1, `z` 26, `za` 677.
    letters: u16,
}

impl Release {
    /// Reads `2026b` at the start of a text. A suffix such as `-dirty` does not count.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (year, rest) = text.split_at_checked(4)?;
        let year = year.bytes().all(|byte| byte.is_ascii_digit()).then(|| year.parse().ok())??;
        let letters = rest.split('-').next().unwrap_or_default().as_bytes();
        if letters.is_empty() || letters.len() > 2 || !letters.iter().all(u8::is_ascii_lowercase) {
            return None;
        }
        let letters = letters.iter().fold(0, |sum, letter| 26 * sum + u16::from(letter - b'a' + 1));
        Some(Release { year, letters })
    }
}

impl ZoneFiles {
    pub(super) fn new(folder: impl Into<PathBuf>) -> Self {
        ZoneFiles { folder: folder.into() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The release of the files as they say it themselves, `2026b`; `None` if they do not.
    pub(super) fn version(&self) -> Option<String> {
        let of_source = || {
            let start = self.read("tzdata.zi", 256).ok()?;
            let text = String::from_utf8_lossy(&start).into_owned();
            let line = text.lines().next()?.strip_prefix("# version ")?.trim().to_owned();
            Some(line)
        };
        let of_mark = || {
            let text = self.read("+VERSION", 256).ok()?;
            Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
        };
        let sound = |text: &String| Release::read(text).is_some() && text.len() <= 20;
        of_source().filter(sound).or_else(|| of_mark().filter(sound))
    }

    /// Reads the file of a zone.
    pub(super) fn zone(&self, name: &str) -> Result<ZoneFile, FileError> {
        if !is_name(name) {
            return Err(FileError::Missing);
        }
        ZoneFile::parse(&read_file(&self.folder.join(name))?)
    }

    /// The bytes of the file of a zone.
    pub(super) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        is_name(name).then(|| read_file(&self.folder.join(name)).ok())?
    }

    /// Names that stand for other names, as the source of the files has them: old name to new.
    pub(super) fn links(&self) -> BTreeMap<String, String> {
        let Ok(source) = self.read("tzdata.zi", SOURCE_BYTES_MAX) else { return BTreeMap::new() };
        let source = String::from_utf8_lossy(&source);
        let link = |line: &str| {
            let mut words = line.split_ascii_whitespace();
            let kind = words.next()?;
            let (target, name) = (words.next()?, words.next()?);
            matches!(kind, "L" | "Link").then(|| (name.to_owned(), target.to_owned()))
        };
        source.lines().filter_map(link).collect()
    }

    /// The state of the files that say the release. A package that changes zones replaces these, too.
    pub(super) fn stamp(&self) -> Stamp {
        let of = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            let written = (found.mtime(), found.mtime_nsec());
            let changed = (found.ctime(), found.ctime_nsec());
            Some((found.dev(), found.ino(), found.size(), written, changed))
        };
        ["", "tzdata.zi", "+VERSION"].map(|name| of(&self.folder.join(name)))
    }

    /// A number of the files that are used as they are, which other files have not: over the name and the content of
    /// each. A package that mends a zone without a new release changes the number too.
    pub(super) fn fingerprint(&self, is_used: impl Fn(&str) -> bool) -> String {
        let mut found = Vec::new();
        self.list(Path::new(""), 0, &mut found);
        found.retain(|name| name.to_str().is_some_and(&is_used));
        found.sort();
        let mut hash = Sha256::new();
        for name in found {
            hash.update(name.as_os_str().as_encoded_bytes());
            hash.update([0]);
            let content = match name.to_str() {
                Some(source @ "tzdata.zi") => self.read(source, SOURCE_BYTES_MAX).ok(),
                _ => read_file(&self.folder.join(&name)).ok(),
            };
            // A file that cannot be read is no zone.
            if let Some(content) = content {
                hash.update((content.len() as u64).to_le_bytes());
                hash.update(content);
            }
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    fn list(&self, inner: &Path, depth: usize, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(self.folder.join(inner)) else { return };
        for entry in entries.flatten().take(FILES_MAX) {
            let name = inner.join(entry.file_name());
            let Ok(metadata) = fs::metadata(self.folder.join(&name)) else { continue };
            if metadata.is_file() && found.len() < FILES_MAX {
                found.push(name);
            } else if metadata.is_dir() && depth < DEPTH_MAX && !is_other_tree(&name) {
                self.list(&name, depth + 1, found);
            }
        }
    }

    fn read(&self, name: &str, max: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        open(&self.folder.join(name))?.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl ZoneFile {
    /// Reads a TZif file.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, FileError> {
        // The times of version 1 end in 2037.
        if bytes.starts_with(b"TZif\0") {
            return Err(unsound("has the old version 1 of the format, whose times end in 2037"));
        }
        if let Some(version @ b'5'..=b'9') =
            bytes.strip_prefix(b"TZif").and_then(|rest| rest.first())
        {
            let version = char::from(*version);
            return Err(unsound(format!(
                "has version {version} of the format, which is not known"
            )));
        }
        let bytes = without_leap_seconds(bytes).unwrap_or_else(|| bytes.to_vec());
        let zone = TimeZone::from_tz_data(&bytes)
            .map_err(|error| unsound(format!("is no sound zone file: {error}")))?;
        let spans = spans(&zone)?;
        Ok(ZoneFile { zone, spans })
    }

    /// Reads a rule such as `EST5EDT,M3.2.0,M11.1.0`, which is how a zone file ends.
    pub(super) fn of_rule(rule: &str) -> Result<Self, FileError> {
        // The reader of files would pass over blanks, and an empty rule says nothing.
        if rule.is_empty() || rule.contains(|letter: char| letter.is_ascii_whitespace()) {
            return Err(unsound("is no rule"));
        }
        let mut bytes = EMPTY_PART.to_vec();
        bytes.extend(EMPTY_PART);
        bytes.extend(format!("\n{rule}\n").bytes());
        let file = ZoneFile::parse(&bytes)?;
        // The reader of files takes shorter names for the times than a rule can have.
        let is_name = |kind: &LocalTimeType| kind.time_zone_designation().len() >= RULE_NAME_MIN;
        let is_sound = match file.zone.as_ref().extra_rule() {
            Some(TransitionRule::Fixed(kind)) => is_name(kind),
            Some(TransitionRule::Alternate(rule)) => is_name(rule.std()) && is_name(rule.dst()),
            None => false,
        };
        if is_sound { Ok(file) } else { Err(unsound("is no rule")) }
    }

    /// What the zone's clock shows at an instant, and how that time is called for short.
    pub(super) fn local_time(&self, instant: DateTime<Utc>) -> (DateTime<FixedOffset>, &str) {
        let at = instant.timestamp().min(LAST);
        // The spans were made by this function, so it has an answer from 1970 on.
        let kind =
            self.zone.find_local_time_type(at).or_else(|_| self.zone.find_local_time_type(0));
        let (offset, name) =
            kind.map_or((0, ""), |kind| (kind.ut_offset(), kind.time_zone_designation()));
        let offset =
            FixedOffset::east_opt(offset).unwrap_or(FixedOffset::east_opt(0).expect("zero"));
        (instant.with_timezone(&offset), name)
    }
}

/// The length of the header of each of a file's two parts.
const HEADER_BYTES: usize = 44;

/// A part of a file of version 3, whose rules have all forms, without a change: one offset without a name.
const EMPTY_PART: [u8; HEADER_BYTES + 7] = {
    let mut part = [0; HEADER_BYTES + 7];
    part.split_at_mut(5).0.copy_from_slice(b"TZif3");
    // The number of offsets and the length of their names.
    part[39] = 1;
    part[43] = 1;
    part
};

/// Returns a file that counts leap seconds as a file that counts none, as the instants of schedules do. `None` if the
/// file is of version 2 or 3 and counts none, or if it is not sound.
///
/// In a file of version 4, the table of leap seconds may begin after 1972 and may end with the instant at which the
/// table expires. No other part of the format is new in version 4.
fn without_leap_seconds(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes;
    let [utc, standard, leaps, times, kinds, letters] = counts(&mut rest)?;
    for (count, size) in [(times, 5), (kinds, 6), (letters, 1), (leaps, 8), (standard, 1), (utc, 1)]
    {
        take(&mut rest, count, size)?;
    }
    let header = rest.get(..HEADER_BYTES)?;
    let [_, _, leaps, times, kinds, letters] = counts(&mut rest)?;
    let times = take(&mut rest, times, 8)?;
    let until_leaps = rest;
    for (count, size) in [(times.len() / 8, 1), (kinds, 6), (letters, 1)] {
        take(&mut rest, count, size)?;
    }
    let until_leaps = &until_leaps[..until_leaps.len() - rest.len()];
    let leaps = take(&mut rest, leaps, 12)?;
    if leaps.is_empty() && header[4] != b'4' {
        return None;
    }
    let leaps: Vec<(i64, i64)> = leaps
        .chunks_exact(12)
        .map(|leap| {
            let (at, correction) = leap.split_at(8);
            (number(at), i64::from(number(correction) as i32))
        })
        .collect();
    // Before a table that begins late, its first number is the nearest to what held.
    let before = leaps.first().map_or(0, |&(_, first)| if first.abs() == 1 { 0 } else { first });
    let mut plain = EMPTY_PART.to_vec();
    plain.extend(header);
    let start = plain.len() - HEADER_BYTES;
    if header[4] == b'4' {
        plain[start + 4] = b'3';
    }
    plain[start + 28..start + 32].fill(0);
    for time in times.chunks_exact(8).map(number) {
        let leap = leaps.iter().rev().find(|(at, _)| *at <= time);
        let correction = leap.map_or(before, |&(_, correction)| correction);
        plain.extend(time.saturating_sub(correction).to_be_bytes());
    }
    plain.extend(until_leaps);
    plain.extend(rest);
    Some(plain)
}

/// Takes the header of a part of a file off its start: six counts, in the order of the format.
fn counts(rest: &mut &[u8]) -> Option<[usize; 6]> {
    let header = take(rest, HEADER_BYTES, 1)?;
    header.strip_prefix(b"TZif")?.first().filter(|version| (b'2'..=b'4').contains(version))?;
    let mut counts = [0; 6];
    for (count, bytes) in counts.iter_mut().zip(header[20..].chunks_exact(4)) {
        *count = usize::try_from(number(bytes)).ok()?;
    }
    Some(counts)
}

fn take<'a>(rest: &mut &'a [u8], count: usize, size: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count.checked_mul(size)?)?;
    *rest = left;
    Some(taken)
}

/// The number in up to eight bytes, the highest first.
fn number(bytes: &[u8]) -> i64 {
    bytes.iter().fold(0, |number, byte| number << 8 | i64::from(*byte))
}

/// The offsets of a zone from 1970 to 2100.
fn spans(zone: &TimeZone) -> Result<Spans, FileError> {
    let zone = zone.as_ref();
    let problem = Cell::new(None);
    let offset_at = |instant: i64| match zone.find_local_time_type(instant) {
        Ok(kind) if i64::from(kind.ut_offset()).abs() < SECONDS_PER_DAY => {
            i64::from(kind.ut_offset())
        }
        Ok(_) => {
            problem.set(Some("has an offset of a day or more"));
            0
        }
        Err(_) => {
            problem.set(Some("does not say the offsets of all times to come"));
            0
        }
    };
    let range = (-SECONDS_PER_DAY, LAST);
    let stated: Vec<i64> = zone
        .transitions()
        .iter()
        .map(|transition| transition.unix_leap_time())
        .filter(|at| (range.0 + 1..=range.1).contains(at))
        .collect();
    let ends = zone.transitions().last().map_or(i64::MIN, |last| last.unix_leap_time());
    let rule_changes = matches!(zone.extra_rule(), Some(TransitionRule::Alternate(_)));
    let rule_from = if rule_changes { ends.max(range.0) } else { range.1 };
    let spans = Spans::stated(range, &stated, rule_from, STEP_SECONDS, offset_at);
    match problem.get() {
        Some(problem) => Err(unsound(problem)),
        None => Ok(spans),
    }
}

fn unsound(reason: impl Into<String>) -> FileError {
    FileError::Unsound(reason.into())
}

/// Whether a text can be the name of a zone's file: letters, digits, `+`, `-`, `_` and `/`, and no
/// way out of the folder.
pub(super) fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-_".contains(&byte))
    };
    name.len() <= NAME_LEN_MAX && name.split('/').all(is_part) && !is_other_tree(Path::new(name))
}

/// Whether a name lies in one of the second sets of files: the same zones, with or without leap
/// seconds.
fn is_other_tree(name: &Path) -> bool {
    name.starts_with("posix") || name.starts_with("right")
}

/// Reads a zone file, wherever it lies.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    let of = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::Missing,
        _ => unsound(format!("cannot be read: {error}")),
    };
    let mut bytes = Vec::new();
    let file = open(path).map_err(of)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(of)?;
    match bytes.len() as u64 > FILE_BYTES_MAX {
        true => Err(unsound(format!("is no zone file: it has more than {FILE_BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// Opens a regular file for reading. Nothing waits for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tzif::zone_file;
    use super::*;

    const OFFSETS: [(i32, bool, &str); 2] = [(3_600, false, "AAA"), (7_200, true, "BBB")];
    const RULE: &str = "AAA-1BBB,M3.5.0,M10.5.0/3";

    /// Where the second part of a file of the tests begins.
    const SECOND: usize = HEADER_BYTES + 7;

    /// A file with a table of leap seconds: when each is counted, and how many there are by then.
    fn file(version: u8, changes: &[(i64, u8)], leaps: &[(i64, i32)], rule: &str) -> Vec<u8> {
        let mut bytes = zone_file(&OFFSETS, changes, rule);
        (bytes[4], bytes[SECOND + 4]) = (version, version);
        bytes[SECOND + 31] = leaps.len() as u8;
        let end = bytes.len() - rule.len() - 2;
        let table = leaps
            .iter()
            .flat_map(|(at, count)| at.to_be_bytes().into_iter().chain(count.to_be_bytes()));
        bytes.splice(end..end, table);
        bytes
    }

    #[test]
    fn changes_are_read_in_time_without_leap_seconds_whatever_their_table() {
        // The second change counts in the time of the file, the first is before all leap seconds.
        let check = |version: u8, leaps: &[(i64, i32)], first: i64, second: i64| {
            let bytes = file(version, &[(100_000_000, 1), (1_511_000_000, 0)], leaps, RULE);
            let read = ZoneFile::parse(&bytes);
            let read = read.unwrap_or_else(|error| panic!("{version} {leaps:?}: {error:?}"));
            for (at, offset) in [
                (first - 1, 3_600),
                (first, 7_200),
                (second - 1, 7_200),
                (second, 3_600),
                // The rule: 2027-03-28 at 01:00Z.
                (1_806_195_599, 3_600),
                (1_806_195_600, 7_200),
            ] {
                assert_eq!(read.spans.offset_at(at), offset, "{version} {leaps:?} {at}");
                let instant = DateTime::from_timestamp(at, 0).expect("an instant");
                let shown = read.local_time(instant).0.offset().local_minus_utc();
                assert_eq!(i64::from(shown), offset, "{version} {leaps:?} {at}");
            }
        };
        let (first, second) = (100_000_000, 1_511_000_000);
        for version in [b'2', b'3', b'4'] {
            check(version, &[], first, second);
            check(version, &[(200_000_000, 1), (300_000_001, 2)], first, second - 2);
            check(version, &[(200_000_000, -1)], first, second + 1);
        }
        // The table begins late, expires, or both.
        check(b'4', &[(200_000_000, 25), (300_000_025, 26)], first - 25, second - 26);
        check(b'4', &[(200_000_000, 1), (1_400_000_000, 1)], first, second - 1);
        check(b'4', &[(300_000_025, 26), (1_400_000_000, 26)], first - 26, second - 26);
    }

    #[test]
    fn a_file_of_any_version_that_is_cut_short_or_altered_is_no_zone_and_no_panic() {
        let leaps = [(200_000_000, 25), (300_000_025, 26), (1_400_000_000, 26)];
        let whole = file(b'4', &[(100_000_000, 1), (1_511_000_000, 0)], &leaps, RULE);
        assert!(ZoneFile::parse(&whole).is_ok());
        for length in 0..whole.len() {
            let read = ZoneFile::parse(&whole[..length]);
            assert!(read.is_err(), "{length} bytes of {}", whole.len());
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut altered = whole.clone();
                altered[at] = byte;
                // Whether a zone or not, the answer comes.
                let _ = ZoneFile::parse(&altered);
            }
        }
        for (version, why) in [(0, "version 1"), (b'5', "version 5"), (b'1', "no sound zone file")]
        {
            let mut other = whole.clone();
            other[4] = version;
            let Err(FileError::Unsound(reason)) = ZoneFile::parse(&other) else {
                panic!("{version} is read")
            };
            assert!(reason.contains(why), "{version}: {reason}");
        }
    }
}

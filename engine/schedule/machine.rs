//! The zone of this machine's own clock, as the C library finds it.
//!
//! `TZ` decides if it is set: a name, a path or a rule such as `EST5EDT,M3.2.0,M11.1.0`. Otherwise
//! `/etc/localtime` does, a link to a zone's file or a copy of one, and `/etc/timezone` says which
//! of several equal zones is meant. A schedule needs a name, so a clock that no name stands for is
//! an error. The C library goes by UTC where it understands nothing; here nothing is guessed.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::TZ_VARIANTS;

use super::offsets::{Offsets, Spans};
use super::spelling;
use super::zone::{LAST, UNKNOWN, Zone};
use super::zone_data::{FOLDER, ZoneData};
use super::zone_files::{self, FileError, ZoneFile};

/// How many links are followed, as many as the kernel follows.
const LINKS_MAX: usize = 40;

/// The largest `/etc/timezone` that is read.
const NAME_BYTES_MAX: usize = 256;

/// Names of the database without a `/`, which a schedule cannot name, and the zones that they stand
/// for in it.
const SHORT_NAMES: [(&str, &str); 44] = [
    ("CET", "Europe/Brussels"),
    ("CST6CDT", "America/Chicago"),
    ("Cuba", "America/Havana"),
    ("EET", "Europe/Athens"),
    ("EST", "America/Panama"),
    ("EST5EDT", "America/New_York"),
    ("Egypt", "Africa/Cairo"),
    ("Eire", "Europe/Dublin"),
    ("GB", "Europe/London"),
    ("GB-Eire", "Europe/London"),
    ("GMT", "GMT"),
    ("GMT+0", "GMT"),
    ("GMT-0", "GMT"),
    ("GMT0", "GMT"),
    ("Greenwich", "GMT"),
    ("HST", "Pacific/Honolulu"),
    ("Hongkong", "Asia/Hong_Kong"),
    ("Iceland", "Atlantic/Reykjavik"),
    ("Iran", "Asia/Tehran"),
    ("Israel", "Asia/Jerusalem"),
    ("Jamaica", "America/Jamaica"),
    ("Japan", "Asia/Tokyo"),
    ("Kwajalein", "Pacific/Kwajalein"),
    ("Libya", "Africa/Tripoli"),
    ("MET", "Europe/Brussels"),
    ("MST", "America/Phoenix"),
    ("MST7MDT", "America/Denver"),
    ("NZ", "Pacific/Auckland"),
    ("NZ-CHAT", "Pacific/Chatham"),
    ("Navajo", "America/Denver"),
    ("PRC", "Asia/Shanghai"),
    ("PST8PDT", "America/Los_Angeles"),
    ("Poland", "Europe/Warsaw"),
    ("Portugal", "Europe/Lisbon"),
    ("ROC", "Asia/Taipei"),
    ("ROK", "Asia/Seoul"),
    ("Singapore", "Asia/Singapore"),
    ("Turkey", "Europe/Istanbul"),
    ("UCT", "UTC"),
    ("UTC", "UTC"),
    ("Universal", "UTC"),
    ("W-SU", "Europe/Moscow"),
    ("WET", "Europe/Lisbon"),
    ("Zulu", "UTC"),
];

/// The zone of a copy of a zone's file; otherwise a zone that is near, if there is one.
type Found = Result<Zone, Option<String>>;

/// What the zone of a copy depends on.
#[derive(PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    /// The name in `/etc/timezone`.
    noted: Option<String>,
    /// Which zone data it was compared with.
    data: usize,
}

/// Instants of a winter and of a summer, at which the short names of times are compared.
const SAMPLES: [DateTime<Utc>; 2] = [
    DateTime::from_timestamp(1_768_435_200, 0).expect("in January 2026"),
    DateTime::from_timestamp(1_784_073_600, 0).expect("in July 2026"),
];

/// Where a machine says its zone.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    /// `TZ`, if it is set.
    pub(super) tz: Option<OsString>,
    /// The folder of zone files.
    pub(super) folder: PathBuf,
    pub(super) localtime: PathBuf,
    pub(super) timezone: PathBuf,
    pub(super) data: &'static ZoneData,
}

/// This machine's clock goes by no zone that has a name.
///
/// A schedule that names no zone of its own cannot run on such a machine. The text names the setting
/// of the machine and says what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoLocalZone {
    reason: String,
    suggestion: Option<String>,
}

impl NoLocalZone {
    /// Returns a zone with the same rules, if one is known.
    pub fn suggestion(&self) -> Option<&str> {
        self.suggestion.as_deref()
    }

    fn because(reason: impl Into<String>) -> Self {
        NoLocalZone { reason: reason.into(), suggestion: None }
    }
}

impl fmt::Display for NoLocalZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zone = self.suggestion.as_deref().unwrap_or("Europe/Berlin");
        write!(
            f,
            "this machine's zone is not known: {}; name a zone at the end of the schedule, as in `0 30 2 * * ? {zone}`",
            self.reason
        )
    }
}

impl std::error::Error for NoLocalZone {}

impl Machine {
    /// The machine and the environment of this process.
    pub(super) fn this() -> Self {
        let folder = env::var_os("TZDIR").filter(|folder| !folder.is_empty());
        Machine {
            tz: env::var_os("TZ"),
            folder: folder.map_or_else(|| FOLDER.into(), PathBuf::from),
            localtime: "/etc/localtime".into(),
            timezone: "/etc/timezone".into(),
            data: ZoneData::in_use(),
        }
    }

    /// The zone of the clock.
    pub(super) fn zone(&self) -> Result<Zone, NoLocalZone> {
        let Some(tz) = &self.tz else { return self.of_localtime() };
        // A colon says that a name follows; the C library takes both without it, too.
        let value = tz.as_encoded_bytes();
        let Ok(text) = str::from_utf8(value.strip_prefix(b":").unwrap_or(value)) else {
            return Err(NoLocalZone::because(format!("TZ is {tz:?}, which is no UTF-8")));
        };
        match text {
            // To set it to nothing is to ask for UTC.
            "" => Ok(Zone::UTC),
            path if path.starts_with('/') => self.of_path(Path::new(path), "TZ"),
            name => self.of_value(name),
        }
    }

    /// The zone of a `TZ` that is no path.
    fn of_value(&self, value: &str) -> Result<Zone, NoLocalZone> {
        if let Some(zone) = self.named(value) {
            return Ok(zone);
        }
        let path = self.folder.join(value);
        if path.is_file() {
            return self.of_path(&path, "TZ");
        }
        let unknown =
            |what: &str| NoLocalZone::because(format!("TZ is `{}`, {what}", shown(value)));
        match ZoneFile::of_rule(value) {
            Ok(rule) => {
                let name = rule.local_time(SAMPLES[0]).1;
                if is_unset(name) {
                    return Err(unknown("which says that nobody has set a zone"));
                }
                match rule.spans.only_offset() {
                    Some(offset) => fixed(name, offset)
                        .ok_or_else(|| unknown("an offset that no schedule can name")),
                    None => Err(NoLocalZone {
                        suggestion: self.with_rule(&rule),
                        ..unknown("a rule without the name of a zone")
                    }),
                }
            }
            // The C library takes the days of the United States for these, wherever the clock is.
            Err(_) if ZoneFile::of_rule(&format!("{value},M3.2.0,M11.1.0")).is_ok() => {
                Err(unknown("a rule that does not say when its clock changes"))
            }
            Err(_) => Err(NoLocalZone {
                suggestion: spelling::nearest_zone(value).filter(|name| name.contains('/')),
                ..unknown("which is neither a zone nor a rule")
            }),
        }
    }

    /// The zone of `/etc/localtime`.
    fn of_localtime(&self) -> Result<Zone, NoLocalZone> {
        if fs::symlink_metadata(&self.localtime).is_ok() {
            return self.of_path(&self.localtime, "");
        }
        self.noted().and_then(|name| self.named(&name)).ok_or_else(|| {
            NoLocalZone::because(format!(
                "TZ is not set, and there is no {}",
                self.localtime.display()
            ))
        })
    }

    /// The zone whose file lies at a path, by the names on the way to it, otherwise by its content.
    fn of_path(&self, path: &Path, source: &str) -> Result<Zone, NoLocalZone> {
        let mut at = path.to_owned();
        for _ in 0..LINKS_MAX {
            if let Some(zone) = self.name_in(&at).and_then(|name| self.named(&name)) {
                return Ok(zone);
            }
            let Ok(target) = fs::read_link(&at) else { break };
            at = at.parent().unwrap_or(Path::new("/")).join(target);
        }
        let place = match source {
            "" => shown(&path.to_string_lossy()),
            _ => format!("{source}, {},", shown(&path.to_string_lossy())),
        };
        let because = |what: &str| NoLocalZone::because(format!("{place} {what}"));
        let read = zone_files::read_file(path)
            .and_then(|bytes| ZoneFile::parse(&bytes).map(|file| (bytes, file)));
        let (bytes, file) = read.map_err(|error| match error {
            FileError::Missing => because("leads to no file"),
            FileError::Unsound(reason) => because(&reason),
        })?;
        if is_unset(file.local_time(SAMPLES[0]).1) {
            return Err(because("is the file of a machine whose zone nobody has set (`Factory`)"));
        }
        self.of_content(&bytes, &file).map_err(|suggestion| NoLocalZone {
            suggestion,
            ..because("is a copy of no zone that is known here")
        })
    }

    /// The zone of a copy of a zone's file; if it has none, a zone that is near. The answer is kept, as
    /// the search reads the files of all zones.
    fn of_content(&self, bytes: &[u8], file: &ZoneFile) -> Found {
        static KEPT: Mutex<Option<(Content, Found)>> = Mutex::new(None);
        let content = Content {
            bytes: bytes.to_vec(),
            noted: self.noted(),
            data: std::ptr::from_ref(self.data).addr(),
        };
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, found)) = &*kept
            && *of == content
        {
            return found.clone();
        }
        let found = self.search_content(bytes, file, content.noted.as_deref());
        *kept = Some((content, found.clone()));
        found
    }

    fn search_content(&self, bytes: &[u8], file: &ZoneFile, noted: Option<&str>) -> Found {
        if let [kind] = file.zone.as_ref().local_time_types()
            && kind.time_zone_designation() == "UTC"
            && kind.ut_offset() == 0
        {
            return Ok(Zone::UTC);
        }
        let noted = noted.and_then(|name| self.named(name));
        let is_same = |name: &&str| {
            let files = self.data.files();
            files.and_then(|files| files.bytes(name)).is_some_and(|other| other == bytes)
        };
        let same_file: Vec<&str> = names().filter(is_same).collect();
        if let Some(chosen) = self.chosen(&same_file, noted) {
            return chosen;
        }
        // Too many zones share a clock with one offset.
        if file.zone.as_ref().local_time_types().len() > 1 {
            let mut same_clock = self.with_clock(&file.spans, (0, LAST));
            same_clock.retain(|name| self.calls_times_alike(name, file));
            if let Some(chosen) = self.chosen(&same_clock, noted) {
                return chosen;
            }
        }
        // A copy of an older or a newer release agrees in the past; a copy of another zone may, too.
        let to_come = (past().1, LAST);
        if let Some(noted) = noted
            && self.spans(noted).is_some_and(|spans| spans.agree(&file.spans, past()))
        {
            return match self.is_clock_of(noted, &file.spans, to_come) {
                true => Ok(noted),
                false => Err(Some(noted.to_string())),
            };
        }
        let near = self.with_clock(&file.spans, to_come);
        Err(self.preferred(&near, None).map(|zone| zone.to_string()))
    }

    /// The one zone among those of a copy: the zone that `/etc/timezone` names, otherwise the only zone that is no old
    /// name, or that is well known. If several zones are left, none is chosen. None if there is no zone at all.
    fn chosen(&self, names: &[&str], noted: Option<Zone>) -> Option<Result<Zone, Option<String>>> {
        let preferred = self.preferred(names, noted)?;
        let links = self.data.files().map(|files| self.data.links(files));
        let is_current = |name: &&&str| {
            !name.starts_with("Etc/") && links.is_none_or(|links| !links.contains_key(**name))
        };
        let current: Vec<_> = names.iter().filter(is_current).collect();
        let well_known = current.iter().filter(|name| spelling::is_well_known(name)).count();
        let is_certain = Some(preferred) == noted || current.len() <= 1 || well_known == 1;
        Some(if is_certain { Ok(preferred) } else { Err(Some(preferred.to_string())) })
    }

    /// Whether a zone calls its times for short as a file does.
    fn calls_times_alike(&self, name: &str, file: &ZoneFile) -> bool {
        let zone = self.named(name);
        zone.is_some_and(|zone| {
            SAMPLES.iter().all(|&at| zone.named_time(at, self.data).1 == file.local_time(at).1)
        })
    }

    /// Whether a zone has a clock by the data that is used, by what is built in, or by its file.
    fn is_clock_of(&self, zone: Zone, spans: &Spans, range: (i64, i64)) -> bool {
        static BUILT_IN: OnceLock<ZoneData> = OnceLock::new();
        let built_in = || match zone.offsets_in(|| BUILT_IN.get_or_init(ZoneData::built_in)) {
            Offsets::Changing(of_zone) => of_zone.agree(spans, range),
            Offsets::Fixed(_) | Offsets::Unknown => false,
        };
        let of_file = || {
            let file = self.data.files().map(|files| files.zone(&zone.name()));
            file.and_then(Result::ok).is_some_and(|file| file.spans.agree(spans, range))
        };
        self.spans(zone).is_some_and(|of_zone| of_zone.agree(spans, range))
            || built_in()
            || of_file()
    }

    /// The zone that `/etc/timezone` names, otherwise the first of those that are not old names.
    fn preferred(&self, names: &[&str], noted: Option<Zone>) -> Option<Zone> {
        if let Some(noted) = noted.filter(|zone| names.contains(&&*zone.name())) {
            return Some(noted);
        }
        let links = self.data.files().map(|files| self.data.links(files));
        let is_old = |name: &str| links.is_some_and(|links| links.contains_key(name));
        // Names in `Etc` count offsets the other way, which misleads people.
        let is_remote = |name: &str| name.starts_with("Etc/") || name.starts_with("Arctic/");
        let rank = |name: &str| (is_old(name), is_remote(name), !spelling::is_well_known(name));
        names.iter().min_by_key(|name| rank(name)).and_then(|name| self.named(name))
    }

    /// The zones whose clocks show the same in a stretch of time.
    fn with_clock(&self, spans: &Spans, range: (i64, i64)) -> Vec<&'static str> {
        let agrees = |name: &&str| {
            let zone = self.named(name);
            zone.and_then(|zone| self.spans(zone)).is_some_and(|other| other.agree(spans, range))
        };
        names().filter(agrees).collect()
    }

    /// A zone that goes by this rule today.
    fn with_rule(&self, rule: &ZoneFile) -> Option<String> {
        let named = self.with_clock(&rule.spans, (past().1, LAST));
        self.preferred(&named, None).map(|zone| zone.to_string())
    }

    fn spans(&self, zone: Zone) -> Option<&'static Spans> {
        match zone.offsets_in(|| self.data) {
            Offsets::Changing(spans) => Some(spans),
            Offsets::Fixed(_) | Offsets::Unknown => None,
        }
    }

    /// The name in a path of a zone's file: `Europe/Berlin` in `../usr/share/zoneinfo/Europe/Berlin`.
    fn name_in(&self, path: &Path) -> Option<String> {
        let inner = match path.strip_prefix(&self.folder) {
            Ok(inner) => inner.to_owned(),
            Err(_) => {
                let parts: Vec<&OsStr> = path.components().map(Component::as_os_str).collect();
                let is_folder = |part: &&OsStr| part.as_encoded_bytes().starts_with(b"zoneinfo");
                let folder = parts.iter().rposition(is_folder)?;
                parts[folder + 1..].iter().collect()
            }
        };
        Some(inner.to_str()?.to_owned())
    }

    /// The zone of a name of the database, whichever set of files it names.
    fn named(&self, name: &str) -> Option<Zone> {
        let name =
            ["posix/", "right/"].iter().find_map(|set| name.strip_prefix(set)).unwrap_or(name);
        let short = SHORT_NAMES.iter().find(|(short, _)| *short == name);
        match short {
            Some((_, zone)) => Zone::from_name_in(zone, || self.data),
            None if name.contains('/') => Zone::from_name_in(name, || self.data),
            None => None,
        }
    }

    /// What `/etc/timezone` says.
    fn noted(&self) -> Option<String> {
        let bytes = zone_files::read_file(&self.timezone).ok()?;
        let text = String::from_utf8(bytes.into_iter().take(NAME_BYTES_MAX).collect()).ok()?;
        // As Debian's own scripts read it: comments are passed over.
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.map(str::to_owned).find(|line| !line.is_empty())
    }
}

/// The names that a schedule can have.
fn names() -> impl Iterator<Item = &'static str> {
    TZ_VARIANTS.iter().map(|tz| tz.name()).filter(|name| name.contains('/'))
}

/// Ten years on which releases of the database agree: none of them rewrites these.
fn past() -> (i64, i64) {
    let start = |year| {
        let day = NaiveDate::from_ymd_opt(year, 1, 1).expect("every year has a first day");
        day.signed_duration_since(NaiveDate::default()).num_seconds()
    };
    (start(2015), start(2025))
}

/// Whether this short name of a time says that the time is not known.
fn is_unset(name: &str) -> bool {
    name == UNKNOWN
}

/// The zone of a clock with one offset.
fn fixed(name: &str, offset: i64) -> Option<Zone> {
    let (hours, minutes) = (offset / 3600, offset / 60 % 60);
    match offset {
        0 if name == "GMT" => Zone::from_name(name),
        0 => Some(Zone::UTC),
        _ if offset % 60 != 0 => None,
        _ => {
            let sign = if offset < 0 { '-' } else { '+' };
            Zone::from_name(&format!("GMT{sign}{}:{:02}", hours.abs(), minutes.abs()))
        }
    }
}

/// A text of the environment, so cut and escaped that a terminal can show it.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::super::tzif::{vancouver, write, zone_file};
    use super::*;

    const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";

    /// A machine in a folder: zone files of a newer release below `usr`, nothing else.
    struct Place {
        folder: TempDir,
        machine: Machine,
    }

    fn berlin() -> Vec<u8> {
        let offsets = [(3600, false, "CET"), (7200, true, "CEST")];
        zone_file(&offsets, &[(1_700_000_000, 0)], "CET-1CEST,M3.5.0,M10.5.0/3")
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        let zones = root.join("usr/share/zoneinfo");
        let files: [(&str, &[u8]); 6] = [
            ("America/Vancouver", &vancouver()),
            ("Europe/Berlin", &berlin()),
            ("Arctic/Longyearbyen", &berlin()),
            ("right/Europe/Berlin", &berlin()),
            ("Mars/Olympus", &zone_file(&[(61, false, "MTC")], &[], "MTC-0:01:01")),
            ("Own", &zone_file(&[(62, false, "OWN")], &[], "OWN-0:01:02")),
        ];
        write(&zones, "9026b", &files);
        fs::create_dir(root.join("etc")).expect("a folder");
        let data = Box::leak(Box::new(ZoneData::with_files(&zones, true)));
        let machine = Machine {
            tz: None,
            folder: zones,
            localtime: root.join("etc/localtime"),
            timezone: root.join("etc/timezone"),
            data,
        };
        Place { folder, machine }
    }

    /// The zone that is found, or the reason and the zone that is suggested.
    fn told(machine: &Machine) -> String {
        match machine.zone() {
            Ok(zone) => zone.to_string(),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("0 30 2 * * ?"), "says what to write: {text}");
                format!("{}? {}", error.suggestion().unwrap_or_default(), error.reason)
            }
        }
    }

    #[test]
    fn tz_is_read_as_the_c_library_does_and_never_guessed() {
        let Place { folder, machine } = place();
        let root = folder.path().display().to_string();
        let check = |tz: &str, want: &str| {
            let tz = Some(tz.replace("ROOT", &root).into());
            let got = told(&Machine { tz, ..machine.clone() }).replace(&root, "ROOT");
            assert!(got.starts_with(want), "{got}, want {want}");
        };
        for set in [
            "",
            ":",
            "posix/",
            ":posix/",
            "right/",
            "ROOT/usr/share/zoneinfo/",
            ":/usr/share/zoneinfo/right/",
            "/etc/zoneinfo/",
        ] {
            check(&format!("{set}Europe/Berlin"), "Europe/Berlin");
            check(&format!("{set}America/New_York"), "America/New_York");
            check(&format!("{set}Japan"), "Asia/Tokyo");
            check(&format!("{set}EST5EDT"), "America/New_York");
            check(&format!("{set}Etc/UTC"), "Etc/UTC");
        }
        check("", "UTC");
        check(":", "UTC");
        check("UTC", "UTC");
        check("UTC0", "UTC");
        check("Zulu0", "UTC");
        check("GMT", "GMT");
        check("Mars/Olympus", "Mars/Olympus");
        // Signs of rules count the other way round.
        check("EST5", "GMT-5:00");
        check("GMT-8", "GMT+8:00");
        check("UTC+3:30", "GMT-3:30");
        check("<+0330>-3:30", "GMT+3:30");
        check(NEW_YORK, "America/New_York? TZ is `EST5EDT,M3.2.0,M11.1.0`, a rule");
        check("XYZ5ABC,M1.1.1,M2.2.2", "? TZ is");
        // A clock that changes never, or between two offsets of which one always holds.
        for (rule, want) in [
            ("<+03>-3", "GMT+3:00"),
            ("<-0930>+9:30", "GMT-9:30"),
            ("EST5EDT,0/0,J365/25", "GMT-4:00"),
            ("XXX3EDT4,0/0,J365/23", "GMT-4:00"),
            (":<+03>-3", "GMT+3:00"),
        ] {
            check(rule, want);
        }
        // Days of the year and hours of other days; the zones of the files go by none of these.
        for rule in [
            "AAA0BBB,J60,J300",
            "AAA0BBB,59/0,299/24",
            "AAA0BBB,M3.4.4/50,M10.4.4/50",
            "AAA0BBB,M3.5.0/-167,M10.5.0/167",
            "<+00>0<+01>,M3.5.0/-1:59:59,M10.5.0/0",
        ] {
            check(rule, &format!("? TZ is `{rule}`, a rule without the name"));
        }
        // Nothing in the files says which name is an old one.
        check("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "America/Godthab? TZ is");
        check("IST-2IDT,M3.4.4/26,M10.5.0", "Asia/Jerusalem? TZ is");
        check("AEST-10AEDT", "? TZ is `AEST-10AEDT`, a rule that does not say when");
        for no_rule in [
            "AAA0BBB,J0,J300",
            "AAA0BBB,J1,J366",
            "AAA0BBB,1,366",
            "AAA0BBB,M0.1.0,M3.1.0",
            "AAA0BBB,M3.2.0/168,M11.1.0",
            "AAA0BBB,M3.2.0/-168,M11.1.0",
            "AAA0BBB,M3.2.0",
            "AAA0BBB,M3.2.0,M11.1.0,",
            "AAA25",
            "AA0",
            "Z0",
            "AAA0BB,M3.2.0,M11.1.0",
            "<AAA0",
            "<A A>0",
            "UTC0 ",
            " UTC0",
            "UTC0\n",
            "::UTC0",
            " ",
            "\0",
            "0",
            "posixrules",
            "../Own",
            "garbage",
            "Etc/Garbage",
        ] {
            let text = shown(no_rule.strip_prefix(':').unwrap_or(no_rule));
            check(no_rule, &format!("? TZ is `{text}`, which is neither a zone nor a rule"));
        }
        check("\"Europe/Berlin\"", "Europe/Berlin? TZ is `\\\"Europe/Berlin\\\"`");
        check("XYZ20", "? TZ is `XYZ20`, an offset");
        check("<-00>0", "? TZ is `<-00>0`, which says that nobody has set");
        check("XYZ0:00:07", "? TZ is `XYZ0:00:07`, an offset");
        check("America/NewYork", "America/New_York? TZ is `America/NewYork`, which is neither");
        check("america/new_york", "America/New_York? TZ");
        check("Mars/Elysium", "? TZ is");
        check("/nowhere", "? TZ, /nowhere, leads to no file");
        check("/dev/zero", "? TZ, /dev/zero, cannot be read");
        check(
            "ROOT/usr/share/zoneinfo/Own",
            "? TZ, ROOT/usr/share/zoneinfo/Own, is a copy of no zone",
        );
        check("Own", "? TZ, ROOT/usr/share/zoneinfo/Own, is a copy of no zone");
        check("x\u{1b}[2J", "? TZ is `x\\u{1b}[2J`");
        let machine = Machine { tz: Some(OsString::from("CST")), ..machine };
        assert!(machine.zone().is_err(), "several zones share it");
    }

    #[test]
    fn local_time_is_found_by_its_links() {
        let check = |target: &str, want: &str| {
            let Place { folder, machine } = place();
            let target = target.replace("ROOT", &folder.path().display().to_string());
            symlink(target, &machine.localtime).expect("a link");
            let got = told(&machine);
            assert!(got.starts_with(want), "{got}, want {want}");
        };
        check("/usr/share/zoneinfo/America/New_York", "America/New_York");
        check("../usr/share/zoneinfo/Europe/Berlin", "Europe/Berlin");
        check("../usr/share/zoneinfo/posix/Europe/Berlin", "Europe/Berlin");
        check("/usr/share/zoneinfo/right/Europe/Berlin", "Europe/Berlin");
        check("/var/db/timezone/zoneinfo/Europe/Berlin", "Europe/Berlin");
        check("/usr/share/zoneinfo.default/Europe/Berlin", "Europe/Berlin");
        check("/etc/zoneinfo/PRC", "Asia/Shanghai");
        check("/usr/share/zoneinfo/UTC", "UTC");
        check("/nowhere", "? ");
        check("localtime", "? ");
        let Place { folder: _folder, machine } = place();
        symlink("../usr/share/zoneinfo/Europe/Berlin", machine.localtime.with_file_name("zone"))
            .expect("a link");
        symlink("zone", &machine.localtime).expect("a link");
        assert_eq!(told(&machine), "Europe/Berlin", "a link to a link");
    }

    #[test]
    fn a_copy_of_a_zone_is_found_by_its_content() {
        let check = |bytes: &[u8], noted: &str, want: &str| {
            let Place { folder: _folder, machine } = place();
            fs::write(&machine.localtime, bytes).expect("written");
            if !noted.is_empty() {
                fs::write(&machine.timezone, noted).expect("written");
            }
            let got = told(&machine);
            assert!(got.starts_with(want) || got.contains(want), "{got}, want {want}");
        };
        check(&vancouver(), "", "America/Vancouver");
        check(&berlin(), "Europe/Berlin\n", "Europe/Berlin");
        check(&berlin(), "# set by hand\nArctic/Longyearbyen # here\n", "Arctic/Longyearbyen");
        // Two zones have the file, and no list of links says which of them is an old name.
        check(&berlin(), "America/Vancouver\n", "Europe/Berlin? ");
        check(&zone_file(&[(0, false, "UTC")], &[], "UTC0"), "", "UTC");
        // The same clock in other bytes.
        let other = zone_file(&[(61, false, "LMT")], &[], "LMT-0:01:01");
        check(&other, "", "is a copy of no zone");
        check(b"nonsense", "Europe/Berlin\n", "no sound zone file");
        check(&zone_file(&[(0, false, "-00")], &[], "<-00>0"), "", "nobody has set");
        check(&zone_file(&[(0, false, "XYZ")], &[], "XYZ0"), "", "is a copy of no zone");
        check(&zone_file(&[(0, false, "UCT")], &[], "UCT0"), "", "is a copy of no zone");
        check(
            &zone_file(&[(60, false, "XYZ")], &[], "XYZ-0:01"),
            "Europe/Berlin",
            "is a copy of no zone",
        );
    }

    #[test]
    fn a_noted_zone_whose_clock_goes_another_way_from_now_on_is_only_suggested() {
        let offsets = [(3600, false, "CET"), (7200, true, "CEST")];
        // The changes of the zone up to the end of 2024.
        let changes = [(1_700_000_000, 0), (1_711_846_800, 1), (1_729_990_800, 0)];
        let check = |rule: &str, want: &str| {
            let Place { folder: _folder, machine } = place();
            fs::write(&machine.localtime, zone_file(&offsets, &changes, rule)).expect("written");
            fs::write(&machine.timezone, "Europe/Berlin\n").expect("written");
            let got = told(&machine);
            assert_eq!(got.split(' ').next(), Some(want), "{rule}: {got}");
        };
        check("CET-1CEST,M3.5.0,M10.5.0/3", "Europe/Berlin");
        check("CET-1", "Europe/Berlin?");
        check("CET-1CEST,M4.5.0,M10.5.0/3", "Europe/Berlin?");
    }

    #[test]
    fn a_machine_that_is_given_another_zone_has_it_at_the_next_look() {
        let Place { folder: _folder, machine } = place();
        let berlin_file = berlin();
        let link = |to: &str| {
            let _ = fs::remove_file(&machine.localtime);
            symlink(format!("../usr/share/zoneinfo/{to}"), &machine.localtime).expect("a link");
        };
        let copy = |bytes: &[u8]| {
            let _ = fs::remove_file(&machine.localtime);
            fs::write(&machine.localtime, bytes).expect("written");
        };
        let note = |name: &str| fs::write(&machine.timezone, name).expect("written");
        for round in ["first", "second"] {
            link("Europe/Berlin");
            assert_eq!(told(&machine), "Europe/Berlin", "{round}");
            link("America/Vancouver");
            assert_eq!(told(&machine), "America/Vancouver", "{round}");
            note("Europe/Berlin\n");
            copy(&berlin_file);
            assert_eq!(told(&machine), "Europe/Berlin", "{round}");
            note("Arctic/Longyearbyen\n");
            assert_eq!(told(&machine), "Arctic/Longyearbyen", "{round}");
            // Written over in place.
            fs::write(&machine.localtime, vancouver()).expect("written");
            assert_eq!(told(&machine), "America/Vancouver", "{round}");
            let set = |tz: &str| Machine { tz: Some(tz.into()), ..machine.clone() };
            assert_eq!(told(&set("Europe/Berlin")), "Europe/Berlin", "{round}");
        }
    }

    #[test]
    fn a_path_in_tz_leads_to_a_zone_as_the_clock_file_does() {
        let Place { folder: _folder, machine } = place();
        let posix_rules = machine.folder.join("posixrules");
        let set = |tz: &Path, mark: &str| {
            let mut value = OsString::from(mark);
            value.push(tz);
            told(&Machine { tz: Some(value), ..machine.clone() })
        };
        for mark in ["", ":"] {
            let told = set(&machine.localtime, mark);
            assert!(told.contains("leads to no file"), "{told}");
        }
        symlink("../usr/share/zoneinfo/Europe/Berlin", &machine.localtime).expect("a link");
        symlink("America/Vancouver", &posix_rules).expect("a link");
        for mark in ["", ":"] {
            assert_eq!(set(&machine.localtime, mark), "Europe/Berlin");
            assert_eq!(set(Path::new("posixrules"), mark), "America/Vancouver");
        }
        for file in [&machine.localtime, &posix_rules] {
            fs::remove_file(file).expect("removed");
            fs::write(file, vancouver()).expect("written");
        }
        assert_eq!(set(&machine.localtime, ":"), "America/Vancouver", "a copy");
        assert_eq!(set(Path::new("posixrules"), ""), "America/Vancouver", "a copy");
    }

    #[test]
    fn what_is_no_zone_file_stands_for_no_zone_and_is_not_waited_for() {
        let check = |make: &dyn Fn(&Path), want: &str| {
            let Place { folder: _folder, machine } = place();
            make(&machine.localtime);
            // What the machine's owner noted does not stand for a file that says something else.
            fs::write(&machine.timezone, "Europe/Berlin\n").expect("written");
            for tz in [None, Some(machine.localtime.clone().into_os_string())] {
                let got = told(&Machine { tz, ..machine.clone() });
                assert!(got.starts_with("? ") && got.contains(want), "{got}, want {want}");
            }
        };
        let put = |bytes: Vec<u8>| move |at: &Path| fs::write(at, &bytes).expect("written");
        let link = |to: &'static str| move |at: &Path| symlink(to, at).expect("a link");
        check(&|at| fs::create_dir(at).expect("a folder"), "no regular file");
        check(
            &|at| {
                let mode = rustix::fs::Mode::RUSR;
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, at, kind, mode, 0).expect("a pipe");
            },
            "no regular file",
        );
        check(&link("/dev/zero"), "no regular file");
        check(&link("localtime"), "cannot be read");
        check(&link("/nowhere"), "leads to no file");
        check(&link("timezone/x"), "leads to no file");
        check(&put(Vec::new()), "no sound zone file");
        check(&put(vec![0; 1 << 20]), "more than");
        check(&put(b"Europe/Berlin\n".to_vec()), "no sound zone file");
        check(&put(berlin()[..100].to_vec()), "no sound zone file");
        let version = |version| {
            let mut bytes = berlin();
            bytes[4] = version;
            bytes
        };
        check(&put(version(0)), "version 1");
        check(&put(version(b'5')), "version 5");
        check(&put(version(b'x')), "no sound zone file");
    }

    #[test]
    fn a_machine_that_does_not_say_its_zone_has_none() {
        let Place { machine, .. } = place();
        assert!(told(&machine).starts_with("? TZ is not set, and there is no "));
    }

    #[test]
    fn a_name_in_etc_timezone_is_enough() {
        let Place { folder: _folder, machine } = place();
        fs::write(&machine.timezone, "Europe/Berlin\n").expect("written");
        assert_eq!(told(&machine), "Europe/Berlin");
        fs::write(&machine.timezone, "Berlin\n").expect("written");
        assert!(told(&machine).starts_with('?'));
        fs::write(&machine.timezone, [0xff; 300]).expect("written");
        assert!(told(&machine).starts_with('?'));
    }

    #[test]
    fn short_names_are_the_zones_that_the_database_says() {
        let built_in: &ZoneData = Box::leak(Box::new(ZoneData::built_in()));
        let spans = |name: &str| built_in.region(name.parse().expect("a name")).spans();
        for (short, zone) in SHORT_NAMES {
            if let "UTC" | "GMT" = zone {
                assert!(spans(short).agree(spans("Etc/UTC"), (0, LAST)), "{short}");
            } else {
                assert!(spans(short).agree(spans(zone), (0, LAST)), "{short} {zone}");
            }
        }
        let short = TZ_VARIANTS.iter().map(|tz| tz.name()).filter(|name| !name.contains('/'));
        let unknown: Vec<&str> =
            short.filter(|name| !SHORT_NAMES.iter().any(|(known, _)| known == name)).collect();
        assert_eq!(unknown, [""; 0]);
    }
}

//! Which zone data is used: the set that is built in, or the files of this machine where they are
//! newer.

use std::collections::BTreeMap;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use chrono::{DateTime, Datelike, FixedOffset, Offset, TimeZone, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::calendar::SECONDS_PER_DAY;
use super::offsets::Spans;
use super::zone::{LAST, STEP_SECONDS};
use super::zone_files::{self, FileError, Release, Stamp, ZoneFile, ZoneFiles};

/// Where the zone files of a machine lie, unless `TZDIR` says otherwise.
pub(super) const FOLDER: &str = "/usr/share/zoneinfo";

/// The month of the following year from which a release is outdated: by then, every year so far had
/// a release of its own.
const OUTDATED_MONTH: u32 = 7;

/// The target of the event of `tracing` that warns of outdated zone data, once for each engine that has
/// schedules.
pub const OUTDATED_TARGET: &str = "adjutant::zone_data";

/// The most names that only this machine has. A zone is never forgotten.
const OWN_NAMES_MAX: usize = 1_024;

/// How often the data of a process is replaced. The data before is never forgotten, because schedules may use it.
const RENEWALS_MAX: usize = 64;

static IN_USE: LazyLock<Succession> = LazyLock::new(Succession::of_this_machine);

/// The most remarks that are kept.
const REMARKS_MAX: usize = 64;

/// The data that says how clocks change, in one process.
///
/// A release of the IANA database is built in. If the zone files of this machine (in `TZDIR`,
/// otherwise in `/usr/share/zoneinfo`) say that they are a newer release, in `tzdata.zi` or in
/// `+VERSION`, the files are used. So a change of law needs no new build: the system's package is
/// enough. The choice is made when a process first uses a zone. An engine looks every five minutes whether the release
/// of the files has changed. Once two looks in a row have found the same change, the process goes by the new files, and
/// the engine plans its fires again. A process without an engine keeps its choice until it ends.
///
/// No file is trusted. If the file of a zone is missing or damaged, the zone keeps its built-in
/// rules, and [`remarks`](Self::remarks) says so.
///
/// # Example: what this process uses
///
/// ```
/// use adjutant::schedule::ZoneData;
///
/// let data = ZoneData::in_use();
/// assert!(data.version() >= ZoneData::BUILT_IN);
/// println!("zone data {data}"); // `2026b, from /usr/share/zoneinfo`, or `2025b, built in`
/// ```
pub struct ZoneData {
    version: String,
    /// The files of this machine, for names that are not built in; for all names if `is_newer`.
    files: Option<ZoneFiles>,
    is_newer: bool,
    /// The clocks of the built-in names, each worked out when its zone is first used.
    regions: Box<[OnceLock<Region>]>,
    /// The zones whose names only the files have.
    own: Mutex<BTreeMap<String, &'static OwnRegion>>,
    /// The zones that records name and no file has.
    without_file: Mutex<BTreeMap<String, &'static OwnRegion>>,
    links: OnceLock<BTreeMap<String, String>>,
    remarks: Mutex<Vec<String>>,
    remark_count: AtomicUsize,
    fingerprint: OnceLock<String>,
    /// The data that was used before in this process.
    before: Option<&'static ZoneData>,
}

/// The data of a process: the first, and after each change of the files the data that replaces it.
struct Succession {
    folder: PathBuf,
    is_given: bool,
    first: InUse,
    looked: Mutex<Looked>,
}

struct InUse {
    data: ZoneData,
    next: OnceLock<Box<InUse>>,
}

/// What looks at the files have found.
struct Looked {
    /// The state of the files that are used.
    used: Stamp,
    /// The state of the files at the last look.
    last: Stamp,
    renewals: usize,
}

/// The clock of a zone whose name is built in.
#[derive(Debug)]
pub(super) enum Region {
    BuiltIn(Spans),
    File(ZoneFile),
}

/// A zone whose name is not built in.
#[derive(Debug)]
pub(super) struct OwnRegion {
    pub(super) name: String,
    /// Empty if no file said the rules when the zone was named.
    pub(super) file: OnceLock<ZoneFile>,
}

impl ZoneData {
    /// The release of the IANA database that is built in, such as `2025b`.
    pub const BUILT_IN: &'static str = chrono_tz::IANA_TZDB_VERSION;

    /// Returns the data that this process uses.
    pub fn in_use() -> &'static ZoneData {
        &IN_USE.last().data
    }

    /// Returns whether a look may find a change. Reads no file.
    pub(crate) fn may_have_changed() -> bool {
        IN_USE.may_have_changed()
    }

    /// Looks at the files, and returns the data to be used from now on. Reads files.
    pub(crate) fn look() -> &'static ZoneData {
        IN_USE.look()
    }

    /// Returns the release that is used, such as `2026b`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the folder of the files that are used; `None` if the data is what is built in.
    pub fn folder(&self) -> Option<&Path> {
        self.newer_files().map(ZoneFiles::folder)
    }

    /// Returns whether newer rules are likely to exist at an instant: from July on, data of an
    /// earlier year is outdated.
    pub fn is_outdated(&self, at: DateTime<Utc>) -> bool {
        let release = Release::read(&self.version).map_or(0, |release| i32::from(release.year));
        let age = at.year() - release;
        age > 1 || age == 1 && at.month() >= OUTDATED_MONTH
    }

    /// Returns a sentence for each file of this machine that was found to be missing or damaged so far. The
    /// zones of these files have their built-in rules.
    pub fn remarks(&self) -> Vec<String> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of remarks so far, which costs no more than a look.
    pub(crate) fn remark_count(&self) -> usize {
        self.remark_count.load(Ordering::Relaxed)
    }

    /// Returns a text that another set of data has not: fires planned with other data are planned
    /// again. Reads the files that are used: all of them if they are newer, otherwise those of names that are not
    /// built in. The answer of the first call stays, as the data does.
    pub(crate) fn fingerprint(&self) -> &str {
        self.fingerprint.get_or_init(|| self.read_fingerprint())
    }

    fn read_fingerprint(&self) -> String {
        let built_in = ZoneData::BUILT_IN;
        let Some(files) = &self.files else { return built_in.to_owned() };
        let is_own = |name: &str| {
            name.contains('/') && zone_files::is_name(name) && name.parse::<Tz>().is_err()
        };
        let content = files.fingerprint(|name| self.is_newer || is_own(name));
        format!("{built_in} {} {} {content}", self.version, files.folder().display())
    }

    /// The data that is used where the files of this machine lie in `folder`.
    pub(super) fn with_files(folder: &Path, is_given: bool) -> ZoneData {
        let files = ZoneFiles::new(folder);
        let version = files.version();
        let newer = version
            .clone()
            .filter(|version| Release::read(version) > Release::read(ZoneData::BUILT_IN));
        let is_newer = newer.is_some();
        let data = ZoneData {
            version: newer.unwrap_or_else(|| ZoneData::BUILT_IN.to_owned()),
            files: Some(files),
            is_newer,
            ..ZoneData::built_in()
        };
        if is_given && version.is_none() {
            let folder = folder.display();
            data.remark(format!(
                "the zone files in {folder} (TZDIR) are not used: neither `tzdata.zi` nor `+VERSION` there says \
                 their release"
            ));
        }
        data
    }

    /// The data that is built in, and nothing of this machine.
    pub(super) fn built_in() -> ZoneData {
        ZoneData {
            version: ZoneData::BUILT_IN.to_owned(),
            files: None,
            is_newer: false,
            regions: TZ_VARIANTS.iter().map(|_| OnceLock::new()).collect(),
            own: Mutex::default(),
            without_file: Mutex::default(),
            links: OnceLock::new(),
            remarks: Mutex::default(),
            remark_count: AtomicUsize::new(0),
            fingerprint: OnceLock::new(),
            before: None,
        }
    }

    fn newer_files(&self) -> Option<&ZoneFiles> {
        self.files.as_ref().filter(|_| self.is_newer)
    }

    /// The files of this machine, whether newer or not.
    pub(super) fn files(&self) -> Option<&ZoneFiles> {
        self.files.as_ref()
    }

    /// The clock of a zone whose name is built in.
    pub(super) fn region(&self, tz: Tz) -> &Region {
        self.regions[tz as usize].get_or_init(|| {
            let Some(files) = self.newer_files() else { return Region::built_in(tz) };
            let name = tz.name();
            let found = match files.zone(name) {
                // Some systems have no files for old names, but say which names they stand for.
                Err(FileError::Missing) => match self.links(files).get(name) {
                    Some(target) => files.zone(target),
                    None => Err(FileError::Missing),
                },
                found => found,
            };
            found.map(Region::File).unwrap_or_else(|error| {
                let reason = match error {
                    FileError::Missing => "is missing".to_owned(),
                    FileError::Unsound(reason) => reason,
                };
                self.remark(format!(
                    "{} {reason}; {name} follows the built-in zone data {}",
                    files.folder().join(name).display(),
                    ZoneData::BUILT_IN
                ));
                Region::built_in(tz)
            })
        })
    }

    /// The zone of a name that is not built in, if a file of this machine has it.
    pub(super) fn own_region(&self, name: &str) -> Option<&'static OwnRegion> {
        let files = self.files.as_ref()?;
        if !name.contains('/') || !zone_files::is_name(name) {
            return None;
        }
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = own.get(name) {
            return Some(known);
        }
        let mut error = None;
        let file = match files.zone(name) {
            Ok(file) if own.len() < OWN_NAMES_MAX => Some(file),
            Ok(_) => None,
            Err(found) => {
                error = Some(found);
                None
            }
        };
        let Some(file) = file else {
            // The rules of a schedule that goes on stay known.
            let known = self.before.and_then(|before| before.own_region(name));
            own.extend(known.map(|region| (name.to_owned(), region)));
            drop(own);
            let reason = match error {
                Some(FileError::Unsound(reason)) => reason,
                Some(FileError::Missing) if known.is_some() => "is missing".to_owned(),
                _ => return known,
            };
            let file = files.folder().join(name);
            let follows = known.map_or("", |_| "; the zone follows the rules of the file before");
            self.remark(format!("{} {reason}{follows}", file.display()));
            return known;
        };
        let region: &OwnRegion = Box::leak(Box::new(OwnRegion::new(name, Some(file))));
        own.insert(name.to_owned(), region);
        Some(region)
    }

    /// A zone by its name alone, for the record of an instance whose zone no file of this machine has now.
    pub(super) fn region_without_file(&self, name: &str) -> Option<&'static OwnRegion> {
        if !name.contains('/') || !zone_files::is_name(name) {
            return None;
        }
        let mut known = self.without_file.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= OWN_NAMES_MAX && !known.contains_key(name) {
            return None;
        }
        let region = known
            .entry(name.to_owned())
            .or_insert_with(|| Box::leak(Box::new(OwnRegion::new(name, None))));
        Some(region)
    }

    /// Which old names of the files stand for which.
    pub(super) fn links(&self, files: &ZoneFiles) -> &BTreeMap<String, String> {
        self.links.get_or_init(|| files.links())
    }

    fn remark(&self, text: String) {
        let mut remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        if remarks.len() < REMARKS_MAX && !remarks.contains(&text) {
            remarks.push(text);
            self.remark_count.store(remarks.len(), Ordering::Relaxed);
        }
    }
}

impl Succession {
    fn of_this_machine() -> Self {
        let given = env::var_os("TZDIR").filter(|folder| !folder.is_empty());
        let is_given = given.is_some();
        Succession::new(given.map_or_else(|| FOLDER.into(), PathBuf::from), is_given)
    }

    fn new(folder: PathBuf, is_given: bool) -> Self {
        // What is written while the data is made is found by a later look.
        let stamp = ZoneFiles::new(&folder).stamp();
        let looked = Looked { used: stamp, last: stamp, renewals: 0 };
        let data = ZoneData::with_files(&folder, is_given);
        let first = InUse { data, next: OnceLock::new() };
        Succession { folder, is_given, first, looked: Mutex::new(looked) }
    }

    fn last(&self) -> &InUse {
        let mut last = &self.first;
        while let Some(next) = last.next.get() {
            last = next;
        }
        last
    }

    fn may_have_changed(&self) -> bool {
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = ZoneFiles::new(&self.folder).stamp();
        stamp != looked.last || stamp != looked.used
    }

    /// Returns the data to be used. A package is not written all at once, so files count as changed when they have
    /// stayed as they are since the look before.
    fn look(&'static self) -> &'static ZoneData {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = ZoneFiles::new(&self.folder).stamp();
        let is_written = stamp == looked.last;
        looked.last = stamp;
        let last = self.last();
        if stamp == looked.used || !is_written {
            return &last.data;
        }
        if looked.renewals == RENEWALS_MAX {
            last.data.remark(format!(
                "the zone files in {} have changed more often than a process can follow; restart it",
                self.folder.display()
            ));
            return &last.data;
        }
        looked.renewals += 1;
        looked.used = stamp;
        let mut data = ZoneData::with_files(&self.folder, self.is_given);
        data.before = Some(&last.data);
        &last.next.get_or_init(|| Box::new(InUse { data, next: OnceLock::new() })).data
    }
}

impl OwnRegion {
    fn new(name: &str, file: Option<ZoneFile>) -> Self {
        OwnRegion { name: name.to_owned(), file: file.map(OnceLock::from).unwrap_or_default() }
    }
}

impl Region {
    fn built_in(tz: Tz) -> Self {
        let offset_at = |instant| {
            let instant = DateTime::from_timestamp(instant, 0).expect("between 1969 and 2101");
            i64::from(tz.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc())
        };
        let spans = Spans::find((-SECONDS_PER_DAY, LAST), STEP_SECONDS, offset_at);
        Region::BuiltIn(spans)
    }

    pub(super) fn spans(&self) -> &Spans {
        match self {
            Region::BuiltIn(spans) => spans,
            Region::File(file) => &file.spans,
        }
    }

    /// What the clock of the zone shows at an instant, and how that time is called for short.
    pub(super) fn local_time(&self, tz: Tz, at: DateTime<Utc>) -> (DateTime<FixedOffset>, String) {
        match self {
            Region::File(file) => {
                let (time, name) = file.local_time(at);
                (time, name.to_owned())
            }
            Region::BuiltIn(_) => {
                let offset = tz.offset_from_utc_datetime(&at.naive_utc());
                (at.with_timezone(&offset.fix()), offset.to_string())
            }
        }
    }
}

impl fmt::Display for ZoneData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.folder() {
            Some(folder) => write!(f, "{}, from {}", self.version, folder.display()),
            None => write!(f, "{}, built in", self.version),
        }
    }
}

impl fmt::Debug for ZoneData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ZoneData");
        debug.field("version", &self.version).field("folder", &self.folder());
        debug.finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::super::tzif::{vancouver, write, zone_file};
    use super::super::{Schedule, Zone};
    use super::*;

    fn folder(release: &str, files: &[(&str, &[u8])]) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), release, files);
        folder
    }

    fn data(folder: &TempDir) -> &'static ZoneData {
        Box::leak(Box::new(ZoneData::with_files(folder.path(), true)))
    }

    /// What the clock of a zone shows at an instant by some data.
    fn shown(data: &'static ZoneData, zone: &str, at: &str) -> String {
        let zone = Zone::from_name_in(zone, || data).expect("a zone");
        let at: DateTime<Utc> = at.parse().expect("an instant");
        let (time, name) = zone.named_time(at, data);
        // The spans of schedules and the time that is shown are of one clock.
        let spans = match zone.offsets_in(|| data) {
            super::super::offsets::Offsets::Changing(spans) => spans,
            _ => unreachable!("a region"),
        };
        assert_eq!(spans.offset_at(at.timestamp()), i64::from(time.offset().local_minus_utc()));
        format!("{} {name}", time.format("%H:%M %:z"))
    }

    const DECEMBER: &str = "2026-12-15T20:00:00Z";

    #[test]
    fn newer_files_of_the_system_decide_and_older_ones_do_not() {
        let check = |release: &str, version: &str, want: &str| {
            let folder = folder(release, &[("America/Vancouver", &vancouver())]);
            let data = data(&folder);
            assert_eq!(data.version(), version, "{release}");
            assert_eq!(shown(data, "America/Vancouver", DECEMBER), want, "{release}");
            assert_eq!(data.remarks(), [""; 0], "{release}");
            assert_eq!(data.folder().is_some(), version != ZoneData::BUILT_IN);
        };
        let old = shown(Box::leak(Box::new(ZoneData::built_in())), "America/Vancouver", DECEMBER);
        check("9026b", "9026b", "13:00 -07:00 MST");
        check("9026za", "9026za", "13:00 -07:00 MST");
        check("9026b-dirty", "9026b-dirty", "13:00 -07:00 MST");
        check(ZoneData::BUILT_IN, ZoneData::BUILT_IN, &old);
        check("2000a", ZoneData::BUILT_IN, &old);
    }

    #[test]
    fn the_release_is_read_from_either_file() {
        let folder = folder("9026b", &[("+VERSION", b"9027a\n")]);
        assert_eq!(data(&folder).version(), "9026b");
        fs::write(folder.path().join("tzdata.zi"), "# version unknown\n").expect("written");
        assert_eq!(data(&folder).version(), "9027a");
        fs::remove_file(folder.path().join("tzdata.zi")).expect("removed");
        assert_eq!(data(&folder).version(), "9027a");
        fs::write(folder.path().join("+VERSION"), [0xff; 5000]).expect("written");
        let nameless = data(&folder);
        assert_eq!(nameless.version(), ZoneData::BUILT_IN);
        assert!(nameless.remarks()[0].contains("+VERSION"), "{:?}", nameless.remarks());
    }

    #[test]
    fn releases_are_in_the_order_of_their_years_and_letters() {
        let order = ["1999z", "2025a", "2025b", "2025z", "2025za", "2025zb", "2026a"];
        assert!(order.is_sorted_by_key(|text| Release::read(text)));
        for wrong in ["", "2025", "25b", "2025B", "2025bcd", "20250", "é025b", "2025 b"] {
            assert_eq!(Release::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_not_sound_leaves_the_clock_that_is_built_in() {
        let zone = "America/Vancouver";
        let sound = vancouver();
        let offset = |seconds: i32| zone_file(&[(seconds, false, "ABC")], &[], "");
        let mut cases: Vec<(&str, Vec<u8>)> = vec![
            ("", Vec::new()),
            ("no file", b"hello".to_vec()),
            ("cut", sound[..sound.len() - 20].to_vec()),
            ("version 1", [b"TZif\0".as_slice(), &sound[5..]].concat()),
            ("no rule", zone_file(&[(0, false, "ABC")], &[(1_000_000_000, 0)], "")),
            ("two days", offset(2 * 86_400)),
            ("wrong rule", zone_file(&[(0, false, "ABC")], &[], "ABC0XYZ,M99.9.9,M1.1.1")),
            ("unordered", zone_file(&[(0, false, "ABC")], &[(5, 0), (4, 0)], "ABC0")),
            ("unknown offset", zone_file(&[(0, false, "ABC")], &[(5, 7)], "ABC0")),
            ("too large", vec![b'T'; 1 << 20]),
        ];
        // Every way of cutting it short.
        cases.extend((0..sound.len() - 1).map(|length| ("short", sound[..length].to_vec())));
        let built_in: &ZoneData = Box::leak(Box::new(ZoneData::built_in()));
        for (what, bytes) in cases {
            let folder = folder("9026b", &[(zone, &bytes)]);
            let data = data(&folder);
            let (got, want) = (shown(data, zone, DECEMBER), shown(built_in, zone, DECEMBER));
            assert_eq!(got, want, "{what}: {}", bytes.len());
            let remarks = data.remarks();
            assert!(remarks.len() == 1 && remarks[0].contains("built-in"), "{what}: {remarks:?}");
            assert_eq!(data.remark_count(), 1);
        }
    }

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        let folder = folder("9026b", &[]);
        let at = folder.path().join("America");
        fs::create_dir_all(at.join("Toronto")).expect("a folder");
        symlink("/dev/zero", at.join("Vancouver")).expect("a link");
        symlink("Edmonton", at.join("Edmonton")).expect("a link");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at.join("Winnipeg"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .expect("a pipe");
        let data = data(&folder);
        for city in ["Toronto", "Vancouver", "Edmonton", "Winnipeg", "Halifax"] {
            shown(data, &format!("America/{city}"), DECEMBER);
        }
        assert_eq!(data.remarks().len(), 5, "{:#?}", data.remarks());
    }

    #[test]
    fn old_names_without_files_follow_the_links_of_the_source() {
        let folder = folder("9026b", &[("America/Vancouver", &vancouver())]);
        let source = "# version 9026b\nL America/Vancouver Canada/Pacific\nL x\n";
        fs::write(folder.path().join("tzdata.zi"), source).expect("written");
        let data = data(&folder);
        assert_eq!(shown(data, "Canada/Pacific", DECEMBER), "13:00 -07:00 MST");
        assert_eq!(data.remarks(), [""; 0]);
    }

    #[test]
    fn a_name_that_only_the_system_has_is_a_zone_if_its_file_is_sound() {
        let mars = zone_file(&[(3_600 + 60, false, "MTC")], &[], "MTC-1:01");
        let files: [(&str, &[u8]); 5] = [
            ("Mars/Olympus", &mars),
            ("Mars/Broken", b"TZif"),
            ("posix/Mars/Olympus", &mars),
            ("Own", &mars),
            ("Mars/.hidden", &mars),
        ];
        // Whether newer or not: nothing else is known of the name.
        for release in ["9026b", "2000a"] {
            let folder = folder(release, &files);
            let data = data(&folder);
            assert_eq!(shown(data, "Mars/Olympus", DECEMBER), "21:01 +01:01 MTC");
            let zone = |name| Zone::from_name_in(name, || data);
            assert_eq!(zone("Mars/Olympus"), zone("Mars/Olympus"));
            assert_eq!(zone("Mars/Olympus").expect("a zone").name(), "Mars/Olympus");
            for name in [
                "Mars/Broken",
                "Mars/Elysium",
                "posix/Mars/Olympus",
                "Own",
                "Mars/.hidden",
                "Mars/../Mars/Olympus",
                "/Mars/Olympus",
                "Mars/",
                "Mars//Olympus",
                "tzdata.zi/x",
            ] {
                assert_eq!(zone(name), None, "{name}");
            }
            assert!(data.remarks().iter().any(|remark| remark.contains("Mars/Broken")));
        }
    }

    #[test]
    fn schedules_follow_the_clock_of_the_file() {
        // Changes of its own, then a rule.
        let bytes = zone_file(
            &[(0, false, "AAA"), (1800, true, "BBB")],
            &[(1_800_000_000, 1), (1_800_003_600, 0), (1_800_007_200, 1), (1_826_000_000, 0)],
            "AAA0BBB-0:30,M3.2.0,M11.1.0",
        );
        let folder = folder("9026b", &[("Mars/Olympus", &bytes)]);
        let data = data(&folder);
        let zone = Zone::from_name_in("Mars/Olympus", || data).expect("a zone");
        let file = data.own_region("Mars/Olympus").and_then(|region| region.file.get());
        let file = file.expect("a file");
        let super::super::offsets::Offsets::Changing(spans) = zone.offsets_in(|| data) else {
            unreachable!("a region")
        };
        // Each second around the changes, and each hour of the years of the rule.
        let near = (1_799_999_000..1_800_010_000).chain(1_825_999_000..1_826_001_000);
        for at in near.chain((0..4_000_000_000).step_by(3_600)) {
            let kind = file.zone.find_local_time_type(at).expect("known");
            assert_eq!(spans.offset_at(at), i64::from(kind.ut_offset()), "{at}");
        }
        let schedule: Schedule = "0 0 12 * * ?".parse().expect("a schedule");
        let after = "2050-06-30T12:00:00Z".parse().expect("an instant");
        let fire = schedule.bind(DateTime::UNIX_EPOCH, zone).next_after(after);
        assert_eq!(fire.expect("a fire").to_rfc3339(), "2050-07-01T11:30:00+00:00");
    }

    #[test]
    fn every_file_of_this_machine_is_sound_and_says_what_its_reader_says() {
        let files = ZoneFiles::new(FOLDER);
        let names = TZ_VARIANTS.iter().map(|tz| tz.name());
        for name in names {
            let file = match files.zone(name) {
                Ok(file) => file,
                Err(FileError::Missing) => continue,
                Err(error) => panic!("{name}: {error:?}"),
            };
            for at in (0..4_102_444_800).step_by(123_456) {
                let kind = file.zone.find_local_time_type(at).expect("known");
                assert_eq!(file.spans.offset_at(at), i64::from(kind.ut_offset()), "{name} {at}");
            }
        }
    }

    #[test]
    fn another_set_of_files_has_another_fingerprint() {
        let folder = folder("9026b", &[("America/Vancouver", &vancouver())]);
        let before = data(&folder);
        let first = before.fingerprint();
        assert_eq!(data(&folder).fingerprint(), first);
        assert!(first.starts_with(&format!("{} 9026b ", ZoneData::BUILT_IN)), "{first}");
        let file = folder.path().join("America/Vancouver");
        let written = fs::metadata(&file).and_then(|metadata| metadata.modified()).expect("a time");
        // Of the same size and time.
        let mut mended = vancouver();
        *mended.last_mut().expect("a byte") ^= 1;
        fs::write(&file, mended).expect("written");
        let opened = fs::File::options().write(true).open(&file).expect("a file");
        opened.set_modified(written).expect("a time");
        assert_ne!(data(&folder).fingerprint(), first);
        assert_eq!(before.fingerprint(), first, "of the files that are used");
        assert_eq!(ZoneData::built_in().fingerprint(), ZoneData::BUILT_IN);
    }

    #[test]
    fn a_zone_that_only_the_system_has_is_planned_again_if_its_file_changes() {
        let check = |change: &dyn Fn(&Path), is_another: bool| {
            let folder = folder("2000a", &[("Mars/Olympus", &vancouver())]);
            fs::create_dir_all(folder.path().join("America")).expect("a folder");
            let before = data(&folder).fingerprint();
            change(folder.path());
            assert_eq!(data(&folder).fingerprint() != before, is_another, "{before}");
        };
        let put = |name: &'static str, content: &'static [u8]| {
            move |folder: &Path| fs::write(folder.join(name), content).expect("written")
        };
        check(&|_| (), false);
        check(&put("Mars/Olympus", b"mended"), true);
        check(&put("Mars/Elysium", b"new"), true);
        check(&|folder| fs::remove_file(folder.join("Mars/Olympus")).expect("removed"), true);
        // The clock that is built in is used.
        check(&put("America/Vancouver", b"older"), false);
    }

    /// Writes a release in which a zone has one offset, as a package does: each file is replaced.
    fn install(folder: &Path, release: &str, zones: &[(&str, i32)]) {
        let names = ["tzdata.zi"].into_iter().chain(zones.iter().map(|(name, _)| *name));
        for name in names {
            let _ = fs::remove_file(folder.join(name));
        }
        let files: Vec<(&str, Vec<u8>)> = zones
            .iter()
            .map(|&(name, offset)| (name, zone_file(&[(offset, false, "XYZ")], &[], "")))
            .collect();
        let files: Vec<(&str, &[u8])> =
            files.iter().map(|(name, bytes)| (*name, &**bytes)).collect();
        write(folder, release, &files);
    }

    #[test]
    fn files_that_change_while_the_process_runs_are_used_once_they_have_settled() {
        let vancouver = "America/Vancouver";
        let folder = folder("2000a", &[]);
        let succession: &Succession =
            Box::leak(Box::new(Succession::new(folder.path().to_owned(), true)));
        let check = |version: &str, want: &str| {
            let data = &succession.last().data;
            assert_eq!((data.version(), &*shown(data, vancouver, DECEMBER)), (version, want));
        };
        let built_in = shown(Box::leak(Box::new(ZoneData::built_in())), vancouver, DECEMBER);
        let first = succession.look();
        assert!(std::ptr::eq(first, succession.look()), "nothing has changed");
        assert!(!succession.may_have_changed());
        check(ZoneData::BUILT_IN, &built_in);
        install(folder.path(), "9026b", &[(vancouver, 3_600)]);
        check(ZoneData::BUILT_IN, &built_in);
        assert!(std::ptr::eq(first, succession.look()), "the package may not be whole");
        install(folder.path(), "9026b", &[(vancouver, 7_200)]);
        assert!(std::ptr::eq(first, succession.look()), "it was not");
        assert!(succession.may_have_changed(), "the next look finds it settled");
        let second = succession.look();
        check("9026b", "22:00 +02:00 XYZ");
        assert_ne!(first.fingerprint(), second.fingerprint());
        assert!(std::ptr::eq(second, succession.look()));
        assert!(!succession.may_have_changed());
        // Who still holds the data before goes on with it.
        assert_eq!(shown(first, vancouver, DECEMBER), built_in);
        // A mended package has the same release.
        install(folder.path(), "9026b", &[(vancouver, 10_800)]);
        succession.look();
        check("9026b", "22:00 +02:00 XYZ");
        succession.look();
        check("9026b", "23:00 +03:00 XYZ");
        // A folder that is gone leaves the rules that are built in.
        fs::remove_dir_all(folder.path()).expect("removed");
        succession.look();
        succession.look();
        check(ZoneData::BUILT_IN, &built_in);
    }

    #[test]
    fn a_folder_that_becomes_a_link_to_another_is_another_set_of_files() {
        let place = tempfile::tempdir().expect("a folder");
        let (used, zone) = (place.path().join("zoneinfo"), "America/Vancouver");
        for (release, offset) in [("9026b", 3_600), ("9027a", 7_200)] {
            install(&place.path().join(release), release, &[(zone, offset)]);
        }
        symlink("9026b", &used).expect("a link");
        let succession: &Succession = Box::leak(Box::new(Succession::new(used.clone(), true)));
        assert_eq!(shown(succession.look(), zone, DECEMBER), "21:00 +01:00 XYZ");
        fs::remove_file(&used).expect("removed");
        symlink("9027a", &used).expect("a link");
        succession.look();
        let data = succession.look();
        assert_eq!((data.version(), &*shown(data, zone, DECEMBER)), ("9027a", "22:00 +02:00 XYZ"));
    }

    #[test]
    fn a_zone_that_only_a_replaced_file_had_keeps_its_rules_until_the_process_ends() {
        let zone = "Mars/Olympus";
        let folder = folder("9026b", &[]);
        install(folder.path(), "9026b", &[(zone, 3_600), ("Mars/Unused", 3_600)]);
        let succession: &Succession =
            Box::leak(Box::new(Succession::new(folder.path().to_owned(), true)));
        assert_eq!(shown(succession.look(), zone, DECEMBER), "21:00 +01:00 XYZ");
        fs::remove_dir_all(folder.path().join("Mars")).expect("removed");
        for release in ["9026c", "9026d"] {
            install(folder.path(), release, &[]);
            succession.look();
            let data = succession.look();
            assert_eq!((data.version(), data.remarks()), (release, vec![]));
            assert_eq!(shown(data, zone, DECEMBER), "21:00 +01:00 XYZ");
            let remarks = data.remarks();
            assert!(remarks.len() == 1 && remarks[0].contains("Mars/Olympus is missing; the zone"));
        }
        install(folder.path(), "9026e", &[(zone, 7_200)]);
        succession.look();
        assert_eq!(shown(succession.look(), zone, DECEMBER), "22:00 +02:00 XYZ");
    }

    #[test]
    fn data_is_replaced_so_often_and_then_the_process_says_so() {
        let zone = "America/Vancouver";
        let folder = folder("9026b", &[]);
        let succession: &Succession =
            Box::leak(Box::new(Succession::new(folder.path().to_owned(), true)));
        for offset in 0..=RENEWALS_MAX as i32 {
            install(folder.path(), "9026b", &[(zone, offset)]);
            succession.look();
            let data = succession.look();
            assert_eq!(data.remarks().len(), usize::from(offset == RENEWALS_MAX as i32));
        }
    }

    #[test]
    fn data_of_last_year_is_outdated_from_july_on() {
        let folder = folder("9026b", &[]);
        let data = data(&folder);
        let check = |at: &str, want| {
            let at = at.parse().expect("an instant");
            assert_eq!(data.is_outdated(at), want, "{at}");
        };
        check("9026-12-31T00:00:00Z", false);
        check("9027-06-30T00:00:00Z", false);
        check("9027-07-01T00:00:00Z", true);
        check("9028-01-01T00:00:00Z", true);
        check("1970-01-01T00:00:00Z", false);
    }
}

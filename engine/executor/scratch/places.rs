//! Where the folder of an engine can be: in memory, if the system has a place there that nobody can take away. The
//! folder of root is in a folder of root's, the folder of a user in the user's own. Where there is no such folder, or
//! its users could not be passed through, the name is one that nobody can guess; a file beside the database has it in
//! its own name. No file contains a path: whoever copies the files of a database gets no say in which folder is emptied.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::thread::CapabilitySet;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::owner::{Claim, OWNER, Owner, remove_if_unused};
use super::{files_in, is_own};
use crate::files::{beside, set_mode_of_folder};

/// The prefix of the name of a file whose name goes on with the name of a folder that nobody can guess.
pub(super) const PLACE: &str = "place-";
/// The name of a folder for the folders of engines.
const NAME: &str = "adjutant";

/// The places for the folder of an engine.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// In order of preference.
    pub wanted: Vec<Wanted>,
    /// The folders in which earlier engines of the same database may have left files.
    pub known: Vec<PathBuf>,
}

/// A place where the folder of an engine can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub path: PathBuf,
    /// The folder above with its mode, if it may have to be made.
    pub above: Option<(PathBuf, u32)>,
    /// The file that tells the next engine of this place, if it could not find the place otherwise.
    pub told_by: Option<PathBuf>,
    /// Whether scripts are not kept on a disk here.
    pub is_in_memory: bool,
}

/// What a system offers.
struct System {
    is_root: bool,
    /// Whether this process may run programs as other users, which have to pass through to their scripts.
    has_other_users: bool,
    /// The folder of the system for running programs, which only root can write to.
    run: PathBuf,
    /// The folder of this user for running programs. Because the next engine may have another environment, no
    /// variable tells it.
    own: PathBuf,
    /// Where every user can make files in memory.
    shared: PathBuf,
    is_in_memory: fn(&Path) -> bool,
}

impl System {
    fn here() -> Self {
        let user = rustix::process::geteuid();
        let rights = rustix::thread::capabilities(None);
        Self {
            is_root: user.is_root(),
            has_other_users: rights
                .is_ok_and(|rights| rights.effective.contains(CapabilitySet::SETUID)),
            run: "/run".into(),
            own: Path::new("/run/user").join(user.as_raw().to_string()),
            shared: "/dev/shm".into(),
            is_in_memory,
        }
    }
}

impl Places {
    /// Returns the places for the engine of a database; blocks.
    pub(super) fn of(database: &Path) -> Self {
        Self::on(&System::here(), database)
    }

    fn on(system: &System, database: &Path) -> Self {
        let on_disk = beside(database, ".run");
        let name = name_of(database);
        let mut places = Self::default();
        if system.is_root {
            let above = system.run.join(NAME);
            let path = above.join(&name);
            places.known.push(path.clone());
            if (system.is_in_memory)(&system.run) {
                let above = Some((above, super::MODE));
                places.wanted.push(Wanted { path, above, told_by: None, is_in_memory: true });
            }
        } else {
            let above = system.own.join(NAME);
            let path = above.join(&name);
            places.known.push(path.clone());
            let is_fit = !system.has_other_users && is_private(&system.own);
            if is_fit && (system.is_in_memory)(&system.own) {
                let above = Some((above, PRIVATE));
                places.wanted.push(Wanted { path, above, told_by: None, is_in_memory: true });
            }
        }
        let told = told(&on_disk, &system.shared, &Owner::of(database));
        if (system.is_in_memory)(&system.shared) {
            let new = || format!("{NAME}-{}", Uuid::new_v4().simple());
            let name = told.first().cloned().unwrap_or_else(new);
            let path = system.shared.join(&name);
            let told_by = Some(on_disk.join(format!("{PLACE}{name}")));
            places.wanted.push(Wanted { path, above: None, told_by, is_in_memory: true });
        }
        let last = on_disk.clone();
        places.wanted.push(Wanted {
            path: last,
            above: None,
            told_by: None,
            is_in_memory: (system.is_in_memory)(on_disk.parent().unwrap_or(&on_disk)),
        });
        places.known.extend(told.iter().map(|name| system.shared.join(name)));
        places.known.push(on_disk);
        places.known.sort();
        places.known.dedup();
        places
    }

    /// Returns all folders in which this engine or earlier ones may have files.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        let wanted = self.wanted.iter().map(|wanted| wanted.path.clone());
        let mut all: Vec<_> = wanted.chain(self.known.iter().cloned()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Returns exactly these places.
    #[cfg(test)]
    pub(super) fn these(paths: &[PathBuf]) -> Self {
        let wanted = |path: &PathBuf| Wanted {
            path: path.clone(),
            above: None,
            told_by: None,
            is_in_memory: true,
        };
        Self { wanted: paths.iter().map(wanted).collect(), known: paths.to_vec() }
    }
}

const PRIVATE: u32 = 0o700;

impl Wanted {
    /// Makes the folder above, and tells the next engine of the place.
    ///
    /// # Errors
    ///
    /// If a folder is somebody else's, or others may write to it, or the system refuses.
    pub(super) fn prepare(&self, owner: &Owner) -> io::Result<()> {
        if let Some((above, mode)) = &self.above {
            match DirBuilder::new().mode(*mode).create(above) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => set_mode_of_folder(above, *mode)?,
            }
        }
        let Some(told_by) = &self.told_by else { return Ok(()) };
        if let Some(folder) = told_by.parent() {
            super::create(folder)?;
            owner.note(folder)?;
        }
        match super::create_private(told_by) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            created => created.map(drop),
        }
    }

    /// Tells the next engine of the place no longer, if the folder is gone.
    pub(super) fn forget(&self) {
        let Some(told_by) = &self.told_by else { return };
        if fs::symlink_metadata(&self.path).is_err() {
            let _ = fs::remove_file(told_by);
            // A folder with scripts stays.
            let _ = told_by.parent().map(remove_if_unused);
        }
    }
}

/// Returns the names of the folders of this very database that files beside it tell of. A file that tells of no such
/// folder is removed.
fn told(folder: &Path, shared: &Path, owner: &Owner) -> Vec<String> {
    let mut told = Vec::new();
    if !matches!(owner.claim(folder), Claim::Own | Claim::Inherited) {
        return told;
    }
    for (file, name) in files_in(folder) {
        let Some(name) = name.strip_prefix(PLACE) else { continue };
        let path = is_secret(name).then(|| shared.join(name));
        match path.as_deref().map(|path| (path, owner.claim(path))) {
            Some((_, Claim::Own | Claim::Inherited)) => told.push(name.to_owned()),
            found => {
                // An engine that was lost as it made the folder left it empty.
                if let Some((path, Claim::Abandoned)) = found
                    && fs::symlink_metadata(path.join(OWNER)).is_err()
                {
                    let _ = fs::remove_dir(path);
                }
                let _ = fs::remove_file(file);
            }
        }
    }
    told
}

/// Returns whether this is the name of a folder that nobody can guess: 32 random hexadecimal digits and what names the
/// program.
fn is_secret(name: &str) -> bool {
    let digits = name.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('-'));
    digits.is_some_and(|digits| {
        digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Returns one name for one path.
fn name_of(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns whether a folder is this user's, and no other user can write to it.
fn is_private(folder: &Path) -> bool {
    is_own(folder) && fs::symlink_metadata(folder).is_ok_and(|found| found.mode() & 0o022 == 0)
}

/// Returns whether the files of a folder are in memory.
fn is_in_memory(folder: &Path) -> bool {
    const TMPFS: i128 = 0x0102_1994;
    const RAMFS: i128 = 0x8584_58f6;
    rustix::fs::statfs(folder).is_ok_and(|found| [TMPFS, RAMFS].contains(&i128::from(found.f_type)))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_place_is_one_that_nobody_can_take_away() {
        let place = tempfile::tempdir().expect("a folder");
        let path = |name: &str| place.path().join(name);
        for folder in ["run", "own", "open", "shm"] {
            fs::create_dir(path(folder)).expect("a folder");
            fs::set_permissions(path(folder), Permissions::from_mode(0o700)).expect("set");
        }
        fs::set_permissions(path("open"), Permissions::from_mode(0o777)).expect("set");
        let database = path("a.db");
        let check = |is_root, has_other_users, own: &str, has_memory: bool, want: &[&str]| {
            let system = System {
                is_root,
                has_other_users,
                run: path("run"),
                own: path(own),
                shared: path("shm"),
                is_in_memory: if has_memory { |_| true } else { |_| false },
            };
            let places = Places::on(&system, &database);
            let first = |wanted: &Wanted| {
                let below = wanted.path.strip_prefix(place.path()).expect("inside");
                below.iter().next().expect("a name").to_str().expect("plain text").to_owned()
            };
            let wanted: Vec<_> = places.wanted.iter().map(first).collect();
            assert_eq!(wanted, want, "{is_root} {has_other_users} {own} {has_memory}");
            let again = Places::on(&system, &database);
            for (one, other) in places.wanted.iter().zip(&again.wanted) {
                let is_secret = one.path.starts_with(path("shm"));
                assert_eq!(one == other, !is_secret, "{}", one.path.display());
                assert!(is_secret || again.known.contains(&one.path), "{}", one.path.display());
            }
        };
        check(true, true, "own", true, &["run", "shm", "a.db.run"]);
        check(false, false, "own", true, &["own", "shm", "a.db.run"]);
        check(false, false, "open", true, &["shm", "a.db.run"]);
        check(false, false, "absent", true, &["shm", "a.db.run"]);
        // Other users could not pass through a folder that is this user's alone.
        check(false, true, "own", true, &["shm", "a.db.run"]);
        check(true, true, "own", false, &["a.db.run"]);
        check(false, false, "own", false, &["a.db.run"]);
    }

    #[test]
    fn a_place_is_found_again_as_long_as_its_folder_is_there() {
        let place = tempfile::tempdir().expect("a folder");
        let (database, shared) = (place.path().join("a.db"), place.path().join("shm"));
        fs::create_dir(&shared).expect("a folder");
        let system = System {
            is_root: false,
            has_other_users: true,
            run: place.path().join("run"),
            own: place.path().join("own"),
            shared,
            is_in_memory: |_| true,
        };
        let owner = Owner::of(&database);
        let first = || Places::on(&system, &database).wanted.swap_remove(0);
        let wanted = first();
        wanted.prepare(&owner).expect("prepared");
        // Somebody else may have seen the name of a folder that has gone.
        assert_ne!(first().path, wanted.path);
        wanted.prepare(&owner).expect("prepared");
        fs::create_dir(&wanted.path).expect("a folder");
        drop(owner.note(&wanted.path).expect("noted"));
        for _ in 0..2 {
            assert_eq!(first(), wanted);
            assert!(Places::on(&system, &database).known.contains(&wanted.path));
            wanted.forget();
        }
        remove_if_unused(&wanted.path);
        wanted.forget();
        assert!(!beside(&database, ".run").exists());
    }

    /// A system on which all places are secret ones in `place`.
    fn system(place: &Path) -> System {
        System {
            is_root: false,
            has_other_users: true,
            run: place.join("run"),
            own: place.join("own"),
            shared: place.join("shm"),
            is_in_memory: |_| true,
        }
    }

    #[test]
    fn a_copied_database_beside_its_live_original_shares_nothing_with_it() {
        use crate::executor::Scratch;
        let place = tempfile::tempdir().expect("a folder");
        let system = system(place.path());
        fs::create_dir(&system.shared).expect("a folder");
        let [database, copy] = ["a", "b"].map(|folder| place.path().join(folder).join("a.db"));
        for database in [&database, &copy] {
            fs::create_dir(database.parent().expect("a folder")).expect("a folder");
            fs::write(database, "records").expect("written");
        }
        let open = |database: &Path| {
            Scratch::in_first_of(Places::on(&system, database), database).expect("a folder")
        };
        let original = open(&database);
        fs::write(original.path().join("script"), "that runs").expect("written");
        // The folder beside the database is copied with marks in it, as if nothing in memory took them.
        let [beside, copied] = [&database, &copy].map(|database| beside(database, ".run"));
        original.keep_left_in(&beside, &["a mark".to_owned()]).expect("kept");
        fs::create_dir(&copied).expect("a folder");
        for (path, name) in files_in(&beside) {
            fs::copy(path, copied.join(name)).expect("copied");
        }
        fs::write(copied.join(super::super::name_of(original.engine())), "").expect("written");

        let other = open(&copy);
        assert_ne!(other.path(), original.path());
        assert_eq!((other.engines_before(), other.left()), (&[][..], vec![]));
        drop(other);
        assert!(original.path().join("script").exists());
        assert_eq!(original.left(), ["a mark"]);
        // Also a file that names the folder of the original in the copy's own words.
        let name = original.path().file_name().expect("a name").to_str().expect("plain text");
        super::super::create(&copied).expect("a folder");
        drop(Owner::of(&copy).note(&copied).expect("noted"));
        fs::write(copied.join(format!("{PLACE}{name}")), "").expect("written");
        assert_ne!(open(&copy).path(), original.path());
        assert!(original.path().join("script").exists());
    }

    #[test]
    fn a_file_that_names_a_foreign_folder_has_no_effect() {
        use crate::executor::Scratch;
        let place = tempfile::tempdir().expect("a folder");
        let system = system(place.path());
        let database = place.path().join("a.db");
        let precious = place.path().join("precious");
        let digits = "0123456789abcdef".repeat(2);
        let secret = system.shared.join(format!("{NAME}-{digits}"));
        for folder in [&system.shared, &precious, &secret] {
            fs::create_dir(folder).expect("a folder");
        }
        let files = [precious.join("file"), secret.join("file")];
        files.iter().for_each(|file| fs::write(file, "kept").expect("written"));
        let on_disk = beside(&database, ".run");
        let names = [
            format!("{NAME}-{digits}"),
            name_of(&precious),
            "..".to_owned(),
            "precious".to_owned(),
            format!("{NAME}-{}", digits.to_uppercase()),
            format!("{NAME}-{digits}0"),
        ];
        for is_noted in [false, true] {
            fs::create_dir(&on_disk).expect("a folder");
            if is_noted {
                drop(Owner::of(&database).note(&on_disk).expect("noted"));
            }
            for (number, name) in names.iter().enumerate() {
                let paths = [&precious, &secret, &system.shared.join("../precious")];
                let text = paths[number % paths.len()].as_os_str().as_bytes();
                fs::write(on_disk.join(format!("{PLACE}{name}")), text).expect("written");
            }
            let places = Places::on(&system, &database);
            assert!(!places.all().contains(&precious) && !places.all().contains(&secret));
            drop(Scratch::in_first_of(places, &database).expect("a folder"));
            crate::executor::removal::wait(&on_disk, std::time::Duration::from_secs(60));
            for file in &files {
                assert_eq!(fs::read_to_string(file).expect("it is there"), "kept");
            }
            assert!(!on_disk.exists(), "{is_noted}");
        }
    }
}

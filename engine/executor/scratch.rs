//! The folder for files that only live as long as a run: read by this user alone, and emptied at open of an
//! earlier engine's files. In memory where the system has a place for that: creating a file costs a tenth
//! there, and scripts with secrets in them never reach a disk.

mod owner;
mod places;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::iter;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use uuid::Uuid;

use super::removal;
use crate::error::{Error, Result, StorageError, StorageErrorKind};
use crate::files::{beside, set_mode_of_folder};
use crate::id::ExecutionId;
use crate::panics::tell;
use owner::{Claim, OWNER, Owner, remove_if_unused};
use places::{PLACE, Places, Wanted};

/// Where Linux keeps files in memory.
const IN_MEMORY: &str = "/dev/shm";

/// What the name of a folder begins with that is a surviving run's, and stays until that has ended.
const KEPT: &str = "kept-";
/// The prefix of a file's name that contains the number of an engine. Because the number is in the name, there is no
/// moment at which a file lacks its number.
const ENGINE: &str = "engine-";
/// The prefix of the name of a file that lists the marks of processes which are yet to be ended.
const LEFT: &str = "left-";
/// The prefix of the name of a file that contains the number of a user who has had runs.
const USER: &str = "user-";
/// Prefixes of files and folders that outlive their engine, because the next engine needs them.
const LASTING: [&str; 5] = [KEPT, ENGINE, LEFT, USER, PLACE];

/// The longest time for which the end of an engine waits for the removal of large folders that runs have left.
const REMOVAL_MAX: Duration = Duration::from_secs(2);

/// The folder of an engine. Its drop removes the folder, unless a run survives, or processes are yet to be ended.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    engine: u128,
    /// The numbers of earlier engines whose processes are not known to have ended.
    engines_before: Vec<u128>,
    /// Other users that earlier engines have had runs of.
    users_before: BTreeSet<u32>,
    /// All places where an engine of this database may have left files.
    places: Vec<PathBuf>,
    /// How the next engine finds the folder; none for a folder that belongs to no database.
    place: Option<Wanted>,
    /// Where surviving runs have their records; none for an engine in memory.
    runs: Option<PathBuf>,
    /// Runs that have begun and whose end was not seen.
    open_runs: AtomicUsize,
    is_closed: AtomicBool,
    /// The database of the folder; none for a folder that belongs to no database.
    owner: Option<Owner>,
    /// Tells engines of other databases that the folder is in use.
    in_use: Mutex<Option<File>>,
}

/// A run that has begun. If this is dropped before the end of the run was seen, the run may have left processes to
/// the next engine.
#[derive(Debug)]
pub(crate) struct OpenRun<'a>(&'a AtomicUsize);

impl OpenRun<'_> {
    /// Notes that the end of the run was seen.
    pub(crate) fn close(self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Scratch {
    /// The folder of a database; blocks. The caller holds the lock of the database.
    pub(crate) fn of(database: &Path) -> Result<Self> {
        Self::in_first_of(Places::of(database), database)
    }

    /// In the first of these places that takes it.
    fn in_first_of(mut places: Places, database: &Path) -> Result<Self> {
        let owner = Owner::of(database);
        let (mut engines_before, mut users_before) = (Vec::new(), BTreeSet::new());
        let mut refused = Vec::new();
        for place in std::mem::take(&mut places.known) {
            let claim = owner.claim(&place);
            match claim {
                Claim::Taken => {
                    places.wanted.retain(|wanted| wanted.path != place);
                    let why = "an engine of another database uses it";
                    refused.push((place, io::Error::new(io::ErrorKind::ResourceBusy, why)));
                    continue;
                }
                Claim::Own | Claim::Inherited => {
                    engines_before.extend(engines_in(&place));
                    users_before.extend(users_in(&place));
                }
                // The marks there are of processes of another database.
                Claim::Absent | Claim::Abandoned => {}
            }
            // What a run of another user has left may not let itself be removed; it is in nobody's way.
            if let Err(error) = sweep(&place, claim) {
                tell(
                    || tracing::warn!(%error, path = %place.display(), "files of earlier runs stay behind"),
                );
            }
            places.known.push(place);
        }
        let all = places.all();
        for wanted in places.wanted {
            let mut scratch = Self::new(wanted.path.clone());
            scratch.engines_before.clone_from(&engines_before);
            scratch.users_before.clone_from(&users_before);
            scratch.places.clone_from(&all);
            scratch.runs = Some(beside(database, ".runs"));
            scratch.owner = Some(owner.clone());
            let begun = wanted.prepare(&owner).and_then(|()| scratch.begin());
            scratch.place = Some(wanted);
            match begun {
                Ok(()) => {
                    scratch.tell_of_second_place(&refused);
                    return Ok(scratch);
                }
                Err(error) => refused.push((scratch.path.clone(), error)),
            }
        }
        Err(no_folder(Some(database), &refused))
    }

    /// Tells the host if scripts are kept in another place than usual.
    fn tell_of_second_place(&self, refused: &[(PathBuf, io::Error)]) {
        let is_in_memory = self.place.as_ref().is_some_and(|place| place.is_in_memory);
        if !refused.is_empty() || !is_in_memory {
            let reasons = reasons(refused);
            let on_disk = if is_in_memory { "" } else { " on a disk, with their secrets" };
            let path = self.path.display();
            tell(
                || tracing::warn!(%path, %reasons, "scripts of runs are kept in another place than usual{on_disk}"),
            );
        }
    }

    /// Makes the folder, with the number of its engine in it.
    fn begin(&self) -> io::Result<()> {
        create(&self.path)?;
        if let Some(owner) = &self.owner {
            *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(owner.note(&self.path)?);
        }
        // The folders of these users are removed by now.
        self.users_before.iter().try_for_each(|user| note_user(&self.path, *user))?;
        create_private(&self.path.join(name_of(self.engine))).map(drop)
    }

    /// A folder for an engine in memory; blocks.
    pub(crate) fn temporary() -> Result<Self> {
        let on_disk = std::env::temp_dir();
        let new_in = |place| tempfile::Builder::new().prefix("adjutant-").tempdir_in(place);
        let folder = new_in(Path::new(IN_MEMORY)).or_else(|_| new_in(&on_disk));
        let folder = folder.map_err(|error| no_folder(None, &[(on_disk, error)]))?;
        fs::set_permissions(folder.path(), Permissions::from_mode(MODE))
            .map_err(|error| no_folder(None, &[(folder.path().to_owned(), error)]))?;
        Ok(Self::new(folder.keep()))
    }

    /// This folder, for a run that survives; blocks.
    pub(crate) fn apart(path: PathBuf) -> Result<Self> {
        create(&path).map_err(|error| no_folder(None, &[(path.clone(), error)]))?;
        Ok(Self::new(path))
    }

    fn new(path: PathBuf) -> Self {
        let engine = Uuid::new_v4().as_u128();
        Self {
            places: vec![path.clone()],
            place: None,
            path,
            engine,
            engines_before: Vec::new(),
            users_before: BTreeSet::new(),
            runs: None,
            open_runs: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            owner: None,
            in_use: Mutex::new(None),
        }
    }

    /// Removes what no run needs any more, once. After this, another engine may use the folder. Blocks.
    pub(crate) fn close(&self) {
        if self.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        // A run whose end was not seen may have left processes, which the next engine finds by this number.
        if self.open_runs.load(Ordering::Relaxed) == 0 {
            let _ = fs::remove_file(self.path.join(name_of(self.engine)));
            self.forget_users();
        }
        // What cannot be removed now is removed at the next open. Because this thread may be a runtime's, another
        // thread removes large folders.
        if is_own(&self.path) && empty(&self.path).is_err() {
            tell(
                || tracing::warn!(path = %self.path.display(), "files of runs stay behind until the next open"),
            );
        }
        drop(self.in_use.lock().unwrap_or_else(PoisonError::into_inner).take());
        let (path, place) = (self.path.clone(), self.place.clone());
        let told_by = place.as_ref().and_then(|place| place.told_by.clone());
        removal::after(&self.path, move || {
            remove_if_unused(&path);
            if let Some(place) = place {
                place.forget();
            }
        });
        // What an earlier engine has left there may still be about to be removed.
        if let Some(folder) = told_by.as_deref().and_then(Path::parent) {
            let path = folder.to_owned();
            removal::after(folder, move || remove_if_unused(&path));
        }
    }

    /// Closes, and waits for the removal of large files and folders, for a bounded time. Blocks.
    pub(crate) fn close_and_wait(&self) {
        self.close();
        removal::wait(&self.path, REMOVAL_MAX);
    }

    /// Forgets which users have had runs, unless processes are yet to be ended: then the next engine has to know whose
    /// they may be.
    fn forget_users(&self) {
        let all = files_in(&self.path);
        let needs_users =
            |name: &str| [KEPT, ENGINE, LEFT].iter().any(|kind| name.starts_with(kind));
        if !all.iter().any(|(_, name)| needs_users(name)) {
            for (path, _) in all.iter().filter(|(_, name)| name.starts_with(USER)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// A random number for this engine, which is in no record, and which no other user can read.
    pub(crate) fn engine(&self) -> u128 {
        self.engine
    }

    /// Returns the numbers of earlier engines whose processes are not known to have ended: every engine since the
    /// last one that was [`settled`](Self::settle).
    pub(crate) fn engines_before(&self) -> &[u128] {
        &self.engines_before
    }

    /// Returns the other users that processes of earlier engines may belong to.
    pub(crate) fn users_before(&self) -> impl Iterator<Item = u32> {
        self.users_before.iter().copied()
    }

    /// Returns the other users that have had runs of this engine or an earlier one; blocks.
    pub(crate) fn users(&self) -> BTreeSet<u32> {
        let known = self.places.iter().flat_map(|place| users_in(place));
        known.chain(self.users_before()).collect()
    }

    /// Notes that a run begins.
    pub(crate) fn open_run(&self) -> OpenRun<'_> {
        self.open_runs.fetch_add(1, Ordering::Relaxed);
        OpenRun(&self.open_runs)
    }

    /// Returns the lines that earlier engines have kept with [`keep_left`](Self::keep_left); blocks.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (path, name) in self.places.iter().flat_map(|place| files_in(place)) {
            if name.starts_with(LEFT) {
                // A file that was removed meanwhile counts as empty.
                let text = fs::read_to_string(path).unwrap_or_default();
                left.extend(text.lines().map(str::to_owned));
            }
        }
        left
    }

    /// Keeps these lines for the next engine; they replace the lines that this engine has kept before. Blocks. If a
    /// place takes no file, for instance because its disk is full, the next place is tried.
    ///
    /// # Errors
    ///
    /// The error of the first place, if no place takes the file.
    pub(crate) fn keep_left(&self, lines: &[String]) -> io::Result<()> {
        let others = self.places.iter().filter(|place| **place != self.path);
        let (mut is_kept, mut refusal) = (lines.is_empty(), None);
        for place in iter::once(&self.path).chain(others) {
            if !is_kept {
                match self.keep_left_in(place, lines) {
                    Ok(()) => is_kept = true,
                    Err(error) => refusal = refusal.or(Some(error)),
                }
            } else {
                // A list that stays is harmless: its processes have ended, or another list names them too.
                let _ = fs::remove_file(place.join(self.name_of_left()));
            }
        }
        refusal.filter(|_| !is_kept).map_or(Ok(()), Err)
    }

    fn keep_left_in(&self, place: &Path, lines: &[String]) -> io::Result<()> {
        create(place)?;
        // Somebody may have removed the folder meanwhile, also that of this engine.
        if let Some(owner) = self.owner.as_ref().filter(|owner| owner.claim(place) != Claim::Own) {
            let in_use = owner.note(place)?;
            if place == self.path {
                *self.in_use.lock().unwrap_or_else(PoisonError::into_inner) = Some(in_use);
            }
        }
        let next = place.join(format!("next-{:032x}", self.engine));
        let kept = create_private(&next).and_then(|mut file| {
            // The marks of processes are for nobody else.
            file.write_all(lines.join("\n").as_bytes())
        });
        let kept = kept.and_then(|()| fs::rename(&next, place.join(self.name_of_left())));
        if kept.is_err() {
            let _ = fs::remove_file(next);
            if place != self.path {
                // This engine may have made the folder; a folder that is not empty stays.
                remove_if_unused(place);
            }
        }
        kept
    }

    /// Returns the name of the file in which this engine lists the processes that are left.
    fn name_of_left(&self) -> String {
        format!("{LEFT}{:032x}", self.engine)
    }

    /// Forgets the earlier engines and the lines that they have kept: their processes have ended, and the records say
    /// so. Blocks.
    pub(crate) fn settle(&self) {
        let own = format!("{:032x}", self.engine);
        for (path, name) in self.places.iter().flat_map(|place| files_in(place)) {
            let parts = [ENGINE, LEFT, USER].iter().filter_map(|kind| name.strip_prefix(kind));
            if parts.take(1).any(|number| number != own) {
                // If the file cannot be removed now, the next engine removes it.
                let _ = fs::remove_file(path);
            }
        }
        for place in self.places.iter().filter(|place| **place != self.path) {
            // The files of earlier engines there are gone. If this engine keeps a list there, the folder stays.
            let place = place.clone();
            removal::after(&place.clone(), move || remove_if_unused(&place));
        }
    }

    /// Returns the folder of the records of surviving runs; none for an engine in memory, and none if the folder is
    /// somebody else's.
    pub(crate) fn runs(&self) -> Option<&Path> {
        self.runs.as_deref().filter(|runs| is_own(runs))
    }

    /// Returns where the record of a surviving run is to be; none for an engine in memory.
    pub(crate) fn place_of_run(&self, name: &str) -> Option<PathBuf> {
        self.runs.as_ref().map(|runs| runs.join(name))
    }

    /// Makes the folder for the record of a surviving run.
    ///
    /// # Errors
    ///
    /// If there is such a folder, or if the folder of all runs is not this user's alone.
    pub(crate) fn make_run(&self, name: &str) -> io::Result<()> {
        let runs = self.runs.as_deref().ok_or(io::ErrorKind::NotFound)?;
        let make = || {
            match DirBuilder::new().mode(0o700).create(runs) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
            // Checked once it is open: nobody puts another in its place between the check and the use.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = rustix::fs::open(runs, flags, Mode::empty())?;
            let found = rustix::fs::fstat(&folder)?;
            if found.st_uid != rustix::process::geteuid().as_raw() || found.st_mode & 0o022 != 0 {
                let why = "it is a folder of another user, or others may write to it";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
            }
            Ok(rustix::fs::mkdirat(&folder, name, Mode::RWXU)?)
        };
        // The folder of all runs may go with the last of them right now.
        make().or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => make(),
            _ => Err(error),
        })
    }

    /// What the files of a run are called; no other run has this name.
    pub(crate) fn name(id: ExecutionId, attempt: u32) -> String {
        format!("{id}-{attempt}")
    }

    /// Removes what there is of a run that survived, and is recorded now.
    pub(crate) fn forget(&self, name: &OsStr) {
        let Some(runs) = self.runs() else { return };
        // What cannot be removed now is removed at the next open. In this order: whoever looks for the run
        // looks for its folder.
        let _ = removal::remove_aside(&runs.join(name));
        // The engine that has begun the run may have had its folder in another place.
        for place in &self.places {
            let _ = removal::remove_aside(&kept_in(place, name));
        }
        let _ = fs::remove_dir(runs);
    }

    /// A folder that stays when the engine ends, for the run of this name.
    pub(crate) fn kept(&self, name: impl AsRef<OsStr>) -> PathBuf {
        kept_in(&self.path, name.as_ref())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn kept_in(place: &Path, name: &OsStr) -> PathBuf {
    let mut folder = OsString::from(KEPT);
    folder.push(name);
    place.join(folder)
}

/// Has another thread remove what an earlier engine left; somebody else's folder, or a link to one, is left alone.
fn sweep(path: &Path, claim: Claim) -> io::Result<()> {
    removal::keep(path);
    match claim {
        Claim::Absent | Claim::Taken => return Ok(()),
        Claim::Own | Claim::Inherited => {
            removal::sweep_aside(path, |name| name == OWNER.as_bytes() || is_lasting(name))?;
        }
        Claim::Abandoned => removal::sweep_aside(path, |_| false)?,
    }
    let folder = path.to_owned();
    removal::after(path, move || remove_if_unused(&folder));
    Ok(())
}

fn is_lasting(name: &[u8]) -> bool {
    LASTING.iter().any(|lasting| name.starts_with(lasting.as_bytes()))
}

fn is_own(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    found.is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
}

/// Entries of the folder of an engine that are removed one by one at its end. The next open removes the others.
const ENTRIES_MAX: usize = 65_536;

/// Removes all files and folders but those that outlive an engine, and those that are being removed.
///
/// # Errors
///
/// The first error, after the removal of everything that can be removed.
fn empty(path: &Path) -> io::Result<()> {
    let mut refusal = None;
    for entry in fs::read_dir(path)?.take(ENTRIES_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let stays = name == OWNER.as_bytes() || name.starts_with(removal::TRASH.as_bytes());
        if !stays
            && !is_lasting(name)
            && let Err(error) = removal::remove_aside(&entry.path())
        {
            refusal.get_or_insert(error);
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Returns the name of the file with the number of an engine.
fn name_of(engine: u128) -> String {
    format!("{ENGINE}{engine:032x}")
}

/// Returns the engines whose numbers are in a folder, if the folder is this user's.
fn engines_in(path: &Path) -> Vec<u128> {
    let number =
        |(_, name): (PathBuf, String)| u128::from_str_radix(name.strip_prefix(ENGINE)?, 16).ok();
    files_in(path).into_iter().filter_map(number).collect()
}

/// Notes in the folder of an engine that there are runs of this user.
pub(super) fn note_user(place: &Path, user: u32) -> io::Result<()> {
    match create_private(&place.join(format!("{USER}{user}"))) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Returns the other users that have, or have had, runs with files in a folder.
fn users_in(place: &Path) -> BTreeSet<u32> {
    let own = rustix::process::geteuid().as_raw();
    let mut users = BTreeSet::new();
    for (path, name) in files_in(place) {
        users.extend(name.strip_prefix(USER).and_then(|user| user.parse::<u32>().ok()));
        users.extend(fs::symlink_metadata(&path).map(|found| found.uid()));
        if name.starts_with(KEPT) {
            users.append(&mut users_in(&path));
        }
    }
    users.remove(&own);
    users
}

/// Returns the paths and names of the files in a folder; none if the folder is another user's.
fn files_in(path: &Path) -> Vec<(PathBuf, String)> {
    let entries = Some(path).filter(|path| is_own(path)).and_then(|path| fs::read_dir(path).ok());
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some((entry.path(), entry.file_name().into_string().ok()?)))
        .collect()
}

/// Makes a file that only this user can read.
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Makes the folder, unless it has stayed.
fn create(path: &Path) -> io::Result<()> {
    removal::keep(path);
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_own(path) => {}
        created => created?,
    }
    set_mode_of_folder(path, MODE)
}

/// Runs as other users pass through to a folder of their own.
const MODE: u32 = 0o711;

/// The error where no place takes the folder: each with its reason, the last of which tells the kind.
fn no_folder(database: Option<&Path>, refused: &[(PathBuf, io::Error)]) -> Error {
    let kind = match refused.last().map(|(_, error)| error.kind()) {
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            StorageErrorKind::ReadOnly
        }
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => StorageErrorKind::Full,
        _ => StorageErrorKind::Io,
    };
    let message = format!("no folder for scripts can be made: {}", reasons(refused));
    Error::Storage(StorageError {
        kind,
        message,
        path: database.map(Path::to_owned),
        is_unexplained: false,
    })
}

fn reasons(refused: &[(PathBuf, io::Error)]) -> String {
    let reasons = refused.iter().map(|(place, error)| format!("`{}`: {error}", place.display()));
    reasons.collect::<Vec<_>>().join("; ")
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_private_emptied_at_open_and_gone_afterwards() {
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let scratch = Scratch::of(&database).expect("a folder");
        let path = scratch.path().to_owned();
        assert_eq!(fs::metadata(&path).expect("it exists").mode() & 0o7777, MODE);
        fs::write(path.join("left"), "by a run that nobody ended").expect("written");
        fs::create_dir(scratch.kept("17-1")).expect("a folder");
        let before = scratch.engine();
        // As after the loss of the process: nothing tidied up.
        std::mem::forget(scratch);
        let scratch = Scratch::of(&database).expect("a folder again");
        let has = |name: &str| scratch.path().join(name).exists();
        let own = name_of(scratch.engine());
        assert_eq!([has("left"), has("kept-17-1"), has(&own)], [false, true, true]);
        assert_eq!(scratch.engines_before(), [before]);
        scratch.settle();
        fs::remove_dir(scratch.kept("17-1")).expect("it was kept");
        scratch.close_and_wait();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn an_open_does_not_wait_for_a_process_that_goes_on_to_make_folders() {
        use rustix::fs::CWD;
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let scratch = Scratch::of(&database).expect("a folder");
        let left = scratch.path().join("left");
        fs::create_dir(&left).expect("a folder");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, &left, flags, Mode::empty()).expect("a folder");
        // As after the loss of the process.
        std::mem::forget(scratch);
        let is_over = std::sync::Arc::new(AtomicBool::new(false));
        let process = std::thread::spawn({
            let is_over = std::sync::Arc::clone(&is_over);
            move || {
                let mut last = folder;
                // Once the last folder is removed, it takes no more.
                while !is_over.load(Ordering::Relaxed)
                    && rustix::fs::mkdirat(&last, "d", Mode::RWXU).is_ok()
                    && let Ok(next) = rustix::fs::openat(&last, "d", flags, Mode::empty())
                {
                    last = next;
                }
            }
        });
        let again = Scratch::of(&database).expect("a folder again");
        assert!(!left.exists());
        let path = again.path().to_owned();
        again.settle();
        drop(again);
        is_over.store(true, Ordering::Relaxed);
        process.join().expect("no panic");
        removal::wait(&path, Duration::from_secs(60));
        assert!(!path.exists());
    }

    #[test]
    fn engines_and_what_they_left_are_known_until_a_later_engine_has_settled_it() {
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let (shared, beside) = (place.path().join("shared"), place.path().join("a.db.run"));
        let both = [shared.clone(), beside.clone()];
        let open = |places: &[PathBuf]| {
            Scratch::in_first_of(Places::these(places), &database).expect("a folder")
        };
        let known = |scratch: &Scratch| {
            let mut known = scratch.engines_before().to_vec();
            known.sort_unstable();
            known
        };
        let mut dead = Vec::new();
        // Two engines in the first place, one in the second.
        for places in [&both[..], &both[..], &both[1..]] {
            let scratch = open(places);
            dead.push(scratch.engine());
            scratch.keep_left(&[format!("mark of {}", dead.len())]).expect("written");
            std::mem::forget(scratch);
        }
        dead.sort_unstable();
        fs::write(shared.join("next-1"), "half a line").expect("written");

        let scratch = open(&both);
        assert_eq!(known(&scratch), dead);
        let mut left = scratch.left();
        left.sort();
        assert_eq!(left, ["mark of 1", "mark of 2", "mark of 3"]);
        // An engine that was not settled leaves all numbers, and its own number unless all its runs have ended.
        scratch.open_run().close();
        drop(scratch);
        let scratch = open(&both);
        assert_eq!(known(&scratch), dead);
        let _ = scratch.open_run();
        dead.push(scratch.engine());
        dead.sort_unstable();
        drop(scratch);
        let scratch = open(&both);
        assert_eq!(known(&scratch), dead);
        scratch.keep_left(&["still there".to_owned()]).expect("written");
        scratch.settle();
        drop(scratch);

        let scratch = open(&both);
        assert_eq!((known(&scratch), scratch.left()), (vec![], vec!["still there".to_owned()]));
        scratch.settle();
        scratch.close_and_wait();
        drop(scratch);
        assert!(!shared.exists() && !beside.exists());
    }

    #[test]
    fn what_is_left_is_kept_in_another_place_if_the_first_takes_no_file() {
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let both = [place.path().join("shared"), place.path().join("a.db.run")];
        let open = || Scratch::in_first_of(Places::these(&both), &database).expect("a folder");
        let scratch = open();
        let left = ["still there".to_owned()];
        // A stranger has put files in the way.
        let block = |place: &Path| {
            fs::remove_dir_all(place).or_else(|_| fs::remove_file(place)).unwrap_or_default();
            fs::write(place, "").expect("written");
        };
        block(&both[0]);
        scratch.keep_left(&left).expect("the next place takes it");
        assert_eq!(scratch.left(), left);
        scratch.keep_left(&[]).expect("there is nothing to keep");
        assert_eq!(scratch.left(), [""; 0]);
        block(&both[1]);
        scratch.keep_left(&left).expect_err("no place takes it");
        scratch.keep_left(&[]).expect("there is nothing to keep");

        both.iter().for_each(|place| fs::remove_file(place).expect("it was in the way"));
        scratch.keep_left(&left).expect("the first place takes it");
        scratch.settle();
        drop(scratch);
        assert_eq!((open().left(), both[1].exists()), (left.to_vec(), false));
    }

    /// A name below `place` that a folder can have, while no file in it can: its path would be too long.
    fn too_long_for_files(place: &Path) -> PathBuf {
        const PATH_BYTES_MAX: usize = 4_095;
        let mut parent = place.to_owned();
        while parent.as_os_str().len() + 400 < PATH_BYTES_MAX {
            parent.push("x".repeat(200));
        }
        fs::create_dir_all(&parent).expect("folders");
        let rest = PATH_BYTES_MAX - parent.as_os_str().len() - 1;
        let half = parent.join("x".repeat(rest / 2));
        fs::create_dir(&half).expect("a folder");
        half.join("x".repeat(rest - rest / 2 - 1))
    }

    #[test]
    fn a_place_that_takes_no_files_gives_way_to_the_next() {
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let (full, next) = (too_long_for_files(place.path()), place.path().join("a.db.run"));
        let both = Places::these(&[full.clone(), next.clone()]);
        let scratch = Scratch::in_first_of(both, &database);
        assert_eq!(scratch.expect("a folder").path(), next);
        assert!(!full.exists());

        let alone = Places::these(std::slice::from_ref(&full));
        let error = Scratch::in_first_of(alone, &database);
        let error = error.expect_err("no other place").to_string();
        let names = format!("no folder for scripts can be made: `{}`: ", full.display());
        let database = format!("database {}: ", database.display());
        assert!(error.starts_with(&(database + &names)), "{error}");
        assert!(!full.exists());
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let precious = place.path().join("precious");
        fs::create_dir(&precious).expect("a folder");
        fs::write(precious.join("file"), "kept").expect("written");
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&precious, &link).expect("a link");
        let next = place.path().join("a.db.run");
        let both = Places::these(&[link.clone(), next.clone()]);
        let scratch = Scratch::in_first_of(both, &database).expect("another folder");
        assert_eq!(scratch.path(), next);
        drop(scratch);
        fs::remove_file(link).expect("the link is still there");
        assert_eq!(fs::read_to_string(precious.join("file")).expect("untouched"), "kept");
    }

    #[test]
    fn the_record_of_a_run_is_made_in_a_folder_of_this_user_alone() {
        let place = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::of(&place.path().join("a.db")).expect("a folder");
        let runs = place.path().join("a.db.runs");
        let check = |name: &str, want: Option<&str>| match (scratch.make_run(name), want) {
            (Ok(()), None) => assert!(runs.join(name).is_dir()),
            (Err(error), Some(want)) => {
                let error = error.to_string();
                assert!(error.contains(want), "{error}");
            }
            (made, _) => panic!("{name}: {made:?}"),
        };
        check("1-1", None);
        assert_eq!(fs::metadata(&runs).expect("made").mode() & 0o7777, 0o700);
        check("2-1", None);
        check("2-1", Some("exists"));
        fs::set_permissions(&runs, Permissions::from_mode(0o770)).expect("set");
        check("3-1", Some("others may write"));
        fs::remove_dir_all(&runs).expect("removed");
        fs::write(&runs, "").expect("written");
        check("3-1", Some("ot a directory"));
        fs::remove_file(&runs).expect("removed");
        std::os::unix::fs::symlink(place.path(), &runs).expect("a link");
        check("3-1", Some("ot a directory"));
        assert!(scratch.runs().is_none());
        scratch.forget("a.db".as_ref());
        fs::remove_file(&runs).expect("the link is there");
        check("3-1", None);
    }

    #[test]
    fn nothing_in_the_folder_is_for_other_users() {
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let scratch = Scratch::of(&database).expect("a folder");
        scratch.keep_left(&["a mark".to_owned()]).expect("kept");
        note_user(scratch.path(), 1_234).expect("noted");
        let beside = beside(&database, ".run");
        let mut seen = 0;
        for (path, name) in files_in(scratch.path()).into_iter().chain(files_in(&beside)) {
            let mode = fs::symlink_metadata(&path).expect("it is there").mode();
            assert_eq!(mode & 0o077, 0, "{name}");
            seen += 1;
        }
        assert!(seen >= 3, "the number of the engine, what is left, and a user");
        assert_eq!(scratch.users(), BTreeSet::from([1_234]));
        // Otherwise the folder would wait for the next engine.
        scratch.keep_left(&[]).expect("nothing to keep");
        let path = scratch.path().to_owned();
        drop(scratch);
        assert!(!path.exists() && !beside.exists());
    }
}

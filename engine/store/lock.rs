//! Who runs a file: the process that holds the lock beside it. The system releases it when the
//! process ends, however it ends.

use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{Error, Result, StorageErrorKind};
use crate::files::{Identity, beside, obstacle, open_regular, pid_namespace, take_after};

use super::cause::{cannot_open, check_name, in_the_way};
use super::storage;

/// Readable by this user only: the file holds scripts and what they print.
const PRIVATE: u32 = 0o600;

/// The locks that engines of this process hold. A number in a lock file does not tell: in another container, another
/// process can have the number of this process.
static HELD: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

fn held() -> MutexGuard<'static, Vec<Identity>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Held for as long as a process runs the file.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
    /// Whether its file was not there before.
    is_new: bool,
    /// Whether the owner before has left its number: it did not come to its end.
    was_left: bool,
    /// Whether the number is removed when the lock is given up.
    ends_well: AtomicBool,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while the lock is held, so that the next owner sees that this one has come to its end.
        if self.ends_well.load(Ordering::Relaxed) {
            let _ = self.file.set_len(0);
        }
        if let Ok(found) = self.file.metadata() {
            held().retain(|held| *held != Identity::of(&found));
        }
        // Closing it would not do: a process that is just being started has it open for a moment
        // too. Should this fail, the end of the process releases it.
        let _ = self.file.unlock();
    }
}

impl Lock {
    pub(super) fn take(database: &Path) -> Result<Self> {
        let path = beside(database, ".lock");
        loop {
            let opened = open_or_create(&path).map_err(|error| match obstacle(&path) {
                Some(what) => in_the_way(&path, what),
                None => cannot_open(&path, &error),
            })?;
            if let Some(lock) = Self::of(opened, &path, database)? {
                return Ok(lock);
            }
        }
    }

    /// Locks its file, which has been opened; none if somebody has withdrawn that since.
    fn of((file, is_new): (File, bool), path: &Path, database: &Path) -> Result<Option<Self>> {
        let cannot = |error| cannot_open(path, &error);
        match try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = holder_named_in(&file);
                return Err(Error::InUse { path: database.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        // The next one would lock another file.
        if !is_at(&file, path).map_err(cannot)? {
            return Ok(None);
        }
        let found = file.metadata().map_err(cannot)?;
        if found.nlink() > 1 {
            // Writing the number of this process would overwrite a file that has another name elsewhere.
            return Err(in_the_way(path, format!("it has {} names (hard links)", found.nlink())));
        }
        let was_left = found.len() > 0;
        let ends_well = AtomicBool::new(!was_left);
        let lock = Self { file, path: path.to_owned(), is_new, was_left, ends_well };
        held().push(Identity::of(&found));
        match write_pid(&lock.file) {
            Ok(()) => Ok(Some(lock)),
            Err(error) => {
                lock.withdraw();
                Err(cannot(error))
            }
        }
    }

    /// Returns whether the engine before did not come to its end.
    pub(super) fn was_left(&self) -> bool {
        self.was_left
    }

    /// Lets the users of the database use the lock too.
    pub(super) fn share_like(&self, database: &Metadata) {
        // If the lock cannot be shared, the other users get an error that names the lock.
        let _ = take_after(&self.file, database);
    }

    /// Notes whether the file is left in order, so that the next engine need not check it.
    pub(super) fn leaves(&self, well: bool) {
        self.ends_well.store(well, Ordering::Relaxed);
    }

    /// Returns the path of the lock file, and the device and inode that identify it.
    pub(super) fn known_by(&self) -> io::Result<(PathBuf, Identity)> {
        let found = self.file.metadata()?;
        Ok((self.path.clone(), Identity::of(&found)))
    }

    /// Gives it up where the database was not opened: nothing stays that was not there before.
    pub(super) fn withdraw(self) {
        // While it is held: nobody else runs the file, or is about to.
        if self.is_new {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Locks a file. A process that looks who holds the lock holds it for a moment itself, so this tries a few times.
fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    const TRIES: usize = 3;
    const PAUSE: Duration = Duration::from_millis(1);
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            locked => return locked,
        }
    }
    file.try_lock()
}

/// Returns whether a process holds the lock of a database, and the number of the process if it is known.
pub(super) fn holder(database: &Path) -> Option<Option<u32>> {
    let file = open_regular(OpenOptions::new().read(true), &beside(database, ".lock")).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(holder_named_in(&file)),
        _ => None,
    }
}

/// Returns whether an engine of this process holds the lock of a database.
pub(super) fn is_held_here(database: &Path) -> bool {
    Identity::at(&beside(database, ".lock")).is_ok_and(|found| held().contains(&found))
}

/// Returns the number of the process that holds a lock, if the number is known.
fn holder_named_in(file: &File) -> Option<u32> {
    let me = std::process::id();
    if file.metadata().is_ok_and(|found| held().contains(&Identity::of(&found))) {
        return Some(me);
    }
    let mut pid = String::new();
    // The process may not have written its number yet.
    let _ = (&*file).read_to_string(&mut pid);
    // In another container, another process can have the number of this process.
    pid_in(&pid).filter(|pid| *pid != me)
}

/// The file, and whether it was not there before.
fn open_or_create(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(PRIVATE);
    match open_regular(options.clone().create_new(true), path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Ok((open_regular(options.create(true).truncate(false), path)?, false))
        }
        created => {
            let file = created?;
            // The umask of the process may have taken rights from this user.
            file.set_permissions(Permissions::from_mode(PRIVATE))?;
            Ok((file, true))
        }
    }
}

/// Whether this is the file that the path leads to.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Identity::of(&found) == Identity::of(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_pid(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    // At once, so that nobody reads the number without its namespace.
    file.write_all(format!("{}\n{}\n", std::process::id(), pid_namespace()).as_bytes())
}

/// Returns the number of the process that a lock names, if it counts in the namespace of this process too.
fn pid_in(text: &str) -> Option<u32> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let namespace = lines.next().unwrap_or_default();
    (namespace.is_empty() || namespace == pid_namespace()).then_some(pid)
}

/// Returns the one name of a file, so that two ways to the file meet at one lock. A link is followed to its end, like
/// SQLite does, even if there is no file yet.
pub(super) fn canonical(path: &Path) -> Result<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => {
                check_name(path.file_name().unwrap_or_default())?;
                Ok(path)
            }
            Ok(found) if found.is_dir() => {
                Err(storage(StorageErrorKind::CannotOpen, "it is a folder, not a file"))
            }
            Ok(_) => Err(storage(StorageErrorKind::CannotOpen, "it is no regular file")),
            Err(error) => Err(cannot_open(&path, &error)),
        };
    }
    let end = end_of_links(path);
    let is_link = end != path;
    let resolve = || {
        let name = end.file_name().ok_or_else(|| {
            storage(StorageErrorKind::CannotOpen, format!("`{}` names no file", end.display()))
        })?;
        check_name(name)?;
        let folder = match end.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let folder = folder.canonicalize().map_err(|error| cannot_open(folder, &error))?;
        Ok(folder.join(name))
    };
    resolve().map_err(|error| match error {
        Error::Storage(mut error) if is_link => {
            error.message = format!("it is a link to `{}`: {}", end.display(), error.message);
            Error::Storage(error)
        }
        error => error,
    })
}

/// Links that are followed one after another; the system follows as many.
const LINKS_MAX: usize = 40;

/// Follows a link to the end of the last link. Folders on the way are left to the system.
fn end_of_links(path: &Path) -> PathBuf {
    let mut end = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&end) else { break };
        end = match end.parent() {
            Some(folder) => folder.join(target),
            None => target,
        };
    }
    end
}

/// Refuses a file that has other names: SQLite's log and the lock lie beside one name, and whoever opens the
/// file by another sees neither.
pub(super) fn check_links(path: &Path) -> Result<()> {
    let found = std::fs::metadata(path).map_err(|error| cannot_open(path, &error))?;
    match found.nlink() {
        0 | 1 => Ok(()),
        links => {
            let message = format!("it has {links} names (hard links)");
            Err(storage(StorageErrorKind::Linked, message))
        }
    }
}

/// Creates the file if it is missing, for this user only.
pub(super) fn create_private(path: &Path) -> Result<()> {
    match OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path) {
        // The umask of the process may have taken rights from this user.
        Ok(file) => file
            .set_permissions(Permissions::from_mode(PRIVATE))
            .map_err(|error| cannot_open(path, &error)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(cannot_open(path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_process_counts_in_its_namespace_only() {
        let own = pid_namespace();
        let check = |text: &str, want: Option<u32>| assert_eq!(pid_in(text), want, "{text:?}");
        check(&format!("17\n{own}\n"), Some(17));
        check("17\npid:[1]\n", None);
        check("17\n", Some(17));
        check("", None);
        check("x\n", None);
    }

    #[test]
    fn a_lock_is_released_though_a_child_has_its_descriptor_still() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("adjutant.db");
        let lock = Lock::take(&database).expect("nobody has it");
        assert!(matches!(Lock::take(&database), Err(Error::InUse { pid: Some(_), .. })));
        let heir = lock.file.try_clone().expect("a descriptor");
        drop(lock);
        Lock::take(&database).expect("nobody has it any more");
        drop(heir);
    }

    #[test]
    fn a_lock_of_no_avail_is_withdrawn_unless_it_was_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("adjutant.db");
        let path = beside(&database, ".lock");
        Lock::take(&database).expect("nobody has it").withdraw();
        assert!(!path.exists());
        drop(Lock::take(&database).expect("nobody has it"));
        Lock::take(&database).expect("nobody has it").withdraw();
        assert!(path.exists());
    }

    #[test]
    fn whoever_has_opened_a_lock_that_is_withdrawn_does_not_get_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("adjutant.db");
        let path = beside(&database, ".lock");
        let lock = Lock::take(&database).expect("nobody has it");
        let slow = || open_or_create(&path).expect("it is there");
        let (too_late, even_later) = (slow(), slow());
        lock.withdraw();
        assert!(Lock::of(too_late, &path, &database).expect("it is free").is_none());
        let _next = Lock::take(&database).expect("nobody has it");
        assert!(Lock::of(even_later, &path, &database).expect("it is free").is_none());
    }
}

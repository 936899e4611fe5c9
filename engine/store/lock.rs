//! Who runs a file: the process that holds the lock beside it. The system releases it when the
//! process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, StorageErrorKind};

use super::storage;

/// Readable by this user only: the file holds scripts and what they print.
const PRIVATE: u32 = 0o600;

/// Held for as long as a process runs the file.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing it would not do: a process that is just being started has it open for a moment
        // too. Should this fail, the end of the process releases it.
        let _ = self.file.unlock();
    }
}

impl Lock {
    pub(super) fn take(database: &Path) -> Result<Self> {
        let path = beside(database, ".lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&path)
            .map_err(|error| cannot_open(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Whoever holds the lock may not have written its number yet.
                let _ = file.read_to_string(&mut pid);
                return Err(Error::InUse {
                    path: database.to_owned(),
                    pid: pid.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(cannot_open(&path, &error)),
        }
        write_pid(&mut file).map_err(|error| cannot_open(&path, &error))?;
        Ok(Self { file })
    }
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The name of a file that belongs to the database.
pub(super) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// One name for one file, so that two ways to it meet at one lock.
pub(super) fn canonical(path: &Path) -> Result<PathBuf> {
    if let Ok(path) = path.canonicalize() {
        return match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => Ok(path),
            Ok(found) if found.is_dir() => {
                Err(storage(StorageErrorKind::CannotOpen, "it is a folder, not a file"))
            }
            Ok(_) => Err(storage(StorageErrorKind::CannotOpen, "it is no regular file")),
            Err(error) => Err(cannot_open(&path, &error)),
        };
    }
    let name = path.file_name().ok_or_else(|| {
        storage(StorageErrorKind::CannotOpen, format!("`{}` names no file", path.display()))
    })?;
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let folder = folder.canonicalize().map_err(|error| cannot_open(folder, &error))?;
    Ok(folder.join(name))
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
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(cannot_open(path, &error)),
    }
}

/// Too many open files, of this process and of the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

pub(super) fn cannot_open(path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            StorageErrorKind::ReadOnly
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::Full,
        _ if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => StorageErrorKind::Busy,
        _ => StorageErrorKind::CannotOpen,
    };
    storage(kind, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

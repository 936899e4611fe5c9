//! Whose the folder of an engine is. A copy of a database, or of the files beside it, does not own the folder of the
//! original, and learns nothing from it: the marks in the folder are of processes that the original has to end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags};

use super::is_own;

/// The name of the file that names the database of a folder.
pub(super) const OWNER: &str = "owner";
/// More than the file has bytes.
const BYTES_MAX: u64 = 8_192;

/// A database: by the device and inode of its file, and by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    file: Vec<u8>,
    path: Vec<u8>,
}

/// What an engine may do with a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// There is no such folder, or it is another user's.
    Absent,
    /// The folder is of this very database.
    Own,
    /// Part of what names the database has changed, and no engine uses the folder: the database has been moved, or
    /// replaced by another file with the same path.
    Inherited,
    /// The folder is of another database, or of none, and no engine uses it.
    Abandoned,
    /// An engine of another database uses the folder.
    Taken,
}

impl Owner {
    pub(super) fn of(database: &Path) -> Self {
        let found = fs::metadata(database).map(|found| format!("{} {}", found.dev(), found.ino()));
        let path = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
        Self {
            file: found.unwrap_or_default().into_bytes(),
            path: path.as_os_str().as_bytes().to_vec(),
        }
    }

    /// Returns what the engine of this database may do with a folder.
    pub(super) fn claim(&self, folder: &Path) -> Claim {
        if !is_own(folder) {
            return Claim::Absent;
        }
        let Ok(mut file) = open(folder) else { return Claim::Abandoned };
        let mut text = Vec::new();
        if Read::by_ref(&mut file).take(BYTES_MAX).read_to_end(&mut text).is_err() {
            return Claim::Taken;
        }
        let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
        let (of_file, of_path) = (&text[..end], text.get(end + 1..).unwrap_or_default());
        let is_same = [of_file == self.file, of_path == self.path];
        if is_same == [true, true] {
            // The caller has the lock of the database, so no other engine uses the folder.
            return Claim::Own;
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(_) => Claim::Taken,
            Ok(()) if is_same.contains(&true) => Claim::Inherited,
            Ok(()) => Claim::Abandoned,
        }
    }

    /// Notes the database in a folder. The returned file tells the engines of other databases that this engine uses
    /// the folder, until the file is dropped.
    pub(super) fn note(&self, folder: &Path) -> io::Result<File> {
        let claim = self.claim(folder);
        if claim == Claim::Taken {
            let why = "an engine of another database uses it";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
        }
        if claim != Claim::Own {
            let path = folder.join(OWNER);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = super::create_private(&path)?;
            file.write_all(&[&self.file[..], b"\n", &self.path].concat())?;
        }
        let file = open(folder)?;
        // An earlier engine of this database may have the lock for a moment longer.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(file)
    }
}

fn open(folder: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(folder.join(OWNER))
}

/// Removes a folder in which nothing but the name of its database is left.
pub(super) fn remove_if_unused(folder: &Path) {
    let is_unused = |mut entries: fs::ReadDir| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == OWNER))
    };
    if is_own(folder) && fs::read_dir(folder).is_ok_and(is_unused) {
        let _ = fs::remove_file(folder.join(OWNER));
        let _ = fs::remove_dir(folder);
    }
}

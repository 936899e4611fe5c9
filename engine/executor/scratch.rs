//! The folder for what only lives as long as a run: entered by this user alone, emptied at open of
//! what an earlier engine left. In memory where the system has a place for that: creating a file
//! costs a tenth there, and scripts with secrets in them never reach a disk.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result, StorageError, StorageErrorKind};

/// Where Linux keeps files in memory.
const IN_MEMORY: &str = "/dev/shm";

/// Its folder goes with it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// The folder of a database; blocks. The caller holds the lock of the database.
    pub(crate) fn of(database: &Path) -> Result<Self> {
        let mut beside = database.as_os_str().to_owned();
        beside.push(".run");
        let places = [in_memory(database), PathBuf::from(beside)];
        for place in &places {
            sweep(place).map_err(|error| io_error(place, &error))?;
        }
        let [first, second] = places;
        let path = if create(&first).is_ok() {
            first
        } else {
            create(&second).map_err(|error| io_error(&second, &error))?;
            second
        };
        Ok(Self { path })
    }

    /// A folder for an engine in memory; blocks.
    pub(crate) fn temporary() -> Result<Self> {
        let on_disk = std::env::temp_dir();
        let new_in = |place| tempfile::Builder::new().prefix("adjutant-").tempdir_in(place);
        let folder = new_in(Path::new(IN_MEMORY)).or_else(|_| new_in(&on_disk));
        let folder = folder.map_err(|error| io_error(&on_disk, &error))?;
        Ok(Self { path: folder.keep() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// One name for one database and user, whoever opens it next.
fn in_memory(database: &Path) -> PathBuf {
    let digest = Sha256::digest(database.as_os_str().as_bytes());
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let user = rustix::process::geteuid().as_raw();
    Path::new(IN_MEMORY).join(format!("adjutant-{user}-{digest}"))
}

/// Removes what an earlier engine left; somebody else's folder, or a link to one, is left alone.
fn sweep(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() => {
            fs::remove_dir_all(path)
        }
        _ => Ok(()),
    }
}

fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

fn io_error(path: &Path, error: &io::Error) -> Error {
    Error::Storage(StorageError {
        kind: StorageErrorKind::Io,
        message: error.to_string(),
        path: Some(path.to_owned()),
    })
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next open.
        let _ = fs::remove_dir_all(&self.path);
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
        assert_eq!(fs::metadata(&path).expect("it exists").mode() & 0o7777, 0o700);
        fs::write(path.join("left"), "by a run that nobody ended").expect("written");
        // As after the loss of the process: nothing tidied up.
        std::mem::forget(scratch);
        let scratch = Scratch::of(&database).expect("a folder again");
        assert_eq!(fs::read_dir(scratch.path()).expect("readable").count(), 0);
        drop(scratch);
        assert!(!path.exists());
        assert_ne!(in_memory(&database), in_memory(&place.path().join("b.db")));
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let precious = place.path().join("precious");
        fs::create_dir(&precious).expect("a folder");
        fs::write(precious.join("file"), "kept").expect("written");
        let link = in_memory(&database);
        std::os::unix::fs::symlink(&precious, &link).expect("a link");
        let scratch = Scratch::of(&database).expect("another folder");
        assert_eq!(scratch.path(), place.path().join("a.db.run"));
        drop(scratch);
        fs::remove_file(link).expect("the link is still there");
        assert_eq!(fs::read_to_string(precious.join("file")).expect("untouched"), "kept");
    }
}

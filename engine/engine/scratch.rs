//! The folder for what only lives as long as a run: entered by this user alone, emptied at open of
//! what an earlier engine left.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::Result;

use super::io_error;

/// Its folder goes with it.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// The folder beside a database; blocks. The caller holds the lock of the database.
    pub(super) fn beside(database: &Path) -> Result<Self> {
        let mut name = database.as_os_str().to_owned();
        name.push(".run");
        let path = PathBuf::from(name);
        Self::prepare(&path).map_err(|error| io_error(&path, &error))?;
        Ok(Self { path })
    }

    /// A folder in the system's place for such; blocks.
    pub(super) fn temporary() -> Result<Self> {
        let place = std::env::temp_dir();
        let folder = tempfile::Builder::new().prefix("adjutant-").tempdir();
        let folder = folder.map_err(|error| io_error(&place, &error))?;
        Ok(Self { path: folder.keep() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn prepare(path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            // Somebody else's folder, or a link to one, is no place for scripts.
            Ok(found) if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "it is not this user's folder",
                ));
            }
            Ok(_) => fs::remove_dir_all(path)?,
        }
        DirBuilder::new().mode(0o700).create(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next open.
        let _ = fs::remove_dir_all(&self.path);
    }
}

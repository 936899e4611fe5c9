//! The folder for what only lives as long as a run: read by this user alone, emptied at open of what an
//! earlier engine left. In memory where the system has a place for that: creating a file
//! costs a tenth there, and scripts with secrets in them never reach a disk.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::error::{Error, Result, StorageError, StorageErrorKind};
use crate::id::ExecutionId;
use crate::panics::tell;

/// Where Linux keeps files in memory.
const IN_MEMORY: &str = "/dev/shm";

/// What the name of a folder begins with that is a surviving run's, and stays until that has ended.
const KEPT: &str = "kept-";
/// The file with the number of the engine.
const ENGINE: &str = "engine";

/// Its folder goes with it, unless some run survives.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    engine: u64,
    /// That of the engine before, if it was not shut down.
    engine_before: Option<u64>,
    /// Where surviving runs have their records; none for an engine in memory.
    runs: Option<PathBuf>,
}

impl Scratch {
    /// The folder of a database; blocks. The caller holds the lock of the database.
    pub(crate) fn of(database: &Path) -> Result<Self> {
        Self::in_first_of(&[in_memory(database), beside(database, ".run")], database)
    }

    /// In the first of these places that takes it.
    fn in_first_of(places: &[PathBuf], database: &Path) -> Result<Self> {
        let mut engine_before = None;
        for place in places {
            engine_before = engine_before.or(engine_in(place));
            // What a run of another user has left may not let itself be removed; it is in nobody's way.
            if let Err(error) = sweep(place) {
                tell(
                    || tracing::warn!(%error, path = %place.display(), "files of earlier runs stay behind"),
                );
            }
        }
        let mut refused = Vec::new();
        for place in places {
            let mut scratch = Self::new(place.clone());
            (scratch.engine_before, scratch.runs) =
                (engine_before, Some(beside(database, ".runs")));
            match scratch.begin() {
                Ok(()) => return Ok(scratch),
                Err(error) => refused.push((place.as_path(), error)),
            }
        }
        Err(no_folder(Some(database), &refused))
    }

    /// Makes the folder, with the number of its engine in it.
    fn begin(&self) -> io::Result<()> {
        create(&self.path)?;
        fs::write(self.path.join(ENGINE), self.engine.to_string())
    }

    /// A folder for an engine in memory; blocks.
    pub(crate) fn temporary() -> Result<Self> {
        let on_disk = std::env::temp_dir();
        let new_in = |place| tempfile::Builder::new().prefix("adjutant-").tempdir_in(place);
        let folder = new_in(Path::new(IN_MEMORY)).or_else(|_| new_in(&on_disk));
        let folder = folder.map_err(|error| no_folder(None, &[(&on_disk, error)]))?;
        fs::set_permissions(folder.path(), Permissions::from_mode(MODE))
            .map_err(|error| no_folder(None, &[(folder.path(), error)]))?;
        Ok(Self::new(folder.keep()))
    }

    /// This folder, for a run that survives; blocks.
    pub(crate) fn apart(path: PathBuf) -> Result<Self> {
        create(&path).map_err(|error| no_folder(None, &[(&path, error)]))?;
        Ok(Self::new(path))
    }

    fn new(path: PathBuf) -> Self {
        let (engine, _) = Uuid::new_v4().as_u64_pair();
        Self { path, engine, engine_before: None, runs: None }
    }

    /// A random number for this engine, which is in no record.
    pub(crate) fn engine(&self) -> u64 {
        self.engine
    }

    /// That of the engine before, if it was not shut down.
    pub(crate) fn engine_before(&self) -> Option<u64> {
        self.engine_before
    }

    /// Where surviving runs have their records; none for an engine in memory, and none if somebody else has
    /// made that folder.
    pub(crate) fn runs(&self) -> Option<&Path> {
        self.runs.as_deref().filter(|runs| fs::symlink_metadata(runs).is_err() || is_own(runs))
    }

    /// What the files of a run are called; no other run has this name.
    pub(crate) fn name(id: ExecutionId, attempt: u32) -> String {
        format!("{id}-{attempt}")
    }

    /// Removes what there is of a run that survived, and is recorded now.
    pub(crate) fn forget(&self, name: &OsStr) {
        let Some(runs) = &self.runs else { return };
        // What cannot be removed now is removed at the next open. In this order: whoever looks for the run
        // looks for its folder.
        let _ = fs::remove_dir_all(runs.join(name));
        let _ = fs::remove_dir_all(self.kept(name));
        let _ = fs::remove_dir(runs);
    }

    /// A folder that stays when the engine ends, for the run of this name.
    pub(crate) fn kept(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let mut folder = OsString::from(KEPT);
        folder.push(name);
        self.path.join(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// The name of a folder that belongs to the database.
fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
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
    if is_own(path) { empty(path) } else { Ok(()) }
}

fn is_own(path: &Path) -> bool {
    let found = fs::symlink_metadata(path);
    found.is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::geteuid().as_raw())
}

/// Removes all but what surviving runs need, and the folder itself if there is no such thing.
fn empty(path: &Path) -> io::Result<()> {
    let mut stays = false;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(KEPT.as_bytes()) {
            stays = true;
        } else if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    if stays { Ok(()) } else { fs::remove_dir(path) }
}

fn engine_in(path: &Path) -> Option<u64> {
    if !is_own(path) {
        return None;
    }
    fs::read_to_string(path.join(ENGINE)).ok()?.parse().ok()
}

/// Makes the folder, unless it has stayed.
fn create(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_own(path) => {}
        created => created?,
    }
    fs::set_permissions(path, Permissions::from_mode(MODE))
}

/// Runs as other users pass through to a folder of their own.
const MODE: u32 = 0o711;

/// The error where no place takes the folder: each with its reason, the last of which tells the kind.
fn no_folder(database: Option<&Path>, refused: &[(&Path, io::Error)]) -> Error {
    let kind = match refused.last().map(|(_, error)| error.kind()) {
        Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            StorageErrorKind::ReadOnly
        }
        Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => StorageErrorKind::Full,
        _ => StorageErrorKind::Io,
    };
    let reasons = refused.iter().map(|(place, error)| format!("`{}`: {error}", place.display()));
    let reasons = reasons.collect::<Vec<_>>().join("; ");
    let message = format!("there is no folder for what runs: {reasons}");
    Error::Storage(StorageError { kind, message, path: database.map(Path::to_owned) })
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is removed at the next open.
        let _ = sweep(&self.path);
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
        assert_eq!([has("left"), has("kept-17-1"), has(ENGINE)], [false, true, true]);
        assert_eq!(scratch.engine_before(), Some(before));
        fs::remove_dir(scratch.kept("17-1")).expect("it was kept");
        drop(scratch);
        assert!(!path.exists());
        assert_ne!(in_memory(&database), in_memory(&place.path().join("b.db")));
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
        let scratch = Scratch::in_first_of(&[full.clone(), next.clone()], &database);
        assert_eq!(scratch.expect("a folder").path(), next);
        assert!(!full.exists());

        let error = Scratch::in_first_of(std::slice::from_ref(&full), &database);
        let error = error.expect_err("no other place").to_string();
        let names = format!("there is no folder for what runs: `{}`: ", full.display());
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
        let link = in_memory(&database);
        std::os::unix::fs::symlink(&precious, &link).expect("a link");
        let scratch = Scratch::of(&database).expect("another folder");
        assert_eq!(scratch.path(), place.path().join("a.db.run"));
        drop(scratch);
        fs::remove_file(link).expect("the link is still there");
        assert_eq!(fs::read_to_string(precious.join("file")).expect("untouched"), "kept");
    }
}

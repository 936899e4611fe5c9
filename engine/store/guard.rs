//! Holds the file itself, whatever happens to its names. A lock on the inode keeps a second engine out even if the
//! lock beside the file is gone, and the open descriptor identifies the file.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result, StorageErrorKind};
use crate::files::{Identity, beside, open_regular, take_after};

use super::cause::cannot_open;
use super::lock::Lock;
use super::{at, storage};

/// Files that must stay open, because the host has connections of its own to them: closing any descriptor of a file
/// releases all locks that SQLite holds on the file for this process.
static PARKED: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// The file that an engine runs, and the files that belong to it.
#[derive(Debug)]
pub(super) struct Guard {
    path: PathBuf,
    file: Held,
    /// The log and the memory that connections share, once SQLite has made both.
    log: Option<(File, Held)>,
    /// The files beside it: its lock, its log and that memory.
    beside: Vec<(PathBuf, Identity)>,
}

/// A file on which SQLite may hold locks for this process. It is therefore not closed before SQLite has closed it.
#[derive(Debug)]
struct Held {
    /// `None` once it is dropped.
    file: Option<File>,
    known: Identity,
}

impl Held {
    /// Opens a file, or takes its descriptor if it is still open.
    fn open(path: &Path, options: &mut OpenOptions) -> io::Result<Self> {
        let found = std::fs::metadata(path)?;
        let file = match take_parked(Identity::of(&found)) {
            Some(file) => file,
            None => open_regular(options, path)?,
        };
        let known = Identity::of(&file.metadata()?);
        Ok(Self { file: Some(file), known })
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("taken only when dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(file) = self.file.take_if(|file| is_open_elsewhere(file)) {
            parked().push(file);
        }
    }
}

impl Guard {
    /// Locks the inode of the file. The caller holds the lock beside it.
    pub(super) fn take(path: &Path, lock: &Lock) -> Result<Self> {
        let cannot = |error| at(cannot_open(path, &error), path);
        let file = Held::open(path, OpenOptions::new().read(true).write(true)).map_err(cannot)?;
        let found = file.file().metadata().map_err(cannot)?;
        let beside = vec![lock.known_by().map_err(cannot)?];
        let guard = Self { path: path.to_owned(), file, log: None, beside };
        match guard.file().try_lock() {
            Ok(()) => Ok(guard),
            Err(TryLockError::WouldBlock) => {
                let pid = holder(&found);
                Err(Error::InUse { path: path.to_owned(), pid })
            }
            Err(TryLockError::Error(error)) => Err(cannot(error)),
        }
    }

    fn file(&self) -> &File {
        self.file.file()
    }

    /// Returns the owner, the group, the mode and the size of the file.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file().metadata()
    }

    /// Lets the users of the file use its log and the memory that connections share. SQLite gives these files the mode
    /// of the database, but the group of this process.
    fn share_log(&self) {
        let (Ok(database), Some((log, shared))) = (self.metadata(), self.log()) else { return };
        for file in [log, shared] {
            // If a file cannot be shared, the other users get an error that names the file.
            let _ = take_after(file, &database);
        }
    }

    /// Notes the log and the memory that connections share. SQLite has made both by now.
    pub(super) fn know_log(&mut self) -> Result<()> {
        let [log, shared] = ["-wal", "-shm"].map(|suffix| beside(&self.path, suffix));
        let of_log = open_regular(OpenOptions::new().read(true), &log)
            .and_then(|file| Ok((Identity::of(&file.metadata()?), file)));
        let (log_is, file) = of_log.map_err(|error| cannot_open(&log, &error))?;
        let held = Held::open(&shared, OpenOptions::new().read(true))
            .map_err(|error| cannot_open(&shared, &error))?;
        self.beside.truncate(1);
        self.beside.extend([(log, log_is), (shared, held.known)]);
        self.log = Some((file, held));
        self.share_log();
        Ok(())
    }

    /// Returns the log and the memory that connections share.
    pub(super) fn log(&self) -> Option<(&File, &File)> {
        self.log.as_ref().map(|(log, shared)| (log, shared.file()))
    }

    /// Checks that the name of each file still leads to the same file.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Moved`], with where the file is now.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(what) = difference(&self.path, self.file.known) {
            let now = self.where_now();
            return Err(moved(format!("{what}{now}")));
        }
        for (path, known) in &self.beside {
            if let Some(what) = difference(path, *known) {
                return Err(moved(format!("`{}` beside it: {what}", path.display())));
            }
        }
        Ok(())
    }

    /// Returns whether the file itself is still where it was.
    pub(super) fn is_in_place(&self) -> bool {
        difference(&self.path, self.file.known).is_none()
    }

    /// Returns whether the file has any name left.
    pub(super) fn is_named(&self) -> bool {
        self.file().metadata().is_ok_and(|ours| ours.nlink() > 0)
    }

    fn where_now(&self) -> String {
        let link = format!("/proc/self/fd/{}", self.file().as_raw_fd());
        match std::fs::read_link(link) {
            Ok(now) if self.is_named() => format!("; what was there is `{}` now", now.display()),
            Ok(_) => "; what was there is removed".to_owned(),
            Err(_) => String::new(),
        }
    }

    /// Returns the size of the file in bytes and the time of the last write.
    pub(super) fn state(&self) -> io::Result<(u64, (i64, i64))> {
        let found = self.file().metadata()?;
        Ok((found.len(), (found.mtime(), found.mtime_nsec())))
    }

    /// Reads from the file itself, without its log.
    pub(super) fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file().read_exact_at(bytes, offset)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Closing the descriptor does not unlock the file, because a process that is just being started has
        // the file open for a moment too.
        let _ = self.file().unlock();
    }
}

fn parked() -> std::sync::MutexGuard<'static, Vec<File>> {
    PARKED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_parked(of: Identity) -> Option<File> {
    let mut parked = parked();
    let found = parked
        .iter()
        .position(|file| file.metadata().is_ok_and(|found| Identity::of(&found) == of))?;
    Some(parked.swap_remove(found))
}

/// Returns whether this process has the file open by another descriptor.
fn is_open_elsewhere(file: &File) -> bool {
    let Ok(ours) = file.metadata() else { return true };
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else { return true };
    open.flatten().any(|entry| {
        entry.file_name().to_str() != Some(&file.as_raw_fd().to_string())
            && std::fs::metadata(entry.path())
                .is_ok_and(|found| Identity::of(&found) == Identity::of(&ours))
    })
}

/// Returns the words for a name that leads to another file or to none; `None` if the name still leads to the same
/// file.
fn difference(path: &Path, known: Identity) -> Option<String> {
    let what = match Identity::at(path) {
        Ok(found) if found == known => return None,
        Ok(_) => "another file was put in its place".to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            "it was moved or removed".to_owned()
        }
        Err(error) => format!("it cannot be found any more ({error})"),
    };
    Some(format!("{what} while process {} works on it", std::process::id()))
}

pub(super) fn moved(message: String) -> Error {
    storage(StorageErrorKind::Moved, message)
}

/// Returns the process that has locked an inode, if the system lists it.
fn holder(found: &Metadata) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    let of = format!("{major:02x}:{minor:02x}:{}", found.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let held =
            words.contains(&"FLOCK") && !words.contains(&"->") && words.contains(&of.as_str());
        held.then(|| words.get(4)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_takes_a_name_away_is_noticed_whatever_takes_its_place() {
        let check = |change: &dyn Fn(&Path), want: &[&str]| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("a.db");
            for suffix in ["", "-wal", "-shm"] {
                std::fs::write(beside(&path, suffix), "x").expect("written");
            }
            let lock = Lock::take(&path).expect("nobody has it");
            let mut guard = Guard::take(&path, &lock).expect("nobody has it");
            guard.know_log().expect("it is there");
            guard.check().expect("all is where it was");
            change(&path);
            let error = guard.check().expect_err("changed").to_string();
            for want in want {
                assert!(error.contains(want), "{want}: {error}");
            }
            assert!(
                error.contains(&format!("while process {} works", std::process::id())),
                "{error}"
            );
        };
        let rename = |from: &Path, to: &Path| std::fs::rename(from, to).expect("moved");
        let remove = |path: &Path| std::fs::remove_file(path).expect("it is there");
        let write = |path: &Path| std::fs::write(path, "y").expect("written");
        check(&|path| remove(path), &["moved or removed", "is removed"]);
        check(&|path| rename(path, &beside(path, ".moved")), &["a.db.moved` now"]);
        check(
            &|path| {
                rename(path, &beside(path, ".moved"));
                write(path);
            },
            &["another file was put in its place", "a.db.moved` now"],
        );
        check(&|path| remove(&beside(path, ".lock")), &["a.db.lock` beside it: it was moved"]);
        check(&|path| remove(&beside(path, "-wal")), &["a.db-wal` beside it: it was moved"]);
        check(&|path| remove(&beside(path, "-shm")), &["a.db-shm` beside it: it was moved"]);
        check(
            &|path| {
                remove(&beside(path, "-wal"));
                write(&beside(path, "-wal.new"));
                write(&beside(path, "-wal"));
            },
            &["a.db-wal` beside it: another file"],
        );
        check(
            &|path| {
                let folder = path.parent().expect("a folder");
                rename(folder, &beside(folder, ".old"));
                std::fs::create_dir(folder).expect("a fresh one");
                write(path);
            },
            &["another file was put in its place", ".old/a.db` now"],
        );
    }

    #[test]
    fn a_second_one_is_kept_out_without_the_lock_beside_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        std::fs::write(&path, "x").expect("written");
        let lock = Lock::take(&path).expect("nobody has it");
        let first = Guard::take(&path, &lock).expect("nobody has it");
        std::fs::remove_file(beside(&path, ".lock")).expect("it is there");
        let other = Lock::take(&path).expect("another file");
        let refused = Guard::take(&path, &other);
        assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
        drop(first);
        Guard::take(&path, &other).expect("nobody has it any more");
    }
}

//! Finds out why the system refuses a file. SQLite says that a file cannot be opened or written, but not why. So the
//! steps that SQLite tried are tried again, on the file and on the files beside it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{Statvfs, statvfs};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::error::{Error, Result, StorageError, StorageErrorKind};
use crate::files::{beside, obstacle};

use super::{storage, strict};

/// Files that SQLite keeps beside a database while it is open.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// Files beside a database that SQLite or this library opens.
const OPENED: [&str; 4] = [".lock", "-wal", "-shm", "-journal"];

/// Checks that only regular files have the names of files beside a database. Otherwise SQLite would refuse a link
/// without naming it, and would wait for a pipe.
///
/// # Errors
///
/// [`StorageErrorKind::InTheWay`], with the name.
pub(super) fn check_companions(database: &Path) -> Result<()> {
    OPENED.iter().try_for_each(|suffix| {
        let path = beside(database, suffix);
        obstacle(&path).map_or(Ok(()), |what| Err(in_the_way(&path, what)))
    })
}

/// The length of the longest suffix of a file beside the database.
const SUFFIX_BYTES_MAX: usize = "-journal".len();

/// The longest name that usual file systems take.
const NAME_BYTES_MAX: usize = 255;

/// Descriptors of an engine without a run: its locks, and twice the log and the memory that connections share.
const DESCRIPTORS: u64 = 7;
/// Descriptors of a connection that reads: the file and its log.
const DESCRIPTORS_OF_A_READER: u64 = 2;
/// Descriptors of a run: both ends of its pipes, a script, a way to wait for its end.
const DESCRIPTORS_OF_A_RUN: u64 = 8;

/// Adds the cause that the system gives to an error of SQLite, if the cause can be found out.
pub(super) fn explain(error: &mut StorageError, path: &Path) {
    let found = match error.kind {
        StorageErrorKind::CannotOpen | StorageErrorKind::ReadOnly => refusal(path),
        StorageErrorKind::Full => Some((full(path), StorageErrorKind::Full)),
        StorageErrorKind::Io => descriptors_used_up(0),
        _ => None,
    };
    if let Some((cause, kind)) = found {
        error.message = format!("{}: {cause}", error.message);
        error.kind = kind;
    }
}

/// Returns the kind of an error of the system.
pub(super) fn kind_of(error: &io::Error) -> StorageErrorKind {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => StorageErrorKind::ReadOnly,
        Some(Errno::NOSPC | Errno::DQUOT) => StorageErrorKind::Full,
        Some(Errno::MFILE | Errno::NFILE) => StorageErrorKind::TooManyFiles,
        Some(Errno::IO) => StorageErrorKind::Io,
        _ => StorageErrorKind::CannotOpen,
    }
}

/// Returns the words for an error of the system about a file.
pub(super) fn told(path: &Path, error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(errno @ (Errno::MFILE | Errno::NFILE)) => too_many_files(errno, 0),
        Some(Errno::NOSPC) => format!("{}: {}", path.display(), full(path)),
        _ => format!("{}: {error}", path.display()),
    }
}

/// Refuses to begin with fewer descriptors than an engine needs for one reader and one run.
pub(super) fn check_descriptors() -> Result<()> {
    let more = DESCRIPTORS + DESCRIPTORS_OF_A_READER + DESCRIPTORS_OF_A_RUN;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let open = match std::fs::read_dir("/proc/self/fd") {
        Ok(open) => open.count() as u64,
        Err(error) if is_want_of_descriptors(&error) => limit,
        // The number of open descriptors is not known, so a want of them shows later.
        Err(_) => return Ok(()),
    };
    if open.saturating_add(more) <= limit {
        return Ok(());
    }
    let message = too_many_files(Errno::MFILE, open.saturating_add(more));
    Err(storage(StorageErrorKind::TooManyFiles, message))
}

/// Refuses a name that is too long for the names of SQLite's files beside it.
pub(super) fn check_name(name: &OsStr) -> Result<()> {
    let (bytes, max) = (name.as_bytes().len(), NAME_BYTES_MAX - SUFFIX_BYTES_MAX);
    if bytes <= max {
        return Ok(());
    }
    let message = format!(
        "its name has {bytes} bytes, and may have {max}: names of files beside it are up to \
         {SUFFIX_BYTES_MAX} bytes longer"
    );
    Err(storage(StorageErrorKind::CannotOpen, message))
}

fn is_want_of_descriptors(error: &io::Error) -> bool {
    kind_of(error) == StorageErrorKind::TooManyFiles
}

/// `needed` is the number of descriptors needed in all; 0 if it is not known.
fn too_many_files(errno: Errno, needed: u64) -> String {
    if errno == Errno::NFILE {
        return format!(
            "too many open files in the whole system (os error {})",
            errno.raw_os_error()
        );
    }
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let needed = match needed {
        0 => String::new(),
        needed => format!(", at least {needed} are needed"),
    };
    format!("too many open files: the limit is {limit}{needed} (os error {})", errno.raw_os_error())
}

fn descriptors_used_up(needed: u64) -> Option<(String, StorageErrorKind)> {
    let opened = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    match opened {
        Err(errno @ (Errno::MFILE | Errno::NFILE)) => {
            Some((too_many_files(errno, needed), StorageErrorKind::TooManyFiles))
        }
        _ => None,
    }
}

/// Returns why the file, or a file beside it, cannot be opened for writing.
fn refusal(path: &Path) -> Option<(String, StorageErrorKind)> {
    if let Some(found) = descriptors_used_up(0) {
        return Some(found);
    }
    let mut files = vec![path.to_owned()];
    files.extend(COMPANIONS.map(|suffix| beside(path, suffix)));
    for file in files {
        match can_write(&file) {
            Ok(()) => {}
            // A missing file is made in the folder.
            Err(Errno::NOENT) if file != path => {}
            Err(errno) => return Some(said_of(&file, errno)),
        }
    }
    let folder = folder_of(path);
    let made = rustix::fs::open(
        &folder,
        OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::from_raw_mode(0o600),
    );
    match made {
        Ok(_) => None,
        // Not every file system makes files without names.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
            can_write(&folder).err().map(|errno| said_of(&folder, errno))
        }
        Err(errno) => Some(said_of(&folder, errno)),
    }
}

fn can_write(path: &Path) -> rustix::io::Result<()> {
    rustix::fs::accessat(CWD, path, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS)
}

fn said_of(path: &Path, errno: Errno) -> (String, StorageErrorKind) {
    let error = io::Error::from(errno);
    (told(path, &error), kind_of(&error))
}

/// Returns which resource is used up on the file's disk, in words.
fn full(path: &Path) -> String {
    let folder = folder_of(path);
    match statvfs(&folder) {
        Ok(found) if found.files() > 0 && found.files_available() == 0 => {
            format!("no inodes are left on the file system of `{}`", folder.display())
        }
        Ok(found) if room_of(&found) < ROOM_MIN => {
            format!("no space is left on the file system of `{}`", folder.display())
        }
        _ => format!(
            "no space is left for this user, or for a file of this size, in `{}`",
            folder.display()
        ),
    }
}

/// Less room than this counts as none, because a page with SQLite's additions does not fit in.
const ROOM_MIN: u64 = 64 * 1024;

/// Returns the number of bytes that can be written on the file's disk; `None` if the system does not say.
pub(super) fn room(path: &Path) -> Option<u64> {
    statvfs(&folder_of(path)).ok().map(|found| room_of(&found))
}

fn room_of(found: &Statvfs) -> u64 {
    found.blocks_available().saturating_mul(found.fragment_size())
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Checks that this user may read a file.
///
/// # Errors
///
/// [`StorageErrorKind::CannotOpen`], with the file's owner and mode if its mode is the cause.
pub(super) fn check_readable(path: &Path) -> Result<()> {
    let Err(errno) = rustix::fs::accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS) else {
        return Ok(());
    };
    let mut message = told(path, &errno.into());
    if let (Errno::ACCESS | Errno::PERM, Ok(found)) = (errno, rustix::fs::stat(path)) {
        let (owner, mode) = (strict::user(found.st_uid), found.st_mode & 0o7777);
        message.push_str(&format!("; it belongs to {owner}, mode {mode:04o}"));
    }
    Err(storage(StorageErrorKind::CannotOpen, message))
}

/// Makes a storage error of an error of the system about a file.
pub(super) fn cannot_open(path: &Path, error: &io::Error) -> Error {
    storage(kind_of(error), told(path, error))
}

/// Makes an error for an obstacle at the name of a file beside the database.
pub(super) fn in_the_way(path: &Path, what: impl std::fmt::Display) -> Error {
    storage(StorageErrorKind::InTheWay, format!("{} beside it: {what}", path.display()))
}

/// Returns the step at which the system refused SQLite, by SQLite's extended code.
pub(super) fn refused_step(code: i32) -> Option<&'static str> {
    const IOERR: i32 = 10;
    if code & 0xff != IOERR {
        return None;
    }
    Some(match code >> 8 {
        1 | 33 => "a read was refused",
        2 => "a read came to the end of the file too early",
        3 => "a write was refused",
        4 | 5 => "what was written could not be brought to disk",
        6 => "the file could not be cut",
        7 => "the state of the file could not be asked for",
        8 | 9 | 14 | 15 => "a lock was refused",
        10 | 23 => "a file could not be removed",
        18..=21 => "the memory that connections share, `-shm`, was refused",
        _ => return None,
    })
}

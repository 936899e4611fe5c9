//! How a process reads a file that it does not run. A look makes no file and changes none, and needs no more than the
//! right to read.
//!
//! SQLite needs the memory that connections share, `-shm`, to read a log, and makes that file if it is missing. So a
//! file without a log is read as if nobody wrote to it, and each read checks that nobody has. A log with its `-shm` is
//! read in step with the process that writes. A log without its `-shm` has been left, and is read from a copy.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;

use crate::error::{Error, Result, StorageErrorKind};
use crate::files::{Identity, beside};

use super::cause::{cannot_open, check_readable};
use super::connection::{Access, reader};
use super::{custody, lock, storage};

/// Tries to open a file that another process changes at the same time.
const TRIES_MAX: usize = 16;

/// A connection that only reads, to a file that another process may run.
#[derive(Debug)]
pub(super) struct Look {
    pub connection: Connection,
    basis: Basis,
}

/// The state of the files that a connection relies on.
#[derive(Debug)]
enum Basis {
    /// SQLite notices what other processes write: only the files must stay the same.
    Shared([Option<Identity>; 3]),
    /// Nobody writes, as the files say.
    Still(Stamp),
    /// The file cannot be read itself: the state of which a copy was made, and the folder of the copy.
    Copied(Stamp, #[expect(dead_code, reason = "the folder goes with the connection")] TempDir),
}

/// The state of a file and of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    file: State,
    log: Option<State>,
}

/// The state of a file: each write changes one of the times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    file: Identity,
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(found: &Metadata) -> Self {
        Self {
            file: Identity::of(found),
            bytes: found.len(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Stamp {
    pub(super) fn of(path: &Path) -> Result<Self> {
        let file = fs::metadata(path).map_err(|error| cannot_open(path, &error))?;
        let log = beside(path, "-wal");
        let log = match fs::metadata(&log) {
            // SQLite leaves an empty log where it cannot remove the log.
            Ok(found) => Some(found).filter(|found| found.len() > 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(cannot_open(&log, &error)),
        };
        Ok(Self { file: State::of(&file), log: log.as_ref().map(State::of) })
    }
}

impl Look {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// The cause that the system gives, with the path of the file.
    pub(super) fn at(path: &Path) -> Result<Self> {
        check_readable(path)?;
        for _ in 0..TRIES_MAX {
            let stamp = Stamp::of(path)?;
            if stamp.log.is_some() {
                check_readable(&beside(path, "-wal"))?;
            }
            let is_still = stamp.log.is_none()
                || (lock::holder(path).is_none() && custody::has_foreign_log(path)?);
            let look = match is_still {
                true => Self::still(path, stamp),
                false => Self::with_log(path, stamp),
            };
            match look {
                Ok(look) if look.is_current(path) => return Ok(look),
                // Another process writes at this moment.
                Err(error) if Stamp::of(path)? == stamp => return Err(error),
                _ => {}
            }
        }
        Err(changed())
    }

    fn still(path: &Path, stamp: Stamp) -> Result<Self> {
        let connection = reader(path, Access::Still)?;
        Ok(Self { connection, basis: Basis::Still(stamp) })
    }

    fn with_log(path: &Path, stamp: Stamp) -> Result<Self> {
        let files = Self::files(path);
        let refused = match files {
            [_, _, None] => None,
            _ => match Self::shared(path) {
                Ok(connection) => {
                    return Ok(Self { connection, basis: Basis::Shared(files) });
                }
                Err(error) if is_decided(&error) => return Err(error),
                Err(error) => Some(error),
            },
        };
        // The first error names the cause.
        Self::copied(path, stamp).map_err(|error| refused.unwrap_or(error))
    }

    fn shared(path: &Path) -> Result<Connection> {
        let access = if lock::is_held_here(path) { Access::Own } else { Access::Shared };
        let connection = reader(path, access)?;
        // SQLite opens the log with the first read.
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
        Ok(connection)
    }

    fn copied(path: &Path, stamp: Stamp) -> Result<Self> {
        let folder = TempDir::with_prefix("adjutant-look-");
        let folder = folder.map_err(|error| cannot_open(&std::env::temp_dir(), &error))?;
        let copy = folder.path().join("copy.db");
        for suffix in ["", "-wal"] {
            let from = beside(path, suffix);
            fs::copy(&from, beside(&copy, suffix)).map_err(|error| cannot_open(&from, &error))?;
        }
        let connection = reader(&copy, Access::Own)?;
        Ok(Self { connection, basis: Basis::Copied(stamp, folder) })
    }

    fn files(path: &Path) -> [Option<Identity>; 3] {
        ["", "-wal", "-shm"].map(|suffix| Identity::at(&beside(path, suffix)).ok())
    }

    /// Returns whether the next read sees the file as it is now.
    pub(super) fn is_current(&self, path: &Path) -> bool {
        match &self.basis {
            Basis::Shared(files) => *files == Self::files(path),
            Basis::Still(stamp) | Basis::Copied(stamp, _) => {
                Stamp::of(path).is_ok_and(|now| now == *stamp)
            }
        }
    }

    /// Checks after a read that nobody has written to the file meanwhile, if SQLite cannot see that.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Busy`] if what was read may be of two states.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        match &self.basis {
            // A log that has come since changes nothing in the file itself.
            Basis::Still(stamp) => match Stamp::of(path) {
                Ok(now) if now.file == stamp.file => Ok(()),
                _ => Err(changed()),
            },
            Basis::Shared(_) | Basis::Copied(..) => Ok(()),
        }
    }
}

fn changed() -> Error {
    storage(StorageErrorKind::Busy, "another process has changed it while it was read")
}

/// Returns whether another way to read the file would fail too.
fn is_decided(error: &Error) -> bool {
    use StorageErrorKind as Kind;
    match error {
        Error::Storage(error) => !matches!(
            error.kind,
            Kind::ReadOnly | Kind::CannotOpen | Kind::Full | Kind::Io | Kind::Busy
        ),
        _ => true,
    }
}

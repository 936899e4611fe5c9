//! Finds out to which program a file belongs, and whether the log beside the file is its own, before SQLite opens and
//! changes either. A file of another program is refused without a change. If a user has put a copy in the place of
//! the file, the log goes with another state of the file. The log is then set aside, because reading it back would
//! blend the two states.
//!
//! A mark in the file ties log and file together. A log begins anew only once all of its commits are in the file.
//! Right before that the mark is changed, so the file then has a mark that no earlier state of the file had. The
//! first transaction of the new log repeats that mark. So either the file has one of the marks of its log, or the log
//! goes with another file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use crate::error::{Error, Result, StorageErrorKind};
use crate::files::{beside, open_regular};

use super::cause::cannot_open;
use super::connection::{Access, has_log, reader};
use super::look::Stamp;
use super::{log, migrate, storage};

/// A mark that ties a log to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// A random number, drawn before each log but the first.
    generation: u64,
    /// Whether a log has to begin with this mark.
    is_first: bool,
}

/// Bytes of a mark: the generation, and as many random bytes, so that no two marks are alike. Marks have to differ
/// because SQLite writes only changed pages.
const MARK_BYTES: usize = 16;

impl Mark {
    /// Returns the mark for the first transaction of the next log.
    pub(super) fn first(self) -> Self {
        Self { is_first: true, ..self }
    }

    fn to_bytes(self) -> [u8; MARK_BYTES] {
        let nonce = random() << 1 | u64::from(self.is_first);
        let mut bytes = [0; MARK_BYTES];
        bytes[..8].copy_from_slice(&self.generation.to_be_bytes());
        bytes[8..].copy_from_slice(&nonce.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; MARK_BYTES]) -> Self {
        let number = |half: &[u8]| half.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self { generation: number(&bytes[..8]), is_first: bytes[15] & 1 == 1 }
    }

    /// Reads a mark from the only page of its table.
    pub(super) fn of_page(page: &[u8]) -> Option<Self> {
        const LEAF_OF_A_TABLE: u8 = 0x0d;
        const ONE_ROW: [u8; 2] = [0, 1];
        let is_sound =
            page.len() > MARK_BYTES && page[0] == LEAF_OF_A_TABLE && page[3..5] == ONE_ROW;
        let bytes = page.last_chunk::<MARK_BYTES>()?;
        is_sound.then(|| Self::from_bytes(*bytes))
    }
}

/// The marks that an engine gives its file, one after another.
#[derive(Debug)]
pub(super) struct Marks {
    /// The generations in file and log when the engine took them over.
    found: Vec<u64>,
    /// A random number. Each drawn mark has the next number for its generation.
    base: u64,
    drawn: u64,
    /// The mark that was stored last.
    stored: Mark,
}

impl Marks {
    /// Returns the marks of an engine that has just taken over a file with this mark.
    pub(super) fn after(found: Mark) -> Self {
        Self { found: vec![found.generation], base: random(), drawn: 0, stored: found }
    }

    /// Adds marks that earlier engines have given the file, because a checkpoint may copy each of them from the log
    /// into the file.
    pub(super) fn know(&mut self, earlier: impl IntoIterator<Item = Mark>) {
        self.found.extend(earlier.into_iter().map(|mark| mark.generation));
    }

    /// Draws a mark for the last transaction of a log. No state of any file has had this mark.
    pub(super) fn draw(&mut self) -> Mark {
        self.drawn += 1;
        Mark { generation: self.base.wrapping_add(self.drawn), is_first: false }
    }

    /// Notes that a mark is stored.
    pub(super) fn store(&mut self, mark: Mark) {
        self.stored = mark;
    }

    /// Returns the mark that was stored last.
    pub(super) fn stored(&self) -> Mark {
        self.stored
    }

    /// Returns the number of the mark among the drawn ones, 0 for a mark that was found; `None` for a mark of
    /// another engine.
    pub(super) fn ordinal(&self, mark: Mark) -> Option<u64> {
        if self.found.contains(&mark.generation) {
            return Some(0);
        }
        let ordinal = mark.generation.wrapping_sub(self.base);
        (1..=self.drawn).contains(&ordinal).then_some(ordinal)
    }
}

fn random() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high.rotate_left(32) ^ low
}

/// Returns a random number for an engine.
pub(super) fn new_engine() -> i64 {
    (random() >> 1).cast_signed()
}

/// Makes the file an engine's, in the first transaction that it writes.
pub(super) fn take_over(connection: &Connection, engine: i64) -> Result<Mark> {
    let new = || Mark { generation: random(), is_first: true };
    let mark = mark_of(connection)?.map_or_else(new, Mark::first);
    connection.execute(
        "INSERT INTO ownership (id, engine, mark) VALUES (1, ?1, ?2)
         ON CONFLICT (id) DO UPDATE SET engine = excluded.engine, mark = excluded.mark",
        (engine, mark.to_bytes()),
    )?;
    Ok(mark)
}

/// Checks that the file is still this engine's.
pub(super) fn check_engine(connection: &Connection, engine: i64) -> Result<bool> {
    let mut owner = connection.prepare_cached("SELECT engine FROM ownership WHERE id = 1")?;
    Ok(owner.query_row((), |row| row.get::<_, i64>(0)).optional()? == Some(engine))
}

pub(super) fn write_mark(connection: &Connection, mark: Mark) -> Result<()> {
    connection
        .prepare_cached("UPDATE ownership SET mark = ?1 WHERE id = 1")?
        .execute([mark.to_bytes()])?;
    Ok(())
}

fn mark_of(connection: &Connection) -> Result<Option<Mark>> {
    let mark = connection
        .query_row("SELECT mark FROM ownership WHERE id = 1", (), |row| row.get(0))
        .optional()?;
    Ok(mark.map(Mark::from_bytes))
}

/// Returns the page in which the mark is.
pub(super) fn page_of_mark(connection: &Connection) -> Result<Option<u32>> {
    let root = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = 'ownership'";
    Ok(connection.query_row(root, (), |row| row.get(0)).optional()?)
}

/// Refuses a file that is not of this library, or of a newer version, without a change to the file or to the files
/// beside it.
pub(super) fn check_file(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_open(path, &error)),
    }
    let before = Stamp::of(path)?;
    let looked = reader(path, Access::Still).and_then(|connection| {
        migrate::check_readable(&connection)?;
        migrate::is_empty(&connection)
    });
    match looked {
        Ok(false) => Ok(()),
        // All commits may wait in the log.
        Ok(true) if has_log(path) => check_with_log(path),
        Ok(true) => Ok(()),
        // If another process writes at this moment, the look may have seen half of what is written.
        Err(error) if is_decided(&error, path) && Stamp::of(path)? == before => Err(error),
        // Another process writes, or the file is damaged. The opening finds out which.
        Err(_) => Ok(()),
    }
}

/// Checks a file with its log, without a change to the log.
fn check_with_log(path: &Path) -> Result<()> {
    // If another process uses the file, the memory that connections share exists, and no other file is made.
    let is_shared = beside(path, "-shm").exists();
    let access = if is_shared { Access::Shared } else { Access::Alone };
    match reader(path, access).and_then(|connection| migrate::check_readable(&connection)) {
        Err(error) if is_decided(&error, path) => Err(error),
        _ => Ok(()),
    }
}

fn is_decided(error: &Error, path: &Path) -> bool {
    match error {
        Error::Storage(error) => match error.kind {
            StorageErrorKind::Foreign | StorageErrorKind::Version => true,
            StorageErrorKind::Corrupt => !has_log(path),
            _ => false,
        },
        _ => false,
    }
}

/// Returns whether the log beside a file goes with another state of the file.
pub(super) fn has_foreign_log(path: &Path) -> Result<bool> {
    if !has_log(path) {
        return Ok(false);
    }
    if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
        // SQLite would remove the log.
        return Ok(true);
    }
    let log = beside(path, "-wal");
    // A mark that does not exist, or cannot be read, is left to SQLite.
    let Ok(Some((mark, page))) = look_for_mark(path) else { return Ok(false) };
    let marks =
        open_regular(OpenOptions::new().read(true), &log).and_then(|log| marks_in(&log, page));
    let marks = marks.map_err(|error| cannot_open(&log, &error))?;
    // Another process may have written between the two looks.
    let is_still = matches!(look_for_mark(path), Ok(Some((again, _))) if again == mark);
    let begins_as_ours =
        marks.first().is_some_and(|(mark, transaction)| *transaction == 0 && mark.is_first);
    let is_known = marks.iter().any(|(known, _)| known.generation == mark.generation);
    Ok(is_still && begins_as_ours && !is_known)
}

/// Returns the marks that committed transactions of a log have written, each with the number of its transaction.
pub(super) fn marks_in(log: &File, page: u32) -> io::Result<Vec<(Mark, usize)>> {
    log::committed(log, |number, bytes| Mark::of_page(bytes).filter(|_| number == page))
}

/// Returns the mark in a file itself, without its log, and the page of the mark.
pub(super) fn look_for_mark(path: &Path) -> Result<Option<(Mark, u32)>> {
    let file = reader(path, Access::Still)?;
    let Some(page) = page_of_mark(&file)? else { return Ok(None) };
    Ok(mark_of(&file)?.map(|mark| (mark, page)))
}

/// Gives a log another name. Returns that name.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf> {
    let log = beside(path, "-wal");
    let free = (1..u32::MAX).map(|n| beside(path, &format!("-wal.foreign-{n}")));
    let free =
        free.into_iter().find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_default();
    fs::rename(&log, &free).map_err(|error| cannot_open(&log, &error))?;
    // This file is the index of that log, and SQLite makes it anew.
    match fs::remove_file(beside(path, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(cannot_open(&beside(path, "-shm"), &error))
        }
        _ => Ok(free),
    }
}

/// Returns the error of an engine whose file another engine has taken over.
pub(super) fn taken_over() -> Error {
    let me = std::process::id();
    let message = format!("another engine has taken it over while process {me} works on it");
    storage(StorageErrorKind::Moved, message)
}

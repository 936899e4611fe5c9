//! Whose a file is, and whether the log beside it is its own: found out before SQLite opens either, for SQLite
//! changes both. A file of another program is refused as it was. A log that goes with another state of the file
//! (somebody has put a copy in its place) is set aside, for to read it back would blend the two.
//!
//! What ties log and file together is a mark in the file. A log begins anew only once everything of it is in the
//! file; right before that the mark is changed, so the file then has a mark that no earlier state of it had. The
//! first transaction of the new log repeats that mark. So the file has one of the marks of its log, or it is not the
//! file that the log goes with.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use crate::error::{Error, Result, StorageErrorKind};

use super::cause::cannot_open;
use super::connection::{Access, has_log, reader};
use super::lock::beside;
use super::{Tx, migrate, storage};

/// Ties a log to its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Drawn before each log but the first.
    generation: u64,
    /// Whether a log has to begin with it.
    is_first: bool,
}

/// Bytes of a mark: the generation, and as much by which no two marks are alike. SQLite writes only what changes.
const MARK_BYTES: usize = 16;

impl Mark {
    /// The mark of what is to be the last transaction of a log.
    pub(super) fn last() -> Self {
        Self { generation: random(), is_first: false }
    }

    /// The mark of what is to be the first transaction of the log after it.
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

    /// Reads it from the only page of its table.
    pub(super) fn of_page(page: &[u8]) -> Option<Self> {
        const LEAF_OF_A_TABLE: u8 = 0x0d;
        const ONE_ROW: [u8; 2] = [0, 1];
        let is_sound =
            page.len() > MARK_BYTES && page[0] == LEAF_OF_A_TABLE && page[3..5] == ONE_ROW;
        let bytes = page.last_chunk::<MARK_BYTES>()?;
        is_sound.then(|| Self::from_bytes(*bytes))
    }
}

fn random() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high.rotate_left(32) ^ low
}

/// A number for an engine, which is that of no other.
pub(super) fn new_engine() -> i64 {
    (random() >> 1).cast_signed()
}

/// Makes the file an engine's, in the first transaction that it writes.
pub(super) fn take_over(tx: Tx<'_>, engine: i64) -> Result<Mark> {
    let mark = mark_of(tx)?.unwrap_or_else(Mark::last).first();
    tx.execute(
        "INSERT INTO ownership (id, engine, mark) VALUES (1, ?1, ?2)
         ON CONFLICT (id) DO UPDATE SET engine = excluded.engine, mark = excluded.mark",
        (engine, mark.to_bytes()),
    )?;
    Ok(mark)
}

/// Checks that the file is still this engine's.
pub(super) fn check_engine(tx: Tx<'_>, engine: i64) -> Result<bool> {
    let mut owner = tx.prepare_cached("SELECT engine FROM ownership WHERE id = 1")?;
    Ok(owner.query_row((), |row| row.get::<_, i64>(0)).optional()? == Some(engine))
}

pub(super) fn write_mark(tx: Tx<'_>, mark: Mark) -> Result<()> {
    tx.prepare_cached("UPDATE ownership SET mark = ?1 WHERE id = 1")?.execute([mark.to_bytes()])?;
    Ok(())
}

fn mark_of(tx: Tx<'_>) -> Result<Option<Mark>> {
    let mark =
        tx.query_row("SELECT mark FROM ownership WHERE id = 1", (), |row| row.get(0)).optional()?;
    Ok(mark.map(Mark::from_bytes))
}

/// Returns the page in which the mark is.
pub(super) fn page_of_mark(connection: &Connection) -> Result<Option<u32>> {
    let root = "SELECT rootpage FROM sqlite_schema WHERE type = 'table' AND name = 'ownership'";
    Ok(connection.query_row(root, (), |row| row.get(0)).optional()?)
}

/// Refuses what is no file of this library, or one of a newer version, without a change to it or to what lies
/// beside it.
pub(super) fn check_file(path: &Path) -> Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot_open(path, &error)),
    }
    let looked = reader(path, Access::Still).and_then(|connection| {
        migrate::check_readable(&connection)?;
        migrate::is_empty(&connection)
    });
    match looked {
        Ok(false) => Ok(()),
        // All that there is may wait in the log.
        Ok(true) if has_log(path) => check_with_log(path),
        Ok(true) => Ok(()),
        Err(error) if is_decided(&error, path) => Err(error),
        // Somebody writes to it at this moment, or it is damaged: whoever opens it finds out.
        Err(_) => Ok(()),
    }
}

/// Looks at a file with its log, which is left as it is.
fn check_with_log(path: &Path) -> Result<()> {
    // Where somebody works with it, the memory that connections share is there, and no other file is made.
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
    // What is not there, or cannot be read, is left to SQLite.
    let Ok(Some((mark, page))) = look_for_mark(path) else { return Ok(false) };
    let marks = marks_in(&log, page).map_err(|error| cannot_open(&log, &error))?;
    // Somebody may have written between the two looks.
    let is_still = matches!(look_for_mark(path), Ok(Some((again, _))) if again == mark);
    let begins_as_ours = marks.first().is_some_and(|(mark, in_first)| *in_first && mark.is_first);
    let is_known = marks.iter().any(|(known, _)| known.generation == mark.generation);
    Ok(is_still && begins_as_ours && !is_known)
}

fn look_for_mark(path: &Path) -> Result<Option<(Mark, u32)>> {
    let file = reader(path, Access::Still)?;
    let Some(page) = page_of_mark(&file)? else { return Ok(None) };
    Ok(mark_of(&file)?.map(|mark| (mark, page)))
}

/// Gives a log another name, and returns it.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf> {
    let log = beside(path, "-wal");
    let free = (1..u32::MAX).map(|n| beside(path, &format!("-wal.foreign-{n}")));
    let free =
        free.into_iter().find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_default();
    fs::rename(&log, &free).map_err(|error| cannot_open(&log, &error))?;
    // It is the index of that log, and is made anew.
    match fs::remove_file(beside(path, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(cannot_open(&beside(path, "-shm"), &error))
        }
        _ => Ok(free),
    }
}

const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// Returns the marks that committed transactions of a log have written, and whether that was the first transaction.
fn marks_in(log: &Path, page: u32) -> io::Result<Vec<(Mark, bool)>> {
    let mut log = BufReader::with_capacity(1 << 16, File::open(log)?);
    let mut header = [0; LOG_HEADER_BYTES];
    if log.read_exact(&mut header).is_err() {
        return Ok(Vec::new());
    }
    let number = |bytes: &[u8], at: usize| {
        bytes[at..at + 4].iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
    };
    const MAGIC: u32 = 0x377f_0682;
    let page_bytes = number(&header, 8) as usize;
    if number(&header, 0) & !1 != MAGIC || !(512..=65_536).contains(&page_bytes) {
        return Ok(Vec::new());
    }
    let mut frame = [0; FRAME_HEADER_BYTES];
    let mut bytes = vec![0; page_bytes];
    let (mut marks, mut uncommitted, mut is_first) = (Vec::new(), Vec::new(), true);
    // What is behind the last frame of this log has the salt of an earlier one.
    while log.read_exact(&mut frame).is_ok()
        && frame[8..16] == header[16..24]
        && log.read_exact(&mut bytes).is_ok()
    {
        if number(&frame, 0) == page {
            uncommitted.extend(Mark::of_page(&bytes).map(|mark| (mark, is_first)));
        }
        if number(&frame, 4) != 0 {
            marks.append(&mut uncommitted);
            is_first = false;
        }
    }
    Ok(marks)
}

/// The error of an engine that finds the file to be another one's.
pub(super) fn taken_over() -> Error {
    let me = std::process::id();
    let message = format!("another engine has taken it over while process {me} works on it");
    storage(StorageErrorKind::Moved, message)
}

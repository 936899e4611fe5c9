//! What the writing thread does for the file itself, between one commit and the next: it keeps the log short, takes
//! out of the log what was refused, and notices when the file is not the engine's any more.

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode};

use crate::error::{Error, Result, StorageErrorKind};
use crate::metrics::Meters;
use crate::panics::tell;

use super::cause::{self, cannot_open};
use super::connection::BUSY_MS;
use super::custody::{self, Mark};
use super::guard::{Guard, moved};
use super::lock::beside;
use super::{Tx, storage};

/// A checkpoint each 16 MiB of log: fewer syncs than at SQLite's 4 MiB, and soon read back.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// The log may stay as long as this while nothing, or little, is written; otherwise it is cut.
const CALM_BYTES: u64 = 4 << 20;
/// A log that has become longer than this is cut when it begins anew; to write over a shorter one is cheaper.
const CUT_BYTES: u64 = 32 << 20;
/// Pages of log between two looks at how much room there is for more.
const ROOM_PAGES: u32 = 64;
/// Pages of log between two looks: what writes less is calm.
const CALM_PAGES: u32 = 128;
/// How long writes may wait for readers of the log, most of which are done in a millisecond.
const READERS_TIME: Duration = Duration::from_millis(100);
/// A reader that has held the log for so long is not waited for any more.
const HELD_AFTER: Duration = Duration::from_secs(2);
/// Between two tries while readers hold the log.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// The host is told of a log that is held for so long.
const HELD_LONG: Duration = Duration::from_secs(60);
/// Between two looks at the file, by which its absence is noticed within a second.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long it is tried to take what was refused out of the log before the engine gives up.
const UNDO_TIME: Duration = Duration::from_secs(5);
const UNDO_AGAIN: Duration = Duration::from_millis(100);
/// How long the open of a file may take on account of a check.
const CHECK_TIME: Duration = Duration::from_millis(500);

const LOG_HEADER_BYTES: u64 = 32;
const FRAME_HEADER_BYTES: u64 = 24;

thread_local! {
    /// Pages of log as of the last commit on this thread.
    static LOG_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// What is known of the log and of the file.
pub(super) struct Upkeep {
    path: PathBuf,
    guard: Guard,
    meters: Arc<Meters>,
    /// The engine's number, which the file has as long as it is this engine's.
    engine: i64,
    mark: Mark,
    /// Whether the next transaction may be the first of a log, and has to say so.
    begins: bool,
    page_bytes: u64,
    page_of_mark: u32,
    /// Pages of log right after a mark was written, which nothing has followed since.
    marked_at: Option<u32>,
    /// Pages for which the log has room in its file.
    file_pages: u32,
    /// Pages of log at which to look whether there is something to do.
    look_at: u32,
    try_at: Instant,
    looked_at: Instant,
    /// Pages of log at that look.
    pages_then: u32,
    held: Option<Held>,
    /// Whether the log has been cut, and not brought to disk since.
    is_cutting: bool,
    seen: Seen,
    /// Why the engine must not go on, once that is so.
    failed: Option<Error>,
}

/// A log that readers keep from beginning anew.
struct Held {
    since: Instant,
    /// Pages of it that were in the file by then.
    copied: u32,
    is_told: bool,
}

/// The file as this engine has left it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    written: (i64, i64),
    print: Vec<u8>,
    /// Pages of log that are in it.
    copied: u32,
}

/// What a checkpoint came to.
struct Checkpoint {
    is_busy: bool,
    pages: u32,
    copied: u32,
}

impl Upkeep {
    /// Begins with a file that is open, and whose log has what it had before.
    pub(super) fn begin(
        connection: &Connection,
        guard: Guard,
        path: PathBuf,
        meters: Arc<Meters>,
        (engine, mark): (i64, Mark),
    ) -> Result<Self> {
        let page_bytes = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let page_of_mark = custody::page_of_mark(connection)?.unwrap_or(1);
        let now = Instant::now();
        let seen = Seen { bytes: 0, written: (0, 0), print: Vec::new(), copied: 0 };
        let mut upkeep = Self {
            path,
            guard,
            meters,
            engine,
            mark,
            begins: false,
            page_bytes,
            page_of_mark,
            marked_at: None,
            file_pages: 0,
            look_at: 0,
            try_at: now,
            looked_at: now,
            pages_then: 0,
            held: None,
            is_cutting: false,
            seen,
            failed: None,
        };
        upkeep.guard.know_log()?;
        let found = checkpoint(connection, "NOOP")?;
        upkeep.file_pages = found.pages;
        LOG_PAGES.set(found.pages);
        upkeep.seen = upkeep.look(found.copied)?;
        connection.wal_hook(Some(note_pages));
        // What an engine that did not come to its end has left; a disk that is full has more room then.
        if upkeep.bytes_of(found.pages) > CALM_BYTES || upkeep.is_short_of_room(found.pages) {
            let _ = upkeep.begin_anew(connection, true, READERS_TIME);
        }
        upkeep.pages_then = LOG_PAGES.get();
        Ok(upkeep)
    }

    /// Goes on on the thread that writes from now on.
    pub(super) fn move_here(&self) {
        LOG_PAGES.set(self.pages_then);
    }

    /// Prepares a transaction that has begun.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Moved`] if another engine has the file.
    pub(super) fn enter(&mut self, tx: Tx<'_>) -> Result<()> {
        if !custody::check_engine(tx, self.engine)? {
            return Err(self.fail(custody::taken_over()));
        }
        if self.begins {
            custody::write_mark(tx, self.mark.first())?;
        }
        Ok(())
    }

    /// Checks that what is about to be committed goes where everybody will look for it.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Moved`] if it does not.
    pub(super) fn before_commit(&mut self, starts_something: bool) -> Result<()> {
        match starts_something {
            true => self.guard.check().map_err(|error| self.fail(error)),
            false => Ok(()),
        }
    }

    /// Returns why the engine must not go on, if that is so.
    pub(super) fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed.get_or_insert(error).clone()
    }

    /// Does what is due after a commit.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        self.begins = false;
        let pages = LOG_PAGES.get();
        if pages < self.seen.copied {
            // The log has begun anew.
            self.seen.copied = 0;
        }
        self.file_pages = self.file_pages.max(pages);
        if self.looked_at.elapsed() >= LOOK_EVERY {
            self.look_around(connection);
        }
        if pages >= self.look_at {
            self.keep_short(connection, pages);
        }
    }

    /// Does what is due though nothing is written.
    pub(super) fn idle(&mut self, connection: &Connection) {
        if self.looked_at.elapsed() >= LOOK_EVERY {
            self.look_around(connection);
        }
    }

    fn keep_short(&mut self, connection: &Connection, pages: u32) {
        self.meters.log_is(self.bytes_of(self.file_pages), self.held_for());
        let is_short = self.is_short_of_room(pages);
        if self.bytes_of(pages) < CHECKPOINT_BYTES && !is_short {
            self.look_at = pages.saturating_add(ROOM_PAGES);
            return;
        }
        let now = Instant::now();
        if now < self.try_at {
            return;
        }
        let cuts = is_short || self.bytes_of(self.file_pages) > CUT_BYTES;
        let patience = if self.is_held() { Duration::ZERO } else { READERS_TIME };
        // What does not succeed now is tried again, and writes go on.
        if self.begin_anew(connection, cuts, patience).is_err() || self.held.is_some() {
            self.try_at = Instant::now() + TRY_AGAIN.max(now.elapsed() * 2);
        }
    }

    /// Whether what is in the log would soon not go into the file any more, for want of room on the disk.
    fn is_short_of_room(&self, pages: u32) -> bool {
        let room = cause::room(&self.path).unwrap_or(u64::MAX);
        pages > 0 && self.bytes_of(pages).saturating_mul(2) > room
    }

    fn bytes_of(&self, pages: u32) -> u64 {
        match pages {
            0 => 0,
            pages => LOG_HEADER_BYTES + u64::from(pages) * (FRAME_HEADER_BYTES + self.page_bytes),
        }
    }

    fn is_held(&self) -> bool {
        self.held_for().is_some_and(|time| time >= HELD_AFTER)
    }

    fn held_for(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.since.elapsed())
    }

    /// Has the log begin anew, if no reader holds it; `cuts` its file too.
    fn begin_anew(
        &mut self,
        connection: &Connection,
        cuts: bool,
        patience: Duration,
    ) -> Result<()> {
        connection.busy_timeout(patience)?;
        let done = self
            .mark_last(connection)
            .and_then(|()| checkpoint(connection, if cuts { "TRUNCATE" } else { "RESTART" }));
        connection.busy_timeout(Duration::from_millis(BUSY_MS.cast_unsigned()))?;
        // Also of one that fails something is in the file.
        let copied = done.as_ref().map_or(self.seen.copied, |done| done.copied);
        self.seen = self.look(copied)?;
        let done = done?;
        self.note_reach(&done);
        if !done.is_busy {
            self.held = None;
            LOG_PAGES.set(0);
            // Nothing has followed it in the new log, which needs none at its end yet.
            (self.marked_at, self.look_at, self.pages_then) = (Some(0), ROOM_PAGES, 0);
            if cuts {
                self.file_pages = 0;
            }
        }
        self.meters.log_is(self.bytes_of(self.file_pages), self.held_for());
        Ok(())
    }

    /// Writes the mark that has to be the last of a log.
    fn mark_last(&mut self, connection: &Connection) -> Result<()> {
        if self.marked_at == Some(LOG_PAGES.get()) {
            return Ok(());
        }
        let mark = Mark::last();
        let write = || {
            execute(connection, "BEGIN IMMEDIATE")?;
            if !custody::check_engine(connection, self.engine)? {
                return Err(custody::taken_over());
            }
            custody::write_mark(connection, mark)?;
            execute(connection, "COMMIT")
        };
        if let Err(error) = write() {
            roll_back(connection);
            if is_refused_by_system(&error) {
                self.undo(connection)?;
                // A full disk takes no mark. Without one a log cannot be told from that of an earlier state; but
                // the disk gets no room either.
                return match is_full(&error) {
                    true => Ok(()),
                    false => Err(error),
                };
            }
            return Err(error);
        }
        self.mark = mark;
        self.begins = true;
        self.marked_at = Some(LOG_PAGES.get());
        self.file_pages = self.file_pages.max(LOG_PAGES.get());
        Ok(())
    }

    fn note_reach(&mut self, done: &Checkpoint) {
        if !done.is_busy {
            return;
        }
        let held = self.held.get_or_insert(Held {
            since: Instant::now(),
            copied: done.copied,
            is_told: false,
        });
        if done.copied > held.copied {
            // Readers come and go.
            *held = Held { since: Instant::now(), copied: done.copied, is_told: false };
        }
        let time = held.since.elapsed();
        if time >= HELD_LONG && !held.is_told {
            held.is_told = true;
            let mib = self.bytes_of(self.file_pages) >> 20;
            let seconds = time.as_secs();
            tell(|| {
                tracing::warn!(
                    mib,
                    seconds,
                    "a reader of the database keeps its log from beginning anew; end that reader, or the log grows"
                );
            });
        }
    }

    /// Looks at the file, and at the log if that has become calm.
    fn look_around(&mut self, connection: &Connection) {
        let pages = LOG_PAGES.get();
        let is_calm = pages.saturating_sub(self.pages_then) < CALM_PAGES;
        (self.looked_at, self.pages_then) = (Instant::now(), pages);
        if let Err(error) = self.check(connection) {
            self.fail(error);
            return;
        }
        if is_calm && self.bytes_of(self.file_pages) > CALM_BYTES {
            let patience = if self.is_held() { Duration::ZERO } else { READERS_TIME };
            let _ = self.begin_anew(connection, true, patience);
        }
        self.meters.log_is(self.bytes_of(self.file_pages), self.held_for());
    }

    /// Checks that the file is where it was, and as this engine has left it.
    fn check(&mut self, connection: &Connection) -> Result<()> {
        self.guard.check()?;
        let now = self.look(self.seen.copied)?;
        if now == self.seen {
            return Ok(());
        }
        if now.print == self.seen.print && now.bytes >= self.seen.bytes {
            // Its time was set, or what it has more of was copied from the log.
            self.seen = now;
            return Ok(());
        }
        let log = checkpoint(connection, "NOOP")?;
        if log.copied > self.seen.copied || log.pages < LOG_PAGES.get() {
            // Another program has copied the log, as it may.
            self.seen = self.look(log.copied)?;
            return Ok(());
        }
        let me = std::process::id();
        Err(moved(format!("another program has written over it while process {me} works on it")))
    }

    /// Looks at the file itself.
    fn look(&self, copied: u32) -> Result<Seen> {
        let look = || {
            let (bytes, written) = self.guard.state()?;
            let mut print = vec![0; 100 + MARK_BYTES];
            if bytes >= 100 {
                self.guard.read_at(0, &mut print[..100])?;
            }
            let end = u64::from(self.page_of_mark) * self.page_bytes;
            if bytes >= end {
                self.guard.read_at(end - MARK_BYTES as u64, &mut print[100..])?;
            }
            Ok(Seen { bytes, written, print, copied })
        };
        look().map_err(|error| cannot_open(&self.path, &error))
    }

    /// Does what has to be done after a transaction that could not be committed, before anybody hears of it:
    /// what it has left in the log must not be found there after the end of the process.
    ///
    /// # Errors
    ///
    /// The error to tell instead, if it is not known what will be found.
    pub(super) fn after_failure(&mut self, connection: &Connection, error: &Error) -> Result<()> {
        if !is_refused_by_system(error) {
            return Ok(());
        }
        self.undo(connection)?;
        if is_full(error) {
            // The log is as large as it was; what of it goes into the file makes room.
            let _ = self.begin_anew(connection, true, Duration::ZERO);
        }
        Ok(())
    }

    /// Takes out of the log what is behind its last commit.
    fn undo(&mut self, connection: &Connection) -> Result<()> {
        let began = Instant::now();
        loop {
            let Err(error) = self.cut(connection) else { return Ok(()) };
            if began.elapsed() >= UNDO_TIME {
                let message = format!(
                    "a commit that was refused may be in its log, and cannot be taken out of it ({error}); \
                     whether it is stored shows when the file is opened again"
                );
                return Err(self.fail(storage(StorageErrorKind::Io, message)));
            }
            thread::sleep(UNDO_AGAIN);
        }
    }

    fn cut(&mut self, connection: &Connection) -> Result<()> {
        roll_back(connection);
        let before = data_version(connection)?;
        let pages = checkpoint(connection, "NOOP")?.pages;
        // Nobody else writes while the log is cut, and nobody has since it was measured.
        execute(connection, "BEGIN IMMEDIATE")?;
        let mut cut = || {
            if data_version(connection)? != before {
                return Err(storage(StorageErrorKind::Busy, "another program has just written"));
            }
            let (log, end) = (beside(&self.path, "-wal"), self.bytes_of(pages));
            let mut cut = || {
                if !self.is_cutting && !goes_on(&File::open(&log)?, end)? {
                    return Ok(());
                }
                self.is_cutting = true;
                let file = OpenOptions::new().write(true).open(&log)?;
                if file.metadata()?.len() > end {
                    file.set_len(end)?;
                }
                file.sync_all()?;
                self.is_cutting = false;
                Ok(())
            };
            cut().map_err(|error| cannot_open(&log, &error))
        };
        let done = cut();
        roll_back(connection);
        done?;
        LOG_PAGES.set(pages);
        Ok(())
    }

    /// Leaves the file as it has to be left.
    pub(super) fn end(&mut self, connection: &Connection) {
        let Some(Error::Storage(error)) = &self.failed else {
            // At its close SQLite copies the log and removes it, unless somebody still reads. It syncs all of that.
            let _ = connection.pragma_update(None, "synchronous", "normal");
            let _ = self.mark_last(connection);
            return;
        };
        // SQLite goes by names: at its close it would copy the log into a file that is another one's by now, and
        // remove a log that may be another one's.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        let is_changed = self.guard.is_in_place() && self.guard.check().is_ok();
        if error.kind == StorageErrorKind::Moved && !is_changed && self.guard.is_named() {
            // What is only in the log would not be found with the file.
            let _ = checkpoint(connection, "TRUNCATE");
        }
    }
}

const MARK_BYTES: usize = 16;

/// Whether SQLite would read on behind the end of a log: what is there has the salt of this log, and not that of an
/// earlier one over which it is written.
fn goes_on(log: &File, end: u64) -> io::Result<bool> {
    let mut salt = [0; 8];
    let mut next = [0; 8];
    let read = |offset, bytes: &mut [u8]| match log.read_exact_at(bytes, offset) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    };
    let frame = end.max(LOG_HEADER_BYTES);
    Ok(read(16, &mut salt)? && read(frame + 8, &mut next)? && salt == next)
}

fn note_pages(_: &Wal, pages: i32) -> rusqlite::Result<()> {
    LOG_PAGES.set(pages.max(0).cast_unsigned());
    Ok(())
}

/// What the system has refused may have been written all the same.
fn is_refused_by_system(error: &Error) -> bool {
    match error {
        Error::Storage(error) => !matches!(
            error.kind,
            StorageErrorKind::Record | StorageErrorKind::Busy | StorageErrorKind::Moved
        ),
        _ => false,
    }
}

fn is_full(error: &Error) -> bool {
    matches!(error, Error::Storage(error) if error.kind == StorageErrorKind::Full)
}

fn checkpoint(connection: &Connection, mode: &str) -> Result<Checkpoint> {
    let mut done = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    let number = |found: i64| u32::try_from(found).unwrap_or(0);
    let done = done.query_row((), |row| {
        Ok(Checkpoint {
            is_busy: row.get::<_, i64>(0)? != 0,
            pages: number(row.get(1)?),
            copied: number(row.get(2)?),
        })
    })?;
    Ok(done)
}

fn data_version(connection: &Connection) -> Result<i64> {
    let mut version = connection.prepare_cached("PRAGMA data_version")?;
    Ok(version.query_row((), |row| row.get(0))?)
}

fn roll_back(connection: &Connection) {
    if !connection.is_autocommit() {
        let _ = execute(connection, "ROLLBACK");
    }
}

fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute(())?;
    Ok(())
}

/// Checks a file whose last engine did not come to its end, as far as half a second goes: about 200 MiB of a file
/// that is in memory.
pub(super) fn check_soundness(connection: &Connection) -> Result<()> {
    let deadline = Instant::now() + CHECK_TIME;
    connection.progress_handler(1_000, Some(move || Instant::now() >= deadline))?;
    let found = connection.query_row("PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0));
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => {
            let found = found.replace('\n', " ");
            let message =
                format!("its last engine did not come to its end, and it is damaged: {found}");
            Err(storage(StorageErrorKind::Corrupt, message))
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

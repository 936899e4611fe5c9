//! The writing thread's care for the file itself, between one commit and the next: it keeps the log short, takes
//! refused commits out of the log, and notices when the file is not the engine's any more.

use std::cell::Cell;
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode};

use crate::error::{Error, Result, StorageErrorKind};
use crate::files::{beside, open_regular};
use crate::metrics::Meters;
use crate::panics::tell;

use super::cause::{self, cannot_open};
use super::connection::{BUSY_MS, execute, roll_back};
use super::custody::{self, Mark, Marks};
use super::guard::{Guard, moved};
use super::log::{self, Copied, Index};
use super::storage;

/// A checkpoint is made each 16 MiB of log: this takes fewer syncs than SQLite's 4 MiB, and such a log is still
/// read back quickly.
const CHECKPOINT_BYTES: u64 = 16 << 20;
/// The log may stay as long as this while little is written. A longer log is cut.
const CALM_BYTES: u64 = 4 << 20;
/// A log longer than this is cut when it begins anew. Writing over a shorter log is cheaper.
const CUT_BYTES: u64 = 32 << 20;
/// Pages of log between two looks at the free room on the disk.
const ROOM_PAGES: u32 = 64;
/// Pages of log between two looks. If fewer are written, the log is calm.
const CALM_PAGES: u32 = 128;
/// The longest wait of writes for readers of the log. Most readers end within a millisecond.
const READERS_TIME: Duration = Duration::from_millis(100);
/// Writes wait no longer for a reader that has held the log for this long.
const HELD_AFTER: Duration = Duration::from_secs(2);
/// The time between two tries while readers hold the log.
const TRY_AGAIN: Duration = Duration::from_millis(250);
/// The host is told if a reader has held the log for this long.
const HELD_LONG: Duration = Duration::from_secs(60);
/// The time between two looks at the file, so that its absence is noticed within a second.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The longest time for tries to take a refused commit out of the log. After that the engine ends.
const UNDO_TIME: Duration = Duration::from_secs(5);
const UNDO_AGAIN: Duration = Duration::from_millis(100);
/// The longest time that a check may add to the opening of a file.
const CHECK_TIME: Duration = Duration::from_millis(500);

/// Looks at a file and its log in a row. Another program may disturb each of them.
const LOOKS_MAX: usize = 16;

thread_local! {
    /// Pages of log as of the last commit on this thread.
    static LOG_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// The state of the log and of the file.
pub(super) struct Upkeep {
    path: PathBuf,
    guard: Guard,
    meters: Arc<Meters>,
    /// The number of this engine. The file has this number as long as it is this engine's.
    engine: i64,
    marks: Marks,
    /// Whether the next transaction may be the first of a log, and has to write the mark.
    begins: bool,
    page_bytes: u64,
    page_of_mark: u32,
    /// Pages of log right after a mark was written; `None` once a commit has followed.
    marked_at: Option<u32>,
    /// Pages that the log's file holds.
    file_pages: u32,
    /// Pages of log at which the next look is due.
    look_at: u32,
    try_at: Instant,
    looked_at: Instant,
    /// Pages of log at the last look, or zero if the log has begun anew since.
    pages_then: u32,
    /// Pages of logs that have begun anew since the last look, as far as they were written since.
    pages_left: u32,
    held: Option<Held>,
    /// Whether the log has been cut without a sync since.
    is_cutting: bool,
    /// The file as it was at the last look.
    seen: Option<Seen>,
    /// Whether a checkpoint of another program was seen, after which the file has had no mark.
    was_copied: bool,
    /// Why the engine must not go on; `None` as long as it may.
    failed: Option<Error>,
}

/// A log that readers keep from beginning anew.
struct Held {
    since: Instant,
    /// Pages of the log that were in the file by then.
    copied: u32,
    is_told: bool,
}

/// The file and its log at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    written: (i64, i64),
    print: Print,
    /// How far the log has been copied into the file.
    copied: Copied,
    /// Pages of the database, including pages in the log.
    pages: u32,
    /// Frames that are committed in the log, and frames that its file has room for.
    frames: u32,
    file_frames: u32,
    /// Whether the log agrees with the memory that connections share.
    has_its_log: bool,
    /// Whether the file has the page that was copied last, as far as that can be told.
    has_its_copy: bool,
}

/// Bytes that distinguish the states of one file from other files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Print {
    /// The header of a database; zeros if the file is shorter.
    header: [u8; HEADER_BYTES],
    /// `None` if the page of the mark is not in the file itself yet.
    mark: Option<Mark>,
}

const HEADER_BYTES: usize = 100;
/// The place of the counter of changes in the header.
const CHANGES_AT: usize = 24;

impl Print {
    /// Returns whether this can be a later state of the same file: the constant parts of the header are the same, and
    /// the counter of changes has not gone back.
    fn can_follow(&self, earlier: &Self) -> bool {
        let since = self.changes().wrapping_sub(earlier.changes());
        self.header[..CHANGES_AT] == earlier.header[..CHANGES_AT] && since <= u32::MAX / 2
    }

    fn changes(&self) -> u32 {
        log::big_endian(&self.header, CHANGES_AT)
    }

    /// Returns the number of pages of the file, as its header says.
    fn pages(&self) -> u32 {
        const PAGES_AT: usize = 28;
        const PAGES_ARE_AS_OF: usize = 92;
        match log::big_endian(&self.header, PAGES_ARE_AS_OF) == self.changes() {
            true => log::big_endian(&self.header, PAGES_AT),
            false => 0,
        }
    }
}

/// The result of a checkpoint.
struct Checkpoint {
    is_busy: bool,
    pages: u32,
    copied: u32,
}

impl Upkeep {
    /// Begins the care for an open file, whose log is as the last engine has left it.
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
        let mut upkeep = Self {
            path,
            guard,
            meters,
            engine,
            marks: Marks::after(mark),
            begins: false,
            page_bytes,
            page_of_mark,
            marked_at: None,
            file_pages: 0,
            look_at: 0,
            try_at: now,
            looked_at: now,
            pages_then: 0,
            pages_left: 0,
            held: None,
            is_cutting: false,
            seen: None,
            was_copied: false,
            failed: None,
        };
        upkeep.guard.know_log()?;
        upkeep.know_marks();
        let found = checkpoint(connection, "NOOP")?;
        upkeep.file_pages = found.pages;
        LOG_PAGES.set(found.pages);
        upkeep.check()?;
        connection.wal_hook(Some(note_pages));
        // An engine that did not come to its end has left a long log. Copying it into the file makes room on
        // a full disk.
        // After a crash SQLite does not know how much of the log is in the file.
        let is_unknown = upkeep.seen.as_ref().is_some_and(|seen| seen.copied.is_under_way());
        let is_large = upkeep.bytes_of(found.pages) > CALM_BYTES;
        if is_unknown || is_large || upkeep.is_short_of_room(found.pages) {
            let _ = upkeep.begin_anew(connection, true, READERS_TIME);
        }
        upkeep.pages_then = LOG_PAGES.get();
        Ok(upkeep)
    }

    /// Notes the marks in file and log. If the system refuses to read a mark, the mark is left out.
    fn know_marks(&mut self) {
        let of_log = self.guard.log().map(|(log, _)| custody::marks_in(log, self.page_of_mark));
        let of_log = of_log.and_then(io::Result::ok).unwrap_or_default();
        self.marks.know(of_log.into_iter().map(|(mark, _)| mark));
        let of_file = self.look().ok().flatten().and_then(|seen| seen.print.mark);
        self.marks.know(of_file);
    }

    /// Moves the state of the log to this thread, which writes from now on.
    pub(super) fn move_here(&self) {
        LOG_PAGES.set(self.pages_then);
    }

    /// Prepares a transaction that has begun.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Moved`] if another engine has the file.
    pub(super) fn enter(&mut self, connection: &Connection) -> Result<()> {
        if !custody::check_engine(connection, self.engine)? {
            return Err(self.fail(custody::taken_over()));
        }
        if self.begins {
            custody::write_mark(connection, self.marks.stored().first())?;
        }
        Ok(())
    }

    /// Checks before a commit that the file and its log are where every process will look for them.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Moved`] if they are not.
    pub(super) fn before_commit(&mut self, starts_something: bool) -> Result<()> {
        match starts_something {
            true => self.guard.check().map_err(|error| self.fail(error)),
            false => Ok(()),
        }
    }

    /// Returns why the engine must not go on; `None` if it may.
    pub(super) fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed.get_or_insert(error).clone()
    }

    /// Does the work that is due after a commit.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        self.begins = false;
        let pages = LOG_PAGES.get();
        self.file_pages = self.file_pages.max(pages);
        if self.looked_at.elapsed() >= LOOK_EVERY {
            self.look_around(connection);
        }
        if pages >= self.look_at {
            self.keep_short(connection, pages);
        }
    }

    /// Does the work that is due while no write comes.
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
        // If this fails now, it is tried again later, and writes go on.
        if self.begin_anew(connection, cuts, patience).is_err() || self.held.is_some() {
            self.try_at = Instant::now() + TRY_AGAIN.max(now.elapsed() * 2);
        }
    }

    /// Returns whether the disk will soon lack the room to copy the log into the file.
    fn is_short_of_room(&self, pages: u32) -> bool {
        let room = cause::room(&self.path).unwrap_or(u64::MAX);
        pages > 0 && self.bytes_of(pages).saturating_mul(2) > room
    }

    fn bytes_of(&self, pages: u32) -> u64 {
        log::bytes_of(pages, self.page_bytes)
    }

    fn is_held(&self) -> bool {
        self.held_for().is_some_and(|time| time >= HELD_AFTER)
    }

    fn held_for(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.since.elapsed())
    }

    /// Lets the log begin anew, if no reader holds it. With `cuts` its file is cut too.
    fn begin_anew(
        &mut self,
        connection: &Connection,
        cuts: bool,
        patience: Duration,
    ) -> Result<()> {
        // Without the check the log of this file could be copied into another file.
        self.check()?;
        if self.was_copied {
            self.marked_at = None;
        }
        connection.busy_timeout(patience)?;
        let done = self
            .mark_last(connection)
            .and_then(|()| checkpoint(connection, if cuts { "TRUNCATE" } else { "RESTART" }));
        connection.busy_timeout(Duration::from_millis(BUSY_MS.cast_unsigned()))?;
        self.check()?;
        let done = done?;
        self.was_copied = false;
        self.note_reach(&done);
        if !done.is_busy {
            self.held = None;
            self.pages_left = self.pages_since_look();
            LOG_PAGES.set(0);
            // The new log is empty, so it needs no mark at its end yet.
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
        let mark = self.marks.draw();
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
                // A full disk takes no mark. Without a mark, the next log cannot be told from the log of an earlier
                // state; but without the checkpoint the disk would get no room.
                return match is_full(&error) {
                    true => Ok(()),
                    false => Err(error),
                };
            }
            return Err(error);
        }
        self.marks.store(mark);
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
            // The readers have changed, because more pages could be copied.
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

    /// Looks at the file, and cuts the log if the log is calm.
    fn look_around(&mut self, connection: &Connection) {
        self.looked_at = Instant::now();
        if self.check().is_err() {
            return;
        }
        let is_calm = self.pages_since_look() < CALM_PAGES;
        (self.pages_then, self.pages_left) = (LOG_PAGES.get(), 0);
        if self.was_copied {
            // Otherwise two states of the file would have the same mark.
            let _ = self.begin_anew(connection, false, Duration::ZERO);
        }
        if is_calm && self.bytes_of(self.file_pages) > CALM_BYTES {
            let patience = if self.is_held() { Duration::ZERO } else { READERS_TIME };
            let _ = self.begin_anew(connection, true, patience);
        }
        self.meters.log_is(self.bytes_of(self.file_pages), self.held_for());
    }

    /// Returns how many pages of log were written since the last look.
    fn pages_since_look(&self) -> u32 {
        self.pages_left.saturating_add(LOG_PAGES.get().saturating_sub(self.pages_then))
    }

    /// Checks that file and log are where they were, and that their state follows from the state at the last look. If
    /// not, the engine ends. If the system refuses a look, the next look decides.
    fn check(&mut self) -> Result<()> {
        match self.try_check() {
            Err(Error::Storage(error)) if error.kind == StorageErrorKind::Moved => {
                Err(self.fail(Error::Storage(error)))
            }
            _ => Ok(()),
        }
    }

    fn try_check(&mut self) -> Result<()> {
        self.guard.check()?;
        let Some(mut now) = self.look()? else { return Ok(()) };
        if !self.follows(&mut now) {
            // The other program may still be writing, and a page may be half written. So a second look decides.
            match self.look()? {
                Some(again) if again == now => {}
                _ => return Ok(()),
            }
            let me = std::process::id();
            let what = if now.has_its_log { "it" } else { "its log" };
            let message =
                format!("another program has written over {what} while process {me} works on it");
            return Err(moved(message));
        }
        let is_same_log = |seen: &Seen| (seen.copied, seen.frames) == (now.copied, now.frames);
        if !self.seen.as_ref().is_some_and(is_same_log) {
            LOG_PAGES.set(now.frames);
        }
        self.was_copied |= self.seen.as_ref().is_some_and(|seen| {
            let is_next = seen.frames == 0 || seen.copied.is_of(seen.frames);
            seen.copied != now.copied && !(is_next && now.copied.begins_after(seen.copied))
        });
        self.file_pages = now.file_frames.max(LOG_PAGES.get());
        self.seen = Some(now);
        Ok(())
    }

    /// Returns whether checkpoints alone can have led to this state of the file. Other programs make checkpoints too.
    fn follows(&mut self, now: &mut Seen) -> bool {
        let Some(seen) = &self.seen else { return now.has_its_log };
        // All pages that the header counts have been copied, except pages that the database has lost since.
        let pages = now.print.pages().min(now.pages);
        let is_cut = now.bytes < u64::from(pages) * self.page_bytes;
        if !now.has_its_log || !now.has_its_copy || (is_cut && !now.copied.is_under_way()) {
            return false;
        }
        if now.print == seen.print && now.bytes >= seen.bytes {
            // The time of the file was set, or pages were copied that do not show here.
            return true;
        }
        if (now.copied == seen.copied && !now.copied.is_under_way())
            || !now.print.can_follow(&seen.print)
        {
            return false;
        }
        let least = seen.print.mark.and_then(|mark| self.marks.ordinal(mark));
        let is_later = |mark| {
            self.marks
                .ordinal(mark)
                .is_some_and(|ordinal| least.is_none_or(|least| least <= ordinal))
        };
        match now.print.mark {
            Some(mark) if is_later(mark) => return true,
            None if seen.print.mark.is_none() => return true,
            _ => {}
        }
        // VACUUM moves tables to other pages.
        match custody::look_for_mark(&self.path) {
            Ok(Some((mark, page))) if is_later(mark) => {
                self.page_of_mark = page;
                now.print.mark = Some(mark);
                true
            }
            _ => now.copied.is_under_way(),
        }
    }

    /// Looks at the file itself and at its log. Returns `None` if another program writes to them all the time.
    fn look(&self) -> Result<Option<Seen>> {
        let Some((log, shared)) = self.guard.log() else { return Ok(None) };
        let of_log = |error| cannot_open(&beside(&self.path, "-wal"), &error);
        let of_shared = |error| cannot_open(&beside(&self.path, "-shm"), &error);
        for _ in 0..LOOKS_MAX {
            let Some(index) = Index::read(shared).map_err(of_shared)? else { continue };
            let seen = self.look_once(index).map_err(|error| cannot_open(&self.path, &error))?;
            let has_its_log = index.is_of(log, self.page_bytes).map_err(of_log)?;
            let file_bytes = log.metadata().map_err(of_log)?.len();
            let is_changed = |then: &Seen| (then.bytes, then.written) != (seen.bytes, seen.written);
            let read = |page: &mut [u8], at| self.guard.read_at(at, page);
            let has_its_copy = match self.seen.as_ref().is_some_and(is_changed) {
                true => index.is_copied_into(read, log, self.page_bytes).map_err(of_log)?,
                false => None,
            };
            let has_its_copy = has_its_copy.unwrap_or(true);
            let after = Index::read(shared).map_err(of_shared)?;
            if after.is_some_and(|after| after.copied == index.copied) {
                let file_frames = log::frames_in(file_bytes, self.page_bytes);
                return Ok(Some(Seen { has_its_log, has_its_copy, file_frames, ..seen }));
            }
        }
        Ok(None)
    }

    fn look_once(&self, index: Index) -> io::Result<Seen> {
        let (bytes, written) = self.guard.state()?;
        let mut print = Print { header: [0; HEADER_BYTES], mark: None };
        if bytes >= HEADER_BYTES as u64 {
            self.guard.read_at(0, &mut print.header)?;
        }
        let end = u64::from(self.page_of_mark) * self.page_bytes;
        if bytes >= end {
            let mut page = vec![0; usize::try_from(self.page_bytes).unwrap_or_default()];
            self.guard.read_at(end - self.page_bytes, &mut page)?;
            print.mark = Mark::of_page(&page);
        }
        let Index { copied, frames, pages, .. } = index;
        let (file_frames, has_its_log, has_its_copy) = (frames, true, true);
        Ok(Seen {
            bytes,
            written,
            print,
            copied,
            pages,
            frames,
            file_frames,
            has_its_log,
            has_its_copy,
        })
    }

    /// Takes a transaction that could not be committed out of the log, before any caller gets the error: its pages
    /// must not be found there after the end of the process.
    ///
    /// # Errors
    ///
    /// The error to return instead, if the fate of the transaction is not known.
    pub(super) fn after_failure(&mut self, connection: &Connection, error: &Error) -> Result<()> {
        if !is_refused_by_system(error) {
            return Ok(());
        }
        self.undo(connection)?;
        if is_full(error) {
            // The log is as large as before. Copying it into the file makes room.
            let _ = self.begin_anew(connection, true, Duration::ZERO);
        }
        Ok(())
    }

    /// Cuts the log behind its last commit.
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
        // No other process writes while the log is cut, and none has written since the log was measured.
        execute(connection, "BEGIN IMMEDIATE")?;
        let mut cut = || {
            if data_version(connection)? != before {
                return Err(storage(StorageErrorKind::Busy, "another program has just written"));
            }
            let (path, end) = (beside(&self.path, "-wal"), self.bytes_of(pages));
            let mut cut = || {
                let file = open_regular(OpenOptions::new().read(true).write(true), &path)?;
                if !self.is_cutting && !log::goes_on(&file, end)? {
                    return Ok(());
                }
                self.is_cutting = true;
                if file.metadata()?.len() > end {
                    file.set_len(end)?;
                }
                file.sync_all()?;
                self.is_cutting = false;
                Ok(())
            };
            cut().map_err(|error| cannot_open(&path, &error))
        };
        let done = cut();
        roll_back(connection);
        done?;
        LOG_PAGES.set(pages);
        Ok(())
    }

    /// Leaves the file in order at the end of the engine.
    pub(super) fn end(&mut self, connection: &Connection) {
        // A failure of the check is noted in `failed`, which the next lines read.
        let _ = self.check();
        let Some(Error::Storage(error)) = &self.failed else {
            // When the last connection closes, SQLite removes the log. A connection that only reads may be the last
            // and cannot copy the log, so the log is copied here. `normal` syncs this step too.
            let _ = connection.pragma_update(None, "synchronous", "normal");
            let _ = connection.busy_timeout(READERS_TIME);
            let _ = self.mark_last(connection).and_then(|()| checkpoint(connection, "TRUNCATE"));
            return;
        };
        // SQLite goes by names. At its close it could copy the log into a file that belongs to another engine by now,
        // and remove another engine's log.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        let is_changed = self.guard.is_in_place() && self.guard.check().is_ok();
        if error.kind == StorageErrorKind::Moved && !is_changed && self.guard.is_named() {
            // Commits that are only in the log would not be found with the moved file.
            let _ = checkpoint(connection, "TRUNCATE");
        }
    }
}

fn note_pages(_: &Wal, pages: i32) -> rusqlite::Result<()> {
    LOG_PAGES.set(pages.max(0).cast_unsigned());
    Ok(())
}

/// Returns whether the system has refused a step. The pages may have been written all the same.
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

/// Checks a file whose last engine did not come to its end, for half a second at most: about 200 MiB of a cached
/// file.
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use rusqlite::OpenFlags;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::super::{connection, lock, migrate};
    use super::*;
    use crate::config::Durability;

    /// The events for the host, by level.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<tracing::Level>>>);

    impl Subscriber for Told {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            self.0.lock().expect("no panic").push(*event.metadata().level());
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    fn open(path: &Path) -> (Connection, Upkeep) {
        let lock = lock::Lock::take(path).expect("nobody has it");
        lock::create_private(path).expect("made");
        let guard = Guard::take(path, &lock).expect("nobody has it");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut writer = Connection::open_with_flags(path, flags).expect("a file");
        connection::set_up_writer(&writer, Durability::Full).expect("set up");
        let engine = custody::new_engine();
        let mark = migrate::migrate(&mut writer, engine).expect("the tables");
        let meters = Arc::new(Meters::default());
        let upkeep = Upkeep::begin(&writer, guard, path.to_owned(), meters, (engine, mark));
        (writer, upkeep.expect("a file of its own"))
    }

    #[test]
    fn the_host_is_told_once_of_a_reader_that_holds_the_log_for_long() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let (writer, mut upkeep) = open(&path);
        let write = |upkeep: &mut Upkeep| {
            writer
                .execute_batch("CREATE TABLE IF NOT EXISTS t (x); INSERT INTO t VALUES (1)")
                .expect("sound SQL");
            upkeep.begin_anew(&writer, true, Duration::ZERO).expect("nothing is wrong");
        };
        let reader = Connection::open(&path).expect("a file");
        reader.execute_batch("BEGIN; SELECT count(*) FROM meta").expect("a snapshot");
        let told = Told::default();
        let heard = || told.0.lock().expect("no panic").clone();
        tracing::subscriber::with_default(told.clone(), || {
            write(&mut upkeep);
            assert!(heard().is_empty());
            let held = upkeep.held.as_mut().expect("a reader holds it");
            held.since = held.since.checked_sub(HELD_LONG).expect("the machine runs longer");
            (0..3).for_each(|_| write(&mut upkeep));
            assert_eq!(heard(), [tracing::Level::WARN]);
            reader.execute_batch("COMMIT").expect("it ends");
            write(&mut upkeep);
        });
        assert!(upkeep.held.is_none());
        assert_eq!(std::fs::metadata(beside(&path, "-wal")).expect("it is there").len(), 0);
        assert!(upkeep.failed().is_none(), "{:?}", upkeep.failed());
    }
}

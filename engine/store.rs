//! The database: the only module that speaks SQL.
//!
//! All writes go through one thread, which commits writes together if they wait together. A few other threads read,
//! each on a connection that cannot write. One process at a time runs a file; this process holds the lock beside the
//! file. Other processes may read.

pub(crate) mod aside;
mod cache;
mod cause;
pub(crate) mod claims;
pub(crate) mod client_tokens;
pub(crate) mod commands;
pub(crate) mod commit_gate;
mod connection;
mod contents;
mod custody;
pub(crate) mod days;
pub(crate) mod deadlines;
pub(crate) mod deliveries;
pub(crate) mod executions;
pub(crate) mod fires;
pub(crate) mod firing;
mod guard;
pub(crate) mod host;
pub(crate) mod instances;
pub(crate) mod invocations;
mod lock;
mod log;
mod look;
mod machine;
mod memory;
pub(crate) mod meta;
mod migrate;
mod outputs;
pub(crate) mod overview;
mod readers;
pub(crate) mod records;
mod results;
mod running;
pub(crate) mod selections;
pub(crate) mod snapshots;
mod standings;
pub(crate) mod stop;
mod strict;
mod sync;
mod tags;
pub(crate) mod targets;
pub(crate) mod timers;
mod tx;
mod upkeep;
pub(crate) mod waits;
pub(crate) mod waves;
mod writer;

use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, params_from_iter};

use crate::clock::{Clock, Steady, now_ms};
use crate::config::Durability;
use crate::ending::Ending;
use crate::error::{EngineEnd, Error, Result, StorageError, StorageErrorKind, Violation};
use crate::metrics::Meters;
use crate::metrics::tally::Tally;
use crate::panics::tell;
use crate::wire::UnreadableRecord;
use aside::Aside;
use commit_gate::CommitGate;
use guard::Guard;
pub use host::{HostError, HostTransaction};
use lock::Lock;
use look::Look;
use memory::Memory;
pub(crate) use readers::ReadLane;
use readers::Readers;
use strict::Folder;
pub(crate) use tx::Tx;
use upkeep::Upkeep;
use writer::{Lane, Writer};

/// Where the database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    File(PathBuf),
    Memory,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub(crate) struct StoreOptions {
    pub location: Location,
    pub read_only: bool,
    /// Whether other users must not be able to change the file.
    pub is_strict: bool,
    /// Whether the engine starts executions.
    pub starts: bool,
    /// Whether a file that was run on another machine is taken over.
    pub adopts: bool,
    pub durability: Durability,
    pub readers_max: u32,
}

/// An open database. Its parts end in this order: readers, writer, lock.
#[derive(Debug)]
pub(crate) struct Store {
    path: Option<Arc<Path>>,
    readers: Option<Readers>,
    writer: Option<Writer>,
    meters: Arc<Meters>,
    ending: Arc<Ending>,
    /// When the host was last told of refused writes, by the monotonic clock.
    told_at: Mutex<Option<Duration>>,
    /// The steady clock, which measures waits of a duration.
    waits: waits::Shared,
    /// The rows that steps of the scheduler pass over.
    aside: Arc<Aside>,
    /// `None` if this engine holds no lock, or has given it up.
    lock: Mutex<Option<Lock>>,
}

/// The shortest time between two reports to the host about writes that are tried again until the disk takes them.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Store {
    /// Returns a new database in memory, which one engine can run.
    #[cfg(test)]
    fn in_memory() -> Self {
        let options = StoreOptions {
            location: Location::Memory,
            read_only: false,
            is_strict: true,
            starts: true,
            adopts: false,
            durability: Durability::Full,
            readers_max: 1,
        };
        Self::open(&options).expect("memory")
    }

    /// Opens the database, creates or upgrades its tables. Blocks.
    pub(crate) fn open(options: &StoreOptions) -> Result<Self> {
        match &options.location {
            Location::Memory => {
                let mut connection = Connection::open_in_memory()?;
                connection::set_up_memory(&connection)?;
                migrate::migrate(&mut connection, custody::new_engine())?;
                let meters = Arc::new(Meters::beginning_with(0));
                let ending = Arc::<Ending>::default();
                let writer = Writer::start(
                    connection,
                    None,
                    None,
                    Arc::clone(&meters),
                    Arc::clone(&ending),
                )?;
                let writer = Some(writer);
                Ok(Self {
                    path: None,
                    readers: None,
                    writer,
                    meters,
                    ending,
                    told_at: Mutex::default(),
                    waits: Arc::default(),
                    aside: Arc::default(),
                    lock: Mutex::default(),
                })
            }
            Location::File(path) => {
                let path: Arc<Path> =
                    lock::canonical(path).map_err(|error| at(error, path))?.into();
                let opened = if options.read_only {
                    Self::open_reader(&path, options)
                } else {
                    Self::open_owner(&path, options)
                };
                opened.map_err(|error| at(error, &path))
            }
        }
    }

    fn open_owner(path: &Arc<Path>, options: &StoreOptions) -> Result<Self> {
        cause::check_descriptors()?;
        // Checked before any file is made beside it, and before SQLite reads any file.
        let folder = if options.is_strict { Some(Folder::open(path)?) } else { None };
        folder.as_ref().map_or(Ok(()), Folder::check)?;
        cause::check_companions(path)?;
        custody::check_file(path)?;
        let lock = Lock::take(path)?;
        let ending = Arc::<Ending>::default();
        match Self::open_locked(path, options, &ending, &lock, folder.as_ref()) {
            Ok((readers, writer, meters)) => {
                lock.leaves(true);
                Ok(Self {
                    path: Some(Arc::clone(path)),
                    readers: Some(readers),
                    writer: Some(writer),
                    meters,
                    ending,
                    told_at: Mutex::default(),
                    waits: Arc::default(),
                    aside: Arc::default(),
                    lock: Mutex::new(Some(lock)),
                })
            }
            Err(error) => {
                lock.withdraw();
                Err(error)
            }
        }
    }

    fn open_locked(
        path: &Arc<Path>,
        options: &StoreOptions,
        ending: &Arc<Ending>,
        lock: &Lock,
        folder: Option<&Folder>,
    ) -> Result<(Readers, Writer, Arc<Meters>)> {
        lock::create_private(path)?;
        lock::check_links(path)?;
        let guard = Guard::take(path, lock)?;
        let found = guard.metadata().map_err(|error| cause::cannot_open(path, &error))?;
        lock.share_like(&found);
        if folder.is_some_and(|folder| folder.shows(found.mode())) {
            let (file, mode) = (path.display(), found.mode() & 0o7777);
            tell(|| {
                tracing::warn!(
                    %file,
                    mode = %format_args!("{mode:04o}"),
                    "other users can read the scripts in the file and what they print; `chmod 600` keeps it private, \
                     and an engine without strict modes does not say this"
                );
            });
        }
        let folder = folder.filter(|folder| folder.is_open_to_others());
        let held = folder.map_or(Ok(None), Folder::hold_journal)?;
        if custody::has_foreign_log(path)? {
            let aside = custody::set_aside(path)?;
            let (file, log) = (path.display(), aside.display());
            tell(|| {
                tracing::warn!(
                    %file, %log,
                    "the journal beside the file goes with another state of it, and was set aside: another copy of \
                     the file has been put in its place"
                );
            });
        }
        // One of these traces may be missing, if a user has copied one file without the other.
        let is_left = lock.was_left() || connection::has_log(path);
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        // If the opening fails, nothing of a log that another user may have made is copied into the file.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, folder.is_some())?;
        // Checked again, because another program may have made the file since.
        migrate::check_ownership(&connection)?;
        connection::set_up_writer(&connection, options.durability)?;
        if let Some(folder) = folder {
            // SQLite has opened all of its files by now, and nobody else can replace files of this user.
            folder.check()?;
            drop(held);
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        }
        if is_left {
            upkeep::check_soundness(&connection)?;
        }
        let opening = Memory::of_reader();
        if options.starts && !options.adopts {
            machine::check(Tx::new(&connection, &opening))?;
        }
        let engine = custody::new_engine();
        let mark = migrate::migrate(&mut connection, engine)?;
        if options.starts {
            machine::note(Tx::new(&connection, &opening))?;
        }
        let readers = Readers::new(path, true, options.readers_max, ending);
        let meters =
            Arc::new(Meters::beginning_with(fires::unended(Tx::new(&connection, &opening))?));
        let counts = Arc::clone(&meters);
        let upkeep = Upkeep::begin(&connection, guard, path.to_path_buf(), counts, (engine, mark))?;
        let (counts, ending, known_as) =
            (Arc::clone(&meters), Arc::clone(ending), Some(Arc::clone(path)));
        let writer = Writer::start(connection, Some(upkeep), known_as, counts, ending)?;
        Ok((readers, writer, meters))
    }

    fn open_reader(path: &Arc<Path>, options: &StoreOptions) -> Result<Self> {
        if !path.exists()
            && let Some(holder) = lock::holder(path)
        {
            let holder =
                holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
            return Err(guard::moved(format!("it is gone while {holder} works on it")));
        }
        if options.is_strict {
            strict::check_log(path)?;
        }
        cause::check_companions(path)?;
        lock::check_links(path)?;
        custody::check_file(path)?;
        migrate::check(&Look::at(path)?.connection)?;
        let ending = Arc::<Ending>::default();
        let readers = Readers::new(path, false, options.readers_max, &ending);
        Ok(Self {
            path: Some(Arc::clone(path)),
            readers: Some(readers),
            writer: None,
            meters: Arc::default(),
            ending,
            told_at: Mutex::default(),
            waits: Arc::default(),
            aside: Arc::default(),
            lock: Mutex::default(),
        })
    }

    /// Lets another engine run the file: closes readers, writer and lock, in this order. Writes that come later fail with
    /// the cause of the engine's end, and reads look at the file like another process. Blocks until the reads and writes
    /// that were asked for are done. A store in memory stays as it is, because nobody else can open it.
    pub(crate) fn release(&self) {
        if self.readers.is_some() {
            self.let_go(Readers::let_go);
        }
    }

    /// Closes the file. Reads and writes that come later fail with the cause of the engine's end.
    pub(crate) fn close(&self) {
        self.let_go(Readers::close);
    }

    fn let_go(&self, of_readers: fn(&Readers)) {
        // Held until the end, so that a second caller waits for it.
        let mut held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(readers) = &self.readers {
            of_readers(readers);
        }
        if let Some(writer) = &self.writer {
            writer.close();
        }
        let lock = held.take();
        if let (Some(EngineEnd::Storage(_)), Some(lock)) = (self.ending.cause(), &lock) {
            lock.leaves(false);
        }
    }

    /// Where what is written is counted.
    pub(crate) fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// Returns the gate that the starts of executions pass.
    pub(crate) fn gate(&self) -> Arc<CommitGate> {
        self.writer.as_ref().map_or_else(Arc::default, |writer| Arc::clone(writer.gate()))
    }

    /// Returns the rows that steps of the scheduler pass over.
    pub(crate) fn aside(&self) -> &Arc<Aside> {
        &self.aside
    }

    /// Returns the end of the engine, which holds its cause.
    pub(crate) fn ending(&self) -> &Arc<Ending> {
        &self.ending
    }

    /// Tells the host of a write that is tried again, unless the host has just been told of one, because a full disk
    /// refuses all loops of the engine every second. `now` is an instant of the monotonic clock.
    pub(crate) fn tell_refused(&self, now: Duration, error: &Error, what: &str) {
        let mut told_at = self.told_at.lock().unwrap_or_else(PoisonError::into_inner);
        if told_at.is_some_and(|told_at| now.saturating_sub(told_at) < TELL_EVERY) {
            return;
        }
        *told_at = Some(now);
        drop(told_at);
        tell(|| tracing::error!(%error, "{what}"));
    }

    /// Measures waits of a duration by a clock from now on.
    pub(crate) async fn follow(&self, clock: &Arc<dyn Clock>) -> Result<()> {
        let (clock, waits) = (Arc::clone(clock), Arc::clone(&self.waits));
        let resume = move |tx: Tx<'_>| {
            // An engine has one clock.
            let _ = waits.set(waits::resume(tx, clock)?);
            tx.memory.follow(waits);
            Ok(())
        };
        self.write_once(resume, |_| {}).await
    }

    /// Returns steady time, in milliseconds; the time of day of `clock` if the store follows no clock.
    pub(crate) fn steady_ms(&self, clock: &dyn Clock) -> i64 {
        self.waits.get().map_or_else(|| now_ms(clock), Steady::now_ms)
    }

    /// The database file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Runs `op` in a transaction and answers once it is on disk. If `op` fails, nothing of it is
    /// stored; others that share its commit are not touched. What it did may be undone before the
    /// commit, and `op` run again.
    pub(crate) async fn write<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.write_then(op, |_| {}).await
    }

    /// Does the same, and runs `then` right after the commit: also if the caller has been dropped
    /// by then, so that nothing is on disk that nobody acts on. It must not block.
    pub(crate) async fn write_then<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        self.writer()?.write(Lane::Requests, op, then).await
    }

    /// As [`write_then`](Self::write_then), ahead of the requests that wait: for the loops of the engine, and for
    /// stops.
    pub(crate) async fn write_first<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        self.writer()?.write(Lane::First, op, then).await
    }

    /// Does the same with what can be run only once, at the price of a savepoint.
    pub(crate) async fn write_once<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        self.writer()?.write_once(op, then).await
    }

    fn writer(&self) -> Result<&Writer> {
        let read_only = || storage(StorageErrorKind::ReadOnly, "it is open for reading only");
        self.writer.as_ref().ok_or_else(|| self.at(read_only()))
    }

    /// Runs `op` on one consistent view of the database, for the engine itself.
    pub(crate) async fn read<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.read_for(ReadLane::Own, op).await
    }

    /// Runs `op` on one consistent view of the database, in a lane of the readers' queue.
    pub(crate) async fn read_for<T, F>(&self, lane: ReadLane, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    {
        match &self.readers {
            Some(readers) => readers.read(lane, op).await.map_err(|error| self.at(error)),
            // A database in memory has one connection only.
            None => self.write_once(op, |_| {}).await,
        }
    }

    fn at(&self, error: Error) -> Error {
        match &self.path {
            Some(path) => at(error, path),
            None => error,
        }
    }
}

/// Does something within a transaction, and undoes all of it if it fails.
pub(crate) fn apart<T>(tx: Tx<'_>, op: impl FnOnce() -> Result<T>) -> Result<T> {
    in_savepoint(tx, op, false)
}

/// Does something within a transaction, and undoes all of it.
pub(crate) fn trial<T>(tx: Tx<'_>, op: impl FnOnce() -> Result<T>) -> Result<T> {
    in_savepoint(tx, op, true)
}

fn in_savepoint<T>(tx: Tx<'_>, op: impl FnOnce() -> Result<T>, is_trial: bool) -> Result<T> {
    tx.execute("SAVEPOINT apart", ())?;
    let counted = tx.memory.counts.so_far();
    let done = op();
    if done.is_err() && tx.is_undone() {
        // All of the transaction has been undone, this with it.
        return done;
    }
    if done.is_err() || is_trial {
        undo_to(tx, "apart", counted)?;
    }
    tx.execute("RELEASE apart", ())?;
    done
}

/// Undoes what has been done since a savepoint, when so much had been counted.
fn undo_to(tx: Tx<'_>, savepoint: &str, counted: Tally) -> Result<()> {
    tx.execute(&format!("ROLLBACK TO {savepoint}"), ())?;
    tx.memory.counts.back_to(counted);
    tx.memory.cache.forget_all();
    Ok(())
}

/// Names the file in an error of the database.
fn at(error: Error, path: &Path) -> Error {
    match error {
        Error::Storage(mut storage) => {
            if storage.path.is_none() {
                if std::mem::take(&mut storage.is_unexplained) {
                    cause::explain(&mut storage, path);
                }
                storage.path = Some(path.to_owned());
            }
            Error::Storage(storage)
        }
        other => other,
    }
}

fn storage(kind: StorageErrorKind, message: impl Into<String>) -> Error {
    Error::Storage(StorageError {
        kind,
        message: message.into(),
        path: None,
        is_unexplained: false,
    })
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let kind = match error.sqlite_error_code() {
            // The memory that connections share is a file too, and SQLite grows it before its first use.
            _ if extended_code(&error) == Some(SQLITE_IOERR_SHMSIZE) => StorageErrorKind::Full,
            Some(ErrorCode::CannotOpen) => StorageErrorKind::CannotOpen,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StorageErrorKind::ReadOnly,
            Some(ErrorCode::DiskFull) => StorageErrorKind::Full,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StorageErrorKind::Corrupt,
            Some(ErrorCode::SystemIoFailure) => StorageErrorKind::Io,
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted,
            ) => StorageErrorKind::Busy,
            Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig) => StorageErrorKind::Record,
            Some(_) => StorageErrorKind::Other,
            None => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                // Another record names it.
                | rusqlite::Error::QueryReturnedNoRows
                | rusqlite::Error::Utf8Error(..) => StorageErrorKind::Record,
                _ => StorageErrorKind::Other,
            },
        };
        let code = error.sqlite_error().map(|error| error.extended_code);
        let message = match code.and_then(cause::refused_step) {
            Some(step) => format!("{error}: {step}"),
            None => error.to_string(),
        };
        let is_unexplained = code.is_some();
        Self::Storage(StorageError { kind, message, path: None, is_unexplained })
    }
}

/// `SQLITE_IOERR | (19 << 8)`.
const SQLITE_IOERR_SHMSIZE: i32 = 4874;

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// A record that says what no version of this library writes.
fn unreadable(what: impl std::fmt::Display) -> Error {
    storage(StorageErrorKind::Record, format!("a record cannot be understood: {what}"))
}

/// Reads a text column into what it names.
fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(unreadable)
}

/// The place at which a listing goes on, an opaque text for the caller: the key of the last entry of the page before
/// and, if the listing shows the latest records, the newest record at the time of the first page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PageToken {
    key: i64,
    until: Option<i64>,
}

impl PageToken {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let number = |text| i64::from_str_radix(text, 16).ok();
        let token = match text.split_once('.') {
            None => number(text).map(|key| Self { key, until: None }),
            Some((key, until)) => {
                number(key).zip(number(until)).map(|(key, until)| Self { key, until: Some(until) })
            }
        };
        token.ok_or_else(|| {
            Error::invalid(Violation::new(
                "InvalidParameter.NextToken",
                400,
                "NextToken",
                format!("`{text}` is not the NextToken of a page; leave it out for the first page"),
            ))
        })
    }
}

impl std::fmt::Display for PageToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.until {
            None => write!(f, "{:x}", self.key),
            Some(until) => write!(f, "{:x}.{until:x}", self.key),
        }
    }
}

/// A part of a listing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    /// Where it goes on.
    pub after: Option<PageToken>,
    /// How many entries it leaves out first.
    pub skipped: usize,
    /// How many it has at most.
    pub size: usize,
    /// Whether all entries are counted.
    pub counts: bool,
}

/// The entries of a slice.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    pub entries: Vec<T>,
    /// The records of the slice that cannot be understood.
    pub unreadable: Vec<UnreadableRecord>,
    pub next: Option<PageToken>,
    /// How many there are in all, if they were to be counted.
    pub total: Option<u64>,
}

/// A listing: a query of rows whose first column is their key, and what narrows it.
#[derive(Debug)]
struct Query {
    columns: String,
    /// The sources of its rows; the rows of all ways are one listing.
    ways: Vec<Way>,
    /// The column of the key.
    key: &'static str,
    /// Whether the keys get larger from entry to entry.
    ascending: bool,
    /// The conditions of its rows, whichever way they come. A `?` takes the next of the values.
    conditions: Vec<String>,
    values: Vec<Value>,
    /// The newest record at the time of the first page, if that matters.
    until: Option<i64>,
    /// Returns the id of the record of a row, for reports of records that cannot be read.
    name: fn(&rusqlite::Row<'_>) -> Option<String>,
}

/// The tables of a listing's rows, each named by one letter, and the condition that picks the rows.
#[derive(Debug)]
struct Way {
    tables: String,
    condition: Option<String>,
    /// An order that is the same as the order of the keys, and that an index has.
    order: Option<&'static str>,
    /// The bound of that order if the listing goes on after the key `?key`.
    bound: Option<&'static str>,
}

impl Way {
    fn new(tables: &str, condition: Option<&str>) -> Self {
        let condition = condition.map(str::to_owned);
        Self { tables: tables.to_owned(), condition, order: None, bound: None }
    }
}

impl Query {
    /// Returns a query of all rows of these tables, the largest key first.
    fn new(columns: String, tables: &str, key: &'static str) -> Self {
        Self {
            columns,
            ways: vec![Way::new(tables, None)],
            key,
            ascending: false,
            conditions: Vec::new(),
            values: Vec::new(),
            until: None,
            name: |_| None,
        }
    }

    /// Narrows it by a column that has to have a value, if one is wanted.
    fn filter<T: Into<Value>>(&mut self, condition: &str, value: Option<T>) {
        if let Some(value) = value {
            self.conditions.push(condition.to_owned());
            self.values.push(value.into());
        }
    }

    /// Narrows it by a column that has to have one of these values.
    fn one_of<T: Into<Value>>(&mut self, column: &str, values: impl IntoIterator<Item = T>) {
        let before = self.values.len();
        self.values.extend(values.into_iter().map(Into::into));
        let places = vec!["?"; self.values.len() - before].join(", ");
        self.conditions.push(format!("{column} IN ({places})"));
    }

    /// Returns a way to its rows, as SQL with numbered values; each way takes the same values.
    fn from(&self, way: &Way, bound: Option<&String>) -> String {
        let own = way.condition.iter().chain(bound).map(String::as_str);
        let conditions: Vec<&str> = own.chain(self.conditions.iter().map(String::as_str)).collect();
        let conditions =
            if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
        let mut number = 0;
        let mut sql = format!("FROM {} WHERE ", way.tables);
        let mut rest = conditions.as_str();
        while let Some((before, after)) = rest.split_once('?') {
            sql.push_str(before);
            if after.starts_with(|next: char| next.is_ascii_digit()) {
                sql.push('?');
            } else {
                number += 1;
                sql.push_str(&format!("?{number}"));
            }
            rest = after;
        }
        sql + rest
    }

    fn count(&self, tx: Tx<'_>) -> Result<u64> {
        let mut total = 0u64;
        for way in &self.ways {
            let counted: u64 = tx.one(
                &format!("SELECT count(*) {}", self.from(way, None)),
                params_from_iter(&self.values),
                |row| row.get(0),
            )?;
            total = total.saturating_add(counted);
        }
        Ok(total)
    }

    /// Reads a slice of the listing. A record that cannot be understood is reported in its place.
    fn slice<T>(
        mut self,
        tx: Tx<'_>,
        slice: Slice,
        mut read: impl FnMut(&rusqlite::Row<'_>) -> Result<T>,
    ) -> Result<Listing<T>> {
        let total = if slice.counts { Some(self.count(tx)?) } else { None };
        let beyond = if self.ascending { ">" } else { "<" };
        let direction = if self.ascending { "ASC" } else { "DESC" };
        let mut last = slice.after.map(|token| token.key);
        if let Some(key) = last {
            self.conditions.push(format!("{} {beyond} ?", self.key));
            self.values.push(key.into());
        }
        let key = format!("?{}", self.values.len());
        let (limit, offset) = (self.values.len() + 1, self.values.len() + 2);
        // Each way is read as far as the slice can reach.
        let each = if self.ways.len() > 1 { offset + 1 } else { limit };
        let number = |n: usize| Value::from(i64::try_from(n).unwrap_or(i64::MAX));
        let size = slice.size.saturating_add(1);
        self.values.extend([number(size), number(slice.skipped)]);
        if each > offset {
            self.values.push(number(size.saturating_add(slice.skipped)));
        }
        let columns = &self.columns;
        let own_order = format!("{} {direction}", self.key);
        let ways = self.ways.iter().map(|way| {
            let bound =
                way.bound.filter(|_| last.is_some()).map(|bound| bound.replace("?key", &key));
            let order = way.order.unwrap_or(&own_order);
            let from = self.from(way, bound.as_ref());
            format!("SELECT {columns} {from} ORDER BY {order} LIMIT ?{each}")
        });
        let ways: Vec<_> = ways.collect();
        let sql = match ways.as_slice() {
            [way] => format!("{way} OFFSET ?{offset}"),
            ways => {
                let ways: Vec<_> =
                    ways.iter().map(|way| format!("SELECT * FROM ({way})")).collect();
                let ways = ways.join(" UNION ALL ");
                format!("{ways} ORDER BY 1 {direction} LIMIT ?{limit} OFFSET ?{offset}")
            }
        };
        let mut query = tx.prepare(&sql)?;
        let mut rows = query.query(params_from_iter(&self.values))?;
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        let mut next = None;
        let mut read_so_far = 0;
        while let Some(row) = rows.next()? {
            let key: i64 = row.get(0)?;
            let goes_on = |last: i64| if self.ascending { key > last } else { key < last };
            // In a damaged file a page may lead back to itself.
            if let Some(before) = last.filter(|last| !goes_on(*last)) {
                let message = format!("a listing has come from record {before} to record {key}");
                return Err(storage(StorageErrorKind::Corrupt, message));
            }
            if read_so_far == slice.size {
                next = last.map(|key| PageToken { key, until: self.until });
                break;
            }
            last = Some(key);
            read_so_far += 1;
            match read(row) {
                Ok(entry) => entries.push(entry),
                Err(error) if error.is_of_a_record() => {
                    let id = (self.name)(row).unwrap_or_else(|| format!("row {key}"));
                    unreadable.push(UnreadableRecord { id, error: error.to_string() });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Listing { entries, unreadable, next, total })
    }
}

/// Holds it against how many rows there are in a range that a statement was to change.
fn expect_all(changed: usize, rows: &RangeInclusive<i64>, what: &str) -> Result<()> {
    match rows.end() - rows.start() + 1 == changed as i64 {
        true => Ok(()),
        false => Err(Error::Internal(format!(
            "{changed} of the {what} {} to {} were in the state that they end from",
            rows.start(),
            rows.end()
        ))),
    }
}

#[cfg(test)]
mod gate_tests;
#[cfg(test)]
mod plans;

//! How a connection is set up. Every PRAGMA is read back: SQLite ignores what it does not know, and
//! a silent default is how durability gets lost.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::config::Durability;
use crate::error::{Result, StorageErrorKind};
use crate::files::beside;

use super::storage;

/// For locks that another program holds on the file, such as a backup.
pub(super) const BUSY_MS: i64 = 5_000;
/// Statements that stay prepared on a connection.
const STATEMENTS_MAX: usize = 128;

pub(super) fn set_up_writer(connection: &Connection, durability: Durability) -> Result<()> {
    keep_statements(connection)?;
    set(connection, "busy_timeout", BUSY_MS)?;
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        // Only possible before the first table, and before the journal is a WAL.
        set(connection, "auto_vacuum", 2)?;
    }
    set(connection, "journal_mode", "wal".to_owned())?;
    set(connection, "synchronous", synchronous(durability))?;
    set(connection, "foreign_keys", 1)?;
    set(connection, "trusted_schema", 0)?;
    // Savepoints keep their pages in memory, not in a file of their own.
    set(connection, "temp_store", 2)?;
    // A damaged page, or one that was made to mislead, is found before a cell is read.
    set(connection, "cell_size_check", 1)?;
    // 16 MiB: the hot ends of every table and index, not the whole file.
    set(connection, "cache_size", -16 * 1024)?;
    // The writing thread makes checkpoints itself (`upkeep`).
    set(connection, "wal_autocheckpoint", 0)?;
    Ok(())
}

/// Carries out a statement without parameters and rows.
pub(super) fn execute(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql)?.execute(())?;
    Ok(())
}

/// Ends a transaction that cannot be committed, if there is one. The caller reports the first error, so
/// errors here are ignored.
pub(super) fn roll_back(connection: &Connection) {
    if !connection.is_autocommit() {
        let _ = execute(connection, "ROLLBACK");
    }
}

/// Keeps statements prepared. Without the stability guarantee of the query planner SQLite looks at
/// the number bound to a LIMIT, and prepares the statement again each time one is bound.
fn keep_statements(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

const fn synchronous(durability: Durability) -> i64 {
    match durability {
        Durability::Full => 2,
        Durability::Relaxed => 1,
    }
}

pub(super) fn set_up_memory(connection: &Connection) -> Result<()> {
    keep_statements(connection)?;
    set(connection, "foreign_keys", 1)?;
    set(connection, "trusted_schema", 0)?;
    set(connection, "temp_store", 2)
}

const READ_ONLY: OpenFlags =
    OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// How a connection that only reads comes to its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// This process runs the file.
    Own,
    /// Another process may run the file. The memory that connections share exists, and is only read.
    Shared,
    /// No process writes, and the log is not read.
    Still,
    /// No other process has the file. Its log is read, but the memory that connections share cannot be had.
    Alone,
}

impl Access {
    /// What SQLite is to open, and how.
    fn target(self, path: &Path) -> (PathBuf, OpenFlags) {
        match self {
            Self::Own => (path.to_owned(), READ_ONLY),
            Self::Shared => (uri(path, "readonly_shm=1"), READ_ONLY | OpenFlags::SQLITE_OPEN_URI),
            Self::Still => (uri(path, "immutable=1"), READ_ONLY | OpenFlags::SQLITE_OPEN_URI),
            Self::Alone => (
                path.to_owned(),
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
            ),
        }
    }

    fn set_up(self, connection: &Connection) -> rusqlite::Result<()> {
        if self == Self::Alone {
            // In this mode SQLite has the index of the log in memory of its own, and leaves the log as it is.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.pragma_update(None, "locking_mode", "exclusive")?;
        }
        set_up_reader(connection)
    }
}

/// Returns the address of a file with a parameter for SQLite.
fn uri(path: &Path, parameter: &str) -> PathBuf {
    let mut uri = OsString::from("file:");
    uri.push(OsStr::from_bytes(&escaped(path)));
    uri.push("?");
    uri.push(parameter);
    uri.into()
}

/// Returns whether commits may wait in the log of a file.
pub(super) fn has_log(path: &Path) -> bool {
    std::fs::metadata(beside(path, "-wal")).is_ok_and(|found| found.len() > 0)
}

/// A path as part of a URI.
fn escaped(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'%' | b'?' | b'#' => escaped.extend(format!("%{byte:02x}").bytes()),
            _ => escaped.push(byte),
        }
    }
    escaped
}

/// A connection that cannot write.
pub(super) fn reader(path: &Path, access: Access) -> Result<Connection> {
    let (target, flags) = access.target(path);
    let open = || {
        let connection = Connection::open_with_flags(target, flags)?;
        access.set_up(&connection)?;
        Ok(connection)
    };
    open().map_err(|error| match error {
        // These words would otherwise end with the target, which may be an address with parameters.
        rusqlite::Error::SqliteFailure(error, _) if error.code == ErrorCode::CannotOpen => {
            let words = "unable to open database file".to_owned();
            rusqlite::Error::SqliteFailure(error, Some(words)).into()
        }
        error => error.into(),
    })
}

fn set_up_reader(connection: &Connection) -> rusqlite::Result<()> {
    keep_statements(connection)?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS.cast_unsigned()))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // What a sort needs stays in memory, not in a file in a folder of all users.
    connection.pragma_update(None, "temp_store", 2)?;
    connection.pragma_update(None, "cache_size", -4 * 1024)
}

fn set(connection: &Connection, pragma: &str, value: impl Into<Value>) -> Result<()> {
    let value = value.into();
    connection.pragma_update(None, pragma, &value)?;
    let actual: Value = connection.pragma_query_value(None, pragma, |row| row.get(0))?;
    if actual != value {
        let message = format!("PRAGMA {pragma} is {actual:?} after it was set to {value:?}");
        return Err(storage(StorageErrorKind::Other, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings are the promise of durability: these, and on the connection that writes.
    #[test]
    fn pragmas_are_as_promised() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let pragma = |connection: &Connection, name| -> Value {
            connection.pragma_query_value(None, name, |row| row.get(0)).expect(name)
        };
        let check = |durability, synchronous: i64| {
            let writer = Connection::open(&path).expect("a new file");
            set_up_writer(&writer, durability).expect("every pragma is taken");
            writer.execute_batch("CREATE TABLE IF NOT EXISTS t (x)").expect("writable");
            assert_eq!(pragma(&writer, "journal_mode"), Value::from("wal".to_owned()));
            assert_eq!(pragma(&writer, "synchronous"), Value::from(synchronous));
            assert_eq!(pragma(&writer, "foreign_keys"), Value::from(1));
            assert_eq!(pragma(&writer, "auto_vacuum"), Value::from(2));
        };
        check(Durability::Full, 2);
        check(Durability::Relaxed, 1);
        let reader = reader(&path, Access::Own).expect("it exists");
        assert_eq!(pragma(&reader, "query_only"), Value::from(1));
        assert_eq!(pragma(&reader, "temp_store"), Value::from(2));
        assert_eq!(pragma(&reader, "cell_size_check"), Value::from(1));
        let is_defensive = reader.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE);
        assert_eq!(is_defensive, Ok(true));
        assert!(reader.execute_batch("DROP TABLE t").is_err());
        let version = rusqlite::version_number();
        assert!(version >= 3_051_003, "{version}: older ones can damage a WAL");
    }

    #[test]
    fn a_pragma_that_is_not_taken_is_an_error() {
        let connection = Connection::open_in_memory().expect("memory");
        // A database in memory has no WAL.
        assert!(set(&connection, "journal_mode", "wal".to_owned()).is_err());
    }
}

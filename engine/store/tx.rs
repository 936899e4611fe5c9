//! A transaction under way.

use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};

use super::memory::Memory;
use crate::clock::Steady;
use crate::error::Result;
use crate::metrics::Counted;

/// What closures of [`Store::read`](super::Store::read) and [`Store::write`](super::Store::write) work on: the
/// connection, and what its thread remembers beside the file. Each statement is prepared once for each connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tx<'a> {
    connection: &'a Connection,
    pub(super) memory: &'a Memory,
}

impl<'a> Tx<'a> {
    pub(super) fn new(connection: &'a Connection, memory: &'a Memory) -> Self {
        Self { connection, memory }
    }

    /// Returns the connection itself, for statements of a host and of the file's keepers.
    pub(super) fn connection(self) -> &'a Connection {
        self.connection
    }

    /// Returns the clock of waits; `None` in a transaction that only reads, and before the engine has a clock.
    pub(super) fn clock(self) -> Option<&'a Steady> {
        self.memory.clock()
    }

    /// Counts what the transaction has done.
    pub(super) fn count(self, what: Counted, times: usize) {
        self.memory.counts.add(what, times);
    }

    /// Executes a statement. Returns the number of rows that it has changed.
    pub(super) fn execute(self, sql: &str, params: impl Params) -> Result<usize> {
        Ok(self.prepare(sql)?.execute(params)?)
    }

    /// Returns the only row of a query.
    ///
    /// # Errors
    ///
    /// A record error if there is no row.
    pub(super) fn one<T>(
        self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        Ok(self.prepare(sql)?.query_row(params, read)?)
    }

    /// Returns the first row of a query; `None` if there is no row.
    pub(super) fn find<T>(
        self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        Ok(self.prepare(sql)?.query_row(params, read).optional()?)
    }

    /// Returns a statement that runs more than once, or whose rows are read one by one.
    pub(super) fn prepare(self, sql: &str) -> Result<CachedStatement<'a>> {
        Ok(self.connection.prepare_cached(sql)?)
    }

    /// Returns whether SQLite itself has undone the whole transaction after an error.
    pub(super) fn is_undone(self) -> bool {
        self.connection.is_autocommit()
    }

    /// Returns the number of row changes of this connection so far, in all transactions.
    pub(super) fn total_changes(self) -> u64 {
        self.connection.total_changes()
    }

    /// Returns the number of the row that was inserted last.
    pub(super) fn last_id(self) -> i64 {
        self.connection.last_insert_rowid()
    }
}

//! The host's own part of a transaction: its tables in the same file, in the same commit.

use std::fmt;

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use crate::error::{Error, Result};

use super::{Tx, apart};

/// A transaction that the engine has begun and will commit. The host reads what it likes and writes
/// to tables of its own; to begin, end or nest transactions, to change settings, and to write to the
/// engine's tables is refused as "not authorized".
pub struct HostTransaction<'a> {
    connection: Tx<'a>,
}

impl HostTransaction<'_> {
    /// The connection, for SQL.
    pub fn connection(&self) -> &Connection {
        self.connection
    }
}

impl fmt::Debug for HostTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostTransaction").finish_non_exhaustive()
    }
}

/// What a host's part of a transaction may fail with: anything.
pub type HostError = Box<dyn std::error::Error + Send + Sync>;

/// Does the host's part. If it fails, nothing of it stays.
pub(crate) fn perform<T>(
    tx: Tx<'_>,
    op: impl FnOnce(&HostTransaction<'_>) -> Result<T, HostError>,
) -> Result<T> {
    apart(tx, || {
        tx.authorizer(Some(authorize))?;
        // Taken away also if the host's part panics, which the writer survives.
        let _ward = Ward(tx);
        let host = HostTransaction { connection: tx };
        op(&host).map_err(|error| Error::Host(error.to_string()))
    })
}

struct Ward<'a>(Tx<'a>);

impl Drop for Ward<'_> {
    fn drop(&mut self) {
        // To take an authorizer away cannot fail.
        let _ = self.0.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
    }
}

/// The engine's tables, in the order of their creation.
const TABLES: [&str; 18] = [
    "migrations",
    "meta",
    "instances",
    "instance_tags",
    "contents",
    "commands",
    "command_tags",
    "invocations",
    "invocation_tags",
    "timers",
    "targets",
    "fires",
    "executions",
    "outputs",
    "days",
    "client_tokens",
    "sqlite_sequence",
    "sqlite_stat1",
];

fn authorize(context: AuthContext<'_>) -> Authorization {
    let table = match context.action {
        AuthAction::Transaction { .. }
        | AuthAction::Savepoint { .. }
        | AuthAction::Attach { .. }
        | AuthAction::Detach { .. }
        | AuthAction::Pragma { pragma_value: Some(_), .. } => return Authorization::Deny,
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::DropTable { table_name }
        | AuthAction::CreateIndex { table_name, .. }
        | AuthAction::DropIndex { table_name, .. }
        | AuthAction::CreateTrigger { table_name, .. }
        | AuthAction::DropTrigger { table_name, .. } => table_name,
        _ => return Authorization::Allow,
    };
    let is_own = TABLES.iter().any(|own| own.eq_ignore_ascii_case(table));
    if is_own { Authorization::Deny } else { Authorization::Allow }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_engine_is_out_of_reach() {
        let sql = include_str!("../../migrations/0001_initial.sql");
        let created = sql.lines().filter_map(|line| line.strip_prefix("CREATE TABLE "));
        let created: Vec<_> = created.filter_map(|rest| rest.split_whitespace().next()).collect();
        assert_eq!(created, TABLES[1..TABLES.len() - 2]);
    }
}

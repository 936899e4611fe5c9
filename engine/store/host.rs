//! The host's own part of a transaction: its tables in the same file, in the same commit.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OptionalExtension};

use crate::error::{Error, Result};

use super::{Tx, apart, unreadable};

/// A transaction that the engine has begun and will commit. The host reads what it likes and writes
/// to tables of its own; to begin, end or nest transactions, to change settings, and to write to the
/// engine's tables is refused as "not authorized". Temporary tables must not have the names of the
/// engine's. Others share the commit: so a table must not have foreign keys that are `INITIALLY
/// DEFERRED`, nor any to the engine's tables, and what says `OR ROLLBACK` fails for all of them.
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
        // After an `OR ROLLBACK` each statement would be a transaction of its own.
        tx.commit_hook(Some(|| true))?;
        let ward = Ward(tx);
        let host = HostTransaction { connection: tx };
        let done = catch_unwind(AssertUnwindSafe(|| op(&host)));
        drop(ward);
        let done = done.unwrap_or_else(|panic| Err(panic_message(&*panic).into()));
        let done = done.map_err(|error| Error::Host(error.to_string()))?;
        if tx.is_autocommit() {
            return Err(Error::Host("it ended the transaction, as OR ROLLBACK does".to_owned()));
        }
        check_schema(tx)?;
        Ok(done)
    })
}

/// Refuses what would be in the way of others: temporary tables that hide the engine's, whichever way
/// they got their names, and foreign keys that are looked at no sooner than at the commit, which then
/// fails for everybody in it.
fn check_schema(tx: Tx<'_>) -> Result<()> {
    let own = serde_json::to_string(&TABLES).map_err(unreadable)?;
    let hiding = tx
        .prepare_cached(
            "SELECT name FROM sqlite_temp_schema WHERE type IN ('table', 'view')
             AND name COLLATE NOCASE IN (SELECT value FROM json_each(?1)) LIMIT 1",
        )?
        .query_row([&own], |row| row.get::<_, String>(0))
        .optional()?;
    if let Some(name) = hiding {
        return Err(Error::Host(format!(
            "a temporary table `{name}` hides the engine's; want another name"
        )));
    }
    let referring = tx
        .prepare_cached(
            "SELECT m.name, k.\"table\" FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) k
             WHERE m.type = 'table' AND m.name NOT IN (SELECT value FROM json_each(?1))
                 AND k.\"table\" COLLATE NOCASE IN (SELECT value FROM json_each(?1)) LIMIT 1",
        )?
        .query_row([&own], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))
        .optional()?;
    if let Some((name, engines)) = referring {
        return Err(Error::Host(format!(
            "table `{name}` has a foreign key to the engine's `{engines}`, which would keep rows from being changed; want a plain column"
        )));
    }
    let deferred = tx
        .prepare_cached(
            "SELECT name FROM (SELECT * FROM sqlite_schema UNION ALL SELECT * FROM sqlite_temp_schema)
             WHERE type = 'table' AND sql LIKE '%initially%deferred%' LIMIT 1",
        )?
        .query_row((), |row| row.get::<_, String>(0))
        .optional()?;
    match deferred {
        None => Ok(()),
        Some(name) => Err(Error::Host(format!(
            "table `{name}` has a foreign key that is INITIALLY DEFERRED, and others share the commit; want IMMEDIATE"
        ))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("no message"))
}

struct Ward<'a>(Tx<'a>);

impl Drop for Ward<'_> {
    fn drop(&mut self) {
        // To take hooks away cannot fail.
        let _ = self.0.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
        let _ = self.0.commit_hook(None::<fn() -> bool>);
    }
}

/// The engine's tables, in the order of their creation.
const TABLES: [&str; 21] = [
    "migrations",
    "meta",
    "ownership",
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
    "stops",
    "stopped_instances",
    "outputs",
    "results",
    "deliveries",
    "days",
    "client_tokens",
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
        | AuthAction::DropTrigger { table_name, .. }
        | AuthAction::CreateTempTrigger { table_name, .. }
        | AuthAction::Analyze { table_name } => table_name,
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
        assert_eq!(created, TABLES[1..]);
    }
}

//! The host's own part of a transaction: its tables in the same file, in the same commit.

use std::fmt;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{CachedStatement, Connection, Params, Row, Statement};

use crate::error::{Error, Result};
use crate::panics::contain;

use super::{Tx, apart, unreadable};

/// A transaction that the engine has begun and will commit. The host may read all tables and write to tables
/// of its own. Statements that begin, end or nest transactions, change settings, or write to the engine's
/// tables are refused as "not authorized".
///
/// The tables of the host share a file with those of the engine, and its statements share a commit with
/// others. So some names and clauses are refused once the host's part has ended:
///
/// - Names that begin with `adjutant_` are reserved for the engine, including names that it does not use yet.
/// - Temporary tables must not have the names of the engine's tables.
/// - Foreign keys must not point to the engine's tables, and must not be `INITIALLY DEFERRED`.
///
/// A statement with `OR ROLLBACK` that fails also fails all other writes of the commit.
pub struct HostTransaction<'a> {
    connection: &'a Connection,
}

/// The SQL of the host, in the terms of [`rusqlite`](crate::rusqlite). The connection itself stays with the engine,
/// because its hooks and settings keep the engine's tables out of reach.
impl HostTransaction<'_> {
    /// Carries out one statement. Returns the number of rows that it changed.
    ///
    /// # Errors
    ///
    /// The error of SQLite; "not authorized" for a statement that would change the engine's tables.
    pub fn execute(&self, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.connection.execute(sql, params)
    }

    /// Carries out statements without parameters, one after another.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute). The statements before the one that failed stay carried out, unless
    /// the host's part fails.
    pub fn execute_batch(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.execute_batch(sql)
    }

    /// Returns a statement to carry out or to query, also more than once.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub fn prepare(&self, sql: &str) -> rusqlite::Result<Statement<'_>> {
        self.connection.prepare(sql)
    }

    /// Returns a statement that the engine keeps prepared for later transactions.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub fn prepare_cached(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        self.connection.prepare_cached(sql)
    }

    /// Returns the value that `read` makes of the first row of a query.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute); [`rusqlite::Error::QueryReturnedNoRows`] if there is no row.
    pub fn query_row<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        self.connection.query_row(sql, params, read)
    }

    /// Returns the number of the row that was inserted last.
    pub fn last_insert_rowid(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// Returns the number of rows that the last statement changed.
    pub fn changes(&self) -> u64 {
        self.connection.changes()
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
        tx.connection().authorizer(Some(authorize))?;
        // After an `OR ROLLBACK` each statement would be a transaction of its own.
        tx.connection().commit_hook(Some(|| true))?;
        let ward = Ward(tx.connection());
        let host = HostTransaction { connection: tx.connection() };
        let done = contain(|| op(&host));
        drop(ward);
        let done = done.unwrap_or_else(|message| Err(format!("it panicked: {message}").into()));
        let done = done.map_err(Error::host)?;
        if tx.is_undone() {
            return Err(Error::host("it ended the transaction, as OR ROLLBACK does"));
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
    let hiding = tx.find(
        "SELECT name FROM sqlite_temp_schema WHERE type IN ('table', 'view')
         AND name COLLATE NOCASE IN (SELECT value FROM json_each(?1)) LIMIT 1",
        [&own],
        |row| row.get::<_, String>(0),
    )?;
    if let Some(name) = hiding {
        return Err(Error::host(format!(
            "a temporary table `{name}` hides the engine's; want another name"
        )));
    }
    let referring = tx.find(
        "SELECT m.name, k.\"table\" FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) k
         WHERE m.type = 'table' AND m.name NOT IN (SELECT value FROM json_each(?1))
             AND k.\"table\" COLLATE NOCASE IN (SELECT value FROM json_each(?1)) LIMIT 1",
        [&own],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
    )?;
    if let Some((name, engines)) = referring {
        return Err(Error::host(format!(
            "table `{name}` has a foreign key to the engine's `{engines}`, which would keep rows from being changed; want a plain column"
        )));
    }
    let reserved = tx.find(
        "SELECT type, name FROM (SELECT * FROM sqlite_schema UNION ALL SELECT * FROM sqlite_temp_schema)
         WHERE name LIKE ?2 ESCAPE '\\' AND tbl_name NOT IN (SELECT value FROM json_each(?1)) LIMIT 1",
        (&own, format!("{}%", RESERVED.replace('_', "\\_"))),
        |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        },
    )?;
    if let Some((what, name)) = reserved {
        return Err(Error::host(format!(
            "the {what} `{name}` has a reserved name: those that begin with `{RESERVED}` are the engine's; want another name"
        )));
    }
    // The comparison by LIKE is quick and finds too many tables; the second look leaves the surplus out.
    let mut suspect = tx.prepare(
        "SELECT name, sql FROM (SELECT * FROM sqlite_schema UNION ALL SELECT * FROM sqlite_temp_schema)
         WHERE type = 'table' AND sql LIKE '%deferrable%initially%deferred%'",
    )?;
    let mut suspect = suspect.query(())?;
    while let Some(row) = suspect.next()? {
        if has_deferred_key(row.get_ref(1)?.as_str().map_err(unreadable)?) {
            let name: String = row.get(0)?;
            return Err(Error::host(format!(
                "table `{name}` has a foreign key that is INITIALLY DEFERRED, and others share the commit; want IMMEDIATE"
            )));
        }
    }
    Ok(())
}

/// Returns whether a CREATE TABLE has a foreign key that SQLite checks only at the commit. In SQLite's grammar such a
/// key is `DEFERRABLE INITIALLY DEFERRED` without a NOT before it; `DEFERRABLE` is no name unless quoted.
fn has_deferred_key(sql: &str) -> bool {
    let words: Vec<_> = Words(sql).collect();
    let is = |word: &str, want: &str| word.eq_ignore_ascii_case(want);
    words.windows(4).any(|words| {
        let [before, rest @ ..] = words else { return false };
        let clause = ["DEFERRABLE", "INITIALLY", "DEFERRED"];
        !is(before, "NOT") && rest.iter().zip(clause).all(|(word, want)| is(word, want))
    })
}

/// The words of an SQL text outside of comments. A quoted text or name is one word with its quotes; each character
/// that is no part of a word is a word too.
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        loop {
            self.0 = self.0.trim_start();
            let end = |mark: &str, from: usize| {
                let found = self.0.get(from..).and_then(|rest| rest.find(mark));
                found.map_or(self.0.len(), |at| from + at + mark.len())
            };
            let first = self.0.chars().next()?;
            let (length, is_comment) = match first {
                _ if self.0.starts_with("--") => (end("\n", 2), true),
                _ if self.0.starts_with("/*") => (end("*/", 2), true),
                // A doubled quote ends one word and begins another, which makes no difference here.
                '\'' => (end("'", 1), false),
                '"' => (end("\"", 1), false),
                '`' => (end("`", 1), false),
                '[' => (end("]", 1), false),
                _ => {
                    let is_other = |c: char| !(c.is_alphanumeric() || c == '_' || c == '$');
                    (self.0.find(is_other).unwrap_or(self.0.len()).max(first.len_utf8()), false)
                }
            };
            let (word, rest) = self.0.split_at(length);
            self.0 = rest;
            if !is_comment {
                return Some(word);
            }
        }
    }
}

struct Ward<'a>(&'a Connection);

impl Drop for Ward<'_> {
    fn drop(&mut self) {
        // To take hooks away cannot fail.
        let _ = self.0.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
        let _ = self.0.commit_hook(None::<fn() -> bool>);
    }
}

/// The prefix of the names of all tables, indexes, views and triggers that the engine adds after the first migration.
/// If a host could have such a name, the file could become impossible to upgrade.
pub(super) const RESERVED: &str = "adjutant_";

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

    #[test]
    fn a_deferred_key_is_told_from_names_texts_and_comments() {
        let check = |columns: &str, want: bool| {
            let sql = format!("CREATE TABLE t ({columns})");
            let connection = rusqlite::Connection::open_in_memory().expect("memory");
            let both =
                format!("PRAGMA foreign_keys = ON; CREATE TABLE a (id INTEGER PRIMARY KEY); {sql}");
            connection.execute_batch(&both).unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(has_deferred_key(&sql), want, "{sql}");
            // SQLite itself agrees: a row that points nowhere is refused at once, or at the commit.
            let points = "INSERT INTO t (x) VALUES (7)";
            let at_once = connection.execute_batch(&format!("BEGIN; {points}")).is_err();
            let later = !at_once && connection.execute_batch("COMMIT").is_err();
            assert_eq!(later, want, "{sql}");
        };
        let key = "x REFERENCES a";
        check(&format!("{key} DEFERRABLE INITIALLY DEFERRED"), true);
        check(&format!("{key} deferrable\n\tinitially -- as\n/* it */ deferred, y"), true);
        check("x, FOREIGN KEY (x) REFERENCES a DEFERRABLE INITIALLY DEFERRED", true);
        check(
            &format!("\"it's\" TEXT, {key} ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED"),
            true,
        );
        check(&format!("{key} NOT DEFERRABLE INITIALLY DEFERRED"), false);
        check(&format!("{key} DEFERRABLE INITIALLY IMMEDIATE"), false);
        check(&format!("{key} DEFERRABLE"), false);
        check("x INTEGER PRIMARY KEY, initially_due TEXT, deferred INTEGER", false);
        check("x, initially deferred, \"DEFERRABLE\" INITIALLY, y DEFERRED", false);
        check("x DEFAULT 'DEFERRABLE INITIALLY DEFERRED'", false);
        check("x DEFAULT 'it''s DEFERRABLE INITIALLY DEFERRED'", false);
        check("x, \"DEFERRABLE INITIALLY DEFERRED\", [DEFERRABLE INITIALLY DEFERRED too]", false);
        check("x, `DEFERRABLE INITIALLY DEFERRED`", false);
        check("x /* DEFERRABLE INITIALLY DEFERRED */, y -- DEFERRABLE INITIALLY DEFERRED\n", false);
    }
}

//! The schema and its history: forward only, embedded, each step known by its hash.

use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, StorageErrorKind};

use super::custody::{self, Mark};
use super::storage;

#[derive(Clone, Copy)]
struct Migration {
    version: i64,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 1] = [Migration {
    version: 1,
    name: "initial",
    sql: include_str!("../../migrations/0001_initial.sql"),
}];

const NEWEST: i64 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Brings the tables to the newest version in one transaction, all steps or none, and makes the file an engine's.
pub(super) fn migrate(connection: &mut Connection, engine: i64) -> Result<Mark> {
    take(connection, &MIGRATIONS, engine)
}

/// Takes the steps that the file has not taken.
fn take(connection: &mut Connection, steps: &[Migration], engine: i64) -> Result<Mark> {
    // Without these settings a step fails if a view of the host uses a column that the step drops or renames.
    let lenient = ["legacy_alter_table", "writable_schema"];
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
    lenient.iter().try_for_each(|pragma| connection.pragma_update(None, pragma, true))?;
    let migrated = take_all(connection, steps, engine);
    lenient.iter().try_for_each(|pragma| connection.pragma_update(None, pragma, false))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    migrated
}

fn take_all(connection: &mut Connection, steps: &[Migration], engine: i64) -> Result<Mark> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    check_ownership(&tx)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (
            version INTEGER PRIMARY KEY,
            name    TEXT NOT NULL,
            sha256  TEXT NOT NULL
        ) STRICT",
    )?;
    let applied = applied(&tx)?;
    for migration in steps.iter().skip(applied) {
        tx.execute_batch(migration.sql)?;
        tx.execute(
            "INSERT INTO migrations (version, name, sha256) VALUES (?1, ?2, ?3)",
            (migration.version, migration.name, sha256(migration.sql)),
        )?;
    }
    check_schema(&tx, steps)?;
    let mark = custody::take_over(&tx, engine)?;
    tx.commit()?;
    Ok(mark)
}

/// Checks that this version can use the file, unless the file is empty.
pub(super) fn check_readable(connection: &Connection) -> Result<()> {
    check_ownership(connection)?;
    if is_empty(connection)? { Ok(()) } else { applied(connection).map(drop) }
}

/// Checks that the tables of this library have the indexes and the triggers that the steps have made: none is missing,
/// none has been changed, and none has been added. Otherwise another program, or whoever made the file, could have the
/// engine carry out statements that are not its own.
///
/// # Errors
///
/// [`StorageErrorKind::Corrupt`] if a thing is missing, [`StorageErrorKind::Altered`] for each other difference.
fn check_schema(tx: &Connection, steps: &[Migration]) -> Result<()> {
    let found = things(tx)?;
    let ours: Vec<_> = steps.iter().flat_map(|step| made_by(step.sql)).collect();
    let is_ours =
        |table: &str| ours.iter().any(|&(kind, name, _)| kind == "table" && name == table);
    // SQLite keeps the text of a statement as it was.
    let is_as_made = |thing: &Thing| {
        ours.iter().any(|&(kind, name, text)| {
            (kind, name) == (&thing.kind, &thing.name)
                && (kind == "table"
                    || text.strip_prefix(&thing.sql).is_some_and(|rest| rest.starts_with(';')))
        })
    };
    let is_whole = ours.iter().all(|&(_, name, _)| found.iter().any(|thing| thing.name == name));
    if is_whole && found.iter().filter(|thing| is_ours(&thing.table)).all(is_as_made) {
        return Ok(());
    }
    // A later step may have changed what an earlier step has made.
    let made = Connection::open_in_memory()?;
    steps.iter().try_for_each(|step| made.execute_batch(step.sql))?;
    let made = things(&made)?;
    for thing in &made {
        match found.iter().find(|found| found.name == thing.name) {
            Some(found) if found.is_like(thing) => {}
            None => {
                let message = format!("its {} `{}` is missing", thing.kind, thing.name);
                return Err(storage(StorageErrorKind::Corrupt, message));
            }
            Some(found) => return Err(altered(found, "is not as this library has made it")),
        }
    }
    let is_added = |thing: &&Thing| {
        made.iter().any(|made| made.table == thing.table)
            && !made.iter().any(|made| made.name == thing.name)
    };
    match found.iter().find(is_added) {
        Some(thing) => Err(altered(thing, "is not of this library")),
        None => Ok(()),
    }
}

fn altered(thing: &Thing, what: &str) -> Error {
    let Thing { kind, name, table, .. } = thing;
    let message = format!("the {kind} `{name}` on its table `{table}` {what}");
    storage(StorageErrorKind::Altered, message)
}

/// A table, an index, a trigger or a view.
#[derive(Debug, PartialEq, Eq)]
struct Thing {
    kind: String,
    name: String,
    table: String,
    sql: String,
}

impl Thing {
    /// Returns whether this does what another thing does. Each row of a table is checked when it is read, so the text of
    /// a table does not matter.
    fn is_like(&self, other: &Self) -> bool {
        self == other || (self.kind == "table" && other.kind == "table")
    }
}

/// Returns everything that the schema of a database has and that has a text.
fn things(connection: &Connection) -> Result<Vec<Thing>> {
    let mut query = connection
        .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL")?;
    let things = query.query_map((), |row| {
        Ok(Thing { kind: row.get(0)?, name: row.get(1)?, table: row.get(2)?, sql: row.get(3)? })
    })?;
    Ok(things.collect::<rusqlite::Result<_>>()?)
}

/// Returns the kind and the name of each thing that a step of the schema makes, with the text from there on.
fn made_by(sql: &'static str) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let starts = sql.match_indices("CREATE ").map(|(at, _)| at);
    let starts = starts.filter(|at| sql[..*at].is_empty() || sql[..*at].ends_with('\n'));
    starts.filter_map(|at| {
        let text = &sql[at..];
        let line = text.lines().next()?;
        let words = line.strip_prefix("CREATE ")?;
        let words = words.strip_prefix("UNIQUE ").unwrap_or(words);
        let (kind, rest) = words.split_once(' ')?;
        let name = rest.split([' ', '(']).next()?;
        let kind = match kind {
            "TABLE" => "table",
            "INDEX" => "index",
            "TRIGGER" => "trigger",
            _ => return None,
        };
        Some((kind, name, text))
    })
}

/// Checks, without changing anything, that the tables are of the newest version.
pub(super) fn check(connection: &Connection) -> Result<()> {
    check_ownership(connection)?;
    let applied = if is_empty(connection)? { 0 } else { applied(connection)? };
    if applied < MIGRATIONS.len() {
        let message =
            "its tables are older than this version; open it for writing once to upgrade it";
        return Err(storage(StorageErrorKind::Version, message));
    }
    Ok(())
}

/// Refuses a file of another program: it has tables, but not those of this library, or it has no tables and names its
/// purpose itself.
pub(super) fn check_ownership(connection: &Connection) -> Result<()> {
    // Many programs have a table of this name. Its columns tell whether it is this library's.
    let foreign: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema)
            AND (SELECT count(*) FROM pragma_table_info('migrations')
                 WHERE name IN ('version', 'name', 'sha256')) <> 3",
        (),
        |row| row.get(0),
    )?;
    let is_marked = || -> Result<bool> {
        let said = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
        Ok(is_empty(connection)? && (said("application_id")? != 0 || said("user_version")? != 0))
    };
    if foreign || is_marked()? {
        return Err(storage(StorageErrorKind::Foreign, "it is the database of another program"));
    }
    Ok(())
}

pub(super) fn is_empty(connection: &Connection) -> Result<bool> {
    let empty = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)";
    Ok(connection.query_row(empty, (), |row| row.get(0))?)
}

/// How many steps the file has behind it; each must be the one this build knows.
fn applied(connection: &Connection) -> Result<usize> {
    let mut query =
        connection.prepare("SELECT version, sha256 FROM migrations ORDER BY version")?;
    let steps = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut applied = 0;
    for step in steps {
        let (version, hash): (i64, String) = step?;
        match MIGRATIONS.get(applied) {
            Some(known) if known.version == version && sha256(known.sql) == hash => applied += 1,
            Some(known) if known.version == version => return Err(other_build(version)),
            _ => return Err(newer(version)),
        }
    }
    Ok(applied)
}

fn newer(version: i64) -> Error {
    let message = format!(
        "its tables have version {version}, this library knows them up to version {NEWEST}"
    );
    storage(StorageErrorKind::Version, message)
}

fn other_build(version: i64) -> Error {
    let message = format!("version {version} of its tables was made by another build");
    storage(StorageErrorKind::Version, message)
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: &str, want: &str) {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, 1).expect("a new file");
        connection.execute_batch(change).expect("the change itself is sound");
        let message = match migrate(&mut connection, 1) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        assert!(
            message.contains(want) && message.is_empty() == want.is_empty(),
            "{change}: {message}"
        );
    }

    #[test]
    fn history_is_checked() {
        check("", "");
        check("INSERT INTO migrations VALUES (2, 'later', '00')", "up to version 1");
        check("UPDATE migrations SET sha256 = '00' WHERE version = 1", "another build");
    }

    #[test]
    fn a_failed_upgrade_leaves_the_file_as_it_was() {
        let mut connection = Connection::open_in_memory().expect("memory");
        // In the way of the first migration's last table.
        connection
            .execute_batch(
                "CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT, sha256 TEXT);
                 CREATE TABLE client_tokens (x)",
            )
            .expect("two tables");
        assert!(migrate(&mut connection, 1).is_err());
        assert_eq!(tables(&connection), 2);
    }

    /// The host's tables stay, and views or triggers that use the engine's tables do not prevent the upgrade.
    #[test]
    fn tables_and_views_of_a_host_do_not_prevent_an_upgrade() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, 1).expect("an empty file");
        let hosts = "CREATE TABLE leases (id INTEGER PRIMARY KEY, fires INTEGER);
             INSERT INTO leases VALUES (1, 2);
             CREATE INDEX leases_by_fires ON leases (fires);
             CREATE VIEW done AS SELECT signal, room FROM executions WHERE status = 'Success';
             CREATE TRIGGER undone INSTEAD OF DELETE ON done BEGIN DELETE FROM leases WHERE id = old.signal; END";
        connection.execute_batch(hosts).expect("the host's");
        let later = Migration {
            version: 2,
            name: "later",
            sql: "ALTER TABLE executions DROP COLUMN signal;
                ALTER TABLE executions RENAME COLUMN user_time_us TO user_us;
                CREATE TABLE adjutant_leases (id INTEGER PRIMARY KEY) STRICT;
                CREATE INDEX adjutant_leases_by_id ON adjutant_leases (id)",
        };
        take(&mut connection, &[MIGRATIONS[0], later], 1).expect("nothing is in the way");
        let lease: i64 = connection
            .query_row("SELECT fires FROM leases", (), |row| row.get(0))
            .expect("the host's table");
        assert_eq!(lease, 2);
    }

    #[test]
    fn somebody_elses_database_is_left_alone() {
        let mut connection = Connection::open_in_memory().expect("memory");
        connection.execute_batch("CREATE TABLE theirs (x)").expect("a table");
        for refused in [migrate(&mut connection, 1).map(drop), super::check(&connection)] {
            assert_eq!(refused.expect_err("not ours").code(), "Storage.Foreign");
        }
        assert_eq!(tables(&connection), 1);
    }

    /// Triggers see to it, in place of foreign keys.
    #[test]
    fn what_executions_point_to_stays_with_them() {
        let mut connection = Connection::open_in_memory().expect("memory");
        migrate(&mut connection, 1).expect("an empty file");
        let rows = "INSERT INTO contents (id, sha256, bytes) VALUES (1, zeroblob(32), x'3a');
             INSERT INTO invocations (id, invoke_id, name, description, type, content, timeout_s,
                 termination_mode, survive_restarts, repeat_mode, secrets_are_names, content_bytes_max,
                 parameter_passing, created_at_ms)
             SELECT value, unhex(printf('%032x', value)), '', '', 'RunShellScript', 1, 1, 'Process', 0,
                 'Once', 0, 1, 'Text', 0
             FROM json_each('[1, 2]');
             INSERT INTO instances (id, instance_id, name, os_type, state, executor, agent_status,
                 agent_version, registered_at_ms, updated_at_ms)
             VALUES (1, 'a', '', 'Linux', 'Running', '', 'Online', '', 0, 0),
                 (2, 'b', '', 'Linux', 'Running', '', 'Online', '', 0, 0);
             INSERT INTO fires (id, invocation, fire_at_ms, disposition, unfinished, dealt_at_ms)
             VALUES (1, 1, 0, 'Started', 1, 0), (2, 2, 0, 'Started', 1, 0);
             INSERT INTO executions (id, fire, instance, attempt, status)
             VALUES (1, 1, 1, 1, 'Pending'), (2, 2, 1, 1, 'Pending');
             INSERT INTO outputs (execution, bytes, runs) VALUES (1, x'61', x'01'), (2, x'61', x'01')";
        connection.execute_batch(rows).expect("sound rows");
        let refused = connection.execute("DELETE FROM instances WHERE id = 1", ());
        assert!(refused.expect_err("it has executions").to_string().contains("has executions"));
        connection.execute("DELETE FROM instances WHERE id = 2", ()).expect("it has none");
        connection.execute("DELETE FROM invocations WHERE id = 1", ()).expect("not the newest");
        let left = "SELECT (SELECT group_concat(fire) FROM executions), group_concat(execution) FROM outputs";
        let left: (String, String) = connection
            .query_row(left, (), |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("what is left");
        assert_eq!(left, ("2".to_owned(), "2".to_owned()));
    }

    fn tables(connection: &Connection) -> i64 {
        let count = "SELECT count(*) FROM sqlite_schema WHERE type = 'table'";
        connection.query_row(count, (), |row| row.get(0)).expect("readable")
    }
}

//! The schema and its history: forward only, embedded, each step known by its hash.

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
    lenient.iter().try_for_each(|pragma| connection.pragma_update(None, pragma, true))?;
    let migrated = take_all(connection, steps, engine);
    lenient.iter().try_for_each(|pragma| connection.pragma_update(None, pragma, false))?;
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
    check_complete(&tx)?;
    let mark = custody::take_over(&tx, engine)?;
    tx.commit()?;
    Ok(mark)
}

/// Checks that this version can use the file, unless the file is empty.
pub(super) fn check_readable(connection: &Connection) -> Result<()> {
    check_ownership(connection)?;
    if is_empty(connection)? { Ok(()) } else { applied(connection).map(drop) }
}

/// Checks that no table, index or trigger of the schema is missing.
fn check_complete(connection: &Connection) -> Result<()> {
    let mut found =
        connection.prepare("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1)")?;
    for (kind, name) in MIGRATIONS.iter().flat_map(|migration| made_by(migration.sql)) {
        if !found.query_row([name], |row| row.get(0))? {
            let message = format!("its {kind} `{name}` is missing");
            return Err(storage(StorageErrorKind::Corrupt, message));
        }
    }
    Ok(())
}

/// Returns the kind and the name of each thing that a step of the schema makes.
fn made_by(sql: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    sql.lines().filter_map(|line| {
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
        Some((kind, name))
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

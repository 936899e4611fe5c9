//! The host's own tables in the engine's file: one commit for both, and nothing else within reach.

use std::sync::mpsc;

use adjutant::{
    CreateCommand, Engine, Error, HostError, HostTransaction, InvokeCommand, RepeatMode,
    RunCommand, RunCommandResponse,
};

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::OpenFlags;

use crate::support::{Place, engine, everything, run, wait, within};

const TABLE: &str = "CREATE TABLE orders (id INTEGER PRIMARY KEY, invoke_id TEXT UNIQUE)";

async fn with_orders(engine: Engine) -> Engine {
    sql(&engine, TABLE).await.expect("a table of the host's");
    engine
}

async fn sql(engine: &Engine, sql: &str) -> Result<(), Error> {
    let sql = sql.to_owned();
    engine.write(move |tx| Ok(tx.execute_batch(&sql)?)).await
}

async fn orders(engine: &Engine) -> Vec<String> {
    let read = engine.write(|tx| {
        let mut query = tx.prepare("SELECT invoke_id FROM orders ORDER BY id")?;
        let rows = query.query_map((), |row| row.get(0))?;
        Ok(rows.collect::<Result<Vec<String>, _>>()?)
    });
    read.await.expect("readable")
}

fn order(tx: &HostTransaction<'_>, invoke_id: String) -> Result<(), HostError> {
    tx.execute("INSERT INTO orders (invoke_id) VALUES (?1)", [invoke_id])?;
    Ok(())
}

fn request() -> RunCommand {
    RunCommand::shell("exit:0").on(["i-1"])
}

/// Writes an order with the run, then does what it is told to.
fn and_then(
    op: impl FnOnce(&HostTransaction<'_>) -> Result<(), HostError> + Send + 'static,
) -> impl FnOnce(&HostTransaction<'_>, &RunCommandResponse) -> Result<(), HostError> + Send + 'static
{
    move |tx, run| {
        order(tx, run.invoke_id.to_string())?;
        op(tx)
    }
}

#[tokio::test]
async fn a_pool_of_the_host_reads_what_the_engine_has_committed() {
    let place = Place::new();
    let engine = with_orders(place.open().await).await;
    let manager = SqliteConnectionManager::file(place.database())
        .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY);
    let pool = r2d2::Pool::builder().max_size(2).build(manager).expect("a pool");
    for count in 1..=3 {
        let (run, _) =
            engine.run_command_with(request(), and_then(|_| Ok(()))).await.expect("sound");
        let connection = pool.get().expect("a connection");
        let sql = "SELECT (SELECT count(*) FROM orders), invoke_id FROM orders ORDER BY id DESC";
        let read: (i64, String) =
            connection.query_row(sql, (), |row| Ok((row.get(0)?, row.get(1)?))).expect("readable");
        assert_eq!(read, (count, run.invoke_id.to_string()));
    }
}

#[tokio::test]
async fn both_are_on_disk_or_neither() {
    let place = Place::new();
    let engine = with_orders(place.open().await).await;
    let (run, done) = engine.run_command_with(request(), and_then(|_| Ok(()))).await.expect("ok");
    assert_eq!(done, Some(()));
    let kept = engine.create_command(CreateCommand::shell("c", "exit:0")).await.expect("sound");
    let invoke = InvokeCommand::new(kept.command_id).on(["i-1"]);
    let invoked = engine.invoke_command_with(invoke.clone(), |tx, invoked| {
        order(tx, invoked.invoke_id.to_string())
    });
    let (invoked, done) = invoked.await.expect("sound");
    assert_eq!(done, Some(()));
    let want = [run.invoke_id.to_string(), invoked.invoke_id.to_string()];
    wait(&engine, &run.invoke_id).await;
    wait(&engine, &invoked.invoke_id).await;
    assert_eq!(orders(&engine).await, want);

    let before = everything(&engine).await;
    let failed = engine.run_command_with(request(), and_then(|_| Err("no stock".into()))).await;
    assert_eq!(failed.expect_err("refused").to_string(), "the host's part failed: no stock");
    let failed = engine.invoke_command_with(invoke, |tx, invoked| {
        order(tx, invoked.invoke_id.to_string())?;
        // Twice the same.
        order(tx, invoked.invoke_id.to_string())
    });
    let error = failed.await.expect_err("refused");
    assert_eq!((error.code(), error.http_status()), ("Host.Failed", 500));
    // A request that is refused does not get to the host.
    let refused = engine.run_command_with(request().on(["i-9"]), |_, _| -> Result<(), HostError> {
        panic!("not called")
    });
    assert_eq!(refused.await.expect_err("refused").code(), "InvalidInstance.NotFound");
    assert_eq!(everything(&engine).await, before);
    assert_eq!(orders(&engine).await, want);

    engine.shutdown(std::time::Duration::ZERO).await;
    drop(engine);
    assert_eq!(orders(&place.open().await).await, want);
}

#[tokio::test]
async fn what_is_the_engines_is_out_of_reach() {
    let engine = with_orders(engine().await).await;
    let kept = engine.create_command(CreateCommand::shell("c", "exit:0")).await.expect("sound");
    run(&engine, "exit:0", &["i-1"]).await;
    for allowed in [
        "CREATE VIEW done AS SELECT * FROM executions WHERE status = 'Success'",
        "CREATE INDEX orders_by_run ON orders (invoke_id)",
        "ALTER TABLE orders ADD COLUMN note TEXT",
        "ANALYZE orders",
        "CREATE TEMP TABLE scratch (x)",
        "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO counted DEFAULT VALUES",
        "CREATE TRIGGER touched AFTER INSERT ON orders BEGIN INSERT INTO executions (fire) VALUES (1); END",
        "CREATE TRIGGER undone INSTEAD OF DELETE ON done BEGIN DELETE FROM executions; END",
        "PRAGMA foreign_keys",
    ] {
        sql(&engine, allowed).await.unwrap_or_else(|error| panic!("{allowed}: {error}"));
    }
    let before = everything(&engine).await;
    let refused = [
        "COMMIT",
        "END",
        "ROLLBACK",
        "BEGIN",
        "SAVEPOINT mine",
        "RELEASE job",
        "ROLLBACK TO job",
        "PRAGMA synchronous = OFF",
        "PRAGMA foreign_keys = 0",
        "PRAGMA writable_schema(1)",
        "PRAGMA user_version = 7",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "VACUUM",
        "DELETE FROM executions",
        "UPDATE invocations SET status = 'Success'",
        "REPLACE INTO meta (key, value) VALUES ('x', 'y')",
        "INSERT OR IGNORE INTO days (id, invocations) VALUES (1, 1)",
        "DROP TABLE invocations",
        "DROP INDEX executions_by_fire",
        "ALTER TABLE EXECUTIONS ADD COLUMN x",
        "ALTER TABLE executions RENAME TO gone",
        "CREATE INDEX mine ON executions (status)",
        "CREATE TRIGGER mine AFTER UPDATE ON executions BEGIN SELECT 1; END",
        "CREATE TEMP TRIGGER mine AFTER UPDATE ON main.executions BEGIN SELECT 1; END",
        "CREATE TEMP TABLE executions (id INTEGER)",
        "CREATE TABLE temp.\"Invocations\" (id INTEGER)",
        "CREATE TEMP VIEW instances AS SELECT 1 AS id",
        "CREATE VIEW temp.instances AS SELECT 1 AS id",
        "CREATE TRIGGER temp.mine AFTER UPDATE ON main.executions BEGIN SELECT 1; END",
        "ALTER TABLE temp.scratch RENAME TO Executions",
        "CREATE TEMP TABLE other (x); ALTER TABLE other RENAME TO fires",
        "ANALYZE",
        "ANALYZE executions",
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema",
        // Its trigger writes where it must not; so does the view's.
        "INSERT INTO orders (invoke_id) VALUES ('x')",
        "DELETE FROM done",
        "WITH x AS (SELECT 1) DELETE FROM client_tokens",
        "CREATE TABLE late (x REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)",
        "ALTER TABLE orders ADD COLUMN c REFERENCES counted (id) DEFERRABLE INITIALLY  DEFERRED",
    ];
    for text in refused {
        let error = sql(&engine, text).await.expect_err(text);
        assert!(matches!(error, Error::Host(_)), "{text}: {error:?}");
        assert_eq!(everything(&engine).await, before, "{text}");
    }
    let dropped = "ANALYZE orders; ANALYZE counted; DROP TRIGGER touched; DROP TABLE counted";
    sql(&engine, dropped).await.expect("they are the host's");
    sql(&engine, "INSERT INTO orders (invoke_id) VALUES ('x')").await.expect("it is the host's");
    // The engine goes on, with all that it had prepared.
    run(&engine, "exit:0", &["i-1", "i-2"]).await;
    let invoke = InvokeCommand::new(kept.command_id).on(["i-3"]);
    let invoked = engine.invoke_command(invoke).await.expect("sound");
    wait(&engine, &invoked.invoke_id).await;
    engine.delete_command(kept.command_id).await.expect("not in use");
}

/// A statement of the engine's own that is prepared already is not the host's for the asking.
#[tokio::test]
async fn what_the_engine_has_prepared_does_not_serve_the_host() {
    let engine = engine().await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).frequency("rate(2m)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    engine.resume_invocation(&id).await.expect("it repeats");
    let theft = engine.write(|tx| {
        let text = "UPDATE invocations SET paused_at_ms = NULL WHERE id = ?1";
        Ok(tx.prepare_cached(text)?.execute([1])?)
    });
    let error = theft.await.expect_err("refused");
    assert!(matches!(error, Error::Host(_)), "{error:?}");
    engine.resume_invocation(&id).await.expect("it still can");
}

#[tokio::test]
async fn a_panic_of_the_host_is_the_hosts() {
    let engine = with_orders(engine().await).await;
    let before = everything(&engine).await;
    let panicked = engine.run_command_with(request(), and_then(|_| panic!("as told"))).await;
    let error = panicked.expect_err("it panicked");
    assert_eq!(error.to_string(), "the host's part failed: it panicked: as told");
    assert_eq!(everything(&engine).await, before);
    assert_eq!(orders(&engine).await, [""; 0]);
    // Its hands are still tied, and the engine's are not.
    sql(&engine, "DELETE FROM executions").await.expect_err("refused");
    run(&engine, "exit:0", &["i-1"]).await;
}

#[tokio::test]
async fn a_host_is_asked_only_for_what_is_stored() {
    let engine = with_orders(engine().await).await;
    let token = || request().client_token("t");
    let first = engine.run_command_with(token(), and_then(|_| Err("later".into()))).await;
    first.expect_err("the host refuses, and the token stays free");
    let (first, done) = engine.run_command_with(token(), and_then(|_| Ok(()))).await.expect("ok");
    assert_eq!(done, Some(()));
    let called = |_: &HostTransaction<'_>, _: &RunCommandResponse| -> Result<(), HostError> {
        panic!("not called")
    };
    let (again, done) = engine.run_command_with(token(), called).await.expect("the first answer");
    assert_eq!((again.invoke_id, done), (first.invoke_id, None));
    let dry = request().repeat_mode(RepeatMode::DryRun);
    let (_, done) = engine.run_command_with(dry, called).await.expect("sound");
    assert_eq!(done, None);
    assert_eq!(orders(&engine).await, [first.invoke_id.to_string()]);
}

/// What ends the transaction from within ends it for whoever shares it; they are told to try again,
/// and the host's later statements do not become transactions of their own.
#[tokio::test]
async fn a_host_that_rolls_back_leaves_nothing_behind() {
    let engine = with_orders(engine().await).await;
    sql(&engine, "INSERT INTO orders (invoke_id) VALUES ('taken')").await.expect("sound");
    let before = everything(&engine).await;
    let swallowed = engine.run_command_with(request(), |tx, _| {
        let twice = "INSERT OR ROLLBACK INTO orders (invoke_id) VALUES ('taken')";
        tx.execute_batch(twice).expect_err("it is there");
        let _ = tx.execute_batch("INSERT INTO orders (invoke_id) VALUES ('late')");
        Ok(())
    });
    let error = swallowed.await.expect_err("nothing is left of it");
    assert!(matches!(error, Error::Host(_)), "{error:?}");
    assert_eq!(orders(&engine).await, ["taken"]);

    // Two that wait together, behind one that waits for this test.
    let (release, released) = mpsc::channel::<()>();
    let blocked = engine.write(move |_| Ok(released.recv()?));
    let innocent = engine.run_command(request());
    let twice = "INSERT OR ROLLBACK INTO orders (invoke_id) VALUES ('taken')";
    let guilty = sql(&engine, twice);
    let let_go = async { release.send(()).expect("it waits") };
    let (blocked, innocent, guilty, ()) =
        within(async { tokio::join!(blocked, innocent, guilty, let_go) }).await;
    assert!(matches!(guilty, Err(Error::Host(_))), "{guilty:?}");
    for (what, error) in [("blocked", blocked.err()), ("innocent", innocent.err())] {
        let code = error.as_ref().map_or("", Error::code);
        assert!(["", "Storage.Busy"].contains(&code), "{what}: {error:?}");
        if what == "innocent" && error.is_some() {
            assert_eq!(everything(&engine).await, before);
        }
    }
    run(&engine, "exit:0", &["i-1"]).await;
    assert_eq!(orders(&engine).await, ["taken"]);
}

/// A key to the engine's tables would keep it from changing or deleting its own rows.
#[tokio::test]
async fn a_host_has_no_foreign_keys_to_what_the_engine_has() {
    let engine = engine().await;
    for to in ["invocations (invoke_id)", "executions (status)", "Commands", "instances (executor)"]
    {
        let table = format!("CREATE TABLE notes (it BLOB REFERENCES {to})");
        let error = sql(&engine, &table).await.expect_err("it would be in the way");
        assert!(error.to_string().contains("foreign key"), "{error}");
        run(&engine, "exit:0", &["i-1"]).await;
    }
    let own = "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER REFERENCES a)";
    sql(&engine, own).await.expect("among its own tables it may");
}

/// The name of a column is no clause, whatever the name is.
#[tokio::test]
async fn a_table_is_not_taken_for_deferred_because_of_its_words() {
    let engine = engine().await;
    for sound in [
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, initially_due TEXT, deferred INTEGER)",
        "CREATE TABLE calls (initially deferred, note DEFAULT 'DEFERRABLE INITIALLY DEFERRED')",
        "CREATE TABLE lines (x /* DEFERRABLE INITIALLY DEFERRED */, y -- DEFERRABLE INITIALLY DEFERRED\n)",
        "CREATE TABLE marks (\"DEFERRABLE INITIALLY DEFERRED\" REFERENCES notes)",
        "CREATE TABLE gates (x REFERENCES notes NOT DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO notes VALUES (1, 'soon', 0); INSERT INTO gates VALUES (1)",
    ] {
        sql(&engine, sound).await.unwrap_or_else(|error| panic!("{sound}: {error}"));
    }
    for refused in [
        "CREATE TABLE late (x REFERENCES notes DEFERRABLE\tINITIALLY -- as it were\n DEFERRED)",
        "CREATE TEMP TABLE late (x REFERENCES notes deferrable initially deferred)",
        "ALTER TABLE lines ADD COLUMN z REFERENCES notes DEFERRABLE/**/INITIALLY/**/DEFERRED",
    ] {
        let error = sql(&engine, refused).await.expect_err(refused).to_string();
        assert!(error.contains("INITIALLY DEFERRED"), "{refused}: {error}");
        run(&engine, "exit:0", &["i-1"]).await;
    }
}

/// A later version of the engine may add tables and indexes with such names.
#[tokio::test]
async fn names_that_begin_with_that_of_the_engine_are_reserved() {
    let engine = with_orders(engine().await).await;
    for refused in [
        "CREATE TABLE adjutant_leases (x)",
        "CREATE TABLE \"Adjutant_Orders\" (x)",
        "CREATE TEMP TABLE adjutant_scratch (x)",
        "CREATE VIEW adjutant_done AS SELECT 1",
        "CREATE INDEX adjutant_orders_by_run ON orders (invoke_id)",
        "CREATE TRIGGER adjutant_t AFTER INSERT ON orders BEGIN SELECT 1; END",
        "ALTER TABLE orders RENAME TO adjutant_orders",
        "CREATE TABLE fine (x); ALTER TABLE fine RENAME TO ADJUTANT_fine",
    ] {
        let error = sql(&engine, refused).await.expect_err(refused).to_string();
        assert!(error.contains("reserved name"), "{refused}: {error}");
        assert!(error.contains("want another name"), "{refused}: {error}");
    }
    for sound in [
        "CREATE TABLE adjutants (x)",
        "CREATE TABLE adjutantxy (x)",
        "CREATE TABLE my_adjutant_notes (adjutant_x)",
    ] {
        sql(&engine, sound).await.unwrap_or_else(|error| panic!("{sound}: {error}"));
    }
    assert_eq!(orders(&engine).await, [""; 0]);
}

/// An error of a host's own, which its caller looks for.
#[derive(Debug, PartialEq)]
struct Banned(u32);

impl std::fmt::Display for Banned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tenant {} is banned", self.0)
    }
}

impl std::error::Error for Banned {}

#[tokio::test]
async fn the_error_of_the_hosts_part_comes_back_as_it_was() {
    use std::error::Error as _;
    let engine = engine().await;
    let refuse =
        |n: u32| move |_: &HostTransaction<'_>| -> Result<(), HostError> { Err(Banned(n).into()) };
    let error = engine.write(refuse(1)).await.expect_err("refused");
    assert_eq!(error.to_string(), "the host's part failed: tenant 1 is banned");
    assert_eq!((error.code(), error.http_status()), ("Host.Failed", 500));
    let source = error.source().expect("the host's own");
    assert_eq!(source.downcast_ref::<Banned>(), Some(&Banned(1)));
    // Clones share it.
    let Error::Host(failure) = error.clone() else { panic!("{error:?}") };
    assert_eq!(failure.downcast_ref::<Banned>(), Some(&Banned(1)));
    let shared: std::sync::Arc<dyn std::error::Error + Send + Sync> = failure.into();
    assert_eq!(shared.downcast_ref::<Banned>(), Some(&Banned(1)));
    let refuse = refuse(2);
    let run = engine.run_command_with(request(), move |tx, _| refuse(tx)).await;
    let error = run.expect_err("refused");
    let source = error.source().and_then(|source| source.downcast_ref::<Banned>());
    assert_eq!(source, Some(&Banned(2)));
    // SQLite's own errors come back too.
    let error = sql(&engine, "SELECT * FROM nowhere").await.expect_err("no such table");
    let source = error.source().expect("SQLite's");
    assert!(source.downcast_ref::<rusqlite::Error>().is_some(), "{source:?}");
}

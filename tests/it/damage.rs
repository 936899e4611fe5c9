//! Files with values that no version of this library writes, in each column of each table in turn, and with pages
//! that lead back to themselves. Readable records are served, unreadable records say so, and no read goes on for
//! ever.

use std::path::Path;
use std::time::Duration;

use adjutant::{
    DescribeFires, DescribeInvocationResults, DescribeInvocations, Durability, Engine, Error,
    InvokeId, Retry, RunCommand,
};
use chrono::Utc;
use rusqlite::Connection;
use serde_json::json;

use crate::support::{Place, ask, run, within};

/// Values that are put into a column, as SQL.
const GARBAGE: [&str; 6] = ["NULL", "-1", "9223372036854775807", "0.5", "'garbage'", "x'ff00'"];

/// The contents of a file before the damage.
struct World {
    invocations: Vec<InvokeId>,
    schedule: InvokeId,
    /// The number of entries of each listing.
    entries: Vec<usize>,
}

/// Makes a file with at least one row in every table, whose columns take values of any type.
async fn world(place: &Place) -> World {
    let engine = place.open().await;
    ask(&engine, "CreateCommand", json!({
        "Name": "kept", "Type": "RunShellScript", "CommandContent": "ZXhpdDow", "ClientToken": "t",
        "Tag": [{"Key": "a", "Value": "1"}],
    }))
    .await
    .expect("a sound command");
    let mut invocations = Vec::new();
    let tagged = RunCommand::shell("out:one err:two exit:0").on(["i-1"]).tag("a", "1");
    for request in [tagged, RunCommand::shell("out:three exit:0").on(["i-2", "i-3"])] {
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        within(engine.wait_status(&id)).await.expect("it ends");
        invocations.push(id);
    }
    let retry = Retry::attempts(2).backoff(3_600);
    let request = RunCommand::shell("exit:1").on(["i-1"]).retry(retry);
    let (_, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    while !format!("{:?}", within(watch.next()).await.expect("readable"))
        .contains("retry_time: Some")
    {}
    let request = RunCommand::shell("exit:0").on(["i-1", "i-2"]).frequency("rate(7d)");
    let schedule = engine.run_command(request).await.expect("sound").invoke_id;
    let mut watch = engine.watch(&schedule).await.expect("it exists");
    engine.run_now(&schedule).await.expect("it repeats");
    for _ in 0..6 {
        within(watch.next()).await.expect("readable");
    }
    // The execution runs when its engine ends.
    let last = run(&engine, "out:four exit:0", &["i-3"]).await.results.remove(0);
    let entries = count(&engine).await.expect("nothing is damaged");
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let file = Connection::open(place.database()).expect("a database");
    file.execute_batch(&format!(
        "UPDATE executions SET status = 'Running', finished_at_ms = NULL, exit_code = NULL WHERE id = {0};
         UPDATE fires SET unfinished = 1, succeeded = 0 WHERE id = (SELECT fire FROM executions WHERE id = {0});
         UPDATE invocations SET status = NULL, finished_at_ms = NULL WHERE id =
             (SELECT invocation FROM fires WHERE id = (SELECT fire FROM executions WHERE id = {0}));
         INSERT INTO results (execution, json) VALUES (1, '1');
         INSERT INTO deliveries (execution, status, uri) VALUES (1, 'Finished', 'file:///x');
         INSERT INTO fires (invocation, timer, fire_at_ms, disposition, reason, unfinished, dealt_at_ms)
             SELECT invocation, id, 1, 'Missed', 'away', 0, 1 FROM timers;
         INSERT INTO client_tokens (caller, token, request_sha256, response, created_at_ms)
             VALUES ('', 'other', zeroblob(32), '{{}}', 1);
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE type = 'table';
         PRAGMA writable_schema = RESET;
         PRAGMA wal_checkpoint(TRUNCATE);",
        last.execution_id
    ))
    .expect("sound SQL");
    World { invocations, schedule, entries }
}

/// Goes through a listing to its end. Returns the number of its entries, including unreadable ones.
async fn entries(engine: &Engine, operation: &str, list: [&str; 2]) -> Result<usize, Error> {
    let mut request = json!({ "MaxResults": 3 });
    let (mut found, mut pages) = (0, 0);
    loop {
        let mut page = ask(engine, operation, request.clone()).await?;
        if operation == "DescribeInvocationResults" {
            page = page["Invocation"].take();
        }
        found += page[list[0]][list[1]].as_array().map_or(0, Vec::len);
        found += page["Unreadable"].as_array().map_or(0, Vec::len);
        pages += 1;
        assert!(pages < 100, "{operation} goes on and on");
        match page["NextToken"].as_str() {
            Some(token) if !token.is_empty() => request["NextToken"] = token.into(),
            _ => return Ok(found),
        }
    }
}

/// Returns the number of entries of each listing.
async fn count(engine: &Engine) -> Result<Vec<usize>, Error> {
    Ok(vec![
        entries(engine, "DescribeInvocations", ["Invocations", "Invocation"]).await?,
        entries(engine, "DescribeInvocationResults", ["InvocationResults", "InvocationResult"])
            .await?,
        entries(engine, "DescribeCommands", ["Commands", "Command"]).await?,
        entries(engine, "DescribeInstances", ["Instances", "Instance"]).await?,
    ])
}

/// Returns whether an error blames a record, or names a record that is not there any more.
fn blames_a_record(error: &Error) -> bool {
    let codes = [
        "Storage.Record",
        "Storage.Corrupt",
        "InvalidInvokeId.NotFound",
        "InvalidStatus.InvocationEnded",
    ];
    codes.contains(&error.code())
        || (error.code() == "InternalError" && !error.to_string().contains("panic"))
}

/// Opens the file and uses it in every way. Puts failures that must not happen into `wrong`.
async fn use_it(file: &Path, world: &World, wrong: &mut Vec<String>) {
    let builder = Engine::builder().path(file).durability(Durability::Relaxed);
    let opened = within(crate::support::with_executors(builder).open()).await;
    let engine = match opened {
        Ok(engine) => engine,
        Err(error) => return wrong.push(format!("open: {error}")),
    };
    match within(count(&engine)).await {
        // The records that a damaged row refers to, and the records that refer to it, may be missing.
        Ok(found) if found.iter().zip(&world.entries).all(|(found, all)| found + 3 >= *all) => {}
        Ok(found) => wrong.push(format!("{found:?} entries instead of {:?}", world.entries)),
        Err(error) => wrong.push(format!("listings: {error}")),
    }
    let mut note = |what: &str, error: &Error| {
        if !blames_a_record(error) {
            wrong.push(format!("{what}: {error}"));
        }
    };
    if let Err(error) = engine.overview(10).await {
        note("overview", &error);
    }
    for id in world.invocations.iter().chain([&world.schedule]) {
        let described = DescribeInvocations::default().invoke_id(*id).include_output();
        if let Err(error) = engine.describe_invocations(described).await {
            note("describe", &error);
        }
        for include_history in [false, true] {
            let mut results = DescribeInvocationResults::default().invoke_id(*id);
            results.include_history = include_history;
            if let Err(error) = engine.describe_invocation_results(results).await {
                note("results", &error);
            }
        }
        if let Err(error) = engine.explain(id, Utc::now()).await {
            note("explain", &error);
        }
        if let Err(error) = engine.describe_fires(DescribeFires::new(*id)).await {
            note("fires", &error);
        }
    }
    for id in &world.invocations {
        if let Err(error) = within(engine.wait(id)).await {
            note("wait", &error);
        }
        let mut events = 0;
        match within(engine.watch(id)).await {
            Err(error) => note("watch", &error),
            Ok(mut watch) => loop {
                match within(watch.next()).await {
                    Ok(None) => break,
                    Ok(Some(_)) => events += 1,
                    Err(error) => break note("watch", &error),
                }
                assert!(events < 100, "a watch goes on and on");
            },
        }
    }
    if let Err(error) = engine.run_now(&world.schedule).await {
        note("run now", &error);
    }
    if let Err(error) = engine.pause_invocation(&world.schedule).await {
        note("pause", &error);
    }
    within(engine.shutdown(Duration::ZERO)).await;
}

/// Damages each column of these tables in turn, in the first row, and in the last row if that is of another kind.
async fn check(tables: &[&str]) {
    let place = Place::new();
    let world = world(&place).await;
    let columns = {
        let file = Connection::open(place.database()).expect("a database");
        let mut columns = Vec::new();
        for table in tables {
            let mut query =
                file.prepare("SELECT name FROM pragma_table_info(?1)").expect("sound SQL");
            let names = query.query_map([table], |row| row.get::<_, String>(0)).expect("columns");
            columns.extend(names.map(|name| (*table, name.expect("text"))));
        }
        columns
    };
    let (mut wrong, mut cases) = (Vec::new(), 0);
    for (table, column) in columns {
        for garbage in GARBAGE {
            // In these tables the first and the last row are of different kinds.
            let kinds = ["meta", "invocations", "fires", "executions"].contains(&table);
            for row in if kinds { &["min", "max"][..] } else { &["min"] } {
                // The file gets a name of its own, because connections of the engine before may still be about to
                // end.
                cases += 1;
                let damaged = place.folder().join(format!("damaged-{cases}.db"));
                std::fs::copy(place.database(), &damaged).expect("a copy");
                let changed = damage(&damaged, table, &column, row, garbage);
                if changed.is_err() {
                    // The column cannot take the value, however it is written.
                    continue;
                }
                let mut found = Vec::new();
                use_it(&damaged, &world, &mut found).await;
                let what = format!("{table}.{column} = {garbage} ({row})");
                wrong.extend(found.into_iter().map(|found| format!("{what}: {found}")));
                let _ = std::fs::remove_file(&damaged);
            }
        }
    }
    let shown = wrong.iter().take(60).collect::<Vec<_>>();
    assert!(wrong.is_empty(), "{} of these: {shown:#?}", wrong.len());
}

fn damage(
    file: &Path,
    table: &str,
    column: &str,
    row: &str,
    garbage: &str,
) -> rusqlite::Result<()> {
    let file = Connection::open(file)?;
    file.execute_batch(
        "PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF;",
    )?;
    file.execute(
        &format!("UPDATE {table} SET {column} = {garbage} WHERE rowid = (SELECT {row}(rowid) FROM {table})"),
        (),
    )?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_instance_command_or_note_holds_up_nothing_else() {
    check(&[
        "meta",
        "instances",
        "instance_tags",
        "contents",
        "commands",
        "command_tags",
        "days",
        "client_tokens",
    ])
    .await;
}

#[tokio::test]
async fn a_damaged_invocation_holds_up_nothing_else() {
    check(&["invocations", "invocation_tags"]).await;
}

#[tokio::test]
async fn a_damaged_schedule_holds_up_nothing_else() {
    check(&["timers", "targets", "fires"]).await;
}

#[tokio::test]
async fn a_damaged_execution_holds_up_nothing_else() {
    check(&["executions", "outputs", "results", "deliveries"]).await;
}

/// A leaf of a table becomes a copy of the table's root, so a read of the table comes to the same rows again.
#[tokio::test]
async fn pages_that_lead_back_to_themselves_come_to_an_end() {
    let place = Place::new();
    let engine = place.open().await;
    for _ in 0..250 {
        let request = RunCommand::shell("exit:0").on(["i-1"]);
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        within(engine.wait_status(&id)).await.expect("it ends");
    }
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let (root, page_size) = {
        let file = Connection::open(place.database()).expect("a database");
        file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("nobody else is there");
        let number = |sql: &str| {
            file.query_row(sql, (), |row| row.get::<_, u32>(0)).expect("a number") as usize
        };
        (
            number("SELECT rootpage FROM sqlite_schema WHERE name = 'invocations'"),
            number("PRAGMA page_size"),
        )
    };
    let sound = std::fs::read(place.database()).expect("a file");
    let page = |number: usize| (number - 1) * page_size..number * page_size;
    let root_page = &sound[page(root)];
    assert_eq!(root_page[0], 5, "an inner page of a table");
    let cells = u16::from_be_bytes([root_page[3], root_page[4]]);
    for cell in 0..cells {
        // Each file gets a name of its own, as above.
        let at = usize::from(12 + 2 * cell);
        let at = usize::from(u16::from_be_bytes([root_page[at], root_page[at + 1]]));
        let leaf =
            u32::from_be_bytes(root_page[at..at + 4].try_into().expect("four bytes")) as usize;
        let mut damaged = sound.clone();
        damaged.copy_within(page(root), (leaf - 1) * page_size);
        let path = place.folder().join(format!("damaged-{cell}.db"));
        std::fs::write(&path, damaged).expect("a file");
        let reader = Engine::builder().path(&path).read_only().open().await.expect("it opens");
        let mut request = DescribeInvocations::default().max_results(50);
        let mut pages = 0;
        let error = loop {
            match within(reader.describe_invocations(request.clone())).await {
                Err(error) => break Some(error),
                Ok(page) if page.next_token.is_empty() => break None,
                Ok(page) => request.next_token = Some(page.next_token),
            }
            pages += 1;
            assert!(pages < 20, "250 invocations, 50 a page, leaf {leaf}");
        };
        let error = error.expect("a page is missing");
        assert_eq!(error.code(), "Storage.Corrupt", "leaf {leaf}: {error}");
    }
}

#[tokio::test]
async fn an_output_whose_parts_do_not_fit_is_reported_once() {
    let place = Place::new();
    let engine = place.open().await;
    let finished = run(&engine, "out:one err:two exit:0", &["i-1", "i-2"]).await;
    let id = finished.results[0].invoke_id;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let check = async |set: &str| {
        let file = Connection::open(place.database()).expect("a database");
        file.execute_batch(
            "PRAGMA ignore_check_constraints = ON; CREATE TEMP TABLE kept AS SELECT * FROM outputs",
        )
        .expect("sound SQL");
        file.execute(&format!("UPDATE outputs SET {set} WHERE execution = 1"), ())
            .expect("sound SQL");
        let reader =
            Engine::builder().path(place.database()).read_only().open().await.expect("it opens");
        let mut watch = reader.watch(&id).await.expect("it exists");
        let (mut unreadable, mut events) = (0, 0);
        while let Some(event) = within(watch.next()).await.expect("readable") {
            events += 1;
            unreadable += usize::from(format!("{event:?}").starts_with("Unreadable"));
            assert!(events < 100, "{set}: it goes on and on");
        }
        assert_eq!(unreadable, 1, "{set}");
        let finished = within(reader.wait(&id)).await.expect("it has ended");
        assert_eq!((finished.results.len(), finished.unreadable.len()), (1, 1), "{set}");
        assert_eq!(finished.unreadable[0].id, "1", "{set}");
        file.execute_batch(
            "UPDATE outputs SET (bytes, runs, gap_at, dropped) = (SELECT k.bytes, k.runs, k.gap_at, k.dropped
                 FROM kept k WHERE k.execution = outputs.execution)",
        )
        .expect("sound SQL");
    };
    check("runs = x'10'").await;
    check("runs = x''").await;
    check("runs = x'ffffffffffffffffff01'").await;
    check("bytes = x'00'").await;
    check("bytes = x''").await;
    check("gap_at = 100, dropped = 1").await;
    check("gap_at = 1, dropped = 0").await;
    check("dropped = 9223372036854775807").await;
}

//! Records that cannot be read, in a file that is opened and in one that is in use.

use std::fs;

use std::time::Duration;

use adjutant::{
    Engine, EngineEnd, Instance, InvocationStatus, InvokeId, LOCAL, ManualClock, MissedPolicy,
    RepeatMode, Retry, RetryOn, RunCommand, StopInvocation, StorageErrorKind,
};
use rusqlite::Connection;

use crate::recurrence::{clock, ended, open};
use crate::support::{Gate, Place, register, wait, within};

/// A file in the state that a killed engine leaves, and the invocations in it whose records stay sound.
struct Left {
    place: Place,
    gate: Gate,
    reboot: InvokeId,
    run: InvokeId,
}

impl Left {
    /// Makes a file in which two invocations run and two wait for a boot.
    async fn new() -> Self {
        let (place, left, gate) = (Place::new(), Place::new(), Gate::new());
        let builder = gate.plug_in(place.builder().clock(clock()));
        let engine = builder.open().await.expect("the file opens");
        register(&engine, "gate", 2).await;
        let invoke = async |request: RunCommand, name: &str| {
            engine.run_command(request.name(name)).await.expect("a sound request").invoke_id
        };
        let on_reboot = RunCommand::shell("true").on([LOCAL]).max_concurrency(1);
        let on_reboot = on_reboot.repeat_mode(RepeatMode::EveryReboot);
        invoke(on_reboot.clone(), "damaged reboot").await;
        let reboot = invoke(on_reboot, "reboot").await;
        let retry = Retry::attempts(2).backoff(0).on([RetryOn::Interrupted]);
        let running = RunCommand::shell("x").retry(retry);
        let damaged = invoke(running.clone().on(["i-1"]), "damaged run").await;
        let run = invoke(running.on(["i-2"]), "run").await;
        within(gate.arrivals(2)).await;
        for suffix in ["", "-wal"] {
            let name = format!("adjutant.db{suffix}");
            fs::copy(place.folder().join(&name), left.folder().join(&name)).expect("copied");
        }
        gate.let_go(2);
        for invoke_id in [damaged, run] {
            assert_eq!(wait(&engine, &invoke_id).await.status, InvocationStatus::Success);
        }
        Self { place: left, gate, reboot, run }
    }
}

#[tokio::test]
async fn one_record_that_cannot_be_read_keeps_no_file_from_being_opened() {
    let of_run = "SELECT e.error_info FROM executions e JOIN fires f ON f.id = e.fire
        JOIN invocations v ON v.id = f.invocation WHERE v.name = 'damaged run' ORDER BY e.attempt LIMIT 1";
    let of_reboot = "SELECT f.reason FROM fires f JOIN invocations v ON v.id = f.invocation
        WHERE v.name = 'damaged reboot'";
    let check = async |damage: &[&str], told: &str, says: &str| {
        let left = Left::new().await;
        let file = Connection::open(left.place.database()).expect("a database");
        let boot = "UPDATE targets SET boot_id = 'before' WHERE awaits_boot = 1";
        assert_eq!(file.execute(boot, ()).expect("sound SQL"), 2);
        for sql in damage {
            assert_eq!(file.execute(sql, ()).expect("sound SQL"), 1, "{sql}");
        }
        let builder = left.gate.plug_in(left.place.builder().clock(clock()));
        let engine = within(builder.open()).await;
        let engine = engine.unwrap_or_else(|error| panic!("{damage:?}: {error}"));
        let said: Vec<String> = file
            .prepare(told)
            .and_then(|mut query| query.query_map((), |row| row.get(0))?.collect())
            .unwrap_or_else(|error| panic!("{damage:?}: {error}"));
        assert!(matches!(&*said, [said] if said.contains(says)), "{damage:?}: {said:?}");
        // The other invocations are served.
        left.gate.let_go(2);
        assert_eq!(wait(&engine, &left.run).await.results.len(), 1, "{damage:?}");
        ended(&engine, left.reboot, 1).await;
    };
    let invocation = |column: &str, name: &str| {
        format!("UPDATE invocations SET {column} = 'x' WHERE name = 'damaged {name}'")
    };
    check(&[&invocation("rate_control", "reboot")], of_reboot, "the invocation did not fire").await;
    check(&[&invocation("retry", "run")], of_run, "it is not tried again").await;
    let name = "UPDATE instances SET instance_id = CAST(x'ff' AS TEXT) WHERE instance_id = 'i-1'";
    check(&[name], of_run, "ended while it ran").await;
    let once = "UPDATE invocations SET retry = NULL WHERE name = 'damaged run'";
    let fire = "UPDATE fires SET succeeded = -1 WHERE invocation =
        (SELECT id FROM invocations WHERE name = 'damaged run')";
    check(&[once, fire], of_run, "nothing else can follow from its end").await;
}

/// Two invocations for each part of the scheduler's work (a schedule, another attempt, a deadline and a wave), of
/// which one is to be damaged.
struct Parts {
    place: Place,
    gate: Gate,
    clock: ManualClock,
    engine: Engine,
    /// The invocations to be damaged.
    damaged: Vec<InvokeId>,
    schedule: InvokeId,
    /// The other invocations, each with its end.
    sound: Vec<(InvokeId, InvocationStatus)>,
}

impl Parts {
    async fn new() -> Self {
        let (place, gate, clock) = (Place::new(), Gate::new(), clock());
        let engine = open(gate.plug_in(place.builder()), &clock).await;
        for name in ["held-1", "held-2"] {
            let instance = Instance::new(name).executor("gate");
            engine.register_instance(instance).await.expect("a sound instance");
        }
        let invoke = async |request: RunCommand, name: &str| {
            engine.run_command(request.name(name)).await.expect("a sound request").invoke_id
        };
        let schedule = RunCommand::shell("exit:0").on(["i-1"]).timeout(5);
        let schedule = schedule.frequency("0/10 * * * * ?").missed_policy(MissedPolicy::Latest);
        let retry = Retry::attempts(2).backoff(15);
        let retried = RunCommand::shell("exit:1").on(["i-1"]).retry(retry);
        let late = RunCommand::shell("x").timeout(80_000).deadline(15);
        let waves = RunCommand::shell("exit:0").on(["i-1", "i-2"]).waves([1]).wave_soak(15);
        let mut damaged = vec![invoke(schedule.clone(), "damaged schedule").await];
        let sound_schedule = invoke(schedule, "schedule").await;
        damaged.push(invoke(retried.clone(), "damaged retry").await);
        damaged.push(invoke(late.clone().on(["held-1"]), "damaged deadline").await);
        damaged.push(invoke(waves.clone(), "damaged wave").await);
        let sound = vec![
            (invoke(retried, "retry").await, InvocationStatus::Failed),
            (invoke(late.on(["held-2"]), "deadline").await, InvocationStatus::Stopped),
            (invoke(waves, "wave").await, InvocationStatus::Success),
        ];
        within(gate.arrivals(2)).await;
        let file = Connection::open(place.database()).expect("a database");
        let waiting = "SELECT (SELECT count(*) FROM executions WHERE retry_at_ms IS NOT NULL)
            + (SELECT count(*) FROM fires WHERE wave_at_ms IS NOT NULL)";
        let wait = async {
            while file.query_row(waiting, (), |row| row.get::<_, i64>(0)).expect("sound SQL") < 4 {
                tokio::task::yield_now().await;
            }
        };
        within(wait).await;
        Self { place, gate, clock, engine, damaged, schedule: sound_schedule, sound }
    }

    fn damage(&self, sql: &str) {
        let file = Connection::open(self.place.database()).expect("a database");
        let sql =
            format!("PRAGMA wal_autocheckpoint = 0; PRAGMA ignore_check_constraints = ON; {sql}");
        file.execute_batch(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Checks that the sound invocations go on. Executions that hold the gate end when they are asked to.
    async fn goes_on(&self, what: &str, except: &[usize]) {
        println!("{what}");
        for count in 1..=4 {
            if !except.contains(&0) {
                pass_until(&self.engine, &self.clock, ended(&self.engine, self.schedule, count))
                    .await;
            }
        }
        for (number, (invoke_id, status)) in self.sound.iter().enumerate() {
            if !except.contains(&(number + 1)) {
                let waits = self.engine.wait_status(invoke_id);
                let told = pass_until(&self.engine, &self.clock, waits).await;
                assert_eq!(told.ok(), Some(*status), "{what}: {number}");
            }
        }
        self.gate.let_go(2);
    }
}

/// Lets time pass until a condition is true. Each second the engine has a while to act.
async fn pass_until<T>(engine: &Engine, clock: &ManualClock, is_so: impl Future<Output = T>) -> T {
    let mut is_so = std::pin::pin!(within(is_so));
    loop {
        tokio::select! {
            biased;
            done = &mut is_so => return done,
            _ = engine.overview(1) => {}
        }
        clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_dealt_with_keeps_no_other_row_from_it() {
    let of_damaged = "IN (SELECT id FROM invocations WHERE name LIKE 'damaged%')";
    let refuses = |table: &str, of: &str| {
        format!(
            "CREATE TRIGGER refuses_{table} BEFORE UPDATE ON {table} WHEN {of} {of_damaged}
             BEGIN SELECT RAISE(ABORT, 'damaged'); END;"
        )
    };
    let of_execution = "(SELECT invocation FROM fires WHERE id = old.fire)";
    let check = async |damage: &str| {
        let parts = Parts::new().await;
        parts.damage(damage);
        parts.goes_on(damage, &[]).await;
    };
    check(&format!(
        "UPDATE invocations SET invoke_id = substr(invoke_id, 14, 3) WHERE id {of_damaged}"
    ))
    .await;
    check(&refuses("timers", "old.invocation")).await;
    check(&refuses("fires", "old.invocation")).await;
    check(&refuses("executions", of_execution)).await;
    check(&["timers", "fires"].map(|table| refuses(table, "old.invocation")).concat()).await;
}

#[tokio::test]
async fn a_part_of_the_work_that_cannot_be_read_keeps_no_other_part_from_going_on() {
    let check = async |index: &str, except: &[usize]| {
        let parts = Parts::new().await;
        parts.damage(&redirect(index, "outputs"));
        parts.goes_on(index, except).await;
    };
    check("timers_due", &[0]).await;
    check("executions_by_retry", &[1]).await;
    check("fires_by_end", &[2]).await;
    check("fires_by_wave", &[3]).await;
    check("instances_booting", &[]).await;
    check("fires_by_due_until", &[0]).await;
}

/// Returns SQL that moves an index or a table of the engine's file to the place of another, so that each read of it
/// finds damage.
fn redirect(name: &str, other: &str) -> String {
    format!(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET rootpage =
             (SELECT rootpage FROM sqlite_schema WHERE name = '{other}') WHERE name = '{name}';
         PRAGMA schema_version = {}",
        1_000 + name.len()
    )
}

/// The page on which the invocation of a timer lies.
#[tokio::test]
async fn a_damaged_page_keeps_no_other_schedule_from_firing() {
    let parts = Parts::new().await;
    let Parts { place, clock, damaged, schedule, gate, .. } = &parts;
    within(parts.engine.shutdown(Duration::ZERO)).await;
    let Parts { engine, .. } = &parts;
    assert_eq!(engine.path(), Some(place.database().canonicalize().expect("a file").as_path()));
    let copy = Place::new();
    {
        let file = Connection::open(place.database()).expect("a database");
        // Each invocation lies on a page of its own, the damaged invocation on the first page.
        let grow = "UPDATE invocations SET description = printf('%.*c', 3000, 'x')";
        assert_eq!(file.execute(grow, ()).expect("sound SQL"), 8);
        file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("nobody else is there");
        let number =
            |sql: &str| file.query_row(sql, (), |row| row.get::<_, usize>(0)).expect("a number");
        let page = number(
            "SELECT pageno FROM dbstat WHERE name = 'invocations' AND pagetype = 'leaf' ORDER BY path LIMIT 1",
        );
        let page_size = number("PRAGMA page_size");
        let mut bytes = fs::read(place.database()).expect("a file");
        bytes[(page - 1) * page_size] = 0xff;
        fs::write(copy.database(), bytes).expect("a file");
    }
    {
        let file = Connection::open(copy.database()).expect("a database");
        let read = "SELECT frequency FROM invocations WHERE name = 'damaged schedule'";
        let read = file.query_row(read, (), |row| row.get::<_, String>(0));
        assert!(read.is_err(), "its row is damaged: {read:?}");
    }
    let engine = open(gate.plug_in(copy.builder()), clock).await;
    for count in 1..=3 {
        pass_until(&engine, clock, ended(&engine, *schedule, count)).await;
    }
    let told = pass_until(&engine, clock, engine.wait_status(&damaged[0])).await;
    let told = told.expect_err("it cannot be read");
    assert_eq!(told.code(), "Storage.Corrupt", "{told}");
}

#[tokio::test]
async fn an_engine_ends_if_no_part_of_its_work_can_be_read() {
    let parts = Parts::new().await;
    let damaged = [
        ("timers_due", "outputs"),
        ("executions_by_retry", "outputs"),
        ("fires_by_start", "outputs"),
        ("fires_by_wave", "results"),
        ("stops", "commands_by_name"),
    ];
    parts.damage(&damaged.map(|(name, other)| redirect(name, other)).join(";"));
    parts.clock.advance(Duration::from_secs(31));
    let end = within(parts.engine.closed()).await;
    assert!(
        matches!(&end, EngineEnd::Storage(error) if error.kind == StorageErrorKind::Corrupt),
        "{end}"
    );
    let told = within(parts.engine.wait_status(&parts.damaged[0])).await.expect_err("it has ended");
    assert_eq!(told.code(), "Storage.Corrupt", "{told}");
}

/// A fire that goes on has counts that no version of this library writes.
#[tokio::test]
async fn callers_that_wait_for_an_invocation_with_unreadable_counts_are_told() {
    let columns = ["unfinished", "succeeded", "failed", "stopped"];
    for (number, column) in columns.into_iter().enumerate() {
        let value = ["'x'", "9223372036854775807", "-1", "x'ff'"][number];
        for reopens in [false, true] {
            for stops in [false, true] {
                let what = format!("{column} = {value}, {reopens}, {stops}");
                let (place, gate) = (Place::new(), Gate::new());
                let open = async || {
                    let builder = gate.plug_in(place.builder()).max_concurrent(1);
                    let engine = builder.open().await.expect("it opens");
                    register(&engine, "gate", 2).await;
                    engine
                };
                let mut engine = open().await;
                let request = RunCommand::shell("x").on(["i-1", "i-2"]);
                let id = engine.run_command(request).await.expect("sound").invoke_id;
                within(gate.arrivals(1)).await;
                let waiter = engine.clone();
                let waits = tokio::spawn(async move { waiter.wait_status(&id).await });
                let file = Connection::open(place.database()).expect("a database");
                file.execute_batch(&format!(
                    "PRAGMA wal_autocheckpoint = 0; PRAGMA ignore_check_constraints = ON; PRAGMA writable_schema = ON;
                     UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'fires';
                     PRAGMA schema_version = 1000; PRAGMA writable_schema = RESET;
                     UPDATE fires SET {column} = {value};"
                ))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
                if stops {
                    let _ = within(engine.stop_invocation(StopInvocation::new(id))).await;
                }
                gate.let_go(2);
                let told = within(waits).await.expect("no panic").expect_err(&what);
                assert!(
                    ["Storage.Record", "ServiceUnavailable"].contains(&told.code()),
                    "{what}: {told}"
                );
                if reopens {
                    within(engine.shutdown(Duration::ZERO)).await;
                    drop(engine);
                    engine = open().await;
                }
                let told = within(engine.wait_status(&id)).await.expect_err(&what);
                assert_eq!(told.code(), "Storage.Record", "{what}: {told}");
            }
        }
    }
}

/// Makes a file in the state that an engine leaves if it is killed while `running` executions run.
async fn killed(running: usize) -> (Place, Gate) {
    let (place, left, gate) = (Place::new(), Place::new(), Gate::new());
    let engine = gate.plug_in(place.builder()).max_concurrent(running).open().await;
    let engine = engine.expect("the file opens");
    register(&engine, "gate", 3).await;
    for _ in 0..running {
        engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("a sound request");
    }
    within(gate.arrivals(running as u32)).await;
    for suffix in ["", "-wal"] {
        let name = format!("adjutant.db{suffix}");
        fs::copy(place.folder().join(&name), left.folder().join(&name)).expect("copied");
    }
    gate.let_go(running);
    within(engine.shutdown(std::time::Duration::from_secs(30))).await;
    (left, gate)
}

/// Each page of a table or an index is damaged in turn.
#[tokio::test]
async fn one_page_that_cannot_be_read_keeps_no_file_from_being_opened() {
    const RUNNING: usize = 300;
    const PAGE: usize = 4_096;
    let (left, gate) = killed(RUNNING).await;
    let database = left.database();
    let file = Connection::open(&database).expect("a database");
    file.execute("INSERT INTO deliveries (execution, status, uri) VALUES (1, 'Finished', 'x')", ())
        .expect("sound SQL");
    file.execute("UPDATE executions SET stop_reason = 'MARK-A' WHERE id = 1", ()).expect("sound");
    file.execute("UPDATE executions SET stop_reason = 'MARK-B' WHERE id = 150", ()).expect("sound");
    let root = |name: &str| -> usize {
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        file.query_row(sql, [name], |row| row.get(0)).expect("it is there")
    };
    let deliveries = root("deliveries");
    let of_executions = root("sqlite_autoindex_deliveries_1");
    file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("nobody reads");
    drop(file);
    let sound = fs::read(&database).expect("readable");
    let holds = |mark: &str| {
        let is_here = |page: &[u8]| page.windows(mark.len()).any(|part| part == mark.as_bytes());
        1 + sound.chunks(PAGE).position(is_here).expect("it is somewhere")
    };
    for page in [holds("MARK-A"), holds("MARK-B"), deliveries, of_executions] {
        let place = Place::new();
        let mut damaged = sound.clone();
        damaged[(page - 1) * PAGE] = 0xff;
        fs::write(place.database(), damaged).expect("written");
        // The output and the folder of a run without any other record.
        for folder in ["outputs", "runs/1-1"] {
            let folder = place.folder().join(format!("adjutant.db.{folder}"));
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join("1"), "x").expect("written");
        }
        let engine = within(gate.plug_in(place.builder()).open()).await;
        let engine = engine.unwrap_or_else(|error| panic!("page {page}: {error}"));
        let file = Connection::open(place.database()).expect("a database");
        let told = "SELECT error_code FROM executions WHERE id = 300";
        let told: String = file.query_row(told, (), |row| row.get(0)).expect("readable");
        assert!(!told.is_empty(), "page {page}");
        gate.let_go(1);
        let run = engine.run_command(RunCommand::shell("x").on(["i-2"])).await.expect("sound");
        assert_eq!(wait(&engine, &run.invoke_id).await.status, InvocationStatus::Success, "{page}");
        within(engine.shutdown(std::time::Duration::ZERO)).await;
    }
}

/// The last engine has left executions that wait for an instance, and timers that were planned with other zone data.
#[tokio::test]
async fn damaged_rows_that_wait_keep_no_file_from_being_opened() {
    const WAIT: usize = 300;
    let (left, gate) = (Place::new(), Gate::new());
    let engine = gate.plug_in(left.builder()).open().await.expect("it opens");
    let narrow = Instance::new("narrow").executor("gate").max_concurrency(1);
    engine.register_instance(narrow).await.expect("a sound instance");
    for _ in 0..=WAIT {
        let request = RunCommand::shell("x").on(["narrow"]);
        engine.run_command(request.clone()).await.expect("sound");
        engine.run_command(request.frequency("rate(7d)")).await.expect("sound");
    }
    let waiting = |place: &Place| -> usize {
        let file = Connection::open(place.database()).expect("a database");
        let sql = "SELECT count(*) FROM executions INDEXED BY executions_awaiting
            WHERE awaits_instance IS NOT NULL";
        file.query_row(sql, (), |row| row.get(0)).expect("a sound index")
    };
    within(async {
        while waiting(&left) < WAIT {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let file = Connection::open(left.database()).expect("a database");
    let tamper = "UPDATE meta SET value = '1999a' WHERE key = 'zone_data'";
    assert_eq!(file.execute(tamper, ()).expect("sound SQL"), 1);
    drop(file);
    for table in ["executions", "timers", "fires", "invocations", "targets"] {
        let place = Place::new();
        fs::copy(left.database(), place.database()).expect("copied");
        let lost = place.damage_leaf(table, 50).count();
        let opened = within(gate.plug_in(place.builder()).idle().open()).await;
        let engine = opened.unwrap_or_else(|error| panic!("{table}: {error}"));
        let still = waiting(&place);
        match table {
            // SQLite may need a damaged page for rows of the pages next to it.
            "executions" => assert!((1..=3 * lost).contains(&still), "{still} of {WAIT}"),
            _ => assert_eq!(still, 0, "{table}: they wait for no place any more"),
        }
        within(engine.shutdown(Duration::ZERO)).await;
    }
}

/// The last engine was killed while the executions ran, and the end of one of them cannot be written.
#[tokio::test]
async fn callers_that_wait_for_an_end_that_no_open_can_record_are_told() {
    // A wait that only another attempt has; a count that cannot become larger.
    for (table, damage) in
        [("executions", "retry_at_ms = 5"), ("fires", "failed = 9223372036854775807")]
    {
        let (place, gate) = killed(3).await;
        let file = Connection::open(place.database()).expect("a database");
        let damage = format!(
            "PRAGMA ignore_check_constraints = on; UPDATE {table} SET {damage} WHERE id = 2"
        );
        file.execute_batch(&damage).expect("sound SQL");
        // The row of each execution, of its fire and of its invocation has the same number.
        let ids: Vec<String> = file
            .prepare("SELECT 't-' || lower(hex(invoke_id)) FROM invocations ORDER BY id")
            .and_then(|mut query| query.query_map((), |row| row.get(0))?.collect())
            .expect("readable");
        drop(file);
        let engine = within(gate.plug_in(place.builder()).open()).await.expect("it opens");
        for (number, id) in ids.iter().enumerate() {
            let id: InvokeId = id.parse().expect("an id");
            let status = within(engine.wait_status(&id)).await;
            if number != 1 {
                assert_eq!(status.ok(), Some(InvocationStatus::Failed), "{table}: {number}");
                continue;
            }
            let told = status.expect_err("its end cannot be recorded");
            assert_eq!(told.code(), "Storage.Record", "{table}: {told}");
            let mut watch = engine.watch(&id).await.expect("it exists");
            let told = within(async {
                loop {
                    match watch.next().await {
                        Ok(event) => assert!(event.is_some(), "{table}: the watch has ended"),
                        Err(error) => return error,
                    }
                }
            });
            assert_eq!(told.await.code(), "Storage.Record", "{table}");
        }
        within(engine.shutdown(Duration::ZERO)).await;
    }
}

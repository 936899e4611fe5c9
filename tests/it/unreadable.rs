//! Records that cannot be read, in a file that is opened and in one that is in use.

use std::fs;

use adjutant::{InvocationStatus, InvokeId, LOCAL, RepeatMode, Retry, RetryOn, RunCommand};
use rusqlite::Connection;

use crate::recurrence::{clock, ended, open, pass};
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

/// The engine tried again and again to do all that was due at once.
#[tokio::test]
async fn deadlines_that_cannot_be_read_keep_no_schedule_from_firing() {
    let (place, gate, clock) = (Place::new(), Gate::new(), clock());
    let engine = open(gate.plug_in(place.builder()), &clock).await;
    register(&engine, "gate", 1).await;
    let late = RunCommand::shell("x").on(["i-1"]).name("late").deadline(15);
    engine.run_command(late).await.expect("a sound request");
    within(gate.arrivals(1)).await;
    let repeating = RunCommand::shell("exit:0").on(["i-2"]).timeout(10);
    let repeating = repeating.frequency("0/10 * * * * ?");
    let repeating = engine.run_command(repeating).await.expect("a sound request").invoke_id;
    let file = Connection::open(place.database()).expect("a database");
    file.execute_batch("PRAGMA ignore_check_constraints = on").expect("sound SQL");
    let damage = "UPDATE invocations SET invoke_id = x'00' WHERE name = 'late'";
    assert_eq!(file.execute(damage, ()).expect("sound SQL"), 1);
    for count in 1..=5 {
        pass(&clock, 10).await;
        within(ended(&engine, repeating, count)).await;
    }
    gate.let_go(1);
}

//! Runs that go on when their host ends: the next engine has them as if nothing had been.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use adjutant::{
    DirectorySink, Engine, Event, ExecutionStatus, InvokeId, LOCAL, Notice, ProcessExecutor,
    RunCommand, StopInvocation, StopReason,
};
use libtest_mimic::Trial;
use serde_json::json;

use crate::harness::{
    Account, Host, Marker, Pipe, Place, check_says, ended, is_alive, kill, need_cgroups, need_root,
    open_to, printed, record, run, script, text, trials, until,
};
use crate::host::{Order, Setup};

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![
        a_run_that_survives_has_its_whole_record,
        a_run_that_ended_alone_has_its_whole_record,
        what_the_quota_leaves_out_is_counted_over_restarts,
        an_upgrade_waits_for_no_survivor,
        a_survivor_can_be_stopped,
        a_survivor_is_timed_out_while_nobody_is_there,
        a_stop_that_was_ordered_is_carried_out,
        a_run_whose_keeper_is_killed_is_ended,
        a_run_whose_keeper_was_killed_before_is_ended,
        a_survivor_whose_record_cannot_be_read_is_ended,
        another_boot_ends_a_survivor,
        idle_engines_leave_survivors_alone,
        a_copy_of_the_file_leaves_survivors_alone,
        a_file_may_be_moved_while_a_run_survives,
        a_keeper_is_listed_by_the_name_of_its_program,
        a_whole_output_waits_for_the_next_engine_with_its_sink,
        a_whole_output_includes_the_first_output_of_a_survivor,
    ];
    trials.extend(need_root(trials![
        a_survivor_may_be_another_users,
        a_run_that_cannot_survive_says_so_and_does_not_start,
    ]));
    trials.extend(need_cgroups(trials![a_killed_keeper_leaves_nothing_of_its_cgroup]));
    trials
}

/// A surviving run of a host, which says `up` and waits to be let go.
struct Survivor {
    place: Place,
    go_on: Pipe,
    told: Pipe,
    marker: Marker,
    invoke_id: InvokeId,
    host: Option<Host>,
}

impl Survivor {
    /// Its script: `up`, then `text`, in which `WAIT`, `TELL` and `SLEEP` are commands
    /// and `FILE` is a path.
    fn new(text: &str, how: impl FnOnce(RunCommand) -> RunCommand) -> Self {
        Self::with(|_| {}, text, how)
    }

    fn with(
        change: impl FnOnce(&mut Setup),
        text: &str,
        how: impl FnOnce(RunCommand) -> RunCommand,
    ) -> Self {
        let (place, marker) = (Place::new(), Marker::new());
        let (go_on, told) = (place.pipe("go-on"), place.pipe("told"));
        let mut setup = place.setup();
        change(&mut setup);
        let text = text
            .replace("WAIT", &go_on.wait())
            .replace("TELL", &told.ring())
            .replace("FILE", &place.path("file").display().to_string())
            .replace("SLEEP", &marker.sleep());
        let mut host = Host::start(&setup);
        let request = how(script(format!("echo \"up $0\"; {text}")).survive_restarts());
        let invoke_id = host.run(request);
        let path = host.expect("up ");
        // Where its script is, for `scratch`.
        fs::write(place.path("script"), path.trim_start_matches("up ")).expect("written");
        Self { place, go_on, told, marker, invoke_id, host: Some(host) }
    }

    fn lose_host(&mut self) {
        self.host.take().expect("a host").kill();
    }

    /// The folder that only this run has.
    fn scratch(&self) -> PathBuf {
        let script = fs::read_to_string(self.place.path("script")).expect("written");
        let parts = Path::new(&script).ancestors();
        let kept = |path: &&Path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kept-"))
        };
        parts.into_iter().find(kept).expect("a folder of its own").to_owned()
    }

    /// Nothing is on disk but the record, soon after that is there; and nobody is left.
    async fn check_is_tidied_up(&self) {
        self.marker.check_nobody_is_left("a survivor");
        let folders = [self.place.runs(), self.scratch()];
        until("its folders are gone", || !folders.iter().any(|folder| folder.exists())).await;
    }

    async fn stop(&self, engine: &Engine) {
        engine.stop_invocation(StopInvocation::new(self.invoke_id)).await.expect("a stop");
    }
}

const WHOLE: &str = "WAIT; echo alone; echo error >&2; TELL; WAIT; echo late; \
                     n=0; while [ $n -lt 30000 ]; do n=$((n+1)); done; \
                     echo '{\"n\": 1}' > $ADJUTANT_RESULT; exit CODE";

async fn a_run_that_survives_has_its_whole_record() {
    for (code, status) in [(0, ExecutionStatus::Success), (7, ExecutionStatus::Failed)] {
        let text = WHOLE.replace("CODE", &code.to_string());
        let mut survivor = Survivor::new(&text, |request| request);
        survivor.lose_host();
        survivor.go_on.open();
        survivor.told.heard();
        // And once more: what a second host has heard is not printed twice.
        survivor.place.host().kill();
        let engine = survivor.place.open().await;
        let goes_on = record(&engine, survivor.invoke_id).await;
        assert_eq!((goes_on.status, goes_on.error_info.as_str()), (ExecutionStatus::Running, ""));
        survivor.go_on.open();
        let record = ended(&engine, &survivor.invoke_id).await;
        assert_eq!(
            (record.status, record.exit_code),
            (status, Some(code)),
            "{}",
            record.error_info
        );
        assert_eq!(lines_after_first(&record), ["alone", "error", "late"]);
        assert_eq!((record.dropped, record.result.clone()), (0, Some(json!({"n": 1}))));
        assert!(record.user_time_us.expect("it is counted") > 1_000, "{record:?}");
        survivor.check_is_tidied_up().await;
    }
}

/// Sorted, for one output may be read before the other.
fn lines_after_first(record: &adjutant::InvocationResult) -> Vec<String> {
    let mut lines: Vec<String> = text_after_first_line(record).lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn text_after_first_line(record: &adjutant::InvocationResult) -> String {
    text(record).split_once('\n').expect("a line").1.to_owned()
}

async fn a_run_that_ended_alone_has_its_whole_record() {
    for (code, status) in [(0, ExecutionStatus::Success), (7, ExecutionStatus::Failed)] {
        let text = WHOLE.replace("CODE", &code.to_string());
        let mut survivor = Survivor::new(&text, |request| request);
        let keeper = survivor.place.keeper();
        survivor.lose_host();
        survivor.go_on.open();
        survivor.told.heard();
        survivor.go_on.open();
        until("the keeper ends", || !is_alive(&keeper.to_string())).await;
        let ended_by = chrono::Utc::now();
        let engine = survivor.place.open().await;
        let record = ended(&engine, &survivor.invoke_id).await;
        assert_eq!(
            (record.status, record.exit_code),
            (status, Some(code)),
            "{}",
            record.error_info
        );
        assert_eq!(lines_after_first(&record), ["alone", "error", "late"]);
        assert_eq!(record.result, Some(json!({"n": 1})));
        assert!(record.user_time_us.expect("it is counted") > 1_000, "{record:?}");
        assert!(record.finish_time.expect("it has ended") <= ended_by, "when it ended itself");
        survivor.check_is_tidied_up().await;
    }
}

async fn what_the_quota_leaves_out_is_counted_over_restarts() {
    // Eight digits and a line end each, 36,000 bytes in all.
    let count = |from: u32| format!("seq {from} {}", from + 1_999);
    let counts = [10_000_000, 20_000_000].map(|from| format!("{}; TELL; WAIT", count(from)));
    for ends_alone in [false, true] {
        let mut survivor = Survivor::new(&counts.join("; "), |request| request);
        survivor.told.heard();
        survivor.lose_host();
        survivor.go_on.open();
        survivor.told.heard();
        let engine = if ends_alone {
            let keeper = survivor.place.keeper();
            survivor.go_on.open();
            until("the keeper ends", || !is_alive(&keeper.to_string())).await;
            survivor.place.open().await
        } else {
            let engine = survivor.place.open().await;
            survivor.go_on.open();
            engine
        };
        let record = ended(&engine, &survivor.invoke_id).await;
        assert_eq!(record.status, ExecutionStatus::Success, "{}", record.error_info);
        let first_line = text(&record).split_once('\n').expect("a line").0.to_owned();
        let numbers = (10_000_000..10_002_000).chain(20_000_000..20_002_000);
        let lines = std::iter::once(first_line).chain(numbers.map(|n| n.to_string()));
        let whole: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
        let tail = whole.len() - 18_576;
        let kept = format!("{}{}", &whole[..6_000], &whole[tail..]);
        assert!(printed(&record) == kept, "ends alone: {ends_alone}");
        let dropped = (tail - 6_000) as u64;
        assert_eq!((record.dropped, record.dropped_at), (dropped, Some(6_000)));
        survivor.check_is_tidied_up().await;
    }
}

async fn an_upgrade_waits_for_no_survivor() {
    let mut survivor = Survivor::new("WAIT; echo late", |request| request);
    let host = survivor.host.take().expect("a host");
    // Half a minute is what it gives those that do not survive.
    let began = std::time::Instant::now();
    host.shut_down();
    assert!(began.elapsed() < Duration::from_secs(20), "it waited");
    let engine = survivor.place.open().await;
    assert_eq!(record(&engine, survivor.invoke_id).await.status, ExecutionStatus::Running);
    // The same without a process that ends.
    engine.shutdown(Duration::from_secs(30)).await;
    drop(engine);
    let engine = survivor.place.open().await;
    survivor.go_on.open();
    let record = ended(&engine, &survivor.invoke_id).await;
    assert!(printed(&record).ends_with("\nlate\n"));
    survivor.check_is_tidied_up().await;
}

async fn a_survivor_can_be_stopped() {
    for (text, says) in [
        ("setsid SLEEP & WAIT", "stopped on request"),
        ("trap '' TERM; setsid SLEEP & SLEEP; SLEEP", "it took SIGKILL to end "),
    ] {
        let mut survivor = Survivor::new(text, |request| request);
        survivor.lose_host();
        let engine = survivor.place.open().await;
        survivor.stop(&engine).await;
        let record = ended(&engine, &survivor.invoke_id).await;
        check_says(&record, ExecutionStatus::Terminated, "", says);
        survivor.check_is_tidied_up().await;
    }
}

async fn a_survivor_is_timed_out_while_nobody_is_there() {
    let mut survivor = Survivor::new("setsid SLEEP & WAIT", |request| request.timeout(1));
    let keeper = survivor.place.keeper();
    survivor.lose_host();
    until("the keeper ends", || !is_alive(&keeper.to_string())).await;
    survivor.marker.check_nobody_is_left("a run that was timed out");
    let engine = survivor.place.open().await;
    let record = ended(&engine, &survivor.invoke_id).await;
    check_says(&record, ExecutionStatus::Timeout, "ExecutionTimeout", "its timeout of 1 s");
    assert_eq!(record.stop_cause, Some(StopReason::Timeout));
    survivor.check_is_tidied_up().await;
}

async fn a_stop_that_was_ordered_is_carried_out() {
    let text = "trap 'TELL; WAIT; exit 3' TERM; while :; do sleep 0.01; done";
    let mut survivor = Survivor::new(text, |request| request);
    let invoke_id = survivor.invoke_id;
    let host = survivor.host.as_mut().expect("a host");
    host.order(&Order::Stop(invoke_id));
    survivor.lose_host();
    let engine = survivor.place.open().await;
    survivor.go_on.open();
    let record = ended(&engine, &survivor.invoke_id).await;
    check_says(&record, ExecutionStatus::Terminated, "", "stopped on request");
    survivor.check_is_tidied_up().await;
}

const KEEPER_LOST: &str = "its keeper ended before it did; what was left of it was ended: ";

async fn a_run_whose_keeper_is_killed_is_ended() {
    let mut survivor = Survivor::new("(setsid SLEEP &); SLEEP", |request| request);
    kill(survivor.place.keeper());
    let mut host = survivor.host.take().expect("a host");
    let record = host.ended();
    check_says(&record, ExecutionStatus::Error, "ExecutionInterrupted", KEEPER_LOST);
    assert!(text(&record).starts_with("up "), "{}", text(&record));
    survivor.check_is_tidied_up().await;
    assert_eq!(printed(&host.finish(script("echo next"))), "next\n");
}

async fn a_keeper_is_listed_by_the_name_of_its_program() {
    let survivor = Survivor::new("WAIT", |request| request);
    let listed = fs::read(format!("/proc/{}/cmdline", survivor.place.keeper())).expect("it lives");
    let program = std::env::current_exe().expect("this program");
    let want = format!("{}\0--adjutant-helper=keeper\0", program.display());
    assert_eq!(String::from_utf8_lossy(&listed), want);
    survivor.go_on.open();
}

async fn a_run_whose_keeper_was_killed_before_is_ended() {
    let mut survivor = Survivor::new("(setsid SLEEP &); SLEEP", |request| request);
    let keeper = survivor.place.keeper();
    survivor.lose_host();
    kill(keeper);
    until("the keeper ends", || !is_alive(&keeper.to_string())).await;
    let engine = survivor.place.open().await;
    survivor.check_is_tidied_up().await;
    let record = ended(&engine, &survivor.invoke_id).await;
    let says = "what was left of it was ended: ";
    check_says(&record, ExecutionStatus::Error, "ExecutionInterrupted", says);
}

async fn a_survivor_whose_record_cannot_be_read_is_ended() {
    let check = async |damage: &str, is_local_sound: bool| {
        let mut survivor = Survivor::new("(setsid SLEEP &); SLEEP", |request| request);
        let keeper = survivor.place.keeper();
        survivor.lose_host();
        let file = rusqlite::Connection::open(survivor.place.db()).expect("a database");
        assert_eq!(file.execute(damage, ()).expect("sound SQL"), 1, "{damage}");
        let engine = survivor.place.open().await;
        survivor.check_is_tidied_up().await;
        until("the keeper ends", || !is_alive(&keeper.to_string())).await;
        let told = "SELECT status || ': ' || error_info FROM executions ORDER BY id LIMIT 1";
        let said: String = file.query_row(told, (), |row| row.get(0)).expect("a record");
        assert!(said.starts_with("Error: "), "{damage}: {said}");
        assert!(said.contains("the run could not be taken back: "), "{damage}: {said}");
        if is_local_sound {
            let next = crate::harness::run(&engine, script("echo next")).await;
            assert_eq!(printed(&next), "next\n", "{damage}");
        }
    };
    check("UPDATE invocations SET resource_limits = 'x'", true).await;
    check("UPDATE instances SET name = CAST(x'ff' AS TEXT) WHERE instance_id = 'local'", false)
        .await;
    let stop = "UPDATE executions
        SET status = 'Stopping', stop_at_ms = 1, stopped_by = CAST(x'ff' AS TEXT)";
    check(stop, true).await;
}

async fn another_boot_ends_a_survivor() {
    let mut survivor = Survivor::new("setsid SLEEP & SLEEP", |request| request);
    let keeper = survivor.place.keeper();
    survivor.lose_host();
    let file = survivor.place.kept().join("identity");
    let mut identity: serde_json::Value =
        serde_json::from_slice(&fs::read(&file).expect("written")).expect("JSON");
    assert!(identity["boot_id"].is_string(), "{identity}");
    identity["boot_id"] = json!("00000000-0000-0000-0000-000000000000");
    fs::write(&file, identity.to_string()).expect("written");
    let engine = survivor.place.open().await;
    let record = ended(&engine, &survivor.invoke_id).await;
    let says = "its end is not known";
    check_says(&record, ExecutionStatus::Error, "ExecutionInterrupted", says);
    survivor.check_is_tidied_up().await;
    until("the keeper ends", || !is_alive(&keeper.to_string())).await;
}

async fn idle_engines_leave_survivors_alone() {
    let mut survivor = Survivor::new("WAIT; echo late", |request| request);
    survivor.lose_host();
    let builder = Engine::builder().path(survivor.place.db());
    let builder = builder.executor(LOCAL, ProcessExecutor::new());
    let idle = builder.idle().open().await.expect("it opens");
    assert_eq!(record(&idle, survivor.invoke_id).await.status, ExecutionStatus::Running);
    idle.shutdown(Duration::ZERO).await;
    drop(idle);
    let engine = survivor.place.open().await;
    survivor.go_on.open();
    assert!(printed(&ended(&engine, &survivor.invoke_id).await).ends_with("\nlate\n"));
    survivor.check_is_tidied_up().await;
}

async fn a_copy_of_the_file_leaves_survivors_alone() {
    for files in [&["a.db", "a.db-wal"][..], &["a.db", "a.db-wal", "a.db.runs"]] {
        let mut survivor = Survivor::new("WAIT; echo late", |request| request);
        survivor.lose_host();
        let elsewhere = Place::new();
        for file in files {
            let paths = [survivor.place.path(file), elsewhere.path(file)];
            let copied = Command::new("cp").arg("-a").args(paths).status();
            assert!(copied.expect("cp starts").success());
        }
        let copy = elsewhere.open().await;
        let copied = record(&copy, survivor.invoke_id).await;
        check_says(&copied, ExecutionStatus::Error, "ExecutionInterrupted", "its end is not known");
        assert!(!elsewhere.runs().exists());
        let engine = survivor.place.open().await;
        survivor.go_on.open();
        assert!(printed(&ended(&engine, &survivor.invoke_id).await).ends_with("\nlate\n"));
        survivor.check_is_tidied_up().await;
    }
}

async fn a_file_may_be_moved_while_a_run_survives() {
    for ends_alone in [false, true] {
        let mut survivor = Survivor::new("WAIT; echo late", |request| request);
        let keeper = survivor.place.keeper();
        survivor.lose_host();
        let elsewhere = Place::new();
        for file in ["a.db", "a.db-wal", "a.db.runs"] {
            fs::rename(survivor.place.path(file), elsewhere.path(file)).expect("moved");
        }
        if ends_alone {
            survivor.go_on.open();
            until("the keeper ends", || !is_alive(&keeper.to_string())).await;
        }
        let engine = elsewhere.open().await;
        if !ends_alone {
            survivor.go_on.open();
        }
        let record = ended(&engine, &survivor.invoke_id).await;
        assert!(printed(&record).ends_with("\nlate\n"), "ends alone: {ends_alone}");
        survivor.check_is_tidied_up().await;
    }
}

async fn a_survivor_may_be_another_users() {
    let ann = Account::ann();
    let text = "id -un; WAIT; echo 2 > $ADJUTANT_RESULT; echo late";
    let mut survivor = Survivor::new(text, |request| request.username(&ann.name));
    open_to(&survivor.place.path(""), 0o755);
    survivor.lose_host();
    let engine = survivor.place.open().await;
    survivor.go_on.open();
    let record = ended(&engine, &survivor.invoke_id).await;
    assert_eq!(record.status, ExecutionStatus::Success, "{}", record.error_info);
    assert_eq!(text_after_first_line(&record), format!("{}\nlate\n", ann.name));
    assert_eq!(record.result, Some(json!(2)));
    survivor.check_is_tidied_up().await;

    let mut survivor =
        Survivor::new("(setsid SLEEP &); SLEEP", |request| request.username(&ann.name));
    survivor.lose_host();
    let engine = survivor.place.open().await;
    survivor.stop(&engine).await;
    let record = ended(&engine, &survivor.invoke_id).await;
    check_says(&record, ExecutionStatus::Terminated, "", "stopped on request");
    survivor.check_is_tidied_up().await;
}

/// The directories of cgroups that runs have which survive.
fn kept_groups(mark: &str) -> Vec<PathBuf> {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(mark) {
                    found.push(entry.path());
                }
                open.push(entry.path());
            }
        }
    }
    found
}

async fn a_killed_keeper_leaves_nothing_of_its_cgroup() {
    let hides = "env -i setsid sh -c '(SLEEP &)'; echo $ADJUTANT_RUN > FILE; TELL; SLEEP";
    for is_lost_first in [false, true] {
        let cgroups = |setup: &mut Setup| setup.cgroups = true;
        let mut survivor = Survivor::with(cgroups, hides, |request| request);
        survivor.told.heard();
        let keeper = survivor.place.keeper();
        let record = if is_lost_first {
            survivor.lose_host();
            kill(keeper);
            until("the keeper ends", || !is_alive(&keeper.to_string())).await;
            let engine = survivor.place.open().await;
            ended(&engine, &survivor.invoke_id).await
        } else {
            kill(keeper);
            survivor.host.as_ref().expect("a host").ended()
        };
        assert_eq!(record.status, ExecutionStatus::Error);
        survivor.check_is_tidied_up().await;
        let mark = fs::read_to_string(survivor.place.path("file")).expect("written");
        let mark = mark.trim_end();
        assert_eq!(mark.len(), 32, "{mark}");
        assert_eq!(kept_groups(mark), Vec::<PathBuf>::new());
    }
}

/// The engine that comes between two engines with the sink.
#[derive(Debug, Clone, Copy)]
enum Between {
    Idle,
    WithoutSink,
}

async fn a_whole_output_waits_for_the_next_engine_with_its_sink() {
    use Between::{Idle, WithoutSink};
    // The engines in between, and whether the run ends under the last of them.
    for (between, ends_there) in [
        (&[][..], false),
        (&[Idle], false),
        (&[WithoutSink], false),
        (&[Idle, WithoutSink, Idle], false),
        (&[WithoutSink], true),
        (&[Idle, WithoutSink], true),
    ] {
        let what = format!("{between:?}, ends there: {ends_there}");
        let folder = tempfile::tempdir().expect("a folder");
        let with_sink = |setup: &mut Setup| setup.sink = Some(folder.path().to_owned());
        let text = "WAIT; seq 10000; TELL; WAIT; echo late";
        let mut survivor = Survivor::with(with_sink, text, |mut request| {
            request.oss_output_delivery = Some("file:///sink".to_owned());
            request
        });
        let mut whole = fs::read_to_string(survivor.place.path("script")).expect("written");
        whole = format!("up {whole}\n{}late\n", numbers(10_000));
        survivor.go_on.open();
        survivor.told.heard();
        survivor.lose_host();
        for (n, engine) in between.iter().enumerate() {
            let builder = Engine::builder().path(survivor.place.db());
            let builder = builder.executor(LOCAL, ProcessExecutor::new());
            let builder = if matches!(engine, Idle) { builder.idle() } else { builder };
            let engine = builder.open().await.expect("it opens");
            if ends_there && n + 1 == between.len() {
                has_heard_all(&engine, survivor.invoke_id).await;
                survivor.go_on.open();
                let record = ended(&engine, &survivor.invoke_id).await;
                assert_eq!(record.oss_output_status, "InProgress", "{what}");
            }
            engine.shutdown(Duration::ZERO).await;
        }
        let builder = Engine::builder().path(survivor.place.db());
        let builder = builder.output_sink("file:///sink", DirectorySink::new(folder.path()));
        let (engine, mut feed) = builder.open_and_follow().await.expect("it opens");
        if !ends_there {
            has_heard_all(&engine, survivor.invoke_id).await;
            survivor.go_on.open();
        }
        let uri = loop {
            match feed.next().await.expect("it goes on") {
                Notice::Delivery { uri, error_info, .. } => break uri + &error_info,
                _ => continue,
            }
        };
        let path = uri.strip_prefix("file:///sink/").unwrap_or_else(|| panic!("{what}: {uri}"));
        let stored = fs::read_to_string(folder.path().join(path)).expect("it is there");
        assert!(stored == whole, "{what}: {} bytes of {}", stored.len(), whole.len());
        engine.shutdown(Duration::ZERO).await;
        survivor.check_is_tidied_up().await;
    }
}

/// Waits until an engine has got from the keeper the output that a run printed while no engine
/// listened.
async fn has_heard_all(engine: &Engine, invoke_id: InvokeId) {
    let mut watch = engine.watch(&invoke_id).await.expect("it exists");
    let mut printed = Vec::new();
    while !printed.ends_with(b"\n10000\n") {
        let event = watch.next().await.expect("it goes on").expect("it has not ended");
        if let Event::Output { bytes, .. } = event {
            printed.extend(bytes);
        }
    }
}

/// The run prints more than the record keeps, before an engine can have listened.
async fn a_whole_output_includes_the_first_output_of_a_survivor() {
    let (place, folder) = (Place::new(), tempfile::tempdir().expect("a folder"));
    let builder = Engine::builder().path(place.db());
    let builder = builder.output_sink("file:///sink", DirectorySink::new(folder.path()));
    let engine = builder.open().await.expect("it opens");
    let mut request = script("seq 10000").survive_restarts();
    request.oss_output_delivery = Some("file:///sink".to_owned());
    let run = engine.run_command(request).await.expect("a run");
    ended(&engine, &run.invoke_id).await;
    engine.shutdown(Duration::from_secs(30)).await;
    let path = folder.path().join(run.invoke_id.to_string()).join("1.log");
    assert!(fs::read_to_string(path).expect("it is delivered") == numbers(10_000));
}

fn numbers(last: u32) -> String {
    (1..=last).map(|n| format!("{n}\n")).collect()
}

async fn a_run_that_cannot_survive_says_so_and_does_not_start() {
    let place = Place::new();
    let engine = place.open().await;
    let check = async |says: &str| {
        let witness = place.path("witness");
        let touch = script(format!("touch {}", witness.display())).survive_restarts();
        let record = run(&engine, touch).await;
        check_says(
            &record,
            ExecutionStatus::Error,
            "ExecutionException",
            "no keeper can be started",
        );
        assert!(record.error_info.contains(says), "{}", record.error_info);
        assert!(!witness.exists() && place.runs().symlink_metadata().is_ok());
    };
    fs::create_dir(place.runs()).expect("a folder");
    Account::ann().own(&place.runs());
    check("a.db.runs`: it is a folder of another user").await;
    fs::remove_dir(place.runs()).expect("still there");
    std::os::unix::fs::symlink(place.path(""), place.runs()).expect("a link");
    check("a.db.runs`").await;
    fs::remove_file(place.runs()).expect("still there");
    assert_eq!(printed(&run(&engine, script("echo on").survive_restarts()).await), "on\n");
}

//! The owners of a file, and engines whose file is taken away.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adjutant::{Engine, EngineEnd, Error, InvocationStatus, RunCommand, StorageErrorKind};
use rusqlite::Connection;

use crate::support::{Gate, Place, hold_writer, register, run, within};

/// Returns the files of a folder, by name.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("it is there");
    let paths = entries.map(|entry| entry.expect("a name").path());
    paths.map(|path| (path.clone(), fs::read(&path).expect("readable"))).collect()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn refusal(path: &Path, read_only: bool) -> Error {
    let builder = Engine::builder().path(path);
    let builder = if read_only { builder.read_only() } else { builder };
    within(builder.open()).await.expect_err("refused")
}

#[tokio::test]
async fn the_file_of_another_program_is_refused_without_a_change() {
    let check = async |name: &str, sql: &str, crashed: bool, want: &str| {
        let (made, place) = (Place::new(), Place::new());
        let file = Connection::open(made.database()).expect("a new file");
        file.execute_batch(sql).unwrap_or_else(|error| panic!("{name}: {error}"));
        let open = crashed.then_some(file);
        for suffix in ["", "-wal"] {
            let from = beside(&made.database(), suffix);
            if from.exists() {
                fs::copy(from, beside(&place.database(), suffix)).expect("copied");
            }
        }
        let before = contents(place.folder());
        assert_eq!(before.len(), if open.is_some() { 2 } else { 1 }, "{name}");
        for read_only in [false, true] {
            let error = refusal(&place.database(), read_only).await;
            assert_eq!(error.code(), want, "{name}: {error}");
            assert!(contents(place.folder()) == before, "{name}, read_only {read_only}: changed");
        }
    };
    let wal = "PRAGMA journal_mode = wal";
    check("rollback", "CREATE TABLE songs (x)", false, "Storage.Foreign").await;
    check("a view", "CREATE VIEW songs AS SELECT 1", false, "Storage.Foreign").await;
    check("marked", "PRAGMA application_id = 7", false, "Storage.Foreign").await;
    check("numbered", "PRAGMA user_version = 7", false, "Storage.Foreign").await;
    let migrations = "CREATE TABLE migrations (id INTEGER PRIMARY KEY, batch INTEGER)";
    check("with migrations", migrations, false, "Storage.Foreign").await;
    check("log", &format!("{wal}; CREATE TABLE songs (x)"), false, "Storage.Foreign").await;
    let in_log = format!("{wal}; CREATE TABLE songs (x)");
    check("all of it in the log", &in_log, true, "Storage.Foreign").await;
    let more_in_log = format!("CREATE TABLE songs (x); {wal}; INSERT INTO songs VALUES (1)");
    check("some of it in the log", &more_in_log, true, "Storage.Foreign").await;
    let newer = "CREATE TABLE migrations (version INTEGER PRIMARY KEY, name TEXT, sha256 TEXT);
        INSERT INTO migrations VALUES (9999, 'later', '00')";
    check("a newer version", &format!("{wal}; {newer}"), false, "Storage.Version").await;
}

#[tokio::test]
async fn a_link_is_followed_to_where_the_file_will_be() {
    let place = Place::new();
    let at = |name: &str| place.folder().join(name);
    fs::create_dir(at("links")).expect("a folder");
    fs::create_dir(at("real")).expect("a folder");
    std::os::unix::fs::symlink("../real/s.db", at("links/first.db")).expect("a link");
    std::os::unix::fs::symlink("first.db", at("links/second.db")).expect("a link");
    let engine = within(Engine::open(at("links/second.db"))).await.expect("it opens");
    assert_eq!(
        engine.path(),
        Some(at("real/s.db").canonicalize().expect("it is there")).as_deref()
    );
    let in_use = refusal(&at("links/first.db"), false).await;
    assert!(matches!(in_use, Error::InUse { .. }), "{in_use}");
    std::os::unix::fs::symlink("nowhere/s.db", at("lost.db")).expect("a link");
    let error = refusal(&at("lost.db"), false).await.to_string();
    assert!(error.contains("it is a link to `") && error.contains("nowhere/s.db`: "), "{error}");
    let long = "n".repeat(250);
    let error = refusal(&at(&long), false).await.to_string();
    assert!(error.contains("its name has 250 bytes, and may have 247"), "{error}");
}

/// The links lead to a file, and to a file that does not exist yet.
#[tokio::test]
async fn nothing_is_written_through_a_link_or_into_what_is_no_regular_file() {
    let check = async |suffix: &str, make: &dyn Fn(&Path, &Path), want: &str| {
        let place = Place::new();
        place.open().await.shutdown(Duration::ZERO).await;
        let precious = place.folder().join("precious");
        fs::write(&precious, "kept").expect("written");
        let name = beside(&place.database(), suffix);
        let _ = fs::remove_file(&name);
        make(&precious, &name);
        for read_only in [false, true] {
            let error = refusal(&place.database(), read_only).await;
            assert_eq!(error.code(), "Storage.InTheWay", "{suffix}: {error}");
            let named = format!("{} beside it: {want}", name.display());
            assert!(error.to_string().contains(&named), "{suffix}: {error}");
        }
        assert_eq!(fs::read_to_string(&precious).expect("readable"), "kept", "{suffix}");
        assert!(!place.folder().join("never").exists(), "{suffix}: made through a link");
        // Once it is gone, the file opens.
        fs::remove_file(&name).or_else(|_| fs::remove_dir(&name)).expect("it is there");
        place.open().await.shutdown(Duration::ZERO).await;
    };
    let link = |precious: &Path, name: &Path| {
        std::os::unix::fs::symlink(precious, name).expect("a link");
    };
    let dangling = |precious: &Path, name: &Path| link(&precious.with_file_name("never"), name);
    let folder = |_: &Path, name: &Path| fs::create_dir(name).expect("a folder");
    let pipe = |_: &Path, name: &Path| {
        nix::unistd::mkfifo(name, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    };
    let socket = |_: &Path, name: &Path| {
        drop(std::os::unix::net::UnixListener::bind(name).expect("a socket"));
    };
    for suffix in [".lock", "-wal", "-shm", "-journal"] {
        check(suffix, &link, "it is a link").await;
        check(suffix, &dangling, "it is a link").await;
        check(suffix, &folder, "it is a folder").await;
        check(suffix, &pipe, "it is no regular file").await;
        check(suffix, &socket, "it is no regular file").await;
    }
}

#[tokio::test]
async fn a_lock_that_somebody_has_under_another_name_is_not_written_over() {
    let place = Place::new();
    let precious = place.folder().join("precious");
    fs::write(&precious, "kept").expect("written");
    let lock = beside(&place.database(), ".lock");
    fs::hard_link(&precious, &lock).expect("a second name");
    let error = refusal(&place.database(), false).await;
    assert_eq!(error.code(), "Storage.InTheWay", "{error}");
    let want = format!("{} beside it: it has 2 names", lock.display());
    assert!(error.to_string().contains(&want), "{error}");
    assert_eq!(fs::read_to_string(&precious).expect("readable"), "kept");
    fs::remove_file(lock).expect("it is there");
    place.open().await.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_second_engine_stays_out_though_the_lock_is_gone() {
    let place = Place::new();
    let engine = place.open().await;
    // The first engine does not look at its files before the test lets it go.
    let writer = hold_writer(&engine).await;
    fs::remove_file(beside(&place.database(), ".lock")).expect("it is there");
    let error = refusal(&place.database(), false).await;
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    writer.let_go().await;
}

/// A file that is moved keeps its records, whichever file is at its place by now.
#[tokio::test]
async fn an_engine_whose_file_is_taken_away_ends_and_says_where_it_went() {
    let check = async |name: &str, change: &dyn Fn(&Path), stays_at: Option<&str>, want: &str| {
        let (place, gate) = (Place::new(), Gate::new());
        let path = place.database();
        let engine = gate.plug_in(place.builder()).open().await.expect("the file opens");
        register(&engine, "gate", 2).await;
        let id =
            engine.run_command(RunCommand::shell("x").on(["i-1"])).await.expect("sound").invoke_id;
        within(gate.arrivals(1)).await;
        change(&path);
        // The first request to the engine starts no execution.
        let refused = engine.run_command(RunCommand::shell("x").on(["i-2"])).await;
        let end = within(engine.closed()).await;
        assert_eq!(gate.waiting(), 0, "{name}");
        let EngineEnd::Storage(error) = &end else { panic!("{name}: {end:?}") };
        assert_eq!(error.kind, StorageErrorKind::Moved, "{name}: {end}");
        assert!(end.to_string().contains(want), "{name}: {end}");
        assert!(
            end.to_string().contains(&format!("process {} works", std::process::id())),
            "{end}"
        );
        let refused = refused.expect_err(name);
        assert_eq!(refused.code(), "Storage.Moved", "{name}: {refused}");
        drop(engine);
        let Some(now) = stays_at else { return };
        let engine = Engine::open(place.folder().join(now)).await.expect("it is all there");
        assert_eq!(
            within(engine.wait_status(&id)).await.expect("stored"),
            InvocationStatus::Failed
        );
        engine.shutdown(Duration::ZERO).await;
    };
    let rename = |from: &Path, to: &Path| fs::rename(from, to).expect("moved");
    let moved = |path: &Path| path.with_file_name("moved.db");
    check("removed", &|path| fs::remove_file(path).expect("it is there"), None, "is removed").await;
    check("moved", &|path| rename(path, &moved(path)), Some("moved.db"), "moved.db` now").await;
    check(
        "replaced",
        &|path| {
            rename(path, &moved(path));
            fs::write(path, "").expect("another file");
        },
        Some("moved.db"),
        "another file was put in its place",
    )
    .await;
    let lock = |path: &Path| fs::remove_file(beside(path, ".lock")).expect("it is there");
    check("its lock", &lock, Some("adjutant.db"), "adjutant.db.lock` beside it").await;
    let log = |path: &Path| fs::remove_file(beside(path, "-wal")).expect("it is there");
    check("its log", &log, Some("adjutant.db"), "adjutant.db-wal` beside it").await;
}

#[tokio::test]
async fn an_idle_engine_notices_within_a_second_that_its_file_is_gone() {
    let place = Place::new();
    let engine = place.open().await;
    fs::remove_file(place.database()).expect("it is there");
    let ended = tokio::time::timeout(Duration::from_millis(1_500), engine.closed()).await;
    assert!(matches!(ended, Ok(EngineEnd::Storage(_))), "{ended:?}");
}

#[tokio::test]
async fn a_reader_distinguishes_a_removed_file_from_a_file_that_never_existed() {
    let place = Place::new();
    let engine = place.open().await;
    let missing = refusal(&place.folder().join("never.db"), true).await;
    assert_eq!(missing.code(), "Storage.CannotOpen", "{missing}");
    fs::rename(place.database(), place.folder().join("moved.db")).expect("moved");
    let gone = refusal(&place.database(), true).await;
    let want = format!("it is gone while process {} works on it", std::process::id());
    assert!(gone.to_string().contains(&want), "{gone}");
    drop(engine);
}

#[tokio::test]
async fn a_copy_that_is_put_over_the_file_of_an_engine_is_noticed() {
    let place = Place::new();
    let engine = place.open().await;
    run(&engine, "exit:0", &["i-1"]).await;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let before = fs::read(place.database()).expect("readable");
    let engine = place.open().await;
    run(&engine, "exit:0", &["i-1"]).await;
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let engine = place.open().await;
    let later = run(&engine, "exit:0", &["i-1"]).await;
    // Written in place, like `cp` does.
    fs::write(place.database(), &before).expect("written");
    let end = within(engine.closed()).await;
    assert!(end.to_string().contains("another program has written over it"), "{end}");
    drop(engine);
    // The log belongs to the state that was written over.
    let engine = place.open().await;
    assert!(engine.wait_status(&later.results[0].invoke_id).await.is_err());
    run(&engine, "exit:0", &["i-1"]).await;
}

/// Does the work of another program: writes to a table of its own, and makes checkpoints.
fn another_program(path: &Path, mode: &str, began: std::time::Instant) {
    let other = Connection::open(path).expect("it opens");
    other.busy_timeout(Duration::from_secs(20)).expect("set");
    let auto = if mode == "AUTO" { 7 } else { 0 };
    other.pragma_update(None, "wal_autocheckpoint", auto).expect("set");
    let table = format!("CREATE TABLE of_{mode} (id INTEGER PRIMARY KEY, bytes BLOB)");
    other.execute_batch(&table).expect("a table");
    let insert = format!("INSERT INTO of_{mode} (bytes) VALUES (randomblob(9000))");
    // This is longer than the time between two looks of the engine.
    while began.elapsed() < Duration::from_millis(2_500) {
        for _ in 0..3 {
            other.execute_batch(&insert).expect("written");
        }
        match mode {
            "AUTO" => {}
            "VACUUM" => {
                let shrink = format!("DELETE FROM of_{mode}; VACUUM; PRAGMA wal_checkpoint");
                other.execute_batch(&shrink).expect("done");
            }
            mode => {
                let checkpoint = format!("PRAGMA wal_checkpoint({mode})");
                let _: i64 = other.query_row(&checkpoint, (), |row| row.get(0)).expect("done");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_lives_on_while_another_program_makes_checkpoints() {
    let check = async |mode: &'static str| {
        let place = Place::new();
        let engine = place.open().await;
        let began = std::time::Instant::now();
        let path = place.database();
        let other = tokio::task::spawn_blocking(move || another_program(&path, mode, began));
        let mut written = 0;
        while !other.is_finished() {
            let done = run(&engine, "out:x exit:0", &["i-1", "i-2"]).await;
            written += done.results.len();
        }
        other.await.unwrap_or_else(|error| panic!("{mode}: {error}"));
        // The engine looks at the file twice more, and once at its close.
        let looks = tokio::time::timeout(Duration::from_millis(1_200), engine.closed());
        assert!(looks.await.is_err(), "{mode}: {:?}", engine.closed().await);
        engine.shutdown(Duration::ZERO).await;
        drop(engine);
        let engine = place.open().await;
        let file = Connection::open(place.database()).expect("it opens");
        let kept: usize = file
            .query_row("SELECT count(*) FROM executions WHERE status = 'Success'", (), |row| {
                row.get(0)
            })
            .expect("readable");
        let sound: String =
            file.query_row("PRAGMA integrity_check", (), |row| row.get(0)).expect("readable");
        assert_eq!((kept, sound.as_str()), (written, "ok"), "{mode}");
        drop(file);
        assert!(!beside(&place.database(), "-wal.foreign-1").exists(), "{mode}");
        engine.shutdown(Duration::ZERO).await;
    };
    tokio::join!(
        check("PASSIVE"),
        check("FULL"),
        check("RESTART"),
        check("TRUNCATE"),
        check("AUTO"),
        check("VACUUM"),
    );
}

/// A program overwrites the file or its log, with and without a checkpoint of another program before.
#[tokio::test]
async fn a_file_or_log_that_is_written_over_is_noticed_within_a_second() {
    let check = async |name: &str, copied: bool, change: &dyn Fn(&Path), want: &str| {
        let place = Place::new();
        for _ in 0..2 {
            let engine = place.open().await;
            run(&engine, "exit:0", &["i-1"]).await;
            engine.shutdown(Duration::ZERO).await;
            drop(engine);
            fs::copy(place.database(), place.folder().join("earlier")).expect("copied");
            let engine = place.open().await;
            run(&engine, "exit:0", &["i-1"]).await;
            engine.shutdown(Duration::ZERO).await;
        }
        let engine = place.open().await;
        run(&engine, "exit:0", &["i-1"]).await;
        if copied {
            let other = Connection::open(place.database()).expect("it opens");
            other.execute_batch("PRAGMA wal_checkpoint(PASSIVE)").expect("done");
            run(&engine, "exit:0", &["i-1"]).await;
        }
        change(&place.database());
        let ended = tokio::time::timeout(Duration::from_millis(1_500), engine.closed()).await;
        let end = ended.unwrap_or_else(|_| panic!("{name}: it goes on"));
        let EngineEnd::Storage(error) = &end else { panic!("{name}: {end:?}") };
        assert_eq!(error.kind, StorageErrorKind::Moved, "{name}: {end}");
        // SQLite itself removes a log that belongs to no database. The engine may notice that first.
        let told = end.to_string();
        let is_removed = told.contains("-wal` beside it: it was moved or removed");
        assert!(told.contains(want) || is_removed, "{name}: {end}");
    };
    let file = "has written over it while";
    let log = "has written over its log while";
    for copied in [false, true] {
        let earlier = |path: &Path| {
            let earlier = fs::read(path.with_file_name("earlier")).expect("it is there");
            fs::write(path, earlier).expect("written");
        };
        check("an earlier state", copied, &earlier, file).await;
        check("nothing", copied, &|path| fs::write(path, "").expect("written"), file).await;
        check(
            "a text",
            copied,
            &|path| fs::write(path, "x".repeat(99_999)).expect("written"),
            file,
        )
        .await;
        let reverted = |path: &Path| {
            let before = fs::read(path).expect("readable");
            let other = Connection::open(path).expect("it opens");
            let copy = "PRAGMA wal_checkpoint(PASSIVE)";
            let _: i64 = other.query_row(copy, (), |row| row.get(0)).expect("done");
            fs::write(path, before).expect("written");
        };
        check("the state before a checkpoint", copied, &reverted, file).await;
        let shorter = |path: &Path| {
            let bytes = fs::read(path).expect("readable");
            fs::write(path, &bytes[..bytes.len() - 8_192]).expect("written");
        };
        check("a part of it", copied, &shorter, file).await;
        let of_log = |bytes: &dyn Fn(Vec<u8>) -> Vec<u8>, path: &Path| {
            let log = beside(path, "-wal");
            let changed = bytes(fs::read(&log).expect("readable"));
            fs::write(&log, changed).expect("written");
        };
        check("no log", copied, &|path| of_log(&|_| Vec::new(), path), log).await;
        let cut = |path: &Path| of_log(&|bytes| bytes[..1_000].to_vec(), path);
        check("a part of its log", copied, &cut, log).await;
        let noise = |path: &Path| of_log(&|bytes| vec![7; bytes.len()], path);
        check("noise in its log", copied, &noise, log).await;
        let salted = |path: &Path| {
            let change = |mut bytes: Vec<u8>| {
                bytes[16] ^= 1;
                bytes
            };
            of_log(&change, path);
        };
        check("the log of another file", copied, &salted, log).await;
    }
}

/// Returns the state that a killed engine leaves: a copy of the files while the engine works.
fn kill(place: &Place) -> Place {
    let left = Place::new();
    for suffix in ["", "-wal", ".lock"] {
        let from = beside(&place.database(), suffix);
        fs::copy(from, beside(&left.database(), suffix)).expect("copied");
    }
    left
}

/// Waits until the file has everything that was in its log: the writing thread closes it after the engine is dropped.
async fn closed(place: &Place) {
    let log = beside(&place.database(), "-wal");
    within(async {
        while fs::metadata(&log).is_ok_and(|found| found.len() > 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_log_of_another_state_of_the_file_is_set_aside() {
    let ids = async |engine: &Engine| -> usize {
        let page = engine.describe_invocations(Default::default()).await.expect("readable");
        page.invocations.len()
    };
    let place = Place::new();
    let mut copies = Vec::new();
    for _ in 0..3 {
        let engine = place.open().await;
        run(&engine, "exit:0", &["i-1"]).await;
        engine.shutdown(Duration::ZERO).await;
        drop(engine);
        closed(&place).await;
        copies.push(fs::read(place.database()).expect("readable"));
    }
    let engine = place.open().await;
    run(&engine, "exit:0", &["i-1"]).await;
    // The file is the engine's own, as the engine found it or as it is by now, or a copy from an
    // earlier engine.
    let check = async |file: Option<&[u8]>, want: usize, is_aside: bool| {
        let left = kill(&place);
        if let Some(file) = file {
            fs::write(left.database(), file).expect("written");
        }
        let engine = left.open().await;
        assert_eq!(ids(&engine).await, want);
        run(&engine, "exit:0", &["i-1"]).await;
        assert_eq!(beside(&left.database(), "-wal.foreign-1").exists(), is_aside);
        engine.shutdown(Duration::ZERO).await;
        drop(engine);
        let sound: String = Connection::open(left.database())
            .and_then(|file| file.query_row("PRAGMA integrity_check", (), |row| row.get(0)))
            .expect("readable");
        assert_eq!(sound, "ok");
    };
    check(None, 4, false).await;
    check(Some(&copies[2]), 4, false).await;
    check(Some(&copies[1]), 2, true).await;
    check(Some(&copies[0]), 1, true).await;
    check(Some(b""), 0, true).await;
    engine.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_stale_frame_behind_the_end_of_a_log_does_not_vouch_for_a_file() {
    let place = Place::new();
    let mut earlier = Vec::new();
    for _ in 0..2 {
        let engine = place.open().await;
        run(&engine, "exit:0", &["i-1"]).await;
        engine.shutdown(Duration::ZERO).await;
        drop(engine);
        closed(&place).await;
        earlier.push(fs::read(place.database()).expect("readable"));
    }
    let file = Connection::open(place.database()).expect("it opens");
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'ownership'";
    let page: u32 = file.query_row(root, (), |row| row.get(0)).expect("a table");
    drop(file);
    let engine = place.open().await;
    run(&engine, "exit:0", &["i-1"]).await;
    let left = kill(&place);
    let log = beside(&left.database(), "-wal");
    let mut bytes = fs::read(&log).expect("readable");
    // A frame of this log that commits the mark of the earlier file, without the checksum of the frames before it.
    let salts = bytes[16..24].to_vec();
    bytes.extend([page.to_be_bytes(), 1_u32.to_be_bytes()].concat());
    bytes.extend([&salts[..], &[0; 8]].concat());
    bytes.extend(&earlier[0][(page as usize - 1) * 4_096..page as usize * 4_096]);
    fs::write(&log, bytes).expect("written");
    fs::write(left.database(), &earlier[0]).expect("written");
    let opened = left.open().await;
    assert!(beside(&left.database(), "-wal.foreign-1").exists(), "the two were blended");
    run(&opened, "exit:0", &["i-1"]).await;
    opened.shutdown(Duration::ZERO).await;
    engine.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_file_that_an_engine_has_not_left_in_order_is_checked_first() {
    let place = Place::new();
    let engine = place.open().await;
    for _ in 0..20 {
        run(&engine, "out:x exit:0", &["i-1", "i-2", "i-3"]).await;
    }
    engine.shutdown(Duration::ZERO).await;
    drop(engine);
    let lock = beside(&place.database(), ".lock");
    assert_eq!(fs::read(&lock).expect("readable"), b"", "it has come to its end");
    let page = |name: &str| -> u64 {
        let file = Connection::open(place.database()).expect("it opens");
        let root = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        file.query_row(root, [name], |row| row.get(0)).expect("a table")
    };
    let at = (page("executions") - 1) * 4_096;
    let mut bytes = fs::read(place.database()).expect("readable");
    bytes[at as usize..at as usize + 4_096].fill(0xff);
    fs::write(place.database(), bytes).expect("written");
    fs::write(&lock, "7\n").expect("written");
    for _ in 0..2 {
        let error = refusal(&place.database(), false).await;
        assert_eq!(error.code(), "Storage.Corrupt", "{error}");
        assert!(error.to_string().contains("its last engine did not come to its end"), "{error}");
    }
}

#[tokio::test]
async fn a_file_that_lacks_a_table_is_refused() {
    let place = Place::new();
    place.open().await.shutdown(Duration::ZERO).await;
    let file = Connection::open(place.database()).expect("it opens");
    file.execute_batch("DROP TABLE outputs").expect("it is there");
    drop(file);
    let error = refusal(&place.database(), false).await;
    assert_eq!(error.code(), "Storage.Corrupt", "{error}");
    assert!(error.to_string().contains("its table `outputs` is missing"), "{error}");
}

const MIB: u64 = 1 << 20;

fn log_bytes(place: &Place) -> u64 {
    fs::metadata(beside(&place.database(), "-wal")).expect("it is there").len()
}

async fn read_on(engine: Engine) {
    while engine.describe_invocations(Default::default()).await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_though_it_always_has_a_reader() {
    let place = Place::new();
    let engine = place.open().await;
    let table = "CREATE TABLE blobs (id INTEGER PRIMARY KEY, bytes BLOB)";
    engine.write(move |tx| Ok(tx.execute_batch(table)?)).await.expect("a table");
    let write = async || {
        let fill = "INSERT OR REPLACE INTO blobs VALUES (1, randomblob(1048576))";
        engine.write(move |tx| Ok(tx.execute_batch(fill)?)).await.expect("written");
    };
    let readers: Vec<_> = (0..8).map(|_| tokio::spawn(read_on(engine.clone()))).collect();
    for _ in 0..150 {
        write().await;
        assert!(log_bytes(&place) <= 64 * MIB);
        assert!(engine.metrics().log_bytes <= 64 * MIB);
    }
    let short = async || {
        let short = async {
            while log_bytes(&place) > 4 * MIB {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), short).await.expect("it is short in 5 s");
    };
    short().await;
    // The log has to stay while another connection reads it, and the metrics show that.
    let other = Connection::open(place.database()).expect("it opens");
    other.execute_batch("BEGIN; SELECT count(*) FROM invocations").expect("a snapshot");
    for _ in 0..80 {
        write().await;
    }
    assert!(log_bytes(&place) > 64 * MIB);
    assert!(engine.metrics().log_held_ms > 0);
    other.execute_batch("COMMIT").expect("it ends");
    short().await;
    let let_go = async {
        while engine.metrics().log_held_ms > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(let_go).await;
    readers.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Returns the names in a folder.
fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("it is there");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("a name").path()).collect();
    names.sort();
    names
}

fn check_nothing_of_sqlite(place: &Place) {
    for suffix in ["-wal", "-shm", "-journal"] {
        assert!(!beside(&place.database(), suffix).exists(), "{suffix} is left");
    }
}

#[tokio::test]
async fn a_close_closes_the_file_whatever_handles_are_left() {
    let place = Place::new();
    let engine = place.open().await;
    let handle = engine.called_by("somebody");
    let run = engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
    within(engine.wait(&run.invoke_id)).await.expect("it ends");
    engine.close(Duration::ZERO).await;
    check_nothing_of_sqlite(&place);
    let next = place.open().await;
    for handle in [&engine, &handle] {
        let refused = [
            handle.describe_invocations(Default::default()).await.err(),
            handle.wait(&run.invoke_id).await.err(),
            handle.watch(&run.invoke_id).await.err(),
            handle.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.err(),
            handle.overview(1).await.err(),
        ];
        for error in refused {
            assert!(matches!(error, Some(Error::ShuttingDown)), "{error:?}");
        }
        // A second close finds nothing to do, and leaves the file of the next engine alone.
        within(handle.close(Duration::ZERO)).await;
    }
    drop((engine, handle));
    let again = next.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
    within(next.wait(&again.invoke_id)).await.expect("it ends");
    let looks = place.builder().read_only().open().await.expect("another engine runs it");
    looks.close(Duration::ZERO).await;
    assert!(matches!(looks.wait(&again.invoke_id).await, Err(Error::ShuttingDown)));
    next.close(Duration::ZERO).await;
}

#[tokio::test]
async fn after_a_shutdown_the_file_can_be_opened_again_and_its_records_be_read() {
    let place = Place::new();
    let engine = place.open().await;
    let run = engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
    within(engine.wait(&run.invoke_id)).await.expect("it ends");
    engine.shutdown(Duration::ZERO).await;
    check_nothing_of_sqlite(&place);
    let before = names(place.folder());
    // This handle reads like another process: it makes no file.
    let reads = async || {
        let ended = within(engine.wait_status(&run.invoke_id)).await.expect("it is on record");
        assert_eq!(ended, InvocationStatus::Success);
        let refused = engine.run_command(RunCommand::shell("exit:0").on(["i-1"])).await;
        assert!(matches!(refused, Err(Error::ShuttingDown)), "{refused:?}");
    };
    reads().await;
    assert_eq!(names(place.folder()), before);
    let next = place.open().await;
    let again = next.run_command(RunCommand::shell("exit:0").on(["i-1"])).await.expect("sound");
    within(next.wait(&again.invoke_id)).await.expect("it ends");
    reads().await;
    next.close(Duration::ZERO).await;
    reads().await;
    within(engine.shutdown(Duration::ZERO)).await;
}

#[tokio::test]
async fn an_engine_waits_for_the_file_until_the_engine_that_runs_it_has_ended() {
    let place = Place::new();
    let first = place.open().await;
    let refused = place.builder().wait_for_file(Duration::from_millis(60)).open().await;
    let error = refused.expect_err("the other engine goes on").to_string();
    let want = format!("pid {}, by another handle in this process", std::process::id());
    assert!(error.contains(&want), "{error}");
    let waits = place.builder().wait_for_file(Duration::from_secs(60));
    let waits = tokio::spawn(waits.open());
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    first.shutdown(Duration::ZERO).await;
    within(waits).await.expect("no panic").expect("it is free").shutdown(Duration::ZERO).await;
}

/// A copy of the file has the schedules of the original.
#[tokio::test]
async fn a_file_of_another_machine_starts_nothing_unless_it_is_adopted() {
    let place = Place::new();
    let set_machine = || {
        let file = Connection::open(place.database()).expect("a database");
        let elsewhere = "UPDATE meta SET value = '00112233445566778899aabbccddeeff web-7' WHERE key = 'machine'";
        file.execute(elsewhere, ()).expect("sound SQL")
    };
    let engine = place.open().await;
    engine.shutdown(Duration::ZERO).await;
    if set_machine() == 0 {
        // This machine has no number, so machines cannot be told from one another.
        return;
    }
    // Nothing would start by itself.
    let engine = place.open().await;
    let planned = RunCommand::shell("exit:0").on(["i-1"]).frequency("0 0 0 1 1 ? 2099").timeout(9);
    engine.run_command(planned).await.expect("sound");
    engine.shutdown(Duration::ZERO).await;
    place.open().await.shutdown(Duration::ZERO).await;
    assert_eq!(set_machine(), 1);
    for _ in 0..2 {
        let error = refusal(&place.database(), false).await;
        assert_eq!(error.code(), "Storage.OtherMachine", "{error}");
        assert!(error.to_string().contains("another machine, `web-7`"), "{error}");
        assert!(error.to_string().contains("--adopt"), "{error}");
        for builder in [place.builder().read_only(), place.builder().idle()] {
            within(builder.open()).await.expect("it starts nothing").shutdown(Duration::ZERO).await;
        }
    }
    let adopts = place.builder().adopt().open();
    within(adopts).await.expect("it is taken over").shutdown(Duration::ZERO).await;
    place.open().await.shutdown(Duration::ZERO).await;
}

/// SQLite would carry out such statements as part of the engine's own.
#[tokio::test]
async fn what_another_program_has_added_to_the_tables_is_refused() {
    let check = async |sql: &str, code: &str, want: &str| {
        let place = Place::new();
        place.open().await.shutdown(Duration::ZERO).await;
        let file = Connection::open(place.database()).expect("a database");
        file.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        drop(file);
        let error = refusal(&place.database(), false).await;
        assert_eq!(error.code(), code, "{sql}: {error}");
        assert!(error.to_string().contains(want), "{sql}: {error}");
    };
    let altered = "Storage.Altered";
    let spy = "CREATE TABLE spy (x); CREATE TRIGGER theirs AFTER INSERT ON executions BEGIN INSERT INTO spy VALUES (1); END";
    check(spy, altered, "the trigger `theirs` on its table `executions`").await;
    check("CREATE UNIQUE INDEX theirs ON fires (invocation)", altered, "the index `theirs`").await;
    let replaced = "DROP TRIGGER fires_keep_the_newest;
        CREATE TRIGGER fires_keep_the_newest BEFORE DELETE ON fires BEGIN SELECT 1; END";
    check(replaced, altered, "the trigger `fires_keep_the_newest`").await;
    let moved = "DROP INDEX fires_by_wave; CREATE INDEX fires_by_wave ON fires (id)";
    check(moved, altered, "the index `fires_by_wave`").await;
    let shadows = "ALTER TABLE client_tokens RENAME TO theirs; CREATE VIEW client_tokens AS SELECT * FROM theirs";
    check(shadows, altered, "the view `client_tokens`").await;
    check("DROP INDEX fires_by_wave", "Storage.Corrupt", "its index `fires_by_wave` is missing")
        .await;
    // What a host has beside these tables is its own.
    let place = Place::new();
    place.open().await.shutdown(Duration::ZERO).await;
    let file = Connection::open(place.database()).expect("a database");
    let hosts =
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, n); CREATE INDEX orders_by_n ON orders (n);
        CREATE VIEW done AS SELECT id FROM executions;
        CREATE TRIGGER counted AFTER INSERT ON orders BEGIN SELECT 1; END";
    file.execute_batch(hosts).expect("sound SQL");
    drop(file);
    place.open().await.shutdown(Duration::ZERO).await;
}

/// SQLite takes such numbers from a program that asks it to.
#[tokio::test]
async fn an_instance_on_which_nothing_could_ever_start_is_an_error_and_no_wait() {
    let check = async |change: &str| {
        let place = Place::new();
        place.open().await.shutdown(Duration::ZERO).await;
        let file = Connection::open(place.database()).expect("a database");
        file.execute_batch(&format!(
            "PRAGMA ignore_check_constraints = ON; PRAGMA foreign_keys = OFF;
             UPDATE instances SET {change} WHERE instance_id = 'i-1'"
        ))
        .expect("sound SQL");
        drop(file);
        let engine = place.builder().open().await.expect("the other instances are sound");
        let refused = within(engine.run_command(RunCommand::shell("exit:0").on(["i-1"]))).await;
        let error = refused.expect_err(change);
        assert_eq!(error.code(), "Storage.Record", "{change}: {error}");
        let run = engine.run_command(RunCommand::shell("exit:0").on(["i-2"])).await.expect("sound");
        within(engine.wait(&run.invoke_id)).await.expect("it ends");
        engine.shutdown(Duration::ZERO).await;
    };
    check("max_concurrency = 0").await;
    check("max_concurrency = -1").await;
    check("id = 0").await;
    check("id = -1").await;
    check("id = -9223372036854775808").await;
}

//! Files whose disk fails, files that are taken away, files of other programs.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::faults::Faults;
use crate::harness::{Done, Place, Running};

/// Longer than an engine tries to take a refused commit out of the log.
const PATIENCE: Duration = Duration::from_secs(30);

fn serve_with(place: &Place, faults: &Faults) -> Running {
    let mut command = place.command(&["serve"]);
    faults.load_into(&mut command);
    let serve = Running::new(command);
    serve.err.expect("serving ");
    serve
}

fn names(place: &Place) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(place.path(""))
        .expect("a folder")
        .map(|entry| entry.expect("a name").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The process may die before its answer or after it.
#[test]
fn a_refused_commit_is_not_found_after_the_death_of_its_owner() {
    let faults = Faults::new();
    let check = |rules: &[&str]| {
        let place = Place::with_instances(&["i-1"]);
        let serve = serve_with(&place, &faults);
        place.ok(&["run", "true"]);
        faults.set(rules);
        let planned = ["run", "--frequency", "0 0 0 1 1 ? 2099", "--timeout", "9", "true"];
        let done = place.run(&planned);
        let hits = faults.hits();
        serve.kill();
        faults.set(&[]);
        let listed = place.ok(&["ps", "--all"]);
        let is_stored = listed.contains("Scheduled");
        assert!(!hits.is_empty(), "{rules:?} took nothing");
        match done.code {
            Some(0) => assert!(is_stored, "{rules:?}: acknowledged, and lost: {listed}"),
            _ if done.err.contains("(Storage.") => {
                assert!(!is_stored, "{rules:?}: refused ({}), and stored: {listed}", done.err);
            }
            // The owner has died before its answer: the invocation may be stored or not.
            _ => assert!(done.err.contains("(Control.Lost)"), "{rules:?}: {}", done.err),
        }
        done.err
    };
    let refused = |rules: &[&str]| {
        let said = check(rules);
        assert!(said.contains("(Storage."), "{rules:?}: {said}");
    };
    const EIO: &str = "5";
    const ENOSPC: &str = "28";
    refused(&[&format!("sync -wal 0 1 {EIO}")]);
    refused(&[&format!("sync -wal 0 1 {ENOSPC}")]);
    refused(&[&format!("sync -wal 0 3 {EIO}")]);
    refused(&[&format!("sync -wal 0 1 {EIO}"), &format!("truncate -wal 0 2 {EIO}")]);
    refused(&[&format!("write -wal 0 1 {ENOSPC}")]);
    refused(&[&format!("write -wal 3 1 {ENOSPC}")]);
    refused(&["write -wal 3 1 short", &format!("write -wal 3 1 {ENOSPC}")]);
    check(&["sync -wal 0 1 kill"]);
    check(&["sync -wal 0 1 kill-after"]);
    check(&[&format!("sync -wal 0 1 {EIO}"), "truncate -wal 0 1 kill"]);
    check(&[&format!("sync -wal 0 1 {EIO}"), "truncate -wal 0 1 kill-after"]);
    check(&[&format!("sync -wal 0 1 {EIO}"), "sync -wal 0 1 kill"]);
    for skip in 0..4 {
        check(&[&format!("write -wal {skip} 1 kill-after")]);
    }
}

#[test]
fn a_disk_that_refuses_for_good_ends_the_owner_with_an_error_that_names_the_doubt() {
    let (place, faults) = (Place::with_instances(&["i-1"]), Faults::new());
    let serve = serve_with(&place, &faults);
    faults.set(&["sync -wal 0 -1 5", "truncate -wal 0 -1 5"]);
    let done = place.run(&["run", "--frequency", "0 0 0 1 1 ? 2099", "--timeout", "9", "true"]);
    assert!(done.err.contains("shows when the file is opened again"), "{}", done.err);
    let ended = serve.end();
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("the engine has ended"), "{}", ended.err);
}

#[test]
fn a_served_file_that_is_moved_ends_the_program_and_is_run_on_from_its_new_place() {
    let place = Place::with_instances(&["i-1"]);
    let serve = place.serve(&[]);
    place.ok(&["run", "true"]);
    let moved = place.path("moved.db");
    serve.signal(Signal::STOP);
    fs::rename(place.db(), &moved).expect("moved");
    let asked = place.run(&["ps"]);
    assert!(asked.err.contains("it is gone while process"), "{}", asked.err);
    serve.signal(Signal::CONT);
    let ended = serve.end();
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    let want = format!("what was there is `{}` now", moved.display());
    assert!(ended.err.contains(&want) && ended.err.contains("(Storage.Moved)"), "{}", ended.err);
    let listed = place.ok(&["--db", moved.to_str().expect("UTF-8"), "ps"]);
    assert!(listed.contains("Success"), "{listed}");
}

#[test]
fn an_owner_makes_no_other_name_than_that_of_its_socket() {
    let place = Place::with_instances(&["i-1"]);
    // Whatever could have been planted beside the file, nothing of it is touched.
    fs::create_dir(place.path(".adjutant-1.sock")).expect("a folder");
    let serve = place.serve(&[]);
    let sockets: Vec<String> =
        names(&place).into_iter().filter(|name| name.contains("sock")).collect();
    assert_eq!(sockets, [".adjutant-1.sock", "a.db.sock"]);
    serve.interrupt();
}

#[test]
fn a_socket_that_is_tidied_away_comes_back() {
    let place = Place::with_instances(&["i-1"]);
    let serve = place.serve(&[]);
    fs::remove_file(place.path("a.db.sock")).expect("it listens");
    let began = Instant::now();
    while !place.path("a.db.sock").exists() {
        assert!(began.elapsed() < PATIENCE, "it does not come back");
    }
    place.ok(&["run", "true"]);
    serve.interrupt();
}

#[test]
fn a_full_disk_can_be_read() {
    let (place, faults) = (Place::with_instances(&["i-1"]), Faults::new());
    let serve = place.serve(&[]);
    place.ok(&["run", "echo kept"]);
    let id = place.newest();
    const FULL: [&str; 2] = ["write a.db-wal 0 -1 28", "write a.db-shm 0 -1 28"];
    let read = |words: &[&str]| {
        let mut command = place.command(words);
        faults.load_into(&mut command);
        Done::new(command.output().expect("it starts"))
    };
    let check = || {
        // First the log alone is full, then also the memory that connections share.
        for rules in [&FULL[..1], &FULL[..]] {
            faults.set(rules);
            for words in [&["ps"][..], &["show", &id]] {
                let done = read(words);
                let is_read = done.code == Some(0) && done.out.contains("Success");
                assert!(is_read, "{rules:?}, {words:?}: {}", done.err);
            }
        }
    };
    // The records are in the log at first, and in the file after `ps`.
    serve.kill();
    check();
    place.ok(&["ps"]);
    check();
    assert!(!faults.hits().is_empty());
}

/// Returns a rule that gives the files of a place room for this many bytes, like a disk of that
/// size.
fn room(place: &Place, bytes: u64) -> String {
    let db = place.db();
    format!("room {} {bytes} -1 28", db.parent().expect("a folder").display())
}

#[test]
fn a_small_disk_takes_more_in_turn_than_it_has_room_for_at_once() {
    const ROOM: u64 = 4 << 20;
    let (place, faults) = (Place::with_instances(&["i-1"]), Faults::new());
    faults.set(&[&room(&place, ROOM)]);
    let serve = serve_with(&place, &faults);
    for _ in 0..60 {
        place.ok(&["run", "head -c 20000 /dev/zero | tr '\\0' x"]);
        let bytes: u64 = ["a.db", "a.db-wal", "a.db-shm"]
            .map(|name| fs::metadata(place.path(name)).map_or(0, |found| found.len()))
            .iter()
            .sum();
        assert!(bytes <= ROOM, "{bytes}");
    }
    serve.interrupt();
    assert_eq!(faults.hits(), [""; 0], "nothing was refused");
    // More bytes went through the log than the disk has room for.
    assert!(fs::metadata(place.db()).expect("it is there").len() > 1 << 20);
}

#[test]
fn a_full_disk_is_read_told_of_once_and_written_to_again_when_there_is_room() {
    let (place, faults) = (Place::with_instances(&["i-1"]), Faults::new());
    let serve = serve_with(&place, &faults);
    let id = place.ok(&["run", "--detach", "echo kept"]).trim().to_owned();
    place.wait_until(&id, "Success");
    let gate = place.gate("gate");
    let mut run = place.start(&["run", &gate.wait()]);
    while !place.ok(&["ps"]).contains("Running") {}
    faults.set(&[&room(&place, 0)]);
    gate.open();
    serve.err.expect("not on disk yet");
    let refused = place.run(&["run", "true"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("(Storage.Full)"), "{}", refused.err);
    assert!(refused.err.contains("no space is left on the file system"), "{}", refused.err);
    assert!(place.ok(&["ps"]).contains("Running"));
    assert!(place.ok(&["show", &id]).contains("kept"));
    let first = faults.hits().len();
    let began = Instant::now();
    while faults.hits().len() < first + 6 {
        assert!(began.elapsed() < PATIENCE, "it is tried again");
    }
    faults.set(&[&room(&place, 1 << 30)]);
    assert_eq!(run.wait().code(), Some(0));
    place.ok(&["run", "true"]);
    serve.signal(Signal::INT);
    let said = serve.end().err;
    assert!(!said.contains("not on disk yet"), "{said}");
    // No engine runs the file now, and a reader makes no file beside it.
    faults.set(&[&room(&place, 0)]);
    let mut look = place.command(&["show", &id]);
    faults.load_into(&mut look);
    let looked = Done::new(look.output().expect("it starts"));
    assert!(looked.code == Some(0) && looked.out.contains("kept"), "{}", looked.err);
}

#[test]
fn a_file_that_no_owner_has_left_is_not_replaced_by_the_socket() {
    let check = |make: &dyn Fn(&std::path::Path, &std::path::Path), want: &str| {
        let place = Place::with_instances(&["i-1"]);
        let (precious, name) = (place.path("precious"), place.path("a.db.sock"));
        fs::write(&precious, "kept").expect("written");
        make(&precious, &name);
        let before = fs::symlink_metadata(&name).expect("it is there").file_type();
        let serve = place.start(&["serve"]);
        let said = serve.err.expect("no control socket beside");
        let named = format!("a.db.sock is {want}; remove it");
        assert!(said.contains(&named), "{said}");
        serve.err.expect("serving ");
        serve.interrupt();
        assert_eq!(fs::read_to_string(&precious).expect("readable"), "kept");
        assert_eq!(fs::symlink_metadata(&name).expect("it is there").file_type(), before);
    };
    let link = |precious: &std::path::Path, name: &std::path::Path| {
        std::os::unix::fs::symlink(precious, name).expect("a link");
    };
    check(&link, "a link");
    check(&|precious, name| link(&precious.with_file_name("never"), name), "a link");
    check(&|_, name| fs::write(name, "a text").expect("written"), "no socket");
}

#[test]
fn a_full_disk_is_reported_once_a_minute() {
    let (place, faults) = (Place::with_instances(&["i-1"]), Faults::new());
    let serve = serve_with(&place, &faults);
    place.ok(&["run", "--frequency", "rate(60s)", "--timeout", "9", "true"]);
    let gate = place.gate("gate");
    let mut run = place.start(&["run", &gate.wait()]);
    while !place.ok(&["ps"]).contains("Running") {}
    faults.set(&["write a.db-wal 0 -1 28"]);
    gate.open();
    serve.err.expect("not on disk yet");
    let hits = || faults.hits().len();
    let first = hits();
    let began = Instant::now();
    while hits() < first + 6 {
        assert!(began.elapsed() < PATIENCE, "it is tried again");
    }
    faults.set(&[]);
    assert_eq!(run.wait().code(), Some(0));
    serve.signal(Signal::INT);
    let said = serve.end().err;
    assert!(!said.contains("not on disk yet"), "{said}");
}

#[test]
fn errors_give_the_cause_that_the_system_reports() {
    let (place, faults) = (Place::with_instances(&["i-1"]), Faults::new());
    let check = |rules: &[&str], code: &str, want: &str| {
        faults.set(rules);
        let mut command: Command = place.command(&["run", "true"]);
        faults.load_into(&mut command);
        let done = Done::new(command.output().expect("it starts"));
        assert_eq!(done.code, Some(1), "{rules:?}: {}", done.err);
        assert!(done.err.contains(want) && done.err.contains(code), "{rules:?}: {}", done.err);
    };
    check(&["sync a.db-wal 0 -1 5"], "(Storage.Io)", "could not be brought to disk");
    check(&["write a.db-wal 0 -1 28"], "(Storage.Full)", "no space is left");
    check(
        &["open a.db.lock 0 -1 24"],
        "(Storage.TooManyFiles)",
        "too many open files: the limit is",
    );
    check(&["open a.db.lock 0 -1 30"], "(Storage.ReadOnly)", "a.db.lock: Read-only file system");
    check(&["open a.db.lock 0 -1 28"], "(Storage.Full)", "a.db.lock: no ");
    check(&["read a.db 0 -1 5"], "(Storage.Io)", "a read was refused");
}

/// Returns the program as a user whom the folder and the file of a place do not belong to; `None` if this process may
/// not become another user.
fn as_another_user(place: &Place, words: &[&str]) -> Option<Command> {
    use std::os::unix::process::CommandExt;

    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    // The folder of the program may be this user's alone.
    let program = place.path("adjutant");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_adjutant"), &program).expect("a copy");
    }
    let mut command = Command::new(program);
    command.args(words).env_clear().env("ADJUTANT_DB", place.db()).uid(NOBODY).gid(NOBODY);
    command.current_dir("/");
    Some(command)
}

fn set_mode(path: &std::path::Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is this user's");
}

/// Every command that looks. The second user could make files in the folder.
#[test]
fn a_look_makes_no_file_and_needs_the_right_to_read_only() {
    let place = Place::with_instances(&["i-1"]);
    let serve = place.serve(&[]);
    place.ok(&["run", "--on", "i-1", "echo kept"]);
    let id = place.newest();
    let plan = ["run", "--frequency", "0 0 0 1 1 ? 2099", "--timeout", "9", "true"];
    place.ok(&plan);
    set_mode(&place.path(""), 0o1777);
    let looks: [&[&str]; 9] = [
        &["ps"],
        &["ps", "--all"],
        &["show", &id],
        &["show", "--output", &id],
        &["show", "--follow", &id],
        &["show", "--history", &id],
        &["explain", &id, "2030-01-31T08:00:00Z"],
        &["instances", "list"],
        &["commands", "list"],
    ];
    let check = |state: &str| {
        let before = names(&place);
        for words in looks {
            let Some(mut command) = as_another_user(&place, words) else { return };
            let done = Done::new(command.output().expect("it starts"));
            assert_eq!(done.code, Some(0), "{state}, {words:?}: {}", done.err);
            let own = place.run(words);
            assert_eq!((own.code, own.out), (Some(0), done.out), "{state}, {words:?}: {}", own.err);
        }
        let after: Vec<_> = names(&place).into_iter().filter(|name| name != "adjutant").collect();
        let before: Vec<_> = before.into_iter().filter(|name| name != "adjutant").collect();
        assert_eq!(after, before, "{state}");
    };
    set_mode(&place.db(), 0o644);
    serve.interrupt();
    check("nobody runs the file");
    // The lock, the log and the memory that connections share have the mode of the file.
    let serve = place.serve(&[]);
    place.ok(&plan);
    check("another user runs the file");
    serve.kill();
    // Only the file's own user puts it in order.
    let before = names(&place);
    for words in looks {
        let Some(mut command) = as_another_user(&place, words) else { return };
        let done = Done::new(command.output().expect("it starts"));
        assert_eq!(done.code, Some(0), "left by its engine, {words:?}: {}", done.err);
    }
    assert_eq!(names(&place), before);
    place.ok(&["run", "--on", "i-1", "true"]);

    set_mode(&place.db(), 0o600);
    for words in looks {
        let Some(mut command) = as_another_user(&place, words) else { return };
        let done = Done::new(command.output().expect("it starts"));
        let want = format!("database {0}: {0}: Permission denied", place.db().display());
        assert_eq!(done.code, Some(1), "{words:?}: {}", done.err);
        assert!(
            done.err.contains(&want) && done.err.contains("mode 0600"),
            "{words:?}: {}",
            done.err
        );
        assert!(done.err.ends_with("(Storage.CannotOpen)\n"), "{words:?}: {}", done.err);
        assert!(!done.err.contains("file:"), "{words:?}: {}", done.err);
    }
}

#[test]
fn a_look_starts_nothing() {
    let place = Place::new();
    let witness = place.path("witness");
    let script = format!("touch {}", witness.display());
    let planned = place.ok(&["run", "--frequency", "*/10 * * * * ?", "--timeout", "5", &script]);
    let id = planned.trim();
    let follow = place.start(&["show", "--follow", id]);
    for words in [&["ps"][..], &["show", id], &["commands", "list"]] {
        place.ok(words);
    }
    // Longer than from one of its times to the next.
    follow.out.expect_none_for(Duration::from_millis(10_500));
    follow.signal(Signal::INT);
    follow.end();
    assert!(!witness.exists(), "a look ran a schedule");
}

#[test]
fn a_file_that_others_can_change_is_run_only_if_the_command_line_says_so() {
    let place = Place::with_instances(&["i-1"]);
    set_mode(&place.db(), 0o666);
    for words in [
        &["run", "true"][..],
        &["run", "--detach", "true"],
        &["run", "--frequency", "rate(1h)", "true"],
        &["instances", "add", "i-2"],
        &["serve"],
    ] {
        let done = place.run(words);
        assert_eq!(done.code, Some(1), "{words:?}: {}", done.err);
        for want in [
            "can be written by every user",
            "mode 0666",
            "chmod go-w",
            "--no-strict-modes",
            "(Storage.Unsafe)",
        ] {
            assert!(done.err.contains(want), "{words:?}: {want}: {}", done.err);
        }
    }
    place.ok(&["ps"]);
    place.ok(&["--no-strict-modes", "run", "true"]);
    let id = place.ok(&["run", "--no-strict-modes", "--detach", "true"]).trim().to_owned();
    place.wait_until(&id, "Success");
}

//! Real groups with real processes, as far as this machine has them. Where it lacks something, the
//! reason is checked and printed instead. What is waited for is output, or an end.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

const MIB: u64 = 1024 * 1024;

/// How groups can be had: all that there is, and v1 alone.
fn ways() -> Vec<&'static Cgroups> {
    static V1: OnceLock<Result<Cgroups, String>> = OnceLock::new();
    let found = Cgroups::find();
    let v1 = V1.get_or_init(|| {
        let read = |path| fs::read_to_string(path).expect("/proc");
        let (mounts, own) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
        Cgroups::among(|hierarchy| match hierarchy {
            Hierarchy::V2 => Err("v2 is left out".to_owned()),
            Hierarchy::V1(_) => place::find(hierarchy, &mounts, &own),
        })
    });
    let ways = [found, v1.as_ref().map_err(String::as_str)];
    ways.into_iter().filter_map(|way| has(way, "freezer or v2")).collect()
}

/// What is offered, or none if the reason for that is fit for a record.
fn has<T>(offered: Result<T, &str>, what: &str) -> Option<T> {
    offered.map_err(|why| assert_is_reason(why, what)).ok()
}

fn assert_is_reason(why: &str, what: &str) {
    eprintln!("not tested: {why}");
    let reason = why.strip_prefix(&format!("this machine offers no writable {what} cgroup: "));
    assert!(reason.is_some_and(|reason| !reason.is_empty()), "{why}");
}

/// The name of a group, of this test in this process only.
fn name(test: &str, way: &Cgroups) -> String {
    format!("{}{test}", prefix(way))
}

/// Differs from way to way: they share hierarchies.
fn prefix(way: &Cgroups) -> String {
    let way = if way.kill.how == v1::FREEZER { "v1" } else { "any" };
    format!("test-{}-{way}-", rustix::process::getpid())
}

/// Runs `script` in the group.
fn enter(cgroup: &Cgroup, script: &str) -> Child {
    let enter = r#"for procs; do echo 0 > "$procs" || exit 99; done"#;
    Command::new("sh")
        .args(["-c", &format!("{enter}\n{script}"), "sh"])
        .args(cgroup.entrances())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh")
}

/// Waits until the process has printed `ready`; the rest of what it prints.
fn ready(child: &mut Child) -> BufReader<ChildStdout> {
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a pipe");
    assert_eq!(line, "ready\n");
    stdout
}

/// Waits until nobody holds the pipe any more.
fn read_to_end(mut stdout: BufReader<ChildStdout>) {
    stdout.read_to_string(&mut String::new()).expect("a pipe");
}

fn assert_removed(dirs: &[PathBuf]) {
    assert!(!dirs.is_empty());
    for dir in dirs {
        assert!(!dir.exists(), "{}", dir.display());
    }
}

#[test]
fn each_lack_has_a_reason() {
    for way in ways() {
        has(way.memory.as_ref().map_err(String::as_str), "memory");
        has(way.processes.as_ref().map_err(String::as_str), "pids");
    }
    let nothing = Cgroups::among(|hierarchy| Err(format!("no {hierarchy} is mounted")));
    assert_eq!(
        nothing.expect_err("nothing is mounted"),
        "this machine offers no writable freezer or v2 cgroup: no v2 hierarchy is mounted; no v1 \
         hierarchy for freezer is mounted"
    );
    // Where nobody can make a group.
    let proc = Place { own: "/proc".into(), top: "/proc".into() };
    let why = v1::offer(&proc.own, v1::FREEZER_STATE).expect_err("no place for groups");
    assert!(why.starts_with("/proc/adjutant-try-") && why.contains(": E"), "{why}");
    let why = v2::offer(&proc).expect_err("no place for groups");
    assert!(why.starts_with("/proc/cgroup.procs: E"), "{why}");
}

#[test]
fn who_enters_is_a_member() {
    for way in ways() {
        let cgroup = way.create(&name("enter", way), Caps::default()).expect("a group");
        assert_eq!(cgroup.members().expect("a list"), []);
        let mut child = enter(&cgroup, "echo ready; exec cat");
        let stdout = ready(&mut child);
        let pid = Pid::from_child(&child);
        assert_eq!(cgroup.members().expect("a list"), [pid]);
        for procs in cgroup.entrances() {
            assert_eq!(fs::read_to_string(procs).expect("a list"), format!("{pid}\n"));
        }
        drop(child.stdin.take());
        read_to_end(stdout);
        assert!(child.wait().expect("own child").success());
        assert_eq!(cgroup.members().expect("a list"), []);
        let dirs = cgroup.group.dirs.clone();
        cgroup.release().expect("nobody is in it");
        assert_removed(&dirs);
    }
}

#[test]
fn groups_made_inside_belong_to_it() {
    for way in ways() {
        let cgroup = way.create(&name("inside", way), Caps::default()).expect("a group");
        let inside = cgroup.group.dirs[0].join("a/b");
        fs::create_dir_all(&inside).expect("a group inside");
        let script = format!("echo 0 > '{}/cgroup.procs'; echo ready; exec cat", inside.display());
        let mut child = enter(&cgroup, &script);
        let stdout = ready(&mut child);
        assert_eq!(cgroup.members().expect("a list"), [Pid::from_child(&child)]);
        assert_eq!(cgroup.kill().expect("it can be killed"), []);
        read_to_end(stdout);
        assert_eq!(child.wait().expect("own child").signal(), Some(9));
        let dirs = cgroup.group.dirs.clone();
        cgroup.release().expect("nobody is in it");
        assert_removed(&dirs);
    }
}

#[test]
fn processes_are_limited() {
    for way in ways() {
        let caps = Caps { processes_max: Some(16), ..Caps::default() };
        let cgroup = match (way.create(&name("pids", way), caps), &way.processes) {
            (Ok(cgroup), Ok(_)) => cgroup,
            (got, why) => {
                let why = why.as_ref().expect_err("it would be offered");
                assert_is_reason(why, "pids");
                assert_eq!(got.expect_err("not offered").to_string(), *why);
                continue;
            }
        };
        let script = "exec 2>&-; i=0; while [ $i -lt 64 ]; do sleep 1000 & i=$((i+1)); done";
        let mut child = enter(&cgroup, script);
        assert!(!child.wait().expect("own child").success(), "it could not start them all");
        assert_eq!(cgroup.members().expect("a list").len(), 15);
        assert_eq!(cgroup.kill().expect("they can be killed"), []);

        let caps = Caps { processes_max: Some(u64::MAX), ..Caps::default() };
        let unlimited = way.create(&name("pids-max", way), caps).expect("a group");
        let limits = unlimited.group.dirs.iter().map(|dir| fs::read_to_string(dir.join(PIDS_MAX)));
        assert_eq!(limits.flatten().collect::<Vec<_>>(), ["max\n"]);
    }
}

#[test]
fn memory_is_limited_and_reported() {
    for way in ways() {
        let caps = Caps { memory_bytes: Some(32 * MIB), ..Caps::default() };
        let cgroup = match (way.create(&name("memory", way), caps), &way.memory) {
            (Ok(cgroup), Ok(_)) => cgroup,
            (got, why) => {
                let why = why.as_ref().expect_err("it would be offered");
                assert_is_reason(why, "memory");
                assert_eq!(got.expect_err("not offered").to_string(), *why);
                continue;
            }
        };
        let run = |script| enter(&cgroup, script).wait().expect("own child");
        assert!(run("exec true").success());
        let before = cgroup.report();
        assert!(!before.oom_killed);
        assert!(before.memory_peak_bytes.is_some_and(|peak| peak < 16 * MIB), "{before:?}");

        // It keeps the last line, which never ends.
        assert_eq!(run("exec tail /dev/zero").signal(), Some(9));
        let after = cgroup.report();
        assert!(after.oom_killed);
        let peak = after.memory_peak_bytes.expect("it was known before");
        assert!((31 * MIB..=32 * MIB).contains(&peak), "{peak}");
    }
}

/// Processes that start their like and end, faster than anybody could list them, and one that no other
/// signal ends in a session of its own.
const FORKING: &str = r#"
hop() { hop & }
for i in 1 2 3 4 5 6 7 8; do hop; done
setsid sh -c 'trap "" TERM HUP INT; echo ready; while :; do sleep 1000; done' &
wait
"#;

#[test]
fn what_forks_without_end_is_killed() {
    for way in ways() {
        // Who has ended counts until init has seen to it.
        let processes_max = way.processes.is_ok().then_some(2048);
        let caps = Caps { processes_max, ..Caps::default() };
        let cgroup = way.create(&name("kill", way), caps).expect("a group");
        let mut child = enter(&cgroup, FORKING);
        let stdout = ready(&mut child);
        assert!(cgroup.members().expect("a list").len() > 2);
        assert_eq!(cgroup.kill().expect("they can be killed"), []);
        read_to_end(stdout);
        child.wait().expect("own child");
        let dirs = cgroup.group.dirs.clone();
        cgroup.release().expect("nobody is in it");
        assert_removed(&dirs);
    }
}

#[test]
fn a_dropped_group_ends_its_processes() {
    for way in ways() {
        let empty = way.create(&name("drop-empty", way), Caps::default()).expect("a group");
        let dirs = empty.group.dirs.clone();
        drop(empty);
        assert_removed(&dirs);

        let cgroup = way.create(&name("drop", way), Caps::default()).expect("a group");
        let mut child = enter(&cgroup, FORKING);
        let stdout = ready(&mut child);
        drop(cgroup);
        read_to_end(stdout);
        child.wait().expect("own child");
    }
}

#[test]
fn who_is_left_in_a_group_goes_on_in_the_one_above() {
    for way in ways() {
        let cgroup = way.create(&name("left", way), Caps::default()).expect("a group");
        let group = cgroup.group.clone();
        let mut child = enter(&cgroup, "echo ready; exec cat");
        let stdout = ready(&mut child);
        cgroup.release().expect("whoever is in it can be moved");
        assert_removed(&group.dirs);
        drop(child.stdin.take());
        read_to_end(stdout);
        assert!(child.wait().expect("own child").success(), "nobody killed it");
    }
}

#[test]
fn a_sweep_ends_what_was_left() {
    for way in ways() {
        let prefix = name("sweep-", way);
        let make = |name: &str| {
            let mut cgroup =
                way.create(&format!("{prefix}{name}"), Caps::default()).expect("a group");
            // As if the engine had been killed.
            cgroup.is_left = true;
            cgroup
        };
        let (empty, busy, other) = (make("own-1"), make("own-2"), make("other-1"));
        let mut left = enter(&busy, FORKING);
        let mut stranger = enter(&other, "echo ready; exec cat");
        let (left_stdout, stranger_stdout) = (ready(&mut left), ready(&mut stranger));
        // Half made, or half removed.
        fs::remove_dir(empty.group.dirs.last().expect("one at least")).expect("nobody is in it");

        let there = [&empty, &busy].iter().filter(|c| c.group.dirs[0].exists()).count();

        let own = format!("{prefix}own-");
        assert_eq!(way.sweep(&own).expect("all can be killed"), there);
        read_to_end(left_stdout);
        left.wait().expect("own child");
        assert_removed(&busy.group.dirs);
        assert_removed(&empty.group.dirs);
        assert_eq!(other.members().expect("a list"), [Pid::from_child(&stranger)]);
        assert_eq!(way.sweep(&own).expect("nothing to do"), 0);

        drop(stranger.stdin.take());
        read_to_end(stranger_stdout);
        assert!(stranger.wait().expect("own child").success(), "nobody killed it");
        other.release().expect("nobody is in it");
    }
}

/// One place for groups that is a plain folder.
fn folder() -> (tempfile::TempDir, Cgroups) {
    let dir = tempfile::tempdir().expect("a folder");
    let kill = Home { dir: dir.path().to_owned(), how: Kill::AtOnce };
    let lacks = |what: &str| format!("no {what} today");
    (dir, Cgroups { kill, memory: Err(lacks("memory")), processes: Err(lacks("pids")) })
}

#[test]
fn a_limit_that_is_not_offered_is_refused() {
    let (dir, cgroups) = folder();
    let check = |caps: Caps, want: &str| {
        let error = cgroups.create("x", caps).expect_err("not offered");
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Unsupported, want));
        assert!(!dir.path().join("adjutant-x").exists());
    };
    check(Caps { memory_bytes: Some(MIB), processes_max: None }, "no memory today");
    check(Caps { memory_bytes: None, processes_max: Some(1) }, "no pids today");
    let unlimited = cgroups.create("x", Caps::default()).expect("a group");
    assert_eq!(unlimited.report(), Report::default());
}

#[test]
fn a_name_is_one_name_and_used_once() {
    let (dir, cgroups) = folder();
    for name in ["", "/", "a/b", "../a"] {
        let error = cgroups.create(name, Caps::default()).expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        assert_eq!(cgroups.sweep(name).expect_err("no name").kind(), ErrorKind::InvalidInput);
    }
    let first = cgroups.create("a", Caps::default()).expect("a group");
    let error = cgroups.create("a", Caps::default()).expect_err("the name is used");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(dir.path().join("adjutant-a").exists(), "the first is left alone");
    drop(first);
    assert!(!dir.path().join("adjutant-a").exists());
}

#[test]
fn a_group_that_cannot_be_limited_is_not_left_behind() {
    let (dir, mut cgroups) = folder();
    for how in [Memory::V1, Memory::V2] {
        cgroups.memory = Ok(Home { dir: dir.path().to_owned(), how });
        // A plain folder has no file for it.
        let caps = Caps { memory_bytes: Some(MIB), processes_max: None };
        let error = cgroups.create("x", caps).expect_err("no such file");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(!dir.path().join("adjutant-x").exists());
    }
}

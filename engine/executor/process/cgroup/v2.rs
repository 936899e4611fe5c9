//! The files of version 2, which has one hierarchy of groups for all controllers.
//!
//! A group has a controller only if its parent hands it down, and a parent that is not the machine's root
//! can do so only while no process is in it. So a host that is in the only group it was given can kill runs,
//! but not limit them. One that was given a group, and is in a child of that, can: systemd's `Delegate=yes`
//! with `DelegateSubgroup=` makes such a pair, and marks what it gives away.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::group::Kill;
use super::place::Place;
use super::{PROCS, Report, keyed, named, number, try_group, write};

pub(super) const KILL: &str = "cgroup.kill";
const SUBTREE_CONTROL: &str = "cgroup.subtree_control";

/// Before Linux 5.14, which brought `cgroup.kill`.
const FREEZER: Kill = Kill::Frozen { file: "cgroup.freeze", freeze: "1", thaw: "0" };

/// What groups can do that are made in `dir`.
#[derive(Debug)]
pub(super) struct Offer {
    pub dir: PathBuf,
    pub kill: Kill,
    /// Or why it cannot be limited.
    pub memory: Result<(), String>,
    /// Or why they cannot be limited.
    pub processes: Result<(), String>,
}

/// What this process can do in its own group, or in the one above if that limits memory and its own does
/// not.
pub(super) fn offer(place: &Place) -> Result<Offer, String> {
    let own = offer_in(&place.own);
    if matches!(&own, Ok(Offer { memory: Ok(()), .. })) {
        return own;
    }
    match place.own.parent().filter(|_| place.own != place.top) {
        Some(parent) if is_given(parent) => match offer_in(parent) {
            Ok(above) if above.memory.is_ok() || own.is_err() => Ok(above),
            _ => own,
        },
        _ => own,
    }
}

/// Whether systemd gave `group` away. Others it manages itself, and wants nobody to touch, whatever their
/// owner could do.
fn is_given(group: &Path) -> bool {
    let is_marked = |name: &str| {
        let mut value = [0; 1];
        rustix::fs::getxattr(group, name, &mut value).is_ok_and(|len| value[..len] == *b"1")
    };
    is_marked("user.delegate") || is_marked("trusted.delegate")
}

fn offer_in(dir: &Path) -> Result<Offer, String> {
    // To enter a group one has to be allowed to leave for it, by the group that both have in common.
    let procs = dir.join(PROCS);
    OpenOptions::new()
        .write(true)
        .open(&procs)
        .map_err(|error| named(&procs, &error).to_string())?;
    let handed_down = hand_down(dir);
    let (kind, controllers, kills) = try_group(dir, |group| {
        let read = |file| fs::read_to_string(group.join(file)).unwrap_or_default();
        (read("cgroup.type"), read("cgroup.controllers"), group.join(KILL).exists())
    })?;
    if kind.trim_end() != "domain" {
        let kind = kind.trim_end();
        return Err(format!("a group in {} is `{kind}`, which nobody can enter", dir.display()));
    }
    let limits = |controller: &str| match controllers.split_whitespace().any(|c| c == controller) {
        true => Ok(()),
        false => Err(match &handed_down {
            Err(why) => why.clone(),
            Ok(()) => format!("{} has no {controller} controller", dir.display()),
        }),
    };
    let kill = if kills { Kill::AtOnce } else { FREEZER };
    Ok(Offer { dir: dir.to_owned(), kill, memory: limits("memory"), processes: limits("pids") })
}

/// Has `dir` hand down to its children what it has of the controllers that limit runs.
///
/// # Errors
///
/// Why it does not.
fn hand_down(dir: &Path) -> Result<(), String> {
    let read = |file: &str| {
        let file = dir.join(file);
        fs::read_to_string(&file).map_err(|error| named(&file, &error).to_string())
    };
    let (offered, handed) = (read("cgroup.controllers")?, read(SUBTREE_CONTROL)?);
    let missing = missing(&offered, &handed);
    if missing.is_empty() {
        return Ok(());
    }
    // The kernel would let it hand down pids alone, but then no child could be entered any more. The
    // machine's root has no type.
    if dir.join("cgroup.type").exists() && !read(PROCS)?.is_empty() {
        return Err(format!(
            "{} has processes in it, and can limit groups inside only while it has none",
            dir.display()
        ));
    }
    write(&dir.join(SUBTREE_CONTROL), &missing).map_err(|error| error.to_string())
}

/// What to write so that a group hands down all that it is offered: `+memory +pids`, if all is missing.
fn missing(offered: &str, handed: &str) -> String {
    let has = |list: &str, name: &str| list.split_whitespace().any(|word| word == name);
    let missing = ["memory", "pids"].into_iter().filter(|c| has(offered, c) && !has(handed, c));
    missing.map(|controller| format!("+{controller}")).collect::<Vec<_>>().join(" ")
}

/// Limits memory, with no swap beyond it.
pub(super) fn limit_memory(group: &Path, bytes: u64) -> io::Result<()> {
    write(&group.join("memory.max"), &bytes.to_string())?;
    match write(&group.join("memory.swap.max"), "0") {
        // The kernel has no swap, or does not count it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

pub(super) fn report(group: &Path) -> Report {
    Report {
        memory_peak_bytes: number(&group.join("memory.peak")),
        oom_killed: keyed(&group.join("memory.events"), "oom_kill").is_some_and(|n| n > 0),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::XattrFlags;

    use super::*;

    #[test]
    fn what_is_offered_and_not_handed_down_is_missing() {
        let check = |offered: &str, handed: &str, want: &str| {
            assert_eq!(missing(offered, handed), want, "{offered:?} {handed:?}");
        };
        check("cpuset cpu io memory hugetlb pids\n", "\n", "+memory +pids");
        check("cpu memory pids\n", "cpu pids\n", "+memory");
        check("memory pids\n", "memory pids\n", "");
        check("pids\n", "", "+pids");
        check("hugetlb\n", "", "");
        check("", "", "");
    }

    /// A folder with such files, as a group has them.
    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        dir
    }

    #[test]
    fn only_an_empty_group_or_the_root_hands_down() {
        let check = |files: &[(&str, &str)], want: Result<&str, &str>| {
            let dir = group(files);
            match (hand_down(dir.path()), want) {
                (Ok(()), Ok(written)) => {
                    let handed = fs::read_to_string(dir.path().join(SUBTREE_CONTROL));
                    assert_eq!(handed.expect("a file"), written, "{files:?}");
                }
                (Err(why), Err(want)) => assert!(why.contains(want), "{files:?}: {why}"),
                (got, _) => panic!("{files:?}: {got:?}"),
            }
        };
        let offers = ("cgroup.controllers", "memory pids\n");
        let kind = ("cgroup.type", "domain\n");
        let handed = (SUBTREE_CONTROL, "");
        check(&[offers, kind, handed, (PROCS, "")], Ok("+memory +pids"));
        check(&[offers, kind, handed, (PROCS, "7\n")], Err("has processes in it"));
        check(&[offers, handed, (PROCS, "7\n")], Ok("+memory +pids"));
        let all = (SUBTREE_CONTROL, "memory pids");
        check(&[offers, kind, all, (PROCS, "7\n")], Ok("memory pids"));
        check(&[kind, handed, (PROCS, "")], Err("cgroup.controllers: ENOENT"));
    }

    #[test]
    fn memory_is_limited_without_swap() {
        let swapless = group(&[("memory.max", "")]);
        limit_memory(swapless.path(), 4096).expect("written");
        assert!(!swapless.path().join("memory.swap.max").exists());

        let dir = group(&[("memory.max", ""), ("memory.swap.max", "")]);
        limit_memory(dir.path(), 4096).expect("written");
        let read = |name| fs::read_to_string(dir.path().join(name)).expect("a file");
        assert_eq!((read("memory.max").as_str(), read("memory.swap.max").as_str()), ("4096", "0"));

        let error = limit_memory(&dir.path().join("gone"), 1).expect_err("no such group");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_report_is_what_the_files_say() {
        let check = |files: &[(&str, &str)], memory_peak_bytes, oom_killed| {
            let want = Report { memory_peak_bytes, oom_killed };
            assert_eq!(report(group(files).path()), want, "{files:?}");
        };
        let quiet = "low 0\nhigh 0\nmax 9\noom 4\noom_kill 0\noom_group_kill 0\n";
        check(&[("memory.peak", "70000\n"), ("memory.events", quiet)], Some(70_000), false);
        check(&[("memory.events", "oom 1\noom_kill 1\noom_group_kill 0\n")], None, true);
        check(&[], None, false);
    }

    #[test]
    fn a_group_is_given_by_its_mark() {
        let dir = group(&[]);
        assert!(!is_given(dir.path()));
        let set = |value: &[u8]| {
            rustix::fs::setxattr(dir.path(), "user.delegate", value, XattrFlags::empty())
        };
        if let Err(error) = set(b"0") {
            // Some file systems for temporary files know no marks.
            assert_eq!(error, rustix::io::Errno::OPNOTSUPP);
            return;
        }
        assert!(!is_given(dir.path()));
        set(b"1").expect("it could be set before");
        assert!(is_given(dir.path()));
    }
}

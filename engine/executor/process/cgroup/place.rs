//! Where in the file system this process's own groups are: `/proc/self/cgroup` has their paths within their
//! hierarchies, `/proc/self/mountinfo` what part of which hierarchy is mounted where.

use std::fmt;
use std::path::{Path, PathBuf};

/// A tree of groups, in which each process is in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hierarchy {
    V2,
    /// That of a controller, such as `memory`.
    V1(&'static str),
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V2 => f.write_str("v2 hierarchy"),
            Self::V1(controller) => write!(f, "v1 hierarchy for {controller}"),
        }
    }
}

/// Where this process is in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its own group.
    pub own: PathBuf,
    /// The uppermost group that can be seen.
    pub top: PathBuf,
}

/// Where this process is in `hierarchy`, by the texts of `/proc/self/mountinfo` and
/// `/proc/self/cgroup`.
///
/// # Errors
///
/// Why that cannot be said.
pub(super) fn find(hierarchy: Hierarchy, mountinfo: &str, own: &str) -> Result<Place, String> {
    let mut mounts = mountinfo.lines().filter_map(|line| mount(hierarchy, line)).peekable();
    if mounts.peek().is_none() {
        return Err(format!("no {hierarchy} is mounted"));
    }
    let path = own
        .lines()
        .find_map(|line| own_path(hierarchy, line))
        .ok_or_else(|| format!("this process is in no group of the {hierarchy}"))?;
    mounts
        .find_map(|(root, top)| {
            let below = Path::new(path).strip_prefix(root).ok()?;
            // Of a namespace that this process is outside of: `/../x` is not below what is mounted.
            let is_below = !below.components().any(|part| part.as_os_str() == "..");
            is_below.then(|| Place { own: top.join(below), top })
        })
        .ok_or_else(|| format!("what is mounted of the {hierarchy} does not have {path}"))
}

/// The path in a line `4:cpu,memory:/path`; v2 is `0::/path`.
fn own_path(hierarchy: Hierarchy, line: &str) -> Option<&str> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let is_it = match hierarchy {
        Hierarchy::V2 => controllers.is_empty(),
        Hierarchy::V1(wanted) => controllers.split(',').any(|controller| controller == wanted),
    };
    is_it.then_some(path)
}

/// What of the hierarchy is mounted where, if the line tells of that:
/// `35 31 0:32 /root /top rw,relatime shared:9 - cgroup cgroup rw,memory`.
fn mount(hierarchy: Hierarchy, line: &str) -> Option<(PathBuf, PathBuf)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = file_system.split(' ');
    let (kind, options) = (fields.next()?, fields.nth(1)?);
    let is_it = match hierarchy {
        Hierarchy::V2 => kind == "cgroup2",
        Hierarchy::V1(wanted) => kind == "cgroup" && options.split(',').any(|o| o == wanted),
    };
    let mut fields = mount.split(' ').skip(3);
    let (root, top) = (fields.next()?, fields.next()?);
    is_it.then(|| (unescape(root).into(), unescape(top).into()))
}

/// A path as the kernel prints it there, with these four escaped.
fn unescape(path: &str) -> String {
    let path = path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n");
    path.replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "\
        24 30 0:22 / /proc rw,nosuid shared:14 - proc proc rw\n\
        35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    const V1: &str = "\
        31 23 0:28 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    const V1_OWN: &str = "\
        11:memory:/user.slice/u:1\n\
        4:cpu,cpuacct:/\n\
        3:pids:/user.slice\n\
        1:name=systemd:/user.slice/user-1.scope\n";

    /// Bind mounts of the container's own groups, as Docker makes them without a namespace.
    const CONTAINER: &str = "\
        731 729 0:32 /docker/4f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
        732 729 0:30 /docker/4f /sys/fs/cg\\040v2\\134 rw - cgroup2 cgroup rw\n";

    #[track_caller]
    fn check(hierarchy: Hierarchy, mountinfo: &str, own: &str, want: Result<(&str, &str), &str>) {
        let got = find(hierarchy, mountinfo, own);
        let want = want.map(|(own, top)| Place { own: own.into(), top: top.into() });
        assert_eq!(got, want.map_err(str::to_owned));
    }

    #[test]
    fn v2_has_one_hierarchy() {
        let top = "/sys/fs/cgroup";
        check(Hierarchy::V2, V2, "0::/\n", Ok((top, top)));
        let service = "/sys/fs/cgroup/system.slice/a b.service";
        check(Hierarchy::V2, V2, "0::/system.slice/a b.service\n", Ok((service, top)));
        let memory = Hierarchy::V1("memory");
        check(memory, V2, "0::/\n", Err("no v1 hierarchy for memory is mounted"));
    }

    #[test]
    fn v1_has_one_for_each_controller() {
        let memory = ("/sys/fs/cgroup/memory/user.slice/u:1", "/sys/fs/cgroup/memory");
        check(Hierarchy::V1("memory"), V1, V1_OWN, Ok(memory));
        let both = "/sys/fs/cgroup/cpu,cpuacct";
        check(Hierarchy::V1("cpuacct"), V1, V1_OWN, Ok((both, both)));
        let freezer = Hierarchy::V1("freezer");
        check(freezer, V1, V1_OWN, Err("no v1 hierarchy for freezer is mounted"));
        check(Hierarchy::V2, V1, V1_OWN, Err("no v2 hierarchy is mounted"));
        let none = "this process is in no group of the v1 hierarchy for pids";
        check(Hierarchy::V1("pids"), V1, "4:cpu,cpuacct:/\n", Err(none));
    }

    #[test]
    fn both_may_be_there() {
        let mounts = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let own = format!("{V1_OWN}0::/user.slice\n");
        let unified = "/sys/fs/cgroup/unified";
        check(Hierarchy::V2, &mounts, &own, Ok((&format!("{unified}/user.slice"), unified)));
        let pids = ("/sys/fs/cgroup/pids/user.slice", "/sys/fs/cgroup/pids");
        check(Hierarchy::V1("pids"), &mounts, &own, Ok(pids));
    }

    #[test]
    fn a_container_sees_a_part() {
        let memory = "/sys/fs/cgroup/memory";
        let own = "4:memory:/docker/4f\n0::/docker/4f/init\n";
        check(Hierarchy::V1("memory"), CONTAINER, own, Ok((memory, memory)));
        let escaped = "/sys/fs/cg v2\\";
        check(Hierarchy::V2, CONTAINER, own, Ok((&format!("{escaped}/init"), escaped)));
        // One path begins as the other does, but is not below it.
        let beside = "what is mounted of the v2 hierarchy does not have /docker/4f5";
        check(Hierarchy::V2, CONTAINER, "0::/docker/4f5\n", Err(beside));
        let outside = "what is mounted of the v2 hierarchy does not have /../x";
        check(Hierarchy::V2, V2, "0::/../x\n", Err(outside));
        // Of two mounts the one that shows the own group.
        let both = format!("{CONTAINER}{V2}");
        let top = "/sys/fs/cgroup";
        check(Hierarchy::V2, &both, "0::/else\n", Ok(("/sys/fs/cgroup/else", top)));
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        for text in ["", "\n", "0:", "0::", "a - cgroup2", "1 2 3 - cgroup2 c rw", " - cgroup2  "] {
            check(Hierarchy::V2, text, text, Err("no v2 hierarchy is mounted"));
        }
        let none = "this process is in no group of the v2 hierarchy";
        for text in ["", "\n", "0:", "0"] {
            check(Hierarchy::V2, V2, text, Err(none));
        }
    }
}

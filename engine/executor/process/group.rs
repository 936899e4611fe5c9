//! Who is in a process group. The kernel tells only through `/proc`; looked at when a stop has to
//! know whether it is over.

use std::{fs, io};

use rustix::process::Pid;

/// A process of the group that has not ended. The leader, which is a zombie, does not count.
pub(super) fn living_member(group: Pid) -> io::Result<Option<Pid>> {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { continue };
        // A process that ends while it is looked at is none any more.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if lives_in(&stat, group) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// Reads `pid (name) state ppid pgrp …`; the name may hold anything, parentheses too.
fn lives_in(stat: &str, group: Pid) -> bool {
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next();
    let process_group = fields.nth(1).and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
    process_group == Some(group) && !matches!(state, Some("Z" | "X"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let group = Pid::from_raw(7).expect("a pid");
        let check = |stat, want| assert_eq!(lives_in(stat, group), want, "{stat}");
        check("9 (sh) S 1 7 7 0", true);
        check("9 (a) R) b) D 1 7 7 0", true);
        check("9 (sh) Z 1 7 7 0", false);
        check("9 (sh) S 1 8 7 0", false);
        check("", false);
        check("9 (sh", false);
    }
}

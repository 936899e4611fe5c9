//! The files of version 1, which has a hierarchy of groups for each controller.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::group::Kill;
use super::{Report, keyed, number, try_group, write};

pub(super) const FREEZER_STATE: &str = "freezer.state";
pub(super) const MEMORY_LIMIT: &str = "memory.limit_in_bytes";

pub(super) const FREEZER: Kill =
    Kill::Frozen { file: FREEZER_STATE, freeze: "FROZEN", thaw: "THAWED" };

/// The group `own`, if groups can be made in it, and have `file`.
pub(super) fn offer(own: &Path, file: &str) -> Result<PathBuf, String> {
    match try_group(own, |group| group.join(file).exists())? {
        true => Ok(own.to_owned()),
        false => Err(format!("groups in {} have no {file}", own.display())),
    }
}

/// Limits memory, and where the kernel counts it, memory and swap together to no more.
pub(super) fn limit_memory(group: &Path, bytes: u64) -> io::Result<()> {
    // In this order: the sum may never be less than the part.
    write(&group.join(MEMORY_LIMIT), &bytes.to_string())?;
    match write(&group.join("memory.memsw.limit_in_bytes"), &bytes.to_string()) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// `memory.failcnt` is not asked: it counts also what was reclaimed, and nobody killed for.
pub(super) fn report(group: &Path) -> Report {
    Report {
        memory_peak_bytes: number(&group.join("memory.max_usage_in_bytes")),
        oom_killed: keyed(&group.join("memory.oom_control"), "oom_kill").is_some_and(|n| n > 0),
    }
}

//! Accounts of the system, and becoming the user of one.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use nix::unistd;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::panics::tell;

/// A user, as the system knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    pub shell: PathBuf,
}

impl Account {
    /// The account of this name, if there is one. Blocks for as long as the system's directory does.
    ///
    /// # Errors
    ///
    /// If the directory cannot be asked.
    pub(super) fn of_name(name: &str) -> io::Result<Option<Self>> {
        Ok(unistd::User::from_name(name)?.map(Self::from))
    }

    /// The account of this number, if there is one and the system says so.
    pub(super) fn of_uid(uid: u32) -> Option<Self> {
        unistd::User::from_uid(uid.into()).ok().flatten().map(Self::from)
    }

    /// Makes this thread that user's for good: its groups, its group, its user, in this order. What the system says of
    /// the thread then has to agree. The program that the thread becomes is that user's too; other threads stay as
    /// they are until then. Calls for all threads would not do, because capabilities are a thread's own.
    ///
    /// # Errors
    ///
    /// What the system refused, in words; the process must not go on then.
    pub(super) fn assume(&self) -> Result<(), String> {
        let name = CString::new(self.name.as_str()).map_err(|error| error.to_string())?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let failed =
            |call: &str, error: Errno| format!("{call}: {}", super::errno::describe(&error.into()));
        let groups = groups_of(&name, self.gid)?;
        rustix::thread::set_thread_groups(&groups).map_err(|error| failed("setgroups", error))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .map_err(|error| failed("setresgid", error))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .map_err(|error| failed("setresuid", error))?;
        drop_capabilities()?;
        self.verify(groups)
    }

    fn verify(&self, mut want: Vec<Gid>) -> Result<(), String> {
        let uids = unistd::getresuid().map_err(|error| error.to_string())?;
        let gids = unistd::getresgid().map_err(|error| error.to_string())?;
        if [uids.real, uids.effective, uids.saved].map(unistd::Uid::as_raw) != [self.uid; 3]
            || [gids.real, gids.effective, gids.saved].map(unistd::Gid::as_raw) != [self.gid; 3]
        {
            return Err("its user or group is not the one that was set".to_owned());
        }
        let mut has = rustix::process::getgroups().map_err(|error| error.to_string())?;
        for groups in [&mut has, &mut want] {
            groups.sort_unstable_by_key(|group| group.as_raw());
            groups.dedup();
        }
        if has != want {
            return Err("its groups are not those that were set".to_owned());
        }
        let root = Uid::ROOT;
        if self.uid != 0 && rustix::thread::set_thread_res_uid(root, root, root).is_ok() {
            return Err("it can become root again".to_owned());
        }
        Ok(())
    }
}

/// Returns the groups of an account.
fn groups_of(name: &CString, gid: u32) -> Result<Vec<Gid>, String> {
    let groups = unistd::getgrouplist(name, unistd::Gid::from_raw(gid));
    let groups = groups.map_err(|error| format!("getgrouplist: {error}"))?;
    Ok(groups.into_iter().map(|group| Gid::from_raw(group.as_raw())).collect())
}

/// The rights that an engine needs for runs of other users: to become the user, to give it the script, to end the
/// processes of the run, and to remove the files that they leave.
const NEEDED: [(CapabilitySet, &str); 5] = [
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::KILL, "CAP_KILL"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
];

/// Checks whether this thread, and so its host, has all the rights that runs of other users need.
///
/// # Errors
///
/// The rights that are missing, in words.
pub(super) fn check_rights() -> Result<(), String> {
    let has = rustix::thread::capabilities(None).map_err(|error| format!("capget: {error}"))?;
    let missing = NEEDED.iter().filter(|(one, _)| !has.effective.contains(*one));
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("it lacks {}", missing.join(", "))) }
}

/// Gives up what this thread may do beyond its user's rights, and what the program that it runs would get
/// of it. Root has its rights by being root.
///
/// # Errors
///
/// What the system refused, in words.
pub(super) fn drop_capabilities() -> Result<(), String> {
    rustix::thread::clear_ambient_capability_set()
        .map_err(|error| format!("prctl(PR_CAP_AMBIENT): {error}"))?;
    let none = CapabilitySet::empty();
    let mut sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    if unistd::geteuid().is_root() {
        let own = rustix::thread::capabilities(None).map_err(|error| format!("capget: {error}"))?;
        sets = CapabilitySets { inheritable: none, ..own };
    }
    rustix::thread::set_capabilities(None, sets).map_err(|error| format!("capset: {error}"))
}

/// While this lives, programs that this thread starts get no capability of the thread. Needed where no helper stands
/// between the host and the program: a service may have ambient capabilities, and those pass to every program.
#[derive(Debug)]
pub(super) struct WithoutCapabilities(Option<Inherited>);

/// What the programs that a thread starts get of its capabilities.
#[derive(Debug)]
struct Inherited {
    sets: CapabilitySets,
    ambient: Vec<CapabilitySet>,
}

impl WithoutCapabilities {
    /// # Errors
    ///
    /// If the system does not tell or change the capabilities of this thread.
    pub(super) fn new() -> io::Result<Self> {
        let sets = rustix::thread::capabilities(None)?;
        // Whatever is ambient is inheritable too.
        if sets.inheritable.is_empty() {
            return Ok(Self(None));
        }
        let is_ambient = |one: &CapabilitySet| {
            rustix::thread::capability_is_in_ambient_set(*one).unwrap_or_default()
        };
        let inherited =
            Inherited { sets, ambient: each(sets.inheritable).filter(is_ambient).collect() };
        rustix::thread::clear_ambient_capability_set()?;
        // From here on a drop gives back what has been taken.
        let without = Self(Some(inherited));
        let sets = CapabilitySets { inheritable: CapabilitySet::empty(), ..sets };
        rustix::thread::set_capabilities(None, sets)?;
        Ok(without)
    }
}

impl Drop for WithoutCapabilities {
    fn drop(&mut self) {
        let Some(Inherited { sets, ambient }) = &self.0 else { return };
        let sets = restorable(*sets);
        let mut restored = rustix::thread::set_capabilities(None, sets);
        for one in ambient.iter().filter(|one| sets.inheritable.contains(**one)) {
            restored =
                restored.and(rustix::thread::configure_capability_in_ambient_set(*one, true));
        }
        if let Err(error) = restored {
            tell(|| tracing::warn!(%error, "a thread of the host has lost capabilities for good"));
        }
    }
}

/// Returns the sets that a thread may give itself again: a thread may inherit only what it is permitted.
fn restorable(sets: CapabilitySets) -> CapabilitySets {
    CapabilitySets { inheritable: sets.inheritable & sets.permitted, ..sets }
}

/// Returns the capabilities of a set, also those that are newer than this program.
fn each(set: CapabilitySet) -> impl Iterator<Item = CapabilitySet> {
    let one = |number| CapabilitySet::from_bits_retain(1_u64 << number);
    (0..u64::BITS).map(one).filter(move |one| set.contains(*one))
}

impl From<unistd::User> for Account {
    fn from(user: unistd::User) -> Self {
        let or = |path: PathBuf, fallback: &str| match path.as_os_str().is_empty() {
            true => fallback.into(),
            false => path,
        };
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: or(user.dir, "/"),
            shell: or(user.shell, "/bin/sh"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_back_what_it_is_permitted_to_inherit() {
        let (kill, chown) = (CapabilitySet::KILL, CapabilitySet::CHOWN);
        let sets = CapabilitySets { effective: kill, permitted: kill, inheritable: kill | chown };
        let again = restorable(sets);
        assert_eq!([again.effective, again.permitted, again.inheritable], [kill; 3]);
    }
}

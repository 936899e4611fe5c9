//! The user at the other end of a connection.

use std::io;

use nix::unistd::{Uid, User};
use tokio::net::UnixStream;

/// The process at the other end of a connection, as the system names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    uid: u32,
}

impl Peer {
    /// Asks the system. A process cannot change the answer after it has connected.
    pub(super) fn of(stream: &UnixStream) -> io::Result<Self> {
        Ok(Self { uid: stream.peer_cred()?.uid() })
    }

    pub(super) fn uid(self) -> u32 {
        self.uid
    }

    /// Returns whether the process may ask this engine: its user is the user of this process, or root.
    pub(super) fn is_admitted(self) -> bool {
        self.uid == rustix::process::geteuid().as_raw() || self.uid == 0
    }

    /// Returns the name of the user, for records. Blocks while the system looks for the name.
    pub(super) fn name(self) -> String {
        name_of(self.uid)
    }
}

fn name_of(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// Returns the name of a caller: the user, and whom the user says to act for.
pub(super) fn caller(user: &str, acts_for: Option<&str>) -> String {
    match acts_for {
        Some(other) if !other.is_empty() && other != user => format!("{user} (for {other})"),
        _ => user.to_owned(),
    }
}

/// Returns the name of the user of this process as records keep the names of callers: the account of the effective
/// user, such as `root`, with `acts_for` behind it, such as `root (for ann)`. Blocks while the system looks for the name.
pub fn this_user(acts_for: Option<&str>) -> String {
    caller(&name_of(rustix::process::geteuid().as_raw()), acts_for)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_the_user_and_whom_the_user_acts_for() {
        let check = |user: &str, acts_for: Option<&str>, want: &str| {
            assert_eq!(caller(user, acts_for), want);
        };
        check("ann", None, "ann");
        check("root", Some("ann"), "root (for ann)");
        check("root", Some(""), "root");
        check("root", Some("root"), "root");
        assert!(name_of(u32::MAX - 7).starts_with("uid "));
    }
}

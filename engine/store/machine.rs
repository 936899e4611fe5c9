//! The machine on which a file was run last. A copy of a file has the schedules of the original, and on another machine
//! they would fire a second time. So an engine that starts executions refuses a file of another machine that has work,
//! unless the host adopts the file.
//!
//! Nobody is locked out where machines cannot be told from one another: a container has the number of its image, or
//! none, and a machine that draws a new number at each boot counts as unknown.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Result, StorageErrorKind};

use super::{Tx, meta, migrate, storage};

/// The key of the machine: a number of this library's own, because the machine's number is not to be told, and the
/// name of the machine, for people.
const MACHINE: &str = "machine";

/// Where systems keep the number of the machine.
const NUMBERS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
/// If this exists, the number was drawn at boot, and the next boot draws another.
const OF_THIS_BOOT: &str = "/run/machine-id";

/// Checks that a file was run on this machine last, or has nothing to do.
///
/// # Errors
///
/// [`StorageErrorKind::OtherMachine`].
pub(super) fn check(tx: Tx<'_>) -> Result<()> {
    if migrate::is_empty(tx.connection())? {
        return Ok(());
    }
    let (Some(here), Some(known)) = (this(), meta::get(tx, MACHINE)?) else {
        return Ok(());
    };
    let (number, name) = known.split_once(' ').unwrap_or((&known, ""));
    let is_here = here.split_once(' ').is_some_and(|(here, _)| here == number);
    // A damaged note names no machine.
    if !is_number(number) || is_here || !has_work(tx)? {
        return Ok(());
    }
    let message = format!(
        "it was last run on another machine, `{name}`, so its schedules and waiting runs would start here too"
    );
    Err(storage(StorageErrorKind::OtherMachine, message))
}

/// Notes this machine in the file, if it is known and not noted yet.
pub(super) fn note(tx: Tx<'_>) -> Result<()> {
    let Some(here) = this() else { return Ok(()) };
    match meta::get(tx, MACHINE)? {
        Some(known) if known == here => Ok(()),
        _ => meta::set(tx, MACHINE, &here),
    }
}

/// Returns whether anything can start without another request.
fn has_work(tx: Tx<'_>) -> Result<bool> {
    let unfinished = "SELECT EXISTS (SELECT 1 FROM invocations WHERE finished_at_ms IS NULL)";
    tx.one(unfinished, (), |row| row.get(0))
}

/// Returns the number and the name of this machine; `None` if it is not known.
fn this() -> Option<String> {
    if Path::new(OF_THIS_BOOT).exists() {
        return None;
    }
    let number = NUMBERS.iter().find_map(|path| read_number(path))?;
    let digest = Sha256::digest(format!("adjutant {number}"));
    let number: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(format!("{number} {}", name.trim()))
}

/// Returns the number in a file; `None` for what is there before the system has drawn one.
fn read_number(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let number = text.trim();
    is_number(number).then(|| number.to_owned())
}

/// Returns whether a text is a number as machines, and this library, write it.
fn is_number(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

//! The program that the host is, started again for a part that must not be done in the host itself.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::DumpableBehavior;

use super::environment::{self, Mark, Variables};
use super::order::Start;
use super::{entry, heirs, keeper, kernel};
use crate::execution::Outcome;

/// What tells a helper from the host.
const ARGUMENT: &str = "--adjutant-helper=";
const ENTRY: &str = "entry";
const KEEPER: &str = "keeper";
const READER: &str = "reader";

/// Whether this program has said that it can be started as a helper.
static CAN_HELP: AtomicBool = AtomicBool::new(false);

/// Lets the engine start this program again as its helper: for runs as other users, with limits, or that
/// survive restarts. Call it first in `main`.
///
/// If the program was started as a helper, this does the helper's work and does not return.
///
/// Otherwise this undoes changes that the parent of the program may have made to its signals, because such changes
/// would keep the engine from its work. This call sets `SIGCHLD` to its default if that is ignored, unblocks all
/// signals, and ignores `SIGXFSZ`, so that a limit on the size of files is an error of a write and not the end of the
/// program. Signals that have a handler keep it, and `SIGHUP`, `SIGINT` and `SIGQUIT` stay ignored if they are. In
/// runs every signal has the system's default.
///
/// # One line in `main`
///
/// ```no_run
/// // In `main`, before the host's own work:
/// adjutant::helper_main();
/// ```
pub fn helper_main() {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next();
    let role = role.as_ref().and_then(|argument| argument.to_str()?.strip_prefix(ARGUMENT));
    // A keeper has runs that need helpers of its own.
    CAN_HELP.store(true, Ordering::Relaxed);
    kernel::set_up_signals();
    let Some(role) = role else { return };
    let (work, name): (fn() -> io::Result<()>, _) = match role {
        ENTRY if is_started_by_host() => (entry::enter, "adjutant-entry"),
        KEEPER if is_started_by_host() => (keeper::keep, "adjutant-keeper"),
        // The reader needs no check of its parent, because the parent may have ended by now.
        READER => (heirs::read, "adjutant-reader"),
        _ => std::process::exit(1),
    };
    // People see the process under this name. The path that it was started by says nothing, and once it refuses to be
    // looked at, its name is root's to change.
    let _ = std::fs::write("/proc/self/comm", name);
    // Runs are processes of the same user, and have no business in the orders for other runs.
    let _ = refuse_inspection();
    // On a thread of its own: this one may be a runtime's, which has room for no other.
    let done = std::thread::spawn(work).join();
    std::process::exit(if matches!(done, Ok(Ok(()))) { 0 } else { 1 });
}

/// Keeps other processes of the same user from the memory, the environment and the descriptors of this process
/// (`PR_SET_DUMPABLE`). Because runs of the host's own user are such processes, call this in a host that is not root
/// and has secrets. The helpers of an engine always do this.
///
/// Because root may inspect every process, this changes nothing in a host that is root. A process that refuses
/// inspection leaves no core dump, and no debugger of the same user can attach to it. The files of the user, also the
/// database, stay readable: run scripts as other users to keep them from the database.
///
/// # Errors
///
/// If the system refuses.
///
/// # In `main`
///
/// ```no_run
/// adjutant::helper_main();
/// adjutant::refuse_inspection()?;
/// # std::io::Result::Ok(())
/// ```
pub fn refuse_inspection() -> io::Result<()> {
    // The helpers of root know their parent by looking at it, for which root may lack the right.
    if is_root() {
        return Ok(());
    }
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Whether this program was started by itself, as this user and with no more rights than that: what a
/// stranger writes to one that may do more than he must not be done.
fn is_started_by_host() -> bool {
    let file = |path: &str| std::fs::metadata(path).map(|found| (found.dev(), found.ino()));
    let Some(parent) = rustix::process::getppid() else { return false };
    let user = std::fs::metadata(format!("/proc/{parent}")).map(|found| found.uid()).ok();
    if kernel::has_more_rights_than_caller() || user != Some(rustix::process::geteuid().as_raw()) {
        return false;
    }
    match (file(&format!("/proc/{parent}/exe")), file("/proc/self/exe")) {
        (Ok(host), Ok(own)) => host == own,
        // A parent that refuses to be looked at is a host or a keeper: other programs of the same user let themselves be
        // looked at, and programs that act for several users belong to root.
        (Err(error), Ok(_)) => error.kind() == io::ErrorKind::PermissionDenied && !is_root(),
        _ => false,
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// How a helper is started that is to become the program of a run.
///
/// # Errors
///
/// The outcome of a task that needs one where there is none.
pub(super) fn for_entry(mark: Mark) -> Result<Start, Outcome> {
    start(ENTRY, Variables::from([environment::marked(mark)]))
}

/// How a helper is started that is to keep a run. It is none of the run's own processes.
///
/// # Errors
///
/// The outcome of a task that needs one where there is none.
pub(super) fn for_keeper() -> Result<Start, Outcome> {
    start(KEEPER, Variables::new())
}

/// Returns how to start a helper that reads pipes on; `None` if this program cannot be started as a helper.
pub(super) fn for_reader() -> Option<Start> {
    start(READER, Variables::new()).ok()
}

fn start(role: &str, mut environment: Variables) -> Result<Start, Outcome> {
    if !CAN_HELP.load(Ordering::Relaxed) {
        return Err(Outcome::Broke {
            info: "users other than the host's, limits and surviving restarts need a helper; call \
                   `adjutant::helper_main()` first in the host's `main`"
                .to_owned(),
        });
    }
    // All of the host's environment that a program may need to start at all.
    let libraries = std::env::var_os("LD_LIBRARY_PATH");
    environment.extend(libraries.map(|path| ("LD_LIBRARY_PATH".into(), path)));
    let program = PathBuf::from("/proc/self/exe");
    Ok(Start {
        name: std::env::current_exe().unwrap_or_else(|_| program.clone()),
        name_in_records: program.clone(),
        program,
        arguments: vec![OsString::from(format!("{ARGUMENT}{role}"))],
        dir: PathBuf::from("/"),
        environment,
    })
}

//! The way of a run that is another user's, or has limits of its own: a helper is started in its place,
//! takes on what the run is to have, and becomes its program. Nothing of that happens in the host, whose
//! memory, threads and rights are not the run's.
//!
//! The helper is the leader of the run from the first moment on, so a stop finds it like any other.
//! What it is to do comes in a file without a name, its standard input; what kept it from becoming the
//! program goes back the same way.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{Access, MemfdFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::account::{self, Account};
use super::environment::User;
use super::order::{Order, Start};
use super::told::Told;
use super::{broke, files, kernel, standing};
use crate::execution::Outcome;
use crate::invocation::resource_limits::ResourceLimits;

/// What a helper is to become.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub order: Order,
    pub identity: Identity,
    pub limits: ResourceLimits,
    /// The files by which it enters its cgroup.
    pub entrances: Vec<OsString>,
}

/// Whose a run is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Identity {
    /// The host's own.
    Host(User),
    /// That of the account with this name, in whose folder the script is.
    Account(String),
}

/// What goes between the host and a helper.
pub(super) struct Letter(File);

impl Letter {
    /// Writes what a helper is to read.
    ///
    /// # Errors
    ///
    /// If there is no file for it.
    pub(super) fn new(content: &impl Serialize) -> io::Result<Self> {
        let mut file = File::from(rustix::fs::memfd_create("adjutant", MemfdFlags::CLOEXEC)?);
        // At once: a writer that is given parts has the kernel take each.
        file.write_all(&serde_json::to_vec(content)?)?;
        Ok(Self(file))
    }

    /// For the helper, as its standard input.
    pub(super) fn to_helper(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }

    /// Why the helper, which has ended, has not become the program; none if it has.
    pub(super) fn refusal(mut self) -> Option<Outcome> {
        let mut text = Vec::new();
        self.0.rewind().and_then(|()| self.0.read_to_end(&mut text)).ok()?;
        // One that was ended before it has read anything leaves what was written to it.
        Some(serde_json::from_slice::<Told>(&text).ok()?.into())
    }
}

/// Takes the letter that a helper has as its standard input.
///
/// # Errors
///
/// If there is none.
pub(super) fn receive<T: DeserializeOwned>() -> io::Result<(T, File)> {
    let mut letter = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let mut text = Vec::new();
    letter.rewind()?;
    letter.read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, letter))
}

/// Becomes the program that the letter tells of; returns if that is not possible, with the reason
/// written there.
///
/// # Errors
///
/// If there is no letter, or nothing can be written to it.
pub(super) fn enter() -> io::Result<()> {
    let (entry, mut letter): (Entry, _) = receive()?;
    letter.set_len(0)?;
    let refusal = Told::from(become_program(entry));
    letter.rewind()?;
    letter.write_all(&serde_json::to_vec(&refusal)?)
}

/// Does not return if it can.
fn become_program(entry: Entry) -> Outcome {
    let Entry { order, identity, limits, entrances } = entry;
    let start = enter_group(&entrances)
        .and_then(|()| leave_keyring(&identity))
        .and_then(|()| take_identity(identity, &order.script))
        .and_then(|user| order.resolve(&user));
    // Last, for they hold for this process from then on.
    match start.and_then(|start| take_limits(&limits).map(|()| start)) {
        Ok(start) => execute(&start),
        Err(outcome) => outcome,
    }
}

/// While it still may.
fn enter_group(entrances: &[OsString]) -> Result<(), Outcome> {
    for entrance in entrances {
        let entered = File::options().write(true).open(entrance);
        entered.and_then(|mut procs| procs.write_all(b"0")).map_err(|error| {
            broke(&format!("its cgroup cannot be entered by {}", entrance.display()), &error)
        })?;
    }
    Ok(())
}

/// Leaves the keys of the host behind.
fn leave_keyring(identity: &Identity) -> Result<(), Outcome> {
    match kernel::leave_session_keyring() {
        Err(error) if matches!(identity, Identity::Account(_)) => {
            Err(broke("the run cannot have a session keyring of its own", &error))
        }
        // The same user may have no room for more keyrings, and may use those keys anyway.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Becomes the user.
fn take_identity(identity: Identity, script: &OsString) -> Result<User, Outcome> {
    let name = match identity {
        Identity::Host(user) => {
            standing::tighten_mask();
            // Those of the host's user are all that its runs have, whatever the host was given beside.
            account::drop_capabilities().map_err(|info| Outcome::Broke { info })?;
            return Ok(user);
        }
        Identity::Account(name) => name,
    };
    let account = Account::of_name(&name)
        .map_err(|error| broke(&format!("the account `{name}` cannot be looked up"), &error))?
        .ok_or_else(|| Outcome::Unsuitable {
            code: "AccountNotExists",
            info: format!("`{name}` is no user of this machine"),
        })?;
    let cannot = |why: String| Outcome::Broke {
        info: format!(
            "the engine's user cannot run as `{name}`: {why}; want root, or its rights as ambient \
             capabilities"
        ),
    };
    account::check_rights().map_err(cannot)?;
    // As long as this process may change itself.
    standing::become_ordinary().map_err(cannot)?;
    files::give_to(script.as_ref(), account.uid, account.gid)
        .map_err(|error| cannot(format!("chown: {error}")))?;
    account.assume().map_err(cannot)?;
    // The folders above need not let every user through.
    rustix::fs::access(script.as_os_str(), Access::READ_OK).map_err(|error| {
        let scripts = Path::new(script).parent().and_then(Path::parent).unwrap_or(Path::new("/"));
        broke(
            &format!("`{name}` cannot get to its script in `{}`", scripts.display()),
            &error.into(),
        )
    })?;
    Ok(User::of_account(&account))
}

/// Takes on the limits that a process can have, softly and for good: what it starts has them too.
fn take_limits(limits: &ResourceLimits) -> Result<(), Outcome> {
    let wanted = [
        ("CpuSeconds", Resource::RLIMIT_CPU, limits.cpu_seconds),
        ("AddressSpaceBytes", Resource::RLIMIT_AS, limits.address_space_bytes),
        ("OpenFiles", Resource::RLIMIT_NOFILE, limits.open_files),
        ("Processes", Resource::RLIMIT_NPROC, limits.processes),
        ("FileSizeBytes", Resource::RLIMIT_FSIZE, limits.file_size_bytes),
    ];
    if limits.processes.is_some() && rustix::process::geteuid().is_root() {
        let info = "Processes cannot be limited for root where no cgroup can be made that does it";
        return Err(Outcome::Broke { info: info.to_owned() });
    }
    for (name, resource, limit) in wanted {
        let Some(limit) = limit else { continue };
        // A second for whoever wants to tidy up at SIGXCPU.
        let hard = if resource == Resource::RLIMIT_CPU {
            let highest = getrlimit(resource).map_or(limit, |(_, hard)| hard);
            limit.saturating_add(1).min(highest.max(limit))
        } else {
            limit
        };
        setrlimit(resource, limit, hard).map_err(|error| {
            let highest = getrlimit(resource).map_or(0, |(_, hard)| hard);
            let what = format!("{name} cannot be {limit} where the engine itself has {highest}");
            broke(&what, &error.into())
        })?;
    }
    if limits.no_new_privileges {
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| broke("NoNewPrivileges cannot be set", &error.into()))?;
    }
    Ok(())
}

/// Does not return if it can.
fn execute(start: &Start) -> Outcome {
    let enter = || {
        rustix::process::chdir(&start.dir)?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        io::Result::Ok(())
    };
    let error = enter().err().unwrap_or_else(|| kernel::execute(start));
    start.failed(&error)
}

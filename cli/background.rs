//! `--detach`: the program itself, started once more without a terminal, runs the file until
//! nothing is left to do.
//!
//! The two talk over a pair of connected sockets. The new process finds its end as standard input,
//! so there is no moment at which it runs and cannot be reached.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::control::{self, Client, Request};
use crate::database::Opening;
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::owner::Owner;
use crate::session::{Patience, running};

/// The hidden command; [`own`] is what it does.
const COMMAND: &str = "own-in-background";

/// A background owner has nobody waiting for it, so it lets those who are connected take their time.
const IDLE_MAX: Duration = Duration::MAX;

/// How long it stays once nobody is connected: who is on the way to it would only have to start
/// another one.
const LINGER: Duration = Duration::from_millis(200);

/// Has another process carry out a request: the owner if there is one, else one started for it.
pub(crate) async fn hand_over<O: Request>(
    database: &Path,
    request: &O,
) -> Result<O::Response, Failure> {
    loop {
        match owner(database).await?.call(request).await {
            // It has left; nothing was done.
            Err(failure) if failure.is_unsent() => {}
            done => return done,
        }
    }
}

/// The process that runs the file, or one started for it.
pub(crate) async fn owner(database: &Path) -> Result<Client, Failure> {
    owner_within(database, Patience::new()).await
}

/// The same, for one who has waited before and does not wait again.
pub(crate) async fn owner_at_once(database: &Path) -> Result<Client, Failure> {
    owner_within(database, Patience::none()).await
}

async fn owner_within(database: &Path, mut patience: Patience) -> Result<Client, Failure> {
    let began = Instant::now();
    let mut turn = None;
    loop {
        if let Some(client) = Client::connect(database).await? {
            return Ok(client);
        }
        if turn.is_none() {
            turn = Turn::take(database);
        }
        // One at a time starts a process; the others connect to it. Should whose turn it is never
        // come to an end, nobody has to wait for that.
        let may_start = turn.is_some() || began.elapsed() > TURN_MAX || patience.is_none();
        if may_start {
            // Somebody may have been started since.
            if let Some(client) = Client::connect(database).await? {
                return Ok(client);
            }
            match start(database).await {
                Ok(client) => return Ok(client),
                Err(failure) if failure.is_in_use() && patience.has_more(&failure) => {}
                Err(failure) => return Err(failure),
            }
        }
        patience.pause().await;
    }
}

/// How long others may take to start a process.
const TURN_MAX: Duration = Duration::from_secs(10);

/// Held by the process that starts another for a database: a lock on the file `FILE.turn`, which is there for no longer
/// than the lock. Because only this user can open that file, no other user can keep the lock.
struct Turn {
    lock: Option<(OwnedFd, PathBuf)>,
}

impl Turn {
    /// Returns `None` if it is the turn of another process. Where the lock cannot be had, it is everybody's turn.
    fn take(database: &Path) -> Option<Self> {
        let database = std::fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
        let mut path = database.into_os_string();
        path.push(".turn");
        let path = PathBuf::from(path);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let everybody = Some(Self { lock: None });
        let Ok(file) = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) else {
            return everybody;
        };
        let Ok(opened) = rustix::fs::fstat(&file) else { return everybody };
        if opened.st_uid != rustix::process::geteuid().as_raw() {
            return everybody;
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return None,
            Err(_) => return everybody,
        }
        // The process that held the lock before may have removed the file since it was opened here.
        let is_there = rustix::fs::lstat(&path)
            .is_ok_and(|found| (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino));
        is_there.then_some(Self { lock: Some((file, path)) })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((_lock, path)) = &self.lock {
            let _ = std::fs::remove_file(path);
        }
    }
}

async fn start(database: &Path) -> Result<Client, Failure> {
    let cannot_start =
        |error: io::Error| Failure::system("start a process in the background", &error);
    let (ours, theirs) = StdStream::pair().map_err(cannot_start)?;
    ours.set_nonblocking(true).map_err(cannot_start)?;
    let program = std::env::current_exe().map_err(cannot_start)?;
    // The process in the background is protected as this one is.
    let refuses = matches!(
        rustix::process::dumpable_behavior(),
        Ok(rustix::process::DumpableBehavior::NotDumpable)
    );
    Command::new(program)
        .args(refuses.then_some("--refuse-inspection"))
        .arg("--db")
        .arg(database)
        .args(Opening::options())
        .arg(COMMAND)
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(cannot_start)?;
    Client::over(UnixStream::from_std(ours).map_err(cannot_start)?, database).await
}

/// Runs the file in the background.
pub(crate) async fn own(database: &Path, interrupts: &Interrupts) -> Result<(), Failure> {
    let stream = leave_terminal()
        .map_err(|error| Failure::system("run in the background by hand; use --detach", &error))?;
    match running(database).open().await {
        Ok(engine) => {
            interrupts.guard(Some(engine.clone()));
            let mut owner = Owner::new(engine);
            owner.lingers_for(LINGER);
            owner.listen();
            control::serve_stream(owner.engine(), stream).await;
            let closed = owner.close(IDLE_MAX, interrupts).await;
            interrupts.guard(None);
            closed
        }
        Err(error) => {
            // Nobody else can be told: standard error leads nowhere.
            let _ = control::refuse(stream, error.into()).await;
            Ok(())
        }
    }
}

/// Gives up the terminal and everything else that came from it but the socket to the parent.
fn leave_terminal() -> io::Result<UnixStream> {
    rustix::process::setsid()?;
    let stream = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    // Fails for anything but a socket.
    stream.peer_cred()?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&nothing)?;
    // A folder that a process stands in cannot be unmounted.
    std::env::set_current_dir("/")?;
    Ok(stream)
}

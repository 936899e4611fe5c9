//! `--detach`: the program itself, started once more without a terminal, runs the file until
//! nothing is left to do.
//!
//! The two talk over a pair of connected sockets. The new process finds its end as standard input,
//! so there is no moment at which it runs and cannot be reached.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use adjutant::Engine;
use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::control::{self, Client, Operation};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::owner::Owner;
use crate::session::OWNER_PATIENCE;

/// The hidden command; [`own`] is what it does.
const COMMAND: &str = "own-in-background";

/// A background owner has nobody waiting for it, so it lets those who are connected take their time.
const IDLE_MAX: Duration = Duration::MAX;

/// Between two looks for an owner that is about to start or to end.
const OWNER_POLL: Duration = Duration::from_millis(200);

/// Has another process carry out a request: the owner if there is one, else one started for it.
pub(crate) async fn hand_over<O: Operation>(
    database: &Path,
    request: &O,
) -> Result<O::Response, Failure> {
    owner(database).await?.call(request).await
}

/// The process that runs the file, or one started for it.
pub(crate) async fn owner(database: &Path) -> Result<Client, Failure> {
    let deadline = Instant::now() + OWNER_PATIENCE;
    loop {
        if let Some(client) = Client::connect(database).await? {
            return Ok(client);
        }
        match start(database).await {
            Ok(client) => return Ok(client),
            Err(failure) if failure.is_in_use() && Instant::now() < deadline => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(OWNER_POLL).await;
    }
}

async fn start(database: &Path) -> Result<Client, Failure> {
    let cannot_start =
        |error: io::Error| Failure::system("start a process in the background", &error);
    let (ours, theirs) = StdStream::pair().map_err(cannot_start)?;
    ours.set_nonblocking(true).map_err(cannot_start)?;
    let program = std::env::current_exe().map_err(cannot_start)?;
    Command::new(program)
        .arg("--db")
        .arg(database)
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
    match Engine::open(database).await {
        Ok(engine) => {
            interrupts.guard(Some(engine.clone()));
            let mut owner = Owner::new(engine);
            owner.listen();
            control::serve(owner.engine(), stream).await;
            let closed = owner.close(IDLE_MAX, interrupts).await;
            interrupts.guard(None);
            closed
        }
        Err(error) => {
            let (_, mut writer) = stream.into_split();
            // Nobody else can be told: standard error leads nowhere.
            let _ = control::refuse(&mut writer, error.into()).await;
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

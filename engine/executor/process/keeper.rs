//! The helper that stays with a run whose host may end before it: what the host does for other runs, this
//! does for one, and the host only listens. A host that comes later finds it by its folder.
//!
//! The folder has the socket that hosts connect to, the identity of the keeper and the record of the run:
//! at first of what was printed so far, then of the end too. Once that is on disk, the keeper ends.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::ExecutionContext;
use super::census;
use super::entry;
use super::environment::{Mark, User};
use super::run::{self, Brief, Place};
use super::standing;
use super::told::{End, Record, Told};
use crate::clock::{SystemClock, boot_id, now_ms};
use crate::config::OutputQuota;
use crate::execution::StopReason;
use crate::executor::{Contact, Scratch, Surroundings};
use crate::output::{LiveOutput, Piece, Reader, SpoolSpace, Stream};

/// What a keeper is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Charge {
    pub brief: Brief,
    pub user: User,
    pub mark: Mark,
    /// Its own, and that for the files of the run.
    pub folder: OsString,
    pub scratch: OsString,
    /// None: the run may take any time.
    pub timeout: Option<Duration>,
    pub stop_grace: Duration,
    pub output: OutputQuota,
    /// Whether each host gets the whole output of the run, beyond the part that the record keeps.
    #[serde(default)]
    pub is_kept_whole: bool,
}

/// Which process a keeper is, of all that ever were on this machine.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub boot_id: Option<String>,
    pub pid: i32,
    /// In ticks since boot.
    pub started: u64,
    /// That of the run's processes.
    pub mark: Mark,
    /// Device and inode of its folder: a copy of that is not another keeper's.
    folder: (u64, u64),
}

pub(super) const SOCKET: &str = "socket";
const IDENTITY: &str = "identity";
const RECORD: &str = "record";

/// How old the record of an output may get.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a host may take to read the rest of an output before its keeper ends.
const READ_OUT_MAX: Duration = Duration::from_secs(10);
/// The time that a keeper waits for a host that connects just as the run ends.
const LAST_MAX: Duration = Duration::from_millis(10);
/// Bytes sent at a time.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// What follows the kind of a frame: the length of what was printed, or of what is missing.
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
pub(super) const GAP: u8 = 3;

/// Orders to stop, by the byte that says so; new ones come last, for a keeper may be older than its host.
const REASONS: [StopReason; 7] = [
    StopReason::Timeout,
    StopReason::Stopped,
    StopReason::Replaced,
    StopReason::Shutdown,
    StopReason::Deadline,
    StopReason::Errors,
    StopReason::Gate,
];

/// The byte that orders a stop.
pub(super) fn order_of(reason: StopReason) -> u8 {
    REASONS.iter().position(|known| *known == reason).map_or(u8::MAX, |at| at as u8)
}

impl Identity {
    fn of(pid: Pid, mark: Mark, folder: (u64, u64)) -> io::Result<Option<Self>> {
        let process = census::look_at(pid)?;
        Ok(process.map(|process| Self {
            boot_id: boot_id(),
            pid: pid.as_raw_nonzero().get(),
            started: process.started,
            mark,
            folder,
        }))
    }

    /// That of the keeper with this folder; none if it has not got so far, or the folder is a copy.
    ///
    /// # Errors
    ///
    /// If it cannot be read, such as for want of descriptors.
    pub(super) fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(IDENTITY)) {
            Ok(text) => {
                let identity: Self = serde_json::from_slice(&text)?;
                let own = identity.folder == number_of(&fs::metadata(folder)?);
                Ok(Some(identity).filter(|_| own))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A descriptor of it, if it still is a process.
    ///
    /// # Errors
    ///
    /// If that cannot be told, such as for want of descriptors.
    pub(super) fn alive(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Looked at once the descriptor is open: it means this process, and no later one of its number.
        let now = Self::of(pid, self.mark, self.folder)?;
        Ok(now.filter(|now| now == self).map(|_| pidfd))
    }
}

/// A descriptor of the keeper with this folder, if it is there.
///
/// # Errors
///
/// If that cannot be told: then nobody may take it for one that has ended.
pub(super) fn find(folder: &Path) -> io::Result<Option<OwnedFd>> {
    Identity::read(folder)?.map_or(Ok(None), |identity| identity.alive())
}

/// Which folder this is, of all on this machine, whatever it is called.
fn number_of(folder: &Metadata) -> (u64, u64) {
    (folder.dev(), folder.ino())
}

/// What the folder of a keeper says of its run; nothing, if it says nothing yet.
pub(super) fn read_record(folder: &Path) -> Record {
    let text = fs::read(folder.join(RECORD)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Puts a file in the place of the one before: whoever reads finds one or the other.
fn write(folder: &Path, name: &str, content: &impl Serialize, durably: bool) -> io::Result<()> {
    let next = folder.join(format!("{name}.next"));
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(content)?)?;
    if durably {
        file.sync_all()?;
    }
    fs::rename(next, folder.join(name))?;
    if durably {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Does a keeper's work: standard input says what, standard output is the socket to listen at.
///
/// # Errors
///
/// If the run could not be begun, or its record not be written.
pub(super) fn keep() -> io::Result<()> {
    standing::tighten_mask();
    let (charge, _): (Charge, _) = entry::receive()?;
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    // Whoever loses his parent comes here, where a stop finds him.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let folder = PathBuf::from(&charge.folder);
    // Before there is a run: a host that has taken the folder away wants none any more.
    let opened = File::open(&folder)?;
    let identity =
        Identity::of(rustix::process::getpid(), charge.mark, number_of(&opened.metadata()?))?;
    write(&folder, IDENTITY, &identity, false)?;
    // From here on by the descriptor: the database may be moved, and its folders with it.
    let folder = Path::new("/proc/self/fd").join(opened.as_raw_fd().to_string());
    let keeper = Keeper::new(charge, folder).map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(keeper.watch_over(StdListener::from(listener)))
}

struct Keeper {
    charge: Charge,
    folder: PathBuf,
    cx: ExecutionContext,
    /// How much of the output the record has.
    saved: u64,
    /// Listens as long as the run goes on, so that its output is kept whole; `None` if the whole output is not
    /// wanted.
    _listener: Option<Arc<Notify>>,
}

/// A host that listens, until it does not any more.
type Listening = Pin<Box<dyn Future<Output = ()>>>;

impl Keeper {
    fn new(charge: Charge, folder: PathBuf) -> crate::error::Result<Self> {
        let space = SpoolSpace::new(charge.output.spool_bytes_max);
        let listener = charge.is_kept_whole.then(|| Arc::new(Notify::new()));
        let listening = listener.iter().map(Arc::downgrade).collect();
        let cx = ExecutionContext {
            output: LiveOutput::new(charge.output, space, listening),
            contact: Arc::default(),
            surroundings: Arc::new(Surroundings {
                stop_grace: charge.stop_grace,
                clock: Arc::new(SystemClock::default()),
                scratch: Arc::new(Scratch::apart(PathBuf::from(&charge.scratch))?),
            }),
        };
        Ok(Self { charge, folder, cx, saved: 0, _listener: listener })
    }

    async fn watch_over(mut self, listener: StdListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let cx = self.cx.clone();
        let Charge { brief, user, mark, timeout, .. } = &self.charge;
        let place = Place {
            scratch: cx.scratch_dir(),
            mark: *mark,
            engine: None,
            reaper: Some(rustix::process::getpid()),
        };
        let mut work = pin!(run::carry_out(brief, user, place, &cx));
        let mut timeout = pin!(async {
            match *timeout {
                Some(timeout) => cx.sleep(timeout).await,
                None => std::future::pending().await,
            }
        });
        let mut save = tokio::time::interval(SAVE_EVERY);
        let mut host: Option<Listening> = None;
        let mut deaf = false;
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut work => break outcome,
                () = &mut timeout, if cx.contact.order().is_none() => {
                    self.ask_to_stop(StopReason::Timeout);
                }
                // The last to come is the one that runs the file now.
                accepted = listener.accept(), if !deaf => match accepted {
                    Ok((stream, _)) => {
                        let attending = attend(stream, cx.output.clone(), Arc::clone(&cx.contact));
                        host = Some(Box::pin(attending));
                    }
                    // Most likely for want of descriptors, which others may give back.
                    Err(_) => deaf = true,
                },
                () = gone(&mut host) => host = None,
                _ = save.tick() => {
                    deaf = false;
                    // Without it nobody would ever hear of this run.
                    if !is_there(&self.folder) {
                        self.ask_to_stop(StopReason::Shutdown);
                    }
                    save_output(&self.folder, &cx, &mut self.saved);
                }
            }
        };
        let told = Told::from(outcome.unwrap_or_else(|outcome| outcome));
        let record = self.last_record(told);
        while write(&self.folder, RECORD, &record, true).is_err() {
            // The end must not be lost because a disk is full; without the folder nobody asks for it.
            if !is_there(&self.folder) {
                break;
            }
            save.tick().await;
        }
        // A host that has connected in the meantime is not turned away: only this keeper has the output that the
        // record leaves out.
        if let Ok(Ok((stream, _))) = tokio::time::timeout(LAST_MAX, listener.accept()).await {
            host = Some(Box::pin(attend(stream, cx.output.clone(), Arc::clone(&cx.contact))));
        }
        cx.output.close();
        drop(listener);
        // The host goes on reading until it has all, unless it has stopped to read.
        tokio::select! {
            () = gone(&mut host), if host.is_some() => {}
            () = cx.sleep(READ_OUT_MAX), if host.is_some() => {}
            else => {}
        }
        Ok(())
    }

    fn ask_to_stop(&self, reason: StopReason) {
        self.cx.contact.ask_to_stop(&reason.into());
    }

    fn last_record(&self, told: Told) -> Record {
        let mut report = self.cx.contact.take_report().map(|report| *report).unwrap_or_default();
        report.stopped_for = self.cx.contact.order().map(|order| order.cause);
        report.ended_at_ms = Some(now_ms(&*self.cx.surroundings.clock));
        Record::new(&self.cx.output.snapshot().0, Some(End { told, report }))
    }
}

/// Whether a keeper's folder has not been removed.
fn is_there(folder: &Path) -> bool {
    folder.join(IDENTITY).exists()
}

/// Writes down what was printed so far, if that is more than before.
fn save_output(folder: &Path, cx: &ExecutionContext, saved: &mut u64) {
    let (output, printed) = cx.output.snapshot();
    // A disk that takes nothing now does not end the run.
    if printed > *saved && write(folder, RECORD, &Record::new(&output, None), false).is_ok() {
        *saved = printed;
    }
}

/// Ends when there is a host no more; not if there is none.
async fn gone(host: &mut Option<Listening>) {
    match host {
        Some(host) => host.await,
        None => std::future::pending().await,
    }
}

/// Tells a host what is printed, from the offset that it begins with, and takes its orders.
async fn attend(mut stream: UnixStream, output: Arc<LiveOutput>, contact: Arc<Contact>) {
    let (mut orders, mut told) = stream.split();
    let Ok(offset) = orders.read_u64_le().await else { return };
    let news = Arc::new(Notify::new());
    output.watch(&news);
    let mut reader = Reader::new(output, offset);
    let tell = async {
        loop {
            match reader.next(PIECE_BYTES_MAX) {
                Piece::Bytes { stream, bytes } => {
                    let kind = if stream == Stream::Stdout { STDOUT } else { STDERR };
                    told.write_u8(kind).await?;
                    told.write_u64_le(bytes.len() as u64).await?;
                    told.write_all(&bytes).await?;
                }
                Piece::Gap(bytes) => {
                    told.write_u8(GAP).await?;
                    told.write_u64_le(bytes).await?;
                }
                Piece::Wait => news.notified().await,
                Piece::End => return io::Result::Ok(()),
            }
        }
    };
    let obey = async {
        loop {
            let order = orders.read_u8().await?;
            if let Some(reason) = REASONS.get(usize::from(order)) {
                contact.ask_to_stop(&(*reason).into());
            }
        }
    };
    let _: io::Result<()> = tokio::select! {
        told = tell => told,
        obeyed = obey => obeyed,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_understands_every_order() {
        for reason in StopReason::ALL {
            assert_eq!(REASONS.get(usize::from(order_of(*reason))), Some(reason));
        }
    }
}

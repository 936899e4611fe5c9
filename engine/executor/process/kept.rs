//! The host's side of a run that has a keeper: begins it, listens to it, takes it back.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::child;
use super::entry::Letter;
use super::keeper::{self, Charge, GAP, Identity, SOCKET, STDERR, STDOUT};
use super::{ExecutionContext, Executor, Scratch, Task};
use super::{broke, group, helper, inheritance, kernel};
use crate::execution::{Outcome, Report, StopReason, Unended};
use crate::output::{Output, Piece, Place, Stream};
use crate::panics::tell;

/// A keeper that this host has started. Dropped, it goes on.
struct Child {
    pid: Pid,
}

/// How long to wait before one is listened to again that cannot be, or has let go.
const LISTEN_AGAIN: Duration = Duration::from_millis(20);

impl Child {
    fn has_ended(&self) -> bool {
        !matches!(kernel::has_ended(self.pid), Ok(false))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(kernel::try_wait(self.pid), Ok(None)) {
            child::reap_aside(self.pid);
        }
    }
}

/// Begins a run with a keeper, and sees it through.
///
/// # Errors
///
/// The outcome of a run that could not be begun, or was lost sight of.
pub(super) async fn begin(charge: &Charge, cx: &ExecutionContext) -> Result<Outcome, Outcome> {
    let folder = PathBuf::from(&charge.folder);
    let start = helper::for_keeper()?;
    let cannot = |error: io::Error| {
        // Those that were made, and without a descriptor: it may be for want of one.
        let runs = cx.scratch().runs();
        for empty in [runs.map(|_| &*folder), Some(charge.scratch.as_ref()), runs] {
            let _ = empty.map(fs::remove_dir);
        }
        let runs = folder.parent().unwrap_or(&folder).display();
        broke(&format!("no keeper can be started with a folder in `{runs}`"), &error)
    };
    // There from now on: an engine that ends leaves what has such a folder.
    let made = cx.scratch().make_run(&charge.brief.name);
    let made = made.and_then(|()| DirBuilder::new().mode(0o700).create(&charge.scratch));
    made.map_err(cannot)?;
    let spawn = || {
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let stdio = [Letter::new(charge)?.to_helper()?, bind(&folder)?.into(), null()?];
        kernel::spawn(&start, stdio)
    };
    let keeper = spawn().map(|pid| Child { pid }).map_err(|error| {
        let _ = fs::remove_file(folder.join(SOCKET));
        cannot(error)
    })?;
    see_through(&folder, Some(keeper), cx).await
}

/// Takes back a run that an earlier host has begun, whatever serves its instance now: listens to its keeper,
/// or reads what that left.
pub(crate) struct Resumption;

impl Executor for Resumption {
    async fn execute(&self, task: Task, cx: ExecutionContext) -> Outcome {
        let Some(runs) = cx.scratch().runs() else {
            return Outcome::Broke { info: "the folder of surviving runs is gone".to_owned() };
        };
        let folder = runs.join(Scratch::name(task.execution_id, task.attempt));
        see_through(&folder, None, &cx).await.unwrap_or_else(|outcome| outcome)
    }
}

/// Has a surviving run end that nobody here listens to; blocks for a moment.
pub(crate) fn order_stop(scratch: &Scratch, run: Unended, reason: StopReason) {
    let Some(runs) = scratch.runs() else { return };
    let folder = runs.join(Scratch::name(run.id, run.attempt));
    let order = || {
        let mut stream = with_short_path(&folder, |path| StdStream::connect(path))?;
        // From the end on: what it has printed is not for whoever only gives an order.
        stream.write_all(&u64::MAX.to_le_bytes())?;
        stream.write_all(&[keeper::order_of(reason)])
    };
    if let Err(error) = order() {
        // The next engine that runs the file gives it again.
        tell(
            || tracing::warn!(%error, execution = %run.id, "a surviving run does not take the order to stop"),
        );
    }
}

async fn see_through(
    folder: &Path,
    child: Option<Child>,
    cx: &ExecutionContext,
) -> Result<Outcome, Outcome> {
    cx.report(|report| report.is_kept = true);
    loop {
        if let Ok(stream) = connect(folder) {
            listen(stream, cx).await;
        }
        // One that cannot be found out about is not taken for one that has ended.
        let has_ended = keeper::read_record(folder).end.is_some()
            || child.as_ref().is_some_and(Child::has_ended)
            || (child.is_none() && matches!(keeper::find(folder), Ok(None)));
        if has_ended {
            break;
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
    drop(child);
    let record = keeper::read_record(folder);
    catch_up(&record.output(), cx);
    let Some(end) = record.end else {
        cx.report(|report| report.is_lost = true);
        return Err(lost(folder, cx.scratch()).await);
    };
    cx.report(|report| *report = Report { is_kept: true, ..end.report });
    Ok(end.told.into())
}

/// Takes in what the keeper tells, and gives it the order to stop, until it has nothing more to tell.
async fn listen(stream: UnixStream, cx: &ExecutionContext) {
    let (mut told, mut orders) = stream.into_split();
    let (_, printed) = cx.output.snapshot();
    if orders.write_u64_le(printed).await.is_err() {
        return;
    }
    let hear = async {
        let mut bytes = Vec::new();
        loop {
            let kind = told.read_u8().await?;
            let length = told.read_u64_le().await?;
            let stream = match kind {
                STDOUT => Stream::Stdout,
                STDERR => Stream::Stderr,
                GAP => {
                    cx.output.skip(length);
                    continue;
                }
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            bytes.clear();
            // What does not come is not kept room for.
            if (&mut told).take(length).read_to_end(&mut bytes).await? as u64 != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            cx.print(stream, &bytes);
        }
    };
    let order = async {
        let reason = cx.stop_asked().await;
        let _ = orders.write_u8(keeper::order_of(reason)).await;
        std::future::pending::<()>().await;
    };
    let _: io::Result<()> = tokio::select! {
        heard = hear => heard,
        () = order => Ok(()),
    };
}

/// Takes in what was not heard of an output that has ended.
fn catch_up(output: &Output, cx: &ExecutionContext) {
    const PIECE_BYTES_MAX: usize = 64 * 1024;
    let (_, mut offset) = cx.output.snapshot();
    let mut place = Place::default();
    loop {
        match output.piece_at(offset, PIECE_BYTES_MAX, &mut place) {
            Piece::Bytes { stream, bytes } => {
                offset += bytes.len() as u64;
                cx.print(stream, &bytes);
            }
            Piece::Gap(bytes) => {
                offset += bytes;
                cx.output.skip(bytes);
            }
            Piece::Wait | Piece::End => return,
        }
    }
}

/// The outcome of a run whose keeper has ended before it; ends the run too.
async fn lost(folder: &Path, scratch: &Scratch) -> Outcome {
    let mut info = "its keeper ended before it did".to_owned();
    if let Ok(Some(identity)) = Identity::read(folder) {
        let ended = inheritance::end_run(identity.mark, scratch.users()).await;
        if !ended.is_empty() {
            info = format!("{info}; {ended}");
        }
        group::sweep(group::kept(identity.mark)).await;
    }
    Outcome::Broke { info }
}

/// The paths of sockets are short; that of the folder need not be.
fn with_short_path<T>(folder: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let folder = File::open(folder)?;
    act(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(SOCKET))
}

fn bind(folder: &Path) -> io::Result<UnixListener> {
    with_short_path(folder, |path| UnixListener::bind(path))
}

fn connect(folder: &Path) -> io::Result<UnixStream> {
    let stream = with_short_path(folder, |path| StdStream::connect(path))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

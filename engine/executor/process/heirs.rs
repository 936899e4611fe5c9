//! Reads and discards pipes whose output no record needs any more, as long as a process holds them, because a write
//! to a pipe without a reader ends its writer.
//!
//! A helper reads the pipes, and goes on when the host ends. If there is no helper, threads of this process read
//! them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Pid, WaitOptions};

use super::{helper, kernel};

/// Runs whose pipes are read on at a time: each takes a process, or two threads.
const READ_ON_MAX: usize = 256;
/// The stack of a thread that reads pipes, or waits for a helper.
const STACK_BYTES: usize = 128 * 1024;

static READ_ON: AtomicUsize = AtomicUsize::new(0);

/// Has these pipes, two at most, read until no process holds them. Returns whether they have a reader.
pub(super) fn read_on(pipes: Vec<OwnedFd>) -> bool {
    let place = |held: usize| (held < READ_ON_MAX).then_some(held + 1);
    if READ_ON.fetch_update(Ordering::Relaxed, Ordering::Relaxed, place).is_err() {
        return false;
    }
    let pipes = match read_by_helper(pipes) {
        Ok(()) => return true,
        Err(pipes) => pipes,
    };
    let is_read = apart(move || {
        read_all(pipes);
        READ_ON.fetch_sub(1, Ordering::Relaxed);
    });
    if !is_read {
        READ_ON.fetch_sub(1, Ordering::Relaxed);
    }
    is_read
}

/// Hands the pipes to a helper.
///
/// # Errors
///
/// The pipes, if no helper could be started.
fn read_by_helper(pipes: Vec<OwnedFd>) -> Result<(), Vec<OwnedFd>> {
    let spawn = || {
        let start = helper::for_reader()?;
        let null = File::options().read(true).write(true).open("/dev/null").ok()?;
        let mut copies = pipes.iter().map(OwnedFd::try_clone);
        let mut next = || copies.next().unwrap_or_else(|| null.try_clone().map(OwnedFd::from));
        kernel::spawn(&start, [next().ok()?, next().ok()?, null.try_clone().ok()?.into()]).ok()
    };
    let Some(helper) = spawn() else { return Err(pipes) };
    // If there is no thread to reap the helper, it stays a zombie until this process ends.
    if !apart(move || reap(helper)) {
        READ_ON.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(())
}

fn reap(helper: Pid) {
    // Waiting fails only if other code of the host has reaped the helper.
    let _ = rustix::process::waitpid(Some(helper), WaitOptions::empty());
    READ_ON.fetch_sub(1, Ordering::Relaxed);
}

/// Runs blocking work on a thread of its own. Returns whether the thread could be started.
fn apart(work: impl FnOnce() + Send + 'static) -> bool {
    let thread = thread::Builder::new().name("adjutant-reader".into()).stack_size(STACK_BYTES);
    thread.spawn(work).is_ok()
}

/// Does the work of a reading helper, whose standard input and standard output are the pipes to read.
///
/// # Errors
///
/// If they cannot be duplicated.
pub(super) fn read() -> io::Result<()> {
    let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let stdout = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    read_all(vec![stdin, stdout]);
    Ok(())
}

/// Reads and discards pipes until no process holds them.
fn read_all(pipes: Vec<OwnedFd>) {
    let read = |pipe: OwnedFd| {
        // The earlier owner of the pipe read without waiting; this one waits.
        let _ = rustix::io::ioctl_fionbio(&pipe, false);
        let _ = io::copy(&mut File::from(pipe), &mut io::sink());
    };
    let mut pipes = pipes.into_iter();
    let (first, second) = (pipes.next(), pipes.next());
    thread::scope(|scope| {
        let second = second.map(|pipe| {
            let thread = thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, move || read(pipe))
        });
        first.map(read);
        drop(second);
    });
}

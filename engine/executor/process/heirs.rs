//! Pipes that nobody wants to read any more, and that somebody still writes to: read into nothing for as long
//! as they are held, because a write to a pipe without a reader ends its writer.
//!
//! A helper reads them, which goes on when the host ends; where there is none, threads of this process do.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Pid, WaitOptions};

use super::{helper, kernel};

/// Runs whose pipes are read on at a time: each takes a process, or two threads.
const READ_ON_MAX: usize = 256;
/// The stack of a thread that reads, or waits for its helper.
const STACK_BYTES: usize = 128 * 1024;

static READ_ON: AtomicUsize = AtomicUsize::new(0);

/// Has somebody read these pipes, two at most, until nobody holds them; whether that is so.
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
/// The pipes, if there is no helper.
fn read_by_helper(pipes: Vec<OwnedFd>) -> Result<(), Vec<OwnedFd>> {
    let spawn = || {
        let start = helper::for_reader()?;
        let null = File::options().read(true).write(true).open("/dev/null").ok()?;
        let mut copies = pipes.iter().map(OwnedFd::try_clone);
        let mut next = || copies.next().unwrap_or_else(|| null.try_clone().map(OwnedFd::from));
        kernel::spawn(&start, [next().ok()?, next().ok()?, null.try_clone().ok()?.into()]).ok()
    };
    let Some(helper) = spawn() else { return Err(pipes) };
    // Where no thread can be had, the helper stays a zombie until this process ends.
    if !apart(move || reap(helper)) {
        READ_ON.fetch_sub(1, Ordering::Relaxed);
    }
    Ok(())
}

fn reap(helper: Pid) {
    // It fails only if somebody else has reaped it.
    let _ = rustix::process::waitpid(Some(helper), WaitOptions::empty());
    READ_ON.fetch_sub(1, Ordering::Relaxed);
}

/// Does what blocks on a thread of its own; whether there is one.
fn apart(work: impl FnOnce() + Send + 'static) -> bool {
    let thread = thread::Builder::new().name("adjutant-reader".into()).stack_size(STACK_BYTES);
    thread.spawn(work).is_ok()
}

/// Does a reader's work: standard input and standard output are pipes to read.
///
/// # Errors
///
/// If they cannot be duplicated.
pub(super) fn read() -> io::Result<()> {
    // By which people know it; that of the path it was started by says nothing.
    let _ = std::fs::write("/proc/self/comm", "adjutant-reader");
    let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let stdout = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    read_all(vec![stdin, stdout]);
    Ok(())
}

/// Reads pipes into nothing until nobody holds them.
fn read_all(pipes: Vec<OwnedFd>) {
    let read = |pipe: OwnedFd| {
        // Whoever had it read what came without waiting.
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

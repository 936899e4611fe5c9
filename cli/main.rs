//! The `adjutant` program: arguments to the library's requests, answers to text or JSON. It can do
//! nothing that a host application cannot do.

#![forbid(unsafe_code)]

mod args;
mod background;
mod commands;
mod control;
mod database;
mod duration;
mod failure;
mod help;
mod interrupt;
mod limits;
mod load;
mod log;
mod owner;
mod plain;
mod render;
mod screen;
mod script;
mod session;
mod top;
mod ui;
mod user;
mod values;

use std::env;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;

use rustix::fs::Mode;
use rustix::process::{Resource, getrlimit, umask};
use tokio::runtime::{Builder, Runtime};

use args::Parsed;
use failure::Failure;

/// The engine and the screen must not wait for each other, on any machine.
const WORKERS_MIN: usize = 2;

/// Threads that the engine and the screen need beside the runtime's own.
const THREADS_BESIDE: usize = 6;

/// Descriptors that the runtime takes, of which it cannot do without those for signals.
const RUNTIME_DESCRIPTORS: usize = 6;

fn main() -> ExitCode {
    adjutant::helper_main();
    if let Err(error) = adjutant::reap_orphans() {
        let failure = Failure::system("start again as a child of the first process", &error);
        ui::report(&failure, false);
        return ExitCode::from(failure.exit_status());
    }
    spare_memory();
    leave_files_to_this_user();
    let (json, parsed) = args::parse(env::args_os());
    let status = match parsed {
        Ok(Parsed::Command(arguments)) => carry_out(*arguments),
        Ok(Parsed::Answered(status)) => Ok(status),
        Err(failure) => Err(failure),
    };
    ExitCode::from(status.unwrap_or_else(|failure| {
        let failure = failure.in_words_of_options();
        ui::report(&failure, json);
        failure.exit_status()
    }))
}

/// The variable by which glibc shares one heap among threads.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Starts the program again with one heap if its memory is limited (`ulimit -v`): glibc would reserve 64 MiB of addresses
/// for each thread. Where that fails, the program goes on as it is.
fn spare_memory() {
    if getrlimit(Resource::As).current.is_none() || env::var_os(ARENAS).is_some() {
        return;
    }
    let mut words = env::args_os();
    let mut program = Command::new("/proc/self/exe");
    if let Some(name) = words.next() {
        program.arg0(name);
    }
    let _error = program.args(words).env(ARENAS, "1").exec();
}

/// Keeps the user's own rights on new files, whatever the umask of the parent takes away: a database without them could
/// not be opened again.
fn leave_files_to_this_user() {
    let of_parent = umask(Mode::RWXG | Mode::RWXO);
    umask(of_parent - Mode::RWXU);
}

fn carry_out(arguments: args::Arguments) -> Result<u8, Failure> {
    log::show_warnings();
    if arguments.refuse_inspection {
        adjutant::refuse_inspection().map_err(|error| Failure::system("be protected", &error))?;
    }
    let runtime = runtime().map_err(|error| Failure::system("start", &error))?;
    let status = runtime.block_on(commands::perform(arguments));
    // A thread that is stuck in a write must not keep the program from ending.
    runtime.shutdown_background();
    status
}

fn runtime() -> std::io::Result<Runtime> {
    let workers = thread::available_parallelism().map_or(WORKERS_MIN, |cores| cores.get());
    let workers = workers.max(WORKERS_MIN);
    check_threads(workers + THREADS_BESIDE)?;
    check_descriptors(RUNTIME_DESCRIPTORS)?;
    Builder::new_multi_thread().worker_threads(workers).enable_all().build()
}

/// Whether so many threads can be had; where they cannot, the runtime would panic.
fn check_threads(count: usize) -> std::io::Result<()> {
    let held = Mutex::new(());
    let hold = held.lock();
    thread::scope(|scope| {
        let thread = || drop(held.lock());
        let started: std::io::Result<Vec<_>> =
            (0..count).map(|_| thread::Builder::new().spawn_scoped(scope, thread)).collect();
        drop(hold);
        started.map(drop)
    })
}

/// Whether so many descriptors can be had; where they cannot, the runtime would panic.
fn check_descriptors(count: usize) -> std::io::Result<()> {
    let opened: std::io::Result<Vec<_>> = (0..count).map(|_| File::open("/dev/null")).collect();
    opened.map(drop)
}

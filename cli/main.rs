//! The `adjutant` program: arguments to the library's requests, answers to text or JSON. It can do
//! nothing that a host application cannot do.

#![forbid(unsafe_code)]

mod args;
mod background;
mod commands;
mod control;
mod database;
mod failure;
mod interrupt;
mod limits;
mod load;
mod log;
mod owner;
mod render;
mod screen;
mod script;
mod session;
mod top;
mod ui;

use std::fs::File;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

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
    let (json, parsed) = args::parse(std::env::args_os());
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

fn carry_out(arguments: args::Arguments) -> Result<u8, Failure> {
    log::show_warnings();
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

//! A host in a process of its own: it does one order at a time, each a line of JSON, and says what it did.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    DirectorySink, Engine, Event, Instance, InvokeId, ProcessExecutor, RunCommand, StopInvocation,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::fs::{Mode, OFlags};
use rustix::process::WaitOptions;
use serde::{Deserialize, Serialize};

use crate::interrupted;

/// What tells a host from the tests.
pub const WITH_HELPER: &str = "--as-host";
/// The same in a program that reaps orphans.
pub const WITH_REAPER: &str = "--as-host-with-reaper";
/// The same in a program that has never called `helper_main`.
pub const WITHOUT_HELPER: &str = "--as-host-without-helper";

/// From SIGTERM to SIGKILL.
pub const GRACE: Duration = Duration::from_millis(300);

/// What a host is like.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Setup {
    pub database: PathBuf,
    /// Descriptors that it opens for every child to inherit.
    pub inheritable: usize,
    /// Whether it has closed its standard descriptors before it opens anything.
    pub has_closed_stdio: bool,
    pub cgroups: bool,
    /// Whether the host waits for any child, and so takes the exit statuses of the engine's children.
    pub takes_all_ends: bool,
    /// The folder of the host's sink for `file:///sink`, if there is a sink.
    pub sink: Option<PathBuf>,
    /// Whether the host lets no process of its user look into it.
    pub refuses_inspection: bool,
    /// Whether other users may run the database too.
    pub is_lenient: bool,
}

/// What it is to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Says `invoked ID`, what it prints, and `ended RECORD`.
    Run(Box<RunCommand>),
    Stop(InvokeId),
    /// Lets this process open no more files, or as many as before.
    NoFiles(bool),
    /// Lets this process open this many files.
    Files(u64),
    /// Lets its user have no more processes than these.
    Processes(u64),
    ShutDown,
    /// Shuts the engine down, with this deadline.
    ShutDownWithin(Duration),
}

/// Does what it is told until there are no more orders.
pub fn serve() {
    let above_stdio = |fd| rustix::io::fcntl_dupfd_cloexec(fd, 10).expect("a descriptor");
    let mut orders = BufReader::new(File::from(above_stdio(rustix::stdio::stdin()))).lines();
    let says = Arc::new(Mutex::new(File::from(above_stdio(rustix::stdio::stdout()))));
    let mut next = move || orders.next().map(|line| line.expect("a line"));
    let setup = next().expect("what it is like");
    let setup: Setup = serde_json::from_str(&setup).expect("a setup");
    if setup.refuses_inspection {
        adjutant::refuse_inspection().expect("the system lets it");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let _open: Vec<OwnedFd> = (0..setup.inheritable)
        .map(|_| {
            rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).expect("a descriptor")
        })
        .collect();
    if setup.has_closed_stdio {
        for number in 0..3 {
            nix::unistd::close(number).expect("it was open");
        }
    }
    let engine = match runtime.block_on(open(&setup)) {
        Ok(engine) => engine,
        Err(error) => return say(&says, &format!("refused {}: {error}", error.code())),
    };
    if setup.takes_all_ends {
        std::thread::spawn(|| {
            loop {
                if rustix::process::wait(WaitOptions::empty()).is_err() {
                    std::thread::yield_now();
                }
            }
        });
    }
    say(&says, "open");
    while let Some(order) = next() {
        let order = serde_json::from_str(&order).expect("an order");
        runtime.block_on(obey(&engine, order, &says));
        say(&says, "done");
    }
    runtime.block_on(engine.shutdown(Duration::ZERO));
}

async fn open(setup: &Setup) -> adjutant::Result<Engine> {
    let executor = ProcessExecutor::new();
    let executor = if setup.cgroups { executor.cgroups() } else { executor };
    let mut builder = Engine::builder().path(&setup.database).stop_grace(GRACE);
    builder = builder.strict_modes(!setup.is_lenient);
    if let Some(folder) = &setup.sink {
        builder = builder.output_sink("file:///sink", DirectorySink::new(folder));
    }
    let builder = builder.executor(adjutant::LOCAL, executor);
    let engine = interrupted::with_closure(builder).open().await?;
    let closure = Instance::new(interrupted::CLOSURE).executor(interrupted::CLOSURE);
    engine.register_instance(closure).await?;
    Ok(engine)
}

async fn obey(engine: &Engine, order: Order, says: &Arc<Mutex<File>>) {
    match order {
        Order::Run(request) => {
            let (run, watch) = engine.run_command_and_watch(*request).await.expect("a run");
            say(says, &format!("invoked {}", run.invoke_id));
            tokio::spawn(tell(engine.clone(), run.invoke_id, watch, Arc::clone(says)));
        }
        Order::Stop(invoke_id) => {
            engine.stop_invocation(StopInvocation::new(invoke_id)).await.expect("a stop");
        }
        Order::NoFiles(none) => {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            setrlimit(Resource::RLIMIT_NOFILE, if none { 0 } else { hard }, hard).expect("set");
        }
        Order::Files(most) => {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
            setrlimit(Resource::RLIMIT_NOFILE, most, hard).expect("set");
        }
        Order::Processes(most) => {
            setrlimit(Resource::RLIMIT_NPROC, most, most).expect("set");
        }
        Order::ShutDown => engine.shutdown(Duration::from_secs(30)).await,
        Order::ShutDownWithin(deadline) => engine.shutdown(deadline).await,
    }
}

/// Says what a run prints, and how it ends.
async fn tell(
    engine: Engine,
    invoke_id: InvokeId,
    mut watch: adjutant::Watch,
    says: Arc<Mutex<File>>,
) {
    while let Ok(Some(event)) = watch.next().await {
        if let Event::Output { bytes, .. } = event {
            let _ = says.lock().expect("no panic").write_all(&bytes);
        }
    }
    if let Ok(finished) = engine.wait(&invoke_id).await {
        let record = serde_json::to_string(&finished.results[0]).expect("JSON");
        say(&says, &format!("ended {record}"));
    }
}

fn say(says: &Mutex<File>, what: &str) {
    let line = format!("{what}\n");
    // Whoever has stopped to listen knows what he needs to know.
    let _ = says.lock().expect("no panic").write_all(line.as_bytes());
}

//! A folder, hosts and users for the tests, and ways to wait that are no sleeps.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use adjutant::{
    DescribeInvocationResults, Engine, EngineBuilder, ExecutionStatus, InvocationResult, InvokeId,
    LOCAL, ProcessExecutor, RunCommand,
};
use libtest_mimic::Trial;
use serde::Serialize;
use tempfile::TempDir;
use uuid::Uuid;

use crate::host::{GRACE, Order, Setup, WITH_HELPER, WITH_REAPER, WITHOUT_HELPER};

/// Longer than anything here takes on the slowest machine; only a failed test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The named tests of a module, each with its runtime.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$(crate::harness::trial(module_path!(), stringify!($test), $test)),*]
    };
}
pub(crate) use trials;

pub fn trial<F: Future<Output = ()>>(
    module: &str,
    name: &str,
    test: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    let module = module.rsplit("::").next().unwrap_or_default();
    Trial::test(format!("{module}::{name}"), move || {
        // The engine goes on while a test waits without awaiting.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build()?;
        let ended = async { tokio::time::timeout(PATIENCE, test()).await };
        runtime.block_on(ended).map_err(|_| "it takes longer than anybody waits")?;
        Ok(())
    })
}

/// These are reported as ignored where this is not root.
pub fn need_root(trials: Vec<Trial>) -> Vec<Trial> {
    let is_root = rustix::process::geteuid().is_root();
    let need = |trial: Trial| {
        let is_ignored = trial.has_ignored_flag();
        trial.with_kind("as root").with_ignored_flag(is_ignored || !is_root)
    };
    trials.into_iter().map(need).collect()
}

/// These are reported as ignored where nothing can be mounted.
pub fn need_mounts(trials: Vec<Trial>) -> Vec<Trial> {
    const SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let rights = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    let rights = rights.and_then(|rights| u64::from_str_radix(rights, 16).ok()).unwrap_or_default();
    let can = rights & SYS_ADMIN != 0;
    trials
        .into_iter()
        .map(|trial| trial.with_kind("where mounts are allowed").with_ignored_flag(!can))
        .collect()
}

/// These are reported as ignored where the system has no keyrings.
pub fn need_keyrings(trials: Vec<Trial>) -> Vec<Trial> {
    let has = Path::new("/proc/keys").exists();
    trials.into_iter().map(|trial| trial.with_ignored_flag(!has)).collect()
}

/// These are reported as ignored where no cgroup can be made.
pub fn need_cgroups(trials: Vec<Trial>) -> Vec<Trial> {
    let offered = can_limit_memory();
    trials
        .into_iter()
        .map(|trial| trial.with_kind("where cgroups limit memory").with_ignored_flag(!offered))
        .collect()
}

/// These are reported as ignored where no group of version 2 can be made.
pub fn need_cgroup_v2(trials: Vec<Trial>) -> Vec<Trial> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let top = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let top = fields.next()?;
        (fields.next()? == "cgroup2").then_some(top)
    });
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    let name = format!("processes-{}", Uuid::new_v4().simple());
    let group = top.zip(own).map(|(top, own)| Path::new(&format!("{top}{own}")).join(name));
    let can = group.is_some_and(|group| {
        let can = fs::create_dir(&group).is_ok();
        let _ = fs::remove_dir(&group);
        can
    });
    let needs = "where there are cgroups of version 2";
    trials.into_iter().map(|trial| trial.with_kind(needs).with_ignored_flag(!can)).collect()
}

/// Whether the machine says so, whatever the engine does: there is a group of ours to make one in.
pub fn can_limit_memory() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = |line: &str| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let top = match controllers {
                "memory" => "/sys/fs/cgroup/memory",
                "" => "/sys/fs/cgroup",
                _ => return None,
            };
            Some(format!("{top}{path}/processes-{}", Uuid::new_v4().simple()))
        };
        own.lines().filter_map(path).any(|group| {
            let can = fs::create_dir(&group).is_ok()
                && ["memory.limit_in_bytes", "memory.max"]
                    .iter()
                    .any(|limit| Path::new(&group).join(limit).exists());
            let _ = fs::remove_dir(&group);
            can
        })
    })
}

/// A file system of its own, gone when dropped.
pub struct Mount(pub PathBuf);

impl Mount {
    /// One in memory on which nothing can be executed.
    pub fn without_programs(at: PathBuf) -> Self {
        fs::create_dir(&at).expect("a folder");
        done(Command::new("mount").args(["-t", "tmpfs", "-o", "noexec", "tmpfs"]).arg(&at));
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A folder that every user can enter, and a database in it.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        open_to(folder.path(), 0o755);
        Self { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn db(&self) -> PathBuf {
        self.path("a.db")
    }

    /// Where surviving runs have their records.
    pub fn runs(&self) -> PathBuf {
        self.path("a.db.runs")
    }

    pub async fn open(&self) -> Engine {
        self.open_with(ProcessExecutor::new()).await
    }

    pub async fn open_with(&self, executor: ProcessExecutor) -> Engine {
        self.builder().executor(LOCAL, executor).open().await.expect("the engine opens")
    }

    pub fn builder(&self) -> EngineBuilder {
        Engine::builder().path(self.db()).stop_grace(GRACE)
    }

    pub fn host(&self) -> Host {
        Host::start(&self.setup())
    }

    pub fn setup(&self) -> Setup {
        Setup { database: self.db(), ..Setup::default() }
    }

    /// The one record in the folder of surviving runs: its folder.
    pub fn kept(&self) -> PathBuf {
        let mut found = fs::read_dir(self.runs()).expect("a run survives");
        found.next().expect("a run survives").expect("an entry").path()
    }

    /// The process that keeps that run.
    pub fn keeper(&self) -> i32 {
        let text = fs::read_to_string(self.kept().join("identity")).expect("its identity");
        let identity: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        identity["pid"].as_i64().expect("a pid").try_into().expect("a pid")
    }

    /// A pipe of words to scripts, or from them.
    pub fn pipe(&self, name: &str) -> Pipe {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo starts");
        assert!(made.success());
        open_to(&path, 0o666);
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("a pipe");
        Pipe { path, file }
    }
}

pub fn open_to(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("they can be set");
}

/// A named pipe with both ends open: nobody waits for it to be opened.
pub struct Pipe {
    path: PathBuf,
    file: File,
}

impl Pipe {
    /// The shell's words for waiting here.
    pub fn wait(&self) -> String {
        format!("read word < '{}'", self.path.display())
    }

    /// The shell's words for telling the test.
    pub fn ring(&self) -> String {
        format!("echo here > '{}'", self.path.display())
    }

    /// Lets one script go on.
    pub fn open(&self) {
        (&self.file).write_all(b"go\n").expect("there is room");
    }

    /// Waits until a script has told.
    pub fn heard(&self) {
        let mut file = self.file.try_clone().expect("a descriptor");
        let (heard, hear) = channel();
        std::thread::spawn(move || {
            let mut word = [0; 5];
            let _ = heard.send(file.read_exact(&mut word).is_ok());
        });
        assert_eq!(hear.recv_timeout(PATIENCE), Ok(true), "the script tells nothing");
    }
}

/// What only the processes of one run have among their arguments: how long they sleep.
pub struct Marker(String);

impl Marker {
    pub fn new() -> Self {
        // Not for long: a test that fails leaves nothing for ever.
        Self(format!("50.{:012}", Uuid::new_v4().as_u128() % 1_000_000_000_000))
    }

    /// A program to start.
    pub fn sleep(&self) -> String {
        format!("sleep {}", self.0)
    }

    /// Who has it, and has not ended.
    pub fn alive(&self) -> BTreeSet<String> {
        let mut alive = BTreeSet::new();
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&arguments).contains(&self.0) {
                alive.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        alive
    }

    /// Waits until all processes with the marker have become the program that sleeps.
    pub async fn sleeps(&self) {
        let is_asleep = |pid: &String| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        };
        until("they sleep", || self.alive().iter().all(is_asleep)).await;
    }

    #[track_caller]
    pub fn check_nobody_is_left(&self, of: &str) {
        assert_eq!(self.alive(), BTreeSet::new(), "left of {of}");
    }
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
}

/// Waits for what nothing tells of.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::task::yield_now().await;
    }
}

/// A script for this machine.
pub fn script(script: impl AsRef<str>) -> RunCommand {
    RunCommand::shell(script.as_ref()).on([LOCAL]).timeout(50)
}

/// Runs it to its end.
pub async fn run(engine: &Engine, request: RunCommand) -> InvocationResult {
    let run = engine.run_command(request).await.expect("a run");
    ended(engine, &run.invoke_id).await
}

/// Waits for the end of a run: its record.
pub async fn ended(engine: &Engine, invoke_id: &InvokeId) -> InvocationResult {
    let mut finished = engine.wait(invoke_id).await.expect("it ends");
    finished.results.remove(0)
}

/// The record of a run that may go on.
pub async fn record(engine: &Engine, invoke_id: InvokeId) -> InvocationResult {
    let request = DescribeInvocationResults::default().invoke_id(invoke_id);
    let mut page = engine.describe_invocation_results(request).await.expect("a page").invocation;
    page.results.remove(0)
}

pub fn text(record: &InvocationResult) -> String {
    record.output.to_text().into_owned()
}

/// Wants success; what it printed.
#[track_caller]
pub fn printed(record: &InvocationResult) -> String {
    assert_eq!(
        (record.status, record.error_info.as_str()),
        (ExecutionStatus::Success, ""),
        "{}",
        text(record)
    );
    text(record)
}

/// Wants a record of this kind which says this.
#[track_caller]
pub fn check_says(record: &InvocationResult, status: ExecutionStatus, code: &str, says: &str) {
    let info = &record.error_info;
    assert_eq!((record.status, record.error_code.as_str()), (status, code), "{info}");
    assert!(info.contains(says), "want `{says}` in: {info}");
}

/// A host in a process of its own. Ends, and tidies up, when dropped.
pub struct Host {
    child: Child,
    /// None once it is to end.
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Host {
    pub fn start(setup: &Setup) -> Self {
        let host = Self::begin(setup);
        host.expect("open");
        host
    }

    /// Starts a host without waiting until it has opened its engine.
    pub fn begin(setup: &Setup) -> Self {
        Self::begin_in(Command::new("/proc/self/exe").arg(WITH_HELPER), setup)
    }

    /// In a program that never called `helper_main`.
    pub fn without_helper(setup: &Setup) -> Self {
        Self::start_in(Command::new("/proc/self/exe").arg(WITHOUT_HELPER), setup)
    }

    /// As another user than root.
    pub fn start_as(account: &Account, setup: &Setup) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg(WITH_HELPER).uid(account.uid).gid(account.gid);
        // Where cargo works, the user may not look.
        command.env_clear().env("HOME", "/").current_dir("/");
        Self::start_in(&mut command, setup)
    }

    /// As another user with these capabilities, and with the tools that pass them on: `+setuid,+kill`.
    pub fn start_with_capabilities(account: &Account, capabilities: &str, setup: &Setup) -> Self {
        // The user may not look where cargo works; a descriptor of the program needs no look.
        let program = File::open("/proc/self/exe").expect("this program");
        let program = rustix::io::dup(&program).expect("a descriptor that children inherit");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &account.uid.to_string(), "--regid", &account.gid.to_string()]);
        command.args(["--init-groups", "--inh-caps", capabilities, "--ambient-caps", capabilities]);
        command.args([&format!("/proc/self/fd/{}", program.as_raw_fd()), WITH_HELPER]);
        command.env_clear().env("HOME", "/").env("PATH", "/usr/bin:/bin").current_dir("/");
        Self::start_in(&mut command, setup)
    }

    /// As root, with what these words of a shell set before they become the host.
    pub fn start_after(words: &str, setup: &Setup) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{words} \"$@\""), "sh"]);
        command.arg(std::env::current_exe().expect("this program")).arg(WITH_HELPER);
        Self::start_in(&mut command, setup)
    }

    /// As the first process of a container, which reaps orphans.
    pub fn start_as_first(setup: &Setup) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command.arg(std::env::current_exe().expect("this program")).arg(WITH_REAPER);
        Self::start_in(&mut command, setup)
    }

    fn start_in(command: &mut Command, setup: &Setup) -> Self {
        let host = Self::begin_in(command, setup);
        host.expect("open");
        host
    }

    /// Starts a host with a variable that no run may see.
    pub fn begin_in(command: &mut Command, setup: &Setup) -> Self {
        let command = command.env("SECRET_OF_HOST", "1").env("LD_LIBRARY_PATH", "/secret-of-host");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let orders = child.stdin.take();
        let lines = lines(child.stdout.take().expect("piped"));
        let mut host = Self { child, orders, lines };
        host.write(setup);
        host
    }

    /// Has it do something, and waits until it has.
    pub fn order(&mut self, order: &Order) {
        self.begin_order(order);
        self.expect("done");
    }

    /// Has it do something, without waiting for it to say `done`.
    pub fn begin_order(&mut self, order: &Order) {
        self.write(order);
    }

    fn write(&mut self, message: &impl Serialize) {
        let line = serde_json::to_string(message).expect("JSON");
        let orders = self.orders.as_mut().expect("it is not to end");
        writeln!(orders, "{line}").expect("it listens");
    }

    pub fn run(&mut self, request: RunCommand) -> InvokeId {
        self.write(&Order::Run(Box::new(request)));
        let line = self.expect("invoked ");
        line.trim_start_matches("invoked ").parse().expect("an id")
    }

    /// Waits for a line with these words.
    pub fn expect(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{words}`"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Waits for the end of a run: its record.
    pub fn ended(&self) -> InvocationResult {
        let line = self.expect("ended ");
        let record = line.split_once("ended ").expect("just found").1;
        serde_json::from_str(record).expect("a record")
    }

    /// Runs it to its end.
    pub fn finish(&mut self, request: RunCommand) -> InvocationResult {
        self.run(request);
        self.ended()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a loss of power would.
    pub fn kill(mut self) {
        self.kill_now();
    }

    /// Does the same; what it has said can still be heard.
    pub fn kill_now(&mut self) {
        self.child.kill().expect("it lives");
    }

    pub fn shut_down(mut self) {
        self.order(&Order::ShutDown);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
    lines
}

/// A user of this machine.
#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Two users with groups of their own, made for these tests.
static MADE: OnceLock<[Account; 2]> = OnceLock::new();

impl Account {
    /// One with two supplementary groups.
    pub fn ann() -> &'static Self {
        &Self::made()[0]
    }

    /// Another.
    pub fn bob() -> &'static Self {
        &Self::made()[1]
    }

    fn made() -> &'static [Self; 2] {
        MADE.get_or_init(|| ["a", "b"].map(Self::make))
    }

    /// One of the system's, without a home.
    pub fn nobody() -> Self {
        Self::of_name("nobody")
    }

    fn make(prefix: &str) -> Self {
        let name = format!("adj{prefix}{:08x}", Uuid::new_v4().as_u128() as u32);
        let groups = ["1", "2"].map(|number| format!("{name}{number}"));
        for group in &groups {
            done(Command::new("groupadd").arg(group));
        }
        let mut add = Command::new("useradd");
        add.args(["--create-home", "--user-group", "--shell", "/bin/bash", "--groups"]);
        done(add.arg(groups.join(",")).arg(&name));
        Self::of_name(&name)
    }

    fn of_name(name: &str) -> Self {
        let user = nix::unistd::User::from_name(name).expect("accounts").expect("an account");
        Self { name: name.to_owned(), uid: user.uid.as_raw(), gid: user.gid.as_raw() }
    }

    pub fn home(&self) -> PathBuf {
        let user = nix::unistd::User::from_name(&self.name).expect("accounts");
        user.expect("an account").dir
    }

    /// Makes a file or folder this user's.
    pub fn own(&self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).expect("this is root");
    }
}

/// Removes what was made of users.
pub fn remove_accounts() {
    for account in MADE.get().into_iter().flatten() {
        done(Command::new("userdel").args(["--force", "--remove", &account.name]));
        for number in ["1", "2"] {
            done(Command::new("groupdel").arg(format!("{}{number}", account.name)));
        }
    }
}

fn done(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

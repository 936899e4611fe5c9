//! A folder and a database of its own for every test, and ways to wait that are no sleeps.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on the slowest machine; only a failed test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a test works.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder for the test") }
    }

    /// A place in which these instances are registered.
    pub fn with_instances(ids: &[&str]) -> Self {
        let place = Self::new();
        place.ok(&[&["instances", "add"], ids].concat());
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn db(&self) -> PathBuf {
        self.path("a.db")
    }

    /// The program, with nothing of this process's environment but the search path.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Command {
        self.command_after(&[], words)
    }

    /// As `command`, started by a parent that has changed its signals, in words of env(1).
    pub fn command_after<S: AsRef<std::ffi::OsStr>>(
        &self,
        signals: &[&str],
        words: &[S],
    ) -> Command {
        // Whoever started the tests in the background had them ignore these.
        let mut command = Command::new("env");
        command
            .arg("--default-signal=INT,QUIT,HUP")
            .args(signals)
            .arg(env!("CARGO_BIN_EXE_adjutant"))
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("ADJUTANT_DB", self.db())
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Done {
        Done::new(self.command(words).output().expect("the program starts"))
    }

    /// Runs it and wants success; what it printed.
    pub fn ok<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> String {
        let done = self.run(words);
        assert_eq!(done.code, Some(0), "{}", done.err);
        done.out
    }

    /// Runs it with `--json` and reads what it printed.
    pub fn json<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Value {
        let mut command = self.command(words);
        let output = command.arg("--json").output().expect("the program starts");
        serde_json::from_slice(&output.stdout).expect("one JSON document")
    }

    /// Starts the program and goes on.
    pub fn start<S: AsRef<std::ffi::OsStr>>(&self, words: &[S]) -> Running {
        Running::new(self.command(words))
    }

    /// Starts `serve` and waits until it does.
    pub fn serve(&self, words: &[&str]) -> Running {
        let serve = self.start(&[&["serve"], words].concat());
        serve.err.expect("serving ");
        serve
    }

    /// Does something in a place where nobody runs the file, and in one where `serve` does. Both
    /// have these instances.
    pub fn with_and_without_owner(ids: &[&str], check: impl Fn(&Self, Option<&Running>)) {
        let alone = Self::with_instances(ids);
        check(&alone, None);
        let served = Self::with_instances(ids);
        let serve = served.serve(&[]);
        check(&served, Some(&serve));
        serve.interrupt();
    }

    /// The newest run.
    pub fn newest(&self) -> String {
        let listed = self.json(&["ps", "-n", "1"]);
        let id = &listed["Invocations"]["Invocation"][0]["InvokeId"];
        id.as_str().expect("there is a run").to_owned()
    }

    /// Waits until a run stands so.
    pub fn wait_until(&self, id: &str, status: &str) {
        let started = Instant::now();
        while self.json(&["show", id])["InvocationStatus"] != status {
            assert!(started.elapsed() < PATIENCE, "{id} never is {status}");
        }
    }

    /// Something that a script can wait for.
    pub fn gate(&self, name: &str) -> Gate {
        let path = self.path(name);
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo starts");
        assert!(made.success());
        Gate { path }
    }

    /// Waits until no process runs the database any more.
    pub fn wait_until_unowned(&self) {
        let lock = File::open(self.path("a.db.lock")).expect("it has been run");
        lock.lock().expect("the lock can be waited for");
    }
}

/// A named pipe: whoever opens it for reading waits until it is opened.
pub struct Gate {
    path: PathBuf,
}

impl Gate {
    /// The shell's words for waiting here.
    pub fn wait(&self) -> String {
        format!("read line < '{}'", self.path.display())
    }

    /// Lets one through, as soon as it is there.
    pub fn open(&self) {
        let mut pipe = OpenOptions::new().write(true).open(&self.path).expect("a reader");
        let _ = writeln!(pipe, "go");
    }
}

impl Drop for Gate {
    /// Lets everybody go who still waits.
    fn drop(&mut self) {
        // Both ends at once: opening waits for nobody, and every reader wakes.
        let open = OpenOptions::new().read(true).write(true).open(&self.path);
        let _ = open.and_then(|mut pipe| pipe.write_all(&[b'\n'; 4096]));
        let _ = fs::remove_file(&self.path);
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A program that runs; its lines come as it prints them.
pub struct Running {
    child: Child,
    pub out: Lines,
    pub err: Lines,
}

impl Running {
    pub fn new(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = Lines::new(child.stdout.take().expect("piped"));
        let err = Lines::new(child.stderr.take().expect("piped"));
        Self { child, out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Has `serve` end, and end well.
    pub fn interrupt(self) {
        self.signal(Signal::INT);
        assert_eq!(self.end().code, Some(0));
    }

    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.wait();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// Waits for its end; the exit status and the rest of what it said.
    pub fn end(mut self) -> Done {
        let code = self.wait().code();
        Done { code, out: self.out.rest(), err: self.err.rest() }
    }
}

/// The lines of a stream.
pub struct Lines {
    lines: Receiver<String>,
}

impl Lines {
    fn new(stream: impl Read + Send + 'static) -> Self {
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        });
        Self { lines }
    }

    /// Waits for the next line, which is a JSON document.
    pub fn expect_json(&self) -> Value {
        serde_json::from_str(&self.expect("")).expect("a line is JSON")
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

    /// Waits for so long, in which nothing is said.
    pub fn expect_none_for(&self, time: Duration) {
        let line = self.lines.recv_timeout(time);
        assert_eq!(line, Err(RecvTimeoutError::Timeout));
    }

    fn rest(&self) -> String {
        self.lines.iter().collect()
    }
}

/// Whether a process exists and is no zombie.
pub fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

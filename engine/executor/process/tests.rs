//! Real processes. Time is a manual clock; what is waited for is output, an event or an end.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::*;
use crate::clock::ManualClock;
use crate::command::settings::Settings;
use crate::config::OutputQuota;
use crate::execution::StopReason;
use crate::executor::{Scratch, Surroundings};
use crate::id::{CommandId, ExecutionId, InvokeId};
use crate::invocation::container::Container;
use crate::invocation::resource_limits::ResourceLimits;
use crate::invocation::{Job, TerminationMode};
use crate::output::{LiveOutput, Output, Piece, Place, Reader, SpoolSpace, Stream};

const GRACE: Duration = Duration::from_secs(5);

/// One task and all that a test needs to follow it. Whatever it started is killed with it.
struct Run {
    executor: Arc<ProcessExecutor>,
    job: Arc<Job>,
    cx: ExecutionContext,
    clock: ManualClock,
    printed: Arc<Notify>,
    reader: Reader,
    text: String,
    scratch: Arc<Scratch>,
    shell: Option<Box<str>>,
    /// The script with its parameters filled in, if it has any.
    filled: Option<String>,
}

impl Run {
    fn new(script: impl AsRef<[u8]>) -> Self {
        Self::with_quota(script, OutputQuota::default())
    }

    fn with_quota(script: impl AsRef<[u8]>, quota: OutputQuota) -> Self {
        let now = "2026-03-29T00:59:59Z".parse().expect("an instant");
        let clock = ManualClock::at(now);
        let scratch = Arc::new(Scratch::temporary().expect("a folder"));
        let printed = Arc::new(Notify::new());
        let output = LiveOutput::new(
            quota,
            SpoolSpace::new(quota.spool_bytes_max),
            vec![Arc::downgrade(&printed)],
        );
        let invoke_id = InvokeId::new(now);
        Self {
            executor: Arc::new(ProcessExecutor::new()),
            job: Arc::new(Job {
                invoke_id,
                command_id: CommandId::of_invocation(invoke_id),
                command_type: CommandType::RunShellScript,
                content: script.as_ref().into(),
                arguments: None,
                settings: Settings::default(),
                container: Container::default(),
                windows_password_name: None,
                secrets_are_names: false,
                content_bytes_max: usize::MAX,
                caller: None,
                timeout_s: Some(60),
                termination_mode: TerminationMode::ProcessTree,
                resource_limits: ResourceLimits::default(),
                survive_restarts: false,
                retry: None,
                lets_wait: false,
            }),
            reader: Reader::new(output.clone(), 0),
            cx: ExecutionContext {
                output,
                contact: Arc::default(),
                surroundings: Arc::new(Surroundings {
                    stop_grace: GRACE,
                    clock: Arc::new(clock.clone()),
                    scratch: Arc::clone(&scratch),
                }),
            },
            clock,
            printed,
            text: String::new(),
            scratch,
            shell: None,
            filled: None,
        }
    }

    fn job(mut self, change: impl FnOnce(&mut Job)) -> Self {
        change(Arc::get_mut(&mut self.job).expect("not begun yet"));
        self
    }

    fn mode(self, mode: TerminationMode) -> Self {
        self.job(|job| job.termination_mode = mode)
    }

    fn dir(self, dir: impl AsRef<Path>) -> Self {
        let dir = dir.as_ref().to_str().expect("plain text").to_owned();
        self.job(|job| job.settings.working_dir = Some(dir))
    }

    fn executor(mut self, executor: ProcessExecutor) -> Self {
        self.executor = Arc::new(executor);
        self
    }

    /// The task's execution, not begun.
    fn execute(&self) -> impl Future<Output = Outcome> + Send + use<> {
        let execution_id = ExecutionId(17);
        let instance_id = "local".into();
        let job = self.job.clone();
        let filled = self.filled.as_ref().map(|filled| filled.as_bytes().into());
        let content = filled.unwrap_or_else(|| job.content.clone());
        let task = Task {
            instance_name: "".into(),
            execution_id,
            instance_id,
            attempt: 2,
            job,
            content,
            resolved: None,
            shell: self.shell.clone(),
        };
        let (executor, cx) = (self.executor.clone(), self.cx.clone());
        async move { executor.execute(task, cx).await }
    }

    /// Runs it to its end: the outcome and what it printed.
    async fn finish(self) -> (Outcome, Output) {
        let outcome = self.execute().await;
        self.check_scratch_is_empty();
        (outcome, self.cx.output.close())
    }

    /// Begins it. It runs when the test awaits.
    fn start(&self) -> tokio::task::JoinHandle<Outcome> {
        tokio::spawn(self.execute())
    }

    fn ask_to_stop(&self) {
        self.cx.contact.ask_to_stop(&StopReason::Stopped.into());
    }

    /// Waits until a line that begins with `key=` was printed: the rest of the line.
    async fn value(&mut self, key: &str) -> String {
        loop {
            for line in self.text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                if let Some(value) = line.strip_prefix(key).and_then(|rest| rest.strip_prefix('='))
                {
                    return value.to_owned();
                }
            }
            self.more().await;
        }
    }

    /// Waits until something new was printed.
    async fn more(&mut self) {
        loop {
            match self.reader.next(1 << 16) {
                Piece::Bytes { bytes, .. } => {
                    self.text.push_str(&String::from_utf8_lossy(&bytes));
                    return;
                }
                Piece::Gap(_) => return,
                Piece::Wait => self.printed.notified().await,
                Piece::End => panic!("the output has ended: {}", self.text),
            }
        }
    }

    /// A handle on the process whose pid was printed as `key=`.
    async fn process(&mut self, key: &str) -> Process {
        Process::new(self.value(key).await.parse().expect("a pid"))
    }

    fn script_path(&self) -> PathBuf {
        self.scratch.path().join("17-2.sh")
    }

    fn check_scratch_is_empty(&self) {
        let files = std::fs::read_dir(self.scratch.path()).expect("the folder").count();
        assert_eq!(files, 0, "files in the scratch folder");
    }
}

/// Some process of a test, whoever started it. Killed when dropped.
struct Process {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    fn new(pid: i32) -> Self {
        let pid = Pid::from_raw(pid).expect("a pid");
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).expect("it lives");
        let pidfd = kernel::readable(pidfd).expect("it can be watched");
        Self { pid, pidfd }
    }

    async fn ended(&self) {
        let _ = self.pidfd.readable().await.expect("it can be watched");
    }

    /// Waits until it has become this program. A signal that meets a shell between its fork and
    /// its exec can be lost there, to a trap that is just being cleared.
    async fn becomes(&self, program: &str) {
        let comm = format!("/proc/{}/comm", self.pid);
        while std::fs::read_to_string(&comm).is_ok_and(|name| name.trim_end() != program) {
            tokio::task::yield_now().await;
        }
    }

    /// The letter that the kernel has for its state, `None` if it is gone.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    }

    fn lives(&self) -> bool {
        !matches!(self.state(), None | Some('Z' | 'X'))
    }

    /// Waits until it is reaped.
    async fn reaped(&self) {
        self.ended().await;
        while Path::new(&format!("/proc/{}", self.pid)).exists() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended, as it mostly has.
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(output.as_bytes()).into_owned()
}

/// The bytes of one stream.
fn of_stream(output: &Output, wanted: Stream) -> Vec<u8> {
    let (mut at, mut place, mut found) = (0, Place::default(), Vec::new());
    while let Piece::Bytes { stream, bytes } = output.piece_at(at, usize::MAX, &mut place) {
        at += bytes.len() as u64;
        if stream == wanted {
            found.extend(bytes);
        }
    }
    found
}

fn stopped_by(signal: Signal) -> Outcome {
    Outcome::Stopped { signal: Some(signal.as_raw()), exit_code: None, info: String::new() }
}

fn stopped_before_it_began() -> Outcome {
    Outcome::Stopped { signal: None, exit_code: None, info: String::new() }
}

fn stopped_with(exit_code: i32) -> Outcome {
    Outcome::Stopped { signal: None, exit_code: Some(exit_code), info: String::new() }
}

#[tokio::test]
async fn scripts_and_how_they_end() {
    async fn check(script: &str, outcome: Outcome, printed: &str) {
        let (got, output) = Run::new(script).finish().await;
        assert_eq!((got, text(&output).as_str()), (outcome, printed), "{script}");
    }
    check(":", Outcome::Exited(0), "").await;
    check("exit 7", Outcome::Exited(7), "").await;
    check("exit 255", Outcome::Exited(255), "").await;
    check("no-such-program 2>/dev/null", Outcome::Exited(127), "").await;
    check("kill -9 $$", Outcome::Signaled(9), "").await;
    check("kill -TERM $$", Outcome::Signaled(15), "").await;
    check("printf 'no newline'", Outcome::Exited(0), "no newline").await;
    check("echo out; exec >&- 2>&-; exit 3", Outcome::Exited(3), "out\n").await;
    check("cat; readlink /proc/self/fd/0", Outcome::Exited(0), "/dev/null\n").await;
    check("echo \"${0##*/}\" $#", Outcome::Exited(0), "17-2.sh 0\n").await;
    check("cut -d' ' -f5 /proc/$$/stat | grep -qx $$", Outcome::Exited(0), "").await;
    check("rm \"$0\"; exit 4", Outcome::Exited(4), "").await;
    check("#!/bin/sh -e\nfalse\necho on", Outcome::Exited(1), "").await;
    check("#! /usr/bin/env sh\necho \"${0##*/}\"", Outcome::Exited(0), "17-2.sh\n").await;
    check("#!/bin/cat\nlast", Outcome::Exited(0), "#!/bin/cat\nlast").await;
    if Path::new("/usr/bin/python3").exists() {
        let script = "#!/usr/bin/python3\nimport sys\nprint(len(sys.argv))\nsys.exit(9)";
        check(script, Outcome::Exited(9), "1\n").await;
    }
}

#[tokio::test]
async fn the_host_chooses_the_shell() {
    if !Path::new("/bin/bash").exists() {
        return;
    }
    for shell in ["bash", "/bin/bash"] {
        let run = Run::new("echo ${BASH_VERSION:+bash}");
        let (_, output) = run.executor(ProcessExecutor::new().shell(shell)).finish().await;
        assert_eq!(text(&output), "bash\n");
        let mut run = Run::new("echo ${BASH_VERSION:+bash}");
        run.shell = Some(shell.into());
        assert_eq!(text(&run.finish().await.1), "bash\n", "the instance has a shell of its own");
    }
}

#[tokio::test]
async fn powershell_runs_where_there_is_one() {
    let place = tempfile::tempdir().expect("a folder");
    let powershell = |path: &str| {
        let executor = ProcessExecutor::new().env("PATH", path);
        let run = Run::new("Write-Output 1").executor(executor);
        run.job(|job| job.command_type = CommandType::RunPowerShellScript)
    };
    let folder = place.path().to_str().expect("plain text");
    let (outcome, _) = powershell(folder).finish().await;
    let Outcome::Unsuitable { code, info } = outcome else { panic!("{outcome:?}") };
    assert_eq!((code, info.contains("`pwsh`")), ("CommandNotApplicable", true), "{info}");

    // The shell writes the program itself: nobody else can have it open for writing when it starts.
    let fake =
        "#!/bin/sh\nfor last; do :; done\n/bin/cat \"$last\"; echo; echo $# \"${last##*.}\" $4";
    let write = "printf '%s' \"$FAKE\" > \"$TO/pwsh\" && chmod +x \"$TO/pwsh\"";
    let executor = ProcessExecutor::new().env("FAKE", fake).env("TO", folder);
    assert_eq!(Run::new(write).executor(executor).finish().await.0, Outcome::Exited(0));
    let (outcome, output) = powershell(folder).finish().await;
    let want = "Write-Output 1\n5 ps1 -File\n";
    assert_eq!((outcome, text(&output).as_str()), (Outcome::Exited(0), want));
}

#[tokio::test]
async fn a_run_leaves_a_result_and_what_it_used() {
    let check = async |script: &str, want: Result<serde_json::Value, &str>| {
        let run = Run::new(script);
        let contact = Arc::clone(&run.cx.contact);
        assert_eq!(run.finish().await.0, Outcome::Exited(0), "{script}");
        let report = contact.take_report().expect("it says something");
        assert!(report.usage.expect("it was counted").user_time < Duration::from_secs(60));
        match (report.result.expect("there was something"), want) {
            (Err(why), Err(want)) => assert!(why.contains(want), "{why}"),
            (result, want) => assert_eq!(result, want.map_err(str::to_owned), "{script}"),
        }
    };
    check("echo '{\"rows\": 7}' > $ADJUTANT_RESULT", Ok(serde_json::json!({"rows": 7}))).await;
    check("echo null > $ADJUTANT_RESULT", Ok(serde_json::Value::Null)).await;
    check("echo seven > $ADJUTANT_RESULT", Err("no JSON")).await;
    check(": > $ADJUTANT_RESULT", Err("no JSON")).await;
    check("head -c 100000 /dev/zero > $ADJUTANT_RESULT", Err("at most 65536 bytes")).await;
    check("ln -s /etc/passwd $ADJUTANT_RESULT", Err("cannot be opened")).await;
    check("mkfifo $ADJUTANT_RESULT", Err("a plain file")).await;
    check("mkdir $ADJUTANT_RESULT; rmdir $ADJUTANT_RESULT; mkfifo $ADJUTANT_RESULT", Err("plain"))
        .await;
}

#[tokio::test]
async fn memory_is_known_where_it_is_more_than_was_lent() {
    let used = async |script: &str| {
        let run = Run::new(script);
        let contact = Arc::clone(&run.cx.contact);
        run.finish().await;
        let usage = contact.take_report().and_then(|report| report.usage);
        usage.expect("it was counted").max_rss_bytes
    };
    // What a host of this size lends is more than a shell needs.
    let resident: Vec<u8> = vec![1; 64 << 20];
    assert_eq!(used(":").await, None, "{}", resident[1]);
    let large = "head -c 400000000 /dev/zero | tail -c 300000000 > /dev/null";
    assert!(used(large).await.is_some_and(|bytes| bytes > 200 << 20));
}

#[tokio::test]
async fn a_task_that_does_not_suit_never_runs() {
    async fn check(run: Run, want_code: &str, want_info: &str) {
        match run.finish().await.0 {
            Outcome::Unsuitable { code, info } => {
                assert_eq!(code, want_code);
                assert!(info.contains(want_info), "{info}");
            }
            other => panic!("want {want_code}, got {other:?}"),
        }
    }
    let bat = || Run::new("echo 1").job(|job| job.command_type = CommandType::RunBatScript);
    check(bat(), "CommandNotApplicable", "RunBatScript").await;
    check(bat().dir("/no/such/dir"), "CommandNotApplicable", "RunShellScript").await;
    let run = || Run::new("echo 1");
    check(run().dir("/no/such/dir"), "DirectoryNotExists", "`/no/such/dir` does not exist").await;
    check(run().dir("/etc/passwd"), "DirectoryNotExists", "is no directory").await;
    check(run().dir("/etc/passwd/x"), "DirectoryNotExists", "ENOTDIR").await;
    check(run().dir("/tmp/\0"), "DirectoryNotExists", "cannot be looked at").await;
}

#[tokio::test]
async fn a_launcher_is_given_the_script() {
    let check = async |launcher: &str, script: &str, want: &str| {
        let run = Run::new(script).job(|job| job.settings.launcher = Some(launcher.to_owned()));
        let (outcome, output) = run.finish().await;
        assert_eq!((outcome, text(&output).as_str()), (Outcome::Exited(0), want), "{launcher}");
    };
    check("cat", "#!/bin/false\nas it is", "#!/bin/false\nas it is").await;
    check(
        "sh -c 'echo \"$1|${0##*.}|$#\"' {{ACS::ScriptFileName|Ext(.py)}} 'a b'",
        "",
        "a b|py|1\n",
    )
    .await;
    check("/bin/sh -e {{ACS::ScriptFileName}} x", "echo $1 ${0##*/}", "x 17-2.sh\n").await;
}

#[tokio::test]
async fn what_a_task_asks_for_and_cannot_have_is_said() {
    let check = async |change: fn(&mut Job), code: &str, want: &str| {
        let (outcome, _) = Run::new("echo ran").job(change).finish().await;
        let Outcome::Unsuitable { code: found, info } = outcome else { panic!("{outcome:?}") };
        assert_eq!(found, code, "{info}");
        assert!(info.contains(want), "{info}");
    };
    let gone = "is no program";
    check(|job| job.settings.launcher = Some("nosuch".to_owned()), "LauncherNotFound", gone).await;
    check(|job| job.settings.launcher = Some("./nosuch".to_owned()), "LauncherNotFound", gone)
        .await;
    check(|job| job.settings.launcher = Some("/etc/passwd".to_owned()), "LauncherNotFound", gone)
        .await;
    check(|job| job.container.name = Some("web".to_owned()), "CommandNotApplicable", "containers")
        .await;
}

#[tokio::test]
async fn the_working_directory_is_the_one_asked_for_or_home() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_, output) = Run::new("pwd -P").dir(dir.path()).finish().await;
    let want = dir.path().canonicalize().expect("it exists");
    assert_eq!(text(&output).trim_end(), want.to_str().expect("plain text"));

    let (_, output) = Run::new("pwd").finish().await;
    let home = std::env::home_dir().expect("a home");
    assert_eq!(text(&output).trim_end(), home.to_str().expect("plain text"));
}

#[tokio::test]
async fn the_environment_is_clean() {
    let executor = ProcessExecutor::new().env("TZ", "UTC").env("LANG", "C").env("TZ", "CET");
    let run = Run::new("#!/bin/cat /proc/self/environ\n").executor(executor);
    let want = format!(
        "ADJUTANT_ATTEMPT=2 ADJUTANT_COMMAND_ID={} ADJUTANT_EXECUTION_ID=17 \
         ADJUTANT_INSTANCE_ID=local ADJUTANT_INVOKE_ID={} ADJUTANT_RESULT=* ADJUTANT_RUN=* HOME=* LANG=C \
         LOGNAME=* PATH=* SHELL=* TZ=CET USER=*",
        run.job.command_id, run.job.invoke_id
    );
    let (_, output) = run.finish().await;
    let printed = text(&output);
    let variables = printed.strip_suffix("#!/bin/cat /proc/self/environ\n").expect("the script");
    let mut variables: Vec<String> = variables
        .split_terminator('\0')
        .map(|variable| match variable.split_once('=').expect("a pair") {
            (key @ ("ADJUTANT_RESULT" | "ADJUTANT_RUN"), value)
            | (key @ ("HOME" | "LOGNAME" | "PATH" | "SHELL" | "USER"), value) => {
                assert!(!value.is_empty(), "{key}");
                format!("{key}=*")
            }
            _ => variable.to_owned(),
        })
        .collect();
    variables.sort();
    assert_eq!(variables.join(" "), want);
}

/// Whatever the host has open and lets its children have, and while other threads open and spawn.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn only_three_descriptors_are_passed_on() {
    let open = || rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()).expect("a descriptor");
    let _inherited: Vec<OwnedFd> = (0..40).map(|_| open()).collect();
    let runs: Vec<_> = (0..100)
        .map(|_| tokio::spawn(Run::new("#!/bin/sh\nexec ls /proc/self/fd").finish()))
        .collect();
    for run in runs {
        let (outcome, output) = run.await.expect("no panic");
        // The fourth is the folder that is listed.
        assert_eq!((outcome, text(&output).as_str()), (Outcome::Exited(0), "0\n1\n2\n3\n"));
    }
}

#[tokio::test]
async fn the_streams_are_kept_apart_and_every_byte_is_kept() {
    let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo o$i; echo e$i >&2; done";
    let (_, output) = Run::new(script).finish().await;
    let lines = |prefix| (1..=200).map(|n| format!("{prefix}{n}\n")).collect::<String>();
    assert_eq!(of_stream(&output, Stream::Stdout), lines("o").as_bytes());
    assert_eq!(of_stream(&output, Stream::Stderr), lines("e").as_bytes());

    let mut binary = b"#!/bin/cat\n".to_vec();
    binary.extend((0..20_000_u32).map(|n| (n * n / 7) as u8));
    let (outcome, output) = Run::new(&binary).finish().await;
    assert_eq!((outcome, output.as_bytes()), (Outcome::Exited(0), &binary[..]));
}

#[tokio::test]
async fn a_flood_is_counted_to_the_byte() {
    async fn check(flood: &str, want_bytes: u64) -> Output {
        let (outcome, output) =
            Run::new(format!("printf begin; {flood}; printf end")).finish().await;
        assert_eq!(outcome, Outcome::Exited(0));
        assert_eq!(output.dropped() + 24_576, want_bytes);
        assert!(output.as_bytes().starts_with(b"begin\0"));
        output
    }
    let output = check("head -c 50000000 /dev/zero", 50_000_008).await;
    assert!(output.as_bytes().ends_with(b"\0end"));
    // Both streams at a time, in whatever order they are read.
    let both = "head -c 5000000 /dev/zero & head -c 3000001 /dev/zero >&2; wait";
    check(both, 8_000_009).await;
}

/// As many as there are turns, and more.
#[tokio::test]
async fn floods_at_a_time_are_all_read() {
    let floods: Vec<Run> = (0..2 * processors())
        .map(|_| Run::new("head -c 20000000 /dev/zero | tee /dev/stderr"))
        .collect();
    let tasks: Vec<_> = floods.iter().map(Run::start).collect();
    for (run, task) in floods.into_iter().zip(tasks) {
        assert_eq!(task.await.expect("no panic"), Outcome::Exited(0));
        assert_eq!(run.cx.output.snapshot().1, 40_000_000);
    }
}

#[tokio::test]
async fn who_falls_silent_after_a_flood_gives_its_turn_back() {
    let mut silent = Vec::new();
    for _ in 0..processors() {
        let mut run = Run::new("head -c 3000000 /dev/zero; echo; echo all=said; exec sleep 1000");
        let task = run.start();
        assert_eq!(run.value("all").await, "said");
        silent.push((run, task));
    }
    let (outcome, output) = Run::new("head -c 9000000 /dev/zero").finish().await;
    assert_eq!((outcome, output.dropped() + 24_576), (Outcome::Exited(0), 9_000_000));
    for (run, task) in silent {
        run.ask_to_stop();
        assert_eq!(task.await.expect("no panic"), stopped_by(Signal::TERM));
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// More than a pipe holds by default, written in one go right before the end.
#[tokio::test]
async fn what_is_written_last_is_not_lost() {
    let quota = OutputQuota { head_bytes_max: 1 << 20, ..OutputQuota::default() };
    for bytes in [1, 65_535, 65_536, 65_537, 300_000] {
        let script = format!("#!/bin/sh\nexec head -c {bytes} /dev/zero");
        let (_, output) = Run::with_quota(script, quota).finish().await;
        assert_eq!(output.as_bytes().len(), bytes);
    }
}

#[tokio::test]
async fn a_silent_heir_of_the_pipe_is_not_waited_for() {
    let mut run = Run::new("sleep 1000 & echo heir=$!; exit 5");
    let task = run.start();
    let heir = run.process("heir").await;
    // The moment of silence and the limit.
    run.clock.sleeping(2).await;
    run.clock.advance(Duration::from_millis(249));
    assert!(!task.is_finished());
    run.clock.advance(Duration::from_millis(1));
    assert_eq!(task.await.expect("no panic"), Outcome::Exited(5));
    assert!(heir.lives(), "what is left in the background lives on");
    run.check_scratch_is_empty();
}

#[tokio::test]
async fn a_talking_heir_of_the_pipe_is_cut_off_and_lives_on() {
    let mut run = Run::new("(while :; do echo x; done) & echo heir=$!");
    let task = run.start();
    let heir = run.process("heir").await;
    run.clock.sleeping(2).await;
    for _ in 0..20 {
        run.clock.advance(Duration::from_millis(249));
        // Twice: what is read after the second was printed after the advance.
        run.printed.notified().await;
        run.printed.notified().await;
        assert!(!task.is_finished());
    }
    run.clock.advance(Duration::from_millis(20));
    assert_eq!(task.await.expect("no panic"), Outcome::Exited(0));
    let report = run.cx.contact.take_report().expect("it says something");
    let remark = report.remark.expect("its output is cut");
    let says = format!(
        "output on standard output and standard error cut 5 s after its end, held by {}",
        heir.pid
    );
    assert!(remark.starts_with(&says), "{remark}");
    // The heir writes more than a pipe holds. Without a reader it would wait, or end.
    let written = || written_by(heir.pid);
    let before = written();
    while written() < before + (1 << 20) {
        assert!(heir.lives());
        tokio::task::yield_now().await;
    }
}

/// Returns the bytes that a process has written.
fn written_by(pid: Pid) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("it lives");
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    written.expect("it is counted").parse().expect("a number")
}

#[tokio::test]
async fn an_heir_that_finishes_is_heard() {
    let dir = tempfile::tempdir().expect("a folder");
    let script = "mkfifo go; (echo heir; read _ <go; echo last) & exit 0";
    let run = Run::new(script).dir(dir.path());
    let task = run.start();
    run.clock.sleeping(2).await;
    // Opening waits for the reader; both are away from the runtime's thread.
    let go = dir.path().join("go");
    tokio::task::spawn_blocking(move || std::fs::write(go, "\n"))
        .await
        .expect("no panic")
        .expect("written");
    assert_eq!(task.await.expect("no panic"), Outcome::Exited(0));
    assert_eq!(text(&run.cx.output.close()), "heir\nlast\n");
}

#[tokio::test]
async fn a_background_child_that_lets_go_of_the_pipe_lives_on() {
    let mut run = Run::new("nohup sleep 1000 >/dev/null 2>&1 & echo server=$!; exec sleep 0");
    let task = run.start();
    let server = run.process("server").await;
    assert_eq!(task.await.expect("no panic"), Outcome::Exited(0));
    assert!(server.lives());
    let report = run.cx.contact.take_report().expect("it says something");
    assert_eq!(report.remark, Some(format!("left running: {} (sleep)", server.pid)));
}

#[tokio::test]
async fn nothing_is_said_of_a_run_that_leaves_nothing() {
    for script in [":", "sleep 0 & wait", "setsid sleep 0 & wait", "echo 1 | cat | cat"] {
        let run = Run::new(script);
        let contact = Arc::clone(&run.cx.contact);
        assert_eq!(run.finish().await.0, Outcome::Exited(0));
        assert_eq!(contact.take_report().and_then(|report| report.remark), None, "{script}");
    }
}

#[tokio::test]
async fn a_stop_is_polite_at_first() {
    async fn check(script: &str, want: Outcome) {
        let mut run = Run::new(script);
        let task = run.start();
        let leader = run.process("leader").await;
        let child = run.process("child").await;
        child.becomes("sleep").await;
        run.ask_to_stop();
        assert_eq!(task.await.expect("no panic"), want, "{script}");
        child.ended().await;
        leader.reaped().await;
        run.check_scratch_is_empty();
    }
    // A shell that waits for a child in the foreground runs its trap only after that child.
    let waits = "sleep 1000 & echo child=$!; echo leader=$$; wait";
    check(waits, stopped_by(Signal::TERM)).await;
    check(&format!("trap 'exit 3' TERM; {waits}"), stopped_with(3)).await;
    check(&format!("trap 'exit 0' TERM; {waits}"), stopped_with(0)).await;
}

#[tokio::test]
async fn a_child_may_tidy_up_after_its_leader_is_gone() {
    let tidy = "trap \"echo tidied; exit\" TERM; sleep 1000 & echo child=$!; wait";
    let mut run = Run::new(format!("echo leader=$$; sh -c '{tidy}'; exit 9"));
    let task = run.start();
    let child = run.process("child").await;
    child.becomes("sleep").await;
    run.ask_to_stop();
    assert_eq!(task.await.expect("no panic"), stopped_by(Signal::TERM));
    let output = run.cx.output.close();
    assert!(String::from_utf8_lossy(output.as_bytes()).ends_with("tidied\n"), "{output:?}");
}

#[tokio::test]
async fn what_ignores_a_stop_is_ended_once_the_grace_is_over() {
    let deaf = "sh -c 'trap \"\" TERM; echo child=$$; exec sleep 1000' & echo leader=$$; wait";
    let mut run = Run::new(deaf);
    let task = run.start();
    let (leader, child) = (run.process("leader").await, run.process("child").await);
    child.becomes("sleep").await;
    run.ask_to_stop();
    while leader.state() != Some('Z') {
        tokio::task::yield_now().await;
    }
    run.clock.sleeping(1).await;
    run.clock.advance(GRACE - Duration::from_millis(1));
    tokio::task::yield_now().await;
    assert!(child.lives() && !task.is_finished());
    run.clock.advance(Duration::from_millis(1));
    let Outcome::Stopped { signal, info, .. } = task.await.expect("no panic") else {
        panic!("it was stopped");
    };
    assert_eq!(signal, Some(Signal::TERM.as_raw()), "the leader itself was polite");
    assert_eq!(info, format!("it took SIGKILL to end {} (sleep)", child.pid));
    child.ended().await;
}

/// What a run starts, with ways to get out of its sight; each prints `stray=` and its pid.
const STRAYS: [&str; 5] = [
    "setsid sh -c 'echo stray=$$; exec sleep 1000' &",
    "(setsid sh -c 'echo stray=$$; exec sleep 1000' &) ",
    "(sh -c 'echo stray=$$; exec sleep 1000' &)",
    "setsid sh -c 'trap : TERM; echo stray=$$; while :; do sleep 1000; done' &",
    "env -i /bin/sh -c 'setsid /bin/sh -c \"echo stray=\\$\\$; exec sleep 1000\"; :' &",
];

#[tokio::test]
async fn a_stop_finds_what_has_left_the_group() {
    for (n, stray) in STRAYS.into_iter().enumerate() {
        let mut run = Run::new(format!("{stray}\nsleep 1000 & wait"));
        let task = run.start();
        let stray = run.process("stray").await;
        run.ask_to_stop();
        let deaf = n == 3;
        if deaf {
            run.clock.sleeping(1).await;
            run.clock.advance(GRACE);
        }
        let outcome = task.await.expect("no panic");
        let Outcome::Stopped { info, .. } = outcome else { panic!("{n}: {outcome:?}") };
        assert!(!stray.lives(), "{n}: {info}");
        assert_eq!(info.contains(&format!("{} (sh)", stray.pid)), deaf, "{n}: {info}");
    }
}

#[tokio::test]
async fn a_swarm_that_goes_on_forking_is_ended() {
    let swarm = "trap '' TERM; echo mark=$ADJUTANT_RUN; while :; do (sleep 0.01 &) ; (setsid sleep 1000 &); done";
    let mut run = Run::new(swarm);
    let task = run.start();
    let environment = format!("ADJUTANT_RUN={}", run.value("mark").await);
    let mark = Mark::of(environment.as_bytes()).expect("a mark");
    run.ask_to_stop();
    run.clock.sleeping(1).await;
    run.clock.advance(GRACE);
    let outcome = task.await.expect("no panic");
    assert!(matches!(outcome, Outcome::Stopped { .. }), "{outcome:?}");
    let asked = census::Asked::User(rustix::process::geteuid().as_raw());
    let left = census::take(asked).await.expect("/proc");
    assert!(!left.processes.values().any(|process| process.mark == Some(mark)));
}

/// As they do in two copies of one database.
#[tokio::test]
async fn a_stop_spares_another_run_of_the_same_ids() {
    let script = "(setsid sh -c 'echo stray=$$; exec sleep 1000' &); sleep 1000 & wait";
    let mut run = Run::new(script);
    let ids = (run.job.invoke_id, run.job.command_id);
    let mut other = Run::new(script).job(|job| (job.invoke_id, job.command_id) = ids);
    let (task, other_task) = (run.start(), other.start());
    let (stray, spared) = (run.process("stray").await, other.process("stray").await);
    run.ask_to_stop();
    task.await.expect("no panic");
    assert!(!stray.lives() && spared.lives());
    other.ask_to_stop();
    other_task.await.expect("no panic");
    assert!(!spared.lives());
}

#[tokio::test]
async fn a_stop_finds_who_has_a_name_cut_inside_a_character() {
    let dir = tempfile::tempdir().expect("a folder");
    let deaf = "trap : TERM; echo stray=$$; while :; do sleep 1000; done";
    // The shell writes the program itself: nobody else can have it open for writing when it starts.
    let script = format!(
        "printf '#!/bin/sh\\n%s' '{deaf}' >éééééééé; chmod u+x éééééééé; setsid ./éééééééé & wait"
    );
    let mut run = Run::new(script).dir(dir.path());
    let task = run.start();
    let stray = run.process("stray").await;
    run.ask_to_stop();
    run.clock.sleeping(1).await;
    run.clock.advance(GRACE);
    let outcome = task.await.expect("no panic");
    let Outcome::Stopped { info, .. } = outcome else { panic!("{outcome:?}") };
    assert!(!stray.lives());
    let named = format!("{} (ééééééé\u{fffd})", stray.pid);
    assert!(info.contains(&named), "{info}");
}

#[tokio::test]
async fn a_stop_is_heard_once() {
    // Each says its number last: what it starts after the stop would hear nothing of it.
    let script = "trap 'echo term' TERM; setsid sh -c 'trap \"echo stray-term\" TERM; sleep 1000 & \
                  echo stray=$$; wait; kill $!; sleep 0.1' & sleep 1000 & echo leader=$$; wait; wait; kill $!";
    let mut run = Run::new(script);
    let task = run.start();
    let (stray, _leader) = (run.process("stray").await, run.value("leader").await);
    run.ask_to_stop();
    stray.ended().await;
    task.await.expect("no panic");
    let output = run.cx.output.close();
    let printed = text(&output);
    for line in ["term\n", "stray-term\n"] {
        let heard = printed.split_inclusive('\n').filter(|said| *said == line).count();
        assert_eq!(heard, 1, "{printed}");
    }
}

#[tokio::test]
async fn a_stop_reaches_what_stands_still() {
    for &mode in TerminationMode::ALL {
        let mut run = Run::new("echo leader=$$; exec sleep 1000").mode(mode);
        let task = run.start();
        let leader = run.process("leader").await;
        rustix::process::kill_process(leader.pid, Signal::STOP).expect("it lives");
        while leader.state() != Some('T') {
            tokio::task::yield_now().await;
        }
        run.ask_to_stop();
        assert_eq!(task.await.expect("no panic"), stopped_by(Signal::TERM));
    }
}

#[tokio::test]
async fn a_stop_is_forced_once_the_grace_is_over() {
    for (mode, child_lives) in
        [(TerminationMode::ProcessTree, false), (TerminationMode::Process, true)]
    {
        let script =
            "trap '' TERM; sleep 1000 >/dev/null 2>&1 & echo child=$!; echo leader=$$; wait; wait";
        let mut run = Run::new(script).mode(mode);
        let task = run.start();
        let (leader, child) = (run.process("leader").await, run.process("child").await);
        run.ask_to_stop();
        run.clock.sleeping(1).await;
        run.clock.advance(GRACE - Duration::from_millis(1));
        tokio::task::yield_now().await;
        assert!(leader.lives() && !task.is_finished());
        run.clock.advance(Duration::from_millis(1));
        let Outcome::Stopped { signal, info, .. } = task.await.expect("no panic") else {
            panic!("it was stopped");
        };
        assert_eq!(signal, Some(Signal::KILL.as_raw()));
        // What it had started ignores the same signals as it did.
        let sleep = if child_lives { String::new() } else { format!(", {} (sleep)", child.pid) };
        assert_eq!(info, format!("it took SIGKILL to end {} (sh){sleep}", leader.pid));
        if child_lives {
            assert!(child.lives());
        } else {
            child.ended().await;
        }
    }
}

#[tokio::test]
async fn a_stop_of_the_process_spares_its_children() {
    let script = "sleep 1000 >/dev/null 2>&1 & echo child=$!; echo leader=$$; wait";
    let mut run = Run::new(script).mode(TerminationMode::Process);
    let task = run.start();
    let (leader, child) = (run.process("leader").await, run.process("child").await);
    run.ask_to_stop();
    assert_eq!(task.await.expect("no panic"), stopped_by(Signal::TERM));
    leader.reaped().await;
    assert!(child.lives());
}

#[tokio::test]
async fn who_ends_in_the_instant_of_the_stop_has_ended_by_itself() {
    async fn check(script: &str, want: Outcome) {
        let mut run = Run::new(script);
        let mut task = pin!(run.execute());
        let leader = tokio::select! {
            outcome = &mut task => panic!("it ended early: {outcome:?}"),
            leader = run.process("leader") => leader,
        };
        // From here on the executor is not polled: it learns of both at once.
        rustix::process::kill_process(leader.pid, Signal::USR1).expect("it lives");
        leader.ended().await;
        run.ask_to_stop();
        assert_eq!(task.await, want, "{script}");
    }
    let waits = "sleep 1000 & echo leader=$$; wait";
    check(&format!("trap 'kill $!; exit 3' USR1; {waits}"), Outcome::Exited(3)).await;
    check("echo leader=$$; exec sleep 1000", Outcome::Signaled(Signal::USR1.as_raw())).await;
}

#[tokio::test]
async fn a_task_stopped_before_it_begins_never_runs() {
    let run = Run::new("echo 1");
    run.ask_to_stop();
    let (outcome, output) = run.finish().await;
    assert_eq!(outcome, stopped_before_it_began());
    assert!(output.is_empty());
}

#[tokio::test]
async fn a_dropped_run_leaves_nothing() {
    let script = "trap '' TERM; sleep 1000 & echo child=$!; echo leader=$$; wait";
    for &mode in TerminationMode::ALL {
        let mut run = Run::new(script).mode(mode);
        let task = run.start();
        let (leader, child) = (run.process("leader").await, run.process("child").await);
        task.abort();
        assert!(task.await.expect_err("it was aborted").is_cancelled());
        child.ended().await;
        leader.reaped().await;
        run.check_scratch_is_empty();
    }
}

#[tokio::test]
async fn a_run_dropped_after_its_process_ended_spares_what_that_left() {
    let mut run = Run::new("sleep 1000 & echo heir=$!");
    let task = run.start();
    let heir = run.process("heir").await;
    run.clock.sleeping(2).await;
    task.abort();
    assert!(task.await.expect_err("it was aborted").is_cancelled());
    assert!(heir.lives());
    run.check_scratch_is_empty();
}

#[tokio::test]
async fn the_script_is_private() {
    let mut run = Run::new("echo leader=$$; sleep 1000");
    let task = run.start();
    run.value("leader").await;
    let file = std::fs::symlink_metadata(run.script_path()).expect("it is there");
    assert_eq!(file.permissions().mode() & 0o7777, 0o700);
    assert_eq!(file.uid(), rustix::process::getuid().as_raw());
    assert!(file.is_file());
    run.ask_to_stop();
    task.await.expect("no panic");
    run.check_scratch_is_empty();
}

async fn check_broke(run: &Run, want: &[&str]) {
    match run.execute().await {
        Outcome::Broke { info } => {
            for want in want {
                assert!(info.contains(want), "want `{want}` in: {info}");
            }
        }
        other => panic!("want {want:?}, got {other:?}"),
    }
}

#[tokio::test]
async fn a_file_in_the_scripts_place_is_neither_used_nor_touched() {
    let run = Run::new("echo mine");
    std::fs::write(run.script_path(), "echo theirs").expect("written");
    check_broke(&run, &["script", "EEXIST"]).await;
    assert_eq!(std::fs::read(run.script_path()).expect("still there"), b"echo theirs");

    let run = Run::new("echo mine");
    let target = run.scratch.path().join("target");
    std::os::unix::fs::symlink(&target, run.script_path()).expect("linked");
    check_broke(&run, &["EEXIST"]).await;
    assert!(!target.exists());

    let run = Run::new("echo mine");
    std::fs::remove_dir(run.scratch.path()).expect("removed");
    check_broke(&run, &["script", "ENOENT"]).await;
}

#[tokio::test]
async fn a_script_that_cannot_be_written_names_the_folder() {
    let run = Run::new("echo mine");
    std::fs::remove_dir(run.scratch.path()).expect("removed");
    check_broke(&run, &[&format!("in `{}`: ENOENT", run.scratch.path().display())]).await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    async fn check(script: &str, executor: ProcessExecutor, want: &[&str]) {
        let run = Run::new(script).executor(executor);
        check_broke(&run, want).await;
        run.check_scratch_is_empty();
    }
    let plain = ProcessExecutor::new;
    check(":", plain().env("X", "x".repeat(1 << 20)), &["E2BIG"]).await;
    check(":", plain().env("X", "a\0b"), &["nul byte"]).await;
}

#[tokio::test]
async fn what_is_to_run_a_script_and_is_no_program_does_not_suit() {
    async fn check(script: &str, executor: ProcessExecutor, want: &[&str]) {
        let (outcome, output) = Run::new(script).executor(executor).finish().await;
        let Outcome::Unsuitable { code, info } = outcome else { panic!("{script}: {outcome:?}") };
        assert_eq!((code, text(&output).as_str()), ("LauncherNotFound", ""), "{info}");
        for want in want {
            assert!(info.contains(want), "want `{want}` in: {info}");
        }
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o700)).expect("set");
    let no_program = file.into_temp_path();
    let no_program = no_program.to_str().expect("plain text");

    let plain = ProcessExecutor::new;
    check("#!/no/such/thing -x\n", plain(), &["`/no/such/thing`", "ENOENT"]).await;
    check("#!sh\n", plain(), &["`./sh`", "ENOENT"]).await;
    check("#!/tmp\n", plain(), &["`/tmp`", "EACCES"]).await;
    check("#!/etc/passwd\n", plain(), &["`/etc/passwd`", "EACCES"]).await;
    check(&format!("#!{no_program}\n"), plain(), &[no_program, "ENOEXEC"]).await;
    check("#!\necho 1", plain(), &["#!", "ENOEXEC"]).await;
    check(":", plain().shell("no-such-shell"), &["`no-such-shell`", "PATH", "ENOENT"]).await;
    check(":", plain().shell("/no/such/shell"), &["`/no/such/shell`", "ENOENT"]).await;
    check(":", plain().env("PATH", "/nowhere"), &["`sh`", "PATH", "ENOENT"]).await;
}

#[tokio::test]
async fn windows_line_ends_and_byte_order_marks_are_named() {
    async fn check(script: &str, want: &str) {
        let (outcome, output) = Run::new(script).finish().await;
        let Outcome::Unsuitable { code, info } = outcome else { panic!("{script}: {outcome:?}") };
        assert_eq!((code, text(&output).as_str()), ("LauncherNotFound", ""), "{info}");
        assert!(info.contains(want), "{info}");
    }
    check("#!/bin/sh\r\necho 1\r\n", "Windows line ends: its `#!` line names `/bin/sh\\r`: ENOENT")
        .await;
    check("\u{feff}#!/bin/sh\necho 1\n", "a UTF-8 byte order mark precedes the `#!` line").await;
    check("\u{feff}echo 1\n", "begins with a UTF-8 byte order mark").await;
    check("cd /tmp\r\necho 1\r\n", "Windows line ends (CR LF)").await;
    check("#!/usr/bin/env sh\r\necho 1\r\n", "Windows line ends: the argument").await;
    check("e\0c\0h\0o\0", "UTF-16").await;
}

#[tokio::test]
async fn line_ends_in_the_value_of_a_parameter_keep_no_script_from_starting() {
    for (template, value, want) in [
        ("printf %s '{{v}}'", "a\r\nb", "a\r\nb"),
        ("printf %s '{{v}}'\necho\n", "\r\n", "\r\n\n"),
        ("{{v}}echo 1\n", "# A comment.\r\n", "1\n"),
    ] {
        let mut run = Run::new(template);
        run.filled = Some(template.replace("{{v}}", value));
        let (outcome, output) = run.finish().await;
        assert_eq!((outcome, text(&output).as_str()), (Outcome::Exited(0), want), "{template}");
    }
}

const FEW_DESCRIPTORS: u64 = 64;

#[tokio::test]
async fn a_shortage_of_descriptors_breaks_runs_cleanly() {
    if has_few_descriptors("a_shortage_of_descriptors_breaks_runs_cleanly") {
        with_ever_more_descriptors().await;
    }
}

#[tokio::test]
async fn a_stop_finds_more_strays_than_there_are_descriptors() {
    if has_few_descriptors("a_stop_finds_more_strays_than_there_are_descriptors") {
        for (ignored, is_killed) in [("", false), ("trap '' TERM;", true)] {
            with_many_strays(ignored, is_killed).await;
        }
    }
}

#[tokio::test]
async fn without_a_look_the_group_is_stopped() {
    if has_few_descriptors("without_a_look_the_group_is_stopped") {
        for (ignored, is_killed) in [("", false), ("trap '' TERM;", true)] {
            without_a_look(ignored, is_killed).await;
        }
    }
}

/// Whether this process has few descriptors. If not, `test` needs a process of its own, which this
/// starts: that test again, with few of them.
fn has_few_descriptors(test: &str) -> bool {
    use rustix::process::{Resource, getrlimit};
    if getrlimit(Resource::Nofile).current.is_some_and(|limit| limit <= FEW_DESCRIPTORS) {
        return true;
    }
    let module = module_path!().split_once("::").expect("inside the crate").1;
    let run = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -n {FEW_DESCRIPTORS}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", &format!("{module}::{test}")])
        .output()
        .expect("it runs");
    let printed = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && printed.contains("1 passed"), "{printed}");
    false
}

async fn with_many_strays(ignored: &str, is_killed: bool) {
    let script = format!(
        "{ignored} while [ ${{n:=0}} -lt 100 ]; do n=$((n+1)); setsid sleep 100 & all=\"$all $!\"; done; \
         echo strays=$all; wait"
    );
    let mut run = Run::new(script);
    let task = run.start();
    let strays = run.value("strays").await;
    let strays = strays.split_whitespace().map(|pid| Pid::from_raw(pid.parse().expect("a pid")));
    let strays: Vec<Pid> = strays.map(|pid| pid.expect("a pid")).collect();
    assert_eq!(strays.len(), 100);
    let look_at = |pid: &Pid| census::look_at(*pid).expect("/proc");
    for stray in &strays {
        while look_at(stray).expect("it lives").name != "sleep" {
            tokio::task::yield_now().await;
        }
    }
    run.ask_to_stop();
    if is_killed {
        run.clock.sleeping(1).await;
        run.clock.advance(GRACE);
    }
    let outcome = task.await.expect("no panic");
    let Outcome::Stopped { info, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(strays.iter().filter_map(look_at).collect::<Vec<_>>(), [], "{info}");
    // Those and their leader; twenty are named.
    assert_eq!(info.ends_with(" and 81 more"), is_killed, "{info}");
    assert_eq!(info.is_empty(), !is_killed, "{info}");
}

async fn without_a_look(ignored: &str, is_killed: bool) {
    let script = format!(
        "setsid sh -c 'echo stray=$$; exec sleep 1000 >/dev/null 2>&1' & {ignored} sleep 1000 & echo child=$!; \
         echo leader=$$; wait; wait; wait"
    );
    let mut run = Run::new(script);
    let task = run.start();
    let stray = run.process("stray").await;
    let (leader, child) = (run.process("leader").await, run.process("child").await);
    child.becomes("sleep").await;
    // It has let go of the pipes then.
    stray.becomes("sleep").await;
    let hoard: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    run.ask_to_stop();
    run.clock.sleeping(1).await;
    if !is_killed {
        leader.ended().await;
        child.ended().await;
    }
    run.clock.advance(GRACE);
    let outcome = task.await.expect("no panic");
    drop(hoard);
    let Outcome::Stopped { info, .. } = outcome else { panic!("{outcome:?}") };
    child.ended().await;
    assert!(stray.lives());
    assert!(info.contains("what had left the group could not be looked for: EMFILE"), "{info}");
    assert_eq!(info.contains(&format!("SIGKILL to end {} (", leader.pid)), is_killed, "{info}");
}

async fn with_ever_more_descriptors() {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let mut broken = 0;
    for free in 0.. {
        let run = Run::new("exit 3");
        let mut hoard: Vec<_> =
            std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        hoard.truncate(hoard.len() - free);
        let outcome = run.execute().await;
        drop(hoard);
        run.check_scratch_is_empty();
        // Nothing was left running, and no zombie for longer than it takes to reap it.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::All, look).is_ok() {
            tokio::task::yield_now().await;
        }
        match outcome {
            Outcome::Broke { info } => assert!(info.contains("EMFILE"), "{info}"),
            outcome => {
                assert_eq!(outcome, Outcome::Exited(3));
                break;
            }
        }
        broken += 1;
    }
    // The script, an empty input, two pipes: none of them is to be had for nothing.
    assert!(broken > 4, "{broken}");
}

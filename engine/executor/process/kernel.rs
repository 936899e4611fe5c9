//! The only unsafe code of this library: posix_spawn(3), execve(2), wait4(2), getrusage(2), sigaction(2),
//! sigwaitinfo(2), kill(2), keyctl(2), the signals that a thread blocks, its priorities and its mask, and having a
//! descriptor watched by the runtime; no safe crate offers them as they are needed here.
//!
//! A process is made with `posix_spawn`, which lends it the host's memory until it runs its program: so
//! the size of the host costs nothing, and between the two only the C library's own code runs.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::ptr;
use std::thread;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::environment;
use super::order::Start;

/// What a process and the children it has waited for have used, as the kernel counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rusage {
    pub user: Duration,
    pub system: Duration,
    /// The most memory it had at a time. The kernel counts what it was lent before it ran its program.
    pub max_rss_bytes: u64,
}

/// Starts a process that leads a session and a process group of its own, in a directory of its own. It
/// has these three descriptors and no others, and takes every signal as the system has it by default.
///
/// # Errors
///
/// That of the step that failed: making the process, entering the directory, running the program.
/// `EINVAL` for a text with a NUL in it.
pub(super) fn spawn(start: &Start, stdio: [OwnedFd; 3]) -> io::Result<Pid> {
    let Program { path, arguments, variables } = Program::new(start)?;
    let dir = c_string(start.dir.as_os_str())?;
    let stdio = stdio.map(above_stdio);
    let mut actions = Actions::new()?;
    for (number, fd) in (0..).zip(stdio) {
        actions.duplicate(fd?, number)?;
    }
    actions.close_from(3)?;
    actions.change_dir(&dir)?;
    let attributes = Attributes::new()?;
    let mut pid = 0;
    // SAFETY: all pointers are to live objects that were initialised by the calls made for that, and
    // both lists of texts end with a null pointer.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            path.as_ptr(),
            actions.get(),
            attributes.get(),
            arguments.as_ptr(),
            variables.as_ptr(),
        )
    })?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("a process without a number"))
}

/// Makes this process a program. Returns only if that fails. SIGPIPE and SIGXFSZ are set to the system's default,
/// because Rust ignores the former and [`set_up_signals`] the latter. A file that is no program is not given to a
/// shell, unlike with execvp(3).
pub(super) fn execute(start: &Start) -> io::Error {
    let Program { path, arguments, variables } = match Program::new(start) {
        Ok(program) => program,
        Err(error) => return error,
    };
    // SAFETY: all pointers are to live texts, and both lists of them end with a null pointer; the default
    // action is no code of this program's.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::signal(libc::SIGXFSZ, libc::SIG_DFL);
        libc::execve(path.as_ptr(), arguments.as_ptr().cast(), variables.as_ptr().cast());
    }
    io::Error::last_os_error()
}

/// Gives this thread, and programs that it becomes or starts, a session keyring of their own, which is empty: whoever
/// has a keyring may use the keys in it. Nothing happens if the system has no keyrings, or lets this thread use none.
///
/// # Errors
///
/// If the thread can use keyrings, and has to keep the keyring that it has.
pub(super) fn leave_session_keyring() -> io::Result<()> {
    const GET_KEYRING_ID: c_int = 0;
    const JOIN_SESSION_KEYRING: c_int = 1;
    const SESSION_KEYRING: c_int = -3;
    let call = |operation: c_int, keyring: Option<c_int>| {
        // The kernel takes five arguments, of which the operation tells how many it reads.
        let keyring = libc::c_long::from(keyring.unwrap_or_default());
        // SAFETY: these operations take numbers, and a name, for which null means none.
        match unsafe { libc::syscall(libc::SYS_keyctl, operation, keyring, 0, 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    match call(JOIN_SESSION_KEYRING, None) {
        // A filter of system calls may refuse what it does not know. A filter stays with all that a process starts.
        Err(error) if call(GET_KEYRING_ID, Some(SESSION_KEYRING)).is_ok() => Err(error),
        _ => Ok(()),
    }
}

/// Has this thread, and the program that it becomes, share the processor with others, if it had a real-time policy.
pub(super) fn schedule_as_others() -> io::Result<()> {
    const OTHERS: [c_int; 3] = [libc::SCHED_OTHER, libc::SCHED_BATCH, libc::SCHED_IDLE];
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a live object, which the kernel only reads.
    let done = unsafe {
        if OTHERS.contains(&libc::sched_getscheduler(0)) {
            return Ok(());
        }
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const param)
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes from this thread, and the program that it becomes, the priority for disks that it may have.
pub(super) fn reset_io_priority() -> io::Result<()> {
    const WHO_PROCESS: c_int = 1;
    // SAFETY: both calls take numbers.
    let done = unsafe {
        match libc::syscall(libc::SYS_ioprio_get, WHO_PROCESS, 0) {
            // None, or a kernel or a filter that knows no such priority.
            0 | -1 => return Ok(()),
            _ => libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, 0),
        }
    };
    if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Does `work` on a thread that has this mask for the modes of files; so have processes that it starts. The mask of
/// this process stays as it is.
///
/// # Errors
///
/// If there is no thread, or none may have a mask of its own.
pub(super) fn masked<T: Send>(mask: Mode, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let work = move || {
            // SAFETY: the call takes a number. It gives this thread a mask and a current folder of its own.
            if unsafe { libc::unshare(libc::CLONE_FS) } == -1 {
                return Err(io::Error::last_os_error());
            }
            rustix::process::umask(mask);
            Ok(work())
        };
        let thread = thread::Builder::new().name("adjutant-spawn".into());
        let ended = thread.spawn_scoped(scope, work)?.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread that starts processes panicked")))
    })
}

/// Undoes changes that the parent of this program may have made to its signals. Afterwards the system reports the
/// ends of children, no signal is blocked in this thread and in threads that it starts, and a limit on the size of
/// files is an error of a write, not the end of this program. Signals that have a handler keep it.
pub(super) fn set_up_signals() {
    if ends_are_lost().is_some() {
        change_action(libc::SIGCHLD, |action| {
            if action.sa_sigaction == libc::SIG_IGN {
                action.sa_sigaction = libc::SIG_DFL;
            }
            action.sa_flags &= !libc::SA_NOCLDWAIT;
        });
    }
    change_action(libc::SIGXFSZ, |action| {
        if action.sa_sigaction == libc::SIG_DFL {
            action.sa_sigaction = libc::SIG_IGN;
        }
    });
    let mut none = MaybeUninit::uninit();
    // SAFETY: the set is initialised by one call before the next one reads it.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// The signals of this process, which wait to be taken one by one.
pub(super) struct Signals(libc::sigset_t);

/// A signal that was taken.
pub(super) struct Received {
    /// Real-time signals have numbers only.
    pub number: c_int,
    /// Whether a process has sent it, and not the terminal or the kernel.
    pub is_sent: bool,
}

/// Has all signals for this process wait until they are taken. Because programs that `std` starts have the same signals
/// blocked, [`unblock_in`] is for them.
///
/// # Errors
///
/// If the system refuses.
pub(super) fn take_signals() -> io::Result<Signals> {
    let mut all = MaybeUninit::uninit();
    // SAFETY: the set is initialised by one call before the next one reads it.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        check(libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), ptr::null_mut()))?;
        Ok(Signals(all.assume_init()))
    }
}

impl Signals {
    /// Waits for the next signal.
    pub(super) fn next(&self) -> io::Result<Received> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        loop {
            // SAFETY: both pointers are to live objects; the call fills in the second unless it fails.
            let (number, code) = unsafe {
                (
                    libc::sigwaitinfo(&raw const self.0, info.as_mut_ptr()),
                    info.assume_init().si_code,
                )
            };
            if number > 0 {
                return Ok(Received { number, is_sent: code <= 0 });
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// Has a program start with no signal blocked, also while this thread has signals blocked.
pub(super) fn unblock_in(program: &mut Command) {
    let unblock = || {
        let mut none = MaybeUninit::uninit();
        // SAFETY: the set is initialised by one call before the next one reads it.
        check(unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut())
        })
    };
    // SAFETY: between fork(2) and execve(2) the closure makes only calls that are safe in a handler of signals.
    unsafe { program.pre_exec(unblock) };
}

/// Sends a signal by its number, which may be that of a real-time signal.
///
/// # Errors
///
/// If there is no such process or signal, or this process has not the right.
pub(super) fn send(to: Pid, signal: c_int) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    match unsafe { libc::kill(to.as_raw_nonzero().get(), signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns why the system does not report how the children of this process end; `None` if it does.
pub(super) fn ends_are_lost() -> Option<&'static str> {
    let action = action_of(libc::SIGCHLD)?;
    if action.sa_sigaction == libc::SIG_IGN {
        Some("SIGCHLD is ignored")
    } else if action.sa_flags & libc::SA_NOCLDWAIT != 0 {
        Some("SIGCHLD has the flag SA_NOCLDWAIT")
    } else {
        None
    }
}

/// Returns the action of this process at a signal; `None` if the number is no signal.
fn action_of(signal: c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::zeroed();
    // SAFETY: without a new action the call only fills in the given action, and does so unless it fails.
    unsafe {
        (libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0)
            .then(|| action.assume_init())
    }
}

fn change_action(signal: c_int, change: impl FnOnce(&mut libc::sigaction)) {
    if let Some(mut action) = action_of(signal) {
        change(&mut action);
        // SAFETY: the action is the one that the system returned, or one without code of this program.
        unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    }
}

/// A descriptor that is none of the three which the process gets: a host that has closed its own gets
/// such numbers for whatever it opens.
fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 {
        return Ok(fd);
    }
    Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?)
}

/// Has the runtime watch for when a descriptor can be read.
pub(super) fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, and has one number all the while.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Whether a child has ended, its status not taken.
///
/// # Errors
///
/// `ECHILD` if there is no such child, or somebody else has taken its status.
pub(super) fn has_ended(pid: Pid) -> io::Result<bool> {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(rustix::process::waitid(WaitId::Pid(pid), look)?.is_some())
}

/// Takes the exit status of a child that has ended, and what it has used; none if it has not ended.
///
/// # Errors
///
/// `ECHILD` if there is no such child, or somebody else has taken its status.
pub(super) fn try_wait(pid: Pid) -> io::Result<Option<(ExitStatus, Rusage)>> {
    let mut status: c_int = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let waited = loop {
        // SAFETY: both pointers are to live objects of the types that the call fills in.
        let waited = unsafe {
            libc::wait4(
                pid.as_raw_nonzero().get(),
                &raw mut status,
                libc::WNOHANG,
                usage.as_mut_ptr(),
            )
        };
        if waited >= 0 {
            break waited;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    // SAFETY: plain numbers, for which zero is a value too.
    let usage = unsafe { usage.assume_init() };
    Ok((waited > 0).then(|| (ExitStatus::from_raw(status), Rusage::from(usage))))
}

/// Some child that has ended and whose status nobody has taken, this included; none if there is none.
pub(super) fn ended_child() -> Option<Pid> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a live object of the type that the call fills in; where it leaves zeros,
    // so does the kernel. What a child tells of itself has its number.
    let pid = unsafe {
        match libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), how) {
            0 => info.assume_init().si_pid(),
            _ => 0,
        }
    };
    Pid::from_raw(pid)
}

/// Whether this program was given rights that whoever started it does not have: as a file with a set-user-ID
/// bit or capabilities.
pub(super) fn has_more_rights_than_caller() -> bool {
    // SAFETY: the call reads what the kernel has put into this process before it began.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// What this process itself has used.
pub(super) fn own_usage() -> Rusage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a live object of the type that the call fills in; it cannot fail for
    // these arguments, and zeros are a value too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    Rusage::from(usage)
}

impl From<libc::rusage> for Rusage {
    fn from(usage: libc::rusage) -> Self {
        let time = |time: libc::timeval| {
            let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
            seconds + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or_default())
        };
        Self {
            user: time(usage.ru_utime),
            system: time(usage.ru_stime),
            max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or_default().saturating_mul(1024),
        }
    }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

/// These calls return the number of their error rather than to set `errno`.
fn check(error: c_int) -> io::Result<()> {
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// What is to be run, as `execve` takes it.
struct Program {
    path: CString,
    arguments: Texts,
    variables: Texts,
}

impl Program {
    fn new(start: &Start) -> io::Result<Self> {
        let path = c_string(start.program.as_os_str())?;
        let arguments = start.arguments.iter().map(|argument| c_string(argument));
        let name = c_string(start.name.as_os_str());
        let arguments = Texts::new(std::iter::once(name).chain(arguments))?;
        let variables = environment::in_order(&start.environment).map(|(key, value)| {
            c_string(&[key.as_os_str(), value.as_os_str()].join(OsStr::new("=")))
        });
        let variables = Texts::new(variables)?;
        Ok(Self { path, arguments, variables })
    }
}

/// Texts as `execve` takes them.
struct Texts {
    /// Into `_texts`, and a null pointer.
    pointers: Vec<*mut c_char>,
    _texts: Vec<CString>,
}

impl Texts {
    fn new(texts: impl Iterator<Item = io::Result<CString>>) -> io::Result<Self> {
        let texts = texts.collect::<io::Result<Vec<_>>>()?;
        let pointers = texts.iter().map(|text| text.as_ptr().cast_mut());
        Ok(Self { pointers: pointers.chain([ptr::null_mut()]).collect(), _texts: texts })
    }

    fn as_ptr(&self) -> *const *mut c_char {
        self.pointers.as_ptr()
    }
}

/// What the new process does before it runs its program.
struct Actions {
    actions: libc::posix_spawn_file_actions_t,
    /// What they name has to be open until then.
    open: Vec<OwnedFd>,
}

impl Actions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises what the pointer is to, unless it fails.
        let actions = unsafe {
            check(libc::posix_spawn_file_actions_init(actions.as_mut_ptr()))?;
            actions.assume_init()
        };
        Ok(Self { actions, open: Vec::with_capacity(3) })
    }

    fn duplicate(&mut self, fd: OwnedFd, number: c_int) -> io::Result<()> {
        // SAFETY: the actions are initialised.
        check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&raw mut self.actions, fd.as_raw_fd(), number)
        })?;
        self.open.push(fd);
        Ok(())
    }

    fn close_from(&mut self, number: c_int) -> io::Result<()> {
        // SAFETY: the actions are initialised.
        check(unsafe {
            libc::posix_spawn_file_actions_addclosefrom_np(&raw mut self.actions, number)
        })
    }

    fn change_dir(&mut self, dir: &CStr) -> io::Result<()> {
        // SAFETY: the actions are initialised; the call copies the text.
        check(unsafe {
            libc::posix_spawn_file_actions_addchdir_np(&raw mut self.actions, dir.as_ptr())
        })
    }

    fn get(&self) -> *const libc::posix_spawn_file_actions_t {
        &raw const self.actions
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: they were initialised, and nobody uses them any more.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.actions) };
    }
}

/// A session of its own; no signal blocked or ignored, whatever the host does with them.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        const FLAGS: c_int = libc::POSIX_SPAWN_SETSID as c_int
            | libc::POSIX_SPAWN_SETSIGDEF
            | libc::POSIX_SPAWN_SETSIGMASK;
        let mut attributes = MaybeUninit::uninit();
        let mut signals = MaybeUninit::uninit();
        // SAFETY: each object is initialised by a call before it is read by another.
        unsafe {
            check(libc::posix_spawnattr_init(attributes.as_mut_ptr()))?;
            let mut attributes = Self(attributes.assume_init());
            libc::sigfillset(signals.as_mut_ptr());
            check(libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, signals.as_ptr()))?;
            libc::sigemptyset(signals.as_mut_ptr());
            check(libc::posix_spawnattr_setsigmask(&raw mut attributes.0, signals.as_ptr()))?;
            check(libc::posix_spawnattr_setflags(&raw mut attributes.0, FLAGS as c_short))?;
            Ok(attributes)
        }
    }

    fn get(&self) -> *const libc::posix_spawnattr_t {
        &raw const self.0
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: they were initialised, and nobody uses them any more.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the set of signals with this name in the status of a process.
    fn signals_in(status: &str, name: &str) -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is there");
        u64::from_str_radix(line.trim(), 16).expect("a set of signals")
    }

    #[test]
    fn a_program_starts_with_no_signal_blocked_and_real_time_signals_are_taken() {
        // On a thread of its own, whose mask is no other test's.
        let done = thread::spawn(|| {
            let signals = take_signals().expect("all signals are blocked");
            let mut program = Command::new("cat");
            program.arg("/proc/self/status");
            unblock_in(&mut program);
            let status = program.output().expect("it ends").stdout;
            let status = String::from_utf8(status).expect("UTF-8");
            assert_eq!(signals_in(&status, "SigBlk:"), 0);
            let number = libc::SIGRTMIN() + 3;
            // SAFETY: the call takes numbers; the thread is this one.
            assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), number) }, 0);
            let mut taken = signals.next().expect("a signal");
            // The ends of children of other tests are taken here too, which nobody misses.
            while taken.number == libc::SIGCHLD {
                taken = signals.next().expect("a signal");
            }
            assert_eq!((taken.number, taken.is_sent), (number, true));
            let own = rustix::process::getpid();
            send(own, 0).expect("this process is there");
            assert_eq!(
                send(own, 1_000).expect_err("no signal").kind(),
                io::ErrorKind::InvalidInput
            );
        });
        done.join().expect("no panic");
    }
}

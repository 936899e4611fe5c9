//! A thread that looks at processes. The kernel lets the reader of an environment wait for the process whose
//! environment it is, for as long as that process likes. So no thread of the host's runtime reads one, only processes
//! are asked that a user could have started, and there is a thread for each such user: nobody can hold up looks at the
//! processes of others. A process that does not answer in time is not asked again before that answer has come. The next
//! look takes the late answer, so one pause of a process, or of the host, does not hide the process for good.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use tokio::sync::oneshot::{self, Receiver, Sender};

use super::{Asked, Census, Process};
use crate::executor::process::environment::Mark;

/// The longest time for the answer of one process, of the machine's own time. An answer takes some microseconds.
const ANSWER_MAX: Duration = Duration::from_millis(100);
/// How often a caller looks whether a process answers.
const LOOK_AGAIN: Duration = Duration::from_millis(25);
/// Threads of one user that wait for processes which do not answer. Beyond this number none of the user's processes is
/// asked.
const STUCK_MAX: usize = 8;
/// The time after which a thread without work ends.
const IDLE_MAX: Duration = Duration::from_secs(5);

type Count = dyn Fn(&dyn Ask) -> io::Result<Census> + Send + Sync;

/// What a desk looks at.
pub(super) struct Sources {
    /// Returns a process that may be asked.
    pub find: Box<dyn Fn(Pid) -> io::Result<Option<Process>> + Send + Sync>,
    /// Reads the mark in the environment of a process.
    pub read: Box<dyn Fn(Pid) -> io::Result<Option<Mark>> + Send + Sync>,
    /// Counts the processes, and asks each that may be asked for its mark.
    pub count: Box<Count>,
}

/// Asks a process for its mark.
pub(super) trait Ask {
    /// # Errors
    ///
    /// [`NoMark::Silence`] if the process does not answer, or if too many do not.
    fn mark_of(&self, process: &Process) -> Result<Option<Mark>, NoMark>;
}

/// Why the mark of a process is not known.
pub(super) enum NoMark {
    /// The process does not answer.
    Silence,
    /// The process cannot be read, such as for want of descriptors.
    Error(io::Error),
    /// Another thread has taken over.
    TakenOver,
}

/// The thread for the processes of one user, and its work.
pub(super) struct Desk {
    sources: Sources,
    state: Mutex<State>,
    has_work: Condvar,
}

#[derive(Default)]
struct State {
    /// The number of the thread that works. Threads with other numbers wait for a process.
    thread: u64,
    has_thread: bool,
    /// Callers that want a census. A census that has been begun is of no use to them.
    counted_for: Vec<Sender<io::Result<Arc<Census>>>>,
    /// Other looks, in order. Each belongs to a run that has ended, so there are no more looks than runs.
    looks: VecDeque<Look>,
    /// The work of the thread.
    in_hand: Option<Work>,
    /// The process that the thread asks.
    asking: Option<(Pid, u64, Instant)>,
    /// Processes that do not answer, each by its number and its start.
    silent: HashSet<(Pid, u64)>,
    /// Answers that have come late, each for the next look at its process.
    late: HashMap<(Pid, u64), Option<Mark>>,
    stuck: usize,
}

/// A look for a process with this mark among a few.
struct Look {
    among: Vec<Pid>,
    mark: Mark,
    tell: Sender<io::Result<bool>>,
}

enum Work {
    Count(Vec<Sender<io::Result<Arc<Census>>>>),
    Look(Look),
}

static DESKS: LazyLock<Mutex<HashMap<Asked, Arc<Desk>>>> = LazyLock::new(Mutex::default);
/// Desks that are kept. There is one for each user that has runs.
const DESKS_MAX: usize = 256;

impl Desk {
    fn new(sources: Sources) -> Self {
        Self { sources, state: Mutex::default(), has_work: Condvar::new() }
    }

    /// Returns the desk for these processes.
    pub(super) fn of(asked: Asked) -> Arc<Self> {
        let mut desks = DESKS.lock().unwrap_or_else(PoisonError::into_inner);
        if desks.len() >= DESKS_MAX {
            desks.retain(|_, desk| desk.state().is_used());
        }
        let new = || {
            Arc::new(Self::new(Sources {
                find: Box::new(move |pid| super::find(pid, asked)),
                read: Box::new(super::mark_of),
                count: Box::new(move |ask| super::count(asked, ask)),
            }))
        };
        Arc::clone(desks.entry(asked).or_insert_with(new))
    }

    /// Returns a census that was begun after this call.
    pub(super) async fn count(self: &Arc<Self>) -> io::Result<Arc<Census>> {
        let (tell, told) = oneshot::channel();
        self.submit(|state| state.counted_for.push(tell))?;
        self.answer(told).await
    }

    /// Returns whether one of these processes has this mark.
    pub(super) async fn has_mark(
        self: &Arc<Self>,
        among: Vec<Pid>,
        mark: Mark,
    ) -> io::Result<bool> {
        let (tell, told) = oneshot::channel();
        self.submit(|state| state.looks.push_back(Look { among, mark, tell }))?;
        self.answer(told).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(self: &Arc<Self>, add: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = self.state();
        add(&mut state);
        if !state.has_thread {
            self.start_thread(&mut state)?;
        }
        self.has_work.notify_one();
        Ok(())
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        state.thread += 1;
        let (desk, number) = (Arc::clone(self), state.thread);
        let thread = thread::Builder::new().name("adjutant-census".into());
        let started = thread.spawn(move || desk.work(number));
        state.has_thread = started.is_ok();
        started.map(drop)
    }

    /// Waits for the answer to a caller; sees to it that a process which does not answer holds it up only for a moment.
    async fn answer<T>(self: &Arc<Self>, mut told: Receiver<io::Result<T>>) -> io::Result<T> {
        loop {
            match tokio::time::timeout(LOOK_AGAIN, &mut told).await {
                Ok(told) => return told.map_err(io::Error::other)?,
                Err(_) => self.pass_over_silent()?,
            }
        }
    }

    /// Has another thread go on without the process that the thread waits for, if it has waited long enough.
    fn pass_over_silent(self: &Arc<Self>) -> io::Result<()> {
        let mut state = self.state();
        let Some((pid, started, since)) = state.asking else { return Ok(()) };
        if since.elapsed() < ANSWER_MAX {
            return Ok(());
        }
        state.asking = None;
        state.silent.insert((pid, started));
        state.stuck += 1;
        match state.in_hand.take() {
            Some(Work::Count(tell)) => state.counted_for.extend(tell),
            Some(Work::Look(look)) => state.looks.push_front(look),
            None => {}
        }
        self.start_thread(&mut state)
    }

    /// What a thread does, until there is no work, or another thread has taken over.
    fn work(&self, number: u64) {
        while let Some(look) = self.next(number) {
            let ask = Asker { desk: self, number };
            let done = match look {
                None => (self.sources.count)(&ask).map(Done::Counted),
                Some((among, mark)) => Ok(Done::Looked(ask.has_mark(&among, mark))),
            };
            let mut state = self.state();
            if state.thread != number {
                // The process that this thread has waited for has answered, or ended.
                state.stuck = state.stuck.saturating_sub(1);
                return;
            }
            let work = state.in_hand.take();
            if let Ok(Done::Counted(census)) = &done {
                let is_there = |(pid, started): &(Pid, u64)| {
                    census.processes.get(pid).is_some_and(|process| process.started == *started)
                };
                state.silent.retain(is_there);
                state.late.retain(|known_by, _| is_there(known_by));
            }
            drop(state);
            // A caller that has gone needs no answer.
            match (work, done) {
                (Some(Work::Count(callers)), Ok(Done::Counted(census))) => {
                    let census = Arc::new(census);
                    callers.into_iter().for_each(|tell| drop(tell.send(Ok(Arc::clone(&census)))));
                }
                (Some(Work::Count(callers)), Err(error)) => {
                    callers.into_iter().for_each(|tell| drop(tell.send(Err(copy(&error)))));
                }
                (Some(Work::Look(look)), Ok(Done::Looked(found))) => drop(look.tell.send(found)),
                _ => {}
            }
        }
    }

    /// Waits for work. Returns the processes to look at and the mark to look for, or nothing where all are to be
    /// counted; `None` if this thread is to end.
    #[allow(clippy::option_option)]
    fn next(&self, number: u64) -> Option<Option<(Vec<Pid>, Mark)>> {
        let mut state = self.state();
        loop {
            if state.thread != number {
                return None;
            }
            state.counted_for.retain(|tell| !tell.is_closed());
            if !state.counted_for.is_empty() {
                state.in_hand = Some(Work::Count(std::mem::take(&mut state.counted_for)));
                return Some(None);
            }
            if let Some(look) = state.looks.pop_front() {
                let wanted = (look.among.clone(), look.mark);
                state.in_hand = Some(Work::Look(look));
                return Some(Some(wanted));
            }
            let waited = self.has_work.wait_timeout(state, IDLE_MAX);
            let (again, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = again;
            if timeout.timed_out() && !state.has_work() && state.thread == number {
                state.has_thread = false;
                return None;
            }
        }
    }
}

impl State {
    fn has_work(&self) -> bool {
        !self.counted_for.is_empty() || !self.looks.is_empty()
    }

    fn is_used(&self) -> bool {
        self.has_thread || self.stuck > 0 || self.has_work()
    }
}

enum Done {
    Counted(Census),
    Looked(io::Result<bool>),
}

/// Asks processes for a thread with this number.
struct Asker<'a> {
    desk: &'a Desk,
    number: u64,
}

impl Asker<'_> {
    /// Returns whether one of these processes has this mark; an error if one of them does not answer and none of the
    /// others has the mark.
    fn has_mark(&self, among: &[Pid], mark: Mark) -> io::Result<bool> {
        let mut refusal = None;
        for pid in among {
            let Some(process) = (self.desk.sources.find)(*pid)? else { continue };
            match self.mark_of(&process) {
                Ok(Some(of)) if of == mark => return Ok(true),
                Ok(_) => {}
                Err(NoMark::Silence | NoMark::TakenOver) => {
                    refusal = Some(io::ErrorKind::TimedOut.into());
                }
                Err(NoMark::Error(error)) => refusal = Some(error),
            }
        }
        refusal.map_or(Ok(false), Err)
    }
}

impl Ask for Asker<'_> {
    fn mark_of(&self, process: &Process) -> Result<Option<Mark>, NoMark> {
        let known_by = (process.pid, process.started);
        {
            let mut state = self.desk.state();
            if state.thread != self.number {
                return Err(NoMark::TakenOver);
            }
            if state.stuck >= STUCK_MAX || state.silent.contains(&known_by) {
                return Err(NoMark::Silence);
            }
            if let Some(mark) = state.late.remove(&known_by) {
                return Ok(mark);
            }
            state.asking = Some((process.pid, process.started, Instant::now()));
        }
        let mark = (self.desk.sources.read)(process.pid);
        let mut state = self.desk.state();
        if state.thread != self.number {
            // If the read has failed, the next look reads again.
            if state.silent.remove(&known_by)
                && let Ok(mark) = mark
            {
                state.late.insert(known_by, mark);
            }
            return Err(NoMark::TakenOver);
        }
        state.asking = None;
        mark.map_err(NoMark::Error)
    }
}

/// Returns the same error for another caller.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;
    use crate::id::ExecutionId;

    fn process(number: i32) -> Process {
        Process {
            pid: Pid::from_raw(number).expect("a pid"),
            parent: None,
            group: None,
            started: 5,
            name: format!("process {number}"),
            mark: None,
        }
    }

    fn mark(number: i32) -> Mark {
        Mark::new(1, ExecutionId(i64::from(number)), 1)
    }

    /// A desk among processes with these numbers, of which those above 100 answer only once the channel is closed.
    fn desk(numbers: &'static [i32], answers: Receiver<()>) -> Arc<Desk> {
        let answers = Mutex::new(answers);
        let read = move |pid: Pid| {
            let number = pid.as_raw_nonzero().get();
            if number > 100 {
                // The lock is not held while the process is waited for, so that each waits by itself.
                while answers.lock().expect("no panic").try_recv()
                    != Err(std::sync::mpsc::TryRecvError::Disconnected)
                {
                    thread::yield_now();
                }
            }
            Ok(Some(mark(number)))
        };
        let count = |ask: &dyn Ask| {
            super::super::among(numbers.iter().map(|number| Ok(process(*number))), ask)
        };
        let find = |pid: Pid| Ok(Some(process(pid.as_raw_nonzero().get())));
        let (find, read, count) = (Box::new(find), Box::new(read), Box::new(count));
        Arc::new(Desk::new(Sources { find, read, count }))
    }

    fn silent(census: &Census) -> Vec<i32> {
        let mut silent: Vec<i32> =
            census.silent.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        silent.sort_unstable();
        silent
    }

    #[tokio::test]
    async fn a_process_that_does_not_answer_is_left_out_until_its_answer_comes() {
        let (answer, answers) = channel();
        let desk = desk(&[1, 101, 2, 102, 3], answers);
        let census = desk.count().await.expect("counted");
        assert_eq!(silent(&census), [101, 102]);
        let marks: Vec<_> = [1, 2, 3, 101].map(|n| census.processes[&process(n).pid].mark).into();
        assert_eq!(marks, [Some(mark(1)), Some(mark(2)), Some(mark(3)), None]);
        assert_eq!(desk.state().stuck, 2);
        // Nobody waits any more.
        assert_eq!(silent(&desk.count().await.expect("counted")), [101, 102]);
        assert_eq!(desk.state().stuck, 2);
        let among = |numbers: [i32; 2]| numbers.map(|number| process(number).pid).to_vec();
        assert!(desk.has_mark(among([101, 1]), mark(1)).await.expect("it has"));
        assert!(!desk.has_mark(among([2, 3]), mark(1)).await.expect("it has not"));
        desk.has_mark(among([101, 1]), mark(2)).await.expect_err("not known");
        drop(answer);
        while desk.state().stuck > 0 {
            tokio::task::yield_now().await;
        }
        // The late answers first, then answers that come at once.
        assert_eq!(desk.state().late.len(), 2);
        for _ in 0..2 {
            let census = desk.count().await.expect("counted");
            assert_eq!(silent(&census), [0; 0]);
            let marks = [101, 102].map(|n| census.processes[&process(n).pid].mark);
            assert_eq!(marks, [101, 102].map(|n| Some(mark(n))));
            assert!(desk.state().late.is_empty());
        }
        assert!(desk.has_mark(among([101, 1]), mark(101)).await.expect("it has"));
    }

    #[tokio::test]
    async fn processes_that_do_not_answer_take_few_threads() {
        const ALL: [i32; 40] = {
            let mut all = [0; 40];
            let mut next = 0;
            while next < 40 {
                all[next] = if next < 20 { 101 + next as i32 } else { next as i32 };
                next += 1;
            }
            all
        };
        let (answer, answers) = channel();
        let desk = desk(&ALL, answers);
        let census = desk.count().await.expect("counted");
        assert_eq!(desk.state().stuck, STUCK_MAX);
        assert_eq!((census.processes.len(), census.silent.len()), (40, 40));
        drop(answer);
        while desk.state().stuck > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(silent(&desk.count().await.expect("counted")), [0; 0]);
    }
}

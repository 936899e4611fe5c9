//! One execution from its start to its end: the executor's work, against its timeout and a stop.

use std::future::{self, Future};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::instrument::Instrumented;

use super::trace::Start;
use crate::clock::{Clock, Sleep};
use crate::execution::{Outcome, StopOrder, StopReason};
use crate::executor::{Contact, Execute, ExecutionContext, Surroundings};
use crate::id::ExecutionId;
use crate::panics;
use crate::store::commit_gate::Pass;

/// How much longer than the grace period an executor may take to see a stop through: to look for what
/// it has to end, to wait up to 5 s for what was killed, twice that with a cgroup, to drain pipes for as long
/// again, and to leave the cgroup.
const STOP_MARGIN: Duration = Duration::from_secs(25);

/// Executions that go together in one task.
pub(super) const TOGETHER_MAX: usize = 32;
/// How long they may: longer than what does next to nothing takes.
const TOGETHER_TIME_MAX: Duration = Duration::from_micros(100);
/// How many are started apart once one has taken longer by itself: it may be of those that block.
const APART_MAX: usize = 256;

/// Returns the outcome of an execution that was stopped after its claim and before its start.
pub(super) fn not_started() -> Outcome {
    let info = "the execution had not been started".to_owned();
    Outcome::Stopped { signal: None, exit_code: None, info }
}

/// The orders to stop that are on disk and that the loop has not passed on yet.
pub(super) trait PendingStops: Send + Sync {
    /// Returns the order to stop an execution that is about to start, if there is an order.
    fn pending_stop(&self, execution: ExecutionId) -> Option<StopOrder>;

    /// Returns `Ready` if the dispatcher has heard of every stop that is on disk or about to be. None comes to disk
    /// while the pass is held.
    fn poll_pass(&self, cx: &Context<'_>) -> Poll<Pass<'_>>;
}

/// Returns whether an execution that is about to start must not start: its stop, or the end of the engine, is
/// ordered.
pub(super) fn is_stopped_early(
    execution: ExecutionId,
    contact: &Contact,
    orders: &dyn PendingStops,
) -> bool {
    if let Some(order) = orders.pending_stop(execution)
        && !contact.is_kept()
    {
        contact.ask_to_stop(&order);
    }
    // A run that has survived its engine has started already, and only its executor can end it.
    contact.order().is_some() && !contact.is_kept()
}

/// Polls work for the first time, unless the stop of its execution, or the end of the engine, is ordered. No stop
/// comes to disk between that look and the poll, and no code of the host runs between them. The start is told once
/// the work has been polled, with the monotonic time `now`. Returns `Pending` if the work has not been polled.
pub(super) fn poll_first(
    work: &mut Execute,
    (execution, contact): (ExecutionId, &Contact),
    orders: &dyn PendingStops,
    (start, now): (&mut Option<Start>, Duration),
    cx: &mut Context<'_>,
) -> Poll<Poll<Outcome>> {
    let pass = ready!(orders.poll_pass(cx));
    if is_stopped_early(execution, contact, orders) {
        contact.report(|report| report.is_unstarted = true);
        return Poll::Ready(Poll::Ready(not_started()));
    }
    // The start is told even if the poll panics.
    let _started = Started { pass: Some(pass), start: start.take(), now };
    Poll::Ready(work.as_mut().poll(cx))
}

/// An execution whose executor is being polled for the first time.
struct Started<'a> {
    pass: Option<Pass<'a>>,
    start: Option<Start>,
    now: Duration,
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        // No commit may wait for the host's subscriber.
        self.pass = None;
        if let Some(start) = self.start.take() {
            start.tell(self.now);
        }
    }
}

/// An executor's work, which has so much time. Once that is up it is asked to stop; an executor that does
/// not is dropped. Without an outcome it has been let go of.
///
/// Written out: thousands of these run at a time, and as an `async fn` each would be ten times as large.
pub(super) struct Run {
    work: Execute,
    id: ExecutionId,
    orders: Arc<dyn PendingStops>,
    /// The start of the execution, until it is told. `None` if a layer before the executor tells the start.
    start: Option<Start>,
    /// Whether the work of the execution has been polled.
    is_begun: bool,
    /// When that was, by the monotonic clock.
    began: Duration,
    /// None: it may take any time.
    timeout: Option<Duration>,
    /// Until when it may work; once it has been asked to stop, until when it may take for that.
    time: Option<Sleep>,
    is_stopping: bool,
    surroundings: Arc<Surroundings>,
    /// Dropped after the work.
    contact: Attended,
}

/// The contact of an executor's part that has not ended.
struct Attended(Arc<Contact>);

impl Drop for Attended {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Run {
    /// Nothing happens before it is polled.
    pub(super) fn new(
        (id, work): (ExecutionId, Execute),
        orders: Arc<dyn PendingStops>,
        cx: ExecutionContext,
        timeout: Option<Duration>,
        start: Option<Start>,
    ) -> Self {
        let ExecutionContext { contact, surroundings, .. } = cx;
        Self {
            work,
            id,
            orders,
            start,
            is_begun: false,
            began: Duration::ZERO,
            timeout,
            time: None,
            is_stopping: false,
            surroundings,
            contact: Attended(contact),
        }
    }

    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let Surroundings { clock, stop_grace, .. } = &*self.surroundings;
        let contact = &*self.contact.0;
        if contact.is_let_go() {
            return Poll::Ready(None);
        }
        let mut first = None;
        if !self.is_begun {
            let now = clock.monotonic();
            let (execution, start) = ((self.id, contact), (&mut self.start, now));
            let polled = poll_first(&mut self.work, execution, &*self.orders, start, cx);
            first = Some(ready!(polled));
            (self.is_begun, self.began) = (true, now);
        }
        let patience = stop_grace.saturating_add(STOP_MARGIN);
        loop {
            // What is done is done, even if its time is up in the same instant.
            let polled = first.take().unwrap_or_else(|| self.work.as_mut().poll(cx));
            if let Poll::Ready(outcome) = polled {
                return Poll::Ready(Some(outcome));
            }
            // Before the looks: what comes after them is heard.
            contact.wake_with(cx.waker());
            if contact.is_let_go() {
                return Poll::Ready(None);
            }
            if !self.is_stopping && contact.order().is_some() {
                self.is_stopping = true;
                self.time = Some(clock.sleep(patience));
            }
            // Much is done at once, and needs no timer. What is not may have taken long already.
            let time = match (&mut self.time, self.timeout) {
                (Some(time), _) => time,
                (none, Some(timeout)) => {
                    let took = clock.monotonic().saturating_sub(self.began);
                    none.insert(clock.sleep(timeout.saturating_sub(took)))
                }
                // An order to stop wakes it.
                (None, None) => return Poll::Pending,
            };
            ready!(time.as_mut().poll(cx));
            if self.is_stopping {
                break;
            }
            contact.ask_to_stop(&StopReason::Timeout.into());
        }
        // What has a keeper goes on without its executor.
        contact.report(|report| report.is_lost = report.is_kept);
        Poll::Ready(Some(Outcome::Broke {
            info: format!(
                "the executor was asked to stop and did not return within {} s; it was dropped",
                patience.as_secs()
            ),
        }))
    }
}

impl Future for Run {
    type Output = Option<Outcome>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        self.get_mut().go_on(cx)
    }
}

/// Tells the loop how a run ended. One that is dropped, or let go of, has not ended anything: what it watched
/// over may go on.
pub(super) struct Followed {
    id: ExecutionId,
    /// None once it has ended.
    run: Option<Instrumented<Run>>,
    endings: mpsc::UnboundedSender<(ExecutionId, Outcome)>,
}

impl Followed {
    pub(super) fn new(
        id: ExecutionId,
        run: Instrumented<Run>,
        endings: mpsc::UnboundedSender<(ExecutionId, Outcome)>,
    ) -> Self {
        Self { id, run: Some(run), endings }
    }
}

impl Future for Followed {
    type Output = ();

    /// An executor that panics ends its execution, and nothing else.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(run) = &mut self.run else { return Poll::Ready(()) };
        let outcome = match contain(|| Pin::new(run).poll(cx)) {
            Ok(polled) => ready!(polled),
            Err(broke) => Some(broke),
        };
        let run = self.run.take();
        // Before it is told: its folders and pipes are free, and its span is closed.
        let outcome = contain(|| drop(run)).err().or(outcome);
        if let Some(outcome) = outcome {
            // It fails only once the loop is gone.
            let _ = self.endings.send((self.id, outcome));
        }
        Poll::Ready(())
    }
}

/// Does what may panic in the executor's part; then, how that ends the execution.
fn contain<T>(act: impl FnOnce() -> T) -> Result<T, Outcome> {
    panics::contain(act)
        .map_err(|message| Outcome::Broke { info: format!("the executor panicked: {message}") })
}

/// Starts executions. Those that are done at once go together in one task, which saves most of what a task
/// costs; from the first on that is not, each has one of its own.
pub(super) struct Starter {
    clock: Arc<dyn Clock>,
    /// How many are to be started apart.
    apart: AtomicUsize,
}

impl Starter {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, apart: AtomicUsize::new(0) }
    }

    pub(super) fn start(self: &Arc<Self>, runs: Vec<Followed>) {
        let mut runs = runs.into_iter();
        let apart = self.apart.load(Ordering::Relaxed).max(usize::from(runs.len() == 1));
        let apart = apart.min(runs.len());
        // What becomes of them comes through their contacts and their endings.
        runs.by_ref().take(apart).for_each(|run| drop(tokio::spawn(run)));
        // One that sets it meanwhile is heard by the next.
        let less = |left: usize| Some(left.saturating_sub(apart));
        let _ = self.apart.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        while runs.len() > 0 {
            let some = runs.by_ref().take(TOGETHER_MAX).collect();
            drop(tokio::spawn(Arc::clone(self).go_together(some)));
        }
    }

    async fn go_together(self: Arc<Self>, runs: Vec<Followed>) {
        let mut runs = runs.into_iter();
        let began = self.clock.monotonic();
        let mut before = began;
        for mut run in runs.by_ref() {
            let is_done = future::poll_fn(|cx| Poll::Ready(Pin::new(&mut run).poll(cx).is_ready()));
            let is_done = is_done.await;
            if !is_done {
                drop(tokio::spawn(run));
            }
            let now = self.clock.monotonic();
            if now.saturating_sub(before) > TOGETHER_TIME_MAX {
                self.apart.store(APART_MAX, Ordering::Relaxed);
            }
            if !is_done || now.saturating_sub(began) > TOGETHER_TIME_MAX {
                break;
            }
            before = now;
        }
        runs.for_each(|run| drop(tokio::spawn(run)));
    }
}

#[cfg(test)]
mod tests {
    use std::mem;
    use std::sync::Mutex;

    use tokio::task;
    use tracing::instrument::Instrument;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Span, Subscriber};

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::OutputQuota;
    use crate::executor::Scratch;
    use crate::output::{LiveOutput, SpoolSpace};

    /// What an execution does when it is first polled.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum First {
        Ends,
        /// After so long.
        Takes(Duration),
        Waits,
        Panics,
        /// As its end is dropped.
        PanicsDropped,
        /// Nothing: it has been let go of.
        IsLetGo,
        /// The execution does not start, because the order to stop it came first.
        IsCalledOff,
        /// Looks for the order to stop it.
        Looks,
    }

    /// A subscriber of the host's. The subscriber stops the first execution as soon as it hears of an event.
    struct Stopper(Arc<Mailed>);

    impl Subscriber for Stopper {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn event(&self, _: &Event<'_>) {
            self.0.0.lock().expect("nobody panics").push(ExecutionId(1));
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    struct PanicsDropped;

    impl Drop for PanicsDropped {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    /// Orders to stop that the loop has not passed on.
    #[derive(Default)]
    struct Mailed(Mutex<Vec<ExecutionId>>);

    impl PendingStops for Mailed {
        fn pending_stop(&self, execution: ExecutionId) -> Option<StopOrder> {
            let stopped = self.0.lock().expect("nobody panics").contains(&execution);
            stopped.then(|| StopReason::Stopped.into())
        }

        fn poll_pass(&self, _: &Context<'_>) -> Poll<Pass<'_>> {
            Poll::Ready(Pass::default())
        }
    }

    /// An engine's part in it.
    struct Stage {
        orders: Arc<Mailed>,
        clock: ManualClock,
        starter: Arc<Starter>,
        surroundings: Arc<Surroundings>,
    }

    impl Stage {
        fn new() -> Self {
            let clock = ManualClock::at("2026-01-01T00:00:00Z".parse().expect("a time"));
            let surroundings = Surroundings {
                stop_grace: Duration::ZERO,
                clock: Arc::new(clock.clone()),
                scratch: Arc::new(Scratch::temporary().expect("a folder")),
            };
            let starter = Arc::new(Starter::new(Arc::new(clock.clone())));
            let orders = Arc::default();
            Self { orders, clock, starter, surroundings: Arc::new(surroundings) }
        }

        /// Starts as many executions as there are of these. Their ends, in their order, and the tasks in which
        /// they ended by themselves, in that order.
        async fn start(&self, firsts: &[First]) -> (Vec<(i64, Outcome)>, Vec<task::Id>) {
            let quota = OutputQuota { head_bytes_max: 0, tail_bytes_max: 0, spool_bytes_max: 0 };
            let ids = Arc::new(Mutex::new(Vec::new()));
            let (endings, mut ends) = mpsc::unbounded_channel();
            let (mut runs, mut contexts) = (Vec::new(), Vec::new());
            for (first, number) in firsts.iter().copied().zip(1..) {
                let (clock, ids) = (self.clock.clone(), Arc::clone(&ids));
                let orders = Arc::clone(&self.orders);
                let mut work = Box::pin(async move {
                    match first {
                        First::Takes(time) => clock.advance(time),
                        First::Waits => task::yield_now().await,
                        First::Panics => panic!("polled"),
                        First::IsCalledOff => panic!("polled after its stop"),
                        First::Looks => {
                            let order = orders.pending_stop(ExecutionId(number));
                            assert!(order.is_none(), "polled after its stop");
                        }
                        First::Ends | First::PanicsDropped | First::IsLetGo => {}
                    }
                    ids.lock().expect("nobody panics").push(task::id());
                    Outcome::Exited(0)
                });
                let held = (first == First::PanicsDropped).then(|| PanicsDropped);
                let work = future::poll_fn(move |cx| {
                    let _dropped_with_this = &held;
                    work.as_mut().poll(cx)
                });
                let cx = ExecutionContext {
                    output: LiveOutput::new(quota, SpoolSpace::new(0), Vec::new()),
                    contact: Arc::default(),
                    surroundings: Arc::clone(&self.surroundings),
                };
                match first {
                    First::IsLetGo => cx.contact.let_go(),
                    First::IsCalledOff => {
                        let mut mailed = self.orders.0.lock().expect("nobody panics");
                        mailed.push(ExecutionId(number));
                    }
                    _ => {}
                }
                contexts.push(cx.clone());
                let work = (ExecutionId(number), Box::pin(work) as Execute);
                let orders = Arc::clone(&self.orders) as Arc<dyn PendingStops>;
                let run = Run::new(work, orders, cx, None, Some(Start::default()));
                let run = run.instrument(Span::none());
                runs.push(Followed::new(ExecutionId(number), run, endings.clone()));
            }
            drop(endings);
            self.starter.start(runs);
            let mut told = Vec::new();
            while let Some((id, outcome)) = ends.recv().await {
                told.push((id.0, outcome));
            }
            told.sort_unstable_by_key(|(number, _)| *number);
            for (cx, first) in contexts.into_iter().zip(firsts) {
                // The executor's part is over.
                let is_called_off = *first == First::IsCalledOff;
                let why = if is_called_off { StopReason::Stopped } else { StopReason::Shutdown };
                assert_eq!(cx.stop_asked().await, why);
            }
            let ids = mem::take(&mut *ids.lock().expect("nobody panics"));
            (told, ids)
        }
    }

    #[tokio::test]
    async fn what_is_done_at_once_goes_together() {
        let check = async |stage: &Stage, firsts: &[First], tasks, in_first| {
            let (_, mut ids) = stage.start(firsts).await;
            let first = ids.iter().filter(|id| **id == ids[0]).count();
            ids.sort_unstable_by_key(|id| id.to_string());
            ids.dedup();
            assert_eq!((ids.len(), first), (tasks, in_first), "{firsts:?}");
        };
        let stage = Stage::new();
        check(&stage, &[First::Ends], 1, 1).await;
        check(&stage, &[First::Ends; TOGETHER_MAX], 1, TOGETHER_MAX).await;
        check(&stage, &[First::Ends; TOGETHER_MAX + 1], 2, TOGETHER_MAX).await;
        check(&stage, &[First::Waits; 4], 4, 1).await;
        check(&stage, &[First::Ends, First::Ends, First::Waits, First::Ends], 3, 2).await;
        let quick = First::Takes(TOGETHER_TIME_MAX / 2);
        check(&stage, &[quick; 5], 3, 3).await;
        // One that may block: those behind it do not wait, and those to come are started apart for a while.
        let slow = First::Takes(TOGETHER_TIME_MAX + Duration::from_nanos(1));
        check(&stage, &[First::Ends, slow, First::Ends, First::Ends], 3, 2).await;
        check(&stage, &[First::Ends; APART_MAX - 1], APART_MAX - 1, 1).await;
        check(&stage, &[First::Ends; 4], 2, 1).await;
        check(&stage, &[First::Ends; 4], 1, 4).await;
    }

    #[tokio::test]
    async fn nothing_of_the_host_comes_between_the_last_look_at_a_stop_and_the_executor() {
        let stage = Stage::new();
        let _stopper = tracing::subscriber::set_default(Stopper(Arc::clone(&stage.orders)));
        let (told, _) = stage.start(&[First::Looks]).await;
        assert_eq!(told, [(1, Outcome::Exited(0))]);
        assert!(
            stage.orders.pending_stop(ExecutionId(1)).is_some(),
            "nobody was told of the start"
        );
    }

    #[tokio::test]
    async fn each_ends_whatever_becomes_of_those_with_it() {
        let broke = |with: &str| Outcome::Broke { info: format!("the executor panicked: {with}") };
        let done = Outcome::Exited(0);
        let firsts = [
            First::Panics,
            First::Ends,
            First::PanicsDropped,
            First::IsLetGo,
            First::Ends,
            First::Waits,
            First::PanicsDropped,
            First::IsCalledOff,
        ];
        let (told, _) = Stage::new().start(&firsts).await;
        let ends = [
            broke("polled"),
            done.clone(),
            broke("dropped"),
            done.clone(),
            done,
            broke("dropped"),
            not_started(),
        ];
        assert_eq!(told, [1, 2, 3, 5, 6, 7, 8].into_iter().zip(ends).collect::<Vec<_>>());
    }
}

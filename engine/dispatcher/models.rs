//! The races of the dispatcher, in every order in which their threads can take their steps (loom). For this
//! the orders are compiled once more, with loom's locks. A call into tokio counts as one step.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use chrono::{DateTime, Utc};
use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread::{self, JoinHandle};
use tokio::sync::{oneshot, watch};

use super::Running;
use super::roster::{Roster, RunningFire, UnderWay};
use super::run::{self, PendingStops, Run, is_stopped_early};
use super::trace::Start;
use crate::clock::{Clock, Sleep};
use crate::command::CommandType;
use crate::command::settings::Settings;
use crate::config::OutputQuota;
use crate::execution::{Outcome, StopOrder, StopReason, Verdict};
use crate::executor::{
    Contact, DynExecutor, ExecutionContext, Executor, Scratch, Surroundings, Task,
};
use crate::id::{CommandId, ExecutionId, InvokeId};
use crate::instance::Instance;
use crate::invocation::container::Container;
use crate::invocation::resource_limits::ResourceLimits;
use crate::invocation::{Job, TerminationMode};
use crate::metrics::Meters;
use crate::output::{LiveOutput, SpoolSpace};
use crate::status::{Cause, ExecutionStatus};
use crate::store::claims::Claimed;
use crate::store::commit_gate::Pass;
use crate::store::executions::SoleFire;
use crate::store::fires::FireLimits;
use crate::store::instances::Target;

use bounds::{Bounds, HandedOver, Within};
use commit_gate::CommitGate;
use orders::{Errand, Launch, Line, Orders, Phase};

/// Compiled once more for the models, like the files below.
#[expect(dead_code, clippy::duplicate_mod, reason = "on purpose, and no model needs all of it")]
#[path = "bounds.rs"]
mod bounds;

/// The models compile this file once more, as below.
#[expect(clippy::duplicate_mod, reason = "on purpose")]
#[path = "../store/commit_gate.rs"]
mod commit_gate;

/// The same file once more, for which `super::sync` is the one below.
#[expect(dead_code, clippy::duplicate_mod, reason = "on purpose, and no model needs all of it")]
#[path = "orders.rs"]
mod orders;

/// Loom's kind of what the orders are shared with.
mod sync {
    pub(super) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(super) use loom::sync::{Mutex, MutexGuard};

    #[derive(Debug)]
    pub(super) struct Notify(loom::sync::Notify);

    impl Notify {
        pub(super) fn new() -> Self {
            Self(loom::sync::Notify::new())
        }

        pub(super) fn notify_one(&self) {
            self.0.notify();
        }

        pub(super) fn wait(&self) {
            self.0.wait();
        }
    }
}

/// Words of stack; unoptimized futures need more than loom gives.
const STACK: usize = 1 << 15;
/// How often a thread that could go on is held up, in one order: bugs that need more are rare, orders many.
const PREEMPTIONS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(60);
const PLACES: usize = 2;
const INSTANCE: i64 = 1;
const EXECUTION: ExecutionId = ExecutionId(1);
/// One that ended before.
const ENDED: ExecutionId = ExecutionId(2);

/// What all runs of a model share.
struct World {
    fire: Arc<RunningFire>,
    target: Arc<Target>,
    scratch: Arc<Scratch>,
    output: Arc<LiveOutput>,
}

impl World {
    fn new() -> Self {
        let invoke_id = InvokeId::new(DateTime::UNIX_EPOCH);
        let job = Job {
            invoke_id,
            command_id: CommandId::of_invocation(invoke_id),
            command_type: CommandType::RunShellScript,
            content: b"".as_slice().into(),
            arguments: None,
            settings: Settings::default(),
            container: Container::default(),
            windows_password_name: None,
            secrets_are_names: false,
            content_bytes_max: usize::MAX,
            timeout_s: Some(TIMEOUT.as_secs()),
            termination_mode: TerminationMode::ProcessTree,
            resource_limits: ResourceLimits::default(),
            survive_restarts: false,
            caller: None,
            lets_wait: false,
            retry: None,
        };
        let quota = OutputQuota::default();
        let space = SpoolSpace::new(quota.spool_bytes_max);
        let job = Arc::new(job);
        let fire = RunningFire { fire: 1, job, limits: None, sole: None, dealt_at_ms: 0 };
        Self {
            fire: Arc::new(fire),
            target: Arc::new(Target { row: INSTANCE, instance: Instance::new("one") }),
            scratch: Arc::new(Scratch::temporary().expect("a folder")),
            output: LiveOutput::new(quota, space, Vec::new()),
        }
    }

    /// Orders of an engine to which nothing has come yet.
    fn orders(&self) -> Arc<Orders> {
        let orders = Orders::new(PLACES, Arc::clone(&self.scratch), [].into(), Arc::default());
        orders.be_quiet();
        Arc::new(orders)
    }

    fn launch(&self, count: usize) -> Launch {
        let claimed = |_| Claimed { id: EXECUTION, attempt: 1, target: Arc::clone(&self.target) };
        let invoke_id = self.fire.job.invoke_id;
        Launch {
            sole: SoleFire { fire: 1, invocation: 1, invoke_id, executions: count as u64 },
            job: Arc::clone(&self.fire.job),
            claimed: (0..count).map(claimed).collect(),
            claimed_at_ms: 0,
            committed: Duration::ZERO,
        }
    }

    fn running(&self, id: ExecutionId) -> Box<Running> {
        Box::new(Running {
            id,
            attempt: 1,
            of: Arc::clone(&self.fire),
            target: Arc::clone(&self.target),
            berth: None,
            output: Arc::clone(&self.output),
            contact: Arc::default(),
            started_at_ms: 0,
            started: Duration::ZERO,
            is_begun: true,
        })
    }
}

fn explore(model: impl Fn(&World) + Send + Sync + 'static) {
    let (world, model) = (Arc::new(World::new()), Arc::new(model));
    let mut explorer = loom::model::Builder::new();
    explorer.preemption_bound.get_or_insert(PREEMPTIONS);
    explorer.check(move || {
        let (world, model) = (Arc::clone(&world), Arc::clone(&model));
        spawn(move || model(&world)).join().expect("the model");
    });
}

fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::Builder::new().stack_size(STACK).spawn(work).expect("a thread")
}

/// As much of the loop as has to do with stops.
struct Desk<'a> {
    world: &'a World,
    orders: Arc<Orders>,
    roster: Roster,
    steps: UnderWay,
}

impl<'a> Desk<'a> {
    fn new(world: &'a World) -> Self {
        let orders = world.orders();
        Self { world, orders, roster: Roster::default(), steps: UnderWay::default() }
    }

    fn take_orders(&mut self) {
        for errand in self.orders.take_mail().errands() {
            match errand {
                Errand::Launch(launch) => {
                    let started = launch.claimed.iter().map(|one| self.world.running(one.id));
                    started.for_each(|running| self.roster.add(running));
                }
                Errand::Stop(execution, order) => self.roster.stop(execution, order, &self.steps),
            }
        }
    }

    fn conclude(&mut self, number: u64, claimed: bool) {
        self.steps.end(number);
        if claimed {
            self.roster.add(self.world.running(EXECUTION));
        }
        self.roster.forget_stops(&self.steps);
    }

    /// Why one that runs is to stop.
    fn asked(&mut self, execution: ExecutionId) -> Option<StopReason> {
        let running = self.roster.get_mut(execution).expect("it runs");
        running.contact.order().map(|order| order.cause)
    }

    /// What runs has been asked to stop, what was cancelled has not started, and no order is left over.
    fn check(mut self, record: ExecutionStatus) {
        match record {
            ExecutionStatus::Running => {
                assert_eq!(self.asked(EXECUTION), Some(StopReason::Stopped))
            }
            _ => assert!(self.roster.remove(EXECUTION).is_none(), "{record} and started"),
        }
        self.roster.add(self.world.running(ENDED));
        assert_eq!(self.asked(ENDED), None, "an order was kept");
    }
}

/// The record of an execution, which one transaction at a time sees.
type Record = Arc<Mutex<ExecutionStatus>>;

fn waiting() -> Record {
    Arc::new(Mutex::new(ExecutionStatus::Pending))
}

/// Claims it, if it waits.
fn claim(record: &Record) -> bool {
    let mut record = record.lock().expect("not poisoned");
    let waits = *record == ExecutionStatus::Pending;
    if waits {
        *record = ExecutionStatus::Running;
    }
    waits
}

/// Cancels it if it waits; if it runs, has it stopped after that commit.
fn cancel(record: &Record, line: &Line) -> ExecutionStatus {
    let mut record = record.lock().expect("not poisoned");
    if *record == ExecutionStatus::Pending {
        *record = ExecutionStatus::Cancelled;
    }
    let found = *record;
    drop(record);
    if found == ExecutionStatus::Running {
        line.stop([ENDED, EXECUTION].into_iter(), &StopReason::Stopped.into());
    }
    found
}

#[test]
fn a_stop_may_overtake_the_news_of_a_claim() {
    explore(|world| {
        let mut desk = Desk::new(world);
        let (record, told) = (waiting(), Arc::new(Mutex::new(Vec::new())));
        for claims in [false, true] {
            let (record, told) = (Arc::clone(&record), Arc::clone(&told));
            let (orders, number) = (Arc::clone(&desk.orders), desk.steps.begin());
            spawn(move || {
                let claimed = claims && claim(&record);
                told.lock().expect("not poisoned").push((number, claimed));
                orders.wake.notify_one();
            });
        }
        let line = Line(Arc::clone(&desk.orders));
        let canceller = spawn(move || cancel(&record, &line));
        while desk.steps.count() > 0 {
            desk.take_orders();
            let step = told.lock().expect("not poisoned").pop();
            match step {
                Some((number, claimed)) => desk.conclude(number, claimed),
                None => desk.orders.wake.wait(),
            }
        }
        let record = canceller.join().expect("an answer");
        desk.take_orders();
        desk.check(record);
    });
}

/// A claim is known to the loop, and its execution about to be polled. Meanwhile its stop comes to disk, and the loop
/// hears of the stop later.
#[test]
fn nothing_is_polled_between_the_commit_of_its_stop_and_the_order() {
    explore(|world| {
        let (orders, gate) = (world.orders(), Arc::new(CommitGate::default()));
        let on_disk = Arc::new(AtomicBool::new(false));
        let writer = {
            let (orders, gate) = (Arc::clone(&orders), Arc::clone(&gate));
            let on_disk = Arc::clone(&on_disk);
            spawn(move || {
                gate.close(|| {
                    thread::yield_now();
                    true
                });
                on_disk.store(true, Ordering::SeqCst);
                Line(orders).stop([EXECUTION].into_iter(), &StopReason::Stopped.into());
                gate.open();
            })
        };
        let contact = Contact::default();
        let pass = gate.poll_pass(&Context::from_waker(Waker::noop()));
        if let Poll::Ready(_pass) = &pass
            && !is_stopped_early(EXECUTION, &contact, &*orders)
        {
            assert!(!on_disk.load(Ordering::SeqCst), "polled after its stop");
        }
        drop(pass);
        writer.join().expect("a stop");
    });
}

/// The loop knows a claim, and the execution is about to be polled. Meanwhile its stop comes to disk, or the engine
/// ends running executions, and the loop passes its orders on.
#[test]
fn an_executor_is_not_polled_once_the_stop_of_its_execution_is_on_disk() {
    let check = |stop: fn(&Record, &Line)| {
        explore(move |world| {
            let mut desk = Desk::new(world);
            let (record, on_disk) = (waiting(), Arc::new(AtomicBool::new(false)));
            assert!(claim(&record), "it waits");
            let line = Line(Arc::clone(&desk.orders));
            let stopper = {
                let on_disk = Arc::clone(&on_disk);
                spawn(move || {
                    stop(&record, &line);
                    on_disk.store(true, Ordering::Release);
                })
            };
            let running = world.running(EXECUTION);
            let contact = Arc::clone(&running.contact);
            desk.roster.add(running);
            let starter = {
                let (orders, on_disk) = (Arc::clone(&desk.orders), Arc::clone(&on_disk));
                spawn(move || {
                    let is_on_disk = on_disk.load(Ordering::Acquire);
                    let is_polled = !is_stopped_early(EXECUTION, &contact, &*orders);
                    assert!(!(is_on_disk && is_polled), "polled after its stop");
                })
            };
            desk.take_orders();
            desk.take_orders();
            starter.join().expect("no poll after the stop");
            stopper.join().expect("a stop");
        });
    };
    check(|record, line| {
        cancel(record, line);
    });
    check(|_, line| line.0.advance(Phase::Stopping));
}

#[test]
fn a_stop_finds_what_was_claimed_as_it_was_stored() {
    explore(|world| {
        let mut desk = Desk::new(world);
        let (record, line) = (waiting(), Line(Arc::clone(&desk.orders)));
        let canceller = {
            let (record, line) = (Arc::clone(&record), line.clone());
            spawn(move || cancel(&record, &line))
        };
        let launch = world.launch(1);
        let submitter = spawn(move || {
            // What follows a commit comes before the next transaction.
            let mut record = record.lock().expect("not poisoned");
            if *record == ExecutionStatus::Pending {
                *record = ExecutionStatus::Running;
                line.reserve(1).expect("a place").launch(launch);
            }
        });
        desk.take_orders();
        desk.take_orders();
        submitter.join().expect("an answer");
        let record = canceller.join().expect("an answer");
        desk.take_orders();
        desk.check(record);
    });
}

/// A request for all places, of whose executions so many are claimed; none: its transaction fails. How many
/// have been stored as claimed.
fn submit(line: &Line, claimed: Option<Launch>) -> usize {
    let Some(reservation) = line.reserve(PLACES) else {
        line.expect_new();
        return 0;
    };
    let Some(launch) = claimed else { return 0 };
    let count = launch.claimed.len();
    reservation.launch(launch);
    count
}

#[test]
fn a_shutdown_leaves_nothing_claimed_behind_and_no_place_taken() {
    let check = |claimed: Option<usize>| {
        explore(move |world| {
            let orders = world.orders();
            let submitters = [claimed, Some(1)].map(|claimed| {
                let line = Line(Arc::clone(&orders));
                let launch = claimed.map(|count| world.launch(count));
                spawn(move || submit(&line, launch))
            });
            let closer = Arc::clone(&orders);
            spawn(move || closer.advance(Phase::Draining));
            let mut started = 0;
            loop {
                for errand in orders.take_mail().errands() {
                    let Errand::Launch(launch) = errand else { continue };
                    started += launch.claimed.len();
                    // Each ends at once.
                    orders.free_places(launch.claimed.len());
                }
                if orders.is_at_end() {
                    break;
                }
                orders.wake.wait();
            }
            let stored = submitters.map(|one| one.join().expect("an answer"));
            assert_eq!(started, stored.iter().sum::<usize>(), "started, and stored as claimed");
            assert_eq!(orders.take_places(0, usize::MAX).room, PLACES);
        });
    };
    check(Some(2));
    check(Some(1));
    check(None);
}

#[test]
fn a_place_on_an_instance_is_had_by_one_at_a_time() {
    explore(|world| {
        let orders = world.orders();
        // An ended execution leaves its place in a transaction that is undone, and in another then.
        let ended = orders.berth(INSTANCE, 1).expect("it is free");
        ended.leave();
        let undone = orders.berth(INSTANCE, 1);
        ended.take_back();
        drop(undone);
        assert!(orders.berth(INSTANCE, 1).is_none(), "a place was left and not taken back");
        ended.leave();
        ended.has_left();
        let is_taken = Arc::new(AtomicBool::new(false));
        let visitors = [(); 2].map(|()| {
            let (orders, is_taken) = (Arc::clone(&orders), Arc::clone(&is_taken));
            spawn(move || {
                let Some(berth) = orders.berth(INSTANCE, 1) else { return };
                assert!(!is_taken.swap(true, Ordering::AcqRel), "two are there");
                is_taken.store(false, Ordering::Release);
                drop(berth);
            })
        });
        visitors.into_iter().for_each(|one| one.join().expect("no two"));
        assert!(orders.berth(INSTANCE, 1).is_some(), "it is free again");
    });
}

fn one_at_a_time() -> (Arc<Bounds>, Arc<FireLimits>) {
    let limits = FireLimits {
        invocation: 1,
        concurrency_max: Some(1),
        concurrency_key: None,
        start_by_ms: None,
        has_waves: false,
    };
    (Arc::new(Bounds::new([].into())), Arc::new(limits))
}

/// A transaction, which may be undone, admits an execution to its instance, while the loop plans for another
/// execution within the same bound.
#[test]
fn a_place_within_a_bound_goes_to_one_execution_and_is_never_lost() {
    let check = |is_undone: bool| {
        explore(move |_| {
            let (bounds, limits) = one_at_a_time();
            let admission = {
                let (bounds, limits) = (Arc::clone(&bounds), Arc::clone(&limits));
                spawn(move || {
                    let within = bounds.enter(&limits, &HandedOver::default());
                    let is_admitted = within.is_some() && !is_undone;
                    within.into_iter().filter(|_| !is_undone).for_each(Within::keep);
                    is_admitted
                })
            };
            let own = HandedOver::default();
            let is_granted = bounds.take(&limits, 1, &own).is_ok();
            let is_admitted = admission.join().expect("an answer");
            assert!(!(is_granted && is_admitted), "two have one place");
            // The step has ended, so the next fire that waits within the bound is called.
            let any_undone = !bounds.take_undone().is_empty();
            let is_called = any_undone && bounds.take(&limits, 1, &own).is_ok();
            assert!(
                is_granted || is_admitted || is_called,
                "a place is free, and a fire waits for it"
            );
        });
    };
    check(false);
    check(true);
}

/// An execution ends while another step claims an execution that has waited for its instance. The step that writes the
/// end has the place for another, by its plan or in its transaction, which is undone once or not; meanwhile the loop
/// plans one more step.
#[test]
fn the_file_never_shows_more_executions_within_a_bound_than_may_run() {
    let start_one = |running: &mut usize| {
        *running += 1;
        assert!(*running <= 1, "{} run within a bound of one", *running);
    };
    let check = |is_planned: bool, is_undone: bool| {
        explore(move |_| {
            let (bounds, limits) = one_at_a_time();
            bounds.occupy(&limits);
            let file = Arc::new(Mutex::new(1));
            let shared = || (Arc::clone(&bounds), Arc::clone(&limits), Arc::clone(&file));
            let other = {
                let (bounds, limits, file) = shared();
                spawn(move || {
                    let mut running = file.lock().expect("not poisoned");
                    if let Some(within) = bounds.enter(&limits, &HandedOver::default()) {
                        start_one(&mut running);
                        within.keep();
                    }
                })
            };
            // The loop hears of the end.
            let own = bounds.hand_over([&*limits]);
            let is_granted = is_planned && bounds.take(&limits, 1, &own).is_ok();
            let step = {
                let (bounds, limits, file) = shared();
                spawn(move || {
                    if is_undone {
                        let _running = file.lock().expect("not poisoned");
                        drop(bounds.enter(&limits, &own));
                    }
                    let mut running = file.lock().expect("not poisoned");
                    *running -= 1;
                    let within = if is_granted { None } else { bounds.enter(&limits, &own) };
                    if is_granted || within.is_some() {
                        start_one(&mut running);
                    }
                    // The commit is on disk.
                    bounds.left(&limits);
                    within.into_iter().for_each(Within::keep);
                })
            };
            if bounds.take(&limits, 1, &HandedOver::default()).is_ok() {
                start_one(&mut file.lock().expect("not poisoned"));
            }
            for step in [other, step] {
                step.join().expect("no more than may be");
            }
            let is_used = *file.lock().expect("not poisoned") == 1;
            let is_free = bounds.take(&limits, 1, &HandedOver::default()).is_ok();
            assert!(is_used != is_free, "used: {is_used}, free: {is_free}");
        });
    };
    for is_planned in [true, false] {
        for is_undone in [true, false] {
            check(is_planned, is_undone);
        }
    }
}

/// Every touch of something that loom does not see is announced here: that gives it all their orders.
#[derive(Default)]
struct Touches {
    count: AtomicUsize,
    /// Rung after each that may let the execution go on, in place of the wakers of tokio, which takes
    /// them in no fixed order.
    bell: loom::sync::Notify,
}

impl Touches {
    fn announce(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    fn touch<T>(&self, act: impl FnOnce() -> T) -> T {
        self.announce();
        let value = act();
        self.bell.notify();
        value
    }

    /// Announces before each poll, and before the end.
    async fn watch<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let polled = poll_fn(|cx| {
            self.announce();
            future.as_mut().poll(cx)
        });
        let value = polled.await;
        self.announce();
        value
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => return value,
                Poll::Pending => self.bell.wait(),
            }
        }
    }
}

/// What comes once, or never if it is dropped.
type Signal = std::sync::Mutex<Option<oneshot::Receiver<()>>>;

async fn arrival(signal: &Signal) {
    let signal = signal.lock().expect("not poisoned").take();
    let comes = async { signal?.await.ok() };
    if comes.await.is_none() {
        pending::<()>().await;
    }
}

/// Ends by itself when it is told to, and when it is asked to stop if it listens.
struct Actor {
    end: Signal,
    listens: bool,
    heard: watch::Sender<Option<StopReason>>,
    touches: Arc<Touches>,
}

impl Executor for Actor {
    async fn execute(&self, _: Task, cx: ExecutionContext) -> Outcome {
        let work = async {
            tokio::select! {
                biased;
                () = arrival(&self.end) => Outcome::Exited(0),
                reason = cx.stop_asked(), if self.listens => {
                    self.heard.send_replace(Some(reason));
                    Outcome::Stopped { signal: None, exit_code: None, info: String::new() }
                }
            }
        };
        self.touches.watch(work).await
    }
}

/// A clock of which only the sleeps count: the timeout first, the patience then.
struct Alarms {
    timeout: Signal,
    patience: Signal,
    touches: Arc<Touches>,
}

impl Clock for Arc<Alarms> {
    fn realtime(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let alarms = Arc::clone(self);
        Box::pin(async move {
            let is_timeout = duration == TIMEOUT;
            let alarm = if is_timeout { &alarms.timeout } else { &alarms.patience };
            alarms.touches.watch(arrival(alarm)).await;
        })
    }
}

/// A source of stops without any order.
struct Silence;

impl PendingStops for Silence {
    fn pending_stop(&self, _: ExecutionId) -> Option<StopOrder> {
        None
    }

    fn poll_pass(&self, _: &Context<'_>) -> Poll<Pass<'_>> {
        Poll::Ready(Pass::default())
    }
}

/// An execution that runs, and what may befall it.
struct Play {
    touches: Arc<Touches>,
    end: oneshot::Sender<()>,
    timeout: oneshot::Sender<()>,
    patience: oneshot::Sender<()>,
    heard: watch::Receiver<Option<StopReason>>,
    roster: Roster,
    run: JoinHandle<Outcome>,
}

impl Play {
    fn begin(world: &World, listens: bool) -> Self {
        let touches = Arc::new(Touches::default());
        let [end, timeout, patience] = [(); 3].map(|()| oneshot::channel());
        let signal = |signal| Signal::new(Some(signal));
        let (heard_by, heard) = watch::channel(None);
        let actor =
            Actor { end: signal(end.1), listens, heard: heard_by, touches: Arc::clone(&touches) };
        let alarms = Alarms {
            timeout: signal(timeout.1),
            patience: signal(patience.1),
            touches: Arc::clone(&touches),
        };
        let running = world.running(EXECUTION);
        let cx = ExecutionContext {
            output: Arc::clone(&running.output),
            contact: Arc::clone(&running.contact),
            surroundings: Arc::new(Surroundings {
                stop_grace: Duration::ZERO,
                clock: Arc::new(Arc::new(alarms)),
                scratch: Arc::clone(&world.scratch),
            }),
        };
        let task = Task {
            instance_name: "".into(),
            execution_id: running.id,
            instance_id: running.instance_id().clone(),
            attempt: running.attempt,
            job: Arc::clone(running.job()),
            content: Arc::clone(&running.job().content),
            resolved: None,
            shell: None,
        };
        let start = Start::new(&Arc::new(Meters::default()), &running, None);
        let stage = Arc::clone(&touches);
        let work = DynExecutor::execute(Arc::new(actor), task, cx.clone());
        let run = Run::new((EXECUTION, work), Arc::new(Silence), cx, Some(TIMEOUT), Some(start));
        let run = spawn(move || stage.block_on(run).expect("nobody lets go of it"));
        let mut roster = Roster::default();
        roster.add(running);
        let (end, timeout, patience) = (end.0, timeout.0, patience.0);
        Self { touches, end, timeout, patience, heard, roster, run }
    }

    /// Sends these one after the other, at any time.
    fn send<const N: usize>(touches: &Arc<Touches>, signals: [oneshot::Sender<()>; N]) {
        let touches = Arc::clone(touches);
        spawn(move || {
            for signal in signals {
                // Nobody may be waiting for it any longer.
                let _ = touches.touch(|| signal.send(()));
            }
        });
    }
}

/// Judges an end, which there is one of.
fn judge(roster: &mut Roster, outcome: Outcome) -> Verdict {
    let running = roster.remove(EXECUTION).expect("it has not ended yet");
    assert!(roster.remove(EXECUTION).is_none(), "it has ended");
    Verdict::new(outcome, running.contact.order(), running.job().timeout_s)
}

#[test]
fn an_end_a_timeout_and_a_stop_come_to_one_verdict() {
    explore(|world| {
        let Play { touches, end, timeout, patience: _never, heard, mut roster, run } =
            Play::begin(world, true);
        Play::send(&touches, [end]);
        Play::send(&touches, [timeout]);
        let order = StopReason::Stopped.into();
        touches.touch(|| roster.stop(EXECUTION, order, &UnderWay::default()));
        let outcome = run.join().expect("an outcome");
        let is_not_started = outcome == run::not_started();
        let verdict = judge(&mut roster, outcome);
        let heard = *heard.borrow();
        match heard {
            // The stop may have come before the first poll.
            None if is_not_started => assert_eq!(verdict.cause, Cause::Stopped),
            None => assert_eq!(verdict.cause, Cause::ExitedZero),
            Some(reason) => {
                let timed_out = reason == StopReason::Timeout;
                let cause = if timed_out { Cause::TimedOut } else { Cause::Stopped };
                assert_eq!((verdict.cause, verdict.stop_cause), (cause, Some(reason)));
            }
        }
    });
}

#[test]
fn what_is_done_before_its_time_is_up_is_done() {
    explore(|world| {
        let Play { touches, end, timeout, patience, mut roster, run, .. } =
            Play::begin(world, true);
        Play::send(&touches, [end, timeout, patience]);
        let outcome = run.join().expect("an outcome");
        assert_eq!(judge(&mut roster, outcome).cause, Cause::ExitedZero);
    });
}

#[test]
fn what_does_not_listen_is_dropped_or_done() {
    explore(|world| {
        let Play { touches, end, timeout, patience, mut roster, run, .. } =
            Play::begin(world, false);
        Play::send(&touches, [timeout, patience]);
        Play::send(&touches, [end]);
        let outcome = run.join().expect("an outcome");
        let is_done = outcome == Outcome::Exited(0);
        let cause = if is_done { Cause::ExitedZero } else { Cause::Broke };
        let verdict = judge(&mut roster, outcome);
        assert_eq!(verdict.cause, cause);
        assert!(is_done || verdict.stop_cause == Some(StopReason::Timeout), "{verdict:?}");
    });
}

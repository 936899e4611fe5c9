//! Takes executions from waiting to running to ended, in one loop. A step of the loop records executions that have
//! ended and claims executions that may start, in one commit. No execution starts before its claim is on disk, and no
//! watcher hears of an end before the end is on disk. While a step is written, the next step gets ready. The number of
//! places bounds the executions that run.

mod admission;
mod bounds;
mod claim;
#[cfg(test)]
mod models;
mod orders;
mod roster;
mod run;
mod slots;
mod steps;
mod sync;
mod trace;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tracing::Instrument;

use crate::authorizer::DynAuthorizer;
use crate::clock::{Clock, now_ms};
use crate::command::content::Content;
use crate::command::template::{Facts, Template};
use crate::config::Config;
use crate::ending::Ending;
use crate::error::Violation;
use crate::event::{Change, Hub};
use crate::execution::{Outcome, StopOrder, StopReason, Unended, Verdict};
use crate::executor::{
    DynExecutor, Execute, ExecutionContext, Resumption, Scratch, Surroundings, Task, has_ended,
};
use crate::id::{ExecutionId, InstanceId};
use crate::instance::Instance;
use crate::invocation::Job;
use crate::metrics::Measured;
use crate::output::{DeliveryStatus, WholeOutputs};
use crate::panics::tell;
use crate::secret::DynSecretResolver;
use crate::sink::Sinks;
use crate::status::{Cause, ExecutionStatus};
use crate::store::Store;
use crate::store::claims::Claimed;
use crate::store::executions::{Aborted, Ended, Finished, GoingOn, Recorded};
use crate::store::instances::Target;

use admission::Admission;
use bounds::{Bounds, Within};
use claim::{ClaimedFire, ClaimedWork};
use orders::{Berth, Errand, Orders, Phase, Places};
use roster::{Roster, Running, RunningFire};
use run::{Followed, PendingStops, Run, Starter};
use slots::Backlog;
use steps::{Over, Step, Steps, Written};
use trace::Start;

pub(crate) use orders::{Launch, Line, Reservation};

/// Executors by the name that instances give.
pub(crate) type Executors = HashMap<String, Arc<dyn DynExecutor>>;

/// Executions claimed by one step: few enough for the next to be claimed while these start.
const CLAIM_MAX: usize = 512;

/// Ends that are taken in at a time, before the loop looks whether a step can be begun with them.
const COLLECT_MAX: usize = 512;

/// The time in which executors may end after the deadline of a shutdown, which asks them to stop. A shutdown takes at
/// most this and [`DROP_TIME_MAX`] longer than its deadline, apart from the disk.
const LET_GO_AFTER: Duration = Duration::from_millis(100);
/// The longest wait for the drop of executors that have not ended.
const DROP_TIME_MAX: Duration = Duration::from_millis(50);

/// What the loop works with.
pub(crate) struct Resources {
    pub store: Arc<Store>,
    pub hub: Arc<Hub>,
    pub clock: Arc<dyn Clock>,
    pub config: Arc<Config>,
    pub executors: Executors,
    /// The executors whose runs can survive this engine.
    pub survivable: Arc<HashSet<String>>,
    pub authorizer: Option<Arc<dyn DynAuthorizer>>,
    pub secrets: Option<Arc<dyn DynSecretResolver>>,
    pub scratch: Arc<Scratch>,
    /// Woken when something is to be done at a time of its own: another attempt, another wave.
    pub scheduler: Arc<Notify>,
    pub sinks: Arc<Sinks>,
    pub whole_outputs: Arc<WholeOutputs>,
    /// Called on when whole outputs wait to be delivered.
    pub deliverer: Arc<Notify>,
}

/// The handle of the loop.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    orders: Arc<Orders>,
    /// Closed when the loop has ended.
    alive: watch::Receiver<()>,
}

impl Dispatcher {
    /// Starts the loop on the current runtime, with what goes on from before. If `idle`, the loop starts nothing: it
    /// records the ends of surviving runs that have ended, and ends.
    pub(crate) fn start(resources: Resources, going_on: Vec<GoingOn>, idle: bool) -> Self {
        let scratch = Arc::clone(&resources.scratch);
        let is_taken_back = |one: &GoingOn| {
            let run = Unended { id: one.claimed.id, attempt: one.claimed.attempt };
            !idle || has_ended(&scratch, run)
        };
        let (going_on, kept): (Vec<_>, Vec<_>) = going_on.into_iter().partition(is_taken_back);
        let kept = kept.iter().map(|one| (one.claimed.id, one.claimed.attempt)).collect();
        let (places, scratch) = (resources.config.concurrency_max, Arc::clone(&resources.scratch));
        let orders = Arc::new(Orders::new(places, scratch, kept, resources.store.gate()));
        if idle {
            orders.advance(Phase::Draining);
        }
        let (still_alive, alive) = watch::channel(());
        let Resources { store, hub, clock, .. } = &resources;
        let ending = Arc::clone(store.ending());
        let ends = end_what_runs(Arc::clone(&ending), Arc::clone(&orders), Arc::clone(clock));
        let presence = Presence { orders: Arc::clone(&orders), hub: Arc::clone(hub) };
        let bounds = Arc::new(Bounds::new(resources.config.concurrency_keys.clone()));
        let shared = (Arc::clone(&orders), Arc::clone(&bounds));
        let steps = Steps::new(Arc::clone(store), shared, Arc::clone(clock));
        let (endings, outcomes) = mpsc::unbounded_channel();
        let surroundings = Arc::new(Surroundings {
            stop_grace: resources.config.stop_grace,
            clock: Arc::clone(clock),
            scratch: Arc::clone(&resources.scratch),
        });
        let starter = Arc::new(Starter::new(Arc::clone(clock)));
        let work = Loop {
            orders: Arc::clone(&orders),
            surroundings,
            backlog: Backlog::new(Arc::clone(&bounds)),
            bounds,
            resources,
            endings,
            outcomes,
            roster: Roster::default(),
            starting: Vec::new(),
            starter,
            ended: Vec::new(),
            steps,
            claims_fail: false,
            idle,
            _presence: presence,
            _alive: still_alive,
        };
        let work = async move {
            tokio::select! {
                biased;
                () = work.run(going_on) => {}
                // Polled beside the loop, because the loop may be waiting for the disk.
                () = ends => {}
            }
        };
        tokio::spawn(ending.part("the dispatcher", work));
        Self { orders, alive }
    }

    /// A way to call on the loop, without the rest of this handle.
    pub(crate) fn line(&self) -> Line {
        Line(Arc::clone(&self.orders))
    }

    /// Closed when nothing runs any longer.
    pub(crate) fn alive(&self) -> watch::Receiver<()> {
        self.alive.clone()
    }

    /// Starts nothing more; the loop ends when nothing runs any longer.
    pub(crate) fn drain(&self) {
        self.orders.advance(Phase::Draining);
    }
}

/// Makes the loop end running executions when that is due. The future itself never ends.
async fn end_what_runs(ending: Arc<Ending>, orders: Arc<Orders>, clock: Arc<dyn Clock>) {
    ending.overdue(Arc::clone(&clock)).await;
    orders.advance(Phase::Stopping);
    clock.sleep(LET_GO_AFTER).await;
    orders.advance(Phase::LettingGo);
    std::future::pending().await
}

/// Reports in its drop that the loop is gone, whatever has ended it. From then on no order is handed to the loop, and
/// waits for the end of an invocation are told that no end will come.
struct Presence {
    orders: Arc<Orders>,
    hub: Arc<Hub>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.orders.advance(Phase::Gone);
        self.hub.close();
    }
}

struct Loop {
    orders: Arc<Orders>,
    resources: Resources,
    /// Those of what runs.
    surroundings: Arc<Surroundings>,
    backlog: Backlog,
    bounds: Arc<Bounds>,
    /// For what runs, to say how it ended: one message each, so there are no more than run.
    endings: mpsc::UnboundedSender<(ExecutionId, Outcome)>,
    outcomes: mpsc::UnboundedReceiver<(ExecutionId, Outcome)>,
    roster: Roster,
    /// Begun, and not started yet.
    starting: Vec<Followed>,
    starter: Arc<Starter>,
    /// Ended, and on its way to no record yet.
    ended: Vec<Over>,
    steps: Steps,
    /// Whether a claim by itself has failed: it is not tried for ever.
    claims_fail: bool,
    /// Whether only the ends of earlier runs are recorded.
    idle: bool,
    _presence: Presence,
    /// The last to be dropped: who waits for the end of the loop finds the store released.
    _alive: watch::Sender<()>,
}

/// When executions that are to be started were claimed.
#[derive(Clone, Copy)]
struct ClaimedAt {
    ms: i64,
    /// When that came to disk, by the monotonic clock; none of what goes on from before.
    committed: Option<Duration>,
}

impl Loop {
    async fn run(mut self, going_on: Vec<GoingOn>) {
        if self.orders.phase() == Phase::Working || self.idle {
            going_on.into_iter().for_each(|one| self.resume(one));
            self.start_begun();
        }
        loop {
            self.take_orders();
            let begun = self.begin_step();
            let done = self.roster.is_empty() && self.ended.is_empty() && self.steps.is_empty();
            if done && self.orders.is_at_end() {
                break;
            }
            if !begun {
                self.wait().await;
            }
            self.collect();
        }
        // What has been let go of holds folders and pipes until it is dropped, with its way to tell of an end.
        drop(self.endings);
        let clock = &self.resources.clock;
        tokio::select! {
            biased;
            () = async { while self.outcomes.recv().await.is_some() {} } => {}
            // An executor that blocks its thread cannot be dropped, so the loop does not wait for it.
            () = async {
                while self.orders.phase() < Phase::LettingGo {
                    self.orders.wake.notified().await;
                }
                clock.sleep(DROP_TIME_MAX).await;
            } => {}
        }
    }

    /// Waits for a step, an end or an order.
    async fn wait(&mut self) {
        tokio::select! {
            Some(step) = self.steps.next(), if !self.steps.is_empty() => self.conclude(step).await,
            Some((execution, outcome)) = self.outcomes.recv() => self.note_end(execution, outcome),
            () = self.orders.wake.notified() => self.claims_fail = false,
        }
    }

    fn collect(&mut self) {
        for _ in 0..COLLECT_MAX {
            let Ok((execution, outcome)) = self.outcomes.try_recv() else { break };
            self.note_end(execution, outcome);
        }
    }

    fn take_orders(&mut self) {
        let mut mail = self.orders.take_mail();
        if mail.new_work {
            self.backlog.expect_new();
        }
        self.backlog.release(mail.released.drain(..));
        for errand in mail.errands() {
            match errand {
                Errand::Launch(launch) => self.launch(launch),
                Errand::Stop(execution, order) => {
                    self.roster.stop(execution, order, self.steps.under_way());
                }
            }
        }
        if self.orders.phase() > Phase::Working && !self.idle {
            // The next engine takes them back.
            self.roster.let_go_of_kept();
        }
        if self.orders.phase() >= Phase::Stopping {
            self.roster.stop_all(&StopReason::Shutdown.into());
        }
        if self.orders.phase() >= Phase::LettingGo {
            self.let_go_of_all();
        }
        self.start_begun();
    }

    /// Ends executions that have not ended after their order to stop, without waiting for their executors.
    fn let_go_of_all(&mut self) {
        for running in self.roster.take_all() {
            running.contact.let_go();
            let info = "the executor did not stop in time and was dropped".to_owned();
            self.end(running, Outcome::Stopped { signal: None, exit_code: None, info });
        }
    }

    fn launch(&mut self, launch: Launch) {
        let Launch { sole, job, claimed, claimed_at_ms, committed } = launch;
        let fire = sole.fire;
        self.backlog.pass_over(fire);
        trace::tell_claim(claimed.len(), 1);
        // Nothing bounds it but its places, and it was dealt with and claimed at once.
        let (sole, dealt_at_ms) = (Some(sole), claimed_at_ms);
        let of = Arc::new(RunningFire { fire, job, limits: None, sole, dealt_at_ms });
        let at = ClaimedAt { ms: claimed_at_ms, committed: Some(committed) };
        for one in claimed {
            self.begin(&of, one, None, at, false);
        }
        // Small ones go with those that have come with them.
        if self.starting.len() >= run::TOGETHER_MAX {
            self.start_begun();
        }
    }

    fn start_begun(&mut self) {
        self.starter.start(std::mem::take(&mut self.starting));
    }

    fn note_end(&mut self, execution: ExecutionId, outcome: Outcome) {
        if let Some(running) = self.roster.remove(execution) {
            self.end(running, outcome);
        }
    }

    fn end(&mut self, running: Box<Running>, outcome: Outcome) {
        let report = running.contact.take_report();
        let asked = running.contact.order();
        // Whoever watched over it in the engine's place may have been the first to end it.
        let theirs = report.as_ref().and_then(|report| report.stopped_for);
        let theirs = theirs.filter(|cause| asked.is_none_or(|of| of.cause != *cause));
        let theirs = theirs.map(StopOrder::from);
        // By the monotonic clock: a clock set during the run does not change how long it took.
        let took = self.resources.clock.monotonic().saturating_sub(running.started);
        if running.is_begun {
            self.resources.store.meters().time(Measured::Run, took);
        }
        let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let finished_at_ms = running.started_at_ms.saturating_add(took_ms);
        let is_unstarted = report.as_ref().is_some_and(|report| report.is_unstarted)
            && asked.is_some_and(|order| order.cause == StopReason::Shutdown);
        let mut verdict = match outcome {
            Outcome::Broke { info } if report.as_ref().is_some_and(|report| report.is_lost) => {
                Verdict::interrupted(info)
            }
            // Nothing of it has happened, so the next engine may start it.
            _ if is_unstarted => Verdict::unstarted(),
            outcome => Verdict::new(outcome, theirs.as_ref().or(asked), running.job().timeout_s),
        };
        if let Some(remark) = report.as_ref().and_then(|report| report.remark.as_ref()) {
            verdict.add(remark);
        }
        let is_final = report.as_ref().is_some_and(|report| report.may_have_succeeded);
        let retry = running.job().retry.as_ref().filter(|_| !is_final);
        let delay_ms = retry.and_then(|retry| retry.delay_ms(verdict.cause, running.attempt));
        let ended_at_ms = report.as_ref().and_then(|report| report.ended_at_ms);
        let output = running.output.close();
        let delivery = running.delivery(verdict.cause);
        let ended = Ended {
            id: running.id,
            attempt: running.attempt,
            fire: running.of.fire,
            sole: running.of.sole,
            lets_wait: running.job().lets_wait,
            verdict,
            output,
            delivery,
            finished_at_ms: ended_at_ms.unwrap_or(finished_at_ms),
            report,
            retry_after_ms: delay_ms,
        };
        self.ended.push(Over::new(ended, running));
    }

    /// Begins a step that records ended executions and claims executions that may start, in one commit. Returns
    /// whether a step was begun.
    fn begin_step(&mut self) -> bool {
        if self.steps.is_full() {
            return false;
        }
        let claims = self.orders.phase() == Phase::Working
            && self.backlog.may_have_work()
            && !(self.claims_fail && self.ended.is_empty());
        // An execution that waits for an instance is claimed in the commit that frees the instance.
        let frees = self.ended.iter().any(|one| one.frees.is_some());
        let max = match (claims, frees && self.orders.phase() == Phase::Working) {
            (true, _) => CLAIM_MAX,
            (false, true) => self.ended.len().min(CLAIM_MAX),
            (false, false) => 0,
        };
        let mut places = self.orders.take_places(self.ended.len(), max);
        if places.room == 0 && self.ended.is_empty() {
            return false;
        }
        let over = std::mem::take(&mut self.ended);
        // This step may use the places that they leave; other steps may once the ends are on disk.
        self.backlog.hand_over(over.iter().filter_map(|one| one.run.of.limits.as_deref()));
        let steady_ms = self.resources.store.steady_ms(&*self.resources.clock);
        let mut plan = self.backlog.plan(places.room, steady_ms);
        plan.freed = self.backlog.freed(over.iter().filter_map(|one| one.frees));
        // Each that ends may let another have its instance, which takes a place.
        let unused = plan.trim(over.len());
        self.orders.free_places(places.let_go(unused));
        if plan.is_empty() && over.is_empty() {
            // Whatever waits, waits for something else than a place.
            self.give_up(&plan, places);
            return false;
        }
        self.steps.begin(over, plan, places);
        true
    }

    /// Acts on what a step came to.
    async fn conclude(&mut self, step: Step) {
        let Step { over, plan, places, written, .. } = step;
        match written {
            Ok(Written { finished, work, claimed_at_ms, committed, .. }) => {
                self.claims_fail = false;
                match work {
                    Some(work) => {
                        let at = ClaimedAt { ms: claimed_at_ms, committed: committed.into_inner() };
                        self.start_all(work, &plan, places, at);
                    }
                    None => {
                        self.orders.free_places(places.after(0));
                        self.backlog.give_up(&plan);
                    }
                }
                self.act_on(&over, finished);
            }
            Err(error) => {
                let suspects = self.steps.take_suspects();
                let any_suspect = !suspects.is_empty();
                for suspect in suspects {
                    self.backlog.set_aside(suspect.subject);
                    if let Some(invoke_id) = suspect.invoke_id {
                        self.resources.hub.fail(invoke_id, &suspect.error);
                    }
                }
                self.give_up(&plan, places);
                if error.is_lasting() {
                    self.write_apart(&over).await;
                    // Without the ends the claim may succeed. If the claim fails too, a careful plan looks for the
                    // fire that makes it fail. If the plan finds none, the loop waits for news.
                    self.claims_fail = over.is_empty() && plan.is_careful && !any_suspect;
                    if over.is_empty() {
                        self.backlog.be_careful();
                    }
                }
            }
        }
        // The places of the ended executions within bounds were reserved for this step until now.
        for limits in over.iter().filter_map(|one| one.run.of.limits.as_ref()) {
            self.backlog.rouse(limits);
        }
        self.roster.forget_stops(self.steps.under_way());
        if self.backlog.is_idle() {
            self.orders.be_quiet();
        }
    }

    fn give_up(&mut self, plan: &slots::Plan, places: Places) {
        self.orders.free_places(places.unused());
        self.backlog.give_up(plan);
    }

    /// One record that contradicts its execution must not keep the others from being written.
    async fn write_apart(&mut self, over: &Arc<Vec<Over>>) {
        for (n, one) in over.iter().enumerate() {
            let (id, invoke_id) = (one.ended.id, one.run.job().invoke_id);
            let (released, error) = match self.steps.write_apart(over, n).await {
                Ok(Recorded::Whole(finished)) => {
                    self.free_one(one);
                    self.act_on(std::slice::from_ref(one), finished);
                    continue;
                }
                Ok(Recorded::Least(finished, error)) => {
                    tell(
                        || tracing::error!(%error, %id, %invoke_id, "the end of an execution cannot be recorded whole"),
                    );
                    self.free_one(one);
                    self.act_on(std::slice::from_ref(one), finished);
                    continue;
                }
                Ok(Recorded::Nothing(released, error)) => (released, error),
                Err(error) if error.is_lasting() => (Vec::new(), error),
                // The engine is being stopped, and the disk takes nothing.
                Err(error) => {
                    tell(
                        || tracing::error!(%error, "ends of executions are left to the next engine"),
                    );
                    return;
                }
            };
            tell(
                || tracing::error!(%error, %id, %invoke_id, "the end of an execution cannot be recorded"),
            );
            // The execution has ended all the same. Its output is lost, and waiters of its invocation get the error.
            self.free_one(one);
            self.backlog.release(released);
            self.resources.hub.close_outputs(std::iter::once(id));
            self.resources.hub.fail(invoke_id, &error);
        }
    }

    /// Frees the places of an execution whose end is written by itself.
    fn free_one(&mut self, one: &Over) {
        one.give_up_places(&self.bounds);
        self.orders.free_places(1);
        self.backlog.open(one.frees);
    }

    /// Tells watchers of ended executions, and releases executions that waited for them.
    fn act_on(&mut self, over: &[Over], finished: Finished) {
        self.tell(over, &finished);
        self.backlog.release(finished.released);
    }

    /// Tells watchers of executions that cannot start and have ended.
    fn tell_aborted(&mut self, aborted: Aborted, at_ms: i64) {
        let Aborted { invoke_id, executions, finished } = aborted;
        let change = |(id, on): (ExecutionId, InstanceId)| {
            Change::of(id, on, ExecutionStatus::Aborted, at_ms)
        };
        self.resources.hub.publish(invoke_id, || executions.into_iter().map(change).collect());
        self.act_on(&[], finished);
    }

    fn start_all(&mut self, work: ClaimedWork, plan: &slots::Plan, places: Places, at: ClaimedAt) {
        let used: usize = work.claimed.iter().map(|fire| fire.executions.len()).sum();
        trace::tell_claim(used, work.claimed.len());
        self.orders.free_places(places.after(used));
        self.backlog.apply(plan, work.taken);
        for aborted in work.aborted {
            self.tell_aborted(aborted, at.ms);
        }
        for (invoke_id, error) in &work.stuck {
            self.resources.hub.fail(*invoke_id, error);
        }
        for ClaimedFire { of, executions, within } in work.claimed {
            // The end of the execution frees the place.
            within.into_iter().for_each(Within::keep);
            for (claimed, berth) in executions {
                self.begin(&of, claimed, berth, at, false);
            }
        }
        self.start_begun();
    }

    /// Takes back what has survived the engine before.
    fn resume(&mut self, going_on: GoingOn) {
        let GoingOn { fire, job, claimed, limits, started_at_ms, stop } = going_on;
        let id = claimed.id;
        self.orders.occupy_place();
        if let Some(limits) = &limits {
            self.backlog.occupy(limits);
        }
        let Target { row, instance } = &*claimed.target;
        let berth = instance.max_concurrency.and_then(|_| self.orders.berth(*row, u32::MAX));
        let of = RunningFire { fire, job, limits, sole: None, dealt_at_ms: started_at_ms };
        let at = ClaimedAt { ms: started_at_ms, committed: None };
        self.begin(&Arc::new(of), claimed, berth, at, true);
        if let Some(running) = self.roster.get_mut(id) {
            let clock = &self.resources.clock;
            let ran = now_ms(&**clock).saturating_sub(started_at_ms).max(0).cast_unsigned();
            running.started = clock.monotonic().saturating_sub(Duration::from_millis(ran));
            if let Some(stop) = stop {
                running.contact.ask_to_stop(&stop);
            }
        }
    }

    fn begin(
        &mut self,
        of: &Arc<RunningFire>,
        claimed: Claimed,
        berth: Option<Berth>,
        at: ClaimedAt,
        resumes: bool,
    ) {
        let job = &of.job;
        let Resources { store, hub, clock, executors, sinks, whole_outputs, .. } = &self.resources;
        let invoke_id = job.invoke_id;
        let output = hub.open_output(invoke_id, claimed.id);
        // What an engine with a sink for it began is kept for the next one that has one.
        let is_begun = resumes && whole_outputs.has(claimed.id);
        if job.settings.output_to.as_deref().is_some_and(|to| is_begun || sinks.serve(to)) {
            if resumes {
                // What the engine before kept of it comes again.
                whole_outputs.remove(claimed.id);
            }
            output.keep_whole(whole_outputs.begin(claimed.id));
        }
        let mut running = Box::new(Running {
            id: claimed.id,
            attempt: claimed.attempt,
            of: Arc::clone(of),
            target: claimed.target,
            berth,
            output,
            contact: Arc::default(),
            started_at_ms: at.ms,
            started: clock.monotonic(),
            is_begun: false,
        });
        // Known from the start: it must never be asked to stop for a shutdown.
        if resumes {
            running.contact.report(|report| report.is_kept = true);
        }
        hub.publish(invoke_id, || vec![running.change(ExecutionStatus::Running, at.ms)]);
        let Instance { executor: executor_name, name, shell, .. } = &running.target.instance;
        let plugged_in = match resumes {
            true => Some(Arc::new(Resumption) as Arc<dyn DynExecutor>),
            false => executors.get(executor_name).map(Arc::clone),
        };
        let Some(executor) = plugged_in else {
            let info = format!("no executor `{executor_name}` is plugged in");
            self.end(running, Outcome::Undeliverable { code: "ClientNotRunning", info });
            return;
        };
        // The request was made when the instance had another executor.
        if job.survive_restarts && !resumes && !self.resources.survivable.contains(executor_name) {
            let info = format!("runs of executor `{executor_name}` cannot survive restarts");
            self.end(running, Outcome::Unsuitable { code: "CommandNotApplicable", info });
            return;
        }
        let cx = ExecutionContext {
            output: Arc::clone(&running.output),
            contact: Arc::clone(&running.contact),
            surroundings: Arc::clone(&self.surroundings),
        };
        let content = match self.content(&running) {
            Ok(content) => content,
            // The name of the instance was another when the request was made.
            Err(violation) if !resumes => {
                let (code, info) = (violation.code, violation.message);
                self.end(running, Outcome::Unsuitable { code, info });
                return;
            }
            Err(_) => Arc::clone(&job.content),
        };
        let task = Task {
            content,
            resolved: None,
            shell: shell.as_deref().map(Box::from),
            instance_name: name.as_str().into(),
            execution_id: running.id,
            instance_id: running.instance_id().clone(),
            attempt: running.attempt,
            job: Arc::clone(job),
        };
        let (start, timeout) = (Start::new(store.meters(), &running, at.committed), task.timeout());
        // The host is not asked again about executions that it has permitted to start.
        let (work, start) = if !resumes && self.needs_admission(job) {
            let admission = self.admission(executor_name, start);
            (Box::pin(admission.execute(executor, task, cx.clone())) as Execute, None)
        } else {
            (executor.execute(task, cx.clone()), Some(start))
        };
        let orders = Arc::clone(&self.orders) as Arc<dyn PendingStops>;
        let run = Run::new((running.id, work), orders, cx, timeout, start);
        let run = run.instrument(trace::span(&running));
        self.starting.push(Followed::new(running.id, run, self.endings.clone()));
        running.is_begun = true;
        self.roster.add(running);
    }

    /// Returns whether the host has a part in the start of an execution.
    fn needs_admission(&self, job: &Job) -> bool {
        self.resources.authorizer.is_some() || job.has_secret_names()
    }

    /// Returns the host's part in the start of an execution.
    fn admission(&self, executor: &str, start: Start) -> Box<Admission> {
        let Resources { authorizer, secrets, config, clock, .. } = &self.resources;
        Box::new(Admission {
            authorizer: authorizer.clone(),
            secrets: secrets.clone(),
            config: Arc::clone(config),
            executor: executor.to_owned(),
            orders: Arc::clone(&self.orders) as Arc<dyn PendingStops>,
            clock: Arc::clone(clock),
            start,
        })
    }

    /// The script as it is for one instance.
    fn content(&self, running: &Running) -> Result<Content, Violation> {
        let job = running.job();
        let Some(arguments) = &job.arguments else { return Ok(Arc::clone(&job.content)) };
        let facts = Facts {
            names: &self.resources.config.names,
            instance_id: running.instance_id(),
            instance_name: &running.target.instance.name,
            invoke_id: job.invoke_id,
            command_id: job.command_id,
        };
        let script = Template::parse(&job.content);
        arguments.check_built_ins(&script, &facts)?;
        Ok(arguments.render(&script, &facts).into())
    }

    /// Tells the watchers, now that it is on disk.
    fn tell(&self, over: &[Over], finished: &Finished) {
        for Over { ended, run, .. } in over {
            let waits_again = finished.put_back.contains(&ended.id);
            let status = match ended.verdict.cause {
                Cause::Unstarted if !waits_again => Cause::Stopped.target(),
                cause => cause.target(),
            };
            let end = || run.change(status, ended.finished_at_ms);
            let next = finished.retries.get(&ended.id).map(|next| {
                let on = run.instance_id().clone();
                Change::retry(next.id, on, ended.finished_at_ms, next.retry_at_ms)
            });
            self.resources
                .hub
                .publish(run.job().invoke_id, || std::iter::once(end()).chain(next).collect());
            if !waits_again {
                trace::tell_end(run, status, ended.finished_at_ms);
            }
            if ended.report.as_ref().is_some_and(|report| report.is_kept) {
                let name = Scratch::name(ended.id, ended.attempt);
                self.resources.scratch.forget(name.as_ref());
            }
        }
        self.resources.hub.close_outputs(over.iter().map(|over| over.ended.id));
        for (invoke_id, cancelled) in &finished.called_off {
            let (at_ms, status) = (now_ms(&*self.resources.clock), ExecutionStatus::Cancelled);
            let change =
                |(id, on): &(ExecutionId, InstanceId)| Change::of(*id, on.clone(), status, at_ms);
            self.resources.hub.publish(*invoke_id, || cancelled.iter().map(change).collect());
        }
        if !finished.retries.is_empty() || finished.wave_ended || finished.more_to_stop {
            self.resources.scheduler.notify_one();
        }
        let waits = |over: &Over| {
            let delivery = over.ended.delivery.as_ref();
            delivery.is_some_and(|delivery| delivery.status == DeliveryStatus::InProgress)
        };
        if over.iter().any(waits) {
            self.resources.deliverer.notify_one();
        }
        for (invoke_id, error) in &finished.uncounted {
            self.resources.hub.fail(*invoke_id, error);
        }
        for &(invoke_id, status) in &finished.invocations {
            self.resources.hub.finish(invoke_id, status);
        }
    }
}

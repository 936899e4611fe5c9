//! Takes executions from waiting to running to ended. One loop: what has ended and what may start
//! share a commit; nothing starts before its claim is on disk, and nobody hears of an end before
//! that is. While one such step is written, the next gets ready. The bound on what runs is the number
//! of free places the loop hands out.

mod admission;
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

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::authorizer::DynAuthorizer;
use crate::clock::{Clock, now_ms};
use crate::command::content::Content;
use crate::command::template::{Facts, Template};
use crate::config::Config;
use crate::error::Error;
use crate::event::{Change, Hub};
use crate::execution::{Outcome, StopReason, Verdict};
use crate::executor::{DynExecutor, ExecutionContext, Resumption, Scratch, Task, ask_to_stop};
use crate::id::{ExecutionId, InstanceId};
use crate::invocation::Job;
use crate::metrics::Measured;
use crate::output::{DeliveryStatus, WholeOutputs};
use crate::secret::DynSecretResolver;
use crate::sink::Sinks;
use crate::status::ExecutionStatus;
use crate::store::claims::Claimed;
use crate::store::executions::{self, Ended, Finished, GoingOn};
use crate::store::fires::FireLimits;
use crate::store::{Store, Tx};

use admission::Admission;
use claim::{ClaimedFire, ClaimedWork};
use orders::{Berth, Errand, Orders, Phase};
use roster::{Roster, Running};
use slots::Backlog;
use steps::{Step, Steps, Written};
use trace::Start;

pub(crate) use orders::{Launch, Line, Reservation};

/// Executors by the name that instances give.
pub(crate) type Executors = HashMap<String, Arc<dyn DynExecutor>>;

/// Executions claimed by one step: few enough for the next to be claimed while these start.
const CLAIM_MAX: usize = 512;

/// What the loop works with.
pub(crate) struct Resources {
    pub store: Arc<Store>,
    pub hub: Arc<Hub>,
    pub clock: Arc<dyn Clock>,
    pub config: Arc<Config>,
    pub executors: Executors,
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
    /// Starts the loop on the current runtime, with what goes on from before; if `idle`, it ends without
    /// having started anything.
    pub(crate) fn start(resources: Resources, going_on: Vec<GoingOn>, idle: bool) -> Self {
        let kept = going_on.iter().map(|one| (one.claimed.id, one.claimed.attempt));
        let kept = if idle { kept.collect() } else { HashMap::new() };
        let (places, scratch) = (resources.config.concurrency_max, Arc::clone(&resources.scratch));
        let orders = Arc::new(Orders::new(places, scratch, kept));
        if idle {
            orders.advance(Phase::Draining);
        }
        let (still_alive, alive) = watch::channel(());
        let Resources { store, clock, .. } = &resources;
        let steps = Steps::new(Arc::clone(store), Arc::clone(&orders), Arc::clone(clock));
        let (endings, outcomes) = mpsc::unbounded_channel();
        let work = Loop {
            orders: Arc::clone(&orders),
            backlog: Backlog::new(resources.config.concurrency_keys.clone()),
            resources,
            endings,
            outcomes,
            let_go: Vec::new(),
            roster: Roster::default(),
            ended: Vec::new(),
            steps,
            claims_fail: false,
            _alive: still_alive,
        };
        tokio::spawn(work.run(going_on));
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

    /// Starts nothing more, waits for what runs until `deadline`, then ends it.
    pub(crate) async fn shut_down(&self, deadline: Duration, clock: &dyn Clock) {
        self.drain();
        let mut alive = self.alive.clone();
        tokio::select! {
            biased;
            // Nothing is ever sent: it changes only by ending.
            _ = alive.changed() => return,
            () = clock.sleep(deadline) => self.orders.advance(Phase::Stopping),
        }
        let _ = alive.changed().await;
    }
}

struct Loop {
    orders: Arc<Orders>,
    resources: Resources,
    backlog: Backlog,
    /// For what runs, to say how it ended: one message each, so there are no more than run.
    endings: mpsc::UnboundedSender<(ExecutionId, Outcome)>,
    outcomes: mpsc::UnboundedReceiver<(ExecutionId, Outcome)>,
    roster: Roster,
    /// Tasks that are being dropped, and until then hold folders and pipes: what they watched over goes on
    /// without them.
    let_go: Vec<JoinHandle<()>>,
    /// Ended, and on its way to no record yet.
    ended: Vec<(Ended, Running)>,
    steps: Steps,
    /// Whether a claim by itself has failed: it is not tried for ever.
    claims_fail: bool,
    /// The last to be dropped: who waits for the end of the loop finds the store released.
    _alive: watch::Sender<()>,
}

/// An execution that is to be started.
struct Starting {
    fire: i64,
    job: Arc<Job>,
    limits: Option<Arc<FireLimits>>,
    claimed: Claimed,
    berth: Option<Berth>,
    /// When its fire was dealt with, and it was claimed.
    dealt_at_ms: i64,
    started_at_ms: i64,
    /// When its claim came to disk, by the monotonic clock; none of what goes on from before.
    committed: Option<Duration>,
}

impl Loop {
    async fn run(mut self, going_on: Vec<GoingOn>) {
        if self.orders.phase() == Phase::Working {
            going_on.into_iter().for_each(|one| self.resume(one));
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
        for task in self.let_go {
            let _ = task.await;
        }
        self.resources.hub.close();
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
        while let Ok((execution, outcome)) = self.outcomes.try_recv() {
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
        if self.orders.phase() > Phase::Working {
            self.let_go();
        }
        if self.orders.phase() == Phase::Stopping {
            self.roster.stop_all(&StopReason::Shutdown.into());
        }
    }

    fn launch(&mut self, launch: Launch) {
        let Launch { fire, job, claimed, claimed_at_ms, committed } = launch;
        self.backlog.pass_over(fire);
        trace::tell_claim(claimed.len(), 1);
        let executions = claimed.into_iter().map(|one| (one, None)).collect();
        // Nothing bounds it but its places, and it was dealt with and claimed at once.
        let claimed =
            ClaimedFire { fire, job, limits: None, dealt_at_ms: claimed_at_ms, executions };
        self.start(claimed, claimed_at_ms, Some(committed));
    }

    /// Leaves to themselves those that go on without an engine: the next one takes them back.
    fn let_go(&mut self) {
        for task in self.roster.remove_kept().filter_map(|running| running.task) {
            task.abort();
            self.let_go.push(task);
        }
    }

    fn note_end(&mut self, execution: ExecutionId, outcome: Outcome) {
        if let Some(running) = self.roster.remove(execution) {
            self.end(running, outcome);
        }
    }

    fn end(&mut self, mut running: Running, outcome: Outcome) {
        self.orders.free_places(1);
        if let Some(limits) = &running.limits {
            self.backlog.vacate(limits);
        }
        // Free before its end is written, which lets another have it.
        let frees = running.berth.take().map(|berth| berth.instance);
        let report =
            std::mem::take(&mut *running.report.lock().unwrap_or_else(PoisonError::into_inner));
        let asked = running.stop.borrow().clone();
        // Whoever watched over it in the engine's place may have been the first to end it.
        let asked = match report.stopped_for {
            Some(cause) if asked.as_ref().is_none_or(|order| order.cause != cause) => {
                Some(cause.into())
            }
            _ => asked,
        };
        // By the monotonic clock: a clock set during the run does not change how long it took.
        let took = self.resources.clock.monotonic().saturating_sub(running.started);
        if running.task.is_some() {
            self.resources.store.meters().time(Measured::Run, took);
        }
        let took_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        let finished_at_ms = running.started_at_ms.saturating_add(took_ms);
        let mut verdict = match outcome {
            Outcome::Broke { info } if report.is_lost => Verdict::interrupted(info),
            outcome => Verdict::new(outcome, asked.as_ref(), running.job.timeout_s),
        };
        if let Some(remark) = &report.remark {
            verdict.add(remark);
        }
        let retry = running.job.retry.as_ref();
        let delay_ms = retry.and_then(|retry| retry.delay_ms(verdict.cause, running.attempt));
        let output = running.output.close();
        let delivery = running.delivery(verdict.cause);
        let ended = Ended {
            id: running.id,
            attempt: running.attempt,
            fire: running.fire,
            lets_wait: running.job.lets_wait,
            frees,
            verdict,
            output,
            delivery,
            finished_at_ms: report.ended_at_ms.unwrap_or(finished_at_ms),
            report,
            retry_at_ms: delay_ms
                .map(|delay_ms| now_ms(&*self.resources.clock).saturating_add(delay_ms)),
        };
        self.ended.push((ended, running));
    }

    /// Has what ended written down and what may start claimed, in one commit; whether there was anything
    /// to do, and not too much on its way.
    fn begin_step(&mut self) -> bool {
        if self.steps.is_full() {
            return false;
        }
        let claims = self.orders.phase() == Phase::Working
            && self.backlog.may_have_work()
            && !(self.claims_fail && self.ended.is_empty());
        let room = if claims { self.orders.take_places(CLAIM_MAX) } else { 0 };
        if room == 0 && self.ended.is_empty() {
            return false;
        }
        let mut plan = self.backlog.plan(room, now_ms(&*self.resources.clock));
        // Each that ends may let another have its instance, which takes a place.
        self.orders.free_places(plan.trim(self.ended.len()));
        if plan.is_empty() && self.ended.is_empty() {
            // Whatever waits, waits for something else than a place.
            self.give_up(&plan);
            return false;
        }
        // In the order of their numbers, which is that of their rows.
        self.ended.sort_unstable_by_key(|(ended, _)| ended.id);
        let (ended, runs) = self.ended.drain(..).unzip();
        self.steps.begin(ended, runs, plan);
        true
    }

    /// Acts on what a step came to.
    async fn conclude(&mut self, step: Step) {
        let Step { ended, runs, plan, written, .. } = step;
        match written {
            Ok(Written { finished, work, claimed_at_ms, committed, .. }) => {
                self.claims_fail = false;
                match work {
                    Some(work) => {
                        let committed = committed.into_inner();
                        self.start_all(work, &plan, claimed_at_ms, committed);
                    }
                    None => self.give_up(&plan),
                }
                self.act_on(&ended, &runs, finished);
            }
            Err(error) => {
                self.give_up(&plan);
                if matches!(error, Error::Internal(_)) {
                    self.write_apart(&ended, &runs).await;
                    // Without them the claim may go through; if not, it waits for news.
                    self.claims_fail = ended.is_empty();
                }
            }
        }
        self.roster.forget_stops(self.steps.under_way());
        if self.backlog.is_idle() {
            self.orders.be_quiet();
        }
    }

    fn give_up(&mut self, plan: &slots::Plan) {
        self.orders.free_places(plan.room);
        self.backlog.give_up(plan);
    }

    /// One record that contradicts its execution must not keep the others from being written.
    async fn write_apart(&mut self, ended: &Arc<Vec<Ended>>, runs: &[Running]) {
        for (n, run) in runs.iter().enumerate() {
            let shared = Arc::clone(ended);
            let op = move |tx: Tx<'_>| executions::finish(tx, std::slice::from_ref(&shared[n]));
            match self.resources.store.write(op).await {
                Ok(finished) => {
                    let (ended, run) = (std::slice::from_ref(&ended[n]), std::slice::from_ref(run));
                    self.act_on(ended, run, finished);
                }
                Err(error) => tracing::error!(%error, "the end of an execution cannot be recorded"),
            }
        }
    }

    /// Tells of what has ended, and sees to what that has led to.
    fn act_on(&mut self, ended: &[Ended], runs: &[Running], finished: Finished) {
        self.tell(ended, runs, &finished);
        self.backlog.release(finished.released);
        self.backlog.admit(finished.admitted);
    }

    fn start_all(
        &mut self,
        work: ClaimedWork,
        plan: &slots::Plan,
        started_at_ms: i64,
        committed: Option<Duration>,
    ) {
        let used: usize = work.claimed.iter().map(|fire| fire.executions.len()).sum();
        trace::tell_claim(used, work.claimed.len());
        self.orders.free_places(plan.room.saturating_sub(used));
        self.backlog.apply(plan, work.taken);
        for fire in work.claimed {
            self.start(fire, started_at_ms, committed);
        }
    }

    fn start(&mut self, claimed: ClaimedFire, started_at_ms: i64, committed: Option<Duration>) {
        let ClaimedFire { fire, job, limits, dealt_at_ms, executions } = claimed;
        for (claimed, berth) in executions {
            let (job, limits) = (Arc::clone(&job), limits.clone());
            let starting = Starting {
                fire,
                job,
                limits,
                claimed,
                berth,
                dealt_at_ms,
                started_at_ms,
                committed,
            };
            self.begin(starting, false);
        }
    }

    /// Takes back what has survived the engine before.
    fn resume(&mut self, going_on: GoingOn) {
        let GoingOn { fire, job, claimed, limits, started_at_ms, stop } = going_on;
        let id = claimed.id;
        self.orders.occupy_place();
        if let Some(limits) = &limits {
            self.backlog.occupy(limits);
        }
        let berth =
            claimed.instance_max.and_then(|_| self.orders.berth(claimed.instance, u32::MAX));
        let starting = Starting {
            fire,
            job,
            limits,
            claimed,
            berth,
            dealt_at_ms: started_at_ms,
            started_at_ms,
            committed: None,
        };
        self.begin(starting, true);
        if let Some(running) = self.roster.get_mut(id) {
            let clock = &self.resources.clock;
            let ran = now_ms(&**clock).saturating_sub(started_at_ms).max(0).cast_unsigned();
            running.started = clock.monotonic().saturating_sub(Duration::from_millis(ran));
            if let Some(stop) = stop {
                ask_to_stop(&running.stop, &stop);
            }
        }
    }

    fn begin(&mut self, starting: Starting, resumes: bool) {
        let Starting { fire, job, limits, claimed, berth, dealt_at_ms, started_at_ms, committed } =
            starting;
        let Resources {
            store, hub, config, clock, executors, scratch, sinks, whole_outputs, ..
        } = &self.resources;
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
        let (stop, stop_asked) = watch::channel(None);
        let running = Running {
            id: claimed.id,
            attempt: claimed.attempt,
            fire,
            instance_id: claimed.instance_id.clone(),
            job,
            limits,
            berth,
            dealt_at_ms,
            output,
            report: Arc::default(),
            stop: Arc::new(stop),
            started_at_ms,
            started: clock.monotonic(),
            task: None,
        };
        hub.publish(invoke_id, || vec![running.change(ExecutionStatus::Running, started_at_ms)]);
        let resumption: Arc<dyn DynExecutor> = Arc::new(Resumption);
        let executor = if resumes { Some(&resumption) } else { executors.get(&claimed.executor) };
        let Some(executor) = executor else {
            let info = format!("no executor `{}` is plugged in", claimed.executor);
            self.end(running, Outcome::Undeliverable { code: "ClientNotRunning", info });
            return;
        };
        let cx = ExecutionContext {
            output: Arc::clone(&running.output),
            stop: stop_asked,
            stop_grace: config.stop_grace,
            clock: Arc::clone(clock),
            scratch: Arc::clone(scratch),
            report: Arc::clone(&running.report),
        };
        let content = self.content(&running.job, &claimed);
        // What was permitted to start is not asked for again.
        let admission = match resumes {
            true => None,
            false => self.admission(&running.job, claimed.instance_name),
        };
        let task = Task {
            content,
            resolved: None,
            password: None,
            shell: claimed.shell,
            execution_id: running.id,
            instance_id: running.instance_id.clone(),
            attempt: running.attempt,
            job: Arc::clone(&running.job),
        };
        let start = Start::new(store.meters(), &running, committed);
        let work =
            run::run(Arc::clone(executor), admission, task, cx, Arc::clone(&running.stop), start);
        let work = work.instrument(trace::span(&running));
        let ending = run::Ending::new(running.id, self.endings.clone());
        let task = tokio::spawn(ending.follow(work));
        self.roster.add(Running { task: Some(task), ..running });
    }

    /// The host's part in the start of an execution, if it has one.
    fn admission(&self, job: &Job, instance_name: String) -> Option<Admission> {
        let Resources { authorizer, secrets, config, .. } = &self.resources;
        if authorizer.is_none() && !job.has_secret_names() {
            return None;
        }
        Some(Admission {
            authorizer: authorizer.clone(),
            secrets: secrets.clone(),
            config: Arc::clone(config),
            instance_name,
        })
    }

    /// The script as it is for one instance.
    fn content(&self, job: &Job, claimed: &Claimed) -> Content {
        let Some(arguments) = &job.arguments else { return Arc::clone(&job.content) };
        let facts = Facts {
            names: &self.resources.config.names,
            instance_id: &claimed.instance_id,
            instance_name: &claimed.instance_name,
            invoke_id: job.invoke_id,
            command_id: job.command_id,
        };
        arguments.render(&Template::parse(&job.content), &facts).into()
    }

    /// Tells the watchers, now that it is on disk.
    fn tell(&self, ended: &[Ended], runs: &[Running], finished: &Finished) {
        for (ended, run) in ended.iter().zip(runs) {
            let status = ended.verdict.cause.target();
            let end = || run.change(status, ended.finished_at_ms);
            let next = finished.retries.get(&ended.id).map(|next| {
                let on = run.instance_id.clone();
                Change::retry(next.id, on, ended.finished_at_ms, next.retry_at_ms)
            });
            self.resources
                .hub
                .publish(run.job.invoke_id, || std::iter::once(end()).chain(next).collect());
            trace::tell_end(run, ended);
            self.resources.hub.close_output(ended.id);
            if ended.report.is_kept {
                let name = Scratch::name(ended.id, ended.attempt);
                self.resources.scratch.forget(name.as_ref());
            }
        }
        for (invoke_id, cancelled) in &finished.called_off {
            let (at_ms, status) = (now_ms(&*self.resources.clock), ExecutionStatus::Cancelled);
            let change =
                |(id, on): &(ExecutionId, InstanceId)| Change::of(*id, on.clone(), status, at_ms);
            self.resources.hub.publish(*invoke_id, || cancelled.iter().map(change).collect());
        }
        if !finished.retries.is_empty() || finished.wave_ended {
            self.resources.scheduler.notify_one();
        }
        let waits = |ended: &Ended| {
            let delivery = ended.delivery.as_ref();
            delivery.is_some_and(|delivery| delivery.status == DeliveryStatus::InProgress)
        };
        if ended.iter().any(waits) {
            self.resources.deliverer.notify_one();
        }
        for &(invoke_id, status) in &finished.invocations {
            self.resources.hub.finish(invoke_id, status);
        }
    }
}

//! Setting an engine up.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::announcer::UnderWay;
use super::runtime;
use super::{Announcer, Engine, Inner, Records};
use crate::authorizer::{Authorizer, DynAuthorizer};
use crate::clock::{Clock, SystemClock, boot_id, now_ms};
use crate::config::{Config, Durability, OutputQuota};
use crate::deliverer;
use crate::dispatcher::{Dispatcher, Executors, Resources};
use crate::ending::ContainedClock;
use crate::error::{Error, Result};
use crate::event::{Feed, Hub};
use crate::executor::{DynExecutor, Executor, ProcessExecutor, Scratch};
use crate::gate::{DynWaveGate, WaveGate};
use crate::instance::{Instance, LOCAL};
use crate::limits::Limits;
use crate::output::WholeOutputs;
use crate::panics::{contain, tell};
use crate::recovery;
use crate::schedule::ZoneData;
use crate::scheduler::{EXECUTIONS_MAX, Replanning, Scheduler, Step, Vigil};
use crate::secret::{DynSecretResolver, SecretResolver};
use crate::sink::{OutputSink, Sinks};
use crate::store::executions::Interrupted;
use crate::store::{Location, Store, StoreOptions, Tx, firing, instances};

/// The number of instances of this machine that one commit tells of its boot.
const INSTANCES_MAX: usize = 512;

/// The longest time for the ends of surviving runs to be recorded by an engine that starts nothing.
const RECORDED_MAX: Duration = Duration::from_secs(5);
/// The time between two looks whether another engine still runs the file.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What an engine is to be. Everything has a default; without a [`path`](EngineBuilder::path) it
/// lives in memory.
///
/// # A host with an executor of its own
///
/// ```
/// use adjutant::{ClosureExecutor, Engine, Instance, RunCommand};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::builder()
///     .max_concurrent(200)
///     .executor("mailer", ClosureExecutor::new(|_task, _cx| async { Ok::<(), String>(()) }))
///     .open()
///     .await?;
/// engine.register_instance(Instance::new("mailer-1").executor("mailer")).await?;
/// let run = engine.run_command(RunCommand::shell("weekly").on(["mailer-1"])).await?;
/// assert_eq!(engine.wait(&run.invoke_id).await?.results[0].exit_code, Some(0));
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
#[must_use]
pub struct EngineBuilder {
    location: Location,
    read_only: bool,
    idle: bool,
    is_strict: bool,
    adopts: bool,
    wait: Duration,
    config: Config,
    /// `None` for the system's clock.
    clock: Option<Arc<dyn Clock>>,
    executors: Executors,
    authorizer: Option<Arc<dyn DynAuthorizer>>,
    secrets: Option<Arc<dyn DynSecretResolver>>,
    sinks: Sinks,
    gate: Option<Arc<dyn DynWaveGate>>,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder")
            .field("location", &self.location)
            .field("read_only", &self.read_only)
            .field("idle", &self.idle)
            .field("config", &self.config)
            .field("executors", &self.executors.keys())
            .finish_non_exhaustive()
    }
}

impl EngineBuilder {
    pub(super) fn new() -> Self {
        Self {
            location: Location::Memory,
            read_only: false,
            idle: false,
            is_strict: true,
            adopts: false,
            wait: Duration::ZERO,
            config: Config::default(),
            clock: None,
            executors: Executors::new(),
            authorizer: None,
            secrets: None,
            sinks: Sinks::default(),
            gate: None,
        }
    }

    /// Keeps the records in this file.
    pub fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.location = Location::File(path.as_ref().to_owned());
        self
    }

    /// Only reads, also while another process runs the file. Nothing runs, and writing is refused.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Starts nothing: what waits stays for the next engine, and so does what is requested of this
    /// one. For a look at the records, or a change to them, that is over before anything could run.
    pub fn idle(mut self) -> Self {
        self.idle = true;
        self
    }

    /// Sets whether the engine refuses a file that other users could have made or could change; `true` by default.
    /// Because schedules in the file run as the user of this process, such a file could run commands of another user.
    ///
    /// The file, the files and folders beside it, its folder and all folders above have to belong to this user or to
    /// root, and no other user may write to them. A group counts as other users, unless the group is a user's own. In a
    /// folder that all users may write to, such as `/tmp`, the sticky bit has to be set. The engine checks this before
    /// it touches any of these files. The error is of kind [`StorageErrorKind::Unsafe`], and names the path, its owner
    /// and its mode.
    ///
    /// Give `false` if several users run the file in turn. The files that the engine makes then have the group and the
    /// mode of the database. Because an engine that is [`read_only`](Self::read_only) starts nothing, it reads files of
    /// every user; it checks only that no other user has put a log beside the file.
    ///
    /// [`StorageErrorKind::Unsafe`]: crate::StorageErrorKind::Unsafe
    pub fn strict_modes(mut self, is_strict: bool) -> Self {
        self.is_strict = is_strict;
        self
    }

    /// Takes over a file that was run on another machine last. Because a copy would start schedules and waiting
    /// executions a second time, an engine without this refuses such a file if it has any; the error is of kind
    /// [`StorageErrorKind::OtherMachine`]. An engine that is [`idle`](Self::idle) or [`read_only`](Self::read_only)
    /// starts nothing, and opens every file.
    ///
    /// The number in `/etc/machine-id` tells machines apart. If there is no number, or each boot draws a new one, every
    /// file opens. A container has the number of its image, wherever the container runs. If several containers or
    /// machines with numbers of their own run one file in turn, give this always.
    ///
    /// [`StorageErrorKind::OtherMachine`]: crate::StorageErrorKind::OtherMachine
    pub fn adopt(mut self) -> Self {
        self.adopts = true;
        self
    }

    /// Sets how long, in real time, the engine waits for another engine on the file to end, as in a deploy that starts
    /// the new process before the old one has ended; not at all by default. After that the error is [`Error::InUse`].
    pub fn wait_for_file(mut self, longest: Duration) -> Self {
        self.wait = longest;
        self
    }

    /// Executions that may run at a time; 64 by default, at least 1.
    pub fn max_concurrent(mut self, executions: usize) -> Self {
        self.config.concurrency_max = executions.max(1);
        self
    }

    /// Says how many executions run at a time, of all invocations whose `ConcurrencyKey` this is; at
    /// least 1, which is also what keys have that nothing is said of.
    pub fn concurrency_key(mut self, key: impl Into<String>, executions: usize) -> Self {
        self.config.concurrency_keys.insert(key.into(), executions.max(1));
        self
    }

    /// Asks the host before each wave of an invocation but its first.
    pub fn wave_gate(mut self, gate: impl WaveGate) -> Self {
        self.gate = Some(Arc::new(gate));
        self
    }

    /// Requests for invocations that may wait to be stored at a time; 16,384 by default, at least 1. What
    /// comes beyond is refused with [`Error::Busy`].
    pub fn max_submissions(mut self, requests: usize) -> Self {
        self.config.submissions_max = requests.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// Plugs in an executor under the name by which instances ask for it. `local` is there by
    /// default and can be replaced.
    pub fn executor(mut self, name: impl Into<String>, executor: impl Executor) -> Self {
        self.executors.insert(name.into(), Arc::new(executor));
        self
    }

    /// Asks the host before anything is done; everything is permitted by default.
    pub fn authorizer(mut self, authorizer: impl Authorizer) -> Self {
        self.authorizer = Some(Arc::new(authorizer));
        self
    }

    /// Plugs in the host's store of secrets.
    pub fn secret_resolver(mut self, resolver: impl SecretResolver) -> Self {
        self.secrets = Some(Arc::new(resolver));
        self
    }

    /// Plugs in a sink for whole outputs that requests send to `place` or to folders in it: a bucket
    /// as in `oss://bucket` or `https://bucket.cos.region.myqcloud.com`, a folder as in
    /// `file:///var/log/runs`, or all that a scheme can name, as in `file://`. Of several the closest
    /// takes an output. The text is compared as it is; what no sink serves is recorded as not delivered.
    pub fn output_sink(mut self, place: impl AsRef<str>, sink: impl OutputSink) -> Self {
        self.sinks.insert(place.as_ref(), Arc::new(sink));
        self
    }

    /// Bytes of an output that may wait on disk to be delivered, beside the database or, of an engine
    /// in memory, in the system's temporary folder; 1 GiB by default. Of an execution that prints more
    /// nothing is delivered.
    pub fn max_delivery(mut self, bytes: u64) -> Self {
        self.config.delivery_bytes_max = bytes;
        self
    }

    /// Sets how many bytes all outputs together may take on disk while they are written or wait to be delivered; 8 GiB
    /// by default. An output that finds no room is not delivered, with the code `OutputSink.NoRoom`.
    pub fn max_deliveries(mut self, bytes: u64) -> Self {
        self.config.deliveries_bytes_max = bytes;
        self
    }

    /// Takes time from this clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Holds requests to these limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits.within_records();
        self
    }

    /// Says how far an acknowledged write is from the disk.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.config.durability = durability;
        self
    }

    /// Sets the time between the request to a process to end and its kill; 5 s by default. Once the deadline of a
    /// shutdown has passed, the time is 50 ms at most.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.config.stop_grace = grace;
        self
    }

    /// Says how much of an output its record keeps.
    pub fn output_quota(mut self, quota: OutputQuota) -> Self {
        self.config.output = quota;
        self
    }

    /// Gives `{{ACS::RegionId}}` in scripts a value; it is empty by default.
    pub fn region_id(mut self, region_id: impl Into<String>) -> Self {
        self.config.names.region_id = region_id.into();
        self
    }

    /// Gives `{{ACS::AccountId}}` in scripts a value; it is empty by default.
    pub fn account_id(mut self, account_id: impl Into<String>) -> Self {
        self.config.names.account_id = account_id.into();
        self
    }

    /// Opens the engine on the current tokio runtime, which needs time and I/O. If the future is dropped before it is
    /// ready, its work on the file goes on in the background, and the file is closed after that.
    ///
    /// # Errors
    ///
    /// As [`Engine::open`].
    pub async fn open(self) -> Result<Engine> {
        Ok(self.open_and_follow().await?.0)
    }

    /// Does the same and follows what happens from the first moment on: what the last engine left
    /// to be done is done before [`Engine::follow`] could be called.
    ///
    /// # Errors
    ///
    /// As [`Engine::open`].
    pub async fn open_and_follow(mut self) -> Result<(Engine, Feed)> {
        runtime::check().await?;
        self.executors.entry(LOCAL.to_owned()).or_insert_with(|| Arc::new(ProcessExecutor::new()));
        if !self.read_only && !self.idle {
            self.check_host()?;
        }
        let options = StoreOptions {
            location: self.location.clone(),
            read_only: self.read_only,
            is_strict: self.is_strict,
            starts: !self.idle,
            adopts: self.adopts,
            durability: self.config.durability,
            readers_max: self.config.readers_max,
        };
        let (store, scratch) = self.open_store(options).await?;
        self.start(Arc::new(store), scratch.map(Arc::new)).await
    }

    /// Opens the file, once the engine that runs it has ended.
    async fn open_store(&self, options: StoreOptions) -> Result<(Store, Option<Scratch>)> {
        // The other engine ends in real time, whatever the clock of the host says.
        let clock = SystemClock::default();
        loop {
            let options = options.clone();
            let open = move || -> Result<_> {
                let store = Store::open(&options)?;
                let scratch = match store.path() {
                    _ if options.read_only => None,
                    Some(path) => Some(Scratch::of(path)?),
                    None => Some(Scratch::temporary()?),
                };
                Ok((store, scratch))
            };
            let opened = tokio::task::spawn_blocking(open).await;
            let opened =
                opened.map_err(|error| Error::Internal(format!("opening did not end: {error}")))?;
            let left = self.wait.saturating_sub(clock.monotonic());
            match opened {
                Err(Error::InUse { .. }) if !left.is_zero() => {
                    clock.sleep(left.min(LOOK_EVERY)).await;
                }
                opened => return opened,
            }
        }
    }

    /// Refuses to open in a host in which an executor cannot work.
    fn check_host(&self) -> Result<()> {
        let mut unfit = self.executors.iter().filter_map(|(name, executor)| {
            let checked = contain(|| executor.check_host());
            let checked = checked.unwrap_or_else(|panic| Err(format!("its check panics: {panic}")));
            let reason = checked.err()?;
            Some(Error::Unfit { executor: name.clone(), reason })
        });
        unfit.next().map_or(Ok(()), Err)
    }

    async fn start(
        self,
        store: Arc<Store>,
        scratch: Option<Arc<Scratch>>,
    ) -> Result<(Engine, Feed)> {
        let Self { config, clock, executors, idle, authorizer, secrets, sinks, gate, .. } = self;
        let clock: Arc<dyn Clock> = match clock {
            None => Arc::new(SystemClock::default()),
            Some(hosts) => Arc::new(ContainedClock::new(hosts, Arc::clone(store.ending()))?),
        };
        let config = Arc::new(config);
        let hub = Arc::new(Hub::new(config.output));
        let feed = hub.follow();
        // Waits and watches are told of the end, whatever its cause.
        let told = Arc::clone(&hub);
        store.ending().on_end(move || told.close());
        let vigil = Arc::new(Vigil::begin(Arc::clone(&clock)));
        let boot_id = boot_id();
        let mut executor_names: Vec<String> = executors.keys().cloned().collect();
        executor_names.sort();
        // What an engine in memory runs has no record in which the next engine could find it.
        let survives = |executor: &Arc<dyn DynExecutor>| {
            store.path().is_some() && contain(|| executor.can_survive_restarts()).unwrap_or(false)
        };
        let survivable = executors.iter().filter(|(_, executor)| survives(executor));
        let survivable: Arc<HashSet<_>> =
            Arc::new(survivable.map(|(name, _)| name.clone()).collect());
        let under_way = Arc::new(UnderWay::default());
        let announcer = |dispatcher: &Dispatcher| Announcer {
            hub: Arc::clone(&hub),
            meters: Arc::clone(store.meters()),
            dispatcher: Some(dispatcher.line()),
            // It looks by itself before it sleeps for the first time.
            scheduler: None,
            under_way: Arc::clone(&under_way),
        };
        let wake_scheduler = Arc::new(Notify::new());
        let mut dispatcher = None;
        if let Some(scratch) = scratch.clone() {
            store.follow(&clock).await?;
            let now_ms = now_ms(&*clock);
            let left = recovery::look_after(&store, &scratch).await?;
            let may_forget = left.may_forget;
            let (mut interrupted, booted) =
                Self::take_over(&store, left, boot_id.clone(), now_ms).await?;
            // The records now tell the end of every run that earlier engines have left. If some of their processes
            // may go on and no list of them could be kept, the numbers of the earlier engines stay, and the next
            // engine finds the processes by these numbers.
            if may_forget {
                scratch.settle();
            }
            recovery::replan(&store, ZoneData::in_use(), false, now_ms).await?;
            let outputs = WholeOutputs::new(
                store.path(),
                config.delivery_bytes_max,
                config.deliveries_bytes_max,
            );
            recovery::tidy_outputs(&store, &outputs, &interrupted.going_on).await?;
            let (sinks, outputs) = (Arc::new(sinks), Arc::new(outputs));
            let deliver = Arc::new(Notify::new());
            let resources = Resources {
                store: Arc::clone(&store),
                hub: Arc::clone(&hub),
                clock: Arc::clone(&clock),
                config: Arc::clone(&config),
                executors,
                survivable: Arc::clone(&survivable),
                authorizer: authorizer.clone(),
                secrets: secrets.clone(),
                scratch,
                scheduler: Arc::clone(&wake_scheduler),
                sinks: Arc::clone(&sinks),
                whole_outputs: Arc::clone(&outputs),
                deliverer: Arc::clone(&deliver),
            };
            let going_on = std::mem::take(&mut interrupted.going_on);
            let started = dispatcher.insert(Dispatcher::start(resources, going_on, idle));
            let resources = deliverer::Resources {
                store: Arc::clone(&store),
                hub: Arc::clone(&hub),
                clock: Arc::clone(&clock),
                sinks,
                outputs,
                wake: deliver,
                sources: started.alive(),
            };
            if idle {
                // Nothing is ever sent: the channel closes when the ends of surviving runs are recorded.
                let _ = tokio::time::timeout(RECORDED_MAX, started.alive().changed()).await;
            } else {
                deliverer::start(resources);
            }
            announcer(started).interrupted(&interrupted, now_ms);
            booted.iter().for_each(|step| announcer(started).step(step));
        }
        let scheduler = dispatcher.as_ref().filter(|_| !idle).map(|dispatcher| {
            let announcer = announcer(dispatcher);
            announcer.new_work();
            let (replanned, time) = (Arc::clone(&store), Arc::clone(&clock));
            let replan = move |data: &'static ZoneData| -> Replanning {
                let (store, clock) = (Arc::clone(&replanned), Arc::clone(&time));
                Box::pin(async move { recovery::replan(&store, data, true, now_ms(&*clock)).await })
            };
            let scheduler = Scheduler {
                replan: Box::new(replan),
                store: Arc::clone(&store),
                clock: Arc::clone(&clock),
                vigil: Arc::clone(&vigil),
                gate,
                wake: Arc::clone(&wake_scheduler),
                announce: Arc::new(move |step| announcer.step(step)),
            };
            super::start(&store, scheduler);
            wake_scheduler
        });
        let poll = dispatcher.is_none().then(|| Arc::clone(&clock));
        let limits = Arc::new(config.limits.clone());
        let submissions = Semaphore::new(config.submissions_max);
        let inner = Inner {
            records: Records { store, hub, poll },
            clock,
            vigil,
            submissions,
            boot_id,
            config,
            executor_names: Arc::new(executor_names),
            survivable,
            authorizer,
            secrets,
            dispatcher,
            scratch,
            scheduler,
            under_way,
        };
        Ok((Engine { inner: Arc::new(inner), limits, caller: None }, feed))
    }

    /// Makes the file this engine's: ends what the last one left running, and finds out whether the
    /// machine has booted since.
    async fn take_over(
        store: &Store,
        left: recovery::Left,
        boot_id: Option<String>,
        now_ms: i64,
    ) -> Result<(Interrupted, Vec<Step>)> {
        store.write(move |tx| instances::insert_if_new(tx, &Instance::new(LOCAL), now_ms)).await?;
        let interrupted = recovery::take_over(store, left, now_ms).await?;
        let count = interrupted.executions.len();
        if count > 0 {
            tell(|| tracing::warn!(count, "executions were cut off by the end of their engine"));
        }
        let booted = match boot_id {
            Some(boot_id) => Self::boot(store, boot_id.into(), now_ms).await?,
            None => Vec::new(),
        };
        Ok((interrupted, booted))
    }

    /// Records the current boot of this machine, and fires the invocations that waited for a boot, some in each
    /// commit. If the engine ends in between, the next engine fires the others. If invocations cannot be told of the
    /// boot, the file opens all the same, and the scheduler tells them as far as it can.
    async fn boot(store: &Store, boot_id: Arc<str>, now_ms: i64) -> Result<Vec<Step>> {
        let (mut steps, mut after, mut is_given_up) = (Vec::new(), 0, false);
        loop {
            let (boot_id, aside) = (Arc::clone(&boot_id), Arc::clone(store.aside()));
            let boot = move |tx: Tx<'_>| {
                let mut step = Step::at(now_ms);
                let news = instances::booted_since(tx, LOCAL, &boot_id, after, INSTANCES_MAX)?;
                let (mut left, mut through) = (EXECUTIONS_MAX, None);
                for (instance, id) in &news {
                    if let Some(id) = id.as_ref().filter(|_| is_given_up) {
                        firing::note_boot(tx, id, &boot_id)?;
                    } else if let Some(id) = id {
                        let is_left = step.boot(tx, &aside, id, &boot_id, &mut left)?;
                        if !is_left && (step.more || !step.begun.is_empty()) {
                            // No caller waits for the boot: the work is over before the engine is open.
                            step.begun.clear();
                            step.more = false;
                            break;
                        }
                    }
                    through = Some(*instance);
                }
                Ok((step, through, news.is_empty()))
            };
            match store.write(boot).await {
                Ok((_, _, true)) => return Ok(steps),
                Ok((step, through, false)) => {
                    after = through.unwrap_or(after);
                    steps.push(step);
                }
                Err(error) if error.is_lasting() && !is_given_up => {
                    let refused = store.aside().take_news();
                    is_given_up = refused.is_empty();
                    tell(
                        || tracing::error!(%error, "not all that waits for a boot is told of it yet"),
                    );
                    steps.push(Step { refused, ..Step::at(now_ms) });
                }
                Err(error) if error.is_lasting() => {
                    tell(|| tracing::error!(%error, "not all instances are told of a boot"));
                    return Ok(steps);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

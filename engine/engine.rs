//! The engine as a host sees it: requests in, records and events out.

mod announcer;
mod builder;
mod call;
mod describe;
mod exec;
mod explain;
mod page;
mod planner;
mod registry;
mod retry_failed;
mod runtime;
mod schedules;
mod select;
#[cfg(feature = "stream")]
mod stream;
mod submit;
mod watch;

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
#[cfg(feature = "control")]
use std::sync::Weak;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::authorizer::{Action, DynAuthorizer, EffectiveUser, forbidden};
use crate::clock::{Clock, Sleep, now_ms};
use crate::config::Config;
use crate::dispatcher::Dispatcher;
use crate::ending::Ending;
use crate::error::{EngineEnd, Error, Result, Violation};
use crate::event::{Feed, Hub, Subscription};
use crate::execution::Finished;
use crate::executor::{Scratch, effective_user};
use crate::id::{InstanceId, InvokeId};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::operation::Operation;
use crate::panics::Contained;
use crate::scheduler::{Scheduler, Vigil};
use crate::secret::DynSecretResolver;
use crate::status::InvocationStatus;
use crate::store::{ReadLane, Store, Tx, fires, invocations, records};

use announcer::{Announcer, UnderWay};

pub use builder::EngineBuilder;
pub(crate) use select::{Agent, Stretch};
#[cfg(feature = "stream")]
pub use stream::WatchStream;
pub use watch::{Position, Watch};

/// An open engine. Clones are handles of the same engine. After the last handle is dropped, the engine ends once its
/// executions have ended; [`shutdown`](Engine::shutdown) ends it by a deadline.
///
/// # Run a script and read its output
///
/// ```
/// use adjutant::{Engine, RunCommand};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::open_in_memory().await?;
/// let run = engine.run_command(RunCommand::shell("echo hello").on(["local"])).await?;
/// let finished = engine.wait(&run.invoke_id).await?;
/// assert_eq!(finished.results[0].output.as_bytes(), b"hello\n");
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    /// The limits of requests through this handle.
    limits: Arc<Limits>,
    /// The caller of these requests, if the host named it.
    caller: Option<Arc<str>>,
}

/// A handle that does not keep the engine open.
#[cfg(feature = "control")]
pub(crate) struct WeakEngine {
    inner: Weak<Inner>,
    limits: Arc<Limits>,
}

#[cfg(feature = "control")]
impl WeakEngine {
    /// Returns a handle without a caller; `None` once the last handle of the host is gone.
    pub(crate) fn upgrade(&self) -> Option<Engine> {
        let inner = self.inner.upgrade()?;
        Some(Engine { inner, limits: Arc::clone(&self.limits), caller: None })
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("path", &self.path())
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

struct Inner {
    records: Records,
    clock: Arc<dyn Clock>,
    vigil: Arc<Vigil>,
    /// Places for requests that wait to be stored.
    submissions: Semaphore,
    /// The boot this machine is in, where its system says.
    boot_id: Option<String>,
    config: Arc<Config>,
    executor_names: Arc<Vec<String>>,
    /// The executors whose runs can survive this engine.
    survivable: Arc<HashSet<String>>,
    authorizer: Option<Arc<dyn DynAuthorizer>>,
    secrets: Option<Arc<dyn DynSecretResolver>>,
    /// None if the file is open for reading only.
    dispatcher: Option<Dispatcher>,
    /// The folder of runs; none if the file is open for reading only.
    scratch: Option<Arc<Scratch>>,
    /// Wakes the scheduler; `None` if this engine starts nothing.
    scheduler: Option<Arc<Notify>>,
    /// Work that requests have begun and later commits carry out.
    under_way: Arc<UnderWay>,
}

/// The parts that reading and watching need; they do not keep the engine open.
#[derive(Clone)]
struct Records {
    store: Arc<Store>,
    hub: Arc<Hub>,
    /// Set if another process runs the file: then the hub tells nothing, and one has to look.
    poll: Option<Arc<dyn Clock>>,
}

/// How often a reader of another process's file looks again.
const POLL_EVERY: Duration = Duration::from_millis(200);

impl Records {
    /// Reads for a wait or a watch.
    async fn read<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.store.read(op).await
    }

    /// Waits until there may be news; whether the records have to be looked at for them. `sleep`
    /// lets a wait that is dropped go on with the next.
    async fn wait(&self, subscription: &Subscription, sleep: &mut Option<Sleep>) -> bool {
        let Some(clock) = &self.poll else {
            subscription.wake.notified().await;
            return false;
        };
        tokio::select! {
            () = sleep.get_or_insert_with(|| clock.sleep(POLL_EVERY)) => *sleep = None,
            // Notified also when the reader is shut down.
            () = subscription.wake.notified() => {}
        }
        true
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Inner {
    /// Takes no new executions.
    fn close(&self) {
        self.records.hub.announce_closing();
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.drain();
        }
        self.ending().close();
    }

    fn ending(&self) -> &Arc<Ending> {
        self.records.store.ending()
    }
}

impl Engine {
    /// Opens the engine on a database file, which is created if it is missing, with the local
    /// machine as its first instance and everything else at its default.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] if another process runs the file, [`Error::Storage`] if it cannot be opened, is damaged or
    /// was written by a newer version, [`Error::Runtime`] if this is called outside of a tokio runtime or if the
    /// runtime lacks time or I/O.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder().path(path).open().await
    }

    /// Opens an engine whose records live and die with it.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`] if there is no place for its temporary files.
    pub async fn open_in_memory() -> Result<Self> {
        Self::builder().open().await
    }

    /// Sets an engine up in detail.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    /// The database file; none if the engine lives in memory.
    pub fn path(&self) -> Option<&Path> {
        self.inner.records.store.path()
    }

    /// The limits of requests through this handle.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A handle of the same engine that holds requests to other limits.
    #[must_use]
    pub fn with_limits(&self, limits: Limits) -> Self {
        Self { limits: Arc::new(limits.within_records()), ..self.clone() }
    }

    /// Returns a handle of the same engine whose requests carry the name of a caller. An
    /// [`Authorizer`](crate::Authorizer) gets the name, and the records of the requests keep it. If the name has more
    /// than 1,024 characters, each request is refused.
    #[must_use]
    pub fn called_by(&self, caller: impl Into<Arc<str>>) -> Self {
        Self { caller: Some(caller.into()), ..self.clone() }
    }

    /// Returns a handle of the same engine that does not keep the engine open.
    #[cfg(feature = "control")]
    pub(crate) fn downgrade(&self) -> WeakEngine {
        WeakEngine { inner: Arc::downgrade(&self.inner), limits: Arc::clone(&self.limits) }
    }

    /// Returns whether another process runs the file.
    #[cfg(feature = "control")]
    pub(crate) fn is_read_only(&self) -> bool {
        self.inner.dispatcher.is_none()
    }

    /// Waits until an invocation has ended. Returns all its results, in the order of its targets. Because results
    /// contain outputs, an [`Authorizer`](crate::Authorizer) is asked about both [`Operation::DescribeInvocations`] and
    /// [`Operation::DescribeInvocationResults`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation, [`Error::ShuttingDown`] if the engine
    /// ends before it. [`Error::Storage`] if a record or a damaged page keeps the end of the invocation from being
    /// recorded.
    pub async fn wait(&self, invoke_id: &InvokeId) -> Result<Finished> {
        self.authorize_reading(*invoke_id).await?;
        self.finished(*invoke_id).await
    }

    /// Waits until an invocation has ended, and says how. It reads no results, which costs less than
    /// [`wait`](Engine::wait) does where there are many. An [`Authorizer`](crate::Authorizer) is asked about
    /// [`Operation::DescribeInvocations`] only.
    ///
    /// # Errors
    ///
    /// As [`wait`](Engine::wait).
    pub async fn wait_status(&self, invoke_id: &InvokeId) -> Result<InvocationStatus> {
        self.authorize_of(Operation::DescribeInvocations, *invoke_id).await?;
        self.ended(*invoke_id).await
    }

    /// Returns the end of an invocation, once it has ended, without asking the authorizer.
    async fn finished(&self, invoke_id: InvokeId) -> Result<Finished> {
        let status = self.ended(invoke_id).await?;
        let read = move |tx: Tx<'_>| records::all_of(tx, invocations::find(tx, invoke_id)?);
        let (results, unreadable) = self.inner.records.read(read).await?;
        Ok(Finished { status, results, unreadable })
    }

    /// Waits until an invocation has ended.
    async fn ended(&self, invoke_id: InvokeId) -> Result<InvocationStatus> {
        let (subscription, mut may_have_ended) = self.inner.records.hub.subscribe_to_end(invoke_id);
        let (mut sleep, mut is_checked) = (None, false);
        loop {
            if may_have_ended {
                let is_first = !std::mem::replace(&mut is_checked, true);
                let read = move |tx: Tx<'_>| final_status(tx, invoke_id, is_first);
                if let Some(status) = self.inner.records.read(read).await? {
                    return Ok(status);
                }
            }
            loop {
                let inbox = subscription.take();
                if let Some(status) = inbox.finished {
                    return Ok(status);
                }
                if let Some(error) = inbox.failed {
                    return Err(error);
                }
                if inbox.closed {
                    return Err(self.inner.ending().error());
                }
                may_have_ended = self.inner.records.wait(&subscription, &mut sleep).await;
                if may_have_ended {
                    break;
                }
            }
        }
    }

    /// Watches an invocation from its beginning: first its past events, then each event as it happens. An
    /// [`Authorizer`](crate::Authorizer) is asked about [`Operation::DescribeInvocations`] and, because outputs are
    /// among the events, about [`Operation::DescribeInvocationResults`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation.
    pub async fn watch(&self, invoke_id: &InvokeId) -> Result<Watch> {
        self.watch_from(invoke_id, Position::default()).await
    }

    /// Watches an invocation from where an earlier [`Watch`] had come to.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such invocation.
    pub async fn watch_from(&self, invoke_id: &InvokeId, position: Position) -> Result<Watch> {
        self.authorize_reading(*invoke_id).await?;
        let subscription = self.inner.records.hub.subscribe(*invoke_id);
        self.watch_with(subscription, *invoke_id, position).await
    }

    /// Follows the events of all invocations from now on: fires, starts and ends. [`watch`](Engine::watch) returns all
    /// events of one invocation, from its beginning. This is for the host itself: no [`Authorizer`](crate::Authorizer)
    /// is asked.
    pub fn follow(&self) -> Feed {
        self.inner.records.hub.follow()
    }

    async fn watch_with(
        &self,
        subscription: Arc<Subscription>,
        invoke_id: InvokeId,
        position: Position,
    ) -> Result<Watch> {
        let records = &self.inner.records;
        let invocation = records.read(move |tx| invocations::find(tx, invoke_id)).await?;
        Ok(Watch::new(self.inner.records.clone(), subscription, invocation, position))
    }

    /// Returns counts and times of this engine since it was opened. Because the call reads counters in memory only, it
    /// may be made as often as the host likes. This is for the host itself: no [`Authorizer`](crate::Authorizer) is
    /// asked.
    ///
    /// # How far a backlog has come
    ///
    /// ```
    /// use adjutant::{Engine, ExecutionStatus, RunCommand};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// let engine = Engine::open_in_memory().await?;
    /// let run = engine.run_command(RunCommand::shell("true").on(["local"])).await?;
    /// engine.wait(&run.invoke_id).await?;
    /// let metrics = engine.metrics();
    /// assert_eq!((metrics.waiting, metrics.running), (0, 0));
    /// assert_eq!(metrics.ended.get(ExecutionStatus::Success), 1);
    /// println!("one commit in a hundred takes longer than {} µs", metrics.commit_time_us.quantile(0.99));
    /// # Ok::<(), adjutant::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn metrics(&self) -> Metrics {
        self.inner.records.store.meters().snapshot()
    }

    /// Shuts the engine down: takes no new executions, waits up to `deadline` for running executions and for
    /// deliveries of whole outputs, then ends both. Runs that survive restarts are left alone, and not waited for.
    /// Then the call waits up to 2 s for the removal of large files that runs have left.
    ///
    /// After the return, no part of the engine runs, and this or another process may open its file again. Executions that
    /// wait, and outputs that are not delivered yet, stay for the next engine. From then on, calls that would change a
    /// record fail with [`Error::ShuttingDown`]; calls that only read still work, as from another process, until
    /// [`close`](Engine::close). If this future is dropped before its end, the file is closed with the last handle.
    ///
    /// The deadline holds even if this future is dropped; of several deadlines the earliest holds. An execution that
    /// has not ended 100 ms after the deadline is dropped, and recorded as interrupted. While executions run, every
    /// call works except calls that make new executions.
    pub async fn shutdown(&self, deadline: Duration) {
        let deadline = self.inner.clock.monotonic().saturating_add(deadline);
        self.inner.close();
        self.inner.ending().close_by(deadline);
        self.inner.ending().ended().await;
        if self.inner.scheduler.is_some() {
            // This write waits for the writes that the scheduler had asked for, because they come first.
            let _ = self.inner.records.store.write_first(|_| Ok(()), |()| {}).await;
        }
        self.let_go(Store::release).await;
    }

    /// Shuts the engine down like [`shutdown`](Engine::shutdown), and closes its file. From then on, every call on any
    /// handle of this engine fails with [`Error::ShuttingDown`].
    pub async fn close(&self, deadline: Duration) {
        self.shutdown(deadline).await;
        self.let_go(Store::close).await;
    }

    async fn let_go(&self, of_store: fn(&Store)) {
        let inner = Arc::clone(&self.inner);
        let let_go = move || {
            // Before the file is unlocked, because the next engine uses the same folder.
            if let Some(scratch) = &inner.scratch {
                scratch.close_and_wait();
            }
            of_store(&inner.records.store);
        };
        // If the runtime is about to end, the file is closed with the last handle.
        let _ = tokio::task::spawn_blocking(let_go).await;
    }

    /// Returns a future that completes once the engine begins to shut down, or has ended by itself. From then on the
    /// engine starts no new execution; running executions still have the time that the shutdown gives them. The future
    /// does not keep the engine open, and may be polled on any runtime. [`Watch::until_closing`] and
    /// [`Feed::until_closing`] end at the same time.
    ///
    /// # A server whose streams end with the engine
    ///
    /// A server that waits for its connections before the engine is shut down would wait for the streams of watches,
    /// and these wait for the engine. Shut the engine down beside the server, and let the streams end when that begins:
    ///
    /// ```
    /// use adjutant::{Engine, RunCommand};
    /// use std::time::Duration;
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// let engine = Engine::open_in_memory().await?;
    /// let run = engine.run_command(RunCommand::shell("sleep 1").on(["local"])).await?;
    /// // A stand-in for `axum::serve(…).with_graceful_shutdown(engine.closing())`, with a client that listens.
    /// let server = async {
    ///     let mut events = engine.watch(&run.invoke_id).await?.until_closing();
    ///     while let Some(event) = events.next().await? {
    ///         println!("{event:?}");
    ///     }
    ///     Ok::<(), adjutant::Error>(())
    /// };
    /// let (served, ()) = tokio::join!(server, engine.shutdown(Duration::from_secs(10)));
    /// served?;
    /// # Ok::<(), adjutant::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn closing(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        let ending = Arc::clone(self.inner.ending());
        async move { ending.closing().await }
    }

    /// Returns a future that ends with the cause once the engine has ended and no part of it runs. The future does
    /// not keep the engine open, and may be polled on any runtime.
    ///
    /// An engine ends by [`shutdown`](Engine::shutdown) or when its last handle is dropped. An engine also ends by
    /// itself when it cannot go on. After such an end every call that would change a record fails with
    /// [`Error::Ended`], every wait and watch returns that error, and a supervisor may open the file again.
    ///
    /// # A supervisor that opens the file again
    ///
    /// ```
    /// use adjutant::{Engine, EngineEnd};
    /// use std::time::Duration;
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// let engine = Engine::open_in_memory().await?;
    /// let closed = engine.closed();
    /// engine.shutdown(Duration::from_secs(5)).await;
    /// match closed.await {
    ///     EngineEnd::ShutDown => println!("as asked"),
    ///     end => println!("the engine has to be opened again: {end}"),
    /// }
    /// # Ok::<(), adjutant::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn closed(&self) -> impl Future<Output = EngineEnd> + Send + Sync + use<> {
        let ending = Arc::clone(self.inner.ending());
        async move { ending.ended().await }
    }

    fn announcer(&self) -> Announcer {
        let Records { store, hub, .. } = &self.inner.records;
        Announcer {
            hub: Arc::clone(hub),
            meters: Arc::clone(store.meters()),
            dispatcher: self.inner.dispatcher.as_ref().map(Dispatcher::line),
            scheduler: self.inner.scheduler.clone(),
            under_way: Arc::clone(&self.inner.under_way),
        }
    }

    fn now_ms(&self) -> i64 {
        now_ms(&*self.inner.clock)
    }

    fn action(&self, operation: Operation) -> Action {
        Action::new(operation, self.caller.clone())
    }

    /// Asks the host whether something may be done.
    async fn authorize(&self, action: Action) -> Result<()> {
        self.check_caller()?;
        let Some(authorizer) = &self.inner.authorizer else { return Ok(()) };
        let operation = action.operation;
        let asked = Contained::new(async { authorizer.authorize(action).await }).await;
        let asked =
            asked.map_err(|message| Error::host(format!("the Authorizer panicked: {message}")))?;
        asked.map_err(|why| forbidden(operation, &why))
    }

    /// Refuses a caller's name that is too long, because each record of the caller's requests repeats the name.
    fn check_caller(&self) -> Result<()> {
        const CHARS_MAX: usize = 1_024;
        let chars = self.caller.as_deref().unwrap_or_default().chars().count();
        if chars <= CHARS_MAX {
            return Ok(());
        }
        let message = format!("want at most {CHARS_MAX} characters; it has {chars}");
        Err(Error::invalid(Violation::new("InvalidParameter.Caller", 400, "Caller", message)))
    }

    /// Tells an action as which user a script would run, if there is an authorizer to tell it to.
    async fn tell_user(&self, action: &mut Action, username: Option<&str>) {
        if self.inner.authorizer.is_some() {
            let (name, uid) = effective_user(username).await;
            action.as_user(EffectiveUser { name, uid });
        }
    }

    /// Asks the host whether the caller may read what an invocation has printed: that it may be looked at, and its
    /// outputs too.
    async fn authorize_reading(&self, invoke_id: InvokeId) -> Result<()> {
        self.authorize_of(Operation::DescribeInvocations, invoke_id).await?;
        self.authorize_of(Operation::DescribeInvocationResults, invoke_id).await
    }

    async fn authorize_of(&self, operation: Operation, invoke_id: InvokeId) -> Result<()> {
        let mut action = self.action(operation);
        action.invoke_id = Some(invoke_id);
        self.authorize(action).await
    }

    async fn authorize_on(&self, operation: Operation, instance_id: &InstanceId) -> Result<()> {
        let mut action = self.action(operation);
        action.instance_ids.push(instance_id.clone());
        self.authorize(action).await
    }

    async fn write_records<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.write_then(op, |_| {}).await
    }

    /// Writes, and takes the actions that follow the commit even if the caller no longer waits.
    async fn write_then<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        self.check_open()?;
        self.inner.records.store.write_then(op, then).await
    }

    /// Works like [`write_then`](Self::write_then), ahead of the requests that wait.
    async fn write_first<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        self.check_open()?;
        self.inner.records.store.write_first(op, then).await
    }

    /// Does the same with a closure that can be run only once.
    async fn write_once<T, F, G>(&self, op: F, then: G) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
        G: FnOnce(&mut T) + Send + 'static,
    {
        self.check_open()?;
        self.inner.records.store.write_once(op, then).await
    }

    /// # Errors
    ///
    /// The errors of [`Ending::check`]. While an engine drains, all writes are allowed except those that make
    /// new executions.
    fn check_open(&self) -> Result<()> {
        self.inner.ending().check()
    }

    /// # Errors
    ///
    /// [`Error::ShuttingDown`] as soon as no new execution is to start.
    fn check_takes_work(&self) -> Result<()> {
        self.check_open()?;
        match self.inner.ending().is_closing() {
            true => Err(Error::ShuttingDown),
            false => Ok(()),
        }
    }

    /// Reads for a call of the host.
    async fn read<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.inner.records.store.read_for(ReadLane::Calls, op).await
    }
}

/// Starts the scheduler.
fn start(store: &Store, scheduler: Scheduler) {
    tokio::spawn(store.ending().part("the scheduler", scheduler.run()));
}

/// Returns the final status of an invocation, if the invocation has ended. A caller that begins to wait for the end
/// learns whether the invocation can end.
fn final_status(
    tx: Tx<'_>,
    invoke_id: InvokeId,
    is_first: bool,
) -> Result<Option<InvocationStatus>> {
    let invocation = invocations::find(tx, invoke_id)?;
    let status = invocations::final_status(tx, invocation)?;
    if status.is_none() && is_first {
        fires::check_counts(tx, invocation)?;
    }
    Ok(status)
}

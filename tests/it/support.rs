//! What the tests share: engines on temporary files, and executors that do as they are told.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use adjutant::{
    ClosureExecutor, DescribeInvocationResults, Engine, EngineBuilder, Error, Finished,
    HostTransaction, Instance, InvocationResult, InvokeId, Limits, RunCommand, Stream,
};
use rusqlite::Connection;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// A database file of its own, gone with the test.
pub struct Place {
    folder: TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join("adjutant.db")
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn builder(&self) -> EngineBuilder {
        with_executors(Engine::builder().path(self.database()))
    }

    pub async fn open(&self) -> Engine {
        let engine = self.builder().open().await.expect("the file opens");
        register(&engine, "script", 3).await;
        engine
    }

    /// Damages a page of a table so that no row on the page can be read. The page lies behind so many per cent of the
    /// pages. Returns the ids of the rows on the page. No engine may have the file open.
    pub fn damage_leaf(&self, table: &str, per_cent: usize) -> RangeInclusive<i64> {
        let file = Connection::open(self.database()).expect("a database");
        file.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("nobody else is there");
        let leaves: Vec<(usize, usize)> = file
            .prepare(
                "SELECT pageno, ncell FROM dbstat WHERE name = ?1 AND pagetype = 'leaf' ORDER BY path",
            )
            .and_then(|mut query| {
                query.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
            })
            .expect("a sound table");
        let number = leaves.len() * per_cent / 100;
        let (page, rows) = leaves[number];
        let before: usize = leaves[..number].iter().map(|(_, rows)| rows).sum();
        let id = |offset: usize| {
            let sql = format!("SELECT id FROM {table} ORDER BY id LIMIT 1 OFFSET {offset}");
            file.query_row(&sql, (), |row| row.get::<_, i64>(0)).expect("a row")
        };
        let ids = id(before)..=id(before + rows - 1);
        let page_size: usize =
            file.query_row("PRAGMA page_size", (), |row| row.get(0)).expect("a number");
        drop(file);
        let mut bytes = std::fs::read(self.database()).expect("a file");
        bytes[(page - 1) * page_size] = 0xff;
        std::fs::write(self.database(), bytes).expect("a file");
        ids
    }
}

/// An engine in memory with instances `i-1` to `i-3`, which the executor `script` serves.
pub async fn engine() -> Engine {
    let engine = with_executors(Engine::builder()).open().await.expect("an engine in memory");
    register(&engine, "script", 3).await;
    engine
}

/// The same engine by a handle for the clients of a vendor's pages.
pub async fn pages() -> Engine {
    engine().await.with_limits(Limits::alibaba())
}

/// Adds the executor `script`: the command's content says what to do, a word a step.
///
/// `out:TEXT` and `err:TEXT` print, `exit:N` ends with that code, `fail:TEXT` breaks, `panic`
/// panics, `hang` waits to be stopped.
pub fn with_executors(builder: EngineBuilder) -> EngineBuilder {
    builder.executor(
        "script",
        ClosureExecutor::new(|task, cx| async move {
            let script = String::from_utf8_lossy(task.content()).into_owned();
            for step in script.split_whitespace() {
                let (verb, rest) = step.split_once(':').unwrap_or((step, ""));
                match verb {
                    "out" => cx.print(Stream::Stdout, rest.as_bytes()),
                    "err" => cx.print(Stream::Stderr, rest.as_bytes()),
                    "exit" => return Ok(rest.parse().expect("exit:N")),
                    "fail" => return Err(rest.to_owned()),
                    "panic" => panic!("as told"),
                    "hang" => std::future::pending().await,
                    _ => panic!("no step `{step}`"),
                }
            }
            Ok(0)
        }),
    )
}

/// Registers instances `i-1` to `i-count`, served by `executor`.
pub async fn register(engine: &Engine, executor: &str, count: usize) {
    for n in 1..=count {
        let instance = Instance::new(format!("i-{n}")).executor(executor);
        engine.register_instance(instance).await.expect("a sound instance");
    }
}

/// Registers instances, served by the executor `script`, each with a clock of its own zone.
pub async fn register_in_zones(engine: &Engine, zones: &[(&str, &str)]) {
    for (name, zone) in zones {
        let instance = Instance::new(*name).executor("script");
        let instance = instance.time_zone(zone.parse().expect("a zone"));
        engine.register_instance(instance).await.expect("a sound instance");
    }
}

/// The writing thread, held by the host's part of a transaction until the test lets it go.
pub struct HeldWriter {
    let_go: mpsc::Sender<()>,
    writing: tokio::task::JoinHandle<()>,
}

/// Holds the writing thread. Returns once the thread is held.
pub async fn hold_writer(engine: &Engine) -> HeldWriter {
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let (let_go, held) = mpsc::channel();
    let engine = engine.clone();
    let writing = tokio::spawn(async move {
        let hold = move |_: &HostTransaction<'_>| {
            begun.send(()).expect("the test waits");
            held.recv().expect("the test lets go");
            Ok(())
        };
        engine.write(hold).await.expect("written");
    });
    within(has_begun).await.expect("it is held");
    HeldWriter { let_go, writing }
}

impl HeldWriter {
    /// Lets the writing thread go, and waits for its commit.
    pub async fn let_go(self) {
        self.let_go.send(()).expect("it is held");
        self.writing.await.expect("no panic");
    }
}

/// An executor that holds each task until the test lets it go, and counts those it holds.
#[derive(Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    leave: Arc<Semaphore>,
}

impl Gate {
    pub fn new() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), leave: Arc::new(Semaphore::new(0)) }
    }

    pub fn plug_in(&self, builder: EngineBuilder) -> EngineBuilder {
        let gate = self.clone();
        builder.executor(
            "gate",
            ClosureExecutor::new(move |_task, _cx| {
                let gate = gate.clone();
                async move { gate.pass().await }
            }),
        )
    }

    /// What a task does.
    pub async fn pass(&self) {
        self.arrived.add_permits(1);
        self.leave.acquire().await.expect("never closed").forget();
    }

    /// Waits until `count` more tasks have started.
    pub async fn arrivals(&self, count: u32) {
        self.arrived.acquire_many(count).await.expect("never closed").forget();
    }

    /// Tasks that have started and that no `arrivals` has taken note of.
    pub fn waiting(&self) -> usize {
        self.arrived.available_permits()
    }

    /// Lets `count` tasks end.
    pub fn let_go(&self, count: usize) {
        self.leave.add_permits(count);
    }
}

/// Makes a request of the pages from its JSON; the answer as JSON.
pub async fn ask(engine: &Engine, operation: &str, request: Value) -> Result<Value, Error> {
    fn read<T: DeserializeOwned>(request: Value) -> T {
        let shown = format!("{request:.200}");
        serde_json::from_value(request).unwrap_or_else(|error| panic!("{shown}: {error}"))
    }
    fn answer(answer: impl Serialize) -> Result<Value, Error> {
        Ok(serde_json::to_value(answer).expect("an answer is JSON"))
    }
    match operation {
        "RunCommand" => answer(engine.run_command(read(request)).await?),
        "InvokeCommand" => answer(engine.invoke_command(read(request)).await?),
        "RetryFailed" => answer(engine.retry_failed(read(request)).await?),
        "StopInvocation" => answer(engine.stop_invocation(read(request)).await?),
        "CreateCommand" => answer(engine.create_command(read(request)).await?),
        "ModifyCommand" => answer(engine.modify_command(read(request)).await?),
        "DeleteCommand" => {
            let request: adjutant::DeleteCommand = read(request);
            answer(engine.delete_command(request).await?)
        }
        "DescribeCommands" => answer(engine.describe_commands(read(request)).await?),
        "DescribeInvocations" => answer(engine.describe_invocations(read(request)).await?),
        "DescribeInvocationResults" => {
            answer(engine.describe_invocation_results(read(request)).await?)
        }
        "DescribeInstances" => answer(engine.describe_instances(read(request)).await?),
        "DescribeCloudAssistantStatus" => {
            answer(engine.describe_cloud_assistant_status(read(request)).await?)
        }
        other => panic!("no operation `{other}`"),
    }
}

/// A JSON object with some fields changed.
pub fn with(mut object: Value, change: Value) -> Value {
    for (key, value) in change.as_object().expect("an object") {
        object[key] = value.clone();
    }
    object
}

/// Everything that the listings of an engine show, to find out whether a call has changed it.
pub async fn everything(engine: &Engine) -> String {
    let mut all = String::new();
    for operation in [
        "DescribeInvocations",
        "DescribeInvocationResults",
        "DescribeCommands",
        "DescribeInstances",
    ] {
        let page = ask(engine, operation, serde_json::json!({ "PageSize": 50 })).await;
        let mut page = page.expect("a page");
        page["RequestId"] = Value::Null;
        all.push_str(&page.to_string());
    }
    format!("{all}{:?}", engine.quotas().await.expect("readable"))
}

/// Runs a script and waits for its end.
pub async fn run(engine: &Engine, script: &str, on: &[&str]) -> Finished {
    let request = RunCommand::shell(script).on(on.iter().copied());
    let run = engine.run_command(request).await.expect("a sound request");
    wait(engine, &run.invoke_id).await
}

/// Waits for the end of an invocation; a test that would hang fails instead.
pub async fn wait(engine: &Engine, invoke_id: &InvokeId) -> Finished {
    let status = within(engine.wait_status(invoke_id)).await.expect("the invocation ends");
    let finished = within(engine.wait(invoke_id)).await.expect("it has ended");
    assert_eq!(finished.status, status);
    finished
}

/// Returns the executions of an invocation, oldest first.
pub async fn history(engine: &Engine, invoke_id: InvokeId) -> Vec<InvocationResult> {
    let request =
        DescribeInvocationResults::default().invoke_id(invoke_id).include_history().max_results(50);
    let page = engine.describe_invocation_results(request).await.expect("it exists");
    page.invocation.results.into_iter().rev().collect()
}

/// Fails the test if `future` has not ended in half a minute.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it ends within 30 s")
}

//! Whole outputs: kept while an execution runs, delivered after its end, on record whatever comes of it.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::tencent::Tencent;
use adjutant::{
    ClosureExecutor, DeliveryStatus, DescribeInvocationResults, DirectorySink, Engine,
    EngineBuilder, ExecutionStatus, Feed, Instance, InvocationResult, InvokeId, Notice,
    OutputDelivery, OutputSink, OutputSinkError, RunCommand, StopInvocation, Stream,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::recurrence::clock;
use crate::support::{Gate, Place, ask, register, wait, with_executors, within};

/// The key and the bytes of an output.
type Given = (String, Vec<u8>);

/// A sink that holds each output until the test lets it go, and remembers what it was given.
#[derive(Clone)]
struct Held {
    arrived: Arc<Semaphore>,
    leave: Arc<Semaphore>,
    given: Arc<Mutex<Vec<Given>>>,
}

impl Held {
    fn new() -> Self {
        let none = || Arc::new(Semaphore::new(0));
        Self { arrived: none(), leave: none(), given: Arc::default() }
    }

    async fn arrivals(&self, count: u32) {
        within(self.arrived.acquire_many(count)).await.expect("never closed").forget();
    }

    fn given(&self) -> Vec<Given> {
        std::mem::take(&mut *self.given.lock().expect("no panic"))
    }
}

impl OutputSink for Held {
    async fn deliver(&self, output: OutputDelivery) -> Result<(), OutputSinkError> {
        let printed = fs::read(&output.path)?;
        assert_eq!(printed.len() as u64, output.bytes);
        self.given.lock().expect("no panic").push((output.key, printed));
        self.arrived.add_permits(1);
        self.leave.acquire().await.expect("never closed").forget();
        Ok(())
    }
}

/// A sink that does as the key says.
struct Failing;

impl OutputSink for Failing {
    async fn deliver(&self, output: OutputDelivery) -> Result<(), OutputSinkError> {
        match output.key.split('/').next() {
            Some("missing") => Err(OutputSinkError::NotFound("no such bucket".to_owned())),
            Some("denied") => Err(OutputSinkError::Denied("not yours".to_owned())),
            Some("failed") => Err(OutputSinkError::Failed("the line is down".to_owned())),
            Some("panics") => panic!("as told"),
            _ => Ok(()),
        }
    }
}

fn to(place: &str, script: &str, on: &[&str]) -> RunCommand {
    let mut request = RunCommand::shell(script).on(on.iter().copied());
    request.oss_output_delivery = Some(place.to_owned());
    request
}

async fn run_to(engine: &Engine, place: &str, script: &str) -> InvokeId {
    engine.run_command(to(place, script, &["i-1"])).await.expect("sound").invoke_id
}

async fn opened(builder: EngineBuilder) -> (Engine, Feed) {
    let (engine, feed) = builder.open_and_follow().await.expect("it opens");
    register(&engine, "script", 3).await;
    (engine, feed)
}

/// Waits for the end of the next delivery.
async fn delivered(feed: &mut Feed) -> DeliveryStatus {
    loop {
        match within(feed.next()).await.expect("the engine runs") {
            Notice::Delivery { status, uri, error_info, .. } => {
                assert_eq!(uri.is_empty(), status == DeliveryStatus::Failed);
                assert_eq!(error_info.is_empty(), status == DeliveryStatus::Finished);
                return status;
            }
            _ => continue,
        }
    }
}

async fn result(engine: &Engine, id: InvokeId) -> InvocationResult {
    let request = DescribeInvocationResults::default().invoke_id(id);
    let page = engine.describe_invocation_results(request).await.expect("it exists");
    page.invocation.results.into_iter().next().expect("an execution")
}

/// What a record says of the delivery: status, URI, code.
fn told(result: &InvocationResult) -> (&str, &str, &str) {
    assert_eq!(result.oss_output_error_code.is_empty(), result.oss_output_error_info.is_empty());
    (&result.oss_output_status, &result.oss_output_uri, &result.oss_output_error_code)
}

/// What is left in the folder of outputs that wait.
fn left(place: &Place) -> usize {
    fs::read_dir(place.folder().join("adjutant.db.outputs")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn a_process_that_prints_more_than_the_record_keeps_leaves_all_of_it() {
    let place = Place::new();
    let logs = tempfile::tempdir().expect("a folder");
    let builder = place.builder().output_sink("file://", DirectorySink::new("/").follow_links());
    let (engine, mut feed) = opened(builder).await;
    let to_logs = format!("file://{}/a b/ä/", logs.path().display());
    let script = "seq 1 20000; seq 1 20000 >&2; printf end";
    let request = to(&to_logs, script, &["local"]);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    let ended = &wait(&engine, &id).await.results[0];
    assert_eq!((ended.status, ended.exit_code), (ExecutionStatus::Success, Some(0)));
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    let result = result(&engine, id).await;
    let uri = format!("{to_logs}{id}/{}.log", result.execution_id);
    assert_eq!(told(&result), ("Finished", &*uri, ""));
    assert_eq!(result.output, ended.output);
    let stored = fs::read(uri.strip_prefix("file://").expect("a file")).expect("it is there");
    let numbers: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(stored.len() as u64, result.output.as_bytes().len() as u64 + result.dropped);
    assert_eq!(stored.len(), 2 * numbers.len() + 3);
    // Most likely at its end; which of two pipes had something first cannot be known.
    assert!(String::from_utf8(stored).expect("digits and a word").contains("end"));
    assert_eq!(left(&place), 0);
}

#[tokio::test]
async fn both_dialects_tell_where_the_output_is() {
    let logs = tempfile::tempdir().expect("a folder");
    let print = |_task, cx: adjutant::ExecutionContext| async move {
        for n in 0..9_000 {
            let stream = if n % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
            cx.print(stream, format!("line {n}\n").as_bytes());
        }
        3
    };
    let whole: String = (0..9_000).map(|n| format!("line {n}\n")).collect();
    let builder = Engine::builder().executor("print", ClosureExecutor::new(print));
    let builder = builder.output_sink("https://b", DirectorySink::new(logs.path()));
    let (engine, mut feed) = builder.open_and_follow().await.expect("it opens");
    register(&engine, "print", 1).await;
    let tencent = Tencent::new(&engine);
    let request = json!({
        "Content": "eA==", "InstanceIds": ["i-1"],
        "OutputCOSBucketUrl": "https://b/", "OutputCOSKeyPrefix": "logs/x",
    });
    let call = async |action: &str, request: Value| {
        tencent.call(action, &request.to_string()).await.expect(action)
    };
    call("RunCommand", request).await;
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);

    let page = ask(&engine, "DescribeInvocationResults", json!({})).await.expect("a page");
    let told = &page["Invocation"]["InvocationResults"]["InvocationResult"][0];
    let id = told["InvokeId"].as_str().expect("a text");
    let key = format!("logs/x/{id}/{}.log", told["ExecutionId"]);
    let uri = json!(format!("https://b/{key}"));
    assert_eq!(fs::read_to_string(logs.path().join(key)).expect("it is there"), whole);
    let check = |told: &Value| {
        assert_eq!((&told["OssOutputStatus"], &told["OssOutputUri"]), (&json!("Finished"), &uri));
        assert_eq!(
            (&told["OssOutputErrorCode"], &told["OssOutputErrorInfo"]),
            (&json!(""), &json!(""))
        );
        assert_eq!((&told["ExitCode"], &told["ErrorCode"]), (&json!(3), &json!("ExitCodeNonzero")));
    };
    check(told);
    let page = ask(&engine, "DescribeInvocations", json!({})).await.expect("a page");
    check(&page["Invocations"]["Invocation"][0]["InvokeInstances"]["InvokeInstance"][0]);
    let tasks = call("DescribeInvocationTasks", json!({})).await;
    let task = &tasks["InvocationTaskSet"][0]["TaskResult"];
    assert_eq!((&task["OutputUrl"], &task["OutputUploadCOSErrorInfo"]), (&uri, &json!("")));

    let request = json!({
        "Content": "eA==", "InstanceIds": ["i-1"], "OutputCOSBucketUrl": "https://other",
    });
    let id = call("RunCommand", request).await["InvocationId"].clone();
    let id: InvokeId = id.as_str().expect("a text").parse().expect("an id");
    wait(&engine, &id).await;
    let tasks = call("DescribeInvocationTasks", json!({})).await;
    let task = &tasks["InvocationTaskSet"][0]["TaskResult"];
    assert_eq!(task["OutputUrl"], "");
    let why = task["OutputUploadCOSErrorInfo"].as_str().expect("a text");
    assert!(why.contains("no sink for `https://other`"), "{why}");
    assert_eq!(task["ExitCode"], 3);
}

#[tokio::test]
async fn a_delivery_that_fails_changes_no_result() {
    let place = Place::new();
    let builder = place.builder().output_sink("oss://b", Failing).max_delivery(9);
    let (engine, mut feed) = opened(builder).await;
    let mut check = async |to: &str, script: &str, code: &str, why: &str| {
        let id = run_to(&engine, to, script).await;
        let ended = wait(&engine, &id).await.results.remove(0);
        // One that fails before there is anything to deliver is told with the end; for the others the
        // results, which are read after it, may tell of the delivery already.
        if matches!(code, "OutputSink.NotPluggedIn" | "OutputSink.TooLarge") {
            assert_eq!(ended.oss_output_status, "Failed", "{to}");
        } else {
            assert_eq!(delivered(&mut feed).await, DeliveryStatus::Failed, "{to}");
        }
        let result = result(&engine, id).await;
        assert_eq!(told(&result), ("Failed", "", code), "{to}");
        let info = &result.oss_output_error_info;
        assert!(info.contains(why), "{to}: {info}");
        assert_eq!((result.status, result.exit_code), (ended.status, ended.exit_code));
        assert_eq!((result.error_code, result.output), (ended.error_code, ended.output));
        assert_eq!(left(&place), 0, "{to}");
        (result.status, result.exit_code)
    };
    let success = (ExecutionStatus::Success, Some(0));
    let failed = (ExecutionStatus::Failed, Some(3));
    let check = &mut check;
    assert_eq!(check("oss://b/missing", "out:x", "OutputSink.NotFound", "no such").await, success);
    assert_eq!(
        check("oss://b/denied", "out:x exit:3", "OutputSink.Denied", "not yours").await,
        failed
    );
    assert_eq!(check("oss://b/failed", "out:x", "OutputSink.Failed", "the line").await, success);
    assert_eq!(check("oss://b/panics", "out:x", "OutputSink.Failed", "panicked").await, success);
    assert_eq!(check("oss://c", "out:x", "OutputSink.NotPluggedIn", "`oss://c`").await, success);
    let large = "out:12345 err:67890 out:1";
    assert_eq!(check("oss://b", large, "OutputSink.TooLarge", "at most 9 bytes").await, success);
    // Nothing of what it printed is lost from the record.
    let broke = check("oss://b/denied", "out:x fail:y", "OutputSink.Denied", "not yours").await;
    assert_eq!(broke, (ExecutionStatus::Error, None));
}

#[tokio::test]
async fn the_end_does_not_wait_for_the_sink() {
    let place = Place::new();
    let sink = Held::new();
    let (engine, mut feed) = opened(place.builder().output_sink("oss://b", sink.clone())).await;
    let id = run_to(&engine, "oss://b/logs", "out:1 err:2 out:3").await;
    let ended = wait(&engine, &id).await;
    assert_eq!(told(&ended.results[0]), ("InProgress", "", ""));
    sink.arrivals(1).await;
    let key = format!("logs/{id}/{}.log", ended.results[0].execution_id);
    assert_eq!(sink.given(), [(key.clone(), b"123".to_vec())]);
    assert_eq!(told(&result(&engine, id).await), ("InProgress", "", ""));
    assert_eq!(left(&place), 1);
    sink.leave.add_permits(1);
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    let uri = format!("oss://b/{key}");
    assert_eq!(told(&result(&engine, id).await), ("Finished", &*uri, ""));
    assert_eq!(left(&place), 0);

    // One that printed nothing has an empty file, one that goes nowhere has none.
    let id = run_to(&engine, "oss://b", "exit:0").await;
    sink.arrivals(1).await;
    let execution_id = wait(&engine, &id).await.results[0].execution_id;
    assert_eq!(sink.given(), [(format!("{id}/{execution_id}.log"), Vec::new())]);
    let request = RunCommand::shell("out:x").on(["i-1"]);
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    assert_eq!(told(&wait(&engine, &id).await.results[0]), ("", "", ""));
    assert_eq!(left(&place), 1);
}

#[tokio::test]
async fn a_few_outputs_are_on_their_way_at_a_time() {
    let sink = Held::new();
    let builder = with_executors(Engine::builder()).output_sink("oss://", sink.clone());
    let (engine, mut feed) = opened(builder).await;
    for _ in 0..3 {
        let request = to("oss://b", "out:x", &["i-1", "i-2", "i-3"]);
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        wait(&engine, &id).await;
    }
    sink.arrivals(4).await;
    assert_eq!(sink.arrived.available_permits(), 0);
    sink.leave.add_permits(9);
    for _ in 0..9 {
        assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    }
    assert_eq!(sink.given().len(), 9);
}

#[tokio::test]
async fn what_has_not_run_has_nothing_to_deliver() {
    let place = Place::new();
    let gate = Gate::new();
    let builder = gate.plug_in(place.builder()).max_concurrent(1).output_sink("oss://b", Failing);
    let (engine, _) = opened(builder).await;
    let holder = RunCommand::shell("x").on(["gate-1"]);
    engine.register_instance(Instance::new("gate-1").executor("gate")).await.expect("sound");
    engine.run_command(holder).await.expect("sound");
    within(gate.arrivals(1)).await;
    let waiting = run_to(&engine, "oss://b", "out:x").await;
    assert_eq!(told(&result(&engine, waiting).await), ("InProgress", "", ""));
    engine.stop_invocation(StopInvocation::new(waiting)).await.expect("it waits");
    let cancelled = wait(&engine, &waiting).await;
    assert_eq!(cancelled.results[0].status, ExecutionStatus::Cancelled);
    assert_eq!(told(&cancelled.results[0]), ("", "", ""));
    gate.let_go(1);

    let mut request = to("oss://b", "exit 0", &["local"]);
    request.working_dir = Some("/no/such/folder".to_owned());
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    let unsuitable = wait(&engine, &id).await;
    assert_eq!(unsuitable.results[0].error_code, "DirectoryNotExists");
    assert_eq!(told(&unsuitable.results[0]), ("", "", ""));
    assert_eq!(left(&place), 0);
}

/// An engine that ended with an output on its way.
async fn ended_on_the_way(place: &Place) -> InvokeId {
    let sink = Held::new();
    let (engine, _) = opened(place.builder().output_sink("oss://b", sink.clone())).await;
    let id = run_to(&engine, "oss://b/logs", "out:kept").await;
    wait(&engine, &id).await;
    sink.arrivals(1).await;
    within(engine.shutdown(Duration::ZERO)).await;
    id
}

#[tokio::test]
async fn what_was_on_its_way_is_delivered_by_the_next_engine() {
    let waiting = |place: &Place| {
        let folder = fs::read_dir(place.folder().join("adjutant.db.outputs"));
        let mut paths = folder.expect("it is there").map(|entry| entry.expect("readable").path());
        paths.next().expect("an output")
    };
    let check = async |spoil: &dyn Fn(&Path), others: usize, status: &str, code: &str| {
        let place = Place::new();
        let id = ended_on_the_way(&place).await;
        spoil(&waiting(&place));
        // One that nobody waits for, and a file that is none.
        let folder = place.folder().join("adjutant.db.outputs");
        fs::write(folder.join("4711"), "stale").expect("written");
        let sink = Held::new();
        sink.leave.add_permits(1);
        // Engines without a sink for it come and go, and leave it alone.
        for _ in 0..others {
            let (without, _) = opened(place.builder()).await;
            assert_eq!(told(&result(&without, id).await).0, "InProgress");
            within(without.shutdown(Duration::from_secs(3_600))).await;
        }
        let (engine, mut feed) = opened(place.builder().output_sink("oss://b", sink.clone())).await;
        delivered(&mut feed).await;
        let result = result(&engine, id).await;
        assert_eq!((told(&result).0, told(&result).2), (status, code));
        assert_eq!(result.status, ExecutionStatus::Success);
        let printed: Vec<_> = sink.given().into_iter().map(|(_, printed)| printed).collect();
        let want: &[&[u8]] = if status == "Finished" { &[b"kept"] } else { &[] };
        assert_eq!(printed, want);
        assert_eq!(left(&place), 0);
    };
    check(&|_| {}, 0, "Finished", "").await;
    check(&|_| {}, 2, "Finished", "").await;
    let lost = "OutputSink.Interrupted";
    check(&|path| fs::remove_file(path).expect("removed"), 0, "Failed", lost).await;
    check(&|path| fs::write(path, "ke").expect("cut"), 1, "Failed", lost).await;
}

#[tokio::test]
async fn what_waits_for_no_sink_that_will_come_is_not_delivered() {
    let place = Place::new();
    let id = ended_on_the_way(&place).await;
    let outputs = place.folder().join("adjutant.db.outputs");
    fs::remove_dir_all(outputs).expect("nothing of it is left");
    let (engine, mut feed) = opened(place.builder()).await;
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Failed);
    assert_eq!(told(&result(&engine, id).await).2, "OutputSink.NotPluggedIn");
}

#[tokio::test]
async fn what_waits_for_its_sink_is_in_nobodys_way() {
    let place = Place::new();
    let held = Held::new();
    let both = place.builder().output_sink("oss://a", held.clone());
    let (engine, _) = opened(both.output_sink("oss://b", held.clone())).await;
    let mut last = None;
    for to in ["oss://a"; 9].into_iter().chain(["oss://b"]) {
        let id = run_to(&engine, to, "out:kept").await;
        wait(&engine, &id).await;
        last = Some(id);
    }
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);

    let sink = Held::new();
    sink.leave.add_permits(1);
    let (engine, mut feed) = opened(place.builder().output_sink("oss://b", sink.clone())).await;
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    assert_eq!(told(&result(&engine, last.expect("one")).await).0, "Finished");
    // Nor does the end of the engine wait for it.
    within(engine.shutdown(Duration::from_secs(3_600))).await;
    assert_eq!(left(&place), 9);
}

#[tokio::test]
async fn what_ran_when_its_engine_was_lost_is_delivered_as_far_as_it_came() {
    let (place, copy) = (Place::new(), Place::new());
    let gate = Gate::new();
    let printing = ClosureExecutor::new({
        let gate = gate.clone();
        move |_task, cx: adjutant::ExecutionContext| {
            let gate = gate.clone();
            async move {
                cx.print(Stream::Stdout, b"so far");
                gate.pass().await;
            }
        }
    });
    let builder = place.builder().executor("gate", printing);
    let (engine, _) = opened(builder.output_sink("oss://b", Failing)).await;
    register(&engine, "gate", 1).await;
    let id = run_to(&engine, "oss://b", "x").await;
    within(gate.arrivals(1)).await;
    // What is on disk at this moment is what the loss of the process would leave.
    fs::create_dir(copy.folder().join("adjutant.db.outputs")).expect("a folder");
    let execution = format!("adjutant.db.outputs/{}", result(&engine, id).await.execution_id);
    for name in ["adjutant.db", "adjutant.db-wal", &execution] {
        fs::copy(place.folder().join(name), copy.folder().join(name)).expect("copied");
    }
    let sink = Held::new();
    sink.leave.add_permits(1);
    let (after, mut feed) = opened(copy.builder().output_sink("oss://b", sink.clone())).await;
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    let result = result(&after, id).await;
    assert_eq!(result.error_code, "ExecutionInterrupted");
    assert_eq!(told(&result).0, "Finished");
    assert_eq!(sink.given()[0].1, b"so far");
    gate.let_go(1);
}

#[tokio::test]
async fn a_shutdown_waits_for_what_is_on_its_way() {
    let place = Place::new();
    let sink = Held::new();
    let (engine, _) = opened(place.builder().output_sink("oss://b", sink.clone())).await;
    let id = run_to(&engine, "oss://b", "out:x").await;
    wait(&engine, &id).await;
    sink.arrivals(1).await;
    let shutdown = engine.shutdown(Duration::from_secs(30));
    sink.leave.add_permits(1);
    within(shutdown).await;
    drop(engine);
    let engine = place.builder().idle().open().await.expect("the file is free");
    assert_eq!(told(&result(&engine, id).await).0, "Finished");
    assert_eq!(left(&place), 0);
}

#[tokio::test]
async fn a_sink_that_hangs_is_dropped() {
    let clock = clock();
    let sink = Held::new();
    let builder = with_executors(Engine::builder()).clock(clock.clone());
    let (engine, mut feed) = opened(builder.output_sink("oss://b", sink.clone())).await;
    let id = run_to(&engine, "oss://b", "out:x").await;
    wait(&engine, &id).await;
    sink.arrivals(1).await;
    // The scheduler's sleep, and that of the delivery.
    within(clock.sleeping(2)).await;
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Failed);
    assert_eq!(told(&result(&engine, id).await), ("Failed", "", "OutputSink.TimedOut"));
}

#[tokio::test]
async fn places_that_could_lead_elsewhere_are_refused() {
    let builder = with_executors(Engine::builder()).output_sink("file://", Failing);
    let (engine, _) = opened(builder).await;
    for place in ["file://etc", "file:///a/../b", "file:///a//b", "oss://b/..", "oss://b//x", "s3:"]
    {
        let error = engine.run_command(to(place, "exit:0", &["i-1"])).await.expect_err(place);
        assert_eq!(error.code(), "InvalidParameter.OssOutputDelivery", "{place}");
        assert_eq!(error.violations().len(), 1);
    }
}

#[cfg(feature = "object-store")]
mod object_store {
    use adjutant::ObjectStoreSink;
    use adjutant::object_store::aws::AmazonS3Builder;
    use adjutant::object_store::memory::InMemory;
    use adjutant::object_store::{ObjectStoreExt, path};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_bucket_is_a_place_like_any_other() {
        let bucket = Arc::new(InMemory::new());
        let sink = ObjectStoreSink::new(Arc::clone(&bucket));
        let builder = with_executors(Engine::builder()).output_sink("oss://b", sink);
        let (engine, mut feed) = opened(builder).await;
        let id = run_to(&engine, "oss://b/logs", "out:x err:y").await;
        assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
        let result = result(&engine, id).await;
        let key = path::Path::from(format!("logs/{id}/{}.log", result.execution_id));
        let stored = bucket.get(&key).await.expect("it is there").bytes().await.expect("readable");
        assert_eq!(&*stored, b"xy");
    }

    /// Answers one request as a bucket would, with this status; the request.
    async fn answer(listener: TcpListener, status: &str) -> String {
        let (stream, _) = listener.accept().await.expect("somebody comes");
        let mut request = Vec::new();
        while !request.ends_with(b"xy") {
            stream.readable().await.expect("it is open");
            match stream.try_read_buf(&mut request) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
        }
        let answer = format!("HTTP/1.1 {status}\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n");
        stream.writable().await.expect("it is open");
        let written = stream.try_write(answer.as_bytes()).expect("a short answer");
        assert_eq!(written, answer.len());
        String::from_utf8_lossy(&request).into_owned()
    }

    #[tokio::test]
    async fn an_upload_is_a_signed_request_of_s3() {
        let check = async |status: &str, want: (&str, &str)| {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let endpoint = format!("http://{}", listener.local_addr().expect("it has one"));
            let store = AmazonS3Builder::new()
                .with_endpoint(endpoint)
                .with_allow_http(true)
                .with_region("ap-x")
                .with_bucket_name("b-1")
                .with_access_key_id("AK")
                .with_secret_access_key("hunter2")
                .build()
                .expect("it is complete");
            let builder = with_executors(Engine::builder());
            let builder = builder.output_sink("https://b-1", ObjectStoreSink::new(store));
            let (engine, mut feed) = opened(builder).await;
            let id = run_to(&engine, "https://b-1/logs", "out:x err:y").await;
            let request = within(answer(listener, status)).await;
            delivered(&mut feed).await;
            let result = result(&engine, id).await;
            let key = format!("/b-1/logs/{id}/{}.log", result.execution_id);
            assert!(request.starts_with(&format!("PUT {key} HTTP/1.1\r\n")), "{request}");
            assert!(request.contains("AWS4-HMAC-SHA256 Credential=AK/"), "{request}");
            assert!(!request.contains("hunter2"), "{request}");
            assert_eq!((told(&result).0, told(&result).2), want, "{status}");
        };
        check("200 OK", ("Finished", "")).await;
        check("403 Forbidden", ("Failed", "OutputSink.Denied")).await;
        check("404 Not Found", ("Failed", "OutputSink.NotFound")).await;
    }
}

#[tokio::test]
async fn outputs_that_hang_in_their_sink_hold_up_no_others() {
    let (clock, hangs, goes_on) = (clock(), Held::new(), Held::new());
    goes_on.leave.add_permits(1);
    let builder = with_executors(Engine::builder()).clock(clock.clone());
    let builder = builder.output_sink("oss://a", hangs.clone());
    let (engine, mut feed) = opened(builder.output_sink("oss://b", goes_on)).await;
    for _ in 0..5 {
        let id = run_to(&engine, "oss://a", "out:x").await;
        wait(&engine, &id).await;
    }
    hangs.arrivals(4).await;
    // An output of another sink is not held up,
    run_to(&engine, "oss://b", "out:x").await;
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    assert_eq!(hangs.arrived.available_permits(), 0);
    // and an output of the same sink only for a while. The sleeps are the scheduler's, one for each delivery, and one
    // before the next delivery.
    within(clock.sleeping(6)).await;
    clock.advance(Duration::from_secs(10));
    hangs.arrivals(1).await;
}

#[tokio::test]
async fn a_delivery_that_cannot_be_recorded_holds_up_no_other() {
    let (place, sink) = (Place::new(), Held::new());
    let (engine, mut feed) = opened(place.builder().output_sink("oss://b", sink.clone())).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = run_to(&engine, "oss://b", "out:x").await;
        wait(&engine, &id).await;
        ids.push(id);
    }
    sink.arrivals(3).await;
    let refused = result(&engine, ids[0]).await.execution_id;
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let refuse = format!(
        "CREATE TRIGGER refuses BEFORE UPDATE ON deliveries WHEN old.execution = {refused}
         BEGIN SELECT RAISE(ABORT, 'as told'); END"
    );
    file.execute_batch(&refuse).expect("sound SQL");
    sink.leave.add_permits(3);
    for _ in &ids[1..] {
        assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    }
    // The next engine takes the delivery that is left.
    within(engine.shutdown(Duration::from_secs(3_600))).await;
    drop(engine);
    file.execute_batch("DROP TRIGGER refuses").expect("sound SQL");
    let again = Held::new();
    again.leave.add_permits(1);
    let (_engine, mut feed) = opened(place.builder().output_sink("oss://b", again)).await;
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    assert_eq!(left(&place), 0);
}

#[tokio::test]
async fn a_delivery_that_cannot_be_read_holds_up_no_other() {
    let (place, sink) = (Place::new(), Held::new());
    let (engine, _) = opened(place.builder().output_sink("oss://b", sink.clone())).await;
    for _ in 0..2 {
        let id = run_to(&engine, "oss://b", "out:x").await;
        wait(&engine, &id).await;
    }
    sink.arrivals(2).await;
    within(engine.shutdown(Duration::ZERO)).await;
    drop(engine);
    let file = rusqlite::Connection::open(place.database()).expect("a database");
    let damage = "UPDATE invocations SET output_to = CAST(x'ff' AS TEXT) WHERE id = 1";
    assert_eq!(file.execute(damage, ()).expect("sound SQL"), 1);
    drop(file);
    let again = Held::new();
    again.leave.add_permits(1);
    let builder = place.builder().output_sink("oss://b", again.clone());
    let (engine, mut feed) = opened(builder).await;
    assert_eq!(delivered(&mut feed).await, DeliveryStatus::Finished);
    within(engine.shutdown(Duration::from_secs(3_600))).await;
    assert_eq!((again.given().len(), left(&place)), (1, 1));
}

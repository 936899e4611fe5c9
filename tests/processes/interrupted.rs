//! What becomes of a running job: the table of the README, cell by cell.

use std::fs;
use std::path::Path;
use std::time::Duration;

use adjutant::{
    ClosureExecutor, DescribeInvocationResults, Engine, EngineBuilder, ExecutionStatus, InvokeId,
    LOCAL, Outcome, Retry, RunCommand, Stream,
};
use libtest_mimic::Trial;

use crate::harness::{Marker, Place, trials, until};
use crate::host::Order;

pub fn trials() -> Vec<Trial> {
    trials![
        a_closure_becomes_what_the_table_says,
        a_process_becomes_what_the_table_says,
        a_survivor_becomes_what_the_table_says,
    ]
}

/// The executor of closures, and the instance that it serves.
pub const CLOSURE: &str = "closure";

/// Adds an executor whose tasks print `up`, and wait for the file that their script names. Later attempts do not wait.
pub fn with_closure(builder: EngineBuilder) -> EngineBuilder {
    let waits =
        ClosureExecutor::new(|task: adjutant::Task, cx: adjutant::ExecutionContext| async move {
            cx.print(Stream::Stdout, b"up\n");
            let file = String::from_utf8_lossy(task.content()).into_owned();
            while task.attempt == 1 && !Path::new(&file).exists() {
                cx.sleep(Duration::from_millis(5)).await;
            }
            Outcome::Exited(0)
        });
    builder.executor(CLOSURE, waits)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Closure,
    Process,
    Survivor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Shutdown,
    Crash,
    Stop,
    Timeout,
    Deploy,
}

/// How attempts end, one after another, each with its code.
type Ends = &'static [(ExecutionStatus, &'static str)];

/// Of a job that is tried once, and of one that may be tried twice after every outcome without success.
fn wanted(job: Job, event: Event) -> [Ends; 2] {
    use ExecutionStatus::{Error, Success, Terminated, Timeout};
    const CUT_OFF: &str = "ExecutionInterrupted";
    const LATE: &str = "ExecutionTimeout";
    match (event, job) {
        (Event::Shutdown | Event::Crash, Job::Closure | Job::Process) => {
            [&[(Error, CUT_OFF)], &[(Error, CUT_OFF), (Success, "")]]
        }
        (Event::Shutdown | Event::Crash, Job::Survivor) | (Event::Deploy, _) => {
            [&[(Success, "")], &[(Success, "")]]
        }
        (Event::Stop, _) => [&[(Terminated, "")], &[(Terminated, "")]],
        (Event::Timeout, _) => [&[(Timeout, LATE)], &[(Timeout, LATE), (Success, "")]],
    }
}

async fn check(job: Job, event: Event) {
    let shown = format!("{job:?} {event:?}");
    let (place, marker) = (Place::new(), Marker::new());
    let file = place.path("go-on");
    let mut host = place.host();
    let request = |retry: Option<Retry>| {
        let path = file.display();
        let script = format!(
            "echo up; [ $ADJUTANT_ATTEMPT -gt 1 ] && exit 0; {} & sleeper=$!
             until [ -e '{path}' ]; do sleep 0.01; done; kill $sleeper; wait $sleeper; exit 0",
            marker.sleep()
        );
        let mut request = match job {
            Job::Closure => RunCommand::shell(path.to_string()).on([CLOSURE]),
            Job::Process => RunCommand::shell(script).on([LOCAL]),
            Job::Survivor => RunCommand::shell(script).on([LOCAL]).survive_restarts(),
        };
        request.retry = retry.map(|retry| retry.backoff(0));
        if event == Event::Timeout { request.timeout(1) } else { request }
    };
    let ids = [None, Some(Retry::idempotent(2))].map(|retry| {
        let id = host.run(request(retry));
        host.expect("up");
        id
    });
    match event {
        Event::Shutdown => host.order(&Order::ShutDownWithin(Duration::ZERO)),
        Event::Crash => host.kill_now(),
        Event::Stop => ids.iter().for_each(|id| host.order(&Order::Stop(*id))),
        Event::Timeout => ids.iter().for_each(|_| drop(host.ended())),
        Event::Deploy if job == Job::Survivor => host.order(&Order::ShutDown),
        Event::Deploy => {
            host.begin_order(&Order::ShutDown);
            fs::write(&file, "").expect("written");
            host.expect("done");
        }
    }
    drop(host);
    let engine = with_closure(place.builder()).open().await.expect("the next engine opens");
    if job != Job::Survivor {
        marker.check_nobody_is_left(&shown);
    } else if [Event::Shutdown, Event::Crash, Event::Deploy].contains(&event) {
        assert!(!marker.alive().is_empty(), "{shown}: it goes on");
        fs::write(&file, "").expect("written");
    }
    for (id, want) in ids.iter().zip(wanted(job, event)) {
        engine.wait_status(id).await.expect("it ends");
        let want: Vec<_> =
            want.iter().map(|(status, code)| (*status, (*code).to_owned())).collect();
        assert_eq!(ends(&engine, *id).await, want, "{shown}");
    }
    until("nobody is left", || marker.alive().is_empty()).await;
}

/// How the attempts of a job ended, the first attempt first.
async fn ends(engine: &Engine, invoke_id: InvokeId) -> Vec<(ExecutionStatus, String)> {
    let mut all = DescribeInvocationResults::default().invoke_id(invoke_id);
    all.include_history = true;
    let page = engine.describe_invocation_results(all).await.expect("a page").invocation;
    let mut results = page.results;
    results.sort_by_key(|result| result.attempt);
    results.into_iter().map(|result| (result.status, result.error_code)).collect()
}

const EVENTS: [Event; 5] =
    [Event::Shutdown, Event::Crash, Event::Stop, Event::Timeout, Event::Deploy];

async fn a_closure_becomes_what_the_table_says() {
    for event in EVENTS {
        check(Job::Closure, event).await;
    }
}

async fn a_process_becomes_what_the_table_says() {
    for event in EVENTS {
        check(Job::Process, event).await;
    }
}

async fn a_survivor_becomes_what_the_table_says() {
    for event in EVENTS {
        check(Job::Survivor, event).await;
    }
}

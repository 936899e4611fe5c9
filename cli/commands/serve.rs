//! `serve`: runs schedules, and what others ask for, until it is told to end.

use std::collections::BTreeSet;
use std::time::Duration;

use adjutant::{
    DescribeInvocations, Engine, Error, Event, ExecutionStatus, InvocationStatus, InvokeId,
};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Context;
use crate::failure::{Failure, one_line};
use crate::owner::Owner;
use crate::session::OWNER_PATIENCE;
use crate::ui;

/// Between two looks for runs that are new.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two tries to open a file that somebody else is about to leave.
const OWNER_POLL: Duration = Duration::from_millis(50);
/// Lines on their way to the reader; the records keep the rest.
const WAITING_MAX: usize = 64;
/// How long the last lines may take.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);
/// As much of an id as tells runs apart: the time to the millisecond.
const SHORT_ID_CHARS: usize = 14;
/// The most that a page holds.
const PAGE_SIZE: usize = 50;

pub(super) async fn serve(context: &Context) -> Result<u8, Failure> {
    let interrupted = context.interrupts.next();
    context.database.make_folder()?;
    let engine = open(context).await?;
    context.database.announce();
    context.interrupts.guard(Some(engine.clone()));
    let mut owner = Owner::new(engine.clone());
    owner.listen();
    let (lines, waiting) = mpsc::channel(WAITING_MAX);
    let printer = tokio::task::spawn_blocking({
        let json = context.json;
        move || print(waiting, json)
    });
    ui::note(&format!("serving {}; Ctrl-C ends it", context.database.path().display()));
    let mut reports = JoinSet::new();
    let looked = tokio::select! {
        looked = look(&engine, &lines, &mut reports) => looked,
        () = interrupted => Ok(()),
    };
    match owner.busy().await {
        Ok(0) | Err(_) => {}
        Ok(busy) => ui::note(&format!("ending; {busy} not ended yet; Ctrl-C again leaves at once")),
    }
    owner.shut_down().await;
    drop((engine, lines));
    let last_lines = async {
        while reports.join_next().await.is_some() {}
        let _ = printer.await;
    };
    let _ = tokio::time::timeout(LAST_LINES_MAX, last_lines).await;
    context.interrupts.unless_leaving().await;
    context.interrupts.guard(None);
    looked.map(|()| 0)
}

/// Opens the file, if nobody else has it for longer than a look at it takes.
async fn open(context: &Context) -> Result<Engine, Failure> {
    let deadline = Instant::now() + OWNER_PATIENCE;
    loop {
        match Engine::open(context.database.path()).await {
            Err(Error::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(OWNER_POLL).await;
            }
            opened => return Ok(opened?),
        }
    }
}

/// Reports every run that is new or has not ended; returns only if the records cannot be read.
async fn look(
    engine: &Engine,
    lines: &mpsc::Sender<Line>,
    reports: &mut JoinSet<()>,
) -> Result<(), Failure> {
    let start = Utc::now();
    let mut known = BTreeSet::new();
    for &status in InvocationStatus::ALL.iter().filter(|status| !status.is_final()) {
        let request = DescribeInvocations { status: Some(status), ..Default::default() };
        known.extend(list(engine, request, |_| true).await?);
    }
    for &invoke_id in &known {
        reports.spawn(report(engine.clone(), invoke_id, start, lines.clone()));
    }
    let one = DescribeInvocations { max_results: Some(1), ..Default::default() };
    let newest = engine.describe_invocations(one).await?.invocations.pop();
    let mut newest = newest.map(|invocation| invocation.invoke_id);
    known.extend(newest);
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // From the newest of the look before: ids are made a little before their runs are stored.
        let is_new = |invoke_id| newest.is_none_or(|newest| newest <= invoke_id);
        let listed = list(engine, DescribeInvocations::default(), is_new).await?;
        for &invoke_id in listed.difference(&known) {
            reports.spawn(report(engine.clone(), invoke_id, start, lines.clone()));
        }
        while reports.try_join_next().is_some() {}
        newest = known.last().copied().max(newest);
        known = listed;
    }
}

/// The runs of a listing, newest first, down to the first that is not wanted.
async fn list(
    engine: &Engine,
    mut request: DescribeInvocations,
    wanted: impl Fn(InvokeId) -> bool,
) -> Result<BTreeSet<InvokeId>, Failure> {
    let mut found = BTreeSet::new();
    request.max_results = Some(PAGE_SIZE);
    loop {
        let page = engine.describe_invocations(request.clone()).await?;
        for invocation in page.invocations {
            if !wanted(invocation.invoke_id) {
                return Ok(found);
            }
            found.insert(invocation.invoke_id);
        }
        if page.next_token.is_empty() {
            return Ok(found);
        }
        request.next_token = Some(page.next_token);
    }
}

/// Reports what happens to a run from `start` on.
async fn report(
    engine: Engine,
    invoke_id: InvokeId,
    start: DateTime<Utc>,
    lines: mpsc::Sender<Line>,
) {
    let Ok(mut watch) = engine.watch(&invoke_id).await else { return };
    // The watch ends with the engine, which must not wait for this handle of it.
    drop(engine);
    while let Ok(Some(event)) = watch.next().await {
        let Event::Status { execution_id: _, instance_id, status, at } = event else { continue };
        if at >= start {
            let instance_id = instance_id.to_string();
            if lines.send(Line { at, invoke_id, instance_id, status }).await.is_err() {
                return;
            }
        }
    }
}

/// One thing that happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    at: DateTime<Utc>,
    invoke_id: InvokeId,
    instance_id: String,
    status: ExecutionStatus,
}

/// Prints lines until the last handle has gone. One that cannot be printed ends nothing: the
/// schedules matter more.
fn print(mut lines: mpsc::Receiver<Line>, json: bool) {
    while let Some(line) = lines.blocking_recv() {
        let _ = if json { ui::print_json(&line) } else { ui::print(text(&line).as_bytes()) };
    }
}

fn text(line: &Line) -> String {
    let at = line.at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let id = line.invoke_id.to_string();
    let id = id.get(..SHORT_ID_CHARS).unwrap_or(&id);
    format!("{at}  {id}  {}  {}\n", one_line(&line.instance_id), line.status)
}

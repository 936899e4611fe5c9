//! `serve`: runs schedules and the requests of other processes until it is told to end.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use adjutant::{
    DescribeInvocationResults, DescribeInvocations, Engine, Error, ExecutionId, ExecutionStatus,
    Feed, Fire, FireDisposition, InstanceId, InvokeId, Notice,
};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Context;
use super::next::zone_data;
use crate::failure::{Failure, IN_USE};
use crate::owner::Owner;
use crate::plain::one_line;
use crate::session::{OWNER_PATIENCE, running};
use crate::{log, render, ui, user};

/// Between two tries to open a file that somebody else is about to leave.
const OWNER_POLL: Duration = Duration::from_millis(50);
/// How long the last lines may take.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);
/// As much of an id as tells runs apart: the time to the millisecond.
const SHORT_ID_CHARS: usize = 14;

pub(super) async fn serve(context: &Context) -> Result<u8, Failure> {
    let interrupted = context.interrupts.next();
    context.database.make_folder()?;
    let (engine, feed) = open(context).await?;
    context.database.announce();
    context.interrupts.guard(Some(engine.clone()));
    let closed = engine.closed();
    let mut owner = Owner::new(engine);
    owner.listen();
    let printer = tokio::task::spawn_blocking({
        let mut teller = Teller::new(owner.engine().clone(), Handle::current());
        let json = context.json;
        move || teller.print(feed, json)
    });
    log::tell_times();
    let key = context.interrupts.key();
    ui::note(&format!("serving {}; {key} ends it", context.database.path().display()));
    ui::note(&format!("zone data {}", zone_data(Utc::now())));
    let ended = tokio::select! {
        () = interrupted => None,
        end = closed => Some(end),
    };
    match owner.busy().await {
        Ok(0) | Err(_) => {}
        Ok(busy) => ui::note(&format!("ending; {busy} not ended yet; {key} again leaves at once")),
    }
    owner.shut_down().await;
    let _ = tokio::time::timeout(LAST_LINES_MAX, printer).await;
    context.interrupts.unless_leaving().await;
    context.interrupts.guard(None);
    match ended {
        None => Ok(0),
        // The exit status lets a supervisor start the program again.
        Some(end) => Err(Error::from(end).into()),
    }
}

/// Opens the file, if nobody else has it for longer than a look at it takes.
async fn open(context: &Context) -> Result<(Engine, Feed), Failure> {
    let deadline = Instant::now() + OWNER_PATIENCE;
    loop {
        match running(context.database.path()).open_and_follow().await {
            Err(Error::InUse { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(OWNER_POLL).await;
            }
            Err(Error::InUse { path, pid }) => return Err(in_use(&path, pid)),
            opened => {
                let (engine, feed) = opened?;
                return Ok((user::calls(&engine), feed));
            }
        }
    }
}

/// What there is to do about a file that somebody has: it may be for the sake of a single run.
fn in_use(path: &Path, pid: Option<u32>) -> Failure {
    let owner = pid.map_or("another process".to_owned(), |pid| format!("pid {pid}"));
    let message = format!(
        "{} is in use by {owner}; it is being served already, or a run goes on in it, which `adjutant ps` \
         shows; wait for its end, or end that process",
        path.display()
    );
    Failure::new(IN_USE, 503, message)
}

/// Executions and names that are remembered for the lines to come.
const KNOWN_MAX: usize = 4_096;

/// Prints what happens, with what the notices leave to the records: names, exit codes and durations.
struct Teller {
    engine: Engine,
    runtime: Handle,
    names: HashMap<InvokeId, String>,
    /// How executions that run stand, and since when.
    running: HashMap<ExecutionId, (ExecutionStatus, DateTime<Utc>)>,
}

impl Teller {
    fn new(engine: Engine, runtime: Handle) -> Self {
        Self { engine, runtime, names: HashMap::new(), running: HashMap::new() }
    }

    /// Prints until the engine has ended, on a thread of its own: a reader that is too slow holds up nothing but the
    /// feed. A line that cannot be printed ends nothing, because the schedules matter more.
    fn print(&mut self, mut feed: Feed, json: bool) {
        let runtime = self.runtime.clone();
        while let Some(notice) = runtime.block_on(feed.next()) {
            let Some(took) = self.news(&notice) else { continue };
            let _ = if json {
                ui::print_json(&notice)
            } else {
                let line = runtime.block_on(self.line(&notice, took));
                ui::print(line.as_bytes())
            };
        }
    }

    /// Returns how long the execution of a notice has run, if it has ended; `None` if the notice says nothing new, as
    /// when an execution that is being stopped is asked to stop again.
    fn news(&mut self, notice: &Notice) -> Option<Option<TimeDelta>> {
        let Notice::Status { execution_id, status, at, .. } = notice else { return Some(None) };
        let known = self.running.remove(execution_id);
        if status.is_final() {
            return Some(known.map(|(_, since)| *at - since));
        }
        let since = known.map_or(*at, |(_, since)| since);
        if self.running.len() >= KNOWN_MAX {
            self.running.clear();
        }
        self.running.insert(*execution_id, (*status, since));
        known.is_none_or(|(before, _)| before != *status).then_some(None)
    }

    /// Returns one thing that happened as a line for people.
    async fn line(&mut self, notice: &Notice, took: Option<TimeDelta>) -> String {
        let invoke_id = match notice {
            Notice::Fire { invoke_id, .. }
            | Notice::Status { invoke_id, .. }
            | Notice::Finished { invoke_id, .. }
            | Notice::Delivery { invoke_id, .. } => *invoke_id,
            _ => return line(notice, "", ""),
        };
        let name = self.name(invoke_id).await;
        let mut more = String::new();
        if let Notice::Status { execution_id, instance_id, status, .. } = notice {
            if *status == ExecutionStatus::Failed {
                more += &self.exit(invoke_id, *execution_id, instance_id).await;
            }
            if let Some(ms) = took.and_then(|took| u64::try_from(took.num_milliseconds()).ok()) {
                more += &format!("  {}", render::duration(ms));
            }
        }
        line(notice, &name, &more)
    }

    /// Returns the name of an invocation, with a gap behind it; nothing if it has none.
    async fn name(&mut self, invoke_id: InvokeId) -> String {
        if let Some(name) = self.names.get(&invoke_id) {
            return name.clone();
        }
        let one =
            DescribeInvocations::default().invoke_id(invoke_id).omit_instances().max_results(1);
        // A record that cannot be read has no name; the line says the rest.
        let found = self.engine.describe_invocations(one).await.ok();
        let found = found.and_then(|mut page| page.invocations.pop());
        let name = match found.map(|one| one.command_name) {
            Some(name) if !name.is_empty() => format!("{name}  "),
            _ => String::new(),
        };
        if self.names.len() >= KNOWN_MAX {
            self.names.clear();
        }
        self.names.insert(invoke_id, name.clone());
        name
    }

    /// Returns the exit code or the signal with which an execution failed, if its record is the latest there.
    async fn exit(&self, invoke_id: InvokeId, id: ExecutionId, on: &InstanceId) -> String {
        let latest = DescribeInvocationResults::default()
            .invoke_id(invoke_id)
            .instance_id(on.clone())
            .max_results(1);
        let found = self.engine.describe_invocation_results(latest).await.ok();
        let found = found.and_then(|mut page| page.invocation.results.pop());
        match found.filter(|result| result.execution_id == id) {
            Some(result) => format!(" {}", render::exit(&result)),
            None => String::new(),
        }
    }
}

/// One thing that happened, for people: the invocation with its name, and after a status what is known beside it.
fn line(notice: &Notice, name: &str, more: &str) -> String {
    match notice {
        Notice::Fire { invoke_id, fire } => about(fire.time, invoke_id, name, &outcome(fire)),
        Notice::Status { invoke_id, instance_id, status, at, retry_time, .. } => {
            let retry =
                retry_time.map_or_else(String::new, |at| format!(": next try at {}", time(at)));
            about(*at, invoke_id, name, &format!("{instance_id}  {status}{more}{retry}"))
        }
        Notice::Finished { invoke_id, status } => {
            about(Utc::now(), invoke_id, name, &format!("ended  {status}"))
        }
        Notice::Delivery { invoke_id, uri, error_info, .. } if error_info.is_empty() => {
            about(Utc::now(), invoke_id, name, &format!("the output is in {uri}"))
        }
        Notice::Delivery { invoke_id, error_info, .. } => {
            let what = format!("the output was not delivered: {error_info}");
            about(Utc::now(), invoke_id, name, &what)
        }
        Notice::Lagged { count } => {
            format!("{}  {count} lines came too fast; the records have it all\n", time(Utc::now()))
        }
        // What only a newer library tells of.
        _ => String::new(),
    }
}

fn about(at: DateTime<Utc>, invoke_id: &InvokeId, name: &str, what: &str) -> String {
    let id = invoke_id.to_string();
    let id = id.get(..SHORT_ID_CHARS).unwrap_or(&id);
    format!("{}  {id}  {}{}\n", time(at), one_line(name), one_line(what))
}

/// What became of a nominal time or a stretch of them: `missed x3 until T: why`.
fn outcome(fire: &Fire) -> String {
    let mut text = match fire.disposition {
        FireDisposition::Started => "fired",
        FireDisposition::Skipped => "skipped",
        FireDisposition::Missed => "missed",
    }
    .to_owned();
    if let Some(until) = fire.until.filter(|_| fire.count > 1) {
        text.push_str(&format!(" x{} until {}", fire.count, time(until)));
    }
    if !fire.reason.is_empty() {
        text.push_str(&format!(": {}", fire.reason));
    }
    text
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fire_is_a_short_line() {
        let check = |disposition: &str,
                     until: Option<&str>,
                     count: u64,
                     reason: &str,
                     want: &str| {
            let fire = serde_json::json!({
                "Time": "2030-01-31T08:00:00.123Z", "Until": until, "Count": count, "Zone": "UTC",
                "Disposition": disposition, "Reason": reason, "DealtTime": "2030-01-31T08:00:10Z",
            });
            let invoke_id = "t-01a1fb2367aa7653922750444385f3f5".parse().expect("an id");
            let fire = serde_json::from_value(fire).expect("a fire");
            let want = format!("2030-01-31T08:00:00Z  t-01a1fb2367aa  {want}\n");
            assert_eq!(line(&Notice::Fire { invoke_id, fire }, "", ""), want);
        };
        let until = Some("2030-01-31T08:02:00Z");
        check("Started", None, 1, "", "fired");
        check("Started", None, 1, "r1 booted", "fired: r1 booted");
        check("Skipped", None, 1, "it paused", "skipped: it paused");
        check("Missed", Some("2030-01-31T08:00:00.123Z"), 1, "away", "missed: away");
        check("Missed", until, 3, "away", "missed x3 until 2030-01-31T08:02:00Z: away");
        check("Skipped", until, 3, "a\nb", "skipped x3 until 2030-01-31T08:02:00Z: a\\nb");
    }

    #[test]
    fn many_stops_of_one_execution_are_one_line() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let engine = runtime.block_on(Engine::open_in_memory()).expect("it opens");
        let mut teller = Teller::new(engine, runtime.handle().clone());
        let mut check = |id: u64, status: &str, second: u32, want: Option<Option<i64>>| {
            let notice = serde_json::json!({
                "Notice": "Status", "InvokeId": "t-01a1fb2367aa7653922750444385f3f5",
                "ExecutionId": id, "InstanceId": "i", "Status": status,
                "At": format!("2030-01-31T08:00:{second:02}Z"),
            });
            let notice = serde_json::from_value(notice).expect("a notice");
            let took = teller.news(&notice).map(|took| took.map(|took| took.num_seconds()));
            assert_eq!(took, want, "{status} at {second}");
        };
        check(1, "Running", 0, Some(None));
        check(1, "Stopping", 1, Some(None));
        check(1, "Stopping", 2, None);
        check(2, "Running", 2, Some(None));
        check(1, "Stopping", 3, None);
        check(1, "Terminated", 4, Some(Some(4)));
        check(3, "Cancelled", 4, Some(None));
        check(2, "Success", 5, Some(Some(3)));
    }

    #[test]
    fn what_was_too_fast_is_counted() {
        assert!(line(&Notice::Lagged { count: 7 }, "", "").contains("  7 lines came too fast"));
    }
}

//! `serve`: runs schedules and the requests of other processes until it is told to end.

use std::path::Path;
use std::time::Duration;

use adjutant::{Engine, Error, Feed, Fire, FireDisposition, InvokeId, Notice};
use chrono::{DateTime, SecondsFormat, Utc};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Context;
use crate::failure::{Failure, IN_USE, one_line};
use crate::owner::Owner;
use crate::session::{OWNER_PATIENCE, called_by_user, running};
use crate::ui;

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
        let (runtime, json) = (Handle::current(), context.json);
        move || print(feed, &runtime, json)
    });
    ui::note(&format!("serving {}; Ctrl-C ends it", context.database.path().display()));
    let ended = tokio::select! {
        () = interrupted => None,
        end = closed => Some(end),
    };
    match owner.busy().await {
        Ok(0) | Err(_) => {}
        Ok(busy) => ui::note(&format!("ending; {busy} not ended yet; Ctrl-C again leaves at once")),
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
                return Ok((called_by_user(&engine), feed));
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

/// Prints what happens until the engine has ended, on a thread of its own: a reader that is too
/// slow holds up nothing but the feed. A line that cannot be printed ends nothing, for the schedules
/// matter more.
fn print(mut feed: Feed, runtime: &Handle, json: bool) {
    while let Some(notice) = runtime.block_on(feed.next()) {
        let _ = if json { ui::print_json(&notice) } else { ui::print(line(&notice).as_bytes()) };
    }
}

/// One thing that happened, for people.
fn line(notice: &Notice) -> String {
    match notice {
        Notice::Fire { invoke_id, fire } => about(fire.time, invoke_id, &outcome(fire)),
        Notice::Status { invoke_id, instance_id, status, at, retry_time, .. } => {
            let retry =
                retry_time.map_or_else(String::new, |at| format!(": next try at {}", time(at)));
            about(*at, invoke_id, &format!("{instance_id}  {status}{retry}"))
        }
        Notice::Finished { invoke_id, status } => {
            about(Utc::now(), invoke_id, &format!("ended  {status}"))
        }
        Notice::Delivery { invoke_id, uri, error_info, .. } if error_info.is_empty() => {
            about(Utc::now(), invoke_id, &format!("the output is in {uri}"))
        }
        Notice::Delivery { invoke_id, error_info, .. } => {
            about(Utc::now(), invoke_id, &format!("the output was not delivered: {error_info}"))
        }
        Notice::Lagged { count } => {
            format!("{}  {count} lines came too fast; the records have it all\n", time(Utc::now()))
        }
        // What only a newer library tells of.
        _ => String::new(),
    }
}

fn about(at: DateTime<Utc>, invoke_id: &InvokeId, what: &str) -> String {
    let id = invoke_id.to_string();
    let id = id.get(..SHORT_ID_CHARS).unwrap_or(&id);
    format!("{}  {id}  {}\n", time(at), one_line(what))
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
            assert_eq!(line(&Notice::Fire { invoke_id, fire }), want);
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
    fn what_was_too_fast_is_counted() {
        assert!(line(&Notice::Lagged { count: 7 }).contains("  7 lines came too fast"));
    }
}

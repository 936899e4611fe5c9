//! Watching a run to its end and telling how it went.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::pin::pin;

use adjutant::{Event, ExecutionId, ExecutionStatus, InstanceId, InvokeId, StopInvocation};
use tokio::time::Instant;

use super::record::Record;
use super::{Context, NOT_ALL_SUCCEEDED};
use crate::control::{Client, Heard, SILENCE_MAX, WatchedRequest};
use crate::failure::Failure;
use crate::owner::{STOP_MAX, not_stopped};
use crate::screen::{Output, Screen};
use crate::session::{Session, Watching};
use crate::ui::Target;
use crate::{render, ui};

/// What Ctrl-C does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnInterrupt {
    Stop,
    Leave,
}

/// Starts or finds a run and sees it to its end; the exit status. No instances: those that it finds.
pub(super) async fn attend<O: WatchedRequest>(
    context: &Context,
    session: &mut Session,
    request: O,
    instances: &[InstanceId],
    on_interrupt: OnInterrupt,
    raw: bool,
) -> Result<u8, Failure> {
    let output = match (context.json, raw) {
        (true, _) => Output::None,
        (false, true) => Output::Raw,
        (false, false) => Output::Plain,
    };
    let interrupted = context.interrupts.next();
    let (response, watching) = session.watch(request.clone()).await?;
    let invoke_id = request.invoke_id(&response);
    let screen = match instances {
        // Tags have selected them: the record says which.
        [] => {
            let record = match Record::fetch(session, invoke_id, false).await {
                Ok(record) => record,
                Err(failure) => {
                    session.give_up();
                    return Err(failure);
                }
            };
            let selected = record.results().iter().map(|result| result.instance_id.clone());
            Screen::open(&selected.collect::<Vec<_>>(), output)
        }
        named => Screen::open(named, output),
    };
    let end = follow(context, session, watching, invoke_id, &screen, on_interrupt, interrupted);
    let end = end.await;
    if end.is_err() && on_interrupt == OnInterrupt::Stop {
        // It would go on with nobody to watch it and nothing to record its end.
        session.give_up();
    }
    let shown = screen.close().await;
    match end? {
        End::Left => return Ok(NOT_ALL_SUCCEEDED),
        // As for every output that is read in part: `show --follow ID | head -1` is no error.
        End::Unread => return Ok(0),
        End::Finished | End::Lost | End::Answered => {}
    }
    session.see_delivered(invoke_id).await?;
    let record = Record::fetch(session, invoke_id, false).await?;
    tell(context, &record)?;
    shown?;
    Ok(if record.all_succeeded() && record.all_delivered() { 0 } else { NOT_ALL_SUCCEEDED })
}

/// How following a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// With the run.
    Finished,
    /// With the reader of this process, which only shows.
    Unread,
    /// With a process that answers again, and knows more than its records.
    Answered,
    /// With the process that ran it; the run may go on.
    Lost,
    /// With a signal.
    Left,
}

/// Shows a run up to its end, whoever runs the file meanwhile.
async fn follow(
    context: &Context,
    session: &mut Session,
    mut watching: Watching,
    invoke_id: InvokeId,
    screen: &Screen,
    on_interrupt: OnInterrupt,
    interrupted: impl Future<Output = ()>,
) -> Result<End, Failure> {
    let mut interrupted = pin!(interrupted);
    let mut stopped_at = None;
    let mut seen = Seen::default();
    let mut told = false;
    let mut unread = pin!(async {
        match on_interrupt {
            OnInterrupt::Leave => ui::reader_gone().await,
            // A run is worth its work without a reader.
            OnInterrupt::Stop => std::future::pending().await,
        }
    });
    let mut silence = Silence::default();
    loop {
        let reads_only = session.reads_only();
        let end = {
            let mut events = pin!(pass_on(&mut watching, &mut seen, &mut silence, screen));
            let mut answered = pin!(answers_again(context.database.path(), screen));
            loop {
                let late = async {
                    match stopped_at {
                        Some(at) => tokio::time::sleep_until(at + STOP_MAX).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    end = &mut events => break end?,
                    () = &mut answered, if reads_only => break End::Answered,
                    () = &mut unread => return Ok(End::Unread),
                    () = late => return Err(not_stopped()),
                    () = &mut interrupted, if stopped_at.is_none() => {
                        if on_interrupt == OnInterrupt::Leave {
                            return Ok(End::Left);
                        }
                        let key = context.interrupts.key();
                        screen.note(&format!("stopping the run; {key} again leaves at once"));
                        stop(session, invoke_id).await?;
                        stopped_at = Some(Instant::now());
                    }
                }
            }
        };
        match end {
            End::Lost if std::mem::replace(&mut told, true) => {}
            End::Lost => {
                screen.note("the process that ran it has ended; the records say how it goes on");
            }
            End::Answered => screen.note(ANSWERS_AGAIN),
            end => return Ok(end),
        }
        watching = session.watch_again(watching, invoke_id).await?;
        context.interrupts.guard(session.engine().cloned());
        if stopped_at.is_some() {
            stop(session, invoke_id).await?;
        }
    }
}

/// Passes events to the screen up to the last.
async fn pass_on(
    watching: &mut Watching,
    seen: &mut Seen,
    silence: &mut Silence,
    screen: &Screen,
) -> Result<End, Failure> {
    loop {
        match watching.next().await {
            Ok(Some(Heard::Silence(failure))) => silence.tell(&failure, screen),
            Ok(Some(Heard::Again)) => {
                *silence = Silence::default();
                screen.note(ANSWERS_AGAIN);
            }
            Ok(Some(Heard::Event(event))) => {
                let last = matches!(event, Event::Finished { .. });
                if let Some(event) = seen.rest(event) {
                    screen.event(event).await;
                }
                if last {
                    return Ok(End::Finished);
                }
            }
            Ok(None) if watching.is_here() => return Ok(End::Finished),
            Ok(None) => return Ok(End::Lost),
            Err(failure) if failure.is_lost() => return Ok(End::Lost),
            Err(failure) => return Err(failure),
        }
    }
}

const ANSWERS_AGAIN: &str = "the process that runs the database answers again";

/// The silences of an owner, each as long as [`SILENCE_MAX`], since it was heard.
#[derive(Default)]
struct Silence {
    count: u32,
}

impl Silence {
    /// Says that the owner says nothing: at once, then after pauses that become longer, up to a minute.
    fn tell(&mut self, failure: &Failure, screen: &Screen) {
        if self.is_news() {
            screen.note(&format!("{failure}; waiting for it"));
        }
    }

    fn is_news(&mut self) -> bool {
        self.count += 1;
        match self.count {
            count @ ..16 => (count + 1).is_power_of_two(),
            count => count % 12 == 3,
        }
    }
}

/// Waits until the process that runs the file answers, and tells meanwhile that it does not.
async fn answers_again(database: &Path, screen: &Screen) {
    let mut silence = Silence::default();
    loop {
        tokio::time::sleep(SILENCE_MAX).await;
        match Client::connect(database).await {
            Ok(Some(_)) => return,
            Err(failure) if failure.is_silent() => silence.tell(&failure, screen),
            // No process runs the file, or a host without a socket does.
            Ok(None) | Err(_) => {}
        }
    }
}

/// What has been passed on of each execution: a watch that is begun again tells it again.
#[derive(Default)]
struct Seen(BTreeMap<ExecutionId, Told>);

#[derive(Default)]
struct Told {
    states: Vec<ExecutionStatus>,
    bytes: u64,
}

impl Seen {
    /// What is new of an event, if anything is.
    fn rest(&mut self, mut event: Event) -> Option<Event> {
        match &mut event {
            Event::Status { execution_id, status, .. } => {
                let told = self.0.entry(*execution_id).or_default();
                if told.states.contains(status) {
                    return None;
                }
                told.states.push(*status);
            }
            Event::Output { execution_id, offset, bytes, .. } => {
                let end = *offset + bytes.len() as u64;
                let known = self.known(*execution_id, *offset, end)?;
                bytes.drain(..usize::try_from(known).unwrap_or(bytes.len()));
                *offset += known;
            }
            Event::Gap { execution_id, offset, bytes, .. } => {
                let known = self.known(*execution_id, *offset, *offset + *bytes)?;
                *bytes -= known;
                *offset += known;
            }
            // The end, and what only a newer library tells of.
            _ => {}
        }
        Some(event)
    }

    /// How much of a stretch of output is known; `None` if all of it is.
    fn known(&mut self, id: ExecutionId, from: u64, end: u64) -> Option<u64> {
        let told = self.0.entry(id).or_default();
        let known = told.bytes.saturating_sub(from);
        if end <= told.bytes {
            return None;
        }
        told.bytes = end;
        Some(known)
    }
}

async fn stop(session: &mut Session, invoke_id: InvokeId) -> Result<(), Failure> {
    match session.call(StopInvocation::new(invoke_id)).await {
        // Who takes the file over is asked again.
        Err(failure) if failure.is_lost() => Ok(()),
        result => result.map(drop),
    }
}

/// The document, or the table: on standard error, so that standard output is the command's own.
fn tell(context: &Context, record: &Record) -> Result<(), Failure> {
    if context.json {
        return ui::print_json(record);
    }
    let table = render::results(record.results(), false, Target::Stderr);
    let _ = io::stderr().write_all(table.as_bytes());
    let invocation = &record.invocation;
    ui::note(&format!("{} {}", invocation.invoke_id, invocation.status));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_silence_is_told_at_once_and_then_ever_more_rarely() {
        let mut silence = Silence::default();
        let told: Vec<u32> = (1..=52).filter(|_| silence.is_news()).collect();
        assert_eq!(told, [1, 3, 7, 15, 27, 39, 51]);
    }

    #[test]
    fn what_is_told_again_is_left_out() {
        let event = |of: u64, mut event: Value| {
            event["ExecutionId"] = of.into();
            event["InstanceId"] = "i".into();
            serde_json::from_value::<Event>(event).expect("an event")
        };
        let status = |of, status: &str| {
            event(of, json!({"Event": "Status", "Status": status, "At": "2030-01-31T08:00:00Z"}))
        };
        let output = |of, offset: u64, base64: &str| {
            let fields =
                json!({"Event": "Output", "Stream": "stdout", "Offset": offset, "Bytes": base64});
            event(of, fields)
        };
        let gap = |of, offset: u64, bytes: u64| {
            event(of, json!({"Event": "Gap", "Offset": offset, "Bytes": bytes}))
        };
        let mut seen = Seen::default();
        let mut check = |event: Event, want: Option<Event>| assert_eq!(seen.rest(event), want);
        check(status(1, "Running"), Some(status(1, "Running")));
        check(output(1, 0, "b25l"), Some(output(1, 0, "b25l")));
        check(gap(1, 3, 4), Some(gap(1, 3, 4)));
        check(status(2, "Running"), Some(status(2, "Running")));
        check(status(1, "Running"), None);
        check(output(1, 0, "b25l"), None);
        check(output(1, 0, "b25lb25lb25l"), Some(output(1, 7, "bmU=")));
        check(gap(1, 3, 5), None);
        check(gap(1, 4, 9), Some(gap(1, 9, 4)));
        check(output(1, 13, "dHdv"), Some(output(1, 13, "dHdv")));
        check(output(2, 0, "b25l"), Some(output(2, 0, "b25l")));
        check(status(1, "Success"), Some(status(1, "Success")));
    }
}

//! Watching a run to its end and telling how it went.

use std::io::{self, Write};
use std::pin::pin;

use adjutant::{Event, InstanceId, InvokeId, StopInvocation};

use super::record::Record;
use super::{Context, NOT_ALL_SUCCEEDED};
use crate::control::Watched;
use crate::failure::Failure;
use crate::owner::{STOP_MAX, not_stopped};
use crate::screen::Screen;
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
pub(super) async fn attend<O: Watched>(
    context: &Context,
    session: &mut Session,
    request: O,
    instances: &[InstanceId],
    on_interrupt: OnInterrupt,
) -> Result<u8, Failure> {
    let interrupted = context.interrupts.next();
    let (response, mut watching) = session.watch(request.clone()).await?;
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
            Screen::open(&selected.collect::<Vec<_>>(), !context.json)
        }
        named => Screen::open(named, !context.json),
    };
    let left = {
        let mut events = pin!(pass_on(&mut watching, &screen));
        tokio::select! {
            end = &mut events => end.map(|()| false),
            () = interrupted => match on_interrupt {
                OnInterrupt::Leave => Ok(true),
                OnInterrupt::Stop => match stop(session, invoke_id, &screen).await {
                    Ok(()) => match tokio::time::timeout(STOP_MAX, events).await {
                        Ok(end) => end.map(|()| false),
                        Err(_) => Err(not_stopped()),
                    },
                    Err(failure) => Err(failure),
                },
            }
        }
    };
    if left.is_err() && on_interrupt == OnInterrupt::Stop {
        // It would go on with nobody to watch it and nothing to record its end.
        session.give_up();
    }
    let shown = screen.close().await;
    if left? {
        return Ok(NOT_ALL_SUCCEEDED);
    }
    let record = Record::fetch(session, invoke_id, false).await?;
    tell(context, &record)?;
    shown?;
    Ok(if record.all_succeeded() { 0 } else { NOT_ALL_SUCCEEDED })
}

/// Passes events to the screen up to the last.
async fn pass_on(watching: &mut Watching, screen: &Screen) -> Result<(), Failure> {
    loop {
        match watching.next().await {
            Ok(Some(event)) => {
                let last = matches!(event, Event::Finished { .. });
                screen.event(event).await;
                if last {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(failure) if failure.is_lost() => {
                screen.note("the process that ran it has ended; this is what the record says");
                return Ok(());
            }
            Err(failure) => return Err(failure),
        }
    }
}

async fn stop(session: &mut Session, invoke_id: InvokeId, screen: &Screen) -> Result<(), Failure> {
    screen.note("stopping the run; Ctrl-C again leaves at once");
    match session.call(StopInvocation::new(invoke_id)).await {
        // Then there is nothing left to stop; the events tell the same.
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

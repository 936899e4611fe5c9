//! `show`: the record of a run.

use adjutant::{InstanceId, InvocationResult};

use super::attend::{OnInterrupt, attend};
use super::record::Record;
use super::{Context, called};
use crate::args::Show;
use crate::control::WatchInvocation;
use crate::failure::Failure;
use crate::plain::one_line;
use crate::session::{Need, Session};
use crate::ui::Target;
use crate::{render, ui};

pub(super) async fn show(context: &Context, show: &Show) -> Result<u8, Failure> {
    let fetch = async |session: &mut Session| {
        let invoke_id = called::run(session, &show.run).await?;
        Record::fetch(session, invoke_id, show.history).await
    };
    if show.follow {
        let followed = async |session: &mut Session| {
            let record = fetch(session).await?;
            follow(context, session, &record, show.raw).await
        };
        return context.with_session(Need::Follow, followed).await;
    }
    let record = context.with_session(Need::Read, fetch).await?;
    if context.json {
        ui::print_json(&record)?;
    } else if show.output {
        ui::print_of_others(&outputs(record.results(), show.history), show.raw)?;
    } else {
        let mut text = render::invocation(&record.invocation);
        text.push('\n');
        text.push_str(&render::results(record.results(), show.history, Target::Stdout));
        text.push_str(&render::details(record.results(), Target::Stdout));
        if !record.fires().is_empty() {
            text.push('\n');
            text.push_str(&render::fires(record.fires(), Target::Stdout));
        }
        ui::print(text.as_bytes())?;
        if record.has_older_fires() && Target::Stderr.is_terminal() {
            ui::note("there are older fires; `--history` lists them too");
        }
    }
    Ok(0)
}

async fn follow(
    context: &Context,
    session: &mut Session,
    record: &Record,
    raw: bool,
) -> Result<u8, Failure> {
    let instances = record.results().iter().map(|result| result.instance_id.clone());
    let instances: Vec<InstanceId> = instances.collect();
    let request = WatchInvocation { invoke_id: record.invocation.invoke_id };
    attend(context, session, request, &instances, OnInterrupt::Leave, raw).await
}

/// What was printed: bytes as they are for one instance, under headings for several.
fn outputs(results: &[InvocationResult], history: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for result in results {
        if results.len() > 1 {
            bytes.extend_from_slice(heading(result, history).as_bytes());
        }
        output(result, &mut bytes);
        if results.len() > 1 && !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
    }
    bytes
}

/// The line above an output; with the time and the end of the execution if there may be several on an instance.
fn heading(result: &InvocationResult, history: bool) -> String {
    let name = one_line(result.instance_id.as_str());
    if !history {
        return format!("==> {name} <==\n");
    }
    let started =
        result.start_time.as_ref().map_or_else(String::new, |at| format!(" {}", render::time(at)));
    let exit = match (result.signal, result.exit_code) {
        (None, None) => String::new(),
        _ => format!(" {}", render::exit(result)),
    };
    format!("==> {name}{started} {}{exit} <==\n", result.status)
}

/// One output, with a line where the quota left something out.
fn output(result: &InvocationResult, bytes: &mut Vec<u8>) {
    let kept = result.output.as_bytes();
    let gap = result.dropped_at.and_then(|at| usize::try_from(at).ok());
    match gap.and_then(|at| kept.split_at_checked(at)) {
        Some((head, tail)) => {
            bytes.extend_from_slice(head);
            let gap = format!("\n[... {} bytes are not in the record ...]\n", result.dropped);
            bytes.extend_from_slice(gap.as_bytes());
            bytes.extend_from_slice(tail);
        }
        None => bytes.extend_from_slice(kept),
    }
}

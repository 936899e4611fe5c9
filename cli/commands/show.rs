//! `show`: the record of a run.

use adjutant::{InstanceId, InvocationResult};

use super::Context;
use super::attend::{OnInterrupt, attend};
use super::record::Record;
use crate::args::Show;
use crate::control::WatchInvocation;
use crate::failure::{Failure, one_line};
use crate::session::{Need, Session};
use crate::ui::Target;
use crate::{render, ui};

pub(super) async fn show(context: &Context, show: &Show) -> Result<u8, Failure> {
    let fetch =
        async |session: &mut Session| Record::fetch(session, show.invoke_id, show.history).await;
    if show.follow {
        let followed = async |session: &mut Session| {
            let record = fetch(session).await?;
            follow(context, session, &record).await
        };
        return context.with_session(Need::Follow, followed).await;
    }
    let record = context.with_session(Need::Read, fetch).await?;
    if context.json {
        ui::print_json(&record)?;
    } else if show.output {
        ui::print(&outputs(record.results()))?;
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

async fn follow(context: &Context, session: &mut Session, record: &Record) -> Result<u8, Failure> {
    let instances = record.results().iter().map(|result| result.instance_id.clone());
    let instances: Vec<InstanceId> = instances.collect();
    let request = WatchInvocation { invoke_id: record.invocation.invoke_id };
    attend(context, session, request, &instances, OnInterrupt::Leave).await
}

/// What was printed: bytes as they are for one instance, under headings for several.
fn outputs(results: &[InvocationResult]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for result in results {
        if results.len() > 1 {
            let name = one_line(result.instance_id.as_str());
            bytes.extend_from_slice(format!("==> {name} <==\n").as_bytes());
        }
        output(result, &mut bytes);
        if results.len() > 1 && !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
    }
    bytes
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

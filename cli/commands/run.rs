//! `run` and `invoke`: start, show what is printed, end with a table.

use adjutant::schedule::{Schedule, Zone};
use adjutant::{
    DescribeInstances, DescribeInvocations, Instance, InstanceId, InvokeCommand, InvokeId,
    RunCommand,
};
use chrono::{DateTime, SecondsFormat, Utc};

use super::Context;
use super::attend::{OnInterrupt, attend};
use crate::args::{Invoke, Run, Target};
use crate::control::Watched;
use crate::failure::Failure;
use crate::session::{Need, Session};
use crate::{background, script, ui};

pub(super) async fn run(context: &Context, run: Run) -> Result<u8, Failure> {
    let target = &run.target;
    let mut request = RunCommand::shell(run.source.read()?).on(&target.on);
    request.name = run.name.unwrap_or_default();
    request.keep_command = run.keep;
    request.timeout = target.timeout;
    request.working_dir = target.workdir.as_deref().map(script::working_dir).transpose()?;
    request.termination_mode = target.termination.into();
    request.frequency = target.repeat.frequency.clone();
    request.overlap_policy = target.repeat.overlap.into();
    request.missed_policy = target.repeat.missed;
    carry_out(context, request, target).await
}

pub(super) async fn invoke(context: &Context, invoke: Invoke) -> Result<u8, Failure> {
    let target = &invoke.target;
    let mut request = InvokeCommand::new(invoke.command_id).on(&target.on);
    request.timeout = target.timeout;
    request.working_dir = target.workdir.as_deref().map(script::working_dir).transpose()?;
    request.termination_mode = target.termination.into();
    request.frequency = target.repeat.frequency.clone();
    request.overlap_policy = target.repeat.overlap.into();
    request.missed_policy = target.repeat.missed;
    carry_out(context, request, target).await
}

async fn carry_out<O: Watched>(
    context: &Context,
    request: O,
    target: &Target,
) -> Result<u8, Failure> {
    if target.detach {
        context.database.make_folder()?;
        let response = background::hand_over(context.database.path(), &request)
            .await
            .map_err(Failure::with_way_back_to_local)?;
        context.database.announce();
        return context.answer(&response, || format!("{}\n", request.invoke_id(&response)));
    }
    if target.repeat.frequency.is_some() {
        let scheduled = schedule(context, request, &target.on).await;
        return scheduled.map_err(Failure::with_way_back_to_local);
    }
    let attended = async |session: &mut _| {
        attend(context, session, request, &target.on, OnInterrupt::Stop).await
    };
    let done = context.with_session(Need::Run, attended).await;
    done.map_err(Failure::with_way_back_to_local)
}

/// Stores a run that repeats. Nobody waits for it: it fires while somebody runs the database.
async fn schedule<O: Watched>(
    context: &Context,
    request: O,
    on: &[InstanceId],
) -> Result<u8, Failure> {
    let stored = async |session: &mut Session| {
        let response = session.call(request.clone()).await?;
        let next = next_fire(session, request.invoke_id(&response), on).await?;
        Ok((response, next, session.engine().is_some()))
    };
    let (response, next, nobody_else) = context.with_session(Need::Write, stored).await?;
    context.answer(&response, || format!("{}\n", request.invoke_id(&response)))?;
    if let (Some(next), false) = (next, context.json) {
        let when = next.to_rfc3339_opts(SecondsFormat::Secs, true);
        let how = if nobody_else { ", if `adjutant serve` runs then" } else { "" };
        ui::note(&format!("fires next at {when}{how}"));
    }
    Ok(0)
}

/// When a run fires first from now on, on any of its instances.
async fn next_fire(
    session: &mut Session,
    invoke_id: InvokeId,
    on: &[InstanceId],
) -> Result<Option<DateTime<Utc>>, Failure> {
    let one = DescribeInvocations { invoke_id: Some(invoke_id), ..Default::default() };
    let invocation = session.call(one).await?.invocations.pop();
    let Some((schedule, created)) = invocation.and_then(|invocation| {
        Some((invocation.frequency.parse::<Schedule>().ok()?, invocation.creation_time))
    }) else {
        return Ok(None);
    };
    let instances = session.pages(DescribeInstances::default(), |_| false).await?.instances;
    let is_target = |instance: &&Instance| on.contains(&instance.instance_id);
    let zones =
        instances.iter().filter(is_target).map(|one| one.time_zone.unwrap_or_else(Zone::local));
    let now = Utc::now();
    Ok(zones.filter_map(|zone| schedule.bind(created, zone).next_after(now)).min())
}

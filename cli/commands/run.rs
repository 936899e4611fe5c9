//! `run`, `invoke` and `retry`: start, show what is printed, end with a table.

use adjutant::schedule::{Lenient, Schedule};
use adjutant::{
    CommandType, InstanceId, Invocation, InvokeCommand, OverlapPolicy, ParameterPassing,
    RepeatMode, RetryFailed, RunCommand, Tag, TerminationMode,
};
use chrono::SecondsFormat;

use super::attend::{OnInterrupt, attend};
use super::record::find;
use super::{Context, called, repeating};
use crate::args::{Invoke, Language, Retrying, Run, Target};
use crate::control::WatchedRequest;
use crate::failure::Failure;
use crate::limits::Limit;
use crate::script::BASE64;
use crate::session::{Need, Session};
use crate::{background, script, ui, values};

/// Says of either request where, how and when to run.
macro_rules! aim {
    ($request:ident, $target:ident) => {
        let (repeat, rates) = (&$target.repeat, &$target.rates);
        $request = $request.on($target.named()).on_tagged($target.on_tag.iter().cloned());
        $request.resource_group_id = $target.group.clone();
        $request.tags = $target.tag.iter().cloned().map(Tag::from).collect();
        $request.client_token = $target.client_token.clone();
        let values = if $target.param_env.is_empty() {
            values::read("--param", &$target.values.param)?
        } else {
            $request.parameter_passing = ParameterPassing::Environment.into();
            values::read("--param-env", &$target.param_env)?
        };
        $request = $request.parameters(values);
        $request = $request.secret_parameters(&$target.secret);
        $request.username = $target.user.clone();
        $request.launcher = $target.launcher.clone();
        $request.container_name = $target.container.clone();
        $request.container_id = $target.container_id.clone();
        $request.oss_output_delivery = $target.output_to.as_deref().map(script::output_place);
        $request.timeout = $target.timeout;
        $request.working_dir = $target.workdir.as_deref().map(script::working_dir).transpose()?;
        $request.termination_mode = TerminationMode::from($target.termination).into();
        $request.resource_limits = Limit::all(&$target.limit);
        $request.survive_restarts = $target.survive_restarts;
        $request.retry = $target.again.request();
        $request.max_concurrency = rates.max_concurrency.map(Into::into);
        $request.max_errors = rates.max_errors.map(Into::into);
        $request = $request.waves(rates.waves.iter().copied());
        $request.wave_soak = rates.wave_soak;
        $request.priority = rates.priority;
        $request.concurrency_key = rates.concurrency_key.clone();
        $request.start_deadline = rates.start_deadline;
        $request.deadline = rates.deadline;
        $request.repeat_mode = repeat.mode().into();
        $request.frequency = repeat.frequency.as_deref().map(frequency);
        $request.overlap_policy = OverlapPolicy::from(repeat.overlap).into();
        $request.missed_policy = repeat.missed.into();
        $request.spread = repeat.spread;
        $request.end_time = repeat.until;
        $request.max_fires = repeat.times;
        if $target.dry_run {
            $request.repeat_mode = RepeatMode::DryRun.into();
        }
    };
}

/// The schedule as requests write it. A text in the language of another program is translated, and said
/// so; what cannot be read is passed on, for the engine to say it together with all else that is wrong.
fn frequency(text: &str) -> String {
    match Schedule::read_lenient(text) {
        Ok(Lenient { schedule, note: Some(note), .. }) => {
            ui::note(&note);
            schedule.to_string()
        }
        _ => text.to_owned(),
    }
}

pub(super) async fn run(context: &Context, run: Run) -> Result<u8, Failure> {
    let target = &run.target;
    let Language { written, base64, default } = run.language;
    let default = values::read("--default", &default)?;
    let script = run.source.read()?;
    let mut request = match script::base64(&script, base64)? {
        Some(text) => {
            let mut request = RunCommand::default();
            request.command_content = text;
            request.content_encoding = Some(BASE64.to_owned());
            request
        }
        None => RunCommand::shell(script),
    };
    request.command_type = CommandType::from(written).into();
    request.enable_parameter = run.parameters || target.has_values() || !default.is_empty();
    request = request.default_parameters(default);
    request.name = run.name.unwrap_or_default();
    request.keep_command = run.keep;
    aim!(request, target);
    carry_out(context, request, target).await
}

pub(super) async fn invoke(context: &Context, invoke: Invoke) -> Result<u8, Failure> {
    let target = &invoke.target;
    let command_id = match invoke.command.parse() {
        Ok(command_id) => command_id,
        Err(_) => {
            let find =
                async |session: &mut Session| called::command(session, &invoke.command).await;
            context.with_session(Need::Read, find).await?
        }
    };
    let mut request = InvokeCommand::new(command_id);
    aim!(request, target);
    carry_out(context, request, target).await
}

pub(super) async fn retry(context: &Context, retry: Retrying) -> Result<u8, Failure> {
    let mut request = RetryFailed::new(repeating::find(context, &retry.run).await?);
    request.client_token = retry.client_token;
    if retry.detach {
        return hand_over(context, request).await;
    }
    see_through(context, request, &[], retry.raw).await
}

async fn carry_out<O: WatchedRequest>(
    context: &Context,
    request: O,
    target: &Target,
) -> Result<u8, Failure> {
    if target.dry_run {
        let check = async |session: &mut Session| session.call(request).await;
        let done = context.with_session(Need::Write, check).await;
        let response = done.map_err(Failure::with_way_back_to_local)?;
        let sound = "it would run: every check passed, nothing was stored";
        return context.answer(&response, || format!("{sound}\n"));
    }
    if target.detach {
        return hand_over(context, request).await;
    }
    if target.repeat.is_given() {
        let planned = plan(context, request).await;
        return planned.map_err(Failure::with_way_back_to_local);
    }
    see_through(context, request, &target.named(), target.raw).await
}

/// Starts a run and sees it to its end on these instances, or those that it finds if none is named.
async fn see_through<O: WatchedRequest>(
    context: &Context,
    request: O,
    instances: &[InstanceId],
    raw: bool,
) -> Result<u8, Failure> {
    let attended = async |session: &mut _| {
        attend(context, session, request, instances, OnInterrupt::Stop, raw).await
    };
    let done = context.with_session(Need::Run, attended).await;
    done.map_err(Failure::with_way_back_to_local)
}

/// Leaves a run to the background.
async fn hand_over<O: WatchedRequest>(context: &Context, request: O) -> Result<u8, Failure> {
    context.database.make_folder()?;
    let response = background::hand_over(context.database.path(), &request)
        .await
        .map_err(Failure::with_way_back_to_local)?;
    context.database.announce();
    context.answer(&response, || format!("{}\n", request.invoke_id(&response)))
}

/// Stores a run for later. Nobody waits for it: it fires while somebody runs the database.
async fn plan<O: WatchedRequest>(context: &Context, request: O) -> Result<u8, Failure> {
    let stored = async |session: &mut Session| {
        let response = session.call(request.clone()).await?;
        let invocation = find(session, request.invoke_id(&response)).await?;
        Ok((response, invocation, session.engine().is_some()))
    };
    let (response, invocation, nobody_else) = context.with_session(Need::Write, stored).await?;
    context.answer(&response, || format!("{}\n", request.invoke_id(&response)))?;
    if let (Some(text), false) = (first_run(&invocation, nobody_else), context.json) {
        ui::note(&text);
    }
    Ok(0)
}

/// When a run that has just been stored runs first. Who runs the file now may be there for a run only, and is
/// not there any more after a reboot of this machine.
fn first_run(invocation: &Invocation, nobody_else: bool) -> Option<String> {
    const IF_SERVED: &str = ", if `adjutant serve` runs then";
    const IF_STILL: &str = ", if what runs the database now still does then";
    match (invocation.repeat_mode, invocation.next_fire_time) {
        (RepeatMode::NextRebootOnly, _) => {
            Some(format!("runs at the next reboot of each instance{IF_SERVED}"))
        }
        (RepeatMode::EveryReboot, _) => {
            Some(format!("runs at every reboot of each instance{IF_SERVED}"))
        }
        (_, Some(next)) => {
            let when = next.to_rfc3339_opts(SecondsFormat::Secs, true);
            let condition = if nobody_else { IF_SERVED } else { IF_STILL };
            Some(format!("fires next at {when}{condition}"))
        }
        _ => None,
    }
}

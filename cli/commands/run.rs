//! `run` and `invoke`: start, show what is printed, end with a table.

use adjutant::{InvokeCommand, RunCommand};

use super::Context;
use super::attend::{OnInterrupt, attend};
use crate::args::{Invoke, Run, Target};
use crate::control::Watched;
use crate::failure::Failure;
use crate::session::Need;
use crate::{background, script};

pub(super) async fn run(context: &Context, run: Run) -> Result<u8, Failure> {
    let target = &run.target;
    let mut request = RunCommand::shell(run.source.read()?).on(&target.on);
    request.name = run.name.unwrap_or_default();
    request.keep_command = run.keep;
    request.timeout = target.timeout;
    request.working_dir = target.workdir.as_deref().map(script::working_dir).transpose()?;
    request.termination_mode = target.termination.into();
    carry_out(context, request, target).await
}

pub(super) async fn invoke(context: &Context, invoke: Invoke) -> Result<u8, Failure> {
    let target = &invoke.target;
    let mut request = InvokeCommand::new(invoke.command_id).on(&target.on);
    request.timeout = target.timeout;
    request.working_dir = target.workdir.as_deref().map(script::working_dir).transpose()?;
    request.termination_mode = target.termination.into();
    carry_out(context, request, target).await
}

async fn carry_out<O: Watched>(
    context: &Context,
    request: O,
    target: &Target,
) -> Result<u8, Failure> {
    if target.detach {
        let response = background::hand_over(context.database.path(), &request).await?;
        context.database.announce();
        return context.answer(&response, || format!("{}\n", request.invoke_id(&response)));
    }
    let attended = async |session: &mut _| {
        attend(context, session, request, &target.on, OnInterrupt::Stop).await
    };
    context.with_session(Need::Run, attended).await
}

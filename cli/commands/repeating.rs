//! `pause`, `resume`, `run-now` and `explain`: runs that repeat.

use adjutant::{Fire, FireDisposition, InvokeId};
use serde::Serialize;

use super::Context;
use crate::args;
use crate::control::{Explain, Operation, PauseInvocation, ResumeInvocation, RunNow};
use crate::failure::{Failure, one_line};
use crate::session::Need;
use crate::{background, render};

pub(super) async fn pause(context: &Context, invoke_id: InvokeId) -> Result<u8, Failure> {
    change(context, PauseInvocation { invoke_id }, invoke_id, "paused").await
}

pub(super) async fn resume(context: &Context, invoke_id: InvokeId) -> Result<u8, Failure> {
    change(context, ResumeInvocation { invoke_id }, invoke_id, "resumed").await
}

/// Carries out what is answered by nothing but its success.
async fn change<O: Operation>(
    context: &Context,
    request: O,
    invoke_id: InvokeId,
    done: &str,
) -> Result<u8, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Changed {
        invoke_id: InvokeId,
    }
    context.with_session(Need::Write, async |session| session.call(request).await).await?;
    context.answer(&Changed { invoke_id }, || format!("{done} {invoke_id}\n"))
}

/// Has it fired where it also runs: nobody waits for its end.
pub(super) async fn run_now(context: &Context, invoke_id: InvokeId) -> Result<u8, Failure> {
    context.database.make_folder()?;
    let fire = background::hand_over(context.database.path(), &RunNow { invoke_id }).await?;
    context.database.announce();
    context.answer(&fire, || outcome(&fire))
}

fn outcome(fire: &Fire) -> String {
    match fire.disposition {
        FireDisposition::Started => "started\n".to_owned(),
        FireDisposition::Skipped | FireDisposition::Missed => {
            format!("skipped: {}\n", one_line(&fire.reason))
        }
    }
}

pub(super) async fn explain(context: &Context, asked: &args::Explain) -> Result<u8, Failure> {
    let request = Explain { invoke_id: asked.invoke_id, instant: asked.instant };
    let explanation =
        context.with_session(Need::Read, async |session| session.call(request).await).await?;
    context.answer(&explanation, || render::explanation(&explanation))
}

//! `pause`, `resume`, `run-now` and `explain`: runs that repeat.

use adjutant::{Fire, FireDisposition, InvokeId};
use serde::Serialize;

use super::{Context, called};
use crate::args;
use crate::control::{Explain, PauseInvocation, Request, ResumeInvocation, RunNow};
use crate::failure::Failure;
use crate::plain::one_line;
use crate::session::{Need, Session};
use crate::{background, render};

pub(super) async fn pause(context: &Context, run: &str) -> Result<u8, Failure> {
    change(context, |invoke_id| PauseInvocation { invoke_id }, run, "paused").await
}

pub(super) async fn resume(context: &Context, run: &str) -> Result<u8, Failure> {
    change(context, |invoke_id| ResumeInvocation { invoke_id }, run, "resumed").await
}

/// Carries out what is answered by nothing but its success.
async fn change<O: Request>(
    context: &Context,
    request: impl FnOnce(InvokeId) -> O,
    run: &str,
    done: &str,
) -> Result<u8, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Changed {
        invoke_id: InvokeId,
    }
    let change = async |session: &mut Session| {
        let invoke_id = called::run(session, run).await?;
        session.call(request(invoke_id)).await?;
        Ok(invoke_id)
    };
    let invoke_id = context.with_session(Need::Write, change).await?;
    context.answer(&Changed { invoke_id }, || format!("{done} {invoke_id}\n"))
}

/// Has it fired where it also runs: nobody waits for its end.
pub(super) async fn run_now(context: &Context, run: &str) -> Result<u8, Failure> {
    context.database.make_folder()?;
    let invoke_id = find(context, run).await?;
    let fire = background::hand_over(context.database.path(), &RunNow { invoke_id }).await?;
    context.database.announce();
    context.answer(&fire, || outcome(&fire))
}

/// Finds a run before it is left to the background.
pub(super) async fn find(context: &Context, run: &str) -> Result<InvokeId, Failure> {
    if let Ok(invoke_id) = run.parse() {
        return Ok(invoke_id);
    }
    context.with_session(Need::Read, async |session| called::run(session, run).await).await
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
    let explain = async |session: &mut Session| {
        let invoke_id = called::run(session, &asked.run).await?;
        session.call(Explain { invoke_id, instant: asked.instant }).await
    };
    let explanation = context.with_session(Need::Read, explain).await?;
    context.answer(&explanation, || render::explanation(&explanation))
}

//! `stop`: ends a run, or its part on some instances.

use adjutant::StopInvocation;

use super::record::find;
use super::{Context, called};
use crate::args::Stop;
use crate::background;
use crate::failure::Failure;
use crate::session::{Need, Session};

pub(super) async fn stop(context: &Context, stop: Stop) -> Result<u8, Failure> {
    let asked = async |session: &mut Session| {
        let invoke_id = called::run(session, &stop.run).await?;
        let before = find(session, invoke_id).await?.status;
        let mut request = StopInvocation::new(invoke_id).on(stop.on);
        request.reason = stop.reason;
        let response = session.call(request).await?;
        let goes_on =
            session.engine().is_some() && !find(session, invoke_id).await?.status.is_final();
        Ok((invoke_id, before, response, goes_on))
    };
    let (invoke_id, before, response, goes_on) = context.with_session(Need::Write, asked).await?;
    if goes_on {
        // What has survived its host is ending now, and somebody has to take that down.
        background::owner(context.database.path()).await?;
    }
    context.answer(&response, || match before {
        ended if ended.is_final() => format!("{invoke_id} had already ended ({ended})\n"),
        _ => format!("asked {invoke_id} to stop\n"),
    })
}

//! `stop`: ends a run, or its part on some instances.

use adjutant::StopInvocation;

use super::Context;
use super::record::find;
use crate::args::Stop;
use crate::background;
use crate::failure::Failure;
use crate::session::{Need, Session};

pub(super) async fn stop(context: &Context, stop: Stop) -> Result<u8, Failure> {
    let mut request = StopInvocation::new(stop.invoke_id).on(stop.on);
    request.reason = stop.reason;
    let asked = async |session: &mut Session| {
        let before = find(session, stop.invoke_id).await?.status;
        let response = session.call(request).await?;
        let goes_on =
            session.engine().is_some() && !find(session, stop.invoke_id).await?.status.is_final();
        Ok((before, response, goes_on))
    };
    let (before, response, goes_on) = context.with_session(Need::Write, asked).await?;
    if goes_on {
        // What has survived its host is ending now, and somebody has to take that down.
        background::owner(context.database.path()).await?;
    }
    context.answer(&response, || match before {
        ended if ended.is_final() => format!("{} had already ended ({ended})\n", stop.invoke_id),
        _ => format!("asked {} to stop\n", stop.invoke_id),
    })
}

//! `stop`: ends a run, or its part on some instances.

use adjutant::StopInvocation;

use super::Context;
use super::record::find;
use crate::args::Stop;
use crate::failure::Failure;
use crate::session::{Need, Session};

pub(super) async fn stop(context: &Context, stop: Stop) -> Result<u8, Failure> {
    let mut request = StopInvocation::new(stop.invoke_id).on(stop.on);
    request.reason = stop.reason;
    let asked = async |session: &mut Session| {
        let before = find(session, stop.invoke_id).await?.status;
        Ok((before, session.call(request).await?))
    };
    let (before, response) = context.with_session(Need::Write, asked).await?;
    context.answer(&response, || match before {
        ended if ended.is_final() => format!("{} had already ended ({ended})\n", stop.invoke_id),
        _ => format!("asked {} to stop\n", stop.invoke_id),
    })
}

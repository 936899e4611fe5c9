//! `stop`: ends a run, or its part on some instances.

use adjutant::StopInvocation;

use super::Context;
use crate::args::Stop;
use crate::failure::Failure;
use crate::session::Need;

pub(super) async fn stop(context: &Context, stop: Stop) -> Result<u8, Failure> {
    let mut request = StopInvocation::new(stop.invoke_id).on(stop.on);
    request.reason = stop.reason;
    let response =
        context.with_session(Need::Write, async |session| session.call(request).await).await?;
    context.answer(&response, || format!("asked {} to stop\n", stop.invoke_id))
}

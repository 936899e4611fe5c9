//! `preview` and `quota`: what would run, and how much may.

use adjutant::{CommandId, PreviewCommand};

use super::Context;
use crate::args::{Preview, Source};
use crate::control::DescribeQuotas;
use crate::failure::Failure;
use crate::session::{Need, Session};
use crate::{render, ui, values};

pub(super) async fn preview(context: &Context, preview: Preview) -> Result<u8, Failure> {
    let Preview { script, file, values, on } = preview;
    let stored = script.as_ref().and_then(|text| text.to_str()?.parse::<CommandId>().ok());
    let mut request = match stored {
        Some(command_id) => PreviewCommand::stored(command_id),
        None => PreviewCommand::script(Source { script, file }.read()?),
    };
    request.instance_id = on;
    request = request.parameters(values::read("--param", &values.param)?);
    let call = context.with_session(Need::Read, async |session| session.call(request).await);
    let response = call.await?;
    if context.json {
        ui::print_json(&response)?;
    } else {
        let mut text = response.command_content.as_bytes().to_vec();
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        ui::print_of_others(&text, false)?;
    }
    Ok(0)
}

pub(super) async fn quota(context: &Context) -> Result<u8, Failure> {
    let ask = async |session: &mut Session| session.call(DescribeQuotas {}).await;
    let quotas = context.with_session(Need::Read, ask).await?;
    context.answer(&quotas, || render::quotas(&quotas))
}

//! `ps`: the list of runs.

use std::collections::BTreeMap;

use adjutant::{DescribeInvocations, DescribeInvocationsResponse, InvocationStatus};

use super::Context;
use crate::args::Ps;
use crate::failure::Failure;
use crate::session::{Need, Session};
use crate::ui::Target;
use crate::{render, ui};

pub(super) async fn ps(context: &Context, ps: &Ps) -> Result<u8, Failure> {
    let limit = if ps.all { usize::MAX } else { ps.limit };
    let (page, more) =
        context.with_session(Need::Read, async |session| list(session, limit).await).await?;
    context.answer(&page, || render::invocations(&page.invocations, Target::Stdout))?;
    if more && !context.json && Target::Stderr.is_terminal() {
        ui::note("there are older runs; `adjutant ps --all` lists them too");
    }
    Ok(0)
}

/// The newest runs and all that have not ended, and whether there are more.
async fn list(
    session: &mut Session,
    limit: usize,
) -> Result<(DescribeInvocationsResponse, bool), Failure> {
    let newest = DescribeInvocations { omit_instances: true, ..Default::default() };
    let mut page = session.pages(newest, |page| page.invocations.len() >= limit).await?;
    let more = page.invocations.len() > limit || !page.next_token.is_empty();
    if more {
        page.invocations.truncate(limit);
        page.next_token.clear();
        let listed = page.invocations.drain(..);
        let mut all: BTreeMap<_, _> = listed.map(|one| (one.invoke_id, one)).collect();
        for &status in InvocationStatus::ALL.iter().filter(|status| !status.is_final()) {
            let request = DescribeInvocations {
                status: Some(status),
                omit_instances: true,
                ..Default::default()
            };
            let found = session.pages(request, |_| false).await?.invocations;
            all.extend(found.into_iter().map(|one| (one.invoke_id, one)));
        }
        // Ids sort by the time they were made.
        page.invocations = all.into_values().rev().collect();
    }
    Ok((page, more))
}

//! `ps`: the list of runs.

use std::collections::BTreeMap;

use adjutant::{
    DescribeFires, DescribeInvocations, DescribeInvocationsResponse, Fire, Invocation,
    InvocationStatus, InvokeId, RepeatMode,
};
use serde::Serialize;

use super::Context;
use crate::args::Ps;
use crate::failure::Failure;
use crate::session::{Need, Session};
use crate::ui::Target;
use crate::{render, ui};

/// The status of a run that failed, and of a fire.
const FAILED: [InvocationStatus; 2] = [InvocationStatus::Failed, InvocationStatus::PartialFailed];

/// Runs as `ps` lists them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    #[serde(flatten)]
    page: DescribeInvocationsResponse,
    /// Of each schedule that has fired, the last fire that has ended.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    last_fires: BTreeMap<InvokeId, Fire>,
    /// There are older runs.
    #[serde(skip)]
    more: bool,
}

pub(super) async fn ps(context: &Context, ps: &Ps) -> Result<u8, Failure> {
    let limit = if ps.all { usize::MAX } else { ps.limit };
    let list = async |session: &mut Session| {
        if ps.failed { failed(session, limit).await } else { newest(session, limit).await }
    };
    let listed = context.with_session(Need::Read, list).await?;
    let text = || render::invocations(&listed.page.invocations, &listed.last_fires, Target::Stdout);
    context.answer(&listed, text)?;
    if listed.more && !context.json && Target::Stderr.is_terminal() {
        ui::note("there are older runs; `adjutant ps --all` lists them too");
    }
    Ok(0)
}

/// The newest runs and all that have not ended.
async fn newest(session: &mut Session, limit: usize) -> Result<Listed, Failure> {
    let newest = DescribeInvocations::default().omit_instances();
    let mut page = session.pages(newest, |page| page.invocations.len() >= limit).await?;
    let more = page.invocations.len() > limit || !page.next_token.is_empty();
    if more {
        page.invocations.truncate(limit);
        page.next_token.clear();
        let mut all = by_id(page.invocations.drain(..));
        for &status in InvocationStatus::ALL.iter().filter(|status| !status.is_final()) {
            all.extend(by_id(of_status(session, status, usize::MAX).await?));
        }
        // Ids sort by the time they were made.
        page.invocations = all.into_values().rev().collect();
    }
    let last_fires = last_fires(session, &page.invocations).await?;
    Ok(Listed { page, last_fires, more })
}

/// The newest runs that failed, and all schedules whose last fire failed.
async fn failed(session: &mut Session, limit: usize) -> Result<Listed, Failure> {
    let schedules = DescribeInvocations::default().timed(true).omit_instances();
    let mut page = session.pages(schedules, |_| false).await?;
    let mut last_fires = last_fires(session, &page.invocations).await?;
    last_fires.retain(|_, fire| fire.status.is_some_and(|status| FAILED.contains(&status)));
    let (mut runs, mut more) = (BTreeMap::new(), false);
    for status in FAILED {
        let found = of_status(session, status, limit.saturating_add(1)).await?;
        more |= found.len() > limit;
        runs.extend(by_id(found));
    }
    more |= runs.len() > limit;
    let runs: Vec<Invocation> = runs.into_values().rev().take(limit).collect();
    let schedules = page.invocations.drain(..);
    let mut all = by_id(schedules.filter(|one| last_fires.contains_key(&one.invoke_id)));
    all.extend(by_id(runs));
    page.invocations = all.into_values().rev().collect();
    page.next_token.clear();
    let ended: Vec<Invocation> =
        page.invocations.iter().filter(|one| one.status.is_final()).cloned().collect();
    last_fires.extend(self::last_fires(session, &ended).await?);
    Ok(Listed { page, last_fires, more })
}

fn by_id(invocations: impl IntoIterator<Item = Invocation>) -> BTreeMap<InvokeId, Invocation> {
    invocations.into_iter().map(|one| (one.invoke_id, one)).collect()
}

async fn of_status(
    session: &mut Session,
    status: InvocationStatus,
    limit: usize,
) -> Result<Vec<Invocation>, Failure> {
    let request = DescribeInvocations::default().status(status).omit_instances();
    let enough = |page: &DescribeInvocationsResponse| page.invocations.len() >= limit;
    Ok(session.pages(request, enough).await?.invocations)
}

/// Finds the last fire of each schedule that has ended.
async fn last_fires(
    session: &mut Session,
    invocations: &[Invocation],
) -> Result<BTreeMap<InvokeId, Fire>, Failure> {
    let mut found = BTreeMap::new();
    for invocation in invocations.iter().filter(|one| one.repeat_mode != RepeatMode::Once) {
        let invoke_id = invocation.invoke_id;
        // A page is enough: a schedule that has not fired for longer says so in its fires.
        let fires = session.pages(DescribeFires::new(invoke_id), |_| true).await?.fires;
        if let Some(last) = fires.into_iter().find(|fire| fire.status.is_some()) {
            found.insert(invoke_id, last);
        }
    }
    Ok(found)
}

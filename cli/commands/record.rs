//! A run with what became of it: the one shape in which `run`, `invoke` and `show` answer.

use adjutant::{
    DescribeFires, DescribeInvocationResults, DescribeInvocations, ExecutionStatus, Fire,
    Invocation, InvocationResult, InvokeId, RepeatMode,
};
use serde::Serialize;

use crate::failure::Failure;
use crate::session::Session;

/// The pages' fields of a run, and its executions in the order of its instances.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Record {
    #[serde(flatten)]
    pub invocation: Invocation,
    invocation_results: Results,
    /// What became of the newest nominal times; only for a run that repeats.
    #[serde(skip_serializing_if = "Option::is_none")]
    fires: Option<Fires>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fires {
    fire: Vec<Fire>,
    /// There are older ones.
    #[serde(skip)]
    more: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Results {
    invocation_result: Vec<InvocationResult>,
}

impl Record {
    /// A run and the latest execution on each instance; all of them with `history`.
    pub(super) async fn fetch(
        session: &mut Session,
        invoke_id: InvokeId,
        history: bool,
    ) -> Result<Self, Failure> {
        let invocation = find(session, invoke_id).await?;
        let mut all = DescribeInvocationResults::default().invoke_id(invoke_id);
        all.include_history = history;
        let mut results = session.pages(all, |_| false).await?.invocation.results;
        results.sort_by_key(|result| result.execution_id);
        let fires = match invocation.repeat_mode {
            RepeatMode::Once | RepeatMode::DryRun => None,
            RepeatMode::Period | RepeatMode::NextRebootOnly | RepeatMode::EveryReboot => {
                // Without the history the newest page, which is enough to see how it stands.
                let page = session.pages(DescribeFires::new(invoke_id), |_| !history).await?;
                Some(Fires { fire: page.fires, more: !page.next_token.is_empty() })
            }
        };
        Ok(Self { invocation, invocation_results: Results { invocation_result: results }, fires })
    }

    pub(super) fn fires(&self) -> &[Fire] {
        self.fires.as_ref().map_or(&[], |fires| &fires.fire)
    }

    /// Whether there are older ones than `fires`.
    pub(super) fn has_older_fires(&self) -> bool {
        self.fires.as_ref().is_some_and(|fires| fires.more)
    }

    pub(super) fn results(&self) -> &[InvocationResult] {
        &self.invocation_results.invocation_result
    }

    /// Whether no output failed to come to where it was to go.
    pub(super) fn all_delivered(&self) -> bool {
        self.results().iter().all(|result| result.oss_output_status != "Failed")
    }

    pub(super) fn all_succeeded(&self) -> bool {
        self.results().iter().all(|result| result.status == ExecutionStatus::Success)
    }
}

/// The run itself.
pub(super) async fn find(
    session: &mut Session,
    invoke_id: InvokeId,
) -> Result<Invocation, Failure> {
    let one = DescribeInvocations::default().invoke_id(invoke_id).omit_instances().max_results(1);
    session.call(one).await?.invocations.pop().ok_or_else(|| not_found(invoke_id))
}

fn not_found(invoke_id: InvokeId) -> Failure {
    Failure::new("InvalidInvokeId.NotFound", 404, format!("there is no run `{invoke_id}`"))
}

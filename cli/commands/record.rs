//! A run with what became of it: the one shape in which `run`, `invoke` and `show` answer.

use adjutant::{
    DescribeInvocationResults, DescribeInvocations, ExecutionStatus, Invocation, InvocationResult,
    InvokeId,
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
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Results {
    invocation_result: Vec<InvocationResult>,
}

impl Record {
    pub(super) async fn fetch(session: &mut Session, invoke_id: InvokeId) -> Result<Self, Failure> {
        let one = DescribeInvocations { invoke_id: Some(invoke_id), ..Default::default() };
        let invocation = session.call(one).await?.invocations.pop();
        let invocation = invocation.ok_or_else(|| not_found(invoke_id))?;
        let all = DescribeInvocationResults { invoke_id: Some(invoke_id), ..Default::default() };
        let mut results = session.pages(all, |_| false).await?.invocation.results;
        results.sort_by_key(|result| result.execution_id);
        Ok(Self { invocation, invocation_results: Results { invocation_result: results } })
    }

    pub(super) fn results(&self) -> &[InvocationResult] {
        &self.invocation_results.invocation_result
    }

    pub(super) fn all_succeeded(&self) -> bool {
        self.results().iter().all(|result| result.status == ExecutionStatus::Success)
    }
}

fn not_found(invoke_id: InvokeId) -> Failure {
    Failure::new("InvalidInvokeId.NotFound", 404, format!("there is no run `{invoke_id}`"))
}

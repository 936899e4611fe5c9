//! Agents and quotas in this dialect.

use super::check::Check;
use super::error::Result;
use super::request::{DescribeAutomationAgentStatus, DescribeQuotas, Filter};
use super::response::{
    DescribeAutomationAgentStatusResponse, DescribeQuotasResponse, GeneralResourceQuotaSet,
};
use super::{Action, Tencent, request_id};
use crate::id::InstanceId;
use crate::instance::{AgentStatus, OsType};
use crate::store::selections::AgentNarrow;

/// The one resource with a quota.
const COMMAND: &str = "COMMAND";

impl Tencent {
    /// Tells whether the agents of instances are up, in the order of their registration.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) if a named instance is unknown, and with everything else that is wrong.
    pub async fn describe_automation_agent_status(
        &self,
        request: DescribeAutomationAgentStatus,
    ) -> Result<DescribeAutomationAgentStatusResponse> {
        let mut check = Check::new(Action::DescribeAutomationAgentStatus, self.limits());
        let stretch = check.stretch(request.limit, request.offset);
        let named = request.instance_ids.len();
        let narrows = check.filters(named, &request.filters, narrow);
        check.count("InstanceIds", named);
        if !check.is_passed() {
            return Err(check.refusal());
        }
        let listing = self.engine.select_agents(request.instance_ids, narrows, stretch).await;
        let listing = check.conclude(listing)?;
        Ok(DescribeAutomationAgentStatusResponse {
            request_id: request_id(),
            automation_agent_set: listing.entries.into_iter().map(Into::into).collect(),
            unreadable: listing.unreadable,
            total_count: listing.total.unwrap_or_default(),
        })
    }

    /// Tells how much of quotas is used.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) if a resource has no quota here: only `COMMAND` has.
    pub async fn describe_quotas(&self, request: DescribeQuotas) -> Result<DescribeQuotasResponse> {
        const FIELD: &str = "ResourceNames";
        let mut check = Check::new(Action::DescribeQuotas, self.limits());
        check.named(FIELD, request.resource_names.len());
        if request.resource_names.iter().any(|name| name != COMMAND) {
            let code = "ResourceUnavailable.InvalidResourceQuotaResourceCode";
            check.refuse(code, FIELD, format!("only `{COMMAND}` has a quota here"));
        }
        if !check.is_passed() {
            return Err(check.refusal());
        }
        let quotas = check.conclude(self.engine.quotas().await)?;
        let set = |resource_name| GeneralResourceQuotaSet {
            resource_name,
            resource_quota_used: quotas.kept_commands,
            resource_quota_total: quotas.kept_commands_max,
        };
        Ok(DescribeQuotasResponse {
            request_id: request_id(),
            general_resource_quota_set: request.resource_names.into_iter().map(set).collect(),
        })
    }
}

fn narrow(check: &mut Check<'_>, filter: &Filter) -> Option<AgentNarrow> {
    Some(match filter.name.as_str() {
        "agent-status" => {
            let online: &[AgentStatus] = &[AgentStatus::Online];
            let offline: &[AgentStatus] = &[AgentStatus::Offline, AgentStatus::NotInstalled];
            let named = check.of_set(filter, &[(online, "Online"), (offline, "Offline")]);
            AgentNarrow::Status(named.concat())
        }
        "environment" => {
            let types = [(OsType::Linux, "Linux"), (OsType::Windows, "Windows")];
            AgentNarrow::OsType(check.of_set(filter, &types))
        }
        "instance-id" => {
            let ids: Vec<_> =
                filter.values.iter().map(|id| InstanceId::from(id.as_str())).collect();
            AgentNarrow::Instance(ids)
        }
        _ => return check.no_such_filter(filter, "agent-status, environment or instance-id"),
    })
}

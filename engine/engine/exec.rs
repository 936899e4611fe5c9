//! A program in a container, waited for.

use super::Engine;
use super::submit::HostPart;
use crate::error::{Error, Result, Violation};
use crate::id::InstanceId;
use crate::instance::InstanceState;
use crate::invocation::RunCommand;
use crate::invocation::exec::{self, ExecContainerCommand, ExecContainerCommandResponse};
use crate::operation::Operation;
use crate::status::ExecutionStatus;
use crate::store::instances;
use crate::wire;

/// The page's code where a container cannot be entered.
const INCORRECT_STATUS: &str = "IncorrectStatus";

impl Engine {
    /// Runs a program in a container of an instance and waits for its end; what it printed. It
    /// leaves a record as every run does, and is stopped after the default timeout.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if something is wrong with the request, if there is no such instance, or
    /// with the code `IncorrectStatus` if it, or the container, is not running. Then nothing has run.
    pub async fn exec_container_command(
        &self,
        request: ExecContainerCommand,
    ) -> Result<ExecContainerCommandResponse> {
        let operation = Operation::ExecContainerCommand;
        let words = request.check().map_err(|found| Error::all(operation, found))?;
        let group = InstanceId::from(request.container_group_id);
        let mut action = self.action(operation);
        action.instance_ids.push(group.clone());
        action.container_name = Some(request.container_name.clone());
        self.tell_user(&mut action, None).await;
        self.authorize(action).await?;
        if !request.sync {
            return Err(refused("Sync", "there are no sessions here; want true".to_owned()));
        }
        let wanted = group.clone();
        let found = self.read(move |tx| instances::find(tx, &wanted)).await?;
        if let Some(found) = found
            && found.instance.state != InstanceState::Running
        {
            let state = found.instance.state;
            return Err(refused("ContainerGroupId", format!("`{group}` is {state}; want Running")));
        }
        let mut run = RunCommand::shell(exec::script(&words)).on([group]);
        run.container_name = Some(request.container_name);
        let (run, _) =
            self.submit_permitted(self.new_invoke_id(), run, None::<HostPart<_, ()>>).await?;
        let finished = self.finished(run.invoke_id).await?;
        let result = finished.results.into_iter().next();
        let result = result.ok_or_else(|| Error::Internal("a run without a record".to_owned()))?;
        if matches!(result.status, ExecutionStatus::Invalid | ExecutionStatus::Aborted) {
            return Err(refused("ContainerName", result.error_info));
        }
        Ok(ExecContainerCommandResponse {
            request_id: wire::request_id(),
            sync_response: result.output.to_text().into_owned(),
        })
    }
}

fn refused(field: &'static str, message: String) -> Error {
    Error::invalid(Violation::new(INCORRECT_STATUS, 400, field, message))
}

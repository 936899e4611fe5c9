//! Invocations and their tasks in this dialect.

use super::check::{Check, FILTERS};
use super::error::Result;
use super::request::{
    CancelInvocation, DescribeInvocationTasks, DescribeInvocations, Filter, InvokeCommand,
    RunCommand,
};
use super::response::{
    CancelInvocationResponse, DescribeInvocationTasksResponse, DescribeInvocationsResponse,
    InvokeCommandResponse, RunCommandResponse,
};
use super::{Action, Tencent, base64, request_id};
use crate::id::{CommandId, InstanceId};
use crate::invocation::{self, RepeatMode};
use crate::store::selections::{ExecutionNarrow, InvocationNarrow};

impl Tencent {
    /// Runs a command that comes with the request. When this returns, the invocation is on disk.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) with everything that is wrong; then nothing is stored and nothing runs.
    pub async fn run_command(&self, request: RunCommand) -> Result<RunCommandResponse> {
        let mut check = Check::new(Action::RunCommand, self.limits());
        let mut run = requested(&mut check, request);
        if !check.is_passed() {
            // What else is wrong belongs to the same answer.
            run.repeat_mode = RepeatMode::DryRun.into();
        }
        let run = check.conclude(self.engine.run_command(run).await)?;
        Ok(RunCommandResponse {
            request_id: request_id(),
            command_id: run.command_id.to_long_form(),
            invocation_id: run.invoke_id.to_long_form(),
        })
    }

    /// Runs a stored command. When this returns, the invocation is on disk.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) with everything that is wrong; then nothing is stored and nothing runs.
    pub async fn invoke_command(&self, request: InvokeCommand) -> Result<InvokeCommandResponse> {
        let mut check = Check::new(Action::InvokeCommand, self.limits());
        let command_id = check.command_id(request.command_id.as_deref());
        check.instance_ids(&request.instance_ids);
        let parameters = check.values(request.parameters);
        let (bucket, prefix) = (request.output_cos_bucket_url, request.output_cos_key_prefix);
        let output_to = {
            let of = (command_id, &*request.instance_ids, request.username.as_deref());
            self.output_to(&mut check, of, bucket, prefix).await?
        };
        let mut invoke = invocation::InvokeCommand {
            command_id: command_id.map(Into::into).unwrap_or_default(),
            working_dir: request.working_directory,
            timeout: request.timeout,
            username: request.username,
            parameters,
            oss_output_delivery: output_to,
            instance_ids: request.instance_ids,
            ..invocation::InvokeCommand::default()
        };
        if !check.is_passed() {
            invoke.repeat_mode = RepeatMode::DryRun.into();
        }
        let invoked = check.conclude(self.engine.invoke_command(invoke).await)?;
        let invocation_id = invoked.invoke_id.to_long_form();
        Ok(InvokeCommandResponse { request_id: request_id(), invocation_id })
    }

    /// Where the whole output of a stored command goes, if a request says something of that: each
    /// part that it leaves out is the command's.
    async fn output_to(
        &self,
        check: &mut Check<'_>,
        (command_id, instance_ids, username): (Option<CommandId>, &[InstanceId], Option<&str>),
        bucket: Option<String>,
        prefix: Option<String>,
    ) -> Result<Option<String>> {
        let said = |text: Option<String>| text.filter(|text| !text.is_empty());
        let place = check.place(said(bucket), said(prefix));
        if place.is_unsaid() {
            return Ok(None);
        }
        let before = match command_id {
            Some(id) => self.engine.output_place_of(id, instance_ids, username).await,
            None => Ok(None),
        };
        let before =
            before.map_err(|error| super::Error::of(Action::InvokeCommand, error, Vec::new()))?;
        Ok(check.place_over(place, before.as_deref()))
    }

    /// Cancels an invocation, or its tasks on some instances: what waits never runs, what runs is
    /// asked to end. When this returns, the request is on disk.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) if there is no such invocation, or it has no task on such an instance.
    pub async fn cancel_invocation(
        &self,
        request: CancelInvocation,
    ) -> Result<CancelInvocationResponse> {
        const FIELD: &str = "InstanceIds";
        let mut check = Check::new(Action::CancelInvocation, self.limits());
        let invoke_id = check.invocation_id(request.invocation_id.as_deref());
        check.at_most(self.limits().stop_instances_max, FIELD, request.instance_ids.len());
        check.instance_ids(&request.instance_ids);
        let Some(invoke_id) = invoke_id.filter(|_| check.is_passed()) else {
            return Err(check.refusal());
        };
        let stop = invocation::StopInvocation::new(invoke_id).on(request.instance_ids);
        check.conclude(self.engine.stop_invocation(stop).await)?;
        Ok(CancelInvocationResponse { request_id: request_id() })
    }

    /// Lists invocations, newest first.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) with everything that is wrong with the request.
    pub async fn describe_invocations(
        &self,
        request: DescribeInvocations,
    ) -> Result<DescribeInvocationsResponse> {
        let mut check = Check::new(Action::DescribeInvocations, self.limits());
        let stretch = check.stretch(request.limit, request.offset);
        let named = request.invocation_ids.len();
        let mut narrows = check.filters(named, &request.filters, narrow_invocations);
        if named > 0 {
            let ids = check.invocation_ids("InvocationIds", &request.invocation_ids);
            narrows.push(InvocationNarrow::Id(ids));
        }
        if !check.is_passed() {
            return Err(check.refusal());
        }
        let listing = check.conclude(self.engine.select_invocations(narrows, stretch).await)?;
        Ok(DescribeInvocationsResponse {
            request_id: request_id(),
            unreadable: listing.unreadable,
            total_count: listing.total.unwrap_or_default(),
            invocation_set: listing.entries.into_iter().map(Into::into).collect(),
        })
    }

    /// Lists tasks, newest first.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) with everything that is wrong with the request.
    pub async fn describe_invocation_tasks(
        &self,
        request: DescribeInvocationTasks,
    ) -> Result<DescribeInvocationTasksResponse> {
        let mut check = Check::new(Action::DescribeInvocationTasks, self.limits());
        let stretch = check.stretch(request.limit, request.offset);
        let named = request.invocation_task_ids.len();
        let mut narrows = check.filters(named, &request.filters, narrow_tasks);
        if named > 0 {
            let ids = check.task_ids("InvocationTaskIds", &request.invocation_task_ids);
            narrows.push(ExecutionNarrow::Id(ids));
        }
        if !check.is_passed() {
            return Err(check.refusal());
        }
        let with_output = !request.hide_output.unwrap_or(true);
        let listing = self.engine.select_executions(narrows, stretch, with_output).await;
        let listing = check.conclude(listing)?;
        Ok(DescribeInvocationTasksResponse {
            request_id: request_id(),
            unreadable: listing.unreadable,
            total_count: listing.total.unwrap_or_default(),
            invocation_task_set: listing.entries.into_iter().map(Into::into).collect(),
        })
    }
}

/// A run in the engine's terms.
fn requested(check: &mut Check<'_>, request: RunCommand) -> invocation::RunCommand {
    let enabled = request.enable_parameter.unwrap_or_default();
    let saves = request.save_command.unwrap_or_default();
    let content = check.content(request.content);
    check.instance_ids(&request.instance_ids);
    check.command_name(request.command_name.as_deref());
    let command_type = check.command_type(request.command_type.as_deref()).unwrap_or_default();
    let defaults = check.defaults(request.default_parameters, request.default_parameter_confs);
    let parameters = check.values(request.parameters);
    check.tags(saves, &request.tags);
    let place = check.place(request.output_cos_bucket_url, request.output_cos_key_prefix);
    invocation::RunCommand {
        name: request.command_name.unwrap_or_default(),
        description: request.description.unwrap_or_default(),
        command_type: command_type.into(),
        command_content: content,
        content_encoding: base64(),
        enable_parameter: enabled,
        default_parameters: defaults.unwrap_or_default(),
        keep_command: saves,
        working_dir: request.working_directory,
        timeout: request.timeout,
        username: request.username,
        parameters,
        oss_output_delivery: check.place_over(place, None),
        instance_ids: request.instance_ids,
        tags: request.tags,
        ..invocation::RunCommand::default()
    }
}

fn narrow_invocations(check: &mut Check<'_>, filter: &Filter) -> Option<InvocationNarrow> {
    Some(match filter.name.as_str() {
        "invocation-id" => InvocationNarrow::Id(check.invocation_ids(FILTERS, &filter.values)),
        "command-id" => InvocationNarrow::Command(check.command_ids(FILTERS, &filter.values)),
        "instance-kind" => InvocationNarrow::InstanceKind(filter.values.clone()),
        _ => return check.no_such_filter(filter, "invocation-id, command-id or instance-kind"),
    })
}

fn narrow_tasks(check: &mut Check<'_>, filter: &Filter) -> Option<ExecutionNarrow> {
    Some(match filter.name.as_str() {
        "invocation-task-id" => ExecutionNarrow::Id(check.task_ids(FILTERS, &filter.values)),
        "invocation-id" => {
            ExecutionNarrow::Invocation(check.invocation_ids(FILTERS, &filter.values))
        }
        "instance-id" => {
            let ids = filter.values.iter().map(|id| InstanceId::from(id.as_str()));
            ExecutionNarrow::Instance(ids.collect())
        }
        "command-id" => ExecutionNarrow::Command(check.command_ids(FILTERS, &filter.values)),
        _ => {
            let names = "invocation-task-id, invocation-id, instance-id or command-id";
            return check.no_such_filter(filter, names);
        }
    })
}

//! What invocations need to be there: instances and kept commands.

use std::sync::Arc;

use chrono::DateTime;

use super::Engine;
use super::page::{Page, encoding, page_of, text};
use super::planner::no_executor;
use crate::clock::now_ms;
use crate::command::parameters::Arguments;
use crate::command::preview::{self, PreviewCommand, PreviewCommandResponse, Previewed};
use crate::command::settings::Settings;
use crate::command::template::Facts;
use crate::command::{
    Command, CreateCommand, CreateCommandResponse, DeleteCommand, DeleteCommandResponse,
    DescribeCommands, DescribeCommandsResponse, ModifyCommand, ModifyCommandResponse,
    check_defaults, unknown_command_id,
};
use crate::error::{Error, Result, Violation, none_of};
use crate::given::Given;
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::instance::{
    AgentStatus, DescribeCloudAssistantStatus, DescribeCloudAssistantStatusResponse,
    DescribeInstances, DescribeInstancesResponse, Instance, InstanceCloudAssistantStatus,
    InstanceState, LOCAL,
};
use crate::invocation::client_token::ClientToken;
use crate::operation::Operation;
use crate::scheduler::{EXECUTIONS_MAX, Step};
use crate::store::commands::{Definition, NewCommand};
use crate::store::selections::AgentNarrow;
use crate::store::{Listing, Tx, client_tokens, commands, firing, instances};
use crate::tag;
use crate::wire::{self, Encoded};

impl Engine {
    /// Registers an instance, or changes the one of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if its id is malformed or its executor is not plugged in.
    pub async fn register_instance(&self, instance: Instance) -> Result<()> {
        self.authorize_registering(&instance).await?;
        self.check_instance(&instance)?;
        self.store_instance(instance, |_, _| Ok(())).await
    }

    /// Changes a registered instance.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is none of that name, or as for
    /// [`register_instance`](Engine::register_instance).
    pub async fn update_instance(&self, instance: Instance) -> Result<()> {
        self.authorize_registering(&instance).await?;
        self.check_instance(&instance)?;
        let is_known =
            |tx: Tx<'_>, instance: &Instance| known_instance(tx, &instance.instance_id).map(drop);
        self.store_instance(instance, is_known).await
    }

    async fn authorize_registering(&self, instance: &Instance) -> Result<()> {
        let mut action = self.action(Operation::RegisterInstance);
        action.instance_ids.push(instance.instance_id.clone());
        action.resource_group_id.clone_from(&instance.resource_group_id);
        action.executor = Some(instance.executor.clone());
        self.authorize(action).await
    }

    /// Stores an instance if it passes a check. If it is this machine, its boot is known. The instance is stored even
    /// if invocations cannot be told of that boot.
    async fn store_instance(
        &self,
        instance: Instance,
        check: impl Fn(Tx<'_>, &Instance) -> Result<()> + Clone + Send + 'static,
    ) -> Result<()> {
        let boot_id = self.inner.boot_id.clone().filter(|_| instance.executor == LOCAL);
        let mut is_given_up = false;
        loop {
            let (clock, check) = (Arc::clone(&self.inner.clock), check.clone());
            let aside = Arc::clone(self.inner.records.store.aside());
            let before = aside.total();
            let (instance, boot_id) = (instance.clone(), boot_id.clone());
            let store = move |tx: Tx<'_>| {
                let mut step = Step::at(now_ms(&*clock));
                check(tx, &instance)?;
                let id = &instance.instance_id;
                let before = match instances::find(tx, id) {
                    // A stored instance that cannot be read is replaced.
                    Err(error) if error.is_of_a_record() => None,
                    before => before?,
                };
                step.released.extend(instances::upsert(tx, &instance, step.at_ms)?);
                let was_local = before.is_some_and(|before| before.instance.executor == LOCAL);
                let (at_ms, mut left) = (step.at_ms, EXECUTIONS_MAX);
                match &boot_id {
                    None => {}
                    Some(boot_id) if is_given_up => firing::note_boot(tx, id, boot_id)?,
                    Some(boot_id) if was_local => {
                        step.boot(tx, &aside, id, boot_id, &mut left)?;
                    }
                    Some(boot_id) => {
                        let rebased = firing::rebase(tx, id, boot_id, at_ms, &mut left, &aside)?;
                        step.take_boot(rebased);
                    }
                }
                Ok(step)
            };
            return match self.write_step(store).await {
                Err(error) if self.may_do_without(&error, before, &mut is_given_up) => continue,
                step => {
                    if is_given_up {
                        self.announcer().wake_scheduler();
                    }
                    step.map(drop)
                }
            };
        }
    }

    /// Removes an instance. Its records stay, and registering it again brings it back.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is none of that name, [`Error::Conflict`] while executions on it
    /// have not ended.
    pub async fn remove_instance(&self, instance_id: &InstanceId) -> Result<()> {
        self.authorize_on(Operation::RemoveInstance, instance_id).await?;
        let (instance_id, now_ms) = (instance_id.clone(), self.now_ms());
        self.write_records(move |tx| instances::remove(tx, &instance_id, now_ms)).await
    }

    /// Lists instances, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if an id is unknown or the page is not one.
    pub async fn describe_instances(
        &self,
        request: DescribeInstances,
    ) -> Result<DescribeInstancesResponse> {
        let mut action = self.action(Operation::DescribeInstances);
        action.instance_ids.clone_from(&request.instance_ids);
        self.authorize(action).await?;
        none_of(Operation::DescribeInstances, tag::violations(&request.tags, self.limits()))?;
        let page = page_of!(request, self.limits())?;
        let listing = self
            .read(move |tx| {
                let filter = instances::Filter {
                    ids: &request.instance_ids,
                    tags: &request.tags,
                    ..Default::default()
                };
                instances::list(tx, &filter, page.slice)
            })
            .await?;
        Ok(DescribeInstancesResponse {
            request_id: wire::request_id(),
            instances: listing.entries.into_iter().map(|target| target.instance).collect(),
            unreadable: listing.unreadable,
            next_token: text(listing.next),
            total_count: listing.total,
            page_number: page.number,
            page_size: page.slice.size,
        })
    }

    /// Tells what is known of the agents of instances: whether they are up, when they were last
    /// seen, and how much runs and has run there. Counts by reading every execution.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if an id is unknown, there are too many, or the page is not one.
    pub async fn describe_cloud_assistant_status(
        &self,
        request: DescribeCloudAssistantStatus,
    ) -> Result<DescribeCloudAssistantStatusResponse> {
        let mut action = self.action(Operation::DescribeCloudAssistantStatus);
        action.instance_ids.clone_from(&request.instance_ids);
        self.authorize(action).await?;
        let (given, max) = (request.instance_ids.len(), self.limits().page_size_max);
        if given > max {
            return Err(Error::invalid(Violation::new(
                "InstanceIds.ExceedLimit",
                403,
                "InstanceId",
                format!("want at most {max} instances; it names {given}"),
            )));
        }
        let page = page_of!(request, self.limits())?;
        let of_os = request.os_type.map(|os| AgentNarrow::OsType(vec![os]));
        let narrows = of_os.into_iter().collect();
        let agents = self.agents(request.instance_ids, narrows, page).await?;
        Ok(DescribeCloudAssistantStatusResponse {
            request_id: wire::request_id(),
            instance_cloud_assistant_status_set: agents.entries,
            unreadable: agents.unreadable,
            next_token: text(agents.next),
            total_count: agents.total,
            page_number: page.number,
            page_size: page.slice.size,
        })
    }

    /// A page of what is known of agents: of these instances, all of which have to be there, or of
    /// all.
    pub(super) async fn agents(
        &self,
        ids: Vec<InstanceId>,
        narrows: Vec<AgentNarrow>,
        page: Page,
    ) -> Result<Listing<InstanceCloudAssistantStatus>> {
        let now_ms = self.now_ms();
        self.read(move |tx| {
            let filter = instances::Filter { ids: &ids, narrows: &narrows, ..Default::default() };
            let Listing { entries: targets, unreadable, next, total } =
                instances::list(tx, &filter, page.slice)?;
            let activity = instances::activity(tx, &targets)?;
            let entries = targets.into_iter().zip(activity);
            let entries =
                entries.map(|(target, activity)| agent(target.instance, activity, now_ms));
            Ok(Listing { entries: entries.collect(), unreadable, next, total })
        })
        .await
    }

    fn check_instance(&self, instance: &Instance) -> Result<()> {
        let mut violations = instance.violations(self.limits());
        if !self.inner.executor_names.contains(&instance.executor) {
            violations.push(no_executor(instance, &self.inner.executor_names));
        }
        none_of(Operation::RegisterInstance, violations)
    }

    /// Keeps a command for later invocations.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong with the request.
    pub async fn create_command(&self, request: CreateCommand) -> Result<CreateCommandResponse> {
        let mut action = self.action(Operation::CreateCommand);
        if let Given::Known(command_type) = request.command_type {
            action.command_type = Some(command_type);
        }
        self.authorize_with(action, None, |_| request.settings()).await?;
        let mut found = Vec::new();
        let token = request.client_token.as_deref();
        let operation = Operation::CreateCommand;
        let token = ClientToken::of(token, operation, &request, self.limits(), &mut found);
        let token = self.own(token);
        let (command_type, content) = match request.check(self.limits()) {
            Ok(checked) if found.is_empty() => checked,
            checked => {
                found.extend(checked.err().unwrap_or_default());
                return Err(Error::all(Operation::CreateCommand, found));
            }
        };
        let definition = Definition {
            settings: request.settings(),
            name: request.name,
            description: request.description,
            command_type,
            content,
            enable_parameter: request.enable_parameter,
            default_parameters: request.default_parameters,
            secret_parameters: request.secret_parameters,
            timeout_s: request.timeout,
        };
        let command_id = CommandId::new(self.inner.clock.realtime());
        let (limits, now_ms) = (Arc::clone(&self.limits), self.now_ms());
        let (tags, group) = (request.tags, request.resource_group_id.filter(|id| !id.is_empty()));
        let response = CreateCommandResponse { request_id: wire::request_id(), command_id };
        let op = move |tx: Tx<'_>| {
            let found = commands::unkeepable(tx, command_id, &definition.name, &limits)?;
            none_of(Operation::CreateCommand, found)?;
            let new = NewCommand {
                command_id,
                definition: &definition,
                tags: &tags,
                resource_group_id: group.as_deref(),
            };
            commands::insert(tx, &new, now_ms).map(Some)
        };
        let store = move |tx: Tx<'_>| match token {
            None => op(tx).map(|_| response),
            Some(token) => Ok(client_tokens::once(tx, &token, now_ms, response, || op(tx))?.0),
        };
        let first = self.write_once(store, |_| {}).await?;
        Ok(CreateCommandResponse { request_id: wire::request_id(), ..first })
    }

    /// Fills in a script and runs nothing: what it would be on an instance.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong with the script or the values, as a run
    /// would have it.
    pub async fn preview(&self, request: PreviewCommand) -> Result<PreviewCommandResponse> {
        let mut action = self.action(Operation::PreviewCommand);
        if let Some(Given::Known(command_id)) = request.command_id {
            action.command_id = Some(command_id);
        }
        action.instance_ids.extend(request.instance_id.clone());
        self.authorize(action).await?;
        let refused = |found| Error::all(Operation::PreviewCommand, found);
        let previewed = request.check(self.limits()).map_err(refused)?;
        let encoding = request.answer_encoding();
        let limits = Arc::clone(&self.limits);
        let names = self.inner.config.names.clone();
        let invoke_id = InvokeId::new(self.inner.clock.realtime());
        let text = self
            .read(move |tx| {
                let mut arguments = Arguments {
                    values: request.parameters,
                    defaults: request.default_parameters,
                    ..Arguments::default()
                };
                let (content, enabled, command_id) = match previewed {
                    Previewed::Script(script) => {
                        (script, true, CommandId::of_invocation(invoke_id))
                    }
                    Previewed::Stored(id) => {
                        let definition = commands::get(tx, id)?;
                        arguments.defaults = definition.default_parameters;
                        arguments.secrets = definition.secret_parameters;
                        (definition.content, definition.enable_parameter, id)
                    }
                };
                let instance_id = request.instance_id.unwrap_or_else(|| "".into());
                let instance_name = match instance_id.as_str() {
                    "" => String::new(),
                    _ => known_instance(tx, &instance_id)?.name,
                };
                let facts = Facts {
                    names: &names,
                    instance_id: &instance_id,
                    instance_name: &instance_name,
                    invoke_id,
                    command_id,
                };
                preview::finished(arguments, enabled, &content, &facts, &limits)
            })
            .await?;
        let command_content = Encoded::new(text, encoding);
        Ok(PreviewCommandResponse { request_id: wire::request_id(), command_content })
    }

    /// Changes a kept command; invocations that exist keep what they were made from.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such command or a value is out of bounds.
    pub async fn modify_command(&self, request: ModifyCommand) -> Result<ModifyCommandResponse> {
        self.modify_command_with(request, |_, _| {}).await?;
        Ok(ModifyCommandResponse { request_id: wire::request_id() })
    }

    /// Changes a kept command, also in what such a request does not say: in `more`, which may find
    /// something wrong.
    pub(crate) async fn modify_command_with(
        &self,
        request: ModifyCommand,
        more: impl FnOnce(&mut Definition, &mut Vec<Violation>) + Send + 'static,
    ) -> Result<()> {
        let refused = |found| Error::all(Operation::ModifyCommand, found);
        let command_id = request.check(self.limits()).map_err(refused)?;
        let settings = request.clone();
        let settle = move |own: Settings| settings.settings(own);
        let change = move |definition: &mut Definition, found: &mut Vec<Violation>| {
            let settings = request.settings(std::mem::take(&mut definition.settings));
            let ModifyCommand { name, description, timeout, .. } = request;
            replace(&mut definition.name, name);
            replace(&mut definition.description, description);
            definition.timeout_s = timeout.or(definition.timeout_s);
            replace(&mut definition.default_parameters, request.default_parameters);
            definition.settings = settings;
            more(definition, found);
        };
        self.change_command(command_id, settle, change).await
    }

    /// Gives a kept command another definition, made of the one it has, unless something is wrong
    /// with it. The host is asked about the command with the settings that `settle` makes of its own.
    async fn change_command(
        &self,
        command_id: CommandId,
        settle: impl FnOnce(Settings) -> Settings,
        change: impl FnOnce(&mut Definition, &mut Vec<Violation>) + Send + 'static,
    ) -> Result<()> {
        let mut action = self.action(Operation::ModifyCommand);
        action.command_id = Some(command_id);
        self.authorize_with(action, Some(command_id), settle).await?;
        let (limits, now_ms) = (Arc::clone(&self.limits), self.now_ms());
        let op = move |tx: Tx<'_>| {
            let mut definition = commands::get(tx, command_id)?;
            let mut found = Vec::new();
            change(&mut definition, &mut found);
            found.extend(commands::name_taken(tx, command_id, &definition.name, &limits)?);
            check_defaults(
                definition.enable_parameter,
                Some(&definition.content),
                &definition.default_parameters,
                &definition.secret_parameters,
                &limits,
                &mut found,
            );
            none_of(Operation::ModifyCommand, found)?;
            commands::replace(tx, command_id, &definition, now_ms)
        };
        self.write_once(op, |_| {}).await
    }

    /// Deletes a kept command; its invocations stay.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such command, [`Error::Conflict`] while an invocation of it
    /// has not ended.
    pub async fn delete_command(
        &self,
        request: impl Into<DeleteCommand>,
    ) -> Result<DeleteCommandResponse> {
        let request = request.into();
        let mut found = Vec::new();
        let Some(command_id) = request.command_id.known(&mut found, unknown_command_id) else {
            return Err(Error::all(Operation::DeleteCommand, found));
        };
        self.delete_commands(vec![command_id]).await?;
        Ok(DeleteCommandResponse { request_id: wire::request_id() })
    }

    /// Deletes kept commands: all of them, or none.
    pub(crate) async fn delete_commands(&self, command_ids: Vec<CommandId>) -> Result<()> {
        for command_id in &command_ids {
            let mut action = self.action(Operation::DeleteCommand);
            action.command_id = Some(*command_id);
            self.authorize(action).await?;
        }
        let delete =
            move |tx: Tx<'_>| command_ids.iter().try_for_each(|id| commands::delete(tx, *id));
        self.write_records(delete).await
    }

    /// Lists kept commands, newest first, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the page is not one.
    pub async fn describe_commands(
        &self,
        request: DescribeCommands,
    ) -> Result<DescribeCommandsResponse> {
        let mut action = self.action(Operation::DescribeCommands);
        action.command_id = request.command_id;
        self.authorize(action).await?;
        none_of(Operation::DescribeCommands, tag::violations(&request.tags, self.limits()))?;
        let page = page_of!(request, self.limits())?;
        let encoding = encoding(request.content_encoding.as_deref());
        let listing =
            self.read(move |tx| commands::list(tx, &request, page.slice, encoding)).await?;
        let listing = self.with_default_timeouts(listing);
        Ok(DescribeCommandsResponse {
            request_id: wire::request_id(),
            commands: listing.entries,
            unreadable: listing.unreadable,
            next_token: text(listing.next),
            total_count: listing.total,
            page_number: page.number,
            page_size: page.slice.size,
        })
    }

    /// Gives commands that state no timeout the default that an invocation through this handle would give them.
    pub(super) fn with_default_timeouts(&self, mut listing: Listing<Command>) -> Listing<Command> {
        for command in &mut listing.entries {
            command.timeout = command.timeout.or(self.limits().timeout_s());
        }
        listing
    }
}

fn agent(
    instance: Instance,
    activity: instances::Activity,
    now_ms: i64,
) -> InstanceCloudAssistantStatus {
    let is_here = instance.executor == LOCAL;
    let version = match instance.agent_version {
        version if version.is_empty() && is_here => env!("CARGO_PKG_VERSION").to_owned(),
        version => version,
    };
    let time = |ms: Option<i64>| ms.and_then(DateTime::from_timestamp_millis);
    InstanceCloudAssistantStatus {
        instance_id: instance.instance_id,
        os_type: instance.os_type,
        cloud_assistant_status: instance.agent_status == AgentStatus::Online
            && instance.state == InstanceState::Running,
        agent_status: instance.agent_status,
        cloud_assistant_version: version,
        last_heartbeat_time: time(if is_here { Some(now_ms) } else { activity.seen_at_ms }),
        last_invoked_time: time(activity.started_at_ms),
        active_task_count: activity.active,
        invocation_count: activity.total,
        support_session_manager: false,
    }
}

/// Puts a value in the place of another, if there is one.
fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The instance of that name, which has to be there.
fn known_instance(tx: Tx<'_>, id: &InstanceId) -> Result<Instance> {
    let target = instances::find(tx, id)?;
    target.map(|target| target.instance).ok_or_else(|| Error::invalid(instances::not_found(id)))
}

//! What invocations need to be there: instances and kept commands.

use super::Engine;
use super::page::{Page, encoding, text};
use super::planner::no_executor;
use super::schedules::boot;
use crate::command::parameters::{Arguments, ParameterPassing};
use crate::command::preview::{PreviewCommand, PreviewCommandResponse, Previewed};
use crate::command::template::Facts;
use crate::command::{
    CreateCommand, CreateCommandResponse, DescribeCommands, DescribeCommandsResponse, ModifyCommand,
};
use crate::error::{Error, Result, none_of};
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::instance::{DescribeInstances, DescribeInstancesResponse, Instance, LOCAL};
use crate::scheduler::Step;
use crate::store::commands::Definition;
use crate::store::{Tx, commands, instances, targets};
use crate::tag;
use crate::wire::{self, Encoded};

impl Engine {
    /// Registers an instance, or changes the one of that name.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if its id is malformed or its executor is not plugged in.
    pub async fn register_instance(&self, instance: Instance) -> Result<()> {
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
        self.check_instance(&instance)?;
        let is_known =
            |tx: Tx<'_>, instance: &Instance| known_instance(tx, &instance.instance_id).map(drop);
        self.store_instance(instance, is_known).await
    }

    /// Stores an instance if it passes a check. If it is this machine, its boot is known.
    async fn store_instance(
        &self,
        instance: Instance,
        check: impl FnOnce(Tx<'_>, &Instance) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        let boot_id = self.inner.boot_id.clone().filter(|_| instance.executor == LOCAL);
        self.write_step(move |tx| {
            check(tx, &instance)?;
            let before = instances::find(tx, &instance.instance_id)?;
            instances::upsert(tx, &instance, now_ms)?;
            let Some(boot_id) = boot_id else { return Ok(Step::default()) };
            if before.is_some_and(|before| before.instance.executor == LOCAL) {
                return boot(tx, &[instance.instance_id], &boot_id, now_ms);
            }
            targets::rebase(tx, &instance.instance_id, &boot_id)?;
            Ok(Step::default())
        })
        .await
        .map(drop)
    }

    /// Removes an instance. Its records stay, and registering it again brings it back.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is none of that name, [`Error::Conflict`] while executions on it
    /// have not ended.
    pub async fn remove_instance(&self, instance_id: &InstanceId) -> Result<()> {
        let (instance_id, now_ms) = (instance_id.clone(), self.now_ms());
        self.write(move |tx| instances::remove(tx, &instance_id, now_ms)).await
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
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        let ids = request.instance_ids;
        let (instances, next) = self
            .read(move |tx| {
                if ids.is_empty() {
                    return instances::list(tx, page.after, page.size);
                }
                let found = ids.iter().map(|id| known_instance(tx, id));
                Ok((found.collect::<Result<_>>()?, None))
            })
            .await?;
        Ok(DescribeInstancesResponse {
            request_id: wire::request_id(),
            instances,
            next_token: text(next),
        })
    }

    fn check_instance(&self, instance: &Instance) -> Result<()> {
        let mut violations = instance.violations(self.limits());
        if !self.inner.executor_names.contains(&instance.executor) {
            violations.push(no_executor(instance, &self.inner.executor_names));
        }
        none_of(violations)
    }

    /// Keeps a command for later invocations.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong with the request.
    pub async fn create_command(&self, request: CreateCommand) -> Result<CreateCommandResponse> {
        let (command_type, content) = request.check(self.limits()).map_err(Error::all)?;
        let definition = Definition {
            name: request.name,
            description: request.description,
            command_type,
            content,
            enable_parameter: request.enable_parameter,
            working_dir: request.working_dir.filter(|dir| !dir.is_empty()),
            timeout_s: request.timeout.unwrap_or(self.limits().timeout_s_default),
        };
        let command_id = CommandId::new(self.inner.clock.realtime());
        let (kept_max, now_ms) = (self.limits().kept_commands_max, self.now_ms());
        let tags = request.tags;
        self.write(move |tx| {
            commands::insert(tx, command_id, &definition, &tags, kept_max, now_ms)
        })
        .await?;
        Ok(CreateCommandResponse { request_id: wire::request_id(), command_id })
    }

    /// Fills in a script and runs nothing: what it would be on an instance.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong with the script or the values, as a run
    /// would have it.
    pub async fn preview(&self, request: PreviewCommand) -> Result<PreviewCommandResponse> {
        let previewed = request.check(self.limits()).map_err(Error::all)?;
        let encoding = encoding(request.output_encoding.as_deref());
        let limits = self.limits().clone();
        let names = self.inner.config.names.clone();
        let invoke_id = InvokeId::new(self.inner.clock.realtime());
        let text = self
            .read(move |tx| {
                let (content, enabled, command_id) = match previewed {
                    Previewed::Script(script) => {
                        (script, true, CommandId::of_invocation(invoke_id))
                    }
                    Previewed::Stored(id) => {
                        let definition = commands::get(tx, id)?;
                        (definition.content, definition.enable_parameter, id)
                    }
                };
                let instance_id = request.instance_id.unwrap_or_else(|| "".into());
                let instance_name = match instance_id.as_str() {
                    "" => String::new(),
                    _ => known_instance(tx, &instance_id)?.name,
                };
                let (values, passing) = (request.parameters, ParameterPassing::Text);
                let arguments = Arguments { values, passing };
                let mut found = Vec::new();
                arguments.check(enabled, &content, &limits, &mut found);
                none_of(found)?;
                if !enabled {
                    return Ok(content.to_vec());
                }
                let facts = Facts {
                    names: &names,
                    instance_id: &instance_id,
                    instance_name: &instance_name,
                    invoke_id,
                    command_id,
                };
                let max = limits.unkept_content_bytes_max;
                arguments.check_size(&content, &facts, max).map_err(Error::invalid)?;
                Ok(arguments.render(&content, &facts))
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
    pub async fn modify_command(&self, request: ModifyCommand) -> Result<()> {
        none_of(request.violations(self.limits()))?;
        self.write(move |tx| commands::modify(tx, &request)).await
    }

    /// Deletes a kept command; its invocations stay.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if there is no such command, [`Error::Conflict`] while an invocation of it
    /// has not ended.
    pub async fn delete_command(&self, command_id: CommandId) -> Result<()> {
        self.write(move |tx| commands::delete(tx, command_id)).await
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
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        none_of(tag::violations(&request.tags, self.limits()))?;
        let encoding = encoding(request.content_encoding.as_deref());
        let (commands, next) = self
            .read(move |tx| commands::list(tx, &request, page.after, page.size, encoding))
            .await?;
        Ok(DescribeCommandsResponse {
            request_id: wire::request_id(),
            commands,
            next_token: text(next),
        })
    }
}

/// The instance of that name, which has to be there.
fn known_instance(tx: Tx<'_>, id: &InstanceId) -> Result<Instance> {
    let target = instances::find(tx, id)?;
    target.map(|target| target.instance).ok_or_else(|| Error::invalid(instances::not_found(id)))
}

//! Stored commands in this dialect.

use super::check::{Check, FILTERS};
use super::error::Result;
use super::record::{CREATED_BY, TYPES};
use super::request::{
    CreateCommand, DeleteCommand, DeleteCommands, DescribeCommands, Filter, ModifyCommand,
    PreviewReplacedCommandContent,
};
use super::response::{
    CreateCommandResponse, DeleteCommandResponse, DeleteCommandsResponse, DescribeCommandsResponse,
    ModifyCommandResponse, PreviewReplacedCommandContentResponse,
};
use super::{Action, Tencent, base64, request_id};
use crate::command::content::ContentMax;
use crate::command::preview::PreviewCommand;
use crate::command::{self, content};
use crate::error::Violation;
use crate::id::CommandId;
use crate::store::commands::Definition;
use crate::store::selections::CommandNarrow;
use crate::wire::ContentEncoding;

impl Tencent {
    /// Stores a command for later invocations.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) with everything that is wrong with the request.
    pub async fn create_command(&self, request: CreateCommand) -> Result<CreateCommandResponse> {
        let mut check = Check::new(Action::CreateCommand, self.limits());
        let enabled = request.enable_parameter.unwrap_or_default();
        check.command_name(request.command_name.as_deref());
        let content = check.content(request.content);
        let command_type = check.command_type(request.command_type.as_deref()).unwrap_or_default();
        let defaults = check.defaults(request.default_parameters, request.default_parameter_confs);
        let place = check.place(request.output_cos_bucket_url, request.output_cos_key_prefix);
        let create = command::CreateCommand {
            name: request.command_name.unwrap_or_default(),
            description: request.description.unwrap_or_default(),
            command_type: command_type.into(),
            command_content: content,
            content_encoding: base64(),
            working_dir: request.working_directory,
            timeout: request.timeout,
            username: request.username,
            enable_parameter: enabled,
            default_parameters: defaults.unwrap_or_default(),
            oss_output_delivery: check.place_over(place, None),
            tags: request.tags,
            ..command::CreateCommand::default()
        };
        if !check.is_passed() {
            check.add(create.check(self.limits()).err().unwrap_or_default());
            return Err(check.refusal());
        }
        let created = check.conclude(self.engine.create_command(create).await)?;
        let command_id = created.command_id.to_long_form();
        Ok(CreateCommandResponse { request_id: request_id(), command_id })
    }

    /// Changes what is given of a stored command. Invocations that exist keep what they were made
    /// from.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) with everything that is wrong with the request.
    pub async fn modify_command(&self, request: ModifyCommand) -> Result<ModifyCommandResponse> {
        let limits = self.limits();
        let mut check = Check::new(Action::ModifyCommand, limits);
        let command_id = check.command_id(request.command_id.as_deref());
        check.command_name(request.command_name.as_deref());
        let command_type = check.command_type(request.command_type.as_deref());
        let defaults = check.defaults(request.default_parameters, request.default_parameter_confs);
        let place = check.place(request.output_cos_bucket_url, request.output_cos_key_prefix);
        let mut found = Vec::new();
        let script = request.content.and_then(|text| {
            let max = ContentMax::kept(limits);
            content::check(&text, ContentEncoding::Base64, max, &mut found)
        });
        check.add(found);
        let modify = command::ModifyCommand {
            command_id: command_id.map(Into::into).unwrap_or_default(),
            name: request.command_name,
            description: request.description,
            working_dir: request.working_directory,
            timeout: request.timeout,
            username: request.username,
            ..command::ModifyCommand::default()
        };
        if !check.is_passed() {
            check.add(modify.check(limits).err().unwrap_or_default());
            return Err(check.refusal());
        }
        let more = move |definition: &mut Definition, found: &mut Vec<Violation>| {
            definition.command_type = command_type.unwrap_or(definition.command_type);
            if let Some(script) = script {
                definition.content = script;
            }
            if let Some(defaults) = defaults {
                definition.default_parameters = defaults;
            }
            let output_to = &mut definition.settings.output_to;
            match place.over(output_to.as_deref()) {
                Ok(place) => *output_to = place,
                Err(why) => {
                    let (code, field) =
                        ("InvalidParameter.OssOutputDelivery", super::place::PREFIX);
                    found.push(Violation::new(code, 400, field, why));
                }
            }
        };
        check.conclude(self.engine.modify_command_with(modify, more).await)?;
        Ok(ModifyCommandResponse { request_id: request_id() })
    }

    /// Deletes a stored command; the records of its runs stay.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) if there is no such command, or an invocation of it has not ended.
    pub async fn delete_command(&self, request: DeleteCommand) -> Result<DeleteCommandResponse> {
        let mut check = Check::new(Action::DeleteCommand, self.limits());
        let command_id = check.command_id(request.command_id.as_deref());
        let Some(command_id) = command_id else { return Err(check.refusal()) };
        check.conclude(self.engine.delete_commands(vec![command_id]).await)?;
        Ok(DeleteCommandResponse { request_id: request_id() })
    }

    /// Deletes stored commands: all of them, or none.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) if one of them does not exist, or an invocation of it has not ended.
    pub async fn delete_commands(&self, request: DeleteCommands) -> Result<DeleteCommandsResponse> {
        const FIELD: &str = "CommandIds";
        let mut check = Check::new(Action::DeleteCommands, self.limits());
        check.named(FIELD, request.command_ids.len());
        let command_ids = check.command_ids(FIELD, &request.command_ids);
        if !check.is_passed() {
            return Err(check.refusal());
        }
        check.conclude(self.engine.delete_commands(command_ids).await)?;
        Ok(DeleteCommandsResponse { request_id: request_id() })
    }

    /// Lists stored commands, newest first.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) with everything that is wrong with the request.
    pub async fn describe_commands(
        &self,
        request: DescribeCommands,
    ) -> Result<DescribeCommandsResponse> {
        let mut check = Check::new(Action::DescribeCommands, self.limits());
        let stretch = check.stretch(request.limit, request.offset);
        let named = request.command_ids.len();
        let mut narrows = check.filters(named, &request.filters, narrow);
        if named > 0 {
            let ids = check.command_ids("CommandIds", &request.command_ids);
            narrows.push(CommandNarrow::Id(ids));
        }
        if !check.is_passed() {
            return Err(check.refusal());
        }
        let listing = check.conclude(self.engine.select_commands(narrows, stretch).await)?;
        Ok(DescribeCommandsResponse {
            request_id: request_id(),
            unreadable: listing.unreadable,
            total_count: listing.total.unwrap_or_default(),
            command_set: listing.entries.into_iter().map(Into::into).collect(),
        })
    }

    /// Fills in a script and runs nothing.
    ///
    /// # Errors
    ///
    /// [`Error`](super::Error) with everything that is wrong with the script or the values.
    pub async fn preview_replaced_command_content(
        &self,
        request: PreviewReplacedCommandContent,
    ) -> Result<PreviewReplacedCommandContentResponse> {
        let mut check = Check::new(Action::PreviewReplacedCommandContent, self.limits());
        let (named, given) = (request.command_id.is_some(), request.content.is_some());
        match (named, given) {
            (true, true) => {
                let message = "give a CommandId or a Content, not both";
                check.refuse("InvalidParameter.ConflictParameter", "Content", message);
            }
            (false, false) => {
                let message = "give a CommandId or a Content";
                check.refuse("MissingParameter", "Content", message);
            }
            _ => {}
        }
        let command_id = request.command_id.as_deref();
        let command_id = command_id.and_then(|text| check.command_id(Some(text)));
        let preview = PreviewCommand {
            command_id: command_id.map(Into::into),
            command_content: request.content,
            content_encoding: base64(),
            output_encoding: base64(),
            parameters: check.values(request.parameters),
            ..PreviewCommand::default()
        };
        if !check.is_passed() && (named == given || (named && command_id.is_none())) {
            return Err(check.refusal());
        }
        let previewed = check.conclude(self.engine.preview(preview).await)?;
        let replaced_content = previewed.command_content;
        Ok(PreviewReplacedCommandContentResponse { request_id: request_id(), replaced_content })
    }
}

/// A name as it is stored: the id that a command without a name is called by has another form there.
fn stored_name(name: String) -> String {
    match name.parse::<CommandId>() {
        Ok(id) if name == id.to_long_form() => id.to_string(),
        _ => name,
    }
}

/// What a filter narrows a listing of commands to; nothing, if it has all of them.
fn narrow(check: &mut Check<'_>, filter: &Filter) -> Option<CommandNarrow> {
    let values = filter.values.clone();
    Some(match filter.name.as_str() {
        "command-id" => CommandNarrow::Id(check.command_ids(FILTERS, &filter.values)),
        "command-name" => CommandNarrow::Name(values.into_iter().map(stored_name).collect()),
        "command-type" => CommandNarrow::Type(check.of_set(filter, &TYPES)),
        // The pages' services have commands of their own too; there are none here.
        "created-by" => {
            let makers = check.of_set(filter, &[(true, CREATED_BY), (false, "TAT")]);
            if makers.contains(&true) {
                return None;
            }
            CommandNarrow::Id(Vec::new())
        }
        "tag-key" => CommandNarrow::TagKey(values),
        "tag-value" => CommandNarrow::TagValue(values),
        name => match name.strip_prefix("tag:") {
            Some(key) => CommandNarrow::Tag(key.to_owned(), values),
            None => {
                let names = "command-id, command-name, command-type, created-by, tag-key, tag-value or tag:KEY";
                return check.no_such_filter(filter, names);
            }
        },
    })
}

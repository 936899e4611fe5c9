//! `commands`: what is stored for `adjutant invoke`.

use adjutant::{
    Command, CommandId, CommandType, CreateCommand, DeleteCommand, DescribeCommands, Tag,
};
use serde::Serialize;

use super::{Context, called};
use crate::args::{self, Language};
use crate::failure::Failure;
use crate::session::{Need, Session};
use crate::ui::Target;
use crate::{render, script, ui, values};

pub(super) async fn commands(context: &Context, verb: args::Commands) -> Result<u8, Failure> {
    match verb {
        args::Commands::Create(given) => create(context, *given).await,
        args::Commands::List { name, tag } => list(context, name, tag).await,
        args::Commands::Show { command } => show(context, &command).await,
        args::Commands::Delete { command } => delete(context, &command).await,
    }
}

async fn create(context: &Context, given: args::CreateCommand) -> Result<u8, Failure> {
    let script = given.source.read()?;
    let Language { written, base64, default } = given.language;
    let default = values::read("--default", &default)?;
    let text = script::base64(&script, base64)?;
    let mut request = CreateCommand::shell(given.name, script).description(given.description);
    if let Some(text) = text {
        request.command_content = text;
    }
    request.command_type = CommandType::from(written).into();
    request.timeout = given.timeout;
    request.enable_parameter = given.parameters || !default.is_empty();
    request = request.default_parameters(default).secret_parameters(given.secret);
    request.username = given.user;
    request.launcher = given.launcher;
    request.tags = given.tag.into_iter().map(Tag::from).collect();
    request.working_dir = given.workdir.as_deref().map(script::working_dir).transpose()?;
    let response =
        context.with_session(Need::Write, async |session| session.call(request).await).await?;
    context.answer(&response, || format!("{}\n", response.command_id))
}

async fn list(
    context: &Context,
    name: Option<String>,
    tags: Vec<args::Pair>,
) -> Result<u8, Failure> {
    let mut request = DescribeCommands::default();
    request.name = name;
    request.tags = tags.into_iter().map(Tag::from).collect();
    let all = async |session: &mut Session| session.pages(request, |_| false).await;
    let page = context.with_session(Need::Read, all).await?;
    context.answer(&page, || render::commands(&page.commands, Target::Stdout))
}

async fn show(context: &Context, command: &str) -> Result<u8, Failure> {
    let find = async |session: &mut Session| {
        let command_id = called::command(session, command).await?;
        let request = DescribeCommands::default().command_id(command_id);
        session.call(request).await
    };
    let mut page = context.with_session(Need::Read, find).await?;
    let command = page.commands.pop().ok_or_else(|| {
        let message = format!("there is no stored command `{command}`");
        Failure::new("InvalidCmdId.NotFound", 404, message)
    })?;
    if context.json {
        return context.answer(&command, String::new);
    }
    ui::print_of_others(text(&command).as_bytes(), false).map(|()| 0)
}

/// What it is, and its script.
fn text(command: &Command) -> String {
    let mut text = render::command(command);
    text.push('\n');
    text.push_str(&command.command_content.to_text());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

async fn delete(context: &Context, command: &str) -> Result<u8, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Deleted {
        command_id: CommandId,
    }
    let delete = async |session: &mut Session| {
        let command_id = called::command(session, command).await?;
        session.call(DeleteCommand::new(command_id)).await?;
        Ok(command_id)
    };
    let command_id = context.with_session(Need::Write, delete).await?;
    context.answer(&Deleted { command_id }, || format!("deleted {command_id}\n"))
}

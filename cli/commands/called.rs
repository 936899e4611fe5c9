//! Runs and stored commands as people call them: by their ids, by the beginnings of ids that other commands print, and by
//! their names.

use adjutant::{CommandId, DescribeCommands, InvokeId};

use crate::control::FindInvocations;
use crate::failure::Failure;
use crate::session::Session;

/// Finds the run that a text names.
pub(super) async fn run(session: &mut Session, text: &str) -> Result<InvokeId, Failure> {
    if let Ok(invoke_id) = text.parse() {
        return Ok(invoke_id);
    }
    let found = session.call(FindInvocations { text: text.to_owned() }).await?;
    one(&found, "run", text, "InvalidInvokeId.NotFound")
}

/// Finds the stored command that a text names.
pub(super) async fn command(session: &mut Session, text: &str) -> Result<CommandId, Failure> {
    if let Ok(command_id) = text.parse() {
        return Ok(command_id);
    }
    let all = session.pages(DescribeCommands::default(), |_| false).await?.commands;
    let begins = |id: CommandId| text.starts_with("c-") && id.to_string().starts_with(text);
    let mut found: Vec<CommandId> =
        all.iter().map(|command| command.command_id).filter(|id| begins(*id)).collect();
    if found.is_empty() {
        let named = all.iter().filter(|command| command.name == text);
        found = named.map(|command| command.command_id).collect();
    }
    one(&found, "stored command", text, "InvalidCmdId.NotFound")
}

fn one<T: Copy + ToString>(
    found: &[T],
    what: &str,
    text: &str,
    not_found: &str,
) -> Result<T, Failure> {
    match found {
        [one] => Ok(*one),
        [] => Err(Failure::new(not_found, 404, format!("there is no {what} `{text}`"))),
        several => {
            let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
            let message = format!("`{text}` names more than one {what}: {}", ids.join(", "));
            Err(Failure::new("Ambiguous", 409, message))
        }
    }
}

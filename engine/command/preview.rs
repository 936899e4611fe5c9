//! What a script comes to once its parameters are filled in, without running it.

use super::content::{self, Content};
use super::parameters::Parameters;
use super::unknown_command_id;
use crate::error::Violation;
use crate::given::Given;
use crate::id::{CommandId, InstanceId};
use crate::limits::Limits;
use crate::wire::{ContentEncoding, Encoded, page_request, page_response};

page_request! {
/// Asks for the finished text of a script: of a stored command, or of one that is given.
///
/// # What will run
///
/// ```
/// use adjutant::{Engine, PreviewCommand};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::open_in_memory().await?;
/// let request = PreviewCommand::script("echo {{ name }}").parameters([("Name", "Jack")]);
/// assert_eq!(engine.preview(request).await?.command_content.as_bytes(), b"echo Jack");
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
#[non_exhaustive]
pub struct PreviewCommand {
    /// The stored command; or give `CommandContent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_id: Option<Given<CommandId>>,
    /// The script, encoded as the next field says; or give `CommandId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command_content: Option<String>,
    /// `PlainText` or `Base64`, of the script that is given; plain text if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// `PlainText` or `Base64`, of the answer; Base64 if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_encoding: Option<String>,
    /// Values for the script's parameters.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
    /// What parameters are that no value is given for, of the script that is given.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub default_parameters: Parameters,
    /// The instance whose id and name built-in parameters have; they are empty if none is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<InstanceId>,
}
}

/// A script to fill in.
#[derive(Debug)]
pub(crate) enum Previewed {
    Stored(CommandId),
    Script(Content),
}

impl PreviewCommand {
    /// Of a stored command.
    pub fn stored(command_id: CommandId) -> Self {
        Self { command_id: Some(command_id.into()), ..Self::default() }
    }

    /// Of a script, given as it is. Bytes that are no UTF-8 are taken too.
    pub fn script(script: impl AsRef<[u8]>) -> Self {
        let (command_content, encoding) = ContentEncoding::of(script.as_ref());
        let content_encoding = Some(encoding.as_str().to_owned());
        Self { command_content: Some(command_content), content_encoding, ..Self::default() }
    }

    /// Gives values to the script's parameters.
    #[must_use]
    pub fn parameters<N: Into<String>, V: Into<String>>(
        mut self,
        values: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.parameters = values.into_iter().collect();
        self
    }

    /// Fills in what is known of an instance.
    #[must_use]
    pub fn on(mut self, instance_id: impl Into<InstanceId>) -> Self {
        self.instance_id = Some(instance_id.into());
        self
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<Previewed, Vec<Violation>> {
        let mut found = Vec::new();
        self.parameters.check(limits, &mut found);
        let previewed = match (&self.command_id, &self.command_content) {
            (Some(id), None) => id.known(&mut found, unknown_command_id).map(Previewed::Stored),
            (None, Some(text)) => {
                let bytes_max = limits.unkept_content_bytes_max;
                let encoding = self.content_encoding.as_deref().and_then(ContentEncoding::parse);
                let encoding = encoding.unwrap_or(ContentEncoding::PlainText);
                content::check(text, encoding, bytes_max, &mut found).map(Previewed::Script)
            }
            _ => {
                let message = "want either a CommandId or a CommandContent";
                found.push(Violation::new(
                    "MissingParameter.CommandContent",
                    400,
                    "CommandContent",
                    message,
                ));
                None
            }
        };
        match previewed {
            Some(previewed) if found.is_empty() => Ok(previewed),
            _ => Err(found),
        }
    }
}

page_response! {
/// A finished script.
pub struct PreviewCommandResponse {
    /// What would run.
    pub command_content: Encoded,
}
}

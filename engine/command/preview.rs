//! What a script comes to once its parameters are filled in, without running it.

use super::content::{self, Content, ContentMax};
use super::parameters::{Arguments, Parameters};
use super::template::Facts;
use super::unknown_command_id;
use crate::config::Names;
use crate::error::{Error, Result, Violation, none_of};
use crate::given::Given;
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::limits::Limits;
use crate::operation::Operation;
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

    /// Fills in the script that is given, without an engine. Checks it, and the values, as
    /// [`Engine::preview`](crate::Engine::preview) does; what only an engine knows (the built-in
    /// parameters of the region, the account and the instance's name) is empty, and the ids of
    /// command and invocation are all zeros.
    ///
    /// # As somebody types
    ///
    /// ```
    /// use adjutant::{Limits, PreviewCommand};
    ///
    /// let request = PreviewCommand::script("echo {{ name }} on {{ACS::InstanceId}}").on("i-1");
    /// let script = request.clone().parameters([("Name", "Jack")]).fill_in(&Limits::default())?;
    /// assert_eq!(script.as_bytes(), b"echo Jack on i-1");
    /// let error = request.parameters([("nmae", "Jack")]).fill_in(&Limits::default()).unwrap_err();
    /// assert_eq!(error.code(), "Parameter.NotMatched");
    /// # Ok::<(), adjutant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong with the script or the values, or if none is
    /// given but the id of a stored one.
    pub fn fill_in(&self, limits: &Limits) -> Result<Encoded> {
        let refused = |found| Error::all(Operation::PreviewCommand, found);
        let Previewed::Script(content) = self.check(limits).map_err(refused)? else {
            let message = "want a CommandContent; without an engine no command is stored";
            let code = "MissingParameter.CommandContent";
            return Err(Error::invalid(Violation::new(code, 400, "CommandContent", message)));
        };
        let invoke_id = InvokeId::from_bytes([0; 16]);
        let facts = Facts {
            names: &Names::default(),
            instance_id: &self.instance_id.clone().unwrap_or_else(|| "".into()),
            instance_name: "",
            invoke_id,
            command_id: CommandId::of_invocation(invoke_id),
        };
        let arguments = Arguments {
            values: self.parameters.clone(),
            defaults: self.default_parameters.clone(),
            ..Arguments::default()
        };
        let text = finished(arguments, true, &content, &facts, limits)?;
        Ok(Encoded::new(text, self.answer_encoding()))
    }

    /// How the finished text is to be written.
    pub(crate) fn answer_encoding(&self) -> ContentEncoding {
        let asked = self.output_encoding.as_deref();
        asked.and_then(ContentEncoding::parse).unwrap_or_default()
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<Previewed, Vec<Violation>> {
        let mut found = Vec::new();
        self.parameters.check(limits, &mut found);
        let previewed = match (&self.command_id, &self.command_content) {
            (Some(id), None) => id.known(&mut found, unknown_command_id).map(Previewed::Stored),
            (None, Some(text)) => {
                let max = ContentMax::unkept(limits);
                let encoding = self.content_encoding.as_deref().and_then(ContentEncoding::parse);
                let encoding = encoding.unwrap_or(ContentEncoding::PlainText);
                content::check(text, encoding, max, &mut found).map(Previewed::Script)
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

/// The finished text of a script, as anybody who asks may see it: without what is secret.
pub(crate) fn finished(
    arguments: Arguments,
    enabled: bool,
    content: &[u8],
    facts: &Facts<'_>,
    limits: &Limits,
) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    let script = arguments.check(enabled, Some(content), limits, &mut found);
    none_of(Operation::PreviewCommand, found)?;
    let Some(script) = script else { return Ok(content.to_vec()) };
    let arguments = arguments.redacted();
    arguments.check_size(&script, facts, ContentMax::unkept(limits)).map_err(Error::invalid)?;
    arguments.check_built_ins(&script, facts).map_err(Error::invalid)?;
    Ok(arguments.render(&script, facts))
}

page_response! {
/// A finished script.
pub struct PreviewCommandResponse {
    /// What would run.
    pub command_content: Encoded,
}
}

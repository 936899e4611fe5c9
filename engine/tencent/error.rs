//! Errors of this dialect: its codes and its names of fields, for what the engine refuses in its own.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::Action;
use crate::authorizer::FORBIDDEN;
use crate::error::{Error as Core, Violation};

/// Codes that the page of RunCommand lists and this library never has: they say what befell a network
/// service with accounts, regions and other services behind it.
pub const NETWORK_CODES: [&str; 8] = [
    "FailedOperation.CVMError",
    "FailedOperation.LighthouseError",
    "ResourceNotFound.RoleNotFound",
    "ResourceUnavailable.LighthouseUnsupportedRegion",
    "UnauthorizedOperation.CamAuthFailed",
    "UnauthorizedOperation.InvalidToken",
    "UnauthorizedOperation.MFAExpired",
    "UnauthorizedOperation.MFANotFound",
];

/// The result of every action.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not do what it was asked to do. Nothing of a failed call is stored.
///
/// As JSON it is what the pages answer: `{"Error": {"Code", "Message"}, "RequestId"}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct Error {
    /// The page's code: that of the first violation, if the request is wrong. Stable.
    pub code: &'static str,
    /// Everything that is wrong, in words.
    pub message: String,
    /// Names the call.
    pub request_id: String,
    /// Everything that is wrong with the request, with this dialect's codes and fields; empty for
    /// errors of other kinds.
    pub violations: Vec<Violation>,
}

impl Error {
    /// The HTTP status of every answer of this dialect: clients of it look for errors in the body.
    pub const fn http_status(&self) -> u16 {
        HTTP_STATUS
    }

    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        let request_id = super::request_id();
        Self { code, message: message.into(), request_id, violations: Vec::new() }
    }

    /// Everything that is wrong with a request.
    pub(super) fn refused(violations: Vec<Violation>) -> Self {
        let says = |one: &Violation| format!("{}: {} ({})", one.field, one.message, one.code);
        let message = violations.iter().map(says).collect::<Vec<_>>().join("; ");
        let code = violations.first().map_or("InvalidParameter", |first| first.code);
        Self { violations, ..Self::new(code, message) }
    }

    /// What the engine says of a call, behind what has been found before.
    pub(super) fn of(action: Action, error: Core, mut found: Vec<Violation>) -> Self {
        match error {
            Core::Invalid(violations) | Core::Quota { violations, .. } => {
                add(action, violations, &mut found);
                Self::refused(found)
            }
            _ if !found.is_empty() => Self::refused(found),
            Core::Conflict { code: FORBIDDEN, message } => {
                Self::new("AuthFailure.UnauthorizedOperation", message)
            }
            Core::Conflict { code: "InvalidStatus.CmdIdInUse", message } => {
                let message = respelled("CommandId", &message);
                Self::new("ResourceUnavailable.CommandInExecuting", message)
            }
            Core::Conflict { message, .. } => Self::new("OperationDenied", message),
            busy @ Core::Busy { .. } => Self::new("RequestLimitExceeded", busy.to_string()),
            // Nothing that whoever asks could do anything about.
            error => Self::new("InternalError", error.to_string()),
        }
    }
}

impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(serde::Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Said<'a> {
            code: &'a str,
            message: &'a str,
        }
        let mut body = serializer.serialize_struct("Error", 2)?;
        body.serialize_field("Error", &Said { code: self.code, message: &self.message })?;
        body.serialize_field("RequestId", &self.request_id)?;
        body.end()
    }
}

const HTTP_STATUS: u16 = 200;

/// A violation in the terms of this dialect.
pub(super) fn violation(
    code: &'static str,
    field: &'static str,
    message: impl Into<String>,
) -> Violation {
    Violation::new(code, HTTP_STATUS, field, message)
}

/// Adds what the engine found to what has been found before, unless that says it already.
pub(super) fn add(action: Action, violations: Vec<Violation>, found: &mut Vec<Violation>) {
    let own = found.len();
    for theirs in violations {
        let ours = translated(action, &theirs);
        let is_said = found[..own].iter().any(|said| {
            // An id that is none has not been passed on, and is not missing for that.
            let covers = said.code == ours.code || said.code == MISSING || said.field == COMMAND_ID;
            said.field == ours.field && covers
        });
        if !is_said {
            found.push(ours);
        }
    }
    // What could not be read may well have the values.
    if found.iter().any(|one| one.code == INVALID_JSON && one.field == "Parameters") {
        found.retain(|one| !one.code.starts_with("InvalidParameterValue.LackOfParameter"));
    }
}

const COMMAND_ID: &str = "CommandId";
const INVALID_JSON: &str = "InvalidParameterValue.ParameterInvalidJsonFormat";

pub(super) const MISSING: &str = "MissingParameter";

/// The codes of the engine, with the field they are about where that makes a difference, and those
/// of this dialect. The first that fits holds; what none fits is `InvalidParameterValue`.
const CODES: &[(&str, Option<&str>, &str)] = &[
    // What is named is not there.
    ("InvalidInstance.NotFound", None, "ResourceNotFound.InstanceNotFound"),
    ("InvalidCmdId.NotFound", None, "ResourceNotFound.CommandNotFound"),
    ("InvalidInvokeId.NotFound", None, "ResourceNotFound.InvocationNotFound"),
    // An instance is there, and cannot take the command.
    ("InvalidInstance.NotMatch", Some("Status"), "ResourceUnavailable.InstanceStateNotRunning"),
    ("InvalidInstance.NotMatch", Some("AgentStatus"), "ResourceUnavailable.AgentStatusNotOnline"),
    ("InvalidInstance.NotMatch", Some("Agent"), "ResourceUnavailable.AgentNotInstalled"),
    // Its executor is not plugged in: there is nothing that serves it.
    ("InvalidInstance.NotMatch", Some("Executor"), "ResourceUnavailable.AgentNotInstalled"),
    ("InvalidInstance.NotMatch", Some("Type"), "InvalidParameterValue.AgentUnsupportedCommandType"),
    (
        "InvalidInstance.NotMatch",
        Some("InstanceKind"),
        "InvalidParameterValue.InconsistentInstance",
    ),
    ("InvalidInstanceId.Duplicate", None, "InvalidParameterValue.InvalidInstanceId"),
    ("InstanceIds.ExceedLimit", None, "InvalidParameterValue.LimitExceeded"),
    ("MissingParam.InstanceId", None, MISSING),
    // The script: no Base64, then nothing to run, then braces that hold no parameter.
    ("CmdContent.DecodeError", None, "InvalidParameterValue.CommandContentInvalid"),
    ("MissingParameter.CommandContent", None, "InvalidParameterValue.InvalidContent"),
    ("CmdParam.EmptyKey", Some("CommandContent"), "InvalidParameterValue.InvalidContent"),
    ("CmdParam.InvalidParamName", Some("CommandContent"), "InvalidParameterValue.InvalidContent"),
    ("CmdContent.ExceedLimit", None, "InvalidParameterValue.TooLong"),
    // Texts: a name too long is too long, of the wrong characters it is invalid.
    ("MissingParameter.Name", None, MISSING),
    ("CmdName.ExceedLimit", None, "InvalidParameterValue.TooLong"),
    ("CmdName.Duplicate", None, "InvalidParameterValue.CommandNameDuplicated"),
    ("InvalidParameterCharacter.CommandName", None, "InvalidParameterValue.InvalidCommandName"),
    ("CmdDesc.ExceedLimit", None, "InvalidParameterValue.TooLong"),
    ("InvalidParameter.WorkingDir", None, "InvalidParameterValue.InvalidWorkingDirectory"),
    (
        "InvalidParameterCharacter.CommandWorkingDir",
        None,
        "InvalidParameterValue.InvalidWorkingDirectory",
    ),
    // Two codes for users: a name that cannot be one, and one that will not do.
    ("InvalidParameter.Username", None, "InvalidParameter.InvalidUsername"),
    ("Username.ExceedLimit", None, "InvalidParameterValue.InvalidUsername"),
    ("WindowsPasswordName.Missed", None, "InvalidParameterValue.InvalidUsername"),
    ("InvalidParameter.Timeout", None, "InvalidParameterValue.Range"),
    (
        "InvalidParameter.OssOutputDelivery",
        Some("OutputCOSKeyPrefix"),
        "InvalidParameterValue.InvalidOutputCOSKeyPrefix",
    ),
    ("InvalidParameter.OssOutputDelivery", None, "InvalidParameterValue.InvalidOutputCOSBucketUrl"),
    // Counts.
    ("NumberExceed.Tags", None, "InvalidParameterValue.LimitExceeded"),
    ("CmdCount.ExceedQuota", None, "LimitExceeded"),
    ("Invocation.ExceedQuota", None, "LimitExceeded"),
    // Parameters by themselves.
    ("InvalidParameter.Parameters", None, "InvalidParameterValue.ParameterInvalidJsonFormat"),
    ("ParameterCount.ExceedLimit", None, "InvalidParameterValue.ParameterNumberExceeded"),
    ("CmdParamCount.ExceedLimit", None, "InvalidParameterValue.ParameterNumberExceeded"),
    ("ParameterKey.ExceedLimit", None, "InvalidParameterValue.ParameterKeyLenExceeded"),
    ("CmdParamName.ExceedLimit", None, "InvalidParameterValue.ParameterKeyLenExceeded"),
    ("ParameterKey.Duplicate", None, "InvalidParameterValue.ParameterKeyDuplicated"),
    ("ParameterType.NotSupported", None, "InvalidParameterValue.ParameterValueNotString"),
    ("CmdParam.EmptyKey", None, "InvalidParameterValue.ParameterKeyContainsInvalidChar"),
    ("CmdParam.InvalidParamName", None, "InvalidParameterValue.ParameterKeyContainsInvalidChar"),
    // Parameters where the feature is off: defaults, which only its being on gives a sense, and values.
    (
        "Parameter.Disabled",
        Some("DefaultParameters"),
        "InvalidParameterValue.SupportParametersOnlyIfEnableParameter",
    ),
    ("Parameter.Disabled", None, "InvalidParameterValue.ParameterDisabled"),
    // The feature is on and a name has neither a value nor a default. The request that brings the
    // script along lacks information; see `translated` for the one that only brings values.
    ("Parameter.MissingValue", None, "InvalidParameterValue.LackOfParameterInfo"),
];

fn translated(action: Action, theirs: &Violation) -> Violation {
    let fits = |(code, field, _): &&(&str, Option<&str>, &str)| {
        *code == theirs.code && field.is_none_or(|field| field == theirs.field)
    };
    let code = CODES.iter().find(fits).map_or("InvalidParameterValue", |(_, _, code)| code);
    let code = match (action, code) {
        // To run a command that is there, or to fill one in, takes values.
        (
            Action::InvokeCommand | Action::PreviewReplacedCommandContent,
            "InvalidParameterValue.LackOfParameterInfo",
        ) => "InvalidParameterValue.LackOfParameters",
        // It may well be registered, and have nothing to do with what is cancelled.
        (Action::CancelInvocation, "ResourceNotFound.InstanceNotFound") => {
            "InvalidParameterValue.InstanceIsNotRelatedToInvocation"
        }
        (_, code) => code,
    };
    violation(code, field(theirs.field), message(theirs))
}

/// A field by its name on the pages of this dialect.
fn field(theirs: &'static str) -> &'static str {
    match theirs {
        "Name" => "CommandName",
        "CommandContent" => "Content",
        "Type" => "CommandType",
        "InstanceId" | "InstanceKind" | "Status" | "AgentStatus" | "Agent" | "Executor" => {
            "InstanceIds"
        }
        "WorkingDir" => "WorkingDirectory",
        "WindowsPasswordName" => "Username",
        "OssOutputDelivery" => "OutputCOSBucketUrl",
        "Tag" => "Tags",
        "InvokeId" => "InvocationId",
        "KeepCommand" => "SaveCommand",
        other => other,
    }
}

/// What is wrong, without what only the engine's own requests have.
fn message(theirs: &Violation) -> String {
    let text = &theirs.message;
    match (theirs.code, theirs.field) {
        ("CmdContent.DecodeError", _) => {
            text.split_once(';').map_or(text.as_str(), |(why, _)| why).to_owned()
        }
        ("MissingParam.InstanceId", _) => {
            text.split_once(',').map_or(text.as_str(), |(what, _)| what).to_owned()
        }
        ("WindowsPasswordName.Missed", _) => {
            format!("{text}, which this action has no field for; leave the user out")
        }
        ("InvalidInstance.NotMatch", "Type") => text
            .replace("RunShellScript", "SHELL")
            .replace("RunPowerShellScript", "POWERSHELL")
            .replace("RunBatScript", "BAT"),
        (_, field) => respelled(field, text),
    }
}

/// A message with ids as this dialect spells them.
fn respelled(field: &str, text: &str) -> String {
    match field {
        "CommandId" => text.replace("`c-", "`cmd-"),
        "InvokeId" => text.replace("`t-", "`inv-"),
        _ => text.to_owned(),
    }
}

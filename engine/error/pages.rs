//! The order in which the API pages list their codes, which is the order of violations, and the few
//! statuses in which the pages differ.

use super::Violation;
use crate::operation::Operation;

/// The codes as RunCommand lists them. Those that only other pages or this library have come after
/// them, as found.
const RUN_COMMAND: &[&str] = &[
    "MissingParam.InstanceId",
    "NumberExceed.Tags",
    "InvalidTagValue.Malformed",
    "Duplicate.TagKey",
    "InvalidTagKey.Malformed",
    "MissingParameter.TagKey",
    "InvalidContainerId.Malformed",
    "InvalidContainerName.Malformed",
    "InvalidClientToken.Malformed",
    "CmdParam.EmptyKey",
    "CmdParam.InvalidParamName",
    "CmdContent.DecodeError",
    "InvalidInstance.NotMatch",
    "MissingParam.Frequency",
    "InvalidParam.Frequency",
    "ParameterKey.Duplicate",
    "Parameter.NotMatched",
    "WindowsPasswordName.Missed",
    "Parameter.Disabled",
    "InvalidParameter.Parameters",
    "InvalidParameter.WorkingDir",
    "NumberExceed.ResourceTags",
    "MissingParameter.ResourceTagKey",
    "InvalidResourceTagKey.Malformed",
    "InvalidResourceTagValue.Malformed",
    "Duplicate.ResourceTagKey",
    "InvalidResourceTag.InstanceNotFound",
    "InvalidResourceTag.ConflictWithInstanceIds",
    "CmdContent.ExceedLimit",
    "CmdName.ExceedLimit",
    "CmdDesc.ExceedLimit",
    "CmdCount.ExceedQuota",
    "CmdParamCount.ExceedLimit",
    "CmdParamName.ExceedLimit",
    "InstanceIds.ExceedLimit",
    "Invocation.ExceedQuota",
    "ParameterCount.ExceedLimit",
    "ParameterKey.ExceedLimit",
    "ParameterType.NotSupported",
    "Username.ExceedLimit",
    "WindowsPasswordName.ExceedLimit",
    "ParameterStore.NotSupported",
    "ParameterStore.InvalidParameters",
    "ParameterStore.NoPermission",
    "InvalidParameterCharacter.CommandName",
    "InvalidParameterCharacter.CommandDescription",
    "InvalidParameterCharacter.CommandWorkingDir",
    "InvalidLauncher.LengthLimitExceeded",
    "InvalidParameterCharset.Parameters",
    "InvalidCmdType.NotFound",
    "InvalidRepeatMode.NotFound",
    "InvalidInstance.NotFound",
    "InvalidCmdId.NotFound",
    "InvalidResourceGroup.NotFound",
    "InvalidTerminationMode.NotFound",
];

/// The same as InvokeCommand lists them.
const INVOKE_COMMAND: &[&str] = &[
    "MissingParam.InstanceId",
    "InvalidContainerId.Malformed",
    "InvalidContainerName.Malformed",
    "InvalidClientToken.Malformed",
    "InvalidInstance.NotMatch",
    "MissingParam.Frequency",
    "InvalidParam.Frequency",
    "Parameter.MissingValue",
    "Parameter.Disabled",
    "InvalidParameter.Parameters",
    "NumberExceed.ResourceTags",
    "MissingParameter.ResourceTagKey",
    "InvalidResourceTagKey.Malformed",
    "InvalidResourceTagValue.Malformed",
    "Duplicate.ResourceTagKey",
    "InvalidResourceTag.InstanceNotFound",
    "InvalidResourceTag.ConflictWithInstanceIds",
    "InstanceIds.ExceedLimit",
    "Invocation.ExceedQuota",
    "ParameterCount.ExceedLimit",
    "ParameterKey.ExceedLimit",
    "CmdContent.ExceedLimit",
    "ParameterKey.Duplicate",
    "Parameter.NotMatched",
    "ParameterType.NotSupported",
    "Username.ExceedLimit",
    "WindowsPasswordName.ExceedLimit",
    "WindowsPasswordName.Missed",
    "ParameterStore.NotSupported",
    "ParameterStore.InvalidParameters",
    "ParameterStore.NoPermission",
    "InvalidLauncher.LengthLimitExceeded",
    "InvalidParameterCharset.Parameters",
    "InvalidRepeatMode.NotFound",
    "InvalidInstance.NotFound",
    "InvalidCmdId.NotFound",
    "InvalidResourceGroup.NotFound",
    "InvalidTerminationMode.NotFound",
];

/// What InvokeCommand has another status for: 403, and 400 elsewhere.
const FORBIDDEN_TO_INVOKE: &[&str] =
    &["ParameterKey.Duplicate", "Parameter.NotMatched", "WindowsPasswordName.Missed"];

/// Puts violations into the order of the operation's page, with its statuses.
pub(super) fn arrange(operation: Operation, violations: &mut [Violation]) {
    let order = match operation {
        Operation::InvokeCommand => INVOKE_COMMAND,
        _ => RUN_COMMAND,
    };
    let place = |violation: &Violation| order.iter().position(|code| *code == violation.code);
    violations.sort_by_key(|violation| place(violation).unwrap_or(order.len()));
    if operation == Operation::InvokeCommand {
        let others = violations.iter_mut().filter(|v| FORBIDDEN_TO_INVOKE.contains(&v.code));
        others.for_each(|violation| violation.http_status = 403);
    }
}

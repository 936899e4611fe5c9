//! A second dialect for the same engine: the requests, answers, statuses and errors of Tencent's
//! automation tools.
//!
//! The records are the engine's: each dialect lists invocations that were made in the other. The dialects differ in
//! their JSON, in the limits of requests ([`Limits::tencent`]), and in the names of statuses.
//!
//! # Run a command as the page's example has it
//!
//! ```
//! use adjutant::Engine;
//! use adjutant::tencent::Tencent;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! let engine = Engine::open_in_memory().await?;
//! let tencent = Tencent::new(&engine);
//! let request = r#"{"CommandName": "who", "Content": "d2hvYW1p", "InstanceIds": ["local"]}"#;
//! let answer = tencent.call("RunCommand", request).await?;
//! let invocation_id = answer["InvocationId"].as_str().unwrap();
//! assert!(invocation_id.starts_with("inv-"));
//! engine.wait(&invocation_id.parse()?).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod agents;
mod check;
mod commands;
mod error;
mod invocations;
mod place;
mod record;
mod request;
mod response;
mod status;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::Engine;
use crate::limits::Limits;
use crate::wire::{self, ContentEncoding, text_enum};

pub use error::{Error, NETWORK_CODES, Result};
pub use request::{
    CancelInvocation, CreateCommand, DefaultParameterConf, DeleteCommand, DeleteCommands,
    DescribeAutomationAgentStatus, DescribeCommands, DescribeInvocationTasks, DescribeInvocations,
    DescribeQuotas, Filter, InvokeCommand, ModifyCommand, PreviewReplacedCommandContent,
    RunCommand,
};
pub use response::{
    AutomationAgentInfo, CancelInvocationResponse, Command, CommandDocument, CreateCommandResponse,
    DeleteCommandResponse, DeleteCommandsResponse, DescribeAutomationAgentStatusResponse,
    DescribeCommandsResponse, DescribeInvocationTasksResponse, DescribeInvocationsResponse,
    DescribeQuotasResponse, GeneralResourceQuotaSet, Invocation, InvocationTask,
    InvocationTaskBasicInfo, InvokeCommandResponse, ModifyCommandResponse,
    PreviewReplacedCommandContentResponse, RunCommandResponse, TaskResult,
};
pub use status::{InvocationStatus, TaskStatus};

/// An engine that is spoken to in this dialect. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Tencent {
    engine: Engine,
}

/// The actions, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    RunCommand,
    CreateCommand,
    ModifyCommand,
    DeleteCommand,
    DeleteCommands,
    DescribeCommands,
    InvokeCommand,
    CancelInvocation,
    DescribeInvocations,
    DescribeInvocationTasks,
    PreviewReplacedCommandContent,
    DescribeAutomationAgentStatus,
    DescribeQuotas,
}

text_enum!(
    Action,
    "action",
    [
        RunCommand,
        CreateCommand,
        ModifyCommand,
        DeleteCommand,
        DeleteCommands,
        DescribeCommands,
        InvokeCommand,
        CancelInvocation,
        DescribeInvocations,
        DescribeInvocationTasks,
        PreviewReplacedCommandContent,
        DescribeAutomationAgentStatus,
        DescribeQuotas
    ]
);

const NAMES: [&str; Action::ALL.len()] = {
    let mut names = [""; Action::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Action::ALL[at].as_str();
        at += 1;
    }
    names
};

impl Tencent {
    /// The names of the actions.
    pub const ACTIONS: &[&str] = &NAMES;

    /// Returns a handle of an engine in this dialect, with the limits of its pages. Limits that the pages do not name,
    /// such as the number of invocations in a day, are the engine's own [`Limits`]. The caller is the caller of the
    /// engine's handle.
    pub fn new(engine: &Engine) -> Self {
        let own = engine.limits();
        let limits = Limits {
            working_dir_chars_max: own.working_dir_chars_max,
            launcher_bytes_max: own.launcher_bytes_max,
            resource_tags_max: own.resource_tags_max,
            tag_key_chars_max: own.tag_key_chars_max,
            tag_value_chars_max: own.tag_value_chars_max,
            client_token_chars_max: own.client_token_chars_max,
            invocations_per_day_max: own.invocations_per_day_max,
            rate_s_min: own.rate_s_min,
            rate_s_max: own.rate_s_max,
            cron_s_min: own.cron_s_min,
            spread_s_max: own.spread_s_max,
            missed_runs_max: own.missed_runs_max,
            kept_commands_max: own.kept_commands_max,
            ..Limits::tencent()
        };
        Self::with_limits(engine, limits)
    }

    /// The same with other numbers.
    pub fn with_limits(engine: &Engine, limits: Limits) -> Self {
        Self { engine: engine.with_limits(limits) }
    }

    /// Performs an action by its name: its request and its answer as JSON, without the envelope
    /// that an answer has on the network.
    ///
    /// # Errors
    ///
    /// [`Error`] with the code `InvalidAction` if there is no such action, `InvalidParameter` or
    /// `UnknownParameter` if the text is no request of it, and otherwise as the action's own method.
    pub async fn call(&self, action: &str, request: &str) -> Result<Value> {
        let Ok(action) = action.parse::<Action>() else {
            let names = Self::ACTIONS.join(", ");
            let message = format!("there is no action `{action}`; there are {names}");
            return Err(Error::new("InvalidAction", message));
        };
        match action {
            Action::RunCommand => answer(&self.run_command(read(action, request)?).await?),
            Action::CreateCommand => answer(&self.create_command(read(action, request)?).await?),
            Action::ModifyCommand => answer(&self.modify_command(read(action, request)?).await?),
            Action::DeleteCommand => answer(&self.delete_command(read(action, request)?).await?),
            Action::DeleteCommands => answer(&self.delete_commands(read(action, request)?).await?),
            Action::DescribeCommands => {
                answer(&self.describe_commands(read(action, request)?).await?)
            }
            Action::InvokeCommand => answer(&self.invoke_command(read(action, request)?).await?),
            Action::CancelInvocation => {
                answer(&self.cancel_invocation(read(action, request)?).await?)
            }
            Action::DescribeInvocations => {
                answer(&self.describe_invocations(read(action, request)?).await?)
            }
            Action::DescribeInvocationTasks => {
                answer(&self.describe_invocation_tasks(read(action, request)?).await?)
            }
            Action::PreviewReplacedCommandContent => {
                answer(&self.preview_replaced_command_content(read(action, request)?).await?)
            }
            Action::DescribeAutomationAgentStatus => {
                answer(&self.describe_automation_agent_status(read(action, request)?).await?)
            }
            Action::DescribeQuotas => answer(&self.describe_quotas(read(action, request)?).await?),
        }
    }

    fn limits(&self) -> &Limits {
        self.engine.limits()
    }
}

fn read<T: DeserializeOwned>(action: Action, request: &str) -> Result<T> {
    wire::document::read(action.as_str(), request).map_err(|misread| {
        let code = match misread.has_unknown_field {
            true => "UnknownParameter",
            false => "InvalidParameter",
        };
        Error::new(code, misread.to_string())
    })
}

fn answer(response: &impl Serialize) -> Result<Value> {
    serde_json::to_value(response).map_err(|error| Error::new("InternalError", error.to_string()))
}

/// How every script travels in this dialect.
fn base64() -> Option<String> {
    Some(ContentEncoding::Base64.as_str().to_owned())
}

/// A fresh `RequestId`, as this dialect writes them.
fn request_id() -> String {
    wire::request_id().to_lowercase()
}

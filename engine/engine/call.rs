//! Any operation by its name, with the page's own JSON: for hosts that pass requests on.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Engine;
use crate::error::{Error, Result, Violation};
use crate::wire;

/// The operations that requests name, with the methods that carry them out.
macro_rules! operations {
    ($($name:ident => $method:ident,)+) => {
        impl Engine {
            /// Carries out an operation by its name on the API pages, from its JSON to its JSON.
            /// [`OPERATIONS`](Self::OPERATIONS) lists them.
            ///
            /// # A page's sample request
            ///
            /// ```
            /// use adjutant::{Engine, Instance};
            ///
            /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            /// # runtime.block_on(async {
            /// let engine = Engine::open_in_memory().await?;
            /// engine.register_instance(Instance::new("i-bp185dy2o3o6neg")).await?;
            /// let request = r#"{
            ///     "RegionId": "cn-hangzhou", "Name": "Test", "Type": "RunShellScript",
            ///     "CommandContent": "echo hello", "InstanceId": ["i-bp185dy2o3o6neg"]
            /// }"#;
            /// let response = engine.call("RunCommand", request).await?;
            /// assert!(response["InvokeId"].as_str().is_some_and(|id| id.starts_with("t-")));
            /// # Ok::<(), adjutant::Error>(())
            /// # }).unwrap();
            /// ```
            ///
            /// # Errors
            ///
            /// [`Error::Invalid`] if there is no such operation or the text is no request of it, and
            /// what the operation itself fails with.
            pub async fn call(&self, operation: &str, request: &str) -> Result<Value> {
                match operation {
                    $(stringify!($name) => {
                        let request = read::<crate::$name>(operation, request)?;
                        answer(self.$method(request).await?)
                    })+
                    _ => Err(unknown_operation(operation)),
                }
            }

            /// The operations that [`call`](Self::call) knows.
            pub const OPERATIONS: &[&str] = &[$(stringify!($name)),+];
        }
    };
}

operations! {
    RunCommand => run_command,
    InvokeCommand => invoke_command,
    StopInvocation => stop_invocation,
    RetryFailed => retry_failed,
    ExecContainerCommand => exec_container_command,
    DescribeInvocations => describe_invocations,
    DescribeInvocationResults => describe_invocation_results,
    DescribeFires => describe_fires,
    CreateCommand => create_command,
    ModifyCommand => modify_command,
    DeleteCommand => delete_command,
    DescribeCommands => describe_commands,
    PreviewCommand => preview,
    DescribeInstances => describe_instances,
    DescribeCloudAssistantStatus => describe_cloud_assistant_status,
}

fn unknown_operation(name: &str) -> Error {
    let known = Engine::OPERATIONS.join(", ");
    let message = format!("there is no operation `{}`; want {known}", wire::shortened(name));
    Error::invalid(Violation::new("InvalidAction.NotFound", 404, "Action", message))
}

fn read<T: DeserializeOwned>(operation: &str, request: &str) -> Result<T> {
    wire::document::read(operation, request).map_err(|misread| {
        let message = misread.to_string();
        Error::invalid(Violation::new("InvalidParameter", 400, "Request", message))
    })
}

fn answer<T: Serialize>(response: T) -> Result<Value> {
    serde_json::to_value(response).map_err(|error| Error::Internal(error.to_string()))
}

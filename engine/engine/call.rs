//! Any operation by its name, with the page's own JSON: for hosts that pass requests on.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Engine;
use crate::error::{Error, Result, Violation};
use crate::wire::flat;

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
    let message =
        format!("there is no operation `{}`; want {known}", crate::given::shortened(name));
    Error::invalid(Violation::new("InvalidAction.NotFound", 404, "Action", message))
}

/// Reads a request; nothing at all is one that gives nothing. One that comes from a query, with
/// numbered keys and the name of the operation in it, is understood.
fn read<T: DeserializeOwned>(operation: &str, request: &str) -> Result<T> {
    let request = if request.trim().is_empty() { "{}" } else { request };
    let document: Value = serde_json::from_str(request).map_err(refused)?;
    let Value::Object(mut fields) = document else {
        return Err(refused("want an object, `{…}`"));
    };
    let is_named = fields.get(ACTION).is_some_and(|action| action == operation);
    if is_named || fields.keys().any(|key| key.contains('.')) {
        if is_named {
            fields.remove(ACTION);
        }
        let fields = Value::Object(flat::fold(fields));
        return serde_path_to_error::deserialize(fields).map_err(|error| not_understood(&error));
    }
    // From the text again: what has been a value has lost the last digits of long numbers.
    let mut text = serde_json::Deserializer::from_str(request);
    serde_path_to_error::deserialize(&mut text).map_err(|error| not_understood(&error))
}

const ACTION: &str = "Action";

fn not_understood(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let said = error.inner().to_string();
    // The list of all that would be known is longer than the page, and the field says where it is.
    let said = said.split_once(", expected one of ").map_or(&*said, |(said, _)| said);
    let said = said.split_once(" at line ").map_or(said, |(said, _)| said);
    match error.path().to_string().as_str() {
        "." => refused(said),
        field if said.contains(field) => refused(said),
        field => refused(format_args!("`{field}`: {said}")),
    }
}

fn refused(why: impl std::fmt::Display) -> Error {
    let message = format!("it is not understood: {why}");
    Error::invalid(Violation::new("InvalidParameter", 400, "Request", message))
}

fn answer<T: Serialize>(response: T) -> Result<Value> {
    serde_json::to_value(response).map_err(|error| Error::Internal(error.to_string()))
}

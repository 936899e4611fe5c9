//! The plug-in point of the host's own rules: who may do what, where, and as whom.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::command::CommandType;
use crate::error::Error;
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::operation::Operation;
use crate::tag::Tag;

/// Decides what callers may do.
///
/// It is asked about each call before that has any effect, and again about each execution, with the
/// one instance, right before it starts: also of those that a schedule or a boot has led to. What is
/// refused there ends as `Aborted` with the code `Operation.Forbidden`, so there is a record.
///
/// # Nobody runs as root, and only operators stop
///
/// ```
/// use adjutant::{Action, Authorizer, Engine, Operation, RunCommand};
///
/// struct Rules;
///
/// impl Authorizer for Rules {
///     async fn authorize(&self, action: Action) -> Result<(), String> {
///         match action.operation {
///             Operation::StopInvocation if action.caller.as_deref() != Some("operator") => {
///                 Err("only operators stop".to_owned())
///             }
///             _ if action.username.as_deref() == Some("root") => Err("not as root".to_owned()),
///             _ => Ok(()),
///         }
///     }
/// }
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::builder().authorizer(Rules).open().await?.called_by("ann");
/// let error = engine.run_command(RunCommand::shell("id").on(["local"]).username("root")).await;
/// assert_eq!(error.unwrap_err().code(), "Operation.Forbidden");
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
pub trait Authorizer: Send + Sync + 'static {
    /// Allows an action, or says why it is refused.
    ///
    /// # Errors
    ///
    /// The reason, for the caller and the record.
    fn authorize(&self, action: Action) -> impl Future<Output = Result<(), String>> + Send;
}

/// What somebody is about to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Action {
    /// What it is.
    pub operation: Operation,
    /// Who does it, if the host said so by [`Engine::called_by`](crate::Engine::called_by).
    pub caller: Option<Arc<str>>,
    /// The command, if it names one; of [`Operation::RetryFailed`] that of the invocation, if it was kept.
    pub command_id: Option<CommandId>,
    /// The language of the script, where the request brings one.
    pub command_type: Option<CommandType>,
    /// The invocation, if it names one.
    pub invoke_id: Option<InvokeId>,
    /// The instances it names; of [`Operation::StartExecution`] the one it starts on, of
    /// [`Operation::RetryFailed`] those it would run on.
    pub instance_ids: Vec<InstanceId>,
    /// The tags that select instances, where none is named.
    pub resource_tags: Vec<Tag>,
    /// The group that the instances are to belong to.
    pub resource_group_id: Option<String>,
    /// The user to run as, where the request says so; of [`Operation::StartExecution`] and
    /// [`Operation::RetryFailed`] the user that it runs as, if that is not the host's own.
    pub username: Option<String>,
}

impl Action {
    pub(crate) fn new(operation: Operation, caller: Option<Arc<str>>) -> Self {
        Self {
            operation,
            caller,
            command_id: None,
            command_type: None,
            invoke_id: None,
            instance_ids: Vec::new(),
            resource_tags: Vec::new(),
            resource_group_id: None,
            username: None,
        }
    }
}

/// The code of what an authorizer refuses.
pub(crate) const FORBIDDEN: &str = "Operation.Forbidden";

/// The refusal of a call.
pub(crate) fn forbidden(operation: Operation, why: &str) -> Error {
    Error::Conflict { code: FORBIDDEN, message: format!("{operation} is not permitted: {why}") }
}

/// A boxed [`Authorizer::authorize`].
pub(crate) type Authorize<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;

/// [`Authorizer`] behind a pointer.
pub(crate) trait DynAuthorizer: Send + Sync + 'static {
    fn authorize(&self, action: Action) -> Authorize<'_>;
}

impl<A: Authorizer> DynAuthorizer for A {
    fn authorize(&self, action: Action) -> Authorize<'_> {
        Box::pin(Authorizer::authorize(self, action))
    }
}

//! The plug-in point of the host's own rules: the actions that a caller may take, on which instances, and as which
//! user.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::command::CommandType;
use crate::command::settings::Settings;
use crate::error::Error;
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::invocation::container::Container;
use crate::invocation::resource_limits::ResourceLimits;
use crate::operation::Operation;
use crate::tag::Tag;

/// Permits or refuses actions of callers.
///
/// The engine asks about each call before the call has any effect, and again about each execution, with its one
/// instance, right before the start. This includes executions that a schedule or a boot has led to. A refused
/// execution ends as `Aborted` with the code `Operation.Forbidden`, so there is a record.
///
/// Let rules about users compare [`Action::uid`]. A name says little, because a request without a name runs as the
/// host's own user, and several names can have one number. No rule sees the rights that a program in a script has of
/// its own, such as sudo.
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
///             _ if action.uid == Some(0) => Err("not as root".to_owned()),
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

/// An action that a caller is about to take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Action {
    /// The operation.
    pub operation: Operation,
    /// The caller, if the host named it by [`Engine::called_by`](crate::Engine::called_by).
    pub caller: Option<Arc<str>>,
    /// The command, if the request names one. For [`Operation::RetryFailed`], the invocation's command if it was kept.
    pub command_id: Option<CommandId>,
    /// The language of the script, where the request brings one.
    pub command_type: Option<CommandType>,
    /// The invocation, if it names one.
    pub invoke_id: Option<InvokeId>,
    /// The instances that the request names. For [`Operation::StartExecution`], the instance of the execution. For
    /// [`Operation::RetryFailed`], the instances that it would run on.
    pub instance_ids: Vec<InstanceId>,
    /// The tags that select instances, where none is named.
    pub resource_tags: Vec<Tag>,
    /// The group that the instances are to belong to.
    pub resource_group_id: Option<String>,
    /// The user that the script runs as: the user of the request, otherwise of the command, otherwise the host's own.
    /// `None` if the operation runs nothing. `None` too for [`Operation::RunNow`] and [`Operation::ResumeInvocation`],
    /// because the engine asks about each of their executions by itself.
    pub username: Option<String>,
    /// The number of that user on this machine; `None` if this machine knows no such user.
    pub uid: Option<u32>,
    /// The launcher that gets the script in the place of its shell, if one is given.
    pub launcher: Option<String>,
    /// The directory to run in, if one is given.
    pub working_dir: Option<String>,
    /// The place for the whole output, if one is given.
    pub oss_output_delivery: Option<String>,
    /// The id of the container to run in, if one is given.
    pub container_id: Option<String>,
    /// The name of that container, if one is given.
    pub container_name: Option<String>,
    /// The limits on the resources of a run's processes.
    pub resource_limits: ResourceLimits,
    /// The schedule to run on, if one is given.
    pub frequency: Option<String>,
    /// The executor that serves the instance, for [`Operation::RegisterInstance`] and [`Operation::StartExecution`].
    pub executor: Option<String>,
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
            uid: None,
            launcher: None,
            working_dir: None,
            oss_output_delivery: None,
            container_id: None,
            container_name: None,
            resource_limits: ResourceLimits::default(),
            frequency: None,
            executor: None,
        }
    }

    /// Adds how a script is run, apart from its user.
    pub(crate) fn with_settings(&mut self, settings: &Settings) {
        self.launcher.clone_from(&settings.launcher);
        self.working_dir.clone_from(&settings.working_dir);
        self.oss_output_delivery.clone_from(&settings.output_to);
    }

    /// Adds the container that a script runs in, and the limits of its processes.
    pub(crate) fn within(&mut self, container: &Container, limits: ResourceLimits) {
        self.container_id.clone_from(&container.id);
        self.container_name.clone_from(&container.name);
        self.resource_limits = limits;
    }

    /// Adds the user that a script runs as.
    pub(crate) fn as_user(&mut self, user: EffectiveUser) {
        self.username = Some(user.name);
        self.uid = user.uid;
    }
}

/// The user that a script runs as.
#[derive(Debug)]
pub(crate) struct EffectiveUser {
    pub name: String,
    /// None if this machine knows no such user.
    pub uid: Option<u32>,
}

/// The code of an action that an authorizer refuses.
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

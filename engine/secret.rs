//! The plug-in point of the host's store of secrets.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::id::{CommandId, InstanceId, InvokeId};
use crate::operation::Operation;

/// Turns the names of secrets into their values.
///
/// With one plugged in, the value given for a secret parameter (see
/// [`RunCommand::secret_parameters`](crate::RunCommand::secret_parameters)) is a name in the host's
/// store, and so is `WindowsPasswordName`: the database holds names only. They are resolved once when
/// a request comes that runs something, so that a wrong one is refused, and then right before each
/// execution. An invocation that was made without a resolver has values, and is not asked about; one
/// that was made with one does not run without.
///
/// # A store in memory
///
/// ```
/// use adjutant::{Engine, RunCommand, Secret, SecretError, SecretRequest, SecretResolver};
///
/// struct Vault;
///
/// impl SecretResolver for Vault {
///     async fn resolve(&self, request: SecretRequest) -> Result<Secret, SecretError> {
///         match &*request.name {
///             "db/password" => Ok(Secret::new("hunter2")),
///             _ => Err(SecretError::NotFound("there is no such entry".to_owned())),
///         }
///     }
/// }
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::builder().secret_resolver(Vault).open().await?;
/// let run = RunCommand::shell("echo {{password}}").enable_parameter().on(["local"]);
/// let run = run.parameters([("password", "db/password")]).secret_parameters(["password"]);
/// let run = engine.run_command(run).await?;
/// assert_eq!(engine.wait(&run.invoke_id).await?.results[0].output.as_bytes(), b"hunter2\n");
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
pub trait SecretResolver: Send + Sync + 'static {
    /// The value of a secret.
    ///
    /// # Errors
    ///
    /// The reason why there is no value. The reason may hold the names of secrets, but never their values.
    fn resolve(
        &self,
        request: SecretRequest,
    ) -> impl Future<Output = Result<Secret, SecretError>> + Send;
}

/// A request for a secret, with its caller and its purpose. Because names can be guessed, the resolver decides which
/// caller may have a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SecretRequest {
    /// The name in the host's store.
    pub name: String,
    /// The parameter that it is for; none if it is the password of a user.
    pub parameter: Option<String>,
    /// [`Operation::StartExecution`] if the secret is about to be used; otherwise the operation that only checks it.
    pub operation: Operation,
    /// The caller that asked for the run, if the host named it.
    pub caller: Option<Arc<str>>,
    /// The command, once there is one.
    pub command_id: Option<CommandId>,
    /// The invocation, once there is one.
    pub invoke_id: Option<InvokeId>,
    /// The instance that it is used on, once that is known.
    pub instance_id: Option<InstanceId>,
}

impl SecretRequest {
    pub(crate) fn new(name: &str, parameter: Option<&str>, operation: Operation) -> Self {
        Self {
            name: name.to_owned(),
            parameter: parameter.map(str::to_owned),
            operation,
            caller: None,
            command_id: None,
            invoke_id: None,
            instance_id: None,
        }
    }

    /// What it is for, in words. The name is left out: where a mistake was made it is the secret.
    pub(crate) fn what(&self) -> String {
        match &self.parameter {
            Some(parameter) => format!("the secret of parameter `{parameter}`"),
            None => "the password of the user".to_owned(),
        }
    }
}

/// A secret. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a name could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// There is no secret of that name (`ParameterStore.InvalidParameters`).
    #[error("{0}")]
    NotFound(String),
    /// The engine may not have it (`ParameterStore.NoPermission`).
    #[error("{0}")]
    Denied(String),
    /// The store does not answer (`ParameterStore.NotSupported`).
    #[error("{0}")]
    Unavailable(String),
}

impl SecretError {
    /// The page's code.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "ParameterStore.InvalidParameters",
            Self::Denied(_) => "ParameterStore.NoPermission",
            Self::Unavailable(_) => NO_STORE,
        }
    }
}

/// The code where there is no store, or none that answers.
pub(crate) const NO_STORE: &str = "ParameterStore.NotSupported";

/// A boxed [`SecretResolver::resolve`].
pub(crate) type Resolve<'a> =
    Pin<Box<dyn Future<Output = Result<Secret, SecretError>> + Send + 'a>>;

/// [`SecretResolver`] behind a pointer.
pub(crate) trait DynSecretResolver: Send + Sync + 'static {
    fn resolve(&self, request: SecretRequest) -> Resolve<'_>;
}

impl<R: SecretResolver> DynSecretResolver for R {
    fn resolve(&self, request: SecretRequest) -> Resolve<'_> {
        Box::pin(SecretResolver::resolve(self, request))
    }
}

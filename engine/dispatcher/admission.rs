//! What comes between the claim of an execution and its executor, where the host has a say: whether
//! it may start, and what its secrets are.

use std::sync::Arc;

use crate::authorizer::{Action, DynAuthorizer, FORBIDDEN};
use crate::command::parameters::Arguments;
use crate::command::template::{Facts, Template};
use crate::config::Config;
use crate::execution::Outcome;
use crate::executor::{DynExecutor, ExecutionContext, Task};
use crate::operation::Operation;
use crate::secret::{DynSecretResolver, Secret, SecretError};

/// The host's part in the start of one execution.
pub(super) struct Admission {
    pub authorizer: Option<Arc<dyn DynAuthorizer>>,
    pub secrets: Option<Arc<dyn DynSecretResolver>>,
    pub config: Arc<Config>,
    pub instance_name: String,
}

impl Admission {
    /// Carries out a task, if the host lets it.
    pub(super) async fn execute(
        self,
        executor: Arc<dyn DynExecutor>,
        mut task: Task,
        cx: ExecutionContext,
    ) -> Outcome {
        let admitted = tokio::select! {
            biased;
            admitted = self.admit(&mut task) => admitted,
            // The host's hooks know nothing of stops.
            _ = cx.stop_asked() => Err(Outcome::Stopped { signal: None, exit_code: None, info: String::new() }),
        };
        match admitted {
            Ok(()) => executor.execute(task, cx).await,
            Err(outcome) => outcome,
        }
    }

    async fn admit(&self, task: &mut Task) -> Result<(), Outcome> {
        if let Some(authorizer) = &self.authorizer {
            let denied = |why: String| Outcome::Undeliverable {
                code: FORBIDDEN,
                info: format!("{} is not permitted: {why}", Operation::StartExecution),
            };
            authorizer.authorize(action(task)).await.map_err(denied)?;
        }
        let Some(resolver) = &self.secrets else { return Ok(()) };
        if let Some(name) = &task.job.windows_password_name {
            task.password = Some(resolve(&**resolver, name).await?);
        }
        let Some(arguments) = &task.job.arguments else { return Ok(()) };
        let mut values = Vec::new();
        for (name, secret) in arguments.secret_pairs() {
            let value = resolve(&**resolver, secret).await?;
            values.push((name.to_owned(), value.reveal().to_owned()));
        }
        if values.is_empty() {
            return Ok(());
        }
        self.fill_in(task, arguments.clone().with(values))
    }

    /// The script again, with what its secrets stand for.
    fn fill_in(&self, task: &mut Task, arguments: Arguments) -> Result<(), Outcome> {
        let facts = Facts {
            names: &self.config.names,
            instance_id: &task.instance_id,
            instance_name: &self.instance_name,
            invoke_id: task.job.invoke_id,
            command_id: task.job.command_id,
        };
        let max = self.config.limits.unkept_content_bytes_max;
        let script = Template::parse(&task.job.content);
        arguments.check_size(&script, &facts, max).map_err(|violation| Outcome::Unsuitable {
            code: violation.code,
            info: violation.message,
        })?;
        task.content = arguments.render(&script, &facts).into();
        task.resolved = Some(arguments);
        Ok(())
    }
}

async fn resolve(resolver: &dyn DynSecretResolver, name: &str) -> Result<Secret, Outcome> {
    let unresolved = |error: SecretError| Outcome::Undeliverable {
        code: error.code(),
        info: format!("the secret `{name}` cannot be resolved: {error}"),
    };
    resolver.resolve(name).await.map_err(unresolved)
}

fn action(task: &Task) -> Action {
    let mut action = Action::new(Operation::StartExecution, task.job.caller.clone());
    action.command_id = Some(task.job.command_id);
    action.command_type = Some(task.job.command_type);
    action.invoke_id = Some(task.job.invoke_id);
    action.instance_ids.push(task.instance_id.clone());
    action.username.clone_from(&task.job.settings.username);
    action
}

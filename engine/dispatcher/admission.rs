//! What comes between the claim of an execution and its executor, where the host has a say: whether
//! it may start, and what its secrets are.

use std::future;
use std::sync::Arc;
use std::task::Poll;

use crate::authorizer::{Action, DynAuthorizer, EffectiveUser, FORBIDDEN};
use crate::clock::Clock;
use crate::command::content::ContentMax;
use crate::command::parameters::Arguments;
use crate::command::template::{Facts, Template};
use crate::config::Config;
use crate::execution::Outcome;
use crate::executor::{DynExecutor, ExecutionContext, Task, effective_user};
use crate::invocation::Job;
use crate::operation::Operation;
use crate::secret::{DynSecretResolver, NO_STORE, Secret, SecretRequest};

use super::run::{self, PendingStops, not_started};
use super::trace::Start;

/// The host's part in the start of one execution.
pub(super) struct Admission {
    pub authorizer: Option<Arc<dyn DynAuthorizer>>,
    pub secrets: Option<Arc<dyn DynSecretResolver>>,
    pub config: Arc<Config>,
    /// The name of the executor that is to have it.
    pub executor: String,
    pub orders: Arc<dyn PendingStops>,
    pub clock: Arc<dyn Clock>,
    /// The start of the execution, told once its executor has been polled.
    pub start: Start,
}

impl Admission {
    /// Carries out a task, if the host lets it.
    pub(super) async fn execute(
        self: Box<Self>,
        executor: Arc<dyn DynExecutor>,
        mut task: Task,
        cx: ExecutionContext,
    ) -> Outcome {
        let admitted = tokio::select! {
            biased;
            admitted = self.admit(&mut task) => admitted,
            // The host's hooks know nothing of stops.
            _ = cx.stop_asked() => {
                cx.report(|report| report.is_unstarted = true);
                Err(not_started())
            }
        };
        if let Err(outcome) = admitted {
            return outcome;
        }
        let (id, contact) = (task.execution_id, Arc::clone(&cx.contact));
        let Self { orders, clock, start, .. } = *self;
        let (mut work, mut start) = (executor.execute(task, cx), Some(start));
        // The hooks may have taken long, and a stop may have come meanwhile.
        let first = future::poll_fn(|cx| {
            let start = (&mut start, clock.monotonic());
            run::poll_first(&mut work, (id, &contact), &*orders, start, cx)
        });
        match first.await {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => work.await,
        }
    }

    async fn admit(&self, task: &mut Task) -> Result<(), Outcome> {
        if let Some(authorizer) = &self.authorizer {
            let denied = |why: String| Outcome::Undeliverable {
                code: FORBIDDEN,
                info: format!("{} is not permitted: {why}", Operation::StartExecution),
            };
            let action = self.action(task).await;
            authorizer.authorize(action).await.map_err(denied)?;
        }
        if task.job.has_secret_names() {
            self.resolve_all(task).await?;
        }
        Ok(())
    }

    async fn action(&self, task: &Task) -> Action {
        let Job { caller, settings, container, .. } = &*task.job;
        let mut action = Action::new(Operation::StartExecution, caller.clone());
        action.command_id = Some(task.job.command_id);
        action.command_type = Some(task.job.command_type);
        action.invoke_id = Some(task.job.invoke_id);
        action.instance_ids.push(task.instance_id.clone());
        action.with_settings(settings);
        action.within(container, task.job.resource_limits);
        action.executor = Some(self.executor.clone());
        let (name, uid) = effective_user(settings.username.as_deref()).await;
        action.as_user(EffectiveUser { name, uid });
        action
    }

    async fn resolve_all(&self, task: &mut Task) -> Result<(), Outcome> {
        let Some(resolver) = &self.secrets else {
            let info = "its secrets are names, and no SecretResolver is plugged in".to_owned();
            return Err(Outcome::Undeliverable { code: NO_STORE, info });
        };
        if let Some(name) = &task.job.windows_password_name {
            let password = resolve(&**resolver, task, name, None).await?;
            task.resolved.get_or_insert_default().password = Some(password);
        }
        let Some(arguments) = &task.job.arguments else { return Ok(()) };
        let mut values = Vec::new();
        for (parameter, secret) in arguments.secret_pairs() {
            let value = resolve(&**resolver, task, secret, Some(parameter)).await?;
            values.push((parameter.to_owned(), value.reveal().to_owned()));
        }
        let arguments = arguments.clone().with(values);
        self.fill_in(task, arguments)
    }

    /// The script again, with what its secrets stand for.
    fn fill_in(&self, task: &mut Task, arguments: Arguments) -> Result<(), Outcome> {
        let facts = Facts {
            names: &self.config.names,
            instance_id: &task.instance_id,
            instance_name: task.instance_name(),
            invoke_id: task.job.invoke_id,
            command_id: task.job.command_id,
        };
        let max = ContentMax::of_bytes(task.job.content_bytes_max);
        let script = Template::parse(&task.job.content);
        arguments.check_size(&script, &facts, max).map_err(|violation| Outcome::Unsuitable {
            code: violation.code,
            info: violation.message,
        })?;
        task.content = arguments.render(&script, &facts).into();
        task.resolved.get_or_insert_default().arguments = Some(arguments);
        Ok(())
    }
}

async fn resolve(
    resolver: &dyn DynSecretResolver,
    task: &Task,
    name: &str,
    parameter: Option<&str>,
) -> Result<Secret, Outcome> {
    let mut request = SecretRequest::new(name, parameter, Operation::StartExecution);
    request.caller.clone_from(&task.job.caller);
    request.command_id = Some(task.job.command_id);
    request.invoke_id = Some(task.job.invoke_id);
    request.instance_id = Some(task.instance_id.clone());
    let what = request.what();
    resolver.resolve(request).await.map_err(|error| Outcome::Undeliverable {
        code: error.code(),
        info: format!("{what} cannot be resolved: {error}"),
    })
}

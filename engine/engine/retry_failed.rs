//! Another invocation on the instances where one that has ended did not succeed.

use std::sync::Arc;

use super::Engine;
use super::planner::Draft;
use super::submit::{HostPart, Origin, Submission, split};
use super::watch::Watch;
use crate::command::content::ContentMax;
use crate::error::{Error, Result, Violation};
use crate::id::InvokeId;
use crate::invocation::InvokeCommandResponse;
use crate::invocation::retry_failed::RetryFailed;
use crate::operation::Operation;
use crate::store::Tx;
use crate::store::snapshots::{self, Snapshot};
use crate::wire;

impl Engine {
    /// Runs an invocation that has ended once more, at once, on the instances where it did not
    /// succeed, in the order of its request: all whose latest execution is not `Success`, and those
    /// where it never ran. It is an invocation of its own, which names the first as its
    /// [`retry_of`](crate::Invocation::retry_of); what it runs and how is as in the first, whatever
    /// has become of its command, and its instances are checked as those of any request. When this
    /// returns, it is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] with everything that is wrong, as with an id that no invocation has;
    /// [`Error::Conflict`] with the code `InvalidStatus.InvocationNotEnded` if it has not ended, and
    /// `InvalidStatus.NothingFailed` if it succeeded on all of its instances. Then nothing is stored.
    pub async fn retry_failed(&self, request: RetryFailed) -> Result<InvokeCommandResponse> {
        self.submit_retry(self.new_invoke_id(), request).await
    }

    /// Does the same as [`retry_failed`](Engine::retry_failed) and watches from before the start, so
    /// that no output is missed.
    ///
    /// # Errors
    ///
    /// As [`retry_failed`](Engine::retry_failed).
    pub async fn retry_failed_and_watch(
        &self,
        request: RetryFailed,
    ) -> Result<(InvokeCommandResponse, Watch)> {
        let (invoke_id, subscription) = self.subscribe_to_new().await?;
        let response = self.submit_retry(invoke_id, request).await?;
        let watch = self.watch_submitted(subscription, response.invoke_id).await?;
        Ok((response, watch))
    }

    async fn submit_retry(
        &self,
        invoke_id: InvokeId,
        request: RetryFailed,
    ) -> Result<InvokeCommandResponse> {
        let operation = Operation::RetryFailed;
        let refused = |found| Error::all(operation, found);
        let (first, token) = request.check(self.limits()).map_err(refused)?;
        // What has ended stays as it is, so it need not be read in the transaction that goes by it.
        let snapshot = self.read(move |tx| snapshots::of_failed(tx, first)).await;
        let mut action = self.action(operation);
        action.invoke_id = Some(first);
        if let Ok(Snapshot { kept_id, terms, .. }) = &snapshot {
            action.command_id = *kept_id;
            action.instance_ids.clone_from(&terms.targets.instance_ids);
            action.resource_group_id.clone_from(&terms.targets.resource_group_id);
            action.with_settings(&terms.settings);
            action.within(&terms.container, terms.resource_limits);
            self.tell_user(&mut action, terms.settings.username.as_deref()).await;
        }
        self.authorize(action).await?;
        // Only now: who may not ask is not told how it stands.
        let Snapshot { row, kept_id, definition, mut terms, secrets_are_names, content_bytes_max } =
            snapshot?;
        let content_max = ContentMax::of_bytes(content_bytes_max);
        let mut found = Vec::new();
        terms.targets.check_count(self.limits().targets_max(), &mut found);
        terms.token = self.own(token);
        if secrets_are_names {
            self.vet_secrets(operation, kept_id, &terms, &mut found).await?;
        }
        let submission = Submission {
            operation,
            invoke_id,
            planner: self.planner(content_max),
            token: terms.token.clone(),
            dry_run: false,
            is_timed: terms.rate_control.is_timed(),
            found,
        };
        let origin = Origin {
            secrets_are_names,
            retry_of: Some(row),
            ..self.origin(invoke_id, kept_id, content_max)
        };
        // The timeout is the earlier invocation's, also if that was a default, and also if there was none.
        let (targets, new) = split(origin, terms, definition.timeout_s);
        let (command_type, definition) = (Some(definition.command_type), Some(definition));
        let keeps = None;
        let draft = Arc::new(Draft { targets, definition, command_type, keeps, new });
        let draft = move |_: Tx<'_>, _: &mut Vec<Violation>| Ok(Arc::clone(&draft));
        let response = InvokeCommandResponse { request_id: wire::request_id(), invoke_id };
        let (first, _) = self.submit(submission, draft, response, None::<HostPart<_, ()>>).await?;
        Ok(InvokeCommandResponse { request_id: wire::request_id(), ..first })
    }
}

//! The request that runs an ended invocation once more, where it did not succeed.

use super::client_token::ClientToken;
use super::request::unknown_invoke_id;
use crate::error::Violation;
use crate::given::Given;
use crate::id::InvokeId;
use crate::limits::Limits;
use crate::operation::Operation;
use crate::wire::page_request;

page_request! {
/// Runs an invocation that has ended once more, at once, on the instances where it did not succeed.
///
/// # Once, and a second time
///
/// ```
/// use adjutant::{Engine, RetryFailed, RunCommand};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::open_in_memory().await?;
/// let first = engine.run_command(RunCommand::shell("exit 1").on(["local"])).await?;
/// engine.wait(&first.invoke_id).await?;
/// let second = engine.retry_failed(RetryFailed::new(first.invoke_id)).await?;
/// assert_ne!(second.invoke_id, first.invoke_id);
/// # engine.wait(&second.invoke_id).await?;
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
#[non_exhaustive]
pub struct RetryFailed {
    /// The invocation.
    pub invoke_id: Given<InvokeId>,
    /// Makes the request safe to repeat: within 24 hours the same request with the same token gets
    /// the first answer again. At most 64 ASCII characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}
}

impl RetryFailed {
    /// Runs this invocation once more.
    pub fn new(invoke_id: InvokeId) -> Self {
        Self { invoke_id: invoke_id.into(), ..Self::default() }
    }

    /// Makes the request safe to repeat.
    #[must_use]
    pub fn client_token(mut self, token: impl Into<String>) -> Self {
        self.client_token = Some(token.into());
        self
    }

    /// Checks the request; the invocation that it names, and its token.
    pub(crate) fn check(
        &self,
        limits: &Limits,
    ) -> Result<(InvokeId, Option<ClientToken>), Vec<Violation>> {
        let mut found = Vec::new();
        let invoke_id = self.invoke_id.known(&mut found, unknown_invoke_id);
        let token = self.client_token.as_deref();
        let token = ClientToken::of(token, Operation::RetryFailed, self, limits, &mut found);
        let invoke_id = invoke_id.filter(|_| found.is_empty()).ok_or(found)?;
        Ok((invoke_id, token))
    }
}

//! Listings of what was asked for and what became of it.

use super::Engine;
use super::page::{Page, encoding, text};
use crate::error::{Result, none_of};
use crate::execution::{DescribeInvocationResults, DescribeInvocationResultsResponse, ResultPage};
use crate::invocation::fire::{DescribeFires, DescribeFiresResponse};
use crate::invocation::{DescribeInvocations, DescribeInvocationsResponse};
use crate::store::{executions, fires, invocations};
use crate::tag;
use crate::wire;

impl Engine {
    /// Lists invocations, newest first, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if the page is not one.
    pub async fn describe_invocations(
        &self,
        request: DescribeInvocations,
    ) -> Result<DescribeInvocationsResponse> {
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        none_of(tag::violations(&request.tags, self.limits()))?;
        let encoding = encoding(request.content_encoding.as_deref());
        let (invocations, next) = self
            .read(move |tx| {
                if let Some(invoke_id) = request.invoke_id {
                    invocations::find(tx, invoke_id)?;
                }
                invocations::list(tx, &request, page.after, page.size, encoding)
            })
            .await?;
        Ok(DescribeInvocationsResponse {
            request_id: wire::request_id(),
            invocations,
            next_token: text(next),
        })
    }

    /// Lists executions, newest first, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if the invocation is unknown or the page is not one.
    pub async fn describe_invocation_results(
        &self,
        request: DescribeInvocationResults,
    ) -> Result<DescribeInvocationResultsResponse> {
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        none_of(request.violations())?;
        let encoding = encoding(request.content_encoding.as_deref());
        let (results, next) = self
            .read(move |tx| {
                if let Some(invoke_id) = request.invoke_id {
                    invocations::find(tx, invoke_id)?;
                }
                executions::list(tx, &request, page.after, page.size, encoding)
            })
            .await?;
        let invocation = ResultPage { results, next_token: text(next) };
        Ok(DescribeInvocationResultsResponse { request_id: wire::request_id(), invocation })
    }

    /// Lists what became of the nominal times of an invocation, newest first, a page at a time: one
    /// entry for each that fired, one for each stretch that was missed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if there is no such invocation or the page is not one.
    pub async fn describe_fires(&self, request: DescribeFires) -> Result<DescribeFiresResponse> {
        let page = Page::new(request.max_results, request.next_token.as_deref(), self.limits())?;
        let invoke_id = request.invoke_id;
        let (fires, next) = self
            .read(move |tx| {
                let invocation = invocations::find(tx, invoke_id)?;
                fires::list(tx, invocation, page.after, page.size)
            })
            .await?;
        Ok(DescribeFiresResponse { request_id: wire::request_id(), fires, next_token: text(next) })
    }
}

//! Listings of what was asked for and what became of it.

use super::Engine;
use super::page::{Page, encoding, page_of, text};
use crate::error::{Result, none_of};
use crate::execution::{DescribeInvocationResults, DescribeInvocationResultsResponse, ResultPage};
use crate::id::InvokeId;
use crate::invocation::fire::{DescribeFires, DescribeFiresResponse};
use crate::invocation::{DescribeInvocations, DescribeInvocationsResponse};
use crate::operation::Operation;
use crate::overview::Overview;
use crate::store::{fires, invocations, overview, records};
use crate::wire;

impl Engine {
    /// What is going on, at a glance: what runs, what ended last, what is due next, at most `max` of each.
    /// It takes about as long however much is stored, for it looks at no more than the records near where
    /// the queue has come to. This is for the host itself: no [`Authorizer`](crate::Authorizer) is asked.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage) if the records cannot be read.
    pub async fn overview(&self, max: usize) -> Result<Overview> {
        self.read(move |tx| overview::overview(tx, max)).await
    }

    /// Returns the invocations that a text names, newest first, `max` at most: the invocations whose id begins with the
    /// text; without any, those of a command of this name that have not ended; without any, the newest of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Storage`](crate::Error::Storage) if the records cannot be read.
    pub async fn find_invocations(&self, text: &str, max: usize) -> Result<Vec<InvokeId>> {
        self.authorize(self.action(Operation::DescribeInvocations)).await?;
        let text = text.to_owned();
        self.read(move |tx| invocations::called(tx, &text, max)).await
    }

    /// Lists invocations, newest first, a page at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if the page is not one.
    pub async fn describe_invocations(
        &self,
        request: DescribeInvocations,
    ) -> Result<DescribeInvocationsResponse> {
        let mut action = self.action(Operation::DescribeInvocations);
        action.invoke_id = request.invoke_id;
        action.command_id = request.command_id;
        action.instance_ids.extend(request.instance_id.clone());
        self.authorize(action).await?;
        none_of(Operation::DescribeInvocations, request.check(self.limits()))?;
        let page = page_of!(request, self.limits())?;
        let encoding = encoding(request.content_encoding.as_deref());
        let listing = self
            .read(move |tx| {
                if let Some(invoke_id) = request.invoke_id {
                    invocations::find(tx, invoke_id)?;
                }
                invocations::list(tx, &request, page.slice, encoding)
            })
            .await?;
        Ok(DescribeInvocationsResponse {
            request_id: wire::request_id(),
            invocations: listing.entries,
            unreadable: listing.unreadable,
            next_token: text(listing.next),
            total_count: listing.total,
            page_number: page.number,
            page_size: page.slice.size,
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
        let mut action = self.action(Operation::DescribeInvocationResults);
        action.invoke_id = request.invoke_id;
        action.command_id = request.command_id;
        action.instance_ids.extend(request.instance_id.clone());
        self.authorize(action).await?;
        none_of(Operation::DescribeInvocationResults, request.check(self.limits()))?;
        let page = page_of!(request, self.limits())?;
        let encoding = encoding(request.content_encoding.as_deref());
        let listing = self
            .read(move |tx| {
                if let Some(invoke_id) = request.invoke_id {
                    invocations::find(tx, invoke_id)?;
                }
                records::list(tx, &request, page.slice, encoding)
            })
            .await?;
        let invocation = ResultPage {
            results: listing.entries,
            unreadable: listing.unreadable,
            next_token: text(listing.next),
            total_count: listing.total,
            page_number: page.number,
            page_size: page.slice.size,
        };
        Ok(DescribeInvocationResultsResponse { request_id: wire::request_id(), invocation })
    }

    /// Lists what became of the nominal times of an invocation, newest first, a page at a time: one
    /// entry for each that fired, one for each stretch that was missed.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid) if there is no such invocation or the page is not one.
    pub async fn describe_fires(&self, request: DescribeFires) -> Result<DescribeFiresResponse> {
        let page =
            Page::by_token(request.max_results, request.next_token.as_deref(), self.limits())?;
        let invoke_id = request.invoke_id;
        self.authorize_of(Operation::DescribeFires, invoke_id).await?;
        let listing = self
            .read(move |tx| {
                let invocation = invocations::find(tx, invoke_id)?;
                fires::list(tx, invocation, page.slice)
            })
            .await?;
        Ok(DescribeFiresResponse {
            request_id: wire::request_id(),
            fires: listing.entries,
            unreadable: listing.unreadable,
            next_token: text(listing.next),
        })
    }
}

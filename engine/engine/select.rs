//! Listings from an offset on, narrowed by several values at once, for dialects whose pages go so.

use super::Engine;
use super::page::Page;
use crate::command::Command;
use crate::error::Result;
use crate::id::{CommandId, InstanceId};
use crate::instance::InstanceCloudAssistantStatus;
use crate::operation::Operation;
use crate::store::selections::{
    self, AgentNarrow, CommandNarrow, ExecutionEntry, ExecutionNarrow, InvocationEntry,
    InvocationNarrow,
};
use crate::store::{Listing, commands};

/// A stretch of a listing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    /// How many entries it leaves out first.
    pub offset: usize,
    /// How many it has at most.
    pub size: usize,
}

impl From<Stretch> for Page {
    fn from(stretch: Stretch) -> Self {
        Self::at(stretch.offset, stretch.size)
    }
}

impl Engine {
    /// Kept commands, newest first.
    pub(crate) async fn select_commands(
        &self,
        narrows: Vec<CommandNarrow>,
        stretch: Stretch,
    ) -> Result<Listing<Command>> {
        self.authorize(self.action(Operation::DescribeCommands)).await?;
        let slice = Page::from(stretch).slice;
        self.read(move |tx| selections::of_commands(tx, &narrows, slice)).await
    }

    /// Invocations, newest first.
    pub(crate) async fn select_invocations(
        &self,
        narrows: Vec<InvocationNarrow>,
        stretch: Stretch,
    ) -> Result<Listing<InvocationEntry>> {
        self.authorize(self.action(Operation::DescribeInvocations)).await?;
        let slice = Page::from(stretch).slice;
        self.read(move |tx| selections::of_invocations(tx, &narrows, slice)).await
    }

    /// Executions, newest first, with their outputs if they are wanted.
    pub(crate) async fn select_executions(
        &self,
        narrows: Vec<ExecutionNarrow>,
        stretch: Stretch,
        with_output: bool,
    ) -> Result<Listing<ExecutionEntry>> {
        self.authorize(self.action(Operation::DescribeInvocationResults)).await?;
        let slice = Page::from(stretch).slice;
        self.read(move |tx| selections::of_executions(tx, &narrows, slice, with_output)).await
    }

    /// Where the whole outputs of a kept command go, for an operation that has been asked for.
    pub(crate) async fn output_place_of(&self, command_id: CommandId) -> Result<Option<String>> {
        let definition = self.read(move |tx| commands::find(tx, command_id)).await?;
        Ok(definition.and_then(|definition| definition.settings.output_to))
    }

    /// What is known of agents, in the order of their registration: of these instances, all of
    /// which have to be there, or of all.
    pub(crate) async fn select_agents(
        &self,
        instance_ids: Vec<InstanceId>,
        narrows: Vec<AgentNarrow>,
        stretch: Stretch,
    ) -> Result<Listing<InstanceCloudAssistantStatus>> {
        let mut action = self.action(Operation::DescribeCloudAssistantStatus);
        action.instance_ids.clone_from(&instance_ids);
        self.authorize(action).await?;
        self.agents(instance_ids, narrows, stretch.into()).await
    }
}

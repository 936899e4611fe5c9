//! Listings from an offset on, narrowed by several values at once, for dialects whose pages go so.

use std::collections::BTreeSet;

use chrono::DateTime;

use super::Engine;
use super::page::Page;
use crate::authorizer::Action;
use crate::command::Command;
use crate::command::settings::Settings;
use crate::error::Result;
use crate::id::{CommandId, InstanceId};
use crate::instance::LOCAL;
use crate::operation::Operation;
use crate::store::selections::{
    self, AgentEntry, AgentNarrow, CommandNarrow, ExecutionEntry, ExecutionNarrow, InvocationEntry,
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

/// An instance whose agent is asked about.
#[derive(Debug)]
pub(crate) struct Agent {
    pub instance: crate::instance::Instance,
    pub last_heartbeat_time: Option<DateTime<chrono::Utc>>,
}

impl Engine {
    /// Kept commands, newest first.
    pub(crate) async fn select_commands(
        &self,
        narrows: Vec<CommandNarrow>,
        stretch: Stretch,
    ) -> Result<Listing<Command>> {
        let mut asked = Asked::new(self, Operation::DescribeCommands);
        for narrow in &narrows {
            if let CommandNarrow::Id(ids) = narrow {
                asked.each(ids, |action, id| action.command_id = Some(*id));
            }
        }
        asked.authorize().await?;
        let slice = Page::from(stretch).slice;
        let listing = self.read(move |tx| selections::of_commands(tx, &narrows, slice)).await?;
        Ok(self.with_default_timeouts(listing))
    }

    /// Invocations, newest first.
    pub(crate) async fn select_invocations(
        &self,
        narrows: Vec<InvocationNarrow>,
        stretch: Stretch,
    ) -> Result<Listing<InvocationEntry>> {
        let mut asked = Asked::new(self, Operation::DescribeInvocations);
        for narrow in &narrows {
            match narrow {
                InvocationNarrow::Id(ids) => {
                    asked.each(ids, |action, id| action.invoke_id = Some(*id));
                }
                InvocationNarrow::Command(ids) => {
                    asked.each(ids, |action, id| action.command_id = Some(*id));
                }
                InvocationNarrow::InstanceKind(_) => {}
            }
        }
        asked.authorize().await?;
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
        const OPERATION: Operation = Operation::DescribeInvocationResults;
        let mut asked = Asked::new(self, OPERATION);
        let mut names_executions = false;
        for narrow in &narrows {
            match narrow {
                ExecutionNarrow::Id(_) => names_executions = true,
                ExecutionNarrow::Invocation(ids) => {
                    asked.each(ids, |action, id| action.invoke_id = Some(*id));
                }
                ExecutionNarrow::Instance(ids) => {
                    asked.each(ids, |action, id| action.instance_ids.push(id.clone()));
                }
                ExecutionNarrow::Command(ids) => {
                    asked.each(ids, |action, id| action.command_id = Some(*id));
                }
            }
        }
        asked.authorize().await?;
        let slice = Page::from(stretch).slice;
        let read = move |tx: crate::store::Tx<'_>| {
            selections::of_executions(tx, &narrows, slice, with_output)
        };
        let listing = self.read(read).await?;
        if names_executions {
            // Whose they are is known only now.
            let of: BTreeSet<_> =
                listing.entries.iter().map(|entry| entry.result.invoke_id).collect();
            for invoke_id in of {
                self.authorize_of(OPERATION, invoke_id).await?;
            }
        }
        Ok(listing)
    }

    /// Where the whole outputs of a kept command go, for who is going to invoke it on these.
    pub(crate) async fn output_place_of(
        &self,
        command_id: CommandId,
        instance_ids: &[InstanceId],
        username: Option<&str>,
    ) -> Result<Option<String>> {
        let mut action = self.action(Operation::InvokeCommand);
        action.command_id = Some(command_id);
        action.instance_ids = instance_ids.to_vec();
        let settings = Settings { username: username.map(str::to_owned), ..Settings::default() };
        self.authorize_with(action, Some(command_id), |own| settings.or(own)).await?;
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
    ) -> Result<Listing<Agent>> {
        let mut action = self.action(Operation::DescribeCloudAssistantStatus);
        action.instance_ids.clone_from(&instance_ids);
        for narrow in &narrows {
            if let AgentNarrow::Instance(ids) = narrow {
                action.instance_ids.extend(ids.iter().cloned());
            }
        }
        self.authorize(action).await?;
        let slice = Page::from(stretch).slice;
        let read = move |tx: crate::store::Tx<'_>| {
            selections::of_agents(tx, &instance_ids, &narrows, slice)
        };
        let Listing { entries, unreadable, next, total } = self.read(read).await?;
        let now_ms = self.now_ms();
        let agent = |AgentEntry { instance, seen_at_ms }| {
            let seen_at_ms = if instance.executor == LOCAL { Some(now_ms) } else { seen_at_ms };
            let last_heartbeat_time = seen_at_ms.and_then(DateTime::from_timestamp_millis);
            Agent { instance, last_heartbeat_time }
        };
        Ok(Listing { entries: entries.into_iter().map(agent).collect(), unreadable, next, total })
    }
}

/// What the host is asked before a listing: for each thing that is named, or once for all there is.
struct Asked<'a> {
    engine: &'a Engine,
    operation: Operation,
    actions: Vec<Action>,
}

impl<'a> Asked<'a> {
    fn new(engine: &'a Engine, operation: Operation) -> Self {
        Self { engine, operation, actions: Vec::new() }
    }

    fn each<T>(&mut self, named: &[T], name: impl Fn(&mut Action, &T)) {
        for one in named {
            let mut action = self.engine.action(self.operation);
            name(&mut action, one);
            self.actions.push(action);
        }
    }

    async fn authorize(mut self) -> Result<()> {
        if self.actions.is_empty() {
            self.actions.push(self.engine.action(self.operation));
        }
        for action in self.actions {
            self.engine.authorize(action).await?;
        }
        Ok(())
    }
}

//! Run commands on a fleet, from inside your program. Every command, invocation and execution is on record, in one
//! SQLite file of the host application.
//!
//! A host opens an [`Engine`], registers its [`Instance`]s, and plugs in an [`Executor`] for instances that are not this
//! machine. Then it runs, watches and stops commands in the terms of the cloud vendors' Run Command services: requests
//! and answers are the JSON of their API pages.
//!
//! - **Durable.** A call returns after its commit is on disk. A watcher hears of an end after its record is on disk.
//! - **At most once.** A claim is on disk before an execution starts, so no execution runs twice, whatever dies when.
//! - **On time.** Rate, at and cron in any time zone; every nominal time has a record.
//! - **Nothing hidden.** Every event leaves a record with its reason. Output that a quota leaves out is counted.
//! - **Bounded.** Waiting executions wait in the database, the number of running executions is limited, and every
//!   invocation has its turn.
//!
//! Adjutant is not a service: nothing listens on the network, nobody is authenticated, and one process at a time runs a
//! file. It is not a sandbox: a command may do everything that its user may.
//!
//! # Run a script, and read its record
//!
//! ```no_run
//! use adjutant::{Engine, RunCommand};
//!
//! # async fn example() -> adjutant::Result<()> {
//! let engine = Engine::open("adjutant.db").await?;
//! let run = engine.run_command(RunCommand::shell("df -h").on(["local"])).await?;
//! let finished = engine.wait(&run.invoke_id).await?;
//! println!("{}: {}", finished.status, finished.results[0].output.to_text());
//! # Ok(())
//! # }
//! ```
//!
//! The engine works on the host's tokio runtime, of either kind, with time and I/O enabled.
//!
//! # Where to look
//!
//! | task | begin with |
//! |---|---|
//! | run a script, on which instances and when | [`RunCommand`], [`Engine::run_command`] |
//! | wait, watch, stop | [`Engine::wait`], [`Engine::watch`], [`Engine::stop_invocation`] |
//! | store a command and invoke it often | [`CreateCommand`], [`InvokeCommand`] |
//! | schedules | [`schedule`], [`OverlapPolicy`], [`MissedPolicy`], [`Engine::explain`] |
//! | fleets: waves, bounds, priorities | [`Share`], [`WaveGate`], [`Instance::max_concurrency`] |
//! | attempts | [`Retry`], [`RetryFailed`] |
//! | records | [`Engine::describe_invocations`], [`Engine::describe_invocation_results`], [`Engine::describe_fires`] |
//! | scripts as other users, limits, runs that survive | [`helper_main`], [`ResourceLimits`], [`ProcessExecutor`] |
//! | an executor, a sink or rules of the host's own | [`Executor`], [`OutputSink`], [`Authorizer`], [`SecretResolver`] |
//! | the host's own tables in the same commit | [`Engine::run_command_with`], [`Engine::write`], [`HostTransaction`] |
//! | requests as JSON | [`Engine::call`], [`tencent`] |
//! | settings of an engine, limits of requests | [`EngineBuilder`], [`Limits`] |
//! | tests | [`ManualClock`], [`Engine::open_in_memory`], [`ClosureExecutor`] |
//!
//! # Metrics and tracing
//!
//! [`Engine::metrics`] returns counts of work done, running and waiting, and times. With the feature `metrics`, the
//! recorder that the host has installed for the crate `metrics` gets the same figures, as `adjutant_…`. If a process
//! has several engines, the gauges are the figures of the engine with the latest commit.
//!
//! `tracing` gets a span `execution` (`invoke_id`, `execution_id`, `instance_id`, `attempt`), in which the executor
//! works, and these events at the level `DEBUG`, each after its commit is on disk:
//!
//! | event | fields |
//! |---|---|
//! | `an invocation is stored` | `operation`, `invoke_id` |
//! | `a nominal time has been dealt with` | `invoke_id`, `time`, `disposition`, `count`, `reason` |
//! | `executions are claimed` | `count`, `fires` |
//! | `the executor is called`, in the span | `resumed` |
//! | `an execution has ended` | the fields of the span, `status`, `duration_ms` |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(missing_debug_implementations)]

mod clock;
mod files;
mod id;
mod operation;
mod panics;
pub mod schedule;
mod status;
mod text;

mod error;
mod limits;
mod metrics;
mod wire;

mod config;
mod ending;
mod given;

mod command;
mod execution;
mod instance;
mod invocation;
mod output;
mod overview;
mod secret;
mod tag;

mod authorizer;
mod event;
mod executor;
mod gate;
mod sink;
mod store;

mod deliverer;
mod dispatcher;
mod recovery;
mod scheduler;

mod engine;

pub mod tencent;

#[cfg(feature = "control")]
pub mod control;

pub use self::metrics::{Histogram, Metrics};
pub use authorizer::{Action, Authorizer};
pub use clock::{Clock, ManualClock, Sleep, SystemClock};
pub use command::parameters::{ParameterPassing, Parameters, SecretNames};
pub use command::preview::{PreviewCommand, PreviewCommandResponse};
pub use command::{
    Command, CommandType, CreateCommand, CreateCommandResponse, DeleteCommand,
    DeleteCommandResponse, DescribeCommands, DescribeCommandsResponse, ModifyCommand,
    ModifyCommandResponse, ParameterDefinition,
};
pub use config::{Durability, OutputQuota};
#[cfg(feature = "stream")]
pub use engine::WatchStream;
pub use engine::{Engine, EngineBuilder, Position, Watch};
pub use error::{EngineEnd, Error, HostFailure, Result, StorageError, StorageErrorKind, Violation};
#[cfg(feature = "stream")]
pub use event::FeedStream;
pub use event::{Event, Feed, Notice};
pub use execution::{
    DescribeInvocationResults, DescribeInvocationResultsResponse, Finished, InvocationResult,
    Outcome, ResultPage, StopReason, Usage,
};
pub use executor::{
    ClosureExecutor, ExecutionContext, Executor, ProcessExecutor, Task, helper_main, reap_orphans,
    refuse_inspection,
};
pub use gate::{EndedWave, WaveDecision, WaveGate};
pub use given::Given;
pub use id::{CommandId, ExecutionId, InstanceId, InvokeId, ParseIdError};
pub use instance::{
    AgentStatus, DescribeCloudAssistantStatus, DescribeCloudAssistantStatusResponse,
    DescribeInstances, DescribeInstancesResponse, Instance, InstanceCloudAssistantStatus,
    InstanceState, LOCAL, OsType,
};
pub use invocation::exec::{ExecContainerCommand, ExecContainerCommandResponse};
pub use invocation::fire::{
    DescribeFires, DescribeFiresResponse, Explanation, ExplanationEntry, Fire, FireDisposition,
    FiredOn,
};
pub use invocation::rate_control::Share;
pub use invocation::recurrence::{MissedPolicy, OverlapPolicy};
pub use invocation::resource_limits::ResourceLimits;
pub use invocation::retry::{Retry, RetryOn};
pub use invocation::retry_failed::RetryFailed;
pub use invocation::{
    DescribeInvocations, DescribeInvocationsResponse, Invocation, InvokeCommand,
    InvokeCommandResponse, InvokeInstance, Quotas, RepeatMode, RunCommand, RunCommandResponse,
    StopInvocation, StopInvocationResponse, TerminationMode,
};
pub use limits::Limits;
pub use operation::Operation;
pub use output::{DeliveryStatus, OutputStretch, Stream};
pub use overview::{Overview, OverviewExecution, OverviewTimer};
pub use secret::{Secret, SecretError, SecretRequest, SecretResolver};
#[cfg(feature = "object-store")]
pub use sink::ObjectStoreSink;
pub use sink::{DirectorySink, OutputDelivery, OutputSink, OutputSinkError};
pub use status::{
    Cause, ExecutionFilter, ExecutionStatus, InvocationFilter, InvocationStatus, InvokeStatus,
    StatusCounts, UnknownStatus, roll_up,
};
pub use store::{HostError, HostTransaction};
pub use tag::Tag;
pub use text::is_invisible;
pub use wire::{ContentEncoding, Encoded, Ignored, UnreadableRecord, request_id};

/// The version of rusqlite that [`HostTransaction`] speaks.
pub use rusqlite;

/// The version of object_store that [`ObjectStoreSink`] takes.
#[cfg(feature = "object-store")]
pub use object_store;

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

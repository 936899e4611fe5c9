//! Adjutant.
mod clock;
mod id;
mod status;

mod error;
mod limits;
mod wire;

mod config;

mod command;
mod execution;
mod instance;
mod invocation;
mod output;

mod event;
mod executor;
mod store;

mod dispatcher;
mod recovery;

mod engine;

pub use clock::{Clock, ManualClock, Sleep, SystemClock};
pub use command::{
    Command, CommandType, CreateCommand, CreateCommandResponse, DescribeCommands,
    DescribeCommandsResponse, ModifyCommand,
};
pub use config::{Durability, OutputQuota};
pub use engine::{Engine, EngineBuilder, Position, Watch};
pub use error::{Error, Result, StorageError, StorageErrorKind, Violation};
pub use event::Event;
pub use execution::{
    DescribeInvocationResults, DescribeInvocationResultsResponse, Finished, InvocationResult,
    Outcome, ResultPage, StopReason,
};
pub use executor::{ClosureExecutor, ExecutionContext, Executor, ProcessExecutor, Task};
pub use id::{CommandId, ExecutionId, InstanceId, InvokeId, ParseIdError};
pub use instance::{
    DescribeInstances, DescribeInstancesResponse, Instance, InstanceState, LOCAL, OsType,
};
pub use invocation::{
    DescribeInvocations, DescribeInvocationsResponse, Invocation, InvokeCommand,
    InvokeCommandResponse, RepeatMode, RunCommand, RunCommandResponse, StopInvocation,
    StopInvocationResponse, TerminationMode,
};
pub use limits::Limits;
pub use output::Stream;
pub use status::{Cause, ExecutionStatus, InvocationStatus, StatusCounts, UnknownStatus, roll_up};
pub use wire::{ContentEncoding, Encoded};

//! The operations of an engine, under the names of the API pages or of this library.

use std::fmt;

macro_rules! operations {
    ($($(#[$about:meta])* $name:ident,)+) => {
        /// An operation of the engine, about which an [`Authorizer`](crate::Authorizer) is asked.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Operation { $($(#[$about])* $name,)+ }

        impl Operation {
            /// The name, as the API pages write it where they have one.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

operations! {
    /// To create a command and run it.
    RunCommand,
    /// To run a kept command.
    InvokeCommand,
    /// To run a program in a container.
    ExecContainerCommand,
    /// To start an execution that a call, a timer or a boot has led to: asked for each by itself.
    StartExecution,
    /// To stop an invocation.
    StopInvocation,
    /// To keep an invocation from firing.
    PauseInvocation,
    /// To let it fire again.
    ResumeInvocation,
    /// To fire it at once.
    RunNow,
    /// To run one that has ended once more, where it did not succeed.
    RetryFailed,
    /// To list invocations, or to wait for the status of an invocation. A wait for results and a watch need
    /// [`DescribeInvocationResults`](Self::DescribeInvocationResults) too.
    DescribeInvocations,
    /// To list executions with their output; to wait for the results of an invocation, or to watch it.
    DescribeInvocationResults,
    /// To list nominal times, or to have one explained.
    DescribeFires,
    /// To keep a command.
    CreateCommand,
    /// To change a kept command.
    ModifyCommand,
    /// To delete a kept command.
    DeleteCommand,
    /// To list kept commands.
    DescribeCommands,
    /// To fill in a script.
    PreviewCommand,
    /// To register an instance or change one.
    RegisterInstance,
    /// To remove an instance.
    RemoveInstance,
    /// To tell that an instance has booted or been seen.
    ReportInstance,
    /// To list instances.
    DescribeInstances,
    /// To list the states of instances' agents.
    DescribeCloudAssistantStatus,
    /// To ask how much of the quotas is used.
    DescribeQuotas,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

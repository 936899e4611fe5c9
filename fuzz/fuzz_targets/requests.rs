//! Laws: whatever JSON reads as a request reads the same after it was written again; and an engine that
//! is given it answers or refuses it, and neither panics nor finds a defect in itself.
#![no_main]

use std::fmt::Debug;
use std::sync::OnceLock;

use adjutant::{
    ClosureExecutor, CreateCommand, DeleteCommand, DescribeCloudAssistantStatus, DescribeCommands,
    DescribeFires, DescribeInstances, DescribeInvocationResults, DescribeInvocations, Engine,
    Error, Event, Instance, InvokeCommand, LOCAL, ModifyCommand, Parameters, Position,
    PreviewCommand, RetryFailed, RunCommand, StopInvocation,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

/// What JSON reads as, if it reads as one.
fn read<T: Serialize + DeserializeOwned + PartialEq + Debug>(json: &[u8]) -> Option<T> {
    let request = serde_json::from_slice::<T>(json).ok()?;
    let text = serde_json::to_string(&request).expect("it serialises");
    assert_eq!(serde_json::from_str::<T>(&text).expect("it reads back"), request);
    Some(request)
}

/// An engine that starts nothing: what comes out of a fuzzer is not to run here.
fn engine() -> &'static (Runtime, Engine) {
    static ENGINE: OnceLock<(Runtime, Engine)> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let nothing = ClosureExecutor::new(|_task, _cx| std::future::ready(()));
        let engine = runtime.block_on(async {
            let engine = Engine::builder().idle().executor(LOCAL, nothing).open().await;
            let engine = engine.expect("an engine in memory");
            let instance = Instance::new("i-1").executor(LOCAL).tag("role", "web");
            engine.register_instance(instance).await.expect("a sound instance");
            engine
        });
        (runtime, engine)
    })
}

fn answered<T>(answer: Result<T, Error>) {
    if let Err(error) = answer {
        assert!(!matches!(error, Error::Internal(_) | Error::Storage(_)), "{error}");
    }
}

/// Reads each kind of request, and has the engine answer it.
macro_rules! ask {
    ($json:ident, $($request:ty => $call:ident,)*) => {$(
        if let Some(request) = read::<$request>($json) {
            let (runtime, engine) = engine();
            answered(runtime.block_on(engine.$call(request)));
        }
    )*};
}

fuzz_target!(|json: &[u8]| {
    ask! { json,
        RunCommand => run_command,
        InvokeCommand => invoke_command,
        StopInvocation => stop_invocation,
        RetryFailed => retry_failed,
        CreateCommand => create_command,
        ModifyCommand => modify_command,
        DeleteCommand => delete_command,
        PreviewCommand => preview,
        DescribeCommands => describe_commands,
        DescribeInvocations => describe_invocations,
        DescribeInvocationResults => describe_invocation_results,
        DescribeFires => describe_fires,
        DescribeInstances => describe_instances,
        DescribeCloudAssistantStatus => describe_cloud_assistant_status,
        Instance => register_instance,
    }
    read::<Parameters>(json);
    read::<Position>(json);
    read::<Event>(json);
});

//! Law: whatever JSON reads as a request reads the same after it was written again.
#![no_main]

use adjutant::{
    CreateCommand, DescribeCommands, DescribeInvocationResults, DescribeInvocations, Event,
    Instance, InvokeCommand, ModifyCommand, Position, PreviewCommand, RunCommand, StopInvocation,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(json: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<T>(json) {
        let text = serde_json::to_string(&request).expect("it serialises");
        assert_eq!(serde_json::from_str::<T>(&text).expect("it reads back"), request);
    }
}

fuzz_target!(|json: &[u8]| {
    round_trip::<RunCommand>(json);
    round_trip::<InvokeCommand>(json);
    round_trip::<StopInvocation>(json);
    round_trip::<CreateCommand>(json);
    round_trip::<PreviewCommand>(json);
    round_trip::<ModifyCommand>(json);
    round_trip::<DescribeCommands>(json);
    round_trip::<DescribeInvocations>(json);
    round_trip::<DescribeInvocationResults>(json);
    round_trip::<Instance>(json);
    round_trip::<Position>(json);
    round_trip::<Event>(json);
});

//! What came of sending a whole output to where it was to go.

use serde::{Deserialize, Serialize};

use crate::execution::Remark;
use crate::wire::text_enum;

/// How far the delivery of a whole output has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DeliveryStatus {
    /// The execution runs, or its output is on the way.
    InProgress,
    /// The output is where it was to go.
    Finished,
    /// It is not, and will not be.
    Failed,
}

text_enum!(DeliveryStatus, "delivery status", [InProgress, Finished, Failed]);

/// No sink serves the place.
pub(crate) const NOT_PLUGGED_IN: &str = "OutputSink.NotPluggedIn";
/// The execution printed more than the host lets wait on disk.
pub(crate) const TOO_LARGE: &str = "OutputSink.TooLarge";
/// All outputs together take as much of the disk as the host permits.
pub(crate) const NO_ROOM: &str = "OutputSink.NoRoom";
/// The disk on which outputs wait has failed.
pub(crate) const SPOOL_FAILED: &str = "OutputSink.SpoolFailed";
/// What was printed while no engine was there to take it is missing.
pub(crate) const INCOMPLETE: &str = "OutputSink.Incomplete";
/// The output was lost with the engine that had it.
pub(crate) const INTERRUPTED: &str = "OutputSink.Interrupted";
/// The sink took too long.
pub(crate) const TIMED_OUT: &str = "OutputSink.TimedOut";

/// A delivery as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub status: DeliveryStatus,
    /// How long the output is that waits to be delivered; none if its engine ended before it did.
    pub bytes: Option<u64>,
    /// Where the output is; empty unless it is there.
    pub uri: String,
    /// What went wrong; empty if nothing did.
    pub error_code: String,
    pub error_info: Remark,
}

impl Delivery {
    pub(crate) fn in_progress(bytes: Option<u64>) -> Self {
        Self {
            status: DeliveryStatus::InProgress,
            bytes,
            uri: String::new(),
            error_code: String::new(),
            error_info: Remark::default(),
        }
    }

    pub(crate) fn finished(uri: String) -> Self {
        Self { status: DeliveryStatus::Finished, uri, ..Self::in_progress(None) }
    }

    pub(crate) fn failed(code: &str, info: impl Into<Remark>) -> Self {
        let (error_code, error_info) = (code.to_owned(), info.into());
        Self { status: DeliveryStatus::Failed, error_code, error_info, ..Self::in_progress(None) }
    }

    pub(crate) fn not_plugged_in(to: &str) -> Self {
        Self::failed(NOT_PLUGGED_IN, format!("no sink for `{to}` is plugged into this engine"))
    }
}

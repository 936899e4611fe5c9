//! Why an engine has ended.

use super::{Error, StorageError};

/// Why an engine has ended: the first cause. Returned by [`Engine::closed`](crate::Engine::closed),
/// and carried by [`Error::Ended`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineEnd {
    /// The host has shut the engine down, or dropped its last handle.
    #[error("it was shut down")]
    ShutDown,

    /// A part of the engine panicked: the dispatcher, the scheduler, the deliverer, the writing thread, or the host's
    /// clock. The next engine that opens the file records the executions that ran as cut off.
    #[error("{part} panicked: {message}")]
    Panicked {
        /// The part.
        part: &'static str,
        /// The message of the panic.
        message: String,
    },

    /// The tokio runtime that the engine was opened on has been shut down.
    #[error("the tokio runtime that it was opened on has been shut down")]
    RuntimeGone,

    /// The engine cannot use the database file any longer: the file has been moved, replaced or written over, or
    /// the disk refuses even to undo a commit.
    #[error("{0}")]
    Storage(StorageError),
}

impl From<EngineEnd> for Error {
    fn from(end: EngineEnd) -> Self {
        match end {
            EngineEnd::ShutDown => Self::ShuttingDown,
            end => Self::Ended(end),
        }
    }
}

//! The engine's own settings; each default has its reason beside it.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// How far an acknowledged write is from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Every acknowledged write is on disk (`synchronous=FULL`). Survives loss of power.
    #[default]
    Full,
    /// Acknowledged writes survive the end of the process, but the last of them may be lost with
    /// the power (`synchronous=NORMAL`).
    Relaxed,
}

/// How the host is called in the built-in parameters of scripts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    pub region_id: String,
    pub account_id: String,
}

/// What an engine is set to. Made by [`EngineBuilder`](crate::EngineBuilder).
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub limits: Limits,
    pub durability: Durability,
    /// Executions that run at a time.
    pub concurrency_max: usize,
    /// Of those with a `ConcurrencyKey`, by that.
    pub concurrency_keys: HashMap<String, usize>,
    /// Requests that wait to be stored at a time.
    pub submissions_max: usize,
    /// Read-only connections.
    pub readers_max: u32,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    pub output: OutputQuota,
    /// Bytes of a whole output that waits on disk to be delivered.
    pub delivery_bytes_max: u64,
    /// Bytes of all whole outputs that wait on disk.
    pub deliveries_bytes_max: u64,
    pub names: Names,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            durability: Durability::Full,
            // Processes wait more than they compute; past this a small machine only swaps.
            concurrency_max: 64,
            concurrency_keys: HashMap::new(),
            // A second's worth on a fast disk; each that waits holds its request in memory.
            submissions_max: 16_384,
            // Reads are short; more connections than this only hold more page cache.
            readers_max: 4,
            stop_grace: Duration::from_secs(5),
            output: OutputQuota::default(),
            // More than any log that somebody reads; a run that floods must not fill the disk.
            delivery_bytes_max: 1 << 30,
            // Eight of the largest. As root, an engine could otherwise fill a disk past every quota.
            deliveries_bytes_max: 8 << 30,
            names: Names::default(),
        }
    }
}

/// How much of an execution's output its record keeps: the first bytes and the last ones. Both together have
/// to come to less than 1 GB: SQLite takes no more as one value, and the end could not be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputQuota {
    /// Bytes kept from the beginning.
    pub head_bytes_max: usize,
    /// Bytes kept from the end.
    pub tail_bytes_max: usize,
    /// Bytes of watched executions, all together, that wait on disk for readers slower than they
    /// write. What finds no place is a gap for such a reader, of exact size.
    pub spool_bytes_max: u64,
}

impl Default for OutputQuota {
    fn default() -> Self {
        Self {
            // Together the 24 KiB of the API pages.
            head_bytes_max: 6_000,
            tail_bytes_max: 18_576,
            // Enough for any log a person reads; a flood must not fill the disk.
            spool_bytes_max: 1 << 30,
        }
    }
}

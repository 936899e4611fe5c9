//! What the last engine on this file left behind. Whoever opens a file holds its lock, so every
//! execution that the file calls running belongs to an engine that has ended.

use crate::error::Result;
use crate::store::{Tx, executions, meta};

/// The key under which an engine leaves its number.
const OWNER: &str = "owner";

/// Ends what was running, and takes the file over; how many executions that ended.
pub(crate) fn take_over(tx: Tx<'_>, now_ms: i64) -> Result<u64> {
    let before = meta::get(tx, OWNER)?;
    let engine =
        before.map_or_else(|| "the engine".to_owned(), |owner| format!("the engine ({owner})"));
    let evidence =
        format!("{engine} ended while it ran; its end is not known, and it was not run again");
    let interrupted = executions::interrupt_all(tx, &evidence, now_ms)?;
    meta::set(tx, OWNER, &format!("pid {}", std::process::id()))?;
    Ok(interrupted)
}

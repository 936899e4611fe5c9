//! Whether the tokio runtime that an engine is opened on has what the engine needs.

use std::future::ready;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::panics::{Contained, contain};

const NO_RUNTIME: &str = "no tokio runtime runs it; open the engine within one";
const NO_TIME: &str =
    "its tokio runtime has no time driver; build that with `enable_time` or `enable_all`";
const NO_IO: &str =
    "its tokio runtime has no I/O driver; build that with `enable_io` or `enable_all`";

/// Tries what tokio cannot be asked for: without a driver it panics.
///
/// # Errors
///
/// [`Error::Runtime`] with what is missing.
pub(super) async fn check() -> Result<()> {
    if Handle::try_current().is_err() {
        return Err(Error::Runtime(NO_RUNTIME));
    }
    let timed = async { timeout(Duration::ZERO, ready(())).await };
    if Contained::new(timed).await.is_err() {
        return Err(Error::Runtime(NO_TIME));
    }
    // An error of the system says that there is a driver.
    if contain(|| drop(UnixDatagram::unbound())).is_err() {
        return Err(Error::Runtime(NO_IO));
    }
    Ok(())
}

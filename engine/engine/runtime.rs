//! Checks that the tokio runtime of an engine has the drivers that the engine needs.

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

/// Tries each driver. Tokio has no way to ask for a driver, and panics without it.
///
/// # Errors
///
/// [`Error::Runtime`] with the missing driver.
pub(super) async fn check() -> Result<()> {
    if Handle::try_current().is_err() {
        return Err(Error::Runtime(NO_RUNTIME));
    }
    let timed = async { timeout(Duration::ZERO, ready(())).await };
    if Contained::new(timed).await.is_err() {
        return Err(Error::Runtime(NO_TIME));
    }
    // If the system returns an error, there is a driver.
    if contain(|| drop(UnixDatagram::unbound())).is_err() {
        return Err(Error::Runtime(NO_IO));
    }
    Ok(())
}

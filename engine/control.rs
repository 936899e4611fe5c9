//! The control socket: how the program `adjutant` and other processes reach the engine that runs a database file.
//!
//! [`Engine::serve_control`] makes a socket beside the file, `FILE.sock`. While the engine runs, `adjutant --db FILE ps`,
//! `show`, `stop`, `run`, `pause`, `retry`, `top` and the other commands of the program work on the file. The socket is
//! for processes of the host's own user and for root. The mode of the socket keeps other users out, and so does a check
//! of each connection. The caller of a request is the user at the other end of the connection.
//!
//! # The protocol
//!
//! Each line is one JSON document. The engine begins with `{"ready":{"Version":…,"Pid":…,…}}`: a connection that ends
//! before this line has done nothing. Each request is `{"op":"StopInvocation","request":{…}}`, and its answer is
//! `{"ok":…}` or `{"error":…}`. With `"watch":true` the events of the invocation follow the answer, as `{"event":…}`, up
//! to `{"end":{}}`. While an answer or an event is not there yet, the engine sends `{"alive":{}}` once a second, so that
//! the other end can tell a long wait from a suspended process.
//!
//! A connection whose first request does not come within [`FIRST_REQUEST_MAX`] ends. If all places are taken, the
//! connection that has waited longest for a request gets `{"bye":{}}` and ends: the engine has done nothing for it
//! since its last answer. If a request is under way in each of [`CONNECTIONS_MAX`] connections, a few more connections
//! may still look and stop. A connection for which no place is left waits. If the last place was taken while it was
//! accepted, it gets an error with the code `Throttling` in place of `ready`.

mod address;
mod peer;
mod places;
mod protocol;
mod server;

use std::io;
use std::path::PathBuf;

use crate::engine::Engine;

pub use address::Address;
pub use peer::this_user;
pub use places::CONNECTIONS_MAX;
pub use protocol::{
    ApiCall, ApiPages, DescribeFigures, DescribeQuotas, Explain, Figures, FindInvocations, Hello,
    Line, PauseInvocation, Ready, Refusal, RefusedField, RegisterInstance, RemoveInstance, Reply,
    Request, ResumeInvocation, RunNow, SeeDelivered, WatchInvocation, WatchedRequest,
};
pub use server::{ALIVE_EVERY, ControlServer, FIRST_REQUEST_MAX, refuse, serve_stream};

/// The cause of a control socket that cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The engine is in memory. Without a file, other processes could not find the socket.
    #[error("an engine in memory has no file beside which a control socket could be")]
    InMemory,

    /// The engine only reads the file; another process runs the file.
    #[error("an engine that is open for reading only cannot serve a control socket")]
    ReadOnly,

    /// The socket cannot be made.
    #[error("no control socket beside {}: {error}", .path.display())]
    Socket {
        /// The database file.
        path: PathBuf,
        /// The answer of the system.
        #[source]
        error: io::Error,
    },
}

impl Engine {
    /// Serves the control socket of the file until the engine has ended: the program `adjutant` lists, stops, starts
    /// and watches runs of this engine from other processes. The engine does not stay open for the sake of the socket.
    /// [`ControlServer::stop`] ends the service earlier; dropping the returned handle does not.
    ///
    /// Requests are held to the limits of this handle. Their caller is the user at the other end: an
    /// [`Authorizer`](crate::Authorizer) is asked about each, and records keep the name.
    ///
    /// # A service that its operator can stop
    ///
    /// ```
    /// use adjutant::{Engine, RunCommand};
    ///
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("app.db");
    /// let engine = Engine::open(&file).await?;
    /// engine.serve_control()?;
    /// // In a terminal: adjutant --db app.db ps
    /// # assert!(folder.path().join("app.db.sock").exists());
    /// # engine.shutdown(std::time::Duration::ZERO).await;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`ControlError`] if the engine has no file of its own to run, or if the system refuses the socket. The engine
    /// goes on in each case.
    ///
    /// # Panics
    ///
    /// If this is called outside of a tokio runtime.
    pub fn serve_control(&self) -> Result<ControlServer, ControlError> {
        let path = self.path().ok_or(ControlError::InMemory)?;
        if self.is_read_only() {
            return Err(ControlError::ReadOnly);
        }
        let socket = |error| ControlError::Socket { path: path.to_owned(), error };
        let address = Address::of(path).map_err(socket)?;
        ControlServer::start(self, address).map_err(socket)
    }
}

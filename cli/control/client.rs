//! The other side of the control socket.

use std::path::Path;
use std::time::Duration;

use adjutant::Event;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::address::Address;
use super::protocol::{Operation, Ready, Reply, Request, Watched};
use crate::failure::Failure;

/// How long an owner may take to greet: far longer than one that works ever needs.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// A conversation with the owner. While it is open, the owner does not go away.
#[derive(Debug)]
pub(crate) struct Client {
    address: Address,
    connection: Connection,
}

impl Client {
    /// Finds the owner; `None` if nobody is ready to answer.
    pub(crate) async fn connect(database: &Path) -> Result<Option<Self>, Failure> {
        let Ok(address) = Address::of(database) else { return Ok(None) };
        let connection = Connection::open(&address).await?;
        Ok(connection.map(|connection| Self { address, connection }))
    }

    /// Goes on with a conversation that came about in another way.
    pub(crate) async fn over(stream: UnixStream, database: &Path) -> Result<Self, Failure> {
        let connection = Connection::greeted(stream).await?.ok_or_else(Failure::lost)?;
        let address = Address::of(database).map_err(|error| {
            Failure::system(format_args!("find {}", database.display()), &error)
        })?;
        Ok(Self { address, connection })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn call<O: Operation>(&mut self, request: &O) -> Result<O::Response, Failure> {
        self.connection.ask(request, false).await
    }

    /// Asks on a connection of its own, on which the events follow.
    pub(crate) async fn watch<O: Watched>(
        &self,
        request: &O,
    ) -> Result<(O::Response, Events), Failure> {
        // This conversation keeps the owner from leaving, so nobody there means that it died.
        let mut connection = Connection::open(&self.address).await?.ok_or_else(Failure::lost)?;
        let response = connection.ask(request, true).await?;
        Ok((response, Events { connection, ended: false }))
    }

    /// Ends the conversation, for which an owner that goes away would wait.
    pub(crate) async fn hang_up(&mut self) {
        // Where nobody is any more there is nobody to wait.
        let _ = self.connection.writer.shutdown().await;
    }
}

/// The events of a run in another process.
#[derive(Debug)]
pub(crate) struct Events {
    connection: Connection,
    ended: bool,
}

impl Events {
    /// The next event; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Failure> {
        if self.ended {
            return Ok(None);
        }
        match self.connection.receive().await? {
            Reply::Event(event) => return Ok(Some(event)),
            Reply::Error(failure) => return Err(failure),
            Reply::End {} => self.ended = true,
            reply => return Err(out_of_turn(&reply)),
        }
        Ok(None)
    }
}

/// One connection that the owner has greeted.
#[derive(Debug)]
struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    line: Vec<u8>,
}

impl Connection {
    async fn open(address: &Address) -> Result<Option<Self>, Failure> {
        match address.connect().await {
            Ok(stream) => Self::greeted(stream).await,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let message = "the database is in use by a process of another user";
                Err(Failure::new("Control.Forbidden", 403, message))
            }
            // No socket, or one that was left behind.
            Err(_) => Ok(None),
        }
    }

    /// Waits for the owner's greeting; `None` if it hangs up instead.
    async fn greeted(stream: UnixStream) -> Result<Option<Self>, Failure> {
        let (reader, writer) = stream.into_split();
        let mut connection = Self { reader: BufReader::new(reader), writer, line: Vec::new() };
        let Ok(greeting) = tokio::time::timeout(GREETING_MAX, connection.receive()).await else {
            let message = "the process that runs the database does not answer";
            return Err(Failure::new("Control.Silent", 504, message));
        };
        match greeting {
            Ok(Reply::Ready(Ready { version, pid })) => {
                let this = env!("CARGO_PKG_VERSION");
                if version == this {
                    return Ok(Some(connection));
                }
                let message = format!(
                    "pid {pid} runs the database with version {version} of this program; this is {this}"
                );
                Err(Failure::new("Control.Version", 409, message))
            }
            Ok(Reply::Error(failure)) => Err(failure),
            Ok(reply) => Err(out_of_turn(&reply)),
            Err(failure) if failure.is_lost() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn ask<O: Operation>(
        &mut self,
        request: &O,
        watch: bool,
    ) -> Result<O::Response, Failure> {
        self.send(&Request { op: O::NAME.to_owned(), request, watch }).await?;
        match self.receive().await? {
            Reply::Ok(response) => read(response),
            Reply::Error(failure) => Err(failure),
            reply => Err(out_of_turn(&reply)),
        }
    }

    async fn send(&mut self, request: &impl Serialize) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(request).map_err(|error| not_understood(&error))?;
        line.push(b'\n');
        // Half a line is carried out by nobody.
        self.writer.write_all(&line).await.map_err(|_| Failure::unsent())
    }

    /// The next line. May be dropped and called again: what had come of a line is kept.
    async fn receive(&mut self) -> Result<Reply, Failure> {
        let read = self.reader.read_until(b'\n', &mut self.line).await;
        if read.is_err() || !self.line.ends_with(b"\n") {
            return Err(Failure::lost());
        }
        let reply = serde_json::from_slice(&self.line).map_err(|error| not_understood(&error));
        self.line.clear();
        reply
    }
}

fn read<T: DeserializeOwned>(response: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(response).map_err(|error| not_understood(&error))
}

fn not_understood(error: &serde_json::Error) -> Failure {
    Failure::new("Control.Protocol", 500, format!("the control socket's answer is odd: {error}"))
}

fn out_of_turn(reply: &Reply) -> Failure {
    Failure::new("Control.Protocol", 500, format!("an answer out of turn: {reply:?}"))
}

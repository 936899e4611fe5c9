//! The other side of the control socket.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use adjutant::Event;
use adjutant::control::{Address, Hello, Line, Ready, Reply, Request, WatchedRequest};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::failure::Failure;
use crate::user;

/// The longest silence of an owner that works: it says each second that it does, while there is nothing else to say.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The longest line of a greeting. Because root may ask a process of any user, no process is trusted to end its lines.
const GREETING_BYTES_MAX: usize = 4 << 10;

/// The longest line after the greeting: more than the fullest page takes.
const LINE_BYTES_MAX: usize = 256 << 20;

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
        let connection = Connection::begin(stream).await?.ok_or_else(Failure::lost)?;
        let address = Address::of(database).map_err(|error| {
            Failure::system(format_args!("find {}", database.display()), &error)
        })?;
        Ok(Self { address, connection })
    }

    /// Asks and waits for the answer.
    pub(crate) async fn call<O: Request>(&mut self, request: &O) -> Result<O::Response, Failure> {
        self.connection.ask(request, false).await
    }

    /// Asks on a connection of its own, on which the events follow.
    pub(crate) async fn watch<O: WatchedRequest>(
        &self,
        request: &O,
    ) -> Result<(O::Response, Events), Failure> {
        // This conversation keeps the owner from leaving, so nobody there means that it died.
        let mut connection = Connection::open(&self.address).await?.ok_or_else(Failure::lost)?;
        let response = connection.ask(request, true).await?;
        Ok((response, Events { connection, held: None, is_silent: false, ended: false }))
    }

    /// Ends the conversation, for which an owner that goes away would wait.
    pub(crate) async fn hang_up(&mut self) {
        // Where nobody is any more there is nobody to wait.
        let _ = self.connection.writer.shutdown().await;
    }
}

/// What is heard of a run that is followed.
#[derive(Debug)]
pub(crate) enum Heard {
    Event(Event),
    /// The owner says nothing, for another while.
    Silence(Failure),
    /// The owner has been silent, and is not any more.
    Again,
}

/// The events of a run in another process.
#[derive(Debug)]
pub(crate) struct Events {
    connection: Connection,
    /// The first line after a silence.
    held: Option<Reply>,
    is_silent: bool,
    ended: bool,
}

impl Events {
    /// Waits for what is heard next; `None` after the last event.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, Failure> {
        while !self.ended {
            let reply = match self.held.take() {
                Some(reply) => reply,
                None => match self.connection.hear().await {
                    Err(failure) if failure.is_silent() => {
                        self.is_silent = true;
                        return Ok(Some(Heard::Silence(failure)));
                    }
                    reply => reply?,
                },
            };
            if std::mem::take(&mut self.is_silent) {
                self.held = Some(reply);
                return Ok(Some(Heard::Again));
            }
            match reply {
                Reply::Event(event) => return Ok(Some(Heard::Event(event))),
                Reply::Alive {} => {}
                Reply::Error(refusal) => return Err(refusal.into()),
                Reply::End {} => self.ended = true,
                reply => return Err(out_of_turn(&reply)),
            }
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
    line_bytes_max: usize,
    /// The process at the other end; `None` before it has greeted.
    ready: Option<Ready>,
}

impl Connection {
    async fn open(address: &Address) -> Result<Option<Self>, Failure> {
        match address.connect().await {
            Ok(stream) => Self::begin(stream).await,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let message = "the database is in use by a process of another user";
                Err(Failure::new("Control.Forbidden", 403, message))
            }
            // No socket, or one that was left behind.
            Err(_) => Ok(None),
        }
    }

    /// Waits for the owner's greeting, and says who asks; `None` if the owner hangs up instead.
    async fn begin(stream: UnixStream) -> Result<Option<Self>, Failure> {
        let (reader, writer) = stream.into_split();
        let mut connection = Self {
            reader: BufReader::new(reader),
            writer,
            line: Vec::new(),
            line_bytes_max: GREETING_BYTES_MAX,
            ready: None,
        };
        match connection.greeting().await {
            Err(failure) if failure.is_lost() => Ok(None),
            greeting => greeting.map(|()| {
                connection.line_bytes_max = LINE_BYTES_MAX;
                Some(connection)
            }),
        }
    }

    async fn greeting(&mut self) -> Result<(), Failure> {
        // An owner greets without a sign of life before, so a greeting ends after two lines.
        let ready = match self.hear().await? {
            Reply::Ready(ready) => self.ready.insert(ready),
            Reply::Error(refusal) => return Err(refusal.into()),
            reply => return Err(out_of_turn(&reply)),
        };
        let (version, this) = (&ready.version, env!("CARGO_PKG_VERSION"));
        if version != this {
            let owner = process(ready.pid_here());
            let message = format!(
                "{owner} runs the database with version {version} of this program; this is {this}"
            );
            return Err(Failure::new("Control.Version", 409, message));
        }
        self.say(&Hello::for_user(user::acts_for()), false).await?;
        read(answer(self.hear().await?)?)
    }

    fn pid(&self) -> Option<u32> {
        self.ready.as_ref()?.pid_here()
    }

    async fn ask<O: Request>(&mut self, request: &O, watch: bool) -> Result<O::Response, Failure> {
        self.say(request, watch).await?;
        read(answer(self.receive().await?)?)
    }

    async fn say<O: Request>(&mut self, request: &O, watch: bool) -> Result<(), Failure> {
        let request = Line { op: O::NAME.to_owned(), request, watch };
        let mut line = serde_json::to_vec(&request).map_err(odd)?;
        line.push(b'\n');
        // Half a line is carried out by nobody.
        self.writer.write_all(&line).await.map_err(|_| Failure::unsent())
    }

    /// Returns the next line that is not only a sign of life.
    async fn receive(&mut self) -> Result<Reply, Failure> {
        loop {
            match self.hear().await? {
                Reply::Alive {} => {}
                reply => return Ok(reply),
            }
        }
    }

    /// Returns the next line. May be dropped and called again: the beginning of a line is kept.
    async fn hear(&mut self) -> Result<Reply, Failure> {
        let bytes_max = self.line_bytes_max;
        let left = bytes_max.saturating_sub(self.line.len());
        let mut reader = (&mut self.reader).take(left as u64);
        let read = reader.read_until(b'\n', &mut self.line);
        let Ok(read) = tokio::time::timeout(SILENCE_MAX, read).await else {
            return Err(Failure::silent(self.pid()));
        };
        if read.is_err() || !self.line.ends_with(b"\n") {
            return Err(if self.line.len() < bytes_max {
                Failure::lost()
            } else {
                odd(format_args!("a line has more than {bytes_max} bytes"))
            });
        }
        let reply = serde_json::from_slice(&self.line).map_err(odd);
        self.line.clear();
        match reply? {
            // The owner has given the place of this connection to another.
            Reply::Bye {} => Err(Failure::unsent()),
            reply => Ok(reply),
        }
    }
}

/// Returns the words for the owner's process.
pub(crate) fn process(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("pid {pid}"))
}

fn read<T: DeserializeOwned>(response: serde_json::Value) -> Result<T, Failure> {
    serde_json::from_value(response).map_err(odd)
}

fn answer(reply: Reply) -> Result<serde_json::Value, Failure> {
    match reply {
        Reply::Ok(response) => Ok(response),
        Reply::Error(refusal) => Err(refusal.into()),
        reply => Err(out_of_turn(&reply)),
    }
}

fn odd(why: impl fmt::Display) -> Failure {
    Failure::new("Control.Protocol", 500, format!("the control socket's answer is odd: {why}"))
}

fn out_of_turn(reply: &Reply) -> Failure {
    Failure::new("Control.Protocol", 500, format!("an answer out of turn: {reply:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets an owner say this and no more, and returns the error of the client.
    async fn refused(said: Vec<u8>) -> Failure {
        let place = tempfile::tempdir().expect("a folder");
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let owner = tokio::spawn(async move {
            // The client hangs up before the end of a line that is too long.
            let _ = theirs.write_all(&said).await;
            theirs
        });
        let failure = Client::over(ours, place.path()).await.expect_err("no greeting");
        drop(owner.await.expect("no panic"));
        failure
    }

    #[tokio::test]
    async fn a_greeting_is_short_whoever_greets() {
        let check = async |said: &[u8], want: &str| {
            let failure = refused(said.repeat(GREETING_BYTES_MAX * 64 / said.len())).await;
            assert!(failure.to_string().contains(want), "{failure}");
        };
        check(b"x", "a line has more than 4096 bytes").await;
        check(b"{\"alive\":{}}\n", "an answer out of turn: Alive").await;
    }
}

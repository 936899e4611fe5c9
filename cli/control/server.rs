//! The owner's side of the control socket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adjutant::{Engine, Watch};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::address::{Address, is_same_user};
use super::protocol::{self, Ready, Reply, Request};
use crate::failure::Failure;

/// Connections at a time. More wait for a free place, so nobody can exhaust this process.
const CONNECTIONS_MAX: usize = 256;

/// The longest request line: far more than the largest script and 100 long instance names take.
const REQUEST_BYTES_MAX: u64 = 4 << 20;

/// How long a connection that does nothing is waited for at the end: less than its other end would wait for
/// whoever has the file (`OWNER_PATIENCE`), if it did not hang up before.
const PATIENCE: Duration = Duration::from_secs(1);

/// After the system refused a connection, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time between two looks whether the socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Answers on the socket beside the database until it is stopped.
#[derive(Debug)]
pub(crate) struct Server {
    address: Address,
    stop: watch::Sender<bool>,
    connections: watch::Receiver<usize>,
    retire: mpsc::Sender<oneshot::Sender<bool>>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts to listen. The engine must hold the database's lock.
    pub(crate) fn start(engine: Engine, address: Address) -> io::Result<Self> {
        let listener = listen(&address)?;
        let (stop, stopped) = watch::channel(false);
        let (count, connections) = watch::channel(0);
        let (retire, retiring) = mpsc::channel(1);
        let accepting =
            tokio::spawn(accept(engine, address.clone(), listener, stopped, retiring, count));
        Ok(Self { address, stop, connections, retire, accepting })
    }

    /// Waits until nobody has been connected for so long.
    pub(crate) async fn quiet_for(&self, time: Duration) {
        let mut connections = self.connections.clone();
        loop {
            // The sender lives as long as the task; without one nobody will come any more.
            if connections.wait_for(|count| *count == 0).await.is_err() {
                return;
            }
            let somebody = async { connections.wait_for(|count| *count > 0).await.is_ok() };
            if !matches!(tokio::time::timeout(time, somebody).await, Ok(true)) {
                return;
            }
        }
    }

    /// Stops listening if nobody is connected or about to be; whether it has.
    pub(crate) async fn retire(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = self.retire.send(answer).await;
        // A task that has ended listens no more.
        asked.is_err() || answered.await.unwrap_or(true)
    }

    /// Stops listening. Who is connected gets a moment to finish.
    pub(crate) async fn stop(self) {
        self.address.remove();
        self.stop.send_replace(true);
        let _ = self.accepting.await;
    }
}

fn listen(address: &Address) -> io::Result<UnixListener> {
    let listener = address.listen()?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Takes connections until the stop, then sees them off.
async fn accept(
    engine: Engine,
    address: Address,
    mut listener: UnixListener,
    mut stopped: watch::Receiver<bool>,
    mut retiring: mpsc::Receiver<oneshot::Sender<bool>>,
    count: watch::Sender<usize>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let accepted = async |listener: &UnixListener| {
        let place = Arc::clone(&places).acquire_owned().await;
        (place.expect("the semaphore is never closed"), listener.accept().await)
    };
    let take = |connections: &mut JoinSet<()>, stream: UnixStream, place| {
        if !is_same_user(&stream) {
            return;
        }
        let engine = engine.clone();
        count.send_modify(|count| *count += 1);
        connections.spawn(async move {
            let _place: OwnedSemaphorePermit = place;
            serve(&engine, stream).await;
        });
    };
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            (place, accepted) = accepted(&listener) => match accepted {
                Ok((stream, _)) => take(&mut connections, stream, place),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => count.send_modify(|count| *count -= 1),
            Some(answer) = retiring.recv() => {
                // Nobody finds it from here on, so that whoever comes has come by now.
                address.remove();
                let at_once = || tokio::time::timeout(Duration::ZERO, accepted(&listener));
                while let Ok((place, Ok((stream, _)))) = at_once().await {
                    take(&mut connections, stream, place);
                }
                let is_quiet = connections.is_empty();
                if !is_quiet && let Ok(fresh) = listen(&address) {
                    listener = fresh;
                }
                let _ = answer.send(is_quiet);
                if is_quiet {
                    return;
                }
            }
            _ = looks.tick() => {
                // A program that tidies up folders may have removed the socket as a leftover.
                if address.is_lost() && let Ok(fresh) = listen(&address) {
                    listener = fresh;
                }
            }
            // Its value is a lock that must not be held over the next wait.
            () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => break,
        }
    }
    drop(listener);
    let _ =
        tokio::time::timeout(PATIENCE, async { while connections.join_next().await.is_some() {} })
            .await;
}

/// Answers one connection until the other side hangs up.
pub(crate) async fn serve(engine: &Engine, stream: UnixStream) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    // A failed write or read means that the other side is gone: there is nobody to tell.
    if send(&mut writer, &Reply::Ready(Ready::this_process())).await.is_err() {
        return;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(1..) if line.ends_with(b"\n") => {}
            Ok(1..) if line.len() as u64 == REQUEST_BYTES_MAX => {
                let message = format!("a request may have at most {REQUEST_BYTES_MAX} bytes");
                let _ = refuse(&mut writer, Failure::new("InvalidRequest", 413, message)).await;
                return;
            }
            _ => return,
        }
        if answer(engine, &line, &mut writer).await.is_err() {
            return;
        }
    }
}

async fn answer(
    engine: &Engine,
    line: &[u8],
    writer: &mut (impl AsyncWriteExt + Unpin),
) -> io::Result<()> {
    let Request { op, request, watch } = match serde_json::from_slice::<Request<Value>>(line) {
        Ok(request) => request,
        Err(error) => {
            let message = format!("bad request: {error}");
            return refuse(writer, Failure::new("InvalidRequest", 400, message)).await;
        }
    };
    if !watch {
        let reply = match protocol::perform(engine, &op, request).await {
            Ok(response) => Reply::Ok(response),
            Err(failure) => Reply::Error(failure),
        };
        return send(writer, &reply).await;
    }
    match protocol::perform_and_watch(engine, &op, request).await {
        Ok((response, events)) => {
            send(writer, &Reply::Ok(response)).await?;
            pass_on(events, writer).await
        }
        Err(failure) => refuse(writer, failure).await,
    }
}

async fn pass_on(mut events: Watch, writer: &mut (impl AsyncWriteExt + Unpin)) -> io::Result<()> {
    loop {
        let reply = match events.next().await {
            Ok(Some(event)) => Reply::Event(event),
            Ok(None) => return send(writer, &Reply::End {}).await,
            Err(error) => return send(writer, &Reply::Error(error.into())).await,
        };
        send(writer, &reply).await?;
    }
}

/// Says why there is no answer, or no owner at all.
pub(crate) async fn refuse(
    writer: &mut (impl AsyncWriteExt + Unpin),
    failure: Failure,
) -> io::Result<()> {
    send(writer, &Reply::Error(failure)).await
}

async fn send(writer: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

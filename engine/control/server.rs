//! The engine's side of the control socket.

use std::io::{self, Write};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::address::Address;
use super::peer::{Peer, caller};
use super::places::{CONNECTIONS_MAX, Place, Places};
use super::protocol::{self, Hello, Line, Ready, Refusal, Reply, Request};
use crate::engine::{Engine, Watch, WeakEngine};
use crate::error::Error;
use crate::panics::tell;

/// The time for the first request of a connection, and for each request of a connection that has a place for short
/// requests only.
pub const FIRST_REQUEST_MAX: Duration = Duration::from_secs(5);

/// The time between two lines that say that the process works while an answer is not there yet.
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// The longest request line: more than the largest script and 10,000 long instance names take.
const REQUEST_BYTES_MAX: u64 = 4 << 20;

/// The time for requests that are under way when the service ends.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(1);

/// The time after which a line that nobody reads ends its connection, if others wait for the place.
const UNREAD_MAX: Duration = Duration::from_secs(5);

/// The pause after the system has refused a connection, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The time between two looks whether the socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The longest time between two looks, where the socket does not stay.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The service of a control socket: [`Engine::serve_control`] starts it. It ends with the engine; dropping this handle
/// does not end it.
#[derive(Debug)]
pub struct ControlServer {
    address: Address,
    stop: watch::Sender<bool>,
    connections: watch::Receiver<usize>,
    retire: mpsc::Sender<oneshot::Sender<bool>>,
    accepting: JoinHandle<()>,
}

impl ControlServer {
    /// Starts to listen. The engine must hold the lock of the database.
    pub(super) fn start(engine: &Engine, address: Address) -> io::Result<Self> {
        let listener = listen(&address)?;
        let (stop, stopped) = watch::channel(false);
        let (count, connections) = watch::channel(0);
        let (retire, retiring) = mpsc::channel(1);
        let closed = engine.closed();
        let accepting = Accepting::new(engine, address.clone(), listener, count);
        let accepting = tokio::spawn(accepting.run(closed, stopped, retiring));
        Ok(Self { address, stop, connections, retire, accepting })
    }

    /// Waits until no process has been connected for so long.
    pub async fn quiet_for(&self, time: Duration) {
        let mut connections = self.connections.clone();
        loop {
            // The sender lives as long as the service; after its end no process connects any more.
            if connections.wait_for(|count| *count == 0).await.is_err() {
                return;
            }
            let connected = async { connections.wait_for(|count| *count > 0).await.is_ok() };
            if !matches!(tokio::time::timeout(time, connected).await, Ok(true)) {
                return;
            }
        }
    }

    /// Ends the service if no process is connected or about to be. Returns whether the service has ended.
    pub async fn retire(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = self.retire.send(answer).await;
        // A service that has ended listens no more.
        asked.is_err() || answered.await.unwrap_or(true)
    }

    /// Ends the service. A request that is under way has a second to be answered.
    pub async fn stop(self) {
        self.address.remove();
        self.stop.send_replace(true);
        let _ = self.accepting.await;
    }
}

/// Removes the socket at its end.
#[derive(Debug)]
struct Socket(Address);

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.remove();
    }
}

fn listen(address: &Address) -> io::Result<UnixListener> {
    adopt(address.listen()?)
}

fn adopt(listener: StdListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Looks whether the socket is still there: a program that tidies up folders may have removed the socket as a leftover.
#[derive(Debug)]
struct Looks {
    address: Address,
    /// The look under way, off the threads of the runtime, because a file system may take its time.
    now: Option<JoinHandle<io::Result<Option<StdListener>>>>,
    next: Instant,
    pause: Duration,
    /// The last error that a warning was about.
    told: Option<String>,
}

impl Looks {
    fn new(address: Address) -> Self {
        let next = Instant::now() + LOOK_EVERY;
        Self { address, now: None, next, pause: LOOK_EVERY, told: None }
    }

    /// Waits for a socket that was made again. May be dropped and called again.
    async fn made_again(&mut self) -> UnixListener {
        loop {
            let look = match &mut self.now {
                Some(look) => look,
                None => {
                    tokio::time::sleep_until(self.next).await;
                    let address = self.address.clone();
                    let look = tokio::task::spawn_blocking(move || address.listen_if_lost());
                    self.now.insert(look)
                }
            };
            // A look is cancelled only if the runtime ends.
            let found = look.await.unwrap_or(Ok(None));
            self.now = None;
            let made = self.see(found);
            self.next = Instant::now() + self.pause;
            if let Some(listener) = made {
                return listener;
            }
        }
    }

    /// Returns the socket that a look has made, and sets the pause until the next look.
    fn see(&mut self, found: io::Result<Option<StdListener>>) -> Option<UnixListener> {
        let is_there = matches!(found, Ok(None));
        self.pause = if is_there { LOOK_EVERY } else { (self.pause * 2).min(LOOK_PAUSE_MAX) };
        match found.and_then(|made| made.map(adopt).transpose()) {
            Ok(made) => {
                self.told = None;
                made
            }
            Err(error) => {
                self.tell(&error);
                None
            }
        }
    }

    fn tell(&mut self, error: &io::Error) {
        let text = error.to_string();
        if self.told.as_ref() != Some(&text) {
            tell(|| tracing::warn!(%error, "the control socket cannot be made again"));
            self.told = Some(text);
        }
    }
}

/// The task that takes connections.
struct Accepting {
    conversations: Arc<Conversations>,
    socket: Socket,
    looks: Looks,
    listener: UnixListener,
    connections: JoinSet<()>,
    count: watch::Sender<usize>,
}

impl Accepting {
    fn new(
        engine: &Engine,
        address: Address,
        listener: UnixListener,
        count: watch::Sender<usize>,
    ) -> Self {
        Self {
            conversations: Arc::new(Conversations::new(engine)),
            looks: Looks::new(address.clone()),
            // The socket goes when the task is dropped too, as when its runtime ends.
            socket: Socket(address),
            listener,
            connections: JoinSet::new(),
            count,
        }
    }

    async fn run(
        mut self,
        closed: impl Future + Send,
        mut stopped: watch::Receiver<bool>,
        mut retiring: mpsc::Receiver<oneshot::Sender<bool>>,
    ) {
        let mut closed = std::pin::pin!(closed);
        loop {
            tokio::select! {
                accepted = accept(&self.conversations.places, &self.listener) => match accepted {
                    Ok(stream) => self.take(stream),
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                },
                Some(_) = self.connections.join_next() => self.count.send_modify(|count| *count -= 1),
                Some(answer) = retiring.recv() => {
                    let has_retired = self.retire().await;
                    let _ = answer.send(has_retired);
                    if has_retired {
                        return;
                    }
                }
                listener = self.looks.made_again() => self.listener = listener,
                _ = &mut closed => break,
                () = asked_to_stop(&mut stopped) => break,
            }
        }
        let Self { conversations, socket, listener, mut connections, .. } = self;
        drop((listener, socket));
        conversations.ending.send_replace(true);
        let answered = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_ANSWERS_MAX, answered).await;
    }

    fn take(&mut self, stream: UnixStream) {
        let Some(peer) = Peer::of(&stream).ok().filter(|peer| peer.is_admitted()) else { return };
        // The place that made room for this connection may have got a request since.
        let Some(place) = self.conversations.places.take() else { return turn_away(stream) };
        let conversations = Arc::clone(&self.conversations);
        self.count.send_modify(|count| *count += 1);
        self.connections.spawn(async move { conversations.hold(stream, peer, Some(place)).await });
    }

    /// Stops to listen if no process is connected. Returns whether no process is.
    async fn retire(&mut self) -> bool {
        // From here on no process finds the socket, so each process that will connect has connected.
        self.socket.0.remove();
        self.looks.now = None;
        let places = Arc::clone(&self.conversations.places);
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::ZERO, accept(&places, &self.listener)).await
        {
            self.take(stream);
        }
        let is_quiet = self.connections.is_empty();
        if !is_quiet {
            self.listen_again();
        }
        is_quiet
    }

    fn listen_again(&mut self) {
        match listen(&self.socket.0) {
            Ok(listener) => self.listener = listener,
            Err(error) => self.looks.tell(&error),
        }
    }
}

/// Tells the other end of a new connection that no place is left. One short line fits into any new socket, so nothing
/// waits for the other end.
fn turn_away(stream: UnixStream) {
    let message = format!("a request is under way in each of {CONNECTIONS_MAX} connections");
    let why = Reply::Error(Refusal::new("Throttling", 503, message));
    if let (Ok(line), Ok(mut stream)) = (line(&why), stream.into_std()) {
        let _ = stream.write_all(&line);
    }
}

async fn accept(places: &Places, listener: &UnixListener) -> io::Result<UnixStream> {
    places.room().await;
    listener.accept().await.map(|(stream, _)| stream)
}

/// Waits for the stop; for ever if the handle that could stop the service has gone.
async fn asked_to_stop(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending().await
    }
}

/// Answers one connection that the host has accepted by itself, until the other end hangs up. The other end must be a
/// process of the host's user or of root.
pub async fn serve_stream(engine: &Engine, stream: UnixStream) {
    if let Ok(peer) = Peer::of(&stream)
        && peer.is_admitted()
    {
        Conversations::new(engine).hold(stream, peer, None).await;
    }
}

/// Tells the other end of a connection why no engine answers.
///
/// # Errors
///
/// The answer of the system if the other end is gone.
pub async fn refuse(stream: UnixStream, why: Refusal) -> io::Result<()> {
    send(&mut stream.into_split().1, &Reply::Error(why)).await
}

/// What the conversations of one service share.
struct Conversations {
    engine: WeakEngine,
    places: Arc<Places>,
    /// True once the service ends.
    ending: watch::Sender<bool>,
    /// The names of the users that may connect.
    this_user: OnceCell<String>,
    root: OnceCell<String>,
}

/// How a conversation goes on after a line.
enum Next {
    Ask,
    End,
}

impl Conversations {
    fn new(engine: &Engine) -> Self {
        Self {
            engine: engine.downgrade(),
            places: Arc::default(),
            ending: watch::Sender::new(false),
            this_user: OnceCell::new(),
            root: OnceCell::new(),
        }
    }

    /// Answers one connection until the other end hangs up or the place is needed. A connection that the host has
    /// accepted by itself has no place.
    async fn hold(&self, stream: UnixStream, peer: Peer, place: Option<Place>) {
        let (reader, mut writer) = stream.into_split();
        // A failed write or read means that the other end is gone: nobody is there to be told.
        if send(&mut writer, &Reply::Ready(Ready::this_process())).await.is_err() {
            return;
        }
        let mut conversation = Conversation { peer, acts_for: None, place, writer };
        let mut reader = BufReader::new(reader);
        let (mut line, mut is_first) = (Vec::new(), true);
        let mut ending = self.ending.subscribe();
        loop {
            line.clear();
            let limit = (is_first && conversation.place.is_some()) || conversation.is_short();
            let read =
                async { (&mut reader).take(REQUEST_BYTES_MAX).read_until(b'\n', &mut line).await };
            let read = tokio::select! {
                read = read => read,
                () = conversation.must_leave(limit) => return conversation.say_bye().await,
                () = async { drop(ending.wait_for(|ending| *ending).await) } => {
                    return conversation.say_bye().await;
                }
            };
            if !conversation.place.as_ref().is_none_or(Place::begin) {
                return conversation.say_bye().await;
            }
            let next = match read {
                Ok(1..) if line.ends_with(b"\n") => self.answer(&mut conversation, &line).await,
                Ok(1..) if line.len() as u64 == REQUEST_BYTES_MAX => {
                    let message = format!("a request may have at most {REQUEST_BYTES_MAX} bytes");
                    let _ = conversation.refuse(Refusal::new("InvalidRequest", 413, message)).await;
                    Ok(Next::End)
                }
                _ => return,
            };
            if !matches!(next, Ok(Next::Ask)) {
                return;
            }
            conversation.place.iter().for_each(Place::end);
            is_first = false;
        }
    }

    async fn answer(&self, conversation: &mut Conversation, line: &[u8]) -> io::Result<Next> {
        let Line { op, request, watch } = match serde_json::from_slice::<Line<Value>>(line) {
            Ok(line) => line,
            Err(error) => {
                let message = format!("bad request: {error}");
                return conversation.refuse(Refusal::new("InvalidRequest", 400, message)).await;
            }
        };
        if conversation.is_short() && (watch || !protocol::is_short(&op)) {
            let message = format!(
                "{CONNECTIONS_MAX} connections have a request under way; only requests that look or stop are taken"
            );
            return conversation.refuse(Refusal::new("Throttling", 503, message)).await;
        }
        if op == Hello::NAME {
            return match Hello::read(request) {
                Ok(hello) => {
                    conversation.acts_for = hello.acts_for;
                    conversation.send(&Reply::Ok(Value::Null)).await
                }
                Err(refusal) => conversation.refuse(refusal).await,
            };
        }
        let Some(engine) = self.engine.upgrade() else {
            return conversation.refuse(Error::ShuttingDown.into()).await;
        };
        let user = self.name(conversation.peer).await;
        let engine = engine.called_by(caller(&user, conversation.acts_for.as_deref()));
        if !watch {
            let asked = protocol::perform(&engine, &op, request);
            let reply = match conversation.show_life(asked).await? {
                Ok(response) => Reply::Ok(response),
                Err(refusal) => Reply::Error(refusal),
            };
            // The engine ends with its last handle, whether the other end reads its answer or not.
            drop(engine);
            return conversation.send(&reply).await;
        }
        let asked = protocol::perform_and_watch(&engine, &op, request);
        match conversation.show_life(asked).await? {
            Ok((response, events)) => {
                drop(engine);
                conversation.send(&Reply::Ok(response)).await?;
                conversation.pass_on(events).await
            }
            Err(refusal) => conversation.refuse(refusal).await,
        }
    }

    async fn name(&self, peer: Peer) -> String {
        let known = if peer.uid() == 0 { &self.root } else { &self.this_user };
        let ask = async || {
            // A directory service may take its time.
            let name = tokio::task::spawn_blocking(move || peer.name()).await;
            name.unwrap_or_else(|_| format!("uid {}", peer.uid()))
        };
        known.get_or_init(ask).await.clone()
    }
}

/// One connection.
struct Conversation {
    peer: Peer,
    acts_for: Option<String>,
    place: Option<Place>,
    writer: OwnedWriteHalf,
}

impl Conversation {
    fn is_short(&self) -> bool {
        self.place.as_ref().is_some_and(Place::is_short)
    }

    /// Waits until the place is needed by another connection, or the time for a request is over if there is one.
    async fn must_leave(&self, has_limit: bool) {
        let taken = async {
            match &self.place {
                Some(place) => place.taken().await,
                None => std::future::pending().await,
            }
        };
        if has_limit {
            let _ = tokio::time::timeout(FIRST_REQUEST_MAX, taken).await;
        } else {
            taken.await;
        }
    }

    async fn say_bye(&mut self) {
        let _ = tokio::time::timeout(UNREAD_MAX, send(&mut self.writer, &Reply::Bye {})).await;
    }

    /// Waits for an answer, and tells the other end each second that this process works.
    async fn show_life<T>(&mut self, answer: impl Future<Output = T>) -> io::Result<T> {
        let mut answer = std::pin::pin!(answer);
        loop {
            match tokio::time::timeout(ALIVE_EVERY, &mut answer).await {
                Ok(answer) => return Ok(answer),
                Err(_) => self.send(&Reply::Alive {}).await.map(drop)?,
            }
        }
    }

    async fn pass_on(&mut self, mut events: Watch) -> io::Result<Next> {
        loop {
            let reply = match self.show_life(events.next()).await? {
                Ok(Some(event)) => Reply::Event(event),
                Ok(None) => return self.send(&Reply::End {}).await,
                Err(error) => return self.refuse(error.into()).await,
            };
            self.send(&reply).await?;
        }
    }

    /// Says why there is no answer.
    async fn refuse(&mut self, why: Refusal) -> io::Result<Next> {
        self.send(&Reply::Error(why)).await
    }

    async fn send(&mut self, reply: &Reply) -> io::Result<Next> {
        let sent = send(&mut self.writer, reply);
        if self.place.as_ref().is_some_and(Place::is_short) {
            tokio::time::timeout(UNREAD_MAX, sent).await??;
        } else {
            sent.await?;
        }
        Ok(Next::Ask)
    }
}

async fn send(writer: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    writer.write_all(&line(reply)?).await
}

fn line(reply: &Reply) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_connection_for_which_no_place_is_left_is_told_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.db");
        let engine = Engine::open(&file).await.expect("an engine");
        let address = Address::of(&file).expect("a file");
        let listener = listen(&address).expect("a socket");
        let mut accepting = Accepting::new(&engine, address, listener, watch::Sender::new(0));
        let mut held = Vec::new();
        while let Some(place) = accepting.conversations.places.take() {
            assert!(place.begin());
            held.push(place);
        }
        let (mut ours, theirs) = UnixStream::pair().expect("a pair");
        accepting.take(theirs);
        let mut said = String::new();
        ours.read_to_string(&mut said).await.expect("readable");
        let Ok(Reply::Error(refusal)) = serde_json::from_str(&said) else { panic!("{said}") };
        assert_eq!((refusal.code.as_str(), refusal.http_status), ("Throttling", 503));
        engine.shutdown(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn a_lost_socket_is_looked_for_less_and_less_and_never_made_after_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, socket) = (folder.path().join("a.db"), folder.path().join("a.db.sock"));
        fs::write(&file, "").expect("written");
        let address = Address::of(&file).expect("a file");
        let _first = listen(&address).expect("a socket");
        let mut looks = Looks::new(address.clone());
        let mut look = |times: u32| {
            let made = (0..times).filter_map(|_| looks.see(address.listen_if_lost())).count();
            (made, looks.pause, looks.told.clone().unwrap_or_default())
        };
        assert_eq!(look(3), (0, LOOK_EVERY, String::new()), "the socket is there");

        fs::remove_file(&socket).expect("removed");
        fs::create_dir(&socket).expect("in the way");
        let (made, pause, told) = look(10);
        assert_eq!((made, pause), (0, LOOK_PAUSE_MAX));
        assert!(told.contains("is a folder"), "{told}");

        fs::remove_dir(&socket).expect("removed");
        assert_eq!(look(1), (1, LOOK_PAUSE_MAX, String::new()));
        assert_eq!(look(1), (0, LOOK_EVERY, String::new()), "the socket stays");

        address.remove();
        assert_eq!(look(1), (0, LOOK_EVERY, String::new()), "the service has ended");
        assert!(!socket.exists());
    }
}

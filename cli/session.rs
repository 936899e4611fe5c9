//! Where the engine is: in this process, in another one, or nowhere but on disk. Every command is
//! written once, against [`Session`].

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adjutant::{
    DirectorySink, Engine, EngineBuilder, Error, InvokeId, LOCAL, Limits, StorageError,
    StorageErrorKind, UnreadableRecord, Watch,
};
use tokio::time::Instant;

use crate::control::{
    Address, Client, Events, Heard, Paged, Request, SILENCE_MAX, SeeDelivered, WatchInvocation,
    WatchedRequest,
};
use crate::database::{builder, left};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::owner::Owner;
use crate::{ui, user};

/// How long an owner that does not listen is waited for, because it may be about to start or to end: as long as one that
/// says nothing.
pub(crate) const OWNER_PATIENCE: Duration = SILENCE_MAX;
/// How long one after the other is waited for, where many come and go.
const CROWD_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for one, at least; as much again at most by chance, so that those who came
/// together do not go on together.
const OWNER_POLL: Duration = Duration::from_millis(20);

/// How long a foreground process waits in the end for connections that do nothing.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// The engine's code for a damaged file.
const CORRUPT: &str = "Storage.Corrupt";

/// The most that a page holds.
pub(crate) const PAGE_SIZE: usize = 50;

/// How places for whole outputs begin that the engines of this program serve.
pub(crate) const FOLDERS: &str = "file://";

/// The way to the engine of one database file.
pub(crate) struct Session {
    database: PathBuf,
    need: Need,
    role: Role,
}

enum Role {
    /// This process runs the file.
    Owner(Owner),
    /// Another one does, and answers.
    Client(Client),
    /// Another one does and does not answer, or nothing can be written: the records can be read.
    Reader(Engine),
}

/// An engine that is to run the file. Whole outputs go wherever its user may write, but through no link that another user
/// can have made: a run of another user must not choose the place. Tags select as many instances as such a user has: waves and bounds are what large
/// fleets need, and not a limit of 100.
pub(crate) fn running(database: &Path) -> EngineBuilder {
    let anywhere = DirectorySink::new("/").follow_links();
    let mut limits = Limits::embedded();
    limits.tagged_instances_max = TAGGED_MAX;
    builder(database).limits(limits).output_sink(FOLDERS, anywhere)
}

/// More would take seconds to store in one commit.
const TAGGED_MAX: usize = 100_000;

/// What a command is going to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Look at records.
    Read,
    /// Change records.
    Write,
    /// Look at what runs until it ends.
    Follow,
    /// Run something.
    Run,
}

impl Need {
    /// Records alone will do.
    pub(crate) fn is_met_by_a_reader(self) -> bool {
        matches!(self, Self::Read | Self::Follow)
    }
}

impl Session {
    pub(crate) async fn open(database: &Path, need: Need) -> Result<Self, Failure> {
        let role = Role::find(database, need).await?;
        Ok(Self { database: database.to_owned(), need, role })
    }

    /// Reads the records of a file that does not exist: none. If the file was just taken away from a process that
    /// runs it, this fails.
    pub(crate) async fn on_nothing(database: &Path) -> Result<Self, Failure> {
        match builder(database).read_only().open().await {
            Err(Error::Storage(error)) if error.kind == StorageErrorKind::Moved => {
                return Err(Error::Storage(error).into());
            }
            _ => ui::note(&format!("there is no database at {} yet", database.display())),
        }
        let engine = Engine::builder().idle().open().await?;
        engine.remove_instance(&LOCAL.into()).await?;
        Ok(Self { database: database.to_owned(), need: Need::Read, role: Role::Reader(engine) })
    }

    /// Calls the engine.
    pub(crate) async fn call<O: Request>(&mut self, request: O) -> Result<O::Response, Failure> {
        let client = match &mut self.role {
            Role::Owner(owner) => return Ok(request.perform(owner.engine()).await?),
            Role::Reader(engine) => return Ok(request.perform(engine).await?),
            Role::Client(client) => client,
        };
        match client.call(&request).await {
            // A request that has not been taken, or that only reads, may be asked of the process that has the file now.
            Err(failure) if failure.is_unsent() || (failure.is_lost() && O::READS) => {
                let need = if O::READS { Need::Read } else { Need::Write };
                self.role = Role::find(&self.database, need).await?;
                Box::pin(self.call(request)).await
            }
            Err(failure) if failure.is_silent() && O::READS => {
                tell_silence(&failure);
                self.role = Role::reader(&self.database).await?;
                Box::pin(self.call(request)).await
            }
            result => result,
        }
    }

    /// Calls the engine for page after page, to the last one or until there is `enough`.
    pub(crate) async fn pages<O: Paged>(
        &mut self,
        mut request: O,
        enough: impl Fn(&O::Response) -> bool,
    ) -> Result<O::Response, Failure> {
        request.turn_to(PAGE_SIZE, None);
        let mut all = self.call(request.clone()).await?;
        let mut turned = HashSet::new();
        while !O::next_token(&all).is_empty() && !enough(&all) {
            let token = O::next_token(&all).to_owned();
            if !turned.insert(token.clone()) {
                let message =
                    format!("the page after `{token}` leads to itself: the file is damaged");
                return Err(Failure::new(CORRUPT, 500, message));
            }
            request.turn_to(PAGE_SIZE, Some(token));
            let next = self.call(request.clone()).await?;
            O::append(&mut all, next);
        }
        for UnreadableRecord { id, error, .. } in O::unreadable(&all) {
            tracing::warn!(record = id, error, "a record cannot be read");
        }
        Ok(all)
    }

    /// Starts or finds a run, and watches it from its beginning.
    pub(crate) async fn watch<O: WatchedRequest>(
        &mut self,
        request: O,
    ) -> Result<(O::Response, Watching), Failure> {
        match &mut self.role {
            Role::Owner(owner) => {
                let (response, watch) = request.clone().perform_and_watch(owner.engine()).await?;
                owner.is_here_for(request.invoke_id(&response));
                Ok((response, Watching::Here(watch)))
            }
            Role::Client(client) => {
                match client.watch(&request).await {
                    // A request that has not been taken may be asked of the process that has the file now.
                    Err(failure) if failure.is_unsent() => {
                        client.hang_up().await;
                        self.role = Role::find(&self.database, self.need).await?;
                        Box::pin(self.watch(request)).await
                    }
                    watched => {
                        watched.map(|(response, events)| (response, Watching::There(events)))
                    }
                }
            }
            Role::Reader(engine) => {
                let (response, watch) = request.perform_and_watch(engine).await?;
                Ok((response, Watching::Here(watch)))
            }
        }
    }

    /// Watches a run from its beginning after the process that ran it has ended, wherever it goes on.
    pub(crate) async fn watch_again(
        &mut self,
        lost: Watching,
        invoke_id: InvokeId,
    ) -> Result<Watching, Failure> {
        // That process waits for whoever still talks to it, and has the file until then.
        drop(lost);
        let patience = Patience::new();
        loop {
            if let Role::Client(client) = &mut self.role {
                client.hang_up().await;
            }
            // Who ends has given up the socket and not yet the file: that is waited for first.
            self.role = match Role::find(&self.database, self.need).await {
                Ok(role) => role,
                Err(_) => Role::find(&self.database, Need::Follow).await?,
            };
            match self.watch(WatchInvocation { invoke_id }).await {
                // It is still about to end.
                Err(failure) if failure.is_lost() || failure.is_shutting_down() => {}
                watched => return watched.map(|((), watching)| watching),
            }
            patience.pause().await;
        }
    }

    /// Waits until the outputs of a run that has ended are where they were to go, or cannot come there.
    pub(crate) async fn see_delivered(&mut self, invoke_id: InvokeId) -> Result<(), Failure> {
        let request = SeeDelivered { invoke_id };
        match &mut self.role {
            Role::Owner(owner) => Ok(request.perform(owner.engine()).await?),
            // Whoever runs the file next sees to what is left.
            Role::Client(client) => match client.call(&request).await {
                Err(failure) if failure.is_lost() => Ok(()),
                result => result,
            },
            Role::Reader(_) => Ok(()),
        }
    }

    /// The engine, if it is this process that runs it.
    pub(crate) fn engine(&self) -> Option<&Engine> {
        match &self.role {
            Role::Owner(owner) => Some(owner.engine()),
            Role::Client(_) | Role::Reader(_) => None,
        }
    }

    /// Returns whether this process only reads the records.
    pub(crate) fn reads_only(&self) -> bool {
        matches!(self.role, Role::Reader(_))
    }

    /// Has everything that runs in this process ended when it is closed.
    pub(crate) fn give_up(&mut self) {
        if let Role::Owner(owner) = &mut self.role {
            owner.give_up();
        }
    }

    /// Ends it. An owner that others can reach sees their work through first.
    pub(crate) async fn close(self, interrupts: &Interrupts) -> Result<(), Failure> {
        match self.role {
            Role::Owner(owner) => owner.close(IDLE_MAX, interrupts).await,
            Role::Client(_) => Ok(()),
            Role::Reader(engine) => {
                // One on nothing has a folder of its own, which goes with its last task.
                engine.shutdown(Duration::ZERO).await;
                Ok(())
            }
        }
    }
}

/// Waiting for whoever has a file and does not answer: for each process that has it
/// [`OWNER_PATIENCE`], so that only one that stays is in the way.
pub(crate) struct Patience {
    /// What the holder before was called, and since when it has been seen.
    holder: Option<(Failure, Instant)>,
    end: Instant,
    is_none: bool,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { holder: None, end: Instant::now() + CROWD_PATIENCE, is_none: false }
    }

    pub(crate) fn none() -> Self {
        Self { is_none: true, ..Self::new() }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.is_none
    }

    /// Whether to wait on after this failure, which names who has the file.
    pub(crate) fn has_more(&mut self, in_use: &Failure) -> bool {
        let now = Instant::now();
        let since = match &self.holder {
            Some((holder, since)) if holder == in_use => *since,
            _ => {
                self.holder = Some((in_use.clone(), now));
                now
            }
        };
        !self.is_none && now < self.end && now - since < OWNER_PATIENCE
    }

    pub(crate) async fn pause(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let chance = now.subsec_micros() ^ std::process::id();
        let chance = OWNER_POLL * (chance % 16) / 16;
        tokio::time::sleep(OWNER_POLL + chance).await;
    }
}

impl Role {
    async fn find(database: &Path, need: Need) -> Result<Self, Failure> {
        let is_look = need.is_met_by_a_reader();
        let mut patience = Patience::new();
        loop {
            let refused = match Self::owner(database, need).await {
                Ok(Some(owner)) => return Ok(owner),
                Ok(None) => None,
                Err(error) if is_look || may_be_answered_by_its_owner(&error) => Some(error),
                Err(error) => return Err(error.into()),
            };
            let is_in_use = matches!(refused, Some(Error::InUse { .. }));
            match Client::connect(database).await {
                Ok(Some(client)) => return Ok(Self::Client(client)),
                Ok(None) => {}
                Err(failure) if is_look => {
                    tell_silence(&failure);
                    return Self::reader(database).await;
                }
                Err(failure) if is_in_use => return Err(failure),
                Err(_) => {}
            }
            let Some(refused) = refused.filter(|_| is_in_use || !is_look).map(Failure::from) else {
                return Self::reader(database).await;
            };
            let late = !is_in_use || !patience.has_more(&refused);
            // A socket that does not answer is that of an owner which is just ending. Without one
            // there is nothing to wait for but what runs the file for good.
            if is_look && (late || !has_socket(database)) {
                return Self::reader(database).await;
            }
            if late {
                return Err(refused);
            }
            patience.pause().await;
        }
    }

    /// What comes and goes starts nothing that it would have to wait for. A look needs no owner, and this returns
    /// `None` then, unless an engine has left the file with records that are not true any more. A run that goes on
    /// without an engine can be followed only by an engine that takes the run back.
    async fn owner(database: &Path, need: Need) -> adjutant::Result<Option<Self>> {
        let left = left(database);
        if need == Need::Run || (need == Need::Follow && left.survivors) {
            let mut owner = Owner::new(user::calls(&running(database).open().await?));
            owner.listen();
            return Ok(Some(Self::Owner(owner)));
        }
        if need.is_met_by_a_reader() && !left.work {
            return Ok(None);
        }
        let engine = builder(database).idle().open().await?;
        Ok(Some(Self::Owner(Owner::new(user::calls(&engine)))))
    }

    async fn reader(database: &Path) -> Result<Self, Failure> {
        Ok(Self::Reader(builder(database).read_only().open().await?))
    }
}

/// Says why the records are read beside the process that runs the file.
fn tell_silence(failure: &Failure) {
    ui::note(&format!("{failure}; the answer is from its records"));
}

fn has_socket(database: &Path) -> bool {
    Address::of(database).is_ok_and(|address| address.exists())
}

/// Returns whether the process that runs the file may do what this process cannot: this process may be root's, whom the
/// file of another user is not safe to run for.
fn may_be_answered_by_its_owner(error: &Error) -> bool {
    match error {
        Error::InUse { .. } => true,
        Error::Storage(StorageError { kind, .. }) => *kind == StorageErrorKind::Unsafe,
        _ => false,
    }
}

/// The events of a run, wherever it runs.
pub(crate) enum Watching {
    Here(Watch),
    There(Events),
}

impl Watching {
    /// Whether it is this process that tells them.
    pub(crate) fn is_here(&self) -> bool {
        matches!(self, Self::Here(_))
    }

    /// Waits for what is heard next; `None` after the last event.
    pub(crate) async fn next(&mut self) -> Result<Option<Heard>, Failure> {
        match self {
            Self::Here(watch) => Ok(watch.next().await?.map(Heard::Event)),
            Self::There(events) => events.next().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use adjutant::control::{Line, Ready, Reply};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    async fn say(stream: &mut BufReader<UnixStream>, reply: &Reply) {
        let mut line = serde_json::to_vec(reply).expect("a line");
        line.push(b'\n');
        // The client may have gone.
        let _ = stream.get_mut().write_all(&line).await;
    }

    /// Answers one connection. The first requests to watch lose their place instead.
    async fn answer(stream: UnixStream, watches: Arc<AtomicU32>) {
        const EVICTIONS: u32 = 2;
        let mut stream = BufReader::new(stream);
        say(&mut stream, &Reply::Ready(Ready::this_process())).await;
        let mut text = String::new();
        while stream.read_line(&mut text).await.is_ok_and(|bytes| bytes > 0) {
            let line: Line<serde_json::Value> = serde_json::from_str(&text).expect("a request");
            text.clear();
            if line.watch && watches.fetch_add(1, Ordering::Relaxed) < EVICTIONS {
                return say(&mut stream, &Reply::Bye {}).await;
            }
            say(&mut stream, &Reply::Ok(serde_json::Value::Null)).await;
            if line.watch {
                say(&mut stream, &Reply::End {}).await;
            }
        }
    }

    #[tokio::test]
    async fn a_watch_whose_place_is_taken_is_asked_for_again() {
        let place = tempfile::tempdir().expect("a folder");
        let database = place.path().join("a.db");
        let engine = builder(&database).idle().open().await.expect("an engine");
        engine.shutdown(Duration::ZERO).await;
        let listener = UnixListener::bind(place.path().join("a.db.sock")).expect("a socket");
        let watches = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&watches);
        let owner = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&count)));
            }
        });
        let mut session = Session::open(&database, Need::Follow).await.expect("an owner");
        let invoke_id = "t-018bcfe5680072cdab6300748fca9a40".parse().expect("an id");
        let request = WatchInvocation { invoke_id };
        let ((), mut watching) = session.watch(request).await.expect("a watch in the end");
        assert!(!watching.is_here() && watching.next().await.expect("an end").is_none());
        assert_eq!(watches.load(Ordering::Relaxed), 3);
        owner.abort();
    }
}

//! The place of the socket of a database.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::net::UnixStream;

use super::peer::Peer;

/// The address of the socket beside a database file: `FILE.sock`.
///
/// A socket address holds about 100 bytes, and a path may be longer. The folder is therefore opened first, and the
/// socket is named through `/proc/self/fd`.
#[derive(Debug, Clone)]
pub struct Address {
    folder: PathBuf,
    name: OsString,
    /// The socket that this process has made. Whoever makes or removes the socket holds the lock, so that the socket is
    /// not made again while it is removed for good.
    made: Arc<Mutex<Option<Identity>>>,
}

/// The device and the inode of a socket.
type Identity = (u64, u64);

impl Address {
    /// Returns the address for a file. Each spelling of the path of one file leads to one address.
    ///
    /// # Errors
    ///
    /// The answer of the system if the file is not there or its folder cannot be entered.
    pub fn of(database: impl AsRef<Path>) -> io::Result<Self> {
        let file = fs::canonicalize(database)?;
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let mut name = name.to_owned();
        name.push(".sock");
        Ok(Self { folder: folder.to_owned(), name, made: Arc::default() })
    }

    /// Makes the socket in the place of the socket of an earlier owner. The caller must hold the lock of the database:
    /// because the lock has one holder, a socket that is there was left behind.
    pub(super) fn listen(&self) -> io::Result<UnixListener> {
        self.make(&mut self.made())
    }

    /// Makes the socket again if the socket that this process has made is no longer at its place; `None` if it is, or
    /// if it was removed by [`remove`](Self::remove).
    pub(super) fn listen_if_lost(&self) -> io::Result<Option<UnixListener>> {
        let mut made = self.made();
        let is_lost = made.is_some() && *made != self.found();
        is_lost.then(|| self.make(&mut made)).transpose()
    }

    fn make(&self, made: &mut Option<Identity>) -> io::Result<UnixListener> {
        let folder = self.enter()?;
        match self.kind_in(&folder)? {
            Some(FileType::Socket) => rustix::fs::unlinkat(&folder, &self.name, AtFlags::empty())?,
            Some(kind) => return Err(self.in_the_way(kind)),
            None => {}
        }
        // A peer of another user that connects before the mode is right is sent away by the check of peers.
        let listener = UnixListener::bind(through(&folder).join(&self.name))?;
        let private = self.make_private(&folder);
        *made = Some(private.inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&folder, &self.name, AtFlags::empty());
        })?);
        Ok(listener)
    }

    /// Keeps other users from the socket. The mode is set through a descriptor, because another file could have the
    /// name of the socket by now.
    fn make_private(&self, folder: &OwnedFd) -> io::Result<Identity> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = rustix::fs::openat(folder, &self.name, flags, Mode::empty())?;
        let found = rustix::fs::fstat(&socket)?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if kind != FileType::Socket || found.st_uid != rustix::process::geteuid().as_raw() {
            return Err(self.in_the_way(kind));
        }
        fs::set_permissions(through(&socket), fs::Permissions::from_mode(0o600))?;
        Ok((found.st_dev, found.st_ino))
    }

    fn in_the_way(&self, kind: FileType) -> io::Error {
        let kind = match kind {
            FileType::Symlink => "a link",
            FileType::Directory => "a folder",
            FileType::Socket => "a socket of another user",
            _ => "no socket",
        };
        let message = format!("{} is {kind}; remove it", self.path().display());
        io::Error::new(io::ErrorKind::AlreadyExists, message)
    }

    /// Connects to the process that listens. The process must be of this user; root connects to processes of every
    /// user.
    ///
    /// # Errors
    ///
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) if the process is of another user, and the answer of the
    /// system if no process listens.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let socket = rustix::fs::openat(self.enter()?, &self.name, flags, Mode::empty())?;
        let stream = UnixStream::connect(through(&socket)).await?;
        let this = rustix::process::geteuid();
        if this.is_root() || Peer::of(&stream)?.uid() == this.as_raw() {
            Ok(stream)
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    /// Returns whether a socket is there, in use or left behind.
    pub fn exists(&self) -> bool {
        self.enter().and_then(|folder| self.kind_in(&folder)).is_ok_and(|kind| kind.is_some())
    }

    /// Removes the socket that this process has made: from then on a client finds no owner. A socket that another
    /// process has put in its place stays.
    pub fn remove(&self) {
        let mut lock = self.made();
        let made = lock.take();
        if made.is_some() && made == self.found() {
            // A folder that has gone has no socket.
            if let Ok(folder) = self.enter() {
                let _ = rustix::fs::unlinkat(folder, &self.name, AtFlags::empty());
            }
        }
    }

    /// Removes the socket of an owner that is gone. Only the process that holds the lock of the database may call this.
    pub fn tidy(&self) {
        if let Ok(folder) = self.enter()
            && let Ok(Some(FileType::Socket)) = self.kind_in(&folder)
        {
            let _ = rustix::fs::unlinkat(folder, &self.name, AtFlags::empty());
        }
    }

    fn enter(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(&self.folder, flags, Mode::empty())?)
    }

    /// Returns the kind of the file that has the name of the socket.
    fn kind_in(&self, folder: &OwnedFd) -> io::Result<Option<FileType>> {
        match rustix::fs::statat(folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(FileType::from_raw_mode(found.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn found(&self) -> Option<Identity> {
        let found = rustix::fs::statat(self.enter().ok()?, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        found.ok().map(|found| (found.st_dev, found.st_ino))
    }

    fn made(&self) -> MutexGuard<'_, Option<Identity>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }
}

/// Returns the name of an open file in `/proc`, which is short.
fn through(file: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())
}

//! Where the socket of a database is.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixStream;

/// The socket beside a database file: `<file>.sock`.
///
/// A socket address holds about 100 bytes and paths may be longer, so the folder is opened first
/// and the socket named through `/proc/self/fd`.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    folder: PathBuf,
    name: OsString,
    /// The name under which the socket is made: short, and the same for the next process that runs the file.
    fresh: OsString,
    /// The device and the inode of the socket that this process has made.
    made: Arc<Mutex<Option<(u64, u64)>>>,
}

impl Address {
    /// The address for a file; every spelling of one file leads to one address.
    pub(crate) fn of(database: &Path) -> io::Result<Self> {
        let file = fs::canonicalize(database)?;
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let mut name = name.to_owned();
        name.push(".sock");
        let fresh = format!(".adjutant-{}.sock", fs::metadata(&file)?.ino()).into();
        Ok(Self { folder: folder.to_owned(), name, fresh, made: Arc::default() })
    }

    /// Takes the address over from whoever had it. Only for the owner of the database's lock: who
    /// holds that lock knows that a socket which is there already was left behind.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        let folder = self.open(&self.folder, OFlags::PATH | OFlags::DIRECTORY)?;
        let folder = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join("");
        // Made under another name and moved: nobody can connect before the mode is right, and a
        // socket that was left behind is replaced in one step.
        self.check_place()?;
        self.tidy();
        let fresh = folder.join(&self.fresh);
        let listener = UnixListener::bind(&fresh)?;
        self.set_private(&fresh)
            .and_then(|()| fs::rename(&fresh, folder.join(&self.name)))
            .inspect_err(|_| drop(fs::remove_file(&fresh)))?;
        *self.made() = self.found();
        Ok(listener)
    }

    /// Checks that the socket replaces nothing but the socket of an earlier owner.
    fn check_place(&self) -> io::Result<()> {
        match fs::symlink_metadata(self.path()) {
            Ok(found) if !found.file_type().is_socket() => {
                let what = if found.is_symlink() { "a link" } else { "no socket" };
                let message = format!("{} is {what}; remove it", self.path().display());
                Err(io::Error::new(io::ErrorKind::AlreadyExists, message))
            }
            _ => Ok(()),
        }
    }

    /// Keeps other users from a socket. The mode is set by the descriptor of the socket, because another file may
    /// have its name by now.
    fn set_private(&self, socket: &Path) -> io::Result<()> {
        let socket = self.open(socket, OFlags::PATH | OFlags::NOFOLLOW)?;
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    }

    /// Removes the socket of an owner that died while it was about to listen. Only the owner of the
    /// database's lock may call this.
    pub(crate) fn tidy(&self) {
        let _ = fs::remove_file(self.folder.join(&self.fresh));
    }

    /// Connects to whoever listens; refuses one that belongs to another user.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        let socket = self.open(&self.path(), OFlags::PATH | OFlags::NOFOLLOW)?;
        let path = format!("/proc/self/fd/{}", socket.as_fd().as_raw_fd());
        let stream = UnixStream::connect(path).await?;
        if is_same_user(&stream) { Ok(stream) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// Whether there is a socket, in use or left behind.
    pub(crate) fn exists(&self) -> bool {
        fs::symlink_metadata(self.path()).is_ok()
    }

    /// Removes the socket: from now on a client finds no owner. A socket that another process has put in its place
    /// stays.
    pub(crate) fn remove(&self) {
        let made = *self.made();
        if (made.is_none() || made == self.found()) && self.check_place().is_ok() {
            let _ = fs::remove_file(self.path());
        }
    }

    /// Returns whether the socket that this process has made is no longer at its place.
    pub(crate) fn is_lost(&self) -> bool {
        let made = *self.made();
        made.is_some() && made != self.found()
    }

    fn found(&self) -> Option<(u64, u64)> {
        let found = fs::symlink_metadata(self.path()).ok()?;
        Some((found.dev(), found.ino()))
    }

    fn made(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
    }
}

/// Whether the other end is a process of this user.
pub(crate) fn is_same_user(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::getuid().as_raw())
}

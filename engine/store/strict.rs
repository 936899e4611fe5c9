//! Strict modes: whether other users could have made, or could change, a database, its folder, or a file beside it.
//! Because schedules in the file run as the user of this process, such a file could run commands of another user. The
//! check comes before SQLite or a lock touches any of these files.
//!
//! Trusted are the user of this process and root. No other user may own or write what is checked, or the folders that
//! lead there. A folder with the sticky bit, like `/tmp`, may be writable by others, because they cannot replace what
//! is this user's there. They can add files, so [`Folder::check`] is repeated once SQLite has opened all of its files.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result, StorageErrorKind};

use super::cause::{cannot_open, in_the_way};
use super::storage;

/// Files beside a database, and the file itself.
const FILES: [&str; 6] = ["", "-wal", "-shm", "-journal", ".lock", ".turn"];
/// Folders beside a database.
const FOLDERS: [&str; 3] = [".run", ".runs", ".outputs"];
/// The control socket. The process that listens there checks who connects, whatever the mode.
const SOCKET: &str = ".sock";

/// The journal of a file that has no log. SQLite writes a journal that it finds back into the file.
const JOURNAL: &str = "-journal";

/// The mode bits that say who may write: the group, and all others.
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;
/// Others may add files to such a folder, but not rename or remove files of this user.
const STICKY: u32 = 0o1000;

/// The folder of a database that has passed the check.
#[derive(Debug)]
pub(super) struct Folder {
    folder: OwnedFd,
    path: PathBuf,
    /// The name of the database in the folder.
    name: OsString,
    mode: u32,
    /// Whether others may add files to the folder.
    is_open_to_others: bool,
}

impl Folder {
    /// Opens the folder of a database, whose path is canonical, and checks the folder and the folders above it.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unsafe`] if another user could change what lies there.
    pub(super) fn open(database: &Path) -> Result<Self> {
        let path = database.parent().unwrap_or(Path::new("/"));
        let cannot = |error: Errno| cannot_open(path, &error.into());
        for above in path.ancestors().skip(1) {
            let found =
                rustix::fs::statat(CWD, above, AtFlags::SYMLINK_NOFOLLOW).map_err(cannot)?;
            check_folder(above, &found)?;
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(cannot)?;
        let found = rustix::fs::fstat(&folder).map_err(cannot)?;
        let is_open_to_others = check_folder(path, &found)?;
        let name = database.file_name().unwrap_or_default().to_owned();
        let mode = found.st_mode;
        Ok(Self { folder, path: path.to_owned(), name, mode, is_open_to_others })
    }

    /// Checks the database and what lies beside it.
    ///
    /// # Errors
    ///
    /// [`StorageErrorKind::Unsafe`] if another user owns or could change a file, [`StorageErrorKind::InTheWay`] if a
    /// file lies at the name of a folder.
    pub(super) fn check(&self) -> Result<()> {
        for suffix in FILES {
            if let Some(found) = self.find(suffix)? {
                check_entry(&self.path_of(suffix), &found)?;
            }
        }
        for suffix in FOLDERS {
            let Some(found) = self.find(suffix)? else { continue };
            let path = self.path_of(suffix);
            check_entry(&path, &found)?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => {}
                FileType::Symlink => {
                    return Err(in_the_way(
                        &path,
                        "it is a link, and links are not followed there",
                    ));
                }
                _ => return Err(in_the_way(&path, "it is no folder")),
            }
        }
        match self.find(SOCKET)? {
            Some(found) => check_owner(&self.path_of(SOCKET), &found),
            None => Ok(()),
        }
    }

    /// Returns whether others may add files to the folder, so that what was checked may have company by now.
    pub(super) fn is_open_to_others(&self) -> bool {
        self.is_open_to_others
    }

    /// Returns whether others can read a file of this mode in the folder.
    pub(super) fn shows(&self, mode: u32) -> bool {
        let [group, others] = [(0o040, 0o010), (0o004, 0o001)]
            .map(|(reads, enters)| mode & reads != 0 && self.mode & enters != 0);
        group || others
    }

    /// Takes the name of the journal, for a folder to which others may add files, until the guard is dropped: while
    /// SQLite opens a file, it would write a journal of another user back into the file. An empty journal does nothing.
    pub(super) fn hold_journal(&self) -> Result<Option<HeldName>> {
        if self.find("")?.is_none_or(|found| found.st_size == 0) {
            return Ok(None);
        }
        let name = self.name_of(JOURNAL);
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.folder, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                let folder = self.folder.try_clone();
                let folder = folder.map_err(|error| cannot_open(&self.path, &error))?;
                Ok(Some(HeldName { folder, name, file: file.into() }))
            }
            // The journal of a transaction that was cut off; `check` has looked at its owner, or will do so.
            Err(Errno::EXIST) => Ok(None),
            Err(error) => Err(cannot_open(&self.path_of(JOURNAL), &error.into())),
        }
    }

    fn find(&self, suffix: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.folder, self.name_of(suffix), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(cannot_open(&self.path_of(suffix), &error.into())),
        }
    }

    fn name_of(&self, suffix: &str) -> OsString {
        let mut name = self.name.clone();
        name.push(suffix);
        name
    }

    fn path_of(&self, suffix: &str) -> PathBuf {
        self.path.join(self.name_of(suffix))
    }
}

/// A name at which an empty file keeps others from putting theirs. Its drop removes the file.
#[derive(Debug)]
pub(super) struct HeldName {
    folder: OwnedFd,
    name: OsString,
    file: File,
}

impl Drop for HeldName {
    fn drop(&mut self) {
        let is_same = |found: Stat| {
            rustix::fs::fstat(&self.file)
                .is_ok_and(|ours| (ours.st_dev, ours.st_ino) == (found.st_dev, found.st_ino))
        };
        let found = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(is_same) {
            // If the file stays, it is empty, and SQLite passes over it.
            let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

/// Checks for a process that only reads a file that the log of the file is not another user's. The file itself may be
/// anybody's, because nothing in it is run.
pub(super) fn check_log(database: &Path) -> Result<()> {
    let find = |path: &Path| rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok();
    let Some(owner) = find(database).map(|found| found.st_uid) else { return Ok(()) };
    for suffix in &FILES[1..4] {
        let path = crate::files::beside(database, suffix);
        if let Some(found) = find(&path).filter(|found| found.st_uid != owner) {
            check_owner(&path, &found)?;
        }
    }
    Ok(())
}

/// Returns whether others may add files to the folder.
fn check_folder(path: &Path, found: &Stat) -> Result<bool> {
    check_owner(path, found)?;
    match writer_of(path, found) {
        None => Ok(false),
        Some(_) if found.st_mode & STICKY != 0 => Ok(true),
        Some(who) => Err(writable(path, found, &who)),
    }
}

fn check_entry(path: &Path, found: &Stat) -> Result<()> {
    check_owner(path, found)?;
    // The mode of a link says nothing.
    let is_link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink;
    match writer_of(path, found).filter(|_| !is_link) {
        None => Ok(()),
        Some(who) => Err(writable(path, found, &who)),
    }
}

fn check_owner(path: &Path, found: &Stat) -> Result<()> {
    if is_trusted(found.st_uid) {
        return Ok(());
    }
    let this = rustix::process::geteuid();
    let me = user(this.as_raw());
    let or_root = if this.is_root() { "" } else { " or of root" };
    let message = format!(
        "`{}` belongs to {}, mode {:04o}; want a file or folder of {me}{or_root}: give it to {me} with chown, or \
         remove it if another user has put it there",
        path.display(),
        user(found.st_uid),
        found.st_mode & 0o7777,
    );
    Err(storage(StorageErrorKind::Unsafe, message))
}

fn writable(path: &Path, found: &Stat, who: &str) -> Error {
    let message = format!(
        "`{}` can be written by {who}; it belongs to {}, mode {:04o}: `chmod go-w '{}'` mends that",
        path.display(),
        user(found.st_uid),
        found.st_mode & 0o7777,
        path.display(),
    );
    storage(StorageErrorKind::Unsafe, message)
}

fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw() || is_outside(uid)
}

/// Returns whether an owner is outside of the user namespace of this process. In there, root outside and every other
/// user outside look alike, and whoever made the namespace has chosen what is seen in it.
fn is_outside(uid: u32) -> bool {
    /// The number of each owner without a number of its own.
    const OVERFLOW: u32 = 65_534;
    if uid != OVERFLOW {
        return false;
    }
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else { return false };
    !map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return true;
        };
        (first..first.saturating_add(count)).contains(&u64::from(OVERFLOW))
    })
}

/// Returns which other users may write to a file or folder; `None` if there are none.
fn writer_of(path: &Path, found: &Stat) -> Option<String> {
    if found.st_mode & OTHERS_WRITE != 0 {
        return Some("every user".to_owned());
    }
    if found.st_mode & GROUP_WRITES == 0 {
        return None;
    }
    if has_list(path) {
        // The bits of the group are then those of all users in the list.
        return Some("users in its access control list".to_owned());
    }
    let gid = Gid::from_raw(found.st_gid);
    let group = Group::from_gid(gid).ok().flatten();
    match group {
        Some(group) if is_private(&group, found.st_uid) => None,
        Some(group) => Some(format!("the group `{}`", group.name)),
        // Nobody can log in with a group that the system does not know, and this process has that group already.
        None if is_of_this_process(gid) => None,
        None => Some(format!("the group {gid}")),
    }
}

/// Returns whether a group has one member only, by the custom that each user has a group of the same name.
fn is_private(group: &Group, owner: u32) -> bool {
    let me = rustix::process::geteuid().as_raw();
    [me, owner, 0].into_iter().any(|uid| {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        user.is_some_and(|user| {
            user.name == group.name && group.mem.iter().all(|member| *member == user.name)
        })
    })
}

fn is_of_this_process(gid: Gid) -> bool {
    let groups = nix::unistd::getgroups().unwrap_or_default();
    gid == nix::unistd::getegid() || groups.contains(&gid)
}

/// Returns whether a file or folder has an access control list. If the system does not say, it has one.
fn has_list(path: &Path) -> bool {
    // Each list is longer, and then the error is that the buffer is too short.
    let mut list = [0_u8; 1];
    match rustix::fs::lgetxattr(path, "system.posix_acl_access", &mut list) {
        Ok(bytes) => bytes > 0,
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => false,
        Err(_) => true,
    }
}

/// Returns a user in words.
pub(super) fn user(uid: u32) -> impl fmt::Display {
    match User::from_uid(Uid::from_raw(uid)).ok().flatten() {
        Some(user) => format!("`{}` (uid {uid})", user.name),
        None => format!("uid {uid}"),
    }
}

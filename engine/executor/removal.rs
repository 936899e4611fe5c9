//! Removes files and folders that a run could fill. The depth of a folder costs neither stack nor descriptors: each
//! folder inside is moved up to the top, and removed there. A removal goes on after an error.
//!
//! Because a run can make a removal long, only a few system calls of it take place on the thread of the caller; a
//! thread of this module does the rest.

use std::collections::VecDeque;
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::panics::tell;

/// The prefix of the names of folders that are about to be removed.
const TRASH: &str = "trash-";
/// Looks through one folder. A process that goes on to fill the folder does not hold up the removal of others.
const PASSES_MAX: u32 = 16;
/// Entries of a folder that are removed on the thread of the caller.
const AT_ONCE_MAX: usize = 64;
/// Folders that wait for the thread. A folder beyond this number stays until the engine opens again.
const WAITING_MAX: usize = 4_096;

/// Removes a file, or a folder with all its content; blocks. Nothing happens if there is none.
///
/// # Errors
///
/// The first error, after everything has been removed that can be removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let (place, name) = Place::of(path)?;
    match remove_one(&place.top, &name) {
        Ok(One::Removed) => Ok(()),
        Ok(One::HasContent) => place.remove_all(&name),
        Err(error) => Err(error.into()),
    }
}

/// Removes a file, or a folder with all its content: after this call nothing has this name any more. A large folder
/// is removed by another thread, which tells of errors.
///
/// # Errors
///
/// The reason for which the file or folder stays where it is.
pub(super) fn remove_aside(path: &Path) -> io::Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let (mut place, name) = Place::of(path)?;
    match remove_one(&place.top, &name)? {
        One::Removed => return Ok(()),
        One::HasContent if place.remove_shallow(&name)? => return Ok(()),
        One::HasContent => {}
    }
    let trash = place.take(&name)?;
    hand_over(path.with_file_name(OsStr::from_bytes(trash.to_bytes())))
}

/// Waits until the thread has removed all folders that it was given, `limit` at most.
pub(super) fn wait(limit: Duration) {
    let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    // Whatever is left then is removed when the engine opens again.
    let _ = IDLE.wait_timeout_while(waiting, limit, |waiting| waiting.has_thread);
}

/// The folders that wait for the thread.
struct Waiting {
    folders: VecDeque<PathBuf>,
    has_thread: bool,
}

static WAITING: Mutex<Waiting> =
    Mutex::new(Waiting { folders: VecDeque::new(), has_thread: false });
static IDLE: Condvar = Condvar::new();

/// Has the thread remove a folder.
fn hand_over(folder: PathBuf) -> io::Result<()> {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    if waiting.folders.len() >= WAITING_MAX {
        return Err(io::Error::other("too many folders wait to be removed"));
    }
    waiting.folders.push_back(folder);
    if !waiting.has_thread {
        thread::Builder::new().name("adjutant-remover".into()).spawn(remove_waiting)?;
        waiting.has_thread = true;
    }
    Ok(())
}

fn remove_waiting() {
    loop {
        let folder = {
            let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(folder) = waiting.folders.pop_front() else {
                waiting.has_thread = false;
                IDLE.notify_all();
                return;
            };
            folder
        };
        if let Err(error) = remove(&folder) {
            tell_of(&folder, &error);
        }
    }
}

/// Tells that something stays until the engine opens again.
pub(super) fn tell_of(path: &Path, error: &io::Error) {
    tell(|| tracing::warn!(%error, path = %path.display(), "a file of a run stays behind"));
}

/// What became of one file or folder.
enum One {
    /// It is gone, or was not there.
    Removed,
    /// It is a folder with content.
    HasContent,
}

/// Removes a file or an empty folder.
fn remove_one(folder: &OwnedFd, name: &CStr) -> Result<One, Errno> {
    let removed = match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(One::Removed),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(One::HasContent),
        Err(error) => Err(error),
    }
}

/// A folder of this user in which something is removed, and to which folders from further below are moved.
struct Place {
    top: OwnedFd,
    /// A number that nobody can guess, so no name is taken.
    prefix: Uuid,
    /// The numbers of the folders that have been moved here.
    moved: u64,
    refusal: Option<io::Error>,
}

impl Place {
    /// Returns the place of a file or folder, and its name there.
    fn of(path: &Path) -> io::Result<(Self, CString)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::openat(CWD, parent, flags, Mode::empty())?;
        let name = CString::new(name.as_bytes())?;
        Ok((Self { top, prefix: Uuid::new_v4(), moved: 0, refusal: None }, name))
    }

    /// Removes a folder with a few files. Returns whether it is gone; if it has much content, some of the content is
    /// left.
    fn remove_shallow(&self, name: &CStr) -> io::Result<bool> {
        let folder = self.open(name)?;
        for (count, entry) in entries(&folder)?.enumerate() {
            let is_left = || match remove_one(&folder, entry?.file_name()) {
                Ok(One::Removed) => Ok::<_, Errno>(false),
                Ok(One::HasContent) | Err(_) => Ok(true),
            };
            if count >= AT_ONCE_MAX || is_left()? {
                return Ok(false);
            }
        }
        Ok(matches!(remove_one(&self.top, name)?, One::Removed))
    }

    /// Removes a folder with all its content.
    fn remove_all(mut self, name: &CStr) -> io::Result<()> {
        self.take(name)?;
        let mut next = 0;
        while next < self.moved {
            if let Err(error) = self.clear(next) {
                self.note(error);
            }
            next += 1;
        }
        self.refusal.map_or(Ok(()), Err)
    }

    /// Gives a folder of the place a name of its own.
    fn take(&mut self, name: &CStr) -> io::Result<CString> {
        let trash = self.name_of(self.moved);
        rustix::fs::renameat(&self.top, name, &self.top, &trash)?;
        self.moved += 1;
        Ok(trash)
    }

    fn name_of(&self, number: u64) -> CString {
        CString::new(format!("{TRASH}{}-{number}", self.prefix.simple())).unwrap_or_default()
    }

    /// Removes one of the folders that have been moved here; the folders inside are moved here.
    fn clear(&mut self, number: u64) -> io::Result<()> {
        let name = self.name_of(number);
        let folder = self.open(&name)?;
        for _ in 0..PASSES_MAX {
            for entry in entries(&folder)? {
                let entry = entry?;
                let removed = match remove_one(&folder, entry.file_name()) {
                    Ok(One::HasContent) => self.move_up(&folder, entry.file_name()),
                    Ok(One::Removed) => Ok(()),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = removed {
                    self.note(error);
                }
            }
            if let One::Removed = remove_one(&self.top, &name)? {
                return Ok(());
            }
            if self.refusal.is_some() {
                break;
            }
        }
        Err(Errno::NOTEMPTY.into())
    }

    fn move_up(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<()> {
        let moved = || rustix::fs::renameat(folder, name, &self.top, self.name_of(self.moved));
        match moved() {
            // The system changes the entry `..` of a folder that it moves.
            Err(Errno::ACCESS) => {
                permit(folder, name)?;
                moved()?;
            }
            moved => moved?,
        }
        self.moved += 1;
        Ok(())
    }

    /// Opens a folder so that its entries can be removed, and so that no other user can add some.
    fn open(&self, name: &CStr) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.top, name, flags, Mode::empty());
        let folder = match open() {
            Err(Errno::ACCESS) => {
                permit(&self.top, name)?;
                open()?
            }
            opened => opened?,
        };
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        // This user may lack the right; then the entries that it cannot remove tell so.
        if rustix::fs::fstat(&folder)?.st_uid != uid.as_raw() {
            let _ = rustix::fs::fchown(&folder, Some(uid), Some(gid));
        }
        let _ = rustix::fs::fchmod(&folder, Mode::RWXU);
        Ok(folder)
    }

    /// Keeps the first error.
    fn note(&mut self, error: io::Error) {
        self.refusal.get_or_insert(error);
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// Returns the entries of a folder without `.` and `..`.
fn entries(
    folder: &OwnedFd,
) -> io::Result<impl Iterator<Item = Result<rustix::fs::DirEntry, Errno>> + use<>> {
    let is_inside = |entry: &Result<rustix::fs::DirEntry, Errno>| {
        !entry.as_ref().is_ok_and(|entry| [c".", c".."].contains(&entry.file_name()))
    };
    Ok(Dir::read_from(folder)?.filter(is_inside))
}

/// Lets this user enter and change a folder of its own, whatever the mode of the folder is. No link is followed.
fn permit(parent: &OwnedFd, name: &CStr) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::RWXU)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Makes folders inside one another, without a path to the last.
    fn nest(top: &Path, levels: usize) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut last = rustix::fs::openat(CWD, top, flags, Mode::empty()).expect("a folder");
        for _ in 0..levels {
            rustix::fs::mkdirat(&last, "d", Mode::RWXU).expect("a folder");
            last = rustix::fs::openat(&last, "d", flags, Mode::empty()).expect("a folder");
        }
    }

    fn is_empty(place: &Path) -> bool {
        fs::read_dir(place).expect("a folder").next().is_none()
    }

    #[test]
    fn twenty_thousand_levels_are_removed_on_a_small_stack() {
        for removed in [remove, remove_aside] {
            // A disk takes a minute for so many folders.
            let in_memory = tempfile::tempdir_in("/dev/shm");
            let place = in_memory.or_else(|_| tempfile::tempdir()).expect("a folder");
            let folder = place.path().join("folder");
            fs::create_dir(&folder).expect("a folder");
            nest(&folder, 20_000);
            let small = thread::Builder::new().stack_size(64 * 1024);
            let is_removed = small.spawn(move || removed(&folder)).expect("a thread").join();
            is_removed.expect("no panic").expect("removed");
            wait(Duration::from_secs(60));
            assert!(is_empty(place.path()));
        }
    }

    #[test]
    fn all_kinds_of_content_are_removed_and_no_link_is_followed() {
        let (place, elsewhere) = (tempfile::tempdir(), tempfile::tempdir());
        let (place, elsewhere) = (place.expect("a folder"), elsewhere.expect("a folder"));
        fs::write(elsewhere.path().join("precious"), "kept").expect("written");
        fs::create_dir(elsewhere.path().join("folder")).expect("a folder");
        let top = place.path().join("top");
        let fill = |folder: &Path| {
            fs::create_dir(folder).expect("a folder");
            symlink(elsewhere.path(), folder.join("link")).expect("a link");
            symlink("nowhere", folder.join("dangling")).expect("a link");
            for number in 0..3 * AT_ONCE_MAX {
                fs::write(folder.join(number.to_string()), "").expect("written");
            }
        };
        for removed in [remove, remove_aside] {
            fill(&top);
            fill(&top.join("a"));
            fill(&top.join("a/b"));
            for (folder, mode) in [("a/b", 0o000), ("a", 0o500), ("", 0o000)] {
                let mode = fs::Permissions::from_mode(mode);
                fs::set_permissions(top.join(folder), mode).expect("set");
            }
            removed(&top).expect("removed");
            assert!(!top.exists());
            removed(&top).expect("it is gone already");
            wait(Duration::from_secs(60));
            assert!(is_empty(place.path()));
        }
        symlink(elsewhere.path(), &top).expect("a link");
        remove(&top).expect("the link is removed");
        assert_eq!(fs::read_dir(elsewhere.path()).expect("a folder").count(), 2);
    }
}

//! Removes files and folders that a run could fill. The depth of a folder costs neither stack nor descriptors: each
//! folder inside is moved up to the top, and removed there. A removal goes on after an error.
//!
//! Because a run can make a removal long, only a few system calls of it take place on the thread of the caller; a
//! thread of this module does the rest.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use uuid::Uuid;

use crate::panics::tell;

/// The prefix of the names of folders that are about to be removed.
pub(super) const TRASH: &str = "trash-";
/// Looks through one folder, each of which removes all that it finds. A folder that a process fills again between the
/// looks stays until the engine opens again.
const PASSES_MAX: u32 = 16;
/// Entries that one removal takes away before the other removals have their turn. A process that goes on to fill a
/// folder, or to make folders inside one another, does not hold up the removal of other folders.
const TURN_ENTRIES: u32 = 16_384;
/// Turns of one removal. Because a process can fill folders as fast as this module empties them, whatever is left then
/// stays until the engine opens again.
const TURNS_MAX: u32 = 1_024;
/// Entries of a folder that are removed on the thread of the caller.
const AT_ONCE_MAX: usize = 64;
/// The largest file that is removed on the thread of the caller: the system frees each block of a file.
const AT_ONCE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Entries of a folder that are moved aside together. The next open moves the others.
const SWEPT_MAX: usize = 65_536;
/// Folders that wait for the thread. A folder beyond this number stays until the engine opens again.
const WAITING_MAX: usize = 4_096;

/// Removes a file, or a folder with all its content: after this call nothing has this name any more. A large file or
/// folder is removed by another thread, which tells of errors.
///
/// # Errors
///
/// The reason for which the file or folder stays where it is.
pub(super) fn remove_aside(path: &Path) -> io::Result<()> {
    let found = match rustix::fs::lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        found => found?,
    };
    let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    if !is_folder && !is_large(&found) {
        return match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        };
    }
    let (mut place, name) = Place::of(path)?;
    if is_folder {
        match remove_one(&place.top, &name)? {
            One::Removed => return Ok(()),
            One::HasContent if place.remove_shallow(&name)? => return Ok(()),
            One::HasContent => {}
        }
    }
    place.take(&name)?;
    place.hand_over(path)
}

/// Has another thread remove the entries of a folder, except for entries whose names `stays` accepts. After this call
/// the folder has only such entries, and one more with what is being removed.
///
/// # Errors
///
/// The first error, after everything has been moved aside that can be moved.
pub(super) fn sweep_aside(folder: &Path, stays: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let mut place = Place::within(folder, Trash::new())?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let listed = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in entries(&listed)?.take(SWEPT_MAX) {
        let entry = entry?;
        if !stays(entry.file_name().to_bytes()) {
            names.push(entry.file_name().to_owned());
        }
    }
    if names.is_empty() {
        return Ok(());
    }
    let trash = place.name_of(0);
    rustix::fs::mkdirat(&place.top, &trash, Mode::RWXU)?;
    place.trash.moved = 1;
    let inside = rustix::fs::openat(&place.top, &trash, flags, Mode::empty())?;
    let mut refusal = None;
    for name in names {
        let moved = || rustix::fs::renameat(&listed, &name, &inside, &name);
        let moved = match moved() {
            Err(Errno::ACCESS) => permit(&listed, &name).and_then(|()| Ok(moved()?)),
            Err(Errno::NOENT) => Ok(()),
            moved => moved.map_err(io::Error::from),
        };
        refusal = refusal.or(moved.err());
    }
    place.hand_over(&folder.join(OsStr::from_bytes(trash.to_bytes())))?;
    refusal.map_or(Ok(()), Err)
}

/// Waits until the thread has removed everything that it was given of a folder, `limit` at most; blocks.
pub(super) fn wait(folder: &Path, limit: Duration) {
    let is_busy = |waiting: &mut Waiting| waiting.has_thread && waiting.has(folder);
    // Whatever is left then is removed when the engine opens again.
    let _ = DONE.wait_timeout_while(waiting(), limit, is_busy);
}

/// Calls `end` once the thread has removed everything that it was given of a folder: now, if there is nothing.
pub(super) fn after(folder: &Path, end: impl FnOnce() + Send + 'static) {
    let mut waiting = waiting();
    if waiting.has(folder) {
        waiting.ends.insert(folder.to_owned(), Box::new(end));
    } else {
        end();
    }
}

/// Forgets what [`after`] was to call: the folder is in use again.
pub(super) fn keep(folder: &Path) {
    waiting().ends.remove(folder);
}

/// The folders that wait for the thread.
#[derive(Default)]
struct Waiting {
    removals: VecDeque<Removal>,
    /// The parent of the folders that the thread removes.
    in_hand: Option<PathBuf>,
    has_thread: bool,
    /// By folder. These calls are made under the lock, so they must be short.
    ends: BTreeMap<PathBuf, Box<dyn FnOnce() + Send>>,
}

impl Waiting {
    fn has(&self, folder: &Path) -> bool {
        self.in_hand.as_deref() == Some(folder)
            || self.removals.iter().any(|removal| removal.parent == folder)
    }
}

/// A removal that has been begun.
#[derive(Debug)]
struct Removal {
    parent: PathBuf,
    trash: Trash,
}

static WAITING: LazyLock<Mutex<Waiting>> = LazyLock::new(Mutex::default);
/// Notified after each turn of a removal.
static DONE: Condvar = Condvar::new();

fn waiting() -> MutexGuard<'static, Waiting> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remove_waiting() {
    loop {
        let removal = {
            let mut waiting = waiting();
            let Some(removal) = waiting.removals.pop_front() else {
                waiting.has_thread = false;
                DONE.notify_all();
                return;
            };
            waiting.in_hand = Some(removal.parent.clone());
            removal
        };
        let parent = removal.parent.clone();
        let rest = removal.go_on();
        let mut waiting = waiting();
        waiting.in_hand = None;
        waiting.removals.extend(rest);
        if !waiting.ends.is_empty()
            && !waiting.has(&parent)
            && let Some(end) = waiting.ends.remove(&parent)
        {
            end();
        }
        DONE.notify_all();
    }
}

impl Removal {
    /// Takes a turn. Returns what is left to do.
    fn go_on(self) -> Option<Self> {
        let Self { parent, trash } = self;
        let path = parent.join(OsStr::from_bytes(trash.name_of(trash.next).to_bytes()));
        let mut place = match Place::within(&parent, trash) {
            Ok(place) => place,
            // The folder has gone with all its content.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tell_of(&path, &error);
                return None;
            }
        };
        let is_done = place.go_on();
        let mut trash = place.trash;
        if !is_done && trash.turns < TURNS_MAX {
            return Some(Self { parent, trash });
        }
        if !is_done {
            trash.refusal.get_or_insert(io::Error::other("a process goes on to fill it"));
        }
        if let Some(error) = trash.refusal {
            tell_of(&path, &error);
        }
        None
    }
}

/// Tells that something stays until the engine opens again.
pub(super) fn tell_of(path: &Path, error: &io::Error) {
    tell(|| tracing::warn!(%error, path = %path.display(), "a file of a run stays behind"));
}

fn is_large(found: &Stat) -> bool {
    const BLOCK_BYTES: u64 = 512;
    FileType::from_raw_mode(found.st_mode) == FileType::RegularFile
        && u64::try_from(found.st_blocks).unwrap_or_default() > AT_ONCE_BYTES_MAX / BLOCK_BYTES
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

/// What a removal has moved aside: folders beside one another, named by numbers.
#[derive(Debug)]
struct Trash {
    /// A number that nobody can guess, so no name is taken.
    prefix: Uuid,
    /// The number of the folder that is to be removed next.
    next: u64,
    /// The numbers of the folders that have been moved here.
    moved: u64,
    /// Looks through the next folder.
    passes: u32,
    turns: u32,
    refusal: Option<io::Error>,
}

impl Trash {
    fn new() -> Self {
        let prefix = Uuid::new_v4();
        Self { prefix, next: 0, moved: 0, passes: 0, turns: 0, refusal: None }
    }

    fn name_of(&self, number: u64) -> CString {
        CString::new(format!("{TRASH}{}-{number}", self.prefix.simple())).unwrap_or_default()
    }

    /// Keeps the first error.
    fn note(&mut self, error: io::Error) {
        self.refusal.get_or_insert(error);
    }
}

/// A folder of this user in which something is removed, and to which folders from further below are moved.
struct Place {
    top: OwnedFd,
    trash: Trash,
}

impl Place {
    /// Returns the place of a file or folder, and its name there.
    fn of(path: &Path) -> io::Result<(Self, CString)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok((Self::within(parent, Trash::new())?, CString::new(name.as_bytes())?))
    }

    fn within(parent: &Path, trash: Trash) -> io::Result<Self> {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self { top: rustix::fs::openat(CWD, parent, flags, Mode::empty())?, trash })
    }

    /// Has the thread remove what has been moved aside, at `path` or beside it.
    fn hand_over(self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(path).to_owned();
        let mut waiting = waiting();
        if waiting.removals.len() >= WAITING_MAX {
            return Err(io::Error::other("too many folders wait to be removed"));
        }
        waiting.removals.push_back(Removal { parent, trash: self.trash });
        if !waiting.has_thread {
            thread::Builder::new().name("adjutant-remover".into()).spawn(remove_waiting)?;
            waiting.has_thread = true;
        }
        Ok(())
    }

    /// Removes a folder with a few small files. Returns whether it is gone; if it has much content, some of the content
    /// is left.
    fn remove_shallow(&self, name: &CStr) -> io::Result<bool> {
        let folder = self.open(name)?;
        for (count, entry) in entries(&folder)?.enumerate() {
            let is_left = || {
                let entry = entry?;
                let name = entry.file_name();
                let found = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW);
                if found.is_ok_and(|found| is_large(&found)) {
                    return Ok(true);
                }
                match remove_one(&folder, name) {
                    Ok(One::Removed) => Ok::<_, Errno>(false),
                    Ok(One::HasContent) | Err(_) => Ok(true),
                }
            };
            if count >= AT_ONCE_MAX || is_left()? {
                return Ok(false);
            }
        }
        Ok(matches!(remove_one(&self.top, name)?, One::Removed))
    }

    /// Takes a turn at the removal of all that has been moved here. Returns whether nothing is left to do.
    fn go_on(&mut self) -> bool {
        self.trash.turns += 1;
        let mut left = TURN_ENTRIES;
        while self.trash.next < self.trash.moved {
            match self.clear(&mut left) {
                Ok(false) => return false,
                Ok(true) => {}
                Err(error) => self.trash.note(error),
            }
            self.trash.next += 1;
            self.trash.passes = 0;
        }
        true
    }

    /// Gives a file or folder of the place a name of its own.
    fn take(&mut self, name: &CStr) -> io::Result<()> {
        rustix::fs::renameat(&self.top, name, &self.top, self.name_of(self.trash.moved))?;
        self.trash.moved += 1;
        Ok(())
    }

    fn name_of(&self, number: u64) -> CString {
        self.trash.name_of(number)
    }

    /// Removes the next of what has been moved here; the folders inside are moved here. Returns whether that is done
    /// before the turn is over.
    fn clear(&mut self, left: &mut u32) -> io::Result<bool> {
        let name = self.name_of(self.trash.next);
        // Another engine may have moved it aside, which opens on the same folder.
        if let Ok(One::Removed) = remove_one(&self.top, &name) {
            return Ok(true);
        }
        let folder = self.open(&name)?;
        while self.trash.passes < PASSES_MAX {
            for entry in entries(&folder)? {
                let entry = entry?;
                if *left == 0 {
                    return Ok(false);
                }
                let removed = match remove_one(&folder, entry.file_name()) {
                    Ok(One::HasContent) => self.move_up(&folder, entry.file_name()),
                    Ok(One::Removed) => Ok(()),
                    Err(error) => Err(error.into()),
                };
                match removed {
                    Ok(()) => *left -= 1,
                    Err(error) => self.trash.note(error),
                }
            }
            self.trash.passes += 1;
            if let One::Removed = remove_one(&self.top, &name)? {
                return Ok(true);
            }
            if self.trash.refusal.is_some() {
                break;
            }
        }
        Err(Errno::NOTEMPTY.into())
    }

    fn move_up(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<()> {
        let moved =
            || rustix::fs::renameat(folder, name, &self.top, self.name_of(self.trash.moved));
        match moved() {
            // The system changes the entry `..` of a folder that it moves.
            Err(Errno::ACCESS) => {
                permit(folder, name)?;
                moved()?;
            }
            moved => moved?,
        }
        self.trash.moved += 1;
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
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("trash", &self.trash).finish_non_exhaustive()
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
        // A disk takes a minute for so many folders.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let place = in_memory.or_else(|_| tempfile::tempdir()).expect("a folder");
        let folder = place.path().join("folder");
        fs::create_dir(&folder).expect("a folder");
        nest(&folder, 20_000);
        let small = thread::Builder::new().stack_size(64 * 1024);
        let is_removed = small.spawn(move || remove_aside(&folder)).expect("a thread").join();
        is_removed.expect("no panic").expect("removed");
        wait(place.path(), Duration::from_secs(60));
        assert!(is_empty(place.path()));
    }

    #[test]
    fn a_folder_that_grows_gives_way_to_other_removals_after_each_turn() {
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let place = in_memory.or_else(|_| tempfile::tempdir()).expect("a folder");
        let [growing, other] = ["growing", "other"].map(|name| place.path().join(name));
        for folder in [&growing, &other] {
            fs::create_dir(folder).expect("a folder");
        }
        nest(&growing, 100);
        nest(&other, 100);
        // As if a process made each level that the removal takes away.
        let (mut endless, name) = Place::of(&growing).expect("a place");
        endless.take(&name).expect("moved aside");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        for turn in 1..=3 {
            let next = endless.name_of(endless.trash.next);
            let folder = rustix::fs::openat(&endless.top, &next, flags, Mode::empty());
            let folder = folder.expect("it is there");
            for number in 0..=TURN_ENTRIES {
                rustix::fs::mkdirat(&folder, format!("{turn}-{number}"), Mode::RWXU)
                    .expect("a folder");
            }
            assert!(!endless.go_on(), "turn {turn} ends before the removal does");
            assert_eq!(endless.trash.turns, turn);
        }
        endless.hand_over(&growing).expect("handed over");
        remove_aside(&other).expect("moved aside");
        wait(place.path(), Duration::from_secs(60));
        assert!(is_empty(place.path()));
    }

    #[test]
    fn a_process_that_nests_folders_holds_up_neither_a_caller_nor_other_removals() {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicBool, Ordering};
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let place = in_memory.or_else(|_| tempfile::tempdir()).expect("a folder");
        let [growing, other] = ["growing", "other"].map(|name| place.path().join(name));
        fs::create_dir(&growing).expect("a folder");
        nest(&growing, 200);
        let is_over = Arc::new(AtomicBool::new(false));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let first = rustix::fs::openat(CWD, &growing, flags, Mode::empty()).expect("a folder");
        let nesting = thread::spawn({
            let is_over = Arc::clone(&is_over);
            move || {
                let mut last = first;
                while !is_over.load(Ordering::Relaxed) {
                    if rustix::fs::mkdirat(&last, "e", Mode::RWXU).is_err() {
                        return;
                    }
                    match rustix::fs::openat(&last, "e", flags, Mode::empty()) {
                        Ok(next) => last = next,
                        Err(_) => return,
                    }
                }
            }
        });
        remove_aside(&growing).expect("moved aside");
        assert!(!growing.exists());
        fs::create_dir(&other).expect("a folder");
        nest(&other, 200);
        remove_aside(&other).expect("moved aside");
        sweep_aside(place.path(), |_| false).expect("all is moved aside once more");
        is_over.store(true, Ordering::Relaxed);
        nesting.join().expect("no panic");
        wait(place.path(), Duration::from_secs(60));
        assert!(is_empty(place.path()));
    }

    #[test]
    fn a_large_file_is_freed_on_another_thread() {
        let place = tempfile::tempdir().expect("a folder");
        let is_aside = |path: &Path| {
            let found = rustix::fs::lstat(path).expect("it is there");
            is_large(&found)
        };
        let (small, large) = (place.path().join("small"), place.path().join("large"));
        fs::write(&small, "text").expect("written");
        let bytes = usize::try_from(AT_ONCE_BYTES_MAX).expect("it fits") + 8_192;
        fs::write(&large, vec![1_u8; bytes]).expect("written");
        rustix::fs::fsync(fs::File::open(&large).expect("it opens")).expect("it has its blocks");
        assert_eq!([is_aside(&small), is_aside(&large)], [false, true]);
        let folder = place.path().join("folder");
        fs::create_dir(&folder).expect("a folder");
        fs::hard_link(&large, folder.join("large")).expect("linked");
        let (shallow, name) = Place::of(&folder).expect("a place");
        assert!(!shallow.remove_shallow(&name).expect("it can be read"));
        assert!(folder.join("large").exists());
        for path in [&small, &large, &folder] {
            remove_aside(path).expect("removed");
            assert!(!path.exists());
        }
        wait(place.path(), Duration::from_secs(60));
        assert!(is_empty(place.path()));
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
        for _ in 0..2 {
            fill(&top);
            fill(&top.join("a"));
            fill(&top.join("a/b"));
            for (folder, mode) in [("a/b", 0o000), ("a", 0o500), ("", 0o000)] {
                let mode = fs::Permissions::from_mode(mode);
                fs::set_permissions(top.join(folder), mode).expect("set");
            }
            remove_aside(&top).expect("removed");
            assert!(!top.exists());
            remove_aside(&top).expect("it is gone already");
            wait(place.path(), Duration::from_secs(60));
            assert!(is_empty(place.path()));
        }
        symlink(elsewhere.path(), &top).expect("a link");
        remove_aside(&top).expect("the link is removed");
        assert_eq!(fs::read_dir(elsewhere.path()).expect("a folder").count(), 2);
    }
}

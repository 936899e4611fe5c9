//! Everything that an execution prints, on disk until a sink has it. It may be more than memory has
//! room for, so it is kept beside the database and not where the scripts are.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use uuid::Uuid;

use super::delivery::{Delivery, INCOMPLETE, NO_ROOM, SPOOL_FAILED, TOO_LARGE};
use crate::files::{beside, set_mode_of_folder};
use crate::id::ExecutionId;
use crate::panics::tell;

/// Where whole outputs wait: a folder that only this user can enter, made when the first comes. Because another user
/// could put a link or a folder at its name, each access opens the folder first and looks whose it is.
#[derive(Debug)]
pub(crate) struct WholeOutputs {
    folder: PathBuf,
    /// The most bytes of one output.
    bytes_max: u64,
    room: Arc<Room>,
    /// Nobody comes back for what is left in it.
    temporary: bool,
}

/// The bytes that all outputs together may take.
#[derive(Debug)]
struct Room {
    taken: AtomicU64,
    bytes_max: u64,
}

impl Room {
    /// Takes room for some bytes. Returns whether there was room.
    fn take(&self, bytes: u64) -> bool {
        let taken = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.bytes_max);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        let taken = |taken: u64| Some(taken.saturating_sub(bytes));
        let _ = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken);
    }
}

impl WholeOutputs {
    /// The folder of a database, or one for an engine in memory. An output has at most `bytes_max`, and all outputs
    /// together at most `all_bytes_max`.
    pub(crate) fn new(database: Option<&Path>, bytes_max: u64, all_bytes_max: u64) -> Self {
        let folder = match database {
            Some(database) => beside(database, ".outputs"),
            None => std::env::temp_dir().join(format!("adjutant-outputs-{}", Uuid::new_v4())),
        };
        let room = Arc::new(Room { taken: AtomicU64::new(0), bytes_max: all_bytes_max });
        Self { folder, bytes_max, room, temporary: database.is_none() }
    }

    /// Begins an output. What goes wrong with the disk is told when it ends.
    pub(crate) fn begin(&self, id: ExecutionId) -> WholeOutput {
        let path = self.path(id);
        let file = self.create(id).map_err(|error| failed(&error));
        let room = Arc::clone(&self.room);
        WholeOutput { file, path, bytes: 0, bytes_max: self.bytes_max, room }
    }

    fn create(&self, id: ExecutionId) -> io::Result<File> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            // The umask of the process may have taken rights from this user.
            Ok(()) => set_mode_of_folder(&self.folder, 0o700)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(self.open()?, id.to_string(), flags, mode)?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file)
    }

    /// Opens the folder, if it is this user's.
    fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(&self.folder, flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(self.is_not_ours()),
            folder => folder?,
        };
        let found = rustix::fs::fstat(&folder)?;
        let is_ours = found.st_uid == rustix::process::geteuid().as_raw();
        if is_ours && found.st_mode & 0o022 == 0 { Ok(folder) } else { Err(self.is_not_ours()) }
    }

    fn is_not_ours(&self) -> io::Error {
        let why = format!("{} is not a folder of this user alone", self.folder.display());
        io::Error::new(ErrorKind::PermissionDenied, why)
    }

    pub(crate) fn path(&self, id: ExecutionId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Returns the size of an output.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] if nothing of the output is there, an error of another kind if this user may not read
    /// it, or if it is no regular file.
    pub(crate) fn bytes(&self, id: ExecutionId) -> io::Result<u64> {
        bytes_in(&self.open()?, id)
    }

    /// Whether there is anything of an output.
    pub(crate) fn has(&self, id: ExecutionId) -> bool {
        self.bytes(id).is_ok()
    }

    /// Removes an output that nobody needs any more.
    pub(crate) fn remove(&self, id: ExecutionId) {
        let remove = || {
            let folder = self.open()?;
            let bytes = bytes_in(&folder, id).unwrap_or_default();
            rustix::fs::unlinkat(&folder, id.to_string(), AtFlags::empty())?;
            self.room.give_back(bytes);
            Ok(())
        };
        tell_of_failure(remove(), &self.path(id));
    }

    /// The outputs that are there, which take up room from now on; blocks.
    pub(crate) fn all(&self) -> io::Result<Vec<ExecutionId>> {
        let folder = match self.open() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            folder => folder?,
        };
        let (mut ids, mut taken) = (Vec::new(), 0_u64);
        for entry in Dir::read_from(&folder)? {
            // What has another name is not ours to touch.
            let id = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok());
            let Some(id) = id.map(ExecutionId) else { continue };
            taken = taken.saturating_add(bytes_in(&folder, id).unwrap_or_default());
            ids.push(id);
        }
        self.room.taken.store(taken, Ordering::Relaxed);
        Ok(ids)
    }
}

/// Returns the size of an output in the folder.
fn bytes_in(folder: &OwnedFd, id: ExecutionId) -> io::Result<u64> {
    let found = rustix::fs::statat(folder, id.to_string(), AtFlags::SYMLINK_NOFOLLOW)?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(found.st_size.cast_unsigned()),
        _ => Err(io::Error::other("it is no regular file")),
    }
}

impl Drop for WholeOutputs {
    fn drop(&mut self) {
        // It may never have been made, or hold what the next engine delivers. A link at its name stays.
        let _ = if self.temporary {
            fs::remove_dir_all(&self.folder)
        } else {
            fs::remove_dir(&self.folder)
        };
    }
}

/// The output of an execution that runs.
#[derive(Debug)]
pub(crate) struct WholeOutput {
    file: Result<File, Delivery>,
    path: PathBuf,
    bytes: u64,
    bytes_max: u64,
    room: Arc<Room>,
}

impl WholeOutput {
    /// Blocks no longer than a write to the page cache takes.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let Ok(file) = &mut self.file else { return };
        let all = self.bytes.saturating_add(bytes.len() as u64);
        if all > self.bytes_max {
            let max = self.bytes_max;
            let info = format!("want at most {max} bytes; the execution printed more");
            self.give_up(Delivery::failed(TOO_LARGE, info));
        } else if !self.room.take(bytes.len() as u64) {
            let max = self.room.bytes_max;
            let info = format!("all outputs that wait together may take {max} bytes, and they do");
            self.give_up(Delivery::failed(NO_ROOM, info));
        } else {
            self.bytes = all;
            if let Err(error) = file.write_all(bytes) {
                self.give_up(failed(&error));
            }
        }
    }

    /// Takes note of bytes that were lost: what is left is not the whole.
    pub(super) fn skip(&mut self, bytes: u64) {
        if self.file.is_ok() {
            let info = format!("{bytes} bytes were printed while no engine was there to take them");
            self.give_up(Delivery::failed(INCOMPLETE, info));
        }
    }

    /// Ends it: it waits to be delivered, or there is nothing, and why.
    pub(crate) fn end(self) -> Delivery {
        self.file.map_or_else(|failed| failed, |_| Delivery::in_progress(Some(self.bytes)))
    }

    /// Ends an output that nobody wants.
    pub(crate) fn discard(self) {
        if self.file.is_ok() {
            self.remove();
        }
    }

    /// A part of an output must not be taken for the whole, nor take up the disk.
    fn give_up(&mut self, why: Delivery) {
        self.file = Err(why);
        self.remove();
    }

    fn remove(&self) {
        self.room.give_back(self.bytes);
        tell_of_failure(fs::remove_file(&self.path), &self.path);
    }
}

fn failed(error: &io::Error) -> Delivery {
    Delivery::failed(SPOOL_FAILED, format!("the output could not be kept on disk: {error}"))
}

fn tell_of_failure(removed: io::Result<()>, path: &Path) {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            // The next engine on the file tries again.
            tell(
                || tracing::warn!(%error, path = %path.display(), "a whole output cannot be removed"),
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn place() -> (tempfile::TempDir, WholeOutputs) {
        let place = tempfile::tempdir().expect("a folder");
        let outputs = WholeOutputs::new(Some(&place.path().join("a.db")), 10, 15);
        (place, outputs)
    }

    #[test]
    fn everything_is_kept_for_this_user_alone_until_it_is_too_much() {
        let (_place, outputs) = place();
        assert_eq!(outputs.all().expect("nothing yet"), []);
        let id = ExecutionId(7);
        let mut output = outputs.begin(id);
        output.append(b"01234");
        output.append(b"56789");
        let mode = |path: &Path| fs::metadata(path).expect("it exists").mode() & 0o777;
        assert_eq!((mode(&outputs.folder), mode(&outputs.path(id))), (0o700, 0o600));
        assert_eq!(output.end(), Delivery::in_progress(Some(10)));
        assert_eq!(fs::read(outputs.path(id)).expect("it is there"), b"0123456789");
        assert_eq!(outputs.all().expect("readable"), [id]);
        outputs.remove(id);

        let mut output = outputs.begin(id);
        output.append(b"01234567890");
        output.append(b"1");
        assert_eq!(outputs.all().expect("readable"), [], "nothing of it stays");
        assert_eq!(output.end().error_code, TOO_LARGE);
        outputs.begin(id).discard();
        assert_eq!(outputs.all().expect("readable"), []);
    }

    #[test]
    fn all_outputs_together_take_no_more_than_their_room() {
        let (place, outputs) = place();
        let begin = |id, bytes: &[u8]| {
            let mut output = outputs.begin(ExecutionId(id));
            output.append(bytes);
            output
        };
        let (first, second) = (begin(1, b"0123456789"), begin(2, b"01234"));
        let refused = begin(3, b"0").end();
        assert_eq!(refused.error_code, NO_ROOM);
        assert!(format!("{:?}", refused.error_info).contains("15 bytes"), "{refused:?}");
        // An output that is given up leaves room for others.
        second.discard();
        assert_eq!(begin(4, b"01234").end(), Delivery::in_progress(Some(5)));
        assert_eq!(begin(5, b"0").end().error_code, NO_ROOM);
        drop(first);
        // The next engine counts what is left, until it has been delivered.
        let next = WholeOutputs::new(Some(&place.path().join("a.db")), 10, 15);
        assert_eq!(next.all().expect("readable").len(), 2);
        let mut full = next.begin(ExecutionId(6));
        full.append(b"0");
        assert_eq!(full.end().error_code, NO_ROOM);
        next.remove(ExecutionId(1));
        let mut fits = next.begin(ExecutionId(7));
        fits.append(b"0123456789");
        assert_eq!(fits.end(), Delivery::in_progress(Some(10)));
    }

    /// The folder may be another's, whose numbers are files of its own.
    #[test]
    fn no_file_is_found_or_removed_through_a_link_or_in_a_folder_that_others_write_to() {
        let (place, outputs) = place();
        let precious = place.path().join("precious");
        fs::create_dir(&precious).expect("a folder");
        fs::write(precious.join("1247"), "kept").expect("written");
        let check = || {
            assert!(outputs.all().is_err());
            assert!(!outputs.has(ExecutionId(1247)));
            assert!(outputs.bytes(ExecutionId(1247)).is_err());
            outputs.remove(ExecutionId(1247));
            let mut output = outputs.begin(ExecutionId(1));
            output.append(b"0");
            assert_eq!(output.end().error_code, SPOOL_FAILED);
        };
        std::os::unix::fs::symlink(&precious, &outputs.folder).expect("a link");
        check();
        fs::remove_file(&outputs.folder).expect("the link is still there");
        assert_eq!(fs::read_dir(&precious).expect("readable").count(), 1);
        fs::rename(&precious, &outputs.folder).expect("moved");
        fs::set_permissions(&outputs.folder, Permissions::from_mode(0o777)).expect("it is ours");
        check();
        assert_eq!(fs::read_to_string(outputs.path(ExecutionId(1247))).expect("there"), "kept");
    }

    #[test]
    fn a_disk_that_fails_is_told_at_the_end() {
        let (place, outputs) = place();
        let check = || {
            let mut output = outputs.begin(ExecutionId(7));
            output.append(b"0");
            assert_eq!(output.end().error_code, SPOOL_FAILED);
        };
        let elsewhere = place.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("a folder");
        std::os::unix::fs::symlink(&elsewhere, &outputs.folder).expect("a link");
        check();
        fs::remove_file(&outputs.folder).expect("the link is still there");
        fs::write(&outputs.folder, "a file").expect("written");
        check();
        fs::remove_file(&outputs.folder).expect("it is there");
        fs::create_dir(&outputs.folder).expect("a folder");
        fs::write(outputs.path(ExecutionId(7)), "in the way").expect("written");
        check();
    }

    #[test]
    fn the_folder_stays_as_long_as_something_is_in_it() {
        let (_place, outputs) = place();
        let (folder, id) = (outputs.folder.clone(), ExecutionId(7));
        let path = outputs.path(id);
        drop(outputs.begin(id));
        drop(outputs);
        assert!(path.exists());
        let database = folder.with_extension("");
        let outputs = WholeOutputs::new(Some(&database), 0, 0);
        assert_eq!(outputs.folder, folder);
        outputs.remove(id);
        let folder = outputs.folder.clone();
        drop(outputs);
        assert!(!folder.exists());

        let outputs = WholeOutputs::new(None, 10, 10);
        drop(outputs.begin(id));
        let folder = outputs.folder.clone();
        assert!(folder.exists());
        drop(outputs);
        assert!(!folder.exists());
    }
}

//! Everything that an execution prints, on disk until a sink has it. It may be more than memory has
//! room for, so it is kept beside the database and not where the scripts are.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::delivery::{Delivery, INCOMPLETE, SPOOL_FAILED, TOO_LARGE};
use crate::files::beside;
use crate::id::ExecutionId;
use crate::panics::tell;

/// Where whole outputs wait: a folder that only this user can enter, made when the first comes.
#[derive(Debug)]
pub(crate) struct WholeOutputs {
    folder: PathBuf,
    bytes_max: u64,
    /// Nobody comes back for what is left in it.
    temporary: bool,
}

impl WholeOutputs {
    /// The folder of a database, or one for an engine in memory. An output has at most `bytes_max`.
    pub(crate) fn new(database: Option<&Path>, bytes_max: u64) -> Self {
        let folder = match database {
            Some(database) => beside(database, ".outputs"),
            None => std::env::temp_dir().join(format!("adjutant-outputs-{}", Uuid::new_v4())),
        };
        Self { folder, bytes_max, temporary: database.is_none() }
    }

    /// Begins an output. What goes wrong with the disk is told when it ends.
    pub(crate) fn begin(&self, id: ExecutionId) -> WholeOutput {
        let path = self.path(id);
        let file = self.create(&path).map_err(|error| failed(&error));
        WholeOutput { file, path, bytes: 0, bytes_max: self.bytes_max }
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(&self.folder)?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            let why = format!("{} is no folder of this user", self.folder.display());
            return Err(io::Error::new(ErrorKind::PermissionDenied, why));
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    pub(crate) fn path(&self, id: ExecutionId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Whether there is anything of an output.
    pub(crate) fn has(&self, id: ExecutionId) -> bool {
        self.path(id).exists()
    }

    /// Removes an output that nobody needs any more.
    pub(crate) fn remove(&self, id: ExecutionId) {
        remove(&self.path(id));
    }

    /// The outputs that are there; blocks.
    pub(crate) fn all(&self) -> io::Result<Vec<ExecutionId>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            // What has another name is not ours to touch.
            let name = entry?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()).map(ExecutionId));
        }
        Ok(ids)
    }
}

impl Drop for WholeOutputs {
    fn drop(&mut self) {
        // It may never have been made, or hold what the next engine delivers.
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
}

impl WholeOutput {
    /// Blocks no longer than a write to the page cache takes.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let Ok(file) = &mut self.file else { return };
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.bytes_max {
            let max = self.bytes_max;
            let info = format!("want at most {max} bytes; the execution printed more");
            self.give_up(Delivery::failed(TOO_LARGE, info));
        } else if let Err(error) = file.write_all(bytes) {
            self.give_up(failed(&error));
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
            remove(&self.path);
        }
    }

    /// A part of an output must not be taken for the whole, nor take up the disk.
    fn give_up(&mut self, why: Delivery) {
        self.file = Err(why);
        remove(&self.path);
    }
}

fn failed(error: &io::Error) -> Delivery {
    Delivery::failed(SPOOL_FAILED, format!("the output could not be kept on disk: {error}"))
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
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
    use super::*;

    fn place() -> (tempfile::TempDir, WholeOutputs) {
        let place = tempfile::tempdir().expect("a folder");
        let outputs = WholeOutputs::new(Some(&place.path().join("a.db")), 10);
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
        let outputs = WholeOutputs { folder, bytes_max: 0, temporary: false };
        outputs.remove(id);
        let folder = outputs.folder.clone();
        drop(outputs);
        assert!(!folder.exists());

        let outputs = WholeOutputs::new(None, 10);
        drop(outputs.begin(id));
        let folder = outputs.folder.clone();
        assert!(folder.exists());
        drop(outputs);
        assert!(!folder.exists());
    }
}

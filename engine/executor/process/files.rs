//! The files of a run: its script, which only its user can read, and the place for its result.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};

use crate::execution::RESULT_BYTES_MAX;
use crate::executor::{removal, scratch};

/// Gone when dropped.
#[derive(Debug)]
pub(super) struct Files {
    script: PathBuf,
    result: PathBuf,
    /// A folder of their own, if the run is another user's.
    folder: Option<PathBuf>,
    /// Whether the end of the run was seen.
    has_ended: bool,
}

impl Files {
    /// Writes a script to a new file in `scratch`, which has this name and the ending that its launcher
    /// wants.
    ///
    /// # Errors
    ///
    /// `EEXIST` if there is such a file, which is left alone; else what kept it from being written.
    pub(super) fn create(
        scratch: &Path,
        name: &str,
        extension: &str,
        content: &[u8],
    ) -> io::Result<Self> {
        // The process that reads it runs in another directory.
        let path = std::path::absolute(scratch.join(name))?;
        let with = |ending: &str| {
            let mut path = path.clone().into_os_string();
            path.push(ending);
            PathBuf::from(path)
        };
        let (script, result) = (with(extension), with(".result"));
        let file = create_new(&script)?;
        Self { script, result, folder: None, has_ended: false }.write_script(file, content)
    }

    /// The same in a folder of their own, which [`give_to`] makes another user's.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create).
    pub(super) fn create_apart(
        scratch: &Path,
        name: &str,
        extension: &str,
        content: &[u8],
    ) -> io::Result<Self> {
        let folder = std::path::absolute(scratch.join(name))?;
        DirBuilder::new().mode(0o700).create(&folder)?;
        let script = folder.join(format!("script{extension}"));
        let result = folder.join("result");
        let files = Self { script, result, folder: Some(folder), has_ended: false };
        let file = create_new(&files.script)?;
        files.write_script(file, content)
    }

    fn write_script(self, mut file: File, content: &[u8]) -> io::Result<Self> {
        file.write_all(content)?;
        Ok(self)
    }

    pub(super) fn script(&self) -> &Path {
        &self.script
    }

    pub(super) fn result(&self) -> &Path {
        &self.result
    }

    /// Removes the files of a run whose end was seen.
    pub(super) fn close(mut self) {
        self.has_ended = true;
    }

    /// Returns the folder that is the user's of the run, if the run is another user's.
    pub(super) fn folder(&self) -> Option<Arc<Path>> {
        self.folder.as_deref().map(Arc::from)
    }

    /// What the run left as its result; none if it left nothing.
    ///
    /// # Errors
    ///
    /// Why that is none, in words.
    pub(super) fn take_result(&self) -> Option<Result<serde_json::Value, String>> {
        // Whatever it put there, opening it neither leads elsewhere nor waits.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match rustix::fs::open(&self.result, flags, Mode::empty()) {
            Ok(file) => Some(self.read_result(File::from(file))),
            Err(rustix::io::Errno::NOENT) => None,
            Err(error) => Some(Err(format!("it cannot be opened: {error}"))),
        }
    }

    fn read_result(&self, file: File) -> Result<serde_json::Value, String> {
        let unreadable = |error: io::Error| format!("it cannot be read: {error}");
        let found = file.metadata().map_err(unreadable)?;
        // The run may have put a link to somebody else's file there.
        let owner = match &self.folder {
            Some(folder) => fs::symlink_metadata(folder).map_err(unreadable)?.uid(),
            None => rustix::process::geteuid().as_raw(),
        };
        if !found.is_file() || found.uid() != owner {
            return Err("want a plain file of the run's own user".to_owned());
        }
        let mut text = Vec::new();
        file.take(RESULT_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
        if text.len() > RESULT_BYTES_MAX {
            return Err(format!("want at most {RESULT_BYTES_MAX} bytes; it has {}", found.len()));
        }
        serde_json::from_slice(&text).map_err(|error| format!("it is no JSON: {error}"))
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RWXU)?))
}

/// Makes the script in a folder of its own, and that folder, another user's; for a process that may.
///
/// # Errors
///
/// What the system refused.
pub(super) fn give_to(script: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let folder = script.parent().ok_or(ErrorKind::InvalidInput)?;
    // The script first: as long as the folder is not the user's, nobody can put another in its place.
    for path in [script, folder] {
        rustix::fs::chownat(rustix::fs::CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

impl Drop for Files {
    fn drop(&mut self) {
        // If the end of the run was not seen, the next engine has to know whose processes to look at.
        if let Some(folder) = self.folder.as_ref().filter(|_| !self.has_ended)
            && let (Some(scratch), Ok(found)) = (folder.parent(), fs::symlink_metadata(folder))
        {
            let _ = scratch::note_user(scratch, found.uid());
        }
        let all = match &self.folder {
            Some(folder) => [Some(folder), None],
            None => [Some(&self.script), Some(&self.result)],
        };
        for path in all.into_iter().flatten() {
            // A run may have made folders there, of any depth.
            if let Err(error) = removal::remove_aside(path) {
                removal::tell_of(path, &error);
            }
        }
    }
}

//! The names and identities of files that belong to a database.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Returns the name of a file, or of a folder, that belongs to a database.
pub(crate) fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The device and the inode of a file: both stay the same as long as the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(found: &Metadata) -> Self {
        Self { device: found.dev(), inode: found.ino() }
    }
}

/// Opens a file beside a database. Never waits: a pipe without a writer at that name is refused like any other
/// file that is not regular.
///
/// # Errors
///
/// The system's answer, or an error if the name is a link, a folder, a pipe, a socket or a device.
pub(crate) fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Returns why a file beside a database must not be opened under this name; `None` if the file is regular or missing.
pub(crate) fn obstacle(path: &Path) -> Option<&'static str> {
    let found = fs::symlink_metadata(path).ok()?.file_type();
    if found.is_file() {
        None
    } else if found.is_symlink() {
        Some("it is a link, and links are not followed there")
    } else if found.is_dir() {
        Some("it is a folder, not a file")
    } else {
        Some("it is no regular file")
    }
}

//! The names and identities of files that belong to a database.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags};
use rustix::io::Errno;

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

    /// Returns the identity of the file at a path. Because a file system with fine time stamps writes the inode at the
    /// next sync if somebody has asked for the times of the file, this asks for its number only.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        match rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::INO) {
            Ok(found) => Ok(Self {
                device: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
                inode: found.stx_ino,
            }),
            // Some filters of system calls do not know `statx`.
            Err(Errno::NOSYS | Errno::PERM) => Ok(Self::of(&fs::metadata(path)?)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Returns the namespace in which the number of this process counts; empty if the system does not tell. In a container,
/// other processes can have the same numbers.
pub(crate) fn pid_namespace() -> String {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    namespace.to_string_lossy().into_owned()
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

/// Sets the mode of a folder of this user, whose own mode may keep this user from reading it.
///
/// # Errors
///
/// The system's answer, also if the name is a link or a file, and an error if the folder is another user's.
pub(crate) fn set_mode_of_folder(path: &Path, mode: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
    let folder =
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if folder.metadata()?.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // By its descriptor: whoever may write to the parent could put a link in the place of the name.
    let path = format!("/proc/self/fd/{}", folder.as_raw_fd());
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Gives a file the group and the mode of another file, so that the same users can use both. If this user may not give
/// the file to that group, its group gets the rights of all others. As root, gives the file to the other file's owner too.
///
/// # Errors
///
/// The system's answer if the mode cannot be set.
pub(crate) fn take_after(file: &File, model: &Metadata) -> io::Result<()> {
    const OF_FILES: u32 = 0o666;
    const OF_GROUP: u32 = 0o060;
    const OF_OTHERS: u32 = 0o006;
    let found = file.metadata()?;
    let is_root = rustix::process::geteuid().is_root();
    let uid = Some(model.uid()).filter(|uid| is_root && *uid != found.uid());
    let gid = Some(model.gid()).filter(|gid| *gid != found.gid());
    let is_shared = (uid.is_none() && gid.is_none()) || fchown(file, uid, gid).is_ok();
    let mut mode = model.mode() & OF_FILES;
    if !is_shared {
        // The group is another one, and its users are others to the other file.
        mode = mode & !OF_GROUP | (mode & OF_OTHERS) << 3;
    }
    match found.mode() & 0o7777 == mode {
        true => Ok(()),
        false => file.set_permissions(Permissions::from_mode(mode)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_of_a_folder_is_set_though_its_mode_permits_nothing_and_through_no_link() {
        let place = tempfile::tempdir().expect("a folder");
        let (folder, link) = (place.path().join("folder"), place.path().join("link"));
        let mode = || fs::metadata(&folder).expect("it is there").mode() & 0o7777;
        fs::create_dir(&folder).expect("a folder");
        fs::set_permissions(&folder, Permissions::from_mode(0o000)).expect("set");
        std::os::unix::fs::symlink(&folder, &link).expect("a link");
        set_mode_of_folder(&link, 0o777).expect_err("it is a link");
        assert_eq!(mode(), 0);
        set_mode_of_folder(&folder, 0o711).expect("it is a folder of this user");
        assert_eq!(mode(), 0o711);
        set_mode_of_folder(&place.path().join("never"), 0o777).expect_err("it is not there");
    }
}

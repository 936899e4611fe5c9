//! Whole outputs as files of this machine.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, fstat, fsync, mkdirat, openat, readlinkat, renameat, unlinkat,
};
use rustix::io::Errno;
use uuid::Uuid;

use super::{OutputDelivery, OutputSink, OutputSinkError};

/// Only this user reads what was printed.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o700);

/// The bits of a mode that let other users write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Links on one way, as many as the system follows.
const LINKS_MAX: usize = 40;

/// Writes outputs below a folder, each into a file that only this user can read. A file is there whole
/// or not at all: it is on disk before it has its name. A crash may leave a part of one, whose name begins
/// with a dot and ends in `.part`.
///
/// The folder must be there; folders below it are made. Nothing is written elsewhere, whatever a request says: names
/// such as `..` are refused, and links below the folder are not followed. On the way to the folder, a link is followed
/// only if nobody but root and this user could have made it, because its own folder belongs to one of the two and is
/// not writable by others.
///
/// An execution whose user may write to the folder can put files there while it runs. The folder `INVOKE_ID/`, which
/// holds the outputs of an invocation, is therefore made anew: one that is there already must belong to this user and not
/// be writable by others. Otherwise the output is not delivered (`OutputSink.Denied`).
///
/// # All that goes to `file:///var/log/runs/…`
///
/// ```
/// use adjutant::{DirectorySink, Engine};
///
/// let sink = DirectorySink::new("/var/log/runs");
/// let engine = Engine::builder().output_sink("file:///var/log/runs", sink);
/// # let _ = engine;
/// ```
#[derive(Debug, Clone)]
pub struct DirectorySink {
    folder: PathBuf,
    links: Links,
}

/// Which links of folders are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Links {
    None,
    /// Links that only root or this user can have made.
    Trusted,
}

impl DirectorySink {
    /// Returns a sink that writes below `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), links: Links::None }
    }

    /// Makes the sink follow links below its own folder too, wherever they lead, if nobody but root and this user could
    /// have made them.
    #[must_use]
    pub fn follow_links(mut self) -> Self {
        self.links = Links::Trusted;
        self
    }

    /// Blocks.
    fn write(&self, output: &OutputDelivery) -> Result<(), OutputSinkError> {
        let unfit = |name: &str| matches!(name, "" | "." | "..");
        if output.key.split('/').any(unfit) {
            let info = format!("`{}` is no path below a folder", output.key);
            return Err(OutputSinkError::Denied(info));
        }
        let mut way = Way::to(&self.folder)?;
        let (folders, name) = output.key.rsplit_once('/').unwrap_or(("", &output.key));
        let mut folders = folders.split('/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = folders.next() {
            let is_last = folders.peek().is_none();
            way.enter_or_make(OsStr::new(name), if is_last { Links::None } else { self.links })?;
            if is_last {
                way.check_own()?;
            }
        }
        let place = way.place.join(name);
        write_whole(&way.folder, name, output).map_err(|error| at(&place, error))
    }
}

/// A folder that is reached step by step, each from the descriptor of the folder before.
struct Way {
    folder: OwnedFd,
    /// The name of the folder in errors.
    place: PathBuf,
    links: usize,
}

impl Way {
    /// Goes to a folder that must be there.
    fn to(path: &Path) -> Result<Self, OutputSinkError> {
        let start = if path.is_absolute() { Path::new("/") } else { Path::new(".") };
        let folder = open_folder(CWD, start.as_os_str(), OFlags::empty());
        let folder = folder.map_err(|error| at(start, error))?;
        let place = if path.is_absolute() { start.to_owned() } else { PathBuf::new() };
        let mut way = Self { folder, place, links: 0 };
        way.follow(path)?;
        Ok(way)
    }

    /// Goes along a path from here, or from the root if the path begins there.
    fn follow(&mut self, path: &Path) -> Result<(), OutputSinkError> {
        for component in path.components() {
            match component {
                Component::RootDir => self.step(OsStr::new("/"))?,
                Component::ParentDir => self.step(OsStr::new(".."))?,
                Component::Normal(name) => self.enter(name, Links::Trusted)?,
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Ok(())
    }

    /// Enters a folder that is made if it is missing.
    fn enter_or_make(&mut self, name: &OsStr, links: Links) -> Result<(), OutputSinkError> {
        // It is enough to pass through; the folder need not be readable.
        if open_folder(&self.folder, name, OFlags::NOFOLLOW).err() == Some(Errno::NOENT) {
            match mkdirat(&self.folder, name, FOLDER_MODE) {
                // Another delivery has made it in between.
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(at(&self.place.join(name), error)),
            }
            sync(&self.folder);
        }
        self.enter(name, links)
    }

    fn enter(&mut self, name: &OsStr, links: Links) -> Result<(), OutputSinkError> {
        match open_folder(&self.folder, name, OFlags::NOFOLLOW) {
            Ok(folder) => {
                self.folder = folder;
                self.place.push(name);
                Ok(())
            }
            Err(error @ (Errno::NOTDIR | Errno::LOOP)) => {
                match readlinkat(&self.folder, name, []) {
                    Ok(target) => self.enter_link(
                        name,
                        Path::new(OsStr::from_bytes(target.to_bytes())),
                        links,
                    ),
                    Err(_) => Err(at(&self.place.join(name), error)),
                }
            }
            Err(error) => Err(at(&self.place.join(name), error)),
        }
    }

    fn enter_link(
        &mut self,
        name: &OsStr,
        target: &Path,
        links: Links,
    ) -> Result<(), OutputSinkError> {
        let refused = |why: &str| {
            Err(OutputSinkError::Denied(format!(
                "{} is a link{why}",
                self.place.join(name).display()
            )))
        };
        if links == Links::None {
            return refused("; name the folder that it leads to");
        }
        if !is_trusted(&self.folder).map_err(|error| at(&self.place, error))? {
            return refused(
                " in a folder that other users may write to; name the folder that it leads to",
            );
        }
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(at(&self.place.join(name), Errno::LOOP));
        }
        self.follow(target)
    }

    /// Goes to the parent or the root.
    fn step(&mut self, to: &OsStr) -> Result<(), OutputSinkError> {
        let folder = open_folder(&self.folder, to, OFlags::empty());
        self.folder = folder.map_err(|error| at(&self.place.join(to), error))?;
        self.place.push(to);
        Ok(())
    }

    /// Checks that nobody else can have made the folder, or can write to it.
    fn check_own(&self) -> Result<(), OutputSinkError> {
        let found = fstat(&self.folder).map_err(|error| at(&self.place, error))?;
        let why = if found.st_uid != rustix::process::geteuid().as_raw() {
            "belongs to another user"
        } else if found.st_mode & WRITABLE_BY_OTHERS != 0 {
            "is writable by other users"
        } else {
            return Ok(());
        };
        Err(OutputSinkError::Denied(format!(
            "{} was there already and {why}",
            self.place.display()
        )))
    }
}

fn open_folder(
    folder: impl std::os::fd::AsFd,
    name: &OsStr,
    links: OFlags,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | links;
    openat(folder, name, flags, Mode::empty())
}

/// Returns whether only root and this user can make entries in a folder.
fn is_trusted(folder: &OwnedFd) -> Result<bool, Errno> {
    let found = fstat(folder)?;
    let is_ours = found.st_uid == 0 || found.st_uid == rustix::process::geteuid().as_raw();
    Ok(is_ours && found.st_mode & WRITABLE_BY_OTHERS == 0)
}

impl OutputSink for DirectorySink {
    async fn deliver(&self, output: OutputDelivery) -> Result<(), OutputSinkError> {
        let sink = self.clone();
        let written = tokio::task::spawn_blocking(move || sink.write(&output)).await;
        written.unwrap_or_else(|error| {
            Err(OutputSinkError::Failed(format!("writing did not end: {error}")))
        })
    }
}

/// Writes an output to the disk, then gives it its name.
fn write_whole(folder: &OwnedFd, name: &str, output: &OutputDelivery) -> io::Result<()> {
    // A name of its own: an earlier try, of an engine that is just ending, may write to its part still.
    let part = format!(".{name}.{}.part", Uuid::new_v4().simple());
    let written = write_part(folder, &part, output)
        .and_then(|()| renameat(folder, &part, folder, name).map_err(io::Error::from));
    if written.is_err() {
        // What is in the way is the first error; this one would only say so again.
        let _ = unlinkat(folder, &part, AtFlags::empty());
    }
    sync(folder);
    written
}

fn write_part(folder: &OwnedFd, part: &str, output: &OutputDelivery) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, part, flags, FILE_MODE)?);
    io::copy(&mut File::open(&output.path)?, &mut file)?;
    file.sync_all()
}

/// Brings the names in a folder to the disk, where this user may read it; it need not be readable.
fn sync(folder: &OwnedFd) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(readable) = openat(folder, ".", flags, Mode::empty()) {
        let _ = fsync(readable);
    }
}

/// Names the place in an error.
fn at(place: &std::path::Path, error: impl Into<io::Error>) -> OutputSinkError {
    let error = error.into();
    io::Error::new(error.kind(), format!("{}: {error}", place.display())).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::id::ExecutionId;

    fn output(path: &Path, key: &str) -> OutputDelivery {
        OutputDelivery {
            invoke_id: "t-01a1fb2367aa7653922750444385f3f5".parse().expect("an id"),
            execution_id: ExecutionId(7),
            key: key.to_owned(),
            path: path.to_owned(),
            bytes: 4,
        }
    }

    #[test]
    fn keys_stay_below_the_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let (outside, inside) = (place.path().join("outside"), place.path().join("inside"));
        for folder in [&outside, &inside] {
            fs::create_dir(folder).expect("a folder");
        }
        let printed = place.path().join("printed");
        fs::write(&printed, "text").expect("written");
        symlink(&outside, inside.join("link")).expect("a link");
        symlink(outside.join("file"), inside.join("file.log")).expect("a link");
        let sink = DirectorySink::new(&inside);
        let check = |key: &str, fits: bool| {
            let written = sink.write(&output(&printed, key));
            assert_eq!(written.is_ok(), fits, "{key}: {written:?}");
            assert_eq!(fs::read_dir(&outside).expect("readable").count(), 0, "{key}");
            if fits {
                let path = inside.join(key);
                assert_eq!(fs::read_to_string(&path).expect("it is there"), "text", "{key}");
                let mode = fs::symlink_metadata(&path).expect("it is there").permissions().mode();
                assert_eq!(mode & 0o7777, 0o600, "{key}");
            }
        };
        check("7.log", true);
        check("a/b/7.log", true);
        check("a/b/7.log", true);
        check("a b/ä…/%2e%2e/7.log", true);
        check("...", true);
        // The link is replaced, not followed.
        check("file.log", true);
        check("", false);
        check("/7.log", false);
        check("//7.log", false);
        check("..", false);
        check("../outside/7.log", false);
        check("a/../../outside/7.log", false);
        check("a/./7.log", false);
        check("a//7.log", false);
        check("a/", false);
        check("a\0b/7.log", false);
        check("link/7.log", false);
        check(&format!("{}/7.log", "x".repeat(256)), false);
        let mode = fs::metadata(inside.join("a/b")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let left = fs::read_dir(inside.join("a/b")).expect("readable").count();
        assert_eq!(left, 1, "nothing but the output");
    }

    #[test]
    fn what_cannot_be_written_is_said_with_its_place() {
        let place = tempfile::tempdir().expect("a folder");
        let printed = place.path().join("printed");
        let check = |folder: &Path, key: &str, code: &str, named: &str| {
            let error = DirectorySink::new(folder).write(&output(&printed, key)).expect_err(key);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(named), "{error}");
        };
        check(&place.path().join("missing"), "7.log", "OutputSink.NotFound", "missing: No such");
        check(place.path(), "a/7.log", "OutputSink.NotFound", "a/7.log: No such");
        fs::write(&printed, "text").expect("written");
        check(place.path(), "printed/7.log", "OutputSink.Failed", "printed: Not a directory");
        check(place.path(), "../7.log", "OutputSink.Denied", "`../7.log` is no path");
    }

    #[test]
    fn a_link_is_followed_only_if_nobody_else_can_have_made_it() {
        let place = tempfile::tempdir().expect("a folder");
        let printed = place.path().join("printed");
        fs::write(&printed, "text").expect("written");
        let real = place.path().join("real");
        fs::create_dir_all(real.join("in")).expect("folders");
        symlink("real", place.path().join("link")).expect("a link");
        symlink(real.join("in"), real.join("further")).expect("a link");
        let check = |sink: DirectorySink, key: &str, written: Option<&str>| {
            let done = sink.write(&output(&printed, key));
            match written {
                Some(path) => {
                    done.expect(key);
                    fs::remove_file(place.path().join(path)).expect("it is there");
                }
                None => assert_eq!(done.expect_err(key).code(), "OutputSink.Denied", "{key}"),
            }
        };
        let open = |folder: &Path, mode: u32| {
            fs::set_permissions(folder, PermissionsExt::from_mode(mode)).expect("ours");
        };
        let here = || DirectorySink::new(place.path());
        let beyond = || DirectorySink::new(place.path().join("link"));
        check(here().follow_links(), "link/t/7.log", Some("real/t/7.log"));
        check(here().follow_links(), "link/further/t/7.log", Some("real/in/t/7.log"));
        check(here(), "link/t/7.log", None);
        check(beyond(), "t/7.log", Some("real/t/7.log"));
        check(beyond(), "further/t/7.log", None);
        // The folder of the file is never a link.
        check(here().follow_links(), "link/7.log", None);
        for writable in [0o757, 0o775, 0o1777] {
            open(place.path(), writable);
            check(here().follow_links(), "link/t/7.log", None);
            check(beyond(), "t/7.log", None);
            check(here().follow_links(), "real/t/7.log", Some("real/t/7.log"));
            open(&real.join("t"), writable);
            check(here(), "real/t/7.log", None);
            open(&real.join("t"), 0o700);
        }
        symlink("loop", place.path().join("loop")).expect("a link");
        open(place.path(), 0o700);
        let looped = here().follow_links().write(&output(&printed, "loop/t/7.log"));
        assert!(looped.expect_err("a loop").to_string().contains("loop"));
    }
}

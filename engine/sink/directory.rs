//! Whole outputs as files of this machine.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, open, openat, renameat, unlinkat};
use rustix::io::Errno;
use uuid::Uuid;

use super::{OutputDelivery, OutputSink, OutputSinkError};

/// Only this user reads what was printed.
const FILE_MODE: Mode = Mode::from_raw_mode(0o600);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o700);

/// Writes outputs below a folder, each into a file that only this user can read. A file is there whole
/// or not at all: it is on disk before it has its name. A crash may leave a part of one, whose name begins
/// with a dot and ends in `.part`.
///
/// The folder must be there; those below it are made. Nothing is written elsewhere, whatever a request
/// says: names such as `..` are refused, and links below the folder are not followed.
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
    links: OFlags,
}

impl DirectorySink {
    /// A sink that writes below `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), links: OFlags::NOFOLLOW }
    }

    /// Follows links of folders below its own, wherever they lead: for who may write there anyway.
    #[must_use]
    pub fn follow_links(mut self) -> Self {
        self.links = OFlags::empty();
        self
    }

    /// Blocks.
    fn write(&self, output: &OutputDelivery) -> Result<(), OutputSinkError> {
        let unfit = |name: &str| matches!(name, "" | "." | "..");
        if output.key.split('/').any(unfit) {
            let info = format!("`{}` is no path below a folder", output.key);
            return Err(OutputSinkError::Denied(info));
        }
        let (folders, name) = output.key.rsplit_once('/').unwrap_or(("", &output.key));
        let mut place = self.folder.clone();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut folder = open(&place, flags, Mode::empty()).map_err(|error| at(&place, error))?;
        for name in folders.split('/').filter(|name| !name.is_empty()) {
            place.push(name);
            folder = self.enter(&folder, name).map_err(|error| at(&place, error))?;
        }
        place.push(name);
        write_whole(&folder, name, output).map_err(|error| at(&place, error))
    }

    /// A folder in another, made if it is missing.
    fn enter(&self, folder: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
        // Without the right to read it: it is enough to pass through.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | self.links;
        let enter = || openat(folder, name, flags, Mode::empty());
        match enter() {
            Err(Errno::NOENT) => {}
            entered => return entered,
        }
        match mkdirat(folder, name, FOLDER_MODE) {
            // Another delivery has made it in between.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        sync(folder);
        enter()
    }
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

        // A link leads on where the host says so.
        fs::create_dir(place.path().join("b")).expect("a folder");
        symlink("b", place.path().join("link")).expect("a link");
        let sink = DirectorySink::new(place.path()).follow_links();
        sink.write(&output(&printed, "link/7.log")).expect("it is followed");
        assert!(place.path().join("b/7.log").exists());
    }
}

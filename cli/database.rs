//! Which file the records are in.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use adjutant::{Engine, EngineBuilder};

use crate::failure::Failure;
use crate::ui;

/// A database file.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    /// Its folder, if that is this program's to make.
    folder: Option<PathBuf>,
    /// Nobody named it and it is not there yet, so its place is worth a line.
    is_news: bool,
}

impl Database {
    /// The file of `--db`, of `$ADJUTANT_DB`, or the one in the XDG data folder, as an absolute
    /// path: it is handed to other processes.
    pub(crate) fn find(named: Option<PathBuf>) -> Result<Self, Failure> {
        if let Some(path) = named {
            return Ok(Self { path: absolute(&path)?, folder: None, is_news: false });
        }
        let (path, folder) = match variable("ADJUTANT_DB") {
            Some(path) => (absolute(Path::new(&path))?, None),
            None => {
                let folder = data_folder()?;
                (folder.join("adjutant.db"), Some(folder))
            }
        };
        Ok(Self { is_news: !path.exists(), path, folder })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_missing(&self) -> bool {
        match fs::metadata(&self.path) {
            Ok(found) => found.is_file() && found.len() == 0,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// Makes the folder for a file that nobody named.
    pub(crate) fn make_folder(&self) -> Result<(), Failure> {
        let Some(folder) = &self.folder else { return Ok(()) };
        // Scripts and their output are nobody else's business.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|e| Failure::system(format_args!("create {}", folder.display()), &e))
    }

    /// Says where the records are, once the file has been made.
    pub(crate) fn announce(&self) {
        if self.is_news {
            ui::note(&format!("records are kept in {}", self.path.display()));
        }
    }
}

/// How the engines of this process open their file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    /// Whether a file is refused that other users could change.
    pub is_strict: bool,
    /// Whether a file that was run on another machine is taken over.
    pub adopts: bool,
}

/// Set once, by the options of the command line.
static OPENING: OnceLock<Opening> = OnceLock::new();

impl Opening {
    /// Makes this the way in which all engines of this process open their file.
    pub(crate) fn choose(self) {
        // The command line is read once.
        let _ = OPENING.set(self);
    }

    fn chosen() -> Self {
        *OPENING.get_or_init(|| Self { is_strict: true, adopts: false })
    }

    /// Returns the options that have another process open the file in the same way.
    pub(crate) fn options() -> Vec<&'static str> {
        let Self { is_strict, adopts } = Self::chosen();
        let lenient = (!is_strict).then_some("--no-strict-modes");
        lenient.into_iter().chain(adopts.then_some("--adopt")).collect()
    }
}

/// Returns the builder of an engine on a file.
pub(crate) fn builder(database: &Path) -> EngineBuilder {
    let Opening { is_strict, adopts } = Opening::chosen();
    let builder = Engine::builder().path(database).strict_modes(is_strict);
    if adopts { builder.adopt() } else { builder }
}

/// What an engine has left to the next engine on a file. Only the file's own user is to do that work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    /// Whether records are not true any more, because the engine did not come to its end, or because runs of it go on.
    pub work: bool,
    /// Whether runs go on.
    pub survivors: bool,
}

/// Looks what an engine has left to the next engine on a file.
pub(crate) fn left(database: &Path) -> Left {
    let database = fs::canonicalize(database).unwrap_or_else(|_| database.to_owned());
    let beside = |suffix: &str| {
        let mut name = database.clone().into_os_string();
        name.push(suffix);
        fs::symlink_metadata(name)
    };
    let is_own = |found: fs::Metadata| found.uid() == rustix::process::geteuid().as_raw();
    if !beside("").is_ok_and(is_own) {
        return Left { work: false, survivors: false };
    }
    let survivors = beside(".runs").is_ok();
    Left { work: survivors || beside(".lock").is_ok_and(|lock| lock.len() > 0), survivors }
}

fn data_folder() -> Result<PathBuf, Failure> {
    let data = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")));
    let folder = data.filter(|path| path.is_absolute()).ok_or_else(|| {
        Failure::usage("there is no home folder to keep records in; name a file with --db FILE")
    })?;
    Ok(folder.join("adjutant"))
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// A path that means the same in every folder.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| match error.kind() {
        // Only the current folder was looked for.
        ErrorKind::NotFound => Failure::new(
            "System.Refused",
            500,
            format!(
                "the current folder has been removed, so {} leads nowhere; go to another folder, or give an \
                 absolute path",
                path.display()
            ),
        ),
        _ => Failure::system(format_args!("find {}", path.display()), &error),
    })
}

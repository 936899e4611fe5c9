//! Which file the records are in.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

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
        matches!(fs::metadata(&self.path), Err(error) if error.kind() == ErrorKind::NotFound)
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

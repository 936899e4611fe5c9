//! Which file the records are in.

use std::env;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::ui;

/// The file of `--db`, of `$ADJUTANT_DB`, or the one in the XDG data folder, as an absolute path:
/// it is handed to other processes.
pub(crate) fn find(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(path) = named {
        return absolute(&path);
    }
    let path = match variable("ADJUTANT_DB") {
        Some(path) => absolute(Path::new(&path))?,
        None => in_data_folder()?,
    };
    if !path.exists() {
        ui::note(&format!("records go to {}", path.display()));
    }
    Ok(path)
}

fn in_data_folder() -> Result<PathBuf, Failure> {
    let data = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/share")));
    let folder = data.filter(|path| path.is_absolute()).ok_or_else(|| {
        Failure::usage("there is no home folder to keep records in; name a file with --db FILE")
    })?;
    let folder = folder.join("adjutant");
    // Scripts and their output are nobody else's business.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|e| Failure::system(format_args!("create {}", folder.display()), &e))?;
    Ok(folder.join("adjutant.db"))
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// A path that means the same in every folder.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|e| Failure::system(format_args!("find {}", path.display()), &e))
}

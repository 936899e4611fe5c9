//! Scripts and folders as the command line gives them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use crate::args::Source;
use crate::database;
use crate::failure::Failure;
use crate::session::FOLDERS;

/// More than any engine takes, and little enough to hold: `-f /dev/zero` must come to an end.
pub(crate) const SCRIPT_BYTES_MAX: u64 = 2 << 20;

/// How requests call the encoding of [`base64`].
pub(crate) const BASE64: &str = "Base64";

/// A script that is given as Base64, if it is. It is passed on as it is, for the engine to say what
/// is wrong with it.
pub(crate) fn base64(script: &[u8], is_base64: bool) -> Result<Option<String>, Failure> {
    if !is_base64 {
        return Ok(None);
    }
    let text = std::str::from_utf8(script).map_err(|_| {
        let message = "the script is no Base64: it is no text at all";
        Failure::new("CmdContent.DecodeError", 400, message)
    })?;
    // A file of Base64 is broken into lines.
    Ok(Some(text.split_ascii_whitespace().collect()))
}

impl Source {
    /// The script's bytes.
    pub(crate) fn read(self) -> Result<Vec<u8>, Failure> {
        match (self.script, self.file) {
            (Some(script), _) if script != "-" => Ok(script.into_vec()),
            (None, Some(file)) if file.as_os_str() != "-" => from_file(&file),
            _ => read(io::stdin().lock(), "standard input"),
        }
    }
}

fn from_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| cannot_read(&name, &error))?;
    read(file, &name)
}

fn read(source: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut script = Vec::new();
    source
        .take(SCRIPT_BYTES_MAX + 1)
        .read_to_end(&mut script)
        .map_err(|error| cannot_read(name, &error))?;
    if script.len() as u64 > SCRIPT_BYTES_MAX {
        let message = format!("{name} is no script: it has more than {SCRIPT_BYTES_MAX} bytes");
        return Err(Failure::new("CmdContent.ExceedLimit", 403, message));
    }
    Ok(script)
}

fn cannot_read(name: &str, error: &io::Error) -> Failure {
    Failure::new("Script.CannotRead", 400, format!("cannot read {name}: {error}"))
}

/// The folder to run in, so named that it means the same in the process that runs it.
pub(crate) fn working_dir(folder: &Path) -> Result<String, Failure> {
    database::absolute(folder)?
        .into_os_string()
        .into_string()
        .map_err(|path| Failure::usage(format!("the folder's name {path:?} is no UTF-8")))
}

/// Returns the place for whole outputs with the links in it resolved once, now: a link that a run puts there later leads
/// nowhere. A place that cannot be resolved stays as it is, so that the engine says what is wrong with it.
pub(crate) fn output_place(url: &str) -> String {
    let Some(path) = url.strip_prefix(FOLDERS).filter(|path| path.starts_with('/')) else {
        return url.to_owned();
    };
    let resolved = Path::new(path).ancestors().find_map(|there| {
        let rest = Path::new(path).strip_prefix(there).ok()?;
        let is_plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
        Some(there.canonicalize().ok().filter(|_| is_plain)?.join(rest))
    });
    match resolved.as_deref().and_then(Path::to_str) {
        Some(resolved) => format!("{FOLDERS}{}", resolved.trim_end_matches('/')),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_place_of_outputs_is_resolved_at_the_request() {
        let place = tempfile::tempdir().expect("a folder");
        let place = place.path().canonicalize().expect("it is there");
        std::fs::create_dir(place.join("real")).expect("a folder");
        symlink("real", place.join("link")).expect("a link");
        let check = |given: &str, want: &str| {
            let url = |path: &str| format!("file://{}/{path}", place.display());
            assert_eq!(output_place(&url(given)), url(want));
        };
        check("real", "real");
        check("link", "real");
        check("link/", "real");
        check("link/new/folder", "real/new/folder");
        check("link/../new", "new");
        check("new/../link", "new/../link");
        for other in ["oss://bucket/link", "file://relative", "file://"] {
            assert_eq!(output_place(other), other);
        }
    }
}

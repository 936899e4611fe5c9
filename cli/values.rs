//! Values of parameters as the command line gives them: in its words, from a file or from the environment. All users of a
//! machine can read the words of a command line, so a secret comes from one of the other two.

use std::convert::Infallible;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use rustix::fs::OFlags;

use crate::args::Pair;
use crate::failure::Failure;
use crate::script::SCRIPT_BYTES_MAX;

/// `NAME=VALUE`, `NAME=@FILE`, or `NAME` for the variable of that name. No error repeats it, because it may be a secret
/// with a mistake in it.
#[derive(Clone)]
pub(crate) struct Assignment(String);

impl FromStr for Assignment {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assignment(…)")
    }
}

/// Returns the names and values of an option that may be given several times.
pub(crate) fn read(option: &str, given: &[Assignment]) -> Result<Vec<Pair>, Failure> {
    let variable = |name: &str| std::env::var(name).ok();
    let numbered = given.iter().enumerate();
    let read = numbered.map(|(n, Assignment(text))| {
        assigned(text, variable)
            .map_err(|why| Failure::usage(format!("{option}, number {}: {why}", n + 1)))
    });
    read.collect()
}

fn assigned(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Pair, String> {
    let Some((name, value)) = text.split_once('=') else {
        let value = variable(text).ok_or(
            "want NAME=VALUE, NAME=@FILE, or the NAME of a variable that is set in the environment",
        )?;
        return Ok((text.to_owned(), value));
    };
    let value = match value.strip_prefix('@') {
        None => value.to_owned(),
        Some(text) if text.starts_with('@') => text.to_owned(),
        Some(path) => from_file(path)?,
    };
    Ok((name.to_owned(), value))
}

/// Reads a value without the line break at the end of its file.
fn from_file(path: &str) -> Result<String, String> {
    let mut value = String::new();
    let read =
        open(path).and_then(|file| file.take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut value));
    read.map_err(|error| {
        format!("cannot read the file after @: {error}; write @@ for a value that begins with @")
    })?;
    if value.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(format!("the file after @ has more than {SCRIPT_BYTES_MAX} bytes"));
    }
    if value.ends_with('\n') {
        value.pop();
        if value.ends_with('\r') {
            value.pop();
        }
    }
    Ok(value)
}

/// Opens a regular file, or anything else that this process was given open: what a shell writes for `<(…)` is a pipe.
fn open(path: &str) -> io::Result<File> {
    const GIVEN: [&str; 3] = ["/dev/stdin", "/dev/fd", "/proc/self/fd"];
    if GIVEN.iter().any(|given| Path::new(path).starts_with(given)) {
        return File::open(path);
    }
    // Because a name can lead to a pipe, the open must not wait for a writer.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use rustix::fs::Mode;

    use super::*;

    #[test]
    fn a_value_comes_from_words_files_and_the_environment() {
        let place = tempfile::tempdir().expect("a folder");
        let file = place.path().join("secret");
        let variable = |name: &str| (name == "TOKEN").then(|| "from outside".to_owned());
        let check = |text: &str, want: (&str, &str)| {
            let (name, value) = assigned(text, variable).expect(text);
            assert_eq!((name.as_str(), value.as_str()), want, "{text}");
        };
        check("a=b", ("a", "b"));
        check("a=b=c", ("a", "b=c"));
        check("a=", ("a", ""));
        check("a=@@b", ("a", "@b"));
        check("TOKEN", ("TOKEN", "from outside"));
        for (content, want) in
            [("x\n", "x"), ("x\r\n", "x"), ("x\n\n", "x\n"), ("x", "x"), ("", "")]
        {
            fs::write(&file, content).expect("written");
            check(&format!("a=@{}", file.display()), ("a", want));
        }
    }

    #[test]
    fn a_value_from_a_file_comes_to_an_end_whatever_the_file_is() {
        let place = tempfile::tempdir().expect("a folder");
        let path = |name: &str| place.path().join(name).display().to_string();
        let check = |path: &str, want: &str| {
            let error = assigned(&format!("a=@{path}"), |_| None).expect_err(path);
            assert!(error.contains(want), "{path}: {error}");
        };
        let zeros = File::open("/dev/zero").expect("there");
        let large = File::create(path("large")).expect("made");
        large.set_len(SCRIPT_BYTES_MAX + 1).expect("large");
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), Mode::RWXU).expect("a pipe");
        check("/dev/zero", "it is no regular file");
        check(&path("pipe"), "it is no regular file");
        check(&path(""), "it is no regular file");
        check(&path("large"), "has more than");
        check(&format!("/dev/fd/{}", zeros.as_raw_fd()), "has more than");

        let (reader, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"from a shell\n").expect("written");
        drop(writer);
        let given = format!("a=@/dev/fd/{}", reader.as_raw_fd());
        let (_, value) = assigned(&given, |_| None).expect("readable");
        assert_eq!(value, "from a shell");
    }

    #[test]
    fn no_error_repeats_a_value() {
        let check = |given: &str| {
            let given = [Assignment("a=b".to_owned()), Assignment(given.to_owned())];
            let error = read("--param", &given).expect_err("a mistake").to_string();
            assert!(error.starts_with("--param, number 2: "), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
            assert!(!format!("{given:?}").contains("hunter2"));
        };
        check("hunter2");
        check("p=@hunter2");
    }
}

//! Values of parameters as the command line gives them: in its words, from a file or from the environment. All users of a
//! machine can read the words of a command line, so a secret comes from one of the other two.

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::str::FromStr;

use crate::args::Pair;
use crate::failure::Failure;

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
    let mut value = fs::read_to_string(path).map_err(|error| {
        format!("cannot read the file after @: {error}; write @@ for a value that begins with @")
    })?;
    if value.ends_with('\n') {
        value.pop();
        if value.ends_with('\r') {
            value.pop();
        }
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
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

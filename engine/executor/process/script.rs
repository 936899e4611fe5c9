//! What the first line of a script asks for.
//!
//! A `#!` line is read here rather than by the kernel, in the same way. So the file itself is never
//! executed, and neither of two old troubles exists: `ETXTBSY` while another thread's spawn still
//! holds a copy of the descriptor that wrote it, and a scratch folder on a `noexec` file system.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What a `#!` line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Interpreter<'a> {
    pub program: PathBuf,
    /// The rest of the line, undivided.
    pub argument: Option<&'a OsStr>,
}

/// What some editors begin a text with. To the kernel there is no `#!` line then, and `sh` takes it for the
/// name of a program.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The interpreter that `content` names, read as execve(2) reads it; `None` if it names none.
///
/// # Errors
///
/// Why a `#!` line is none, in words.
pub(super) fn interpreter(content: &[u8]) -> Result<Option<Interpreter<'_>>, &'static str> {
    let unmarked = content.strip_prefix(BYTE_ORDER_MARK);
    if unmarked.is_some_and(|content| content.starts_with(b"#!")) {
        return Err("a UTF-8 byte order mark precedes the `#!` line; want the script without it");
    }
    let Some(line) = content.strip_prefix(b"#!") else { return Ok(None) };
    let line = line.split(|byte| matches!(byte, b'\n' | b'\0')).next().unwrap_or_default();
    let line = trim(line);
    let (program, argument) = match line.iter().position(is_blank) {
        Some(at) => (&line[..at], Some(trim(&line[at..]))),
        None => (line, None),
    };
    if program.is_empty() {
        return Err("ENOEXEC: the `#!` line names no interpreter");
    }
    // A program whose name ends so is looked for, in case there is one.
    if argument.is_some_and(|argument| argument.ends_with(b"\r")) {
        return Err(
            "the script has Windows line ends: the argument in its `#!` line ends with `\\r`",
        );
    }
    // A bare name is a file of the working directory, as it is to the kernel; not one of `PATH`.
    let here = if program.contains(&b'/') { "" } else { "." };
    let program = Path::new(here).join(OsStr::from_bytes(program));
    Ok(Some(Interpreter { program, argument: argument.map(OsStr::from_bytes) }))
}

/// Returns how a record may call the interpreter of a script: by its name in the script as it was before the parameters
/// were filled in. A value of a parameter is in no record.
pub(super) fn name_before_filling(template: &[u8], program: &Path) -> OsString {
    match interpreter(template) {
        Ok(Some(before)) if before.program == program => program.into(),
        // A `{{ name }}` may have blanks.
        Ok(Some(_)) => {
            let line = template[2..].split(|byte| matches!(byte, b'\n' | b'\0')).next();
            OsStr::from_bytes(trim(line.unwrap_or_default())).to_owned()
        }
        Ok(None) | Err(_) => "the interpreter of the `#!` line that the parameters make".into(),
    }
}

/// Why a shell cannot read `content` as it is meant: wrong line ends, or another encoding. `None` if nothing
/// is wrong with them.
///
/// To a shell, a carriage return is a letter of the word before it, so `cd /tmp` goes nowhere and
/// `> out` makes a file of another name. A script may have some in it, but not at the end of its first line.
pub(super) fn unreadable(content: &[u8]) -> Option<&'static str> {
    if is_wide(content) {
        return Some("the script is in UTF-16; want UTF-8, without a byte order mark");
    }
    if content.starts_with(BYTE_ORDER_MARK) {
        return Some("the script begins with a UTF-8 byte order mark; want the script without it");
    }
    let first = content.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let message =
        "the script has Windows line ends (CR LF); want LF alone, as `tr -d '\\r'` leaves it";
    first.ends_with(b"\r\n").then_some(message)
}

/// Whether `content` is text of two bytes a letter: by its mark, or by its first two letters.
fn is_wide(content: &[u8]) -> bool {
    let is_letter = |byte: &u8| (1..0x80).contains(byte);
    match content {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [a, 0, b, 0, ..] | [0, a, 0, b, ..] => is_letter(a) && is_letter(b),
        _ => false,
    }
}

/// Whether a program is a shell, by its name.
pub(super) fn is_shell(program: &Path) -> bool {
    const SHELLS: [&str; 9] = ["sh", "ash", "bash", "dash", "ksh", "ksh93", "mksh", "yash", "zsh"];
    program.file_name().and_then(OsStr::to_str).is_some_and(|name| SHELLS.contains(&name))
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(last)
    {
        bytes = rest;
    }
    bytes
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_name_an_interpreter_without_values_of_parameters() {
        let check = |template: &str, program: &str, want: &str| {
            let name = name_before_filling(template.as_bytes(), Path::new(program));
            assert_eq!(name, want, "{template}");
        };
        check("#!/bin/sh -e\n", "/bin/sh", "/bin/sh");
        check("#! /bin/{{p}} -e\necho", "/bin/hunter2", "/bin/{{p}} -e");
        check("#!/bin/{{ p }}\n", "/bin/hunter2", "/bin/{{ p }}");
        check("#!{{p}}", "./hunter2", "{{p}}");
        check("#!/bin/sh{{p}}\n", "/bin/sh", "/bin/sh{{p}}");
        for hidden in ["{{p}}", "#{{p}}", "", "\u{feff}#!{{p}}"] {
            let name = name_before_filling(hidden.as_bytes(), Path::new("/bin/hunter2"));
            assert!(name.to_string_lossy().starts_with("the interpreter of"), "{hidden}");
        }
    }

    #[test]
    fn the_first_line_is_read_as_the_kernel_does() {
        let check = |content: &[u8], want: Option<(&str, Option<&str>)>| {
            let got = interpreter(content).expect("well formed");
            let want = want.map(|(program, argument)| Interpreter {
                program: program.into(),
                argument: argument.map(OsStr::new),
            });
            assert_eq!(got, want, "{}", content.escape_ascii());
        };
        check(b"", None);
        check(b"echo 1\n#!/bin/sh", None);
        check(b" #!/bin/sh", None);
        check(b"#!/bin/sh", Some(("/bin/sh", None)));
        check(b"#!/bin/sh\necho 1", Some(("/bin/sh", None)));
        check(b"#! \t/bin/sh \t\necho 1", Some(("/bin/sh", None)));
        check(b"#!/bin/sh -e\n", Some(("/bin/sh", Some("-e"))));
        check(b"#!/usr/bin/env  -S awk -f \n", Some(("/usr/bin/env", Some("-S awk -f"))));
        check(b"#!/bin/sh\r\n", Some(("/bin/sh\r", None)));
        check(b"#!/bin/sh\0 -e\n", Some(("/bin/sh", None)));
        check(b"#!python3\n", Some(("./python3", None)));
        check(b"#!bin/python3\n", Some(("bin/python3", None)));
        for nothing in [&b"#!"[..], b"#!\n", b"#! \t\n/bin/sh", b"#!\0/bin/sh"] {
            assert!(interpreter(nothing).expect_err("names nothing").starts_with("ENOEXEC"));
        }
        check(b"\xef\xbb\xbfecho 1\n", None);
        check(b"\xef\xbb#!/bin/sh\n", None);
        let marked = interpreter(b"\xef\xbb\xbf#!/bin/bash\n");
        assert!(marked.expect_err("hidden").contains("byte order mark"));
        let windows = interpreter(b"#!/usr/bin/env bash\r\necho 1\r\n");
        assert!(windows.expect_err("no such program").contains("Windows line ends"));
    }

    #[test]
    fn what_a_shell_cannot_read_is_named() {
        let check = |content: &[u8], want: &str| {
            let told = unreadable(content);
            let is_told =
                told.map_or(want.is_empty(), |told| !want.is_empty() && told.contains(want));
            assert!(is_told, "{}: {told:?}", content.escape_ascii());
        };
        let wide = |text: &str, big: bool| -> Vec<u8> {
            let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
            text.encode_utf16().flat_map(bytes).collect()
        };
        for fine in [
            &b""[..],
            b"\n",
            b"echo 1",
            b"echo 1\n",
            b"printf 'a\rb'",
            b"printf 'a\r'\r",
            "\u{e9}\n".as_bytes(),
        ] {
            check(fine, "");
        }
        check(b"cat <<E\na\r\nb\r\nE\n", "");
        check(b"cd /tmp\r\nls\r\n", "Windows line ends");
        check(b"echo 1\r\n", "Windows line ends");
        check(b"\r\necho 1\n", "Windows line ends");
        check(b"\xef\xbb\xbfecho 1\n", "byte order mark");
        for text in ["echo 1\n", "\u{feff}echo 1\n", "#!/bin/sh\n"] {
            check(&wide(text, false), "UTF-16");
            check(&wide(text, true), "UTF-16");
        }
    }
}

//! Launchers: the command line that a script is given to in the place of its shell. Pure.
//!
//! It is split into words as a shell does it, with quotes and backslashes, and nothing is expanded.
//! `{{ACS::ScriptFileName}}` stands for the file of the script, which has an ending of its own with
//! `{{ACS::ScriptFileName|Ext(".py")}}`; without either it is the last argument. The path goes in
//! after the splitting, so nothing in it is a word of its own.

/// A launcher that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Launcher {
    /// At least one. [`PATH`] stands for the path of the script.
    words: Vec<String>,
    /// What the name of the script's file ends with.
    pub extension: Option<String>,
}

/// What stands for the path in words; no launcher has it in its text.
const PATH: char = '\0';
const SCRIPT_FILE_NAME: &str = "ACS::ScriptFileName";
/// Longer endings mean nothing to any program.
const EXTENSION_CHARS_MAX: usize = 16;

impl Launcher {
    /// Reads a launcher, or says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.contains(PATH) {
            return Err("a NUL character cannot be part of it".to_owned());
        }
        let (text, extension, has_path) = match placeholder(text)? {
            Some(found) => (found.text, found.extension, true),
            None => (text.to_owned(), None, false),
        };
        let mut words = split(&text)?;
        if words.first().is_none_or(|program| program.is_empty() || program.contains(PATH)) {
            return Err("it names no program to give the script to".to_owned());
        }
        if !has_path {
            words.push(PATH.to_string());
        }
        Ok(Self { words, extension })
    }

    /// The program and its arguments, for a script in this file.
    pub(crate) fn command(&self, path: &str) -> (String, Vec<String>) {
        let mut words = self.words.iter().map(|word| word.replace(PATH, path));
        // There is at least one.
        (words.next().unwrap_or_default(), words.collect())
    }
}

struct Placeholder {
    /// The launcher with [`PATH`] in its place.
    text: String,
    extension: Option<String>,
}

fn placeholder(text: &str) -> Result<Option<Placeholder>, String> {
    let Some((before, rest)) = text.split_once("{{") else { return Ok(None) };
    let Some((inner, after)) = rest.split_once("}}") else {
        return Err("`{{` without `}}`".to_owned());
    };
    if after.contains("{{") {
        return Err("want one placeholder; it has more".to_owned());
    }
    let (name, extension) = match inner.split_once('|') {
        Some((name, call)) => (name, Some(extension(call)?)),
        None => (inner, None),
    };
    if !name.trim().eq_ignore_ascii_case(SCRIPT_FILE_NAME) {
        let name = name.trim();
        return Err(format!("want {{{{{SCRIPT_FILE_NAME}}}}}; it has `{{{{{name}}}}}`"));
    }
    Ok(Some(Placeholder { text: format!("{before}{PATH}{after}"), extension }))
}

/// `.py` of `Ext(".py")`, with quotes of either kind or none.
fn extension(call: &str) -> Result<String, String> {
    const WANT: &str = "want `Ext(\".py\")` or the like after `|`";
    let call = call.trim();
    let name = call.get(..3).filter(|name| name.eq_ignore_ascii_case("Ext"));
    let argument = name.and_then(|_| call[3..].trim().strip_prefix('(')?.strip_suffix(')'));
    let argument = argument.ok_or(WANT)?.trim();
    let unquoted =
        ['"', '\''].iter().find_map(|quote| argument.strip_prefix(*quote)?.strip_suffix(*quote));
    let extension = unquoted.unwrap_or(argument);
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let chars = extension.chars().count();
    if !(1..=EXTENSION_CHARS_MAX).contains(&chars) || !extension.chars().all(fits) {
        return Err(format!(
            "want an ending of 1 to {EXTENSION_CHARS_MAX} letters, digits, `.`, `_` and `-`"
        ));
    }
    Ok(extension.to_owned())
}

/// Splits a command line into words as a shell does.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    // None between words: an empty pair of quotes is a word too.
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => quoted(&mut chars, word.get_or_insert_default())?,
            '"' => double_quoted(&mut chars, word.get_or_insert_default())?,
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(escaped) => word.get_or_insert_default().push(escaped),
                None => return Err("it ends with a backslash".to_owned()),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

fn quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    for c in chars {
        match c {
            '\'' => return Ok(()),
            c => word.push(c),
        }
    }
    Err("a `'` is not closed".to_owned())
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok(()),
            // Before anything else a backslash is itself.
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
                None => break,
            },
            c => word.push(c),
        }
    }
    Err("a `\"` is not closed".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn launchers_are_split_as_a_shell_does() {
        let check = |text: &str, extension: Option<&str>, want: &[&str]| {
            let launcher = Launcher::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let (program, arguments) = launcher.command("/s p/x");
            let words: Vec<_> = std::iter::once(program).chain(arguments).collect();
            assert_eq!(words, want, "{text}");
            assert_eq!(launcher.extension.as_deref(), extension, "{text}");
        };
        check("bash", None, &["bash", "/s p/x"]);
        check("python3 -u {{ACS::ScriptFileName}}", None, &["python3", "-u", "/s p/x"]);
        let python = r#"python3 -u {{ACS::ScriptFileName|Ext(".py")}}"#;
        check(python, Some(".py"), &["python3", "-u", "/s p/x"]);
        check("p {{ acs::scriptfilename | ext('.rb') }} -v", Some(".rb"), &["p", "/s p/x", "-v"]);
        check("p {{ACS::ScriptFileName|Ext(.sh)}}", Some(".sh"), &["p", "/s p/x"]);
        check("p --file={{ACS::ScriptFileName}}", None, &["p", "--file=/s p/x"]);
        check(r#"p "--file={{ACS::ScriptFileName}} b""#, None, &["p", "--file=/s p/x b"]);
        check("p '{{ACS::ScriptFileName}}'", None, &["p", "/s p/x"]);
        check(r#"a 'b c' "d e" f\ g '' """#, None, &["a", "b c", "d e", "f g", "", "", "/s p/x"]);
        check(r#"a "\"\\\$\`\n" '\n' x"y"'z'"#, None, &["a", "\"\\$`\\n", "\\n", "xyz", "/s p/x"]);
        check("a\tb\\\n c", None, &["a", "b", "c", "/s p/x"]);
        check("a $HOME `x` ; b", None, &["a", "$HOME", "`x`", ";", "b", "/s p/x"]);
    }

    #[test]
    fn what_cannot_be_a_launcher_is_said() {
        let check = |text: &str, want: &str| {
            let why = Launcher::parse(text).expect_err(text);
            assert!(why.contains(want), "{text}: {why}");
        };
        check("", "names no program");
        check(" \t", "names no program");
        check("{{ACS::ScriptFileName}}", "names no program");
        check("'' x", "names no program");
        check("a 'b", "`'` is not closed");
        check("a \"b", "`\"` is not closed");
        check("a \\", "ends with a backslash");
        check("a {{ACS::ScriptFileName", "without `}}`");
        check("a {{ACS::Other}}", "it has `{{ACS::Other}}`");
        check("a {{ACS::ScriptFileName}} {{ACS::ScriptFileName}}", "it has more");
        check("a {{ACS::ScriptFileName|Out(x)}}", "want `Ext");
        check("a {{ACS::ScriptFileName|Ext(../x)}}", "want an ending");
        check("a {{ACS::ScriptFileName|Ext()}}", "want an ending");
        check("a {{ACS::ScriptFileName|Ext(\".\u{e4}\")}}", "want an ending");
        check("a \0", "NUL");
    }

    proptest! {
        #[test]
        fn no_text_breaks_it(text in "\\PC*", path in "\\PC*") {
            if let Ok(launcher) = Launcher::parse(&text) {
                let (program, arguments) = launcher.command(&path);
                // The path is one word, or a part of one.
                prop_assert!(std::iter::once(&program).chain(&arguments).any(|word| word.contains(&path)));
            }
        }

        #[test]
        fn quoted_words_arrive_as_they_are(words in prop::collection::vec("[^\0{}']*", 1..5)) {
            let text: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            let text = format!("program {}", text.join(" "));
            let launcher = Launcher::parse(&text).expect("quoted words");
            let (program, arguments) = launcher.command("PATH");
            let mut want = words.clone();
            want.push("PATH".to_owned());
            prop_assert_eq!((program.as_str(), arguments), ("program", want));
        }
    }
}

//! A program with its arguments, run in a container of an instance: no script, and no shell of its own.

use crate::error::Violation;
use crate::wire::{lenient, page_request, page_response};

/// Most words of a command, and the longest of them in characters.
const WORDS_MAX: usize = 20;
const WORD_CHARS_MAX: usize = 256;
/// The page's code for whatever is wrong with a request.
const REFUSED: &str = "InvalidParameter.ValueExceeded";

page_request! {
/// Runs a program in a container and answers with what it printed.
#[non_exhaustive]
pub struct ExecContainerCommand {
    /// The instance that has the container.
    pub container_group_id: String,
    /// The container.
    pub container_name: String,
    /// The program and its arguments: the JSON text of a list of at most 20 strings, each of at most
    /// 256 characters.
    pub command: String,
    /// Whether it has a terminal; not with `Sync`.
    #[serde(rename = "TTY", deserialize_with = "lenient::value")]
    pub tty: bool,
    /// Whether it reads what is typed into a session; true if not given.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub stdin: Option<bool>,
    /// Whether the call waits for the end and answers with the output. There are no sessions, so
    /// it has to.
    #[serde(deserialize_with = "lenient::value")]
    pub sync: bool,
}
}

impl ExecContainerCommand {
    /// A program and its arguments, to be waited for.
    pub fn new<W: Into<String>>(
        container_group_id: impl Into<String>,
        container_name: impl Into<String>,
        words: impl IntoIterator<Item = W>,
    ) -> Self {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        Self {
            container_group_id: container_group_id.into(),
            container_name: container_name.into(),
            command: serde_json::Value::from(words).to_string(),
            sync: true,
            ..Self::default()
        }
    }

    /// Checks the request; the words of its command.
    pub(crate) fn check(&self) -> Result<Vec<String>, Vec<Violation>> {
        let mut found = Vec::new();
        let mut refuse = |field, message: String| {
            found.push(Violation::new(REFUSED, 400, field, message));
        };
        if self.container_group_id.is_empty() {
            refuse("ContainerGroupId", "want an instance; it is missing".to_owned());
        }
        if self.container_name.is_empty() {
            refuse("ContainerName", "want the name of a container; it is missing".to_owned());
        }
        let words: Vec<String> = match serde_json::from_str(&self.command) {
            Ok(words) => words,
            Err(error) => {
                let example = r#"["/bin/sh", "-c", "ls -a"]"#;
                refuse(
                    "Command",
                    format!(
                        "want the JSON of a list of strings, such as {example}; it is none: {error}"
                    ),
                );
                return Err(found);
            }
        };
        let count = words.len();
        if !(1..=WORDS_MAX).contains(&count) {
            refuse("Command", format!("want 1 to {WORDS_MAX} strings; it has {count}"));
        }
        for (n, word) in words.iter().enumerate() {
            let chars = word.chars().count();
            if chars > WORD_CHARS_MAX {
                let number = n + 1;
                refuse(
                    "Command",
                    format!(
                        "want strings of at most {WORD_CHARS_MAX} characters; number {number} has {chars}"
                    ),
                );
            }
            if word.contains('\0') {
                refuse("Command", "a NUL character cannot be part of it".to_owned());
            }
        }
        let is_bare_bash = words.len() == 1 && words[0] == "/bin/bash";
        match (self.sync, self.tty) {
            (true, true) => refuse("TTY", "want false where Sync is true".to_owned()),
            (true, false) if is_bare_bash => {
                refuse("Command", "want more than /bin/bash where Sync is true".to_owned());
            }
            (false, false) if is_bare_bash => {
                refuse("TTY", "want true for /bin/bash alone".to_owned());
            }
            _ => {}
        }
        if found.is_empty() { Ok(words) } else { Err(found) }
    }
}

/// A shell script that becomes the program that these words name.
pub(crate) fn script(words: &[String]) -> String {
    let quoted = words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''")));
    format!("exec {}", quoted.collect::<Vec<_>>().join(" "))
}

page_response! {
/// What a program in a container printed.
pub struct ExecContainerCommandResponse {
    /// Its output, both streams in the order in which they came.
    pub sync_response: String,
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_held_to_the_page() {
        let check = |json: serde_json::Value, fields: &[&str]| {
            let mut request = serde_json::json!({
                "RegionId": "cn-hangzhou", "ContainerGroupId": "eci-1", "ContainerName": "nginx",
                "Command": r#"["/bin/sh", "-c", "ls -a"]"#, "Sync": true,
            });
            for (key, value) in json.as_object().expect("an object") {
                request[key] = value.clone();
            }
            let read: ExecContainerCommand = serde_json::from_value(request).expect("readable");
            let found = read.check().err().unwrap_or_default();
            assert!(found.iter().all(|violation| violation.code == REFUSED));
            let found: Vec<_> = found.iter().map(|violation| violation.field).collect();
            assert_eq!(found, fields, "{json}");
        };
        let list = |words: Vec<String>| serde_json::json!({"Command": serde_json::json!(words).to_string()});
        check(serde_json::json!({}), &[]);
        check(serde_json::json!({"Stdin": "True", "TTY": "False"}), &[]);
        check(serde_json::json!({"ContainerGroupId": ""}), &["ContainerGroupId"]);
        check(serde_json::json!({"ContainerName": ""}), &["ContainerName"]);
        check(serde_json::json!({"Command": "ls -a"}), &["Command"]);
        check(serde_json::json!({"Command": "[1]"}), &["Command"]);
        check(list(vec![]), &["Command"]);
        check(list(vec!["x".to_owned(); 20]), &[]);
        check(list(vec!["x".to_owned(); 21]), &["Command"]);
        check(list(vec!["\u{e4}".repeat(256)]), &[]);
        check(list(vec!["\u{e4}".repeat(257)]), &["Command"]);
        check(list(vec!["a\0".to_owned()]), &["Command"]);
        check(serde_json::json!({"TTY": true}), &["TTY"]);
        check(list(vec!["/bin/bash".to_owned()]), &["Command"]);
        let bash = serde_json::json!({"Command": "[\"/bin/bash\"]", "Sync": false});
        check(bash, &["TTY"]);
    }

    #[test]
    fn words_stay_words() {
        let words = ["printf", "%s|", "a b", "it's", "", "$HOME", "`x`", "\\"].map(str::to_owned);
        let output = std::process::Command::new("sh").arg("-c").arg(script(&words)).output();
        let output = output.expect("a shell").stdout;
        assert_eq!(String::from_utf8_lossy(&output), "a b|it's||$HOME|`x`|\\|");
    }
}

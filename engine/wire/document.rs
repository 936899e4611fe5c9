//! A request out of its JSON, or where it is wrong and how.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{flat, shortened};

/// Why a text is no request.
#[derive(Debug)]
pub(crate) struct Misread {
    /// Whether it has a field that no such request has.
    pub has_unknown_field: bool,
    message: String,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is not understood: {}", self.message)
    }
}

/// What the pages' clients put beside a request that goes into a query.
const ACTION: &str = "Action";

/// Reads a request of an operation; nothing at all is one that gives nothing. One that comes from a
/// query, with numbered keys and the name of the operation in it, is understood.
pub(crate) fn read<T: DeserializeOwned>(operation: &str, text: &str) -> Result<T, Misread> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    let document: Value = serde_json::from_str(text).map_err(|error| misread(&error))?;
    let Value::Object(mut fields) = document else {
        return Err(misread(&"want an object, `{…}`"));
    };
    let is_named = fields.get(ACTION).is_some_and(|action| action == operation);
    if is_named || fields.keys().any(|key| key.contains('.')) {
        if is_named {
            fields.remove(ACTION);
        }
        let fields = Value::Object(flat::fold(fields));
        return serde_path_to_error::deserialize(fields).map_err(|error| misread_at(&error));
    }
    // From the text again: what has been a value has lost the last digits of long numbers.
    let mut text = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut text).map_err(|error| misread_at(&error))
}

fn misread(why: &dyn fmt::Display) -> Misread {
    Misread { has_unknown_field: false, message: why.to_string() }
}

fn misread_at(error: &serde_path_to_error::Error<serde_json::Error>) -> Misread {
    let said = error.inner().to_string();
    // The list of all that would be known is longer than the page, and the field says where it is.
    let said = said.split_once(", expected one of ").map_or(&*said, |(said, _)| said);
    let said = said.split_once(" at line ").map_or(said, |(said, _)| said);
    let field = error.path().to_string();
    let message = match shortened(&field) {
        field if field == "." || said.contains(&*field) => said.to_owned(),
        field => format!("`{field}`: {said}"),
    };
    // serde has no other way to tell this from a value of the wrong kind.
    Misread { has_unknown_field: said.starts_with("unknown field"), message }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
    struct Request {
        timeout: u64,
        tag: Vec<Tag>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields)]
    struct Tag {
        key: String,
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, want: &str, has_unknown_field: bool| {
            let misread = read::<Request>("Do", text).expect_err(text);
            assert!(misread.to_string().contains(want), "{text}: {misread}");
            assert_eq!(misread.has_unknown_field, has_unknown_field, "{text}");
        };
        check("{", "EOF while parsing an object", false);
        check("[]", "want an object", false);
        check("1", "want an object", false);
        check(r#"{"Timeout": "soon"}"#, "`Timeout`: invalid type", false);
        check(r#"{"Tag": [{"Key": "a"}, {"Key": 1}]}"#, "`Tag[1].Key`: invalid type", false);
        check(r#"{"Tag.1.Key": 1}"#, "`Tag[0].Key`: invalid type", false);
        check(r#"{"Nope": 1}"#, "unknown field `Nope`", true);
        check(r#"{"Action": "Undo"}"#, "unknown field `Action`", true);
        check(r#"{"Timeout.1": 1}"#, "`Timeout`: invalid type", false);
    }

    #[test]
    fn requests_come_as_documents_and_as_queries() {
        let check = |text: &str, timeout: u64, keys: &[&str]| {
            let request: Request = read("Do", text).unwrap_or_else(|why| panic!("{text}: {why}"));
            let found: Vec<_> = request.tag.iter().map(|tag| tag.key.as_str()).collect();
            assert_eq!((request.timeout, &*found), (timeout, keys), "{text}");
        };
        check("", 0, &[]);
        check(" \n", 0, &[]);
        check(r#"{"Timeout": 18446744073709551615, "Tag": [{"Key": "a"}]}"#, u64::MAX, &["a"]);
        check(
            r#"{"Action": "Do", "Timeout": 1, "Tag.2.Key": "b", "Tag.1.Key": "a"}"#,
            1,
            &["a", "b"],
        );
    }
}

//! Parameters: what the placeholders of a script are, the values given for them, and the finished
//! text. Pure.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use memchr::memmem;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use crate::config::Names;
use crate::error::Violation;
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::limits::Limits;
use crate::wire::text_enum;

const OPEN: &[u8] = b"{{";
const CLOSE: &[u8] = b"}}";
/// The prefix of names that the engine gives values to.
const BUILT_IN: &str = "ACS::";
/// The field of requests that holds the script.
const CONTENT: &str = "CommandContent";
/// The field of requests that holds values.
const FIELD: &str = "Parameters";

/// What the engine itself knows a value for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuiltIn {
    RegionId,
    AccountId,
    InstanceId,
    InstanceName,
    InvokeId,
    CommandId,
}

impl BuiltIn {
    const ALL: [(Self, &'static str); 6] = [
        (Self::RegionId, "RegionId"),
        (Self::AccountId, "AccountId"),
        (Self::InstanceId, "InstanceId"),
        (Self::InstanceName, "InstanceName"),
        (Self::InvokeId, "InvokeId"),
        (Self::CommandId, "CommandId"),
    ];

    fn parse(name: &str) -> Option<Self> {
        let named = Self::ALL.into_iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
        named.map(|(built_in, _)| built_in)
    }
}

/// What the built-in parameters of one execution come to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub names: &'a Names,
    pub instance_id: &'a InstanceId,
    pub instance_name: &'a str,
    pub invoke_id: InvokeId,
    pub command_id: CommandId,
}

impl<'a> Facts<'a> {
    pub(crate) fn value(&self, name: BuiltIn) -> Cow<'a, str> {
        match name {
            BuiltIn::RegionId => self.names.region_id.as_str().into(),
            BuiltIn::AccountId => self.names.account_id.as_str().into(),
            BuiltIn::InstanceId => self.instance_id.as_str().into(),
            BuiltIn::InstanceName => self.instance_name.into(),
            BuiltIn::InvokeId => self.invoke_id.to_string().into(),
            BuiltIn::CommandId => self.command_id.to_string().into(),
        }
    }
}

/// A script and its placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template<'a> {
    content: &'a [u8],
    placeholders: Vec<Placeholder>,
    /// Each once, as it is first written.
    names: Vec<&'a str>,
    /// What stands between braces and is no parameter, and where.
    refused: Vec<(usize, Refusal)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Placeholder {
    /// The braces and all between them.
    range: Range<usize>,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The name with this number.
    Named(usize),
    BuiltIn(BuiltIn),
}

impl<'a> Template<'a> {
    /// Finds the placeholders of a script, once from left to right. An opening that is never closed
    /// is text, and so is what [`check`](Self::check) refuses.
    pub(crate) fn parse(content: &'a [u8]) -> Self {
        let mut template =
            Template { content, placeholders: Vec::new(), names: Vec::new(), refused: Vec::new() };
        let mut from = 0;
        while let Some(open) = memmem::find(&content[from..], OPEN).map(|at| from + at) {
            let inner = open + OPEN.len();
            let Some(close) = memmem::find(&content[inner..], CLOSE).map(|at| inner + at) else {
                break;
            };
            from = close + CLOSE.len();
            match template.what(&content[inner..close]) {
                Ok(what) => template.placeholders.push(Placeholder { range: open..from, what }),
                Err(refusal) => template.refused.push((open, refusal)),
            }
        }
        template
    }

    fn what(&mut self, inner: &'a [u8]) -> Result<What, Refusal> {
        let name = std::str::from_utf8(inner.trim_ascii()).map_err(|_| Refusal::Characters)?;
        if name.is_empty() {
            return Err(Refusal::Empty);
        }
        if let Some(name) = strip_prefix_ignoring_case(name, BUILT_IN) {
            return BuiltIn::parse(name).map(What::BuiltIn).ok_or(Refusal::UnknownBuiltIn);
        }
        if !is_name(name) {
            return Err(Refusal::Characters);
        }
        let known = self.names.iter().position(|known| known.eq_ignore_ascii_case(name));
        Ok(What::Named(known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        })))
    }

    /// Says what is wrong with the placeholders.
    pub(crate) fn check(&self, limits: &Limits, found: &mut Vec<Violation>) {
        found.extend(self.refused.iter().map(|(offset, refusal)| refusal.at(*offset)));
        let max = limits.parameter_name_bytes_max;
        for name in self.names.iter().filter(|name| name.len() > max) {
            let message =
                format!("want parameter names of at most {max} bytes; one has {}", name.len());
            found.push(Violation::new("CmdParamName.ExceedLimit", 403, CONTENT, message));
        }
        let (max, given) = (limits.parameters_defined_max, self.names.len());
        if given > max {
            let message = format!("want at most {max} different parameters; it has {given}");
            found.push(Violation::new("CmdParamCount.ExceedLimit", 403, CONTENT, message));
        }
    }

    /// The names that values can be given for, each once, in the order of their first use.
    pub(crate) fn names(&self) -> &[&'a str] {
        &self.names
    }

    /// The finished text. Values go in as they are and are not looked through again.
    pub(crate) fn render<'v>(
        &self,
        value: impl Fn(&str) -> Cow<'v, str>,
        built_in: impl Fn(BuiltIn) -> Cow<'v, str>,
    ) -> Vec<u8> {
        let values: Vec<Cow<'v, str>> = self.names.iter().map(|name| value(name)).collect();
        let mut text = Vec::with_capacity(self.content.len());
        let mut from = 0;
        for placeholder in &self.placeholders {
            text.extend_from_slice(&self.content[from..placeholder.range.start]);
            match placeholder.what {
                What::Named(number) => text.extend_from_slice(values[number].as_bytes()),
                What::BuiltIn(name) => text.extend_from_slice(built_in(name).as_bytes()),
            }
            from = placeholder.range.end;
        }
        text.extend_from_slice(&self.content[from..]);
        text
    }
}

/// Why what stands between braces is no parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Empty,
    Characters,
    UnknownBuiltIn,
}

impl Refusal {
    fn at(self, offset: usize) -> Violation {
        let (code, want) = match self {
            Self::Empty => ("CmdParam.EmptyKey", "a name between the braces".to_owned()),
            Self::Characters => (
                "CmdParam.InvalidParamName",
                "a name of letters, digits, `_` and `-` between the braces".to_owned(),
            ),
            Self::UnknownBuiltIn => {
                ("CmdParam.InvalidParamName", format!("one of {} after `ACS::`", built_in_names()))
            }
        };
        Violation::new(code, 400, CONTENT, format!("want {want} at byte {offset}"))
    }
}

fn built_in_names() -> String {
    BuiltIn::ALL.map(|(_, name)| name).join(", ")
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// How the values of parameters come into a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum ParameterPassing {
    /// As text in the place of `{{name}}`, as the pages say. Whoever gives a value can have
    /// the script do anything.
    #[default]
    Text,
    /// Byte by byte in the environment variable `PARAM_<NAME>`, its letters large and each `-` a
    /// `_`; safe whatever the value is. The script has no placeholders then.
    Environment,
}

text_enum!(ParameterPassing, "way to pass parameters", [Text, Environment]);

/// The values of one invocation and how they come into its script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    pub values: Parameters,
    pub passing: ParameterPassing,
}

impl Arguments {
    /// Checks them against the script they are for.
    pub(crate) fn check(
        &self,
        enabled: bool,
        content: &[u8],
        limits: &Limits,
        found: &mut Vec<Violation>,
    ) {
        if !enabled {
            if !self.values.is_empty() {
                let message = "the command takes no parameters, for its EnableParameter is false";
                found.push(Violation::new("Parameter.Disabled", 400, FIELD, message));
            }
            return;
        }
        let template = Template::parse(content);
        template.check(limits, found);
        match self.passing {
            ParameterPassing::Text => self.values.check_against(&template, found),
            ParameterPassing::Environment => {
                if let Some(name) = template.names.first() {
                    let message = format!(
                        "the script has the placeholder `{{{{{name}}}}}`; with Environment it has to use ${}",
                        variable(name)
                    );
                    let field = "ParameterPassing";
                    found.push(Violation::new(
                        "InvalidParameter.ParameterPassing",
                        400,
                        field,
                        message,
                    ));
                }
                self.check_variables(found);
            }
        }
    }

    fn check_variables(&self, found: &mut Vec<Violation>) {
        let names: Vec<_> = self.values.iter().map(|(name, _)| name).collect();
        for (n, name) in names.iter().enumerate() {
            if !name.is_empty() && !is_name(name) {
                let message =
                    format!("want letters, digits, `_` and `-` in the name of number {}", n + 1);
                found.push(Violation::new("CmdParam.InvalidParamName", 400, FIELD, message));
            }
            let twin = names[..n].iter().find(|before| {
                variable(before) == variable(name) && !before.eq_ignore_ascii_case(name)
            });
            if let Some(twin) = twin {
                let variable = variable(name);
                let message =
                    format!("`{twin}` and `{name}` would both be the variable {variable}");
                found.push(Violation::new("ParameterKey.Duplicate", 400, FIELD, message));
            }
        }
    }

    /// The script with all values filled in.
    pub(crate) fn render(&self, content: &[u8], facts: &Facts<'_>) -> Vec<u8> {
        let value = |name: &str| self.values.get(name).unwrap_or_default().into();
        Template::parse(content).render(value, |name| facts.value(name))
    }

    /// The variables that carry the values, if it is those that do.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        match self.passing {
            ParameterPassing::Text => Vec::new(),
            ParameterPassing::Environment => {
                let named =
                    self.values.iter().map(|(name, value)| (variable(name), value.to_owned()));
                named.collect()
            }
        }
    }
}

fn variable(name: &str) -> String {
    format!("PARAM_{}", name.to_ascii_uppercase().replace('-', "_"))
}

/// The values that a request gives for parameters, in its order, with keys that repeat.
///
/// As JSON an object whose values are strings, numbers or booleans, or a string that holds such an
/// object.
///
/// # Values from pairs
///
/// ```
/// use adjutant::Parameters;
///
/// let parameters = Parameters::from_iter([("name", "Jack"), ("dir", "/tmp")]);
/// assert_eq!(serde_json::to_string(&parameters)?, r#"{"name":"Jack","dir":"/tmp"}"#);
/// let same: Parameters = serde_json::from_str(r#""{\"name\":\"Jack\",\"dir\":\"/tmp\"}""#)?;
/// assert_eq!(same, parameters);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Parameters {
    pairs: Vec<(String, ParameterValue)>,
    /// A text that was to be an object, and what is wrong with it.
    malformed: Option<Malformed>,
}

#[derive(Clone, PartialEq, Eq)]
struct Malformed {
    text: String,
    why: String,
}

#[derive(Clone, PartialEq, Eq)]
enum ParameterValue {
    Text(String),
    /// A kind of value that no parameter has.
    Unsupported(Kind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    List,
    Object,
}

impl Kind {
    /// A value of this kind; what was in it does not matter.
    fn example(self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::List => serde_json::json!([]),
            Self::Object => serde_json::json!({}),
        }
    }
}

impl Parameters {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty() && self.malformed.is_none()
    }

    /// The value given for a name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().filter_map(|(name, value)| match value {
            ParameterValue::Text(text) => Some((name.as_str(), text.as_str())),
            ParameterValue::Unsupported(_) => None,
        })
    }

    /// Checks the names and values by themselves.
    pub(crate) fn check(&self, limits: &Limits, found: &mut Vec<Violation>) {
        let mut refuse = |code, status, message| {
            found.push(Violation::new(code, status, FIELD, message));
        };
        if let Some(Malformed { why, .. }) = &self.malformed {
            let message =
                format!("want an object such as {{\"name\":\"Jack\"}}; its text is none ({why})");
            refuse("InvalidParameter.Parameters", 400, message);
        }
        let (max, given) = (limits.parameters_passed_max, self.pairs.len());
        if given > max {
            refuse(
                "ParameterCount.ExceedLimit",
                403,
                format!("want at most {max}; it has {given}"),
            );
        }
        let max = limits.parameter_name_bytes_max;
        for (n, (name, value)) in self.pairs.iter().enumerate() {
            let number = n + 1;
            if name.is_empty() {
                let message = format!("want a name; number {number} has none");
                refuse("CmdParam.EmptyKey", 400, message);
            }
            if name.len() > max {
                let len = name.len();
                let message =
                    format!("want names of at most {max} bytes; number {number} has {len}");
                refuse("ParameterKey.ExceedLimit", 403, message);
            }
            if self.pairs[..n].iter().any(|(before, _)| before.eq_ignore_ascii_case(name)) {
                let message =
                    format!("`{name}` is given twice; names are the same whatever their case");
                refuse("ParameterKey.Duplicate", 400, message);
            }
            match value {
                ParameterValue::Text(text) if text.contains('\0') => {
                    let message =
                        format!("the value of `{name}` has a NUL byte, which no script can take");
                    refuse("InvalidParameterCharset.Parameters", 403, message);
                }
                ParameterValue::Text(_) => {}
                ParameterValue::Unsupported(kind) => {
                    let message = format!(
                        "want text, a number or a boolean for `{name}`; it is {}",
                        kind.example()
                    );
                    refuse("ParameterType.NotSupported", 403, message);
                }
            }
        }
    }

    /// Checks that each is one of the names that a script has.
    pub(crate) fn check_against(&self, template: &Template<'_>, found: &mut Vec<Violation>) {
        let is_known = |name: &str| template.names.iter().any(|n| n.eq_ignore_ascii_case(name));
        for (name, _) in self.pairs.iter().filter(|(name, _)| !name.is_empty() && !is_known(name)) {
            let known = match template.names.as_slice() {
                [] => "it has none".to_owned(),
                names => format!("it has {}", names.join(", ")),
            };
            let message = format!("the script has no parameter `{name}`; {known}");
            found.push(Violation::new("Parameter.NotMatched", 400, FIELD, message));
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let pairs = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), ParameterValue::Text(value.into())));
        Self { pairs: pairs.collect(), malformed: None }
    }
}

/// Names only: a value may be anybody's password.
impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.pairs.iter().map(|(name, _)| (name, "…"))).finish()
    }
}

impl Serialize for Parameters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(malformed) = &self.malformed {
            return serializer.serialize_str(&malformed.text);
        }
        let mut map = serializer.serialize_map(Some(self.pairs.len()))?;
        for (name, value) in &self.pairs {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ParametersVisitor)
    }
}

/// Reads what there is; [`Parameters::check`] says what is wrong with it.
struct ParametersVisitor;

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = Parameters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of names and values, or a JSON text of one")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Parameters { pairs, malformed: None })
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Parameters, E> {
        if text.is_empty() {
            return Ok(Parameters::default());
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let read = json.deserialize_map(Self).and_then(|read| json.end().map(|()| read));
        Ok(read.unwrap_or_else(|error| Parameters {
            malformed: Some(Malformed { text: text.to_owned(), why: error.to_string() }),
            ..Parameters::default()
        }))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Parameters, E> {
        Ok(Parameters::default())
    }
}

impl Serialize for ParameterValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Unsupported(kind) => kind.example().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ParameterValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::Value;
        Ok(match Value::deserialize(deserializer)? {
            Value::String(text) => Self::Text(text),
            value @ (Value::Number(_) | Value::Bool(_)) => Self::Text(value.to_string()),
            Value::Null => Self::Unsupported(Kind::Null),
            Value::Array(_) => Self::Unsupported(Kind::List),
            Value::Object(_) => Self::Unsupported(Kind::Object),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(content: &[u8]) -> (Template<'_>, Vec<&'static str>) {
        let mut found = Vec::new();
        let template = Template::parse(content);
        template.check(&Limits::alibaba(), &mut found);
        (template, found.iter().map(|violation| violation.code).collect())
    }

    fn render(content: &[u8], values: &Parameters) -> Vec<u8> {
        let (template, found) = parse(content);
        assert!(found.is_empty(), "{found:?}");
        template.render(
            |name| values.get(name).unwrap_or_default().to_owned().into(),
            |built_in| format!("<{built_in:?}>").into(),
        )
    }

    #[test]
    fn values_go_in_where_their_names_stand() {
        let check = |content: &str, want: &str| {
            let values = Parameters::from_iter([("name", "Jack"), ("other", "{{name}} $& \\1")]);
            let text = render(content.as_bytes(), &values);
            assert_eq!(String::from_utf8_lossy(&text), want, "{content}");
        };
        check("echo {{name}}", "echo Jack");
        check("{{ name }}{{\n\tNAME\r\n}}", "JackJack");
        check("{{other}}{{name}}", "{{name}} $& \\1Jack");
        check("{{missing}}|", "|");
        check("{{ACS::InstanceId}} {{ acs::invokeid }}", "<InstanceId> <InvokeId>");
        check("{ {name} } {{name} {", "{ {name} } {{name} {");
        check("${{name}}", "$Jack");
        check("", "");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let check = |content: &[u8], want: &[&str]| {
            assert_eq!(parse(content).1, want, "{}", String::from_utf8_lossy(content));
        };
        let long = "n".repeat(64);
        check(format!("{{{{{long}}}}}").as_bytes(), &[]);
        check(format!("{{{{{long}n}}}}").as_bytes(), &["CmdParamName.ExceedLimit"]);
        check(b"{{}} {{ }}", &["CmdParam.EmptyKey", "CmdParam.EmptyKey"]);
        check(b"{{a b}}", &["CmdParam.InvalidParamName"]);
        check(b"{{.State.Pid}}", &["CmdParam.InvalidParamName"]);
        check(b"{{\xff}}", &["CmdParam.InvalidParamName"]);
        check("{{nä}}".as_bytes(), &["CmdParam.InvalidParamName"]);
        check(b"{{ACS::Password}}", &["CmdParam.InvalidParamName"]);
        check(b"{{ACS::}}", &["CmdParam.InvalidParamName"]);
        check(b"{{{name}}}", &["CmdParam.InvalidParamName"]);
        let many = |count| (0..count).map(|n| format!("{{{{p{n}}}}}")).collect::<String>();
        check(format!("{}{{{{P0}}}}", many(20)).as_bytes(), &[]);
        check(many(21).as_bytes(), &["CmdParamCount.ExceedLimit"]);
    }

    #[test]
    fn given_values_are_checked() {
        let check = |json: &str, want: &[&str]| {
            let given: Parameters = serde_json::from_str(json).expect("readable");
            let mut found = Vec::new();
            given.check(&Limits::alibaba(), &mut found);
            given.check_against(&parse(b"{{a}} {{B}}").0, &mut found);
            let codes: Vec<_> = found.iter().map(|violation| violation.code).collect();
            assert_eq!(codes, want, "{json}");
        };
        check(r#"{"A":"1","b":2}"#, &[]);
        check(r#""{\"a\":true}""#, &[]);
        check(r#""""#, &[]);
        check(r#"{"a":"1","a":"2"}"#, &["ParameterKey.Duplicate"]);
        check(r#"{"a":"1","A":"2"}"#, &["ParameterKey.Duplicate"]);
        check(r#"{"c":"1"}"#, &["Parameter.NotMatched"]);
        check(r#"{"":"1"}"#, &["CmdParam.EmptyKey"]);
        check(r#"{"a":"x\u0000"}"#, &["InvalidParameterCharset.Parameters"]);
        check(r#"{"a":[1]}"#, &["ParameterType.NotSupported"]);
        check(r#"{"a":{}}"#, &["ParameterType.NotSupported"]);
        check(r#"{"a":null}"#, &["ParameterType.NotSupported"]);
        check(r#""{'a': '1'}""#, &["InvalidParameter.Parameters"]);
        check(r#""{} x""#, &["InvalidParameter.Parameters"]);
        check(r#""[]""#, &["InvalidParameter.Parameters"]);
    }

    #[test]
    fn what_is_read_is_read_again_as_it_is_written() {
        for json in
            [r#"{"a":"1","a":2}"#, r#"{"a":[1],"b":{},"c":null}"#, r#""{'a'}""#, r#""""#, "{}"]
        {
            let read: Parameters = serde_json::from_str(json).expect(json);
            let written = serde_json::to_string(&read).expect("it serialises");
            let again: Parameters = serde_json::from_str(&written).expect("it reads back");
            assert!(again == read, "{json}: {written}");
        }
    }

    #[test]
    fn values_are_not_shown() {
        let parameters = Parameters::from_iter([("password", "hunter2")]);
        assert_eq!(format!("{parameters:?}"), r#"{"password": "…"}"#);
    }

    proptest! {
        #[test]
        fn any_value_arrives_as_it_is(before in ".*", value in any::<String>(), after in "[^{}]*") {
            let before = before.replace(['{', '}'], "");
            let values = Parameters::from_iter([("x", value.as_str())]);
            let text = render(format!("{before}{{{{ X }}}}{after}").as_bytes(), &values);
            prop_assert_eq!(text, format!("{before}{value}{after}").into_bytes());
        }

        #[test]
        fn any_script_is_read(content in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'a'), any::<u8>()], 0..200)) {
            let (template, _) = parse(&content);
            let text = template.render(|_| "".into(), |_| "".into());
            let cut: usize = template.placeholders.iter().map(|p| p.range.len()).sum();
            prop_assert_eq!(text.len() + cut, content.len());
        }
    }
}

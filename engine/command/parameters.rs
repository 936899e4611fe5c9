//! Values for the parameters of a script: what a request gives, how they come in. Pure.

use std::fmt;

use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

use super::content::ContentMax;
use super::template::{Facts, Template, is_name};
use crate::error::Violation;
use crate::limits::Limits;
use crate::wire::text_enum;

/// The field of requests that holds values.
const FIELD: &str = "Parameters";
const DEFAULTS: &str = "DefaultParameters";
const SECRETS: &str = "SecretParameters";
/// What answers have in the place of a secret value.
const REDACTED: &str = "******";

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
    /// For names that no value is given for.
    pub defaults: Parameters,
    /// Names whose values are nobody's business.
    pub secrets: SecretNames,
    pub passing: ParameterPassing,
}

impl Arguments {
    /// Checks them against the script they are for, or by themselves if that cannot be read; what
    /// there is to fill in, if it takes parameters.
    pub(crate) fn check<'a>(
        &self,
        enabled: bool,
        content: Option<&'a [u8]>,
        limits: &Limits,
        found: &mut Vec<Violation>,
    ) -> Option<Template<'a>> {
        if !enabled {
            self.check_disabled(found);
            return None;
        }
        let template = content.map(Template::parse);
        if let Some(template) = &template {
            template.check(limits, found);
        }
        // Too many are refused as that, and not one by one.
        let defined = template.as_ref().map_or(0, |template| template.names().len());
        if self.values.pairs.len() > limits.parameters_passed_max
            || defined > limits.parameters_defined_max
        {
            return template;
        }
        self.defaults.check_defaults(limits, found);
        self.secrets.check(limits, found);
        match (self.passing, &template) {
            (ParameterPassing::Text, None) => {}
            (ParameterPassing::Text, Some(template)) => {
                self.values.check_against(template, found);
                if limits.parameters_need_values {
                    self.check_complete(template, found);
                }
            }
            (ParameterPassing::Environment, template) => {
                if let Some(template) = template.as_ref().filter(|t| t.has_placeholders()) {
                    let named = template.names().first().map_or("NAME", |name| *name);
                    let message = format!(
                        "the script has placeholders, which Environment does not fill in; want a variable such as ${}",
                        variable(named)
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
        template
    }

    /// Refuses whatever is said of parameters where a command takes none.
    fn check_disabled(&self, found: &mut Vec<Violation>) {
        let given = [
            // What is no list of values is refused as that.
            (FIELD, !self.values.pairs.is_empty()),
            (DEFAULTS, !self.defaults.is_empty()),
            (SECRETS, !self.secrets.is_empty()),
        ];
        for (field, _) in given.into_iter().filter(|(_, given)| *given) {
            let message = "the command takes no parameters, for its EnableParameter is false";
            found.push(Violation::new("Parameter.Disabled", 400, field, message));
        }
    }

    /// Checks that what is said of parameters by name is said of some that there are: in the script,
    /// or among those that come in the environment, which an invocation may still give. A mistyped
    /// name would leave a secret one bare.
    pub(crate) fn check_names(
        &self,
        template: &Template<'_>,
        more_may_come: bool,
        limits: &Limits,
        found: &mut Vec<Violation>,
    ) {
        // Too many are refused as that, and not one by one.
        let max = limits.parameters_defined_max;
        if self.defaults.pairs.len() > max || self.secrets.0.len() > max {
            return;
        }
        let in_script = |name: &str| template.names().iter().any(|n| n.eq_ignore_ascii_case(name));
        let given = |name: &str| self.value(name).is_some();
        let by_environment =
            self.passing == ParameterPassing::Environment || !template.has_placeholders();
        if by_environment && more_may_come {
            return;
        }
        let defaults = self.defaults.iter().map(|(name, _)| (DEFAULTS, name));
        let defaults = defaults.filter(|_| !by_environment);
        let secrets = self.secrets.iter().map(|name| (SECRETS, name));
        let secrets = secrets.filter(|(_, name)| !(by_environment && given(name)));
        for (field, name) in defaults.chain(secrets).filter(|(_, name)| !in_script(name)) {
            let known = known_names(template);
            let message = format!("the script has no parameter `{name}`; {known}");
            found.push(Violation::new("Parameter.NotMatched", 400, field, message));
        }
    }

    /// Checks that every parameter has a value.
    fn check_complete(&self, template: &Template<'_>, found: &mut Vec<Violation>) {
        for name in template.names().iter().filter(|name| self.value(name).is_none()) {
            let message = format!("`{name}` has neither a value nor a default; want one");
            found.push(Violation::new("Parameter.MissingValue", 400, FIELD, message));
        }
    }

    /// The value of a parameter: as given, else its default.
    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).or_else(|| self.defaults.get(name))
    }

    /// Every name that has a value, with it.
    fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let not_given = self.defaults.iter().filter(|(name, _)| self.values.get(name).is_none());
        self.values.iter().chain(not_given)
    }

    /// The secret parameters that have a value, with what was given for it.
    pub(crate) fn secret_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs().filter(|(name, _)| self.secrets.contains(name))
    }

    /// The same with other values for some names.
    pub(crate) fn with(mut self, values: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, value) in values {
            self.values.set(name, value);
        }
        self
    }

    /// As answers show them: without what is secret.
    pub(crate) fn redacted(mut self) -> Self {
        for pairs in [&mut self.values, &mut self.defaults] {
            pairs.redact(&self.secrets);
        }
        self
    }

    fn check_variables(&self, found: &mut Vec<Violation>) {
        let names: Vec<_> = self.pairs().map(|(name, _)| name).collect();
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
    pub(crate) fn render(&self, script: &Template<'_>, facts: &Facts<'_>) -> Vec<u8> {
        if self.passing == ParameterPassing::Environment {
            return script.content().to_vec();
        }
        let value = |name: &str| self.value(name).unwrap_or_default().into();
        script.render(value, |name| facts.value(name))
    }

    /// Checks what the script comes to, with the variables that go with it, before it is made.
    pub(crate) fn check_size(
        &self,
        script: &Template<'_>,
        facts: &Facts<'_>,
        max: ContentMax,
    ) -> Result<(), Violation> {
        let bytes = match self.passing {
            ParameterPassing::Text => script.len_with(
                |name| self.value(name).map_or(0, str::len),
                |name| facts.value(name).len(),
            ),
            ParameterPassing::Environment => {
                let variables = self.pairs();
                let lengths = variables.map(|(name, value)| variable(name).len() + value.len());
                lengths.fold(script.content().len(), usize::saturating_add)
            }
        };
        max.check(bytes, " with the values of its parameters")
    }

    /// Refuses built-in parameters that the script could take for more than text, if they are filled in as text.
    pub(crate) fn check_built_ins(
        &self,
        script: &Template<'_>,
        facts: &Facts<'_>,
    ) -> Result<(), Violation> {
        match self.passing {
            ParameterPassing::Text => script.check_built_ins(facts),
            ParameterPassing::Environment => Ok(()),
        }
    }

    /// The variables that carry the values, if it is those that do.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        match self.passing {
            ParameterPassing::Text => Vec::new(),
            ParameterPassing::Environment => {
                self.pairs().map(|(name, value)| (variable(name), value.to_owned())).collect()
            }
        }
    }
}

/// The names of parameters whose values are secret: those are left out of every answer, log and
/// event, and a [`SecretResolver`](crate::SecretResolver) is asked for what they stand for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretNames(Vec<String>);

impl SecretNames {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether a name is among them, whatever its case.
    pub fn contains(&self, name: &str) -> bool {
        self.iter().any(|secret| secret.eq_ignore_ascii_case(name))
    }

    /// Adds those that are not there yet.
    pub(crate) fn extend(&mut self, more: &Self) {
        let new: Vec<_> =
            more.iter().filter(|name| !self.contains(name)).map(str::to_owned).collect();
        self.0.extend(new);
    }

    fn check(&self, limits: &Limits, found: &mut Vec<Violation>) {
        let (max, given) = (limits.parameters_defined_max, self.0.len());
        if given > max {
            let message = format!("want at most {max}; it has {given}");
            found.push(Violation::new("ParameterCount.ExceedLimit", 403, SECRETS, message));
            return;
        }
        for (n, name) in self.iter().enumerate() {
            if !is_name(name) {
                let message =
                    format!("want letters, digits, `_` and `-` in the name of number {}", n + 1);
                found.push(Violation::new("CmdParam.InvalidParamName", 400, SECRETS, message));
            }
        }
    }
}

impl<N: Into<String>> FromIterator<N> for SecretNames {
    fn from_iter<I: IntoIterator<Item = N>>(names: I) -> Self {
        Self(names.into_iter().map(Into::into).collect())
    }
}

fn known_names(template: &Template<'_>) -> String {
    match template.names() {
        [] => "it has none".to_owned(),
        names => format!("it has {}", names.join(", ")),
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

#[derive(Clone, Eq)]
enum ParameterValue {
    Text(String),
    /// A number or a boolean, as it would be written.
    Scalar(String),
    /// A kind of value that no parameter has.
    Unsupported(Kind),
}

/// A number is its text.
impl PartialEq for ParameterValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one) | Self::Scalar(one), Self::Text(two) | Self::Scalar(two)) => {
                one == two
            }
            (Self::Unsupported(one), Self::Unsupported(two)) => one == two,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    List,
    Object,
    /// Too large to have been read to its last digit.
    Number,
}

impl Kind {
    /// A value of this kind; what was in it does not matter.
    fn example(self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::List => serde_json::json!([]),
            Self::Object => serde_json::json!({}),
            Self::Number => serde_json::json!(1e300),
        }
    }

    const fn refusal(self) -> &'static str {
        match self {
            Self::Null => "it is null",
            Self::List => "it is []",
            Self::Object => "it is {}",
            Self::Number => "it is a number of too many digits, to be written as text",
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
            ParameterValue::Text(text) | ParameterValue::Scalar(text) => {
                Some((name.as_str(), text.as_str()))
            }
            ParameterValue::Unsupported(_) => None,
        })
    }

    /// Whether each value is a text, and not a number or a boolean.
    pub(crate) fn are_texts(&self) -> bool {
        self.pairs.iter().all(|(_, value)| matches!(value, ParameterValue::Text(_)))
    }

    /// Gives a name a value.
    fn set(&mut self, name: String, value: String) {
        self.pairs.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
        self.pairs.push((name, ParameterValue::Text(value)));
    }

    fn redact(&mut self, secrets: &SecretNames) {
        for (name, value) in &mut self.pairs {
            if secrets.contains(name) {
                *value = ParameterValue::Text(REDACTED.to_owned());
            }
        }
    }

    /// Checks the names and values that a request passes, by themselves.
    pub(crate) fn check(&self, limits: &Limits, found: &mut Vec<Violation>) {
        self.check_as(FIELD, limits.parameters_passed_max, limits, found);
    }

    /// Checks the names and values of defaults.
    pub(crate) fn check_defaults(&self, limits: &Limits, found: &mut Vec<Violation>) {
        let field = DEFAULTS;
        self.check_as(field, limits.parameters_defined_max, limits, found);
        for (n, (name, _)) in self.pairs.iter().enumerate() {
            if !name.is_empty() && !is_name(name) {
                let message =
                    format!("want letters, digits, `_` and `-` in the name of number {}", n + 1);
                found.push(Violation::new("CmdParam.InvalidParamName", 400, field, message));
            }
        }
    }

    fn check_as(
        &self,
        field: &'static str,
        max: usize,
        limits: &Limits,
        found: &mut Vec<Violation>,
    ) {
        let mut refuse = |code, status, message| {
            found.push(Violation::new(code, status, field, message));
        };
        if let Some(Malformed { why, .. }) = &self.malformed {
            let message =
                format!("want an object such as {{\"name\":\"Jack\"}}; its text is none ({why})");
            refuse("InvalidParameter.Parameters", 400, message);
        }
        let given = self.pairs.len();
        if given > max {
            refuse(
                "ParameterCount.ExceedLimit",
                403,
                format!("want at most {max}; it has {given}"),
            );
            return;
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
                ParameterValue::Text(_) | ParameterValue::Scalar(_) => {}
                ParameterValue::Unsupported(kind) => {
                    let message = format!(
                        "want text, a number or a boolean for `{name}`; {}",
                        kind.refusal()
                    );
                    refuse("ParameterType.NotSupported", 403, message);
                }
            }
        }
    }

    /// Checks that each is one of the names that a script has.
    fn check_against(&self, template: &Template<'_>, found: &mut Vec<Violation>) {
        let is_known = |name: &str| template.names().iter().any(|n| n.eq_ignore_ascii_case(name));
        for (name, _) in self.pairs.iter().filter(|(name, _)| !name.is_empty() && !is_known(name)) {
            let known = known_names(template);
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
            malformed: Some(Malformed { text: text.to_owned(), why: place(&error) }),
            ..Parameters::default()
        }))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Parameters, E> {
        Ok(Parameters::default())
    }
}

/// Where a text is wrong; not what stands there, which may be a password.
fn place(error: &serde_json::Error) -> String {
    format!("wrong at line {}, column {}", error.line(), error.column())
}

/// For `#[serde(with)]`: values as the JSON text that responses have; nothing for none.
pub(crate) mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, ser};

    use super::Parameters;

    pub(crate) fn serialize<S: Serializer>(
        parameters: &Parameters,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if parameters.is_empty() {
            return serializer.serialize_str("");
        }
        serializer.serialize_str(&serde_json::to_string(parameters).map_err(ser::Error::custom)?)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Parameters, D::Error> {
        Parameters::deserialize(d)
    }
}

impl Serialize for ParameterValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) | Self::Scalar(text) => serializer.serialize_str(text),
            Self::Unsupported(kind) => kind.example().serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ParameterValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Reads a value of any kind; what is in one of an unsupported kind is passed over.
struct ValueVisitor;

/// From here on not every whole number has a place of its own in a `f64`.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = ParameterValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number or a boolean")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ParameterValue, E> {
        Ok(ParameterValue::Text(text.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<ParameterValue, E> {
        Ok(ParameterValue::Scalar(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<ParameterValue, E> {
        Ok(ParameterValue::Scalar(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<ParameterValue, E> {
        Ok(ParameterValue::Scalar(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<ParameterValue, E> {
        if value.abs() >= EXACT_MAX {
            return Ok(ParameterValue::Unsupported(Kind::Number));
        }
        Ok(ParameterValue::Scalar(value.to_string()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<ParameterValue, E> {
        Ok(ParameterValue::Unsupported(Kind::Null))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<ParameterValue, A::Error> {
        while list.next_element::<de::IgnoredAny>()?.is_some() {}
        Ok(ParameterValue::Unsupported(Kind::List))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ParameterValue, A::Error> {
        while map.next_entry::<de::IgnoredAny, de::IgnoredAny>()?.is_some() {}
        Ok(ParameterValue::Unsupported(Kind::Object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_values_are_checked() {
        let check = |json: &str, want: &[&str]| {
            let given: Parameters = serde_json::from_str(json).expect("readable");
            let mut found = Vec::new();
            given.check(&Limits::alibaba(), &mut found);
            let template = Template::parse(b"{{a}} {{B}}");
            given.check_against(&template, &mut found);
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
        check(r#"{"a":18446744073709551615,"b":-1.5}"#, &[]);
        check(r#"{"a":18446744073709551616}"#, &["ParameterType.NotSupported"]);
        check(r#""{'a': '1'}""#, &["InvalidParameter.Parameters"]);
        check(r#""{} x""#, &["InvalidParameter.Parameters"]);
        check(r#""[]""#, &["InvalidParameter.Parameters"]);
    }

    #[test]
    fn what_is_read_is_read_again_as_it_is_written() {
        for json in [
            r#"{"a":"1","a":"2"}"#,
            r#"{"a":[1],"b":{},"c":null,"d":1e300}"#,
            r#""{'a'}""#,
            r#""""#,
            "{}",
        ] {
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
}

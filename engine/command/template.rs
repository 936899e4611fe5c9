//! Scripts with placeholders: what those are, and the finished text. Pure.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;

use crate::config::Names;
use crate::error::Violation;
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::limits::Limits;
use crate::text::is_plain;
use crate::wire;

const OPEN: &[u8] = b"{{";
const CLOSE: &[u8] = b"}}";
/// The prefix of names that the engine gives values to.
const BUILT_IN: &str = "ACS::";
/// The field of requests that holds the script.
const CONTENT: &str = "CommandContent";

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
        let (opening, closing) = (memmem::Finder::new(OPEN), memmem::Finder::new(CLOSE));
        let mut from = 0;
        while let Some(open) = opening.find(&content[from..]).map(|at| from + at) {
            let inner = open + OPEN.len();
            let Some(close) = closing.find(&content[inner..]).map(|at| inner + at) else {
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
        // Mostly a script writes a name in one way, which is quicker to find.
        let same = self.names.iter().position(|known| *known == name);
        let known =
            same.or_else(|| self.names.iter().position(|known| known.eq_ignore_ascii_case(name)));
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

    /// The script, its placeholders in their places.
    pub(super) fn content(&self) -> &'a [u8] {
        self.content
    }

    /// The built-in parameters that the script has.
    fn built_ins(&self) -> impl Iterator<Item = BuiltIn> {
        self.placeholders.iter().filter_map(|placeholder| match placeholder.what {
            What::BuiltIn(name) => Some(name),
            What::Named(_) => None,
        })
    }

    /// Refuses to fill in an id or a name of an instance that a script could take for more than text: whoever registers
    /// instances would write into the scripts of whoever runs them.
    pub(super) fn check_built_ins(&self, facts: &Facts<'_>) -> Result<(), Violation> {
        let unsafe_one = self.built_ins().find_map(|built_in| {
            let (of, variable) = match built_in {
                BuiltIn::InstanceId => ("InstanceId", "ADJUTANT_INSTANCE_ID"),
                BuiltIn::InstanceName => ("InstanceName", "ADJUTANT_INSTANCE_NAME"),
                _ => return None,
            };
            let value = facts.value(built_in);
            (!value.chars().all(is_plain)).then_some((of, variable, value))
        });
        let Some((of, variable, value)) = unsafe_one else { return Ok(()) };
        let message = format!(
            "`{{{{{BUILT_IN}{of}}}}}` is `{}`, which the script could take for more than text; \
             use `${variable}` in the script",
            wire::shortened(&value.escape_debug().to_string())
        );
        Err(Violation::new("InvalidParameter.BuiltIn", 400, CONTENT, message))
    }

    /// Whether there is anything to fill in.
    pub(super) fn has_placeholders(&self) -> bool {
        !self.placeholders.is_empty()
    }

    /// The length that the finished text would have, which may be more than there is memory.
    pub(super) fn len_with(
        &self,
        value_len: impl Fn(&str) -> usize,
        built_in_len: impl Fn(BuiltIn) -> usize,
    ) -> usize {
        let value_lens: Vec<usize> = self.names.iter().map(|name| value_len(name)).collect();
        self.placeholders.iter().fold(self.content.len(), |len, placeholder| {
            let filled_in = match placeholder.what {
                What::Named(number) => value_lens[number],
                What::BuiltIn(name) => built_in_len(name),
            };
            (len - placeholder.range.len()).saturating_add(filled_in)
        })
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

pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::super::parameters::Parameters;
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

        #[test]
        fn a_text_is_as_long_as_it_was_said_to_be(
            pieces in proptest::collection::vec(
                prop_oneof!["\\{\\{ ?[aA]?[b-d]? ?\\}\\}", Just("{{ACS::InstanceId}}".to_owned()), ".{0,9}"], 0..9),
            values in proptest::collection::vec(".{0,9}", 20),
        ) {
            let content = pieces.concat();
            let (template, _) = parse(content.as_bytes());
            let value = |name: &str| &*values[name.bytes().map(usize::from).sum::<usize>() % values.len()];
            let text = template.render(|name| value(name).into(), |_| "i-1".into());
            prop_assert_eq!(template.len_with(|name| value(name).len(), |_| 3), text.len());
        }
    }
}

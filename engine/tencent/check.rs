//! What this dialect asks of requests beside what the engine asks of all. Pure; finds everything that
//! is wrong with a request.

use std::str::FromStr;

use super::error::{MISSING, add, violation};
use super::place::{PREFIX, Place};
use super::record::TYPES;
use super::request::{DefaultParameterConf, Filter};
use super::{Action, Error};
use crate::command::CommandType;
use crate::command::parameters::Parameters;
use crate::command::template::is_name;
use crate::engine::Stretch;
use crate::error::{Error as Core, Violation};
use crate::given::unknown;
use crate::id::{CommandId, ExecutionId, InstanceId, InvokeId};
use crate::limits::Limits;
use crate::tag::Tag;

/// Most ids that one listing or one deletion may name.
const IDS_MAX: usize = 100;
/// Most filters of one listing.
const FILTERS_MAX: usize = 10;
/// Most values of one filter.
const FILTER_VALUES_MAX: usize = 5;
/// Longest id of an instance, in characters: no host can have registered a longer one.
const INSTANCE_ID_CHARS_MAX: usize = 128;

/// A check of one request.
pub(super) struct Check<'a> {
    action: Action,
    limits: &'a Limits,
    found: Vec<Violation>,
}

impl<'a> Check<'a> {
    pub(super) fn new(action: Action, limits: &'a Limits) -> Self {
        Self { action, limits, found: Vec::new() }
    }

    pub(super) fn refuse(
        &mut self,
        code: &'static str,
        field: &'static str,
        message: impl Into<String>,
    ) {
        self.found.push(violation(code, field, message));
    }

    /// Whether nothing was wrong so far.
    pub(super) fn is_passed(&self) -> bool {
        self.found.is_empty()
    }

    /// Adds what the engine finds.
    pub(super) fn add(&mut self, violations: Vec<Violation>) {
        add(self.action, violations, &mut self.found);
    }

    /// What was wrong, as an error.
    pub(super) fn refusal(self) -> Error {
        Error::refused(self.found)
    }

    /// What is wrong in all, after the engine's answer: an answer to a request that has been found
    /// wrong here is that of a trial.
    pub(super) fn conclude<T>(self, answer: Result<T, Core>) -> Result<T, Error> {
        match answer {
            Err(error) => Err(Error::of(self.action, error, self.found)),
            Ok(answer) if self.is_passed() => Ok(answer),
            Ok(_) => Err(self.refusal()),
        }
    }

    /// A script that has to be there.
    pub(super) fn content(&mut self, content: Option<String>) -> String {
        if content.is_none() {
            self.refuse(MISSING, "Content", "give the script to run, as Base64");
        }
        content.unwrap_or_default()
    }

    /// The characters of a name; its length is the engine's business.
    pub(super) fn command_name(&mut self, name: Option<&str>) {
        let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if name.is_some_and(|name| !name.chars().all(is_fit)) {
            let code = "InvalidParameterValue.InvalidCommandName";
            self.refuse(code, "CommandName", "want letters, digits, `_`, `.` and `-`");
        }
    }

    pub(super) fn command_type(&mut self, given: Option<&str>) -> Option<CommandType> {
        let given = given.filter(|text| !text.is_empty())?;
        let named = self.type_named(given);
        if named.is_none() {
            let want = "SHELL, POWERSHELL or BAT";
            self.found.push(unknown("InvalidParameterValue", 200, "CommandType", given, want));
        }
        named
    }

    fn type_named(&self, text: &str) -> Option<CommandType> {
        TYPES.iter().find(|(_, name)| *name == text).map(|(command_type, _)| *command_type)
    }

    pub(super) fn place(&mut self, bucket: Option<String>, prefix: Option<String>) -> Place {
        Place::new(bucket, prefix, &mut self.found)
    }

    /// A place that is, or changes, another.
    pub(super) fn place_over(&mut self, place: Place, before: Option<&str>) -> Option<String> {
        place.over(before).unwrap_or_else(|why| {
            self.refuse("InvalidParameterValue.InvalidOutputCOSKeyPrefix", PREFIX, why);
            None
        })
    }

    /// Defaults of parameters in either of their two forms; none if there is something wrong with
    /// them as such.
    pub(super) fn defaults(
        &mut self,
        given: Option<Parameters>,
        confs: Vec<DefaultParameterConf>,
    ) -> Option<Parameters> {
        let defaults = match (given, confs.is_empty()) {
            (given, true) => given,
            (None, false) => Some(self.listed_defaults(confs)),
            (Some(_), false) => {
                let message = "give these or DefaultParameterConfs, not both";
                self.refuse("InvalidParameter.ConflictParameter", DEFAULTS, message);
                return None;
            }
        };
        if let Some(defaults) = &defaults {
            let mut found = Vec::new();
            defaults.check_defaults(self.limits, &mut found);
            self.texts(DEFAULTS, defaults);
            self.add(found);
        }
        defaults
    }

    fn listed_defaults(&mut self, confs: Vec<DefaultParameterConf>) -> Parameters {
        let mut pairs: Vec<(String, String)> = Vec::with_capacity(confs.len());
        for DefaultParameterConf { parameter_name: name, parameter_value: value, .. } in confs {
            if pairs.iter().any(|(before, _)| before.eq_ignore_ascii_case(&name)) {
                let message =
                    format!("`{name}` is listed twice; names are the same whatever their case");
                let code = "InvalidParameter.ParameterNameDuplicated";
                self.refuse(code, "DefaultParameterConfs", message);
                continue;
            }
            pairs.push((name, value));
        }
        pairs.into_iter().collect()
    }

    /// Values for parameters.
    pub(super) fn values(&mut self, given: Option<Parameters>) -> Parameters {
        const FIELD: &str = "Parameters";
        let values = given.unwrap_or_default();
        self.texts(FIELD, &values);
        for (name, _) in values.iter().filter(|(name, _)| !name.is_empty() && !is_name(name)) {
            let message = format!("want letters, digits, `_` and `-` in names; one is `{name}`");
            let code = "InvalidParameterValue.ParameterKeyContainsInvalidChar";
            self.found.push(violation(code, FIELD, message));
        }
        values
    }

    fn texts(&mut self, field: &'static str, parameters: &Parameters) {
        if !parameters.are_texts() {
            let code = "InvalidParameterValue.ParameterValueNotString";
            self.refuse(code, field, "want text for each value; numbers go into quotes too");
        }
    }

    /// The form of the ids of instances.
    pub(super) fn instance_ids(&mut self, ids: &[InstanceId]) {
        let is_unfit = |id: &&InstanceId| {
            let text = id.as_str();
            !(1..=INSTANCE_ID_CHARS_MAX).contains(&text.chars().count())
                || text.chars().any(char::is_control)
        };
        if let Some(place) = ids.iter().position(|id| is_unfit(&id)) {
            let message = format!(
                "want ids of 1 to {INSTANCE_ID_CHARS_MAX} characters; number {} is none",
                place + 1
            );
            self.refuse("InvalidParameterValue.InvalidInstanceId", "InstanceIds", message);
        }
    }

    /// Tags are those of a command that stays.
    pub(super) fn tags(&mut self, saves: bool, tags: &[Tag]) {
        if !saves && !tags.is_empty() {
            self.refuse("InvalidParameter", "Tags", "they need SaveCommand to be true");
        }
    }

    pub(super) fn command_id(&mut self, text: Option<&str>) -> Option<CommandId> {
        self.id(&COMMAND_ID, text)
    }

    pub(super) fn invocation_id(&mut self, text: Option<&str>) -> Option<InvokeId> {
        self.id(&INVOCATION_ID, text)
    }

    /// The id that a request has to name.
    fn id<T: FromStr>(&mut self, kind: &IdKind, text: Option<&str>) -> Option<T> {
        match text {
            Some(text) => self.parsed(kind, kind.field, text),
            None => {
                self.refuse(MISSING, kind.field, format!("want {}", kind.want));
                None
            }
        }
    }

    fn parsed<T: FromStr>(&mut self, kind: &IdKind, field: &'static str, text: &str) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.found.push(unknown(kind.code, 200, field, text, kind.want));
        }
        parsed
    }

    pub(super) fn command_ids(&mut self, field: &'static str, texts: &[String]) -> Vec<CommandId> {
        self.ids(&COMMAND_ID, field, texts)
    }

    pub(super) fn invocation_ids(
        &mut self,
        field: &'static str,
        texts: &[String],
    ) -> Vec<InvokeId> {
        self.ids(&INVOCATION_ID, field, texts)
    }

    pub(super) fn task_ids(&mut self, field: &'static str, texts: &[String]) -> Vec<ExecutionId> {
        let ids: Vec<TaskId> = self.ids(&TASK_ID, field, texts);
        ids.into_iter().map(|TaskId(id)| id).collect()
    }

    fn ids<T: FromStr>(&mut self, kind: &IdKind, field: &'static str, texts: &[String]) -> Vec<T> {
        self.count(field, texts.len());
        texts.iter().take(IDS_MAX).filter_map(|text| self.parsed(kind, field, text)).collect()
    }

    /// A list that must not be empty.
    pub(super) fn named(&mut self, field: &'static str, given: usize) {
        if given == 0 {
            self.refuse(MISSING, field, "name at least one");
        }
    }

    /// The number of ids.
    pub(super) fn count(&mut self, field: &'static str, given: usize) {
        self.at_most(IDS_MAX, field, given);
    }

    pub(super) fn at_most(&mut self, max: usize, field: &'static str, given: usize) {
        if given > max {
            let message = format!("want at most {max}; it has {given}");
            self.refuse("InvalidParameterValue.LimitExceeded", field, message);
        }
    }

    /// Which part of a listing a request asks for.
    pub(super) fn stretch(&mut self, limit: Option<usize>, offset: Option<usize>) -> Stretch {
        let (size, max) =
            (limit.unwrap_or(self.limits.page_size_default), self.limits.page_size_max);
        if !(1..=max).contains(&size) {
            let message = format!("want 1 to {max} entries; it is {size}");
            self.refuse("InvalidParameterValue.Range", "Limit", message);
        }
        Stretch { offset: offset.unwrap_or(0), size }
    }

    /// What filters narrow a listing to. There are none beside ids.
    pub(super) fn filters<N>(
        &mut self,
        ids: usize,
        filters: &[Filter],
        mut narrow: impl FnMut(&mut Self, &Filter) -> Option<N>,
    ) -> Vec<N> {
        if ids > 0 && !filters.is_empty() {
            let message = "name ids or give filters, not both";
            self.refuse("InvalidParameter.ConflictParameter", FILTERS, message);
        }
        if filters.len() > FILTERS_MAX {
            let message = format!("want at most {FILTERS_MAX}; it has {}", filters.len());
            self.refuse("InvalidParameterValue.LimitExceeded", FILTERS, message);
            return Vec::new();
        }
        let mut narrows = Vec::new();
        for filter in filters {
            let (name, given) = (&filter.name, filter.values.len());
            if given > FILTER_VALUES_MAX {
                let message =
                    format!("want at most {FILTER_VALUES_MAX} values of `{name}`; it has {given}");
                self.refuse("LimitExceeded.FilterValueExceeded", FILTERS, message);
                continue;
            }
            if given == 0 {
                let message = format!("want a value of `{name}`; it has none");
                self.refuse(INVALID_FILTER, FILTERS, message);
                continue;
            }
            narrows.extend(narrow(self, filter));
        }
        narrows
    }

    /// The values of a filter that have to be of a set.
    pub(super) fn of_set<T: Copy>(&mut self, filter: &Filter, set: &[(T, &str)]) -> Vec<T> {
        let mut named = Vec::new();
        for value in &filter.values {
            match set.iter().find(|(_, name)| name == value) {
                Some((one, _)) => named.push(*one),
                None => {
                    let names: Vec<_> = set.iter().map(|(_, name)| *name).collect();
                    let want = format!("{} for `{}`", names.join(" or "), filter.name);
                    self.found.push(unknown(INVALID_FILTER, 200, FILTERS, value, &want));
                }
            }
        }
        named
    }

    /// There is no filter of this name; there are these.
    pub(super) fn no_such_filter<N>(&mut self, filter: &Filter, names: &str) -> Option<N> {
        self.found.push(unknown(INVALID_FILTER, 200, FILTERS, &filter.name, names));
        None
    }
}

const DEFAULTS: &str = "DefaultParameters";
pub(super) const FILTERS: &str = "Filters";
const INVALID_FILTER: &str = "InvalidParameterValue.InvalidFilter";

/// What an id looks like, and what it is called.
struct IdKind {
    field: &'static str,
    code: &'static str,
    want: &'static str,
}

const COMMAND_ID: IdKind = IdKind {
    field: "CommandId",
    code: "InvalidParameterValue.InvalidCommandId",
    want: "the id of a stored command, `cmd-` and 32 hexadecimal digits",
};
const INVOCATION_ID: IdKind = IdKind {
    field: "InvocationId",
    code: "InvalidParameterValue.InvalidInvocationId",
    want: "the id of an invocation, `inv-` and 32 hexadecimal digits",
};
const TASK_ID: IdKind = IdKind {
    field: "InvocationTaskId",
    code: "InvalidParameterValue.InvalidInvocationTaskId",
    want: "the id of a task, `invt-` and its number",
};

/// An execution's number, as text with or without what this dialect puts in front.
struct TaskId(ExecutionId);

impl FromStr for TaskId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_prefix("invt-").unwrap_or(text);
        number.parse().map(|number| Self(ExecutionId(number)))
    }
}

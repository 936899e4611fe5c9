//! Requests that make invocations, and the one that stops them.

use chrono::{DateTime, Utc};

use super::client_token::ClientToken;
use super::container::Container;
use super::rate_control::{RateControl, RateFields, Share};
use super::recurrence::{MissedPolicy, OverlapPolicy, Recurrence, Repetition};
use super::resource_limits::ResourceLimits;
use super::retry::Retry;
use super::{RepeatMode, TerminationMode};
use crate::command::content::{self, Content, ContentMax};
use crate::command::parameters::{Arguments, ParameterPassing, Parameters, SecretNames};
use crate::command::settings::Settings;
use crate::command::{
    CommandType, TextRule, check_names, check_timeout, unknown_command_id, unknown_command_type,
};
use crate::error::Violation;
use crate::given::{Given, unknown};
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::limits::Limits;
use crate::operation::Operation;
use crate::tag::{self, Tag, TagUse};
use crate::wire::{ContentEncoding, Ignored, lenient, page_request, page_response};

/// A request that makes an invocation: its own fields, and those that all such requests have.
macro_rules! invocation_request {
    (
        $(#[$about:meta])*
        pub struct $request:ident { $($(#[$own_about:meta])* pub $own:ident: $type:ty,)* }
    ) => {
        page_request! {
        $(#[$about])*
        #[non_exhaustive]
        pub struct $request {
            $($(#[$own_about])* pub $own: $type,)*
            /// The directory to run in; the command's if none is given, otherwise the user's home.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub working_dir: Option<String>,
            /// Seconds a run may take; the command's if not given, otherwise the default of the
            /// [`Limits`](crate::Limits). The embedded limits have no default: the run may then take any time. A
            /// default is shortened to a second less than the distance of the fires of a schedule.
            #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
            pub timeout: Option<u64>,
            /// The user to run as; the command's if none is given, otherwise the host's own. At most 255 characters.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub username: Option<String>,
            /// The name under which the host's [`SecretResolver`](crate::SecretResolver) has the
            /// password of that user. Instances that run Windows need it. At most 255 characters.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub windows_password_name: Option<String>,
            /// What the script is given to, in the place of its shell; the command's if none is given.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub launcher: Option<String>,
            /// The container to run in: 64 hexadecimal digits, which `docker://`, `containerd://` or
            /// `cri-o://` may precede.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub container_id: Option<String>,
            /// The name of that container.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub container_name: Option<String>,
            /// Values for the script's parameters; a name that none is given for has its default,
            /// else the empty text.
            #[serde(skip_serializing_if = "Parameters::is_empty")]
            pub parameters: Parameters,
            /// How the values come into the script.
            #[serde(skip_serializing_if = "Given::is_default")]
            pub parameter_passing: Given<ParameterPassing>,
            /// The parameters whose values are secret, beside those that the command says are.
            #[serde(skip_serializing_if = "SecretNames::is_empty")]
            pub secret_parameters: SecretNames,
            /// When it runs.
            #[serde(skip_serializing_if = "Given::is_default")]
            pub repeat_mode: Given<RepeatMode>,
            /// The schedule to run on: `rate(5m)`, `at(2030-01-01 08:00:00)` or `0 30 2 * * ?`, the latter two with a
            /// time zone if you like. A cron expression without a time zone follows the zone that each instance has
            /// when the request is made.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub frequency: Option<String>,
            /// What a fire does where the execution before it has not ended.
            #[serde(skip_serializing_if = "Given::is_default")]
            pub overlap_policy: Given<OverlapPolicy>,
            /// What becomes of nominal times that nobody was there for.
            #[serde(skip_serializing_if = "Given::is_default")]
            pub missed_policy: Given<MissedPolicy>,
            /// Seconds over which the timers of schedules are spread. The id of a timer determines a
            /// delay, less than this: all fires of the timer are later by this delay.
            #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
            pub spread: Option<u64>,
            /// No nominal time after this one fires; then the invocation ends.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub end_time: Option<DateTime<Utc>>,
            /// How often the schedule fires in each zone of its instances, after which the
            /// invocation ends. What is skipped or missed does not count.
            #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
            pub max_fires: Option<u64>,
            /// How often and when it is tried again where it did not succeed; never if not given.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub retry: Option<Retry>,
            /// How many of its executions run at a time, as a number or a percentage of its
            /// instances: `10` or `10%`. At least 1; no bound of its own if not given.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub max_concurrency: Option<Given<Share>>,
            /// How many executions of a fire may end without success, as a number or a percentage:
            /// one more, and those that have not started are cancelled. Any if not given.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub max_errors: Option<Given<Share>>,
            /// How many instances of a fire have started by the end of each wave, as numbers or
            /// percentages, such as `1`, `10%`, `100%`: those of a wave start once the one before it
            /// has ended. What is beyond the last is a wave more. At most 100, none smaller than one
            /// before it.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            pub waves: Vec<Given<Share>>,
            /// Seconds from the end of a wave to the next one, at most 604,800, which are 7 days; 0 if not given. The
            /// wait keeps its length if the clock is set meanwhile.
            #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
            pub wave_soak: Option<u64>,
            /// Which executions come first where not all can run, 0 to 9: those that have more of it.
            /// 5 if not given.
            #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
            pub priority: Option<u64>,
            /// The executions of all invocations with this key share a bound that the host sets. 1 to
            /// 64 characters, none a control character.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub concurrency_key: Option<String>,
            /// Seconds from when an execution is due, 1 to 2,592,000, which are 30 days, and no more than the
            /// `Deadline`: after that time the execution is not started. Because a deadline is an instant, it follows
            /// the clock if the clock is set.
            #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
            pub start_deadline: Option<u64>,
            /// Seconds from when a fire is due, 1 to 2,592,000, which are 30 days: then executions of the
            /// fire that have not ended are ended. Because a deadline is an instant, it follows the clock if
            /// the clock is set.
            #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
            pub deadline: Option<u64>,
            /// What a timeout or a stop ends.
            #[serde(skip_serializing_if = "Given::is_default")]
            pub termination_mode: Given<TerminationMode>,
            /// What the processes of a run may use.
            #[serde(skip_serializing_if = "ResourceLimits::is_empty")]
            pub resource_limits: ResourceLimits,
            /// Whether a run goes on when the host ends, until the next engine on the file takes the run back. The
            /// request is refused if runs of the executor of an instance cannot go on
            /// ([`Executor::can_survive_restarts`](crate::Executor::can_survive_restarts)).
            #[serde(deserialize_with = "lenient::value", skip_serializing_if = "std::ops::Not::not")]
            pub survive_restarts: bool,
            /// Where the whole output goes, as in `oss://bucket/folder` or `file:///folder`; where the
            /// command says if nothing is given.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub oss_output_delivery: Option<String>,
            /// The instances to run on, at least 1; or give `ResourceTag`.
            #[serde(rename = "InstanceId", skip_serializing_if = "Vec::is_empty")]
            pub instance_ids: Vec<InstanceId>,
            /// Selects the instances that have all of these tags.
            #[serde(rename = "ResourceTag", skip_serializing_if = "Vec::is_empty")]
            pub resource_tags: Vec<Tag>,
            /// Tags of the invocation, and of the command if it is kept.
            #[serde(rename = "Tag", skip_serializing_if = "Vec::is_empty")]
            pub tags: Vec<Tag>,
            /// The group that the instances belong to, all of them.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub resource_group_id: Option<String>,
            /// Makes the request safe to repeat: within 24 hours the same request with the same
            /// token gets the first answer again. ASCII characters only.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub client_token: Option<String>,
            /// Read and not used, as on the pages.
            #[serde(skip_serializing)]
            pub timed: Ignored,
        }
        }

        impl $request {
            /// Sets the instances to run on.
            #[must_use]
            pub fn on<I: Into<InstanceId>>(
                mut self,
                instances: impl IntoIterator<Item = I>,
            ) -> Self {
                self.instance_ids = instances.into_iter().map(Into::into).collect();
                self
            }

            /// Selects the instances to run on: those that have all of these tags.
            #[must_use]
            pub fn on_tagged<T: Into<Tag>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
                self.resource_tags = tags.into_iter().map(Into::into).collect();
                self
            }

            /// Has the instances belong to a group, all of them.
            #[must_use]
            pub fn resource_group(mut self, id: impl Into<String>) -> Self {
                self.resource_group_id = Some(id.into());
                self
            }

            /// Adds a tag.
            #[must_use]
            pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
                self.tags.push(Tag::new(key, value));
                self
            }

            /// Makes the request safe to repeat.
            #[must_use]
            pub fn client_token(mut self, token: impl Into<String>) -> Self {
                self.client_token = Some(token.into());
                self
            }

            /// Sets the directory to run in.
            #[must_use]
            pub fn working_dir(mut self, working_dir: impl Into<String>) -> Self {
                self.working_dir = Some(working_dir.into());
                self
            }

            /// Sets the seconds a run may take.
            #[must_use]
            pub fn timeout(mut self, seconds: u64) -> Self {
                self.timeout = Some(seconds);
                self
            }

            /// Sets the user to run as.
            #[must_use]
            pub fn username(mut self, username: impl Into<String>) -> Self {
                self.username = Some(username.into());
                self
            }

            /// Sets what the script is given to.
            #[must_use]
            pub fn launcher(mut self, launcher: impl Into<String>) -> Self {
                self.launcher = Some(launcher.into());
                self
            }

            /// Names the parameters whose values are secret.
            #[must_use]
            pub fn secret_parameters<N: Into<String>>(
                mut self,
                names: impl IntoIterator<Item = N>,
            ) -> Self {
                self.secret_parameters = names.into_iter().collect();
                self
            }

            /// Sets what a timeout or a stop ends.
            #[must_use]
            pub fn termination_mode(mut self, mode: TerminationMode) -> Self {
                self.termination_mode = mode.into();
                self
            }

            /// Limits what the processes of a run may use.
            #[must_use]
            pub fn resource_limits(mut self, limits: ResourceLimits) -> Self {
                self.resource_limits = limits;
                self
            }

            /// Lets a run go on when the host ends.
            #[must_use]
            pub fn survive_restarts(mut self) -> Self {
                self.survive_restarts = true;
                self
            }

            /// Runs it on a schedule instead of at once.
            #[must_use]
            pub fn frequency(mut self, schedule: impl Into<String>) -> Self {
                self.frequency = Some(schedule.into());
                self
            }

            /// Sets what a fire does where the execution before it has not ended.
            #[must_use]
            pub fn overlap_policy(mut self, policy: OverlapPolicy) -> Self {
                self.overlap_policy = policy.into();
                self
            }

            /// Sets what becomes of nominal times that nobody was there for.
            #[must_use]
            pub fn missed_policy(mut self, policy: MissedPolicy) -> Self {
                self.missed_policy = policy.into();
                self
            }

            /// Says when it runs, where no schedule does: at once, or when an instance boots.
            #[must_use]
            pub fn repeat_mode(mut self, mode: RepeatMode) -> Self {
                self.repeat_mode = mode.into();
                self
            }

            /// Spreads the timers of the schedule over so many seconds.
            #[must_use]
            pub fn spread(mut self, seconds: u64) -> Self {
                self.spread = Some(seconds);
                self
            }

            /// Ends the schedule with the last nominal time that is not after this.
            #[must_use]
            pub fn end_time(mut self, end: DateTime<Utc>) -> Self {
                self.end_time = Some(end);
                self
            }

            /// Ends the schedule after so many fires.
            #[must_use]
            pub fn max_fires(mut self, fires: u64) -> Self {
                self.max_fires = Some(fires);
                self
            }

            /// Tries it again where it did not succeed.
            #[must_use]
            pub fn retry(mut self, retry: Retry) -> Self {
                self.retry = Some(retry);
                self
            }

            /// Bounds the executions that run at a time.
            #[must_use]
            pub fn max_concurrency(mut self, share: impl Into<Share>) -> Self {
                self.max_concurrency = Some(Given::Known(share.into()));
                self
            }

            /// Bounds the executions that may end without success before the rest is cancelled.
            #[must_use]
            pub fn max_errors(mut self, share: impl Into<Share>) -> Self {
                self.max_errors = Some(Given::Known(share.into()));
                self
            }

            /// Starts it in waves, each of which counts those before it too.
            #[must_use]
            pub fn waves<S: Into<Share>>(mut self, waves: impl IntoIterator<Item = S>) -> Self {
                self.waves = waves.into_iter().map(|wave| Given::Known(wave.into())).collect();
                self
            }

            /// Waits so many seconds from the end of a wave to the next one.
            #[must_use]
            pub fn wave_soak(mut self, seconds: u64) -> Self {
                self.wave_soak = Some(seconds);
                self
            }

            /// Sets how early its turn comes, 0 to 9.
            #[must_use]
            pub fn priority(mut self, priority: u64) -> Self {
                self.priority = Some(priority);
                self
            }

            /// Sets the key under which it shares a bound with others.
            #[must_use]
            pub fn concurrency_key(mut self, key: impl Into<String>) -> Self {
                self.concurrency_key = Some(key.into());
                self
            }

            /// Starts no execution later than so many seconds after it was due.
            #[must_use]
            pub fn start_deadline(mut self, seconds: u64) -> Self {
                self.start_deadline = Some(seconds);
                self
            }

            /// Ends all of a fire so many seconds after it was due.
            #[must_use]
            pub fn deadline(mut self, seconds: u64) -> Self {
                self.deadline = Some(seconds);
                self
            }

            /// Gives values to the script's parameters.
            #[must_use]
            pub fn parameters<N: Into<String>, V: Into<String>>(
                mut self,
                values: impl IntoIterator<Item = (N, V)>,
            ) -> Self {
                self.parameters = values.into_iter().collect();
                self
            }

            /// Says how the values of parameters come into the script.
            #[must_use]
            pub fn parameter_passing(mut self, passing: ParameterPassing) -> Self {
                self.parameter_passing = passing.into();
                self
            }

            /// Sets the container to run in, by its name.
            #[must_use]
            pub fn container_name(mut self, name: impl Into<String>) -> Self {
                self.container_name = Some(name.into());
                self
            }

            /// Sets the container to run in, by its id.
            #[must_use]
            pub fn container_id(mut self, id: impl Into<String>) -> Self {
                self.container_id = Some(id.into());
                self
            }

            /// Sends the whole output to a place, as in `file:///folder`.
            #[must_use]
            pub fn oss_output_delivery(mut self, place: impl Into<String>) -> Self {
                self.oss_output_delivery = Some(place.into());
                self
            }

            /// Sets the name under which the host has the password of the user.
            #[must_use]
            pub fn windows_password_name(mut self, name: impl Into<String>) -> Self {
                self.windows_password_name = Some(name.into());
                self
            }

            /// How it is run, as far as it says so.
            pub(crate) fn settings(&self) -> Settings {
                let output = &self.oss_output_delivery;
                Settings::new(&self.working_dir, &self.username, &self.launcher, output)
            }

            /// Checks what all such requests have; what comes of it.
            fn check_common(
                &self,
                timeout_min: u64,
                limits: &Limits,
                found: &mut Vec<Violation>,
            ) -> Terms {
                let targets = Targets {
                    instance_ids: self.instance_ids.clone(),
                    tags: self.resource_tags.clone(),
                    resource_group_id: self.resource_group_id.clone().filter(|id| !id.is_empty()),
                };
                targets.check(limits, found);
                tag::check(&self.tags, TagUse::Tag, limits, found);
                let token =
                    ClientToken::of(self.client_token.as_deref(), Operation::$request, self, limits, found);
                let settings = self.settings();
                settings.check(limits, found);
                check_timeout(self.timeout, timeout_min, limits, found);
                let container = Container::new(&self.container_id, &self.container_name);
                container.check(found);
                let windows_password_name =
                    self.windows_password_name.clone().filter(|name| !name.is_empty());
                check_password_name(windows_password_name.as_deref(), limits, found);
                self.resource_limits.check(found);
                self.parameters.check(limits, found);
                let passing = self.parameter_passing.known(found, |text| {
                    unknown("InvalidParameter.ParameterPassing", 400, "ParameterPassing", text, "Text or Environment")
                });
                let mode = self.repeat_mode.known(found, unknown_repeat_mode).unwrap_or_default();
                let repetition = Repetition {
                    mode,
                    frequency: self.frequency.as_deref(),
                    overlap: self.overlap_policy.known(found, |text| {
                        unknown("InvalidParameter.OverlapPolicy", 400, "OverlapPolicy", text, "Skip, Queue, Allow or Replace")
                    }).unwrap_or_default(),
                    missed: self.missed_policy.known(found, |text| {
                        unknown("InvalidParameter.MissedPolicy", 400, "MissedPolicy", text, "Skip, Latest or All:N")
                    }).unwrap_or_default(),
                    spread_s: self.spread,
                    end: self.end_time,
                    fires_max: self.max_fires,
                };
                let termination_mode = self.termination_mode.known(found, |text| {
                    unknown("InvalidTerminationMode.NotFound", 404, "TerminationMode", text, "Process or ProcessTree")
                });
                let recurrence = repetition.check(limits, found);
                if let Some(retry) = &self.retry {
                    retry.check(limits, found);
                }
                let rate_control = RateFields {
                    max_concurrency: self.max_concurrency.as_ref(),
                    max_errors: self.max_errors.as_ref(),
                    waves: &self.waves,
                    wave_soak: self.wave_soak,
                    priority: self.priority,
                    concurrency_key: self.concurrency_key.as_deref(),
                    start_deadline: self.start_deadline,
                    deadline: self.deadline,
                };
                let rate_control = rate_control.check(found);
                Terms {
                    targets,
                    token,
                    settings,
                    container,
                    windows_password_name,
                    tags: self.tags.clone(),
                    termination_mode: termination_mode.unwrap_or_default(),
                    resource_limits: self.resource_limits,
                    survive_restarts: self.survive_restarts,
                    dry_run: mode == RepeatMode::DryRun,
                    recurrence,
                    retry: self.retry.clone(),
                    rate_control,
                    arguments: Arguments {
                        values: self.parameters.clone(),
                        defaults: Parameters::default(),
                        secrets: self.secret_parameters.clone(),
                        passing: passing.unwrap_or_default(),
                    },
                }
            }
        }
    };
}

invocation_request! {
/// Creates a command and runs it in one call. The [`Limits`](crate::Limits) of a handle say how long texts and lists
/// may be.
///
/// As JSON, `CommandContent` is plain text unless `ContentEncoding` says `Base64`.
///
/// # From a page's example
///
/// ```
/// use adjutant::RunCommand;
///
/// let request: RunCommand = serde_json::from_str(r#"{
///     "RegionId": "cn-hangzhou", "Name": "testName", "Type": "RunShellScript",
///     "CommandContent": "ZWNobyAxMjM=", "ContentEncoding": "Base64",
///     "WorkingDir": "/home/user", "Timeout": 3600, "InstanceId": ["i-1", "i-2"]
/// }"#)?;
/// assert_eq!(request.instance_ids.len(), 2);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub struct RunCommand {
    /// A name for people; a command that is kept without one has its id for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The language.
    #[serde(rename = "Type", default = "Given::nothing")]
    pub command_type: Given<CommandType>,
    /// The script, encoded as the next field says.
    pub command_content: String,
    /// `PlainText` or `Base64`; anything else, also nothing, means plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// Whether `{{name}}` in the script is a parameter.
    #[serde(deserialize_with = "lenient::value", skip_serializing_if = "std::ops::Not::not")]
    pub enable_parameter: bool,
    /// What parameters are that no value is given for.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub default_parameters: Parameters,
    /// Whether the command stays for later invocations.
    #[serde(deserialize_with = "lenient::value", skip_serializing_if = "std::ops::Not::not")]
    pub keep_command: bool,
}
}

impl RunCommand {
    /// A shell script, given as it is. Bytes that are no UTF-8 are taken too.
    pub fn shell(script: impl AsRef<[u8]>) -> Self {
        let (command_content, encoding) = ContentEncoding::of(script.as_ref());
        let content_encoding = Some(encoding.as_str().to_owned());
        Self { command_content, content_encoding, ..Self::default() }
    }

    /// Sets the name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Says what it is for.
    #[must_use]
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Sets the language.
    #[must_use]
    pub fn command_type(mut self, command_type: CommandType) -> Self {
        self.command_type = command_type.into();
        self
    }

    /// Makes `{{name}}` in the script a parameter.
    #[must_use]
    pub fn enable_parameter(mut self) -> Self {
        self.enable_parameter = true;
        self
    }

    /// Says what parameters are that no value is given for.
    #[must_use]
    pub fn default_parameters<N: Into<String>, V: Into<String>>(
        mut self,
        values: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.default_parameters = values.into_iter().collect();
        self
    }

    /// Keeps the command for later invocations.
    #[must_use]
    pub fn keep(mut self) -> Self {
        self.keep_command = true;
        self
    }

    /// Checks the request, takes its content out of its encoding and reads its schedule.
    pub(crate) fn check(&self, limits: &Limits, found: &mut Vec<Violation>) -> Checked {
        let encoding = self.content_encoding.as_deref().and_then(ContentEncoding::parse);
        let content_max = match self.keep_command {
            true => ContentMax::kept(limits),
            false => ContentMax::unkept(limits),
        };
        let command_type = self.command_type.known(found, unknown_command_type);
        let content = content::check(
            &self.command_content,
            encoding.unwrap_or(ContentEncoding::PlainText),
            content_max,
            found,
        );
        check_names(&self.name, &self.description, limits, found);
        let mut terms = self.check_common(1, limits, found);
        terms.arguments.defaults = self.default_parameters.clone();
        let arguments = &terms.arguments;
        let script = arguments.check(self.enable_parameter, content.as_deref(), limits, found);
        if let Some(script) = script {
            arguments.check_names(&script, false, limits, found);
        }
        Checked { command_type, content, content_max, terms }
    }
}

/// What the check of a run came to.
#[derive(Debug)]
pub(crate) struct Checked {
    /// None if the request names none.
    pub command_type: Option<CommandType>,
    /// None if there is something wrong with it.
    pub content: Option<Content>,
    /// The largest content, its parameters filled in.
    pub content_max: ContentMax,
    pub terms: Terms,
}

/// What the common part of a request came to.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub token: Option<ClientToken>,
    pub tags: Vec<Tag>,
    pub targets: Targets,
    pub settings: Settings,
    pub container: Container,
    pub windows_password_name: Option<String>,
    /// All checks, and nothing stored.
    pub dry_run: bool,
    pub termination_mode: TerminationMode,
    pub resource_limits: ResourceLimits,
    pub survive_restarts: bool,
    pub recurrence: Option<Recurrence>,
    pub retry: Option<Retry>,
    pub rate_control: RateControl,
    pub arguments: Arguments,
}

page_response! {
/// What a run got.
pub struct RunCommandResponse {
    /// The command, whether it is kept or not.
    pub command_id: CommandId,
    /// The invocation. Of a dry run neither exists.
    pub invoke_id: InvokeId,
}
}

invocation_request! {
/// Runs a stored command. The [`Limits`](crate::Limits) of a handle say how long texts and lists may be.
pub struct InvokeCommand {
    /// The command.
    pub command_id: Given<CommandId>,
}
}

impl InvokeCommand {
    /// Runs a command as it was stored.
    pub fn new(command_id: CommandId) -> Self {
        Self { command_id: command_id.into(), ..Self::default() }
    }

    /// Checks the request and reads its schedule; the command, if it names one that may be.
    pub(crate) fn check(
        &self,
        limits: &Limits,
        found: &mut Vec<Violation>,
    ) -> (Option<CommandId>, Terms) {
        let command_id = self.command_id.known(found, unknown_command_id);
        (command_id, self.check_common(limits.invoke_timeout_s_min, limits, found))
    }
}

page_response! {
/// What an invocation of a stored command got.
pub struct InvokeCommandResponse {
    /// The invocation. Of a dry run it does not exist.
    pub invoke_id: InvokeId,
}
}

page_request! {
/// Stops an invocation, or its executions on some instances: what waits is cancelled, what runs is ended.
#[non_exhaustive]
pub struct StopInvocation {
    /// The invocation.
    pub invoke_id: Given<InvokeId>,
    /// Only on these instances; on all if empty.
    #[serde(rename = "InstanceId", skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<InstanceId>,
    /// What for, for the record. At most 255 characters, none a control character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
}

/// The longest reason for a stop, in characters.
const REASON_CHARS_MAX: usize = 255;

impl StopInvocation {
    /// Stops all of an invocation.
    pub fn new(invoke_id: InvokeId) -> Self {
        Self { invoke_id: invoke_id.into(), ..Self::default() }
    }

    /// Stops it on these instances only.
    #[must_use]
    pub fn on<I: Into<InstanceId>>(mut self, instances: impl IntoIterator<Item = I>) -> Self {
        self.instance_ids = instances.into_iter().map(Into::into).collect();
        self
    }

    /// Says what for.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    pub(crate) fn check(&self, limits: &Limits) -> Result<InvokeId, Vec<Violation>> {
        let mut found = Vec::new();
        let invoke_id = self.invoke_id.known(&mut found, unknown_invoke_id);
        if self.instance_ids.len() > limits.stop_instances_max {
            found.push(too_many_instances(limits.stop_instances_max, self.instance_ids.len()));
        }
        let reason = self.reason.as_deref().unwrap_or_default();
        let chars = reason.chars().count();
        if chars > REASON_CHARS_MAX || reason.chars().any(char::is_control) {
            let message = format!(
                "want at most {REASON_CHARS_MAX} characters, none a control character; it has {chars}"
            );
            found.push(Violation::new("InvalidParameter.Reason", 400, "Reason", message));
        }
        invoke_id.filter(|_| found.is_empty()).ok_or(found)
    }
}

page_response! {
/// What a stop did.
pub struct StopInvocationResponse {}
}

pub(super) fn unknown_invoke_id(text: &str) -> Violation {
    let want = "the id of an invocation, `t-` and 32 hexadecimal digits";
    unknown("InvalidInvokeId.NotFound", 404, "InvokeId", text, want)
}

fn check_password_name(name: Option<&str>, limits: &Limits, found: &mut Vec<Violation>) {
    let rule = TextRule {
        field: "WindowsPasswordName",
        chars_max: limits.username_chars_max,
        too_long: ("WindowsPasswordName.ExceedLimit", 403),
        bad_character: "InvalidParameter.WindowsPasswordName",
    };
    rule.check(name.unwrap_or_default(), found);
}

pub(super) fn unknown_repeat_mode(text: &str) -> Violation {
    let want = "Once, Period, NextRebootOnly, EveryReboot or DryRun";
    unknown("InvalidRepeatMode.NotFound", 404, "RepeatMode", text, want)
}

/// What a request says of the instances to run on.
#[derive(Debug, Clone)]
pub(crate) struct Targets {
    pub instance_ids: Vec<InstanceId>,
    /// Select them, if none is named.
    pub tags: Vec<Tag>,
    pub resource_group_id: Option<String>,
}

impl Targets {
    pub(crate) fn check(&self, limits: &Limits, found: &mut Vec<Violation>) {
        tag::check(&self.tags, TagUse::ResourceTag, limits, found);
        match (self.instance_ids.is_empty(), self.tags.is_empty()) {
            (_, true) => check_instance_ids(&self.instance_ids, limits, found),
            (true, false) => {}
            (false, false) => {
                let message = "name instances or give tags that select them, not both";
                let code = "InvalidResourceTag.ConflictWithInstanceIds";
                found.push(Violation::new(code, 400, "ResourceTag", message));
            }
        }
    }
}

impl Targets {
    /// Checks how many instances there are of which nothing else has to be checked.
    pub(crate) fn check_count(&self, max: usize, found: &mut Vec<Violation>) {
        if self.instance_ids.len() > max {
            found.push(too_many_instances(max, self.instance_ids.len()));
        }
    }
}

fn check_instance_ids(ids: &[InstanceId], limits: &Limits, found: &mut Vec<Violation>) {
    const FIELD: &str = "InstanceId";
    if ids.is_empty() {
        found.push(Violation::new(
            "MissingParam.InstanceId",
            400,
            FIELD,
            format!(
                "name 1 to {} instances to run on, or give a ResourceTag",
                limits.instances_max
            ),
        ));
    }
    if ids.len() > limits.instances_max {
        found.push(too_many_instances(limits.instances_max, ids.len()));
    }
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = ids.iter().find(|id| !seen.insert(*id)) {
        found.push(Violation::new(
            "InvalidInstanceId.Duplicate",
            400,
            FIELD,
            format!("`{twice}` is named twice; name each instance once"),
        ));
    }
}

fn too_many_instances(max: usize, given: usize) -> Violation {
    Violation::new(
        "InstanceIds.ExceedLimit",
        403,
        "InstanceId",
        format!("want at most {max} instances; it names {given}"),
    )
}

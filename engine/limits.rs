//! The limits of requests, in one value: the numbers of an application's own engine, and the numbers of vendors' pages.

use std::time::Duration;

use crate::schedule::Bounds;

/// The longest time that a request can ask for, in seconds, whatever the limits are. A thousand years after any time
/// that a clock may show is an instant that can still be written.
const SECONDS_MAX: u64 = 1_000 * 366 * 24 * 3_600;
/// The highest count that a request can ask for, whatever the limits are: a column of SQLite holds no more.
pub(crate) const COUNT_MAX: u64 = i64::MAX as u64;
/// The longest list or text that a request can have, whatever the limits are: both are held in memory.
const LENGTH_MAX: usize = u32::MAX as usize;

/// The limits of requests. [`Limits::embedded`] is the default of an engine; [`Limits::alibaba`] and
/// [`Limits::tencent`] are the numbers of two vendors' pages. A host may change any number. Limits belong to a handle:
/// [`Engine::with_limits`](crate::Engine::with_limits) gives another handle of the same engine with other limits, so
/// one engine can serve an application and the pages' clients. Even if a number here is higher, an engine accepts times
/// up to a thousand years, counts up to [`i64::MAX`], and lists and texts up to [`u32::MAX`] long.
///
/// # Two handles of one engine
///
/// ```
/// use adjutant::{Engine, Limits, RunCommand};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::open_in_memory().await?;
/// let pages = engine.with_limits(Limits::alibaba());
/// let long = RunCommand::shell(format!("# {}", "x".repeat(100_000))).on(["local"]);
/// assert_eq!(pages.run_command(long.clone()).await.unwrap_err().code(), "CmdContent.ExceedLimit");
/// let run = engine.run_command(long).await?;
/// # engine.wait(&run.invoke_id).await?;
/// # Ok::<(), adjutant::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Longest command name, in characters.
    pub name_chars_max: usize,
    /// Longest description, in characters.
    pub description_chars_max: usize,
    /// Longest working directory, in characters.
    pub working_dir_chars_max: usize,
    /// Longest launcher, in bytes.
    pub launcher_bytes_max: usize,
    /// Longest name of a user, and of a password in the host's store, in characters.
    pub username_chars_max: usize,
    /// Largest content of a kept or invoked command, in bytes.
    pub kept_content_bytes_max: usize,
    /// Largest content of a command that is run without being kept, in bytes.
    pub unkept_content_bytes_max: usize,
    /// Whether these two numbers count the bytes of the Base64 form of the content, which is a third longer.
    pub content_is_counted_as_base64: bool,
    /// Most different parameters that a script may have.
    pub parameters_defined_max: usize,
    /// Most parameters that an invocation may give values for.
    pub parameters_passed_max: usize,
    /// Longest parameter name, in bytes.
    pub parameter_name_bytes_max: usize,
    /// Whether a parameter that has neither a value nor a default is refused; otherwise it is empty.
    pub parameters_need_values: bool,
    /// Most tags on a command or an invocation.
    pub tags_max: usize,
    /// Most tags that select instances to run on.
    pub resource_tags_max: usize,
    /// Longest key of a tag, in characters.
    pub tag_key_chars_max: usize,
    /// Longest value of a tag, in characters.
    pub tag_value_chars_max: usize,
    /// Longest `ClientToken`, in characters.
    pub client_token_chars_max: usize,
    /// Most invocations in a day of UTC; [`u64::MAX`] for any number.
    pub invocations_per_day_max: u64,
    /// Timeout of a run for which neither the request nor the command states one, in seconds; `None` for no timeout.
    /// A schedule that fires more often shortens this timeout, so that a run has to end a second before the next fire.
    pub timeout_s_default: Option<u64>,
    /// Longest timeout, in seconds.
    pub timeout_s_max: u64,
    /// Shortest timeout that an invocation of a stored command may state, in seconds.
    pub invoke_timeout_s_min: u64,
    /// Shortest interval of a rate, in seconds.
    pub rate_s_min: u64,
    /// Longest interval of a rate, in seconds.
    pub rate_s_max: u64,
    /// Smallest distance that a cron expression may produce, in seconds.
    pub cron_s_min: u64,
    /// Longest time over which the fires of a schedule may be spread, in seconds.
    pub spread_s_max: u64,
    /// Most missed fires that a schedule may have run after all.
    pub missed_runs_max: usize,
    /// Most attempts that an execution may have, the first included.
    pub retry_attempts_max: u64,
    /// Longest wait between two attempts, in seconds.
    pub retry_backoff_s_max: u64,
    /// Most instances that one request may name to run on.
    pub instances_max: usize,
    /// Most instances that the tags of a request may select.
    pub tagged_instances_max: usize,
    /// Most instances that one request may name to stop on.
    pub stop_instances_max: usize,
    /// Whether all instances of one request must be of one kind (see
    /// [`Instance::kind`](crate::Instance::kind)).
    pub one_kind_of_instance: bool,
    /// Whether ids of instances may have all visible characters; otherwise only letters and digits of ASCII and
    /// `._:@-`. A script into which an id with other characters would be filled in as text does not start.
    pub instance_ids_are_free: bool,
    /// Most commands that may be kept at a time; [`u64::MAX`] for any number.
    pub kept_commands_max: u64,
    /// Whether each kept command needs a name of its own.
    pub command_names_differ: bool,
    /// Largest page of a listing, in entries.
    pub page_size_max: usize,
    /// Page of a listing that states no size, in entries.
    pub page_size_default: usize,
}

impl Limits {
    /// The limits of an engine that an application embeds. No number is a vendor's quota: there is no bound on
    /// invocations in a day or on kept commands, and no timeout unless a request or a command states one. Bounds of
    /// 1 MiB of content and 10,000 instances in a request keep a mistaken request from taking seconds of the one
    /// writing thread. Rates and cron expressions fire once in a second at most.
    pub const fn embedded() -> Self {
        Self {
            name_chars_max: 255,
            description_chars_max: 4_096,
            // The longest path that Linux takes.
            working_dir_chars_max: 4_096,
            launcher_bytes_max: 4_096,
            kept_content_bytes_max: 1 << 20,
            unkept_content_bytes_max: 1 << 20,
            content_is_counted_as_base64: false,
            parameters_defined_max: 1_000,
            parameters_passed_max: 1_000,
            tags_max: 100,
            resource_tags_max: 100,
            tag_key_chars_max: 255,
            tag_value_chars_max: 1_024,
            client_token_chars_max: 255,
            invocations_per_day_max: u64::MAX,
            timeout_s_default: None,
            invoke_timeout_s_min: 1,
            rate_s_min: 1,
            cron_s_min: 1,
            instances_max: 10_000,
            tagged_instances_max: 10_000,
            stop_instances_max: 10_000,
            kept_commands_max: u64::MAX,
            page_size_max: 1_000,
            page_size_default: 50,
            ..Self::alibaba()
        }
    }

    /// The numbers of Alibaba Cloud Assistant.
    pub const fn alibaba() -> Self {
        Self {
            name_chars_max: 128,
            description_chars_max: 512,
            working_dir_chars_max: 200,
            launcher_bytes_max: 1024,
            username_chars_max: 255,
            kept_content_bytes_max: 18 * 1024,
            unkept_content_bytes_max: 24 * 1024,
            content_is_counted_as_base64: true,
            parameters_defined_max: 20,
            parameters_passed_max: 10,
            parameter_name_bytes_max: 64,
            parameters_need_values: false,
            tags_max: 20,
            resource_tags_max: 10,
            tag_key_chars_max: 64,
            tag_value_chars_max: 128,
            client_token_chars_max: 64,
            invocations_per_day_max: 200_000,
            timeout_s_default: Some(60),
            // The pages name none; a year keeps every deadline representable.
            timeout_s_max: 366 * 24 * 3600,
            invoke_timeout_s_min: 10,
            rate_s_min: 60,
            rate_s_max: 7 * 24 * 3600,
            cron_s_min: 10,
            // A day: what is spread further is another schedule.
            spread_s_max: 24 * 3600,
            // Two months of minutes; each costs a row and a run.
            missed_runs_max: 100_000,
            // Each costs a row and a run; a day as for what is spread.
            retry_attempts_max: 100,
            retry_backoff_s_max: 24 * 3600,
            instances_max: 100,
            tagged_instances_max: 100,
            stop_instances_max: 50,
            one_kind_of_instance: false,
            instance_ids_are_free: false,
            kept_commands_max: 50_000,
            command_names_differ: false,
            page_size_max: 50,
            page_size_default: 10,
        }
    }

    /// Returns these limits, cut to numbers that the records can hold.
    pub(crate) fn within_records(self) -> Self {
        Self {
            name_chars_max: self.name_chars_max.min(LENGTH_MAX),
            description_chars_max: self.description_chars_max.min(LENGTH_MAX),
            working_dir_chars_max: self.working_dir_chars_max.min(LENGTH_MAX),
            launcher_bytes_max: self.launcher_bytes_max.min(LENGTH_MAX),
            username_chars_max: self.username_chars_max.min(LENGTH_MAX),
            kept_content_bytes_max: self.kept_content_bytes_max.min(LENGTH_MAX),
            unkept_content_bytes_max: self.unkept_content_bytes_max.min(LENGTH_MAX),
            content_is_counted_as_base64: self.content_is_counted_as_base64,
            parameters_defined_max: self.parameters_defined_max.min(LENGTH_MAX),
            parameters_passed_max: self.parameters_passed_max.min(LENGTH_MAX),
            parameter_name_bytes_max: self.parameter_name_bytes_max.min(LENGTH_MAX),
            parameters_need_values: self.parameters_need_values,
            tags_max: self.tags_max.min(LENGTH_MAX),
            resource_tags_max: self.resource_tags_max.min(LENGTH_MAX),
            tag_key_chars_max: self.tag_key_chars_max.min(LENGTH_MAX),
            tag_value_chars_max: self.tag_value_chars_max.min(LENGTH_MAX),
            client_token_chars_max: self.client_token_chars_max.min(LENGTH_MAX),
            invocations_per_day_max: self.invocations_per_day_max.min(COUNT_MAX),
            timeout_s_default: self.timeout_s_default.map(|seconds| seconds.min(SECONDS_MAX)),
            timeout_s_max: self.timeout_s_max.min(SECONDS_MAX),
            invoke_timeout_s_min: self.invoke_timeout_s_min.min(SECONDS_MAX),
            rate_s_min: self.rate_s_min.min(SECONDS_MAX),
            rate_s_max: self.rate_s_max.min(SECONDS_MAX),
            cron_s_min: self.cron_s_min.min(SECONDS_MAX),
            spread_s_max: self.spread_s_max.min(SECONDS_MAX),
            missed_runs_max: self.missed_runs_max.min(LENGTH_MAX),
            // Attempts are counted in 32 bits.
            retry_attempts_max: self.retry_attempts_max.min(u32::MAX.into()),
            retry_backoff_s_max: self.retry_backoff_s_max.min(SECONDS_MAX),
            instances_max: self.instances_max.min(LENGTH_MAX),
            tagged_instances_max: self.tagged_instances_max.min(LENGTH_MAX),
            stop_instances_max: self.stop_instances_max.min(LENGTH_MAX),
            one_kind_of_instance: self.one_kind_of_instance,
            instance_ids_are_free: self.instance_ids_are_free,
            kept_commands_max: self.kept_commands_max.min(COUNT_MAX),
            command_names_differ: self.command_names_differ,
            page_size_max: self.page_size_max.min(LENGTH_MAX),
            page_size_default: self.page_size_default.min(LENGTH_MAX),
        }
    }

    /// Most instances that an invocation may have, however its request came by them.
    pub(crate) fn targets_max(&self) -> usize {
        self.instances_max.max(self.tagged_instances_max)
    }

    /// Returns the timeout of a command that states none, in seconds: at least 1, `None` for no timeout.
    pub(crate) fn timeout_s(&self) -> Option<u64> {
        self.timeout_s_default.map(|seconds| seconds.min(self.timeout_s_max).max(1))
    }

    /// Returns what these limits allow a schedule, where a run may take `timeout_s` seconds; see
    /// [`Timetable::validate`](crate::schedule::Timetable::validate). With a timeout of zero, only the
    /// distances between fires are checked. This is the rule by which an engine accepts the `Frequency` of a request.
    ///
    /// # A schedule that one vendor's pages refuse
    ///
    /// ```
    /// use adjutant::Limits;
    /// use adjutant::schedule::{Schedule, Zone};
    /// use chrono::Utc;
    ///
    /// let now = Utc::now();
    /// let schedule: Schedule = "rate(30s)".parse()?;
    /// let timetable = schedule.bind(now, Zone::UTC);
    /// assert!(timetable.validate(now, &Limits::embedded().schedule_bounds(0)).is_ok());
    /// let refusal = timetable.validate(now, &Limits::alibaba().schedule_bounds(0)).unwrap_err();
    /// assert!(refusal.to_string().contains("at least 60 s"));
    /// # Ok::<(), adjutant::schedule::ParseError>(())
    /// ```
    pub const fn schedule_bounds(&self, timeout_s: u64) -> Bounds {
        Bounds {
            rate_min: Duration::from_secs(self.rate_s_min),
            rate_max: Duration::from_secs(self.rate_s_max),
            cron_min: Duration::from_secs(self.cron_s_min),
            timeout: Duration::from_secs(timeout_s),
        }
    }

    /// Page of a listing that states no size, in entries.
    pub(crate) fn page_size(&self) -> usize {
        self.page_size_default.min(self.page_size_max)
    }

    /// The numbers of Tencent Automation Tools; what its page does not say is as
    /// [`alibaba`](Self::alibaba) has it.
    pub const fn tencent() -> Self {
        Self {
            name_chars_max: 60,
            description_chars_max: 120,
            username_chars_max: 256,
            kept_content_bytes_max: 64 * 1024,
            unkept_content_bytes_max: 64 * 1024,
            parameters_passed_max: 20,
            parameters_need_values: true,
            tags_max: 10,
            timeout_s_max: 86_400,
            invoke_timeout_s_min: 1,
            stop_instances_max: 100,
            one_kind_of_instance: true,
            command_names_differ: true,
            page_size_max: 100,
            page_size_default: 20,
            ..Self::alibaba()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::embedded()
    }
}

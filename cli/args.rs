//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::str::FromStr;

use adjutant::control::ApiPages;
use adjutant::schedule::Zone;
use adjutant::tencent::Tencent;
use adjutant::{
    CommandType, Engine, InstanceId, LOCAL, Limits, MissedPolicy, OverlapPolicy, RepeatMode, Retry,
    RetryOn, Share, TerminationMode,
};
use chrono::{DateTime, Utc};
use clap::builder::NonEmptyStringValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::commands::load::Load;
use crate::commands::next::{Next, zone_data};
use crate::duration;
use crate::failure::Failure;
use crate::help;
use crate::limits::Limit;
use crate::ui;
use crate::values::Assignment;

/// The numbers that requests are held to; the texts of options name them too.
const LIMITS: Limits = Limits::embedded();

/// What the command line comes to.
pub(crate) enum Parsed {
    Command(Box<Arguments>),
    /// It asked for help or the version, which has been printed; the exit status.
    Answered(u8),
}

/// Reads the command line, and whether failures are to be JSON.
pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> (bool, Result<Parsed, Failure>) {
    let words: Vec<OsString> = words.collect();
    match Arguments::try_parse_from(&words) {
        Ok(arguments) => (arguments.json, Ok(Parsed::Command(Box::new(arguments)))),
        // What could not be read has to be looked at as it is.
        Err(error) => {
            let options = words.iter().take_while(|word| *word != "--");
            (options.into_iter().any(|word| word == "--json"), not_a_command(&error, &words))
        }
    }
}

fn not_a_command(error: &clap::Error, words: &[OsString]) -> Result<Parsed, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let mut text = for_people(error, ui::Target::Stdout);
            if error.kind() == ErrorKind::DisplayVersion {
                text.push_str(&format!("zone data {}\n", zone_data(Utc::now())));
            }
            ui::print(text.as_bytes())?;
            Ok(Parsed::Answered(0))
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // If standard error is gone too, the exit status has to do.
            let _ = io::stderr().write_all(for_people(error, ui::Target::Stderr).as_bytes());
            Ok(Parsed::Answered(2))
        }
        kind => {
            let mut message = in_one_line(&error.render().to_string());
            let is_run = || words.iter().any(|word| word == "run");
            if kind == ErrorKind::UnknownArgument && is_run() && is_about_a_word(error) {
                message.push_str("; a script of several words goes in quotes");
            }
            Err(Failure::usage(message))
        }
    }
}

/// Help as wide as the terminal has room for.
fn for_people(error: &clap::Error, target: ui::Target) -> String {
    let width = target.width().map_or(help::USUAL_WIDTH, usize::from);
    help::wrapped(&error.render().to_string(), width.min(help::WIDTH_MAX))
}

/// Whether what is wrong is a word that is no option.
fn is_about_a_word(error: &clap::Error) -> bool {
    let argument = error.get(ContextKind::InvalidArg);
    matches!(argument, Some(ContextValue::String(text)) if !text.starts_with('-'))
}

/// The message, and what is spelled alike; not the usage and the general advice below them.
fn in_one_line(message: &str) -> String {
    let mut paragraphs = message.trim_start_matches("error: ").split("\n\n").map(str::trim);
    let said = paragraphs.next();
    let tips = paragraphs.filter(|text| text.starts_with("tip:") && text.contains("similar"));
    let lines = said.into_iter().chain(tips);
    let lines = lines.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("; ")
}

/// Runs commands on fleets of instances and keeps a record of every run.
#[derive(Debug, Parser)]
#[command(name = "adjutant", version, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// The database [default: $ADJUTANT_DB, otherwise adjutant/adjutant.db in the XDG data folder]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Every command")]
    pub db: Option<PathBuf>,

    /// Print one JSON document instead of text; output of commands is Base64 in it
    #[arg(long, global = true, help_heading = "Every command")]
    pub json: bool,

    /// Keep runs and other processes of this user from the memory and the environment of this process
    #[arg(long, global = true)]
    pub refuse_inspection: bool,

    /// Run a database even if other users could change it or the files beside it; these users could then run commands
    /// as this user
    #[arg(long, global = true)]
    pub no_strict_modes: bool,

    /// Take over a database that was last run on another machine, with its schedules
    #[arg(long, global = true)]
    pub adopt: bool,

    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a script and show what it prints
    #[command(after_help = run_help(&[
        "adjutant run 'df -h'",
        "adjutant run -f deploy.sh --on web-1,web-2 --timeout 10m",
        "adjutant run --name backup --frequency '0 30 2 * * ?' --timeout 1h -f backup.sh",
    ]))]
    Run(Run),
    /// Run a stored command and show what it prints
    #[command(after_help = run_help(&[
        "adjutant invoke backup",
        "adjutant invoke c-01a22c269321 --on-tag role=web --max-concurrency 10%",
        "adjutant invoke deploy --param-env version=4.2 --detach",
    ]))]
    Invoke(Invoke),
    /// Run schedules and the requests of other processes until Ctrl-C; print a line for every event
    #[command(after_help = examples(
        "With --json each line is a JSON document.",
        &["adjutant serve", "adjutant --db /srv/jobs.db serve --json | jq ."],
    ))]
    Serve,
    /// List runs, newest first; `*` marks runs that have not ended
    #[command(after_help = examples(
        "LAST says how the last fire of a schedule ended.",
        &["adjutant ps", "adjutant ps --failed", "adjutant ps --all --json"],
    ))]
    Ps(Ps),
    /// Watch runs that go on, wait, end and are due next; q quits
    #[command(after_help = examples(
        "top only reads: it starts no run, and does not slow the process that runs the database.",
        &["adjutant top", "adjutant --db /srv/jobs.db top"],
    ))]
    Top,
    /// Show the record of a run
    #[command(after_help = examples(
        "",
        &["adjutant show t-01a22c269321", "adjutant show backup --history", "adjutant show backup --follow"],
    ))]
    Show(Show),
    /// Stop a run, or its part on some instances
    #[command(after_help = examples(
        "",
        &["adjutant stop t-01a22c269321", "adjutant stop deploy --on web-2 --reason 'wrong version'"],
    ))]
    Stop(Stop),
    /// Repeat a run that has ended, on the instances where it did not succeed
    #[command(after_help = run_help(&[
        "adjutant retry t-01a22c269321",
        "adjutant retry deploy --detach",
    ]))]
    Retry(Retrying),
    /// Keep a run that repeats from firing; executions that run go on
    #[command(after_help = examples("", &["adjutant pause backup"]))]
    Pause(Repeating),
    /// Let a paused run fire again, from its next time on
    #[command(after_help = examples("", &["adjutant resume backup"]))]
    Resume(Repeating),
    /// Fire a run that repeats now, beside its schedule
    #[command(after_help = examples(
        "The run is carried out by the process that serves the database, or in the background if there is none.",
        &["adjutant run-now backup"],
    ))]
    RunNow(Repeating),
    /// Say why a run did or did not run at an instant
    #[command(after_help = examples("", &["adjutant explain backup 2030-01-31T02:30:00Z"]))]
    Explain(Explain),
    /// Stored commands
    #[command(subcommand, arg_required_else_help = true)]
    Commands(Commands),
    /// Instances that commands can run on
    #[command(subcommand, arg_required_else_help = true)]
    Instances(Instances),
    /// Show a script with its parameters filled in, and run nothing
    #[command(after_help = examples(
        "",
        &["adjutant preview 'echo {{name}}' --param name=world", "adjutant preview -f deploy.sh --param name=world"],
    ))]
    Preview(Preview),
    /// Show how much of the quotas is used
    Quota,
    /// Carry out an operation of the API pages: its JSON on standard input, its answer on standard output
    #[command(
        after_help = api_help()
    )]
    Api(Api),
    /// List when a schedule fires next
    Next(Next),
    /// Measure the speed of very many runs on this machine, on a database of its own that is removed afterwards
    #[command(
        after_help = "The database is made beside that of --db or $ADJUTANT_DB, otherwise in the current folder: the disk of that folder is measured."
    )]
    Load(Load),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Own the file in the background for the process that hands over its socket as standard input.
    #[command(name = "own-in-background", hide = true)]
    OwnInBackground,
}

/// The end of the help of commands that show a run: what their exit status says, and examples.
fn run_help(lines: &[&str]) -> String {
    const STATUS: &str = "Exit status: 0 if every instance succeeded and --output-to was delivered; 2 if the command line is wrong; 1 for everything else, including a refused run. Ctrl-C stops the run.";
    examples(STATUS, lines)
}

/// The end of the help of a command.
fn examples(text: &str, lines: &[&str]) -> String {
    let gap = if text.is_empty() { "" } else { "\n\n" };
    let lines: String = lines.iter().map(|line| format!("\n  {line}")).collect();
    format!("{text}{gap}Examples:{lines}")
}

/// What `api` takes and answers.
fn api_help() -> String {
    let listed =
        |names: &[&str]| names.iter().map(|name| format!("\n  {name}")).collect::<String>();
    format!(
        "A failure is an answer too, with exit status 1:\n  \
         alibaba  {{\"Code\":…,\"Message\":…,\"RequestId\":…,\"Violations\":[…]}}\n  \
         tencent  {{\"Response\":{{\"Error\":{{\"Code\":…,\"Message\":…}},\"RequestId\":…}}}}\n\
         The command waits for no run: runs that are started go on in the background.\n\n\
         Operations of alibaba:{}\n\nOperations of tencent:{}",
        listed(Engine::OPERATIONS),
        listed(Tencent::ACTIONS),
    )
}

/// Where a script comes from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Source {
    /// The script itself; `-` reads it from standard input
    pub script: Option<OsString>,
    /// A file with the script
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// What a script is written in, and what its parameters are by default.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Script")]
pub(crate) struct Language {
    /// The language of the script
    #[arg(long = "type", value_enum, value_name = "WHAT", default_value_t = Written::Shell)]
    pub written: Written,
    /// The script is given as Base64
    #[arg(long)]
    pub base64: bool,
    /// The default value of a parameter; as for --param
    #[arg(long, value_name = "NAME=VALUE")]
    pub default: Vec<Assignment>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Written {
    /// For sh, or the interpreter that its `#!` line names
    Shell,
    /// For PowerShell
    Powershell,
    /// For Windows
    Bat,
}

impl From<Written> for CommandType {
    fn from(written: Written) -> Self {
        match written {
            Written::Shell => Self::RunShellScript,
            Written::Powershell => Self::RunPowerShellScript,
            Written::Bat => Self::RunBatScript,
        }
    }
}

/// Values for a script's parameters.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Parameters")]
pub(crate) struct Values {
    /// Put a value in the place of {{NAME}} in the script, as text. Other users of the machine can read the command
    /// line: NAME=@FILE reads the value from a file, NAME alone from the environment
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub param: Vec<Assignment>,
}

/// Where and how to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// Instances to run on, separated by commas [default: local]
    #[arg(help_heading = "Targets", long, value_name = "ID", value_delimiter = ',', value_parser = trimmed)]
    pub on: Vec<InstanceId>,
    /// Run on the instances that have all of these tags
    #[arg(help_heading = "Targets", long, value_name = "KEY=VALUE", value_parser = tag, conflicts_with = "on")]
    pub on_tag: Vec<Pair>,
    /// Refuse instances that do not belong to this group
    #[arg(help_heading = "Targets", long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub group: Option<String>,
    #[command(flatten)]
    pub values: Values,
    /// Hand a value to the script in the variable PARAM_NAME, byte by byte; as for --param
    #[arg(
        help_heading = "Parameters",
        long,
        value_name = "NAME[=VALUE]",
        conflicts_with = "param"
    )]
    pub param_env: Vec<Assignment>,
    /// Keep the value of this parameter out of every answer
    #[arg(help_heading = "Parameters", long, value_name = "NAME")]
    pub secret: Vec<String>,
    /// The user to run as [default: the one who runs this program]
    #[arg(help_heading = "Process", long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,
    /// Run the script with this command instead of its shell, as in `python3 -u {{ACS::ScriptFileName}}`
    #[arg(help_heading = "Process", long, value_name = "COMMAND", value_parser = NonEmptyStringValueParser::new())]
    pub launcher: Option<String>,
    /// The container to run in, by name
    #[arg(help_heading = "Process", long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub container: Option<String>,
    /// The container to run in, by id
    #[arg(help_heading = "Process", long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    pub container_id: Option<String>,
    /// Write the whole output below a folder, as in `file:///var/log/runs`, and wait until it is there
    #[arg(help_heading = "Output", long, value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub output_to: Option<String>,
    /// Show output byte for byte on a terminal too, and behind the names of several instances
    #[arg(help_heading = "Output", long)]
    pub raw: bool,
    /// Check everything, store nothing and run nothing
    #[arg(help_heading = "Request", long, conflicts_with_all = ["detach", "on_reboot"])]
    pub dry_run: bool,
    /// Tag the run, and the command if it is kept
    #[arg(help_heading = "Request", long, value_name = "KEY=VALUE", value_parser = tag)]
    pub tag: Vec<Pair>,
    /// Make it safe to ask twice: the same request with the same token runs once in 24 hours
    #[arg(help_heading = "Request", long, value_name = "TOKEN", value_parser = NonEmptyStringValueParser::new())]
    pub client_token: Option<String>,
    /// The time that the run may take, such as 90s, 5m or 1h30m; 1 to 31622400 seconds [default: the timeout of the
    /// stored command, or any time]
    #[arg(help_heading = "Limits", long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true)]
    pub timeout: Option<u64>,
    /// The folder to run in; a relative path begins here [default: the user's home]
    #[arg(help_heading = "Process", long, value_name = "FOLDER")]
    pub workdir: Option<PathBuf>,
    /// Print the ids and return; the run goes on in the background
    #[arg(help_heading = "Output", long)]
    pub detach: bool,
    /// What a timeout or a stop ends
    #[arg(help_heading = "Limits", long, value_enum, value_name = "WHAT", default_value_t = Termination::Tree)]
    pub termination: Termination,
    /// Limits of its processes, separated by commas: cpu=10s (at least 1s), memory=256M (1M),
    /// files=64 (16), processes=32 (1), file-size=1G (4K), address-space=1G (1M); or no-new-privileges
    #[arg(help_heading = "Limits", long, value_name = "NAME=MOST", value_delimiter = ',')]
    pub limit: Vec<Limit>,
    /// Let the run go on when the process that runs the database ends; the next process takes it back
    #[arg(help_heading = "Limits", long)]
    pub survive_restarts: bool,
    #[command(flatten)]
    pub again: Again,
    #[command(flatten)]
    pub rates: Rates,
    #[command(flatten)]
    pub repeat: Repeat,
}

impl Target {
    /// The instances that are named, or this machine if nothing else selects any.
    pub(crate) fn named(&self) -> Vec<InstanceId> {
        match (self.on.is_empty(), self.on_tag.is_empty()) {
            (true, true) => vec![LOCAL.into()],
            _ => self.on.clone(),
        }
    }

    /// Whether the script has parameters.
    pub(crate) fn has_values(&self) -> bool {
        !self.values.param.is_empty() || !self.param_env.is_empty() || !self.secret.is_empty()
    }
}

/// A name and what it stands for.
pub(crate) type Pair = (String, String);

/// A tag.
fn tag(text: &str) -> Result<Pair, String> {
    pair(text).map_err(|_| "want KEY=VALUE".to_owned())
}

fn pair(text: &str) -> Result<Pair, String> {
    let (name, value) = text.split_once('=').ok_or("want NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn timeout(text: &str) -> Result<u64, String> {
    span(1, LIMITS.timeout_s_max)(text)
}

/// A duration whose limits the engine knows, and says together with all else that is wrong.
fn span(least: u64, most: u64) -> impl Fn(&str) -> Result<u64, String> + Clone {
    move |text| {
        let seconds = duration::seconds(text);
        seconds.ok_or_else(|| format!("want {}, {least} to {most} seconds", duration::WANTED))
    }
}

/// Numbers whose limits the engine knows, and says together with all else that is wrong.
fn number<N: FromStr>(want: &'static str) -> impl Fn(&str) -> Result<N, String> + Clone {
    move |text| text.parse().map_err(|_| format!("want {want}"))
}

fn attempts(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("want a number, 1 to {}", LIMITS.retry_attempts_max))
}

/// How often to try, and when again.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Retries")]
pub(crate) struct Again {
    /// Attempts on each instance at most, including the first, 1 to 100
    #[arg(long, value_name = "N", value_parser = attempts, allow_negative_numbers = true)]
    pub retry: Option<u64>,
    /// Wait before the second attempt, such as 5s..5m; each later wait is twice as long, up to MAX
    #[arg(long, value_name = "DURATION[..MAX]", default_value = "1s..5m", value_parser = backoff, requires = "retry")]
    pub retry_backoff: Backoff,
    /// The outcomes after which to try again, separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        value_delimiter = ',',
        requires = "retry",
        default_value = "failed,timeout,error,aborted"
    )]
    pub retry_on: Vec<Outcome>,
}

impl Again {
    /// How the requests call it.
    pub(crate) fn request(&self) -> Option<Retry> {
        let mut retry = Retry::attempts(self.retry?).backoff(self.retry_backoff.seconds);
        retry.max_backoff_seconds = self.retry_backoff.max;
        Some(retry.on(self.retry_on.iter().copied().map(RetryOn::from)))
    }
}

/// Seconds to wait at first, and at most if that is said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    seconds: u64,
    max: Option<u64>,
}

fn backoff(text: &str) -> Result<Backoff, String> {
    let number = |text: &str| {
        duration::seconds(text)
            .ok_or_else(|| "want DURATION or DURATION..MAX, such as 5s or 5s..5m".to_owned())
    };
    match text.split_once("..") {
        None => Ok(Backoff { seconds: number(text)?, max: None }),
        Some((seconds, max)) => Ok(Backoff { seconds: number(seconds)?, max: Some(number(max)?) }),
    }
}

/// How a try may end that is followed by another.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Outcome {
    /// An exit code other than 0, or a signal of its own
    Failed,
    /// Its time was up
    Timeout,
    /// It could not be started, or its end is not known
    Error,
    /// It could not be delivered to the instance
    Aborted,
    /// The process that ran it ended; how far it had come is not known
    Interrupted,
}

impl From<Outcome> for RetryOn {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Failed => Self::Failed,
            Outcome::Timeout => Self::Timeout,
            Outcome::Error => Self::Error,
            Outcome::Aborted => Self::Aborted,
            Outcome::Interrupted => Self::Interrupted,
        }
    }
}

/// How many to run at a time, in which order, and until when.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Rollout")]
pub(crate) struct Rates {
    /// Run on this many instances at a time at most, such as 10 or 10%
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub max_concurrency: Option<Share>,
    /// Cancel executions that wait once more instances than this have failed, such as 5 or 10%
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub max_errors: Option<Share>,
    /// Start on the first number of instances, then on the next number in all, and so on, such as 1,10%,100%
    #[arg(long, value_name = "SHARE", value_delimiter = ',', allow_negative_numbers = true)]
    pub waves: Vec<Share>,
    /// Wait this long from the end of a wave to the next wave, such as 10m; 0 to 604800 seconds
    #[arg(long, value_name = "DURATION", value_parser = span(0, 604_800), allow_negative_numbers = true,
        requires = "waves")]
    pub wave_soak: Option<u64>,
    /// Priority, 0 to 9; 9 comes first [default: 5]
    #[arg(long, value_name = "N", value_parser = number::<u64>("0 to 9"), allow_negative_numbers = true)]
    pub priority: Option<u64>,
    /// Share a bound with all runs that have this key, 1 to 64 characters
    #[arg(long = "key", value_name = "NAME")]
    pub concurrency_key: Option<String>,
    /// Start no execution later than this after it was due, such as 10m; 1 to 2592000 seconds, at most the --deadline
    #[arg(long, value_name = "DURATION", value_parser = span(1, 2_592_000), allow_negative_numbers = true)]
    pub start_deadline: Option<u64>,
    /// End all executions this long after the fire was due, such as 2h; 1 to 2592000 seconds
    #[arg(long, value_name = "DURATION", value_parser = span(1, 2_592_000), allow_negative_numbers = true)]
    pub deadline: Option<u64>,
}

/// When to run, if not at once.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Schedule")]
pub(crate) struct Repeat {
    /// Run on a schedule, such as `rate(5m)` or `0 30 2 * * ?`: print the id and return
    #[arg(long, value_name = "EXPR", group = "repeats", conflicts_with = "detach", value_parser = NonEmptyStringValueParser::new())]
    pub frequency: Option<String>,
    /// Run when an instance boots, once or always: print the id and return
    #[arg(long, value_enum, value_name = "WHICH", group = "repeats", conflicts_with = "detach")]
    pub on_reboot: Option<Reboots>,
    /// What a fire does if the run before it has not ended
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Overlap::Skip, requires = "repeats")]
    pub overlap: Overlap,
    /// Which missed fires are run: skip, latest or all:N; a fire that is at most a minute late is not missed
    #[arg(long, value_name = "WHICH", default_value = "skip", value_parser = missed_policy, requires = "frequency", conflicts_with = "on_reboot")]
    pub missed: MissedPolicy,
    /// Delay all fires of the schedule by one time that the engine chooses, less than this, such as 5m
    #[arg(long, value_name = "DURATION", value_parser = span(0, LIMITS.spread_s_max), allow_negative_numbers = true, requires = "frequency", conflicts_with = "on_reboot")]
    pub spread: Option<u64>,
    /// Fire for the last time at or before this instant (RFC 3339)
    #[arg(long, value_name = "RFC3339", value_parser = instant, requires = "frequency", conflicts_with = "on_reboot")]
    pub until: Option<DateTime<Utc>>,
    /// End after so many fires
    #[arg(long, value_name = "N", value_parser = number::<u64>("a whole number"),
        allow_negative_numbers = true, requires = "frequency", conflicts_with = "on_reboot")]
    pub times: Option<u64>,
}

impl Repeat {
    /// How the requests call it, apart from a schedule.
    pub(crate) fn mode(&self) -> RepeatMode {
        match self.on_reboot {
            None => RepeatMode::Once,
            Some(Reboots::Next) => RepeatMode::NextRebootOnly,
            Some(Reboots::Every) => RepeatMode::EveryReboot,
        }
    }

    /// Whether it runs later, if at all.
    pub(crate) fn is_given(&self) -> bool {
        self.frequency.is_some() || self.on_reboot.is_some()
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Reboots {
    /// The next boot of each instance
    Next,
    /// Each of its boots
    Every,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Overlap {
    /// Nothing, and says so in the record
    Skip,
    /// Waits for its end; one waits at a time
    Queue,
    /// Runs beside it
    Allow,
    /// Stops it, and runs once it has ended
    Replace,
}

impl From<Overlap> for OverlapPolicy {
    fn from(overlap: Overlap) -> Self {
        match overlap {
            Overlap::Skip => Self::Skip,
            Overlap::Queue => Self::Queue,
            Overlap::Allow => Self::Allow,
            Overlap::Replace => Self::Replace,
        }
    }
}

/// An instant as RFC 3339 writes it.
pub(crate) fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    text.parse().map_err(|_| "want RFC 3339, such as 2030-01-31T08:00:00Z".to_owned())
}

/// An instance of a list, which may have blanks after its commas.
fn trimmed(text: &str) -> Result<InstanceId, std::convert::Infallible> {
    Ok(text.trim().into())
}

fn missed_policy(text: &str) -> Result<MissedPolicy, String> {
    match (text, text.strip_prefix("all:").map(str::parse)) {
        ("skip", _) => Ok(MissedPolicy::Skip),
        ("latest", _) => Ok(MissedPolicy::Latest),
        (_, Some(Ok(limit))) => Ok(MissedPolicy::All(limit)),
        _ => Err("want skip, latest or all:N".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Termination {
    /// The script's own process
    Process,
    /// The script and what it started
    Tree,
}

impl From<Termination> for TerminationMode {
    fn from(termination: Termination) -> Self {
        match termination {
            Termination::Process => Self::Process,
            Termination::Tree => Self::ProcessTree,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub language: Language,
    /// A name for people
    #[arg(long)]
    pub name: Option<String>,
    /// Keep the command for `adjutant invoke`
    #[arg(long)]
    pub keep: bool,
    /// Take {{NAME}} in the script for a parameter; implied by --param, --param-env, --secret and --default
    #[arg(long)]
    pub parameters: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Invoke {
    /// The command: its id, the beginning of its id, or its name
    #[arg(value_name = "COMMAND")]
    pub command: String,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ps {
    /// List every run
    #[arg(long, short)]
    pub all: bool,
    /// List runs that failed, and schedules whose last fire did
    #[arg(long)]
    pub failed: bool,
    /// List this many, and older ones only if they have not ended
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, conflicts_with = "all",
        value_parser = number::<usize>("a whole number"), allow_negative_numbers = true)]
    pub limit: usize,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The run: its id, the beginning of its id, or its name
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Print the output of the latest attempt on each instance; with --history of all attempts
    #[arg(long)]
    pub output: bool,
    /// Print the output until the run ends, then exit as `adjutant run` does
    #[arg(long)]
    pub follow: bool,
    /// List every execution of a run that repeats, and every attempt, not only the latest on each instance
    #[arg(long)]
    pub history: bool,
    /// With --output or --follow, show output byte for byte on a terminal too
    #[arg(long)]
    pub raw: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Stop {
    /// The run: its id, the beginning of its id, or its name
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Only on these instances, separated by commas
    #[arg(long, value_name = "ID", value_delimiter = ',', value_parser = trimmed)]
    pub on: Vec<InstanceId>,
    /// The reason, for the record
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Retrying {
    /// The run: its id, the beginning of its id, or its name
    #[arg(value_name = "RUN")]
    pub run: String,
    /// Make it safe to ask twice: the same request with the same token runs once in 24 hours
    #[arg(long, value_name = "TOKEN", value_parser = NonEmptyStringValueParser::new())]
    pub client_token: Option<String>,
    /// Print the id and return; the run goes on in the background
    #[arg(long)]
    pub detach: bool,
    /// Show output byte for byte on a terminal too, and behind the names of several instances
    #[arg(long)]
    pub raw: bool,
}

/// A run that repeats.
#[derive(Debug, clap::Args)]
pub(crate) struct Repeating {
    /// The run: its id, the beginning of its id, or its name
    #[arg(value_name = "RUN")]
    pub run: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Explain {
    /// The run: its id, the beginning of its id, or its name
    #[arg(value_name = "RUN")]
    pub run: String,
    /// The instant (RFC 3339), to the second
    #[arg(value_name = "TIME", value_parser = instant)]
    pub instant: DateTime<Utc>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Commands {
    /// Store a command
    Create(Box<CreateCommand>),
    /// List stored commands, newest first
    List {
        /// Only commands of this name; a `*` at either end stands for any text
        #[arg(long)]
        name: Option<String>,
        /// Only commands that have all of these tags
        #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
        tag: Vec<Pair>,
    },
    /// Show a stored command and its script
    Show {
        /// The command: its id, the beginning of its id, or its name
        #[arg(value_name = "COMMAND")]
        command: String,
    },
    /// Delete a stored command; the records of its runs stay
    Delete {
        /// The command: its id, the beginning of its id, or its name
        #[arg(value_name = "COMMAND")]
        command: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct CreateCommand {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub language: Language,
    /// Keep the values of this parameter out of every answer
    #[arg(long, value_name = "NAME")]
    pub secret: Vec<String>,
    /// The user to run as [default: the one who runs this program]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,
    /// Give the script to this instead of its shell
    #[arg(long, value_name = "COMMAND", value_parser = NonEmptyStringValueParser::new())]
    pub launcher: Option<String>,
    /// A name for people
    #[arg(long)]
    pub name: String,
    /// A description
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub description: String,
    /// The time that a run may take, such as 90s, 5m or 1h30m; 1 to 31622400 seconds [default: any time]
    #[arg(long, value_name = "DURATION", value_parser = timeout, allow_negative_numbers = true)]
    pub timeout: Option<u64>,
    /// The folder to run in; a relative path begins here [default: the user's home]
    #[arg(long, value_name = "FOLDER")]
    pub workdir: Option<PathBuf>,
    /// Take {{NAME}} in the script for a parameter; implied by --default
    #[arg(long)]
    pub parameters: bool,
    /// Tag it
    #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
    pub tag: Vec<Pair>,
}

/// An operation of the API pages.
#[derive(Debug, clap::Args)]
pub(crate) struct Api {
    /// Its name, such as RunCommand
    #[arg(required_unless_present = "batch")]
    pub operation: Option<String>,
    /// The API whose pages the request follows
    #[arg(long, value_enum, value_name = "WHOSE", default_value_t = Profile::Alibaba)]
    pub profile: Profile,
    /// Read {"op":…,"request":…} from each line, and answer each request in a line
    #[arg(long, conflicts_with = "operation")]
    pub batch: bool,
}

/// Whose API pages a request follows.
#[derive(Debug, Clone, Copy, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Profile {
    /// Alibaba Cloud Assistant
    Alibaba,
    /// Tencent Automation Tools
    Tencent,
}

impl From<Profile> for ApiPages {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Alibaba => Self::Alibaba,
            Profile::Tencent => Self::Tencent,
        }
    }
}

/// What a script is once its parameters are filled in.
#[derive(Debug, clap::Args)]
pub(crate) struct Preview {
    /// The script itself, or the whole id of a stored command; `-` reads the script from standard input
    pub script: Option<OsString>,
    /// A file with the script
    #[arg(
        short,
        long,
        value_name = "FILE",
        conflicts_with = "script",
        required_unless_present = "script"
    )]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub values: Values,
    /// Fill in the built-in parameters of this instance
    #[arg(long, value_name = "ID", value_parser = trimmed)]
    pub on: Option<InstanceId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Instances {
    /// Register instances, or change instances of the same name
    Add {
        /// Their names
        #[arg(required = true, value_name = "ID")]
        ids: Vec<InstanceId>,
        /// The executor that takes commands to them; `local` is this machine
        #[arg(long, value_name = "NAME", default_value = LOCAL)]
        executor: String,
        /// The group they belong to
        #[arg(long, value_name = "ID")]
        group: Option<String>,
        /// Tag them, instead of the tags they had
        #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
        tag: Vec<Pair>,
        /// The time zone of the instances, which schedules without a zone follow [default: this machine's]
        #[arg(long, value_name = "ZONE")]
        time_zone: Option<Zone>,
        /// The program that runs shell scripts without a `#!` line there, by its path or its name
        /// in PATH [default: the executor's own]
        #[arg(long, value_name = "SHELL")]
        shell: Option<String>,
        /// Run at most this many executions on each instance at a time
        #[arg(long, value_name = "N", value_parser = number::<u32>("a whole number, 1 to 4294967295"),
            allow_negative_numbers = true)]
        max_concurrency: Option<u32>,
    },
    /// List instances
    List,
    /// Remove instances; the records of their runs stay
    Remove {
        /// Their names
        #[arg(required = true, value_name = "ID")]
        ids: Vec<InstanceId>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_help_names_the_limits() {
        let mut program = Arguments::command();
        let mut help = |verb: &str| {
            let command = program.find_subcommand_mut(verb).expect("a command");
            command.render_help().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
        };
        let check = |help: &str, want: String| assert!(help.contains(&want), "{want}: {help}");
        let Limits { timeout_s_max, retry_attempts_max, .. } = LIMITS;
        for verb in ["run", "invoke"] {
            let help = help(verb);
            check(&help, format!("1 to {timeout_s_max} seconds"));
            check(&help, format!("including the first, 1 to {retry_attempts_max}"));
        }
    }
}

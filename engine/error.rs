//! Errors, sorted by what the caller can do about them.

mod end;
mod pages;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::operation::Operation;

pub use end::EngineEnd;

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why a call failed. A failed call stores nothing.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request is wrong: change it. Every violation found is listed, in the pages' order.
    #[error("{}", Listed(.0))]
    Invalid(Vec<Violation>),

    /// The request is right, but a quota of the [`Limits`](crate::Limits) is used up: try again when the quota has room.
    /// If the request is also wrong in another way, the error is [`Error::Invalid`], and lists the quota too.
    #[error("{}{}", Listed(.violations), Reset(*.resets_at))]
    Quota {
        /// When the quota begins anew; `None` if only a deletion makes room, as of a kept command.
        resets_at: Option<DateTime<Utc>>,
        /// Each quota that is used up, with its code and number.
        violations: Vec<Violation>,
    },

    /// The request is right, but the thing it names is in use: try again when it is not.
    #[error("{message}")]
    Conflict {
        /// The page's code.
        code: &'static str,
        /// The obstacle, and the step that removes it.
        message: String,
    },

    /// Another engine runs on this file: end it, ask it, or open the file for reading only.
    #[error("{} is in use by {}", .path.display(), Owner(*.pid))]
    InUse {
        /// The database file.
        path: PathBuf,
        /// The process that runs it, if it left its number; this process if another engine of it runs the file.
        pid: Option<u32>,
    },

    /// The database could not be read or written: see to the file or the disk.
    #[error("{0}")]
    Storage(#[from] StorageError),

    /// The host's own part of a transaction failed, so nothing of the call is stored. The host's error is inside, and
    /// is also the [`source`](std::error::Error::source).
    #[error("the host's part failed: {0}")]
    Host(#[source] HostFailure),

    /// An executor cannot work in this host: change the host as the reason says, or plug in another executor.
    #[error("the executor `{executor}` cannot work in this program: {reason}")]
    Unfit {
        /// The name by which instances ask for the executor.
        executor: String,
        /// The cause, and the remedy.
        reason: String,
    },

    /// Too many requests wait to be stored, or to be read for: try again in a while.
    #[error("too many requests are waiting ({waiting}); try again in a while")]
    Busy {
        /// Requests that wait.
        waiting: usize,
    },

    /// The engine cannot be opened on this tokio runtime: change how the host builds the runtime.
    #[error("the engine cannot be opened here: {0}")]
    Runtime(&'static str),

    /// The engine has been shut down.
    #[error("the engine is shutting down and takes no new work")]
    ShuttingDown,

    /// The engine has ended although nobody shut it down: drop it, and open the file again.
    #[error("the engine has ended: {0}")]
    Ended(EngineEnd),

    /// A defect of this library. Please report it.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// Returns the error of a call whose host's part failed.
    pub(crate) fn host(failure: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Host(HostFailure(failure.into().into()))
    }

    /// Everything that is wrong with a request as an error, as the operation's page has it.
    pub(crate) fn all(operation: Operation, mut violations: Vec<Violation>) -> Self {
        pages::arrange(operation, &mut violations);
        let quotas: Option<Vec<_>> = violations.iter().map(|violation| violation.quota).collect();
        match quotas {
            Some(quotas) if !quotas.is_empty() => {
                // The last of several, if all of them begin anew.
                let resets: Option<Vec<_>> = quotas.iter().map(|quota| quota.resets_at).collect();
                let resets_at = resets.and_then(|resets| resets.into_iter().max());
                Self::Quota { resets_at, violations }
            }
            _ => Self::Invalid(violations),
        }
    }

    /// One violation as an error.
    pub(crate) fn invalid(violation: Violation) -> Self {
        Self::Invalid(vec![violation])
    }

    /// Whether a record is to blame, and not the disk: then trying again does not help.
    pub(crate) fn is_of_a_record(&self) -> bool {
        match self {
            Error::Internal(_) => true,
            Error::Storage(error) => error.kind == StorageErrorKind::Record,
            _ => false,
        }
    }

    /// Returns whether a record is sound, but needs the file of a zone that this machine does not have now.
    pub(crate) fn is_missing_zone(&self) -> bool {
        matches!(self, Error::Storage(error) if error.kind == StorageErrorKind::ZoneMissing)
    }

    /// Returns whether SQLite has met a damaged page. SQLite commits nothing of such a transaction.
    pub(crate) fn is_damage(&self) -> bool {
        matches!(self, Error::Storage(error) if error.kind == StorageErrorKind::Corrupt)
    }

    /// Returns whether another try would fail too, because a record or the file is to blame, not the disk.
    pub(crate) fn is_lasting(&self) -> bool {
        use StorageErrorKind as Kind;
        match self {
            Error::Storage(error) => matches!(
                error.kind,
                Kind::Corrupt
                    | Kind::Record
                    | Kind::ZoneMissing
                    | Kind::Foreign
                    | Kind::Altered
                    | Kind::Version
                    | Kind::Other
            ),
            other => other.is_of_a_record(),
        }
    }

    /// The code of the API page, or of this library where the pages have none. Stable.
    pub fn code(&self) -> &str {
        match self {
            Error::Invalid(violations) | Error::Quota { violations, .. } => {
                violations.first().map_or("InvalidParameter", |v| v.code)
            }
            Error::Conflict { code, .. } => code,
            Error::InUse { .. } => "Storage.InUse",
            Error::Storage(error) => error.kind.code(),
            Error::Host(_) => "Host.Failed",
            Error::Unfit { .. } => "Host.Unfit",
            Error::Busy { .. } => "Throttling",
            Error::Runtime(_) => "Host.Runtime",
            Error::Ended(EngineEnd::Storage(error)) => error.kind.code(),
            Error::ShuttingDown | Error::Ended(_) => "ServiceUnavailable",
            Error::Internal(_) => "InternalError",
        }
    }

    /// The HTTP status that goes with [`code`](Error::code).
    pub fn http_status(&self) -> u16 {
        match self {
            Error::Invalid(violations) | Error::Quota { violations, .. } => {
                violations.first().map_or(400, |v| v.http_status)
            }
            Error::Conflict { .. } => 403,
            Error::InUse { .. } | Error::Busy { .. } => 503,
            Error::ShuttingDown | Error::Ended(_) => 503,
            Error::Unfit { .. } => 500,
            Error::Storage(_) | Error::Host(_) | Error::Runtime(_) | Error::Internal(_) => 500,
        }
    }

    /// Everything that is wrong with the request, quotas included; empty for errors of other kinds.
    pub fn violations(&self) -> &[Violation] {
        match self {
            Error::Invalid(violations) | Error::Quota { violations, .. } => violations,
            _ => &[],
        }
    }
}

/// The error with which the host's own part of a call failed. Clones share the error.
///
/// # A rejection of the host's own
///
/// ```
/// use adjutant::{Engine, Error, RunCommand};
///
/// #[derive(Debug)]
/// struct Banned(&'static str);
///
/// impl std::fmt::Display for Banned {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "tenant {} is banned", self.0)
///     }
/// }
///
/// impl std::error::Error for Banned {}
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
/// # runtime.block_on(async {
/// let engine = Engine::open_in_memory().await?;
/// let order = RunCommand::shell("true").on(["local"]);
/// let refused = engine
///     .run_command_with(order, |_, _| -> Result<(), _> { Err(Banned("acme").into()) })
///     .await;
/// let Err(Error::Host(failure)) = refused else { panic!("it is refused") };
/// assert_eq!(failure.downcast_ref::<Banned>().map(|banned| banned.0), Some("acme"));
/// # Ok::<(), Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct HostFailure(Arc<dyn std::error::Error + Send + Sync>);

impl std::ops::Deref for HostFailure {
    type Target = dyn std::error::Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl AsRef<dyn std::error::Error + Send + Sync> for HostFailure {
    fn as_ref(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        &*self.0
    }
}

impl From<HostFailure> for Arc<dyn std::error::Error + Send + Sync> {
    fn from(failure: HostFailure) -> Self {
        failure.0
    }
}

impl fmt::Debug for HostFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for HostFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&*self.0, f)
    }
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The page's code.
    pub code: &'static str,
    /// The page's HTTP status for the code.
    pub http_status: u16,
    /// The field at fault, by its name on the page.
    pub field: &'static str,
    /// The limit, the value or its size, and a value that would be accepted.
    pub message: String,
    /// Set if a quota is used up, and nothing is wrong with the request itself.
    pub(crate) quota: Option<Quota>,
}

/// A quota that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// When the quota begins anew; none if it does not by itself.
    pub resets_at: Option<DateTime<Utc>>,
}

impl Violation {
    pub(crate) fn new(
        code: &'static str,
        http_status: u16,
        field: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { code, http_status, field, message: message.into(), quota: None }
    }

    /// Returns this as the violation of a quota, which begins anew at that time, or has room only once somebody makes
    /// room.
    pub(crate) fn of_quota(self, resets_at: Option<DateTime<Utc>>) -> Self {
        Self { quota: Some(Quota { resets_at }), ..self }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.field, self.message, self.code)
    }
}

/// Ends a check: nothing wrong, or everything that is.
pub(crate) fn none_of(operation: Operation, violations: Vec<Violation>) -> Result<()> {
    if violations.is_empty() { Ok(()) } else { Err(Error::all(operation, violations)) }
}

/// The fault of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StorageError {
    /// The kind of the fault.
    pub kind: StorageErrorKind,
    /// The message of SQLite or of the system.
    pub message: String,
    /// The file, where it is known.
    pub path: Option<PathBuf>,
    /// Whether the error is SQLite's, and the system has not been asked yet for its cause.
    pub(crate) is_unexplained: bool,
}

/// Kinds of trouble with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// The file or its folder cannot be opened.
    CannotOpen,
    /// The file, its folder or the open mode allows no writing.
    ReadOnly,
    /// The disk, or the quota on it, is full. Nothing of the call was stored.
    Full,
    /// The file is damaged or no database.
    Corrupt,
    /// A record has content that no version of this library writes.
    Record,
    /// A record names a zone for which this machine has no sound file.
    ZoneMissing,
    /// Another program has changed the tables of this library, or has added a trigger or an index to them.
    Altered,
    /// The file is a sound database of another program.
    Foreign,
    /// The file has other names, under each of which another engine could run it.
    Linked,
    /// A link, a folder, or another file that is not regular has the name of a file beside the database.
    InTheWay,
    /// Another user could have made, or could change, the file, its folder, or a file beside it. See
    /// [`EngineBuilder::strict_modes`](crate::EngineBuilder::strict_modes).
    Unsafe,
    /// The file was run on another machine last, and would start executions here. See
    /// [`EngineBuilder::adopt`](crate::EngineBuilder::adopt).
    OtherMachine,
    /// The file was written by a newer version of this library, or by another build of this one.
    Version,
    /// The file, its log or its lock was moved, removed, replaced or written over while an engine runs the file.
    Moved,
    /// Another program holds the file, or memory is short.
    Busy,
    /// This process, or the system, has reached its limit of open files.
    TooManyFiles,
    /// The system refused a read or a write.
    Io,
    /// Every other error of SQLite.
    Other,
}

impl StorageErrorKind {
    const fn code(self) -> &'static str {
        match self {
            Self::CannotOpen => "Storage.CannotOpen",
            Self::ReadOnly => "Storage.ReadOnly",
            Self::Full => "Storage.Full",
            Self::Corrupt => "Storage.Corrupt",
            Self::Record => "Storage.Record",
            Self::ZoneMissing => "Storage.ZoneMissing",
            Self::Altered => "Storage.Altered",
            Self::Foreign => "Storage.Foreign",
            Self::Linked => "Storage.Linked",
            Self::InTheWay => "Storage.InTheWay",
            Self::Unsafe => "Storage.Unsafe",
            Self::OtherMachine => "Storage.OtherMachine",
            Self::Version => "Storage.Version",
            Self::Moved => "Storage.Moved",
            Self::TooManyFiles => "Storage.TooManyFiles",
            Self::Busy => "Storage.Busy",
            Self::Io => "Storage.Io",
            Self::Other => "Storage.Error",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::CannotOpen => "check that the folder exists and that this user may use it",
            Self::ReadOnly => "make the file and its folder writable, or open it for reading only",
            Self::Full => "free space on the disk and try again",
            Self::Corrupt | Self::Record => "restore the file from a backup, or name another file",
            Self::ZoneMissing => "put the file back; until then, what needs the zone waits",
            Self::Altered => "undo that change, or restore the file from a backup",
            Self::Foreign => "name a file of its own, which will be created",
            Self::Linked => "remove the other names, so that the file has one only",
            Self::InTheWay => "remove it, or name another file",
            Self::Unsafe => {
                "whoever can change it can run commands as this user; if all of its users may do that, open it without \
                 strict modes (`strict_modes(false)`, `--no-strict-modes`)"
            }
            Self::OtherMachine => {
                "if it has moved here for good, adopt it once (`adopt()`, `--adopt`); it can be read and changed \
                 without that"
            }
            Self::Version => "use the version that wrote it, or a newer one",
            Self::Moved => "put back what is missing, or name the file where it is now",
            Self::Busy => "try again in a while",
            Self::TooManyFiles => "raise `ulimit -n`",
            Self::Io => "see to the disk or the file system and try again",
            Self::Other => "see the message of SQLite",
        }
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "database {}: ", path.display())?,
            None => write!(f, "database: ")?,
        }
        write!(f, "{}; {}", self.message, self.kind.advice())
    }
}

impl std::error::Error for StorageError {}

struct Listed<'a>(&'a [Violation]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, violation) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

struct Reset(Option<DateTime<Utc>>);

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => {
                write!(f, "; try again at {}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
            }
            None => Ok(()),
        }
    }
}

struct Owner(Option<u32>);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const REMEDY: &str = "stop that process or open the file for reading only";
        match self.0 {
            Some(pid) if pid == std::process::id() => write!(
                f,
                "pid {pid}, by another handle in this process; shut that engine down first, or clone its handle"
            ),
            Some(pid) => write!(f, "pid {pid}; {REMEDY}"),
            None => write!(f, "another process; {REMEDY}"),
        }
    }
}

//! The environment of scripts: built up from nothing, so that no secret of the host slips through.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Task;
use super::account::Account;
use crate::id::ExecutionId;

/// Where programs are if the host does not say.
const PATH_FALLBACK: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where programs are for users other than the host's.
const PATH_OF_USERS: &str = "/usr/local/bin:/usr/bin:/bin";
const LANG_FALLBACK: &str = "C.UTF-8";

/// The variable that marks what one start has started.
const RUN: &str = "ADJUTANT_RUN";
/// The variable with the file for a run's result.
const RESULT: &str = "ADJUTANT_RESULT";

/// Tells the processes of one start from all others, also from those of a copy of the records. Nobody who does not know
/// the number of the engine can make the mark of a run, or learn anything from a mark: the mark is the engine's cipher
/// of the execution and its attempt, and no other mark helps to find it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Mark(u128);

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        mark.to_string()
    }
}

impl TryFrom<String> for Mark {
    type Error = uuid::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self(Uuid::try_parse(&text)?.as_u128()))
    }
}

/// The bits of a mark that tell attempts apart.
const ATTEMPT_BITS: u32 = 20;
const ATTEMPT_MASK: u64 = (1 << ATTEMPT_BITS) - 1;
/// The half of the plain text by which an engine knows its marks.
const CHECK: u64 = 0;
/// The rounds of the cipher: a Feistel network of four with a good function is a cipher.
const ROUNDS: [u8; 4] = [1, 2, 3, 4];

/// Returns a name for what belongs to an engine and everybody can see. Nobody can tell the number of the engine from it.
pub(super) fn name_of_engine(engine: u128) -> String {
    format!("{:016x}", digest(&[b"engine", &engine.to_be_bytes()]))
}

fn scrambled(engine: u128, round: u8, half: u64) -> u64 {
    digest(&[b"mark", &engine.to_be_bytes(), &[round], &half.to_be_bytes()])
}

fn digest(parts: &[&[u8]]) -> u64 {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Mark {
    pub(super) fn new(engine: u128, execution: ExecutionId, attempt: u32) -> Self {
        // No engine gets to so many executions that these meet.
        let run = (execution.0.cast_unsigned() << ATTEMPT_BITS) ^ u64::from(attempt);
        let (mut left, mut right) = (CHECK, run);
        for round in ROUNDS {
            (left, right) = (right, left ^ scrambled(engine, round, right));
        }
        Self(u128::from(left) << 64 | u128::from(right))
    }

    /// Returns the execution and the attempt, if the mark was made by this engine.
    pub(super) fn of_engine(self, engine: u128) -> Option<(ExecutionId, u32)> {
        let (mut left, mut right) = ((self.0 >> 64) as u64, self.0 as u64);
        for round in ROUNDS.into_iter().rev() {
            (left, right) = (right ^ scrambled(engine, round, left), left);
        }
        // The number of an attempt needs far fewer bits than these.
        let attempt = (right & ATTEMPT_MASK) as u32;
        (left == CHECK).then(|| (ExecutionId((right >> ATTEMPT_BITS).cast_signed()), attempt))
    }

    /// Returns a name for what belongs to the run and everybody can see. Nobody can tell the mark from the name.
    pub(super) fn name(self) -> String {
        format!("{:016x}", digest(&[b"name", &self.0.to_be_bytes()]))
    }

    /// The mark that an environment has, as `/proc/N/environ` shows it.
    pub(super) fn of(environment: &[u8]) -> Option<Self> {
        let value = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(RUN.as_bytes())?.strip_prefix(b"="))?;
        Uuid::try_parse_ascii(value).ok().map(|mark| Self(mark.as_u128()))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Environment variables.
pub(super) type Variables = BTreeMap<OsString, OsString>;

/// Whose run it is, as far as its environment goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct User {
    /// None if it has none.
    pub home: Option<OsString>,
    #[serde(with = "pairs")]
    pub variables: Variables,
}

/// Variables as JSON can hold them: its keys are texts, theirs need not be.
mod pairs {
    use std::ffi::OsString;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Variables;

    pub(super) fn serialize<S: Serializer>(
        variables: &Variables,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(variables)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Variables, D::Error> {
        Ok(Vec::<(OsString, OsString)>::deserialize(from)?.into_iter().collect())
    }
}

impl User {
    /// The host's own, and what the system calls it: what its environment says; where that is silent,
    /// what the system says.
    pub(super) fn of_host() -> (Self, String) {
        let uid = rustix::process::getuid().as_raw();
        let account = Account::of_uid(uid);
        let user =
            Self::own(|key| std::env::var_os(key), std::env::home_dir(), account.as_ref(), uid);
        (user, account.map_or_else(|| uid.to_string(), |account| account.name))
    }

    fn own(
        host: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
        account: Option<&Account>,
        uid: u32,
    ) -> Self {
        let home = home.map(PathBuf::into_os_string).filter(|home| !home.is_empty());
        let name: OsString =
            account.map_or_else(|| uid.to_string(), |account| account.name.clone()).into();
        let fallbacks = [
            ("HOME", home.clone().unwrap_or("/".into())),
            ("USER", name.clone()),
            ("LOGNAME", name),
            ("SHELL", account.map_or("/bin/sh".into(), |account| account.shell.clone().into())),
            ("PATH", PATH_FALLBACK.into()),
            ("LANG", LANG_FALLBACK.into()),
        ];
        let variables = fallbacks.map(|(key, fallback)| {
            (key.into(), host(key).filter(|value| !value.is_empty()).unwrap_or(fallback))
        });
        Self { home, variables: variables.into() }
    }

    /// Another than the host's: nothing of the host's environment is for it.
    pub(super) fn of_account(account: &Account) -> Self {
        let variables = [
            ("HOME", account.home.clone().into_os_string()),
            ("USER", account.name.clone().into()),
            ("LOGNAME", account.name.clone().into()),
            ("SHELL", account.shell.clone().into()),
            ("PATH", if account.uid == 0 { PATH_FALLBACK } else { PATH_OF_USERS }.into()),
            ("LANG", LANG_FALLBACK.into()),
        ];
        let variables = variables.map(|(key, value)| (key.into(), value));
        Self { home: Some(account.home.clone().into()), variables: variables.into() }
    }
}

/// What names a task, and the values of parameters that are passed so.
pub(super) fn variables_of(task: &Task) -> impl Iterator<Item = (OsString, OsString)> {
    let own = [
        ("ADJUTANT_INVOKE_ID", task.invoke_id().to_string()),
        ("ADJUTANT_COMMAND_ID", task.command_id().to_string()),
        ("ADJUTANT_INSTANCE_ID", task.instance_id.as_str().to_owned()),
        ("ADJUTANT_EXECUTION_ID", task.execution_id.to_string()),
        ("ADJUTANT_ATTEMPT", task.attempt.to_string()),
    ];
    let given = task.variables().into_iter().map(|(key, value)| (key.into(), value.into()));
    let name = Some(task.instance_name()).filter(|name| !name.is_empty());
    let name = name.map(|name| ("ADJUTANT_INSTANCE_NAME".into(), name.into()));
    given.chain(name).chain(own.map(|(key, value)| (key.into(), value.into())))
}

/// What marks a run, and tells it where its result goes.
pub(super) fn variables_of_run(result: &Path, mark: Mark) -> [(OsString, OsString); 2] {
    [(RESULT.into(), result.into()), marked(mark)]
}

/// What marks a helper before it has become the run's program.
pub(super) fn marked(mark: Mark) -> (OsString, OsString) {
    (RUN.into(), mark.to_string().into())
}

/// Returns variables in the order in which a program gets them: the mark comes first, where a look finds it soonest.
pub(super) fn in_order(variables: &Variables) -> impl Iterator<Item = (&OsString, &OsString)> {
    let mark = variables.get_key_value(OsStr::new(RUN));
    mark.into_iter().chain(variables.iter().filter(|(key, _)| *key != RUN))
}

/// The path of `program`: itself if it is one, else where the script's own `PATH` has it.
///
/// # Errors
///
/// `ENOENT` if no folder of `PATH` has such a program.
pub(super) fn find(program: &Path, variables: &Variables) -> io::Result<PathBuf> {
    if program.components().count() > 1 || program.is_absolute() {
        return Ok(program.to_owned());
    }
    let path = variables.get(OsStr::new("PATH")).map_or(OsStr::new(""), |path| path);
    std::env::split_paths(path)
        // A relative folder would depend on the working directory, which others may write to.
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|path| is_program(path))
        .ok_or_else(|| Errno::NOENT.into())
}

/// Whether there is a program that this user may run.
pub(super) fn is_program(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXEC_OK).is_ok() && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 6] = ["HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG"];

    fn check(user: &User, want: [&str; 6]) {
        let got = KEYS.map(|key| user.variables[OsStr::new(key)].to_str().expect("plain text"));
        assert_eq!(got, want);
        assert_eq!(user.variables.len(), 6);
    }

    fn account(uid: u32) -> Account {
        let (name, home, shell) = ("ann".to_owned(), "/home/ann".into(), "/bin/bash".into());
        Account { name, uid, gid: uid, home, shell }
    }

    #[test]
    fn what_the_host_does_not_say_is_looked_up() {
        let check = |host: &[(&str, &str)], home: Option<&str>, account: Option<&Account>, want| {
            let host = |key: &str| host.iter().find(|(k, _)| *k == key).map(|(_, v)| v.into());
            check(&User::own(host, home.map(PathBuf::from), account, 7), want);
        };
        let ann = account(1000);
        let named = [("USER", "u"), ("LOGNAME", "l"), ("SHELL", "/s"), ("PATH", "/p"), ("X", "x")];
        check(&named, Some("/h"), Some(&ann), ["/h", "u", "l", "/s", "/p", "C.UTF-8"]);
        check(
            &[("LANG", "de_DE.UTF-8"), ("USER", "")],
            Some("/home/ann"),
            Some(&ann),
            ["/home/ann", "ann", "ann", "/bin/bash", PATH_FALLBACK, "de_DE.UTF-8"],
        );
        check(&[], Some(""), None, ["/", "7", "7", "/bin/sh", PATH_FALLBACK, "C.UTF-8"]);
    }

    #[test]
    fn another_user_has_nothing_of_the_hosts() {
        let of = |uid| User::of_account(&account(uid));
        check(&of(9), ["/home/ann", "ann", "ann", "/bin/bash", PATH_OF_USERS, "C.UTF-8"]);
        check(&of(0), ["/home/ann", "ann", "ann", "/bin/bash", PATH_FALLBACK, "C.UTF-8"]);
    }

    #[test]
    fn marks_are_read_from_environments() {
        let check = |environment: &str, want: Option<u128>| {
            assert_eq!(Mark::of(environment.as_bytes()), want.map(Mark), "{environment}");
        };
        let mark = Mark::new(0xfeed_feed_feed_feed, ExecutionId(17), 2);
        check(&format!("A=b\0ADJUTANT_RUN={mark}\0C=d\0"), Some(mark.0));
        check(&format!("ADJUTANT_RUN={}\0", Mark(17)), Some(17));
        check(&format!("XADJUTANT_RUN={mark}\0"), None);
        check(&format!("ADJUTANT_RUNS={mark}\0"), None);
        check(&format!("ADJUTANT_RUN={mark}0\0"), None);
        check("ADJUTANT_RUN=\0", None);
        check("", None);
    }

    #[test]
    fn only_its_engine_reads_a_mark_and_marks_have_nothing_in_common() {
        let engines = [1, 2, u128::MAX];
        let runs = [(0, 1), (17, 1), (17, 2), (18, 1), (1 << 43, 0xf_ffff)];
        let mut halves = std::collections::BTreeSet::new();
        for engine in engines {
            for (id, attempt) in runs {
                let mark = Mark::new(engine, ExecutionId(id), attempt);
                for other in engines {
                    let want = (other == engine).then_some((ExecutionId(id), attempt));
                    assert_eq!(mark.of_engine(other), want, "{engine} {other} {id} {attempt}");
                }
                let text = mark.to_string();
                for half in [&text[..16], &text[16..], &mark.name(), &name_of_engine(engine)[..]] {
                    halves.insert(half.to_owned());
                }
            }
        }
        // Three for each mark, and one for each engine.
        assert_eq!(halves.len(), 3 * engines.len() * runs.len() + engines.len());
        assert_eq!(Mark(0).of_engine(1), None);
    }

    #[test]
    fn a_program_gets_the_mark_before_all_other_variables() {
        let check = |keys: &[&str], want: &[&str]| {
            let variables = keys.iter().map(|key| ((*key).into(), "".into())).collect();
            let keys: Vec<_> = in_order(&variables).map(|(key, _)| key.to_str()).collect();
            assert_eq!(keys, want.iter().map(|key| Some(*key)).collect::<Vec<_>>());
        };
        check(&["A", "Z", "ADJUTANT_RUN", "ADJUTANT"], &["ADJUTANT_RUN", "A", "ADJUTANT", "Z"]);
        check(&["Z", "A"], &["A", "Z"]);
        check(&[], &[]);
    }

    #[test]
    fn programs_are_found_in_the_scripts_own_path() {
        let check = |path: &str, program: &str, want: Option<&str>| {
            let variables = Variables::from([("PATH".into(), path.into())]);
            assert_eq!(find(Path::new(program), &variables).ok().as_deref(), want.map(Path::new));
        };
        check("/nowhere:/bin", "sh", Some("/bin/sh"));
        check("/nowhere", "sh", None);
        check("", "sh", None);
        check("/etc", "passwd", None);
        check("/", "bin", None);
        check("/bin", "/no/such/shell", Some("/no/such/shell"));
        check("/bin", "./shell", Some("./shell"));
    }
}

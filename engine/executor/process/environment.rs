//! The environment of scripts: built up from nothing, so that no secret of the host slips through.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::Access;
use rustix::io::Errno;
use uuid::Uuid;

use super::Task;

/// Where programs are if the host does not say.
const PATH_FALLBACK: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variable that marks what one start has started.
const RUN: &str = "ADJUTANT_RUN";

/// What tells the processes of one start from all others. Random, and kept nowhere but in memory: ids
/// are in the records, and of those there may be copies that run at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u128);

impl Mark {
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4().as_u128())
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

/// The variables that every script of an executor gets.
pub(super) struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// The host's user, as the system calls it.
    own_user: String,
}

impl Environment {
    /// What the host's environment says of its user; where it is silent, what `/etc/passwd` says.
    pub(super) fn of_host() -> Self {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let uid = rustix::process::getuid().as_raw();
        Self::new(|key| std::env::var_os(key), std::env::home_dir(), &passwd, uid)
    }

    fn new(
        host: impl Fn(&str) -> Option<OsString>,
        home: Option<PathBuf>,
        passwd: &str,
        uid: u32,
    ) -> Self {
        let account = Account::find(passwd, uid);
        let user = account.as_ref().map_or(uid.to_string(), |account| account.name.to_owned());
        let shell = account.map(|account| account.shell).filter(|shell| !shell.is_empty());
        let home = home.filter(|home| !home.as_os_str().is_empty());

        let mut variables = BTreeMap::new();
        let mut set = |key: &str, fallback: OsString| {
            let value = host(key).filter(|value| !value.is_empty()).unwrap_or(fallback);
            variables.insert(key.into(), value);
        };
        set("HOME", home.map_or("/".into(), PathBuf::into_os_string));
        set("USER", user.clone().into());
        set("LOGNAME", user.clone().into());
        set("SHELL", shell.unwrap_or("/bin/sh").into());
        set("PATH", PATH_FALLBACK.into());
        set("LANG", "C.UTF-8".into());
        Self { variables, own_user: user }
    }

    /// Whether a name is that of the host's user.
    pub(super) fn is_own_user(&self, name: &str) -> bool {
        self.own_user == name
    }

    pub(super) fn set(&mut self, key: OsString, value: OsString) {
        self.variables.insert(key, value);
    }

    /// Gives `command` these variables, what names and marks its run, and nothing else.
    pub(super) fn apply(&self, command: &mut Command, task: &Task, mark: Mark) {
        command
            .env_clear()
            .envs(&self.variables)
            .envs(task.variables())
            .env("ADJUTANT_INVOKE_ID", task.invoke_id().to_string())
            .env("ADJUTANT_COMMAND_ID", task.command_id().to_string())
            .env("ADJUTANT_INSTANCE_ID", task.instance_id.as_str())
            .env("ADJUTANT_EXECUTION_ID", task.execution_id.to_string())
            .env("ADJUTANT_ATTEMPT", task.attempt.to_string())
            .env(RUN, mark.to_string());
    }

    /// The path of `program`: itself if it is one, else where the script's own `PATH` has it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if no folder of `PATH` has such a program.
    pub(super) fn find(&self, program: &Path) -> io::Result<PathBuf> {
        if program.components().count() > 1 || program.is_absolute() {
            return Ok(program.to_owned());
        }
        let path = self.variables.get(OsStr::new("PATH")).map_or(OsStr::new(""), |path| path);
        std::env::split_paths(path)
            // A relative folder would depend on the working directory, which others may write to.
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(program))
            .find(|path| rustix::fs::access(path, Access::EXEC_OK).is_ok() && path.is_file())
            .ok_or_else(|| Errno::NOENT.into())
    }
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    shell: &'a str,
}

impl<'a> Account<'a> {
    fn find(passwd: &'a str, uid: u32) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let found = fields.nth(1)?.parse() == Ok(uid);
            found.then(|| Self { name, shell: fields.nth(3).unwrap_or_default() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nbroken\nann:x:1000:1000:,,,:/home/ann:\n";

    fn check(host: &[(&str, &str)], home: Option<&str>, uid: u32, want: [&str; 6]) {
        let host = |key: &str| host.iter().find(|(k, _)| *k == key).map(|(_, v)| v.into());
        let environment = Environment::new(host, home.map(PathBuf::from), PASSWD, uid);
        let got = ["HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG"]
            .map(|key| environment.variables[OsStr::new(key)].to_str().expect("plain text"));
        assert_eq!(got, want);
        assert_eq!(environment.variables.len(), 6);
    }

    #[test]
    fn what_the_host_does_not_say_is_looked_up() {
        let named = [("USER", "u"), ("LOGNAME", "l"), ("SHELL", "/s"), ("PATH", "/p"), ("X", "x")];
        check(&named, Some("/h"), 0, ["/h", "u", "l", "/s", "/p", "C.UTF-8"]);
        check(
            &[("LANG", "de_DE.UTF-8"), ("USER", "")],
            Some("/root"),
            0,
            ["/root", "root", "root", "/bin/bash", PATH_FALLBACK, "de_DE.UTF-8"],
        );
        check(&[], None, 1000, ["/", "ann", "ann", "/bin/sh", PATH_FALLBACK, "C.UTF-8"]);
        check(&[], Some(""), 7, ["/", "7", "7", "/bin/sh", PATH_FALLBACK, "C.UTF-8"]);
    }

    #[test]
    fn marks_are_read_from_environments() {
        let check = |environment: &str, want: Option<u128>| {
            assert_eq!(Mark::of(environment.as_bytes()), want.map(Mark), "{environment}");
        };
        let mark = Mark::random();
        check(&format!("A=b\0ADJUTANT_RUN={mark}\0C=d\0"), Some(mark.0));
        check(&format!("ADJUTANT_RUN={}\0", Mark(17)), Some(17));
        check(&format!("XADJUTANT_RUN={mark}\0"), None);
        check(&format!("ADJUTANT_RUNS={mark}\0"), None);
        check(&format!("ADJUTANT_RUN={mark}0\0"), None);
        check("ADJUTANT_RUN=\0", None);
        check("", None);
    }

    #[test]
    fn programs_are_found_in_the_scripts_own_path() {
        let check = |path: &str, program: &str, want: Option<&str>| {
            let mut environment =
                Environment { variables: BTreeMap::new(), own_user: String::new() };
            environment.set("PATH".into(), path.into());
            assert_eq!(environment.find(Path::new(program)).ok().as_deref(), want.map(Path::new));
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

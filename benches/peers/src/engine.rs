//! The engines, how their programs are built, and one run of one of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::protocol::{Report, Setting};

/// Where the programs of the engines are written down.
const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// One way to run the jobs through an engine.
pub struct Case {
    /// The engine, which is also the folder of its program.
    pub engine: &'static str,
    /// The package whose version counts.
    pub package: &'static str,
    /// What its program calls this way.
    pub name: &'static str,
    /// It gets one of so many jobs: a slow engine, or one that slows with what waits, gets fewer.
    pub one_of: usize,
}

pub const CASES: [Case; 7] = [
    Case { engine: "adjutant", package: "adjutant", name: "fleets of 100", one_of: 1 },
    Case { engine: "adjutant", package: "adjutant", name: "one instance", one_of: 1 },
    Case { engine: "honker", package: "honker", name: "bare loop", one_of: 1 },
    Case { engine: "effectum", package: "effectum", name: "one worker", one_of: 1 },
    Case { engine: "apalis", package: "apalis-sqlite", name: "one worker", one_of: 50 },
    Case { engine: "fang", package: "fang", name: "1 worker", one_of: 500 },
    Case { engine: "fang", package: "fang", name: "8 workers", one_of: 500 },
];

impl Case {
    /// The version in the lock file with which its program is built.
    pub fn version(&self) -> Option<String> {
        let own = Path::new(FOLDER).join(self.engine).join("Cargo.lock");
        let lock = fs::read_to_string(own)
            .or_else(|_| fs::read_to_string(Path::new(FOLDER).join("Cargo.lock")))
            .ok()?;
        let (_, package) =
            lock.split_once(&format!("name = \"{}\"\nversion = \"", self.package))?;
        package.split('"').next().map(str::to_owned)
    }

    /// Builds the program for the release profile, into the folder of `target`.
    pub fn build(&self, target: &Path) -> Result<(), String> {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--package"])
            .arg(self.program())
            .arg("--manifest-path")
            .arg(Path::new(FOLDER).join(self.engine).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target)
            .status()
            .map_err(|error| format!("cargo: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("{} cannot be built", self.program())) }
    }

    /// Runs the jobs on a new file.
    pub fn run(&self, target: &Path, setting: Setting, jobs: usize) -> Result<Report, String> {
        let folder = tempfile::tempdir_in(".").map_err(|error| format!("a folder: {error}"))?;
        let output = Command::new(target.join("release").join(self.program()))
            .args([setting.name(), self.name, &jobs.to_string()])
            .arg(folder.path().join("jobs.db"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{}: {error}", self.program()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.trim_end().lines().last().unwrap_or("it said nothing");
            return Err(format!("{}: {last}", output.status));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("its report: {error}"))
    }

    fn program(&self) -> String {
        format!("peer-{}", self.engine)
    }
}

/// The folder that cargo built this program into, in which the others' dependencies may lie already.
pub fn target() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = program.ancestors().nth(2).ok_or("this program lies in no target folder")?;
    Ok(target.to_owned())
}

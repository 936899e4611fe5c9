//! Makes calls on files fail in a program that a test starts. The test compiles a library in C and loads it into the
//! program. The rules may change while the program runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// The compiled library and its rules.
pub struct Faults {
    folder: TempDir,
}

impl Faults {
    /// Compiles the library. No call fails before the first [`set`](Faults::set).
    pub fn new() -> Self {
        let faults = Self { folder: tempfile::tempdir().expect("a folder") };
        let source = faults.at("faults.c");
        fs::write(&source, include_str!("faults.c")).expect("written");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
            .arg(faults.at("faults.so"))
            .arg(&source)
            .arg("-ldl")
            .output()
            .expect("a C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        faults
    }

    /// Makes a program start with the library.
    pub fn load_into(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.at("faults.so")).env("FAULTS", self.at("rules"));
    }

    /// Replaces all rules, each `CALL SUFFIX SKIP COUNT ACTION`; see `faults.c`.
    pub fn set(&self, rules: &[&str]) {
        let fresh = self.at("rules.new");
        fs::write(&fresh, rules.join("\n") + "\n").expect("written");
        fs::rename(fresh, self.at("rules")).expect("in place");
    }

    /// Returns the calls that the rules have taken so far, each `CALL PATH`.
    pub fn hits(&self) -> Vec<String> {
        let hits = fs::read_to_string(self.at("rules.hits")).unwrap_or_default();
        hits.lines().map(str::to_owned).collect()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

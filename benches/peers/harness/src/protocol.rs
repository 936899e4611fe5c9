//! What the driver asks the program of an engine for, and what that answers.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How the engine is to be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    /// What serves the engine best, of what it documents.
    Best,
    /// A write-ahead log and `synchronous=FULL`: every acknowledged write is on disk.
    Equal,
}

impl Setting {
    pub const ALL: [Self; 2] = [Self::Best, Self::Equal];

    pub fn name(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Equal => "equal",
        }
    }
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|setting| setting.name() == name);
        named.ok_or_else(|| format!("no setting is called {name}"))
    }
}

/// What came of one run: a line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// From the first job asked for to the last that is stored.
    pub stored_seconds: f64,
    /// From the start of the workers to the last end that is recorded; from the first job asked for, if
    /// the engine runs jobs while others are being stored.
    pub executed_seconds: f64,
    /// Whether `executed_seconds` has the storing in it.
    pub end_to_end: bool,
    /// Jobs that ran more than once.
    pub ran_twice: usize,
    /// `PRAGMA journal_mode` of the file after the run.
    pub journal_mode: String,
    /// `PRAGMA synchronous` of the engine's own connections, read as each was closed, with the rows that
    /// were written through connections that had it.
    pub synchronous: Vec<(String, u64)>,
}

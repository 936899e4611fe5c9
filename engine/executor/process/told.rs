//! What one process tells another of how a run has ended.

use serde::{Deserialize, Serialize};

use crate::execution::{Outcome, Report};
use crate::output::{Output, Runs};
use crate::wire;

/// An [`Outcome`] that can be written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Told {
    Exited(i32),
    Signaled(i32),
    Stopped { signal: Option<i32>, exit_code: Option<i32>, info: String },
    Unsuitable { code: String, info: String },
    Broke { info: String },
}

/// Codes of tasks that do not suit.
const CODES: [&str; 4] =
    ["AccountNotExists", "CommandNotApplicable", "DirectoryNotExists", "LauncherNotFound"];

impl From<Outcome> for Told {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Exited(code) => Self::Exited(code),
            Outcome::Signaled(signal) => Self::Signaled(signal),
            Outcome::Stopped { signal, exit_code, info } => {
                Self::Stopped { signal, exit_code, info }
            }
            Outcome::Unsuitable { code, info } | Outcome::Undeliverable { code, info } => {
                Self::Unsuitable { code: code.to_owned(), info }
            }
            Outcome::Broke { info } => Self::Broke { info },
        }
    }
}

impl From<Told> for Outcome {
    fn from(told: Told) -> Self {
        match told {
            Told::Exited(code) => Self::Exited(code),
            Told::Signaled(signal) => Self::Signaled(signal),
            Told::Stopped { signal, exit_code, info } => Self::Stopped { signal, exit_code, info },
            Told::Unsuitable { code, info } => {
                match CODES.into_iter().find(|known| *known == code) {
                    Some(code) => Self::Unsuitable { code, info },
                    None => Self::Broke { info },
                }
            }
            Told::Broke { info } => Self::Broke { info },
        }
    }
}

/// What is on disk of a run that survives its host.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// None until it has ended.
    pub end: Option<End>,
    /// What it has printed, within the quota.
    output: Kept,
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    pub told: Told,
    pub report: Report,
}

/// An [`Output`] that can be written down.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    bytes: String,
    runs: Vec<u8>,
    gap: Option<(u64, u64)>,
}

impl Record {
    pub(super) fn new(output: &Output, end: Option<End>) -> Self {
        let gap = output.gap_at().map(|at| (at, output.dropped()));
        let bytes = wire::to_base64(output.as_bytes());
        Self { end, output: Kept { bytes, runs: output.runs().to_bytes(), gap } }
    }

    /// What was printed; nothing, if it was not written down well.
    pub(super) fn output(&self) -> Output {
        let bytes = wire::from_base64(&self.output.bytes).unwrap_or_default();
        let runs = Runs::from_bytes(&self.output.runs).unwrap_or_default();
        Output::from_parts(bytes, runs, self.output.gap).unwrap_or_default()
    }
}

//! What the processes of a run may use.

use serde::{Deserialize, Serialize};

use crate::error::Violation;
use crate::wire::lenient;

/// What the processes of a run may use; no limit where none is given.
///
/// # Ten seconds of a processor, and a quarter of a gigabyte
///
/// ```
/// use adjutant::{ResourceLimits, RunCommand};
///
/// let limits = ResourceLimits::default().cpu_seconds(10).memory_bytes(256 << 20);
/// let request = RunCommand::shell("make").on(["local"]).resource_limits(limits);
/// assert_eq!(request.resource_limits.cpu_seconds, Some(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ResourceLimits {
    /// Seconds of processor time that each process may use. At least 1.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<u64>,
    /// Bytes of address space that each process may have. At least 1 MiB.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub address_space_bytes: Option<u64>,
    /// Files that each process may have open at a time. At least 16.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub open_files: Option<u64>,
    /// Processes that there may be at a time. At least 1.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Bytes that each file may grow to. At least 4,096.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub file_size_bytes: Option<u64>,
    /// Bytes of memory that all processes may have together. At least 1 MiB.
    #[serde(deserialize_with = "lenient::optional", skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Whether no process of the run can gain rights (`no_new_privs`): `sudo` and other programs with a set-user-ID bit
    /// or file capabilities then run with the rights of the run.
    #[serde(deserialize_with = "lenient::value", skip_serializing_if = "std::ops::Not::not")]
    pub no_new_privileges: bool,
}

const MIB: u64 = 1 << 20;

impl ResourceLimits {
    /// Limits the seconds of processor time of each process.
    #[must_use]
    pub fn cpu_seconds(mut self, seconds: u64) -> Self {
        self.cpu_seconds = Some(seconds);
        self
    }

    /// Limits the bytes of address space of each process.
    #[must_use]
    pub fn address_space_bytes(mut self, bytes: u64) -> Self {
        self.address_space_bytes = Some(bytes);
        self
    }

    /// Limits the files that each process may have open.
    #[must_use]
    pub fn open_files(mut self, files: u64) -> Self {
        self.open_files = Some(files);
        self
    }

    /// Limits the number of processes.
    #[must_use]
    pub fn processes(mut self, processes: u64) -> Self {
        self.processes = Some(processes);
        self
    }

    /// Limits the bytes that each file may grow to.
    #[must_use]
    pub fn file_size_bytes(mut self, bytes: u64) -> Self {
        self.file_size_bytes = Some(bytes);
        self
    }

    /// Limits the bytes of memory of all processes together.
    #[must_use]
    pub fn memory_bytes(mut self, bytes: u64) -> Self {
        self.memory_bytes = Some(bytes);
        self
    }

    /// Lets no process of the run gain rights, as with `sudo`.
    #[must_use]
    pub fn no_new_privileges(mut self) -> Self {
        self.no_new_privileges = true;
        self
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn check(&self, found: &mut Vec<Violation>) {
        let all = [
            ("CpuSeconds", self.cpu_seconds, 1),
            ("AddressSpaceBytes", self.address_space_bytes, MIB),
            ("OpenFiles", self.open_files, 16),
            ("Processes", self.processes, 1),
            ("FileSizeBytes", self.file_size_bytes, 4_096),
            ("MemoryBytes", self.memory_bytes, MIB),
        ];
        for (name, given, least) in all {
            if let Some(given) = given.filter(|given| *given < least) {
                found.push(Violation::new(
                    "InvalidParameter.ResourceLimits",
                    400,
                    "ResourceLimits",
                    format!("want {name} to be at least {least}; it is {given}"),
                ));
            }
        }
    }
}

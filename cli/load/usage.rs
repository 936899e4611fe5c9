//! What this process, and those that it has waited for, have used of the machine.

use std::fs;
use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::failure::Failure;

/// What has been used so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Time on processors, in the kernel included.
    pub cpu: Duration,
    /// The most memory that this process has held since it began.
    pub peak_rss_bytes: u64,
}

impl Usage {
    pub(super) fn now() -> Result<Self, Failure> {
        Self::read().map_err(|error| Failure::system("read what this process uses", &error))
    }

    /// What has been used since then; the memory is the most of all times.
    pub(super) fn since(&self, before: &Self) -> Self {
        Self { cpu: self.cpu.saturating_sub(before.cpu), ..*self }
    }

    fn read() -> io::Result<Self> {
        let missing = || io::Error::from(ErrorKind::InvalidData);
        let stat = fs::read_to_string("/proc/self/stat")?;
        let status = fs::read_to_string("/proc/self/status")?;
        Ok(Self {
            cpu: cpu(&stat, rustix::param::clock_ticks_per_second()).ok_or_else(missing)?,
            peak_rss_bytes: peak_rss_bytes(&status).ok_or_else(missing)?,
        })
    }
}

/// User and system time of the process and of its children, columns 14 to 17.
fn cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    // The second column is a name in parentheses that may hold anything.
    let (_, columns) = stat.rsplit_once(')')?;
    let times: Vec<u64> = columns
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    let ticks: u64 = (times.len() == 4).then(|| times.iter().sum())?;
    Some(Duration::from_millis(ticks.saturating_mul(1_000) / ticks_per_second.max(1)))
}

fn peak_rss_bytes(status: &str) -> Option<u64> {
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let check = |stat: &str, want: Option<u64>| {
            assert_eq!(cpu(stat, 100), want.map(Duration::from_millis), "{stat}");
        };
        check("1 (a) R 1 1 1 0 -1 4 5 6 7 8 12 3 20 5 20 0 3 0", Some(400));
        check("1 (a) 9 (b) ) S 1 1 1 0 -1 4 5 6 7 8 1 0 0 0 20 0", Some(10));
        check("1 (a) R 1 1 1", None);
        check("", None);
    }

    #[test]
    fn the_peak_is_in_bytes() {
        assert_eq!(
            peak_rss_bytes("VmPeak:\t 9 kB\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(peak_rss_bytes("VmRSS:\t 1 kB\n"), None);
    }
}

//! What a load came to, for programs and for people.

use std::fmt;
use std::time::Duration;

use adjutant::Histogram;
use serde::{Serialize, Serializer};

use super::Work;
use crate::render;

/// What a load came to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub invocations: u64,
    /// Of each invocation.
    pub instances: u64,
    pub executions: u64,
    pub executor: Work,
    pub concurrency: usize,
    pub submitters: usize,
    /// Executions that did not succeed.
    pub failed: u64,
    /// From the first request to the last finished record.
    pub seconds: f64,
    pub executions_per_second: f64,
    /// Until the last durable id.
    pub invocations_per_second: f64,
    /// From a request to its durable id.
    pub submit_ms: Latencies,
    /// From there to the claim of its executions.
    pub queue_ms: Latencies,
    /// From a request to the last finished record of its executions.
    pub end_to_end_ms: Sampled,
    pub commits: u64,
    pub writes_per_commit: f64,
    pub database_bytes_per_execution: f64,
    pub peak_rss_bytes: u64,
    /// Of this process, and of those that it ran.
    pub cpu_seconds: f64,
}

/// How long something took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latencies {
    p50: f64,
    p99: f64,
    max: f64,
}

/// The same of some that stand for all.
#[derive(Debug, Serialize)]
pub(crate) struct Sampled {
    #[serde(flatten)]
    latencies: Latencies,
    samples: usize,
}

impl Latencies {
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
        };
        Self { p50: at(50), p99: at(99), max: at(100) }
    }

    pub(super) fn of_histogram(times_us: &Histogram) -> Self {
        let ms = |us: u64| us as f64 / 1_000.0;
        Self {
            p50: ms(times_us.quantile(0.5)),
            p99: ms(times_us.quantile(0.99)),
            max: ms(times_us.max),
        }
    }
}

impl Sampled {
    pub(super) fn of(times: Vec<Duration>) -> Self {
        Self { samples: times.len(), latencies: Latencies::of(times) }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noop => f.write_str("noop"),
            Self::Sleep(time) => write!(f, "sleep:{}", time.as_millis()),
            Self::Sh => f.write_str("sh"),
        }
    }
}

impl Serialize for Work {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Report {
    pub(crate) fn for_people(&self) -> String {
        let times = |name: &str, times: &Latencies, note: &str| {
            let Latencies { p50, p99, max } = times;
            format!("{name:<12}{p50:>12.2}{p99:>12.2}{max:>12.2}{note}\n")
        };
        let Self { invocations, instances, executor, concurrency, submitters, .. } = self;
        let samples = self.end_to_end_ms.samples as u64;
        let of = if samples < self.invocations { format!("  of {samples}") } else { String::new() };
        let mut text = format!(
            "{invocations} invocations on {instances} instances, {executor}, {concurrency} at a time, \
             {submitters} submitters: {:.2} s\n\n\
             executions/s  {:.0}\ninvocations/s {:.0}\n\n\
             {:<12}{:>12}{:>12}{:>12}\n",
            self.seconds,
            self.executions_per_second,
            self.invocations_per_second,
            "MS",
            "P50",
            "P99",
            "MAX",
        );
        text += &times("submit", &self.submit_ms, "");
        text += &times("queue", &self.queue_ms, "");
        text += &times("end to end", &self.end_to_end_ms.latencies, &of);
        text += &format!(
            "\ncommits       {}, {:.1} writes each\n\
             database      {:.0} bytes per execution\n\
             memory        {} at most\n\
             CPU time      {:.2} s\n",
            self.commits,
            self.writes_per_commit,
            self.database_bytes_per_execution,
            render::size(self.peak_rss_bytes),
            self.cpu_seconds,
        );
        if self.failed > 0 {
            text += &format!("failed        {} of {}\n", self.failed, self.executions);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_those_of_the_ranks() {
        let check = |ms: &[u64], want: [f64; 3]| {
            let times = ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
            let [p50, p99, max] = want;
            assert_eq!(Latencies::of(times), Latencies { p50, p99, max }, "{ms:?}");
        };
        let hundred: Vec<u64> = (1..=100).rev().collect();
        check(&[], [0.0, 0.0, 0.0]);
        check(&[7], [7.0, 7.0, 7.0]);
        check(&[3, 1, 2], [2.0, 3.0, 3.0]);
        check(&hundred, [50.0, 99.0, 100.0]);
    }
}

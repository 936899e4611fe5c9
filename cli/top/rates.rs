//! How much happens in a second, over the last few.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::control::Figures;

/// What the rates are of.
const SPAN: Duration = Duration::from_secs(5);

/// What happens in a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    pub starts: f64,
    pub ends: f64,
    pub failures: f64,
}

/// Remembers what was counted.
#[derive(Debug, Default)]
pub(super) struct Meter(VecDeque<(Instant, Figures)>);

impl Meter {
    /// Takes note of what has been counted; the rates, once there are two counts of one process.
    pub(super) fn read(&mut self, now: Instant, figures: Option<Figures>) -> Option<Rates> {
        let Some(figures) = figures else {
            self.0.clear();
            return None;
        };
        // Another process counts from its own beginning.
        if self
            .0
            .back()
            .is_some_and(|(_, last)| last.started > figures.started || last.ended > figures.ended)
        {
            self.0.clear();
        }
        self.0.push_back((now, figures));
        while self.0.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= SPAN) {
            self.0.pop_front();
        }
        let (at, first) = self.0.front()?;
        let seconds = now.duration_since(*at).as_secs_f64();
        let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
        (seconds > 0.0).then(|| Rates {
            starts: rate(first.started, figures.started),
            ends: rate(first.ended, figures.ended),
            failures: rate(first.failed, figures.failed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_seconds_of_one_process() {
        let (start, mut meter) = (Instant::now(), Meter::default());
        let mut check = |ms, counted: Option<[u64; 3]>, want: Option<[f64; 3]>| {
            let figures = counted.map(|[started, ended, failed]| Figures {
                running: 0,
                waiting: 0,
                started,
                ended,
                failed,
            });
            let rates = meter.read(start + Duration::from_millis(ms), figures);
            let want = want.map(|[starts, ends, failures]| Rates { starts, ends, failures });
            assert_eq!(rates, want, "after {ms} ms");
        };
        check(0, None, None);
        check(0, Some([10, 5, 1]), None);
        check(500, Some([20, 5, 2]), Some([20.0, 0.0, 2.0]));
        check(5_000, Some([60, 55, 2]), Some([10.0, 10.0, 0.2]));
        check(5_500, Some([70, 55, 2]), Some([10.0, 10.0, 0.0]));
        check(6_000, None, None);
        check(6_500, Some([80, 60, 2]), None);
        check(7_500, Some([3, 1, 0]), None);
        check(8_500, Some([4, 1, 0]), Some([1.0, 0.0, 0.0]));
    }
}

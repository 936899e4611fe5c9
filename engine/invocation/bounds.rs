//! What the rate control of an invocation comes to for one of its fires.

use super::rate_control::RateControl;

/// The bounds of a fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub priority: u8,
    /// How many executions of its invocation run at a time.
    pub concurrency_max: Option<u64>,
    /// Whose bound it shares with others.
    pub concurrency_key: Option<String>,
    /// If more than these end without success, the rest is cancelled.
    pub errors_max: Option<u64>,
    /// How many executions the first wave has, if there is more than one.
    pub first_wave: Option<u64>,
    /// Until when an execution may start.
    pub start_by_ms: Option<i64>,
    /// Until when all have to end.
    pub end_by_ms: Option<i64>,
}

impl RateControl {
    /// The bounds of a fire that was due at this time on so many targets.
    pub(crate) fn bounds(&self, targets: u64, due_ms: i64) -> Bounds {
        let after = |seconds: u64| {
            let ms = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
            due_ms.saturating_add(ms)
        };
        Bounds {
            priority: self.priority,
            concurrency_max: self.max_concurrency.map(|share| share.of(targets).max(1)),
            concurrency_key: self.concurrency_key.clone(),
            errors_max: self.max_errors.map(|share| share.of(targets)),
            first_wave: self.next_wave(0, targets).filter(|first| *first < targets),
            start_by_ms: self.start_deadline.map(after),
            end_by_ms: self.deadline.map(after),
        }
    }

    /// How many of so many targets have been let loose with the wave after that with which `opened`
    /// have; none if those are all.
    pub(crate) fn next_wave(&self, opened: u64, targets: u64) -> Option<u64> {
        let ends = self.waves.iter().map(|wave| wave.of(targets).clamp(targets.min(1), targets));
        // The one after the last has the rest; one that comes to no more than those before has nothing.
        ends.chain([targets]).find(|end| *end > opened)
    }
}

#[cfg(test)]
mod tests {
    use super::super::rate_control::Share;
    use super::*;

    #[test]
    fn waves_end_with_all_targets() {
        let check = |waves: &[&str], targets, want: &[u64]| {
            let parse = |text: &&str| text.parse::<Share>().expect("a share");
            let waves = waves.iter().map(parse).collect();
            let control = RateControl { waves, ..RateControl::default() };
            let next = |opened: &u64| control.next_wave(*opened, targets);
            let ends: Vec<_> = std::iter::successors(next(&0), next).collect();
            assert_eq!(ends, want, "{:?} of {targets}", control.waves);
        };
        check(&["1", "10%", "100%"], 1_000, &[1, 100, 1_000]);
        check(&["1", "10%"], 1_000, &[1, 100, 1_000]);
        check(&["1", "10%", "100%"], 5, &[1, 5]);
        check(&["10%", "10%"], 5, &[1, 5]);
        check(&["5", "10%"], 20, &[5, 20]);
        check(&["7"], 3, &[3]);
        check(&[], 3, &[3]);
        check(&["1"], 0, &[]);
    }

    #[test]
    fn bounds_follow_from_the_targets() {
        let control = RateControl {
            max_concurrency: Some(Share::percent(10)),
            max_errors: Some(Share::percent(10)),
            start_deadline: Some(2),
            deadline: Some(u64::MAX),
            ..RateControl::default()
        };
        let check = |targets, concurrency, errors| {
            let bounds = control.bounds(targets, 1_000);
            assert_eq!(bounds.concurrency_max, Some(concurrency), "of {targets}");
            assert_eq!(bounds.errors_max, Some(errors), "of {targets}");
            assert_eq!((bounds.start_by_ms, bounds.end_by_ms), (Some(3_000), Some(i64::MAX)));
        };
        check(1_000, 100, 100);
        check(19, 1, 1);
        check(9, 1, 0);
    }
}

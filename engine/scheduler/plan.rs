//! What becomes of the nominal times of a timer that have passed: pure.

use std::collections::VecDeque;

use crate::schedule::Timetable;
use crate::store::fires::Stretch;
use crate::store::timers::{self, Timer};

/// How late a nominal time may be noticed and still count as met: twice the scheduler's longest sleep.
pub(super) const LATE_MS_MAX: i64 = 60_000;

/// How much a step may take on, over all its timers: then the next step goes on, and others write
/// in between.
#[derive(Debug)]
pub(super) struct Budget {
    /// Nominal times to count.
    pub times: u64,
    /// Fires to store.
    pub fires: usize,
    /// Executions of these fires, and executions that they stop; the last fire may exceed the budget.
    pub executions: usize,
}

impl Budget {
    pub(super) fn is_spent(&self) -> bool {
        self.times == 0 || self.fires == 0 || self.executions == 0
    }

    /// Takes executions off the budget.
    pub(super) fn spend(&mut self, executions: usize) {
        self.executions = self.executions.saturating_sub(executions);
    }
}

/// What to do about a timer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Times that have passed and are not run, before the times that run: one stretch for each gap between
    /// times that have records already.
    pub passed: Vec<Stretch>,
    pub runs: Vec<i64>,
    /// The first time that this plan does not cover; `None` if the schedule has finished.
    pub next_ms: Option<i64>,
}

impl Plan {
    /// Returns the plan for a timer that is due. The last of the passed times runs if it is not too late for that. Of
    /// the others, as many run as the policy says, each on `targets` targets, the oldest first, as far as the budget
    /// goes. Times in the stretches of `dealt`, which are in order, have records already and are
    /// left out.
    pub(super) fn for_due(
        timer: &Timer,
        dealt: &[Stretch],
        targets: usize,
        now_ms: i64,
        budget: &mut Budget,
    ) -> Self {
        let Some(times) = Times::of(timer, dealt) else { return Self::NOTHING };
        let until_ms = now_ms.saturating_sub(timer.delay_ms);
        let runs_max = timer.missed.runs_max();
        let mut runs = times.last_until(until_ms, runs_max.max(1));
        let last_is_met = runs.back().is_some_and(|last| until_ms - last <= LATE_MS_MAX);
        if runs_max == 0 && !last_is_met {
            runs.clear();
        }
        let runs_from_ms = runs.front().copied().unwrap_or(i64::MAX);
        let (passed, mut next_ms) = times.count(until_ms.min(runs_from_ms - 1), budget);
        let mut met = Vec::new();
        while let Some(at_ms) = next_ms.filter(|at_ms| *at_ms >= runs_from_ms && *at_ms <= until_ms)
            && budget.fires > 0
            && budget.executions > 0
        {
            budget.fires -= 1;
            budget.spend(targets);
            met.push(at_ms);
            next_ms = times.after(at_ms);
        }
        Self { passed, runs: met, next_ms }
    }

    /// None of the times until then runs.
    pub(super) fn passing_over(
        timer: &Timer,
        dealt: &[Stretch],
        until_ms: i64,
        budget: &mut Budget,
    ) -> Self {
        let Some(times) = Times::of(timer, dealt) else { return Self::NOTHING };
        let (passed, next_ms) = times.count(until_ms, budget);
        Self { passed, runs: Vec::new(), next_ms }
    }

    const NOTHING: Self = Self { passed: Vec::new(), runs: Vec::new(), next_ms: None };
}

/// Parts a stretch of times into the times up to `until_ms`, `times_max` of them at most, and the others. The first
/// time of the stretch is not after `until_ms`, the last time is.
pub(super) fn part(
    timer: &Timer,
    stretch: Stretch,
    until_ms: i64,
    times_max: u64,
) -> (Stretch, Stretch) {
    let after = |at_ms| {
        // Computed with the zone data of today, which may know other times than were counted.
        let next_ms = timer.first_after(at_ms, &[]).unwrap_or(stretch.until_ms);
        next_ms.min(stretch.until_ms)
    };
    let mut first = Stretch { until_ms: stretch.from_ms, count: 1, ..stretch };
    let mut next_ms = after(first.until_ms);
    while next_ms <= until_ms && first.count + 1 < stretch.count && first.count < times_max {
        first.until_ms = next_ms;
        first.count += 1;
        next_ms = after(next_ms);
    }
    if next_ms <= until_ms && first.count < times_max {
        // Only the last time is left, which is after `until_ms`.
        next_ms = stretch.until_ms;
    }
    let count = stretch.count.saturating_sub(first.count).max(1);
    (first, Stretch { from_ms: next_ms, until_ms: stretch.until_ms, count })
}

/// The nominal times of a timer from its next one on that have no record yet.
struct Times<'a> {
    timetable: Timetable<'a>,
    dealt: &'a [Stretch],
    first_ms: i64,
    end_ms: i64,
}

impl<'a> Times<'a> {
    fn of(timer: &'a Timer, dealt: &'a [Stretch]) -> Option<Self> {
        Some(Self {
            timetable: timer.schedule.bind(timer.created, timer.zone),
            dealt,
            first_ms: timer.next_fire_at_ms?,
            end_ms: timer.end_at_ms.unwrap_or(i64::MAX),
        })
    }

    /// The first time after `after_ms`.
    fn after(&self, after_ms: i64) -> Option<i64> {
        timers::first_after(&self.timetable, self.end_ms, after_ms, self.dealt)
    }

    /// Returns whether a time between these two has a record already.
    fn any_dealt_between(&self, from_ms: i64, until_ms: i64) -> bool {
        let later = self.dealt.partition_point(|stretch| stretch.from_ms <= from_ms);
        self.dealt.get(later).is_some_and(|stretch| stretch.from_ms < until_ms)
    }

    /// The last `max` times that are not after `until_ms`. Looks back from there, further and
    /// further, so that a long sleep costs what it yields.
    fn last_until(&self, until_ms: i64, max: usize) -> VecDeque<i64> {
        let mut window_ms = LATE_MS_MAX;
        loop {
            let from_ms = until_ms.saturating_sub(window_ms).max(self.first_ms - 1);
            let mut last = VecDeque::new();
            let mut next_ms = self.after(from_ms);
            // The first is a time even if the rules that made it have changed since.
            if from_ms < self.first_ms {
                next_ms = Some(self.first_ms).filter(|first_ms| *first_ms <= self.end_ms);
            }
            while let Some(at_ms) = next_ms.filter(|at_ms| *at_ms <= until_ms) {
                last.push_back(at_ms);
                if last.len() > max {
                    last.pop_front();
                }
                next_ms = self.after(at_ms);
            }
            if last.len() >= max || from_ms < self.first_ms {
                return last;
            }
            window_ms = window_ms.saturating_mul(4);
        }
    }

    /// Counts the times that are not after `until_ms`, as far as the budget goes; and the one after them.
    fn count(&self, until_ms: i64, budget: &mut Budget) -> (Vec<Stretch>, Option<i64>) {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut next_ms = Some(self.first_ms).filter(|first_ms| *first_ms <= self.end_ms);
        while let Some(at_ms) = next_ms.filter(|at_ms| *at_ms <= until_ms)
            && budget.times > 0
        {
            budget.times -= 1;
            match stretches.last_mut() {
                Some(last) if !self.any_dealt_between(last.until_ms, at_ms) => {
                    last.until_ms = at_ms;
                    last.count += 1;
                }
                _ => stretches.push(Stretch { from_ms: at_ms, until_ms: at_ms, count: 1 }),
            }
            next_ms = self.after(at_ms);
        }
        (stretches, next_ms)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::id::InvokeId;
    use crate::invocation::recurrence::{MissedPolicy, OverlapPolicy};
    use crate::schedule::Zone;

    const MINUTE: i64 = 60_000;

    /// A timer made at 0 that has fired until `next_ms`.
    fn timer(schedule: &str, next_ms: i64, missed: MissedPolicy) -> Timer {
        Timer {
            id: 1,
            invocation: 1,
            invoke_id: InvokeId::from_bytes([0; 16]),
            next_fire_at_ms: Some(next_ms),
            delay_ms: 0,
            fires_left: None,
            zone: Zone::UTC,
            schedule: schedule.parse().expect("a schedule"),
            created: DateTime::UNIX_EPOCH,
            overlap: OverlapPolicy::Skip,
            missed,
            end_at_ms: None,
            catching_up: false,
            fired_until_ms: None,
        }
    }

    fn count(plan: &Plan) -> u64 {
        plan.passed.iter().map(|stretch| stretch.count).sum()
    }

    fn whole(timer: &Timer, now_ms: i64) -> Plan {
        let (fires, executions) = (usize::MAX, usize::MAX);
        Plan::for_due(timer, &[], 1, now_ms, &mut Budget { times: u64::MAX, fires, executions })
    }

    #[test]
    fn what_passed_is_met_run_or_missed() {
        let check = |missed, now_ms, passed: u64, runs: &[i64], next_ms| {
            let plan = whole(&timer("rate(60s)", MINUTE, missed), now_ms);
            let minutes: Vec<_> = plan.runs.iter().map(|at_ms| at_ms / MINUTE).collect();
            let told = (count(&plan), minutes.as_slice(), plan.next_ms);
            assert_eq!(told, (passed, runs, Some(next_ms * MINUTE)), "{missed:?} {now_ms}");
        };
        use MissedPolicy::{All, Latest, Skip};
        for policy in [Skip, Latest, All(1)] {
            check(policy, MINUTE, 0, &[1], 2);
            check(policy, 2 * MINUTE - 1, 0, &[1], 2);
            check(policy, 10 * MINUTE + 5, 9, &[10], 11);
        }
        check(All(3), 10 * MINUTE, 7, &[8, 9, 10], 11);
        check(All(30), 10 * MINUTE, 0, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 11);
    }

    #[test]
    fn what_is_too_late_is_met_by_no_run_unless_the_policy_says_so() {
        let hourly = "0 0 * * * ?";
        let late = 60 * MINUTE + LATE_MS_MAX;
        let runs = |missed, now_ms| whole(&timer(hourly, 60 * MINUTE, missed), now_ms).runs.len();
        assert_eq!(runs(MissedPolicy::Skip, late), 1);
        assert_eq!(runs(MissedPolicy::Skip, late + 1), 0);
        assert_eq!(runs(MissedPolicy::Latest, late + 1), 1);
    }

    #[test]
    fn steps_within_a_budget_come_to_what_one_without_does() {
        let check = |schedule, missed, now_ms, (times, fires, executions)| {
            let whole = whole(&timer(schedule, 10 * MINUTE, missed), now_ms);
            let mut left = timer(schedule, 10 * MINUTE, missed);
            let (mut passed, mut runs, mut steps) = (0, Vec::new(), 0);
            while left.is_due(now_ms) {
                let mut budget = Budget { times, fires, executions };
                let plan = Plan::for_due(&left, &[], 10, now_ms, &mut budget);
                assert!(plan.runs.len() * 10 < executions + 10, "{} fires", plan.runs.len());
                passed += count(&plan);
                runs.extend(plan.runs);
                left.next_fire_at_ms = plan.next_ms;
                steps += 1;
                assert!(steps < 10_000, "it goes on");
            }
            assert_eq!(passed, count(&whole), "{missed:?}");
            assert_eq!((runs, left.next_fire_at_ms), (whole.runs, whole.next_ms), "{missed:?}");
        };
        let week = 7 * 24 * 60 * MINUTE;
        for missed in [MissedPolicy::Skip, MissedPolicy::Latest, MissedPolicy::All(100)] {
            for schedule in ["rate(7m)", "0 */10 * * * ?", "0 0 9 ? * MON-FRI"] {
                for budget in [(1, 1, 1), (7, 3, 25), (100, 1_000, 10_000), (100, 1_000, 15)] {
                    check(schedule, missed, week + 12_345, budget);
                }
            }
        }
    }

    #[test]
    fn a_time_that_has_fired_already_is_neither_run_nor_missed_again() {
        let check =
            |missed, dealt: &[(i64, i64)], passed: &[(i64, i64, u64)], runs: &[i64], next: i64| {
                let timer = timer("rate(60s)", MINUTE, missed);
                let stretch = |&(from, until): &(i64, i64)| Stretch {
                    from_ms: from * MINUTE,
                    until_ms: until * MINUTE,
                    count: until.abs_diff(from) + 1,
                };
                let dealt: Vec<_> = dealt.iter().map(stretch).collect();
                let (fires, executions) = (usize::MAX, usize::MAX);
                let mut budget = Budget { times: u64::MAX, fires, executions };
                let plan = Plan::for_due(&timer, &dealt, 1, 10 * MINUTE, &mut budget);
                let stretches = passed.iter().map(|&(from, until, count)| Stretch {
                    from_ms: from * MINUTE,
                    until_ms: until * MINUTE,
                    count,
                });
                assert_eq!(plan.passed, stretches.collect::<Vec<_>>(), "{missed:?} {dealt:?}");
                let minutes: Vec<_> = plan.runs.iter().map(|at_ms| at_ms / MINUTE).collect();
                assert_eq!((minutes.as_slice(), plan.next_ms), (runs, Some(next * MINUTE)));
            };
        use MissedPolicy::{All, Latest, Skip};
        check(Skip, &[(3, 3), (4, 4), (9, 9), (10, 10)], &[(1, 2, 2), (5, 8, 4)], &[], 11);
        check(Skip, &[(3, 4), (9, 10)], &[(1, 2, 2), (5, 8, 4)], &[], 11);
        check(Skip, &[(3, 3), (9, 9), (11, 12), (14, 14)], &[(1, 2, 2), (4, 8, 5)], &[10], 13);
        check(Latest, &[(9, 11)], &[(1, 7, 7)], &[8], 12);
        check(All(3), &[(5, 5), (9, 10)], &[(1, 4, 4)], &[6, 7, 8], 11);
        check(All(2), &[(2, 10)], &[], &[1], 11);
        check(All(2), &[(2, 30)], &[], &[1], 31);
    }

    #[test]
    fn a_stretch_is_parted_where_the_clock_stands() {
        let check = |schedule, count, until_ms, times_max, first: (i64, u64), second: i64| {
            let timer = timer(schedule, MINUTE, MissedPolicy::Skip);
            let whole = Stretch { from_ms: MINUTE, until_ms: count as i64 * MINUTE, count };
            let (one, other) = part(&timer, whole, until_ms, times_max);
            assert_eq!((one.from_ms, one.until_ms / MINUTE, one.count), (MINUTE, first.0, first.1));
            assert_eq!((other.from_ms / MINUTE, other.until_ms), (second, whole.until_ms));
            assert_eq!(one.count + other.count, count);
        };
        for schedule in ["rate(60s)", "0 * * * * ?"] {
            check(schedule, 100, MINUTE, u64::MAX, (1, 1), 2);
            check(schedule, 100, 42 * MINUTE + 5, u64::MAX, (42, 42), 43);
            check(schedule, 100, 99 * MINUTE, u64::MAX, (99, 99), 100);
            check(schedule, 100, 99 * MINUTE, 10, (10, 10), 11);
            check(schedule, 2, MINUTE, u64::MAX, (1, 1), 2);
        }
        // The zone data of today knows fewer times than were counted.
        check("rate(25m)", 100, 80 * MINUTE, u64::MAX, (75, 4), 100);
    }

    #[test]
    fn nothing_is_owed_after_the_end_and_before_the_delay() {
        let mut timer = timer("rate(60s)", MINUTE, MissedPolicy::All(100));
        timer.end_at_ms = Some(3 * MINUTE);
        let plan = whole(&timer, 10 * MINUTE);
        assert_eq!((plan.runs.len(), plan.next_ms), (3, None));
        timer.delay_ms = 8 * MINUTE + 1;
        let plan = whole(&timer, 10 * MINUTE);
        assert_eq!((plan.runs, plan.next_ms), (vec![MINUTE], Some(2 * MINUTE)));
    }
}

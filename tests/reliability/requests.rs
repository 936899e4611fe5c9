//! Random requests: fleets, waves, keys, bounds, deadlines, priorities, retries, and schedules with each policy.

use std::collections::HashMap;

use adjutant::{
    Instance, Limits, MissedPolicy, OverlapPolicy, RepeatMode, Retry, RetryOn, RunCommand, Share,
};

use crate::invariants::Bounds;
use crate::random::Random;

/// Executions that run at a time.
pub const RUNNING_MAX: usize = 6;
/// Keys, and how many executions run with each at a time.
pub const KEYS: [(&str, usize); 3] = [("one", 1), ("two", 2), ("three", 3)];

pub fn bounds() -> Bounds {
    let keys: HashMap<_, _> =
        KEYS.iter().map(|(key, max)| ((*key).to_owned(), *max as i64)).collect();
    Bounds { running: RUNNING_MAX as i64, keys }
}

pub fn limits() -> Limits {
    let mut limits = Limits::alibaba();
    limits.rate_s_min = 1;
    limits.cron_s_min = 1;
    limits.invoke_timeout_s_min = 1;
    limits
}

/// Returns the instances of an executor. Some have a bound on the executions that run at a time, and they live in
/// several time zones.
pub fn instances(executor: &str) -> Vec<Instance> {
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"];
    (0..8)
        .map(|number| {
            let instance = Instance::new(format!("i-{number}")).executor(executor);
            let instance = instance.time_zone(zones[number % zones.len()].parse().expect("a zone"));
            match number % 4 {
                0 => instance.max_concurrency(1),
                1 => instance.max_concurrency(2),
                _ => instance,
            }
        })
        .collect()
}

pub fn names() -> Vec<String> {
    (0..8).map(|number| format!("i-{number}")).collect()
}

/// Returns a random request that runs `script`. With `repeats`, one request in four repeats.
pub fn request(random: &mut Random, script: String, repeats: bool) -> RunCommand {
    let on = random.some(&names());
    let mut request = RunCommand::shell(script).on(on).timeout(random.between(1, 20));
    if random.one_in(3) {
        request = request.priority(random.between(0, 9));
    }
    if random.one_in(4) {
        request = request.concurrency_key(random.pick(&["one", "two", "three", "other"]));
    }
    if random.one_in(4) {
        let most = random.between(1, 4);
        request = request.max_concurrency(if random.one_in(2) {
            Share::from(most)
        } else {
            Share::percent(30)
        });
    }
    if random.one_in(4) {
        request = request.max_errors(Share::from(random.between(0, 2)));
    }
    if random.one_in(4) {
        request =
            request.waves([Share::from(1), Share::percent(50)]).wave_soak(random.between(0, 3));
    }
    if random.one_in(5) {
        request = request.start_deadline(random.between(1, 30));
    }
    if random.one_in(6) {
        request = request.deadline(random.between(31, 90));
    }
    if random.one_in(3) {
        let on = [
            RetryOn::Failed,
            RetryOn::Timeout,
            RetryOn::Error,
            RetryOn::Aborted,
            RetryOn::Interrupted,
        ];
        let retry = Retry::attempts(random.between(1, 4)).backoff(random.between(0, 2));
        request = request.retry(retry.on(on).max_backoff(4));
    }
    if repeats && random.one_in(4) {
        request = repeating(random, request);
    }
    request
}

fn repeating(random: &mut Random, request: RunCommand) -> RunCommand {
    use OverlapPolicy::{Allow, Queue, Replace, Skip};
    let request = request.overlap_policy(random.pick(&[Skip, Queue, Allow, Replace]));
    let missed = [MissedPolicy::Skip, MissedPolicy::Latest, MissedPolicy::All(3)];
    let request = request.missed_policy(random.pick(&missed));
    match random.below(6) {
        0 => return request.repeat_mode(RepeatMode::EveryReboot),
        1 => return request.repeat_mode(RepeatMode::NextRebootOnly),
        _ => {}
    }
    // An execution that outlasts the interval is refused.
    let (schedule, seconds) = random.pick(&[
        ("rate(2s)", 1),
        ("rate(7s)", 6),
        ("rate(1m)", 20),
        ("*/5 * * * * ?", 4),
        ("0 * * * * ?", 20),
        ("0 0 2 * * ?", 20),
    ]);
    let request = request.frequency(schedule).timeout(random.between(1, seconds));
    let request = if random.one_in(3) { request.spread(random.between(0, 4)) } else { request };
    if random.one_in(3) { request.max_fires(random.between(1, 5)) } else { request }
}

//! Invariants of the records, which hold at every commit whatever has happened. The test reads them by SQL, past the
//! engine.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use adjutant::schedule::{Schedule, Zone};
use chrono::{DateTime, Utc};
use rusqlite::{Connection, OpenFlags};

/// The bounds that the engines of a test are given.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Executions that run at a time.
    pub running: i64,
    /// Executions with a `ConcurrencyKey` that run at a time, by key; 1 for keys that are not listed.
    pub keys: HashMap<String, i64>,
}

/// Checks the records of one file again and again, and remembers records that must not change.
#[derive(Default)]
pub struct Invariants {
    pub bounds: Bounds,
    /// Executions that have ended, each with its row.
    ended: HashMap<i64, String>,
    /// Invocations that have ended, each with its row.
    finished: HashMap<i64, String>,
    /// The next nominal time of each timer.
    cursors: HashMap<i64, i64>,
    /// Whether the clock has been set back, so that an engine may take back times that it wrote off ahead of the clock.
    takes_back: bool,
}

/// Each invariant, with a statement that finds the records that break it.
const WRONG: [(&str, &str); 13] = [
    ("integrity_check", "SELECT integrity_check FROM pragma_integrity_check WHERE integrity_check <> 'ok'"),
    ("foreign_key_check", "SELECT \"table\" || ' ' || rowid FROM pragma_foreign_key_check"),
    (
        "the counts of a fire are those of its executions",
        "WITH last AS (
             SELECT fire, instance, max(attempt) AS attempt FROM executions GROUP BY fire, instance),
         counts AS (
             SELECT e.fire,
                 sum(e.finished_at_ms IS NULL) AS unfinished,
                 sum(e.status = 'Success') AS succeeded,
                 sum(e.status IN ('Cancelled', 'Terminated')) AS stopped,
                 sum(e.status IN ('Failed', 'Error', 'Timeout', 'Invalid', 'Aborted')) AS failed
             FROM last JOIN executions e USING (fire, instance, attempt) GROUP BY e.fire)
         SELECT 'fire ' || f.id || ': ' || concat_ws(' ', f.unfinished, f.succeeded, f.failed, f.stopped)
             || ' <> ' || concat_ws(' ', c.unfinished, c.succeeded, c.failed, c.stopped)
         FROM fires f LEFT JOIN counts c ON c.fire = f.id
         WHERE f.unfinished <> coalesce(c.unfinished, 0) OR f.succeeded <> coalesce(c.succeeded, 0)
             OR f.failed <> coalesce(c.failed, 0) OR f.stopped <> coalesce(c.stopped, 0)",
    ),
    (
        "attempts follow one another without a hole",
        "SELECT 'fire ' || fire || ' instance ' || instance FROM executions
         GROUP BY fire, instance HAVING min(attempt) <> 1 OR max(attempt) <> count(*)",
    ),
    (
        "only the last attempt has not ended",
        "SELECT 'execution ' || e.id FROM executions e
         JOIN executions n ON n.fire = e.fire AND n.instance = e.instance AND n.attempt = e.attempt + 1
         WHERE e.finished_at_ms IS NULL OR e.status NOT IN ('Failed', 'Error', 'Timeout', 'Aborted')",
    ),
    (
        "the fire and the instance of an execution exist",
        "SELECT 'execution ' || id FROM executions
         WHERE fire NOT IN (SELECT id FROM fires) OR instance NOT IN (SELECT id FROM instances)",
    ),
    (
        "a missed fire has no executions, and a started fire has some",
        "SELECT 'fire ' || f.id FROM fires f
         WHERE (f.disposition = 'Missed' AND EXISTS (SELECT 1 FROM executions e WHERE e.fire = f.id))
             OR (f.disposition = 'Started' AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.fire = f.id))",
    ),
    (
        "an invocation has ended if and only if no fire, timer or boot is left",
        "SELECT 'invocation ' || v.id FROM invocations v
         WHERE (v.finished_at_ms IS NOT NULL) = (
             EXISTS (SELECT 1 FROM fires f WHERE f.invocation = v.id AND f.unfinished > 0)
             OR EXISTS (SELECT 1 FROM timers m WHERE m.invocation = v.id AND m.next_fire_at_ms IS NOT NULL)
             OR EXISTS (SELECT 1 FROM targets g WHERE g.invocation = v.id AND g.awaits_boot = 1))",
    ),
    (
        "a timer is past the nominal times that have a record, unless they fired ahead of the clock or are to be taken back",
        "SELECT 'timer ' || m.id FROM timers m JOIN fires f ON f.timer = m.id
         WHERE coalesce(f.until_ms, f.fire_at_ms) >= m.next_fire_at_ms
             AND f.disposition <> 'Started' AND f.due_until_ms IS NULL",
    ),
    (
        "an instance runs no more executions than its bound",
        "SELECT 'instance ' || i.id FROM instances i JOIN executions e ON e.instance = i.id
         WHERE e.status IN ('Running', 'Stopping') AND i.max_concurrency IS NOT NULL
         GROUP BY i.id HAVING count(*) > i.max_concurrency",
    ),
    (
        "an invocation runs no more executions than its bound",
        "SELECT 'invocation ' || f.invocation FROM fires f JOIN executions e ON e.fire = f.id
         WHERE e.status IN ('Running', 'Stopping') AND f.concurrency_max IS NOT NULL
         GROUP BY f.invocation HAVING count(*) > max(f.concurrency_max)",
    ),
    (
        "the gap of an output lies within its bytes",
        "SELECT 'execution ' || execution FROM outputs WHERE gap_at > length(bytes) OR length(runs) = 0",
    ),
    (
        "no execution waits for an instance and for a time at once",
        "SELECT 'execution ' || id FROM executions
         WHERE (awaits_instance IS NOT NULL AND status <> 'Pending')
             OR (retry_at_ms IS NOT NULL AND status <> 'Scheduled')",
    ),
];

impl Invariants {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Notes that the clock has been set back: timers may go back to times that did not fire, and schedules that had
    /// run out of times may go on.
    pub fn clock_was_set_back(&mut self) {
        self.takes_back = true;
    }

    /// Returns the broken invariants of a file, which an engine may be running.
    pub fn check(&mut self, database: &Path) -> Vec<String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let file = Connection::open_with_flags(database, flags).expect("the file opens");
        file.execute_batch("PRAGMA query_only = ON; BEGIN").expect("a snapshot");
        let mut wrong = Vec::new();
        for (what, sql) in WRONG {
            let mut query = file.prepare(sql).unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = query.query_map((), |row| row.get::<_, String>(0)).expect("sound SQL");
            for one in found {
                let one = one.unwrap_or_else(|error| error.to_string());
                wrong.push(format!("{what}: {one}"));
            }
        }
        self.check_running(&file, &mut wrong);
        self.check_nominal_times(&file, &mut wrong);
        let ended = "SELECT id, concat_ws('|', fire, instance, attempt, status, started_at_ms, finished_at_ms,
                exit_code, error_code, error_info, stop_cause)
            FROM executions WHERE finished_at_ms IS NOT NULL";
        remember("execution", &mut self.ended, rows(&file, ended), &mut wrong);
        let mut finished =
            "SELECT id, concat_ws('|', status, finished_at_ms, repeat_mode) FROM invocations
            WHERE finished_at_ms IS NOT NULL"
                .to_owned();
        if self.takes_back {
            finished.push_str(" AND repeat_mode <> 'Period'");
            let is_schedule = |row: &String| row.ends_with("|Period");
            self.finished.retain(|_, row| !is_schedule(row));
        }
        remember("invocation", &mut self.finished, rows(&file, &finished), &mut wrong);
        wrong
    }

    fn check_running(&self, file: &Connection, wrong: &mut Vec<String>) {
        let sql =
            "SELECT f.concurrency_key, count(*) FROM executions e JOIN fires f ON f.id = e.fire
            WHERE e.status IN ('Running', 'Stopping') GROUP BY f.concurrency_key";
        let mut query = file.prepare(sql).expect("sound SQL");
        let counts = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).expect("sound SQL");
        let counts: Vec<(Option<String>, i64)> = counts.map(|row| row.expect("a count")).collect();
        let all: i64 = counts.iter().map(|(_, count)| count).sum();
        if all > self.bounds.running {
            wrong.push(format!("{all} run, want at most {}", self.bounds.running));
        }
        for (key, count) in counts {
            let Some(key) = key else { continue };
            let most = self.bounds.keys.get(&key).copied().unwrap_or(1);
            if count > most {
                wrong.push(format!("{count} run with key `{key}`, want at most {most}"));
            }
        }
    }

    /// Checks that each nominal time since a timer was made has exactly one record, and that timers only go
    /// forward.
    fn check_nominal_times(&mut self, file: &Connection, wrong: &mut Vec<String>) {
        let timers = "SELECT m.id, m.zone, v.frequency, v.created_at_ms, m.next_fire_at_ms
            FROM timers m JOIN invocations v ON v.id = m.invocation";
        let mut query = file.prepare(timers).expect("sound SQL");
        let mut timers = query.query(()).expect("sound SQL");
        let covered = "SELECT fire_at_ms, count, coalesce(until_ms, fire_at_ms) FROM fires
            WHERE timer = ?1 ORDER BY fire_at_ms";
        let mut covered = file.prepare(covered).expect("sound SQL");
        while let Some(row) = timers.next().expect("a row") {
            let id: i64 = row.get(0).expect("an id");
            let (zone, frequency): (String, String) =
                (row.get(1).expect("a zone"), row.get(2).expect("a schedule"));
            let next_ms: Option<i64> = row.get(4).expect("a time");
            let zone: Zone = zone.parse().expect("a zone");
            let schedule: Schedule = frequency.parse().expect("a schedule");
            let created = time(row.get(3).expect("a time"));
            let bound = schedule.bind(created, zone);
            let (mut at, mut ahead) = (created, created);
            // A schedule that ended while the clock was behind its records has no records for the times between.
            let has_gaps = self.takes_back && next_ms.is_none();
            let stretches = covered.query_map([id], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            });
            for stretch in stretches.expect("sound SQL") {
                let (from_ms, count, until_ms) = stretch.expect("a stretch");
                if has_gaps || next_ms.is_some_and(|next_ms| from_ms > next_ms) {
                    // Times that fired ahead of the clock, or whose record is to be taken back, belong to the
                    // schedule, and have no other record.
                    let mut last = bound.next_after(time(from_ms - 1).max(ahead));
                    let of_schedule = last == Some(time(from_ms));
                    for _ in 1..count {
                        last = last.and_then(|last| bound.next_after(last));
                    }
                    if !of_schedule || last != Some(time(until_ms)) {
                        wrong.push(format!("timer {id}: {} is no time of it", time(from_ms)));
                    }
                    ahead = time(until_ms);
                    continue;
                }
                let first = bound.next_after(at);
                if first != Some(time(from_ms)) {
                    wrong
                        .push(format!("timer {id}: a record of {}, want {first:?}", time(from_ms)));
                    break;
                }
                let mut last = time(from_ms);
                for _ in 1..count {
                    last = bound.next_after(last).unwrap_or(last);
                }
                if last != time(until_ms) {
                    wrong.push(format!(
                        "timer {id}: {count} times until {}, not {last}",
                        time(until_ms)
                    ));
                }
                at = time(until_ms);
            }
            let Some(next_ms) = next_ms else { continue };
            if bound.next_after(at) != Some(time(next_ms)) {
                wrong.push(format!("timer {id}: next at {}, after {at}", time(next_ms)));
            }
            let before = self.cursors.insert(id, next_ms);
            if !self.takes_back && before.is_some_and(|before| before > next_ms) {
                wrong.push(format!("timer {id} went back from {before:?} to {next_ms}"));
            }
        }
    }
}

/// Facts that the outside world has seen, which must be found in the records.
pub struct Witness<'a> {
    /// Executions that have had effects.
    pub started: &'a HashSet<i64>,
    /// Invocations that were acknowledged.
    pub acknowledged: &'a HashSet<String>,
    /// Invocations whose stop was acknowledged.
    pub stopped: &'a HashSet<String>,
    /// Invocations whose end was told, with their status.
    pub told: &'a HashMap<String, String>,
}

impl Witness<'_> {
    /// Returns the facts that are not in the records, or are different there.
    pub fn check(&self, database: &Path) -> Vec<String> {
        let file = Connection::open(database).expect("the file opens");
        file.execute_batch("PRAGMA query_only = ON; BEGIN").expect("a snapshot");
        let mut wrong = Vec::new();
        let claimed =
            rows(&file, "SELECT id, status FROM executions WHERE started_at_ms IS NOT NULL");
        let claimed: HashMap<_, _> = claimed.into_iter().collect();
        for id in self.started.iter().filter(|id| !claimed.contains_key(id)) {
            wrong.push(format!("execution {id} started without a claim on disk"));
        }
        let sql = "SELECT 't-' || lower(hex(invoke_id)), status, stop_at_ms IS NOT NULL OR finished_at_ms IS NOT NULL FROM invocations";
        let mut query = file.prepare(sql).expect("sound SQL");
        let known = query.query_map((), |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
        let known = known.expect("sound SQL").map(|row| row.expect("a row"));
        let known: HashMap<String, (Option<String>, bool)> = known.collect();
        for id in self.acknowledged.iter().filter(|id| !known.contains_key(*id)) {
            wrong.push(format!("{id} was acknowledged and is not on disk"));
        }
        for id in self.stopped {
            if !known.get(id).is_some_and(|(_, stopped)| *stopped) {
                wrong.push(format!(
                    "the stop of {id} was acknowledged, and nothing of it is on disk"
                ));
            }
        }
        for (id, status) in self.told {
            let found = known.get(id).and_then(|(status, _)| status.as_ref());
            if found != Some(status) {
                wrong.push(format!("{id} was told to be {status}, and is {found:?}"));
            }
        }
        wrong
    }
}

fn rows(file: &Connection, sql: &str) -> Vec<(i64, String)> {
    let mut query = file.prepare(sql).expect("sound SQL");
    let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).expect("sound SQL");
    rows.map(|row| row.expect("a row")).collect()
}

/// Checks that records of ended things do not change.
fn remember(
    what: &str,
    known: &mut HashMap<i64, String>,
    found: Vec<(i64, String)>,
    wrong: &mut Vec<String>,
) {
    let before = known.len();
    let mut again = 0;
    for (id, row) in found {
        match known.insert(id, row.clone()) {
            Some(before) if before != row => {
                wrong.push(format!("{what} {id}: {before}, now {row}"))
            }
            Some(_) => again += 1,
            None => {}
        }
    }
    if again < before && wrong.is_empty() {
        wrong.push(format!("{} {what}s that had ended are gone", before - again));
    }
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).expect("within range")
}

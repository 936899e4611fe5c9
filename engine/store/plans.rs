//! The plans of the hot statements, pinned in `plans.txt`: SQLite's plans for the statements of requests, claims,
//! ends, the scheduler's look and the listings, with the steps of SQLite's machine that each takes here. If a plan
//! got worse, only a database of ten million records would show it. A plan does not tell over how many rows a search
//! goes, but the steps do: the steps of a read must not grow with a history.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rusqlite::trace::{TraceEvent, TraceEventCodes};
use rusqlite::{Connection, StatementStatus};
use serde_json::json;

use crate::error::Error;
use crate::execution::{DescribeInvocationResults, Remark, Report, StopOrder, StopReason, Verdict};
use crate::id::{ExecutionId, InstanceId, InvokeId};
use crate::instance::Instance;
use crate::invocation::client_token::ClientToken;
use crate::invocation::fire::FireDisposition;
use crate::invocation::recurrence::{OverlapPolicy, Recurrence, Trigger};
use crate::invocation::retry::Retry;
use crate::invocation::{DescribeInvocations, RepeatMode, RunCommand};
use crate::limits::Limits;
use crate::output::{Delivery, Output, Runs};
use crate::schedule::Zone;
use crate::status::{Cause, ExecutionStatus, InvocationStatus};
use crate::tag::Tag;
use crate::wire::ContentEncoding;

use super::aside::Aside;
use super::claims::{self, Claim, Claimed, ClaimedAtOnce, Place, Released, Standing};
use super::commands::Definition;
use super::executions::{self, Ended, Finished};
use super::fires::{self, PassedOver, Stretch};
use super::invocations::{self, FirstFire, NewInvocation, Start};
use super::memory::Memory;
use super::records;
use super::selections::{self, ExecutionNarrow, InvocationNarrow};
use super::{
    PageToken, Slice, Tx, client_tokens, connection, days, deadlines, firing, instances, migrate,
    stop, targets, timers, waves,
};

const PINNED: &str = include_str!("plans.txt");

/// What may read all of a table, or sort, which no other statement here does: the beginning of its step
/// and name, the line of its plan, and why.
const ALLOWED: [(&str, &str, &str); 7] = [
    ("fire, Skip: SELECT instance FROM targets", SORTS, "the targets of one timer"),
    ("wait: SELECT v.invoke_id", SORTS_TAGS, "the tags of one invocation"),
    (
        "results",
        SORTS,
        "the targets of what repeats, or the executions of one invocation or command",
    ),
    ("results", SORTS_EACH, "the executions of one invocation after another"),
    ("results", SCANS_INVOCATIONS, "the newest first, up to the end of the page, or to count them"),
    ("results", SCANS_TARGETS, "one for each instance, however often it has fired"),
    ("find by an id or a name: SELECT", SCANS_UNFINISHED, "what has not ended, and no history"),
];
const SORTS: &str = "USE TEMP B-TREE FOR ORDER BY";
const SORTS_EACH: &str = "USE TEMP B-TREE FOR LAST TERM OF ORDER BY";
const SORTS_TAGS: &str = "USE TEMP B-TREE FOR json_group_array(ORDER BY)";
const SCANS_INVOCATIONS: &str = "SCAN v";
const SCANS_TARGETS: &str = "SCAN t";
const SCANS_UNFINISHED: &str = "SCAN invocations USING INDEX invocations_unfinished";
/// Sources that any plan may read whole: single rows, values given with the statement, rows that the
/// statement itself has found, and the first order to stop, which tells whether there is one.
const SMALL: [&str; 4] = ["SCAN CONSTANT ROW", "SCAN json_each ", "SCAN (subquery-", "SCAN stops"];

const NOW_MS: i64 = 1_700_000_000_000;
pub(super) const INSTANCES: [&str; 3] = ["i-0", "i-1", "i-2"];

thread_local! {
    /// Statements that have run in this thread, in order.
    static RUN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A database whose statements are known.
struct Traced {
    connection: Connection,
    memory: Memory,
    /// Statements, by the first of the steps that ran them, with the steps of SQLite's machine that each took.
    steps: Vec<(&'static str, Vec<(String, i32)>)>,
}

impl Traced {
    fn open() -> Self {
        let mut connection = Connection::open_in_memory().expect("memory");
        connection::set_up_memory(&connection).expect("every pragma is taken");
        migrate::migrate(&mut connection, 1).expect("the tables");
        let traced = Self { connection, memory: Memory::of_reader(), steps: Vec::new() };
        traced.write(|tx| {
            for id in INSTANCES {
                let instance = Instance::new(id).tag("a", "1").tag("b", "2");
                instances::upsert(tx, &instance, NOW_MS).expect("a sound instance");
            }
        });
        traced
    }

    fn tx(&self) -> Tx<'_> {
        Tx::new(&self.connection, &self.memory)
    }

    /// Does what is not looked at.
    fn write<T>(&self, op: impl FnOnce(Tx<'_>) -> T) -> T {
        op(self.tx())
    }

    /// Does a step, and takes note of the statements that it is the first to run.
    fn step<T>(&mut self, name: &'static str, op: impl FnOnce(Tx<'_>) -> T) -> T {
        let (done, run) = self.measure(op);
        let mut new: Vec<(String, i32)> = Vec::new();
        for (sql, took) in run {
            let is_known =
                self.steps.iter().any(|(_, known)| known.iter().any(|(other, _)| *other == sql));
            if !is_known && new.iter().all(|(other, _)| *other != sql) {
                new.push((sql, took));
            }
        }
        self.steps.push((name, new));
        done
    }

    /// Runs `op`. Returns its value and its statements, in order, each with the steps of SQLite's machine that it has
    /// taken.
    fn measure<T>(&self, op: impl FnOnce(Tx<'_>) -> T) -> (T, Vec<(String, i32)>) {
        let remember = |event: TraceEvent<'_>| {
            if let TraceEvent::Stmt(statement, _) = event {
                RUN.with_borrow_mut(|run| run.push(statement.sql().trim().to_owned()));
            }
        };
        self.connection.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(remember));
        let done = op(self.tx());
        self.connection.trace_v2(TraceEventCodes::empty(), None);
        let mut run: Vec<(String, i32)> = Vec::new();
        for sql in RUN.take() {
            let took = match self.connection.prepare_cached(&sql) {
                Ok(statement) => statement.reset_status(StatementStatus::VmStep),
                // The statement of a trigger is part of another statement.
                Err(_) => 0,
            };
            run.push((words(&sql), took));
        }
        (done, run)
    }

    /// Returns the steps of SQLite's machine that `op` takes.
    fn cost(&self, op: impl FnOnce(Tx<'_>)) -> i32 {
        // Statements before this do not count.
        let ((), _) = self.measure(|_| {});
        let ((), run) = self.measure(op);
        run.iter().map(|(_, took)| took).sum()
    }

    /// The plan of a statement, a line for each of its parts; those within others are indented.
    fn plan(&self, sql: &str) -> Vec<String> {
        let explained = format!("EXPLAIN QUERY PLAN {sql}");
        let mut query = self.connection.prepare(&explained).expect("it has run before");
        // Nothing is bound: a plan does not go by values.
        let mut rows = query.raw_query();
        let mut depths = vec![(0, 0)];
        let mut plan = Vec::new();
        while let Some(row) = rows.next().expect("a line") {
            let (id, parent): (i64, i64) = (row.get(0).expect("id"), row.get(1).expect("parent"));
            let above = depths.iter().find(|(known, _)| *known == parent);
            let depth = above.map_or(0, |(_, depth)| *depth) + 1;
            depths.push((id, depth));
            let line: String = row.get(3).expect("text");
            plan.push(format!("{}{line}", "  ".repeat(depth - 1)));
        }
        plan
    }
}

/// The words of a statement, each a space from the next.
fn words(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// So much of a statement as tells it from others: its beginning, and what it looks for.
fn name(sql: &str) -> String {
    let cut = |text: &str, max: usize| text.chars().take(max).collect::<String>();
    match sql.split_once(" WHERE ") {
        Some((before, after)) => format!("{} … WHERE {} …", cut(before, 40), cut(after, 60)),
        None => cut(sql, 60),
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(NOW_MS).expect("a time")
}

/// Stores what a request asks for; its row, its fire and what is claimed of it.
fn insert(tx: Tx<'_>, request: &RunCommand, claims: bool) -> (i64, Option<ClaimedAtOnce>) {
    let mut found = Vec::new();
    let checked = request.check(&Limits::default(), &mut found);
    assert!(found.is_empty(), "{found:?}");
    let terms = checked.terms;
    let find = |id| Arc::new(instances::find(tx, id).expect("readable").expect("it is registered"));
    let targets: Vec<_> = terms.targets.instance_ids.iter().map(find).collect();
    let start = match &terms.recurrence {
        None => Start::Now { targets },
        Some(Recurrence { trigger: Trigger::Boot { .. }, .. }) => {
            let target_rows = targets.iter().map(|target| target.row).collect();
            Start::AtBoot { target_rows }
        }
        Some(_) => Start::Planned(vec![FirstFire {
            zone: Zone::UTC,
            at_ms: NOW_MS,
            delay_ms: 0,
            target_rows: targets.iter().map(|target| target.row).collect(),
        }]),
    };
    let new = NewInvocation {
        invoke_id: InvokeId::new(now()),
        kept_id: None,
        arguments: terms.arguments,
        container: terms.container,
        windows_password_name: None,
        secrets_are_names: false,
        content_bytes_max: checked.content_max.bytes(),
        timeout_s: Some(60),
        resource_group_id: None,
        caller: None,
        termination_mode: terms.termination_mode,
        resource_limits: terms.resource_limits,
        survive_restarts: false,
        recurrence: terms.recurrence,
        retry: terms.retry,
        rate_control: terms.rate_control,
        tags: terms.tags,
        retry_of: None,
    };
    let definition = Definition {
        name: request.name.clone(),
        description: String::new(),
        command_type: checked.command_type.unwrap_or_default(),
        content: checked.content.expect("a script"),
        enable_parameter: false,
        default_parameters: request.default_parameters.clone(),
        secret_parameters: request.secret_parameters.clone(),
        settings: terms.settings,
        timeout_s: Some(60),
    };
    let claimed_at_ms = claims.then_some(NOW_MS);
    let claimed = invocations::insert(tx, &new, &definition, &start, claimed_at_ms, NOW_MS);
    let row = invocations::find(tx, new.invoke_id).expect("it is stored");
    (row, claimed.expect("a sound invocation"))
}

/// The plain end of what has been claimed.
fn ended(fire: i64, claimed: &[Claimed]) -> Vec<Ended> {
    let end = |claimed: &Claimed| Ended {
        id: claimed.id,
        attempt: claimed.attempt,
        fire,
        sole: None,
        lets_wait: false,
        verdict: Verdict {
            cause: Cause::ExitedZero,
            exit_code: Some(0),
            signal: None,
            error_code: "",
            error_info: Remark::default(),
            stop_cause: None,
        },
        output: Output::default(),
        report: None,
        delivery: None,
        finished_at_ms: NOW_MS,
        retry_after_ms: None,
    };
    claimed.iter().map(end).collect()
}

fn finish(tx: Tx<'_>, ended: &[Ended]) -> Finished {
    executions::finish(tx, &ended.iter().collect::<Vec<_>>(), false).expect("they ran")
}

fn claim(tx: Tx<'_>, fire: i64) -> Vec<Claimed> {
    let max = INSTANCES.len();
    let all = Claim {
        fire,
        after: 0,
        until: i64::MAX,
        max,
        has_waves: false,
        is_late: false,
        standing: STANDING,
        now_ms: NOW_MS,
    };
    claims::claim(tx, &all, |_| true).expect("readable").claimed
}

/// The standing of all executions that are inserted here.
pub(super) const STANDING: Standing = Standing { priority: 5, since_ms: NOW_MS };

/// Runs stops of more than one commit, and a claim beside them.
fn stop(traced: &mut Traced) {
    let request = RunCommand::shell("true").on(INSTANCES);
    let order = StopOrder::from(StopReason::Stopped);
    for only in [vec![], vec![InstanceId::from("i-1"), InstanceId::from("i-2")]] {
        let (invocation, _) = traced.write(|tx| insert(tx, &request, false));
        let fire = traced.write(|tx| {
            fires::queue(tx, STANDING.priority, 0, 100).expect("readable").last().expect("a fire").0
        });
        traced.step("stop", |tx| {
            let aside = Aside::default();
            stop::invocation(tx, invocation, &only, &order, NOW_MS, 1, &aside).expect("it waits");
        });
        let claimed = traced.step("claim beside a stop", |tx| claim(tx, fire));
        assert_eq!(claimed.len(), if only.is_empty() { 0 } else { 1 });
        traced.step("go on with a stop", |tx| {
            let aside = Aside::default();
            while let Some(&order) = stop::unfinished(tx, 1).expect("readable").first() {
                stop::carry_on(tx, order, NOW_MS, &mut 1, &aside).expect("readable");
            }
        });
    }
}

/// A database with one invocation. Its only fire has executions that all wait.
pub(super) struct Database {
    connection: Connection,
    memory: Memory,
    pub invocation: i64,
    pub fire: i64,
}

impl Database {
    pub(super) fn with_one_fire() -> Self {
        let traced = Traced::open();
        let request = RunCommand::shell("true").on(INSTANCES);
        let (invocation, _) = traced.write(|tx| insert(tx, &request, false));
        let queued = traced.write(|tx| fires::queue(tx, STANDING.priority, 0, 1));
        let (fire, _) = queued.expect("readable").pop().expect("a fire");
        let Traced { connection, memory, .. } = traced;
        Self { connection, memory, invocation, fire }
    }

    pub(super) fn tx(&self) -> Tx<'_> {
        Tx::new(&self.connection, &self.memory)
    }
}

/// Runs the boot of an instance for which two invocations wait.
fn boot(traced: &mut Traced) {
    let request = RunCommand::shell("true").on(INSTANCES).repeat_mode(RepeatMode::EveryReboot);
    for _ in 0..2 {
        traced.write(|tx| insert(tx, &request, false));
    }
    let id = InstanceId::from("i-0");
    let aside = Aside::default();
    let boot = |tx: Tx<'_>, boot_id: &str, mut left| {
        firing::at_boot(tx, &id, boot_id, NOW_MS, &mut left, &aside).expect("it is there")
    };
    traced.step("boot", |tx| {
        boot(tx, "a", 9);
        assert!(boot(tx, "b", 1).has_more);
    });
    traced.step("go on with a boot", |tx| {
        let booting = instances::booting(tx, 9).expect("readable");
        let booting = instances::get_booting(tx, booting[0]).expect("it has booted");
        assert!(!boot(tx, &booting.boot_id, 9).has_more);
        assert!(instances::booting(tx, 9).expect("readable").is_empty());
    });
}

/// Fires whose executions are let loose by and by.
fn let_loose(traced: &mut Traced) {
    let request = RunCommand::shell("true").on(INSTANCES).waves([1]).max_errors(0);
    let request = request.start_deadline(1).deadline(1).max_concurrency(1);
    let newest = |tx: Tx<'_>| {
        let queue = fires::queue(tx, STANDING.priority, 0, 100).expect("readable");
        queue.last().expect("a fire").0
    };
    traced.step("submit, with all bounds", |tx| insert(tx, &request, false));
    let fire = traced.write(newest);
    let claimed = traced.step("claim, a wave", |tx| {
        let first = Claim {
            fire,
            after: 0,
            until: i64::MAX,
            max: 9,
            has_waves: true,
            is_late: false,
            standing: STANDING,
            now_ms: NOW_MS,
        };
        claims::claim(tx, &first, |_| true).expect("readable").claimed
    });
    assert_eq!(claimed.len(), 1);
    traced.step("finish, a wave", |tx| {
        let finished = finish(tx, &ended(fire, &claimed));
        assert!(finished.wave_ended);
    });
    traced.step("let a wave loose", |tx| {
        let due = waves::due(tx, NOW_MS, 1).expect("readable").pop().expect("one is due");
        let due = waves::get(tx, due).expect("readable");
        assert!(waves::open(tx, &due).expect("it is there"));
    });
    traced.step("expire", |tx| {
        let expired = deadlines::expire(tx, fire, NOW_MS, &mut 9).expect("it is late");
        assert_eq!(expired.expired.len() + 1, INSTANCES.len());
    });
    traced.write(|tx| insert(tx, &request, false));
    let fire = traced.write(newest);
    traced.step("end by the deadline", |tx| {
        let ended = deadlines::end(tx, fire, NOW_MS, &mut 9).expect("it is late");
        assert_eq!(ended.cancelled.len(), INSTANCES.len());
    });
    traced.write(|tx| insert(tx, &request, false));
    let fire = traced.write(newest);
    let claimed = traced.write(|tx| claim(tx, fire).into_iter().take(1).collect::<Vec<_>>());
    let mut failed = ended(fire, &claimed);
    failed[0].verdict.cause = Cause::Broke;
    traced.step("finish, too many have failed", |tx| {
        finish(tx, &failed);
    });
}

fn submit(traced: &mut Traced) {
    let request = RunCommand::shell("true").on(INSTANCES).tag("a", "1");
    traced.step("submit, to be claimed", |tx| {
        days::beyond_quota(tx, NOW_MS, 10).expect("readable");
        insert(tx, &request, false);
    });
    traced.step("submit, claimed at once", |tx| insert(tx, &request, true));
    traced.step("submit, by tags", |tx| {
        let tags = [Tag::new("a", "1"), Tag::new("b", "2")];
        assert_eq!(instances::tagged(tx, &tags, 10).expect("readable").len(), INSTANCES.len());
        instances::is_group(tx, "g").expect("readable");
    });
    traced.step("submit, with a token", |tx| {
        let (token, caller) = ("t".to_owned(), String::new());
        let token = ClientToken { token, caller, request_sha256: [0; 32] };
        client_tokens::once(tx, &token, NOW_MS, "answer".to_owned(), || Ok(Some(())))
            .expect("the first with this token");
    });
}

/// Runs executions that wait for room on their instance, and executions that cannot start because of a record.
fn hold_and_admit(traced: &mut Traced) {
    let request = RunCommand::shell("true").on(INSTANCES);
    traced.write(|tx| insert(tx, &request, false));
    let fire = traced.write(|tx| {
        let queue = fires::queue(tx, STANDING.priority, 0, 100).expect("readable");
        queue.last().expect("a fire").0
    });
    let all = Claim {
        fire,
        after: 0,
        until: i64::MAX,
        max: INSTANCES.len(),
        has_waves: false,
        is_late: false,
        standing: STANDING,
        now_ms: NOW_MS,
    };
    traced.step("hold", |tx| {
        assert!(claims::claim(tx, &all, |_| false).expect("readable").claimed.is_empty());
    });
    traced.step("admit", |tx| {
        let next =
            claims::next_awaiting(tx, 1, Place::FIRST).expect("readable").expect("one waits");
        assert_eq!(next.standing, STANDING);
        claims::unmark_awaiting(tx, &next).expect("it waits");
        let next =
            claims::next_awaiting(tx, 2, Place::FIRST).expect("readable").expect("one waits");
        claims::claim_awaiting(tx, &next, NOW_MS).expect("it waits");
        let released = instances::upsert(tx, &Instance::new(INSTANCES[2]), NOW_MS);
        assert_eq!(released.expect("a sound instance"), Some(Released::Instance(3)));
    });
    traced.step("abort", |tx| {
        let why = Error::Internal("a record".to_owned());
        let aborted = executions::abort(tx, fire, None, &why, NOW_MS, &mut 9);
        let aborted = aborted.expect("they wait");
        assert_eq!(aborted.executions.len(), INSTANCES.len() - 1);
    });
}

fn claim_and_finish(traced: &mut Traced) {
    let request = RunCommand::shell("true").on(INSTANCES);
    traced.write(|tx| insert(tx, &request, false));
    let (fire, claimed) = traced.step("claim", |tx| {
        let priority = fires::priority_below(tx, 10).expect("readable").expect("one waits");
        let queue = fires::queue(tx, priority, 0, 10).expect("readable");
        let fire = queue.last().expect("a fire").0;
        assert!(fires::terms(tx, fire).expect("readable").is_some());
        let claimed = claim(tx, fire);
        assert_eq!(claimed.len(), INSTANCES.len());
        invocations::job_of_fire(tx, fire).expect("readable");
        (fire, claimed)
    });
    traced.step("finish, nothing to say", |tx| {
        let finished = finish(tx, &ended(fire, &claimed));
        assert_eq!(finished.invocations.len(), 1);
    });
    let (_, stored) = traced.write(|tx| insert(tx, &request, true));
    let ClaimedAtOnce { sole, claimed } = stored.expect("claimed");
    let mut all = ended(sole.fire, &claimed);
    all.iter_mut().for_each(|ended| ended.sole = Some(sole));
    traced.step("finish, all of an invocation", |tx| {
        assert_eq!(finish(tx, &all).invocations.len(), 1);
    });
    let (_, stored) = traced.write(|tx| insert(tx, &request, true));
    let ClaimedAtOnce { sole, claimed } = stored.expect("claimed");
    let mut all = ended(sole.fire, &claimed);
    let runs = Runs::from_bytes(&[1]).expect("a stretch of one byte");
    all[0].output = Output::from_parts(b"x".to_vec(), runs, None).expect("they fit");
    all[0].report = Some(Box::new(Report { result: Some(Ok(json!(1))), ..Report::default() }));
    all[0].delivery = Some(Delivery::in_progress(Some(1)));
    all[1].retry_after_ms = Some(0);
    traced.step("finish, all there can be", |tx| {
        let finished = finish(tx, &all);
        assert_eq!(finished.retries.len(), 1);
    });
}

fn look(traced: &mut Traced) {
    for &policy in OverlapPolicy::ALL {
        let request = RunCommand::shell("true").on(INSTANCES).frequency("rate(1m)");
        traced.write(|tx| insert(tx, &request.overlap_policy(policy), false));
    }
    let due = traced.step("look at the timers and retries", |tx| {
        let due = timers::due(tx, NOW_MS, 10).expect("readable");
        timers::next_due_ms(tx).expect("readable");
        assert!(claims::next_retry_ms(tx).expect("readable").is_some());
        assert_eq!(claims::release_due(tx, NOW_MS, 10).expect("readable").len(), 1);
        assert!(fires::ahead(tx, NOW_MS, 10).expect("readable").is_empty());
        deadlines::late_to_start(tx, NOW_MS, 10).expect("readable");
        deadlines::late_to_end(tx, NOW_MS, 10).expect("readable");
        deadlines::next_ms(tx).expect("readable");
        waves::due(tx, NOW_MS, 10).expect("readable");
        waves::next_ms(tx, NOW_MS).expect("readable");
        due
    });
    assert_eq!(due.len(), OverlapPolicy::ALL.len());
    for found in due {
        let timer = found.timer.expect("readable");
        let fire = |tx: Tx<'_>| {
            let targets = targets::of_timer(tx, timer.invocation, timer.id).expect("readable");
            for at_ms in [NOW_MS, NOW_MS + 60_000] {
                let fired = firing::by_timer(tx, &timer, &targets, at_ms, false, at_ms, &mut 9);
                fired.expect("it fires");
            }
        };
        let name = match timer.overlap {
            OverlapPolicy::Skip => "fire, Skip",
            OverlapPolicy::Queue => "fire, Queue",
            OverlapPolicy::Allow => "fire, Allow",
            OverlapPolicy::Replace => "fire, Replace",
        };
        traced.step(name, fire);
        traced.step("move a timer on", |tx| {
            let (from_ms, until_ms) = (NOW_MS + 120_000, NOW_MS + 180_000);
            let stretch = Stretch { from_ms, until_ms, count: 2 };
            let disposition = FireDisposition::Missed;
            let missed = PassedOver { disposition, reason: "away", is_final: false };
            fires::pass_over(tx, &timer, stretch, missed, NOW_MS).expect("a record");
            timers::advance(tx, &timer, None, None, false).expect("it has not moved");
        });
        traced.step("take back what a clock ahead wrote off", |tx| {
            let ahead = fires::ahead(tx, NOW_MS + 130_000, 10).expect("readable");
            let record = fires::get_ahead(tx, ahead[0]).expect("readable");
            let (from_ms, until_ms) = (NOW_MS + 120_000, NOW_MS + 180_000);
            let first = Stretch { from_ms, until_ms: from_ms, count: 1 };
            let second = Stretch { from_ms: until_ms, until_ms, count: 1 };
            let cut = fires::cut(tx, record, 0, first, second).expect("two records");
            fires::withdraw(tx, cut.id, NOW_MS).expect("a record");
            let mut ended = timers::get(tx, timer.id).expect("readable");
            invocations::take_back(tx, &ended, until_ms).expect("it goes back");
            ended = timers::get(tx, timer.id).expect("readable");
            assert_eq!(ended.next_fire_at_ms, Some(until_ms));
            ended.fired_until_ms = Some(i64::MAX);
            fires::dealt_ahead(tx, &ended).expect("readable");
            timers::dealt_until_ms(tx, timer.invocation).expect("readable");
            timers::end(tx, timer.id).expect("it ends");
        });
        if timer.overlap == OverlapPolicy::Queue {
            finish_repeating(traced, timer.invocation);
        }
    }
}

/// Ends the executions of an invocation that waited for one another, and with the last of them itself.
fn finish_repeating(traced: &mut Traced, invocation: i64) {
    let newest = traced.write(|tx| fires::queue(tx, STANDING.priority, 0, 100).expect("readable"));
    let mut finished = 0;
    for (fire, _) in newest {
        let job = traced.write(|tx| invocations::job_of_fire(tx, fire).expect("readable"));
        let own = traced.write(|tx| invocations::find(tx, job.invoke_id).expect("it is there"));
        if own != invocation {
            continue;
        }
        let claimed = traced.write(|tx| claim(tx, fire));
        let mut all = ended(fire, &claimed);
        all.iter_mut().for_each(|ended| ended.lets_wait = true);
        let end = |tx: Tx<'_>| finish(tx, &all);
        finished += traced.step("finish, others wait", end).invocations.len();
    }
    assert_eq!(finished, 1);
}

fn wait_and_list(traced: &mut Traced) {
    let request = RunCommand::shell("true").on(INSTANCES).tag("a", "1").name("named");
    let (invocation, claimed) = traced.write(|tx| insert(tx, &request, true));
    let ClaimedAtOnce { sole, claimed } = claimed.expect("claimed");
    let fire = sole.fire;
    traced.write(|tx| finish(tx, &ended(fire, &claimed)));
    let job = traced.write(|tx| invocations::job_of_fire(tx, fire).expect("readable"));
    traced.step("wait", |tx| {
        invocations::find(tx, job.invoke_id).expect("it is there");
        invocations::final_status(tx, invocation).expect("readable").expect("it has ended");
        assert_eq!(records::all_of(tx, invocation).expect("readable").0.len(), INSTANCES.len());
    });
    traced.step("find by an id or a name", |tx| {
        let id = job.invoke_id.to_string();
        assert_eq!(invocations::called(tx, &id, 2).expect("readable"), [job.invoke_id]);
        assert_eq!(invocations::called(tx, "named", 2).expect("readable"), [job.invoke_id]);
    });
    let (all, of) = (DescribeInvocationResults::default(), Some(job.invoke_id));
    let of_invocation = DescribeInvocationResults { invoke_id: of, ..all.clone() };
    let history = DescribeInvocationResults { include_history: true, ..of_invocation.clone() };
    let on = DescribeInvocationResults { instance_id: Some("i-0".into()), ..all.clone() };
    let both = DescribeInvocationResults { invoke_id: of, ..on.clone() };
    let status = Some(ExecutionStatus::Success);
    let of_status = DescribeInvocationResults { status, ..all.clone() };
    let command_id = Some(job.command_id);
    let of_command = DescribeInvocationResults { command_id, ..all.clone() };
    let tagged = DescribeInvocationResults { tags: vec![Tag::new("a", "1")], ..all.clone() };
    let filters = [
        ("results, all", all),
        ("results of an invocation", of_invocation),
        ("results of an invocation, with history", history),
        ("results on an instance", on),
        ("results of an invocation on an instance", both),
        ("results of a status", of_status),
        ("results of a command", of_command),
        ("results of a tag", tagged),
    ];
    for (name, filter) in filters {
        traced.step(name, |tx| {
            for (after, counts) in
                [(None, true), (Some(PageToken { key: i64::MAX, until: None }), false)]
            {
                let slice = Slice { after, skipped: 0, size: 1, counts };
                records::list(tx, &filter, slice, ContentEncoding::PlainText).expect("readable");
            }
        });
    }
}

/// Whether a line of a plan says that its cost grows with a table, or that rows are sorted.
fn is_costly(line: &str) -> bool {
    let is_small = SMALL.iter().any(|small| line.starts_with(small));
    (line.starts_with("SCAN ") && !is_small) || line.starts_with("USE TEMP B-TREE")
}

/// All plans, as in the pinned file, and what no plan may have.
fn explain(traced: &Traced) -> (String, Vec<String>) {
    let (mut text, mut refused) = (String::new(), Vec::new());
    let mut used = [false; ALLOWED.len()];
    for (step, statements) in &traced.steps {
        let mut title = format!("# {step}\n");
        for (sql, took) in statements {
            let plan = traced.plan(sql);
            if plan.is_empty() {
                continue;
            }
            let name = name(sql);
            let steps_max = took.unsigned_abs().next_power_of_two();
            writeln!(text, "{title}{name}  (up to {steps_max} steps)").expect("memory");
            title.clear();
            for line in plan {
                writeln!(text, "    {line}").expect("memory");
                let line = line.trim_start();
                let is_allowed = |(begins, allowed, _): &(&str, &str, &str)| {
                    format!("{step}: {name}").starts_with(begins) && line == *allowed
                };
                if let Some(allowed) = ALLOWED.iter().position(is_allowed) {
                    used[allowed] = true;
                } else if is_costly(line) {
                    refused.push(format!("{step}: {name}: {line}"));
                }
            }
        }
    }
    let unused = ALLOWED.iter().zip(used).filter(|(_, used)| !used);
    refused.extend(unused.map(|(allowed, _)| format!("no longer so: {allowed:?}")));
    (text, refused)
}

#[test]
fn hot_statements_are_carried_out_as_planned() {
    let mut traced = Traced::open();
    submit(&mut traced);
    claim_and_finish(&mut traced);
    look(&mut traced);
    let_loose(&mut traced);
    stop(&mut traced);
    boot(&mut traced);
    wait_and_list(&mut traced);
    hold_and_admit(&mut traced);
    let (plans, refused) = explain(&traced);
    assert!(refused.is_empty(), "these read all of a table, or sort: {refused:#?}");
    assert!(
        plans == PINNED,
        "plans have changed; if they should, engine/store/plans.txt is now:\n{plans}"
    );
}

/// A file in which an invocation of each kind has fired many times.
struct History {
    traced: Traced,
    repeating: Vec<(i64, InvokeId)>,
    timers: Vec<timers::Timer>,
    fires: i64,
}

impl History {
    fn of(fires: i64) -> Self {
        let traced = Traced::open();
        let plain = || RunCommand::shell("true").on(INSTANCES).frequency("rate(1m)").tag("a", "1");
        let requests = [
            plain(),
            // Its first fire goes on, and all others are skipped.
            plain().overlap_policy(OverlapPolicy::Skip),
            // Each execution fails, and is tried again.
            plain().retry(Retry::attempts(2)),
            // Its first fire goes on, and so does the second beside it.
            plain().overlap_policy(OverlapPolicy::Allow),
        ];
        let mut repeating = Vec::new();
        for request in &requests {
            repeating.push(traced.write(|tx| {
                let (row, _) = insert(tx, request, false);
                let id = tx.one("SELECT invoke_id FROM invocations WHERE id = ?1", [row], |row| {
                    row.get(0)
                });
                (row, InvokeId::from_bytes(id.expect("it is stored")))
            }));
        }
        let due = traced.write(|tx| timers::due(tx, NOW_MS, 10).expect("readable"));
        let timers: Vec<_> = due.into_iter().map(|found| found.timer.expect("readable")).collect();
        let mut history = Self { traced, repeating, timers, fires: 0 };
        // The invocation that runs once comes before the whole history.
        history.run_once();
        (0..fires).for_each(|_| history.fire());
        history
    }

    /// Has two invocations run once. The executions of the second fail, and are tried again.
    fn run_once(&mut self) {
        let plain = RunCommand::shell("true").on(INSTANCES).tag("a", "1");
        for request in [plain.clone(), plain.retry(Retry::attempts(2))] {
            self.traced.write(|tx| {
                let (_, claimed) = insert(tx, &request, false);
                assert!(claimed.is_none());
                let fire: i64 =
                    tx.one("SELECT max(id) FROM fires", (), |row| row.get(0)).expect("one");
                let mut all = ended(fire, &claim(tx, fire));
                if request.retry.is_some() {
                    all.iter_mut().for_each(|one| one.retry_after_ms = Some(0));
                    finish(tx, &all);
                    claims::release_due(tx, i64::MAX, 10).expect("readable");
                    all = ended(fire, &claim(tx, fire));
                }
                finish(tx, &all);
            });
        }
    }

    /// Lets each invocation fire once more, and ends the executions that its kind lets end.
    fn fire(&mut self) {
        let at_ms = NOW_MS + 60_000 * self.fires;
        for (kind, timer) in self.timers.iter().enumerate() {
            let goes_on = self.fires == 0 && (kind == 1 || kind == 3);
            self.traced.write(|tx| {
                let targets = targets::of_timer(tx, timer.invocation, timer.id).expect("readable");
                let fired = firing::by_timer(tx, timer, &targets, at_ms, false, at_ms, &mut 9);
                fired.expect("it fires");
                let fire: i64 =
                    tx.one("SELECT max(id) FROM fires", (), |row| row.get(0)).expect("one");
                let claimed = claim(tx, fire);
                if goes_on || claimed.is_empty() {
                    return;
                }
                let mut all = ended(fire, &claimed);
                if kind == 2 {
                    all.iter_mut().for_each(|one| one.retry_after_ms = Some(0));
                    assert_eq!(finish(tx, &all).retries.len(), INSTANCES.len());
                    claims::release_due(tx, at_ms, 10).expect("readable");
                    all = ended(fire, &claim(tx, fire));
                }
                finish(tx, &all);
            });
        }
        self.fires += 1;
    }

    /// Returns the cost of each read, by name.
    fn reads(&mut self) -> Vec<(String, i32)> {
        let mut costs = Vec::new();
        let repeating = self.repeating.clone();
        for (kind, (row, invoke_id)) in repeating.into_iter().enumerate() {
            let traced = &self.traced;
            let mut read = |name: &str, op: &dyn Fn(Tx<'_>)| {
                // Run twice, because SQLite reads the schema the first time.
                traced.cost(op);
                costs.push((format!("{name}, of kind {kind}"), traced.cost(op)));
            };
            let of = DescribeInvocationResults { invoke_id: Some(invoke_id), ..Default::default() };
            let on = DescribeInvocationResults { instance_id: Some("i-1".into()), ..of.clone() };
            let all = DescribeInvocationResults { include_history: true, ..of.clone() };
            let all_on = DescribeInvocationResults { include_history: true, ..on.clone() };
            let page = |tx: Tx<'_>, filter: &DescribeInvocationResults, after, counts| {
                let slice = Slice { after, skipped: 0, size: 2, counts };
                let page = records::list(tx, filter, slice, ContentEncoding::PlainText);
                let page = page.expect("readable");
                assert!(page.unreadable.is_empty());
                page
            };
            read("a page of the latest, counted", &|tx| {
                assert!(!page(tx, &of, None, true).entries.is_empty())
            });
            read("two pages of the latest", &|tx| {
                let first = page(tx, &of, None, false);
                assert_eq!(page(tx, &of, first.next, false).entries.len(), 1);
            });
            read("the latest on an instance", &|tx| {
                assert_eq!(page(tx, &on, None, false).entries.len(), 1)
            });
            read("two pages of the history", &|tx| {
                let first = page(tx, &all, None, false);
                assert_eq!(page(tx, &all, first.next, false).entries.len(), 2);
            });
            read("a page of the history on an instance", &|tx| {
                page(tx, &all_on, None, false);
            });
            let describe = DescribeInvocations { invoke_id: Some(invoke_id), ..Default::default() };
            let narrowed = DescribeInvocations {
                instance_id: Some("i-1".into()),
                status: Some(InvocationStatus::Running),
                ..describe.clone()
            };
            for (name, filter) in [("described", describe), ("described if it runs", narrowed)] {
                read(name, &|tx| {
                    let slice = Slice { after: None, skipped: 0, size: 2, counts: true };
                    invocations::list(tx, &filter, slice, ContentEncoding::PlainText)
                        .expect("readable");
                });
            }
            read("as one of several", &|tx| {
                let slice = Slice { after: None, skipped: 0, size: 2, counts: true };
                let narrows = [InvocationNarrow::Id(vec![invoke_id])];
                let found = selections::of_invocations(tx, &narrows, slice).expect("readable");
                assert_eq!(found.entries[0].tasks.len(), INSTANCES.len());
            });
            read("status", &|tx| {
                assert!(!invocations::status(tx, row).expect("readable").is_final())
            });
            read("the results of a wait", &|tx| {
                assert_eq!(records::all_of(tx, row).expect("readable").0.len(), INSTANCES.len());
            });
            read("a page of fires", &|tx| {
                let slice = Slice { after: None, skipped: 0, size: 2, counts: false };
                assert_eq!(fires::list(tx, row, slice).expect("readable").entries.len(), 2);
            });
            read("explained", &|tx| {
                let timer =
                    timers::of_invocation(tx, row).expect("readable").pop().expect("one").id;
                let (fire, _) =
                    fires::last_before(tx, timer, i64::MAX).expect("readable").expect("one");
                records::of_fire(tx, fire).expect("readable");
                fires::beside_schedule(tx, row, NOW_MS, NOW_MS + 1_000).expect("readable");
            });
            read("a watcher's first look", &|tx| {
                records::first_look(tx, row).expect("readable");
            });
        }
        self.reads_of_all(&mut costs);
        self.next_looks(&mut costs);
        costs
    }

    /// Adds the costs of reads that name no invocation.
    fn reads_of_all(&self, costs: &mut Vec<(String, i32)>) {
        let mut read = |name: &str, op: &dyn Fn(Tx<'_>)| {
            self.traced.cost(op);
            costs.push((name.to_owned(), self.traced.cost(op)));
        };
        let slice = |after, counts| Slice { after, skipped: 0, size: 2, counts };
        let latest = |tx: Tx<'_>, filter: &DescribeInvocationResults, after, counts| {
            let page = records::list(tx, filter, slice(after, counts), ContentEncoding::PlainText);
            page.expect("readable")
        };
        let all = DescribeInvocationResults::default();
        let on = DescribeInvocationResults { instance_id: Some("i-1".into()), ..all.clone() };
        let tagged = DescribeInvocationResults { tags: vec![Tag::new("a", "1")], ..all.clone() };
        for (name, filter) in [("all", &all), ("an instance", &on), ("a tag", &tagged)] {
            read(&format!("a page of the latest of {name}, counted"), &|tx| {
                assert_eq!(latest(tx, filter, None, true).entries.len(), 2);
            });
            read(&format!("the pages of the latest of {name}"), &|tx| {
                let (mut after, mut count) = (None, 0);
                loop {
                    let page = latest(tx, filter, after, false);
                    count += page.entries.len();
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert!(count > self.repeating.len(), "what runs once is told of too");
            });
        }
        read("tasks", &|tx| {
            let found = selections::of_executions(tx, &[], slice(None, true), false);
            let total: u64 =
                tx.one("SELECT count(*) FROM executions", (), |row| row.get(0)).expect("readable");
            assert_eq!(found.expect("readable").total, Some(total));
        });
        for (_, id) in &self.repeating {
            read("tasks of an invocation", &|tx| {
                let narrows = [ExecutionNarrow::Invocation(vec![*id])];
                let found = selections::of_executions(tx, &narrows, slice(None, true), false);
                assert_eq!(found.expect("readable").entries.len(), 2);
            });
        }
        read("what goes on at an instance", &|tx| {
            let target = instances::find(tx, &"i-1".into()).expect("readable").expect("there");
            let found = instances::activity(tx, &[target]).expect("readable");
            assert!(found[0].started_at_ms.is_some());
        });
    }

    /// Adds the costs of watchers' next looks after another fire.
    fn next_looks(&mut self, costs: &mut Vec<(String, i32)>) {
        let looks = self.traced.write(|tx| {
            let looks = self
                .repeating
                .iter()
                .map(|(row, _)| records::first_look(tx, *row).expect("readable"));
            looks.collect::<Vec<_>>()
        });
        self.fire();
        for (kind, (look, (row, _))) in looks.iter().zip(&self.repeating).enumerate() {
            let open = look.progress.iter().filter(|one| one.finished_at_ms.is_none());
            let open: Vec<_> = open.map(|one| one.id).collect();
            let next = |tx: Tx<'_>| {
                let next = records::next_look(tx, *row, look.until, &open).expect("readable");
                let new = if kind == 2 { 2 * INSTANCES.len() } else { INSTANCES.len() };
                assert_eq!(next.progress.len(), open.len() + new, "{kind}");
            };
            self.traced.cost(next);
            costs.push((format!("a watcher's next look, of kind {kind}"), self.traced.cost(next)));
        }
    }
}

#[test]
fn a_read_of_an_invocation_costs_the_same_however_often_it_has_fired() {
    let (few, many) = (History::of(8).reads(), History::of(400).reads());
    let mut grown = Vec::new();
    for ((name, few), (_, many)) in few.into_iter().zip(many) {
        assert!(few > 0, "{name} has not been measured");
        if many > few + few / 4 + 50 {
            grown.push(format!("{name}: {few} steps after 8 fires, {many} after 400"));
        }
    }
    assert!(grown.is_empty(), "these grow with the history: {grown:#?}");
}

/// Adds the costs of searches for executions that may go on beside an order to stop very many executions.
#[test]
fn a_search_for_executions_costs_the_same_however_many_a_stop_is_about() {
    let costs = |fires: i64| {
        let traced = Traced::open();
        let plain = || RunCommand::shell("true").on(INSTANCES);
        let repeating = plain().frequency("rate(1m)").overlap_policy(OverlapPolicy::Allow);
        let (invocation, _) = traced.write(|tx| insert(tx, &repeating, false));
        let timer = traced.write(|tx| timers::due(tx, NOW_MS, 1).expect("readable").pop());
        let timer = timer.expect("one is due").timer.expect("readable");
        let rows = traced.write(|tx| {
            let targets = targets::of_timer(tx, invocation, timer.id).expect("readable");
            for n in 0..fires {
                let at_ms = NOW_MS + 60_000 * n;
                let fired = firing::by_timer(tx, &timer, &targets, at_ms, false, at_ms, &mut 9);
                fired.expect("it fires");
            }
            targets
        });
        let mark = "UPDATE executions SET awaits_instance = id";
        assert_eq!(traced.connection.execute(mark, ()).expect("they wait") as i64, 3 * fires);
        traced.write(|tx| {
            let (order, aside) = (StopOrder::from(StopReason::Stopped), Aside::default());
            let stopped = stop::invocation(tx, invocation, &[], &order, NOW_MS, 0, &aside);
            assert!(stopped.expect("readable").left.is_some());
        });
        let first =
            traced.connection.query_row("SELECT min(id) FROM executions", (), |row| row.get(0));
        let first = ExecutionId(first.expect("one waits"));
        type Search<'a> = (&'static str, &'a (dyn Fn(Tx<'_>) + 'a));
        let searches: [Search<'_>; 3] = [
            ("the line for an instance", &|tx| {
                let next = claims::next_awaiting(tx, rows[0], Place::FIRST).expect("readable");
                assert!(next.expect("one waits").is_held);
            }),
            ("behind an execution", &|tx| {
                assert!(claims::release(tx, first).expect("readable").is_none());
            }),
            ("what a fire meets", &|tx| {
                let met = stop::Unfinished::oldest_on(tx, invocation, &rows).expect("readable");
                assert!(met.is_empty());
                let met = stop::Unfinished::waiting_on(tx, invocation, &rows).expect("readable");
                assert!(met.is_empty());
            }),
        ];
        // Twice, for the first time SQLite reads the schema.
        searches.map(|(name, search)| {
            traced.cost(search);
            (name, traced.cost(search))
        })
    };
    for ((name, few), (_, many)) in costs(4).into_iter().zip(costs(400)) {
        assert!(few > 0, "{name} has not been measured");
        assert!(many <= few + 50, "{name}: {few} steps beside 4 fires, {many} beside 400");
    }
}

/// The pages of the latest results, of one execution or more, hold the same results as a look at every execution.
#[test]
fn the_pages_of_the_latest_results_hold_each_once_and_in_order() {
    let mut history = History::of(3);
    for _ in 0..4 {
        history.run_once();
        history.fire();
    }
    let wanted: Vec<i64> = history.traced.write(|tx| {
        let sql = "SELECT e.id FROM executions e JOIN fires f ON f.id = e.fire
                JOIN invocations v ON v.id = f.invocation LEFT JOIN targets t
                    ON t.invocation = v.id AND t.instance = e.instance
            WHERE iif(t.id IS NULL, NOT EXISTS (SELECT 1 FROM executions l
                    WHERE l.fire = e.fire AND l.instance = e.instance AND l.attempt > e.attempt),
                t.latest_execution = e.id)
            ORDER BY e.id DESC";
        let mut query = tx.prepare(sql).expect("sound SQL");
        let ids = query.query_map((), |row| row.get(0)).expect("sound SQL");
        ids.collect::<rusqlite::Result<_>>().expect("readable")
    });
    let filter = DescribeInvocationResults::default();
    for size in [1, 2, 5, 7, 1_000] {
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let slice = Slice { after, skipped: 0, size, counts: true };
            let page = history.traced.write(|tx| {
                records::list(tx, &filter, slice, ContentEncoding::PlainText).expect("readable")
            });
            assert_eq!(page.total, Some(wanted.len() as u64), "{size}");
            found.extend(page.entries.iter().map(|one| one.execution_id.0));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, wanted, "pages of {size}");
    }
}

/// Four executions run. Beside them many fires wait, and many executions of one of the fires that run.
#[test]
fn executions_left_running_are_found_at_the_same_cost_however_many_wait() {
    let cost = |waiting: usize| {
        let traced = Traced::open();
        let request = RunCommand::shell("true").on(INSTANCES);
        traced.write(|tx| {
            for _ in 0..waiting {
                insert(tx, &request, false);
            }
            insert(tx, &request, true);
            insert(tx, &request, false);
            let fire: i64 =
                tx.one("SELECT max(id) FROM fires", (), |row| row.get(0)).expect("one");
            let claim = Claim {
                fire,
                after: 0,
                until: i64::MAX,
                max: 1,
                has_waves: false,
                is_late: false,
                standing: STANDING,
                now_ms: NOW_MS,
            };
            assert_eq!(claims::claim(tx, &claim, |_| true).expect("readable").claimed.len(), 1);
            let more = "WITH RECURSIVE more (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < ?2)
                INSERT INTO executions (fire, instance, attempt, status) SELECT ?1, 100 + n, 1, 'Pending' FROM more";
            tx.execute(more, (fire, waiting)).expect("sound SQL");
        });
        let find = |tx: Tx<'_>| {
            assert_eq!(
                executions::unended(tx).expect("readable").unended.len(),
                INSTANCES.len() + 1
            );
        };
        traced.cost(find);
        traced.cost(find)
    };
    let (few, many) = (cost(4), cost(400));
    assert!(many <= few + few / 4, "{few} steps beside 4 that wait, {many} beside 400");
}

//! What SQLite alone does with rows like the engine's, and how far the engine stays behind it; on disk
//! with `synchronous=FULL`.
//!
//!     cargo bench --bench store
//!     ROUNDS=21 cargo bench --bench store -- engine    # only one beside the other
//!
//! `rows`: 10,000 rows in batches of 500, inserted, set running, set finished, with a transaction for each
//! of these steps. `commits`: one row a transaction, which is what a commit costs. `engine`: the `many
//! targets` of `dispatch` and `rows` in turns, and the median of their ratios.

mod fleet;

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use adjutant::Engine;
use criterion::{Criterion, Throughput, criterion_group};
use rusqlite::{Connection, Transaction};
use tokio::runtime::Runtime;

use fleet::{EXECUTIONS, INSTANCES, PLACES};

const BATCH: usize = 500;
/// Rows of `commits`.
const COMMITS: usize = 100;
/// Rounds in which each has its turn, unless `ROUNDS` says otherwise.
const ROUNDS: usize = 11;

/// The columns that most executions need, and an index of those that have not ended.
const TABLES: &str = "
    CREATE TABLE executions (
        id             INTEGER PRIMARY KEY,
        fire           INTEGER NOT NULL,
        instance       INTEGER NOT NULL,
        attempt        INTEGER NOT NULL,
        status         TEXT NOT NULL,
        started_at_ms  INTEGER,
        finished_at_ms INTEGER,
        exit_code      INTEGER,
        room           BLOB
    ) STRICT;
    CREATE INDEX executions_unfinished ON executions (id) WHERE finished_at_ms IS NULL;";
const INSERT: &str = "INSERT INTO executions (fire, instance, attempt, status, room)
    VALUES (?1, ?2, 1, 'Pending', zeroblob(12))";
const START: &str =
    "UPDATE executions SET status = 'Running', started_at_ms = ?2, room = zeroblob(6)
    WHERE id = ?1 AND status = 'Pending'";
const FINISH: &str = "UPDATE executions SET status = 'Success', finished_at_ms = ?2, exit_code = 0,
    room = NULL WHERE id = ?1 AND status = 'Running'";
/// Any time.
const NOW_MS: i64 = 1_700_000_000_000;

/// SQLite and nothing else.
struct Bare(Connection);

impl Bare {
    fn open(folder: &Path) -> Self {
        let connection = Connection::open(folder.join("bare.db")).expect("a new file opens");
        connection.pragma_update(None, "journal_mode", "wal").expect("a WAL");
        connection.pragma_update(None, "synchronous", "full").expect("synced commits");
        connection.execute_batch(TABLES).expect("the tables");
        Self(connection)
    }

    fn commit<T>(&mut self, op: impl FnOnce(&Transaction<'_>) -> T) -> T {
        let tx = self.0.transaction().expect("nobody else writes");
        let done = op(&tx);
        tx.commit().expect("the disk takes it");
        done
    }

    /// Stores rows; their numbers.
    fn insert(&mut self, rows: usize) -> Vec<i64> {
        self.commit(|tx| {
            let mut insert = tx.prepare_cached(INSERT).expect("sound SQL");
            let row = |n: usize| insert.insert((n / INSTANCES, n % INSTANCES)).expect("a row");
            (0..rows).map(row).collect()
        })
    }

    fn update(&mut self, sql: &str, rows: &[i64]) {
        self.commit(|tx| {
            let mut update = tx.prepare_cached(sql).expect("sound SQL");
            for id in rows {
                assert_eq!(update.execute((id, NOW_MS)).expect("a change"), 1);
            }
        });
    }

    /// The time from the first row to the last that has finished.
    fn rows(&mut self) -> Duration {
        let began = Instant::now();
        for _ in 0..EXECUTIONS / BATCH {
            let rows = self.insert(BATCH);
            self.update(START, &rows);
            self.update(FINISH, &rows);
        }
        began.elapsed()
    }

    fn commits(&mut self) -> Duration {
        let began = Instant::now();
        (0..COMMITS).for_each(|_| drop(self.insert(1)));
        began.elapsed()
    }
}

async fn open(folder: &Path) -> Engine {
    let engine = Engine::builder()
        .path(folder.join("engine.db"))
        .max_concurrent(PLACES)
        .executor("bench", fleet::at_once())
        .open()
        .await
        .expect("a new file opens");
    fleet::register(&engine, INSTANCES).await;
    engine
}

fn store(c: &mut Criterion) {
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk to be measured");
    let mut bare = Bare::open(folder.path());
    let mut group = c.benchmark_group("store");
    group.sample_size(10).throughput(Throughput::Elements(EXECUTIONS as u64));
    group.bench_function("rows", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| bare.rows()).sum());
    });
    group.throughput(Throughput::Elements(COMMITS as u64));
    group.bench_function("commits", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| bare.commits()).sum());
    });
    group.finish();
}

/// The engine beside SQLite alone, in turns.
fn engine() {
    let given = env::var("ROUNDS").ok();
    let rounds = given.map_or(ROUNDS, |text| text.parse().expect("a number of rounds"));
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir_in(".").expect("a folder on the disk to be measured");
    let mut bare = Bare::open(folder.path());
    let engine = runtime.block_on(open(folder.path()));
    let rate = |took: Duration| EXECUTIONS as f64 / took.as_secs_f64();
    let (mut rows, mut executions, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        rows.push(rate(bare.rows()));
        executions.push(rate(runtime.block_on(fleet::many_targets(&engine))));
        ratios.push(executions[executions.len() - 1] / rows[rows.len() - 1]);
    }
    runtime.block_on(engine.shutdown(Duration::from_secs(5)));
    println!("medians of {rounds} rounds");
    println!(
        "{:<52} {:>12.0} /s",
        "SQLite alone, batches of 500, three commits each",
        median(rows)
    );
    println!("{:<52} {:>12.0} /s", "engine, 100 invocations x 100 instances", median(executions));
    println!("{:<52} {:>12.2}", "ratio", median(ratios));
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

criterion_group!(benches, store);

fn main() {
    // Cargo adds `--bench`.
    let asked: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| asked.is_empty() || asked.iter().any(|one| one == name);
    if wanted("engine") {
        engine();
    }
    if wanted("rows") || wanted("commits") {
        benches();
        Criterion::default().configure_from_args().final_summary();
    }
}

//! What `top` shows: what the file says, and what the process that runs it says of itself.

mod rates;
mod view;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use adjutant::{Engine, ExecutionStatus, Overview, OverviewExecution, OverviewTimer};
use chrono::{DateTime, Utc};

use crate::control::{Client, DescribeFigures, Figures};
use crate::failure::Failure;
use crate::plain::one_line;
use crate::render;

use rates::{Meter, Rates};
pub(crate) use view::View;

/// Lines of each list; more than any terminal has.
const LINES_MAX: usize = 200;
/// How long the process that runs the file may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(400);

/// What is shown.
#[derive(Debug, Clone)]
pub(crate) struct State {
    database: String,
    now: DateTime<Utc>,
    /// None if nobody answers for the file.
    figures: Option<Figures>,
    rates: Option<Rates>,
    /// Executions that have not ended, and whether there may be more, as the file says.
    unended: (u64, bool),
    running: Vec<Execution>,
    ended: Vec<Execution>,
    due: Vec<Timer>,
}

/// An execution.
#[derive(Debug, Clone)]
struct Execution {
    run: String,
    name: String,
    instance: String,
    status: ExecutionStatus,
    started: Option<DateTime<Utc>>,
    finished: Option<DateTime<Utc>>,
}

/// A schedule that will fire.
#[derive(Debug, Clone)]
struct Timer {
    run: String,
    name: String,
    frequency: String,
    at: DateTime<Utc>,
}

impl From<OverviewExecution> for Execution {
    fn from(one: OverviewExecution) -> Self {
        Self {
            run: one.invoke_id.to_string(),
            name: render::title("", &one.command),
            instance: one_line(one.instance_id.as_str()),
            status: one.status,
            started: one.start_time,
            finished: one.finish_time,
        }
    }
}

impl From<OverviewTimer> for Timer {
    fn from(one: OverviewTimer) -> Self {
        Self {
            run: one.invoke_id.to_string(),
            name: render::title("", &one.command),
            frequency: one_line(&one.frequency),
            at: one.due_time,
        }
    }
}

/// Looks at a file again and again.
pub(crate) struct Observer {
    engine: Engine,
    database: PathBuf,
    meter: Meter,
}

impl Observer {
    /// One that reads with this engine.
    pub(crate) fn new(engine: Engine, database: &Path) -> Self {
        Self { engine, database: database.to_owned(), meter: Meter::default() }
    }

    pub(crate) async fn look(&mut self) -> Result<State, Failure> {
        let answer = tokio::time::timeout(ANSWER_MAX, figures(&self.database));
        let figures = answer.await.ok().flatten();
        let Overview { unended, more_unended, running, ended, due, .. } =
            self.engine.overview(LINES_MAX).await?;
        Ok(State {
            database: one_line(&self.database.to_string_lossy()),
            now: Utc::now(),
            figures,
            rates: self.meter.read(Instant::now(), figures),
            unended: (unended, more_unended),
            running: running.into_iter().map(Execution::from).collect(),
            ended: ended.into_iter().map(Execution::from).collect(),
            due: due.into_iter().map(Timer::from).collect(),
        })
    }
}

/// What the process that runs the file says of itself. It is not kept from ending by who looks: each look
/// is a conversation of its own.
async fn figures(database: &Path) -> Option<Figures> {
    let mut client = Client::connect(database).await.ok()??;
    client.call(&DescribeFigures {}).await.ok()
}

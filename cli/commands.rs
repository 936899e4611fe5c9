//! What each command does: arguments to requests, answers to text or JSON.

mod api;
mod attend;
mod called;
mod instances;
pub(crate) mod load;
pub(crate) mod next;
mod preview;
mod ps;
mod record;
mod repeating;
mod run;
mod serve;
mod show;
mod stop;
mod stored;
mod top;

use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;

use crate::args::{Arguments, Verb};
use crate::database::{Database, Opening};
use crate::failure::Failure;
use crate::interrupt::Interrupts;
use crate::session::{Need, Session};
use crate::{background, ui};

/// The exit status of a run that did not succeed everywhere.
const NOT_ALL_SUCCEEDED: u8 = 1;

/// The exit status after a Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// What all commands have in common.
struct Context {
    database: Database,
    json: bool,
    interrupts: Interrupts,
}

/// Carries out the command line; the exit status.
pub(crate) async fn perform(arguments: Arguments) -> Result<u8, Failure> {
    Opening { is_strict: !arguments.no_strict_modes, adopts: arguments.adopt }.choose();
    let verb = match arguments.verb {
        // These need no database, and nothing that would have to be interrupted with care.
        Verb::Completions { shell } => return completions(shell),
        Verb::Next(next) => return next::next(next, arguments.json),
        // This has a database of its own.
        Verb::Load(load) => return load::load(arguments.db, load, arguments.json).await,
        verb => verb,
    };
    let context = Context {
        interrupts: Interrupts::catch()?,
        database: Database::find(arguments.db)?,
        json: arguments.json,
    };
    match verb {
        Verb::Run(run) => run::run(&context, run).await,
        Verb::Invoke(invoke) => run::invoke(&context, invoke).await,
        Verb::Serve => serve::serve(&context).await,
        Verb::Ps(ps) => ps::ps(&context, &ps).await,
        Verb::Top => top::top(&context).await,
        Verb::Show(show) => show::show(&context, &show).await,
        Verb::Stop(stop) => stop::stop(&context, stop).await,
        Verb::Retry(retry) => run::retry(&context, retry).await,
        Verb::Pause(run) => repeating::pause(&context, &run.run).await,
        Verb::Resume(run) => repeating::resume(&context, &run.run).await,
        Verb::RunNow(run) => repeating::run_now(&context, &run.run).await,
        Verb::Explain(asked) => repeating::explain(&context, &asked).await,
        Verb::Preview(preview) => preview::preview(&context, preview).await,
        Verb::Quota => preview::quota(&context).await,
        Verb::Api(api) => api::api(&context, api).await,
        Verb::Commands(commands) => stored::commands(&context, commands).await,
        Verb::Instances(instances) => instances::instances(&context, instances).await,
        Verb::OwnInBackground => {
            background::own(context.database.path(), &context.interrupts).await.map(|()| 0)
        }
        Verb::Completions { .. } | Verb::Next(_) | Verb::Load(_) => {
            unreachable!("dealt with above")
        }
    }
}

impl Context {
    /// Works with the engine and leaves it; what there is to print is printed afterwards, so that a
    /// slow reader of it keeps nobody from the file.
    async fn with_session<T>(
        &self,
        need: Need,
        work: impl AsyncFnOnce(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut session = if need.is_met_by_a_reader() && self.database.is_missing() {
            Session::on_nothing(self.database.path()).await?
        } else {
            self.database.make_folder()?;
            let session = Session::open(self.database.path(), need).await?;
            self.database.announce();
            session
        };
        self.interrupts.guard(session.engine().cloned());
        let result = work(&mut session).await;
        self.interrupts.unless_leaving().await;
        let closed = session.close(&self.interrupts).await;
        self.interrupts.unless_leaving().await;
        self.interrupts.guard(None);
        result.and_then(|result| closed.map(|()| result))
    }

    /// Prints an answer in the form that was asked for.
    fn answer(
        &self,
        document: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<u8, Failure> {
        if self.json {
            ui::print_json(document)?
        } else {
            ui::print(text().as_bytes())?
        }
        Ok(0)
    }
}

fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "adjutant", &mut script);
    ui::print(&script).map(|()| 0)
}

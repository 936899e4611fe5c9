//! Runs of the process executor that need its helpers: this program started again. So it has a `main` of
//! its own, which can also be that of a host, for tests that end one.

mod behind;
mod descriptors;
mod failures;
#[path = "../faults/mod.rs"]
mod faults;
mod folders;
mod harness;
mod host;
mod interrupted;
mod leftovers;
mod limits;
mod orphans;
mod results;
mod signals;
mod strangers;
mod survivors;
mod trees;
mod users;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Conclusion};

fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    if role.as_deref() != Some(host::WITHOUT_HELPER) {
        adjutant::helper_main();
    }
    if role.as_deref() == Some(host::WITH_REAPER) {
        adjutant::reap_orphans().expect("the program starts again");
    }
    if role.is_some_and(|role| {
        [host::WITH_HELPER, host::WITH_REAPER, host::WITHOUT_HELPER].contains(&role.as_str())
    }) {
        host::serve();
        return ExitCode::SUCCESS;
    }
    let trials = [
        behind::trials(),
        descriptors::trials(),
        failures::trials(),
        folders::trials(),
        interrupted::trials(),
        leftovers::trials(),
        limits::trials(),
        orphans::trials(),
        results::trials(),
        signals::trials(),
        strangers::trials(),
        survivors::trials(),
        trees::trials(),
        users::trials(),
    ];
    let conclusion = run(trials.into_iter().flatten().collect());
    harness::remove_accounts();
    conclusion.exit_code()
}

fn run(trials: Vec<libtest_mimic::Trial>) -> Conclusion {
    libtest_mimic::run(&Arguments::from_args(), trials)
}

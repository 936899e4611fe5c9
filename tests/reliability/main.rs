//! Promises that hold whatever happens, for owners of a file that are killed and for the whole engine in a simulated
//! world. Because the tests start owners and worlds as processes, this program has a `main` of its own, which can
//! also be an owner or a world.

mod crashes;
#[path = "../faults/mod.rs"]
mod faults;
mod invariants;
mod random;
mod requests;
mod simulation;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    adjutant::helper_main();
    match std::env::args().nth(1).as_deref() {
        Some(crashes::ROLE) => crashes::own(),
        Some(simulation::ROLE) => simulation::world(),
        _ => {
            let trials = crashes::trials().into_iter().chain(simulation::trials()).collect();
            return libtest_mimic::run(&Arguments::from_args(), trials).exit_code();
        }
    }
    ExitCode::SUCCESS
}

//! The program from outside: real processes, real files, real sockets.

mod api;
mod control;
#[path = "../../../tests/faults/mod.rs"]
mod faults;
mod files;
mod harness;
mod input;
mod load;
mod next;
mod output;
mod owners;
mod parameters;
mod repeating;
mod run;
mod schedules;
mod signals;
mod socket;
mod terminals;
mod top;
#[path = "../../../tests/tzif/mod.rs"]
mod tzif;

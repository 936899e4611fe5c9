//! The engine through its public API, one module per capability.

mod bad_input;
mod commands;
mod durability;
mod instances;
mod invocations;
mod support;
mod watch;

//! The engine through its public API, one module per capability.

mod bad_input;
mod commands;
mod durability;
mod instances;
mod invocations;
mod recurrence;
mod schedule;
mod schedule_dst;
mod schedule_laws;
mod schedule_oracle;
mod schedule_refusals;
mod support;
mod virtual_year;
mod watch;

//! The engine through its public API, one module per capability.

mod bad_input;
mod commands;
mod durability;
mod explain;
mod instances;
mod invocations;
mod overlap;
mod parameters;
mod pauses;
mod reboots;
mod recurrence;
mod schedule;
mod schedule_dst;
mod schedule_laws;
mod schedule_oracle;
mod schedule_refusals;
mod support;
mod targets;
mod tencent;
mod tokens;
mod virtual_year;
mod watch;

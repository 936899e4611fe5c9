//! Records as text for people.

mod commands;
mod executions;
mod fires;
mod instances;
mod runs;
mod table;
mod units;

pub(crate) use commands::{command, commands};
pub(crate) use executions::{details, exit, results};
pub(crate) use fires::{explanation, fires};
pub(crate) use instances::instances;
pub(crate) use runs::{invocation, invocations, quotas};
pub(crate) use table::title;
pub(crate) use units::{duration, size, span, time};

//! What an invocation was made from, so that another can be made from it.

use rusqlite::Row;

use crate::error::{Error, Result};
use crate::id::{CommandId, InstanceId, InvokeId};
use crate::invocation::request::{Targets, Terms};
use crate::status::ExecutionStatus;
use crate::wire::ContentEncoding;

use super::commands::{Definition, read_json, read_time};
use super::invocations::{self, JOB, read_job};
use super::tags::{self, Tagged};
use super::{Tx, standings};

/// An invocation that has ended: as it was asked for, but at once, once, and only where it did not
/// succeed.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub row: i64,
    /// Its command, if that was kept.
    pub kept_id: Option<CommandId>,
    pub definition: Definition,
    pub terms: Terms,
    /// Whether the values of secret parameters are names in the host's store.
    pub secrets_are_names: bool,
    /// The bytes of the largest content, its parameters filled in.
    pub content_bytes_max: usize,
}

/// An invocation to be run once more where it did not succeed; refused if it has not ended, or has
/// succeeded everywhere.
pub(crate) fn of_failed(tx: Tx<'_>, invoke_id: InvokeId) -> Result<Snapshot> {
    let row = invocations::find(tx, invoke_id)?;
    let refused = |code, why| {
        Err(Error::Conflict { code, message: format!("InvokeId: `{invoke_id}` {why}") })
    };
    if invocations::standing_of(tx, row)?.ended.is_none() {
        let why = "has not ended; wait for its end or stop it";
        return refused("InvalidStatus.InvocationNotEnded", why);
    }
    let failed = failed_on(tx, row)?;
    if failed.is_empty() {
        let why = "succeeded on all of its instances; want one that did not";
        return refused("InvalidStatus.NothingFailed", why);
    }
    take(tx, row, failed)
}

/// The instances where an invocation did not succeed, in the order of its request: those where it
/// never ran are among them.
fn failed_on(tx: Tx<'_>, invocation: i64) -> Result<Vec<InstanceId>> {
    let created_at_ms =
        tx.one("SELECT created_at_ms FROM invocations WHERE id = ?1", [invocation], |row| {
            row.get(0)
        })?;
    let asked = standings::Question {
        creation_time: read_time(created_at_ms)?,
        only: None,
        with_output: false,
        output_to: None,
        encoding: ContentEncoding::PlainText,
    };
    let standings = standings::of_invocation(tx, invocation, &asked)?.into_iter();
    let failed = standings.filter(|standing| standing.status != ExecutionStatus::Success);
    Ok(failed.map(|standing| standing.instance_id).collect())
}

/// An invocation as it was asked for, but once, at once and on these instances only.
fn take(tx: Tx<'_>, invocation: i64, on: Vec<InstanceId>) -> Result<Snapshot> {
    tx.one(
        &format!(
        "SELECT {JOB}, v.rate_control, v.name, v.description, v.resource_group_id, {}, v.id FROM invocations v WHERE v.id = ?1",
        Tagged::Invocation.column("v.id")
    ),
        [invocation],
        |row| Ok(read(tx, row, on)),
    )?
}

fn read(tx: Tx<'_>, row: &Row<'_>, on: Vec<InstanceId>) -> Result<Snapshot> {
    let job = read_job(tx, row)?;
    let enable_parameter = job.arguments.is_some();
    let arguments = job.arguments.unwrap_or_default();
    let definition = Definition {
        name: row.get(26)?,
        description: row.get(27)?,
        command_type: job.command_type,
        content: job.content,
        enable_parameter,
        default_parameters: arguments.defaults.clone(),
        secret_parameters: arguments.secrets.clone(),
        settings: job.settings.clone(),
        timeout_s: job.timeout_s,
    };
    let targets = Targets { instance_ids: on, tags: Vec::new(), resource_group_id: row.get(28)? };
    let terms = Terms {
        token: None,
        tags: tags::read(row, 29)?,
        targets,
        settings: job.settings,
        container: job.container,
        windows_password_name: job.windows_password_name,
        dry_run: false,
        termination_mode: job.termination_mode,
        resource_limits: job.resource_limits,
        survive_restarts: job.survive_restarts,
        recurrence: None,
        retry: job.retry,
        rate_control: read_json(row, 25)?,
        arguments,
    };
    Ok(Snapshot {
        row: row.get(30)?,
        kept_id: row.get::<_, Option<_>>(1)?.map(CommandId::from_bytes),
        definition,
        terms,
        secrets_are_names: job.secrets_are_names,
        content_bytes_max: job.content_bytes_max,
    })
}

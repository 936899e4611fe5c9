//! `instances`: the targets that commands can run on.

use adjutant::{DescribeInstances, Instance, InstanceId, Tag};
use serde::Serialize;

use super::Context;
use crate::args::Instances;
use crate::control::{RegisterInstance, RemoveInstance};
use crate::failure::Failure;
use crate::plain::one_line;
use crate::render;
use crate::session::{Need, Session};
use crate::ui::Target;

pub(super) async fn instances(context: &Context, verb: Instances) -> Result<u8, Failure> {
    match verb {
        Instances::Add { ids, executor, group, tag, time_zone, shell, max_concurrency } => {
            let mut like = Instance::new("").executor(executor);
            like.resource_group_id = group;
            like.tags = tag.into_iter().map(Tag::from).collect();
            like.time_zone = time_zone;
            like.shell = shell;
            like.max_concurrency = max_concurrency;
            add(context, &ids, &like).await
        }
        Instances::List => list(context).await,
        Instances::Remove { ids } => remove(context, &ids).await,
    }
}

/// Registers instances of these names that are all alike.
async fn add(context: &Context, ids: &[InstanceId], like: &Instance) -> Result<u8, Failure> {
    if let Some(id) = ids.iter().find(|id| !can_be_named(id)) {
        let message = format!(
            "the name `{id}` has a comma in it, or a blank at an end; `--on` takes neither"
        );
        return Err(Failure::new("InvalidInstanceId.Malformed", 400, message));
    }
    let register = async |session: &mut Session| {
        for id in ids {
            let mut instance = like.clone();
            instance.instance_id = id.clone();
            session.call(RegisterInstance(instance)).await?;
        }
        Ok(())
    };
    context.with_session(Need::Write, register).await?;
    context.answer(&Changed { instance_id: ids }, || told("added", ids))
}

/// Whether `--on` can name it.
fn can_be_named(id: &InstanceId) -> bool {
    let id = id.as_str();
    !id.contains(',') && id.trim() == id
}

async fn list(context: &Context) -> Result<u8, Failure> {
    let request = DescribeInstances::default();
    let all = async |session: &mut Session| session.pages(request, |_| false).await;
    let page = context.with_session(Need::Read, all).await?;
    context.answer(&page, || render::instances(&page.instances, Target::Stdout))
}

async fn remove(context: &Context, ids: &[InstanceId]) -> Result<u8, Failure> {
    let remove = async |session: &mut Session| {
        for id in ids {
            session.call(RemoveInstance { instance_id: id.clone() }).await?;
        }
        Ok(())
    };
    context.with_session(Need::Write, remove).await?;
    context.answer(&Changed { instance_id: ids }, || told("removed", ids))
}

/// The instances that a command changed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Changed<'a> {
    instance_id: &'a [InstanceId],
}

fn told(what: &str, ids: &[InstanceId]) -> String {
    ids.iter().map(|id| format!("{what} {}\n", one_line(id.as_str()))).collect()
}

//! What the engine before left running on this machine: runs with a keeper, which are taken back, and
//! others, which are ended.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::census;
use super::child::any_ended;
use super::environment::Mark;
use super::family::{Family, Named, listed};
use super::group;
use super::keeper::{self, Identity};
use crate::execution::{Lost, Unended};
use crate::executor::Scratch;
use crate::id::ExecutionId;
use crate::output::Output;

/// How long what was left may take to end politely. An engine waits for it before it opens.
const GRACE: Duration = Duration::from_secs(1);
/// How long a first look at who is there may take: the kernel makes whoever reads an environment wait for
/// the process whose it is.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How long it may take to end that has been killed.
const KILL_MAX: Duration = Duration::from_secs(5);

/// Finds out which executions can be taken back, and ends the others: what is left of those.
pub(crate) async fn inherit(scratch: &Scratch, unended: &[Unended]) -> HashMap<ExecutionId, Lost> {
    let mut lost = Vec::new();
    let mut surviving = HashSet::new();
    for &Unended { id, attempt } in unended {
        let name = Scratch::name(id, attempt);
        let folder = scratch.runs().map(|runs| runs.join(&name));
        if let Some(folder) = folder.filter(|folder| folder.is_dir()) {
            if survives(&folder) {
                surviving.insert(name);
                continue;
            }
            lost.push((id, keeper::read_record(&folder).output()));
        } else {
            lost.push((id, Output::default()));
        }
    }
    let unkept = unended.iter().filter(|one| lost.iter().any(|(id, _)| *id == one.id));
    let mut families: Vec<Family> = scratch
        .engine_before()
        .into_iter()
        .flat_map(|engine| unkept.clone().map(move |one| Mark::new(engine, one.id, one.attempt)))
        .map(Family::without_leader)
        .collect();
    let alone = families.len();
    let abandoned = abandon(scratch, &surviving);
    families.extend(abandoned.iter().copied().map(Family::without_leader));
    let ended = end(families).await;
    let groups = scratch.engine_before().map(Mark::prefix);
    for prefix in groups.into_iter().chain(abandoned.into_iter().map(group::kept)) {
        group::sweep(prefix).await;
    }
    // Where there was no engine before, there is nobody to be found by its number.
    let ended = ended.into_iter().take(alone).chain(std::iter::repeat(String::new()));
    let lost = lost.into_iter().zip(ended);
    lost.map(|((id, output), ended)| (id, Lost { output, ended })).collect()
}

/// Whether a keeper has, or will have, the end of its run to tell.
fn survives(folder: &Path) -> bool {
    // One that cannot be found out about is left alone.
    let goes_on = |folder: &Path| !matches!(keeper::find(folder), Ok(None));
    if keeper::read_record(folder).end.is_some() || goes_on(folder) {
        return true;
    }
    // One that has only just been started finds its folder gone, and does not begin.
    let aside = folder.with_extension("gone");
    fs::rename(folder, &aside).is_ok() && goes_on(&aside) && fs::rename(&aside, folder).is_ok()
}

/// Removes what is on disk of all runs but these, and ends their keepers; whose processes are to be ended.
fn abandon(scratch: &Scratch, surviving: &HashSet<String>) -> Vec<Mark> {
    let folders = scratch.runs().and_then(|runs| fs::read_dir(runs).ok()).into_iter().flatten();
    let mut marks = Vec::new();
    for folder in folders.flatten() {
        let name = folder.file_name();
        if name.to_str().is_some_and(|name| surviving.contains(name)) {
            continue;
        }
        if let Ok(Some(identity)) = Identity::read(&folder.path()) {
            if let Ok(Some(keeper)) = identity.alive() {
                let _ = rustix::process::pidfd_send_signal(keeper, Signal::KILL);
            }
            marks.push(identity.mark);
        }
        // One that was put aside has another name.
        let _ = fs::remove_dir_all(folder.path());
        scratch.forget(Path::new(&name).with_extension("").as_os_str());
    }
    marks
}

/// Ends all processes of these families; says of each what that took.
pub(super) async fn end(mut families: Vec<Family>) -> Vec<String> {
    let mut ended: Vec<Ended> = families.iter().map(|_| Ended::default()).collect();
    let looked = match families.is_empty() {
        true => Ok(false),
        false => tokio::time::timeout(LOOK_MAX, look(&mut families)).await,
    };
    if !matches!(looked, Ok(true)) {
        return ended.iter().map(ToString::to_string).collect();
    }
    for (family, ended) in families.iter().zip(&mut ended) {
        ended.found = family.names();
        family.signal(Signal::TERM);
        // A stopped process would notice only when it is continued.
        family.signal(Signal::CONT);
    }
    let _ = tokio::time::timeout(GRACE, all_gone(&mut families, |_| {})).await;
    let kill = |families: &[Family]| {
        for (family, ended) in families.iter().zip(&mut ended) {
            ended.killed.extend(family.names());
            // What stands still starts no others while the next look finds who was started before.
            family.signal(Signal::STOP);
            family.signal(Signal::KILL);
        }
    };
    let _ = tokio::time::timeout(KILL_MAX, all_gone(&mut families, kill)).await;
    for (family, ended) in families.iter().zip(&mut ended) {
        ended.left = family.names();
    }
    ended.iter().map(ToString::to_string).collect()
}

/// Waits until nobody is found any more; does this to whoever still is, at each look.
async fn all_gone(families: &mut [Family], mut at_each_look: impl FnMut(&[Family])) {
    while look(families).await {
        let Some(family) = families.iter().position(|family| !family.is_empty()) else { return };
        at_each_look(families);
        any_ended(&families[family]).await;
    }
}

/// Whether it could be seen who is there.
async fn look(families: &mut [Family]) -> bool {
    let Ok(Ok(census)) = tokio::task::spawn_blocking(census::take).await else { return false };
    families.iter_mut().for_each(|family| family.update(&census));
    true
}

/// What it took to end what was left of a run.
#[derive(Debug, Default)]
struct Ended {
    found: BTreeSet<Named>,
    killed: BTreeSet<Named>,
    left: BTreeSet<Named>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            listed("what was left of it was ended:", &self.found),
            listed("it took SIGKILL to end", &self.killed),
            listed("still there after SIGKILL:", &self.left),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

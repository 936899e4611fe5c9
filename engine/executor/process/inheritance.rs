//! Runs that earlier engines left running on this machine. Runs with a keeper are taken back, others are
//! ended.
//!
//! An engine may die at any moment, also while it ends the runs of an earlier engine. So no trace by which a process
//! can be found is removed before the process has ended and the records say so. The numbers of engines stay in the
//! folder of `Scratch`, and beside them the marks of processes whose executions have ended in the records.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::census::{self, Asked, Census, Process};
use super::child::any_ended;
use super::environment::Mark;
use super::family::{Member, Named, Watch, listed, names_of_silent};
use super::keeper::{self, Identity};
use super::{errno, group};
use crate::execution::{Lost, Unended};
use crate::executor::{Scratch, removal};
use crate::id::ExecutionId;
use crate::output::Output;
use crate::panics::tell;

/// The time in which processes that were left may end politely. An engine waits for them before it opens.
const GRACE: Duration = Duration::from_secs(1);
/// The longest time for a look at the processes of one user. Processes that do not answer are passed over sooner.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// The time in which killed processes may end.
const KILL_MAX: Duration = Duration::from_secs(5);

/// Runs that earlier engines have left running.
pub(crate) struct Leftovers<'a> {
    scratch: &'a Scratch,
    /// Executions that cannot be taken back, in the order of `found.groups`, each with the output so far.
    lost: Vec<(ExecutionId, Output)>,
    /// Folders of runs that are not taken back.
    abandoned: Vec<Abandoned>,
    found: Processes,
    /// Why not all processes could be looked at, if so.
    unseen: Option<String>,
}

/// The folder of a run that is not taken back.
struct Abandoned {
    folder: PathBuf,
    identity: Option<Identity>,
    /// The run, if the name of the folder tells it.
    run: Option<Unended>,
    /// Whether the run has ended by itself.
    has_ended: bool,
}

impl<'a> Leftovers<'a> {
    /// Takes back executions that had not ended, and looks for the processes of all others. Runs that `may_go_on`
    /// refuses are not taken back.
    pub(crate) async fn find(
        scratch: &'a Scratch,
        unended: &[Unended],
        may_go_on: impl Fn(ExecutionId) -> bool,
    ) -> Self {
        let mut folders = folders(scratch);
        let mut found = Processes::of_engines(scratch.engines_before());
        found.users.extend(scratch.users_before());
        let mut lost = Vec::new();
        for &run in unended {
            let name = Scratch::name(run.id, run.attempt);
            let mut output = Output::default();
            if let Some(folder) = folders.remove(&name) {
                let left = if may_go_on(run.id) { take_back(folder) } else { put_aside(folder) };
                match left {
                    Ok(()) => continue,
                    Err(folder) => {
                        output = keeper::read_record(&folder).output();
                        folders.insert(name, folder);
                    }
                }
            }
            found.expect(run);
            lost.push((run.id, output));
        }
        let abandoned: Vec<Abandoned> = folders.into_values().map(Abandoned::read).collect();
        for one in &abandoned {
            if let Some(identity) = &one.identity {
                found.expect_marked(identity.mark, one.run);
            }
        }
        for line in scratch.left() {
            if let Ok(mark) = Mark::try_from(line) {
                found.expect_marked(mark, None);
            }
        }
        let unseen = found.look().await.err();
        Self { scratch, lost, abandoned, found, unseen }
    }

    /// Returns runs of earlier engines that live, or have a folder, although their execution was not left running:
    /// the execution has ended, or no record knows it.
    pub(crate) fn unexplained(&self) -> Vec<Unended> {
        let lost: HashSet<_> = self.lost.iter().map(|(id, _)| *id).collect();
        let folders = self.abandoned.iter().filter_map(|one| one.run);
        let folders = folders.filter(|run| !lost.contains(&run.id));
        self.found.strangers.values().map(|stranger| stranger.run).chain(folders).collect()
    }

    /// Ends the processes that are left, also those of the `unknown` runs, which must not go on by the records.
    /// Returns the lost executions, and whether the earlier engines may be forgotten once the records tell of the
    /// lost executions: processes that have not ended are named to the next engine.
    pub(crate) async fn end(mut self, unknown: &[Unended]) -> (HashMap<ExecutionId, Lost>, bool) {
        let unknown: HashSet<_> = unknown.iter().map(|run| (run.id, run.attempt)).collect();
        for stranger in std::mem::take(&mut self.found.strangers).into_values() {
            let Unended { id, attempt } = stranger.run;
            if unknown.contains(&(id, attempt)) {
                let named = listed("its processes are ended:", &stranger.names).unwrap_or_default();
                tell(|| {
                    tracing::warn!(execution = %id, attempt, "an earlier engine left a run that must not go on; {named}");
                });
                self.found.expect(stranger.run);
            }
        }
        if !unknown.is_empty()
            && let Err(why) = self.found.look().await
        {
            self.unseen = Some(why);
        }
        self.abandon(&unknown);
        if !self.found.members.is_empty() {
            self.found.end().await;
        }
        let kept = self.abandoned.iter().filter_map(|one| one.identity.as_ref());
        let prefixes = self.scratch.engines_before().iter().copied().map(group::of_engine);
        for prefix in prefixes.chain(kept.map(|identity| group::kept(identity.mark))) {
            group::sweep(prefix).await;
        }
        let is_seen = self.unseen.is_none();
        let left = self.found.left(is_seen, self.scratch.engines_before());
        // Runs that no record knows are found by the number of their engine only.
        let may_forget = self.keep(&left) && is_seen;
        let groups = self.found.groups.into_iter();
        let lost = self.lost.into_iter().zip(groups).map(|((id, output), ended)| {
            let ended = Ended { unseen: self.unseen.clone(), ..ended };
            (id, Lost { output, ended: ended.to_string() })
        });
        (lost.collect(), may_forget)
    }

    /// Ends the keepers of runs that are not taken back, and removes the folders of these runs.
    fn abandon(&self, unknown: &HashSet<(ExecutionId, u32)>) {
        // Kept before the folders are removed, because only the folders tell of these processes.
        if !self.keep(&self.found.marked.keys().copied().collect::<Vec<_>>()) {
            return;
        }
        for one in &self.abandoned {
            let alive = one.identity.as_ref().and_then(|identity| identity.alive().ok().flatten());
            let is_unknown = one.run.is_none_or(|run| unknown.contains(&(run.id, run.attempt)));
            let folder = one.folder.display();
            match (&alive, one.has_ended) {
                (Some(_), false) => {
                    tell(|| {
                        tracing::warn!(%folder, "no record knows that a surviving run goes on; the run is ended");
                    });
                }
                (_, true) if is_unknown => {
                    tell(|| {
                        tracing::warn!(%folder, "no record knows of a surviving run, whose end is forgotten");
                    });
                }
                _ => {}
            }
            if let Some(keeper) = alive {
                let _ = rustix::process::pidfd_send_signal(keeper, Signal::KILL);
            }
            let _ = removal::remove_aside(&one.folder);
            // A folder that was put aside has another name.
            if let Some(name) = one.folder.with_extension("").file_name() {
                self.scratch.forget(name);
            }
        }
    }

    /// Keeps marks for the next engine. Returns whether they are kept.
    fn keep(&self, marks: &[Mark]) -> bool {
        let lines: Vec<String> = marks.iter().map(ToString::to_string).collect();
        let kept = self.scratch.keep_left(&lines);
        if let Err(error) = &kept {
            tell(|| {
                tracing::warn!(%error, "the next engine cannot be told which processes are left");
            });
        }
        kept.is_ok()
    }
}

impl Abandoned {
    fn read(folder: PathBuf) -> Self {
        let name = folder.with_extension("");
        let run = name.file_name().and_then(|name| name.to_str()?.split_once('-'));
        let run = run.and_then(|(id, attempt)| {
            Some(Unended { id: ExecutionId(id.parse().ok()?), attempt: attempt.parse().ok()? })
        });
        let identity = Identity::read(&folder).ok().flatten();
        let has_ended = keeper::read_record(&folder).end.is_some();
        Self { folder, identity, run, has_ended }
    }
}

/// Returns the folders of runs with a keeper, by the names of these runs.
fn folders(scratch: &Scratch) -> HashMap<String, PathBuf> {
    let folders = scratch.runs().and_then(|runs| fs::read_dir(runs).ok()).into_iter().flatten();
    let folder = |entry: fs::DirEntry| {
        let name = Path::new(&entry.file_name()).with_extension("");
        (name.to_string_lossy().into_owned(), entry.path())
    };
    folders.flatten().map(folder).collect()
}

/// Leaves a run to its keeper, if the keeper has recorded the end of the run, or lives and will record it.
///
/// # Errors
///
/// The place of the folder, if there is no such keeper, nor will be one.
fn take_back(folder: PathBuf) -> Result<(), PathBuf> {
    // A keeper that cannot be looked for is left alone.
    let goes_on = |folder: &Path| !matches!(keeper::find(folder), Ok(None));
    let tells = |folder: &Path| keeper::read_record(folder).end.is_some() || goes_on(folder);
    let (place, aside) = (folder.with_extension(""), folder.with_extension(ASIDE));
    if folder == place {
        if tells(&folder) {
            return Ok(());
        }
        // A keeper that has only just been started finds its folder gone, and does not begin.
        if fs::rename(&folder, &aside).is_err() {
            return Err(folder);
        }
    }
    // An earlier engine may have put the folder aside, and have ended then.
    if tells(&aside) && fs::rename(&aside, &place).is_ok() { Ok(()) } else { Err(aside) }
}

/// Returns whether a surviving run has ended, as the record of its keeper says.
pub(crate) fn has_ended(scratch: &Scratch, run: Unended) -> bool {
    let folder = scratch.runs().map(|runs| runs.join(Scratch::name(run.id, run.attempt)));
    folder.is_some_and(|folder| keeper::read_record(&folder).end.is_some())
}

/// Puts aside the folder of a run that must not be taken back, so that a keeper which has only just been started does
/// not begin.
///
/// # Errors
///
/// Always fails, with the place of the folder.
fn put_aside(folder: PathBuf) -> Result<(), PathBuf> {
    let aside = folder.with_extension(ASIDE);
    if folder == aside || fs::rename(&folder, &aside).is_ok() { Err(aside) } else { Err(folder) }
}

/// The extension of a folder that has been put aside.
const ASIDE: &str = "gone";

/// Ends all processes of a run that has no keeper any more. Returns how they were ended, in words.
pub(super) async fn end_run(mark: Mark, users: impl IntoIterator<Item = u32>) -> String {
    let mut found = Processes::default();
    found.users.extend(users);
    found.expect_marked(mark, None);
    let unseen = found.look().await.err();
    if !found.members.is_empty() {
        found.end().await;
    }
    let ended = found.groups.into_iter().next().unwrap_or_default();
    Ended { unseen, ..ended }.to_string()
}

/// Processes of runs that have neither host nor keeper, found by their marks in one pass over a census, however many
/// runs there are.
#[derive(Default)]
struct Processes {
    /// The users that may have processes of these runs, beside the user of this process.
    users: BTreeSet<u32>,
    engines: Vec<u128>,
    /// The runs of `engines` that are to be ended, by execution and attempt, each with its place in `groups`.
    runs: HashMap<(ExecutionId, u32), usize>,
    /// Marks of other runs that are to be ended, each with its place in `groups`.
    marked: HashMap<Mark, usize>,
    /// How each run was ended.
    groups: Vec<Ended>,
    /// The processes that were there at the last look, each with the place of its run in `groups`.
    members: HashMap<Pid, (Member, usize)>,
    /// Runs of `engines` that are not to be ended so far.
    strangers: BTreeMap<(ExecutionId, u32), Stranger>,
}

struct Stranger {
    run: Unended,
    names: BTreeSet<Named>,
}

impl Processes {
    fn of_engines(engines: &[u128]) -> Self {
        Self { engines: engines.to_vec(), ..Self::default() }
    }

    /// Notes that the processes of a run of `engines` are to be ended.
    fn expect(&mut self, run: Unended) {
        let place = self.groups.len();
        self.runs.insert((run.id, run.attempt), place);
        self.groups.push(Ended::default());
    }

    /// Notes that processes with this mark are to be ended, as a part of `run` if that run is to be ended already.
    fn expect_marked(&mut self, mark: Mark, run: Option<Unended>) {
        let known = run.and_then(|run| self.runs.get(&(run.id, run.attempt)).copied());
        let place = known.unwrap_or(self.groups.len());
        if place == self.groups.len() {
            self.groups.push(Ended::default());
        }
        self.marked.insert(mark, place);
    }

    /// Returns the run of `engines` that has this mark.
    fn run_of(&self, mark: Mark) -> Option<(ExecutionId, u32)> {
        self.engines.iter().find_map(|engine| mark.of_engine(*engine))
    }

    /// Updates the members from a census: adds processes that have come, removes processes that are gone.
    fn update(&mut self, census: &Census) {
        self.members.retain(|pid, (member, _)| {
            census.processes.get(pid).is_some_and(|process| process.started == member.started)
        });
        self.strangers.clear();
        let mut children: HashMap<Pid, Vec<&Process>> = HashMap::new();
        let mut open = Vec::new();
        for process in census.processes.values() {
            if let Some(parent) = process.parent {
                children.entry(parent).or_default().push(process);
            }
            let known = self.members.get(&process.pid).map(|(_, place)| *place);
            let marked = || self.marked.get(&process.mark?).copied();
            let run = || process.mark.and_then(|mark| self.run_of(mark));
            if let Some(place) = known.or_else(marked) {
                open.push((process, place));
            } else if let Some((id, attempt)) = run() {
                if let Some(place) = self.runs.get(&(id, attempt)) {
                    open.push((process, *place));
                    continue;
                }
                let run = Unended { id, attempt };
                let stranger = Stranger { run, names: BTreeSet::new() };
                let stranger = self.strangers.entry((id, attempt)).or_insert(stranger);
                stranger.names.insert(Named::new(process.pid, process.name.clone()));
            }
        }
        let mut seen = HashSet::new();
        while let Some((process, place)) = open.pop() {
            if !seen.insert(process.pid) {
                continue;
            }
            let Process { started, ref name, .. } = *process;
            let (member, _) = self
                .members
                .entry(process.pid)
                .or_insert_with(|| (Member { started, name: String::new(), strayed: true }, place));
            // The process may have become another program since.
            member.name.clone_from(name);
            let children = children.get(&process.pid).into_iter().flatten();
            // An older child belongs to an earlier process of this number.
            let children = children.filter(|child| child.started >= started);
            open.extend(children.map(|child| (*child, place)));
        }
    }

    /// Looks at the processes that are there.
    ///
    /// # Errors
    ///
    /// The reason, in words, why not all processes could be looked at. Members are up to date all the same, unless no
    /// process could be looked at.
    async fn look(&mut self) -> Result<(), String> {
        if self.engines.is_empty() && self.marked.is_empty() {
            return Ok(());
        }
        self.users.insert(rustix::process::geteuid().as_raw());
        let (mut all, mut unseen): (Option<Census>, Vec<String>) = (None, Vec::new());
        for &user in &self.users {
            let look = census::take(Asked::User(user));
            let census = match census::in_time(LOOK_MAX, look).await {
                Ok(census) => census,
                Err(error) => {
                    unseen.push(errno::describe(&error));
                    continue;
                }
            };
            unseen.extend(listed("no answer from", &names_of_silent(&census)));
            match &mut all {
                None => all = Some(Census::clone(&census)),
                Some(all) => all.add_marks(&census),
            }
        }
        if let Some(census) = &all {
            self.update(census);
        }
        if unseen.is_empty() { Ok(()) } else { Err(unseen.join(", ")) }
    }

    /// Ends the processes that were there at the last look, and the processes that they have started since.
    async fn end(&mut self) {
        self.take_note(|ended| &mut ended.found);
        self.signal(Signal::TERM);
        // A stopped process would notice only when it is continued.
        self.signal(Signal::CONT);
        let _ = tokio::time::timeout(GRACE, self.all_gone(|_| {})).await;
        let kill = |found: &mut Self| {
            found.take_note(|ended| &mut ended.killed);
            // What stands still starts no others while the next look finds who was started before.
            found.signal(Signal::STOP);
            found.signal(Signal::KILL);
        };
        let _ = tokio::time::timeout(KILL_MAX, self.all_gone(kill)).await;
        self.take_note(|ended| &mut ended.left);
    }

    /// Waits until no process is found any more, and calls `at_each_look` for the processes of each look.
    async fn all_gone(&mut self, mut at_each_look: impl FnMut(&mut Self)) {
        loop {
            // Processes that cannot be looked at keep nobody from ending the others.
            let _ = self.look().await;
            at_each_look(self);
            let any = self.members.iter().next();
            let Some(watch) = any.map(|(pid, (member, _))| member.watch(*pid)) else { return };
            match watch {
                Watch::Ended => {}
                watch => any_ended(watch).await,
            }
        }
    }

    fn signal(&self, signal: Signal) {
        self.members.iter().for_each(|(pid, (member, _))| member.signal(*pid, signal));
    }

    /// Adds the processes of the last look to a list of their run.
    fn take_note(&mut self, list: impl Fn(&mut Ended) -> &mut BTreeSet<Named>) {
        for (pid, (member, place)) in &self.members {
            if let Some(ended) = self.groups.get_mut(*place) {
                list(ended).insert(Named::new(*pid, member.name.clone()));
            }
        }
    }

    /// Returns the marks of runs whose processes have not ended; if the last look failed, the marks of all runs that
    /// were to be ended.
    fn left(&self, is_seen: bool, engines: &[u128]) -> Vec<Mark> {
        let places: HashSet<usize> = self.members.values().map(|(_, place)| *place).collect();
        let is_left = |place: &usize| !is_seen || places.contains(place);
        let marked = self.marked.iter().filter(|(_, place)| is_left(place)).map(|(mark, _)| *mark);
        let runs = self.runs.iter().filter(|(_, place)| is_left(place));
        let runs = runs.flat_map(|((id, attempt), _)| {
            engines.iter().map(|engine| Mark::new(*engine, *id, *attempt))
        });
        marked.chain(runs).collect()
    }
}

/// What it took to end what was left of a run.
#[derive(Debug, Default)]
struct Ended {
    found: BTreeSet<Named>,
    killed: BTreeSet<Named>,
    left: BTreeSet<Named>,
    /// Why not all processes could be looked at, if so.
    unseen: Option<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            listed("what was left of it was ended:", &self.found),
            listed("it took SIGKILL to end", &self.killed),
            listed("still there after SIGKILL:", &self.left),
            self.unseen
                .as_ref()
                .map(|why| format!("not all processes of the run could be looked for: {why}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn engines_are_forgotten_only_once_the_next_one_is_told_what_they_left() {
        let run = Unended { id: ExecutionId(7), attempt: 1 };
        let check = async |is_seen: bool, takes_files: bool, want: bool| {
            let scratch = Scratch::temporary().expect("a folder");
            if !takes_files {
                std::fs::remove_dir(scratch.path()).expect("it is empty");
                std::fs::write(scratch.path(), "in the way").expect("written");
            }
            let mut found = Processes::default();
            found.expect_marked(Mark::new(1, run.id, run.attempt), Some(run));
            let lost = vec![(run.id, Output::default())];
            let unseen = (!is_seen).then(|| "/proc does not answer".to_owned());
            let left = Leftovers { scratch: &scratch, lost, abandoned: Vec::new(), found, unseen };
            let (lost, may_forget) = left.end(&[]).await;
            let says = "not all processes of the run could be looked for: /proc does not answer";
            assert_eq!(lost[&run.id].ended, if is_seen { "" } else { says });
            assert_eq!(may_forget, want, "seen: {is_seen}, files: {takes_files}");
            let _ = std::fs::remove_file(scratch.path());
        };
        check(true, true, true).await;
        // No process is left.
        check(true, false, true).await;
        check(false, true, false).await;
        check(false, false, false).await;
    }
}

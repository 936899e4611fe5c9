//! Folders that runs leave among their files, of any depth.

use std::fs;
use std::path::PathBuf;

use adjutant::RunCommand;
use libtest_mimic::Trial;

use crate::harness::{
    Account, Host, Mount, Place, need_mounts, need_root, printed, script, trials, until,
};
use crate::host::Order;

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![folders_of_any_depth_are_removed_with_few_descriptors];
    trials.extend(need_root(trials![folders_of_other_users_are_removed_with_few_descriptors]));
    trials.extend(need_mounts(trials![what_cannot_be_removed_keeps_no_other_file]));
    trials
}

/// Makes 20,000 folders inside one another in the place of the result. Prints the place of the script.
const NEST: &str =
    "mkdir $ADJUTANT_RESULT; cd $ADJUTANT_RESULT; p=$(printf 'a/%.0s' $(seq 1000)); mkdir top
    for i in $(seq 20); do mkdir -p x/$p && mv top x/$p && mv x top || exit 1; done; echo ${0%/*}";

async fn check_are_removed(how: impl Fn(RunCommand) -> RunCommand) {
    let place = Place::new();
    let mut host = place.host();
    host.order(&Order::Files(64));
    let mut folders = Vec::new();
    for request in [script(NEST), script(NEST).survive_restarts()] {
        let folder = printed(&host.finish(how(request)));
        folders.push(PathBuf::from(folder.trim_end()));
    }
    assert_eq!(printed(&host.finish(how(script("echo on")))), "on\n");
    host.shut_down();
    // The host may have ended before the last removal. The next engine goes on with it, and needs no more descriptors.
    Host::start_after("ulimit -S -n 64; exec", &place.setup()).shut_down();
    for folder in folders {
        assert!(!folder.exists(), "{}", folder.display());
    }
    assert!(!place.runs().exists());
}

async fn folders_of_any_depth_are_removed_with_few_descriptors() {
    check_are_removed(|request| request).await;
}

async fn folders_of_other_users_are_removed_with_few_descriptors() {
    check_are_removed(|request| request.username(&Account::ann().name)).await;
}

/// A mount in the folder of scripts is in the way of its removal.
async fn what_cannot_be_removed_keeps_no_other_file() {
    let place = Place::new();
    let mut host = place.host();
    host.run(script("echo in ${ADJUTANT_RESULT%/*}; exec sleep 50"));
    let line = host.expect("in ");
    let scratch = PathBuf::from(line.split_once("in ").expect("just found").1);
    let names = || (0..40).map(|number| scratch.join(format!("{number}.sh")));
    names().for_each(|name| fs::write(name, "echo secret").expect("written"));
    let mounts: Vec<_> = (0..3).map(|number| scratch.join(format!("mount-{number}"))).collect();
    let mounts: Vec<_> = mounts.into_iter().map(Mount::without_programs).collect();
    host.kill();
    let engine = place.open().await;
    assert_eq!(names().filter(|name| name.exists()).count(), 0);
    drop(engine);
    drop(mounts);
    Host::start(&place.setup()).shut_down();
    until("the folder is gone", || !scratch.exists()).await;
}

//! What runs may use, and what they have used.

use adjutant::{ExecutionStatus, ProcessExecutor, ResourceLimits};
use libtest_mimic::Trial;

use crate::harness::{
    Account, Place, can_limit_memory, check_says, need_cgroups, need_root, printed, run, script,
    text, trials,
};

const MIB: u64 = 1 << 20;

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![
        each_limit_is_the_processes_own,
        what_goes_beyond_a_limit_ends,
        a_limit_that_ends_a_run_is_named,
    ];
    trials.extend(need_root(trials![a_limit_on_processes_holds_for_another_user]));
    trials.extend(need_cgroups(trials![
        memory_that_is_not_there_is_named,
        processes_are_counted_in_the_cgroup,
        the_memory_that_a_run_took_is_known_in_a_cgroup,
    ]));
    let refused = trials![what_no_cgroup_can_limit_is_refused];
    let offered = can_limit_memory();
    trials.extend(refused.into_iter().map(|trial| {
        trial.with_kind("where cgroups do not limit memory").with_ignored_flag(offered)
    }));
    trials
}

/// The host's own user, and another one if this is root.
fn users() -> Vec<String> {
    let is_root = rustix::process::geteuid().is_root();
    is_root.then(|| Account::ann().name.clone()).into_iter().chain([String::new()]).collect()
}

async fn each_limit_is_the_processes_own() {
    let place = Place::new();
    let engine = place.open().await;
    let none = ResourceLimits::default();
    for user in users() {
        for (limits, line, want) in [
            (none.cpu_seconds(7), "Max cpu time", "7 8"),
            (none.address_space_bytes(512 * MIB), "Max address space", "536870912 536870912"),
            (none.open_files(16), "Max open files", "16 16"),
            (none.file_size_bytes(4_096), "Max file size", "4096 4096"),
            (none.open_files(32).cpu_seconds(9), "Max open files", "32 32"),
        ] {
            let look = format!(
                "sh -c 'sed -n \"s/^{line} *//p\" /proc/self/limits' | awk '{{print $1, $2}}'"
            );
            let record = run(&engine, script(look).username(&user).resource_limits(limits)).await;
            assert_eq!(printed(&record).trim_end(), want, "{line} of `{user}`");
        }
    }
}

async fn what_goes_beyond_a_limit_ends() {
    let place = Place::new();
    let engine = place.open().await;
    let none = ResourceLimits::default();
    for user in users() {
        let request = |text: &str| script(text).username(&user).working_dir("/");
        let endless = request("while :; do :; done").resource_limits(none.cpu_seconds(1));
        let record = run(&engine, endless).await;
        check_says(&record, ExecutionStatus::Failed, "ExitCodeNonzero", "ended by signal 24");
        assert!(record.user_time_us.expect("it is counted") > 500_000, "{record:?}");

        let file = "umask 0; f=$(mktemp); exec head -c 8192 /dev/zero > $f";
        let record = run(&engine, request(file).resource_limits(none.file_size_bytes(4096))).await;
        assert_eq!(record.signal, Some(25), "{}", text(&record));

        let room = request("head -c 200000000 /dev/zero | tail -c 1150000000 | wc -c");
        let record = run(&engine, room.resource_limits(none.address_space_bytes(64 * MIB))).await;
        assert!(text(&record).lines().any(|line| line == "0"), "{}", text(&record));

        let open = request(
            "#!/bin/bash\nfor n in {10..40}; do eval \"exec $n</dev/null\" || exit 3; done",
        );
        let record = run(&engine, open.resource_limits(none.open_files(16))).await;
        assert_ne!(record.exit_code, Some(0), "{}", text(&record));
        assert!(text(&record).contains("ile descriptor"), "{}", text(&record));
    }
}

async fn a_limit_that_ends_a_run_is_named() {
    let place = Place::new();
    let engine = place.open().await;
    let none = ResourceLimits::default();
    let check = async |text: &str, limits, says: &str| {
        for request in [script(text), script(text).survive_restarts()] {
            let record = run(&engine, request.resource_limits(limits)).await;
            check_says(&record, ExecutionStatus::Failed, "ExitCodeNonzero", says);
            assert!(record.error_info.ends_with(says), "{}", record.error_info);
        }
    };
    let (cpu, file) = (none.cpu_seconds(1), none.file_size_bytes(4_096));
    let says = "ended by signal 24; SIGXCPU: CpuSeconds is limited to 1";
    check("while :; do :; done", cpu, says).await;
    let says = "ended by signal 25; SIGXFSZ: FileSizeBytes is limited to 4096";
    check("f=$(mktemp); trap 'rm $f' EXIT; head -c 8192 /dev/zero > $f; kill -XFSZ $$", file, says)
        .await;
    // Somebody's own signal, for which there is no limit.
    check("kill -XCPU $$", file, "ended by signal 24").await;
    check("kill -9 $$", cpu, "ended by signal 9").await;
}

async fn a_limit_on_processes_holds_for_another_user() {
    let place = Place::new();
    let engine = place.open().await;
    let limits = ResourceLimits::default().processes(8);
    let forks = "n=0; while [ $n -lt 20 ]; do sleep 20 & n=$((n+1)); done; echo all";
    let request = script(forks).username(&Account::bob().name).resource_limits(limits);
    let record = run(&engine, request).await;
    assert_eq!(record.status, ExecutionStatus::Failed, "{}", text(&record));
    assert!(text(&record).to_lowercase().contains("fork"), "{}", text(&record));
}

async fn memory_that_is_not_there_is_named() {
    let place = Place::new();
    let engine = place.open().await;
    for user in users() {
        let limits = ResourceLimits::default().memory_bytes(32 * MIB);
        let request = script("exec tail /dev/zero").username(&user).resource_limits(limits);
        let record = run(&engine, request).await;
        let says = "ended by signal 9; the kernel killed a process of it for want of memory";
        check_says(&record, ExecutionStatus::Failed, "ExitCodeNonzero", says);
        let peak = record.memory_peak_bytes.expect("it is counted");
        assert!((16 * MIB..=32 * MIB).contains(&peak), "{peak}");
        let request = script("exec tail /dev/zero").username(&user).resource_limits(limits);
        let record = run(&engine, request.survive_restarts()).await;
        check_says(&record, ExecutionStatus::Failed, "ExitCodeNonzero", says);
        // Enough is enough.
        let modest = "head -c 8000000 /dev/zero | tail -c 8000000 | wc -c";
        let record = run(&engine, script(modest).username(&user).resource_limits(limits)).await;
        assert_eq!(printed(&record), "8000000\n");
    }
}

async fn processes_are_counted_in_the_cgroup() {
    let place = Place::new();
    let engine = place.open().await;
    let limits = ResourceLimits::default().processes(5);
    let forks = "n=0; while [ $n -lt 20 ]; do sleep 20 & n=$((n+1)); done; echo all";
    for user in users() {
        let request = script(forks).username(&user).resource_limits(limits);
        let record = run(&engine, request).await;
        assert_eq!(record.status, ExecutionStatus::Failed, "{}", text(&record));
        assert!(text(&record).to_lowercase().contains("fork"), "{}", text(&record));
        let few = script("sleep 0 & wait; echo all").username(&user).resource_limits(limits);
        assert_eq!(printed(&run(&engine, few).await), "all\n");
    }
}

async fn the_memory_that_a_run_took_is_known_in_a_cgroup() {
    let place = Place::new();
    let engine = place.open_with(ProcessExecutor::new().cgroups()).await;
    for user in users() {
        let takes = "head -c 150000000 /dev/zero | tail -c 150000000 | wc -c";
        let record = run(&engine, script(takes).username(&user)).await;
        assert_eq!(printed(&record), "150000000\n");
        let peak = record.memory_peak_bytes.expect("it is counted");
        assert!((140 * MIB..400 * MIB).contains(&peak), "{peak}");
        let rss = record.max_rss_bytes.expect("it is counted");
        assert!((140 * MIB..400 * MIB).contains(&rss), "{rss}");
        let groups = run(&engine, script("grep -c adjutant- /proc/self/cgroup").username(&user));
        assert_ne!(printed(&groups.await).trim_end(), "0");
    }
}

async fn what_no_cgroup_can_limit_is_refused() {
    let place = Place::new();
    let engine = place.open().await;
    let limits = ResourceLimits::default().memory_bytes(32 * MIB);
    let record = run(&engine, script("echo ran").resource_limits(limits)).await;
    check_says(&record, ExecutionStatus::Error, "ExecutionException", "it has no cgroup: ");
    assert_eq!(text(&record), "");
    let engine = Place::new().open_with(ProcessExecutor::new().cgroups()).await;
    let record = run(&engine, script("echo ran")).await;
    check_says(&record, ExecutionStatus::Error, "ExecutionException", "it has no cgroup: ");
}

//! Runs that cannot begin: each leaves a record that says why, and its place to the next.

use std::fs;

use adjutant::{Engine, ExecutionStatus, LOCAL, ProcessExecutor, ResourceLimits};
use libtest_mimic::Trial;

use crate::harness::{
    Account, Host, Mount, Place, check_says, need_mounts, need_root, open_to, printed, run, script,
    trials,
};
use crate::host::Order;

pub fn trials() -> Vec<Trial> {
    let mut trials = trials![
        what_cannot_be_started_says_why_and_frees_its_place,
        a_host_without_descriptors_says_so_and_recovers,
        a_keeper_that_cannot_be_started_leaves_no_folder,
        a_program_that_cannot_help_says_what_to_do,
        a_record_names_no_interpreter_by_a_value_of_a_parameter,
    ];
    trials.extend(need_root(trials![a_user_without_processes_says_so]));
    trials.extend(need_mounts(trials![a_mount_that_runs_nothing_is_no_place_for_programs]));
    trials
}

/// An engine that runs one at a time.
async fn narrow(place: &Place, executor: ProcessExecutor) -> Engine {
    let builder = Engine::builder().path(place.db()).max_concurrent(1);
    builder.executor(LOCAL, executor).open().await.expect("it opens")
}

/// Wants a script refused for this reason, by a helper and with a keeper too, one after the other.
async fn check(executor: ProcessExecutor, text: &str, why: (ExecutionStatus, &str, &str)) {
    let (status, code, says) = why;
    let place = Place::new();
    let engine = narrow(&place, executor).await;
    let limits = ResourceLimits::default().cpu_seconds(60);
    let ways =
        [script(text), script(text).resource_limits(limits), script(text).survive_restarts()];
    for request in ways {
        // Each has the one place for runs, so none before it holds that.
        let record = run(&engine, request).await;
        check_says(&record, status, code, says);
    }
}

async fn what_cannot_be_started_says_why_and_frees_its_place() {
    let place = Place::new();
    let write = |name: &str, content: &str, mode: u32| {
        fs::write(place.path(name), content).expect("written");
        open_to(&place.path(name), mode);
        format!("#!{}\n", place.path(name).display())
    };
    for (text, says) in [
        ("#!/no/such/program\n".to_owned(), "ENOENT"),
        ("#!/etc\n".to_owned(), "EACCES"),
        ("#!\n".to_owned(), "ENOEXEC"),
        (write("no-program", "\u{1}\u{2}", 0o755), "ENOEXEC"),
        (write("not-executable", "#!/bin/sh\n", 0o644), "EACCES"),
        (write("no-interpreter", "#!/no/such/program\n", 0o755), "ENOENT"),
        (format!("#!/{}\n", "x/".repeat(2_500)), "ENAMETOOLONG"),
        (format!("#!/{}\n", "x".repeat(300)), "ENAMETOOLONG"),
    ] {
        let why = (ExecutionStatus::Invalid, "LauncherNotFound", says);
        check(ProcessExecutor::new(), &text, why).await;
    }
    for shell in ["no-such-shell", "/no/such/shell"] {
        let why = (ExecutionStatus::Invalid, "LauncherNotFound", "ENOENT");
        check(ProcessExecutor::new().shell(shell), ":", why).await;
    }
    // More than the kernel takes for one variable.
    let why = (ExecutionStatus::Error, "ExecutionException", "E2BIG");
    check(ProcessExecutor::new().env("LARGE", "x".repeat(200 << 10)), ":", why).await;
}

async fn a_host_without_descriptors_says_so_and_recovers() {
    let place = Place::new();
    let mut host = place.host();
    assert_eq!(printed(&host.finish(script("echo first"))), "first\n");
    for request in [
        script(":"),
        script(":").resource_limits(ResourceLimits::default().cpu_seconds(60)),
        script(":").survive_restarts(),
    ] {
        host.order(&Order::NoFiles(true));
        let record = host.finish(request.clone());
        host.order(&Order::NoFiles(false));
        check_says(&record, ExecutionStatus::Error, "ExecutionException", "EMFILE");
        assert_eq!(host.finish(request).status, ExecutionStatus::Success);
    }
}

async fn a_keeper_that_cannot_be_started_leaves_no_folder() {
    let place = Place::new();
    let mut host = place.host();
    assert_eq!(printed(&host.finish(script("echo first"))), "first\n");
    host.order(&Order::NoFiles(true));
    let record = host.finish(script(":").survive_restarts());
    check_says(&record, ExecutionStatus::Error, "ExecutionException", "no keeper can be started");
    assert!(!place.runs().exists());
}

async fn a_user_without_processes_says_so() {
    let bob = Account::bob();
    let place = Place::new();
    bob.own(&place.path(""));
    let mut host = Host::start_as(bob, &place.setup());
    // The threads that write and read are there.
    assert_eq!(printed(&host.finish(script("echo first"))), "first\n");
    host.order(&Order::Processes(1));
    for request in [script(":"), script(":").survive_restarts()] {
        let record = host.finish(request);
        check_says(&record, ExecutionStatus::Error, "ExecutionException", "EAGAIN");
    }
}

async fn a_mount_that_runs_nothing_is_no_place_for_programs() {
    let place = Place::new();
    let mount = Mount::without_programs(place.path("mount"));
    fs::copy("/bin/true", mount.0.join("true")).expect("a program");
    let text = format!("#!{}\n", mount.0.join("true").display());
    let why = (ExecutionStatus::Invalid, "LauncherNotFound", "EACCES");
    check(ProcessExecutor::new(), &text, why).await;
    // A folder to work in, and a place for temporary files, it is all the same.
    let engine = narrow(&place, ProcessExecutor::new().env("TMPDIR", &mount.0)).await;
    let mut request = script("echo in > file; cat file \"$(mktemp)\"; pwd");
    request.working_dir = mount.0.to_str().map(str::to_owned);
    let record = run(&engine, request).await;
    assert_eq!(printed(&record), format!("in\n{}\n", mount.0.display()));
}

async fn a_program_that_cannot_help_says_what_to_do() {
    let place = Place::new();
    let mut host = Host::without_helper(&place.setup());
    let limits = ResourceLimits::default().cpu_seconds(60);
    let mut needy = vec![script(":").resource_limits(limits), script(":").survive_restarts()];
    if rustix::process::geteuid().is_root() {
        needy.push(script(":").username("nobody"));
    }
    for request in needy {
        let record = host.finish(request);
        let says = "call `adjutant::helper_main()` first in the host's `main`";
        check_says(&record, ExecutionStatus::Error, "ExecutionException", says);
        assert_eq!(printed(&host.finish(script("echo next"))), "next\n");
    }
}

async fn a_record_names_no_interpreter_by_a_value_of_a_parameter() {
    let place = Place::new();
    let engine = place.open().await;
    let limits = ResourceLimits::default().cpu_seconds(60);
    for (text, says) in [
        ("#!/bin/{{p}}\n", "`/bin/{{p}}` cannot be started"),
        ("#!/bin/{{p}}\r\n", "names `/bin/{{p}}\\r`"),
        ("#!{{p}}", "`{{p}}` cannot be started"),
        (
            "#{{q}}\n",
            "`the interpreter of the `#!` line that the parameters make` cannot be started",
        ),
    ] {
        let (name, value) =
            if text.contains("{{q}}") { ("q", "!/bin/hunter2") } else { ("p", "hunter2") };
        let request = script(text).enable_parameter().parameters([(name, value)]);
        let request = request.secret_parameters([name]);
        let limited = request.clone().resource_limits(limits);
        for request in [request.clone(), limited, request.survive_restarts()] {
            let record = run(&engine, request).await;
            check_says(&record, ExecutionStatus::Invalid, "LauncherNotFound", says);
            let record = serde_json::to_string(&record).expect("JSON");
            assert!(!record.contains("hunter2"), "{record}");
        }
    }
}

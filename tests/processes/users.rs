//! Runs as another user: who they are, what they have, and what they cannot get.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use adjutant::{Error, ExecutionStatus, ResourceLimits, RunCommand};
use libtest_mimic::Trial;

use crate::harness::{
    Account, Host, Marker, Place, check_says, need_keyrings, need_root, open_to, printed, run,
    script, text, trials, until,
};
use crate::host::{Order, Setup};

pub fn trials() -> Vec<Trial> {
    let mut trials = need_root(trials![
        a_run_has_the_numbers_and_groups_of_its_user,
        a_run_has_the_environment_of_its_user_and_nothing_of_the_hosts,
        a_run_begins_at_home_or_where_it_was_asked_to,
        names_of_nobody_are_refused_and_reach_no_shell,
        launchers_and_interpreters_are_looked_up_as_the_user,
        the_script_is_private_to_its_user,
        what_is_the_hosts_is_out_of_reach,
        a_run_cannot_become_root_again,
        a_host_that_is_not_root_runs_as_itself_only,
        a_run_has_no_capability_of_its_host,
        a_host_with_capabilities_instead_of_root_runs_as_other_users,
        a_host_that_lacks_a_capability_says_which,
        a_run_of_another_user_is_an_ordinary_process,
        a_run_cannot_look_into_a_host_that_refuses_it_nor_into_a_keeper,
        files_of_runs_are_not_writable_by_others_from_the_start,
        a_rule_about_root_holds_whatever_name_root_has,
    ]);
    trials.extend(need_root(need_keyrings(trials![a_run_has_a_session_keyring_of_its_own])));
    trials
}

/// The rule of the documentation: nobody runs as root.
struct NobodyAsRoot;

impl adjutant::Authorizer for NobodyAsRoot {
    async fn authorize(&self, action: adjutant::Action) -> Result<(), String> {
        if action.uid == Some(0) { Err("not as root".to_owned()) } else { Ok(()) }
    }
}

async fn a_rule_about_root_holds_whatever_name_root_has() {
    let name = format!("adjroot{}", std::process::id());
    let made = Command::new("useradd")
        .args(["--non-unique", "--uid", "0", "--gid", "0", "--no-create-home", &name])
        .status();
    assert!(made.expect("useradd starts").success());
    let place = Place::new();
    let engine = place.builder().authorizer(NobodyAsRoot).open().await.expect("it opens");
    let refused = async |request: RunCommand| match engine.run_command(request).await {
        Ok(run) => Err(run.invoke_id),
        Err(error) => Ok(error.code().to_owned()),
    };
    let mut told = Vec::new();
    for request in [script("id"), script("id").username("root"), script("id").username(&name)] {
        told.push(refused(request).await);
    }
    let removed = Command::new("userdel").args(["--force", &name]).status();
    assert!(removed.expect("userdel starts").success());
    let forbidden = Ok("Operation.Forbidden".to_owned());
    assert_eq!(told, [forbidden.clone(), forbidden.clone(), forbidden], "this host is root");
    let record = run(&engine, script("id -un").username(&Account::ann().name)).await;
    assert_eq!(printed(&record).trim(), Account::ann().name);
}

/// The words that a command prints.
fn words(program: &str, arguments: &[&str]) -> BTreeSet<String> {
    let output = Command::new(program).args(arguments).output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

async fn a_run_has_the_numbers_and_groups_of_its_user() {
    let place = Place::new();
    let engine = place.open().await;
    for account in [Account::ann(), Account::bob(), &Account::nobody()] {
        let name = account.name.as_str();
        let lines =
            "awk '/^Uid/ || /^Gid/ {print $2, $3, $4, $5}' /proc/self/status; id -G; id -un";
        let record = run(&engine, script(lines).username(name)).await;
        let printed = printed(&record);
        let lines: Vec<&str> = printed.lines().collect();
        let four = |number: u32| [number.to_string().as_str(); 4].join(" ");
        assert_eq!(lines[..2], [four(account.uid), four(account.gid)]);
        let groups: BTreeSet<String> = lines[2].split(' ').map(str::to_owned).collect();
        assert_eq!(groups, words("id", &["-G", name]), "{name}");
        assert_eq!((lines[3], record.username.as_str()), (name, name));
    }
    assert!(words("id", &["-G", &Account::ann().name]).len() == 3, "a user with more groups");
}

async fn a_run_has_the_environment_of_its_user_and_nothing_of_the_hosts() {
    let place = Place::new();
    let mut host = place.host();
    let account = Account::ann();
    let request = RunCommand::shell("#!/bin/cat /proc/self/environ\n").on(["local"]);
    let printed = printed(&host.finish(request.username(&account.name)));
    let environment = printed.strip_suffix("#!/bin/cat /proc/self/environ\n").expect("the script");
    let (own, others): (Vec<&str>, Vec<&str>) =
        environment.split_terminator('\0').partition(|variable| variable.starts_with("ADJUTANT_"));
    let name = &account.name;
    let want = [
        format!("HOME=/home/{name}"),
        "LANG=C.UTF-8".to_owned(),
        format!("LOGNAME={name}"),
        "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(),
        "SHELL=/bin/bash".to_owned(),
        format!("USER={name}"),
    ];
    assert_eq!(others, want);
    assert_eq!(own.len(), 7, "{own:?}");
}

async fn a_run_begins_at_home_or_where_it_was_asked_to() {
    let place = Place::new();
    let engine = place.open().await;
    let (private, public) = (place.path("private"), place.path("public"));
    for (folder, mode) in [(&private, 0o700), (&public, 0o755)] {
        fs::create_dir(folder).expect("a folder");
        open_to(folder, mode);
    }
    let ann = Account::ann();
    let at = async |name: &str, dir: Option<&std::path::Path>| {
        let request = script("pwd").username(name);
        let dir = dir.map(|dir| dir.to_str().expect("plain text"));
        run(&engine, dir.into_iter().fold(request, |request, dir| request.working_dir(dir))).await
    };
    let home = ann.home();
    assert_eq!(printed(&at(&ann.name, None).await).trim_end(), home.to_str().expect("plain"));
    assert_eq!(printed(&at("nobody", None).await), "/\n");
    assert_eq!(printed(&at(&ann.name, Some(&public)).await), format!("{}\n", public.display()));
    for (user, dir) in [(ann.name.as_str(), &private), ("nobody", &home), ("nobody", &private)] {
        // A home that others may enter is none of this test's business.
        open_to(&home, 0o700);
        let record = at(user, Some(dir)).await;
        check_says(&record, ExecutionStatus::Invalid, "DirectoryNotExists", "the user may enter");
        assert_eq!(text(&record), "");
    }
}

async fn names_of_nobody_are_refused_and_reach_no_shell() {
    let place = Place::new();
    let engine = place.open().await;
    let witness = place.path("witness");
    let touch = format!("touch {}", witness.display());
    for name in [
        "no-such-user",
        "-root",
        "--help",
        "root ",
        " root",
        "ROOT",
        "a;id",
        &format!("a;{touch}"),
        &format!("$({touch})"),
        &format!("`{touch}`"),
        &format!("root\n{touch}"),
        "../x",
        "/etc/passwd",
        "root:x",
        "0",
        "65534",
        "%root",
        "*",
        "é",
        "root\0",
    ] {
        match engine.run_command(script(&touch).username(name)).await {
            Ok(invoked) => {
                let record = crate::harness::ended(&engine, &invoked.invoke_id).await;
                check_says(&record, ExecutionStatus::Invalid, "AccountNotExists", name);
            }
            Err(Error::Invalid(violations)) => assert_eq!(violations[0].field, "Username"),
            Err(other) => panic!("{name}: {other}"),
        }
        assert!(!witness.exists(), "{name}");
    }
    // Nobody in particular is the host's own user.
    assert_eq!(printed(&run(&engine, script("id -un").username("")).await), "root\n");
    assert_eq!(printed(&run(&engine, script("id -un").username("root")).await), "root\n");
}

async fn launchers_and_interpreters_are_looked_up_as_the_user() {
    let place = Place::new();
    let engine = place.open().await;
    let (private, tool) = (place.path("private"), place.path("private/tool"));
    fs::create_dir(&private).expect("a folder");
    fs::write(&tool, "#!/bin/sh\necho tool\n").expect("a file");
    for path in [&private, &tool] {
        open_to(path, 0o700);
    }
    let tool = tool.to_str().expect("plain text");
    let launched = async |name: &str| run(&engine, script(":").launcher(tool).username(name)).await;
    assert_eq!(printed(&launched("root").await), "tool\n");
    let refused = launched(&Account::ann().name).await;
    check_says(&refused, ExecutionStatus::Invalid, "LauncherNotFound", "is no program");
    let interpreted = script(format!("#!{tool}\n")).username(&Account::ann().name);
    let refused = run(&engine, interpreted).await;
    check_says(&refused, ExecutionStatus::Invalid, "LauncherNotFound", "EACCES");
    // What only root has in its PATH.
    let request = script(":").launcher("useradd --help").username(&Account::ann().name);
    check_says(&run(&engine, request).await, ExecutionStatus::Invalid, "LauncherNotFound", "");
}

async fn the_script_is_private_to_its_user() {
    let place = Place::new();
    let engine = place.open().await;
    let (begun, go_on) = (place.pipe("begun"), place.pipe("go-on"));
    let (ann, bob) = (Account::ann(), Account::bob());
    let look = format!(
        "umask; stat -c '%a %U %G' \"$0\" \"${{0%/*}}\"; echo \"$0\" > '{}'; {}; {}; echo 1 > $ADJUTANT_RESULT",
        place.path("name").display(),
        begun.ring(),
        go_on.wait(),
    );
    fs::write(place.path("name"), "").expect("a file");
    ann.own(&place.path("name"));
    let hers = engine.run_command(script(look).username(&ann.name)).await.expect("a run");
    begun.heard();
    let path = fs::read_to_string(place.path("name")).expect("she wrote it");
    let (folder, name) = path.trim_end().rsplit_once('/').expect("a path");
    let scratch = folder.rsplit_once('/').expect("a path").0;
    for user in [&bob.name, "nobody"] {
        let spy = format!(
            "exec 2>/dev/null; cat {folder}/{name} || ls {folder} || ls {scratch} || cp /etc/hostname {folder}/result \
             || rm -r {folder} || mv {folder} {folder}x || touch {scratch}/x || echo none"
        );
        let record = run(&engine, script(spy).username(user)).await;
        assert_eq!(printed(&record), "none\n");
    }
    go_on.open();
    let record = crate::harness::ended(&engine, &hers.invoke_id).await;
    let modes = format!("0022\n700 {0} {0}\n700 {0} {0}\n", ann.name);
    assert_eq!((printed(&record), record.result), (modes, Some(1.into())));
    assert!(!std::path::Path::new(folder).exists(), "{folder} stays");
}

async fn what_is_the_hosts_is_out_of_reach() {
    let place = Place::new();
    let mut host = place.host();
    let private = place.path("private");
    fs::write(&private, "secret").expect("a file");
    open_to(&private, 0o600);
    let pid = host.pid();
    let attempts = [
        format!("cat {}", private.display()),
        format!("echo x >> {}", place.db().display()),
        format!("touch {}", place.path("new").display()),
        format!("kill -0 {pid}"),
        format!("kill -TERM -- -{pid}"),
        format!("cat /proc/{pid}/environ"),
        format!("ls /proc/{pid}/fd/"),
        format!("cat /proc/{pid}/maps"),
        "kill -0 $PPID".to_owned(),
        "cat /etc/shadow".to_owned(),
        "exec 3<>/dev/tty".to_owned(),
    ];
    let tries = attempts.map(|attempt| format!("(({attempt}) && echo 'could: {attempt}')"));
    let record =
        host.finish(script(format!("{}; :", tries.join("; "))).username(&Account::ann().name));
    assert!(!printed(&record).contains("could"), "{}", text(&record));
    // It leads a session without a terminal, in which the host is not.
    let alone = "set -- $(cat /proc/$$/stat); echo $(($5 - $$)) $(($6 - $$)) $7";
    let record = host.finish(script(alone).username(&Account::ann().name));
    assert_eq!(printed(&record), "0 0 0\n");
}

async fn a_run_cannot_become_root_again() {
    let place = Place::new();
    let engine = place.open().await;
    let look = "awk '/^Cap(Eff|Prm|Amb|Inh)/ {print $2}' /proc/self/status
        setpriv --reuid=0 true || echo no
        setpriv --regid=0 --keep-groups true || echo no
        setpriv --clear-groups true || echo no
        setpriv --groups 0 true || echo no";
    for user in [&Account::ann().name, "nobody"] {
        let record = run(&engine, script(format!("exec 2>&-; {look}")).username(user)).await;
        let want = format!("{}{}", "0000000000000000\n".repeat(4), "no\n".repeat(4));
        assert_eq!(printed(&record), want, "{user}");
    }
}

async fn a_host_that_is_not_root_runs_as_itself_only() {
    let (ann, bob) = (Account::ann(), Account::bob());
    let place = Place::new();
    ann.own(&place.path(""));
    let mut host = Host::start_as(ann, &place.setup());
    for own in [Some(ann.name.as_str()), Some(""), None] {
        let request = own.into_iter().fold(script("id -un"), RunCommand::username);
        assert_eq!(printed(&host.finish(request)).trim_end(), ann.name);
    }
    for other in [bob.name.as_str(), "root", "nobody"] {
        let record = host.finish(script("id -un").username(other));
        let says = format!("the engine's user cannot run as `{other}`: it lacks CAP_SETUID, ");
        check_says(&record, ExecutionStatus::Error, "ExecutionException", &says);
        assert!(record.error_info.contains("; want root, or its rights"), "{}", record.error_info);
    }
    let record = host.finish(script("id -un").username("no-such-user"));
    check_says(&record, ExecutionStatus::Invalid, "AccountNotExists", "no-such-user");
}

async fn a_run_has_no_capability_of_its_host() {
    let ann = Account::ann();
    let place = Place::new();
    ann.own(&place.path(""));
    let capabilities = "+setuid,+setgid,+chown,+net_admin";
    let mut host = Host::start_with_capabilities(ann, capabilities, &place.setup());
    let limits = ResourceLimits::default().open_files(100);
    let look = script("awk '/^Cap(Eff|Prm|Amb|Inh)/ {print $2}' /proc/self/status");
    // Twice: the host has its capabilities back after each run.
    for _ in 0..2 {
        for request in [look.clone(), look.clone().resource_limits(limits)] {
            for request in [request.clone(), request.survive_restarts()] {
                assert_eq!(printed(&host.finish(request)), "0000000000000000\n".repeat(4));
            }
        }
        for thread in fs::read_dir(format!("/proc/{}/task", host.pid())).expect("it lives") {
            let status = fs::read_to_string(thread.expect("an entry").path().join("status"));
            // A thread may have ended by now.
            let status = status.unwrap_or_else(|_| "CapAmb:\t00000000000010c1".to_owned());
            assert!(status.contains("CapAmb:\t00000000000010c1"), "{status}");
        }
    }
}

async fn a_run_has_a_session_keyring_of_its_own() {
    let place = Place::new();
    let engine = place.open().await;
    let ann = Account::ann().name.as_str();
    // Of the keyrings of root, a run of another user sees those that it has, and no others.
    let look = "awk '$6 == 0 && $8 == \"keyring\" && $9 == \"_ses:\" {print $1}' /proc/keys";
    let look = script(look);
    let mut seen = BTreeSet::new();
    let hers = look.username(ann);
    for request in [hers.clone(), hers.clone(), hers.survive_restarts()] {
        let keyring = printed(&run(&engine, request).await);
        assert_eq!(keyring.lines().count(), 1, "{keyring}");
        assert!(seen.insert(keyring.clone()), "{keyring} is the keyring of another run");
    }
}

/// As much of root as runs of other users need.
const RIGHTS: [&str; 5] = ["+setuid", "+setgid", "+chown", "+kill", "+dac_override"];

async fn a_host_with_capabilities_instead_of_root_runs_as_other_users() {
    let (ann, bob) = (Account::ann(), Account::bob());
    let (place, marker) = (Place::new(), Marker::new());
    bob.own(&place.path(""));
    let mut host = Host::start_with_capabilities(bob, &RIGHTS.join(","), &place.setup());
    let look = "awk '/^Uid/ || /^Gid/ {print $2, $3, $4, $5}' /proc/self/status; id -G
        awk '/^Cap(Eff|Prm|Amb|Inh)/ {print $2}' /proc/self/status; setpriv --reuid=0 true 2>&- || echo no
        mkdir -p ${ADJUTANT_RESULT%/*}/a/b/c; echo 7 > $ADJUTANT_RESULT; echo ${0%/*}";
    for request in [script(look), script(look).survive_restarts()] {
        let record = host.finish(request.username(&ann.name));
        let printed = printed(&record);
        let lines: Vec<&str> = printed.lines().collect();
        let four = |number: u32| [number.to_string().as_str(); 4].join(" ");
        assert_eq!(lines[..2], [four(ann.uid), four(ann.gid)]);
        let groups: BTreeSet<String> = lines[2].split(' ').map(str::to_owned).collect();
        assert_eq!(groups, words("id", &["-G", &ann.name]));
        assert_eq!(lines[3..8], [&["0000000000000000"; 4][..], &["no"]].concat());
        assert_eq!(record.result, Some(7.into()));
        let folder = std::path::Path::new(lines[8]);
        until("its folder is gone", || !folder.exists()).await;
    }
    // A stop reaches what the run has started, also in sessions of their own.
    let sleeps = format!("setsid {} & echo up; wait", marker.sleep());
    let invoke_id = host.run(script(sleeps).username(&ann.name));
    host.expect("up");
    until("it sleeps", || marker.alive().len() == 1).await;
    host.order(&Order::Stop(invoke_id));
    assert_eq!(host.ended().status, ExecutionStatus::Terminated);
    marker.check_nobody_is_left("a run of another user");
}

async fn a_host_that_lacks_a_capability_says_which() {
    for lacking in RIGHTS {
        let place = Place::new();
        Account::bob().own(&place.path(""));
        let rights = RIGHTS.into_iter().filter(|right| *right != lacking).collect::<Vec<_>>();
        let rights = rights.join(",");
        let mut host = Host::start_with_capabilities(Account::bob(), &rights, &place.setup());
        let record = host.finish(script("id").username(&Account::ann().name));
        let lacks = format!("it lacks CAP_{};", lacking[1..].to_uppercase());
        check_says(&record, ExecutionStatus::Error, "ExecutionException", &lacks);
        assert_eq!(text(&record), "");
    }
}

/// Prints the mask, the niceness and the scheduling policy, the priority for disks, the limits of priorities and the
/// slack of timers.
const STANDING: &str = "umask; awk '{print $19, $41}' /proc/self/stat; ionice
    ulimit -e; ulimit -r; cat /proc/self/timerslack_ns; cat /proc/self/oom_score_adj";

async fn a_run_of_another_user_is_an_ordinary_process() {
    let place = Place::new();
    let words = "umask 000; echo 1000 > /proc/self/timerslack_ns
        exec choom -n 300 -- ionice -c 1 -n 3 chrt -f 5 nice -n -5";
    let mut host = Host::start_after(words, &place.setup());
    let hers = script(format!("#!/bin/bash\n{STANDING}")).username(&Account::ann().name);
    for request in [hers.clone(), hers.survive_restarts()] {
        // What makes things worse for the host's runs is left to the host.
        let want = "0022\n0 0\nnone: prio 0\n0\n0\n50000\n300\n";
        assert_eq!(printed(&host.finish(request)), want);
    }
}

async fn files_of_runs_are_not_writable_by_others_from_the_start() {
    let limits = ResourceLimits::default().open_files(100);
    for (of_host, want) in
        [("000", "0022\n"), ("002", "0022\n"), ("022", "0022\n"), ("027", "0027\n")]
    {
        let place = Place::new();
        let mut host = Host::start_after(&format!("umask {of_host}; exec"), &place.setup());
        for request in [script("umask"), script("umask").resource_limits(limits)] {
            for request in [request.clone(), request.survive_restarts()] {
                assert_eq!(printed(&host.finish(request)), want, "{of_host}");
            }
        }
        let hers = script("umask").username(&Account::ann().name);
        assert_eq!(printed(&host.finish(hers)), "0022\n", "{of_host}");
    }
}

async fn a_run_cannot_look_into_a_host_that_refuses_it_nor_into_a_keeper() {
    let ann = Account::ann();
    for refuses_inspection in [true, false] {
        let place = Place::new();
        ann.own(&place.path(""));
        let setup = Setup { refuses_inspection, ..place.setup() };
        let mut host = Host::start_as(ann, &setup);
        let limits = ResourceLimits::default().open_files(100);
        let look = |of: &str| {
            let files = ["environ", "mem", "maps", "fd/0", "exe"];
            let tries = files.map(|file| format!("head -c 1 /proc/{of}/{file} > /dev/null"));
            let tries = tries.map(|attempt| format!("{attempt} && echo 'could: {attempt}'"));
            script(format!("exec 2>&-; {}; echo none", tries.join("; ")))
        };
        // A helper begins those with limits, and knows its parent all the same.
        let at_host = look(&host.pid().to_string());
        for request in [at_host.clone(), at_host.resource_limits(limits)] {
            let printed = printed(&host.finish(request));
            assert_eq!(printed == "none\n", refuses_inspection, "{printed}");
        }
        let at_keeper = look("$PPID").survive_restarts();
        for request in [at_keeper.clone(), at_keeper.resource_limits(limits)] {
            assert_eq!(printed(&host.finish(request)), "none\n");
        }
    }
}

//! What a run leaves as its result, and what it only seems to leave.

use std::fs;

use adjutant::{ExecutionStatus, InvocationResult, RunCommand};
use libtest_mimic::Trial;
use serde_json::json;

use crate::harness::{Account, Place, need_root, open_to, printed, run, script, text, trials};

pub fn trials() -> Vec<Trial> {
    let mut trials =
        trials![a_result_is_kept_and_what_is_none_is_explained, a_script_may_remove_its_files,];
    trials.extend(need_root(trials![
        what_a_user_puts_in_the_place_of_a_result_leads_nowhere,
        what_a_user_puts_in_the_place_of_the_script_removes_nothing_else,
    ]));
    trials
}

/// As the host's own user and with a keeper; as another user and with a keeper.
fn ways(text: &str) -> Vec<RunCommand> {
    let own = script(text);
    let mut ways = vec![own.clone(), own.survive_restarts()];
    if rustix::process::geteuid().is_root() {
        let hers = script(text).username(&Account::ann().name);
        ways.extend([hers.clone(), hers.survive_restarts()]);
    }
    ways
}

/// Wants success without a result, and this about why there is none.
#[track_caller]
fn check_none(record: &InvocationResult, why: &str) {
    let got = (record.status, &record.result);
    assert_eq!(got, (ExecutionStatus::Success, &None), "{}", text(record));
    assert!(record.result_error.contains(why), "want `{why}` in: {}", record.result_error);
    assert_eq!(why.is_empty(), record.result_error.is_empty(), "{}", record.result_error);
}

async fn a_result_is_kept_and_what_is_none_is_explained() {
    let place = Place::new();
    let engine = place.open().await;
    for (left, want) in [
        ("echo '{\"a\": [1, null]}' > $ADJUTANT_RESULT", json!({"a": [1, null]})),
        ("printf null > $ADJUTANT_RESULT", json!(null)),
        ("echo 1 > $ADJUTANT_RESULT.x; mv $ADJUTANT_RESULT.x $ADJUTANT_RESULT", json!(1)),
    ] {
        for request in ways(left) {
            let record = run(&engine, request).await;
            assert_eq!((printed(&record).as_str(), record.result), ("", Some(want.clone())));
        }
    }
    for (left, why) in [
        (":", ""),
        (": > $ADJUTANT_RESULT", "it is no JSON"),
        ("echo '{\"a\": 1' > $ADJUTANT_RESULT", "it is no JSON"),
        ("echo 1 2 > $ADJUTANT_RESULT", "it is no JSON"),
        ("printf '\\377' > $ADJUTANT_RESULT", "it is no JSON"),
        ("head -c 100000 /dev/zero | tr '\\0' '[' | head -c 60000 > $ADJUTANT_RESULT", "no JSON"),
        ("head -c 70000 /dev/zero > $ADJUTANT_RESULT", "want at most 65536 bytes; it has 70000"),
        ("truncate -s 1T $ADJUTANT_RESULT", "it has 1099511627776"),
        ("mkfifo $ADJUTANT_RESULT", "want a plain file"),
        ("mkdir $ADJUTANT_RESULT", "want a plain file"),
        ("ln -s /etc/hostname $ADJUTANT_RESULT", "it cannot be opened"),
        ("ln -s /dev/zero $ADJUTANT_RESULT", "it cannot be opened"),
        ("ln -s $ADJUTANT_RESULT $ADJUTANT_RESULT", "it cannot be opened"),
        (
            "perl -MIO::Socket::UNIX -e 'chdir \"/proc/self/cwd\"; \
          IO::Socket::UNIX->new(Local => $ENV{ADJUTANT_RESULT}, Listen => 1) or die'",
            "it cannot be opened",
        ),
    ] {
        for request in ways(left) {
            check_none(&run(&engine, request).await, why);
        }
    }
    // The number of the engine, the name of its database, and the file of the test.
    assert_eq!(fs::read_dir(scratch(&engine).await).expect("the folder").count(), 3);
}

/// Where the engine has the files of runs; this run's and the engine's own are in it.
async fn scratch(engine: &adjutant::Engine) -> String {
    let record = run(engine, script("printf %s \"${0%/*}\"")).await;
    let folder = printed(&record);
    // The run that told is over.
    fs::write(format!("{folder}/of-the-test"), "").expect("written");
    folder
}

async fn a_script_may_remove_its_files() {
    let place = Place::new();
    let engine = place.open().await;
    for request in ways("rm -r \"$0\"; rmdir \"${0%/*}\" 2>/dev/null; :") {
        check_none(&run(&engine, request).await, "");
    }
}

async fn what_a_user_puts_in_the_place_of_a_result_leads_nowhere() {
    let place = Place::new();
    let engine = place.open().await;
    let secret = place.path("secret.json");
    fs::write(&secret, "\"secret\"").expect("written");
    open_to(&secret, 0o600);
    let secret = secret.display();
    let folder = "d=${ADJUTANT_RESULT%/*}";
    for (left, why) in [
        ("ln -s /etc/shadow $ADJUTANT_RESULT".to_owned(), "it cannot be opened"),
        (format!("ln -s {secret} $ADJUTANT_RESULT"), "it cannot be opened"),
        (format!("{folder}; rm -r $d/*; ln -s {secret} $d/result"), "it cannot be opened"),
        ("echo 1 > $ADJUTANT_RESULT; chmod 0 $ADJUTANT_RESULT".to_owned(), "RESULT OF ROOT"),
    ] {
        for request in ways(&left).into_iter().skip(2) {
            let record = run(&engine, request).await;
            if why == "RESULT OF ROOT" {
                assert_eq!(record.result, Some(json!(1)));
            } else {
                check_none(&record, why);
            }
            assert!(!format!("{record:?}").contains("secret\""), "{record:?}");
        }
    }
    // A link that the kernel forbids users to make, as it may not everywhere: made by root.
    let (begun, go_on) = (place.pipe("begun"), place.pipe("go-on"));
    let name = place.path("name");
    fs::write(&name, "").expect("written");
    Account::ann().own(&name);
    let tell =
        format!("echo $ADJUTANT_RESULT > {}; {}; {}", name.display(), begun.ring(), go_on.wait());
    let request = script(tell).username(&Account::ann().name);
    let invoked = engine.run_command(request).await.expect("a run");
    begun.heard();
    let result = fs::read_to_string(&name).expect("written");
    fs::copy(place.path("secret.json"), format!("{}x", result.trim_end()))
        .expect("the same device");
    fs::rename(format!("{}x", result.trim_end()), result.trim_end()).expect("root may");
    go_on.open();
    let record = crate::harness::ended(&engine, &invoked.invoke_id).await;
    check_none(&record, "want a plain file of the run's own user");
}

async fn what_a_user_puts_in_the_place_of_the_script_removes_nothing_else() {
    let place = Place::new();
    let engine = place.open().await;
    let precious = place.path("precious");
    fs::create_dir(&precious).expect("a folder");
    fs::write(precious.join("file"), "kept").expect("written");
    let link = format!("d=${{0%/*}}; rm -rf $d/*; ln -s {} $d/script.sh", precious.display());
    let deep = "d=${0%/*}; for n in 1 2 3 4 5 6 7 8 9; do mkdir $d/deep; d=$d/deep; touch $d/x; done; chmod 0 $d";
    let swap = format!(
        "d=${{0%/*}}; mv $d $d.old && ln -s {0} $d; rmdir $d && ln -s {0} $d; \
         rm -rf $d/*; rmdir $d; ln -s {0} $d; ln -s {0} $d/inner; :",
        precious.display()
    );
    for left in [&link, deep, &swap] {
        for request in ways(left).into_iter().skip(2) {
            let record = run(&engine, request.clone()).await;
            assert_eq!(record.status, ExecutionStatus::Success, "{}", record.error_info);
            assert_eq!(fs::read_to_string(precious.join("file")).expect("it is kept"), "kept");
            let folder = run(&engine, script("ls \"${0%/*}\"; echo \"$0\"")).await;
            let listed = printed(&folder);
            let is_run = |line: &&str| {
                line.contains('-') && !["kept", "engine", "/"].iter().any(|no| line.starts_with(no))
            };
            assert_eq!(listed.lines().filter(is_run).count(), 1, "{listed}");
        }
    }
}

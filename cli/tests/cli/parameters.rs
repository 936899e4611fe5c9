//! Values for scripts, and instances and runs by their tags.

use crate::harness::Place;

#[test]
fn values_come_into_scripts() {
    Place::with_and_without_owner(&["local"], |place, _| {
        assert_eq!(place.ok(&["run", "--param", "name=Jack", "echo {{ name }}"]), "Jack\n");
        assert_eq!(place.ok(&["run", "--param", "a=b=c", "echo '{{a}}{{missing}}'"]), "b=c\n");
        assert_eq!(place.ok(&["run", "echo {{name}}"]), "{{name}}\n");
        assert_eq!(place.ok(&["run", "--parameters", "echo [{{name}}]"]), "[]\n");
        let hostile = "$(touch pwned); \"";
        let workdir = place.path("");
        let value = format!("name={hostile}");
        let words = ["run", "--workdir", workdir.to_str().expect("UTF-8"), "--param-env", &value];
        let script = "printf '%s' \"$PARAM_NAME\"";
        assert_eq!(place.ok(&[&words[..], &[script]].concat()), hostile);
        assert!(!place.path("pwned").exists());
    });
}

#[test]
fn a_value_comes_from_a_file_or_the_environment_and_no_other_user_sees_it() {
    let place = Place::new();
    std::fs::write(place.path("secret"), "hunter2\n").expect("written");
    let file = format!("p=@{}", place.path("secret").display());
    let gate = place.gate("gate");
    let script = format!("printf '%s' \"$PARAM_P\"; {}", gate.wait());
    for (option, value) in [("--param-env", file.as_str()), ("--param-env", "p")] {
        let mut command = place.command(&["run", option, value, "--secret", "p", &script]);
        command.env("p", "hunter2");
        let run = crate::harness::Running::new(command);
        let line = std::fs::read(format!("/proc/{}/cmdline", run.pid())).expect("it runs");
        assert!(!String::from_utf8_lossy(&line).contains("hunter2"));
        gate.open();
        assert_eq!(run.end().out, "hunter2", "{value}");
    }
    assert_eq!(place.ok(&["run", "--param", "to=@@ann", "echo {{to}}"]), "@ann\n");
}

#[test]
fn a_stored_command_takes_values() {
    let place = Place::new();
    let create = [
        "commands",
        "create",
        "--name",
        "greet",
        "--parameters",
        "--tag",
        "team=a",
        "echo {{greeting}} {{ACS::InstanceId}}",
    ];
    let id = place.ok(&create);
    let id = id.trim();
    assert_eq!(place.ok(&["invoke", id, "--param", "Greeting=hello"]), "hello local\n");
    assert_eq!(
        place.ok(&["preview", id, "--param", "greeting=hi", "--on", "local"]),
        "hi local\n".replace("hi", "echo hi")
    );
    assert_eq!(place.ok(&["preview", "{{a}} {{b}}", "--param", "a=1"]), "1 \n");
    let preview = place.json(&["preview", "{{a}}", "--param", "a=1"]);
    assert_eq!(preview["CommandContent"], "MQ==");
    let listed = place.json(&["commands", "list", "--tag", "team=a"]);
    assert_eq!(listed["Commands"]["Command"][0]["ParameterNames"]["ParameterName"][0], "greeting");
    let listed = place.json(&["commands", "list", "--tag", "team=b"]);
    assert_eq!(listed["Commands"]["Command"].as_array().map(Vec::len), Some(0));
}

#[test]
fn tags_select_instances() {
    let place = Place::new();
    place.ok(&["instances", "add", "w1", "w2", "--tag", "role=web", "--group", "rg-1"]);
    place.ok(&["instances", "add", "d1", "--tag", "role=db", "--time-zone", "Asia/Kolkata"]);
    let done = place.run(&["run", "--on-tag", "role=web", "echo hi"]);
    let mut lines: Vec<_> = done.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["w1 | hi", "w2 | hi"]);
    place.ok(&["run", "--on-tag", "role=web", "--group", "rg-1", "true"]);
    let check = |words: &[&str], code: &str| {
        let done = place.run(&[&["run"], words, &["true"]].concat());
        assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{words:?}");
        assert!(done.err.contains(code), "{words:?}: {}", done.err);
    };
    check(&["--on-tag", "role=none"], "(InvalidResourceTag.InstanceNotFound)");
    check(&["--on", "d1", "--group", "rg-1"], "(InvalidInstance.NotMatch)");
    check(&["--param", "a=1"], "(Parameter.NotMatched)");
    check(&["--tag", "acs:x=1"], "(InvalidTagKey.Malformed)");
    let done = place.run(&["run", "--on", "w1", "--on-tag", "role=web", "true"]);
    assert_eq!(done.code, Some(2));
}

#[test]
fn a_token_makes_a_request_safe_to_repeat() {
    let place = Place::new();
    let run = || place.json(&["run", "--client-token", "t-1", "--tag", "k=v", "echo once"]);
    let (first, again) = (run(), run());
    assert_eq!(first["InvokeId"], again["InvokeId"]);
    assert_eq!(first["Tags"]["Tag"][0]["TagKey"], "k");
    let other = place.run(&["run", "--client-token", "t-1", "echo other"]);
    assert!(other.err.contains("(IdempotentParameterMismatch)"), "{}", other.err);
    assert_eq!(place.json(&["quota"])["InvocationsToday"], 1);
    assert_eq!(place.ok(&["quota"]), "Commands  0\nToday     1 runs\n");
}

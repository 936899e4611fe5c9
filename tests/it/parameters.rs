//! Parameters from a request to what the script sees.

use std::sync::{Arc, Mutex};

use adjutant::{
    ClosureExecutor, CreateCommand, DescribeCommands, DescribeInvocations, Engine, ExecutionStatus,
    Given, Instance, InvokeCommand, LOCAL, ParameterPassing, Parameters, PreviewCommand,
    RunCommand,
};

use proptest::prelude::*;

use crate::support::{Place, engine, pages, wait, within};

/// What a run on this machine prints.
async fn printed(engine: &Engine, request: RunCommand) -> Vec<u8> {
    let run = engine.run_command(request.on([LOCAL])).await.expect("a sound request");
    let finished = wait(engine, &run.invoke_id).await;
    let result = &finished.results[0];
    assert_eq!(result.status, ExecutionStatus::Success, "{}", result.error_info);
    result.output.as_bytes().to_vec()
}

async fn local() -> Engine {
    Engine::open_in_memory().await.expect("an engine in memory")
}

#[tokio::test]
async fn values_are_filled_in() {
    let engine = local().await;
    let check = async |script: &str, values: &[(&str, &str)], want: &str| {
        let request = RunCommand::shell(script).enable_parameter();
        let request = request.parameters(values.iter().copied());
        assert_eq!(String::from_utf8_lossy(&printed(&engine, request).await), want, "{script}");
    };
    check("echo {{ name }}", &[("name", "Jack")], "Jack\n").await;
    check("echo '{{a}}' '{{ B\n}}'", &[("A", "1"), ("b", "{{a}}")], "1 {{a}}\n").await;
    check("echo [{{missing}}]", &[], "[]\n").await;
    check("echo {{ACS::InstanceId}}", &[], "local\n").await;
    let request = RunCommand::shell("echo {{name}}");
    assert_eq!(
        printed(&engine, request).await,
        b"{{name}}\n",
        "without EnableParameter it is text"
    );
}

#[tokio::test]
async fn built_ins_differ_from_instance_to_instance() {
    let engine =
        Engine::builder().region_id("cn-test").account_id("42").open().await.expect("it opens");
    for name in ["i-1", "i-2"] {
        engine
            .register_instance(Instance::new(name).name(format!("name:of.{name}")))
            .await
            .expect("sound");
    }
    let script = "echo \"{{ACS::InstanceId}}|{{acs::instancename}}|{{ACS::RegionId}}|{{ACS::AccountId}}|{{ACS::InvokeId}}|{{ACS::CommandId}}\"";
    let request = RunCommand::shell(script).enable_parameter().on(["i-1", "i-2"]);
    let run = engine.run_command(request).await.expect("sound");
    let finished = wait(&engine, &run.invoke_id).await;
    for (result, id) in finished.results.iter().zip(["i-1", "i-2"]) {
        let want = format!("{id}|name:of.{id}|cn-test|42|{}|{}\n", run.invoke_id, run.command_id);
        assert_eq!(result.output.to_text(), want);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_is_stored() {
    let engine = pages().await;
    let check = async |request: RunCommand, want: &[&str]| {
        let error = engine.run_command(request.on(["i-1"])).await.expect_err("refused");
        let codes: Vec<_> = error.violations().iter().map(|violation| violation.code).collect();
        assert_eq!(codes, want, "{error}");
    };
    let script = |text: &str| RunCommand::shell(text).enable_parameter();
    let many = |count| (0..count).map(|n| (format!("p{n}"), "")).collect::<Vec<_>>();
    let text_of =
        |count| many(count).iter().map(|(name, _)| format!("{{{{{name}}}}}")).collect::<String>();
    check(RunCommand::shell("x").parameters([("a", "1")]), &["Parameter.Disabled"]).await;
    check(script("{{a}}").parameters([("b", "1")]), &["Parameter.NotMatched"]).await;
    check(script("{{a}}").parameters([("a", "1"), ("A", "2")]), &["ParameterKey.Duplicate"]).await;
    check(script(&text_of(20)).parameters(many(11)), &["ParameterCount.ExceedLimit"]).await;
    check(script(&text_of(21)), &["CmdParamCount.ExceedLimit"]).await;
    check(script("{{a b}}"), &["CmdParam.InvalidParamName"]).await;
    let (short, long) = ("n".repeat(64), "n".repeat(65));
    check(script("x").parameters([(short, "")]), &["Parameter.NotMatched"]).await;
    check(
        script("x").parameters([(long, "")]),
        &["Parameter.NotMatched", "ParameterKey.ExceedLimit"],
    )
    .await;
    let passing = |text: &str| script(text).parameter_passing(ParameterPassing::Environment);
    check(passing("{{a}}"), &["InvalidParameter.ParameterPassing"]).await;
    check(passing("{{ACS::InstanceName}}"), &["InvalidParameter.ParameterPassing"]).await;
    let much = "x".repeat(4_000_000);
    check(script(&"{{a}}".repeat(2_000)).parameters([("a", much)]), &["CmdContent.ExceedLimit"])
        .await;
    check(passing("x").parameters([("a b", "")]), &["CmdParam.InvalidParamName"]).await;
    check(passing("x").parameters([("a-b", ""), ("a_b", "")]), &["ParameterKey.Duplicate"]).await;
    let mut unknown = script("x");
    unknown.parameter_passing = Given::Unknown("Magic".to_owned());
    check(unknown, &["InvalidParameter.ParameterPassing"]).await;
    let none = engine.describe_invocations(DescribeInvocations::default()).await.expect("a page");
    assert_eq!(none.invocations, []);
}

#[tokio::test]
async fn the_size_counts_before_and_after_the_values_are_in() {
    let engine = pages().await;
    // As Base64 24 KB, the limit of a command that is not kept.
    let bytes_max = 18 * 1024;
    let check = async |value_len: usize, passing, fits: bool| {
        let script = match passing {
            ParameterPassing::Text => "exit:0 {{v}}",
            ParameterPassing::Environment => "exit:0 ",
        };
        let request = RunCommand::shell(script).enable_parameter().parameter_passing(passing);
        let run =
            engine.run_command(request.parameters([("v", "x".repeat(value_len))]).on(["i-1"]));
        match run.await {
            Ok(_) => assert!(fits, "{value_len}"),
            Err(error) => {
                assert_eq!((error.code(), fits), ("CmdContent.ExceedLimit", false), "{error}");
            }
        }
    };
    check(bytes_max - 7, ParameterPassing::Text, true).await;
    check(bytes_max - 6, ParameterPassing::Text, false).await;
    let name = "PARAM_V".len();
    check(bytes_max - 7 - name, ParameterPassing::Environment, true).await;
    check(bytes_max - 6 - name, ParameterPassing::Environment, false).await;
}

#[tokio::test]
async fn a_stored_command_takes_values_when_it_is_invoked() {
    let engine = local().await;
    let create = CreateCommand::shell("greet", "echo {{greeting}} {{Name}}").enable_parameter();
    let command_id = engine.create_command(create).await.expect("sound").command_id;
    let listed = engine.describe_commands(DescribeCommands::default()).await.expect("a page");
    assert!(listed.commands[0].enable_parameter);
    assert_eq!(listed.commands[0].parameter_names, ["greeting", "Name"]);

    let values = [("GREETING", "hello"), ("name", "Jack")];
    let request = InvokeCommand::new(command_id).parameters(values).on([LOCAL]);
    let run = engine.invoke_command(request).await.expect("sound");
    let finished = wait(&engine, &run.invoke_id).await;
    assert_eq!(finished.results[0].output.to_text(), "hello Jack\n");
    let filter = DescribeInvocations::default().invoke_id(run.invoke_id);
    let listed = engine.describe_invocations(filter).await.expect("it exists");
    assert_eq!(listed.invocations[0].parameters, Parameters::from_iter(values));

    let request = InvokeCommand::new(command_id).parameters([("surname", "x")]).on([LOCAL]);
    let error = engine.invoke_command(request).await.expect_err("it has no such parameter");
    assert_eq!(error.code(), "Parameter.NotMatched");
    assert!(error.to_string().contains("it has greeting, Name"), "{error}");
}

#[tokio::test]
async fn a_preview_is_what_would_run() {
    let engine = engine().await;
    let create =
        CreateCommand::shell("greet", "echo {{name}} on {{ACS::InstanceId}}").enable_parameter();
    let command_id = engine.create_command(create).await.expect("sound").command_id;
    let check = async |request: PreviewCommand, want: Result<&str, &str>| {
        let told = engine.preview(request).await;
        let told = told.as_ref().map(|told| told.command_content.to_text());
        match want {
            Ok(text) => assert_eq!(told.expect("sound"), text),
            Err(code) => assert_eq!(told.expect_err("refused").code(), code),
        }
    };
    let stored = || PreviewCommand::stored(command_id).parameters([("name", "J")]);
    check(stored().on("i-1"), Ok("echo J on i-1")).await;
    check(stored(), Ok("echo J on ")).await;
    check(stored().on("i-9"), Err("InvalidInstance.NotFound")).await;
    check(PreviewCommand::script("{{a}}{{b}}").parameters([("B", "x")]), Ok("x")).await;
    check(PreviewCommand::script("{{a}}").parameters([("b", "x")]), Err("Parameter.NotMatched"))
        .await;
    let plain = CreateCommand::shell("plain", "docker inspect -f '{{.State}}'");
    let plain = engine.create_command(plain).await.expect("sound").command_id;
    check(PreviewCommand::stored(plain), Ok("docker inspect -f '{{.State}}'")).await;
    check(PreviewCommand::default(), Err("MissingParameter.CommandContent")).await;
}

/// Values that do something if anybody lets them, in the ways that are known.
fn hostile_values() -> Vec<String> {
    let effects = ["touch pwned", "touch $PWD/pwned", "echo > pwned", ":>pwned", "kill $$"];
    let wraps = [
        "$(@)",
        "`@`",
        ";@;",
        "\n@\n",
        "&&@",
        "||@",
        "|@",
        "&@&",
        "\"; @; \"",
        "'; @; '",
        "\\\"; @ #",
        "\\'; @ #",
        "$((`@`))",
        "${x:-$(@)}",
        "<(@)",
        ">(@)",
        "\r\n@\r\n",
        "\0@".trim_start_matches('\0'),
        "{@,}",
        "!(@)",
        "$'\\n@'",
        "EOF\n@\n",
        "' \"$(@)\" '",
        "%s$(@)",
        "-e $(@)",
        "--; @",
        "{{x}}$(@)",
        "}}; @; {{",
        "\u{2028}@",
        "\u{202e}@",
        "\u{feff}@",
        "\u{85}@",
        "@ \\\n",
        "#{@}",
        "<%=`@`%>",
        "*;@",
        "?;@",
        "~;@",
        "[a-z]*;@",
        "$IFS@",
        "$0 -c '@'",
        "exec @",
        "eval '@'",
        "() { :;}; @",
        "x=$(@)",
        "export x=`@`",
        "source <(@)",
        "\u{1b}]0;@\u{7}",
        "$PARAM_X @",
        "${PARAM_X}@",
        "\\$(@)",
        "\\`@\\`",
        "\t@\t",
        "\u{b}@",
        "\u{c}@",
        "a\nb$(@)c",
        "%0a@",
        "&#96;@&#96;",
        "=cmd|'@'!A1",
        "-rf /",
        "../../@",
        "/dev/null;@",
        "file://@",
    ];
    let mut values: Vec<String> = wraps
        .iter()
        .flat_map(|wrap| effects.iter().map(move |effect| wrap.replace('@', effect)))
        .collect();
    values.extend(
        ["", " ", "'", "\"", "\\", "$", "`", "\n", "-n", "*", "ä€😀", "{{name}}"].map(String::from),
    );
    values
}

#[tokio::test]
async fn hostile_values_arrive_unchanged_in_the_environment_and_do_nothing() {
    let (engine, place) = (local().await, Place::new());
    let values = hostile_values();
    assert!(values.len() >= 300, "{}", values.len());
    let script = "printf %s \"$PARAM_X\"; printf %s \"$PARAM_A_B\" >&2; [ ! -e pwned ]";
    for value in values {
        let request = RunCommand::shell(script)
            .enable_parameter()
            .parameter_passing(ParameterPassing::Environment)
            .parameters([("x", value.as_str()), ("a-b", "")])
            .working_dir(place.folder().to_string_lossy());
        assert_eq!(String::from_utf8_lossy(&printed(&engine, request).await), value);
    }
    assert_eq!(std::fs::read_dir(place.folder()).expect("a folder").count(), 0);
}

#[tokio::test]
async fn in_text_passing_a_value_is_part_of_the_script() {
    let (engine, place) = (local().await, Place::new());
    let run = async |script: &str, value: &str| {
        let request = RunCommand::shell(script)
            .enable_parameter()
            .parameters([("x", value)])
            .working_dir(place.folder().to_string_lossy());
        printed(&engine, request).await
    };
    // Where the script quotes what it is given, it is text to the shell too.
    for value in hostile_values().iter().filter(|value| !value.contains("EOF")) {
        let text = run("cat <<'EOF'\n{{x}}\nEOF", value).await;
        assert_eq!(String::from_utf8_lossy(&text), format!("{value}\n"));
    }
    assert!(!place.folder().join("pwned").exists());
    // Where it does not, whoever gives a value has the script do anything.
    run("echo {{x}}", "$(touch pwned)").await;
    assert!(place.folder().join("pwned").exists());
}

#[tokio::test]
async fn hostile_names_are_refused() {
    let engine = engine().await;
    for value in hostile_values() {
        let is_name =
            |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if is_name(&value) {
            continue;
        }
        for passing in [ParameterPassing::Text, ParameterPassing::Environment] {
            let request = RunCommand::shell("x").enable_parameter().parameter_passing(passing);
            let run = engine.run_command(request.parameters([(value.as_str(), "")]).on(["i-1"]));
            let error = run.await.expect_err("refused");
            let codes =
                ["Parameter.NotMatched", "CmdParam.InvalidParamName", "ParameterKey.ExceedLimit"];
            assert!(codes.contains(&error.code()), "{value:?}: {error}");
        }
    }
    let none = engine.describe_invocations(DescribeInvocations::default()).await.expect("a page");
    assert_eq!(none.invocations, []);
}

#[test]
fn values_are_kept_out_of_debug_output() {
    let request = RunCommand::shell("x").parameters([("password", "hunter2")]);
    assert!(!format!("{request:?}").contains("hunter2"));
    assert!(format!("{:?}", Parameters::from_iter([("p", "hunter2")])).contains("\"p\""));
}

/// Names that differ in more than their case, also as variables.
fn names_and_values() -> impl Strategy<Value = Vec<(String, String)>> {
    let name = "[A-Za-z0-9_-]{1,24}";
    let value = any::<String>().prop_map(|value| value.replace('\0', ""));
    let like_text = prop_oneof![
        3 => value,
        1 => Just("{{p}} {{ACS::InstanceId}}".to_owned()),
        1 => Just("}}{{".to_owned()),
    ];
    proptest::collection::vec((name, like_text), 1..=10).prop_map(|pairs| {
        let variable = |name: &str| name.to_ascii_uppercase().replace('-', "_");
        let mut distinct: Vec<(String, String)> = Vec::new();
        for (name, value) in pairs {
            if distinct.iter().all(|(known, _)| variable(known) != variable(&name)) {
                distinct.push((name, value));
            }
        }
        distinct
    })
}

/// The same name in other letters.
fn swapped(name: &str) -> String {
    let swap =
        |c: char| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    name.chars().map(swap).collect()
}

type Seen = Arc<Mutex<Vec<(Vec<u8>, Vec<(String, String)>)>>>;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever the names and values are, the script has them byte by byte, and once.
    #[test]
    fn any_values_arrive_as_they_are(pairs in names_and_values(), by_json in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let seen = Seen::default();
            let witness = Arc::clone(&seen);
            let executor = ClosureExecutor::new(move |task, _cx| {
                let given = (task.content().to_vec(), task.variables());
                witness.lock().expect("no panic").push(given);
                std::future::ready(0)
            });
            let engine = Engine::builder().executor("witness", executor).open().await;
            let engine = engine.expect("an engine");
            let instance = Instance::new("i-1").executor("witness");
            engine.register_instance(instance).await.expect("sound");

            let around = |name: &str| format!("<{{{{ {} \n}}}}{{{{{name}}}}}>", swapped(name));
            let script: String = pairs.iter().map(|(name, _)| around(name)).collect();
            let filled: String = pairs.iter().map(|(_, value)| format!("<{value}{value}>")).collect();
            let preview = PreviewCommand::script(&script).parameters(pairs.clone());
            let preview = engine.preview(preview).await.expect("sound").command_content;
            assert_eq!(preview.as_bytes(), filled.as_bytes());

            for (script, passing) in
                [(script.as_str(), ParameterPassing::Text), ("x", ParameterPassing::Environment)]
            {
                let mut request = RunCommand::shell(script).enable_parameter().on(["i-1"]);
                request = request.parameter_passing(passing).parameters(pairs.clone());
                if by_json {
                    let json = serde_json::to_string(&request).expect("it is JSON");
                    request = serde_json::from_str(&json).expect("it reads back");
                }
                let run = engine.run_command(request).await.expect("sound");
                wait(&engine, &run.invoke_id).await;
            }
            let variables: Vec<_> = pairs
                .iter()
                .map(|(name, value)| {
                    let name = name.to_ascii_uppercase().replace('-', "_");
                    (format!("PARAM_{name}"), value.clone())
                })
                .collect();
            let want = [(filled.into_bytes(), Vec::new()), (b"x".to_vec(), variables)];
            assert_eq!(*seen.lock().expect("no panic"), want);
        });
    }
}

#[tokio::test]
async fn names_that_mean_nothing_are_refused() {
    let engine = engine().await;
    let check = async |change: fn(RunCommand) -> RunCommand, want: &[(&str, &str)]| {
        let request = change(RunCommand::shell("exit:0 {{a}}").enable_parameter().on(["i-1"]));
        let found = engine.run_command(request).await.err();
        let found = found.iter().flat_map(|error| error.violations());
        let found: Vec<_> = found.map(|violation| (violation.code, violation.field)).collect();
        assert_eq!(found, want);
    };
    let (unknown, off) = ("Parameter.NotMatched", "Parameter.Disabled");
    check(|run| run.secret_parameters(["A"]).default_parameters([("A", "")]), &[]).await;
    check(|run| run.secret_parameters(["b"]), &[(unknown, "SecretParameters")]).await;
    check(|run| run.default_parameters([("b", "")]), &[(unknown, "DefaultParameters")]).await;
    // A script that takes none keeps none.
    check(|run| run, &[]).await;
    let run = RunCommand::shell("exit:0").on(["i-1"]);
    for (request, field) in [
        (run.clone().default_parameters([("a", "1")]), "DefaultParameters"),
        (run.clone().secret_parameters(["a"]), "SecretParameters"),
        (run.parameters([("a", "1")]), "Parameters"),
    ] {
        let error = engine.run_command(request).await.expect_err("refused");
        assert_eq!((error.code(), error.violations()[0].field), (off, field));
    }
    // What is no list of values is refused as that, and not as one.
    let json =
        r#"{"Type":"RunShellScript","CommandContent":"x","InstanceId":["i-1"],"Parameters":"no"}"#;
    let request: RunCommand = serde_json::from_str(json).expect("readable");
    let error = engine.run_command(request).await.expect_err("refused");
    assert_eq!(error.violations().len(), 1, "{error}");
    assert_eq!(error.code(), "InvalidParameter.Parameters");
    // In the environment a name is one that has a value.
    let passed = |secret: &str| {
        let run = RunCommand::shell("exit:0").enable_parameter().on(["i-1"]);
        let run = run.parameter_passing(ParameterPassing::Environment);
        run.parameters([("p", "1")]).secret_parameters([secret])
    };
    engine.run_command(passed("P")).await.expect("sound");
    engine.run_command(passed("q")).await.expect_err("mistyped");
    // A stored script without placeholders may get any name in its environment later.
    let stored = CreateCommand::shell("n", "exit:0").enable_parameter().secret_parameters(["p"]);
    engine.create_command(stored).await.expect("sound");
    let stored = CreateCommand::shell("n", "{{a}}").enable_parameter().secret_parameters(["p"]);
    assert_eq!(engine.create_command(stored).await.expect_err("mistyped").code(), unknown);
}

/// Whoever registers instances must not write into the scripts of whoever runs them.
#[tokio::test]
async fn what_an_instance_is_called_cannot_become_code() {
    let place = Place::new();
    let mut free = adjutant::Limits::embedded();
    free.instance_ids_are_free = true;
    let engine = Engine::builder().path(place.database()).limits(free).open().await;
    let engine = engine.expect("the file opens");
    let script = |built_in: &str| {
        let mut request = RunCommand::shell(format!("echo \"[{{{{ACS::{built_in}}}}}]\""));
        request.enable_parameter = true;
        request
    };
    for name in [
        "$(id)", "`id`", "a b", "a\"b", "a'b", "a;b", "a|b", "a&b", "a>b", "a\\b", "a*", "~", "#",
        "a=b", "(a)", "{a}", "é$", "\u{2019}", "a/../b",
    ] {
        let instance = Instance::new(name).name(name);
        engine.register_instance(instance).await.expect(name);
        for built_in in ["InstanceId", "instancename"] {
            let error = engine.run_command(script(built_in).on([name])).await.expect_err(name);
            assert_eq!(error.code(), "InvalidParameter.BuiltIn", "{name}: {error}");
            assert!(error.to_string().contains("in the script"), "{error}");
            let preview = adjutant::PreviewCommand::script(format!("{{{{ACS::{built_in}}}}}"));
            let error = engine.preview(preview.on(name)).await.expect_err(name);
            assert_eq!(error.code(), "InvalidParameter.BuiltIn", "{name}: {error}");
        }
        // As variables they are text, whatever they are.
        let text = "printf '%s|%s' \"$ADJUTANT_INSTANCE_ID\" \"$ADJUTANT_INSTANCE_NAME\"";
        let mut request = RunCommand::shell(text).on([name]);
        request.enable_parameter = true;
        let run = engine.run_command(request).await.expect("sound").invoke_id;
        let output = wait(&engine, &run).await.results.remove(0).output;
        assert_eq!(output.to_text(), format!("{name}|{name}"));
    }
    for name in ["web-1", "Zürich.1", "数据_2", "a@b:c"] {
        engine.register_instance(Instance::new(name).name(name)).await.expect(name);
        for built_in in ["InstanceId", "InstanceName"] {
            let run = engine.run_command(script(built_in).on([name])).await.expect(name).invoke_id;
            let output = wait(&engine, &run).await.results.remove(0).output;
            assert_eq!(output.to_text(), format!("[{name}]\n"));
        }
    }
    // Renamed after the request was checked.
    engine.shutdown(std::time::Duration::ZERO).await;
    drop(engine);
    let builder = crate::support::with_executors(Engine::builder().path(place.database()));
    let engine = builder.open().await.expect("the file opens");
    let remote = |name: &str| Instance::new("remote").executor("script").name(name);
    engine.register_instance(remote("plain")).await.expect("sound");
    engine.instance_booted(&"remote".into(), "a-boot").await.expect("told");
    let late = script("InstanceName").on(["remote"]).repeat_mode(adjutant::RepeatMode::EveryReboot);
    let late = engine.run_command(late).await.expect("sound").invoke_id;
    engine.register_instance(remote("$(id)")).await.expect("sound");
    engine.instance_booted(&"remote".into(), "another-boot").await.expect("told");
    let mut watch = engine.watch(&late).await.expect("it waits");
    let ended = async {
        loop {
            if let Some(adjutant::Event::Status { status, .. }) = watch.next().await.expect("sound")
                && status.is_final()
            {
                return status;
            }
        }
    };
    assert_eq!(within(ended).await, adjutant::ExecutionStatus::Invalid);
}

#[tokio::test]
async fn instances_that_look_alike_are_refused() {
    let engine = engine().await;
    let mut limits = adjutant::Limits::embedded();
    limits.instance_ids_are_free = true;
    let free = engine.with_limits(limits);
    let check = async |engine: &Engine, instance: Instance, want: Option<&str>| {
        let shown = format!("{instance:?}");
        let error = engine.register_instance(instance.executor("script")).await.err();
        assert_eq!(error.as_ref().map(adjutant::Error::code), want, "{shown}");
    };
    let bad = Some("InvalidInstanceId.Malformed");
    let bad_name = Some("InvalidInstanceName.Malformed");
    for hidden in
        ["\u{200b}", "\u{202e}", "\u{2066}", "\u{2028}", "\u{feff}", "\u{ad}", "\n", "\u{9b}"]
    {
        check(&engine, Instance::new(format!("db{hidden}-1")), bad).await;
        check(&free, Instance::new(format!("db{hidden}-1")), bad).await;
        check(&engine, Instance::new("i-1").name(format!("db{hidden}-1")), bad_name).await;
    }
    for id in ["a b", "a$(id)", "é", "a/b", ""] {
        check(&engine, Instance::new(id), bad).await;
    }
    check(&free, Instance::new("a $(id) é"), None).await;
    check(&engine, Instance::new("i-0123._:@-Z"), None).await;
    check(&engine, Instance::new("i-1").name("Web server, Zürich (1)"), None).await;
}

//! The host's say: who may do what, and what secrets stand for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjutant::{
    Action, AgentStatus, Authorizer, ClosureExecutor, CommandId, CommandType, CreateCommand,
    DeleteCommand, DescribeCloudAssistantStatus, DescribeCommands, DescribeFires,
    DescribeInstances, DescribeInvocationResults, DescribeInvocations, Engine, EngineBuilder,
    Error, ExecutionStatus, Instance, InstanceId, InvocationStatus, InvokeCommand, InvokeId,
    ManualClock, ModifyCommand, Operation, ParameterPassing, PreviewCommand, RetryFailed,
    RunCommand, Secret, SecretError, SecretRequest, SecretResolver, StopInvocation, Stream,
};
use tokio::sync::Semaphore;

use crate::recurrence::{clock, ended, pass};
use crate::support::{Gate, Place, everything, register, wait, with_executors, within};

/// Refuses one operation at a time, and remembers what it was asked.
#[derive(Clone, Default)]
struct Rules {
    refused: Arc<Mutex<Option<Operation>>>,
    asked: Arc<Mutex<Vec<Action>>>,
}

impl Authorizer for Rules {
    async fn authorize(&self, action: Action) -> Result<(), String> {
        let refused = *self.refused.lock().expect("no panic") == Some(action.operation);
        self.asked.lock().expect("no panic").push(action);
        if refused { Err("the rules say so".to_owned()) } else { Ok(()) }
    }
}

impl Rules {
    fn refuse(&self, operation: Option<Operation>) {
        *self.refused.lock().expect("no panic") = operation;
    }

    /// What was asked since the last time, of one operation.
    fn asked(&self, operation: Operation) -> Vec<Action> {
        let all = std::mem::take(&mut *self.asked.lock().expect("no panic"));
        all.into_iter().filter(|action| action.operation == operation).collect()
    }
}

impl Rules {
    /// What was asked last of one operation.
    fn last(&self, operation: Operation) -> Action {
        let all = self.asked.lock().expect("no panic");
        let of = all.iter().rev().find(|action| action.operation == operation);
        of.expect("asked").clone()
    }
}

struct World {
    engine: Engine,
    rules: Rules,
    command: CommandId,
    repeats: InvokeId,
}

async fn world() -> World {
    let rules = Rules::default();
    let builder = with_executors(Engine::builder()).authorizer(rules.clone());
    let engine = builder.open().await.expect("an engine").called_by("ann");
    register(&engine, "script", 2).await;
    let create = CreateCommand::shell("c", "exit:0");
    let command = engine.create_command(create).await.expect("sound").command_id;
    let request = RunCommand::shell("exit:0").on(["i-1"]).frequency("rate(2m)");
    let repeats = engine.run_command(request).await.expect("sound").invoke_id;
    World { engine, rules, command, repeats }
}

/// Checks that a call is refused before it has any effect, and that its caller is told of.
async fn check<T: std::fmt::Debug>(
    world: &World,
    operation: Operation,
    call: impl Future<Output = Result<T, Error>>,
) {
    world.rules.refuse(None);
    let before = everything(&world.engine).await;
    world.rules.asked(operation);
    world.rules.refuse(Some(operation));
    let error = within(call).await.map(|_| ()).expect_err(operation.as_str());
    let told = (error.code(), error.http_status());
    assert_eq!(told, ("Operation.Forbidden", 403), "{operation}: {error}");
    assert!(error.to_string().contains("the rules say so"), "{error}");
    let asked = world.rules.asked(operation);
    assert_eq!(asked.len(), 1, "{operation}");
    assert_eq!(asked[0].caller.as_deref(), Some("ann"), "{operation}");
    world.rules.refuse(None);
    assert_eq!(everything(&world.engine).await, before, "{operation}");
}

#[tokio::test]
async fn each_operation_is_asked_about_before_it_has_any_effect() {
    let world = world().await;
    let (engine, command, repeats) = (&world.engine, world.command, world.repeats);
    let run = || RunCommand::shell("exit:0").on(["i-1"]).client_token("t");
    let invoke = || InvokeCommand::new(command).on(["i-1"]);
    let one = InstanceId::from("i-1");
    let not_called = || panic!("the host's part is not done");
    check(&world, Operation::RunCommand, engine.run_command(run())).await;
    check(&world, Operation::RunCommand, async {
        engine.run_command_with(run(), move |_, _| -> Result<(), _> { not_called() }).await
    })
    .await;
    let watched = async { engine.run_command_and_watch(run()).await.map(drop) };
    check(&world, Operation::RunCommand, watched).await;
    check(&world, Operation::InvokeCommand, engine.invoke_command(invoke())).await;
    check(&world, Operation::InvokeCommand, async {
        engine.invoke_command_with(invoke(), move |_, _| -> Result<(), _> { not_called() }).await
    })
    .await;
    let watched = async { engine.invoke_command_and_watch(invoke()).await.map(drop) };
    check(&world, Operation::InvokeCommand, watched).await;
    let stop = engine.stop_invocation(StopInvocation::new(repeats));
    check(&world, Operation::StopInvocation, stop).await;
    check(&world, Operation::PauseInvocation, engine.pause_invocation(&repeats)).await;
    check(&world, Operation::ResumeInvocation, engine.resume_invocation(&repeats)).await;
    check(&world, Operation::RunNow, engine.run_now(&repeats)).await;
    let retry = || RetryFailed::new(repeats);
    check(&world, Operation::RetryFailed, engine.retry_failed(retry())).await;
    let watched = async { engine.retry_failed_and_watch(retry()).await.map(drop) };
    check(&world, Operation::RetryFailed, watched).await;
    let list = DescribeInvocations::default();
    check(&world, Operation::DescribeInvocations, engine.describe_invocations(list)).await;
    check(&world, Operation::DescribeInvocations, engine.wait(&repeats)).await;
    check(&world, Operation::DescribeInvocations, engine.wait_status(&repeats)).await;
    let watched = async { engine.watch(&repeats).await.map(drop) };
    check(&world, Operation::DescribeInvocations, watched).await;
    let list = engine.describe_invocation_results(DescribeInvocationResults::default());
    check(&world, Operation::DescribeInvocationResults, list).await;
    let list = engine.describe_fires(DescribeFires::new(repeats));
    check(&world, Operation::DescribeFires, list).await;
    let now = "2026-01-01T00:00:00Z".parse().expect("a time");
    check(&world, Operation::DescribeFires, engine.explain(&repeats, now)).await;
    let create = engine.create_command(CreateCommand::shell("d", "exit:0"));
    check(&world, Operation::CreateCommand, create).await;
    let modify = engine.modify_command(ModifyCommand::new(command).name("d"));
    check(&world, Operation::ModifyCommand, modify).await;
    let delete = engine.delete_command(DeleteCommand::new(command));
    check(&world, Operation::DeleteCommand, delete).await;
    let list = engine.describe_commands(DescribeCommands::default());
    check(&world, Operation::DescribeCommands, list).await;
    check(&world, Operation::PreviewCommand, engine.preview(PreviewCommand::script("x"))).await;
    let new = Instance::new("i-9").executor("script");
    check(&world, Operation::RegisterInstance, engine.register_instance(new)).await;
    let changed = Instance::new("i-1").executor("script").name("n");
    check(&world, Operation::RegisterInstance, engine.update_instance(changed)).await;
    let two = InstanceId::from("i-2");
    check(&world, Operation::RemoveInstance, engine.remove_instance(&two)).await;
    check(&world, Operation::ReportInstance, engine.instance_booted(&one, "b")).await;
    let seen = engine.instance_seen(&one, AgentStatus::Offline);
    check(&world, Operation::ReportInstance, seen).await;
    let list = engine.describe_instances(DescribeInstances::default());
    check(&world, Operation::DescribeInstances, list).await;
    let list = engine.describe_cloud_assistant_status(DescribeCloudAssistantStatus::default());
    check(&world, Operation::DescribeCloudAssistantStatus, list).await;
    check(&world, Operation::DescribeQuotas, engine.quotas()).await;
    // What was refused has left its token free.
    engine.run_command(run()).await.expect("allowed now");
}

#[tokio::test]
async fn the_host_is_told_what_a_request_is_about() {
    let world = world().await;
    let (engine, rules) = (&world.engine, &world.rules);
    let request = RunCommand::shell("exit:0").on_tagged([("role", "web")]).username("root");
    engine.run_command(request.resource_group("rg")).await.expect_err("nobody has the tag");
    let asked = rules.asked(Operation::RunCommand).pop().expect("asked");
    assert_eq!(asked.command_type, Some(CommandType::RunShellScript));
    assert_eq!(asked.resource_tags, [("role", "web").into()]);
    assert_eq!(asked.username.as_deref(), Some("root"));
    assert_eq!(asked.resource_group_id.as_deref(), Some("rg"));

    let mut create = CreateCommand::shell("d", "exit:0");
    create.username = Some("root".to_owned());
    engine.create_command(create).await.expect("allowed");
    let asked = rules.asked(Operation::CreateCommand).pop().expect("asked");
    assert_eq!(asked.username.as_deref(), Some("root"));
    assert_eq!(asked.command_type, Some(CommandType::RunShellScript));
    let mut modify = ModifyCommand::new(world.command);
    modify.username = Some("root".to_owned());
    engine.modify_command(modify).await.expect("allowed");
    let asked = rules.asked(Operation::ModifyCommand).pop().expect("asked");
    let told = (asked.command_id, asked.username.as_deref());
    assert_eq!(told, (Some(world.command), Some("root")));

    let failed = RunCommand::shell("exit:1").on(["i-2", "i-1"]).username("root");
    let failed = engine.run_command(failed).await.expect("allowed").invoke_id;
    wait(engine, &failed).await;
    engine.retry_failed(RetryFailed::new(failed)).await.expect("allowed");
    let asked = rules.asked(Operation::RetryFailed).pop().expect("asked");
    assert_eq!((asked.invoke_id, asked.username.as_deref()), (Some(failed), Some("root")));
    assert_eq!(asked.instance_ids, ["i-2", "i-1"].map(InstanceId::from));

    // The start is told as whom, also where the stored command says so and not the request.
    let run = engine.invoke_command(InvokeCommand::new(world.command).on(["i-2"])).await;
    let run = run.expect("allowed").invoke_id;
    wait(engine, &run).await;
    let asked = rules.asked(Operation::StartExecution).pop().expect("asked");
    assert_eq!(asked.username.as_deref(), Some("root"));
    assert_eq!(asked.caller.as_deref(), Some("ann"));
    assert_eq!((asked.invoke_id, asked.command_id), (Some(run), Some(world.command)));
    assert_eq!(asked.instance_ids, [InstanceId::from("i-2")]);
    let filter = DescribeInvocations::default().invoke_id(run);
    let listed = engine.describe_invocations(filter).await.expect("it exists");
    assert_eq!(listed.invocations[0].caller, "ann");
}

/// The user of this process, by name and number.
fn own_user() -> (String, u32) {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).expect("accounts");
    (user.map_or_else(|| uid.to_string(), |user| user.name), uid.as_raw())
}

/// A rule about users must hold for requests that name none, and for commands that name one in their place.
#[tokio::test]
async fn the_host_is_told_as_which_user_a_script_would_run() {
    let world = world().await;
    let (engine, rules) = (&world.engine, &world.rules);
    let (name, uid) = own_user();
    let own = (Some(name.clone()), Some(uid));
    let root = (Some("root".to_owned()), Some(0));
    let nobody_knows = (Some("no-such-user".to_owned()), None);
    let told = |operation| {
        let asked = rules.last(operation);
        (asked.username, asked.uid)
    };
    let run = || RunCommand::shell("exit:0").on(["i-1"]);
    for (request, want) in [
        (run(), &own),
        (run().username(""), &own),
        (run().username(name), &own),
        (run().username("root"), &root),
        (run().username("no-such-user"), &nobody_knows),
    ] {
        let run = engine.run_command(request).await.expect("allowed").invoke_id;
        assert_eq!(&told(Operation::RunCommand), want);
        wait(engine, &run).await;
        assert_eq!(&told(Operation::StartExecution), want);
    }
    let as_root = CreateCommand::shell("r", "exit:1").username("root".to_owned());
    let as_root = engine.create_command(as_root).await.expect("allowed").command_id;
    assert_eq!(told(Operation::CreateCommand), root);
    engine.create_command(CreateCommand::shell("o", "exit:0")).await.expect("allowed");
    assert_eq!(told(Operation::CreateCommand), own);
    let invoke = InvokeCommand::new(as_root).on(["i-1"]);
    let run = engine.invoke_command(invoke.clone()).await.expect("allowed").invoke_id;
    assert_eq!(told(Operation::InvokeCommand), root);
    wait(engine, &run).await;
    engine.retry_failed(RetryFailed::new(run)).await.expect("it failed");
    assert_eq!(told(Operation::RetryFailed), root);
    engine.modify_command(ModifyCommand::new(as_root).name("s")).await.expect("allowed");
    assert_eq!(told(Operation::ModifyCommand), root);
    let mut modify = ModifyCommand::new(as_root);
    modify.username = Some(String::new());
    engine.modify_command(modify).await.expect("allowed");
    assert_eq!(told(Operation::ModifyCommand), own);
    engine.invoke_command(invoke).await.expect("allowed");
    assert_eq!(told(Operation::InvokeCommand), own);
    let exec = serde_json::json!({
        "ContainerGroupId": "i-1", "ContainerName": "c", "Command": "[\"true\"]", "Sync": true,
    });
    let exec = serde_json::from_value(exec).expect("a request");
    engine.exec_container_command(exec).await.expect("it runs");
    assert_eq!(told(Operation::ExecContainerCommand), own);
}

/// A rule may be about anything that decides what a script can reach.
#[tokio::test]
async fn the_host_is_told_how_and_where_a_script_would_run() {
    let world = world().await;
    let (engine, rules) = (&world.engine, &world.rules);
    let limits = adjutant::ResourceLimits::default().cpu_seconds(7);
    let place = "file:///nowhere";
    let told = |operation| {
        let asked = rules.last(operation);
        let how = [asked.launcher, asked.working_dir, asked.oss_output_delivery];
        (how, asked.container_name, asked.resource_limits, asked.frequency, asked.executor)
    };
    let how = |folder: &str| ["env", folder, place].map(|text| Some(text.to_owned()));
    let container = || Some("web".to_owned());
    let mut run = RunCommand::shell("exit:1").on(["i-1"]).launcher("env").working_dir("/srv");
    run = run.resource_limits(limits);
    (run.oss_output_delivery, run.container_name) = (Some(place.to_owned()), container());
    let scheduled = run.clone().frequency("rate(1h)");
    engine.run_command(scheduled).await.expect("allowed");
    let hourly = Some("rate(1h)".to_owned());
    let want = (how("/srv"), container(), limits, hourly.clone(), None);
    assert_eq!(told(Operation::RunCommand), want);
    let run = engine.run_command(run).await.expect("allowed").invoke_id;
    wait(engine, &run).await;
    let script = Some("script".to_owned());
    let want = (how("/srv"), container(), limits, None, script.clone());
    assert_eq!(told(Operation::StartExecution), want);
    engine.retry_failed(RetryFailed::new(run)).await.expect("it failed");
    assert_eq!(told(Operation::RetryFailed), (how("/srv"), container(), limits, None, None));
    let mut create = CreateCommand::shell("d", "exit:0").working_dir("/srv");
    (create.launcher, create.oss_output_delivery) =
        (Some("env".to_owned()), Some(place.to_owned()));
    let command = engine.create_command(create).await.expect("allowed").command_id;
    let plain = adjutant::ResourceLimits::default();
    assert_eq!(told(Operation::CreateCommand), (how("/srv"), None, plain, None, None));
    // The command's own, where the request says nothing.
    let invoke = InvokeCommand::new(command).on(["i-1"]).working_dir("/tmp").frequency("rate(1h)");
    engine.invoke_command(invoke).await.expect("allowed");
    assert_eq!(told(Operation::InvokeCommand), (how("/tmp"), None, plain, hourly, None));
    let instance = Instance::new("i-9").executor("script");
    engine.register_instance(instance.clone()).await.expect("allowed");
    assert_eq!(told(Operation::RegisterInstance).4, script);
    engine.update_instance(instance.executor("local")).await.expect("allowed");
    assert_eq!(told(Operation::RegisterInstance).4, Some("local".to_owned()));
}

/// Results and events have what was printed.
#[tokio::test]
async fn outputs_are_for_those_who_may_read_them() {
    let world = world().await;
    let (engine, rules) = (&world.engine, &world.rules);
    let run = || RunCommand::shell("out:secret exit:1").on(["i-1"]);
    let done = engine.run_command(run()).await.expect("allowed").invoke_id;
    let ended = engine.wait(&done).await.expect("allowed");
    assert_eq!(ended.results[0].output.to_text(), "secret");
    rules.refuse(Some(Operation::DescribeInvocationResults));
    let before = everything_but_results(engine).await;
    let refused = |refused: Result<(), Error>| {
        let error = refused.expect_err("nobody reads outputs");
        assert_eq!(error.code(), "Operation.Forbidden");
        assert!(error.to_string().contains("DescribeInvocationResults"), "{error}");
    };
    refused(engine.wait(&done).await.map(drop));
    refused(engine.watch(&done).await.map(drop));
    refused(engine.watch_from(&done, adjutant::Position::default()).await.map(drop));
    refused(engine.run_command_and_watch(run()).await.map(drop));
    let invoke = InvokeCommand::new(world.command).on(["i-1"]);
    refused(engine.invoke_command_and_watch(invoke).await.map(drop));
    refused(engine.retry_failed_and_watch(RetryFailed::new(done)).await.map(drop));
    assert_eq!(everything_but_results(engine).await, before, "nothing was stored");
    // How it ended is no output.
    let status = engine.wait_status(&done).await.expect("allowed");
    assert_eq!(status, InvocationStatus::Failed);
}

async fn everything_but_results(engine: &Engine) -> usize {
    let page = engine.describe_invocations(DescribeInvocations::default()).await;
    page.expect("allowed").invocations.len()
}

#[tokio::test]
async fn a_start_that_is_refused_leaves_a_record() {
    let (clock, rules) = (clock(), Rules::default());
    let builder = with_executors(Engine::builder()).clock(clock.clone()).authorizer(rules.clone());
    let engine = builder.open().await.expect("an engine").called_by("ann");
    register(&engine, "script", 1).await;
    let request = RunCommand::shell("exit:0").on(["i-1"]).timeout(10);
    let scheduled = request.clone().frequency("rate(60s)");
    let scheduled = engine.run_command(scheduled).await.expect("allowed").invoke_id;
    rules.refuse(Some(Operation::StartExecution));
    let at_once = engine.run_command(request).await.expect("allowed").invoke_id;
    pass(&clock, 60).await;
    assert_eq!(ended(&engine, scheduled, 1).await, [ExecutionStatus::Aborted]);
    for invoke_id in [at_once, scheduled] {
        let filter = DescribeInvocationResults::default().invoke_id(invoke_id);
        let listed = engine.describe_invocation_results(filter).await.expect("it exists");
        let result = &listed.invocation.results[0];
        assert_eq!(result.status, ExecutionStatus::Aborted);
        assert_eq!(result.error_code, "Operation.Forbidden");
        assert!(result.error_info.contains("the rules say so"), "{}", result.error_info);
    }
    let asked = rules.asked(Operation::StartExecution);
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|action| action.caller.as_deref() == Some("ann")), "{asked:?}");
    // Nothing of the refusal stays for the fire after it.
    rules.refuse(None);
    pass(&clock, 60).await;
    let statuses = ended(&engine, scheduled, 2).await;
    assert_eq!(statuses, [ExecutionStatus::Aborted, ExecutionStatus::Success]);
}

const SECRET: &str = "correct-horse-battery-staple";
const NAME: &str = "vault/database/password";

/// A store of secrets that has one, and that can be made to fail or to hang.
#[derive(Clone)]
struct Vault {
    failing: Arc<Mutex<Option<SecretError>>>,
    hangs: Arc<AtomicBool>,
    hanging: Arc<Semaphore>,
}

impl Vault {
    fn new() -> Self {
        Self {
            failing: Arc::default(),
            hangs: Arc::default(),
            hanging: Arc::new(Semaphore::new(0)),
        }
    }

    fn fail(&self, error: Option<SecretError>) {
        *self.failing.lock().expect("no panic") = error;
    }
}

impl SecretResolver for Vault {
    async fn resolve(&self, request: SecretRequest) -> Result<Secret, SecretError> {
        if self.hangs.load(Ordering::SeqCst) {
            self.hanging.add_permits(1);
            std::future::pending::<()>().await;
        }
        if let Some(error) = self.failing.lock().expect("no panic").clone() {
            return Err(error);
        }
        match &*request.name {
            NAME => Ok(Secret::new(SECRET)),
            _ => Err(SecretError::NotFound("there is no such entry".to_owned())),
        }
    }
}

/// What an executor was given: the script, the variables, the password.
type Seen = Arc<Mutex<Vec<(String, Vec<(String, String)>, Option<String>)>>>;

fn with_witness(builder: EngineBuilder, seen: &Seen) -> EngineBuilder {
    let seen = Arc::clone(seen);
    builder.executor(
        "witness",
        ClosureExecutor::new(move |task, cx| {
            let script = String::from_utf8_lossy(task.content()).into_owned();
            let password = task.password().map(|password| password.reveal().to_owned());
            cx.print(Stream::Stdout, format!("{task:?} {:?}", task.password()).as_bytes());
            seen.lock().expect("no panic").push((script, task.variables(), password));
            async { Ok::<(), String>(()) }
        }),
    )
}

fn with_secret(passing: ParameterPassing) -> RunCommand {
    let script = match passing {
        ParameterPassing::Text => "login {{user}} {{password}}",
        ParameterPassing::Environment => "login",
    };
    let request = RunCommand::shell(script).enable_parameter().parameter_passing(passing);
    let request = request.parameters([("user", "u"), ("Password", NAME)]);
    request.secret_parameters(["PASSWORD"]).on(["i-1"])
}

#[tokio::test]
async fn secrets_reach_the_script_and_nothing_else() {
    let (place, seen) = (Place::new(), Seen::default());
    let builder = with_witness(Engine::builder().path(place.database()), &seen);
    let engine = builder.secret_resolver(Vault::new()).open().await.expect("a new file");
    register(&engine, "witness", 1).await;
    let mut shown = String::new();
    let mut feed = engine.follow();
    for passing in [ParameterPassing::Text, ParameterPassing::Environment] {
        let mut request = with_secret(passing).keep();
        request.windows_password_name = Some(NAME.to_owned());
        shown += &format!("{request:?}");
        let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
        while let Some(event) = within(watch.next()).await.expect("readable") {
            shown += &format!("{event:?}");
            shown += &serde_json::to_string(&event).expect("JSON");
            if let adjutant::Event::Output { bytes, .. } = &event {
                shown += &String::from_utf8_lossy(bytes);
            }
        }
        shown += &format!("{:?}", within(feed.next()).await);
        shown += &format!("{:?}", wait(&engine, &run.invoke_id).await);
        let preview = PreviewCommand::stored(run.command_id);
        let preview = match passing {
            ParameterPassing::Text => preview.parameters([("user", "u"), ("password", NAME)]),
            ParameterPassing::Environment => preview,
        };
        let preview = engine.preview(preview).await.expect("sound").command_content;
        if passing == ParameterPassing::Text {
            assert_eq!(preview.to_text(), "login u ******");
        }
        shown += &preview.to_text();
        let filter = DescribeInvocations::default().invoke_id(run.invoke_id);
        let listed = engine.describe_invocations(filter).await.expect("it exists");
        let values = &listed.invocations[0].parameters;
        assert_eq!((values.get("password"), values.get("user")), (Some("******"), Some("u")));
    }
    shown += &everything(&engine).await;
    assert!(!shown.contains(SECRET), "{shown}");
    let password = || Some(SECRET.to_owned());
    let variables = [("PARAM_USER", "u"), ("PARAM_PASSWORD", SECRET)];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let want = [
        (format!("login u {SECRET}"), Vec::new(), password()),
        ("login".to_owned(), variables.to_vec(), password()),
    ];
    assert_eq!(*seen.lock().expect("no panic"), want);
    // The name is in the files, so a search finds what is there; what it stands for is not.
    let mut bytes = Vec::new();
    for name in ["adjutant.db", "adjutant.db-wal"] {
        bytes.extend(std::fs::read(place.folder().join(name)).expect("it is there"));
    }
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has(NAME) && !has(SECRET));
}

#[tokio::test]
async fn secret_defaults_of_stored_commands_are_resolved_too() {
    let (vault, seen) = (Vault::new(), Seen::default());
    let builder = with_witness(Engine::builder(), &seen).secret_resolver(vault);
    let engine = builder.open().await.expect("an engine");
    register(&engine, "witness", 1).await;
    let create = CreateCommand::shell("c", "{{p}}").enable_parameter().secret_parameters(["p"]);
    let create = create.default_parameters([("P", NAME)]);
    let command = engine.create_command(create).await.expect("sound").command_id;
    let invoke = || InvokeCommand::new(command).on(["i-1"]);
    let run = engine.invoke_command(invoke()).await.expect("sound");
    wait(&engine, &run.invoke_id).await;
    assert_eq!(seen.lock().expect("no panic")[0].0, SECRET);
    let listed = engine.describe_commands(DescribeCommands::default()).await.expect("a page");
    assert_eq!(listed.commands[0].parameter_definitions[0].default_value, "******");
    let wrong = invoke().parameters([("p", "no such name")]);
    let error = engine.invoke_command(wrong).await.expect_err("refused");
    assert_eq!(error.code(), "ParameterStore.InvalidParameters");
}

#[tokio::test]
async fn a_secret_that_cannot_be_had_when_it_is_needed_leaves_a_record() {
    let (vault, seen, clock) = (Vault::new(), Seen::default(), clock());
    let builder = with_witness(Engine::builder(), &seen).secret_resolver(vault.clone());
    let engine = builder.clock(clock.clone()).open().await.expect("an engine");
    register(&engine, "witness", 1).await;
    let request = with_secret(ParameterPassing::Text).timeout(10).frequency("rate(60s)");
    let id = engine.run_command(request).await.expect("sound").invoke_id;
    let failures = [
        ("ParameterStore.InvalidParameters", SecretError::NotFound("gone".to_owned())),
        ("ParameterStore.NoPermission", SecretError::Denied("gone".to_owned())),
        ("ParameterStore.NotSupported", SecretError::Unavailable("gone".to_owned())),
    ];
    for (n, (code, error)) in failures.into_iter().enumerate() {
        vault.fail(Some(error));
        pass(&clock, 60).await;
        let statuses = ended(&engine, id, n + 1).await;
        assert_eq!(statuses.last(), Some(&ExecutionStatus::Aborted), "{code}");
        let filter = DescribeInvocationResults::default().invoke_id(id);
        let listed = engine.describe_invocation_results(filter).await.expect("it exists");
        let result = &listed.invocation.results[0];
        assert_eq!(result.error_code, code);
        let info = &result.error_info;
        assert!(
            info.contains("`Password`") && info.contains("gone") && !info.contains(NAME),
            "{info}"
        );
    }
    assert_eq!(*seen.lock().expect("no panic"), []);
    vault.fail(None);
    pass(&clock, 60).await;
    assert_eq!(ended(&engine, id, 4).await.last(), Some(&ExecutionStatus::Success));
}

/// It ended as an error, and only when the grace period and more was over.
#[tokio::test]
async fn a_stop_ends_what_waits_for_its_secrets() {
    let (vault, gate) = (Vault::new(), Gate::new());
    let clock = clock();
    let builder = gate.plug_in(Engine::builder()).secret_resolver(vault.clone());
    let engine = builder.clock(clock.clone()).open().await.expect("an engine");
    register(&engine, "gate", 1).await;
    // On a clock that stands still: nothing ends by itself.
    let check = async |timeout: u64, want: ExecutionStatus| {
        vault.hangs.store(false, Ordering::SeqCst);
        let request = with_secret(ParameterPassing::Text).timeout(timeout);
        let request = request.frequency("rate(1h)");
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        vault.hangs.store(true, Ordering::SeqCst);
        engine.run_now(&id).await.expect("it repeats");
        within(vault.hanging.acquire()).await.expect("never closed").forget();
        if want == ExecutionStatus::Timeout {
            within(clock.sleeping(2)).await;
            clock.advance(Duration::from_secs(timeout));
            ended(&engine, id, 1).await;
        }
        engine.stop_invocation(StopInvocation::new(id)).await.expect("it runs");
        let finished = wait(&engine, &id).await;
        assert_eq!(finished.results[0].status, want, "{}", finished.results[0].error_info);
        finished.status
    };
    assert_eq!(check(3_000, ExecutionStatus::Terminated).await, InvocationStatus::Stopped);
    assert_eq!(check(10, ExecutionStatus::Timeout).await, InvocationStatus::Failed);
    assert_eq!(gate.waiting(), 0, "no executor has seen any of it");
}

/// Without a store the values are what they are: kept, and shown to nobody.
#[tokio::test]
async fn secret_values_without_a_store_are_not_shown() {
    let seen = Seen::default();
    let engine = with_witness(Engine::builder(), &seen).open().await.expect("an engine");
    register(&engine, "witness", 1).await;
    let request = with_secret(ParameterPassing::Environment);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    let mut shown = String::new();
    while let Some(event) = within(watch.next()).await.expect("readable") {
        shown += &format!("{event:?}");
    }
    shown += &format!("{:?}", wait(&engine, &run.invoke_id).await);
    shown += &everything(&engine).await;
    assert!(!shown.contains(NAME) && shown.contains("******"), "{shown}");
    let seen = seen.lock().expect("no panic");
    assert_eq!(seen[0].1[1], ("PARAM_PASSWORD".to_owned(), NAME.to_owned()));
}

/// Opens the file with a store of secrets, or without one.
async fn reopen(place: &Place, vault: Option<Vault>, seen: &Seen, clock: &ManualClock) -> Engine {
    let mut builder = with_witness(Engine::builder().path(place.database()), seen);
    if let Some(vault) = vault {
        builder = builder.secret_resolver(vault);
    }
    builder.clock(clock.clone()).open().await.expect("the file opens")
}

/// A name must not run in the place of its secret, nor a value be told as if it were a name.
#[tokio::test]
async fn what_was_made_with_a_store_does_not_run_without_and_the_other_way_round() {
    let check = async |made_with: bool, want: ExecutionStatus, code: &str, given: &str| {
        let (place, seen, clock) = (Place::new(), Seen::default(), clock());
        let vault = |there: bool| there.then(Vault::new);
        let engine = reopen(&place, vault(made_with), &seen, &clock).await;
        register(&engine, "witness", 1).await;
        let request = with_secret(ParameterPassing::Environment).frequency("rate(1h)");
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        engine.shutdown(Duration::ZERO).await;
        drop(engine);
        let engine = reopen(&place, vault(!made_with), &seen, &clock).await;
        pass(&clock, 3_600).await;
        assert_eq!(ended(&engine, id, 1).await, [want]);
        let filter = DescribeInvocationResults::default().invoke_id(id);
        let listed = engine.describe_invocation_results(filter).await.expect("it exists");
        let result = &listed.invocation.results[0];
        assert_eq!(result.error_code, code);
        assert!(!result.error_info.contains(NAME), "{}", result.error_info);
        let seen = seen.lock().expect("no panic");
        let values: Vec<_> = seen.iter().map(|(_, variables, _)| variables[1].1.as_str()).collect();
        assert_eq!(values.join(" "), given);
    };
    check(true, ExecutionStatus::Aborted, "ParameterStore.NotSupported", "").await;
    check(false, ExecutionStatus::Success, "", NAME).await;
}

#[tokio::test]
async fn secrets_of_what_is_run_once_more_are_resolved_once_more() {
    let (vault, seen, clock) = (Vault::new(), Seen::default(), clock());
    let builder = with_witness(Engine::builder(), &seen).secret_resolver(vault.clone());
    let engine = builder.clock(clock.clone()).open().await.expect("an engine");
    register(&engine, "witness", 1).await;
    let request = with_secret(ParameterPassing::Environment).frequency("rate(1h)");
    let first = engine.run_command(request).await.expect("sound").invoke_id;
    vault.fail(Some(SecretError::Unavailable("down".to_owned())));
    pass(&clock, 3_600).await;
    assert_eq!(ended(&engine, first, 1).await, [ExecutionStatus::Aborted]);
    engine.stop_invocation(StopInvocation::new(first)).await.expect("it repeats");
    let error = engine.retry_failed(RetryFailed::new(first)).await.expect_err("it is down");
    assert_eq!(error.code(), "ParameterStore.NotSupported");
    vault.fail(None);
    let second = engine.retry_failed(RetryFailed::new(first)).await.expect("it is up").invoke_id;
    assert_eq!(wait(&engine, &second).await.status, InvocationStatus::Success);
    let seen = seen.lock().expect("no panic");
    let values: Vec<_> = seen.iter().map(|(_, variables, _)| variables[1].1.as_str()).collect();
    assert_eq!(values, [SECRET]);
}

#[tokio::test]
async fn an_answer_is_given_again_while_the_store_is_down() {
    let (vault, seen) = (Vault::new(), Seen::default());
    let builder = with_witness(Engine::builder(), &seen).secret_resolver(vault.clone());
    let engine = builder.open().await.expect("an engine");
    register(&engine, "witness", 1).await;
    let request = || with_secret(ParameterPassing::Text).client_token("t");
    let first = engine.run_command(request()).await.expect("sound").invoke_id;
    wait(&engine, &first).await;
    vault.fail(Some(SecretError::Unavailable("down".to_owned())));
    assert_eq!(engine.run_command(request()).await.expect("known").invoke_id, first);
    let error = engine.run_command(request().client_token("u")).await.expect_err("another");
    assert_eq!(error.code(), "ParameterStore.NotSupported");
    assert!(!error.to_string().contains(NAME), "{error}");
}

//! The words of executors and hooks are recorded within a bound, however long they are.

use adjutant::{
    Action, Authorizer, EndedWave, Engine, ExecutionContext, Executor, Instance, InvocationResult,
    Operation, Outcome, OutputDelivery, OutputSink, OutputSinkError, RunCommand, Secret,
    SecretError, SecretRequest, SecretResolver, Share, StopInvocation, Stream, Task, WaveDecision,
    WaveGate,
};

use crate::support::{wait, within};

/// Returns a text that is longer than a record keeps.
fn flood() -> String {
    format!("begin {} end", "ü".repeat(4 << 20))
}

/// An executor that ends with a long text, in the way that its script names.
struct Talker;

impl Executor for Talker {
    async fn execute(&self, task: Task, cx: ExecutionContext) -> Outcome {
        match task.content() {
            b"unsuitable" => Outcome::Unsuitable { code: "DirectoryNotExists", info: flood() },
            b"undeliverable" => Outcome::Undeliverable { code: "ClientNotRunning", info: flood() },
            b"broke" => Outcome::Broke { info: flood() },
            b"panic" => panic!("{}", flood()),
            b"stopped" => {
                cx.print(Stream::Stdout, b"here");
                cx.stop_asked().await;
                Outcome::Stopped { signal: None, exit_code: None, info: flood() }
            }
            _ => {
                cx.print(Stream::Stdout, b"printed");
                Outcome::Exited(0)
            }
        }
    }
}

/// An authorizer that refuses each start of the caller `guest` and permits all other operations.
struct Guard;

impl Authorizer for Guard {
    async fn authorize(&self, action: Action) -> Result<(), String> {
        let is_guest = action.caller.as_deref() == Some("guest");
        if is_guest && action.operation == Operation::StartExecution {
            Err(flood())
        } else {
            Ok(())
        }
    }
}

/// A resolver that knows a secret when a request asks, and does not when an execution starts.
struct Forgetful;

impl SecretResolver for Forgetful {
    async fn resolve(&self, request: SecretRequest) -> Result<Secret, SecretError> {
        match request.operation {
            Operation::StartExecution => Err(SecretError::Unavailable(flood())),
            _ => Ok(Secret::new("known")),
        }
    }
}

struct Doubter;

impl WaveGate for Doubter {
    async fn decide(&self, _: EndedWave) -> WaveDecision {
        WaveDecision::Halt(flood())
    }
}

struct Broken;

impl OutputSink for Broken {
    async fn deliver(&self, _: OutputDelivery) -> Result<(), OutputSinkError> {
        Err(OutputSinkError::Failed(flood()))
    }
}

async fn talking() -> Engine {
    let engine = Engine::builder()
        .executor("talker", Talker)
        .authorizer(Guard)
        .secret_resolver(Forgetful)
        .wave_gate(Doubter)
        .output_sink("oss://broken", Broken)
        .open()
        .await
        .expect("it opens");
    for name in ["i-1", "i-2"] {
        engine.register_instance(Instance::new(name).executor("talker")).await.expect("sound");
    }
    engine
}

/// Checks that a text has its beginning and its end, and the number of bytes missing between them.
#[track_caller]
fn check_is_cut(what: &str, text: &str) {
    assert!(text.len() <= 4_096, "{what}: {} bytes", text.len());
    let parts: Vec<_> = text.split(" … ").collect();
    let [head, note, tail] = *parts else { panic!("{what}: {text}") };
    assert!(head.contains("begin ü") && tail.contains("ü end"), "{what}: {text}");
    let missing: usize =
        note.strip_suffix(" bytes left out").expect(note).parse().expect("a number of bytes");
    let whole = missing + head.len() + tail.len();
    assert!((flood().len()..flood().len() + 500).contains(&whole), "{what}: {whole} bytes in all");
}

#[tokio::test]
async fn words_of_executors_and_hosts_are_kept_to_a_few_kib_with_how_much_is_left_out() {
    let engine = talking().await;
    let result = async |engine: &Engine, request: RunCommand| -> InvocationResult {
        let id = engine.run_command(request).await.expect("sound").invoke_id;
        wait(engine, &id).await.results.pop().expect("it has a result")
    };
    for script in ["unsuitable", "undeliverable", "broke", "panic"] {
        let result = result(&engine, RunCommand::shell(script).on(["i-1"])).await;
        check_is_cut(script, &result.error_info);
    }

    let request = RunCommand::shell("stopped").on(["i-1"]);
    let (run, mut watch) = engine.run_command_and_watch(request).await.expect("sound");
    let printed = async {
        while let Some(event) = watch.next().await.expect("an event") {
            if matches!(event, adjutant::Event::Output { .. }) {
                break;
            }
        }
    };
    within(printed).await;
    let stop = StopInvocation::new(run.invoke_id).reason("tired");
    engine.stop_invocation(stop).await.expect("it runs");
    let stopped = wait(&engine, &run.invoke_id).await.results.remove(0);
    check_is_cut("stopped", &stopped.error_info);
    assert!(stopped.error_info.starts_with("stopped on request: tired; begin"));

    let refused = result(&engine.called_by("guest"), RunCommand::shell("ok").on(["i-1"])).await;
    check_is_cut("authorizer", &refused.error_info);
    let secret = RunCommand::shell("{{word}}").on(["i-1"]).enable_parameter();
    let secret = secret.parameters([("word", "name")]).secret_parameters(["word"]);
    check_is_cut("secret", &result(&engine, secret).await.error_info);

    let waves = RunCommand::shell("ok").on(["i-1", "i-2"]).waves([Share::from(1)]);
    let halted = result(&engine, waves).await;
    check_is_cut("gate", &halted.error_info);
    check_is_cut("gate's reason", &halted.stop_reason);

    let mut feed = engine.follow();
    let mut output = RunCommand::shell("print").on(["i-1"]);
    output.oss_output_delivery = Some("oss://broken".to_owned());
    let id = result(&engine, output).await.invoke_id;
    let told = async {
        loop {
            if let adjutant::Notice::Delivery { error_info, .. } = feed.next().await.expect("told")
            {
                break error_info;
            }
        }
    };
    check_is_cut("a follower", &within(told).await);
    let record = wait(&engine, &id).await.results.remove(0);
    check_is_cut("sink", &record.oss_output_error_info);
}

#[tokio::test]
async fn a_caller_whose_name_no_record_should_repeat_is_refused() {
    let engine = talking().await;
    let request = RunCommand::shell("ok").on(["i-1"]);
    let named = engine.called_by("ü".repeat(1_024));
    let id = named.run_command(request.clone()).await.expect("it fits").invoke_id;
    wait(&engine, &id).await;
    let nameless = engine.called_by("ü".repeat(1_025));
    let error = nameless.run_command(request).await.expect_err("too long");
    let [violation] = error.violations() else { panic!("{error}") };
    assert_eq!((violation.field, violation.code), ("Caller", "InvalidParameter.Caller"));
    assert_eq!(violation.message, "want at most 1024 characters; it has 1025");
    nameless.wait_status(&id).await.expect_err("nor may it ask");
}

//! A host application: a closure as a target, a run, and everything that happens in it.
//! `cargo run --example host`

use adjutant::{ClosureExecutor, Engine, Event, Instance, RunCommand, Stream};

#[tokio::main]
async fn main() -> adjutant::Result<()> {
    let greeter = ClosureExecutor::new(|task, cx| async move {
        cx.print(Stream::Stdout, format!("hello from {}", task.instance_id).as_bytes());
    });
    let engine = Engine::builder().executor("greeter", greeter).open().await?;
    engine.register_instance(Instance::new("greeter-1").executor("greeter")).await?;

    let request = RunCommand::shell("greet").on(["greeter-1", "local"]);
    let (run, mut watch) = engine.run_command_and_watch(request).await?;
    println!("{} is stored", run.invoke_id);
    while let Some(event) = watch.next().await? {
        match event {
            Event::Status { instance_id, status, .. } => println!("{instance_id}: {status}"),
            Event::Output { instance_id, bytes, .. } => {
                println!("{instance_id}: {}", String::from_utf8_lossy(&bytes).trim_end());
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}

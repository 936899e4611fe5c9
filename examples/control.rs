//! A host whose runs an operator lists and stops from another terminal, with the program `adjutant`:
//!
//! ```console
//! $ cargo run --features control --example control app.db
//! $ adjutant --db app.db ps
//! $ adjutant --db app.db stop report --reason 'too long'
//! ```

use std::time::Duration;

use adjutant::{ClosureExecutor, Engine, ExecutionContext, Instance, RunCommand, Stream, Task};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    adjutant::helper_main();
    let file = std::env::args().nth(1).ok_or("name a database file, such as app.db")?;
    let reports = ClosureExecutor::new(|_: Task, cx: ExecutionContext| async move {
        cx.print(Stream::Stdout, b"a report that takes its time\n");
        std::future::pending::<Result<(), std::convert::Infallible>>().await
    });
    let engine = Engine::builder().path(&file).executor("reports", reports).open().await?;
    engine.register_instance(Instance::new("reports").executor("reports")).await?;
    engine.serve_control()?;

    let request = RunCommand::shell("yearly").on(["reports"]).name("report").timeout(3_600);
    let run = engine.run_command(request).await?;
    println!("{} runs until `adjutant --db {file} stop report`", run.invoke_id);
    let finished = engine.wait(&run.invoke_id).await?;
    let result = &finished.results[0];
    println!("{}: {}", finished.status, result.error_info);
    engine.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

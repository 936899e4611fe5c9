//! Opens one SQLite file with the engine and another with sqlx, and works with both at once.

use std::error::Error;
use std::time::Duration;

use adjutant::{ClosureExecutor, Engine, Instance, RunCommand};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let options =
        SqliteConnectOptions::new().filename(folder.path().join("shop.db")).create_if_missing(true);
    let shop = SqlitePool::connect_with(options).await?;
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY, paid INTEGER NOT NULL DEFAULT 0)")
        .execute(&shop)
        .await?;
    sqlx::query("INSERT INTO orders DEFAULT VALUES").execute(&shop).await?;

    let pay = {
        let shop = shop.clone();
        ClosureExecutor::new(move |_, _| {
            let shop = shop.clone();
            async move {
                sqlx::query("UPDATE orders SET paid = 1 WHERE id = 1").execute(&shop).await?;
                Ok::<(), sqlx::Error>(())
            }
        })
    };
    let engine =
        Engine::builder().path(folder.path().join("jobs.db")).executor("pay", pay).open().await?;
    engine.register_instance(Instance::new("cashier").executor("pay")).await?;
    let request = RunCommand::shell("order 1").on(["cashier"]);
    let invocation = engine.run_command(request).await?;
    let finished = engine.wait(&invocation.invoke_id).await?;

    let (version,): (String,) = sqlx::query_as("SELECT sqlite_version()").fetch_one(&shop).await?;
    let (paid,): (i64,) =
        sqlx::query_as("SELECT paid FROM orders WHERE id = 1").fetch_one(&shop).await?;
    println!(
        "SQLite {version}: the invocation is {:?}, and the order is paid: {paid}",
        finished.status
    );
    engine.shutdown(Duration::from_secs(5)).await;
    if paid != 1 {
        return Err("the closure has not run".into());
    }
    Ok(())
}

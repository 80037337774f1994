//! One process that sets tests up: what it takes from the test's start until the test has a connection to a database
//! of its own, with all migrations.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pgfleet::embed::Folder;
use pgfleet::test::Database;
use pgfleet::{Builder, Service};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tokio_postgres::{Client, NoTls};

/// Where the server's address is, for everybody.
pub(crate) const URL: &str = "PGFLEET_TEST_URL";

/// Sets several tests up in a row, in one process, and prints the nanoseconds of each.
pub(crate) fn run(whose: &str, folder: &str, round: &str, count: usize) -> Result<()> {
    let url = std::env::var(URL).with_context(|| format!("{URL} is not set"))?;
    let database = |at: usize| format!("{whose}_{round}_{at}");
    let times = match whose {
        "pgfleet" => pgfleet(folder, count)?,
        "clone" => runtime()?.block_on(clone(&url, database, count))?,
        "sqlx" => runtime()?.block_on(sqlx(&url, folder, database, count))?,
        _ => bail!("nobody is called {whose}"),
    };
    for time in times {
        println!("{}", time.as_nanos());
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

fn pgfleet(folder: &str, count: usize) -> Result<Vec<Duration>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        files.push((&*name.leak(), &*std::fs::read_to_string(&path)?.leak()));
    }
    files.sort_unstable();
    // As the macro would have put them into the program.
    let files: &'static [(&str, &str)] = files.leak();
    let builder = || -> Builder { Service::builder("test").migrations(Folder::new("migrations", "pgfleet", files)) };
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        pgfleet::test::run(builder, async |database: Database| -> Result<()> {
            let _connection = database.connect().await?;
            times.push(began.elapsed());
            // Removing it is not what is measured, and comes with the next round.
            database.keep();
            Ok(())
        })?;
    }
    Ok(times)
}

/// The least that anybody can do who copies a template.
async fn clone(url: &str, database: impl Fn(usize) -> String, count: usize) -> Result<Vec<Duration>> {
    let find = "SELECT datname::text FROM pg_database WHERE datistemplate AND datname LIKE 'pgt\\_%'";
    let template: String = connect(url).await?.query_one(find, &[]).await.context("there is no template")?.get(0);
    let mut times = Vec::new();
    for at in 0..count {
        let name = database(at);
        let began = Instant::now();
        let client = connect(url).await?;
        client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")).await?;
        let _client = connect(&on(url, &name)?).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// What `#[sqlx::test]` does, without its book-keeping: a connection for the process, an empty database, and all
/// migrations.
async fn sqlx(url: &str, folder: &str, database: impl Fn(usize) -> String, count: usize) -> Result<Vec<Duration>> {
    let migrator = sqlx::migrate::Migrator::new(Path::new(folder)).await?;
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    let mut master = None;
    let mut times = Vec::new();
    for at in 0..count {
        let name = database(at);
        let began = Instant::now();
        let master = match &mut master {
            Some(master) => master,
            none => none.insert(options.clone().connect().await?),
        };
        master.execute(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"))).await?;
        let mut own = options.clone().database(&name).connect().await?;
        migrator.run(&mut own).await?;
        times.push(began.elapsed());
        own.close().await?;
    }
    Ok(times)
}

async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The address of another database of the server.
fn on(url: &str, database: &str) -> Result<String> {
    let (server, _) = url.rsplit_once('/').context("the address names a database")?;
    Ok(format!("{server}/{database}"))
}

//! The program of a service, for the tests of how the command line works with one.
//!
//! Its SQL is that of the solution in `tests/it/support.rs`; variables make it another one, or one
//! that misbehaves.

use std::env::var;
use std::io::Write as _;
use std::time::Duration;

use pgfleet::embed::{Folder, Seeds};
use pgfleet::{Backfill, Batch, Db, Migration, Module, Schema, SchemaMigration, Seeder, Service, StepResult};

fn main() -> Result<(), pgfleet::Error> {
    let mode = var("FIXTURE_MODE").unwrap_or_default();
    match mode.as_str() {
        "ends" => {
            println!("usage: trip-service --port PORT");
            eprintln!("unexpected argument: pgfleet");
            std::process::exit(7);
        }
        // A service that begins to serve before it starts.
        "hangs" => {
            println!("listening on 0.0.0.0:8080, process {}", std::process::id());
            loop {
                std::thread::park();
            }
        }
        "other protocol" => {
            println!("{{\"pgfleet\":99,\"id\":1,\"answer\":\"hello\"}}");
            std::thread::park();
        }
        // Without the end of the line, as a progress display leaves it.
        "talks" => {
            print!("reading the configuration ...");
            std::io::stdout().flush().unwrap();
        }
        _ => {}
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run(&mode))
}

async fn run(mode: &str) -> Result<(), pgfleet::Error> {
    let files: &[(&str, &str)] = match mode {
        "edited" => &[
            ("1_trips.up.sql", "create table trips (id bigint primary key);\n"),
            ("1_trips.down.sql", "drop table trips;\n"),
        ],
        "older" => &[],
        _ => &[
            ("1_trips.up.sql", "create table trips (id int primary key);\n"),
            ("1_trips.down.sql", "drop table trips;\n"),
        ],
    };
    let files: &'static [(&'static str, &'static str)] = Box::leak(files.to_vec().into_boxed_slice());
    let mut builder = Service::builder(var("FIXTURE_SERVICE").unwrap_or_default())
        .migrations(Folder::new("migrations", "pgfleet", files))
        .seeds(Seeds::new("seeds", &[("1_trips.sql", "insert into trips values (1) on conflict do nothing;\n")]))
        .migration(CreateRiders);
    if mode != "recorded" {
        builder = builder.migration(AddRiders).migration(BackfillRiders).seeder(Admin);
    }
    if mode == "tenants" {
        builder = builder.seeder(Welcome);
    }
    if mode == "module" {
        builder = builder.module(Module::new("extras").schema("extras").migrations(Folder::new(
            "extras",
            "pgfleet",
            &[("1_extras.sql", "create table extras (id int);\n")],
        )));
    }
    builder.start().await?;
    println!("the service runs, which it must not as a worker");
    Ok(())
}

/// Of some of what is here.
fn revision() -> u32 {
    if var("FIXTURE_MODE").as_deref() == Ok("revised") { 2 } else { 1 }
}

struct CreateRiders;

impl SchemaMigration for CreateRiders {
    fn id(&self) -> &'static str {
        "2_create_riders"
    }

    fn up(&self, schema: &mut Schema) {
        schema.sql("CREATE TABLE riders (id int PRIMARY KEY, batch int, by_pid int)");
    }

    fn down(&self, schema: &mut Schema) {
        schema.sql("DROP TABLE riders");
    }
}

struct AddRiders;

impl Migration for AddRiders {
    fn id(&self) -> &'static str {
        "3_add_riders"
    }

    fn revision(&self) -> u32 {
        revision()
    }

    async fn up(&self, db: &Db<'_>) -> StepResult {
        match var("FIXTURE_MODE").as_deref() {
            Ok("talks") => {
                println!("adding riders");
                eprintln!("adding riders, on the other stream");
            }
            Ok("panics") => panic!("riders are out"),
            Ok("refused") => {
                db.execute("INSERT INTO trips VALUES (1), (1)", &[]).await?;
            }
            Ok("waits") => {
                db.execute("SELECT pg_sleep(600)", &[]).await?;
            }
            _ => {}
        }
        db.execute("INSERT INTO riders SELECT generate_series(1, 50)", &[]).await?;
        Ok(())
    }

    fn is_reversible(&self) -> bool {
        true
    }

    async fn down(&self, db: &Db<'_>) -> StepResult {
        db.execute("DELETE FROM riders", &[]).await?;
        Ok(())
    }
}

struct BackfillRiders;

impl Backfill for BackfillRiders {
    type Cursor = i32;

    fn id(&self) -> &'static str {
        "4_backfill_riders"
    }

    async fn batch(&self, db: &Db<'_>, after: Option<i32>) -> StepResult<Batch<i32>> {
        let after = after.unwrap_or(0);
        let pid = i32::try_from(std::process::id())?;
        let rows = db
            .execute(
                "UPDATE riders SET batch = coalesce(batch, 0) + 1, by_pid = $2 WHERE id > $1 AND id <= $1 + 10",
                &[&after, &pid],
            )
            .await?;
        if after == 20
            && let Ok(mark) = var("FIXTURE_DIES")
            && std::fs::File::create_new(mark).is_ok()
        {
            // Nothing can be done about this signal.
            let own = nix::unistd::Pid::this();
            nix::sys::signal::kill(own, nix::sys::signal::Signal::SIGKILL)?;
            tokio::time::sleep(Duration::from_mins(1)).await;
        }
        Ok(Batch::new(rows, (rows > 0).then_some(after + 10)))
    }

    fn is_reversible(&self) -> bool {
        true
    }

    async fn down(&self, db: &Db<'_>) -> StepResult {
        db.execute("UPDATE riders SET batch = NULL", &[]).await?;
        Ok(())
    }
}

struct Admin;

impl Seeder for Admin {
    fn name(&self) -> &'static str {
        "2_admin"
    }

    fn revision(&self) -> u32 {
        revision()
    }

    fn properties(&self) -> &[&str] {
        &["admin"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        let id: i32 = db.property("admin")?.parse()?;
        db.execute("INSERT INTO trips VALUES ($1) ON CONFLICT DO NOTHING", &[&id]).await?;
        Ok(())
    }
}

/// Writes down for whom it runs.
struct Welcome;

impl Seeder for Welcome {
    fn name(&self) -> &'static str {
        "3_welcome"
    }

    fn properties(&self) -> &[&str] {
        &["tenant"]
    }

    async fn seed(&self, db: &Db<'_>) -> StepResult {
        db.batch("CREATE TABLE IF NOT EXISTS welcomed (target text, tenant text, by_pid int)").await?;
        let pid = i32::try_from(std::process::id())?;
        db.execute("INSERT INTO welcomed VALUES ($1, $2, $3)", &[&db.target(), &db.tenant(), &pid]).await?;
        Ok(())
    }
}

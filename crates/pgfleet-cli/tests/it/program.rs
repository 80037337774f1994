//! Services whose migrations and seeders are partly Rust, in a program of their own.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use pgfleet_local::testing::{TestDatabase, TestServer};
use pgfleet_migrate::event::Silent;
use pgfleet_migrate::worker::Program;
use pgfleet_migrate::{Options, Seeds, Set, SetPath, Target};
use pgfleet_postgres::{Address, Purpose, connect};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::{Ran, Solution, signal, until};

/// The program of `examples/worker-fixture.rs`; examples are built with the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_pgfleet")).parent().unwrap();
    let path = folder.join("examples").join(name);
    let time = |path: &Path| path.metadata().and_then(|found| found.modified()).ok();
    // `cargo test --test it` builds the tests and no example.
    if time(&path) < time(&std::env::current_exe().unwrap()) {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "--package", "pgfleet-cli", "--example", name, "--target-dir"]);
        cargo.arg(folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "{name} cannot be built");
        // It may have been there as it should be; the next test need not ask again.
        std::fs::File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now())).unwrap();
    }
    path
}

/// A solution whose service `trip` has a program.
struct Case {
    solution: Solution,
}

impl Case {
    async fn new(mode: &str) -> Self {
        let case = Self::not_provisioned(mode).await;
        case.pgfleet("provision").exits(0);
        case
    }

    async fn not_provisioned(mode: &str) -> Self {
        let mut solution = Solution::new().await;
        let trip = solution.name("trip");
        solution.folder.set("FIXTURE_SERVICE", trip.clone());
        solution.folder.set("FIXTURE_MODE", mode);
        let program = example("worker-fixture");
        solution.manifest(&format!(
            "[services.{trip}]\nprogram = \"{}\"\nproperties = {{ admin = \"7\" }}\n\n[services.{}]\n\n\
             [migrations]\nmin_retry_wait = \"10ms\"\nmax_retry_wait = \"20ms\"\n",
            program.display(),
            solution.name("user"),
        ));
        Self { solution }
    }

    fn mode(&mut self, mode: &str) {
        self.solution.folder.set("FIXTURE_MODE", mode);
    }

    fn pgfleet(&self, line: &str) -> Ran {
        self.solution.pgfleet(line)
    }

    async fn column(&self, sql: &str) -> Vec<String> {
        self.solution.column("trip", sql).await
    }

    async fn versions(&self) -> Vec<String> {
        self.column("SELECT version FROM pgfleet.{}_trip_migrations ORDER BY version").await
    }

    /// Whether the step that waits does so.
    async fn waits(&self) -> bool {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' \
                   AND datname = current_database() AND pid <> pg_backend_pid()";
        self.column(sql).await != ["0"]
    }

    /// Whether nobody works on the database any more.
    async fn is_quiet(&self) -> bool {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgfleet%' \
                   AND datname = current_database()";
        self.column(sql).await == ["0"]
    }

    /// That no table is in the database, of ours or the service's.
    async fn is_untouched(&self) -> bool {
        self.column("SELECT count(*) FROM pg_class WHERE relkind = 'r' AND oid >= 16384").await == ["0"]
    }
}

#[tokio::test]
async fn sql_rust_and_seeders_are_applied_in_their_order_and_taken_back() {
    let case = Case::new("").await;
    case.pgfleet("status --service {}_trip").exits(0).prints("4_backfill_riders").prints("behind");
    let shown = case.pgfleet("migrate --service {}_trip --dry-run").exits(0);
    shown.prints("CREATE TABLE riders").prints("rust migration 3_add_riders revision 1");
    case.pgfleet("migrate --check").exits(5);
    assert!(case.is_untouched().await);

    case.pgfleet("migrate").exits(0).says("{}_trip: 4_backfill_riders".replace("{}", &case.solution.prefix).as_str());
    assert_eq!(case.versions().await, ["1", "2", "3", "4"]);
    assert_eq!(case.column("SELECT count(*) FROM riders WHERE batch = 1").await, ["50"]);
    assert_eq!(case.column("SELECT id FROM trips ORDER BY id").await, ["1", "7"]);
    // The command line was told what was applied, and told the control database.
    let told = "SELECT array_to_string(versions, ' ') FROM control.applied WHERE set_name = '{}_trip'";
    assert_eq!(case.solution.column("control", told).await, ["1 2 3 4"]);
    let status = case.pgfleet("status --json").exits(0).json();
    assert!(status.as_array().unwrap().iter().all(|service| service["state"] == "current"), "{status}");
    let again = case.pgfleet("migrate --json").exits(0).json();
    assert!(again.as_array().unwrap().iter().all(|service| service["outcome"] == "up-to-date"), "{again}");

    // What is recorded, SQL and Rust.
    case.pgfleet("revert --service {}_trip --to 1").exits(0).says("reverted 3");
    assert_eq!(case.versions().await, ["1"]);
    assert_eq!(case.column("SELECT to_regclass('riders')").await, ["NULL"]);

    // A database that is gone is made again, as it is for SQL.
    case.solution.sql("DROP DATABASE {}_trip").await;
    case.pgfleet("migrate").exits(0);
    assert_eq!(case.versions().await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn seeds_run_again_when_a_property_of_a_seeder_changes_or_always() {
    let case = Case::new("").await;
    case.pgfleet("migrate").exits(0);
    case.pgfleet("seed --service {}_trip").exits(0).says("nothing to do");
    case.pgfleet("seed --service {}_trip --property admin=8").exits(0).says("seeded 1");
    assert_eq!(case.column("SELECT id FROM trips ORDER BY id").await, ["1", "7", "8"]);
    case.pgfleet("seed --service {}_trip --property admin=8 --always").exits(0).says("seeded 2");
}

#[tokio::test]
async fn a_program_seeds_the_host_and_tenants_with_and_without_databases() {
    let server = TestServer::shared().await;
    let (host, acmes) = (server.database().await, server.database().await);
    let folder = tempfile::tempdir().unwrap();
    let wrapper = folder.path().join("trip");
    let fixture = example("worker-fixture");
    let script = format!("#!/bin/sh\nFIXTURE_SERVICE=trip FIXTURE_MODE=tenants exec {} \"$@\"\n", fixture.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o700)).unwrap();
    let program = Program::new("trip", &wrapper, Arc::new(Silent));

    let admin = |id: &str| BTreeMap::from([("admin".to_owned(), id.to_owned())]);
    let migrations = vec![
        ("1_trips.up.sql".into(), "create table trips (id int primary key);".into()),
        ("1_trips.down.sql".into(), "drop table trips;".into()),
    ];
    let seeds = [("1_trips.sql", "insert into trips values (1) on conflict do nothing;")];
    let own = Set::from_files("trip", Path::new("migrations"), migrations, None).unwrap();
    let own = own.with_seeds(Seeds::from_files(Path::new("seeds"), seeds, admin("7")));
    let files = SetPath::incomplete(Vec::new(), own);
    let path = program.describe().await.unwrap().join(&files, program.path()).unwrap();

    let options = Options::default();
    let target = |name: &str, database: &TestDatabase| Target::new(name, Address::parse(&database.url()).unwrap());
    let refused = program.seed(&target("trip", &host), &path, &options, &Silent).await.unwrap_err();
    assert!(refused.causes()[0].contains("4 migrations are pending"), "{refused:?}");
    let report = program.migrate(&target("trip", &host), &path, &options, &Silent).await.unwrap();
    assert_eq!(report.seeded, ["1_trips", "2_admin", "3_welcome"]);

    // One with a value of its own, one without, both without a database.
    let (guest, own) = (target("trip/guest", &host).shared_by("guest"), path.with_properties(&admin("8")));
    let report = program.seed(&guest, &own, &options, &Silent).await.unwrap();
    assert_eq!(report.seeded, ["2_admin", "3_welcome"]);
    let plain = target("trip/plain", &host).shared_by("plain");
    assert_eq!(program.seed(&plain, &path, &options, &Silent).await.unwrap().seeded, ["3_welcome"]);
    for (target, path) in [(&guest, &own), (&plain, &path), (&target("trip", &host), &path)] {
        assert_eq!(program.seed(target, path, &options, &Silent).await.unwrap().seeded, [""; 0], "{target:?}");
    }
    assert!(program.migrate(&guest, &own, &options, &Silent).await.unwrap_err().to_string().contains("trip/guest"));

    let acme = target("trip/acme", &acmes).of_tenant("acme");
    let report = program.migrate(&acme, &path.with_properties(&admin("9")), &options, &Silent).await.unwrap();
    assert_eq!(report.seeded, ["1_trips", "2_admin", "3_welcome"]);
    program.close().await;

    let welcomed = "select concat_ws(' ', target, coalesce(tenant, '-')) from welcomed order by 1";
    assert_eq!(column(&host, welcomed).await, ["trip -", "trip/guest guest", "trip/plain plain"]);
    assert_eq!(column(&host, "select id from trips order by id").await, ["1", "7", "8"]);
    assert_eq!(column(&host, "select count(distinct by_pid) from welcomed").await, ["1"]);
    assert_eq!(column(&acmes, welcomed).await, ["trip/acme acme"]);
    assert_eq!(column(&acmes, "select id from trips order by id").await, ["1", "9"]);
}

async fn column(database: &TestDatabase, sql: &str) -> Vec<String> {
    let connection = connect(&Address::parse(&database.url()).unwrap(), &Purpose::new("test")).await.unwrap();
    let rows = connection.simple(sql).await.unwrap();
    rows.iter().map(|row| row.get(0).unwrap_or("NULL").to_owned()).collect()
}

#[tokio::test]
async fn what_a_recorded_program_needs_is_done_here() {
    let case = Case::new("recorded").await;
    case.pgfleet("migrate").exits(0);
    assert_eq!(case.versions().await, ["1", "2"]);
    case.pgfleet("revert --service {}_trip --steps 1").exits(0);
    assert_eq!(case.versions().await, ["1"]);
}

#[tokio::test]
async fn modules_that_only_the_program_has_are_sets_of_the_path() {
    let case = Case::new("module").await;
    case.pgfleet("status --service {}_trip").exits(0).prints("extras/1_extras");
    case.pgfleet("migrate").exits(0);
    assert_eq!(case.column("SELECT to_regclass('extras.extras')").await, ["extras.extras"]);
    assert_eq!(case.column("SELECT version FROM pgfleet.extras_migrations").await, ["1"]);
    case.pgfleet("status --check").exits(0);
}

#[tokio::test]
async fn a_program_that_was_built_from_other_files_is_refused_before_anything_is_touched() {
    let mut case = Case::new("edited").await;
    let trip = case.solution.name("trip");
    let migrate = case.pgfleet("migrate").exits(3);
    let said = migrate.says("it was built from other files").says("another text in the program").says("cargo build");
    said.says(&format!("services/{trip}/migrations/1_trips.up.sql"));
    assert!(case.is_untouched().await);
    // Another service is not held up.
    let user = "SELECT version FROM pgfleet.{}_user_migrations";
    assert_eq!(case.solution.column("user", user).await, ["1"]);

    case.mode("older");
    case.pgfleet("migrate").exits(3).says("1_trips.up.sql: not in the program");
    case.mode("");
    case.solution.folder.remove(&format!("services/{trip}/seeds/1_trips.sql"));
    case.pgfleet("migrate").exits(3).says("the seed 1_trips.sql: in the program only");
    for line in ["status --service {}_trip", "revert --service {}_trip --steps 1", "migrate --check"] {
        case.pgfleet(line).says("it was built from other files");
    }
    case.pgfleet("migration mark-applied 3 --service {}_trip").exits(3);
    assert!(case.is_untouched().await);
}

#[tokio::test]
async fn a_program_that_cannot_be_used_is_named_with_what_it_said() {
    let mut case = Case::new("ends").await;
    case.pgfleet("migrate")
        .exits(3)
        .says("it ended (exit code 7) and did not say what it has in it")
        .says("it said: unexpected argument: pgfleet")
        .says("it said: usage: trip-service --port PORT")
        .says("`Service::builder(…).start()` the first thing");
    case.mode("other protocol");
    case.pgfleet("migrate").exits(3).says("it speaks protocol 99, and this pgfleet 2");
    case.mode("");
    case.solution.folder.set("FIXTURE_SERVICE", "taxi");
    case.pgfleet("migrate").exits(3).says("it is another service's").says("says that it is taxi");
    let manifest = case.solution.folder.path().join("pgfleet.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let path = example("worker-fixture").display().to_string();
    std::fs::write(&manifest, text.replace(&path, "target/debug/trip")).unwrap();
    // A relative one is looked for beside the manifest.
    case.pgfleet("migrate").exits(3).says("cannot start the program of").says("target/debug/trip: No such file");
    assert!(case.is_untouched().await);
}

#[tokio::test]
async fn a_program_that_does_not_answer_is_given_up_and_ended() {
    let case = Case::new("hangs").await;
    let migrate = case.pgfleet("migrate --service {}_trip").exits(3);
    let migrate = migrate.says("it did not say within 20 s what it has in it").says("the first thing it does?");
    let said = migrate.err.lines().find_map(|line| line.split_once("it said: listening on 0.0.0.0:8080, process "));
    let pid: i32 = said.expect("its last line is shown").1.parse().unwrap();
    let gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None);
    assert_eq!(gone, Err(nix::errno::Errno::ESRCH));
}

#[tokio::test]
async fn what_a_program_prints_is_passed_on_and_breaks_nothing() {
    let case = Case::new("talks").await;
    let trip = case.solution.name("trip");
    case.pgfleet("migrate --json")
        .exits(0)
        .says(&format!("{trip} | reading the configuration ..."))
        .says(&format!("{trip} | adding riders"))
        .says(&format!("{trip} | adding riders, on the other stream"))
        .says_nothing_of("the service runs")
        .json();
    assert_eq!(case.versions().await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn errors_are_those_of_a_run_without_a_program() {
    let mut case = Case::new("refused").await;
    let trip = case.solution.name("trip");
    let migrate = case.pgfleet("migrate --service {}_trip").exits(1);
    migrate
        .says(&format!("error: cannot apply 3_add_riders to {trip}"))
        .says("duplicate key value violates unique constraint \"trips_pkey\" (SQLSTATE 23505)")
        .says("detail: Key (id)=(1) already exists.");
    let document = case.pgfleet("migrate --service {}_trip --json");
    assert_eq!(document.json()[0]["sql_state"], "23505");
    assert_eq!(case.versions().await, ["1", "2"]);
    // The journal has it as well.
    let attempts = "SELECT sql_state FROM pgfleet.attempts WHERE outcome = 'failed'";
    assert_eq!(case.column(attempts).await, ["23505", "23505"]);
    case.mode("panics");
    // What Rust itself says of a panic is passed on; `Ran` would take it for one of pgfleet's.
    let panicked = case.solution.folder.command(&["migrate", "--service", &trip]).output().unwrap();
    let said = String::from_utf8(panicked.stderr).unwrap();
    assert_eq!(panicked.status.code(), Some(1), "{said}");
    let error = format!("error: cannot migrate {trip}: its code panicked\n  caused by: riders are out\n");
    assert!(said.contains(&error), "{said}");
    case.mode("");
    case.pgfleet("migrate --service {}_trip").exits(0);
}

#[tokio::test]
async fn the_history_of_rust_steps_is_corrected_here() {
    let case = Case::new("").await;
    case.pgfleet("migrate --service {}_trip --to 2").exits(0);
    case.pgfleet("migration mark-applied 3 --service {}_trip").exits(0);
    case.pgfleet("migration mark-applied 4 --service {}_trip").exits(0);
    case.pgfleet("migration forget 4 --service {}_trip").exits(0);
    case.pgfleet("migrate --service {}_trip").exits(0).says("applied 1");
    assert_eq!(case.column("SELECT count(*) FROM riders").await, ["0"]);
    case.pgfleet("status --check").exits(5);
}

#[tokio::test]
async fn one_ctrl_c_ends_it_in_an_orderly_way() {
    let case = Case::new("waits").await;
    let child = case.solution.folder.spawn(&["migrate"]);
    until("the step waits", async || case.waits().await).await;
    signal(child.id(), Signal::SIGINT);
    Ran::end_of(child).exits(130).says("stopping after rolling back").says("3_add_riders").says("stopped");
    assert_eq!(case.versions().await, ["1", "2"]);
    assert!(case.is_quiet().await);
}

mod crash {
    use super::*;

    #[tokio::test]
    async fn a_program_that_is_killed_in_a_backfill_is_started_again_and_goes_on() {
        let mut case = Case::new("").await;
        let mark = case.solution.folder.path().join("died");
        case.solution.folder.set("FIXTURE_DIES", mark.display().to_string());
        let trip = case.solution.name("trip");
        case.pgfleet("migrate")
            .exits(0)
            .says("failed, try 1 of 3: the program")
            .says(&format!("ended (signal 9) while it migrated {trip}"))
            .says("4_backfill_riders goes on behind 20 rows in 2 batches");
        assert!(mark.exists());
        assert_eq!(case.versions().await, ["1", "2", "3", "4"]);
        // Each row once, the first ones by the program that died.
        let rows = "SELECT string_agg(n::text, ' ' ORDER BY first) FROM \
                    (SELECT count(*) n, min(id) first FROM riders WHERE batch = 1 GROUP BY by_pid) parts";
        assert_eq!(case.column(rows).await, ["20 30"]);
    }

    #[tokio::test]
    async fn without_another_try_it_is_an_error_and_the_next_run_goes_on() {
        let mut case = Case::new("").await;
        let mark = case.solution.folder.path().join("died");
        case.solution.folder.set("FIXTURE_DIES", mark.display().to_string());
        case.solution.folder.set("PGFLEET_MIGRATIONS__MAX_TRIES", "1");
        case.pgfleet("migrate --service {}_trip")
            .exits(1)
            .says("ended (signal 9) while it migrated")
            .says("what was committed stays");
        assert_eq!(case.versions().await, ["1", "2", "3"]);
        case.pgfleet("migrate --service {}_trip").exits(0).says("goes on behind 20 rows in 2 batches");
        assert_eq!(case.column("SELECT count(*) FROM riders WHERE batch = 1").await, ["50"]);
    }

    /// `PGFLEET_SOAK_ROUNDS` raises the number of rounds.
    fn rounds(usual: u64) -> u64 {
        std::env::var("PGFLEET_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
    }

    #[tokio::test]
    async fn the_command_or_its_program_is_killed_at_any_moment() {
        let first: u64 = rand::random_range(0..1_000_000);
        let mut case = Case::new("").await;
        case.solution.folder.set("PGFLEET_MIGRATIONS__MAX_TRIES", "1");
        let trip = case.solution.name("trip");
        for seed in first..first + rounds(20) {
            let mut random = StdRng::seed_from_u64(seed);
            let mut child = case.solution.folder.spawn(&["migrate", "--service", &trip]);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
            if random.random_bool(0.5) {
                child.kill().unwrap();
            } else {
                // It may not have been started yet, or have ended.
                let parent = child.id().to_string();
                Command::new("pkill").args(["-KILL", "-P", &parent]).status().unwrap();
            }
            child.wait().unwrap();
            until("nobody works on the database", async || case.is_quiet().await).await;
            case.pgfleet("migrate --service {}_trip").exits(0);
            assert_eq!(case.versions().await, ["1", "2", "3", "4"], "seed {seed}");
            let riders = "SELECT count(*) || ' ' || count(*) FILTER (WHERE batch = 1) FROM riders";
            assert_eq!(case.column(riders).await, ["50 50"], "seed {seed}");
            assert_eq!(case.column("SELECT id FROM trips ORDER BY id").await, ["1", "7"], "seed {seed}");
            assert_eq!(case.column("SELECT count(*) FROM pgfleet.{}_trip_backfills").await, ["0"], "seed {seed}");
            let told = "SELECT count(*) FROM pgfleet.{}_trip_migrations WHERE announced_at IS NULL";
            assert_eq!(case.column(told).await, ["0"], "seed {seed}");
            case.pgfleet("revert --service {}_trip --to 0").exits(0);
        }
    }

    #[tokio::test]
    async fn a_command_that_is_killed_leaves_no_program_at_work() {
        let mut case = Case::new("waits").await;
        let mut child = case.solution.folder.spawn(&["migrate"]);
        until("the step waits", async || case.waits().await).await;
        child.kill().unwrap();
        child.wait().unwrap();
        until("the program has ended what it did", async || case.is_quiet().await).await;
        assert_eq!(case.versions().await, ["1", "2"]);
        case.mode("");
        case.pgfleet("migrate").exits(0);
    }
}

//! Bundles: made where the sources are, rolled out where only the manifest is.

use std::path::PathBuf;

use crate::program::example;
use crate::support::{Folder, Ran, Solution};

/// A solution with its sources, and a folder on another machine that holds its manifest alone.
struct Case {
    solution: Solution,
    elsewhere: Folder,
}

impl Case {
    async fn new() -> Self {
        let mut case = Self { solution: Solution::new().await, elsewhere: Folder::new() };
        let url = case.solution.server.superuser_url("postgres");
        case.set("PGFLEET_SERVERS__MAIN__URL", &url);
        // Both places read the passwords of one control database.
        case.set("PGFLEET_KEY", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        case.carry();
        case
    }

    /// A solution whose service `trip` has the program of the fixture.
    async fn with_program(mode: &str) -> Self {
        let mut case = Self::new().await;
        let trip = case.solution.name("trip");
        case.set("FIXTURE_SERVICE", &trip);
        case.set("FIXTURE_MODE", mode);
        case.manifest(Some(example("worker-fixture")), &[]);
        case.pack();
        case
    }

    /// Writes the manifest with the program of `trip`, here and elsewhere.
    fn manifest(&self, program: Option<PathBuf>, more: &[&str]) {
        let (trip, user) = (self.solution.name("trip"), self.solution.name("user"));
        let program = program.map(|path| format!("program = \"{}\"\n", path.display())).unwrap_or_default();
        let more = more.join("\n");
        self.solution.manifest(&format!(
            "[services.{trip}]\n{program}properties = {{ admin = \"7\" }}\n\n[services.{user}]\n{more}\n"
        ));
        self.carry();
    }

    /// Copies the manifest elsewhere.
    fn carry(&self) {
        let text = std::fs::read_to_string(self.solution.folder.path().join("pgfleet.toml")).unwrap();
        self.elsewhere.file("pgfleet.toml", text);
    }

    fn set(&mut self, name: &str, value: &str) {
        self.solution.folder.set(name, value);
        self.elsewhere.set(name, value);
    }

    fn file(&self) -> PathBuf {
        self.elsewhere.path().join("all.bundle")
    }

    /// Makes the bundle, and has it carried elsewhere.
    fn pack(&self) -> String {
        self.solution.folder.run(&["bundle", "--output", self.file().to_str().unwrap()]).exits(0);
        std::fs::read_to_string(self.file()).unwrap()
    }

    /// Runs a line where the folders are not; `{}` stands for the prefix.
    fn elsewhere(&self, line: &str) -> Ran {
        self.elsewhere.pgfleet(&line.replace("{}", &self.solution.prefix))
    }

    /// Everything that the histories of a database say about what was applied.
    async fn history(&self, database: &str, sets: &[&str]) -> Vec<String> {
        let mut rows = Vec::new();
        for set in sets {
            let migrations = format!(
                "SELECT row(version, description, checksum, raw_hash, sql, down)::text \
                 FROM pgfleet.\"{set}_migrations\" ORDER BY version"
            );
            let seeds = format!("SELECT row(name, checksum)::text FROM pgfleet.\"{set}_seeds\" ORDER BY name");
            for sql in [migrations, seeds] {
                rows.extend(self.solution.column(database, &sql).await);
            }
        }
        rows
    }

    /// That nothing of the solution is on the server.
    async fn is_untouched(&self) -> bool {
        let sql = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE '{}%' \
                   UNION ALL SELECT datname FROM pg_database WHERE datname LIKE '{}%'";
        self.solution.column("postgres", sql).await.is_empty()
    }
}

/// Files of several layouts, with everything that a file can be.
fn write_many(case: &Case) {
    let (trip, user) = (case.solution.name("trip"), case.solution.name("user"));
    case.solution.manifest(&format!(
        "[services.{trip}]\nmodules = [\"identity\"]\nproperties = {{ admin = \"7\" }}\n\n\
         [services.{user}]\nmodules = [\"identity\"]\nhistory = \"app.versions\"\n\n\
         [modules.identity]\nschema = \"identity\"\n\n[migrations]\nplaceholders = {{ mark = \"it's\" }}\n"
    ));
    case.carry();
    let files = [
        (
            "trip/migrations/2_index.sql",
            "-- pgfleet: no-transaction\ncreate index concurrently trips_id on trips (id);",
        ),
        ("trip/migrations/003_mark.up.sql", "\u{feff}alter table trips add mark text default :'mark'; -- why\r\n"),
        ("trip/migrations/003_mark.down.sql", "alter table trips drop mark;\r\n"),
        ("trip/migrations/R__doubled.sql", "create or replace view doubled as select 2 * id as id from trips;"),
        ("trip/seeds/2_admin.sql", "insert into trips values (:'admin') on conflict do nothing;"),
        (
            "user/migrations/00002_names.sql",
            "-- +goose Up\n-- +goose StatementBegin\nalter table users add name text;\n-- +goose StatementEnd\n\n\
             -- +goose Down\nalter table users drop name;\n",
        ),
        ("user/migrations/1_users.sql", "-- +goose Up\ncreate table users (id int);\n"),
    ];
    for (path, text) in files {
        case.solution.folder.file(&format!("services/{}_{path}", case.solution.prefix), text);
    }
    let module = [
        ("V1__people.sql", "create table people (id int);"),
        ("U1__people.sql", "drop table people;"),
        ("V1_10__index.sql", "create index concurrently people_id on people (id);"),
        ("V1_10__index.sql.conf", "executeInTransaction=false\n"),
        ("R__everybody.sql", "create or replace view everybody as select * from people;"),
        ("afterMigrate__done.sql", "select 1;"),
    ];
    for (path, text) in module {
        case.solution.folder.file(&format!("modules/identity/migrations/{path}"), text);
    }
    case.solution.folder.file("modules/identity/seeds/1_first.sql", "insert into identity.people values (1);");
}

#[tokio::test]
async fn a_bundle_leaves_the_same_histories_behind_as_the_folders() {
    let mut case = Case::new().await;
    write_many(&case);
    // A build machine has no server, and nobody's password.
    let url = case.solution.server.superuser_url("postgres");
    case.solution.folder.set("PGFLEET_SERVERS__MAIN__URL", "postgresql://nobody@127.0.0.1:1/postgres");
    let text = case.pack();
    case.set("PGFLEET_SERVERS__MAIN__URL", &url);
    assert!(case.is_untouched().await);
    assert!(!text.contains("it's"), "the value of a placeholder is in the bundle");

    case.solution.pgfleet("migrate").exits(0);
    let trip = case.solution.name("trip");
    let sets = ["identity", trip.as_str()];
    let from_folders = case.history("trip", &sets).await;
    assert_eq!(from_folders.len(), 11, "{from_folders:?}");
    let users = "SELECT row(version, description, checksum, raw_hash, sql, down)::text FROM app.versions ORDER BY 1";
    let users_from_folders = case.solution.column("user", users).await;
    assert_eq!(users_from_folders.len(), 2);
    case.elsewhere("migrate --bundle all.bundle").exits(0).says("2 databases: 0 changed, 2 up to date");
    case.elsewhere("migrate --bundle all.bundle --check").exits(0);

    case.solution.sql("DROP DATABASE {}_trip").await;
    case.solution.sql("DROP DATABASE {}_user").await;
    assert!(!case.elsewhere.path().join("services").exists());
    case.elsewhere("migrate --bundle all.bundle").exits(0).says("2 databases: 2 changed");
    assert_eq!(case.history("trip", &sets).await, from_folders);
    assert_eq!(case.solution.column("user", users).await, users_from_folders);
    assert_eq!(case.solution.column("trip", "SELECT id FROM doubled ORDER BY 1").await, ["2", "14"]);
    assert_eq!(case.solution.column("trip", "SELECT DISTINCT mark FROM trips").await, ["it's"]);
    case.solution.pgfleet("migrate").exits(0).says("2 databases: 0 changed, 2 up to date");
    case.solution.pgfleet("revert --service {}_trip --steps 1").exits(0);
    case.elsewhere("migrate --bundle all.bundle --check").exits(5).says("1 pending");
    let dry = case.elsewhere("migrate --bundle all.bundle --dry-run").exits(0);
    dry.prints("alter table trips add mark text default :'mark'");
    case.elsewhere("migrate --bundle all.bundle --service {}_trip --set identity").exits(0).says("nothing to do");
    // With what is applied again after each revert, the repeatable.
    case.elsewhere("migrate --bundle all.bundle --service {}_trip").exits(0).says("applied 2");
}

#[tokio::test]
async fn a_failing_file_is_named_by_its_place_in_the_sources() {
    let case = Case::new().await;
    let trip = case.solution.name("trip");
    let name = format!("services/{trip}/migrations/2_wrong.sql");
    case.solution.folder.file(&name, "select 1;\nselect of_nothing;\n");
    case.pack();
    case.elsewhere("migrate --bundle all.bundle --service {}_trip").exits(1).says(&format!("at {name}:2:8"));
}

#[tokio::test]
async fn making_it_twice_gives_the_same_bytes_and_standard_output_the_same_as_a_file() {
    let case = Case::with_program("").await;
    let text = case.pack();
    assert_eq!(case.pack(), text);
    let printed = case.solution.pgfleet("bundle").exits(0).out;
    assert_eq!(printed, text);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let program = &document["services"][0]["program"]["sets"][0]["migrations"];
    assert!(program[1]["what"]["recorded"]["up"].as_str().unwrap().contains("CREATE TABLE riders"), "{program}");
    assert_eq!(program[2]["what"]["live"]["revision"], 1);
    assert_eq!(program[3]["what"]["backfill"]["revision"], 1);
    let told = case.solution.pgfleet("bundle --output here.bundle --json").exits(0).says("2 services, 2 migrations");
    assert_eq!(told.json()["checksum"], document["checksum"]);
    case.solution.pgfleet("bundle --output nowhere/here.bundle").exits(1).says("cannot write the bundle to nowhere");
}

#[tokio::test]
async fn rust_steps_are_run_by_the_program_that_is_there() {
    let case = Case::with_program("").await;
    let text = case.pack();
    assert!(!text.contains("worker-fixture"), "where the program was is in the bundle");
    case.elsewhere("migrate --bundle all.bundle").exits(0);
    let trip = case.solution.name("trip");
    let from_bundle = case.history("trip", &[&trip]).await;
    assert_eq!(from_bundle.len(), 6, "{from_bundle:?}");
    assert_eq!(case.solution.column("trip", "SELECT id FROM trips ORDER BY id").await, ["1", "7"]);
    case.solution.pgfleet("migrate").exits(0).says("2 databases: 0 changed, 2 up to date");
    case.solution.sql("DROP DATABASE {}_trip").await;
    case.solution.pgfleet("migrate").exits(0);
    assert_eq!(case.history("trip", &[&trip]).await, from_bundle);
    case.elsewhere("migrate --bundle all.bundle").exits(0).says("2 databases: 0 changed, 2 up to date");
}

#[tokio::test]
async fn a_needed_program_that_is_missing_or_another_one_is_refused_before_anything_is_touched() {
    let mut case = Case::with_program("").await;
    let nothing = "cannot migrate from the bundle; nothing was touched";
    let refused = |case: &Case, why: &str| {
        case.elsewhere("migrate --bundle all.bundle").exits(3).says(nothing).says(why);
    };
    case.manifest(None, &[]);
    refused(&case, "its code is in the service's program, which the manifest does not name");
    case.manifest(Some("bin/trip".into()), &[]);
    refused(&case, "cannot start the program of");
    case.manifest(Some(example("worker-fixture")), &[]);
    case.set("FIXTURE_MODE", "revised");
    refused(&case, "3_add_riders: revision 1 recorded, 2 in the program");
    refused(&case, "the seed 2_admin: revision 1 recorded, 2 in the program");
    case.set("FIXTURE_MODE", "recorded");
    refused(&case, "4_backfill_riders: not in the program");
    case.set("FIXTURE_MODE", "edited");
    refused(&case, "1_trips: another one in the program");
    case.set("FIXTURE_MODE", "module");
    refused(&case, "extras");
    case.set("FIXTURE_MODE", "");
    case.set("FIXTURE_SERVICE", "taxi");
    refused(&case, "it says that it is taxi");
    case.elsewhere("migrate --bundle all.bundle --check").exits(3).says(nothing);
    // Neither a role nor a database; the other service was not begun.
    assert!(case.is_untouched().await);

    // What is there already stays as it is.
    case.elsewhere("migrate --bundle all.bundle --service {}_user").exits(0).says("applied 1");
    refused(&case, "it says that it is taxi");
    let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND oid >= 16384";
    assert_eq!(case.solution.column("trip", tables).await, ["0"]);
}

#[tokio::test]
async fn recorded_steps_need_no_program() {
    let case = Case::with_program("recorded").await;
    case.manifest(None, &[]);
    case.elsewhere("migrate --bundle all.bundle").exits(0);
    let versions = "SELECT version FROM pgfleet.{}_trip_migrations ORDER BY version";
    assert_eq!(case.solution.column("trip", versions).await, ["1", "2"]);
    let texts = "SELECT sql FROM pgfleet.{}_trip_migrations WHERE version = '2'";
    assert!(case.solution.column("trip", texts).await[0].contains("CREATE TABLE riders"));
}

#[tokio::test]
async fn a_program_that_was_built_from_other_files_cannot_be_packed() {
    let mut case = Case::with_program("").await;
    case.set("FIXTURE_MODE", "edited");
    let ran = case.solution.pgfleet("bundle").exits(3);
    assert_eq!(ran.out, "");
    ran.says("cannot pack").says("it was built from other files").says("another text in the program");
}

#[tokio::test]
async fn a_file_that_is_not_this_solutions_bundle_is_refused() {
    let case = Case::new().await;
    let text = case.pack();
    let migrate = "migrate --bundle all.bundle";
    std::fs::write(case.file(), text.replace("create table", "create  table")).unwrap();
    case.elsewhere(migrate).exits(3).says("cannot read the bundle").says("it is damaged").says("all.bundle");
    std::fs::write(case.file(), text.replacen(": 1,", ": 7,", 1)).unwrap();
    case.elsewhere(migrate).exits(3).says("it is of version 7, and this pgfleet reads version 1");
    std::fs::write(case.file(), "select 1;\n").unwrap();
    case.elsewhere(migrate).exits(3).says("it is no bundle of pgfleet");
    std::fs::remove_file(case.file()).unwrap();
    case.elsewhere(migrate).exits(3).says("all.bundle: No such file");

    std::fs::write(case.file(), &text).unwrap();
    let manifest = std::fs::read_to_string(case.elsewhere.path().join("pgfleet.toml")).unwrap();
    let named = format!("name = \"{}\"", case.solution.prefix);
    case.elsewhere.file("pgfleet.toml", manifest.replacen(&named, "name = \"another\"", 1));
    let other = format!("it is of the solution {}, and", case.solution.prefix);
    case.elsewhere(migrate).exits(3).says("cannot use the bundle").says(&other).says("is of another");

    let (trip, user) = (case.solution.name("trip"), case.solution.name("user"));
    let changed = manifest.replace(
        &format!("[services.{trip}]"),
        &format!("[modules.identity]\n[services.{trip}]\nschema = \"trips\"\nmodules = [\"identity\"]"),
    );
    let changed = changed.replace(&format!("[services.{user}]"), "[services.new]");
    case.elsewhere.file("pgfleet.toml", changed);
    case.elsewhere(migrate)
        .exits(3)
        .says("it was made with another manifest")
        .says(&format!("schema of {trip}: public in the bundle, trips here"))
        .says(&format!("modules of {trip}: none in the bundle, identity here"))
        .says(&format!("the service {user} is in the bundle and not in the manifest"));
    assert!(case.is_untouched().await);
    for line in ["--dir m --url postgresql://localhost/x", "--dir m"] {
        case.elsewhere(&format!("{migrate} {line}")).exits(2).says("cannot be used with");
    }
}

#[tokio::test]
async fn a_bundle_of_some_services_leaves_the_others_alone() {
    let case = Case::new().await;
    let file = case.file().display().to_string();
    let (trip, user) = (case.solution.name("trip"), case.solution.name("user"));
    case.solution.folder.run(&["bundle", "--output", &file, "--service", &trip]).exits(0);
    let migrate = case.elsewhere("migrate --bundle all.bundle").exits(0);
    migrate.says(&format!("note: {user} is not in the bundle")).says(&format!("{trip}: applied 1"));
    let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND oid >= 16384";
    assert_eq!(case.solution.column("user", tables).await, ["0"]);
    case.elsewhere("migrate --bundle all.bundle --service {}_user").exits(3).says("the bundle has no service");
    case.solution.pgfleet("bundle --service nobody").exits(3).says("there is no service `nobody`");
}

//! What is in a template, as a hash, and how it gets there.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use pgfleet_local::testing::Recipe;
use pgfleet_migrate::{Options, SetPath, Target, run};
use pgfleet_sql::checksum::raw_hash;

use super::server::Server;
use crate::builder::Builder;
use crate::error::Error;

/// Digits of a template's name.
const DIGITS: usize = 24;

/// The recipe of the builder's database on that server.
pub(super) async fn recipe(builder: &Builder, server: &Server) -> Result<Recipe, Error> {
    let path = builder.path()?;
    let major = server.databases.major_version().await;
    let major = major.map_err(|error| Error::new(crate::ErrorKind::Connection, error.to_string()))?;
    let options = Options { announcer: None, dry_run: false, look_only: false, ..builder.options.clone() };
    let mut all = format!("pgfleet {} on PostgreSQL {major}\n", env!("CARGO_PKG_VERSION"));
    // Writing to a string does not fail.
    let _ = write!(all, "{:?}\n{:?} {:?}\n", builder.schema, options.to, options.set);
    describe(&path, &mut all);
    let names = names(&all, has_code(&path).then(Program::this));
    let target = Target::new(builder.name(), server.address.clone());
    let target = Target { schema: builder.schema.clone(), ..target };
    let shared = Arc::new((target, path, options, builder.observer.clone()));
    let recipe = Recipe::new(names.hash, move |database| {
        let shared = shared.clone();
        async move {
            let (target, path, options, observer) = &*shared;
            let target = Target { address: target.address.with_database(&database), ..target.clone() };
            let migrated = run::migrate(&target, path, options, &*observer.0).await;
            migrated.map(drop).map_err(|error| format!("{:#}", Error::from(error)))
        }
    });
    Ok(match names.family {
        Some(family) => recipe.replacing(family),
        None => recipe,
    })
}

/// What a template is called, and what those have in common of which there is to be one only.
struct Names {
    hash: String,
    family: Option<String>,
}

/// Names the template of what was written down; where code is in it, for one build of the program.
fn names(all: &str, program: Option<Program>) -> Names {
    let hash = |text: &str| raw_hash(text.as_bytes())[..DIGITS].to_owned();
    match program {
        None => Names { hash: hash(all), family: None },
        Some(Program { path, build }) => {
            Names { hash: hash(&format!("{all}{path} {build}")), family: Some(hash(&format!("{all}{path}"))) }
        }
    }
}

/// Writes down all that the sets say.
///
/// As Rust shows it: so every field counts, also one that is added later, and no text can pass for two.
fn describe(path: &SetPath, all: &mut String) {
    for set in path.sets() {
        let _ = writeln!(all, "{set:?}\n{:?}\n{:?}", set.seeds.files, set.seeds.properties);
    }
}

/// Whether there is code, whose text nobody has: its revision says too little while it is being written.
fn has_code(path: &SetPath) -> bool {
    path.sets().iter().any(|set| !set.code.is_empty() || set.seeds.files.iter().any(|seed| seed.code.is_some()))
}

/// The program that is running.
struct Program {
    /// Where it is.
    path: String,
    /// What changes with each build.
    build: String,
}

impl Program {
    fn this() -> Self {
        let path = std::env::current_exe().unwrap_or_default();
        let built = std::fs::metadata(&path).and_then(|file| Ok((file.modified()?, file.len())));
        let (modified, bytes) = built.unwrap_or((UNIX_EPOCH, 0));
        let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        Self { path: path.display().to_string(), build: format!("{modified}, {bytes} bytes") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::{Folder, Seeds};
    use crate::{Db, Module, Seeder, Service, StepResult};

    const ONE: Folder = Folder::new("m", "pgfleet", &[("1_a.sql", "CREATE TABLE a (id int)")]);
    const COMMENTED: Folder = Folder::new("m", "pgfleet", &[("1_a.sql", "-- a\nCREATE TABLE a (id int)")]);
    const NAMED: Folder = Folder::new("m", "pgfleet", &[("1_b.sql", "CREATE TABLE a (id int)")]);
    const SEEDS: Seeds = Seeds::new("s", &[("1.sql", "INSERT INTO a VALUES (1)")]);

    struct Fill(u32);

    impl Seeder for Fill {
        fn name(&self) -> &'static str {
            "2_fill"
        }

        fn revision(&self) -> u32 {
            self.0
        }

        async fn seed(&self, _: &Db<'_>) -> StepResult {
            Ok(())
        }
    }

    fn text(builder: &Builder) -> String {
        let mut all = String::new();
        describe(&builder.path().unwrap(), &mut all);
        all
    }

    #[test]
    fn whatever_decides_on_the_content_decides_on_the_name() {
        let trip = || Service::builder("trip");
        let all = vec![
            trip(),
            trip().migrations(ONE),
            trip().migrations(COMMENTED),
            trip().migrations(NAMED),
            trip().migrations(ONE).history("public", "trip_history"),
            trip().migrations(ONE).placeholder("size", "1"),
            trip().migrations(ONE).placeholder("size", "2"),
            trip().migrations(ONE).property("email", "a"),
            trip().migrations(ONE).property("email", "b"),
            trip().migrations(ONE).seeds(SEEDS),
            trip().migrations(ONE).seeds(SEEDS).seeder(Fill(1)),
            trip().migrations(ONE).seeds(SEEDS).seeder(Fill(2)),
            trip().module(Module::new("m").migrations(ONE)),
            trip().module(Module::new("m").schema("m").migrations(ONE)),
            trip().module(Module::new("m").migrations(ONE)).module(Module::new("n")),
            trip().module(Module::new("n")).module(Module::new("m").migrations(ONE)),
            Service::builder("ride").migrations(ONE),
        ];
        let texts: std::collections::BTreeSet<String> = all.iter().map(text).collect();
        assert_eq!(texts.len(), all.len());
        assert_eq!(text(&trip().migrations(ONE).seeds(SEEDS)), text(&trip().seeds(SEEDS).migrations(ONE)));
    }

    #[test]
    fn code_has_a_template_for_each_build() {
        let path = |builder: Builder| builder.path().unwrap();
        assert!(!has_code(&path(Service::builder("trip").migrations(ONE).seeds(SEEDS))));
        assert!(has_code(&path(Service::builder("trip").seeder(Fill(1)))));

        let program = |build: &str| Some(Program { path: "/deps/it".to_owned(), build: build.to_owned() });
        let (first, next) = (names("trip", program("1")), names("trip", program("2")));
        assert_ne!(first.hash, next.hash);
        assert_eq!(first.family, next.family);
        assert_eq!(first.hash, names("trip", program("1")).hash);
        // Two services of one program do not take turns in removing each other's templates.
        assert_ne!(first.family, names("ride", program("1")).family);
        assert_eq!(names("trip", None).family, None);
    }
}

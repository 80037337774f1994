//! A reusable schema with its own migrations, mapped into a service's database.

use std::collections::BTreeMap;
use std::path::Path;

use pgfleet_migrate::code::{IntoStep, Seeder, Step};
use pgfleet_migrate::history::HistoryTable;
use pgfleet_migrate::{Seeds, Set};

use crate::embed;
use crate::error::Error;

/// The migrations and seeds of one history: a module's, or a service's own.
///
/// ```
/// use pgfleet::{Module, Service, embed::Folder};
///
/// let identity = Module::new("identity")
///     .schema("identity")
///     .migrations(Folder::new("identity", "pgfleet", &[("1_users.sql", "CREATE TABLE users (id bigint)")]));
/// let builder = Service::builder("trip").module(identity);
/// ```
#[derive(Debug)]
pub struct Module {
    name: String,
    schema: Option<String>,
    history: Option<(String, String)>,
    folder: Option<embed::Folder>,
    seeds: Option<embed::Seeds>,
    placeholders: BTreeMap<String, String>,
    /// Errors wait until they can be returned.
    steps: Vec<Result<Step, Error>>,
    seeders: Vec<Registration>,
}

/// Puts a seeder into a set that is being made.
struct Registration(Box<PutInto>);

type PutInto = dyn Fn(&mut Set) -> Result<(), pgfleet_migrate::Error> + Send + Sync;

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registration")
    }
}

impl Module {
    /// A module of that name, with nothing in it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            schema: None,
            history: None,
            folder: None,
            seeds: None,
            placeholders: BTreeMap::new(),
            steps: Vec::new(),
            seeders: Vec::new(),
        }
    }

    /// Sets the schema that unqualified names of its files go to; without it, the service's.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// Sets where its history is, as `schema.table`.
    #[must_use]
    pub fn history(mut self, schema: impl Into<String>, table: impl Into<String>) -> Self {
        self.history = Some((schema.into(), table.into()));
        self
    }

    /// Sets its folder of migrations.
    #[must_use]
    pub fn migrations(mut self, folder: embed::Folder) -> Self {
        self.folder = Some(folder);
        self
    }

    /// Adds a migration written in Rust.
    #[must_use]
    pub fn migration<K>(mut self, migration: impl IntoStep<K>) -> Self {
        self.steps.push(migration.into_step().map_err(Error::from));
        self
    }

    /// Sets its folder of seeds.
    #[must_use]
    pub fn seeds(mut self, seeds: embed::Seeds) -> Self {
        self.seeds = Some(seeds);
        self
    }

    /// Adds a seeder written in Rust.
    #[must_use]
    pub fn seeder(mut self, seeder: impl Seeder) -> Self {
        let seeder = std::sync::Arc::new(seeder);
        self.seeders.push(Registration(Box::new(move |set| set.add_seeder(seeder.clone()))));
        self
    }

    /// Sets the value of a placeholder of its migrations.
    #[must_use]
    pub fn placeholder(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.placeholders.insert(name.into(), value.into());
        self
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Makes its set, with the seeds' properties and more placeholders.
    pub(crate) fn set(
        &self,
        properties: &BTreeMap<String, String>,
        placeholders: &BTreeMap<String, String>,
    ) -> Result<Set, Error> {
        let mut set = match &self.folder {
            Some(folder) => folder.set(&self.name)?,
            None => Set::from_migrations(&self.name, Vec::new()),
        };
        set.schema.clone_from(&self.schema);
        set.placeholders.clone_from(&self.placeholders);
        set.placeholders.extend(placeholders.clone());
        if let Some((schema, table)) = &self.history {
            set.history = HistoryTable::at(&self.name, schema, table);
        }
        let (folder, files) = self.seeds.map(|seeds| (seeds.folder, seeds.files)).unwrap_or_default();
        set.seeds = Seeds::from_files(Path::new(folder), files.iter().copied(), properties.clone());
        for step in &self.steps {
            match step {
                Ok(step) => set.insert(step.clone())?,
                Err(error) => return Err(error.again()),
            }
        }
        for seeder in &self.seeders {
            seeder.0(&mut set)?;
        }
        Ok(set)
    }
}

//! A reusable schema with its own migrations, mapped into a service's database.

use std::collections::BTreeMap;
use std::path::Path;

use pgfleet_migrate::code::{IntoStep, Seeder, Step};
use pgfleet_migrate::history::HistoryTable;
use pgfleet_migrate::{Seeds, Set};

use crate::embed;
use crate::environment::{text, upper, variable};
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
    builtin: Option<Builtin>,
    seeds: Option<embed::Seeds>,
    placeholders: BTreeMap<String, String>,
    /// Errors wait until they can be returned.
    steps: Vec<Result<Step, Error>>,
    seeders: Vec<Registration>,
}

/// A module whose files are in this crate.
#[derive(Debug, Clone, Copy)]
enum Builtin {
    Outbox,
    Inbox,
    EventStreaming,
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
            builtin: None,
            seeds: None,
            placeholders: BTreeMap::new(),
            steps: Vec::new(),
            seeders: Vec::new(),
        }
    }

    /// The outbox: the messages that the service publishes in its own transactions. Its tables are in the service's
    /// schema; the manifest has it as `modules = ["outbox"]`.
    pub fn outbox() -> Self {
        Self { builtin: Some(Builtin::Outbox), ..Self::new("outbox") }
    }

    /// The inbox: what the service has received and handled. Its tables are in the service's schema; the manifest has it as
    /// `modules = ["inbox"]`.
    pub fn inbox() -> Self {
        Self { builtin: Some(Builtin::Inbox), ..Self::new("inbox") }
    }

    /// Streams and queues, in the schema `event_streaming`; the manifest has it as `modules = ["event_streaming"]`.
    pub fn event_streaming() -> Self {
        Self { builtin: Some(Builtin::EventStreaming), ..Self::new(pgfleet_events_postgres::module::EVENT_STREAMING) }
    }

    /// Sets the schema that unqualified names of its files go to; without it, what `PGFLEET_<SERVICE>_MODULE_<NAME>_SCHEMA`
    /// says, which is the manifest's `schema` of the module, and else the service's.
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

    /// The schema of streams and queues, when it is their module.
    pub(crate) fn event_schema(&self, service: &str) -> Option<String> {
        let name = pgfleet_events_postgres::module::EVENT_STREAMING;
        (self.name == name).then(|| self.schema_of(service).unwrap_or_else(|| name.to_owned()))
    }

    /// The schema of its tables in a service's database; none for the service's own.
    fn schema_of(&self, service: &str) -> Option<String> {
        let said = || text(&variable(service, &format!("MODULE_{}_SCHEMA", upper(&self.name))));
        let usual = || match self.builtin? {
            Builtin::Outbox | Builtin::Inbox => None,
            Builtin::EventStreaming => Some(pgfleet_events_postgres::module::EVENT_STREAMING.to_owned()),
        };
        self.schema.clone().or_else(said).or_else(usual)
    }

    /// Makes its set for a service, with the seeds' properties and more placeholders.
    pub(crate) fn set(
        &self,
        service: &str,
        properties: &BTreeMap<String, String>,
        placeholders: &BTreeMap<String, String>,
    ) -> Result<Set, Error> {
        let mut set = match (&self.folder, self.builtin) {
            (Some(folder), _) => folder.set(&self.name)?,
            (None, Some(builtin)) => self.builtin_set(builtin, service)?,
            (None, None) => Set::from_migrations(&self.name, Vec::new()),
        };
        set.schema = self.schema_of(service);
        set.placeholders.extend(self.placeholders.clone());
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

    /// Makes the set of a module of this crate; where its history is, the command line has it too.
    fn builtin_set(&self, builtin: Builtin, service: &str) -> Result<Set, Error> {
        use pgfleet_events_postgres::module;
        let mut set = match builtin {
            Builtin::Outbox => module::outbox()?,
            Builtin::Inbox => module::inbox()?,
            Builtin::EventStreaming => {
                let schema = self.schema_of(service);
                return Ok(module::event_streaming(schema.as_deref().unwrap_or(module::EVENT_STREAMING))?);
            }
        };
        set.history = HistoryTable::of_module(service, &self.name);
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the command line makes of the manifest, too: `pgfleet-control` has the same test.
    #[test]
    fn the_modules_of_this_crate_are_those_of_the_command_line() {
        let made = |module: Module| {
            let set = module.set("trip", &BTreeMap::new(), &BTreeMap::new()).unwrap();
            (set.history.quoted(), set.schema.clone(), set.migrations.is_empty())
        };
        assert_eq!(made(Module::outbox()), (r#""pgfleet"."trip_outbox_migrations""#.to_owned(), None, false));
        assert_eq!(made(Module::inbox()), (r#""pgfleet"."trip_inbox_migrations""#.to_owned(), None, false));
        let streams = made(Module::event_streaming());
        let history = r#""event_streaming"."schema_version""#.to_owned();
        assert_eq!(streams, (history, Some("event_streaming".to_owned()), false));
        let renamed = Module::event_streaming().schema("es").set("trip", &BTreeMap::new(), &BTreeMap::new()).unwrap();
        assert_eq!(renamed.history.quoted(), r#""es"."schema_version""#);
    }
}

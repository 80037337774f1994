//! From the manifest to the work: which databases, with which migrations and seeds.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgfleet_migrate::history::HistoryTable;
use pgfleet_migrate::{Options, Seeds, Set, SetPath, Target, options};
use pgfleet_sql::layout::{Layout, UnknownLayout};
use secrecy::ExposeSecret as _;

use crate::error::{Error, ErrorKind};
use crate::fleet::Job;
use crate::manifest::{self, Manifest, Module, Service};
use crate::modules::{builtin_set, bus_set};
use crate::program::Handling;
use crate::roles::Login;
use crate::solution::{Solution, Surroundings};
use crate::vault::{self, SecretsFile};

impl Solution {
    /// Returns the services that were asked for, all when none was named; of a bundle that is used, all
    /// that are in it.
    ///
    /// # Errors
    ///
    /// An unknown name, with the one that was probably meant; one that is not in the bundle.
    pub fn services(&self, names: &[String]) -> Result<Vec<&Service>, Error> {
        // The bus is in no bundle: its set is this program's.
        let packed =
            |service: &Service| service.bus || self.used_bundle().is_none_or(|bundle| bundle.has(&service.name));
        if names.is_empty() {
            return Ok(self.manifest.services.iter().filter(|service| packed(service)).collect());
        }
        let mut chosen = Vec::new();
        for name in names {
            let service = find_service(&self.manifest, name)?;
            if !packed(service) {
                return Err(Error::new(ErrorKind::Configuration, format!("the bundle has no service {name}"))
                    .hinted("make one that has it: pgfleet bundle"));
            }
            chosen.push(service);
        }
        Ok(chosen)
    }

    /// Collects the databases of services with their migrations and seeds.
    pub fn jobs(&self, names: &[String], extra: &BTreeMap<String, String>) -> Result<Vec<Job>, Error> {
        // Services may share a folder; reading it once per service would cost more than the work.
        let mut folders: HashMap<PathBuf, Set> = HashMap::new();
        let mut jobs = Vec::new();
        for service in self.services(names)? {
            let mut properties = self.properties(service)?;
            properties.extend(extra.clone());
            let path = self.path(service, &properties, &mut folders)?;
            let mut target = Target::new(&service.name, self.address(service, Login::Migrator)?);
            target.schema = Some(service.schema.clone());
            jobs.push(Job {
                service: service.name.clone(),
                server: service.server.clone(),
                target,
                path: Arc::new(path),
                handling: Handling::default(),
            });
        }
        Ok(jobs)
    }

    /// Reads a service's sets with their seeds.
    pub(crate) fn path(
        &self,
        service: &Service,
        properties: &BTreeMap<String, String>,
        folders: &mut HashMap<PathBuf, Set>,
    ) -> Result<SetPath, Error> {
        let own = self.set(service, folders)?;
        let own =
            if service.bus { own } else { own.with_seeds(self.seeds(&service.name, &service.seeds, properties)?) };
        let mut modules = Vec::new();
        for module in service.modules.iter().filter_map(|name| self.manifest.modules.get(name)) {
            modules.push(if let Some(builtin) = module.builtin {
                let bundle = self.used_bundle().filter(|_| !service.bus);
                builtin_set(bundle, builtin, module, &service.name)?
            } else {
                let set = self.module_set(module, folders)?;
                set.with_seeds(self.seeds(&module.name, &module.seeds, properties)?)
            });
        }
        let has_program = match self.used_bundle() {
            Some(bundle) => bundle.program(&service.name).is_some(),
            None => service.program.is_some(),
        };
        // What is in the service's program may be required by what is in the files.
        if has_program {
            return Ok(SetPath::incomplete(modules, own));
        }
        SetPath::new(modules, own).map_err(|error| files_error(&error))
    }

    /// Reads a service's migration set.
    fn set(&self, service: &Service, folders: &mut HashMap<PathBuf, Set>) -> Result<Set, Error> {
        if service.bus {
            return bus_set(&service.name, self.manifest.bus_schema());
        }
        let files = Files { name: &service.name, folder: &service.migrations, layout: service.layout.as_deref() };
        self.named_set(&files, service.history.as_deref(), folders)
    }

    /// Reads a module's migration set.
    fn module_set(&self, module: &Module, folders: &mut HashMap<PathBuf, Set>) -> Result<Set, Error> {
        let files = Files { name: &module.name, folder: &module.migrations, layout: module.layout.as_deref() };
        let mut set = self.named_set(&files, module.history.as_deref(), folders)?;
        set.schema.clone_from(&module.schema);
        Ok(set)
    }

    fn named_set(
        &self,
        files: &Files<'_>,
        history: Option<&str>,
        folders: &mut HashMap<PathBuf, Set>,
    ) -> Result<Set, Error> {
        if let Some(bundle) = self.used_bundle() {
            let mut set = bundle.set(files.name)?;
            set.placeholders = self.placeholders();
            return Ok(set);
        }
        if !folders.contains_key(files.folder) {
            let set = self.read_set(files)?;
            folders.insert(files.folder.to_owned(), set);
        }
        let mut set = folders[files.folder].clone();
        files.name.clone_into(&mut set.name);
        set.history = history_of(files.name, history);
        Ok(set)
    }

    fn read_set(&self, files: &Files<'_>) -> Result<Set, Error> {
        let layout = layout_of(files.layout)?;
        if !files.folder.exists() {
            // A service without migrations yet is one with nothing to do.
            let mut empty = Set::from_migrations(files.name, Vec::new());
            files.folder.clone_into(&mut empty.folder);
            empty.notes.push(format!("{} does not exist", files.folder.display()));
            return Ok(empty);
        }
        Set::read(files.name, files.folder, layout, self.placeholders()).map_err(|error| files_error(&error))
    }

    fn placeholders(&self) -> BTreeMap<String, String> {
        let values = self.manifest.migrations.placeholders.iter();
        values.map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect()
    }

    /// Reads the seeds of a service or module.
    fn seeds(&self, name: &str, folder: &Path, properties: &BTreeMap<String, String>) -> Result<Seeds, Error> {
        match self.used_bundle() {
            Some(bundle) => bundle.seeds(name, properties),
            None => Seeds::read(folder, properties.clone()).map_err(|error| files_error(&error)),
        }
    }

    /// Returns the values for a service's seeds; passwords as Argon2id hashes.
    fn properties(&self, service: &Service) -> Result<BTreeMap<String, String>, Error> {
        let mut values = BTreeMap::new();
        for (name, value) in self.manifest.properties_of(service) {
            let value = if name.ends_with("password") {
                vault::property_hash(&SecretsFile::new(self.place()), &name, Some(&value))?
            } else {
                value.expose_secret().to_owned()
            };
            values.insert(name, value);
        }
        Ok(values)
    }
}

/// Where the migrations of a set are.
struct Files<'a> {
    name: &'a str,
    folder: &'a Path,
    layout: Option<&'a str>,
}

/// Returns where the history of a set is: at the place that the manifest names, or the usual one.
pub(crate) fn history_of(name: &str, history: Option<&str>) -> HistoryTable {
    match history.and_then(|history| history.split_once('.')) {
        Some((schema, table)) => HistoryTable::at(name, schema, table),
        None => HistoryTable::of_set(name),
    }
}

/// Reads the name of a layout.
pub(crate) fn layout_of(name: Option<&str>) -> Result<Option<Layout>, Error> {
    name.map(str::parse)
        .transpose()
        .map_err(|error: UnknownLayout| Error::new(ErrorKind::Configuration, error.to_string()).hinted(error.hint()))
}

/// Finds a declared service.
///
/// # Errors
///
/// An unknown name, with the one that was probably meant.
pub fn find_service<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Service, Error> {
    manifest.service(name).ok_or_else(|| unknown_service(manifest, name))
}

fn unknown_service(manifest: &Manifest, name: &str) -> Error {
    let names = manifest.services.iter().map(|service| service.name.as_str());
    let error =
        Error::new(ErrorKind::Configuration, format!("there is no service `{name}` in {}", manifest.path.display()));
    let near = names.clone().max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
    match near.filter(|near| strsim::jaro_winkler(near, name) > 0.7) {
        Some(near) => error.hinted(format!("did you mean `{near}`?")),
        None => error.hinted(format!("services: {}", names.collect::<Vec<_>>().join(", "))),
    }
}

/// Turns an error about files into one of ours.
pub(crate) fn files_error(error: &pgfleet_migrate::Error) -> Error {
    let mut own = Error::new(ErrorKind::Failed, error.to_string());
    for cause in error.causes() {
        own = own.cause(cause);
    }
    match error.hint() {
        Some(hint) => own.hinted(hint),
        None => own,
    }
}

pub(crate) fn base_options(manifest: &Manifest, surroundings: &Surroundings) -> Options {
    let own = &manifest.migrations;
    Options {
        lock_timeout: own.lock_timeout,
        lock_tries: own.lock_tries,
        retry_on: match own.retry_on {
            manifest::RetryOn::Transient => options::RetryOn::Transient,
            manifest::RetryOn::Any => options::RetryOn::Any,
        },
        max_tries: own.max_tries,
        min_retry_wait: own.min_retry_wait,
        max_retry_wait: own.max_retry_wait,
        wait_attempts: 1,
        wait_delay: own.wait_delay,
        lock_wait: None,
        durability: match own.durability {
            manifest::Durability::Run => options::Durability::Run,
            manifest::Durability::Each => options::Durability::Each,
        },
        concurrently: match own.concurrently {
            manifest::Concurrently::AsWritten => options::Concurrently::AsWritten,
            manifest::Concurrently::PlainWhenEmpty => options::Concurrently::PlainWhenEmpty,
        },
        on_changed: match own.on_changed {
            manifest::OnChanged::Error => options::OnChanged::Error,
            manifest::OnChanged::Warn => options::OnChanged::Warn,
        },
        on_missing: match own.on_missing {
            manifest::OnMissing::Error => options::OnChanged::Error,
            manifest::OnMissing::Warn => options::OnChanged::Warn,
        },
        on_ahead: match own.on_ahead {
            manifest::OnAhead::Run => options::OnAhead::Run,
            manifest::OnAhead::Error => options::OnAhead::Error,
        },
        on_out_of_order: match own.on_out_of_order {
            manifest::OnOutOfOrder::Error => options::OnOutOfOrder::Error,
            manifest::OnOutOfOrder::Apply => options::OnOutOfOrder::Apply,
        },
        to: None,
        set: None,
        enough: None,
        run: None,
        always_seed: false,
        announcer: None,
        dry_run: false,
        look_only: false,
        lock_first: false,
        who: surroundings.who.clone(),
        stop: surroundings.stop.clone(),
    }
}

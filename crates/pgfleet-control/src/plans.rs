//! What each service's databases are to be brought to: read once, used for thousands of them.
//!
//! The *print* of a plan is a hash over everything that decides what a run does: migrations,
//! repeatables, seeds with the manifest's properties, and what is written in Rust. A target that was
//! brought to a print and is asked for the same one has nothing to do, and nobody needs to look at
//! it. A print does not depend on the machine, so that several can share a rollout.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::try_join_all;
use pgfleet_migrate::worker::Description;
use pgfleet_migrate::{Observer, SetPath};
use pgfleet_sql::checksum::raw_hash;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::fleet::Job;
use crate::place::{Place, write_private};
use crate::program::Handling;
use crate::solution::Solution;

/// What one service's databases are to be brought to.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The service.
    pub service: String,
    /// Its sets, with what its program has in them.
    pub path: Arc<SetPath>,
    /// Whether the work is done here or by the service's program.
    pub handling: Handling,
    /// The schema of its tables.
    pub schema: Option<String>,
    /// The print of all that.
    pub print: String,
}

impl Plan {
    /// Returns the newest version of the service's own set.
    pub fn version(&self) -> Option<String> {
        self.path.own().newest().map(ToString::to_string)
    }
}

/// The plans of services, by service.
#[derive(Debug, Clone, Default)]
pub struct Plans(BTreeMap<String, Plan>);

impl Plans {
    /// Returns a service's plan.
    pub fn get(&self, service: &str) -> Option<&Plan> {
        self.0.get(service)
    }

    /// Returns all of them.
    pub fn iter(&self) -> impl Iterator<Item = &Plan> {
        self.0.values()
    }

    /// Returns the prints of all of them.
    pub fn prints(&self) -> Prints {
        Prints(self.0.iter().map(|(service, plan)| (service.clone(), Some(plan.print.clone()))).collect())
    }

    /// Returns the first reason for which a service cannot be worked on.
    pub fn refusal(&self) -> Option<pgfleet_migrate::Error> {
        self.0.values().find_map(|plan| plan.handling.refusal())
    }
}

/// The prints of services' plans; none for one that is not known without asking its program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prints(BTreeMap<String, Option<String>>);

impl Prints {
    /// Returns a service's print.
    pub fn get(&self, service: &str) -> Option<&str> {
        self.0.get(service)?.as_deref()
    }

    /// Returns services with their prints; none when one is not known.
    pub fn all(&self) -> Option<Vec<(&str, &str)>> {
        self.0.iter().map(|(service, print)| Some((service.as_str(), print.as_deref()?))).collect()
    }

    /// Returns the print of several services together, in the order of their names.
    pub fn of<'a>(&self, services: impl IntoIterator<Item = &'a str>) -> Option<String> {
        let mut names: Vec<&str> = services.into_iter().collect();
        names.sort_unstable();
        let mut text = String::new();
        for name in names {
            text.push_str(&format!("{name}={}\n", self.get(name)?));
        }
        Some(format!("v1:{}", raw_hash(text.as_bytes())))
    }
}

impl Solution {
    /// Reads what services' databases are to be brought to; all services when none is named.
    ///
    /// Starts the programs of services that have one; `observer` sees what they print. A program that
    /// cannot be used refuses its service and no other.
    ///
    /// # Errors
    ///
    /// An unknown service; files that cannot be used.
    pub async fn plans(&self, names: &[String], observer: &Arc<dyn Observer>) -> Result<Plans, Error> {
        let files = self.jobs(names, &BTreeMap::new())?;
        let bare: BTreeMap<String, String> =
            files.iter().map(|job| (job.service.clone(), print_of_files(&job.service, &job.path))).collect();
        let jobs = self.prepare_all(files, observer).await?;
        let plans = try_join_all(jobs.into_iter().map(async |job| {
            let described = self.described(&job, observer).await?;
            let print = whole(&bare[&job.service], described.as_deref());
            let plan = Plan {
                service: job.service.clone(),
                path: job.path,
                handling: job.handling,
                schema: job.target.schema,
                print,
            };
            Ok::<_, Error>((job.service, plan))
        }))
        .await?;
        Ok(Plans(plans.into_iter().collect()))
    }

    /// Reads the prints of services' plans without starting a program.
    ///
    /// # Errors
    ///
    /// As [`plans`](Self::plans).
    pub fn prints(&self, names: &[String]) -> Result<Prints, Error> {
        let mut prints = BTreeMap::new();
        for job in self.jobs(names, &BTreeMap::new())? {
            let bare = print_of_files(&job.service, &job.path);
            let program = self.manifest.service(&job.service).and_then(|service| service.program.as_deref());
            if let Some(bundle) = self.used_bundle() {
                let recorded = bundle.program(&job.service).map(hash_of);
                prints.insert(job.service, Some(whole(&bare, recorded.as_deref())));
                continue;
            }
            let print = match program {
                None => Some(whole(&bare, None)),
                Some(program) => Known::read(self.place()).of(program).map(|known| whole(&bare, Some(&known))),
            };
            prints.insert(job.service, print);
        }
        Ok(Prints(prints))
    }

    /// Reads the prints of all services' plans; asks programs only where one is not known otherwise.
    ///
    /// # Errors
    ///
    /// As [`plans`](Self::plans).
    pub async fn prints_of_all(&self, observer: &Arc<dyn Observer>) -> Result<Prints, Error> {
        let prints = self.prints(&[])?;
        if prints.all().is_some() {
            return Ok(prints);
        }
        Ok(self.plans(&[], observer).await?.prints())
    }

    /// Returns a hash of what a service's program says that it has in it; none for a service without one.
    ///
    /// A program that cannot be used has a hash that no other has.
    async fn described(&self, job: &Job, observer: &Arc<dyn Observer>) -> Result<Option<String>, Error> {
        // What the bundle recorded is what runs; where all of it is text nobody needs the program.
        if let Some(bundle) = self.used_bundle() {
            return Ok(bundle.program(&job.service).map(hash_of));
        }
        let Some(path) = self.manifest.service(&job.service).and_then(|service| service.program.as_deref()) else {
            return Ok(None);
        };
        if matches!(job.handling, Handling::Refused(_)) {
            return Ok(Some(uuid::Uuid::now_v7().to_string()));
        }
        let hash = match self.describe(&job.service, path, observer).await {
            Ok(description) => hash_of(&description),
            Err(_) => return Ok(Some(uuid::Uuid::now_v7().to_string())),
        };
        Known::remember(self.place(), path, &hash)?;
        Ok(Some(hash))
    }
}

fn hash_of(description: &Description) -> String {
    raw_hash(serde_json::to_string(description).unwrap_or_default().as_bytes())
}

fn whole(files: &str, program: Option<&str>) -> String {
    format!("v1:{}", raw_hash(format!("{files}\n{}", program.unwrap_or_default()).as_bytes()))
}

/// Hashes what the files decide.
fn print_of_files(service: &str, path: &SetPath) -> String {
    let mut text = format!("service {service}\n");
    for set in path.sets() {
        let schema = set.schema.as_deref().unwrap_or_default();
        text.push_str(&format!("set {} {} {schema}\n", set.name, set.history.quoted()));
        for migration in set.migrations.iter() {
            text.push_str(&format!("migration {} {}\n", migration.version, migration.checksum()));
        }
        for repeatable in set.repeatables.iter() {
            text.push_str(&format!("repeatable {} {}\n", repeatable.description, repeatable.checksum()));
        }
        for seed in &set.seeds.files {
            text.push_str(&format!("seed {} {}\n", seed.name, seed.checksum));
        }
        for (name, value) in &set.placeholders {
            text.push_str(&format!("placeholder {name} {}\n", raw_hash(value.as_bytes())));
        }
    }
    raw_hash(text.as_bytes())
}

/// What programs said of themselves when they were asked last, by what their files looked like then.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known(BTreeMap<String, Said>);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    bytes: u64,
    modified: (i64, i64),
    inode: u64,
    hash: String,
}

impl Known {
    fn file(place: &Place) -> std::path::PathBuf {
        place.folder().join("programs.json")
    }

    /// What cannot be read is asked for again.
    fn read(place: &Place) -> Self {
        let text = std::fs::read_to_string(Self::file(place)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn of(&self, program: &Path) -> Option<String> {
        let said = self.0.get(&program.display().to_string())?;
        (looks(program, said.hash.clone()).as_ref() == Some(said)).then(|| said.hash.clone())
    }

    fn remember(place: &Place, program: &Path, hash: &str) -> Result<(), Error> {
        let Some(said) = looks(program, hash.to_owned()) else { return Ok(()) };
        let _lock = place.lock()?;
        let mut known = Self::read(place);
        let name = program.display().to_string();
        if known.0.get(&name) != Some(&said) {
            known.0.insert(name, said);
            write_private(&Self::file(place), &serde_json::to_string(&known).unwrap_or_default())?;
        }
        Ok(())
    }
}

fn looks(program: &Path, hash: String) -> Option<Said> {
    let meta = std::fs::metadata(program).ok()?;
    let modified = (meta.mtime(), meta.mtime_nsec());
    Some(Said { bytes: meta.len(), modified, inode: meta.ino(), hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_known_until_its_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::of(folder.path());
        let program = folder.path().join("service");
        std::fs::write(&program, "one").unwrap();
        assert_eq!(Known::read(&place).of(&program), None);
        Known::remember(&place, &program, "h").unwrap();
        assert_eq!(Known::read(&place).of(&program), Some("h".to_owned()));
        std::fs::write(&program, "another").unwrap();
        assert_eq!(Known::read(&place).of(&program), None);
    }

    #[test]
    fn the_print_of_several_services_needs_all_of_them() {
        let prints = Prints(BTreeMap::from([
            ("a".to_owned(), Some("1".to_owned())),
            ("b".to_owned(), Some("2".to_owned())),
            ("c".to_owned(), None),
        ]));
        assert_eq!(prints.of(["a", "b"]), prints.of(["b", "a"]));
        assert_ne!(prints.of(["a", "b"]), prints.of(["a"]));
        assert_eq!(prints.of(["a", "c"]), None);
        assert_eq!(prints.all(), None);
    }
}

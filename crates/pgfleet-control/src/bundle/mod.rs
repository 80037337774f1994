//! Bundles: all migration sets of a solution in one file, to be rolled out where its folders are not.
//!
//! A bundle holds the files of migrations and seeds as they are, so that everything that is made of
//! them (checksums, texts in the history, places in errors) is what the folders give. Of a service's
//! program it holds what the program says of itself. Values of seed properties and placeholders are
//! not in it: they are those of the manifest where it is used.
//!
//! The file is one JSON document. Its first line names the form, its version, and the SHA-256 of all
//! the bytes behind that line. Nothing in it depends on when and where it was made.

mod content;
mod pack;
mod rollout;
#[cfg(test)]
mod tests;

pub(crate) use rollout::refuse_all;

use std::collections::BTreeMap;
use std::path::Path;

use pgfleet_migrate::history::HistoryTable;
use pgfleet_migrate::worker::Description;
use pgfleet_migrate::{Seeds, Set, SetPath};
use pgfleet_sql::checksum::raw_hash;
use serde::Deserialize;

use crate::error::{Error, ErrorKind};
use crate::modules::{is_builtin_folder, unpacked_history};
use content::{Content, FORMAT};

/// All migration sets of a solution, as they are rolled out.
#[derive(Debug, Clone)]
pub struct Bundle {
    content: Content,
    /// Everything behind the first line, as it was read.
    body: String,
    checksum: String,
    /// The sets of the folders.
    sets: BTreeMap<String, Set>,
    /// Not written: what whoever packs wants to know about the folders.
    notes: Vec<String>,
}

/// How much is in a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Services.
    pub services: usize,
    /// Migrations in files.
    pub migrations: usize,
    /// Repeatable migrations.
    pub repeatables: usize,
    /// Seed files.
    pub seeds: usize,
    /// Services of which the bundle knows what is in their program.
    pub programs: usize,
}

/// The first line, closed.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "pgfleet-bundle")]
    format: u64,
    #[serde(default)]
    checksum: String,
}

impl Bundle {
    /// Reads a bundle.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`]: it is no bundle, of a newer version, damaged, or holds files that
    /// this pgfleet reads otherwise than the one that made it.
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let refused = |why: &str| Error::new(ErrorKind::Configuration, "cannot read the bundle").cause(why);
        let damaged = |why: &str| refused(why).hinted("take the file as `pgfleet bundle` wrote it, or make it anew");
        let (first, rest) = match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) => (&bytes[..end], &bytes[end + 1..]),
            None => (bytes, &[][..]),
        };
        let Some(Head { format, checksum }) = head(first) else {
            let named = bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes());
            return Err(if named {
                damaged("it was changed after it was made: its first line is not that of a bundle")
            } else {
                refused("it is no bundle of pgfleet").hinted("a bundle is what `pgfleet bundle --output FILE` writes")
            });
        };
        if format > FORMAT {
            return Err(refused(&format!("it is of version {format}, and this pgfleet reads version {FORMAT}"))
                .hinted("use the version of pgfleet that made it, or a later one"));
        }
        if raw_hash(rest) != checksum {
            return Err(damaged("it is damaged: its content does not have the checksum that its first line names"));
        }
        let understood = String::from_utf8(rest.to_vec())
            .map_err(|error| error.to_string())
            .and_then(|body| Ok((serde_json::from_str(&format!("{{{body}")).map_err(|e| e.to_string())?, body)));
        match understood {
            Ok((content, body)) => Self::with_body(content, body),
            Err(why) => Err(damaged(&format!("it cannot be understood: {why}"))),
        }
    }

    /// Makes a bundle of its content.
    fn new(content: Content) -> Result<Self, Error> {
        // Maps with keys that are no strings are all that JSON cannot hold; there are none.
        let text = serde_json::to_string_pretty(&content).unwrap_or_default();
        // The brace that opens the document stands in the first line.
        let body = format!("{}\n", text.strip_prefix("{\n").unwrap_or_default());
        Self::with_body(content, body)
    }

    fn with_body(content: Content, body: String) -> Result<Self, Error> {
        let sets = content.sets()?;
        Ok(Self { checksum: raw_hash(body.as_bytes()), content, body, sets, notes: Vec::new() })
    }

    /// Returns the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        format!("{{\"{KEY}\": {FORMAT}, \"checksum\": \"{}\",\n{}", self.checksum, self.body).into_bytes()
    }

    /// Returns the SHA-256 over everything in it, which names the bundle.
    pub fn checksum(&self) -> &str {
        &self.checksum
    }

    /// Returns the solution's name.
    pub fn solution(&self) -> &str {
        &self.content.solution
    }

    /// Returns the names of the services in it, in the order of the manifest.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.content.services.iter().map(|service| service.name.as_str())
    }

    /// Returns whether a service is in it.
    pub fn has(&self, service: &str) -> bool {
        self.content.service(service).is_some()
    }

    /// Returns what a service's program said of itself when the bundle was made; none for a service
    /// without one.
    pub fn program(&self, service: &str) -> Option<&Description> {
        self.content.service(service)?.program.as_ref()
    }

    /// Returns what is worth knowing about the folders that it was made of: one that is not there, files
    /// that are not read. A bundle that was read has none.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns how much is in it.
    pub fn counts(&self) -> Counts {
        Counts {
            services: self.content.services.len(),
            migrations: self.sets.values().map(|set| set.migrations.len()).sum(),
            repeatables: self.sets.values().map(|set| set.repeatables.len()).sum(),
            seeds: self.content.seeds.values().map(BTreeMap::len).sum(),
            programs: self.content.services.iter().filter(|service| service.program.is_some()).count(),
        }
    }

    /// Returns the set of a service or module, without seeds and values for placeholders.
    ///
    /// # Errors
    ///
    /// It has none of that name.
    pub(crate) fn set(&self, name: &str) -> Result<Set, Error> {
        let files = self.content.files(name).ok_or_else(|| missing(name))?;
        let mut set = self.sets.get(&files.migrations).ok_or_else(|| missing(name))?.clone();
        name.clone_into(&mut set.name);
        set.history = HistoryTable::at(name, &files.history.schema, &files.history.table);
        set.schema = self.content.modules.get(name).and_then(|module| module.schema.clone());
        Ok(set)
    }

    /// Returns the seeds of a service or module with these values.
    ///
    /// # Errors
    ///
    /// It has none of that name.
    pub(crate) fn seeds(&self, name: &str, properties: &BTreeMap<String, String>) -> Result<Seeds, Error> {
        let folder = &self.content.files(name).ok_or_else(|| missing(name))?.seeds;
        let texts = self.content.seeds.get(folder).ok_or_else(|| missing(name))?;
        let files: Vec<_> = texts.iter().map(|(name, text)| (format!("{name}.sql"), text.as_str())).collect();
        let files = files.iter().map(|(name, text)| (name.as_str(), *text));
        Ok(Seeds::from_files(Path::new(folder), files, properties.clone()))
    }

    /// Returns a service's path as far as it is in files; nothing is checked over several sets.
    fn path(&self, service: &content::Service) -> Result<SetPath, Error> {
        let none = BTreeMap::new();
        let set = |name: &str| Ok::<_, Error>(self.set(name)?.with_seeds(self.seeds(name, &none)?));
        let of_service = |name: &String| {
            let mut set = set(name)?;
            if self.content.files(name).is_some_and(|files| is_builtin_folder(&files.migrations)) {
                set.history = unpacked_history(set.history, &service.name);
            }
            Ok::<_, Error>(set)
        };
        let modules = service.modules.iter().map(of_service).collect::<Result<_, _>>()?;
        Ok(SetPath::incomplete(modules, set(&service.name)?))
    }
}

/// The key that a bundle is known by.
const KEY: &str = "pgfleet-bundle";

fn head(line: &[u8]) -> Option<Head> {
    let line = std::str::from_utf8(line).ok()?.trim_end().strip_suffix(',')?;
    serde_json::from_str(&format!("{line}}}")).ok()
}

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("the bundle has no {name}"))
}

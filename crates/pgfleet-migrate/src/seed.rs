//! Seeds, as files or in Rust: data that must be there after the schema is.
//!
//! A seed runs in a transaction with its record, and again when its text or a property that it
//! uses changed; it states its own intent (`insert … on conflict do nothing`), so that running it
//! again changes nothing it should not.
//!
//! Each run binds the property `tenant`: the tenant's name, or the empty text for the host. Where a
//! tenant has no database of its own, those seeds run for it in the host's database that depend on
//! the tenant: that use `tenant`, or another property that the tenant has a value of its own for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use pgfleet_sql::checksum;
use pgfleet_sql::layout::Script;
use pgfleet_sql::placeholder::{self, Style};

use crate::code::{Code, Seeder, code_text};
use crate::error::{Error, ErrorKind};

/// The property that says for which tenant a run is; empty for the host.
pub const TENANT: &str = "tenant";

/// The seeds of one service, with the properties they may use.
#[derive(Clone, Default)]
pub struct Seeds {
    /// The files and seeders, in the order in which they run.
    pub files: Vec<SeedFile>,
    /// Values for `:'name'`; may hold what must not be shown.
    pub properties: BTreeMap<String, String>,
    /// Those of the properties that a tenant has a value of its own for.
    own: BTreeSet<String>,
}

/// One seed file.
#[derive(Debug, Clone)]
pub struct SeedFile {
    /// The file's name without `.sql`; its identity in the record.
    pub name: String,
    /// The text.
    pub script: Arc<Script>,
    /// Changes when the text or a property it uses changes.
    pub checksum: String,
    /// What runs instead of the text, for a seeder in Rust.
    pub code: Option<Code>,
    /// The properties that it uses; those that it says, for a seeder in Rust.
    pub properties: Vec<String>,
    /// The text's own checksum.
    text_checksum: String,
}

impl SeedFile {
    fn new(
        name: &str,
        script: Script,
        code: Option<Code>,
        used: Vec<String>,
        values: &BTreeMap<String, String>,
    ) -> Self {
        let text_checksum = checksum::checksum(&script.text);
        let mut file = Self {
            name: name.to_owned(),
            script: Arc::new(script),
            checksum: String::new(),
            code,
            properties: used,
            text_checksum,
        };
        file.bind(values);
        file
    }

    /// A file of SQL, which uses the properties that it names.
    fn of_sql(name: &str, script: Script, values: &BTreeMap<String, String>) -> Self {
        let used = placeholder::names(&script.text, Style::Psql);
        Self::new(name, script, None, used, values)
    }

    /// Makes the checksum with these values.
    fn bind(&mut self, values: &BTreeMap<String, String>) {
        let mut all = self.text_checksum.clone();
        for name in &self.properties {
            if let Some(value) = values.get(name) {
                all.push_str(&format!("\n{name}={}", checksum::raw_hash(value.as_bytes())));
            }
        }
        self.checksum = format!("v1:{}", checksum::raw_hash(all.as_bytes()));
    }
}

impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Property values may be secret.
        f.debug_struct("Seeds").field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl Seeds {
    /// Reads `*.sql` of a folder in the order of their leading numbers, then names.
    ///
    /// A folder that does not exist holds no seeds.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is not UTF-8.
    pub fn read(folder: &Path, properties: BTreeMap<String, String>) -> Result<Self, Error> {
        let unreadable = |path: &Path, cause: String| {
            Error::new(ErrorKind::Files, format!("cannot read the seeds in {}", path.display())).cause(cause)
        };
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self { properties, ..Self::default() });
            }
            Err(error) => return Err(unreadable(folder, error.to_string())),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| unreadable(folder, error.to_string()))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let Some(stem) = name.strip_suffix(".sql").filter(|stem| !stem.starts_with('.')) else { continue };
            let script =
                Script::read(&path).map_err(|error| unreadable(folder, error.to_string()).hinted(error.hint()))?;
            files.push(SeedFile::of_sql(stem, script, &properties));
        }
        files.sort_by_key(|file: &SeedFile| order(&file.name));
        Ok(Self { files, properties, own: BTreeSet::new() })
    }

    /// Makes seeds of files that are in memory: names below `folder`, with `.sql`, and texts.
    pub fn from_files<'a>(
        folder: &Path,
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
        properties: BTreeMap<String, String>,
    ) -> Self {
        let mut files: Vec<SeedFile> = files
            .into_iter()
            .map(|(name, text)| {
                let script = Script::from_text(folder.join(name), text.to_owned());
                SeedFile::of_sql(name.trim_end_matches(".sql"), script, &properties)
            })
            .collect();
        files.sort_by_key(|file: &SeedFile| order(&file.name));
        Self { files, properties, own: BTreeSet::new() }
    }

    /// Puts a seeder among the files, by its name.
    ///
    /// # Errors
    ///
    /// A name that is there already.
    pub fn add(&mut self, seeder: impl Seeder) -> Result<(), Error> {
        let name = seeder.name().to_owned();
        let used: Vec<String> = seeder.properties().iter().map(|&name| name.to_owned()).collect();
        self.insert(&name, &used, Code::seeder(seeder))
    }

    /// Puts the code of a seeder among the files; `used` are the properties that it uses.
    ///
    /// # Errors
    ///
    /// A name that is there already.
    pub fn insert(&mut self, name: &str, used: &[String], code: Code) -> Result<(), Error> {
        if self.files.iter().any(|file| file.name == name) {
            return Err(Error::new(ErrorKind::Files, format!("cannot use the seeder {name}"))
                .cause("there is a seed of this name already"));
        }
        let script = Script::from_text(format!("{name} (Rust)"), code_text("seeder", name, code.revision()));
        let file = SeedFile::new(name, script, Some(code), used.to_vec(), &self.properties);
        let at = self.files.partition_point(|other| order(&other.name) < order(name));
        self.files.insert(at, file);
        Ok(())
    }

    /// Lays values over the properties; those that are a tenant's own count so from here on.
    pub(crate) fn lay_over(&mut self, values: &BTreeMap<String, String>, own: impl Fn(&str) -> bool) {
        self.own.extend(values.keys().filter(|name| own(name)).cloned());
        self.properties.extend(values.iter().map(|(name, value)| (name.clone(), value.clone())));
        for file in &mut self.files {
            if file.properties.iter().any(|name| values.contains_key(name)) {
                file.bind(&self.properties);
            }
        }
    }

    /// Returns the names of the properties that a tenant has a value of its own for.
    pub(crate) fn own(&self) -> &BTreeSet<String> {
        &self.own
    }

    /// Returns whether one of them depends on the tenant.
    fn is_of_tenant(&self, file: &SeedFile) -> bool {
        file.properties.iter().any(|name| name == TENANT || self.own.contains(name))
    }

    /// Returns the indexes of the seeds that must run, given what ran; for a guest only of those
    /// that depend on the tenant.
    pub(crate) fn pending(&self, ran: &[(String, String)], always: bool, guest: bool) -> Vec<usize> {
        (0..self.files.len())
            .filter(|index| {
                let file = &self.files[*index];
                if guest && !self.is_of_tenant(file) {
                    return false;
                }
                always || !ran.iter().any(|(name, checksum)| *name == file.name && *checksum == file.checksum)
            })
            .collect()
    }
}

/// The leading number, without leading zeros, then the name: `2_x` comes before `10_y`.
fn order(name: &str) -> (usize, String, String) {
    let digits: String = name.chars().take_while(char::is_ascii_digit).collect();
    let number = digits.trim_start_matches('0').to_owned();
    let weight = if digits.is_empty() { usize::MAX } else { number.len() };
    (weight, number, name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_run_in_the_order_of_their_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["10_b.sql", "2_a.sql", "010_a.sql", "z.sql", "notes.txt", ".hidden.sql"] {
            std::fs::write(folder.path().join(name), "select 1;").unwrap();
        }
        let seeds = Seeds::read(folder.path(), BTreeMap::new()).unwrap();
        let names: Vec<&str> = seeds.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["2_a", "010_a", "10_b", "z"]);
    }

    #[test]
    fn a_property_counts_only_where_it_is_used() {
        let with = |value: &str| BTreeMap::from([("admin_email".to_owned(), value.to_owned())]);
        let texts =
            [("1_uses.sql", "insert into t values (:'admin_email');"), ("2_plain.sql", "insert into t values (1);")];
        let seeds = |value: &str| Seeds::from_files(Path::new("seeds"), texts, with(value));
        let sums = |seeds: &Seeds| seeds.files.iter().map(|file| file.checksum.clone()).collect::<Vec<_>>();
        let (a, b) = (sums(&seeds("a")), sums(&seeds("b")));
        assert_ne!(a[0], b[0]);
        assert_eq!(a[1], b[1]);
        // Laid over they are as if they had been given.
        let mut laid_over = seeds("a");
        laid_over.lay_over(&with("b"), |_| true);
        assert_eq!(sums(&laid_over), b);
        assert_eq!(laid_over.pending(&[], true, true), [0]);
        assert_eq!(seeds("a").pending(&[], true, true), [0; 0]);
    }

    #[test]
    fn a_missing_folder_holds_no_seeds() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Seeds::read(&folder.path().join("no"), BTreeMap::new()).unwrap().files.is_empty());
    }
}

//! What a program has in it, and whether that is what lies beside the manifest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pgfleet_sql::annotation::{Annotations, Requirement};
use pgfleet_sql::checksum;
use pgfleet_sql::layout::{Kind, Layout, MigrationFile, Repeatable, Script};
use pgfleet_sql::version::Version;
use serde::{Deserialize, Serialize};

use crate::code::{Code, Step, code_file};
use crate::error::{Error, ErrorKind};
use crate::history::{HistoryTable, TOOL};
use crate::path::SetPath;
use crate::seed::{SeedFile, Seeds};
use crate::set::Set;

/// How many differences are named.
const SHOWN: usize = 10;

/// What a program says of itself and its sets.
///
/// It goes over the worker's lines and into bundles: what is changed here changes the versions of
/// both, the protocol's and the bundle's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The service.
    pub service: String,
    /// The version of pgfleet that it was built with.
    pub tool: String,
    /// The modules' sets in their order, then the service's own.
    pub(super) sets: Vec<Described>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Described {
    pub(super) name: String,
    pub(super) history: (String, String),
    pub(super) schema: Option<String>,
    pub(super) layout: String,
    pub(super) migrations: Vec<DescribedMigration>,
    pub(super) repeatables: Vec<DescribedText>,
    pub(super) seeds: Vec<DescribedSeed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DescribedMigration {
    pub(super) version: String,
    pub(super) description: String,
    pub(super) said: Said,
    pub(super) down_said: Said,
    pub(super) what: What,
}

/// The four kinds of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum What {
    /// From a file: a caller that has the file needs no text.
    Sql {
        checksum: String,
        down: Option<String>,
        texts: Option<Texts>,
    },
    /// Recorded by Rust: nobody else has its text.
    Recorded(Texts),
    Live {
        revision: u32,
        reversible: bool,
    },
    Backfill {
        revision: u32,
        reversible: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Texts {
    up: String,
    down: Option<String>,
}

/// A repeatable or a seed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DescribedText {
    pub(super) name: String,
    pub(super) checksum: String,
    text: Option<String>,
    /// For a repeatable.
    #[serde(default)]
    pub(super) said: Said,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DescribedSeed {
    Sql(DescribedText),
    Rust { name: String, revision: u32, properties: Vec<String> },
}

/// What a migration says about how it is run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Said {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_transaction: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    implied: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock_timeout: Option<Duration>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    requires: Vec<(String, String)>,
}

impl From<&Annotations> for Said {
    fn from(annotations: &Annotations) -> Self {
        let Annotations { no_transaction, implied, lock_timeout, requires } = annotations;
        let requires = requires.iter().map(|wanted| (wanted.set.clone(), wanted.version.clone())).collect();
        Self { no_transaction: *no_transaction, implied: *implied, lock_timeout: *lock_timeout, requires }
    }
}

impl From<&Said> for Annotations {
    fn from(said: &Said) -> Self {
        let wanted = |(set, version): &(String, String)| Requirement { set: set.clone(), version: version.clone() };
        let requires = said.requires.iter().map(wanted).collect();
        Self { no_transaction: said.no_transaction, implied: said.implied, lock_timeout: said.lock_timeout, requires }
    }
}

impl Description {
    /// Describes the sets of a program; with `texts` also what lies in files beside the manifest.
    pub(crate) fn of(service: &str, path: &SetPath, texts: bool) -> Self {
        let own = path.sets().len() - 1;
        let described = |(at, set)| Described::of(set, texts || at != own);
        Self {
            service: service.to_owned(),
            tool: TOOL.to_owned(),
            sets: path.sets().iter().enumerate().map(described).collect(),
        }
    }

    /// Returns whether the program has a set of that name.
    pub fn has(&self, set: &str) -> bool {
        self.sets.iter().any(|described| described.name == set)
    }

    /// Puts what only the program has among what was read from files.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Program`] when the two disagree, with each difference.
    pub fn join(&self, files: &SetPath, program: &Path) -> Result<SetPath, Error> {
        let service = &files.own().name;
        let refused = |why: &str| Error::new(ErrorKind::Program, format!("cannot use the program of {service}: {why}"));
        if self.service != *service {
            return Err(refused("it is another service's")
                .cause(format!("{} says that it is {}", program.display(), self.service))
                .hinted(format!("name the program of {service} in the manifest, or the service in its code")));
        }
        let mut differences = Vec::new();
        let mut sets = Vec::with_capacity(self.sets.len());
        let properties = &files.own().seeds.properties;
        for described in &self.sets {
            sets.push(match files.find(&described.name) {
                Some(set) => {
                    described.compare(set, &mut differences);
                    let mut set = set.clone();
                    described.add_code(&mut set)?;
                    set
                }
                None => described.set(properties)?,
            });
        }
        for set in files.sets().iter().filter(|set| self.sets.iter().all(|known| known.name != set.name)) {
            differences.push(format!("the module {}: not in the program", set.name));
        }
        if !differences.is_empty() {
            let error = refused("it was built from other files").cause(program.display().to_string());
            return Err(with_differences(error, differences)
                .hinted("build the program again (`cargo build`), or deploy the one that belongs to them"));
        }
        match sets.pop() {
            Some(own) => SetPath::new(sets, own),
            None => Err(refused("it has no set")),
        }
    }
}

impl Described {
    fn of(set: &Set, texts: bool) -> Self {
        let migration = |file: &MigrationFile| DescribedMigration {
            version: file.version.to_string(),
            description: file.description.clone(),
            said: Said::from(&file.annotations),
            down_said: Said::from(&file.down_annotations),
            what: What::of(set, file, texts),
        };
        let repeatable = |file: &Repeatable| DescribedText {
            name: file.description.clone(),
            checksum: file.checksum(),
            text: texts.then(|| file.script.text.clone()),
            said: Said::from(&file.annotations),
            after: file.after.clone(),
        };
        let seed = |file: &SeedFile| match &file.code {
            Some(code) => DescribedSeed::Rust {
                name: file.name.clone(),
                revision: code.revision(),
                properties: file.properties.clone(),
            },
            None => DescribedSeed::Sql(DescribedText {
                name: file.name.clone(),
                checksum: checksum::checksum(&file.script.text),
                text: texts.then(|| file.script.text.clone()),
                said: Said::default(),
                after: None,
            }),
        };
        Self {
            name: set.name.clone(),
            history: (set.history.schema.clone(), set.history.table.clone()),
            schema: set.schema.clone(),
            layout: set.layout.name().to_owned(),
            migrations: set.migrations.iter().map(migration).collect(),
            repeatables: set.repeatables.iter().map(repeatable).collect(),
            seeds: set.seeds.files.iter().map(seed).collect(),
        }
    }

    /// Names what the files and the program do not have in common.
    fn compare(&self, set: &Set, differences: &mut Vec<String>) {
        let history = HistoryTable::at(&self.name, &self.history.0, &self.history.1);
        if history.quoted() != set.history.quoted() {
            let (theirs, ours) = (history.quoted(), set.history.quoted());
            differences.push(format!("the history of {} is {ours} here and {theirs} in the program", self.name));
        }
        if self.schema != set.schema {
            let word = |schema: &Option<String>| schema.clone().unwrap_or_else(|| "the service's".to_owned());
            let (theirs, ours) = (word(&self.schema), word(&set.schema));
            differences.push(format!("the schema of {} is {ours} here and {theirs} in the program", self.name));
        }
        for file in set.migrations.iter() {
            let theirs = self.migrations.iter().find(|known| known.is(&file.version, set.layout));
            let path = file.up.path.display();
            match theirs.map(|known| &known.what) {
                Some(What::Sql { checksum, down, .. }) => {
                    if *checksum != file.checksum() || *down != down_checksum(file) {
                        differences.push(format!("{path}: another text in the program"));
                    }
                }
                Some(_) => differences.push(format!("{path}: the program has Rust of this version")),
                None => differences.push(format!("{path}: not in the program")),
            }
        }
        for known in &self.migrations {
            let is_file = matches!(known.what, What::Sql { .. });
            if is_file && !set.migrations.iter().any(|file| known.is(&file.version, set.layout)) {
                differences.push(format!("{}: in the program only", known.label(set)));
            }
        }
        let ours: Vec<_> = set
            .repeatables
            .iter()
            .map(|file| (file.description.clone(), file.checksum(), file.script.path.clone()))
            .collect();
        let theirs: Vec<&DescribedText> = self.repeatables.iter().collect();
        compare_texts(&ours, &theirs, &|name| set.folder.join(format!("R__{name}.sql")), differences);
        let files = set.seeds.files.iter().filter(|file| file.code.is_none());
        let ours: Vec<_> = files
            .map(|file| (file.name.clone(), checksum::checksum(&file.script.text), file.script.path.clone()))
            .collect();
        let theirs = self.seeds.iter().filter_map(|seed| match seed {
            DescribedSeed::Sql(text) => Some(text),
            DescribedSeed::Rust { .. } => None,
        });
        let theirs: Vec<&DescribedText> = theirs.collect();
        compare_texts(&ours, &theirs, &|name| PathBuf::from(format!("the seed {name}.sql")), differences);
    }

    /// Puts what is Rust into a set of files.
    fn add_code(&self, set: &mut Set) -> Result<(), Error> {
        for known in &self.migrations {
            let Some(step) = known.step()? else { continue };
            // A version that is a file too was named as a difference.
            if !set.migrations.iter().any(|file| known.is(&file.version, set.layout)) {
                set.insert(step)?;
            }
        }
        for seed in &self.seeds {
            if let DescribedSeed::Rust { name, revision, properties } = seed {
                set.seeds.insert(name, properties, Code::elsewhere(*revision, false))?;
            }
        }
        Ok(())
    }

    /// Makes the whole set, for a module of which there are no files here.
    fn set(&self, properties: &BTreeMap<String, String>) -> Result<Set, Error> {
        let mut set = Set::from_migrations(&self.name, Vec::new());
        set.history = HistoryTable::at(&self.name, &self.history.0, &self.history.1);
        set.schema.clone_from(&self.schema);
        set.layout = self.layout.parse::<Layout>().unwrap_or(Layout::Pgfleet);
        for known in &self.migrations {
            if let What::Sql { texts: Some(texts), .. } = &known.what {
                set.insert(Step { file: known.file(texts, "")?, code: None })?;
            }
        }
        // These were files, though not here.
        set.recorded.clear();
        for known in &self.repeatables {
            let path = PathBuf::from(format!("{}/R__{}.sql", self.name, known.name));
            let script = Script::from_text(path, known.text.clone().unwrap_or_default());
            Arc::make_mut(&mut set.repeatables).push(Repeatable {
                description: known.name.clone(),
                script,
                annotations: Annotations::from(&known.said),
                after: known.after.clone(),
            });
        }
        let texts = self.seeds.iter().filter_map(|seed| match seed {
            DescribedSeed::Sql(text) => Some((text.name.as_str(), text.text.as_deref().unwrap_or_default())),
            DescribedSeed::Rust { .. } => None,
        });
        set.seeds = Seeds::from_files(Path::new(&self.name), texts, properties.clone());
        self.add_code(&mut set)?;
        Ok(set)
    }
}

impl What {
    fn of(set: &Set, file: &MigrationFile, texts: bool) -> Self {
        let both = || Texts { up: file.up.text.clone(), down: file.down.as_ref().map(|script| script.text.clone()) };
        match set.code_of(file) {
            Some(code) if code.is_backfill() => {
                Self::Backfill { revision: code.revision(), reversible: file.down.is_some() }
            }
            Some(code) => Self::Live { revision: code.revision(), reversible: file.down.is_some() },
            None if set.recorded.contains(&file.version) => Self::Recorded(both()),
            None => Self::Sql { checksum: file.checksum(), down: down_checksum(file), texts: texts.then(both) },
        }
    }
}

impl DescribedMigration {
    fn is(&self, version: &Version, layout: Layout) -> bool {
        layout.version(&self.version).is_ok_and(|own| own == *version)
    }

    fn label(&self, set: &Set) -> String {
        set.folder.join(format!("{}_{}", self.version, self.description.replace(' ', "_"))).display().to_string()
    }

    /// Makes the step of what is Rust; none for a file.
    fn step(&self) -> Result<Option<Step>, Error> {
        let (revision, reversible, batches) = match &self.what {
            What::Sql { .. } => return Ok(None),
            What::Recorded(texts) => return Ok(Some(Step { file: self.file(texts, " (Rust)")?, code: None })),
            What::Live { revision, reversible } => (*revision, *reversible, false),
            What::Backfill { revision, reversible } => (*revision, *reversible, true),
        };
        let id = format!("{}_{}", self.version, self.description);
        let requires: Vec<String> =
            self.said.requires.iter().map(|(set, version)| format!("{set}@{version}")).collect();
        let file = code_file(&id, revision, &requires, self.said.lock_timeout, reversible)?;
        Ok(Some(Step { file, code: Some(Code::elsewhere(revision, batches)) }))
    }

    /// Makes a file of texts.
    fn file(&self, texts: &Texts, mark: &str) -> Result<MigrationFile, Error> {
        let id = format!("{}_{}", self.version, self.description);
        let version = self
            .version
            .parse()
            .map_err(|_| Error::new(ErrorKind::Program, format!("cannot use the migration {id} of the program")))?;
        let down = texts.down.clone().map(|text| Script::from_text(format!("{id}.down{mark}"), text));
        Ok(MigrationFile {
            version,
            description: self.description.clone(),
            up: Script::from_text(format!("{id}{mark}"), texts.up.clone()),
            kind: if down.is_some() { Kind::Reversible } else { Kind::Forward },
            down,
            annotations: Annotations::from(&self.said),
            down_annotations: Annotations::from(&self.down_said),
        })
    }
}

/// Adds differences to an error, the first of them by name.
pub(super) fn with_differences(mut error: Error, differences: Vec<String>) -> Error {
    let more = differences.len().saturating_sub(SHOWN);
    for difference in differences.into_iter().take(SHOWN) {
        error = error.cause(difference);
    }
    if more > 0 {
        error = error.cause(format!("and {more} more"));
    }
    error
}

fn down_checksum(file: &MigrationFile) -> Option<String> {
    file.down.as_ref().map(|script| checksum::with_annotations(&script.text, &file.down_annotations))
}

/// Compares texts that are known by their names; `ours` with checksum and path.
fn compare_texts(
    ours: &[(String, String, PathBuf)],
    theirs: &[&DescribedText],
    path_of: &dyn Fn(&str) -> PathBuf,
    differences: &mut Vec<String>,
) {
    for (name, checksum, path) in ours {
        match theirs.iter().find(|known| known.name == *name) {
            Some(known) if known.checksum == *checksum => {}
            Some(_) => differences.push(format!("{}: another text in the program", path.display())),
            None => differences.push(format!("{}: not in the program", path.display())),
        }
    }
    for known in theirs.iter().filter(|known| !ours.iter().any(|(name, ..)| *name == known.name)) {
        differences.push(format!("{}: in the program only", path_of(&known.name).display()));
    }
}

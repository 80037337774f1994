//! Whether a program is still the one that was recorded.

use std::path::Path;

use crate::error::{Error, ErrorKind};
use crate::worker::describe::{Described, DescribedMigration, DescribedSeed, Description, What, with_differences};

impl Description {
    /// Checks that a program has exactly what was recorded of it: every text, and every name and
    /// revision of what is Rust. With which pgfleet either was built does not count.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Program`] with each difference.
    pub fn check(&self, recorded: &Self, program: &Path) -> Result<(), Error> {
        let differences = recorded.differences(self);
        if differences.is_empty() {
            return Ok(());
        }
        let why = format!("cannot use the program of {}: it is not the one that was recorded", recorded.service);
        let error = Error::new(ErrorKind::Program, why).cause(program.display().to_string());
        Err(with_differences(error, differences).hinted("deploy the program that was built from the same sources"))
    }

    /// Names what a recorded program and a present one do not have in common.
    fn differences(&self, present: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.service != present.service {
            found.push(format!("it says that it is {}", present.service));
            return found;
        }
        if self.sets == present.sets {
            return found;
        }
        let names = |description: &Self| description.sets.iter().map(|set| set.name.clone()).collect::<Vec<_>>();
        let (recorded, now) = (names(self), names(present));
        if recorded != now {
            found.push(format!("sets {} recorded, {} in the program", recorded.join(", "), now.join(", ")));
        }
        for (at, set) in self.sets.iter().enumerate() {
            // The service's own comes last and needs no name.
            let prefix = if at + 1 == self.sets.len() { String::new() } else { format!("{}/", set.name) };
            if let Some(other) = present.sets.iter().find(|other| other.name == set.name) {
                set.differences(other, &prefix, &mut found);
            }
        }
        found
    }
}

impl Described {
    fn differences(&self, present: &Self, prefix: &str, found: &mut Vec<String>) {
        let name = &self.name;
        if self.history != present.history {
            let [recorded, now] = [&self.history, &present.history].map(|(schema, table)| format!("{schema}.{table}"));
            found.push(format!("the history of {name}: {recorded} recorded, {now} in the program"));
        }
        if self.schema != present.schema {
            let word = |schema: &Option<String>| schema.clone().unwrap_or_else(|| "the service's".to_owned());
            let (recorded, now) = (word(&self.schema), word(&present.schema));
            found.push(format!("the schema of {name}: {recorded} recorded, {now} in the program"));
        }
        if self.layout != present.layout {
            found.push(format!("the layout of {name}: {} recorded, {} in the program", self.layout, present.layout));
        }
        let migrations = |set: &Self| -> Vec<Piece> { set.migrations.iter().map(Piece::from).collect() };
        compare(&migrations(self), &migrations(present), prefix, found);
        let repeatables = |set: &Self| -> Vec<Piece> {
            let piece = |text: &super::describe::DescribedText| Piece {
                name: format!("R__{}", text.name),
                content: format!("{} {:?}", text.checksum, text.said),
                revision: None,
            };
            set.repeatables.iter().map(piece).collect()
        };
        compare(&repeatables(self), &repeatables(present), prefix, found);
        let seeds = |set: &Self| -> Vec<Piece> { set.seeds.iter().map(Piece::from).collect() };
        compare(&seeds(self), &seeds(present), prefix, found);
    }
}

/// One migration, repeatable or seed, as far as it can differ.
struct Piece {
    name: String,
    content: String,
    /// Of what is Rust, whose content is not known.
    revision: Option<u32>,
}

impl From<&DescribedMigration> for Piece {
    fn from(migration: &DescribedMigration) -> Self {
        let DescribedMigration { version, description, said, down_said, what } = migration;
        let (content, revision) = match what {
            What::Sql { checksum, down, .. } => (format!("sql {checksum} {down:?}"), None),
            What::Recorded(texts) => (format!("recorded {texts:?}"), None),
            What::Live { revision, reversible } => (format!("live {reversible}"), Some(*revision)),
            What::Backfill { revision, reversible } => (format!("backfill {reversible}"), Some(*revision)),
        };
        let content = format!("{content} {said:?} {down_said:?}");
        Self { name: format!("{version}_{description}"), content, revision }
    }
}

impl From<&DescribedSeed> for Piece {
    fn from(seed: &DescribedSeed) -> Self {
        match seed {
            DescribedSeed::Sql(text) => {
                Self { name: format!("the seed {}", text.name), content: text.checksum.clone(), revision: None }
            }
            DescribedSeed::Rust { name, revision, properties } => Self {
                name: format!("the seed {name}"),
                content: format!("rust {properties:?}"),
                revision: Some(*revision),
            },
        }
    }
}

fn compare(recorded: &[Piece], present: &[Piece], prefix: &str, found: &mut Vec<String>) {
    for piece in recorded {
        let name = format!("{prefix}{}", piece.name);
        let Some(other) = present.iter().find(|other| other.name == piece.name) else {
            found.push(format!("{name}: not in the program"));
            continue;
        };
        match (piece.revision, other.revision) {
            (Some(was), Some(is)) if was != is => {
                found.push(format!("{name}: revision {was} recorded, {is} in the program"));
            }
            _ if piece.content != other.content => found.push(format!("{name}: another one in the program")),
            _ => {}
        }
    }
    for piece in present.iter().filter(|piece| !recorded.iter().any(|other| other.name == piece.name)) {
        found.push(format!("{prefix}{}: in the program only", piece.name));
    }
}

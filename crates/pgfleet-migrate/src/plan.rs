//! What is to be done: the files against the history, without touching anything.

use std::collections::BTreeMap;

use pgfleet_sql::layout::MigrationFile;
use pgfleet_sql::version::Version;
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::history::Row;
use crate::options::{OnAhead, OnChanged, OnOutOfOrder, Options};
use crate::set::Set;

/// The state of one migration in one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Has a file and is not applied.
    Pending,
    /// Applied, and the file means what was applied.
    Applied,
    /// A repeatable whose content changed since it was applied.
    RepeatableChanged,
    /// Applied, and the file means something else now.
    Edited,
    /// Applied, below the newest known version, and has no file.
    Missing,
    /// Applied, above the newest known version.
    Ahead,
    /// Not applied, and below the newest applied version.
    OutOfOrder,
    /// Without a transaction, stopped in the middle.
    Interrupted,
}

/// One migration with its state.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// The version as written.
    pub version: String,
    /// The description.
    pub description: String,
    /// The state.
    pub state: State,
    /// When it was applied, in UTC.
    pub applied_at: Option<String>,
    /// Whether it can be reverted.
    pub reversible: bool,
    /// The version as the history has it, which may have other leading zeros than the file.
    #[serde(skip)]
    pub(crate) recorded: Option<String>,
}

impl Entry {
    /// Returns `<version>_<description>`, or the name of a repeatable.
    pub fn label(&self) -> String {
        if self.description.is_empty() || self.version.starts_with("R__") {
            return self.version.clone();
        }
        format!("{}_{}", self.version, self.description)
    }
}

/// One step to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Index into [`Set::migrations`].
    Migration(usize),
    /// Index into [`Set::repeatables`].
    Repeatable(usize),
}

/// What is to be done in one target.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Every migration of the set and of the history, in order.
    pub entries: Vec<Entry>,
    /// What will be applied, in order.
    pub(crate) steps: Vec<Step>,
    /// Things worth knowing that stop nothing.
    pub notes: Vec<String>,
    /// The newest applied version.
    pub current: Option<String>,
}

impl Plan {
    /// Compares the files of a set with its history.
    ///
    /// Pure: reads nothing but its arguments. The bytes of a file are hashed first and its tokens
    /// only when the bytes changed, so that a set where nothing changed costs next to nothing.
    pub fn new(set: &Set, rows: &[Row], options: &Options) -> Self {
        let mut applied: BTreeMap<Version, &Row> = BTreeMap::new();
        let mut repeated: BTreeMap<&str, &Row> = BTreeMap::new();
        let mut notes = set.notes.clone();
        for row in rows {
            match row.parsed() {
                Some(version) => {
                    applied.insert(version, row);
                }
                None if row.is_repeatable() => {
                    repeated.insert(&row.version, row);
                }
                None => {
                    notes.push(format!("{} holds a version that is no number: {}", set.history.quoted(), row.version));
                }
            }
        }
        let newest_known = set.newest().cloned();
        let newest_applied = applied.keys().next_back().cloned();
        let current = newest_applied.as_ref().map(|version| applied[version].version.clone());

        let mut entries: BTreeMap<Version, (Entry, Option<usize>)> = BTreeMap::new();
        for (index, migration) in set.migrations.iter().enumerate() {
            let row = applied.remove(&migration.version);
            let state = match row {
                Some(row) => compare(migration, row, &mut notes),
                None if newest_applied.as_ref().is_some_and(|newest| migration.version < *newest) => State::OutOfOrder,
                None => State::Pending,
            };
            let entry = Entry {
                version: migration.version.to_string(),
                description: migration.description.clone(),
                state,
                applied_at: row.map(|row| row.applied_at.clone()),
                reversible: migration.down.is_some() || row.is_some_and(|row| row.reversible),
                recorded: row.map(|row| row.version.clone()),
            };
            entries.insert(migration.version.clone(), (entry, Some(index)));
        }
        for (version, row) in applied {
            let ahead = newest_known.as_ref().is_none_or(|newest| version > *newest);
            let entry = Entry {
                version: row.version.clone(),
                description: row.description.clone(),
                state: if ahead { State::Ahead } else { State::Missing },
                applied_at: Some(row.applied_at.clone()),
                reversible: row.reversible,
                recorded: Some(row.version.clone()),
            };
            entries.insert(version, (entry, None));
        }

        let mut steps = Vec::new();
        for (version, (entry, index)) in &entries {
            let wanted = match entry.state {
                State::Pending => true,
                State::OutOfOrder => options.on_out_of_order == OnOutOfOrder::Apply,
                _ => false,
            };
            if wanted && options.to.as_ref().is_none_or(|to| version <= to) {
                steps.extend(index.map(Step::Migration));
            }
        }
        let mut entries: Vec<Entry> = entries.into_values().map(|(entry, _)| entry).collect();
        for (index, repeatable) in set.repeatables.iter().enumerate() {
            let name = format!("R__{}", repeatable.description);
            let row = repeated.remove(name.as_str());
            let state = match row {
                None => State::Pending,
                Some(row) if row.raw_hash == repeatable.script.bytes_hash => State::Applied,
                Some(row) if row.checksum == repeatable.checksum() => State::Applied,
                Some(_) => State::RepeatableChanged,
            };
            if state != State::Applied && options.to.is_none() {
                steps.push(Step::Repeatable(index));
            }
            entries.push(Entry {
                version: name,
                description: repeatable.description.clone(),
                state,
                applied_at: row.map(|row| row.applied_at.clone()),
                reversible: false,
                recorded: row.map(|row| row.version.clone()),
            });
        }
        Self { entries, steps, notes, current }
    }

    /// Returns whether nothing is to be applied.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the labels of what would be applied, in order.
    pub fn pending(&self, set: &Set) -> Vec<String> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Migration(index) => set.migrations[*index].label(),
                Step::Repeatable(index) => format!("R__{}", set.repeatables[*index].description),
            })
            .collect()
    }

    /// Returns the scripts that would be applied, in order, with their labels.
    pub fn pending_scripts<'a>(&self, set: &'a Set) -> Vec<(String, &'a str)> {
        self.steps
            .iter()
            .zip(self.pending(set))
            .map(|(step, label)| match step {
                Step::Migration(index) => (label, set.migrations[*index].up.text.as_str()),
                Step::Repeatable(index) => (label, set.repeatables[*index].script.text.as_str()),
            })
            .collect()
    }

    /// Returns the labels of the entries in a state.
    pub fn in_state(&self, state: State) -> Vec<String> {
        self.entries.iter().filter(|entry| entry.state == state).map(Entry::label).collect()
    }

    /// Applies the user's choices to what was found.
    ///
    /// # Errors
    ///
    /// An edited, missing, out-of-order or unknown migration that the options do not allow; each is
    /// named.
    pub fn check(&mut self, set: &Set, target: &str, options: &Options) -> Result<(), Error> {
        if let Some(to) = &options.to
            && set.find(to).is_none()
        {
            return Err(Error::new(ErrorKind::Findings, format!("cannot migrate {target} to {to}"))
                .cause(format!("{} has no migration {to}", set.name))
                .hinted(set.newest().map_or_else(
                    || format!("{} holds no migrations", set.folder.display()),
                    |newest| format!("the newest is {newest}"),
                )));
        }
        let refuse = |what: &str, labels: &[String], hint: String| {
            let mut error = Error::new(ErrorKind::Findings, format!("cannot migrate {target}: {what}"));
            for label in labels {
                error = error.cause(label.clone());
            }
            Err(error.hinted(hint))
        };
        let edited = self.in_state(State::Edited);
        let missing = self.in_state(State::Missing);
        let out_of_order = self.in_state(State::OutOfOrder);
        let ahead = self.in_state(State::Ahead);
        if !edited.is_empty() {
            if options.on_changed == OnChanged::Error {
                return refuse(
                    "an applied migration was edited",
                    &edited,
                    "put the file back and write the change as a new migration (`pgfleet migration new`), or set \
                     on_changed = \"warn\""
                        .to_owned(),
                );
            }
            self.notes.extend(edited.iter().map(|label| format!("{label} was edited after it was applied")));
        }
        if !missing.is_empty() {
            if options.on_missing == OnChanged::Error {
                return refuse(
                    "an applied migration has no file",
                    &missing,
                    format!("put the file back into {}, or set on_missing = \"warn\"", set.folder.display()),
                );
            }
            self.notes.extend(missing.iter().map(|label| format!("{label} is applied and has no file")));
        }
        if !out_of_order.is_empty() && options.on_out_of_order == OnOutOfOrder::Error {
            let newest = self.current.clone().unwrap_or_default();
            return refuse(
                &format!("a migration is older than {newest}, which is applied"),
                &out_of_order,
                "give it a newer version, or set on_out_of_order = \"apply\"".to_owned(),
            );
        }
        if !ahead.is_empty() {
            if options.on_ahead == OnAhead::Error {
                return refuse(
                    "the database is ahead of the files",
                    &ahead,
                    "deploy the version that has these files, or set on_ahead = \"run\"".to_owned(),
                );
            }
            self.notes.push(format!("the database is ahead of the files: {}", ahead.join(", ")));
        }
        Ok(())
    }
}

/// Says whether a file still means what was applied.
fn compare(migration: &MigrationFile, row: &Row, notes: &mut Vec<String>) -> State {
    // A row written by hand, or taken over from another tool, has nothing to compare with.
    if row.checksum.is_empty() || row.raw_hash == migration.up.bytes_hash {
        return State::Applied;
    }
    if migration.checksum() == row.checksum {
        notes.push(format!("{}: only comments or layout changed since it was applied", migration.label()));
        return State::Applied;
    }
    State::Edited
}

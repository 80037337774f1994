//! What is to be done: the files against the history, without touching anything.

use std::collections::BTreeMap;

use pgfleet_sql::layout::MigrationFile;
use pgfleet_sql::version::Version;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::history::Row;
use crate::options::{OnAhead, OnChanged, OnOutOfOrder, Options};
use crate::set::Set;

/// The state of one migration in one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// The set, where it is not the service's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
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
    /// Returns `<version>_<description>`, or the name of a repeatable; another set's with its name.
    pub fn label(&self) -> String {
        match &self.set {
            Some(set) => format!("{set}/{}", self.own_label()),
            None => self.own_label(),
        }
    }

    fn own_label(&self) -> String {
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
            match row.parsed(set.layout) {
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
                set: None,
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
                set: None,
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
                set: None,
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

    /// Marks those that an earlier run left half done.
    pub(crate) fn mark_interrupted(&mut self, stopped: &[(String, i32)]) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state == State::Pending) {
            if stopped.iter().any(|(version, _)| *version == entry.version) {
                entry.state = State::Interrupted;
            }
        }
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use pgfleet_sql::annotation::Annotations;
    use pgfleet_sql::layout::{Kind, Script};
    use proptest::prelude::*;

    use super::*;

    /// A file: its version and what is in it.
    type Files = BTreeMap<u8, u8>;
    /// A row: what was in the file, or nothing when it was written by hand.
    type Rows = BTreeMap<u8, Option<u8>>;

    fn migration(version: u8, content: u8) -> MigrationFile {
        MigrationFile {
            // Leading zeros, so that file and row are the same number in other words.
            version: format!("{version:03}").parse().unwrap(),
            description: "m".to_owned(),
            up: Script::from_text("m.sql", format!("select {content};")),
            down: None,
            annotations: Annotations::default(),
            down_annotations: Annotations::default(),
            kind: Kind::Forward,
        }
    }

    fn set(files: &Files) -> Set {
        Set::from_migrations("s", files.iter().map(|(version, content)| migration(*version, *content)).collect())
    }

    fn rows(rows: &Rows) -> Vec<Row> {
        rows.iter()
            .map(|(version, content)| {
                let file = content.map(|content| migration(*version, content));
                Row {
                    version: version.to_string(),
                    description: "m".to_owned(),
                    checksum: file.as_ref().map(MigrationFile::checksum).unwrap_or_default(),
                    raw_hash: file.map(|file| file.up.bytes_hash).unwrap_or_default(),
                    applied_at: String::new(),
                    reversible: false,
                    run: String::new(),
                    announced: false,
                }
            })
            // The history has no order of its own.
            .rev()
            .collect()
    }

    /// What each version's state is, said in one sentence each.
    fn model(files: &Files, rows: &Rows) -> BTreeMap<u8, State> {
        let newest_row = rows.keys().max();
        let newest_file = files.keys().max();
        let all: BTreeSet<u8> = files.keys().chain(rows.keys()).copied().collect();
        all.into_iter()
            .map(|version| {
                let state = match (files.get(&version), rows.get(&version)) {
                    (Some(_), None) if newest_row.is_some_and(|newest| version < *newest) => State::OutOfOrder,
                    (Some(_), None) => State::Pending,
                    (Some(file), Some(Some(row))) if file != row => State::Edited,
                    (Some(_), Some(_)) => State::Applied,
                    (None, _) if newest_file.is_none_or(|newest| version > *newest) => State::Ahead,
                    (None, _) => State::Missing,
                };
                (version, state)
            })
            .collect()
    }

    fn planned(plan: &Plan, set: &Set) -> Vec<u8> {
        let number = |step: &Step| match step {
            Step::Migration(index) => set.migrations[*index].version.as_str().parse().unwrap(),
            Step::Repeatable(_) => unreachable!("the set has none"),
        };
        plan.steps.iter().map(number).collect()
    }

    proptest! {
        #[test]
        fn a_plan_is_what_a_simple_model_says(
            files in prop::collection::btree_map(0..12_u8, 0..2_u8, 0..8),
            history in prop::collection::btree_map(0..12_u8, prop::option::of(0..2_u8), 0..8),
            apply_late in any::<bool>(),
            to in prop::option::of(0..12_u8),
        ) {
            let set = set(&files);
            let options = Options {
                on_out_of_order: if apply_late { OnOutOfOrder::Apply } else { OnOutOfOrder::Error },
                to: to.map(|to| to.to_string().parse().unwrap()),
                ..Options::default()
            };
            let mut plan = Plan::new(&set, &rows(&history), &options);
            let states: BTreeMap<u8, State> =
                plan.entries.iter().map(|entry| (entry.version.parse().unwrap(), entry.state)).collect();
            let expected = model(&files, &history);
            prop_assert_eq!(&states, &expected);
            prop_assert_eq!(states.len(), plan.entries.len());

            let steps = planned(&plan, &set);
            let wanted: Vec<u8> = expected
                .iter()
                .filter(|(_, state)| {
                    **state == State::Pending || (apply_late && **state == State::OutOfOrder)
                })
                .map(|(version, _)| *version)
                .filter(|version| to.is_none_or(|to| *version <= to))
                .collect();
            prop_assert_eq!(&steps, &wanted);
            prop_assert!(steps.is_sorted());
            prop_assert!(steps.iter().all(|version| !history.contains_key(version)), "applied again");
            let newest = history.keys().max().map(ToString::to_string);
            prop_assert_eq!(&plan.current, &newest);

            // A plan that passes its check and is carried out leaves nothing to do.
            if plan.check(&set, "t", &options).is_ok() && to.is_none() {
                prop_assert!(!states.values().any(|state| matches!(state, State::Edited | State::Missing)));
                let mut after = history.clone();
                after.extend(steps.iter().map(|version| (*version, Some(files[version]))));
                prop_assert!(Plan::new(&set, &rows(&after), &options).is_empty());
            }
        }
    }
}

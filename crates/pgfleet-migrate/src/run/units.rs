//! The units of work that are pending, in their order.

use super::Run;
use super::look::{Looked, stopped_in_the_middle};

use crate::error::Error;
use crate::history::Record;
use crate::options::Options;
use crate::plan::Step;
use crate::set::Set;
use crate::target::Target;
use crate::unit::{Action, Draft, Unit};

impl Run<'_> {
    /// Makes everything ready that will be applied.
    ///
    /// `interrupted`: files without a transaction that stopped, by set and version.
    pub(super) fn units<'b>(
        &'b self,
        looked: &Looked,
        interrupted: &[(usize, String, i32)],
    ) -> Result<Vec<Unit<'b>>, Error> {
        let mut units = Vec::with_capacity(looked.plan.order.len() + looked.seeds.len());
        for &(at, step) in &looked.plan.order {
            let set = &self.path.sets()[at];
            let mut unit = match step {
                Step::Migration(index) => {
                    let migration = &set.migrations[index];
                    let version = migration.version.to_string();
                    if migration.annotations.no_transaction
                        && let Some((.., done)) =
                            interrupted.iter().find(|(of, found, _)| *of == at && *found == version)
                    {
                        return Err(stopped_in_the_middle(
                            Action::Apply,
                            &self.path.label(at, &migration.label()),
                            &version,
                            self.target,
                            set,
                            *done,
                        ));
                    }
                    migration_unit(set, migration, self.target, self.options, &self.id)?
                }
                Step::Repeatable(index) => self.repeatable_unit(set, index)?,
            };
            unit.label = self.path.label(at, &unit.label);
            units.push(unit);
        }
        for &(at, index) in &looked.seeds {
            let set = &self.path.sets()[at];
            let seed = &set.seeds.files[index];
            let mut unit = Unit::new(Draft {
                action: Action::Seed,
                set,
                label: self.path.label(at, &seed.name),
                version: seed.name.clone(),
                description: String::new(),
                script: &seed.script,
                code: seed.code.as_ref(),
                style: pgfleet_sql::placeholder::Style::Psql,
                values: &set.seeds.properties,
                no_transaction: false,
                lock_timeout: self.options.lock_timeout,
                target: &self.target.name,
            })?;
            let guest = self.target.guest();
            unit.record = set.history.seed_sql(&seed.name, &seed.checksum, guest, &self.options.who, &self.id);
            units.push(unit);
        }
        Ok(units)
    }

    pub(super) fn repeatable_unit<'b>(&'b self, set: &'b Set, index: usize) -> Result<Unit<'b>, Error> {
        let repeatable = &set.repeatables[index];
        let name = format!("R__{}", repeatable.description);
        let script = &repeatable.script;
        let mut unit = Unit::new(Draft {
            action: Action::Apply,
            set,
            label: name.clone(),
            version: name,
            description: repeatable.description.clone(),
            script,
            code: None,
            style: set.placeholder_style(),
            values: &set.placeholders,
            no_transaction: repeatable.annotations.no_transaction,
            lock_timeout: self.options.lock_timeout_of(&repeatable.annotations),
            target: &self.target.name,
        })?;
        let record = Record {
            version: &unit.version,
            description: &repeatable.description,
            checksum: &repeatable.checksum(),
            raw_hash: &script.bytes_hash,
            sql: &script.text,
            down: None,
        };
        unit.record = set.history.insert_sql(&record, &self.options.who, &self.id, true);
        Ok(unit)
    }
}

/// Makes a migration ready to be applied.
pub(crate) fn migration_unit<'a>(
    set: &'a Set,
    migration: &'a pgfleet_sql::layout::MigrationFile,
    target: &Target,
    options: &Options,
    run: &str,
) -> Result<Unit<'a>, Error> {
    let mut unit = Unit::new(Draft {
        action: Action::Apply,
        set,
        code: set.code_of(migration),
        label: migration.label(),
        version: migration.version.to_string(),
        description: migration.description.clone(),
        script: &migration.up,
        style: set.placeholder_style(),
        values: &set.placeholders,
        no_transaction: migration.annotations.no_transaction,
        lock_timeout: options.lock_timeout_of(&migration.annotations),
        target: &target.name,
    })?;
    unit.record =
        set.history.insert_sql(&record_of(migration, &unit.version, &migration.checksum()), &options.who, run, false);
    Ok(unit)
}

/// What the record of a migration holds.
pub(crate) fn record_of<'a>(
    migration: &'a pgfleet_sql::layout::MigrationFile,
    version: &'a str,
    checksum: &'a str,
) -> Record<'a> {
    Record {
        version,
        description: &migration.description,
        checksum,
        raw_hash: &migration.up.bytes_hash,
        sql: &migration.up.text,
        down: migration.down.as_ref().map(|down| down.text.as_str()),
    }
}

/// Shows what changed between the applied text and the file, without the parts that are the same.
pub(crate) fn difference(applied: &str, present: &str) -> String {
    let diff = similar::TextDiff::from_lines(applied, present);
    let mut text = String::from("applied (-) and present (+) text differ:");
    let lines: Vec<String> =
        diff.unified_diff().context_radius(1).to_string().lines().map(|line| format!("\n    {line}")).collect();
    let shown = lines.len().min(40);
    text.extend(lines[..shown].iter().map(String::as_str));
    if shown < lines.len() {
        text.push_str(&format!("\n    … {} more lines", lines.len() - shown));
    }
    text
}

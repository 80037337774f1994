//! Mending what a run cannot mend by itself: files that stopped in the middle, and histories that do
//! not say what is.
//!
//! Every change is made under the database's lock, and in one transaction with a row of
//! `pgfleet.attempts` that says who made it.

use std::time::Instant;

use pgfleet_postgres::Connection;
use pgfleet_sql::layout::{MigrationFile, Script};
use pgfleet_sql::version::Version;
use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::event::Observer;
use crate::history::Row;
use crate::no_transaction::{Journal, checksum};
use crate::options::Options;
use crate::revert::{down_script, down_unit, label};
use crate::run::{Opened, difference, migration_unit, open, record_of, refuse_other_history};
use crate::set::Set;
use crate::store::{self, Standing, Stopped};
use crate::target::Target;
use crate::unit::Unit;
use crate::work::Work;

/// What is to be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// Goes on with a file without a transaction at the statement that did not finish.
    Resume,
    /// Forgets that a file without a transaction stopped: the next run begins it again.
    Reset,
    /// Records a migration as applied without running it.
    MarkApplied,
    /// Removes the record of an applied migration without undoing it.
    Forget,
    /// Takes the present file for what was applied.
    Accept,
}

impl Repair {
    /// Returns the word on the command line and in `pgfleet.attempts`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Resume => "resume",
            Self::Reset => "reset",
            Self::MarkApplied => "mark-applied",
            Self::Forget => "forget",
            Self::Accept => "accept",
        }
    }

    fn sentence(self, label: &str, target: &str) -> String {
        match self {
            Self::MarkApplied => format!("cannot mark {label} as applied in {target}"),
            _ => format!("cannot {} {label} in {target}", self.word()),
        }
    }
}

/// What was mended.
#[derive(Debug, Clone, Serialize)]
pub struct Repaired {
    /// The target's name.
    pub target: String,
    /// The set's name.
    pub set: String,
    /// What was done.
    pub action: Repair,
    /// The version.
    pub version: String,
    /// The migration's label.
    pub label: String,
    /// The statement that had not finished, counted from 1, for a file that stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<i32>,
    /// INVALID indexes that were dropped.
    pub dropped: Vec<String>,
    /// INVALID indexes that are left behind.
    pub left: Vec<String>,
    /// How the applied text and the file differ, for what was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
    /// Milliseconds in all.
    pub took_ms: u64,
}

/// What to do about a file without a transaction that is half done.
///
/// A service's own set is named as its target is; without a manifest the set and the database have
/// names of their own.
pub(crate) fn mend(version: &str, target: &str, set: &str) -> String {
    let place = if target == set { format!("--service {target}") } else { "--url URL --dir FOLDER".to_owned() };
    format!(
        "`pgfleet migration resume {version} {place}` goes on at that statement; `pgfleet migration reset {version} \
         {place}` lets the file begin again"
    )
}

/// Mends one thing in one target.
///
/// A dry run checks, says what would be done and changes nothing.
///
/// # Errors
///
/// [`ErrorKind::Findings`] when there is nothing to mend or it must not be mended so; for
/// [`Repair::Resume`] also what applying a migration fails with.
pub async fn repair(
    target: &Target,
    set: &Set,
    action: Repair,
    version: &Version,
    options: &Options,
    observer: &dyn Observer,
) -> Result<Repaired, Error> {
    target.refuse_shared(action.word())?;
    let began = Instant::now();
    let name = set.find(version).map_or_else(|| version.to_string(), MigrationFile::label);
    let Opened::Connected { connection, .. } = open(target, action.word(), false, options, observer).await? else {
        return Err(
            Error::new(ErrorKind::Findings, action.sentence(&name, &target.name)).cause("the database does not exist")
        );
    };
    let mending = Mending { connection: &connection, target, set, action, version, options, observer, name };
    let result = mending.mend().await;
    // Also frees the lock.
    connection.close().await;
    let mut repaired = result?;
    repaired.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(repaired)
}

struct Mending<'a> {
    connection: &'a Connection,
    target: &'a Target,
    set: &'a Set,
    action: Repair,
    version: &'a Version,
    options: &'a Options,
    observer: &'a dyn Observer,
    /// The label as far as it is known.
    name: String,
}

impl Mending<'_> {
    async fn mend(&self) -> Result<Repaired, Error> {
        if !self.options.dry_run {
            let lock = crate::lock::acquire(self.connection, self.target, self.options, self.observer, || async {
                Ok(None::<()>)
            });
            let held = lock.await?;
            debug_assert!(held.is_none(), "nothing settles a repair but the lock");
        }
        let history = &self.set.history;
        let rows = store::look(self.connection, history, None).await.map_err(|error| self.failed(error))?.rows;
        let has_history = rows.is_some();
        if !has_history {
            refuse_other_history(self.connection, self.target, self.set, self.action.word()).await?;
        }
        if (has_history || self.action == Repair::MarkApplied) && !self.options.dry_run {
            store::ensure(self.connection, history, store::Beside::REPAIR).await.map_err(|error| self.failed(error))?;
        }
        let rows = rows.unwrap_or_default();
        let row = rows.iter().find(|row| row.parsed(self.set.layout).as_ref() == Some(self.version));
        match self.action {
            Repair::Resume => self.resume(row, self.stopped(has_history).await?).await,
            Repair::Reset => match self.standing(has_history).await? {
                Some(standing) => self.reset_backfill(standing).await,
                None => self.reset(self.stopped(has_history).await?).await,
            },
            Repair::MarkApplied => self.mark_applied(row).await,
            Repair::Forget => self.forget(row).await,
            Repair::Accept => self.accept(row).await,
        }
    }

    async fn resume(&self, row: Option<&Row>, stopped: Stopped) -> Result<Repaired, Error> {
        let run = uuid::Uuid::now_v7().to_string();
        if stopped.action == "revert" {
            let Some(row) = row else {
                return Err(self.refused("its way back stopped, but it is not applied").hinted(self.reset_hint()));
            };
            let script: Script = down_script(self.connection, self.set, self.version, row, self.target, false).await?;
            let annotations = self.set.find(self.version).filter(|migration| migration.down.is_some());
            let annotations = annotations.map(|migration| &migration.down_annotations);
            let unit = down_unit(self.set, row, &script, annotations, self.target, self.options, &run)?;
            return self.go_on(unit, stopped, &run).await;
        }
        if row.is_some() {
            return Err(self.refused("it is recorded as applied").hinted(self.reset_hint()));
        }
        let migration = self.file()?;
        let unit = migration_unit(self.set, migration, self.target, self.options, &run)?;
        self.go_on(unit, stopped, &run).await
    }

    async fn go_on(&self, mut unit: Unit<'_>, stopped: Stopped, run: &str) -> Result<Repaired, Error> {
        if stopped.checksum.is_empty() {
            return Err(self
                .refused("it is not recorded what the file said when it stopped")
                .hinted(self.reset_hint()));
        }
        // Which statement is the one that stopped can be told in the same text only.
        if stopped.checksum != checksum(&unit) || !unit.no_transaction {
            return Err(self
                .refused("the file was edited after it stopped")
                .at(crate::set::place(unit.script, 0))
                .hinted(format!("put it back; or undo by hand what is applied of it, then {}", self.reset_hint())));
        }
        let history = &self.set.history;
        let message = format!("went on at statement {} of {}", stopped.statement, unit.statements.len());
        let deed = self.deed(&stopped.version, &stopped.description, &message, run);
        unit.record = format!("{}; {}; {deed}", unit.record, history.clear_sql(&stopped.version));
        let from = usize::try_from(stopped.statement - 1).unwrap_or(0).min(unit.statements.len());
        let mut repaired = self.repaired(&stopped.version, &unit.label);
        repaired.statement = Some(stopped.statement);
        if !self.options.dry_run {
            let work = Work {
                connection: self.connection,
                target: &self.target.name,
                tenant: self.target.tenant.as_deref(),
                schema: self.target.schema.as_deref(),
                options: self.options,
                run,
                observer: self.observer,
            };
            let journal = Journal { id: stopped.id, began: String::new(), invalid: stopped.invalid };
            repaired.dropped = work.go_on(&unit, journal, from).await?;
        }
        Ok(repaired)
    }

    async fn reset(&self, stopped: Stopped) -> Result<Repaired, Error> {
        let mut repaired = self.repaired(&stopped.version, &self.name);
        repaired.statement = Some(stopped.statement);
        let run = uuid::Uuid::now_v7().to_string();
        let work = Work {
            connection: self.connection,
            target: &self.target.name,
            tenant: self.target.tenant.as_deref(),
            schema: self.target.schema.as_deref(),
            options: self.options,
            run: &run,
            observer: self.observer,
        };
        repaired.left = work.invalid_indexes(&stopped.invalid, "").await.map_err(|error| self.failed(error))?;
        let mut message = format!("had stopped at statement {}", stopped.statement);
        if !stopped.message.is_empty() {
            message.push_str(&format!(": {}", stopped.message));
        }
        let deed = self.deed(&stopped.version, &stopped.description, &message, &run);
        self.commit(&[self.set.history.clear_sql(&stopped.version), deed]).await?;
        Ok(repaired)
    }

    /// Finds where a backfill stands that is not finished.
    async fn standing(&self, has_history: bool) -> Result<Option<Standing>, Error> {
        if !has_history {
            return Ok(None);
        }
        let standing = store::standing(self.connection, &self.set.history).await.map_err(|error| self.failed(error))?;
        Ok(standing
            .into_iter()
            .find(|standing| self.set.layout.version(&standing.version).ok().as_ref() == Some(self.version)))
    }

    async fn reset_backfill(&self, standing: Standing) -> Result<Repaired, Error> {
        let run = uuid::Uuid::now_v7().to_string();
        let message =
            format!("had done {} rows in {} batches, cursor {}", standing.rows, standing.batches, standing.cursor);
        let deed = self.deed(&standing.version, "", &message, &run);
        self.commit(&[self.set.history.end_backfill_sql(&standing.version), deed]).await?;
        Ok(self.repaired(&standing.version, &self.name))
    }

    async fn mark_applied(&self, row: Option<&Row>) -> Result<Repaired, Error> {
        if let Some(row) = row {
            return Err(self.refused(format!("it is applied since {}", row.applied_at)));
        }
        let migration = self.file()?;
        let version = migration.version.to_string();
        let run = uuid::Uuid::now_v7().to_string();
        let history = &self.set.history;
        let checksum = migration.checksum();
        let insert = history.insert_sql(&record_of(migration, &version, &checksum), &self.options.who, &run, false);
        let deed = self.deed(&version, &migration.description, "", &run);
        // Who says that it is applied has also finished what had stopped.
        let mut statements = vec![insert, history.clear_sql(&version), deed];
        if self.standing(true).await?.is_some() {
            statements.push(history.end_backfill_sql(&version));
        }
        self.commit(&statements).await?;
        Ok(self.repaired(&version, &self.name))
    }

    async fn forget(&self, row: Option<&Row>) -> Result<Repaired, Error> {
        let row = self.applied(row)?;
        let run = uuid::Uuid::now_v7().to_string();
        let history = &self.set.history;
        let message = format!("was applied at {}, checksum {}", row.applied_at, row.checksum);
        let deed = self.deed(&row.version, &row.description, &message, &run);
        // A way back that had stopped must not stop the way up.
        self.commit(&[history.delete_sql(&row.version), history.clear_sql(&row.version), deed]).await?;
        Ok(self.repaired(&row.version, &label(row)))
    }

    async fn accept(&self, row: Option<&Row>) -> Result<Repaired, Error> {
        let row = self.applied(row)?;
        let migration = self.file()?;
        let history = &self.set.history;
        let (applied, down) = store::texts(self.connection, history, &row.version)
            .await
            .map_err(|error| self.failed(error))?
            .unwrap_or_default();
        let checksum = migration.checksum();
        let record = record_of(migration, &row.version, &checksum);
        let same_down = down.as_deref() == record.down;
        let same = row.checksum == checksum && row.raw_hash == record.raw_hash && applied == record.sql;
        if same && same_down {
            return Err(self.refused("the file is what was applied"));
        }
        let mut shown = Vec::new();
        if applied != record.sql {
            shown.push(difference(&applied, record.sql));
        }
        if !same_down {
            let (before, now) = (down.unwrap_or_default(), record.down.unwrap_or_default());
            shown.push(format!("way back: {}", difference(&before, now)));
        }
        let shown = shown.join("\n");
        let run = uuid::Uuid::now_v7().to_string();
        let deed = self.deed(&row.version, &row.description, &shown, &run);
        self.commit(&[history.accept_sql(&row.version, &record), deed]).await?;
        let mut repaired = self.repaired(&row.version, &self.name);
        repaired.difference = Some(shown).filter(|shown| !shown.is_empty());
        Ok(repaired)
    }

    /// Finds what stopped in the middle.
    async fn stopped(&self, has_history: bool) -> Result<Stopped, Error> {
        let stopped = if has_history {
            store::stopped(self.connection, &self.set.history).await.map_err(|error| self.failed(error))?
        } else {
            Vec::new()
        };
        stopped
            .into_iter()
            .find(|stopped| self.set.layout.version(&stopped.version).ok().as_ref() == Some(self.version))
            .ok_or_else(|| self.refused("it did not stop in the middle").hinted(self.status_hint()))
    }

    fn file(&self) -> Result<&MigrationFile, Error> {
        self.set.find(self.version).ok_or_else(|| {
            self.refused("it has no file").hinted(format!("the files are read from {}", self.set.folder.display()))
        })
    }

    fn applied<'r>(&self, row: Option<&'r Row>) -> Result<&'r Row, Error> {
        row.ok_or_else(|| self.refused("it is not applied").hinted(self.status_hint()))
    }

    /// Changes the history and what is beside it, at once and for good.
    async fn commit(&self, statements: &[String]) -> Result<(), Error> {
        if self.options.dry_run {
            return Ok(());
        }
        let sql = format!("BEGIN; SET LOCAL synchronous_commit = on; {}; COMMIT", statements.join("; "));
        self.connection.execute_all(&sql).await.map_err(|error| self.failed(error))
    }

    fn deed(&self, version: &str, description: &str, message: &str, run: &str) -> String {
        self.set.history.deed_sql(self.action.word(), version, description, message, &self.options.who, run)
    }

    fn repaired(&self, version: &str, label: &str) -> Repaired {
        Repaired {
            target: self.target.name.clone(),
            set: self.set.name.clone(),
            action: self.action,
            version: version.to_owned(),
            label: label.to_owned(),
            statement: None,
            dropped: Vec::new(),
            left: Vec::new(),
            difference: None,
            took_ms: 0,
        }
    }

    fn refused(&self, cause: impl Into<String>) -> Error {
        Error::new(ErrorKind::Findings, self.action.sentence(&self.name, &self.target.name)).cause(cause)
    }

    fn failed(&self, error: pgfleet_postgres::Error) -> Error {
        Error::connection(self.action.sentence(&self.name, &self.target.name), error)
    }

    fn reset_hint(&self) -> String {
        format!("`pgfleet migration reset {}` forgets that it stopped", self.version)
    }

    fn status_hint(&self) -> String {
        if self.target.name == self.set.name {
            format!("`pgfleet status --service {}` shows where each migration stands", self.target.name)
        } else {
            format!("{} and pgfleet.attempts say where each migration stands", self.set.history.quoted())
        }
    }
}

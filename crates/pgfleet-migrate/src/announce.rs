//! Telling others what was applied.
//!
//! The history is the record: a row that has not been announced has no `announced_at`. Rows are
//! announced after they are on disk, and stamped after the announcement was taken: a crash in
//! between announces a run twice, never not at all, so that whoever is told must know a run again
//! by its id. What a crash left is announced by the next run or start that looks.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use pgfleet_postgres::{Connection, Identity};
use pgfleet_sql::version::Version;
use serde::{Deserialize, Serialize};

use crate::history::Row;
use crate::path::SetPath;
use crate::set::Set;
use crate::step_error::StepError;
use crate::store;

/// What one run applied to one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The run's id; the same run may be announced again.
    pub run: String,
    /// The target's name: `trip`, `trip/acme`.
    pub target: String,
    /// The database.
    pub database: String,
    /// The server's system identifier; `host:port` where the server does not tell it.
    pub system_identifier: String,
    /// The database's oid on that server.
    pub database_oid: u32,
    /// What was applied, by set. The service's own set is always there, last: without versions when
    /// nothing of it was applied.
    pub sets: Vec<AppliedSet>,
}

/// What one run applied of one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedSet {
    /// The set.
    pub set: String,
    /// The newest version before.
    pub from: Option<String>,
    /// The newest version after.
    pub to: Option<String>,
    /// What was applied, in order; repeatables as `R__<description>`.
    pub versions: Vec<String>,
}

/// A boxed answer of an [`Announcer`].
pub type Announced<'a> = Pin<Box<dyn Future<Output = Result<(), StepError>> + Send + 'a>>;

/// Is told what was applied, at least once for each run that applied something, or that seeds always.
pub trait Announcer: Send + Sync {
    /// Takes an announcement; an error has it announced again later.
    fn announce<'a>(&'a self, applied: &'a Applied) -> Announced<'a>;
}

/// An [`Announcer`] to be put into options.
#[derive(Clone)]
pub struct Announce(Arc<dyn Announcer>);

impl Announce {
    /// Wraps an announcer.
    pub fn new(announcer: impl Announcer + 'static) -> Self {
        Self(Arc::new(announcer))
    }

    /// Tells it.
    pub(crate) async fn tell(&self, applied: &Applied) -> Result<(), StepError> {
        self.0.announce(applied).await
    }
}

impl std::fmt::Debug for Announce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Announce")
    }
}

/// Which rows wait to be announced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due<'a> {
    /// Those that were announced to nobody.
    Unstamped,
    /// Those of runs after this one, too: somebody else was told of them. None: of every run.
    Since(Option<&'a str>),
}

impl Due<'_> {
    fn is(self, row: &Row) -> bool {
        // A run's id grows with time. What was written by hand is nobody's run.
        let unheard = match self {
            Self::Unstamped => false,
            Self::Since(known) => known.is_none_or(|known| row.run.as_str() > known),
        };
        !row.run.is_empty() && (!row.announced || unheard)
    }
}

/// Groups the rows that are to be announced by the run that applied them, oldest run first.
fn unannounced(path: &SetPath, rows: &[Vec<Row>], due: Due<'_>) -> BTreeMap<String, Vec<AppliedSet>> {
    let mut runs: BTreeMap<String, Vec<AppliedSet>> = BTreeMap::new();
    for (set, rows) in path.sets().iter().zip(rows) {
        let mut by_run: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in rows.iter().filter(|row| due.is(row)) {
            by_run.entry(&row.run).or_default().push(row);
        }
        for (run, mut applied) in by_run {
            applied.sort_by_key(|row| (row.parsed(set.layout).is_none(), row.parsed(set.layout), row.version.clone()));
            let from = newest_before(set, rows, run);
            let newest = applied.iter().filter_map(|row| Some((row.parsed(set.layout)?, &row.version))).max();
            let before: Option<Version> = from.as_ref().and_then(|from| set.layout.version(from).ok());
            let to = match newest {
                Some((version, text)) if before.is_none_or(|before| before < version) => Some(text.clone()),
                _ => from.clone(),
            };
            let versions = applied.iter().map(|row| row.version.clone()).collect();
            runs.entry(run.to_owned()).or_default().push(AppliedSet { set: set.name.clone(), from, to, versions });
        }
    }
    runs
}

/// Returns the newest version that older runs left: a run's id grows with time.
fn newest_before(set: &Set, rows: &[Row], run: &str) -> Option<String> {
    let older = rows.iter().filter(|row| row.run.as_str() < run);
    older.filter_map(|row| Some((row.parsed(set.layout)?, &row.version))).max().map(|(_, version)| version.clone())
}

/// What is announced.
#[derive(Debug, Clone, Copy)]
pub(crate) struct What<'a> {
    /// The histories of the path's sets.
    pub(crate) rows: &'a [Vec<Row>],
    /// Which of their rows; none: none of them.
    pub(crate) due: Option<Due<'a>>,
    /// A run that is announced whatever it did.
    pub(crate) forced: Option<&'a str>,
    /// Which database it is, where somebody knows.
    pub(crate) known: Option<&'a Identity>,
}

/// Announces what is on disk and was not announced.
///
/// Returns what went wrong, which is no failure of the run: it is announced again later.
pub(crate) async fn announce(
    announce: &Announce,
    connection: &Connection,
    target: &str,
    path: &SetPath,
    what: What<'_>,
) -> Result<(), StepError> {
    let mut runs = what.due.map(|due| unannounced(path, what.rows, due)).unwrap_or_default();
    if let Some(run) = what.forced {
        runs.entry(run.to_owned()).or_default();
    }
    let own = path.own();
    for (run, sets) in &mut runs {
        if sets.iter().all(|applied| applied.set != own.name) {
            let at = what.rows.last().and_then(|rows| newest_before(own, rows, run));
            sets.push(AppliedSet { set: own.name.clone(), from: at.clone(), to: at, versions: Vec::new() });
        }
    }
    if runs.is_empty() {
        return Ok(());
    }
    let identity = Identity::confirmed(connection, what.known).await?;
    for (run, sets) in runs {
        let histories: Vec<String> = sets
            .iter()
            .filter(|applied| !applied.versions.is_empty())
            .filter_map(|applied| path.find(&applied.set))
            .map(|set| set.history.announced_sql(&run))
            .collect();
        let applied = Applied {
            run,
            target: target.to_owned(),
            database: identity.database.clone(),
            system_identifier: identity.system_identifier.clone(),
            database_oid: identity.oid,
            sets,
        };
        announce.tell(&applied).await?;
        if !histories.is_empty() {
            connection.execute_all(&histories.join("; ")).await?;
        }
    }
    Ok(())
}

/// Whether something waits to be announced.
pub(crate) fn is_due(rows: &[Vec<Row>], due: Due<'_>) -> bool {
    rows.iter().flatten().any(|row| due.is(row))
}

/// Reads the histories again, for announcing what a run applied.
pub(crate) async fn rows(connection: &Connection, path: &SetPath) -> Result<Vec<Vec<Row>>, pgfleet_postgres::Error> {
    let found = store::look_all(connection, path, None).await?;
    Ok(found.into_iter().map(|look| look.rows.unwrap_or_default()).collect())
}

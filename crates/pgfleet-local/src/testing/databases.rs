//! Databases for tests on one server: made, removed, kept, and swept when their process is gone.
//!
//! All of it happens on a runtime of its own, because a test's runtime ends with the test, and a test that panics must
//! leave nothing half done behind.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tokio::runtime::Runtime;
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::lines::{Line, Lines};
use super::template::{self, Recipe, Template};
use super::{comment, database_error, name, sweep};
use crate::error::{Error, Result, describe};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // Making a template may run code of the test's crate, which may block.
    let runtime = builder.worker_threads(2).thread_name("pgfleet-test").enable_all().build();
    runtime.unwrap_or_else(|error| panic!("no runtime for test databases: {error}"))
});

/// The number in the names on all servers that are for tests: what a test makes on one of them under a name
/// from another one is known to be alive there, too.
static KEY: LazyLock<u32> = LazyLock::new(rand::random);

/// Where tests get their databases from; cheap to clone.
#[derive(Clone)]
pub struct Databases(Arc<Inner>);

pub(super) struct Inner {
    pub(super) lines: Lines,
    /// Whether everything on the server is for tests, so that names alone say what can go.
    pub(super) is_ours: bool,
    templates: Mutex<HashMap<String, Found>>,
    swept: AtomicBool,
}

/// A template, or why there is none, found out once per process.
type Found = Arc<OnceCell<std::result::Result<Template, String>>>;

impl fmt::Debug for Databases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Databases").field("is_ours", &self.0.is_ours).finish_non_exhaustive()
    }
}

impl Databases {
    /// Databases on a server that others may use too. `open` opens a connection to one of its databases, always the
    /// same one, as a role that may create databases.
    pub fn on<F, Fut>(open: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Client, String>> + Send + 'static,
    {
        Self::new(open, false)
    }

    pub(super) fn new<F, Fut>(open: F, is_ours: bool) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Client, String>> + Send + 'static,
    {
        let key = if is_ours { *KEY } else { rand::random() };
        let lines = Lines::new(Box::new(move || Box::pin(open())), key);
        Self(Arc::new(Inner { lines, is_ours, templates: Mutex::default(), swept: AtomicBool::new(false) }))
    }

    /// The server's major version.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn major_version(&self) -> std::result::Result<u32, Error> {
        let version = self.with(async |inner| inner.lines.version().await).await?;
        Ok(version.unsigned_abs() / 10_000)
    }

    /// Makes an empty database and returns its name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn empty(&self) -> std::result::Result<String, Error> {
        self.with(async |inner| inner.create(None).await.map_err(Failure::into_error)).await
    }

    /// Makes a copy of the recipe's template and returns its name; makes the template first where there is none.
    ///
    /// A template that cannot be made is not tried again by this process.
    ///
    /// # Errors
    /// When it cannot be made; what the recipe failed with is in the text.
    pub async fn copy(&self, recipe: Recipe) -> std::result::Result<String, Error> {
        self.with(async move |inner| inner.copy(&recipe).await).await
    }

    /// A name of this process for a database that does not exist yet.
    ///
    /// # Errors
    /// When there is no connection: only a process that is known to be alive may use names.
    pub async fn name(&self) -> std::result::Result<String, Error> {
        self.with(async |inner| {
            drop(inner.lines.take().await?);
            inner.sweep_once();
            Ok(name::unique(inner.lines.key))
        })
        .await
    }

    /// Removes a database with the sessions in it, without waiting for it. Whoever dies before it is done leaves it to
    /// the next process.
    pub fn discard(&self, name: &str) {
        let (inner, name) = (self.0.clone(), name.to_owned());
        RUNTIME.spawn(async move { inner.remove(&name).await });
    }

    /// Removes a database with the sessions in it. One that cannot be removed is left to the next process.
    pub async fn remove(&self, name: &str) {
        let (inner, name) = (self.0.clone(), name.to_owned());
        let _ = RUNTIME.spawn(async move { inner.remove(&name).await }).await;
    }

    /// Leaves a database to be looked at for a week.
    ///
    /// # Errors
    /// When the server cannot be told; then the next process removes it.
    pub async fn keep(&self, name: &str) -> std::result::Result<(), Error> {
        let name = name.to_owned();
        self.with(async move |inner| {
            let line = inner.lines.take().await?;
            let day = line.rows("keep a database", &format!("SELECT {}", template::TODAY)).await?;
            let day = day.first().and_then(|row| row.get(0)).ok_or_else(|| {
                Error::invalid(format!("cannot keep database {name}: the server does not say which day it is"))
            })?;
            let sql = format!("COMMENT ON DATABASE {} IS '{}'", quote(&name), comment::of_kept(day));
            line.rows("keep a database", &sql).await.map(drop)
        })
        .await
    }

    /// Waits for what a test has to do after its own runtime has ended.
    ///
    /// # Panics
    /// On a thread of a runtime.
    pub fn wait<T>(work: impl Future<Output = T>) -> T {
        RUNTIME.block_on(work)
    }

    /// Runs it to its end, also when the caller gives up.
    async fn with<T, F, Fut>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let work = RUNTIME.spawn(work(self.0.clone()));
        work.await.unwrap_or_else(|error| Err(Error::invalid(format!("making a database was given up: {error}"))))
    }
}

/// Why a copy was not made.
pub(super) enum Failure {
    /// The template was swept between finding and copying it.
    NoTemplate(Error),
    Other(Error),
}

impl Failure {
    fn into_error(self) -> Error {
        match self {
            Self::NoTemplate(error) | Self::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Inner {
    async fn copy(self: &Arc<Self>, recipe: &Recipe) -> Result<String> {
        let mut tries = 0;
        loop {
            let found = self.templates().entry(recipe.hash.clone()).or_default().clone();
            let template =
                found.get_or_init(async || template::ensure(self, recipe).await.map_err(|error| describe(&error)));
            let template = template.await.as_ref().map_err(|text| Error::invalid(text.clone()))?;
            match self.create(Some(template)).await {
                Ok(name) => return Ok(name),
                Err(Failure::NoTemplate(_)) if tries < 3 => {
                    tries += 1;
                    let mut templates = self.templates();
                    // Unless another test of this process was faster.
                    if templates.get(&recipe.hash).is_some_and(|now| Arc::ptr_eq(now, &found)) {
                        templates.remove(&recipe.hash);
                    }
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    fn templates(&self) -> std::sync::MutexGuard<'_, HashMap<String, Found>> {
        // What is inside is whole at every moment.
        self.templates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a database of a template, or an empty one.
    pub(super) async fn create(self: &Arc<Self>, template: Option<&Template>) -> std::result::Result<String, Failure> {
        let line = self.lines.take().await?;
        let name = self.create_on(&line, template).await?;
        self.sweep_once();
        Ok(name)
    }

    pub(super) async fn create_on(
        &self,
        line: &Line<'_>,
        template: Option<&Template>,
    ) -> std::result::Result<String, Failure> {
        let name = name::unique(self.lines.key);
        let create = create_sql(&name, template, self.lines.version().await?);
        // Sent together: the server goes on with the comment also when this process dies in between.
        let mark = format!("COMMENT ON DATABASE {name} IS '{}'", comment::of_database());
        let (created, marked) = tokio::join!(line.batch_execute(&create), line.batch_execute(&mark));
        let gone = |error: &tokio_postgres::Error| error.code() == Some(&SqlState::UNDEFINED_DATABASE);
        match created {
            Err(error) if gone(&error) => Err(Failure::NoTemplate(database_error("make a database", error))),
            Err(error) => Err(database_error("make a database", error).into()),
            Ok(()) => {
                marked.map_err(|error| database_error("mark a database", error))?;
                Ok(name)
            }
        }
    }

    pub(super) async fn remove(&self, name: &str) {
        let Ok(line) = self.lines.apart().await else { return };
        remove_on(&line, name).await;
    }

    /// Sweeps in the background, after the first database was made: nobody waits for it.
    fn sweep_once(self: &Arc<Self>) {
        if !self.swept.swap(true, Ordering::Relaxed) {
            let inner = self.clone();
            RUNTIME.spawn(async move { sweep::sweep(&inner).await });
        }
    }
}

fn create_sql(name: &str, template: Option<&Template>, version: i32) -> String {
    // Nobody can connect to template0, so copying it never fails for a session in it.
    let from = template.map_or("template0", |template| template.name.as_str());
    let strategy = match version {
        ..150_000 => "",
        _ if template.is_some_and(|template| template.copies_files) => " STRATEGY file_copy",
        // No checkpoint, neither before nor after.
        _ => " STRATEGY wal_log",
    };
    format!("CREATE DATABASE {name} TEMPLATE {from}{strategy}")
}

/// Removes a database with the sessions in it; one that stays is left to the next sweep.
///
/// Only what the server calls a template is altered before: while somebody else drops a database, and when that was
/// interrupted, the server calls it invalid, and altering an invalid database is no mere error but ends the session.
pub(super) async fn remove_on(client: &Client, name: &str) {
    let name = quote(name);
    let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    let mut dropped = client.batch_execute(&drop).await;
    if dropped.as_ref().is_err_and(|error| error.code() == Some(&SqlState::WRONG_OBJECT_TYPE)) {
        let plain = format!("ALTER DATABASE {name} IS_TEMPLATE false");
        dropped = match client.batch_execute(&plain).await {
            Ok(()) => client.batch_execute(&drop).await,
            Err(error) => Err(error),
        };
    }
    if let Err(error) = dropped {
        tracing::debug!(%error, database = %name, "a test database stays for the next sweep");
    }
}

pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_templates_are_logged_and_large_ones_copied_by_their_files() {
        let template = |copies_files| Template { name: "pgt_t".to_owned(), copies_files };
        let small = "CREATE DATABASE a TEMPLATE pgt_t STRATEGY wal_log";
        assert_eq!(create_sql("a", Some(&template(false)), 150_000), small);
        let large = "CREATE DATABASE a TEMPLATE pgt_t STRATEGY file_copy";
        assert_eq!(create_sql("a", Some(&template(true)), 180_001), large);
        assert_eq!(create_sql("a", None, 150_020), "CREATE DATABASE a TEMPLATE template0 STRATEGY wal_log");
        assert_eq!(create_sql("a", Some(&template(true)), 140_012), "CREATE DATABASE a TEMPLATE pgt_t");
    }
}

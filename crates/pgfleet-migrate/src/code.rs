//! Migrations and seeders that are Rust: the traits that a service implements, and what a set keeps
//! of them.
//!
//! Three kinds of migration, by what the engine can know of them:
//!
//! * [`SchemaMigration`] records statements; it is a file of SQL in every respect, and needs no
//!   program to be planned, checked or applied;
//! * [`Migration`] works on the live connection, in the migration's transaction;
//! * [`Backfill`] works in batches, each a transaction with the place where the next one goes on.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_sql::annotation::{Annotations, Requirement};
use pgfleet_sql::layout::{Kind, MigrationFile, Script};
use pgfleet_sql::version::Version;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::db::Db;
use crate::error::{Error, ErrorKind};
use crate::schema::Schema;
use crate::step_error::StepError;

/// What a migration's or seeder's code returns.
pub type StepResult<T = ()> = Result<T, StepError>;

/// A boxed future of a step.
pub(crate) type StepFuture<'a, T> = Pin<Box<dyn Future<Output = StepResult<T>> + Send + 'a>>;

/// A migration whose statements are recorded before anything runs.
///
/// What it records becomes the text of an ordinary migration: with a checksum, in `--dry-run`, run
/// by the command line without the service's program. So it must record the same each time, and
/// may not ask a database. An applied one may not change; write a new one.
///
/// ```
/// use pgfleet_migrate::code::SchemaMigration;
/// use pgfleet_migrate::schema::Schema;
///
/// struct CreateTrips;
///
/// impl SchemaMigration for CreateTrips {
///     fn id(&self) -> &str {
///         "202501070002_create_trips"
///     }
///
///     fn up(&self, schema: &mut Schema) {
///         schema.standard_table("trips", "driver_id varchar(50) NOT NULL, price numeric(12,2) NOT NULL");
///         schema.index("trips", &["driver_id"]);
///     }
///
///     fn down(&self, schema: &mut Schema) {
///         schema.sql("DROP TABLE trips");
///     }
/// }
/// ```
pub trait SchemaMigration: Send + Sync + 'static {
    /// `<version>_<description>`, as a file would be named.
    fn id(&self) -> &str;

    /// Records what applies it.
    fn up(&self, schema: &mut Schema);

    /// Records what takes it back; nothing recorded means that there is no way back.
    fn down(&self, schema: &mut Schema) {
        let _ = schema;
    }
}

/// A migration that works on the live connection, in one transaction with its history row.
///
/// A lock time-out, a deadlock or a serialization failure runs it again from the start, after a
/// rollback: what it does outside the database must bear that.
///
/// ```
/// use pgfleet_migrate::code::{Migration, StepResult};
/// use pgfleet_migrate::db::Db;
///
/// struct SplitNames;
///
/// impl Migration for SplitNames {
///     fn id(&self) -> &str {
///         "202501070003_split_names"
///     }
///
///     async fn up(&self, db: &Db<'_>) -> StepResult {
///         for row in db.query("SELECT id, name FROM users", &[]).await? {
///             let (id, name): (i64, String) = (row.get(0), row.get(1));
///             let first = name.split(' ').next().unwrap_or_default();
///             db.execute("UPDATE users SET first_name = $1 WHERE id = $2", &[&first, &id]).await?;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Migration: Send + Sync + 'static {
    /// `<version>_<description>`, as a file would be named.
    fn id(&self) -> &str;

    /// The code's own version, which stands for its text in the checksum: raise it when the code
    /// changes its meaning before it is applied everywhere.
    fn revision(&self) -> u32 {
        1
    }

    /// What must be applied before, as `set@version`.
    fn requires(&self) -> Vec<String> {
        Vec::new()
    }

    /// How long a statement may wait for a lock; none takes the run's.
    fn lock_timeout(&self) -> Option<Duration> {
        None
    }

    /// Applies it.
    fn up(&self, db: &Db<'_>) -> impl Future<Output = StepResult> + Send;

    /// Whether [`down`](Self::down) takes it back.
    fn is_reversible(&self) -> bool {
        false
    }

    /// Takes it back.
    fn down(&self, db: &Db<'_>) -> impl Future<Output = StepResult> + Send {
        let _ = db;
        async { Err(StepError::new("there is no way back")) }
    }
}

/// A migration of data in batches.
///
/// Each batch is a transaction of its own, committed with the cursor behind it: after a crash, a
/// stop or an error the next run goes on behind the last batch that was committed. Readers and
/// writers wait for one batch at most.
///
/// ```
/// use pgfleet_migrate::code::{Backfill, Batch, StepResult};
/// use pgfleet_migrate::db::Db;
///
/// struct BackfillFares;
///
/// impl Backfill for BackfillFares {
///     type Cursor = i64;
///
///     fn id(&self) -> &str {
///         "202501070004_backfill_fares"
///     }
///
///     async fn batch(&self, db: &Db<'_>, after: Option<i64>) -> StepResult<Batch<i64>> {
///         let sql = "WITH part AS (SELECT id FROM trips WHERE id > $1 ORDER BY id LIMIT 10000),
///                    done AS (UPDATE trips SET fare = price * 1.2 FROM part WHERE trips.id = part.id)
///                    SELECT max(id), count(*) FROM part";
///         let row = db.query_one(sql, &[&after.unwrap_or(0)]).await?;
///         let (last, rows): (Option<i64>, i64) = (row.get(0), row.get(1));
///         Ok(Batch::new(rows, last))
///     }
/// }
/// ```
pub trait Backfill: Send + Sync + 'static {
    /// Where the next batch goes on; kept as JSON.
    type Cursor: Serialize + DeserializeOwned + Send + Sync;

    /// `<version>_<description>`, as a file would be named.
    fn id(&self) -> &str;

    /// The code's own version. One that stopped in the middle goes on only with the same.
    fn revision(&self) -> u32 {
        1
    }

    /// What must be applied before, as `set@version`.
    fn requires(&self) -> Vec<String> {
        Vec::new()
    }

    /// How long a statement may wait for a lock; none takes the run's.
    fn lock_timeout(&self) -> Option<Duration> {
        None
    }

    /// How long to rest between two batches, to leave room for others.
    fn pause(&self) -> Duration {
        Duration::ZERO
    }

    /// How many rows there are in all, for showing progress; asked once a run.
    fn total(&self, db: &Db<'_>) -> impl Future<Output = StepResult<Option<u64>>> + Send {
        let _ = db;
        async { Ok(None) }
    }

    /// Does one batch behind `after`; none is the first.
    fn batch(
        &self,
        db: &Db<'_>,
        after: Option<Self::Cursor>,
    ) -> impl Future<Output = StepResult<Batch<Self::Cursor>>> + Send;

    /// Whether [`down`](Self::down) takes it back.
    fn is_reversible(&self) -> bool {
        false
    }

    /// Takes all of it back, in one transaction.
    fn down(&self, db: &Db<'_>) -> impl Future<Output = StepResult> + Send {
        let _ = db;
        async { Err(StepError::new("there is no way back")) }
    }
}

/// What one batch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<C> {
    /// Rows it touched, for showing progress.
    pub rows: u64,
    /// Where the next batch goes on; none when there is nothing left.
    pub next: Option<C>,
}

impl<C> Batch<C> {
    /// Makes a result of a count and the last key; none ends the backfill.
    pub fn new(rows: impl TryInto<u64>, next: Option<C>) -> Self {
        Self { rows: rows.try_into().unwrap_or_default(), next }
    }

    /// Says that nothing is left.
    pub fn done(rows: u64) -> Self {
        Self { rows, next: None }
    }
}

/// Data that must be there after the schema is, written in Rust.
///
/// Runs in a transaction with its record: when it is new, when its revision or a property that it
/// uses changed, and whenever `always_seed` is on. Running again must change nothing.
///
/// ```
/// use pgfleet_migrate::code::{Seeder, StepResult};
/// use pgfleet_migrate::db::Db;
///
/// struct AdminSeeder;
///
/// impl Seeder for AdminSeeder {
///     fn name(&self) -> &str {
///         "0010_admin"
///     }
///
///     fn properties(&self) -> &[&str] {
///         &["admin_email"]
///     }
///
///     async fn seed(&self, db: &Db<'_>) -> StepResult {
///         let email = db.property("admin_email")?;
///         db.execute("INSERT INTO users (email) VALUES ($1) ON CONFLICT DO NOTHING", &[&email]).await?;
///         Ok(())
///     }
/// }
/// ```
pub trait Seeder: Send + Sync + 'static {
    /// Its name, which orders it among the seed files and is its identity in the record.
    fn name(&self) -> &str;

    /// The code's own version: raise it to have it run again everywhere.
    fn revision(&self) -> u32 {
        1
    }

    /// The properties that it uses: it runs again when one of them changes.
    ///
    /// One that names `tenant`, or a property that a tenant has a value of its own for, is run for
    /// that tenant also where the tenant has no database of its own.
    fn properties(&self) -> &[&str] {
        &[]
    }

    /// Seeds.
    fn seed(&self, db: &Db<'_>) -> impl Future<Output = StepResult> + Send;
}

impl<S: Seeder> Seeder for Arc<S> {
    fn name(&self) -> &str {
        S::name(self)
    }

    fn revision(&self) -> u32 {
        S::revision(self)
    }

    fn properties(&self) -> &[&str] {
        S::properties(self)
    }

    fn seed(&self, db: &Db<'_>) -> impl Future<Output = StepResult> + Send {
        S::seed(self, db)
    }
}

/// [`Migration`] as an object.
trait DynMigration: Send + Sync {
    fn up<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()>;
    fn down<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()>;
}

impl<M: Migration> DynMigration for M {
    fn up<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()> {
        Box::pin(Migration::up(self, db))
    }

    fn down<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()> {
        Box::pin(Migration::down(self, db))
    }
}

/// A batch with its cursor as JSON.
pub(crate) type JsonBatch = Batch<String>;

/// [`Backfill`] as an object.
trait DynBackfill: Send + Sync {
    fn total<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, Option<u64>>;
    fn batch<'a>(&'a self, db: &'a Db<'a>, after: Option<&'a str>) -> StepFuture<'a, JsonBatch>;
    fn down<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()>;
    fn pause(&self) -> Duration;
}

impl<B: Backfill> DynBackfill for B {
    fn total<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, Option<u64>> {
        Box::pin(Backfill::total(self, db))
    }

    fn batch<'a>(&'a self, db: &'a Db<'a>, after: Option<&'a str>) -> StepFuture<'a, JsonBatch> {
        Box::pin(async move {
            let after = after.map(serde_json::from_str).transpose().map_err(|error| {
                StepError::new(format!("the saved cursor cannot be read: {error}"))
                    .hinted("raise the revision, and let it begin again: `pgfleet migration reset`")
            })?;
            let batch = Backfill::batch(self, db, after).await?;
            let next = batch.next.map(|next| serde_json::to_string(&next)).transpose()?;
            Ok(Batch { rows: batch.rows, next })
        })
    }

    fn down<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()> {
        Box::pin(Backfill::down(self, db))
    }

    fn pause(&self) -> Duration {
        Backfill::pause(self)
    }
}

/// [`Seeder`] as an object.
trait DynSeeder: Send + Sync {
    fn seed<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()>;
}

impl<S: Seeder> DynSeeder for S {
    fn seed<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()> {
        Box::pin(Seeder::seed(self, db))
    }
}

/// What a set keeps of a step in Rust.
#[derive(Clone)]
pub struct Code {
    pub(crate) revision: u32,
    body: Body,
}

#[derive(Clone)]
enum Body {
    Live(Arc<dyn DynMigration>),
    Batches(Arc<dyn DynBackfill>),
    Seeder(Arc<dyn DynSeeder>),
    /// Known by name only: its code is in the service's program.
    Elsewhere {
        batches: bool,
    },
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = match self.body {
            Body::Live(_) => "live",
            Body::Batches(_) => "batches",
            Body::Seeder(_) => "seeder",
            Body::Elsewhere { .. } => "elsewhere",
        };
        f.debug_struct("Code").field("revision", &self.revision).field("body", &body).finish_non_exhaustive()
    }
}

impl Code {
    /// A step whose code is in another program.
    pub fn elsewhere(revision: u32, batches: bool) -> Self {
        Self { revision, body: Body::Elsewhere { batches } }
    }

    /// A seeder's code.
    pub(crate) fn seeder(seeder: impl Seeder) -> Self {
        Self { revision: seeder.revision(), body: Body::Seeder(Arc::new(seeder)) }
    }

    /// Whether the code is in another program.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.body, Body::Elsewhere { .. })
    }

    /// Whether it works in batches.
    pub fn is_backfill(&self) -> bool {
        matches!(self.body, Body::Batches(_) | Body::Elsewhere { batches: true })
    }

    /// The code's own version.
    pub fn revision(&self) -> u32 {
        self.revision
    }

    pub(crate) fn up<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()> {
        match &self.body {
            Body::Live(migration) => migration.up(db),
            Body::Seeder(seeder) => seeder.seed(db),
            Body::Batches(_) | Body::Elsewhere { .. } => Box::pin(async { Err(elsewhere()) }),
        }
    }

    pub(crate) fn down<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, ()> {
        match &self.body {
            Body::Live(migration) => migration.down(db),
            Body::Batches(backfill) => backfill.down(db),
            Body::Seeder(_) | Body::Elsewhere { .. } => Box::pin(async { Err(elsewhere()) }),
        }
    }

    pub(crate) fn total<'a>(&'a self, db: &'a Db<'a>) -> StepFuture<'a, Option<u64>> {
        match &self.body {
            Body::Batches(backfill) => backfill.total(db),
            _ => Box::pin(async { Err(elsewhere()) }),
        }
    }

    pub(crate) fn batch<'a>(&'a self, db: &'a Db<'a>, after: Option<&'a str>) -> StepFuture<'a, JsonBatch> {
        match &self.body {
            Body::Batches(backfill) => backfill.batch(db, after),
            _ => Box::pin(async { Err(elsewhere()) }),
        }
    }

    pub(crate) fn pause(&self) -> Duration {
        match &self.body {
            Body::Batches(backfill) => backfill.pause(),
            _ => Duration::ZERO,
        }
    }
}

fn elsewhere() -> StepError {
    StepError::new("its code is in the service's program")
        .hinted("name the program in the manifest (`program = \"target/release/…\"`) and build it")
}

/// A migration written in Rust, ready to be put into a set.
#[derive(Debug, Clone)]
pub struct Step {
    pub(crate) file: MigrationFile,
    pub(crate) code: Option<Code>,
}

/// What can be put into a set; `K` tells the kinds of migration apart and is found by inference.
pub trait IntoStep<K> {
    /// Makes a step of it.
    ///
    /// # Errors
    ///
    /// An id that is not `<version>_<description>`, a requirement that is not `set@version`.
    fn into_step(self) -> Result<Step, Error>;
}

/// The kinds of [`IntoStep`].
pub mod kind {
    /// [`SchemaMigration`](super::SchemaMigration).
    #[derive(Debug)]
    pub struct Recorded;
    /// [`Migration`](super::Migration).
    #[derive(Debug)]
    pub struct Live;
    /// [`Backfill`](super::Backfill).
    #[derive(Debug)]
    pub struct Batches;
}

impl<M: SchemaMigration> IntoStep<kind::Recorded> for M {
    fn into_step(self) -> Result<Step, Error> {
        let id = self.id();
        let recorded = |record: &dyn Fn(&mut Schema)| {
            let mut schema = Schema::default();
            record(&mut schema);
            schema.into_text()
        };
        let up = recorded(&|schema| self.up(schema));
        let down = recorded(&|schema| self.down(schema));
        let mut file = file(id, up)?;
        if !down.trim().is_empty() {
            file.down_annotations = annotations(id, &down)?;
            file.down = Some(Script::from_text(format!("{id}.down (Rust)"), down));
            file.kind = Kind::Reversible;
        }
        file.annotations = annotations(id, &file.up.text)?;
        Ok(Step { file, code: None })
    }
}

impl<M: Migration> IntoStep<kind::Live> for M {
    fn into_step(self) -> Result<Step, Error> {
        let (id, revision) = (self.id(), self.revision());
        let file = code_file(id, revision, &self.requires(), self.lock_timeout(), self.is_reversible())?;
        Ok(Step { file, code: Some(Code { revision, body: Body::Live(Arc::new(self)) }) })
    }
}

impl<B: Backfill> IntoStep<kind::Batches> for B {
    fn into_step(self) -> Result<Step, Error> {
        let (id, revision) = (self.id(), self.revision());
        let file = code_file(id, revision, &self.requires(), self.lock_timeout(), self.is_reversible())?;
        Ok(Step { file, code: Some(Code { revision, body: Body::Batches(Arc::new(self)) }) })
    }
}

/// What stands for the text of code: in the checksum, in the history and in a dry run.
pub(crate) fn code_text(what: &str, name: &str, revision: u32) -> String {
    format!("rust {what} {name} revision {revision}")
}

/// Makes of a live migration what a set holds of a file.
pub(crate) fn code_file(
    id: &str,
    revision: u32,
    requires: &[String],
    lock_timeout: Option<Duration>,
    reversible: bool,
) -> Result<MigrationFile, Error> {
    let text = code_text("migration", id, revision);
    let mut file = file(id, text.clone())?;
    file.annotations.lock_timeout = lock_timeout;
    file.down_annotations.lock_timeout = lock_timeout;
    for requirement in requires {
        let parsed = requirement
            .split_once('@')
            .filter(|(set, version)| !set.is_empty() && version.parse::<Version>().is_ok())
            .ok_or_else(|| {
                Error::new(ErrorKind::Files, format!("cannot use the migration {id}"))
                    .cause(format!("`{requirement}` is not set@version"))
            })?;
        file.annotations.requires.push(Requirement { set: parsed.0.to_owned(), version: parsed.1.to_owned() });
    }
    if reversible {
        file.down = Some(Script::from_text(format!("{id} (Rust)"), text));
        file.kind = Kind::Reversible;
    }
    Ok(file)
}

fn file(id: &str, text: String) -> Result<MigrationFile, Error> {
    let wrong = || {
        Error::new(ErrorKind::Files, format!("cannot use the migration `{id}`"))
            .cause("its id is not <version>_<description>")
            .hinted("for example 202501070003_split_names")
    };
    let (version, description) = id.split_once('_').ok_or_else(wrong)?;
    let version: Version = version.parse().map_err(|_| wrong())?;
    if description.is_empty() {
        return Err(wrong());
    }
    Ok(MigrationFile {
        version,
        description: description.to_owned(),
        up: Script::from_text(PathBuf::from(format!("{id} (Rust)")), text),
        down: None,
        annotations: Annotations::default(),
        down_annotations: Annotations::default(),
        kind: Kind::Forward,
    })
}

fn annotations(id: &str, text: &str) -> Result<Annotations, Error> {
    pgfleet_sql::annotation::parse(text).map_err(|error| {
        Error::new(ErrorKind::Files, format!("cannot use the migration {id}"))
            .cause(error.to_string())
            .hinted(error.hint())
    })
}

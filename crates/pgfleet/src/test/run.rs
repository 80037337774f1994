//! The frame around a test.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pgfleet_local::testing::Databases;

use super::{Database, FromDatabase, Outcome};
use crate::builder::Builder;
use crate::error::Error;

/// Runs a test with a database of its own; what [`#[pgfleet::test]`](macro@crate::test) expands to.
///
/// The test runs on one thread, as under `#[tokio::test]`. When it is over, the connections that it left open are
/// closed, and the database is removed.
///
/// # Panics
///
/// When there is no database, and when the test does.
#[track_caller]
pub fn run<T, F, O>(builder: impl FnOnce() -> Builder, body: impl FnOnce(T) -> F) -> O
where
    T: FromDatabase,
    F: Future<Output = O>,
    O: Outcome,
{
    // The error comes out of the closures first, so that the panic names the test's place.
    match attempt(builder, body) {
        Ok(outcome) => outcome,
        Err(error) => panic!("{error:#}"),
    }
}

fn attempt<T, F, O>(builder: impl FnOnce() -> Builder, body: impl FnOnce(T) -> F) -> Result<O, Error>
where
    T: FromDatabase,
    F: Future<Output = O>,
    O: Outcome,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::configuration("cannot run a test").cause(error.to_string()))?;
    let database = runtime.block_on(Database::of(&builder()))?;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async { Ok(body(T::from_database(&database).await?).await) })
    }));
    #[cfg(feature = "sqlx")]
    runtime.block_on(database.close());
    // Before the database goes: what the test has spawned must not see it go.
    runtime.shutdown_timeout(Database::patience());
    let failed = match &outcome {
        Ok(Ok(outcome)) => O::is_failure(outcome),
        Ok(Err(_)) | Err(_) => true,
    };
    Databases::wait(database.end(failed));
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

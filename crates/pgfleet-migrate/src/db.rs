//! The live connection that a step in Rust works on.

use std::collections::BTreeMap;

use pgfleet_postgres::Connection;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};

use crate::code::StepResult;
use crate::event::{Event, Observer};
use crate::step_error::StepError;

/// The live connection of a migration or seeder, inside its transaction.
///
/// The transaction is the engine's: a step that ends it is found and refused, since its history row
/// could not be part of it. Savepoints are allowed.
pub struct Db<'a> {
    connection: &'a Connection,
    target: &'a str,
    tenant: Option<&'a str>,
    schema: Option<&'a str>,
    properties: &'a BTreeMap<String, String>,
    observer: &'a dyn Observer,
}

impl std::fmt::Debug for Db<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("target", &self.target).finish_non_exhaustive()
    }
}

impl<'a> Db<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        target: &'a str,
        tenant: Option<&'a str>,
        schema: Option<&'a str>,
        properties: &'a BTreeMap<String, String>,
        observer: &'a dyn Observer,
    ) -> Self {
        Self { connection, target, tenant, schema, properties, observer }
    }

    /// Runs one statement with bound values and returns the number of rows it touched.
    ///
    /// # Errors
    ///
    /// What the server refuses; the transaction is over then, and the step should return the error.
    pub async fn execute(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> StepResult<u64> {
        Ok(self.client().execute(sql, values).await?)
    }

    /// Runs one statement with bound values and returns its rows.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> StepResult<Vec<Row>> {
        Ok(self.client().query(sql, values).await?)
    }

    /// Runs one statement that returns one row.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute); also no row, or several.
    pub async fn query_one(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> StepResult<Row> {
        Ok(self.client().query_one(sql, values).await?)
    }

    /// Runs several statements without values.
    ///
    /// # Errors
    ///
    /// As [`execute`](Self::execute).
    pub async fn batch(&self, sql: &str) -> StepResult {
        Ok(self.client().batch_execute(sql).await?)
    }

    /// Returns the client itself, for `COPY`, row streams and prepared statements.
    pub fn client(&self) -> &'a Client {
        self.connection.client()
    }

    /// Returns the target's name: `trip`, `trip/acme`.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// Returns the tenant under whose scope the step runs; none for the host.
    ///
    /// A seeder that asks for it names `tenant` among its [`properties`](crate::code::Seeder::properties): only so is
    /// it run for each tenant that has no database of its own.
    pub fn tenant(&self) -> Option<&'a str> {
        self.tenant
    }

    /// Returns the schema that unqualified names go to, where one was chosen.
    pub fn schema(&self) -> Option<&'a str> {
        self.schema
    }

    /// Returns a property: `admin_email`, `admin_password` (as an Argon2id hash).
    ///
    /// # Errors
    ///
    /// A property that has no value; the error names it.
    pub fn property(&self, name: &str) -> StepResult<&'a str> {
        self.properties.get(name).map(String::as_str).ok_or_else(|| {
            StepError::new(format!("the property {name} has no value"))
                .hinted(format!("give it in the manifest's properties or with --property {name}=VALUE"))
        })
    }

    /// Tells the person who watches something.
    pub fn note(&self, text: impl Into<String>) {
        self.observer.event(self.target, &Event::Note(text.into()));
    }
}

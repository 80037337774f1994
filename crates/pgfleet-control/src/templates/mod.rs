//! The closed databases from which tenants' databases are copied.
//!
//! One per server and shape, kept at head by rollouts, and made on first need. Nobody can connect to
//! one, so copying it never waits for a session. To bring it to new files, a copy of it is migrated
//! beside it and takes its name: copying goes on all the time.

mod build;
mod copy;
mod shape;

use pgfleet_postgres::Type;
use pgfleet_postgres::name::short_name;
use pgfleet_sql::checksum::raw_hash;
use serde::Serialize;

use crate::catalogue::Catalogue;
use crate::error::Error;
use crate::solution::Solution;

pub(crate) use build::drop_unused;
pub use copy::Copied;
pub use shape::Shape;

/// From this size on files are copied rather than logged block by block: that costs two checkpoints,
/// and a log as long as the database otherwise.
const LARGE: i64 = 100 << 20;

/// A template as the control database has it.
#[derive(Debug, Clone, Serialize)]
pub struct Template {
    /// The server.
    pub server: String,
    /// The shape's name.
    pub shape: String,
    /// The services in it.
    pub services: Vec<String>,
    /// The database.
    pub database: String,
    /// The print of what is in it.
    #[serde(skip)]
    pub plan: String,
    /// The newest version of each service's own set.
    pub versions: serde_json::Value,
    /// Its size.
    pub bytes: i64,
    /// Its oid when it was made.
    #[serde(skip)]
    pub oid: Option<u32>,
    /// When it was made, in UTC.
    pub made_at: String,
    /// Whether it is what the files say; none when that needs a program to be asked.
    pub current: Option<bool>,
}

/// Returns the name of a template's database.
pub(crate) fn database_name(solution: &str, shape: &Shape) -> String {
    short_name(&format!("{solution}_template"), &format!("_{}", &raw_hash(shape.name().as_bytes())[..8]))
}

impl Solution {
    /// Lists the templates.
    ///
    /// # Errors
    ///
    /// The control database is not there yet, or cannot be read.
    pub async fn templates(&self) -> Result<Vec<Template>, Error> {
        let catalogue = self.tenant_catalogue().await?;
        let read = read(&catalogue).await;
        catalogue.close().await;
        let mut templates = read?;
        let prints = self.prints(&[])?;
        for template in &mut templates {
            let wanted = prints.of(template.services.iter().map(String::as_str));
            template.current = wanted.map(|wanted| wanted == template.plan);
        }
        Ok(templates)
    }
}

/// Reads the templates.
pub(crate) async fn read(catalogue: &Catalogue) -> Result<Vec<Template>, Error> {
    let rows = catalogue
        .connection()
        .query(
            "SELECT server, shape, services, database, plan, versions::text, bytes, database_oid, \
             to_char(made_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
             FROM control.templates ORDER BY server, shape",
            &[],
        )
        .await
        .map_err(|error| failed(&error))?;
    let mut templates = Vec::with_capacity(rows.len());
    for row in rows {
        templates.push(Template {
            server: row.get(0),
            shape: row.get(1),
            services: row.get(2),
            database: row.get(3),
            plan: row.get(4),
            versions: serde_json::from_str(row.get(5)).unwrap_or_default(),
            bytes: row.get(6),
            oid: row.get(7),
            made_at: row.get(8),
            current: None,
        });
    }
    Ok(templates)
}

/// Writes down what a template is now.
async fn write(catalogue: &Catalogue, template: &Template, system_identifier: &str) -> Result<(), Error> {
    let versions = template.versions.to_string();
    catalogue
        .connection()
        .execute(
            "INSERT INTO control.templates (server, shape, services, database, plan, versions, bytes, \
               system_identifier, database_oid) \
             VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9) \
             ON CONFLICT (server, shape) DO UPDATE SET services = excluded.services, database = excluded.database, \
               plan = excluded.plan, versions = excluded.versions, bytes = excluded.bytes, made_at = now(), \
               system_identifier = excluded.system_identifier, database_oid = excluded.database_oid",
            &[
                (&template.server, Type::TEXT),
                (&template.shape, Type::TEXT),
                (&template.services, Type::TEXT_ARRAY),
                (&template.database, Type::TEXT),
                (&template.plan, Type::TEXT),
                (&versions, Type::TEXT),
                (&template.bytes, Type::INT8),
                (&system_identifier, Type::TEXT),
                (&template.oid, Type::OID),
            ],
        )
        .await
        .map_err(|error| failed(&error))?;
    Ok(())
}

fn failed(error: &pgfleet_postgres::Error) -> Error {
    Error::postgres("cannot read or write the templates in the control database", error)
}

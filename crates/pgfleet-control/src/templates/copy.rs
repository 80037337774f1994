//! Copying a template into a tenant's database.

use pgfleet_postgres::{Connection, quote_ident, quote_literal};

use super::{LARGE, Shape, Template};
use crate::error::{Error, ErrorKind};
use crate::provision::tenant::{Seen, desired_tenant_database, open_sql, owner, tenant_mark};
use crate::solution::Solution;

/// How often a copy is tried when somebody is in the template; the server has waited 5 s each time.
const TRIES: u32 = 3;

/// A database that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Whether it was made now; else it was there, as a process that died had left it.
    pub made: bool,
    /// Its oid.
    pub oid: u32,
}

impl Solution {
    /// Copies a template into a database of a tenant, gives it its rights and opens it.
    ///
    /// `admin` is a connection to the server as the administrator. A database of that name is taken for
    /// the work of a process that died when it is closed and of this solution, or marked as this
    /// tenant's; any other is an error.
    ///
    /// # Errors
    ///
    /// The database is somebody else's, or the server refuses.
    ///
    /// # Cancel safety
    ///
    /// Whoever stops leaves no database, or a closed one, or the finished one; calling it again goes on.
    pub async fn copy_template(
        &self,
        admin: &Connection,
        template: &Template,
        shape: &Shape,
        tenant: &str,
        database: &str,
    ) -> Result<Copied, Error> {
        self.copy(admin, (template, shape), tenant, database, false).await
    }

    /// Likewise; `unhurried` without waiting until it is on disk that the database is open, for one who
    /// commits something in the cluster that is, before anybody is told.
    pub(crate) async fn copy(
        &self,
        admin: &Connection,
        (template, shape): (&Template, &Shape),
        tenant: &str,
        database: &str,
        unhurried: bool,
    ) -> Result<Copied, Error> {
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(format!("cannot make database {database} of tenant {tenant} on {}", template.server), error)
        };
        let services = shape.of_manifest(&self.manifest)?;
        let desired = desired_tenant_database(&self.manifest, &services, database);
        let mark = tenant_mark(&self.manifest.solution.name, tenant);
        let create = create_sql(admin.server_version(), template, database, owner(&desired));
        let mut made = true;
        let mut attempt = 1;
        while let Err(error) = admin.execute_all(&create).await {
            match error.sql_state() {
                Some("42P04" | "23505") => {
                    refuse_foreign(admin, database, &mark, owner(&desired)).await?;
                    made = false;
                    break;
                }
                Some("55006") if attempt < TRIES => attempt += 1,
                _ => return Err(failed(&error)),
            }
        }
        let wait = if unhurried { "SELECT pg_catalog.set_config('synchronous_commit', 'off', true); " } else { "" };
        // One message, and so one transaction.
        let open = format!(
            "{wait}{}; SELECT oid FROM pg_catalog.pg_database WHERE datname = {}",
            open_sql(&desired, database, &mark),
            quote_literal(database)
        );
        let rows = admin.simple(&open).await.map_err(|error| failed(&error))?;
        // By its oid the database is known from now on: a wrong one would make it a stranger's for ever.
        let oid = rows.first().and_then(|row| row.get(0)?.parse().ok()).ok_or_else(|| {
            Error::new(ErrorKind::Failed, format!("database {database} of tenant {tenant} was just made and is gone"))
                .hinted("somebody dropped it meanwhile; ask for the tenant again")
        })?;
        Ok(Copied { made, oid })
    }
}

/// Refuses a database that is not ours to open: neither marked as the tenant's nor left closed by a
/// process that died before it could mark it.
async fn refuse_foreign(admin: &Connection, database: &str, mark: &str, owner: Option<&str>) -> Result<(), Error> {
    let Some(Seen { comment, .. }) =
        Seen::of(admin, database).await?.filter(|seen| seen.comment != mark && !seen.is_half_made(owner))
    else {
        return Ok(());
    };
    let server = admin.address().server();
    let why = if comment.is_empty() { "nobody marked it".to_owned() } else { format!("its comment says: {comment}") };
    Err(Error::new(ErrorKind::Failed, format!("there is a database {database} on {server} already"))
        .cause(why)
        .hinted("rename it, or give the tenant another name; a database that is the tenant's is named by --connection"))
}

/// Returns the statement that copies a template: closed, so that nobody gets in before the rights are set.
fn create_sql(version: u32, template: &Template, database: &str, owner: Option<&str>) -> String {
    let strategy = match version {
        ..150_000 => "",
        _ if template.bytes >= LARGE => " STRATEGY file_copy",
        _ => " STRATEGY wal_log",
    };
    let owner = owner.map(|owner| format!(" OWNER {}", quote_ident(owner))).unwrap_or_default();
    format!(
        "CREATE DATABASE {}{owner} TEMPLATE {}{strategy} ALLOW_CONNECTIONS false IS_TEMPLATE false",
        quote_ident(database),
        quote_ident(&template.database)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_templates_are_logged_and_large_ones_copied_by_their_files() {
        let template = |bytes| Template {
            server: "main".to_owned(),
            shape: "trip".to_owned(),
            services: vec!["trip".to_owned()],
            database: "t".to_owned(),
            plan: String::new(),
            versions: serde_json::Value::Null,
            bytes,
            oid: None,
            made_at: String::new(),
            current: None,
        };
        let small = create_sql(150_000, &template(LARGE - 1), "a-b", Some("trip_owner"));
        assert_eq!(
            small,
            "CREATE DATABASE \"a-b\" OWNER \"trip_owner\" TEMPLATE \"t\" STRATEGY wal_log ALLOW_CONNECTIONS false IS_TEMPLATE false"
        );
        assert!(create_sql(180_001, &template(LARGE), "a", None).contains("STRATEGY file_copy"));
    }
}

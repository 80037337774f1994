//! Making templates, and bringing them to new files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pgfleet_migrate::{Observer, Options, Seeds, run};
use pgfleet_postgres::{Connection, Purpose, Type, connect, quote_ident, quote_literal, retry};

use super::{Shape, Template, database_name, read, write};
use crate::catalogue::Catalogue;
use crate::error::{Error, ErrorKind};
use crate::plans::Plans;
use crate::program::Handling;
use crate::provision::tenant::{desired_tenant_database, owner, provision_inside};
use crate::solution::Solution;
use crate::targets::{FleetTarget, TargetKind};

/// First half of the locks on templates, `pgft` in ASCII; taken in the control database.
const MAKING: i32 = 0x7067_6674;

/// How long to wait for another process that makes the same template.
const LOCK_TRIES: u32 = 1_200;

/// What a template's comment says.
fn mark(solution: &str, shape: &Shape) -> String {
    format!("pgfleet: solution {solution}, template of {}", shape.name())
}

impl Solution {
    /// Returns the template of a shape on a server, at the head of these plans: makes it when it is not
    /// there, and brings it there when it is behind.
    ///
    /// A copy of it is migrated beside it and takes its name at the end, so that copying goes on in the
    /// meantime. Where the copy cannot be migrated a new one is made from nothing.
    ///
    /// # Errors
    ///
    /// A migration fails on an empty database, a program is not there, or a server refuses. The template
    /// that was there stays.
    pub async fn ensure_template(
        &self,
        catalogue: &Catalogue,
        server: &str,
        shape: &Shape,
        plans: &Plans,
        observer: &Arc<dyn Observer>,
    ) -> Result<Template, Error> {
        let admin = &self.server(server).admin;
        let connection = connect(admin, &purpose()).await.map_err(|error| template_error(server, shape, &error))?;
        let result = Box::pin(self.ensure_template_by(catalogue, &connection, (server, shape), plans, observer)).await;
        connection.close().await;
        result
    }

    /// Likewise, by a connection to the server as the administrator that somebody has.
    pub(crate) async fn ensure_template_by(
        &self,
        catalogue: &Catalogue,
        admin: &Connection,
        (server, shape): (&str, &Shape),
        plans: &Plans,
        observer: &Arc<dyn Observer>,
    ) -> Result<Template, Error> {
        let print = plans.prints().of(shape.services().iter().map(String::as_str)).ok_or_else(|| {
            Error::new(ErrorKind::Configuration, format!("there is no plan for all services of {}", shape.name()))
        })?;
        if let Some(found) = present(catalogue, admin, server, shape, &print).await? {
            return Ok(found);
        }
        let key = lock_key(server, &shape.name());
        take_lock(catalogue, key, server, shape).await?;
        let made = async {
            // Another process may have made it while we waited.
            if let Some(found) = present(catalogue, admin, server, shape, &print).await? {
                return Ok(found);
            }
            self.make(catalogue, admin, (server, shape), plans, &print, observer).await
        };
        let made = Box::pin(made).await;
        let unlock = format!("SELECT pg_catalog.pg_advisory_unlock({MAKING}, {key})");
        // Closing the connection frees it, too.
        let _freed = catalogue.connection().simple(&unlock).await;
        made
    }

    /// Makes the next template and has it take the place of the one that is there; the lock is held.
    async fn make(
        &self,
        catalogue: &Catalogue,
        admin: &Connection,
        (server, shape): (&str, &Shape),
        plans: &Plans,
        print: &str,
        observer: &Arc<dyn Observer>,
    ) -> Result<Template, Error> {
        let failed = |error: &pgfleet_postgres::Error| template_error(server, shape, error);
        let name = database_name(&self.manifest.solution.name, shape);
        let (next, old) = (format!("{name}_next"), format!("{name}_old"));
        // What a process left that died here.
        for left in [&next, &old] {
            drop_closed(admin, left).await.map_err(|error| failed(&error))?;
        }
        let there = exists(admin, &name).await.map_err(|error| failed(&error))?;
        let mut filled = Err(Error::new(ErrorKind::Failed, "nothing was tried"));
        for source in [there.then_some(name.as_str()), None].into_iter().skip(usize::from(!there)) {
            drop_closed(admin, &next).await.map_err(|error| failed(&error))?;
            filled = Box::pin(self.fill(admin, server, shape, plans, (&next, source), observer)).await;
            if filled.is_ok() {
                break;
            }
        }
        filled?;
        self.swap(admin, shape, &name, there).await.map_err(|error| failed(&error))?;
        let rows = admin
            .query(
                "SELECT oid, pg_catalog.pg_database_size(oid) FROM pg_catalog.pg_database WHERE datname = $1",
                &[(&name, Type::TEXT)],
            )
            .await
            .map_err(|error| failed(&error))?;
        let (oid, bytes) = rows.first().map(|row| (row.get(0), row.get(1))).unwrap_or_default();
        let versions: BTreeMap<&str, Option<String>> = plans
            .iter()
            .filter(|p| shape.services().contains(&p.service))
            .map(|p| (p.service.as_str(), p.version()))
            .collect();
        let template = Template {
            server: server.to_owned(),
            shape: shape.name(),
            services: shape.services().to_vec(),
            database: name,
            plan: print.to_owned(),
            versions: serde_json::json!(versions),
            bytes,
            oid: Some(oid),
            made_at: String::new(),
            current: Some(true),
        };
        let identifier = pgfleet_postgres::identity::system_identifier(admin).await.map_err(|error| failed(&error))?;
        write(catalogue, &template, &identifier).await?;
        let detail =
            serde_json::json!({ "server": server, "database": template.database, "versions": template.versions });
        catalogue.audit("template", &shape.name(), &detail, self.options()).await?;
        drop_closed(admin, &old).await.map_err(|error| failed(&error))?;
        Ok(template)
    }

    /// Makes the database `next`, as a copy of `source` or from nothing, and migrates it.
    async fn fill(
        &self,
        admin: &Connection,
        server: &str,
        shape: &Shape,
        plans: &Plans,
        (next, source): (&str, Option<&str>),
        observer: &Arc<dyn Observer>,
    ) -> Result<(), Error> {
        let failed = |error: &pgfleet_postgres::Error| template_error(server, shape, error);
        let services = shape.of_manifest(&self.manifest)?;
        let desired = desired_tenant_database(&self.manifest, &services, next);
        let owned = owner(&desired).map(|owner| format!(" OWNER {}", quote_ident(owner))).unwrap_or_default();
        let from = source.map_or_else(|| "template0 ENCODING 'UTF8'".to_owned(), quote_ident);
        admin
            .execute_all(&format!("CREATE DATABASE {}{owned} TEMPLATE {from} IS_TEMPLATE false", quote_ident(next)))
            .await
            .map_err(|error| failed(&error))?;
        // Open for the migrators alone.
        let migrators: Vec<String> = desired.iter().map(|d| quote_ident(&d.roles.migrator)).collect();
        let rights = format!(
            "COMMENT ON DATABASE {0} IS {1}; REVOKE ALL ON DATABASE {0} FROM PUBLIC; \
             GRANT CONNECT, TEMPORARY ON DATABASE {0} TO {2}; ALTER DATABASE {0} ALLOW_CONNECTIONS true",
            quote_ident(next),
            quote_literal(&mark(&self.manifest.solution.name, shape)),
            migrators.join(", "),
        );
        admin.execute_all(&rights).await.map_err(|error| failed(&error))?;
        let address = &self.server(server).admin;
        provision_inside(address, &self.manifest, server, &desired, self.vault()).await?;
        let target = FleetTarget::on(TargetKind::Template, server, next, "", shape.services());
        for service in shape.services() {
            let mut job = self.job(plans, &target, service, &BTreeMap::new())?;
            // Seeds are each tenant's own, the tables that record them are not.
            let seeded = job.path.clone();
            for set in Arc::make_mut(&mut job.path).sets_mut() {
                set.seeds = Seeds::default();
            }
            let options = Options { announcer: None, to: None, set: None, ..self.options().clone() };
            let done = match &job.handling {
                Handling::Refused(error) => Err(pgfleet_migrate::Error::from((**error).clone())),
                Handling::ByProgram(program) => {
                    Box::pin(program.migrate(&job.target, &job.path, &options, &**observer)).await
                }
                Handling::Here => Box::pin(run::migrate(&job.target, &job.path, &options, &**observer)).await,
            };
            let recorded = match done {
                Ok(_) => run::make_seed_records(&job.target, &seeded, &options).await,
                Err(error) => Err(error),
            };
            recorded.map_err(|error| {
                Error::of_run(format!("cannot make the template of {} on server {server}", shape.name()), &error)
            })?;
        }
        Ok(())
    }

    /// Has `<name>_next` take the place of `<name>`, in one transaction.
    async fn swap(
        &self,
        admin: &Connection,
        shape: &Shape,
        name: &str,
        there: bool,
    ) -> Result<(), pgfleet_postgres::Error> {
        let (base, next, old) =
            (quote_ident(name), quote_ident(&format!("{name}_next")), quote_ident(&format!("{name}_old")));
        // Closed first, so that nobody comes in behind those who are sent away.
        admin.execute_all(&format!("ALTER DATABASE {next} ALLOW_CONNECTIONS false IS_TEMPLATE true")).await?;
        let send_away = format!(
            "SELECT pg_catalog.pg_terminate_backend(pid, 5000) FROM pg_catalog.pg_stat_activity \
             WHERE datname = {} AND usename IS NOT NULL",
            quote_literal(&format!("{name}_next"))
        );
        admin.execute_all(&send_away).await?;
        let away = if there { format!("ALTER DATABASE {base} RENAME TO {old}; ") } else { String::new() };
        let comment = quote_literal(&mark(&self.manifest.solution.name, shape));
        let swap = format!(
            "BEGIN; {away}ALTER DATABASE {next} RENAME TO {base}; COMMENT ON DATABASE {base} IS {comment}; COMMIT"
        );
        let mut attempt = 1;
        loop {
            match admin.execute_all(&swap).await {
                Ok(()) => return Ok(()),
                // Somebody copies the old one just now; the server has waited 5 s.
                Err(error) if attempt < 20 && matches!(error.sql_state(), Some("55006" | "55P03")) => {
                    admin.execute_all("ROLLBACK").await?;
                    attempt += 1;
                }
                Err(error) => {
                    admin.execute_all("ROLLBACK").await?;
                    return Err(error);
                }
            }
        }
    }
}

fn template_error(server: &str, shape: &Shape, error: &pgfleet_postgres::Error) -> Error {
    Error::postgres(format!("cannot make the template of {} on server {server}", shape.name()), error)
}

/// Finds a template that is at head and whose database is still the one that was made.
async fn present(
    catalogue: &Catalogue,
    admin: &Connection,
    server: &str,
    shape: &Shape,
    print: &str,
) -> Result<Option<Template>, Error> {
    let name = shape.name();
    let all = read(catalogue).await?;
    let Some(found) = all.into_iter().find(|template| template.server == server && template.shape == name) else {
        return Ok(None);
    };
    if found.plan != print {
        return Ok(None);
    }
    let rows = admin
        .query(
            "SELECT oid FROM pg_catalog.pg_database WHERE datname = $1 AND NOT datallowconn",
            &[(&found.database, Type::TEXT)],
        )
        .await
        .map_err(|error| Error::postgres(format!("cannot look for the template {}", found.database), &error))?;
    Ok(rows.first().is_some_and(|row| Some(row.get(0)) == found.oid).then_some(found))
}

fn purpose() -> Purpose {
    Purpose::new("pgfleet template").setting("lock_timeout", "60s").setting("statement_timeout", "0")
}

fn lock_key(server: &str, shape: &str) -> i32 {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(format!("{server}/{shape}").as_bytes());
    i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// Waits, without blocking in the server, until nobody else makes this template.
async fn take_lock(catalogue: &Catalogue, key: i32, server: &str, shape: &Shape) -> Result<(), Error> {
    let failed = |error: &pgfleet_postgres::Error| Error::postgres("cannot lock a template", error);
    for attempt in 1..=LOCK_TRIES {
        let sql = format!("SELECT pg_catalog.pg_try_advisory_lock({MAKING}, {key})");
        let rows = catalogue.connection().simple(&sql).await.map_err(|error| failed(&error))?;
        if rows.first().and_then(|row| row.get(0)) == Some("t") {
            return Ok(());
        }
        tokio::time::sleep(retry::backoff(attempt, Duration::from_millis(20), Duration::from_millis(500))).await;
    }
    Err(Error::new(ErrorKind::Failed, format!("cannot make the template of {} on server {server}", shape.name()))
        .cause("another process has been making it for ten minutes"))
}

/// Drops a template that is not needed, or what is left of making one; says whether nobody makes one of
/// its shape just now.
pub(crate) async fn drop_unused(
    catalogue: &Catalogue,
    admin: &Connection,
    server: &str,
    shape: &str,
    database: &str,
) -> Result<bool, Error> {
    let failed = |error: &pgfleet_postgres::Error| Error::postgres(format!("cannot drop template {database}"), error);
    let key = lock_key(server, shape);
    let lock = format!("SELECT pg_catalog.pg_try_advisory_lock({MAKING}, {key})");
    let rows = catalogue.connection().simple(&lock).await.map_err(|error| failed(&error))?;
    if rows.first().and_then(|row| row.get(0)) != Some("t") {
        return Ok(false);
    }
    let dropped = async {
        drop_closed(admin, database).await?;
        let sql = "DELETE FROM control.templates WHERE server = $1 AND database = $2";
        catalogue.connection().execute(sql, &[(&server, Type::TEXT), (&database, Type::TEXT)]).await
    };
    let dropped = dropped.await;
    let unlock = format!("SELECT pg_catalog.pg_advisory_unlock({MAKING}, {key})");
    // Closing the connection frees it, too.
    let _freed = catalogue.connection().simple(&unlock).await;
    dropped.map(|_| true).map_err(|error| failed(&error))
}

async fn exists(admin: &Connection, name: &str) -> Result<bool, pgfleet_postgres::Error> {
    let sql = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1";
    Ok(!admin.query(sql, &[(&name, Type::TEXT)]).await?.is_empty())
}

/// Drops a template or what was to become one.
async fn drop_closed(admin: &Connection, name: &str) -> Result<(), pgfleet_postgres::Error> {
    if !exists(admin, name).await? {
        return Ok(());
    }
    let quoted = quote_ident(name);
    admin.execute_all(&format!("ALTER DATABASE {quoted} IS_TEMPLATE false")).await?;
    admin.execute_all(&format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)")).await
}

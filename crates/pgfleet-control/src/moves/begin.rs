//! What is looked at before a move, and its row.

use pgfleet_postgres::name::short_name;
use pgfleet_postgres::{Connection, Type};

use super::Order;
use super::programs::{self, Programs};
use super::record::{Move, failed};
use super::run::Mover;
use super::source::Source;
use crate::error::{Error, ErrorKind};
use crate::manifest::Service;
use crate::roles::Login;

/// Roles that own something in a database or have a right there, and whether they own.
const ROLES: &str = "SELECT r.rolname::text, bool_or(u.owns) FROM ( \
    SELECT refobjid AS role, deptype = 'o' AS owns FROM pg_catalog.pg_shdepend \
    WHERE refclassid = 'pg_catalog.pg_authid'::regclass \
      AND dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
    UNION ALL SELECT c.relowner, true FROM pg_catalog.pg_class c WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') \
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e \
        WHERE e.classid = c.tableoid AND e.objid = c.oid AND e.deptype = 'e') \
    UNION ALL SELECT c.proowner, true FROM pg_catalog.pg_proc c WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM \
        pg_catalog.pg_depend e WHERE e.classid = c.tableoid AND e.objid = c.oid AND e.deptype = 'e') \
    UNION ALL SELECT c.nspowner, true FROM pg_catalog.pg_namespace c WHERE c.oid >= 16384 AND NOT EXISTS (SELECT FROM \
        pg_catalog.pg_depend e WHERE e.classid = c.tableoid AND e.objid = c.oid AND e.deptype = 'e') \
      AND c.nspname !~ '^pg_(toast|temp)' \
    ) u JOIN pg_catalog.pg_roles r ON r.oid = u.role GROUP BY 1 ORDER BY 1";

impl Mover<'_> {
    /// Looks whether a database can be copied to another server, and finds the programs for it.
    ///
    /// `source` is a session in the database, `to` one on the other server.
    pub(super) async fn check_copy(
        &self,
        tenant: &str,
        services: &[String],
        (source, to): (&Connection, &Connection),
        (from_server, to_server): (&str, &str),
    ) -> Result<Programs, Error> {
        let cannot = || {
            let database = source.address().database();
            Error::new(ErrorKind::Failed, format!("cannot move database {database} of tenant {tenant} to {to_server}"))
        };
        let failed = |error: &pgfleet_postgres::Error| Error::postgres(cannot().to_string(), error);
        let (old, new) = (source.server_version() / 10_000, to.server_version() / 10_000);
        if new < old {
            return Err(cannot()
                .cause(format!("{to_server} has version {new}, and {from_server} version {old}"))
                .hinted("what a newer server writes, an older one does not read: move to one that is as new"));
        }
        let in_the_way = source
            .simple(
                "SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts \
                         WHERE database = pg_catalog.current_database()), \
                   (SELECT pg_catalog.count(*) FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d \
                      ON d.oid = s.subdbid AND d.datname = pg_catalog.current_database())",
            )
            .await
            .map_err(|error| failed(&error))?;
        let count = |at: usize| in_the_way.first().and_then(|row| row.get(at)).unwrap_or("0").to_owned();
        if count(0) != "0" {
            return Err(cannot()
                .cause(format!("it has prepared transactions ({}), which are not copied", count(0)))
                .hinted("end them: select * from pg_prepared_xacts; COMMIT PREPARED or ROLLBACK PREPARED"));
        }
        if count(1) != "0" {
            return Err(cannot()
                .cause("it subscribes to another database, and its workers would go on writing")
                .hinted("drop the subscription first, and make it anew behind the move"));
        }
        self.check_roles(services, (source, to), to_server, &cannot).await?;
        check_extensions((source, to), to_server, &cannot).await?;
        programs::find(self.solution, old, new).await
    }

    async fn check_roles(
        &self,
        services: &[String],
        (source, to): (&Connection, &Connection),
        server: &str,
        cannot: &(dyn Fn() -> Error + Sync),
    ) -> Result<(), Error> {
        for service in services {
            let service: &Service = crate::jobs::find_service(&self.solution.manifest, service)?;
            for login in [Login::App, Login::Migrator] {
                self.solution.address_on(server, service, login)?;
            }
        }
        let failed = |error: &pgfleet_postgres::Error| Error::postgres(cannot().to_string(), error);
        let rows = source.query(ROLES, &[]).await.map_err(|error| failed(&error))?;
        let (names, owns): (Vec<String>, Vec<bool>) =
            rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, bool>(1))).unzip();
        let right = if to.server_version() >= 160_000 { "SET" } else { "MEMBER" };
        let rows = to
            .query(
                &format!(
                    "SELECT w.name, r.oid IS NULL FROM unnest($1::text[], $2::bool[]) AS w (name, owns) \
                     LEFT JOIN pg_catalog.pg_roles r ON r.rolname = w.name \
                     WHERE r.oid IS NULL OR (w.owns AND NOT pg_catalog.pg_has_role(current_user, r.oid, '{right}')) \
                     ORDER BY 1"
                ),
                &[(&names, Type::TEXT_ARRAY), (&owns, Type::BOOL_ARRAY)],
            )
            .await
            .map_err(|error| failed(&error))?;
        if rows.is_empty() {
            return Ok(());
        }
        let admin = to.address().user();
        let error = rows.iter().fold(cannot(), |error, row| {
            let (name, missing): (&str, bool) = (row.get(0), row.get(1));
            error.cause(if missing {
                format!("role {name} owns something in it or has a right there, and is not on server {server}")
            } else {
                format!(
                    "role {name} owns something in it, and the administrator {admin} of server {server} is no member"
                )
            })
        });
        Err(error.hinted(format!(
            "the services' roles are made by: pgfleet provision; others by you on {server}, or give what they own to \
             the service's owner"
        )))
    }

    /// Writes down that a move begins: from now on services are told that the tenant is being made.
    pub(super) async fn begin_move(
        &self,
        tenant: &str,
        source: &Source,
        order: &Order,
        kept: Option<&Move>,
        to: &Connection,
    ) -> Result<Move, Error> {
        let catalogue = self.catalogue;
        catalogue.begin().await?;
        let work = async {
            crate::tenants::lock(catalogue.connection()).await?;
            if catalogue.unfinished_move(tenant).await?.is_some() {
                return Err(Error::new(ErrorKind::Failed, format!("a move of tenant {tenant} has begun just now"))
                    .hinted(format!("look: pgfleet tenant move {tenant} --status")));
            }
            self.check_unchanged(tenant, source).await?;
            self.refuse_rollout(source).await?;
            let database = match kept {
                Some(kept) => kept.from_database.clone(),
                None => self.free_name(to, &order.server, &source.database).await?,
            };
            let own = kept.is_none_or(|kept| kept.from_own);
            let id = self.insert(tenant, source, order, kept, &database).await?;
            if own {
                self.own_destination(tenant, source, &order.server, &database).await?;
            }
            self.show_alive(id).await?;
            self.set_moving(tenant, true).await?;
            let detail = serde_json::json!({
                "move": id, "from": format!("{}/{}", source.server, source.database),
                "to": format!("{}/{database}", order.server), "back": kept.map(|kept| kept.id),
            });
            catalogue.audit("tenant move", tenant, &detail, self.solution.options()).await?;
            Ok(id)
        };
        let result = Box::pin(work).await;
        let id = catalogue.end(result).await?;
        catalogue.one_move(id).await
    }

    async fn insert(
        &self,
        tenant: &str,
        source: &Source,
        order: &Order,
        kept: Option<&Move>,
        database: &str,
    ) -> Result<i64, Error> {
        let keep = order.keep.unwrap_or(self.solution.manifest.tenants.drop_after).as_secs();
        let rows = self
            .catalogue
            .connection()
            .query(
                "INSERT INTO control.moves (tenant, connections, services, from_server, from_database, from_identifier, \
                   from_oid, from_own, to_server, to_database, to_oid, kept, state, keep_seconds, os_user, host) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'fencing', $13, $14, $15) RETURNING id",
                &[
                    (&tenant, Type::TEXT),
                    (&source.connections, Type::TEXT_ARRAY),
                    (&source.services, Type::TEXT_ARRAY),
                    (&source.server, Type::TEXT),
                    (&source.database, Type::TEXT),
                    (&source.physical.system_identifier, Type::TEXT),
                    (&source.physical.oid, Type::OID),
                    (&source.own, Type::BOOL),
                    (&order.server, Type::TEXT),
                    (&database, Type::TEXT),
                    (&kept.map(|kept| kept.from_oid), Type::OID),
                    (&kept.map(|kept| kept.id), Type::INT8),
                    (&i64::try_from(keep).unwrap_or(i64::MAX), Type::INT8),
                    (&self.solution.options().who.user, Type::TEXT),
                    (&self.solution.options().who.host, Type::TEXT),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(rows.first().map(|row| row.get(0)).unwrap_or_default())
    }

    /// Notes that a database on the new server is pgfleet's; a kept one is not dropped while it is needed.
    pub(super) async fn own_destination(
        &self,
        tenant: &str,
        source: &Source,
        server: &str,
        database: &str,
    ) -> Result<(), Error> {
        let first = source.connections.first().map(String::as_str).unwrap_or_default();
        self.catalogue
            .connection()
            .execute(
                "INSERT INTO control.tenant_databases (server, database, tenant, connection, services, state) \
             VALUES ($1, $2, $3, $4, $5, 'creating') \
             ON CONFLICT (server, database) DO UPDATE SET state = 'creating', drop_after = NULL",
                &[
                    (&server, Type::TEXT),
                    (&database, Type::TEXT),
                    (&tenant, Type::TEXT),
                    (&first, Type::TEXT),
                    (&source.services, Type::TEXT_ARRAY),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        Ok(())
    }

    /// Refuses when the strings lead elsewhere than they did when they were looked at.
    pub(super) async fn check_unchanged(&self, tenant: &str, source: &Source) -> Result<(), Error> {
        let rows = self
            .catalogue
            .connection()
            .query(
                "SELECT pg_catalog.count(*) FROM control.tenant_strings WHERE tenant = $1 AND connection = ANY ($2) \
             AND (system_identifier = '' OR (system_identifier = $3 AND database_oid = $4))",
                &[
                    (&tenant, Type::TEXT),
                    (&source.connections, Type::TEXT_ARRAY),
                    (&source.physical.system_identifier, Type::TEXT),
                    (&source.physical.oid, Type::OID),
                ],
            )
            .await
            .map_err(|error| failed(&error))?;
        let still = rows.first().map(|row| row.get::<_, i64>(0)).unwrap_or_default();
        if usize::try_from(still).unwrap_or_default() == source.connections.len() && !source.connections.is_empty() {
            return Ok(());
        }
        let database = &source.database;
        Err(Error::new(
            ErrorKind::Failed,
            format!("the strings of tenant {tenant} do not lead to database {database} any more"),
        )
        .cause("they were changed while this looked at it, or the database was made anew")
        .hinted(format!("look: pgfleet connection test --tenant {tenant}")))
    }

    /// Finds a name on the new server that nobody has.
    pub(super) async fn free_name(&self, to: &Connection, server: &str, wanted: &str) -> Result<String, Error> {
        let taken = to
            .query("SELECT datname::text FROM pg_catalog.pg_database", &[])
            .await
            .map_err(|error| Error::postgres(format!("cannot look for the databases of server {server}"), &error))?;
        let promised = self
            .catalogue
            .connection()
            .query("SELECT database FROM control.tenant_databases WHERE server = $1", &[(&server, Type::TEXT)])
            .await
            .map_err(|error| failed(&error))?;
        let taken: std::collections::HashSet<&str> = taken.iter().chain(&promised).map(|row| row.get(0)).collect();
        let mut name = wanted.to_owned();
        let mut number = 2;
        while taken.contains(name.as_str()) {
            name = short_name(wanted, &format!("_{number}"));
            number += 1;
        }
        Ok(name)
    }
}

async fn check_extensions(
    (source, to): (&Connection, &Connection),
    server: &str,
    cannot: &(dyn Fn() -> Error + Sync),
) -> Result<(), Error> {
    let failed = |error: &pgfleet_postgres::Error| Error::postgres(cannot().to_string(), error);
    let rows =
        source.query("SELECT extname::text FROM pg_catalog.pg_extension", &[]).await.map_err(|error| failed(&error))?;
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let rows = to
        .query(
            "SELECT w FROM unnest($1::text[]) AS w WHERE w NOT IN (SELECT name FROM pg_catalog.pg_available_extensions)",
            &[(&names, Type::TEXT_ARRAY)],
        )
        .await
        .map_err(|error| failed(&error))?;
    if rows.is_empty() {
        return Ok(());
    }
    let missing: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    Err(cannot()
        .cause(format!("server {server} does not have what it uses: extension {}", missing.join(", ")))
        .hinted("install the extension's package there"))
}

//! The new database: made closed, filled, given its rights.

use std::collections::BTreeSet;

use pgfleet_postgres::{Connection, Type, quote_ident, quote_literal};

use super::fence::{self, Grantee};
use super::record::Move;
use super::run::Mover;
use crate::error::{Error, ErrorKind};
use crate::provision::desired::DesiredDatabase;
use crate::provision::tenant::{desired_tenant_database, open_sql, owner, tenant_mark};

/// Settings whose value is a list of names, which stands there as it is written in SQL.
const LISTS: [&str; 6] = [
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
];

/// How often a database is dropped again that the server finished making for an earlier try. One who died
/// leaves one statement behind, so that a few are plenty.
const LATE: u32 = 4;

/// The comment on the database while it is filled.
fn mark(solution: &str, work: &Move) -> String {
    format!("{}, move {}", tenant_mark(solution, &work.tenant), work.id)
}

fn cannot_make(work: &Move) -> String {
    format!("cannot make database {} on server {}", work.to_database, work.to_server)
}

impl Mover<'_> {
    /// Makes the new database of a move, empty and open to the administrator alone; what an earlier try
    /// left is dropped. Returns its oid, and what is worth knowing.
    pub(super) async fn make_destination(
        &self,
        work: &mut Move,
        from: &Connection,
        to: &Connection,
    ) -> Result<(u32, Vec<String>), Error> {
        self.drop_destination(work, to).await?;
        if work.to_oid.take().is_some() {
            // Forgotten before the next one is made: one that the server makes when this process dies has no mark yet,
            // and is known by there being no other.
            self.catalogue.advance_move(work).await?;
        }
        let work = &*work;
        let failed = |error: &pgfleet_postgres::Error| Error::postgres(cannot_make(work), error);
        let look = look_of(from, &work.from_database).await.map_err(|error| failed(&error))?;
        let name = quote_ident(&work.to_database);
        let mut notes = Vec::new();
        let create = |locale: &str| {
            format!(
                "CREATE DATABASE {name} TEMPLATE template0 ENCODING {}{locale} CONNECTION LIMIT {} \
                 ALLOW_CONNECTIONS false IS_TEMPLATE false",
                quote_literal(&look.encoding),
                look.limit
            )
        };
        let (mut sql, mut late) = (create(&look.locale_sql()), 0);
        while let Err(error) = to.execute_all(&sql).await {
            match error.sql_state() {
                // The server was still at making it for one who died: until it had made it, nobody could see it.
                Some("42P04" | "23505") if late < LATE => {
                    late += 1;
                    self.drop_destination(work, to).await?;
                }
                // A locale that this system or this build does not have.
                Some("22023" | "42809" | "0A000" | "42704") if notes.is_empty() => {
                    sql = create("");
                    notes.push(format!(
                        "server {} does not know the locale {} of the old database: texts are sorted as in its \
                         other databases",
                        work.to_server, look.collate
                    ));
                }
                _ => return Err(failed(&error)),
            }
        }
        let comment = quote_literal(&mark(&self.solution.manifest.solution.name, work));
        let mut sql = format!("COMMENT ON DATABASE {name} IS {comment}; REVOKE ALL ON DATABASE {name} FROM PUBLIC");
        // What is in the schema `public` belongs to roles that may make it there as the database's owner.
        if let Some(owner) = owner(&self.desired(work)?) {
            let (owner, admin) = (quote_ident(owner), quote_ident(to.address().user()));
            sql.push_str(&format!(
                "; ALTER DATABASE {name} OWNER TO {owner}; GRANT CONNECT ON DATABASE {name} TO {admin}; \
                 REVOKE CONNECT ON DATABASE {name} FROM {owner}"
            ));
        }
        for setting in &look.settings {
            sql.push_str(&setting.sql(&work.to_database));
        }
        sql.push_str(&format!("; ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
        to.execute_all(&sql).await.map_err(|error| failed(&error))?;
        let oid = oid_of(to, &work.to_database).await.map_err(|error| failed(&error))?;
        let oid = oid.ok_or_else(|| {
            Error::new(ErrorKind::Failed, cannot_make(work)).cause("somebody dropped it as soon as it was made")
        })?;
        Ok((oid, notes))
    }

    /// Returns what the services of a move want of its new database.
    fn desired(&self, work: &Move) -> Result<Vec<DesiredDatabase>, Error> {
        let services: Vec<_> = work
            .services
            .iter()
            .map(|name| crate::jobs::find_service(&self.solution.manifest, name))
            .collect::<Result<_, _>>()?;
        Ok(desired_tenant_database(&self.solution.manifest, &services, &work.to_database))
    }

    /// Lets the services' owners make things in every schema that the administrator makes.
    ///
    /// Things are made first and given to their owners, and rights on schemas come last: an administrator
    /// that is no superuser could give nobody a thing in another's schema.
    pub(super) async fn lend_schemas(&self, work: &Move, inside: &Connection) -> Result<(), Error> {
        if is_superuser(inside).await.map_err(|error| Error::postgres(cannot_make(work), &error))? {
            return Ok(());
        }
        let sql = format!("ALTER DEFAULT PRIVILEGES GRANT USAGE, CREATE ON SCHEMAS TO {}", self.owners(work)?);
        inside.execute_all(&sql).await.map_err(|error| Error::postgres(cannot_make(work), &error))
    }

    /// Takes back what was lent and is not in the old database.
    pub(super) async fn return_schemas(
        &self,
        work: &Move,
        source: &Connection,
        inside: &Connection,
    ) -> Result<(), Error> {
        let failed = |error: &pgfleet_postgres::Error| Error::postgres(cannot_make(work), error);
        if is_superuser(inside).await.map_err(|error| failed(&error))? {
            return Ok(());
        }
        let rights = async |connection: &Connection| {
            let sql = "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.quote_ident(r.rolname), a.privilege_type \
                       FROM pg_catalog.pg_namespace n CROSS JOIN pg_catalog.aclexplode(n.nspacl) a \
                       JOIN pg_catalog.pg_roles r ON r.oid = a.grantee \
                       WHERE a.grantee <> n.nspowner AND n.nspname !~ '^pg_'";
            let rows = connection.query(sql, &[]).await?;
            Ok(rows
                .iter()
                .map(|row| (row.get(0), row.get(1), row.get(2)))
                .collect::<BTreeSet<(String, String, String)>>())
        };
        let before = rights(source).await.map_err(|error| failed(&error))?;
        let now = rights(inside).await.map_err(|error| failed(&error))?;
        let mut sql = format!("ALTER DEFAULT PRIVILEGES REVOKE USAGE, CREATE ON SCHEMAS FROM {}", self.owners(work)?);
        for (schema, role, right) in now.difference(&before) {
            sql.push_str(&format!("; REVOKE {right} ON SCHEMA {schema} FROM {role}"));
        }
        inside.execute_all(&sql).await.map_err(|error| failed(&error))
    }

    fn owners(&self, work: &Move) -> Result<String, Error> {
        let owners: Vec<String> = self.desired(work)?.iter().map(|d| quote_ident(&d.roles.owner)).collect();
        Ok(owners.join(", "))
    }

    /// Drops what a move made so far; a database of that name that somebody else made is an error.
    pub(super) async fn drop_destination(&self, work: &Move, to: &Connection) -> Result<(), Error> {
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(format!("cannot drop database {} on server {}", work.to_database, work.to_server), error)
        };
        let rows = to
            .query(
                "SELECT oid, datallowconn, coalesce(pg_catalog.shobj_description(oid, 'pg_database'), '') \
                 FROM pg_catalog.pg_database WHERE datname = $1",
                &[(&work.to_database, Type::TEXT)],
            )
            .await
            .map_err(|error| failed(&error))?;
        let Some(row) = rows.first() else { return Ok(()) };
        let (oid, open, comment): (u32, bool, &str) = (row.get(0), row.get(1), row.get(2));
        let ours = comment == mark(&self.solution.manifest.solution.name, work)
            // One that was made and not marked yet.
            || (comment.is_empty() && !open && work.to_oid.is_none())
            || Some(oid) == work.to_oid;
        if !ours {
            return Err(Error::new(ErrorKind::Failed, cannot_make(work))
                .cause("there is a database of this name that this move did not make")
                .hinted(format!("rename it, or take the move back: pgfleet tenant move {} --cancel", work.tenant)));
        }
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(&work.to_database));
        to.execute_all(&sql).await.map_err(|error| failed(&error))
    }

    /// Gives the new database its owner and its rights, and opens it to the services' roles and to those
    /// others who could connect to the old one.
    pub(super) async fn open_destination(&self, work: &Move, to: &Connection) -> Result<(), Error> {
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(format!("cannot open database {} on server {}", work.to_database, work.to_server), error)
        };
        let desired = self.desired(work)?;
        let before: Vec<Grantee> = fence::read(work.fenced.as_ref());
        let mut sql =
            open_sql(&desired, &work.to_database, &tenant_mark(&self.solution.manifest.solution.name, &work.tenant));
        if let Some(owner) = owner(&desired) {
            let (name, admin) = (quote_ident(&work.to_database), to.address().user());
            sql.push_str(&format!("; GRANT CONNECT ON DATABASE {name} TO {}", quote_ident(owner)));
            if !fence::names(&before, admin) {
                sql.push_str(&format!("; REVOKE CONNECT ON DATABASE {name} FROM {}", quote_ident(admin)));
            }
        }
        to.execute_all(&sql).await.map_err(|error| failed(&error))?;
        // Of a database that somebody gave, everybody may have been let in; of ours, only those named.
        let fence = fence::Fence { admin: to, database: &work.to_database, oid: work.to_oid.unwrap_or_default() };
        fence.admit(&before).await
    }
}

async fn is_superuser(connection: &Connection) -> Result<bool, pgfleet_postgres::Error> {
    let rows = connection.simple("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user").await?;
    Ok(rows.first().and_then(|row| row.get(0)) == Some("t"))
}

/// Finds a database.
pub(super) async fn oid_of(admin: &Connection, name: &str) -> Result<Option<u32>, pgfleet_postgres::Error> {
    let rows = admin.query("SELECT oid FROM pg_catalog.pg_database WHERE datname = $1", &[(&name, Type::TEXT)]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// What a dump does not hold of a database.
struct Look {
    encoding: String,
    collate: String,
    ctype: String,
    provider: String,
    locale: Option<String>,
    limit: i32,
    settings: Vec<Setting>,
}

struct Setting {
    role: Option<String>,
    name: String,
    value: String,
}

impl Look {
    fn locale_sql(&self) -> String {
        let mut sql = format!(" LC_COLLATE {} LC_CTYPE {}", quote_literal(&self.collate), quote_literal(&self.ctype));
        let (provider, clause) = match self.provider.as_str() {
            "i" => ("icu", "ICU_LOCALE"),
            "b" => ("builtin", "BUILTIN_LOCALE"),
            _ => ("libc", ""),
        };
        sql.push_str(&format!(" LOCALE_PROVIDER {provider}"));
        if let (Some(locale), false) = (&self.locale, clause.is_empty()) {
            sql.push_str(&format!(" {clause} {}", quote_literal(locale)));
        }
        sql
    }
}

impl Setting {
    fn sql(&self, database: &str) -> String {
        let database = quote_ident(database);
        let whose = match &self.role {
            Some(role) => format!("ROLE {} IN DATABASE {database}", quote_ident(role)),
            None => format!("DATABASE {database}"),
        };
        let value = if LISTS.contains(&self.name.as_str()) { self.value.clone() } else { quote_literal(&self.value) };
        format!("; ALTER {whose} SET {} TO {value}", self.name)
    }
}

async fn look_of(admin: &Connection, database: &str) -> Result<Look, pgfleet_postgres::Error> {
    let locale = if admin.server_version() >= 170_000 { "datlocale" } else { "daticulocale" };
    let rows = admin
        .query(
            &format!(
                "SELECT pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, \
                 datlocprovider::text, {locale}::text, datconnlimit FROM pg_catalog.pg_database WHERE datname = $1"
            ),
            &[(&database, Type::TEXT)],
        )
        .await?;
    let settings = admin
        .query(
            "SELECT r.rolname::text, pg_catalog.split_part(x, '=', 1), \
               pg_catalog.substr(x, pg_catalog.strpos(x, '=') + 1) \
             FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase \
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole CROSS JOIN pg_catalog.unnest(s.setconfig) x \
             WHERE d.datname = $1 AND (s.setrole = 0 OR r.oid IS NOT NULL)",
            &[(&database, Type::TEXT)],
        )
        .await?;
    let settings =
        settings.iter().map(|row| Setting { role: row.get(0), name: row.get(1), value: row.get(2) }).collect();
    let Some(row) = rows.first() else {
        let message = format!("there is no database {database}");
        return Err(pgfleet_postgres::Error::new(pgfleet_postgres::ErrorKind::DatabaseMissing, message));
    };
    Ok(Look {
        encoding: row.get(0),
        collate: row.get(1),
        ctype: row.get(2),
        provider: row.get(3),
        locale: row.get(4),
        limit: row.get(5),
        settings,
    })
}

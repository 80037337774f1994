//! A database of a tenant, or the template of one: several services in one, each in a schema of its own.

use std::collections::BTreeSet;

use pgfleet_postgres::{Address, Connection, Purpose, Type, connect, quote_ident, quote_literal};

use super::desired::{DesiredDatabase, DesiredServer, guests};
use super::run::{Provisioned, inside, role_names};
use super::state::read_server;
use super::steps::owns_meta;
use crate::connections::has_tenants;
use crate::error::Error;
use crate::manifest::{Manifest, Service};
use crate::roles::Login;
use crate::vault::Vault;

/// Returns what each of the services wants in a database that they share.
///
/// Guests are those of the service's own database, as far as they have tenants themselves: the others
/// are told of no tenant's database, and have no role where it may be.
pub(crate) fn desired_tenant_database(manifest: &Manifest, services: &[&Service], name: &str) -> Vec<DesiredDatabase> {
    let told = |guest: &str| manifest.service(guest).is_some_and(has_tenants);
    let desired = services.iter().map(|service| {
        let guests = guests(manifest, service).into_iter().filter(|guest| told(&guest.service)).collect();
        DesiredDatabase::of(service, name, guests)
    });
    desired.collect()
}

/// Returns the role that owns such a database: the service's when there is one, else the administrator,
/// since whoever owns a database may drop it.
pub(crate) fn owner(desired: &[DesiredDatabase]) -> Option<&str> {
    match desired {
        [only] => Some(&only.roles.owner),
        _ => None,
    }
}

/// How the comments on all tenants' databases of a solution begin.
pub(crate) fn tenant_family(solution: &str) -> String {
    format!("pgfleet: solution {solution}, tenant ")
}

/// The comment on a tenant's database.
pub(crate) fn tenant_mark(solution: &str, tenant: &str) -> String {
    format!("{}{tenant}", tenant_family(solution))
}

/// What a server says of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Its oid.
    pub(crate) oid: u32,
    /// Whether anybody can connect.
    pub(crate) open: bool,
    /// Its comment; empty when there is none.
    pub(crate) comment: String,
    /// Who owns it.
    pub(crate) owner: String,
    /// Who asked.
    pub(crate) asker: String,
}

impl Seen {
    /// Looks for a database.
    pub(crate) async fn of(admin: &Connection, database: &str) -> Result<Option<Self>, Error> {
        let rows = admin
            .query(
                "SELECT oid, datallowconn, coalesce(pg_catalog.shobj_description(oid, 'pg_database'), ''), \
                 pg_catalog.pg_get_userbyid(datdba)::text, current_user::text \
                 FROM pg_catalog.pg_database WHERE datname = $1",
                &[(&database, Type::TEXT)],
            )
            .await
            .map_err(|error| Error::postgres(format!("cannot look for database {database}"), &error))?;
        Ok(rows.first().map(|row| Self {
            oid: row.get(0),
            open: row.get(1),
            comment: row.get(2),
            owner: row.get(3),
            asker: row.get(4),
        }))
    }

    /// Returns whether it is marked as a tenant's of this solution.
    pub(crate) fn is_marked(&self, solution: &str) -> bool {
        self.comment.starts_with(&tenant_family(solution))
    }

    /// Returns whether it is what a process leaves that dies between making a copy and marking it; `owner`
    /// is the role that owns such copies, none for the administrator.
    pub(crate) fn is_half_made(&self, owner: Option<&str>) -> bool {
        !self.open && self.comment.is_empty() && self.owner == owner.unwrap_or(&self.asker)
    }
}

/// Returns the statements that give a database that was just made its mark and rights, and open it.
///
/// One text, so that it is one transaction: the database is either closed or as it should be.
pub(crate) fn open_sql(desired: &[DesiredDatabase], name: &str, mark: &str) -> String {
    let database = quote_ident(name);
    let mut sql = format!(
        "COMMENT ON DATABASE {database} IS {}; REVOKE ALL ON DATABASE {database} FROM PUBLIC",
        quote_literal(mark)
    );
    let rights: BTreeSet<(&str, &str)> = desired.iter().flat_map(DesiredDatabase::rights).collect();
    for right in ["CONNECT", "TEMPORARY"] {
        let roles: Vec<String> =
            rights.iter().filter(|(_, given)| *given == right).map(|(role, _)| quote_ident(role)).collect();
        sql.push_str(&format!("; GRANT {right} ON DATABASE {database} TO {}", roles.join(", ")));
    }
    sql.push_str(&format!("; ALTER DATABASE {database} ALLOW_CONNECTIONS true IS_TEMPLATE false"));
    sql
}

/// Makes schemas, extensions and default rights of all services in a database that is open.
///
/// # Errors
///
/// The database cannot be reached, or the administrator may not do something.
pub(crate) async fn provision_inside(
    admin: &Address,
    manifest: &Manifest,
    server: &str,
    desired: &[DesiredDatabase],
    vault: &Vault,
) -> Result<(), Error> {
    let whole = DesiredServer::of(manifest, server);
    let failed = |error: &pgfleet_postgres::Error| Error::postgres(format!("cannot look at server {server}"), error);
    let connection = connect(admin, &Purpose::new("pgfleet provision")).await.map_err(|error| failed(&error))?;
    let state = read_server(&connection, &role_names(&whole), &whole.family()).await;
    connection.close().await;
    let state = state.map_err(|error| failed(&error))?;
    let at_home = |role: &str| {
        desired.iter().any(|database| {
            let roles = &database.roles;
            role == roles.owner || Login::ALL.into_iter().any(|login| roles.both(login).contains(&role))
        })
    };
    let all = whole.roles().chain(state.family.iter().map(String::as_str));
    let others: BTreeSet<String> = all.filter(|role| !at_home(role)).map(str::to_owned).collect();
    let mut done = Provisioned::of_control(server, Vec::new());
    for database in desired {
        inside(admin, database, vault, (owns_meta(&state), &others), &mut done).await?;
    }
    Ok(())
}

//! A database of a tenant, or the template of one: several services in one, each in a schema of its own.

use std::collections::BTreeSet;

use pgfleet_postgres::{Address, Purpose, connect, quote_ident, quote_literal};

use super::desired::{DesiredDatabase, DesiredServer, guests};
use super::run::{Provisioned, inside, role_names};
use super::state::read_server;
use super::steps::owns_meta;
use crate::error::Error;
use crate::manifest::{Manifest, Service};
use crate::roles::{Login, Roles};
use crate::vault::Vault;

/// Returns what each of the services wants in a database that they share.
pub(crate) fn desired_tenant_database(manifest: &Manifest, services: &[&Service], name: &str) -> Vec<DesiredDatabase> {
    services
        .iter()
        .map(|service| DesiredDatabase {
            service: service.name.clone(),
            name: name.to_owned(),
            schema: service.schema.clone(),
            roles: Roles::of(&service.name),
            extensions: service.extensions.clone(),
            // Of those that live in the same database.
            guests: guests(manifest, service)
                .into_iter()
                .filter(|guest| services.iter().any(|other| other.name == guest.service))
                .collect(),
            pool: service.pool.max,
        })
        .collect()
}

/// Returns the role that owns such a database: the service's when there is one, else the administrator,
/// since whoever owns a database may drop it.
pub(crate) fn owner(desired: &[DesiredDatabase]) -> Option<&str> {
    match desired {
        [only] => Some(&only.roles.owner),
        _ => None,
    }
}

/// How the comment on a tenant's database begins.
pub(crate) fn tenant_mark(solution: &str, tenant: &str) -> String {
    format!("pgfleet: solution {solution}, tenant {tenant}")
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
    let join = |roles: Vec<&str>| roles.into_iter().map(quote_ident).collect::<Vec<_>>().join(", ");
    let working = join(desired.iter().flat_map(|d| [d.roles.migrator.as_str(), d.roles.app.as_str()]).collect());
    let reading = join(desired.iter().map(|d| d.roles.readonly.as_str()).collect());
    sql.push_str(&format!("; GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {working}"));
    sql.push_str(&format!("; GRANT CONNECT ON DATABASE {database} TO {reading}"));
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

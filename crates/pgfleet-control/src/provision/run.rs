//! Executing the steps, one provisioner at a time per server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pgfleet_postgres::lock::{self, LockKey};
use pgfleet_postgres::{Address, Connection, ErrorKind as PgErrorKind, Purpose, connect, retry};
use serde::Serialize;

use super::budget::Capacity;
use super::desired::{DesiredDatabase, DesiredServer};
use super::role_steps::Passwords;
use super::state::{
    ContentState, ServerState, read_content, read_guests_lacking, read_histories, read_lacking, read_server,
    read_strays,
};
use super::steps::{Step, conflicts, content_steps, owns_meta, server_steps};
use crate::error::{Error, ErrorKind};
use crate::roles::{Login, META};
use crate::vault::{Credential, Keeper, Vault};

/// How long to wait for another provisioner.
const LOCK_TRIES: u32 = 240;

/// What provisioning one server did, or would do.
#[derive(Debug, Clone, Serialize)]
pub struct Provisioned {
    /// The server's name.
    pub server: String,
    /// The statements, in order, as `database: statement`; passwords do not appear in them.
    pub statements: Vec<Statement>,
    /// The databases that were made.
    pub created: Vec<String>,
    /// Identifies the cluster; empty when we may not read it.
    pub system_identifier: String,
    /// The server's version as a number: 150020.
    pub version: u32,
    /// The oids of the services' databases.
    pub oids: BTreeMap<String, u32>,
    /// What is worth knowing and stops nothing.
    pub notes: Vec<String>,
    /// How many connections the server takes.
    #[serde(skip)]
    pub capacity: Capacity,
}

/// One statement with the database it runs in.
#[derive(Debug, Clone, Serialize)]
pub struct Statement {
    /// The database; none for the administrator's.
    pub database: Option<String>,
    /// The SQL.
    pub sql: String,
}

impl Provisioned {
    /// Makes the part of a dry run that is about the control database.
    pub(crate) fn of_control(server: &str, statements: Vec<String>) -> Self {
        Self {
            server: server.to_owned(),
            statements: statements.into_iter().map(|sql| Statement { database: None, sql }).collect(),
            created: Vec::new(),
            system_identifier: String::new(),
            version: 0,
            oids: BTreeMap::new(),
            notes: Vec::new(),
            capacity: Capacity::default(),
        }
    }
}

impl From<&Step> for Statement {
    fn from(step: &Step) -> Self {
        Self { database: step.database.clone(), sql: step.sql.replace(":password", "'***'") }
    }
}

/// Makes one server what it should be, or says what would be done.
///
/// Idempotent and safe when several run at once: each statement brings the server nearer, and a
/// process that dies in the middle leaves a state that the next run goes on from. A database stays
/// closed until its rights are set.
///
/// `vault` must hold a credential for every login; see [`missing_credentials`]. When there is
/// something to do it is read again from `keeper`, under the lock: somebody else may have rotated a
/// password in between.
pub async fn provision_server(
    admin: &Address,
    desired: &DesiredServer,
    vault: &Vault,
    keeper: &Keeper,
    dry_run: bool,
) -> Result<Provisioned, Error> {
    let failed = |error: &pgfleet_postgres::Error| {
        Error::postgres(format!("cannot provision server {} ({})", desired.server, admin.server()), error)
    };
    let connection = connect(admin, &Purpose::new("pgfleet provision").setting("lock_timeout", "10s"))
        .await
        .map_err(|e| failed(&e))?;
    let result = with(&connection, admin, desired, (vault, keeper), dry_run).await;
    connection.close().await;
    result
}

async fn with(
    connection: &Connection,
    admin: &Address,
    desired: &DesiredServer,
    (vault, keeper): (&Vault, &Keeper),
    dry_run: bool,
) -> Result<Provisioned, Error> {
    let failed = |error: &pgfleet_postgres::Error| {
        Error::postgres(format!("cannot provision server {} ({})", desired.server, admin.server()), error)
    };
    let (roles, family) = (role_names(desired), desired.family());
    // A look without the lock: most of the time nothing is to be done, and nobody has to wait.
    let mut state = read_server(connection, &roles, &family).await.map_err(|error| failed(&error))?;
    let mut passwords = passwords(admin, desired, vault, &state).await;
    let mut steps = server_steps(desired, &state, &passwords);
    let mut provisioned = Provisioned {
        server: desired.server.clone(),
        statements: Vec::new(),
        created: Vec::new(),
        system_identifier: state.system_identifier.clone(),
        version: state.version,
        oids: BTreeMap::new(),
        notes: notes(desired, state.capacity),
        capacity: state.capacity,
    };
    refuse_conflicts(desired, &state)?;
    if dry_run {
        provisioned.statements = steps.iter().map(Statement::from).collect();
        for database in &desired.databases {
            let others = others(desired, database, &state);
            let content = match state.databases.get(&database.name) {
                Some(found) if found.open => Some(look_inside(admin, database, &others).await?),
                _ => None,
            };
            let content = content.unwrap_or_else(|| fresh(&database.roles.owner));
            provisioned
                .statements
                .extend(content_steps(database, &content, owns_meta(&state), &others).iter().map(Statement::from));
        }
        return Ok(provisioned);
    }
    if !steps.is_empty() {
        take_lock(connection, &desired.server).await?;
        // Another provisioner may have done it all while we waited.
        state = read_server(connection, &roles, &family).await.map_err(|error| failed(&error))?;
        refuse_conflicts(desired, &state)?;
        let vault = keeper.read().await?;
        passwords = self::passwords(admin, desired, &vault, &state).await;
        steps = server_steps(desired, &state, &passwords);
        let done = execute(connection, &steps, &desired.server, &vault, &mut provisioned).await;
        // Freed for those who poll; closing the connection frees it too.
        let _freed = lock::unlock(connection, LockKey::Provision).await;
        done?;
        for database in desired.databases.iter().filter(|d| !state.databases.contains_key(&d.name)) {
            provisioned.created.push(database.name.clone());
        }
        state = read_server(connection, &roles, &family).await.map_err(|error| failed(&error))?;
    }
    for database in &desired.databases {
        let others = others(desired, database, &state);
        inside(admin, database, vault, (owns_meta(&state), &others), &mut provisioned).await?;
        if let Some(found) = state.databases.get(&database.name) {
            provisioned.oids.insert(database.name.clone(), found.oid);
        }
    }
    Ok(provisioned)
}

/// What is worth knowing about the server's connections.
fn notes(desired: &DesiredServer, capacity: Capacity) -> Vec<String> {
    let Some(shares) = desired.shares(Some(capacity)) else { return Vec::new() };
    let server = &desired.server;
    shares.shortage(server).into_iter().chain(shares.excess(server, capacity)).collect()
}

pub(super) fn role_names(desired: &DesiredServer) -> Vec<String> {
    [META].into_iter().chain(desired.roles()).map(str::to_owned).collect()
}

/// The roles of all other services: here, visiting, and of those that the manifest has no longer.
fn others(desired: &DesiredServer, database: &DesiredDatabase, state: &ServerState) -> BTreeSet<String> {
    let all = desired.roles().chain(state.family.iter().map(String::as_str));
    let own = |role: &str| {
        let roles = &database.roles;
        role == roles.owner || Login::ALL.into_iter().any(|login| roles.both(login).contains(&role))
    };
    all.filter(|role| !own(role)).map(str::to_owned).collect()
}

fn refuse_conflicts(desired: &DesiredServer, state: &ServerState) -> Result<(), Error> {
    let found = conflicts(desired, state);
    let Some(first) = found.first() else { return Ok(()) };
    let mut error = Error::new(ErrorKind::Configuration, format!("cannot provision server {}", desired.server));
    for conflict in &found {
        error = error.cause(conflict.message.clone());
    }
    Err(error.hinted(first.hint.clone()))
}

/// Returns the login roles for which the vault has no password yet: the first of a login, when neither
/// it nor its twin has one.
pub fn missing_credentials(desired: &DesiredServer, vault: &Vault) -> Vec<String> {
    desired
        .logins()
        .filter(|(_, roles, login)| vault.active(&desired.server, roles, *login).is_none())
        .map(|(_, roles, login)| roles.login(login).to_owned())
        .collect()
}

/// Finds which login roles have a password, and existing ones whose stored password does not work; one
/// that works is never changed.
async fn passwords(admin: &Address, desired: &DesiredServer, vault: &Vault, state: &ServerState) -> Passwords {
    let mut passwords = Passwords::default();
    for (service, roles, login) in desired.logins() {
        for role in roles.both(login) {
            let Some(credential) = vault.get(&desired.server, role) else { continue };
            passwords.known.insert(role.to_owned());
            let Some(found) = state.roles.get(role) else { continue };
            // The verifier on the server is the one that we set: no login needed to know.
            if found.verifier.as_deref() == Some(credential.verifier.as_str()) {
                continue;
            }
            let database = desired.databases.iter().find(|database| {
                database.service == service || database.guests.iter().any(|guest| guest.service == service)
            });
            // One that is here for its tenants asks for them there. Where it may enter nothing of ours, it is
            // told so only after its password was taken.
            let database = database.map(|database| database.name.as_str()).or(desired.control.as_deref());
            let database = database.unwrap_or(admin.database());
            if !password_works(admin, role, credential, database, state).await {
                passwords.failing.insert(role.to_owned());
            }
        }
    }
    passwords
}

/// Tries a login; only a refused password means that it does not work.
async fn password_works(
    admin: &Address,
    role: &str,
    credential: &Credential,
    database: &str,
    state: &ServerState,
) -> bool {
    // Nobody can use the password of a role that may not log in: setting it again harms nobody.
    if state.roles.get(role).is_some_and(|found| !found.login) {
        return false;
    }
    let address = admin.with_user(role, Some(credential.password.clone())).with_database(database);
    match connect(&address, &Purpose::new("pgfleet provision")).await {
        Ok(connection) => {
            connection.close().await;
            true
        }
        Err(error) => error.sql_state() != Some("28P01"),
    }
}

async fn take_lock(connection: &Connection, server: &str) -> Result<(), Error> {
    let failed = |error: &pgfleet_postgres::Error| {
        Error::postgres(format!("cannot lock server {server} for provisioning"), error)
    };
    for attempt in 1..=LOCK_TRIES {
        if lock::try_lock(connection, LockKey::Provision).await.map_err(|error| failed(&error))? {
            return Ok(());
        }
        tokio::time::sleep(retry::backoff(attempt, Duration::from_millis(20), Duration::from_millis(500))).await;
    }
    let mut error = Error::new(ErrorKind::Failed, format!("cannot lock server {server} for provisioning"));
    if let Ok(Some(holder)) = lock::holder(connection, LockKey::Provision).await {
        error = error.cause(format!("another provisioner holds it: {holder}"));
    }
    Err(error)
}

/// Runs steps on a connection, in order, and keeps what ran.
async fn execute(
    connection: &Connection,
    steps: &[Step],
    server: &str,
    vault: &Vault,
    provisioned: &mut Provisioned,
) -> Result<(), Error> {
    for step in steps {
        let sql = match &step.password_of {
            Some(role) => {
                let credential = vault
                    .get(server, role)
                    .ok_or_else(|| Error::new(ErrorKind::Failed, format!("there is no password for role {role}")))?;
                // The verifier, so that the password itself reaches neither the wire nor a log.
                step.sql.replace(":password", &pgfleet_postgres::quote_literal(&credential.verifier))
            }
            None => step.sql.clone(),
        };
        let mut attempt = 1;
        loop {
            match connection.execute_all(&sql).await {
                Ok(()) => break,
                // Somebody else made it between our look and now: the aim is reached. The catalog's
                // own unique indexes answer a race with 23505.
                Err(error) if matches!(error.sql_state(), Some("42710" | "42P04" | "42P06" | "23505")) => break,
                // Two changed one catalog row at once (XX000 `tuple concurrently updated`), or
                // somebody is connected to a template (55006): a moment later it works.
                Err(error)
                    if attempt < 5
                        && (matches!(error.sql_state(), Some("55006"))
                            || error.server().is_some_and(|s| s.message.contains("concurrently"))) =>
                {
                    tokio::time::sleep(retry::backoff(attempt, Duration::from_millis(20), Duration::from_secs(1)))
                        .await;
                    attempt += 1;
                }
                Err(error) => return Err(refused(step, server, &error)),
            }
        }
        provisioned.statements.push(Statement::from(step));
    }
    Ok(())
}

fn refused(step: &Step, server: &str, error: &pgfleet_postgres::Error) -> Error {
    let place = step.database.as_deref().map(|name| format!(" in database {name}")).unwrap_or_default();
    let own = Error::postgres(format!("cannot provision server {server}{place}"), error)
        .cause(format!("statement: {}", step.sql.replace(":password", "'***'")));
    match error.sql_state() {
        Some("42501") => own.hinted(
            "the administrator's role needs CREATEDB and CREATEROLE (and must be allowed to make this extension); \
             `pgfleet provision --dry-run` prints the statements for somebody who may run them",
        ),
        Some("0A000" | "58P01") if step.sql.starts_with("CREATE EXTENSION") => own.hinted(
            "the extension is not installed on the server: install its package, or remove it from `extensions`",
        ),
        _ => own,
    }
}

async fn open(admin: &Address, database: &DesiredDatabase) -> Result<Connection, Error> {
    let address = admin.with_database(&database.name);
    connect(&address, &Purpose::new("pgfleet provision").setting("lock_timeout", "10s"))
        .await
        .map_err(|error| Error::postgres(format!("cannot provision database {}", database.name), &error))
}

async fn look_inside(
    admin: &Address,
    database: &DesiredDatabase,
    others: &BTreeSet<String>,
) -> Result<ContentState, Error> {
    let connection = open(admin, database).await?;
    let read = read_inside(&connection, database, others).await;
    connection.close().await;
    read.map_err(|error| Error::postgres(format!("cannot read database {}", database.name), &error))
}

async fn read_inside(
    connection: &Connection,
    database: &DesiredDatabase,
    others: &BTreeSet<String>,
) -> Result<ContentState, pgfleet_postgres::Error> {
    let roles = &database.roles;
    let mut content = read_content(connection).await?;
    content.lacking = read_lacking(connection, &roles.owner, &roles.app, &roles.readonly).await?;
    content.lacking.extend(read_guests_lacking(connection, &roles.owner, &database.guests).await?);
    content.histories = read_histories(connection).await?;
    content.strays = read_strays(connection, others).await?;
    Ok(content)
}

pub(super) async fn inside(
    admin: &Address,
    database: &DesiredDatabase,
    vault: &Vault,
    (with_meta, others): (bool, &BTreeSet<String>),
    provisioned: &mut Provisioned,
) -> Result<(), Error> {
    let connection = open(admin, database).await?;
    let failed =
        |error: &pgfleet_postgres::Error| Error::postgres(format!("cannot read database {}", database.name), error);
    let content = read_inside(&connection, database, others).await.map_err(|error| failed(&error))?;
    let steps = content_steps(database, &content, with_meta, others);
    if !steps.is_empty() {
        let server = provisioned.server.clone();
        // Held inside this database, so that two provisioners do not change one catalog row at once.
        take_lock(&connection, &server).await?;
        let content = read_inside(&connection, database, others).await.map_err(|error| failed(&error))?;
        let steps = content_steps(database, &content, with_meta, others);
        execute(&connection, &steps, &server, vault, provisioned).await?;
    }
    connection.close().await;
    Ok(())
}

/// What a database made from template0 holds.
fn fresh(owner: &str) -> ContentState {
    let mut content = ContentState::default();
    let public = [("pg_database_owner", "USAGE"), ("pg_database_owner", "CREATE"), ("", "USAGE")];
    let acl = public.iter().map(|(grantee, right)| ((*grantee).to_owned(), (*right).to_owned())).collect();
    content.schemas.insert("public".to_owned(), ("pg_database_owner".to_owned(), acl));
    debug_assert!(!owner.is_empty());
    content
}

/// Ends the sessions of roles that no longer may be where they are connected: a revoke does not end
/// them.
pub async fn end_strangers(admin: &Address, desired: &DesiredServer) -> Result<usize, Error> {
    let failed = |error: &pgfleet_postgres::Error| {
        Error::postgres(format!("cannot look at the sessions of server {}", desired.server), error)
    };
    let connection = match connect(admin, &Purpose::new("pgfleet provision")).await {
        Ok(connection) => connection,
        Err(error) if error.kind() == PgErrorKind::DatabaseMissing => return Ok(0),
        Err(error) => return Err(failed(&error)),
    };
    let names: Vec<String> = [META].into_iter().chain(desired.roles()).map(pgfleet_postgres::quote_literal).collect();
    let rows = connection
        .simple(&format!(
            "SELECT pg_catalog.pg_terminate_backend(a.pid) FROM pg_catalog.pg_stat_activity a \
             WHERE (a.usename IN ({}) \
                    OR pg_catalog.starts_with(pg_catalog.shobj_description(a.usesysid, 'pg_authid'), {})) \
               AND a.datname IS NOT NULL \
               AND NOT pg_catalog.has_database_privilege(a.usesysid, a.datid, 'CONNECT')",
            names.join(", "),
            pgfleet_postgres::quote_literal(&desired.family())
        ))
        .await
        .map_err(|error| failed(&error))?;
    connection.close().await;
    Ok(rows.len())
}

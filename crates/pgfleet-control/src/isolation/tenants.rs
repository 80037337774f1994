//! Tenants' databases: who may enter them, and what services reach that are side by side in one.
//!
//! There may be thousands. What the catalogs say is read for all of them in one query per server; real
//! logins, and a look inside, are for a sample unless all are asked for.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use pgfleet_postgres::{Connection, ErrorKind as PgErrorKind, Purpose, Type, connect, quote_ident};
use serde::Serialize;

use super::{CONCURRENCY, Entered, Verdict, credential_at, enter};
use crate::connections::has_tenants;
use crate::error::Error;
use crate::manifest::Service;
use crate::roles::{Login, Roles};
use crate::solution::Solution;

/// How many of a server's databases are entered when not all are asked for.
const SAMPLE: usize = 8;

/// What was found about tenants' databases.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TenantProof {
    /// How many databases have rights that were compared with what they should be.
    pub databases: usize,
    /// How many of these every login tried to enter, and were looked into.
    pub probed: usize,
    /// How many logins got an answer there.
    pub logins: usize,
    /// What is not as it should be.
    pub holes: Vec<TenantHole>,
}

/// What is wrong with one database of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TenantHole {
    /// The server.
    pub server: String,
    /// The database.
    pub database: String,
    /// The tenant.
    pub tenant: String,
    /// `open`, or `locked-out`.
    pub verdict: Verdict,
    /// What is wrong.
    pub message: String,
    /// The statement for the administrator.
    pub hint: String,
}

impl TenantProof {
    pub(super) fn add(&mut self, other: Self) {
        self.databases += other.databases;
        self.probed += other.probed;
        self.logins += other.logins;
        self.holes.extend(other.holes);
    }
}

/// A database as the control database has it.
#[derive(Debug)]
pub(super) struct Known {
    database: String,
    tenant: String,
    services: Vec<String>,
    state: String,
}

impl Known {
    fn holds(&self, service: &Service) -> bool {
        self.services.contains(&service.name)
    }

    fn hole(&self, server: &str, verdict: Verdict, message: String, hint: String) -> TenantHole {
        let (database, tenant) = (self.database.clone(), self.tenant.clone());
        TenantHole { server: server.to_owned(), database, tenant, verdict, message, hint }
    }

    /// Returns how messages call it.
    fn name(&self) -> String {
        format!("database {} of tenant {}", self.database, self.tenant)
    }
}

/// A role that may try to enter.
#[derive(Debug)]
struct Caller<'a> {
    service: &'a Service,
    login: Login,
    role: String,
    logs_in: bool,
}

/// What the catalogs say of one database.
struct Rights {
    takes_connections: bool,
    public: bool,
    roles: BTreeSet<String>,
}

/// Lists the databases that pgfleet made for tenants, by server.
pub(super) async fn known(solution: &Solution) -> Result<BTreeMap<String, Vec<Known>>, Error> {
    let mut by_server: BTreeMap<String, Vec<Known>> = BTreeMap::new();
    let Some(catalogue) = solution.catalogue_if_any().await? else { return Ok(by_server) };
    let rows = catalogue
        .connection()
        .query(
            "SELECT server, database, tenant, services, state FROM control.tenant_databases ORDER BY server, database",
            &[],
        )
        .await;
    catalogue.close().await;
    for row in rows.map_err(|error| Error::postgres("cannot read the tenants' databases", &error))? {
        let known = Known { database: row.get(1), tenant: row.get(2), services: row.get(3), state: row.get(4) };
        by_server.entry(row.get(0)).or_default().push(known);
    }
    Ok(by_server)
}

/// Compares the tenants' databases of one server with what they should be.
pub(super) async fn verify(
    solution: &Solution,
    server: &str,
    admin: &Connection,
    known: &[Known],
    all: bool,
) -> Result<TenantProof, Error> {
    if known.is_empty() {
        return Ok(TenantProof::default());
    }
    let failed = |error: &pgfleet_postgres::Error| {
        Error::postgres(format!("cannot verify the isolation of tenants on server {server}"), error)
    };
    let callers = callers(solution, admin).await.map_err(|error| failed(&error))?;
    let rights = rights(admin, &callers, known).await.map_err(|error| failed(&error))?;
    // One that is not there is a matter of provisioning, not of isolation.
    let present: Vec<(&Known, &Rights)> =
        known.iter().filter_map(|known| Some((known, rights.get(&known.database)?))).collect();
    let mut proof = TenantProof { databases: present.len(), ..TenantProof::default() };
    for (known, rights) in &present {
        proof.holes.extend(by_catalog(server, known, rights, &callers));
    }
    let open = |(known, rights): &&(&Known, &Rights)| known.state == "open" && rights.takes_connections;
    let open: Vec<&(&Known, &Rights)> = present.iter().filter(open).collect();
    let wanted = if all { open.len() } else { SAMPLE.min(open.len()) };
    // Spread over all, and the same ones each time.
    let sample: Vec<&(&Known, &Rights)> = (0..wanted).map(|at| open[at * open.len() / wanted]).collect();
    proof.probed = sample.len();
    let tries = sample.iter().flat_map(|place| callers.iter().map(move |caller| (*place, caller)));
    let tried = stream::iter(tries.filter(|(_, caller)| caller.logs_in))
        .map(async |(place, caller)| by_login(solution, server, place, caller).await)
        .buffer_unordered(CONCURRENCY);
    for (answered, hole) in tried.collect::<Vec<_>>().await {
        proof.logins += usize::from(answered);
        proof.holes.extend(hole);
    }
    let inside = stream::iter(&sample)
        .map(async |(known, _)| look_inside(solution, server, known, &callers).await)
        .buffer_unordered(CONCURRENCY);
    for holes in inside.collect::<Vec<_>>().await {
        proof.holes.extend(holes.map_err(|error| failed(&error))?);
    }
    Ok(proof)
}

/// Lists the login roles of all services that are on the server.
async fn callers<'a>(solution: &'a Solution, admin: &Connection) -> Result<Vec<Caller<'a>>, pgfleet_postgres::Error> {
    let mut callers: Vec<Caller<'_>> = Vec::new();
    for service in &solution.manifest.services {
        let roles = Roles::of(&service.name);
        for (login, role) in Login::ALL.into_iter().flat_map(|login| roles.both(login).map(|role| (login, role))) {
            callers.push(Caller { service, login, role: role.to_owned(), logs_in: false });
        }
    }
    let names: Vec<&str> = callers.iter().map(|caller| caller.role.as_str()).collect();
    let rows = admin
        .query(
            "SELECT rolname::text, rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = ANY ($1)",
            &[(&names, Type::TEXT_ARRAY)],
        )
        .await?;
    let present: BTreeMap<&str, bool> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    callers.retain_mut(|caller| {
        let found = present.get(caller.role.as_str());
        caller.logs_in = found == Some(&true);
        found.is_some()
    });
    Ok(callers)
}

/// Reads what the catalogs say of these databases: one query.
async fn rights(
    admin: &Connection,
    callers: &[Caller<'_>],
    known: &[Known],
) -> Result<BTreeMap<String, Rights>, pgfleet_postgres::Error> {
    let databases: Vec<&str> = known.iter().map(|known| known.database.as_str()).collect();
    let roles: Vec<&str> = callers.iter().map(|caller| caller.role.as_str()).collect();
    let rows = admin
        .query(
            "WITH callers AS MATERIALIZED (SELECT oid, rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY ($2)) \
             SELECT d.datname::text, d.datallowconn, \
                    EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a \
                            WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT'), \
                    ARRAY(SELECT c.rolname FROM callers c \
                          WHERE pg_catalog.has_database_privilege(c.oid, d.oid, 'CONNECT')) \
             FROM pg_catalog.pg_database d WHERE d.datname = ANY ($1)",
            &[(&databases, Type::TEXT_ARRAY), (&roles, Type::TEXT_ARRAY)],
        )
        .await?;
    let rights = rows.iter().map(|row| {
        let roles: Vec<String> = row.get(3);
        let found = Rights { takes_connections: row.get(1), public: row.get(2), roles: roles.into_iter().collect() };
        (row.get(0), found)
    });
    Ok(rights.collect())
}

/// Whether a role is that of a guest: its service uses a module of one whose data is in the database.
fn is_guest(known: &Known, caller: &Caller<'_>) -> bool {
    let uses = || caller.service.uses.iter().any(|uses| known.services.contains(&uses.service));
    caller.login == Login::App && has_tenants(caller.service) && uses()
}

/// Judges a database by what the catalogs say.
fn by_catalog(server: &str, known: &Known, rights: &Rights, callers: &[Caller<'_>]) -> Vec<TenantHole> {
    let mut holes = Vec::new();
    let (name, database) = (known.name(), quote_ident(&known.database));
    let is_open = known.state == "open";
    if rights.public {
        let hint = format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC");
        holes.push(known.hole(server, Verdict::Open, format!("PUBLIC may connect to {name}"), hint));
    }
    if is_open && !rights.takes_connections {
        let hint = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true");
        holes.push(known.hole(server, Verdict::LockedOut, format!("{name} takes no connections"), hint));
    }
    let mut enters_closed = false;
    for caller in callers {
        let expected = known.holds(caller.service) || is_guest(known, caller);
        let allowed = rights.roles.contains(&caller.role);
        enters_closed |= allowed && caller.logs_in;
        if allowed && !expected && !rights.public {
            holes.push(stranger(server, known, caller));
        } else if is_open && known.holds(caller.service) && caller.logs_in && !allowed {
            holes.push(locked_out(server, known, caller, "it has no right to connect"));
        }
    }
    if known.state == "closed" && rights.takes_connections && enters_closed {
        let hint = format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false");
        holes.push(known.hole(server, Verdict::Open, format!("{name} was closed, and takes connections"), hint));
    }
    holes
}

fn stranger(server: &str, known: &Known, caller: &Caller<'_>) -> TenantHole {
    let (role, database) = (quote_ident(&caller.role), quote_ident(&known.database));
    let message = format!("role {} may connect to {}", caller.role, known.name());
    known.hole(server, Verdict::Open, message, format!("REVOKE CONNECT ON DATABASE {database} FROM {role}"))
}

fn locked_out(server: &str, known: &Known, caller: &Caller<'_>, why: &str) -> TenantHole {
    let (role, database) = (quote_ident(&caller.role), quote_ident(&known.database));
    let message = format!("role {} cannot connect to {}: {why}", caller.role, known.name());
    known.hole(server, Verdict::LockedOut, message, format!("GRANT CONNECT ON DATABASE {database} TO {role}"))
}

/// Tries one login; returns whether there was an answer, and what is wrong with it that the catalogs do not
/// show.
async fn by_login(
    solution: &Solution,
    server: &str,
    (known, rights): &(&Known, &Rights),
    caller: &Caller<'_>,
) -> (bool, Option<TenantHole>) {
    let Some(credential) = credential_at(solution, server, caller.service, &caller.role) else { return (false, None) };
    let allowed = rights.roles.contains(&caller.role);
    match enter(solution, server, &caller.role, credential, &known.database).await {
        Entered::In(connection) => {
            connection.close().await;
            (true, (!allowed).then(|| stranger(server, known, caller)))
        }
        Entered::Refused(answer) => {
            let ours = allowed && known.holds(caller.service);
            (true, ours.then(|| locked_out(server, known, caller, &answer)))
        }
        Entered::Unanswered => (false, None),
    }
}

/// Looks what the services that are in one database, and their guests, may do with each other's tables
/// there: nothing, but for the schemas of modules that are declared.
async fn look_inside(
    solution: &Solution,
    server: &str,
    known: &Known,
    callers: &[Caller<'_>],
) -> Result<Vec<TenantHole>, pgfleet_postgres::Error> {
    let inside: Vec<&Caller<'_>> =
        callers.iter().filter(|caller| known.holds(caller.service) || is_guest(known, caller)).collect();
    let owners: BTreeMap<String, &str> =
        known.services.iter().map(|service| (Roles::of(service).owner, service.as_str())).collect();
    let admin = solution.server(server).admin.with_database(&known.database);
    let connection = match connect(&admin, &Purpose::new("pgfleet isolation")).await {
        Ok(connection) => connection,
        // Dropped or closed since it was listed.
        Err(error) if error.kind() == PgErrorKind::DatabaseMissing || error.sql_state() == Some("55000") => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let roles: Vec<&str> = inside.iter().map(|caller| caller.role.as_str()).collect();
    let names: Vec<&str> = owners.keys().map(String::as_str).collect();
    let rows = connection
        .query(
            "SELECT r.rolname::text, o.rolname::text, n.nspname::text, min(c.relname::text), count(*) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_catalog.pg_roles o ON o.oid = c.relowner \
             JOIN pg_catalog.pg_roles r ON r.rolname = ANY ($1) \
             WHERE o.rolname = ANY ($2) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') \
               AND pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE') \
               AND CASE WHEN c.relkind = 'S' THEN pg_catalog.has_sequence_privilege(r.oid, c.oid, 'USAGE, SELECT, UPDATE') \
                   ELSE pg_catalog.has_table_privilege(r.oid, c.oid, \
                          'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER') \
                     OR pg_catalog.has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES') END \
             GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
            &[(&roles, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)],
        )
        .await;
    connection.close().await;
    let mut holes = Vec::new();
    for row in rows? {
        let (role, owner, schema, table): (&str, &str, &str, &str) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let Some(caller) = inside.iter().find(|caller| caller.role == role) else { continue };
        let Some(owner) = owners.get(owner).filter(|owner| **owner != caller.service.name) else { continue };
        if caller.login == Login::App && is_declared(solution, caller.service, owner, schema) {
            continue;
        }
        let more = match row.get::<_, i64>(4) - 1 {
            0 => String::new(),
            more => format!(" and {more} more of the schema"),
        };
        let message = format!("role {role} has rights on {schema}.{table}{more} in {}", known.name());
        let hint = format!("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}", quote_ident(schema), quote_ident(role));
        holes.push(known.hole(server, Verdict::Open, message, hint));
    }
    Ok(holes)
}

/// Whether a service declares the use of the module of another one that is in a schema.
fn is_declared(solution: &Solution, guest: &Service, owner: &str, schema: &str) -> bool {
    let modules = &solution.manifest.modules;
    let mut uses = guest.uses.iter().filter(|uses| uses.service == owner);
    uses.any(|uses| modules.get(&uses.module).and_then(|module| module.schema.as_deref()) == Some(schema))
}

//! Proving that no service reaches another one's databases: from the catalogs, and by trying.

mod probe;
mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use pgfleet_postgres::{Connection, ErrorKind as PgErrorKind, Purpose, connect, quote_literal};
use serde::Serialize;

use crate::connections;
use crate::error::Error;
use crate::manifest::Service;
use crate::provision::DesiredServer;
use crate::roles::{Login, META, Roles};
use crate::solution::Solution;
use crate::vault::Credential;

pub use tenants::{TenantHole, TenantProof};

/// How many logins are tried at a time.
const CONCURRENCY: usize = 8;

/// What a role can do with a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is the service's own database, and the role gets in.
    Own,
    /// The role was refused, as it should be.
    Denied,
    /// The role gets in, and the manifest declares it.
    Declared,
    /// The catalogs say that it is refused; a login could not be tried.
    CatalogOnly,
    /// The role cannot get into its own database.
    LockedOut,
    /// The role gets in and must not.
    Open,
}

impl Verdict {
    /// Returns the word in the matrix.
    pub fn word(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Denied => "denied",
            Self::Declared => "declared",
            Self::CatalogOnly => "catalog only",
            Self::LockedOut => "LOCKED OUT",
            Self::Open => "OPEN",
        }
    }
}

/// One role against one database.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// The service of the role.
    pub service: String,
    /// The role.
    pub role: String,
    /// What the role is for.
    pub login: Login,
    /// The server of the database.
    pub server: String,
    /// The database.
    pub database: String,
    /// The service that the database belongs to; none for the server's and pgfleet's own.
    pub owner: Option<String>,
    /// What the catalogs say: may it connect?
    pub catalog: bool,
    /// What the server answered to a real login; none when none was tried.
    pub login_answer: Option<String>,
    /// The outcome.
    pub verdict: Verdict,
}

/// A hole that is no pair: a membership, a right of PUBLIC, a power, a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The server.
    pub server: String,
    /// The database that is open to everybody, when that is the finding.
    pub public_database: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// The proof.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// Every role of every service against every database.
    pub pairs: Vec<Pair>,
    /// Holes that are no pair.
    pub findings: Vec<Finding>,
    /// Databases that pgfleet made for tenants.
    pub tenants: TenantProof,
}

impl Proof {
    /// Returns whether nothing is open.
    pub fn is_tight(&self) -> bool {
        self.findings.is_empty()
            && self.tenants.holes.is_empty()
            && !self.pairs.iter().any(|pair| matches!(pair.verdict, Verdict::Open | Verdict::LockedOut))
    }

    /// Returns whether a database is open to everybody, which a finding says once for all roles.
    pub fn open_to_public(&self, server: &str, database: &str) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.server == server && finding.public_database.as_deref() == Some(database))
    }

    /// Returns the databases in the order of the matrix's columns: the services', then the others.
    pub fn databases(&self) -> Vec<(String, String)> {
        let mut columns: Vec<(String, String)> = Vec::new();
        for owned in [true, false] {
            for pair in self.pairs.iter().filter(|pair| pair.owner.is_some() == owned) {
                let column = (pair.server.clone(), pair.database.clone());
                if !columns.contains(&column) {
                    columns.push(column);
                }
            }
        }
        columns
    }

    /// Returns the worst verdict of a service's roles on a database.
    pub fn worst(&self, service: &str, server: &str, database: &str) -> Option<Verdict> {
        self.pairs
            .iter()
            .filter(|pair| pair.service == service && pair.server == server && pair.database == database)
            .map(|pair| pair.verdict)
            .max()
    }
}

/// Tries every role of every service on every database of the solution's servers.
///
/// Logins are real: with the role's own password, over the same way that services take. A pair that
/// could not be tried (no password known here, no server answer) is `catalog only`.
///
/// Of tenants' databases a sample is entered; the catalogs are asked about all.
///
/// # Errors
///
/// A server that cannot be reached or read.
pub async fn verify(solution: &Solution) -> Result<Proof, Error> {
    prove(solution, false).await
}

/// Does what [`verify`] does, and tries the logins of every tenant's database.
///
/// # Errors
///
/// As [`verify`].
pub async fn verify_all(solution: &Solution) -> Result<Proof, Error> {
    prove(solution, true).await
}

async fn prove(solution: &Solution, all: bool) -> Result<Proof, Error> {
    let mut pairs = Vec::new();
    let mut findings = Vec::new();
    let mut of_tenants = TenantProof::default();
    let known = tenants::known(solution).await?;
    for (name, server) in solution.servers() {
        let desired = DesiredServer::of(&solution.manifest, name);
        let failed = |error: &pgfleet_postgres::Error| {
            Error::postgres(format!("cannot verify the isolation on server {name}"), error)
        };
        let connection =
            connect(&server.admin, &Purpose::new("pgfleet isolation")).await.map_err(|error| failed(&error))?;
        let catalog = read_catalog(&connection, &desired, solution).await.map_err(|error| failed(&error))?;
        findings.extend(read_findings(&connection, &desired).await.map_err(|error| failed(&error))?);
        let here = known.get(name).map_or(&[][..], Vec::as_slice);
        of_tenants.add(Box::pin(tenants::verify(solution, name, &connection, here, all)).await?);
        connection.close().await;
        pairs.extend(catalog);
    }
    let solution = Arc::new(solution);
    let tried = stream::iter(pairs.into_iter().map(|pair| {
        let solution = solution.clone();
        async move { try_login(&solution, pair).await }
    }))
    .buffered(CONCURRENCY);
    let mut pairs = Vec::new();
    for (pair, inside) in tried.collect::<Vec<_>>().await {
        pairs.push(pair);
        findings.extend(inside);
    }
    Ok(Proof { pairs, findings, tenants: of_tenants })
}

/// Lists all pairs of one server with what the catalogs say.
async fn read_catalog(
    connection: &Connection,
    desired: &DesiredServer,
    solution: &Solution,
) -> Result<Vec<Pair>, pgfleet_postgres::Error> {
    let mut databases: Vec<(String, Option<String>)> =
        desired.databases.iter().map(|d| (d.name.clone(), Some(d.service.clone()))).collect();
    databases.extend(desired.control.iter().map(|name| (name.clone(), None)));
    databases.extend(["postgres", "template1"].map(|name| (name.to_owned(), None)));
    let services: Vec<&str> = solution.manifest.services.iter().map(|service| service.name.as_str()).collect();
    let mut roles = Vec::new();
    for service in &services {
        let names = Roles::of(service);
        roles.extend(Login::ALL.into_iter().flat_map(|login| names.both(login).map(str::to_owned)));
    }
    let list = |names: &mut dyn Iterator<Item = &str>| names.map(quote_literal).collect::<Vec<_>>().join(", ");
    let rows = connection
        .simple(&format!(
            "SELECT r.rolname, d.datname, pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT')::int, \
                    r.rolcanlogin::int \
             FROM pg_catalog.pg_roles r, pg_catalog.pg_database d \
             WHERE r.rolname IN ({}) AND d.datname IN ({})",
            list(&mut roles.iter().map(String::as_str)),
            list(&mut databases.iter().map(|(name, _)| name.as_str())),
        ))
        .await?;
    let mut allowed: BTreeMap<(String, String), bool> = BTreeMap::new();
    // Of the two roles of a login those count that may log in, and the first when it should.
    let mut logs_in: BTreeMap<String, bool> = BTreeMap::new();
    for row in &rows {
        logs_in.insert(row.get(0).unwrap_or_default().to_owned(), row.get(3) == Some("1"));
        let text = |at: usize| row.get(at).unwrap_or_default().to_owned();
        allowed.insert((text(0), text(1)), row.get(2) == Some("1"));
    }
    let mut pairs = Vec::new();
    for service in services {
        let names = Roles::of(service);
        // Where a service has roles, their passwords are those of the server.
        let here = desired.residents.iter().any(|resident| resident.service == service);
        let home = solution.manifest.service(service).map_or("", |service| service.server.as_str());
        let home = if here { desired.server.as_str() } else { home };
        for (login, role) in Login::ALL.into_iter().flat_map(|login| names.both(login).map(|role| (login, role))) {
            let known = solution.credential(home, role).is_some();
            let stands_in = role == names.login(login) && solution.credential(home, names.twin(login)).is_none();
            if !known && !stands_in && logs_in.get(role) != Some(&true) {
                continue;
            }
            let role = role.to_owned();
            for (database, owner) in &databases {
                pairs.push(Pair {
                    service: service.to_owned(),
                    catalog: allowed.get(&(role.clone(), database.clone())).copied().unwrap_or(false),
                    role: role.clone(),
                    login,
                    server: desired.server.clone(),
                    database: database.clone(),
                    owner: owner.clone(),
                    login_answer: None,
                    verdict: Verdict::CatalogOnly,
                });
            }
        }
    }
    Ok(pairs)
}

/// Tries one login and judges the pair.
async fn try_login(solution: &Solution, mut pair: Pair) -> (Pair, Vec<Finding>) {
    let own = pair.owner.as_deref() == Some(pair.service.as_str());
    let schemas = declared_schemas(solution, &pair);
    // Who asks for tenants reaches no table in the control database, which is tried, too.
    let declared = !schemas.is_empty() || asks_for_tenants(solution, &pair);
    let mut findings = Vec::new();
    let mut entered = None;
    let service = solution.manifest.service(&pair.service);
    if let Some(credential) = service.and_then(|service| credential_at(solution, &pair.server, service, &pair.role)) {
        match enter(solution, &pair.server, &pair.role, credential, &pair.database).await {
            Entered::In(connection) => {
                if declared {
                    match probe::probe(&connection, &pair, &schemas).await {
                        Ok(found) => findings = found,
                        Err(error) => findings.push(Finding {
                            server: pair.server.clone(),
                            public_database: None,
                            message: format!(
                                "what role {} reaches in database {} could not be tried: {error}",
                                pair.role, pair.database
                            ),
                            hint: "run it again".to_owned(),
                        }),
                    }
                }
                connection.close().await;
                pair.login_answer = Some("connected".to_owned());
                entered = Some(true);
            }
            Entered::Refused(answer) => {
                pair.login_answer = Some(answer);
                entered = Some(false);
            }
            Entered::Unanswered => {}
        }
    }
    let gets_in = entered.unwrap_or(pair.catalog);
    pair.verdict = match (own, gets_in || pair.catalog) {
        (true, _) if gets_in => Verdict::Own,
        (true, _) => Verdict::LockedOut,
        (false, true) if declared => Verdict::Declared,
        (false, true) => Verdict::Open,
        (false, false) if entered.is_none() => Verdict::CatalogOnly,
        (false, false) => Verdict::Denied,
    };
    (pair, findings)
}

/// Returns a role's password on a server; where it has none there, the one that it has at home.
fn credential_at<'a>(solution: &'a Solution, server: &str, service: &Service, role: &str) -> Option<&'a Credential> {
    solution.credential(server, role).or_else(|| solution.credential(&service.server, role))
}

/// What came of trying to enter a database.
enum Entered {
    In(Box<Connection>),
    /// The server's words.
    Refused(String),
    Unanswered,
}

/// Tries to enter a database as one role.
async fn enter(solution: &Solution, server: &str, role: &str, credential: &Credential, database: &str) -> Entered {
    let admin = &solution.server(server).admin;
    let address = admin.with_database(database).with_user(role, Some(credential.password.clone()));
    match connect(&address, &Purpose::new("pgfleet isolation").setting("lock_timeout", "2s")).await {
        Ok(connection) => Entered::In(Box::new(connection)),
        Err(error) if error.kind() == PgErrorKind::Denied => {
            Entered::Refused(error.server().map_or_else(|| error.to_string(), |server| server.message.clone()))
        }
        // Anything else (a full server, a database that is being made) proves nothing.
        Err(error) => {
            tracing::debug!(%error, role, database, "login could not be tried");
            Entered::Unanswered
        }
    }
}

/// Whether a role is that of a service with tenants, which asks for them in the control database.
fn asks_for_tenants(solution: &Solution, pair: &Pair) -> bool {
    let control = &solution.manifest.control;
    let is_control = pair.server == control.server && pair.database == control.database;
    let service = solution.manifest.service(&pair.service);
    is_control && pair.login == Login::App && service.is_some_and(connections::has_tenants)
}

/// The schemas that a role may use in a database by what the manifest declares; none for its own.
fn declared_schemas<'a>(solution: &'a Solution, pair: &Pair) -> BTreeSet<&'a str> {
    let manifest = &solution.manifest;
    let service = manifest.service(&pair.service).filter(|_| pair.login == Login::App);
    let uses = service.into_iter().flat_map(|service| &service.uses);
    let here = uses.filter(|uses| Some(&uses.service) == pair.owner.as_ref());
    here.filter_map(|uses| manifest.modules.get(&uses.module)?.schema.as_deref()).collect()
}

/// Finds what is open without being a pair.
async fn read_findings(
    connection: &Connection,
    desired: &DesiredServer,
) -> Result<Vec<Finding>, pgfleet_postgres::Error> {
    let mut findings = Vec::new();
    let mut public = Vec::new();
    let mut add = |message: String, hint: String| {
        findings.push(Finding { server: desired.server.clone(), public_database: None, message, hint });
    };
    let ours: Vec<String> = desired.roles().map(quote_literal).collect();
    let ours = if ours.is_empty() { "''".to_owned() } else { ours.join(", ") };
    let heal = "pgfleet provision".to_owned();
    let rows = connection
        .simple(
            "SELECT d.datname, d.datdba = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = current_user) \
                    OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) \
             FROM pg_catalog.pg_database d, \
             LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a \
             WHERE a.grantee = 0 AND a.privilege_type = 'CONNECT' AND d.datallowconn",
        )
        .await?;
    let watched: Vec<&str> = desired
        .databases
        .iter()
        .map(|database| database.name.as_str())
        .chain(desired.control.as_deref())
        .chain(["postgres", "template1"])
        .collect();
    for row in &rows {
        let name = row.get(0).unwrap_or_default();
        if watched.contains(&name) {
            let hint = if row.get(1) == Some("t") {
                heal.clone()
            } else {
                format!(
                    "as a superuser: REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
                    pgfleet_postgres::quote_ident(name)
                )
            };
            public.push(Finding {
                server: desired.server.clone(),
                public_database: Some(name.to_owned()),
                message: format!("PUBLIC may connect to database {name}"),
                hint,
            });
        }
    }
    let rows = connection
        .simple(&format!(
            "SELECT m.rolname, g.rolname FROM pg_catalog.pg_auth_members a \
             JOIN pg_catalog.pg_roles m ON m.oid = a.member JOIN pg_catalog.pg_roles g ON g.oid = a.roleid \
             WHERE m.rolname IN ({ours})"
        ))
        .await?;
    for row in &rows {
        let (member, group) = (row.get(0).unwrap_or_default(), row.get(1).unwrap_or_default());
        let acts = desired.residents.iter().any(|r| r.roles.migrator == member && r.roles.owner == group);
        let twin = desired.logins().any(|(_, roles, login)| roles.both(login) == [group, member]);
        let wanted = acts || twin;
        if !wanted {
            let hint = if group == META || ours.contains(&quote_literal(group)) {
                heal.clone()
            } else {
                let (group, member) = (pgfleet_postgres::quote_ident(group), pgfleet_postgres::quote_ident(member));
                format!("as a superuser: REVOKE {group} FROM {member}")
            };
            add(format!("role {member} is a member of {group}"), hint);
        }
    }
    let rows = connection
        .simple(&format!(
            "SELECT rolname, concat_ws(', ', CASE WHEN rolsuper THEN 'superuser' END, \
                    CASE WHEN rolcreaterole THEN 'createrole' END, CASE WHEN rolcreatedb THEN 'createdb' END, \
                    CASE WHEN rolreplication THEN 'replication' END, CASE WHEN rolbypassrls THEN 'bypassrls' END) \
             FROM pg_catalog.pg_roles WHERE rolname IN ({ours}) \
               AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)"
        ))
        .await?;
    for row in &rows {
        let (role, powers) = (row.get(0).unwrap_or_default(), row.get(1).unwrap_or_default());
        add(format!("role {role} has power over the whole server: {powers}"), heal.clone());
    }
    let rows = connection
        .simple(&format!(
            "SELECT pid, usename, datname, application_name FROM pg_catalog.pg_stat_activity \
             WHERE usename IN ({ours}) AND datname IS NOT NULL \
               AND NOT pg_catalog.has_database_privilege(usesysid, datid, 'CONNECT')"
        ))
        .await?;
    for row in &rows {
        let text = |at: usize| row.get(at).unwrap_or_default();
        add(
            format!("role {} still has a session in database {} (pid {}, {})", text(1), text(2), text(0), text(3)),
            format!("select pg_terminate_backend({})", text(0)),
        );
    }
    public.extend(findings);
    Ok(public)
}
